"""Annotator noise on the labels of a frame table: reproducible from (kind, rate, seed), applied when labels are loaded.

An event of an AU is a run of consecutive rows with label 1 in one sequence. For an AU of the table let N1 and N0 be
the numbers of positive and negative rows, p = N1 / (N1 + N0) its prevalence and L the mean length of its events in
rows. All formulas are derived. `rate` r is the expected share of positive rows that are lost, except for `confuse` and
`shift`.

    miss     An event is missed with probability m = min(r, 1 - p); beyond 1 - p a coder would be worse than chance.
             Given intensities, logit P(missed) = logit m - (peak of the event - mean peak), scaled to the mean m. False
             events come from a two-state Markov chain over the rows with stationary share q and mean length L, seen
             where the truth is 0; q = (expected missed rows) / N0, which is m p / (1 - p).
    jitter   Each onset and offset moves either way with equal probability, by G rows, P(G >= g) = (u / (1 + u))^g with
             mean u = r L. It moves at most to the nearer of its two neighbours among the onsets, the offsets and the
             ends of the sequence, so that the expected number of positive rows stays. Crowded events lose less than r.
    confuse  Events of AU 1/2, 6/7 and 23/24 where only one of the pair is present change places with the other AU: with
             probability r for the AU with fewer such rows, and r (fewer rows) / (more rows) for the other.
    shift    In a share r of the (sequence, AU) pairs the coder's threshold is off by one level of intensity: a strict
             coder loses positive rows below threshold + 1, a lenient one adds negative rows with a visible intensity of
             at least threshold - 1. The threshold is the least intensity of a positive row. Without intensities a
             strict coder misses an event with probability 1/2, and a lenient one adds false events with share
             min(1/2, p / (2 (1 - p))). A coder is strict with probability E0 / (E0 + E1), where E1 and E0 are the rows
             that would change if all were strict or all lenient.
    flip     The control. A positive row flips with probability m = min(r, 1 - p), a negative one with m p / (1 - p),
             each by itself. Cohen's kappa is then 1 - m / (1 - p).

So the expected prevalence of every AU is kept. `preserve_rate=False` gives the plain processes: `miss` without false
events, `jitter` up to the neighbour on either side, `confuse` with probability r for both, `shift` with strict and
lenient coders alike, `flip` with probability r for every row.

The draws of a sequence depend on seed, kind, subject, sequence and AU alone. Of the other sequences only p, L, the mean
peak, E0 and E1 matter, and the numbers of rows of a pair.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from aunce.data.frames import KEY, FrameTable
from aunce.errors import DataError, UsageError

KINDS = ("none", "miss", "jitter", "confuse", "shift", "flip")
PAIRS = ((1, 2), (6, 7), (23, 24))
"""The AUs that `confuse` exchanges."""

Labels = NDArray[np.int8]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def is_noise(condition: str) -> bool:
    """Whether the name of a condition of a study begins with a kind of noise, as "miss 0.3, deal part 1" does."""
    return re.split("[ ,]", condition)[0] in KINDS


def annotate(
    table: FrameTable,
    *,
    kind: str,
    rate: float,
    seed: int,
    intensity: pd.DataFrame | None = None,
    preserve_rate: bool = True,
) -> Labels:
    """A noisy copy of the labels of a table; see the module for each kind.

    Args:
        table: the clean labels. Unknown stays unknown, and ends an event.
        kind: one of `KINDS`. "none" returns the labels as they are.
        rate: strength in [0, 1). 0 returns the labels as they are.
        seed: of the draws.
        intensity: rows as in the table, columns subject, sequence, frame and `AU<n>`. AUs without a column, such as the
            null AU, are treated as without intensities. Used by `miss` and `shift`.
        preserve_rate: keep the expected prevalence of every AU.

    Returns:
        int8 (n, K) in the order of `table.aus`.

    Raises:
        UsageError: an unknown kind, a rate outside [0, 1), or `confuse` on AUs without a pair.
        DataError: intensities of other rows, or undefined ones.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind of noise {kind!r}. Known: {', '.join(KINDS)}.")
    if not 0 <= rate < 1:
        raise UsageError(f"noise rate is {rate}. Expected a number from 0 to below 1.")
    labels = table.labels
    if kind == "none" or rate == 0:
        return labels
    draws = _Draws(table, kind, seed)
    if kind == "confuse":
        return _confuse(table, labels, draws, rate, preserve_rate)
    levels = _levels(table, intensity) if intensity is not None else {}
    for k, au in enumerate(table.aus):
        label = labels[:, k]  # a view: the processes return a new column
        uniform = draws(au, 3)
        if kind == "miss":
            labels[:, k] = _miss(label, draws, uniform, rate, levels.get(au), preserve_rate)
        elif kind == "jitter":
            labels[:, k] = _jitter(label, draws, uniform, rate, preserve_rate)
        elif kind == "shift":
            labels[:, k] = _shift(label, draws, uniform, rate, levels.get(au), preserve_rate)
        else:
            labels[:, k] = _flip(label, uniform, rate, preserve_rate)
    return labels


def kappa(clean: Labels, noisy: Labels) -> Floats:
    """Cohen's kappa between two labellings, per AU, on the rows that both know.

    kappa = (o - e) / (1 - e), with o the share of equal labels and e the share expected of independent coders with the
    same prevalences (Cohen 1960). NaN where both coders use one and the same label only, or no row is known.

    Args:
        clean: int8 (n, K) in {-1, 0, 1}.
        noisy: the same shape.

    Returns:
        (K,).
    """
    known = (clean >= 0) & (noisy >= 0)  # (n, K)
    n = known.sum(axis=0).astype(float)  # (K,)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (((label == 1) & known).sum(axis=0) / n for label in (clean, noisy))  # (K,)
        observed = ((clean == noisy) & known).sum(axis=0) / n
        expected = a * b + (1 - a) * (1 - b)
        value: Floats = np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
    return value


class _Draws:
    """Uniform numbers per row of a table, the same for a sequence whatever the table holds beside it."""

    def __init__(self, table: FrameTable, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        self.starts = table.sequence_starts
        self.stops = np.append(self.starts[1:], len(table))
        self.is_start = np.zeros(len(table), dtype=bool)
        self.is_start[self.starts] = True
        first = table.frames.iloc[self.starts]
        self.names = [f"{s}/{t}" for s, t in zip(first["subject"], first["sequence"], strict=True)]

    def __call__(self, au: int, columns: int) -> Floats:
        """(n, columns) in [0, 1)."""
        uniform = np.empty((self.stops[-1], columns))
        for name, start, stop in zip(self.names, self.starts, self.stops, strict=True):
            digest = hashlib.sha256(f"{self.kind}/{name}/{au}".encode()).digest()
            words = np.frombuffer(digest[:16], dtype="<u4").tolist()
            uniform[start:stop] = np.random.default_rng([self.seed, *words]).random((stop - start, columns))
        return uniform

    def runs(self, mask: NDArray[np.bool_]) -> tuple[Rows, Rows]:
        """First row and row after the last of each run of True; runs end where their sequence ends."""
        before = np.append(False, mask[:-1]) & ~self.is_start
        after = np.append(mask[1:] & ~self.is_start[1:], False)
        return np.flatnonzero(mask & ~before), np.flatnonzero(mask & ~after) + 1


def _levels(table: FrameTable, intensity: pd.DataFrame) -> dict[int, Floats]:
    key = list(KEY)
    if len(intensity) != len(table) or not (
        intensity[key].reset_index(drop=True).astype(str).eq(table.frames[key].astype(str)).all(axis=None)
    ):
        raise DataError(
            "the intensities are not those of the table's rows. Expected the same frames in the same order."
        )
    levels = {au: intensity[f"AU{au}"].to_numpy(dtype=np.float64) for au in table.aus if f"AU{au}" in intensity.columns}
    for au, level in levels.items():
        if np.isnan(level).any():
            raise DataError(f"{int(np.isnan(level).sum())} intensities of AU{au} are undefined. Expected 0 to 5.")
    return levels


def _prevalence(label: Labels) -> float:
    known = int((label >= 0).sum())
    return int((label == 1).sum()) / known if known else 0.0


def _false_events(uniform: Floats, share: float, length: float, is_start: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A stationary two-state Markov chain per sequence: `share` of the rows in runs of about `length` rows.

    It leaves the state with probability b and enters it with b share / (1 - share). b = 1 / length, but at most
    1 - share, where the rows become independent.
    """
    leave = min(1 / max(length, 1), 1 - share)
    enter = leave * share / (1 - share)
    inside = np.where(is_start, uniform < share, uniform < enter)
    outside = np.where(is_start, uniform >= share, uniform >= 1 - leave)
    # Rows where the draw decides neither keep the state of the row before; a first row always decides.
    decided = np.maximum.accumulate(np.where(inside | outside, np.arange(len(uniform)), 0))
    return np.asarray(inside[decided])


def _miss(
    label: Labels, draws: _Draws, uniform: Floats, rate: float, level: Floats | None, preserve_rate: bool
) -> Labels:
    first, stop = draws.runs(label == 1)
    if not len(first):
        return label
    prevalence, length = _prevalence(label), stop - first
    target = min(rate, 1 - prevalence) if preserve_rate else rate
    chance = np.full(len(first), target)
    if level is not None and target > 0:
        peak = np.array([level[a:b].max() for a, b in zip(first, stop, strict=True)])
        tilted = expit(logit(target) - (peak - np.average(peak, weights=length)))
        chance = np.minimum(1, tilted * target / np.average(tilted, weights=length))
    missed = np.repeat(uniform[first, 0] < chance, length)
    noisy = label.copy()
    noisy[np.flatnonzero(label == 1)[missed]] = 0
    negatives = int((label == 0).sum())
    if preserve_rate and negatives:
        share = float((chance * length).sum()) / negatives
        extra = _false_events(uniform[:, 1], share, float(length.mean()), draws.is_start)
        noisy[(label == 0) & extra] = 1
    return noisy


def _flip(label: Labels, uniform: Floats, rate: float, preserve_rate: bool) -> Labels:
    prevalence = _prevalence(label)
    lost = added = rate
    if preserve_rate:
        lost = min(rate, 1 - prevalence)
        added = lost * prevalence / (1 - prevalence) if prevalence < 1 else 0.0
    chance = np.where(label == 1, lost, np.where(label == 0, added, 0))
    return np.where(uniform[:, 0] < chance, 1 - label, label).astype(np.int8)


def _jitter(label: Labels, draws: _Draws, uniform: Floats, rate: float, preserve_rate: bool) -> Labels:
    first, stop = draws.runs(label == 1)
    if not len(first):
        return label
    mean = rate * float((stop - first).mean())
    distance = np.floor(np.log(np.maximum(uniform[:, 1], 1e-300)) / np.log(mean / (1 + mean))).astype(np.int64)
    left = uniform[:, 0] < 0.5
    noisy = label.copy()
    for start, end in zip(*draws.runs(label >= 0), strict=True):
        edges = start + 1 + np.flatnonzero(np.diff(label[start:end]))
        value, previous = label[start], start
        for edge, following in zip(edges, np.append(edges, end)[1:], strict=True):
            room = (edge - previous, following - edge)
            reach = min(room) if preserve_rate else room[0] if left[edge] else room[1]
            moved = edge + (-1 if left[edge] else 1) * min(distance[edge], reach)
            noisy[previous:moved] = value
            value, previous = 1 - value, moved
        noisy[previous:end] = value
    return noisy


def _shift(
    label: Labels, draws: _Draws, uniform: Floats, rate: float, level: Floats | None, preserve_rate: bool
) -> Labels:
    positive, negative = label == 1, label == 0
    first, stop = draws.runs(positive)
    if not len(first) or not negative.any():
        return label
    if level is not None:
        threshold = level[positive].min()
        lost = positive & (level < threshold + 1)
        added = negative & (level >= threshold - 1) & (level > 0)
        all_strict, all_lenient = float(lost.sum()), float(added.sum())
    else:
        prevalence = _prevalence(label)
        share = min(0.5, prevalence / (1 - prevalence) / 2)
        lost = np.zeros(len(label), dtype=bool)
        lost[np.flatnonzero(positive)] = np.repeat(uniform[first, 2] < 0.5, stop - first)
        added = negative & _false_events(uniform[:, 2], share, float((stop - first).mean()), draws.is_start)
        all_strict, all_lenient = positive.sum() / 2, share * negative.sum()
    strictness = all_lenient / (all_strict + all_lenient) if preserve_rate and all_strict + all_lenient else 0.5
    length = draws.stops - draws.starts
    biased = np.repeat(uniform[draws.starts, 0] < rate, length)
    strict = np.repeat(uniform[draws.starts, 1] < strictness, length)
    noisy = label.copy()
    noisy[biased & strict & lost] = 0
    noisy[biased & ~strict & added] = 1
    return noisy


def _confuse(table: FrameTable, labels: Labels, draws: _Draws, rate: float, preserve_rate: bool) -> Labels:
    pairs = [pair for pair in PAIRS if set(pair) <= set(table.aus)]
    if not pairs:
        known = ", ".join(f"{a}/{b}" for a, b in PAIRS)
        raise UsageError(f"noise 'confuse' exchanges AUs {known}; the table has none of these pairs. Use another kind.")
    for pair in pairs:
        one, other = (table.aus.index(au) for au in pair)
        uniform = draws(pair[0], 1)[:, 0]
        alone = [(labels[:, a] == 1) & (labels[:, b] == 0) for a, b in ((one, other), (other, one))]
        rows = [int(mask.sum()) for mask in alone]
        for (a, b), mask, count in zip(((one, other), (other, one)), alone, rows, strict=True):
            if not count:
                continue
            chance = rate * min(rows) / count if preserve_rate else rate
            first, stop = draws.runs(mask)
            swapped = np.flatnonzero(mask)[np.repeat(uniform[first] < chance, stop - first)]
            labels[swapped, a], labels[swapped, b] = 0, 1
    return labels
