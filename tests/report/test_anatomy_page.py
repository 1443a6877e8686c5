"""The anatomy page: verdicts that follow the numbers, sections, findings and figures."""

import json

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure

from aunce.analyses import anatomy, batches, costs
from aunce.report import figures, findings
from aunce.report.anatomy import SECTIONS, Anatomy


@pytest.fixture
def fresh(monkeypatch):
    """Replace a function of a module by one that returns `value`, and give the verdict of one entry."""

    def verdict(module, name, value, id):
        monkeypatch.setattr(module, name, lambda *args, **kwargs: value)
        (entry,) = [entry for entry in Anatomy().entries if entry.id == id]
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
    assert {entry.verdict for entry in Anatomy().entries if entry.id != "C7"} == {"holds"}
    assert fresh(anatomy, "max_branch", anatomy.max_branch("self"), "D1") == "does not hold"
    assert fresh(anatomy, "mean_divides_by_the_row", False, "D2") == "does not hold"
    assert fresh(anatomy, "anchors_share_a_draw", 0.4, "D3") == "does not hold"
    assert fresh(anatomy, "denominators", anatomy.Denominators(1.0, 0.0), "D6") == "does not hold"
    assert fresh(anatomy, "smallest", anatomy.smallest(False), "D7") == "does not hold"
    truth = batches.unknowns().assign(from_9=0.0)
    assert fresh(batches, "unknowns", truth, "D16") == "does not hold"
    many = batches.positives().assign(none=0.0, one=0.0)
    assert fresh(batches, "positives", many, "D18") == "does not hold"


def test_every_section_is_shown_under_its_heading_and_findings_are_written(tmp_path):
    shown = Anatomy(out=tmp_path)
    sections = [name for name in vars(Anatomy) if not name.startswith("_") and name != "entries"]
    text = {name: getattr(shown, name)().data for name in sections}
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"floors", "forces", "steps", "batches"}
    for name, section in text.items():
        assert " nan" not in section, name
    written = findings.read(tmp_path)
    assert written.kind == "computation"
    assert [entry.id for entry in written.entries] == ["C7", "D1", "D2", "D3", "D6", "D7", "D16", "D18"]
    assert json.loads((tmp_path / "findings.json").read_text())["runs"] == 0
    for entry in written.entries:
        assert entry.reason in text["verdicts"]
        assert entry.section in SECTIONS.values()
    assert set(SECTIONS) <= set(sections)


def test_the_notebook_has_the_sections_that_findings_point_to(request):
    cells = nbformat.read(request.config.rootpath / "notebooks" / "anatomy.ipynb", 4).cells
    place = 0
    for name, heading in SECTIONS.items():
        (found,) = [
            i
            for i, cell in enumerate(cells)
            if cell.source.startswith(f"## {heading}\n") or cell.source == f"## {heading}"
        ]
        assert found > place
        assert f"anatomy.{name}()" in cells[found + 1].source
        place = found


def test_nothing_is_written_without_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Anatomy().title()
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
