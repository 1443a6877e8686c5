"""Methods: that each name trains and scores what it says, on a tiny rendered data set."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from sklearn.metrics import f1_score, roc_auc_score

from aunce import methods
from aunce.data import noise, prepare, transfer
from aunce.data.frames import FrameTable, Protocol, Split
from aunce.data.recipes import Recipe
from aunce.errors import DataError, RunError
from aunce.evaluation import auc
from aunce.losses import aunce_loss, infonce, supcon
from aunce.study.grid import BACKBONE, WEIGHTS
from aunce.study.spec import CEILING, CONTRASTIVE, FLOORS, SUPERVISED, RunSpec
from aunce.supervised import au_weights, supervised_loss


@pytest.fixture(scope="module")
def pack():
    torch.set_num_threads(1)
    return prepare("bp4d", "", recipe=Recipe(32))


@pytest.fixture(scope="module")
def split(pack):
    return pack.table.split("3", seed=0)


def trained(method, pack, split, folder, **fields):
    small = {"epochs": 1, "checks": 1, "probe_epochs": 2, "pixels": 32, "channels": 8}
    spec = RunSpec(method=method, **small | fields)
    return methods.train(spec, pack, split, pack.table.labels, folder=folder, log=lambda line: None)


@pytest.mark.parametrize("method", SUPERVISED + CONTRASTIVE + FLOORS + CEILING)
def test_every_method_of_a_run_is_scored_by_probe_and_knn_on_all_test_frames(method, pack, split, tmp_path):
    result = trained(method, pack, dataclasses.replace(split, train=split.train[::3]), tmp_path)
    heads = result.monitor.scores["last"]
    assert {"probe", "knn"} <= heads.keys()
    assert ("own" in heads) == (method in (*SUPERVISED, "shuffled"))
    for _, test in heads.values():
        assert test.shape == (len(split.test), len(pack.table.aus))
        assert np.isfinite(test).all()
    assert result.history["val_auc"].notna().any()
    assert (result.encoder is None) == (method in ("pixels", "latent"))


def test_latent_intensities_are_a_ceiling_that_a_probe_nearly_reaches(pack, split, tmp_path):
    result = trained("latent", pack, split, tmp_path, probe_learning_rate=0.1, probe_epochs=50)
    assert result.history["val_auc"].item() > 0.93  # of 13 AUs, one of which is never drawn


def test_latent_intensities_of_photographs_do_not_exist(pack, split, tmp_path):
    real = dataclasses.replace(pack, latents=None)
    with pytest.raises(DataError, match="real data has none"):
        trained("latent", real, split, tmp_path)


def test_shuffled_labels_keep_rates_and_cooccurrence_and_leave_the_test_alone(pack, split):
    labels = pack.table.labels
    shuffled = methods.shuffle(labels, split, seed=0)
    assert np.array_equal(shuffled[split.test], labels[split.test])
    for rows in (split.train, split.validation):
        assert not np.array_equal(shuffled[rows], labels[rows])
        assert np.array_equal(np.sort(shuffled[rows], axis=0), np.sort(labels[rows], axis=0))
        assert np.array_equal(shuffled[rows].T.astype(int) @ shuffled[rows], labels[rows].T.astype(int) @ labels[rows])


def test_raw_pixels_are_standardised_by_training_frames_alone():
    images = np.random.default_rng(0).integers(0, 255, (30, 48, 48, 3), dtype=np.uint8)
    split = Split(np.arange(20), np.arange(20, 25), np.arange(25, 30))
    features = methods.raw_pixels(images, split)
    np.testing.assert_allclose(features[:20].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(features[:20].std(0), 1, atol=1e-4)
    images[25:] = 0
    np.testing.assert_array_equal(methods.raw_pixels(images, split)[:25], features[:25])


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 8, 3, 5, generator=generator)
    return z, torch.randint(-1, 2, (8, 3), generator=generator)


def test_names_of_contrastive_methods_mean_these_losses(batch):
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 0]], dtype=np.int8)
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    cases = {
        ("supcon", "released"): supcon(*batch, 0.2),
        ("infonce", "released"): infonce(batch[0], 0.2),
        ("aunce", "released"): aunce_loss(*batch, temperature=0.2, generator=draws[0]),
        ("aunce", "early"): aunce_loss(
            *batch, temperature=0.2, exponents=(0.4, 1.2), au_weights=au_weights(labels), generator=draws[1]
        ),
    }
    for (method, preset), expected in cases.items():
        loss = methods.contrastive_loss(RunSpec(method=method, preset=preset, temperature=0.2), labels)
        assert loss(*batch, torch.Generator().manual_seed(1), None).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"exponents": [1.2, 0.8]}, {"exponents": (1.2, 0.8)}),
        ({"weights": "normalised"}, {"normalize_weights": True}),
        ({"weights": "detached"}, {"detach_weights": True}),
        ({"weights": "attached", "preset": "hcl"}, {"exclude": "image", "positive_mean": "positives"}),
        ({"positive": "view"}, {"positive": "view"}),
        (
            {"positive": "expected", "positive_probs": [0.1, 0.2, 0.7]},
            {"positive": "expected", "positive_probs": (0.1, 0.2, 0.7)},
        ),
        ({"exclude": "self", "positive_mean": "positives"}, {"exclude": "self", "positive_mean": "positives"}),
        ({"draw": "anchor"}, {"draw": "anchor"}),
        ({"rarer_label": True}, {"exponents": torch.tensor([[0.8, 1.2], [0.8, 1.2], [1.2, 0.8]])}),
        (
            {"rarer_label": True, "exponents": [0.4, 1.2]},
            {"exponents": torch.tensor([[0.4, 1.2], [0.4, 1.2], [1.2, 0.4]])},
        ),
    ],
)
def test_switches_of_a_run_are_the_options_of_the_loss(fields, options, batch):
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [-1, 0, 0]], dtype=np.int8)
    z, y = batch

    def gradient(loss):
        own = z.clone().requires_grad_()
        loss(own, torch.Generator().manual_seed(1)).backward()
        return own.grad

    spec = RunSpec(method="aunce", temperature=0.2, **fields)
    switched = methods.contrastive_loss(spec, labels)
    found = gradient(lambda own, draws: switched(own, y, draws, None))
    expected = gradient(lambda own, draws: aunce_loss(own, y, temperature=0.2, generator=draws, **options))
    released = gradient(lambda own, draws: aunce_loss(own, y, temperature=0.2, generator=draws))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, released)


def test_weights_of_aus_are_switched_alone(batch):
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 0]], dtype=np.int8)
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    loss = methods.contrastive_loss(RunSpec(method="aunce", au_weighted=True), labels)(*batch, draws[0], None)
    assert loss.item() == pytest.approx(aunce_loss(*batch, au_weights=au_weights(labels), generator=draws[1]).item())


def test_a_balanced_sampler_draws_a_frame_by_its_rarest_au():
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0], [1, -1]], dtype=np.int8)
    found = methods.sampling_weights(labels)
    weights = np.array([5 / 4, 5 / 4, 5, 5 / 4, 5 / 4])
    assert found == pytest.approx(weights / weights.sum())


def test_the_released_probe_is_scored_beside_the_frozen_one_where_it_is_asked_for(pack, split, tmp_path):
    scores = trained("aunce", pack, split, tmp_path, moving_probe=True).monitor.scores
    heads = scores["last"]
    assert heads.keys() == {"probe", "knn", "moving"}
    assert heads["moving"][1].shape == heads["probe"][1].shape
    assert not np.array_equal(heads["moving"][1], heads["probe"][1])
    assert all("moving" not in scores[rule] for rule in ("inner_val", "oracle"))  # whichever epoch they chose


def test_au_weights_balance_aus_and_have_mean_one():
    labels = np.array([[1, 0, -1], [0, 0, 1], [1, 0, 0], [1, 1, 0]], dtype=np.int8)
    weights = au_weights(labels).numpy()
    inverse = np.array([4 / 3, 4 / 1, 3 / 1])
    np.testing.assert_allclose(weights, inverse / inverse.mean(), rtol=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run_with_epoch_and_au(pack, split, tmp_path, monkeypatch):
    broken = supervised_loss("bce", pack.table.labels)
    monkeypatch.setattr(methods, "supervised_loss", lambda name, labels: lambda x, y: broken(x, y) * math.nan)
    with pytest.raises(RunError, match="epoch 1, step 1: the loss is not finite"):
        trained("bce", pack, split, tmp_path)


def test_noise_reaches_training_and_validation_but_never_the_clean_truth(pack, split, tmp_path):
    noisy = noise.annotate(pack.table, kind="flip", rate=0.4, seed=0)
    spec = RunSpec(method="latent", probe_epochs=2, pixels=32)
    result = methods.train(spec, pack, split, noisy, folder=tmp_path, log=lambda line: None)
    assert result.monitor.noisy is noisy
    assert np.array_equal(result.monitor.clean, pack.table.labels)


def test_the_floor_of_a_pretext_is_its_backbone_as_the_methods_of_the_replicate_begin_with_it(pack, split, tmp_path):
    """Left by another replicate, under a head of this one, and not trained."""
    left = trained("infonce", pack, split, tmp_path, replicate=7).encoder
    configuration = {BACKBONE: left.backbone.config.to_json_string()}
    weights = tmp_path / WEIGHTS
    safetensors.torch.save_file(
        {key: value.contiguous() for key, value in left.state_dict().items()}, weights, configuration
    )
    result = trained("random", pack, split, tmp_path, pretext=True, start=str(weights), probe="ridge")
    fresh = methods.untrained_encoder(RunSpec(channels=8), len(pack.table.aus)).state_dict()
    for name, value in result.encoder.state_dict().items():
        expected = left.state_dict() if name.startswith("backbone.") else fresh
        assert torch.equal(value, expected[name]), name
    alone = trained("random", pack, split, tmp_path, probe="ridge").monitor.scores["last"]["ridge"][1]
    assert not np.array_equal(result.monitor.scores["last"]["ridge"][1], alone)
    assert len(result.history) == 1


@pytest.mark.parametrize("method", ["random", "bce"])
def test_a_search_may_fit_the_ridge_probe_on_own_features_alone(pack, split, tmp_path, method):
    whole, alone = (
        trained(method, pack, split, tmp_path / kind, probe=kind).monitor for kind in ("ridge", "ridge alone")
    )
    assert [*alone.scores["last"]] == ["ridge"]
    assert len(whole.scores["last"]) > 3
    assert np.array_equal(whole.scores["last"]["ridge"][1], alone.scores["last"]["ridge"][1])


@pytest.fixture
def populations():
    """A table of populations as `transfer` joins them, AU 4 unknown on the target; and scores of its frames."""
    rng = np.random.default_rng(0)
    parts = {"train": "train", "validation": "validation", "test 1": "test", "test 2": "test", "drawn:gft": "drawn:gft"}
    names = [(part, f"{name}:F{person}") for name, part in parts.items() for person in range(4)]
    frames = pd.DataFrame(
        [(name, "T1", frame, "", part) for part, name in names for frame in range(25)],
        columns=["subject", "sequence", "frame", "image", "part"],
    )
    for au in (1, 4):
        frames[f"AU{au}"] = (rng.random(len(frames)) < 0.3).astype(np.int8)
    frames.loc[frames["part"] == "drawn:gft", "AU4"] = np.int8(-1)
    protocol = Protocol("p", (1, 4), {part: frozenset(some["subject"]) for part, some in frames.groupby("part")})
    table = FrameTable(frames, protocol)
    split = transfer.split(table)
    scored = np.concatenate([split.test, np.flatnonzero(frames["part"] == "drawn:gft")])
    scores = rng.random((len(frames), 2)).round(1)  # with ties
    return table, split, {"last": {"ridge": (scores[split.validation], scores[scored])}}, scores


def test_tables_of_populations_and_targets_give_the_scores_of_their_frames(populations):
    table, split, kept, scores = populations
    spec = RunSpec(populations=2, targets=["drawn:gft"], test_part="test")
    noisy = 1 - table.labels
    counts, pairs = methods.score_tables(spec, table, split, noisy, kept)
    place, labels = table.frames["subject"].str.rpartition(":")[0], table.labels
    assert set(counts["labels"][counts["target"] == "drawn:gft"]) == {"clean"}
    assert set(counts["labels"][counts["target"] == ""]) == {"clean", "noisy"}
    half = counts.query('labels == "clean" and threshold == "0.5"')
    assert [(*row,) for row in half[["subject", "au"]].itertuples(index=False)] == [
        ("test 1", 1), ("test 1", 4), ("test 2", 1), ("test 2", 4), ("drawn:gft", 1),
    ]  # fmt: skip
    for row in half.itertuples():
        rows, k = (place == row.subject).to_numpy(), table.aus.index(row.au)
        expected = f1_score(labels[rows, k], scores[rows, k] >= 0.5)
        assert 2 * row.tp / (2 * row.tp + row.fp + row.fn) == pytest.approx(expected)
    clean = pairs.query('labels == "clean"')
    for (target, au), value in auc(clean, ["target", "au"]).items():
        rows, k = (table.frames["part"] == (target or "test")).to_numpy(), table.aus.index(au)
        assert value == pytest.approx(roc_auc_score(labels[rows, k], scores[rows, k]))
        within = auc(clean.query("target == @target and au == @au"), within_subjects=True).item()
        people = [
            rows & (table.frames["subject"] == name).to_numpy() for name in table.frames["subject"][rows].unique()
        ]
        weight = [(labels[one, k] == 1).sum() * (labels[one, k] == 0).sum() for one in people]
        alone = [roc_auc_score(labels[one, k], scores[one, k]) for one in people]
        assert within == pytest.approx(np.average(alone, weights=weight))
    assert ("drawn:gft", 4) not in auc(clean, ["target", "au"]).index


def test_without_populations_the_tables_are_those_of_each_subject(populations):
    table, split, kept, _ = populations
    kept = {"last": {"ridge": (kept["last"]["ridge"][0], kept["last"]["ridge"][1][: len(split.test)])}}
    counts, pairs = methods.score_tables(RunSpec(), table, split, table.labels, kept)
    assert set(counts["subject"]) == set(pairs["other"]) == set(table.frames["subject"].iloc[split.test])
    assert "target" not in counts
    assert "target" not in pairs
