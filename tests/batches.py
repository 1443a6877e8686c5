"""Batches that the tests of the losses share."""

from typing import Any

import pytest
import torch
from torch import Tensor

from aunce.losses import aunce_loss

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")],
)
DEVICES = ["cpu", CUDA]
POSITIVES = ["max", "mean", "view", "expected"]
# columns: usual, one label only, one present image only, unknown images, all unknown, one known image
LABELS = torch.tensor(
    [
        [1, 0, 0, 1, -1, -1],
        [0, 0, 0, -1, -1, -1],
        [1, 0, 1, 0, -1, 1],
        [0, 0, 0, 1, -1, -1],
    ],
    dtype=torch.int8,
)


def random_z(images: int, aus: int, channels: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Embeddings with correlated views, as augmentation gives them."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(1, images, aus, channels, generator=generator, dtype=torch.float64)
    return (base + 0.5 * torch.randn(2, images, aus, channels, generator=generator, dtype=torch.float64)).to(dtype)


def value_and_grad(z: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_()
    loss = aunce_loss(z, labels, **options)
    (grad,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), grad
