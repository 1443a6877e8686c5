"""GFT, the Sayette Group Formation Task: a reader whose every guess is a setting, and a writer of what it reads.

    <root>/labels/001A.csv               occurrence, one row per frame: a frame column and columns 1, AU1 or AU01
    <root>/images/001A/1.jpg             images, numbered without padding; any padding is read
    <root>/gft_train.txt, gft_test.txt   the subjects of the two parts, one per line
    <root>/gft.toml                      what your copy has otherwise; may be missing

Known: 96 people in 32 groups of three, 172,800 frames, labels of occurrence and intensity (Girard et al., FG 2017);
names of people such as 001A; ten AUs, one fixed split, and unknown labels left out AU by AU (code of AC2D and JAA-Net).

UNVERIFIED, because no public source that we read shows it, and so only a guess of ours until somebody with access has
looked: names and header of the label files, their separator, the number of the first frame, the code of an unknown
label; names, numbers and rate of the images; the subjects of the split, said to be 78 to train and 18 to test on; how
many frames are labelled, and how often each AU occurs; what files of landmarks look like, so none are read.

With access it is checked in ten minutes:

1. Read the wiki of https://osf.io/7wcyz, which describes the annotations; they are public, the video is on request.
2. Open one occurrence file. No header line, or another separator than the comma: convert it. The name of its frame
   column goes to `frame` (`frame = []` if there is none: rows then count from 0), every cell that is neither 0 nor 1
   to `missing`, the folder of these files to `labels`. They must be named after the subjects, as in 001A.csv.
3. Find the first annotated frame in the video and in your extracted images. Image number less frame number is
   `frame_offset`, the folder of the images is `images`.
4. Write the partition of the wiki into two lists, and name them in `train` and `test` unless they have the names above.
5. `aunce data check gft ROOT` names what does not fit; a cell of no known code is refused. Compare its card with the
   frame counts and base rates of the paper: an AU far below its base rate may have 0 where it is unknown.

Folders and files may be links to elsewhere; the paths in gft.toml themselves stay below the root. All of its keys, with
what holds without them:

    labels = "labels"
    images = "images"
    train = "gft_train.txt"
    test = "gft_test.txt"
    missing = ["9", "-1", "999", ""]
    frame = ["frame", "0"]
    frame_offset = 0
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from aunce.data import bp4d, layout
from aunce.data.frames import FrameTable, Protocol
from aunce.data.labels import LARGEST_FRAME, LabelFormat, read_labels
from aunce.data.layout import ReadSequence
from aunce.data.render import behaviour, writing
from aunce.data.render.writing import Job, Layout, Rendered
from aunce.errors import DataError, UsageError

AUS = (1, 2, 4, 6, 10, 12, 14, 15, 23, 24)
SEQUENCE = "session"
"""The name of the one sequence of each subject."""

CONFIG = "gft.toml"
_LABEL_FILES = "[0-9][0-9][0-9][A-Z].[cC][sS][vV]"

RATES: Mapping[int, float] = {au: round(sum(rates[au] for rates in bp4d.RATES.values()) / 3, 4) for au in AUS}
RATES_STATUS = (
    "unverified: the positive rates of GFT were not at hand. These are the means of BP4D's three parts, whose people "
    "did not talk in a group."
)

_SUBJECTS = tuple(f"{group:03}{letter}" for group in range(1, 33) for letter in "ABC")
# Our own split, for rendered faces alone: the real lists are not public. Groups stay together, because three people at
# one table answer each other.
_TEST_GROUPS = sorted({subject[:3] for subject in _SUBJECTS}, key=lambda group: zlib.crc32(group.encode()))[:6]
_RENDERED_PARTS: Mapping[str, tuple[str, ...]] = {
    "train": tuple(subject for subject in _SUBJECTS if subject[:3] not in _TEST_GROUPS),
    "test": tuple(subject for subject in _SUBJECTS if subject[:3] in _TEST_GROUPS),
}
_FRAMES_PER_SECOND = 30  # unverified
_LENGTH = 1_800  # 172,800 frames of 96 people
_UNCODED = 36  # frames in a row, 2 percent


class Config(BaseModel):
    """What `gft.toml` says of a copy of the data set; the defaults are what the writer writes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    labels: str = "labels"
    images: str = "images"
    train: str = "gft_train.txt"
    test: str = "gft_test.txt"
    missing: list[str] = ["9", "-1", "999", ""]
    frame: list[str] = ["frame", "0"]
    frame_offset: int = Field(default=0, ge=-LARGEST_FRAME, le=LARGEST_FRAME)

    @field_validator("labels", "images", "train", "test")
    @classmethod
    def _below_the_root(cls, path: str) -> str:
        pure = PurePosixPath(path)
        if not path or "\\" in path or not path.isprintable() or ".." in pure.parts or pure.is_absolute():
            raise ValueError("Expected a path below the root, with forward slashes")
        return path

    @field_validator("missing")
    @classmethod
    def _no_labels(cls, codes: list[str]) -> list[str]:
        for code in codes:
            if code in ("0", "1") or code != code.strip() or set(code) & set(',"\r\n'):
                raise ValueError(f"{code!r} is no code. Expected the text of a whole cell, other than 0 and 1")
        return codes

    @field_validator("frame")
    @classmethod
    def _no_au(cls, names: list[str]) -> list[str]:
        for name in names:
            if re.fullmatch(r"(au)?0*[1-9]\d*", name.strip().lower()):
                raise ValueError(f"{name!r} is the name of an AU column. Expected names of the frame column")
        return [name.strip().lower() for name in names]


# ---------------------------------------------------------------------------------------------------------- reading


def protocol(root: str | PathLike[str]) -> Protocol:
    """The protocol of a root: parts "train" and "test" from its two lists, the codes of unknown labels as settings.

    Raises:
        DataError: a list or `gft.toml` is missing or wrong; file and line.
    """
    root = Path(root)
    layout.read_marker(root, "gft", "GFT")
    config = _config(root)
    return _with_settings(config, _protocol(_lists(root, config)))[1]


def protocols(root: str | PathLike[str]) -> dict[str, Protocol]:
    """The one protocol in use, by name; errors are those of `protocol`."""
    made = protocol(root)
    return {made.name: made}


def read(
    root: str | PathLike[str],
    *,
    protocol: Protocol | None = None,
    images: Literal["required", "optional"] = "required",
) -> FrameTable:
    """Reads a root as its `gft.toml` describes it, see `aunce.data.Adapter.read`: parts, subjects as listed, frames.

    The protocol's setting "missing" gives the codes of unknown labels; without it those of `gft.toml` are used and
    noted in the table's protocol. Default: `gft.protocol(root)`.

    Raises:
        UsageError: a protocol with other subjects, another frame rule or other settings.
        DataError: file and line of what is wrong, or what the folder looks like if it is not GFT.
    """
    root = Path(root)
    synthetic = layout.read_marker(root, "gft", "GFT")
    config = _config(root)
    paths = _label_paths(root, config)
    lists = _lists(root, config)
    listed = [subject for subjects in lists.values() for subject in subjects]
    protocol = protocol or _protocol(lists)
    layout.check_protocol(protocol, title=f"{config.train} and {config.test}", subjects=listed, rules=("all",))
    config, protocol = _with_settings(config, protocol)
    columns = (*protocol.aus, *layout.null_aus(synthetic, protocol.aus))
    files = _by_subject(paths, listed, config)
    order, absent = layout.choose_subjects(root, protocol, listed, files)
    form = _format(config)
    sequences = []
    for subject in order:
        labels = read_labels(files[subject], columns, form)
        folder, numbers = root / config.images / subject, labels[:, 0] + config.frame_offset
        sequences.append(ReadSequence(subject, SEQUENCE, labels, layout.image_names(root, folder, numbers)))
    return layout.build_table(
        root,
        sequences,
        protocol,
        images=images,
        synthetic=synthetic,
        absent=absent,
        searched=f"{root / config.images / order[0]} (images and frame_offset in {CONFIG})",
    )


def fingerprint(root: str | PathLike[str]) -> str:
    """Eight hex digits over label files, lists, `gft.toml` and `synthetic.json`, see `aunce.data.Adapter`."""
    root = Path(root)
    layout.read_marker(root, "gft", "GFT")
    config = _config(root)
    paths = _label_paths(root, config)
    _lists(root, config)
    settings = [root / CONFIG] if (root / CONFIG).exists() else []
    return layout.fingerprint(root, [*paths, root / config.train, root / config.test, *settings])


def _config(root: Path) -> Config:
    path = root / CONFIG
    if not os.path.lexists(path):  # a link to nowhere is no consent to the defaults
        return Config()
    try:
        return Config(**tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: no TOML ({error}). Expected lines such as images = "images".') from error
    except ValidationError as error:
        raise DataError(f"{path}: {_problems(error)}. Valid names: {', '.join(Config.model_fields)}.") from None


def _problems(error: ValidationError) -> str:
    texts = []
    for detail in error.errors():
        name = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            texts.append(f"unknown name {name!r}")
        else:
            texts.append(f"{name} = {detail['input']!r}: {detail['msg'].removeprefix('Value error, ')}")
    return "; ".join(texts)


def _protocol(lists: Mapping[str, list[str]]) -> Protocol:
    return Protocol("gft", AUS, {part: frozenset(subjects) for part, subjects in lists.items()})


def _with_settings(config: Config, protocol: Protocol) -> tuple[Config, Protocol]:
    """The configuration and the protocol with the same codes of unknown labels: the protocol's, if it has any."""
    where = f"protocol {protocol.name!r}: settings"
    if not set(protocol.settings) <= {"missing"}:
        raise UsageError(f"{where} {', '.join(sorted(protocol.settings))}. GFT knows missing.")
    try:
        config = Config(**(config.model_dump() | dict(protocol.settings)))
    except ValidationError as error:
        raise UsageError(f"{where}: {_problems(error)}.") from None
    return config, dataclasses.replace(protocol, settings={"missing": sorted(set(config.missing))})


def _lists(root: Path, config: Config) -> dict[str, list[str]]:
    """Part -> its subjects in the order of its list."""
    lists: dict[str, list[str]] = {}
    home: dict[str, str] = {}
    for part, name in (("train", config.train), ("test", config.test)):
        path = root / name
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}: cannot be read ({error}). Expected the subjects of part {part!r}, one per line, such as "
                f"001A: take them from the data set's own partition, and name another file in {CONFIG} if need be."
            ) from error
        lists[part] = []
        for number, line in enumerate(lines, start=1):
            subject = line.strip()
            if not subject:
                continue
            if not re.fullmatch(r"[A-Za-z0-9_-]+", subject):
                raise DataError(
                    f"{path}, line {number}: {subject[:40]!r}. Expected one subject per line, such as 001A."
                )
            if subject in home:
                raise DataError(
                    f"{path}, line {number}: subject {subject} again, first in {home[subject]}. Expected each subject "
                    "once in one list: in both it would be trained and tested on."
                )
            home[subject] = f"{name}, line {number}"
            lists[part].append(subject)
        if not lists[part]:
            raise DataError(f"{path}: no subjects. Expected one per line, such as 001A.")
    return lists


def _label_paths(root: Path, config: Config) -> list[Path]:
    folder = root / config.labels
    paths = layout.label_files(folder, ".csv")
    if not paths:
        expected = f"Expected label files <subject>.csv in {folder}; {CONFIG} may name another folder"
        layout.refuse(
            root,
            "GFT",
            expected,
            is_root=lambda place: any((place / config.labels).glob(_LABEL_FILES)),
            is_labels=lambda place: any(place.glob(_LABEL_FILES)),
            name=config.labels,
        )
    return paths


def _by_subject(paths: list[Path], listed: list[str], config: Config) -> dict[str, Path]:
    files = {path.stem: path for path in paths}
    for subject, path in files.items():
        if subject not in listed:
            raise DataError(
                f"{path}: subject {subject} is neither in {config.train} nor in {config.test}. Expected each in one of "
                "them: add it to its list, or take the file out."
            )
    return files


def _format(config: Config) -> LabelFormat:
    frame = f"a frame column named {' or '.join(config.frame)}, " if config.frame else ""
    codes = ", ".join(repr(code) for code in sorted(set(config.missing)))
    return LabelFormat(
        header=f"the header of a label file has {frame}AU columns such as 1, AU1 or AU01; {CONFIG} sets the former",
        frame=tuple(config.frame),
        aus=lambda au: (str(au), f"au{au}", f"au{au:02}"),
        codes={"0": 0, "1": 1, **dict.fromkeys(config.missing, -1)},
        cell=f"0 absent, 1 present or, if not coded, {codes or 'nothing else'}; missing in {CONFIG} sets these codes",
    )


# ---------------------------------------------------------------------------------------------------------- writing


class _Gft(Layout):
    """The layout above with rendered faces, with a split of our own and BP4D's rates: see `RATES_STATUS`."""

    dataset, parts, rates = "gft", _RENDERED_PARTS, dict.fromkeys(_RENDERED_PARTS, RATES)
    folders = ("labels", "images")

    def plan(self, people: list[str], frames: int | None) -> list[Job]:
        offset = writing.evenly_spaced(_LENGTH, frames)
        return [Job(subject, SEQUENCE, 1 + offset, offset / _FRAMES_PER_SECOND) for subject in people]

    def write(self, out: Path, rendered: Rendered) -> None:
        """Images, then the label file: a label file stands for a complete sequence."""
        job = rendered.job
        names = [f"{frame}.jpg" for frame in job.frames.tolist()]
        writing.write_jpegs(out / "images" / job.subject, rendered.images(), names)
        writing.write_file(self.labels(out, job), _label_file(rendered))

    def finish(self, out: Path) -> None:
        """The whole lists, so that the protocol does not depend on how many subjects are drawn."""
        config = Config()
        for part, name in (("train", config.train), ("test", config.test)):
            writing.write_file(out / name, "\n".join([*_RENDERED_PARTS[part], ""]))

    def labels(self, out: Path, job: Job) -> Path:
        return out / "labels" / f"{job.subject}.csv"


LAYOUT = _Gft()
write = LAYOUT.render


def _label_file(rendered: Rendered) -> str:
    """Every drawn AU and the null AU; half of the files say AU01, the others AU1, and each has a stretch of 9s.

    The null AU is never unknown, so that what is learnt of it is not what is learnt of stretches.
    """
    job = rendered.job
    chance = zlib.crc32(job.subject.encode())
    start = 1 + (chance // 2) % (_LENGTH - _UNCODED)
    drawn = rendered.behaviour.occurrence.copy()
    drawn[(job.frames >= start) & (job.frames < start + _UNCODED)] = 9
    width = 1 + chance % 2
    header = ["frame", *(f"AU{au:0{width}}" for au in (*behaviour.AUS, behaviour.NULL_AU))]
    table = np.column_stack([job.frames, drawn, rendered.behaviour.null])
    return "\n".join([",".join(header), *(",".join(map(str, row)) for row in table.tolist()), ""])
