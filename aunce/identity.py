"""Names that are hashes of what decides a result: digests, and which fields enter them."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any


def digest(content: Any) -> str:
    """8 hex digits over `content`, the same in every process and for every order of dictionary entries."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def hashed_fields(values: Mapping[str, Any], first: Collection[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that enter a hash, so that a field which comes later renames nothing that was hashed before.

    Args:
        values: field -> value.
        first: fields of the first edition. They always enter, and must never change.
        defaults: field -> default. A field that is not of the first edition enters only where its value differs.
    """
    return {name: value for name, value in values.items() if name in first or value != defaults[name]}
