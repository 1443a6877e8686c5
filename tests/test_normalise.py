"""The notebook normaliser: what git holds, and that nbval still compares it."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

PROJECT = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location("normalise", PROJECT / "tools" / "normalise.py")
assert _spec is not None
assert _spec.loader is not None
normalise = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(normalise)


def dirty() -> nbformat.NotebookNode:
    """A notebook as papermill leaves it: counts with gaps, outputs everywhere, metadata of one execution."""
    cells = [
        v4.new_markdown_cell("# Title\n"),
        v4.new_code_cell("a: int = 1  # one", metadata={"tags": ["parameters"], "papermill": {"duration": 1.0}}),
        v4.new_code_cell("a = 7", metadata={"tags": ["injected-parameters"]}),
        v4.new_code_cell("print('noise')", execution_count=4, outputs=[v4.new_output("stream", text="noise\n")]),
        v4.new_code_cell(
            "print(a)\na + 1",
            execution_count=17,
            metadata={"tags": ["nbval-check-output"], "execution": {"iopub.execute_input": "2026-01-01"}},
            outputs=[
                v4.new_output("stream", text="1\n"),
                v4.new_output(
                    "execute_result", data={"text/plain": "2"}, execution_count=17, metadata={"isolated": True}
                ),
            ],
        ),
        v4.new_code_cell("a", metadata={"tags": ["nbval-check-output"]}),
        v4.new_code_cell(
            "print(3)",
            execution_count=99,
            metadata={"tags": ["nbval-check-output"]},
            outputs=[v4.new_output("stream", text="3\n")],
        ),
    ]
    metadata = {
        "papermill": {"duration": 3},
        "widgets": {"state": {}},
        "kernelspec": {"display_name": "my venv", "language": "python", "name": "venv"},
        "language_info": {"name": "python", "version": "3.11.7"},
    }
    return v4.new_notebook(cells=cells, metadata=metadata)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "dirty.ipynb"
    nbformat.write(dirty(), file)
    return file


def test_only_checked_outputs_stay_and_their_counts_have_no_gaps(path: Path) -> None:
    normalise.normalise(path)
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.execution_count, len(cell.outputs)) for cell in code] == [
        (None, 0),
        (None, 0),
        (1, 2),
        (None, 0),
        (2, 1),
    ]
    assert code[2].outputs[1].execution_count == 1


def test_nothing_of_one_execution_stays(path: Path) -> None:
    normalise.normalise(path)
    text = path.read_text()
    for word in ("papermill", "injected", "iopub", "widgets", "my venv", "3.11.7", "noise\\\\n", "isolated"):
        assert word not in text
    assert json.loads(text)["metadata"]["kernelspec"]["name"] == "python3"


def test_a_second_pass_changes_no_byte(path: Path) -> None:
    assert not normalise.normalise(path)
    once = path.read_bytes()
    assert normalise.normalise(path)
    assert path.read_bytes() == once


def test_cell_ids_stay(path: Path) -> None:
    before = [cell.id for cell in cells_of(path) if "injected-parameters" not in cell.metadata.get("tags", [])]
    normalise.normalise(path)
    assert [cell.id for cell in cells_of(path)] == before


def test_a_notebook_without_cell_ids_gets_the_same_ids_each_time(path: Path) -> None:
    raw = json.loads(path.read_text())
    raw["nbformat_minor"] = 4
    for cell in raw["cells"]:
        del cell["id"]
    results = []
    for _ in range(2):
        path.write_text(json.dumps(raw))
        normalise.normalise(path)
        results.append(path.read_bytes())
    assert results[0] == results[1]
    assert normalise.normalise(path)


def cells_of(path: Path) -> list[nbformat.NotebookNode]:
    return list(nbformat.read(path, as_version=4).cells)


def test_check_names_the_file_and_changes_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = path.read_bytes()
    assert normalise.main(["--check", str(path)]) == 1
    assert str(path) in capsys.readouterr().out
    assert path.read_bytes() == before
    assert normalise.main([str(path)]) == 0
    assert normalise.main(["--check", str(path)]) == 0


def test_nbval_compares_the_outputs_that_were_kept(path: Path) -> None:
    normalise.normalise(path)
    changed = path.with_name("changed.ipynb")
    changed.write_text(path.read_text().replace('"2"', '"5"'))
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    done = subprocess.run([*pytest, path.name, changed.name], cwd=path.parent, capture_output=True, text=True)
    assert re.findall("^FAILED (.*?)::", done.stdout, flags=re.MULTILINE) == [changed.name], done.stdout
