"""The head that all modelled faces share: its mesh, what units and AUs do to it, and the charts of its skin.

Everything comes from `head.npz`, see `head.md`. Coordinates are decimetres: x to the person's left, y up, z to the
camera. Vertices are stored by coordinate, (3, V).
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from aunce.data.render.behaviour import AUS
from aunce.data.render.modelled_raster import Array, Indices, raster
from aunce.data.render.modelled_tables import ACTIONS, BULGES, FURROWS, OWN, sides
from aunce.errors import DataError

ASSET = Path(__file__).with_name("head.npz")
SHA256 = "f69fae840e2c1214e9bb378240003e07cc447456b22937a55a8f0d45f0d13629"
CHART = 384  # side of the chart of the skin, pixels
PATCH = 96  # side of the charts of eyes, teeth, mouth and hair, below it
RELIEF = 192  # side of the maps of furrows and bulges
SKIN, EYE, UPPER_TEETH, LOWER_TEETH, TONGUE, LASH = range(6)
AXIS = 0.40  # z of the axis around which the skin is unrolled
_WIDEST = 2.05  # radians to each side that the chart shows
_TOP, _NECK, _BOTTOM = 8.55, 6.0, 4.9  # heights; the face above the neck takes 88 % of the rows
_STEPS = 2000  # of the asset's integers to the decimetre


@dataclass(frozen=True)
class Head:
    """Arrays of the shared head; V vertices, F triangles, U units.

    Attributes:
        template: the average young adult (3, V).
        kind: part of each vertex, `SKIN` to `LASH` (V,).
        triangles: of everything opaque (3, F).
        lashes: triangles of the lashes, both sides of each (3, L).
        masks: lips, eyelids, ears, inside_mouth -> 0..1 (V,).
        occlusion: share of ambient light, neutral and with a wide open mouth (2, V).
        shadow: whether a light reaches the vertex, by direction (D, V); directions (D, 3).
        units: movement at weight 1, sparse (3 V, U); at: name -> its column.
        mix: side (0 right, 1 left) -> AU -> weight of each unit (2, 17, U).
        texture: place of each vertex in the atlas (2, V).
        inner: whether a vertex lies inside the mouth (V,).
        lash_opacity: of each vertex of the lashes, falling to their tips (V,).
        eyes: vertices of the right and of the left eye.
    """

    base: Array
    template: Array
    kind: NDArray[np.uint8]
    triangles: Indices
    lashes: Indices
    masks: Mapping[str, Array]
    occlusion: Array
    shadow: Array
    directions: Array
    macro: Any
    macro_names: tuple[str, ...]
    shape: Any
    shape_names: tuple[str, ...]
    units: Any
    at: dict[str, int]
    mix: Array
    texture: Array
    inner: NDArray[np.bool_]
    lash_opacity: Array
    eyes: tuple[Indices, Indices]

    @property
    def skin(self) -> NDArray[np.bool_]:
        """Vertices of the skin (V,)."""
        return np.asarray(self.kind == SKIN)


def load(path: Path = ASSET) -> dict[str, NDArray[Any]]:
    """The arrays of the asset.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Install aunce again.") from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise DataError(f"{path}: is damaged, or not of this version. Install aunce again.")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@functools.cache
def head() -> Head:
    """The shared head, read once per process."""
    z = load()
    kind, tris, part = z["vpart"], z["tris"].astype(np.intp), z["part"]
    template = np.ascontiguousarray(z["template"].T)
    masks = {name: (z[name] / np.float32(255)) for name in ("lips", "eyelids", "ears", "inside_mouth")}
    names = [str(name) for name in z["unit_names"]]
    units = z["unit"].astype(np.float32) / _STEPS  # (U, V, 3)
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        index = names.index(name)
        units[index] = _relaxed(units[index], z["template"], tris[part == SKIN], masks["lips"])
    x, y, front = template[0], template[1], (kind == SKIN) & (template[2] > 1.0)
    for name, ((cx, cy), (rx, ry), way) in OWN.items():
        near = np.exp(-(((np.abs(x) - cx) / rx) ** 2) - ((y - cy) / ry) ** 2) * front
        pair = sides(name)
        for unit, sign in dict(zip(pair, (-1, 1), strict=True)).items():
            share = near * (x * sign > 0) if pair[0] != pair[1] else near
            units = np.concatenate([units, (share[:, None] * (np.array(way) * (sign, 1, 1)))[None]], dtype=np.float32)
            names.append(unit)
    at = {name: index for index, name in enumerate(names)}
    mix = np.zeros((2, len(AUS), len(names)), dtype=np.float32)
    for row, au in enumerate(AUS):
        for name, weight in ACTIONS[au].items():
            pair = sides(name)
            for side in (0, 1):
                mix[side, row, at[pair[side]]] += weight / 2 if pair[0] == pair[1] else weight
    lashes = tris[part == LASH].T
    eyes = tuple(np.flatnonzero((kind == EYE) & (x * side > 0)) for side in (-1, 1))
    return Head(
        base=np.ascontiguousarray(z["base"].T),
        template=template,
        kind=kind,
        triangles=np.ascontiguousarray(tris[part != LASH].T),
        lashes=np.concatenate([lashes, lashes[::-1]], axis=1),
        masks=masks,
        occlusion=_mouth_occlusion(z["occlusion"].astype(np.float32), kind, masks["inside_mouth"] > 0.5),
        shadow=z["shadow"].astype(np.float32) / 255,
        directions=z["directions"].astype(np.float32),
        macro=_sparse(z["macro"]),
        macro_names=tuple(map(str, z["macro_names"])),
        shape=_sparse(z["shape"].reshape(-1, *z["shape"].shape[2:])),
        shape_names=tuple(map(str, z["shape_names"])),
        units=csr_array(units.transpose(2, 1, 0).reshape(-1, len(names))),
        at=at,
        mix=mix,
        texture=_texture(template, kind, masks["inside_mouth"], eyes),
        inner=np.isin(kind, (UPPER_TEETH, LOWER_TEETH, TONGUE)) | (masks["inside_mouth"] > 0.5),
        lash_opacity=_lash_opacity(template, kind),
        eyes=(eyes[0], eyes[1]),
    )


def _sparse(offsets: NDArray[np.int16]) -> Any:
    """Offsets (N, V, 3) as a sparse matrix (3 V, N) in decimetres. Its products do not depend on a BLAS."""
    table = offsets.transpose(2, 1, 0).reshape(-1, len(offsets))
    matrix = csr_array(table)
    return csr_array((matrix.data.astype(np.float32) / _STEPS, matrix.indices, matrix.indptr), shape=table.shape)


def _lash_opacity(template: Array, kind: NDArray[np.uint8]) -> Array:
    lash, front = np.flatnonzero(kind == LASH), (kind == SKIN) & (template[2] > 1.0)
    apart = template[:, lash, None] - template[:, None, front]  # (3, lash vertices, skin vertices)
    off = np.sqrt((apart**2).sum(0)).min(1)
    opacity = np.zeros(template.shape[1], dtype=np.float32)
    opacity[lash] = np.clip(1.15 - off / 0.045, 0.05, 1) * np.where(template[1, lash] > 7.32, 0.95, 0.4)
    return opacity


def _mouth_occlusion(occlusion: Array, kind: NDArray[np.uint8], inside: NDArray[np.bool_]) -> Array:
    teeth = (kind == UPPER_TEETH) | (kind == LOWER_TEETH)
    occlusion[1, teeth] = 0.75
    occlusion[0, teeth | (kind == TONGUE) | inside] *= 0.35  # closed lips meet in a dark line
    return occlusion


def _relaxed(unit: Array, template: Array, triangles: Indices, lips: Array) -> Array:
    """A movement (V, 3) without the hard crease in the cheek: relaxed over the mesh away from the lips."""
    start, end = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    degree = np.maximum(np.bincount(start, minlength=len(template)), 1)[:, None]
    mouth = template[lips > 0.24]
    far = np.sqrt(((template[:, None] - mouth[None, ::4]) ** 2).sum(-1).min(1))
    share = (0.8 * np.clip((far - 0.04) / 0.10, 0, 1))[:, None].astype(np.float32)
    share[np.bincount(start, minlength=len(template)) == 0] = 0
    for _ in range(8):
        mean = np.stack([np.bincount(start, unit[end, c], len(template)) for c in range(3)], 1) / degree
        unit = (unit * (1 - share) + mean * share).astype(np.float32)
    return unit


# ------------------------------------------------------------------------------------------------------------- charts
def chart_of(points: NDArray[np.floating]) -> Array:
    """Chart pixels (2, ...) of places (3, ...) on the template's skin."""
    x, y, z = points
    u = (np.arctan2(x, z - AXIS) / _WIDEST + 1) / 2
    above = (_TOP - y) / (_TOP - _NECK) * 0.88
    v = np.where(y > _NECK, above, 0.88 + (_NECK - y) / (_NECK - _BOTTOM) * 0.12)
    return (np.stack([np.clip(u, 0, 1), np.clip(v, 0, 1)]) * (CHART - 1)).astype(np.float32)


def sphere(points: Array) -> tuple[Array, float]:
    """Centre (3, 1) and radius of the sphere nearest to points (3, N)."""
    exact = points.astype(np.float64)
    system = np.concatenate([2 * exact, np.ones((1, exact.shape[1]))]).T
    centre = np.linalg.lstsq(system, (exact**2).sum(0), rcond=None)[0][:3, None]
    return centre.astype(np.float32), float(np.linalg.norm(exact - centre, axis=0).mean())


def _texture(template: Array, kind: NDArray[np.uint8], inside: Array, eyes: tuple[Indices, ...]) -> Array:
    texture, half = chart_of(template), PATCH / 2
    for eye in eyes:
        off = template[:, eye] - sphere(template[:, eye])[0]
        ray = off / np.linalg.norm(off, axis=0)
        texture[:, eye] = half + ray[0] * 46, CHART + half - ray[1] * 46
    for number, row in ((UPPER_TEETH, 0), (LOWER_TEETH, half)):
        teeth = np.flatnonzero(kind == number)
        x, y = template[0, teeth], template[1, teeth]
        rows = CHART + row + 3 + (half - 6) * (y.max() - y) / np.ptp(y)
        texture[:, teeth] = PATCH * 1.5 + x / 0.34 * 45, rows
    texture[:, kind == TONGUE] = [[PATCH * 2.5], [CHART + 0.75 * PATCH]]
    texture[:, (kind == SKIN) & (inside > 0.5)] = [[PATCH * 2.5], [CHART + 0.25 * PATCH]]
    return texture


@dataclass(frozen=True)
class Charts:
    """What lies at each pixel of the skin's chart, (CHART, CHART) each: place on the template, and masks 0..1."""

    x: Array
    y: Array
    z: Array
    lips: Array
    lids: Array
    ears: Array
    angle: Array

    def at(self, x: Array, y: Array) -> Array:
        """Chart pixels (2, N) of places on the front of the face, given by x and y alone."""
        column = np.clip(np.rint((x + 0.8) * 100), 0, 160).astype(np.intp)
        row = np.clip(np.rint((y - 6.0) * 100), 0, 240).astype(np.intp)
        return chart_of(np.stack([x, y, _front()[row, column]]))


def blurred(image: Array, sigma: float) -> Array:
    """An image under a Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.float32)


@functools.cache
def charts() -> Charts:
    """The chart of the template's skin."""
    it = head()
    inside = (it.masks["inside_mouth"] > 0.5) | ~it.skin
    triangles = it.triangles[:, ~inside[it.triangles].any(0)]
    place = chart_of(it.template)
    triangles = triangles[:, np.ptp(place[0][triangles], axis=0) < CHART / 8]
    radius = np.hypot(it.template[0], it.template[2] - AXIS)
    values = np.stack([*it.template, it.masks["lips"], it.masks["eyelids"], it.masks["ears"]])
    out = np.zeros((len(values), CHART * CHART), dtype=np.float32)
    seen = np.zeros(CHART * CHART, dtype=np.float32)
    for order in (triangles, triangles[::-1]):
        hit = raster(place[0] + 0.5, place[1] + 0.5, 3 - radius, order, CHART)
        a, b, c = order[:, hit.triangle]
        first = 1 - hit.second - hit.third
        out[:, hit.pixel] = values[:, a] * first + values[:, b] * hit.second + values[:, c] * hit.third
        seen[hit.pixel] = 1
    known = seen.reshape(CHART, CHART)
    weight = cv2.GaussianBlur(known, (0, 0), 5)
    maps = []
    for channel in out.reshape(-1, CHART, CHART):  # the openings of the eyes take what is around them
        around = cv2.GaussianBlur(channel * known, (0, 0), 5) / (weight + 1e-6)
        maps.append(np.where(known > 0, channel, around).astype(np.float32))
    angle = np.repeat(np.linspace(-_WIDEST, _WIDEST, CHART, dtype=np.float32)[None], CHART, axis=0)
    return Charts(maps[0], maps[1], maps[2], blurred(maps[3], 0.9), maps[4], maps[5], angle)


@functools.cache
def _front() -> Array:
    """Depth z of the face's front over x from -0.8 and y from 6.0, in steps of 0.01 (241, 161)."""
    it = charts()
    middle = np.abs(it.angle) < 1.2
    column = np.rint((it.x[middle] + 0.8) * 100).astype(np.intp)
    row = np.rint((it.y[middle] - 6.0) * 100).astype(np.intp)
    inside = (column >= 0) & (column < 161) & (row >= 0) & (row < 241)
    depth = np.full((241, 161), -1, dtype=np.float32)
    np.maximum.at(depth, (row[inside], column[inside]), it.z[middle][inside])
    return np.asarray(cv2.dilate(depth, np.ones((5, 5))), dtype=np.float32)


@functools.cache
def reliefs() -> tuple[Any, Array]:
    """Furrows and bulges as a sparse matrix, and what AUs do to them.

    Returns:
        Slope to the right, slope down and darkness at each pixel of the relief chart, for each of the N furrows and
        bulges on the right and then on the left: sparse (RELIEF * RELIEF * 3, 2 N). And AU -> weight (17, N).
    """
    it, grid = charts(), np.stack(np.meshgrid(np.arange(CHART), np.arange(CHART)), -1).astype(np.float32)
    heights, weights, scale = [], [], CHART / 512
    for points, moved_by, width, depth in FURROWS.values():
        across, high = np.array(points, dtype=np.float32).T
        ends = it.at(across, high).T
        t = np.linspace(0, 1, 21)[:, None]
        curve = ends[0] * (1 - t) * (1 - 2 * t) + ends[1] * 4 * t * (1 - t) + ends[2] * t * (2 * t - 1)
        canvas = np.full((CHART, CHART), 255, dtype=np.uint8)
        cv2.polylines(canvas, [np.rint(curve * 16).astype(np.int32)], False, 0, 1, cv2.LINE_8, 4)
        off = cv2.distanceTransform(canvas, cv2.DIST_L2, 5) / scale
        length = np.linalg.norm(np.diff(curve, axis=0), axis=1).sum()
        fade = np.ones((CHART, CHART), dtype=np.float32)
        for end in curve[[-1]] if points[0][0] < 0.01 else curve[[0, -1]]:
            fade *= np.clip(np.sqrt(((grid - end) ** 2).sum(-1)) / (0.35 * length), 0.15, 1)
        shape = np.exp(-0.5 * (off / (0.55 * width)) ** 2) - 0.45 * np.exp(-0.5 * (off / (1.5 * width)) ** 2)
        heights.append(-depth * width * shape * fade)
        weights.append(moved_by)
    for (cx, cy), (rx, ry), height, moved_by in BULGES.values():
        shape = np.exp(-(((np.abs(it.x) - cx) / rx) ** 2) - ((it.y - cy) / ry) ** 2)
        heights.append(height * 54 * min(rx, ry) * shape * np.clip((it.z - 0.6) / 0.3, 0, 1))
        weights.append(moved_by)
    columns = []
    right = np.arange(CHART)[None] < CHART // 2
    for side in (0, 1):
        for height in heights:
            left_half = np.where(right, 0, height)
            half = cv2.GaussianBlur((left_half + left_half[:, ::-1]).astype(np.float32), (0, 0), 0.6)
            half = np.where(right if side == 0 else ~right, half, 0).astype(np.float32)
            small = cv2.resize(half, (RELIEF, RELIEF), interpolation=cv2.INTER_AREA)
            slopes = [cv2.Sobel(small, cv2.CV_32F, dx, dy, ksize=3) * (RELIEF / 2048) for dx, dy in ((1, 0), (0, 1))]
            column = np.stack([*slopes, 0.5 * np.minimum(small, 0)], axis=-1)
            column[np.abs(column) < 4e-3] = 0
            columns.append(column.ravel())
    table = np.array([[moved_by.get(au, 0.0) for moved_by in weights] for au in AUS], dtype=np.float32)
    return csr_array(np.stack(columns, axis=1)), table
