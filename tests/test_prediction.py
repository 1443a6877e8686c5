"""Prediction on images, folders and videos of one's own: the numbers of the run, the names that others' tools read."""

import dataclasses
import json
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from aunce import cli, prediction
from aunce.data import faces, images, tiny
from aunce.errors import DataError, UsageError
from aunce.probe import embed
from aunce.study.grid import BACKBONE, PROBE, WEIGHTS

COLUMNS = ["input", "frame", "face_id", "timestamp", "confidence"]


@pytest.fixture
def run(finished_run):
    return finished_run


@pytest.fixture(scope="module")
def root():
    """Rendered faces of 64 px in GFT's layout, whose images need a detector."""
    return tiny("gft", size=64)


@pytest.fixture
def model(run):
    return prediction.load(run)


@pytest.fixture
def files(root):
    return sorted(root.rglob("*.jpg"))


@pytest.fixture
def aunce():
    return lambda *words: CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def video(tmp_path, files):
    """Five frames at 20 a second; the third is grey, without a face."""
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (64, 64))
    for number, file in enumerate(files[:5]):
        image = cv2.resize(cv2.imread(str(file)), (64, 64))
        writer.write(np.full_like(image, 128) if number == 2 else image)
    writer.release()
    return path


def aligned(run, folder):
    """The same run, as if its faces had been aligned by the detector."""
    shutil.copytree(run, folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["spec"]["align"] = "detector"
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return prediction.load(folder)


def whole(model, *paths):
    return pd.concat(prediction.predict(model, paths), ignore_index=True)


def test_a_row_has_the_probabilities_of_the_probe_on_the_crop_that_the_run_would_have_taken(model, files):
    table = whole(model, *files[:3])
    assert list(table) == [*COLUMNS, *model.columns, "trained_on"]
    assert model.columns[0] == "AU01"
    crops = np.stack([images.crop_faces(images.read_image(file), 48, None)[0][0] for file in files[:3]])
    logits = model.probe(torch.from_numpy(embed(model.encoder, crops))).detach()
    expected = torch.sigmoid(logits).numpy()[:, [model.aus.index(au) for au in model.shown]]
    np.testing.assert_allclose(table[model.columns], expected, rtol=1e-5)
    assert list(table["input"]) == [str(file) for file in files[:3]]
    assert (table[["frame", "face_id", "timestamp"]] == [1, 0, 0]).all().all()
    assert table["confidence"].isna().all()  # align none: nobody looked for a face


def test_an_au_that_was_labelled_and_never_drawn_is_not_predicted(run, model):
    facts = json.loads((run / "metrics.json").read_text())["data"]
    assert facts["null_aus"]
    assert set(model.aus) - set(model.shown) == set(facts["null_aus"])


def test_the_numbers_do_not_depend_on_batches_and_the_order_is_that_of_the_paths(model, files, monkeypatch):
    one = whole(model, *files[:7])
    monkeypatch.setattr(prediction, "BATCH", 3)
    parts = list(prediction.predict(model, files[:7]))
    assert [len(part) for part in parts] == [0, 3, 3, 1]
    several = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(one, several, rtol=1e-4, check_dtype=False)
    assert list(several["input"]) == [str(file) for file in files[:7]]


def test_faces_are_aligned_as_in_training(run, files, tmp_path):
    model = aligned(run, tmp_path / "run")
    found = faces.face_detector("cascade")
    for face in prediction.find_faces(model, files[:6]):
        assert face.face_id == 0, "one face is found twice"
        image = images.read_image(face.input)
        detected = found(image)
        if not detected:
            assert (face.confidence, face.crop) == (0, None)
        else:
            assert face.confidence == 1
            np.testing.assert_array_equal(face.crop, images.align(image, detected[0].eyes, 48))


def test_every_face_of_an_image_has_its_row_and_the_largest_comes_first(run, files, tmp_path):
    eyes = np.array([[20, 25], [40, 25]], dtype=np.float32)
    found = [faces.DetectedFace(eyes, 0.9), faces.DetectedFace(eyes + 2, 0.7), faces.DetectedFace(eyes * np.nan, 0.6)]
    model = prediction.load(run)
    table = whole(dataclasses.replace(model, find=lambda image: found), files[0])
    assert list(table["face_id"]) == [0, 1]
    assert list(table["confidence"]) == [0.9, 0.7]
    assert table[model.columns].notna().all().all()


def test_a_video_gives_a_row_a_frame_with_its_time_and_none_is_lost(run, video, tmp_path):
    table = whole(aligned(run, tmp_path / "run"), video)
    assert list(table["frame"]) == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(table["timestamp"], [0, 0.05, 0.1, 0.15, 0.2])
    assert table.loc[2, "confidence"] == 0
    assert table.loc[2].filter(regex="^AU").isna().all()


def test_a_folder_is_read_at_any_depth_and_what_is_no_image_is_left_alone(root, files, video, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shutil.copy(files[0], tmp_path / "deep" / "er" / "B.JPG")
    (tmp_path / "deep" / "notes.txt").write_text("no image")
    assert prediction.sources([tmp_path]) == [video, tmp_path / "deep" / "er" / "B.JPG"]


def test_the_command_writes_what_other_tools_read_and_says_that_rendered_faces_are_no_photographs(
    aunce, run, files, video, tmp_path
):
    screen = aunce("predict", run, files[0], video)
    assert screen.exit_code == 0, screen.output
    assert "not fit for photographs" in screen.stderr
    assert screen.stdout.splitlines()[0].startswith("input,frame,face_id,timestamp,confidence,AU01,AU02,")
    tables = {}
    for name in ("a.csv", "a.parquet"):
        result = aunce("predict", run, files[0], video, "--out", tmp_path / name)
        assert result.stdout == f"{tmp_path / name}: 6 rows\n"
        tables[name] = pd.read_csv(tmp_path / name) if name == "a.csv" else pd.read_parquet(tmp_path / name)
    pd.testing.assert_frame_equal(tables["a.csv"], tables["a.parquet"], rtol=1e-4, check_dtype=False)
    assert set(tables["a.csv"]["trained_on"]) == {"rendered faces (not fit for photographs)"}
    assert not list(tmp_path.glob("*.partial"))


def test_what_cannot_be_read_is_named_and_the_rest_is_written(aunce, run, files, video, tmp_path):
    broken, cut = tmp_path / "broken.jpg", tmp_path / "cut.avi"
    broken.write_bytes(files[0].read_bytes()[:-100])
    cut.write_bytes(b"no video")
    result = aunce("predict", run, broken, files[0], cut, "--out", tmp_path / "a.csv")
    assert result.exit_code == 1
    assert re.search(r"broken\.jpg: the file is truncated\n.*cut\.avi: no video", result.stderr)
    assert "1 rows" in result.stderr
    assert list(pd.read_csv(tmp_path / "a.csv")["input"]) == [str(files[0])]


def test_a_video_that_ends_early_is_said_to(model, video, tmp_path):
    cut = tmp_path / "cut.avi"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 5])
    said = []
    table = pd.concat(prediction.predict(model, [cut], warn=said.append))
    assert 0 < len(table) < 5
    assert f"{len(table)} of 5 frames could be decoded" in said[0]


def test_progress_counts_frames(model, files, video):
    calls = []
    list(prediction.predict(model, [files[0], video], progress=lambda *call: calls.append(call)))
    assert calls == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere", "FACE"], "nowhere: no finished run"),
        (["RUN", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["RUN", "EMPTY"], "no image or video in there; known: .bmp"),
        (["RUN", "RUN/metrics.json"], "neither an image nor a video"),
        (["RUN", "FACE", "--out", "a.xlsx"], "ends with .csv or .parquet"),
    ],
)
def test_a_wrong_call_gives_one_message(aunce, run, files, tmp_path, words, expected):
    places = {"RUN": str(run), "EMPTY": str(tmp_path), "FACE": str(files[0])}
    result = aunce("predict", *(re.sub("RUN|EMPTY|FACE", lambda match: places[match[0]], word) for word in words))
    assert result.exit_code == 2
    assert expected in result.stderr


def damaged(run, folder, name, change):
    shutil.copytree(run, folder)
    change(folder / name)
    return folder


def test_a_run_whose_files_do_not_fit_is_refused_with_the_reason(run, tmp_path):
    with pytest.raises(UsageError, match="do the run again"):
        prediction.load(damaged(run, tmp_path / "old", PROBE, lambda path: path.unlink()))
    with pytest.raises(DataError, match="weights are not those"):
        prediction.load(damaged(run, tmp_path / "cut", WEIGHTS, lambda path: path.write_bytes(b"nothing")))
    with pytest.raises(DataError, match="damaged, metrics"):
        prediction.load(damaged(run, tmp_path / "odd", "metrics.json", lambda path: path.write_text("{}")))
    pixels = damaged(run, tmp_path / "pixels", WEIGHTS, lambda path: path.unlink())
    metrics = json.loads((pixels / "metrics.json").read_text())
    metrics["spec"]["method"] = "pixels"
    (pixels / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UsageError, match="no encoder"):
        prediction.load(pixels)


def test_a_run_carries_the_configuration_of_its_backbone_with_it(run, model, files, tmp_path):
    """A lab predicts where the folder of the pretrained backbone is not."""

    def moved(path):
        metrics = json.loads(path.read_text())
        metrics["spec"]["backbone"] = "/weights/not-here"
        path.write_text(json.dumps(metrics))

    elsewhere = prediction.load(damaged(run, tmp_path / "run", "metrics.json", moved))
    pd.testing.assert_frame_equal(whole(elsewhere, *files[:2]), whole(model, *files[:2]))


@pytest.mark.parametrize("configuration", ["", "[]", '{"model_type": "own"}'])
def test_a_damaged_configuration_of_a_backbone_is_said_with_its_place(run, tmp_path, configuration):
    def change(path):
        tensors = safetensors.torch.load_file(path)
        safetensors.torch.save_file(tensors, path, {BACKBONE: configuration})

    with pytest.raises(DataError, match=f"{WEIGHTS}: holds no configuration of a backbone"):
        prediction.load(damaged(run, tmp_path / "run", WEIGHTS, change))


def test_a_model_of_photographs_is_called_by_its_data_set(run, tmp_path):
    def real(path):
        metrics = json.loads(path.read_text())
        metrics["data"]["synthetic"] = None
        path.write_text(json.dumps(metrics))

    assert prediction.load(damaged(run, tmp_path / "run", "metrics.json", real)).trained_on == "BP4D"


def test_regions_are_those_whose_covering_changes_the_log_odds(model, files):
    crops = np.stack([images.crop_faces(images.read_image(file), 48, None)[0][0] for file in files[:2]])
    heat = prediction.regions(model, crops, [12, 4])
    assert heat.shape == (2, 48, 48)
    covered = crops.copy()
    covered[:, :8, :8] = 128  # the first patch; 127.5 in the library

    def log_odds(faces):
        return model.probe(torch.from_numpy(embed(model.encoder, faces))).detach().numpy()

    fall = (log_odds(crops) - log_odds(covered))[[0, 1], [model.aus.index(12), model.aus.index(4)]]
    np.testing.assert_allclose(heat[:, 0, 0], fall, atol=0.02)  # the corner lies in no other patch
    assert np.abs(heat).max() > 0
