"""A study on a real Slurm of two nodes, which tests/slurm/up starts where it can be started."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aunce.study.grid import load_study

UP = Path(__file__).parent / "slurm" / "up"
STUDY = """
[study]
title = "On Slurm"
question = "Does it end?"
report = "laptop"
[data]
subjects = 12
frames = 6
size = 32
[base]
pixels = 32
channels = 8
epochs = 60
checks = 2
probe_epochs = 5
[axes.arm]
"BCE" = { method = "bce" }
"SupCon" = { method = "supcon" }
"raw pixels" = { method = "pixels" }
"""


@pytest.fixture(scope="module")
def slurm():
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("Snakemake's plugin for Slurm is not installed: pip install -e '.[slurm]'")
    started = subprocess.run([UP], capture_output=True, text=True)
    if started.returncode == 3:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    yield
    subprocess.run([UP, "down"], check=True)


def jobs():
    """Job id -> name of the run or data set, of what Slurm has running."""
    words = ["squeue", "--noheader", "--states=running", "--format=%i|%k"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split("|", 1) for line in lines)


def wait_for(condition, what, seconds=600):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(1)


@pytest.mark.long
def test_a_study_survives_a_cancelled_job_and_the_death_of_who_submitted_it(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("AUNCE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AUNCE_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path / "reports")
    path = tmp_path / "slurm.toml"
    path.write_text(STUDY)
    study = load_study(str(path))
    command = [sys.executable, "-m", "aunce", "study", str(path), "--profile", "slurm"]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
        long = [run for run in study.runs if run.spec.trains]
        wait_for(
            lambda: first.poll() is not None or all((run.folder / "checkpoint").is_dir() for run in long),
            "two trainings side by side",
        )
        assert first.poll() is None, (tmp_path / "log").read_text()

        # One job is cancelled: the run that it did is not done and not taken for done.
        cancelled = next(run for run in long if run.state == "running")
        (number,) = [number for number, comment in jobs().items() if cancelled.key in comment]
        subprocess.run(["scancel", number], check=True)
        wait_for(lambda: cancelled.state != "running", "the cancelled run to end")
        assert cancelled.state == "to do"

        # Whoever submitted is killed: the other job goes on without it.
        other = next(run for run in long if run is not cancelled)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        wait_for(lambda: other.state == "done", "the job that nobody watches")

        assert subprocess.run(command, stdout=log, stderr=log, cwd=tmp_path).returncode == 0, (
            tmp_path / "log"
        ).read_text()
    assert [run.state for run in study.runs] == ["done"] * 3
    assert (study.folder / "index.html").is_file()
    assert "continues after epoch" in (cancelled.folder / "log.txt").read_text()
    assert not list(study.folder.glob(".engine-*"))
