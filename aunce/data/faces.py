"""Face detectors that work without a network: where the eyes of a face are, if the data set does not say it.

`cascade` is the frontal-face cascade of local binary patterns that scikit-image carries. It gives a box; the eyes are
put where they are in the boxes of upright faces, so tilted heads stay tilted. A file of OpenCV's YuNet (ONNX) gives the
eyes themselves; none is shipped, name its path.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aunce.errors import UsageError


class DetectedFace(NamedTuple):
    """A face in an image.

    Attributes:
        eyes: their centres (2, 2), x and y in pixels, that at the image's left first.
        confidence: of the detector, from 0 to 1; always 1 from the cascade, which gives none.
    """

    eyes: NDArray[np.float32]
    confidence: float


FaceDetector = Callable[[NDArray[np.uint8]], list[DetectedFace]]
"""From an image (H, W, 3) RGB to its faces, the largest first."""

_SEARCH = 160  # pixels of the longer side of the image that is searched: faces fill a good part of these recordings
_PAD = 0.25  # of the image on every side, as a face that fills the image is found only with something around it
_IN_BOX = np.array([[0.305, 0.395], [0.695, 0.395]])  # eyes in a box of the cascade; measured on rendered faces


def face_detector(name: str) -> FaceDetector:
    """A detector by name: "cascade", or the path of a YuNet file.

    Raises:
        UsageError: no such file, or one that OpenCV cannot read as a detector.
    """
    if name == "cascade":
        return _in_cascade_boxes
    if not Path(name).is_file():
        raise UsageError(f"detector {name!r}: no such file. Expected 'cascade' or the path of a YuNet file (.onnx).")
    # A detector of OpenCV keeps state, so each thread has its own.
    local = threading.local()

    def yunet(image: NDArray[np.uint8]) -> list[DetectedFace]:
        if not hasattr(local, "net"):
            local.net = _yunet(name)
        local.net.setInputSize((image.shape[1], image.shape[0]))
        _, rows = local.net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        faces = []
        for row in sorted([] if rows is None else rows, key=lambda row: -row[2] * row[3]):
            eyes = row[4:8].reshape(2, 2)
            faces.append(DetectedFace(np.asarray(eyes[np.argsort(eyes[:, 0])], dtype=np.float32), float(row[14])))
        return faces

    _yunet(name)
    return yunet


def identity(name: str) -> str:
    """What stands for a detector in a recipe: its name, or the hash of its file."""
    if name == "cascade" or not Path(name).is_file():
        return name
    return f"yunet {hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]}"


def _yunet(path: str) -> cv2.FaceDetectorYN:
    try:
        return cv2.FaceDetectorYN.create(path, "", (320, 320), 0.6)
    except cv2.error as error:
        raise UsageError(f"detector {path!r}: not a YuNet file that OpenCV can read ({error.err}).") from None


@functools.cache
def _cascade() -> Callable[..., list[dict[str, int]]]:
    # Half a second to import, and only those who detect need it.
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    file = lbp_frontal_face_cascade_filename()  # type: ignore[no-untyped-call]
    detect: Callable[..., list[dict[str, int]]] = Cascade(file).detect_multi_scale
    return detect


_one_at_a_time = threading.Lock()  # scikit-image's cascade keeps its integral image in itself


def _in_cascade_boxes(image: NDArray[np.uint8]) -> list[DetectedFace]:
    scale = min(1.0, _SEARCH / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pad = round(_PAD * max(small.shape[:2]))
    padded = cv2.copyMakeBorder(small, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    side = min(padded.shape[:2])
    with _one_at_a_time:
        boxes = _cascade()(
            img=padded, scale_factor=1.1, step_ratio=1.5, min_size=(side // 4,) * 2, max_size=(side,) * 2
        )
    faces: list[DetectedFace] = []
    for box in sorted(boxes, key=lambda found: (-found["width"], found["r"], found["c"])):
        corner = np.array([box["c"], box["r"]])
        eyes = (corner + _IN_BOX * (box["width"], box["height"]) - pad) / scale
        # The cascade may box one face twice; two heads are never as near as the eyes of one.
        if all(np.hypot(*(eyes - face.eyes).mean(0)) > np.ptp(face.eyes[:, 0]) for face in faces):
            faces.append(DetectedFace(np.asarray(eyes, dtype=np.float32), 1.0))
    return faces
