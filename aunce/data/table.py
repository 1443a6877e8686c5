"""Any table of labels: one CSV or Parquet with an image and its labels in each row, and a folder of images.

    <root>/labels.csv     image, AU1, AU2, ...; and if there are any: subject, sequence, frame, part
    <root>/table.json     what the table has otherwise, written by the first command that is given the table

Labels are the columns named AU1, AU01 or, as OpenFace has them, AU01_c; or those that `columns` names, AUs or not.
Labels that are no AUs get the numbers 1, 2, ... in their order, and the data card says which is which. A cell is 1
present, 0 absent, empty or -1 unknown. With `positive_from` cells are intensities or probabilities, present from that
value on, and OpenFace's columns are those of intensity, AU01_r.

`image` is a path below the folder of images, or a whole path; its suffix may be left out. Without that column it is
subject/sequence/frame. Without `subject` the sequence stands for the person, or
else the folder of the image, or else the image itself: then one person may be in training and in test, and the data
card says so. Without `part` the subjects are dealt to `folds` parts by chance, from `seed`.

    {"labels": "labels.csv", "images": "faces", "columns": [], "folds": 3, "seed": 0, "positive_from": null,
     "unknown": []}

`images` is seen from the root, or a whole path; it is no part of a run's key, all else is.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aunce import files
from aunce.data import layout
from aunce.data.frames import FrameTable, Protocol
from aunce.data.labels import LARGEST_FRAME
from aunce.data.layout import ReadSequence
from aunce.errors import DataError, UsageError

CONFIG = "table.json"
_NAMED = ("image", "subject", "sequence", "frame", "part")
_NO_LABEL = -2


class Config(BaseModel):
    """What `table.json` says of a table."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    labels: str = Field(pattern=r"^[^/\\]+$")
    images: str = "."
    columns: list[str] = []
    folds: int = Field(3, ge=2, le=100)
    seed: int = Field(0, ge=0)
    positive_from: float | None = None
    unknown: list[str] = []


def describe(labels: str | PathLike[str], **given: Any) -> Path:
    """Write `table.json` beside a table of labels, and give the folder of both: the root of the data set.

    Args:
        labels: the table, CSV or Parquet.
        given: fields of `Config`; those that are None take what stands in the file, or their defaults.

    Raises:
        DataError: there is no such table, or the file is not what it should be.
        UsageError: the file says otherwise.
    """
    path = Path(labels)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Expected a table of labels, CSV or Parquet.")
    root = path.absolute().parent
    known = _config(root).model_dump() if (root / CONFIG).exists() else {}
    given = {"labels": path.name, **{name: value for name, value in given.items() if value is not None}}
    for name in known.keys() & given.keys():
        if known[name] != given[name]:
            raise UsageError(
                f"{root / CONFIG}: says {name} = {json.dumps(known[name])}, and {json.dumps(given[name])} is asked "
                "for. Change the file, which gives its runs other keys, or put the table into a folder of its own."
            )
    config = _checked(known | given, root)
    if config.model_dump() != known:
        files.write(root / CONFIG, json.dumps(config.model_dump(), indent=1, ensure_ascii=False) + "\n")
    return root


def protocols(root: str | PathLike[str]) -> dict[str, Protocol]:
    """The one protocol of a table, by name: its labels, and its folds or what `part` says.

    Raises:
        DataError: the table or `table.json` is missing or wrong; file and line.
    """
    root = Path(root)
    config = _config(root)
    table = _read(root, config)
    return {"table": _protocol(config, table, _columns(root, config, table))}


def read(
    root: str | PathLike[str],
    *,
    protocol: Protocol | None = None,
    images: Literal["required", "optional"] = "required",
) -> FrameTable:
    """Reads a table as its `table.json` describes it, see `aunce.data.Adapter.read`.

    Rows are ordered by part, subject, sequence and frame, each in the order of the table.

    Raises:
        UsageError: a protocol with other labels or subjects.
        DataError: file and line of what is wrong.
    """
    root = Path(root)
    config = _config(root)
    table = _read(root, config)
    columns = _columns(root, config, table)
    own = _protocol(config, table, columns)
    protocol = protocol or own
    if not set(protocol.aus) <= set(own.aus) or protocol.settings != own.settings:
        raise UsageError(f"protocol {protocol.name!r}: AUs {protocol.aus} or settings that {config.labels} has not.")
    subjects = list(dict.fromkeys(table["subject"]))
    layout.check_protocol(protocol, title=config.labels, subjects=subjects, rules=("all",))
    order, absent = layout.choose_subjects(root, protocol, subjects, subjects)
    labels = np.column_stack([_labels(root, config, table, columns[au]) for au in protocol.aus])  # (n, K)
    content = np.column_stack([table["frame"].to_numpy(np.int64), labels])  # (n, 1 + K)
    paths = np.array(_images(root, config, table), dtype=object)  # (n,)
    groups = table.groupby(["subject", "sequence"], sort=False).indices
    sequences = []
    for subject in order:
        for name in dict.fromkeys(table.loc[table["subject"] == subject, "sequence"]):
            rows = groups[subject, name]
            rows = rows[np.argsort(content[rows, 0], kind="stable")]
            sequences.append(ReadSequence(subject, name, content[rows], paths[rows].tolist()))
    searched = f"{root / config.images} (images in {CONFIG})"
    return layout.build_table(
        root, sequences, protocol, images=images, synthetic=None, absent=absent, searched=searched
    )


def fingerprint(root: str | PathLike[str]) -> str:
    """Eight hex digits over the table and what `table.json` says, but for where the images are."""
    root = Path(root)
    config = _config(root)
    said = json.dumps(config.model_dump(exclude={"images"}), sort_keys=True)
    return hashlib.sha256((layout.fingerprint(root, [root / config.labels]) + said).encode()).hexdigest()[:8]


def notes(root: str | PathLike[str]) -> dict[str, str]:
    """What the data card says besides: who counts as a person where nobody is named, and labels that are no AUs."""
    root = Path(root)
    config = _config(root)
    table = _read(root, config)
    names = _protocol(config, table, _columns(root, config, table)).settings.get("labels", {})
    said = {"People": table.attrs["assumed"], "Labels": "; ".join(f"AU{au} is {name}" for au, name in names.items())}
    return {heading: sentence for heading, sentence in said.items() if sentence}


# ------------------------------------------------------------------------------------------------------------ the file


def _config(root: Path) -> Config:
    path = root / CONFIG
    if root.is_file():
        raise DataError(
            f"{root}: a file. Name it with --labels and its images with --images; later its folder is enough."
        )
    if not root.exists():
        raise DataError(f"{root}: no such file or folder. Expected a table of labels, or the folder of one.")
    if not path.is_file():
        raise DataError(
            f"{root}: has no {CONFIG}. `aunce data check table LABELS --images DIR` writes it beside the "
            "table of labels."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON ({error}). Remove it and name table and images again.") from error
    return _checked(content, root)


def _checked(content: Any, root: Path) -> Config:
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise DataError(f"{root / CONFIG}: {said}. Valid names: {', '.join(Config.model_fields)}.") from None


def _read(root: Path, config: Config) -> pd.DataFrame:
    """The table, its five named columns checked and filled, its label columns as they are."""
    path = root / config.labels
    try:
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    except (OSError, ValueError, csv.Error) as error:  # of pandas and pyarrow, and text that is not UTF-8
        raise DataError(f"{path}: cannot be read as a table ({type(error).__name__}: {error}).") from error
    names = [str(name).strip() for name in table.columns]
    again = sorted({name for name in names if names.count(name) > 1})
    if again:
        raise DataError(f"{path}: two columns {again[0]!r}. Expected each once.")
    table.columns = pd.Index([name.lower() if name.lower() in _NAMED else name for name in names])
    table = table.reset_index(drop=True)
    if "image" not in table and {"subject", "frame"} <= set(table.columns):
        folders = [table[name].astype(str) + "/" for name in ("subject", "sequence") if name in table]
        table["image"] = sum(folders[1:], folders[0]) + table["frame"].astype(str)
    if "image" not in table:
        raise DataError(
            f"{path}: no column 'image'. Expected one with the path of each image, or subject, sequence and "
            f"frame, which then name it; columns: {', '.join(names[:8])}."
        )
    if table.empty:
        raise DataError(f"{path}: no rows. Expected one for each image.")
    for name in (name for name in _NAMED if name in table and name != "frame"):
        texts = table[name].astype(str).str.strip().mask(table[name].isna(), "")
        _refuse_rows(path, table, texts == "", f"{name} is empty. Expected {name} in every row, or no such column.")
        table[name] = texts
    twice = table["image"].duplicated()
    _refuse_rows(path, table, twice, "this image is there before. Expected each once.")
    return _filled(path, table, config)


def _csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        separator = max(",;\t", key=header.count)
        file.seek(0)
        rows = csv.reader(file, delimiter=separator, skipinitialspace=True)
        names = next(rows, [])
        for row in rows:  # pandas would shift the cells of a longer one and fill up a shorter one
            if row and len(row) != len(names):
                raise DataError(
                    f"{path}, line {rows.line_num}: {len(row)} cells. Expected {len(names)}, as in the header."
                )
    if again := [name for name in names if names.count(name) > 1]:  # pandas would give the second another name
        raise DataError(f"{path}, line 1: two columns {again[0]!r}. Expected each once.")
    return pd.read_csv(
        path, sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig"
    )


def _filled(path: Path, table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The table with a subject, a sequence, a frame and a part in each row."""
    folders = table["image"].str.replace("\\", "/", regex=False).str.rpartition("/")[0]
    table.attrs["assumed"] = ""
    if "subject" not in table:
        stand_in = "sequence" if "sequence" in table else "folder" if len(set(folders)) > 1 else "image"
        people = {
            "sequence": table.get("sequence"),
            "folder": folders.mask(folders == "", "."),
            "image": table["image"],
        }
        table["subject"] = people[stand_in]
        table.attrs["assumed"] = (
            f"{path.name} has no column 'subject': each {stand_in} counts as a person, so that the same person may be "
            "in training and in test."
        )
    if "sequence" not in table:
        table["sequence"] = "images"
    if "frame" in table:
        numbers = pd.to_numeric(table["frame"], errors="coerce")
        wrong = numbers.isna() | (numbers % 1 != 0) | (numbers < 0) | (numbers > LARGEST_FRAME)
        _refuse_rows(path, table, wrong, "frame is no whole number from 0.")
        table["frame"] = numbers.astype(np.int64)
        again = table.duplicated(["subject", "sequence", "frame"])
        _refuse_rows(path, table, again, "this frame of the sequence is there before. Expected each once.")
    else:
        table["frame"] = table.groupby(["subject", "sequence"], sort=False).cumcount()
    if "part" not in table:
        table["part"] = table["subject"].map(_dealt(path, table["subject"], config))
    homes = table.groupby("subject", sort=False)["part"].nunique()
    if (homes > 1).any():
        subject = homes.index[homes > 1][0]
        _refuse_rows(path, table, table["subject"] == subject, "a person in two parts would be trained and tested on.")
    return table


def _dealt(path: Path, subjects: pd.Series, config: Config) -> dict[str, str]:
    """Subject -> fold, dealt by chance; the order of the rows has no say."""
    people = sorted(set(subjects))
    if len(people) < config.folds:
        raise DataError(
            f"{path}: {len(people)} subject(s) cannot make {config.folds} folds. Set folds in {CONFIG} lower, or name "
            "the subjects in a column 'subject'."
        )
    order = np.random.default_rng(config.seed).permutation(len(people))
    return {people[at]: str(1 + place % config.folds) for place, at in enumerate(order)}


def _refuse_rows(path: Path, table: pd.DataFrame, wrong: pd.Series, said: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        place = f"row {row + 1}" if path.suffix.lower() == ".parquet" else f"line {row + 2}"
        raise DataError(f"{path}, {place} ({table['image'].iloc[row]}): {said} {int(wrong.sum())} row(s) are wrong.")


# ----------------------------------------------------------------------------------------------------------- the labels


def _columns(root: Path, config: Config, table: pd.DataFrame) -> dict[int, str]:
    """Number -> label column, ascending: of the AUs, or 1, 2, ... if columns are named that are no AUs."""
    names = list(dict.fromkeys(config.columns))
    if lacking := [name for name in names if name not in table.columns or name in _NAMED]:
        raise DataError(
            f"{root / config.labels}: no label column {lacking[0]!r}, which columns in {CONFIG} names. Columns: "
            f"{', '.join(map(str, table.columns[:12]))}."
        )
    of_openface = "_c" if config.positive_from is None else "_r"
    for suffix in ("", of_openface):
        found = {_number(name, suffix): name for name in names or table.columns}
        if 0 not in found and len(found) == len(names):
            return dict(sorted(found.items()))
        found.pop(0, None)
        if found and not names:
            return dict(sorted(found.items()))
    if names:
        return dict(enumerate(names, start=1))
    raise DataError(
        f"{root / config.labels}: no column AU1, AU01 or AU01{of_openface}. Name the label columns: columns in "
        f"{CONFIG}, or --columns."
    )


def _number(name: str, suffix: str = "") -> int:
    """The AU that a column is named after; 0 if it is none."""
    match = re.fullmatch(rf"AU0*([1-9]\d?){suffix}", str(name), re.IGNORECASE)
    return int(match[1]) if match else 0


def _protocol(config: Config, table: pd.DataFrame, columns: Mapping[int, str]) -> Protocol:
    settings: dict[str, Any] = config.model_dump(include={"positive_from", "unknown"}, exclude_defaults=True)
    if not all(_number(name, "(_[cr])?") == number for number, name in columns.items()):
        settings["labels"] = {str(number): name for number, name in columns.items()}
    parts = {str(name): frozenset(part) for name, part in table.groupby("part", sort=True)["subject"]}
    return Protocol("table", tuple(columns), parts, settings=settings)


def _labels(root: Path, config: Config, table: pd.DataFrame, name: str) -> NDArray[np.int64]:
    """The column (n,) in {-1, 0, 1}."""
    column = table[name]
    texts = column.astype(str).str.strip().mask(column.isna(), "")
    codes: dict[str, int] = {}
    for text in texts.unique():
        codes[text] = -1 if text in ("", "-1", "-1.0", "nan", "NaN", *config.unknown) else _code(text, config)
    values: NDArray[np.int64] = texts.map(codes).to_numpy(np.int64)
    if _NO_LABEL in codes.values():
        wrong = pd.Series(values == _NO_LABEL)
        cell = texts.iloc[int(np.flatnonzero(wrong)[0])]
        remedy = "Intensities or probabilities: --positive-from 2; a code of unknown labels: --unknown CODE"
        said = f"{name} is {cell[:40]!r}. Expected 0, 1 or empty. {remedy}, both also in {CONFIG}."
        _refuse_rows(root / config.labels, table, wrong, said)
    return values


def _code(text: str, config: Config) -> int:
    try:
        value = float(text)
    except ValueError:
        return _NO_LABEL
    if config.positive_from is not None:
        return int(value >= config.positive_from) if value >= 0 else _NO_LABEL
    return int(value) if value in (0, 1) else _NO_LABEL


def _images(root: Path, config: Config, table: pd.DataFrame) -> list[str]:
    """Path of each image (n,) as seen from the root, or whole; "" where there is none. Each folder is listed once."""
    base = Path(config.images)
    held: dict[Path, dict[str, str]] = {}
    found = []
    for name in table["image"]:
        path = base / name.replace("\\", "/")
        folder = root / path.parent
        if folder not in held:
            names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
            held[folder] = {Path(one).stem: one for one in names if Path(one).suffix.lower() in layout.IMAGE_SUFFIXES}
            held[folder] |= {one: one for one in names}
        match = held[folder].get(path.name)
        found.append(path.with_name(match).as_posix() if match else "")
    return found
