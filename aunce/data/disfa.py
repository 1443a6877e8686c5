"""DISFA: the reader of its distributed layout, and a writer of the same layout with rendered faces.

    <root>/ActionUnit_Labels/SN001/SN001_au1.txt                  intensity of one AU: lines frame,intensity
    <root>/Videos_LeftCamera/LeftVideoSN001_comp.avi              4,845 frames of 1024 x 768 pixels, 20 per second
    <root>/Video_RightCamera/RightVideoSN001_Comp.avi
    <root>/Landmark_Points/SN001/tmp_frame_lm/SN001_0000_lm.mat   66 points in `pts`, or l00000_lm.mat

Names are read in upper and lower case, as they differ from file to file. Label files have no header; frames count from
1, intensities are 0 to 5, and there is no code for unknown. An AU is present where its intensity reaches a threshold: 2
in the code of AUNCE, ME-GraphAU and FMAE, 1 in OpenGraphAU's. SN010 has 4,844 lines, everybody else 4,845.

Frame f of a label file is frame f - 1 of the video, counted from 0. No images ship; if somebody extracted them, they
lie in <root>/SN001, or below images or img, and are used instead of the videos. Some tools number them from 0 and
others from 1. The image with number 0 or that with number 4845 tells which; if neither is there, or both, the root is
refused.

Not verified, for want of the licensed data: which camera the published code of AUNCE and ME-GraphAU used (left is
usual); which frame SN010 lacks; whether landmarks count pixels from 0 or 1 (here 0; a pixel is a thousandth of the
width). Positive rates are derived, see `RATES`.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from aunce.data import layout
from aunce.data.frames import FrameTable, Protocol
from aunce.data.images import read_image
from aunce.data.labels import LabelFormat, read_labels
from aunce.data.layout import ReadSequence
from aunce.data.render import behaviour, writing
from aunce.data.render.writing import Job, Layout, Rendered
from aunce.errors import DataError, RunError, UsageError

AUS = (1, 2, 4, 6, 9, 12, 25, 26)
"""The AUs that papers score, of the twelve that are labelled: these and 5, 15, 17 and 20."""
SEQUENCE = "video"
"""The name of the one sequence of each subject."""
FRAME_RULES = ("all", "jaa")
"""all: every labelled frame. jaa: without `LOST`, the frames that JAA-Net, ARL, AC2D and AU-Net leave out. Scores under
the two rules are not on the same frames."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "1": ("SN002", "SN010", "SN001", "SN026", "SN027", "SN032", "SN030", "SN009", "SN016"),
    "2": ("SN013", "SN018", "SN011", "SN028", "SN012", "SN006", "SN031", "SN021", "SN024"),
    "3": ("SN003", "SN029", "SN023", "SN025", "SN008", "SN005", "SN007", "SN017", "SN004"),
}
"""Part -> its subjects in the published order, that of ME-GraphAU's split lists."""

# fmt: off
LOST: Mapping[str, tuple[tuple[int, int], ...]] = {
    "SN001": ((398, 420), (3190, 3243)),
    "SN002": ((800, 826),),
    "SN004": ((4541, 4555),),
    "SN006": ((1349, 1405),),
    "SN009": ((1736, 1808), (1851, 1885)),
    "SN011": ((4529, 4533), (4830, 4845)),
    "SN021": ((574, 616), (985, 1164), (1190, 1205), (1305, 1338), (1665, 1710), (1862, 2477), (2554, 4657),
              (4710, 4722)),
    "SN023": ((1021, 1049), (3378, 3557), (3584, 3668), (4547, 4621), (4741, 4772), (4825, 4845)),
    "SN025": ((4596, 4662), (4816, 4835)),
    "SN027": ((3461, 3494), (4738, 4785)),
    "SN028": ((1875, 1885), (4571, 4690)),
    "SN029": ((4090, 4543),),
    "SN030": ((939, 962), (1406, 1422), (2100, 2132), (2893, 2955)),
}
# fmt: on
"""Subject -> first and last label frame of stretches in which the shipped landmarks fail, 4,670 frames in all. They are
exactly the frames that are missing in JAA-Net's lists (ZhiwenShao/PyTorch-JAANet)."""

# Positive rates in percent at intensity 2 or more, one column per part. Derived from the class weights that ME-GraphAU
# and AUNCE ship (DISFA_weight_fold*.txt give rates up to a constant) and, for the constant, the counts of AU 1, 2, 4,
# 12, 25 and 26 that amogh112/deepFAU tallied from the original files; the six agree.
_PERCENT = {
    1: (4.22, 3.37, 7.33),
    2: (2.58, 2.02, 8.35),
    4: (11.74, 15.26, 18.72),
    6: (5.41, 8.16, 10.11),
    9: (2.79, 2.95, 6.81),
    12: (10.33, 14.19, 14.13),
    25: (24.88, 30.29, 27.96),
    26: (11.24, 9.46, 5.75),
}
RATES: Mapping[str, Mapping[int, float]] = {
    part: {au: round(percent[column] / 100, 4) for au, percent in _PERCENT.items()} for column, part in enumerate(PARTS)
}
"""Part -> AU -> positive rate over the frames of the part, at intensity 2 or more."""

_SUBJECTS = tuple(subject for subjects in PARTS.values() for subject in subjects)
_LABELS, _LANDMARKS = "ActionUnit_Labels", "Landmark_Points"
_LABEL_FOLDERS = (_LABELS, "AU_Labels")
_IMAGE_FOLDERS = (".", "images", "img")
_LENGTH, _SIZE = 4845, (1024, 768)  # frames of a video, and their width and height
_FRAMES_PER_SECOND = 20
_LOWEST, _HIGHEST = 0, 5
# Of the 66 points, which are those of the 68-point scheme without the inner corners of the mouth, counted from 0: the
# outline of 17 comes first and the eyes in places 36 to 47, that at the image's left first. JAA-Net's table from 66 to
# 49 points (reflect_66.mat, points 18 to 66) says the same.
_POINTS, _OUTLINE, _EYES = 66, 17, (slice(36, 42), slice(42, 48))
_FORMAT = LabelFormat(
    header="a label file has lines frame,intensity and no header",
    names=("frame", "intensity"),
    frame=("frame",),
    aus=lambda au: ("intensity",),
    codes={str(level): level for level in range(_LOWEST, _HIGHEST + 1)},
    cell="an intensity, a whole number from 0 to 5",
    first_frame=1,
    digits=9,
)


# ---------------------------------------------------------------------------------------------------------- reading


def protocol(*, threshold: int = 2, camera: Literal["left", "right"] = "left", frame_rule: str = "all") -> Protocol:
    """The protocol of the three parts and eight AUs, named for what differs from `PROTOCOL`.

    Args:
        threshold: an AU is present from this intensity on, 1 to 5.
        camera: whose frames.
        frame_rule: a name in `FRAME_RULES`.

    Raises:
        UsageError: a value that is not among these.
    """
    settings = {"threshold": threshold, "camera": camera}
    named = {f"from{threshold}": threshold != 2, camera: camera != "left", frame_rule: frame_rule != "all"}
    name = "-".join(["disfa", *(word for word, differs in named.items() if differs)])
    parts = {part: frozenset(subjects) for part, subjects in PARTS.items()}
    return _with_settings(Protocol(name, AUS, parts, frame_rule, settings))


def protocols(root: str | PathLike[str]) -> dict[str, Protocol]:
    """The protocols in use by name, the usual one first. They are the same for every root.

    Without frames in which landmarks fail; from intensity 1 on, as in OpenGraphAU; of the right camera.
    """
    known = (PROTOCOL, protocol(frame_rule="jaa"), protocol(threshold=1), protocol(camera="right"))
    return {one.name: one for one in known}


def _with_settings(protocol: Protocol) -> Protocol:
    """The protocol with every setting, checked."""
    layout.check_protocol(protocol, title="DISFA", subjects=_SUBJECTS, rules=FRAME_RULES)
    settings = {"threshold": 2, "camera": "left"} | dict(protocol.settings)
    where, threshold = f"protocol {protocol.name!r}: settings", settings["threshold"]
    if len(settings) > 2:
        unknown = sorted(settings.keys() - {"threshold", "camera"})
        raise UsageError(f"{where} {', '.join(unknown)}. DISFA knows threshold and camera.")
    if type(threshold) is not int or not _LOWEST < threshold <= _HIGHEST:
        raise UsageError(f"{where} threshold = {threshold!r}. Expected a whole number from 1 to 5.")
    if settings["camera"] not in ("left", "right"):
        raise UsageError(f"{where} camera = {settings['camera']!r}. Expected 'left' or 'right'.")
    return dataclasses.replace(protocol, settings=settings)


PROTOCOL = protocol()
PUBLISHED_FRAMES = {
    "disfa": {"1": 43_604, "2": 43_605, "3": 43_605},
    "disfa-jaa": {"1": 43_173, "2": 40_344, "3": 42_627},
}
"""Protocol -> part -> frames: 4,845 of a subject but one that SN010 lacks; of JAA-Net, less the 4,670 it leaves out."""


def read(
    root: str | PathLike[str],
    *,
    protocol: Protocol | None = None,
    images: Literal["required", "optional"] = "required",
) -> FrameTable:
    """Reads a DISFA root, real or rendered, see `aunce.data.Adapter.read`: parts, subjects as in `PARTS`, frames.

    Only AUs of the protocol need label files. Settings "threshold" and "camera" that the protocol lacks are those of
    `PROTOCOL`. If any subject has extracted images, images are taken from such folders alone; else from the videos,
    whose frames are named `<path>#<frame from 0>`. So crops and whole frames are never mixed. Names such as
    LeftVideoSN001_comp_00001.jpg must be those of the protocol's camera; images that are numbers alone are taken to be.
    A video that ends early shows when it is packed.

    Raises:
        UsageError: a protocol with other subjects, another frame rule or other settings.
        DataError: file and line of what is wrong, or what the folder looks like if it is not DISFA.
    """
    root = Path(root)
    protocol = _with_settings(protocol or PROTOCOL)
    threshold, camera = protocol.settings["threshold"], protocol.settings["camera"]
    synthetic = layout.read_marker(root, "disfa", "DISFA")
    columns = (*protocol.aus, *layout.null_aus(synthetic, protocol.aus))
    files = _label_files(root)
    order, absent = layout.choose_subjects(root, protocol, _SUBJECTS, files)
    labels = {}
    for subject in order:
        content = _intensities(_of_aus(root, subject, files[subject], columns))
        content[:, 1:] = content[:, 1:] >= threshold
        labels[subject] = content[~_is_lost(subject, content[:, 0])] if protocol.frame_rule == "jaa" else content
    names = _image_names(root, {s: content[:, 0] for s, content in labels.items()}, camera, _length(synthetic))
    video = f"{camera.capitalize()}Video{order[0]}_comp.avi"
    images_of = [root / folder / order[0] for folder in _IMAGE_FOLDERS]
    return layout.build_table(
        root,
        [ReadSequence(subject, SEQUENCE, content, names[subject]) for subject, content in labels.items()],
        protocol,
        images=images,
        synthetic=synthetic,
        absent=absent,
        searched=", ".join(map(str, [root / _video_folders(camera)[0] / video, *images_of])),
    )


def fingerprint(root: str | PathLike[str]) -> str:
    """Eight hex digits over the label files and `synthetic.json`, see `aunce.data.Adapter.fingerprint`."""
    root = Path(root)
    layout.read_marker(root, "disfa", "DISFA")
    return layout.fingerprint(root, [path for files in _label_files(root).values() for path in files.values()])


def eyes(root: str | PathLike[str], table: FrameTable) -> NDArray[np.float32] | None:
    """Centres of the eyes in the images of a table; None if the root ships no landmarks.

    A file is read for each row, so this takes a minute for the whole data set. Landmark files count from 0; where one
    has number 4845 (l0NNNN_lm.mat in public code), there is one more than frames and its number is the frame's.

    Args:
        root: the folder of the data set.
        table: what `read` gave, or a part of it.

    Returns:
        (n, 2, 2) for the rows of the table: the mean of the six points around each eye in pixels, x first, the eye at
        the image's left first. NaN where a frame has no landmark file, and in the real frames of `LOST`, whose
        landmarks are known to be wrong: a crop by them shows no face.

    Raises:
        UsageError: the table is of the right camera; landmarks are of the left one, on whose frames public code
            draws them.
        DataError: a damaged file, two files of one frame, or images that are no whole frames.
    """
    root = Path(root)
    if _with_settings(table.protocol).settings["camera"] != "left":
        raise UsageError(
            "DISFA's landmarks belong to the left camera. Use them with camera 'left', or a face detector (--align "
            "detector)."
        )
    folder = layout.first_folder(root, (_LANDMARKS,))
    if folder is None:
        return None
    numbers = table.frames["frame"].to_numpy()
    centres = np.full((len(table), 2, 2), np.nan, dtype=np.float32)
    for subject, rows in table.frames.groupby("subject", sort=False).indices.items():
        _check_whole_frames(root, table.frames["image"].iloc[rows[0]], table.synthetic)
        files = _landmark_files(folder, str(subject), _length(table.synthetic))
        wrong = _is_lost(str(subject), numbers[rows]) & (table.synthetic is None)
        for row in rows[~wrong]:
            path = files.get(int(numbers[row]))
            if path is not None:
                centres[row] = _eyes_of(path)
    return centres


def _length(synthetic: dict[str, Any] | None) -> int:
    """Frames of a video."""
    return min((synthetic or {}).get("frames") or _LENGTH, _LENGTH)


# Labels


def _label_files(root: Path) -> dict[str, dict[int, Path]]:
    """Subject -> AU -> label file."""
    expected = f"Expected {_LABELS}/<subject>/<subject>_au<n>.txt below it, with subjects SN001..SN032"
    folder = layout.first_folder(root, _LABEL_FOLDERS)
    if folder is None:
        layout.refuse(
            root,
            "DISFA",
            expected,
            is_root=lambda place: layout.first_folder(place, _LABEL_FOLDERS),
            is_labels=lambda place: any(place.glob("[sS][nN][0-9][0-9][0-9]/*_[aA][uU]*.[tT][xX][tT]")),
            name=_LABELS,
        )
    files: dict[str, dict[int, Path]] = {}
    for place in sorted(folder.iterdir()):
        subject = place.name.upper()
        if not (re.fullmatch(r"SN\d+", subject) and place.is_dir()):
            continue
        if subject not in _SUBJECTS:
            raise DataError(f"{place}: {place.name} is no subject of DISFA. Take the folder out of the labels.")
        if subject in files:
            raise DataError(f"{folder}: two folders of subject {subject}. Expected one: take the other out.")
        files[subject] = {}
        for path in sorted(place.iterdir()):
            match = re.fullmatch(r"(SN\d+)_au0*(\d{1,2})\.txt", path.name, re.IGNORECASE | re.ASCII)
            if match is None:
                continue  # such as the hidden files that some systems leave beside each copied one
            if match[1].upper() != subject:
                raise DataError(f"{path}: in the folder of {subject}. Expected files of this subject: move it.")
            other = files[subject].setdefault(int(match[2]), path)
            if other != path:
                raise DataError(f"{path}: AU{match[2]} of {subject} again, as in {other.name}. Expected one file.")
    if not files:
        raise DataError(f"{folder}: no folders of subjects. {expected}. {layout.found_there(root, folder)}")
    return files


def _of_aus(root: Path, subject: str, files: Mapping[int, Path], aus: Sequence[int]) -> dict[int, Path]:
    """The files of these AUs."""
    for au in aus:
        if au not in files:
            raise DataError(
                f"{root / _LABELS / subject / f'{subject}_au{au}.txt'}: no such file. Expected one for each of "
                f"{', '.join(f'AU{au}' for au in aus)}: copy it from the data set, or take {subject} out."
            )
    return {au: files[au] for au in aus}


def _intensities(files: Mapping[int, Path]) -> NDArray[np.int64]:
    """Frame numbers and intensities (T, 1 + K) of one subject, frames ascending."""
    contents = {path: read_labels(path, (au,), _FORMAT) for au, path in files.items()}  # (T, 2) each
    (first, content), *others = contents.items()
    frames = content[:, 0]
    for path, other in others:
        if not np.array_equal(other[:, 0], frames):
            odd = np.setxor1d(frames, other[:, 0])
            lacking, having = (path, first) if odd[0] in frames else (first, path)
            raise DataError(
                f"{lacking}: no line of frame {odd[0]}, which {having} has; {len(odd)} frame(s) differ. Expected the "
                "same frames in all files of a subject: copy them again."
            )
    return np.column_stack([frames, *(content[:, 1] for content in contents.values())])


def _is_lost(subject: str, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which frames (T,) the rule "jaa" leaves out."""
    lost = np.zeros(len(frames), dtype=bool)
    for first, last in LOST.get(subject, ()):
        lost |= (frames >= first) & (frames <= last)
    return lost


# Images


def _image_names(
    root: Path, frames: Mapping[str, NDArray[np.int64]], camera: str, length: int
) -> dict[str, Sequence[str]]:
    """Subject -> path of each frame's image below the root, or of the video with the frame's place; "" without."""
    found = {subject: _extracted(root, subject, camera) for subject in frames}
    names: dict[str, Sequence[str]] = {}
    if any(found.values()):
        first = _first_number(root, found, length)
        for subject, numbers in frames.items():
            names[subject] = [found[subject].get(frame - 1 + first, "") for frame in numbers.tolist()]
        return names
    for subject, numbers in frames.items():
        video = _video(root, subject, camera)
        names[subject] = [f"{video}#{frame - 1}" if video else "" for frame in numbers.tolist()]
    return names


def _extracted(root: Path, subject: str, camera: str) -> dict[int, str]:
    """Number -> path below the root of extracted images of this camera."""
    place = layout.first_folder(root, [f"{folder}/{subject}" for folder in _IMAGE_FOLDERS])
    if place is None:
        return {}
    found = layout.numbered_images(place, rf"(?i:(?:{camera}video)?(?:{subject})?(?:_comp)?_?|{layout.OPENFACE})(\d+)")
    prefix = place.relative_to(root).as_posix()
    return {number: f"{prefix}/{name}" for number, name in found.items()}


def _first_number(root: Path, found: Mapping[str, Mapping[int, str]], length: int) -> int:
    """Number of the image of frame 1. One tool extracted all, so the folders must agree, and one may tell for all."""
    tells: dict[int, list[str]] = {0: [], 1: []}
    for subject, images in found.items():
        ends = [number for number in (0, length) if number in images]
        if len(ends) == 2:
            raise DataError(
                f"{root / images[0]}, {root / images[length]}: {length + 1} images, one more than frames. Expected "
                f"numbers 0 to {length - 1} or 1 to {length}: take away the one that is too many."
            )
        if ends:
            tells[int(ends[0] == length)].append(subject)
    from_0, from_1 = tells.values()
    if from_0 and from_1:
        raise DataError(
            f"{root}: images of {from_0[0]} count from 0 ({found[from_0[0]][0]}) and those of {from_1[0]} from 1 "
            f"({found[from_1[0]][length]}). Expected all subjects alike: extract them again."
        )
    if not from_0 and not from_1:
        raise DataError(
            f"{root}: extracted images have neither number 0 nor {length} in any folder, so they may count from 0 or "
            "from 1. Expected one of the two to tell: add an image of the first or last frame, or take the image "
            "folders out to use the videos."
        )
    return int(bool(from_1))


def _video_folders(camera: str) -> tuple[str, str]:
    usual = {"left": "Videos", "right": "Video"}[camera]
    other = {"left": "Video", "right": "Videos"}[camera]
    return f"{usual}_{camera.capitalize()}Camera", f"{other}_{camera.capitalize()}Camera"


def _video(root: Path, subject: str, camera: str) -> str:
    """Path below the root of a subject's video, "" without."""
    folder = layout.first_folder(root, _video_folders(camera))
    names = {f"{camera}video{subject}_comp{suffix}".lower() for suffix in (".avi", ".mp4")}
    found = sorted(path for path in folder.iterdir() if path.name.lower() in names) if folder else []
    if len(found) > 1:
        raise DataError(f"{folder}: two videos of {subject}, {found[0].name} and {found[1].name}. Expected one.")
    return found[0].relative_to(root).as_posix() if found else ""


# Landmarks


def _landmark_files(folder: Path, subject: str, length: int) -> dict[int, Path]:
    """Label frame -> landmark file of a subject."""
    place = layout.first_folder(folder, (f"{subject}/tmp_frame_lm", subject))
    if place is None:
        return {}
    found: dict[int, Path] = {}
    with os.scandir(place) as entries:
        for entry in entries:
            match = re.fullmatch(rf"(?:{subject}_|l)(\d{{1,9}})_lm\.mat", entry.name, re.IGNORECASE | re.ASCII)
            if match is None:
                continue
            other = found.setdefault(int(match[1]), Path(entry.path))
            if other.name != entry.name:
                first, second = sorted((other.name, entry.name))
                raise DataError(f"{place}: {first} and {second} have one number. Expected one: take the other away.")
    shift = 0 if length in found else 1
    return {number + shift: path for number, path in found.items()}


_FARTHEST = 1e6
"""Pixels. Eyes beyond it, and those that are no numbers, are unknown."""


def _eyes_of(path: Path) -> NDArray[np.float64]:
    """(2, 2)."""
    expected = f"Expected a MATLAB file with {_POINTS} points x, y in pts: copy it again, or remove it"
    try:
        points = np.asarray(_pts_of(path.read_bytes()), dtype=np.float64)
    except Exception as error:  # of every kind, as damage may be anywhere in the format
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error}). {expected}.") from error
    if points.shape != (_POINTS, 2):
        raise DataError(f"{path}: pts has shape {points.shape}. {expected}.")
    centres = np.stack([points[eye] for eye in _EYES])  # (2, 6, 2)
    if not (np.abs(centres) < _FARTHEST).all():
        return np.full((2, 2), np.nan)
    return np.asarray(centres.mean(axis=1))


# The number types of MATLAB's files; 14 is a variable and 15 a compressed one.
_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}


def _pts_of(data: bytes) -> NDArray[Any]:
    """The variable `pts` of a MATLAB file of version 4 to 7.

    Read here rather than by SciPy, which crashes the process on one wrong byte (1.17: an unknown number type), except
    for version 4, which SciPy reads by other code.
    """
    if 0 in data[:4]:  # only version 4 begins with a number
        return np.asarray(loadmat(io.BytesIO(data), variable_names=["pts"])["pts"])
    if data[124:128] != b"\x00\x01IM":
        raise ValueError("no MATLAB file of version 4 to 7 with the low byte first")
    for kind, content in _elements(data[128:]):
        if kind == 15:
            kind, content = next(_elements(zlib.decompress(content)))
        if kind == 14:
            (_, _), (_, shape), (_, name), (number, values), *_ = _elements(content)
            if name == b"pts":
                return np.frombuffer(values, _NUMBERS[number]).reshape(np.frombuffer(shape, "<i4"), order="F")
    raise ValueError("no variable pts")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each element: 8 bytes say type and size, or type, size and a content of up to 4 bytes."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from("<II", data, place)
        if kind >> 16:
            yield kind & 0xFFFF, data[place + 4 : place + 4 + (kind >> 16)]
            place += 8
        else:
            yield kind, data[place + 8 : place + 8 + size]
            place += 8 + size + (0 if kind == 15 else -size % 8)


def _check_whole_frames(root: Path, image: str, synthetic: dict[str, Any] | None) -> None:
    """Refuses landmarks for images that are not whole frames: eyes would be looked for in the wrong place."""
    if not image or "#" in image:  # a frame of a video
        return
    try:
        pixels = read_image(root / image)
    except DataError:  # broken, which is said when it is packed
        return
    size = (synthetic or {}).get("size")
    expected = (size, size) if size else _SIZE
    if pixels.shape[1::-1] != expected:
        raise DataError(
            f"{root / image}: {pixels.shape[1]} x {pixels.shape[0]} pixels. Landmarks belong to whole frames of "
            f"{expected[0]} x {expected[1]}: extract these, or, if these are crops of faces, take them as they are "
            "(--align none)."
        )


# ---------------------------------------------------------------------------------------------------------- writing

_LABELLED = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
_UNLABELLED = {"SN010": 2423}
"""The frame without labels; that there is one is published, which one is not."""
_LEVELS = (0.5, 1.0, 2.0, 3.0, 4.0)
"""Latent intensities from which on a label is 1, 2, ... 5. The renderer calls an AU present from 1.0 on, and that is
where label 2 begins."""
_RIGHT_YAW = 8.0
"""Degrees by which the right camera sees the head turned. Made up; the real one stands elsewhere in depth as well."""


class _Disfa(Layout):
    """DISFA's layout with rendered faces: labels, videos of both cameras, landmarks. Real frames are 1024 x 768 pixels.

    Rates are those of the parts at intensity 2 or more; AUs 5, 15, 17 and 20, which are labelled too, have the
    renderer's. With `frames`, a video has so many frames, from times spread over all of it. As in the real files, SN010
    lacks one label, names differ in case (in which files is made up), and some subjects have landmark files
    l0NNNN_lm.mat, one more than frames. The outline among the landmarks is a rough one.
    """

    dataset, parts, rates = "disfa", PARTS, RATES
    folders = (_LABELS, *(_video_folders(camera)[0] for camera in ("left", "right")), _LANDMARKS)

    def plan(self, people: list[str], frames: int | None) -> list[Job]:
        """Frames are numbered 1 to `frames`, whatever they are spread over: frame f is place f - 1 of the video."""
        offset = writing.evenly_spaced(_LENGTH, frames)
        numbers, times = np.arange(1, len(offset) + 1), offset / _FRAMES_PER_SECOND
        return [Job(subject, SEQUENCE, numbers, times) for subject in people]

    def labels(self, out: Path, job: Job) -> Path:
        return self._label_files(out, job.subject)[-1]

    def write(self, out: Path, rendered: Rendered) -> None:
        """Videos and landmarks, then the label files: the last of them stands for a complete sequence."""
        subject, shown = rendered.job.subject, rendered.behaviour
        scene = dataclasses.replace(shown.scene, yaw=shown.scene.yaw + _RIGHT_YAW)
        right = dataclasses.replace(rendered, behaviour=dataclasses.replace(shown, scene=scene))
        for camera, seen in (("left", rendered), ("right", right)):
            write_video(out / _video_folders(camera)[0] / _video_name(subject, camera), seen.images())
        _write_landmarks(out / _LANDMARKS / subject / "tmp_frame_lm", subject, rendered.landmarks())
        for path, text in zip(self._label_files(out, subject), label_files(rendered), strict=True):
            writing.write_file(path, text)

    def _label_files(self, out: Path, subject: str) -> list[Path]:
        """The files of `_LABELLED` and of the null AU."""
        name = "AU" if _number(subject) % 5 == 2 else "au"
        return [out / _LABELS / subject / f"{subject}_{name}{au}.txt" for au in (*_LABELLED, behaviour.NULL_AU)]


LAYOUT = _Disfa()
write = LAYOUT.render


def label_files(rendered: Rendered) -> list[str]:
    """The texts of the label files of `_LABELLED` and, 2 where present, of the null AU."""
    job, shown = rendered.job, rendered.behaviour
    levels = np.digitize(shown.intensity, _LEVELS)  # (T, 17)
    columns = [levels[:, behaviour.AUS.index(au)] for au in _LABELLED] + [2 * shown.null]
    kept = job.frames != _UNLABELLED.get(job.subject)
    return [
        "\n".join([*(f"{frame},{level}" for frame, level in zip(job.frames[kept], column[kept], strict=True)), ""])
        for column in columns
    ]


def write_video(path: Path, images: NDArray[np.uint8]) -> None:
    """Writes images (T, H, W, 3) RGB as Motion JPEG of quality 95.

    Raises:
        RunError: the video is not there, or not whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images.shape[1:3]
    # OpenCV's own encoder, as FFmpeg's cuts odd sides to even ones.
    video = cv2.VideoWriter(
        str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), _FRAMES_PER_SECOND, (width, height)
    )
    video.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
    for image in images:
        video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    video.release()
    # OpenCV says nothing when the disk is full.
    if cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) != len(images):
        raise RunError(
            f"{path}: the video could not be written. Free space on the disk and run the same command again."
        )


def _number(subject: str) -> int:
    return int(subject.removeprefix("SN"))


def _video_name(subject: str, camera: str) -> str:
    number = _number(subject)
    side = camera if camera == "left" and number % 3 == 0 else camera.capitalize()
    return f"{side}Video{subject}_{'comp' if (number % 4 > 0) == (camera == 'left') else 'Comp'}.avi"


def _write_landmarks(folder: Path, subject: str, points: NDArray[np.float64]) -> None:
    """One file per frame of points (T, 49, 2). One subject in three has the second kind of name and one file more."""
    folder.mkdir(parents=True, exist_ok=True)
    # The half-ellipse from brow to brow below the mouth: the renderer gives no points of the outline.
    left, right, lip = points[:, :1], points[:, 9:10], points[:, 40:41]
    angle = np.linspace(0, np.pi, _OUTLINE)[:, None]
    outline = (left + right) / 2 + np.cos(angle) * (left - right) / 2 + np.sin(angle) * 1.3 * (lip - (left + right) / 2)
    files = [_mat_file(row) for row in np.concatenate([outline, points], axis=1)]
    second = _number(subject) % 3 == 1
    for number, data in enumerate(files[:1] + files if second else files):
        name = f"l0{number:04}_lm.mat" if second else f"{subject}_{number:04}_lm.mat"
        (folder / name).write_bytes(data)


def _mat_file(points: NDArray[np.float64]) -> bytes:
    """The bytes of a MATLAB file, without the date that SciPy writes into its first 116."""
    file = io.BytesIO()
    savemat(file, {"pts": points})
    return b"MATLAB 5.0 MAT-file".ljust(116) + file.getvalue()[116:]
