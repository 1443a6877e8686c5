"""The door to the data: `load` reads any data set that has an adapter into the one frame table."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aunce.errors import DataError, UsageError

if TYPE_CHECKING:
    from aunce.data.frames import FrameTable, Protocol
    from aunce.data.images import Pack

DATASETS = ("bp4d",)
"""The data sets with an adapter: the module of that name, with `read`, `fingerprint`, `write` and `LAYOUT`."""


def load(
    name: str,
    root: str | PathLike[str],
    *,
    protocol: Protocol | None = None,
    images: Literal["required", "optional"] = "required",
) -> FrameTable:
    """Reads a data set, real or rendered, from its distributed layout.

    Args:
        name: one of `DATASETS`.
        root: the folder of the data set.
        protocol: parts, AU set and frame rule. Default: those of the literature.
        images: "required" keeps the frames that have an image; "optional" reads labels alone.

    Returns:
        The checked frame table, rows in the published order.

    Raises:
        UsageError: an unknown name, or an unknown value of `images`.
        DataError: the folder is not what its layout promises.

    Example:
        >>> load("bp5d", ".")
        Traceback (most recent call last):
        ...
        aunce.errors.UsageError: unknown data set 'bp5d'. Known: bp4d.
    """
    if images not in ("required", "optional"):
        raise UsageError(f"images is {images!r}. Expected 'required' or 'optional'.")
    table: FrameTable = adapter(name).read(root, protocol=protocol, images=images)
    return table


def adapter(name: str) -> Any:
    """The module that reads and writes a data set's layout.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}. Known: {', '.join(DATASETS)}.")
    # Imported here: a caller that only lists names pays for neither pandas nor OpenCV.
    return importlib.import_module(f"aunce.data.{name}")


def cache_folder() -> Path:
    """Where rendered data sets and packs are kept: `$AUNCE_DATA`, or `data/` in the project, which git ignores."""
    return Path(os.environ.get("AUNCE_DATA") or Path(__file__).resolve().parents[2] / "data")


def prepare(
    name: str,
    root: str | PathLike[str],
    *,
    pixels: int,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Pack:
    """The crops of a data set, wherever they have to come from.

    Args:
        name: one of `DATASETS`.
        root: a pack; or the folder of the data set, whose pack is made in `cache_folder()` unless it is there; or
            empty, for a tiny rendered data set (12 subjects, 6 frames a sequence) in a temporary folder.
        pixels: side of the crops.
        workers: threads that crop, processes that render.
        progress: called with images done and images in all.

    Raises:
        DataError: the folder does not exist, is not what its layout promises, or is a pack of other crops.
    """
    from aunce.data import images

    recipe = images.Recipe(size=pixels)
    if not str(root):
        folder = Path(tempfile.mkdtemp(prefix="aunce-faces-"))
        adapter(name).write(folder / "raw", subjects=12, frames=6, size=max(pixels, 32), workers=workers)
        return images.pack(load(name, folder / "raw"), folder / "raw", folder / "pack", recipe=recipe, workers=workers)
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Name the folder of the data set, or a pack made from it.")
    if (root / "pack.json").is_file():
        pack = images.open_pack(root)
        if pack.recipe != recipe.content:
            raise DataError(f"{root}: a pack with crops {pack.recipe}, expected {recipe.content}. Pack again.")
        return pack
    out = cache_folder() / f"{name}-{adapter(name).fingerprint(root)}-{recipe.hash}" / "pack"
    table = load(name, root)
    return images.pack(table, root, out, recipe=recipe, workers=workers, progress=progress)
