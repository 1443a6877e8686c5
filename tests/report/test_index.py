"""The index of all reports."""

import re

import pytest

from aunce.errors import UsageError
from aunce.report import findings, index, page
from aunce.report.findings import FILE, Entry, Findings
from aunce.study.grid import PROJECT

ABOUT = {"question": "Does it?", "found": "It does.", "kind": "rendered faces"}
ENTRY = Entry(id="D1", verdict="holds", reason="Because.", section="Here")


@pytest.fixture
def reports(tmp_path):
    """Folders of made-up reports, in no order."""
    decide = ("main", "main-gpu", "audit")
    for name in ("simulation", "data/bp4d", "tune", "laptop", "noise", *decide, "claims", "summary"):
        (tmp_path / name).mkdir(parents=True)
        entries = [ENTRY] if name in decide else []
        findings.write(tmp_path / name, Findings(title=f"Title of {name}", **ABOUT, entries=entries))
    return tmp_path


def test_reports_stand_in_the_order_of_what_they_decide(reports):
    made = index.draw(reports)
    order = ["summary", "claims", "audit", "main", "main-gpu", "laptop", "noise", "tune", "data/bp4d", "simulation"]
    assert made == reports / "index.html"
    assert re.findall(r'<td><a href="(.*)/index.html">', made.read_text()) == order
    assert re.findall(r"\]\((.*)/report.md\)", (reports / "README.md").read_text()) == order


def test_a_row_says_status_work_kind_and_finding(reports):
    about = ABOUT | {"found": "It does <i>not</i> | $x$.", "question": "Does <b>it</b>?"}
    facts = {"status": "partial", "runs": 1234, "hours": 5.25, "hardware": "two [cores](x)"}
    findings.write(reports / "laptop", Findings(title="<script>", **about, **facts))
    made = index.draw(reports).read_text()
    for text in (made, (reports / "README.md").read_text()):
        for part in ("&lt;script&gt;", "It does &lt;i&gt;not&lt;/i&gt;", "1,234", "5.2", "rendered faces"):
            assert part in text
        assert "<script" not in text
        assert "<b>it" not in text
    assert "<strong>partial</strong>" in made
    assert 'href="x"' not in made
    assert not re.search(r"""(src|href)=["']https?:""", made)


def test_cells_of_sentences_have_a_width_and_headings_the_anchor_that_links_use():
    table = page.table(["Short", "Long"], [["a word", "many words " * 12]], "lr")
    heading = "What is said & *why*, with `code`"
    made = page.from_markdown("Title", header="# Title", main=f"## {heading}\n\n{table}", footer="End.")
    assert made.count('<td class="long"') == 1
    assert f'<h2 id="{page.anchor("What is said & why, with code")}">' in made
    assert made == page.from_markdown("Title", header="# Title", main=f"## {heading}\n\n{table}", footer="End.")


def test_broken_findings_of_one_report_leave_the_index_as_it_was(reports):
    before = index.draw(reports).read_text()
    (reports / "laptop" / FILE).write_text("{")
    with pytest.raises(UsageError, match="laptop"):
        index.draw(reports)
    assert (reports / "index.html").read_text() == before


def test_the_committed_index_lists_every_committed_report_as_it_is_now(tmp_path):
    reports = PROJECT / "reports"
    pages = [path.parent for path in reports.rglob("report.md") if "runs" not in path.parts]
    text = (reports / "README.md").read_text()
    for folder in pages:
        assert f"({folder.relative_to(reports).as_posix()}/report.md)" in text
        target = tmp_path / folder.relative_to(reports)
        target.mkdir(parents=True)
        findings.write(target, findings.read(folder))
    assert index.draw(tmp_path).read_text() == (reports / "index.html").read_text()
    assert (tmp_path / "README.md").read_text() == text
