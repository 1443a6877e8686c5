"""A picture with the faces that were found in it: boxes, eyes, and a bar for each action unit."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

SHORTEST = 480  # pixels that the shorter side of a picture is enlarged to, so that its text can be read
PANEL = 170  # pixels beside the picture for the bars of one face
GREY = (150, 150, 150)
COLOURS = ((180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214), (189, 103, 148))  # BGR, one for each track


def draw_faces(
    image: NDArray[np.uint8], faces: pd.DataFrame, aus: Sequence[str], *, panels: int = 1
) -> NDArray[np.uint8]:
    """The picture with what `aunce.prediction.table` says of it.

    Args:
        image: (H, W, 3) RGB.
        faces: the rows of this image; those without a face show nothing.
        aus: columns of probabilities. A bar is grey where the column `<AU>_c` says that the unit is absent.
        panels: for the bars of how many faces there is room; the largest have them.

    Returns:
        (H', W', 3) RGB, even sides, the same for all images of one shape and number of panels.
    """
    scale = max(1.0, SHORTEST / min(image.shape[:2]))
    picture = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    canvas = np.full((height, width + panels * PANEL, 3), 255, np.uint8)
    canvas[:, :width] = picture[:height, :width]
    found = [face for _, face in faces.iterrows() if face["success"]]
    for place, face in enumerate(found):
        colour = COLOURS[int(face["track"]) % len(COLOURS)][::-1]
        x, y, wide, high = (int(face[f"FaceRect{name}"] * scale) for name in ("X", "Y", "Width", "Height"))
        cv2.rectangle(canvas[:, :width], (x, y), (x + wide, y + high), colour, 2)
        for side in ("left", "right"):
            if np.isfinite(face[f"{side}_eye_x"]):
                eye = (int(face[f"{side}_eye_x"] * scale), int(face[f"{side}_eye_y"] * scale))
                cv2.circle(canvas[:, :width], eye, 3, colour, -1)
        if place < panels:
            _bars(canvas[:, width + place * PANEL : width + (place + 1) * PANEL], face, aus, colour)
    return canvas


def _bars(panel: NDArray[np.uint8], face: Any, aus: Sequence[str], colour: tuple[int, ...]) -> None:
    step = panel.shape[0] // (len(aus) + 2)
    _write(panel, f"face {face['face_id']}, track {face['track']}", (6, step), colour)
    for row, au in enumerate(aus, 2):
        absent = pd.notna(face.get(f"{au}_c")) and face[f"{au}_c"] == 0
        _write(panel, au, (6, row * step), (0, 0, 0))
        end = 58 + round(float(face[au]) * (PANEL - 68))
        cv2.rectangle(panel, (58, row * step - step // 2), (end, row * step), GREY if absent else colour, -1)


def _write(panel: NDArray[np.uint8], text: str, place: tuple[int, int], colour: tuple[int, ...]) -> None:
    cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
