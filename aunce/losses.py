"""The AUNCE loss and its relatives, on one kernel.

For each AU the two views of a batch are stacked into 2B rows; row v * B + i is view v of image i. With unit vectors z
and l_ij = z_i . z_j / tau,

    loss_i = softplus(log N_i - log P_i) = -log(P_i / (P_i + N_i)),   log N_i = logsumexp over the negatives of e l_ij,

where e is the exponent of the anchor's label, and one of three branches gives the positive score:

    0 max    log P_i = the largest l_ij over the rows with the anchor's label
    1 mean   log P_i = logsumexp of l_ij over the rows with the anchor's label, minus the log of a divisor
    2 view   log P_i = l_ij with the anchor's own other view

Everything stays in log space and the logits are float32 at least, so half precision is safe (derived; the released code
exponentiates first and gives NaN in fp16 from tau .1 downwards).

An unknown label (-1) takes its image out of that AU: the loss of an AU is the loss of the sub-batch of its known
images, divisors included. A term that cannot exist is 0 and stays in the mean over known anchors: an anchor without
negatives, or a max or mean whose exclusion left no positive (a label of one image only). It never turns into another
branch.

*Released* is the code of Ziqiao-Shang/AUNCE at commit bade385, *early* its first commit; the rest is our reading, or
derived where it says so.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from aunce.errors import UsageError

Floats = Sequence[float] | Tensor
Ints = Sequence[int] | Tensor

BRANCHES = ("max", "mean", "view")
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
) -> Tensor:
    """AUNCE: supervised contrast per AU, three kinds of positive, negatives weighted by the anchor's label.

    The formula heads this module; the defaults are the released code. With all embeddings equal the loss of an anchor
    with n negatives is log(1 + n exp((e - 1) / tau) / p), p = 1, or p = positives / rows for the mean over the row.

    Args:
        z: float (V=2, B, K, D), normalised here; a zero vector stays zero. NaN comes out as NaN.
        labels: integer (B, K), 1 present, 0 absent, -1 unknown; moved to the device of z. Values are checked on CPU
            tensors only, as each step would wait for the GPU; there, any other value counts as unknown.
        temperature: tau (released: .5).
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
        au_weights: (K,), multiplied into the losses of each AU as they are, not rescaled.
        draw: one draw per `"au"` and batch (released) or one per `"anchor"`.
        branch: (K,) of 0 max, 1 mean, 2 view, in place of the draw. Read on the host: best a CPU tensor.
        generator: CPU generator, the only source of randomness, so required for a draw. All devices draw the same.
        reduction: `"mean"` over known anchors, then AUs; `"au_mean"` over the AUs with negatives only; or `"none"`.
        chunk_size: anchors per block. Blocks are computed again in the backward pass: memory linear in B, same value.

    Returns:
        A scalar, or (K, 2B) for `"none"`, 0 at unknown anchors. Float32, float64 for float64. Always on the graph of z.

    Raises:
        UsageError: an option, shape or label value is not one of the above.
    """
    _check_options(
        temperature=temperature, exponents=exponents, positive=positive, positive_probs=positive_probs, exclude=exclude,
        positive_mean=positive_mean, draw=draw, reduction=reduction, chunk_size=chunk_size,
    )  # fmt: skip
    with torch.autocast(z.device.type, enabled=False):
        x, row, present, known, n_known, n_same, n_negatives = _stack(z, labels)
        e_absent, e_present = _exponents(exponents, x).unsqueeze(1).unbind(-1)  # (K, 1) each
        e = torch.where(present, e_present, e_absent)  # (K, 2B)
        shares = _branch_shares(x, positive, positive_probs, draw, branch, generator)
        view = _view_logits(x, temperature) if "view" in shares else x[..., 0]  # (K, 2B)
        n_positives = n_same - OWN_ROWS[exclude]  # (K, 2B)
        log_divisor = _log(n_positives if positive_mean == "positives" else n_known.expand_as(n_same), x)  # (K, 2B)
        log_n_negatives = _log(n_negatives, x)  # (K, 2B)
        own = row if exclude == "self" else row % (len(row) // 2)  # (2B,), equal for the rows that an exclusion takes

        def losses_of(logits: Tensor, a: slice) -> Tensor:
            same = present[:, a, None] == present[:, None]  # (K, A, 2B)
            negatives = ~same & known[:, None]  # (K, A, 2B)
            positives = same & known[:, None]  # (K, A, 2B)
            if exclude != "none":
                positives &= own[a, None] != own

            weighing = logits.detach() if detach_weights else logits
            b = e[:, a, None] - 1  # (K, A, 1)
            log_n = _lse(torch.addcmul(logits, b, weighing), negatives)  # (K, A), of l + log w
            if normalize_weights:
                log_n = log_n - _lse(b * weighing, negatives) + log_n_negatives[:, a]

            losses = torch.zeros_like(log_n)  # (K, A)
            for kind, share in shares.items():
                exists = known[:, a] & (n_negatives[:, a] > 0)  # (K, A)
                if kind == "view":
                    log_p = view[:, a]  # (K, A)
                else:
                    exists &= n_positives[:, a] > 0
                    if kind == "max":
                        log_p = torch.where(positives, logits, _never(logits)).amax(-1)  # (K, A)
                    else:
                        log_p = _lse(logits, positives) - log_divisor[:, a]  # (K, A)
                # torch replaces softplus by the identity from 20 on, a step of 2e-9: too coarse for float64
                term = F.softplus(log_n - log_p, threshold=40)
                losses = losses + share[:, a] * torch.where(exists, term, 0)
            return losses

        losses = _per_anchor(losses_of, x, temperature, chunk_size)  # (K, 2B)
        if au_weights is not None:
            weights = torch.as_tensor(au_weights, dtype=x.dtype, device=x.device)  # (K,)
            if weights.shape != z.shape[2:3]:
                raise UsageError(f"au_weights: expected shape (K,) = ({z.shape[2]},), got {tuple(weights.shape)}")
            losses = losses * weights[:, None]
        if reduction == "none":
            return losses
        per_au = losses.sum(1) / n_known[:, 0].clamp(min=1)  # (K,)
        if reduction == "mean":
            return per_au.mean()
        contrasted = (known & (n_negatives > 0)).any(1)  # (K,), in all other AUs the loss is 0
        return per_au.sum() / contrasted.sum().clamp(min=1)


def supcon(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """SupCon per AU (Khosla et al. 2020, with the mean of logs), averaged over known anchors, then over AUs.

    loss_i = logsumexp of l_ij over all other known rows - mean of l_ij over the other rows with the anchor's label.
    With all embeddings equal: log(2B - 1). A known anchor always has a positive, its own other view. An AU with one
    label only has nothing to contrast: it counts in the mean with 0 and a live graph, as in `aunce_loss` and as in
    pytorch-metric-learning with its MeanReducer.

    Args:
        z: float (V=2, B, K, D), normalised here.
        labels: integer (B, K) in {-1, 0, 1}, as in `aunce_loss`.
        temperature: tau, with no other factor.

    Raises:
        UsageError: wrong shape, label value or temperature.
    """
    _check_options(temperature=temperature)
    with torch.autocast(z.device.type, enabled=False):
        x, row, present, known, n_known, n_same, n_negatives = _stack(z, labels)

        def losses_of(logits: Tensor, a: slice) -> Tensor:
            others = known[:, None] & (row[a, None] != row)  # (K, A, 2B)
            positives = others & (present[:, a, None] == present[:, None])  # (K, A, 2B)
            attraction = torch.where(positives, logits, 0).sum(-1) / (n_same[:, a] - 1).clamp(min=1)  # (K, A)
            return torch.where(known[:, a] & (n_negatives[:, a] > 0), _lse(logits, others) - attraction, 0)

        return (_per_anchor(losses_of, x, temperature).sum(1) / n_known[:, 0].clamp(min=1)).mean()


def infonce(z: Tensor, temperature: float) -> Tensor:
    """InfoNCE per AU (NT-Xent of SimCLR, Chen et al. 2020), without labels, averaged over anchors and AUs.

    loss_i = logsumexp of l_ij over all other rows - l_ij with the own other view. With equal embeddings: log(2B - 1).

    Args:
        z: float (V=2, B, K, D), normalised here.
        temperature: tau, with no other factor.

    Raises:
        UsageError: wrong shape or temperature.
    """
    _check_options(temperature=temperature)
    with torch.autocast(z.device.type, enabled=False):
        x, row, *_ = _stack(z, None)
        view = _view_logits(x, temperature)  # (K, 2B)
        return _per_anchor(lambda s, a: _lse(s, row[a, None] != row) - view[:, a], x, temperature).mean()


class AUNCELoss(nn.Module):
    """`aunce_loss` with its options fixed and checked once. The presets are the readings that the study compares.

    Example:
        >>> criterion = AUNCELoss.released(temperature=0.1)
        >>> z, labels = torch.randn(2, 8, 12, 64), torch.randint(-1, 2, (8, 12))
        >>> loss = criterion(z, labels, generator=torch.Generator().manual_seed(0))

    Args:
        options: keyword options of `aunce_loss`, except `branch` and `generator`, which belong to the call.

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
        self, z: Tensor, labels: Tensor, *, branch: Ints | None = None, generator: Generator | None = None
    ) -> Tensor:
        """The loss of z (V=2, B, K, D) with labels (B, K), see `aunce_loss`."""
        return aunce_loss(z, labels, branch=branch, generator=generator, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    @classmethod
    def released(cls, **options: Any) -> Self:
        """The released code: the defaults of `aunce_loss`. In all presets `options` override single settings."""
        return cls(**options)

    @classmethod
    def early(cls, **options: Any) -> Self:
        """The first public code: exponents .4 and 1.2 and the AU weights in use, so `au_weights` is required."""
        if options.get("au_weights") is None:
            raise UsageError("AUNCELoss.early: expected au_weights (K,), always in use in the early code, got None")
        return cls(**{"exponents": (0.4, 1.2), **options})

    @classmethod
    def as_read(cls, **options: Any) -> Self:
        """Our reading of the intent: max and mean over other images only, a mean over those, weights as they are."""
        return cls(**{"exclude": "image", "positive_mean": "positives", **options})

    @classmethod
    def hcl(cls, **options: Any) -> Self:
        """`as_read` with weights of mean 1 as in HCL (Robinson et al. 2021), so that repulsion balances attraction."""
        return cls.as_read(**{"normalize_weights": True, **options})


class _Rows(NamedTuple):
    x: Tensor  # (K, 2B, D) unit vectors, float32 at least, contiguous for the batched matmul; zero where unknown
    row: Tensor  # (2B,)
    present: Tensor  # (K, 2B) bool
    known: Tensor  # (K, 2B) bool
    n_known: Tensor  # (K, 1) known rows, 2 x known images
    n_same: Tensor  # (K, 2B) known rows with the anchor's label, the anchor included
    n_negatives: Tensor  # (K, 2B)


def _stack(z: Tensor, labels: Tensor | None) -> _Rows:
    if z.ndim != 4 or z.shape[0] != 2 or 0 in z.shape or not z.is_floating_point():
        raise UsageError(f"z: expected a float tensor (V=2, B, K, D), no axis empty, got {z.dtype} {tuple(z.shape)}")
    _, b, k, d = z.shape
    labels = torch.zeros(b, k, dtype=torch.int8, device=z.device) if labels is None else labels
    if labels.shape != (b, k) or labels.is_floating_point() or labels.is_complex():
        raise UsageError(f"labels: expected integers (B, K) = {(b, k)}, got {labels.dtype} {tuple(labels.shape)}")
    if labels.device.type == "cpu" and (wrong := {*labels.flatten().tolist()} - {-1, 0, 1}):
        raise UsageError(f"labels: expected 1 present, 0 absent or -1 unknown, got {sorted(wrong)}")
    y = labels.to(z.device, non_blocking=True).T.repeat(1, 2)  # (K, 2B)
    present, known = y == 1, (y == 0) | (y == 1)  # (K, 2B) each
    n_present, n_known = present.sum(1, keepdim=True), known.sum(1, keepdim=True)  # (K, 1) each
    n_same = torch.where(present, n_present, n_known - n_present)  # (K, 2B)

    x = z.permute(2, 0, 1, 3).reshape(k, 2 * b, d).to(torch.promote_types(z.dtype, torch.float32))  # (K, 2B, D)
    x = x.masked_fill(~known[..., None], 0)  # so that not even a NaN of an unknown image reaches the gradient of others
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (K, 2B, 1)
    # a vector too short for the dtype of z is not blown up, so its gradient fits that dtype; a NaN is not <=, and stays
    x = x / norm.masked_fill(norm <= torch.finfo(z.dtype).tiny ** 0.5, 1)
    return _Rows(x, torch.arange(2 * b, device=z.device), present, known, n_known, n_same, n_known - n_same)


def _per_anchor(
    losses_of: Callable[[Tensor, slice], Tensor], x: Tensor, temperature: float, chunk_size: int | None = None
) -> Tensor:
    """The losses (K, 2B). A block of anchors meets all rows, so cutting changes memory and nothing else."""

    def block(x: Tensor, start: int, stop: int) -> Tensor:
        logits = (x[:, start:stop] / temperature) @ x.mT  # (K, A, 2B)
        return losses_of(logits, slice(start, stop))  # (K, A)

    n = x.shape[1]
    if chunk_size is None or chunk_size >= n:
        losses = block(x, 0, n)  # (K, 2B)
    else:
        cuts = [(start, min(start + chunk_size, n)) for start in range(0, n, chunk_size)]
        blocks = [checkpoint(block, x, *cut, use_reentrant=False, preserve_rng_state=False) for cut in cuts]
        losses = torch.cat(blocks, dim=1)  # (K, 2B)
    return losses + 0 * x.sum(-1)  # anchors without a term stay on the graph, too, and pass on a NaN


def _view_logits(x: Tensor, temperature: float) -> Tensor:
    return (x * x.roll(x.shape[1] // 2, dims=1)).sum(-1) / temperature  # (K, 2B)


def _never(values: Tensor) -> float:
    """Stands for -inf; finite, so that a row of nothing else has a finite gradient, which the caller then masks."""
    return torch.finfo(values.dtype).min / 4


def _lse(values: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep, values, _never(values)).logsumexp(-1)  # (K, A)


def _log(count: Tensor, x: Tensor) -> Tensor:
    return count.clamp(min=1).to(x.dtype).log()  # a count below 1 stands only where the caller masks


def _exponents(exponents: Floats, x: Tensor) -> Tensor:
    k = x.shape[0]
    if not isinstance(exponents, Tensor):
        # filled on the device: a copy from the host would wait for the GPU
        return torch.stack([x.new_full((), float(e)) for e in exponents]).expand(k, 2)
    if exponents.shape != (k, 2):
        raise UsageError(f"exponents: expected a pair or a tensor (K, 2) = {(k, 2)}, got {tuple(exponents.shape)}")
    return exponents.to(x)


def _branch_shares(
    x: Tensor, positive: str, probs: Sequence[float], draw: str, branch: Ints | None, generator: Generator | None
) -> dict[str, Tensor]:
    """The share (K, 2B) of each branch in the loss of each anchor; a branch that nobody needs is left out."""
    k, n, _ = x.shape
    if branch is not None and positive != "sampled":
        raise UsageError(f"branch: expected positive='sampled', whose draw it replaces, got positive={positive!r}")
    if positive != "sampled":
        fixed = probs if positive == "expected" else [float(kind == positive) for kind in BRANCHES]
        return {kind: x.new_full((k, n), p) for kind, p in zip(BRANCHES, fixed, strict=True) if p > 0}
    if branch is not None:
        drawn = torch.as_tensor(branch).cpu()[..., None]  # (K, 1)
        if drawn.shape != (k, 1) or not {*drawn.flatten().tolist()} <= {0, 1, 2}:
            raise UsageError(f"branch: expected (K,) = ({k},) of 0 max, 1 mean, 2 view, got {branch}")
    elif generator is None or generator.device.type != "cpu":
        got = None if generator is None else f"one on {generator.device}"
        expected = "a CPU torch.Generator or branch=, since positive='sampled' draws from nothing else"
        raise UsageError(f"generator: expected {expected}, got {got}; try torch.Generator().manual_seed(0)")
    else:
        shape = (k, 1 if draw == "au" else n)
        u = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
        drawn = (u >= probs[0]).int() + (u >= probs[0] + probs[1])
    taken = {kind: drawn == b for b, kind in enumerate(BRANCHES)}  # (K, 1) or (K, 2B) each
    return {kind: is_it.to(x, non_blocking=True).expand(k, n) for kind, is_it in taken.items() if is_it.any()}


def _check_options(**options: Any) -> None:
    """All that can be checked before the data is there, so that a module with a wrong option is never built."""
    for name, allowed in CHOICES.items():
        if name in options and options[name] not in allowed:
            raise UsageError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {options[name]!r}")
    tau, pair = options.get("temperature", 1), options.get("exponents", (1, 1))
    probs, size = options.get("positive_probs", (0, 0, 1)), options.get("chunk_size")
    if not (_numbers([tau]) and tau > 0):
        raise UsageError(f"temperature: expected a positive number, got {tau!r}")
    if not isinstance(pair, Tensor) and not (_numbers(pair) and len(pair) == 2):
        raise UsageError(f"exponents: expected a pair of numbers (absent, present) or a tensor (K, 2), got {pair!r}")
    if not (_numbers(probs) and len(probs) == 3 and min(probs) >= 0 and abs(sum(probs) - 1) < 1e-6):
        raise UsageError(f"positive_probs: expected 3 probabilities of max, mean, view with sum 1, got {probs!r}")
    if size is not None and not (type(size) is int and size > 0):
        raise UsageError(f"chunk_size: expected a positive integer or None, got {size!r}")


def _numbers(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(v, int | float) and math.isfinite(v) for v in values)
