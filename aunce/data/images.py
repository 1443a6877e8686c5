"""Packs: the faces of a frame table, cropped once, in one memory-mapped file beside the table.

images.npy      uint8 (n, H, W, 3), RGB, rows as in the table
frames.parquet  the frame table with its protocol
latents.parquet intensities behind rendered faces, rows as in the table
skipped.csv     frames that are not in the pack, and why
pack.json       recipe and hashes, written last: a pack is complete if it is there

While a pack is made, `progress.npy` holds the state of each row, so that the same command continues a pack that was
interrupted. Crops are written, never mapped, and decoded in blocks: memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow
from filelock import FileLock
from numpy.typing import NDArray

from aunce import files
from aunce.data import MOST_PIXELS, faces, layout
from aunce.data.frames import KEY, FrameTable
from aunce.data.recipes import EYES, Recipe
from aunce.errors import DataError, UsageError, machine_remedy

_IMAGES, _FRAMES, _LATENTS, _INDEX = "images.npy", "frames.parquet", "latents.parquet", "pack.json"
_SKIPPED, _PROGRESS = "skipped.csv", "progress.npy"
_CHECKED = "checked.json"  # the state of images.npy (size, times, inode) when its pixels were last compared
_HASHES = ("source", "pixels", "hash")  # texts in the index
_FILES = {_IMAGES, _PROGRESS, _FRAMES, _LATENTS, _SKIPPED, _CHECKED}
_FILES |= {f"{name}{files.PARTIAL}" for name in (_FRAMES, _LATENTS, _SKIPPED, _INDEX)}
_CHUNK = 64  # images per task of the thread pool
_SPARE = 64 * 2**20  # bytes beyond the images: the tables, and room for others
TO_DO, DONE, NO_FACE, BROKEN = range(4)
LARGEST_BROKEN_SHARE = 0.01
"""More broken images than this share of a data set are an error; up to it they are skipped and listed."""


@dataclass(frozen=True, eq=False)
class FaceCrops:
    """An open pack.

    Attributes:
        table: the frame table.
        images: uint8 (n, H, W, 3) RGB, memory-mapped and read-only; row i is the crop of row i of the table.
        latents: intensities of rendered faces, rows as in the table; None for a data set that is not rendered.
        recipe: what decided the crops, see `Recipe.content`.
        hash: eight hex digits over AU names, labels, frame names, parts, recipe and pixels.
        folder: where it lies.
        no_face: frames in which no face was found, as subject/sequence/frame; they are not in the table.
        broken: frames whose image could not be read; they are not in the table.
    """

    table: FrameTable
    images: NDArray[np.uint8]
    latents: pd.DataFrame | None
    recipe: dict[str, Any]
    hash: str
    folder: Path
    no_face: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


def pack(
    table: FrameTable,
    root: str | PathLike[str],
    out: str | PathLike[str],
    *,
    recipe: Recipe | None = None,
    eyes: NDArray[np.float32] | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FaceCrops:
    """Crops the faces of a table and writes them as one file. A finished pack of the same table and recipe is reused.

    Frames without a face (eyes unknown, or none detected) and, up to `LARGEST_BROKEN_SHARE`, frames whose image cannot
    be read are left out and listed in `skipped.csv`.

    Args:
        table: every row needs an image: a path below the root, or `<path of a video>#<frame of it, from 0>`.
        root: the folder that the table's image paths start from.
        out: the folder of the pack.
        recipe: default `Recipe()`.
        eyes: (n, 2, 2) centres of the eyes in pixels, x first, that at the image's left first, NaN where unknown;
            needed for the alignment "landmarks" alone.
        workers: threads. The bytes do not depend on them.
        progress: called with images done and images in all.

    Raises:
        UsageError: `out` holds a pack of another table or recipe, or other files; landmarks are asked for and missing.
        DataError: rows without image, too many broken images (all are counted, five are named), no face at all, or too
            little disk space.
    """
    root, out, recipe = Path(root), Path(out), recipe or Recipe()
    if workers < 1:
        raise UsageError(f"workers is {workers}. Expected 1 or more.")
    names = table.frames["image"].to_numpy()
    _check_images(table, names)
    if recipe.align == "landmarks" and (eyes is None or eyes.shape != (len(table), 2, 2)):
        raise UsageError("alignment 'landmarks' needs landmarks of every frame, and the data set ships none.")
    begun = {"format": 2, "recipe": recipe.content, "source": _source(table, root, names, eyes)}
    if (made := _finished(out, begun)) is not None:
        return made
    if not (out / _PROGRESS).exists():
        _check_space(out, len(names) * recipe.size**2 * 3)
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{out}.lock"):
        return _finished(out, begun) or _make(table, root, out, recipe, eyes, workers, progress, begun)


def _finished(out: Path, begun: Mapping[str, Any]) -> FaceCrops | None:
    """The pack that is there already, made of the same table by the same recipe."""
    if not (out / _INDEX).exists():
        return None
    index = _read_index(out)
    if all(index[name] == begun[name] for name in ("recipe", "source")):
        return open_pack(out)
    raise UsageError(
        f"{out}: holds a pack of other frames, labels, images or crops. Name another folder or remove this one; runs "
        "that were made from it stay as they are."
    )


def _make(
    table: FrameTable,
    root: Path,
    out: Path,
    recipe: Recipe,
    eyes: NDArray[np.float32] | None,
    workers: int,
    progress: Callable[[int, int], None] | None,
    begun: dict[str, Any],
) -> FaceCrops:
    """Makes the pack, or continues it. The caller holds the lock."""
    names = table.frames["image"].to_numpy()
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - _FILES):
        raise UsageError(f"{out}: is there already, and is no pack. Name a new folder.")
    latents = _latents(table, root)
    with _Writer(out, recipe.size, len(names), begun) as writer:
        cropper = _Cropper(root, names, recipe, eyes, writer)
        done = writer.done
        if progress is not None and done:
            progress(done, len(names))
        with ThreadPoolExecutor(workers) as pool:
            for count in pool.map(cropper, list(_tasks(names))):
                done += count
                if progress is not None and count:
                    progress(done, len(names))
        _check_broken(cropper.messages, writer.state)
        kept, digest = writer.compact()
    if not len(kept):
        raise DataError(
            f"{root}: no face was found in any of the {len(names)} images. Look at them, use another detector, or take "
            "the centred square (align 'none')."
        )
    left_out = np.flatnonzero(writer.state != DONE)
    named = ["/".join(map(str, row)) for row in table.frames.iloc[left_out][list(KEY)].itertuples(index=False)]
    reasons = np.where(writer.state[left_out] == NO_FACE, "no face", "broken")
    skipped = pd.DataFrame({"frame": named, "reason": reasons})
    with files.beside(out / _SKIPPED) as partial:
        skipped.to_csv(partial, index=False)
    if len(kept) < len(table):
        table = dataclasses.replace(table, frames=table.frames.iloc[kept])
        latents = None if latents is None else latents.iloc[kept].reset_index(drop=True)
    with files.beside(out / _FRAMES) as partial:
        table.to_parquet(partial)
    if latents is not None:
        with files.beside(out / _LATENTS) as partial:
            latents.to_parquet(partial, index=False)
    index = begun | {"pixels": digest, "hash": _pack_hash(_table_digest(table), recipe.content, digest)}
    index["files"] = {name: files.sha256(out / name) for name in (_FRAMES, _SKIPPED, _LATENTS) if (out / name).exists()}
    files.write(out / _INDEX, json.dumps(index, indent=1) + "\n")
    (out / _PROGRESS).unlink()
    _note_checked(out)  # the hash is of what was written just now
    return open_pack(out)


def _check_images(table: FrameTable, names: NDArray[Any]) -> None:
    without = np.flatnonzero(names == "")
    if len(without):
        frames = table.frames.iloc[without[:5]]
        listed = ", ".join(f"{s}/{t}/{f}" for s, t, f in zip(*(frames[column] for column in KEY), strict=True))
        raise DataError(
            f"{len(without)} of {len(names)} frames have no image: {listed}. A pack needs one for each: load the "
            "data set with images='required'."
        )


def _check_broken(messages: dict[int, str], state: NDArray[np.uint8]) -> None:
    broken = int((state == BROKEN).sum())
    if broken > LARGEST_BROKEN_SHARE * len(state):
        listed = "; ".join(messages[row] for row in sorted(messages)[:5])
        raise DataError(
            f"{broken} of {len(state)} images cannot be used, more than {LARGEST_BROKEN_SHARE:.0%}. {listed}. Copy "
            "them again from the data set, or remove them: frames without an image are left out and counted."
        )


def _tasks(names: NDArray[Any]) -> Iterator[range]:
    """Rows that one thread takes at a time: a block of images, or all frames of a video, which is read once."""
    start = 0
    while start < len(names):
        video = _video_of(names[start])
        stop = start + 1
        while stop < len(names) and (stop - start < _CHUNK or video) and _video_of(names[stop]) == video:
            stop += 1
        yield range(start, stop)
        start = stop


def _video_of(name: str) -> str:
    """The video of an image path, "" for an image."""
    return name.rpartition("#")[0] if "#" in name else ""


class _Writer:
    """The files of a pack in the making. Threads write different rows."""

    def __init__(self, out: Path, size: int, count: int, begun: dict[str, Any]) -> None:
        self.out, self.count, self.shape = out, count, (size, size, 3)
        self.bytes = size * size * 3
        partial = out / f"{_INDEX}{files.PARTIAL}"
        text = json.dumps(begun)
        continues = partial.exists() and partial.read_text(encoding="utf-8") == text and (out / _PROGRESS).exists()
        if not continues:
            out.mkdir(parents=True, exist_ok=True)
            for name in _FILES:
                (out / name).unlink(missing_ok=True)
            # Written, not only mapped: where a mapped file finds no space on the disk, the process is killed.
            np.save(out / _PROGRESS, np.zeros(count, dtype=_ROW))
            partial.write_text(text, encoding="utf-8")
        self._rows = np.lib.format.open_memmap(out / _PROGRESS, mode="r+")
        self._file = os.open(out / _IMAGES, os.O_RDWR | os.O_CREAT, 0o666)
        self._header = _npy_header(count, self.shape)
        files.write_at(self._file, self._header, 0)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.flush()
        os.close(self._file)

    @property
    def state(self) -> NDArray[np.uint8]:
        """What has become of each row (n,)."""
        return self._rows["state"]

    @property
    def done(self) -> int:
        return int((self.state != TO_DO).sum())

    def put(self, row: int, crop: NDArray[np.uint8]) -> None:
        """Writes a crop, then notes it as done: a kill between the two costs one crop."""
        data = crop.tobytes()
        files.write_at(self._file, data, len(self._header) + row * self.bytes)
        self._rows[row] = (DONE, np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), np.uint8))

    def skip(self, row: int, state: int) -> None:
        self._rows["state"][row] = state

    def compact(self) -> tuple[NDArray[np.int64], str]:
        """Closes the gaps of rows that were left out; the kept rows and the hash of their pixels."""
        kept = np.flatnonzero(self.state == DONE)
        digest = hashlib.sha256(self._rows["digest"][kept].tobytes()).hexdigest()
        if len(kept) < self.count:
            # From here on the file is neither the old nor the new one: a pack that is interrupted now begins anew.
            (self.out / f"{_INDEX}{files.PARTIAL}").unlink()
            for place, row in enumerate(kept.tolist()):
                if place != row:
                    data = os.pread(self._file, self.bytes, len(self._header) + row * self.bytes)
                    files.write_at(self._file, data, len(self._header) + place * self.bytes)
            header = _npy_header(len(kept), self.shape)
            assert len(header) == len(self._header), "headers of .npy files are padded to 64 bytes"
            files.write_at(self._file, header, 0)
            os.ftruncate(self._file, len(header) + len(kept) * self.bytes)
        os.fsync(self._file)
        return kept, digest


_ROW = np.dtype([("state", np.uint8), ("digest", np.uint8, 16)])


def _npy_header(count: int, shape: tuple[int, int, int]) -> bytes:
    """The header of images.npy, 128 bytes for any number of rows."""
    text = repr({"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}).encode()
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117) + b"\n"


class _Cropper:
    """Decodes and crops the rows of a task; its messages say what was wrong with broken images."""

    def __init__(
        self, root: Path, names: NDArray[Any], recipe: Recipe, eyes: NDArray[np.float32] | None, writer: _Writer
    ) -> None:
        self.root, self.names, self.recipe, self.eyes, self.writer = root, names, recipe, eyes, writer
        self.detect = faces.face_detector(recipe.detector) if recipe.align == "detector" else None
        self.messages: dict[int, str] = {}
        self._lock = threading.Lock()

    def __call__(self, rows: range) -> int:
        """Crops what is still to do; how many rows that was."""
        todo = [row for row in rows if self.writer.state[row] in (TO_DO, BROKEN)]
        fresh = int((self.writer.state[todo] == TO_DO).sum())
        video = _video_of(self.names[rows[0]])
        images = self._of_video(video, todo) if video else ((row, self._of_file(row)) for row in todo)
        for row, image in images:
            crop = image if isinstance(image, DataError) else self._crop(row, image)
            if isinstance(crop, DataError):
                with self._lock:
                    self.messages[row] = str(crop)
                self.writer.skip(row, BROKEN)
            elif crop is None:
                self.writer.skip(row, NO_FACE)
            else:
                self.writer.put(row, crop)
        return fresh

    def _of_file(self, row: int) -> NDArray[np.uint8] | DataError:
        try:
            return _decode(self.root / self.names[row], self._scale(row))
        except DataError as error:
            return error

    def _scale(self, row: int) -> int:
        """By how much an image may be reduced while it is decoded: 1, 2 or 4.

        A JPEG decoder averages blocks of pixels for less than it takes to decode them, and align would do it anyway.
        """
        if self.recipe.align != "landmarks" or self.eyes is None or not self.names[row].lower().endswith(_JPEG):
            return 1
        eyes = self.eyes[row].astype(np.float64)
        shrink = np.hypot(*(eyes[1] - eyes[0])) / _distance(self.recipe.size)
        return 4 if shrink >= 4 else 2 if shrink >= 2 else 1  # NaN is neither

    def _of_video(self, video: str, rows: list[int]) -> Iterator[tuple[int, NDArray[np.uint8] | DataError]]:
        """Frames in the order of the video, each decoded once; seeking is not exact in every format."""
        path = self.root / video
        capture = cv2.VideoCapture(str(path))
        try:
            place = 0
            for row in rows:
                wanted = int(self.names[row].rpartition("#")[2])
                while place < wanted and capture.grab():
                    place += 1
                good, bgr = capture.read() if place == wanted else (False, None)
                if good and bgr is not None:
                    place += 1
                    yield row, bgr.astype(np.uint8, copy=False)
                else:
                    yield row, DataError(f"{path}: frame {wanted} of the video cannot be decoded")
        finally:
            capture.release()

    def _crop(self, row: int, image: NDArray[np.uint8]) -> NDArray[np.uint8] | DataError | None:
        """As `_cut`, None without a face, and what is wrong with an image that cannot be cut."""
        try:
            with _usable():
                return self._cut(row, image)
        except DataError as error:
            return DataError(f"{self.root / self.names[row]}: {error}")

    def _cut(self, row: int, image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """From a BGR image, reduced by `_scale`, to an RGB crop: a crop is converted faster than an image."""
        if self.recipe.align == "none":
            return _rgb(_centre(image, self.recipe.size))
        if self.detect is not None:
            found = self.detect(_rgb(image))
            eyes = found[0].eyes if found else None
        else:
            assert self.eyes is not None
            eyes = (self.eyes[row] + 0.5) / self._scale(row) - 0.5
        if eyes is None or not _distinct(eyes):
            return None
        return _rgb(align(image, eyes, self.recipe.size))


def _rgb(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _distance(size: int) -> float:
    """Pixels between the eyes of an aligned crop of side `size`."""
    return (EYES[1][0] - EYES[0][0]) * size


def align(image: NDArray[np.uint8], eyes: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """Turns, scales and moves a face so that its eyes lie at `EYES` of a square of `size` pixels.

    Args:
        image: (H, W, 3).
        eyes: (2, 2) centres of the eyes in pixels, x first, that at the image's left first.
        size: side of the crop.

    Returns:
        (size, size, 3), grey 128 where the image ends.
    """
    source = np.asarray(eyes, dtype=np.float64)
    target = np.array(EYES) * size - 0.5
    (dx, dy), wanted = source[1] - source[0], _distance(size)
    # Bilinear sampling skips pixels when it shrinks: what is much too large is first averaged over whole pixels.
    shrink = int(np.hypot(dx, dy) / wanted)
    if shrink > 1:
        height, width = image.shape[:2]
        centre, reach = source.mean(0), 2.0 * np.hypot(dx, dy) * 1.45
        left, top = (max(0, int(edge)) for edge in centre - reach)
        right, bottom = min(width, int(centre[0] + reach) + 1), min(height, int(centre[1] + reach) + 1)
        part = image[top:bottom, left:right]
        new = (max(1, part.shape[1] // shrink), max(1, part.shape[0] // shrink))
        if part.size:
            factor = np.array(new) / (part.shape[1], part.shape[0])
            image = cv2.resize(part, new, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            source = (source - (left, top) + 0.5) * factor - 0.5
            dx, dy = source[1] - source[0]
    scale, angle = wanted / np.hypot(dx, dy), np.arctan2(dy, dx)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]])
    matrix = np.column_stack([linear, target.mean(0) - linear @ source.mean(0)])
    warped = cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(128,) * 3
    )
    return warped.astype(np.uint8, copy=False)


def crop_faces(
    image: NDArray[np.uint8], size: int, detect: faces.FaceDetector | None
) -> list[tuple[NDArray[np.uint8], faces.DetectedFace]]:
    """The crops of an image of one's own, as `pack` makes those of a data set.

    Args:
        image: (H, W, 3) RGB.
        size: side of the crops.
        detect: finds the faces; None takes the largest centred square for one, as the alignment "none" does.

    Returns:
        (size, size, 3) RGB and where it was found for each face, the largest first; without a detector the eyes and the
        confidence are NaN.

    Raises:
        DataError: OpenCV refuses this image.
    """
    with _usable():
        if detect is None:
            (height, width), side = image.shape[:2], min(image.shape[:2])
            box = np.array([(width - side) // 2, (height - side) // 2, side, side], dtype=np.float32)
            unseen = faces.DetectedFace(np.full((2, 2), np.nan, np.float32), float("nan"), box)
            return [(_centre(image, size), unseen)]
        return [(align(image, face.eyes, size), face) for face in detect(image) if _distinct(face.eyes)]


@contextlib.contextmanager
def _usable() -> Iterator[None]:
    """Say of an image that OpenCV refuses that it cannot be used: it has a row, and ends nothing."""
    try:
        yield
    except cv2.error as error:
        raise DataError(f"no face can be found in, or cut from, this image ({error.err})") from None


def _distinct(eyes: NDArray[np.floating]) -> bool:
    """Whether eyes say where a face is: known, and not on one spot."""
    return bool(np.isfinite(eyes).all() and np.hypot(*(eyes[1] - eyes[0])) >= 2)


def read_image(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) RGB.

    Raises:
        DataError: it cannot be read, is truncated, or is no image.
    """
    return _rgb(_decode(Path(path)))


def open_pack(path: str | PathLike[str], *, check: bool = False) -> FaceCrops:
    """Opens a finished pack. The images stay on disk.

    Args:
        path: the folder.
        check: compare the pixels with their hash, even if they were compared since the file last changed.

    Raises:
        DataError: no pack, an unfinished one, files that do not belong together, or other pixels than were packed.
    """
    path = Path(path)
    if not (path / _INDEX).exists():
        if (path / _IMAGES).exists():
            raise DataError(f"{path}: packing was not finished. Run `aunce data pack` again.")
        raise DataError(f"{path}: no pack ({_INDEX} is not there). Make one with `aunce data pack`.")
    index = _read_index(path)
    recipe, size = index["recipe"], index["recipe"]["size"]
    for name, wanted in index.get("files", {}).items():  # packs of before 0.2.0 have no such hashes
        with _reading(path / name):
            if files.sha256(path / name) != wanted:
                raise ValueError("it is not the file that was written with this pack")
    table = FrameTable.from_parquet(path / _FRAMES)
    with _reading(path / _IMAGES):
        images = np.load(path / _IMAGES, mmap_mode="r")
        if images.shape != (len(table), size, size, 3) or images.dtype != np.uint8:
            raise ValueError(f"it holds {images.dtype} {images.shape}, and not uint8 {(len(table), size, size, 3)}")
    with _reading(path / _FRAMES):
        if _pack_hash(_table_digest(table), recipe, index["pixels"]) != index["hash"]:
            raise ValueError("it is not the table of this pack")
    if check or not _is_checked(path):
        with _reading(path / _IMAGES):
            if _hash_pixels(images) != index["pixels"]:
                raise ValueError("these are not the pixels that were packed")
        _note_checked(path)
    with _reading(path / _LATENTS):
        latents = pd.read_parquet(path / _LATENTS) if (path / _LATENTS).exists() else None
    with _reading(path / _SKIPPED):
        skipped = pd.read_csv(path / _SKIPPED, dtype=str, keep_default_na=False)
        no_face, broken = (tuple(skipped["frame"][skipped["reason"] == reason]) for reason in ("no face", "broken"))
    return FaceCrops(table, images, latents, recipe, index["hash"], path, no_face, broken)


@contextlib.contextmanager
def _reading(path: Path, remedy: str = "Remove the pack and make it again.") -> Iterator[None]:
    """Say of what goes wrong with a file that we wrote where it is and what to do: no whole file is to be removed."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, pyarrow.ArrowException) as error:
        said = f"{type(error).__name__}: {error}" if type(error) is not ValueError else str(error)
        what = machine_remedy(said, getattr(error, "errno", None)) or remedy
        raise DataError(f"{path}: cannot be used, {said}. {what}") from error


def _hash_pixels(images: NDArray[np.uint8]) -> str:
    """The hash of crops (n, H, W, 3) as `_Writer` has it, read in pieces."""
    digest = hashlib.sha256()
    for start in range(0, len(images), _CHUNK):
        for crop in images[start : start + _CHUNK]:
            digest.update(hashlib.blake2b(crop.tobytes(), digest_size=16).digest())
    return digest.hexdigest()


def _file_state(path: Path) -> list[int]:
    state = (path / _IMAGES).stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _is_checked(path: Path) -> bool:
    """Whether the pixels of a pack were compared with their hash since the file last changed."""
    try:
        return bool(json.loads((path / _CHECKED).read_text(encoding="utf-8")) == _file_state(path))
    except (OSError, ValueError, RecursionError):
        return False


def _note_checked(path: Path) -> None:
    with contextlib.suppress(OSError):  # a pack that only others may write to is compared each time
        files.write(path / _CHECKED, json.dumps(_file_state(path)), flush=False)


def _read_index(path: Path) -> dict[str, Any]:
    with _reading(path / _INDEX):
        index: dict[str, Any] = json.loads((path / _INDEX).read_text(encoding="utf-8"))
        if type(index["recipe"]["size"]) is not int or any(type(index[name]) is not str for name in _HASHES):
            raise ValueError(f"expected a recipe with its size, and the texts {', '.join(_HASHES)}")
        if not isinstance(index.get("files", {}), dict):
            raise ValueError("its files are no table of hashes")
        return index


def _latents(table: FrameTable, root: Path) -> pd.DataFrame | None:
    """Intensities behind rendered faces in the order of the table's rows."""
    if table.synthetic is None:
        return None
    frames = table.frames[list(KEY)]
    with _reading(root / layout.LATENTS, f"Remove {root} and render it again."):
        latents: pd.DataFrame = frames.merge(layout.latents(root), on=list(KEY), how="left", validate="one_to_one")
    lost = np.flatnonzero(latents.isna().any(axis=1).to_numpy())
    if len(lost):
        name = "/".join(map(str, frames.iloc[lost[0]]))
        raise DataError(
            f"{root}: no latent intensities of {len(lost)} frames, first {name}. Render the data set again."
        )
    return latents


def _check_space(out: Path, images: int) -> None:
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if images + _SPARE > (free := shutil.disk_usage(place).free):
        raise DataError(
            f"{out}: a pack of {(images + _SPARE) / 1e9:.1f} GB does not fit, {free / 1e9:.1f} GB are free. "
            "Free space, name another disk, or make smaller crops."
        )


def _decode(path: Path, scale: int = 1) -> NDArray[np.uint8]:
    """The image (H, W, 3), BGR; with a `scale` of 2 or 4 reduced by it, sides rounded up."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    # OpenCV fills what is missing of a JPEG with grey and says nothing to the caller, so the end is checked here.
    ends = {b"\xff\xd8": _jpeg_is_whole, b"\x89P": _png_is_whole}
    if not ends.get(data[:2], lambda _: True)(data):
        raise DataError(f"{path}: the file is truncated")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[scale]) if data else None
    except cv2.error as error:  # among others of an image larger than `MOST_PIXELS`, before it is decoded
        large = "CV_IO_MAX_IMAGE" in str(error)
        said = f"images of more than {MOST_PIXELS:,} pixels are not read" if large else "no image that OpenCV can read"
        raise DataError(f"{path}: {said}") from None
    if bgr is None:
        raise DataError(f"{path}: no image that OpenCV can read")
    return bgr.astype(np.uint8, copy=False)


_JPEG = (".jpg", ".jpeg")
_REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
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


def _png_is_whole(data: bytes) -> bool:
    """Whether the chunk that ends an image is there; bytes that others append to it are no matter."""
    place = 8
    while place + 12 <= len(data):
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + int.from_bytes(data[place : place + 4])
    return False


def _centre(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _table_digest(table: FrameTable) -> str:
    """Over AU names, protocol, frame names, parts and labels. Image paths are left out: they are no content."""
    frames = table.frames
    digest = hashlib.sha256(json.dumps([table.protocol.to_dict(), table.null_aus], sort_keys=True).encode())
    for column in ("subject", "sequence", "part"):
        digest.update("\n".join(frames[column]).encode())
    digest.update(frames["frame"].to_numpy(dtype="<i8").tobytes())
    digest.update(table.labels.tobytes())
    return digest.hexdigest()


def _source(table: FrameTable, root: Path, names: NDArray[Any], eyes: NDArray[np.float32] | None) -> str:
    """What a pack is made from: the table, the sizes of its images, landmarks and, for rendered faces, the dials.

    Sizes and not times, because copying a data set to another disk changes nothing in it.
    """
    digest = hashlib.sha256((_table_digest(table) + json.dumps(table.synthetic, sort_keys=True)).encode())
    sizes = np.empty(len(names), dtype="<i8")
    known: dict[str, int] = {}
    for row, name in enumerate(names):
        file = _video_of(name) or name
        if file not in known:
            if not _video_of(name):
                known.clear()  # an image is asked for once
            try:
                known[file] = (root / file).stat().st_size
            except OSError:
                known[file] = -1  # the decoder says what is wrong with it
        sizes[row] = known[file]
    digest.update(sizes.tobytes())
    digest.update(b"" if eyes is None else np.ascontiguousarray(eyes, dtype="<f4").tobytes())
    return digest.hexdigest()


def _pack_hash(table_digest: str, recipe: dict[str, Any], pixels: str) -> str:
    content = json.dumps(recipe, sort_keys=True)
    return hashlib.sha256("\n".join((table_digest, content, pixels)).encode()).hexdigest()[:8]
