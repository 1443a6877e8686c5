"""The rules of the second edition: looks by hand, the simulation's own rule as a second opinion, and every outcome."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aunce.report.scores import Scores
from aunce.report.second import LOOKS, Confirmation, Decision, confirmation, decide, gap, may_stop, scores, worst
from aunce.statistics import Estimate, Outcome

CELLS = ("clean, easy", "clean, hard", "noisy, easy", "noisy, hard")


def sample(values):
    """One row per replicate; `values` are those of each cell (4, n)."""
    rows = [
        {"replicate": 100 * number + at, "cell": cell, "setting": cell.split(", ")[1], "value": value}
        for number, (cell, part) in enumerate(zip(CELLS, values, strict=True))
        for at, value in enumerate(part)
    ]
    return pd.DataFrame(rows)


def drawn(mean=0.0, *, n=8, deviation=0.01, seed=0):
    return sample(np.random.default_rng(seed).normal(mean, deviation, (4, n)))


@pytest.mark.parametrize(
    ("n", "look", "tail"), [(4, 1, 0.000191), (6, 2, 0.002252), (7, 2, 0.002252), (8, 3, 0.007601)]
)
def test_the_interval_of_a_look_is_that_of_the_spread_within_cells_at_its_published_level(n, look, tail):
    last = drawn(0.01, n=n)
    found = decide(last, last.assign(value=last["value"] - 0.001), cells=CELLS, margin=0.015)
    kept = last.groupby("cell").head(LOOKS[look - 1])
    cells = [part["value"] for _, part in kept.groupby("cell")]
    spread = np.sqrt(sum(((part - part.mean()) ** 2).sum() for part in cells) / (len(kept) - 4) / len(kept))
    half = stats.t.ppf(1 - tail, len(kept) - 4) * spread
    assert found.look == look
    assert found.repeated.value == pytest.approx(kept["value"].mean())
    assert found.repeated.high - found.repeated.value == pytest.approx(half, rel=1e-3)
    assert found.ordinary.high - found.ordinary.value == pytest.approx(spread * stats.t.ppf(0.975, len(kept) - 4))
    assert (found.change.value, found.change.low) == pytest.approx((0.001, 0.001))


def test_before_the_first_look_nothing_is_decided_however_clear_it_is():
    last = drawn(0.5, n=3)
    found = decide(last, last, cells=CELLS, margin=0.015)
    assert (found.look, found.outcome) == (0, Outcome.OPEN)
    assert found.ordinary.low > 0.4
    uneven = last[~((last["cell"] == CELLS[0]) & (last["replicate"] == 0))]
    assert decide(uneven, uneven, cells=CELLS, margin=0.015).look == 0
    without = drawn(0.5)
    without = without[without["cell"] != CELLS[0]]
    assert decide(without, without, cells=CELLS, margin=0.015).outcome is Outcome.OPEN


def test_replicates_beyond_a_look_wait_for_the_next():
    values = np.random.default_rng(1).normal(0.03, 0.01, (4, 5))
    few, more = sample(values[:, :4]), sample(values)
    assert decide(few, few, cells=CELLS, margin=0.015) == decide(more, more, cells=CELLS, margin=0.015)
    assert decide(sample(values), sample(values), cells=CELLS, margin=0.015, look=1).look == 1


@pytest.mark.parametrize(
    ("mean", "expected"),
    [(0.05, Outcome.BETTER), (0.01, Outcome.AHEAD), (0.0, Outcome.NO_DIFFERENCE), (-0.05, Outcome.WORSE)],
)
def test_a_clear_difference_gets_its_word_and_one_that_still_moves_is_marked(mean, expected):
    deviation = 0.006 if expected is Outcome.AHEAD else 0.004
    last = drawn(0, deviation=deviation)
    last["value"] += mean - last["value"].mean()
    found = decide(last, last, cells=CELLS, margin=0.015)
    if expected is not Outcome.AHEAD:  # near the margin an interval may also lie inside it
        assert found.outcome is expected
    assert found.settled
    assert found.words == str(found.outcome)
    moving = decide(last, last.assign(value=last["value"] - 0.02), cells=CELLS, margin=0.015)
    assert not moving.settled
    assert moving.words == f"{found.outcome}, still moving"


def test_a_sign_that_turns_between_easy_and_hard_faces_is_not_told_apart():
    last = sample(np.array([[0.101], [-0.001], [0.101], [-0.001]]) + np.random.default_rng(0).normal(0, 1e-4, (4, 8)))
    found = decide(last, last, cells=CELLS, margin=0.015)
    assert found.repeated.low > 0.015
    assert found.settings["hard"] < 0
    assert found.outcome is Outcome.OPEN


def test_both_lengths_need_the_same_replicates():
    last = drawn()
    with pytest.raises(ValueError, match="same replicates"):
        decide(last, last.iloc[1:], cells=CELLS, margin=0.015)


def made(found, *, look=1, value=0.0, low=-1.0, high=1.0):
    estimate = Estimate(value, low, high, 16)
    return Decision(found, estimate, estimate, {}, Estimate(0.0, 0.0, 0.0, 16), True, look)


def test_a_study_stops_when_nothing_is_open_or_after_the_last_look():
    better, still = made(Outcome.BETTER), made(Outcome.OPEN)
    assert may_stop([better, better])
    assert not may_stop([better, still])
    assert not may_stop([made(Outcome.BETTER, look=0)])
    assert may_stop([made(Outcome.OPEN, look=3), made(Outcome.BETTER, look=3)])
    assert not may_stop([])


def test_a_claim_has_the_outcome_of_its_worst_comparison():
    for one, other in itertools.combinations(Outcome, 2):
        assert worst([one, other]) is worst([other, one]) is other


def test_the_other_generator_confirms_contradicts_or_neither():
    better = made(Outcome.BETTER, value=0.03, low=0.02, high=0.04)
    assert confirmation(better, better) is Confirmation.CONFIRMS
    assert confirmation(better, made(Outcome.NO_DIFFERENCE)) is Confirmation.CONTRADICTS
    assert confirmation(better, made(Outcome.OPEN, value=-0.01, low=-0.02, high=-0.001)) is Confirmation.CONTRADICTS
    assert confirmation(better, made(Outcome.AHEAD, value=0.01, low=0.001, high=0.02)) is Confirmation.NOT_CONFIRMED
    nothing = made(Outcome.NO_DIFFERENCE, value=0.001, low=-0.01, high=0.01)
    assert confirmation(nothing, made(Outcome.WORSE, value=-0.03, low=-0.04, high=-0.02)) is Confirmation.CONTRADICTS
    assert confirmation(nothing, made(Outcome.OPEN)) is Confirmation.NOT_CONFIRMED


AUC = {("ours", ""): (0.8, 0.9), ("theirs", ""): (0.7, 0.9)}
AUC |= {(method, "drawn:bp4d"): (0.6, 0.5) for method in ("ours", "theirs")}
"""Of AU1 and AU2, by method and target."""


@pytest.fixture
def tables(tmp_path):
    """Collected tables of two methods in four cells with a replicate each; only AU1 is scored on the target."""
    facts = {"entering_aus": [1, 2], "null_aus": [], "kappa": {}, "entering_aus_of_targets": {"drawn:bp4d": [1]}}
    rows, counts, pairs = [], [], []
    for replicate, method in itertools.product(range(4), ("ours", "theirs")):
        noise, setting = CELLS[replicate].replace("clean", "none").replace("noisy", "miss 0.2").split(", ")
        place = {"arm": method, "kind": "arm", "noise": noise, "replicate": replicate, "part": "test"}
        data = json.dumps(facts | {"synthetic": {"setting": setting}})
        rows.append(
            place | {"key": f"{method}-{replicate}", "method": "bce", "status": "done", "data": data, "flat": True}
        )
        for (name, target), values in AUC.items():
            if name != method:
                continue
            for (au, score), head in itertools.product(zip((1, 2), values, strict=True), ("ridge", "probe")):
                reading = place | {"head": head, "epoch_rule": "last", "labels": "clean", "au": au, "target": target}
                wins = round(1000 * (score - 0.01 * replicate - (head == "probe") * 0.1))
                pairs.append(reading | {"subject": "", "other": "", "concordant": wins, "pairs": 1000, "within": False})
                counts.append(reading | {"threshold": "tuned", "subject": "", "tp": 1, "fp": 1, "fn": 1, "tn": 1})
    for name, table in (("runs", rows), ("counts", counts), ("auc", pairs)):
        pd.DataFrame(table).to_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


def test_scores_are_means_over_the_aus_of_the_test_and_of_each_target_by_the_head_that_decides(tables):
    report = Scores(tables)
    assert report.reading["head"] == "ridge"
    assert set(report.auc["target"]) == {""}
    found = scores(report)
    ridge = found[(found["head"] == "ridge") & (found["method"] == "ours") & (found["replicate"] == 1)]
    value = ridge.set_index(["target", "over"])["auc"]
    assert value.to_dict() == pytest.approx(
        {("", ""): 0.84, ("", "drawn:bp4d"): 0.79, ("drawn:bp4d", "drawn:bp4d"): 0.59}
    )
    assert set(ridge["cell"]) == {"none, hard"}
    home = found[(found["head"] == "ridge") & (found["target"] == "")]
    difference = gap(home[home["over"] == ""], "ours", "theirs")
    assert difference["value"].tolist() == pytest.approx([0.05] * 4)
    assert gap(home[home["over"] == "drawn:bp4d"], "ours", "theirs")["value"].tolist() == pytest.approx([0.1] * 4)
    away = found[(found["head"] == "ridge") & (found["target"] == "drawn:bp4d")]
    assert gap(away, "ours", "theirs")["value"].tolist() == pytest.approx([0.0] * 4)
    assert len(gap(away, "ours", "nobody")) == 0


def test_a_study_without_runs_has_no_scores(tmp_path):
    assert len(scores(Scores(tmp_path))) == 0
