"""The page about the loss: its numbers come from the loss, its verdicts from the findings of the reports."""

import torch
from cells import show

from aunce.analyses import anatomy
from aunce.losses import AUNCELoss
from aunce.report import findings, page
from aunce.report.claims import Ledger
from aunce.report.findings import Entry, Findings
from aunce.study.grid import REPORTS


def report(folder, verdict, **measured):
    entry = Entry(id="C2", verdict=verdict, reason="Because.", section="Verdicts, all", **measured)
    about = {"title": "Main", "question": "Does it?", "found": "No.", "kind": "rendered faces"}
    findings.write(folder / "main", Findings(**about, entries=[entry]))


def presets(folder):
    """The table of presets, with what the reports in a folder say."""
    return show("loss", "quoted01", "1303cbd0", page=page, ledger=Ledger(reports=folder), AUNCELoss=AUNCELoss)


def test_what_is_said_of_a_preset_is_read_from_the_findings_and_linked(tmp_path):
    assert "**not run yet**" in presets(tmp_path)
    report(tmp_path, "reversed")
    rows = {line.split("`")[1]: line for line in presets(tmp_path).splitlines() if "`" in line}
    assert "**reversed** ([main](../main/index.html#verdicts-all))" in rows["released"]
    for name in ("hcl", "supcon", "infonce"):  # whom C2 compares it with
        assert "C2 compares `released` with it: see there" in rows[name]
    assert "C2" not in rows["as_read"]
    # whom the verdict is about: it need not be the preset in whose row it stands
    measured = {"contrast": "AUNCE minus SupCon", "value": -0.03, "low": -0.05, "high": -0.01, "unit": "AUC"}
    report(tmp_path, "reversed", **measured, replicates=16)
    shown = presets(tmp_path)
    assert "**reversed**, AUNCE minus SupCon, −0.030 AUC (−0.050 to −0.010), Because. (" in shown
    assert "Rendered faces: the verdicts of C2 rest on them" in Ledger(reports=tmp_path).banner().data
    assert "D6 " in rows["supcon"]
    assert "see its options" in rows["as_read"]


def test_values_at_equal_embeddings_are_those_of_the_loss():
    z, labels = torch.ones(2, 32, 1, 4), (torch.arange(32) < 6).int()[:, None]
    shown = show("loss", "e175bb7e", page=page, anatomy=anatomy)
    for name in ("released", "as_read", "hcl"):
        (row,) = [line for line in shown.splitlines() if line.startswith(f"| `{name}`")]
        for kind, text in zip(("max", "mean", "view", "expected"), row.split("|")[2:6], strict=True):
            assert float(text) == round(getattr(AUNCELoss, name)(positive=kind)(z, labels).item(), 3)


def test_scores_are_compared_with_the_truth_label_by_label():
    seen = torch.zeros(600, 2)  # samples of the training, which are not scored
    truth = torch.tensor([[0, 1], [1, 0], [1, 1], [0, 0]])
    y = x = torch.cat([seen, truth])
    given = {"x": x, "y": y, "scores": {"it": truth.float()}, "classifier": lambda rows: rows * torch.tensor([1, -1])}
    rows = show("loss", "80a9537d", page=page, **given)
    expected = ["| it | 1.000 | 1.000 | 1.000 |", "| binary cross-entropy | 1.000 | 0.000 | 0.500 |"]
    assert rows.splitlines()[2:] == expected


def test_the_advice_follows_the_ledger():
    """The page says in words of its own that on rendered faces AUNCE does not beat cross-entropy and SupCon."""
    verdicts = {entry.id: entry for entry in findings.read(REPORTS / "main").entries}
    assert verdicts["C1"].verdict in ("reversed", "not supported")
    assert verdicts["C2"].verdict in ("reversed", "not supported")
    assert verdicts["C2"].contrast == "AUNCE released minus SupCon"


def test_a_page_shows_the_code_of_a_cell_that_asks_for_it():
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [new_code_cell("hidden = 1"), new_code_cell("shown = '<2>'", metadata={"tags": ["show-code"]})]
    parts = page._convert(new_notebook(cells=cells))
    assert "```python\nshown = '<2>'\n```" in parts["markdown"]
    assert "hidden" not in parts["markdown"] + parts["main"]
    assert "&lt;2&gt;" in parts["main"]


def test_the_markdown_of_a_page_leads_to_the_markdown_of_others():
    for target, led in (
        ("../main/index.html#verdicts", "../main/report.md#verdicts"),
        ("../data/bp4d/index.html", "../data/bp4d/report.md"),
        ("../index.html", "../index.html"),
        ("https://example.org/x/index.html", "https://example.org/x/index.html"),
    ):
        assert page.between_markdown(f"see [it]({target}), too") == f"see [it]({led}), too"
