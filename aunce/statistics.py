"""Intervals, tests, verdicts, and the scores that follow from counts alone.

On rendered data the replicate is the unit: new faces, labels, noise, split and initialisation, all from one number.
Recorded data come once. There subjects and seeds are the units, and an interval holds for these training sets only.
No interval takes frames as independent of each other. `aunce.analyses.simulation` measures what the intervals cover.
"""

import math
from collections.abc import Sequence
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
