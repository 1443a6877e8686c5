"""The AUNCE loss, SupCon and InfoNCE as loops over AU, anchor and candidate, in Python floats, not in log space.

Written from the formulas alone. It shares no line with `aunce.losses`: unknown images are skipped in the loop, divisors
are counted while summing, and N and P are plain sums of exponentials.
"""

import math
from collections.abc import Sequence

import numpy as np


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def unit(a: Sequence[float]) -> list[float]:
    length = math.sqrt(dot(a, a))
    return [p / length for p in a] if length > 0 else list(a)


def anchor_loss(
    z: np.ndarray,
    labels: np.ndarray,
    k: int,
    view: int,
    image: int,
    branch: int,
    *,
    temperature: float,
    exponents: np.ndarray,
    exclude: str,
    positive_mean: str,
    normalize_weights: bool,
    weights_from: np.ndarray,
) -> float:
    """Loss of one anchor in one AU with one branch (0 max, 1 mean, 2 view); 0 where a term does not exist.

    `weights_from` are the embeddings that the weights of the negatives are computed from: those of z, or, to find the
    gradient with detached weights by finite differences, embeddings that stay where they are.
    """
    if labels[image, k] == -1:
        return 0.0
    anchor, weight_anchor = unit(z[view, image, k]), unit(weights_from[view, image, k])
    e = exponents[k, labels[image, k]]
    known, positives, weights, tilted = 0, [], [], []
    for v in range(2):
        for i in range(labels.shape[0]):
            if labels[i, k] == -1:
                continue
            known += 1
            s = math.exp(dot(anchor, unit(z[v, i, k])) / temperature)
            if labels[i, k] != labels[image, k]:
                w = math.exp((e - 1) * dot(weight_anchor, unit(weights_from[v, i, k])) / temperature)
                weights.append(w)
                tilted.append(w * s)
            elif not (i == image and (exclude == "image" or (exclude == "self" and v == view))):
                positives.append(s)
    if not tilted:
        return 0.0
    n = sum(tilted)
    if normalize_weights:
        n = n / (sum(weights) / len(weights))
    if branch == 2:
        p = math.exp(dot(anchor, unit(z[1 - view, image, k])) / temperature)
    elif not positives:
        return 0.0
    elif branch == 0:
        p = max(positives)
    else:
        p = sum(positives) / (known if positive_mean == "row" else len(positives))
    return -math.log(p / (p + n)) if n > 1e-3 * p else math.log1p(n / p)


def aunce(
    z: np.ndarray,
    labels: np.ndarray,
    *,
    shares: np.ndarray,
    temperature: float = 0.5,
    exponents: Sequence[float] | np.ndarray = (0.8, 1.2),
    exclude: str = "none",
    positive_mean: str = "row",
    normalize_weights: bool = False,
    weights_from: np.ndarray | None = None,
    au_weights: Sequence[float] | None = None,
) -> np.ndarray:
    """The losses (K, 2B) of z (2, B, K, D), labels (B, K); `shares` (K, 3) of each branch in the loss of each AU."""
    _, images, aus, _ = z.shape
    exponents = np.broadcast_to(np.asarray(exponents, dtype=np.float64), (aus, 2))
    table = np.zeros((aus, 2 * images))
    for k in range(aus):
        for view in range(2):
            for image in range(images):
                for branch in range(3):
                    if shares[k, branch]:
                        table[k, view * images + image] += shares[k, branch] * anchor_loss(
                            z, labels, k, view, image, branch,
                            temperature=temperature, exponents=exponents, exclude=exclude,
                            positive_mean=positive_mean, normalize_weights=normalize_weights,
                            weights_from=z if weights_from is None else weights_from,
                        )  # fmt: skip
        if au_weights is not None:
            table[k] *= au_weights[k]
    return table


def mean(table: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the known anchors of each AU, then over AUs, of losses (K, 2B)."""
    counts = [2 * sum(label != -1 for label in column) for column in labels.T]
    return sum(sum(row) / max(count, 1) for row, count in zip(table, counts, strict=True)) / len(table)


def supcon(z: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """SupCon with the mean of logs per AU; an AU with a single label counts with 0."""
    _, images, aus, _ = z.shape
    au_losses = []
    for k in range(aus):
        known = [(v, i) for v in range(2) for i in range(images) if labels[i, k] != -1]
        total = 0.0
        if len({int(labels[i, k]) for _, i in known}) == 2:
            for a in known:
                s = {j: math.exp(dot(unit(z[a][k]), unit(z[j][k])) / temperature) for j in known if j != a}
                logs = [-math.log(s[j] / sum(s.values())) for j in s if labels[j[1], k] == labels[a[1], k]]
                total += sum(logs) / len(logs)
        au_losses.append(total / max(len(known), 1))
    return float(sum(au_losses) / aus)


def infonce(z: np.ndarray, temperature: float) -> float:
    """InfoNCE per AU: the own other view against all rows but the anchor."""
    _, images, aus, _ = z.shape
    rows = [(v, i) for v in range(2) for i in range(images)]
    total = 0.0
    for k in range(aus):
        for a in rows:
            s = {j: math.exp(dot(unit(z[a][k]), unit(z[j][k])) / temperature) for j in rows if j != a}
            total += -math.log(s[1 - a[0], a[1]] / sum(s.values()))
    return float(total / (aus * len(rows)))
