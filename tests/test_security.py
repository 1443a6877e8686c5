"""Hostile input: names that a shell, YAML or HTML would obey, paths that leave their root, pickles."""

import itertools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.harness import stand_in

from aunce import cli, prediction
from aunce.data import adapter
from aunce.errors import DataError, UsageError
from aunce.losses import infonce
from aunce.model import build_encoder
from aunce.report import card, page
from aunce.study import engine
from aunce.study.grid import PROBE, PROJECT, WEIGHTS, Study, load_study
from aunce.training import Optimisation, Training, pretrain

STUDY = r"""
[study]
title = '''<script>alert("title")</script> $x$ {braces} "quotes" 'single' ü'''
question = "<img src=x onerror=alert(1)>"
report = "laptop"
[data]
subjects = 12
frames = 6
size = 32
[base]
pixels = 32
probe_epochs = 1
[axes.arm]
"<script>alert(\"arm\")</script> $(touch pwned); `touch pwned` {wildcards} $y$ ü" = { method = "pixels" }
"<svg onload=alert(1)>" = { method = "aunce", backbone = "<script>alert(3)</script>{x}", revision = "REVISION" }
""".replace("REVISION", 40 * "0")
NAMES = [
    "space {wildcards.name} {0} {{x}} quote ' and \" double",
    "$(touch pwned); `touch pwned` & | > pwned \\ *",
    "a: [yaml, {x: 1}] #",
    "-dash --flag\nnew line ünïcödé 表情 <script>",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_reaches_the_command_as_it_is(name, tmp_path, monkeypatch):
    """Through plan, Snakefile and shell, with a stand-in for `aunce` that notes its words."""
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path / "reports")
    (tmp_path / name).mkdir()
    path = tmp_path / name / f"{name}.toml"
    path.write_text(STUDY.replace("[axes.arm]", "[axes]\nreplicate = [0]\n[axes.arm]"))
    study = Study(path, {"detector": f"/{name}/yunet.onnx"})
    heard = tmp_path / "heard"
    note = f"import json, sys\nopen({str(heard)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    with stand_in(tmp_path / "stand-in", note):
        assert engine.execute_all(study, study.runs, "laptop")
    said = [json.loads(line) for line in heard.read_text().splitlines()]
    assert sorted(words[0] for words in said) == ["prepare", "run", "run"]
    for words in said:
        assert words[words.index("--") + 1] == study.reference
        assert words[words.index("--set") + 1] == f"detector={json.dumps(study.overrides['detector'])}"
    assert not list(tmp_path.rglob("pwned"))


class Page(HTMLParser):
    """Collects what a browser would execute."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [tag] if tag in ("script", "iframe", "object", "embed") else []
        self.found += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


@pytest.mark.long  # the same names reach a command, and a data card, in tests that take no study
def test_the_names_and_the_failed_run_of_a_whole_study_are_text_on_its_pages(tmp_path, monkeypatch):
    path = tmp_path / "<b onclick=alert(1)> '$x' {y}.toml"
    path.write_text(STUDY)
    places = {"AUNCE_DATA": str(tmp_path / "{data} ü"), "AUNCE_REPORTS": str(tmp_path / "reports 'x'")}
    command = [sys.executable, "-m", "aunce", "study", str(path)]
    ended = subprocess.run(command, env=os.environ | places, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1  # one run has no such backbone
    assert "cannot be read as a vision model" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path / "reports 'x'")
    assert [run.state for run in load_study(str(path)).runs] == ["done", "failed"]
    written = list((tmp_path / "reports 'x'").rglob("index.html"))
    assert len(written) == 2
    for one in written:
        assert Page(one.read_text()).found == [], one
    report = next(one for one in written if one.parent.name == path.stem)
    assert "&lt;script&gt;alert(3)&lt;/script&gt;{x}" in report.read_text()
    assert "PARTIAL" in report.with_name("report.md").read_text()
    for drawn in (report.parent / "figures").glob("*.svg"):
        assert "<script" not in drawn.read_text()
    assert not list(tmp_path.rglob("pwned"))


def test_the_names_of_videos_are_text_on_a_data_card(tmp_path):
    root = tmp_path / "faces"
    adapter("affwild2").write(root, subjects=3, frames=4, size=32)
    (root / "synthetic.json").unlink()  # with it, the names are those that the renderer gives
    label = sorted(root.rglob("AU_Detection_Challenge/*/*.txt"))[0]
    evil = "<img src=x onerror=alert(1)>"
    label.rename(label.with_name(f"{evil}.txt"))
    for images in [path for path in root.rglob(label.stem) if path.is_dir()]:
        images.rename(images.with_name(evil))
    made = page.render(
        cli.NOTEBOOKS / "data.ipynb", {"dataset": "affwild2", "root": str(root)}, tmp_path / "card", title=evil
    )
    assert Page(made.read_text()).found == []
    assert card.DataCard("affwild2", root).text()


def test_a_study_file_cannot_take_the_place_of_the_folder_of_all_reports(tmp_path):
    (tmp_path / "...toml").write_text(STUDY)
    with pytest.raises(UsageError, match="rename it"):
        load_study(str(tmp_path / "...toml"))


@pytest.mark.parametrize("name", ["../train", "/etc/passwd", "..", "studies/../train", "a\nb", ""])
@pytest.mark.parametrize("field", ["notebook", "report"])
def test_a_study_names_notebooks_of_this_project_alone(tmp_path, name, field):
    path = tmp_path / "study.toml"
    fields = {"title": "x", "question": "x", "notebook": "train", "report": "laptop"} | {field: name}
    path.write_text("[study]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()))
    with pytest.raises(UsageError, match=field):
        load_study(str(path))


class Evil:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.mark.parametrize("format", ["pickle", "torch", "numpy"])
def test_a_checkpoint_that_is_a_pickle_is_never_executed(tmp_path, format):
    trap = tmp_path / "executed"
    folder = tmp_path / "checkpoint"
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    labels = np.tile([[0, 1], [1, 0]], (4, 1)).astype(np.int8)
    lines = []

    def train():
        encoder = build_encoder("small", aus=2, channels=4, seed=0)
        plan = Optimisation(epochs=1, batch_size=8, learning_rate=1e-3)
        task = Training(images=images, labels=labels, optimisation=plan, seed=0, checkpoint=folder, log=lines.append)
        pretrain(encoder, lambda z, y, generator, anchors: infonce(z, 0.5, anchors=anchors), task)

    train()
    for path in [*folder.glob("*.safetensors"), folder / "state.json"]:
        with path.open("wb") as file:
            if format == "numpy":
                np.save(file, np.array([Evil(trap)], dtype=object), allow_pickle=True)
            else:
                (pickle.dump if format == "pickle" else torch.save)(Evil(trap), file)
    train()
    assert not trap.exists()
    assert any("is not a whole checkpoint" in line for line in lines)
    pickle.loads(pickle.dumps(Evil(trap)))
    assert trap.exists(), "the trap would not have shown it"


def test_no_module_can_load_a_pickle():
    loads = re.compile(r"import (pickle|joblib|dill|shelve|marshal)|torch\.load\(|read_pickle|allow_pickle=True")
    for source in itertools.chain((PROJECT / "aunce").rglob("*.py"), (PROJECT / "notebooks").glob("*.ipynb")):
        assert not loads.search(source.read_text()), source


@pytest.mark.parametrize("format", ["pickle", "torch"])
def test_weights_of_a_run_that_are_a_pickle_are_never_executed(tmp_path, format, finished_run):
    trap, run = tmp_path / "executed", shutil.copytree(finished_run, tmp_path / "run")
    for name in (WEIGHTS, PROBE):
        kept = (run / name).read_bytes()
        with (run / name).open("wb") as file:
            (pickle.dump if format == "pickle" else torch.save)(Evil(trap), file)
        with pytest.raises(DataError, match="weights are not those"):
            prediction.load(run)
        (run / name).write_bytes(kept)
    prediction.load(run)
    assert not trap.exists()


@pytest.mark.long
def test_no_module_of_the_folder_that_one_stands_in_is_imported(tmp_path):
    """A data set may bring files of names that Python would import: the command, its kernels, workers, the engine."""
    for name in ("matplotlib", "snakemake", "pandas", "papermill", "ipykernel", "struct", "aunce"):
        (tmp_path / f"{name}.py").write_text("open('RAN', 'a').write(__name__)")
    study = STUDY.replace("[axes.arm]", "[axes]\nreplicate = [0]\n[axes.arm]").partition('"<svg')[0]
    (tmp_path / "small.toml").write_text(study)
    command = str(Path(sys.executable).with_name("aunce"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment |= {"AUNCE_REPORTS": str(tmp_path / "reports"), "AUNCE_DATA": str(tmp_path / "data")}
    for words in (
        ["data", "synth", "bp4d", "faces", "--subjects", "6", "--frames", "2"],
        ["data", "check", "bp4d", "faces", "--page", "card"],
        ["study", "small.toml"],
    ):
        done = subprocess.run([command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "RAN").exists()
