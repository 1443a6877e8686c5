"""The kernel against the readable formula: value, gradient, memory, and what it hands back to the formula."""

from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from batches import DEVICES, LABELS, POSITIVES, random_z, value_and_grad
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aunce import inputs, kernel, losses
from aunce.analyses.timing import forward_backward, peak_bytes
from aunce.losses import AUNCELoss, aunce_loss

reference = partial(aunce_loss, implementation="reference")
EXPECTED: dict[str, Any] = {"positive": "expected", "exclude": "image", "normalize_weights": True}


class Recorder(TorchDispatchMode):
    """The operations whose result has one of the shapes, by name."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.shapes, self.names = shapes, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.shape in self.shapes:
            self.names.append(str(func.overloadpacket).removeprefix("aten."))
        return out


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_kernel_and_readable_formula_agree_in_value_and_gradient_for_all_options(data: st.DataObject) -> None:
    def one(*values: Any) -> Any:
        return data.draw(st.sampled_from(values))

    views, images, aus, channels = one(1, 2), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4)), one(2, 5, 60)
    column = st.lists(st.sampled_from([-1, 0, 1]), min_size=images, max_size=images)
    kinds = st.one_of(column, st.sampled_from([[value] * images for value in (-1, 0, 1)]))
    labels = torch.tensor([data.draw(kinds) for _ in range(aus)]).T
    shared = one(False, False, True)
    z = random_z(images, 1 if shared else aus, channels, seed=data.draw(st.integers(0, 99)))[:views]
    z = z.expand(-1, -1, aus, -1) if shared else z
    first = data.draw(st.integers(0, images))
    exponents = torch.tensor([[data.draw(st.floats(0, 2)) for _ in range(2)] for _ in range(aus)], dtype=torch.float64)
    options: dict[str, Any] = {
        "positive": one("sampled", "sampled", *POSITIVES),
        "positive_probs": one((0.2, 0.6, 0.2), (0.5, 0.5, 0.0)),
        "draw": one("au", "label", "anchor"),
        "temperature": data.draw(st.floats(0.05, 2)),
        "exponents": one((0.8, 1.2), exponents),
        "exclude": one("none", "self", "image"),
        "positive_mean": one("row", "positives"),
        "normalize_weights": one(False, True),
        "detach_weights": one(False, True),
        "au_weights": one(None, [data.draw(st.floats(0, 3)) for _ in range(aus)]),
        "reduction": one("mean", "none"),
        "chunk_size": one(None, 1, 3, 7, 100),
        "anchors": one(None, slice(first, data.draw(st.integers(first, images)))),
    }
    with mock.patch.object(inputs, "LARGE", one(0, 256)):
        found, expected = (
            value_and_grad(z, labels, generator=torch.Generator().manual_seed(0), implementation=how, **options)
            for how in ("auto", "reference")
        )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


# The whole in pieces


@pytest.mark.parametrize("preset", ["released", "as_read", "hcl"])
@pytest.mark.parametrize("positive", POSITIVES)
def test_chunks_equal_the_whole_in_value_and_gradient(positive: str, preset: str) -> None:
    z = random_z(*LABELS.shape, channels=40)  # so many that only the whole keeps its logits
    options: dict[str, Any] = getattr(AUNCELoss, preset)(positive=positive, exponents=(0.6, 1.3)).options
    for detach in (False, True):
        whole = value_and_grad(z, LABELS, detach_weights=detach, **options)
        for chunk_size in (1, 3, 7, 8, 100):
            cut = value_and_grad(z, LABELS, detach_weights=detach, chunk_size=chunk_size, **options)
            torch.testing.assert_close(cut, whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("channels", [5, 40])
@pytest.mark.parametrize("preset", ["released", "as_read", "hcl"])
def test_tiles_equal_the_whole_in_value_and_gradient(
    preset: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = random_z(*LABELS.shape, channels=channels)
    options: dict[str, Any] = getattr(AUNCELoss, preset)(positive="expected", exponents=(0.6, 1.3)).options
    for chunk_size in (None, 5):
        whole = value_and_grad(z, LABELS, chunk_size=chunk_size, **options)
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "TILE", 3 * LABELS.shape[1] * 2 * len(LABELS))  # three anchors
            tiled = value_and_grad(z, LABELS, chunk_size=chunk_size, **options)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-14)


def test_similarities_take_the_memory_of_one_matrix_and_none_with_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images, aus = 300, 2
    z = random_z(images, aus, channels=4).requires_grad_()
    labels = torch.randint(0, 2, (images, aus), generator=torch.Generator().manual_seed(0))
    entries = aus * (2 * images) ** 2

    def peaks(chunk_size: int | None) -> tuple[int, int]:
        loss = partial(aunce_loss, labels=labels, positive="expected", chunk_size=chunk_size)
        return peak_bytes(forward_backward(loss, z), entries)

    everything, of_scores = peaks(None)
    assert of_scores == 0, "an AU at a time"
    assert everything < 1.6 * entries * 8
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "LARGE", 2 * images)
        assert peaks(None)[1] == entries * 8
    everything, of_scores = peaks(16)
    assert of_scores == 0
    assert everything < entries * 8 / 4


@pytest.mark.parametrize("large", [0, 256])
def test_a_second_backward_pass_gives_the_gradient_again(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "LARGE", large)
    z = random_z(*LABELS.shape).requires_grad_()
    loss = aunce_loss(z, LABELS, positive="expected")
    [first] = torch.autograd.grad(loss, z, retain_graph=True)
    [second] = torch.autograd.grad(loss, z)
    torch.testing.assert_close(second, first, rtol=0, atol=0)


@pytest.mark.parametrize("positive", ["max", "mean", "view", "expected", "sampled"])
def test_the_similarities_and_one_exponential_of_each_serve_all_branches(positive: str) -> None:
    z, labels = random_z(4, 2).requires_grad_(), LABELS[:, [0, 3]]
    with Recorder((2, 8, 8)) as recorder:
        loss = aunce_loss(z, labels, positive=positive, branch=[1, 2] if positive == "sampled" else None)
        assert (recorder.names.count("bmm"), recorder.names.count("exp_")) == (1, 1)
        loss.backward()
    products = [name for name in recorder.names if name in ("baddbmm", "bmm", "mm", "exp_", "exp")]
    assert products == ["bmm", "exp_"], "the backward pass makes neither similarities nor exponentials"


# A large batch


@pytest.mark.parametrize("preset", ["released", "as_read", "hcl"])
def test_a_large_batch_equals_the_readable_formula(preset: str) -> None:
    images, aus = 140, 6
    draws = torch.Generator().manual_seed(0)
    labels = (torch.rand(images, aus, generator=draws) < torch.linspace(0, 0.6, aus)).int()  # the first has one label
    labels[torch.rand(images, aus, generator=draws) < torch.linspace(0, 0.3, aus)] = -1
    z = random_z(images, aus)
    for options in ({"branch": [1, 2, 0, 1, 2, 0]}, {"positive": "expected", "draw": "anchor"}):
        options = getattr(AUNCELoss, preset)().options | options
        found, expected = (value_and_grad(z, labels, implementation=how, **options) for how in ("auto", "reference"))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        single, expected = (
            value_and_grad(z.float(), labels, implementation=how, **options) for how in ("auto", "reference")
        )
        torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-6)


# What a gradient by hand cannot do


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_a_gradient_penalty_has_the_gradient_of_finite_differences(chunk_size: int | None) -> None:
    labels, step = LABELS[:, :2], 1e-5

    def penalty(z: Tensor) -> Tensor:
        loss = aunce_loss(z, labels, chunk_size=chunk_size, **EXPECTED)
        [gradient] = torch.autograd.grad(loss, z, create_graph=True)
        return gradient.square().sum()

    z = random_z(*labels.shape, channels=2).requires_grad_()
    [found] = torch.autograd.grad(penalty(z), z)
    expected = torch.zeros_like(z)
    for index in np.ndindex(*z.shape):
        moved = torch.zeros_like(z)
        moved[index] = step
        low, high = (penalty((z + sign * moved).detach().requires_grad_()).item() for sign in (-1, 1))
        expected[index] = (high - low) / (2 * step)
    assert found.norm() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_second_derivatives_are_those_of_the_readable_formula() -> None:
    z = random_z(*LABELS.shape, channels=2)
    expected = torch.autograd.functional.hessian(lambda z: reference(z, LABELS, **EXPECTED), z)
    found = torch.autograd.functional.hessian(lambda z: aunce_loss(z, LABELS, **EXPECTED), z)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # from within torch
def test_transforms_of_torch_func_take_the_readable_formula() -> None:
    z = random_z(*LABELS.shape, channels=2)
    loss = partial(aunce_loss, labels=LABELS, **EXPECTED)
    value, grad = value_and_grad(z, LABELS, **EXPECTED)
    torch.testing.assert_close(torch.func.grad(loss)(z), grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.func.vmap(loss)(torch.stack([z, 2 * z])), value.expand(2), rtol=0, atol=1e-12)
    hessian = torch.autograd.functional.hessian(loss, z)
    torch.testing.assert_close(torch.func.hessian(loss)(z), hessian, rtol=0, atol=1e-12)
    leaf = z.clone().requires_grad_()
    each = aunce_loss(leaf, LABELS, reduction="none", **EXPECTED)
    along = torch.func.vmap(lambda outer: torch.autograd.grad(each, leaf, outer, retain_graph=True)[0])
    directions = torch.stack([torch.ones_like(each), torch.zeros_like(each)])
    expected = torch.stack([torch.autograd.grad(each, leaf, one, retain_graph=True)[0] for one in directions])
    torch.testing.assert_close(along(directions).detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torch_compile_takes_the_readable_formula_in_one_graph() -> None:
    z, labels = random_z(*LABELS.shape), LABELS
    criterion = AUNCELoss(
        au_weights=torch.rand(LABELS.shape[1]), exponents=torch.rand(LABELS.shape[1], 2) + 0.5, **EXPECTED
    )
    torch._dynamo.reset()
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    for values in (z, 2 * z.flip(1)):
        leaf = values.clone().requires_grad_()
        loss = compiled(leaf, labels)
        [found] = torch.autograd.grad(loss, leaf)
        expected, grad = value_and_grad(values, labels, **criterion.options)
        torch.testing.assert_close((loss.detach(), found), (expected.detach(), grad), rtol=0, atol=1e-12)


def test_auto_is_the_kernel_and_reference_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Tensor:
        raise RuntimeError("kernel")

    monkeypatch.setattr(losses, "tiled_losses", refuse)
    z = random_z(*LABELS.shape)
    with pytest.raises(RuntimeError, match="kernel"):
        aunce_loss(z, LABELS, positive="mean")
    assert reference(z, LABELS, positive="mean").isfinite()


# Embeddings out of the ordinary


@pytest.mark.parametrize("channels", [5, 40])
def test_one_embedding_for_all_aus_is_multiplied_once(channels: int) -> None:
    one = random_z(*LABELS.shape, channels=channels)[:, :, :1].requires_grad_()
    n, aus = 2 * LABELS.shape[0], LABELS.shape[1]
    expected = aunce_loss(one.repeat(1, 1, aus, 1), LABELS, **EXPECTED)
    with Recorder((1, n, n), (aus, n, n), (1, n, channels), (aus, n, channels)) as recorder:
        loss = aunce_loss(one.expand(-1, -1, aus, -1), LABELS, **EXPECTED)
        [found] = torch.autograd.grad(loss, one)
    assert recorder.names.count("bmm") == 2, "one product in each pass"
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    torch.testing.assert_close(found, torch.autograd.grad(expected, one)[0], rtol=0, atol=1e-14)


def test_a_nan_of_an_image_that_one_au_does_not_know_stays_out_of_that_au() -> None:
    z, labels = random_z(4, 1), torch.tensor([[1, 1], [0, 0], [-1, 0], [0, 1]])
    z[0, 2] = torch.nan
    losses = aunce_loss(z.expand(-1, -1, 2, -1), labels, positive="mean", reduction="none")
    assert losses[0].isfinite().all()
    assert losses[1].isnan().any()


@pytest.mark.parametrize("device", DEVICES)
def test_lengths_whose_squares_leave_float32_make_no_difference(device: str) -> None:
    labels, z = LABELS.to(device), random_z(*LABELS.shape, dtype=torch.float32).to(device)
    for how in ("auto", "reference"):
        options: dict[str, Any] = {"positive": "expected", "implementation": how}
        value, grad = value_and_grad(z, labels, **options)
        long, long_grad = value_and_grad(z * 1e30, labels, **options)
        torch.testing.assert_close(long, value)
        torch.testing.assert_close(long_grad * 1e30, grad, rtol=1e-4, atol=1e-6)
