"""What a run has reached: whatever is damaged is said, and nothing that a file holds ends in a traceback."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from finished import finish

from aunce.study.spec import RunSpec
from aunce.study.state import read_state, seal, set_aside

KEY = "bce-01234567"
LEFT = ["auc.parquet", "counts.parquet", "encoder.safetensors", "history.csv", "notebook.ipynb"]


def reach(folder, **fields):
    return read_state(folder, KEY, RunSpec(**fields).content)


@pytest.fixture
def folder(tmp_path):
    """Of a finished run."""
    folder = tmp_path / KEY
    folder.mkdir()
    for name in LEFT:
        (folder / name).write_bytes(name.encode() * 9)
    (folder / "log.txt").write_text("epoch 1")
    finish(SimpleNamespace(folder=folder, key=KEY, spec=RunSpec()), val_auc=0.5, flat=None)
    return folder


def test_a_run_that_nobody_touched_is_done_and_checked(folder):
    state = reach(folder)
    assert (state.name, state.checked, state.why) == ("done", True, "")
    assert sorted(state.metrics["files"]) == LEFT
    with (folder / "log.txt").open("a") as log:
        log.write("epoch 2")
    assert reach(folder).name == "done"


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("how", ["flip", "cut", "gone", "folder"])
def test_every_file_that_is_not_what_the_run_left_is_named(folder, name, how):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if how == "flip":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "folder":
        path.mkdir()
    state = reach(folder)
    assert state.name == "damaged"
    assert name in state.why
    assert read_state(folder, KEY, hashes=False).name == ("done" if how == "flip" else "damaged")


def test_results_of_another_run_are_not_taken_for_this_one(folder, tmp_path):
    other = tmp_path / "bce-76543210"
    shutil.copytree(folder, other)
    finish(SimpleNamespace(folder=other, key=other.name, spec=RunSpec(epochs=9)))
    for name in ("metrics.json", "counts.parquet"):
        shutil.copy(other / name, folder / name)
    assert "another run, 'bce-76543210'" in reach(folder).why
    finish(SimpleNamespace(folder=folder, key=KEY, spec=RunSpec(epochs=9)))
    assert "epochs = 9, and this run has 2" in reach(folder).why


DAMAGED = {
    "empty": b"",
    "cut": b'{"key": "a',
    "null": b"null",
    "list": b"[1, 2]",
    "no text": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "text for a number": b'{"duration_s": "4"}',
    "infinite": b'{"key": "k", "spec": {}, "data": {}, "provenance": {}, "duration_s": Infinity}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_no_content_of_metrics_or_error_ends_in_a_traceback(folder, content):
    (folder / "metrics.json").write_bytes(content)
    assert reach(folder).name == "damaged"
    (folder / "metrics.json").unlink()
    (folder / "error.json").write_bytes(content)
    state = reach(folder)
    assert state.name == "failed"
    assert state.why or state.error == {"duration_s": "4"} or "duration_s" in state.error


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("data", "entering_aus", ["<b>"]), ("data", "null_aus", ["28"]), ("provenance", "threads", "<b>1</b>")],
)
def test_numbers_that_a_page_shows_are_numbers_in_runs_without_hashes_too(folder, part, name, value):
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics[part][name] = value
    del metrics["files"], metrics["sha256"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert reach(folder).why == f"metrics.json has no valid '{name}'"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("name", ["metrics.json", "counts.parquet"])
def test_a_run_that_the_machine_cannot_read_now_is_not_damaged(folder, name, number, monkeypatch):
    def refuse(path, *_arguments, **_options):
        raise OSError(number, os.strerror(number), str(path))

    if name == "metrics.json":
        monkeypatch.setattr(Path, "read_bytes", refuse)
    else:
        monkeypatch.setattr("aunce.study.state._hash", refuse)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        reach(folder)


def test_a_number_that_was_changed_in_the_metrics_is_seen(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"val_auc": 0.99}))
    assert reach(folder).why == "metrics.json is not what the run left"


def test_a_run_without_hashes_is_read_and_said_to_be_unchecked(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["files"], metrics["sha256"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    state = reach(folder)
    assert (state.name, state.checked) == ("done", False)
    (folder / "auc.parquet").unlink()
    assert reach(folder).why == "auc.parquet not there"


@pytest.mark.parametrize("name", ["metrics.json", "error.json", ".lock"])
@pytest.mark.parametrize("how", ["folder", "broken link"])
def test_folders_and_links_in_the_place_of_a_file_are_said_and_set_aside(folder, name, how):
    path = folder / name
    path.unlink(missing_ok=True)
    (folder / "metrics.json").unlink(missing_ok=True)
    if how == "folder":
        (path / "inside").mkdir(parents=True)
    else:
        path.symlink_to(folder / "nowhere")
    assert reach(folder).name == {"metrics.json": "damaged", "error.json": "failed", ".lock": "to do"}[name]
    for _ in range(2):
        set_aside(path, unless_file=True)
    assert not os.path.lexists(path)
    assert os.path.lexists(folder / f"{name}.damaged")


def test_a_run_at_work_is_running_until_its_metrics_are_there(folder):
    (folder / "metrics.json").rename(folder / "kept")
    with FileLock(folder / ".lock"):
        assert reach(folder).name == "running"
        (folder / "kept").rename(folder / "metrics.json")
        assert reach(folder).name == "done"


@pytest.mark.parametrize(("content", "why"), [("{", "cannot be read"), ("{}", "no valid 'spec'")])
def test_metrics_that_no_reader_would_take_are_not_sealed(folder, content, why):
    (folder / "metrics.json").unlink()
    (folder / "metrics.json.partial").write_text(content)
    with pytest.raises(ValueError, match=why):
        seal(folder, KEY)
    assert reach(folder).name == "to do"
