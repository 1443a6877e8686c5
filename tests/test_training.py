"""The training loop: its schedule, what it hands to a loss, how it continues, and what it says."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from trainings import AUS, IMAGES, LABELS, Killed, contrast, fit, quiet, same, settings, swin, timeless, tiny

from aunce import training
from aunce.errors import DataError, RunError, UsageError
from aunce.losses import supcon
from aunce.model import LinearProbe, build_probe
from aunce.probe import embed
from aunce.supervised import supervised_loss

# The schedule


def test_the_learning_rate_rises_over_the_warm_up_and_falls_by_a_cosine_to_zero():
    plan = settings(epochs=10, learning_rate=0.3)
    rates = [plan.rate(step, 14) for step in range(140)]
    assert rates[:14] == pytest.approx([0.3 * (step + 1) / 14 for step in range(14)])
    assert rates[14:] == pytest.approx([0.15 * (1 + math.cos(math.pi * step / 126)) for step in range(126)])
    assert max(rates) == 0.3


def test_a_constant_schedule_has_one_rate_and_no_warm_up():
    assert {settings(schedule="constant").rate(step, 7) for step in range(70)} == {1e-2}
    with pytest.raises(UsageError, match="schedule: expected cosine, constant or wsd"):
        settings(schedule="step")


def test_a_wsd_rate_is_constant_after_the_warm_up_and_falls_linearly_to_zero_over_the_last_fifth_of_each_length():
    plan = settings(epochs=20, schedule="wsd", lengths=(5, 10, 20), learning_rate=0.3)
    assert [stage.epoch for stage in plan.stages] == [*range(1, 6), *range(5, 9), 9, 10, *range(9, 21)]
    assert [stage.length for stage in plan.stages] == [0] * 4 + [5] + [0] * 4 + [10] * 2 + [0] * 8 + [20] * 4
    assert len(settings(epochs=160, schedule="wsd", lengths=(40, 80, 160)).stages) == 184
    rates = [plan.rate(step, 7) for step in range(140)]
    assert rates[:7] == pytest.approx([0.3 * (step + 1) / 7 for step in range(7)])
    assert set(rates[7:]) == {0.3}
    for length in plan.lengths:
        start, end = length * 7 * 4 // 5, length * 7
        falling = [plan.rate(step, 7, length) for step in range(start, end)]
        assert falling == pytest.approx(np.linspace(0.3, 0, end - start, endpoint=False))


@pytest.mark.parametrize("lengths", [(1, 4), (2, 2, 4), (4, 2), (2, 3), (0, 4)])
def test_lengths_that_do_not_rise_to_the_epochs_are_refused(lengths):
    with pytest.raises(UsageError, match="lengths: expected"):
        settings(schedule="wsd", lengths=lengths)
    with pytest.raises(UsageError, match="lengths: expected"):
        settings(schedule="cosine", lengths=(2, 4))


def test_a_training_of_one_epoch_still_reaches_its_learning_rate():
    assert max(settings(epochs=1).rate(step, 10) for step in range(10)) == 1e-2
    assert settings(epochs=1).rate(0, 1) == 1e-2


def test_every_epoch_honours_the_learning_rate_and_not_only_the_first(monkeypatch):
    rates, step = [], torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        rates.extend(group["lr"] for group in self.param_groups)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    for peak in (1e-2, 1e-3):
        rates.clear()
        plan = settings(learning_rate=peak)
        history = fit(tiny(), optimisation=plan)
        assert rates == [plan.rate(number, 4) for number in range(16)]
        assert history["learning_rate"].tolist() == rates[3::4]


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"weight_decay": -1}],
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}: expected"):
        settings(**wrong)


# Resumption


def kill_after_an_epoch(line):
    if line.startswith("epoch 2/"):
        raise Killed


@pytest.mark.parametrize(
    ("moment", "seed"), [("between epochs", 0), ("within an epoch", 0), ("within an epoch", 1), ("while saving", 2)]
)
def test_a_killed_pretraining_continues_to_the_same_weights_and_history(moment, seed, tmp_path, monkeypatch):
    backbone = "small" if seed else swin(tmp_path)
    table = np.random.default_rng(seed).random(5)
    common = {"seed": seed, "checks": 4, "check": lambda epoch: {"val_auc": table[epoch]}}
    whole = tiny(backbone, seed)
    expected = fit(whole, **common)

    calls = 0

    def dying_loss(*arguments):
        nonlocal calls
        calls += 1
        if moment == "within an epoch" and calls == 12:  # one call names the loss, four make an epoch
            raise Killed
        return contrast(*arguments)

    rename, saved = Path.rename, iter(range(1, 5))

    def dying_rename(self, target):
        # The second of the two renames of the third save: the folder is away, its successor not yet there.
        if moment == "while saving" and self.suffix == ".partial" and next(saved) == 3:
            raise Killed
        return rename(self, target)

    place = tmp_path / "run" / "checkpoint"
    dying_log = kill_after_an_epoch if moment == "between epochs" else quiet
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying_rename)
        with pytest.raises(Killed):
            fit(tiny(backbone, seed), **common, loss=dying_loss, checkpoint=place, log=dying_log)
    torch.manual_seed(12345)  # another process has another global generator
    lines = []
    second = tiny(backbone, seed)
    history = fit(second, **common, checkpoint=place, log=lines.append)
    assert lines[0].startswith("continues after epoch 2 ")
    assert same(whole, second)
    assert timeless(history).equals(timeless(expected))
    assert [path.name for path in place.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("two_forwards", [False, True])
def test_a_killed_supervised_fit_continues_with_its_head_to_the_same_numbers(two_forwards, tmp_path):
    common = {"loss": supervised_loss("bce", LABELS), "seed": 3, "two_forwards": two_forwards}
    heads = [build_probe(3, 8, seed=0) for _ in range(3)]
    whole, broken, second = tiny(), tiny(), tiny()
    expected = fit(whole, head=heads[0], **common)
    with pytest.raises(Killed):
        fit(broken, head=heads[1], **common, checkpoint=tmp_path / "c", log=kill_after_an_epoch)
    history = fit(second, head=heads[2], **common, checkpoint=tmp_path / "c")
    assert same(whole, second)
    assert same(heads[0], heads[2])
    assert timeless(history).equals(timeless(expected))


LENGTHS = (4, 5, 6, 9)  # the cooldowns of 5 and 6 begin where that of 4 and 5 has begun: after epochs 3, 4, 4 and 7


def branched(encoder, **options):
    """Train with a branch at each of LENGTHS; the history, and the weights at the end of each branch."""
    ends = {}

    def check(epoch):
        ends[epoch] = {name: value.clone() for name, value in encoder.state_dict().items()}
        return {"val_auc": 0.5}

    plan = settings(epochs=9, schedule="wsd", lengths=LENGTHS)
    return fit(encoder, optimisation=plan, check=check, **options), ends


@pytest.fixture(scope="module")
def with_branches():
    encoder = tiny()
    return encoder, *branched(encoder)


def test_each_branch_is_the_training_that_has_its_length_alone(with_branches):
    _, history, ends = with_branches
    assert sorted(ends) == list(LENGTHS)
    for length in LENGTHS:
        alone = tiny()
        expected = fit(alone, optimisation=settings(epochs=length, schedule="wsd"))
        assert all(torch.equal(value, ends[length][name]) for name, value in alone.state_dict().items())
        path = history[
            (history["length"] == length) | ((history["length"] == 0) & (history["epoch"] <= length * 4 // 5))
        ]
        assert path["loss"].tolist() == expected["loss"].tolist()


@pytest.mark.parametrize("after", [3, 4, 7, 9, 11])  # at the start and end of branches, within one, and between them
def test_a_killed_training_with_branches_continues_to_the_same_bits(after, with_branches, tmp_path):
    whole, expected, ends = with_branches
    assert len(expected) == 13
    lines = []

    def dying(line):
        lines.append(line)
        if len(lines) == after:
            raise Killed

    with pytest.raises(Killed):
        branched(tiny(), checkpoint=tmp_path / "c", log=dying)
    second = tiny()
    history, later = branched(second, checkpoint=tmp_path / "c")
    assert same(whole, second)
    assert timeless(history).equals(timeless(expected))
    assert all(torch.equal(weights[name], ends[end][name]) for end, weights in later.items() for name in weights)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished training of two epochs: encoder, history and checkpoint."""
    encoder, place = tiny(), tmp_path_factory.mktemp("finished") / "c"
    return encoder, fit(encoder, epochs=2, checkpoint=place), place


def test_a_finished_training_is_given_back_and_not_repeated(finished):
    first, history, place = finished
    second, before = tiny(seed=5), (place / "state.json").stat().st_mtime_ns
    assert fit(second, epochs=2, checkpoint=place).equals(history)
    assert same(first, second)
    assert (place / "state.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_torn_checkpoint_is_said_and_the_training_starts_anew(name, finished, tmp_path):
    whole, expected, place = finished
    torn = shutil.copytree(place, tmp_path / "c") / name
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    lines, again = [], tiny()
    history = fit(again, epochs=2, checkpoint=tmp_path / "c", log=lines.append)
    assert "is not a whole checkpoint and is left out" in lines[0]
    assert same(whole, again)
    assert timeless(history).equals(timeless(expected))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"optimisation": settings(epochs=2, learning_rate=2e-2)}, "optimisation"),
        ({"loss": lambda *batch: 2 * contrast(*batch)}, "loss"),
        ({"two_forwards": True}, "two_forwards"),
        ({"rows": np.arange(20)}, "labels, rows"),
        ({"sampling_weights": np.full(21, 1 / 21)}, "sampling_weights"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_and_kept(changes, named, finished):
    _, _, place = finished
    before = (place / "weights.safetensors").read_bytes()
    with pytest.raises(RunError, match=f"belongs to another training: its {named} differ"):
        fit(tiny(), **{"epochs": 2, "checkpoint": place} | changes)
    assert (place / "weights.safetensors").read_bytes() == before


def test_a_checkpoint_of_an_earlier_revision_is_refused(finished, tmp_path):
    state = shutil.copytree(finished[2], tmp_path / "c") / "state.json"
    state.write_text(state.read_text().replace('"format": 3', '"format": 2'))
    with pytest.raises(RunError, match="its format differ"):
        fit(tiny(), epochs=2, checkpoint=tmp_path / "c")


def test_no_global_generator_moves_and_none_matters(tmp_path):
    results = []
    for state in (0, 1):
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002
        before = torch.random.get_rng_state()
        encoder = tiny(swin(tmp_path))
        fit(encoder, epochs=1)
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
    history = fit(tiny(), images, labels, loss=lambda z, batch, *_: supcon(z, batch, 0.5), optimisation=plan)
    assert history["loss"].iloc[-1] < 0.95 * history["loss"].iloc[0]
    loss, head = supervised_loss("bce", labels), build_probe(3, 8, seed=0)
    history = fit(tiny(), images, labels, loss=loss, head=head, optimisation=plan)
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]


def test_losses_see_two_views_raw_labels_and_every_row_once_an_epoch():
    rows = np.arange(3, 19)  # 16 rows: batches of 5, 5, 5 and one image, which is dropped
    seen = []

    def spy(z, batch, generator, anchors):
        seen.append((tuple(z.shape), batch.clone()))
        return contrast(z, batch, generator)

    fit(tiny(), loss=spy, rows=rows, epochs=2)
    assert [shape for shape, _ in seen[1:]] == [(2, 5, 3, 8)] * 6  # the first call names the loss
    for epoch in (seen[1:4], seen[4:7]):
        given = sorted(map(tuple, torch.cat([batch for _, batch in epoch]).tolist()))
        allowed = sorted(map(tuple, LABELS[rows].tolist()))
        assert len(given) == 15
        for row in given:
            allowed.remove(row)

    def logits_spy(logits, batch):
        seen.append((tuple(logits.shape), batch))
        return logits.mean()

    seen.clear()
    fit(tiny(), loss=logits_spy, head=LinearProbe(3, 8), rows=rows, epochs=1)
    assert seen[1][0] == (10, 3)
    assert torch.equal(seen[1][1][:5], seen[1][1][5:])


def test_frames_are_drawn_by_their_weights_with_and_without_a_head():
    rows, weights = np.arange(3, 19), np.zeros(16)
    weights[[2, 7]] = 0.75, 0.25
    common = {"rows": rows, "sampling_weights": weights}
    seen = []

    def spy(z, batch, generator, anchors):
        seen.append(batch.clone())
        return contrast(z, batch, generator)

    fit(tiny(), loss=spy, epochs=8, **common)
    given = torch.cat(seen[1:])
    assert len(given) == 8 * 15, "as many as there are rows, but for a last batch of one"
    assert {tuple(row) for row in given.tolist()} == {tuple(LABELS[rows[2]]), tuple(LABELS[rows[7]])}
    often = (given == torch.from_numpy(LABELS[rows[2]])).all(1).float().mean().item()
    assert 0.6 < often < 0.9

    def logits_spy(logits, batch):
        seen.append(batch)
        return logits.mean()

    seen.clear()
    fit(tiny(), loss=logits_spy, head=LinearProbe(3, 8), epochs=1, **common)
    assert {tuple(row) for row in torch.cat(seen[1:]).tolist()} <= {tuple(LABELS[rows[k]]) for k in (2, 7)}


def test_values_of_check_and_measure_join_the_history_and_are_nan_between_checks():
    seen = []

    def measure(z, batch):
        seen.append((tuple(z.shape), tuple(batch.shape)))
        return {"spread": z.std().item()}

    history = fit(tiny(), checks=2, check=lambda epoch: {"val_auc": epoch / 10}, measure=measure)
    assert seen == [((2, 5, 3, 8), (5, 3))] * 2
    assert list(history) == ["epoch", "loss", "learning_rate", "seconds", "val_auc", "spread"]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(history["val_auc"], [np.nan, 0.2, np.nan, 0.4])
    assert history["spread"].notna().tolist() == [False, True, False, True]


def test_an_encoder_that_comes_in_eval_mode_is_trained_in_training_mode():
    encoder = tiny().eval()
    fit(encoder, epochs=1)
    assert encoder.training
    assert encoder.shared_norm.num_batches_tracked == 4


def test_two_forwards_give_each_norm_one_view_at_a_time():
    encoders = {}
    for two_forwards in (False, True):
        encoder = encoders[two_forwards] = tiny()
        batches = []
        encoder.shared.register_forward_hook(lambda _m, _i, output, into=batches: into.append(output.detach()))
        plan = settings(epochs=1, batch_size=21, learning_rate=1e-12)
        fit(encoder, optimisation=plan, two_forwards=two_forwards)
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


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_an_epoch_tells_progress_and_time_left_and_a_bar_is_drawn_at_a_terminal_only(
    terminal, monkeypatch, capsys
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    lines = []
    fit(tiny(), epochs=2, checks=1, log=lines.append, check=lambda _epoch: {"val_auc": 0.712})
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  loss ")
    assert " s/epoch  about " in lines[0]
    assert lines[0].endswith(" s left")
    assert "  val AUC .712  " in lines[1]
    assert ("epoch 1" in capsys.readouterr().err) == terminal


@pytest.mark.parametrize("source", ["features", "loss", "labels"])
def test_a_loss_that_is_not_finite_names_epoch_step_aus_and_where_it_comes_from(source, tmp_path):
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
        fit(encoder, loss=breaks, aus=AUS, checkpoint=tmp_path / "c")
    assert str(error.value).startswith(f"epoch 2, step 2: the loss is not finite: {expected[source]};")
    assert len(json.loads((tmp_path / "c" / "state.json").read_text())["history"]) == 1


def test_a_supervised_loss_that_is_not_finite_names_its_aus():
    head = LinearProbe(3, 8)
    loss = supervised_loss("bce", LABELS)
    with torch.no_grad():
        head.bias[1] = math.inf
    with pytest.raises(RunError, match=r"epoch 1, step 1: .* the network's output for AU2 is not;"):
        fit(tiny(), loss=loss, head=head, aus=AUS)
    with pytest.raises(RunError, match="the network's output is, the loss terms of all 3 AUs are not;"):
        fit(tiny(), loss=lambda x, y: loss(x, y) * math.nan, head=LinearProbe(3, 8), aus=AUS)


def test_images_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"expected labels \(21, 3\)"):
        fit(tiny(), IMAGES, LABELS[:, :2])
    with pytest.raises(DataError, match="at least 2 images"):
        fit(tiny(), rows=np.array([4]))


def test_a_memory_map_that_cannot_be_written_trains_and_embeds_like_an_array(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    encoders = tiny(), tiny()
    for encoder, source in zip(encoders, (IMAGES.copy(), mapped), strict=True):
        fit(encoder, source, epochs=1)
    assert same(*encoders)
    assert np.array_equal(embed(encoders[0], IMAGES), embed(encoders[1], mapped))
