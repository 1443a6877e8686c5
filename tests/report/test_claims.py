"""The claims: complete, named once, and not run yet until the report of their experiment says more."""

import hashlib

import pytest

from aunce.errors import UsageError
from aunce.report import findings, page
from aunce.report.claims import Ledger, claims_of, decided_by, load_claims
from aunce.report.findings import Entry, Findings
from aunce.study.grid import NOTEBOOKS, PROJECT, load_study

ABOUT = {"title": "A study", "question": "Does it?", "found": "It does.", "kind": "rendered faces"}
ENTRY = {
    "id": "C1",
    "verdict": "supported",
    "contrast": "one minus other",
    "value": 0.02,
    "low": 0.01,
    "high": 0.03,
    "unit": "AUC",
    "replicates": 16,
    "detectable": 0.012,
    "reason": "Because.",
    "section": "Scores, and more",
}

FILE = """
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

[[gap]]
id = "D1"
wording = "They differ."
home = "anatomy"
"""


@pytest.fixture
def write(tmp_path):
    def write(old="", new=""):
        folder = tmp_path / "claims"
        folder.mkdir(exist_ok=True)
        (folder / "first.toml").write_text(FILE.replace(old, new))
        return folder

    return write


def test_the_committed_claims_are_those_of_the_protocol_and_their_hash_is_that_of_the_file():
    claims = load_claims()[0]
    assert claims.name == "first"
    assert {f"C{number}" for number in range(1, 8)} <= {claim.id for claim in claims.claim}
    assert [gap.id for gap in claims.gap] == [f"D{number}" for number in range(1, 25)]
    # The first edition stays byte for byte: pages of the first round show this hash.
    assert claims.hash == "2d05db03"
    assert hashlib.sha256((NOTEBOOKS / "claims" / "first.toml").read_bytes()).hexdigest().startswith("2d05db03")
    assert claims.delta == 0.005


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "D1"', 'id = "X1"', "id"),
        ("[[gap]]", '[[gap]]\nid = "D1"\nwording = "Again."\nhome = "audit"\n\n[[gap]]', "D1 stands twice"),
        ('contrasts = [["one", "other"]]', "", "decided by each of its contrasts and has none"),
        ('["one", "other"]', '["one", "one"]', "two different arms"),
        ('experiment = "main"', "", "needs experiment and decided_by"),
        ('decided_by = "each"', 'decided_by = "each"\nmeasure = "noise"', "needs the noise levels"),
        ('decided_by = "each"', 'decided_by = "each"\nnoise = ["miss 0.2"]', "no other measure has any"),
        ('decided_by = "each"', 'decided_by = "each"\nmeasure = "slope"', "measure"),
        ('home = "anatomy"', 'home = "anatomy"\nexperiment = "main"', "both experiment and contrasts"),
        ('home = "anatomy"', 'home = "anatomy"\nexperiment = "main"\ncontrasts = [["one"]]', "two different arms"),
        ("[[claim]]", '[[change]]\ndate = "soon"\ntext = "All."\n\n[[claim]]', "date"),
        ("delta", "dleta", "did you mean 'delta'"),
        ("2026-01-01", '"yesterday"', "written"),
        ("[[claim]]", "[[claim", "not a TOML file"),
    ],
)
def test_an_incomplete_claim_is_refused_with_its_file(write, old, new, message):
    folder = write(old, new)
    with pytest.raises(UsageError, match=message) as error:
        load_claims(folder)
    assert str(folder / "first.toml") in str(error.value)


@pytest.fixture
def ledger(tmp_path, write):
    """The ledger of `FILE`, changed, over made-up reports: name -> (fields of the findings, entries)."""

    def ledger(reports=(), old="", new=""):
        for name, (about, entries) in dict(reports).items():
            (tmp_path / "reports" / name).mkdir(parents=True)
            findings.write(
                tmp_path / "reports" / name,
                Findings(**ABOUT | about, entries=[Entry(**ENTRY | entry) for entry in entries]),
            )
        return Ledger(write(old, new), reports=tmp_path / "reports", out=tmp_path)

    return ledger


def rows(table):
    """Cells by the name in the first of them."""
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.data.splitlines()[2:]]
    return {row[0].split()[0].strip("*"): row for row in cells}


def test_a_claim_without_runs_has_no_verdict_and_an_undecidable_one_says_why(ledger):
    shown = ledger()
    assert "**not run yet**" in shown.table().data
    assert "supported" not in shown.table().data
    assert shown.files[0].hash in shown.title().data
    assert "Of 1 claims: 1 not run yet." in shown.title().data
    assert shown.banner().data == ""
    assert findings.read(shown.out).status == "partial"
    why = 'undecidable = "no data"'
    shown = ledger((), 'experiment = "main"\ndecided_by = "each"\ncontrasts = [["one", "other"]]', why)
    assert "**undecidable here: no data**" in shown.table().data
    assert "1 undecidable here" in shown.title().data


@pytest.mark.parametrize("verdict", ["supported", "reversed", "not supported", "undecided"])
def test_a_claim_takes_the_verdict_of_its_experiment_with_effect_power_and_evidence(ledger, verdict):
    shown = ledger({"main": ({}, [{"verdict": verdict}])})
    (row,) = rows(shown.table()).values()
    evidence = "[main: Scores, and more](../main/index.html#scores-and-more)"
    assert row[1] == f"**{verdict}**<br>Because.<br>{evidence}"
    assert row[2] == "one minus other<br>+0.020 AUC (+0.010 to +0.030)"
    assert row[3:5] == ["16", "0.012 AUC"]
    assert f"1 {verdict}." in shown.title().data
    assert "the verdicts of C1 rest on them" in shown.banner().data
    found = findings.read(shown.out)
    assert (found.status, found.kind, found.entries) == ("whole", "rendered faces", [])


def test_a_partial_report_marks_its_verdict_and_an_empty_one_has_none(ledger):
    shown = ledger({"main": ({"status": "partial"}, [{"verdict": "undecided"}])})
    assert "**undecided (partial)**" in shown.table().data
    assert "1 undecided (partial)" in shown.title().data
    assert findings.read(shown.out).status == "partial"


def test_a_report_without_a_finished_run_decides_nothing(ledger):
    assert "**not run yet**" in ledger({"main": ({"status": "empty"}, [{"verdict": "undecided"}])}).table().data


def test_what_is_decided_on_rendered_faces_may_be_undecidable_on_others(ledger):
    limits = 'source = "us"\nundecidable = "on real faces: no data"'
    shown = ledger({"main": ({}, [{}])}, 'source = "us"', limits)
    assert "**supported; undecidable here on real faces: no data**" in shown.table().data


def test_the_gpu_size_of_an_experiment_stands_beside_the_other(ledger):
    shown = ledger({"main": ({}, [{}]), "main-gpu": ({"status": "partial"}, [{"verdict": "undecided"}])})
    assert "**supported in main; undecided (partial) in main-gpu**" in shown.table().data
    assert shown.table().data.count("index.html#") == 2


def test_two_reports_may_speak_of_a_gap(ledger):
    holds = {"id": "D1", "verdict": "holds", "value": None, "reason": "Because."}
    shown = ledger({"anatomy": ({}, [holds]), "audit": ({}, [holds | {"verdict": "does not hold"}])})
    assert "**holds in anatomy; does not hold in audit**<br>Because.<br>Because." in shown.gaps().data
    assert "Of 1 gaps" in shown.title().data


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("main", {"id": "C9"}, "C9 is neither a claim nor a gap"),
        ("other", {}, "C1 has a verdict of report 'other', but report 'main' decides it"),
        ("main", {"verdict": "proven"}, "C1 has the verdict 'proven'; known: reversed"),
    ],
)
def test_findings_that_the_ledger_cannot_take_are_refused_with_their_file(ledger, name, entry, message):
    with pytest.raises(UsageError, match=message) as error:
        ledger({name: ({}, [entry])})
    assert f"{name}/findings.json" in str(error.value)


def test_texts_of_findings_are_no_markup(ledger):
    evil = "<script>x</script> | [a](b)"
    shown = ledger({"main": ({"title": evil}, [dict.fromkeys(("reason", "contrast", "unit", "section"), evil)])})
    text = shown.table().data
    assert "<script" not in text
    assert len(text.splitlines()) == 3
    assert text.replace("\\|", "").splitlines()[2].count("|") == 6


def test_the_committed_ledger_is_drawn_from_the_committed_findings():
    shown = Ledger(reports=PROJECT / "reports")
    text = (PROJECT / "reports" / "claims" / "report.md").read_text()
    for part in (shown.title(), shown.banner(), shown.table(), shown.gaps(), shown.changes()):
        assert page.between_markdown(part.data) in text, "draw it again: aunce report claims"
    for one in (*shown.claims, *shown.discrepancies):
        assert f"| **{one.id}** " in text


def test_a_change_of_the_claims_is_listed_with_its_day(write, tmp_path):
    assert "Nothing" in Ledger(write(), reports=tmp_path).changes().data
    folder = write("[[claim]]", '[[change]]\ndate = 2026-01-02\ntext = "Before any run: <b>delta</b>."\n\n[[claim]]')
    text = Ledger(folder, reports=tmp_path).changes().data
    assert "| 2026-01-02 | first.toml |" in text
    assert "<b>" not in text


SECOND = FILE[: FILE.index("[[gap]]")].replace("2026-01-01", "2026-02-01").replace("0.005", "0.015")
SECOND = SECOND.replace('"main"', '"decisive"')


def test_a_claim_of_two_studies_is_shown_by_the_newest_that_has_run(ledger, write, tmp_path):
    (write() / "second.toml").write_text(SECOND)
    shown = ledger({"main": ({}, [{"verdict": "reversed"}])})
    (row,) = rows(shown.table()).values()
    assert row[1].startswith("**reversed**")
    assert row[0].endswith("report main: each of one against other<br>*Asked by decisive, too*: not run yet")
    assert "first.toml" in shown.title().data
    assert "second.toml" in shown.title().data
    shown = ledger({"decisive": ({}, [{"verdict": "undecided"}])})
    (row,) = rows(shown.table()).values()
    assert row[1].startswith("**undecided**")
    assert "Asked by main, too*: reversed" in row[0]
    assert "Of 1 claims: 1 undecided" in shown.title().data


def test_a_study_has_the_claims_of_its_own_file_and_no_other_edit_changes_its_page(write):
    folder = write()
    before = claims_of("main", folder)
    (folder / "second.toml").write_text(SECOND)
    assert claims_of("main", folder) == before
    assert [(file.delta, file.name) for file in load_claims(folder)] == [(0.005, "first"), (0.015, "second")]
    assert claims_of("decisive", folder).delta == 0.015
    assert claims_of("elsewhere", folder).both == []


def test_two_files_with_claims_of_one_study_or_the_same_gap_are_refused_with_both(write):
    folder = write()
    (folder / "second.toml").write_text(SECOND.replace('"decisive"', '"main"').replace('"C1"', '"C2"'))
    with pytest.raises(UsageError, match=r"second\.toml: C2 is of the study main, and so .* first\.toml"):
        load_claims(folder)
    (folder / "second.toml").write_text(SECOND + FILE[FILE.index("[[gap]]") :])
    with pytest.raises(UsageError, match=r"second\.toml: D1 stands twice, see first\.toml"):
        load_claims(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="no file of claims"):
        load_claims(folder)


def test_a_study_tells_what_it_decides_and_an_arm_that_it_has_not_is_refused(write):
    folder = write()
    assert decided_by("main", ["one", "other"], folder) == "Decides C1 of first.toml."
    assert decided_by("mian", ["one", "other"], folder) == "Decides no claim: none has experiment = 'mian'."
    with pytest.raises(UsageError, match=r"first\.toml: C1 compares the arm 'other', .* did you mean 'others'"):
        decided_by("main", ["one", "others"], folder)


def test_the_arms_of_the_committed_claims_stand_in_their_studies():
    for path in sorted((NOTEBOOKS / "studies").glob("*.toml")):
        if path.stem == "table":  # its folds are those of a folder
            continue
        study = load_study(path.stem)
        decided_by(path.stem, {run.labels["arm"] for run in study.runs if "arm" in run.labels})
