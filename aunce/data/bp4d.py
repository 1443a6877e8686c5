"""BP4D: the reader of its distributed layout, and a writer of the same layout with rendered faces.

    <root>/F001/T1/2440.jpg              images; the zero padding differs from sequence to sequence
    <root>/AUCoding/AU_OCC/F001_T1.csv   occurrence of the coded segment, one row per frame

The header of a label file is 0,1,...,99: column 0 is the frame number, column n is AU n; cells are 1 present, 0 absent,
9 not coded. Columns are read by name, images are matched by number. Only a segment of about 20 s per task is coded.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
from numpy.typing import NDArray

from aunce.data.frames import FrameTable, Protocol
from aunce.errors import DataError, RunError, UsageError

if TYPE_CHECKING:
    from aunce.data.synthetic import Population

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
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_FRAMES_PER_SECOND = 25
_COLUMNS = 100
_MARKER, _UNFINISHED = "synthetic.json", "synthetic.json.partial"
_LATENTS = "synthetic_latents.parquet"


@cache
def segments() -> pd.DataFrame:
    """The coded segment of each of the 328 sequences, in the published order.

    Columns: part, subject, task, first_frame, frames. Counted in the published split lists (AUNCE, ME-GraphAU).
    """
    with resources.files("aunce.data").joinpath("published/bp4d_segments.csv").open("rb") as file:
        return pd.read_csv(file, dtype={"part": str})


# ---------------------------------------------------------------------------------------------------------- reading


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
    if protocol.frame_rule != "all":
        raise UsageError(f"protocol {protocol.name!r}: frame rule {protocol.frame_rule!r}. BP4D knows only 'all'.")
    foreign = sorted(set(protocol.part_of) - set(_SUBJECTS))
    if foreign:
        raise UsageError(f"protocol {protocol.name!r}: {foreign[0]} is no subject of BP4D (F001..F023, M001..M018).")
    synthetic = _read_marker(root)
    null_aus = () if synthetic is None or synthetic["null_au"] in protocol.aus else (int(synthetic["null_au"]),)
    columns = (*protocol.aus, *null_aus)
    files = _label_files(root)

    present = [subject for subject in _SUBJECTS if (subject, TASKS[0]) in files]
    order = [s for subjects in protocol.parts.values() for s in _SUBJECTS if s in subjects and s in present]
    if not order:
        raise DataError(f"{root}: holds no subject of protocol {protocol.name!r}. Name another root or protocol.")
    image_root = _ImageFolders(root)
    sequences: list[tuple[str, str]] = []
    tables: list[NDArray[np.int64]] = []
    names: list[str] = []
    for subject in order:
        for task in TASKS:
            table = _read_labels(files[subject, task], columns)
            sequences.append((subject, task))
            tables.append(table)
            names += image_root.names(subject, task, table[:, 0])

    length = [len(table) for table in tables]
    content = np.concatenate(tables)
    labels = content[:, 1:].astype(np.int8)
    labels[labels == 9] = -1
    part_of = protocol.part_of
    frames = pd.DataFrame(
        {
            "subject": pd.Series(np.repeat([subject for subject, _ in sequences], length), dtype=str),
            "sequence": pd.Series(np.repeat([task for _, task in sequences], length), dtype=str),
            "frame": content[:, 0],
            "image": pd.Series(names, dtype=str),
            "part": pd.Series(np.repeat([part_of[subject] for subject, _ in sequences], length), dtype=str),
            **{f"AU{au}": labels[:, k] for k, au in enumerate(columns)},
        }
    )
    lost = (frames["image"] == "").to_numpy()
    missing = tuple(f"{s}/{t}/{f}" for s, t, f in frames.loc[lost, ["subject", "sequence", "frame"]].to_numpy())
    if images == "required":
        if lost.all():
            looked = ", ".join(str(root / folder / order[0] / TASKS[0]) for folder in _IMAGE_FOLDERS)
            raise DataError(
                f"{root}: none of the {len(frames)} labelled frames has an image. Looked for the first in {looked}. "
                "Put the 2D frames there, or read labels alone with images='optional'."
            )
        frames = frames[~lost]
    absent = tuple(s for subjects in protocol.parts.values() for s in _SUBJECTS if s in subjects and s not in present)
    return FrameTable(frames, protocol, null_aus, synthetic, missing, absent)


def fingerprint(root: str | PathLike[str]) -> str:
    """Eight hex digits over names and bytes of the label files and `synthetic.json`, which stands for rendered pixels.

    The images of a real root are not read; the hash of its pack covers them.

    Raises:
        DataError: the folder is not what BP4D's layout promises.
    """
    digest = hashlib.sha256()
    for (subject, task), path in sorted(_label_files(Path(root)).items()):
        data = path.read_bytes()
        digest.update(f"{subject}_{task} {len(data)}\n".encode() + data)
    marker = Path(root) / _MARKER
    digest.update(marker.read_bytes() if marker.is_file() else b"")
    return digest.hexdigest()[:8]


def _read_marker(root: Path) -> dict[str, Any] | None:
    """The content of `synthetic.json`, None for a data set that is not rendered."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Expected the root of BP4D.")
    marker = root / _MARKER
    if not marker.exists():
        if (root / _UNFINISHED).exists():
            raise DataError(
                f"{root}: its rendering was not finished. Run `aunce data synth` again with the same options."
            )
        return None
    try:
        content: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        int(content["null_au"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{marker}: not what the renderer writes ({error}). Render into a new folder.") from error
    return content


def _label_files(root: Path) -> dict[tuple[str, str], Path]:
    """(subject, task) -> label file, for subjects that have all eight."""
    for name in _LABEL_FOLDERS:
        folder = root / name
        # Hidden files are none of the data set's: some systems leave a `._F001_T1.csv` beside each copied file.
        paths = sorted(folder.glob("[!.]*.csv")) if folder.is_dir() else []
        if paths:
            break
    else:
        _refuse(root)
    files: dict[tuple[str, str], Path] = {}
    for path in paths:
        subject, _, task = path.stem.partition("_")
        if subject not in _SUBJECTS or task not in TASKS:
            hint = " This looks like BP4D+, which needs its own adapter." if re.fullmatch(r"[FM]\d{3}", subject) else ""
            raise DataError(
                f"{path}: not a label file of BP4D. Expected <subject>_<task>.csv with subjects F001..F023 and "
                f"M001..M018 and tasks T1..T8.{hint}"
            )
        files[subject, task] = path
    for subject in _SUBJECTS:
        lacking = [task for task in TASKS if (subject, task) not in files]
        if 0 < len(lacking) < len(TASKS):
            raise DataError(
                f"{folder}: subject {subject} has no {', '.join(f'{subject}_{task}.csv' for task in lacking)}. "
                "Expected all eight tasks of a subject, or none: add the files or take the subject out."
            )
    return files


def _refuse(root: Path) -> NoReturn:
    """Says what a folder without label files is instead."""
    below = {path.name for path in root.iterdir()}
    deeper = below | {child.name for name in below if (root / name).is_dir() for child in (root / name).iterdir()}
    expected = f"Expected label files in {', '.join(str(root / folder) for folder in _LABEL_FOLDERS)}"
    if not below:
        raise DataError(f"{root}: the folder is empty. {expected}.")
    looks = {
        "DISFA": {"ActionUnit_Labels", "Videos_LeftCamera", "Landmark_Points"} | {f"SN{n:03}" for n in range(1, 33)},
        "Aff-Wild2": {"AU_Detection_Challenge", "Train_Set", "Validation_Set", "cropped_aligned"},
        "BP4D+": {"Physiology", "Thermal", "IRFeatures", "2D+3D"},
        "a pack": {"pack.json", "images.npy"},
    }
    for name, marks in looks.items():
        seen = sorted(marks & deeper)
        if seen:
            raise DataError(f"{root}: this looks like {name} ({seen[0]} is there), not BP4D. {expected}.")
    if any(re.fullmatch(r"[FM]\d{3}_T\d\.csv", name) for name in below):
        raise DataError(f"{root}: this looks like the label folder itself. Name the folder above it. {expected}.")
    raise DataError(f"{root}: no label files of BP4D. {expected}, named <subject>_<task>.csv.")


def _read_labels(path: Path, aus: tuple[int, ...]) -> NDArray[np.int64]:
    """Frame number and AU columns of one label file, (T, 1 + K), frames ascending."""
    data = path.read_bytes()
    header = _header(path, data, aus)
    wanted = [header.index(number) for number in (0, *aus)]
    names = [str(column) for column in range(len(header))]
    try:
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(data),
            pyarrow.csv.ReadOptions(use_threads=False, skip_rows=1, column_names=names),
            pyarrow.csv.ParseOptions(quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[names[column] for column in wanted],
                column_types={names[column]: pyarrow.int64() for column in wanted},
                null_values=[],
            ),
        )
        content = np.stack([column.to_numpy() for column in table.columns], axis=1)
    except pyarrow.ArrowInvalid:
        content = None  # something is off: the slow reader says what and where
    # An "x" could be a hexadecimal number to Arrow; nothing in a label file is written so.
    if content is not None and len(content) and b"x" not in data.lower():
        frame, values = content[:, 0], content[:, 1:]
        if frame[0] >= 0 and (np.diff(frame) > 0).all() and np.isin(values, (0, 1, 9)).all():
            return content
    return _read_labels_slowly(path, data, header, aus)


def _header(path: Path, data: bytes, aus: tuple[int, ...]) -> list[int | None]:
    """AU numbers of the columns; None for a column with another name."""
    line = data.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace")
    numbers = {str(number): number for number in range(_COLUMNS)}
    header = [numbers.get(cell.strip()) for cell in line.split(",")]
    for number in (0, *aus):
        count = header.count(number)
        if count != 1:
            what = "the frame number (column 0)" if number == 0 else f"AU{number}"
            raise DataError(
                f"{path}, line 1: {count} columns for {what}. Expected one: the header of a label file is 0,1,...,99."
            )
    return header


def _read_labels_slowly(path: Path, data: bytes, header: list[int | None], aus: tuple[int, ...]) -> NDArray[np.int64]:
    """The same as `_read_labels`, cell by cell, for the sake of exact messages."""
    text = io.StringIO(data.decode("utf-8-sig", errors="replace"), newline="")
    reader = csv.reader(text, quoting=csv.QUOTE_NONE)
    next(reader)
    rows: dict[int, list[int]] = {}
    lines: dict[int, int] = {}
    for cells in reader:
        place = f"{path}, line {reader.line_num}"
        if not cells:
            continue  # an empty line, as some editors leave at the end
        if len(cells) != len(header):
            raise DataError(f"{place}: {len(cells)} cells. Expected {len(header)}, as in the header.")
        cell = dict(zip(header, (value.strip() for value in cells), strict=True))
        if not (cell[0].isascii() and cell[0].isdigit()):
            raise DataError(f"{place}: frame number {cell[0]!r}. Expected a whole number from 0.")
        frame = int(cell[0])
        if frame in rows:
            raise DataError(f"{place}: frame {frame} again, first on line {lines[frame]}. Expected each frame once.")
        for au in aus:
            if cell[au] not in ("0", "1", "9"):
                raise DataError(f"{place}: AU{au} is {cell[au]!r}. Expected 0 absent, 1 present or 9 not coded.")
        rows[frame] = [frame, *(int(cell[au]) for au in aus)]
        lines[frame] = reader.line_num
    if not rows:
        raise DataError(f"{path}: no coded frames. Expected one row per coded frame below the header.")
    return np.array([rows[frame] for frame in sorted(rows)], dtype=np.int64)


class _ImageFolders:
    """Finds the image of a frame number, whatever its zero padding."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders = [folder for folder in _IMAGE_FOLDERS if (root / folder).is_dir()]

    def names(self, subject: str, task: str, frames: NDArray[np.int64]) -> list[str]:
        """Path below the root for each frame number, "" where there is no image."""
        for folder in self.folders:
            place = self.root / folder / subject / task
            if place.is_dir():
                break
        else:
            return [""] * len(frames)
        found: dict[int, str] = {}
        twice: dict[int, str] = {}
        with os.scandir(place) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if suffix.lower() in _IMAGE_SUFFIXES and stem.isascii() and stem.isdigit():
                    other = found.setdefault(int(stem), entry.name)
                    if other != entry.name:
                        twice[int(stem)] = f"{min(other, entry.name)} and {max(other, entry.name)}"
        prefix = "/".join(part for part in (folder, subject, task) if part != ".")
        names = []
        for frame in frames.tolist():
            if frame in twice:
                raise DataError(
                    f"{place}: two images of frame {frame}, {twice[frame]}. Expected one: remove the other."
                )
            names.append(f"{prefix}/{found[frame]}" if frame in found else "")
        return names


# ---------------------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class _Job:
    """One sequence to write: frame numbers (T,) and seconds since the start of its segment (T,)."""

    subject: str
    task: str
    frames: NDArray[np.int64]
    times: NDArray[np.float64]
    padding: int

    @property
    def name(self) -> str:
        return f"{self.subject}_{self.task}"


def write(
    out: str | PathLike[str],
    *,
    setting: str = "easy",
    subjects: int = len(_SUBJECTS),
    frames: int | None = None,
    seed: int = 0,
    size: int = 96,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes BP4D's layout with rendered faces: its segments, padding of names and rates per part.

    A finished root with the same options is left alone, an unfinished one is continued, and an unfinished one that was
    begun with other options is begun anew. `synthetic.json`, written last, says that the root is rendered and complete.

    Args:
        out: the root to write.
        setting: a name in `synthetic.SETTINGS`.
        subjects: how many of the 41, dealt evenly over the three parts.
        frames: frames per sequence, spread evenly over its coded segment, with their true numbers. Default: all.
        seed: of everything random. The bytes do not depend on `workers`.
        size: side of the square images in pixels (the real ones are 1040 x 1392).
        workers: processes.
        progress: called with sequences done and sequences in all.

    Raises:
        UsageError: an option out of range, or a folder that holds something else.
        RunError: a worker process died.
    """
    # Imported here: reading needs no renderer.
    from aunce.data import synthetic

    out = Path(out)
    if setting not in synthetic.SETTINGS:
        raise UsageError(f"unknown setting {setting!r}. Known: {', '.join(synthetic.SETTINGS)}.")
    if not 1 <= subjects <= len(_SUBJECTS):
        raise UsageError(f"subjects is {subjects}. Expected 1 to {len(_SUBJECTS)}.")
    for name, value, least in (("frames", frames, 1), ("seed", seed, 0), ("size", size, 16), ("workers", workers, 1)):
        if value is not None and value < least:
            raise UsageError(f"{name} is {value}. Expected {least} or more.")
    people = _deal(subjects)
    jobs = _plan(people, frames)
    settings = {
        "format": 1,
        "dataset": "bp4d",
        "setting": setting,
        "dials": dataclasses.asdict(synthetic.SETTINGS[setting]),
        "seed": seed,
        "version": synthetic.VERSION,
        "null_au": synthetic.NULL_AU,
        "subjects": people,
        "frames": frames,
        "size": size,
    }
    if not _prepare(out, settings):
        return
    arguments = (str(out), people, setting, seed, size)
    intensities = {}
    # One process is enough for one worker, and keeps errors and debuggers close.
    for done, (name, intensity) in enumerate(_run(arguments, jobs, workers), start=1):
        intensities[name] = intensity
        if progress is not None:
            progress(done, len(jobs))
    _write_latents(out / _LATENTS, jobs, intensities, synthetic.AUS)
    _replace(out / _MARKER, _as_json(settings))
    (out / _UNFINISHED).unlink()


def _deal(count: int) -> list[str]:
    """The first `count` subjects, dealt one to each part in turn; in the published order."""
    turns = [PARTS[part][turn] for turn in range(len(_SUBJECTS)) for part in PARTS if turn < len(PARTS[part])]
    return sorted(turns[:count], key=_SUBJECTS.index)


def _plan(people: list[str], frames: int | None) -> list[_Job]:
    coded = segments().set_index(["subject", "task"])
    padding = _paddings()
    jobs = []
    for subject in people:
        for task in TASKS:
            first, length = (int(coded.loc[(subject, task), column]) for column in ("first_frame", "frames"))
            count = length if frames is None else min(frames, length)
            offset = ((np.arange(count) + 0.5) * length / count).astype(np.int64)  # middles of `count` equal stretches
            jobs.append(_Job(subject, task, first + offset, offset / _FRAMES_PER_SECOND, padding[subject, task]))
    return jobs


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


def _prepare(out: Path, settings: dict[str, Any]) -> bool:
    """Makes the folder ready for writing. False if it is finished already."""
    marker, unfinished = out / _MARKER, out / _UNFINISHED
    # The unfinished marker is taken away after the finished one is there, so the finished one decides.
    if marker.exists():
        if _read_marker(out) != json.loads(_as_json(settings)):
            raise UsageError(f"{out}: holds faces rendered with other options. Name another folder or remove this one.")
        unfinished.unlink(missing_ok=True)
        return False
    if out.exists() and not unfinished.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is there already, and was not rendered by this command. Name a new folder.")
    if unfinished.exists() and unfinished.read_text(encoding="utf-8") != _as_json(settings):
        for name in ("AUCoding", *_SUBJECTS):
            shutil.rmtree(out / name, ignore_errors=True)
    (out / "AUCoding" / "AU_OCC").mkdir(parents=True, exist_ok=True)
    _replace(unfinished, _as_json(settings))
    return True


def _run(
    arguments: tuple[str, list[str], str, int, int], jobs: list[_Job], workers: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Writes the sequences and yields the intensities of each as it is done."""
    if workers == 1:
        writer = _SequenceWriter(*arguments)
        yield from map(writer.write, jobs)
        return
    # Spawned, not forked: the parent may hold threads of OpenCV or torch, and forked locks hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, arguments) as pool:
        futures = [pool.submit(_work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RunError(
                "a rendering process died, perhaps for lack of memory. Run the same command again, with fewer workers "
                "if it dies again: finished sequences are kept."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


class _SequenceWriter:
    """Writes one sequence after the other. The population follows from the options, so every process has the same."""

    def __init__(self, out: str, people: list[str], setting: str, seed: int, size: int) -> None:
        from aunce.data import synthetic

        self.out, self.size = Path(out), size
        self.aus, self.null_au = synthetic.AUS, synthetic.NULL_AU
        rates = {subject: RATES[_PART_OF[subject]] for subject in people}
        self.population: Population = synthetic.Population(
            people, rates=rates, dials=synthetic.SETTINGS[setting], seed=seed
        )

    def write(self, job: _Job) -> tuple[str, NDArray[np.float32]]:
        """Images, then the label file: a label file stands for a complete sequence."""
        behaviour = self.population.sequence(job.subject, job.task, job.times)
        labels = self.out / "AUCoding" / "AU_OCC" / f"{job.name}.csv"
        if not labels.exists():
            self._write_images(job, self.population.images(job.subject, behaviour, size=self.size))
            _replace(labels, self._label_file(job.frames, behaviour.occurrence, behaviour.null))
        return job.name, behaviour.intensity

    def _write_images(self, job: _Job, images: NDArray[np.uint8]) -> None:
        import cv2

        folder = self.out / job.subject / job.task
        folder.mkdir(parents=True, exist_ok=True)
        for frame, image in zip(job.frames.tolist(), images, strict=True):
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
            (folder / f"{frame:0{job.padding}d}.jpg").write_bytes(data.tobytes())

    def _label_file(self, frames: NDArray[np.int64], occurrence: NDArray[np.int8], null: NDArray[np.int8]) -> str:
        """Header 0..99; columns of rendered AUs and of the null AU coded, 9 elsewhere."""
        cells = np.full((len(frames), _COLUMNS - 1), 9, dtype=np.uint8)  # (T, 99): column n - 1 is AU n
        cells[:, [au - 1 for au in self.aus]] = occurrence
        cells[:, self.null_au - 1] = null
        # Cells are single digits, so a row is text already once commas stand between them.
        text = np.full((len(frames), 2 * (_COLUMNS - 1)), ord(","), dtype=np.uint8)  # (T, 198)
        text[:, 1::2] = cells + ord("0")
        rows = [f"{frame}{row.tobytes().decode()}" for frame, row in zip(frames.tolist(), text, strict=True)]
        return "\n".join([",".join(map(str, range(_COLUMNS))), *rows, ""])


_worker: _SequenceWriter | None = None


def _start_worker(*arguments: Any) -> None:
    """Once per process. OpenCV gets one thread, because there is a process per core."""
    import cv2

    global _worker
    cv2.setNumThreads(1)
    _worker = _SequenceWriter(*arguments)


def _work(job: _Job) -> tuple[str, NDArray[np.float32]]:
    assert _worker is not None
    return _worker.write(job)


def _write_latents(
    path: Path, jobs: list[_Job], intensities: Mapping[str, NDArray[np.float32]], aus: tuple[int, ...]
) -> None:
    length = [len(job.frames) for job in jobs]
    intensity = np.concatenate([intensities[job.name] for job in jobs])
    table = pd.DataFrame(
        {
            "subject": np.repeat([job.subject for job in jobs], length),
            "sequence": np.repeat([job.task for job in jobs], length),
            "frame": np.concatenate([job.frames for job in jobs]),
            **{f"AU{au}": intensity[:, k] for k, au in enumerate(aus)},
        }
    )
    beside = path.with_name(path.name + ".partial")
    table.to_parquet(beside, index=False)
    os.replace(beside, path)


def _as_json(settings: dict[str, Any]) -> str:
    return json.dumps(settings, indent=1, sort_keys=True) + "\n"


def _replace(path: Path, text: str) -> None:
    """Writes beside and renames, so that a file is whole or absent."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(beside, path)
