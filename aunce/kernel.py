"""The losses of `losses.anchor_losses`, fast: in tiles that fit a cache, with the gradient written out by hand.

Tests hold values and gradients to those of the readable formula. What a gradient by hand cannot do (a gradient with a
graph of its own, a transform of torch.func in the backward pass) goes back to the readable formula.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aunce.inputs import count_same, cut, row_norms, shortest, traced

TILE, TILE_OF_GPU = 2**19, 2**26
"""Entries of (K, anchors, N) that are worked on at a time: what the cache of a core holds; and on a GPU, where to start
a call takes as long as to work on some million entries, all of a batch. The latter by counting calls (122 in place of
about 300 for 512 images), not by measurement."""
SIDE, SIDE_OF_GPU = 128, 2**12
"""Of the squares in which a matrix is added to its transpose, likewise."""


def tiled_losses(
    z: Tensor,
    present: Tensor,
    known: Tensor,
    e: Tensor,
    shares: dict[str, Tensor],
    *,
    temperature: float,
    exclude: str,
    positive_mean: str,
    normalize_weights: bool,
    detach_weights: bool,
    spans: tuple[slice, ...],
    chunk_size: int | None,
    all_known: bool,
    formula: Callable[[Tensor], Tensor],
) -> Tensor:
    """The losses (K, A) of `losses.anchor_losses` of the anchors in `spans`; arguments as there and in `Plan`."""
    plan = Plan(
        present, known, e, shares, temperature, exclude, positive_mean, normalize_weights, detach_weights,
        views=len(z), shared=z.shape[2] < len(known), spans=spans, chunk_size=chunk_size, all_known=all_known,
        formula=formula,
    )  # fmt: skip
    if spans[0].start == spans[0].stop:  # a process without a share: nothing, on the graph
        return z.sum((0, 1, 3))[:, None][:, :0].expand(len(known), 0)  # (K, A=0)
    losses: Tensor = AUNCEFunction.apply(z, plan)  # type: ignore[no-untyped-call]  # (K, A)
    return losses


@dataclass(frozen=True)
class Plan:
    """What the kernel needs besides the embeddings; N = V * B rows. Nothing here has a gradient.

    Attributes:
        present, known: (K, N) bool.
        e: (K, N) exponent of each anchor's label, of the dtype of the logits.
        shares: branch -> (K, N) share of the branch in the loss of an anchor; a branch without any is left out.
        temperature, exclude, positive_mean, normalize_weights, detach_weights: see `aunce_loss`.
        views: V.
        shared: all AUs have one embedding, so S is 1 in place of K.
        spans: the rows that are anchors.
        chunk_size: anchors that are computed at a time; None for a whole span.
        all_known: no label is unknown, so that nothing has to be masked; False where it is not known without a wait.
        formula: z -> losses (K, A) by differentiable operations, where a gradient by hand does not do.
    """

    present: Tensor
    known: Tensor
    e: Tensor
    shares: dict[str, Tensor]
    temperature: float
    exclude: str
    positive_mean: str
    normalize_weights: bool
    detach_weights: bool
    views: int
    shared: bool
    spans: tuple[slice, ...]
    chunk_size: int | None
    all_known: bool
    formula: Callable[[Tensor], Tensor]

    @cached_property
    def n_known(self) -> Tensor:
        """(K, 1): known rows."""
        return self.known.sum(1, keepdim=True)  # (K, 1)

    @cached_property
    def n_same(self) -> Tensor:
        """(K, N): known rows with the anchor's label, the anchor included."""
        return count_same(self.present, self.n_known)  # (K, N)

    @cached_property
    def n_negatives(self) -> Tensor:
        """(K, N): known rows with the other label."""
        return self.n_known - self.n_same  # (K, N)

    @cached_property
    def n_positives(self) -> Tensor:
        """(K, N): positives of max and mean."""
        excluded = {"none": 0, "self": 1, "image": self.views}[self.exclude]
        return self.n_same - excluded  # (K, N)

    @cached_property
    def divisor(self) -> Tensor:
        """(K, N): divisor of the mean, 0 only where there is no positive."""
        if self.positive_mean == "positives":
            return self.n_positives
        return self.n_known.expand_as(self.n_same)  # (K, N)

    @cached_property
    def columns(self) -> Tensor:
        """(K, N, 2) of 0 and 1: a product with it sums over the known rows without and with the AU."""
        return torch.stack([self.known & ~self.present, self.present], dim=-1).to(self.e)

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """What is computed at a time: the spans, cut to at most `chunk_size` rows."""
        return cut(self.spans, self.chunk_size)

    @property
    def uncut(self) -> bool:
        """Whether the backward pass can use the matrices of the forward pass."""
        return len(self.blocks) == len(self.spans)

    @cached_property
    def used(self) -> Tensor:
        """(S, N) bool: known in one of the AUs of the embedding."""
        return self.known.any(0, keepdim=True) if self.shared else self.known

    def own_view(self, anchors: Tensor) -> Tensor:
        """The rows (A,) of the other views of anchors (A,); of a single view the anchors themselves."""
        n = self.known.shape[1]
        return (anchors + n // self.views) % n

    def tiles(self, count: int) -> list[slice]:
        """`count` anchors, cut to what is worked on at a time, so that temporary tensors are small."""
        size = max(1, _at_a_time(self.e) // self.known.numel())
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class Block(NamedTuple):
    """A block of anchors after the forward pass; the backward pass overwrites `scores`."""

    scores: Tensor  # (K, A, N): exp(c l_ij), see `AUNCEFunction`
    logits: Tensor | None  # (S, A, N), where they are few beside the features
    weights: Tensor | None  # (K, A, N): of the negatives, where they are normalised and have a gradient
    repulsion: Tensor  # (K, A): the gradient by l_ij of a negative j is repulsion * scores_ij
    attraction: Tensor  # (K, A): of a positive j of the mean, -attraction * scores_ij
    weighing: Tensor  # (K, A): of a negative j in addition, weighing * weights_ij
    own_view: Tensor | None  # (K, A): of the own view, minus this
    nearest: Tensor | None  # (K, A): the row of the most similar positive
    to_nearest: Tensor | None  # (K, A): of that row, minus this


class AUNCEFunction(torch.autograd.Function):
    """The losses (K, A) of z (V, B, S, D), with their gradient written out; S is K, or 1 if all AUs share embeddings.

    With r_i the share times the sigmoid of log N_i - log P_i, the gradient by the logit l_ij is

        r_i e exp(e l_ij) / N_i             for a negative
        -r_i exp(l_ij) / sum of exp(l_ik)   for a positive of the mean
        -r_i                                for the nearest positive of the max, or the own view

    Anchor and candidate meet in both directions, so with G these gradients the one by x is (G + G^T) x / tau: one
    product of matrices in each pass. A matrix entry needs one exponential, exp(c l) with c = e for a negative and 1 for
    a positive: logits lie between -1 / tau and 1 / tau, and `inputs.precision` keeps the exponentials within the range
    of the floats. Sums over labels are products with two columns of zeros and ones.

    One matrix of scores is kept, and the backward pass turns it into G + G^T where it stands. A second backward pass
    computes it again, as it does with anchors that are cut into blocks: then memory is linear in the batch.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, plan: Plan) -> Tensor:
        """Losses of the anchors, in the order of the blocks."""
        views, images, embeddings, channels = z.shape
        source = z.permute(2, 0, 1, 3)  # (S, V, B, D)
        unused = ~plan.used.view(embeddings, views, images, 1)
        norm = row_norms(source, plan.e.dtype)  # (S, V, B, 1)
        if not plan.all_known:
            norm = norm.masked_fill_(unused, 0)  # not even a NaN of an unknown image reaches the others
        # A vector too short for the dtype of z is not blown up, so its gradient fits it; a NaN is not <=, and stays.
        inverse = norm.masked_fill(norm <= shortest(z), 1).reciprocal_()  # (S, V, B, 1)
        inverse = inverse.mul_(plan.temperature**-0.5)  # so that a product of two rows is a logit
        x = torch.empty(source.shape, dtype=plan.e.dtype, device=z.device)
        x = torch.mul(source, inverse, out=x)
        x = (x if plan.all_known else x.masked_fill_(unused, 0)).view(embeddings, -1, channels)  # (S, N, D)
        values, kept = [], []
        for a in plan.blocks:
            losses, block = forward_block(x, a, plan)
            values.append(losses)
            if plan.uncut:
                kept.append(block)
        ctx.plan, ctx.kept = plan, kept
        ctx.save_for_backward(z, x, inverse.view(embeddings, -1, 1))
        norm = norm.view(embeddings, -1)  # (S, N)
        if not plan.all_known:
            norm = norm.masked_fill(~plan.known, 0)  # (K, N)
        # anchors without a term pass on a NaN, too
        return torch.cat(values, dim=1).add_(torch.cat([norm[:, a] for a in plan.spans], dim=1), alpha=0)  # (K, A)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        """The gradient (V, B, S, D) by z, contiguous."""
        z, x, inverse = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, None
        with torch.autocast(z.device.type, enabled=False):  # it would round the products of a backward pass within it
            if torch.is_grad_enabled() or traced():  # create_graph=True, or a vmap over outer gradients
                return _differentiable_gradient(z, ctx.plan, outer[0]), None
            return gradient_by_hand(z, x, inverse, ctx.plan, kept, outer[0]), None


def forward_block(x: Tensor, a: slice, plan: Plan) -> tuple[Tensor, Block]:
    """The losses (K, A) of the anchors `a` of x (S, N, D), vectors of length 1 / sqrt(tau), against all rows."""
    n = x.shape[1]
    anchors = torch.arange(n, device=x.device)[a]  # (A,)
    here, own_view = torch.arange(len(anchors), device=x.device), plan.own_view(anchors)
    present, e = plan.present[:, a], plan.e[:, a]  # (K, A) each
    shares = {kind: share[:, a] for kind, share in plan.shares.items()}
    product = torch.bmm(x[:, a], x.mT)  # (S, A, N)
    few = plan.uncut and 4 * n <= x.shape[2]
    logits = (product if plan.shared else product.clone()) if few else None  # (S, A, N)
    # l_ij until the tiles make exp(c l_ij) of them
    scores = product.repeat(len(e), 1, 1) if plan.shared else product  # (K, A, N)
    if plan.shared and not plan.all_known:
        scores.masked_fill_(~(plan.known[:, a, None] & plan.known[:, None]), 0)
    log_p: dict[str, Tensor] = {}
    if "view" in shares:
        log_p["view"] = scores[:, here, own_view]  # (K, A)
    nearest, best = None, None
    if "max" in shares and plan.exclude == "none":
        nearest = anchors.expand_as(e)  # (K, A): nothing is closer to an anchor than itself
        log_p["max"] = scores[:, here, anchors]  # (K, A)
    elif "max" in shares:
        nearest, best = torch.empty_like(e, dtype=torch.int64), torch.empty_like(e)  # (K, A) each
    weights = torch.empty_like(scores) if plan.normalize_weights else None
    sums, sums_of_weights = scores.new_empty(*e.shape, 2), scores.new_empty(*e.shape, 2)  # (K, A, 2) each
    one, zero = torch.ones_like(e), torch.zeros_like(e)
    for t in plan.tiles(len(anchors)):
        tile, of, them = scores[:, t], here[: t.stop - t.start], (anchors[t], own_view[t])
        if nearest is not None and best is not None:
            same = (present[:, t, None] == plan.present[:, None]) & plan.known[:, None]  # (K, T, N)
            mask_excluded(same, of, *them, plan.exclude, False)
            torch.max(torch.where(same, tile, -math.inf), dim=-1, out=(best[:, t], nearest[:, t]))
        if weights is not None:
            exponent = _by_label(plan, present[:, t], zero[:, t], e[:, t] - 1)  # (K, T, N)
            torch.mul(tile, exponent, out=weights[:, t]).exp_()
            torch.bmm(weights[:, t], plan.columns, out=sums_of_weights[:, t])
        tile.mul_(_by_label(plan, present[:, t], one[:, t], e[:, t])).exp_()
        mask_excluded(tile, of, *them, plan.exclude, 0)
        sums[:, t] = torch.bmm(tile, plan.columns)
    same_sum, other_sum = split_by_label(sums, present)  # (K, A) each
    log_n = other_sum.log()  # (K, A)
    if weights is not None:
        _, weight_sum = split_by_label(sums_of_weights, present)  # (K, A)
        count = plan.n_negatives[:, a].clamp(min=1).to(e)  # (K, A)
        log_n = log_n - weight_sum.log() + count.log()
    contrasted = plan.known[:, a] & (plan.n_negatives[:, a] > 0)  # (K, A)
    attracted = plan.n_positives[:, a] > 0  # (K, A)
    if best is not None:
        log_p["max"] = torch.where(attracted, best, 0)
    if "mean" in shares:
        mean = same_sum / plan.divisor[:, a]  # (K, A)
        log_p["mean"] = torch.where(mean > 0, mean, 1).log()

    exists = torch.stack([contrasted if kind == "view" else contrasted & attracted for kind in shares])  # (R, K, A)
    share = torch.where(exists, torch.stack(list(shares.values())), 0)  # (R, K, A)
    margin = torch.where(exists, log_n - torch.stack([log_p[kind] for kind in shares]), 0)  # (R, K, A)
    # torch replaces softplus by the identity from 20 on, a step of 2e-9: too coarse for float64
    losses = (share * F.softplus(margin, threshold=40)).sum(0)  # (K, A)
    r = share * torch.sigmoid(margin)  # (R, K, A)
    by_branch = dict(zip(shares, r, strict=True))  # (K, A) each
    total = r.sum(0)  # (K, A)
    repulsion = torch.where(total > 0, total * (one if plan.detach_weights else e) / other_sum, 0)  # (K, A)
    weighing = zero
    if weights is not None and not plan.detach_weights:
        weighing = torch.where(total > 0, -total * (e - 1) / weight_sum, 0)  # (K, A)
    attraction = torch.where(same_sum > 0, by_branch["mean"] / same_sum, 0) if "mean" in by_branch else zero
    moving = None if plan.detach_weights else weights
    return losses, Block(
        scores, logits, moving, repulsion, attraction, weighing, by_branch.get("view"), nearest, by_branch.get("max")
    )


def gradient_by_hand(
    z: Tensor, x: Tensor, inverse: Tensor, plan: Plan, kept: list[Block] | None, outer: Tensor
) -> Tensor:
    """The gradient (V, B, S, D) by z, contiguous, of losses (K, A) with the gradient `outer`.

    Args:
        z: (V, B, S, D).
        x: its rows (S, N, D), of length 1 / sqrt(tau).
        inverse: (S, N, 1), x / z.
        plan: as in the forward pass.
        kept: the blocks of the forward pass; empty or None, they are computed again.
        outer: (K, A).
    """
    embeddings, rows, channels = x.shape
    scales = torch.split(outer, [a.stop - a.start for a in plan.blocks], dim=1)  # (K, A) each
    # Through the normalisation: only what is orthogonal to x is left. A zero vector stays where it is.
    back = inverse if plan.all_known else inverse.masked_fill(~plan.used[..., None], 0)  # (S, N, 1)
    gradient = torch.empty(z.shape, dtype=x.dtype, device=x.device)  # (V, B, S, D)
    by_au = gradient.view(rows, embeddings, channels).transpose(0, 1)  # (S, N, D)
    if scales[0].shape[1] == rows:
        block = kept[0] if kept else forward_block(x, plan.blocks[0], plan)[1]
        by_logit = _add_transpose(logit_gradients(block, plan.blocks[0], plan, scales[0]))  # (S, N, N)
        if block.logits is not None:
            radial = (by_logit * block.logits).sum(-1)  # (S, N)
            by_logit.diagonal(dim1=1, dim2=2).sub_(radial, alpha=plan.temperature)
            by_au.copy_(torch.bmm(by_logit.mul_(back), x))
        else:
            by_logit.mul_(back)
            size = max(1, _at_a_time(x) // (rows * channels))
            for k in (slice(first, first + size) for first in range(0, embeddings, size)):
                part = torch.bmm(by_logit[k], x[k])  # (k, N, D)
                radial = (part * x[k]).sum(-1, keepdim=True)  # (k, N, 1)
                torch.addcmul(part, x[k], radial, value=-plan.temperature, out=by_au[k])
    else:
        by_au.zero_()
        for index, (a, scale) in enumerate(zip(plan.blocks, scales, strict=True)):
            block = kept[index] if kept else forward_block(x, a, plan)[1]
            by_logit = logit_gradients(block, a, plan, scale)  # (S, A, N)
            by_au[:, a].baddbmm_(by_logit, x)
            by_au.baddbmm_(by_logit.mT, x[:, a])
        for a in plan.tiles(rows):
            radial = (by_au[:, a] * x[:, a]).sum(-1, keepdim=True)  # (S, A, 1)
            by_au[:, a].addcmul_(x[:, a], radial, value=-plan.temperature).mul_(back[:, a])
    return gradient.to(z.dtype)


def logit_gradients(block: Block, a: slice, plan: Plan, outer: Tensor) -> Tensor:
    """The gradient (S, A, N) by the logits of a block, `outer` (K, A) times that of its losses, in place of scores."""
    anchors = torch.arange(plan.present.shape[1], device=outer.device)[a]  # (A,)
    here = torch.arange(len(anchors), device=outer.device)
    present = plan.present[:, a]  # (K, A)
    attraction, repulsion, weighing = -block.attraction * outer, block.repulsion * outer, block.weighing * outer
    for t in plan.tiles(len(anchors)):
        tile = block.scores[:, t].mul_(_by_label(plan, present[:, t], attraction[:, t], repulsion[:, t]))
        if block.weights is not None:
            factor = _by_label(plan, present[:, t], torch.zeros_like(weighing[:, t]), weighing[:, t])  # (K, T, N)
            tile.addcmul_(block.weights[:, t], factor)
    if block.own_view is not None:
        block.scores[:, here, plan.own_view(anchors)] -= block.own_view * outer
    if block.nearest is not None and block.to_nearest is not None:
        block.scores.scatter_add_(2, block.nearest[..., None], -(block.to_nearest * outer)[..., None])
    if not plan.shared:
        return block.scores
    if not plan.all_known:
        block.scores.masked_fill_(~plan.known[:, None], 0)
    return block.scores.sum(0, keepdim=True)


def _differentiable_gradient(z: Tensor, plan: Plan, outer: Tensor) -> Tensor:
    """The gradient by z through the readable formula, with a graph of its own."""
    with torch.enable_grad():
        losses = plan.formula(z)  # (K, A)
        [gradient] = torch.autograd.grad(losses, z, outer, create_graph=True)
    return gradient


def _at_a_time(like: Tensor) -> int:
    return TILE if like.device.type == "cpu" else TILE_OF_GPU


def _add_transpose(matrix: Tensor) -> Tensor:
    """matrix + matrix^T of (S, n, n), in its place, by squares."""
    n, side = matrix.shape[1], SIDE if matrix.device.type == "cpu" else SIDE_OF_GPU
    if n <= side:
        return matrix + matrix.mT
    spans = [slice(start, min(start + side, n)) for start in range(0, n, side)]
    for index, row in enumerate(spans):
        for column in spans[index:]:
            both = matrix[:, row, column] + matrix[:, column, row].mT  # (S, side, side)
            matrix[:, row, column] = both
            if column != row:
                matrix[:, column, row] = both.mT
    return matrix


def _by_label(plan: Plan, present: Tensor, same: Tensor, other: Tensor) -> Tensor:
    """(K, A, N): `same` (K, A) of the anchor where a row has its label, else `other`; void for unknown rows."""
    of_absent, of_present = torch.where(present, other, same), torch.where(present, same, other)  # (K, A) each
    return torch.where(plan.present[:, None], of_present[..., None], of_absent[..., None])  # (K, A, N)


def split_by_label(sums: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Of sums (K, A, 2) over absent and present rows, those of the anchor's label and of the other: (K, A) each."""
    absent_sum, present_sum = sums.unbind(-1)
    return torch.where(present, present_sum, absent_sum), torch.where(present, absent_sum, present_sum)


def mask_excluded(values: Tensor, here: Tensor, anchors: Tensor, own_view: Tensor, exclude: str, value: float) -> None:
    """Overwrite the entries (K, A, N) that an exclusion takes from its anchors."""
    if exclude != "none":
        values[:, here, anchors] = value
    if exclude == "image":
        values[:, here, own_view] = value
