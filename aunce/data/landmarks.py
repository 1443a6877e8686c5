"""Landmark files of BP4D and BP4D+: 49 points for each image of a sequence, in MATLAB 7.3 files, which are HDF5.

    <root>/2DFeatures/F001_T1.mat    fit/pred: one reference per image (T, 1), each to the points of its image (2, 49),
                                     x in the first row, y in the second, counted from 1 as in MATLAB; or to an empty
                                     array, where the tracker lost the face

MATLAB stores arrays transposed, so this is its struct array `fit` with 49 x 2 points in the field `pred`. Read off
public readers of BP4D's files (chinaza/ml-cw1, loader.py; wiibrew/EAC-Net, get_bp4d_2dfeat.py); PyTorch-JAANet has the
points' order and their base. Each eye has six points: 20-25 that at the image's left, 26-31 the other, counted from 1.

Not verified, for want of the licensed data: that entry i belongs to the i-th image of the folder by number, as EAC-Net
has it for images numbered from 1 without gaps; that lost faces are empty arrays; and that BP4D+, said to have 49 points
and the pose of the head in files of these names, has them in the same arrays.
"""

from __future__ import annotations

import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aunce.data import layout
from aunce.data.frames import FrameTable
from aunce.data.render import writing
from aunce.data.render.writing import Rendered
from aunce.errors import DataError

FOLDER = "2DFeatures"
POINTS = 49
LEFT_EYE, RIGHT_EYE = slice(19, 25), slice(25, 31)
"""Rows of the eyes, that at the image's left first."""

LOST_PER_MILLE = 10
"""Images of a rendered sequence without landmarks, by a hash of their names: more than the 271 of BP4D's 146,847
labelled frames that JAA-Net leaves out for want of landmarks, so that small roots have some too."""

_LARGEST = 1e6  # pixels; eyes beyond it are no eyes
_EXPECTED = "a MATLAB 7.3 file with `fit/pred`: one reference per image, to 2 x 49 numbers or to an empty array"
# MATLAB's files begin with 512 bytes of text that are not HDF5: a description, then the version and the byte order.
_PREFACE = b"MATLAB 7.3 MAT-file, landmarks of rendered faces".ljust(124) + b"\x00\x02IM" + bytes(384)
# What h5py raises where the bytes are not what HDF5 expects depends on the place of the damage.
_DAMAGE = (AttributeError, KeyError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


# ---------------------------------------------------------------------------------------------------------- reading


@np.errstate(over="ignore", invalid="ignore")  # such points become NaN at the end
def read(path: Path) -> NDArray[np.float32]:
    """Centres of the eyes in the images of one sequence.

    Returns:
        (T, 2, 2): means of the six points of each eye, that at the image's left first; x and y in pixels, counted from
        0; NaN where the face was lost, or a point of an eye is no number.

    Raises:
        DataError: no such file, or one that holds something else.
    """
    import h5py  # many use the data sets without their landmarks

    if not path.is_file():
        raise DataError(
            f"{path}: no such file. Expected the landmarks of every sequence: put it there, or do without landmarks "
            "(align by the detector)."
        )
    try:
        with h5py.File(path, "r") as file:
            fit = file["fit/pred"]
            if h5py.check_ref_dtype(fit.dtype) is not h5py.Reference:
                raise ValueError("fit/pred holds no references")
            entries = [_points(file[reference], row) for row, reference in enumerate(fit[()].ravel())]
    except _DAMAGE as error:
        raise DataError(f"{path}: cannot be read ({error}). Expected {_EXPECTED}. Copy it again.") from error
    if not entries:
        raise DataError(f"{path}: fit/pred is empty. Expected {_EXPECTED}. Copy it again.")
    points = np.stack(entries) - 1  # (T, 49, 2)
    eyes = np.stack([points[:, eye].mean(1) for eye in (LEFT_EYE, RIGHT_EYE)], axis=1)  # (T, 2, 2)
    eyes[~(np.abs(eyes) < _LARGEST).all(axis=(1, 2))] = np.nan
    return eyes.astype(np.float32)


def _points(entry: Any, row: int) -> NDArray[np.float64]:
    """The points of one entry (49, 2), NaN if it is empty."""
    # MATLAB writes an empty array as its two sizes, and says so.
    if entry.size == 0 or entry.attrs.get("MATLAB_empty"):
        return np.full((POINTS, 2), np.nan)
    if entry.shape != (2, POINTS) or entry.dtype.kind not in "fiu":
        raise ValueError(f"entry {row + 1} is {entry.dtype} of shape {entry.shape}")
    return np.asarray(entry[()].T, dtype=np.float64)


def eyes(root: str | PathLike[str], table: FrameTable) -> NDArray[np.float32] | None:
    """Centres of the eyes in the images of a table, from the landmarks that the root ships.

    Entry i of a file belongs to the i-th image of the sequence's folder by number (see the module: not verified), so
    both must have the same count: images that were taken out are put back before.

    Args:
        root: the folder that the table's image paths start from.
        table: of BP4D or BP4D+.

    Returns:
        (n, 2, 2), rows as in the table, see `read`; NaN where a row has no image or its face was lost. None if there is
        no folder `2DFeatures`.

    Raises:
        DataError: a file that is missing or damaged, or has more or fewer entries than there are images.
    """
    root = Path(root)
    folder = layout.first_folder(root, (FOLDER,))
    if folder is None:
        return None
    found = np.full((len(table), 2, 2), np.nan, dtype=np.float32)
    images = table.frames["image"].to_numpy()
    sequences = table.frames[images != ""].groupby(["subject", "sequence"], sort=False)
    for (subject, sequence), frames in sequences:
        names = [Path(image) for image in frames["image"]]
        place = root / names[0].parent
        order = {number: entry for entry, number in enumerate(sorted(layout.numbered_images(place)))}
        path = folder / f"{subject}_{sequence}.mat"
        entries = read(path)
        if len(entries) != len(order):
            raise DataError(
                f"{path}: {len(entries)} entries, but {place} holds {len(order)} images. Expected one entry per image: "
                "keep all images of the sequence as distributed, or do without landmarks (align by the detector)."
            )
        found[frames.index] = entries[[order[int(name.stem)] for name in names]]
    return found


# ---------------------------------------------------------------------------------------------------------- writing


def write(path: Path, points: NDArray[np.floating]) -> None:
    """Writes one file in the layout that `read` reads, without MATLAB's names of classes. Equal points, equal bytes.

    Args:
        path: the file; its folder is made if need be.
        points: (T, 49, 2), x and y in pixels counted from 0; an image with a NaN gets an empty entry.
    """
    import h5py  # see `read`

    stored = (np.asarray(points).transpose(0, 2, 1) + 1).astype(np.float32)  # (T, 2, 49)
    with h5py.File(path.name, "w", driver="core", backing_store=False, userblock_size=len(_PREFACE)) as file:
        entries = file.create_group("#refs#")
        references = np.empty((len(stored), 1), dtype=h5py.ref_dtype)
        for row, content in enumerate(stored):
            if np.isnan(content).any():
                entry = entries.create_dataset(str(row), data=np.zeros(2, dtype=np.uint64))
                entry.attrs["MATLAB_empty"] = np.uint8(1)
            else:
                entry = entries.create_dataset(str(row), data=content)
            references[row, 0] = entry.ref
        file.create_dataset("fit/pred", data=references, dtype=h5py.ref_dtype)
        file.flush()
        content = file.id.get_file_image()
    path.parent.mkdir(parents=True, exist_ok=True)
    writing.write_file(path, _PREFACE + content)


def write_rendered(out: Path, rendered: Rendered) -> None:
    """Writes the landmarks of one rendered sequence, with an entry per image, `LOST_PER_MILLE` of them empty."""
    job = rendered.job
    points = rendered.landmarks()
    lost = [zlib.crc32(f"{job.name}/{frame}".encode()) % 1000 < LOST_PER_MILLE for frame in job.frames.tolist()]
    points[lost] = np.nan
    write(out / FOLDER / f"{job.name}.mat", points)
