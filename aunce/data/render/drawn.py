"""Faces drawn from action units (AUs): identity, geometry, drawing and photometry.

A face is a set of named landmarks in model units: x to the right of the image, y down, z to the camera, the eyes near
y = -0.18, the chin near y = 1. Tables say how each AU at intensity 5 moves them and which furrows and bulges it brings;
furrows follow the landmarks around them. Half a face is written down and mirrored. Pose rotates the points with their
depth. OpenCV draws skin and features, then a layer of light and furrows that multiplies them, at twice the asked size.
The appearance of the AUs follows the descriptions of the Facial Action Coding System (FACS).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aunce.data.render.behaviour import AUS, NULL_AU, Behaviour, Scene, Subject, plain_scene, stream
from aunce.data.render.difficulty import SETTINGS, VERSION, Dials, dials_of, seed_of
from aunce.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AUS",
    "LANDMARKS_49",
    "NULL_AU",
    "SETTINGS",
    "VERSION",
    "Behaviour",
    "Dials",
    "Population",
    "dials_of",
    "faces",
    "latents",
    "seed_of",
]

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
Curves = Mapping[str, NDArray[np.int32]]
Table = Mapping[str, tuple[float, float]]

# fmt: off

# ---------------------------------------------------------------------------------------------------------------------
# Geometry: half a face. x > 0 is mirrored, x = 0 is the midline. Third number: depth on top of the head's ellipsoid.
# ---------------------------------------------------------------------------------------------------------------------
LANDMARKS: Mapping[str, tuple[float, float, float]] = {
    "brow_in": (0.15, -0.4, 0.06), "brow_mid": (0.36, -0.47, 0.05), "brow_out": (0.61, -0.39, 0.02),
    "eye_in": (0.2, -0.165, -0.02), "eye_out": (0.53, -0.185, -0.04), "lid_up": (0.365, -0.27, 0),
    "lid_low": (0.365, -0.115, 0), "iris": (0.365, -0.195, 0), "cheek": (0.46, 0.12, 0.02),
    "nose_root": (0.065, -0.2, 0.06), "nose_side": (0.085, 0.08, 0.18), "ala": (0.165, 0.235, 0.1),
    "nostril": (0.075, 0.285, 0.16), "nose_tip": (0, 0.2, 0.3), "nose_base": (0, 0.305, 0.16),
    "corner": (0.29, 0.567, 0), "lip_side": (0.175, 0.515, 0.05), "lip_peak": (0.065, 0.485, 0.08),
    "lip_top": (0, 0.503, 0.08), "part_up_side": (0.15, 0.566, 0.05), "part_up": (0, 0.57, 0.08),
    "part_low_side": (0.15, 0.57, 0.05), "part_low": (0, 0.574, 0.08), "lip_low_side": (0.17, 0.65, 0.04),
    "lip_low": (0, 0.685, 0.07), "chin": (0, 1.03, 0.05), "chin_side": (0.3, 0.95, 0), "jaw": (0.61, 0.58, -0.05),
    "zygoma": (0.77, 0.02, -0.05), "temple": (0.77, -0.42, -0.05), "skull_side": (0.62, -0.88, -0.05),
    "skull": (0, -1.16, 0), "hair_side": (0.74, -0.4, 0.02), "hair_mid": (0.46, -0.8, 0.02),
    "hair_top": (0, -0.9, 0.02), "crown_side": (0.83, -0.34, -0.1), "crown_mid": (0.8, -0.92, -0.1),
    "crown": (0, -1.3, 0),
}

# Displacement of landmarks at intensity 5.
ACTIONS: Mapping[int, Table] = {
    1: {"brow_in": (0.01, -0.17), "brow_mid": (0, -0.07), "lid_up": (0, -0.012)},
    2: {"brow_out": (0, -0.18), "brow_mid": (0, -0.14), "brow_in": (0, -0.02), "lid_up": (0, -0.015)},
    4: {"brow_in": (-0.055, 0.1), "brow_mid": (-0.03, 0.1), "brow_out": (0, 0.03), "lid_up": (0, 0.022)},
    5: {"lid_up": (0, -0.065)},
    6: {
        "cheek": (0.01, -0.09), "lid_low": (0, -0.045), "eye_out": (0, 0.01), "lid_up": (0, 0.015),
        "brow_out": (0, 0.02),
    },
    7: {"lid_low": (0, -0.05), "lid_up": (0, 0.022), "eye_out": (-0.01, 0)},
    9: {
        "brow_in": (-0.01, 0.07), "nose_side": (0.01, -0.02), "ala": (0.03, -0.07), "nostril": (0.01, -0.045),
        "lid_low": (0, -0.025), "cheek": (0, -0.03), "lip_peak": (0.01, -0.035), "lip_side": (0.01, -0.03),
        "lip_top": (0, -0.03),
    },
    10: {
        "lip_peak": (0.02, -0.085), "lip_side": (0.02, -0.08), "lip_top": (0, -0.075), "part_up": (0, -0.06),
        "part_up_side": (0.01, -0.055), "ala": (0.02, -0.03), "cheek": (0, -0.02), "corner": (0, -0.01),
    },
    12: {
        "corner": (0.13, -0.13), "lip_side": (0.07, -0.03), "lip_peak": (0.02, 0.012), "part_up_side": (0.07, -0.02),
        "part_low_side": (0.07, -0.02), "lip_low_side": (0.06, -0.035), "lip_low": (0, -0.02), "cheek": (0.02, -0.05),
        "ala": (0.015, -0.01), "lid_low": (0, -0.012), "jaw": (0.015, -0.01),
    },
    14: {"corner": (0.055, -0.015), "lip_side": (0.02, 0.012), "lip_low_side": (0.02, -0.02), "cheek": (0, 0.01)},
    15: {"corner": (0.015, 0.135), "lip_side": (0.01, 0.036), "lip_low_side": (0.01, 0.036), "lip_low": (0, -0.015)},
    17: {
        "chin": (0, -0.06), "lip_low": (0, -0.065), "lip_low_side": (0, -0.05), "part_low": (0, -0.045),
        "part_low_side": (0, -0.03), "part_up": (0, -0.035), "part_up_side": (0, -0.02), "lip_top": (0, -0.025),
        "lip_peak": (0, -0.02), "corner": (0, 0.02),
    },
    20: {
        "corner": (0.125, 0.025), "lip_side": (0.07, 0.02), "lip_peak": (0.03, 0.018), "part_up_side": (0.06, 0.005),
        "part_low_side": (0.06, 0.01), "lip_low_side": (0.07, -0.01), "lip_low": (0, -0.03), "jaw": (0.015, 0.01),
    },
    23: {
        "corner": (-0.12, 0), "lip_side": (-0.065, 0.03), "lip_peak": (-0.018, 0.052), "lip_top": (0, 0.042),
        "lip_low_side": (-0.065, -0.036), "lip_low": (0, -0.062),
    },
    24: {
        "corner": (-0.015, 0.005), "lip_side": (0, 0.035), "lip_peak": (0, 0.065), "lip_top": (0, 0.052),
        "lip_low_side": (0, -0.05), "lip_low": (0, -0.08), "chin": (0, -0.01),
    },
    25: {
        "part_up": (0, -0.02), "part_up_side": (0, -0.012), "lip_top": (0, -0.012), "lip_peak": (0, -0.012),
        "part_low": (0, 0.105), "part_low_side": (0, 0.085), "lip_low": (0, 0.085), "lip_low_side": (0, 0.07),
    },
    26: {
        "part_low": (0, 0.18), "part_low_side": (0, 0.145), "lip_low": (0, 0.18), "lip_low_side": (0, 0.16),
        "corner": (-0.02, 0.045), "chin": (0, 0.19), "chin_side": (0, 0.15), "jaw": (-0.01, 0.05),
    },
}

# What one SD of each trait of an identity does.
TRAITS: Mapping[str, Table] = {
    "brow height": {"brow_in": (0, -0.028), "brow_mid": (0, -0.03), "brow_out": (0, -0.028)},
    "brow slant": {"brow_in": (0, 0.018), "brow_out": (0, -0.022)},
    "brow arch": {"brow_mid": (0, -0.02)},
    "brow gap": {"brow_in": (0.02, 0)},
    "eye spacing": {n: (0.018, 0) for n in ("eye_in", "eye_out", "lid_up", "lid_low", "iris", "brow_mid", "brow_out")},
    "eye width": {"eye_in": (-0.008, 0), "eye_out": (0.014, 0)},
    "eye opening": {"lid_up": (0, -0.013), "lid_low": (0, 0.008)},
    "eye slant": {"eye_out": (0, -0.013), "eye_in": (0, 0.004)},
    "nose width": {"ala": (0.018, 0), "nostril": (0.01, 0), "nose_side": (0.008, 0)},
    "nose length": {n: (0, 0.022) for n in ("ala", "nostril", "nose_tip", "nose_base")},
    "mouth width": {"corner": (0.024, 0), "lip_side": (0.012, 0), "lip_low_side": (0.012, 0)},
    "mouth height": {n: (0, 0.018) for n in LANDMARKS if n.startswith(("lip", "part", "corner"))},
    "upper lip": {"lip_side": (0, -0.012), "lip_peak": (0, -0.018), "lip_top": (0, -0.015)},
    "lower lip": {"lip_low_side": (0, 0.016), "lip_low": (0, 0.022)},
    "corners": {"corner": (0, -0.014)},
    "jaw width": {"jaw": (0.03, 0.0), "chin_side": (0.025, 0)},
    "chin length": {"chin": (0, 0.035), "chin_side": (0, 0.025)},
    "cheekbones": {"zygoma": (0.02, 0), "temple": (-0.01, 0)},
    "hairline": {"hair_top": (0, -0.06), "hair_mid": (0.0, -0.06), "hair_side": (0.015, -0.03)},
}

# Furrows: points of one half (joined across the midline if the first has x = 0), AU -> weight, width in model units.
FURROWS: Mapping[str, tuple[tuple[tuple[float, float], ...], Mapping[int, float], float]] = {
    "forehead low": (((0.0, -0.60), (0.12, -0.60), (0.26, -0.56)), {1: 1.0}, 0.022),
    "forehead centre": (((0.0, -0.70), (0.14, -0.70), (0.28, -0.66)), {1: 1.0, 2: 0.15}, 0.024),
    "forehead high": (((0.0, -0.80), (0.12, -0.80), (0.24, -0.77)), {1: 0.8, 2: 0.15}, 0.022),
    "forehead outer": (((0.34, -0.66), (0.48, -0.68), (0.61, -0.63)), {2: 1.0, 1: 0.1}, 0.022),
    "forehead outer high": (((0.32, -0.76), (0.45, -0.78), (0.57, -0.73)), {2: 0.9, 1: 0.1}, 0.022),
    "glabella": (((0.08, -0.52), (0.06, -0.42), (0.075, -0.31)), {4: 1.2, 9: 0.15}, 0.028),
    "glabella outer": (((0.14, -0.56), (0.13, -0.50), (0.10, -0.44)), {4: 0.5}, 0.02),
    "nose root": (((0.0, -0.235), (0.05, -0.235), (0.10, -0.25)), {9: 1.0, 4: 0.2}, 0.022),
    "nose root low": (((0.0, -0.15), (0.05, -0.15), (0.09, -0.165)), {9: 0.9}, 0.02),
    "bunny high": (((0.06, -0.08), (0.12, -0.05), (0.17, 0.01)), {9: 1.1}, 0.022),
    "bunny low": (((0.07, 0.01), (0.13, 0.04), (0.17, 0.10)), {9: 1.1}, 0.022),
    "crow high": (((0.57, -0.22), (0.65, -0.26), (0.71, -0.31)), {6: 1.0, 12: 0.05}, 0.02),
    "crow mid": (((0.58, -0.18), (0.66, -0.17), (0.73, -0.17)), {6: 1.0, 7: 0.1}, 0.02),
    "crow low": (((0.57, -0.13), (0.64, -0.09), (0.70, -0.04)), {6: 1.0}, 0.02),
    "lower lid": (((0.22, -0.10), (0.37, -0.055), (0.52, -0.11)), {6: 0.7, 7: 0.75, 9: 0.25}, 0.022),
    "eye bag": (((0.19, -0.02), (0.33, 0.03), (0.49, -0.02)), {6: 0.7, 9: 0.25, 12: 0.15}, 0.026),
    "nasolabial high": (((0.185, 0.19), (0.23, 0.26), (0.28, 0.35)), {9: 0.9, 10: 1.0, 12: 0.6, 6: 0.15}, 0.03),
    "nasolabial low": (((0.28, 0.35), (0.36, 0.45), (0.40, 0.58)), {12: 1.1, 10: 0.5, 20: 0.2, 14: 0.2}, 0.03),
    "dimple": (((0.36, 0.51), (0.39, 0.575), (0.365, 0.645)), {14: 1.4, 12: 0.1}, 0.035),
    "corner down": (((0.315, 0.62), (0.345, 0.70), (0.34, 0.79)), {15: 1.2, 17: 0.2, 20: 0.2}, 0.03),
    "stretch": (((0.40, 0.50), (0.46, 0.60), (0.43, 0.72)), {20: 1.0}, 0.025),
    "stretch neck": (((0.25, 0.74), (0.31, 0.80), (0.33, 0.88)), {20: 0.6}, 0.025),
    "under lip": (((0.0, 0.775), (0.10, 0.78), (0.19, 0.81)), {17: 1.1, 15: 0.25, 24: 0.25}, 0.03),
    "chin pucker in": (((0.02, 0.86), (0.05, 0.88), (0.06, 0.92)), {17: 0.8}, 0.018),
    "chin pucker out": (((0.13, 0.83), (0.12, 0.87), (0.14, 0.91)), {17: 0.8, 15: 0.15}, 0.018),
    "lip lines high": (((0.07, 0.395), (0.068, 0.42), (0.066, 0.46)), {23: 1.3, 24: 0.2}, 0.018),
    "lip lines out": (((0.16, 0.43), (0.15, 0.45), (0.135, 0.48)), {23: 1.3, 24: 0.2}, 0.018),
    "lip lines low": (((0.10, 0.70), (0.10, 0.72), (0.095, 0.745)), {23: 1.3, 24: 0.15}, 0.018),
}

# Bulges (positive) and hollows (negative): centre of one half, radii, amplitude, AU -> weight.
BULGES: Mapping[str, tuple[tuple[float, float], tuple[float, float], float, Mapping[int, float]]] = {
    "brow ridge shade": ((0.36, -0.35), (0.17, 0.035), -0.6, {4: 0.8, 9: 0.3}),
    "raised lid": ((0.37, -0.37), (0.14, 0.045), 0.5, {1: 0.25, 2: 0.6}),
    "glabella": ((0.0, -0.38), (0.10, 0.09), -0.5, {4: 0.7, 9: 0.5}),
    "cheek": ((0.46, 0.10), (0.17, 0.09), 0.7, {6: 0.8, 12: 0.5, 9: 0.1}),
    "under cheek": ((0.48, 0.29), (0.15, 0.06), -0.5, {12: 0.5, 6: 0.4}),
    "lower lid pouch": ((0.37, -0.075), (0.13, 0.022), 0.6, {7: 0.8, 6: 0.4}),
    "nose side": ((0.13, 0.03), (0.05, 0.09), -0.5, {9: 0.9}),
    "upper lip": ((0.10, 0.42), (0.07, 0.05), 0.6, {10: 0.8, 9: 0.2}),
    "press high": ((0.0, 0.455), (0.22, 0.035), 0.9, {24: 1.3, 23: 0.2}),
    "press low": ((0.0, 0.72), (0.20, 0.035), 0.9, {24: 1.3, 23: 0.2}),
    "dimple": ((0.385, 0.575), (0.035, 0.055), -0.8, {14: 1.0}),
    "corner": ((0.33, 0.655), (0.045, 0.06), -0.6, {15: 0.9, 20: 0.2}),
    "chin boss": ((0.0, 0.885), (0.14, 0.075), 0.7, {17: 1.0, 15: 0.1}),
    "under lip": ((0.0, 0.775), (0.15, 0.03), -0.6, {17: 0.7}),
}
# fmt: on

# Neutral faces look like these AUs in some people: the same landmarks and furrows, in shares of intensity 5.
MIMICS = (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24)

_NAMES = tuple(LANDMARKS)
_INDEX = {name: index for index, name in enumerate(_NAMES)}
_BASE = np.array([LANDMARKS[name][:2] for name in _NAMES])
_MIDDLE = _BASE[:, 0] == 0


def _table(rows: Sequence[Table]) -> Array:
    """Tables of displacements as an array (rows, landmarks, 2)."""
    out = np.zeros((len(rows), len(_NAMES), 2))
    for row, moves in enumerate(rows):
        for name, move in moves.items():
            out[row, _INDEX[name]] = move
    return out


_ACTION = _table([ACTIONS[au] for au in AUS])
_TRAIT = _table(list(TRAITS.values()))
_FURROW_WEIGHT = np.array([[weights.get(au, 0.0) for _, weights, _ in FURROWS.values()] for au in AUS])
_BULGE_WEIGHT = np.array([[weights.get(au, 0.0) for _, _, _, weights in BULGES.values()] for au in AUS])
_FOLLOWERS = np.array([p for points, _, _ in FURROWS.values() for p in points] + [b[0] for b in BULGES.values()])
_NEAR = np.exp(-(((_FOLLOWERS[:, None] - _BASE[None]) ** 2).sum(-1)) / (2 * 0.11**2))
_FOLLOW = _NEAR / (_NEAR.sum(1, keepdims=True) + 0.15)  # soft skin moves with the landmarks nearby
_FOLLOW[_FOLLOWERS[:, 1] < -0.5] *= 0.35  # the forehead wrinkles where it is
_POINTS = np.concatenate([_BASE, _FOLLOWERS])
_DEPTH = 0.75 * np.sqrt(np.maximum(0, 1 - (_POINTS[:, 0] / 0.95) ** 2 - (_POINTS[:, 1] / 1.35) ** 2))
_DEPTH[: len(_NAMES)] += [LANDMARKS[name][2] for name in _NAMES]
_WINDOW = 2.3  # model units across the image
_CENTRE_Y = 0.04
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates


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


def identity(rng: np.random.Generator, dials: Dials) -> Identity:
    """Draw a person."""
    tones = np.array([(246, 210, 186), (226, 178, 146), (182, 130, 96), (122, 82, 62)])
    hairs = np.array([(30, 26, 25), (56, 40, 32), (96, 66, 44), (180, 144, 96), (150, 146, 142), (124, 66, 40)])
    irises = np.array([(70, 46, 32), (84, 62, 40), (92, 104, 70), (84, 116, 146)])
    tone = rng.uniform(0, 3)
    skin = np.array([np.interp(tone, range(4), tones[:, c]) for c in range(3)]) * rng.normal(1, 0.015, 3)
    mimic = np.array([au in MIMICS for au in AUS])
    shape, furrows = (np.maximum(0, rng.normal(-0.1, 1.0, len(AUS))) * mimic * dials.mimicry for _ in range(2))
    traits = np.clip(rng.standard_normal(len(TRAITS)), -2, 2) * dials.identity_spread
    age = rng.uniform() ** 2
    return Identity(
        traits=traits,
        stretch=1 + 0.04 * dials.identity_spread * np.clip(rng.standard_normal(2), -2, 2),
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
        beard=float(rng.uniform(0.3, 0.8)) if rng.uniform() < dials.accessories else 0.0,
        glasses=bool(rng.uniform() < dials.accessories),
        mottle=rng.standard_normal((24, 24)),
    )


# ---------------------------------------------------------------------------------------------------------------------
# From intensities to points on the canvas
# ---------------------------------------------------------------------------------------------------------------------
def activations(intensities: Array, who: Identity, dials: Dials, rest: Array) -> Array:
    """Activation of each AU per side, (T, 2, 17): gain (intensity / 5)^0.8 and side, on top of the resting face.

    The exponent makes the low levels, which are the frequent ones, a little more visible than a straight line would.
    """
    return np.asarray(dials.expression_gain * (intensities[:, None] / 5) ** 0.8 * who.sides + rest)


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
    at = _INDEX
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
    y = {name: marks[:, :, index, 1] for name, index in _INDEX.items()}
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
    unit = canvas / _WINDOW * scene.scale[:, None, None]
    flat = np.stack([x, y - _CENTRE_Y], axis=-1) * unit[..., None]
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
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


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
        return self._pixels[:, side, _INDEX[name]]

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


# ---------------------------------------------------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------------------------------------------------
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
    cv2.fillPoly(image, [points], colour, cv2.LINE_AA, _SHIFT)


def _line(image: Pixels, points: NDArray[np.int32], colour: Colour | int, width: float) -> None:
    cv2.polylines(image, [points], False, colour, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _oval(
    image: Pixels, centre: NDArray[np.int32], radii: tuple[float, float], colour: Colour | int, width: int = -1
) -> None:
    place, axes = (int(centre[0]), int(centre[1])), (round(radii[0] * (1 << _SHIFT)), round(radii[1] * (1 << _SHIFT)))
    cv2.ellipse(image, place, axes, 0, 0, 360, colour, width, cv2.LINE_AA, _SHIFT)


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
        _oval(image, iris + round(offset * unit * (1 << _SHIFT)), (radius * unit, radius * unit), colour)
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
    reach = np.array([round(0.25 * unit * (1 << _SHIFT)), 0], dtype=np.int32)
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


# ---------------------------------------------------------------------------------------------------------------------
# Photometry
# ---------------------------------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=8)
def _normals(canvas: int) -> NDArray[np.float32]:
    """Unit normals (3, canvas, canvas) of a frontal head: an ellipsoid with hollows and bumps."""
    y, x = np.mgrid[:canvas, :canvas] / canvas * _WINDOW - _WINDOW / 2
    y = y + _CENTRE_Y
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
    step = _WINDOW / canvas
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


def _backdrop(scene: Scene, canvas: int) -> Pixels:
    rng = np.random.default_rng([scene.seed, 1])
    grey, tint = rng.uniform(70, 200), rng.normal(0, 12, 3)
    patches = 45 * rng.standard_normal((5, 5, 1)) + 12 * rng.standard_normal((5, 5, 3))
    coarse = grey + tint + scene.background * patches
    smooth = cv2.resize(np.clip(coarse, 0, 255).astype(np.uint8), (canvas, canvas), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, dtype=np.uint8)


@functools.lru_cache(maxsize=1)
def _grain() -> NDArray[np.float32]:
    """One pool of noise for everybody: a frame takes a stretch of it, which is much faster than drawing anew."""
    return np.random.default_rng(20240206).standard_normal(1 << 20).astype(np.float32)


def _response(scene: Scene) -> Pixels:
    """Exposure and colour cast of the camera as a table (256, 1, 3)."""
    levels = np.arange(256)[:, None] * scene.exposure * scene.cast
    return np.asarray(np.clip(levels, 0, 255).round(), dtype=np.uint8)[:, None]


def _finish(canvas: Pixels, scene: Scene, frame: int, size: int, response: Pixels) -> Any:
    """Downsample, camera response, blur, noise: one image (size, size, 3)."""
    image: Any = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    image = cv2.LUT(image, response)
    sigma = scene.blur * size / 64
    if sigma > 0.05:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if scene.noise > 0:
        pool, need = _grain(), size * size * 3
        start = int((int(scene.key[frame]) * 2654435761 + scene.seed * 40503) % (len(pool) - need))
        grain = pool[start : start + need].reshape(size, size, 3)
        image = cv2.scaleAdd(grain, scene.noise, image.astype(np.float32))
        image = cv2.convertScaleAbs(np.maximum(image, 0))
    return image


def render(intensities: NDArray[np.floating], who: Identity, scene: Scene, dials: Dials, size: int) -> Pixels:
    """Images (T, size, size, 3) of one person in one scene, RGB. `intensities` (T, 17) in 0..5."""
    if not 16 <= size <= 512:
        raise UsageError(f"size of rendered faces: expected 16 to 512 pixels, got {size}")
    levels, canvas = np.asarray(intensities, dtype=np.float64), 2 * size
    points = geometry(activations(levels, who, dials, who.rest_shape), who, scene.blink, scene.gaze)
    units = canvas / _WINDOW * scene.scale
    shapes = Shapes(project(points, scene, canvas), who, units)
    active = activations(levels, who, dials, who.rest_furrows)
    furrows, bulges = (1 - np.exp(-1.4 * active @ weight) for weight in (_FURROW_WEIGHT, _BULGE_WEIGHT))  # (T, 2, n)
    light, backdrop, paint, response = (
        skin_light(who, scene, canvas),
        _backdrop(scene, canvas),
        Palette(who),
        _response(scene),
    )
    unmoved = _anchors(who, plain_scene(1), canvas)[0]
    out = np.empty((len(levels), size, size, 3), dtype=np.uint8)
    for frame, anchors in enumerate(_anchors(who, scene, canvas)):
        curves = {name: points[frame] for name, points in shapes.curves.items()}
        unit = float(units[frame])
        image: Any = backdrop.copy()
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
        out[frame] = _finish(image, scene, frame, size, response)
    return out


def _anchors(who: Identity, scene: Scene, canvas: int) -> NDArray[np.float32]:
    """Where three points of the resting head lie on the canvas, (T, 3, 2): they carry the light along with the pose."""
    points = np.tile(_POINTS * who.stretch, (len(scene.yaw), 2, 1, 1))  # (T, 2, P, 2)
    points[:, 1, :, 0] *= -1
    pixels = project(points, scene, canvas)
    eye, chin = _INDEX["eye_out"], _INDEX["chin"]
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
    cv2.fillPoly(mask, [face], 255, cv2.LINE_8, _SHIFT)
    around = np.full((canvas, canvas), 118, dtype=np.uint8)
    cv2.copyTo(shade, mask, around)
    return around


# The 49 points that trackers give: those of the 68-point scheme without outline and inner corners of the mouth. Each is
# a weighted mean of landmarks, "name0" on the image's right and "name1" on its left.
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


LANDMARKS_49: tuple[Mapping[str, float], ...] = tuple(_points_49())
"""Brows (1-10), bridge and base of the nose (11-19), eyes (20-25, 26-31), outer lips (32-43), inner lips (44-49),
counted from 1; each from the image's left to its right, eyes and lips clockwise."""
_MIX_49 = np.zeros((49, 2, len(_NAMES)))
for _row, _shares in enumerate(LANDMARKS_49):
    for _name, _share in _shares.items():
        _MIX_49[_row, int(_name[-1]), _INDEX[_name[:-1]]] = _share


# ---------------------------------------------------------------------------------------------------------------------
# The door for the writers of data sets and for figures
# ---------------------------------------------------------------------------------------------------------------------
class Population:
    """Rendered people with rates, behaviour and looks of their own.

    Args:
        subjects: names of the subjects.
        rates: subject -> AU -> target rate of the subject's part. AUs without a target get a modest rate.
        dials: the dials, `SETTINGS["easy"]` for instance.
        seed: fixes everything. Bytes depend on (seed, subject, task, time) alone, not on the order of asking.
    """

    def __init__(
        self, subjects: Sequence[str], *, rates: Mapping[str, Mapping[int, float]], dials: Dials, seed: int
    ) -> None:
        self.subjects, self.dials, self.seed = tuple(subjects), dials, seed
        self._subjects = {name: Subject(name, rates[name], dials, seed) for name in self.subjects}
        self._identities: dict[str, Identity] = {}

    def sequence(self, subject: str, task: str, times: NDArray[np.floating]) -> Behaviour:
        """Behaviour of a subject in a task at `times` (T,) in seconds, which may be sparse."""
        return self._subjects[subject].sequence(task, times)

    def images(self, subject: str, behaviour: Behaviour, *, size: int) -> Pixels:
        """Images (T, size, size, 3) uint8 RGB of a behaviour."""
        return render(behaviour.intensity, self._identity(subject), behaviour.scene, self.dials, size)

    def landmarks(self, subject: str, behaviour: Behaviour, *, size: int) -> Array:
        """Where the points of `LANDMARKS_49` lie in those images, pixels (T, 49, 2), x first, counted from 0."""
        who, scene = self._identity(subject), behaviour.scene
        levels = np.asarray(behaviour.intensity, dtype=np.float64)
        points = geometry(activations(levels, who, self.dials, who.rest_shape), who, scene.blink, scene.gaze)
        pixels = project(points, scene, size)[:, :, : len(_NAMES)]  # (T, 2, landmarks, 2)
        return np.asarray(np.einsum("msp,tspc->tmc", _MIX_49, pixels))

    def _identity(self, subject: str) -> Identity:
        who = self._identities.get(subject)
        if who is None:
            who = self._identities[subject] = identity(stream(self.seed, subject, "identity"), self.dials)
        return who


def faces(
    intensities: NDArray[np.floating],
    *,
    identity_seed: int,
    dials: Dials | None = None,
    size: int = 96,
    neutral_scene: bool = True,
) -> Pixels:
    """Draw one person at given intensities.

    Args:
        intensities: (T, 17) in 0..5, in the order of `AUS`.
        identity_seed: which person.
        dials: the dials; those of "easy" if left out.
        size: side of the images in pixels.
        neutral_scene: frontal, evenly lit, without blur and noise. False draws a scene from the dials.

    Returns:
        Images (T, size, size, 3) uint8 RGB.

    Raises:
        UsageError: intensities of another shape or outside 0..5, or a size that cannot be drawn.
    """
    dials = dials or SETTINGS["easy"]
    levels = np.asarray(intensities, dtype=np.float64)
    if levels.ndim != 2 or levels.shape[1] != len(AUS) or not ((levels >= 0) & (levels <= 5)).all():
        raise UsageError(f"intensities: expected an array (frames, {len(AUS)}) in 0..5, got shape {levels.shape}")
    who = identity(stream(identity_seed, "face", "identity"), dials)
    if neutral_scene:
        return render(levels, who, plain_scene(len(levels)), dials, size)
    behaviour = Subject("face", {}, dials, identity_seed).sequence("T1", np.arange(len(levels)) / 25)
    return render(levels, who, behaviour.scene, dials, size)


def latents(root: str | Path) -> pd.DataFrame:
    """Latent intensities of a rendered data set: subject, sequence, frame, AU1, AU2, ... AU26 (float32)."""
    import pandas as pd  # drawing faces needs no tables

    return pd.read_parquet(Path(root) / "synthetic_latents.parquet")
