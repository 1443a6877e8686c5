"""Measurements of time and memory: of the pieces, of what they are compared with, and of what the machine can do.

Two sides of a ratio are timed in turn in one process, after a warm-up; a ratio is the median of the pairs' ratios, so
that a machine that is slower for a while is slower for both. Memory is counted, not sampled: the bytes of all tensors
alive at once.
"""

import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset

from aunce.backbones import build_backbone
from aunce.data import adapter
from aunce.evaluation import concordance, f1, occurrence_counts
from aunce.losses import AUNCELoss, aunce_loss
from aunce.model import Encoder, build_encoder, count_operations
from aunce.statistics import leave_one_out_auc
from aunce.study.grid import PROJECT, Study
from aunce.training import Optimisation, Training, pretrain
from aunce.views import two_views

Work = Callable[[], object]
Loss = Callable[[Tensor], Tensor]

BRANCHES = (0, 1, 2, 1, 1)  # max, mean and view in the shares .2, .6, .2 of the release


@dataclass(frozen=True)
class Pair:
    """Seconds of both sides, medians, and the median, lowest and highest ratio slow / fast of the pairs."""

    slow: float
    fast: float
    ratio: float
    low: float
    high: float


def pair(slow: Work, fast: Work, *, rounds: int = 7, least: float = 0.1) -> Pair:
    """Time two pieces of work in turn.

    Args:
        slow: one side.
        fast: the other.
        rounds: pairs.
        least: seconds that each measurement lasts at least, by repetition.
    """
    repeats = [_repeats(work, least) for work in (slow, fast)]
    taken = [[_seconds(work, count) for work, count in zip((slow, fast), repeats, strict=True)] for _ in range(rounds)]
    ratios = [one / other for one, other in taken]
    first, second = (statistics.median(values) for values in zip(*taken, strict=True))
    return Pair(first, second, statistics.median(ratios), min(ratios), max(ratios))


def seconds(work: Work, *, rounds: int = 7, least: float = 0.1) -> float:
    """Median seconds of one piece of work, after a warm-up."""
    count = _repeats(work, least)
    return statistics.median(_seconds(work, count) for _ in range(rounds))


def _repeats(work: Work, least: float) -> int:
    work()
    return max(1, round(least / _seconds(work, 1)))


def _seconds(work: Work, count: int) -> float:
    _wait()
    started = time.perf_counter()
    for _ in range(count):
        work()
    _wait()
    return (time.perf_counter() - started) / count


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that come into being below it and are alive: of all, and of those of one size.

    The second count takes tensors with `elements` elements, whatever their type.
    """

    def __init__(self, elements: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = elements
        self.now, self.peak = [0, 0], [0, 0]
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._known:
                self._remember(storage, (0, 0))  # it was given
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            for storage in _storages(tensor):
                if storage._cdata not in self._known:
                    whole = storage.nbytes() == tensor.numel() * tensor.element_size()
                    counted = whole and tensor.numel() == self.elements
                    self._remember(storage, (storage.nbytes(), storage.nbytes() * counted))
        return out

    def _remember(self, storage: Any, sizes: tuple[int, int]) -> None:
        place = storage._cdata
        self._known.add(place)
        self.now = [now + size for now, size in zip(self.now, sizes, strict=True)]
        self.peak = [max(pair) for pair in zip(self.peak, self.now, strict=True)]
        weakref.finalize(storage, self._forget, place, sizes)

    def _forget(self, place: int, sizes: tuple[int, int]) -> None:
        self._known.discard(place)  # another storage may come to lie there
        self.now = [now - size for now, size in zip(self.now, sizes, strict=True)]


def _storages(tree: Any) -> list[Any]:
    storages = [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return [storage for storage in storages if storage.nbytes()]


def peak_bytes(work: Work, elements: int = 0) -> tuple[int, int]:
    """The most bytes that tensors made by `work` take at one time, those that it was given not counted.

    Args:
        work: what is counted.
        elements: size of the tensors of the second count.

    Returns:
        Of all tensors, and of those with `elements` elements.
    """
    with _Live(elements) as live:
        work()
    return live.peak[0], live.peak[1]


# What is measured


@dataclass(frozen=True)
class Sizes:
    """How much of everything a report measures.

    Attributes:
        compared: batch sizes of the comparison of losses.
        images, aus, channels: each grown while the other two stay at the middle of their list.
        chunked: batch sizes with chunks of `chunk` anchors.
        chunk: anchors.
        steps: of a timed training.
        frames: of the evaluation, each grown.
        faces: frames a sequence that are rendered.
        rounds: measurements, of which the median counts.
    """

    compared: tuple[int, ...]
    images: tuple[int, ...]
    aus: tuple[int, ...]
    channels: tuple[int, ...]
    chunked: tuple[int, ...]
    chunk: int
    steps: int
    frames: tuple[int, ...]
    faces: int
    rounds: int


SMALL = Sizes((8, 16), (8, 16, 32), (2, 4, 8), (32, 64, 128), (16, 32), 8, 2, (500, 1000), 2, 2)
FULL = Sizes(
    compared=(32, 64, 128, 256),
    images=(8, 16, 32, 64, 128, 256, 512),
    aus=(1, 3, 6, 12, 24, 48),
    channels=(64, 128, 256, 512, 1024, 2048, 4096),
    chunked=(128, 512, 1024, 2048, 4096),
    chunk=512,
    steps=40,
    frames=(2_877, 11_508, 46_034, 184_136),
    faces=180,
    rounds=5,
)

# The machine


@dataclass(frozen=True)
class Place:
    """A device and the type of the numbers on it."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    @property
    def element(self) -> int:
        """Bytes of one number."""
        return self.dtype.itemsize


CPU = Place()


def rates(place: Place = CPU) -> dict[str, float]:
    """What a device does at its best: products of matrices, and memory, on a CPU with the threads that are set.

    Returns:
        flops: operations a second, a multiplication and an addition being two, of matrices with a side of 1,024, and of
            8,192 on a GPU.
        bytes: bytes a second that a copy of 2^26 numbers reads and writes.
    """
    side = 1024 if place.device == "cpu" else 8192
    a, b = (torch.rand(side, side).to(place.device, place.dtype) for _ in range(2))
    out = torch.empty_like(a)
    product = seconds(lambda: torch.mm(a, b, out=out))
    source = torch.zeros(2**26, dtype=place.dtype, device=place.device)
    target = torch.zeros_like(source)
    copy = seconds(lambda: target.copy_(source))
    return {"flops": 2 * side**3 / product, "bytes": 2 * place.element * 2**26 / copy}


# The loss


@cache
def published() -> Callable[..., Tensor]:
    """The published formulation, run eagerly: `published` of tests/reference.py."""
    place = PROJECT / "tests" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", place)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Tensor] = module.published
    return found


def batch(images: int, aus: int = 12, channels: int = 1024, place: Place = CPU) -> tuple[Tensor, Tensor, Tensor]:
    """Features (2, B, K, D) that want a gradient, labels (B, K) at rates like BP4D's, a branch for each AU (K,).

    The features are where `place` says; labels and branches are on the host, as in a training.
    """
    generator = Generator().manual_seed(0)
    z = torch.randn(2, images, aus, channels, generator=generator).to(place.device, place.dtype).requires_grad_()
    labels = (torch.rand(images, aus, generator=generator) < torch.linspace(0.15, 0.6, aus)).to(torch.int64)
    return z, labels, _branches(aus)


def _branches(aus: int) -> Tensor:
    """A branch for each AU (K,), in the shares of the release."""
    return torch.tensor([BRANCHES[k % len(BRANCHES)] for k in range(aus)])


def forward_backward(loss: Loss, z: Tensor) -> Work:
    """One value of a loss with its gradient, which is thrown away."""

    def work() -> None:
        z.grad = None
        loss(z).backward()  # type: ignore[no-untyped-call]

    return work


def floor_of_loss(images: int, aus: int, channels: int, machine: dict[str, float], place: Place = CPU) -> float:
    """Seconds that no implementation can go below that computes all similarities and their gradient.

    Two matrix products, one in each pass, at the measured rate, or the features and their gradient read and written
    once, whichever takes longer.
    """
    rows = 2 * images
    products = 2 * 2 * aus * rows**2 * channels / machine["flops"]
    traffic = 2 * place.element * rows * aus * channels / machine["bytes"]
    return max(products, traffic)


def compare_losses(
    batches: Sequence[int],
    *,
    aus: int = 12,
    channels: int = 1024,
    place: Place = CPU,
    rounds: int = 7,
    least: float = 0.1,
) -> pd.DataFrame:
    """The loss of this project against the published formulation and pytorch-metric-learning, forward and backward.

    Returns:
        One row per batch size and other side ("published" or "SupConLoss per AU"): images, other, other_s, ours_s,
        ratio, low, high; and for the published side other_bytes, ours_bytes (all tensors), other_scores, ours_scores
        (tensors of the size of all similarities). Without pytorch-metric-learning its rows are missing.
    """
    rows = []
    for images in batches:
        z, labels, branch = batch(images, aus, channels, place)
        ours = forward_backward(partial(aunce_loss, labels=labels, branch=branch), z)
        theirs = {"labels": labels.to(place.device), "branch": branch.to(place.device)}  # it would wait for copies
        eager = forward_backward(partial(published(), **theirs), z)
        timed = pair(eager, ours, rounds=rounds, least=least)
        elements = aus * (2 * images) ** 2
        other_bytes, other_scores = peak_bytes(eager, elements)
        ours_bytes, ours_scores = peak_bytes(ours, elements)
        rows.append(
            {
                "images": images, "other": "published", "other_s": timed.slow, "ours_s": timed.fast,
                "ratio": timed.ratio, "low": timed.low, "high": timed.high, "other_bytes": other_bytes,
                "ours_bytes": ours_bytes, "other_scores": other_scores, "ours_scores": ours_scores,
            }
        )  # fmt: skip
        if (library := _supcon_per_au(theirs["labels"])) is not None:
            timed = pair(forward_backward(library, z), ours, rounds=rounds, least=least)
            rows.append(
                {
                    "images": images, "other": "SupConLoss per AU", "other_s": timed.slow, "ours_s": timed.fast,
                    "ratio": timed.ratio, "low": timed.low, "high": timed.high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _supcon_per_au(labels: Tensor) -> Loss | None:
    """pytorch-metric-learning's SupConLoss, called once for each AU; None where it is not installed."""
    try:
        from pytorch_metric_learning.losses import SupConLoss
    except ImportError:
        return None
    supcon = SupConLoss(temperature=0.5)

    def loss(z: Tensor) -> Tensor:
        rows = z.flatten(0, 1)  # (2B, K, D)
        both = labels.repeat(2, 1)  # (2B, K)
        return torch.stack([supcon(rows[:, k], both[:, k]) for k in range(both.shape[1])]).mean()

    return loss


def grow(sizes: Sizes, machine: dict[str, float], *, place: Place = CPU) -> pd.DataFrame:
    """Time and memory of the loss, forward and backward, against each of its sizes.

    Returns:
        One row per axis ("Images", "AUs", "Channels"), series ("in one piece" or "in chunks of C") and size: axis,
        size, series, seconds, floor (see `floor_of_loss`), bytes (of all tensors beyond the features).
    """
    middle = {"images": 64, "aus": 12, "channels": 1024} if sizes is FULL else {"images": 8, "aus": 4, "channels": 64}
    lists = {"images": sizes.images, "aus": sizes.aus, "channels": sizes.channels}
    points: list[tuple[str, int, int | None]] = [
        (axis, size, None) for axis, values in lists.items() for size in values
    ]
    points += [("images", size, sizes.chunk) for size in sizes.chunked]
    rows = []
    for axis, size, chunk in points:
        shape = middle | {axis: size}
        z, labels, branch = batch(**shape, place=place)
        work = forward_backward(partial(aunce_loss, labels=labels, branch=branch, chunk_size=chunk), z)
        row: dict[str, Any] = {"axis": {"aus": "AUs"}.get(axis, axis.capitalize()), "size": size}
        row["series"] = "in one piece" if chunk is None else f"in chunks of {chunk} anchors"
        row |= {
            "seconds": seconds(work, rounds=sizes.rounds),
            "floor": floor_of_loss(**shape, machine=machine, place=place),
        }
        rows.append(row | {"bytes": peak_bytes(work)[0]})
    return pd.DataFrame(rows)


# The training step


@dataclass(frozen=True)
class Setting:
    """A training to time.

    Attributes:
        backbone: see `build_backbone`.
        pixels: side of the images.
        images: a step.
        aus: K.
        channels: D.
        device: where it runs.
        precision: of our network; the other side's is float32.
        compiled: whether our network is compiled.
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


def compare_steps(setting: Setting, *, workers: int = 4, rounds: int = 5) -> pd.DataFrame:
    """Training steps of this project against those of the released path.

    The released path, as far as it is known: two forward passes in float32, the published loss run eagerly, an
    optimizer without fused kernels, and views made image by image with Pillow in worker processes (here without the
    turn of the hue, which we leave out, too).

    Returns:
        One row each for "model alone" (views given) and "end to end" (from uint8 images in memory): part, other and
        ours (images a second), ratio, low, high (of the pairs).
    """
    images, labels = setting.data()
    views = two_views(torch.from_numpy(images[: setting.images]).to(setting.device), seed=0)
    batch_labels = torch.from_numpy(labels[: setting.images])
    released, ours = (_given_views(setting, views, batch_labels, which) for which in (False, True))
    whole = _released_epoch(setting, images, labels, workers), our_epoch(setting, images, labels)
    parts = [
        _compared(setting, "model alone", released, ours, rounds),
        _compared(setting, "end to end", whole[0], whole[1], rounds),
    ]
    return pd.concat(parts, ignore_index=True)


def from_disk(setting: Setting, *, rounds: int = 5) -> pd.DataFrame:
    """An epoch from a memory-mapped file on disk against the same steps on one batch that is on the device already.

    Returns:
        One row as of `compare_steps`, with part "from a pack on disk"; `other` has the batch on the device, so that a
        ratio of 1 means that reading costs nothing.
    """
    images, labels = setting.data()
    with tempfile.TemporaryDirectory(prefix="aunce-") as folder:
        np.save(Path(folder) / "images.npy", images)
        mapped = np.load(Path(folder) / "images.npy", mmap_mode="r")
        pixels = torch.from_numpy(images[: setting.images]).to(setting.device)
        ready = _given_views(setting, pixels, torch.from_numpy(labels[: setting.images]), True)
        return _compared(setting, "from a pack on disk", ready, our_epoch(setting, mapped, labels), rounds)


def _compared(
    setting: Setting, part: str, other: Callable[[], float], ours: Callable[[], float], rounds: int
) -> pd.DataFrame:
    taken = [(other(), ours()) for _ in range(rounds + 1)][1:]  # the first warms up
    ratios = [slow / fast for slow, fast in taken]
    slow, fast = (setting.images * setting.steps / statistics.median(side) for side in zip(*taken, strict=True))
    row = {"part": part, "other": slow, "ours": fast, "ratio": statistics.median(ratios)}
    return pd.DataFrame([row | {"low": min(ratios), "high": max(ratios)}])


def _given_views(setting: Setting, views: Tensor, labels: Tensor, ours: bool) -> Callable[[], float]:
    """Seconds of `steps` steps on views (2, B, 3, H, W), or pixels (B, H, W, 3) uint8, that are on the device."""
    encoder = setting.encoder().train()
    forward = torch.compile(encoder) if ours and setting.compiled else encoder
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5, fused=ours, foreach=False)
    precise = setting.precision == "fp32" or not ours
    branch = _branches(setting.aus)
    on_device, of_branch = labels.to(setting.device), branch.to(setting.device)

    def one() -> None:
        optimizer.zero_grad()
        given = two_views(views, seed=0) if views.dtype == torch.uint8 else views
        with torch.autocast(torch.device(setting.device).type, torch.bfloat16, enabled=not precise):
            if ours:
                z = forward(given.flatten(0, 1)).unflatten(0, (2, -1))  # (2, B, K, D)
            else:
                z = torch.stack([forward(view) for view in given])  # (2, B, K, D)
        loss = aunce_loss(z, labels, branch=branch) if ours else published()(z, on_device, of_branch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return lambda: _seconds(one, setting.steps) * setting.steps


def operations(setting: Setting) -> int:
    """Operations of a step of the network, forward and backward, a multiplication and an addition being two."""
    with torch.device("meta"):
        encoder = Encoder(build_backbone(setting.backbone), aus=setting.aus, channels=setting.channels)
        return count_operations(encoder, images=2 * setting.images, pixels=setting.pixels)


def our_epoch(setting: Setting, images: NDArray[np.uint8], labels: NDArray[np.int8]) -> Callable[[], float]:
    """Seconds of an epoch of `training.pretrain`, the one after its first."""
    encoder = setting.encoder()
    criterion = AUNCELoss.released()

    def loss(z: Tensor, y: Tensor, generator: Generator, anchors: slice | None) -> Tensor:
        return torch.as_tensor(criterion(z, y, generator=generator, anchors=anchors))

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

    def epoch() -> float:
        return float(pretrain(encoder, loss, training)["seconds"].iloc[-1])

    return epoch


def tried(setting: Setting, *, images: int, rounds: int = 5) -> pd.DataFrame:
    """Ways that promise speed and were left out, each against what is used instead.

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
        _given_views(
            replace(setting, precision=precision),
            torch.rand(2, setting.images, 3, setting.pixels, setting.pixels),
            torch.ones(setting.images, setting.aus, dtype=torch.int8),
            True,
        )
        for precision in ("bf16", "fp32")
    )
    ways: dict[str, tuple[Work, Work]] = {
        f"{setting.steps} training steps in bf16 (autocast) for float32": (low, full),
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
        timed = pair(one, other, rounds=rounds)
        found.append(
            {
                "what": what, "tried_s": timed.slow, "used_s": timed.fast, "ratio": timed.ratio, "low": timed.low,
                "high": timed.high,
            }
        )  # fmt: skip
    return pd.DataFrame(found)


class _PerImage(Dataset[tuple[Tensor, Tensor, int]]):
    """Two views of each image, made one by one with Pillow as `views` makes them for a batch."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        random = np.random.default_rng(index)
        first, second = (_pillow_view(Image.fromarray(self.images[index]), random) for _ in range(2))
        return first, second, index


def _pillow_view(image: Image.Image, random: np.random.Generator) -> Tensor:
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


def _released_epoch(
    setting: Setting, images: NDArray[np.uint8], labels: NDArray[np.int8], workers: int
) -> Callable[[], float]:
    """Seconds of an epoch of the released path, workers started beforehand."""
    encoder = setting.encoder().train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5, foreach=False)
    loader = DataLoader(
        _PerImage(images), setting.images, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    branch = _branches(setting.aus).to(setting.device)

    def epoch() -> float:
        _wait()
        started = time.perf_counter()
        for first, second, rows in loader:
            optimizer.zero_grad()
            z = torch.stack([encoder(view.to(setting.device)) for view in (first, second)])  # (2, B, K, D)
            published()(z, torch.from_numpy(labels[rows.numpy()]).to(setting.device), branch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        _wait()
        return time.perf_counter() - started

    return epoch


# Evaluation, faces and commands


def evaluate(sizes: Sizes, *, subjects: int = 41, aus: int = 12, replicates: int = 10) -> pd.DataFrame:
    """Seconds of the scores of a study against the frames, on random labels and scores.

    Returns:
        One row per work and number of frames: series, size (frames), seconds. The works are counts and F1; concordant
        pairs, subject by subject; and, from `replicates` tables of these, the exact AUC of all subjects but one, for
        each subject, AU and replicate.
    """
    random = np.random.default_rng(0)
    rows = []
    for frames in sizes.frames:
        labels = random.integers(-1, 2, (frames, aus)).astype(np.int8)
        scores = random.random((frames, aus))
        people = np.array([f"F{number:03d}" for number in random.integers(0, subjects, frames)])
        numbers = tuple(range(1, aus + 1))
        pairs = concordance(labels, scores, people, numbers)
        study = pd.concat([pairs.assign(replicate=number) for number in range(replicates)], ignore_index=True)
        predicted = scores >= 0.5
        work: dict[str, Work] = {
            "counts and F1": partial(_count, labels, predicted, people, numbers),
            "concordant pairs": partial(concordance, labels, scores, people, numbers),
            "AUC without each subject": partial(leave_one_out_auc, study, by=["replicate", "au"]),
        }
        for series, one in work.items():
            rows.append({"series": series, "size": frames, "seconds": seconds(one, rounds=sizes.rounds)})
    return pd.DataFrame(rows)


def _count(labels: NDArray[Any], predicted: NDArray[Any], people: NDArray[Any], aus: Sequence[int]) -> pd.Series:
    return f1(occurrence_counts(labels, predicted, people, aus))


def render_faces(frames: int, *, size: int = 64, workers: int = 2, subjects: int = 9) -> tuple[int, float]:
    """How many faces were rendered in BP4D's layout, and the seconds that it took, start of the workers included."""
    with tempfile.TemporaryDirectory(prefix="aunce-") as folder:
        started = time.perf_counter()
        adapter("bp4d").write(
            Path(folder) / "raw", setting="easy", subjects=subjects, frames=frames, seed=0, size=size, workers=workers
        )
        taken = time.perf_counter() - started
        return sum(1 for _ in Path(folder).rglob("*.jpg")), taken


def command_seconds(*words: str, rounds: int = 5) -> float:
    """Median seconds of `aunce` with these words, from start to end."""
    command = [sys.executable, "-m", "aunce", *words]

    def run() -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    run()
    return statistics.median(run() for _ in range(rounds))


def status_seconds(runs: int, *, rounds: int = 3) -> float:
    """Median seconds of `aunce status` of a study in which this many runs are done."""
    text = "[study]\ntitle = 'Many'\nquestion = 'How long?'\nreport = 'laptop'\n[data]\nsubjects = 6\n[axes]\n"
    with tempfile.TemporaryDirectory(prefix="aunce-") as folder:
        path = Path(folder) / "many.toml"
        path.write_text(text + f"replicate = {list(range(runs))}\n")
        keys = [run.key for run in Study(path).runs]
        for key in keys:
            place = Path(folder) / "many" / "runs" / key
            place.mkdir(parents=True)
            (place / "metrics.json").write_text('{"duration_s": 1.0}')
        with mock.patch.dict(os.environ, AUNCE_REPORTS=folder):
            return command_seconds("status", str(path), rounds=rounds)


def loads_torch() -> bool:
    """Whether `import aunce` loads torch."""
    code = "import aunce, sys; sys.exit('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code]).returncode != 0


def start_seconds(*, rounds: int = 3) -> float:
    """Median seconds from `aunce run` to the first cell of its notebook that trains, with the crops made before."""
    text = "[study]\ntitle = 'Start'\nquestion = 'How long?'\nreport = 'laptop'\n[data]\nsubjects = 6\nframes = 2\n"
    text += "[base]\nmethod = 'random'\nprobe_epochs = 1\n[axes]\n"
    with tempfile.TemporaryDirectory(prefix="aunce-") as folder:
        path = Path(folder) / "start.toml"
        path.write_text(text + f"replicate = {list(range(rounds + 1))}\n")
        places = {"AUNCE_REPORTS": folder, "AUNCE_DATA": str(Path(folder) / "data")}
        taken = []
        for run in Study(path).runs:
            for words in (["prepare", str(path), run.key, run.data[0].name], ["run", str(path), run.key]):
                started = time.time()
                command = [sys.executable, "-m", "aunce", *words]
                subprocess.run(command, check=True, capture_output=True, env=os.environ | places)
            notebook = json.loads((Path(folder) / "start" / "runs" / run.key / "notebook.ipynb").read_text())
            [cell] = [cell for cell in notebook["cells"] if "methods.train(" in "".join(cell["source"])]
            trains = datetime.datetime.fromisoformat(cell["metadata"]["papermill"]["start_time"])
            taken.append(trains.replace(tzinfo=datetime.UTC).timestamp() - started)
        return statistics.median(taken[1:])  # the first warms up
