"""The summary: every verdict in its place, every link to something, and no advice that outlives what it rests on."""

import re
import shutil

import pandas as pd
import pytest
from cells import show

from aunce.errors import UsageError
from aunce.report import claims, findings, page
from aunce.report.claims import VERDICTS, Ledger, load_claims
from aunce.report.findings import Entry, Findings
from aunce.report.summary import FAILS, GROUPS, HOLDS, OPEN, load_advice
from aunce.study.grid import PROJECT

CLAIMS = """
written = 2026-01-01
delta = 0.005
score = "auc"

[[claim]]
id = "C1"
wording = "One beats the other."
source = "us"
experiment = "main"
decided_by = "each"
contrasts = [["one", "other"]]

[[claim]]
id = "C2"
wording = "It carries over."
source = "us"
experiment = "transfer"
decided_by = "each"
contrasts = [["one", "other"]]
undecidable = "on real faces: no data"

[[claim]]
id = "U1"
wording = "It is ahead."
source = "us"
undecidable = "no data"

[[gap]]
id = "D1"
wording = "They differ."
home = "anatomy; against the paper undecidable until it is read"

[[gap]]
id = "D2"
wording = "They differ, too."
home = "audit"
"""
ADVICE = """
[[advice]]
to = "authors"
text = "Do not claim it."
rests_on = { C1 = ["reversed", "not supported"], U1 = ["undecidable here"] }

[[advice]]
to = "field"
text = "Look at this."
rests_on = { D1 = ["holds"] }
"""
EFFECT = {"contrast": "one minus other", "value": -0.02, "low": -0.03, "high": -0.01, "unit": "AUC", "replicates": 16}
REVERSED = {"id": "C1", "verdict": "reversed", "section": "Scores, and more", **EFFECT}
HELD = {"id": "D1", "verdict": "holds", "section": "Proof"}
SECTIONS = {
    "title": ("summary23", "summary24", "summary02"),
    "banner": ("summary03",),
    "figure": ("summary25", "summary26", "summary18"),
    "holds": ("summary27", "summary05"),
    "fails": ("summary27", "summary07"),
    "open": ("summary27", "summary09"),
    "undecidable": ("summary28", "summary11"),
    "authors": ("summary29", "summary13"),
    "field": ("summary29", "summary15"),
    "moves": ("summary30", "summary17"),
}
"""Section of the page -> the cells that make it."""


def drawn(ledger, advice, folder=None):
    """A function that gives the Markdown of a section."""

    def section(name):
        given = {"ledger": ledger, "advice": advice, "folder": folder}
        return show("summary", "summary20", "summary22", *SECTIONS[name], **given)

    return section


@pytest.fixture
def summary(tmp_path):
    """The summary of `CLAIMS` and `ADVICE`, changed, over made-up reports: name -> (fields of findings, entries)."""

    def summary(reports=(), old="", new=""):
        shutil.rmtree(tmp_path / "reports", ignore_errors=True)
        for name, (about, entries) in dict(reports).items():
            (tmp_path / "reports" / name).mkdir(parents=True)
            about = {"title": name, "question": "Does it?", "found": "It does.", "kind": "computation"} | about
            entries = [Entry(**{"reason": "Because."} | entry) for entry in entries]
            findings.write(tmp_path / "reports" / name, Findings(**about, entries=entries))
        (tmp_path / "claims").mkdir(exist_ok=True)
        (tmp_path / "claims" / "first.toml").write_text(CLAIMS)
        (tmp_path / "advice.toml").write_text(ADVICE.replace(old, new))
        ledger = Ledger(tmp_path / "claims", reports=tmp_path / "reports")
        return drawn(ledger, load_advice(ledger.said, tmp_path / "advice.toml"), tmp_path)

    return summary


def both(kind="rendered faces"):
    return {"main": ({"kind": kind}, [REVERSED]), "anatomy": ({}, [HELD])}


def test_every_verdict_of_the_ledger_has_a_place():
    assert set(VERDICTS) <= set(GROUPS)
    assert {GROUPS[verdict] for verdict in ("supported", "holds", "matters")} == {HOLDS}
    assert {GROUPS[verdict] for verdict in ("reversed", "not supported", "does not hold", "does not matter")} == {FAILS}
    assert GROUPS["undecided"] == OPEN


def test_a_verdict_without_a_place_is_refused_with_its_report(summary, monkeypatch):
    monkeypatch.setattr(claims, "VERDICTS", (*VERDICTS, "proven"))
    with pytest.raises(UsageError, match=r"main: C1 has the verdict 'proven', .*summary\.py"):
        summary({"main": ({}, [REVERSED | {"verdict": "proven"}])})("title")


@pytest.mark.parametrize(
    ("verdict", "section"),
    [("supported", "holds"), ("reversed", "fails"), ("does not hold", "fails"), ("undecided", "open")],
)
def test_a_claim_stands_in_the_section_of_its_verdict_with_effect_interval_and_link(summary, verdict, section):
    shown = summary({"main": ({"kind": "rendered faces"}, [REVERSED | {"verdict": verdict}])})
    line = (
        f"- **C1** One beats the other. *{verdict}*: one minus other, −0.020 AUC (−0.030 to −0.010), rendered faces. "
        "Because. ([main](../main/index.html#scores-and-more))"
    )
    for name in ("holds", "fails", "open"):
        assert (line in shown(name)) == (name == section)


def test_a_claim_that_a_repetition_does_not_bear_out_is_counted_once_and_stands_with_both(summary):
    again = {"main-again": ({"kind": "rendered faces"}, [REVERSED | {"verdict": "undecided", "value": 0.01}])}
    shown = summary(both() | again)
    assert "0 reversed, not supported or refuted by computation, 0 undecided, 1 not the same in two" in shown("title")
    assert "([main](" in shown("fails")
    assert "([main-again](" in shown("open")


def test_what_has_no_runs_and_what_none_can_decide_is_said(summary):
    shown = summary()
    assert shown("holds") == shown("fails") == "None so far."
    assert re.findall(r"\*\*(\w+)\*\*", shown("open")) == ["C1", "C2"]
    assert shown("open").count("*not run yet* ([ledger](../claims/index.html#claims))") == 2
    undecidable = shown("undecidable")
    assert "- **C2** *On real faces: no data*" in undecidable
    assert "- **U1** It is ahead. *No data*" in undecidable
    assert "- **D1** *Against the paper undecidable until it is read*" in undecidable
    assert shown("moves").startswith("None so far.\n\nNot run yet: D1, D2.")
    assert "0 supported or proven, 0 reversed, not supported or refuted by computation, 0 undecided, 2 not run yet" in (
        shown("title")
    )


def test_two_sizes_of_a_study_that_disagree_are_both_shown(summary):
    shown = summary(both() | {"main-gpu": ({"status": "partial"}, [REVERSED | {"verdict": "undecided"}])})
    assert "*reversed*" in shown("fails")
    assert "*undecided (partial)*" in shown("open")
    assert "**Withdrawn**" in shown("authors")


def test_a_gap_that_matters_in_runs_has_a_row_and_the_others_are_named(summary, monkeypatch):
    monkeypatch.setattr(claims, "VERDICTS", tuple(GROUPS))
    matters = HELD | EFFECT | {"verdict": "matters", "section": "Verdicts"}
    computed = HELD | {"value": 2.0, "unit": "times"}
    unclear = matters | {"id": "D2", "verdict": "undecided"}
    shown = summary({"anatomy": ({}, [computed]), "main": ({"kind": "rendered faces"}, [matters, unclear])})
    text = shown("moves")
    assert (
        "| **D1** They differ. | [matters](../main/index.html#verdicts), one minus other, "
        "−0.020 AUC (−0.030 to −0.010) |"
    ) in text
    assert "Undecided in runs: D2. All gaps" in text
    assert "D1" not in summary({"anatomy": ({}, [computed])})("moves"), "no run has spoken of it"
    alone = summary({"main": ({"kind": "rendered faces"}, [unclear | {"verdict": "does not matter"}])})("moves")
    assert "Do not matter in runs: D2. Not run yet: D1." in alone


def test_the_banner_stands_where_verdicts_of_claims_or_gaps_rest_on_rendered_faces(summary):
    assert "the verdicts of C1 rest on them" in summary(both())("banner")
    assert summary(both("computation"))("banner") == ""
    gap = {"anatomy": ({"kind": "rendered faces"}, [HELD])}
    assert "the verdicts of D1 rest on them" in summary(gap)("banner")


def test_the_index_gets_status_kind_and_counts(summary, tmp_path):
    summary(both())("title")
    found = findings.read(tmp_path)
    assert (found.kind, found.status, found.entries) == ("rendered faces", "partial", [])
    assert "1 reversed, not supported or refuted by computation" in found.found
    assert "1 hold or matter, 0 undecided, 1 not run yet" in found.found


def test_advice_stands_while_its_verdicts_do_and_is_withdrawn_with_the_reason_when_they_change(summary):
    shown = summary(both())
    carried = "(C1 [reversed](../main/index.html#scores-and-more); U1 [undecidable here](../claims/index.html))"
    assert shown("authors") == f"- Do not claim it. {carried}"
    assert shown("field") == "- Look at this. (D1 [holds](../anatomy/index.html#proof))"
    changed = summary({"main": ({}, [REVERSED | {"verdict": "undecided"}])})
    assert changed("authors") == (
        "- **Withdrawn**: Do not claim it. (C1 is now [undecided](../main/index.html#scores-and-more), and this was "
        "written for *reversed or not supported*)"
    )
    assert "D1 is now [not run yet](../claims/index.html)" in changed("field")
    # another report that says more than what the text was written for withdraws it as well
    more = summary(both() | {"audit": ({}, [HELD | {"verdict": "does not hold"}])})
    assert "**Withdrawn**: Look at this." in more("field")


def test_advice_with_a_direction_needs_the_sign_of_what_was_measured(summary):
    measured = HELD | {"verdict": "matters", "contrast": "a minus b", "value": -0.02, "replicates": 8}
    for sign, stands in (("-", True), ("+", False)):
        shown = summary({"main": ({}, [measured])}, '["holds"]', f'["matters {sign}"]')("field")
        assert ("**Withdrawn**" not in shown) == stands


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("D1 =", "D9 =", "advice 2 rests on D9, which is neither a claim nor a gap"),
        ('["holds"]', '["hold"]', r"advice 2 rests on D1 with the verdicts \['hold'\]; known: supported, holds"),
        ('["holds"]', "[]", r"advice 2 rests on D1 with the verdicts \[\]"),
        ('D1 = ["holds"]', "", "rests_on"),
        ('"field"', '"fields"', "to"),
        ("text =", "txet =", "'advice.0.text' is missing"),
        ("[[advice]]", "[[advice", "not a TOML file"),
    ],
)
def test_advice_that_cannot_be_checked_is_refused_with_its_file(summary, old, new, message):
    with pytest.raises(UsageError, match=message) as error:
        summary(both(), old, new)
    assert "advice.toml" in str(error.value)


def test_texts_are_no_markup(summary):
    shown = summary(both(), "Look at this.", "<script>x</script> [a](b)")
    text = shown("field")
    assert "<script" not in text
    assert "[a](b)" not in text


def test_the_committed_summary_is_drawn_from_the_committed_findings_and_its_links_lead_somewhere():
    ledger = Ledger(reports=PROJECT / "reports")
    shown = drawn(ledger, load_advice(ledger.said))
    folder = PROJECT / "reports" / "summary"
    text = (folder / "report.md").read_text()
    for name in SECTIONS.keys() - {"figure"}:
        assert page.between_markdown(shown(name)) in text, "draw it again: aunce report summary"
    links = re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text)
    assert links
    for target, section in links:
        assert (folder / target).is_file(), target
        made = (folder / target).with_name("index.html")  # whose headings have the names of those in report.md
        assert not section or f'id="{section}"' in made.read_text(), (target, section)
        assert page.anchor(section) == section


def test_committed_advice_is_short_and_has_no_number_that_could_grow_old():
    ids = [one.id for file in load_claims() for one in file.both]
    items = load_advice(ids)
    assert len(items) <= 14
    for item in items:
        assert len(item.text) < 220
        assert not re.search(r"\d\.\d", item.text)


def test_the_figure_shows_what_decides_each_claim_that_has_an_interval(summary, tmp_path):
    assert "No claim" in summary()("figure")
    refuted = HELD | {"id": "C1", "verdict": "does not hold", "value": 2.0, "unit": "times the operations"}
    assert "No claim" in summary({"main": ({}, [refuted])})("figure"), "a proof has no interval"
    text = summary(both())("figure")
    table = pd.read_csv(tmp_path / "figures" / "verdicts.csv")
    assert table.to_dict("records") == [
        {
            "claim": "C1",
            "study": "main",
            "contrast": "one minus other",
            "group": "reversed",
            "estimate": -0.02,
            "low": -0.03,
            "high": -0.01,
        }
    ]
    assert "−0.020 (−0.030 to −0.010), reversed" in text
