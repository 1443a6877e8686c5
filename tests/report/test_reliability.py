"""The page on reliability says what was recorded, and of the rest that it was not."""

import pandas as pd
import pytest

from aunce.errors import UsageError
from aunce.report import findings, page
from aunce.report.reliability import TABLES, read
from aunce.study.grid import NOTEBOOKS

CPU = ["a <b> CPU", "abc"]
RECORDED = {
    "kills": [
        [1, "Snakemake", 0.5, 3, 1, 0, 0, 0, 1, *CPU],
        [1, "aunce study", 2.0, 3, 1, 0, 0, 0, 1, *CPU],
        [2, "Snakemake", 3.5, 3, 0, 2, 1, 4, 0, *CPU],
    ],
    "inputs": [["names", 20, 0, *CPU], ["label files", 2000, 1, "another", "abc"]],
    "engine": [[2000, 7, 286, 50.0, 0.02, *CPU]],
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Folder of the page over `RECORDED`: nothing about Slurm was recorded."""
    tables = tmp_path_factory.mktemp("tables")
    for name, rows in RECORDED.items():
        pd.DataFrame(rows, columns=TABLES[name]).to_csv(tables / f"{name}.csv", index=False)
    folder = tmp_path_factory.mktemp("page")
    page.render(NOTEBOOKS / "reliability.ipynb", {"tables": str(tables)}, folder, title="What survives")
    return folder


def section(folder, heading):
    return (folder / "report.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_what_was_recorded_is_counted_once_a_trial_and_harm_is_said(drawn):
    said = findings.read(drawn).found
    assert "3 times a process was killed at a random moment, in 2 trials of a small study." in said
    assert "Of 6 runs 1 were lost and 2 done twice; 1 had numbers that are not" in said
    assert "4 processes and 1 file stayed behind" in said
    assert "Of 2,020 hostile or damaged inputs, 1 did harm." in said
    assert said in (drawn / "report.md").read_text()
    kills = section(drawn, "Kills")
    assert "| Snakemake | 2 | 0.5 to 3.5 |" in kills
    assert "| aunce study | 1 | 2.0 |" in kills
    assert "a &lt;b&gt; CPU, revision abc." in kills


def test_what_was_not_recorded_is_said(drawn):
    assert "Not recorded yet: slurm." in findings.read(drawn).found
    assert "Not recorded yet" in section(drawn, "A cluster that fails")
    assert findings.read(drawn).status == "partial"


def test_the_cost_of_the_engine_is_shown_a_command(drawn):
    assert "| 2,000 | 7 | 286 | 50.0 | 25 | 20 |" in section(drawn, "What the engine costs")


def test_a_table_of_other_columns_is_refused(tmp_path):
    (tmp_path / "kills.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="write it again"):
        read(tmp_path)
