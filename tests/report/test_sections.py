"""Collecting and rendering a study, on a study folder that was filled without training."""

import itertools
import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cells import shown as shown_by
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from aunce.errors import RunError, UsageError
from aunce.evaluation import score_tables, thresholds
from aunce.report import findings
from aunce.report import page as pages
from aunce.report.collect import collect, render
from aunce.report.sections import Report
from aunce.statistics import jackknife_interval, t_interval
from aunce.study.grid import Data, Run, load_study
from aunce.study.spec import RunSpec

AUS = (1, 2, 4, 12, 28)  # AU2 is too rare to enter, AU28 is never drawn
ENTERING = [1, 4, 12]
EVIL = "<script>alert(1)</script>"
ARMS = {"BCE": "bce", "SupCon": "supcon", "AUNCE as_read": "aunce", "random encoder": "random", "latent": "latent"}
SEPARATION = {"bce": 1.5, "supcon": 1.2, "aunce": 0.9, "random": 0.4, "latent": 4.0, "pixels": 0.3}


@dataclass
class FakeStudy:
    """What `report` reads of a study."""

    folder: Path
    runs: list[Run]
    name: str = "fake"
    title: str = f"Fake study {EVIL}"
    question: str = "Does every method learn?"
    note: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    report: str = "laptop"
    path: Path = field(default_factory=lambda: Path("/somewhere/fake.toml"))
    reference: str = "/somewhere/fake.toml"
    hash: str = "0123abcd"


@dataclass
class Truth:
    """What went into the tables of one run: test labels and the probe's scores at the last epoch."""

    labels: np.ndarray
    scores: np.ndarray
    tuned: np.ndarray


def make_run(folder: Path, arm: str, noise: str, replicate: int, *, part: str = "3", smoke: bool = False) -> Run:
    kind, rate = ("none", 0.0) if noise == "none" else ("miss", 0.3)
    spec = RunSpec(
        method=ARMS[arm],
        noise_kind=kind,
        noise_rate=rate,
        replicate=replicate,
        test_part=part,
        root="/secret",
        smoke=smoke,
    )
    key = f"{arm.lower().replace(' ', '-')}-{noise}-{replicate}-part{part}"
    labels = {"replicate": str(replicate), "noise": noise, "arm": arm}
    return Run(
        key, spec, (Data("bp4d", "", {"setting": "easy"}, replicate, "", {"size": 48}),), labels, folder / "runs" / key
    )


def finish(run: Run, *, revision: str = "abc123", hardware: str = "a laptop, 2 cores") -> Truth:
    """Fill the folder of a run as a finished one, with scores whose separation is that of its method."""
    subjects = np.repeat([EVIL, "F002", "M001", "M002", "M003", "M004"], 60)
    place = [run.spec.replicate, int(run.spec.test_part)]
    random = np.random.default_rng(place)  # labels depend on replicate and part alone
    rates = np.array([0.3, 0.02, 0.5, 0.4, 0.3])
    labels = (random.random((len(subjects), len(AUS))) < rates).astype(np.int8)
    noisy = np.where((random.random(labels.shape) < 0.3) & (run.spec.noise_rate > 0), 0, labels).astype(np.int8)
    method, noise = list(SEPARATION).index(run.spec.method), run.spec.noise_rate
    random = np.random.default_rng([*place, method, int(10 * noise)])
    drawn = SEPARATION[run.spec.method] * (1 - noise) * np.array([1, 1, 1, 1, 0])
    scores = {}
    for rule in ("last", "inner_val", "oracle"):
        for head in ("own", "probe", "knn"):
            logits = random.normal(size=(2, *labels.shape)) + drawn * labels - 0.7
            scores.setdefault(rule, {})[head] = tuple(1 / (1 + np.exp(-logits)))
    counts, auc = score_tables(scores, noisy, {"clean": labels, "noisy": noisy}, subjects, AUS)
    run.folder.mkdir(parents=True)
    first = {"part": run.spec.test_part, "replicate": run.spec.replicate}
    for name, table in (("counts", counts), ("auc", auc)):
        table.assign(**first).to_parquet(run.folder / f"{name}.parquet")
    epochs = pd.DataFrame({"epoch": range(1, 7), "loss": 1.0})
    epochs["val_auc"] = [math.nan, 0.6, math.nan, 0.7, math.nan, 0.70 + 0.01 * method]
    trained = run.spec.method not in ("random", "latent")
    (epochs.assign(val_f1=0.5) if trained else pd.DataFrame()).to_csv(run.folder / "history.csv", index=False)
    facts = {"dataset": "bp4d", "entering_aus": ENTERING, "kappa": {str(au): 1 - noise for au in AUS}}
    facts |= {
        "null_aus": [28],
        "synthetic": {"setting": "easy", "version": 3, "null_au": 28, "seed": run.spec.replicate},
        "rates": {},
    }
    origin = {"revision": revision, "modified": True, "versions": {"torch": "2.13.0"}, "hardware": hardware}
    origin |= {"device": "cpu", "threads": 1, "started": "2026-01-01T10:00:00", "finished": "2026-01-01T10:01:00"}
    metrics = {"format": 1, "key": run.key, "spec": run.spec.model_dump(), "data": facts, "duration_s": 60.0}
    metrics |= {"flat": run.spec.method != "aunce", "val_f1": 0.6, "val_auc": None, "provenance": origin}
    (run.folder / "metrics.json").write_text(json.dumps(metrics))
    validation, test = scores["last"]["probe"]
    return Truth(labels, test, thresholds(noisy, validation))


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(f1_score(labels, predictions, zero_division=0))


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeStudy, dict[str, Truth]]:
    """A whole study: five arms, two noise levels, two replicates, all done."""
    folder = tmp_path_factory.mktemp("reports") / "fake"
    runs = [make_run(folder, arm, noise, k) for k in (0, 1) for noise in ("none", "moderate") for arm in ARMS]
    return FakeStudy(folder, runs), {run.key: finish(run) for run in runs}


@pytest.fixture(scope="session")
def shown(study: tuple[FakeStudy, dict[str, Truth]]) -> Report:
    return read(study[0])


@pytest.fixture
def tables(study: tuple[FakeStudy, dict[str, Truth]], shown: Report, tmp_path: Path) -> FakeStudy:
    """The collected study in a folder of its own, without its runs, to be damaged."""
    return replace(study[0], folder=copy_tables(shown.folder, tmp_path / "fake"))


def copy_tables(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in [*folder.glob("*.parquet"), folder / "provenance.json"]:
        shutil.copy(path, to)
    return to


def change_facts(folder: Path, **facts: Any) -> None:
    """Change what the runs of collected tables recorded about their data."""
    runs = pd.read_parquet(folder / "runs.parquet")
    changed = [json.dumps(json.loads(text) | facts) for text in runs["data"]]
    runs.assign(data=changed).to_parquet(folder / "runs.parquet")


@pytest.fixture(scope="session")
def recorded(shown: Report, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The same scores as if they were of recorded faces."""
    folder = copy_tables(shown.folder, tmp_path_factory.mktemp("recorded") / "fake")
    change_facts(folder, synthetic=None, null_aus=[])
    return Report(folder)


@pytest.fixture(scope="session")
def unfinished(study: tuple[FakeStudy, dict[str, Truth]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study of which a method has failed in replicate 1, and floors are missing or damaged; with its report."""
    whole, _ = study
    folder = tmp_path_factory.mktemp("unfinished") / "fake"
    shutil.copytree(whole.folder / "runs", folder / "runs")
    runs = [replace(run, folder=folder / "runs" / run.key) for run in whole.runs]
    of = {(run.labels["arm"], run.labels["noise"], run.spec.replicate): run for run in runs}
    failed, missing = of["SupCon", "none", 1], of["random encoder", "none", 0]
    (failed.folder / "metrics.json").unlink()
    error = {"message": f"NaN in the loss {EVIL}", "cause": "RunError", "remedy": "see https://example.org"}
    (failed.folder / "error.json").write_text(json.dumps(error))
    shutil.rmtree(missing.folder)
    damaged = of["random encoder", "none", 1], of["random encoder", "moderate", 1]
    (damaged[0].folder / "auc.parquet").unlink()
    (damaged[1].folder / "metrics.json").write_text("{")
    return failed, missing, damaged, read(replace(whole, folder=folder, runs=runs))


def read(study: FakeStudy) -> Report:
    collect(study)  # type: ignore[arg-type]
    return Report(study.folder)


def words(markdown: Any) -> str:
    return str(markdown.data)


def test_floors_are_of_each_condition_where_their_test_labels_differ(shown: Report, tables: FakeStudy) -> None:
    assert set(shown.blind()["noise"]) == {"any"}
    counts = pd.read_parquet(tables.folder / "counts.parquet").astype({"fn": "int64"})
    counts["fn"] += 10 * (counts["noise"] == "miss 0.3")
    counts.to_parquet(tables.folder / "counts.parquet")
    blind = Report(tables.folder).blind("f1")
    blind = blind[blind["arm"] == "always positive"].groupby("noise")["value"].mean()
    assert blind["miss 0.3"] > blind["none"] + 0.01


@pytest.mark.parametrize("score", ["auc", "f1"])
def test_recorded_faces_have_intervals_over_subjects_and_seeds(
    study: tuple[FakeStudy, dict[str, Truth]], recorded: Report, score: str
) -> None:
    truths = study[1]
    subjects = np.repeat(np.arange(6), 60)

    def macro(arm: str, seed: int, rows: np.ndarray) -> float:
        truth = truths[f"{arm.lower()}-none-{seed}-part3"]
        values = []
        for k in map(AUS.index, ENTERING):
            labels, scores = truth.labels[rows, k], truth.scores[rows, k]
            values.append(roc_auc_score(labels, scores) if score == "auc" else _f1(labels, scores >= truth.tuned[k]))
        return float(np.mean(values))

    def interval(difference: bool) -> Any:
        def value(seed: int, rows: np.ndarray) -> float:
            return macro("SupCon", seed, rows) - difference * macro("BCE", seed, rows)

        whole = [value(seed, subjects >= 0) for seed in (0, 1)]
        return jackknife_interval(whole, [[value(seed, subjects != one) for one in range(6)] for seed in (0, 1)])

    for found, expected in (
        (recorded.interval("SupCon", "none", score), interval(False)),
        (recorded.interval("SupCon", "none", score, minus="BCE"), interval(True)),
    ):
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert "mean over 2 seeds, 95 % interval, conditional on these training sets" in words(recorded.findings())
    assert "Rendered faces" not in words(recorded.banner())


@pytest.fixture(scope="session")
def page(study: tuple[FakeStudy, dict[str, Truth]], shown: Report) -> Path:
    """The rendered page: the notebook is executed once for all tests."""
    (study[0].folder / ".render-left").mkdir()  # by one that was killed
    made = render(study[0])  # type: ignore[arg-type]
    assert not list(study[0].folder.glob(".render-*"))
    return made


# --- numbers


def truths(study: tuple[FakeStudy, dict[str, Truth]], arm: str, noise: str) -> list[Truth]:
    runs = [run for run in study[0].runs if run.labels["arm"] == arm and run.labels["noise"] == noise]
    return [study[1][run.key] for run in runs]


def macro_auc(truth: Truth) -> float:
    return float(np.mean([roc_auc_score(truth.labels[:, k], truth.scores[:, k]) for k in (0, 2, 3)]))


def macro_f1(truth: Truth) -> float:
    return float(np.mean([_f1(truth.labels[:, k], truth.scores[:, k] >= truth.tuned[k]) for k in (0, 2, 3)]))


@pytest.mark.parametrize(("score", "oracle"), [("auc", macro_auc), ("f1", macro_f1)])
def test_macro_scores_equal_scikit_learn_on_the_frames(study, shown, score, oracle) -> None:
    for arm in ARMS:
        for noise, label in (("none", "none"), ("moderate", "miss 0.3")):
            expected = [oracle(truth) for truth in truths(study, arm, noise)]
            assert shown.values(arm, label, score).tolist() == pytest.approx(expected)


def test_the_table_gives_the_interval_and_the_paired_difference(study, shown) -> None:
    bce, supcon = ([macro_auc(truth) for truth in truths(study, arm, "moderate")] for arm in ("BCE", "SupCon"))
    table = words(shown.scores_table("auc", verdict="demonstration: decides no claim"))
    (row,) = [line for line in table[table.index("miss 0.3") :].split("\n") if "SupCon" in line]
    low, high = stats.t.interval(0.95, 1, np.mean(supcon), stats.sem(supcon))
    assert row.replace("−", "-").startswith(f"| SupCon | {np.mean(supcon):.3f} | {low:.3f} to {high:.3f} |")
    difference = np.subtract(supcon, bce)
    low, high = stats.t.interval(0.95, 1, np.mean(difference), stats.sem(difference))
    assert f"| {np.mean(difference):+.3f} | {low:+.3f} to {high:+.3f} | 0.50 | 2 |" in row.replace("−", "-")
    assert row.endswith("| demonstration: decides no claim |")


def test_runs_curves_and_inner_validation_stand_behind_the_scores(shown) -> None:
    text = words(shown.behind())
    assert "| none (κ 1.00) | AUNCE as_read | 2 of 2 | 0 of 2 | 0.600 |" in text
    assert "| none (κ 1.00) | latent | 2 of 2 | no curve | 0.600 |" in text


def test_floors_from_counts_equal_their_formulas(study, shown) -> None:
    always, guess = [], []
    for truth in truths(study, "BCE", "none"):
        rates = truth.labels[:, [0, 2, 3]].mean(0)
        always.append(np.mean(2 * rates / (1 + rates)))
        guess.append(np.mean(rates))
    table = words(shown.scores_table("f1", verdict=""))
    for name, values in (("always positive", always), ("prevalence guess", guess)):
        estimate = t_interval(values)
        assert table.count(f"| {name} (floor) | {estimate.value:.3f} | {estimate.low:.3f} to") == 2


def test_the_null_au_is_in_no_macro_score_and_its_leak_is_shown(study, shown) -> None:
    assert shown.scored_aus == ENTERING
    expected = np.mean([roc_auc_score(t.labels[:, 4], t.scores[:, 4]) - 0.5 for t in truths(study, "BCE", "none")])
    assert f"| BCE | {expected:+.3f} (".replace("-", "−") in words(shown.leak())


def test_noise_is_labelled_by_kappa(shown) -> None:
    assert shown.labels == {"none": "none (κ 1.00)", "miss 0.3": "miss 0.3 (κ 0.70)"}


def test_arms_whose_curves_are_not_flat_are_named(shown) -> None:
    assert "had not flattened for AUNCE as_read (4 of 4 runs)" in words(shown.findings())


def test_findings_say_what_was_asked_and_give_every_difference_with_its_interval(shown) -> None:
    text = words(shown.findings())
    assert text.startswith("**Asked.** Does every method learn?")
    for arm in ("SupCon", "AUNCE as_read"):
        assert len(re.findall(rf"{arm} [+−]0\.\d+ \([+−]\d\.\d+ to [+−]\d\.\d+\)", text)) == 2


def test_the_index_is_told_what_was_found(study, shown, unfinished, tmp_path: Path) -> None:
    Report(study[0].folder, out=tmp_path).title()
    found = findings.read(tmp_path)
    assert (found.status, found.kind, found.runs, found.entries) == ("whole", "rendered faces", 20, [])
    assert found.found.count("SupCon") == 2
    assert pages.text(found.found) in words(shown.findings()).replace("\n- ", " ").replace("- ", "", 1)
    assert unfinished[-1].summary().status == "partial"


def test_a_tuning_report_tells_the_index_no_score(study, tmp_path: Path) -> None:
    Report(study[0].folder, out=tmp_path, tuning=True).title()
    found = findings.read(tmp_path).found
    assert found.startswith("3 trials at 2 noise levels")
    assert "no result" in found
    assert not re.search(r"0\.\d", found)


def test_mean_of_parts_and_pooled_stand_side_by_side(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "fake", "BCE", "none", 0, part=part) for part in ("1", "3")]
    found = [finish(run) for run in runs]
    shown = read(FakeStudy(tmp_path / "fake", runs))
    mean = np.mean([macro_f1(truth) for truth in found])
    predictions = np.concatenate([truth.scores >= truth.tuned for truth in found])
    labels = np.concatenate([truth.labels for truth in found])
    pooled = np.mean([_f1(labels[:, k], predictions[:, k]) for k in (0, 2, 3)])
    assert f"| BCE | {mean:.3f} | {pooled:.3f} |" in words(shown.parts())
    # over parts AUCs are averaged with weights n+ n-; frames of different parts are never compared
    aucs, weights = np.zeros((2, 3)), np.zeros((2, 3))
    for i, truth in enumerate(found):
        for j, k in enumerate((0, 2, 3)):
            aucs[i, j] = roc_auc_score(truth.labels[:, k], truth.scores[:, k])
            weights[i, j] = truth.labels[:, k].sum() * (1 - truth.labels[:, k]).sum()
    assert shown.values("BCE", "none", "auc").tolist() == pytest.approx([np.average(aucs, 0, weights).mean()])


# --- unfinished studies


def test_a_failed_run_drops_its_replicate_for_all_arms_and_is_listed(unfinished) -> None:
    failed, missing, _, shown = unfinished
    assert "**PARTIAL: 16 of 20 runs finished.**" in words(shown.title())
    text = words(shown.unfinished())
    assert f"{failed.key} | failed | NaN in the loss &lt;script&gt;" in text
    assert f"{missing.key} | missing |" in text
    assert "replicate 1 at noise none" in text
    for arm in ("BCE", "SupCon", "AUNCE as_read", "latent"):
        assert shown.values(arm, "none", "auc").index.tolist() == [0]
        assert shown.values(arm, "miss 0.3", "auc").index.tolist() == [0, 1]
    assert "| not defined |" in words(shown.scores_table("auc", verdict=""))
    assert "(interval not defined)" in words(shown.findings())
    assert len(pd.read_parquet(shown.folder / "runs.parquet")) == 20


def test_a_finished_run_whose_tables_are_damaged_is_left_out_and_said(unfinished) -> None:
    *_, damaged, shown = unfinished
    text = words(shown.unfinished())
    assert "16 of 20 runs finished" in text
    for run in damaged:
        assert f"{run.key} | damaged | " in text


def test_a_study_without_any_finished_run_says_so_in_every_section(tmp_path: Path) -> None:
    shown = read(FakeStudy(tmp_path / "fake", [make_run(tmp_path / "fake", "BCE", "none", 0)]))
    assert "PARTIAL: 0 of 1" in words(shown.title())
    assert (shown.summary().status, shown.summary().runs) == ("empty", 0)
    for section in (
        shown.banner,
        shown.headline,
        shown.learning_curves,
        shown.per_au_forest,
        shown.readings,
        shown.method,
    ):
        assert words(section()) == "No run has finished yet."
    assert "missing" in words(shown.unfinished())
    assert "0123abcd" in words(shown.footer())


def test_no_tables_at_all_are_said_plainly(tmp_path: Path) -> None:
    shown = Report(tmp_path / "nothing")
    assert "No runs yet" in words(shown.title())
    assert words(shown.headline()) == "No run has finished yet."
    assert words(shown.footer()) == ""
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(("name", "heading"), [("tune", "All trials"), ("dials", "Each action unit")])
def test_a_notebook_that_computes_a_table_says_that_nothing_has_run(tmp_path: Path, name: str, heading: str) -> None:
    text = shown_by(name, tables=tmp_path / "nothing")
    assert "No run has finished yet." in text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_trials_are_shown_by_inner_validation_alone(study, tmp_path: Path) -> None:
    collect(study[0])
    text = shown_by("tune", tables=study[0].folder)
    table = text.split("\n## All trials\n")[1].split("\n## ")[0]
    assert table.count("| none (κ 1.00) |") == len(ARMS)
    assert "| AUNCE as_read | not defined | 0 of 2 |" in table
    assert "chosen" not in table, "each method has one trial"


def test_no_complete_replicate_still_gives_a_report(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "fake", arm, "none", 0) for arm in ("BCE", "SupCon")]
    finish(runs[0])
    shown = read(FakeStudy(tmp_path / "fake", runs))
    assert words(shown.findings()).endswith("No replicate has finished in every arm yet.")
    for section in (shown.headline, shown.per_au_forest, shown.readings, shown.leak, shown.parts):
        assert words(section()) == "No replicate has finished in every arm yet."
    assert "PARTIAL: 1 of 2" in words(shown.title())


def test_a_study_in_which_no_au_enters_has_no_macro_score_and_says_so(tables: FakeStudy) -> None:
    change_facts(tables.folder, entering_aus=[])
    assert "there is no macro score" in words(Report(tables.folder).findings())


def test_smoke_runs_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "fake", "BCE", "none", 0, smoke=True)
    finish(run)
    with pytest.raises(UsageError, match="smoke"):
        collect(FakeStudy(tmp_path / "fake", [run]))  # type: ignore[arg-type]


def test_runs_that_the_report_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "fake", "BCE", "none", 0)
    with pytest.raises(UsageError, match="share arm, noise, replicate, part"):
        collect(FakeStudy(tmp_path / "fake", [run, replace(run, key="other")]))  # type: ignore[arg-type]


def test_runs_on_the_same_data_that_saw_different_images_are_refused(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "fake", arm, "none", k) for arm in ("BCE", "SupCon") for k in (0, 1)]
    for run in runs:
        finish(run)
        path = run.folder / "metrics.json"
        metrics = json.loads(path.read_text())
        metrics["data"]["hash"] = f"pixels of {run.spec.replicate}"
        path.write_text(json.dumps(metrics))
    study = FakeStudy(tmp_path / "fake", runs)
    collect(study)  # type: ignore[arg-type]
    metrics["data"]["hash"] = "other pixels"
    path.write_text(json.dumps(metrics))
    with pytest.raises(UsageError, match=f"{runs[1].key} saw pixels of 1; {runs[3].key} saw other pixels"):
        collect(study)  # type: ignore[arg-type]


# --- tables and provenance


def test_collecting_again_gives_the_same_bytes(study, shown) -> None:
    names = ("runs.parquet", "counts.parquet", "auc.parquet", "history.parquet", "provenance.json")
    before = [(shown.folder / name).read_bytes() for name in names]
    collect(study[0])
    assert before == [(shown.folder / name).read_bytes() for name in names]


def test_runs_done_elsewhere_are_kept_beside_those_done_here(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "fake", arm, "none", k) for k in (0, 1) for arm in ("BCE", "SupCon")]
    for run in runs[:2]:
        finish(run)
    here = FakeStudy(tmp_path / "fake", runs)
    collect(here)  # type: ignore[arg-type]
    for run in runs[:2]:
        run.folder.rename(tmp_path / run.key)
    for run in runs[2:]:
        finish(run)
    collect(here, add=True)  # type: ignore[arg-type]
    assert not runs[0].folder.exists()
    names = [path.name for path in here.folder.glob("*.parquet")]
    both = {name: pd.read_parquet(here.folder / name) for name in names}
    for run in runs[:2]:
        (tmp_path / run.key).rename(run.folder)
    collect(here)  # type: ignore[arg-type]
    assert {"runs.parquet", "counts.parquet", "auc.parquet"} <= set(names)
    for name in names:
        pd.testing.assert_frame_equal(both[name], pd.read_parquet(here.folder / name))

    change_facts(here.folder, null_aus=[7])
    with pytest.raises(UsageError, match=r"runs\.parquet: .*restore them"):
        collect(here, add=True)  # type: ignore[arg-type]


def test_a_subject_can_be_left_out_exactly(study, shown) -> None:
    auc = pd.read_parquet(study[0].folder / "auc.parquet")
    run = study[0].runs[0]
    rows = auc[(auc["key"] == run.key) & (auc["head"] == "probe") & (auc["epoch_rule"] == "last") & (auc["au"] == 4)]
    rows = rows[(rows["labels"] == "clean") & (rows["subject"] != "F002") & (rows["other"] != "F002")]
    truth = study[1][run.key]
    kept = np.repeat(np.arange(6) != 1, 60)
    expected = roc_auc_score(truth.labels[kept, 2], truth.scores[kept, 2])
    assert rows["concordant"].sum() / rows["pairs"].sum() == pytest.approx(expected)


def test_provenance_holds_what_a_reader_needs_and_no_path_of_the_machine(shown, study) -> None:
    facts = json.loads((study[0].folder / "provenance.json").read_text())
    assert facts["revisions"] == [{"revision": "abc123", "modified": True, "runs": 20}]
    assert facts["duration_s"] == 1200
    assert facts["versions"] == {"torch": ["2.13.0"]}
    assert len(facts["keys"]) == 20
    footer = words(shown.footer())
    for text in (
        "abc123 (modified)",
        "fake.toml, hash 0123abcd",
        "torch 2.13.0",
        "a laptop",
        "20 min",
        "aunce study fake",
    ):
        assert text in footer
    for path in study[0].folder.glob("*.parquet"):
        assert b"/secret" not in path.read_bytes()
    assert "/somewhere" not in json.dumps(facts)


def test_mixed_revisions_and_hardware_are_said(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "fake", "BCE", "none", replicate) for replicate in (0, 1)]
    finish(runs[0])
    finish(runs[1], revision="def456", hardware="another box")
    footer = words(read(FakeStudy(tmp_path / "fake", runs)).footer())
    assert "**Mixed revisions and hardware**" in footer
    assert "def456 (modified) (1 run)" in footer


def test_the_banner_depends_on_what_the_runs_recorded(shown, recorded, tmp_path) -> None:
    assert "this project's renderer (version 3, setting easy)" in words(shown.banner())
    assert words(recorded.banner()) == "Faces: bp4d."
    folder = copy_tables(shown.folder, tmp_path / "fake")
    change_facts(folder, synthetic={"setting": "easy", "version": 1, "faces": "modelled"})
    assert "this project's renderer (modelled faces, version 1, setting easy)" in words(Report(folder).banner())
    assert recorded.summary().kind == "recorded faces"
    assert "no AU that is labelled but never drawn" in words(recorded.leak())


# --- the page


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style, title and contents."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text: list[str] = []
        self.silent = 0
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.silent += tag in ("style", "title", "nav")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("style", "title", "nav")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.text.append(data)

    def all(self, tag: str) -> list[Mapping[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_loads_nothing_and_runs_nothing(page: Path) -> None:
    parsed = Page(page)
    assert not parsed.all("script")
    assert not parsed.all("link")
    for _, attributes in parsed.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert not re.match(r"\w+:|//", value or "")
    assert "url(" not in page.read_text()
    assert "@import" not in page.read_text()


def test_the_page_has_landmarks_language_viewport_and_a_skip_link(page: Path) -> None:
    parsed = Page(page)
    assert parsed.all("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in parsed.all("meta"))
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert len(parsed.all(landmark)) == 1, landmark
    targets = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    links = [link["href"] for link in parsed.all("a") if str(link["href"]).startswith("#")]
    assert links[0] == "#main"
    assert {str(link)[1:] for link in links} <= targets


def test_every_figure_has_alt_text_a_caption_a_file_and_its_data(page: Path) -> None:
    parsed = Page(page)
    images = parsed.all("img")
    assert [image["src"] for image in images] == [f"figures/{n}.svg" for n in ("headline", "learning_curves", "per_au")]
    assert len(parsed.all("figcaption")) == len(images)
    for image in images:
        assert len(image["alt"] or "") > 60
        svg = page.parent / str(image["src"])
        assert svg.read_bytes().startswith(b"<?xml")
        assert len(pd.read_csv(svg.with_suffix(".csv"))) > 5
    assert sorted(path.name for path in (page.parent / "figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in ("headline", "learning_curves", "per_au") for kind in ("svg", "csv")
    )


def test_curves_are_spoken_of_by_the_mean_of_an_arm_at_its_last_check(tables: FakeStudy) -> None:
    shown = Report(tables.folder, out=str(tables.folder))
    bce = (shown.history["arm"] == "BCE") & (shown.history["noise"] == "none")
    keys = list(pd.unique(shown.history.loc[bce, "key"]))
    assert len(keys) == 2
    last = shown.history.loc[bce, "epoch"].max()
    for key, value in zip(keys, (0.25, 0.75), strict=True):
        shown.history.loc[bce & (shown.history["key"] == key), "val_auc"] = 0.1
        shown.history.loc[bce & (shown.history["key"] == key) & (shown.history["epoch"] == last), "val_auc"] = value
    shown.history = shown.history.sample(frac=1, random_state=0)  # whatever the order of the table
    assert re.search(r"BCE 0\.500 at noise none", words(shown.learning_curves()))


def test_no_code_and_no_markup_from_names_is_on_the_page(page: Path) -> None:
    text = page.read_text()
    assert "Report(" not in text
    assert "nbval" not in text
    assert "<script" not in text.lower()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in (page.parent / "report.md").read_text()


def test_tables_scroll_in_a_box_of_their_own(page: Path) -> None:
    text = page.read_text()
    assert text.count("<table>") == text.count('tabindex="0"><table>') > 5


def test_markdown_and_page_carry_the_same_numbers(page: Path) -> None:
    parsed = Page(page)
    body = " ".join(parsed.text) + " ".join(str(image["alt"]) for image in parsed.all("img"))
    markdown = (page.parent / "report.md").read_text()
    number = re.compile(r"[+−]?\d+\.\d{3}")
    assert sorted(number.findall(body)) == sorted(number.findall(markdown))
    assert len(number.findall(markdown)) > 100


def test_the_verdict_and_the_order_of_the_page(page: Path) -> None:
    text = re.sub("<nav.*</nav>", "", page.read_text(), flags=re.DOTALL)
    order = ["<h1>", "Asked.", "Found.", "Rendered faces", "headline.svg", "decides no claim", "learning_curves.svg"]
    order += ["per_au.svg", "Thresholds", "never drawn", "All 20 runs finished", "Student", "abc123"]
    places = [text.index(word, text.index("<body>")) for word in order]
    assert places == sorted(places)


def test_a_report_notebook_that_fails_leaves_the_last_report_as_it_was(
    page: Path, study, monkeypatch, tmp_path
) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    def fail(*_: object, **__: object) -> None:
        raise PapermillExecutionError(3, 3, "x", "ValueError", "no such column", [])

    before = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    monkeypatch.setattr(papermill, "execute_notebook", fail)
    with pytest.raises(RunError, match=r"laptop\.ipynb, cell 3: ValueError: no such column"):
        render(study[0])
    assert before == {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}


def test_rendering_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="collect"):
        render(FakeStudy(tmp_path / "fake", []))  # type: ignore[arg-type]


def test_figures_are_displayed_and_nothing_is_saved_without_a_folder(study, shown, capsys) -> None:
    before = sorted(study[0].folder.rglob("*"))
    assert "replicates" in words(shown.headline())
    assert sorted(study[0].folder.rglob("*")) == before


@pytest.mark.parametrize("text", ["a|b", "**x**", "[l](http://x.y)", "`c`", "<b>", "a\nb", "$x$", "_e_"])
def test_text_of_others_is_neither_markup_nor_link(text: str) -> None:
    from nbconvert.filters import markdown2html

    shown = markdown2html(pages.table(["h"], [[pages.text(text)]], "l"))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert len(cells) == 1
    assert "<" not in cells[0]


@pytest.mark.parametrize("name", ["main", "main:gpu"])
def test_a_report_without_tables_names_the_command_that_makes_them(name, monkeypatch, tmp_path):
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path)
    with pytest.raises(UsageError, match=f"no tables in .*; collect them first: `aunce study {name}`"):
        render(load_study(name))


DAMAGES = [
    *itertools.product(
        ["runs.parquet", "counts.parquet", "auc.parquet", "history.parquet"], ["half", "nothing", "gone"]
    ),
    ("counts.parquet", "another"),
    *itertools.product(["provenance.json"], ["half", "nothing"]),  # gone, it is a study that was never collected
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_table_that_is_gone_or_damaged_is_named_and_never_taken_for_no_runs(
    tables: FakeStudy, name: str, damage: str
) -> None:
    path = tables.folder / name
    data = path.read_bytes()
    path.write_bytes({"half": data[: len(data) // 2], "nothing": b""}.get(damage, data))
    if damage == "gone":
        path.unlink()
    if damage == "another":
        pd.read_parquet(path).iloc[:-1].to_parquet(path)
    with pytest.raises(UsageError, match=rf"not what was collected \({name}: .*; restore them, or make them again"):
        render(tables)  # type: ignore[arg-type]


def test_texts_are_read_as_pandas_would_read_them(tmp_path: Path) -> None:
    written = pd.DataFrame({"arm": ["b", None, "", "a"], "n": [1, 2, 3, 4], "value": [0.5] * 4})
    written = written.astype({"n": "int8"}).assign(status="missing")
    written.astype({"arm": "category"}).to_parquet(tmp_path / "runs.parquet")
    pd.testing.assert_frame_equal(Report(tmp_path).runs, written.astype({"arm": "str", "n": "int64"}))
