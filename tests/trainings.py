"""Shared by the tests of training, probe and encoder: tiny images, a tiny encoder and a stand-in for a loss."""

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from aunce.model import build_encoder
from aunce.training import Optimisation, Training, fit_supervised, pretrain

AUS = (1, 2, 12)

_random = np.random.default_rng(0)
LABELS = _random.choice([-1, 0, 1], p=[0.1, 0.5, 0.4], size=(21, 3)).astype(np.int8)
IMAGES = _random.integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)


class Killed(Exception):
    """What ends a training that a test kills."""


def contrast(z, labels, generator, anchors=None):
    """A stand-in that uses everything a contrastive loss may: features, known labels and a draw."""
    z = F.normalize(z, dim=3)
    known = (labels >= 0).to(z.dtype)
    pull = 1 - (z[0] * z[1]).sum(2)  # (B, K)
    spread = torch.einsum("bkd,ckd->kbc", z[0], z[1]).exp().mean((1, 2)).log()  # (K)
    return (pull * known).mean() + torch.rand((), generator=generator) * spread.mean()


def swin(folder):
    """The name of a tiny Swin that draws while it trains: drop-out and stochastic depth."""
    transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4,
        drop_path_rate=0.5, hidden_dropout_prob=0.2,
    ).save_pretrained(folder / "swin")  # fmt: skip
    return str(folder / "swin")


def tiny(backbone="small", seed=0):
    return build_encoder(backbone, aus=3, channels=8, seed=seed)


def settings(**changes):
    return Optimisation(**{"epochs": 4, "batch_size": 5, "learning_rate": 1e-2} | changes)


def quiet(_line):
    pass


def fit(encoder, images=IMAGES, labels=LABELS, *, loss=contrast, head=None, epochs=4, **options):
    """Train; with a head, supervised."""
    defaults = {"optimisation": settings(epochs=epochs), "seed": 0, "log": quiet}
    training = Training(images=images, labels=labels, **defaults | options)
    if head is None:
        return pretrain(encoder, loss, training)
    return fit_supervised(encoder, head, loss, training)


def same(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def timeless(history):
    return history.drop(columns="seconds")
