"""The door to the data: `load` reads any data set that has an adapter into the one frame table."""

from __future__ import annotations

import functools
import importlib
import json
import os
import tempfile
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aunce.errors import DataError, UsageError

if TYPE_CHECKING:
    from aunce.data.frames import FrameTable, Protocol
    from aunce.data.images import FaceCrops
    from aunce.data.recipes import Recipe


@dataclass(frozen=True)
class DataSet:
    """What is said of a data set before its files are read.

    Attributes:
        title: as its authors write it.
        pixels: side of the crops that a lab keeps.
        align: how faces become crops, see `images.Recipe`: by the landmarks that it ships, by a face detector, or not
            at all, because it ships crops that are aligned.
    """

    title: str
    pixels: int
    align: Literal["none", "landmarks", "detector"]


TRAIN, VALIDATION, TEST = "train", "validation", "test"
"""The parts of packs that are joined, see `transfer`."""

MOST_PIXELS = 100_000_000
"""Of one image, 300 MB decoded; cameras have half as many. A small file may ask for all memory."""
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))  # OpenCV asks when it is imported

LARGEST_MISSING_SHARE = 0.05
"""More labelled frames without an image than this share of a data set are an error, unless they are allowed by name."""

DATASETS: Mapping[str, DataSet] = {
    "bp4d": DataSet("BP4D", 256, "landmarks"),
    "bp4dplus": DataSet("BP4D+", 256, "landmarks"),
    "disfa": DataSet("DISFA", 256, "landmarks"),
    "gft": DataSet("GFT", 256, "detector"),
    "affwild2": DataSet("Aff-Wild2", 112, "none"),
    "table": DataSet("Table of labels", 256, "none"),
}
"""The data sets. Each has an adapter, the module `aunce.data.<name>`: see `Adapter`."""


class Adapter(typing.Protocol):
    """What the module of a data set must have, and what it may have besides.

    It may have:

    - `eyes(root, table)`: centres of the eyes (n, 2, 2) in pixels, x first, that at the image's left first, NaN where
      unknown; None if the root ships no landmarks. Without it crops are not aligned by landmarks.
    - `LAYOUT`, a `render.writing.Layout`, and `write`, its method `render`: rendered faces in the same layout. Without
      them `aunce data synth` does not know the data set, and it has no `tiny` version.
    - `RATES`: AU -> positive rate as published, or part -> AU -> rate; `RATES_STATUS` says how far they are verified.
    - `notes(root)`: heading -> sentence, of what a reader of the data card has to know about this root.
    - `PUBLISHED_FRAMES`: protocol -> part -> number of frames. The data card compares a root with both.
    """

    def read(self, root: str | PathLike[str], *, protocol: Protocol | None, images: str) -> FrameTable:
        """Reads a root, real or rendered.

        Args:
            root: the folder of the data set.
            protocol: None for the first of `protocols`. Its AUs and subjects must be those of the data set.
            images: "required" drops labelled frames without an image and lists them in `missing_images`; "optional"
                keeps them with an empty image path.

        Returns:
            The frame table, rows in the published order. Columns that the protocol does not use may hold anything.

        Raises:
            UsageError: a protocol that the data set cannot serve.
            DataError: file and line of what is wrong; or what the folder looks like if it is another data set.
        """

    def protocols(self, root: str | PathLike[str]) -> dict[str, Protocol]:
        """The protocols in use by name, that of the literature first.

        Raises:
            DataError: the root is not what the layout promises, if the protocols depend on it.
        """

    def fingerprint(self, root: str | PathLike[str]) -> str:
        """Eight hex digits over the label files and `synthetic.json`, see `layout.fingerprint`.

        Raises:
            DataError: the folder is not what the layout promises.
        """


REQUIRED = ("read", "protocols", "fingerprint")
"""What an adapter must define."""


def load(
    name: str,
    root: str | PathLike[str],
    *,
    protocol: Protocol | str | None = None,
    images: Literal["required", "optional"] = "required",
) -> FrameTable:
    """Reads a data set, real or rendered, from its distributed layout.

    Args:
        name: one of `DATASETS`.
        root: the folder of the data set.
        protocol: parts, AU set and frame rule, or the name of one of the data set's own. Default: its first, that of
            the literature.
        images: "required" keeps the frames that have an image; "optional" reads labels alone.

    Returns:
        The checked frame table, rows in the published order.

    Raises:
        UsageError: an unknown name of a data set or protocol, or an unknown value of `images`.
        DataError: the folder is not what its layout promises.

    Example:
        >>> load("bp5d", ".")
        Traceback (most recent call last):
        ...
        aunce.errors.UsageError: unknown data set 'bp5d'. Known: bp4d, bp4dplus, disfa, gft, affwild2, table.
    """
    if images not in ("required", "optional"):
        raise UsageError(f"images is {images!r}. Expected 'required' or 'optional'.")
    module: Adapter = adapter(name)
    if isinstance(protocol, str):
        known = module.protocols(root) if protocol else {"": None}
        if protocol not in known:
            raise UsageError(f"unknown protocol {protocol!r} of {name}. Known: {', '.join(known)}.")
        protocol = known[protocol]
    try:
        return module.read(root, protocol=protocol, images=images)
    except UsageError:
        raise
    except DataError as error:  # a frame table knows its rows, and not where they come from
        raise error if str(root) in str(error) else DataError(f"{root}: {error}") from error
    except ValueError as error:  # of pandas, a number or a text that is not UTF-8
        raise DataError(f"{root}: cannot be read as {name} ({type(error).__name__}: {error})") from error


def data_set(name: str) -> DataSet:
    """What is said of the data set `name`.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}. Known: {', '.join(DATASETS)}.")
    return DATASETS[name]


def adapter(name: str) -> Any:
    """The module that reads a data set's layout, an `Adapter`; untyped, for what it may have besides.

    Raises:
        UsageError: there is none of that name, or it lacks one of `REQUIRED`.
    """
    data_set(name)
    # Imported here: a caller that only lists names pays for neither pandas nor OpenCV.
    module = importlib.import_module(f"aunce.data.{name}")
    lacking = [one for one in REQUIRED if not hasattr(module, one)]
    if lacking:
        raise UsageError(f"aunce/data/{name}.py defines no {', '.join(lacking)}; see aunce.data.Adapter")
    return module


def renderer(name: str) -> Any:
    """The module that writes rendered faces in a data set's layout.

    Raises:
        UsageError: there is no data set of that name, or its adapter only reads.
    """
    module = adapter(name)
    if not (hasattr(module, "write") and hasattr(module, "LAYOUT")):
        raise UsageError(
            f"{DATASETS[name].title} cannot be rendered, as aunce/data/{name}.py defines no write and LAYOUT. Name the "
            "folder of the data set: --root, or the parameter root."
        )
    return module


def cache_folder() -> Path:
    """Where rendered data sets and packs are kept: `$AUNCE_DATA`, or `data/` in the project, which git ignores.

    A package that was installed without its project takes `data/` in the current folder.
    """
    project = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("AUNCE_DATA") or (project if (project / "notebooks").is_dir() else Path.cwd()) / "data")


def pack_faces(
    name: str,
    root: str | PathLike[str],
    out: str | PathLike[str],
    *,
    recipe: Recipe,
    protocol: str = "",
    allow_missing: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FaceCrops:
    """Reads a data set and packs its crops; arguments and errors are those of `load` and `images.pack`.

    `allow_missing` takes more labelled frames without an image than `LARGEST_MISSING_SHARE`, as a pack that is there
    already has done.
    """
    from aunce.data import images

    table = load(name, root, protocol=protocol)
    if not (allow_missing or is_pack(out)):
        refuse_missing(table, root)
    eyes = None
    if recipe.align == "landmarks":
        find = getattr(adapter(name), "eyes", None)
        eyes = None if find is None else find(Path(root), table)
        if eyes is None:
            raise UsageError(
                f"{root}: alignment 'landmarks', but there are none. Put the landmarks of {DATASETS[name].title} there "
                "if it ships any, or align by 'detector'."
            )
    return images.pack(table, root, out, recipe=recipe, eyes=eyes, workers=workers, progress=progress)


def refuse_missing(table: FrameTable, root: str | PathLike[str]) -> str:
    """`FrameTable.without_image`, with the limit of all commands and the root in its error."""
    try:
        return table.without_image(LARGEST_MISSING_SHARE)
    except DataError as error:
        raise DataError(f"{root}: {error}") from None


def tiny(name: str, *, size: int = 48, workers: int = 1) -> Path:
    """The root of a tiny rendered data set in a temporary folder: 12 subjects, 6 frames a sequence, `size` pixels."""
    root = Path(tempfile.mkdtemp(prefix="aunce-faces-")) / "raw"
    renderer(name).write(root, subjects=12, frames=6, size=size, workers=workers)
    return root


def prepare(
    name: str,
    root: str | PathLike[str],
    *,
    recipe: Recipe,
    protocol: str = "",
    allow_missing: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FaceCrops:
    """The crops of a data set, wherever they have to come from.

    Args:
        name: one of `DATASETS`.
        root: a pack; or the folder of the data set, whose pack is made in `cache_folder()` unless it is there; or
            empty, for a `tiny` rendered data set.
        recipe: of the crops.
        protocol: a protocol of the data set by name; empty takes its first. A pack has one already.
        allow_missing: see `pack_faces`.
        workers: threads that crop, processes that render.
        progress: called with images done and images in all.

    Raises:
        UsageError: an unknown name, or landmarks are asked for and missing.
        DataError: the folder does not exist, is not what its layout promises, or is a pack of other crops, of another
            data set or by another protocol.
    """
    from aunce.data import images

    options: dict[str, Any] = {
        "recipe": recipe,
        "protocol": protocol,
        "workers": workers,
        "allow_missing": allow_missing,
    }
    if not str(root):
        root = tiny(name, size=max(recipe.size, 32), workers=workers)
        return pack_faces(name, root, root.parent / "pack", **options)
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Name the folder of the data set, or a pack made from it.")
    if is_pack(root):
        pack = images.open_pack(root)
        if pack.recipe != recipe.content:
            raise DataError(f"{root}: a pack with crops {pack.recipe}, expected {recipe.content}. Pack again.")
        made = pack.table.protocol.name
        if made != protocol if protocol else made.partition("-")[0] != name:
            raise DataError(f"{root}: a pack of {made}, expected one of {protocol or name}. Name the right folder.")
        return pack
    return pack_faces(name, root, place_of_pack(name, root, recipe, protocol), progress=progress, **options)


def is_pack(root: str | PathLike[str]) -> bool:
    """Whether a folder is a finished pack."""
    return (Path(root) / "pack.json").is_file()


def place_of_pack(name: str, root: Path, recipe: Recipe, protocol: str = "") -> Path:
    """Where `prepare` makes the pack of a data set's folder; another for other labels, crops or protocols."""
    words = [name, fingerprint(name, str(root)), *([protocol] if protocol else []), recipe.hash]
    return cache_folder() / "-".join(words) / "pack"


@functools.cache
def fingerprint(name: str, root: str) -> str:
    """Eight hex digits over a data set's labels, or those of a pack; read once in a process, as they are many files."""
    if is_pack(root):
        return str(json.loads((Path(root) / "pack.json").read_text(encoding="utf-8"))["hash"])
    return str(adapter(name).fingerprint(root))
