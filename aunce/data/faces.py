"""Where the eyes of a face are, if nobody has said it: face detectors that work without a network.

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

import cv2
import numpy as np
from numpy.typing import NDArray

from aunce.errors import UsageError

Detector = Callable[[NDArray[np.uint8]], NDArray[np.float32] | None]
"""From an image (H, W, 3) RGB to the centres of the eyes (2, 2), x and y in pixels, that at the image's left first;
None without a face."""

_SEARCH = 160  # pixels of the longer side of the image that is searched: faces fill a good part of these recordings
_PAD = 0.25  # of the image on every side, as a face that fills the image is found only with something around it
_IN_BOX = np.array([[0.305, 0.395], [0.695, 0.395]])  # eyes in a box of the cascade; measured on rendered faces


def detector(name: str) -> Detector:
    """A detector by name: "cascade", or the path of a YuNet file.

    Raises:
        UsageError: no such file, or one that OpenCV cannot read as a detector.
    """
    if name == "cascade":
        return _in_cascade_box
    if not Path(name).is_file():
        raise UsageError(f"detector {name!r}: no such file. Expected 'cascade' or the path of a YuNet file (.onnx).")
    # A detector of OpenCV keeps state, so each thread has its own.
    local = threading.local()

    def yunet(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        if not hasattr(local, "net"):
            local.net = _yunet(name)
        local.net.setInputSize((image.shape[1], image.shape[0]))
        _, found = local.net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if found is None:
            return None
        largest = found[np.argmax(found[:, 2] * found[:, 3])]
        eyes = largest[4:8].reshape(2, 2)
        return np.asarray(eyes[np.argsort(eyes[:, 0])], dtype=np.float32)

    _yunet(name)
    return yunet


def identity(name: str) -> str:
    """What a recipe says of a detector: its name, or the hash of its file."""
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


def _in_cascade_box(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    scale = min(1.0, _SEARCH / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pad = round(_PAD * max(small.shape[:2]))
    padded = cv2.copyMakeBorder(small, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    side = min(padded.shape[:2])
    with _one_at_a_time:
        boxes = _cascade()(
            img=padded, scale_factor=1.1, step_ratio=1.5, min_size=(side // 4,) * 2, max_size=(side,) * 2
        )
    if not boxes:
        return None
    box = max(boxes, key=lambda found: (found["width"], -found["r"], -found["c"]))
    corner = np.array([box["c"], box["r"]])
    return np.asarray((corner + _IN_BOX * (box["width"], box["height"]) - pad) / scale, dtype=np.float32)
