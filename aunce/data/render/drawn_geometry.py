"""The geometry of the drawn faces: a person, AU intensities and a scene become curves and points on a canvas.

A face is a set of named landmarks in model units, see `drawn_tables`. Furrows follow the landmarks around them. Pose
rotates the points with their depth.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aunce.data.render.behaviour import AUS, Scene
from aunce.data.render.difficulty import Difficulty
from aunce.data.render.drawn_tables import ACTIONS, BULGES, FURROWS, LANDMARKS, MIMICS, TRAITS, Table

Array = NDArray[np.float64]

_NAMES = tuple(LANDMARKS)
INDEX = {name: index for index, name in enumerate(_NAMES)}
_BASE = np.array([LANDMARKS[name][:2] for name in _NAMES])
_MIDDLE = _BASE[:, 0] == 0


def _table(rows: Sequence[Table]) -> Array:
    """Tables of displacements as an array (rows, landmarks, 2)."""
    out = np.zeros((len(rows), len(_NAMES), 2))
    for row, moves in enumerate(rows):
        for name, move in moves.items():
            out[row, INDEX[name]] = move
    return out


_ACTION = _table([ACTIONS[au] for au in AUS])
_TRAIT = _table(list(TRAITS.values()))
FURROW_WEIGHTS = np.array([[weights.get(au, 0.0) for _, weights, _ in FURROWS.values()] for au in AUS])
BULGE_WEIGHTS = np.array([[weights.get(au, 0.0) for _, _, _, weights in BULGES.values()] for au in AUS])
_FOLLOWERS = np.array([p for points, _, _ in FURROWS.values() for p in points] + [b[0] for b in BULGES.values()])
_NEAR = np.exp(-(((_FOLLOWERS[:, None] - _BASE[None]) ** 2).sum(-1)) / (2 * 0.11**2))
_FOLLOW = _NEAR / (_NEAR.sum(1, keepdims=True) + 0.15)  # soft skin moves with the landmarks nearby
_FOLLOW[_FOLLOWERS[:, 1] < -0.5] *= 0.35  # the forehead wrinkles where it is
POINTS = np.concatenate([_BASE, _FOLLOWERS])
_DEPTH = 0.75 * np.sqrt(np.maximum(0, 1 - (POINTS[:, 0] / 0.95) ** 2 - (POINTS[:, 1] / 1.35) ** 2))
_DEPTH[: len(_NAMES)] += [LANDMARKS[name][2] for name in _NAMES]
WINDOW = 2.3  # model units across the image
CENTRE_Y = 0.04
SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates


@dataclass(frozen=True)
class Identity:
    """What stays the same of one person: shape, colours, wrinkles, resting face and side differences."""

    traits: Array
    stretch: Array  # width and length of the head (2,)
    rest_shape: Array  # resting activation of the geometry (17,)
    rest_furrows: Array  # resting activation of furrows and bulges (17,)
    sides: Array  # strength of each AU on the image's right and left (2, 17)
    skin: Array
    hair: Array
    iris: Array
    brow_thickness: float
    lip_red: float
    teeth: float
    hair_style: str
    beard: float
    glasses: bool
    mottle: Array


def identity(rng: np.random.Generator, difficulty: Difficulty) -> Identity:
    """Draw a person."""
    tones = np.array([(246, 210, 186), (226, 178, 146), (182, 130, 96), (122, 82, 62)])
    hairs = np.array([(30, 26, 25), (56, 40, 32), (96, 66, 44), (180, 144, 96), (150, 146, 142), (124, 66, 40)])
    irises = np.array([(70, 46, 32), (84, 62, 40), (92, 104, 70), (84, 116, 146)])
    tone = rng.uniform(0, 3)
    skin = np.array([np.interp(tone, range(4), tones[:, c]) for c in range(3)]) * rng.normal(1, 0.015, 3)
    mimic = np.array([au in MIMICS for au in AUS])
    shape, furrows = (np.maximum(0, rng.normal(-0.1, 1.0, len(AUS))) * mimic * difficulty.mimicry for _ in range(2))
    traits = np.clip(rng.standard_normal(len(TRAITS)), -2, 2) * difficulty.identity_spread
    age = rng.uniform() ** 2
    return Identity(
        traits=traits,
        stretch=1 + 0.04 * difficulty.identity_spread * np.clip(rng.standard_normal(2), -2, 2),
        rest_shape=0.18 * shape,
        rest_furrows=0.06 * shape + (0.05 + 0.22 * age) * furrows,
        sides=np.clip(1 + 0.07 * rng.standard_normal((2, len(AUS))), 0.7, 1.3),
        skin=np.clip(skin, 40, 250),
        hair=hairs[rng.integers(len(hairs) if tone < 1.2 else 2)] * rng.uniform(0.85, 1.15),
        iris=irises[rng.integers(4 if tone < 1.2 else 2)],
        brow_thickness=float(np.clip(rng.normal(0.05, 0.013), 0.022, 0.085)),
        lip_red=float(rng.uniform(0.3, 1.0)),
        teeth=float(rng.uniform(0.9, 1.05)),
        hair_style=str(rng.choice(["short", "short", "long", "long", "bald"])),
        beard=float(rng.uniform(0.3, 0.8)) if rng.uniform() < difficulty.accessories else 0.0,
        glasses=bool(rng.uniform() < difficulty.accessories),
        mottle=rng.standard_normal((24, 24)),
    )


def activations(intensities: Array, who: Identity, difficulty: Difficulty, rest: Array) -> Array:
    """Activation of each AU per side, (T, 2, 17): gain (intensity / 5)^0.8 and side, on top of the resting face.

    The exponent makes the low levels, which are the frequent ones, a little more visible than a straight line would.
    """
    return np.asarray(difficulty.expression_gain * (intensities[:, None] / 5) ** 0.8 * who.sides + rest)


def geometry(active: Array, who: Identity, blink: Array, gaze: Array) -> Array:
    """Points of both halves in the model, (T, 2, P, 2); the second half is mirrored."""
    jaw_free = 1 - 0.75 * np.clip(active[..., AUS.index(24)], 0, 1) - 0.35 * np.clip(active[..., AUS.index(17)], 0, 1)
    held = active.copy()
    for au in (25, 26):  # pressed lips do not open
        held[..., AUS.index(au)] *= np.clip(jaw_free, 0.1, 1)
    moves = np.einsum("tsk,kpc->tspc", held, _ACTION) + np.einsum("k,kpc->pc", who.traits, _TRAIT)
    moves[:, :, _MIDDLE] = moves[:, :, _MIDDLE].mean(1, keepdims=True)
    marks = _BASE + moves
    _keep_order(marks)
    at = INDEX
    lid = marks[:, :, at["lid_up"], 1]
    marks[:, :, at["lid_up"], 1] = lid + blink[:, None] * (marks[:, :, at["lid_low"], 1] - 0.008 - lid)
    marks[:, :, at["iris"], 0] += gaze[:, :1] * (1, -1)
    marks[:, :, at["iris"], 1] += gaze[:, 1:]
    followers = _FOLLOWERS + np.einsum("fp,tspc->tsfc", _FOLLOW, marks - _BASE)
    points = np.concatenate([marks, followers], axis=2) * who.stretch  # (T, 2, P, 2)
    points[:, 1, :, 0] *= -1
    return np.asarray(points)


def _keep_order(marks: Array) -> None:
    """Keep lids and lips from passing each other; brows stay above lids. In place, (T, 2, landmarks, 2)."""
    y = {name: marks[:, :, index, 1] for name, index in INDEX.items()}
    for above, below, gap in (
        ("lid_up", "lid_low", 0.012),
        ("brow_mid", "lid_up", 0.05),
        ("part_up", "part_low", 0.004),
        ("part_up_side", "part_low_side", 0.004),
        ("lip_top", "part_up", 0.012),
        ("lip_peak", "part_up", 0.014),
        ("lip_side", "part_up_side", 0.010),
    ):
        np.minimum(y[above], y[below] - gap, out=y[above])
    for above, below, gap in (("part_low", "lip_low", 0.016), ("part_low_side", "lip_low_side", 0.012)):
        np.maximum(y[below], y[above] + gap, out=y[below])


def project(points: Array, scene: Scene, canvas: int) -> Array:
    """Rotate by yaw, pitch and roll, drop the depth, place on a canvas: pixels (T, 2, P, 2)."""
    yaw, pitch, roll = (np.radians(angle)[:, None, None] for angle in (scene.yaw, scene.pitch, scene.roll))
    x, y, z = points[..., 0], points[..., 1], np.broadcast_to(_DEPTH, points.shape[:3])
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    y = y * np.cos(pitch) + z * np.sin(pitch)
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    unit = canvas / WINDOW * scene.scale[:, None, None]
    flat = np.stack([x, y - CENTRE_Y], axis=-1) * unit[..., None]
    return np.asarray(flat + canvas * (0.5 + scene.shift[:, None, None]) - 0.5)


@functools.cache
def _smooth(controls: int, per_segment: int, closed: bool = False) -> Array:
    """Matrix (samples, controls) of a Catmull-Rom curve through the control points."""
    segments = controls if closed else controls - 1
    u = np.arange(per_segment)[:, None] / per_segment
    basis = 0.5 * np.hstack([-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, -(u**2) + u**3])
    out = np.zeros((segments * per_segment + (not closed), controls))
    for segment in range(segments):
        for column in range(4):
            control = segment + column - 1
            control = control % controls if closed else min(max(control, 0), controls - 1)
            out[segment * per_segment : (segment + 1) * per_segment, control] += basis[:, column]
    if not closed:
        out[-1, -1] = 1
    return out


@functools.cache
def _arch(samples: int = 11) -> Array:
    """Matrix (samples, 3) of an arch through inner, middle and outer point, rounder than a spline: eyelids."""
    s = np.linspace(0, 1, samples)
    rise = (1 - (2 * s - 1) ** 2) ** 0.75
    return np.stack([1 - s - rise / 2, rise, s - rise / 2], axis=1)


def _fixed(points: Array) -> NDArray[np.int32]:
    """Pixels as OpenCV's fixed-point numbers."""
    return np.rint(points * (1 << SHIFT)).astype(np.int32)


class Shapes:
    """Curves of T faces in fixed-point pixels, by name; each (T, n, 2)."""

    def __init__(self, pixels: Array, who: Identity, unit: Array) -> None:
        self._pixels, self._unit = pixels, unit[:, None, None]
        self.curves: dict[str, NDArray[np.int32]] = {}
        self._outline()
        for side in (0, 1):
            self._eye(side, who)
        self._nose()
        self._mouth()
        self._furrows()

    def mark(self, name: str, side: int = 0) -> Array:
        """One landmark, pixels (T, 2)."""
        return self._pixels[:, side, INDEX[name]]

    def _row(self, side: int, *names: str) -> Array:
        return np.stack([self.mark(name, side) for name in names], axis=1)  # (T, n, 2)

    def _across(self, *names: str) -> Array:
        """From the image's left to its right; the last name is the midline."""
        return np.concatenate([self._row(1, *names), self._row(0, *names[:-1])[:, ::-1]], axis=1)

    def _outline(self) -> None:
        half = ("skull_side", "temple", "zygoma", "jaw", "chin_side")
        ring = np.concatenate(
            [self._row(0, "skull", *half, "chin"), self._row(1, *half)[:, ::-1]], axis=1
        )  # (T, 12, 2)
        self.curves["face"] = _fixed(_smooth(12, 5, closed=True) @ ring)
        cap = _smooth(5, 5) @ self._across("crown_side", "crown_mid", "crown")
        line = _smooth(5, 5) @ self._across("hair_side", "hair_mid", "hair_top")
        self.curves["hair"] = _fixed(np.concatenate([cap, line[:, ::-1]], axis=1))
        jaw = _smooth(7, 4) @ self._across("zygoma", "jaw", "chin_side", "chin")
        chops = _smooth(7, 4) @ self._across("zygoma", "corner", "lip_low_side", "lip_low")
        self.curves["beard"] = _fixed(np.concatenate([jaw, chops[:, ::-1]], axis=1))
        under_nose = 0.35 * self._across("lip_side", "lip_top") + 0.65 * self._across("nostril", "nose_base")
        edge = self._across("corner", "lip_side", "lip_peak", "lip_top")
        self.curves["moustache"] = _fixed(np.concatenate([edge, under_nose[:, ::-1]], axis=1))

    def _eye(self, side: int, who: Identity) -> None:
        down = np.array([0.0, 1.0]) * self._unit
        upper, lower = (_arch() @ self._row(side, "eye_in", lid, "eye_out") for lid in ("lid_up", "lid_low"))
        profile = np.sin(np.linspace(0, np.pi, 11))[:, None]
        self.curves[f"eye{side}"] = _fixed(np.concatenate([upper, lower[:, ::-1]], axis=1))
        self.curves[f"lash{side}"] = _fixed(upper)
        self.curves[f"lower{side}"] = _fixed(lower)
        self.curves[f"crease{side}"] = _fixed(upper - down * (0.012 + 0.035 * profile))
        self.curves[f"lid{side}"] = _fixed(np.concatenate([upper, (upper - down * 0.16 * profile)[:, ::-1]], axis=1))
        self.curves[f"pouch{side}"] = _fixed(np.concatenate([lower, (lower + down * 0.12 * profile)[:, ::-1]], axis=1))
        brow = _smooth(3, 5) @ self._row(side, "brow_in", "brow_mid", "brow_out")
        taper = np.array([0.55, 0.85, 1.0, 1.0, 0.95, 0.9, 0.8, 0.7, 0.55, 0.4, 0.2])[:, None]
        thick = who.brow_thickness * taper * down
        self.curves[f"brow{side}"] = _fixed(np.concatenate([brow - thick, (brow + 0.5 * thick)[:, ::-1]], axis=1))
        self.curves[f"iris{side}"] = _fixed(self.mark("iris", side)[:, None])

    def _nose(self) -> None:
        for side in (0, 1):
            flank = _smooth(4, 4) @ self._row(side, "nose_root", "nose_side", "ala", "nostril")
            self.curves[f"flank{side}"] = _fixed(flank[:, :9])
            self.curves[f"wing{side}"] = _fixed(flank[:, 6:])
            self.curves[f"nostril{side}"] = _fixed(self.mark("nostril", side)[:, None])
        root = (self.mark("nose_root", 0) + self.mark("nose_root", 1)) / 2
        self.curves["ridge"] = _fixed(np.stack([root, self.mark("nose_tip")], axis=1))
        self.curves["base"] = _fixed(self._across("nostril", "nose_base"))

    def _mouth(self) -> None:
        top = _smooth(7, 4) @ self._across("corner", "lip_side", "lip_peak", "lip_top")
        up, low = (_smooth(5, 6) @ self._across("corner", f"part_{p}_side", f"part_{p}") for p in ("up", "low"))
        bottom = _smooth(5, 6) @ self._across("corner", "lip_low_side", "lip_low")
        edge = np.sin(np.linspace(0, np.pi, 25))[:, None]
        bite = up + np.minimum(0.075 * self._unit * edge, 0.75 * np.maximum(low - up, 0)) * (0, 1)
        self.curves["upper lip"] = _fixed(np.concatenate([top, up[:, ::-1]], axis=1))
        self.curves["lower lip"] = _fixed(np.concatenate([low, bottom[:, ::-1]], axis=1))
        self.curves["cavity"] = _fixed(np.concatenate([up, low[:, ::-1]], axis=1))
        self.curves["teeth"] = _fixed(np.concatenate([up, bite[:, ::-1]], axis=1))
        self.curves["lip line"] = _fixed(up)
        self.curves["lip shine"] = _fixed((0.45 * low + 0.55 * bottom)[:, 8:17])
        self.curves["lip shadow"] = _fixed((bottom + np.array([0.0, 0.03]) * self._unit)[:, 5:20])

    def _furrows(self) -> None:
        start = len(_NAMES)
        for name, (points, _, _) in FURROWS.items():
            count, halves = len(points), self._pixels[:, :, start : start + len(points)]
            for side in (0, 1):
                self.curves[f"{name}{side}"] = _fixed(_smooth(count, 3) @ halves[:, side])
            start += count
        self.bulges = _fixed(self._pixels[:, :, start:])  # (T, 2, bulges, 2)


# Each of the 49 points of `Population.landmarks` is a weighted mean of landmarks: "name0" on the image's right, "name1"
# on its left.
def _points_49() -> list[dict[str, float]]:
    brow = [{"in": 1.0}, {"in": 0.5, "mid": 0.5}, {"mid": 1.0}, {"mid": 0.5, "out": 0.5}, {"out": 1.0}]

    def brows(side: int) -> list[dict[str, float]]:
        return [{f"brow_{name}{side}": share for name, share in mix.items()} for mix in brow]

    def mid(*names: str) -> dict[str, float]:
        return {name: 1 / len(names) for name in names}

    root, tip = ("nose_root0", "nose_root1"), "nose_tip0"
    bridge = [{root[0]: (1 - s) / 2, root[1]: (1 - s) / 2, tip: s} for s in (0.0, 1 / 3, 2 / 3, 1.0)]
    base = [mid(name) for name in ("ala1", "nostril1", "nose_base0", "nostril0", "ala0")]
    upper = ["corner1", "lip_side1", "lip_peak1", "lip_top0", "lip_peak0", "lip_side0", "corner0", "lip_low_side0"]
    lower = [mid("lip_low_side0", "lip_low0"), mid("lip_low0"), mid("lip_low_side1", "lip_low0"), mid("lip_low_side1")]
    inner = ["part_up_side1", "part_up0", "part_up_side0", "part_low_side0", "part_low0", "part_low_side1"]
    lips = [*map(mid, upper), *lower, *map(mid, inner)]
    return [*brows(1)[::-1], *brows(0), *bridge, *base, *_eye_49(1), *_eye_49(0), *lips]


def _eye_49(side: int) -> list[dict[str, float]]:
    """Six points around an eye, from the corner at the image's left over the upper lid."""

    def on(lid: str, s: float) -> dict[str, float]:  # share s of the way from the inner to the outer corner
        inner, middle, outer = _arch(4)[round(3 * s)]
        return {f"eye_in{side}": inner, f"lid_{lid}{side}": middle, f"eye_out{side}": outer}

    first, last = ("out", "in") if side else ("in", "out")
    way = (2 / 3, 1 / 3) if side else (1 / 3, 2 / 3)
    ends = [{f"eye_{name}{side}": 1.0} for name in (first, last)]
    return [ends[0], on("up", way[0]), on("up", way[1]), ends[1], on("low", way[1]), on("low", way[0])]


_MIX_49 = np.zeros((49, 2, len(_NAMES)))
for _row, _shares in enumerate(_points_49()):
    for _name, _share in _shares.items():
        _MIX_49[_row, int(_name[-1]), INDEX[_name[:-1]]] = _share


def landmarks(
    intensities: NDArray[np.floating], who: Identity, scene: Scene, difficulty: Difficulty, size: int
) -> Array:
    """The 49 points of `Population.landmarks` in the images that `drawn.render` gives for the same arguments."""
    levels = np.asarray(intensities, dtype=np.float64)
    points = geometry(activations(levels, who, difficulty, who.rest_shape), who, scene.blink, scene.gaze)
    pixels = project(points, scene, size)[:, :, : len(_NAMES)]  # (T, 2, landmarks, 2)
    return np.asarray(np.einsum("msp,tspc->tmc", _MIX_49, pixels))  # (T, 49, 2)
