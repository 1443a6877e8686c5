"""Batches: counts by hand and by drawing, and the code 9 against loops."""

import math

import numpy as np
import oracle
import pytest
import torch

from aunce.analyses import batches
from aunce.analyses.anatomy import embeddings


def test_positives_in_a_batch_by_hand_and_by_drawing():
    table = batches.positives().set_index(["prevalence", "images"])
    assert table.loc[(0.05, 32), ["expected", "none", "one"]].tolist() == pytest.approx(
        [1.6, 0.95**32, 32 * 0.05 * 0.95**31]
    )
    drawn = (np.random.default_rng(0).random((20_000, 32)) < 0.05).sum(1)
    assert (drawn == 0).mean() == pytest.approx(table.loc[(0.05, 32), "none"], abs=0.01)


def test_noise_falls_and_the_loss_rises_with_the_batch():
    table = batches.batch_noise()
    for _, rows in table.groupby("prevalence"):
        assert rows["noise"].is_monotonic_decreasing
        assert rows["loss"].is_monotonic_increasing


def test_the_published_rule_by_loops():
    labels = torch.tensor([1, 1, 0, 9, 0, 9])[:, None]
    z = embeddings(labels.clamp(max=1), view=0.8, same=0.5, other=0.2, channels=8)
    found = batches.published_rule(z, labels, positive="mean")
    x, y = z.flatten(0, 2).tolist(), labels[:, 0].tolist() * 2
    for i in range(12):
        s = [math.exp(oracle.dot(x[i], other) / 0.5) for other in x]
        e = {1: 1.2, 0: 0.8}.get(y[i])
        n = sum(value**e for value, label in zip(s, y, strict=True) if label != y[i]) if e else 0.0
        p = sum(value for value, label in zip(s, y, strict=True) if label == y[i]) / 12
        assert found[i].item() == pytest.approx(-math.log(p / (p + n)))


def test_code_9_repels_and_unknown_does_not():
    table = batches.unknowns().set_index("way")
    assert table["false"].tolist() == [224, 0, 0]
    # 8 rows coded 9, 2 truly present images: 28 known images x 2 anchors, of which 4 present and 24 absent images
    nine = table.loc["9 is a class (released)"]
    assert nine["repelled"] == 2 * (8 * 48) + 56 * 8
    assert nine["false"] == 8 * 4 + 48 * 4
    assert nine["on_9"] == 0
    assert table.loc["unknown (here)", "from_9"] == 0
