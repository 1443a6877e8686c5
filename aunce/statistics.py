"""Intervals over replicates, paired differences, and the scores that follow from counts alone.

On rendered data the replicate is the unit: new faces, labels, noise, split and initialisation, all from one number.
Nothing in here looks at frames or subjects, which are not independent of each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` replicates with its interval; the interval is (-inf, inf) where it is not defined."""

    value: float
    low: float
    high: float
    n: int

    @property
    def defined(self) -> bool:
        """True if the interval says anything: at least two replicates, none of them NaN."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Estimate:
    """Mean over replicates with Student's interval, mean +- t(n - 1) s / sqrt(n).

    Args:
        values: one score per replicate.
        level: coverage of the interval.

    Returns:
        The estimate. Without a value it is NaN. With fewer than two, or with a NaN among them (a NaN is never dropped:
        then the mean is NaN as well), the interval is (-inf, inf).
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    mean = float(sample.mean()) if n else math.nan
    if n < 2 or math.isnan(mean):
        return Estimate(mean, -math.inf, math.inf, n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def paired_difference(values: Sequence[float], reference: Sequence[float], *, level: float = 0.95) -> Estimate:
    """Mean of `values - reference` with Student's interval; entry i of both comes from the same replicate.

    Raises:
        ValueError: the two differ in length, so they cannot be pairs.
    """
    differences = [value - other for value, other in zip(values, reference, strict=True)]
    return t_interval(differences, level=level)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p value of a mean of 0 if every sign could as well be the other; a check on Student's interval.

    Exact up to 16 replicates, from 99,999 seeded draws above. It cannot fall below 2 / 2**n: with two replicates it is
    at least 0.5. NaN for fewer than two replicates or with a NaN among them.
    """
    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) < 2 or np.isnan(sample).any():
        return math.nan
    test = stats.permutation_test(
        (sample,), np.mean, permutation_type="samples", n_resamples=99_999, vectorized=True, rng=0
    )
    return float(test.pvalue)


def always_positive_f1(positives: float, negatives: float) -> float:
    """F1 of the answer "present" for every frame, 2 P / (2 P + N); NaN without any frame.

    Args:
        positives: frames that carry the AU, P.
        negatives: frames that do not, N.
    """
    return guess_f1(positives, negatives, rate=1.0)


def guess_f1(positives: float, negatives: float, *, rate: float) -> float:
    """F1 of expected counts when "present" is guessed with probability `rate`, blind to the image.

    Expected counts TP = r P, FP = r N, FN = (1 - r) P give F1 = 2 r P / (P + r (P + N)); at the prevalence
    r = P / (P + N) this is the prevalence itself. NaN where nothing could be guessed right or wrong.

    Args:
        positives: frames that carry the AU, P.
        negatives: frames that do not, N.
        rate: probability of the guess "present".
    """
    below = positives + rate * (positives + negatives)
    return 2 * rate * positives / below if below else math.nan
