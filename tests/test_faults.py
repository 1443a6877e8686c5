"""A whole study from rendered faces to a page, and that nothing is lost: kills, two at once, GPUs that several want."""

import os
import re
import subprocess
import sys
import time
from unittest import mock

import pandas as pd
import pytest
import safetensors.torch
import torch
from faults import harness

from aunce import methods
from aunce.study import results
from aunce.study.execution import make_data
from aunce.study.grid import WEIGHTS


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A study some of whose processes were struck by signals, done to its end; and the strikes."""
    return harness.interrupted(tmp_path_factory.mktemp("killed") / "study", strikes=5, seed=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that nobody interrupted."""
    trial = harness.Trial(tmp_path_factory.mktemp("whole") / "study")
    assert trial.finish() == 0, (trial.folder / "log").read_text()
    return trial


def check(trial):
    assert [run.state for run in trial.runs] == ["done"] * 3
    assert trial.repeated() == []
    assert trial.orphans() == []
    assert trial.left() == []


def test_a_study_that_was_killed_here_and_there_ends_with_its_page(killed):
    trial, strikes = killed
    assert len(strikes) >= 4
    check(trial)
    page = trial.report / "index.html"
    assert (trial.folder / "log").read_text().splitlines()[-1] == str(page)
    assert "Rendered faces" in page.read_text()
    assert not re.search(r"""(src|href)=["']https?:""", page.read_text())
    assert "Tiny study" in (trial.report.parent / "README.md").read_text()
    assert set(pd.read_parquet(trial.report / "runs.parquet")["status"]) == {"done"}


def test_its_numbers_are_those_of_a_training_without_engine_notebook_and_kill(killed, tmp_path):
    trial, _ = killed
    torch.set_num_threads(1)
    for run in trial.runs:
        with mock.patch.dict(os.environ, AUNCE_DATA=str(tmp_path)):
            [folder] = [make_data(data, workers=1) for data in run.data]  # rendered anew, too
        spec = run.spec.model_copy(update={"root": str(folder)})
        pack = methods.crops(spec)
        split = pack.table.split(spec.test_part, seed=spec.replicate)
        labels = pack.table.labels
        trained = methods.train(spec, pack, split, labels, folder=tmp_path / run.key, log=lambda line: None)
        scores = results.predictions(pack.table, split.test, labels, labels, trained.monitor.scores["last"])
        kept = pd.read_parquet(run.folder / "predictions.parquet")
        pd.testing.assert_series_equal(kept["score"], scores["score"], check_exact=True)
        if spec.trains:
            kept, history = (
                table.drop(columns="seconds") for table in (pd.read_csv(run.folder / "history.csv"), trained.history)
            )
            pd.testing.assert_frame_equal(kept, history, check_exact=True, check_dtype=False)
            weights = safetensors.torch.load_file(run.folder / WEIGHTS)
            assert weights.keys() == trained.encoder.state_dict().keys()
            assert all(torch.equal(weights[name], tensor) for name, tensor in trained.encoder.state_dict().items())


@pytest.mark.long
def test_a_study_is_done_once_only(whole):
    said = (whole.folder / "log").read_text()
    assert re.search(r"\[3/3\] .*left", said)
    assert whole.finish() == 0
    assert "3 done" in (whole.folder / "log").read_text().removeprefix(said)
    check(whole)


@pytest.mark.long
def test_sixty_strikes(whole, tmp_path):
    strikes = 0
    for seed in range(1, 21):  # more than 8 where processes end before their moment
        trial, rows = harness.interrupted(tmp_path / str(seed), strikes=8, seed=seed)
        strikes += len(rows)
        check(trial)
        assert trial.differing(whole) == []
        if strikes >= 60:
            break
    assert strikes >= 60


@pytest.mark.long
def test_two_at_once_do_each_run_once(whole, tmp_path):
    trial = harness.Trial(tmp_path / "study")
    trial.start()
    first = trial.process
    trial.start()
    while trial.look() or first.poll() is None:
        time.sleep(0.1)
    assert (first.returncode, trial.process.returncode) == (0, 0), (trial.folder / "log").read_text()
    check(trial)
    assert trial.differing(whole) == []


@pytest.mark.long
def test_three_studies_at_once_share_one_data_set(whole, tmp_path):
    trials = [harness.Trial(tmp_path / str(number)) for number in range(3)]
    for trial in trials:
        trial.places["AUNCE_DATA"] = str(tmp_path / "data")
        trial.start()
    while any([trial.look() for trial in trials]):
        time.sleep(0.1)
    for trial in trials:
        assert trial.process.returncode == 0, (trial.folder / "log").read_text()
        check(trial)
        assert trial.differing(whole) == []
    assert len(list((tmp_path / "data").glob("*/pack"))) == 1


@pytest.mark.long
def test_a_clock_that_was_set_back_loses_nothing_and_does_nothing_twice(whole, tmp_path):
    trial = harness.Trial(tmp_path / "study")
    assert trial.finish() == 0
    done, again = trial.runs[1:], trial.runs[0]
    (again.folder / "metrics.json").unlink()
    left = {run.key: (run.folder / "metrics.json").read_bytes() for run in done}
    tomorrow = time.time() + 86400
    for path in [trial.folder, *trial.folder.rglob("*")]:
        os.utime(path, (tomorrow, tomorrow))
    assert trial.finish() == 0, (trial.folder / "log").read_text()
    assert {run.key: (run.folder / "metrics.json").read_bytes() for run in done} == left
    assert [run.state for run in trial.runs] == ["done"] * 3
    assert trial.differing(whole) == []
    assert trial.left() == []


NVIDIA = """#!/bin/sh
echo "GPU 0: Fake (UUID: GPU-aaaaaaaa-0000)"
echo "GPU 1: Fake (UUID: GPU-bbbbbbbb-1111)"
"""
USE = """
import os, pathlib, sys, time
from aunce.study.execution import gpu_lease
with gpu_lease("cuda"):
    mine = pathlib.Path(sys.argv[1], os.environ["CUDA_VISIBLE_DEVICES"])
    mine.mkdir()  # fails if somebody else is here
    print(mine.name, flush=True)
    time.sleep(float(sys.argv[2]))
    mine.rmdir()
"""


@pytest.fixture
def use_gpu(tmp_path):
    """Starts a process that holds one of two GPUs for so many seconds."""
    (tmp_path / "nvidia-smi").write_text(NVIDIA)
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "gpus").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", USE, str(tmp_path / "gpus")]

    def use_gpu(seconds, **more):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*command, str(seconds)], env=environment | more, **pipes)

    return use_gpu


def test_eight_runs_share_two_gpus_and_never_meet(use_gpu):
    users = [use_gpu(0.2) for _ in range(8)]
    for user in users:
        _, errors = user.communicate(timeout=300)
        assert user.returncode == 0, errors


def test_a_dead_holder_frees_its_gpu_and_a_gpu_that_was_chosen_is_not_leased(use_gpu, tmp_path):
    holders = [use_gpu(600), use_gpu(600)]
    names = [holder.stdout.readline().strip() for holder in holders]
    assert sorted(names) == ["GPU-aaaaaaaa-0000", "GPU-bbbbbbbb-1111"]
    chosen = use_gpu(0, CUDA_VISIBLE_DEVICES="7")
    assert chosen.communicate(timeout=300)[0] == "7\n"  # though both GPUs are held
    waits = use_gpu(0)
    holders[0].kill()
    holders[0].communicate()
    (tmp_path / "gpus" / names[0]).rmdir()
    assert waits.communicate(timeout=300)[0] == f"{names[0]}\n"
    holders[1].kill()
    holders[1].communicate()
