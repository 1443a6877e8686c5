"""Features of the frozen encoder, the linear probe on them, and the check of a run."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from trainings import AUS, IMAGES, LABELS, Killed, fit, same, settings, swin, timeless, tiny

from aunce.data.frames import Split
from aunce.errors import DataError
from aunce.evaluation import score_tables
from aunce.losses import supcon
from aunce.model import LinearProbe
from aunce.probe import STRENGTHS, Monitor, choose, embed, fit_probe, fit_ridge, fit_train_mode_probe
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


# The ridge probe


def ridge_problem(case, seed=0):
    """Features (n, 3, D) and labels (n, 3) that depend on them, made awkward in one way."""
    rng = np.random.default_rng(seed)
    n, channels = {"fewer frames than features": (24, 20)}.get(case, (150, 6))
    x = rng.normal(size=(n, 3, channels)) * rng.uniform(0.01, 30, channels) + rng.normal(size=channels)
    standard = (x - x.mean(0)) / x.std(0)
    noise = 0 if case == "separable" else 1.5
    logits = 2 * standard[:, :, 0] - standard[:, :, 1] + noise * rng.logistic(size=(n, 3))
    labels = (logits > (2.5 if case == "imbalanced" else 0)).astype(np.int8)
    if case == "unknown":
        labels[rng.random(labels.shape) < 0.4] = -1
    if case == "duplicated":
        x[:, :, 3] = x[:, :, 0]
    if case == "constant":
        x[:, :, 2], x[:, 1, 4] = 0.1, 0
    return x.astype(np.float32), labels


def oracle(x, labels, k, c, all_aus):
    """scikit-learn's probe, the standardised features of all frames, and their scaler."""
    x = (x.reshape(len(x), -1) if all_aus else x[:, k]).astype(np.float64)
    scaler = StandardScaler().fit(x)
    known = labels[:, k] >= 0
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-14, max_iter=1000)
    model.fit(scaler.transform(x[known]), labels[known, k])
    return model, scaler.transform(x), scaler


@pytest.mark.parametrize("all_aus", [False, True])
@pytest.mark.parametrize(
    "case", ["plain", "imbalanced", "unknown", "duplicated", "constant", "separable", "fewer frames than features"]
)
def test_the_ridge_probe_is_the_logistic_regression_of_scikit_learn(case, all_aus):
    x, labels = ridge_problem(case)
    for probe, c in zip(fit_ridge(x, labels, all_aus=all_aus), STRENGTHS, strict=True):
        assert (probe.c, probe.unsettled) == (c, 0)
        for k in range(3):
            model, standard, scaler = oracle(x, labels, k, c, all_aus)
            weight = probe.weight[k].numpy()  # in the unit of x
            np.testing.assert_allclose(weight * scaler.scale_, model.coef_[0], atol=1e-6)
            assert probe.bias[k].item() + weight @ scaler.mean_ == pytest.approx(
                model.intercept_[0], abs=1e-6, rel=1e-6
            )
            np.testing.assert_allclose(probe.scores(x)[:, k], model.predict_proba(standard)[:, 1], atol=1e-6)


@pytest.mark.parametrize("all_aus", [False, True])
def test_a_ridge_probe_depends_neither_on_units_nor_on_the_order_of_frames_nor_on_features_of_unknown_labels(all_aus):
    x, labels = ridge_problem("unknown")
    scores = [probe.scores(x) for probe in fit_ridge(x, labels, all_aus=all_aus)]
    moved = 4 * x + 2  # powers of two: the rounding to float32 stays small
    order = np.random.default_rng(1).permutation(len(x))
    for number, probe in enumerate(fit_ridge(moved[order], labels[order], all_aus=all_aus)):
        np.testing.assert_allclose(probe.scores(moved), scores[number], atol=2e-5)
    linear = fit_ridge(x, labels)[4].linear()
    np.testing.assert_allclose(
        torch.sigmoid(linear(torch.from_numpy(x))).detach(), fit_ridge(x, labels)[4].scores(x), atol=1e-5
    )


@pytest.mark.parametrize("all_aus", [False, True])
def test_an_au_with_one_label_has_no_ridge_probe_and_leaves_the_others_as_they_are(all_aus):
    x, labels = ridge_problem("plain")
    one = labels.copy()
    one[:, 1] = np.where(labels[:, 1] == 1, 1, -1)
    for probe, whole in zip(fit_ridge(x, one, all_aus=all_aus), fit_ridge(x, labels, all_aus=all_aus), strict=True):
        assert np.isnan(probe.scores(x)).all(0).tolist() == [False, True, False]
        np.testing.assert_allclose(probe.scores(x)[:, [0, 2]], whole.scores(x)[:, [0, 2]], atol=1e-6)
    with pytest.raises(DataError, match="no AU is both present and absent"):
        fit_ridge(x, np.ones_like(labels), all_aus=all_aus)


def test_a_fit_that_stops_at_its_limit_of_steps_says_so():
    x, labels = ridge_problem("plain")
    assert [probe.unsettled for probe in fit_ridge(x, labels, strengths=[1.0], limit=1)] == [3]
    with pytest.raises(DataError, match="expected finite features"):
        fit_ridge(np.where(x > 1, np.nan, x), labels)


def test_of_equal_values_the_first_is_chosen_and_none_is_better_than_any():
    assert choose([math.nan, 0.5, 0.7, 0.7, math.nan]) == 2
    assert choose([math.nan, math.nan]) == 0


# The check of a run


def monitored(seed=0, head=None, epochs=3, **monitoring):
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
        probe_epochs=20, knn_frames=16, **monitoring,
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


def test_the_c_of_a_run_is_that_of_the_best_macro_auc_on_noisy_inner_validation():
    encoder, monitor, data, _ = monitored(ridge=True, others_from=1)
    monitor.noisy[monitor.split.train, 2] = 0  # no probe for AU 12
    values = monitor(1)
    assert list(monitor.scores["last"]) == ["ridge", "ridge_all", "probe", "knn"]
    train, validation, test = (embed(encoder, data[0], rows) for rows in vars(monitor.split).values())
    table = monitor.ridge_table()
    assert table["warning"].str.contains("no probe of AU12, whose known labels are all alike").all()
    for head, all_aus in (("ridge", False), ("ridge_all", True)):
        expected = {"val_auc": [], "clean_val_auc": [], "test_auc": []}
        for c in STRENGTHS:
            aucs = {name: [] for name in expected}
            for k in range(2):
                model, _, scaler = oracle(train, monitor.noisy[monitor.split.train], k, c, all_aus)
                for name, labels, x, rows in (
                    ("val_auc", monitor.noisy, validation, monitor.split.validation),
                    ("clean_val_auc", monitor.clean, validation, monitor.split.validation),
                    ("test_auc", monitor.clean, test, monitor.split.test),
                ):
                    known = labels[rows, k] >= 0
                    flat = (x.reshape(len(x), -1) if all_aus else x[:, k]).astype(np.float64)
                    scores = model.decision_function(scaler.transform(flat))
                    aucs[name].append(roc_auc_score(labels[rows, k][known], scores[known]))
            for name, parts in aucs.items():
                expected[name].append(np.mean(parts))
        rows = table[(table["head"] == head) & (table["epoch_rule"] == "last")].reset_index(drop=True)
        for name, column in expected.items():
            np.testing.assert_allclose(rows[name], column, atol=1e-9)
        best, clean = np.argmax(expected["val_auc"]), np.argmax(expected["clean_val_auc"])
        assert np.flatnonzero(rows["chosen"]).tolist() == [best]
        assert rows["regret"][best] == pytest.approx(expected["test_auc"][clean] - expected["test_auc"][best])
        assert ("edge" in rows["warning"][best]) == (best in (0, 8))
        assert monitor.ridges[head].c == STRENGTHS[best]
        np.testing.assert_array_equal(monitor.ridges[head].scores(test), monitor.scores["last"][head][1])
    ridge = table[(table["head"] == "ridge") & (table["epoch_rule"] == "last") & table["chosen"]]
    assert values["val_auc"] == pytest.approx(ridge["val_auc"].item())
    counts, pairs = score_tables(
        monitor.scores, data[1][monitor.split.validation],
        {"clean": monitor.clean[monitor.split.test], "noisy": monitor.clean[monitor.split.test]},
        monitor.subjects[monitor.split.test], AUS,
    )  # fmt: skip
    counts, pairs = (table[table["head"].str.startswith("ridge")] for table in (counts, pairs))
    assert set(pairs["au"]) == {1, 2}, "an AU without a probe has no AUC"
    assert (counts[counts["au"] == 12][["tp", "fp", "fn", "tn"]] == 0).all(axis=None), "nor counts"
    monitor(2)
    assert list(monitor.scores["last"]) == ["ridge", "ridge_all", "probe", "knn"]
    torch.testing.assert_close(monitor.probe.weight.double(), monitor.ridges["ridge"].weight, atol=1e-5, rtol=1e-5)


def test_features_that_aus_share_are_one_set_for_the_ridge_probe_of_all_aus():
    _, monitor, _, _ = monitored(ridge=True)
    shared = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    monitor.features = lambda rows: np.lib.stride_tricks.as_strided(shared[rows], (len(rows), 3, 4), (16, 0, 4))
    monitor(1)
    scores = monitor.scores["last"]
    np.testing.assert_array_equal(scores["ridge"][1], scores["ridge_all"][1])


def test_targets_are_scored_after_the_test_and_choose_nothing():
    targets = [np.arange(5), np.arange(70, 73)]
    (_, alone, _, _), (_, beside, _, _) = (monitored(ridge=True, targets=some) for some in ([], targets))
    assert alone(1) == pytest.approx(beside(1))
    for head, (validation, test) in alone.scores["last"].items():
        np.testing.assert_allclose(beside.scores["last"][head][0], validation)
        np.testing.assert_allclose(
            beside.scores["last"][head][1][:30], test, rtol=1e-5
        )  # other batches, other rounding
    chosen = [monitor.ridge_table().query("chosen")["c"].tolist() for monitor in (alone, beside)]
    assert chosen[0] == chosen[1]
    for head, ridge in beside.ridges.items():
        expected = ridge.scores(beside.features(np.concatenate(targets)))
        np.testing.assert_allclose(beside.scores["last"][head][1][30:], expected, rtol=1e-5)


def test_monitoring_changes_nothing_in_the_training():
    encoder, _, data, options = monitored()
    fit(encoder, *data, **options)
    alone, _, data, options = monitored()
    fit(alone, *data, **options | {"check": None})
    assert same(encoder, alone)


@pytest.mark.parametrize("monitoring", [{}, {"ridge": True, "others_from": 4, "lengths": (2, 4)}])
def test_a_killed_run_continues_with_the_scores_of_its_earlier_checks(monitoring, tmp_path):
    def dying_log(line):
        if line.startswith("epoch 2/"):
            raise Killed

    encoder, whole, data, options = monitored(epochs=4, **monitoring)
    expected = fit(encoder, *data, **options)
    encoder, _, data, options = monitored(epochs=4, **monitoring)
    with pytest.raises(Killed):
        fit(encoder, *data, **options, checkpoint=tmp_path / "c", log=dying_log)
    encoder, monitor, data, options = monitored(epochs=4, **monitoring)
    history = fit(encoder, *data, **options, checkpoint=tmp_path / "c")
    assert min(whole.epochs.values()) <= 2, "no rule chose an epoch before the kill: this test shows nothing"
    assert timeless(history).equals(timeless(expected))
    assert monitor.epochs == whole.epochs
    for rule, heads in whole.scores.items():
        assert list(monitor.scores[rule]) == list(heads)  # the order of the rows in the tables
        for name, pair in heads.items():
            for mine, theirs in zip(monitor.scores[rule][name], pair, strict=True):
                assert np.array_equal(mine, theirs)
    for length in monitoring.get("lengths", ()):
        heads = monitor.scores[f"at {length}"]
        assert list(heads) == (["ridge"] if length < 4 else ["ridge", "ridge_all", "probe", "knn"])
    assert monitor.ridge_table().equals(whole.ridge_table())
    assert whole.ridge_table().empty == (not monitoring)


def test_a_run_killed_after_its_last_epoch_still_has_the_probe_of_that_epoch(tmp_path):
    encoder, whole, data, options = monitored(ridge=True)
    fit(encoder, *data, **options, checkpoint=tmp_path / "c")
    encoder, monitor, data, options = monitored(ridge=True)
    fit(encoder, *data, **options, checkpoint=tmp_path / "c")
    torch.testing.assert_close(monitor.probe.state_dict(), whole.probe.state_dict(), rtol=0, atol=0)
    for name, ridge in whole.ridges.items():
        assert monitor.ridges[name].c == ridge.c
        assert torch.equal(monitor.ridges[name].weight, ridge.weight)
        assert torch.equal(monitor.ridges[name].bias, ridge.bias)


def test_a_trial_in_which_no_au_enters_the_mean_still_has_a_curve():
    _, monitor, data, _ = monitored()
    monitor = Monitor(
        monitor.features, split=monitor.split, noisy=data[1], clean=monitor.clean,
        subjects=monitor.subjects, aus=AUS, scored=(), seed=0, probe_epochs=1,
    )  # fmt: skip
    assert 0 <= monitor(1)["val_auc"] <= 1
    assert monitor.scored == (), "a report is told so"
