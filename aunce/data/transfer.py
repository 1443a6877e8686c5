"""Several packs as one: a test on another data set, or on people of populations of their own."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aunce.data import TEST, TRAIN, VALIDATION
from aunce.data.frames import FrameTable, Protocol, Split
from aunce.data.images import FaceCrops
from aunce.errors import UsageError


class Stacked:
    """Memory-mapped arrays one after the other, read row by row like one.

    Args:
        arrays: (n, H, W, 3) each, with n of their own.
    """

    def __init__(self, arrays: Sequence[NDArray[np.uint8]]) -> None:
        self.arrays = arrays
        self.stops = np.cumsum([len(array) for array in arrays])
        self.shape: tuple[int, ...] = (int(self.stops[-1]), *arrays[0].shape[1:])
        self.dtype = arrays[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return itertools.chain.from_iterable(self.arrays)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images of row numbers (b,), in their order: (b, H, W, 3)."""
        rows = np.asarray(rows)
        home = np.searchsorted(self.stops, rows, side="right")  # (b)
        chosen = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for number in np.unique(home):
            mine = home == number  # (b)
            start = self.stops[number] - len(self.arrays[number])
            chosen[mine] = self.arrays[number][rows[mine] - start]
        return chosen


def join(train: FaceCrops, test: FaceCrops) -> FaceCrops:
    """One pack of two data sets, whose parts `TRAIN` and `TEST` are all subjects of the first and of the second.

    Subjects are called `<data set>:<subject>`, so that two data sets that use one name for two people stay apart. AUs
    are those of both; a null AU stays if both have it.

    Raises:
        UsageError: the data sets share no AU, or their crops differ in size.
    """
    names = [pack.table.protocol.name for pack in (train, test)]
    return _joined(f"{names[0]} to {names[1]}", [(train, TRAIN, names[0]), (test, TEST, names[1])])


def join_populations(
    train: FaceCrops, validation: FaceCrops, tests: Sequence[FaceCrops], targets: Mapping[str, FaceCrops]
) -> FaceCrops:
    """One pack of populations: parts `TRAIN`, `VALIDATION`, `TEST` (several populations) and one for each target.

    Subjects are called `<population>:<subject>`, with the populations train, validation, test 1, test 2 and so on, and
    the names of the targets. An AU that a target does not label is unknown there.

    Raises:
        UsageError: the populations, or a target and they, share no AU; or their crops differ in size.
    """
    members = [(train, TRAIN, TRAIN), (validation, VALIDATION, VALIDATION)]
    members += [(test, TEST, f"{TEST} {number}") for number, test in enumerate(tests, 1)]
    name = f"populations of {train.table.protocol.name}"
    return _joined(name, [*members, *((pack, target, target) for target, pack in targets.items())])


def split(table: FrameTable) -> Split:
    """The rows of the parts `TRAIN`, `VALIDATION` and `TEST` of joined populations.

    Raises:
        DataError: an AU has no positive frame to train on.
    """
    part = table.frames["part"].to_numpy()
    rows = Split(*(np.flatnonzero(part == name) for name in (TRAIN, VALIDATION, TEST)))
    table.check_split(rows)
    return rows


def population_of(subjects: pd.Series) -> pd.Series:
    """The population of subjects of joined populations, by their names."""
    return subjects.str.rpartition(":")[0]


def _joined(name: str, members: Sequence[tuple[FaceCrops, str, str]]) -> FaceCrops:
    """One pack of packs, each with the part that all its subjects are in and the name that goes before theirs.

    The parts `TRAIN`, `VALIDATION` and `TEST` have the AUs that all of them label.
    """
    first = members[0][0]
    home = [pack.table for pack, part, _ in members if part in (TRAIN, VALIDATION, TEST)]
    shared = tuple(au for au in first.table.protocol.aus if all(au in table.protocol.aus for table in home))
    null = tuple(au for au in first.table.null_aus if all(au in table.null_aus for table in home))
    columns = [f"AU{au}" for au in (*shared, *null)]
    begun = first.table.protocol.name
    tables, parts, hashes = [], dict[str, frozenset[str]](), dict[str, Any]()
    for pack, part, prefix in members:
        protocol, frames = pack.table.protocol, pack.table.frames
        if not set(shared) & set(protocol.aus):
            raise UsageError(f"{begun} and {protocol.name} label no AU in common: nothing can be tested.")
        if pack.recipe != first.recipe:
            raise UsageError(
                f"crops of {begun} and {protocol.name} differ: {first.recipe} and {pack.recipe}. Pack them alike."
            )
        named = frames.assign(subject=f"{prefix}:" + frames["subject"], part=part)
        named = named.reindex(columns=["subject", "sequence", "frame", "image", "part", *columns], fill_value=-1)
        tables.append(named.astype(dict.fromkeys(columns, "int8")))
        parts[part] = parts.get(part, frozenset()) | frozenset(named["subject"])
        hashes[part] = f"{hashes[part]} {protocol.hash}" if part in hashes else protocol.hash
    packs = [pack for pack, _, _ in members]
    frames = pd.concat(tables, ignore_index=True)
    synthetic = next((pack.table.synthetic for pack in packs if pack.table.synthetic), None)
    missing = tuple(itertools.chain.from_iterable(pack.table.missing_images for pack in packs))
    table = FrameTable(frames, Protocol(name, shared, parts, settings=hashes), null, synthetic, missing)
    latents = None
    if all(pack.latents is not None for pack in packs):
        latents = pd.concat([pack.latents for pack in packs], ignore_index=True)
        latents["subject"] = frames["subject"]  # rows as in the table, and so are the names
    images: Any = Stacked([pack.images for pack in packs])
    return FaceCrops(
        table,
        images,
        latents,
        first.recipe,
        hashlib.sha256(" ".join(pack.hash for pack in packs).encode()).hexdigest()[:8],
        first.folder,
        tuple(itertools.chain.from_iterable(pack.no_face for pack in packs)),
        tuple(itertools.chain.from_iterable(pack.broken for pack in packs)),
    )
