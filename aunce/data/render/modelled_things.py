"""Hair and glasses of the modelled faces: styles, hairlines, and meshes beside that of the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aunce.data.render.modelled_head import AXIS, CHART, PATCH, Head
from aunce.data.render.modelled_raster import Array, Indices


@dataclass(frozen=True)
class Style:
    """A way to wear hair; lengths in decimetres.

    Attributes:
        men, women: how often, in shares.
        top, sides: how far hair stands off the scalp.
        curl: unevenness of its surface and edge, 0..1.
        cover: opacity on the scalp, 0..1.
        line: how much lower the hairline lies at the forehead's middle.
        part: how much the hairline leans to one side.
        length: how far hair hangs below the crown; 0 = it does not hang.
        flare: how far it stands off the head where it hangs.
        wave: amplitude of its waves.
        fringe: how far strands fall over the forehead.
    """

    men: float
    women: float
    top: float
    sides: float
    curl: float = 0.15
    cover: float = 0.99
    line: float = 0.0
    part: float = 0.0
    length: float = 0.0
    flare: float = 0.0
    wave: float = 0.0
    fringe: float = 0.0


STYLES: Mapping[str, Style] = {
    "bald": Style(0.06, 0.0, 0.0, 0.0, cover=0.25),
    "buzz": Style(0.16, 0.01, 0.02, 0.01, cover=0.75),
    "crop": Style(0.22, 0.06, 0.08, 0.04, curl=0.25),
    "side part": Style(0.16, 0.04, 0.13, 0.05, part=0.07),
    "quiff": Style(0.12, 0.02, 0.20, 0.03, curl=0.25, line=-0.02),
    "curly": Style(0.10, 0.08, 0.17, 0.12, curl=0.9),
    "afro": Style(0.04, 0.06, 0.38, 0.34, curl=1.0),
    "tousled": Style(0.10, 0.08, 0.14, 0.09, curl=0.6, fringe=0.16),
    "tied back": Style(0.03, 0.17, 0.05, 0.03, curl=0.05, line=-0.03),
    "bob": Style(0.0, 0.14, 0.10, 0.08, length=2.1, flare=0.08, wave=0.03, part=0.06),
    "bob with fringe": Style(0.0, 0.08, 0.10, 0.08, length=2.0, flare=0.06, wave=0.02, fringe=0.36),
    "long straight": Style(0.01, 0.14, 0.07, 0.05, length=3.3, wave=0.015, part=0.0),
    "long wavy": Style(0.02, 0.14, 0.12, 0.09, curl=0.4, length=3.2, flare=0.10, wave=0.07, part=0.06),
    "long curly": Style(0.0, 0.07, 0.18, 0.16, curl=0.9, length=2.9, flare=0.24, wave=0.09),
}


@dataclass(frozen=True)
class Hairline:
    """Height above which the scalp has hair, by the angle around the head (-pi..pi, 0 = front, + = person's left)."""

    angles: NDArray[np.float64]
    heights: NDArray[np.float64]

    def __call__(self, angle: NDArray[np.floating]) -> NDArray[np.float64]:
        """Heights at angles of any shape."""
        return np.asarray(np.interp(angle, self.angles, self.heights))


_ANGLES = np.array([0, 0.18, 0.36, 0.56, 0.74, 0.90, 1.04, 1.14, 1.22, 1.32, 1.44, 1.9, 2.4, 3.2])
_HEIGHTS = np.array([8.08, 8.08, 8.06, 7.97, 7.80, 7.61, 7.45, 7.30, 7.12, 7.10, 7.36, 6.75, 6.45, 6.40])
_TEMPLE = np.exp(-(((_ANGLES - 0.58) / 0.28) ** 2))  # where hairlines recede first
_FRONT = np.exp(-((_ANGLES / 0.55) ** 2))


def hairline(rng: np.random.Generator, style: str, recede: float) -> Hairline:
    """Draw the hairline of a person who wears a style."""
    how = STYLES[style]
    low = _HEIGHTS - how.line * _FRONT + rng.normal(0, 0.025) * _FRONT
    low = low + (0.06 * rng.uniform(-0.3, 1) + 0.28 * recede) * _TEMPLE + 0.25 * max(recede - 0.5, 0) * _FRONT
    low[6:9] += rng.uniform(-0.05, 0.12)  # sideburns
    if style == "bald":
        low = low + 0.45 * np.exp(-((_ANGLES / 1.0) ** 4))
    ways = rng.choice([-1.0, 1.0]) * how.part
    right, left = (low - sign * ways * np.exp(-(((_ANGLES - 0.3) / 0.35) ** 2)) for sign in (-1, 1))
    return Hairline(np.concatenate([-_ANGLES[:0:-1], _ANGLES]), np.concatenate([right[:0:-1], left]))


def _around(it: Head) -> Array:
    return np.asarray(np.arctan2(it.template[0], it.template[2] - AXIS))


def moved(it: Head, v: Array) -> Array:
    """How far a person's head lies from the template's (3, 1): shapes of people move the whole head."""
    ears = it.masks["ears"] > 0.5
    return np.asarray(v[:, ears].mean(1, keepdims=True) - it.template[:, ears].mean(1, keepdims=True))


def puffed(it: Head, v: Array, line: Hairline, style: Style, rng: np.random.Generator) -> Array:
    """The head with its hair: the scalp is pushed out, the more the further from the hairline (3, V)."""
    above = it.template[1] - line(_around(it))
    scalp = it.skin & (it.masks["ears"] < 0.25)
    grown = np.clip(above / (0.12 + 0.6 * style.top), 0, 1) * scalp
    high = np.clip((it.template[1] - 7.75) / 0.5, 0, 1)
    thick = style.sides * (1 - high) + style.top * high
    thick = thick * rng.uniform(0.75, 1.3) * np.clip((it.template[1] - 6.6) / 0.9, 0, 1)  # no wings at the nape
    waves, phases = rng.normal(0, 5.0, (3, 8)), rng.uniform(0, 2 * np.pi, 8)
    bumps = np.sin(np.tensordot(waves, it.template, (0, 0)) + phases[:, None]).sum(0) / 4
    thick = thick * (1 + 0.35 * style.curl * bumps) * grown
    centre = np.array([[0.0], [7.45], [AXIS + 0.05]]) + moved(it, v)
    out = v - centre
    return np.asarray(v + thick * out / np.linalg.norm(out, axis=0), dtype=np.float32)


@dataclass(frozen=True)
class Things:
    """A mesh beside that of the head: vertices (3, E), triangles (3, G), places in the atlas (2, E)."""

    vertices: Array
    triangles: Indices
    texture: Array
    occlusion: float = 1.0


def _grid(rows: int, columns: int, *, closed: bool = False) -> Indices:
    """Triangles of a grid of vertices; they face the camera where rows go down and columns to the person's left."""
    row, column = np.mgrid[: rows - 1, : columns - (not closed)]
    a, b = row * columns + column, row * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    lower, upper = np.stack([a, d, b]).reshape(3, -1), np.stack([a, c, d]).reshape(3, -1)
    return np.concatenate([lower, upper], axis=1).astype(np.intp)


def hanging_hair(it: Head, v: Array, style: Style, rng: np.random.Generator) -> Things:
    """Hair that hangs around the back and the sides, in strands whose ends and edges differ."""
    rows, columns = 24, 41
    lock = np.convolve(rng.standard_normal(columns + 6), np.hanning(9)[1:-1] / 2, "valid")
    edge = np.convolve(rng.standard_normal(rows + 6), np.hanning(9)[1:-1] / 2, "valid")[:, None]
    down = np.linspace(0, 1, rows)[:, None]
    length = (style.length * rng.uniform(0.93, 1.05)) * (1 + 0.02 * lock)
    high = 8.05 - down * (length - 0.35)  # (rows, columns)
    front = 0.98 + 0.10 * np.clip((8.0 - high) / 0.8, 0, 1.2) - 0.30 * np.clip((6.6 - high) / 1.0, 0, 1)
    front = front + 0.02 * edge + 0.05 * np.sin(4 * high + rng.uniform(0, 6, 1))
    share = np.linspace(0, 1, columns)[None]
    share = 0.5 + 0.5 * np.sign(share - 0.5) * np.abs(2 * share - 1) ** 0.7  # finer at both edges
    angle = front + share * (2 * np.pi - 2 * front)
    dome = np.sqrt(np.clip(1 - (np.maximum(high - 7.55, 0) / 0.98) ** 2, 0.05, 1))
    fall = np.clip((7.4 - high) / 1.0, 0, 1)
    radius = dome + (style.sides + style.flare * fall) * 0.9
    radius = radius * (1 - 0.10 * np.clip((6.7 - high) / 0.8, 0, 1)) + 0.025 * lock
    radius = radius * (1 - 0.3 * np.clip((high - 7.4) / 0.6, 0, 1) ** 2)  # tucked into the hair of the scalp
    radius = radius * (1 - 0.15 * np.clip((down - 0.8) / 0.2, 0, 1) ** 2)  # ends turn inwards
    ripple = style.wave * np.sin(high * rng.uniform(6, 9) + 1.5 * lock + rng.uniform(0, 6))
    radius = radius + ripple * fall
    scalp = it.skin & (it.template[1] > 7.5) & (it.template[1] < 7.9)
    wide = np.abs(v[0, scalp]).max() / np.abs(it.template[0, scalp]).max()
    x = 0.80 * wide * radius * np.sin(angle)
    z = AXIS + 0.03 + 0.90 * radius * np.cos(angle)
    vertices = np.stack([x, high + 0.04, z]).reshape(3, -1) + moved(it, v)
    u = PATCH * 3 + 3 + (PATCH - 6) * np.broadcast_to(np.linspace(0, 1, columns), (rows, columns))
    rowwise = CHART + 3 + (PATCH - 14) * np.broadcast_to(down, (rows, columns))
    texture = np.stack([u.ravel(), rowwise.ravel()])
    return Things(vertices.astype(np.float32), _grid(rows, columns), texture.astype(np.float32), 0.8)


def spectacles(v: Array, right: Array, left: Array, rng: np.random.Generator) -> Things:
    """Frames with bridge and temples, worn before the eyes."""
    wide, tall = rng.uniform(0.215, 0.26), rng.uniform(0.13, 0.21)
    square, rim = rng.uniform(2.0, 4.0), rng.uniform(0.016, 0.032)
    around = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    ring = np.stack([np.sign(f) * np.abs(f) ** (2 / square) for f in (np.cos(around), np.sin(around))])
    parts, triangles, start = [], [], 0
    gap = (right[0] + left[0]) / 2
    plane = max(right[2], left[2]) + 0.30
    for eye in (right, left):
        centre = np.array([eye[0] + 0.10 * (eye[0] - gap), eye[1] - 0.02])
        loops = [centre[:, None] + ring * np.array([[wide + grow], [tall + grow]]) for grow in (-rim / 2, rim / 2)]
        flat = np.concatenate(loops, axis=1)  # (2, 56)
        depth = plane - 0.2 * (flat[0] - gap) ** 2
        parts.append(np.concatenate([flat, depth[None]]))
        triangles.append(_grid(2, 28, closed=True) + start)
        start += 56
    inner = 0.9 * (left[0] - right[0]) * 0.5 - wide + 0.10 * (left[0] - right[0])
    bars = [((gap - inner - 0.02, right[1] + 0.02, plane), (gap + inner + 0.02, left[1] + 0.02, plane))]
    for eye, sign in ((right, -1), (left, 1)):
        outer = eye[0] + 0.10 * (eye[0] - gap) + sign * wide
        bars.append(((outer, eye[1] + 0.05, plane - 0.07), (sign * 0.80 + gap, eye[1] + 0.05, plane - 1.1)))
    half = np.array([[0.0], [rim / 2], [0.0]])
    for begin, end in bars:
        line = np.array([begin, end]).T
        parts.append(np.concatenate([line + half, line - half], axis=1))
        triangles.append(_grid(2, 2) + start)
        start += 4
    vertices = np.concatenate(parts, axis=1)
    # The last row of the hair's chart holds the colour of the frames.
    texture = np.broadcast_to([[PATCH * 3.5], [CHART + PATCH - 2.5]], (2, vertices.shape[1]))
    return Things(vertices.astype(np.float32), np.concatenate(triangles, axis=1), texture.astype(np.float32))
