"""Any table of labels: what is read from it, what is assumed, what is refused, and the way to a report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from aunce import cli
from aunce.data import fingerprint, load, table, tiny
from aunce.errors import AunceError, DataError, UsageError
from aunce.study.grid import PROJECT, load_study

TEXT = """image,subject,AU12,AU01
a/1.png,ann,1,0
a/2.png,ann,,1
b/1.png,bob,0,-1
b/2.png,bob,1,0
c/1.png,cid,0,1
"""


@pytest.fixture
def root(tmp_path):
    for name in ("a/1", "a/2", "b/1", "b/2", "c/1"):
        path = tmp_path / "faces" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "labels.csv").write_text(TEXT)
    return tmp_path


def described(root, text=None, **given):
    if text is not None:
        (root / "labels.csv").write_text(text)
    (root / "table.json").unlink(missing_ok=True)
    return table.describe(root / "labels.csv", images="faces", **given)


def test_rows_labels_and_images_are_those_of_the_table(root):
    found = load("table", described(root))
    assert found.aus == (1, 12)
    frames = found.frames.set_index("image")[["subject", "AU1", "AU12"]]
    expected = {
        "faces/a/1.png": ["ann", 0, 1],
        "faces/a/2.png": ["ann", 1, -1],
        "faces/b/1.png": ["bob", -1, 0],
        "faces/b/2.png": ["bob", 0, 1],
        "faces/c/1.png": ["cid", 1, 0],
    }
    assert {name: row.tolist() for name, row in frames.iterrows()} == expected
    assert set(found.parts) == {"1", "2", "3"}
    assert found.frames.groupby("subject")["part"].nunique().max() == 1


@pytest.mark.parametrize("form", ["excel", "tabs", "parquet", "windows", "mark of the encoding", "blanks"])
def test_the_same_table_in_other_clothes_is_the_same(root, form):
    expected = load("table", described(root)).frames
    path = root / "labels.csv"
    if form == "parquet":
        path = root / "labels.parquet"
        numbers = pd.read_csv(root / "labels.csv")  # floats, NaN where a cell is empty
        numbers.to_parquet(path)
        (root / "table.json").unlink()
    else:
        changed = {
            "excel": TEXT.replace(",", ";"),
            "tabs": TEXT.replace(",", "\t"),
            "windows": TEXT.replace("\n", "\r\n"),
            "mark of the encoding": "\ufeff" + TEXT,
            "blanks": TEXT.replace(",", ", "),
        }
        path.write_bytes(changed[form].encode())
    found = load("table", table.describe(path, images="faces")).frames
    pd.testing.assert_frame_equal(found, expected)


def test_folds_are_dealt_by_subject_and_seed_whatever_the_order_of_the_rows(root):
    people = [f"p{number}" for number in range(20)]
    rows = [f"a/1.png?{number},p{number % 20},{number % 2}" for number in range(60)]
    text = "\n".join(["image,subject,AU1", *rows, ""])
    parts = table.protocols(described(root, text, folds=4))["table"].parts
    assert sorted(map(len, parts.values())) == [5, 5, 5, 5]
    assert set().union(*parts.values()) == set(people)
    backwards = "\n".join(["image,subject,AU1", *reversed(rows), ""])
    assert table.protocols(described(root, backwards, folds=4))["table"].parts == parts
    assert table.protocols(described(root, text, folds=4, seed=1))["table"].parts != parts


def test_parts_that_are_given_are_kept_and_sequences_are_ordered_by_frame(root):
    header = "image,subject,sequence,frame,part,AU1"
    text = f"{header}\nb/2.png,bob,t,9,test,1\nb/1.png,bob,t,3,test,0\na/1.png,ann,t,1,train,1\n"
    found = load("table", described(root, text)).frames
    assert found[["subject", "frame", "part"]].to_numpy().tolist() == [
        ["bob", 3, "test"],
        ["bob", 9, "test"],
        ["ann", 1, "train"],
    ]


def test_without_a_path_subject_sequence_and_frame_name_the_image(root):
    text = "subject,frame,AU1\na,1,1\na,2,0\nb,2,1\nc,1,0\n"
    frames = load("table", described(root, text)).frames
    images = {"faces/a/1.png": 1, "faces/a/2.png": 0, "faces/b/2.png": 1, "faces/c/1.png": 0}
    assert frames.set_index("image")["AU1"].to_dict() == images


def test_intensities_and_openface_columns(root):
    text = "image, frame, AU01_r, AU01_c\na/1.png, 1, 0.4, 1\na/2.png, 2, 2.0, 0\nb/1.png, 1, 5, 1\nc/1.png, 1, , 0\n"
    occurrence = load("table", described(root, text)).frames.set_index("image")["AU1"]
    assert occurrence.to_dict() == {"faces/a/1.png": 1, "faces/a/2.png": 0, "faces/b/1.png": 1, "faces/c/1.png": 0}
    intensity = load("table", described(root, text, positive_from=2.0)).frames.set_index("image")["AU1"]
    assert intensity.to_dict() == {"faces/a/1.png": 0, "faces/a/2.png": 1, "faces/b/1.png": 1, "faces/c/1.png": -1}


def test_labels_that_are_no_aus_have_numbers_and_the_card_names_them(root):
    text = TEXT.replace("AU12", "smile").replace("AU01", "frown")
    place = described(root, text, columns=["smile", "frown"])
    found = load("table", place)
    assert found.aus == (1, 2)
    assert found.frames.set_index("image").loc["faces/a/1.png", ["AU1", "AU2"]].tolist() == [1, 0]
    assert table.notes(place)["Labels"] == "AU1 is smile; AU2 is frown"
    assert table.protocols(place)["table"].settings["labels"] == {"1": "smile", "2": "frown"}


@pytest.mark.parametrize(
    ("header", "stands_in"), [("image,sequence,AU1", "sequence"), ("image,AU1", "folder"), ("image,AU1", "image")]
)
def test_what_stands_for_a_person_is_said(root, header, stands_in):
    names = ["a/1.png", "a/2.png", "b/1.png", "c/1.png"]
    if stands_in == "image":
        names = [f"{number}.png" for number in range(4)]
    cells = {"sequence": ",s{}"}.get(stands_in, "")
    rows = [f"{name}{cells.format(number % 3)},1" for number, name in enumerate(names)]
    place = described(root, "\n".join([header, *rows, ""]))
    assert f"each {stands_in} counts as a person" in table.notes(place)["People"]
    people = len(set(load("table", place, images="optional").frames["subject"]))
    assert people == {"sequence": 3, "folder": 3, "image": 4}[stands_in]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT.replace("ann,1,0", "ann,3,0"), r"labels.csv, line 2 \(a/1.png\): AU12 is '3'.*--positive-from 2"),
        (TEXT.replace("ann,1,0", "ann,9,0"), r"line 2 .*'9'.*--unknown CODE"),
        (TEXT.replace("b/1.png", "a/1.png"), r"line 4 \(a/1.png\): this image is there before"),
        (TEXT.replace("image", "file"), r"no column 'image'.*columns: file, subject"),
        (TEXT.replace("AU12", "smile").replace("AU01", "frown"), r"no column AU1, AU01 or AU01_c.*--columns"),
        (TEXT.replace("AU12", "AU01"), r"two columns 'AU01'"),
        (TEXT.replace("bob,0", ",0"), r"line 4 .*subject is empty"),
        ("image,AU1\n", "no rows"),
        ("image,subject,AU1\na/1.png,ann,1\na/2.png,bob,0\n", r"2 subject\(s\) cannot make 3 folds"),
        ("image,subject,frame,AU1\na/1.png,ann,1.5,1\n", "frame is no whole number"),
        ("image,subject,frame,AU1\na/1.png,ann,1,1\na/2.png,ann,1,1\n", "this frame of the sequence is there before"),
        ("image,subject,part,AU1\na/1.png,ann,x,1\na/2.png,ann,y,1\n", "a person in two parts"),
        ("image,AU1\na,1,0\n", "line 2: 3 cells. Expected 2, as in the header"),
        ("image,AU1\na,1\nb,1,0\n", "line 3: 3 cells"),
        (TEXT.replace("b/1.png,bob,0,-1", "b/1.png,bob,0"), "line 4: 3 cells. Expected 4"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_the_remedy(root, text, said):
    with pytest.raises(DataError, match=said):
        load("table", described(root, text))


def test_codes_of_unknown_labels_are_taken(root):
    found = load("table", described(root, TEXT.replace("ann,1,0", "ann,9,0"), unknown=["9"]))
    assert found.frames.set_index("image").loc["faces/a/1.png", "AU12"] == -1


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"labels": "../x.csv"}', '{"labels": "labels.csv", "fold": 3}', "null"]
)
def test_a_damaged_description_is_one_message(root, content):
    described(root)
    (root / "table.json").write_text(content)
    with pytest.raises(DataError, match=r"table\.json"):
        load("table", root)


def test_the_description_is_kept_and_never_changed_in_silence(root):
    place = described(root, folds=2)
    assert table.describe(root / "labels.csv") == place, "what is not given stays"
    with pytest.raises(UsageError, match=r"says folds = 2, and 3 is asked for.*folder of its own"):
        table.describe(root / "labels.csv", folds=3)
    (root / "other.csv").write_text(TEXT)
    with pytest.raises(UsageError, match="says labels"):
        table.describe(root / "other.csv")
    with pytest.raises(DataError, match="no such file"):
        table.describe(root / "nothing.csv")
    with pytest.raises(DataError, match="--labels"):
        load("table", root / "labels.csv")
    with pytest.raises(DataError, match="no such file or folder"):
        load("table", root / "nothing")


def test_the_key_follows_labels_folds_and_threshold_and_not_the_place_of_the_images(root):
    place = str(described(root))
    first = fingerprint("table", place)
    assert first == table.fingerprint(place)
    content = json.loads((root / "table.json").read_text())
    for change, same in (
        ({"images": str(root / "faces")}, True),
        ({"folds": 2}, False),
        ({"positive_from": 1.0}, False),
    ):
        (root / "table.json").write_text(json.dumps(content | change))
        assert (table.fingerprint(place) == first) is same
    (root / "table.json").write_text(json.dumps(content))
    (root / "labels.csv").write_text(TEXT.replace("ann,1,0", "ann,0,0"))
    assert table.fingerprint(place) != first


def test_lost_images_are_said_by_the_commands_and_refused(root):
    for name in ("a/1", "a/2"):
        (root / "faces" / f"{name}.png").unlink()
    said = CliRunner().invoke(
        cli.main, ["data", "check", "table", str(root / "labels.csv"), "--images", str(root / "faces")]
    )
    assert said.exit_code == 1
    assert "2 of 5 labelled frames have no image" in said.output


def test_a_study_tests_on_every_part_but_train(root, monkeypatch, tmp_path):
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path / "reports")
    words = ["study", "table", "--labels", str(root / "labels.csv"), "--images", str(root / "faces"), "--dry-run"]
    three = CliRunner().invoke(cli.main, words)
    assert three.exit_code == 0, three.output
    assert {run.spec.test_part for run in load_study("table", {"root": str(root)}).runs} == {"1", "2", "3"}
    text = "image,subject,part,AU1\na/1.png,ann,train,1\nb/1.png,bob,valid,0\nc/1.png,cid,test,1\n"
    described(root, text)
    assert {run.spec.test_part for run in load_study("table", {"root": str(root)}).runs} == {"test", "valid"}
    with pytest.raises(AunceError, match="--labels"):
        _ = load_study("table").runs
    other = CliRunner().invoke(cli.main, ["data", "check", "bp4d", str(root), "--folds", "2"])
    assert "--folds describes a table of labels; bp4d has its own" in other.output
    lacking = CliRunner().invoke(cli.main, ["study", "table", "--folds", "2"])
    assert "name it: --labels FILE" in lacking.output


@pytest.mark.long
def test_a_table_of_ones_own_is_checked_trained_and_predicted(tmp_path, monkeypatch):
    """Two hundred rendered faces, five labels of which none is an AU, and not one line of Python."""
    place = tiny("bp4d", size=48)
    made = load("bp4d", place)
    rows = made.frames.iloc[:: len(made.frames) // 200]
    names = {"AU1": "brows", "AU6": "cheeks", "AU12": "smile", "AU14": "dimples", "AU17": "chin"}
    own = tmp_path / "lab"
    own.mkdir()
    rows.rename(columns=names)[["image", "subject", *names.values()]].to_csv(own / "labels.csv", index=False)
    words = ["--images", str(place), "--columns", ",".join(names.values())]
    where = {"AUNCE_REPORTS": str(tmp_path / "reports"), "AUNCE_DATA": str(tmp_path / "data"), "HF_HUB_OFFLINE": "1"}

    def aunce(*command):
        done = subprocess.run(
            [sys.executable, "-m", "aunce", *map(str, command)],
            env=os.environ | where | {"PYTHONPATH": str(PROJECT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "AU1 is brows; AU2 is cheeks" in aunce("data", "check", "table", own / "labels.csv", *words)
    small = ["--set", "pixels=32", "--set", "channels=8", "--set", "epochs=2", "--set", "batch_size=16"]
    only = ["--only", "arm=BCE", "--only", "arm=random encoder"]
    page = aunce("study", "table", "--labels", own / "labels.csv", *words, *small, *only)
    text = (Path(page.strip().splitlines()[-1]).parent / "report.md").read_text()
    assert "AU3 is smile" in text
    run = next((tmp_path / "reports" / "table" / "runs").glob("*bce*"))
    aunce("predict", run, place / rows["image"].iloc[0], "--out", tmp_path / "aus.csv")
    assert {"smile", "smile_c", "chin"} <= set(pd.read_csv(tmp_path / "aus.csv").columns)
