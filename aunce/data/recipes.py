"""How an image becomes a crop, as far as names and hashes need it; `images` does it. Imports next to nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from aunce.errors import UsageError
from aunce.identity import digest, hashed_fields

EYES = ((0.328, 0.35), (0.672, 0.35))
"""Where the eyes come to lie in an aligned crop, shares of its side, that at the image's left first. Brows and chin
stay inside with the jaw dropped; the distance is 1 / 2.9 of the side, as in JAA-Net's box."""


@dataclass(frozen=True)
class Recipe:
    """How an image becomes a crop.

    Attributes:
        size: side of the crops in pixels.
        align: "none" takes the largest centred square, resized by area averaging; "landmarks" turns, scales and moves
            the face so that the eyes of the shipped landmarks lie at `EYES`; "detector" the same with eyes that a face
            detector finds. What lies outside the image is grey (128).
        detector: "mtcnn", "cascade" or the path of a YuNet file, see `faces`. The hash covers the file, not its path.
        version: of the rule. It changes when the same image would give another crop.
    """

    size: int = 48
    align: Literal["none", "landmarks", "detector"] = "none"
    detector: str = "mtcnn"
    version: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"size of the crops is {self.size}. Expected 1 or more pixels.")
        if self.align not in ("none", "landmarks", "detector"):
            raise UsageError(f"alignment {self.align!r} is unknown. Known: none, landmarks, detector.")

    @property
    def content(self) -> dict[str, Any]:
        """What decides the pixels of a crop, as plain JSON values. A later field enters where it is not its default."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        content = hashed_fields(dataclasses.asdict(self), ("size", "version"), defaults)
        content.pop("detector", None)
        if self.align != "none":
            content["eyes"] = [list(eye) for eye in EYES]
        if self.align == "detector":
            from aunce.data import faces

            content["detector"] = faces.identity(self.detector)
        return content

    @property
    def hash(self) -> str:
        """Eight hex digits over `content`."""
        return digest(self.content)
