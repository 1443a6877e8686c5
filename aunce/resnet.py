"""The residual network of the bundled backbones, in plain torch.

Names, weights at a seed and numbers are those of transformers' `ResNetModel` with basic layers (He et al., CVPR 2016):
runs of either are one. That library takes seconds to import, most of a short run's start.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class Maps(NamedTuple):
    """What a backbone gives."""

    last_hidden_state: Tensor  # (B, C, H', W')


class Config:
    """The settings of a `ResNet`, as the weights of a run keep them."""

    def __init__(self, **settings: Any) -> None:
        self.settings = {"model_type": "resnet", "layer_type": "basic"} | settings
        self.hidden_sizes: Sequence[int] = settings["hidden_sizes"]

    def to_json_string(self) -> str:
        """The settings as JSON."""
        return json.dumps(self.settings)


class Block(nn.Module):
    """Convolution, norm and, unless it ends a residual layer, ReLU."""

    def __init__(self, width: int, out: int, *, size: int = 3, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, out, size, stride, padding=size // 2, bias=False)
        self.normalization = nn.BatchNorm2d(out)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H / stride, W / stride)."""
        y: Tensor = self.activation(self.normalization(self.convolution(x)))
        return y


class Layer(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them, which is a 1 x 1 convolution where sizes change."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        changes = width != out or stride != 1
        self.shortcut = Block(width, out, size=1, stride=stride, relu=False) if changes else nn.Identity()
        self.layer = nn.Sequential(Block(width, out, stride=stride), Block(out, out, relu=False))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H / stride, W / stride)."""
        y: Tensor = self.activation(self.layer(x) + self.shortcut(x))
        return y


class Stage(nn.Module):
    """Layers of one width; the first may halve the map."""

    def __init__(self, width: int, out: int, *, stride: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Layer(out if at else width, out, 1 if at else stride) for at in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return y


class ResNet(nn.Module):
    """A residual network of basic layers.

    Args:
        embedding_size: channels of the stem.
        hidden_sizes: channels of the stages; each but the first halves the map.
        depths: layers of each stage.
        stem: side and stride of the one convolution that begins; 0: 7 x 7 with stride 2, and a pool.
    """

    def __init__(
        self, *, embedding_size: int, hidden_sizes: Sequence[int], depths: Sequence[int], stem: int = 0
    ) -> None:
        super().__init__()
        settings = {"embedding_size": embedding_size, "hidden_sizes": [*hidden_sizes], "depths": [*depths]}
        self.config = Config(**settings, **({"stem": stem} if stem else {}))
        # Modules within modules, for the names of the weights alone.
        first, pool = Block(3, embedding_size, size=7, stride=2), nn.MaxPool2d(3, 2, 1)
        self.embedder = nn.ModuleDict({"embedder": first, "pooler": pool})
        widths = [embedding_size, *hidden_sizes]
        stages = [Stage(widths[at], widths[at + 1], stride=1 + (at > 0), depth=n) for at, n in enumerate(depths)]
        self.encoder = nn.ModuleDict({"stages": nn.Sequential(*stages)})
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight)  # transformers draws each weight twice
                _draw(module)
        if stem:  # in place of a convolution that has taken its share of random numbers all the same
            first.convolution = nn.Conv2d(3, embedding_size, stem, stride=stem, bias=False)
            self.embedder["pooler"] = nn.Identity()
            _draw(first.convolution)

    def forward(self, pixel_values: Tensor) -> Maps:
        """The last map of images (B, 3, H, W)."""
        x = self.embedder["pooler"](self.embedder["embedder"](pixel_values))  # (B, C, H / 4, W / 4)
        return Maps(self.encoder["stages"](x))


def _draw(convolution: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
