"""Reports that decide claims, on tables whose AUCs are known."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aunce.report import findings
from aunce.report.claims_report import ClaimsReport
from aunce.report.decide import LEAST, Comparison
from aunce.statistics import Verdict
from aunce.study.grid import NOTEBOOKS

ARMS = {
    "BCE": "bce",
    "BCE pos_weight": "bce_pos_weight",
    "BCE AU weight": "bce_au_weight",
    "focal": "focal",
    "asymmetric": "asymmetric",
    "label smoothing": "label_smoothing",
    "InfoNCE": "infonce",
    "SupCon": "supcon",
    "AUNCE released": "aunce",
    "AUNCE hcl": "aunce",
}
AUS = {"bp4d": (1, 2, 4), "disfa": (1, 9)}  # those that enter differ between data sets


def make(
    folder: Path, values: Mapping[str, float], *, replicates: int = 16, spread: float = 0.002, unfinished: str = ""
) -> Path:
    """Tables in which the macro-AUC of an arm is its value, with noise; AUs scatter around it so that means matter.

    Settings alternate: in the hard one arms of a name in `values` with a suffix " hard" have that value.
    """
    random = np.random.default_rng(0)
    runs, counts, auc = [], [], []
    for replicate in range(replicates):
        dataset = "bp4d" if replicate % 2 else "disfa"
        setting = "hard" if replicate // 2 % 2 else "easy"
        for arm, method in ARMS.items():
            key = f"{replicate}-{arm}"
            status = "missing" if key == unfinished else "done"
            noise = "none" if replicate // 4 % 2 else "miss 0.2"
            facts = {"dataset": dataset, "entering_aus": list(AUS[dataset]), "null_aus": [28], "kappa": {}}
            facts |= {"synthetic": {"setting": setting, "version": 1}}
            place: dict[str, Any] = {"key": key, "arm": arm, "kind": "arm", "noise": noise, "replicate": replicate}
            place |= {"part": "3"}
            spec = {"method": method, "pretext": replicate // 8 % 2 == 1}
            runs.append(
                place
                | {"method": method, "status": status, "flat": True, "val_auc": 0.7, "val_f1": 0.5, "reason": ""}
                | {"data": json.dumps(facts), "spec": json.dumps(spec), "provenance": "{}"}
            )
            if status != "done":
                continue
            value = values.get(f"{arm} {setting}", values.get(arm, 0.7)) + spread * random.normal()
            aus = [*AUS[dataset], 28]
            for index, au in enumerate(aus):
                # 28 never enters: a mean over it would be seen at once
                own = 0.1 if au == 28 else value + 0.05 * (index - (len(aus) - 2) / 2)
                reading = {"head": "probe", "epoch_rule": "last", "labels": "clean", "au": au, "subject": "F1"}
                auc.append(
                    place | reading | {"other": "F1", "within": True, "concordant": round(own * 10**6), "pairs": 10**6}
                )
                counts.append(place | reading | {"threshold": "tuned", "tp": 30, "fp": 10, "fn": 10, "tn": 50})
    folder.mkdir(exist_ok=True)
    for name, rows in (("runs", runs), ("counts", counts), ("auc", auc)):
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")
    done = sum(run["status"] == "done" for run in runs)
    states = {"done": done, "failed": 0, "running": 0, "missing": len(runs) - done}
    provenance = {"title": "Made up", "question": "Does it?", "runs": states, "duration_s": 3600.0, "hardware": []}
    provenance |= {"study": "main", "rebuild": "aunce study main"}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def verdicts(report: ClaimsReport) -> dict[str, Verdict]:
    return {claim.id: report.judge(claim)[0] for claim in report.claims}


def test_a_difference_is_that_of_the_macro_scores_of_a_replicate_over_its_own_aus(tmp_path: Path) -> None:
    report = ClaimsReport(make(tmp_path, {"AUNCE released": 0.75, "BCE": 0.70}, spread=0.0))
    assert report.sample(Comparison("AUNCE released", "BCE")).to_numpy() == pytest.approx(np.full(16, 0.05), abs=1e-6)
    assert report.scores("BCE").to_numpy() == pytest.approx(np.full(16, 0.70), abs=1e-6)


def test_a_report_is_of_the_study_that_its_tables_name_whatever_its_size_and_of_no_other_claims(tmp_path: Path) -> None:
    tables = make(tmp_path, {"AUNCE released": 0.75})
    provenance = json.loads((tables / "provenance.json").read_text())
    for study, claims in (("main-gpu", ["C1", "C2"]), ("imbalance-again", ["C3"]), ("mine", [])):
        (tables / "provenance.json").write_text(json.dumps(provenance | {"study": study}))
        report = ClaimsReport(tables)
        assert [claim.id for claim in report.claims] == claims
    assert "names this study as its experiment" in report.verdicts().data
    assert "names this study as its experiment" in report.summary().found
    assert report.summary().entries == []


def test_the_worst_contrast_decides(tmp_path: Path) -> None:
    report = ClaimsReport(make(tmp_path, {"AUNCE released": 0.75}))
    assert verdicts(report) == {"C1": Verdict.SUPPORTED, "C2": Verdict.SUPPORTED}
    report = ClaimsReport(make(tmp_path, {"AUNCE released": 0.75, "focal": 0.80}))
    assert verdicts(report) == {"C1": Verdict.REVERSED, "C2": Verdict.SUPPORTED}
    assert report.decisive(report.claims[0]) == Comparison("AUNCE released", "focal")


def test_intervals_hold_for_all_contrasts_at_once(tmp_path: Path) -> None:
    """Nine equal contrasts: wider than one alone, as Bonferroni's where nothing is rejected."""
    report = ClaimsReport(make(tmp_path, {}, spread=0.02))
    pair = Comparison("AUNCE released", "BCE")
    sample = report.samples[pair].to_numpy()
    half = stats.t.ppf(1 - 0.025 / 9, len(sample) - 1) * stats.sem(sample)
    assert report.estimates[pair].high == pytest.approx(sample.mean() + half)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"values": {"AUNCE released": 0.75}, "replicates": LEAST - 1}, f"at least {LEAST} are needed"),
        ({"values": {"AUNCE released": 0.75}, "unfinished": "3-BCE"}, "runs are still to come"),
        ({"values": {"AUNCE released": 0.75, "SupCon hard": 0.751, "SupCon easy": 0.70}}, "changes its sign"),
        (
            {"values": {"AUNCE released": 0.75, "SupCon hard": 0.74, "SupCon easy": 0.80, "InfoNCE": 0.6}},
            "changes its sign",
        ),
    ],
)
def test_nothing_is_decided_without_enough_runs_or_against_a_setting(
    tmp_path: Path, case: dict[str, Any], why: str
) -> None:
    report = ClaimsReport(make(tmp_path, **case))
    found, reason = report.judge(report.claims[1])
    assert found is Verdict.UNDECIDED
    assert why in reason


def test_sections_say_what_the_tables_say(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    tables = make(tmp_path / "tables", {"AUNCE released": 0.65, "AUNCE hcl": 0.6})
    report = ClaimsReport(tables, out=out)
    report.title()
    found = findings.read(out)
    assert [entry.verdict for entry in found.entries] == ["reversed", "reversed"]
    assert found.kind == "rendered faces"
    assert found.entries[0].value == pytest.approx(-0.05, abs=0.005)
    assert "C1: **reversed**" in report.verdicts().data  # type: ignore[attr-defined]
    assert "| 0.650" in report.methods_table().data or "| 0.649" in report.methods_table().data  # type: ignore[attr-defined]
    report.by_condition()
    table = pd.read_csv(out / "figures" / "by_condition.csv")
    assert list(pd.unique(table["condition"])) == ["all", "noise", "setting", "dataset", "start"]
    assert table.loc[table["condition"] != "all", "replicates"].eq(8).all()


def test_a_pilot_shows_spreads_and_no_difference(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    report = ClaimsReport(make(tmp_path / "tables", {"AUNCE released": 0.93}, spread=0.01), out=out, pilot=True)
    shown = report.title().data + report.findings().data + report.variance().data  # type: ignore[attr-defined]
    shown += report.flatness().data  # type: ignore[attr-defined]
    assert "0.23" not in shown
    assert "0.93" not in shown
    spread = report.samples[Comparison("AUNCE released", "BCE")].std(ddof=1)
    assert f"{spread:.3f}" in shown
    assert findings.read(out).entries == []
    notebook = (NOTEBOOKS / "pilot.ipynb").read_text(encoding="utf-8")
    for section in ("learning_curves", "methods_table", "by_condition", "verdicts", "leak"):
        assert f"report.{section}" not in notebook, "it would show which arm is ahead"


def test_without_tables_every_section_says_so(tmp_path: Path) -> None:
    report = ClaimsReport(tmp_path / "main")
    assert "not defined" not in " ".join(report._sentences())
    for section in ("title", "findings", "verdicts", "by_condition", "methods_table", "design", "variance"):
        getattr(report, section)()
    assert verdicts(report) == {"C1": Verdict.UNDECIDED, "C2": Verdict.UNDECIDED}


def test_what_was_asked_after_the_runs_has_intervals_and_no_verdict(tmp_path: Path) -> None:
    report = ClaimsReport(make(tmp_path, {"AUNCE released": 0.75}, spread=0.02))
    text = report.afterwards(("AUNCE hcl", "SupCon")).data
    sample = report.sample(Comparison("AUNCE hcl", "SupCon")).to_numpy()
    low, high = stats.t.interval(0.95, len(sample) - 1, sample.mean(), stats.sem(sample))
    assert f"{low:+.3f} to {high:+.3f}".replace("-", "\N{MINUS SIGN}") in text
    assert "undecided" not in text
    assert "No replicate" in report.afterwards(("AUNCE hcl", "unheard of")).data


def test_the_contrasts_beside_the_deciding_one_are_told_with_what_they_come_to(tmp_path: Path) -> None:
    tables = make(tmp_path, {"AUNCE released": 0.70, "SupCon": 0.73, "InfoNCE": 0.60, "AUNCE hcl": 0.7})
    reason = ClaimsReport(tables).summary().entries[1].reason
    assert re.search(
        r"^worst of 3 contrasts; beside it supported: InfoNCE \+0\.(099|10\d) \([^)]* to [^)]*\); ", reason
    )
    assert re.search(r"beside it (undecided|not supported): AUNCE hcl .0\.00\d \([^)]* to [^)]*\)$", reason)
    assert "Beside it supported: InfoNCE +0." in " ".join(ClaimsReport(tables)._sentences())


def test_another_arm_in_the_place_of_one_is_judged_by_the_same_rules(tmp_path: Path) -> None:
    report = ClaimsReport(make(tmp_path, {"AUNCE released": 0.65, "AUNCE hcl": 0.75}))
    rows = [
        line for line in report.instead("AUNCE released", "AUNCE hcl").data.splitlines() if re.match(r"\| C\d", line)
    ]
    assert len(rows) == 9
    assert all("supported |" in row and "not supported" not in row for row in rows[:8])
    assert rows[0].startswith("| C1 | AUNCE hcl minus BCE | +0.0")
    assert verdicts(report) == {"C1": Verdict.REVERSED, "C2": Verdict.REVERSED}


def test_an_end_at_zero_that_is_excluded_is_said_in_words(tmp_path: Path) -> None:
    report = ClaimsReport(make(tmp_path, {"AUNCE released": 0.75, "AUNCE hcl": 0.749}))
    rows = [line for line in report.verdicts().data.splitlines() if line.startswith("| C")]
    assert any("just above 0 to" in row for row in rows)  # rejected, while hcl is left
    assert "*Just above 0* and *just below 0*: Holm's test leaves 0 out" in report.verdicts().data
    assert not any("0.000 to" in row for row in rows)
