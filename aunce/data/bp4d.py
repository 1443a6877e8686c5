"""BP4D: the reader of its distributed layout, and a writer of the same layout with rendered faces.

    <root>/F001/T1/2440.jpg              images; the zero padding differs from sequence to sequence
    <root>/AUCoding/AU_OCC/F001_T1.csv   occurrence of the coded segment, one row per frame
    <root>/2DFeatures/F001_T1.mat        49 landmarks per image, optional, see `landmarks`

The header of a label file is 0,1,...,99: column 0 is the frame number, column n is AU n; cells are 1 present, 0 absent,
9 not coded. Columns are read by name, images are matched by number. Only a segment of about 20 s per task is coded.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aunce.data import landmarks, layout
from aunce.data.frames import FrameTable, Protocol
from aunce.data.labels import LabelFormat, read_labels
from aunce.data.layout import ReadSequence
from aunce.data.render import behaviour, writing
from aunce.data.render.writing import Job, Layout, Rendered
from aunce.errors import DataError

AUS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
TASKS = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8")

# fmt: off
PARTS: Mapping[str, tuple[str, ...]] = {
    "1": ("F001", "M007", "F018", "F008", "F002", "M004", "F010",
          "F009", "M012", "M001", "F016", "M014", "F023", "M008"),
    "2": ("M011", "F003", "M010", "M002", "F005", "F022", "M018",
          "M017", "F013", "M016", "F020", "F011", "M013", "M005"),
    "3": ("F007", "F015", "F006", "F019", "M006", "M009", "F012",
          "M003", "F004", "F021", "F017", "M015", "F014"),
}
# fmt: on
"""Part -> its subjects in the published order, that of the split lists of ME-GraphAU and of AUNCE's README."""

PROTOCOL = Protocol("bp4d", AUS, {part: frozenset(subjects) for part, subjects in PARTS.items()})

PUBLISHED_FRAMES = {PROTOCOL.name: {"1": 50_631, "2": 50_182, "3": 46_034}}
"""Protocol -> part -> labelled frames, counted in the split lists of AUNCE and ME-GraphAU."""

# Positive rates in percent, one column per part. Derived from the class weights that ME-GraphAU and AUNCE ship
# (BP4D_weight_fold*.txt give rates up to a constant) and, for the constant, the counts of AU 1, 2, 4, 7 and 12 that
# amogh112/deepFAU tallied from the original files; the five agree to four digits.
_PERCENT = {
    1: (16.44, 20.37, 27.15),
    2: (16.14, 13.09, 22.53),
    4: (19.92, 19.67, 21.29),
    6: (41.59, 46.46, 50.63),
    7: (58.98, 55.10, 50.19),
    10: (57.64, 55.71, 65.46),
    12: (55.85, 52.19, 60.97),
    14: (40.04, 51.34, 48.53),
    15: (15.14, 19.98, 15.60),
    17: (31.76, 36.63, 34.64),
    23: (15.85, 17.25, 16.53),
    24: (13.98, 15.68, 15.83),
}
RATES: Mapping[str, Mapping[int, float]] = {
    part: {au: round(percent[column] / 100, 4) for au, percent in _PERCENT.items()} for column, part in enumerate(PARTS)
}
"""Part -> AU -> positive rate over the labelled frames of the part."""

_SUBJECTS = tuple(subject for subjects in PARTS.values() for subject in subjects)
_PART_OF = {subject: part for part, subjects in PARTS.items() for subject in subjects}
_LABEL_FOLDERS = ("AUCoding/AU_OCC", "AU_OCC", "AUCoding")
_IMAGE_FOLDERS = (".", "Sequences(2D+3D)", "BP4D-training")
_FRAMES_PER_SECOND = 25
_COLUMNS = 100
_FORMAT = LabelFormat(
    header="the header of a label file is 0,1,...,99",
    frame=("0",),
    aus=lambda au: (str(au),),
    codes={"0": 0, "1": 1, "9": -1},
    cell="0 absent, 1 present or 9 not coded",
)


@cache
def segments() -> pd.DataFrame:
    """The coded segment of each of the 328 sequences, in the published order.

    Columns: part, subject, task, first_frame, frames. Counted in the published split lists (AUNCE, ME-GraphAU).
    """
    with resources.files("aunce.data").joinpath("published/bp4d_segments.csv").open("rb") as file:
        return pd.read_csv(file, dtype={"part": str})


# ---------------------------------------------------------------------------------------------------------- reading


def protocols(root: str | PathLike[str]) -> dict[str, Protocol]:
    """The one protocol in use, by name. It is the same for every root."""
    return {PROTOCOL.name: PROTOCOL}


def read(
    root: str | PathLike[str],
    *,
    protocol: Protocol | None = None,
    images: Literal["required", "optional"] = "required",
) -> FrameTable:
    """Reads a BP4D root, real or rendered.

    The label files lie in AUCoding/AU_OCC, AU_OCC or AUCoding; the subjects' image folders in the root, in
    `Sequences(2D+3D)` or in `BP4D-training`. Code 9 becomes -1. Values are checked in the columns that the protocol
    uses; other columns may hold anything.

    Args:
        root: the folder of the data set.
        protocol: its AUs must be columns of the label files, its subjects BP4D's. Default: `PROTOCOL`.
        images: "required" drops labelled frames without an image and lists them in `missing_images`; "optional" keeps
            them with an empty image path.

    Returns:
        The frame table in the published order: parts, subjects as in `PARTS`, tasks, frames ascending.

    Raises:
        UsageError: a protocol with other subjects or another frame rule.
        DataError: file and line of what is wrong, or what the folder looks like if it is not BP4D.
    """
    root = Path(root)
    protocol = protocol or PROTOCOL
    layout.check_protocol(protocol, title="BP4D", subjects=_SUBJECTS, rules=("all",))
    synthetic = layout.read_marker(root, "bp4d", "BP4D")
    columns = (*protocol.aus, *layout.null_aus(synthetic, protocol.aus))
    files = _label_files(root)
    present = [subject for subject in _SUBJECTS if (subject, TASKS[0]) in files]
    wanted = [s for subjects in protocol.parts.values() for s in _SUBJECTS if s in subjects]
    order = [subject for subject in wanted if subject in present]
    if not order:
        raise DataError(f"{root}: holds no subject of protocol {protocol.name!r}. Name another root or protocol.")
    sequences = []
    for subject in order:
        for task in TASKS:
            labels = read_labels(files[subject, task], columns, _FORMAT)
            sequences.append(ReadSequence(subject, task, labels, image_names(root, subject, task, labels[:, 0])))
    looked = ", ".join(str(root / folder / order[0] / TASKS[0]) for folder in _IMAGE_FOLDERS)
    absent = [subject for subject in wanted if subject not in present]
    return layout.build_table(
        root, sequences, protocol, images=images, synthetic=synthetic, absent=absent, looked=looked
    )


def fingerprint(root: str | PathLike[str]) -> str:
    """Eight hex digits over the label files and `synthetic.json`, see `layout.fingerprint`.

    Raises:
        DataError: the folder is not what BP4D's layout promises.
    """
    root = Path(root)
    layout.read_marker(root, "bp4d", "BP4D")
    return layout.fingerprint(root, _label_files(root).values())


def eyes(root: str | PathLike[str], table: FrameTable) -> NDArray[np.float32] | None:
    """Centres of the eyes in the images of a table (n, 2, 2), NaN where unknown; None if the root ships no landmarks.

    That an entry belongs to the image of its place is not verified, see `landmarks.eyes`.

    Raises:
        DataError: a landmark file that is missing, damaged, or of another length than there are images.
    """
    return landmarks.eyes(Path(root), table)


def _label_files(root: Path) -> dict[tuple[str, str], Path]:
    """(subject, task) -> label file, for subjects that have all eight."""
    for name in _LABEL_FOLDERS:
        folder = root / name
        # Hidden files are none of the data set's: some systems leave a `._F001_T1.csv` beside each copied file.
        paths = sorted(folder.glob("[!.]*.csv")) if folder.is_dir() else []
        if paths:
            break
    else:
        expected = f"Expected label files in {', '.join(str(root / folder) for folder in _LABEL_FOLDERS)}"
        if any(re.fullmatch(r"[FM]\d{3}_T\d\.csv", path.name) for path in root.iterdir()):
            raise DataError(f"{root}: this looks like the label folder itself. Name the folder above it. {expected}.")
        layout.refuse(root, "BP4D", f"{expected}, named <subject>_<task>.csv")
    files: dict[tuple[str, str], Path] = {}
    for path in paths:
        subject, _, task = path.stem.partition("_")
        if subject not in _SUBJECTS or task not in TASKS:
            hint = " This looks like BP4D+: its adapter is bp4dplus." if re.fullmatch(r"[FM]\d{3}", subject) else ""
            raise DataError(
                f"{path}: not a label file of BP4D. Expected <subject>_<task>.csv with subjects F001..F023 and "
                f"M001..M018 and tasks T1..T8.{hint}"
            )
        files[subject, task] = path
    layout.check_tasks(folder, files, _SUBJECTS, TASKS)
    return files


def image_names(root: Path, subject: str, task: str, frames: NDArray[np.int64]) -> list[str]:
    """Path below the root of the image of each frame number (T,), whatever its zero padding; "" where there is none."""
    for folder in _IMAGE_FOLDERS:
        place = root / folder / subject / task
        if place.is_dir():
            found = layout.numbered_images(place)
            prefix = "/".join(part for part in (folder, subject, task) if part != ".")
            return [f"{prefix}/{found[frame]}" if frame in found else "" for frame in frames.tolist()]
    return [""] * len(frames)


# ---------------------------------------------------------------------------------------------------------- writing


class _Bp4d(Layout):
    dataset, subjects, folders = "bp4d", _SUBJECTS, ("AUCoding", landmarks.FOLDER, *_SUBJECTS)

    def people(self, count: int) -> list[str]:
        return writing.deal(PARTS, count)

    def plan(self, people: list[str], frames: int | None) -> list[Job]:
        coded = segments().set_index(["subject", "task"])
        padding = _paddings()
        jobs = []
        for subject in people:
            for task in TASKS:
                first, length = (int(coded.loc[(subject, task), column]) for column in ("first_frame", "frames"))
                offset = writing.spread(length, frames)
                times = offset / _FRAMES_PER_SECOND
                jobs.append(Job(subject, task, first + offset, times, padding=padding[subject, task]))
        return jobs

    def rates(self, subject: str) -> Mapping[int, float]:
        return RATES[_PART_OF[subject]]

    def write(self, out: Path, rendered: Rendered) -> None:
        """Images, landmarks, then the label file: a label file stands for a complete sequence."""
        job = rendered.job
        names = [f"{frame:0{job.padding}d}.jpg" for frame in job.frames.tolist()]
        writing.write_jpegs(out / job.subject / job.sequence, rendered.images(), names)
        landmarks.write_rendered(out, rendered)
        writing.replace(self.labels(out, job), label_file(job.frames, rendered, columns=range(1, _COLUMNS)))

    def labels(self, out: Path, job: Job) -> Path:
        return out / "AUCoding" / "AU_OCC" / f"{job.name}.csv"


LAYOUT = _Bp4d()


def write(out: str | PathLike[str], **options: Any) -> None:
    """Writes BP4D's layout with rendered faces: its segments, padding of names and rates per part.

    Options and errors are those of `writing.render`. The real frames are 1040 x 1392 pixels.
    """
    writing.render(LAYOUT, out, **options)


def label_file(numbers: NDArray[np.int64], rendered: Rendered, *, columns: range | tuple[int, ...]) -> str:
    """A label file of BP4D or BP4D+: a header 0 and the AU numbers `columns`; 9 where an AU is not drawn.

    Args:
        numbers: frame numbers (T,) as the file gives them.
        rendered: the sequence.
        columns: AU numbers in the order of the file.
    """
    cells = np.full((len(numbers), len(columns)), 9, dtype=np.uint8)  # (T, columns)
    place = {au: column for column, au in enumerate(columns)}
    cells[:, [place[au] for au in behaviour.AUS]] = rendered.behaviour.occurrence
    cells[:, place[behaviour.NULL_AU]] = rendered.behaviour.null
    # Cells are single digits, so a row is text already once commas stand between them.
    text = np.full((len(numbers), 2 * len(columns)), ord(","), dtype=np.uint8)  # (T, 2 columns)
    text[:, 1::2] = cells + ord("0")
    rows = [f"{number}{row.tobytes().decode()}" for number, row in zip(numbers.tolist(), text, strict=True)]
    return "\n".join([",".join(map(str, (0, *columns))), *rows, ""])


@cache
def _paddings() -> dict[tuple[str, str], int]:
    """Width of the image names of each sequence: 1 has width 2, 124 width 3, 203 width 4, as in AU-Net's split lists.

    The width follows the length of the whole video, which nobody published, so it is not known which sequences have
    width 4 without needing it. We choose them by a hash among those that end at frame 475 or later, where the published
    lists have the first.
    """
    coded = segments()
    names = list(zip(coded["subject"], coded["task"], strict=True))
    last = dict(zip(names, (coded["first_frame"] + coded["frames"] - 1).tolist(), strict=True))
    width = {name: max(2, len(str(last[name]))) for name in names}
    open_ones = [name for name in names if width[name] == 3 and last[name] >= 475 and name != ("F001", "T8")]
    open_ones.sort(key=lambda name: zlib.crc32("/".join(name).encode()))
    return width | dict.fromkeys(open_ones[: 203 - list(width.values()).count(4)], 4)
