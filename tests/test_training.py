"""The loop (schedule, resumption, messages), the frozen probe, the supervised losses and the check of a run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from aunce import training
from aunce.data.frames import Split
from aunce.errors import DataError, RunError, UsageError
from aunce.evaluation import score_tables
from aunce.losses import supcon
from aunce.model import LinearProbe, build_encoder
from aunce.study.spec import SUPERVISED
from aunce.training import (
    Monitor,
    Optimisation,
    embed,
    fit_probe,
    fit_supervised,
    fit_train_mode_probe,
    pretrain,
    supervised_loss,
)

AUS = (1, 2, 12)


def contrast(z, labels, generator, anchors=None):
    """A stand-in that uses everything a contrastive loss may: features, known labels and a draw."""
    z = F.normalize(z, dim=3)
    known = (labels >= 0).to(z.dtype)
    pull = 1 - (z[0] * z[1]).sum(2)  # (B, K)
    spread = torch.einsum("bkd,ckd->kbc", z[0], z[1]).exp().mean((1, 2)).log()  # (K)
    return (pull * known).mean() + torch.rand((), generator=generator) * spread.mean()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = rng.choice([-1, 0, 1], p=[0.1, 0.5, 0.4], size=(21, 3)).astype(np.int8)
    images = rng.integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)
    return images, labels


@pytest.fixture
def dropping(tmp_path) -> str:
    """A folder with a tiny Swin that draws while it trains: drop-out and stochastic depth."""
    transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4,
        drop_path_rate=0.5, hidden_dropout_prob=0.2,
    ).save_pretrained(tmp_path / "swin")  # fmt: skip
    return str(tmp_path / "swin")


def tiny(backbone="small", seed=0):
    return build_encoder(backbone, aus=3, channels=8, seed=seed)


def settings(**changes):
    return Optimisation(**{"epochs": 4, "batch_size": 5, "learning_rate": 1e-2} | changes)


def quiet(_line):
    pass


# The schedule


def test_the_learning_rate_rises_over_the_warm_up_and_falls_by_a_cosine_to_zero():
    plan = settings(epochs=10, learning_rate=0.3, warmup_epochs=2)
    rates = [plan.rate(step, 7) for step in range(70)]
    assert rates[:14] == pytest.approx([0.3 * (step + 1) / 14 for step in range(14)])
    assert rates[14:] == pytest.approx([0.15 * (1 + math.cos(math.pi * step / 56)) for step in range(56)])
    assert max(rates) == 0.3


def test_a_constant_schedule_has_one_rate_and_no_warm_up():
    assert {settings(schedule="constant").rate(step, 7) for step in range(70)} == {1e-2}
    with pytest.raises(UsageError, match="schedule: expected cosine or constant"):
        settings(schedule="step")


def test_a_training_of_one_epoch_still_reaches_its_learning_rate():
    assert max(settings(epochs=1).rate(step, 10) for step in range(10)) == 1e-2
    assert settings(epochs=1, warmup_epochs=0).rate(0, 1) == 1e-2


def test_every_epoch_honours_the_learning_rate_and_not_only_the_first(data, monkeypatch):
    seen = {}
    for peak in (1e-2, 1e-3):
        rates = seen[peak] = []
        step = torch.optim.AdamW.step

        def spy(self, *args, _step=step, _rates=rates, **kwargs):
            _rates.extend(group["lr"] for group in self.param_groups)
            return _step(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", spy)
            history = pretrain(
                tiny(), *data, loss=contrast, optimisation=settings(learning_rate=peak), seed=0, log=quiet
            )
        assert rates == [settings(learning_rate=peak).rate(number, 4) for number in range(16)]
        assert history["learning_rate"].tolist() == rates[3::4]
    assert np.allclose(np.array(seen[1e-2]) / np.array(seen[1e-3]), 10)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"weight_decay": -1}],
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}: expected"):
        settings(**wrong)


# Resumption


class Killed(Exception):
    pass


def same(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def saved_epochs(folder):
    return json.loads((folder / "state.json").read_text())["epoch"]


def timeless(history):
    return history.drop(columns="seconds")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("moment", ["between epochs", "within an epoch", "while saving"])
def test_a_killed_pretraining_continues_to_the_same_weights_and_history(
    seed, moment, data, dropping, tmp_path, monkeypatch
):
    backbone = "small" if seed else dropping
    common = {"loss": contrast, "optimisation": settings(), "seed": seed, "checks": 4}
    whole = tiny(backbone, seed)
    values = iter(np.random.default_rng(seed).random(100))
    table = {epoch: next(values) for epoch in range(1, 5)}
    expected = pretrain(whole, *data, **common, check=lambda epoch: {"val_auc": table[epoch]}, log=quiet)

    calls = 0

    def dying_loss(*arguments):
        nonlocal calls
        calls += 1
        if moment == "within an epoch" and calls == 12:  # one call names the loss, four make an epoch
            raise Killed
        return contrast(*arguments)

    def dying_log(line):
        if moment == "between epochs" and line.startswith("epoch 2/"):
            raise Killed

    rename = Path.rename

    def dying_rename(self, target):
        # The second of the two renames of the third save: the folder is away, its successor not yet there.
        if moment == "while saving" and self.suffix == ".partial" and saved_epochs(self) == 3:
            raise Killed
        return rename(self, target)

    place = tmp_path / "run" / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying_rename)
        with pytest.raises(Killed):
            pretrain(
                tiny(backbone, seed), *data, **common | {"loss": dying_loss}, checkpoint=place, log=dying_log,
                check=lambda epoch: {"val_auc": table[epoch]},
            )  # fmt: skip
    torch.manual_seed(12345)  # another process has another global generator
    lines = []
    second = tiny(backbone, seed)
    history = pretrain(
        second, *data, **common, checkpoint=place, log=lines.append, check=lambda epoch: {"val_auc": table[epoch]}
    )
    assert lines[0].startswith("continues after epoch 2 ")
    assert same(whole, second)
    assert timeless(history).equals(timeless(expected))
    assert [path.name for path in place.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("two_forwards", [False, True])
def test_a_killed_supervised_fit_continues_with_its_head_to_the_same_numbers(two_forwards, data, tmp_path):
    common = {
        "loss": supervised_loss("bce", data[1]),
        "optimisation": settings(),
        "seed": 3,
        "two_forwards": two_forwards,
    }
    torch.manual_seed(0)
    start = LinearProbe(3, 8).state_dict()
    heads = [LinearProbe(3, 8) for _ in range(3)]
    for head in heads:
        head.load_state_dict(start)
    whole, broken, second = tiny(), tiny(), tiny()
    expected = fit_supervised(whole, heads[0], *data, **common, log=quiet)

    def dying_log(line):
        if line.startswith("epoch 2/"):
            raise Killed

    with pytest.raises(Killed):
        fit_supervised(broken, heads[1], *data, **common, checkpoint=tmp_path / "c", log=dying_log)
    history = fit_supervised(second, heads[2], *data, **common, checkpoint=tmp_path / "c", log=quiet)
    assert same(whole, second)
    assert same(heads[0], heads[2])
    assert timeless(history).equals(timeless(expected))


def test_a_finished_training_is_given_back_and_not_repeated(data, tmp_path):
    common = {
        "loss": contrast,
        "optimisation": settings(epochs=2),
        "seed": 0,
        "checkpoint": tmp_path / "c",
        "log": quiet,
    }
    first = tiny()
    history = pretrain(first, *data, **common)
    second = tiny(seed=5)
    before = (tmp_path / "c" / "state.json").stat().st_mtime_ns
    assert pretrain(second, *data, **common).equals(history)
    assert same(first, second)
    assert (tmp_path / "c" / "state.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_torn_checkpoint_is_said_and_the_training_starts_anew(name, data, tmp_path):
    common = {"loss": contrast, "optimisation": settings(epochs=2), "seed": 0}
    whole, again = tiny(), tiny()
    expected = pretrain(whole, *data, **common, checkpoint=tmp_path / "c", log=quiet)
    torn = tmp_path / "c" / name
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    lines = []
    history = pretrain(again, *data, **common, checkpoint=tmp_path / "c", log=lines.append)
    assert "is not a whole checkpoint and is left out" in lines[0]
    assert same(whole, again)
    assert timeless(history).equals(timeless(expected))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"optimisation": settings(learning_rate=2e-2)}, "optimisation"),
        ({"loss": lambda *batch: 2 * contrast(*batch)}, "loss"),
        ({"two_forwards": True}, "two_forwards"),
        ({"rows": np.arange(20)}, "labels, rows"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_and_kept(changes, named, data, tmp_path):
    common = {"loss": contrast, "optimisation": settings(), "seed": 0, "checkpoint": tmp_path / "c", "log": quiet}
    pretrain(tiny(), *data, **common)
    before = (tmp_path / "c" / "weights.safetensors").read_bytes()
    with pytest.raises(RunError, match=f"belongs to another training: its {named} differ"):
        pretrain(tiny(), *data, **common | changes)
    assert (tmp_path / "c" / "weights.safetensors").read_bytes() == before


def test_no_global_generator_moves_and_none_matters(data, dropping):
    results = []
    for state in (0, 1):
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002
        before = torch.random.get_rng_state()
        encoder = tiny(dropping)
        pretrain(encoder, *data, loss=contrast, optimisation=settings(epochs=1), seed=0, log=quiet)
        assert torch.equal(before, torch.random.get_rng_state())
        results.append(encoder)
    assert same(*results)


# The loop


def test_the_loss_falls_on_a_small_problem_for_contrastive_and_supervised_training():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (64, 3)).astype(np.int8)
    images = rng.integers(100, 130, (64, 32, 32, 3), dtype=np.uint8)
    for au, band in enumerate((slice(0, 10), slice(11, 21), slice(22, 32))):  # bands survive flips and colour changes
        images[:, band] += (100 * labels[:, au, None, None, None]).astype(np.uint8)
    plan = settings(epochs=8, batch_size=16, learning_rate=5e-3)
    history = pretrain(
        tiny(), images, labels, loss=lambda z, batch, *_: supcon(z, batch, 0.5), optimisation=plan, seed=0, log=quiet
    )
    assert history["loss"].iloc[-1] < 0.95 * history["loss"].iloc[0]
    loss = supervised_loss("bce", labels)
    history = fit_supervised(tiny(), LinearProbe(3, 8), images, labels, loss=loss, optimisation=plan, seed=0, log=quiet)
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]


def test_losses_see_two_views_raw_labels_and_every_row_once_an_epoch(data):
    images, labels = data
    rows = np.arange(3, 19)  # 16 rows: batches of 5, 5, 5 and one image, which is dropped
    seen = []

    def spy(z, batch, generator, anchors):
        seen.append((tuple(z.shape), batch.clone()))
        return contrast(z, batch, generator)

    common = {"optimisation": settings(epochs=2), "seed": 0, "rows": rows, "log": quiet}
    pretrain(tiny(), images, labels, loss=spy, **common)
    assert [shape for shape, _ in seen[1:]] == [(2, 5, 3, 8)] * 6  # the first call names the loss
    for epoch in (seen[1:4], seen[4:7]):
        given = sorted(map(tuple, torch.cat([batch for _, batch in epoch]).tolist()))
        allowed = sorted(map(tuple, labels[rows].tolist()))
        assert len(given) == 15
        for row in given:
            allowed.remove(row)

    def logits_spy(logits, batch):
        seen.append((tuple(logits.shape), batch))
        return logits.mean()

    seen.clear()
    fit_supervised(tiny(), LinearProbe(3, 8), images, labels, loss=logits_spy, **common)
    assert seen[1][0] == (10, 3)
    assert torch.equal(seen[1][1][:5], seen[1][1][5:])


def test_frames_are_drawn_by_their_chances_with_and_without_a_head(data):
    images, labels = data
    rows, sampling_weights = np.arange(3, 19), np.zeros(16)
    sampling_weights[[2, 7]] = 0.75, 0.25
    seen = []

    def spy(z, batch, generator, anchors):
        seen.append(batch.clone())
        return contrast(z, batch, generator)

    common = {
        "optimisation": settings(epochs=8),
        "seed": 0,
        "rows": rows,
        "sampling_weights": sampling_weights,
        "log": quiet,
    }
    pretrain(tiny(), images, labels, loss=spy, **common)
    given = torch.cat(seen[1:])
    assert len(given) == 8 * 15, "as many as there are rows, but for a last batch of one"
    assert {tuple(row) for row in given.tolist()} == {tuple(labels[rows[2]]), tuple(labels[rows[7]])}
    often = (given == torch.from_numpy(labels[rows[2]])).all(1).float().mean().item()
    assert 0.6 < often < 0.9

    def logits_spy(logits, batch):
        seen.append(batch)
        return logits.mean()

    seen.clear()
    fit_supervised(tiny(), LinearProbe(3, 8), images, labels, loss=logits_spy, **common)
    assert {tuple(row) for row in torch.cat(seen[1:]).tolist()} <= {tuple(labels[rows[k]]) for k in (2, 7)}


def test_a_measure_sees_features_and_labels_of_checked_epochs_and_joins_the_history(data):
    images, labels = data
    seen = []

    def measure(z, batch):
        seen.append((tuple(z.shape), tuple(batch.shape)))
        return {"spread": z.std().item()}

    history = pretrain(
        *(tiny(), images, labels),
        loss=contrast,
        optimisation=settings(epochs=4),
        seed=0,
        check=lambda epoch: {"value": 1.0},
        checks=2,
        measure=measure,
        log=quiet,
    )
    assert seen == [((2, 5, 3, 8), (5, 3))] * 2
    assert history["spread"].notna().tolist() == [False, True, False, True]


def test_an_encoder_that_comes_in_eval_mode_is_trained_in_training_mode(data):
    encoder = tiny().eval()
    pretrain(encoder, *data, loss=contrast, optimisation=settings(epochs=1), seed=0, log=quiet)
    assert encoder.training
    assert encoder.shared_norm.num_batches_tracked == 4


def test_two_forwards_give_each_norm_one_view_at_a_time(data):
    images, labels = data
    encoders = {}
    for two_forwards in (False, True):
        encoder = encoders[two_forwards] = tiny()
        batches = []
        encoder.shared.register_forward_hook(lambda _m, _i, output, into=batches: into.append(output.detach()))
        plan = settings(epochs=1, batch_size=21, learning_rate=1e-12)
        pretrain(
            encoder, images, labels, loss=contrast, optimisation=plan, seed=0, two_forwards=two_forwards, log=quiet
        )
        norm = encoder.shared_norm
        assert norm.num_batches_tracked == len(batches) == 1 + two_forwards
        mean, variance = torch.zeros(8), torch.ones(8)
        for batch in batches:
            mean, variance = 0.9 * mean + 0.1 * batch.mean(0), 0.9 * variance + 0.1 * batch.var(0)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
    assert not torch.allclose(encoders[False].shared_norm.running_mean, encoders[True].shared_norm.running_mean)


@pytest.mark.parametrize(
    ("checks", "epochs", "expected"),
    [(3, 8, [3, 6, 8]), (1, 5, [5]), (4, 4, [1, 2, 3, 4]), (9, 3, [1, 2, 3]), (0, 3, []), (5, 16, [4, 7, 10, 13, 16])],
)
def test_checks_are_evenly_spaced_and_always_include_the_last_epoch(checks, epochs, expected):
    assert sorted(training._spread(checks, epochs)) == expected


def test_values_of_checks_join_the_history_and_are_nan_between_checks(data):
    history = pretrain(
        tiny(), *data, loss=contrast, optimisation=settings(), seed=0, checks=2, log=quiet,
        check=lambda epoch: {"val_auc": epoch / 10},
    )  # fmt: skip
    assert list(history) == ["epoch", "loss", "learning_rate", "seconds", "val_auc"]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(history["val_auc"], [np.nan, 0.2, np.nan, 0.4])


def test_one_line_per_epoch_tells_progress_and_time_left(data):
    lines = []
    pretrain(
        tiny(), *data, loss=contrast, optimisation=settings(epochs=2), seed=0, checks=1, log=lines.append,
        check=lambda _epoch: {"val_auc": 0.712},
    )  # fmt: skip
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  loss ")
    assert " s/epoch  about " in lines[0]
    assert lines[0].endswith(" s left")
    assert "  val AUC .712  " in lines[1]


@pytest.mark.parametrize("source", ["features", "loss", "labels"])
def test_a_loss_that_is_not_finite_names_epoch_step_aus_and_where_it_comes_from(source, data, tmp_path):
    images, labels = data
    encoder, calls = tiny(), 0

    def breaks(z, batch, generator, anchors):
        nonlocal calls
        calls += 1
        value = contrast(z, batch, generator)
        if calls <= 6 or source == "features":
            return value
        if source == "labels":
            return value + torch.where(batch[:, 2] >= 0, math.inf, 0).sum()
        first = z[:, :, 0]
        return value + torch.log(((first - 1).abs().sum() == 0).to(z.dtype))  # -inf unless AU 1 is the constant 1

    def poison(_module, _inputs, output):
        if calls <= 5:
            return output
        marks = torch.zeros(3).index_fill_(0, torch.tensor([1]), math.nan)
        return output + marks[None, :, None]

    if source == "features":
        encoder.register_forward_hook(poison)
    expected = {
        "features": "the network's output for AU2 is not",
        "loss": "the network's output is, the loss terms of AU1 are not",
        "labels": "the network's output is, the loss terms of AU12 are not",
    }
    with pytest.raises(RunError) as error:
        pretrain(
            encoder, images, labels, loss=breaks, optimisation=settings(), seed=0, aus=AUS, log=quiet,
            checkpoint=tmp_path / "c",
        )  # fmt: skip
    assert str(error.value).startswith(f"epoch 2, step 2: the loss is not finite: {expected[source]};")
    assert len(json.loads((tmp_path / "c" / "state.json").read_text())["history"]) == 1


def test_a_supervised_loss_that_is_not_finite_names_its_au(data):
    encoder, head = tiny(), LinearProbe(3, 8)
    with torch.no_grad():
        head.bias[1] = math.inf
    with pytest.raises(RunError, match=r"epoch 1, step 1: .* the network's output for AU2 is not;"):
        fit_supervised(
            encoder,
            head,
            *data,
            loss=supervised_loss("bce", data[1]),
            optimisation=settings(),
            seed=0,
            aus=AUS,
            log=quiet,
        )


def test_images_and_labels_that_do_not_fit_are_refused(data):
    images, labels = data
    common = {"loss": contrast, "optimisation": settings(), "seed": 0}
    with pytest.raises(DataError, match=r"expected labels \(21, 3\)"):
        pretrain(tiny(), images, labels[:, :2], **common)
    with pytest.raises(DataError, match="at least 2 images"):
        pretrain(tiny(), images, labels, rows=np.array([4]), **common)


def test_a_memory_map_that_cannot_be_written_trains_and_embeds_like_an_array(data, tmp_path):
    images, labels = data
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    encoders = tiny(), tiny()
    for encoder, source in zip(encoders, (images, mapped), strict=True):
        pretrain(encoder, source, labels, loss=contrast, optimisation=settings(epochs=1), seed=0, log=quiet)
    assert same(*encoders)
    assert np.array_equal(embed(encoders[0], images), embed(encoders[1], mapped))


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_is_drawn_at_a_terminal_only_and_never_loses_a_step(terminal, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert list(training._bar(iter(range(3)), 3, "epoch 1")) == [0, 1, 2]
    assert ("epoch 1" in capsys.readouterr().err) == terminal


# The frozen probe


def test_embedding_and_probing_leave_features_buffers_weights_and_modes_bit_identical(data, dropping):
    images, labels = data
    for backbone in ("small", dropping):
        encoder = tiny(backbone)
        pretrain(encoder, images, labels, loss=contrast, optimisation=settings(epochs=1), seed=0, log=quiet)
        encoder.graph_norm.eval()  # a mixture of modes, to be found again
        modes = [module.training for module in encoder.modules()]
        state = {name: value.clone() for name, value in encoder.state_dict().items()}
        features = embed(encoder, images)
        fit_probe(features, labels, seed=0, epochs=3)
        assert np.array_equal(features, embed(encoder, images))
        assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in state.items())
        assert modes == [module.training for module in encoder.modules()]
        assert features.dtype == np.float32


def test_features_are_those_of_eval_mode_for_the_asked_rows_whatever_the_batch(data):
    images, _ = data
    encoder = tiny()
    rows = np.array([7, 3, 20])
    expected = encoder.eval()(torch.from_numpy(images[rows]).permute(0, 3, 1, 2) / 255).detach().numpy()
    encoder.train()
    np.testing.assert_allclose(embed(encoder, images, rows=rows, batch_size=2), expected, atol=1e-5)
    assert encoder.training


def test_with_a_crop_the_middle_of_each_image_is_embedded_and_views_are_as_small(data):
    images, labels = data
    encoder = tiny()
    side = images.shape[1]
    middle = images[:, 2 : side - 2, 2 : side - 2]
    np.testing.assert_allclose(embed(encoder, images, crop=side - 4), embed(encoder, middle), atol=1e-6)
    seen = []
    encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-1]))
    loss, plan = (lambda z, batch, *_: supcon(z, batch, 0.5)), settings(epochs=1)
    pretrain(encoder, images, labels, loss=loss, optimisation=plan, seed=0, crop=side - 4, log=quiet)
    assert set(seen) == {side - 4}


def test_the_mode_is_restored_when_embedding_fails(data):
    encoder = tiny()
    with pytest.raises(IndexError):
        embed(encoder, data[0], rows=np.array([99]))
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


def test_the_probe_as_released_moves_the_buffers_of_its_network_and_no_weight(data):
    images, labels = data
    encoder = tiny()
    weights = {name: value.clone() for name, value in encoder.named_parameters()}
    buffers = {name: value.clone() for name, value in encoder.named_buffers()}
    rows = np.arange(4, 20)
    probe = fit_train_mode_probe(encoder, images, labels, rows=rows, seed=0, epochs=2, batch_size=8)
    assert all(torch.equal(weights[name], value) for name, value in encoder.named_parameters())
    moved = [name for name, value in encoder.named_buffers() if not torch.equal(buffers[name], value)]
    assert any("running_mean" in name for name in moved)
    again = fit_train_mode_probe(tiny(), images, labels, rows=rows, seed=0, epochs=2, batch_size=8)
    assert same(probe, again), "seed and weights decide it"


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


# Supervised losses


def by_hand(name, x, y, train):
    """The mean over known entries of one formula per entry, in float64."""
    present, absent = (train == 1).sum(0), (train == 0).sum(0)
    rate = present / (present + absent)
    weights = (1 / rate) / (1 / rate).mean()
    values = []
    for m, k in zip(*np.nonzero(y >= 0), strict=True):
        p, t = 1 / (1 + np.exp(-x[m, k])), y[m, k]
        bce = -t * np.log(p) - (1 - t) * np.log(1 - p)
        q = max(p - 0.05, 0)
        values.append({
            "bce": bce,
            "bce_pos_weight": bce * (min(absent[k] / present[k], 20) if t else 1),
            "bce_au_weight": bce * weights[k],
            "focal": bce * ((1 - p) if t else p) ** 2,
            "asymmetric": -(1 - p) * np.log(p) if t else -(q**4) * np.log(1 - q),
            "label_smoothing": -(0.9 * t + 0.05) * np.log(p) - (0.95 - 0.9 * t) * np.log(1 - p),
        }[name])  # fmt: skip
    return np.mean(values)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    train = rng.choice([-1, 0, 1], p=[0.1, 0.5, 0.4], size=(400, 3)).astype(np.int8)
    train[:, 1] = np.where(np.arange(400) < 4, 1, np.where(np.arange(400) < 390, 0, -1))  # rare: beyond the cap
    return rng.normal(size=(30, 3)) * 3, rng.choice([-1, 0, 1], size=(30, 3)).astype(np.int8), train


@pytest.mark.parametrize("name", SUPERVISED)
def test_supervised_losses_equal_their_formulas_and_mask_unknown_labels(name, batch):
    x, y, train = batch
    logits = torch.from_numpy(x).float().requires_grad_()
    value = supervised_loss(name, train)(logits, torch.from_numpy(y))
    assert value.item() == pytest.approx(by_hand(name, x, y, train), rel=1e-5)
    value.backward()
    assert (logits.grad[torch.from_numpy(y) < 0] == 0).all()
    assert (logits.grad != 0).any()


@pytest.mark.parametrize("name", SUPERVISED)
def test_supervised_losses_stay_finite_for_extreme_logits_in_half_precision_and_without_known_labels(name, batch):
    _, y, train = batch
    loss = supervised_loss(name, train)
    for scale, dtype in ((1e4, torch.float32), (6e4, torch.float16), (1e4, torch.bfloat16)):
        logits = torch.from_numpy(np.sign(batch[0]) * scale).to(dtype).requires_grad_()
        value = loss(logits, torch.from_numpy(y))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()
    logits = torch.zeros(4, 3, requires_grad=True)
    value = loss(logits, torch.full((4, 3), -1, dtype=torch.int8))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", SUPERVISED)
def test_an_au_without_positive_training_frames_gives_finite_weights(name):
    train = np.array([[0, 1], [0, 0], [0, -1]], dtype=np.int8)
    value = supervised_loss(name, train)(torch.ones(3, 2), torch.from_numpy(train))
    assert torch.isfinite(value)


def test_an_unknown_supervised_loss_lists_the_known_ones(batch):
    with pytest.raises(UsageError, match=r"'bcee' is unknown; expected one of bce, bce_pos_weight"):
        supervised_loss("bcee", batch[2])


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
        lambda rows: embed(encoder, images, rows=rows), split=split, noisy=noisy, clean=labels,
        subjects=np.array([f"F{number // 10}" for number in range(90)]), aus=AUS, entering=AUS, seed=0, head=head,
        probe_epochs=20, knn_frames=16,
    )  # fmt: skip
    options = {
        "optimisation": settings(epochs=epochs, batch_size=20), "seed": 0, "rows": monitor.split.train, "aus": AUS,
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

    history = pretrain(encoder, *data, loss=contrast, **options | {"check": Spy()}, log=quiet).set_index("epoch")
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
    fit_supervised(encoder, head, *data, loss=loss, **options, log=quiet)
    assert set(monitor.scores["last"]) == {"own", "probe", "knn"}
    images = data[0]
    expected = torch.sigmoid(head(torch.from_numpy(embed(encoder, images, rows=monitor.split.test)))).detach().numpy()
    np.testing.assert_allclose(monitor.scores["last"]["own"][1], expected, atol=1e-6)


def test_monitoring_changes_nothing_in_the_training():
    encoder, _, data, options = monitored()
    pretrain(encoder, *data, loss=contrast, **options, log=quiet)
    alone, _, data, options = monitored()
    pretrain(alone, *data, loss=contrast, **options | {"check": None}, log=quiet)
    assert same(encoder, alone)


def test_a_killed_run_continues_with_the_scores_of_its_earlier_checks(tmp_path):
    def dying_log(line):
        if line.startswith("epoch 2/"):
            raise Killed

    encoder, whole, data, options = monitored(epochs=4)
    expected = pretrain(encoder, *data, loss=contrast, **options, log=quiet)
    encoder, _, data, options = monitored(epochs=4)
    with pytest.raises(Killed):
        pretrain(encoder, *data, loss=contrast, **options, checkpoint=tmp_path / "c", log=dying_log)
    encoder, monitor, data, options = monitored(epochs=4)
    history = pretrain(encoder, *data, loss=contrast, **options, checkpoint=tmp_path / "c", log=quiet)
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
    pretrain(encoder, *data, loss=contrast, **options, checkpoint=tmp_path / "c", log=quiet)
    encoder, monitor, data, options = monitored()
    pretrain(encoder, *data, loss=contrast, **options, checkpoint=tmp_path / "c", log=quiet)
    torch.testing.assert_close(monitor.probe.state_dict(), whole.probe.state_dict(), rtol=0, atol=0)


def test_a_trial_in_which_no_au_enters_the_mean_still_has_a_curve():
    _, monitor, data, _ = monitored()
    monitor = Monitor(
        monitor.features, split=monitor.split, noisy=data[1], clean=monitor.clean,
        subjects=monitor.subjects, aus=AUS, entering=(), seed=0, probe_epochs=1,
    )  # fmt: skip
    assert 0 <= monitor(1)["val_auc"] <= 1
    assert monitor.entering == (), "a report is told so"
