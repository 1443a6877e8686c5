"""Label tables: comma-separated files with a header, read fast, and read again cell by cell where a message is due.

The data sets differ in how the frame column is named (or whether there is one), in the names of the AU columns and in
the codes of their cells; `LabelFormat` says it for one data set. Columns are always found by name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
from numpy.typing import NDArray

from aunce.errors import DataError

LARGEST_FRAME = 10**9
"""Frame numbers beyond this are refused: no sequence is so long, and 64 bits are not passed by accident."""


@dataclass(frozen=True)
class LabelFormat:
    """What the label files of a data set look like.

    Attributes:
        header: the header in words, for messages.
        aus: from an AU number to the names that its column may have, in lower case.
        codes: from the text of a cell to -1 unknown, 0 absent, 1 present.
        cell: the codes in words, for messages.
        frame: names of the frame column, in lower case; empty if the rows are numbered from 0 as they stand.
        first_column: the frame column is the first one, whatever its name.
    """

    header: str
    aus: Callable[[int], Sequence[str]]
    codes: Mapping[str, int]
    cell: str
    frame: Sequence[str] = ()
    first_column: bool = False

    @property
    def numbered(self) -> bool:
        """Whether the files have a frame column."""
        return bool(self.frame) or self.first_column


def read_labels(path: Path, aus: Sequence[int], form: LabelFormat) -> NDArray[np.int64]:
    """Frame number and labels of one file, (T, 1 + K), frames ascending, labels in {-1, 0, 1}.

    Columns that are not asked for may hold anything.

    Raises:
        DataError: file, line, and what was expected there.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    header, wanted = _columns(path, data, aus, form)
    content = _read_fast(data, len(header), wanted, form)
    if content is None:
        content = _read_slowly(path, data, len(header), wanted, aus, form)
    if not form.numbered:
        _refuse_empty_lines(path, data)
    return content


def _refuse_empty_lines(path: Path, data: bytes) -> None:
    """Without frame numbers the place of a row says its frame, and an empty line would shift the rest."""
    lines = data.rstrip(b"\r\n").splitlines()
    if b"" in lines:
        raise DataError(
            f"{path}, line {lines.index(b'') + 1}: an empty line. Expected one row per video frame: copy the file anew."
        )


def _columns(path: Path, data: bytes, aus: Sequence[int], form: LabelFormat) -> tuple[list[str], list[int]]:
    """The header, and the places of the frame column (if there is one) and of the AUs."""
    line = data.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace")
    header = [name.strip().lower() for name in line.split(",")]
    wanted = [0] if form.first_column else []
    named = [("the frame number", form.frame)] if form.frame else []
    for what, names in [*named, *((f"AU{au}", form.aus(au)) for au in aus)]:
        places = [place for place, name in enumerate(header) if name in names]
        if form.first_column:
            places = [place for place in places if place > 0]
        if len(places) != 1:
            raise DataError(f"{path}, line 1: {len(places)} columns for {what}. Expected one: {form.header}.")
        wanted.append(places[0])
    return header, wanted


def _read_fast(data: bytes, width: int, wanted: list[int], form: LabelFormat) -> NDArray[np.int64] | None:
    """The table if nothing is odd about it, else None."""
    # Arrow reads "0x10" as a number and blanks as nothing; a quote is no quote to us. The slow reader decides there.
    if b"x" in data.lower() or b'"' in data:
        return None
    names = [str(column) for column in range(width)]
    types = {names[place]: pyarrow.string() for place in wanted}
    if form.numbered:
        types[names[wanted[0]]] = pyarrow.int64()
    try:
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(data),
            pyarrow.csv.ReadOptions(use_threads=False, skip_rows=1, column_names=names),
            pyarrow.csv.ParseOptions(quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[names[place] for place in wanted],
                column_types=types,
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pyarrow.ArrowInvalid:
        return None  # the slow reader says what and where
    if not len(table):
        return None
    columns = list(table.columns)
    frame = columns.pop(0).to_numpy() if form.numbered else np.arange(len(table), dtype=np.int64)
    if frame[0] < 0 or frame[-1] > LARGEST_FRAME or not (np.diff(frame) > 0).all():
        return None
    content = np.empty((len(table), 1 + len(columns)), dtype=np.int64)
    content[:, 0] = frame
    for place, column in enumerate(columns, start=1):
        cells = column.combine_chunks().dictionary_encode()
        texts = cells.dictionary.to_pylist()
        if any(text not in form.codes for text in texts):
            return None
        content[:, place] = np.array([form.codes[text] for text in texts], dtype=np.int64)[cells.indices.to_numpy()]
    return content


def _read_slowly(
    path: Path, data: bytes, width: int, wanted: list[int], aus: Sequence[int], form: LabelFormat
) -> NDArray[np.int64]:
    text = io.StringIO(data.decode("utf-8-sig", errors="replace"), newline="")
    reader = csv.reader(text, quoting=csv.QUOTE_NONE)
    rows: dict[int, list[int]] = {}
    lines: dict[int, int] = {}
    try:
        next(reader)
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if not cells:
                continue  # an empty line, as some editors leave at the end
            if len(cells) != width:
                raise DataError(f"{place}: {len(cells)} cells. Expected {width}, as in the header.")
            values = [cells[column].strip() for column in wanted]
            frame = _frame_number(place, values.pop(0)) if form.numbered else len(rows)
            if frame in rows:
                raise DataError(f"{place}: frame {frame} again, first on line {lines[frame]}. Expected each once.")
            for au, value in zip(aus, values, strict=True):
                if value not in form.codes:
                    raise DataError(f"{place}: AU{au} is {value[:40]!r}. Expected {form.cell}.")
            rows[frame] = [frame, *(form.codes[value] for value in values)]
            lines[frame] = reader.line_num
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}. Expected {form.header}.") from None
    if not rows:
        raise DataError(f"{path}: no coded frames. Expected one row per coded frame below the header.")
    return np.array([rows[frame] for frame in sorted(rows)], dtype=np.int64)


def _frame_number(place: str, text: str) -> int:
    # the length first: Python refuses to turn thousands of digits into a number
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > LARGEST_FRAME:
        raise DataError(f"{place}: frame number {text[:40]!r}. Expected a whole number from 0.")
    return int(text)
