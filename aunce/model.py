"""The encoder: a vision backbone, per-AU features and one layer of a graph over AUs; and the linear probe.

The head is that of ME-GraphAU's first stage (Luo et al., IJCAI 2022), which the released AUNCE code (commit bade385)
uses without its cosine classifier:

    tokens T (B, N, C)                  the backbone's last feature map, without class tokens
    F = ReLU(BN(T W))                   shared by all AUs                       (B, N, D)
    X_k = mean_N ReLU(BN_k(F W_k))      one linear layer per AU                 (B, K, D)
    X' = ReLU(X + BN_K(A V(X) + U(X)))  A: the top-4 neighbours of each AU      (B, K, D)

Axis letters everywhere in the package: V views, B images, K AUs, N tokens, D channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aunce.backbones import build_backbone, tokens, width

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AUHead(nn.Module):
    """Tokens of any backbone to one feature vector per AU, by the formulas above.

    Source: the released code (commit bade385), but for one point. Here every AU has exactly `neighbours` neighbours.
    There a threshold at the fourth largest product lets ties add neighbours, and makes all AUs neighbours at zero.

    Args:
        width: channels C of the tokens.
        aus: number of AUs K.
        channels: width D of the shared and of the per-AU features.
        neighbours: neighbours of each AU in the graph, at most K.
        final_relu: False leaves out the ReLU of the result. With it no cosine of two features is negative.
    """

    def __init__(
        self, width: int, *, aus: int, channels: int = 64, neighbours: int = 4, final_relu: bool = True
    ) -> None:
        super().__init__()
        self.aus, self.channels = aus, channels
        self.neighbours, self.final_relu = min(neighbours, aus), final_relu
        self.shared = nn.Linear(width, channels, bias=False)
        self.shared_norm = nn.BatchNorm1d(channels)
        # One matrix for the K linear layers: each output sees `channels` inputs, so torch's initialisation is that of K
        # separate layers. The norms take the place of biases.
        self.per_au = nn.Linear(channels, aus * channels, bias=False)
        self.per_au_norm = nn.BatchNorm1d(aus * channels)
        self.graph_u = nn.Linear(channels, channels)
        self.graph_v = nn.Linear(channels, channels)
        self.graph_norm = nn.BatchNorm1d(aus)

    def forward(self, features: Tensor) -> Tensor:
        """Per-AU features X (B, K, D) of tokens (B, N, C), not normalised to length 1."""
        batch, count, _ = features.shape
        shared = F.relu(self.shared_norm(self.shared(features.flatten(0, 1))))  # (B * N, D)
        per_au = F.relu(self.per_au_norm(self.per_au(shared)))  # (B * N, K * D)
        x = per_au.view(batch, count, self.aus, self.channels).mean(1)  # (B, K, D)
        messages = adjacency(x, self.neighbours) @ self.graph_v(x)  # (B, K, D)
        x = x + self.graph_norm(messages + self.graph_u(x))  # (B, K, D)
        return F.relu(x) if self.final_relu else x


class Encoder(AUHead):
    """An AU head with a backbone before it: images to one feature vector per AU.

    It is the head's subclass, so that weights keep the names that earlier runs wrote. Images are normalised with
    ImageNet's mean and standard deviation (released: those of CIFAR-10 on an ImageNet backbone).

    Args:
        backbone: a model from `backbones.build_backbone`.
        options: those of `AUHead`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, **options: Any) -> None:
        super().__init__(width(backbone), **options)
        # On a CPU convolutions over pixels with adjacent channels are 1.6 times as fast.
        self.backbone = cast(Any, backbone).to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Per-AU features X (B, K, D) of images (B, 3, H, W), RGB float in [0, 1]."""
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return super().forward(tokens(self.backbone, images))  # (B, K, D)


def adjacency(x: Tensor, neighbours: int) -> Tensor:
    """The graph of each image: row k marks the AUs whose features have the largest dot products with AU k.

    The symmetric normalisation M^(-1/2) G M^(-1/2), with M the out-degrees of the 0/1 graph G, is G / neighbours
    because every AU has as many. An AU may be its own neighbour, and usually is. No gradient passes through the choice.

    Args:
        x: (B, K, D).
        neighbours: at most K.

    Returns:
        (B, K, K), each row with `neighbours` entries of 1 / neighbours.
    """
    x = x.detach()
    products = x @ x.transpose(1, 2)  # (B, K, K)
    top = products.topk(neighbours).indices  # (B, K, neighbours)
    return torch.zeros_like(products).scatter_(2, top, 1 / neighbours)


class LinearProbe(nn.Module):
    """One linear layer per AU: logit_k = x_k . w_k + b_k, from X (B, K, D) to logits (B, K)."""

    def __init__(self, aus: int, channels: int) -> None:
        super().__init__()
        bound = channels**-0.5  # as torch initialises a linear layer with `channels` inputs
        self.weight = nn.Parameter(torch.empty(aus, channels).uniform_(-bound, bound))  # (K, D)
        self.bias = nn.Parameter(torch.zeros(aus))  # (K)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of features X (B, K, D)."""
        return (x * self.weight).sum(2) + self.bias  # (B, K), twice as fast as a batched product


def build_encoder(
    backbone: str,
    *,
    aus: int,
    channels: int,
    seed: int,
    revision: str | None = None,
    final_relu: bool = True,
) -> Encoder:
    """Build backbone and head with weights that depend on `seed` alone; no global generator moves.

    Args:
        backbone: see `backbones.build_backbone`.
        aus: number of AUs K.
        channels: width D.
        seed: of the random weights.
        revision: see `backbones.build_backbone`.
        final_relu: see `Encoder`.

    Raises:
        UsageError: see `backbones.build_backbone`.
    """
    with seeded(seed):
        return Encoder(build_backbone(backbone, revision=revision), aus=aus, channels=channels, final_relu=final_relu)


def build_probe(aus: int, channels: int, *, seed: int) -> LinearProbe:
    """A linear probe, or the head of a supervised method, with weights that depend on `seed` alone."""
    with seeded(seed):
        return LinearProbe(aus, channels)


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seed torch's global generators of the CPU and of `device`, and give them back as they were."""
    kind = torch.device(device).type
    devices = [] if kind == "cpu" else [torch.device(device)]
    with torch.random.fork_rng(devices=devices, device_type=kind if devices else "cuda"):
        torch.default_generator.manual_seed(seed)
        if devices:
            getattr(torch, kind).manual_seed(seed)
        yield


def count_operations(encoder: Encoder, *, images: int, pixels: int) -> int:
    """Operations of a forward and a backward pass, a multiplication and an addition being two.

    Args:
        encoder: may lie on the device "meta", where nothing is computed.
        images: that go through it.
        pixels: side of the images.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        encoder(torch.empty(images, 3, pixels, pixels, device=encoder.mean.device)).sum().backward()
    return int(counter.get_total_flops())
