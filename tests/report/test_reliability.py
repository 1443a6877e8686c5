"""The page on reliability says what was recorded, and of the rest that it was not."""

import pandas as pd
import pytest
from cells import show

from aunce.errors import UsageError
from aunce.report import findings
from aunce.report.reliability import TABLES, read


def write(folder, name, *rows):
    pd.DataFrame(rows, columns=TABLES[name]).to_csv(folder / f"{name}.csv", index=False)


def shown(folder, cell):
    """What a cell shows of the tables in a folder; the cells before it write the findings there."""
    before = ["reliab02", "reliab14", "reliab03", "reliab15"]
    return show("reliability", *before, cell, tables=str(folder), out=str(folder))


def test_what_was_recorded_is_counted_once_a_trial_and_harm_is_said(tmp_path):
    write(
        tmp_path,
        "strikes",
        [1, "Snakemake", "SIGKILL", 0.5, 360, 3, 1, 0, 0, 0, 1, "a <b> CPU", "abc"],
        [1, "aunce study", "SIGINT", 2.0, 360, 3, 1, 0, 0, 0, 1, "a <b> CPU", "abc"],
        [2, "Snakemake", "SIGKILL", 3.5, 720, 3, 0, 2, 1, 4, 0, "a <b> CPU", "abc"],
    )
    write(tmp_path, "inputs", ["names", 20, 0, "a <b> CPU", "abc"], ["label files", 2000, 1, "another", "abc"])
    row = ["run", "auc.parquet", "cut"]
    outcomes = ["found and said", "found and said", "taken for valid"]
    write(tmp_path, "damages", *([*row, outcome, 60, "a <b> CPU", "abc"] for outcome in outcomes))
    strikes, damages = shown(tmp_path, "reliab05"), shown(tmp_path, "reliab17")
    assert "| Snakemake | 2 |  |  |  |  |  | 0.5 to 3.5 |" in strikes
    assert "| aunce study |  |  | 1 |  |  |  | 2.0 |" in strikes
    assert "a &lt;b&gt; CPU, revision abc, in 0.3 hours of work." in strikes
    assert "| run | 1 | 3 | 2 | 0 | 0 | 1 | 0 |" in damages
    assert "Not recorded yet" in shown(tmp_path, "reliab09")
    assert findings.read(tmp_path).status == "partial"
    said = shown(tmp_path, "reliab03")
    assert findings.read(tmp_path).found in said
    assert "3 times a process was struck by a signal, in 2 trials of a small study." in said
    assert "Of 6 runs 1 were lost and 2 done twice; 1 had numbers that are not" in said
    assert "4 processes and 1 file stayed behind" in said
    assert "Of 3 damaged files: 2 found and said, 1 taken for valid." in said
    assert "Of 2,020 hostile or damaged inputs, 1 did harm." in said
    assert "Not recorded yet: slurm, engine." in said


def test_the_cost_of_the_engine_is_shown_a_command(tmp_path):
    write(tmp_path, "engine", [2000, 7, 286, 50.0, 0.02, "CPU", "abc"])
    assert "| 2,000 | 7 | 286 | 50.0 | 25 | 20 |" in shown(tmp_path, "reliab11")


def test_a_table_of_other_columns_is_refused(tmp_path):
    (tmp_path / "strikes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="write it again"):
        read(tmp_path)
