"""SupCon and InfoNCE against loops, pytorch-metric-learning and closed forms; the measure of own views."""

import math
from collections.abc import Callable

import numpy as np
import oracle
import pytest
import pytorch_metric_learning.losses as pml
import torch
import torch.nn.functional as F
from batches import LABELS, random_z
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor

from aunce import inputs
from aunce.errors import UsageError
from aunce.losses import InfoNCELoss, SupConLoss, infonce, own_view_share, supcon


@pytest.fixture(autouse=True, params=[0, 256], ids=["large", "small"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it by the way that a large batch takes, and by the formula."""
    monkeypatch.setattr(inputs, "LARGE", request.param)


@pytest.mark.parametrize("temperature", [0.5, 0.1])
def test_supcon_and_infonce_equal_their_loops_with_unknown_labels(temperature: float) -> None:
    z = random_z(*LABELS.shape)
    got = supcon(z, LABELS, temperature)
    assert got.item() == pytest.approx(oracle.supcon(z.numpy(), LABELS.numpy(), temperature), abs=1e-9)
    assert infonce(z, temperature).item() == pytest.approx(oracle.infonce(z.numpy(), temperature), abs=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_infonce_agrees_with_pytorch_metric_learning_ntxent(temperature: float) -> None:
    z = random_z(6, 3)
    loss = pml.NTXentLoss(temperature=temperature)
    per_au = [loss(z[:, :, k].reshape(12, -1), torch.arange(6).repeat(2)) for k in range(3)]
    torch.testing.assert_close(infonce(z, temperature), torch.stack(per_au).mean(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_supcon_agrees_with_pytorch_metric_learning_on_known_images_incl_single_label_aus(temperature: float) -> None:
    z = random_z(*LABELS.shape)
    loss = pml.SupConLoss(temperature=temperature, reducer=MeanReducer())
    per_au = []
    for k in range(LABELS.shape[1]):
        keep = LABELS[:, k] >= 0
        rows = z[:, keep, k].reshape(-1, z.shape[-1])
        per_au.append(loss(rows, LABELS[keep, k].repeat(2)) if len(rows) else torch.zeros((), dtype=z.dtype))
    torch.testing.assert_close(supcon(z, LABELS, temperature), torch.stack(per_au).mean(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("images", [1, 2, 8])
def test_infonce_and_supcon_at_equal_embeddings_are_log_of_all_other_rows(images: int) -> None:
    z = torch.ones(2, images, 2, 3, dtype=torch.float64)
    assert infonce(z, 0.1).item() == pytest.approx(math.log(2 * images - 1), abs=1e-12)
    if images > 1:
        labels = torch.tensor([[1, 0]] + [[0, 1]] * (images - 1))
        assert supcon(z, labels, 0.1).item() == pytest.approx(math.log(2 * images - 1), abs=1e-12)


def test_gradcheck_of_supcon_and_infonce() -> None:
    z = random_z(4, 6, channels=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: supcon(z, LABELS, 0.5), (z,))
    assert torch.autograd.gradcheck(lambda z: infonce(z, 0.5), (z,))


def test_supcon_and_infonce_refuse_a_temperature_that_is_not_positive() -> None:
    with pytest.raises(UsageError, match=r"temperature: expected a positive number, got -1"):
        supcon(random_z(4, 6), LABELS, -1)
    with pytest.raises(UsageError, match=r"temperature: expected a positive number, got 0"):
        infonce(random_z(4, 6), 0)
    with pytest.raises(UsageError, match=r"temperature: expected a positive number, got True"):
        SupConLoss(True)
    with pytest.raises(UsageError, match=r"reduction: expected one of 'mean', 'none', got 'sum'"):
        InfoNCELoss(0.1, reduction="sum")
    with pytest.raises(UsageError, match=r"z: expected a float tensor \(V=2, B, K, D\).* got .*\(1, 4, 6, 5\)"):
        infonce(random_z(4, 6)[:1], 0.1)


def test_share_of_own_views_equals_a_loop_over_anchors_and_known_rows() -> None:
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(2, 6, 3, 4, generator=draws)
    z[1] = z[0] + 0.8 * z[1]
    labels = torch.randint(-1, 2, (6, 3), generator=draws)
    own = []
    for k in range(3):
        rows = [(v, i) for v in range(2) for i in range(6) if labels[i, k] >= 0]
        for v, i in rows:
            same = [row for row in rows if row != (v, i) and labels[row[1], k] == labels[i, k]]
            nearest = max(same, key=lambda row: F.cosine_similarity(z[row[0], row[1], k], z[v, i, k], dim=0).item())
            own.append(nearest == (1 - v, i))
    assert 0 < np.mean(own) < 1
    assert own_view_share(z, labels) == pytest.approx(np.mean(own))


CALLS: dict[str, Callable[..., Tensor]] = {
    "supcon": lambda z, **options: supcon(z, LABELS, 0.5, **options),
    "infonce": lambda z, **options: infonce(z, 0.5, **options),
}


@pytest.mark.parametrize("name", CALLS)
def test_chunks_and_reductions_have_the_value_and_gradient_of_the_whole(name: str) -> None:
    z = random_z(*LABELS.shape).requires_grad_()
    for anchors in (None, slice(1, 3), slice(2, 2)):
        whole = CALLS[name](z, anchors=anchors)
        [expected] = torch.autograd.grad(whole, z)
        for chunk_size in (None, 1, 3, 100):
            loss = CALLS[name](z, anchors=anchors, chunk_size=chunk_size)
            [found] = torch.autograd.grad(loss, z)
            torch.testing.assert_close((loss, found), (whole, expected), rtol=0, atol=1e-14)
            each = CALLS[name](z, anchors=anchors, chunk_size=chunk_size, reduction="none")  # (K, A)
            counts = 2 * (LABELS >= 0).sum(0).clamp(min=1) if name == "supcon" else 2 * len(LABELS)
            assert each.shape == (LABELS.shape[1], 2 * len(range(len(LABELS))[anchors or slice(None)]))
            torch.testing.assert_close((each.sum(1) / counts).mean(), whole, rtol=0, atol=1e-14)


def test_modules_are_the_functions_with_their_options_fixed() -> None:
    z, options = random_z(*LABELS.shape), {"reduction": "none", "chunk_size": 3}
    assert torch.equal(SupConLoss(0.1)(z, LABELS), supcon(z, LABELS, 0.1))
    assert torch.equal(InfoNCELoss(0.1)(z), infonce(z, 0.1))
    assert torch.equal(SupConLoss(0.1, **options)(z, LABELS), supcon(z, LABELS, 0.1, **options))
    assert torch.equal(
        InfoNCELoss(0.1, **options)(z, anchors=slice(1, 2)), infonce(z, 0.1, anchors=slice(1, 2), **options)
    )
    assert repr(SupConLoss(0.1)) == "SupConLoss(temperature=0.1, reduction='mean', chunk_size=None)"


@pytest.mark.parametrize("name", CALLS)
def test_the_gradient_lies_in_memory_as_the_embeddings_do(name: str) -> None:
    z = random_z(*LABELS.shape).requires_grad_()
    for options in ({}, {"chunk_size": 3}):
        [gradient] = torch.autograd.grad(CALLS[name](2 * z, **options), z)
        assert gradient.is_contiguous()


def test_supcon_of_a_single_view_is_that_of_pytorch_metric_learning() -> None:
    z = random_z(*LABELS.shape)[:1].requires_grad_()
    loss = pml.SupConLoss(temperature=0.5, reducer=MeanReducer())
    per_au = []
    for k in range(LABELS.shape[1]):
        keep = LABELS[:, k] >= 0
        known = LABELS[keep, k]
        both = len(known.unique()) == 2  # else pytorch-metric-learning has no negatives either: 0
        per_au.append(loss(z[0, keep, k], known) if both else z.sum() * 0)
    found = supcon(z, LABELS, 0.5)
    torch.testing.assert_close(found, torch.stack(per_au).mean(), rtol=0, atol=1e-9)
    assert found > 0


def test_second_derivatives_exist() -> None:
    z = random_z(*LABELS.shape, channels=2)
    for name, call in CALLS.items():
        assert torch.autograd.functional.hessian(call, z).abs().max() > 1e-3, name
