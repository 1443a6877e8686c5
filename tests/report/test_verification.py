"""`aunce verify`: a report is what its tables say, or the place that differs is named."""

import json
import re
import shutil

import pandas as pd
import pytest

from aunce.errors import UsageError
from aunce.report import verification
from aunce.study.grid import PROJECT, REPORTS, load_study


@pytest.fixture
def report(tmp_path, monkeypatch):
    """A copy of a committed report, with the hashes of its tables."""
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path)
    study = load_study("dials")
    shutil.copytree(PROJECT / "reports" / "dials", study.folder, ignore=shutil.ignore_patterns("runs"))
    provenance = json.loads((study.folder / "provenance.json").read_text())
    provenance["files"] = verification.hashes(study.folder)
    (study.folder / "provenance.json").write_text(json.dumps(provenance))
    return study


def test_a_report_that_nobody_touched_matches(report):
    assert verification.verify(report) == []


@pytest.mark.long
@pytest.mark.parametrize("folder", sorted(path.parent.name for path in REPORTS.glob("*/provenance.json")))
def test_every_committed_report_of_a_study_is_what_its_committed_tables_say(folder):
    assert verification.verify(load_study(folder.replace("-", ":"))) == []


def test_whatever_was_changed_is_named(report):
    folder = report.folder
    text = (folder / "report.md").read_text()
    number = re.search(r"0?\.(\d)\d\d", text)
    (folder / "report.md").write_text(text[: number.start(1)] + str(9 - int(number[1])) + text[number.end(1) :])
    table = pd.read_csv(folder / "figures" / "headline.csv")
    table.loc[0, table.select_dtypes("float").columns[0]] += 0.01
    table.to_csv(folder / "figures" / "headline.csv", index=False)
    history = pd.read_parquet(folder / "history.parquet")
    history.to_parquet(folder / "history.parquet", compression="gzip")
    (folder / "other.parquet").write_bytes((folder / "history.parquet").read_bytes())
    wrong = verification.verify(report)
    places = sorted(re.split(", line|:", line)[0] for line in wrong)
    assert places == ["figures/headline.csv", "history.parquet", "other.parquet", "report.md"]


def test_tables_that_no_page_can_be_drawn_from_are_said(report):
    (report.folder / "runs.parquet").write_bytes(b"PAR1")
    wrong = verification.verify(report)
    assert wrong[0] == "runs.parquet: is not the table that was collected"
    assert "cannot be drawn" in wrong[1]


def test_a_study_without_report_cannot_be_verified(report):
    shutil.rmtree(report.folder)
    with pytest.raises(UsageError, match="no report that can be verified"):
        verification.verify(report)


@pytest.mark.parametrize(
    ("old", "new", "alike"),
    [
        ("a,.5,−0.123456", "a,.5,−0.123457", True),
        ("a,.5,0.1234", "a,.5,0.1244", False),
        ("AU1 3", "AU2 3", False),
        ("12 runs", "12 run", False),
        ("", "0", False),
    ],
)
def test_rounding_is_no_difference(old, new, alike):
    assert verification._alike(old, new) is alike
