"""Executing runs: failures that must be told, work that must not be done twice. Notebooks are stubs, no training."""

import errno
import json
import os
import re
import threading

import nbformat
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError

from aunce.data import bp4d, load, pack_faces, tiny
from aunce.data.images import open_pack
from aunce.data.recipes import Recipe
from aunce.errors import RunError, UsageError, machine_remedy
from aunce.processes import lives
from aunce.study import execution
from aunce.study.grid import Data, load_study
from aunce.study.spec import RunSpec

SAVE = """import json, pathlib
metrics = {"duration_s": 1, "spec": {"learning_rate": learning_rate}, "data": {}, "provenance": {}}
pathlib.Path(out, "counts.parquet").write_text(str(learning_rate))
pathlib.Path(out, "metrics.json.partial").write_text(json.dumps(metrics))"""
STUDY = """
[study]
title = "Stub"
question = "Stub?"
notebook = "stub"
report = "stub"
[axes]
learning_rate = [1e-3, 2e-3]
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A study whose run notebook has the given last cell, in a folder with braces in its name."""
    folder = tmp_path / "{a} b"
    folder.mkdir()
    monkeypatch.setattr("aunce.study.grid.REPORTS", folder / "reports")
    for module in ("aunce.study.grid", "aunce.study.execution"):
        monkeypatch.setattr(f"{module}.NOTEBOOKS", folder)
    monkeypatch.setattr(execution, "make_data", lambda data, workers: folder)

    def stub(last_cell):
        parameters = nbformat.v4.new_code_cell(
            "\n".join(f"{k} = {v!r}" for k, v in RunSpec()), metadata={"tags": ["parameters"]}
        )
        cells = [parameters, nbformat.v4.new_code_cell("print('working')"), nbformat.v4.new_code_cell(last_cell)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "stub.ipynb")
        (folder / "stub.toml").write_text(STUDY)
        return load_study(str(folder / "stub.toml"))

    return stub


def test_a_run_gets_its_parameters_and_is_done_once(stub):
    study = stub(SAVE)
    run = study.runs[1]
    assert execution.execute(study, run)
    assert run.reach().metrics["spec"]["learning_rate"] == 2e-3
    assert "working" in (run.folder / "log.txt").read_text()
    assert (run.folder / "notebook.ipynb").is_file()
    written = (run.folder / "metrics.json").stat().st_mtime_ns
    assert not execution.execute(study, run)
    assert (run.folder / "metrics.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_starts_no_run(stub, number, monkeypatch):
    study = stub(SAVE)

    def refuse(*_arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        execution.execute(study, study.runs[0])
    assert not (study.runs[0].folder / "metrics.json").exists()
    assert "local disk" in machine_remedy(os.strerror(number), number)


def test_a_failing_cell_leaves_notebook_log_and_error_but_no_metrics(stub):
    study = stub("raise ValueError('no <b>faces</b> here')")
    run = study.runs[0]
    with pytest.raises(RunError, match="no <b>faces</b> here"):
        execution.execute(study, run)
    error = run.reach().error
    assert error["cause"] == "ValueError"
    assert error["remedy"]
    assert "Traceback" in error["traceback"]
    assert run.state == "failed"
    assert (run.folder / "notebook.ipynb").is_file()


def test_after_a_failure_the_run_can_be_done(stub):
    study = stub("raise ValueError('once')")
    with pytest.raises(RunError):
        execution.execute(study, study.runs[0])
    study = stub(SAVE)
    assert execution.execute(study, study.runs[0])
    assert study.runs[0].state == "done"
    assert not (study.runs[0].folder / "error.json").exists()


def test_a_checkpoint_stays_until_the_run_is_done(stub):
    checkpoint = stub("pass").runs[0].folder / "checkpoint"
    checkpoint.mkdir(parents=True)
    study = stub("pass")
    with pytest.raises(RunError, match="without saving its metrics"):
        execution.execute(study, study.runs[0])
    assert checkpoint.is_dir()
    study = stub(SAVE)
    assert execution.execute(study, study.runs[0])
    assert not checkpoint.exists()


FAIL = """import os, pathlib, signal, subprocess, time
tries = pathlib.Path(out, "tries")
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) <= {times}:
    pathlib.Path(out, "child").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    {how}
"""


@pytest.mark.parametrize(
    ("name", "value", "cause", "remedy"),
    [
        ("MemoryError", "Unable to allocate 9.0 TiB for an array", "memory ran out", "batch_size"),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory", "memory ran out", "fewer runs at once"),
        ("ImportError", "a.so: failed to map segment from shared object", "memory ran out", "ulimit -v"),
        ("OSError", "[Errno 24] Too many open files: 'images.npy'", "OSError", "ulimit -n"),
        ("OSError", "[Errno 37] No locks available: '.lock'", "OSError", "local disk"),
    ],
)
def test_limits_of_the_machine_are_named_with_their_remedy(name, value, cause, remedy):
    error = PapermillExecutionError(3, 3, "", name, value, [])
    assert execution.describe(error)["cause"] == cause
    assert remedy in execution.describe(error)["remedy"]


@pytest.mark.parametrize(
    ("how", "times", "cause", "remedy"),
    [
        ("os._exit(138)", 2, "the kernel died", "memory"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 1, "the kernel died", "memory"),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", 2, "GPU memory ran out", "batch_size"),
        pytest.param("time.sleep(600)", 2, "the time limit", "limit_minutes", marks=pytest.mark.long),
    ],
    ids=["exit", "kill", "gpu memory", "hang"],
)
def test_what_may_pass_is_tried_once_more_and_said_in_words(stub, how, times, cause, remedy):
    study = stub(FAIL.format(how=how, times=times) + SAVE)
    if "sleep" in how:
        study.path.write_text(STUDY.replace("[axes]", "limit_minutes = 0.1\n[axes]"))
    study = load_study(str(study.path))
    run = study.runs[0]
    before = psutil.Process().children()
    if times == 1:
        assert execution.execute(study, run)
        assert run.state == "done"
        assert not (run.folder / "error.json").exists()
    else:
        with pytest.raises(RunError):
            execution.execute(study, run)
        error = run.reach().error
        assert (error["cause"], error["tries"]) == (cause, 2)
        assert remedy in error["remedy"]
        assert run.state == "failed"
    assert len((run.folder / "tries").read_text()) == 2
    assert psutil.Process().children() == before
    child = int((run.folder / "child").read_text())
    assert not psutil.pid_exists(child) or not lives(psutil.Process(child))


def test_two_at_once_execute_a_run_once(stub, monkeypatch):
    study = stub(SAVE)
    calls, results = [], []

    def slow(source, target, parameters, *, log, limit_s):
        calls.append(target)
        threading.Event().wait(0.3)
        metrics = {"duration_s": 1, "spec": {}, "data": {}, "provenance": {}}
        (study.runs[0].folder / "metrics.json.partial").write_text(json.dumps(metrics))

    monkeypatch.setattr(execution, "execute_notebook", slow)
    # A lock of its own for each: as two processes have.
    runs = [load_study(str(study.path)).runs[0] for _ in range(3)]
    threads = [threading.Thread(target=lambda run=run: results.append(execution.execute(study, run))) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert sorted(results) == [False, False, True]


def test_never_two_runs_on_one_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(execution, "list_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setenv("AUNCE_TEMPORARY", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with execution.gpu_lease("auto"):
        first = os.environ.pop("CUDA_VISIBLE_DEVICES")
        with execution.gpu_lease("auto"):
            assert {first, os.environ["CUDA_VISIBLE_DEVICES"]} == {"GPU-a", "GPU-b"}
        os.environ["CUDA_VISIBLE_DEVICES"] = first
    with execution.gpu_lease("auto"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_gpu_that_a_scheduler_chose_is_kept(monkeypatch):
    monkeypatch.setattr(execution, "list_gpus", lambda: ["GPU-a"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with execution.gpu_lease("auto"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


def test_asking_for_a_gpu_where_none_is(monkeypatch):
    monkeypatch.setattr(execution, "list_gpus", list)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(UsageError, match="no GPU"), execution.gpu_lease("cuda"):
        pass
    with execution.gpu_lease("auto"):
        pass


def test_the_pretext_is_done_first_and_its_weights_are_handed_on(stub):
    study = stub(SAVE.replace('"data": {}', '"data": {"start": start, "method": method}'))
    pretext = '\n[pretext]\nmethod = "infonce"\nreplicate = 9\n[base]\npretext = true\n'
    study.path.write_text(study.path.read_text() + pretext)
    study = load_study(str(study.path))
    first, second = study.runs
    execution.execute(study, first)
    [start] = study.pretexts
    assert start.state == "done"
    assert start.reach().metrics["data"]["method"] == "infonce"
    assert first.reach().metrics["data"]["start"] == str(start.folder / "encoder.safetensors")
    written = (start.folder / "metrics.json").stat().st_mtime_ns
    execution.execute(study, second)
    assert (start.folder / "metrics.json").stat().st_mtime_ns == written


def test_a_run_gets_the_packs_of_its_populations_in_their_order(stub, monkeypatch):
    study = stub(SAVE.replace('"data": {}', '"data": {"root": root, "others": other_roots, "test_root": test_root}'))
    table = '\n[data]\npopulations = 2\n[data.targets]\n"modelled:disfa" = {}\n'
    study.path.write_text(study.path.read_text() + table)
    monkeypatch.setattr(execution, "make_data", lambda data, workers: data.name)
    study = load_study(str(study.path))
    run = study.runs[0]
    execution.execute(study, run)
    names = [data.name for data in run.data]
    assert len(set(names)) == 5
    assert run.reach().metrics["data"] == {"root": names[0], "others": names[1:], "test_root": ""}


def test_populations_are_rendered_once_for_all_methods_and_a_killed_rendering_is_finished(tmp_path, monkeypatch):
    monkeypatch.setenv("AUNCE_DATA", str(tmp_path / "data"))
    path = tmp_path / "small.toml"
    path.write_text(
        STUDY.replace('notebook = "stub"\nreport = "stub"', 'report = "laptop"')
        + "[data]\nsubjects = 6\nframes = 2\nsize = 32\npopulations = 1\nvalidation_subjects = 6\n"
    )
    first, second = load_study(str(path)).runs

    def killed(done, total):
        raise KeyboardInterrupt

    for data in first.data:
        place = tmp_path / "data" / data.name / "raw"
        with pytest.raises(KeyboardInterrupt):
            bp4d.write(place, seed=data.seed, **data.render, progress=killed)
        assert not (place / "synthetic.json").exists()
        whole = pack_faces("bp4d", _rendered(tmp_path / "whole", data), tmp_path / f"{data.name}", recipe=Recipe(48))
        assert open_pack(execution.make_data(data, workers=1)).hash == whole.hash
    monkeypatch.setattr("aunce.data.renderer", None)  # nothing is left to be rendered
    packs = [[execution.make_data(data, workers=1) for data in run.data] for run in (first, second)]
    assert packs[0] == packs[1]
    assert len(set(packs[0])) == 3


def _rendered(folder, data):
    bp4d.write(folder / data.name, seed=data.seed, **data.render)
    return folder / data.name


def test_images_that_come_or_go_after_their_crops_were_made_are_seen_once_a_study(tmp_path, monkeypatch):
    monkeypatch.setenv("AUNCE_DATA", str(tmp_path))
    root = tiny("bp4d", size=32)
    (root / "synthetic.json").unlink()  # no rendered one any more
    image = root / load("bp4d", root).frames["image"].iloc[0]
    kept = image.read_bytes()
    image.unlink()
    data = Data("bp4d", str(root), {}, 0, "", {"size": 32, "align": "none", "detector": "cascade"})
    folder = execution.make_data(data, workers=1, look=True)
    assert len(open_pack(folder).table.missing_images) == 1
    image.write_bytes(kept)
    assert execution.make_data(data, workers=1) == folder  # a run takes what its study has looked at
    with pytest.raises(UsageError, match=r"holds a pack of other frames, labels, images or crops.*remove this one"):
        execution.make_data(data, workers=1, look=True)
