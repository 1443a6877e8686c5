"""What the contrastive losses are given, checked and brought into rows: options, labels, embeddings, anchors.

N = V * B are the rows of the V stacked views of B images; row v * B + i is view v of image i.
"""

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from aunce.errors import UsageError

Floats = Sequence[float] | Tensor
Ints = Sequence[int] | Tensor

LARGE = 256
"""With more rows than this, a CPU takes an AU at a time; with fewer, the calls would take the time (measured)."""
BRANCHES = ("max", "mean", "view")
CHOICES = {
    "positive": ("sampled", "expected", *BRANCHES),
    "exclude": ("none", "self", "image"),
    "positive_mean": ("row", "positives"),
    "draw": ("au", "label", "anchor"),
    "reduction": ("mean", "none"),
    "implementation": ("auto", "reference"),
}


def traced() -> bool:
    """Whether torch.compile or a transform of torch.func looks at the operations: then no tensor has values."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def readable(values: Tensor) -> bool:
    """Whether the host can read a tensor at once: it neither waits for a device nor is traced."""
    return values.device.type == "cpu" and not traced()


def check_options(**options: Any) -> None:
    """Check all that can be checked before the data is there, so that a module with a wrong option is never built.

    Raises:
        UsageError: a keyword option of one of the losses has a wrong value.
    """
    for name, allowed in CHOICES.items():
        if name in options and options[name] not in allowed:
            raise UsageError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {options[name]!r}")
    tau, pair = options.get("temperature", 1), options.get("exponents", (1, 1))
    probs, size = options.get("positive_probs", (0, 0, 1)), options.get("chunk_size")
    if not (_numbers([tau]) and tau > 0):
        remedy = "; it is not learned: pass a float" if isinstance(tau, Tensor) else ""
        raise UsageError(f"temperature: expected a positive number, got {tau!r}{remedy}")
    if not (_numbers(pair) and (isinstance(pair, Tensor) or len(pair) == 2)):
        raise UsageError(f"exponents: expected a pair of numbers (absent, present) or a tensor (K, 2), got {pair!r}")
    if "exponents" in options and (largest := _largest(pair)) > 700 * tau:
        raise UsageError(f"temperature, exponents: expected e / tau of 700 at most, got {largest:g} / {tau:g}")
    for name in ("au_weights", "label_weights"):
        if options.get(name) is not None and not _numbers(options[name], 0):
            raise UsageError(f"{name}: expected (K,) numbers, 0 or more, got {options[name]!r}")
    if options.get("au_weights") is not None and options.get("label_weights") is not None:
        raise UsageError("au_weights, label_weights: expected one of the two names, got both")
    for name in ("normalize_weights", "detach_weights"):
        if not isinstance(options.get(name, False), bool):
            raise UsageError(f"{name}: expected True or False, got {options[name]!r}")
    if not (
        isinstance(probs, Sequence)
        and _numbers(probs)
        and len(probs) == 3
        and min(probs) >= 0
        and abs(sum(probs) - 1) < 1e-6
    ):
        raise UsageError(f"positive_probs: expected 3 probabilities of max, mean, view with sum 1, got {probs!r}")
    if size is not None and not (type(size) is int and size > 0):
        raise UsageError(f"chunk_size: expected a positive integer or None, got {size!r}")


def check_embeddings(z: Tensor, views: tuple[int, ...] = (1, 2)) -> None:
    """Check that z is (V, B, K, D) with one of the numbers of `views`.

    Raises:
        UsageError: it is not.
    """
    expected = f"z: expected a float tensor (V={' or '.join(map(str, views))}, B, K, D), no axis empty"
    if not isinstance(z, Tensor):
        raise UsageError(f"{expected}, got {type(z).__name__}")
    if z.ndim != 4 or z.shape[0] not in views or 0 in z.shape or not z.is_floating_point():
        remedy = "a single view f (B, K, D) is f[None], one vector for all labels f[:, :, None].expand(-1, -1, K, -1)"
        raise UsageError(f"{expected}, got {z.dtype} {tuple(z.shape)}; {remedy}")


def read_labels(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Which rows of the stacked views of z (V, B, K, D) have each AU, and which are known, from labels (B, K).

    Returns:
        Present and known, bool (K, N) each, on the device of z; and whether all are known, False where the host would
        have to wait to know.

    Raises:
        UsageError: wrong type, shape or value.
    """
    views, images, aus, _ = z.shape
    expected = f"labels: expected numbers (B, K) = {(images, aus)}"
    if not isinstance(labels, Tensor):
        remedy = "without labels use infonce" if labels is None else "try torch.as_tensor"
        raise UsageError(f"{expected}, got {type(labels).__name__}; {remedy}")
    if labels.shape != (images, aus) or labels.is_complex():
        raise UsageError(f"{expected}, got {labels.dtype} {tuple(labels.shape)}")
    all_known = readable(labels) and bool(((labels == 0) | (labels == 1)).all())
    if readable(labels) and not all_known:
        # in uint8, 255 == -1
        meant = (labels == 0) | (labels == 1) | labels.isnan() | ((labels < 0) & (labels == -1))  # (B, K)
        if not meant.all():
            got = sorted({*labels[~meant].tolist()})
            raise UsageError(f"labels: expected 1 present, 0 absent, -1 or NaN unknown, got {got}")
    y = labels.to(z.device, non_blocking=True).T.repeat(1, views)  # (K, N)
    return y == 1, (y == 0) | (y == 1), all_known


def precision(z: Tensor, temperature: float, exponents: Floats = (1.0, 1.0)) -> torch.dtype:
    """What logits are computed in: float32 at least.

    Exponentials of e / tau and -e / tau leave float32 from 87 on: from 80 on float64 takes its place. Exponents in a
    tensor that cannot be read are taken to be 2 at most.
    """
    return torch.promote_types(z.dtype, torch.float32 if _largest(exponents) <= 80 * temperature else torch.float64)


def anchor_exponents(exponents: Floats, present: Tensor, dtype: torch.dtype) -> Tensor:
    """The exponent of each anchor's label, (K, N), from a pair (absent, present) or a tensor (K, 2).

    Raises:
        UsageError: the tensor has another shape.
    """
    if not isinstance(exponents, Tensor):
        # filled on the device: a copy from the host would wait for the GPU
        absent, of_present = (torch.full((), float(e), dtype=dtype, device=present.device) for e in exponents)
        return torch.where(present, of_present, absent)  # (K, N)
    shape = (len(present), 2)
    if exponents.shape != shape:
        raise UsageError(f"exponents: expected a pair or a tensor (K, 2) = {shape}, got {tuple(exponents.shape)}")
    absent, of_present = exponents.to(present.device, dtype).unsqueeze(1).unbind(-1)  # (K, 1) each
    return torch.where(present, of_present, absent)  # (K, N)


def branch_shares(
    e: Tensor,
    *,
    positive: str,
    probs: Sequence[float],
    draw: str,
    branch: Ints | None,
    generator: Generator | None,
) -> dict[str, Tensor]:
    """The share (K, N), as e, of each branch in the loss of each anchor; one without any share is left out.

    Raises:
        UsageError: `branch` or `generator` is not what `aunce_loss` expects.
    """
    aus, rows = e.shape
    if branch is not None and positive != "sampled":
        raise UsageError(f"branch: expected positive='sampled', whose draw it replaces, got positive={positive!r}")
    if positive != "sampled":
        fixed = probs if positive == "expected" else [float(kind == positive) for kind in BRANCHES]
        return {kind: torch.full_like(e, p) for kind, p in zip(BRANCHES, fixed, strict=True) if p > 0}
    if branch is not None:
        try:
            drawn = torch.as_tensor(branch).cpu()[..., None]  # (K, 1)
        except (TypeError, ValueError):
            drawn = torch.empty(0)
        if drawn.shape != (aus, 1) or not {*drawn.flatten().tolist()} <= {0, 1, 2}:
            raise UsageError(f"branch: expected (K,) = ({aus},) of 0 max, 1 mean, 2 view, got {branch}")
    elif not isinstance(generator, Generator) or generator.device.type != "cpu":
        got = f"one on {generator.device}" if isinstance(generator, Generator) else generator
        expected = "a CPU torch.Generator or branch=, since positive='sampled' draws from nothing else"
        raise UsageError(f"generator: expected {expected}, got {got}; try torch.Generator().manual_seed(0)")
    else:
        shape = (aus, rows if draw == "anchor" else 1)
        u = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
        drawn = (u >= probs[0]).int() + (u >= probs[0] + probs[1])
    taken = {kind: drawn == b for b, kind in enumerate(BRANCHES)}  # (K, 1) or (K, N) each
    return {kind: is_it.to(e, non_blocking=True).expand(aus, rows) for kind, is_it in taken.items() if is_it.any()}


def anchor_spans(z: Tensor, anchors: slice | None) -> tuple[slice, ...]:
    """The rows of the anchors in the stacked views of z (V, B, K, D): one span if all images are anchors, else V.

    Raises:
        UsageError: `anchors` is not a slice of neighbours.
    """
    if anchors is not None and not (isinstance(anchors, slice) and anchors.step in (None, 1)):
        raise UsageError(f"anchors: expected a slice of images without a step, got {anchors!r}")
    views, images = z.shape[:2]
    first, last, _ = (anchors or slice(None)).indices(images)
    if (first, last) == (0, images):
        return (slice(0, views * images),)
    return tuple(slice(view * images + first, view * images + last) for view in range(views))


def cut(spans: tuple[slice, ...], chunk_size: int | None) -> tuple[slice, ...]:
    """The spans in pieces of at most `chunk_size` rows; None leaves them whole."""
    if chunk_size is None:
        return spans
    pieces = [
        slice(start, min(start + chunk_size, span.stop))
        for span in spans
        for start in range(span.start, max(span.stop, span.start + 1), chunk_size)
    ]
    return tuple(pieces)


def count_same(present: Tensor, n_known: Tensor) -> Tensor:
    """The known rows with the label of each anchor, itself included, (K, N) from present (K, N) and a count (K, 1)."""
    n_present = present.sum(1, keepdim=True)  # (K, 1)
    return torch.where(present, n_present, n_known - n_present)  # (K, N)


@dataclass(frozen=True)
class Plan:
    """What a kernel needs besides the embeddings; N = V * B rows. Nothing here has a gradient.

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

    @cached_property
    def by_label(self) -> list[tuple[Tensor, int, int]]:
        """Of each AU the rows (N,), those without it, with it and unknown; and how many are without it and with it."""
        label = torch.where(self.known, self.present.to(torch.uint8), 2)  # (K, N)
        counts = (self.known & ~self.present).sum(1).tolist(), self.present.sum(1).tolist()
        return list(zip(label.argsort(dim=1, stable=True), *counts, strict=True))

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


def row_norms(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Lengths (..., 1) of rows (..., D), also where the squares leave float32 (derived)."""
    norm: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=dtype)
    if readable(norm) and not norm.isinf().any():
        return norm
    wide = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float64)
    return torch.where(norm.isinf(), wide.to(dtype), norm)


def shortest(z: Tensor) -> float:
    """Vectors up to this length are not normalised, so that the gradient of others fits the dtype of z."""
    return float(torch.finfo(z.dtype).tiny ** 0.5)


def unit_rows(z: Tensor, known: Tensor, dtype: torch.dtype) -> Tensor:
    """Unit vectors (K, N, D) of z (V, B, K, D), or (V, B, 1, D) for all AUs; zero where unknown.

    The gradient by z is contiguous: collectives over processes read it as it lies in memory.
    """
    x = torch.cat([view.transpose(0, 1) for view in z], dim=1).to(dtype)  # (K, N, D)
    x = torch.where(known[..., None], x, 0)  # (K, N, D): no NaN of an unknown image reaches the gradient of others
    norm = row_norms(x, dtype)  # (K, N, 1)
    return x / norm.masked_fill(norm <= shortest(z), 1)


def masked_lse(values: Tensor, keep: Tensor) -> Tensor:
    """logsumexp (K, A) of the values (K, A, N) to keep; of none, a large negative number with a finite gradient."""
    return torch.where(keep, values, torch.finfo(values.dtype).min / 4).logsumexp(-1)  # (K, A)


def keep_in_graph(losses: Tensor, x: Tensor) -> Tensor:
    """Losses (K, A) of rows x (K, A, D), so that those without a term have a gradient of 0 and pass on a NaN."""
    return losses + 0 * x.sum(-1)  # (K, A)


def reduce_losses(blocks: Sequence[Tensor], divisor: Tensor | int, reduction: str) -> Tensor:
    """The losses (K, A) of all blocks, or for "mean" their sum over anchors by `divisor` (K,), averaged over AUs."""
    if reduction == "none":
        return torch.cat([*blocks], dim=1)  # (K, A)
    total = torch.stack([losses.sum(1) for losses in blocks]).sum(0)  # (K,)
    return (total / divisor).mean()


def _largest(exponents: Floats) -> float:
    """The largest of 1 and the exponents by size, see `precision`."""
    if not isinstance(exponents, Tensor):
        return max([1.0, *(abs(float(e)) for e in exponents)])
    return max(1.0, exponents.abs().max().item()) if readable(exponents) and exponents.numel() else 2.0


def _numbers(values: Any, least: float = -math.inf) -> bool:
    """Whether all values are finite numbers, `least` or more; a tensor that cannot be read is not checked."""
    if isinstance(values, Tensor):
        return not readable(values) or bool((values.isfinite() & (values >= least)).all())
    return isinstance(values, Sequence) and all(
        isinstance(v, numbers.Real) and not isinstance(v, bool) and math.isfinite(v) and float(v) >= least
        for v in values
    )
