"""Oracles: scipy and enumeration by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from aunce import evaluation
from aunce.statistics import (
    CONDITIONAL,
    STILL_TO_COME,
    Estimate,
    Materiality,
    Outcome,
    Verdict,
    cell_interval,
    detectable_difference,
    guess_f1,
    holm_intervals,
    holm_p,
    independent_difference,
    is_settled,
    jackknife_interval,
    leave_one_out_auc,
    leave_one_out_f1,
    look_tails,
    materiality,
    outcome,
    share_interval,
    sign_flip_p,
    t_interval,
    verdict,
)

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
def test_an_interval_of_paired_differences_equals_that_of_scipys_paired_test(values: list[float], random) -> None:
    reference = [random.random() for _ in values]
    estimate = t_interval(np.subtract(values, reference).tolist())
    assume(np.std(np.subtract(values, reference)) > 1e-6)
    expected = stats.ttest_rel(values, reference).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


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


@example([-8, 11, -1, 9, -11])  # their sum is 0, and of their sevenths scipy says .9375, by rounding
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=12))
def test_sign_flip_p_is_exact_and_equals_scipys_permutation_test(values: list[int]) -> None:
    flipped = [abs(sum(signs)) for signs in itertools.product(*((value, -value) for value in values))]
    exact = np.mean([one >= abs(sum(values)) for one in flipped])  # of integers, whose sums are not rounded
    assert sign_flip_p([value / 7 for value in values]) == pytest.approx(exact)
    sample = np.asarray(values, dtype=float)
    test = stats.permutation_test((sample,), np.sum, permutation_type="samples", n_resamples=2**13, vectorized=True)
    assert sign_flip_p(values) == pytest.approx(test.pvalue)


def test_sign_flip_p_is_undefined_where_no_test_is_possible() -> None:
    assert math.isnan(sign_flip_p([0.3]))
    assert math.isnan(sign_flip_p([0.3, math.nan]))


def test_the_paired_interval_covers_the_true_difference_in_a_simulation() -> None:
    random = np.random.default_rng(7)
    truth, covered = 0.02, []
    for _ in range(600):
        replicate = random.normal(0, 0.05, 5)  # shared by both arms, removed by the pairing
        one, other = (replicate + random.normal(mean, 0.03, 5) for mean in (0.5 + truth, 0.5))
        estimate = t_interval(one - other)
        covered.append(estimate.low <= truth <= estimate.high)
    assert 0.90 <= np.mean(covered) <= 0.99


def holm_rejects(p: np.ndarray, size: float) -> np.ndarray:
    """Holm 1979, from the smallest p value up to the first that is not small enough."""
    rejected = np.zeros(len(p), dtype=bool)
    for rank, index in enumerate(np.argsort(p)):
        if p[index] > size / (len(p) - rank):
            break
        rejected[index] = True
    return rejected


@st.composite
def families(draw) -> np.ndarray:
    """(C, n) differences of 1 to 6 contrasts, from clear effects to none, of either sign."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    contrasts, n = draw(st.integers(1, 6)), draw(st.integers(2, 10))
    means = random.choice([-3.0, -1.5, 0.0, 1.0, 1.5, 2.0, 4.0], (contrasts, 1))
    return means + random.standard_normal((contrasts, n))


@given(families())
def test_holm_intervals_exclude_0_where_holms_test_of_each_direction_rejects(differences: np.ndarray) -> None:
    estimates = holm_intervals(differences)
    above, below = (stats.ttest_1samp(differences, 0, axis=1, alternative=a).pvalue for a in ("greater", "less"))
    assert [estimate.low > 0 for estimate in estimates] == holm_rejects(above, 0.025).tolist()
    assert [estimate.high < 0 for estimate in estimates] == holm_rejects(below, 0.025).tolist()


@given(families())
def test_holm_intervals_agree_with_the_two_sided_test_if_all_means_have_one_sign(differences: np.ndarray) -> None:
    p = stats.ttest_1samp(differences, 0, axis=1).pvalue
    excluded = np.array([e.low > 0 or e.high < 0 for e in holm_intervals(differences)])
    rejected = holm_rejects(p, 0.05)
    assert not (excluded & ~rejected).any()
    if len(set(np.sign(differences.mean(1)))) == 1:
        np.testing.assert_array_equal(excluded, rejected)


@given(families())
def test_holm_intervals_hold_their_means_and_do_not_depend_on_the_order(differences: np.ndarray) -> None:
    estimates = holm_intervals(differences)
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in estimates)
    assert holm_intervals(differences[::-1]) == estimates[::-1]
    mirrored = [(-estimate.high, -estimate.low) for estimate in holm_intervals(-differences)]
    assert mirrored == [(estimate.low, estimate.high) for estimate in estimates]


def test_one_contrast_alone_gets_the_usual_interval() -> None:
    differences = [0.01, 0.02, 0.04, -0.01]
    (alone,) = holm_intervals([differences])
    usual = t_interval(differences)
    assert (alone.value, alone.low, alone.high, alone.n) == pytest.approx((usual.value, usual.low, usual.high, usual.n))


def test_holm_intervals_by_hand() -> None:
    # three contrasts of five replicates, standard error 1: t(4) at 1 - .025 / r is 3.961, 3.495 and 2.776 for r 3, 2, 1
    shape = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) * math.sqrt(2)
    shape /= shape.std(ddof=1) / math.sqrt(5)

    def ends(*means: float) -> list[tuple[float, float]]:
        return [(e.low, e.high) for e in holm_intervals([mean + shape for mean in means])]

    zero = math.ulp(0.0)
    assert ends(4.5, 3.7, 1.0) == [
        pytest.approx((zero, 4.5 + 3.961), abs=1e-3),
        pytest.approx((zero, 3.7 + 3.961), abs=1e-3),
        pytest.approx((1 - 2.776, 1 + 3.961), abs=1e-3),
    ]
    assert [low for low, _ in ends(4.5, 3.7, 1.0)[:2]] == [zero, zero]  # open at 0
    assert [low for low, _ in ends(4.5, 3.7, 2.8)] == pytest.approx([4.5 - 3.961, zero, zero], abs=1e-3)
    assert [low for low, _ in ends(3.7, 3.7, 3.7)] == pytest.approx([3.7 - 3.961] * 3, abs=1e-3)


def test_a_contrast_that_is_not_defined_still_counts() -> None:
    clear, weak = [1.0, 1.1, 0.9, 1.0], [0.5, 0.4, 0.1, 0.3]
    alone, beside = holm_intervals([weak]), holm_intervals([weak, [math.nan] * 4, [0.2]])
    assert beside[0].low < alone[0].low
    for estimate in beside[1:]:
        assert not estimate.defined
        assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    assert holm_intervals([clear, [math.nan] * 4])[0].low == math.ulp(0.0)
    assert holm_intervals([]) == []


def test_holm_intervals_cover_all_contrasts_at_once() -> None:
    random = np.random.default_rng(0)
    truth = np.array([0.0, 0.0, 1.0, -3.0])
    covered = []
    for _ in range(1000):
        reference = random.standard_normal(6)  # shared, so the contrasts depend on each other
        estimates = holm_intervals(truth[:, None] + random.standard_normal((4, 6)) - reference)
        covered.append(all(e.low <= mean <= e.high for e, mean in zip(estimates, truth, strict=True)))
    assert np.mean(covered) >= 0.94


def test_jackknife_interval_by_hand() -> None:
    # two seeds, three subjects: w = (.55, .60, .65), A = 2/3 * .005, B = .02 / 2, f = (A + B)^2 / (A^2 / 2 + B^2)
    estimate = jackknife_interval([0.5, 0.7], [[0.5, 0.5, 0.5], [0.6, 0.7, 0.8]])
    a, b = 2 / 3 * 0.005, 0.01
    half = stats.t.ppf(0.975, (a + b) ** 2 / (a**2 / 2 + b**2)) * math.sqrt(a + b)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.6, 0.6 - half, 0.6 + half))
    assert (estimate.n, estimate.condition) == (2, CONDITIONAL)


def test_the_jackknife_of_a_mean_over_subjects_is_its_standard_error() -> None:
    subjects = np.random.default_rng(1).random(12)
    left_out = (subjects.sum() - subjects) / 11
    estimate = jackknife_interval([subjects.mean()] * 4, [left_out] * 4)  # seeds do not vary: f is S - 1
    usual = t_interval(subjects)
    assert (estimate.low, estimate.high) == pytest.approx((usual.low, usual.high))


def test_a_jackknife_without_enough_seeds_or_subjects_is_not_defined() -> None:
    for values, left_out in (
        ([0.5], [[0.5, 0.6]]),
        ([0.5, 0.6], [[0.5], [0.6]]),
        ([0.5, math.nan], [[0.5, 0.6], [0.5, 0.6]]),
        ([0.5, 0.6], [[0.5, math.nan], [0.5, 0.6]]),
    ):
        estimate = jackknife_interval(values, left_out)
        assert not estimate.defined
        assert estimate.condition == CONDITIONAL
    assert jackknife_interval([0.5, 0.5], [[0.5, 0.5]] * 2) == Estimate(0.5, 0.5, 0.5, 2, CONDITIONAL)
    with pytest.raises(ValueError, match=r"\(2, subjects\)"):
        jackknife_interval([0.5, 0.6], [[0.5, 0.6, 0.7]])


@pytest.fixture
def frames() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n, 2) with unknown ones, scores with ties, subjects; AU 2 is absent in A and B."""
    random = np.random.default_rng(5)
    subjects = np.repeat(["A", "B", "C", "D"], 40)
    labels = random.choice([-1, 0, 1], (160, 2), p=[0.1, 0.6, 0.3])
    labels[:80, 1] = np.minimum(labels[:80, 1], 0)
    return labels, random.integers(0, 8, (160, 2)) / 8, subjects


def test_holm_p_values_are_the_smallest_levels_at_which_the_step_down_test_rejects() -> None:
    def rejected(values: list[float], level: float) -> set[int]:
        found: set[int] = set()
        for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
            if values[index] > level / (len(values) - rank):
                break
            found.add(index)
        return found

    for values in ([0.01, 0.04, 0.03, 0.2, 0.005], [0.5, 0.5], [0.02], [0.9, 0.001, 0.024]):
        adjusted = holm_p(values)
        for level in (*adjusted, 0.01, 0.05, 0.3):
            level += 1e-12
            assert rejected(values, level) == {i for i, p in enumerate(adjusted) if p <= level}
    assert holm_p([]) == []
    undefined, told = holm_p([math.nan, 0.02])
    assert math.isnan(undefined)
    assert told == pytest.approx(0.04)


def test_leave_one_out_auc_equals_scikit_learn_without_the_subject(frames) -> None:
    labels, scores, subjects = frames
    left_out = leave_one_out_auc(evaluation.concordance(labels, scores, subjects, (1, 2)))
    assert left_out.index.names == ["au", "subject"]
    assert len(left_out) == 8
    for (au, subject), value in left_out.items():
        rest = (subjects != subject) & (labels[:, au - 1] >= 0)
        assert value == pytest.approx(roc_auc_score(labels[rest, au - 1], scores[rest, au - 1]))


def test_leave_one_out_auc_is_that_of_the_rows_without_the_subject(frames) -> None:
    pairs = pd.concat([evaluation.concordance(*frames, (1, 2)).assign(part=part) for part in "xy"])
    pairs.loc[pairs["part"] == "y", "concordant"] /= 2
    left_out = leave_one_out_auc(pairs, ["part", "au"])
    for subject in "ABCD":
        rest = pairs[(pairs["subject"] != subject) & (pairs["other"] != subject)]
        expected = evaluation.auc(rest, ["part", "au"])
        for (part, au), value in expected.items():
            assert left_out[part, au, subject] == pytest.approx(value)


@pytest.mark.parametrize("hits", [0, 1, 5, 8])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(hits) -> None:
    exact = stats.binomtest(hits, 8).proportion_ci(0.95, method="exact")
    assert share_interval(hits / 8, 8).low == pytest.approx(exact.low)
    assert share_interval(hits / 8, 8).high == pytest.approx(exact.high)
    with pytest.raises(ValueError, match="at least one"):
        share_interval(0.5, 0)


def test_leave_one_out_auc_within_subjects(frames) -> None:
    pairs = evaluation.concordance(*frames, (1, 2))
    own = pairs[pairs["subject"] == pairs["other"]]
    left_out = leave_one_out_auc(own)
    rest = pairs[(pairs["subject"] != "C") & (pairs["other"] != "C")]
    assert left_out[1, "C"] == pytest.approx(evaluation.auc(rest, within_subjects=True)[1])
    # only C and D show AU 2: without one of them the other is left
    assert [subject for au, subject in left_out.index if au == 2] == ["C", "D"]
    assert math.isnan(leave_one_out_auc(own[own["subject"] == "C"])[2, "C"])


def test_leave_one_out_f1_equals_scikit_learn_without_the_subject(frames) -> None:
    labels, scores, subjects = frames
    counts = evaluation.occurrence_counts(labels, scores >= 0.5, subjects, (1, 2))
    left_out = leave_one_out_f1(counts)
    for (au, subject), value in left_out.items():
        rest = (subjects != subject) & (labels[:, au - 1] >= 0)
        assert value == pytest.approx(f1_score(labels[rest, au - 1], scores[rest, au - 1] >= 0.5))
    assert math.isnan(leave_one_out_f1(counts[counts["subject"] == "C"])[1, "C"])


def test_detectable_difference_agrees_with_known_sample_sizes() -> None:
    # a paired t test finds 0.5 standard deviations with 80 % power from 34 pairs on, 0.8 from 15 on
    for size, n in ((0.5, 34), (0.8, 15)):
        assert detectable_difference(1.0, n) <= size < detectable_difference(1.0, n - 1)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_detectable_difference_is_found_as_often_as_it_says(n: int) -> None:
    random = np.random.default_rng(n)
    samples = detectable_difference(0.03, n) + 0.03 * random.standard_normal((20_000, n))
    test = stats.ttest_1samp(samples, 0, axis=1)
    assert np.mean((test.pvalue < 0.05) & (test.statistic > 0)) == pytest.approx(0.8, abs=0.01)


def test_one_replicate_detects_nothing() -> None:
    assert detectable_difference(0.03, 1) == math.inf
    assert math.isnan(detectable_difference(math.nan, 5))


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.02, 0.005, 0.035, Verdict.SUPPORTED),
        (0.01, 0.001, 0.019, Verdict.SUPPORTED),  # the value is delta
        (0.02, math.ulp(0.0), 0.04, Verdict.SUPPORTED),  # rejected by Holm's test, 0 excluded
        (0.02, 0.0, 0.04, Verdict.UNDECIDED),
        (0.009, 0.001, 0.017, Verdict.UNDECIDED),  # real, but its size is not known
        (0.02, -0.01, 0.05, Verdict.UNDECIDED),
        (-0.01, -0.03, 0.01, Verdict.UNDECIDED),  # the interval reaches delta
        (-0.01, -0.03, 0.009, Verdict.NOT_SUPPORTED),
        (0.0, -0.005, 0.005, Verdict.NOT_SUPPORTED),
        (0.005, 0.001, 0.009, Verdict.NEGLIGIBLE),
        (-0.02, -0.03, -0.01, Verdict.REVERSED),
        (-0.002, -0.003, -0.001, Verdict.REVERSED),
        (-0.02, -0.04, 0.0, Verdict.NOT_SUPPORTED),
    ],
)
def test_verdict_of_one_contrast(value: float, low: float, high: float, expected: Verdict) -> None:
    assert verdict([Estimate(value, low, high, 8)], delta=0.01, runs=8) is expected


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.03, 0.01, 0.05)], Materiality.MATTERS),
        ([(-0.03, -0.05, -0.01)], Materiality.MATTERS),
        ([(0.004, 0.001, 0.007)], Materiality.UNDECIDED),
        ([(0.001, -0.002, 0.004)], Materiality.NOTHING),
        ([(0.003, 0.002, 0.004)], Materiality.NOTHING),
        ([(0.001, -0.004, 0.006)], Materiality.UNDECIDED),
        ([(0.001, -0.002, 0.004), (0.03, 0.01, 0.05)], Materiality.MATTERS),
        ([(0.001, -0.002, 0.004), (0.01, -0.01, 0.03)], Materiality.UNDECIDED),
        ([], Materiality.UNDECIDED),
    ],
)
def test_a_difference_matters_on_either_side_or_is_within_delta(intervals, expected) -> None:
    assert materiality([Estimate(*ends, 8) for ends in intervals], delta=0.005, runs=8) is expected
    assert materiality([Estimate(*ends, 7) for ends in intervals], delta=0.005, runs=8) is Materiality.UNDECIDED


def test_the_difference_of_independent_means_equals_scipys_own() -> None:
    one, other = [0.1, 0.3, 0.2, 0.4], [0.5, 0.1, 0.2]
    found = independent_difference(one, other)
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert (found.value, found.n) == (pytest.approx(0.25 - 0.8 / 3), 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert not independent_difference([0.1], other).defined


def test_a_claim_about_all_is_decided_by_its_worst_contrast() -> None:
    contrasts = [
        Estimate(-0.02, -0.03, -0.01, 8),
        Estimate(0.0, -0.005, 0.005, 8),
        Estimate(0.005, 0.001, 0.009, 8),
        Estimate(0.02, -0.01, 0.05, 8),
        Estimate(0.02, 0.005, 0.035, 8),
    ]
    verdicts = [verdict(contrasts[start:], delta=0.01, runs=8) for start in range(5)]
    assert verdicts == list(Verdict)
    assert verdict(contrasts[::-1], delta=0.01, runs=8) is Verdict.REVERSED


def test_a_claim_without_its_runs_is_undecided() -> None:
    good = Estimate(0.02, 0.005, 0.035, 8)
    undecided = [
        [],
        [Estimate(0.02, 0.005, 0.035, 7)],
        [good, Estimate(0.02, 0.005, 0.035, 7)],
        [good, t_interval([0.02, math.nan] * 4)],
        [good, Estimate(-0.02, -math.inf, math.inf, 8)],
        [t_interval([0.9])],
        [Estimate(-0.02, -0.03, -0.01, 8), Estimate(math.nan, -math.inf, math.inf, 8)],
    ]
    for contrasts in undecided:
        assert verdict(contrasts, delta=0.01, runs=8) is Verdict.UNDECIDED
    assert str(verdict([good], delta=0.01, runs=8)) == "supported"


@pytest.mark.parametrize("delta", [0.0, -0.01, math.nan])
def test_a_verdict_needs_a_smallest_difference(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        verdict([Estimate(0.02, 0.005, 0.035, 8)], delta=delta, runs=8)


@given(st.integers(1, 50), st.integers(0, 50))
def test_always_positive_f1_equals_scikit_learn(positives: int, negatives: int) -> None:
    labels = np.repeat([1, 0], [positives, negatives])
    assert guess_f1(positives, negatives, rate=1) == pytest.approx(f1_score(labels, np.ones_like(labels)))


@given(st.integers(1, 50), st.integers(0, 50))
def test_guessing_with_the_prevalence_scores_the_prevalence(positives: int, negatives: int) -> None:
    prevalence = positives / (positives + negatives)
    assert guess_f1(positives, negatives, rate=prevalence) == pytest.approx(prevalence)


def test_guess_f1_equals_a_simulated_guess() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([1, 0], [60_000, 140_000])
    assert guess_f1(6, 14, rate=0.4) == pytest.approx(f1_score(labels, random.random(len(labels)) < 0.4), abs=5e-3)


def test_floors_without_frames_are_nan() -> None:
    assert math.isnan(guess_f1(0, 0, rate=1))
    assert math.isnan(guess_f1(0, 10, rate=0.0))


def test_leaving_a_subject_out_of_small_integers_from_a_table_on_disk_does_not_overflow():
    counts = pd.DataFrame(
        {"au": 12, "subject": ["A", "B", "C"], "tp": [30, 40, 50], "fp": [20, 10, 9], "fn": [0, 0, 1]}
    )
    small = counts.astype({name: np.int8 for name in ("tp", "fp", "fn")})
    expected = {"A": 180 / (180 + 20), "B": 160 / (160 + 30), "C": 140 / (140 + 30)}
    assert leave_one_out_f1(small).loc[12].to_dict() == pytest.approx(expected)


# The second edition of the claims


CELLS = st.dictionaries(
    st.sampled_from(["clean easy", "clean hard", "noisy easy", "noisy hard"]),
    st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=8),
    min_size=1,
)


@given(CELLS)
def test_the_interval_over_cells_is_that_of_least_squares_with_a_mean_for_each_cell(cells: dict) -> None:
    n, count = sum(map(len, cells.values())), len(cells)
    assume(n > count)
    y = np.concatenate(list(cells.values()))
    assume(y.std() > 1e-6)
    design = np.repeat(np.eye(count), [len(values) for values in cells.values()], axis=0)
    fit, *_ = np.linalg.lstsq(design, y, rcond=None)
    variance = ((y - design @ fit) ** 2).sum() / (n - count)
    weights = np.full(count, 1 / count)
    error = math.sqrt(variance * weights @ np.linalg.inv(design.T @ design) @ weights)
    found = cell_interval(cells, tail=0.01)
    half = stats.t.ppf(0.99, n - count) * error
    assert (found.value, found.low, found.high) == pytest.approx(
        (fit.mean(), fit.mean() - half, fit.mean() + half), abs=1e-9
    )


def test_one_cell_alone_has_students_interval_and_a_cell_of_one_value_lends_no_spread() -> None:
    one, other = cell_interval({"": [0.1, 0.2, 0.4]}), t_interval([0.1, 0.2, 0.4])
    assert (one.value, one.low, one.high, one.n) == pytest.approx((other.value, other.low, other.high, other.n))
    assert cell_interval({"a": [0.1], "b": [0.3]}) == Estimate(pytest.approx(0.2), -math.inf, math.inf, 2)
    assert not cell_interval({"a": [0.1, 0.2], "b": []}).defined
    assert not cell_interval({"a": [0.1, math.nan]}).defined
    assert not cell_interval({}).defined


def test_look_tails_are_those_of_published_tables() -> None:
    # gsDesign and Jennison and Turnbull: z bounds of Lan and DeMets' spending at four equal looks, one-sided .025
    assert stats.norm.isf(look_tails([0.25, 0.5, 0.75, 1], 0.025)) == pytest.approx(
        [4.333, 2.963, 2.359, 2.014], abs=1e-3
    )
    assert look_tails([1], 0.025) == pytest.approx([0.025])


@pytest.mark.parametrize("fractions", [[0.5, 0.75, 1], [0.5, 0.8, 0.9], [0.3, 1]])
def test_all_looks_together_spend_the_tail_of_the_multivariate_normal(fractions: list[float]) -> None:
    tail = 0.05 / 3 / 2
    bounds = stats.norm.isf(look_tails(fractions, tail))
    covariance = [[math.sqrt(min(a, b) / max(a, b)) for b in fractions] for a in fractions]
    inside = stats.multivariate_normal(cov=covariance, abseps=1e-7, releps=1e-7).cdf(
        bounds, rng=np.random.default_rng(0)
    )
    spent = 2 * stats.norm.sf(stats.norm.isf(tail / 2) / math.sqrt(fractions[-1]))
    assert 1 - inside == pytest.approx(spent, abs=1e-5)


@pytest.mark.parametrize("fractions", [[], [0, 1], [0.5, 0.5], [0.5, 1.1], [-0.1, 1]])
def test_looks_that_do_not_rise_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="expected numbers that rise"):
        look_tails(fractions, 0.01)


@pytest.mark.parametrize(
    ("value", "low", "high", "hard", "expected"),
    [
        (0.030, 0.010, 0.050, 0.020, Outcome.BETTER),
        (0.030, 0.010, 0.050, -0.001, Outcome.OPEN),  # another sign on hard faces
        (-0.030, -0.050, -0.010, -0.020, Outcome.WORSE),
        (-0.030, -0.050, -0.010, 0.001, Outcome.OPEN),
        (0.014, 0.004, 0.024, 0.010, Outcome.AHEAD),
        (-0.014, -0.024, -0.004, -0.010, Outcome.BEHIND),
        (0.010, 0.006, 0.014, 0.010, Outcome.NO_DIFFERENCE),  # real, and too small to count
        (0.000, -0.014, 0.014, 0.000, Outcome.NO_DIFFERENCE),
        (0.000, -0.015, 0.014, 0.000, Outcome.OPEN),
        (0.030, 0.000, 0.060, 0.030, Outcome.OPEN),
        (0.030, -math.inf, math.inf, 0.030, Outcome.OPEN),
        (math.nan, -math.inf, math.inf, math.nan, Outcome.OPEN),
    ],
)
def test_the_outcome_of_a_comparison_and_of_its_mirror_image(value, low, high, hard, expected) -> None:
    settings = {"easy": value, "hard": hard}
    assert outcome(Estimate(value, low, high, 16), margin=0.015, settings=settings) is expected
    mirrored = {"better": "worse", "worse": "better", "ahead, size open": "behind, size open"}
    mirrored |= {other: one for one, other in mirrored.items()}
    turned = {name: -one for name, one in settings.items()}
    other = outcome(Estimate(-value, -high, -low, 16), margin=0.015, settings=turned)
    assert other == mirrored.get(expected, expected)


@pytest.mark.parametrize(
    ("change", "low", "high", "expected"),
    [
        (0.000, -0.005, 0.005, True),
        (0.000, -0.011, 0.005, False),  # may still move
        (-0.004, -0.009, 0.001, False),  # .018 less 3.2 times .004 is below the margin
        (0.004, 0.001, 0.009, True),
        (math.nan, -math.inf, math.inf, False),
    ],
)
def test_a_comparison_is_settled_if_what_is_still_to_come_leaves_its_outcome(change, low, high, expected) -> None:
    estimate = Estimate(0.018, 0.005, 0.031, 16)
    found = is_settled(estimate, Estimate(change, low, high, 16), margin=0.015, settings={"easy": 0.02, "hard": 0.016})
    assert found is expected
    assert pytest.approx(sum(0.76**k for k in range(1, 200)), abs=0.04) == STILL_TO_COME
