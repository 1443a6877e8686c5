"""Two packs as one: train on one data set, test on another, by the AUs that both label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aunce.data.frames import FrameTable, Protocol
from aunce.data.images import FaceCrops
from aunce.errors import UsageError

TRAIN, TEST = "train", "test"
"""The parts of a joined pack: everybody of the first data set, everybody of the second."""


class Stacked:
    """Two memory-mapped arrays one after the other, read row by row like one.

    Args:
        first: (n, H, W, 3); `second` (m, H, W, 3).
    """

    def __init__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        self.first, self.second = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])
        self.dtype = first.dtype

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        yield from self.first
        yield from self.second

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images of row numbers (b,), in their order: (b, H, W, 3)."""
        rows = np.asarray(rows)
        late = rows >= len(self.first)
        chosen = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        chosen[~late] = self.first[rows[~late]]
        chosen[late] = self.second[rows[late] - len(self.first)]
        return chosen


def join(train: FaceCrops, test: FaceCrops) -> FaceCrops:
    """One pack of two data sets, whose parts `TRAIN` and `TEST` are all subjects of the first and of the second.

    Subjects are called `<data set>:<subject>`, so that two data sets that use one name for two people stay apart. AUs
    are those of both; a null AU stays if both have it.

    Raises:
        UsageError: the data sets share no AU, or their crops differ in size.
    """
    names = [pack.table.protocol.name for pack in (train, test)]
    shared = tuple(au for au in train.table.protocol.aus if au in test.table.protocol.aus)
    if not shared:
        raise UsageError(f"{names[0]} and {names[1]} label no AU in common: nothing can be tested.")
    if train.recipe != test.recipe:
        raise UsageError(
            f"crops of {names[0]} and {names[1]} differ: {train.recipe} and {test.recipe}. Pack them alike."
        )
    null = tuple(au for au in train.table.null_aus if au in test.table.null_aus)
    columns = [f"AU{au}" for au in (*shared, *null)]
    tables = []
    for pack, name, part in ((train, names[0], TRAIN), (test, names[1], TEST)):
        frames = pack.table.frames
        kept = frames[["subject", "sequence", "frame", "image", *columns]]
        tables.append(kept.assign(subject=f"{name}:" + frames["subject"], part=part))
    frames = pd.concat(tables, ignore_index=True)[["subject", "sequence", "frame", "image", "part", *columns]]
    parts = {part: frozenset(table["subject"]) for part, table in zip((TRAIN, TEST), tables, strict=True)}
    hashes: dict[str, Any] = {TRAIN: train.table.protocol.hash, TEST: test.table.protocol.hash}
    protocol = Protocol(f"{names[0]} to {names[1]}", shared, parts, settings=hashes)
    table = FrameTable(
        frames,
        protocol,
        null,
        train.table.synthetic or test.table.synthetic,
        train.table.missing_images + test.table.missing_images,
    )
    latents = None
    if train.latents is not None and test.latents is not None:
        latents = pd.concat([train.latents, test.latents], ignore_index=True)
        latents["subject"] = frames["subject"]  # rows as in the table, and so are the names
    both = hashlib.sha256(f"{train.hash} {test.hash}".encode()).hexdigest()[:8]
    images: Any = Stacked(train.images, test.images)
    return FaceCrops(
        table,
        images,
        latents,
        train.recipe,
        both,
        train.folder,
        train.no_face + test.no_face,
        train.broken + test.broken,
    )
