"""The AUNCE loss against loops, closed forms, the released formula and finite differences; its module and presets."""

import copy
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from batches import DEVICES, LABELS, POSITIVES, random_z, value_and_grad
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss
from reference import published
from scipy.stats import chisquare
from torch import Tensor, nn

from aunce.errors import UsageError
from aunce.losses import AUNCELoss, aunce_loss, infonce, supcon

IMPLEMENTATIONS = ["auto", "reference"]


def shares_of(positive: str, aus: int, probs: tuple[float, ...] = (0.2, 0.6, 0.2)) -> np.ndarray:
    row = probs if positive == "expected" else [float(positive == name) for name in ("max", "mean", "view")]
    return np.tile(np.array(row, dtype=np.float64), (aus, 1))


def anchor_gradient(anchor: int, z: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """Gradient of the loss of one anchor of a single AU with respect to that anchor, in the (D,) of its unit vector."""
    z = F.normalize(z, dim=-1).requires_grad_()
    loss = aunce_loss(z, labels, reduction="none", **options)[0, anchor]
    (grad,) = torch.autograd.grad(loss, z)
    return grad.reshape(-1, z.shape[-1])[anchor]


# 1. The loops


@pytest.mark.parametrize("normalize_weights", [False, True])
@pytest.mark.parametrize("positive_mean", ["row", "positives"])
@pytest.mark.parametrize("exclude", ["none", "self", "image"])
def test_loss_equals_triple_loop_for_every_switch(exclude: str, positive_mean: str, normalize_weights: bool) -> None:
    z = random_z(*LABELS.shape)
    switches: dict[str, Any] = {
        "exclude": exclude, "positive_mean": positive_mean, "normalize_weights": normalize_weights,
    }  # fmt: skip
    for positive in POSITIVES:
        table = oracle.aunce(z.numpy(), LABELS.numpy(), shares=shares_of(positive, LABELS.shape[1]), **switches)
        for detach, how in itertools.product((False, True), IMPLEMENTATIONS):
            loss = partial(aunce_loss, positive=positive, detach_weights=detach, implementation=how, **switches)
            found = loss(z, LABELS, reduction="none").numpy()
            np.testing.assert_allclose(found, table, rtol=0, atol=1e-9)
            expected = oracle.mean(table, LABELS.numpy())
            assert loss(z, LABELS).item() == pytest.approx(expected, rel=0, abs=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_loss_equals_triple_loop_for_any_shape_labels_and_numbers(data: st.DataObject) -> None:
    images, aus, channels = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    column = st.lists(st.sampled_from([-1, 0, 1]), min_size=aus, max_size=aus)
    labels = torch.tensor(data.draw(st.lists(column, min_size=images, max_size=images)))
    z = random_z(images, aus, channels, seed=data.draw(st.integers(0, 99)))
    exponent = st.floats(0, 2)
    exponents = torch.tensor([[data.draw(exponent), data.draw(exponent)] for _ in range(aus)], dtype=torch.float64)
    branch = data.draw(st.lists(st.integers(0, 2), min_size=aus, max_size=aus))
    switches: dict[str, Any] = {
        "temperature": data.draw(st.floats(0.05, 2)),
        "exclude": data.draw(st.sampled_from(["none", "self", "image"])),
        "positive_mean": data.draw(st.sampled_from(["row", "positives"])),
        "normalize_weights": data.draw(st.booleans()),
        "au_weights": data.draw(st.none() | st.lists(st.floats(0, 3), min_size=aus, max_size=aus)),
    }
    shares = np.eye(3)[branch]
    table = oracle.aunce(z.numpy(), labels.numpy(), shares=shares, exponents=exponents.numpy(), **switches)
    for how in IMPLEMENTATIONS:
        loss = partial(aunce_loss, branch=branch, exponents=exponents, implementation=how, **switches)
        np.testing.assert_allclose(loss(z, labels, reduction="none").numpy(), table, rtol=1e-11, atol=1e-9)
        np.testing.assert_allclose(loss(z, labels).item(), oracle.mean(table, labels.numpy()), rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("exclude", ["none", "self", "image"])
@pytest.mark.parametrize("positive_mean", ["row", "positives"])
@pytest.mark.parametrize("positive", POSITIVES)
def test_unknown_images_neither_count_nor_enter_a_divisor(positive: str, positive_mean: str, exclude: str) -> None:
    options = {"positive": positive, "positive_mean": positive_mean, "exclude": exclude, "normalize_weights": True}
    z = random_z(6, 1)
    labels = torch.tensor([[1], [-1], [0], [1], [-1], [0]])
    keep = labels[:, 0] >= 0
    loss, grad = value_and_grad(z, labels, **options)
    known_loss, known_grad = value_and_grad(z[:, keep], labels[keep], **options)
    torch.testing.assert_close(loss, known_loss, rtol=0, atol=1e-14)
    torch.testing.assert_close(grad[:, keep], known_grad, rtol=0, atol=1e-14)
    assert (grad[:, ~keep] == 0).all()
    torch.testing.assert_close(supcon(z, labels, 0.5), supcon(z[:, keep], labels[keep], 0.5), rtol=0, atol=1e-14)


def test_nan_of_an_unknown_image_reaches_neither_loss_nor_gradient_of_the_others() -> None:
    z, labels = random_z(3, 1), torch.tensor([[1], [-1], [0]])
    z[:, 1] = torch.nan
    loss, grad = value_and_grad(z, labels, positive="mean")
    assert loss.isfinite()
    assert grad[:, [0, 2]].isfinite().all()


# 3. Identities


@pytest.mark.parametrize("e", [1.0, 1.2, 0.4])
def test_view_branch_is_cross_entropy_with_negatives_at_temperature_over_e(e: float) -> None:
    tau, images = 0.3, 5
    z, labels = random_z(images, 1), torch.tensor([1, 0, 0, 1, 0])
    x, y = F.normalize(z[:, :, 0].reshape(2 * images, -1), dim=-1), labels.repeat(2)
    cosine = x @ x.T
    own_view = cosine.roll(images, 1).diagonal()[:, None] / tau
    negatives = (cosine / (tau / e)).masked_fill(y[:, None] == y, -torch.inf)
    expected = F.cross_entropy(torch.cat([own_view, negatives], 1), torch.zeros(2 * images, dtype=torch.long))
    got = aunce_loss(z, labels[:, None], temperature=tau, exponents=(e, e), positive="view")
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("b", [0.2, -0.2, -0.6])
def test_raw_negatives_are_hcl_negatives_times_mean_weight(b: float) -> None:
    tau, images = 0.5, 6
    z, labels = random_z(images, 1), torch.tensor([[1], [0], [0], [1], [0], [0]])
    options: dict[str, Any] = {"exponents": (1 + b, 1 + b), "positive": "view", "reduction": "none"}
    # with one and the same P, N is proportional to exp(loss) - 1
    raw = aunce_loss(z, labels, **options).expm1()
    hcl = aunce_loss(z, labels, normalize_weights=True, **options).expm1()
    x, y = F.normalize(z[:, :, 0].reshape(2 * images, -1), dim=-1), labels[:, 0].repeat(2)
    mean_weight = [(b * x[i] @ x[y != y[i]].T / tau).exp().mean() for i in range(2 * images)]
    torch.testing.assert_close(raw, hcl * torch.stack(mean_weight), rtol=1e-12, atol=0)


def test_view_branch_agrees_with_ntxent_on_au_labels_where_the_own_view_is_the_only_positive() -> None:
    z, labels = random_z(2, 1), torch.tensor([[1], [0]])
    expected = NTXentLoss(temperature=0.5)(z[:, :, 0].reshape(4, -1), labels[:, 0].repeat(2))
    got = aunce_loss(z, labels, exponents=(1, 1), positive="view")
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


# 4. Closed forms


@pytest.mark.parametrize("normalize_weights", [False, True])
@pytest.mark.parametrize("positive_mean", ["row", "positives"])
@pytest.mark.parametrize("positive", ["max", "mean", "view"])
def test_equal_embeddings_give_the_documented_value(positive: str, positive_mean: str, normalize_weights: bool) -> None:
    tau, present, absent = 0.5, 3, 7
    labels = torch.tensor([[1]] * present + [[0]] * absent)
    z = torch.ones(2, 10, 1, 4, dtype=torch.float64)
    got = aunce_loss(
        z, labels, temperature=tau, positive=positive, positive_mean=positive_mean,
        normalize_weights=normalize_weights, reduction="none",
    )[0]  # fmt: skip
    for label, own, other, e in ((1, present, absent, 1.2), (0, absent, present, 0.8)):
        p = own / 10 if (positive, positive_mean) == ("mean", "row") else 1.0
        weight = 1.0 if normalize_weights else math.exp((e - 1) / tau)
        expected = math.log(1 + 2 * other * weight / p)
        torch.testing.assert_close(got[labels[:, 0].repeat(2) == label], torch.full((2 * own,), expected).double())


def floor_of_mean_branch(rows: int, rate: float, negative_cosine: float) -> float:
    """Best loss of a present anchor at tau .5: its label in one point, the negatives at one cosine from it."""
    return math.log(1 + rows * (1 - rate) * math.exp(1.2 * negative_cosine / 0.5) / (rate * math.exp(1 / 0.5)))


def test_floor_formula_gives_the_published_numbers() -> None:
    floors = [floor_of_mean_branch(64, rate, 0) for rate in (0.05, 0.2, 0.5, 0.8)]
    assert [round(floor, 2) for floor in floors] == [5.11, 3.57, 2.27, 1.15]
    assert round(floor_of_mean_branch(64, 0.2, -1), 2) == 1.42


@pytest.mark.parametrize("negative", [0.0, -1.0])
@pytest.mark.parametrize("present", [1, 6, 16, 26])
def test_released_mean_branch_reaches_its_floor_with_orthogonal_and_antipodal_labels(
    present: int, negative: float
) -> None:
    z = torch.zeros(2, 32, 1, 2, dtype=torch.float64)
    z[:, :present, 0] = torch.tensor([1.0, 0.0], dtype=torch.float64)
    z[:, present:, 0] = torch.tensor([negative, 1.0 + negative], dtype=torch.float64)
    labels = (torch.arange(32) < present).long()[:, None]
    got = aunce_loss(z, labels, positive="mean", reduction="none")[0, 0]
    assert got.item() == pytest.approx(floor_of_mean_branch(64, present / 32, negative), abs=1e-12)


# 5. Gradients


@pytest.mark.parametrize("normalize_weights", [False, True])
@pytest.mark.parametrize("exclude", ["none", "self", "image"])
def test_gradcheck_with_one_label_and_unknown_columns(exclude: str, normalize_weights: bool) -> None:
    z = random_z(4, 6, channels=2).requires_grad_()  # all branches at once: their losses are added up

    def loss(z: Tensor) -> Tensor:
        return aunce_loss(
            z,
            LABELS,
            positive="expected",
            exclude=exclude,
            normalize_weights=normalize_weights,
            positive_mean="positives",
        )

    assert torch.autograd.gradcheck(loss, (z,))


@pytest.mark.parametrize("normalize_weights", [False, True])
def test_detached_weights_have_the_gradient_of_the_loop_with_its_weights_held_still(normalize_weights: bool) -> None:
    labels, step = LABELS[:, [0, 3]], 1e-5
    z = random_z(4, 2, channels=2)
    options: dict[str, Any] = {"exponents": (0.4, 1.7), "normalize_weights": normalize_weights}
    _, grad = value_and_grad(z, labels, positive="mean", detach_weights=True, **options)
    expected = np.zeros(z.shape)
    for index in itertools.product(*map(range, z.shape)):
        sides = []
        for sign in (1, -1):
            moved = z.numpy().copy()
            moved[index] += sign * step
            shares = shares_of("mean", labels.shape[1])
            table = oracle.aunce(moved, labels.numpy(), shares=shares, weights_from=z.numpy(), **options)
            sides.append(oracle.mean(table, labels.numpy()))
        expected[index] = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(grad.numpy(), expected, rtol=0, atol=1e-9)
    _, attached = value_and_grad(z, labels, positive="mean", **options)
    assert (grad - attached).abs().max() > 1e-3


@pytest.mark.parametrize("positive", ["max", "mean", "view"])
@pytest.mark.parametrize("exclude", ["none", "self", "image"])
@pytest.mark.parametrize("anchor", [0, 6])  # a present and an absent one
def test_anchor_gradient_is_r_over_tau_times_repulsion_minus_attraction(
    anchor: int, exclude: str, positive: str
) -> None:
    tau, images = 0.5, 5
    z, labels = random_z(images, 1), torch.tensor([[1], [0], [0], [1], [1]])
    got = anchor_gradient(anchor, z, labels, temperature=tau, positive=positive, exclude=exclude)
    x, y = F.normalize(z[:, :, 0].reshape(2 * images, -1), dim=-1), labels[:, 0].repeat(2)
    row = torch.arange(2 * images)
    logits, e = x @ x[anchor] / tau, (0.8, 1.2)[int(y[anchor])]
    q = (e * logits).masked_fill(y == y[anchor], -torch.inf)
    own = {"none": row < 0, "self": row == anchor, "image": row % images == anchor % images}[exclude]
    at_positives = logits.masked_fill((y != y[anchor]) | own, -torch.inf)
    if positive == "mean":
        rho, log_p = at_positives.softmax(0), at_positives.logsumexp(0) - math.log(2 * images)
    else:
        j = at_positives.argmax() if positive == "max" else torch.tensor((anchor + images) % (2 * images))
        rho, log_p = F.one_hot(j, 2 * images).double(), logits[j]
    r = torch.sigmoid(q.logsumexp(0) - log_p)
    force = r / tau * (e * q.softmax(0) @ x - rho @ x)
    force = force - (force @ x[anchor]) * x[anchor]  # the anchor moves on the sphere only
    torch.testing.assert_close(got, force, rtol=0, atol=1e-12)


def coefficients(anchor: int, z: Tensor, labels: Tensor, **options: Any) -> list[float]:
    """What the gradient of an anchor puts on its negatives and on its positives, in units of r / tau."""
    tau, n = 0.5, 2 * labels.shape[0]
    grad = anchor_gradient(anchor, z, labels, temperature=tau, **options)
    x, y = F.normalize(z[:, :, 0].reshape(n, -1), dim=-1), labels[:, 0].repeat(2)
    loss = aunce_loss(z, labels, temperature=tau, reduction="none", **options)[0, anchor]
    r = float(-torch.expm1(-loss))
    # independent rows: the coefficients are unique, and the projection touches that of the anchor only
    on_rows = torch.linalg.lstsq(x.T, grad[:, None]).solution[:, 0] * tau / r
    own = torch.arange(n) == anchor
    return [float(on_rows[y != y[anchor]].sum()), float(on_rows[(y == y[anchor]) & ~own].sum())]


@pytest.mark.parametrize("positive", ["max", "mean", "view"])
@pytest.mark.parametrize(("anchor", "e"), [(0, 1.2), (1, 0.8)])
def test_repulsion_is_1_plus_b_raw_and_balances_attraction_once_normalised(
    anchor: int, e: float, positive: str
) -> None:
    z, labels = random_z(5, 1, channels=16), torch.tensor([[1], [0], [0], [1], [1]])
    options: dict[str, Any] = {"positive": positive, "exclude": "image", "positive_mean": "positives"}
    assert coefficients(anchor, z, labels, **options) == pytest.approx([e, -1], abs=1e-9)
    assert coefficients(anchor, z, labels, normalize_weights=True, **options) == pytest.approx([1, -1], abs=1e-9)


@pytest.mark.parametrize(("exclude", "attraction"), [("none", 0.0), ("self", -1.0), ("image", -1.0)])
def test_released_max_branch_attracts_nothing_and_excluding_the_anchor_mends_it(
    exclude: str, attraction: float
) -> None:
    z, labels = random_z(5, 1, channels=16), torch.tensor([[1], [0], [0], [1], [1]])
    for anchor in range(10):
        got = coefficients(anchor, z, labels, positive="max", exclude=exclude)[1]
        assert got == pytest.approx(attraction, abs=1e-9)


# 6. Invariances


@pytest.mark.parametrize("preset", ["released", "as_read", "hcl"])
def test_loss_ignores_order_of_images_views_aus_rotation_and_length(preset: str) -> None:
    z, labels = (
        random_z(6, 3, channels=4),
        torch.tensor([[1, 0, -1], [0, 0, 1], [1, 1, 0], [0, 1, 1], [-1, 0, 0], [0, 0, 1]]),
    )
    criterion = getattr(AUNCELoss, preset)(positive="expected", exponents=(0.7, 1.3))

    def losses(z: Tensor, labels: Tensor) -> list[float]:
        return [criterion(z, labels).item(), supcon(z, labels, 0.5).item(), infonce(z, 0.5).item()]

    expected = pytest.approx(losses(z, labels), abs=1e-12)
    images, aus = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 0, 1])
    rotation = torch.linalg.qr(random_z(4, 1, channels=4)[0, :, 0]).Q
    lengths = torch.rand(2, 6, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 9 + 0.1
    assert losses(z[:, images], labels[images]) == expected
    assert losses(z.flip(0), labels) == expected
    assert losses(z[:, :, aus], labels[:, aus]) == expected
    assert losses(z @ rotation, labels) == expected
    assert losses(z * lengths, labels) == expected


def test_flipping_labels_with_the_exponents_changes_nothing() -> None:
    z, labels = random_z(*LABELS.shape), LABELS
    flipped = torch.where(labels >= 0, 1 - labels, labels)
    a = aunce_loss(z, labels, positive="expected", exponents=(0.4, 1.2))
    b = aunce_loss(z, flipped, positive="expected", exponents=(1.2, 0.4))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_exponents_per_au_equal_one_call_per_au() -> None:
    z, labels = random_z(4, 2), torch.tensor([[1, 0], [0, 1], [0, 0], [1, 1]])
    exponents = torch.tensor([[0.4, 1.2], [1.5, 0.6]])
    both = aunce_loss(z, labels, positive="mean", exponents=exponents.double())
    single = [
        aunce_loss(z[:, :, [k]], labels[:, [k]], positive="mean", exponents=exponents[k].double().tolist())
        for k in range(2)
    ]
    torch.testing.assert_close(both, torch.stack(single).mean(), rtol=0, atol=1e-14)


def test_au_weights_multiply_the_losses_of_their_au_without_rescaling() -> None:
    z, weights = random_z(*LABELS.shape), [3.0, 1.0, 0.5, 2.0, 7.0, 1.0]
    plain = aunce_loss(z, LABELS, positive="mean", reduction="none")
    weighted = aunce_loss(z, LABELS, positive="mean", reduction="none", au_weights=weights)
    torch.testing.assert_close(weighted, plain * torch.tensor(weights)[:, None].double(), rtol=0, atol=1e-14)


# 7. Degenerate batches

DEGENERATE = {
    "all absent": (random_z(4, 1), torch.zeros(4, 1)),
    "all present": (random_z(4, 1), torch.ones(4, 1)),
    "single positive": (random_z(4, 1), torch.tensor([[0], [1], [0], [0]])),
    "all unknown": (random_z(4, 1), -torch.ones(4, 1)),
    "one image": (random_z(1, 2), torch.tensor([[1, -1]])),
    "duplicated images": (random_z(1, 1).expand(2, 4, 1, 5), torch.tensor([[0], [1], [0], [1]])),
    "zero vectors": (torch.zeros(2, 4, 1, 5, dtype=torch.float64), torch.tensor([[0], [1], [0], [1]])),
    "one channel": (random_z(4, 1, channels=1), torch.tensor([[0], [1], [0], [1]])),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", list(DEGENERATE))
def test_degenerate_batch_has_finite_loss_and_gradient_and_a_graph(batch: str, dtype: torch.dtype) -> None:
    z, labels = DEGENERATE[batch][0].to(dtype), DEGENERATE[batch][1].to(torch.int8)
    for preset in (AUNCELoss.released, AUNCELoss.as_read, AUNCELoss.hcl):
        for reduction in ("mean", "none"):
            loss, grad = value_and_grad(z, labels, **preset(positive="expected", reduction=reduction).options)
            assert loss.isfinite().all()
            assert grad.isfinite().all()
            if len(set(labels.flatten().tolist())) == 1 or batch == "one image":
                assert (loss == 0).all()
                assert (grad == 0).all()
    for loss in (supcon(z.requires_grad_(), labels, 0.05), infonce(z, 0.05)):
        (grad,) = torch.autograd.grad(loss, z)
        assert loss.isfinite()
        assert grad.isfinite().all()


def test_au_without_negatives_counts_in_the_mean() -> None:
    z, labels = random_z(4, 2), torch.tensor([[1, 0], [0, 0], [0, 0], [1, 0]])
    single = aunce_loss(z[:, :, [0]], labels[:, [0]], positive="view")
    torch.testing.assert_close(aunce_loss(z, labels, positive="view"), single / 2)


@pytest.mark.parametrize("positive", ["max", "mean"])
def test_anchor_whose_exclusion_left_no_positive_is_0_and_not_its_own_view(positive: str) -> None:
    z, labels = random_z(4, 1), torch.tensor([[0], [1], [0], [0]])
    losses = aunce_loss(z, labels, positive=positive, exclude="image", reduction="none")[0]
    assert (losses > 0).tolist() == [True, False, True, True] * 2
    mean = aunce_loss(z, labels, positive=positive, exclude="image")
    torch.testing.assert_close(mean, losses.sum() / 8)


def test_zero_vector_in_float16_has_a_gradient_that_fits_float16() -> None:
    z = random_z(4, 1, dtype=torch.float16)
    z[0, 0] = 0
    z[1, 1] = 1e-7
    for temperature in (0.5, 0.05):
        _, grad = value_and_grad(z, torch.tensor([[1], [0], [0], [1]]), positive="expected", temperature=temperature)
        assert grad.isfinite().all()


@pytest.mark.parametrize("labels", [[[1], [0]], [[0], [0]]], ids=["two labels", "one label"])
@pytest.mark.parametrize("positive", POSITIVES)
def test_nan_is_passed_on_as_nan(positive: str, labels: list[list[int]]) -> None:
    z = random_z(2, 1)
    z[0, 1, 0, 2] = torch.nan
    assert aunce_loss(z, torch.tensor(labels), positive=positive).isnan()
    assert supcon(z, torch.tensor(labels), 0.5).isnan()
    assert infonce(z, 0.5).isnan()


def test_nan_of_one_au_is_found_by_reduction_none() -> None:
    z = random_z(*LABELS.shape)
    z[:, :, 2] = torch.inf
    losses = aunce_loss(z, LABELS, positive="mean", reduction="none")
    assert losses.isnan().any(1).tolist() == [False, False, True, False, False, False]


# 8. Precision


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("temperature", [0.5, 0.1, 0.05])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_hold_in_every_dtype_and_temperature(
    dtype: torch.dtype, temperature: float, device: str
) -> None:
    labels = torch.randint(-1, 2, (16, 3), generator=torch.Generator().manual_seed(1), dtype=torch.int8)
    exact = random_z(16, 3, channels=8)
    rounded = exact.to(dtype)
    from_input = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 3e-2, torch.float16: 3e-3}[dtype]
    in_kernel = 1e-12 if dtype == torch.float64 else 2e-5
    in_gradient = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 2e-3}[dtype]
    for positive, normalize in itertools.product(POSITIVES, (False, True)):
        options: dict[str, Any] = {"positive": positive, "normalize_weights": normalize, "temperature": temperature}
        loss, grad = value_and_grad(rounded.to(device), labels.to(device), **options)
        reference, reference_grad = value_and_grad(rounded.double(), labels, **options)
        unrounded, _ = value_and_grad(exact, labels, **options)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert grad.dtype == dtype
        torch.testing.assert_close(loss.cpu().double(), reference, rtol=in_kernel, atol=in_kernel)
        torch.testing.assert_close(loss.cpu().double(), unrounded, rtol=from_input, atol=from_input)
        error = (grad.cpu().double() - reference_grad).norm() / reference_grad.norm()
        assert error < in_gradient


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("temperature", [0.5, 0.05])
def test_autocast_does_not_round_the_logits(temperature: float, device: str) -> None:
    x = random_z(8, 3, channels=6, dtype=torch.float32).to(device)
    layer = torch.nn.Linear(6, 6).to(device)
    labels = torch.randint(-1, 2, (8, 3), generator=torch.Generator().manual_seed(1)).to(device)
    for chunk_size in (None, 5):
        options: dict[str, Any] = {"positive": "expected", "temperature": temperature, "chunk_size": chunk_size}
        with torch.autocast(device, dtype=torch.bfloat16):
            z = layer(x)
            inside = aunce_loss(z, labels, **options)
            others = [supcon(z, labels, temperature), infonce(z, temperature)]
        (inside_grad,) = torch.autograd.grad(inside, z, retain_graph=True)
        with torch.autocast(device, dtype=torch.bfloat16):
            (backward_inside,) = torch.autograd.grad(inside, z, retain_graph=True)
        torch.testing.assert_close(backward_inside, inside_grad, rtol=0, atol=0)
        assert z.dtype == torch.bfloat16
        outside, grad = value_and_grad(z, labels, **options)
        torch.testing.assert_close(inside, outside, rtol=0, atol=0)
        torch.testing.assert_close(inside_grad, grad, rtol=0, atol=0)
        outside_others = [supcon(z, labels, temperature), infonce(z, temperature)]
        torch.testing.assert_close(others, outside_others, rtol=0, atol=0)


def test_large_losses_have_no_step_where_torch_softplus_turns_linear() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.02], [-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64).reshape(2, 2, 1, 2)
    labels = np.array([[1], [0]])
    for temperature in np.linspace(0.09, 0.11, 9):  # the loss of the first anchor crosses 20
        got = aunce_loss(z, torch.tensor(labels), positive="view", temperature=float(temperature), reduction="none")
        expected = oracle.aunce(z.numpy(), labels, shares=shares_of("view", 1), temperature=temperature)
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-12)


# 9. Randomness


def drawn_branches(aus: int, probs: tuple[float, ...], draw: str) -> np.ndarray:
    """The branch (K, 2B) of each anchor, read off the losses of AUs that are all alike."""
    z, labels = random_z(3, 1).expand(2, 3, aus, 5), torch.tensor([[1], [0], [1]]).expand(3, aus)
    generator = torch.Generator().manual_seed(0)
    sampled = aunce_loss(z, labels, positive_probs=probs, draw=draw, generator=generator, reduction="none")
    forced = [aunce_loss(z, labels, branch=[b] * aus, reduction="none") for b in range(3)]
    hits = torch.stack([sampled == one for one in forced])  # (3, K, 2B)
    assert (hits.sum(0) == 1).all()
    return hits.int().argmax(0).numpy()


@pytest.mark.parametrize("probs", [(0.2, 0.6, 0.2), (0.5, 0.2, 0.3)])
def test_each_au_draws_one_branch_for_all_anchors_with_the_given_probabilities(probs: tuple[float, ...]) -> None:
    branches = drawn_branches(6000, probs, "au")
    assert (branches == branches[:, :1]).all()
    assert chisquare(np.bincount(branches[:, 0], minlength=3), np.array(probs) * 6000).pvalue > 1e-3


@pytest.mark.parametrize("probs", [(0.2, 0.6, 0.2), (0.5, 0.2, 0.3)])
def test_each_anchor_draws_its_own_branch_with_the_given_probabilities(probs: tuple[float, ...]) -> None:
    branches = drawn_branches(6000, probs, "anchor")
    for other in range(1, 6):  # two anchors of an AU draw independently, even the two views of one image
        pairs = np.bincount(3 * branches[:, 0] + branches[:, other], minlength=9)
        assert chisquare(pairs, np.outer(probs, probs).ravel() * 6000).pvalue > 1e-3


@pytest.mark.parametrize("probs", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.3, 0.7, 0.0)])
def test_branch_of_probability_0_is_never_drawn(probs: tuple[float, ...]) -> None:
    counts = np.bincount(drawn_branches(500, probs, "au")[:, 0], minlength=3)
    assert ((counts > 0) == (np.array(probs) > 0)).all()


@pytest.mark.parametrize("draw", ["au", "anchor"])
@pytest.mark.parametrize("device", DEVICES)
def test_same_seed_gives_the_same_draw_for_any_chunk_dtype_and_device(device: str, draw: str) -> None:
    z, labels = random_z(6, 8), torch.randint(0, 2, (6, 8), generator=torch.Generator().manual_seed(0))

    def loss(z: Tensor, seed: int = 3, chunk_size: int | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return aunce_loss(z, labels, draw=draw, generator=generator, chunk_size=chunk_size, reduction="none").cpu()

    expected = loss(z)
    assert not torch.equal(expected, loss(z, seed=4))
    for chunk_size in (1, 5, 12, 50):
        torch.testing.assert_close(loss(z, chunk_size=chunk_size), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(loss(z.float().to(device)).double(), expected, rtol=0, atol=1e-5)


def test_every_call_draws_anew_and_global_generator_is_untouched() -> None:
    z, labels = random_z(6, 30), torch.randint(0, 2, (6, 30), generator=torch.Generator().manual_seed(0))
    before, generator = torch.get_rng_state(), torch.Generator().manual_seed(0)
    for chunk_size in (None, 4):
        criterion = AUNCELoss.released(chunk_size=chunk_size)
        first, second = (criterion(z.requires_grad_(), labels, generator=generator) for _ in range(2))
        assert first.item() != second.item()
        first.backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_expected_is_the_weighted_sum_of_the_forced_branches_in_value_and_gradient() -> None:
    z, probs = random_z(*LABELS.shape), (0.1, 0.65, 0.25)
    for exclude in ("none", "self", "image"):
        loss, grad = value_and_grad(z, LABELS, positive="expected", positive_probs=probs, exclude=exclude)
        forced = [value_and_grad(z, LABELS, branch=[b] * LABELS.shape[1], exclude=exclude) for b in range(3)]
        torch.testing.assert_close(loss, sum(p * f[0] for p, f in zip(probs, forced, strict=True)))
        torch.testing.assert_close(grad, sum(p * f[1] for p, f in zip(probs, forced, strict=True)))


def test_forced_branches_differ_per_au_and_equal_the_named_ones() -> None:
    z, labels = random_z(4, 3), LABELS[:, [0, 0, 0]]
    forced = aunce_loss(z, labels, branch=torch.tensor([2, 0, 1]), reduction="none")
    named = [aunce_loss(z, labels, positive=name, reduction="none") for name in ("max", "mean", "view")]
    torch.testing.assert_close(forced, torch.stack([named[2][0], named[0][1], named[1][2]]), rtol=1e-14, atol=0)


# 10. Chunks


# 11. Shares


LOSSES: dict[str, Callable[..., Tensor]] = {
    "aunce": partial(aunce_loss, positive="expected", draw="anchor"),
    "aunce in chunks": partial(aunce_loss, positive="expected", exclude="image", chunk_size=3),
    "supcon": partial(supcon, temperature=0.5),
    "infonce": lambda z, labels, anchors: infonce(z, 0.5, anchors=anchors),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_shares_of_the_images_add_up_to_the_loss_of_the_batch(name: str) -> None:
    z, images = random_z(*LABELS.shape).requires_grad_(), len(LABELS)
    shares = [slice(0, 1), slice(1, 1), slice(1, images - 2), slice(images - 2, images)]  # one process has none
    whole = LOSSES[name](z, LABELS, anchors=None)
    parts = [LOSSES[name](z, LABELS, anchors=share) for share in shares]
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-12, atol=0)
    [expected] = torch.autograd.grad(whole, z)
    [found] = torch.autograd.grad(torch.stack(parts).sum(), z)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_without_reduction_a_share_has_the_losses_of_its_own_anchors() -> None:
    z, images = random_z(*LABELS.shape), len(LABELS)
    whole = aunce_loss(z, LABELS, positive="expected", reduction="none").unflatten(1, (2, images))  # (K, V, B)
    share = aunce_loss(z, LABELS, positive="expected", reduction="none", anchors=slice(1, 3))
    torch.testing.assert_close(share.unflatten(1, (2, 2)), whole[..., 1:3], rtol=1e-12, atol=0)


def test_with_a_memory_bank_the_mean_over_the_anchors_is_their_share_times_images_over_anchors() -> None:
    z, bank = random_z(3, 2).requires_grad_(), random_z(5, 2, seed=1)
    labels = torch.tensor([[1, 0], [0, 1], [0, 0], [1, 1], [0, 1], [1, 0], [0, 0], [1, 1]])
    both, anchors = torch.cat([z, bank], dim=1), slice(0, 3)
    share = aunce_loss(both, labels, positive="expected", anchors=anchors)
    each = aunce_loss(both, labels, positive="expected", anchors=anchors, reduction="none")  # (K, A)
    torch.testing.assert_close(share * 8 / 3, each.mean(), rtol=1e-12, atol=0)
    assert torch.autograd.grad(share, z)[0].norm() > 0


@pytest.mark.parametrize(("images", "channels"), [(8, 16), (33, 16), (5, 40)])
def test_value_and_gradient_are_those_of_the_published_formulation(images: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, images, 6, channels, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 2, (images, 6), generator=generator)
    branch = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = published(z, labels, branch, temperature=0.1)
    [slope] = torch.autograd.grad(expected, z)
    for options in ({}, {"chunk_size": 5}, {"implementation": "reference"}):
        loss = aunce_loss(z, labels, branch=branch, temperature=0.1, **options)
        [own] = torch.autograd.grad(loss, z)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(own, slope, rtol=1e-9, atol=1e-12)


# 14. Shape contract, options and presets


def test_presets_are_the_readings_that_the_design_names() -> None:
    z, labels, weights = random_z(*LABELS.shape), LABELS, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]

    def loss(**options: Any) -> float:
        return float(aunce_loss(z, labels, generator=torch.Generator().manual_seed(5), **options))

    def preset(criterion: AUNCELoss) -> float:
        return float(criterion(z, labels, generator=torch.Generator().manual_seed(5)))

    assert preset(AUNCELoss.released()) == loss()
    assert preset(AUNCELoss.early(au_weights=weights)) == loss(exponents=(0.4, 1.2), au_weights=weights)
    assert preset(AUNCELoss.as_read()) == loss(exclude="image", positive_mean="positives")
    assert preset(AUNCELoss.hcl()) == loss(exclude="image", positive_mean="positives", normalize_weights=True)
    assert preset(AUNCELoss.hcl(temperature=0.1, exclude="self")) == loss(
        exclude="self", positive_mean="positives", normalize_weights=True, temperature=0.1
    )
    assert "exclude='image'" in repr(AUNCELoss.as_read())
    branch = [0, 1, 2, 0, 1, 2]
    assert AUNCELoss.released()(z, labels, branch=branch).item() == loss(branch=branch)


def test_early_preset_without_au_weights_says_that_they_are_required() -> None:
    with pytest.raises(UsageError, match=r"AUNCELoss.early: expected au_weights .* got None"):
        AUNCELoss.early()


def test_the_module_draws_from_the_global_generator_unless_it_gets_one():
    z, labels = torch.randn(2, 8, 6, 4, dtype=torch.float64), torch.randint(-1, 2, (8, 6))
    criterion = AUNCELoss.released()
    torch.manual_seed(3)
    value = criterion(z, labels)
    assert value == criterion(z, labels, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    criterion(z, labels, generator=torch.Generator())
    AUNCELoss.released(positive="expected")(z, labels)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_parameter_among_the_options_learns_and_tensors_move_with_the_module() -> None:
    z, weights = random_z(*LABELS.shape), nn.Parameter(torch.rand(LABELS.shape[1], dtype=torch.float64))
    criterion = AUNCELoss(au_weights=weights, exponents=torch.full((LABELS.shape[1], 2), 1.1), positive="mean")
    assert [name for name, _ in criterion.named_parameters()] == ["au_weights"]
    assert [name for name, _ in criterion.named_buffers()] == ["exponents"]
    criterion(z, LABELS).backward()
    each = aunce_loss(z, LABELS, positive="mean", exponents=(1.1, 1.1), reduction="none")  # (K, A)
    expected = each.sum(1) / (2 * (LABELS >= 0).sum(0).clamp(min=1)) / LABELS.shape[1]
    torch.testing.assert_close(weights.grad, expected, rtol=1e-6, atol=0)
    moved = criterion.to(torch.float16).to("meta")
    assert {(t.dtype, t.device.type) for t in (moved.au_weights, moved.exponents)} == {(torch.float16, "meta")}
    assert moved.options["exponents"] is moved.exponents
    assert copy.deepcopy(criterion).options.keys() == criterion.options.keys()


def test_label_weights_are_au_weights() -> None:
    z, weights = random_z(*LABELS.shape), [3.0, 1.0, 0.5, 2.0, 7.0, 1.0]
    expected = aunce_loss(z, LABELS, positive="mean", au_weights=weights)
    assert torch.equal(aunce_loss(z, LABELS, positive="mean", label_weights=weights), expected)
    assert torch.equal(AUNCELoss(positive="mean", label_weights=torch.tensor(weights))(z, LABELS), expected)
    AUNCELoss.early(label_weights=weights)


@pytest.mark.parametrize(
    ("positive", "exclude"), [("max", "none"), ("view", "none"), ("mean", "none"), ("max", "image")]
)
def test_of_a_single_view_the_view_and_the_released_maximum_attract_nothing(positive: str, exclude: str) -> None:
    z, labels = random_z(6, 1)[:1].requires_grad_(), torch.tensor([[1], [0], [0], [1], [-1], [0]])
    loss = aunce_loss(z, labels, positive=positive, exclude=exclude, exponents=(1, 1), reduction="none")  # (K, B)
    x, y = F.normalize(z[0, :, 0], dim=-1), labels[:, 0]
    for i in (0, 1, 2, 3, 5):
        logits = x @ x[i] / 0.5  # (B,)
        same = (y == y[i]) & ((torch.arange(6) != i) | (exclude == "none"))
        p = {"max": logits[same].max(), "view": logits[i], "mean": logits[same].logsumexp(0) - math.log(5)}[positive]
        torch.testing.assert_close(loss[0, i], F.softplus(logits[(y != y[i]) & (y >= 0)].logsumexp(0) - p))
    inert = positive == "view" or (positive, exclude) == ("max", "none")
    [gradient] = torch.autograd.grad(loss[0, 0], z)  # of the anchor 0, whose only positive is image 3
    assert (gradient[0, 3].norm() < 1e-12) == inert


def test_the_module_takes_a_single_view() -> None:
    z = random_z(*LABELS.shape)[:1].requires_grad_()
    for preset in ("released", "as_read", "hcl"):
        loss = getattr(AUNCELoss, preset)(positive="expected")(z, LABELS)
        assert torch.autograd.grad(loss, z)[0].norm() > 0
