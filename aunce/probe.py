"""The frozen encoder and what is scored on it: features, linear probes, and the check that a training calls.

Every method is scored alike, so that methods differ by their training alone.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aunce.data.frames import Split
from aunce.errors import DataError
from aunce.evaluation import auc, concordance, f1, knn, macro, occurrence_counts
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
    if features.ndim != 3 or labels.shape != features.shape[:2]:
        raise DataError(
            f"probe: expected features (n, K, D) and labels (n, K), got {features.shape} and {labels.shape}"
        )
    if not np.isfinite(features).all():
        raise DataError("probe: expected finite features; the encoder's weights may have diverged")
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


RULES = ("last", "inner_val", "oracle")
HEADS = ("probe", "own", "knn")


class Monitor:
    """The check of a run: scores of inner validation and test from the frozen encoder, for three epoch rules.

    A check embeds the training, validation and test frames once, fits the probe on training frames with noisy labels
    and scores with up to three heads: `own` (the head of a supervised method), `probe` and `knn`. It keeps the scores
    of three checks: `last`; `inner_val`, that with the highest AUC on the inner validation (noisy labels); and
    `oracle`, that with the highest AUC on the test (clean labels), which an honest table sets apart. The probe chooses,
    as it is the head that every method has.

    Args:
        features: from row numbers (m,) to features (m, K, D) of those frames; for an encoder in training, `embed`.
        split: rows for training, inner validation and test.
        noisy: (n, K) labels of training and inner validation.
        clean: (n, K) labels of the test.
        subjects: (n,).
        aus: the K AU numbers.
        scored: the AUs of the means, see `evaluation.scored_aus`; if there is none, as in a tiny trial, the means of
            the curves are over all.
        seed: of the probe.
        head: the own head of a supervised method.
        probe_epochs: see `fit_probe`, `probe_learning_rate` likewise.
        knn_frames: training frames that kNN searches, evenly spaced over the training rows: neighbouring frames are
            near duplicates, and the search is quadratic.
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
    ) -> None:
        self.features, self.split, self.head = features, split, head
        self.noisy, self.clean, self.subjects = noisy, clean, np.asarray(subjects)
        self.aus, self.scored = tuple(aus), tuple(scored)
        self.knn_frames = knn_frames
        self._fit = partial(fit_probe, seed=seed, epochs=probe_epochs, learning_rate=probe_learning_rate)
        self.scores: dict[str, dict[str, tuple[Array, Array]]] = {}
        """Epoch rule -> head -> probabilities (validation (m, K), test (n, K)), for `evaluation.score_tables`."""
        self.epochs: dict[str, int] = {}
        """Epoch rule -> the epoch it chose."""
        self.probe: LinearProbe | None = None
        """The probe of the last check."""
        self._best: dict[str, float] = {}

    def __call__(self, epoch: int, /) -> dict[str, float]:
        """Score the encoder as it is.

        Returns:
            val_auc and val_f1 (noisy labels of the inner validation), test_auc and test_f1 (clean labels of the test,
            for the oracle column only): means over the scored AUs, F1 at the threshold 0.5.
        """
        split = self.split
        train, validation, test = (self.features(rows) for rows in (split.train, split.validation, split.test))
        self.probe = probe = self._fit(train, self.noisy[split.train])
        scores = {"probe": (probabilities(probe, validation), probabilities(probe, test))}
        if self.head is not None:
            scores["own"] = (probabilities(self.head, validation), probabilities(self.head, test))
        some = np.unique(np.linspace(0, len(train) - 1, min(len(train), self.knn_frames)).round().astype(int))
        near, labels = train[some], self.noisy[split.train[some]]
        scores["knn"] = (knn(near, labels, validation), knn(near, labels, test))

        values = self._means("val", split.validation, self.noisy, scores["probe"][0])
        values |= self._means("test", split.test, self.clean, scores["probe"][1])
        for rule, value in zip(RULES, (float(epoch), values["val_auc"], values["test_auc"]), strict=True):
            # A mean that is undefined is better than none and worse than any.
            value = -math.inf if math.isnan(value) else value
            if rule not in self._best or value > self._best[rule]:
                self._best[rule], self.epochs[rule], self.scores[rule] = value, epoch, scores
        return values

    def _means(self, name: str, rows: Array, labels: Array, scores: Array) -> dict[str, float]:
        labels, subjects, means_over = labels[rows], self.subjects[rows], self.scored or self.aus
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
        for rule in (rule for rule in RULES if rule in state):
            self._best[rule], epoch = state[rule][0].item(), int(state[rule][1])
            self.epochs[rule] = epoch
            self.scores[rule] = {
                head: (state[f"{epoch}.{head}.validation"].numpy(), state[f"{epoch}.{head}.test"].numpy())
                for head in HEADS  # the rows of the tables follow this order
                if f"{epoch}.{head}.test" in state
            }
