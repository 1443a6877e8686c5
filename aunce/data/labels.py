"""Label files: comma-separated text with one row per frame, read by pyarrow as text and then checked column by column.

The data sets differ in how the frame column is named (or whether there is one), in the names of the AU columns and in
the codes of their cells; a `LabelFormat` describes them for one data set. Columns are always found by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute
import pyarrow.csv
from numpy.typing import NDArray

from aunce.errors import DataError

LARGEST_FRAME = 10**9
"""Frame numbers beyond this are refused: no sequence is so long, and 64 bits are not passed by accident."""

_NO_CODE = -2
_TEXTS = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())  # each text of a column once, and its rows


@dataclass(frozen=True)
class LabelFormat:
    """What the label files of a data set look like.

    Attributes:
        header: the header in words, for messages.
        aus: from an AU number to the names that its column may have, in lower case.
        codes: from the text of a cell to its value: -1 unknown, 0 absent, 1 present; or an intensity.
        cell: the codes in words, for messages.
        frame: names of the frame column, in lower case; empty if the rows are numbered from 0 as they stand.
        first_column: the first column is the frame number, or an AU if there is none; else it may hold anything.
        names: of the columns, for files without a header.
        first_frame: the smallest frame number.
        digits: of a frame number at most, leading zeros included.
    """

    header: str
    aus: Callable[[int], Sequence[str]]
    codes: Mapping[str, int]
    cell: str
    frame: Sequence[str] = ()
    first_column: bool = False
    names: Sequence[str] = ()
    first_frame: int = 0
    digits: int = 19

    @property
    def numbered(self) -> bool:
        """Whether the files have a frame column."""
        return bool(self.frame)


def read_labels(path: Path, aus: Sequence[int], form: LabelFormat) -> NDArray[np.int64]:
    """Frame number and labels of one file, (T, 1 + K), frames ascending, labels among the values of `form.codes`.

    Columns that are not asked for may hold anything.

    Raises:
        DataError: file, line, and what was expected there.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if not data.isascii():
        # A second mark of the encoding is no text of a cell, but pyarrow would drop it as well.
        data = data.decode("utf-8-sig", errors="replace").replace("\ufeff", "\ufffd", 1).encode()
    header = form.names or [name.strip().lower() for name in data.partition(b"\n")[0].decode().split(",")]
    places = _places(path, header, aus, form)
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    columns = _read(path, data, len(header), places, form)

    def line(row: int) -> str:
        """Where a row of the table stands in the file."""
        return f"{path}, line {_rows(data, form)[row][0]}"

    content = np.empty((len(columns[0]), 1 + len(aus)), dtype=np.int64)
    content[:, 0] = _frame_numbers(columns.pop(0), line, form) if form.numbered else np.arange(len(content))
    for place, (au, column) in enumerate(zip(aus, columns, strict=True), start=1):
        texts = column.dictionary.to_pylist()
        values = np.array([form.codes.get(cell.strip(), _NO_CODE) for cell in texts], dtype=np.int64)
        content[:, place] = values[column.indices.to_numpy()]
        if (values == _NO_CODE).any():
            row = int(np.flatnonzero(content[:, place] == _NO_CODE)[0])
            raise DataError(f"{line(row)}: AU{au} is {column[row].as_py().strip()[:40]!r}. Expected {form.cell}.")
    if not form.numbered:
        _refuse_empty_lines(path, data)
    return content if _ascending(content[:, 0]) else content[np.argsort(content[:, 0])]


def _ascending(frames: NDArray[np.int64]) -> bool:
    return bool((np.diff(frames) > 0).all())


def _places(path: Path, header: Sequence[str], aus: Sequence[int], form: LabelFormat) -> list[int]:
    """The places in the header of the frame column (if there is one) and of the AUs.

    A program that saves a file again may put its row numbers first, and they would be taken for those of the frames.
    """
    first, wanted = header[0].strip('"'), []
    if len(header) > 1 and not form.names and (not first or first.startswith("unnamed:")):
        raise DataError(
            f"{path}, line 1: the first column has no name, as if a program had put its row numbers there. Expected "
            f"none of these, as {form.header}: copy the file from the data set again, or save it without them "
            "(row.names = FALSE in R, index=False in pandas)."
        )
    named = [("the frame number", form.frame)] if form.frame else []
    for what, names in [*named, *((f"AU{au}", form.aus(au)) for au in aus)]:
        places = [place for place, name in enumerate(header) if name in names]
        if len(places) != 1:
            raise DataError(
                f"{path}, line 1: {len(places)} columns for {what}. Expected one: {form.header}. This one begins with "
                f"{','.join(header)[:40]!r}."
            )
        wanted.append(places[0])
    known = form.frame or [name for au in range(1, 100) for name in form.aus(au)]
    if form.first_column and len(header) > 1 and first not in known:
        raise DataError(
            f"{path}, line 1: the first column is {first[:40]!r}. Expected {known[0]!r}, as {form.header}: copy the "
            "file from the data set again, or take out what was put before."
        )
    return wanted


def _rows(data: bytes, form: LabelFormat) -> list[tuple[int, str]]:
    """Line number and text of each row of the table: empty lines are passed by, as some editors leave them."""
    lines = [(number, line) for number, line in enumerate(data.decode().split("\n"), start=1) if line]
    return lines if form.names else lines[1:]


def _read(path: Path, data: bytes, width: int, places: list[int], form: LabelFormat) -> list[pyarrow.Array]:
    """The columns at `places`, (T,) each: the frame column as text, the others as `_TEXTS`."""
    names = [str(column) for column in range(width)]
    kinds = [pyarrow.string()] * form.numbered + [_TEXTS] * (len(places) - form.numbered)
    try:
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(data),
            pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(data) + 1, skip_rows=0 if form.names else 1, column_names=names
            ),
            pyarrow.csv.ParseOptions(quote_char=False),
            pyarrow.csv.ConvertOptions(
                include_columns=[names[place] for place in places],
                column_types={names[place]: kind for place, kind in zip(places, kinds, strict=True)},
                strings_can_be_null=False,
            ),
        )
    except pyarrow.ArrowInvalid:
        table = None  # no rows, or rows of several widths
    if table is None or not len(table):
        for number, row in _rows(data, form):
            count = row.count(",") + 1
            if count != width:
                as_header = "" if form.names else ", as in the header"
                raise DataError(f"{path}, line {number}: {count} cell{'s' * (count > 1)}. Expected {width}{as_header}.")
        raise DataError(f"{path}: no coded frames. Expected one row per coded frame; {form.header}.")
    return [column.chunk(0) for column in table.columns]


def _frame_numbers(cells: pyarrow.Array, line: Callable[[int], str], form: LabelFormat) -> NDArray[np.int64]:
    """The numbers (T,) of the frame column."""
    if pyarrow.compute.ascii_is_decimal(cells).true_count < len(cells):  # perhaps for blanks around them
        cells = pyarrow.array([cell.strip() for cell in cells.to_pylist()], pyarrow.string())
    # The length first: 19 digits fit into 64 bits without sign.
    short = pyarrow.compute.less_equal(pyarrow.compute.utf8_length(cells), form.digits)
    good = pyarrow.compute.and_(pyarrow.compute.ascii_is_decimal(cells), short)
    values = pyarrow.compute.if_else(good, cells, "0").cast(pyarrow.uint64()).to_numpy()
    wrong = np.flatnonzero(
        ~good.to_numpy(zero_copy_only=False) | (values < form.first_frame) | (values > LARGEST_FRAME)
    )
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{line(row)}: frame number {cells[row].as_py()[:40]!r}. Expected a whole number from {form.first_frame}."
        )
    frames = np.asarray(values, dtype=np.int64)
    again = np.flatnonzero(pd.Series(frames).duplicated()) if not _ascending(frames) else np.empty(0, dtype=np.int64)
    if len(again):
        frame = frames[again[0]]
        before = line(int(np.flatnonzero(frames == frame)[0])).rpartition(" ")[2]
        raise DataError(f"{line(int(again[0]))}: frame {frame} again, first on line {before}. Expected each once.")
    return frames


def _refuse_empty_lines(path: Path, data: bytes) -> None:
    """Without frame numbers a row is numbered by its place, so an empty line would shift the later ones."""
    lines = data.rstrip(b"\n").split(b"\n")
    if b"" in lines:
        raise DataError(
            f"{path}, line {lines.index(b'') + 1}: an empty line. Expected one row per video frame: copy the file anew."
        )
