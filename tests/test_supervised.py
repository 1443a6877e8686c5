"""Supervised losses against their formulas, entry by entry, and what they do with unknown labels."""

import numpy as np
import pytest
import torch

from aunce.errors import UsageError
from aunce.study.spec import SUPERVISED
from aunce.supervised import LOSSES, supervised_loss


def test_the_names_that_a_run_may_have_are_the_registered_losses():
    assert tuple(LOSSES) == SUPERVISED


def by_hand(name, x, y, train):
    """The mean over known entries of one formula per entry, in float64."""
    present, absent = (train == 1).sum(0), (train == 0).sum(0)
    rate = present / (present + absent)
    weights = (1 / rate) / (1 / rate).mean()
    values = []
    for m, k in zip(*np.nonzero(y >= 0), strict=True):
        p, t = 1 / (1 + np.exp(-x[m, k])), y[m, k]
        bce = -t * np.log(p) - (1 - t) * np.log(1 - p)
        q = max(p - 0.05, 0)
        formulas = {
            "bce": bce,
            "bce_pos_weight": bce * (min(absent[k] / present[k], 20) if t else 1),
            "bce_au_weight": bce * weights[k],
            "focal": bce * ((1 - p) if t else p) ** 2,
            "asymmetric": -(1 - p) * np.log(p) if t else -(q**4) * np.log(1 - q),
            "label_smoothing": -(0.9 * t + 0.05) * np.log(p) - (0.95 - 0.9 * t) * np.log(1 - p),
        }  # fmt: skip
        assert name in formulas, f"a new loss needs its formula in by_hand: {name}"
        values.append(formulas[name])
    return np.mean(values)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    train = rng.choice([-1, 0, 1], p=[0.1, 0.5, 0.4], size=(400, 3)).astype(np.int8)
    train[:, 1] = np.where(np.arange(400) < 4, 1, np.where(np.arange(400) < 390, 0, -1))  # rare: beyond the cap
    return rng.normal(size=(30, 3)) * 3, rng.choice([-1, 0, 1], size=(30, 3)).astype(np.int8), train


@pytest.mark.parametrize("name", SUPERVISED)
def test_supervised_losses_equal_their_formulas_and_mask_unknown_labels(name, batch):
    x, y, train = batch
    logits = torch.from_numpy(x).float().requires_grad_()
    value = supervised_loss(name, train)(logits, torch.from_numpy(y))
    assert value.item() == pytest.approx(by_hand(name, x, y, train), rel=1e-5)
    value.backward()
    assert (logits.grad[torch.from_numpy(y) < 0] == 0).all()
    assert (logits.grad != 0).any()


@pytest.mark.parametrize("name", SUPERVISED)
def test_supervised_losses_stay_finite_for_extreme_logits_in_half_precision_and_without_known_labels(name, batch):
    _, y, train = batch
    loss = supervised_loss(name, train)
    for scale, dtype in ((1e4, torch.float32), (6e4, torch.float16), (1e4, torch.bfloat16)):
        logits = torch.from_numpy(np.sign(batch[0]) * scale).to(dtype).requires_grad_()
        value = loss(logits, torch.from_numpy(y))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()
    logits = torch.zeros(4, 3, requires_grad=True)
    value = loss(logits, torch.full((4, 3), -1, dtype=torch.int8))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", SUPERVISED)
def test_an_au_without_positive_training_frames_gives_finite_weights(name):
    train = np.array([[0, 1], [0, 0], [0, -1]], dtype=np.int8)
    value = supervised_loss(name, train)(torch.ones(3, 2), torch.from_numpy(train))
    assert torch.isfinite(value)


def test_an_unknown_supervised_loss_lists_the_known_ones(batch):
    with pytest.raises(UsageError, match=r"'bcee' is unknown; expected one of bce, bce_pos_weight"):
        supervised_loss("bcee", batch[2])
