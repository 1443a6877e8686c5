"""Training: one loop for contrastive pretraining and supervised fitting, one schedule, one checkpoint format.

Every method sees two views of each image a step. All randomness is drawn anew from (seed, epoch, step). A training that
was killed and continued from its checkpoint therefore gives, on a CPU, the same numbers to the bit.
"""

import itertools
import json
import math
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from aunce import files
from aunce.devices import Late, Processes, send, share_batch_norms
from aunce.errors import DataError, RunError, UsageError
from aunce.model import Encoder, LinearProbe, seeded
from aunce.supervised import SupervisedLoss
from aunce.views import two_views

Array = NDArray[Any]
ContrastiveLoss = Callable[[Tensor, Tensor, Generator, slice | None], Tensor]
"""(z (V=2, B, K, D), labels (B, K) int8 on the CPU, CPU generator, the images that are anchors) -> scalar."""
Check = Callable[[int], Mapping[str, float]]
"""epoch, counted from 1 -> values by name, which join the row of the history."""
Measure = Callable[[Tensor, Tensor], Mapping[str, float]]
"""(z (V=2, B, K, D), labels (B, K) int8 on the CPU) -> values by name, which join the row of the history."""

WARMUP_EPOCHS = 1  # at most half of the training; a constant schedule has none


class Stage(NamedTuple):
    """One epoch of a training."""

    epoch: int  # from 1, counted along the path that leads to this epoch
    length: int = 0  # the length of the branch whose cooldown this is; 0 on the trajectory


@dataclass(frozen=True)
class Optimisation:
    """AdamW at a rate that follows a schedule: cosine, constant or wsd.

    cosine: a linear warm-up of one epoch, then a cosine decay to 0. constant: neither. wsd (warm-up, stable, decay;
    Hägele et al., 2024): a linear warm-up of one epoch, a constant rate, then a linear cooldown to 0 over the last
    fifth. One wsd trajectory serves several `lengths`: a branch leaves it for the cooldown of each length, and the
    trajectory goes on from where the branch left. A branch is the training that has this length alone.

    The released code (commit bade385) honours its learning rate in the first epoch only. Here every step's rate is
    `learning_rate` times a factor of the step alone.

    Raises:
        UsageError: a value out of its range.
    """

    epochs: int  # passes over the training images
    batch_size: int  # images a step; each gives two views
    learning_rate: float  # the highest rate, reached at the end of the warm-up
    weight_decay: float = 1e-4  # of AdamW, on all parameters
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"  # the released rate is constant but for its last epoch
    lengths: tuple[
        int, ...
    ] = ()  # of wsd, epochs with their cooldown, rising; the last one is `epochs`. Empty: only that

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a positive number"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "zero or a positive number"),
            "schedule": (self.schedule in ("cosine", "constant", "wsd"), "cosine, constant or wsd"),
            "lengths": (self._lengths_fit(), f"none, or rising numbers from 2 to epochs = {self.epochs} for wsd"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise UsageError(f"{name}: expected {expected}, got {getattr(self, name)}")

    def _lengths_fit(self) -> bool:
        rising = all(first < second for first, second in itertools.pairwise((1, *self.lengths)))
        return not self.lengths or (self.schedule == "wsd" and rising and self.lengths[-1] == self.epochs)

    @property
    def ends(self) -> tuple[int, ...]:
        """The lengths in epochs at which the learning rate has reached its end: one, or those of wsd."""
        return self.lengths or (self.epochs,)

    @property
    def stages(self) -> list[Stage]:
        """Every epoch in the order of training; a branch comes as soon as the trajectory has reached its cooldown."""
        if self.schedule != "wsd":
            return [Stage(epoch) for epoch in range(1, self.epochs + 1)]
        stages, reached = [], 0
        for length in self.ends:
            cooldown = length - _cooldown(length)  # the last epoch before it
            stages += [Stage(epoch) for epoch in range(reached + 1, cooldown + 1)]
            stages += [Stage(epoch, length) for epoch in range(cooldown + 1, length + 1)]
            reached = cooldown
        return stages

    def rate(self, step: int, steps_per_epoch: int, length: int = 0) -> float:
        """Learning rate of a step.

        With T steps and W of warm-up: learning_rate (step + 1) / W before W, then for cosine
        learning_rate (1 + cos(pi (step - W) / (T - W))) / 2; for wsd learning_rate, and in the cooldown of C steps
        to the end E of a branch learning_rate (E - step) / C.

        Args:
            step: counted from 0 over all epochs of its path.
            steps_per_epoch: batches of an epoch.
            length: of the branch, see `Stage`.
        """
        if self.schedule == "constant":
            return self.learning_rate
        if length:
            return self.learning_rate * (length * steps_per_epoch - step) / (_cooldown(length) * steps_per_epoch)
        # The first length sets the warm-up, so that a branch of it is the training of this length alone.
        warmup = min(WARMUP_EPOCHS * steps_per_epoch, self.ends[0] * steps_per_epoch // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if self.schedule == "wsd":
            return self.learning_rate
        total = self.epochs * steps_per_epoch
        return self.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def _cooldown(length: int) -> int:
    """Epochs of the cooldown of a training of `length` epochs: a fifth, rounded up."""
    return -(-length // 5)


@runtime_checkable
class StatefulCheck(Protocol):
    """A check with a memory, which the checkpoint keeps."""

    def state(self) -> dict[str, Tensor]:
        """What the check has to remember, tensors by name."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave, before a training goes on from its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training is made of, besides its network and its loss."""

    images: Array  # (n, H, W, 3) uint8, RGB; a memory map is read batch by batch
    labels: Array  # (n, K) in {-1, 0, 1}
    optimisation: Optimisation
    seed: int  # of order, views, drop-outs and the loss's draws
    rows: Array | None = None  # the images to train on; all if left out
    aus: Sequence[int] | None = None  # the AU numbers, for messages; 1 to K if left out
    # Of the rows, with sum 1: an epoch draws as many frames as there are rows, with replacement. None takes every row
    # once, in a new order.
    sampling_weights: Array | None = None
    # False sends both views through the network together. True sends them one after the other, so that each BatchNorm
    # sees one view at a time (the released code, commit bade385).
    two_forwards: bool = False
    crop: int = 0  # pixels, see `two_views`
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"  # of the forward pass, by torch's autocast; losses are float32 or more
    compiled: bool = False  # compile the network first, which takes minutes and pays on a GPU
    check: Check | None = None  # called after some epochs
    checks: int = (
        1  # after how many epochs, evenly spaced and always with the last; wsd is checked at each of its lengths
    )
    measure: Measure | None = None  # called with the last batch of each of these epochs
    checkpoint: Path | None = None  # a folder, written after each epoch; an earlier state of this training is continued
    log: Callable[[str], None] = print  # takes one line per epoch


def pretrain(encoder: Encoder, loss: ContrastiveLoss, training: Training) -> pd.DataFrame:
    """Train an encoder with a contrastive loss on two views of each image.

    Args:
        encoder: trained in place; ends on the device of the training and in training mode.
        loss: from (z (2, B, K, D), labels (B, K), CPU generator, anchors) to a scalar. z is not normalised. The anchors
            are a slice of images in a run on several GPUs, else None, see `aunce_loss`. The loss is called once
            beforehand on a fixed example, whose value tells the checkpoints of different losses apart.
        training: data, plan, check and checkpoint.

    Returns:
        One row per epoch: epoch (from 1), loss (mean over steps), learning_rate (of the last step), seconds (of the
        epoch with its check), for wsd length (see `Stage`), then the values of check and measure, NaN where there was
        no check.

    Raises:
        DataError: images, labels and rows do not fit each other.
        RunError: the loss is not finite (the message names epoch, step and AUs), or the checkpoint is of another
            training.
    """
    return _train(_Network(encoder, None, training), loss, training)


def fit_supervised(encoder: Encoder, head: LinearProbe, loss: SupervisedLoss, training: Training) -> pd.DataFrame:
    """Train an encoder together with a linear head, on the same two views a step as `pretrain`.

    Args:
        encoder: trained in place; ends on the device of the training and in training mode.
        head: trained in place, likewise.
        loss: from (logits (2B, K), labels (2B, K)) to a scalar, the mean over known entries, see `supervised_loss`. It
            is called once beforehand, as in `pretrain`.
        training: data, plan, check and checkpoint; a measure is given logits (2, B, K).

    The result and what is raised are those of `pretrain`.
    """

    def objective(logits: Tensor, labels: Tensor, generator: Generator, anchors: slice | None) -> Tensor:
        whole = loss(logits.flatten(0, 1), labels.repeat(2, 1))
        return whole if anchors is None else whole * ((anchors.stop - anchors.start) / len(labels))

    return _train(_Network(encoder, head, training), objective, training)


class _Network(nn.Module):
    def __init__(self, encoder: Encoder, head: LinearProbe | None, training: Training) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.two_forwards, self.bf16 = training.two_forwards, training.precision == "bf16"

    def forward(self, views: Tensor) -> Tensor:
        """Features (2, B, K, D) of views (2, B, 3, H, W), or logits (2, B, K) with a head."""
        with torch.autocast(views.device.type, torch.bfloat16, enabled=self.bf16):
            if self.two_forwards:
                z = torch.stack([self.encoder(view) for view in views])  # (2, B, K, D)
            else:
                z = self.encoder(views.flatten(0, 1)).unflatten(0, (2, -1))  # (2, B, K, D)
            return z if self.head is None else self.head(z.flatten(0, 1)).unflatten(0, (2, -1))  # (2, B, K)


def _train(network: _Network, objective: ContrastiveLoss, training: Training) -> pd.DataFrame:
    """The loop; `objective` takes the outputs of the network in place of z."""
    plan, labels, device = training.optimisation, training.labels, training.device
    count, aus = len(training.images), network.encoder.aus
    if count != len(labels) or labels.shape[1:] != (aus,):
        raise DataError(
            f"training: expected labels ({count}, {aus}) for {count} images and an encoder of {aus} AUs, got "
            f"{labels.shape}"
        )
    rows = np.arange(count) if training.rows is None else np.asarray(training.rows)
    processes = Processes.join(device, place=str(training.checkpoint))
    # A last batch of one image has no partner to contrast with and no batch statistics; and each process needs one.
    fewest = max(2, processes.size)
    if len(rows) < fewest:
        raise DataError(f"training: expected at least {fewest} images to train on, got {len(rows)}")
    starts = [start for start in range(0, len(rows), plan.batch_size) if len(rows) - start >= fewest]
    stages = plan.stages
    checked = {Stage(length, length) for length in plan.ends}
    if plan.schedule != "wsd":
        checked = {Stage(epoch) for epoch in _spread(training.checks, plan.epochs)}
    if training.check is None:
        checked = set()

    if processes.size > 1:
        share_batch_norms(network.encoder)
    forward: nn.Module = network.to(device)
    if training.compiled:
        forward = cast(nn.Module, torch.compile(network))
    if processes.size > 1:
        forward = DistributedDataParallel(forward, [torch.device(device)] if device.startswith("cuda") else None)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=plan.weight_decay, fused=True)
    checkpoint = _Checkpoint(training, _identity(training, rows, checked, objective, network), network, optimizer)
    history = checkpoint.load()
    done, started = len(history), time.perf_counter()
    for number, stage in enumerate(stages[done:], done):
        began, (epoch, length) = time.perf_counter(), stage
        if number and length != stages[number - 1].length:
            if stages[number - 1].length:
                checkpoint.return_to_trajectory()
            if length and length < plan.epochs:
                checkpoint.leave_trajectory()
        network.train()
        draws, weights = np.random.default_rng((training.seed, epoch)), training.sampling_weights
        order = draws.permutation(rows) if weights is None else draws.choice(rows, len(rows), p=weights)
        batches = [np.sort(order[start : start + plan.batch_size]) for start in starts]
        total = torch.zeros((), dtype=torch.float64, device=device)
        rate = 0.0
        queued: _Queued | None = None
        # The bar is drawn at a terminal only.
        bar = tqdm(_read(training, batches, processes), f"epoch {epoch}", len(batches), leave=False, disable=None)
        for step, pixels in enumerate(bar):
            for_views, for_network, for_loss = _seeds(training.seed, epoch, step)
            batch, share = batches[step], processes.share(len(batches[step]))
            known = torch.from_numpy(labels[batch])  # (B, K)
            views = two_views(  # (2, b, 3, H, W)
                pixels, seed=for_views, crop=training.crop, first=share.start, of=len(batch)
            )
            rate = plan.rate((epoch - 1) * len(batches) + step, len(batches), length)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            # Drop-outs and stochastic depth draw from the global generator, in each process others.
            with seeded(for_network + processes.rank, device):
                out = processes.gather(forward(views), len(batch))  # (2, B, K, D), or (2, B, K) with a head
            anchors = share if processes.size > 1 else None
            value = objective(out, known, Generator().manual_seed(for_loss), anchors)
            (value * processes.size).backward()  # type: ignore[no-untyped-call]  # the processes' gradients are averaged
            optimizer.step()
            total += value.detach()
            if queued is not None:
                queued.stop_if_broken(objective, training.aus)
            queued = _Queued(Late(value), out.detach(), known, for_loss, anchors, f"epoch {epoch}, step {step + 1}")
        assert queued is not None  # there is a batch at least
        queued.stop_if_broken(objective, training.aus)
        loss = processes.total(total).item() / len(batches)
        row: dict[str, float] = {"epoch": epoch, "loss": loss, "learning_rate": rate, "seconds": 0.0}
        if plan.schedule == "wsd":
            row["length"] = length
        if training.check is not None and stage in checked:
            row |= training.check(epoch)
            if training.measure is not None:
                row |= training.measure(queued.out, queued.labels)
        row["seconds"] = time.perf_counter() - began
        history.append(row)
        if processes.rank == 0:
            checkpoint.save(history)
        each = (time.perf_counter() - started) / (number + 1 - done)
        training.log(_line(row, length or plan.epochs, each, len(stages) - number - 1))
    return pd.DataFrame(history)


def _identity(
    training: Training, rows: Array, checked: set[Stage], objective: ContrastiveLoss, network: _Network
) -> dict[str, Any]:
    """What a checkpoint must have in common with a training that continues it."""
    aus = network.encoder.aus
    # The value of a loss on an example that is always the same tells losses apart.
    z = torch.randn(2, 4, aus, 8, generator=Generator().manual_seed(0)).to(training.device)  # (2, B=4, K, 8)
    labels = ((torch.arange(4)[:, None] + torch.arange(aus)) % 2).to(torch.int8)  # (4, K)
    example = z if network.head is None else z[..., 0]  # (2, 4, K, 8) or (2, 4, K)
    loss = objective(example, labels, Generator().manual_seed(0), None)
    shapes = [(name, value.shape) for name, value in network.state_dict().items()]
    weights = training.sampling_weights
    return {
        "format": 3,
        "optimisation": {name: value for name, value in asdict(training.optimisation).items() if name != "lengths"},
        **{name: getattr(training, name) for name in ("seed", "two_forwards", "crop", "precision")},
        "loss": f"{loss.item():.5g}",
        "checks": sorted(stage.epoch for stage in checked),
        "stages": zlib.crc32(repr(training.optimisation.stages).encode()),
        "images": list(training.images.shape),
        "labels": zlib.crc32(training.labels[rows].tobytes()),
        "rows": zlib.crc32(rows.astype(np.int64).tobytes()),
        "sampling_weights": None if weights is None else zlib.crc32(weights.tobytes()),
        "network": zlib.crc32(repr(shapes).encode()),
    }


def _spread(checks: int, epochs: int) -> set[int]:
    """`checks` epochs, evenly spaced, always with the last: 3 of 8 are 3, 6 and 8."""
    count = min(checks, epochs)
    return {-(-epochs * number // count) for number in range(1, count + 1)}


def _seeds(seed: int, epoch: int, step: int) -> tuple[int, int, int]:
    """Seeds of the views, the network and the loss in a step."""
    views, network, loss = np.random.SeedSequence((seed, epoch, step)).generate_state(3, np.uint32)
    return int(views), int(network), int(loss)


def _read(training: Training, batches: Sequence[Array], processes: Processes) -> Iterator[Tensor]:
    """This process's share (b, H, W, 3) of each batch on the device; the next one is read meanwhile."""

    def read(batch: Array) -> Tensor:
        return send(torch.from_numpy(training.images[batch[processes.share(len(batch))]]), training.device)

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, batches[0])
        for following in batches[1:]:
            pixels, ahead = ahead.result(), reader.submit(read, following)
            yield pixels
        yield ahead.result()


def _line(row: Mapping[str, float], epochs: int, seconds: float, to_go: int) -> str:
    left = seconds * to_go
    left_text = f"about {left:.0f} s left" if left < 120 else f"about {left / 60:.0f} min left"
    area = f"  val AUC {row['val_auc']:.3f}".replace("0.", ".") if "val_auc" in row else ""
    return f"epoch {row['epoch']:.0f}/{epochs}  loss {row['loss']:.3f}{area}  {seconds:.1f} s/epoch  {left_text}"


@dataclass(frozen=True)
class _Queued:
    """A step whose loss is looked at one step later: the host never waits for what it has just queued."""

    value: Late
    out: Tensor  # (2, B, K, D) or (2, B, K)
    labels: Tensor  # (B, K)
    seed: int
    anchors: slice | None
    place: str

    def stop_if_broken(self, objective: ContrastiveLoss, aus: Sequence[int] | None) -> None:
        """Stop if the loss of this step is not finite, and say for which AUs the network's output, or the loss, broke.

        The term of an AU is the loss with this AU alone: the others are unknown and their outputs constant.

        Raises:
            RunError: the loss is not finite.
        """
        if math.isfinite(self.value.item()):
            return
        aus = aus or range(1, self.labels.shape[1] + 1)
        finite = torch.isfinite(self.out).movedim(2, 0).flatten(1).all(1).tolist()  # (K)
        cause = f": the network's output for {_named(aus, finite)} is not"
        if all(finite):
            finite = [self._is_finite_alone(objective, k) for k in range(len(aus))]
            cause = f": the network's output is, the loss terms of {_named(aus, finite)} are not"
            if all(finite):
                cause = ", though the network's output and the terms of the single AUs are"
        remedy = "a lower learning rate may help; nothing finished is lost"
        raise RunError(f"{self.place}: the loss is not finite{cause}; {remedy}")

    def _is_finite_alone(self, objective: ContrastiveLoss, k: int) -> bool:
        mine = torch.arange(self.labels.shape[1]) == k  # (K)
        out = torch.ones_like(self.out)  # (2, B, K, D) or (2, B, K)
        out[:, :, k] = self.out[:, :, k]
        with torch.no_grad():
            generator = Generator().manual_seed(self.seed)
            term = objective(out, torch.where(mine, self.labels, -1), generator, self.anchors)
        return math.isfinite(term.item())


def _named(aus: Sequence[int], finite: Sequence[bool]) -> str:
    """The AUs that are not finite."""
    broken = [f"AU{au}" for au, good in zip(aus, finite, strict=True) if not good]
    return f"all {len(aus)} AUs" if len(broken) == len(aus) > 1 else ", ".join(broken)


class _Checkpoint:
    """A folder of weights.safetensors, optimizer.safetensors, check.safetensors and state.json.

    In a branch it has the weights and the optimizer of the trajectory, too.

    Args:
        training: its checkpoint is the folder (None: nothing is kept), its check has a state of its own.
        identity: what only this training has, as JSON.
        network: read and restored in place, like the optimiser.
        optimizer: an AdamW.
    """

    def __init__(
        self, training: Training, identity: dict[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.folder, self.log = training.checkpoint, training.log
        self.check = training.check if isinstance(training.check, StatefulCheck) else None
        self.identity, self.network, self.optimizer = identity, network, optimizer
        self.trajectory: dict[str, dict[str, Tensor]] = {}  # where the branch left it; empty outside a branch

    def leave_trajectory(self) -> None:
        """Keep network and optimiser as they are, for the time after a branch."""
        now = {"weights": self.network.state_dict(), "optimizer": self._moments()}
        self.trajectory = {name: {key: value.clone() for key, value in group.items()} for name, group in now.items()}

    def return_to_trajectory(self) -> None:
        """Give network and optimiser back what they were when the branch left."""
        self.network.load_state_dict(self.trajectory["weights"])
        _restore(self.optimizer, self.trajectory["optimizer"])
        self.trajectory = {}

    def _moments(self) -> dict[str, Tensor]:
        states = self.optimizer.state_dict()["state"]
        return {f"{number}.{name}": value for number, state in states.items() for name, value in state.items()}

    def save(self, history: list[dict[str, float]]) -> None:
        """Write the folder beside its place and rename it: a kill at any moment leaves this state or the one before."""
        if (folder := self.folder) is None:
            return
        partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tensors = {
            "weights": self.network.state_dict(),
            "optimizer": self._moments(),
            "check": {} if self.check is None else self.check.state(),
        }
        tensors |= {f"trajectory_{name}": group for name, group in self.trajectory.items()}
        for name, group in tensors.items():
            path = partial / f"{name}.safetensors"
            safetensors.torch.save_file({key: value.contiguous() for key, value in group.items()}, path)
            files.sync(path)
        state = {"epoch": len(history), "history": history, "identity": self.identity, "tensors": sorted(tensors)}
        files.write(partial / "state.json", json.dumps(state, indent=1))
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
        files.sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)

    def load(self) -> list[dict[str, float]]:
        """Restore the newest whole checkpoint.

        Returns:
            Its history; an empty one if there is none.

        Raises:
            RunError: it belongs to another training.
        """
        if self.folder is None:
            return []
        for place in (self.folder, self.folder.with_name(self.folder.name + ".old")):
            if not place.exists():
                continue
            try:
                state = json.loads((place / "state.json").read_text())
                history: list[dict[str, float]] = state["history"]
                stored = state["identity"]
                always = ("weights", "optimizer", "check")
                names = state.get("tensors", always)  # an earlier revision did not list them
                tensors = {name: safetensors.torch.load_file(place / f"{name}.safetensors") for name in names}
                weights, moments, check = (tensors[name] for name in always)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                self.log(f"{place} is not a whole checkpoint and is left out: {error}")
                continue
            if differing := [key for key, value in self.identity.items() if stored.get(key) != value]:
                raise RunError(
                    f"{place} belongs to another training: its {', '.join(differing)} differ. Remove the folder to "
                    "start anew, or name another"
                )
            self.network.load_state_dict(weights)
            _restore(self.optimizer, moments)
            if self.check is not None:
                self.check.restore(check)
            kept = [name for name in tensors if name.startswith("trajectory_")]
            self.trajectory = {name.removeprefix("trajectory_"): tensors[name] for name in kept}
            self.log(f"continues after epoch {len(history)} from {place}")
            return history
        return []


def _restore(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    """Give the optimiser its moments back, in the memory layout of their parameters, which the fused step assumes."""
    for number, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        for name in ("step", "exp_avg", "exp_avg_sq"):
            if (value := moments.get(f"{number}.{name}")) is not None:
                like = torch.empty_like(value if name == "step" else parameter, device=parameter.device)
                optimizer.state[parameter][name] = like.copy_(value)
