"""Where a run computes: on which device, how numbers get there and back without waiting, and on several GPUs at once.

One run on several GPUs is one process for each, started by torchrun. Every process computes a share of each batch, the
images of `Processes.share`. BatchNorm, the loss and its gradient are those of the whole batch. So the number of GPUs
changes no number beyond rounding, but for the places of drop-outs.
"""

import os
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from aunce.errors import UsageError


def pick_device(device: str) -> str:
    """`device`, with "auto" a GPU if torch sees one; in a run on several GPUs, the one of this process."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and "LOCAL_RANK" in os.environ else name


def send(values: Tensor, device: str | torch.device) -> Tensor:
    """A tensor of the host on `device`. From pinned memory, so that the host does not wait for a GPU at work."""
    device = torch.device(device)
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class Late:
    """A number that a device hands over once it has it, while the host goes on to queue more work."""

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=True)
        self._ready = torch.cuda.Event() if value.is_cuda else None  # type: ignore[no-untyped-call]
        if self._ready is not None:
            self._ready.record(torch.cuda.current_stream(value.device))

    def item(self) -> float:
        """The number. Waits for the work before it alone, not for what was queued since."""
        if self._ready is not None:
            self._ready.synchronize()
        return float(self._value.item())


class Processes:
    """The processes that share one run: this one's `rank` of `size`; 0 of 1 for a run in a single process."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, device: str, *, place: str) -> Self:
        """Meet the other processes that torchrun has started, if it has.

        Args:
            device: of this process.
            place: a name for what they do together: two trainings in a row must not mistake each other's messages.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if not torch.distributed.is_initialized():
            backend = "nccl" if device.startswith("cuda") else "gloo"
            if backend == "nccl":
                torch.cuda.set_device(device)
            store, rank, size = next(rendezvous("env://"))
            store = PrefixStore(place, store)
            torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    def share(self, images: int) -> slice:
        """The images of a batch that are this process's: shares differ by one image at most.

        Raises:
            UsageError: there are fewer images than processes.
        """
        if images < self.size:
            raise UsageError(f"a batch of {images} images cannot be shared by {self.size} processes: start fewer")
        return slice(images * self.rank // self.size, images * (self.rank + 1) // self.size)

    def gather(self, features: Tensor, images: int) -> Tensor:
        """Features (V, B, ...) of the whole batch of `images` from this process's share of them, with their gradient.

        The gradient of a share is the sum over what all processes do with it.
        """
        if self.size == 1:
            return features
        shares = [Processes(rank, self.size).share(images) for rank in range(self.size)]
        return gather(features, counts=[share.stop - share.start for share in shares])  # (V, B, ...)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a value over all processes, without gradient."""
        return value if self.size == 1 else _sum(value)


def gather(share: Tensor, *, axis: int = 1, counts: Sequence[int] | None = None) -> Tensor:
    """The whole batch from the share of each process, with its gradient: the sum over what all processes do with it.

    The contrastive loss of a batch that is spread over the processes of `DistributedDataParallel`:

        z, y = gather(network(views)), gather(labels, axis=0)
        loss = world_size * criterion(z, y, generator=generator, anchors=slice(rank * images, (rank + 1) * images))

    All processes seed the generator alike, so that they draw the same kinds of positives. Each has the loss of its own
    `images` as anchors, and these add up to the loss of the batch. DistributedDataParallel divides the sum of the
    gradients by the number of processes, hence the factor.

    Args:
        share: z (V, B / processes, ...), or labels with `axis=0`.
        axis: the axis of images.
        counts: the images of each process; the same number for all if left out.

    Returns:
        As `share`, with the images of all processes in the order of their ranks; `share` itself in a single process.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return share
    counts = counts or [share.shape[axis]] * torch.distributed.get_world_size()
    gathered: Tensor = _Gather.apply(share, axis, counts, torch.distributed.get_rank())  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Concatenate shares along an axis; the gradient of a share is summed over the processes.

    torch.distributed.nn.functional.all_gather wants equal shares. It is deprecated in torch 2.13, and on gloo it mixes
    up a gradient whose strides are permuted. Here a gradient is made contiguous before it is sent.
    """

    @staticmethod
    def forward(ctx: Any, share: Tensor, axis: int, counts: Sequence[int], rank: int) -> Tensor:
        ctx.mine = axis, sum(counts[:rank]), counts[rank]
        shape = [*share.shape]
        shape[axis] = max(counts)  # a gather wants equal shapes
        padded = share.new_zeros(shape)
        padded.narrow(axis, 0, counts[rank]).copy_(share)
        parts = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part.narrow(axis, 0, n) for part, n in zip(parts, counts, strict=True)], dim=axis)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _sum(gradient[0]).narrow(*ctx.mine), None, None, None


class _Total(torch.autograd.Function):
    """The sum over the processes, which each goes on with; so is the gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _sum(value)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return _sum(gradient[0])


def _total(value: Tensor) -> Tensor:
    total: Tensor = _Total.apply(value)  # type: ignore[no-untyped-call]
    return total


def _sum(value: Tensor) -> Tensor:
    total = value.detach().clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total


class SharedBatchNorm(nn.Module):
    """A BatchNorm in training mode over the batch of all processes; the weights and buffers are those of `norm`.

    torch's own SyncBatchNorm refuses CPU tensors, so that no test without GPUs could hold it to a single process.

    Args:
        norm: a BatchNorm1d or BatchNorm2d with running statistics; input (N, C) or (N, C, ...).
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.norm_options = {"momentum": norm.momentum, "eps": norm.eps}

    def forward(self, x: Tensor) -> Tensor:
        """x, normalised over all its axes but the second, and over all processes."""
        momentum, eps = self.norm_options["momentum"], self.norm_options["eps"]
        if not self.training:
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=eps)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = x.numel() // x.shape[1]
        sums = _total(torch.cat([values.sum(axes), values.new_full((1,), count)]))  # (C + 1)
        mean, total = sums[:-1] / sums[-1], sums[-1].detach()  # (C), ()
        shape = [-1] + [1] * (x.ndim - 2)
        centred = values - mean.view(shape)
        variance = _total(centred.square().sum(axes)) / total  # (C)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_((variance * total / (total - 1)).to(self.running_var), momentum)
        scaled = centred * ((variance + eps).rsqrt() * self.weight).view(shape) + self.bias.view(shape)
        normalised: Tensor = scaled.to(x.dtype)
        return normalised


def share_batch_norms(module: nn.Module) -> None:
    """Put a `SharedBatchNorm` in the place of every BatchNorm in `module`."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, SharedBatchNorm(child))
        else:
            share_batch_norms(child)
