"""The frame table: one row per image, with its subject, sequence, part and AU labels.

Every adapter returns one; training and reports read nothing else. A table is checked when it is made: no subject in two
parts, no frame twice, AU columns named and ordered, labels in {-1, 0, 1}. The checks cannot be switched off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from aunce.errors import DataError, UsageError, machine_remedy

KEY = ("subject", "sequence", "frame")
"""The columns that name a frame."""

_COLUMNS = (*KEY, "image", "part")
_METADATA = b"aunce"


@dataclass(frozen=True)
class Protocol:
    """Parts, AU set and frame rule: what two scores must share before they may be compared.

    Attributes:
        name: for people. It enters the hash like everything else.
        aus: AU numbers in the order of the label columns, ascending.
        parts: name of a part -> its subjects. A subject is in one part.
        frame_rule: which labelled frames count. "all" is every one of them.
        settings: what else decides labels or frames in a data set, such as DISFA's threshold of intensity. Plain JSON
            values.

    Raises:
        UsageError: AUs repeated or out of order, an empty part, or a subject in two parts.

    Example:
        >>> Protocol("two parts", (1, 2), {"1": frozenset({"F001"}), "2": frozenset({"F002"})}).hash
        '2c13a5d5'
    """

    name: str
    aus: tuple[int, ...]
    parts: Mapping[str, frozenset[str]]
    frame_rule: str = "all"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "aus", tuple(int(au) for au in self.aus))
        object.__setattr__(self, "parts", {part: frozenset(subjects) for part, subjects in self.parts.items()})
        if not self.aus or list(self.aus) != sorted(set(self.aus)) or self.aus[0] < 1:
            raise UsageError(f"protocol {self.name!r}: AUs {self.aus}. Expected AU numbers, ascending, each once.")
        if not self.parts:
            raise UsageError(f"protocol {self.name!r} has no parts. Expected at least one.")
        home: dict[str, str] = {}
        for part, subjects in self.parts.items():
            if not subjects:
                raise UsageError(f"protocol {self.name!r}: part {part!r} has no subjects. Leave it out or fill it.")
            for subject in sorted(subjects):
                if subject in home:
                    raise UsageError(
                        f"protocol {self.name!r}: subject {subject} is in parts {home[subject]!r} and {part!r}. "
                        "Expected each subject in one part."
                    )
                home[subject] = part

    @property
    def hash(self) -> str:
        """Eight hex digits over all of it. The order in which parts are listed is no content."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def part_of(self) -> dict[str, str]:
        """Subject -> its part."""
        return {subject: part for part, subjects in self.parts.items() for subject in subjects}

    def to_dict(self) -> dict[str, Any]:
        """The protocol as plain JSON values."""
        parts = {part: sorted(subjects) for part, subjects in self.parts.items()}
        content = {"name": self.name, "aus": list(self.aus), "parts": parts, "frame_rule": self.frame_rule}
        return content | ({"settings": dict(self.settings)} if self.settings else {})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Protocol:
        """The inverse of `to_dict`."""
        parts = {part: frozenset(subjects) for part, subjects in content["parts"].items()}
        return cls(content["name"], tuple(content["aus"]), parts, content["frame_rule"], content.get("settings", {}))


@dataclass(frozen=True)
class Split:
    """Row indices of the three uses of a table. No subject is in two of them: see `guard_subjects`."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FrameTable:
    """The checked table of a data set.

    Attributes:
        frames: columns subject, sequence, frame (int64), image (path below the root with forward slashes; empty where
            there is none), part, then one int8 column `AU<n>` for each of `aus`: 1 present, 0 absent, -1 unknown. The
            rows of a sequence stand together, frames ascending.
        protocol: parts, AU set and frame rule.
        null_aus: AUs of a rendered data set that are labelled and never drawn; their columns come last.
        synthetic: the content of `synthetic.json` if the faces are rendered, else None.
        missing_images: labelled frames without an image, as subject/sequence/frame.
        absent_subjects: subjects of the protocol that the root does not hold.

    Raises:
        DataError: the row, the column and what was expected there.
    """

    frames: pd.DataFrame
    protocol: Protocol
    null_aus: tuple[int, ...] = ()
    synthetic: dict[str, Any] | None = None
    missing_images: tuple[str, ...] = ()
    absent_subjects: tuple[str, ...] = ()
    aus: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "null_aus", tuple(int(au) for au in self.null_aus))
        object.__setattr__(self, "aus", self.protocol.aus + self.null_aus)
        if len(set(self.aus)) != len(self.aus):
            raise DataError(f"null AUs {self.null_aus} repeat AUs of protocol {self.protocol.name!r}. Expected others.")
        object.__setattr__(self, "frames", self.frames.reset_index(drop=True))
        if self.frames.empty:
            raise DataError("the frame table has no rows. Expected at least one labelled frame.")
        _check_columns(self.frames, self.aus)
        _check_parts(self.frames, self.protocol)
        _check_rows(self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def parts(self) -> dict[str, frozenset[str]]:
        """Part -> its subjects that are in the table, in the order of the protocol."""
        present = set(self.frames["subject"].unique())
        return {part: subjects & present for part, subjects in self.protocol.parts.items() if subjects & present}

    @property
    def labels(self) -> NDArray[np.int8]:
        """The AU columns as a fresh array (n, K) in the order of `aus`."""
        labels: NDArray[np.int8] = self.frames[[f"AU{au}" for au in self.aus]].to_numpy(dtype=np.int8, copy=True)
        return np.ascontiguousarray(labels)

    @property
    def sequence_starts(self) -> NDArray[np.int64]:
        """The first row of each sequence, ascending."""
        return _sequence_starts(self.frames)

    def without_image(self, largest_share: float = 1.0) -> str:
        """How many labelled frames have no image, and in which sequences; empty if all have one.

        Raises:
            DataError: they are more than this share of all labelled frames.
        """
        if not self.missing_images:
            return ""
        lost = {name.rpartition("/")[0] for name in self.missing_images}
        shown = self.frames.loc[self.frames["image"] != "", ["subject", "sequence"]]
        whole = sorted(lost - set(shown["subject"] + "/" + shown["sequence"]))
        total = len(shown) + len(self.missing_images)
        said = f"{len(self.missing_images):,} of {total:,} labelled frames have no image, in {len(lost)} sequence(s)"
        if whole:
            more = ", ..." if len(whole) > 5 else ""
            said += f"; {len(whole)} of these have no image at all: {', '.join(whole[:5])}{more}"
        if len(self.missing_images) > largest_share * total:
            raise DataError(
                f"{said}. Expected at most {largest_share:.0%}: put the images there, or, if they are meant to be left "
                "out, say so once: aunce data pack --allow-missing."
            )
        return said

    def split(self, test_part: str, *, seed: int, inner_fraction: float = 0.2) -> Split:
        """Rows to train on, to validate on and to test on.

        Test rows are those of `test_part`. Of the n remaining subjects, max(1, round(inner_fraction n)) are drawn by
        (seed, test_part) for inner validation; the others train.

        Raises:
            UsageError: an `inner_fraction` outside (0, 1).
            DataError: an unknown or empty part, fewer than two other subjects, or an AU without a positive frame to
                train on.
        """
        if not 0 < inner_fraction < 1:
            raise UsageError(f"inner_fraction is {inner_fraction}. Expected a number between 0 and 1, such as 0.2.")
        parts = self.parts
        if test_part not in parts:
            raise DataError(f"part {test_part!r} has no frames in this table. Parts with frames: {', '.join(parts)}.")
        subject = self.frames["subject"].to_numpy()
        others = sorted(set(subject) - parts[test_part])
        if len(others) < 2:
            raise DataError(
                f"only {len(others)} subject(s) outside part {test_part!r}. Expected at least two: one to train on and "
                "one for inner validation. Use more subjects."
            )
        generator = np.random.default_rng([seed, *test_part.encode()])
        count = min(len(others) - 1, max(1, round(inner_fraction * len(others))))
        inner = generator.permutation(others)[:count]
        is_test = np.isin(subject, sorted(parts[test_part]))
        is_inner = np.isin(subject, inner)
        split = Split(np.flatnonzero(~is_test & ~is_inner), np.flatnonzero(is_inner), np.flatnonzero(is_test))
        self.check_split(split)
        return split

    def check_split(self, split: Split) -> None:
        """Refuses a split that shares a subject, or that leaves an AU without a positive frame to train on.

        Raises:
            DataError: names the subject and the two uses, or the AUs.
        """
        subject = self.frames["subject"].to_numpy()
        guard_subjects(subject, split)
        positives = (self.labels[split.train] == 1).sum(axis=0)
        empty = [f"AU{au}" for au, count in zip(self.aus, positives, strict=True) if count == 0]
        if empty:
            raise DataError(
                f"no positive frame of {', '.join(empty)} to train on: {len(split.train)} frames of "
                f"{len(set(subject[split.train]))} subjects. Expected at least one. Use more subjects or frames, or a "
                "protocol without these AUs."
            )

    def card(self) -> pd.DataFrame:
        """The data card: one row per part and AU.

        Columns: part, au, frames, known, unknown, positives, rate (positives over known; NaN if none is known),
        subjects, subjects_with_10_positives, effective_sample_size.

        Neighbouring frames are near duplicates, so a part holds less evidence than frames. The effective sample size
        is that of a stationary two-state Markov chain, summed over sequences (derived): with n known rows in a
        sequence, prevalence p and share d of neighbouring rows that differ, the lag-one correlation is
        r = 1 - d / (2 p (1 - p)), lag k has r^k, and n_eff = n (1 - r) / (1 + r), kept within [1, n]. A sequence with
        one label throughout counts as one.
        """
        labels, starts = self.labels, self.sequence_starts
        subject, part = self.frames["subject"].to_numpy(), self.frames["part"].to_numpy()
        rows = []
        for name in self.parts:
            chosen = part == name
            # Parts are sets of subjects, so a part never cuts a sequence and the starts inside it stay starts.
            ids = np.cumsum(np.isin(np.arange(len(chosen)), starts))[chosen]
            codes, _ = pd.factorize(subject[chosen])
            for k, au in enumerate(self.aus):
                label = labels[chosen, k]
                known, positives = int((label >= 0).sum()), int((label == 1).sum())
                per_subject = np.bincount(codes, weights=label == 1)
                rows.append(
                    {
                        "part": name,
                        "au": au,
                        "frames": len(label),
                        "known": known,
                        "unknown": len(label) - known,
                        "positives": positives,
                        "rate": positives / known if known else float("nan"),
                        "subjects": len(per_subject),
                        "subjects_with_10_positives": int((per_subject >= 10).sum()),
                        "effective_sample_size": effective_sample_size(label, ids),
                    }
                )
        return pd.DataFrame(rows)

    def summary(self) -> dict[str, Any]:
        """The head of the data card: counts, protocol, and whether the faces are rendered."""
        return {
            "subjects": int(self.frames["subject"].nunique()),
            "sequences": len(self.sequence_starts),
            "frames": len(self.frames),
            "missing_images": len(self.missing_images),
            "absent_subjects": list(self.absent_subjects),
            "protocol": self.protocol.name,
            "protocol_hash": self.protocol.hash,
            "synthetic": self.synthetic is not None,
        }

    def to_parquet(self, path: str | PathLike[str]) -> None:
        """Writes the rows as Parquet, with everything else that belongs to the table in the file's metadata."""
        table = pyarrow.Table.from_pandas(self.frames, preserve_index=False)
        rest = {
            "protocol": self.protocol.to_dict(),
            "null_aus": self.null_aus,
            "synthetic": self.synthetic,
            "missing_images": self.missing_images,
            "absent_subjects": self.absent_subjects,
        }
        metadata = {**(table.schema.metadata or {}), _METADATA: json.dumps(rest).encode()}
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)

    @classmethod
    def from_parquet(cls, path: str | PathLike[str]) -> FrameTable:
        """Reads what `to_parquet` wrote, and checks it again.

        Raises:
            DataError: not a Parquet file, or one without the table's metadata.
        """
        try:
            table = pyarrow.parquet.read_table(path)
            rest = json.loads((table.schema.metadata or {})[_METADATA])
            return cls(
                table.to_pandas(),
                Protocol.from_dict(rest["protocol"]),
                tuple(rest["null_aus"]),
                rest["synthetic"],
                tuple(rest["missing_images"]),
                tuple(rest["absent_subjects"]),
            )
        # pandas and Protocol raise these for metadata and columns of another form.
        except (
            pyarrow.ArrowException,
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ) as error:
            remedy = machine_remedy(str(error), getattr(error, "errno", None)) or "Pack again."
            raise DataError(
                f"{path}: not the frame table of a pack ({type(error).__name__}: {error}). {remedy}"
            ) from error


def guard_subjects(subjects: NDArray[Any], split: Split) -> None:
    """Refuses a split with a subject in two of training, inner validation and test.

    Raises:
        DataError: names the subject and the two uses.
    """
    uses = {name: set(subjects[getattr(split, name)]) for name in ("train", "validation", "test")}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = sorted(uses[first] & uses[second])
        if both:
            raise DataError(f"subject {both[0]} is in both {first} and {second}. Expected each subject in one of them.")


def effective_sample_size(label: NDArray[np.int8], sequence: NDArray[np.int64]) -> float:
    """The number of independent frames that carry as much as these rows of one AU. See `FrameTable.card`.

    Args:
        label: (n,) in {-1, 0, 1}; unknown rows are left out.
        sequence: (n,) id of the row's sequence; the rows of a sequence stand together.
    """
    known = label >= 0
    value, (names, ids) = label[known].astype(np.int64), np.unique(sequence[known], return_inverse=True)
    if not len(value):
        return 0.0
    same = ids[1:] == ids[:-1]
    n = np.bincount(ids, minlength=len(names))
    p = np.bincount(ids, weights=value) / n
    changes = np.bincount(ids[1:][same], weights=value[1:][same] != value[:-1][same], minlength=len(names))
    variance = p * (1 - p)
    d = changes / np.maximum(n - 1, 1)
    r = 1 - d / np.where(variance > 0, 2 * variance, 1)
    # A sequence of one label has d = 0, so r = 1 and the formula gives 0, which the lower bound lifts to one.
    size = n * (1 - r) / np.maximum(1 + r, 1e-12)
    return float(np.clip(size, 1, n).sum())


def _sequence_starts(frames: pd.DataFrame) -> NDArray[np.int64]:
    key = frames[["subject", "sequence"]]
    return np.flatnonzero((key != key.shift()).any(axis=1).to_numpy())


def _row_name(frames: pd.DataFrame, row: int) -> str:
    subject, sequence, frame = (frames[column].iloc[row] for column in KEY)
    return f"row {row} ({subject}/{sequence}/{frame})"


_CONTENT = {"frame": "a number from 0", "image": "a path or an empty text"}
_CONTENT |= dict.fromkeys(("subject", "sequence", "part"), "a name")


def _check_columns(frames: pd.DataFrame, aus: tuple[int, ...]) -> None:
    labels = [f"AU{au}" for au in aus]
    expected = [*_COLUMNS, *labels]
    if list(frames.columns) != expected:
        raise DataError(
            f"frame table columns are {', '.join(map(str, frames.columns))}. Expected, in this order: "
            f"{', '.join(expected)}."
        )
    types = {"frame": "int64", **dict.fromkeys(labels, "int8")}
    for name, column in frames.items():
        wanted = types.get(str(name), "text")
        if not (pd.api.types.is_string_dtype(column) if wanted == "text" else column.dtype == wanted):
            raise DataError(f"frame table: column {name} has type {column.dtype}. Expected {wanted}.")
    wrong = {"frame": frames["frame"] < 0, "image": frames["image"].isna()}
    wrong |= {name: frames[name].isna() | (frames[name] == "") for name in ("subject", "sequence", "part")}
    wrong |= {name: ~frames[name].isin((-1, 0, 1)) for name in labels}
    count = sum(int(rows.sum()) for rows in wrong.values())
    if count:
        row, name = min((int(rows.argmax()), name) for name, rows in wrong.items() if rows.any())
        value = frames[name].iloc[row]
        raise DataError(
            f"frame table, {_row_name(frames, row)}: {name} is {repr(value) if isinstance(value, str) else value}. "
            f"Expected {_CONTENT.get(name, '-1, 0 or 1')}. {count} value(s) are wrong."
        )


def _check_parts(frames: pd.DataFrame, protocol: Protocol) -> None:
    expected = frames["subject"].map(protocol.part_of)
    wrong = np.flatnonzero((expected != frames["part"]).to_numpy())
    if len(wrong):
        row = int(wrong[0])
        subject, part, home = frames["subject"].iloc[row], frames["part"].iloc[row], expected.iloc[row]
        known = f"part {home!r}" if isinstance(home, str) else "no part"
        raise DataError(
            f"frame table, {_row_name(frames, row)}: part is {part!r}. Expected {known}, where protocol "
            f"{protocol.name!r} has subject {subject}: a subject in two parts would be trained and tested on."
        )


def _check_rows(frames: pd.DataFrame) -> None:
    twice = np.flatnonzero(frames.duplicated(list(KEY)).to_numpy())
    if len(twice):
        raise DataError(
            f"frame table, {_row_name(frames, int(twice[0]))} is there twice. Expected each (subject, sequence, frame) "
            "once."
        )
    starts = _sequence_starts(frames)
    again = np.flatnonzero(frames.iloc[starts].duplicated(["subject", "sequence"]).to_numpy())
    if len(again):
        raise DataError(
            f"frame table, {_row_name(frames, int(starts[again[0]]))}: the sequence began before and was interrupted. "
            "Expected the rows of a sequence together."
        )
    step = np.diff(frames["frame"].to_numpy())
    step[starts[1:] - 1] = 1  # from one sequence to the next
    back = np.flatnonzero(step <= 0)
    if len(back):
        raise DataError(
            f"frame table, {_row_name(frames, int(back[0]) + 1)} follows a later frame. Expected frames ascending."
        )
