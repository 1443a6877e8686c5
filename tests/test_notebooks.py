"""The committed notebooks: what nbval, which runs them, cannot see."""

import re
from pathlib import Path

import nbformat
import pytest

from aunce.study.spec import RunSpec

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_logic_lives_in_the_library_and_cells_are_short(path):
    for cell in cells(path):
        assert not re.search(r"^\s*(def|class) ", cell.source, re.MULTILINE)
        if "parameters" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 15, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_title_question_what_is_seen_and_how_long_it_takes(path):
    first = cells(path, "markdown")[0].source
    assert re.match(r"# .+\n\n\*\*Question\*\*: .+\?\n\nYou will see ", first)
    assert re.search(r"\b(10|ten) s", first)


def test_the_readme_leads_to_every_notebook():
    linked = re.findall(r"\((\w+)\.ipynb\)", (NOTEBOOKS[0].parent / "README.md").read_text())
    assert sorted(linked) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_one_tagged_cell_that_papermill_can_show(path):
    (parameters,) = [cell for cell in cells(path) if "parameters" in cell.metadata.get("tags", [])]
    for line in parameters.source.splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool|list\[(float|int|str)\]) = [^=]+  # [^=]+", line), line


def test_the_run_notebook_has_the_fields_of_a_run_with_their_defaults_and_help():
    (parameters,) = [cell for cell in cells(NOTEBOOKS[0].parent / "train.ipynb") if cell.metadata.get("tags")][:1]
    values = {}
    exec(parameters.source, values)
    values.pop("__builtins__")
    values.pop("__annotations__")
    assert RunSpec.from_notebook(values) == RunSpec()
    for name, field in RunSpec.model_fields.items():
        assert re.search(rf"^{name}: .*# {re.escape(field.description)}", parameters.source, re.MULTILINE)
