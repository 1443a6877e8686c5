"""What the losses refuse, with expected and got; labels of any kind."""

import inspect
import math
from typing import Any

import pytest
import torch
from batches import CUDA, LABELS, random_z
from torch import Tensor

from aunce.errors import UsageError
from aunce.losses import AUNCELoss, aunce_loss, infonce, supcon


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive": "median"}, r"positive: expected one of 'sampled', 'expected', 'max'.* got 'median'"),
        ({"exclude": True}, r"exclude: expected one of 'none', 'self', 'image', got True"),
        ({"positive_mean": "rows"}, r"positive_mean: expected one of 'row', 'positives', got 'rows'"),
        ({"draw": "batch"}, r"draw: expected one of 'au', 'label', 'anchor', got 'batch'"),
        ({"implementation": "fast"}, r"implementation: expected one of 'auto', 'reference', got 'fast'"),
        ({"temperature": True}, r"temperature: expected a positive number, got True"),
        ({"positive_probs": torch.ones(3) / 3}, r"positive_probs: expected 3 probabilities .* got tensor"),
        ({"label_weights": [-1.0]}, r"label_weights: expected \(K,\) numbers, 0 or more, got \[-1.0\]"),
        ({"label_weights": [1.0], "au_weights": [1.0]}, r"expected one of the two names, got both"),
        ({"reduction": "sum"}, r"reduction: expected one of 'mean', 'none', got 'sum'"),
        ({"temperature": 0}, r"temperature: expected a positive number, got 0"),
        ({"temperature": "0.5"}, r"temperature: expected a positive number, got '0.5'"),
        ({"temperature": math.nan}, r"temperature: expected a positive number, got nan"),
        ({"exponents": (1.0, 1.0, 1.0)}, r"exponents: expected a pair of numbers \(absent, present\)"),
        ({"exponents": 1.2}, r"exponents: expected a pair of numbers .* got 1.2"),
        ({"positive_probs": (0.5, 0.6, 0.2)}, r"positive_probs: expected 3 probabilities .* sum 1, got \(0.5, 0.6"),
        ({"positive_probs": (-0.2, 1.0, 0.2)}, r"positive_probs: expected 3 probabilities"),
        ({"chunk_size": 0}, r"chunk_size: expected a positive integer or None, got 0"),
        ({"temperature": torch.tensor(0.1)}, r"temperature: expected a positive number, got ten.*: pass a float"),
        ({"temperature": 0.001, "exponents": (1.0, 1.0)}, r"expected e / tau of 700 at most, got 1 / 0.001"),
        ({"exponents": torch.tensor([[math.nan, 1.0]])}, r"exponents: expected a pair of numbers .* got tensor"),
        ({"au_weights": "balanced"}, r"au_weights: expected \(K,\) numbers, 0 or more, got 'balanced'"),
        ({"au_weights": [-1.0]}, r"au_weights: expected \(K,\) numbers, 0 or more, got \[-1.0\]"),
        ({"au_weights": torch.tensor([math.nan])}, r"au_weights: expected \(K,\) numbers, 0 or more, got tensor"),
        ({"normalize_weights": "no"}, r"normalize_weights: expected True or False, got 'no'"),
    ],
)
def test_wrong_option_is_refused_by_function_and_module_with_expected_and_got(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        aunce_loss(random_z(4, 1), LABELS[:, :1], **options)
    with pytest.raises(UsageError, match=message):
        AUNCELoss(**options)


def test_the_module_has_its_options_in_its_signature() -> None:
    options = inspect.signature(AUNCELoss).parameters
    of_function = inspect.signature(aunce_loss).parameters
    of_call = {"z", "labels", "branch", "generator", "anchors"}
    assert {n: (p.default, p.annotation) for n, p in options.items()} == {
        n: (p.default, p.annotation) for n, p in of_function.items() if n not in of_call
    }
    with pytest.raises(TypeError, match="tau"):
        AUNCELoss(tau=0.5)


@pytest.mark.parametrize(
    ("z", "labels", "options", "message"),
    [
        (torch.ones(4, 1, 5), LABELS[:, :1], {}, r"z: expected .*\(V=.*2, B, K, D\).* got torch.float32 \(4, 1, 5\)"),
        (torch.ones(3, 4, 1, 5), LABELS[:, :1], {}, r"z: expected .* got torch.float32 \(3, 4, 1, 5\)"),
        (torch.ones(2, 0, 1, 5), LABELS[:0, :1], {}, r"z: expected .* got torch.float32 \(2, 0, 1, 5\)"),
        (torch.ones(2, 4, 1, 5).int(), LABELS[:, :1], {}, r"z: expected a float tensor .* got torch.int32"),
        (torch.ones(2, 4, 1, 5), LABELS[:, :2], {}, r"labels: .* \(B, K\) = \(4, 1\), got torch.int8 \(4, 2\)"),
        (torch.ones(2, 4, 1, 5), LABELS[:, 0], {}, r"labels: .* \(4, 1\), got torch.int8 \(4,\)"),
        (torch.ones(2, 4, 1, 5), torch.ones(4, 1) / 2, {}, r"labels: expected .* -1 or NaN unknown, got \[0.5\]"),
        (torch.ones(2, 4, 1, 5), torch.ones(4, 1) * 1j, {}, r"labels: expected numbers .* got torch.complex64"),
        (torch.ones(2, 4, 1, 5), None, {}, r"labels: expected numbers .* got NoneType; without labels use infonce"),
        (torch.ones(2, 4, 1, 5), [[1]] * 4, {}, r"labels: expected numbers .* got list; try torch.as_tensor"),
        ([[[[1.0]]]], LABELS[:1, :1], {}, r"z: expected a float tensor .* got list"),
        (torch.ones(4, 1, 5), LABELS[:, :1], {}, r"z: .*; a single view f .* is f\[None\], one vector for all"),
        (torch.ones(2, 2, 1, 5), torch.tensor([[9], [1]]), {}, r"labels: expected 1 present, 0 absent.* got \[9\]"),
        (torch.ones(2, 1, 1, 5), torch.tensor([[255]]).byte(), {}, r"labels: expected 1 present.* got \[255\]"),
        (torch.ones(2, 4, 1, 5), LABELS[:, :1], {}, r"generator: expected a CPU torch.Generator or branch=.* got None"),
        (torch.ones(2, 4, 1, 5), LABELS[:, :1], {"branch": [0, 1]}, r"branch: .* \(K,\) = \(1,\) .* got \[0, 1\]"),
        (torch.ones(2, 4, 1, 5), LABELS[:, :1], {"branch": [3]}, r"branch: expected .* got \[3\]"),
        (torch.ones(2, 4, 1, 5), LABELS[:, :1], {"branch": ["max"]}, r"branch: expected .* got \['max'\]"),
        (torch.ones(2, 4, 1, 5), LABELS[:, :1], {"generator": 0}, r"generator: expected a CPU .* got 0"),
        (
            torch.ones(2, 4, 1, 5), LABELS[:, :1], {"positive": "max", "anchors": slice(0, 4, 2)},
            r"anchors: expected a slice of images without a step, got slice\(0, 4, 2\)",
        ),
        (
            torch.ones(2, 4, 1, 5), LABELS[:, :1], {"branch": [1], "positive": "max"},
            r"branch: expected positive='sampled', .* got positive='max'",
        ),
        (
            torch.ones(2, 4, 1, 5), LABELS[:, :1], {"positive": "max", "exponents": torch.ones(2)},
            r"exponents: expected a pair or a tensor \(K, 2\) = \(1, 2\), got \(2,\)",
        ),
        (
            torch.ones(2, 4, 1, 5), LABELS[:, :1], {"positive": "max", "au_weights": [1.0, 2.0]},
            r"au_weights: expected shape \(K,\) = \(1,\), got \(2,\)",
        ),
    ],
)  # fmt: skip
def test_wrong_shape_value_or_missing_generator_is_refused_with_expected_and_got(
    z: Tensor, labels: Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        aunce_loss(z, labels, **options)
    if message.startswith(("z", "labels")):
        with pytest.raises(UsageError, match=message):
            supcon(z, labels, 0.5)
    if message.startswith("z"):
        with pytest.raises(UsageError, match=message):
            infonce(z, 0.5)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float32, torch.bfloat16])
def test_labels_of_any_kind_give_the_same_loss(dtype: torch.dtype) -> None:
    z, labels = random_z(4, 1), torch.tensor([[1], [0], [1], [0]])
    assert torch.equal(aunce_loss(z, labels.to(dtype), positive="mean"), aunce_loss(z, labels, positive="mean"))


def test_nan_is_an_unknown_label() -> None:
    z = random_z(*LABELS.shape)
    labels = torch.where(LABELS == -1, torch.nan, LABELS)
    assert torch.equal(aunce_loss(z, labels, positive="mean"), aunce_loss(z, LABELS, positive="mean"))
    assert torch.equal(supcon(z, labels, 0.5), supcon(z, LABELS, 0.5))


@pytest.mark.parametrize("device", [CUDA])
def test_labels_on_the_gpu_are_read_without_waiting_and_foreign_values_count_as_unknown(device: str) -> None:
    z, labels = random_z(4, 1).to(device), torch.tensor([[1], [0], [9], [0]], device=device)
    unknown = torch.tensor([[1], [0], [-1], [0]], device=device)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = aunce_loss(z, labels, positive="expected")
        expected = aunce_loss(z, unknown, positive="expected")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(got, expected)
