"""SupCon and InfoNCE per AU, the relatives of the AUNCE loss, and a measure of what tells them apart.

A large batch on a CPU takes `_LogSum`, whose gradient is written out by hand; tests hold it to the formula below it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aunce import inputs
from aunce.inputs import keep_in_graph, masked_lse, unit_rows


def supcon(
    z: Tensor,
    labels: Tensor,
    temperature: float,
    *,
    anchors: slice | None = None,
    reduction: str = "mean",
    chunk_size: int | None = None,
) -> Tensor:
    """SupCon per AU (Khosla et al. 2020, with the mean of logs), averaged over known anchors, then over AUs.

    loss_i = logsumexp of l_ij over all other known rows - mean of l_ij over the other rows with the anchor's label.
    With all embeddings equal: log(n - 1) of n known rows. An AU with one label only has nothing to contrast, nor has an
    anchor without a positive, which needs a single view: they count in the mean with 0 and a live graph, as in
    `aunce_loss` and as in pytorch-metric-learning with its MeanReducer. Tau has no other factor. For the arguments,
    the result and the errors see `aunce_loss`.
    """
    inputs.check_options(temperature=temperature, reduction=reduction, chunk_size=chunk_size)
    inputs.check_embeddings(z)
    with torch.autocast(z.device.type, enabled=False):
        present, known, _ = inputs.read_labels(z, labels)  # (K, N) each
        n_known = known.sum(1, keepdim=True)  # (K, 1)
        n_same = inputs.count_same(present, n_known)  # (K, N)
        exists = known & (n_known > n_same) & (n_same > 1)  # (K, N)
        x = unit_rows(z, known, inputs.precision(z, 1.0))  # (K, N, D)
        row = torch.arange(x.shape[1], device=x.device)  # (N,)

        def block(a: slice) -> Tensor:
            logits = x[:, a] @ x.mT / temperature  # (K, A, N)
            others = known[:, None] & (row[a, None] != row)  # (K, A, N)
            positives = others & (present[:, a, None] == present[:, None])  # (K, A, N)
            attraction = torch.where(positives, logits, 0).sum(-1) / (n_same[:, a] - 1).clamp(min=1)  # (K, A)
            losses = torch.where(exists[:, a], masked_lse(logits, others) - attraction, 0)  # (K, A)
            return keep_in_graph(losses, x[:, a])

        if _in_one_piece(x, z, temperature, anchors, chunk_size):
            labels_of = torch.stack([known & ~present, present], dim=1).to(x)  # (K, 2, N)
            to_same = (x @ (labels_of @ x).mT).gather(2, present[..., None].long())[..., 0]  # (K, N)
            attraction = (to_same - x.square().sum(-1)) / temperature / (n_same - 1).clamp(min=1)  # (K, N)
            log_sum: Tensor = _LogSum.apply(x, known, temperature)  # type: ignore[no-untyped-call]  # (K, N)
            losses = [keep_in_graph(torch.where(exists, log_sum - attraction, 0), x)]  # (K, N)
        else:
            losses = _blocks(block, z, anchors, chunk_size)  # (K, A) each
        return inputs.reduce_losses(losses, n_known[:, 0].clamp(min=1), reduction)


def infonce(
    z: Tensor,
    temperature: float,
    *,
    anchors: slice | None = None,
    reduction: str = "mean",
    chunk_size: int | None = None,
) -> Tensor:
    """InfoNCE per AU (NT-Xent of SimCLR, Chen et al. 2020), without labels, averaged over anchors and AUs.

    loss_i = logsumexp of l_ij over all other rows - l_ij with the own other view. With equal embeddings: log(2B - 1).
    z has two views. Tau has no other factor. For the arguments, the result and the errors see `aunce_loss`.
    """
    inputs.check_options(temperature=temperature, reduction=reduction, chunk_size=chunk_size)
    inputs.check_embeddings(z, views=(2,))
    with torch.autocast(z.device.type, enabled=False):
        known = torch.ones(z.shape[2], 2 * z.shape[1], dtype=torch.bool, device=z.device)  # (K, 2B)
        x = unit_rows(z, known, inputs.precision(z, 1.0))  # (K, 2B, D)
        row = torch.arange(x.shape[1], device=x.device)  # (2B,)
        view = (x * x.roll(len(row) // 2, dims=1)).sum(-1) / temperature  # (K, 2B)

        def block(a: slice) -> Tensor:
            logits = x[:, a] @ x.mT / temperature  # (K, A, 2B)
            return keep_in_graph(masked_lse(logits, row[a, None] != row) - view[:, a], x[:, a])  # (K, A)

        if _in_one_piece(x, z, temperature, anchors, chunk_size):
            log_sum: Tensor = _LogSum.apply(x, known, temperature)  # type: ignore[no-untyped-call]  # (K, 2B)
            losses = [keep_in_graph(log_sum - view, x)]  # (K, 2B)
        else:
            losses = _blocks(block, z, anchors, chunk_size)  # (K, A) each
        return inputs.reduce_losses(losses, len(row), reduction)


class _LogSum(torch.autograd.Function):
    """logsumexp (K, N) of l_ij over the other known rows j of x (K, N, D), which is 0 where a row is unknown.

    Exponentials are symmetric: one product of matrices in each pass serves both directions. Gradients of unknown rows
    are void; `unit_rows` lets none of them through.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, known: Tensor, temperature: float) -> Tensor:
        """By AU, so that what is worked on fits a cache."""
        scores = [torch.mm(rows, rows.mT).div_(temperature).exp_().fill_diagonal_(0) for rows in x]  # (N, N) each
        sums = torch.stack([torch.mv(each, of) for each, of in zip(scores, known.to(x), strict=True)])  # (K, N)
        sums.clamp_(min=torch.finfo(x.dtype).tiny)  # of no rows
        ctx.save_for_backward(x, known, sums, *scores)
        ctx.temperature = temperature
        return sums.log()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        """The gradient (K, N, D) by x."""
        x, known, sums, *scores = ctx.saved_tensors
        if torch.is_grad_enabled() or inputs.traced():  # create_graph=True, or a vmap over outer gradients
            with torch.enable_grad():
                others = known[:, None] & ~torch.eye(x.shape[1], dtype=torch.bool)  # (K, N, N)
                log_sum = masked_lse(x @ x.mT / ctx.temperature, others)  # (K, N)
                return torch.autograd.grad(log_sum, x, outer[0], create_graph=True)[0], None, None
        each = torch.where(known, outer[0] / sums / ctx.temperature, 0)  # (K, N)
        gradient = torch.empty_like(x)  # (K, N, D)
        for of, one, rows, part in zip(each, scores, x, gradient, strict=True):
            torch.mm((of[:, None] + of).mul_(one), rows, out=part)
        return gradient, None, None


def _in_one_piece(x: Tensor, z: Tensor, temperature: float, anchors: slice | None, chunk_size: int | None) -> bool:
    """Whether `_LogSum` serves: a large batch on a CPU, all anchors at once, exponentials within the floats."""
    whole = chunk_size is None and len(inputs.anchor_spans(z, anchors)) == 1
    in_range = inputs.precision(z, temperature) == x.dtype
    return whole and in_range and inputs.readable(z) and x.shape[1] > inputs.LARGE


class _Fixed(nn.Module):
    """A loss with its options fixed and checked once."""

    def __init__(self, temperature: float, *, reduction: str = "mean", chunk_size: int | None = None) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"temperature": temperature, "reduction": reduction, "chunk_size": chunk_size}
        inputs.check_options(**self.options)

    def extra_repr(self) -> str:
        """The options, for torch's printout of a module."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class SupConLoss(_Fixed):
    """`supcon` with its options fixed and checked once."""

    def forward(self, z: Tensor, labels: Tensor, *, anchors: slice | None = None) -> Tensor:
        """The loss of a batch z (V=1 or 2, B, K, D) with labels (B, K), see `supcon`."""
        return supcon(z, labels, anchors=anchors, **self.options)


class InfoNCELoss(_Fixed):
    """`infonce` with its options fixed and checked once."""

    def forward(self, z: Tensor, *, anchors: slice | None = None) -> Tensor:
        """The loss of a batch z (V=2, B, K, D), see `infonce`."""
        return infonce(z, anchors=anchors, **self.options)


@torch.no_grad()
def own_view_share(z: Tensor, labels: Tensor) -> float:
    """The share of anchors whose most similar positive, themselves excluded, is their own other view.

    Where it is 1, the branches `max` and `view` are one. Anchors are the known rows of all AUs.

    Args:
        z: (V=2, B, K, D).
        labels: (B, K) in {-1, 0, 1}.

    Returns:
        0 to 1; NaN without a known label.
    """
    inputs.check_embeddings(z, views=(2,))
    present, known, _ = inputs.read_labels(z, labels)  # (K, 2B) each
    x = unit_rows(z, known, inputs.precision(z, 1.0))  # (K, 2B, D)
    n = x.shape[1]
    same = (present[:, :, None] == present[:, None]) & known[:, None]  # (K, 2B, 2B)
    same.diagonal(dim1=1, dim2=2).fill_(False)
    nearest = torch.where(same, x @ x.mT, -math.inf).argmax(-1)  # (K, 2B)
    own = nearest == (torch.arange(n, device=z.device) + n // 2) % n  # (K, 2B)
    return own[known].double().mean().item()


def _blocks(
    losses: Callable[[slice], Tensor], z: Tensor, anchors: slice | None, chunk_size: int | None
) -> list[Tensor]:
    """The losses (K, A) of blocks of anchors; those of chunks are computed again in the backward pass."""
    spans = inputs.anchor_spans(z, anchors)
    if chunk_size is None:
        return [losses(a) for a in spans]
    return [checkpoint(losses, a, use_reentrant=False, preserve_rng_state=False) for a in inputs.cut(spans, chunk_size)]
