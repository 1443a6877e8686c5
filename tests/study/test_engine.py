"""The engine: which runs share a job, and what it leaves behind; that it ends what it started is in test_faults.py."""

import pytest
from faults.harness import stand_in

from aunce.study import engine
from aunce.study.grid import load_study

STUDY = """
[study]
title = "Many"
question = "How many?"
report = "laptop"
[data]
subjects = 12
frames = 6
size = 32
[base]
pixels = 32
channels = 8
epochs = 400
threads = 1
[axes]
replicate = [{replicates}]
"""


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A study of so many runs, whose data and reports stay in the test's folder."""
    monkeypatch.setenv("AUNCE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AUNCE_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path / "reports")

    def many(runs, rest=""):
        path = tmp_path / "many.toml"
        path.write_text(STUDY.format(replicates=", ".join(map(str, range(runs)))) + rest)
        return load_study(str(path))

    return many


@pytest.mark.parametrize("runs", [1, 300, 301, 1000])
def test_each_run_is_in_one_job_and_there_are_never_more_than_three_hundred(many, runs):
    study = many(runs)
    jobs = engine.plan(study, study.runs)["jobs"]
    assert [key for job in jobs.values() for key in job["keys"]] == [run.key for run in study.runs]
    assert len(jobs) <= 300
    if runs <= 300:
        assert list(jobs) == [run.key for run in study.runs]
    for job in jobs.values():
        assert set(job["data"]) == {data.name for key in job["keys"] for data in study.run(key).data}


def test_a_pretext_is_a_job_that_others_wait_for(many):
    study = many(400, '\n[axes.arm]\nx = { pretext = true }\n[pretext]\nmethod = "infonce"\nreplicate = 999\n')
    jobs = engine.plan(study, study.runs)["jobs"]
    (pretext,) = study.pretexts
    first, *others = jobs.values()
    assert first["keys"] == [pretext.key]
    assert all(job["jobs"] == [pretext.key] and job["priority"] < first["priority"] for job in others)


def test_the_logs_of_jobs_that_failed_stay_until_the_next_call(many, tmp_path):
    study = many(1)
    with stand_in(tmp_path / "fails", "raise SystemExit(1)"):
        assert not engine.execute_all(study, study.runs, "laptop")
    (left,) = study.folder.glob(".engine-*")
    assert list((left / ".snakemake" / "log").iterdir())
    with stand_in(tmp_path / "does", ""):
        assert engine.execute_all(study, study.runs, "laptop")
    assert not list(study.folder.glob(".engine-*"))
    left.mkdir()
    assert engine.execute_all(study, [], "laptop")  # nothing is to be done any more
    assert not list(study.folder.glob(".engine-*"))


@pytest.mark.parametrize("profile", ["laptop", "gpus"])
def test_when_one_run_fails_the_others_go_on(many, tmp_path, profile):
    study = many(4)
    first = study.runs[0].key
    note = f"import sys\nopen({str(tmp_path / 'heard')!r}, 'a').write(sys.argv[-1] + '\\n')\n"
    note += f"sys.exit(sys.argv[-1] == {first!r})\n"
    with stand_in(tmp_path / "stand-in", note):
        assert not engine.execute_all(study, study.runs, profile)
    assert {run.key for run in study.runs} <= set((tmp_path / "heard").read_text().split())


@pytest.mark.parametrize("profile", ["laptop", "gpus"])
def test_a_profile_of_one_machine_does_all_jobs(many, tmp_path, profile):
    study = many(3)
    note = f"import sys\nopen({str(tmp_path / 'heard')!r}, 'a').write(sys.argv[-1] + '\\n')\n"
    with stand_in(tmp_path / "stand-in", note):
        assert engine.execute_all(study, study.runs, profile)
    heard = (tmp_path / "heard").read_text().split()
    assert sorted(heard) == sorted([run.key for run in study.runs] + [run.data[0].name for run in study.runs])
