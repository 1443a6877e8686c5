"""What the adapters share in reading a layout: the marker of rendered roots, images by number, the table."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aunce.data.frames import FrameTable, Protocol
from aunce.data.render.difficulty import VERSIONS
from aunce.errors import DataError, UsageError

MARKED = {
    "dataset": (str,),
    "null_au": (int,),
    "setting": (str,),
    "seed": (int,),
    "version": (int,),
    "size": (int,),
    "frames": (int, type(None)),
    "subjects": (list,),
    "dials": (dict,),
    "rates": (str,),
    "faces": (str,),
}
"""Types of the entries of `synthetic.json`; without the first two it is not one."""

MARKER, UNFINISHED = "synthetic.json", "synthetic.json.partial"
LATENTS = "synthetic_latents.parquet"
ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
OPENFACE = r"frame_det_(?:00_)?"
"""What OpenFace writes before the number of an image. It counts from 1, whatever its input was numbered from."""
MARKS = {
    "BP4D": {"AUCoding", "AU_OCC", "Sequences(2D+3D)", "BP4D-training"},
    "DISFA": {"ActionUnit_Labels", "Videos_LeftCamera", "Video_RightCamera", "Landmark_Points"}
    | {f"SN{n:03}" for n in range(1, 33)},
    "Aff-Wild2": {"AU_Detection_Challenge", "Train_Set", "Validation_Set", "cropped_aligned"},
    "BP4D+": {"Physiology", "Thermal", "IRFeatures", "2D+3D"},
    "GFT": {"gft.toml", "gft_train.txt", "gft_test.txt"},
    "a pack": {"pack.json", "images.npy"},
}
"""What stands in the root of each data set, or one folder below."""


@dataclass(frozen=True)
class ReadSequence:
    """One sequence as an adapter has read it.

    Attributes:
        subject: its subject.
        name: its name within the subject.
        labels: frame number and labels (T, 1 + K), frames ascending.
        images: path of each frame's image below the root (T,), "" where there is none.
    """

    subject: str
    name: str
    labels: NDArray[np.int64]
    images: Sequence[str]


def read_marker(root: Path, dataset: str, title: str) -> dict[str, Any] | None:
    """The content of `synthetic.json`, None for a data set that is not rendered.

    Raises:
        DataError: no folder; a rendering that was not finished, is damaged, or is of another data set.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Expected the root of {title}.")
    marker = root / MARKER
    if not marker.exists():
        if (root / UNFINISHED).exists():
            raise DataError(
                f"{root}: its rendering was not finished. Run `aunce data synth` again with the same options."
            )
        return None
    try:
        content: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        rendered, _ = content["dataset"], content["null_au"]
        for name in MARKED.keys() & content.keys():
            if type(content[name]) not in MARKED[name]:
                raise TypeError(f"its '{name}' is {content[name]!r}")
        if content.get("faces", "drawn") not in VERSIONS:  # without the entry: from before there was a choice
            raise ValueError(f"unknown faces {content['faces']!r}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{marker}: not what the renderer writes ({error}). Render into a new folder.") from error
    if rendered != dataset:
        raise DataError(f"{root}: holds rendered faces in the layout of {rendered}. Expected {dataset}.")
    return content


def latents(root: Path) -> pd.DataFrame:
    """Latent intensities of a rendered data set: subject, sequence, frame, AU1, AU2, ... AU26 (float32)."""
    return pd.read_parquet(root / LATENTS)


def null_aus(synthetic: dict[str, Any] | None, aus: Sequence[int]) -> tuple[int, ...]:
    """The AU that is labelled in a rendered root and never drawn, unless the protocol has it already."""
    return () if synthetic is None or synthetic["null_au"] in aus else (int(synthetic["null_au"]),)


def build_table(
    root: Path,
    sequences: Sequence[ReadSequence],
    protocol: Protocol,
    *,
    images: str,
    synthetic: dict[str, Any] | None,
    absent: Iterable[str] = (),
    searched: str,
) -> FrameTable:
    """The frame table of sequences in their published order.

    Args:
        root: the folder, for messages.
        sequences: at least one.
        protocol: parts, AUs and frame rule.
        images: "required" drops labelled frames without an image and lists them; "optional" keeps them.
        synthetic: what `read_marker` gave; its null AU is the last column of the labels.
        absent: subjects of the protocol that the root does not hold.
        searched: where images were looked for, if there is none at all.

    Raises:
        DataError: no frame has an image, or the table breaks a rule of `FrameTable`.
    """
    null = null_aus(synthetic, protocol.aus)
    columns = (*protocol.aus, *null)
    length = [len(sequence.labels) for sequence in sequences]
    content = np.concatenate([sequence.labels for sequence in sequences])
    labels = content[:, 1:].astype(np.int8)
    part_of = protocol.part_of

    def repeated(values: Iterable[str]) -> pd.Series:
        return pd.Series(np.repeat(list(values), length), dtype=str)

    frames = pd.DataFrame(
        {
            "subject": repeated(sequence.subject for sequence in sequences),
            "sequence": repeated(sequence.name for sequence in sequences),
            "frame": content[:, 0],
            "image": pd.Series([name for sequence in sequences for name in sequence.images], dtype=str),
            "part": repeated(part_of[sequence.subject] for sequence in sequences),
            **{f"AU{au}": labels[:, k] for k, au in enumerate(columns)},
        }
    )
    lost = (frames["image"] == "").to_numpy()
    missing = tuple(f"{s}/{t}/{f}" for s, t, f in frames.loc[lost, ["subject", "sequence", "frame"]].to_numpy())
    if images == "required":
        if lost.all():
            raise DataError(
                f"{root}: none of the {len(frames)} labelled frames has an image. Looked for the first in {searched}. "
                f"Put the images there, or read labels alone with images='optional'. {found_there(root)}"
            )
        frames = frames[~lost]
    return FrameTable(frames, protocol, null, synthetic, missing, tuple(absent))


def numbered_images(folder: Path, pattern: str = r"(\d+)") -> dict[int, str]:
    """Number -> file name of the images in a folder, whatever their zero padding; hidden and other files are passed by.

    Args:
        folder: may be missing; then there are no images.
        pattern: of the whole stem; its first group is the number.

    Raises:
        DataError: two images of one number.
    """
    found: dict[int, str] = {}
    if not folder.is_dir():
        return found
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            match = re.fullmatch(pattern, stem, re.ASCII) if suffix.lower() in IMAGE_SUFFIXES else None
            if match is None or len(match[1]) > 18:
                continue
            other = found.setdefault(int(match[1]), entry.name)
            if other != entry.name:
                first, second = sorted((other, entry.name))
                raise DataError(
                    f"{folder}: two images of frame {int(match[1])}, {first} and {second}. Expected one: remove the "
                    "other."
                )
    return found


def image_names(
    root: Path, folder: Path | None, numbers: NDArray[np.int64], found: Mapping[int, str] | None = None
) -> list[str]:
    """Path below the root of the image of each number (T,) in a folder, whatever its padding; "" where there is none.

    Args:
        root: the root.
        folder: of the images; None if there is none.
        numbers: of images (T,).
        found: what `numbered_images` gives for the folder, if it is at hand.

    Raises:
        DataError: two images of one number.
    """
    found = (numbered_images(folder) if found is None else found) if folder else {}
    prefix = folder.relative_to(root).as_posix() if folder else ""
    return [f"{prefix}/{found[number]}" if number in found else "" for number in numbers.tolist()]


def choose_subjects(
    root: Path, protocol: Protocol, order: Sequence[str], held: Container[str]
) -> tuple[list[str], list[str]]:
    """The subjects of a protocol that a root holds, and those that it does not.

    Args:
        root: the folder, for messages.
        protocol: whose parts come one after the other.
        order: all subjects of the data set; those of a part come in this order.
        held: subjects that the root holds.

    Raises:
        DataError: the root holds none of them.
    """
    wanted = [subject for subjects in protocol.parts.values() for subject in order if subject in subjects]
    present = [subject for subject in wanted if subject in held]
    if not present:
        raise DataError(f"{root}: holds no subject of protocol {protocol.name!r}. Name another root or protocol.")
    return present, [subject for subject in wanted if subject not in held]


def label_files(folder: Path | None, suffix: str) -> list[Path]:
    """The files of a folder with this suffix, by name. Hidden ones, such as `._F001_T1.csv`, are left out.

    Raises:
        DataError: a second copy of a file, as browsers and file managers name it.
    """
    names = sorted(_names(folder)) if folder else []
    paths = [folder / name for name in names if name[0] != "." and name.lower().endswith(suffix)] if folder else []
    for path in paths:
        if re.search(r"( \(\d+\)|[ -]+[Cc]opy)$", path.stem):
            raise DataError(
                f"{path}: a second copy of a label file. Expected each once: compare them and take one away."
            )
    return paths


def first_folder(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the folders `names` (upper or lower case) below the root that is there."""
    for name in names:
        place = root
        for part in name.split("/"):
            spelled = (name for name in sorted(_names(place)) if name.lower() == part.lower())
            match = next((place / one for one in (part, *spelled) if (place / one).is_dir()), None)
            if match is None:
                break
            place = match
        else:
            return place
    return None


def fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """Eight hex digits over names and bytes of the label files and `synthetic.json`, which stands for rendered pixels.

    The images of a real root are not read; the hash of its pack covers them.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
        data = data.replace(b"\r\n", b"\n")  # a copy by way of another system has the same labels
        digest.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode() + data)
    marker = root / MARKER
    digest.update(marker.read_bytes() if marker.is_file() else b"")
    return digest.hexdigest()[:8]


def refuse(
    root: Path,
    title: str,
    expected: str,
    *,
    is_root: Callable[[Path], object],
    is_labels: Callable[[Path], object],
    name: str,
) -> NoReturn:
    """Says what a folder without the label files of `title` is instead, and what to do.

    Another folder is named only if it would be taken for a root, so that no two messages send to each other.

    Args:
        root: the folder.
        title: of the data set.
        expected: what was looked for, and where.
        is_root: whether the label folder is found below a place.
        is_labels: whether a place looks like the label folder itself, or one below it.
        name: of the label folder below a root.

    Raises:
        DataError: always.
    """
    below = _names(root)
    if is_labels(root):
        above = [place for place in root.absolute().parents[:4] if is_root(place)]
        do = f"Name the folder above it, {above[-1]}" if above else f"Call it {name} and name the folder that it is in"
        raise DataError(f"{root}: this looks like the label folder itself. {do}. {expected}.")
    children = [root / name for name in sorted(below)]
    # Two levels, as a disk holds a folder of data sets.
    for place in [*children, *(child / name for child in children for name in sorted(_names(child)))]:
        if is_root(place):
            raise DataError(f"{root}: {title} seems to lie in {place}; name that folder. {expected}.")
    for place in children:
        if is_labels(place):
            raise DataError(f"{root}: {place.name} looks like the label folder. Call it {name}. {expected}.")
    if not below:
        raise DataError(f"{root}: the folder is empty. {expected}.")
    deeper = {name.lower() for name in below.union(*map(_names, children))}
    for other, marks in MARKS.items():
        seen = sorted(mark for mark in marks if mark.lower() in deeper)
        if other != title and seen and not deeper & {mark.lower() for mark in MARKS[title]}:
            raise DataError(f"{root}: this looks like {other} ({seen[0]} is there), not {title}. {expected}.")
    raise DataError(f"{root}: no label files of {title}. {expected}. {found_there(root)}")


def found_there(root: Path, folder: Path | None = None) -> str:
    """Which archives at the root are to be unpacked; or, if there are none, what stands in `folder` (the root)."""
    names = sorted(_names(root))
    deeper = [*names, *(f"{name}/{one}" for name in names for one in sorted(_names(root / name)))]
    packed = [name for name in deeper if name.lower().endswith(ARCHIVES)]
    if packed:
        more = f" and {len(packed) - 1} more" if len(packed) > 1 else ""
        return f"Still packed is {packed[0]}{more}: unpack it there."
    names = sorted(_names(folder or root))
    return f"It holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}." if names else "It is empty."


def _names(folder: Path) -> set[str]:
    """Names in a folder; none for a file, or where reading is not permitted, as in lost+found of a disk."""
    with contextlib.suppress(OSError):
        return set(os.listdir(folder))
    return set()


def check_protocol(protocol: Protocol, *, title: str, subjects: Iterable[str], rules: Sequence[str]) -> None:
    """Refuses a protocol that the data set cannot serve.

    Raises:
        UsageError: a foreign subject, or an unknown frame rule.
    """
    if protocol.frame_rule not in rules:
        raise UsageError(
            f"protocol {protocol.name!r}: frame rule {protocol.frame_rule!r}. {title} knows {', '.join(rules)}."
        )
    foreign = sorted(set(protocol.part_of) - set(subjects))
    if foreign:
        raise UsageError(f"protocol {protocol.name!r}: {foreign[0]} is no subject of {title}.")
