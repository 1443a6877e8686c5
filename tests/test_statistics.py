"""Oracles: scipy and enumeration by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from aunce.statistics import Estimate, always_positive_f1, guess_f1, paired_difference, sign_flip_p, t_interval

SCORES = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=2, max_size=8)


@given(SCORES)
def test_t_interval_equals_scipys_own(values: list[float]) -> None:
    estimate = t_interval(values)
    if np.std(values) == 0:
        assert estimate.low == pytest.approx(estimate.value, abs=1e-12)
        return
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((np.mean(values), low, high))
    assert estimate.n == len(values)
    assert estimate.defined


def test_t_interval_of_two_replicates_by_hand() -> None:
    # half width = 12.706 * |a - b| / 2
    estimate = t_interval([0.8, 0.9])
    assert estimate.value == pytest.approx(0.85)
    assert estimate.high - estimate.value == pytest.approx(12.7062 * 0.05, rel=1e-5)


def test_one_replicate_has_a_value_and_no_interval() -> None:
    assert t_interval([0.7]) == Estimate(0.7, -math.inf, math.inf, 1)
    assert not t_interval([0.7]).defined


def test_no_replicate_is_nan_and_not_zero() -> None:
    estimate = t_interval([])
    assert math.isnan(estimate.value)
    assert (estimate.low, estimate.high, estimate.n) == (-math.inf, math.inf, 0)


def test_a_nan_replicate_is_not_dropped_in_silence() -> None:
    estimate = t_interval([0.7, math.nan, 0.8])
    assert math.isnan(estimate.value)
    assert not estimate.defined
    assert estimate.n == 3


@given(SCORES, st.randoms())
def test_paired_difference_equals_the_interval_of_scipys_paired_test(values: list[float], random) -> None:
    reference = [random.random() for _ in values]
    estimate = paired_difference(values, reference)
    assume(np.std(np.subtract(values, reference)) > 1e-6)
    expected = stats.ttest_rel(values, reference).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_pairs_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_difference([0.1, 0.2], [0.1])


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=7))
def test_sign_flip_p_equals_the_enumeration_of_all_signs(values: list[int]) -> None:
    sums = [sum(sign * value for sign, value in zip(signs, values, strict=True)) for signs in _signs(len(values))]
    above, below = (np.mean([s >= sum(values) for s in sums]), np.mean([s <= sum(values) for s in sums]))
    assert sign_flip_p(values) == pytest.approx(min(1.0, 2 * min(above, below)))


def _signs(n: int) -> list[tuple[int, ...]]:
    return list(itertools.product((-1, 1), repeat=n))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_sign_flip_p_cannot_fall_below_its_bound(n: int) -> None:
    assert sign_flip_p(np.linspace(1, 2, n)) == pytest.approx(2 / 2**n)


def test_sign_flip_p_is_undefined_where_no_test_is_possible() -> None:
    assert math.isnan(sign_flip_p([0.3]))
    assert math.isnan(sign_flip_p([0.3, math.nan]))


def test_the_paired_interval_covers_the_true_difference_in_a_simulation() -> None:
    random = np.random.default_rng(7)
    truth, covered = 0.02, []
    for _ in range(600):
        replicate = random.normal(0, 0.05, 5)  # shared by both arms, removed by the pairing
        one, other = (replicate + random.normal(mean, 0.03, 5) for mean in (0.5 + truth, 0.5))
        estimate = paired_difference(one, other)
        covered.append(estimate.low <= truth <= estimate.high)
    assert 0.90 <= np.mean(covered) <= 0.99


@given(st.integers(1, 50), st.integers(0, 50))
def test_always_positive_f1_equals_scikit_learn(positives: int, negatives: int) -> None:
    labels = np.repeat([1, 0], [positives, negatives])
    assert always_positive_f1(positives, negatives) == pytest.approx(f1_score(labels, np.ones_like(labels)))


@given(st.integers(1, 50), st.integers(0, 50))
def test_guessing_with_the_prevalence_scores_the_prevalence(positives: int, negatives: int) -> None:
    prevalence = positives / (positives + negatives)
    assert guess_f1(positives, negatives, rate=prevalence) == pytest.approx(prevalence)


def test_guess_f1_equals_a_simulated_guess() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([1, 0], [60_000, 140_000])
    assert guess_f1(6, 14, rate=0.4) == pytest.approx(f1_score(labels, random.random(len(labels)) < 0.4), abs=5e-3)


def test_floors_without_frames_are_nan() -> None:
    assert math.isnan(always_positive_f1(0, 0))
    assert math.isnan(guess_f1(0, 10, rate=0.0))
