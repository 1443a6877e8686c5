"""The audit: closed forms against brute force and by hand, the published logs read again with the csv module."""

import csv
import itertools
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from aunce import literature
from aunce.analyses import published
from aunce.analyses.published import DATASETS, Confusion, consistent, solve
from aunce.data import bp4d, disfa
from aunce.errors import UsageError

FOLDER = Path(literature.__file__).parent / "data" / "published"
ADAPTERS = {"BP4D": bp4d, "DISFA": disfa}


def logs(dataset):
    with open(FOLDER / "aunce_fold_logs.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row["dataset"] == dataset]


def matrices(frames):
    """Every confusion matrix of so many frames."""
    for tp, fp, fn in itertools.product(range(frames + 1), repeat=3):
        if tp + fp + fn <= frames:
            yield tp, fp, fn, frames - tp - fp - fn


def f1_of(tp, fp, fn):
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0


def by_hand(row, part, dataset):
    """TP and errors of a row of the logs, in other words than the library's: from F1 = 2 TP / (predicted + P)."""
    frames = ADAPTERS[dataset].PUBLISHED_FRAMES[dataset.lower()][part]
    errors = frames * (100 - float(row["accuracy"])) / 100
    odds = float(row["f1"]) / (100 - float(row["f1"]))  # 2 TP / E
    return odds * errors / 2, errors


# ------------------------------------------------------------------------------------------------ confusion matrices


def test_the_closed_form_gives_back_every_small_matrix():
    for frames in (5, 12):
        for tp, fp, fn, tn in matrices(frames):
            # without errors and positives F1 is not defined
            if tp + fp + fn:
                found = solve(f1_of(tp, fp, fn), (tp + tn) / frames, (tp + fn) / frames, frames)
                assert found == pytest.approx((tp, fp, fn, tn), abs=1e-8)


def test_the_closed_form_by_hand():
    # 30 positives of 100, 20 errors, F1 = 2/3: TP = 2/3 x 20 / (2/3) = 20, FN = 10, FP = 10
    assert solve(2 / 3, 0.8, 0.3, 100) == pytest.approx(Confusion(20, 10, 10, 60))
    assert solve(1, 1, 0.3, 100) == pytest.approx((30, 0, 0, 70))
    assert solve(0, 0.7, 0.3, 100) == pytest.approx((0, 0, 30, 70))
    # an F1 of .9 with 20 errors needs 90 true positives: more than there are
    assert solve(0.9, 0.8, 0.3, 100).fn == pytest.approx(-60)


@pytest.mark.parametrize("frames", [7, 16, 23])
def test_whole_matrices_are_those_that_brute_force_finds(frames):
    """Every printed pair that occurs, among them ties such as 1/16 = 6.25 %, and one that cannot."""
    every = list(matrices(frames))
    seen = {
        (round(100 * f1_of(*m[:3]), 2), round(100 * (m[0] + m[3]) / frames, 2), round((m[0] + m[2]) / frames, 4))
        for m in every
    }
    for f1, accuracy, rate in [*sorted(seen)[::17], (37.0, 41.0, 0.5)]:
        expected = {
            m
            for m in every
            if abs(100 * f1_of(*m[:3]) - f1) <= 0.005 + 1e-7
            and abs(100 * (m[0] + m[3]) / frames - accuracy) <= 0.005 + 1e-7
            and abs((m[0] + m[2]) / frames - rate) <= published.HALF_RATE + 1e-7
        }
        found = consistent(f1, accuracy, rate, frames)
        assert set(found.itertuples(index=False, name=None)) == expected
        assert not found.duplicated().any()


@given(tp=st.integers(0, 20_000), fp=st.integers(0, 20_000), fn=st.integers(0, 20_000), tn=st.integers(1, 20_000))
def test_a_matrix_is_among_those_that_its_own_printed_numbers_allow(tp, fp, fn, tn):
    frames = tp + fp + fn + tn
    f1, accuracy = f"{100 * f1_of(tp, fp, fn):.2f}", f"{100 * (tp + tn) / frames:.2f}"
    found = consistent(float(f1), float(accuracy), round((tp + fn) / frames, 4), frames)
    assert (found == [tp, fp, fn, tn]).all(axis=1).any()


@pytest.mark.parametrize("dataset", DATASETS)
def test_recovered_matrices_are_printed_like_the_logs(dataset):
    table = published.recovered(dataset).set_index(["part", "au"])
    read = logs(dataset)
    assert len(table) == len(read) == 3 * len(ADAPTERS[dataset].AUS)
    candidates = published._recovered(dataset)[1]
    for row in read:
        part, au = row["test_part"], int(row["au"])
        own = table.loc[part, au]
        frames = ADAPTERS[dataset].PUBLISHED_FRAMES[dataset.lower()][part]
        assert own[["tp", "fp", "fn", "tn"]].min() >= 0
        assert own[["tp", "fp", "fn", "tn"]].sum() == pytest.approx(frames)
        assert (100 * own["f1"], 100 * own["accuracy"]) == pytest.approx((float(row["f1"]), float(row["accuracy"])))
        assert own["matrices"] == len(candidates[part, au]) > 0
        for tp, fp, fn, tn in candidates[part, au].itertuples(index=False, name=None):
            assert tp + fp + fn + tn == frames
            assert 100 * f1_of(tp, fp, fn) == pytest.approx(float(row["f1"]), abs=0.005001)
            assert 100 * (tp + tn) / frames == pytest.approx(float(row["accuracy"]), abs=0.005001)
            assert (tp + fn) / frames == pytest.approx(ADAPTERS[dataset].RATES[part][au], abs=0.0000501)
        for name in ("tp", "fp", "fn", "tn", "kappa", "balanced_accuracy"):
            assert own[f"{name}_low"] <= own[f"{name}_high"]
        # rounding says where the matrix is to a few frames in a thousand
        assert own["tp_high"] - own["tp_low"] <= 0.003 * frames


def test_scores_equal_scikit_learns():
    counts = pd.DataFrame([(5, 3, 2, 10), (1, 7, 4, 3), (9, 0, 1, 1)], columns=["tp", "fp", "fn", "tn"])
    for own, (tp, fp, fn, tn) in zip(
        published.scores(counts).itertuples(), counts.itertuples(index=False), strict=True
    ):
        truth = [1] * tp + [0] * fp + [1] * fn + [0] * tn
        called = [1] * (tp + fp) + [0] * (fn + tn)
        assert own.f1 == pytest.approx(metrics.f1_score(truth, called))
        assert own.kappa == pytest.approx(metrics.cohen_kappa_score(truth, called))
        assert own.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, called))
        assert own.precision == pytest.approx(metrics.precision_score(truth, called))
        assert own.accuracy == pytest.approx(metrics.accuracy_score(truth, called))
        assert own.f1_always == pytest.approx(metrics.f1_score(truth, [1] * len(truth)))
        assert own.accuracy_constant == pytest.approx(max(truth.count(0), truth.count(1)) / len(truth))
        # each label with the weight of half the frames
        weights = [len(truth) / truth.count(label) for label in truth]
        assert own.f1_even == pytest.approx(metrics.f1_score(truth, called, sample_weight=weights))


# ------------------------------------------------------------------------------------------------ folds and averages


@pytest.mark.parametrize(
    ("dataset", "possible"), [("BP4D", {("3", "1", "2"), ("3", "2", "1")}), ("DISFA", {("3", "2", "1")})]
)
def test_which_assignments_of_folds_to_parts_arithmetic_allows(dataset, possible):
    table = published.assignments(dataset).set_index("assignment")
    assert len(table) == 6
    for parts in itertools.permutations("123"):
        worst = 0.0
        for row in logs(dataset):
            part = parts[int(row["fold"]) - 1]
            frames = ADAPTERS[dataset].PUBLISHED_FRAMES[dataset.lower()][part]
            tp, errors = by_hand(row, part, dataset)
            missed = frames * ADAPTERS[dataset].RATES[part][int(row["au"])] - tp
            worst = min(worst, missed, errors - missed)
        own = table.loc[", ".join(parts)]
        assert own["worst"] == pytest.approx(worst)
        assert (own["impossible"] == 0) == (parts in possible) == (worst == 0)
        assert math.isnan(own["pooled"]) != (parts in possible)
    # the released lists agree, and so do the parts that the logs go by
    assert {row["fold"]: row["test_part"] for row in logs(dataset)} == {"1": "3", "2": "2", "3": "1"}
    assert ("3", "2", "1") in possible


@pytest.mark.parametrize(("dataset", "mean", "together"), [("BP4D", 66.11, 66.33), ("DISFA", 66.42, 65.47)])
def test_pooled_f1_equals_an_independent_computation(dataset, mean, together):
    sums = {}
    for row in logs(dataset):
        tp, errors = by_hand(row, row["test_part"], dataset)
        before = sums.get(row["au"], (0, 0))
        sums[row["au"]] = (before[0] + tp, before[1] + errors)
    f1 = {au: 2 * tp / (2 * tp + errors) for au, (tp, errors) in sums.items()}
    table = published.pooled(dataset)
    for row in table.itertuples():
        assert row.f1 == pytest.approx(f1[str(row.au)])
        assert row.f1_low <= row.f1_high <= row.f1_low + 0.0005
        # printed decimals taken as exact may miss every whole-number matrix by a little
        assert row.f1_low - 5e-5 <= row.f1 <= row.f1_high + 5e-5
    assert 100 * math.fsum(f1.values()) / len(f1) == pytest.approx(together, abs=0.005)
    ways = published.averages(dataset).set_index("way")["aunce"]
    assert list(ways.index) == list(published.WAYS)
    assert ways[published.POOLED] == pytest.approx(together, abs=0.005)
    assert ways[published.MEAN] == pytest.approx(mean, abs=0.005)
    of_all = [sum(column) for column in zip(*sums.values(), strict=True)]
    assert ways["pooled over folds and AUs"] == pytest.approx(200 * of_all[0] / (2 * of_all[0] + of_all[1]))
    # the rounding of the logs cannot make up for it
    assert 100 * (table["f1_high"].mean() - table["f1_low"].mean()) < 0.02
    assert published.assignments(dataset)["pooled"].dropna().tolist() == pytest.approx(
        [together] * (1 + (dataset == "BP4D")), abs=0.006
    )


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_extreme_pooled_f1_is_that_of_brute_force(sign):
    parts = [
        pd.DataFrame([(5, 2, 3, 0), (6, 1, 4, 0), (4, 4, 0, 0)], columns=["tp", "fp", "fn", "tn"]),
        pd.DataFrame([(50, 1, 1, 0), (48, 0, 1, 0)], columns=["tp", "fp", "fn", "tn"]),
        pd.DataFrame([(1, 9, 9, 0), (2, 20, 9, 0), (0, 1, 1, 0)], columns=["tp", "fp", "fn", "tn"]),
    ]
    every = [
        f1_of(*[sum(column) for column in zip(*chosen, strict=True)][:3])
        for chosen in itertools.product(*[list(part.itertuples(index=False, name=None)) for part in parts])
    ]
    assert published._extreme_f1(parts, sign) == pytest.approx(max(every) if sign == 1 else min(every))


@pytest.mark.parametrize(("dataset", "floor"), [("BP4D", 48.0), ("DISFA", 18.6)])
def test_always_positive_by_hand(dataset, floor):
    rates = [rate for part in ADAPTERS[dataset].RATES.values() for rate in part.values()]
    by_rates = 100 * math.fsum(2 * rate / (1 + rate) for rate in rates) / len(rates)
    assert by_rates == pytest.approx(floor, abs=0.05)
    assert published.averages(dataset).set_index("way").loc[published.MEAN, "always"] == pytest.approx(by_rates)
    # AU1 of BP4D in part 1: p = .1644, all positive is right in .1644 and wrong in .8356: 2 x .1644 / 1.1644 = .28238
    cell = published.recovered("BP4D").set_index(["part", "au"]).loc["1", 1]
    assert cell["f1_always"] == pytest.approx(0.28238, abs=1e-5)
    assert cell["accuracy_constant"] == pytest.approx(0.8356)


def test_other_averages_by_hand_of_a_data_set_in_which_parts_weigh_the_same():
    # DISFA's parts differ by one frame, so that weights change nothing that two decimals show
    ways = published.averages("DISFA").set_index("way")
    assert ways.loc["folds weighted by frames", "aunce"] == pytest.approx(ways.loc[published.MEAN, "aunce"], abs=0.001)
    aus = sorted(
        sum(float(row["f1"]) for row in logs("DISFA") if row["au"] == au) / 3 for au in {r["au"] for r in logs("DISFA")}
    )
    assert ways.loc["median over AUs", "aunce"] == pytest.approx((aus[3] + aus[4]) / 2)
    assert ways.loc["pooled, half the frames positive", "always"] == pytest.approx(200 / 3)


def test_bounds_on_another_list_hold_whatever_is_left_out():
    table = published.dropped("DISFA", "JAA-Net").set_index("part")
    assert table["dropped"].to_dict() == {"1": 431, "2": 3261, "3": 978}
    assert (table["low"] < table["f1"]).all()
    assert (table["f1"] < table["high"]).all()
    cell = published.recovered("DISFA").set_index(["part", "au"]).loc["1"]
    # AU25 of part 1 has more errors and true positives than 431
    errors, tp = cell.loc[25, "fp"] + cell.loc[25, "fn"], cell.loc[25, "tp"]
    high = {au: 2 * row["tp"] / (2 * row["tp"] + max(row["fp"] + row["fn"] - 431, 0)) for au, row in cell.iterrows()}
    assert high[25] == pytest.approx(2 * tp / (2 * tp + errors - 431))
    assert table.loc["1", "high"] == pytest.approx(100 * sum(high.values()) / 8)
    assert (published.dropped("BP4D", "AUNCE")[["f1", "high"]].diff(axis=1)["high"].abs() < 1e-9).all()


def test_frames_are_those_of_the_published_lists():
    segments = bp4d.segments().groupby("part")["frames"].sum().to_dict()
    assert segments == published.FRAMES["BP4D"]["AUNCE"]
    lost = {
        part: sum(last - first + 1 for s in subjects for first, last in disfa.LOST.get(s, ()))
        for part, subjects in disfa.PARTS.items()
    }
    for part, frames in published.FRAMES["DISFA"]["AUNCE"].items():
        assert published.FRAMES["DISFA"]["JAA-Net"][part] == frames - lost[part]
    # 38 fewer in AU-Net's list, 271 fewer in JAA-Net's, as the table says
    sums = {who: sum(parts.values()) for who, parts in published.FRAMES["BP4D"].items()}
    assert (sums["AUNCE"] - sums["JAA-Net"], sums["JAA-Net"] - sums["AU-Net"]) == (271, 38)


def test_data_sets_without_logs_are_refused():
    for ask in (
        published.recovered,
        published.pooled,
        published.assignments,
        published.averages,
        published.compared,
        published.rivals,
    ):
        with pytest.raises(UsageError, match="'GFT': AUNCE released fold logs of BP4D and DISFA only"):
            ask("GFT")


def test_the_kept_table_is_out_of_reach():
    spoilt = published.recovered("BP4D")
    spoilt["tp"] = 0.0
    assert published.recovered("BP4D")["tp"].min() > 0


# ---------------------------------------------------------------------------------------------------- printed tables


def test_the_readme_s_table_has_aunces_row_and_the_means_known_elsewhere():
    for dataset in DATASETS:
        table = published.compared(dataset)
        assert table.shape == (20, len(ADAPTERS[dataset].AUS) + 1)
        assert table.index.is_unique
        own = literature.results(dataset).query("method == 'AUNCE (README)'").set_index("au")["f1"]
        assert {str(au): f1 for au, f1 in table.loc["AUNCE"].items()} == own.to_dict()
        known = literature.results(dataset).query("au == 'mean' and status == 'verified'").set_index("method")["f1"]
        shared = [method for method in table.index if method in known.index and method != "AUNCE"]
        assert len(shared) >= 4
        assert table.loc[shared, "mean"].to_dict() == known[shared].to_dict()


def test_rows_off_by_more_than_rounding():
    table = published.reaveraged()
    off = {(row.dataset, row.method): (row.printed, round(row.mean, 2)) for row in table[table["off"]].itertuples()}
    assert off == {
        ("BP4D", "EAC-Net"): (55.9, 55.58),
        ("DISFA", "EAC-Net"): (48.5, 57.41),
        ("DISFA", "ROI"): (48.5, 57.41),
        ("BP4D+", "ViT"): (61.6, 61.76),
        ("BP4D+", "CLEF"): (63.1, 62.71),
    }
    # AUs of the linear SVM are printed without decimals, those of the ensemble with one and its mean with two
    allowed = table.set_index(["dataset", "method"])["allowed"]
    assert allowed["GFT", "linear SVM"] == pytest.approx(0.55)
    assert allowed["BP4D", "AUNCE"] == pytest.approx(0.1)
    assert allowed["Aff-Wild2", "ensemble, smoothed over 5 frames each way"] == pytest.approx(0.055)


def test_cells_and_sources_that_differ():
    cells = {(row.dataset, row.au): (round(row.logs, 2), row.printed) for row in published.misprinted().itertuples()}
    assert cells == {("BP4D", 2): (49.86, 49.8), ("BP4D", 15): (55.2, 55.1)}
    other = {(row.dataset, row.method): (row.readme, row.elsewhere) for row in published.differing().itertuples()}
    assert other == {("BP4D", "MCM"): (61.4, 66.0), ("DISFA", "ME-GraphAU"): (62.4, 63.1)}


def test_orders_by_hand():
    table = pd.DataFrame({1: [10.0, 30.0, 40.0], 2: [90.0, 40.0, 30.0], 4: [20.0, 45.0, 41.0]}, index=["a", "b", "c"])
    ways = published.orders(table, "GFT")
    assert ways["mean"].to_dict() == pytest.approx({"a": 40, "b": 115 / 3, "c": 37})
    assert ways["median"].to_dict() == {"a": 20, "b": 40, "c": 40}
    assert ways.loc["a", "geometric mean"] == pytest.approx((10 * 90 * 20) ** (1 / 3))
    # ranks of a: 3, 1, 3
    assert ways["mean rank"].to_dict() == pytest.approx({"a": -7 / 3, "b": -5 / 3, "c": -2})
    assert ways.loc["a", "mean without AU2"] == 15
    assert published.GAIN not in ways
    gains = published.orders(published.compared("DISFA").drop(columns="mean"), "DISFA")[published.GAIN]
    floors = {row.au: 100 * row.f1_always for row in published.pooled("DISFA").itertuples()}
    row = published.compared("DISFA").loc["MMA-Net"].drop("mean")
    assert gains["MMA-Net"] == pytest.approx(sum((row[au] - floors[au]) / (100 - floors[au]) for au in row.index) / 8)


def test_survival_counts_pairs(monkeypatch):
    # means 40, 38.3, 37: the median turns a-b and a-c, and ties b-c; the geometric mean turns a-b and a-c
    table = pd.DataFrame({1: [10.0, 30.0, 40.0], 2: [90.0, 40.0, 30.0], 4: [20.0, 45.0, 41.0]}, index=["a", "b", "c"])
    monkeypatch.setattr(published, "tables", lambda: {("GFT", "p", "verified"): table.assign(mean=table.mean(axis=1))})
    (row,) = published.survival().to_dict("records")
    assert (row["methods"], row["pairs"]) == (3, 3)
    assert (row["median"], row["all"]) == (0, 0)
    assert row["geometric mean"] == pytest.approx(1 / 3)
    assert row["mean rank"] == pytest.approx(1 / 3)
    assert row["winners"] == "a, b, c"


def test_leads_that_do_not_survive():
    margins = {dataset: published.rivals(dataset).set_index("method") for dataset in DATASETS}
    assert {dataset: len(table) for dataset, table in margins.items()} == {"BP4D": 19, "DISFA": 19}
    assert margins["BP4D"]["margin"].idxmin() == "CLEF"
    assert margins["DISFA"]["margin"].idxmin() == "MMA-Net"
    # AUs add up to 793.3 and to 791.2, without AU2 to 743.5 and 744.4
    assert not margins["BP4D"].loc["CLEF", "one_au_less"]
    assert margins["DISFA"].loc["SACL", ["ahead", "aus"]].tolist() == [3, 8]
    assert margins["DISFA"].query("way_moves").index.tolist() == ["MMA-Net", "SACL"]
    assert margins["BP4D"].query("way_moves").index.tolist() == ["CLEF"]
    assert margins["BP4D"].query("not survives").index.tolist() == ["CLEF"]
    assert margins["DISFA"]["survives"].sum() == 12


def test_importing_it_and_the_literature_does_not_import_torch():
    code = "import sys, aunce.literature, aunce.analyses.published; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
