"""Files are whole or absent, and a disk that is full or cannot be written to is said in one message with a remedy."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from filelock import FileLock

from aunce import cli, files
from aunce.errors import machine_remedy


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "{metrics} ü.json"
    files.write(path, "old\r\n")
    assert path.read_bytes() == b"old\r\n"
    with pytest.raises(UnicodeEncodeError), files.beside(path) as partial:
        partial.write_text("half" * 10_000 + "\ud800", encoding="utf-8")
    assert path.read_bytes() == b"old\r\n"
    assert list(tmp_path.iterdir()) == [path]
    files.write(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_a_killed_process_left_is_removed_and_the_place_of_one_at_work_is_not(tmp_path):
    (tmp_path / ".work-left").mkdir()
    (tmp_path / ".work-held").mkdir()
    holder = FileLock(tmp_path / ".lock", is_singleton=True)  # as a report holds it that renders its page
    with FileLock(tmp_path / ".work-held" / ".lock"), holder, files.workplace(tmp_path, ".work-") as work:
        assert {path.name for path in tmp_path.glob(".work-*")} == {".work-held", work.name}
    assert work.is_dir()


def test_content_is_flushed_before_the_name_changes_and_the_name_after(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(files, "sync", lambda path: calls.append(path.name))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("replace"), replace(old, new)))
    files.write(tmp_path / "a", "a")
    assert calls == ["a.partial", "replace", tmp_path.name]


@pytest.mark.parametrize(
    "save",
    [
        lambda path: path.write_bytes(bytes(2**20)),
        lambda path: pd.DataFrame({"a": range(2**18)}).to_parquet(path, compression=None),
        lambda path: safetensors.torch.save_file({"a": torch.zeros(2**18)}, path),
    ],
    ids=["bytes", "parquet", "safetensors"],
)
def test_a_full_disk_leaves_the_old_file_and_names_place_and_remedy(small_disk, save):
    folder, _ = small_disk
    files.write(folder / "table", "old")
    with pytest.raises(Exception, match="No space left on device") as raised, files.beside(folder / "table") as partial:
        save(partial)
    assert machine_remedy(str(raised.value)).startswith("Free some space")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("table", "old")]


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_command_says_what_is_wrong_with_the_disk(small_disk, state):
    folder, lock = small_disk
    if state == "read-only":
        lock()
    words = ["data", "synth", "bp4d", str(folder / "faces"), "--subjects", "3", "--frames", "6"]
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 1
    assert ("No space left" if state == "full" else "Read-only file system") in result.output
    assert "AUNCE_DATA" in result.output
    assert result.output.splitlines()[-1].startswith("aunce: ")
    assert not (folder / "faces" / "synthetic.json").exists()


def test_a_disk_that_takes_a_part_of_a_crop_is_asked_again_and_then_believed(tmp_path, monkeypatch):
    pwrite, calls = os.pwrite, []

    def short(descriptor, data, place):
        calls.append(len(data))
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data[:4], place)

    monkeypatch.setattr(os, "pwrite", short)
    descriptor = os.open(tmp_path / "images", os.O_RDWR | os.O_CREAT)
    files.write_at(descriptor, b"12345678", 2)
    with pytest.raises(OSError, match="No space left"):
        files.write_at(descriptor, b"abcd", 10)
    os.close(descriptor)
    assert (tmp_path / "images").read_bytes() == b"\0\0" + b"12345678"


def test_temporary_files_of_a_command_lie_in_one_place_that_the_next_call_sweeps(tmp_path):
    """A call that is killed leaves its place; one at work keeps it, and so do the commands that it starts."""
    code = (
        "import os, pathlib, signal, sys, tempfile; from aunce import files\n"
        "with files.temporary():\n"
        "    place = tempfile.mkdtemp(); print(place)\n"
        "    with files.temporary():\n"
        "        print(tempfile.mkdtemp())\n"
        "    sys.stdout.flush()\n"
        "    if sys.argv[1] == 'kill': os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != files.TEMPORARY}
    environment["TMPDIR"] = str(tmp_path)

    def call(how):
        command = [sys.executable, "-c", code, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert not done.stderr
        return done.stdout.split()

    killed = call("kill")
    [root] = tmp_path.iterdir()
    assert root.stat().st_mode & 0o777 == 0o700
    assert all(Path(place).is_dir() and Path(place).parent.parent == root for place in killed)
    assert Path(killed[0]).parent == Path(killed[1]).parent
    ended = call("end")
    assert not any(Path(place).exists() for place in (*killed, *ended))
    assert [path.name for path in root.iterdir()] == [".lock"]
