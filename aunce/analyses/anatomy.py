"""The anatomy: what the loss computes, before anything is trained.

Every statement is a computation on `aunce.losses` with embeddings that are made up: a random model (`embeddings`) says
how alike two views of an image, two images with the same label and two with different labels are. What an encoder
makes of real or rendered faces is measured elsewhere.

Words: the force between anchor i and row j is the derivative of the anchor's loss by their cosine. A positive force
repels, a negative one attracts. r = N / (P + N) = 1 - exp(-loss) is the weight of an anchor: it scales all its forces.
*Released* is the code of Ziqiao-Shang/AUNCE at commit bade385, in the reading of `aunce.losses`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from aunce.data import bp4d
from aunce.losses import BRANCHES, AUNCELoss, aunce_loss, infonce, own_view_share, supcon
from aunce.report import figures, findings, page
from aunce.report.claims import load_claims

if TYPE_CHECKING:
    from IPython.display import Markdown

TAU, IMAGES, CHANNELS = 0.5, 32, 256  # the released temperature and batch; width of the made-up embeddings
PROBS = (0.2, 0.6, 0.2)  # released probabilities of max, mean and view
EXPONENTS = {"released": (0.8, 1.2), "equal": (1.0, 1.0), "early": (0.4, 1.2), "swapped": (1.2, 0.8)}

STATES: Mapping[str, tuple[float, float, float]] = {
    "labels not seen": (0.8, 0.4, 0.4),
    "labels half seen": (0.8, 0.5, 0.2),
    "labels separated": (0.95, 0.85, 0.05),
}
"""Name -> expected cosine of two views of an image, of two images with the same label, and with different labels."""


# ------------------------------------------------------------------------------------------------ made-up embeddings


def occurrence(present: int, images: int = IMAGES) -> Tensor:
    """Labels (B, 1) of one AU: the first `present` images carry it."""
    return (torch.arange(images) < present).to(torch.int8)[:, None]  # (B, 1)


def embeddings(
    labels: Tensor, *, view: float, same: float, other: float, channels: int = CHANNELS, seed: int = 0
) -> Tensor:
    """Unit vectors from a random model whose expected cosines are given (up to noise of 1 / sqrt(channels)).

    A vector is the sum of independent Gaussian vectors: one that all rows share, one of its label, one of its image and
    one of its view, with variances other, same - other, view - same and 1 - view.

    Args:
        labels: (B, K) of 0 and 1.
        view: cosine of two views of one image, at most 1.
        same: cosine of two images with the same label, at most `view`.
        other: cosine of two images with different labels, at most `same`, at least 0.
        channels: D.
        seed: of the random vectors.

    Returns:
        (V=2, B, K, D), float64.
    """
    generator = torch.Generator().manual_seed(seed)
    b, k = labels.shape
    common, of_label, of_image, of_view = (
        torch.randn(*shape, k, channels, generator=generator, dtype=torch.float64) for shape in ((), (2,), (b,), (2, b))
    )
    of_label = of_label[labels.long(), torch.arange(k)]  # (B, K, D)
    z = (
        math.sqrt(other) * common
        + math.sqrt(same - other) * of_label
        + math.sqrt(view - same) * of_image
        + math.sqrt(1 - view) * of_view
    )  # (2, B, K, D)
    return F.normalize(z, dim=-1)


def state(name: str, labels: Tensor, **options: Any) -> Tensor:
    """`embeddings` of one of `STATES`."""
    view, same, other = STATES[name]
    return embeddings(labels, view=view, same=same, other=other, **options)


def clusters(labels: Tensor, between: float) -> Tensor:
    """Unit vectors (2, B, 1, D=2) with a cosine of 1 within a label and of `between` from one label to the other."""
    present = labels[None, :, :, None].double().expand(2, -1, -1, -1)  # (2, B, 1, 1)
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    second = torch.tensor([between, math.sqrt(1 - between**2)], dtype=torch.float64)
    return present * first + (1 - present) * second  # (2, B, 1, 2)


def presets(positive: str = "expected") -> dict[str, dict[str, Any]]:
    """Name -> options of the loss for each preset, with one kind of positive. The AU weights of `early` are 1 here."""
    early = AUNCELoss.early(au_weights=[1.0], positive=positive)
    built = {"released": AUNCELoss.released(positive=positive), "early": early}
    built |= {"as_read": AUNCELoss.as_read(positive=positive), "hcl": AUNCELoss.hcl(positive=positive)}
    return {name: loss.options for name, loss in built.items()}


def anchor_losses(z: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The losses (2B,) of the anchors of one AU; z (2, B, 1, D), labels (B, 1)."""
    return aunce_loss(z, labels, reduction="none", **options)[0]  # (2B,)


# ------------------------------------------------------------------------------------------------------------ values


def closed_form(
    positive: str, *, present: int, images: int, between: float, temperature: float = TAU, **options: Any
) -> tuple[float, float]:
    """The loss of an absent and of a present anchor by hand: cosines are 1 within a label and `between` otherwise.

    log(1 + n exp(e between / tau) / P) with P = exp(1 / tau), times positives / rows for the mean over the row; weights
    that are divided by their mean are all 1 here, so that e is 1.

    Args:
        positive: a branch or "expected".
        present: images with the AU.
        images: B.
        between: cosine from one label to the other.
        temperature: tau.
        options: of `aunce_loss`.
    """
    exponents = (1.0, 1.0) if options.get("normalize_weights") else options.get("exponents", EXPONENTS["released"])
    values = []
    for own, e in ((images - present, exponents[0]), (present, exponents[1])):
        log_n = math.log(2 * (images - own)) + e * between / temperature
        taken = {"none": 0, "self": 1, "image": 2}[options.get("exclude", "none")]
        row = options.get("positive_mean", "row") == "row"
        log_p = {"max": 0.0, "mean": math.log((2 * own - taken) / (2 * images)) if row else 0.0, "view": 0.0}
        loss = {kind: math.log1p(math.exp(log_n - log_p[kind] - 1 / temperature)) for kind in BRANCHES}
        loss["expected"] = sum(p * loss[kind] for p, kind in zip(PROBS, BRANCHES, strict=True))
        values.append(loss[positive])
    return values[0], values[1]


@cache
def values(present: int = 6) -> pd.DataFrame:
    """The mean loss over the anchors of a batch by preset and kind of positive, computed and by hand.

    Returns:
        One row per preset and positive: equal, orthogonal, opposite (all cosines 1; labels at a right angle; labels
        opposite), random (independent vectors), and `error`, the largest distance from the closed form.
    """
    labels = occurrence(present)
    share = present / IMAGES
    between = {"equal": 1.0, "orthogonal": 0.0, "opposite": -1.0}
    rows = []
    for positive in (*BRANCHES, "expected"):
        for preset, options in presets(positive).items():
            row: dict[str, Any] = {"preset": preset, "positive": positive}
            error = 0.0
            for name, cosine in between.items():
                row[name] = anchor_losses(clusters(labels, cosine), labels, **options).mean().item()
                rest = {key: value for key, value in options.items() if key not in ("positive", "au_weights")}
                absent, own = closed_form(positive, present=present, images=IMAGES, between=cosine, **rest)
                error = max(error, abs(row[name] - (1 - share) * absent - share * own))
            z = embeddings(labels, view=0, same=0, other=0)
            rows.append(row | {"random": anchor_losses(z, labels, **options).mean().item(), "error": error})
    return pd.DataFrame(rows)


def floors(
    temperatures: Sequence[float] = (0.1, 0.5, 1.0),
    batches: Sequence[int] = (32, 128),
    rates: Sequence[float] = (0.5, 0.25, 0.0625),
) -> pd.DataFrame:
    """The smallest loss of a present anchor (released, mean branch), and the gradient that is left there.

    No cosine can be better than 1 to all positives, and 0 (after a ReLU) or -1 (without) to all negatives.

    Returns:
        One row per temperature, batch, prevalence and `between` (0 or -1): loss, weight r, and force, the length of the
        gradient of the anchor's loss by its own embedding.
    """
    rows = []
    for tau, images, rate, between in itertools.product(temperatures, batches, rates, (0.0, -1.0)):
        labels = occurrence(round(rate * images), images)
        z = clusters(labels, between).requires_grad_()
        loss = anchor_losses(z, labels, positive="mean", temperature=tau)[0]
        (gradient,) = torch.autograd.grad(loss, z)
        force = gradient[0, 0, 0].norm().item()
        fields = {"tau": tau, "images": images, "prevalence": rate, "between": between}
        rows.append(fields | {"loss": loss.item(), "weight": 1 - math.exp(-loss.item()), "force": force})
    return pd.DataFrame(rows)


class Smallest(NamedTuple):
    """What a final ReLU leaves (see `smallest`)."""

    feature: float
    cosine: float


@cache
def smallest(final_relu: bool) -> Smallest:
    """The smallest feature of the small encoder, and the smallest cosine of vectors that end with or without a ReLU.

    Returns:
        feature: smallest entry of what the encoder, with random weights, makes of random images.
        cosine: smallest between 500 random vectors of 4 channels, so few that all directions occur.
    """
    from aunce.model import build_encoder

    generator = torch.Generator().manual_seed(0)
    encoder = build_encoder("small", aus=12, channels=64, seed=0, final_relu=final_relu)
    with torch.no_grad():
        features = encoder(torch.rand(16, 3, 48, 48, generator=generator))  # (B, K, D)
    x = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    x = F.normalize(F.relu(x) if final_relu else x, dim=-1)
    return Smallest(float(features.min()), float((x @ x.T).min()))


# ------------------------------------------------------------------------------------------------------------ forces


def anchor_gradients(z: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The gradient of each anchor's loss by each row: (2B, 2B, D) for z (2, B, 1, D) and labels (B, 1)."""
    z = F.normalize(z.detach().double(), dim=-1).requires_grad_()
    return _jacobian(anchor_losses(z, labels, **options), z)


def _jacobian(losses: Tensor, z: Tensor) -> Tensor:
    """The gradient (2B, 2B, D) of each of the losses (2B,) by the rows of z (2, B, 1, D)."""
    each = [torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses]  # (2, B, 1, D) each
    return torch.stack(each).flatten(1, 3)  # (2B, 2B, D)


def pair_forces(z: Tensor, labels: Tensor, gradients: Tensor | None = None, **options: Any) -> Tensor:
    """The force of each row on each anchor, read off the gradients of `aunce_loss`.

    A row j other than the anchor enters the loss of anchor i by their cosine c alone, so its gradient is
    force (x_i - c x_j), and the force is its product with x_i over 1 - c^2. The anchor's cosine with itself is 1
    whatever happens: no force.

    Args:
        z: (2, B, 1, D), no two rows alike.
        labels: (B, 1).
        gradients: `anchor_gradients`, if they are there already.
        options: of `aunce_loss`.

    Returns:
        (2B, 2B), per unit of cosine.
    """
    x = F.normalize(z.detach().double(), dim=-1).flatten(0, 2)  # (2B, D)
    if gradients is None:
        gradients = anchor_gradients(z, labels, **options)  # (2B, 2B, D)
    forces = torch.einsum("ijd,id->ij", gradients, x) / (1 - (x @ x.T) ** 2)  # (2B, 2B)
    return forces.fill_diagonal_(0)


def reference_forces(z: Tensor, labels: Tensor, method: str, temperature: float = TAU) -> Tensor:
    """The same for "infonce" or "supcon", by hand: (softmax over all other rows - share in the positives) / tau."""
    x = F.normalize(z.detach().double(), dim=-1).flatten(0, 2)  # (2B, D)
    kinds = _kinds(labels)
    q = (x @ x.T / temperature).fill_diagonal_(-torch.inf).softmax(-1)  # (2B, 2B)
    positive = (kinds == 1) if method == "infonce" else (kinds == 1) | (kinds == 2)
    return (q - positive.double() / positive.sum(1, keepdim=True)) / temperature


def _kinds(labels: Tensor) -> Tensor:
    """(2B, 2B): 0 the anchor, 1 its own other view, 2 another image with its label, 3 a negative."""
    y = labels[:, 0].repeat(2)  # (2B,)
    image = torch.arange(len(labels)).repeat(2)  # (2B,)
    kinds = torch.where(y[:, None] == y, 2, 3)
    kinds[image[:, None] == image] = 1
    return kinds.fill_diagonal_(0)


def split(forces: Tensor, labels: Tensor) -> dict[str, float]:
    """Forces on an anchor by where they come from, averaged over anchors: attraction as a negative number.

    Returns:
        own view, same label, negatives (sums); pull (sum of what attracts); of_negatives (share of negatives in the sum
        of what repels).
    """
    kinds = _kinds(labels)
    total = {
        name: torch.where(kinds == kind, forces, 0).sum().item() / len(forces)
        for kind, name in ((1, "own view"), (2, "same label"), (3, "negatives"))
    }
    push = forces.clamp(min=0)
    share = torch.where(kinds == 3, push, 0).sum() / push.sum()
    return total | {"pull": forces.clamp(max=0).sum().item() / len(forces), "of_negatives": share.item()}


@cache
def branch_forces(name: str = "labels half seen", present: int = 6) -> pd.DataFrame:
    """Forces by loss and kind of positive: own view, same label, negatives (see `split`), and their sum `surplus`."""
    labels = occurrence(present)
    z = state(name, labels)
    rows = [
        {"loss": preset, "positive": positive} | split(pair_forces(z, labels, None, **options), labels)
        for preset in ("released", "as_read")
        for positive in (*BRANCHES, "expected")
        for options in (presets(positive)[preset],)
    ]
    for method, positive in (("supcon", "mean of logs"), ("infonce", "view")):
        rows.append({"loss": method, "positive": positive} | split(reference_forces(z, labels, method), labels))
    table = pd.DataFrame(rows)
    return table.assign(surplus=table[["own view", "same label", "negatives"]].sum(axis=1))


class MaxBranch(NamedTuple):
    """What the max branch does to positives (see `max_branch`)."""

    attraction: float
    remainder: float
    losses_error: float


@cache
def max_branch(exclude: str, present: int = 6) -> MaxBranch:
    """How much the max branch attracts.

    Returns:
        attraction: the sum of all forces from positives, as a size, per anchor.
        remainder: the largest part of an anchor's own gradient that its negatives do not explain.
        losses_error: the largest distance of its losses from those of a constant positive score exp(1 / tau).
    """
    labels = occurrence(present)
    z = state("labels half seen", labels)
    options: dict[str, Any] = {"positive": "max", "exclude": exclude}
    forces = pair_forces(z, labels, None, **options)
    negatives = torch.where(_kinds(labels) == 3, forces, 0)  # (2B, 2B)
    x = z.flatten(0, 2)  # (2B, D)
    cosines = x @ x.T
    explained = negatives @ x - (negatives * cosines).sum(1, keepdim=True) * x  # (2B, D)
    own = anchor_gradients(z, labels, **options).diagonal(dim1=0, dim2=1).T  # (2B, D)
    absent, own_label = (torch.tensor(e, dtype=torch.float64) for e in EXPONENTS["released"])
    e = torch.where(labels[:, 0] == 1, own_label, absent).repeat(2)[:, None]  # (2B, 1)
    log_n = torch.where(_kinds(labels) == 3, e * cosines / TAU, -torch.inf).logsumexp(1)
    distance = anchor_losses(z, labels, **options) - F.softplus(log_n - 1 / TAU)
    attraction = (forces - negatives).abs().sum().item() / len(forces)
    return MaxBranch(attraction, (own - explained).abs().max().item(), distance.abs().max().item())


@cache
def own_view_shares(seeds: int = 20) -> pd.DataFrame:
    """`losses.own_view_share` averaged over batches: a row per view cosine, a column per cosine of the same label."""
    sames, views = (0.2, 0.4, 0.6, 0.8), (0.4, 0.6, 0.7, 0.8, 0.9)
    labels = occurrence(6)

    def share(view: float, same: float, seed: int) -> float:
        return own_view_share(embeddings(labels, view=view, same=same, other=0, seed=seed), labels)

    rows: list[dict[Any, float]] = [
        {"view": view}
        | {
            same: float(np.mean([share(view, same, seed) for seed in range(seeds)])) if same <= view else np.nan
            for same in sames
        }
        for view in views
    ]
    return pd.DataFrame(rows)


@cache
def mean_divisors(images: int = 100) -> pd.DataFrame:
    """D2: the mean over the row against the mean over the positives, everything else equal (self kept in both).

    Returns:
        One row per state, temperature and prevalence: shift (log of positives / rows of a present anchor), weight_row
        and weight_positives (mean r of present anchors), absent_row and absent_positives (of absent ones), share_row
        and share_positives (share of present anchors in the sum of all r), error (largest distance from the shift, over
        anchors, in log N / P).
    """
    rows = []
    cases = (("labels not seen", 0.5), ("labels separated", 0.5), ("labels separated", 0.1))
    for (name, tau), rate in itertools.product(cases, (0.5, 0.1, 0.02)):
        labels = occurrence(round(rate * images), images)
        present = labels[:, 0].repeat(2) == 1
        z = state(name, labels)
        row: dict[str, Any] = {"state": name, "tau": tau, "prevalence": rate, "shift": math.log(rate)}
        odds = {}
        for divisor in ("row", "positives"):
            losses = anchor_losses(z, labels, positive="mean", positive_mean=divisor, temperature=tau)
            weights = 1 - (-losses).exp()
            odds[divisor] = losses.expm1().log()  # log N / P
            row[f"weight_{divisor}"], row[f"absent_{divisor}"] = (
                weights[kind].mean().item() for kind in (present, ~present)
            )
            row[f"share_{divisor}"] = (weights[present].sum() / weights.sum()).item()
        share = present.double().mean()
        shift = torch.where(present, share.log(), (1 - share).log())  # (2B,)
        row["error"] = (odds["positives"] - odds["row"] - shift).abs().max().item()
        rows.append(row)
    return pd.DataFrame(rows)


@cache
def draws(name: str = "labels half seen", present: int = 6) -> pd.DataFrame:
    """D3: the gradient by all embeddings under three ways of choosing the kind of positive, exactly (no sampling).

    With gradients g_ib of anchor i under branch b, one draw per AU has the variance sum_b p_b |sum_i (g_ib - g_i)|^2
    and one per anchor sum_i sum_b p_b |g_ib - g_i|^2, where g_i = sum_b p_b g_ib; "expected" has none.

    Returns:
        One row per way: noise (standard deviation over the length of the expected gradient), variance, distance (of
        the expected gradient from that of `positive="expected"`, relative).
    """
    labels = occurrence(present)
    z = state(name, labels)
    each = torch.stack([anchor_gradients(z, labels, positive=kind).flatten(1) for kind in BRANCHES])  # (3, 2B, 2B * D)
    p = torch.tensor(PROBS, dtype=torch.float64)[:, None, None]
    mean = (p * each).sum(0)  # (2B, 2B * D)
    expected = anchor_gradients(z, labels, positive="expected").flatten(1).sum(0)
    distance = ((mean.sum(0) - expected).norm() / expected.norm()).item()
    size = expected.norm().item()
    variance = {
        "once per AU and batch": (p[:, 0] * (each - mean).sum(1) ** 2).sum().item(),
        "once per anchor": (p * (each - mean) ** 2).sum().item(),
        "expected": 0.0,
    }
    return pd.DataFrame(
        [
            {"way": way, "noise": math.sqrt(value) / size, "variance": value, "distance": distance}
            for way, value in variance.items()
        ]
    )


def anchors_share_a_draw(trials: int = 30) -> float:
    """The share of AUs in released draws whose anchors all took the same branch, told from their losses."""
    labels = occurrence(6).expand(-1, 12)
    z = state("labels half seen", labels)
    forced = torch.stack([aunce_loss(z, labels, positive=kind, reduction="none") for kind in BRANCHES])  # (3, K, 2B)
    loss = AUNCELoss.released(reduction="none")
    generator = torch.Generator().manual_seed(0)
    same = []
    for _ in range(trials):
        drawn = loss(z, labels, generator=generator)  # (K, 2B)
        branch = (drawn - forced).abs().argmin(0)  # (K, 2B)
        same.append((branch == branch[:, :1]).all(1).double().mean().item())
    return float(np.mean(same))


class Denominators(NamedTuple):
    """D6: denominators of the same anchors (see `denominators`)."""

    kept: float
    same_as_simclr: float


def denominators(name: str = "labels half seen", present: int = 6) -> Denominators:
    """What is left of the denominator of SimCLR and SupCon in AUNCE, equal exponents and the same positive (own view).

    Returns:
        kept: geometric mean over anchors of AUNCE's P + N as a share of the sum over all other rows.
        same_as_simclr: distance between the denominators of `supcon` and `infonce`, mean of logs.
    """
    labels = occurrence(present)
    z = state(name, labels)
    simclr = infonce(z, TAU).item()
    kept = aunce_loss(z, labels, positive="view", exponents=(1.0, 1.0)).item() - simclr
    x = z.flatten(0, 2)
    kinds, logits = _kinds(labels), x @ x.T / TAU
    pull = {
        name: (torch.where(mask, logits, 0).sum(1) / mask.sum(1)).mean().item()
        for name, mask in (("supcon", (kinds == 1) | (kinds == 2)), ("infonce", kinds == 1))
    }
    distance = supcon(z, labels, TAU).item() + pull["supcon"] - simclr - pull["infonce"]
    return Denominators(math.exp(kept), abs(distance))


@cache
def gradient_cosines(present: int = 6) -> pd.DataFrame:
    """Cosine between the gradients (by all embeddings) of AUNCE and its neighbours, one row per state and AUNCE."""
    labels = occurrence(present)
    rows = []
    for name in STATES:
        z = state(name, labels)
        others = {"SupCon": _gradient(lambda z: supcon(z, labels, TAU), z), "InfoNCE": _gradient(_infonce, z)}
        for shown, options in {
            "released, view, exponents (1, 1)": {"positive": "view", "exponents": (1.0, 1.0)},
            "released, expected": presets()["released"],
            "as_read, expected": presets()["as_read"],
        }.items():
            own = _gradient(lambda z, options=options: aunce_loss(z, labels, **options), z)
            cosines = {other: F.cosine_similarity(own, g, dim=0).item() for other, g in others.items()}
            rows.append({"state": name, "loss": shown} | cosines)
    return pd.DataFrame(rows)


def _infonce(z: Tensor) -> Tensor:
    return infonce(z, TAU)


def _gradient(loss: Any, z: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z), z)
    return gradient.flatten()


# --------------------------------------------------------------------------------------------------------- exponents


@cache
def steps(name: str = "labels half seen", images: int = 40) -> pd.DataFrame:
    """How long the step of a present and of an absent anchor is, by exponents.

    Returns:
        One row per prevalence, preset of exponents and normalisation: ratio (mean length of the gradient of a present
        anchor's loss by all embeddings, over that of an absent anchor), ratio_own (by its own embedding alone),
        share (of present anchors in the sum of lengths), push_absent and push_present (repulsion over attraction).
    """
    rows = []
    for rate, (label, exponents), normalised in itertools.product((0.5, 0.1), EXPONENTS.items(), (False, True)):
        labels = occurrence(round(rate * images), images)
        present = labels[:, 0].repeat(2) == 1
        z = state(name, labels, channels=64)
        options = presets()["hcl" if normalised else "as_read"] | {"exponents": exponents}
        gradients = anchor_gradients(z, labels, **options)  # (2B, 2B, D)
        lengths = gradients.flatten(1).norm(dim=1)  # (2B,)
        own = gradients.diagonal(dim1=0, dim2=1).norm(dim=0)  # (2B,)
        forces = pair_forces(z, labels, gradients)  # (2B, 2B)
        push = forces.clamp(min=0).sum(1) / -forces.clamp(max=0).sum(1)  # (2B,)
        rows.append(
            {
                "prevalence": rate,
                "exponents": label,
                "normalised": normalised,
                "ratio": (lengths[present].mean() / lengths[~present].mean()).item(),
                "ratio_own": (own[present].mean() / own[~present].mean()).item(),
                "share": (lengths[present].sum() / lengths.sum()).item(),
                "push_absent": push[~present].mean().item(),
                "push_present": push[present].mean().item(),
            }
        )
    return pd.DataFrame(rows)


def exponent_is_temperature(exponent: float, temperature: float = TAU) -> float:
    """Largest distance, over anchors, between log N at (e, tau) and log N at (1, tau / e): 0 by theory."""
    labels = occurrence(6)
    z = state("labels half seen", labels)
    x = z.flatten(0, 2)
    view = (x * x.roll(IMAGES, dims=0)).sum(1)  # (2B,) cosine with the own other view
    log_n = [
        anchor_losses(z, labels, positive="view", exponents=(e, e), temperature=tau).expm1().log() + view / tau
        for e, tau in ((exponent, temperature), (1.0, temperature / exponent))
    ]
    return (log_n[0] - log_n[1]).abs().max().item()


def frequent_aus() -> list[str]:
    """AUs of BP4D that are present in more than half of the frames, averaged over the three parts (published rates)."""
    mean = pd.DataFrame(bp4d.RATES).mean(axis=1)
    return [f"AU{au} ({100 * rate:.0f} %)" for au, rate in mean.items() if rate > 0.5]


# --------------------------------------------------------------------------------------------------------- precision


def exponentiate_first(z: Tensor, labels: Tensor, temperature: float) -> float:
    """The mean branch as the formula reads, every step in the dtype of z: exponentials, powers, sums, ratio, log."""
    x = z.flatten(0, 2)  # (2B, D)
    y = labels[:, 0].repeat(2)  # (2B,)
    same = y[:, None] == y
    s = torch.exp(x @ x.T / temperature)  # (2B, 2B)
    p = (s * same).sum(1) / len(x)
    n = torch.where(y == 1, ((s**1.2) * ~same).sum(1), ((s**0.8) * ~same).sum(1))
    return -torch.log(p / (p + n)).mean().item()


@cache
def precision() -> pd.DataFrame:
    """The mean branch in half precision, exponentials first and in log space, against float64.

    Returns:
        One row per dtype and temperature: exact (the value), naive and ours (error relative to it; NaN or infinite
        where the value is).
    """
    labels = occurrence(6)
    z = state("labels half seen", labels)
    rows = []
    for dtype, tau in itertools.product(
        (torch.float16, torch.bfloat16, torch.float32), (0.5, 0.2, 0.1, 0.09, 0.07, 0.05, 0.02, 0.01)
    ):
        cast = F.normalize(z, dim=-1).to(dtype)
        exact = anchor_losses(z, labels, positive="mean", temperature=tau).mean().item()
        naive = exponentiate_first(cast, labels, tau)
        ours = anchor_losses(cast, labels, positive="mean", temperature=tau).mean().item()
        rows.append(
            {
                "dtype": str(dtype).removeprefix("torch."),
                "tau": tau,
                "exact": exact,
                "naive": abs(naive - exact) / exact,
                "ours": abs(ours - exact) / exact,
            }
        )
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------------------------- batch size


def positives(rates: Sequence[float] = (0.02, 0.05, 0.1), batches: Sequence[int] = (32, 64, 128, 256)) -> pd.DataFrame:
    """Images with a rare AU in a batch of independent frames: expected number, P(none), P(exactly one); binomial."""
    rows = [
        {
            "prevalence": rate,
            "images": images,
            "expected": rate * images,
            "none": float(stats.binom.pmf(0, images, rate)),
            "one": float(stats.binom.pmf(1, images, rate)),
        }
        for rate, images in itertools.product(rates, batches)
    ]
    return pd.DataFrame(rows)


@cache
def batch_noise(rates: Sequence[float] = (0.5, 0.05), batches: Sequence[int] = (16, 32, 64, 128)) -> pd.DataFrame:
    """Loss and gradient noise of batches drawn at random: released, expected over the branches.

    The gradient is by one matrix that all embeddings go through, the unit matrix, as different batches have different
    embeddings.

    Returns:
        One row per prevalence and batch: loss (mean), spread (standard deviation), noise (that of the gradient, over
        the length of the mean gradient), empty (share of batches with one label only, whose gradient is exactly 0).
    """
    channels, trials = 32, 40
    rows = []
    for rate, images in itertools.product(rates, batches):
        generator = torch.Generator().manual_seed(0)
        weight = torch.eye(channels, dtype=torch.float64).requires_grad_()
        losses, gradients = [], []
        for trial in range(trials):
            labels = (torch.rand(images, 1, generator=generator) < rate).to(torch.int8)
            z = _shared_clusters(labels, channels, seed=trial)
            loss = aunce_loss(z @ weight, labels, positive="expected")
            losses.append(loss.item())
            gradients.append(torch.autograd.grad(loss, weight)[0].flatten())
        g = torch.stack(gradients)  # (trials, D * D)
        noise = ((g - g.mean(0)) ** 2).sum(1).mean().sqrt() / g.mean(0).norm()
        rows.append(
            {
                "prevalence": rate,
                "images": images,
                "loss": np.mean(losses),
                "spread": np.std(losses),
                "noise": noise.item(),
                "empty": (g.abs().amax(1) == 0).double().mean().item(),
            }
        )
    return pd.DataFrame(rows)


def _shared_clusters(labels: Tensor, channels: int, seed: int) -> Tensor:
    """As "labels half seen", but the common direction and those of the labels are the same in every batch."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    view, same, other = STATES["labels half seen"]
    axes = torch.eye(3, channels, dtype=torch.float64)  # common, absent, present
    centre = math.sqrt(other) * axes[0] + math.sqrt(same - other) * axes[1 + labels[:, 0].long()]  # (B, D)
    scale = channels**-0.5
    of_image, of_view = (
        scale * torch.randn(*shape, channels, generator=generator, dtype=torch.float64)
        for shape in ((len(labels),), (2, len(labels)))
    )
    z = centre + math.sqrt(view - same) * of_image + math.sqrt(1 - view) * of_view  # (2, B, D)
    return F.normalize(z, dim=-1)[:, :, None]  # (2, B, 1, D)


# ------------------------------------------------------------------------------------------------------ unknown codes


def published_rule(z: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The losses (2B,) if every label value is a class, as released: equal values are positives, others negatives.

    The released sum over negatives is kept only for the labels 0 and 1, so that an anchor with another value has no
    negatives and a loss of 0. Put together from `aunce_loss`: to a present anchor whatever is not 1 is a negative,
    to an absent one whatever is not 0.
    """
    y = labels[:, 0].repeat(2)  # (2B,)
    for_present = anchor_losses(z, (labels == 1).to(torch.int8), **options)  # (2B,)
    for_absent = anchor_losses(z, (labels != 0).to(torch.int8), **options)  # (2B,)
    return torch.where(y == 1, for_present, torch.where(y == 0, for_absent, 0 * for_present))


@cache
def unknowns(present: int = 6, coded: int = 4) -> pd.DataFrame:
    """D16: a batch in which `coded` images, half of them truly present, carry the code 9; three ways to treat them.

    Returns:
        One row per way (9 as a class; unknown, -1; the truth): loss (mean over its anchors), repelled (pairs, anchor
        and row, that repel each other), false (those of them whose true labels are equal), from_9 (share of the
        repulsion on known anchors that comes from images coded 9), on_9 (sum of sizes of the gradients of the losses
        of anchors coded 9), cosine (of the gradient by the images whose label is known with that of the truth).
    """
    truth = occurrence(present)
    at = torch.tensor([*range(present - coded // 2, present), *range(IMAGES - coded + coded // 2, IMAGES)])
    nine, unknown = truth.clone(), truth.clone()
    nine[at], unknown[at] = 9, -1
    z = state("labels half seen", truth)
    y_true = truth[:, 0].repeat(2)
    is_9 = (nine[:, 0] == 9).repeat(2)  # (2B,)
    options = {"positive": "expected"}
    ways = {
        "9 is a class (released)": (published_rule, nine),
        "unknown (here)": (anchor_losses, unknown),
        "the true label": (anchor_losses, truth),
    }
    rows, gradients = [], {}
    x = z.flatten(0, 2)
    for way, (losses_of, labels) in ways.items():
        leaf = z.detach().requires_grad_()
        losses = losses_of(leaf, labels, **options)  # (2B,)
        jacobian = _jacobian(losses, leaf)  # (2B, 2B, D)
        forces = (torch.einsum("ijd,id->ij", jacobian, x) / (1 - (x @ x.T) ** 2)).fill_diagonal_(0)
        known = labels[:, 0].repeat(2) != -1
        gradients[way] = jacobian.sum(0)[~is_9].flatten()
        repelled = forces > 1e-12
        push = forces.clamp(min=0)[~is_9]
        rows.append(
            {
                "way": way,
                "loss": (losses.sum() / known.sum()).item(),
                "repelled": int(repelled.sum()),
                "false": int((repelled & (y_true[:, None] == y_true)).sum()),
                "from_9": (push[:, is_9].sum() / push.sum()).item(),
                "on_9": jacobian[is_9].abs().sum().item(),
            }
        )
    best = gradients["the true label"]
    cosines = [F.cosine_similarity(gradient, best, dim=0).item() for gradient in gradients.values()]
    return pd.DataFrame(rows).assign(cosine=cosines)


# -------------------------------------------------------------------------------------------------------------- costs


def costs(backbone: str, *, pixels: int, channels: int, aus: int = 12, images: int = IMAGES) -> pd.DataFrame:
    """Parameters and operations of one training step on `images` labelled images, AUNCE and binary cross-entropy (BCE).

    Operations are multiplications and additions of matrix products and convolutions, forward and backward, as torch
    counts them on tensors without values (the loss on real ones). What works element by element is not counted, except
    for the head of BCE, whose 3 x 2 B K D are added.

    Args:
        backbone: a key of `aunce.backbones.BACKBONES`.
        pixels: side of the images.
        channels: D.
        aus: K.
        images: B.

    Returns:
        One row per method ("AUNCE", "BCE, one view", "BCE, two views"): backbone, method, parameters, forward (images
        through the encoder), operations, of_loss (operations of the loss or of the head), ratio (to one-view BCE).
    """
    from torch.utils.flop_counter import FlopCounterMode

    from aunce.backbones import build_backbone
    from aunce.model import Encoder, count_operations

    with torch.device("meta"):
        encoder = Encoder(build_backbone(backbone), aus=aus, channels=channels)
        one = count_operations(encoder, images=images, pixels=pixels)
    two = 2 * one  # twice the images, twice the operations
    parameters = sum(p.numel() for p in encoder.parameters())
    z = torch.zeros(2, images, aus, channels, requires_grad=True)
    labels = (torch.arange(images)[:, None] % 2).to(torch.int8).expand(-1, aus)
    with FlopCounterMode(display=False) as counter:
        aunce_loss(z, labels, positive="expected").backward()  # type: ignore[no-untyped-call]
    of_loss = int(counter.get_total_flops())
    head = 3 * 2 * images * aus * channels
    rows = [
        ("AUNCE", parameters, 2 * images, two + of_loss, of_loss),
        ("BCE, one view", parameters + aus * (channels + 1), images, one + head, head),
        ("BCE, two views", parameters + aus * (channels + 1), 2 * images, two + 2 * head, 2 * head),
    ]
    table = pd.DataFrame(rows, columns=["method", "parameters", "forward", "operations", "of_loss"])
    table.insert(0, "backbone", backbone)
    return table.assign(ratio=table["operations"] / (one + head))


@cache
def all_costs() -> pd.DataFrame:
    """`costs` of the small backbone at 48 px and of Swin-B at 224 px, as in the paper."""
    settings = (("small", 48, 64), ("swin-base", 224, 1024))
    return pd.concat(
        [costs(name, pixels=pixels, channels=channels) for name, pixels, channels in settings], ignore_index=True
    )


def more_than(table: pd.DataFrame, column: str, other: str = "BCE, one view") -> bool:
    """Does AUNCE need more than `other` with any backbone? What is below one percent does not count as more."""
    wide = table.pivot_table(index="backbone", columns="method", values=column)
    return bool((wide["AUNCE"] > 1.01 * wide[other]).any())


# --------------------------------------------------------------------------------------------------------------- page

TITLE = "Anatomy of the loss"
QUESTION = "What does the AUNCE loss compute, and which statements about it are settled by computation alone?"
SECTIONS = {
    "values": "What the value says",
    "floors": "How low it can go",
    "forces": "What pulls and what pushes",
    "nearest": "The most similar positive",
    "divisor": "The divisor of the mean",
    "draws": "One draw for all anchors",
    "denominator": "The denominator",
    "steps": "What the exponents do",
    "precision": "Half precision",
    "batches": "Rare AUs in a batch",
    "unknowns": "The code 9",
    "costs": "Parameters and operations",
    "open": "Not decided here",
}
"""Method -> heading of its section in the notebook."""

UNDECIDED = (
    (
        "D4",
        "which exponent, .4 or .8, made a published number",
        "the sizes of the steps of both are above; the logs do not say",
    ),
    (
        "D5",
        "whether it hurts that present is not always the minority",
        "which AUs it concerns is above; what follows needs training",
    ),
    (
        "D8",
        "whether AU weights help",
        "they multiply all anchors of an AU alike, so the ratio of present to absent stays; the rest needs training",
    ),
    ("D18", "how alike neighbouring frames are", "needs frames; the data cards of rendered faces show it"),
    (
        "C3, C4, C5",
        "whether balance, kinds of positives and the share without labels help",
        "needs training: the other reports",
    ),
)
"""Claim or gap, what stays open, and what of it is known or needed."""


class Anatomy:
    """What the anatomy notebook shows, section by section.

    Args:
        out: folder that gets the figures, their data and `findings.json`; empty: figures are displayed, nothing
            is saved.
    """

    def __init__(self, *, out: str | Path = "") -> None:
        self.out = Path(out) if str(out) else None
        claims, _ = load_claims()
        self.wording = {claim.id: claim.wording for claim in claims.claim}
        self.wording |= {gap.id: gap.wording for gap in claims.gap}

    @cached_property
    def entries(self) -> list[findings.Entry]:
        """What computation decides: claim C7 and the gaps, with their numbers."""
        return [
            *(self._c7(), self._d1(), self._d2(), self._d3()),
            *(self._d6(), self._d7(), self._d16(), self._d18()),
        ]

    def title(self) -> "Markdown":
        """What is asked and found; writes `findings.json` if `out` is given."""
        holding = [entry.id for entry in self.entries if entry.verdict == "holds"]
        failing = [
            f"{entry.id} ({self.wording[entry.id].rstrip('.')})" for entry in self.entries if entry.verdict != "holds"
        ]
        ratio = _wide(steps(), "ratio")
        raw, divided = (ratio.loc[(0.5, "released"), how] / ratio.loc[(0.5, "equal"), how] for how in (False, True))
        found = (
            f"Of {len(self.entries)} statements, computation confirms {', '.join(holding) or 'none'} and refutes "
            f"{', '.join(failing) or 'none'}. Exponents of .8 and 1.2 make the step of a present anchor, relative to "
            f"that of an absent one, {raw:.2f} times as long as equal exponents do, and {divided:.2f} times if the "
            "weights are divided by their mean."
        )
        findings.write(
            self.out,
            findings.Findings(title=TITLE, question=QUESTION, found=found, kind="computation", entries=self.entries),
        )
        return page.markdown(
            f"# {TITLE}\n\n**Asked.** {QUESTION}\n\n**Found.** {found}\n\nNothing was trained and no data set read. "
            "The embeddings are made up; what an encoder makes of faces is measured in the other reports."
        )

    def verdicts(self) -> "Markdown":
        """Claims and gaps with the numbers that decide them."""
        rows = [
            [f"{entry.id}: {page.text(self.wording[entry.id])}", entry.verdict, entry.reason] for entry in self.entries
        ]
        return page.markdown(
            f"{page.table(['Claim or gap', 'Verdict', 'Why'], rows, 'lll')}\n\n"
            "Wordings are those of `notebooks/claims.toml`; those of gaps say what the release does. "
            "*Holds* says that the wording is right, not that it is good or bad for AU detection."
        )

    def _entry(self, id: str, holds: bool, section: str, reason: str, **fields: Any) -> findings.Entry:
        verdict = "holds" if holds else "does not hold"
        return findings.Entry(id=id, verdict=verdict, section=SECTIONS[section], reason=reason, **fields)

    def _c7(self) -> findings.Entry:
        table = all_costs()
        wide = table.pivot_table(index="backbone", columns="method", values="operations")
        one, two = (wide["AUNCE"] / wide[f"BCE, {views}"] for views in ("one view", "two views"))
        saved = table.pivot_table(index="backbone", columns="method", values="parameters")
        heads = saved["BCE, one view"] - saved["AUNCE"]
        more = [name for name in ("parameters", "operations") if more_than(table, name)]
        names = list(wide.index)
        return self._entry(
            "C7",
            not more,
            "costs",
            "Against BCE on the same encoder, AUNCE needs "
            f"{' and '.join(f'more {name}' for name in more) or 'no more of either'}: a training step takes "
            f"{_each(one, names, '.2f')} times the operations for the same number of labelled images, as it needs two "
            f"views of each ({_each(two, names, '.3f')} times if BCE is given two views as well); it trains "
            f"{_each(heads, names, ',.0f')} parameters fewer, which the later probe adds again, and then both compute "
            "the same at test time.",
            contrast="AUNCE, one step, over BCE with one view (worst backbone)",
            value=float(one.max()),
            unit="times the operations",
        )

    def _d1(self) -> findings.Entry:
        released, changed = max_branch("none"), max_branch("self")
        holds = released.attraction < 1e-9 and released.losses_error < 1e-9 < changed.attraction
        return self._entry(
            "D1",
            holds,
            "nearest",
            f"With the anchor among its positives the losses differ by at most {released.losses_error:.0e} from those "
            f"of a constant positive score exp(1 / tau), and positives act with a force of {released.attraction:.2g} "
            f"on an anchor; without the anchor it is {changed.attraction:.2f}.",
            contrast="attraction of the max branch, released",
            value=released.attraction,
            unit="force per anchor",
        )

    def _d2(self) -> findings.Entry:
        table = mean_divisors()
        rare = table[(table["prevalence"] == 0.02)].set_index(["state", "tau"])
        early, late = rare.loc[("labels not seen", 0.5)], rare.loc[("labels separated", 0.1)]
        return self._entry(
            "D2",
            bool(table["error"].max() < 1e-9 and _mean_is_of_the_row()),
            "divisor",
            f"The released mean is the mean over the positives times positives / rows, to {table['error'].max():.0e}: "
            f"log P of a present anchor moves by {page.number(rare['shift'].iloc[0], '.2f')} at 2 % prevalence; "
            f"present anchors then hold {100 * early['share_row']:.1f} % of all weights r (divided by the positives: "
            f"{100 * early['share_positives']:.1f} %) at tau .5 while labels are not seen, and "
            f"{100 * late['share_row']:.0f} % (divided by the positives: {100 * late['share_positives']:.0f} %) at "
            "tau .1 once they are separated.",
        )

    def _d3(self) -> findings.Entry:
        table = draws().set_index("way")
        shared = anchors_share_a_draw()
        once, each = (table.loc[way] for way in ("once per AU and batch", "once per anchor"))
        return self._entry(
            "D3",
            shared == 1,
            "draws",
            f"In {100 * shared:.0f} % of the released draws all anchors of an AU share a branch; a draw per anchor "
            f"has the same expected gradient (to {once['distance']:.0e}), and one per AU and batch "
            f"{once['variance'] / each['variance']:.1f} times its variance.",
            contrast="variance of the gradient, once per AU and batch over once per anchor",
            value=float(once["variance"] / each["variance"]),
            unit="times",
        )

    def _d6(self) -> findings.Entry:
        left = denominators()
        cosines = gradient_cosines().set_index(["loss", "state"]).loc["released, expected"]
        return self._entry(
            "D6",
            left.kept < 0.999 and left.same_as_simclr < 1e-9,
            "denominator",
            f"With equal exponents and the own view as positive, AUNCE's denominator is {100 * left.kept:.0f} % of "
            "that of SimCLR, which is that of SupCon, as other images with the anchor's label are left out; the "
            f"released gradient has a cosine of {cosines['SupCon'].min():.2f} to {cosines['SupCon'].max():.2f} with "
            f"SupCon's and of {cosines['InfoNCE'].min():.2f} to {cosines['InfoNCE'].max():.2f} with InfoNCE's.",
        )

    def _d7(self) -> findings.Entry:
        with_relu, without = smallest(True), smallest(False)
        table = floors(temperatures=(TAU,), batches=(IMAGES,), rates=(0.25,)).set_index("between")
        return self._entry(
            "D7",
            with_relu.feature >= 0 and with_relu.cosine >= 0 > without.cosine and without.feature < 0,
            "floors",
            f"The smallest feature is {page.number(with_relu.feature, '.2f')} with the ReLU and "
            f"{page.number(without.feature, '.2f')} without, the smallest cosine "
            f"{page.number(with_relu.cosine, '.2f')} and {page.number(without.cosine, '.2f')}; so at tau .5, batch 32 "
            "and 25 % prevalence the loss of a present anchor (mean branch) cannot fall below "
            f"{table.loc[0.0, 'loss']:.2f}, where its weight is still {table.loc[0.0, 'weight']:.2f}, instead of "
            f"{table.loc[-1.0, 'loss']:.2f} and {table.loc[-1.0, 'weight']:.2f}.",
        )

    def _d16(self) -> findings.Entry:
        table = unknowns().set_index("way")
        nine, masked, true = (table.loc[way] for way in ("9 is a class (released)", "unknown (here)", "the true label"))
        return self._entry(
            "D16",
            bool(nine["from_9"] > 0 and masked["from_9"] == 0),
            "unknowns",
            f"With 4 of {IMAGES} images coded 9 these are negatives of both labels and make "
            f"{100 * nine['from_9']:.0f} % of the repulsion on known anchors ({100 * true['from_9']:.0f} % with their "
            f"true labels), {nine['false']:.0f} pairs of equal true labels among those that repel; as anchors they "
            f"have no negatives, so that their gradient is {nine['on_9']:.2g} and equal codes do not attract.",
        )

    def _d18(self) -> findings.Entry:
        table = positives().set_index(["prevalence", "images"])
        five, two = table.loc[(0.05, 32)], table.loc[(0.02, 32)]
        return self._entry(
            "D18",
            bool(five["none"] + five["one"] > 0.5),
            "batches",
            f"The first half only: in 32 independent frames an AU of 5 % has {five['expected']:.1f} positive images, "
            f"none in {100 * five['none']:.0f} % of batches and one in {100 * five['one']:.0f} %; at 2 % it is "
            f"{100 * two['none']:.0f} % and {100 * two['one']:.0f} %; that neighbouring frames are near duplicates is "
            "not decided here.",
        )

    def values(self) -> "Markdown":
        """The loss at embeddings whose value is known by hand."""
        table = values()
        columns = ("equal", "random", "orthogonal", "opposite")
        rows = [
            [row["preset"], row["positive"], *(f"{row[name]:.3f}" for name in columns)] for _, row in table.iterrows()
        ]
        headers = ["Preset", "Positive", "All equal", "Random", "Labels at a right angle", "Labels opposite"]
        return page.markdown(
            f"{page.table(headers, rows, 'llrrrr')}\n\n"
            f"Mean over anchors, 6 of {IMAGES} images with the AU, tau {TAU:g}, AU weights 1. *Expected*: the sum over "
            "branches by their probabilities, the mean of what *sampled* gives. Right angle and opposite are the "
            "smallest values that can be reached with and without a final ReLU. Equal, right angle and opposite agree "
            f"with the closed form to {table['error'].max():.0e}."
        )

    def floors(self) -> "Markdown":
        """Figure: the smallest loss by prevalence, and the weight there."""
        table = floors(temperatures=(TAU,), rates=(0.0625, 0.125, 0.25, 0.5, 0.75, 0.9375))
        return page.figure(
            self.out,
            "floors",
            figures.floors(table),
            table,
            alt="Smallest loss of a present anchor and its weight against prevalence, with and without a final ReLU, "
            "for batches of 32 and 128.",
            caption="Released, mean branch, tau .5, present anchors: all positives alike, all negatives at a right "
            "angle (as far as a ReLU lets them go) or opposite (without).",
        )

    def floors_table(self) -> "Markdown":
        """The floor by temperature and batch, with the force that is left."""
        table = floors(rates=(0.0625, 0.5))
        wide = table.pivot_table(index=["tau", "images", "prevalence"], columns="between")
        rows = [
            [
                *(f"{tau:g}", f"{images:.0f}", f"{100 * rate:g}"),
                *(f"{row[(name, 0.0)]:.3g}" for name in ("loss", "weight", "force")),
                *(f"{row[(name, -1.0)]:.3g}" for name in ("loss", "weight", "force")),
            ]
            for (tau, images, rate), row in wide.iterrows()
        ]
        headers = [
            "tau",
            "Batch",
            "Present (%)",
            "ReLU: loss",
            "weight r",
            "force",
            "No ReLU: loss",
            "weight r",
            "force",
        ]
        return page.markdown(
            f"{page.table(headers, rows, 'r' * 9)}\n\n"
            "*Force*: length of the gradient of the anchor's loss by its own embedding, e r / tau at a right angle. "
            "It is not 0 at the floor: it points past the right angle, where the ReLU lets no feature go. Without the "
            "ReLU it is 0 at the floor, whatever r is."
        )

    def forces(self) -> "Markdown":
        """Figure: attraction and repulsion by kind of positive, beside SupCon and InfoNCE."""
        table = branch_forces()
        return page.figure(
            self.out,
            "forces",
            figures.forces(table),
            table,
            alt="Bars of attraction and repulsion on an anchor for the branches of the released and the as_read "
            "loss, SupCon and InfoNCE. The released max branch has no attraction.",
            caption="Derivative of an anchor's loss by its cosines, added up by the kind of row and averaged over "
            f"anchors; {IMAGES} images, 6 with the AU, *labels half seen* (cosine .8 between views, .5 within a "
            "label, .2 between labels).",
        )

    def forces_table(self) -> "Markdown":
        """The numbers of `forces`."""
        rows = [
            [
                *(row["loss"], row["positive"]),
                *(page.number(row[name], "+.2f") for name in ("own view", "same label", "negatives")),
                *(page.number(round(row["surplus"], 2) + 0.0, "+.2f"), f"{100 * row['of_negatives']:.0f}"),
            ]
            for _, row in branch_forces().iterrows()
        ]
        headers = ["Loss", "Positive", "Own view", "Same label", "Negatives", "Sum", "Repulsion by negatives (%)"]
        return page.markdown(
            f"{page.table(headers, rows, 'llrrrrr')}\n\n"
            "Minus attracts. A sum that is not 0 is a net pull towards or push away from what all rows share. "
            "SupCon's same label adds attraction and the repulsion that its denominator puts on the same rows."
        )

    def nearest(self) -> "Markdown":
        """How often the most similar positive is the own other view, once the anchor itself is excluded."""
        table = own_view_shares()
        sames = [name for name in table.columns if name != "view"]
        rows = [
            [f"{row['view']:g}", *("" if np.isnan(row[same]) else f"{100 * row[same]:.0f}" for same in sames)]
            for _, row in table.iterrows()
        ]
        headers = ["Cosine of two views", *(f"same label {same:g} (%)" for same in sames)]
        found = {name: max_branch(name) for name in ("none", "self", "image")}
        said = ", ".join(f"{found[name].attraction:.2f} with `{name}`" for name in found)
        return page.markdown(
            f"{page.table(headers, rows, 'r' * len(headers))}\n\n"
            f"Batches of {IMAGES}, 6 with the AU, in a random model of {CHANNELS} channels, mean of 20. As soon as two "
            "views are more alike than two images with the same label, by more than chance, the max branch and the "
            "view branch are one. Where an encoder stands in this table has to be measured in training. Attraction of "
            f"the max branch by what is excluded: {said}."
        )

    def divisor(self) -> "Markdown":
        """Weights of anchors under both divisors."""
        rows = [
            [
                *(row["state"], f"{row['tau']:g}", f"{100 * row['prevalence']:.0f}", page.number(row["shift"], ".2f")),
                *(_pair(row, name) for name in ("weight", "absent")),
                _pair(row, "share", 100, ".1f"),
            ]
            for _, row in mean_divisors().iterrows()
        ]
        headers = ["Embeddings", "tau", "Present (%)", "log(positives / rows)", "r, present", "r, absent"]
        return page.markdown(
            f"{page.table([*headers, 'Present, share of all r (%)'], rows, 'lrrrrrr')}\n\n"
            "Each pair: divided by the row (released), by the positives. 100 images. Where the loss is far from "
            "saturated, r is near 1 whatever the divisor and only the value of the loss moves; near saturation the "
            "divisor decides how much a rare AU counts."
        )

    def draws(self) -> "Markdown":
        """Expectation and noise of the gradient by the way of drawing."""
        rows = [[row["way"], f"{row['noise']:.2f}", f"{row['distance']:.0e}"] for _, row in draws().iterrows()]
        headers = [
            "The kind of positive is drawn",
            "Noise (SD / length of the mean)",
            "Distance from the expected gradient",
        ]
        return page.markdown(
            f"{page.table(headers, rows, 'lrr')}\n\n"
            f"Exact sums over the three branches, one batch of {IMAGES}, *labels half seen*; the noise of the batch "
            "itself comes on top. What the paper draws is undecidable here: its equations could not be read."
        )

    def denominator(self) -> "Markdown":
        """Cosines between gradients."""
        rows = [
            [row["state"], row["loss"], f"{row['SupCon']:.2f}", f"{row['InfoNCE']:.2f}"]
            for _, row in gradient_cosines().iterrows()
        ]
        return page.markdown(
            f"{page.table(['Embeddings', 'AUNCE', 'Cosine with SupCon', 'with InfoNCE'], rows, 'llrr')}\n\n"
            "Gradients by all embeddings of one batch, same embeddings, same tau. The first row of each block is "
            "InfoNCE but for its denominator."
        )

    def steps(self) -> "Markdown":
        """Figure: how long steps are by exponents, with and without normalised weights."""
        table = steps()
        return page.figure(
            self.out,
            "steps",
            figures.steps(table.assign(exponents=[f"{name} {EXPONENTS[name]}" for name in table["exponents"]])),
            table,
            alt="Ratio of the step of a present to that of an absent anchor for four pairs of exponents, with "
            "weights as they are and divided by their mean, at 50 % and 10 % prevalence.",
            caption="Length of the gradient of one anchor's loss by all embeddings, present over absent; `as_read` "
            "and `hcl`, expected over the branches, 40 images, *labels half seen*.",
        )

    def steps_table(self) -> "Markdown":
        """The numbers of `steps`, and what exponents are."""
        rows = []
        for _, row in steps().iterrows():
            absent, present = EXPONENTS[row["exponents"]]
            rows.append(
                [
                    *(f"{100 * row['prevalence']:.0f}", f"{row['exponents']} ({absent:g}, {present:g})"),
                    f"{TAU / absent:.3f}, {TAU / present:.3f}",
                    "divided" if row["normalised"] else "as they are",
                    *(f"{row[name]:.2f}" for name in ("ratio", "ratio_own")),
                    f"{100 * row['share']:.1f}",
                    f"{row['push_absent']:.2f}, {row['push_present']:.2f}",
                ]
            )
        headers = [
            "Present (%)",
            "Exponents (absent, present)",
            "tau of negatives",
            "Weights",
            "Step, present / absent",
        ]
        headers += ["by own embedding", "Share of present (%)", "Repulsion / attraction"]
        ratios = {name: _wide(steps(name), "ratio")[False] for name in STATES}
        by_state = [
            [name, *(f"{ratios[name].loc[(rate, pair)]:.2f}" for rate in (0.5, 0.1) for pair in EXPONENTS)]
            for name in STATES
        ]
        columns = [f"{100 * rate:.0f} %, {pair}" for rate in (0.5, 0.1) for pair in EXPONENTS]
        error = max(exponent_is_temperature(e) for pair in EXPONENTS.values() for e in pair)
        return page.markdown(
            f"{page.table(headers, rows, 'rlrlrrrr')}\n\n"
            "The same ratio, weights as they are, by how far the labels are seen:\n\n"
            f"{page.table(['Embeddings', *columns], by_state, 'l' + 'r' * len(columns))}\n\n"
            f"- An exponent e is a temperature tau / e for the negatives: log N agrees to {error:.0e}.\n"
            "- Repulsion over attraction is e with weights as they are, and 1 when they are divided by their mean. "
            "What the division removes is the change of the size of a step, which the abstract gives as the purpose; "
            "that similar negatives count more, or less, stays.\n"
            f"- .4 in place of .8 (D4) makes the ratio {_factor(ratios, 'early', 'released')} times as large at 50 %, "
            "from labels not seen to labels separated: whether it strengthens the exponents depends on the "
            "embeddings.\n"
            f"- An exponent goes with the label and not with prevalence (D5). In BP4D {', '.join(frequent_aus())} are "
            "present in more than half of the frames (published rates, mean of three parts), and there the exponents "
            "lengthen the steps of the majority.\n"
            "- AU weights (D8) multiply all anchors of an AU alike and leave every ratio here as it is."
        )

    def precision(self) -> "Markdown":
        """Half precision, exponentials first and in log space."""
        table = precision().pivot_table(index="tau", columns="dtype", values=["naive", "ours", "exact"])
        names = [(way, dtype) for dtype in ("float16", "bfloat16", "float32") for way in ("naive", "ours")]
        rows = [
            [f"{tau:g}", f"{row[('exact', 'float32')]:.2g}", *(_error(row[name]) for name in names)]
            for tau, row in table.sort_index(ascending=False).iterrows()
        ]
        headers = ["tau", "Loss", *(f"{dtype}, {'exp first' if way == 'naive' else 'here'}" for way, dtype in names)]
        limit = math.log(torch.finfo(torch.float16).max)
        return page.markdown(
            f"{page.table(headers, rows, 'r' * len(headers))}\n\n"
            "Mean branch, error relative to float64; *here* the embeddings are in half precision and the logits in "
            f"float32. The largest power, exp(1.2 / tau) at a cosine of 1, leaves fp16 below tau = {1.2 / limit:.3f}, "
            f"and the exponential itself below {1 / limit:.3f}; the mask then multiplies infinity by 0. *Exp first* is "
            "the formula step by step, written for this page."
        )

    def batches(self) -> "Markdown":
        """How many positives a batch holds."""
        rows = [
            [
                *(f"{100 * row['prevalence']:.0f}", f"{row['images']:.0f}", f"{row['expected']:.1f}"),
                *(_percent(row[name]) for name in ("none", "one")),
            ]
            for _, row in positives().iterrows()
        ]
        headers = ["Present (%)", "Batch", "Images with the AU", "P(none) (%)", "P(one) (%)"]
        return page.markdown(
            f"{page.table(headers, rows, 'rrrrr')}\n\n"
            "Binomial, for independent frames. Without a positive the loss of the AU is 0 and so is its gradient; "
            "with one, the only positives of a present anchor are itself and its other view."
        )

    def batch_noise(self) -> "Markdown":
        """Figure: loss and gradient noise by batch."""
        table = batch_noise()
        rare = table[table["prevalence"] == table["prevalence"].min()].set_index("images")
        slopes = [
            f"{2 ** np.polyfit(np.log2(rows['images']), np.log2(rows['noise']), 1)[0]:.2f}"
            for _, rows in table.groupby("prevalence", sort=False)
        ]
        return page.figure(
            self.out,
            "batches",
            figures.batches(table),
            table,
            alt="Loss and gradient noise against the batch for a frequent and a rare AU.",
            caption="Released, expected over the branches, 40 random batches each; left with the standard deviation "
            "over batches. Noise: standard deviation of the gradient over the length of its mean; a batch twice as "
            f"large has {' and '.join(slopes)} times as much (frequent and rare AU). The loss grows with the log of "
            "the batch, as negatives are added up and not averaged, so values at different batches do not compare. "
            f"Of the batches of 32 with the rare AU, {100 * rare.loc[32, 'empty']:.0f} % had a gradient of exactly 0.",
        )

    def unknowns(self) -> "Markdown":
        """A batch in which some images are coded 9."""
        rows = [
            [
                *(row["way"], f"{row['loss']:.2f}", f"{row['repelled']:.0f}", f"{row['false']:.0f}"),
                *(f"{100 * row['from_9']:.0f}", f"{row['on_9']:.3g}", f"{row['cosine']:.3f}"),
            ]
            for _, row in unknowns().iterrows()
        ]
        headers = ["4 of 32 images are coded 9; treated as", "Loss", "Pairs that repel", "with equal true labels"]
        headers += ["Repulsion by the 4 (%)", "Gradient of the losses of the 4", "Cosine with the truth"]
        return page.markdown(
            f"{page.table(headers, rows, 'lrrrrrr')}\n\n"
            "Two of the four are truly present. Pairs are counted from anchor to row. The last column compares the "
            "gradients of the images whose label is known. Equal values are positives by the rule, so that 9 would "
            "attract 9; but the released sum over negatives is kept for the labels 0 and 1 alone, so that an anchor "
            "coded 9 has a loss of 0. The direction of the whole gradient hardly suffers in this batch."
        )

    def costs(self) -> "Markdown":
        """One training step, AUNCE and BCE."""
        rows = [
            [
                *(row["backbone"], row["method"], f"{row['parameters']:,}", str(row["forward"])),
                *(f"{row['operations'] / 1e9:,.2f}", f"{row['of_loss'] / 1e9:.4f}", f"{row['ratio']:.3f}"),
            ]
            for _, row in all_costs().iterrows()
        ]
        headers = ["Encoder", "Method", "Parameters", "Images through it", "Operations (10⁹)", "Loss or head (10⁹)"]
        return page.markdown(
            f"{page.table([*headers, 'Over BCE, one view'], rows, 'llrrrrr')}\n\n"
            f"One step on {IMAGES} labelled images, 12 AUs, forward and backward, matrix products and convolutions as "
            "torch counts them (2 for a multiplication with its addition). `small` at 48 px with 64 channels, Swin-B "
            "at 224 px with 1024. AUNCE's probe comes later: one linear layer per AU and one more pass through the "
            "frozen encoder for each frame. *Pixel-level training* is the abstract's word; the comparison here is "
            "supervised training of the same encoder with BCE."
        )

    def open(self) -> "Markdown":
        """What computation alone does not decide."""
        return page.markdown(
            page.table(["Claim or gap", "Open", "Known or needed"], [list(row) for row in UNDECIDED], "lll")
        )


def _mean_is_of_the_row() -> bool:
    """Does the loss by default divide the mean by all rows? It does if dividing by the positives is something else."""
    labels = occurrence(6)
    z = state("labels half seen", labels)
    row, positive = (anchor_losses(z, labels, positive="mean", positive_mean=how) for how in ("row", "positives"))
    released = anchor_losses(z, labels, **presets("mean")["released"])
    return bool((released == row).all() and ((row - positive).abs() > 1e-6).all())


def _wide(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table.pivot_table(index=["prevalence", "exponents"], columns="normalised", values=column)


def _each(values: pd.Series, names: Sequence[str], form: str) -> str:
    return " and ".join(f"{format(values[name], form)} ({name})" for name in names)


def _factor(ratios: Mapping[str, pd.Series], pair: str, other: str) -> str:
    return ", ".join(f"{ratio.loc[(0.5, pair)] / ratio.loc[(0.5, other)]:.2f}" for ratio in ratios.values())


def _pair(row: pd.Series, name: str, scale: float = 1, form: str = ".3f") -> str:
    return ", ".join(format(scale * row[f"{name}_{divisor}"], form) for divisor in ("row", "positives"))


def _error(value: float) -> str:
    return f"{value:.0e}" if math.isfinite(value) else "**NaN**" if math.isnan(value) else "**inf**"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if share >= 0.0005 else "< 0.1"
