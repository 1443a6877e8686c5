"""The page of the decisive study on made-up tables whose truth is known: methods a step apart, and one that moves."""

import itertools
import json

import cells
import numpy as np
import pandas as pd
import pytest

from aunce.report import findings

AUS, TARGETS = (1, 2, 4), ("drawn:bp4d", "modelled:disfa")
METHODS = {
    "supervised": ("bce", 0.80),
    "SupCon": ("supcon", 0.79),
    "AUNCE (tau tuned)": ("aunce", 0.75),
    "AUNCE (tau .5, released)": ("aunce", 0.74),
}
FRAMES = 100_000  # pairs behind each AUC: rounding is far below what is asserted


def made(folder, *, replicates=16, still=0.0, missing=()):
    """Tables of a study with these methods; AUNCE has `still` less at half of the last length."""
    random = np.random.default_rng(5)
    runs, counts, pairs = [], [], []
    facts = {"dataset": "bp4d", "entering_aus": AUS, "null_aus": [], "kappa": {}, "rates": {}}
    facts["entering_aus_of_targets"] = dict.fromkeys(TARGETS, AUS[:2])
    for replicate, (arm, (method, level)) in itertools.product(range(replicates), METHODS.items()):
        noise, setting = ("none", "miss 0.2")[replicate % 2], ("easy", "hard")[replicate // 2 % 2]
        place = {"arm": arm, "kind": "arm", "noise": noise, "replicate": replicate, "part": "test"}
        synthetic = {"faces": "modelled", "setting": setting, "version": 1, "null_au": 28, "seed": replicate}
        status = "missing" if (replicate, arm) in missing else "done"
        row = place | {"key": f"{arm}-{replicate}", "method": method, "status": status, "reason": "", "flat": None}
        row |= {"duration_s": 60.0, "val_f1": 0.5, "val_auc": 0.7, "provenance": "{}"}
        row |= {"spec": json.dumps({"method": method, "pretext": True, "backbone": "patch", "probe": "ridge"})}
        runs.append(row | {"data": json.dumps(facts | {"synthetic": synthetic})})
        if status == "missing":
            continue
        own = level + 0.004 * random.standard_normal()
        for target, head in itertools.product(("", *TARGETS), ("ridge", "ridge_all", "probe")):
            for rule in ("at 40", "at 80", "at 160", "last") if head == "ridge" else ("last", "at 160"):
                early = still * (method == "aunce") * (rule in ("at 40", "at 80"))
                for au in AUS:
                    reading = place | {"head": head, "epoch_rule": rule, "labels": "clean", "au": au, "target": target}
                    wins = round(FRAMES * (own - early - 0.1 * (target != "")))
                    both = {"subject": "all", "other": "others", "concordant": wins, "pairs": FRAMES, "within": False}
                    pairs.append(reading | both)
                    cut = {"threshold": "tuned", "subject": target or "test 1", "tp": 50, "fp": 20, "fn": 20, "tn": 50}
                    counts.append(reading | cut)
    folder.mkdir(parents=True)
    for name, table in (("runs", runs), ("counts", counts), ("auc", pairs)):
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")
    states = pd.DataFrame(runs)["status"].value_counts()
    about = {"study": folder.name, "title": "Decisive", "question": "Does it?", "duration_s": 60.0, "hardware": []}
    about |= {"runs": {name: int(states.get(name, 0)) for name in ("done", "failed", "damaged", "running", "missing")}}
    about |= {
        "revisions": [],
        "versions": {},
        "study_hash": "",
        "finished": "",
        "rebuild": "aunce study decisive",
        "started": "2026-12-02",
        "study_file": "decisive.toml",
        "keys": [],
    }
    (folder / "provenance.json").write_text(json.dumps(about))
    return folder


def page_of(tmp_path, **places):
    text = cells.shown("decisive", out=tmp_path / "out", **{name: str(place) for name, place in places.items()})
    return text, {one.id: one for one in findings.read(tmp_path / "out").entries}


def test_a_clear_difference_is_worse_in_every_place_and_drawn_faces_confirm_it(tmp_path):
    tables = made(tmp_path / "decisive")
    text, entries = page_of(tmp_path, tables=tables, drawn=made(tmp_path / "decisive_drawn"))
    assert {name: one.verdict for name, one in entries.items()} == {
        "C1": "worse",
        "C2b": "worse",
        "C6": "no difference that matters",
    }
    assert entries["C1"].value == pytest.approx(-0.05, abs=0.005)
    assert entries["C1"].reason == "At 160 epochs, look 1 of 3."
    assert entries["C1"].low < entries["C1"].value < entries["C1"].high < 0
    assert text.count("confirms") == 3
    assert "*worse* (look 1 of 3" in text
    lengths = pd.read_csv(tmp_path / "out" / "figures" / "lengths.csv")
    assert len(lengths) == 3 * 3 * 2
    assert (lengths["estimate"] < -0.03).all()


def test_one_that_still_moves_is_marked_wherever_it_is_said(tmp_path):
    text, entries = page_of(tmp_path, tables=made(tmp_path / "decisive", still=0.02), drawn=tmp_path / "none")
    assert entries["C1"].verdict == entries["C2b"].verdict == "worse, still moving"
    assert "**C1** AUNCE beats supervised training of the same encoder. *worse, still moving*." in text
    assert "no runs yet" in text


def test_below_a_look_nothing_is_told_apart_and_a_missing_run_leaves_its_replicate_out(tmp_path):
    few = made(tmp_path / "decisive", replicates=8, missing={(0, "SupCon")})
    text, entries = page_of(tmp_path, tables=few, drawn=tmp_path / "none")
    assert {one.verdict for name, one in entries.items() if name != "C6"} == {"not told apart"}
    assert "PARTIAL: 31 of 32" in text
    assert "look 0 of 3" in text


def test_a_study_without_runs_has_a_page_that_says_so(tmp_path):
    text = cells.shown("decisive", tables=str(tmp_path / "none"), drawn=str(tmp_path / "nothing"), out="")
    assert "No runs yet" in text
    assert "No replicate has been trained yet." in text
