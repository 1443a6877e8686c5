"""Features of the frozen encoder, the linear probe on them, and the check of a run."""

import math

import numpy as np
import pytest
import torch
from trainings import AUS, IMAGES, LABELS, Killed, fit, same, settings, swin, timeless, tiny

from aunce.data.frames import Split
from aunce.errors import DataError
from aunce.evaluation import score_tables
from aunce.losses import supcon
from aunce.model import LinearProbe
from aunce.probe import Monitor, embed, fit_probe, fit_train_mode_probe
from aunce.supervised import supervised_loss

# The frozen probe


def test_embedding_and_probing_leave_features_buffers_weights_and_modes_bit_identical(tmp_path):
    for backbone in ("small", swin(tmp_path)):
        encoder = tiny(backbone)
        fit(encoder, epochs=1)
        encoder.graph_norm.eval()  # a mixture of modes, to be found again
        modes = [module.training for module in encoder.modules()]
        state = {name: value.clone() for name, value in encoder.state_dict().items()}
        features = embed(encoder, IMAGES)
        fit_probe(features, LABELS, seed=0, epochs=3)
        assert np.array_equal(features, embed(encoder, IMAGES))
        assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in state.items())
        assert modes == [module.training for module in encoder.modules()]
        assert features.dtype == np.float32


def test_features_are_those_of_eval_mode_for_the_asked_rows_whatever_the_batch():
    encoder = tiny()
    rows = np.array([7, 3, 20])
    expected = encoder.eval()(torch.from_numpy(IMAGES[rows]).permute(0, 3, 1, 2) / 255).detach().numpy()
    encoder.train()
    np.testing.assert_allclose(embed(encoder, IMAGES, rows, batch_size=2), expected, atol=1e-5)
    assert encoder.training


def test_with_a_crop_the_middle_of_each_image_is_embedded_and_views_are_as_small():
    encoder = tiny()
    np.testing.assert_allclose(embed(encoder, IMAGES, crop=28), embed(encoder, IMAGES[:, 2:30, 2:30]), atol=1e-6)
    seen = []
    encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-1]))
    fit(encoder, loss=lambda z, batch, *_: supcon(z, batch, 0.5), epochs=1, crop=28)
    assert set(seen) == {28}


def test_the_mode_is_restored_when_embedding_fails():
    encoder = tiny()
    with pytest.raises(IndexError):
        embed(encoder, IMAGES, np.array([99]))
    assert encoder.training


def test_the_probe_finds_what_is_linear_and_ignores_unknown_labels():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3, 5)).astype(np.float32)
    labels = (features[:, :, 2] > 0).astype(np.int8)
    hidden = rng.random((400, 3)) < 0.3
    known = np.where(hidden, -1, labels).astype(np.int8)
    probe = fit_probe(features, known, seed=0, learning_rate=3e-2)
    predicted = (probe(torch.from_numpy(features)) > 0).numpy()
    assert (predicted == (labels == 1)).mean() > 0.95
    # Features of unknown entries must not matter at all.
    changed = np.where(hidden[:, :, None], 1e3, features).astype(np.float32)
    assert torch.equal(probe.weight, fit_probe(changed, known, seed=0, learning_rate=3e-2).weight)
    assert not probe.training


def test_the_probe_has_its_own_seed():
    features, labels = np.ones((10, 2, 3), dtype=np.float32), np.array([[0, 1], [1, 0]] * 5, dtype=np.int8)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = fit_probe(features, labels, seed=1, epochs=1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    assert same(first, fit_probe(features, labels, seed=1, epochs=1))
    assert not same(first, fit_probe(features, labels, seed=2, epochs=1))


def test_the_probe_as_released_moves_the_buffers_of_a_copy_and_no_weight():
    encoder, rows = tiny(), np.arange(4, 20)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    options = {"rows": rows, "seed": 0, "epochs": 2, "batch_size": 8}
    moved, probe = fit_train_mode_probe(encoder, IMAGES, LABELS, **options)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    names = [name for name, value in moved.state_dict().items() if not torch.equal(before[name], value)]
    assert any("running_mean" in name for name in names)
    assert not set(names) & dict(encoder.named_parameters()).keys()
    assert same(probe, fit_train_mode_probe(tiny(), IMAGES, LABELS, **options)[1]), "seed and weights decide it"


def test_an_au_with_one_class_gets_its_log_odds_and_no_weights():
    features = np.random.default_rng(0).normal(size=(20, 4, 3)).astype(np.float32)
    labels = np.zeros((20, 4), dtype=np.int8)
    labels[:10, 1], labels[:, 2], labels[:, 3], labels[:5, 0] = 1, 1, -1, -1
    probe = fit_probe(features, labels, seed=0, epochs=2)
    assert probe.weight.abs().sum(1).gt(0).tolist() == [False, True, False, False]
    expected = [math.log(0.5 / 15.5), math.log(20.5 / 0.5), 0]
    assert probe.bias[[0, 2, 3]].tolist() == pytest.approx(expected)


def test_features_that_are_not_finite_are_refused():
    features = np.full((4, 1, 2), np.nan, dtype=np.float32)
    with pytest.raises(DataError, match="expected finite features"):
        fit_probe(features, np.array([[0], [1], [0], [1]], dtype=np.int8), seed=0)


# The check of a run


def monitored(seed=0, head=None, epochs=3):
    """A tiny problem with its monitor: AU 1 is drawn as brightness, the others are noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (90, 3)).astype(np.int8)
    images = rng.integers(0, 60, (90, 32, 32, 3), dtype=np.uint8)
    images += (80 * labels[:, 0, None, None, None]).astype(np.uint8)
    noisy = np.where(rng.random(labels.shape) < 0.1, 1 - labels, labels).astype(np.int8)
    noisy[rng.random(labels.shape) < 0.05] = -1
    encoder = tiny()
    split = Split(np.arange(40), np.arange(40, 60), np.arange(60, 90))
    monitor = Monitor(
        lambda rows: embed(encoder, images, rows), split=split, noisy=noisy, clean=labels,
        subjects=np.array([f"F{number // 10}" for number in range(90)]), aus=AUS, scored=AUS, seed=0, head=head,
        probe_epochs=20, knn_frames=16,
    )  # fmt: skip
    options = {
        "optimisation": settings(epochs=epochs, batch_size=20), "rows": monitor.split.train, "aus": AUS,
        "check": monitor, "checks": epochs,
    }  # fmt: skip
    return encoder, monitor, (images, noisy), options


def test_the_monitor_keeps_the_scores_of_the_last_the_best_inner_validation_and_the_oracle_epoch():
    encoder, monitor, data, options = monitored(epochs=5)
    seen = {}

    class Spy:
        def __call__(self, epoch):
            values = monitor(epoch)
            seen[epoch] = monitor.scores["last"]
            return values

    history = fit(encoder, *data, **options | {"check": Spy()}).set_index("epoch")
    expected = {"last": 5, "inner_val": history["val_auc"].idxmax(), "oracle": history["test_auc"].idxmax()}
    assert monitor.epochs == expected
    for rule, epoch in expected.items():
        assert monitor.scores[rule] is seen[epoch]
    assert list(history)[3:] == ["val_auc", "val_f1", "test_auc", "test_f1"]
    assert history["val_auc"].between(0, 1).all()
    shapes = {head: [scores.shape for scores in pair] for head, pair in monitor.scores["last"].items()}
    assert shapes == {"probe": [(20, 3), (30, 3)], "knn": [(20, 3), (30, 3)]}
    counts, pairs = score_tables(
        monitor.scores, data[1][monitor.split.validation], {"clean": monitor.clean[monitor.split.test]},
        monitor.subjects[monitor.split.test], AUS,
    )  # fmt: skip
    first = pairs[(pairs["epoch_rule"] == "last") & (pairs["head"] == "probe")]
    sums = first.groupby("au")[["concordant", "pairs"]].sum()
    assert (sums["concordant"] / sums["pairs"]).mean() == pytest.approx(history.loc[5, "test_auc"])
    assert set(counts["head"]) == {"probe", "knn"}


def test_the_own_head_of_a_supervised_arm_is_scored_beside_probe_and_knn():
    head = LinearProbe(3, 8)
    encoder, monitor, data, options = monitored(head=head)
    loss = supervised_loss("bce", data[1])
    fit(encoder, *data, head=head, loss=loss, **options)
    assert set(monitor.scores["last"]) == {"own", "probe", "knn"}
    images = data[0]
    expected = torch.sigmoid(head(torch.from_numpy(embed(encoder, images, monitor.split.test)))).detach().numpy()
    np.testing.assert_allclose(monitor.scores["last"]["own"][1], expected, atol=1e-6)


def test_monitoring_changes_nothing_in_the_training():
    encoder, _, data, options = monitored()
    fit(encoder, *data, **options)
    alone, _, data, options = monitored()
    fit(alone, *data, **options | {"check": None})
    assert same(encoder, alone)


def test_a_killed_run_continues_with_the_scores_of_its_earlier_checks(tmp_path):
    def dying_log(line):
        if line.startswith("epoch 2/"):
            raise Killed

    encoder, whole, data, options = monitored(epochs=4)
    expected = fit(encoder, *data, **options)
    encoder, _, data, options = monitored(epochs=4)
    with pytest.raises(Killed):
        fit(encoder, *data, **options, checkpoint=tmp_path / "c", log=dying_log)
    encoder, monitor, data, options = monitored(epochs=4)
    history = fit(encoder, *data, **options, checkpoint=tmp_path / "c")
    assert min(whole.epochs.values()) <= 2, "no rule chose an epoch before the kill: this test shows nothing"
    assert timeless(history).equals(timeless(expected))
    assert monitor.epochs == whole.epochs
    for rule, heads in whole.scores.items():
        assert list(monitor.scores[rule]) == list(heads)  # the order of the rows in the tables
        for name, pair in heads.items():
            for mine, theirs in zip(monitor.scores[rule][name], pair, strict=True):
                assert np.array_equal(mine, theirs)


def test_a_run_killed_after_its_last_epoch_still_has_the_probe_of_that_epoch(tmp_path):
    encoder, whole, data, options = monitored()
    fit(encoder, *data, **options, checkpoint=tmp_path / "c")
    encoder, monitor, data, options = monitored()
    fit(encoder, *data, **options, checkpoint=tmp_path / "c")
    torch.testing.assert_close(monitor.probe.state_dict(), whole.probe.state_dict(), rtol=0, atol=0)


def test_a_trial_in_which_no_au_enters_the_mean_still_has_a_curve():
    _, monitor, data, _ = monitored()
    monitor = Monitor(
        monitor.features, split=monitor.split, noisy=data[1], clean=monitor.clean,
        subjects=monitor.subjects, aus=AUS, scored=(), seed=0, probe_epochs=1,
    )  # fmt: skip
    assert 0 <= monitor(1)["val_auc"] <= 1
    assert monitor.scored == (), "a report is told so"
