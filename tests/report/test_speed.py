"""The page on speed: a target is met only by a measurement, and tiny sizes meet none."""

import platform

import pandas as pd
import pytest
import torch
from cells import show

from aunce.analyses import step_timing, timing
from aunce.report import page
from aunce.report.speed import judged
from aunce.study.results import hardware

MEASURED = {
    "rendered": {"drawn": (3000, 2.0), "modelled": (3000, 12.0)},
    "commands": {"aunce --help": 0.31, "aunce status, 1,000 runs": 0.4, "start of a run": 5.0},
    "evaluation": pd.DataFrame(
        {"series": ["counts and F1", "AUC without each subject"], "size": 46_034, "seconds": [0.05, 2.1]}
    ),
    "losses": pd.DataFrame(
        {
            "images": [32, 256],
            "other": "published",
            "ratio": [2.9, 2.5],
            "ours_bytes": [1.0, 50.0],
            "other_bytes": [1.0, 100.0],
            "ours_scores": [1.0, 13.0],
            "other_scores": [1.0, 100.0],
        }
    ),
    "growth": pd.DataFrame({"size": [4096], "series": ["in chunks of 512 anchors"], "bytes": [2.0**31]}),
}
RECORD = {
    "date": "2030-01-02",
    "revision": "abc",
    "hardware": "Some GPU",
    "torch": "2.13.0",
    "rates": {"flops": 1e15},
    "operations": 2 * 64 * 10**11,
    "losses": [{"other": "published", "ratio": 7.0}, {"other": "SupConLoss per AU", "ratio": 1.0}],
    "compiled": [{"part": "model alone", "other": 200.0, "ours": 500.0, "ratio": 2.5, "low": 2.4, "high": 2.6}],
}
"""The record of a GPU, cut short before its last parts."""


def shown(*cells, record, full=True):
    modules = {"timing": timing, "step_timing": step_timing, "page": page, "judged": judged}
    modules |= {"torch": torch, "platform": platform, "hardware": hardware}
    return show("speed", *cells, **modules, **MEASURED, record=record, full=full, on_gpu=False)


def targets(record, *, full=True):
    """Rows of the table of targets: what -> (target, measured, met); and the sentence before them."""
    said, table = shown("speed022", "speed023", "speed003", record=record, full=full).split("\n\n")
    rows = (line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    return {row[0]: tuple(cell.strip() for cell in row[1:]) for row in rows}, said


def test_each_target_is_met_missed_or_not_measured():
    met = {what: row[-1] for what, row in targets({})[0].items()}
    assert met["Loss at B = 32: times as fast as published"] == "no"
    assert met["Loss at B = 256: times as fast as published"] == "yes"
    assert met["Loss at B = 256: memory of the size of scores, share of published"] == "no"
    assert met["Loss at B = 256: memory beyond the features, share of published"] == "yes"
    assert met["Loss at B = 4,096 in chunks: memory beyond the features"] == "yes"
    assert met["counts and F1, 46,034 frames"] == "yes"
    assert met["AUC without each subject, 46,034 frames"] == "no"
    assert met["Drawn faces of 64 px a second, 2 cores"] == "yes"
    assert met["Modelled faces of 64 px a second, 2 cores"] == "no"
    assert met["aunce --help"] == "no"
    assert met["start of a run"] == "yes"
    assert {verdict for what, verdict in met.items() if what.startswith("GPU")} == {"not measured"}


def test_what_was_not_measured_is_no_number_on_the_page():
    rows, said = targets({})
    assert {row[1] for row in rows.values() if row[-1] == "not measured"} == {""}
    assert "6 were not measured" in said


def test_tiny_sizes_meet_no_target_of_faces_and_commands():
    rows, _ = targets({}, full=False)
    for what in (
        "Drawn faces of 64 px a second, 2 cores",
        "aunce --help",
        "aunce status, 1,000 runs",
        "start of a run",
    ):
        assert rows[what][-1] == "not measured"
    assert "**Tiny sizes" in shown("speed020", record={}, full=False)


def test_what_another_machine_measured_on_its_gpu_is_said_with_that_machine():
    rows, _ = targets(RECORD)
    assert rows["GPU, loss in bf16 at B = 512: times as fast as published"][1] == "7 times"
    assert rows["GPU, Swin-B at 224 px: the same, compiled"][1:] == ("10 %", "no")
    assert rows["GPU, Swin-B at 224 px: share of the measured matrix rate, eager"][-1] == "not measured"
    said = shown("speed020", record=RECORD)
    assert "measured on 2030-01-02 on: Some GPU, torch 2.13.0, code revision abc" in said
    assert "No GPU was at hand" in shown("speed020", record={})


@pytest.mark.parametrize(("loads", "met"), [(True, "no"), (False, "yes")])
def test_import_without_torch_is_a_target(loads, met):
    assert judged({}, loads_torch=loads)["met"].iloc[-1] == met
