"""The drawn faces: a subject, a scene and AU intensities become pixels.

OpenCV draws skin and features, then a layer of light and furrows that multiplies them, at twice the asked size.
`identity`, `render` and `landmarks` are what a population needs of a generator of faces.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aunce.data.render.behaviour import Scene, plain_scene
from aunce.data.render.camera import backdrop, finish, response
from aunce.data.render.difficulty import Difficulty
from aunce.data.render.drawn_geometry import (
    BULGE_WEIGHTS,
    CENTRE_Y,
    FURROW_WEIGHTS,
    INDEX,
    POINTS,
    SHIFT,
    WINDOW,
    Identity,
    Shapes,
    activations,
    geometry,
    identity,
    landmarks,
    project,
)
from aunce.data.render.drawn_tables import BULGES, FURROWS
from aunce.errors import UsageError

__all__ = ["Identity", "identity", "landmarks", "render"]

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
Curves = Mapping[str, NDArray[np.int32]]


def _mix(*parts: tuple[Array, float]) -> Colour:
    total = sum((np.asarray(colour, dtype=np.float64) * share for colour, share in parts), np.zeros(3))
    red, green, blue = (int(np.clip(round(float(v)), 0, 255)) for v in total)
    return red, green, blue


class Palette:
    """Colours of one person before light falls on them."""

    def __init__(self, who: Identity) -> None:
        skin, hair = who.skin, who.hair
        red = skin * (0.92, 0.60, 0.62)
        self.skin = _mix((skin, 1.0))
        self.lid = _mix((skin * (0.93, 0.88, 0.88), 1.0))
        self.neck = _mix((skin, 0.66))
        self.ear = _mix((skin * (0.96, 0.86, 0.84), 0.92))
        self.hair = _mix((hair, 1.0))
        self.brow = _mix((hair, 0.68), (skin, 0.22))
        self.lash = _mix((hair, 0.35), (skin, 0.12))
        self.iris = _mix((who.iris, 1.0))
        self.sclera = _mix((np.array([232, 228, 224]), 0.96))
        self.upper_lip = _mix((red, 0.86 * who.lip_red), (skin, 0.86 * (1 - who.lip_red)))
        self.lower_lip = _mix((red, who.lip_red), (skin, 1 - who.lip_red))
        self.lip_line = _mix((red, 0.45))
        self.teeth = _mix((np.array([242, 236, 222]), who.teeth))
        self.beard = _mix((hair, who.beard), (skin, 1 - who.beard))


def _fill(image: Pixels, points: NDArray[np.int32], colour: Colour | int) -> None:
    cv2.fillPoly(image, [points], colour, cv2.LINE_AA, SHIFT)


def _line(image: Pixels, points: NDArray[np.int32], colour: Colour | int, width: float) -> None:
    cv2.polylines(image, [points], False, colour, max(1, round(width)), cv2.LINE_AA, SHIFT)


def _oval(
    image: Pixels, centre: NDArray[np.int32], radii: tuple[float, float], colour: Colour | int, width: int = -1
) -> None:
    place, axes = (
        (int(centre[0]), int(centre[1])),
        (round(radii[0] * (1 << SHIFT)), round(radii[1] * (1 << SHIFT))),
    )
    cv2.ellipse(image, place, axes, 0, 0, 360, colour, width, cv2.LINE_AA, SHIFT)


def draw_head(image: Pixels, curves: Curves, who: Identity, paint: Palette, unit: float) -> None:
    """Hair behind, neck, ears, the face's skin."""
    face = curves["face"]
    right, left, low = face[10], face[50], face[30]
    width, centre = right[0] - left[0], (right + left) // 2
    if who.hair_style == "long":
        back = np.array([(-0.62, -0.6), (0.62, -0.6), (0.72, 1.6), (-0.72, 1.6)]) * width + centre
        _fill(image, back.astype(np.int32), _mix((who.hair, 0.75)))
    neck = np.array([(-0.32, -0.45), (0.32, -0.45), (0.36, 0.8), (-0.36, 0.8)]) * width + low
    _fill(image, neck.astype(np.int32), paint.neck)
    for ear in (right, left):
        _oval(image, ear, (0.09 * unit, 0.2 * unit), paint.ear)
    _fill(image, face, paint.skin)


def draw_beard(image: Pixels, curves: Curves, paint: Palette) -> None:
    """Beard and moustache, under the lips."""
    for name in ("beard", "moustache"):
        _fill(image, curves[name], paint.beard)


def draw_eye(image: Pixels, curves: Curves, side: int, paint: Palette, unit: float) -> None:
    """Sclera, iris and pupil, then the lids that cover them, lashes and brow."""
    _fill(image, curves[f"eye{side}"], paint.sclera)
    iris = curves[f"iris{side}"][0]
    rings = ((0.0, 0.083, paint.iris), (0.0, 0.036, (14, 12, 12)), (-0.025, 0.014, (250, 250, 250)))
    for offset, radius, colour in rings:
        _oval(image, iris + round(offset * unit * (1 << SHIFT)), (radius * unit, radius * unit), colour)
    _fill(image, curves[f"lid{side}"], paint.lid)
    _fill(image, curves[f"pouch{side}"], paint.skin)
    _line(image, curves[f"lower{side}"], paint.ear, 0.02 * unit)
    _line(image, curves[f"lash{side}"], paint.lash, 0.028 * unit)
    _fill(image, curves[f"brow{side}"], paint.brow)


def draw_mouth(image: Pixels, curves: Curves, paint: Palette, unit: float) -> None:
    """Cavity and upper teeth between the lips, lips over them."""
    _fill(image, curves["cavity"], (52, 16, 18))
    _fill(image, curves["teeth"], paint.teeth)
    _fill(image, curves["upper lip"], paint.upper_lip)
    _fill(image, curves["lower lip"], paint.lower_lip)
    _line(image, curves["lip line"], paint.lip_line, 0.016 * unit)


def draw_glasses(image: Pixels, curves: Curves, unit: float) -> None:
    """Dark frames."""
    right, left = (curves[f"iris{side}"][0] for side in (0, 1))
    for centre in (right, left):
        _oval(image, centre, (0.25 * unit, 0.19 * unit), (40, 36, 36), max(1, round(0.025 * unit)))
    reach = np.array([round(0.25 * unit * (1 << SHIFT)), 0], dtype=np.int32)
    _line(image, np.stack([left + reach, right - reach]), (40, 36, 36), 0.025 * unit)


def shade_features(layer: Pixels, curves: Curves, light_x: float, unit: float) -> None:
    """Nose, lid creases and lip shadow in the layer of furrows (128 = no change)."""
    wide, fine = 0.05 * unit, 0.022 * unit
    for side in (0, 1):
        away = 0.5 + (0.5 if side else -0.5) * light_x  # the flank turned away from the light is darker
        _line(layer, curves[f"flank{side}"], int(120 - 26 * away), wide)
        _line(layer, curves[f"wing{side}"], 100, fine)
        _line(layer, curves[f"crease{side}"], 102, fine)
    _line(layer, curves["ridge"], 142, wide)
    _line(layer, curves["base"], 104, fine)
    _line(layer, curves["lip shine"], 146, fine)
    _line(layer, curves["lip shadow"], 108, wide)
    for side in (0, 1):
        _oval(layer, curves[f"nostril{side}"][0], (0.042 * unit, 0.02 * unit), 34)


_FURROW_ITEMS = tuple((name, width) for name, (_, _, width) in FURROWS.items())
_ACROSS = frozenset(name for name, (points, _, _) in FURROWS.items() if points[0][0] == 0)


def shade_furrows(layer: Pixels, curves: Curves, depth: Array, unit: float) -> None:
    """Furrows as strokes that fade to their ends. The deeper is drawn last, so it wins overlaps. depth (2, furrows)."""
    for flat in np.argsort(depth, axis=None):
        side, index = divmod(int(flat), depth.shape[1])
        if depth[side, index] * 70 < 0.5:
            continue
        name, width = _FURROW_ITEMS[index]
        wide = max(1, round(width * unit))
        level = 70 * depth[side, index] * min(1.5, width * unit / wide)
        points = curves[f"{name}{side}"]
        _line(layer, points, int(128 - 0.6 * level), wide)
        _line(layer, points[:-2] if name in _ACROSS else points[1:-1], int(128 - level), wide)


_BULGE_ITEMS = tuple((radii, centre[0] == 0) for centre, radii, _, _ in BULGES.values())
_BULGE_AMPLITUDE = np.array([amplitude for _, _, amplitude, _ in BULGES.values()])


def shade_bulges(layer: Pixels, centres: NDArray[np.int32], size: Array, unit: float) -> None:
    """Bulges and hollows as ellipses, to be blurred; the strongest wins overlaps. centres (2, n, 2), size (2, n)."""
    levels = 60 * _BULGE_AMPLITUDE * size
    for flat in np.argsort(np.abs(levels), axis=None):
        side, index = divmod(int(flat), levels.shape[1])
        radii, middle = _BULGE_ITEMS[index]
        if abs(levels[side, index]) < 0.5 or (middle and side):
            continue
        # This layer has half the canvas's size.
        place, axes = centres[side, index] // 2, (radii[0] * unit / 2, radii[1] * unit / 2)
        _oval(layer, place, axes, round(128 + levels[side, index]))


@functools.lru_cache(maxsize=8)
def _normals(canvas: int) -> NDArray[np.float32]:
    """Unit normals (3, canvas, canvas) of a frontal head: an ellipsoid with hollows and bumps."""
    y, x = np.mgrid[:canvas, :canvas] / canvas * WINDOW - WINDOW / 2
    y = y + CENTRE_Y
    z = 0.75 * np.sqrt(np.maximum(0.03, 1 - (x / 0.92) ** 2 - (y / 1.4) ** 2))
    a = np.abs(x)
    for cx, cy, rx, ry, height in (
        (0.36, -0.20, 0.18, 0.11, -0.07),  # eye socket
        (0.36, -0.46, 0.30, 0.09, 0.035),  # brow ridge
        (0.48, 0.10, 0.20, 0.16, 0.05),  # cheekbone
        (0.00, 0.56, 0.24, 0.14, 0.06),  # mouth
        (0.00, 0.92, 0.16, 0.12, 0.06),  # chin
        (0.00, 0.12, 0.13, 0.22, 0.09),  # nose
        (0.42, 0.48, 0.14, 0.20, -0.03),  # hollow of the cheek
    ):
        z = z + height * np.exp(-(((a - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
    step = WINDOW / canvas
    dy, dx = np.gradient(z, step)
    normals = np.stack([-dx, -dy, np.ones_like(z)])
    return np.asarray(normals / np.sqrt((normals**2).sum(0)), dtype=np.float32)


def skin_light(who: Identity, scene: Scene, canvas: int) -> Pixels:
    """Light on a frontal head, uint8 with 128 = the albedo as it is."""
    facing = np.tensordot(scene.light.astype(np.float32), _normals(canvas), axes=1)
    shine = np.maximum(facing, 0)
    light = 1 - scene.light_strength + scene.light_strength * 1.2 * shine + 0.10 * shine**12
    mottle = cv2.resize(who.mottle.astype(np.float32), (canvas, canvas), interpolation=cv2.INTER_CUBIC)
    return np.clip(118 * light * (1 + 0.02 * mottle), 0, 255).astype(np.uint8)


def _tint() -> Pixels:
    """Light level -> factor per channel (128 = 1): shadows in skin turn red, since light travels in it."""
    level = np.arange(256)[:, None] / 128
    return np.asarray(np.clip(128 * level ** np.array([0.88, 1.0, 1.06]), 0, 255), dtype=np.uint8)[:, None]


_TINT = _tint()


def render(intensities: NDArray[np.floating], who: Identity, scene: Scene, difficulty: Difficulty, size: int) -> Pixels:
    """Images (T, size, size, 3) of one person in one scene, RGB. `intensities` (T, 17) in 0..5."""
    if not 16 <= size <= 512:
        raise UsageError(f"size of rendered faces: expected 16 to 512 pixels, got {size}")
    levels, canvas = np.asarray(intensities, dtype=np.float64), 2 * size
    points = geometry(activations(levels, who, difficulty, who.rest_shape), who, scene.blink, scene.gaze)
    units = canvas / WINDOW * scene.scale
    shapes = Shapes(project(points, scene, canvas), who, units)
    active = activations(levels, who, difficulty, who.rest_furrows)
    furrows, bulges = (1 - np.exp(-1.4 * active @ weight) for weight in (FURROW_WEIGHTS, BULGE_WEIGHTS))  # (T, 2, n)
    light, behind, paint, table = (
        skin_light(who, scene, canvas),
        backdrop(scene, canvas),
        Palette(who),
        response(scene),
    )
    unmoved = _anchors(who, plain_scene(1), canvas)[0]
    out = np.empty((len(levels), size, size, 3), dtype=np.uint8)
    for frame, anchors in enumerate(_anchors(who, scene, canvas)):
        curves = {name: points[frame] for name, points in shapes.curves.items()}
        unit = float(units[frame])
        image: Any = behind.copy()
        draw_head(image, curves, who, paint, unit)
        if who.beard:
            draw_beard(image, curves, paint)
        for side in (0, 1):
            draw_eye(image, curves, side, paint, unit)
        draw_mouth(image, curves, paint, unit)
        fine = np.full((canvas, canvas), 128, dtype=np.uint8)
        shade_features(fine, curves, float(scene.light[0]), unit)
        shade_furrows(fine, curves, furrows[frame], unit)
        soft = np.full((size, size), 128, dtype=np.uint8)
        shade_bulges(soft, shapes.bulges[frame], bulges[frame], unit)
        shade = _light_of(light, fine, soft, curves["face"], cv2.getAffineTransform(unmoved, anchors), unit)
        image = cv2.multiply(image, cv2.LUT(cv2.cvtColor(shade, cv2.COLOR_GRAY2RGB), _TINT), scale=1 / 128)
        if who.hair_style != "bald":
            _fill(image, curves["hair"], paint.hair)
        if who.glasses:
            draw_glasses(image, curves, unit)
        out[frame] = finish(image, scene, frame, size, table)
    return out


def _anchors(who: Identity, scene: Scene, canvas: int) -> NDArray[np.float32]:
    """Where three points of the resting head lie on the canvas, (T, 3, 2): they carry the light along with the pose."""
    points = np.tile(POINTS * who.stretch, (len(scene.yaw), 2, 1, 1))  # (T, 2, P, 2)
    points[:, 1, :, 0] *= -1
    pixels = project(points, scene, canvas)
    eye, chin = INDEX["eye_out"], INDEX["chin"]
    return np.stack([pixels[:, 0, eye], pixels[:, 1, eye], pixels[:, 0, chin]], axis=1).astype(np.float32)


def _light_of(light: Pixels, fine: Pixels, soft: Any, face: NDArray[np.int32], warp: Any, unit: float) -> Any:
    """Light, furrows and bulges together inside the face, even light around it."""
    canvas = light.shape[0]
    moved = cv2.warpAffine(light, warp, (canvas, canvas), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    fine_soft = cv2.GaussianBlur(fine, (0, 0), max(0.5, 0.011 * unit))
    ridge = np.roll(fine_soft, max(1, round(0.03 * unit)), axis=0)  # a furrow lifts the skin below it
    relief = cv2.addWeighted(fine_soft, 1.0, ridge, -0.3, 0.3 * 128)
    reach = 2 * round(0.07 * unit / 2) + 1
    soft = cv2.resize(cv2.blur(cv2.blur(soft, (reach, reach)), (reach, reach)), (canvas, canvas))
    shade = cv2.addWeighted(moved, 1.0, relief, 1.0, -128)
    shade = cv2.addWeighted(shade, 1.0, soft, 1.0, -128)
    mask = np.zeros((canvas, canvas), dtype=np.uint8)
    cv2.fillPoly(mask, [face], 255, cv2.LINE_8, SHIFT)
    around = np.full((canvas, canvas), 118, dtype=np.uint8)
    cv2.copyTo(shade, mask, around)
    return around
