"""The losses of `losses.anchor_losses`, fast: in tiles that fit a cache, with the gradient written out by hand.

A large batch on a CPU is sorted by label instead, see `kernel_sorted`. Tests hold values and gradients to those of the
readable formula. What a gradient by hand cannot do (a gradient with a graph of its own, a transform of torch.func in
the backward pass) goes back to the readable formula.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aunce import inputs
from aunce.inputs import Plan, row_norms, shortest, traced
from aunce.kernel_sorted import SortedRows

TILE, TILE_OF_GPU = 2**19, 2**26
"""Entries of (K, anchors, N) that are worked on at a time: what the cache of a core holds; and on a GPU, where to start
a call takes as long as to work on some million entries, all of a batch. The latter by counting calls (122 in place of
about 300 for 512 images), not by measurement."""


def tiled_losses(z: Tensor, plan: Plan) -> Tensor:
    """The losses (K, A) of `losses.anchor_losses` of the anchors of a plan, from z (V, B, S, D)."""
    if plan.spans[0].start == plan.spans[0].stop:  # a process without a share: nothing, on the graph
        return z.sum((0, 1, 3))[:, None][:, :0].expand(len(plan.known), 0)  # (K, A=0)
    losses: Tensor = AUNCEFunction.apply(z, plan)  # type: ignore[no-untyped-call]  # (K, A)
    return losses


class Factors(NamedTuple):
    """What the gradient by the logits l_ij of an anchor i needs, (K, A) each."""

    repulsion: Tensor  # of a negative j, the gradient is repulsion * exp(e l_ij)
    attraction: Tensor  # of a positive j of the mean, -attraction * exp(l_ij)
    weighing: Tensor  # of a negative j in addition, weighing * its weight
    own_view: Tensor | None  # of the own view, minus this
    to_nearest: Tensor | None  # of the most similar positive, minus this


class Block(NamedTuple):
    """A block of anchors after the forward pass; the backward pass overwrites `scores`."""

    scores: Tensor  # (K, A, N): exp(c l_ij), see `AUNCEFunction`
    logits: Tensor | None  # (S, A, N), where they are few beside the features
    weights: Tensor | None  # (K, A, N): of the negatives, where they are normalised and have a gradient
    nearest: Tensor | None  # (K, A): the row of the most similar positive
    factors: Factors


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
        x: Tensor | None = None
        kept: list[Any] = []
        if _sorts(z, plan):
            losses, *kept = forward_sorted(z, inverse.view(embeddings, -1, 1), plan)
        else:
            x = torch.empty(source.shape, dtype=plan.e.dtype, device=z.device)
            x = torch.mul(source, inverse, out=x)
            x = (x if plan.all_known else x.masked_fill_(unused, 0)).view(embeddings, -1, channels)  # (S, N, D)
            values = []
            for a in plan.blocks:
                of_block, block = forward_block(x, a, plan)
                values.append(of_block)
                if plan.uncut:
                    kept.append(block)
            losses = torch.cat(values, dim=1)  # (K, A)
        ctx.plan, ctx.kept = plan, kept
        ctx.save_for_backward(z, x, inverse.view(embeddings, -1, 1))
        norm = norm.view(embeddings, -1)  # (S, N)
        if not plan.all_known:
            norm = norm.masked_fill(~plan.known, 0)  # (K, N)
        # anchors without a term pass on a NaN, too
        return losses.add_(torch.cat([norm[:, a] for a in plan.spans], dim=1), alpha=0)  # (K, A)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        """The gradient (V, B, S, D) by z, contiguous."""
        z, x, inverse = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, None
        with torch.autocast(z.device.type, enabled=False):  # it would round the products of a backward pass within it
            if torch.is_grad_enabled() or traced():  # create_graph=True, or a vmap over outer gradients
                return _differentiable_gradient(z, ctx.plan, outer[0]), None
            if x is None:
                return gradient_of_sorted(z, inverse, ctx.plan, kept, outer[0]), None
            return gradient_by_hand(z, x, inverse, ctx.plan, kept, outer[0]), None


def _sorts(z: Tensor, plan: Plan) -> bool:
    """Whether rows are sorted by label: those of a large batch in one piece."""
    whole = plan.blocks == (slice(0, plan.known.shape[1]),)
    return whole and not plan.shared and z.device.type == "cpu" and plan.known.shape[1] > inputs.LARGE


def forward_block(x: Tensor, a: slice, plan: Plan) -> tuple[Tensor, Block]:
    """The losses (K, A) of the anchors `a` of x (S, N, D), vectors of length 1 / sqrt(tau), against all rows."""
    n = x.shape[1]
    anchors = torch.arange(n, device=x.device)[a]  # (A,)
    here, own_view = torch.arange(len(anchors), device=x.device), plan.own_view(anchors)
    present, e = plan.present[:, a], plan.e[:, a]  # (K, A) each
    product = torch.bmm(x[:, a], x.mT)  # (S, A, N)
    few = plan.uncut and 4 * n <= x.shape[2]
    logits = (product if plan.shared else product.clone()) if few else None  # (S, A, N)
    # l_ij until the tiles make exp(c l_ij) of them
    scores = product.repeat(len(e), 1, 1) if plan.shared else product  # (K, A, N)
    if plan.shared and not plan.all_known:
        scores.masked_fill_(~(plan.known[:, a, None] & plan.known[:, None]), 0)
    view = scores[:, here, own_view]  # (K, A)
    nearest, largest = None, scores[:, here, anchors]  # (K, A): nothing is closer to an anchor than itself
    if "max" in plan.shares:
        nearest = anchors.expand_as(e) if plan.exclude == "none" else torch.empty_like(e, dtype=torch.int64)  # (K, A)
    weights = torch.empty_like(scores) if plan.normalize_weights else None
    sums, sums_of_weights = scores.new_ones(2, *e.shape, 2)  # (K, A, 2) each
    one, zero = torch.ones_like(e), torch.zeros_like(e)
    for t in _tiles(plan, len(anchors)):
        tile, of, them = scores[:, t], here[: t.stop - t.start], (anchors[t], own_view[t])
        if nearest is not None and plan.exclude != "none":
            same = (present[:, t, None] == plan.present[:, None]) & plan.known[:, None]  # (K, T, N)
            mask_excluded(same, of, *them, plan.exclude, False)
            torch.max(torch.where(same, tile, -math.inf), dim=-1, out=(largest[:, t], nearest[:, t]))
        if weights is not None:
            exponent = _by_label(plan, present[:, t], zero[:, t], e[:, t] - 1)  # (K, T, N)
            torch.mul(tile, exponent, out=weights[:, t]).exp_()
            torch.bmm(weights[:, t], plan.columns, out=sums_of_weights[:, t])
        tile.mul_(_by_label(plan, present[:, t], one[:, t], e[:, t])).exp_()
        mask_excluded(tile, of, *them, plan.exclude, 0)
        sums[:, t] = torch.bmm(tile, plan.columns)
    same, other = split_by_label(sums, present)  # (K, A) each
    _, of_weights = split_by_label(sums_of_weights, present)  # (K, A)
    losses, factors = anchor_terms(plan, a, other, of_weights, same, largest, view)
    moving = None if plan.detach_weights else weights
    return losses, Block(scores, logits, moving, nearest, factors)


def anchor_terms(
    plan: Plan, a: slice, other: Tensor, of_weights: Tensor, same: Tensor, largest: Tensor, view: Tensor
) -> tuple[Tensor, Factors]:
    """The losses (K, A) of the anchors `a` from sums (K, A), see `SortedRows.sums`; void where nobody asks."""
    known, e = plan.known[:, a], plan.e[:, a]  # (K, A) each
    shares = {kind: share[:, a] for kind, share in plan.shares.items()}
    log_n, zero = other.log(), torch.zeros_like(e)  # (K, A) each
    if plan.normalize_weights:
        log_n = log_n - of_weights.log() + plan.n_negatives[:, a].clamp(min=1).to(e).log()
    mean = same / plan.divisor[:, a] if "mean" in shares else same  # (K, A)
    log_p = {"max": largest, "mean": torch.where(mean > 0, mean, 1).log(), "view": view}  # (K, A) each
    contrasted = known & (plan.n_negatives[:, a] > 0)  # (K, A)
    attracted = plan.n_positives[:, a] > 0  # (K, A)
    exists = torch.stack([contrasted if kind == "view" else contrasted & attracted for kind in shares])  # (R, K, A)
    share = torch.where(exists, torch.stack(list(shares.values())), 0)  # (R, K, A)
    margin = torch.where(exists, log_n - torch.stack([log_p[kind] for kind in shares]), 0)  # (R, K, A)
    # torch replaces softplus by the identity from 20 on, a step of 2e-9: too coarse for float64
    losses = (share * F.softplus(margin, threshold=40)).sum(0)  # (K, A)
    r = share * torch.sigmoid(margin)  # (R, K, A)
    by_branch = dict(zip(shares, r, strict=True))  # (K, A) each
    total = r.sum(0)  # (K, A)
    # a sum that is 0 is of no rows: the quotient is not taken
    repulsion = torch.where(total > 0, (total if plan.detach_weights else total * e) / other, 0)  # (K, A)
    attraction = torch.where(same > 0, by_branch["mean"] / same, 0) if "mean" in by_branch else zero  # (K, A)
    weighing = zero
    if plan.normalize_weights and not plan.detach_weights:
        weighing = torch.where(total > 0, -total * (e - 1) / of_weights, 0)  # (K, A)
    return losses, Factors(repulsion, attraction, weighing, by_branch.get("view"), by_branch.get("max"))


def forward_sorted(z: Tensor, inverse: Tensor, plan: Plan) -> tuple[Tensor, Factors, list[SortedRows | None]]:
    """The losses (K, N) of z (V, B, K, D), and what its backward pass needs; `inverse` as in `gradient_by_hand`.

    An AU of which all known rows have one label has no loss, and None in its place.
    """
    sums, aus = plan.e.new_ones(5, *plan.e.shape), list[SortedRows | None]()  # (5, K, N)
    by_au = z.flatten(0, 1).unbind(1)  # (N, D) each
    taken = {kind: share.any(1).tolist() for kind, share in plan.shares.items()}
    for k, (order, absent, present) in enumerate(plan.by_label):
        au, branches = None, {kind for kind, of_aus in taken.items() if of_aus[k]}
        if absent and present:
            order = order[: absent + present]  # (n,)
            x = by_au[k].index_select(0, order).to(plan.e.dtype).mul_(inverse[k, order])  # (n, D)
            au = SortedRows(x, absent, (plan.e[k, order[0]], plan.e[k, order[-1]]), branches, plan)
            sums[:, k, order] = au.sums
        aus.append(au)
    losses, factors = anchor_terms(plan, slice(None), *sums)
    return losses, factors, aus


def gradient_of_sorted(z: Tensor, inverse: Tensor, plan: Plan, kept: Sequence[Any], outer: Tensor) -> Tensor:
    """As `gradient_by_hand`, of what `forward_sorted` returns but its losses."""
    factors, aus = kept or forward_sorted(z, inverse, plan)[1:]
    zero = torch.zeros_like(outer)  # (K, N)
    scaled = torch.stack([zero if factor is None else factor * outer for factor in factors])  # (5, K, N)
    gradient = torch.empty_like(z, memory_format=torch.contiguous_format)  # (V, B, K, D)
    by_au = gradient.flatten(0, 1).unbind(1)  # (N, D) each
    for k, (order, absent, present) in enumerate(plan.by_label):
        au, aus[k] = aus[k], None  # its matrices go when its gradient is there
        if au is None:
            by_au[k].zero_()
            continue
        rows = order[: absent + present]  # (n,)
        part = au.gradient(scaled[:, k, rows])  # (n, D)
        radial = torch.linalg.vecdot(part, au.x)[:, None]  # (n, 1)
        part.addcmul_(au.x, radial, value=-plan.temperature).mul_(inverse[k, rows])
        part = F.pad(part.to(z.dtype), (0, 0, 0, len(order) - len(rows)))  # (N, D)
        torch.index_select(part, 0, order.argsort(), out=by_au[k])  # several times as fast as index_copy_
    return gradient


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
        for a in _tiles(plan, rows):
            radial = (by_au[:, a] * x[:, a]).sum(-1, keepdim=True)  # (S, A, 1)
            by_au[:, a].addcmul_(x[:, a], radial, value=-plan.temperature).mul_(back[:, a])
    return gradient.to(z.dtype)


def logit_gradients(block: Block, a: slice, plan: Plan, outer: Tensor) -> Tensor:
    """The gradient (S, A, N) by the logits of a block, `outer` (K, A) times that of its losses, in place of scores."""
    anchors = torch.arange(plan.present.shape[1], device=outer.device)[a]  # (A,)
    here = torch.arange(len(anchors), device=outer.device)
    present = plan.present[:, a]  # (K, A)
    attraction, repulsion, weighing = (
        -block.factors.attraction * outer,
        block.factors.repulsion * outer,
        block.factors.weighing * outer,
    )
    for t in _tiles(plan, len(anchors)):
        tile = block.scores[:, t].mul_(_by_label(plan, present[:, t], attraction[:, t], repulsion[:, t]))
        if block.weights is not None:
            factor = _by_label(plan, present[:, t], torch.zeros_like(weighing[:, t]), weighing[:, t])  # (K, T, N)
            tile.addcmul_(block.weights[:, t], factor)
    if block.factors.own_view is not None:
        block.scores[:, here, plan.own_view(anchors)] -= block.factors.own_view * outer
    if block.nearest is not None and block.factors.to_nearest is not None:
        block.scores.scatter_add_(2, block.nearest[..., None], -(block.factors.to_nearest * outer)[..., None])
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


def _tiles(plan: Plan, count: int) -> list[slice]:
    """`count` anchors, cut to what is worked on at a time, so that temporary tensors are small."""
    size = max(1, _at_a_time(plan.e) // plan.known.numel())
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _add_transpose(matrix: Tensor) -> Tensor:
    """matrix + matrix^T of (S, n, n), on a CPU in its place, by AU, where it is not small."""
    if matrix.shape[1] <= 128 or matrix.device.type != "cpu":
        return matrix + matrix.mT
    for one in matrix:
        one.copy_(one + one.mT)
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
