"""The published formulation of the AUNCE loss, run eagerly: what `aunce.losses` is timed and tested against."""

import torch
import torch.nn.functional as F
from torch import Tensor


def published_loss(z: Tensor, labels: Tensor, branch: Tensor, *, temperature: float = 0.5) -> Tensor:
    """The released loss, written from its formula: exponentials, masks as floats, and all three kinds of positives.

    It is vectorised over AUs, which favours it. Unknown labels are not taken.

    Args:
        z: (V=2, B, K, D).
        labels: (B, K) in {0, 1}.
        branch: (K,) of each AU: 0 max, 1 mean, 2 view.
        temperature: tau.

    Returns:
        A scalar.
    """
    _, images, aus, channels = z.shape
    x = F.normalize(z.reshape(2 * images, aus, channels), dim=-1)  # (2B, K, D)
    y = labels.repeat(2, 1).T.to(z.dtype)  # (K, 2B)
    scores = torch.exp(torch.einsum("ikd,jkd->kij", x, x) / temperature)  # (K, 2B, 2B)
    positive = y[:, :, None] * y[:, None, :] + (1 - y[:, :, None]) * (1 - y[:, None, :])  # (K, 2B, 2B)
    negative = 1 - positive  # (K, 2B, 2B)
    largest = (scores * positive).amax(-1)  # (K, 2B)
    mean = (scores * positive).sum(-1) / (2 * images)  # (K, 2B)
    own_view = torch.diagonal(scores.roll(images, dims=2), dim1=1, dim2=2)  # (K, 2B)
    chosen = F.one_hot(branch, 3).to(z.dtype)  # (K, 3)
    p = torch.stack([largest, mean, own_view], dim=-1).mul(chosen[:, None]).sum(-1)  # (K, 2B)
    exponent = 0.8 * (1 - y) + 1.2 * y  # (K, 2B)
    n = (scores ** exponent[:, :, None] * negative).sum(-1)  # (K, 2B)
    return -torch.log(p / (p + n)).mean(1).mean()
