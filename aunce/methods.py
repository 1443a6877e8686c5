"""What each `method` of a run trains, and on which features it is scored: the one place where names meet losses.

Every method is scored alike, by `probe.Monitor`: a linear probe and kNN on frozen features, and the own head where
there is one. Floors and the ceiling are methods too: their features are not learned, or learned from shuffled labels.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from aunce import evaluation
from aunce.backbones import load_backbone
from aunce.data import noise, prepare, transfer
from aunce.data.frames import FrameTable, Split
from aunce.data.images import FaceCrops
from aunce.data.recipes import Recipe
from aunce.devices import pick_device
from aunce.errors import DataError, UsageError
from aunce.evaluation import Array, Scores, scored_aus
from aunce.losses import EXPONENTS, AUNCELoss, infonce, own_view_share, supcon
from aunce.model import Encoder, build_encoder, build_probe
from aunce.probe import Monitor, embed, fit_train_mode_probe, probabilities
from aunce.processes import first_process
from aunce.study.spec import CONTRASTIVE, RunSpec
from aunce.supervised import au_weights, supervised_loss
from aunce.training import ContrastiveLoss, Optimisation, Training, fit_supervised, pretrain

LOSS_OPTIONS = ("exponents", "positive", "positive_probs", "exclude", "positive_mean", "draw")
"""Switches of a run that `aunce_loss` has under the same name."""

RAW_SIDE = 24  # pixels: the raw-pixel floor is a linear probe on grey images of this side


@dataclass(frozen=True)
class Trained:
    """A finished training: its history, the scores that its monitor kept, and the encoder if there is one."""

    history: pd.DataFrame
    monitor: Monitor
    encoder: Encoder | None


def crops(spec: RunSpec) -> FaceCrops:
    """The crops that a run trains and tests on, see `aunce.data.prepare`; several are joined, see `transfer`.

    Raises:
        UsageError: landmarks are asked for and missing, two data sets do not go together, or packs of populations are
            missing.
        DataError: a folder is not what it should be.
    """
    recipe = Recipe(spec.pixels, spec.align, spec.detector)
    pack = prepare(spec.dataset, spec.root, recipe=recipe, protocol=spec.protocol)
    if spec.test_dataset:
        return transfer.join(pack, prepare(spec.test_dataset, spec.test_root, recipe=recipe))
    if not spec.populations:
        return pack
    datasets = [spec.dataset] * (1 + spec.populations) + [target.partition(":")[2] for target in spec.targets]
    if len(spec.other_roots) != len(datasets):
        raise UsageError(
            f"populations = {spec.populations} and {len(spec.targets)} targets need {len(datasets)} packs in "
            f"other_roots, and there are {len(spec.other_roots)}; `aunce run` makes them and hands them on"
        )
    protocols = [spec.protocol if dataset == spec.dataset else "" for dataset in datasets]
    validation, *others = (
        prepare(dataset, root, recipe=recipe, protocol=protocol)
        for dataset, root, protocol in zip(datasets, spec.other_roots, protocols, strict=True)
    )
    tests, targets = others[: spec.populations], others[spec.populations :]
    return transfer.join_populations(pack, validation, tests, dict(zip(spec.targets, targets, strict=True)))


def split_of(spec: RunSpec, table: FrameTable) -> Split:
    """The rows for training, inner validation and test: parts of one population, or populations of their own.

    Raises:
        DataError: see `FrameTable.split`.
    """
    return transfer.split(table) if spec.populations else table.split(spec.test_part, seed=spec.replicate)


def rows_of_targets(spec: RunSpec, table: FrameTable) -> dict[str, Array]:
    """The rows of each target of a run, ascending."""
    return {name: np.flatnonzero(table.frames["part"] == name) for name in spec.targets}


def scored_aus_of_targets(spec: RunSpec, table: FrameTable) -> dict[str, tuple[int, ...]]:
    """The AUs of each target that enter means, see `evaluation.scored_aus`."""
    return {
        name: scored_aus(table.labels[rows], table.frames["subject"].iloc[rows], table.aus, table.null_aus)
        for name, rows in rows_of_targets(spec, table).items()
    }


def noisy_labels(spec: RunSpec, pack: FaceCrops) -> Array:
    """The labels (n, K) with the annotator noise of a run; those of targets stay clean, and have no part in it."""
    labels = pack.table.labels
    home = np.flatnonzero(~pack.table.frames["part"].isin(spec.targets))  # targets come last
    labels[home] = noise.annotate(
        dataclasses.replace(pack.table, frames=pack.table.frames.iloc[home]),
        kind=spec.noise_kind,
        rate=spec.noise_rate,
        seed=spec.replicate,
        intensity=None if pack.latents is None else pack.latents.iloc[home],
        preserve_rate=spec.noise_keeps_rates,
    )
    return labels


def score_tables(
    spec: RunSpec, table: FrameTable, split: Split, noisy: Array, scores: Scores
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts and pairs of a run, see `evaluation.score_tables`; populations take the place of subjects.

    With targets both tables have a column `target`, empty for the test itself. The threshold `tuned` is the test's, and
    targets are scored on their clean labels.

    Args:
        spec: the run.
        table: the frames with their clean labels.
        split: rows for training, inner validation and test.
        noisy: (n, K) labels of inner validation and test.
        scores: of validation and of test and targets, see `probe.Monitor.scores`.
    """
    clean, subjects, stop, found = table.labels, table.frames["subject"], 0, []
    for name, rows in {"": split.test, **rows_of_targets(spec, table)}.items():
        start, stop = stop, stop + len(rows)
        mine = {
            rule: {head: (validation, scored[start:stop]) for head, (validation, scored) in heads.items()}
            for rule, heads in scores.items()
        }
        truths = {"clean": clean[rows]} | ({} if name else {"noisy": noisy[rows]})
        people = subjects.iloc[rows]
        groups = transfer.population_of(people) if spec.populations else None
        counts, pairs = evaluation.score_tables(mine, noisy[split.validation], truths, people, table.aus, groups)
        found.append([one.assign(target=name) if spec.targets else one for one in (counts, pairs)])
    counts, pairs = (pd.concat(parts, ignore_index=True) for parts in zip(*found, strict=True))
    return counts, pairs


def train(
    spec: RunSpec, pack: FaceCrops, split: Split, noisy: Array, *, folder: Path, log: Callable[[str], None] = print
) -> Trained:
    """Train what `spec.method` names, and score it.

    Args:
        spec: the run.
        pack: crops with their clean labels.
        split: rows for training, inner validation and test.
        noisy: (n, K) labels of training and inner validation.
        folder: of the run; holds the checkpoint from which a killed training continues.
        log: takes one line an epoch.

    Raises:
        UsageError: a pretext without its weights.
        DataError: the method needs latent intensities, and the faces are not rendered.
        RunError: the loss is not finite.
    """
    table = pack.table
    subjects = table.frames["subject"].to_numpy()
    clean = table.labels
    device = pick_device(spec.device)
    if spec.method == "shuffled":
        noisy = shuffle(noisy, split, seed=spec.replicate)
    alone = spec.probe == "ridge alone"
    monitor = partial(
        Monitor,
        split=split,
        noisy=noisy,
        clean=clean,
        subjects=subjects,
        aus=table.aus,
        scored=scored_aus(clean[split.test], subjects[split.test], table.aus, table.null_aus),
        seed=spec.replicate,
        probe_epochs=spec.probe_epochs,
        probe_learning_rate=spec.probe_learning_rate,
        ridge=spec.probe != "linear",
        others_from=spec.epochs + 1 if alone else 0,
        targets=[*rows_of_targets(spec, table).values()],
        device=device,
    )
    if spec.method in ("pixels", "latent"):
        features = raw_pixels(pack.images, split) if spec.method == "pixels" else latent_intensities(pack)
        return _untrained(monitor(_shared_by_aus(features, len(table.aus))), None)
    encoder = untrained_encoder(spec, len(table.aus))
    if spec.pretext:
        if not spec.start:
            raise UsageError("pretext needs start, the weights that it left; `aunce run` makes them and hands them on")
        load_backbone(encoder.backbone, Path(spec.start))
    embedding = partial(embed, encoder, pack.images, device=device, crop=spec.crop)
    if spec.method == "random":
        return _untrained(monitor(embedding), encoder)
    head = None if spec.method in CONTRASTIVE else build_probe(len(table.aus), spec.channels, seed=spec.replicate)
    scores = monitor(embedding, head=head, others_from=spec.epochs + alone, lengths=spec.lengths)
    training = Training(
        images=pack.images,
        labels=noisy,
        optimisation=Optimisation(
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            schedule=spec.schedule,
            lengths=tuple(spec.lengths),
        ),
        seed=spec.replicate,
        rows=split.train,
        aus=table.aus,
        sampling_weights=sampling_weights(noisy[split.train]) if spec.sampler == "balanced" else None,
        two_forwards=spec.two_forwards,
        crop=spec.crop,
        device=device,
        precision=spec.precision,
        compiled=spec.compiled,
        check=scores,
        checks=spec.checks,
        measure=(lambda z, y: {"own_view": own_view_share(z, y)}) if spec.method == "aunce" else None,
        name=folder.name,
        checkpoint=folder / "checkpoint",
        log=log,
    )
    # A kernel outlives a killed parent by a second or two; until then the checkpoint is its own.
    with FileLock(folder / ".training.lock") if first_process() else contextlib.nullcontext():
        if head is None:
            history = pretrain(encoder, contrastive_loss(spec, noisy[split.train]), training)
        else:
            loss = supervised_loss("bce" if spec.method == "shuffled" else spec.method, noisy[split.train])
            history = fit_supervised(encoder, head, loss, training)
    if spec.moving_probe:
        # Its scores need the last encoder alone, and a training that is continued has it again.
        moved, probe = fit_train_mode_probe(
            encoder,
            pack.images,
            noisy,
            rows=split.train,
            seed=spec.replicate,
            epochs=spec.probe_epochs,
            learning_rate=spec.probe_learning_rate,
            device=device,
            crop=spec.crop,
        )
        validation, test = (
            probabilities(probe, embed(moved, pack.images, rows, device=device, crop=spec.crop))
            for rows in (split.validation, scores.scored_rows)
        )
        scores.scores["last"] = scores.scores["last"] | {"moving": (validation, test)}  # other rules may share the dict
    return Trained(history, scores, encoder)


def untrained_encoder(spec: RunSpec, aus: int) -> Encoder:
    """The encoder of a run as its training begins, but for the backbone of a pretext.

    Raises:
        UsageError: the backbone cannot be read.
    """
    return build_encoder(
        spec.backbone,
        aus=aus,
        channels=spec.channels,
        seed=spec.replicate,
        revision=spec.revision or None,
        final_relu=spec.final_relu,
    )


def contrastive_loss(spec: RunSpec, labels: Array) -> ContrastiveLoss:
    """The contrastive loss of a run. AU weights and rarer labels are counted in the training `labels` (n, K)."""
    if spec.method == "supcon":
        return lambda z, y, generator, anchors: supcon(z, y, spec.temperature, anchors=anchors)
    if spec.method == "infonce":
        return lambda z, y, generator, anchors: infonce(z, spec.temperature, anchors=anchors)
    criterion = getattr(AUNCELoss, spec.preset)(temperature=spec.temperature, **_options(spec, labels))
    return lambda z, y, generator, anchors: torch.as_tensor(criterion(z, y, generator=generator, anchors=anchors))


def _options(spec: RunSpec, labels: Array) -> dict[str, Any]:
    """The options of `aunce_loss` in which a run differs from its preset."""
    options = {name: spec.switches[name] for name in LOSS_OPTIONS if name in spec.switches}
    if spec.weights:
        options |= {"normalize_weights": spec.weights == "normalised", "detach_weights": spec.weights == "detached"}
    if spec.au_weighted or spec.preset == "early":
        options["au_weights"] = au_weights(labels)
    if spec.rarer_label:
        absent, present = spec.exponents or EXPONENTS[spec.preset]
        often = (labels == 1).sum(0) > (labels == 0).sum(0)  # (K)
        pairs = [(present, absent) if swap else (absent, present) for swap in often]
        options["exponents"] = torch.tensor(pairs)  # (K, 2)
    return options


def sampling_weights(labels: Array) -> Array:
    """How likely a balanced sampler draws each frame: as one over the rate of the rarest AU that it shows.

    A frame without an AU counts as one of the most frequent AU.

    Args:
        labels: (n, K) in {-1, 0, 1}, of the training frames; they may be noisy.

    Returns:
        (n,) with sum 1.
    """
    present = labels == 1  # (n, K)
    inverse = len(labels) / np.maximum(present.sum(0), 1)  # (K)
    weight = np.where(present, inverse, inverse.min()).max(1)  # (n,)
    share: Array = weight / weight.sum()
    return share


def shuffle(labels: Array, split: Split, *, seed: int) -> Array:
    """Labels (n, K) permuted among the training frames, and among those of inner validation; rates are unchanged."""
    generator = np.random.default_rng(seed)
    shuffled = labels.copy()
    for rows in (split.train, split.validation):
        shuffled[rows] = labels[generator.permutation(rows)]
    return shuffled


def raw_pixels(images: Array, split: Split) -> Array:
    """Grey images of 24 x 24 pixels as features (n, 576), each pixel standardised on the training frames."""
    size = (RAW_SIDE, RAW_SIDE)
    grey = [cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA) for image in images]
    features = np.stack(grey).reshape(len(images), -1).astype(np.float32)  # (n, 576)
    train = features[split.train]
    standardised: Array = (features - train.mean(0)) / np.maximum(train.std(0), 1e-6)
    return standardised


def latent_intensities(pack: FaceCrops) -> Array:
    """The intensities that the faces were drawn from, as features (n, 17)."""
    if pack.latents is None:
        raise DataError(
            "method 'latent' needs the intensities that faces were drawn from; real data has none, leave it out"
        )
    intensities: Array = pack.latents.filter(regex=r"^AU\d+$").to_numpy(dtype=np.float32)
    return intensities


def _untrained(scores: Monitor, encoder: Encoder | None) -> Trained:
    row = {"epoch": 0, "loss": np.nan, "learning_rate": 0.0, "seconds": 0.0} | scores(0)
    return Trained(pd.DataFrame([row]), scores, encoder)


def _shared_by_aus(features: Array, aus: int) -> Callable[[Array], Array]:
    def of_rows(rows: Array) -> Array:
        chosen = features[rows]  # (n, D)
        shape, strides = (len(rows), aus, chosen.shape[1]), (chosen.strides[0], 0, chosen.strides[1])
        return np.lib.stride_tricks.as_strided(chosen, shape, strides)  # (n, K, D), one copy for all AUs

    return of_rows
