"""Reports of ablations, on tables whose gains, flips and shares are known."""

import itertools
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cells import shown
from scipy import stats

from aunce.errors import UsageError
from aunce.report import findings
from aunce.report.ablation import Ablation
from aunce.report.claims_report import _why_apart
from aunce.report.decide import Comparison
from aunce.report.verification import hashes
from aunce.statistics import Estimate, Materiality, Verdict

RATES = {1: 0.5, 2: 0.26, 4: 0.1, 6: 0.02}


def make(
    folder: Path,
    score: "Any",
    *,
    arms: tuple[str, ...],
    replicates: int = 8,
    noises: tuple[str, ...] = ("none",),
    readings: Mapping[str, str] | None = None,
) -> Path:
    """Tables in which `score(arm, noise, au, replicate, **reading)` is the AUC, and the recall at every threshold."""
    runs, counts, auc, history = [], [], [], []
    rows: list[dict[str, str]] = [{"head": "probe", "epoch_rule": "last", "labels": "clean"}]
    rows += [rows[0] | {name: value} for name, value in (readings or {}).items()]
    for replicate in range(replicates):
        for noise in noises:
            for arm in arms:
                key = f"{replicate}-{noise}-{arm}"
                facts = {"dataset": "bp4d", "entering_aus": list(RATES), "null_aus": [28], "kappa": {}}
                facts |= {"synthetic": {"setting": "hard" if replicate % 2 else "easy", "version": 1}, "identity": 0.4}
                part = noise.rpartition("part ")[2] if "part" in noise else "3"
                place: dict[str, Any] = {"key": key, "arm": arm, "kind": "arm", "noise": noise, "replicate": replicate}
                place["part"] = part
                runs.append(
                    place
                    | {"method": "bce" if arm == "BCE" else "aunce", "status": "done", "flat": True, "val_auc": 0.7}
                    | {"val_f1": 0.5, "reason": "", "data": json.dumps(facts), "provenance": "{}"}
                    | {"spec": json.dumps({"method": "aunce", "backbone": "small", "pretext": False})}
                )
                curve = {"val_auc": 0.7, "val_f1": 0.5, "own_view": 0.9}
                history += [place | {"epoch": epoch} | curve for epoch in (1, 2)]
                for reading in rows:
                    for au, rate in RATES.items():
                        value = score(arm, noise, au, replicate, **reading)
                        at = place | reading | {"au": au, "subject": "F1"}
                        concordant = {"concordant": round(value * 10**6), "pairs": 10**6}
                        auc.append(at | {"other": "F1", "within": True} | concordant)
                        present = round(1000 * rate)
                        cells = {"tp": round(present * value), "fn": present - round(present * value)}
                        for threshold in ("tuned", "0.5", "oracle"):
                            counts.append(at | cells | {"threshold": threshold, "fp": 0, "tn": 1000 - present})
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("runs", runs), ("counts", counts), ("auc", auc), ("history", history)):
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")
    provenance = {"title": "Made up", "question": "Does it?", "runs": {"done": len(runs)}, "duration_s": 3600.0}
    provenance |= {"hardware": [], "started": "", "rebuild": "aunce study x", "files": hashes(folder)}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def section(notebook: str, heading: str, tables: Path) -> str:
    """A section of the page of a notebook."""
    return shown(notebook, tables=tables).split(f"\n## {heading}\n")[1].split("\n## ")[0]


IMBALANCE = ("exponents (.8, 1.2)", "exponents (1, 1)", "exponents (1.2, .8)", "batch of 128", "balanced sampler")


def rare_gain(arm: str, noise: str, au: int, replicate: int, **_: str) -> float:
    """As released 0.05 minus 0.1 times the prevalence above equal exponents, swapped the other way round."""
    sign = {"exponents (.8, 1.2)": 1, "exponents (1.2, .8)": -1}.get(arm, 0)
    return 0.7 + sign * (0.05 - 0.1 * RATES[au]) + 0.001 * (replicate % 3) * sign * RATES[au]


def test_a_gain_of_the_rare_is_the_height_of_the_line_at_2_above_that_at_50_percent(tmp_path: Path) -> None:
    report = Ablation(make(tmp_path, rare_gain, arms=IMBALANCE), experiment="imbalance")
    contrast = Comparison("exponents (.8, 1.2)", "exponents (1, 1)", "rarity")
    slopes = -0.1 + 0.001 * (np.arange(8) % 3)
    assert report.sample(contrast).to_numpy() == pytest.approx(slopes * (0.02 - 0.5), abs=1e-4)
    assert report.judge(report.claims[0])[0] is Verdict.SUPPORTED
    swapped = report.sample(Comparison("exponents (1.2, .8)", "exponents (1, 1)", "rarity"))
    assert swapped.to_numpy() == pytest.approx(slopes * (0.5 - 0.02), abs=1e-4)
    assert "the other sign, as it should have" in report.summary().entries[0].reason


def test_a_control_of_the_same_sign_is_said_beside_the_verdict(tmp_path: Path) -> None:
    def score(arm: str, noise: str, au: int, replicate: int, **_: str) -> float:
        return 0.7 if arm == "exponents (1, 1)" else rare_gain("exponents (.8, 1.2)", noise, au, replicate)

    report = Ablation(make(tmp_path, score, arms=IMBALANCE), experiment="imbalance")
    assert report.judge(report.claims[0])[0] is Verdict.SUPPORTED
    assert "the same sign, so that something else is at work" in report.findings().data


def test_the_figure_of_rarity_draws_the_gains_that_it_saves(tmp_path: Path) -> None:
    text = shown("imbalance", tables=make(tmp_path / "imbalance", rare_gain, arms=IMBALANCE), out=tmp_path)
    table = pd.read_csv(tmp_path / "figures" / "rarity.csv")
    assert len(table) == 2 * 8 * len(RATES)
    table = table[table["contrast"] == "exponents (.8, 1.2) minus exponents (1, 1)"]
    line = stats.linregress(table["prevalence"], table["gain"])
    assert f"{line.slope * (0.02 - 0.5):+.3f}" in text
    assert (
        "of however many people: 32 dots, pale for AUs too rare for the means. With the 32 alone that enter the means"
        in text
    )


def test_an_au_with_too_few_positive_frames_has_no_part_in_a_slope(tmp_path: Path) -> None:
    tables = make(tmp_path, rare_gain, arms=IMBALANCE)
    counts = pd.read_parquet(tables / "counts.parquet")
    counts.loc[counts["au"] == 6, ["tp", "fn"]] = [4, 5]
    counts.to_parquet(tables / "counts.parquet")
    report = Ablation(tables, experiment="imbalance")
    gains = report.gains(Comparison("exponents (.8, 1.2)", "exponents (1, 1)", "rarity"))
    assert sorted(set(gains["au"])) == [1, 2, 4]


def test_a_gap_matters_if_one_of_its_contrasts_does_and_not_if_all_are_within_delta(tmp_path: Path) -> None:
    def score(arm: str, noise: str, au: int, replicate: int, **_: str) -> float:
        shift = {"batch of 128": -0.02, "balanced sampler": 0.0}.get(arm, 0.0)
        return 0.7 + shift + 0.001 * ((replicate * len(arm)) % 3 - 1)

    report = Ablation(make(tmp_path / "one", score, arms=IMBALANCE), experiment="imbalance")
    (gap,) = report.discrepancies
    assert report.judge(gap)[0] is Materiality.MATTERS
    assert report.decisive(gap).better == "batch of 128"

    def same(arm: str, noise: str, au: int, replicate: int, **_: str) -> float:
        return 0.7 + 0.001 * ((replicate * len(arm)) % 3 - 1)

    report = Ablation(make(tmp_path / "two", same, arms=IMBALANCE), experiment="imbalance")
    assert report.judge(report.discrepancies[0])[0] is Materiality.NOTHING


def test_a_gap_whose_check_does_not_reject_is_at_the_edge(tmp_path: Path) -> None:
    def score(arm: str, noise: str, au: int, replicate: int, **_: str) -> float:
        lost = {"batch of 128": 0.02 + 0.001 * replicate if replicate < 6 else -0.001}.get(arm, 0.001 * (replicate % 2))
        return 0.7 - lost

    report = Ablation(make(tmp_path, score, arms=IMBALANCE), experiment="imbalance")
    contrast = Comparison("batch of 128", "exponents (.8, 1.2)")
    assert report.judge(report.discrepancies[0])[0] is Materiality.MATTERS
    signs = np.array(list(itertools.product((-1, 1), repeat=8))) @ report.sample(contrast).to_numpy()
    p = np.mean(np.abs(signs) >= abs(report.sample(contrast).sum()) - 1e-9)
    assert report.flip_p[contrast] == pytest.approx(2 * p)
    assert f"does not tell it from 0 (p {2 * p:.3f})" in report.summary().entries[-1].reason
    assert f"| {2 * p:.3f} |" in report.discrepancies_table().data


NOISES = ("none", "miss 0.3", "jitter 0.6", "flip 0.3", "confuse 0.3", "shift 0.3", "miss 0.3, rates not kept")


def test_robustness_is_what_is_gained_under_noise_beyond_what_is_gained_without(tmp_path: Path) -> None:
    def score(arm: str, noise: str, au: int, replicate: int, **_: str) -> float:
        gain = 0.03 if noise == "none" else 0.05 if noise.startswith("jitter") else 0.09
        return 0.7 + (gain + 0.001 * (replicate % 2) if arm == "share of own views .2" else 0)

    arms = ("share of own views .2", "no own views", "BCE")
    report = Ablation(make(tmp_path, score, arms=arms, noises=NOISES), experiment="noise")
    (claim,) = report.claims
    assert report.sample(Comparison(*arms[:2], "noise", "miss 0.3")).to_numpy() == pytest.approx(np.full(8, 0.06))
    assert report.sample(Comparison(*arms[:2], "noise", "jitter 0.6")).to_numpy() == pytest.approx(np.full(8, 0.02))
    assert report.decisive(claim).noise == "jitter 0.6"
    assert "with jitter 0.6 more than without noise" in report.verdicts().data
    assert report.sample(Comparison(*arms[:2])).mean() == pytest.approx(0.0305), "the usual condition is the first"
    assert report.methods_table().data.count("**") == 2 * len(NOISES)


def test_what_is_gained_against_kappa_is_a_line_through_nothing_without_noise(tmp_path: Path) -> None:
    kappas = {"none": 1.0, "miss 0.3": 0.5, "shift 0.3": 0.9}

    def score(arm: str, noise: str, au: int, replicate: int, **_: str) -> float:
        share = 0.04 + 0.2 * (1 - kappas[noise]) * (1 + replicate % 2)
        return 0.6 + (share if arm == "share of own views .2" else 0)

    arms = ("share of own views .2", "no own views")
    tables = make(tmp_path / "noise", score, arms=arms, noises=tuple(kappas))
    runs = pd.read_parquet(tables / "runs.parquet")
    runs["data"] = [
        json.dumps(json.loads(data) | {"kappa": {"AU1": kappas[noise], "AU4": kappas[noise], "AU9": 0.1, "AU6": None}})
        for data, noise in zip(runs["data"], runs["noise"], strict=True)
    ]
    runs.to_parquet(tables / "runs.parquet")
    text = shown("noise", tables=tables, out=tmp_path)
    table = pd.read_csv(tmp_path / "figures" / "against_kappa.csv")
    assert list(dict.fromkeys(table["noise"])) == ["none (κ 1.00)", "shift 0.3 (κ 0.90)", "miss 0.3 (κ 0.50)"]
    gains = table[table["measure"] == "gain"].set_index("noise")["estimate"]
    assert gains.to_dict() == pytest.approx({"shift 0.3 (κ 0.90)": 0.03, "miss 0.3 (κ 0.50)": 0.15})
    rises = [0.02, 0.04] * 4
    half = stats.t.ppf(0.975, 7) * np.std(rises, ddof=1) / np.sqrt(8)
    assert f"rises by +0.0300 (+{0.03 - half:.4f} to +{0.03 + half:.4f})" in text


DEALS = ("miss 0.2, deal part 3", "miss 0.2, deal part 1", "miss 0.2, deal part 2")


def test_flips_are_counted_pair_by_pair_within_a_replicate(tmp_path: Path) -> None:
    def score(arm: str, noise: str, au: int, replicate: int, **reading: str) -> float:
        value = {"BCE": 0.8, "SupCon": 0.7, "AUNCE": 0.6, "AUNCE, 20 epochs": 0.75}[arm]
        if noise.endswith("part 1") and replicate < 2:
            value = 1.4 - value  # all three pairs turn
        return value if reading.get("head") != "knn" else 0.9 - value / 2

    arms = ("BCE", "SupCon", "AUNCE", "AUNCE, 20 epochs")
    tables = make(tmp_path / "protocol", score, arms=arms, noises=DEALS, readings={"head": "knn"})
    text = shown("protocol", tables=tables, out=tmp_path)
    assert "0 to 100 % of the pairs of BCE, SupCon, AUNCE change places" in text
    assert findings.read(tmp_path).found.startswith("0 to 100 % of the pairs of BCE, SupCon, AUNCE change places")
    whole = pd.read_csv(tmp_path / "figures" / "flips.csv").set_index("change")
    assert whole["low"].min() == 0
    assert whole["high"].max() == 1
    assert whole.loc["another replicate", "high"] == pytest.approx(1 - 0.025 ** (1 / 4)), "four independent pairs"
    table = whole["estimate"]
    assert table["20 epochs in place of 40"] == pytest.approx(1 / 3), "AUNCE overtakes SupCon"
    assert table["head: kNN"] == 1
    assert table["subjects dealt anew (part 1)"] == pytest.approx(2 / 8)
    assert table["subjects dealt anew (part 2)"] == 0
    assert table["another replicate"] == 0
    assert "head: probe in training mode" not in table.index, "these runs have none"


def test_a_study_whose_first_condition_did_not_end_well_compares_nothing_with_another_one(tmp_path: Path) -> None:
    def score(arm: str, noise: str, au: int, replicate: int, **_: str) -> float:
        return 0.7 + 0.001 * replicate

    tables = make(tmp_path / "noise", score, arms=("share of own views .2", "no own views"), noises=NOISES)
    for name in ("counts", "auc", "history"):
        table = pd.read_parquet(tables / f"{name}.parquet")
        table[table["noise"] != "none"].to_parquet(tables / f"{name}.parquet")
    runs = pd.read_parquet(tables / "runs.parquet")
    runs.loc[runs["noise"] == "none", "status"] = "failed"
    runs.to_parquet(tables / "runs.parquet")
    report = Ablation(tables, experiment="noise")
    assert report.judge(report.claims[0])[0] is Verdict.UNDECIDED
    assert "No replicate" in section("noise", "Arms by noise", tables)
    started = make(tmp_path / "first" / "noise", score, arms=("share of own views .2", "no own views"))
    assert "No replicate" in section("noise", "Arms by noise", started), "nothing has ended with noise yet"


def test_f1_over_parts_is_pooled_from_counts_or_a_mean_of_parts(tmp_path: Path) -> None:
    sizes = {"part 3": 0.9, "part 1": 0.5, "part 2": 0.1}

    def score(arm: str, noise: str, au: int, replicate: int, **_: str) -> float:
        return sizes[noise.rpartition("deal ")[2]]

    arms = ("BCE", "SupCon", "AUNCE")
    text = shown("protocol", tables=make(tmp_path / "protocol", score, arms=arms, noises=DEALS))
    found = [2 * value / (1 + value) for value in sizes.values()]  # fp = 0: F1 = 2 r / (1 + r) with the recall r
    recall = np.mean(list(sizes.values()))
    pooled = 2 * recall / (1 + recall)
    row = f"{pooled:.3f} | {np.mean(found):.3f} | −{pooled - np.mean(found):.4f} |"
    assert all(f"| {arm} | {row}" in text for arm in arms)


def test_the_same_study_again_is_compared_contrast_by_contrast(tmp_path: Path) -> None:
    for name, shift in (("imbalance", 0.0), ("imbalance-again", 0.02)):

        def score(arm: str, noise: str, au: int, replicate: int, shift: float = shift, **_: str) -> float:
            return rare_gain(arm, noise, au, replicate) + (shift if arm == "batch of 128" else 0)

        make(tmp_path / name, score, arms=IMBALANCE)
    report = Ablation(tmp_path / "imbalance", experiment="imbalance")
    text = report.again().data
    one = report.sample(Comparison("batch of 128", "exponents (.8, 1.2)"))
    row = next(line for line in text.splitlines() if line.startswith("| batch of 128"))
    assert "−0.020" in row, one
    assert "C3: supported here, supported there." in text
    assert "**Done twice, on other people**: C3: supported here, supported there; D18" in report.findings().data
    assert "exponents (1.2, .8) minus exponents (1, 1), at 2 % more than at 50 %" in text, "the control"
    assert "not told apart" in _why_apart("undecided", "matters", Estimate(0.01, -0.01, 0.03, 8))
    assert "are apart by more" in _why_apart("undecided", "matters", Estimate(0.02, 0.01, 0.03, 8))
    assert _why_apart("matters", "matters", Estimate(0.02, 0.01, 0.03, 8)) == ""
    assert "imbalance" in Ablation(tmp_path / "imbalance-again", experiment="imbalance").again().data
    alone = Ablation(make(tmp_path / "positives", rare_gain, arms=IMBALANCE), experiment="none")
    assert "one base seed" in alone.again().data


def test_without_tables_every_section_says_so(tmp_path: Path) -> None:
    report = Ablation(tmp_path / "none", experiment="imbalance")
    assert "No replicate" in section("imbalance", "Gain against prevalence", tmp_path / "none")
    for name in ("own_views", "identity"):
        assert "No replicate" in getattr(report, name)().data
    assert "No replicate" in section("noise", "Arms by noise", tmp_path / "none")
    report.discrepancies_table()
    report.again()
    for heading in ("What turns the ranking", "Mean of parts, or pooled", "Who it is"):
        assert "No replicate" in section("protocol", heading, tmp_path / "none")


def test_shares_and_identity_are_means_over_replicates(tmp_path: Path) -> None:
    report = Ablation(make(tmp_path / "t", rare_gain, arms=IMBALANCE), out=tmp_path, experiment="imbalance")
    assert "| 0.90 |" in report.own_views().data
    assert "| 0.40 |" in report.identity().data


def test_a_longer_training_is_compared_on_the_replicates_that_both_have(tmp_path: Path) -> None:
    arms = ("share of own views .2", "no own views")
    noises = ("none", "miss 0.3", "jitter 0.6", "flip 0.3")

    def score(arm: str, noise: str, au: int, replicate: int, long: bool, **_: str) -> float:
        if arm == arms[1]:
            return 0.6 + (0.05 if long else 0)
        spread = 0.001 * (replicate % 2) if long else 0.0
        return 0.62 + (0.02 if noise == "flip 0.3" and long else 0.0) + spread + (0 if replicate < 6 else 0.3)

    make(tmp_path / "noise", partial(score, long=False), arms=arms, noises=noises)
    tables = make(tmp_path / "noise_long", partial(score, long=True), arms=arms, noises=noises, replicates=6)
    runs = pd.read_parquet(tables / "runs.parquet")
    runs["flat"] = runs["noise"] != "none"
    runs.to_parquet(tables / "runs.parquet")
    history = pd.read_parquet(tables / "history.parquet").assign(epoch=lambda table: 2 * table["epoch"])
    history.to_parquet(tables / "history.parquet")
    text = shown("noise_long", tables=tables, out=tmp_path)
    table = pd.read_csv(tmp_path / "figures" / "by_length.csv").set_index(["contrast", "level"])
    plain = "share of own views .2 minus no own views"
    assert table.loc[(plain, "2 epochs"), "estimate"] == pytest.approx(0.02), "replicates 6 and 7 have no longer run"
    changes = table.xs("change", level="level")["estimate"]
    assert changes[plain] == pytest.approx(0.0005 - 0.05)
    assert changes[f"{plain}, with flip 0.3 more than without noise"] == pytest.approx(0.02)
    assert changes[f"{plain}, with miss 0.3 more than without noise"] == pytest.approx(0)
    half = stats.t.ppf(0.975, 5) * np.std([0, 0.001] * 3, ddof=1) / np.sqrt(6)
    assert table.loc[(plain, "4 epochs"), "high"] - table.loc[(plain, "4 epochs"), "estimate"] == pytest.approx(half)
    assert "| no own views | 0.600 | 0.650 | +0.050 |" in text
    assert "| 6 of 6 | 0 of 6 |" in text
    assert "Of 48 curves, 48 are flat after 2 epochs and 36 after 4" in text
    assert "changed by +0.020" in findings.read(tmp_path).found
    again = make(tmp_path / "noise_long-again", partial(score, long=True), arms=arms, noises=noises, replicates=2)
    assert "No replicate" in section("noise_long", "By length", again), "no noise-again"
    make(tmp_path / "noise-again", partial(score, long=False), arms=arms, noises=("none",), replicates=1)
    assert "| none | no own views | 0.600 | 0.650 | +0.050 |" in section("noise_long", "By length", again), (
        "of two replicates one is there"
    )
    for name in ("runs", "counts", "auc", "history"):
        table = pd.read_parquet(tables / f"{name}.parquet").assign(replicate=lambda table: table["replicate"] + 100)
        (tmp_path / "others").mkdir(exist_ok=True)
        table.to_parquet(tmp_path / "others" / f"{name}.parquet")
    (tmp_path / "others" / "provenance.json").write_text((tables / "provenance.json").read_text())
    assert "No replicate" in section("noise_long", "By length", tmp_path / "others")
    assert "Of 0 curves" in shown("noise_long", tables=tmp_path / "others")
    alone = tmp_path / "alone" / "noise_long"
    shutil.copytree(tables, alone)
    assert "No replicate" in section("noise_long", "By length", alone)
    assert "No replicate" in section("noise_long", "By length", tmp_path / "none")
    (tmp_path / "noise" / "auc.parquet").unlink()
    with pytest.raises(UsageError, match=r"noise, with which .* \(auc.parquet: is gone\); restore them"):
        shown("noise_long", tables=tables)
