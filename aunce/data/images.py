"""Packs: all images of a frame table, cropped once, in one memory-mapped file beside the table.

images.npy      uint8 (n, H, W, 3), RGB, rows as in the table
frames.parquet  the frame table with its protocol
latents.parquet intensities behind rendered faces, rows as in the table
pack.json       recipe and hashes, written last: it alone says that the pack is complete
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aunce.data.frames import KEY, FrameTable
from aunce.errors import DataError, UsageError

_IMAGES, _FRAMES, _LATENTS, _INDEX = "images.npy", "frames.parquet", "latents.parquet", "pack.json"
_FILES = {_IMAGES, _FRAMES, _LATENTS, f"{_INDEX}.partial"}
_CHUNK = 64  # images per task of the thread pool
_SPARE = 64 * 2**20  # bytes beyond the images: the tables, and room for others


@dataclass(frozen=True)
class Recipe:
    """How an image becomes a crop: the largest centred square, resized to `size` x `size` by area averaging.

    Attributes:
        size: side of the crops in pixels.
        version: of the rule. It changes when the same image would give another crop.
    """

    size: int = 48
    version: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"size of the crops is {self.size}. Expected 1 or more pixels.")

    @property
    def hash(self) -> str:
        """Eight hex digits over the recipe."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, eq=False)
class Pack:
    """An open pack.

    Attributes:
        table: the frame table.
        images: uint8 (n, H, W, 3) RGB, memory-mapped and read-only; row i is the crop of row i of the table.
        latents: intensities of rendered faces, rows as in the table; None for a data set that is not rendered.
        recipe: how the crops were made.
        hash: eight hex digits over AU names, labels, frame names, parts, recipe and pixels.
        folder: where it lies.
    """

    table: FrameTable
    images: NDArray[np.uint8]
    latents: pd.DataFrame | None
    recipe: Recipe
    hash: str
    folder: Path


def pack(
    table: FrameTable,
    root: str | PathLike[str],
    out: str | PathLike[str],
    *,
    recipe: Recipe | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Pack:
    """Crops the images of a table and writes them as one file. A finished pack of the same table and recipe is reused.

    Args:
        table: every row needs an image.
        root: the folder that the table's image paths start from.
        out: the folder of the pack.
        recipe: default `Recipe()`.
        workers: threads. The bytes do not depend on them.
        progress: called with images done and images in all.

    Raises:
        UsageError: `out` holds a pack of another table or recipe, or other files.
        DataError: rows without image, missing or broken images (all are found and counted, five are named), or too
            little disk space.
    """
    root, out, recipe = Path(root), Path(out), recipe or Recipe()
    if workers < 1:
        raise UsageError(f"workers is {workers}. Expected 1 or more.")
    if (out / _INDEX).exists():
        index = _read_index(out)
        if index["source"] == _source(table) and index["recipe"] == dataclasses.asdict(recipe):
            return open_pack(out)
        raise UsageError(
            f"{out}: holds a pack of other frames, labels or crops. Name another folder or remove this one."
        )
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - _FILES):
        raise UsageError(f"{out}: is there already, and is no pack. Name a new folder.")
    names = table.frames["image"].tolist()
    without = [row for row, name in enumerate(names) if not name]
    if without:
        frames = table.frames.iloc[without[:5]]
        listed = ", ".join(f"{s}/{t}/{f}" for s, t, f in zip(*(frames[column] for column in KEY), strict=True))
        raise DataError(
            f"{len(without)} of {len(names)} frames have no image: {listed}. A pack needs one for each: load the "
            "data set with images='required'."
        )
    latents = _latents(table, root)
    shape = (len(names), recipe.size, recipe.size, 3)
    _check_space(out, int(np.prod(shape, dtype=np.int64)))

    out.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(out / _IMAGES, mode="w+", dtype=np.uint8, shape=shape)
    broken: list[tuple[int, str]] = []

    def crop_chunk(start: int) -> int:
        stop = min(start + _CHUNK, len(names))
        for row in range(start, stop):
            try:
                images[row] = _crop(_decode(root / names[row]), recipe.size)
            except DataError as error:
                broken.append((row, str(error)))
        return stop - start

    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for count in pool.map(crop_chunk, range(0, len(names), _CHUNK)):
            done += count
            if progress is not None:
                progress(done, len(names))
    if broken:
        listed = "; ".join(message for _, message in sorted(broken)[:5])
        raise DataError(
            f"{len(broken)} of {len(names)} images cannot be used. {listed}. Copy them again from the data set, or "
            "remove them: frames without an image are left out and counted."
        )
    images.flush()
    pixels = _pixel_digest(images)
    table.to_parquet(out / _FRAMES)
    if latents is not None:
        latents.to_parquet(out / _LATENTS, index=False)
    index = {
        "format": 1,
        "recipe": dataclasses.asdict(recipe),
        "source": _source(table),
        "pixels": pixels,
        "hash": _pack_hash(_table_digest(table), recipe, pixels),
    }
    beside = out / f"{_INDEX}.partial"
    beside.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8", newline="\n")
    os.replace(beside, out / _INDEX)
    return open_pack(out)


def open_pack(path: str | PathLike[str]) -> Pack:
    """Opens a finished pack. The images stay on disk.

    Raises:
        DataError: no pack, an unfinished one, or files that do not belong together.
    """
    path = Path(path)
    if not (path / _INDEX).exists():
        if (path / _IMAGES).exists():
            raise DataError(f"{path}: packing was not finished. Run `aunce data pack` again.")
        raise DataError(f"{path}: no pack ({_INDEX} is not there). Make one with `aunce data pack`.")
    index = _read_index(path)
    recipe = Recipe(**index["recipe"])
    table = FrameTable.from_parquet(path / _FRAMES)
    expected = (len(table), recipe.size, recipe.size, 3)
    try:
        images = np.load(path / _IMAGES, mmap_mode="r")
    except (ValueError, OSError) as error:
        raise DataError(f"{path / _IMAGES}: cannot be opened ({error}). Remove the pack and make it again.") from error
    if images.shape != expected or images.dtype != np.uint8:
        raise DataError(
            f"{path / _IMAGES}: {images.dtype} {images.shape}. Expected uint8 {expected}: remove the pack and "
            "make it again."
        )
    if _pack_hash(_table_digest(table), recipe, index["pixels"]) != index["hash"]:
        raise DataError(f"{path}: {_FRAMES} is not the table of this pack. Remove the pack and make it again.")
    latents = pd.read_parquet(path / _LATENTS) if (path / _LATENTS).exists() else None
    return Pack(table, images, latents, recipe, index["hash"], path)


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((path / _INDEX).read_text(encoding="utf-8"))
        missing = {"recipe", "source", "pixels", "hash"} - set(index)
    except ValueError as error:
        raise DataError(f"{path / _INDEX}: not JSON ({error}). Remove the pack and make it again.") from error
    if missing:
        raise DataError(f"{path / _INDEX}: lacks {', '.join(sorted(missing))}. Remove the pack and make it again.")
    return index


def _latents(table: FrameTable, root: Path) -> pd.DataFrame | None:
    """Intensities behind rendered faces in the order of the table's rows."""
    if table.synthetic is None:
        return None
    # Imported here: packing real images needs no renderer.
    from aunce.data import synthetic

    frames = table.frames[list(KEY)]
    latents: pd.DataFrame = frames.merge(synthetic.latents(root), on=list(KEY), how="left", validate="one_to_one")
    lost = np.flatnonzero(latents.isna().any(axis=1).to_numpy())
    if len(lost):
        name = "/".join(map(str, frames.iloc[lost[0]]))
        raise DataError(
            f"{root}: no latent intensities of {len(lost)} frames, first {name}. Render the data set again."
        )
    return latents


def _check_space(out: Path, images: int) -> None:
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if images + _SPARE > free:
        raise DataError(
            f"{out}: a pack of {(images + _SPARE) / 1e9:.1f} GB does not fit, {free / 1e9:.1f} GB are free. "
            "Free space, name another disk, or make smaller crops."
        )


def _decode(path: Path) -> NDArray[np.uint8]:
    """The image (H, W, 3), RGB."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    # OpenCV fills what is missing of a JPEG with grey and says nothing to the caller, so the end is checked here.
    if (data.startswith(b"\xff\xd8") and not _jpeg_is_whole(data)) or (
        data.startswith(b"\x89PNG") and b"IEND" not in data[-64:]
    ):
        raise DataError(f"{path}: the file is truncated")
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if bgr is None:
        raise DataError(f"{path}: no image that OpenCV can read")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether the end marker is there. Walks the segments, because a thumbnail in a header has an end marker too."""
    place = 2
    while found := _JPEG_MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        if marker == 0xD9:  # end of image
            return True
        if not 0xD0 <= marker <= 0xD7:  # restart markers stand alone, every other segment says its length
            place += int.from_bytes(data[place : place + 2])
    return False


def _crop(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _pixel_digest(images: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(images), 1024):
        digest.update(images[start : start + 1024].tobytes())
    return digest.hexdigest()


def _table_digest(table: FrameTable) -> str:
    """Over AU names, protocol, frame names, parts and labels. Image paths are left out: they are no content."""
    frames = table.frames
    digest = hashlib.sha256(json.dumps([table.protocol.to_dict(), table.null_aus], sort_keys=True).encode())
    for column in ("subject", "sequence", "part"):
        digest.update("\n".join(frames[column]).encode())
    digest.update(frames["frame"].to_numpy(dtype="<i8").tobytes())
    digest.update(table.labels.tobytes())
    return digest.hexdigest()


def _source(table: FrameTable) -> str:
    """What a pack is made from: the table and, for rendered faces, the renderer's dials."""
    synthetic = json.dumps(table.synthetic, sort_keys=True)
    return hashlib.sha256((_table_digest(table) + synthetic).encode()).hexdigest()


def _pack_hash(table_digest: str, recipe: Recipe, pixels: str) -> str:
    return hashlib.sha256("\n".join((table_digest, recipe.hash, pixels)).encode()).hexdigest()[:8]
