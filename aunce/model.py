"""The encoder: a vision backbone, per-AU features and one layer of a graph over AUs; and the linear probe.

The head is that of ME-GraphAU's first stage (Luo et al., IJCAI 2022), which the released AUNCE code (commit bade385)
uses without its cosine classifier:

    tokens T (B, N, C)                  the backbone's last feature map, without class tokens
    F = ReLU(BN(T W))                   shared by all AUs                       (B, N, D)
    X_k = mean_N ReLU(BN_k(F W_k))      one linear layer per AU                 (B, K, D)
    X' = ReLU(X + BN_K(A V(X) + U(X)))  A: the top-4 neighbours of each AU      (B, K, D)

Axis letters everywhere in the package: V views, B images, K AUs, N tokens, D channels.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from aunce.errors import UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _small() -> "PretrainedConfig":
    from transformers import ResNetConfig  # here and below: importing transformers takes seconds

    return ResNetConfig(layer_type="basic", embedding_size=24, hidden_sizes=[24, 48, 96], depths=[1, 1, 1])


def _resnet_18() -> "PretrainedConfig":
    from transformers import ResNetConfig

    return ResNetConfig(layer_type="basic", embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2])


def _swin_base() -> "PretrainedConfig":
    from transformers import SwinConfig

    return SwinConfig(
        image_size=224,
        patch_size=4,
        embed_dim=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        window_size=7,
        drop_path_rate=0.5,  # as in the released code; the hub's configuration says 0.1
    )


BACKBONES: dict[str, Callable[[], "PretrainedConfig"]] = {
    "small": _small,
    "resnet-18": _resnet_18,
    "swin-base": _swin_base,
}
"""Bundled configurations with random weights: a ResNet for laptops (9 tokens of 96 channels at 48 px, 0.18 M weights),
the 18-layer ResNet for the GPU size of studies (16 tokens of 512 channels at 112 px, 11 M weights), and the paper's
Swin-B (49 tokens of 1024 channels at 224 px, 87 M weights)."""


def build_backbone(name: str, *, revision: str | None = None) -> nn.Module:
    """Build a Hugging Face vision model by bundled name, local folder or hub name.

    Args:
        name: a key of `BACKBONES` (random weights); or a folder with `config.json` and, unless the weights are to be
            random, safetensors weights; or the name of a model on the hub.
        revision: the commit of a hub model. Needed for the hub, refused elsewhere.

    Returns:
        The model, in training mode and float32.

    Raises:
        UsageError: a hub name without a pinned revision, a revision where none belongs, or a model that cannot be read.
    """
    folder = Path(name)
    if name in BACKBONES or folder.is_dir():
        if revision is not None:
            raise UsageError(f"backbone {name!r}: a revision belongs to a hub name only; leave it out")
    elif revision is None or not re.fullmatch("[0-9a-f]{40}", revision):
        raise UsageError(
            f"backbone {name!r} is neither bundled ({', '.join(BACKBONES)}) nor a folder; a model of the hub needs a "
            f"pinned revision, the 40 hex digits of a commit, got {revision!r}"
        )
    import transformers

    # Its classes build themselves and carry no types.
    auto_model: Any = transformers.AutoModel

    try:
        if name in BACKBONES:
            model = auto_model.from_config(BACKBONES[name]())
        elif folder.is_dir() and not any(folder.glob("*.safetensors")):
            pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".h5"))
            if pickles:  # whoever brought weights does not mean random ones
                raise UsageError(
                    f"backbone {name!r}: holds {pickles[0]} and no safetensors, and nothing else is read; download "
                    "model.safetensors into it, or remove the file to start from random weights"
                )
            model = auto_model.from_config(transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False))
        else:
            # Safetensors only: other weight files are pickles, which run code when they are read.
            model = auto_model.from_pretrained(
                name, revision=revision or "main", use_safetensors=True, trust_remote_code=False, dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        raise UsageError(f"backbone {name!r} cannot be read as a vision model: {error}") from error
    return cast(nn.Module, model.train())


def tokens(backbone: nn.Module, images: Tensor) -> Tensor:
    """The backbone's last feature map as tokens.

    Maps of convolutional networks are flattened row by row; class, distillation and register tokens, which stand in
    front of the patches, are dropped.

    Args:
        backbone: a model from `build_backbone`.
        images: (B, 3, H, W), normalised as the backbone expects.

    Returns:
        (B, N, C).
    """
    features: Tensor = backbone(images).last_hidden_state  # (B, C, H', W') or (B, T, C)
    if features.ndim == 4:
        return features.flatten(2).transpose(1, 2)  # (B, N, C)
    patch = getattr(backbone.config, "patch_size", None)
    if patch is None:
        return features  # (B, N, C)
    patch_height, patch_width = (patch, patch) if isinstance(patch, int) else patch
    patches = (images.shape[-2] // patch_height) * (images.shape[-1] // patch_width)
    # Hierarchical models such as Swin end with fewer tokens than patches: nothing is dropped there.
    return features[:, max(features.shape[1] - patches, 0) :]  # (B, N, C)


class Encoder(nn.Module):
    """Backbone and AU head: images to one feature vector per AU.

    Source: the released code (commit bade385), but for two points. Images are normalised with ImageNet's mean and
    standard deviation (released: those of CIFAR-10 on an ImageNet backbone), and every AU has exactly `neighbours`
    neighbours (released: a threshold at the fourth largest product, so that ties add neighbours, and all AUs at zero).

    Args:
        backbone: a model from `build_backbone`.
        aus: number of AUs K.
        channels: width D of the shared and of the per-AU features.
        neighbours: neighbours of each AU in the graph, at most K.
        final_relu: False leaves out the ReLU of the result, whose features then are no longer confined to angles of at
            most 90 degrees.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, *, aus: int, channels: int = 64, neighbours: int = 4, final_relu: bool = True
    ) -> None:
        super().__init__()
        self.aus, self.channels = aus, channels
        self.neighbours, self.final_relu = min(neighbours, aus), final_relu
        # On a CPU convolutions over pixels with adjacent channels are 1.6 times as fast.
        self.backbone = cast(Any, backbone).to(memory_format=torch.channels_last)
        self.shared = nn.Linear(_width(backbone), channels, bias=False)
        self.shared_norm = nn.BatchNorm1d(channels)
        # One matrix for the K linear layers: each output sees `channels` inputs, so torch's initialisation is that of K
        # separate layers. The norms take the place of biases.
        self.per_au = nn.Linear(channels, aus * channels, bias=False)
        self.per_au_norm = nn.BatchNorm1d(aus * channels)
        self.graph_u = nn.Linear(channels, channels)
        self.graph_v = nn.Linear(channels, channels)
        self.graph_norm = nn.BatchNorm1d(aus)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W) float in [0, 1], RGB.

        Returns:
            X (B, K, D): one feature vector per AU, not normalised to length 1.
        """
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features = tokens(self.backbone, images)  # (B, N, C)
        batch, count, _ = features.shape
        shared = F.relu(self.shared_norm(self.shared(features.flatten(0, 1))))  # (B * N, D)
        per_au = F.relu(self.per_au_norm(self.per_au(shared)))  # (B * N, K * D)
        x = per_au.view(batch, count, self.aus, self.channels).mean(1)  # (B, K, D)
        messages = adjacency(x, self.neighbours) @ self.graph_v(x)  # (B, K, D)
        x = x + self.graph_norm(messages + self.graph_u(x))  # (B, K, D)
        return F.relu(x) if self.final_relu else x


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
    top = (x @ x.transpose(1, 2)).topk(neighbours).indices  # (B, K, neighbours)
    graph = torch.zeros(len(x), x.shape[1], x.shape[1], dtype=x.dtype, device=x.device)  # (B, K, K)
    return graph.scatter_(2, top, 1 / neighbours)


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
        backbone: see `build_backbone`.
        aus: number of AUs K.
        channels: width D.
        seed: of the random weights.
        revision: see `build_backbone`.
        final_relu: see `Encoder`.

    Raises:
        UsageError: see `build_backbone`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Encoder(build_backbone(backbone, revision=revision), aus=aus, channels=channels, final_relu=final_relu)


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


def load_backbone(encoder: Encoder, path: Path) -> None:
    """Give the encoder the backbone, buffers included, that a run left at `path`; its head stays as it is.

    Args:
        encoder: changed in place.
        path: safetensors of an encoder (`study.WEIGHTS` in the folder of its run).

    Raises:
        UsageError: there is no such file of safetensors, or it holds another backbone.
    """
    try:
        stored = safetensors.torch.load_file(path)
        prefix = "backbone."
        encoder.backbone.load_state_dict(
            {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
        )
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UsageError(f"start = {path} does not hold weights of this backbone: {error}") from None


def _width(backbone: nn.Module) -> int:
    """Channels C of the last feature map: configurations name it in two ways."""
    config = cast(Any, backbone).config
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)
