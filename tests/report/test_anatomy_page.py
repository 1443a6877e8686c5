"""The anatomy page: verdicts that follow the numbers, sections, findings and figures."""

import json

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure

from aunce.analyses import anatomy, batches, costs
from aunce.report import figures, findings, page
from aunce.report.anatomy import verdicts
from aunce.study.grid import NOTEBOOKS

NOTEBOOK = NOTEBOOKS / "anatomy.ipynb"
SECTIONS = (
    "What the value says",
    "How low it can go",
    "What pulls and what pushes",
    "The most similar positive",
    "The divisor of the mean",
    "One draw for all anchors",
    "The denominator",
    "What the exponents do",
    "Half precision",
    "Rare AUs in a batch",
    "The code 9",
    "Parameters and operations",
)


@pytest.fixture
def fresh(monkeypatch):
    """Replace a function of a module by one that returns `value`, and give the verdict of one entry."""

    def verdict(module, name, value, id):
        monkeypatch.setattr(module, name, lambda *args, **kwargs: value)
        (entry,) = [entry for entry in verdicts() if entry.id == id]
        return entry.verdict

    return verdict


def test_the_claim_falls_with_the_operations_and_not_with_the_wording(fresh):
    table = costs.all_costs()
    assert costs.more_than(table, "operations")
    assert not costs.more_than(table, "operations", "BCE, two views")
    assert not costs.more_than(table, "parameters")
    cheap = table.assign(operations=table["operations"].where(table["method"] != "AUNCE", table["operations"] / 2.1))
    assert fresh(costs, "all_costs", cheap, "C7") == "holds"
    assert fresh(costs, "all_costs", table, "C7") == "does not hold"
    large = cheap.assign(parameters=cheap["parameters"].where(cheap["method"] != "AUNCE", 10**9))
    assert fresh(costs, "all_costs", large, "C7") == "does not hold"


def test_verdicts_flip_when_the_numbers_do(fresh):
    assert {entry.verdict for entry in verdicts() if entry.id != "C7"} == {"holds"}
    assert fresh(anatomy, "max_branch", anatomy.max_branch("self"), "D1") == "does not hold"
    assert fresh(anatomy, "mean_divides_by_the_row", False, "D2") == "does not hold"
    assert fresh(anatomy, "anchors_share_a_draw", 0.4, "D3") == "does not hold"
    assert fresh(anatomy, "denominators", anatomy.Denominators(1.0, 0.0), "D6") == "does not hold"
    assert fresh(anatomy, "smallest", anatomy.smallest(False), "D7") == "does not hold"
    truth = batches.unknowns().assign(from_9=0.0)
    assert fresh(batches, "unknowns", truth, "D16") == "does not hold"
    many = batches.positives().assign(none=0.0, one=0.0)
    assert fresh(batches, "positives", many, "D18") == "does not hold"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of the page."""
    folder = tmp_path_factory.mktemp("anatomy")
    page.render(NOTEBOOK, {}, folder, title="Anatomy of the loss")
    return folder


def test_the_page_shows_every_verdict_and_figure_and_writes_findings(drawn):
    shown = (drawn / "report.md").read_text(encoding="utf-8")
    assert {path.stem for path in (drawn / "figures").iterdir()} == {"floors", "forces", "steps", "batches"}
    assert " nan" not in shown
    written = findings.read(drawn)
    assert written.kind == "computation"
    assert [entry.id for entry in written.entries] == ["C7", "D1", "D2", "D3", "D6", "D7", "D16", "D18"]
    assert json.loads((drawn / "findings.json").read_text(encoding="utf-8"))["runs"] == 0
    for entry in written.entries:
        assert f"| {entry.verdict} | {entry.reason} |" in shown


def test_every_section_shows_numbers_and_those_that_findings_point_to_exist(drawn):
    shown = (drawn / "report.md").read_text(encoding="utf-8")
    sections = dict(part.split("\n", 1) for part in shown.split("\n## ")[1:])
    assert {entry.section for entry in findings.read(drawn).entries} <= set(sections)
    tabled = [heading for heading, body in sections.items() if "| ---" in body]
    assert tabled == [*SECTIONS, "Not decided here"]


def test_nothing_is_written_without_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    assert names["out"] == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (figures.floors, lambda: anatomy.floors(temperatures=(0.5,), rates=(0.25, 0.5))),
        (figures.forces, anatomy.branch_forces),
        (figures.steps, anatomy.steps),
        (figures.batches, batches.batch_noise),
    ],
)
def test_figures_come_from_tidy_tables_and_are_the_same_each_time(draw, table):
    data: pd.DataFrame = table()
    assert isinstance(draw(data), Figure)
    assert figures.to_svg(draw(data)) == figures.to_svg(draw(data))
