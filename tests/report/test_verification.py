"""`aunce verify`: a report is what its tables say, or the place that differs is named."""

import json
import re
import shutil

import pandas as pd
import pytest
from finished import finish

from aunce.errors import UsageError
from aunce.report import page, verification
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
    page.record_drawn(study.folder)
    return study


@pytest.fixture
def drawn_again(monkeypatch):
    """The page as it is committed, where a test is not about drawing it again."""

    def copy(_notebook, _parameters, folder, **_options):
        shutil.copytree(PROJECT / "reports" / "dials", folder, dirs_exist_ok=True)

    monkeypatch.setattr(page, "render", copy)


def places(found):
    return sorted(re.split(r", line|: ", line)[0] for line in found.wrong)


def test_a_report_that_nobody_touched_matches_and_what_was_looked_at_is_named(report):
    found = verification.verify(report)
    assert found.wrong == []
    assert found.checked[:3] == ["findings.json", "index.html", "report.md"]
    assert "4 tables" in found.checked
    drawn = len(list((report.folder / "figures").glob("*.svg")))
    assert f"{drawn} SVG of figures" in found.checked
    assert found.unchecked == ["runs, as none with hashes is here"]


@pytest.mark.long
@pytest.mark.parametrize("folder", sorted(path.parent.name for path in REPORTS.glob("*/provenance.json")))
def test_every_committed_report_of_a_study_is_what_its_committed_tables_say(folder):
    assert verification.verify(load_study(folder.replace("-", ":"))).wrong == []


def test_whatever_was_changed_is_named(report, drawn_again):
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
    found = verification.verify(report)
    assert places(found) == ["figures/headline.csv", "history.parquet", "other.parquet", "report.md"]
    assert any(line.startswith("report.md, line ") for line in found.wrong)  # and not its hash alone


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_all_damages_are_named_at_once_even_if_no_page_can_be_drawn(report):
    folder = report.folder
    (folder / "runs.parquet").write_bytes(b"PAR1")
    (folder / "figures" / "headline.csv").unlink()
    (folder / "figures" / "foreign.svg").write_text("<svg/>")
    for name in ("figures/headline.svg", "index.html", "report.md", "findings.json", "auc.parquet"):
        flip(folder / name)
    found = verification.verify(report)
    assert places(found) == [
        "auc.parquet",
        "figures/foreign.svg",
        "figures/headline.csv",
        "figures/headline.svg",
        "findings.json",
        "index.html",
        "report.md",
        "runs.parquet",
        "the page cannot be drawn from the tables",
    ]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b'{"files": 3}', b"[" * 100_000, b"\xff", b'{"files": {}}']
)
def test_a_damaged_provenance_is_said_and_the_rest_is_checked(content, report, drawn_again):
    (report.folder / "provenance.json").write_bytes(content)
    flip(report.folder / "index.html")
    found = verification.verify(report)
    assert "index.html: is not the file that was drawn" in found.wrong
    assert len(found.wrong) > 1


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"[" * 100_000, b"\xff", b'{"report.md": null}'])
def test_damaged_hashes_of_a_page_are_said(content, report):
    (report.folder / page.DRAWN).write_bytes(content)
    assert verification.verify_page(report.folder).wrong


def test_a_page_without_hashes_is_said_to_be_unchecked(report):
    (report.folder / page.DRAWN).unlink()
    found = verification.verify_page(report.folder)
    assert (found.wrong, found.checked) == ([], [])
    assert "drawn.json" in found.unchecked[0]


def test_damaged_runs_are_named_and_runs_without_hashes_counted(report, drawn_again):
    whole, broken, old = report.runs[:3]
    for run in (whole, broken, old):
        finish(run)
    (broken.folder / "counts.parquet").write_bytes(b"x")
    metrics = json.loads((old.folder / "metrics.json").read_text())
    del metrics["files"], metrics["sha256"]
    (old.folder / "metrics.json").write_text(json.dumps(metrics))
    found = verification.verify(report)
    assert found.wrong == [f"runs/{broken.key}: counts.parquet is not what the run left"]
    assert "every file of 1 finished run" in found.checked
    assert found.unchecked == ["1 run of an earlier version, without hashes"]


def test_every_byte_that_is_flipped_is_found(report):
    names = [*page.drawn_hashes(report.folder), *verification.hashes(report.folder), page.DRAWN]
    for name in names:
        before = (report.folder / name).read_bytes()
        flip(report.folder / name)
        found = verification.verify_page(report.folder).wrong
        provenance = json.loads((report.folder / "provenance.json").read_text())
        assert found + verification.changed(report.folder, provenance["files"]), name
        (report.folder / name).write_bytes(before)


@pytest.mark.parametrize("name", [path.parent.relative_to(REPORTS).as_posix() for path in REPORTS.rglob(page.DRAWN)])
def test_every_committed_page_is_the_one_that_was_drawn(name):
    found = verification.verify_page(REPORTS / name)
    assert (found.wrong, found.unchecked) == ([], [])


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
