"""The frozen encoder and what is scored on it: features, linear and ridge probes, and the check that a training calls.

Every method is scored alike, so that methods differ by their training alone.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from aunce.data.frames import Split
from aunce.errors import DataError
from aunce.evaluation import auc, concordance, f1, knn, macro, occurrence_counts, unscored_unknown
from aunce.model import Encoder, LinearProbe, build_probe, seeded
from aunce.supervised import supervised_loss

Array = NDArray[Any]

WEIGHT_DECAY = 1e-6  # of the probes' Adam, as released


def embed(
    encoder: Encoder,
    images: Array,
    rows: Array | None = None,
    *,
    device: str = "cpu",
    crop: int = 0,
    batch_size: int = 512,
) -> Array:
    """Features of images from the encoder in eval mode: no weight, buffer or mode of it changes.

    The released probe (first commits only) ran the frozen network in training mode, see `fit_train_mode_probe`.

    Args:
        encoder: moved to `device`.
        images: (n, H, W, 3) uint8, RGB.
        rows: the images to embed, in this order; all if left out.
        device: where to compute.
        crop: side of the square in the middle of each image that is embedded; 0 takes the whole image.
        batch_size: images at a time; the features do not depend on it beyond rounding.

    Returns:
        (n, K, D) float32.
    """
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    features = np.empty((len(rows), encoder.aus, encoder.channels), dtype=np.float32)  # (n, K, D)
    modes = {module: module.training for module in encoder.modules()}
    encoder.to(device).eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                x = encoder(_pixels(images[rows[start : start + batch_size]], device, crop))  # (B, K, D)
                features[start : start + batch_size] = x.float().cpu().numpy()
    finally:
        for module, training in modes.items():
            module.training = training
    return features


def _pixels(images: Array, device: str, crop: int) -> Tensor:
    """(B, 3, H, W) in [0, 1], or (B, 3, crop, crop), from images (B, H, W, 3) uint8."""
    return centre(torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255, crop)


def centre(pixels: Tensor, crop: int) -> Tensor:
    """The square in the middle of images.

    Args:
        pixels: (B, 3, H, W).
        crop: side of the square in pixels, at most H and W; 0 leaves the images whole.

    Returns:
        (B, 3, crop, crop), a view; or `pixels`.
    """
    if not crop:
        return pixels
    top, left = (pixels.shape[2] - crop) // 2, (pixels.shape[3] - crop) // 2
    return pixels[:, :, top : top + crop, left : left + crop]  # (B, 3, crop, crop)


def probabilities(head: LinearProbe, features: Array) -> Array:
    """Sigmoid of a head's logits.

    Args:
        head: stays on its device.
        features: (n, K, D) float32.

    Returns:
        (n, K) float32, 0 to 1.
    """
    with torch.inference_mode():
        device = head.weight.device
        scores = [torch.sigmoid(head(x.to(device))).cpu() for x in torch.split(torch.from_numpy(features), 4096)]
        return torch.cat(scores).numpy()  # (n, K)


def fit_probe(
    features: Array,
    labels: Array,
    *,
    seed: int,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
) -> LinearProbe:
    """Fit one linear layer per AU on frozen features, as they are, by Adam on the mean cross-entropy of known labels.

    Batch size, epochs, rate and decay are those of the released probe (a script of commit 702eb19, later deleted). An
    AU that is never present or never absent among the known labels has nothing to separate: its weights are 0 and its
    bias is log((p + 1/2) / (a + 1/2)), with p and a the numbers of known frames where it is present and absent.

    Args:
        features: (n, K, D) float32.
        labels: (n, K) in {-1, 0, 1}.
        seed: of the starting weights and of the order; no global generator moves.
        epochs: passes over the frames.
        batch_size: frames a step.
        learning_rate: constant.

    Returns:
        The probe, on the CPU and in eval mode.

    Raises:
        DataError: a feature is not finite, or the shapes do not fit.
    """
    _demand(features, labels)
    x = torch.from_numpy(features)  # (n, K, D)
    return _fitted(x.__getitem__, features.shape[2], labels, seed, epochs, batch_size, learning_rate)


def fit_train_mode_probe(
    encoder: Encoder,
    images: Array,
    labels: Array,
    *,
    rows: Array,
    seed: int,
    epochs: int = 100,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    device: str = "cpu",
    crop: int = 0,
) -> tuple[Encoder, LinearProbe]:
    """Fit the probe as the released script did: on a network in training mode, without a gradient through it.

    BatchNorm uses the statistics of each batch and its running ones move. Stochastic depth stays on. The network with
    the moved statistics is what is then scored, in eval mode.

    Args:
        encoder: stays as it is; a copy of it on `device` is moved.
        images: (n, H, W, 3) uint8, RGB.
        labels: (n, K) in {-1, 0, 1}.
        rows: the frames to fit on.
        seed: of weights, order and drop-outs.
        epochs: passes over the frames.
        batch_size: frames a step.
        learning_rate: constant.
        device: where to compute.
        crop: see `embed`.

    Returns:
        The network with the moved statistics, and the probe, on the CPU and in eval mode.
    """
    encoder = copy.deepcopy(encoder).to(device).train()

    def features(batch: Tensor) -> Tensor:
        with torch.no_grad():
            x: Tensor = encoder(_pixels(images[rows[batch.numpy()]], device, crop))  # (B, K, D)
        return x.float().cpu()

    with seeded(seed, device):
        probe = _fitted(features, encoder.channels, labels[rows], seed, epochs, batch_size, learning_rate)
    return encoder, probe


def _fitted(
    features: Callable[[Tensor], Tensor],
    channels: int,
    labels: Array,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> LinearProbe:
    """A probe on `features`: from rows (B,) of `labels` (n, K) to (B, K, D)."""
    probe = build_probe(labels.shape[1], channels, seed=seed)
    optimizer = torch.optim.Adam(probe.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    present, absent = (labels == 1).sum(0), (labels == 0).sum(0)  # (K) each
    one_label = (present == 0) | (absent == 0)  # (K)
    targets = torch.from_numpy(np.where(one_label, -1, labels))  # (n, K)
    loss = supervised_loss("bce", labels)
    order = np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in torch.split(torch.from_numpy(order.permutation(len(labels))), batch_size):
            optimizer.zero_grad()
            loss(probe(features(rows)), targets[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        probe.weight[one_label] = 0
        probe.bias[one_label] = torch.from_numpy(np.log((present + 0.5) / (absent + 0.5))).float()[one_label]
    return probe.eval()


def _demand(features: Array, labels: Array) -> None:
    if features.ndim != 3 or labels.shape != features.shape[:2]:
        raise DataError(
            f"probe: expected features (n, K, D) and labels (n, K), got {features.shape} and {labels.shape}"
        )
    if not np.isfinite(features).all():
        raise DataError("probe: expected finite features; the encoder's weights may have diverged")


STRENGTHS = tuple(10.0**power for power in range(-4, 5))
"""The grid of C."""


@dataclass(frozen=True)
class RidgeProbe:
    """L2-regularised logistic regression of each AU, in the unit of the features as they come from the encoder.

    An AU whose known labels were all alike has no probe: its bias and its scores are NaN.
    """

    c: float  # inverse strength of the penalty, as in scikit-learn
    weight: Tensor  # (K, D) on the AU's own features, or (K, K * D) on those of all AUs; float64
    bias: Tensor  # (K), float64
    unsettled: int  # AUs whose fit stopped at the limit of its steps

    def scores(self, features: Array) -> Array:
        """Probabilities (m, K) float64 of features (m, K, D), of any frames; float64 keeps high ones apart."""
        x = torch.from_numpy(features).double()  # (m, K, D)
        if self.weight.shape[1] == x.shape[2]:
            logits = torch.einsum("mkd,kd->mk", x, self.weight)  # (m, K)
        else:
            logits = x.flatten(1) @ self.weight.T  # (m, K)
        return torch.sigmoid(logits + self.bias).numpy()  # (m, K)

    def linear(self) -> LinearProbe:
        """The same probe on own features, for images: float32, on the CPU and in eval mode."""
        probe = LinearProbe(*self.weight.shape)
        probe.load_state_dict({"weight": self.weight.float(), "bias": self.bias.float()})
        return probe.eval()


def fit_ridge(
    features: Array,
    labels: Array,
    *,
    all_aus: bool = False,
    strengths: Sequence[float] = STRENGTHS,
    device: str = "cpu",
    tolerance: float = 1e-7,
    limit: int = 100,
) -> list[RidgeProbe]:
    """Fit L2-regularised logistic regression of all AUs at once, for each strength of the penalty.

    For an AU with features x_i, standardised on these frames, and known labels y_i = -1 or 1 it minimises
    |w|^2 / 2 + C sum_i log(1 + exp(-y_i (w x_i + b))), the objective of scikit-learn's LogisticRegression. Unknown
    labels enter no sum. Newton's method with a line search goes along C from the smallest, each time from the solution
    before. Features are rotated to their principal axes first, which leaves the objective as it is. The system of a
    step is solved by Cholesky for own features, and by conjugate gradients for those of all AUs, which share a matrix.

    Args:
        features: (n, K, D) float32.
        labels: (n, K) in {-1, 0, 1}.
        all_aus: let each AU see the features of all AUs.
        strengths: values of C, increasing.
        device: where to compute, in float64.
        tolerance: of the gradient's norm in the metric of the Hessian's diagonal, about the error of w and b.
        limit: Newton steps for one C.

    Returns:
        One probe per strength, on the CPU.

    Raises:
        DataError: a feature is not finite, the shapes do not fit, or no AU has both labels.
    """
    _demand(features, labels)
    x = torch.from_numpy(features).to(device).double()  # (n, K, D)
    known = torch.from_numpy(labels >= 0).to(x)  # (n, K)
    present = torch.from_numpy(labels == 1).to(x)  # (n, K)
    x = x.flatten(1)[None] if all_aus else x.transpose(0, 1)  # (G, n, P): G = 1 and P = K * D, or G = K and P = D
    known, present = (y[None] if all_aus else y.T[:, :, None] for y in (known, present))  # (G, n, A), G * A = K
    mean, scale = x.mean(1, keepdim=True), x.std(1, correction=0, keepdim=True)  # (G, 1, P)
    scale = torch.where(x.amax(1, keepdim=True) > x.amin(1, keepdim=True), scale, 1)  # rounding is no variation
    left, values, axes = torch.linalg.svd((x - mean) / scale, full_matrices=False)  # axes (G, R, P)
    z = F.pad(left * values[:, None], (0, 1), value=1.0)  # (G, n, R + 1), the intercept last

    ones, frames = present.sum(1, keepdim=True), known.sum(1, keepdim=True)  # (G, 1, A)
    has_probe = (ones > 0) & (ones < frames)  # (G, 1, A)
    known = known * has_probe  # an AU without a probe is settled from the start
    v = z.new_zeros(len(z), z.shape[2], known.shape[2])  # (G, R + 1, A)
    v[:, -1:] = torch.where(has_probe, torch.logit(ones / frames), 0)
    if not has_probe.any():
        raise DataError("probe: no AU is both present and absent among the training frames")
    probes = []
    for c in strengths:
        v, unsettled = _newton(z, present, known, v, c, tolerance, limit)
        weight = (axes.mT @ v[:, :-1]) / scale.mT  # (G, P, A)
        bias = torch.where(has_probe, v[:, -1:] - mean @ weight, torch.nan)  # (G, 1, A)
        probes.append(RidgeProbe(c, weight.mT.flatten(0, 1).cpu(), bias.flatten().cpu(), unsettled))
    return probes


def _newton(
    z: Tensor, present: Tensor, known: Tensor, v: Tensor, c: float, tolerance: float, limit: int
) -> tuple[Tensor, int]:
    """Minimise from v (G, R + 1, A); give the solution and how many AUs have not reached the tolerance."""
    penalised = torch.ones_like(z[0, 0, :, None])  # (R + 1, 1)
    penalised[-1] = 0
    signs, squares = 1 - 2 * present, z.square().mT  # (G, n, A), (G, R + 1, n)

    def objective(v: Tensor, logits: Tensor) -> Tensor:
        penalty = (penalised * v.square()).sum(1, keepdim=True) / 2  # (G, 1, A)
        return penalty + c * (known * F.softplus(signs * logits)).sum(1, keepdim=True)  # (G, 1, A)

    for step in range(limit + 1):
        logits = z @ v  # (G, n, A)
        p = torch.sigmoid(logits)  # (G, n, A)
        gradient = penalised * v + c * (z.mT @ (known * (p - present)))  # (G, R + 1, A)
        curvature = c * known * p * (1 - p)  # (G, n, A)
        diagonal = (penalised + squares @ curvature).clamp(min=1e-12)  # (G, R + 1, A)
        error = gradient.square() / (diagonal * diagonal.clamp(max=1))  # the intercept alone is below 1, at a small C
        norm = error.sum(1, keepdim=True).sqrt()  # (G, 1, A)
        moving = norm > tolerance  # (G, 1, A)
        if step == limit or not moving.any():
            break
        if v.shape[2] == 1:
            hessian = (z * curvature).mT @ z + torch.diag(penalised[:, 0])  # (G, R + 1, R + 1)
            hessian[:, -1, -1].clamp_(min=1e-12)
            direction = torch.cholesky_solve(-gradient * moving, torch.linalg.cholesky(hessian))  # (G, R + 1, A)
        else:
            direction = _conjugate_gradients(z, curvature, penalised, diagonal, -gradient * moving)
        slope, start = (gradient * direction).sum(1, keepdim=True), objective(v, logits)  # (G, 1, A)
        along, size = z @ direction, torch.ones_like(slope)  # (G, n, A), (G, 1, A)
        for _ in range(40):  # a halved step that rounding alone refuses ends here, too
            high = objective(v + size * direction, logits + size * along) > start + 1e-4 * size * slope
            high &= -slope > 1e-12 * start  # smaller gains drown in rounding
            if not high.any():
                break
            size = torch.where(high, size / 2, size)
        v = v + size * direction
    return v, int(moving.sum())


def _conjugate_gradients(z: Tensor, curvature: Tensor, penalised: Tensor, diagonal: Tensor, rest: Tensor) -> Tensor:
    """Solve (diag(penalised) + z' curvature z) u = rest for each AU, preconditioned by the diagonal of that matrix.

    The nearer Newton's method is to its end, the better: the residual falls to a tenth or, below a norm of .01, to the
    root of the norm, at least.
    """
    u = torch.zeros_like(rest)  # (G, R + 1, A), as all below but the sums
    scaled = rest / diagonal
    search, now = scaled, (rest * scaled).sum(1, keepdim=True)  # sums (G, 1, A)
    goal = now * now.sqrt().clamp(max=0.01)
    moving = now > 0
    for _ in range(1000):
        if not moving.any():
            break
        image = penalised * search + z.mT @ (curvature * (z @ search))
        size = torch.where(moving, now / (search * image).sum(1, keepdim=True), 0)
        u, rest = u + size * search, rest - size * image
        scaled, before = rest / diagonal, now
        now = (rest * scaled).sum(1, keepdim=True)
        moving = moving & (now > goal)
        search = torch.where(moving, scaled + (now / before) * search, 0)
    return u


def choose(values: Sequence[float]) -> int:
    """The place of the highest value, the first of equal ones; NaN is lower than any."""
    return int(np.argmax([-math.inf if math.isnan(value) else value for value in values]))


RULES = ("last", "inner_val", "oracle")
RIDGE = ("ridge", "ridge_all")  # on the features of the AU itself, and on those of all AUs
HEADS = (*RIDGE, "probe", "own", "knn")
PATH = ("c", "val_auc", "clean_val_auc", "test_auc", "unsettled", "chosen", "regret")


class Monitor:
    """The check of a run: scores of inner validation and test from the frozen encoder, for three epoch rules.

    A check embeds the training, validation and test frames once, fits the probes on training frames with noisy labels
    and scores with up to five heads: `own` (the head of a supervised method), `probe`, `knn`, and with `ridge` the two
    ridge probes `ridge` and `ridge_all`. It keeps the scores of three checks: `last`; `inner_val`, that with the
    highest AUC on the inner validation (noisy labels); and `oracle`, that with the highest AUC on the test (clean
    labels), which an honest table sets apart. The probe chooses, or `ridge` where it is asked for, as every method has
    it. A ridge probe has one C for all AUs, the smallest of those with the highest macro-AUC on the inner validation.

    Args:
        features: from row numbers (m,) to features (m, K, D) of those frames; for an encoder in training, `embed`.
        split: rows for training, inner validation and test.
        noisy: (n, K) labels of training and inner validation.
        clean: (n, K) labels of the test; for ridge probes of the inner validation, too.
        subjects: (n,).
        aus: the K AU numbers.
        scored: the AUs of the means, see `evaluation.scored_aus`; if there is none, as in a tiny trial, the means of
            the curves are over all.
        seed: of the probe.
        head: the own head of a supervised method.
        probe_epochs: see `fit_probe`, `probe_learning_rate` likewise.
        knn_frames: training frames that kNN searches, evenly spaced over the training rows: neighbouring frames are
            near duplicates, and the search is quadratic.
        ridge: score the ridge probes, too.
        others_from: with `ridge`, the epoch from which the other heads, `ridge_all` included, are scored beside it.
        lengths: epochs whose scores are kept under a rule of their own, `at 40` for 40.
        targets: rows of further frames (n) each, scored after those of the test; nothing is chosen by them.
        device: where the ridge probes are fitted.
    """

    def __init__(
        self,
        features: Callable[[Array], Array],
        *,
        split: Split,
        noisy: Array,
        clean: Array,
        subjects: Array,
        aus: Sequence[int],
        scored: Sequence[int],
        seed: int,
        head: LinearProbe | None = None,
        probe_epochs: int = 100,
        probe_learning_rate: float = 1e-3,
        knn_frames: int = 4096,
        ridge: bool = False,
        others_from: int = 0,
        lengths: Sequence[int] = (),
        targets: Sequence[Array] = (),
        device: str = "cpu",
    ) -> None:
        self.features, self.split, self.head = features, split, head
        self.noisy, self.clean, self.subjects = noisy, clean, np.asarray(subjects)
        self.aus, self.scored = tuple(aus), tuple(scored)
        self.knn_frames, self.ridge, self.others_from, self.device = knn_frames, ridge, others_from, device
        self.lengths = tuple(lengths)
        self.scored_rows = np.concatenate([split.test, *targets])
        """The frames of test and targets (n), rows of the table."""
        self._fit = partial(fit_probe, seed=seed, epochs=probe_epochs, learning_rate=probe_learning_rate)
        self.scores: dict[str, dict[str, tuple[Array, Array]]] = {}
        """Epoch rule -> head -> probabilities (validation (m, K), test (n, K)), for `evaluation.score_tables`."""
        self.epochs: dict[str, int] = {}
        """Epoch rule -> the epoch it chose."""
        self.probe: LinearProbe | None = None
        """The probe of the last check, that on own features with `ridge`."""
        self.ridges: dict[str, RidgeProbe] = {}
        """Head -> the ridge probe of the last check, to score frames of further data sets."""
        self.paths: dict[str, dict[str, pd.DataFrame]] = {}
        """Epoch rule -> head -> one row for each C, see `ridge_table`."""
        self._best: dict[str, float] = {}

    def __call__(self, epoch: int, /) -> dict[str, float]:
        """Score the encoder as it is.

        Returns:
            val_auc and val_f1 (noisy labels of the inner validation), test_auc and test_f1 (clean labels of the test,
            for the oracle column only): means over the scored AUs, F1 at the threshold 0.5.
        """
        split = self.split
        train, validation, test = (self.features(rows) for rows in (split.train, split.validation, self.scored_rows))
        scores, paths = {}, {}
        others = not self.ridge or epoch >= self.others_from
        if self.ridge:
            for head in RIDGE if others else RIDGE[:1]:
                self.ridges[head], paths[head] = self._ridge(head, train, validation, test)
                scores[head] = (self.ridges[head].scores(validation), self.ridges[head].scores(test))
            self.probe = self.ridges["ridge"].linear()
        if others:
            probe = self._fit(train, self.noisy[split.train])
            self.probe = self.probe if self.ridge else probe
            scores["probe"] = (probabilities(probe, validation), probabilities(probe, test))
            if self.head is not None:
                scores["own"] = (probabilities(self.head, validation), probabilities(self.head, test))
            some = np.unique(np.linspace(0, len(train) - 1, min(len(train), self.knn_frames)).round().astype(int))
            near, labels = train[some], self.noisy[split.train[some]]
            scores["knn"] = (knn(near, labels, validation), knn(near, labels, test))

        decides = scores["ridge" if self.ridge else "probe"]
        values = self._means("val", split.validation, self.noisy, decides[0])
        values |= self._means("test", split.test, self.clean, decides[1][: len(split.test)])
        ranks = dict(zip(RULES, (float(epoch), values["val_auc"], values["test_auc"]), strict=True))
        for rule, value in (ranks | ({f"at {epoch}": 0.0} if epoch in self.lengths else {})).items():
            # A mean that is undefined is better than none and worse than any.
            value = -math.inf if math.isnan(value) else value
            if rule not in self._best or value > self._best[rule]:
                self._best[rule], self.epochs[rule], self.scores[rule] = value, epoch, scores
                self.paths[rule] = paths
        return values

    def _ridge(self, head: str, train: Array, validation: Array, test: Array) -> tuple[RidgeProbe, pd.DataFrame]:
        """The ridge probe with the chosen C, and the scores of every C."""
        split = self.split
        # Features that AUs share are penalised as one set, not as K copies of it.
        all_aus = head == "ridge_all" and train.strides[1] != 0
        probes = fit_ridge(train, self.noisy[split.train], all_aus=all_aus, device=self.device)
        scores = [probe.scores(validation) for probe in probes]
        noisy = [self._auc(self.noisy[split.validation], values) for values in scores]
        clean = [self._auc(self.clean[split.validation], values) for values in scores]
        test = test[: len(split.test)]  # without targets
        tested = np.array([self._auc(self.clean[split.test], probe.scores(test)) for probe in probes])
        best, regret = choose(noisy), tested[choose(clean)] - tested
        chosen, unsettled = np.arange(len(probes)) == best, [probe.unsettled for probe in probes]
        columns = ([probe.c for probe in probes], noisy, clean, tested, unsettled, chosen, regret)
        return probes[best], pd.DataFrame(dict(zip(PATH, columns, strict=True)), dtype=np.float64)

    def _auc(self, labels: Array, scores: Array) -> float:
        """The macro-AUC that `_means` gives, without its sums for each subject."""
        pairs = concordance(*unscored_unknown(labels, scores), np.zeros(len(labels)), self.aus)
        return macro(auc(pairs), self.scored or self.aus)

    def ridge_table(self) -> pd.DataFrame:
        """How C was chosen: one row for each epoch rule, ridge head and C; empty without ridge probes.

        Columns: head, epoch_rule, epoch, c; val_auc (noisy labels), clean_val_auc and test_auc (clean labels), means
        over the scored AUs; unsettled, the number of AUs whose fit stopped at its limit of steps; chosen; regret, the
        test_auc of the C that clean labels of the inner validation choose, minus that of the row; and warning.
        """
        tables = []
        for rule, heads in self.paths.items():
            for head, path in heads.items():
                first = self.scores[rule][head][1][0]  # (K)
                without = ", ".join(f"AU{au}" for au, score in zip(self.aus, first, strict=True) if math.isnan(score))
                table = path.astype({"unsettled": int, "chosen": bool})
                edge = table["chosen"] & (table.index.isin((0, len(table) - 1)))
                said = {
                    "not converged": table["unsettled"] > 0,
                    "C at the edge of the grid": edge,
                    f"no probe of {without}, whose known labels are all alike": bool(without),
                }
                warning = pd.DataFrame(said, index=table.index).apply(lambda row: "; ".join(row.index[row]), axis=1)
                place = {"head": head, "epoch_rule": rule, "epoch": self.epochs[rule]}
                tables.append(pd.DataFrame(place, index=table.index).join(table).assign(warning=warning))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def _means(self, name: str, rows: Array, labels: Array, scores: Array) -> dict[str, float]:
        subjects, means_over = self.subjects[rows], self.scored or self.aus
        labels, scores = unscored_unknown(labels[rows], scores)
        pairs = concordance(labels, scores, subjects, self.aus)
        counts = occurrence_counts(labels, scores >= 0.5, subjects, self.aus)
        return {f"{name}_auc": macro(auc(pairs), means_over), f"{name}_f1": macro(f1(counts), means_over)}

    def state(self) -> dict[str, Tensor]:
        """What the checkpoint keeps: a killed run continues with these scores."""
        kept = {  # one epoch may serve several rules
            f"{self.epochs[rule]}.{head}.{place}": torch.from_numpy(array)
            for rule, heads in self.scores.items()
            for head, pair in heads.items()
            for place, array in zip(("validation", "test"), pair, strict=True)
        }
        kept |= {
            f"{self.epochs[rule]}.{head}.path": torch.tensor(path.to_numpy(dtype=np.float64))
            for rule, heads in self.paths.items()
            for head, path in heads.items()
        }
        for head, ridge in self.ridges.items():
            fit = torch.tensor([ridge.c, ridge.unsettled], dtype=torch.float64)
            kept |= {f"{head}.weight": ridge.weight, f"{head}.bias": ridge.bias, f"{head}.fit": fit}
        chosen = {
            rule: torch.tensor([self._best[rule], self.epochs[rule]], dtype=torch.float64) for rule in self.scores
        }
        probe = {} if self.probe is None else self.probe.state_dict(prefix="probe.")
        return kept | chosen | probe

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        if "probe.weight" in state:
            self.probe = LinearProbe(*state["probe.weight"].shape).eval()
            self.probe.load_state_dict({name: state[f"probe.{name}"] for name in ("weight", "bias")})
        for head in (head for head in RIDGE if f"{head}.weight" in state):
            c, unsettled = state[f"{head}.fit"].tolist()
            self.ridges[head] = RidgeProbe(c, state[f"{head}.weight"], state[f"{head}.bias"], int(unsettled))
        for rule in (rule for rule in (*RULES, *(f"at {length}" for length in self.lengths)) if rule in state):
            self._best[rule], epoch = state[rule][0].item(), int(state[rule][1])
            self.epochs[rule] = epoch
            self.scores[rule] = {
                head: (state[f"{epoch}.{head}.validation"].numpy(), state[f"{epoch}.{head}.test"].numpy())
                for head in HEADS  # the rows of the tables follow this order
                if f"{epoch}.{head}.test" in state
            }
            self.paths[rule] = {
                head: pd.DataFrame(state[f"{epoch}.{head}.path"].numpy(), columns=list(PATH))
                for head in RIDGE
                if f"{epoch}.{head}.path" in state
            }
