"""The AUNCE loss and its relatives, on one kernel.

For each AU the two views of a batch are stacked into 2B rows; row v * B + i is view v of image i. With unit vectors z
and l_ij = z_i . z_j / tau,

    loss_i = softplus(log N_i - log P_i) = -log(P_i / (P_i + N_i)),   log N_i = logsumexp over the negatives of e l_ij,

where e is the exponent of the anchor's label, and one of three branches gives the positive score:

    0 max    log P_i = the largest l_ij over the rows with the anchor's label
    1 mean   log P_i = logsumexp of l_ij over the rows with the anchor's label, minus the log of a divisor
    2 view   log P_i = l_ij with the anchor's own other view

Logits are float32 at least, and float64 where exp(e / tau) would leave float32, so half precision is safe (derived; the
released code exponentiates in the type of its input and gives NaN in fp16 from tau .1 downwards).

An unknown label (-1) takes its image out of that AU: the loss of an AU is the loss of the sub-batch of its known
images, divisors included. A term that cannot exist is 0 and stays in the mean over known anchors: an anchor without
negatives, or a max or mean whose exclusion left no positive (a label of one image only). It never turns into another
branch.

*Released* is the code of Ziqiao-Shang/AUNCE at commit bade385, *early* its first commit; the rest is our reading, or
derived where it says so.
"""

import inspect
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from aunce.errors import UsageError

Floats = Sequence[float] | Tensor
Ints = Sequence[int] | Tensor

BRANCHES = ("max", "mean", "view")
TILE, TILE_OF_GPU = 2**19, 2**26
"""Entries of (K, anchors, 2B) that are worked on at a time: what the cache of a core holds; and on a GPU, where to
start a call takes as long as to work on some million entries, all of a batch. The latter by counting calls (122 in
place of about 300 for 512 images), not by measurement."""
SIDE, SIDE_OF_GPU = 128, 2**12
"""Of the squares in which a matrix is added to its transpose, likewise."""
OWN_ROWS = {"none": 0, "self": 1, "image": 2}  # how many rows of its own image an exclusion takes from an anchor
CHOICES = {
    "positive": ("sampled", "expected", *BRANCHES),
    "exclude": tuple(OWN_ROWS),
    "positive_mean": ("row", "positives"),
    "draw": ("au", "anchor"),
    "reduction": ("mean", "au_mean", "none"),
}


def aunce_loss(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.5,
    exponents: Floats = (0.8, 1.2),
    positive: str = "sampled",
    positive_probs: Sequence[float] = (0.2, 0.6, 0.2),
    exclude: str = "none",
    positive_mean: str = "row",
    normalize_weights: bool = False,
    detach_weights: bool = False,
    au_weights: Floats | None = None,
    draw: str = "au",
    branch: Ints | None = None,
    generator: Generator | None = None,
    reduction: str = "mean",
    chunk_size: int | None = None,
    anchors: slice | None = None,
) -> Tensor:
    """AUNCE: supervised contrast per AU, three kinds of positive, negatives weighted by the anchor's label.

    The formula heads this module; the defaults are the released code. With all embeddings equal the loss of an anchor
    with n negatives is log(1 + n exp((e - 1) / tau) / p), p = 1, or p = positives / rows for the mean over the row.

    Args:
        z: float (V=2, B, K, D), normalised here; a zero vector stays zero. NaN comes out as NaN.
        labels: integer or bool (B, K), 1 present, 0 absent, -1 unknown; moved to the device of z. The values of a
            tensor on a GPU are not checked, as each step would wait for it: any but 0 and 1 counts as unknown there,
            so that intensities above 1 vanish without a word.
        temperature: tau (released: .5). e / tau may be 700 at most, else exp(e / tau) leaves float64. It is a number,
            and has no gradient; no option has, except `au_weights`.
        exponents: e as a pair (absent, present) or a tensor (K, 2). The negatives have a temperature of tau / e.
        positive: `"sampled"` draws a branch (released); `"expected"` adds the branch losses by their probabilities,
            the same expected gradient without noise (derived); `"max"`, `"mean"`, `"view"` take one.
        positive_probs: probabilities of max, mean and view.
        exclude: what leaves the positives of max and mean: `"none"` (released: the maximum is the anchor itself, and
            the branch attracts nothing), the anchor itself (`"self"`) or its whole `"image"`.
        positive_mean: divisor of the mean: all known rows, `"row"` (released), or the `"positives"` left by exclusion.
        normalize_weights: divide the weights w = exp((e - 1) l) of the negatives by their mean over the anchor's known
            negatives, as HCL does: log N = lse(e l) - lse((e - 1) l) + log n.
        detach_weights: no gradient through the weights, divided or not: N = sum of w.detach() exp(l).
        au_weights: (K,), 0 or more, multiplied into the losses of each AU as they are, not rescaled. The early code has
            1 / rate, divided by its mean over the AUs.
        draw: one draw per `"au"` and batch (released) or one per `"anchor"`.
        branch: (K,) of 0 max, 1 mean, 2 view, in place of the draw. Read on the host: best a CPU tensor.
        generator: CPU generator, the only source of randomness, so required for a draw. All devices draw the same.
        reduction: `"mean"` over known anchors, then AUs; `"au_mean"` over the AUs with negatives only; or `"none"`.
        chunk_size: anchors per block. Blocks are computed again in the backward pass: memory linear in B, same value.
        anchors: the images, neighbours in the batch, whose two views are anchors; all images stay positives and
            negatives. The result is their share: those of all images add up to the whole, and nobody's is 0. So several
            processes, each with a share of the anchors and the gathered batch, have the loss of all. None: all images.

    Returns:
        A scalar, or (K, A) for `"none"`, 0 at unknown anchors; A = 2B unless `anchors` says less. Float32, float64 for
        float64. Always on the graph of z.

    Raises:
        UsageError: an option, shape or label value is not one of the above.
    """
    _check_options(
        temperature=temperature, exponents=exponents, positive=positive, positive_probs=positive_probs, exclude=exclude,
        positive_mean=positive_mean, draw=draw, reduction=reduction, chunk_size=chunk_size,
        normalize_weights=normalize_weights, detach_weights=detach_weights, au_weights=au_weights,
    )  # fmt: skip
    _check_shape(z)
    with torch.autocast(z.device.type, enabled=False):
        rows = _rows(z, labels)
        known, n_known, n_negatives = rows.known, rows.n_known, rows.n_negatives
        like = z.new_empty((), dtype=_precision(z, temperature, exponents))
        shares = _branch_shares(like, known.shape, positive, positive_probs, draw, branch, generator)
        n_positives = rows.n_same - OWN_ROWS[exclude]  # (K, 2B)
        divisor = n_positives if positive_mean == "positives" else n_known.expand_as(n_positives)  # (K, 2B)
        e_absent, e_present = _exponents(exponents, like, z.shape[2]).unsqueeze(1).unbind(-1)  # (K, 1) each
        plan = _Plan(
            temperature=temperature,
            e=torch.where(rows.present, e_present, e_absent),
            exclude=exclude,
            normalize=normalize_weights,
            detach=detach_weights,
            shares=shares,
            present=rows.present,
            known=known,
            whole=rows.whole,
            contrasted=known & (n_negatives > 0),
            attracted=n_positives > 0,
            divisor=divisor,
            n_negatives=n_negatives,
            spans=_spans(z.shape[1], anchors),
            chunk_size=chunk_size or known.shape[1],
        )
        if plan.blocks:
            losses: Tensor = _Contrast.apply(z, plan)  # type: ignore[no-untyped-call]  # (K, A)
        else:  # a process without a share: 0, on the graph
            losses = z.sum((0, 1, 3))[:, None][:, :0]  # (K, A=0)
        if au_weights is not None:
            weights = torch.as_tensor(au_weights, dtype=losses.dtype, device=z.device)  # (K,)
            if weights.shape != z.shape[2:3]:
                raise UsageError(f"au_weights: expected shape (K,) = ({z.shape[2]},), got {tuple(weights.shape)}")
            losses = losses * weights[:, None]
        losses = losses.to(torch.promote_types(z.dtype, torch.float32))
        if reduction == "none":
            return losses
        per_au = losses.sum(1) / n_known[:, 0].clamp(min=1)  # (K,)
        if reduction == "mean":
            return per_au.mean()
        contrasted = (known & (n_negatives > 0)).any(1)  # (K,), in all other AUs the loss is 0
        return per_au.sum() / contrasted.sum().clamp(min=1)


@dataclass(frozen=True)
class _Plan:
    """What `_Contrast` needs besides the embeddings; nothing here has a gradient."""

    temperature: float
    e: Tensor  # (K, 2B) exponent of each anchor's label
    exclude: str
    normalize: bool
    detach: bool
    shares: dict[str, Tensor]  # branch -> (K, 2B); a branch that nobody needs is not there
    present: Tensor  # (K, 2B) bool
    known: Tensor  # (K, 2B) bool
    whole: bool  # surely all known, so that nothing has to be masked
    contrasted: Tensor  # (K, 2B) bool: known, with a negative
    attracted: Tensor  # (K, 2B) bool: with a positive for max and mean
    divisor: Tensor  # (K, 2B) of the mean, 0 only where not attracted
    n_negatives: Tensor  # (K, 2B)
    spans: tuple[slice, ...]  # the rows that are anchors
    chunk_size: int

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """The spans, cut to at most `chunk_size` rows."""
        cuts = [(start, span.stop) for span in self.spans for start in range(span.start, span.stop, self.chunk_size)]
        return tuple(slice(start, min(start + self.chunk_size, stop)) for start, stop in cuts)

    @property
    def uncut(self) -> bool:
        return len(self.blocks) == len(self.spans)

    @cached_property
    def columns(self) -> Tensor:
        """(K, 2B, 2) of 0 and 1: a product with it sums over the known rows without and with the AU."""
        return torch.stack([self.known & ~self.present, self.present], dim=-1).to(self.e)

    def tiles(self, count: int) -> list[slice]:
        """`count` anchors, cut to what is worked on at a time, so that temporary tensors are small."""
        size = max(1, _at_a_time(self.e) // self.known.numel())
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class _Block(NamedTuple):
    """A block of anchors after the forward pass; the backward pass overwrites `scores`."""

    scores: Tensor  # (K, A, 2B), see `_Contrast`
    logits: Tensor | None  # (K, A, 2B), where they are few beside the features
    weights: Tensor | None  # (K, A, 2B): of the negatives, where they are normalised and have a gradient
    repulsion: Tensor  # (K, A): the negative j pulls l_ij by repulsion * scores_ij
    attraction: Tensor  # (K, A): the positive j of the mean by -attraction * scores_ij
    weighing: Tensor  # (K, A): the negative j by weighing * weights_ij, too
    own_view: Tensor | None  # (K, A): the own view by minus this
    nearest: Tensor | None  # (K, A): the row of the most similar positive
    to_nearest: Tensor | None  # (K, A): that row by minus this


class _Contrast(torch.autograd.Function):
    """The losses (K, A) of z (V=2, B, K, D) by the formula that heads this module, with their gradient written out.

    With r_i the share times the sigmoid of log N_i - log P_i, the gradient by the logit l_ij is

        r_i e exp(e l_ij) / N_i             for a negative
        -r_i exp(l_ij) / sum of exp(l_ik)   for a positive of the mean
        -r_i                                for the nearest positive of the max, or the own view

    Anchor and candidate meet in both directions, so with G these gradients the one by x is (G + G^T) x / tau: one
    product of matrices in each pass. A matrix entry needs one exponential, exp(c l) with c = e for a negative and 1 for
    a positive: logits lie between -1 / tau and 1 / tau, and `_precision` sees to it that nothing leaves the range of
    the floats. Sums over labels are products with two columns of zeros and ones.

    One matrix of scores is kept, and the backward pass turns it into G + G^T where it stands. A second backward pass
    computes it again, as it does with anchors that are cut into blocks: then memory is linear in the batch.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, plan: _Plan) -> Tensor:
        views, images, aus, channels = z.shape
        source = z.permute(2, 0, 1, 3)  # (K, V, B, D)
        unknown = ~plan.known.view(aus, views, images, 1)
        norm = torch.linalg.vector_norm(source, dim=-1, keepdim=True, dtype=plan.e.dtype)  # (K, V, B, 1)
        if not plan.whole:
            norm = norm.masked_fill_(unknown, 0)  # not even a NaN of an unknown image reaches the others
        # A vector too short for the dtype of z is not blown up, so its gradient fits it; a NaN is not <=, and stays.
        inverse = norm.masked_fill(norm <= _tiny(z), 1).reciprocal_()  # (K, V, B, 1)
        inverse = inverse.mul_(plan.temperature**-0.5)  # so that a product of two rows is a logit
        x = torch.empty(source.shape, dtype=plan.e.dtype, device=z.device)
        x = torch.mul(source, inverse, out=x)
        x = (x if plan.whole else x.masked_fill_(unknown, 0)).view(aus, -1, channels)  # (K, 2B, D)
        values, kept = [], []
        for a in plan.blocks:
            losses, block = _block(x, a, plan)
            values.append(losses)
            if plan.uncut:
                kept.append(block)
        ctx.plan, ctx.kept, ctx.dtype = plan, kept, z.dtype
        ctx.save_for_backward(x, inverse.view(aus, -1, 1))
        norm = norm.view(aus, -1)  # (K, 2B)
        # anchors without a term pass on a NaN, too
        return torch.cat(values, dim=1).add_(torch.cat([norm[:, a] for a in plan.spans], dim=1), alpha=0)  # (K, A)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        x, inverse = ctx.saved_tensors
        plan: _Plan = ctx.plan
        kept, ctx.kept = ctx.kept, None
        aus, rows, channels = x.shape
        scales = torch.split(outer[0], [a.stop - a.start for a in plan.blocks], dim=1)  # (K, A) each
        # Through the normalisation: only what is orthogonal to x is left. A zero vector stays where it is.
        back = inverse if plan.whole else inverse.masked_fill(~plan.known[..., None], 0)  # (K, 2B, 1)
        gradient = torch.empty(2, rows // 2, aus, channels, dtype=x.dtype, device=x.device)  # as z, (V, B, K, D)
        by_au = gradient.view(rows, aus, channels).transpose(0, 1)  # (K, 2B, D)
        if scales[0].shape[1] == rows:
            block = kept[0] if kept else _block(x, plan.blocks[0], plan)[1]
            pulls = _plus_transposed(_pulls(block, plan.blocks[0], plan, scales[0]))  # (K, 2B, 2B)
            if block.logits is not None:
                radial = (pulls * block.logits).sum(-1)  # (K, 2B)
                pulls.diagonal(dim1=1, dim2=2).sub_(radial, alpha=plan.temperature)
                by_au.copy_(torch.bmm(pulls.mul_(back), x))
            else:
                pulls.mul_(back)
                size = max(1, _at_a_time(x) // (rows * channels))
                for k in (slice(first, first + size) for first in range(0, aus, size)):
                    part = torch.bmm(pulls[k], x[k])  # (k, 2B, D)
                    radial = (part * x[k]).sum(-1, keepdim=True)  # (k, 2B, 1)
                    torch.addcmul(part, x[k], radial, value=-plan.temperature, out=by_au[k])
        else:
            by_au.zero_()
            for index, (a, scale) in enumerate(zip(plan.blocks, scales, strict=True)):
                pulls = _pulls(kept[index] if kept else _block(x, a, plan)[1], a, plan, scale)  # (K, A, 2B)
                by_au[:, a].baddbmm_(pulls, x)
                by_au.baddbmm_(pulls.mT, x[:, a])
            for a in plan.tiles(rows):
                radial = (by_au[:, a] * x[:, a]).sum(-1, keepdim=True)  # (K, A, 1)
                by_au[:, a].addcmul_(x[:, a], radial, value=-plan.temperature).mul_(back[:, a])
        return gradient.to(ctx.dtype), None


def _block(x: Tensor, a: slice, plan: _Plan) -> tuple[Tensor, _Block]:
    """The losses (K, A) of the anchors `a` of x (K, 2B, D), vectors of length 1 / sqrt(tau), against all rows."""
    n = x.shape[1]
    anchors = torch.arange(n, device=x.device)[a]  # (A,)
    here, own_view = torch.arange(len(anchors), device=x.device), (anchors + n // 2) % n
    present, e = plan.present[:, a], plan.e[:, a]  # (K, A) each
    shares = {kind: share[:, a] for kind, share in plan.shares.items()}
    scores = torch.bmm(x[:, a], x.mT)  # (K, A, 2B): l_ij until the tiles make exp(c l_ij) of it
    logits = scores.clone() if plan.uncut and 4 * n <= x.shape[2] else None
    log_p: dict[str, Tensor] = {}
    if "view" in shares:
        log_p["view"] = scores[:, here, own_view]  # (K, A)
    nearest, best = None, None
    if "max" in shares and plan.exclude == "none":
        nearest = anchors.expand_as(e)  # (K, A): nothing is closer to an anchor than itself
        log_p["max"] = scores[:, here, anchors]  # (K, A)
    elif "max" in shares:
        nearest, best = torch.empty_like(e, dtype=torch.int64), torch.empty_like(e)  # (K, A) each
    weights = torch.empty_like(scores) if plan.normalize else None
    sums, sums_of_weights = scores.new_empty(*e.shape, 2), scores.new_empty(*e.shape, 2)  # (K, A, 2) each
    one, zero = torch.ones_like(e), torch.zeros_like(e)
    for t in plan.tiles(len(anchors)):
        tile, of, them = scores[:, t], here[: t.stop - t.start], (anchors[t], own_view[t])
        if nearest is not None and best is not None:
            same = (present[:, t, None] == plan.present[:, None]) & plan.known[:, None]  # (K, T, 2B)
            _take_out(same, of, *them, plan.exclude, False)
            torch.max(torch.where(same, tile, -math.inf), dim=-1, out=(best[:, t], nearest[:, t]))
        if weights is not None:
            exponent = _by_labels(plan, present[:, t], zero[:, t], e[:, t] - 1)  # (K, T, 2B)
            torch.mul(tile, exponent, out=weights[:, t]).exp_()
            torch.bmm(weights[:, t], plan.columns, out=sums_of_weights[:, t])
        tile.mul_(_by_labels(plan, present[:, t], one[:, t], e[:, t])).exp_()
        _take_out(tile, of, *them, plan.exclude, 0)
        sums[:, t] = torch.bmm(tile, plan.columns)
    same_sum, other_sum = _own_and_other(sums, present)  # (K, A) each
    log_n = other_sum.log()  # (K, A)
    if weights is not None:
        _, weight_sum = _own_and_other(sums_of_weights, present)  # (K, A)
        count = plan.n_negatives[:, a].clamp(min=1).to(e)  # (K, A)
        log_n = log_n - weight_sum.log() + count.log()
    if best is not None:
        log_p["max"] = torch.where(plan.attracted[:, a], best, 0)
    if "mean" in shares:
        mean = same_sum / plan.divisor[:, a]  # (K, A)
        log_p["mean"] = torch.where(mean > 0, mean, 1).log()

    contrasted = plan.contrasted[:, a]  # (K, A)
    attracted = contrasted & plan.attracted[:, a]  # (K, A)
    exists = torch.stack([contrasted if kind == "view" else attracted for kind in shares])  # (R, K, A)
    share = torch.where(exists, torch.stack(list(shares.values())), 0)  # (R, K, A)
    margin = torch.where(exists, log_n - torch.stack([log_p[kind] for kind in shares]), 0)  # (R, K, A)
    # torch replaces softplus by the identity from 20 on, a step of 2e-9: too coarse for float64
    losses = (share * F.softplus(margin, threshold=40)).sum(0)  # (K, A)
    pulls = share * torch.sigmoid(margin)  # (R, K, A)
    pull = dict(zip(shares, pulls, strict=True))  # (K, A) each
    total = pulls.sum(0)  # (K, A)
    repulsion = torch.where(total > 0, total * (one if plan.detach else e) / other_sum, 0)  # (K, A)
    weighing = zero
    if weights is not None and not plan.detach:
        weighing = torch.where(total > 0, -total * (e - 1) / weight_sum, 0)  # (K, A)
    attraction = torch.where(same_sum > 0, pull["mean"] / same_sum, 0) if "mean" in pull else zero
    moving = None if plan.detach else weights
    return losses, _Block(
        scores, logits, moving, repulsion, attraction, weighing, pull.get("view"), nearest, pull.get("max")
    )


def _pulls(block: _Block, a: slice, plan: _Plan, outer: Tensor) -> Tensor:
    """The gradient (K, A, 2B) by the logits of a block, `outer` (K, A) times that of its losses, in place of scores."""
    n = plan.present.shape[1]
    anchors = torch.arange(n, device=outer.device)[a]  # (A,)
    here = torch.arange(len(anchors), device=outer.device)
    present = plan.present[:, a]  # (K, A)
    attraction, repulsion, weighing = -block.attraction * outer, block.repulsion * outer, block.weighing * outer
    for t in plan.tiles(len(anchors)):
        tile = block.scores[:, t].mul_(_by_labels(plan, present[:, t], attraction[:, t], repulsion[:, t]))
        if block.weights is not None:
            factor = _by_labels(plan, present[:, t], torch.zeros_like(weighing[:, t]), weighing[:, t])  # (K, T, 2B)
            tile.addcmul_(block.weights[:, t], factor)
    if block.own_view is not None:
        block.scores[:, here, (anchors + n // 2) % n] -= block.own_view * outer
    if block.nearest is not None and block.to_nearest is not None:
        block.scores.scatter_add_(2, block.nearest[..., None], -(block.to_nearest * outer)[..., None])
    return block.scores


def _at_a_time(like: Tensor) -> int:
    return TILE_OF_GPU if like.is_cuda else TILE


def _plus_transposed(matrix: Tensor) -> Tensor:
    """matrix + matrix^T of (K, n, n), in its place, by squares."""
    n, side = matrix.shape[1], SIDE_OF_GPU if matrix.is_cuda else SIDE
    if n <= side:
        return matrix + matrix.mT
    spans = [slice(start, min(start + side, n)) for start in range(0, n, side)]
    for index, row in enumerate(spans):
        for column in spans[index:]:
            both = matrix[:, row, column] + matrix[:, column, row].mT  # (K, side, side)
            matrix[:, row, column] = both
            if column != row:
                matrix[:, column, row] = both.mT
    return matrix


def _by_labels(plan: _Plan, present: Tensor, same: Tensor, other: Tensor) -> Tensor:
    """(K, A, 2B): `same` (K, A) of the anchor where a row has its label, else `other`; void for unknown rows."""
    of_absent, of_present = torch.where(present, other, same), torch.where(present, same, other)  # (K, A) each
    return torch.where(plan.present[:, None], of_present[..., None], of_absent[..., None])  # (K, A, 2B)


def _own_and_other(sums: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Of sums (K, A, 2) over absent and present rows, those of the anchor's label and of the other: (K, A) each."""
    absent_sum, present_sum = sums.unbind(-1)
    return torch.where(present, present_sum, absent_sum), torch.where(present, absent_sum, present_sum)


def _take_out(values: Tensor, here: Tensor, anchors: Tensor, own_view: Tensor, exclude: str, value: float) -> None:
    """Overwrite the entries (K, A, 2B) that an exclusion takes from its anchors."""
    if exclude != "none":
        values[:, here, anchors] = value
    if exclude == "image":
        values[:, here, own_view] = value


def supcon(z: Tensor, labels: Tensor, temperature: float, *, anchors: slice | None = None) -> Tensor:
    """SupCon per AU (Khosla et al. 2020, with the mean of logs), averaged over known anchors, then over AUs.

    loss_i = logsumexp of l_ij over all other known rows - mean of l_ij over the other rows with the anchor's label.
    With all embeddings equal: log(n - 1) of n known rows. A known anchor always has a positive, its own other view. An
    AU with one label only has nothing to contrast: it counts in the mean with 0 and a live graph, as in `aunce_loss`
    and as in pytorch-metric-learning with its MeanReducer.

    Args:
        z: float (V=2, B, K, D), normalised here.
        labels: integer (B, K) in {-1, 0, 1}, as in `aunce_loss`.
        temperature: tau, with no other factor.
        anchors: see `aunce_loss`.

    Raises:
        UsageError: wrong shape, label value or temperature.
    """
    _check_options(temperature=temperature)
    _check_shape(z)
    with torch.autocast(z.device.type, enabled=False):
        present, known, n_known, n_same, n_negatives, _ = _rows(z, labels)
        x = _unit(z, known, 1.0)  # (K, 2B, D)
        row = torch.arange(x.shape[1], device=x.device)  # (2B,)
        total = x.new_zeros(len(x))  # (K,)
        for a in _spans(z.shape[1], anchors):
            logits = x[:, a] @ x.mT / temperature  # (K, A, 2B)
            others = known[:, None] & (row[a, None] != row)  # (K, A, 2B)
            positives = others & (present[:, a, None] == present[:, None])  # (K, A, 2B)
            attraction = torch.where(positives, logits, 0).sum(-1) / (n_same[:, a] - 1).clamp(min=1)  # (K, A)
            losses = torch.where(known[:, a] & (n_negatives[:, a] > 0), _lse(logits, others) - attraction, 0)
            total = total + _alive(losses, x[:, a]).sum(1)  # (K,)
        return (total / n_known[:, 0].clamp(min=1)).mean()


def infonce(z: Tensor, temperature: float, *, anchors: slice | None = None) -> Tensor:
    """InfoNCE per AU (NT-Xent of SimCLR, Chen et al. 2020), without labels, averaged over anchors and AUs.

    loss_i = logsumexp of l_ij over all other rows - l_ij with the own other view. With equal embeddings: log(2B - 1).

    Args:
        z: float (V=2, B, K, D), normalised here.
        temperature: tau, with no other factor.
        anchors: see `aunce_loss`.

    Raises:
        UsageError: wrong shape or temperature.
    """
    _check_options(temperature=temperature)
    _check_shape(z)
    with torch.autocast(z.device.type, enabled=False):
        everybody = torch.zeros(z.shape[1:3], dtype=torch.int8)  # (B, K)
        x = _unit(z, _rows(z, everybody).known, 1.0)  # (K, 2B, D)
        row = torch.arange(x.shape[1], device=x.device)  # (2B,)
        view = (x * x.roll(len(row) // 2, dims=1)).sum(-1) / temperature  # (K, 2B)
        total = x.new_zeros(len(x))  # (K,)
        for a in _spans(z.shape[1], anchors):
            logits = x[:, a] @ x.mT / temperature  # (K, A, 2B)
            losses = _lse(logits, row[a, None] != row) - view[:, a]  # (K, A)
            total = total + _alive(losses, x[:, a]).sum(1)  # (K,)
        return (total / len(row)).mean()


EXPONENTS = {"released": (0.8, 1.2), "early": (0.4, 1.2), "as_read": (0.8, 1.2), "hcl": (0.8, 1.2)}
"""Exponents (absent, present) of the presets of `AUNCELoss`."""


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
    _check_shape(z)
    rows = _rows(z, labels)
    x = _unit(z, rows.known, temperature=1)  # (K, 2B, D)
    n = x.shape[1]
    same = (rows.present[:, :, None] == rows.present[:, None]) & rows.known[:, None]  # (K, 2B, 2B)
    same.diagonal(dim1=1, dim2=2).fill_(False)
    nearest = torch.where(same, x @ x.mT, -math.inf).argmax(-1)  # (K, 2B)
    own = nearest == (torch.arange(n, device=z.device) + n // 2) % n  # (K, 2B)
    return own[rows.known].double().mean().item()


class AUNCELoss(nn.Module):
    """`aunce_loss` with its options fixed and checked once. The presets are the readings that the study compares.

    Example:
        >>> criterion = AUNCELoss.released(temperature=0.1)
        >>> z, labels = torch.randn(2, 8, 12, 64), torch.randint(-1, 2, (8, 12))
        >>> loss = criterion(z, labels)

    Args:
        options: keyword options of `aunce_loss`, except `branch`, `generator` and `anchors`, which belong to the call.

    Raises:
        UsageError: an option is unknown or has a wrong value.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        call = inspect.signature(self.forward).parameters
        names = [name for name in inspect.signature(aunce_loss).parameters if name not in call]
        if unknown := sorted(set(options) - set(names)):
            raise UsageError(f"AUNCELoss: expected options among {', '.join(names)}, got {', '.join(unknown)}")
        _check_options(**options)
        self.options = options

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        *,
        branch: Ints | None = None,
        generator: Generator | None = None,
        anchors: slice | None = None,
    ) -> Tensor:
        """The loss of a batch, see `aunce_loss`.

        Args:
            z: float (V=2, B, K, D), normalised here.
            labels: integer or bool (B, K), 1 present, 0 absent, -1 unknown.
            branch: (K,) of 0 max, 1 mean, 2 view, in place of the draw.
            generator: CPU generator of the draw. Without one the kinds of positives are drawn from torch's global one
                for the CPU, so that `torch.manual_seed` fixes them, as it does a dropout.
            anchors: the images that are anchors; all if left out.

        Returns:
            A scalar, or (K, A) for the reduction `"none"`.

        Raises:
            UsageError: a shape, a label value, `branch`, `generator` or `anchors` is not one of the above.
        """
        generator = torch.default_generator if generator is None else generator
        return aunce_loss(z, labels, branch=branch, generator=generator, anchors=anchors, **self.options)

    def extra_repr(self) -> str:
        """The options that were given, for torch's printout of a module."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    @classmethod
    def released(cls, **options: Any) -> Self:
        """The released code: the defaults of `aunce_loss`. In all presets `options` override single settings."""
        return cls(**options)

    @classmethod
    def early(cls, **options: Any) -> Self:
        """The first public code: exponents .4 and 1.2 and the AU weights in use, so `au_weights` is required.

        Args:
            options: keyword options of `aunce_loss`; `au_weights` (K,) are 1 / rate of each AU, divided by its mean.

        Raises:
            UsageError: `au_weights` is missing, or an option is unknown or has a wrong value.
        """
        if options.get("au_weights") is None:
            expected = "au_weights (K,), always in use in the early code, as 1 / rate of each AU, divided by its mean"
            raise UsageError(f"AUNCELoss.early: expected {expected}, got None")
        return cls(**{"exponents": EXPONENTS["early"], **options})

    @classmethod
    def as_read(cls, **options: Any) -> Self:
        """Our reading of the intent: max and mean over other images only, a mean over those, weights as they are."""
        return cls(**{"exclude": "image", "positive_mean": "positives", **options})

    @classmethod
    def hcl(cls, **options: Any) -> Self:
        """`as_read` with weights of mean 1 as in HCL (Robinson et al. 2021), so that repulsion balances attraction."""
        return cls.as_read(**{"normalize_weights": True, **options})


class _Rows(NamedTuple):
    present: Tensor  # (K, 2B) bool
    known: Tensor  # (K, 2B) bool
    n_known: Tensor  # (K, 1) known rows, 2 x known images
    n_same: Tensor  # (K, 2B) known rows with the anchor's label, the anchor included
    n_negatives: Tensor  # (K, 2B)
    whole: bool  # surely all known: on a GPU nobody looks


def _check_shape(z: Tensor) -> None:
    expected = "z: expected a float tensor (V=2, B, K, D), no axis empty"
    if not isinstance(z, Tensor):
        raise UsageError(f"{expected}, got {type(z).__name__}")
    if z.ndim != 4 or z.shape[0] != 2 or 0 in z.shape or not z.is_floating_point():
        remedy = "one view is torch.stack([f, f]), one vector for all labels f[:, :, None].expand(-1, -1, K, -1)"
        raise UsageError(f"{expected}, got {z.dtype} {tuple(z.shape)}; {remedy}")


def _rows(z: Tensor, labels: Tensor) -> _Rows:
    _, b, k, _ = z.shape
    expected = f"labels: expected integers (B, K) = {(b, k)}"
    if not isinstance(labels, Tensor):
        remedy = "without labels use infonce" if labels is None else "try torch.as_tensor"
        raise UsageError(f"{expected}, got {type(labels).__name__}; {remedy}")
    if labels.shape != (b, k) or labels.is_floating_point() or labels.is_complex():
        remedy = "; if NaN is unknown, labels.nan_to_num(-1).long()" if labels.is_floating_point() else ""
        raise UsageError(f"{expected}, got {labels.dtype} {tuple(labels.shape)}{remedy}")
    values = {*labels.flatten().tolist()} if labels.device.type == "cpu" else {-1}
    if wrong := values - {-1, 0, 1}:
        raise UsageError(f"labels: expected 1 present, 0 absent or -1 unknown, got {sorted(wrong)}")
    y = labels.to(z.device, non_blocking=True).T.repeat(1, 2)  # (K, 2B)
    present, known = y == 1, (y == 0) | (y == 1)  # (K, 2B) each
    n_present, n_known = present.sum(1, keepdim=True), known.sum(1, keepdim=True)  # (K, 1) each
    n_same = torch.where(present, n_present, n_known - n_present)  # (K, 2B)
    return _Rows(present, known, n_known, n_same, n_known - n_same, -1 not in values)


def _precision(z: Tensor, temperature: float, exponents: Floats = (1.0, 1.0)) -> torch.dtype:
    """What logits are computed in: float32 at least.

    Exponentials of e / tau and -e / tau leave float32 from 87 on: from 80 on float64 takes its place. Exponents in a
    tensor on a GPU, where the host would have to wait for them, are taken to be 2 at most.
    """
    return torch.promote_types(z.dtype, torch.float32 if _largest(exponents) <= 80 * temperature else torch.float64)


def _largest(exponents: Floats) -> float:
    """The largest of 1 and the exponents by size, see `_precision`."""
    if isinstance(exponents, Tensor) and exponents.is_cuda:
        return 2.0
    return max([1.0, *(abs(float(e)) for e in torch.as_tensor(exponents).flatten().tolist())])


def _tiny(z: Tensor) -> float:
    return float(torch.finfo(z.dtype).tiny ** 0.5)


def _unit(z: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Unit vectors (K, 2B, D); zero where unknown."""
    k, n = known.shape
    x = z.permute(2, 0, 1, 3).reshape(k, n, -1).to(_precision(z, temperature))  # (K, 2B, D)
    x = x.masked_fill(~known[..., None], 0)  # not even a NaN of an unknown image reaches the gradient of others
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (K, 2B, 1)
    return x / norm.masked_fill(norm <= _tiny(z), 1)  # as in `_Contrast`


def _spans(images: int, anchors: slice | None) -> tuple[slice, ...]:
    """The rows of the anchors: those of the first views, then of the second; one span if all images are anchors."""
    if anchors is not None and not (isinstance(anchors, slice) and anchors.step in (None, 1)):
        raise UsageError(f"anchors: expected a slice of images without a step, got {anchors!r}")
    first, last, _ = (anchors or slice(None)).indices(images)
    if (first, last) == (0, images):
        return (slice(0, 2 * images),)
    return slice(first, last), slice(images + first, images + last)


def _alive(losses: Tensor, x: Tensor) -> Tensor:
    """Losses (K, A) of rows x (K, A, D): those without a term stay on the graph, too, and pass on a NaN."""
    return losses + 0 * x.sum(-1)


def _never(values: Tensor) -> float:
    """Stands for -inf; finite, so that a row of nothing else has a finite gradient, which the caller then masks."""
    return torch.finfo(values.dtype).min / 4


def _lse(values: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep, values, _never(values)).logsumexp(-1)  # (K, A)


def _exponents(exponents: Floats, like: Tensor, aus: int) -> Tensor:
    if not isinstance(exponents, Tensor):
        # filled on the device: a copy from the host would wait for the GPU
        return torch.stack([like.new_full((), float(e)) for e in exponents]).expand(aus, 2)
    if exponents.shape != (aus, 2):
        raise UsageError(f"exponents: expected a pair or a tensor (K, 2) = {(aus, 2)}, got {tuple(exponents.shape)}")
    return exponents.to(like)


def _branch_shares(
    like: Tensor,
    shape: tuple[int, ...],
    positive: str,
    probs: Sequence[float],
    draw: str,
    branch: Ints | None,
    generator: Generator | None,
) -> dict[str, Tensor]:
    """The share (K, 2B) of each branch in the loss of each anchor; a branch that nobody needs is left out."""
    k, n = shape
    if branch is not None and positive != "sampled":
        raise UsageError(f"branch: expected positive='sampled', whose draw it replaces, got positive={positive!r}")
    if positive != "sampled":
        fixed = probs if positive == "expected" else [float(kind == positive) for kind in BRANCHES]
        return {kind: like.new_full((k, n), p) for kind, p in zip(BRANCHES, fixed, strict=True) if p > 0}
    if branch is not None:
        try:
            drawn = torch.as_tensor(branch).cpu()[..., None]  # (K, 1)
        except (TypeError, ValueError):
            drawn = torch.empty(0)
        if drawn.shape != (k, 1) or not {*drawn.flatten().tolist()} <= {0, 1, 2}:
            raise UsageError(f"branch: expected (K,) = ({k},) of 0 max, 1 mean, 2 view, got {branch}")
    elif not isinstance(generator, Generator) or generator.device.type != "cpu":
        got = f"one on {generator.device}" if isinstance(generator, Generator) else generator
        expected = "a CPU torch.Generator or branch=, since positive='sampled' draws from nothing else"
        raise UsageError(f"generator: expected {expected}, got {got}; try torch.Generator().manual_seed(0)")
    else:
        shape = (k, 1 if draw == "au" else n)
        u = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
        drawn = (u >= probs[0]).int() + (u >= probs[0] + probs[1])
    taken = {kind: drawn == b for b, kind in enumerate(BRANCHES)}  # (K, 1) or (K, 2B) each
    return {kind: is_it.to(like, non_blocking=True).expand(k, n) for kind, is_it in taken.items() if is_it.any()}


def _check_options(**options: Any) -> None:
    """All that can be checked before the data is there, so that a module with a wrong option is never built."""
    for name, allowed in CHOICES.items():
        if name in options and options[name] not in allowed:
            raise UsageError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {options[name]!r}")
    tau, pair = options.get("temperature", 1), options.get("exponents", (1, 1))
    probs, size = options.get("positive_probs", (0, 0, 1)), options.get("chunk_size")
    weights = options.get("au_weights")
    if not (_numbers([tau]) and tau > 0):
        remedy = "; it is not learned: pass a float" if isinstance(tau, Tensor) else ""
        raise UsageError(f"temperature: expected a positive number, got {tau!r}{remedy}")
    if not (_finite(pair) if isinstance(pair, Tensor) else _numbers(pair) and len(pair) == 2):
        raise UsageError(f"exponents: expected a pair of numbers (absent, present) or a tensor (K, 2), got {pair!r}")
    if "exponents" in options and (largest := _largest(pair)) > 700 * tau:
        raise UsageError(f"temperature, exponents: expected e / tau of 700 at most, got {largest:g} / {tau:g}")
    if not (weights is None or (_finite(weights, 0) if isinstance(weights, Tensor) else _numbers(weights, 0))):
        raise UsageError(f"au_weights: expected (K,) numbers, 0 or more, got {weights!r}")
    for name in ("normalize_weights", "detach_weights"):
        if not isinstance(options.get(name, False), bool):
            raise UsageError(f"{name}: expected True or False, got {options[name]!r}")
    if not (_numbers(probs) and len(probs) == 3 and min(probs) >= 0 and abs(sum(probs) - 1) < 1e-6):
        raise UsageError(f"positive_probs: expected 3 probabilities of max, mean, view with sum 1, got {probs!r}")
    if size is not None and not (type(size) is int and size > 0):
        raise UsageError(f"chunk_size: expected a positive integer or None, got {size!r}")


def _numbers(values: Any, least: float = -math.inf) -> bool:
    return isinstance(values, Sequence) and all(
        isinstance(v, numbers.Real) and math.isfinite(v) and float(v) >= least for v in values
    )


def _finite(values: Tensor, least: float = -math.inf) -> bool:
    """Whether all values are finite and `least` or more; of a tensor on a GPU nobody asks, as the host would wait."""
    return values.is_cuda or bool((values.isfinite() & (values >= least)).all())
