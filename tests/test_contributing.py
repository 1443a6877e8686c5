"""The examples of CONTRIBUTING.md, as they stand there."""

import importlib.util
import re
import sys
import tomllib

import numpy as np
import pytest
import torch

import aunce.data
from aunce import supervised
from aunce.data import DataSet
from aunce.data.images import cv2
from aunce.data.recipes import Recipe
from aunce.errors import DataError
from aunce.report.claims import Ledger, load_claims
from aunce.study.grid import NOTEBOOKS, PROJECT
from aunce.study.spec import StudyFile

TEXT = (PROJECT / "CONTRIBUTING.md").read_text()
DATA_SET, LOSS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
CLAIM, STUDY = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.S)


@pytest.fixture
def mylab(tmp_path, monkeypatch):
    """The data set of the example, registered, with six frames of three subjects; one is not coded."""
    (tmp_path / "mylab.py").write_text(DATA_SET)
    specification = importlib.util.spec_from_file_location("aunce.data.mylab", tmp_path / "mylab.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "aunce.data.mylab", module)
    monkeypatch.setattr(aunce.data, "DATASETS", {"mylab": DataSet("My laboratory", 256, "detector")})
    root = tmp_path / "root"
    rows = ["subject,sequence,frame,AU1,AU12"]
    for subject in ("S01", "S02", "S03"):
        (root / "images" / subject / "smile").mkdir(parents=True)
        for frame in (7, 8):
            cv2.imwrite(str(root / "images" / subject / "smile" / f"{frame}.jpg"), np.zeros((40, 40, 3), np.uint8))
            rows.append(f"{subject},smile,{frame},{frame - 7},{'' if subject == 'S02' else 1}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def test_the_data_set_of_the_example_is_read_checked_and_packed(mylab, tmp_path):
    table = aunce.data.load("mylab", mylab)
    np.testing.assert_array_equal(table.labels, [[0, 1], [1, 1], [0, -1], [1, -1], [0, 1], [1, 1]])
    pack = aunce.data.pack_faces("mylab", mylab, tmp_path / "pack", recipe=Recipe(16))
    assert pack.images.shape == (6, 16, 16, 3)
    (mylab / "labels.csv").write_text((mylab / "labels.csv").read_text().replace("S03,smile,8,1", "S03,smile,8,9"))
    with pytest.raises(DataError, match=r"S03/smile/8.*AU1 is 9"):
        aunce.data.load("mylab", mylab)


def test_the_loss_of_the_example_is_its_formula():
    names = dict(vars(supervised)) | {"register": lambda loss: loss}
    exec(LOSS, names)
    x, y = torch.randn(50, 3), torch.randint(0, 2, (50, 3)).float()
    right = torch.where(y == 1, torch.sigmoid(x), 1 - torch.sigmoid(x))
    torch.testing.assert_close(names["poly1"](x, y, None), -right.log() + 1 - right)


def test_the_claim_of_the_example_stands_in_the_ledger_as_not_run_yet_and_its_study_is_one(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text((NOTEBOOKS / "claims.toml").read_text() + CLAIM)
    claims, _ = load_claims(path)
    (row,) = [line for line in Ledger(path, reports=tmp_path).table().data.splitlines() if "**C8**" in line]
    assert "not run yet" in row
    study = StudyFile.checked(tomllib.loads(STUDY), "the example")
    arms = set(study.axes["arm"])
    assert {arm for claim in claims.claim if claim.id == "C8" for pair in claim.contrasts for arm in pair} == arms
