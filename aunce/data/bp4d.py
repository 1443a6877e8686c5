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
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Literal

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

_LABEL_FOLDERS = ("AUCoding/AU_OCC", "AU_OCC", "AUCoding")
_FRAMES_PER_SECOND = 25
_COLUMNS = 100
_FORMAT = LabelFormat(
    header="the header of a label file is 0,1,...,99",
    frame=("0",),
    first_column=True,
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


class Reader:
    """Reads roots with a label file <subject>_<task>.csv for each task of a subject; BP4D+ has such roots, too.

    The label files lie in AUCoding/AU_OCC, AU_OCC or AUCoding. Folders are found in upper and lower case. Values are
    checked in the columns that the protocol uses.

    Attributes:
        dataset: name of the data set.
        title: as its authors write it.
        protocol: the default.
        tasks: the coded tasks; a root holds all or none of a subject.
        form: of the label files.
        image_folders: where the images <subject>/<task>/<number>.jpg lie below the root.
        valid: subjects and tasks in words, for messages.
    """

    dataset, title, protocol, form = "bp4d", "BP4D", PROTOCOL, _FORMAT
    tasks: tuple[str, ...] = TASKS
    image_folders: tuple[str, ...] = (".", "Sequences(2D+3D)", "BP4D-training")
    valid = "subjects F001..F023 and M001..M018 and tasks T1..T8"
    subjects = tuple(subject for subjects in PARTS.values() for subject in subjects)

    def read(
        self,
        root: str | PathLike[str],
        *,
        protocol: Protocol | None = None,
        images: Literal["required", "optional"] = "required",
    ) -> FrameTable:
        """Reads a root, real or rendered, see `aunce.data.Adapter.read`: parts, subjects as published, tasks, frames.

        Raises:
            UsageError: a protocol with other subjects or another frame rule.
            DataError: file and line of what is wrong, or what the folder looks like if it is another data set.
        """
        root, protocol = Path(root), protocol or self.protocol
        layout.check_protocol(protocol, title=self.title, subjects=self.subjects, rules=("all",))
        synthetic = layout.read_marker(root, self.dataset, self.title)
        columns = (*protocol.aus, *layout.null_aus(synthetic, protocol.aus))
        files = self.label_files(root)
        order, absent = layout.choose_subjects(root, protocol, self.subjects, {subject for subject, _ in files})
        sequences = []
        for subject in order:
            for task in self.tasks:
                labels = read_labels(files[subject, task], columns, self.form)
                folder = layout.first_folder(root, [f"{folder}/{subject}/{task}" for folder in self.image_folders])
                names = self.image_names(root, folder, labels[:, 0], files[subject, task])
                sequences.append(ReadSequence(subject, task, labels, names))
        searched = ", ".join(str(root / folder / order[0] / self.tasks[0]) for folder in self.image_folders)
        return layout.build_table(
            root, sequences, protocol, images=images, synthetic=synthetic, absent=absent, searched=searched
        )

    def fingerprint(self, root: str | PathLike[str]) -> str:
        """Eight hex digits over the label files and `synthetic.json`, see `layout.fingerprint`.

        Raises:
            DataError: the folder is not what the layout promises.
        """
        root = Path(root)
        layout.read_marker(root, self.dataset, self.title)
        return layout.fingerprint(root, self.label_files(root).values())

    def label_files(self, root: Path) -> dict[tuple[str, str], Path]:
        """(subject, task) -> label file, for subjects that have all of their tasks."""
        places = [place for name in _LABEL_FOLDERS if (place := layout.first_folder(root, (name,)))]
        paths: list[Path] = next(filter(None, (layout.label_files(place, ".csv") for place in places)), [])
        if not paths:
            folders = ", ".join(str(root / folder) for folder in _LABEL_FOLDERS)
            expected = f"Expected label files in {folders}, named <subject>_<task>.csv"
            if places:
                said = layout.found_there(root, places[0])
                raise DataError(f"{root}: no label files of {self.title} in {places[0].name}. {expected}. {said}")
            layout.refuse(
                root,
                self.title,
                expected,
                is_root=lambda place: layout.first_folder(place, _LABEL_FOLDERS),
                is_labels=lambda place: any(place.glob("[FMfm][0-9][0-9][0-9]_[Tt]*.[cC][sS][vV]")),
                name=_LABEL_FOLDERS[0],
            )
        files: dict[tuple[str, str], Path] = {}
        for path in paths:
            subject, _, task = path.stem.upper().partition("_")
            if subject not in self.subjects or task not in self.tasks:
                raise DataError(
                    f"{path}: not a label file of {self.title}. Expected <subject>_<task>.csv with {self.valid}."
                    f"{self.hint(subject, task)}"
                )
            other = files.setdefault((subject, task), path)
            if other != path:
                raise DataError(
                    f"{path}: {subject}_{task} again, as in {other.name}. Expected one file: take one away."
                )
        for subject, _ in list(files):
            lacking = [f"{subject}_{task}.csv" for task in self.tasks if (subject, task) not in files]
            if lacking:
                raise DataError(
                    f"{paths[0].parent}: subject {subject} has no {', '.join(lacking)}. Expected all of "
                    f"{', '.join(self.tasks)} of a subject, or none: add the files or take the subject out."
                )
        return files

    def hint(self, subject: str, task: str) -> str:
        """The data set that a foreign subject or task belongs to, for the message about its file."""
        of_plus = re.fullmatch(r"[FM]\d{3}", subject) and re.fullmatch(r"T\d+", task)
        return " This looks like BP4D+: its adapter is bp4dplus." if of_plus else ""

    def image_names(self, root: Path, folder: Path | None, frames: NDArray[np.int64], labels: Path) -> list[str]:
        """Path below the root of the image of each frame number (T,), "" where there is none.

        Args:
            root: the root.
            folder: of the images of the sequence, None if there is none.
            frames: frame numbers as the label file gives them.
            labels: the label file, for messages.
        """
        return layout.image_names(root, folder, frames)


_READER = Reader()
read, fingerprint = _READER.read, _READER.fingerprint
eyes = landmarks.eyes


def protocols(root: str | PathLike[str]) -> dict[str, Protocol]:
    """The one protocol in use, by name. It is the same for every root."""
    return {PROTOCOL.name: PROTOCOL}


# ---------------------------------------------------------------------------------------------------------- writing


class TaskLayout(Layout):
    """BP4D's layout with rendered faces: its segments, padding of names and rates. Real frames are 1040 x 1392 pixels.

    Attributes:
        image_folder: where the folders of the subjects lie.
        image_shift: number of an image less that of its frame.
        columns: the AU numbers of a label file, in their order.
    """

    dataset, parts, rates = "bp4d", PARTS, RATES
    folders: tuple[str, ...] = ("AUCoding", landmarks.FOLDER, *Reader.subjects)
    image_folder, image_shift = ".", 0
    columns: Sequence[int] = range(1, _COLUMNS)

    def plan(self, people: list[str], frames: int | None) -> list[Job]:
        """The published segments."""
        spans = segments().set_index(["subject", "task"])[["first_frame", "frames"]]
        coded = dict(zip(spans.index, spans.to_numpy().tolist(), strict=True))
        padding = _paddings()
        jobs = []
        for subject in people:
            for task in TASKS:
                first, length = coded[subject, task]
                offset = writing.evenly_spaced(length, frames)
                times = offset / _FRAMES_PER_SECOND
                jobs.append(Job(subject, task, first + offset, times, padding=padding[subject, task]))
        return jobs

    def labels(self, out: Path, job: Job) -> Path:
        """AUCoding/AU_OCC/<subject>_<task>.csv."""
        return out / "AUCoding" / "AU_OCC" / f"{job.name}.csv"

    def write(self, out: Path, rendered: Rendered) -> None:
        """Images, landmarks, then the label file with 9 where an AU is not drawn."""
        job, shown = rendered.job, rendered.behaviour
        names = [f"{frame + self.image_shift:0{job.padding}d}.jpg" for frame in job.frames.tolist()]
        writing.write_jpegs(out / self.image_folder / job.subject / job.sequence, rendered.images(), names)
        landmarks.write_rendered(out, rendered)
        cells = np.full((len(names), len(self.columns)), 9, dtype=np.uint8)  # (T, columns)
        place = {au: column for column, au in enumerate(self.columns)}
        cells[:, [place[au] for au in behaviour.AUS]] = shown.occurrence
        cells[:, place[behaviour.NULL_AU]] = shown.null
        # Cells are single digits, so a row is text already once commas stand between them.
        text = np.full((len(names), 2 * len(self.columns)), ord(","), dtype=np.uint8)  # (T, 2 columns)
        text[:, 1::2] = cells + ord("0")
        rows = [f"{frame}{row.tobytes().decode()}" for frame, row in zip(job.frames.tolist(), text, strict=True)]
        header = ",".join(map(str, (0, *self.columns)))
        writing.write_file(self.labels(out, job), "\n".join([header, *rows, ""]))


LAYOUT = TaskLayout()
write = LAYOUT.render


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
