"""Intervals, tests, verdicts, and the scores that follow from counts alone.

On rendered data the replicate is the unit: new faces, labels, noise, split and initialisation, all from one number.
Recorded data come once. There subjects and seeds are the units, and an interval holds for these training sets only.
No interval takes frames as independent of each other. `aunce.analyses.simulation` measures what the intervals cover.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

LEVEL, POWER = 0.95, 0.8
"""Coverage of the intervals, and probability with which a test finds a `detectable_difference`."""

CONDITIONAL = "conditional on these training sets"


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` replicates (or seeds) with its interval, which is (-inf, inf) where it is not defined.

    `condition` says on what the interval is conditional, empty if on nothing.
    """

    value: float
    low: float
    high: float
    n: int
    condition: str = ""

    @property
    def defined(self) -> bool:
        """True if the interval says anything: at least two replicates, none of them NaN."""
        return math.isfinite(self.low) and math.isfinite(self.high)


class Verdict(StrEnum):
    """What is decided about a claim, from the worst to the best."""

    REVERSED = "reversed"
    NOT_SUPPORTED = "not supported"
    NEGLIGIBLE = "not supported (real but negligible)"
    UNDECIDED = "undecided"
    SUPPORTED = "supported"


class Materiality(StrEnum):
    """Whether a difference between two ways of doing something matters, whichever is ahead."""

    MATTERS = "matters"
    NOTHING = "does not matter"
    UNDECIDED = "undecided"


class Outcome(StrEnum):
    """What a comparison of the second edition of the claims comes to, seen from its first method."""

    BETTER = "better"
    AHEAD = "ahead, size open"
    NO_DIFFERENCE = "no difference that matters"
    OPEN = "not told apart"
    BEHIND = "behind, size open"
    WORSE = "worse"


def t_interval(values: Sequence[float]) -> Estimate:
    """Mean over replicates with Student's interval, mean +- t(n - 1) s / sqrt(n).

    Args:
        values: one score, or one paired difference, per replicate.

    Returns:
        The estimate; NaN without a value, or with a NaN among them, which is never dropped. Then, and with fewer than
        two values, the interval is (-inf, inf).
    """
    mean, error, n = _mean(values)
    half = _t_quantile((1 + LEVEL) / 2, n - 1) * error
    if math.isnan(half):
        return Estimate(mean, -math.inf, math.inf, n)
    return Estimate(mean, mean - half, mean + half, n)


def cell_interval(cells: Mapping[str, Sequence[float]], *, tail: float = (1 - LEVEL) / 2) -> Estimate:
    """Mean over cells, each cell with the same weight, with Student's interval from the spread within cells.

    With C cells of n_c values and mean m_c, and n values in all,

        value = sum_c m_c / C,    s^2 = sum_c sum_i (x_ci - m_c)^2 / (n - C),
        interval = value +- t(1 - tail; n - C) s sqrt(sum_c 1 / n_c) / C.

    Differences between cells do not widen the interval: it speaks of these cells.

    Args:
        cells: name -> one paired difference per replicate.
        tail: probability beyond each end.

    Returns:
        The estimate; NaN with an empty cell or with a NaN, and no interval unless a cell has two values.
    """
    parts = [np.asarray(values, dtype=np.float64) for values in cells.values()]
    n, count = sum(map(len, parts)), len(parts)
    if not count or not all(map(len, parts)):
        return Estimate(math.nan, -math.inf, math.inf, n)
    value = float(np.mean([part.mean() for part in parts]))
    if n == count or math.isnan(value):
        return Estimate(value, -math.inf, math.inf, n)
    squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    error = math.sqrt(squares / (n - count) * sum(1 / len(part) for part in parts)) / count
    half = _t_quantile(1 - tail, n - count) * error
    return Estimate(value, value - half, value + half, n)


def look_tails(fractions: Sequence[float], tail: float) -> list[float]:
    """Levels of the one-sided tests at each look, of which all together are wrong with probability `tail` at most.

    The spending function is that of Lan and DeMets in the shape of O'Brien and Fleming: up to a share f of the
    information, 2 (1 - Phi(z(1 - tail / 2) / sqrt(f))) is spent. A level is what is left of it after the looks before,
    for a statistic with independent normal increments. An interval at the level of its look holds at all looks at once.

    Args:
        fractions: information at each look as a share of that at the last one, rising.
        tail: one-sided error over all looks, below 0.5.

    Returns:
        One-sided level of each look.

    Raises:
        ValueError: the fractions do not rise from above 0 to at most 1.

    Source:
        Lan and DeMets, Biometrika 70 (1983), 659-663; Armitage, McPherson and Rowe, JRSS A 132 (1969), 235-244.
    """
    if not fractions or any(late <= early for early, late in itertools.pairwise((0, *fractions))) or fractions[-1] > 1:
        raise ValueError(f"fractions: expected numbers that rise from above 0 to at most 1, got {list(fractions)}")
    spent = [2 * special.ndtr(special.ndtri(tail / 2) / math.sqrt(share)) for share in fractions]
    levels = [spent[0]]
    bound = -special.ndtri(spent[0]) * math.sqrt(fractions[0])
    # Density of the score process where no look has stopped it, on the nodes of a quadrature below the bound.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    lowest = -12.0
    points = lowest + (bound - lowest) * (nodes + 1) / 2
    mass = weights * (bound - lowest) / 2 * _normal_density(points / math.sqrt(fractions[0])) / math.sqrt(fractions[0])
    for number in range(1, len(fractions)):
        scale = math.sqrt(fractions[number] - fractions[number - 1])
        wanted = spent[number] - spent[number - 1]
        low, high = 0.0, 12.0
        for _ in range(80):  # bisection: the probability to cross falls as the bound rises
            bound = (low + high) / 2
            crossing = float((mass * special.ndtr((points - bound) / scale)).sum())
            low, high = (bound, high) if crossing > wanted else (low, bound)
        levels.append(float(special.ndtr(-bound / math.sqrt(fractions[number]))))
        later = lowest + (bound - lowest) * (nodes + 1) / 2
        density = _normal_density((later[:, None] - points) / scale) @ mass / scale
        points, mass = later, weights * (bound - lowest) / 2 * density
    return [float(level) for level in levels]


def _normal_density(x: np.ndarray) -> np.ndarray:
    return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def outcome(estimate: Estimate, *, margin: float, settings: Mapping[str, float]) -> Outcome:
    """The outcome of a comparison.

    Better (or worse): the interval excludes 0, the value is at least the margin, and its sign is the same in all
    settings. No difference that matters: the interval lies within the margin on both sides. Ahead (or behind), size
    open: the interval excludes 0 and the value is smaller than the margin. Everything else is not told apart.

    Args:
        estimate: with the interval that decides.
        margin: the smallest difference that counts, in the unit of the estimate.
        settings: the value in each setting of the faces.

    Raises:
        ValueError: the margin is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin: expected a positive difference, got {margin}")
    if not estimate.defined:
        return Outcome.OPEN
    if -margin < estimate.low and estimate.high < margin:
        return Outcome.NO_DIFFERENCE
    if estimate.low <= 0 <= estimate.high:
        return Outcome.OPEN
    positive = estimate.low > 0
    if abs(estimate.value) < margin:
        return Outcome.AHEAD if positive else Outcome.BEHIND
    if not all((value > 0) if positive else (value < 0) for value in settings.values()):
        return Outcome.OPEN
    return Outcome.BETTER if positive else Outcome.WORSE


STILL_TO_COME = 3.2
"""What a change between the last two lengths still leads to, as a multiple of it, when every doubling of the length
changes .76 times as much as the one before (first round): .76 + .76^2 + ... = 3.2."""


def is_settled(
    estimate: Estimate, change: Estimate, *, margin: float, settings: Mapping[str, float], limit: float = 0.01
) -> bool:
    """Whether a comparison has stopped moving with the length of training.

    It has if the interval of its change over the last doubling lies within `limit`, and if what is still to come, see
    `STILL_TO_COME`, leaves the outcome as it is.

    Args:
        estimate: at the last length, with the interval that decides.
        change: value at the last length minus that at half of it, with its 90 % interval.
        margin: see `outcome`, `settings` likewise.
        limit: in the unit of the estimate.
    """
    if not (-limit <= change.low and change.high <= limit):
        return False
    more = STILL_TO_COME * change.value
    later = Estimate(estimate.value + more, estimate.low + more, estimate.high + more, estimate.n)
    moved = {name: value + more for name, value in settings.items()}
    now, then = (outcome(one, margin=margin, settings=of) for one, of in ((estimate, settings), (later, moved)))
    return now == then


def share_interval(share: float, n: int) -> Estimate:
    """A mean of n independent shares with the interval of Clopper and Pearson, as if each were one Bernoulli trial.

    A share between 0 and 1 varies no more than a Bernoulli variable of the same mean, so the interval is conservative.
    It has a width where all shares are 0, where Student's has none.

    Args:
        share: the mean, 0 to 1.
        n: independent shares behind it.

    Raises:
        ValueError: n is below 1.

    Source:
        Derived; Clopper and Pearson, Biometrika 26 (1934), 404-413.
    """
    if n < 1:
        raise ValueError("an interval of a share needs at least one")
    tail, hits = (1 - LEVEL) / 2, share * n
    low = float(special.betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(special.betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return Estimate(share, low, high, n)


def independent_difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Mean of `values` minus mean of `others`, which come from other replicates, with Welch's interval.

    Args:
        values: one score per replicate.
        others: one score per replicate, not necessarily as many.

    Returns:
        The estimate in the unit of the scores; its n is the smaller number of replicates. With fewer than two values on
        a side, or with a NaN, the interval is (-inf, inf).

    Source:
        Welch, Biometrika 34 (1947), 28-35.
    """
    difference = _mean(values)[0] - _mean(others)[0]
    n = min(len(values), len(others))
    if n < 2 or math.isnan(difference):
        return Estimate(difference, -math.inf, math.inf, n)
    from scipy import stats  # takes as long as all other imports together, and most pages need none of it

    interval = stats.ttest_ind(values, others, equal_var=False).confidence_interval(LEVEL)
    return Estimate(difference, float(interval.low), float(interval.high), n)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p value of the sign-flip test of a mean of 0; a check on Student's interval.

    Exact up to 16 replicates, from 99,999 seeded draws above. It cannot fall below 2 / 2**n: with two replicates it is
    at least 0.5. NaN for fewer than two replicates or with a NaN among them.
    """
    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) < 2 or np.isnan(sample).any():
        return math.nan
    if len(sample) <= 16:  # all sums at once; scipy, one after the other, takes a hundred times as long
        sums = np.zeros(1)
        for difference in sample:
            sums = np.concatenate([sums + difference, sums - difference])
        equal = 1e-12 * float(np.abs(sample).sum())  # sums of the same numbers in another order
        return float(np.mean(np.abs(sums) >= abs(sums[0]) - equal))
    from scipy import stats

    test = stats.permutation_test(
        (sample,), np.mean, permutation_type="samples", n_resamples=99_999, vectorized=True, rng=0
    )
    return float(test.pvalue)


def holm_p(values: Sequence[float]) -> list[float]:
    """p values of one family, adjusted by Holm: each is the smallest level at which the step-down test rejects it.

    A NaN stays one, and counts in the family.

    Source:
        Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    adjusted, highest = list(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda i: (math.isnan(values[i]), values[i]))):
        if not math.isnan(values[index]):
            highest = adjusted[index] = max(highest, min(1.0, (len(values) - rank) * values[index]))
    return adjusted


def holm_intervals(families: Sequence[Sequence[float]]) -> list[Estimate]:
    """Simultaneous intervals of the means of several comparisons that exclude 0 where Holm's test rejects.

    Two families of one-sided tests are stepped down by Holm, each at a = (1 - LEVEL) / 2: "the mean is not above 0"
    gives the lower ends, "the mean is not below 0" the upper ends. Of m comparisons with means x_i, standard errors s_i
    and Student's quantile t, while r of them are left, reject those with x_i - t(1 - a / r) s_i > 0. Then

        low_i = x_i - t(1 - a / r) s_i            if i is among the r > 0 that are left,
        low_i = 0, itself excluded                if i is rejected and others are left,
        low_i = max(0, x_i - t(1 - a / m) s_i)    if all are rejected,

    and likewise, with signs changed, for the upper ends. An end at an excluded 0 is given as the float next to 0. All
    lower ends are below their means at once with probability 1 - a, whatever the dependence of the comparisons, and
    all upper ends above. So the intervals cover all means at once with probability `LEVEL` at least.

    If all means have the same sign, 0 is excluded exactly where Holm's test on two-sided p values rejects at 1 - LEVEL.
    With both signs that test may reject more, but proves no sign for dependent comparisons, such as those with one
    reference. One comparison alone gets `t_interval`.

    Args:
        families: the paired differences of each comparison; one that is not defined still counts in m.

    Returns:
        One estimate per comparison, in order.

    Source:
        Strassburger and Bretz, Statistics in Medicine 27 (2008), 4914-4927, and Guilbaud, Biometrical Journal 50
        (2008), 678-692, for the lower ends; both ends by Bonferroni's inequality.
    """
    parts = [_mean(sample) for sample in families]
    tail = (1 - LEVEL) / 2
    lows = _holm_lows([(mean, error, n - 1) for mean, error, n in parts], tail)
    highs = _holm_lows([(-mean, error, n - 1) for mean, error, n in parts], tail)
    return [Estimate(mean, low, -high, n) for (mean, _, n), low, high in zip(parts, lows, highs, strict=True)]


def _holm_lows(parts: Sequence[tuple[float, float, int]], tail: float) -> list[float]:
    """Lower ends of `holm_intervals` for comparisons (mean, standard error, degrees of freedom)."""

    def low(index: int, share: int) -> float:
        mean, error, freedom = parts[index]
        end = mean - _t_quantile(1 - tail / share, freedom) * error
        return -math.inf if math.isnan(end) else end

    left = set(range(len(parts)))
    while rejected := {index for index in left if low(index, len(left)) > 0}:
        left -= rejected
    above = math.ulp(0.0)  # the interval is open at 0
    if left:
        return [low(index, len(left)) if index in left else above for index in range(len(parts))]
    return [max(above, low(index, len(parts))) for index in range(len(parts))]


def jackknife_interval(values: Sequence[float], left_out: ArrayLike) -> Estimate:
    """Mean over seeds on one data set, with Student's interval from subjects and seeds.

    With K seeds and S subjects, v_k the score of seed k and w_s the mean over seeds without subject s,

        A = (S - 1) / S sum_s (w_s - mean(w))^2,    B = variance of v / K,
        interval = mean(v) +- t(f) sqrt(A + B),    f = (A + B)^2 / (A^2 / (S - 1) + B^2 / (K - 1)),

    f by Satterthwaite. For a difference of two methods give differences, seed by seed and subject by subject.

    The variance between training sets, which more seeds do not show, is missing; the `condition` of the estimate says
    so. Verdicts on rendered data use replicates instead.

    Args:
        values: (K,) score of each seed on all subjects.
        left_out: (K, S) score of each seed on all subjects but one; see `leave_one_out_auc`, `leave_one_out_f1`.

    Returns:
        The estimate with n = K. The interval is (-inf, inf) for fewer than two seeds or subjects, or with a NaN.

    Raises:
        ValueError: left_out has not one row per seed.

    Source:
        Efron and Stein, Annals of Statistics 9 (1981), 586-596; Satterthwaite, Biometrics Bulletin 2 (1946), 110-114.
    """
    without = np.asarray(left_out, dtype=np.float64)  # (K, S)
    mean, seeds, n = _mean(values)
    if without.ndim != 2 or len(without) != n:
        raise ValueError(f"left_out: expected shape ({n}, subjects), got {without.shape}")
    subjects = without.shape[1]
    undefined = Estimate(mean, -math.inf, math.inf, n, CONDITIONAL)
    if n < 2 or subjects < 2:
        return undefined
    a, b = (subjects - 1) * float(without.mean(0).var()), seeds**2
    if not a + b > 0:  # NaN, or nothing varies
        return undefined if math.isnan(a + b) else Estimate(mean, mean, mean, n, CONDITIONAL)
    freedom = (a + b) ** 2 / (a**2 / (subjects - 1) + b**2 / (n - 1))
    half = _t_quantile((1 + LEVEL) / 2, freedom) * math.sqrt(a + b)
    return Estimate(mean, mean - half, mean + half, n, CONDITIONAL)


def leave_one_out_auc(pairs: pd.DataFrame, by: str | Sequence[str] = "au") -> pd.Series:
    """AUC of the groups of `by` without each of their subjects, exact: pairs with the subject on either side go.

    Give rows with `subject == other` alone for the AUC within subjects.

    Args:
        pairs: rows of `evaluation.concordance`, with more columns if wanted.
        by: columns to group by.

    Returns:
        AUC, indexed by `by` and `subject`; NaN where no pair is left. A subject without pairs in a group has no row.
    """
    keys = [by] if isinstance(by, str) else list(by)
    sums = ["concordant", "pairs"]
    own = pairs[pairs["subject"] == pairs["other"]]
    as_other = pairs.assign(subject=pairs["other"])
    # a pair of frames of one person is in both roles, and goes once
    roles = pd.concat([pairs, as_other, own.assign(**{name: -own[name] for name in sums})])
    rest = _without(pairs, roles, keys, sums)
    return (rest["concordant"] / rest["pairs"]).rename("auc")


def leave_one_out_f1(counts: pd.DataFrame, by: str | Sequence[str] = "au") -> pd.Series:
    """F1 of the groups of `by` without each of their subjects, from pooled counts.

    Args:
        counts: rows of `evaluation.occurrence_counts`, with more columns if wanted.
        by: columns to group by.

    Returns:
        F1, indexed by `by` and `subject`; NaN where no frame is positive and none is predicted so.
    """
    # As in `evaluation.f1`: small integers stay small where the sums fit, and their doubles need not.
    rest = _without(counts, counts, [by] if isinstance(by, str) else list(by), ["tp", "fp", "fn"]).astype(np.int64)
    doubled = 2 * rest["tp"]
    return (doubled / (doubled + rest["fp"] + rest["fn"])).rename("f1")


def _without(table: pd.DataFrame, roles: pd.DataFrame, keys: list[str], sums: list[str]) -> pd.DataFrame:
    """Sums of each group of `table` minus those of each subject of `roles`, indexed by group and subject."""
    total = table.groupby(keys)[sums].sum()
    part = roles.groupby([*keys, "subject"])[sums].sum()
    groups = part.index.droplevel("subject")
    return pd.DataFrame(total.loc[groups].to_numpy() - part.to_numpy(), index=part.index, columns=sums)


def detectable_difference(deviation: float, n: int, *, level: float = LEVEL) -> float:
    """The true mean difference that a two-sided paired t test over n replicates finds with a power of 80 %.

    Exact: the statistic T is noncentral t with n - 1 degrees of freedom and noncentrality d sqrt(n) / deviation, and
    P(T > t(n - 1)) = 0.8 is solved for d > 0; a rejection with the wrong sign finds nothing.

    Args:
        deviation: standard deviation of the paired differences, from a pilot.
        n: number of replicates.
        level: 1 minus the size of the test.

    Returns:
        d, in the unit of `deviation`; inf for fewer than two replicates.

    Source:
        Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd edition (1988), chapter 2.
    """
    if n < 2:
        return math.inf
    noncentrality = float(special.nctdtrinc(n - 1, 1 - POWER, _t_quantile((1 + level) / 2, n - 1)))
    return noncentrality * deviation / math.sqrt(n)


def verdict(estimates: Sequence[Estimate], *, delta: float, runs: int) -> Verdict:
    """What is decided about a claim: the verdict of the worst of its comparisons.

    With the interval [L, U] of a comparison: reversed if U < 0; supported if L > 0 and the value is at least delta; not
    supported if U < delta, and then real but negligible if L > 0; undecided otherwise. A true difference of just delta
    is supported half the time at best, however many runs there are: its estimate is as often below as above.

    Args:
        estimates: from `holm_intervals` over all comparisons of the study; larger is in the claim's favour.
        delta: the smallest difference that counts.
        runs: replicates that the claim asks for. A comparison with fewer, or whose interval is not defined since a run
            failed or a score is NaN, leaves the whole claim undecided.

    Raises:
        ValueError: delta is not positive.
    """
    _check(delta)
    if not estimates or any(not one.defined or one.n < runs for one in estimates):
        return Verdict.UNDECIDED
    return min((_verdict(one, delta) for one in estimates), key=list(Verdict).index)


def _check(delta: float) -> None:
    if not delta > 0:
        raise ValueError(f"delta: expected a positive difference, got {delta}")


def _verdict(estimate: Estimate, delta: float) -> Verdict:
    if estimate.high < 0:
        return Verdict.REVERSED
    if estimate.low > 0 and estimate.value >= delta:
        return Verdict.SUPPORTED
    if estimate.high < delta:
        return Verdict.NEGLIGIBLE if estimate.low > 0 else Verdict.NOT_SUPPORTED
    return Verdict.UNDECIDED


def materiality(estimates: Sequence[Estimate], *, delta: float, runs: int) -> Materiality:
    """Whether it matters which of two ways is taken.

    With the interval [L, U] of a comparison: it matters if 0 is outside and the value is at least delta in size; it
    does not if all of it is within -delta and delta; undecided otherwise. Of several comparisons one that matters is
    enough; that the choice does not matter takes all of them.

    Args:
        estimates: from `holm_intervals`.
        delta: the smallest difference that counts.
        runs: replicates that are asked for. A comparison with fewer, or without an interval, is left out.

    Raises:
        ValueError: delta is not positive.
    """
    _check(delta)
    told = [one for one in estimates if one.defined and one.n >= runs]
    if any((one.low > 0 or one.high < 0) and abs(one.value) >= delta for one in told):
        return Materiality.MATTERS
    if estimates and len(told) == len(estimates) and all(-delta < one.low and one.high < delta for one in told):
        return Materiality.NOTHING
    return Materiality.UNDECIDED


def guess_f1(positives: float, negatives: float, *, rate: float) -> float:
    """F1 of expected counts when "present" is guessed with probability `rate`, whatever the image shows.

    Expected counts TP = r P, FP = r N, FN = (1 - r) P give F1 = 2 r P / (P + r (P + N)). At the prevalence
    r = P / (P + N) this is the prevalence itself; at r = 1, "present" always, 2 P / (2 P + N). NaN without any frame.

    Args:
        positives: frames that carry the AU, P.
        negatives: frames that do not, N.
        rate: probability of the guess "present".
    """
    below = positives + rate * (positives + negatives)
    return 2 * rate * positives / below if below else math.nan


def _mean(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, its standard error and the number of values; what is not defined is NaN."""
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    error = float(sample.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return (float(sample.mean()) if n else math.nan), error, n


def _t_quantile(probability: float, freedom: float) -> float:
    """Student's quantile; scipy.stats gives the same, with far more overhead."""
    return float(special.stdtrit(freedom, probability)) if freedom > 0 else math.nan
