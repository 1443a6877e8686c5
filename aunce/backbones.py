"""Backbones: Hugging Face vision models, built without running foreign code, and their last feature map as tokens.

Importing this module needs torch alone. transformers and safetensors are imported when a backbone is built or read.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from aunce.errors import UsageError
from aunce.resnet import ResNet

RESNET = {"model_type": "resnet", "layer_type": "basic"}
BACKBONES: dict[str, dict[str, Any]] = {
    "small": {**RESNET, "embedding_size": 24, "hidden_sizes": [24, 48, 96], "depths": [1, 1, 1]},
    "patch": {**RESNET, "embedding_size": 24, "hidden_sizes": [24, 48, 96], "depths": [1, 1, 1], "stem": 4},
    "resnet-18": {**RESNET, "embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]},
    "swin-base": {
        "model_type": "swin",
        "image_size": 224,
        "patch_size": 4,
        "embed_dim": 128,
        "depths": [2, 2, 18, 2],
        "num_heads": [4, 8, 16, 32],
        "window_size": 7,
        "drop_path_rate": 0.5,  # as in the released code; the hub's configuration says 0.1
    },
}
"""Bundled configurations of transformers, with random weights: a ResNet for laptops (9 tokens of 96 channels at 48 px,
0.18 M weights); `patch`, the same with a stem of one 4 x 4 convolution with stride 4 in place of one of 7 x 7 with
stride 2 and a pool, which takes half the time; the 18-layer ResNet for the GPU size of studies (16 tokens of 512
channels at 112 px, 11 M weights); and the paper's Swin-B (49 tokens of 1024 channels at 224 px, 87 M weights)."""


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
    try:
        return _build(name, folder, revision).train()
    except UsageError:
        raise
    except Exception as error:  # a foreign configuration ends in errors of any kind
        said = f"{type(error).__name__}: {error}"
        raise UsageError(f"backbone {name!r} cannot be read as a vision model: {said}") from error


def _build(name: str, folder: Path, revision: str | None) -> nn.Module:
    settings = BACKBONES.get(name) or _settings(folder)
    if not any(folder.glob("*.safetensors")) and (own := _resnet(settings)):
        return own
    import transformers

    # Its classes build themselves and carry no types.
    auto_model: Any = transformers.AutoModel
    if name in BACKBONES:
        return cast(nn.Module, auto_model.from_config(transformers.AutoConfig.for_model(**settings)))
    if not folder.is_dir():
        import huggingface_hub

        wanted = ["config.json", "*.safetensors", "*.safetensors.index.json"]
        folder = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted))
    if any(folder.glob("*.safetensors")):
        _check_index(name, folder)
        return cast(
            nn.Module,
            auto_model.from_pretrained(folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32),
        )
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".h5"))
    if pickles:  # whoever brought weights does not mean random ones
        raise UsageError(
            f"backbone {name!r}: holds {pickles[0]} and no safetensors, and nothing else is read; download "
            "model.safetensors into it, or remove the file to start from random weights"
        )
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return cast(nn.Module, auto_model.from_config(config))


def _settings(folder: Path) -> dict[str, Any]:
    """The configuration in a folder; empty where there is none, or none that can be read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _resnet(settings: Mapping[str, Any]) -> nn.Module | None:
    """The model of a configuration that says of a residual network what ours has, and nothing else; else None."""
    needed = {"embedding_size", "hidden_sizes", "depths"}
    of_ours = settings.items() >= RESNET.items() and needed <= settings.keys() <= needed | RESNET.keys() | {"stem"}
    return ResNet(**{name: value for name, value in settings.items() if name not in RESNET}) if of_ours else None


def _check_index(name: str, folder: Path) -> None:
    """Refuse an index of weights that names anything but safetensors in its folder: other files are pickles, which run
    code when they are read."""
    for index in folder.glob("*.index.json"):
        files = json.loads(index.read_text())["weight_map"].values()
        for file in files:
            if not (isinstance(file, str) and re.fullmatch(r"[\w.-]+\.safetensors", file)):
                raise UsageError(f"backbone {name!r}: {index.name} names {file!r}; only safetensors beside it are read")


def outline(name: str) -> nn.Module:
    """The model of `build_backbone` by its configuration alone, for its sizes.

    Raises:
        UsageError: no bundled name, and no folder with a configuration that can be read.
    """
    if name not in BACKBONES and not (Path(name) / "config.json").is_file():
        raise UsageError(
            f"backbone '{name}': no folder with a config.json; bundled are {', '.join(BACKBONES)}, and one of the hub "
            "needs its revision, 40 hex digits"
        )
    try:
        config = BACKBONES.get(name) or json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
        if own := _resnet(config):
            return own
        import transformers

        auto_model: Any = transformers.AutoModel
        return cast(nn.Module, auto_model.from_config(transformers.AutoConfig.for_model(**config)))
    except Exception as error:  # a foreign configuration ends in errors of any kind
        said = f"{type(error).__name__}: {error}"
        raise UsageError(f"backbone {name!r} cannot be read as a vision model: {said}") from error


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


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Give a backbone the weights and buffers of the backbone that a run left at `path`.

    Args:
        backbone: changed in place.
        path: safetensors of an encoder (`study.grid.WEIGHTS` in the folder of its run); its head is not read.

    Raises:
        UsageError: there is no such file of safetensors, or it holds another backbone.
    """
    import safetensors.torch

    prefix = "backbone."
    try:
        stored = safetensors.torch.load_file(path)
        backbone.load_state_dict(
            {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
        )
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        raise UsageError(f"start = {path} does not hold weights of this backbone: {error}") from None


def width(backbone: nn.Module) -> int:
    """Channels C of the last feature map, which configurations name in two ways."""
    config = cast(Any, backbone).config
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)
