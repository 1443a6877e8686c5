"""The anatomy: what the loss computes, before anything is trained.

Every statement is a computation on `aunce.losses` with made-up embeddings. A random model (`embeddings`) sets the
expected cosines of two views of an image, of two images with the same label, and of two with different labels. What an
encoder makes of real or rendered faces is measured elsewhere.

Words: the force between anchor i and row j is the derivative of the anchor's loss by their cosine. A positive force
repels, a negative one attracts. r = N / (P + N) = 1 - exp(-loss) is the weight of an anchor: it scales all its forces.
*Released* is the code of Ziqiao-Shang/AUNCE at commit bade385, in the reading of `aunce.losses`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from aunce.data import bp4d
from aunce.losses import BRANCHES, AUNCELoss, aunce_loss, infonce, own_view_share, supcon
from aunce.model import build_encoder

TAU, IMAGES, CHANNELS = 0.5, 32, 256  # the released temperature and batch; width of the made-up embeddings
PRESENT = 6  # images with the AU in the batch of most numbers
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


def half_seen() -> tuple[Tensor, Tensor]:
    """The batch of most numbers: embeddings (2, B, 1, D) with the labels half seen, and its labels (B, 1)."""
    labels = occurrence(PRESENT)
    return state("labels half seen", labels), labels


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
    """The loss of an absent and of a present anchor by hand, for cosines of 1 within a label and `between` otherwise.

    It is log(1 + n exp(e between / tau) / P) with n negatives and P = exp(1 / tau). For the mean over the row, P is
    multiplied by positives / rows. Weights that are divided by their mean are all 1 here, so that e is 1.

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
def values() -> pd.DataFrame:
    """The mean loss over the anchors of a batch by preset and kind of positive, computed and by hand.

    Returns:
        One row per preset and positive: equal, orthogonal, opposite (all cosines 1; labels at a right angle; labels
        opposite), random (independent vectors), and `error`, the largest distance from the closed form.
    """
    labels = occurrence(PRESENT)
    share = PRESENT / IMAGES
    between = {"equal": 1.0, "orthogonal": 0.0, "opposite": -1.0}
    rows = []
    for positive in (*BRANCHES, "expected"):
        for preset, options in presets(positive).items():
            row: dict[str, Any] = {"preset": preset, "positive": positive}
            error = 0.0
            for name, cosine in between.items():
                row[name] = anchor_losses(clusters(labels, cosine), labels, **options).mean().item()
                rest = {key: value for key, value in options.items() if key not in ("positive", "au_weights")}
                absent, own = closed_form(positive, present=PRESENT, images=IMAGES, between=cosine, **rest)
                error = max(error, abs(row[name] - (1 - share) * absent - share * own))
            z = embeddings(labels, view=0, same=0, other=0)
            rows.append(row | {"random": anchor_losses(z, labels, **options).mean().item(), "error": error})
    return pd.DataFrame(rows)


def floors(
    temperatures: Sequence[float] = (0.1, 0.5, 1.0),
    batches: Sequence[int] = (32, 128),
    rates: Sequence[float] = (0.5, 0.25, 0.0625),
) -> pd.DataFrame:
    """The smallest loss of a present anchor (released, mean branch), and the gradient that remains at it.

    The loss is smallest for a cosine of 1 to all positives, and of 0 (after a ReLU) or -1 (without) to all negatives.

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
    """Smallest feature and cosine, see `smallest`."""

    feature: float
    cosine: float


@cache
def smallest(final_relu: bool) -> Smallest:
    """The smallest feature of the small encoder, and the smallest cosine of vectors that end with or without a ReLU.

    Returns:
        feature: smallest feature of random images under an encoder with random weights.
        cosine: smallest of 500 random vectors of 4 channels, so few that all directions occur.
    """
    generator = torch.Generator().manual_seed(0)
    encoder = build_encoder("small", aus=12, channels=64, seed=0, final_relu=final_relu)
    with torch.no_grad():
        features = encoder(torch.rand(16, 3, 48, 48, generator=generator))  # (B, K, D)
    x = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    x = F.normalize(F.relu(x) if final_relu else x, dim=-1)
    return Smallest(float(features.min()), float((x @ x.T).min()))


# ------------------------------------------------------------------------------------------------------------ forces


def anchor_gradients(z: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The gradient of each anchor's loss by each row.

    The batch is repeated as an AU of its own for each anchor, so that one backward pass gives all gradients.

    Args:
        z: (2, B, 1, D).
        labels: (B, 1).
        options: of `aunce_loss`.

    Returns:
        (2B, 2B, D), anchors first.
    """
    rows = 2 * z.shape[1]
    each = F.normalize(z.detach().double(), dim=-1).repeat(1, 1, rows, 1).requires_grad_()  # (2, B, K=2B, D)
    if options.get("au_weights") is not None:
        options["au_weights"] = [*options["au_weights"]] * rows
    losses = aunce_loss(each, labels.expand(-1, rows), reduction="none", **options)  # (K=2B, 2B)
    (gradients,) = torch.autograd.grad(losses.diagonal().sum(), each)  # (2, B, K=2B, D)
    return gradients.flatten(0, 1).transpose(0, 1)  # (2B, 2B, D)


def forces_of(gradients: Tensor, z: Tensor) -> Tensor:
    """The force of each row on each anchor, from the gradients of the anchors' losses.

    A row j other than the anchor enters the loss of anchor i by their cosine c alone, so its gradient is
    force (x_i - c x_j). The force is the product of that gradient with x_i, over 1 - c^2. The cosine of an anchor with
    itself is always 1, so its own force is 0.

    Args:
        gradients: (2B, 2B, D), see `anchor_gradients`.
        z: (2, B, 1, D), no two rows alike.

    Returns:
        (2B, 2B), per unit of cosine.
    """
    x = F.normalize(z.detach().double(), dim=-1).flatten(0, 2)  # (2B, D)
    forces = torch.einsum("ijd,id->ij", gradients, x) / (1 - (x @ x.T) ** 2)  # (2B, 2B)
    return forces.fill_diagonal_(0)


def pair_forces(z: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The forces (2B, 2B) of rows on anchors under `aunce_loss` with these options, see `forces_of`."""
    return forces_of(anchor_gradients(z, labels, **options), z)


def reference_forces(z: Tensor, labels: Tensor, method: str, temperature: float = TAU) -> Tensor:
    """The forces (2B, 2B) under "infonce" or "supcon" by hand: (softmax over other rows - share in positives) / tau."""
    x = F.normalize(z.detach().double(), dim=-1).flatten(0, 2)  # (2B, D)
    kinds = pair_kinds(labels)  # (2B, 2B)
    q = (x @ x.T / temperature).fill_diagonal_(-torch.inf).softmax(-1)  # (2B, 2B)
    positive = (kinds == 1) if method == "infonce" else (kinds == 1) | (kinds == 2)
    return (q - positive.double() / positive.sum(1, keepdim=True)) / temperature


def pair_kinds(labels: Tensor) -> Tensor:
    """(2B, 2B): 0 the anchor, 1 its own other view, 2 another image with its label, 3 a negative."""
    y = labels[:, 0].repeat(2)  # (2B,)
    image = torch.arange(len(labels)).repeat(2)  # (2B,)
    kinds = torch.where(y[:, None] == y, 2, 3)
    kinds[image[:, None] == image] = 1
    return kinds.fill_diagonal_(0)


def split_forces(forces: Tensor, labels: Tensor) -> dict[str, float]:
    """Forces on an anchor by the kind of row that they come from, averaged over anchors.

    Returns:
        own view, same label and negatives: sums, attraction as a negative number; pull: the sum of all attraction;
        of_negatives: the share of negatives in all repulsion.
    """
    kinds = pair_kinds(labels)
    total = {
        name: torch.where(kinds == kind, forces, 0).sum().item() / len(forces)
        for kind, name in ((1, "own view"), (2, "same label"), (3, "negatives"))
    }
    push = forces.clamp(min=0)
    share = torch.where(kinds == 3, push, 0).sum() / push.sum()
    return total | {"pull": forces.clamp(max=0).sum().item() / len(forces), "of_negatives": share.item()}


@cache
def branch_forces() -> pd.DataFrame:
    """Forces on an anchor by loss and kind of positive.

    Returns:
        Columns: loss, positive, those of `split_forces`, and surplus, the sum of own view, same label and negatives.
    """
    z, labels = half_seen()
    rows = [
        {"loss": preset, "positive": positive} | split_forces(pair_forces(z, labels, **options), labels)
        for preset in ("released", "as_read")
        for positive in (*BRANCHES, "expected")
        for options in (presets(positive)[preset],)
    ]
    for method, positive in (("supcon", "mean of logs"), ("infonce", "view")):
        rows.append({"loss": method, "positive": positive} | split_forces(reference_forces(z, labels, method), labels))
    table = pd.DataFrame(rows)
    return table.assign(surplus=table[["own view", "same label", "negatives"]].sum(axis=1))


class MaxBranch(NamedTuple):
    """Attraction of the max branch, see `max_branch`."""

    attraction: float
    remainder: float
    losses_error: float


@cache
def max_branch(exclude: str) -> MaxBranch:
    """How much the max branch attracts.

    Args:
        exclude: rows that are no positives, see `aunce_loss`.

    Returns:
        attraction: sum of the sizes of all forces from positives, per anchor.
        remainder: largest entry of an anchor's own gradient that its negatives do not explain.
        losses_error: largest distance of its losses from those with a constant positive score exp(1 / tau).
    """
    z, labels = half_seen()
    options: dict[str, Any] = {"positive": "max", "exclude": exclude}
    gradients = anchor_gradients(z, labels, **options)  # (2B, 2B, D)
    forces = forces_of(gradients, z)  # (2B, 2B)
    negatives = torch.where(pair_kinds(labels) == 3, forces, 0)  # (2B, 2B)
    x = z.flatten(0, 2)  # (2B, D)
    cosines = x @ x.T
    explained = negatives @ x - (negatives * cosines).sum(1, keepdim=True) * x  # (2B, D)
    own = gradients.diagonal(dim1=0, dim2=1).T  # (2B, D)
    absent, own_label = (torch.tensor(e, dtype=torch.float64) for e in EXPONENTS["released"])
    e = torch.where(labels[:, 0] == 1, own_label, absent).repeat(2)[:, None]  # (2B, 1)
    log_n = torch.where(pair_kinds(labels) == 3, e * cosines / TAU, -torch.inf).logsumexp(1)
    distance = anchor_losses(z, labels, **options) - F.softplus(log_n - 1 / TAU)
    attraction = (forces - negatives).abs().sum().item() / len(forces)
    return MaxBranch(attraction, (own - explained).abs().max().item(), distance.abs().max().item())


@cache
def own_view_shares(seeds: int = 20) -> pd.DataFrame:
    """`losses.own_view_share` averaged over batches: a row per view cosine, a column per cosine of the same label."""
    sames, views = (0.2, 0.4, 0.6, 0.8), (0.4, 0.6, 0.7, 0.8, 0.9)
    labels = occurrence(PRESENT)

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


def mean_divides_by_the_row() -> bool:
    """Whether the mean branch divides by all rows by default, and not by the positives."""
    z, labels = half_seen()
    row, positive = (anchor_losses(z, labels, positive="mean", positive_mean=how) for how in ("row", "positives"))
    released = anchor_losses(z, labels, **presets("mean")["released"])
    return bool((released == row).all() and ((row - positive).abs() > 1e-6).all())


@cache
def draws() -> pd.DataFrame:
    """D3: the gradient by all embeddings under three ways of choosing the kind of positive, by sums and not by drawing.

    With gradients g_ib of anchor i under branch b, one draw per AU has the variance sum_b p_b |sum_i (g_ib - g_i)|^2
    and one per anchor sum_i sum_b p_b |g_ib - g_i|^2, where g_i = sum_b p_b g_ib; "expected" has none.

    Returns:
        One row per way: noise (standard deviation over the length of the expected gradient), variance, distance (of
        the expected gradient from that of `positive="expected"`, relative).
    """
    z, labels = half_seen()
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
    """D6: denominators of the same anchors, see `denominators`."""

    kept: float
    same_as_simclr: float


def denominators() -> Denominators:
    """The denominator of AUNCE beside those of SimCLR and SupCon, for equal exponents and the own view as positive.

    Returns:
        kept: geometric mean over anchors of AUNCE's P + N over the sum of all other rows.
        same_as_simclr: distance between the mean logs of the denominators of `supcon` and `infonce`.
    """
    z, labels = half_seen()
    simclr = infonce(z, TAU).item()
    kept = aunce_loss(z, labels, positive="view", exponents=(1.0, 1.0)).item() - simclr
    x = z.flatten(0, 2)
    kinds, logits = pair_kinds(labels), x @ x.T / TAU
    pull = {
        name: (torch.where(mask, logits, 0).sum(1) / mask.sum(1)).mean().item()
        for name, mask in (("supcon", (kinds == 1) | (kinds == 2)), ("infonce", kinds == 1))
    }
    distance = supcon(z, labels, TAU).item() + pull["supcon"] - simclr - pull["infonce"]
    return Denominators(math.exp(kept), abs(distance))


@cache
def gradient_cosines() -> pd.DataFrame:
    """Cosines between the gradients of AUNCE and those of SupCon and InfoNCE, a row per state and reading of AUNCE."""
    labels = occurrence(PRESENT)
    rows = []
    for name in STATES:
        z = state(name, labels).requires_grad_()
        others = {"SupCon": _gradient(supcon(z, labels, TAU), z), "InfoNCE": _gradient(infonce(z, TAU), z)}
        for shown, options in {
            "released, view, exponents (1, 1)": {"positive": "view", "exponents": (1.0, 1.0)},
            "released, expected": presets()["released"],
            "as_read, expected": presets()["as_read"],
        }.items():
            own = _gradient(aunce_loss(z, labels, **options), z)
            cosines = {other: F.cosine_similarity(own, g, dim=0).item() for other, g in others.items()}
            rows.append({"state": name, "loss": shown} | cosines)
    return pd.DataFrame(rows)


def _gradient(loss: Tensor, z: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, z)
    return gradient.flatten()


# --------------------------------------------------------------------------------------------------------- exponents


@cache
def steps(name: str = "labels half seen", images: int = 40) -> pd.DataFrame:
    """Lengths of the gradients of present and absent anchors, by exponents.

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
        forces = forces_of(gradients, z)  # (2B, 2B)
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
    """Largest distance over anchors between log N at (e, tau) and log N at (1, tau / e), which are equal in theory."""
    z, labels = half_seen()
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
    z, labels = half_seen()
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
