"""The page of the search on made-up tables whose best trials are known."""

import importlib.util
import json
import re
import tomllib

import cells
import numpy as np
import pandas as pd
import pytest

from aunce.study.grid import NOTEBOOKS, PROJECT, REPORTS, load_study

NOISES = ("none", "miss 0.2")
NAMES = {"supervised": "bce", "SupCon": "supcon", "AUNCE (tau tuned)": "aunce", "AUNCE (tau .5, released)": "aunce"}


def made(folder, scores):
    """Tables of finished trials: (name, trial, replicate) -> inner-validation AUC under each noise."""
    runs, counts, pairs = [], [], []
    for noise in NOISES:
        for (name, trial, replicate), value in scores.items():
            arm = f"{name}, trial {trial}"
            place = {"arm": arm, "kind": "arm", "noise": noise, "replicate": replicate, "part": "test"}
            spec = {
                "method": NAMES[name],
                "backbone": "patch",
                "pretext": True,
                "learning_rate": 3e-4 * (1 + trial),
                "weight_decay": 1e-3,
                "temperature": 0.5,
            }
            row = place | {"key": f"{arm}-{replicate}-{noise}", "method": NAMES[name], "status": "done", "reason": ""}
            facts = {"dataset": "bp4d", "entering_aus": [1], "null_aus": [], "kappa": {}, "rates": {}}
            facts["synthetic"] = {"faces": "modelled", "setting": "hard", "version": 1, "null_au": 28, "seed": 1}
            row |= {"duration_s": 1.0, "flat": None, "val_f1": 0.5, "val_auc": value, "provenance": "{}"}
            runs.append(row | {"spec": json.dumps(spec), "data": json.dumps(facts)})
            reading = {"head": "ridge", "epoch_rule": "last", "labels": "clean", "au": 1}
            both = {"subject": "a", "other": "b", "concordant": 50, "pairs": 100, "within": False}
            pairs.append(place | reading | both)
            counts.append(place | reading | {"threshold": "tuned", "subject": "a", "tp": 1, "fp": 1, "fn": 1, "tn": 1})
    folder.mkdir()
    for name, table in (("runs", runs), ("counts", counts), ("auc", pairs)):
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")
    states = dict.fromkeys(("failed", "damaged", "running", "missing"), 0) | {"done": len(runs)}
    about = {"study": folder.name, "title": "Search", "question": "Which?", "duration_s": 1.0, "hardware": []}
    about |= {"runs": states, "revisions": [], "versions": {}, "study_hash": "", "finished": "", "started": ""}
    about |= {"rebuild": "aunce study search", "study_file": "search.toml", "keys": []}
    (folder / "provenance.json").write_text(json.dumps(about))
    return folder


def test_the_trial_is_chosen_by_all_three_populations_and_its_regret_is_what_is_left_out(tmp_path):
    # Trial 1 wins the first population, trial 2 the others by more: .002 below, .010 above, .004 above.
    first = {("supervised", trial, 0): value for trial, value in enumerate([0.70, 0.80, 0.798, 0.79])}
    second = {("supervised", 1, 7): 0.80, ("supervised", 2, 7): 0.81, ("supervised", 3, 7): 0.77}
    second |= {("supervised", 1, 8): 0.70, ("supervised", 2, 8): 0.704, ("supervised", 3, 8): 0.66}
    first |= {("AUNCE (tau tuned)", 0, 0): 0.6}
    text = cells.shown("search", tables=made(tmp_path / "a", first), again=made(tmp_path / "b", second), out=tmp_path)
    choices = text.split("\n## The choices\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?:none|miss 0.2) \| supervised \| .*$", choices, re.MULTILINE)
    assert len(rows) == len(NOISES)
    assert all("| 2 | 0.0009 |" in row for row in rows)
    # Without the first population 2 is chosen and misses .002; without another one 2 is chosen, too: .002 / 3.
    assert all("| bce | 0.001 |" in row for row in rows)

    rules = tomllib.loads(re.search("```toml\n(.*?)```", text, re.DOTALL)[1])["tuned"]
    assert rules[1]["where"] == {"noise_kind": "miss", "arm": "supervised"}
    assert {name: rules[1][name] for name in rules[1] if name != "where"} == {
        "method": "bce",
        "learning_rate": pytest.approx(9e-4),
        "weight_decay": 1e-3,
    }

    best = pd.read_csv(tmp_path / "figures" / "trials.csv")
    mine = best[(best["method"] == "supervised") & (best["noise"] == "none")].set_index("trials")["best"]
    assert mine[1] == pytest.approx(sum([0.70, 0.80, 0.798, 0.79]) / 4, abs=1e-5)
    assert mine[4] == pytest.approx(0.80)
    assert mine[3] == pytest.approx((3 * 0.80 + 0.798) / 4, abs=1e-5)
    assert "AUNCE (tau .5, released) | 0 |" in text, "trial 0 of both rows of AUNCE is one run"


def test_the_decisive_study_takes_what_the_committed_tables_choose():
    tables = [REPORTS / name for name in ("search", "search_again")]
    if not all((folder / "runs.parquet").is_file() for folder in tables):
        return  # the search has not run yet; the file of the study says so
    text = cells.shown("search", tables=tables[0], again=tables[1])
    rules = tomllib.loads(re.search("```toml\n(.*?)```", text, re.DOTALL)[1])["tuned"]
    assert tomllib.loads((NOTEBOOKS / "studies" / "decisive.toml").read_text())["tuned"] == rules


def test_a_search_without_runs_says_so(tmp_path):
    text = cells.shown("search", tables=tmp_path / "none", again=tmp_path / "none")
    assert "No run has finished yet." in text
    assert "The second stage has not run." in text


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("draw_search", PROJECT / "tools" / "draw_search.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_trials_of_the_study_are_those_that_were_drawn(tool):
    content = tomllib.loads((NOTEBOOKS / "studies" / "search.toml").read_text())
    assert content["axes"]["arm"] == tool.arms()
    losses = [fields["method"] for name, fields in tool.arms().items() if name.startswith("supervised")][1:]
    assert losses.count("bce") == 4
    for field, (low, high) in (("learning_rate", tool.RATE), ("weight_decay", tool.DECAY)):
        for name in tool.METHODS:
            drawn = [one[field] for arm, one in tool.arms().items() if arm.startswith(name) and "trial 0" not in arm]
            places = np.log(np.array(drawn) / low) / np.log(high / low) * tool.TRIALS
            beyond = np.sort(places) - np.arange(tool.TRIALS)  # one draw in each stratum, rounded to three digits
            assert ((beyond > -0.01) & (beyond < 1.01)).all()


def test_the_best_three_of_each_method_and_noise_go_on(tool, tmp_path):
    arms = list(tool.arms())
    runs = pd.DataFrame([(noise, arm) for noise in NOISES for arm in arms], columns=["noise", "arm"])
    order = [int(arm.rsplit(" ", 1)[1]) for arm in runs["arm"]]
    runs["val_auc"] = np.where(runs["noise"] == "none", 0.9 - 0.01 * np.array(order), 0.6 + 0.01 * np.array(order))
    runs.loc[(runs["noise"] == "none") & (runs["arm"] == "SupCon, trial 1"), "val_auc"] = np.nan  # it diverged
    runs["status"] = "done"
    path = tmp_path / "again.toml"
    text = (NOTEBOOKS / "studies" / "search.toml").read_text()
    path.write_text(text[: text.index("[axes.arm]")] + tool.second(runs))
    found = {(run.labels["noise"], run.labels["arm"]) for run in load_study(str(path)).runs}
    best = {name: (0, 1, 2) for name in NAMES} | {"SupCon": (0, 2, 3), "AUNCE (tau .5, released)": (1, 2)}
    wanted = {("none", f"{name}, trial {place}") for name, places in best.items() for place in places}
    assert found == wanted | {("miss 0.2", f"{name}, trial {place}") for name in NAMES for place in (10, 11, 12)}
    with pytest.raises(SystemExit, match="has not finished"):
        tool.second(runs.assign(status="missing"))
