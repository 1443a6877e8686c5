"""Measurements of training steps: this project beside the released path."""

import datetime
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from torch import Generator, Tensor
from torch.utils import benchmark
from torch.utils.data import DataLoader, Dataset

from aunce import files
from aunce.analyses.published_loss import published_loss
from aunce.analyses.timing import (
    Pair,
    Place,
    Work,
    batch,
    branches,
    compare_losses,
    forward_backward,
    pair,
    rates,
    timer,
)
from aunce.backbones import build_backbone
from aunce.losses import AUNCELoss, aunce_loss
from aunce.model import Encoder, build_encoder, count_operations
from aunce.study.results import hardware, provenance
from aunce.training import Optimisation, Training, pretrain
from aunce.views import two_views

Epoch = Callable[[], float]
"""Trains for `Setting.steps` steps and returns the seconds that it took."""


@dataclass(frozen=True)
class Setting:
    """A training to time.

    Attributes:
        backbone: see `build_backbone`.
        pixels: side of the images.
        images: of a step.
        aus: K.
        channels: D.
        device: where it runs.
        precision: of this project's network; the other side's is float32.
        compiled: whether this project's network is compiled.
        steps: of a measurement.
    """

    backbone: str = "small"
    pixels: int = 48
    images: int = 32
    aus: int = 12
    channels: int = 64
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    compiled: bool = False
    steps: int = 20

    def encoder(self) -> Encoder:
        """A new network on `device`, in float32; its weights are the same at every call."""
        return build_encoder(self.backbone, aus=self.aus, channels=self.channels, seed=0).to(self.device)

    def data(self) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """Random images (n, H, W, 3) for `steps` batches, and labels (n, K)."""
        random = np.random.default_rng(0)
        count = self.steps * self.images
        images = random.integers(0, 256, (count, self.pixels, self.pixels, 3), dtype=np.uint8)
        return images, (random.random((count, self.aus)) < np.linspace(0.15, 0.6, self.aus)).astype(np.int8)


BIG = Setting("swin-base", 224, 64, 12, 1024, "cuda", "bf16", steps=10)
"""The training whose speed counts on a GPU: the paper's network and size of images."""
ROUNDS = 3  # of its pairs: the released path takes a second a step on a good GPU


def compare_steps(setting: Setting, *, workers: int = 4, rounds: int = 5) -> pd.DataFrame:
    """Training steps of this project beside those of the released path.

    The released path, as far as it is known: two forward passes in float32, the published loss run eagerly, an
    optimizer without fused kernels, and views made image by image with Pillow in worker processes. The turn of the hue
    is left out on both sides.

    Returns:
        One row each for "model alone" (views given) and "end to end" (from uint8 images in memory): part, other and
        ours (images a second), ratio, low, high (of the pairs).
    """
    images, labels = setting.data()
    views = two_views(torch.from_numpy(images[: setting.images]).to(setting.device), seed=0)  # (2, B, 3, H, W)
    batch_labels = torch.from_numpy(labels[: setting.images])
    released, ours = (_step(setting, views, batch_labels, ours=which) for which in (False, True))
    epochs = _released_epoch(setting, images, labels, workers), our_epoch(setting, images, labels)
    rows = [
        _compared(setting, "model alone", _repeat(setting, released), _repeat(setting, ours), rounds),
        _compared(setting, "end to end", *epochs, rounds),
    ]
    return pd.DataFrame(rows)


def from_disk(setting: Setting, *, rounds: int = 5) -> pd.DataFrame:
    """An epoch from a memory-mapped file on disk beside the same steps on one batch that is on the device already.

    Returns:
        One row as of `compare_steps`, with part "from a pack on disk". A ratio of 1 means that reading costs no time.
    """
    images, labels = setting.data()
    with tempfile.TemporaryDirectory(prefix="aunce-") as folder:
        np.save(Path(folder) / "images.npy", images)
        mapped = np.load(Path(folder) / "images.npy", mmap_mode="r")
        pixels = torch.from_numpy(images[: setting.images]).to(setting.device)
        ready = _step(setting, pixels, torch.from_numpy(labels[: setting.images]), ours=True)
        epochs = _repeat(setting, ready), our_epoch(setting, mapped, labels)
        return pd.DataFrame([_compared(setting, "from a pack on disk", *epochs, rounds)])


def _compared(setting: Setting, part: str, other: Epoch, ours: Epoch, rounds: int) -> dict[str, str | float]:
    """A row of `compare_steps`: both sides take turns, and the first round warms up."""
    taken = Pair.of([(other(), ours()) for _ in range(rounds + 1)][1:])
    images = setting.images * setting.steps
    return {"part": part} | taken.columns("other", "ours") | {"other": images / taken.slow, "ours": images / taken.fast}


def _repeat(setting: Setting, step: Work) -> Epoch:
    return lambda: timer(step).timeit(setting.steps).mean * setting.steps


def _step(setting: Setting, views: Tensor, labels: Tensor, *, ours: bool) -> Work:
    """One step on views (2, B, 3, H, W), or on pixels (B, H, W, 3) uint8, that are on the device."""
    encoder = setting.encoder().train()
    forward = torch.compile(encoder) if ours and setting.compiled else encoder
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5, fused=ours, foreach=False)
    precise = setting.precision == "fp32" or not ours
    branch = branches(setting.aus)
    on_device, of_branch = labels.to(setting.device), branch.to(setting.device)

    def step() -> None:
        optimizer.zero_grad()
        given = two_views(views, seed=0) if views.dtype == torch.uint8 else views
        with torch.autocast(torch.device(setting.device).type, torch.bfloat16, enabled=not precise):
            if ours:
                z = forward(given.flatten(0, 1)).unflatten(0, (2, -1))  # (2, B, K, D)
            else:
                z = torch.stack([forward(view) for view in given])  # (2, B, K, D)
        loss = aunce_loss(z, labels, branch=branch) if ours else published_loss(z, on_device, of_branch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def operations(setting: Setting) -> int:
    """Operations of one step of the network, forward and backward, see `count_operations`."""
    with torch.device("meta"):
        encoder = Encoder(build_backbone(setting.backbone), aus=setting.aus, channels=setting.channels)
        return count_operations(encoder, images=2 * setting.images, pixels=setting.pixels)


def our_epoch(setting: Setting, images: NDArray[np.uint8], labels: NDArray[np.int8]) -> Epoch:
    """Trains two epochs by `training.pretrain`; the seconds are those of the second."""
    encoder = setting.encoder()
    training = Training(
        images=images,
        labels=labels,
        optimisation=Optimisation(epochs=2, batch_size=setting.images, learning_rate=1e-5),
        seed=0,
        device=setting.device,
        precision=setting.precision,
        compiled=setting.compiled,
        log=lambda line: None,
    )
    criterion = AUNCELoss.released()

    def loss(z: Tensor, y: Tensor, generator: Generator, anchors: slice | None) -> Tensor:
        return torch.as_tensor(criterion(z, y, generator=generator, anchors=anchors))

    def epoch() -> float:
        return float(pretrain(encoder, loss, training)["seconds"].iloc[-1])

    return epoch


def tried(setting: Setting, *, images: int, rounds: int = 5) -> pd.DataFrame:
    """Alternatives that are not used, each beside what is used.

    Args:
        setting: a training on a CPU.
        images: of the loss.
        rounds: pairs of measurements.

    Returns:
        One row per way: what, tried_s, used_s, ratio (tried / used), low, high.
    """
    z, labels, branch = batch(images)
    rows, aus, channels = 2 * images, z.shape[2], z.shape[3]
    x = z.detach().flatten(0, 1).transpose(0, 1).contiguous()  # (K, 2B, D)
    pulls = torch.randn(aus, rows, rows)
    strided = torch.empty(rows, aus, channels).transpose(0, 1)  # (K, 2B, D), in memory as z is
    low, full = (
        _step(
            replace(setting, precision=precision),
            torch.rand(2, setting.images, 3, setting.pixels, setting.pixels),
            torch.ones(setting.images, setting.aus, dtype=torch.int8),
            ours=True,
        )
        for precision in ("bf16", "fp32")
    )
    ways: dict[str, tuple[Work, Work]] = {
        "a training step in bf16 (autocast) for float32": (low, full),
        "loss in two chunks for one piece": (
            forward_backward(partial(aunce_loss, labels=labels, branch=branch, chunk_size=images), z),
            forward_backward(partial(aunce_loss, labels=labels, branch=branch), z),
        ),
        "the gradient's product written in the order of z for a product and a copy": (
            lambda: torch.bmm(pulls, x, out=strided),
            lambda: strided.copy_(torch.bmm(pulls, x)),
        ),
        "dot products of rows as products of matrices for a product and a sum": (
            lambda: torch.bmm(x.view(-1, 1, channels), x.view(-1, channels, 1)),
            lambda: (x * x).sum(-1),
        ),
    }
    found = []
    for what, (one, other) in ways.items():
        found.append({"what": what} | pair(one, other, rounds=rounds).columns("tried_s", "used_s"))
    return pd.DataFrame(found)


class _PerImage(Dataset[tuple[Tensor, Tensor, int]]):
    """Two views of each image, made one by one with Pillow."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        random = np.random.default_rng(index)
        first, second = (pillow_view(Image.fromarray(self.images[index]), random) for _ in range(2))
        return first, second, index


def pillow_view(image: Image.Image, random: np.random.Generator) -> Tensor:
    """A random view (3, H, W) of an image, by the recipe of `aunce.views` but for the turn of the hue."""
    width, height = image.size
    area = random.uniform(0.75, 1)
    low, high = np.log(max(0.9, area)), np.log(min(1.1, 1 / area))
    ratio = np.exp(random.uniform(low, high))
    wide, tall = width * np.sqrt(area * ratio), height * np.sqrt(area / ratio)
    left, top = random.uniform(0, width - wide), random.uniform(0, height - tall)
    view = image.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + tall))
    if random.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < 0.8:
        enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
        for enhancer in random.permutation(np.array(enhancers, dtype=object)):
            view = enhancer(view).enhance(random.uniform(0.6, 1.4))
    if random.random() < 0.2:
        view = view.convert("L").convert("RGB")
    if random.random() < 0.5:
        view = view.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2)))
    return torch.from_numpy(np.array(view)).permute(2, 0, 1).float() / 255  # (3, H, W)


def _released_epoch(setting: Setting, images: NDArray[np.uint8], labels: NDArray[np.int8], workers: int) -> Epoch:
    """An epoch of the released path. Its workers are started before the first one."""
    encoder = setting.encoder().train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5, foreach=False)
    loader = DataLoader(
        _PerImage(images), setting.images, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    branch = branches(setting.aus).to(setting.device)

    def epoch() -> float:
        started = benchmark.timer()
        for first, second, rows in loader:
            optimizer.zero_grad()
            z = torch.stack([encoder(view.to(setting.device)) for view in (first, second)])  # (2, B, K, D)
            loss = published_loss(z, torch.from_numpy(labels[rows.numpy()]).to(setting.device), branch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return float(benchmark.timer() - started)

    return epoch


def measure_gpu(path: Path) -> dict[str, Any]:
    """Measure what takes a GPU: a few minutes, on an idle one.

    Args:
        path: the record, written again after each part: what stands then is kept if the machine is taken away.

    Returns:
        Its content: date, revision, hardware, torch; rates (see `timing.rates`, bf16), operations (of a step of the
        network), and rows of `losses` (at 512 images in bf16), `compiled` and `eager` (see `compare_steps`) and `disk`
        (see `from_disk`).
    """
    place = Place("cuda", torch.bfloat16)
    parts: dict[str, Callable[[], Any]] = {
        "rates": lambda: rates(place),
        "operations": lambda: operations(BIG),
        "losses": lambda: _rows(compare_losses([512], place=place)),
        "compiled": lambda: _rows(compare_steps(replace(BIG, compiled=True), rounds=ROUNDS)),
        "eager": lambda: _rows(compare_steps(BIG, rounds=ROUNDS)),
        "disk": lambda: _rows(from_disk(BIG, rounds=ROUNDS)),
    }
    record = {
        "date": datetime.date.today().isoformat(),
        "revision": provenance("cuda", 1)["revision"],
        "hardware": hardware("cuda"),
        "torch": torch.__version__,
    }
    for name, measure in parts.items():
        record[name] = measure()
        files.write(path, json.dumps(record, indent=1) + "\n")
    return record


def _rows(table: pd.DataFrame) -> Any:
    return json.loads(table.to_json(orient="records"))
