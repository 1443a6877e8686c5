"""What a report found: written beside its page, read back as it was, refused where it is broken."""

import json
import math

import pytest

from aunce.errors import UsageError
from aunce.report import findings, page
from aunce.report.findings import FILE, Entry, Findings
from aunce.statistics import Estimate
from aunce.study.grid import PROJECT

ABOUT = {"title": "A <b>study</b>", "question": "Does it?", "found": "It does − by 0.1.", "kind": "rendered faces"}
ENTRY = {"id": "C1", "verdict": "supported", "reason": "Because.", "section": "Scores"}


def test_findings_are_read_as_they_were_written(tmp_path):
    estimate = Estimate(0.1, 0.05, 0.15, 8)
    options = {"contrast": "a minus b", "detectable": 0.04, "unit": "AUC", "reason": "Because.", "section": "Scores"}
    entries = [Entry.of(estimate, id="C1", verdict="supported", **options), Entry(**ENTRY | {"id": "D3"})]
    written = Findings(**ABOUT, status="partial", runs=3, hours=1.5, hardware="two cores", entries=entries)
    findings.write(tmp_path, written)
    assert findings.read(tmp_path) == written


def test_an_interval_without_ends_is_null_and_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nothing = Estimate(math.nan, -math.inf, math.inf, 0)
    options = {"contrast": "a", "detectable": math.inf, "unit": "AUC", "reason": "None.", "section": "Scores"}
    entry = Entry.of(nothing, id="C1", verdict="undecided", **options)
    assert (entry.value, entry.low, entry.high, entry.detectable) == (None, None, None, None)
    findings.write(None, Findings(**ABOUT, entries=[entry]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "draw the report again"),
        ("[]", "draw the report again"),
        (json.dumps(ABOUT), "entries"),
        (json.dumps(ABOUT | {"entries": [], "kind": "photographs"}), "kind"),
        (json.dumps(ABOUT | {"entries": [], "runs": "3"}), "runs"),
        (json.dumps(ABOUT | {"entries": [], "fuond": ""}), "did you mean 'found'"),
        (json.dumps(ABOUT | {"entries": [ENTRY | {"id": "X1"}]}), "id"),
        (json.dumps(ABOUT | {"entries": [{"id": "C1"}]}), "verdict"),
    ],
)
def test_broken_findings_are_refused_with_their_file(tmp_path, text, message):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        findings.read(tmp_path)
    assert str(tmp_path / FILE) in str(error.value)


def test_reports_are_found_at_any_depth_but_not_in_runs_or_where_a_page_is_being_made(tmp_path):
    reports = tmp_path / "runs" / "reports"
    for folder in ("main", "data/bp4d", "main/runs/one", "main/.render-x"):
        (reports / folder).mkdir(parents=True)
        findings.write(reports / folder, Findings(**ABOUT))
    assert list(findings.read_all(reports)) == ["data/bp4d", "main"]


def test_every_committed_entry_leads_to_a_section_of_its_page():
    for folder, found in findings.read_all(PROJECT / "reports").items():
        text = (PROJECT / "reports" / folder / "index.html").read_text()
        for entry in found.entries:
            assert f'id="{page.anchor(entry.section)}"' in text, (folder, entry.id)
