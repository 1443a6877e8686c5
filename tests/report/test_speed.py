"""The page on speed: a target is met only by a measurement, and tiny sizes meet none."""

import json

import pandas as pd
import pytest

from aunce.report.speed import Speed


@pytest.fixture
def speed(tmp_path) -> Speed:
    page = Speed(full=False, tables=str(tmp_path))
    page.full = True
    page.__dict__ |= {
        "faces": (3000, 2.0),
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
    return page


def test_each_target_is_met_missed_or_not_measured(speed):
    met = speed.targets.set_index("what")["met"]
    assert met["Loss at B = 32: times as fast as published"] == "no"
    assert met["Loss at B = 256: times as fast as published"] == "yes"
    assert met["Loss at B = 256: memory of the size of scores, share of published"] == "no"
    assert met["Loss at B = 256: memory beyond the features, share of published"] == "yes"
    assert met["Loss at B = 4,096 in chunks: memory beyond the features"] == "yes"
    assert met["counts and F1, 46,034 frames"] == "yes"
    assert met["AUC without each subject, 46,034 frames"] == "no"
    assert met["Faces of 64 px a second, 2 cores"] == "yes"
    assert met["aunce --help"] == "no"
    assert met["start of a run"] == "yes"
    assert set(met[met.index.str.startswith("GPU")]) == {"not measured"}


def test_what_was_not_measured_is_no_number_on_the_page(speed):
    rows = speed.targets[speed.targets["met"] == "not measured"]
    assert set(rows["measured"]) == {""}
    assert "6 were not measured" in speed.verdicts().data


def test_what_another_machine_measured_on_its_gpu_is_said_with_that_machine(speed, tmp_path):
    record = {
        "date": "2030-01-02",
        "revision": "abc",
        "hardware": "Some GPU",
        "torch": "2.13.0",
        "rates": {"flops": 1e15},
        "operations": 2 * 64 * 10**11,
        "losses": [{"other": "published", "ratio": 7.0}, {"other": "SupConLoss per AU", "ratio": 1.0}],
        "compiled": [{"part": "model alone", "other": 200.0, "ours": 500.0, "ratio": 2.5, "low": 2.4, "high": 2.6}],
    }
    (tmp_path / "gpu.json").write_text(json.dumps(record))
    rows = speed.targets.set_index("what")
    assert rows.loc["GPU, loss in bf16 at B = 512: times as fast as published", "measured"] == "7 times"
    share = rows.loc["GPU, Swin-B at 224 px: the same, compiled"]
    assert (share["measured"], share["met"]) == ("10 %", "no")
    # the record was cut short before its last part
    assert rows.loc["GPU, Swin-B at 224 px: share of the measured matrix rate, eager", "met"] == "not measured"
    assert "measured on 2030-01-02 on: Some GPU, torch 2.13.0, code revision abc" in speed.title().data
