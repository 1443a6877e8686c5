"""What README shows runs as it stands: Python always, the commands of the shell in the long tests."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from aunce import cli, prediction
from aunce.backbones import BACKBONES
from aunce.data import DATASETS, adapter
from aunce.report import page
from aunce.report.claims import Ledger
from aunce.report.summary import FAILS, GROUPS, HOLDS, OPEN
from aunce.study.grid import PROJECT

TEXT = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.S | re.M)
SNIPPETS = [block for language, block in BLOCKS if language == "python"]
SHELL = ("", "sh", "bash", "console")
COMMANDS = [
    line.partition(" #")[0].strip().removeprefix("$ ")
    for language, block in BLOCKS
    if language in SHELL
    for line in block.splitlines()
]
COMMANDS = [line for line in COMMANDS if re.match(r"(aunce|make|papermill|python|torchrun|git|pip|conda) ", line)]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet):
    exec(snippet, {})


def test_there_are_snippets_and_commands():
    assert SNIPPETS
    assert any(line.startswith("aunce ") for line in COMMANDS)
    assert any(line.startswith("make ") for line in COMMANDS)


def in_a_test(line, roots):
    """The command as a test can do it: data sets are rendered, studies are counted, make says what it would do.

    None for what needs names that only a reader has (STUDY, RUN, ...), a network, or several GPUs.
    """
    if line.startswith("aunce predict "):
        line = line.replace("RUN", roots["RUN"]).replace("PATH", roots["PATH"])
    for name, root in roots.items():
        line = re.sub(rf"/[^\s=]*/{re.escape(name)}(?!\w)", str(root), line)
    if re.search(r"\b(STUDY|KEY|RUN|NAME|OUT|ROOT|PATH)\b", line) or line.startswith(
        ("git ", "pip ", "conda ", "torchrun ")
    ):
        return None
    if line.startswith("make "):
        return line.replace("make ", f"make --dry-run --directory {PROJECT} ", 1)
    return f"{line} --dry-run" if line.startswith("aunce study ") and "--dry-run" not in line else line


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "table"])  # which has labels of one's own
def test_options_in_running_text_are_those_of_every_study_of_a_data_set(name, monkeypatch, tmp_path):
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path)
    spans = [span for span in re.findall(r"`(--[^`]+ [^`]+)`", TEXT)]
    assert spans
    for span in spans:
        said = CliRunner().invoke(cli.main, ["study", name, *shlex.split(span), "--dry-run"])
        assert said.exit_code == 0, f"{span}: {said.output}"
        assert re.search(r": [1-9]\d* runs, 0 done", said.output)


def test_the_first_table_says_of_each_claim_what_the_ledger_says():
    ledger = Ledger()
    rows = dict(re.findall(r"^\| \*\*([^*]+)\*\* \| (.*) \|$", TEXT, flags=re.M))
    said = {row: set(re.findall(r"\[([CU]\d+[a-z]?)\]", cell)) for row, cell in rows.items()}
    expected: dict[str, set[str]] = {row: set() for row in said}
    places = {HOLDS: "Holds", FAILS: "Does not hold", OPEN: "Undecided, or not run yet"}
    for claim in ledger.claims:
        groups = {places[GROUPS[one.entry.verdict]] for one in ledger.said[claim.id]}
        without = {"Undecided, or not run yet" if claim.experiment else "Cannot be known here"}
        for group in groups or without:
            expected[group].add(claim.id)
    assert said == expected, "README's first table is not what the ledger says"
    for one in (one for claim in ledger.claims for one in ledger.said[claim.id]):
        if one.entry.low is not None and one.entry.high is not None:
            numbers = [page.number(value, "+.3f") for value in (one.entry.value, one.entry.low, one.entry.high)]
            assert "{}, {} to {}".format(*numbers) in TEXT.replace(" AUC,", ","), one.entry.id


def test_the_page_on_the_house_names_every_module_of_the_library():
    named = set(re.findall(r"`(\w+)/?`", (PROJECT / "docs" / "architecture.md").read_text()))
    modules = {path.stem for path in (PROJECT / "aunce").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert {name for name in modules if not name.startswith("__")} - {"py"} <= named


@pytest.mark.long
def test_the_commands_run_in_their_order(tmp_path):
    roots = {}
    for name, title in (("bp4d", "BP4D"), ("disfa", "DISFA")):
        roots[title] = tmp_path / name
        adapter(name).write(roots[title], subjects=12, frames=2, size=32)
    roots["swin-base"] = tmp_path / "weights"
    roots["swin-base"].mkdir()
    (roots["swin-base"] / "config.json").write_text(json.dumps(BACKBONES["swin-base"]))
    roots["RUN"], roots["PATH"] = str(prediction.tiny_run()), str(roots["DISFA"])
    shutil.copytree(PROJECT / "reports", tmp_path / "reports", ignore=shutil.ignore_patterns("runs"))
    for name in ("notebooks", "tools"):  # what README names by its path in the clone
        (tmp_path / name).symlink_to(PROJECT / name)
    places = {"AUNCE_DATA": str(tmp_path / "data"), "AUNCE_REPORTS": str(tmp_path / "reports")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = []
    for line in COMMANDS:
        command = in_a_test(line, roots)
        if command is None:
            continue
        # the command of this very package, wherever the installed one comes from
        command = re.sub(r"^aunce ", f"{sys.executable} -m aunce ", command)
        command = re.sub(r"^papermill ", f"{sys.executable} -m papermill ", command)
        result = subprocess.run(
            command, shell=True, cwd=tmp_path, env=os.environ | places | {"PATH": path}, capture_output=True, text=True
        )
        assert result.returncode == 0, f"{line}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
        done.append(line)
    assert len(done) >= len(COMMANDS) / 2
