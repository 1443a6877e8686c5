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
from aunce.errors import DataError, RunError, UsageError
from aunce.losses import supcon
from aunce.model import LinearProbe, build_encoder
from aunce.probe import embed
from aunce.supervised import supervised_loss
from aunce.training import Optimisation, Training, fit_supervised, pretrain

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


def fit(encoder, images, labels, *, loss, head=None, **options):
    """Train; with a head, supervised."""
    training = Training(images=images, labels=labels, **{"seed": 0, "log": quiet} | options)
    if head is None:
        return pretrain(encoder, loss, training)
    return fit_supervised(encoder, head, loss, training)


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
            history = fit(tiny(), *data, loss=contrast, optimisation=settings(learning_rate=peak), seed=0, log=quiet)
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
    expected = fit(whole, *data, **common, check=lambda epoch: {"val_auc": table[epoch]}, log=quiet)

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
            fit(
                tiny(backbone, seed), *data, **common | {"loss": dying_loss}, checkpoint=place, log=dying_log,
                check=lambda epoch: {"val_auc": table[epoch]},
            )  # fmt: skip
    torch.manual_seed(12345)  # another process has another global generator
    lines = []
    second = tiny(backbone, seed)
    history = fit(
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
    expected = fit(whole, *data, head=heads[0], **common, log=quiet)

    def dying_log(line):
        if line.startswith("epoch 2/"):
            raise Killed

    with pytest.raises(Killed):
        fit(broken, *data, head=heads[1], **common, checkpoint=tmp_path / "c", log=dying_log)
    history = fit(second, *data, head=heads[2], **common, checkpoint=tmp_path / "c", log=quiet)
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
    history = fit(first, *data, **common)
    second = tiny(seed=5)
    before = (tmp_path / "c" / "state.json").stat().st_mtime_ns
    assert fit(second, *data, **common).equals(history)
    assert same(first, second)
    assert (tmp_path / "c" / "state.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_torn_checkpoint_is_said_and_the_training_starts_anew(name, data, tmp_path):
    common = {"loss": contrast, "optimisation": settings(epochs=2), "seed": 0}
    whole, again = tiny(), tiny()
    expected = fit(whole, *data, **common, checkpoint=tmp_path / "c", log=quiet)
    torn = tmp_path / "c" / name
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    lines = []
    history = fit(again, *data, **common, checkpoint=tmp_path / "c", log=lines.append)
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
    fit(tiny(), *data, **common)
    before = (tmp_path / "c" / "weights.safetensors").read_bytes()
    with pytest.raises(RunError, match=f"belongs to another training: its {named} differ"):
        fit(tiny(), *data, **common | changes)
    assert (tmp_path / "c" / "weights.safetensors").read_bytes() == before


def test_no_global_generator_moves_and_none_matters(data, dropping):
    results = []
    for state in (0, 1):
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002
        before = torch.random.get_rng_state()
        encoder = tiny(dropping)
        fit(encoder, *data, loss=contrast, optimisation=settings(epochs=1), seed=0, log=quiet)
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
    history = fit(
        tiny(), images, labels, loss=lambda z, batch, *_: supcon(z, batch, 0.5), optimisation=plan, seed=0, log=quiet
    )
    assert history["loss"].iloc[-1] < 0.95 * history["loss"].iloc[0]
    loss = supervised_loss("bce", labels)
    history = fit(tiny(), images, labels, head=LinearProbe(3, 8), loss=loss, optimisation=plan, seed=0, log=quiet)
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]


def test_losses_see_two_views_raw_labels_and_every_row_once_an_epoch(data):
    images, labels = data
    rows = np.arange(3, 19)  # 16 rows: batches of 5, 5, 5 and one image, which is dropped
    seen = []

    def spy(z, batch, generator, anchors):
        seen.append((tuple(z.shape), batch.clone()))
        return contrast(z, batch, generator)

    common = {"optimisation": settings(epochs=2), "seed": 0, "rows": rows, "log": quiet}
    fit(tiny(), images, labels, loss=spy, **common)
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
    fit(tiny(), images, labels, head=LinearProbe(3, 8), loss=logits_spy, **common)
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
    fit(tiny(), images, labels, loss=spy, **common)
    given = torch.cat(seen[1:])
    assert len(given) == 8 * 15, "as many as there are rows, but for a last batch of one"
    assert {tuple(row) for row in given.tolist()} == {tuple(labels[rows[2]]), tuple(labels[rows[7]])}
    often = (given == torch.from_numpy(labels[rows[2]])).all(1).float().mean().item()
    assert 0.6 < often < 0.9

    def logits_spy(logits, batch):
        seen.append(batch)
        return logits.mean()

    seen.clear()
    fit(tiny(), images, labels, head=LinearProbe(3, 8), loss=logits_spy, **common)
    assert {tuple(row) for row in torch.cat(seen[1:]).tolist()} <= {tuple(labels[rows[k]]) for k in (2, 7)}


def test_a_measure_sees_features_and_labels_of_checked_epochs_and_joins_the_history(data):
    images, labels = data
    seen = []

    def measure(z, batch):
        seen.append((tuple(z.shape), tuple(batch.shape)))
        return {"spread": z.std().item()}

    history = fit(
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
    fit(encoder, *data, loss=contrast, optimisation=settings(epochs=1), seed=0, log=quiet)
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
        fit(encoder, images, labels, loss=contrast, optimisation=plan, seed=0, two_forwards=two_forwards, log=quiet)
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
    history = fit(
        tiny(), *data, loss=contrast, optimisation=settings(), seed=0, checks=2, log=quiet,
        check=lambda epoch: {"val_auc": epoch / 10},
    )  # fmt: skip
    assert list(history) == ["epoch", "loss", "learning_rate", "seconds", "val_auc"]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(history["val_auc"], [np.nan, 0.2, np.nan, 0.4])


def test_one_line_per_epoch_tells_progress_and_time_left(data):
    lines = []
    fit(
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
        fit(
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
        fit(
            encoder,
            *data,
            head=head,
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
        fit(tiny(), images, labels[:, :2], **common)
    with pytest.raises(DataError, match="at least 2 images"):
        fit(tiny(), images, labels, rows=np.array([4]), **common)


def test_a_memory_map_that_cannot_be_written_trains_and_embeds_like_an_array(data, tmp_path):
    images, labels = data
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    encoders = tiny(), tiny()
    for encoder, source in zip(encoders, (images, mapped), strict=True):
        fit(encoder, source, labels, loss=contrast, optimisation=settings(epochs=1), seed=0, log=quiet)
    assert same(*encoders)
    assert np.array_equal(embed(encoders[0], images), embed(encoders[1], mapped))


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_is_drawn_at_a_terminal_only_and_never_loses_a_step(terminal, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert list(training._bar(iter(range(3)), 3, "epoch 1")) == [0, 1, 2]
    assert ("epoch 1" in capsys.readouterr().err) == terminal
