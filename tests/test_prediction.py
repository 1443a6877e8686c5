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

from aunce import cli, cli_data, prediction
from aunce.data import faces, images, tiny
from aunce.errors import DataError, UsageError
from aunce.probe import embed
from aunce.study.grid import BACKBONE, PROBE, WEIGHTS

COLUMNS = [*prediction.ABOUT, "success", *prediction.PLACES]


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
    metrics["spec"] |= {"align": "detector", "detector": "mtcnn"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return prediction.load(folder)


def whole(model, *paths):
    return pd.concat(prediction.predict(model, paths), ignore_index=True)


def test_a_row_has_the_probabilities_of_the_probe_on_the_crop_that_the_run_would_have_taken(model, files):
    table = whole(model, *files[:3])
    decided = [f"{name}_c" for name in model.columns]
    assert list(table) == [*COLUMNS, *model.columns, *decided, "trained_on"]
    assert model.columns[0] == "AU01"
    crops = np.stack([images.crop_faces(images.read_image(file), 48, None)[0][0] for file in files[:3]])
    logits = model.probe(torch.from_numpy(embed(model.encoder, crops))).detach()
    expected = torch.sigmoid(logits).numpy()[:, [model.aus.index(au) for au in model.shown]]
    np.testing.assert_allclose(table[model.columns], expected, rtol=1e-5)
    assert list(table["input"]) == [str(file) for file in files[:3]]
    assert (table[["frame", "face_id", "track", "timestamp"]] == [1, 0, 0, 0]).all().all()
    assert table["confidence"].isna().all()  # align none: nobody looked for a face


def test_decisions_are_at_the_thresholds_of_the_run_and_missing_in_a_run_without(run, model, files, tmp_path):
    kept = json.loads((run / "metrics.json").read_text())["thresholds"]
    table = whole(model, *files[:6])
    for name in model.columns:
        cut = kept[str(int(name.removeprefix("AU")))]
        assert ((table[name] >= cut) == (table[f"{name}_c"] == 1)).all()

    def old(path):
        path.write_text(
            json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "thresholds"})
        )

    before = whole(prediction.load(damaged(run, tmp_path / "run", "metrics.json", old)), files[0])
    assert before.filter(regex="_c$").isna().all().all()
    assert before[model.columns].notna().all().all()


def face_at(left, size, time):
    box = np.array([left, 10, size, size], np.float32)
    return prediction.Face("a.mp4", time, time / 25, box=box, crop=np.zeros((8, 8, 3), np.uint8))


def test_a_face_keeps_its_track_when_another_becomes_the_largest_or_it_is_missed_for_a_while():
    tracks, nobody = prediction._Tracks(), prediction.Face("a.mp4", 3, 0.1)

    def follow(*faces):
        return [face.track for face in tracks.follow(list(faces))]

    assert follow(face_at(0, 50, 1), face_at(100, 40, 1)) == [0, 1]
    assert follow(face_at(98, 55, 2), face_at(4, 50, 2)) == [1, 0]
    assert follow(nobody) == [-1]
    assert follow(face_at(8, 50, 4), face_at(200, 50, 4)) == [0, 2]
    for time in range(5, 5 + prediction.GAP):
        assert follow(face_at(8, 50, time)) == [0]
    assert follow(face_at(96, 55, 40)) == [3]  # too long ago to be told from another
    assert [face.track for face in prediction._Tracks().follow([face_at(8, 50, 1)] * 2)] == [0, 1]


def test_pictures_and_videos_are_drawn_and_faces_that_are_not_rendered_only_when_asked(
    aunce, run, files, video, tmp_path, monkeypatch
):
    few, kept = files[0].parent, tmp_path / "kept"
    result = aunce("predict", run, few, "--out", tmp_path / "a.csv", "--draw", kept, "--detector", "mtcnn")
    assert result.exit_code == 0, result.stderr
    assert len(list(kept.glob("*.png"))) == len(list(few.glob("*.jpg")))
    assert aunce("predict", run, video, "--draw", tmp_path / "other").exit_code == 2
    assert not (tmp_path / "other").exists()
    words = ["predict", run, files[0], video, "--draw", tmp_path / "other", "--show-faces", "--out", tmp_path / "b.csv"]
    assert aunce(*words, "--skip", "2").exit_code == 0
    with prediction._opened(next((tmp_path / "other").glob("*.mp4"))) as capture:
        frames = [capture.read()[0] for _ in range(4)]
        rate = capture.get(cv2.CAP_PROP_FPS)
    assert frames == [True, True, True, False]
    assert rate == 10
    monkeypatch.setattr(cli_data, "REPORTS", tmp_path / "reports")
    refused = aunce("predict", run, video, "--draw", tmp_path / "reports" / "mine", "--show-faces")
    assert refused.exit_code == 2
    assert "are committed" in refused.stderr


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
    found = faces.face_detector("mtcnn")
    for face in prediction.find_faces(model, files[:6]):
        assert face.face_id == 0, "one face is found twice"
        image = images.read_image(face.input)
        detected = found(image)
        if not detected:
            assert (face.confidence, face.crop) == (0, None)
        else:
            assert face.confidence == detected[0].confidence
            np.testing.assert_array_equal(face.crop, images.align(image, detected[0].eyes, 48))


def test_every_face_of_an_image_has_its_row_and_the_largest_comes_first(run, files, tmp_path):
    eyes = np.array([[20, 25], [40, 25]], dtype=np.float32)
    box = np.array([5, 5, 50, 50])
    found = [faces.DetectedFace(eyes + move, 0.9 - move / 10, box) for move in (0, 2, np.nan)]
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


def test_linked_folders_are_followed_once_and_hidden_images_are_counted(files, tmp_path):
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    for place in (images / "a", images / ".ipynb_checkpoints", images / "__MACOSX", elsewhere):
        place.mkdir(parents=True)
        shutil.copy(files[0], place / "1.jpg")
    shutil.copy(files[0], images / "a" / "._1.jpg")
    (images / "again").symlink_to(images / "a")  # a name for what is there already
    (images / "circle").symlink_to(images)
    (images / "linked").symlink_to(elsewhere)
    said = []
    assert prediction.sources([images], note=said.append) == [images / "a" / "1.jpg", images / "linked" / "1.jpg"]
    assert len(said) == 1
    assert "3 hidden images or videos are left out" in said[0]
    assert prediction.sources([images / "a" / "._1.jpg"]) == [images / "a" / "._1.jpg"]  # named is meant


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_an_image_with_bytes_behind_its_end_is_an_image(files, tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    cv2.imwrite(str(path), cv2.imread(str(files[0])))
    whole = images.read_image(path)
    data = path.read_bytes()
    path.write_bytes(data + b"notes of a camera" * 20)
    np.testing.assert_array_equal(images.read_image(path), whole)
    path.write_bytes(data[:-200] + b"\0" * 20)
    with pytest.raises(DataError, match="truncated"):
        images.read_image(path)


def test_the_command_writes_what_other_tools_read_and_says_that_rendered_faces_are_no_photographs(
    aunce, run, files, video, tmp_path
):
    screen = aunce("predict", run, files[0], video)
    assert screen.exit_code == 0, screen.output
    assert "not fit for photographs" in screen.stderr
    assert screen.stdout.splitlines()[0].startswith("input,frame,face_id,track,timestamp,confidence,success,FaceRectX,")
    assert "--detector mtcnn finds them" in screen.stderr  # the run took its images as they were
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
    assert "no face in 2 of 3 frames, listed in" in result.stderr
    table = pd.read_csv(tmp_path / "a.csv")
    assert list(table["input"]) == [str(broken), str(files[0]), str(cut)]
    assert list(table["success"]) == [0, 1, 0]
    assert table.loc[[0, 2], "AU01"].isna().all()


@pytest.mark.parametrize("detector", ["", "mtcnn", "cascade"])
def test_an_image_without_room_for_a_face_has_a_row_and_ends_nothing(aunce, run, files, tmp_path, detector):
    shapes = [(1, 1), (500, 1), (1, 500), (8, 2000)]
    for number, shape in enumerate(shapes):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((*shape, 3), 90, np.uint8))
    shutil.copy(files[0], tmp_path / "5.jpg")
    result = aunce("predict", run, tmp_path, "--detector", detector, "--out", tmp_path / "a.csv")
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(tmp_path / "a.csv")
    assert list(table["success"]) == ([0, 0, 0, 0, 1] if detector else [1] * 5)
    if detector:
        assert "no face in 4 of 5 frames, listed in" in result.stderr
        assert list(table["confidence"][:4]) == [0] * 4


def test_an_image_that_cannot_be_cut_has_a_row_and_its_reason(run, files, monkeypatch):
    model = prediction.load(run, detector="mtcnn")
    whole_picture = images.crop_faces
    calls = iter([DataError("too long"), None])
    monkeypatch.setattr(images, "crop_faces", lambda *words: raised(next(calls)) or whole_picture(*words))
    said = []
    table = pd.concat(prediction.predict(model, files[:2], warn=said.append))
    assert list(table["success"]) == [0, 1]
    assert said == [f"{files[0]}, frame 1: too long"]


def raised(error):
    if error is not None:
        raise error


def test_a_detector_that_is_named_detects_for_a_run_that_took_images_as_they_were(run, files, tmp_path):
    face = images.read_image(files[0])
    scene = np.full((3 * face.shape[0], 4 * face.shape[1], 3), 110, np.uint8)
    scene[64:128, 20:84] = cv2.resize(face, (64, 64))
    cv2.imwrite(str(tmp_path / "scene.png"), scene[..., ::-1])
    (found,) = whole(prediction.load(run, detector="mtcnn"), tmp_path / "scene.png").itertuples()
    assert 0.7 < found.confidence <= 1
    assert 20 < found.left_eye_x < found.right_eye_x < 84
    assert 64 < found.FaceRectY + found.FaceRectHeight / 2 < 128
    (unseen,) = whole(prediction.load(run), tmp_path / "scene.png").itertuples()
    assert (unseen.FaceRectX, unseen.FaceRectY, unseen.FaceRectWidth) == (32, 0, 192)
    assert np.isnan([unseen.confidence, unseen.left_eye_x]).all()


def test_small_faces_are_found_by_a_run_whose_cascade_finds_none(run, files, tmp_path):
    aligned(run, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    metrics["spec"]["detector"] = "cascade"
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    face = images.read_image(files[0])
    scene = np.full((400, 400, 3), 110, np.uint8)
    scene[100:164, 200:264] = cv2.resize(face, (64, 64))
    find = prediction.load(tmp_path / "run").find
    assert find(face)[0].confidence == 1  # by the cascade, as in training
    assert 0.7 < find(scene)[0].confidence < 1


def test_a_video_that_ends_before_the_time_of_its_header_is_noted_and_none_of_its_frames_is_lost(
    model, video, tmp_path
):
    cut = tmp_path / "cut.avi"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 5])
    warned, noted = [], []
    table = pd.concat(prediction.predict(model, [cut], warn=warned.append, note=noted.append))
    assert 0 < len(table) < 5
    assert f"all {len(table)} frames that can be decoded are taken" in noted[0]
    assert "header says about 0.25 s" in noted[0]
    assert not warned


class VariableRate:
    """A decoder of 4 frames within 1 s whose container counts by its mean rate of 25 a second."""

    def __init__(self, path):
        self.times = iter([0.0, 0.04, 0.5, 0.96])

    def get(self, name):
        return {cv2.CAP_PROP_FRAME_COUNT: 25, cv2.CAP_PROP_FPS: 25, cv2.CAP_PROP_POS_MSEC: self.now}[name]

    now = 0.0

    def grab(self):
        self.now = 1000 * next(self.times, -1)
        return self.now >= 0

    def retrieve(self):
        return True, np.full((40, 40, 3), 90, np.uint8)

    def release(self):
        pass


def test_a_whole_video_of_variable_rate_is_whole(model, video, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", VariableRate)
    said = []
    table = pd.concat(prediction.predict(model, [video], warn=said.append, note=said.append))
    assert list(table["timestamp"]) == [0, 0.04, 0.5, 0.96]
    assert not said


@pytest.mark.parametrize(
    ("options", "frames"),
    [({"every": 2}, [1, 3, 5]), ({"fps": 10}, [1, 3, 5]), ({"fps": 4}, [1]), ({"fps": 20}, [1, 2, 3, 4, 5])],
)
def test_frames_of_a_video_are_left_out_by_number_or_by_time(model, video, options, frames):
    said = []
    table = pd.concat(prediction.predict(model, [video], note=said.append, **options))
    assert list(table["frame"]) == frames
    np.testing.assert_allclose(table["timestamp"], (np.array(frames) - 1) / 20)
    assert not said


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


def test_a_run_of_the_notebook_alone_is_taken_as_it_left_it_and_labels_have_their_names(run, model, files, tmp_path):
    def left(path):
        metrics = json.loads(path.read_text())
        metrics["data"]["labels"] = {str(model.aus[0]): "smile"}
        path.with_name("metrics.json.partial").write_text(json.dumps(metrics))
        path.unlink()

    alone = prediction.load(damaged(run, tmp_path / "run", "metrics.json", left))
    table, expected = whole(alone, *files[:2]), whole(model, *files[:2])
    assert alone.columns == ["smile", *model.columns[1:]]
    renamed = {model.columns[0]: "smile", f"{model.columns[0]}_c": "smile_c"}
    pd.testing.assert_frame_equal(table, expected.rename(columns=renamed))
    (tmp_path / "run" / "metrics.json.partial").write_text("{")
    with pytest.raises(DataError, match="not the metrics of a run"):
        prediction.load(tmp_path / "run")


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
