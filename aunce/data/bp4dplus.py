"""BP4D+: the reader of its distributed layout, and a writer of the same layout with rendered faces.

    <root>/2D+3D/F001/T1/0000.jpg        images, numbered from 0; the subjects' folders may lie in the root as well
    <root>/AUCoding/AU_OCC/F001_T1.csv   occurrence of the coded segment, one row per frame, frames numbered from 1
    <root>/2DFeatures/F001_T1.mat        49 landmarks per image, optional, see `landmarks`

Frame f of a label file is image f - 1. The table's `frame` is the label's number. Of the ten tasks only T1, T6, T7 and
T8 are coded. The header names AUs and leaves some out, so the place of a column is not its AU, unlike in BP4D: columns
are read by name; the first is the frame number, called 0 or frame. Cells are 1 present, 0 absent, 9 not coded.

Not verified, for want of the licensed data: that labels count from 1 and images from 0 (one public project says that it
checked), the number of labelled frames (197,756 and 197,875 are both quoted) and the positive rates. Nothing in reading
depends on the last two. BigSmall leaves F041/T7 out as faulty; here all are read.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aunce.data import bp4d, landmarks, layout
from aunce.data.frames import Protocol
from aunce.data.labels import LabelFormat
from aunce.data.render import writing
from aunce.data.render.writing import Job
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

_FRAMES_PER_SECOND = 25
_FRAMES = 353  # in a sequence: FMAE extracted 197,756 labelled frames of 560 sequences
# After the frame number, as the published readers of the files have it. The last two are ours: the renderer draws and
# labels AU25 and AU26, which the files do not have. AU28, which it labels and never draws, is among the real ones.
_COLUMNS = (*range(1, 3), *range(4, 8), *range(9, 21), *range(22, 25), *range(27, 40), 25, 26)
# What the coded tasks are said to be about (amusement, embarrassment, fear, pain; unverified), by BP4D's tasks of the
# same kind, which the renderer knows. Their moods nearly cancel, so the rates hold over four tasks as over eight.
_ELICITS = {"T1": "T1", "T6": "T4", "T7": "T5", "T8": "T6"}
_FORMAT = LabelFormat(
    header="the header of a label file is 0 (or frame) and AU numbers 1,2,4,5,...,39",
    frame=("0", "frame", "frame#", "frame number", "frame_number", "framenumber"),
    aus=lambda au: (str(au),),
    codes={"0": 0, "1": 1, "9": -1},
    cell="0 absent, 1 present or 9 not coded",
    first_column=True,
)


# ---------------------------------------------------------------------------------------------------------- reading


class _Reader(bp4d.Reader):
    dataset, title, protocol, form = "bp4dplus", "BP4D+", PROTOCOL, _FORMAT
    tasks = TASKS
    image_folders = (".", "2D+3D")
    valid = f"subjects F001..F082 and M001..M058 and the coded tasks {', '.join(TASKS)}"
    subjects = tuple(subject for subjects in PARTS.values() for subject in subjects)

    def hint(self, subject: str, task: str) -> str:
        of_bp4d = subject in bp4d.PROTOCOL.part_of and task in bp4d.TASKS
        return " This looks like BP4D: its adapter is bp4d." if of_bp4d else ""

    def image_names(self, root: Path, folder: Path | None, frames: NDArray[np.int64], labels: Path) -> list[str]:
        """As in BP4D, but for the numbers. Images that seem to be numbered from 1 would belong to the frame before."""
        first, last = int(frames[0]), int(frames[-1])
        if first < 1:
            raise DataError(
                f"{labels}: there is a frame 0. Expected frames numbered from 1, so that frame f is image f - 1: "
                "copy the file from the data set again, as this may be a row number in place of the frame's."
            )
        found = layout.numbered_images(folder) if folder else {}
        # Distributed videos begin with image 0, and images of the coded frames alone end with number last - 1.
        if found and min(found) in (1, first) and last in found:
            raise DataError(
                f"{folder}: its first image is {found[min(found)]}, and {found[last]} is there for frame {last}, the "
                "last coded one. Expected images numbered from 0, so that frame f is image f - 1: number them as "
                "distributed."
            )
        return layout.image_names(root, folder, frames - 1, found)


_READER = _Reader()
read, fingerprint = _READER.read, _READER.fingerprint
eyes = landmarks.eyes


def protocols(root: str | PathLike[str]) -> dict[str, Protocol]:
    """The protocols in use by name, that within the data set first. They are the same for every root."""
    return {one.name: one for one in (PROTOCOL, CROSS)}


# ---------------------------------------------------------------------------------------------------------- writing


class _Bp4dPlus(bp4d.TaskLayout):
    dataset, parts, rates = "bp4dplus", PARTS, dict.fromkeys(PARTS, RATES)
    folders = ("AUCoding", landmarks.FOLDER, "2D+3D")
    image_folder, image_shift = "2D+3D", -1
    columns = _COLUMNS

    def plan(self, people: list[str], frames: int | None) -> list[Job]:
        """As many frames of each coded task from a second between 0 and 39, for want of published segments."""
        offset = writing.evenly_spaced(_FRAMES, frames)
        jobs = []
        for subject in people:
            for task in TASKS:
                first = 1 + _FRAMES_PER_SECOND * (zlib.crc32(f"{subject}/{task}".encode()) % 40)
                times = offset / _FRAMES_PER_SECOND
                jobs.append(Job(subject, task, first + offset, times, elicits=_ELICITS[task], padding=4))
        return jobs


LAYOUT = _Bp4dPlus()
write = LAYOUT.render
