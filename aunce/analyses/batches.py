"""What depends on the batch: rare AUs among its images, noise of the gradient, and labels with the code 9.

The losses are those of `aunce.losses`, the embeddings those of `aunce.analyses.anatomy`.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from aunce.analyses.anatomy import IMAGES, PRESENT, STATES, anchor_losses, forces_of, occurrence, state
from aunce.losses import aunce_loss


def positives(rates: Sequence[float] = (0.02, 0.05, 0.1), batches: Sequence[int] = (32, 64, 128, 256)) -> pd.DataFrame:
    """Images with a rare AU in a batch of independent frames: expected number, P(none) and P(exactly one), binomial."""
    rows = [
        {
            "prevalence": rate,
            "images": images,
            "expected": rate * images,
            "none": float(stats.binom.pmf(0, images, rate)),
            "one": float(stats.binom.pmf(1, images, rate)),
        }
        for rate, images in itertools.product(rates, batches)
    ]
    return pd.DataFrame(rows)


@cache
def batch_noise(rates: Sequence[float] = (0.5, 0.05), batches: Sequence[int] = (16, 32, 64, 128)) -> pd.DataFrame:
    """Loss and gradient noise of batches drawn at random: released, expected over the branches.

    The gradient is that by a unit matrix which all embeddings are multiplied with: a parameter that batches share.

    Returns:
        One row per prevalence and batch: loss (mean), spread (standard deviation), noise (that of the gradient, over
        the length of the mean gradient), empty (share of batches with one label only, whose gradient is exactly 0).
    """
    channels, trials = 32, 40
    rows = []
    for rate, images in itertools.product(rates, batches):
        generator = torch.Generator().manual_seed(0)
        weight = torch.eye(channels, dtype=torch.float64).requires_grad_()
        losses, gradients = [], []
        for trial in range(trials):
            labels = (torch.rand(images, 1, generator=generator) < rate).to(torch.int8)
            z = _shared_clusters(labels, channels, seed=trial)
            loss = aunce_loss(z @ weight, labels, positive="expected")
            losses.append(loss.item())
            gradients.append(torch.autograd.grad(loss, weight)[0].flatten())
        g = torch.stack(gradients)  # (trials, D * D)
        noise = ((g - g.mean(0)) ** 2).sum(1).mean().sqrt() / g.mean(0).norm()
        rows.append(
            {
                "prevalence": rate,
                "images": images,
                "loss": np.mean(losses),
                "spread": np.std(losses),
                "noise": noise.item(),
                "empty": (g.abs().amax(1) == 0).double().mean().item(),
            }
        )
    return pd.DataFrame(rows)


def _shared_clusters(labels: Tensor, channels: int, seed: int) -> Tensor:
    """Embeddings (2, B, 1, D) as "labels half seen", with the same directions of labels in every batch."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    view, same, other = STATES["labels half seen"]
    axes = torch.eye(3, channels, dtype=torch.float64)  # common, absent, present
    centre = math.sqrt(other) * axes[0] + math.sqrt(same - other) * axes[1 + labels[:, 0].long()]  # (B, D)
    scale = channels**-0.5
    of_image, of_view = (
        scale * torch.randn(*shape, channels, generator=generator, dtype=torch.float64)
        for shape in ((len(labels),), (2, len(labels)))
    )
    z = centre + math.sqrt(view - same) * of_image + math.sqrt(1 - view) * of_view  # (2, B, D)
    return F.normalize(z, dim=-1)[:, :, None]  # (2, B, 1, D)


# ------------------------------------------------------------------------------------------------------ unknown codes


def published_rule(z: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The losses (2B,) if every label value is a class, as released: equal values are positives, others negatives.

    The released code keeps the sum over negatives for the labels 0 and 1 alone. So an anchor with another value has no
    negatives and a loss of 0. It is put together from `aunce_loss`: for a present anchor all rows but those with 1 are
    negatives, for an absent anchor all but those with 0.
    """
    y = labels[:, 0].repeat(2)  # (2B,)
    for_present = anchor_losses(z, (labels == 1).to(torch.int8), **options)  # (2B,)
    for_absent = anchor_losses(z, (labels != 0).to(torch.int8), **options)  # (2B,)
    return torch.where(y == 1, for_present, torch.where(y == 0, for_absent, 0 * for_present))


@cache
def unknowns(coded: int = 4) -> pd.DataFrame:
    """D16: a batch in which some images carry the code 9, and three ways to treat them.

    Args:
        coded: images with the code 9, half of which are truly present.

    Returns:
        One row per way: 9 as a class, unknown (-1), the truth. Columns: loss, mean over its anchors; repelled, pairs of
        anchor and row that repel; false, those of them whose true labels are equal; from_9, share of the repulsion on
        known anchors that comes from images coded 9; on_9, sum of the sizes of all gradients of anchors coded 9;
        cosine, of the gradient by the images whose label is known with that under the true labels.
    """
    truth = occurrence(PRESENT)
    at = torch.tensor([*range(PRESENT - coded // 2, PRESENT), *range(IMAGES - coded + coded // 2, IMAGES)])
    nine, unknown = truth.clone(), truth.clone()
    nine[at], unknown[at] = 9, -1
    z = state("labels half seen", truth)
    y_true = truth[:, 0].repeat(2)
    is_9 = (nine[:, 0] == 9).repeat(2)  # (2B,)
    options = {"positive": "expected"}
    ways = {
        "9 is a class (released)": (published_rule, nine),
        "unknown (here)": (anchor_losses, unknown),
        "the true label": (anchor_losses, truth),
    }
    rows, gradients = [], {}
    for way, (losses_of, labels) in ways.items():
        leaf = z.detach().requires_grad_()
        losses = losses_of(leaf, labels, **options)  # (2B,)
        each = torch.stack([torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in losses])
        each = each.flatten(1, 3)  # (2B, 2B, D)
        forces = forces_of(each, z)  # (2B, 2B)
        known = labels[:, 0].repeat(2) != -1
        gradients[way] = each.sum(0)[~is_9].flatten()
        repelled = forces > 1e-12
        push = forces.clamp(min=0)[~is_9]
        rows.append(
            {
                "way": way,
                "loss": (losses.sum() / known.sum()).item(),
                "repelled": int(repelled.sum()),
                "false": int((repelled & (y_true[:, None] == y_true)).sum()),
                "from_9": (push[:, is_9].sum() / push.sum()).item(),
                "on_9": each[is_9].abs().sum().item(),
            }
        )
    best = gradients["the true label"]
    cosines = [F.cosine_similarity(gradient, best, dim=0).item() for gradient in gradients.values()]
    return pd.DataFrame(rows).assign(cosine=cosines)
