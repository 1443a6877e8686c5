"""The command: messages and exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner
from finished import finish

from aunce import cli
from aunce.backbones import BACKBONES
from aunce.data import tiny
from aunce.model import build_encoder
from aunce.study import execution, guess
from aunce.study.grid import load_study

STUDY = """
[study]
title = "Tiny study"
question = "Does the path hold?"
report = "laptop"

[data]
subjects = 12
frames = 6
size = 32

[base]
pixels = 32
channels = 8
epochs = {epochs}
checks = 3
probe_epochs = 5

[axes]
replicate = [0]

[axes.arm]
"BCE" = {{ method = "bce" }}
"AUNCE" = {{ method = "aunce" }}
"raw pixels" = {{ method = "pixels" }}
"""


@pytest.fixture
def aunce():
    """Call the command in this process; returns its result."""
    return lambda *words: CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A study file whose data and reports stay in the test's folder, for this process and its children."""
    monkeypatch.setenv("AUNCE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AUNCE_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path / "reports")
    monkeypatch.setattr("aunce.cli.REPORTS", tmp_path / "reports")

    def project(epochs=1):
        path = tmp_path / "tiny.toml"
        path.write_text(STUDY.format(epochs=epochs))
        return path

    return project


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "aunce", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def numbers(study):
    """What the runs found, without time and place."""
    tables = {}
    for run in study.runs:
        for name in ("counts", "auc", "predictions"):
            tables[run.key, name] = pd.read_parquet(run.folder / f"{name}.parquet")
        tables[run.key, "history"] = pd.read_csv(run.folder / "history.csv").drop(columns="seconds")
    return tables


@pytest.mark.long
def test_a_study_killed_in_the_middle_continues_to_the_same_numbers(project, tmp_path, monkeypatch):
    path = project(epochs=12)
    subprocess.run([sys.executable, "-m", "aunce", "study", path], capture_output=True, check=True)
    whole = numbers(load_study(str(path)))

    monkeypatch.setenv("AUNCE_REPORTS", str(tmp_path / "killed"))
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path / "killed")
    study = load_study(str(path))
    running = start("study", path)
    logs = [run.folder / "log.txt" for run in study.runs]
    deadline = time.monotonic() + 120
    while not any(log.is_file() and "epoch 3/12" in log.read_text() for log in logs):
        assert time.monotonic() < deadline, "no run has come to its third epoch"
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert any(run.state != "done" for run in study.runs)
    finished = {run.key: (run.folder / "metrics.json").stat().st_mtime_ns for run in study.runs if run.state == "done"}
    subprocess.run([sys.executable, "-m", "aunce", "study", path], capture_output=True, check=True)
    assert all(run.state == "done" for run in study.runs)
    assert all((study.run(key).folder / "metrics.json").stat().st_mtime_ns == mtime for key, mtime in finished.items())
    assert any("continues after epoch" in (run.folder / "log.txt").read_text() for run in study.runs)
    continued = numbers(study)
    for name, table in whole.items():
        pd.testing.assert_frame_equal(continued[name], table, check_exact=True)


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["study", "laptopp"], 2, "no study 'laptopp'; known: across, affwild2, backbone"),
        (["study", "laptop", "--only", "arms=BCE", "--dry-run"], 2, "AXIS one of replicate, noise, arm"),
        (["report", "laptopp"], 2, "no report 'laptopp'; studies: across, affwild2, backbone"),
        (["report", "imbalance-again"], 2, "no report 'imbalance-again'; meant 'imbalance:again', which writes that"),
        (
            ["report", "laptopp"],
            2,
            "without runs: anatomy, audit, claims, looks, loss, reliability, simulation, speed, summary, index",
        ),
        (["report", "audit", "--set", "epochs=3"], 2, "needs no runs"),
        (["run", "laptop", "nothing"], 2, "has no run 'nothing'"),
        (["data", "check", "bp5d", "."], 2, "unknown data set 'bp5d'"),
        (["data", "check", "bp4d", "/nowhere"], 1, "/nowhere"),
        (["data", "pack", "bp4d", "/nowhere"], 1, "no such folder"),
        (["data", "synth", "bp4d", "/proc/nowhere"], 1, "/proc"),
        (["data", "synth", "bp4d", "faces", "--faces", "sculpted"], 2, "'sculpted' is not one of 'drawn', 'modelled'"),
        (["data", "synth", "bp4d", "faces", "--size", "8"], 2, "size is 8. Expected 16 to 512"),
    ],
)
def test_bad_input_gives_one_message_with_the_place_and_an_exit_code(aunce, words, code, expected):
    result = aunce(*words)
    assert result.exit_code == code
    assert expected in result.output
    assert "Traceback" not in result.output


def test_debug_shows_the_traceback(aunce):
    assert isinstance(aunce("--debug", "study", "laptopp").exception, Exception)


def test_dry_run_counts_runs_hours_and_disk_and_starts_nothing(aunce, project):
    result = aunce("study", project(), "--dry-run")
    assert result.exit_code == 0
    assert re.search(r"3 runs, 0 done, about \d+ s to go with \d side by side \(a guess\)", result.output)
    assert "GB of disk" in result.output
    assert not load_study(str(project())).folder.exists()


def test_the_guess_follows_backbone_pixels_epochs_frames_and_device(project, monkeypatch):
    monkeypatch.setattr(execution, "list_gpus", list)
    run = load_study(str(project())).runs[0]

    def guessed(frames=1000, **fields):
        weights, seconds = guess.costs(replace(run, spec=run.spec.model_copy(update=fields)), {"1": frames, "3": 9**9})
        return weights, seconds - guess.START_S

    large = {"backbone": "swin-base", "channels": 1024, "pixels": 224}
    small, _ = guessed()
    assert small == pytest.approx(
        4e-9 * sum(w.numel() for w in build_encoder("small", aus=12, channels=8, seed=0).parameters())
    )
    weights, seconds = guessed(**large)
    assert 0.34 < weights < 0.45  # 87 million weights of Swin-B in float32, and the heads of 12 AUs
    assert guessed(**large, epochs=3 * run.spec.epochs)[1] == pytest.approx(3 * seconds)
    assert guessed(2000, **large)[1] == pytest.approx(2 * seconds)
    assert guessed(**large | {"pixels": 256}, crop=224) == (weights, seconds)
    # 15.4e9 multiplications forward (Liu et al. 2021), three times that with the backward pass, two views
    operations = 2 * 3 * 2 * 15.4e9 * 1000 * run.spec.epochs
    assert seconds == pytest.approx(operations / guess.RATES["cpu"], rel=0.1)
    assert guessed(**large, device="cuda")[1] == pytest.approx(seconds * guess.RATES["cpu"] / guess.RATES["cuda"])
    assert guessed(method="pixels") == (0, 0)


def test_the_time_that_is_left_counts_gpus_which_a_run_leases(monkeypatch, project):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one = load_study(str(project())).runs[0]
    one = replace(one, spec=one.spec.model_copy(update={"threads": 1, "device": "auto"}))
    monkeypatch.setattr(guess, "cores", lambda: 16)
    monkeypatch.setattr(execution, "list_gpus", list)
    assert guess.at_once([one, one]) == 16
    monkeypatch.setattr(execution, "list_gpus", lambda: ["GPU-a", "GPU-b"])
    assert guess.at_once([one, one]) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # nothing is leased: as many share it as there are cores
    assert guess.at_once([one, one]) == 16


def test_with_folders_of_ones_own_a_study_of_several_data_sets_is_done_one_pair_at_a_time(aunce, project):
    project()
    roots = ["--root", tiny("bp4d", size=32), "--test-root", tiny("disfa", size=32)]
    one = aunce("study", "across", "--only", "pair=BP4D to DISFA", *roots, "--dry-run")
    assert one.exit_code == 0, one.output
    assert re.search(r"[1-9] runs, 0 done", one.output)
    for only in ([], ["--only", "pair=BP4D to GFT"]):
        refused = aunce("study", "across", *only, *roots, "--dry-run")
        assert refused.exit_code == 1
        assert "rendered faces in the layout of disfa. Expected" in refused.output
    swapped = ["--root", roots[3], "--test-root", roots[1]]
    wrong = aunce("study", "across", "--only", "pair=BP4D to DISFA", *swapped, "--dry-run")
    assert "Expected bp4d" in wrong.output
    half = aunce("study", "across", "--only", "pair=BP4D to DISFA", *roots[:2], "--dry-run")
    assert half.exit_code == 2
    assert "would be rendered; name its folder with --test-root" in half.output


def test_whole_frames_of_a_real_data_set_are_not_taken_for_faces(aunce, project, tmp_path):
    project()
    root = tiny("disfa", size=32)
    (root / "synthetic.json").unlink()
    refused = aunce("study", project(), "--set", "dataset=disfa", "--root", root, "--dry-run")
    assert refused.exit_code == 2
    assert "add --set align=landmarks" in refused.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "epoch=1"], "--set epoch=1: there is no field 'epoch'; did you mean 'epochs'?"),
        (["--set", "zzzz=1"], "there is no field 'zzzz'; the fields are align, "),
        (
            ["--set", "backbone=/no/such/folder"],
            "backbone '/no/such/folder': no folder with a config.json; bundled are",
        ),
        (["--set", "backbone={folder}"], "cannot be read as a vision model"),
        (["--set", "backbone=swin-bas"], "backbone 'swin-bas': no folder with a config.json; bundled are small"),
        (["--set", "crop=64"], "crop = 64 does not fit into pixels = 32"),
        (["--profile", "lap"], "--profile lap: no folder with a config.yaml"),
    ],
)
def test_what_no_run_could_do_is_refused_before_anything_starts(aunce, project, tmp_path, words, message):
    (tmp_path / "config.json").write_text("{}")
    result = aunce("study", project(), *(word.replace("{folder}", str(tmp_path)) for word in words))
    assert result.exit_code == 2
    assert message in result.output


def test_folders_may_be_named_from_where_one_stands(aunce, project, tmp_path, monkeypatch):
    """The engine and the runs work elsewhere."""
    (tmp_path / "swin").mkdir()
    (tmp_path / "swin" / "config.json").write_text(json.dumps(BACKBONES["small"]))
    monkeypatch.chdir(tmp_path)
    seen = {}
    monkeypatch.setattr("aunce.study.engine.execute_all", lambda plan, runs, profile: seen.update(runs=runs, plan=plan))
    aunce("study", project(), "--set", "backbone=swin")
    assert {run.spec.backbone for run in seen["runs"]} == {str(tmp_path / "swin")}


def test_a_study_whose_data_cannot_be_made_says_so_once(aunce, project, monkeypatch):
    monkeypatch.setattr("aunce.study.engine.execute_all", lambda plan, runs, profile: False)
    result = aunce("study", project())
    assert result.exit_code == 1
    assert "the data of these runs could not be made, see above; no run was started" in result.output
    assert "writing the report" not in result.output


def test_a_call_with_other_settings_that_does_nothing_leaves_the_report_of_the_others(aunce, project, monkeypatch):
    path = project()
    done, other = load_study(str(path)), load_study(str(path), {"epochs": 3})
    finish(done.runs[0])
    (done.folder / "report.md").write_text("as it was")

    def fail(plan, runs, profile):
        other.runs[0].folder.mkdir(parents=True, exist_ok=True)
        (other.runs[0].folder / "error.json").write_text("{}")
        return False

    monkeypatch.setattr("aunce.study.engine.execute_all", fail)
    result = aunce("study", path, "--set", "epochs=3")
    assert result.exit_code == 1
    assert "no run with these settings was done; the report is as it was, of others" in result.output
    assert f"aunce status {path} --set epochs=3" in result.output
    assert (done.folder / "report.md").read_text() == "as it was"


def test_ctrl_c_says_that_nothing_is_lost(aunce, project, monkeypatch):
    def interrupted(plan, runs, profile):
        raise KeyboardInterrupt

    monkeypatch.setattr("aunce.study.engine.execute_all", interrupted)
    result = aunce("study", project())
    assert result.exit_code == 130
    assert "stopped; what is done is kept, and the same command goes on" in result.output


def test_status_lists_every_run_with_its_state_and_reason(aunce, project):
    study = load_study(str(project()))
    study.runs[0].folder.mkdir(parents=True)
    (study.runs[0].folder / "error.json").write_text(json.dumps({"message": "no memory"}))
    result = aunce("status", study.path)
    assert "0 done, 0 running, 1 failed, 2 to do" in result.output
    assert f"failed   {study.runs[0].key}  no memory" in result.output


def test_status_says_why_how_fast_and_what_is_at_work_until_all_is_done(aunce, project, monkeypatch):
    study = load_study(str(project()))
    failed, running, last = study.runs
    for run in study.runs:
        run.folder.mkdir(parents=True)
    error = {"message": "\x1b[31mthe kernel\n died.\x07", "remedy": "Use a smaller batch_size."}
    (failed.folder / "error.json").write_text(json.dumps(error))
    (running.folder / "log.txt").write_text("epoch 1/9\nepoch 2/9  loss .3\n\n")
    finish(last, seconds=90)
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        for run in study.runs:
            finish(run, seconds=90)

    monkeypatch.setattr(cli.time, "sleep", sleep)
    with running.lock:
        result = aunce("status", study.path, "--watch")
    assert result.exit_code == 0
    first, second = result.output.split("Tiny study: ")[1:]
    assert first.startswith("1 done, 1 running, 1 failed, 0 to do; 1 in the last hour; about 2 min left with 1 side by")
    assert f"failed   {failed.key}  [31mthe kernel died. Use a smaller batch_size." in first
    assert f"running  {running.key}  epoch 2/9 loss .3" in first
    assert second.startswith("3 done, 0 running, 0 failed, 0 to do; 3 in the last hour\n")
    assert len(looks) == 1


def test_report_without_runs_says_what_to_do(aunce, project):
    result = aunce("report", project())
    assert result.exit_code == 2
    assert "no tables" in result.output


def test_a_report_with_other_settings_than_its_runs_is_refused_and_the_tables_stay(aunce, project, tmp_path):
    path = project()
    folder = tmp_path / "reports" / "tiny"
    (folder / "runs" / "other-0123abcd").mkdir(parents=True)
    (folder / "runs" / "other-0123abcd" / "metrics.json").write_text("{}")
    (folder / "counts.parquet").write_bytes(b"kept")
    result = aunce("report", path)
    assert result.exit_code == 2
    assert "none of the 1 finished runs" in result.output
    assert (folder / "counts.parquet").read_bytes() == b"kept"


def test_the_ledger_and_the_index_need_no_runs(aunce, project, tmp_path):
    project()
    ledger = aunce("report", "claims")
    assert ledger.exit_code == 0, ledger.output
    assert ledger.output.strip() == str(tmp_path / "reports" / "claims" / "index.html")
    assert "not run yet" in (tmp_path / "reports" / "claims" / "report.md").read_text()
    assert "(claims/report.md)" in (tmp_path / "reports" / "README.md").read_text()
    (tmp_path / "reports" / "README.md").unlink()
    index = aunce("report", "index")
    assert index.output.strip() == str(tmp_path / "reports" / "index.html")
    assert (tmp_path / "reports" / "README.md").is_file()


def test_a_report_stands_if_the_findings_of_another_one_are_broken(aunce, project, tmp_path):
    project()
    (tmp_path / "reports" / "other").mkdir(parents=True)
    (tmp_path / "reports" / "other" / "findings.json").write_text("{")
    cli.draw_index(tmp_path / "reports")
    assert not (tmp_path / "reports" / "README.md").exists()
    assert aunce("report", "index").exit_code == 2


def test_synth_check_and_pack_are_one_path(aunce, tmp_path, monkeypatch):
    monkeypatch.setenv("AUNCE_DATA", str(tmp_path / "cache"))
    root = tmp_path / "faces"
    assert aunce("data", "synth", "bp4d", root, "--subjects", 3, "--frames", 2, "--size", 32).exit_code == 0
    card = aunce("data", "check", "bp4d", root)
    assert card.exit_code == 0
    assert "frames: 48" in card.output
    packed = aunce("data", "pack", "bp4d", root, "--pixels", 32)
    assert packed.exit_code == 0
    assert "48 crops of 32 px" in packed.output
    (root / "AUCoding" / "AU_OCC" / "F001_T1.csv").write_text("0,1\n1")
    broken = aunce("data", "check", "bp4d", root)
    assert broken.exit_code == 1
    assert "F001_T1.csv" in broken.output


def test_settings_of_ones_own_do_not_replace_a_report_whose_runs_are_not_here(aunce, project, monkeypatch):
    monkeypatch.setattr("aunce.study.engine.execute_all", lambda plan, runs, profile: pytest.fail("runs were started"))
    study = load_study(str(project()))
    study.folder.mkdir(parents=True)
    (study.folder / "provenance.json").write_text("{}")
    result = aunce("study", study.path, "--set", "epochs=3")
    assert result.exit_code == 2
    assert "these settings would replace it" in result.output
    assert "AUNCE_REPORTS=FOLDER" in result.output
