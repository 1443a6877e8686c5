"""Scores of a detector as counts per subject and AU, so that pooling and leaving out subjects is exact.

`labels` are (n, K) in {1 present, 0 absent, -1 unknown}, `scores` (n, K) and larger for present, `subjects` (n,).
Unknown labels enter no count. An undefined score is NaN, never 0 and never 1.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]


def occurrence_counts(labels: Array, predictions: Array, subjects: ArrayLike, aus: Sequence[int]) -> pd.DataFrame:
    """Count true and false positives and negatives of every subject and AU over the known frames.

    Args:
        labels: (n, K) in {-1, 0, 1}.
        predictions: (n, K) bool.
        subjects: (n,), one name per frame.
        aus: the K AU numbers.

    Returns:
        One row per (subject, au), subjects sorted: subject, au, tp, fp, fn, tn.

    Raises:
        ValueError: the shapes do not fit.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions, dtype=bool)
    codes, names = _subjects(subjects, len(labels))
    _fit("predictions", predictions, labels.shape)
    _fit("labels", labels, (len(codes), len(aus)))
    cell = np.where(labels < 0, 4, 2 * (labels != predictions) + (labels == 0))  # (n, K): tp 0, tn 1, fn 2, fp 3
    place = (codes[:, None] * len(aus) + np.arange(len(aus))) * 5 + cell  # (n, K)
    cells = np.bincount(place.ravel(), minlength=len(names) * len(aus) * 5).reshape(-1, 5)  # (S * K, 5)
    columns = dict(zip(("tp", "tn", "fn", "fp"), cells.T[:4], strict=True))
    rows = {"subject": np.repeat(names, len(aus)), "au": np.tile(np.asarray(aus, dtype=np.int64), len(names))}
    return pd.DataFrame(rows | {name: columns[name] for name in ("tp", "fp", "fn", "tn")})


def f1(counts: pd.DataFrame, by: str | Sequence[str] = "au") -> pd.Series:
    """F1 = 2 tp / (2 tp + fp + fn) of the counts pooled within the groups of `by`.

    `by=["part", "au"]`, then a mean over parts, is the literature's way; `by="au"` pools over parts.

    Args:
        counts: rows of `occurrence_counts`, with more columns if wanted.
        by: columns to group by.

    Returns:
        F1 as a share, 0 to 1, indexed by `by`; NaN where no frame is positive and none is predicted so.
    """
    # Tables on disk hold small integers. pandas keeps that type where the sums fit, but twice the sum may not.
    pooled = counts.groupby(by, sort=False)[["tp", "fp", "fn"]].sum().astype(np.int64)
    doubled = 2 * pooled["tp"]
    return (doubled / (doubled + pooled["fp"] + pooled["fn"])).rename("f1")


def thresholds(labels: Array, scores: Array) -> Array:
    """The threshold of each AU with the highest F1 on these frames; an AU is predicted where score >= threshold.

    Candidates are the scores themselves; of equally good ones the highest is taken. An AU without a known positive
    frame gives no information and gets 0.5.

    Args:
        labels: (n, K) in {-1, 0, 1}.
        scores: (n, K), larger for present.

    Returns:
        (K,) float64, in the unit of the scores.

    Raises:
        ValueError: the shapes do not fit.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    _fit("scores", scores, labels.shape)
    best = np.full(labels.shape[1], 0.5)
    for k in range(labels.shape[1]):
        known = labels[:, k] >= 0
        order = np.argsort(-scores[known, k], kind="stable")
        present, ranked = labels[known, k][order] == 1, scores[known, k][order]
        if not present.any():
            continue
        tp = np.cumsum(present)
        value = 2 * tp / (np.arange(1, len(tp) + 1) + tp[-1])  # predicted + positives = 2 tp + fp + fn
        value[:-1][ranked[:-1] == ranked[1:]] = -1  # a threshold cannot part equal scores
        best[k] = ranked[np.argmax(value)]
    return best


def concordance(labels: Array, scores: Array, subjects: ArrayLike, aus: Sequence[int]) -> pd.DataFrame:
    """Count, subject by subject, the pairs of a positive and a negative frame that the scores order rightly.

    The AUC of any set of subjects is sum(concordant) / sum(pairs) over the rows with both subjects in the set, so
    leaving a subject out is exact. Rows with `subject == other` give the AUC within subjects.

    Args:
        labels: (n, K) in {-1, 0, 1}.
        scores: (n, K).
        subjects: (n,).
        aus: the K AU numbers.

    Returns:
        One row per AU, subject of the positive and subject of the negative frames that make pairs: subject, other, au,
        concordant (float64, ties count one half), pairs (int64).

    Raises:
        ValueError: the shapes do not fit, or a score is NaN.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    codes, names = _subjects(subjects, len(labels))
    _fit("scores", scores, labels.shape)
    _fit("labels", labels, (len(codes), len(aus)))
    if np.isnan(scores).any():
        raise ValueError("concordance: scores expected no NaN; was the run stopped by a loss that is not finite?")
    size = len(names)
    parts = []
    for k, au in enumerate(aus):
        # Ranks in place of scores: integers are searched faster, and equal scores share one.
        rank = np.unique(scores[:, k], return_inverse=True)[1].reshape(-1)
        present, absent = np.flatnonzero(labels[:, k] == 1), np.flatnonzero(labels[:, k] == 0)
        present = present[np.argsort(rank[present], kind="stable")]  # sorted queries make the search fast
        absent = absent[np.lexsort((rank[absent], codes[absent]))]  # by subject, then by rank
        n_present, n_absent = np.bincount(codes[present], minlength=size), np.bincount(codes[absent], minlength=size)
        edges = np.concatenate(([0], np.cumsum(n_absent)))
        concordant = np.zeros((size, size))  # (subject of the positives, of the negatives)
        for column in np.flatnonzero(n_absent):
            below = rank[absent[edges[column] : edges[column + 1]]]
            wins = np.searchsorted(below, rank[present], "left") + np.searchsorted(below, rank[present], "right")
            concordant[:, column] = np.bincount(codes[present], weights=wins / 2, minlength=size)
        pairs = np.outer(n_present, n_absent)
        subject, other = np.nonzero(pairs)
        parts.append((subject, other, np.full(len(subject), au), concordant[subject, other], pairs[subject, other]))
    subject, other, numbers, right, count = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pd.DataFrame(
        {"subject": names[subject], "other": names[other], "au": numbers, "concordant": right, "pairs": count}
    )


def auc(pairs: pd.DataFrame, by: str | Sequence[str] = "au", *, within_subjects: bool = False) -> pd.Series:
    """AUC of the groups of `by` from the rows of `concordance`; groups without pairs are absent.

    Over parts this is the mean of the parts' AUCs weighted with n+ n-: scores of different models are never compared.

    Args:
        pairs: rows of `concordance`, with more columns if wanted.
        by: columns to group by.
        within_subjects: compare frames of the same subject only.
    """
    if within_subjects:
        pairs = pairs[pairs["subject"] == pairs["other"]]
    pooled = pairs.groupby(by, sort=False)[["concordant", "pairs"]].sum()
    return (pooled["concordant"] / pooled["pairs"]).rename("auc")


ENOUGH_SUBJECTS, ENOUGH_POSITIVES = 5, 10
"""An AU enters the means with this many test subjects who have this many positive frames each."""


def scored_aus(
    clean_labels: Array,
    subjects: ArrayLike,
    aus: Sequence[int],
    null_aus: Sequence[int] = (),
) -> tuple[int, ...]:
    """The AUs that enter means: with 10 or more positive frames of each of 5 or more test subjects, and no null AU.

    Args:
        clean_labels: (n, K) in {-1, 0, 1}, of the test frames.
        subjects: (n,), one name per frame.
        aus: the K AU numbers.
        null_aus: AU numbers that are labelled and never drawn.

    Returns:
        AU numbers, in the order of `aus`.

    Raises:
        ValueError: there is not one subject per frame.
    """
    codes, names = _subjects(subjects, len(clean_labels))
    positives = np.zeros((len(names), len(aus)), dtype=np.int64)  # (S, K)
    np.add.at(positives, codes, np.asarray(clean_labels) == 1)
    enough = (positives >= ENOUGH_POSITIVES).sum(0) >= ENOUGH_SUBJECTS
    return tuple(au for au, enters in zip(aus, enough, strict=True) if enters and au not in null_aus)


def knn(features_train: Array, labels_train: Array, features_test: Array, k: int = 20, *, chunk: int = 1024) -> Array:
    """Share of positive frames among the k training frames with the highest cosine similarity, AU by AU.

    Training frames whose label is unknown are no neighbours for that AU. An AU with fewer than k known frames uses all
    of them; without any, its score is 0.5.

    Args:
        features_train: (n, K, D).
        labels_train: (n, K) in {-1, 0, 1}.
        features_test: (m, K, D).
        k: number of neighbours.
        chunk: test frames compared at a time.

    Returns:
        (m, K) float32.
    """
    import torch  # here and below: reports, which count alone, would wait seconds for it

    scores = np.full(features_test.shape[:2], 0.5, dtype=np.float32)  # (m, K)
    for au in range(features_test.shape[1]):
        known = np.flatnonzero(labels_train[:, au] >= 0)
        if not len(known):
            continue
        near = _unit(features_train[known, au])  # (n', D)
        present = torch.from_numpy(labels_train[known, au] == 1).float()  # (n')
        for start in range(0, len(features_test), chunk):
            cosine = _unit(features_test[start : start + chunk, au]) @ near.T  # (chunk, n')
            nearest = cosine.topk(min(k, len(known)), dim=1, sorted=False).indices  # (chunk, k)
            scores[start : start + chunk, au] = present[nearest].mean(1).numpy()
    return scores


def subject_accuracy(features: Array, subjects: ArrayLike, sequences: ArrayLike) -> float:
    """How well a linear classifier reads the subject from features: mean recall of the subjects.

    Every other sequence of a subject trains the classifier (ridge, on standardised features), and the others test it:
    no moment is in both. Chance is 1 / subjects.

    Args:
        features: (n, K, D).
        subjects: (n,).
        sequences: (n,), names within a subject.

    Returns:
        0 to 1; NaN with fewer than two subjects, or if one has a single sequence.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import balanced_accuracy_score

    frames = pd.DataFrame({"subject": np.asarray(subjects), "sequence": np.asarray(sequences)})
    turn = frames.groupby("subject")["sequence"].transform(lambda names: pd.factorize(names)[0])
    trains = turn.to_numpy() % 2 == 0  # (n,)
    if frames["subject"].nunique() < 2 or frames.loc[~trains, "subject"].nunique() < frames["subject"].nunique():
        return math.nan
    x = features.reshape(len(features), -1)  # (n, K * D)
    x = (x - x[trains].mean(0)) / np.maximum(x[trains].std(0), 1e-6)
    truth = frames["subject"].to_numpy()
    reader = RidgeClassifier(alpha=len(x)).fit(x[trains], truth[trains])
    return float(balanced_accuracy_score(truth[~trains], reader.predict(x[~trains])))


FLAT_GAIN = 0.005
"""A curve that gains less AUC than this has flattened."""


def has_plateaued(curve: ArrayLike) -> bool:
    """Whether a curve of inner-validation AUC has flattened.

    Rule: the best value in the last third of the checks (rounded up) is less than `FLAT_GAIN` above the best before it.
    Epochs without a check (NaN) are left out. A curve of fewer than 3 checks has not flattened.
    """
    values = np.asarray(curve, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 3:
        return False
    last = -(-len(values) // 3)
    return bool(values[-last:].max() - values[:-last].max() < FLAT_GAIN)


def macro(values: pd.Series, aus: Sequence[int]) -> float:
    """Mean over the AUs of `aus` that have a value; NaN if none has.

    Args:
        values: one score per AU, indexed by AU number; NaN is no value.
        aus: AU numbers; one that is not in the index has no value.
    """
    return float(values.reindex(list(aus)).mean())


def unscored_unknown(labels: Array, scores: Array) -> tuple[Array, Array]:
    """Make the labels of an AU without any score unknown, so that it enters no count.

    Args:
        labels: (n, K) in {-1, 0, 1}.
        scores: (n, K); an AU that a probe could not be fitted for is NaN throughout.

    Returns:
        Labels with -1 and scores with 0 for such AUs. Scores of no AU at all stay NaN, which `concordance` refuses.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    without = np.isnan(scores).all(0)  # (K)
    if without.all():
        return labels, scores
    return np.where(without, -1, labels), np.where(without, 0, scores)


Scores = Mapping[str, Mapping[str, tuple[Array, Array]]]
"""Epoch rule -> head -> probabilities (validation (m, K), test (n, K))."""


def score_tables(
    scores: Scores,
    validation_labels: Array,
    test_labels: Mapping[str, Array],
    subjects: ArrayLike,
    aus: Sequence[int],
    groups: ArrayLike | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of a run: counts at three thresholds, and concordant pairs.

    The thresholds are 0.5; *tuned*, with the highest F1 on the inner validation; and *oracle*, with the highest F1 on
    the very test labels that are counted.

    Args:
        scores: epoch rule -> head -> (validation (m, K), test (n, K)), probabilities, as `probe.Monitor.scores`.
        validation_labels: (m, K), the noisy labels of the inner validation.
        test_labels: "clean" or "noisy" -> (n, K).
        subjects: (n,), of the test frames.
        aus: the K AU numbers.
        groups: (n,), such as populations, for small tables of many subjects: counts are summed over each, and AUs
            without a known label have none. Pairs are summed over all, those within subjects (subject and other are
            "all") apart from the rest (other is "others").

    Returns:
        counts with columns head, epoch_rule, threshold, labels, subject, au, tp, fp, fn, tn; and pairs with columns
        head, epoch_rule, labels, subject, other, au, concordant, pairs.
    """
    counts, pairs = [], []
    for rule, heads in scores.items():
        for head, (validation, test) in heads.items():
            tuned = thresholds(*unscored_unknown(validation_labels, validation))  # (K)
            for kind, whole in test_labels.items():
                labels, predicted = unscored_unknown(whole, test)
                place = {"head": head, "epoch_rule": rule, "labels": kind}
                ordered = concordance(labels, predicted, subjects, aus)
                pairs.append((ordered if groups is None else _summed(ordered)).assign(**place))
                cuts = {"0.5": np.full(len(aus), 0.5), "tuned": tuned, "oracle": thresholds(labels, predicted)}
                for name, cut in cuts.items():
                    rows = occurrence_counts(labels, predicted >= cut, subjects if groups is None else groups, aus)
                    if groups is not None:
                        rows = rows[rows[["tp", "fp", "fn", "tn"]].any(axis=1)]
                    counts.append(rows.assign(**place, threshold=name))
    first = ["head", "epoch_rule", "threshold", "labels", "subject", "au", "tp", "fp", "fn", "tn"]
    second = ["head", "epoch_rule", "labels", "subject", "other", "au", "concordant", "pairs"]
    return pd.concat(counts, ignore_index=True)[first], pd.concat(pairs, ignore_index=True)[second]


def _summed(pairs: pd.DataFrame) -> pd.DataFrame:
    """Rows of `concordance` for two subjects, "all" and "others"; `auc` is the same of both."""
    other = np.where(pairs["subject"] == pairs["other"], "all", "others")
    named = pairs.assign(subject="all", other=other)
    return named.groupby(["subject", "other", "au"], sort=False)[["concordant", "pairs"]].sum().reset_index()


def _subjects(subjects: ArrayLike, count: int) -> tuple[Array, Array]:
    """Codes (n,) and sorted names (S,)."""
    codes, names = pd.factorize(np.asarray(subjects), sort=True)
    _fit("subjects", codes, (count,))
    return codes, np.asarray(names)


def _fit(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def _unit(features: Array) -> "torch.Tensor":
    """Rows of length 1 (n, D); a zero row stays zero and is similar to nothing."""
    import torch

    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)), dim=1)
