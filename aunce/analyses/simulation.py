"""Coverage of intervals where the truth is known: those of `aunce.statistics`, and those in use in the field.

Detectors are not trained but simulated: counts of every subject and AU are drawn, with effects of training set, seed
and subject on each method. Two designs are compared. *Replicates* have new subjects and a new training set each. *One
data set* has three parts, and several seeds. Both estimate how two methods would differ on new subjects after new
training sets.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from aunce.statistics import (
    Estimate,
    Verdict,
    holm_intervals,
    jackknife_interval,
    t_interval,
    verdict,
)

Floats = NDArray[np.float64]

DELTA = 0.01  # one F1 point, the size of a step in published tables; the claims have another one, in AUC
PARTS, SUBJECTS = 3, 9  # DISFA: 27 subjects, nine in a part
REPLICATES, SEEDS = (3, 5, 8), (3, 5, 10)
# Positive rate of each AU in a subject that shows it, and how many of nine subjects do. With fewer than five, the AU
# would not enter the mean.
RATES = (0.10, 0.10, 0.15, 0.20, 0.25, 0.30, 0.45, 0.60)
SHOWN_BY = (5, 5, 6, 7, 9, 9, 9, 9)
FRAMES = 100  # of a subject; few, as neighbours in a sequence are near duplicates
RECALL, FALSE_ALARM = 0.8, -1.6  # logits: 69 % and 17 %
RESAMPLES = 400
CHUNK = 100  # repetitions at a time, for memory

OURS, CONDITIONAL, FIELD = "ours", "ours, conditional", "in use"


@dataclass(frozen=True)
class World:
    """Standard deviations, in logits, of what moves recall up and false alarms down.

    `replicate` and `subject` move all methods alike; the others move each method by itself. Half of every variance is
    common to all AUs. The parts of one data set share half of the variance of `training_set`, as their training sets
    share half of their subjects.
    """

    replicate: float = 0.3
    subject: float = 0.6
    training_set: float = 0.2
    seed: float = 0.1
    subject_by_method: float = 0.2
    rest: float = 0.1


@dataclass(frozen=True)
class Interval:
    """A way to make an interval; `runs` is the number of trainings of each method that it takes."""

    name: str
    kind: str
    design: str
    runs: int


def simulate(
    *,
    training_sets: Sequence[float] = (0.0, 0.1, 0.2),
    gains: Sequence[float] = (0.0, 0.2),
    repetitions: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Coverage and false claims of every interval in every world.

    The score is F1 from counts pooled over subjects, mean over AUs. The true difference is 0 for a method without a
    gain, since it is drawn like the reference, and else the mean of the values over all repetitions.

    Args:
        training_sets: standard deviations of the effect of the training set, in logits.
        gains: what a method gains over the reference, in logits.
        repetitions: studies drawn in each world.
        seed: of all draws.

    Returns:
        One row per world and interval: training_set, gain, interval, kind ("ours"; "ours, conditional" on the training
        sets; "in use" in the field), design ("replicates" or "one data set"), runs, repetitions, seed, truth, deviation
        (of the value over repetitions), coverage, width (median), supported (share of repetitions with this verdict)
        and false_claims (share that supports a comparison without an effect, NaN if there is none), numpy
        (version, whose random streams these are).
        Simultaneous intervals are of three comparisons, the last one without a gain. Their coverage is of all three at
        once; truth, deviation, width and supported are of the first.
    """
    rows = []
    for number, (spread, gain) in enumerate(itertools.product(training_sets, gains)):
        random = np.random.default_rng([seed, number])
        found: dict[Interval, list[list[Estimate]]] = {}
        for start in range(0, repetitions, CHUNK):
            size = min(CHUNK, repetitions - start)
            world = World(training_set=spread)
            for interval, families in itertools.chain(
                _replicates(world, gain, size, random), _one_data_set(world, gain, size, random)
            ):
                found.setdefault(interval, []).extend(families)
        for interval, families in found.items():
            row = {"training_set": spread, "gain": gain, "interval": interval.name, "kind": interval.kind}
            row |= {"design": interval.design, "runs": interval.runs, "repetitions": repetitions, "seed": seed}
            rows.append(row | _summary(families, gain) | {"numpy": np.__version__})
    return pd.DataFrame(rows)


def _summary(families: list[list[Estimate]], gain: float) -> dict[str, float]:
    """Summary over repetitions, each with the estimates of one comparison or of three."""
    value, low, high = (
        np.array([[getattr(e, end) for e in family] for family in families]) for end in ("value", "low", "high")
    )  # (n, C)
    gained = np.array([gain, gain, 0.0])[: value.shape[1]] != 0  # (C)
    truth = np.where(gained, value.mean(0), 0.0)  # (C)
    said = [[verdict([e], delta=DELTA, runs=e.n) for e in family] for family in families]
    supported = np.array(said) == Verdict.SUPPORTED  # (n, C)
    return {
        "truth": float(truth[0]),
        "deviation": float(value[:, 0].std(ddof=1)),
        "coverage": float(((low <= truth) & (truth <= high)).all(1).mean()),
        "width": float(np.median(high[:, 0] - low[:, 0])),
        "supported": float(supported[:, 0].mean()),
        "false_claims": math.nan if gained.all() else float(supported[:, ~gained].any(1).mean()),
    }


def _replicates(
    world: World, gain: float, size: int, random: np.random.Generator
) -> Iterator[tuple[Interval, list[list[Estimate]]]]:
    """Intervals of `size` studies of replicates, of the first method against the reference or of three methods."""
    gains = np.array([0.0, gain, gain, 0.0])  # reference, and three methods
    tp, errors = _counts(world, gains, (size, max(REPLICATES), 1), random, shared=0.0)
    scores = _macro_f1(tp.sum(3), errors.sum(3))[:, :, 0]  # (n, R, M)
    for runs in REPLICATES:
        paired = [[t_interval(study[:runs, 1] - study[:runs, 0])] for study in scores]
        yield Interval("paired t, replicates", OURS, "replicates", runs), paired
    for runs in REPLICATES:
        holm = [holm_intervals((study[:runs, 1:] - study[:runs, :1]).T) for study in scores]
        yield Interval("Holm, 3 contrasts", OURS, "replicates", runs), holm
    for runs in REPLICATES:
        two = scores[:, :runs, :2]  # (n, runs, 2)
        half = special.stdtrit(2 * runs - 2, 0.975) * np.sqrt(two.var(1, ddof=1).sum(1) / runs)
        value = _gain(two.mean(1))
        unpaired = _estimates(value, value - half, value + half, runs)
        yield Interval("unpaired t, replicates", FIELD, "replicates", runs), unpaired


def _one_data_set(
    world: World, gain: float, size: int, random: np.random.Generator
) -> Iterator[tuple[Interval, list[list[Estimate]]]]:
    """Intervals of `size` studies of one data set each, of a method against the reference."""
    tp, errors = _counts(world, np.array([0.0, gain]), (size, PARTS, max(SEEDS)), random, shared=0.5)
    folds = _gain(_macro_f1(tp[:, :, 0].sum(2), errors[:, :, 0].sum(2)))  # (n, P)
    mean, spread = folds.mean(1), folds.std(1, ddof=1)
    bar = _estimates(mean, mean - spread, mean + spread, PARTS)
    yield Interval("mean ± SD of folds", FIELD, "one data set", PARTS), bar
    yield Interval("t over folds", FIELD, "one data set", PARTS), [[t_interval(study)] for study in folds]

    # counts of all subjects, each from the model that has not seen it
    tp, errors = (
        np.moveaxis(count, 2, 1).reshape(size, max(SEEDS), PARTS * SUBJECTS, *count.shape[4:]) for count in (tp, errors)
    )  # (n, J, S, K, M)
    values = _gain(_macro_f1(tp.sum(2), errors.sum(2)))  # (n, J)
    left_out = _gain(_macro_f1(tp.sum(2, keepdims=True) - tp, errors.sum(2, keepdims=True) - errors))  # (n, J, S)
    for seeds in SEEDS:
        over_seeds = [[t_interval(study)] for study in values[:, :seeds]]
        yield Interval("t over seeds", FIELD, "one data set", seeds * PARTS), over_seeds
    for seeds in SEEDS:
        pairs = zip(values[:, :seeds], left_out[:, :seeds], strict=True)
        jackknife = [[jackknife_interval(study, without)] for study, without in pairs]
        yield Interval("subject jackknife + seeds", CONDITIONAL, "one data set", seeds * PARTS), jackknife

    everyone, seeds = PARTS * SUBJECTS, SEEDS[1]
    weights = random.multinomial(everyone, [1 / everyone] * everyone, RESAMPLES)  # (B, S)
    again = (np.einsum("bs,njskm->bnjkm", weights, count[:, :seeds], optimize=True) for count in (tp, errors))
    resampled = _gain(_macro_f1(*again))  # (B, n, J)
    one_seed = _percentiles(values[:, 0], resampled[:, :, 0], 1)
    yield Interval("subject bootstrap", FIELD, "one data set", PARTS), one_seed
    drawn = random.multinomial(seeds, [1 / seeds] * seeds, RESAMPLES) / seeds  # (B, J)
    both = _percentiles(values[:, :seeds].mean(1), np.einsum("bj,bnj->bn", drawn, resampled), seeds)
    yield Interval("subject × seed bootstrap", FIELD, "one data set", seeds * PARTS), both


def _counts(
    world: World, gains: Floats, studies: tuple[int, int, int], random: np.random.Generator, *, shared: float
) -> tuple[Floats, Floats]:
    """True positives and errors (false positives and negatives), (n, T, J, S, K, M) each.

    Args:
        world: the effects.
        gains: (M,) of each method, in logits.
        studies: n repetitions, T training sets with subjects of their own, J seeds.
        random: source of all draws.
        shared: share of the variance of the training-set effect that the T training sets have in common.
    """
    n, sets, seeds = studies
    aus, methods = len(RATES), len(gains)

    def effect(deviation: float, *shape: int) -> Floats:
        """An effect of which half of the variance is common to the AUs; the last axes of `shape` are S and M."""
        *first, last = shape
        common, own = random.standard_normal((*first, 1, last)), random.standard_normal((*first, aus, last))
        return deviation * math.sqrt(0.5) * (common + own)

    quality = gains + (  # (n, T, J, S, K, M)
        effect(world.replicate, n, sets, 1, 1, 1)
        + effect(world.subject, n, sets, 1, SUBJECTS, 1)
        + effect(world.training_set * math.sqrt(shared), n, 1, 1, 1, methods)
        + effect(world.training_set * math.sqrt(1 - shared), n, sets, 1, 1, methods)
        + effect(world.seed, n, sets, seeds, 1, methods)
        + effect(world.subject_by_method, n, sets, 1, SUBJECTS, methods)
        + effect(world.rest, n, sets, seeds, SUBJECTS, methods)
    )
    place = random.random((n, sets, 1, SUBJECTS, aus, 1)).argsort(3).argsort(3)
    shown = place < np.array(SHOWN_BY)[:, None]  # (n, T, 1, S, K, 1)
    rates = special.expit(special.logit(np.array(RATES)[:, None]) + 0.5 * random.standard_normal(shown.shape))
    positives = np.where(shown, np.maximum(10, random.binomial(FRAMES, rates)), 0)  # ten frames: the AU enters
    tp = random.binomial(positives, special.expit(RECALL + quality)).astype(np.float64)
    fp = random.binomial(FRAMES - positives, special.expit(FALSE_ALARM - quality)).astype(np.float64)
    return tp, fp + positives - tp


def _macro_f1(tp: Floats, errors: Floats) -> Floats:
    """F1 = 2 tp / (2 tp + errors), mean over AUs: (..., K, M) to (..., M)."""
    score: Floats = (2 * tp / (2 * tp + errors)).mean(-2)
    return score


def _gain(scores: Floats) -> Floats:
    """Difference of the two methods: (..., 2) to (...)."""
    return scores[..., 1] - scores[..., 0]


def _percentiles(value: Floats, resampled: Floats, n: int) -> list[list[Estimate]]:
    """Percentile intervals of resamples (B, n)."""
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return _estimates(value, low, high, n)


def _estimates(value: Floats, low: Floats, high: Floats, n: int) -> list[list[Estimate]]:
    """The estimates of one comparison per repetition, from arrays (n,)."""
    return [[Estimate(*ends, n)] for ends in zip(value.tolist(), low.tolist(), high.tolist(), strict=True)]
