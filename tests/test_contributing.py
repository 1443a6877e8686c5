"""Somebody follows CONTRIBUTING.md in a copy of the project: its data set, loss and claim, as they stand there."""

import os
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from aunce.study.grid import PROJECT

TEXT = (PROJECT / "CONTRIBUTING.md").read_text()
DATA_SET, LOSS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
CLAIM, STUDY = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.S)
REGISTERED = re.search(r'`("mylab": DataSet\(.*?\))`', TEXT)[1]

# Results of all runs of the study, without a training: Poly-1 separates better, on the same frames and draws.
FINISH = """
import json
import numpy as np
import pandas as pd
from aunce.evaluation import score_tables
from aunce.study.grid import load_study

aus, subjects = (1, 2, 4), np.repeat(["F001", "F002", "F003", "M001", "M002", "M003"], 40)
for run in load_study("poly").runs:
    random = np.random.default_rng(run.spec.replicate)
    labels = (random.random((240, 3)) < 0.4).astype(np.int8)
    logits = random.normal(size=labels.shape) + labels * (1.5 if run.spec.method == "poly1" else 1.0)
    scores = 2 * (1 / (1 + np.exp(-logits)),)
    heads = {rule: {"probe": scores} for rule in ("last", "inner_val", "oracle")}
    counts, auc = score_tables(heads, labels, {"clean": labels, "noisy": labels}, subjects, aus)
    run.folder.mkdir(parents=True)
    counts.to_parquet(run.folder / "counts.parquet")
    auc.to_parquet(run.folder / "auc.parquet")
    curve = {"epoch": [1, 2], "val_auc": [0.7, 0.71], "val_f1": [0.5, 0.5]}
    pd.DataFrame(curve).to_csv(run.folder / "history.csv", index=False)
    faces = {"setting": "easy", "version": 1, "null_au": 28, "seed": run.spec.replicate}
    facts = {"dataset": "bp4d", "entering_aus": aus, "null_aus": [], "kappa": {}, "rates": {}, "synthetic": faces}
    metrics = {"key": run.key, "spec": run.spec.model_dump(), "data": facts, "duration_s": 60.0, "flat": True}
    metrics |= {"val_f1": 0.5, "val_auc": 0.7, "provenance": {}}
    (run.folder / "metrics.json").write_text(json.dumps(metrics))
"""


class Clone:
    """A copy of library and notebooks; `call` executes a command in it, with this very interpreter."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("aunce", "notebooks"):
            shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "notebooks" / "studies" / "poly.toml").write_text(STUDY)
        (folder / "notebooks" / "claims" / "poly.toml").write_text(CLAIM)
        self.append("aunce/supervised.py", f"\n\n{LOSS}")
        self.insert("aunce/study/spec.py", r"(SUPERVISED = \([^)]*)", r'\1, "poly1"')
        (folder / "aunce" / "data" / "mylab.py").write_text(DATA_SET)
        self.insert("aunce/data/__init__.py", r"(\nDATASETS: .* = \{\n)", rf"\1    {REGISTERED},\n")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AUNCE_")}
        self.environment["PYTHONPATH"] = str(folder)

    def append(self, name, text):
        with (self.folder / name).open("a") as file:
            file.write(text)

    def insert(self, name, pattern, replacement):
        before = (self.folder / name).read_text()
        after, count = re.subn(pattern, replacement, before)
        assert count == 1, f"{name} has no place for it"
        (self.folder / name).write_text(after)

    def call(self, *words, code=0, folder=None):
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, cwd=folder or self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def aunce(self, *words, code=0):
        return self.call("-m", "aunce", *words, code=code)

    def read(self, name):
        return (self.folder / name).read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def mylab(tmp_path_factory):
    """Six frames of three subjects; one subject is not coded for AU12."""
    root = tmp_path_factory.mktemp("mylab")
    rows = ["subject,sequence,frame,AU1,AU12"]
    for subject in ("S01", "S02", "S03"):
        (root / "images" / subject / "smile").mkdir(parents=True)
        for frame in (7, 8):
            cv2.imwrite(str(root / "images" / subject / "smile" / f"{frame}.jpg"), np.zeros((40, 40, 3), np.uint8))
            rows.append(f"{subject},smile,{frame},{frame - 7},{'' if subject == 'S02' else 1}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def test_the_data_set_of_the_example_is_checked_shown_and_packed(clone, mylab):
    labels = "[[0, 1], [1, 1], [0, -1], [1, -1], [0, 1], [1, 1]]"
    clone.call("-c", f"import aunce.data; assert aunce.data.load('mylab', {str(mylab)!r}).labels.tolist() == {labels}")
    said = clone.aunce("data", "check", "mylab", mylab, "--page", "card")
    assert "Rates compared with: no published numbers are known" in said
    assert "No part has an AU with 10 positive frames in each of 5 people" in said
    assert "| AU12" in clone.read("card/report.md")
    assert "6 crops of 16 px" in clone.aunce("data", "pack", "mylab", mylab, "--pixels", 16, "--align", "none")


def test_what_the_data_set_of_the_example_lacks_is_said(clone, mylab, tmp_path):
    for words in (("data", "synth", "mylab", "faces"), ("study", "laptop", "--set", "dataset=mylab", "--dry-run")):
        said = clone.aunce(*words, code=2)
        assert "My laboratory cannot be rendered, as aunce/data/mylab.py defines no write and LAYOUT" in said
    broken = shutil.copytree(mylab, tmp_path / "broken")
    (broken / "labels.csv").write_text((mylab / "labels.csv").read_text().replace("S03,smile,8,1", "S03,smile,8,9"))
    assert "labels.csv, line 7: AU1 is 9. Expected" in clone.aunce("data", "check", "mylab", broken, code=1)
    for content, what in (
        (b"subject,sequence,frame,AU1,AU12\n", "cannot be read as mylab"),
        ("subject,sequence,frame,AU1,AU12\nJörg,smile,7,0,1\n".encode("latin-1"), "codec"),
        (b"", "No columns"),
    ):
        (broken / "labels.csv").write_bytes(content)
        said = clone.aunce("data", "pack", "mylab", broken, code=1)
        assert said.startswith(f"aunce: {broken}: ")
        assert what in said
        assert "Traceback" not in said
    (broken / "labels.csv").write_text((mylab / "labels.csv").read_text())
    (broken / "images" / "S01" / "smile" / "7.jpg").unlink()
    said = clone.aunce("data", "check", "mylab", broken, code=1)
    assert "1 of 6 labelled frames have no image, in 1 sequence(s)" in said
    whole = clone.read("aunce/data/mylab.py")
    (clone.folder / "aunce" / "data" / "mylab.py").write_text(whole.partition("def fingerprint")[0])
    said = clone.aunce("data", "check", "mylab", mylab, code=2)
    (clone.folder / "aunce" / "data" / "mylab.py").write_text(whole)
    assert "aunce/data/mylab.py defines no fingerprint; see aunce.data.Adapter" in said


def test_the_loss_of_the_example_is_its_formula(clone):
    check = """
import torch
from aunce.supervised import supervised_loss
x, labels = torch.randn(50, 3), torch.randint(-1, 2, (50, 3))
right = torch.where(labels == 1, torch.sigmoid(x), 1 - torch.sigmoid(x))
loss = supervised_loss("poly1", labels.numpy())(x, labels)
torch.testing.assert_close(loss, (-right.log() + 1 - right)[labels >= 0].mean())
"""
    clone.call("-c", check)


def test_the_claim_of_the_example_waits_for_its_runs_and_then_has_a_page_and_a_verdict(clone):
    assert re.search(r"^Poly-1 against BCE: 16 runs, 0 done", clone.aunce("study", "poly", "--dry-run"))
    verdict = "from aunce.report.claims import Ledger; print(Ledger().verdicts('C99'))"
    assert clone.call("-c", verdict) == "not run yet\n"
    clone.call("-c", FINISH)
    clone.aunce("report", "poly")
    page = clone.read("reports/poly/report.md")
    assert re.search(r"\| C99: \*\*supported\*\* \| Poly-1 minus BCE \| ", page)
    assert "C1" not in page
    assert "AUNCE" not in page, "what is said of the main study stands on the page of another"
    clone.aunce("report", "claims")
    (row,) = [line for line in clone.read("reports/claims/report.md").splitlines() if "**C99**" in line]
    assert "**supported**" in row
    assert "(../poly/report.md#verdicts)" in row
    assert "[Poly-1 against BCE](poly/report.md)" in clone.read("reports/README.md")


@pytest.mark.long
def test_the_loss_of_the_example_trains_alone_and_in_its_study(clone):
    notebook = clone.folder / "notebooks" / "train.ipynb"
    # A kernel drops the folder that it starts in from its path, and would import the installed library here.
    clone.call("-m", "papermill", notebook, "run.ipynb", "-p", "method", "poly1", folder=clone.folder.parent)
    tiny = {"subjects": 12, "frames": 4, "size": 32, "pixels": 32, "channels": 8, "epochs": 1, "probe_epochs": 2}
    settings = [word for name, value in tiny.items() for word in ("--set", f"{name}={value}")]
    shutil.rmtree(clone.folder / "reports" / "poly", ignore_errors=True)
    clone.aunce("study", "poly", "--only", "replicate=0", *settings)
    assert "**PARTIAL: 2 of 16 runs finished.**" in clone.read("reports/poly/report.md")
    assert "C99" in clone.read("reports/poly/findings.json")


@pytest.mark.long
def test_the_examples_pass_the_lint(clone):
    shutil.copy(PROJECT / "pyproject.toml", clone.folder)
    for words in (("ruff", "check", "aunce"), ("ruff", "format", "--check", "aunce"), ("mypy",)):
        clone.call("-m", *words)
