"""The modelled faces: a subject, a scene and AU intensities become pixels, by a head in three dimensions.

Shape is linear: a person's head plus what the AUs' units do to it. A z-buffer finds what each pixel shows; skin is lit
with furrows and bulges as slopes on it. Every frame is computed by itself, so its bytes do not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aunce.data.render.behaviour import AUS, Scene
from aunce.data.render.camera import backdrop, finish, response
from aunce.data.render.difficulty import Difficulty
from aunce.data.render.modelled_head import CHART, RELIEF, head, reliefs
from aunce.data.render.modelled_paint import GLOSS
from aunce.data.render.modelled_people import Identity, identity
from aunce.data.render.modelled_points import POINTS_49
from aunce.data.render.modelled_raster import Array, Hits, raster
from aunce.errors import UsageError

__all__ = ["Identity", "identity", "landmarks", "render"]

Pixels = NDArray[np.uint8]

_FRAME = 0.46  # pixels of a decimetre at the face, share of the image's side
_ABOVE = 0.07  # decimetres from the middle between eyes and mouth up to the image's middle
_PIVOT = -0.75  # z around which the head turns
_LINEAR = ((np.arange(256) / 255) ** 2.2).astype(np.float32)
_GAMMA = (255 * (np.arange(4097) / 4096) ** (1 / 2.2) + 0.5).astype(np.uint8)
_COLUMN = {au: column for column, au in enumerate(AUS)}
_WRAP = (0.30, 0.14, 0.08)  # light travels in the skin, red farthest

head()  # read now: a damaged asset is told before anything is rendered


def _activation(levels: NDArray[np.floating], who: Identity, difficulty: Difficulty) -> Array:
    """Activation of each AU by side, (2, 17): gain (intensity / 5)^0.8, without the resting face."""
    gain = difficulty.expression_gain * (np.asarray(levels, dtype=np.float64) / 5) ** 0.8
    return np.asarray(gain * who.sides, dtype=np.float32)


@dataclass(frozen=True)
class _Pose:
    """One frame of a scene: rotation (3, 3) of the head, gaze right and up, closure of the lids, camera."""

    turn: NDArray[np.float64]
    gaze: tuple[float, float]
    blink: float
    distance: float
    zoom: float
    shift: NDArray[np.float64]


def _poses(scene: Scene) -> list[_Pose]:
    distance = float(np.random.default_rng([scene.seed, 6]).uniform(6, 14))
    out = []
    for t in range(len(scene.yaw)):
        yaw, pitch, roll = (float(np.radians(angle[t])) for angle in (scene.yaw, scene.pitch, scene.roll))
        (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
        turned = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        nodded = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        tilted = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
        gaze = (10 * float(scene.gaze[t, 0]), -10 * float(scene.gaze[t, 1]))
        turn = tilted @ nodded @ turned
        out.append(_Pose(turn, gaze, float(scene.blink[t]), distance, float(scene.scale[t]), scene.shift[t]))
    return out


def _shape(active: Array, who: Identity, pose: _Pose) -> tuple[Array, float]:
    """Vertices (3, V) of a frame, and how far the mouth is open, 0..1."""
    it = head()
    active = active + who.rest_shape
    lips = np.clip(active, 0, 1).max(0)
    # Pressed lips do not open, tight lids do not widen, a lip that is drawn down does not smile.
    free = max(0.1, 1 - 0.8 * float(lips[_COLUMN[24]]) - 0.3 * float(lips[_COLUMN[17]]))
    active[:, [_COLUMN[25], _COLUMN[26]]] *= free
    active[:, _COLUMN[5]] *= 1 - 0.4 * lips[_COLUMN[7]]
    weight = active[0, :, None] * it.mix[0] + active[1, :, None] * it.mix[1]
    weight = weight.sum(0)  # (U,)
    at = it.at
    for side, out in (("Left", pose.gaze[0]), ("Right", -pose.gaze[0])):
        weight[at["eyeLookOut" + side]] += max(out, 0)
        weight[at["eyeLookIn" + side]] += max(-out, 0)
        weight[at["eyeLookUp" + side]] += max(pose.gaze[1], 0)
        weight[at["eyeLookDown" + side]] += max(-pose.gaze[1], 0)
        closed = float(weight[at["eyeBlink" + side]]) * (1 - pose.blink) + pose.blink
        weight[at["eyeBlink" + side]] = min(closed, 1.0)
        weight[at["eyeSquint" + side]] = min(float(weight[at["eyeSquint" + side]]), 1.1) * (1 - pose.blink)
        weight[at["cheekSquint" + side]] = min(float(weight[at["cheekSquint" + side]]), 1.25)
        weight[at["eyeWide" + side]] *= 1 - pose.blink
    jaw = float(weight[at["jawOpen"]])
    # The jaw drops behind closed lips until AU25 parts them, or it has dropped too far for this person's lips.
    parted = min(1.0, 1.6 * float(active[:, _COLUMN[25]].mean()) + max(0.0, jaw / 0.65 - 0.6 * who.seal))
    weight[at["mouthClose"]] = jaw * (1 - parted)
    moved = (it.units @ weight).reshape(3, -1)
    vertices = who.base.copy()
    vertices[:, : moved.shape[1]] += moved * np.float32(who.scale)
    for near, centre, least in who.lids:
        off = vertices[:, near] - centre
        vertices[:, near] = centre + off * np.maximum(least / np.sqrt((off * off).sum(0)), 1)
    upper = float(weight[at["mouthUpperUpLeft"]] + weight[at["mouthUpperUpRight"]]) / 2
    lower = float(weight[at["mouthLowerDownLeft"]] + weight[at["mouthLowerDownRight"]]) / 2
    return vertices, float(np.clip(jaw * parted + 0.6 * lower + upper, 0, 1))


def _project(vertices: Array, pose: _Pose, size: int) -> tuple[Array, Array, Array]:
    """Pixels x and y, and distance from the camera (V,). Pixel centres lie at halves."""
    turn = pose.turn.astype(np.float32)
    x, y, z = vertices[0], vertices[1], vertices[2] - np.float32(_PIVOT)
    wx, wy, wz = (row[0] * x + row[1] * y + row[2] * z for row in turn)
    depth = np.float32(pose.distance - _PIVOT) - wz
    k = np.float32((pose.distance - 0.3) * size * _FRAME * pose.zoom) / depth
    across = np.float32(size * (0.5 + pose.shift[0])) + wx * k
    down = np.float32(size * (0.5 + pose.shift[1])) - (wy - np.float32(_ABOVE)) * k
    return across, down, depth


def _normals(vertices: Array, who: Identity) -> Array:
    """Normals (3, V), of any length."""
    fronts = who.triangles[:, : who.incidence.shape[1]]
    a, b, c = (vertices.take(corner, axis=1) for corner in fronts)
    u, w = b - a, c - a
    faces = np.stack([u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]], axis=1)
    return np.asarray((who.incidence @ faces).T)


@dataclass(frozen=True)
class _Light:
    """Light of one scene in the head's axes."""

    to: Array  # the key light (3,)
    half: Array  # between key light and camera (3,)
    key: float
    ambient: float
    fill: float
    fill_to: Array
    reached: Array  # by the key light, at each vertex of the shared head (V,)


def _lights(scene: Scene) -> _Light:
    it, rng = head(), np.random.default_rng([scene.seed, 7])
    to = np.array([scene.light[0], -scene.light[1], scene.light[2]], dtype=np.float64)
    to = to / np.linalg.norm(to)
    near = np.exp(30 * ((it.directions * to).sum(1) - 1))
    reached = (near[:, None] * it.shadow).sum(0) / near.sum()
    reached[it.inner] = 1  # shadows are those of the closed mouth
    half = to + np.array([0.0, 0.0, 1.0])
    strength = min(float(scene.light_strength), 1.0)
    angle = rng.uniform(0.6, 1.4) * (-1 if to[0] > 0 else 1)
    fill_to = np.array([np.sin(angle), 0.2, np.cos(angle)])
    return _Light(
        to.astype(np.float32), (half / np.linalg.norm(half)).astype(np.float32), 1.75 * strength,
        1.0 - 0.95 * strength, float(rng.uniform(0.05, 0.25)), (fill_to / np.linalg.norm(fill_to)).astype(np.float32),
        reached.astype(np.float32),
    )  # fmt: skip


def _interpolated(values: Array, who: Identity, hits: Hits) -> Array:
    """Values at the vertices (V, C) -> at the pixels (C, M)."""
    a, b, c = who.triangles.take(hits.triangle, axis=1)
    out = values.take(a, axis=0) * (1 - hits.second - hits.third)[:, None]
    out += values.take(b, axis=0) * hits.second[:, None]
    out += values.take(c, axis=0) * hits.third[:, None]
    return np.ascontiguousarray(out.T)


def _looked_up(image: Any, x: Array, y: Array, scale: float = 1.0) -> Any:
    """Colours (M, C) of an image at pixels x, y (M,)."""
    rows = -(-len(x) // 512)
    maps = np.zeros((2, rows * 512), dtype=np.float32)
    maps[0, : len(x)], maps[1, : len(x)] = x * np.float32(scale), y * np.float32(scale)
    grid = maps.reshape(2, rows, 512)
    found = cv2.remap(image, grid[0], grid[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return found.reshape(rows * 512, -1)[: len(x)]


def _shade(values: Array, slopes: Any, colour: Any, light: _Light, turn: Array) -> Array:
    """Linear light (M, 3) of pixels: values are normal x, y, z, ambient and direct share (rows of (5, M))."""
    nx, ny, nz, ambient_share, direct = values
    inverse = 1 / (np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12)
    nx, ny, nz = nx * inverse, ny * inverse, nz * inverse
    # Furrows tilt the normal along the skin's own axes: to the person's left, and down.
    flat = 1 / np.sqrt(nx * nx + nz * nz + 1e-6)
    tx, tz = nz * flat, -nx * flat
    bx, by, bz = ny * tz, nz * tx - nx * tz, -ny * tx
    sign = -np.sign(by)
    a, b = slopes[:, 0] * np.float32(0.46), slopes[:, 1] * np.float32(0.46) * sign
    nx, ny, nz = nx - a * tx - b * bx, ny - b * by, nz - a * tz - b * bz
    inverse = 1 / (np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12)
    nx, ny, nz = nx * inverse, ny * inverse, nz * inverse
    facing = nx * light.to[0] + ny * light.to[1] + nz * light.to[2]
    up, fill = turn[1], light.fill_to
    around = np.float32(light.ambient) * (0.72 + 0.28 * (nx * up[0] + ny * up[1] + nz * up[2]))
    around += np.float32(light.fill) * np.maximum(nx * fill[0] + ny * fill[1] + nz * fill[2], 0)
    around *= ambient_share
    p = np.maximum(nx * light.half[0] + ny * light.half[1] + nz * light.half[2], 0)
    p4 = (p * p) * (p * p)
    p12 = p4 * p4 * p4
    p64 = (p12 * p4) * (p12 * p4)
    p64 *= p64
    gloss = colour[:, 3] * np.float32(1 / GLOSS)
    shine = np.where(gloss > 4, 1.6 * p64 * p64 * p64, gloss * (0.045 * p12 + 0.05 * p64))
    shine = shine * np.float32(light.key) * direct
    dark = np.float32(0.16) * slopes[:, 2]
    albedo = _LINEAR.take(colour[:, :3])
    out = np.empty((len(p), 3), dtype=np.float32)
    for c, (wrap, deep, bleed) in enumerate(zip(_WRAP, (0.7, 1.0, 1.0), (0.25, 0.0, -0.05), strict=True)):
        lit = np.maximum((facing + np.float32(wrap)) * np.float32(light.key / (1 + wrap)), 0) * direct + around
        lit *= 1 + np.float32(bleed) * (1 - ambient_share)
        out[:, c] = albedo[:, c] * np.clip(1 + dark * np.float32(deep), 0.35, 1) * lit + shine
    out *= np.float32(1.15) / (1 + np.float32(0.35) * out[:, 1:2])  # highlights roll off instead of clipping
    return out


def _canvas(size: int) -> int:
    """Side of the canvas: twice the image's where that is cheap."""
    return 2 * size if size <= 128 else round(1.5 * size)


def render(intensities: NDArray[np.floating], who: Identity, scene: Scene, difficulty: Difficulty, size: int) -> Pixels:
    """Images (T, size, size, 3) of one person in one scene, RGB. `intensities` (T, 17) in 0..5."""
    if not 16 <= size <= 512:
        raise UsageError(f"size of rendered faces: expected 16 to 512 pixels, got {size}")
    levels, canvas, light = np.asarray(intensities, dtype=np.float64), _canvas(size), _lights(scene)
    behind, table = backdrop(scene, canvas), response(scene)
    out = np.empty((len(levels), size, size, 3), dtype=np.uint8)
    for frame, pose in enumerate(_poses(scene)):
        image = behind.copy()
        _draw(image, _activation(levels[frame], who, difficulty), who, pose, light, canvas)
        out[frame] = finish(image, scene, frame, size, table)
    return out


def _draw(image: Pixels, active: Array, who: Identity, pose: _Pose, light: _Light, canvas: int) -> None:
    """Draw one face on its background, in place (canvas, canvas, 3)."""
    it = head()
    vertices, mouth = _shape(active, who, pose)
    x, y, depth = _project(vertices, pose, canvas)
    hits = raster(x, y, depth, who.triangles, canvas)
    occluded = who.occlusion[0] * np.float32(1 - mouth) + who.occlusion[1] * np.float32(mouth)
    direct = np.ones_like(occluded)
    direct[: len(light.reached)] = light.reached * (0.75 + 0.25 * occluded[: len(light.reached)])
    direct[: len(light.reached)][it.inner] *= occluded[: len(light.reached)][it.inner]
    values = np.concatenate([_normals(vertices, who), who.texture, who.relief, occluded[None], direct[None]])
    found = _interpolated(np.ascontiguousarray(values.T), who, hits)
    colour = _looked_up(who.atlas, found[3], found[4])
    folds, weights = reliefs()
    depth_of = 1 - np.exp(-1.4 * ((active + who.rest_furrows)[:, :, None] * weights).sum(1) * who.furrows)
    relief = (folds @ depth_of.ravel()).reshape(RELIEF, RELIEF, 3)
    slopes = _looked_up(relief, found[5], found[6], RELIEF / CHART)
    shaded = _shade(found[[0, 1, 2, 7, 8]], slopes, colour, light, pose.turn.astype(np.float32))
    flat = image.reshape(-1, 3)
    flat[hits.pixel] = _GAMMA.take(np.clip(shaded * 4096, 0, 4096).astype(np.int16))
    _lashes(flat, x, y, depth, hits, who, canvas)


def _lashes(flat: Any, x: Array, y: Array, depth: Array, hits: Hits, who: Identity, canvas: int) -> None:
    """Lashes, half transparent to their tips, over what is drawn (canvas * canvas, 3)."""
    it = head()
    far = np.full(canvas * canvas, np.inf, dtype=np.float32)
    far[hits.pixel] = hits.depth
    lash = raster(x, y, depth, it.lashes, canvas)
    a, b, c = (it.lash_opacity.take(corner) for corner in it.lashes.take(lash.triangle, axis=1))
    share = a + (b - a) * lash.second + (c - a) * lash.third
    share *= lash.depth < far.take(lash.pixel) + np.float32(0.02)
    dark = 255 * who.lash ** np.float32(1 / 2.2)
    under = flat[lash.pixel].astype(np.float32)
    flat[lash.pixel] = np.rint(under + (dark - under) * share[:, None]).astype(np.uint8)


def landmarks(
    intensities: NDArray[np.floating], who: Identity, scene: Scene, difficulty: Difficulty, size: int
) -> NDArray[np.float64]:
    """The 49 points of `Population.landmarks` in the images that `render` gives for the same arguments."""
    levels = np.asarray(intensities, dtype=np.float64)
    out = np.empty((len(levels), 49, 2))
    for frame, pose in enumerate(_poses(scene)):
        vertices, _ = _shape(_activation(levels[frame], who, difficulty), who, pose)
        x, y, _ = _project(vertices[:, POINTS_49()], pose, size)
        out[frame] = np.stack([x, y], axis=-1) - 0.5
    return out
