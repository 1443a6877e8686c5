"""The supervised baseline losses: each a function of logits and labels, averaged over the known entries of a batch.

A new loss is one function here, marked `@register`, and its name in `SUPERVISED` of `aunce/study/spec.py`, which
imports no torch. Axes: M rows (frames, or views of them), K AUs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from aunce.errors import UsageError

Array = NDArray[Any]
SupervisedLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits (M, K), labels (M, K) int8) -> scalar."""

POS_WEIGHT_CAP = 20.0  # an AU present in fewer than 1 of 21 frames would let a handful of frames rule the network
FOCAL_GAMMA, SMOOTHING = 2.0, 0.1
ASYMMETRIC_ABSENT, ASYMMETRIC_PRESENT, ASYMMETRIC_CLIP = 4.0, 1.0, 0.05


@dataclass(frozen=True)
class AUWeights:
    """What the training labels say about the AUs.

    Attributes:
        present: (K,) weight of the present frames of an AU against its absent ones: min(absent / present, 20).
        au: (K,) weight of an AU against the others, see `au_weights`.
    """

    present: Tensor
    au: Tensor


EntryLoss = Callable[[Tensor, Tensor, AUWeights], Tensor]
"""(logits (M, K) float32, targets (M, K) 0 or 1, weights) -> the loss of each entry (M, K)."""

LOSSES: dict[str, EntryLoss] = {}
"""Every supervised loss by its name."""


def register(loss: EntryLoss) -> EntryLoss:
    """Add a loss to `LOSSES` under the name of its function."""
    LOSSES[loss.__name__] = loss
    return loss


@register
def bce(x: Tensor, y: Tensor, weights: AUWeights) -> Tensor:
    """Binary cross-entropy: -y log p - (1 - y) log(1 - p), with p = sigmoid(x)."""
    return F.binary_cross_entropy_with_logits(x, y, reduction="none")  # (M, K)


@register
def bce_pos_weight(x: Tensor, y: Tensor, weights: AUWeights) -> Tensor:
    """`bce` with the present frames weighted, so that present and absent frames of an AU balance."""
    present = weights.present.to(x.device)  # (K)
    return F.binary_cross_entropy_with_logits(x, y, pos_weight=present, reduction="none")  # (M, K)


@register
def bce_au_weight(x: Tensor, y: Tensor, weights: AUWeights) -> Tensor:
    """`bce` with the AUs weighted, as the field and the released code do. It does not balance present and absent."""
    return weights.au.to(x.device) * bce(x, y, weights)  # (M, K)


@register
def focal(x: Tensor, y: Tensor, weights: AUWeights) -> Tensor:
    """Focal loss: -(1 - q)^2 log q, with q = p of the present and 1 - p of the absent (Lin et al. 2017; gamma 2).

    It has no alpha: the usual .25 would weigh the rare present frames down.
    """
    signed = torch.where(y == 1, x, -x)  # (M, K), the logit of q
    return -torch.exp(FOCAL_GAMMA * F.logsigmoid(-signed)) * F.logsigmoid(signed)  # (M, K)


@register
def asymmetric(x: Tensor, y: Tensor, weights: AUWeights) -> Tensor:
    """Asymmetric loss: -y (1 - p) log p - (1 - y) q^4 log(1 - q), q = max(p - .05, 0).

    Source: Ridnik et al. 2021, with gamma 1 for present and 4 for absent. Theirs is a sum, this enters a mean.
    """
    shifted = (torch.sigmoid(x) - ASYMMETRIC_CLIP).clamp(min=0)  # (M, K)
    present = torch.sigmoid(-x) ** ASYMMETRIC_PRESENT * F.logsigmoid(x)  # (M, K)
    absent = shifted**ASYMMETRIC_ABSENT * torch.log1p(-shifted)  # (M, K)
    return -torch.where(y == 1, present, absent)  # (M, K)


@register
def label_smoothing(x: Tensor, y: Tensor, weights: AUWeights) -> Tensor:
    """`bce` with y replaced by .9 y + .05."""
    return bce(x, (1 - SMOOTHING) * y + SMOOTHING / 2, weights)  # (M, K)


def supervised_loss(name: str, labels: Array) -> SupervisedLoss:
    """A supervised loss by name, with the weights that the training labels give.

    Args:
        name: a key of `LOSSES`.
        labels: (n, K) in {-1, 0, 1}, those of the training frames.

    Returns:
        From (logits (M, K), labels (M, K)) to a scalar, computed in float32: the mean over known entries. Without any
        it is 0, with a gradient of 0.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in LOSSES:
        raise UsageError(f"supervised loss {name!r} is unknown; expected one of {', '.join(LOSSES)}")
    present, absent = (labels == 1).sum(0), (labels == 0).sum(0)  # (K) each
    balance = torch.from_numpy(np.minimum(absent / np.maximum(present, 1), POS_WEIGHT_CAP)).float()  # (K)
    weights = AUWeights(balance, au_weights(labels))

    def loss(logits: Tensor, batch: Tensor) -> Tensor:
        batch = batch.to(logits.device)  # (M, K)
        known = batch >= 0  # (M, K)
        entries = LOSSES[name](logits.float(), (batch == 1).float(), weights)  # (M, K)
        return torch.where(known, entries, 0).sum() / known.sum().clamp(min=1)

    return loss


def au_weights(labels: Array) -> Tensor:
    """One over the rate of each AU, divided by the mean over AUs: the weights of the field and of the released code.

    They balance AUs with each other, not present and absent frames. An AU that is never present counts as seen once.

    Args:
        labels: (n, K) in {-1, 0, 1}.

    Returns:
        (K,) float32 with mean 1.
    """
    known, present = (labels >= 0).sum(0), (labels == 1).sum(0)  # (K) each
    inverse = np.maximum(known, 1) / np.maximum(present, 1)  # (K)
    return torch.from_numpy(inverse / inverse.mean()).float()
