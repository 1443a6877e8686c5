"""Aff-Wild2 (ABAW): the reader of its distributed layout, and a writer of the same layout with rendered faces.

    <root>/<annotations>/AU_Detection_Challenge/Train_Set/<video>.txt        one row per video frame
    <root>/<annotations>/AU_Detection_Challenge/Validation_Set/<video>.txt
    <root>/cropped_aligned/<video>/00001.jpg                                 crops of 112 x 112 pixels

Crops may also lie in cropped_aligned_new_50_vids, beside or in cropped_aligned, or in batch1, batch2 of either. Labels
may lie in AU_Set, as in 2021, where they have the 12 AUs.
The folder of annotations has another name in every release, and may be the root itself. A label file begins with a
header AU1,AU2,...,AU26; cells are 1 present, 0 absent, -1 not annotated. It has no column of frame numbers: row i,
counted from 0, belongs to image i + 1, and a frame in which no face was found has a row but no image. The labels of the
test set were never released, so papers train on the official training set and test on the official validation set.

Aff-Wild2 publishes no identities, so here a subject is a video, the unit that is never divided. Two people of one video
have label files of their own, `<video>_left` and `<video>_right`, where the first may go without its suffix: these are
two sequences of the subject `<video>`. The official sets have the last word: where they put the two people of a video
into different sets, each is a subject named like its label file.

Folders are found in upper and lower case, and may be links to elsewhere. UNVERIFIED, for want of the licensed data: how
many label files the training set has (295 from memory); whether the official sets divide a video's two people; whether
names of videos hold dots, so only the last `.txt` is cut off. Nothing in reading depends on the three.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aunce.data import layout
from aunce.data.frames import FrameTable, Protocol
from aunce.data.labels import LabelFormat, read_labels
from aunce.data.layout import ReadSequence
from aunce.data.render import behaviour, writing
from aunce.data.render.writing import Job, Layout, Rendered
from aunce.errors import DataError

AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
FRAME_RULES = ("all", "known")
"""all: every row of the label files. known: only rows in which every AU of the protocol is annotated, the rule of most
published code."""

# Positive rates in percent over the rows that are annotated throughout: train, validation. The first column is counted
# in the class weights that av-savchenko/face-emotion-recognition prints for 1,359,519 training frames. The second is
# derived and approximate: the same weights over training and validation together, less the first column.
_PERCENT = {
    1: (11.82, 14.0),
    2: (4.98, 9.2),
    4: (15.40, 15.4),
    6: (26.61, 25.1),
    7: (39.70, 39.9),
    10: (34.44, 35.1),
    12: (24.49, 25.3),
    15: (2.81, 3.0),
    23: (3.14, 2.5),
    24: (2.56, 2.9),
    25: (62.66, 64.9),
    26: (7.43, 10.6),
}
_SETS = {"train": "Train_Set", "validation": "Validation_Set"}
_OTHER_NAMES = {"Train_Set": "Training_Set"}  # of 2020 and 2021
PUBLISHED_FRAMES = {"affwild2-known": {"train": 1_359_523, "validation": 445_845}}
"""Protocol -> part -> frames, as av-savchenko/face-emotion-recognition counts those that are annotated throughout."""

RATES: Mapping[str, Mapping[int, float]] = {
    part: {au: round(percent[column] / 100, 4) for au, percent in _PERCENT.items()} for column, part in enumerate(_SETS)
}
"""Part -> AU -> positive rate over the annotated frames of the part."""
RATES_STATUS = (
    "training set: counted by a public project. Validation set: approximate, derived from that project's rates of both "
    "sets together."
)

_TITLE = "Aff-Wild2"
_CHALLENGE = "AU_Detection_Challenge"
_OLD = "AU_Set"  # of ABAW-1 (2020), with 8 AUs, and of ABAW-2 (2021), with 12
_NEW_VIDEOS = "cropped_aligned_new_50_vids"
_IMAGE_FOLDERS = ("cropped_aligned", _NEW_VIDEOS, f"cropped_aligned/{_NEW_VIDEOS}")
_BATCHES = tuple(f"{folder}/batch{n}" for folder in ("cropped_aligned", ".") for n in (1, 2, 3))
_FORMAT = LabelFormat(
    header="the header of a label file is AU1,AU2,... with every AU of the protocol once",
    aus=lambda au: (f"au{au}",),
    first_column=True,
    codes={"0": 0, "1": 1, "-1": -1},
    cell="0 absent, 1 present or -1 not annotated",
)


# ---------------------------------------------------------------------------------------------------------- reading


def protocol(root: str | PathLike[str], *, frame_rule: str = "all") -> Protocol:
    """The protocol of the official sets: parts "train" and "validation" with the videos that the root holds.

    Args:
        root: the folder of the data set.
        frame_rule: a name in `FRAME_RULES`.

    Returns:
        The protocol. Its hash covers the names of the videos, so it differs between releases that differ in them.

    Raises:
        UsageError: an unknown frame rule.
        DataError: the folder is not what Aff-Wild2's layout promises.
    """
    made = _protocol(_label_files(Path(root)), frame_rule)
    layout.check_protocol(made, title=_TITLE, subjects=made.part_of, rules=FRAME_RULES)
    return made


def protocols(root: str | PathLike[str]) -> dict[str, Protocol]:
    """The protocols in use by name, that of every frame first.

    Raises:
        DataError: the folder is not what Aff-Wild2's layout promises.
    """
    files = _label_files(Path(root))
    return {one.name: one for one in (_protocol(files, rule) for rule in FRAME_RULES)}


def read(
    root: str | PathLike[str],
    *,
    protocol: Protocol | None = None,
    images: Literal["required", "optional"] = "required",
) -> FrameTable:
    """Reads an Aff-Wild2 root, real or rendered, see `aunce.data.Adapter.read`: parts, videos by name, frames.

    A subject is a video, see above; a sequence is one label file; a frame is the number of its image, from 1. The
    default protocol is that of the function `protocol`, with every frame.

    Raises:
        UsageError: a protocol with an unknown frame rule.
        DataError: file and line of what is wrong, or what the folder looks like if it is not Aff-Wild2.
    """
    root = Path(root)
    files = _label_files(root)
    synthetic = layout.read_marker(root, "affwild2", _TITLE)
    protocol = protocol or _protocol(files, "all")
    # Names of videos are published with the data alone, so a subject that is not there cannot be told from a wrong one.
    layout.check_protocol(protocol, title=_TITLE, subjects=protocol.part_of, rules=FRAME_RULES)
    videos: dict[str, list[str]] = {}
    paths = {video: path for part in files.values() for video, path in part.items()}
    for video, subject in sorted(_subjects(files).items()):
        videos.setdefault(subject, []).append(video)
    order, absent = layout.choose_subjects(root, protocol, sorted(protocol.part_of), videos)
    columns = (*protocol.aus, *layout.null_aus(synthetic, protocol.aus))
    sequences = []
    for subject in order:
        for video in videos[subject]:
            labels = read_labels(paths[video], columns, _FORMAT)
            labels[:, 0] += 1  # row i, counted from 0, belongs to image i + 1
            if protocol.frame_rule == "known":
                labels = labels[(labels[:, 1 : 1 + len(protocol.aus)] >= 0).all(axis=1)]
            sequences.append(ReadSequence(subject, video, labels, _image_names(root, video, labels[:, 0])))
    if not any(len(sequence.labels) for sequence in sequences):
        raise DataError(
            f"{root}: no frame in which all of {', '.join(f'AU{au}' for au in protocol.aus)} are annotated. Expected "
            "some: name a protocol with frame rule 'all', or with fewer AUs."
        )
    searched = ", ".join(str(root / folder / sequences[0].name) for folder in _IMAGE_FOLDERS)
    return layout.build_table(
        root, sequences, protocol, images=images, synthetic=synthetic, absent=absent, searched=searched
    )


def fingerprint(root: str | PathLike[str]) -> str:
    """Eight hex digits over the label files and `synthetic.json`, see `aunce.data.Adapter.fingerprint`."""
    files = _label_files(Path(root))
    return layout.fingerprint(Path(root), [path for part in files.values() for path in part.values()])


def _protocol(files: Mapping[str, Mapping[str, Path]], frame_rule: str) -> Protocol:
    subjects = _subjects(files)
    parts = {part: frozenset(subjects[video] for video in videos) for part, videos in files.items() if videos}
    return Protocol("affwild2" if frame_rule == "all" else f"affwild2-{frame_rule}", AUS, parts, frame_rule)


def _subjects(files: Mapping[str, Mapping[str, Path]]) -> dict[str, str]:
    """Name of a label file -> its subject: what is left without the suffix, unless that stands in both sets."""
    whole = {video: re.sub(r"(?<=.)_(left|right)\Z", "", video) for videos in files.values() for video in videos}
    divided = set.intersection(*({whole[video] for video in videos} for videos in files.values()))
    return {video: video if subject in divided else subject for video, subject in whole.items()}


def _label_files(root: Path) -> dict[str, dict[str, Path]]:
    """Part -> video -> label file, videos by name."""
    rendered = layout.read_marker(root, "affwild2", _TITLE) is not None
    expected = f"Expected {_CHALLENGE}/{{{','.join(_SETS.values())}}}/<video>.txt, at most two folders below the root"
    folders = _folders(root, _CHALLENGE) or _folders(root, _OLD)
    if not folders:
        sets = {name.lower(): name for name in _SETS.values()}
        here = root.absolute().name.lower()
        layout.refuse(
            root,
            _TITLE,
            expected,
            is_root=lambda place: layout.first_folder(place, (_CHALLENGE, *_IMAGE_FOLDERS)),
            is_labels=lambda place: (
                layout.first_folder(place, tuple(sets.values())) or (place == root and here in sets)
            ),
            name=f"{_CHALLENGE}/{sets[here]}" if here in sets else _CHALLENGE,
        )
    if len(folders) > 1:
        raise DataError(
            f"{root}: label folders of two releases, {folders[0]} and {folders[1]}. Expected one: move the other out "
            "of the root."
        )
    files: dict[str, dict[str, Path]] = {}
    for part, name in _SETS.items():
        place = layout.first_folder(folders[0], (name, _OTHER_NAMES.get(name, name)))
        files[part] = {path.stem: path for path in layout.label_files(place, ".txt")}
    lacking = [name for part, name in _SETS.items() if not files[part]]
    # A single rendered video is in one set.
    if lacking and not (rendered and len(lacking) == 1):
        raise DataError(
            f"{folders[0]}: no label files in {' and '.join(lacking)}. {expected}. {layout.found_there(folders[0])}"
        )
    if folders[0].name.lower() == _OLD.lower():
        _refuse_few(next(path for videos in files.values() for path in videos.values()))
    train, validation = files.values()
    both = sorted(train.keys() & validation.keys())
    if both:
        raise DataError(
            f"{train[both[0]]} and {validation[both[0]]}: video {both[0]} is in both sets, and would be trained and "
            "tested on. Expected it in one: take the other away."
        )
    return files


def _refuse_few(path: Path) -> None:
    """Refuse the labels of the first challenge, by the header of a file: their folder has the name of later ones."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = [name.strip().upper() for name in file.readline().split(",")]
    if lacking := [f"AU{au}" for au in AUS if f"AU{au}" not in header]:
        raise DataError(
            f"{path}: labels of {len(header)} AUs, without {', '.join(lacking)}, as in ABAW-1 (2020). Expected a later "
            f"release, with {len(AUS)} AUs."
        )


def _folders(root: Path, name: str, depth: int = 3) -> list[Path]:
    """The folders called `name` (upper or lower case), at most `depth` levels below the root, in order, each once."""
    found: dict[Path, Path] = {}  # by its true place, because links may lead to one folder twice
    try:
        with os.scandir(root) as entries:
            below = sorted(entry.name for entry in entries if not entry.is_file(follow_symlinks=False))
    except OSError:  # a link to a file or to nowhere, or lost+found where the root is that of a disk
        return []
    for folder in below:
        place = root / folder
        if folder.lower() == name.lower() and place.is_dir():
            found.setdefault(place.resolve(), place)
        # Crops are millions of files, and no labels are among them.
        elif depth > 1 and not folder.lower().startswith((".", "cropped", "__macosx")):
            for deeper in _folders(place, name, depth - 1):
                found.setdefault(deeper.resolve(), deeper)
    return list(found.values())


def _image_names(root: Path, video: str, frames: NDArray[np.int64]) -> list[str]:
    """Path below the root of the crop of each frame number (T,); "" where there is none.

    Raises:
        DataError: there is an image 0, so that each label would be given the image of the next frame.
    """
    for folder in (*_IMAGE_FOLDERS, *_BATCHES):
        place = layout.first_folder(root, (f"{folder}/{video}",))
        found = layout.numbered_images(place, rf"(?:{layout.OPENFACE})?(\d+)") if place else {}
        if not place or not found:
            continue
        if 0 in found:
            raise DataError(
                f"{place}: there is an image {found[0]}. Expected crops numbered from 00001.jpg, the first row's. If "
                "these count from 0, add 1."
            )
        return layout.image_names(root, place, frames, found)
    return [""] * len(frames)


# ---------------------------------------------------------------------------------------------------------- writing

# What is published: 105 validation videos, crops of 112 pixels, 30 frames per second in many names. UNVERIFIED, from
# memory: 295 training videos. Made up, in the likeness of the published ones: names, which videos show two people,
# lengths of 100 to 200 s, and how much is not annotated or has no crop.
_FRAMES_PER_SECOND = 30
_SHORTEST, _LONGEST = 3000, 6000
_NO_FACE, _NOT_ANNOTATED = 0.01, 0.03
_STRETCH = 2.0
"""Seconds that are without a face, or not annotated, as a whole."""
_WITHOUT_AN_AU = 20
"""One video in so many has an AU that is not annotated at all."""
_ANNOTATIONS = "ABAW Annotations"


def _name(number: int) -> str:
    size = ("1280x720", "640x360", "")[number % 3]
    return f"{number}-30-{size}" if size else f"video{number}"


# 277 training subjects of which 18 are pairs, 98 validation subjects of which 7 are: 295 and 105 label files.
_SUBJECTS = {
    "train": tuple(_name(number) for number in range(1, 278)),
    "validation": tuple(_name(number) for number in range(278, 376)),
}
_PAIRS = frozenset(subject for subjects in _SUBJECTS.values() for subject in subjects[1::16])


def _videos(subject: str) -> list[str]:
    """Names of the label files of a video. Of two people, the first has no suffix in some real videos."""
    if subject not in _PAIRS:
        return [subject]
    return [subject if zlib.crc32(subject.encode()) % 4 == 0 else f"{subject}_left", f"{subject}_right"]


class _Affwild2(Layout):
    """Aff-Wild2's layout with rendered faces: its sets, rates per part, and gaps in labels and crops.

    `subjects` counts videos, of which some show two people. With `frames`, a video has so many rows, numbered from 1,
    at times spread over all of it.
    """

    dataset, parts, rates, size = "affwild2", _SUBJECTS, RATES, 112
    folders = (_ANNOTATIONS, _IMAGE_FOLDERS[0])

    def plan(self, people: list[str], frames: int | None) -> list[Job]:
        jobs = []
        for subject in people:
            length = _SHORTEST + zlib.crc32(subject.encode()) % (_LONGEST - _SHORTEST + 1)
            offset = writing.evenly_spaced(length, frames)
            numbers, times = np.arange(1, len(offset) + 1), offset / _FRAMES_PER_SECOND
            jobs += [Job(subject, video, numbers, times, padding=5) for video in _videos(subject)]
        return jobs

    def write(self, out: Path, rendered: Rendered) -> None:
        """Images, then the label file: a label file stands for a complete sequence."""
        job, population = rendered.job, rendered.population
        # By the sequence, not by the subject: left and right are two people.
        images = population.images(job.sequence, rendered.behaviour, size=rendered.size)
        shown = ~gaps(job, "face", _NO_FACE, seed=population.seed)
        names = [f"{frame:0{job.padding}d}.jpg" for frame in job.frames[shown].tolist()]
        writing.write_jpegs(out / _IMAGE_FOLDERS[0] / job.sequence, images[shown], names)
        writing.write_file(self.labels(out, job), label_file(rendered))

    def labels(self, out: Path, job: Job) -> Path:
        return out / _ANNOTATIONS / _CHALLENGE / _SETS[self.part_of[job.subject]] / f"{job.sequence}.txt"


LAYOUT = _Affwild2()
write = LAYOUT.render


def label_file(rendered: Rendered) -> str:
    """A label file of Aff-Wild2 with the null AU as one more column; -1 where the video is not annotated."""
    job, seed = rendered.job, rendered.population.seed
    labelled = [behaviour.AUS.index(au) for au in AUS]
    cells = np.column_stack([rendered.behaviour.occurrence[:, labelled], rendered.behaviour.null])  # (T, K + 1)
    cells[gaps(job, "annotation", _NOT_ANNOTATED, seed=seed)] = -1
    lot = zlib.crc32(f"{seed} {job.sequence}".encode())
    if lot % _WITHOUT_AN_AU == 0:
        cells[:, lot // _WITHOUT_AN_AU % len(AUS)] = -1
    header = ",".join(f"AU{au}" for au in (*AUS, behaviour.NULL_AU))
    return "\n".join([header, *(",".join(map(str, row)) for row in cells.tolist()), ""])


def gaps(job: Job, what: str, share: float, *, seed: int) -> NDArray[np.bool_]:
    """Which frames (T,) lie in the stretches of a video, `share` of them in all, that lack something."""
    stretch = (job.times / _STRETCH).astype(np.int64)
    return np.asarray((behaviour.stream(seed, job.sequence, what).random(int(stretch.max()) + 1) < share)[stretch])
