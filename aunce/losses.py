"""The AUNCE loss and its relatives.

For each AU the V views of a batch are stacked into N = V * B rows; row v * B + i is view v of image i. With unit
vectors z and l_ij = z_i . z_j / tau,

    loss_i = softplus(log N_i - log P_i) = -log(P_i / (P_i + N_i)),   log N_i = logsumexp over the negatives of e l_ij,

where e is the exponent of the anchor's label, and one of three branches gives the positive score:

    0 max    log P_i = the largest l_ij over the rows with the anchor's label
    1 mean   log P_i = logsumexp of l_ij over the rows with the anchor's label, minus the log of a divisor
    2 view   log P_i = l_ij with the anchor's own other view

An unknown label takes its image out of that AU: the loss of an AU is the loss of the sub-batch of its known images,
divisors included. A term that cannot exist is 0 and stays in the mean over known anchors: an anchor without negatives,
or a max or mean without a positive. It never turns into another branch.

*Released* is the code of Ziqiao-Shang/AUNCE at commit bade385, *early* its first commit; the rest is our reading, or
derived where it says so. `anchor_losses` is this formula, readable; `kernel.tiled_losses` is the same, fast.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from aunce import inputs
from aunce.errors import UsageError
from aunce.inputs import BRANCHES, Floats, Ints, keep_in_graph, masked_lse, unit_rows
from aunce.kernel import tiled_losses
from aunce.supcon import InfoNCELoss, SupConLoss, infonce, own_view_share, supcon

__all__ = [
    "BRANCHES", "EXPONENTS", "AUNCELoss", "InfoNCELoss", "SupConLoss", "anchor_losses", "aunce_loss", "infonce",
    "own_view_share", "supcon",
]  # fmt: skip

EXPONENTS = {"released": (0.8, 1.2), "early": (0.4, 1.2), "as_read": (0.8, 1.2), "hcl": (0.8, 1.2)}
"""Exponents (absent, present) of the presets of `AUNCELoss`."""


def anchor_losses(
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
) -> Tensor:
    """The losses (K, N) of all anchors in all AUs: the formula that heads this module. For options see `aunce_loss`.

    Args:
        z: (V, B, K, D), or (V, B, 1, D) if all AUs share it.
        present, known: (K, N) bool, the label of each row and whether there is one.
        e: (K, N), the exponent of the label of each anchor.
        shares: branch -> (K, N), its share in the loss of each anchor, drawn or fixed.
    """
    images, row = z.shape[1], torch.arange(known.shape[1], device=z.device)  # (N,)
    x = unit_rows(z, known, e.dtype)  # (K, N, D)
    logits = x @ x.mT / temperature  # (K, N, N)
    of_known, same = known[:, :, None] & known[:, None], present[:, :, None] == present[:, None]  # (K, N, N) each
    own = {"none": row < 0, "self": row[:, None] == row, "image": row[:, None] % images == row % images}  # (N, N)
    negatives, positives = of_known & ~same, of_known & same & ~own[exclude]  # (K, N, N) each
    n_negatives, n_positives = negatives.sum(-1).to(e), positives.sum(-1).to(e)  # (K, N) each
    log_weights = (e - 1)[..., None] * (logits.detach() if detach_weights else logits)  # (K, N, N)
    log_n = masked_lse(log_weights + logits, negatives)  # (K, N)
    if normalize_weights:
        log_n = log_n - masked_lse(log_weights, negatives) + n_negatives.clamp(min=1).log()  # (K, N)
    divisor = n_positives if positive_mean == "positives" else known.sum(1, keepdim=True).to(e)  # (K, N) or (K, 1)
    log_p = {
        "max": torch.where(positives, logits, -math.inf).max(-1).values,  # (K, N)
        "mean": masked_lse(logits, positives) - divisor.clamp(min=1).log(),  # (K, N)
        "view": (x * x.roll(images, dims=1)).sum(-1) / temperature,  # (K, N)
    }
    losses = keep_in_graph(torch.zeros_like(e), x)  # (K, N)
    for branch, share in shares.items():
        exists = (n_negatives > 0) & ((n_positives > 0) | (branch == "view"))  # (K, N)
        margin = torch.where(exists, log_n - log_p[branch], 0)  # (K, N)
        # torch replaces softplus by the identity from 20 on, a step of 2e-9: too coarse for float64
        losses = losses + torch.where(exists, share * F.softplus(margin, threshold=40), 0)  # (K, N)
    return losses


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
    label_weights: Floats | None = None,
    draw: str = "au",
    reduction: str = "mean",
    chunk_size: int | None = None,
    implementation: str = "auto",
    branch: Ints | None = None,
    generator: Generator | None = None,
    anchors: slice | None = None,
) -> Tensor:
    """AUNCE: supervised contrast per AU, three kinds of positive, negatives weighted by the anchor's label.

    The formula heads this module; the defaults are the released code. With all embeddings equal the loss of an anchor
    with n negatives is log(1 + n exp((e - 1) / tau) / p), p = 1, or p = positives / rows for the mean over the row.

    Args:
        z: float (V=1 or 2, B, K, D), normalised here; a zero vector stays zero. NaN comes out as NaN. With a single
            view, the branch view attracts nothing, nor does max with `exclude="none"`. One embedding for all AUs,
            expanded to K, is multiplied once.
        labels: (B, K): 1 present, 0 absent, -1 or NaN unknown; moved to the device of z. Values on a GPU are not
            checked, as each step would wait for it: there, and under torch.compile, any other value is unknown.
        temperature: tau (released: .5), a number. e / tau may be 700 at most, else exp(e / tau) leaves float64.
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
            1 / rate, divided by its mean over the AUs. The only option with a gradient.
        label_weights: the same under a name for labels of any kind.
        draw: one draw per `"au"` and batch (released; `"label"` is the same) or one per `"anchor"`.
        reduction: `"mean"` over known anchors, then AUs, or `"none"`.
        chunk_size: anchors per block. Blocks are computed again in the backward pass: memory linear in B, same value.
        implementation: `"auto"` is the kernel, and `"reference"` the formula in plain torch, all anchors at once.
            Under create_graph=True, torch.func and torch.compile, auto takes the reference as well.
        branch: (K,) of 0 max, 1 mean, 2 view, in place of the draw. Read on the host: best a CPU tensor.
        generator: CPU generator, the only source of randomness, so required for a draw. All devices draw the same.
        anchors: the images, neighbours in the batch, that are anchors with all their views; all images stay positives
            and negatives. The result is a share of the loss: the shares of all images add up to it, and that of no
            image is 0. `devices.gather` says how several processes use it. With embeddings of earlier batches behind
            those of this one (a memory bank) it is a share as well: with all labels known, the mean over the anchors is
            the share times images / anchors.

    Returns:
        A scalar, or (K, A) for `"none"`, 0 at unknown anchors; A = V * B unless `anchors` says less. Float32, float64
        for float64. Always on the graph of z.

    Raises:
        UsageError: an option, shape or label value is not one of the above.
    """
    inputs.check_options(
        temperature=temperature, exponents=exponents, positive=positive, positive_probs=positive_probs, exclude=exclude,
        positive_mean=positive_mean, normalize_weights=normalize_weights, detach_weights=detach_weights, draw=draw,
        au_weights=au_weights, label_weights=label_weights, reduction=reduction, chunk_size=chunk_size,
        implementation=implementation,
    )  # fmt: skip
    inputs.check_embeddings(z)
    present, known, all_known = inputs.read_labels(z, labels)  # (K, N) each
    spans = inputs.anchor_spans(z, anchors)
    e = inputs.anchor_exponents(exponents, present, inputs.precision(z, temperature, exponents))  # (K, N)
    shares = inputs.branch_shares(
        e, positive=positive, probs=positive_probs, draw=draw, branch=branch, generator=generator
    )
    terms: dict[str, Any] = {
        "present": present, "known": known, "e": e, "shares": shares, "temperature": temperature, "exclude": exclude,
        "positive_mean": positive_mean, "normalize_weights": normalize_weights, "detach_weights": detach_weights,
    }  # fmt: skip

    def formula(z: Tensor) -> Tensor:
        losses = anchor_losses(z, **terms)  # (K, N)
        return torch.cat([losses[:, a] for a in spans], dim=1)  # (K, A)

    with torch.autocast(z.device.type, enabled=False):
        embeddings = z[:, :, :1] if z.stride(2) == 0 else z  # (V, B, S, D)
        if implementation == "reference" or inputs.traced():
            losses = formula(embeddings)  # (K, A)
        else:
            plan = inputs.Plan(
                **terms, views=len(z), shared=embeddings.shape[2] < z.shape[2], spans=spans, chunk_size=chunk_size,
                all_known=all_known, formula=formula,
            )  # fmt: skip
            losses = tiled_losses(embeddings, plan)  # (K, A)
        weights = au_weights if label_weights is None else label_weights
        if weights is not None:
            weights = torch.as_tensor(weights, dtype=losses.dtype, device=z.device)  # (K,)
            if weights.shape != z.shape[2:3]:
                raise UsageError(f"au_weights: expected shape (K,) = ({z.shape[2]},), got {tuple(weights.shape)}")
            losses = losses * weights[:, None]  # (K, A)
        losses = losses.to(torch.promote_types(z.dtype, torch.float32))
        return inputs.reduce_losses([losses], known.sum(1).clamp(min=1), reduction)


OPTIONS = {k: v for k, v in (aunce_loss.__kwdefaults__ or {}).items() if k not in ("branch", "generator", "anchors")}
"""Options of `AUNCELoss` and their defaults."""


class AUNCELoss(nn.Module):
    """`aunce_loss` with its options fixed and checked once. The presets are the readings that the study compares.

    Tensors among the options are buffers; `au_weights` may be a Parameter, and gets its gradient.

    Example:
        >>> criterion = AUNCELoss.released(temperature=0.1)
        >>> z, labels = torch.randn(2, 8, 12, 64), torch.randint(-1, 2, (8, 12))
        >>> loss = criterion(z, labels)

    Raises:
        UsageError: an option has a wrong value.
    """

    def __init__(
        self,
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
        label_weights: Floats | None = None,
        draw: str = "au",
        reduction: str = "mean",
        chunk_size: int | None = None,
        implementation: str = "auto",
    ) -> None:
        passed = {name: value for name, value in locals().items() if name in OPTIONS}
        super().__init__()
        inputs.check_options(**passed)
        for name, value in passed.items():
            plain = isinstance(value, nn.Parameter) or not isinstance(value, Tensor)
            setattr(self, name, value if plain else nn.Buffer(value))

    @property
    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return {name: v for name, v in values.items() if isinstance(v, Tensor) or v != OPTIONS[name]}

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

        Without a generator the kinds of positives are drawn from torch's global one for the CPU, so that
        `torch.manual_seed` fixes them, as it does a dropout.
        """
        generator = torch.default_generator if generator is None else generator
        return aunce_loss(z, labels, branch=branch, generator=generator, anchors=anchors, **self.options)

    def extra_repr(self) -> str:
        """The options that differ from their defaults, for torch's printout of a module."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    @classmethod
    def released(cls, **options: Any) -> Self:
        """The released code: the defaults of `aunce_loss`. In all presets `options` override single settings."""
        return cls(**options)

    @classmethod
    def early(cls, **options: Any) -> Self:
        """The first public code: exponents .4 and 1.2 and the AU weights in use, so `au_weights` is required.

        Raises:
            UsageError: `au_weights`, (K,) as 1 / rate of each AU, divided by its mean, is missing.
        """
        if options.get("au_weights", options.get("label_weights")) is None:
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
