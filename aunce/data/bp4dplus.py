"""BP4D+: the reader of its distributed layout, and a writer of the same layout with rendered faces.

    <root>/2D+3D/F001/T1/0000.jpg        images, numbered from 0; the subjects' folders may lie in the root as well
    <root>/AUCoding/AU_OCC/F001_T1.csv   occurrence of the coded segment, one row per frame, frames numbered from 1
    <root>/2DFeatures/F001_T1.mat        49 landmarks per image, optional, see `landmarks`

Frame f of a label file is image f - 1. The table's `frame` is the label's number. Of the ten tasks only T1, T6, T7 and
T8 are coded. The header names AUs and leaves some out, so the place of a column is not its AU, unlike in BP4D: columns
are read by name, only the frame number is the first column whatever it is called. Cells are 1 present, 0 absent,
9 not coded.

Not verified, for want of the licensed data: that labels count from 1 and images from 0 (one public project says that it
checked), the number of labelled frames (197,756 and 197,875 are both quoted) and the positive rates. Nothing in reading
depends on the last two. BigSmall leaves F041/T7 out as faulty; here all are read.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aunce.data import bp4d, landmarks, layout
from aunce.data.frames import FrameTable, Protocol
from aunce.data.labels import LabelFormat, read_labels
from aunce.data.layout import ReadSequence
from aunce.data.render import writing
from aunce.data.render.writing import Job, Layout, Rendered
from aunce.errors import DataError

AUS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
TASKS = ("T1", "T6", "T7", "T8")
"""The coded tasks."""

# fmt: off
PARTS: Mapping[str, tuple[str, ...]] = {
    "1": (
        "M040", "F072", "M015", "M029", "M003", "F076", "F053", "F026", "F044", "F066", "F057", "F061",
        "F071", "M050", "M033", "F079", "F020", "M025", "F014", "F004", "F013", "M017", "F033", "M042",
        "M004", "F038", "F019", "M036", "M026", "M048", "F039", "F046", "M051", "F047", "M020",
    ),
    "2": (
        "F074", "F012", "F034", "M001", "F056", "F075", "M009", "M038", "F024", "M047", "F016", "M045",
        "M034", "M022", "F060", "M011", "M044", "M046", "M005", "M028", "F077", "F028", "M055", "M019",
        "F032", "F030", "M037", "M043", "F031", "F022", "M023", "M018", "M016", "F065", "M052",
    ),
    "3": (
        "F029", "F054", "F064", "F045", "F009", "F040", "F008", "M041", "F063", "M056", "M024", "F001",
        "F080", "M010", "F062", "F035", "M054", "F052", "F027", "F043", "F042", "F050", "M057", "F078",
        "F058", "F017", "M035", "M030", "M027", "F021", "M031", "F069", "F002", "M008", "F068",
    ),
    "4": (
        "M058", "F037", "F010", "F023", "M007", "M002", "F025", "F073", "F048", "F041", "F051", "F011",
        "M032", "F005", "M021", "F018", "M013", "M049", "M014", "F070", "F006", "F067", "M039", "M006",
        "F059", "F003", "F007", "F049", "M053", "F081", "F055", "M012", "F082", "F015", "F036",
    ),
}
# fmt: on
"""Part -> its subjects: the test sets of the four folds that FMAE published, in the order of its lists."""

PROTOCOL = Protocol("bp4dplus", AUS, {part: frozenset(subjects) for part, subjects in PARTS.items()})
"""Within the data set: train on three parts, test on the fourth."""

CROSS = Protocol("bp4dplus-cross", AUS, {"all": frozenset().union(*PROTOCOL.parts.values())})
"""Across data sets, as JAA-Net, ARL and AC2D have it: train on all of BP4D, test on all of BP4D+."""

RATES: Mapping[int, float] = {au: round(sum(rates[au] for rates in bp4d.RATES.values()) / 3, 4) for au in AUS}
RATES_STATUS = (
    "unverified: nobody published the positive rates of BP4D+. These are the means of BP4D's three parts, whose five "
    "most frequent AUs are said to be those of BP4D+ too."
)

_SUBJECTS = tuple(subject for subjects in PARTS.values() for subject in subjects)
_LABEL_FOLDERS = ("AUCoding/AU_OCC", "AU_OCC", "AUCoding")
_IMAGE_FOLDERS = (".", "2D+3D")
_FRAMES_PER_SECOND = 25
_FRAMES = 353  # in a sequence: FMAE extracted 197,756 labelled frames of 560 sequences
# After the frame number, as the published readers of the files have it. The last two are ours: the renderer draws and
# labels AU25 and AU26, which the files do not have. AU28, which it labels and never draws, is among the real ones.
_COLUMNS = (*range(1, 3), *range(4, 8), *range(9, 21), *range(22, 25), *range(27, 40), 25, 26)
# What the coded tasks are said to be about (amusement, embarrassment, fear, pain; unverified), by BP4D's tasks of the
# same kind, which the renderer knows. Their moods nearly cancel, so the rates hold over four tasks as over eight.
_ELICITS = {"T1": "T1", "T6": "T4", "T7": "T5", "T8": "T6"}
_FORMAT = LabelFormat(
    header="the header of a label file is the frame number and AU numbers 1,2,4,5,...,39",
    aus=lambda au: (str(au),),
    codes={"0": 0, "1": 1, "9": -1},
    cell="0 absent, 1 present or 9 not coded",
    first_column=True,
)


# ---------------------------------------------------------------------------------------------------------- reading


def protocols(root: str | PathLike[str]) -> dict[str, Protocol]:
    """The protocols in use by name, that within the data set first. They are the same for every root."""
    return {one.name: one for one in (PROTOCOL, CROSS)}


def read(
    root: str | PathLike[str],
    *,
    protocol: Protocol | None = None,
    images: Literal["required", "optional"] = "required",
) -> FrameTable:
    """Reads a BP4D+ root, real or rendered.

    The label files lie in AUCoding/AU_OCC, AU_OCC or AUCoding, the subjects' image folders in the root or in `2D+3D`;
    folders are found in upper and lower case. Code 9 becomes -1. Values are checked in the columns that the protocol
    uses; other columns may hold anything.

    Args:
        root: the folder of the data set.
        protocol: its AUs must be columns of the label files, its subjects BP4D+'s. Default: `PROTOCOL`.
        images: "required" drops labelled frames without an image and lists them in `missing_images`; "optional" keeps
            them with an empty image path.

    Returns:
        The frame table: parts, subjects as in `PARTS`, tasks, frames ascending.

    Raises:
        UsageError: a protocol with other subjects or another frame rule.
        DataError: file and line of what is wrong, or what the folder looks like if it is not BP4D+.
    """
    root = Path(root)
    protocol = protocol or PROTOCOL
    layout.check_protocol(protocol, title="BP4D+", subjects=_SUBJECTS, rules=("all",))
    synthetic = layout.read_marker(root, "bp4dplus", "BP4D+")
    columns = (*protocol.aus, *layout.null_aus(synthetic, protocol.aus))
    files = _label_files(root)
    wanted = [s for subjects in protocol.parts.values() for s in _SUBJECTS if s in subjects]
    order = [subject for subject in wanted if (subject, TASKS[0]) in files]
    if not order:
        raise DataError(f"{root}: holds no subject of protocol {protocol.name!r}. Name another root or protocol.")
    sequences = []
    for subject in order:
        for task in TASKS:
            labels = read_labels(files[subject, task], columns, _FORMAT)
            if labels[0, 0] < 1:
                raise DataError(
                    f"{files[subject, task]}: there is a frame 0. Expected frames numbered from 1, so that frame f is "
                    "image f - 1. If these count from 0, add 1."
                )
            sequences.append(ReadSequence(subject, task, labels, _image_names(root, subject, task, labels[:, 0])))
    looked = ", ".join(str(root / folder / order[0] / TASKS[0]) for folder in _IMAGE_FOLDERS)
    absent = [subject for subject in wanted if subject not in order]
    return layout.build_table(
        root, sequences, protocol, images=images, synthetic=synthetic, absent=absent, looked=looked
    )


def fingerprint(root: str | PathLike[str]) -> str:
    """Eight hex digits over the label files and `synthetic.json`, see `layout.fingerprint`.

    Raises:
        DataError: the folder is not what BP4D+'s layout promises.
    """
    root = Path(root)
    layout.read_marker(root, "bp4dplus", "BP4D+")
    return layout.fingerprint(root, _label_files(root).values())


def eyes(root: str | PathLike[str], table: FrameTable) -> NDArray[np.float32] | None:
    """Centres of the eyes in the images of a table (n, 2, 2), NaN where unknown; None if the root ships no landmarks.

    BP4D+ is said to ship 49 landmarks in files of these names; that they are stored as BP4D's is not verified, nor that
    an entry belongs to the image of its place, see `landmarks.eyes`.

    Raises:
        DataError: a landmark file that is missing, damaged, or of another length than there are images.
    """
    return landmarks.eyes(Path(root), table)


def _label_files(root: Path) -> dict[tuple[str, str], Path]:
    """(subject, task) -> label file, for subjects that have all four."""
    for name in _LABEL_FOLDERS:
        folder = layout.first_folder(root, (name,))
        # Hidden files are none of the data set's: some systems leave a `._F001_T1.csv` beside each copied file.
        paths = sorted(folder.glob("[!.]*.csv")) if folder else []
        if paths:
            break
    else:
        expected = f"Expected label files in {', '.join(str(root / folder) for folder in _LABEL_FOLDERS)}"
        if any(re.fullmatch(r"[FM]\d{3}_T\d+\.csv", path.name) for path in root.iterdir()):
            raise DataError(f"{root}: this looks like the label folder itself. Name the folder above it. {expected}.")
        if layout.first_folder(root, _LABEL_FOLDERS):  # which is no mark of BP4D here
            raise DataError(f"{root}: its label folder holds no label files. {expected}, named <subject>_<task>.csv.")
        layout.refuse(root, "BP4D+", f"{expected}, named <subject>_<task>.csv")
    files: dict[tuple[str, str], Path] = {}
    for path in paths:
        subject, _, task = path.stem.partition("_")
        if subject not in _SUBJECTS or task not in TASKS:
            of_bp4d = subject in bp4d.PROTOCOL.part_of and task in bp4d.TASKS
            hint = " This looks like BP4D: its adapter is bp4d." if of_bp4d else ""
            raise DataError(
                f"{path}: not a label file of BP4D+. Expected <subject>_<task>.csv with subjects F001..F082 and "
                f"M001..M058 and the coded tasks {', '.join(TASKS)}.{hint}"
            )
        files[subject, task] = path
    layout.check_tasks(paths[0].parent, files, _SUBJECTS, TASKS)
    return files


def _image_names(root: Path, subject: str, task: str, frames: NDArray[np.int64]) -> list[str]:
    """Path below the root of the image of each frame number (T,), "" where there is none.

    Raises:
        DataError: the images seem to be numbered from 1, which would give each label the image of the next frame.
    """
    place = layout.first_folder(root, [f"{folder}/{subject}/{task}" for folder in _IMAGE_FOLDERS])
    found = layout.numbered_images(place) if place else {}
    if not place or not found:
        return [""] * len(frames)
    first, last = int(frames[0]), int(frames[-1])
    # Distributed videos begin with image 0, and images of the coded frames alone end with number last - 1.
    if min(found) in (1, first) and last in found:
        raise DataError(
            f"{place}: its first image is {found[min(found)]}, and {found[last]} is there for frame {last}, the last "
            "coded one. Expected images numbered from 0, so that frame f is image f - 1: number them as distributed."
        )
    prefix = place.relative_to(root).as_posix()
    return [f"{prefix}/{found[frame - 1]}" if frame - 1 in found else "" for frame in frames.tolist()]


# ---------------------------------------------------------------------------------------------------------- writing


class _Bp4dPlus(Layout):
    dataset, subjects, folders = "bp4dplus", _SUBJECTS, ("AUCoding", landmarks.FOLDER, "2D+3D")

    def people(self, count: int) -> list[str]:
        return writing.deal(PARTS, count)

    def plan(self, people: list[str], frames: int | None) -> list[Job]:
        """As many frames of each coded task from a second between 0 and 39, for want of published segments."""
        offset = writing.spread(_FRAMES, frames)
        jobs = []
        for subject in people:
            for task in TASKS:
                first = 1 + _FRAMES_PER_SECOND * (zlib.crc32(f"{subject}/{task}".encode()) % 40)
                times = offset / _FRAMES_PER_SECOND
                jobs.append(Job(subject, task, first + offset, times, elicits=_ELICITS[task], padding=4))
        return jobs

    def rates(self, subject: str) -> Mapping[int, float]:
        return RATES

    def write(self, out: Path, rendered: Rendered) -> None:
        """Images, landmarks, then the label file: a label file stands for a complete sequence."""
        job = rendered.job
        names = [f"{frame - 1:0{job.padding}d}.jpg" for frame in job.frames.tolist()]
        writing.write_jpegs(out / "2D+3D" / job.subject / job.sequence, rendered.images(), names)
        landmarks.write_rendered(out, rendered)
        writing.replace(self.labels(out, job), bp4d.label_file(job.frames, rendered, columns=_COLUMNS))

    def labels(self, out: Path, job: Job) -> Path:
        return out / "AUCoding" / "AU_OCC" / f"{job.name}.csv"


LAYOUT = _Bp4dPlus()


def write(out: str | PathLike[str], **options: Any) -> None:
    """Writes BP4D+'s layout with rendered faces, with segments of our own and BP4D's rates: see `RATES_STATUS`.

    Options and errors are those of `writing.render`. The real frames are 1040 x 1392 pixels.
    """
    writing.render(LAYOUT, out, **options)
