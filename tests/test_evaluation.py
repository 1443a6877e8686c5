"""Counts, F1, thresholds, concordance and kNN against scikit-learn and plain loops; what is undefined stays NaN."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from aunce.evaluation import (
    auc,
    concordance,
    f1,
    has_plateaued,
    knn,
    macro,
    occurrence_counts,
    score_tables,
    scored_aus,
    subject_accuracy,
    thresholds,
)

AUS = (1, 2, 4, 12)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    labels = rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(300, 4)).astype(np.int8)
    scores = (rng.integers(0, 30, (300, 4)) / 30 + 0.1 * labels).astype(np.float32)  # with ties
    subjects = np.array([f"F{number:03}" for number in rng.integers(0, 5, 300)])
    return labels, scores, subjects


def test_counts_are_those_of_a_loop_over_subjects_and_aus_and_leave_unknown_out(case):
    labels, scores, subjects = case
    counts = occurrence_counts(labels, scores > 0.5, subjects, AUS).set_index(["subject", "au"])
    assert len(counts) == 5 * 4
    for subject, (k, au) in itertools.product(sorted(set(subjects)), enumerate(AUS)):
        cells = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
        for name, label, score in zip(subjects, labels[:, k], scores[:, k], strict=True):
            if name == subject and label >= 0:
                cells[("tp" if label else "fp") if score > 0.5 else ("fn" if label else "tn")] += 1
        assert counts.loc[(subject, au)].to_dict() == cells
    assert counts.to_numpy().sum() == (labels >= 0).sum()


def test_pooled_f1_equals_scikit_learn(case):
    labels, scores, subjects = case
    result = f1(occurrence_counts(labels, scores > 0.5, subjects, AUS))
    for k, au in enumerate(AUS):
        known = labels[:, k] >= 0
        assert result[au] == pytest.approx(f1_score(labels[known, k], scores[known, k] > 0.5))


def test_f1_by_part_and_pooled_over_parts_are_different_numbers(case):
    labels, scores, subjects = case
    counts = occurrence_counts(labels, scores > 0.5, subjects, AUS)
    counts["part"] = np.where(counts["subject"] < "F002", "1", "2")
    parts = f1(counts, ["part", "au"])
    assert set(parts.index) == set(itertools.product("12", AUS))
    assert not np.allclose(parts.groupby("au").mean(), f1(counts))


def test_an_undefined_f1_is_nan_and_a_hopeless_one_is_zero():
    labels = np.array([[0, 0, 1], [0, -1, 0]])
    predictions = np.array([[False, True, False], [False, True, False]])
    result = f1(occurrence_counts(labels, predictions, ["a", "b"], (1, 2, 4)))
    assert np.isnan(result[1])  # no positives, none predicted
    assert result[2] == 0  # one false alarm
    assert result[4] == 0  # one miss
    assert macro(result, (1, 2, 4)) == 0
    assert np.isnan(macro(result, (1,)))
    assert np.isnan(macro(result, (99,)))


def test_thresholds_reach_the_best_f1_of_all_thresholds_and_never_part_equal_scores(case):
    labels, scores, _ = case
    result = thresholds(labels, scores)
    for k in range(4):
        known = labels[:, k] >= 0
        truth, score = labels[known, k], scores[known, k]
        best = max(f1_score(truth, score >= cut) for cut in np.unique(score))
        assert f1_score(truth, score >= result[k]) == pytest.approx(best)


def test_an_au_without_known_positives_keeps_the_threshold_one_half():
    labels = np.array([[0, 1, -1], [0, 0, -1]])
    assert thresholds(labels, np.full((2, 3), 0.7)).tolist() == [0.5, 0.7, 0.5]


def test_auc_from_concordant_pairs_equals_scikit_learn_with_ties(case):
    labels, scores, subjects = case
    result = auc(concordance(labels, scores, subjects, AUS))
    for k, au in enumerate(AUS):
        known = labels[:, k] >= 0
        assert result[au] == pytest.approx(roc_auc_score(labels[known, k], scores[known, k]))


def test_leaving_a_subject_out_of_the_pairs_is_exact(case):
    labels, scores, subjects = case
    pairs = concordance(labels, scores, subjects, AUS)
    rest = subjects != "F003"
    kept = pairs[(pairs["subject"] != "F003") & (pairs["other"] != "F003")]
    pd.testing.assert_series_equal(auc(kept), auc(concordance(labels[rest], scores[rest], subjects[rest], AUS)))


def test_auc_within_subjects_compares_frames_of_the_same_subject_only(case):
    labels, scores, subjects = case
    shifted = scores + np.array([int(name[1:]) for name in subjects])[:, None] * 10
    result = auc(concordance(labels, shifted, subjects, AUS), within_subjects=True)
    for k, au in enumerate(AUS):
        right = count = 0.0
        for subject in set(subjects):
            mine = (subjects == subject) & (labels[:, k] >= 0)
            weight = (labels[mine, k] == 1).sum() * (labels[mine, k] == 0).sum()
            right += weight * roc_auc_score(labels[mine, k], scores[mine, k])
            count += weight
        assert result[au] == pytest.approx(right / count, abs=1e-6)


def test_auc_over_parts_weighs_each_part_with_its_pairs(case):
    labels, scores, subjects = case
    first = subjects < "F002"
    parts = [
        concordance(labels[rows], scores[rows], subjects[rows], AUS).assign(part=name)
        for name, rows in (("1", first), ("2", ~first))
    ]
    pooled = auc(pd.concat(parts))[1]
    each = [roc_auc_score(labels[rows & (labels[:, 0] >= 0), 0], scores[rows & (labels[:, 0] >= 0), 0])
            for rows in (first, ~first)]  # fmt: skip
    weights = [(labels[rows, 0] == 1).sum() * (labels[rows, 0] == 0).sum() for rows in (first, ~first)]
    assert pooled == pytest.approx(np.average(each, weights=weights))


def test_an_au_without_pairs_has_no_auc_and_other_aus_are_untouched():
    labels = np.array([[1, 1], [1, 0], [-1, 0]])
    scores = np.array([[0.1, 0.9], [0.2, 0.2], [0.3, 0.3]])
    result = auc(concordance(labels, scores, ["a", "a", "b"], (1, 2)))
    assert result.to_dict() == {2: 1.0}


def test_scores_that_are_nan_and_shapes_that_do_not_fit_are_refused(case):
    labels, scores, subjects = case
    with pytest.raises(ValueError, match="expected no NaN"):
        concordance(labels, np.where(scores > 0.5, np.nan, scores), subjects, AUS)
    with pytest.raises(ValueError, match=r"subjects: expected shape \(300,\), got \(299,\)"):
        concordance(labels, scores, subjects[:-1], AUS)
    with pytest.raises(ValueError, match=r"predictions: expected shape \(300, 4\), got \(300, 3\)"):
        occurrence_counts(labels, scores[:, :3] > 0.5, subjects, AUS)
    with pytest.raises(ValueError, match=r"labels: expected shape \(300, 3\), got \(300, 4\)"):
        occurrence_counts(labels, scores > 0.5, subjects, AUS[:3])


def test_an_au_enters_with_five_subjects_of_ten_positives_and_never_as_a_null_au():
    subjects = np.repeat([f"F{number}" for number in range(6)], 20)
    labels = np.zeros((120, 4), dtype=np.int8)
    labels[:, 0] = 1
    for number in range(5):
        labels[20 * number : 20 * number + 10, 1] = 1
        labels[20 * number : 20 * number + (10 if number else 9), 2] = 1  # one positive too few in one subject
    labels[:, 3] = 1
    assert scored_aus(labels, subjects, (1, 2, 4, 28), (28,)) == (1, 2)


def test_knn_equals_scikit_learn_and_ignores_unknown_neighbours():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(200, 3, 6)).astype(np.float32), rng.normal(size=(50, 3, 6)).astype(np.float32)
    labels = rng.choice([-1, 0, 1], p=[0.2, 0.5, 0.3], size=(200, 3)).astype(np.int8)
    result = knn(train, labels, test, k=7, chunk=16)
    for au in range(3):
        known = labels[:, au] >= 0
        oracle = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(train[known, au], labels[known, au])
        np.testing.assert_allclose(result[:, au], oracle.predict_proba(test[:, au])[:, 1], atol=1e-6)


def test_knn_with_few_or_no_known_frames_uses_what_there_is():
    train, test = np.ones((4, 2, 3), dtype=np.float32), np.ones((2, 2, 3), dtype=np.float32)
    labels = np.array([[1, -1], [0, -1], [1, -1], [-1, -1]])
    np.testing.assert_allclose(knn(train, labels, test), [[2 / 3, 0.5]] * 2, atol=1e-6)


def test_the_subject_is_read_where_features_tell_it_and_not_where_they_do_not():
    rng = np.random.default_rng(0)
    subjects = np.repeat([f"F{k}" for k in range(8)], 40)
    sequences = np.tile(np.repeat(["a", "b", "c", "d"], 10), 8)
    who = np.repeat(rng.normal(size=(8, 2, 6)), 40, axis=0)
    noise = rng.normal(size=(320, 2, 6))
    assert subject_accuracy((who + 0.1 * noise).astype(np.float32), subjects, sequences) == 1
    assert subject_accuracy(noise.astype(np.float32), subjects, sequences) < 0.3
    moments = np.repeat(rng.normal(size=(32, 2, 6)), 10, axis=0)  # what a sequence shows alone tells nothing of others
    assert subject_accuracy(moments.astype(np.float32), subjects, sequences) < 0.4


def test_a_subject_cannot_be_read_from_a_single_sequence():
    features = np.zeros((4, 1, 2), dtype=np.float32)
    assert math.isnan(subject_accuracy(features, ["a", "a", "b", "b"], ["1", "2", "1", "1"]))
    assert math.isnan(subject_accuracy(features, ["a"] * 4, ["1", "2", "1", "2"]))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.6, 0.7, 0.8, 0.9], False),
        ([0.6, 0.9, 0.902, 0.903], True),
        ([0.6, 0.9, 0.85, 0.8], True),
        ([0.5, 0.8, 0.8, 0.8, 0.8, 0.806], False),
        ([np.nan, 0.5, np.nan, 0.8, np.nan, 0.8], True),
        ([0.8, 0.8], False),
        ([np.nan] * 9, False),
    ],
)
def test_a_curve_is_flat_when_its_last_third_gains_less_than_half_a_point(curve, expected):
    assert has_plateaued(curve) is expected


def test_score_tables_hold_every_head_rule_threshold_and_kind_of_label(case):
    labels, scores, subjects = case
    noisy = np.where(np.random.default_rng(1).random(labels.shape) < 0.2, 0, labels)
    heads = {"probe": (scores[:100], scores[100:]), "knn": (scores[:100], 1 - scores[100:])}
    counts, pairs = score_tables(
        {"last": heads, "oracle": heads},
        noisy[:100],
        {"clean": labels[100:], "noisy": noisy[100:]},
        subjects[100:],
        AUS,
    )
    place = ["head", "epoch_rule", "threshold", "labels"]
    assert len(counts.groupby(place)) == 2 * 2 * 3 * 2
    assert list(counts) == [*place, "subject", "au", "tp", "fp", "fn", "tn"]
    assert list(pairs) == ["head", "epoch_rule", "labels", "subject", "other", "au", "concordant", "pairs"]
    cell = counts.set_index(place).sort_index().loc[("probe", "last", "tuned", "clean")]
    cut = thresholds(noisy[:100], scores[:100])
    expected = occurrence_counts(labels[100:], scores[100:] >= cut, subjects[100:], AUS)
    pd.testing.assert_frame_equal(cell.reset_index(drop=True), expected)
    best = f1(counts[counts["threshold"] == "oracle"], [*place, "au"]).droplevel("threshold")
    for name in ("0.5", "tuned"):
        other = f1(counts[counts["threshold"] == name], [*place, "au"]).droplevel("threshold")
        assert (best >= other - 1e-12).all()


def test_f1_of_small_integers_from_a_table_on_disk_does_not_overflow():
    counts = pd.DataFrame({"au": [12, 12], "tp": [26, 40], "fp": [21, 8], "fn": [0, 0]})
    assert f1(counts.astype(np.int8)).loc[12] == pytest.approx(132 / 161)
