"""What is drawn on a picture is where and as long as the table says."""

import numpy as np
import pandas as pd

from aunce.report import overlay


def test_boxes_eyes_and_bars_are_where_the_table_says():
    image = np.full((500, 600, 3), 90, np.uint8)
    face = {"success": 1, "face_id": 0, "track": 0, "FaceRectX": 100, "FaceRectY": 50, "FaceRectWidth": 200}
    face |= {
        "FaceRectHeight": 250,
        "left_eye_x": 150.0,
        "left_eye_y": 120.0,
        "right_eye_x": np.nan,
        "right_eye_y": np.nan,
    }
    face |= {"AU01": 0.25, "AU01_c": 0, "AU12": 0.75, "AU12_c": 1, "AU17": 0.5, "AU17_c": pd.NA}
    nobody = dict.fromkeys(face, np.nan) | {"success": 0, "face_id": 0, "track": -1}
    drawn = overlay.draw_faces(image, pd.DataFrame([face, nobody]), ["AU01", "AU12", "AU17"], panels=2)
    assert drawn.shape == (500, 600 + 2 * overlay.PANEL, 3)
    colour = overlay.COLOURS[0][::-1]
    for x, y in ((100, 150), (300, 150), (200, 50), (200, 300), (150, 120)):
        assert tuple(drawn[y, x]) == colour
    assert (drawn[120, 200] == 90).all()
    step = 500 // 5
    lengths = [(drawn[row * step - 10, 658:760] != 255).any(axis=1).sum() for row in (2, 3, 4)]
    np.testing.assert_allclose(lengths, np.array([0.25, 0.75, 0.5]) * (overlay.PANEL - 68), atol=2)
    assert tuple(drawn[2 * step - 10, 660]) == overlay.GREY  # absent
    assert tuple(drawn[3 * step - 10, 660]) == colour
    assert (drawn[:, 600 + overlay.PANEL :] == 255).all()  # no second face


def test_a_small_picture_is_enlarged():
    assert overlay.draw_faces(np.zeros((64, 48, 3), np.uint8), pd.DataFrame(), []).shape == (
        640,
        480 + overlay.PANEL,
        3,
    )
