"""Training: one loop for contrastive pretraining and supervised fitting, one checkpoint format, and the frozen probe.

Every arm sees two views of each image a step. All randomness is drawn anew from (seed, epoch, step), so that a training
that was killed and continued from its checkpoint gives, on a CPU, the very numbers of one that was not.
"""

import json
import math
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aunce import files
from aunce.data.frames import Split
from aunce.devices import Late, Processes, send, share_batch_norms
from aunce.errors import DataError, RunError, UsageError
from aunce.evaluation import auc, concordance, f1, knn, macro, occurrence_counts
from aunce.model import Encoder, LinearProbe
from aunce.study.spec import SUPERVISED
from aunce.views import two_views

Array = NDArray[Any]
ContrastiveLoss = Callable[[Tensor, Tensor, Generator, slice | None], Tensor]
"""(z (V=2, B, K, D), labels (B, K) int8 on the CPU, CPU generator, the images that are anchors) -> scalar."""
Measure = Callable[[Tensor, Tensor], Mapping[str, float]]
"""(z (V=2, B, K, D), labels (B, K) int8 on the CPU) -> what joins the row of the history."""
SupervisedLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits (M, K), labels (M, K) int8) -> scalar."""


@dataclass(frozen=True)
class Optimisation:
    """AdamW with a linear warm-up and a cosine decay to 0, both counted in steps, or at a constant rate.

    The released code (commit bade385) honours its learning rate in the first epoch only; here every step's rate is
    `learning_rate` times a factor of the step alone.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; each gives two views.
        learning_rate: the highest rate, reached at the end of the warm-up.
        weight_decay: of AdamW, on all parameters.
        schedule: "cosine", or "constant" without a warm-up. The released step falls on the last epoch alone.
        warmup_epochs: length of the warm-up, at most half of the training.

    Raises:
        UsageError: a value out of its range.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a positive number"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "zero or a positive number"),
            "schedule": (self.schedule in ("cosine", "constant"), "cosine or constant"),
            "warmup_epochs": (0 <= self.warmup_epochs < math.inf, "zero or a positive number"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise UsageError(f"{name}: expected {expected}, got {getattr(self, name)}")

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step.

        With T steps and W of warm-up: learning_rate (step + 1) / W before W, then
        learning_rate (1 + cos(pi (step - W) / (T - W))) / 2.

        Args:
            step: counted from 0 over all epochs, below T = epochs * steps_per_epoch.
            steps_per_epoch: batches of an epoch.
        """
        if self.schedule == "constant":
            return self.learning_rate
        total = self.epochs * steps_per_epoch
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


class Check(Protocol):
    """What a loop calls after some epochs: its values join the row of the history."""

    def __call__(self, epoch: int, /) -> Mapping[str, float]:
        """Values by name after `epoch`, counted from 1."""
        ...


@runtime_checkable
class StatefulCheck(Check, Protocol):
    """A check with a memory, which the checkpoint keeps."""

    def state(self) -> dict[str, Tensor]:
        """What the check has to remember, tensors by name."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave, before a training goes on from its checkpoint."""
        ...


def pretrain(
    encoder: Encoder,
    images: Array,
    labels: Array,
    *,
    loss: ContrastiveLoss,
    optimisation: Optimisation,
    seed: int,
    rows: Array | None = None,
    aus: Sequence[int] | None = None,
    device: str = "cpu",
    two_forwards: bool = False,
    crop: int = 0,
    sampling_weights: Array | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    compiled: bool = False,
    check: Check | None = None,
    checks: int = 1,
    measure: Measure | None = None,
    checkpoint: Path | None = None,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Train an encoder with a contrastive loss on two views of each image.

    Args:
        encoder: trained in place; ends on `device` and in training mode.
        images: (n, H, W, 3) uint8, RGB; a memory map is read batch by batch.
        labels: (n, K) in {-1, 0, 1}.
        loss: from (z (2, B, K, D), labels (B, K), CPU generator, anchors) to a scalar; z is not normalised, and the
            last is a slice of images in a run on several GPUs, else None, see `aunce_loss`. It is called once
            beforehand on a fixed example, whose value tells the checkpoints of different losses apart.
        optimisation: rates, batch size and epochs.
        seed: of order, views, drop-outs and the loss's draws.
        rows: the images to train on; all if left out.
        aus: the AU numbers, for messages.
        device: where to train.
        two_forwards: False sends both views through the network together; True sends them one after the other, so that
            each BatchNorm sees one view at a time (the released code, commit bade385).
        crop: see `two_views`.
        sampling_weights: of the rows, with sum 1: an epoch draws as many frames as there are rows, with replacement.
            None takes every row once, in a new order.
        precision: of the network's forward pass; "bf16" is torch's autocast. The loss is float32 at least in both.
        compiled: compile the network first, which takes minutes and pays on a GPU.
        check: called as check(epoch) after some epochs.
        checks: after how many epochs, evenly spaced and always with the last.
        measure: called with the features and labels of the last batch of each of these epochs.
        checkpoint: a folder, written after each epoch; an earlier state of this training in it is continued.
        log: takes one line per epoch.

    Returns:
        One row per epoch: epoch (from 1), loss (mean over steps), learning_rate (of the last step), seconds (of the
        epoch with its check), then the values of check and measure, NaN where there was no check.

    Raises:
        DataError: images, labels and rows do not fit each other.
        RunError: the loss is not finite (the message names epoch, step and AUs), or the checkpoint is of another
            training.
    """
    return _train(
        encoder,
        None,
        images,
        labels,
        loss,
        mark=loss(*_example(encoder.aus, device), Generator().manual_seed(0), None),
        optimisation=optimisation,
        seed=seed,
        rows=rows,
        aus=aus,
        device=device,
        two_forwards=two_forwards,
        crop=crop,
        sampling_weights=sampling_weights,
        precision=precision,
        compiled=compiled,
        check=check,
        checks=checks,
        measure=measure,
        checkpoint=checkpoint,
        log=log,
    )


def fit_supervised(
    encoder: Encoder,
    head: LinearProbe,
    images: Array,
    labels: Array,
    *,
    loss: SupervisedLoss,
    optimisation: Optimisation,
    seed: int,
    rows: Array | None = None,
    aus: Sequence[int] | None = None,
    device: str = "cpu",
    two_forwards: bool = False,
    crop: int = 0,
    sampling_weights: Array | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    compiled: bool = False,
    check: Check | None = None,
    checks: int = 1,
    checkpoint: Path | None = None,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Train an encoder together with a linear head, on the same two views a step as `pretrain`.

    Args:
        encoder: trained in place; ends on `device` and in training mode.
        head: trained in place, likewise.
        images: (n, H, W, 3) uint8, RGB.
        labels: (n, K) in {-1, 0, 1}.
        loss: from (logits (2B, K), labels (2B, K)) to a scalar, the mean over known entries; see `supervised_loss`. It
            is called once beforehand on a fixed example, as in `pretrain`.

    The others are those of `pretrain`, and so are the result and what is raised.
    """

    def objective(logits: Tensor, batch: Tensor, generator: Generator, anchors: slice | None) -> Tensor:
        whole = loss(logits[..., 0].flatten(0, 1), batch.repeat(2, 1))
        return whole if anchors is None else whole * ((anchors.stop - anchors.start) / len(batch))

    z, batch = _example(encoder.aus, device)
    return _train(
        encoder,
        head,
        images,
        labels,
        objective,
        mark=loss(z[0, :, :, 0], batch),
        optimisation=optimisation,
        seed=seed,
        rows=rows,
        aus=aus,
        device=device,
        two_forwards=two_forwards,
        crop=crop,
        sampling_weights=sampling_weights,
        precision=precision,
        compiled=compiled,
        check=check,
        checks=checks,
        measure=None,
        checkpoint=checkpoint,
        log=log,
    )


def _train(
    encoder: Encoder,
    head: LinearProbe | None,
    images: Array,
    labels: Array,
    objective: ContrastiveLoss,
    *,
    mark: Tensor,
    optimisation: Optimisation,
    seed: int,
    rows: Array | None,
    aus: Sequence[int] | None,
    device: str,
    two_forwards: bool,
    crop: int,
    sampling_weights: Array | None,
    precision: str,
    compiled: bool,
    check: Check | None,
    checks: int,
    measure: Measure | None,
    checkpoint: Path | None,
    log: Callable[[str], None],
) -> pd.DataFrame:
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    aus = tuple(range(1, encoder.aus + 1)) if aus is None else tuple(aus)
    if len(images) != len(labels) or labels.shape[1:] != (encoder.aus,):
        raise DataError(
            f"training: expected labels ({len(images)}, {encoder.aus}) for {len(images)} images and an encoder of "
            f"{encoder.aus} AUs, got {labels.shape}"
        )
    processes = Processes.join(device, place=str(checkpoint))
    # A last batch of one image has no partner to contrast with and no batch statistics; and each process needs one.
    fewest = max(2, processes.size)
    if len(rows) < fewest:
        raise DataError(f"training: expected at least {fewest} images to train on, got {len(rows)}")
    if processes.size > 1:
        share_batch_norms(encoder)
    network = _Network(encoder, head, two_forwards).to(device)
    forward = _prepared(network, processes, precision, compiled, device)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=optimisation.weight_decay, fused=True)
    edges = [start for start in range(0, len(rows), optimisation.batch_size) if len(rows) - start >= fewest]
    steps = len(edges)
    checked = _spread(checks if check is not None else 0, optimisation.epochs)
    identity = {
        "format": 1,
        "optimisation": asdict(optimisation),
        "seed": seed,
        "two_forwards": two_forwards,
        "crop": crop,
        "precision": precision,
        "loss": f"{mark.item():.5g}",
        "checks": sorted(checked),
        "images": list(images.shape),
        "labels": zlib.crc32(labels[rows].tobytes()),
        "rows": zlib.crc32(rows.astype(np.int64).tobytes()),
        "chances": None if sampling_weights is None else zlib.crc32(sampling_weights.tobytes()),
        "network": zlib.crc32(repr([(name, value.shape) for name, value in network.state_dict().items()]).encode()),
    }
    history: list[dict[str, float]] = []
    if checkpoint is not None:
        history = _load(checkpoint, identity, network, optimizer, check, log)
    first, started = len(history) + 1, time.perf_counter()
    for epoch in range(first, optimisation.epochs + 1):
        began = time.perf_counter()
        network.train()
        draws = np.random.default_rng((seed, epoch))
        order = (
            draws.permutation(rows) if sampling_weights is None else draws.choice(rows, len(rows), p=sampling_weights)
        )
        total = torch.zeros((), dtype=torch.float64, device=device)
        rate = 0.0
        batches = [np.sort(order[start : start + optimisation.batch_size]) for start in edges]
        queued: _Queued | None = None
        for step, pixels in enumerate(_bar(_read(images, batches, processes, device), steps, f"epoch {epoch}")):
            for_views, for_network, for_loss = _seeds(seed, epoch, step)
            batch, share = batches[step], processes.share(len(batches[step]))
            known = torch.from_numpy(labels[batch])  # (B, K)
            views = two_views(pixels, seed=for_views, crop=crop, first=share.start, of=len(batch))  # (2, b, 3, H, W)
            rate = optimisation.rate((epoch - 1) * steps + step, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            # Drop-outs and stochastic depth draw from the global generator, in each process others.
            with _seeded(for_network + processes.rank, device):
                out = processes.gather(forward(views), len(batch))  # (2, B, K, D), or (2, B, K, 1) logits of a head
            anchors = share if processes.size > 1 else None
            value = objective(out, known, Generator().manual_seed(for_loss), anchors)
            (value * processes.size).backward()  # type: ignore[no-untyped-call]  # the processes' gradients are averaged
            optimizer.step()
            total += value.detach()
            if queued is not None:
                queued.stop_if_broken(objective, aus, epoch)
            queued = _Queued(Late(value), out.detach(), known, for_loss, anchors, step)
        if queued is not None:
            queued.stop_if_broken(objective, aus, epoch)
        total = processes.total(total)
        row: dict[str, float] = {"epoch": epoch, "loss": total.item() / steps, "learning_rate": rate, "seconds": 0.0}
        if check is not None and epoch in checked:
            row |= check(epoch)
            if measure is not None and queued is not None:
                row |= measure(queued.out, queued.labels)
        row["seconds"] = time.perf_counter() - began
        history.append(row)
        if checkpoint is not None and processes.rank == 0:
            _save(checkpoint, identity, network, optimizer, check, history)
        each = (time.perf_counter() - started) / (epoch - first + 1)
        log(_line(row, optimisation.epochs, each))
    return pd.DataFrame(history)


class _Network(nn.Module):
    def __init__(self, encoder: Encoder, head: LinearProbe | None, two_forwards: bool) -> None:
        super().__init__()
        self.encoder, self.head, self.two_forwards = encoder, head, two_forwards

    def forward(self, views: Tensor) -> Tensor:
        """Features (2, B, K, D) of views (2, B, 3, H, W), or logits (2, B, K, 1) with a head."""
        if self.two_forwards:
            z = torch.stack([self.encoder(view) for view in views])  # (2, B, K, D)
        else:
            z = self.encoder(views.flatten(0, 1)).unflatten(0, (2, -1))  # (2, B, K, D)
        if self.head is None:
            return z
        return cast(Tensor, self.head(z.flatten(0, 1)).unflatten(0, (2, -1))[..., None])  # (2, B, K, 1)


def _prepared(
    network: _Network, processes: Processes, precision: str, compiled: bool, device: str
) -> Callable[[Tensor], Tensor]:
    """The network's forward pass as this run wants it."""
    kind = torch.device(device).type
    prepared: nn.Module = cast(nn.Module, torch.compile(network)) if compiled else network
    if processes.size > 1:
        mine = [torch.device(device)] if kind == "cuda" else None
        prepared = DistributedDataParallel(prepared, device_ids=mine)

    def forward(views: Tensor) -> Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
            return cast(Tensor, prepared(views))

    return forward


def _read(images: Array, batches: Sequence[Array], processes: Processes, device: str) -> Iterator[Tensor]:
    """This process's share (b, H, W, 3) of each batch on the device; the next one is read meanwhile."""

    def read(batch: Array) -> Tensor:
        return send(torch.from_numpy(images[batch[processes.share(len(batch))]]), device)

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, batches[0])
        for following in batches[1:]:
            pixels, ahead = ahead.result(), reader.submit(read, following)
            yield pixels
        yield ahead.result()


@dataclass(frozen=True)
class _Queued:
    """A step whose loss is looked at one step later: the host never waits for what it has just queued."""

    value: Late
    out: Tensor  # (2, B, K, D)
    labels: Tensor  # (B, K)
    seed: int
    anchors: slice | None
    step: int

    def stop_if_broken(self, objective: ContrastiveLoss, aus: Sequence[int], epoch: int) -> None:
        if not math.isfinite(self.value.item()):
            raise RunError(_diagnosis(objective, self, aus, epoch))


def _example(aus: int, device: str) -> tuple[Tensor, Tensor]:
    """Features (2, B=4, K, 8) and labels (4, K) that are always the same.

    The value of a loss on them tells losses apart, so that no checkpoint is continued with another loss.
    """
    z = torch.randn(2, 4, aus, 8, generator=Generator().manual_seed(0)).to(device)  # (2, 4, K, 8)
    labels = (torch.arange(4)[:, None] + torch.arange(aus)) % 2  # (4, K)
    return z, labels.to(torch.int8)


def _spread(checks: int, epochs: int) -> set[int]:
    """`checks` epochs, evenly spaced, always with the last: 3 of 8 are 3, 5 and 8."""
    count = min(checks, epochs)
    return {-(-epochs * number // count) for number in range(1, count + 1)}


def _seeds(seed: int, epoch: int, step: int) -> tuple[int, int, int]:
    views, network, loss = np.random.SeedSequence((seed, epoch, step)).generate_state(3, np.uint32)
    return int(views), int(network), int(loss)


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch's global generators of the CPU and of `device`, and give them back as they were."""
    kind = torch.device(device).type
    devices = [] if kind == "cpu" else [torch.device(device)]
    with torch.random.fork_rng(devices=devices, device_type=kind if devices else "cuda"):
        torch.default_generator.manual_seed(seed)
        if devices:
            getattr(torch, kind).manual_seed(seed)
        yield


def _bar(batches: Iterator[Tensor], steps: int, text: str) -> Iterator[Tensor]:
    """The batches, under a bar if a person is watching."""
    if not sys.stderr.isatty():
        return batches
    from tqdm import tqdm

    return iter(tqdm(batches, total=steps, desc=text, leave=False))


def _line(row: Mapping[str, float], epochs: int, seconds: float) -> str:
    left = seconds * (epochs - row["epoch"])
    left_text = f"about {left:.0f} s left" if left < 120 else f"about {left / 60:.0f} min left"
    area = f"  val AUC {row['val_auc']:.3f}".replace("0.", ".") if "val_auc" in row else ""
    return f"epoch {row['epoch']:.0f}/{epochs}  loss {row['loss']:.3f}{area}  {seconds:.1f} s/epoch  {left_text}"


def _diagnosis(objective: ContrastiveLoss, queued: _Queued, aus: Sequence[int], epoch: int) -> str:
    """Say where a loss stopped being finite: in the network's output for some AUs, or in their terms of the loss.

    The term of an AU is the loss with this AU alone: the labels of the others are unknown and their output constant.
    """
    z, labels = queued.out, queued.labels
    place = f"epoch {epoch}, step {queued.step + 1}: the loss is not finite"
    remedy = "a lower learning rate or a longer warm-up may help; nothing finished is lost"
    broken = ~torch.isfinite(z).all(dim=3).flatten(0, 1).all(dim=0)  # (K)
    if broken.any():
        return f"{place}: the network's output for {_names(aus, broken)} is not; {remedy}"
    alone = []
    for k in range(z.shape[2]):
        mine = torch.arange(z.shape[2]) == k  # (K)
        out = torch.where(mine[:, None].to(z.device), z, 1.0)  # (2, B, K, D)
        with torch.no_grad():
            generator = Generator().manual_seed(queued.seed)
            term = objective(out, torch.where(mine, labels, -1), generator, queued.anchors)
        alone.append(not math.isfinite(term.item()))
    if any(alone):
        return (
            f"{place}: the network's output is, the loss terms of {_names(aus, torch.tensor(alone))} are not; {remedy}"
        )
    return f"{place}, though the network's output and the terms of the single AUs are; {remedy}"


def _names(aus: Sequence[int], which: Tensor) -> str:
    if which.all() and len(aus) > 1:
        return f"all {len(aus)} AUs"
    return ", ".join(f"AU{au}" for au, marked in zip(aus, which.tolist(), strict=True) if marked)


# The checkpoint: a folder of weights.safetensors, optimizer.safetensors, check.safetensors and state.json.


def _save(
    folder: Path,
    identity: dict[str, Any],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    check: Check | None,
    history: list[dict[str, float]],
) -> None:
    """Write the folder beside its place and rename it: a kill at any moment leaves this state or the one before."""
    partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    moments = {
        f"{number}.{name}": value
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    tensors = {
        "weights": network.state_dict(),
        "optimizer": moments,
        "check": check.state() if isinstance(check, StatefulCheck) else {},
    }
    for name, group in tensors.items():
        path = partial / f"{name}.safetensors"
        safetensors.torch.save_file({key: value.contiguous() for key, value in group.items()}, path)
        files.sync(path)
    state = {"epoch": len(history), "history": history, "identity": identity}
    files.write(partial / "state.json", json.dumps(state, indent=1))
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    partial.rename(folder)
    files.sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _load(
    folder: Path,
    identity: dict[str, Any],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    check: Check | None,
    log: Callable[[str], None],
) -> list[dict[str, float]]:
    """Restore the newest whole checkpoint and return its history; an empty one if there is none."""
    for place in (folder, folder.with_name(folder.name + ".old")):
        if not place.exists():
            continue
        try:
            state = json.loads((place / "state.json").read_text())
            history: list[dict[str, float]] = state["history"]
            stored = state["identity"]
            tensors = {
                name: safetensors.torch.load_file(place / f"{name}.safetensors")
                for name in ("weights", "optimizer", "check")
            }
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log(f"{place} is not a whole checkpoint and is left out: {error}")
            continue
        if differing := [key for key, value in identity.items() if stored.get(key) != value]:
            raise RunError(
                f"{place} belongs to another training: its {', '.join(differing)} differ. Remove the folder to start "
                "anew, or name another"
            )
        network.load_state_dict(tensors["weights"])
        _restore(optimizer, tensors["optimizer"])
        if isinstance(check, StatefulCheck):
            check.restore(tensors["check"])
        log(f"continues after epoch {len(history)} from {place}")
        return history
    return []


def _restore(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    """Give the optimiser its moments back, in the memory layout of their parameters, which the fused step assumes."""
    for number, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        for name in ("step", "exp_avg", "exp_avg_sq"):
            if (value := moments.get(f"{number}.{name}")) is not None:
                like = torch.empty_like(value if name == "step" else parameter, device=parameter.device)
                optimizer.state[parameter][name] = like.copy_(value)


def embed(
    encoder: Encoder,
    images: Array,
    *,
    rows: Array | None = None,
    device: str = "cpu",
    crop: int = 0,
    batch_size: int = 512,
) -> Array:
    """Features of images from the encoder in eval mode: no weight, buffer or mode of it changes.

    The released probe (first commits only) ran the frozen network in training mode: BatchNorm used and updated batch
    statistics, and stochastic depth stayed on.

    Args:
        encoder: moved to `device`.
        images: (n, H, W, 3) uint8, RGB.
        rows: the images to embed, in this order; all if left out.
        device: where to compute.
        crop: side of the square in the middle of each image that is embedded; 0 takes the whole image.
        batch_size: images at a time; the features do not depend on it beyond rounding.

    Returns:
        (n, K, D) float32.
    """
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    features = np.empty((len(rows), encoder.aus, encoder.channels), dtype=np.float32)  # (n, K, D)
    modes = {module: module.training for module in encoder.modules()}
    encoder.to(device).eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                batch = torch.from_numpy(images[rows[start : start + batch_size]]).to(device)  # (B, H, W, 3)
                pixels = batch.permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)
                x = encoder(centre(pixels, crop))  # (B, K, D)
                features[start : start + batch_size] = x.float().cpu().numpy()
    finally:
        for module, training in modes.items():
            module.training = training
    return features


def centre(pixels: Tensor, crop: int) -> Tensor:
    """The square in the middle of images.

    Args:
        pixels: (B, 3, H, W).
        crop: side of the square in pixels, at most H and W; 0 leaves the images whole.

    Returns:
        (B, 3, crop, crop), a view; or `pixels`.
    """
    if not crop:
        return pixels
    top, left = (pixels.shape[2] - crop) // 2, (pixels.shape[3] - crop) // 2
    return pixels[:, :, top : top + crop, left : left + crop]  # (B, 3, crop, crop)


def fit_probe(
    features: Array,
    labels: Array,
    *,
    seed: int,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-6,
) -> LinearProbe:
    """Fit one linear layer per AU on frozen features, as they are, by Adam on the mean cross-entropy of known labels.

    Batch size, epochs, rate and decay are those of the released probe (a script of commit 702eb19, later deleted). An
    AU that is never present or never absent among the known labels has nothing to separate: its weights are 0 and its
    bias is log((p + 1/2) / (a + 1/2)), with p and a the numbers of known frames where it is present and absent.

    Args:
        features: (n, K, D) float32.
        labels: (n, K) in {-1, 0, 1}.
        seed: of the starting weights and of the order; no global generator moves.
        epochs: passes over the frames.
        batch_size: frames a step.
        learning_rate: constant.
        weight_decay: of Adam.

    Returns:
        The probe, on the CPU and in eval mode.

    Raises:
        DataError: a feature is not finite, or the shapes do not fit.
    """
    if features.ndim != 3 or labels.shape != features.shape[:2]:
        raise DataError(
            f"probe: expected features (n, K, D) and labels (n, K), got {features.shape} and {labels.shape}"
        )
    if not np.isfinite(features).all():
        raise DataError("probe: expected finite features; the encoder's weights may have diverged")
    x = torch.from_numpy(features)  # (n, K, D)
    return _fit_probe(
        x.__getitem__,
        features.shape[2],
        labels,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )


def fit_train_mode_probe(
    encoder: Encoder,
    images: Array,
    labels: Array,
    *,
    rows: Array,
    seed: int,
    epochs: int = 100,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    device: str = "cpu",
    crop: int = 0,
) -> LinearProbe:
    """Fit the probe as the released script did: on a network in training mode, without a gradient through it.

    BatchNorm uses the statistics of each batch and its running ones move, and stochastic depth stays on. Scored is the
    moved network in eval mode.

    Args:
        encoder: its buffers change; move it to `device` before.
        images: (n, H, W, 3) uint8, RGB.
        labels: (n, K) in {-1, 0, 1}.
        rows: the frames to fit on.
        seed: of weights, order and drop-outs.
        device: of the encoder.
        crop: see `embed`.

    The others are those of `fit_probe`, and so is the result.
    """
    labels = labels[rows]
    encoder.train()

    def of(batch: Tensor) -> Tensor:
        pixels = torch.from_numpy(images[rows[batch.numpy()]]).to(device)  # (B, H, W, 3)
        with torch.no_grad():
            x: Tensor = encoder(centre(pixels.permute(0, 3, 1, 2).float() / 255, crop))  # (B, K, D)
        return x.float().cpu()

    with _seeded(seed, device):
        return _fit_probe(
            of,
            encoder.channels,
            labels,
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
        )


def _fit_probe(
    features: Callable[[Tensor], Tensor],
    channels: int,
    labels: Array,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 1e-6,
) -> LinearProbe:
    """The probe on `features`, from rows (B,) of `labels` (n, K) to (B, K, D)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        probe = LinearProbe(labels.shape[1], channels)
    present, absent = (labels == 1).sum(0), (labels == 0).sum(0)  # (K) each
    idle = torch.from_numpy((present == 0) | (absent == 0))  # (K)
    targets = torch.from_numpy(labels == 1).float()  # (n, K)
    known = torch.from_numpy(labels >= 0) & ~idle  # (n, K)
    optimizer = torch.optim.Adam(probe.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    order = np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in torch.split(torch.from_numpy(order.permutation(len(labels))), batch_size):
            optimizer.zero_grad()
            loss = _known_mean(_cross_entropy(probe(features(rows)), targets[rows]), known[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        probe.weight[idle] = 0
        probe.bias[idle] = torch.from_numpy(np.log((present + 0.5) / (absent + 0.5))).float()[idle]
    return probe.eval()


# Supervised losses. Every one is a mean over the known entries of the batch; unknown labels have no part in it.

POS_WEIGHT_CAP = 20.0  # an AU present in fewer than 1 of 21 frames would let a handful of frames rule the network
FOCAL_GAMMA, SMOOTHING = 2.0, 0.1
ASYMMETRIC_ABSENT, ASYMMETRIC_PRESENT, ASYMMETRIC_CLIP = 4.0, 1.0, 0.05


def au_weights(labels: Array) -> Tensor:
    """The field's and the released "weights": 1 / rate of each AU over their mean, (K,), from `labels` (n, K).

    They balance AUs with each other, not present and absent frames. An AU that is never present counts as seen once.
    """
    known, present = (labels >= 0).sum(0), (labels == 1).sum(0)  # (K) each
    inverse = np.maximum(known, 1) / np.maximum(present, 1)  # (K)
    return torch.from_numpy(inverse / inverse.mean()).float()


def supervised_loss(name: str, labels: Array) -> SupervisedLoss:
    """A supervised loss by name, with the weights that the training labels give.

    With logits x, p = sigmoid(x), y in {0, 1}, and n1, n0 the present and absent frames of an AU in `labels`:

    * `bce`: -y log p - (1 - y) log(1 - p).
    * `bce_pos_weight`: -w y log p - (1 - y) log(1 - p), w = min(n0 / n1, 20) per AU: balances present and absent.
    * `bce_au_weight`: u bce, u = 1 / rate per AU, divided by its mean: balances AUs with each other, not the classes.
      It is the field's habit and the released "weights".
    * `focal`: bce times (1 - p)^2 of the present and p^2 of the absent (Lin et al. 2017; gamma 2, no alpha, because
      the usual alpha of .25 would weigh the rare present frames down).
    * `asymmetric`: -y (1 - p) log p - (1 - y) q^4 log(1 - q), q = max(p - .05, 0) (Ridnik et al. 2021, gammas 1 and 4;
      a mean where their code sums).
    * `label_smoothing`: bce with y replaced by .9 y + .05.

    Args:
        name: one of `study.SUPERVISED`.
        labels: (n, K) in {-1, 0, 1}, those of the training frames.

    Returns:
        From (logits (M, K), labels (M, K)) to a scalar, computed in float32: the mean over known entries, 0 with a live
        graph if there is none.

    Raises:
        UsageError: the name is unknown.
    """
    present, absent = (labels == 1).sum(0), (labels == 0).sum(0)  # (K) each
    pos_weight = torch.from_numpy(np.minimum(absent / np.maximum(present, 1), POS_WEIGHT_CAP)).float()  # (K)
    au_weight = au_weights(labels)  # (K)

    def bce_pos_weight(x: Tensor, y: Tensor) -> Tensor:
        weight = pos_weight.to(x.device)
        return F.binary_cross_entropy_with_logits(x, y, pos_weight=weight, reduction="none")  # (M, K)

    def bce_au_weight(x: Tensor, y: Tensor) -> Tensor:
        return au_weight.to(x.device) * _cross_entropy(x, y)  # (M, K)

    def label_smoothing(x: Tensor, y: Tensor) -> Tensor:
        return _cross_entropy(x, (1 - SMOOTHING) * y + SMOOTHING / 2)  # (M, K)

    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "bce": _cross_entropy,
        "bce_pos_weight": bce_pos_weight,
        "bce_au_weight": bce_au_weight,
        "focal": _focal,
        "asymmetric": _asymmetric,
        "label_smoothing": label_smoothing,
    }
    if name not in losses:
        raise UsageError(f"supervised loss {name!r} is unknown; expected one of {', '.join(SUPERVISED)}")

    def loss(logits: Tensor, batch: Tensor) -> Tensor:
        batch = batch.to(logits.device)
        return _known_mean(losses[name](logits.float(), (batch == 1).float()), batch >= 0)

    return loss


def _known_mean(values: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, values, 0).sum() / known.sum().clamp(min=1)


def _cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, y, reduction="none")  # (M, K)


def _focal(x: Tensor, y: Tensor) -> Tensor:
    from kornia.losses import binary_focal_loss_with_logits

    return binary_focal_loss_with_logits(x, y, alpha=None, gamma=FOCAL_GAMMA, reduction="none")  # (M, K)


def _asymmetric(x: Tensor, y: Tensor) -> Tensor:
    shifted = (torch.sigmoid(x) - ASYMMETRIC_CLIP).clamp(min=0)  # (M, K)
    present = torch.sigmoid(-x) ** ASYMMETRIC_PRESENT * F.logsigmoid(x)  # (M, K)
    absent = shifted**ASYMMETRIC_ABSENT * torch.log1p(-shifted)  # (M, K)
    return -torch.where(y == 1, present, absent)  # (M, K)


RULES = ("last", "inner_val", "oracle")
HEADS = ("probe", "own", "knn")


class Monitor:
    """The check of a run: scores of inner validation and test from the frozen encoder, for three epoch rules.

    A check embeds the training, validation and test frames once, fits the probe on training frames with noisy labels
    and scores with up to three heads: `own` (the head of a supervised arm), `probe` and `knn`. It keeps the scores of
    three checks: `last`; `inner_val`, that with the highest AUC on the inner validation (noisy labels); and `oracle`,
    that with the highest AUC on the test (clean labels), which an honest table sets apart. The probe chooses, as it is
    the head that every method has.

    Args:
        features: from row numbers (m,) to features (m, K, D) of those frames; for an encoder in training, `embed`.
        split: rows for training, inner validation and test.
        noisy: (n, K) labels of training and inner validation.
        clean: (n, K) labels of the test.
        subjects: (n,).
        aus: the K AU numbers.
        entering: the AUs of the means, see `evaluation.scored_aus`; if none enters, as in a tiny trial, the means of
            the curves are over all.
        seed: of the probe.
        head: the own head of a supervised arm.
        probe_epochs: see `fit_probe`, `probe_learning_rate` likewise.
        knn_frames: training frames that kNN searches, evenly spaced over the training rows: neighbouring frames are
            near duplicates, and the search is quadratic.
    """

    def __init__(
        self,
        features: Callable[[Array], Array],
        *,
        split: Split,
        noisy: Array,
        clean: Array,
        subjects: Array,
        aus: Sequence[int],
        entering: Sequence[int],
        seed: int,
        head: LinearProbe | None = None,
        probe_epochs: int = 100,
        probe_learning_rate: float = 1e-3,
        knn_frames: int = 4096,
    ) -> None:
        self.features, self.split, self.head = features, split, head
        self.noisy, self.clean, self.subjects = noisy, clean, np.asarray(subjects)
        self.aus, self.entering = tuple(aus), tuple(entering)
        self.knn_frames = knn_frames
        self._fit = partial(fit_probe, seed=seed, epochs=probe_epochs, learning_rate=probe_learning_rate)
        self.scores: dict[str, dict[str, tuple[Array, Array]]] = {}
        """Epoch rule -> head -> probabilities (validation (m, K), test (n, K)), for `evaluation.score_tables`."""
        self.epochs: dict[str, int] = {}
        """Epoch rule -> the epoch it chose."""
        self.probe: LinearProbe | None = None
        """The probe of the last check."""
        self._best: dict[str, float] = {}

    def __call__(self, epoch: int, /) -> dict[str, float]:
        """Score the encoder as it is.

        Returns:
            val_auc and val_f1 (noisy labels of the inner validation), test_auc and test_f1 (clean labels of the test,
            for the oracle column only): means over the entering AUs, F1 at the threshold 0.5.
        """
        split = self.split
        train, validation, test = (self.features(rows) for rows in (split.train, split.validation, split.test))
        self.probe = probe = self._fit(train, self.noisy[split.train])
        scores = {"probe": (probabilities(probe, validation), probabilities(probe, test))}
        if self.head is not None:
            scores["own"] = (probabilities(self.head, validation), probabilities(self.head, test))
        some = np.unique(np.linspace(0, len(train) - 1, min(len(train), self.knn_frames)).round().astype(int))
        near, labels = train[some], self.noisy[split.train[some]]
        scores["knn"] = (knn(near, labels, validation), knn(near, labels, test))

        values: dict[str, float] = {}
        for name, rows, truth, score in (
            ("val", split.validation, self.noisy, scores["probe"][0]),
            ("test", split.test, self.clean, scores["probe"][1]),
        ):
            pairs = concordance(truth[rows], score, self.subjects[rows], self.aus)
            counts = occurrence_counts(truth[rows], score >= 0.5, self.subjects[rows], self.aus)
            of = self.entering or self.aus
            values |= {f"{name}_auc": macro(auc(pairs), of), f"{name}_f1": macro(f1(counts), of)}
        for rule, value in zip(RULES, (float(epoch), values["val_auc"], values["test_auc"]), strict=True):
            # A mean that is undefined is better than none and worse than any.
            value = -math.inf if math.isnan(value) else value
            if rule not in self._best or value > self._best[rule]:
                self._best[rule], self.epochs[rule], self.scores[rule] = value, epoch, scores
        return values

    def state(self) -> dict[str, Tensor]:
        """What the checkpoint keeps: a killed run continues with these scores."""
        kept = {  # one epoch may serve several rules
            f"{self.epochs[rule]}.{head}.{place}": torch.from_numpy(array)
            for rule, heads in self.scores.items()
            for head, pair in heads.items()
            for place, array in zip(("validation", "test"), pair, strict=True)
        }
        chosen = {
            rule: torch.tensor([self._best[rule], self.epochs[rule]], dtype=torch.float64) for rule in self.scores
        }
        probe = {} if self.probe is None else self.probe.state_dict(prefix="probe.")
        return kept | chosen | probe

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        if "probe.weight" in state:
            self.probe = LinearProbe(*state["probe.weight"].shape).eval()
            self.probe.load_state_dict({name: state[f"probe.{name}"] for name in ("weight", "bias")})
        for rule in (rule for rule in RULES if rule in state):
            self._best[rule], self.epochs[rule] = state[rule][0].item(), int(state[rule][1])
            mine = {key: value.numpy() for key, value in state.items() if key.startswith(f"{self.epochs[rule]}.")}
            # A checkpoint forgets the order, and the rows of the tables follow it.
            heads = [head for head in HEADS if f"{self.epochs[rule]}.{head}.test" in mine]
            self.scores[rule] = {
                head: (mine[f"{self.epochs[rule]}.{head}.validation"], mine[f"{self.epochs[rule]}.{head}.test"])
                for head in heads
            }


def probabilities(head: LinearProbe, features: Array) -> Array:
    """Sigmoid of a head's logits.

    Args:
        head: stays on its device.
        features: (n, K, D) float32.

    Returns:
        (n, K) float32, 0 to 1.
    """
    with torch.inference_mode():
        device = head.weight.device
        scores = [torch.sigmoid(head(x.to(device))).cpu() for x in torch.split(torch.from_numpy(features), 4096)]
        return torch.cat(scores).numpy()  # (n, K)
