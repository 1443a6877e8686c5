"""Tables of the modelled faces: what each AU does to the head and its skin, and the colours of people.

The appearance of the AUs follows the descriptions of the Facial Action Coding System (FACS). Units are the shapes of
the pack Face Units 01, and those of MakeHuman with the prefix mh:; a star stands for both sides. Places are decimetres
on the template's face: x to the person's left, y up, the eyes near y = 7.32, the mouth near 6.68.
"""

from __future__ import annotations

from collections.abc import Mapping

# fmt: off

# AU -> unit -> weight at intensity 5.
ACTIONS: Mapping[int, Mapping[str, float]] = {
    1: {"browInnerUp": 2.0, "mh:eyebrows-*-inner-up": 0.8},
    2: {"browOuterUp*": 1.1, "mh:eyebrows-*-extern-up": 0.3, "mh:eyebrows-*-up": 0.8},
    4: {"browDown*": 1.4, "mh:eyebrows-*-down": 0.6, "own:brow in*": 0.6},
    5: {"eyeWide*": 1.25},
    6: {"cheekSquint*": 1.35, "eyeSquint*": 0.30, "eyeBlink*": 0.06, "own:cheek*": 1.0},
    7: {"eyeSquint*": 0.9, "eyeBlink*": 0.2},
    9: {"noseSneer*": 1.4, "browDown*": 0.35, "mouthUpperUp*": 0.25, "mh:nose-*-elevation": 0.8},
    10: {"mouthUpperUp*": 1.2, "noseSneer*": 0.25},
    12: {"mouthSmile*": 1.0, "cheekSquint*": 0.15},
    14: {"mouthDimple*": 1.9, "mouthPress*": 0.15},
    15: {"mouthFrown*": 2.0},
    17: {"mouthShrugLower": 1.7, "mouthShrugUpper": 0.6, "own:chin": 1.0},
    20: {"mouthStretch*": 2.2, "mouthDimple*": 0.35, "mouthSmile*": 0.2},
    23: {"mouthPucker": 1.0, "mouthRollLower": 0.85, "mouthRollUpper": 0.75, "mh:mouth-compression": 0.20},
    24: {"mouthPress*": 0.1, "mouthRollLower": 1.3, "mouthRollUpper": 0.8, "mh:mouth-compression": 0.3,
         "own:corner*": 1.0},
    25: {"mouthLowerDown*": 1.1, "mouthUpperUp*": 0.45, "jawOpen": 0.12},
    26: {"jawOpen": 0.65},
}
# Units of our own, of what none of the pack does: centre and radii on the left half, movement to the left, up, forward.
OWN: Mapping[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float, float]]] = {
    "own:brow in*": ((0.15, 7.57), (0.12, 0.09), (-0.04, -0.01, 0.015)),
    "own:cheek*": ((0.36, 7.05), (0.21, 0.15), (0.01, 0.07, 0.045)),
    "own:corner*": ((0.20, 6.65), (0.07, 0.035), (0.0, 0.04, 0.015)),
    "own:chin": ((0.0, 6.38), (0.15, 0.09), (0.0, 0.06, 0.02)),
}
# Units that no AU moves: lids and gaze, and lips that stay closed over a dropped jaw.
POSES = ("eyeBlink*", "eyeLookUp*", "eyeLookDown*", "eyeLookIn*", "eyeLookOut*", "mouthClose")

# Furrows on the left half, mirrored: points (a curve through three), AU -> weight, width in pixels of a chart of 512,
# depth.
Furrow = tuple[tuple[tuple[float, float], ...], Mapping[int, float], float, float]
FURROWS: Mapping[str, Furrow] = {
    "forehead 1": (((0.0, 7.78), (0.15, 7.79), (0.30, 7.82)), {1: 1.1, 2: 0.2}, 3.6, 1.8),
    "forehead 2": (((0.0, 7.88), (0.16, 7.885), (0.34, 7.90)), {1: 1.1, 2: 0.3}, 3.8, 1.8),
    "forehead 3": (((0.0, 7.98), (0.16, 7.98), (0.32, 7.99)), {1: 0.8, 2: 0.2}, 3.6, 1.5),
    "forehead side 1": (((0.30, 7.75), (0.42, 7.77), (0.54, 7.72)), {2: 1.2}, 3.6, 1.8),
    "forehead side 2": (((0.32, 7.85), (0.43, 7.87), (0.54, 7.82)), {2: 1.0}, 3.6, 1.6),
    "glabella": (((0.075, 7.66), (0.062, 7.58), (0.075, 7.48)), {4: 1.3, 9: 0.2}, 3.4, 2.1),
    "glabella out": (((0.14, 7.70), (0.13, 7.65), (0.115, 7.60)), {4: 0.7}, 3.0, 1.4),
    "glabella across": (((0.0, 7.475), (0.05, 7.475), (0.10, 7.50)), {4: 0.6, 9: 0.6}, 3.2, 1.4),
    "nose root": (((0.0, 7.40), (0.05, 7.40), (0.09, 7.43)), {9: 1.0, 4: 0.3}, 2.8, 1.2),
    "bunny 1": (((0.05, 7.30), (0.09, 7.27), (0.12, 7.22)), {9: 1.1}, 2.6, 1.1),
    "bunny 2": (((0.06, 7.22), (0.10, 7.19), (0.135, 7.14)), {9: 1.1}, 2.6, 1.1),
    "crow 1": (((0.50, 7.36), (0.56, 7.40), (0.61, 7.46)), {6: 1.4, 12: 0.1}, 3.2, 1.9),
    "crow 2": (((0.51, 7.33), (0.57, 7.33), (0.63, 7.34)), {6: 1.4, 12: 0.1, 7: 0.1}, 3.2, 1.9),
    "crow 3": (((0.50, 7.30), (0.56, 7.26), (0.61, 7.21)), {6: 1.4, 12: 0.1}, 3.2, 1.8),
    "lower lid": (((0.17, 7.27), (0.29, 7.215), (0.43, 7.265)), {6: 0.2, 7: 1.1, 9: 0.2}, 2.8, 1.7),
    "eye bag": (((0.15, 7.21), (0.26, 7.11), (0.42, 7.14)), {6: 1.2, 9: 0.2, 12: 0.2}, 3.8, 1.8),
    "nasolabial high": (((0.165, 7.03), (0.22, 6.96), (0.275, 6.88)), {9: 1.0, 10: 1.1, 12: 0.7, 6: 0.2}, 3.8, 1.6),
    "nasolabial low": (((0.275, 6.88), (0.325, 6.80), (0.345, 6.68)), {12: 1.1, 10: 0.5, 20: 0.2, 14: 0.2}, 3.8, 1.6),
    "dimple": (((0.31, 6.73), (0.33, 6.68), (0.315, 6.62)), {14: 1.7, 12: 0.15}, 3.6, 1.8),
    "corner down": (((0.255, 6.63), (0.285, 6.57), (0.29, 6.49)), {15: 1.4, 17: 0.2}, 3.4, 1.6),
    "marionette": (((0.29, 6.58), (0.31, 6.48), (0.30, 6.38)), {15: 0.5}, 3.2, 1.0),
    "stretch": (((0.37, 6.76), (0.385, 6.68), (0.375, 6.60)), {20: 1.2}, 4.4, 1.4),
    "stretch low": (((0.22, 6.50), (0.29, 6.45), (0.33, 6.38)), {20: 0.8}, 3.2, 1.0),
    "under lip": (((0.0, 6.475), (0.07, 6.475), (0.15, 6.50)), {17: 1.3, 15: 0.3, 24: 0.5}, 3.8, 1.6),
    "chin pucker 1": (((0.03, 6.41), (0.05, 6.385), (0.04, 6.35)), {17: 1.0}, 2.6, 1.3),
    "chin pucker 2": (((0.10, 6.42), (0.10, 6.39), (0.11, 6.36)), {17: 1.0, 15: 0.15}, 2.6, 1.2),
    "pressed": (((0.0, 6.645), (0.10, 6.648), (0.20, 6.67)), {24: 1.3}, 8.0, 1.3),
    "lip lines": (((0.05, 6.86), (0.05, 6.835), (0.05, 6.80)), {23: 1.5}, 2.6, 1.8),
    "lip lines out": (((0.13, 6.83), (0.12, 6.805), (0.11, 6.78)), {23: 1.5}, 2.6, 1.8),
    "lip lines low": (((0.07, 6.56), (0.07, 6.53), (0.068, 6.50)), {23: 1.5}, 2.6, 1.8),
}
# Bulges: centre, radii, height, AU -> weight.
Bulge = tuple[tuple[float, float], tuple[float, float], float, Mapping[int, float]]
BULGES: Mapping[str, Bulge] = {
    "cheek": ((0.36, 7.07), (0.19, 0.13), 0.45, {6: 1.2, 12: 0.8}),
    "lid pouch": ((0.29, 7.235), (0.12, 0.022), 0.8, {7: 0.9, 6: 0.4}),
    "chin": ((0.0, 6.37), (0.13, 0.07), 1.1, {17: 1.2}),
    "press high": ((0.08, 6.81), (0.10, 0.03), 1.0, {24: 1.3}),
    "press low": ((0.07, 6.53), (0.12, 0.035), 0.9, {24: 1.3}),
    "corner pouch": ((0.335, 6.62), (0.05, 0.06), 0.9, {14: 1.0, 15: 0.4}),
    "glabella": ((0.0, 7.56), (0.05, 0.06), 0.9, {4: 0.9, 9: 0.4}),
}
MIMICS = (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24)
"""Neutral faces look like these AUs in some people, by the same shapes and furrows."""

SKINS = ((240, 200, 172), (226, 176, 142), (196, 141, 105), (140, 93, 66), (88, 58, 43))
"""From light to dark; people lie between two."""
HAIRS = ((26, 23, 22), (46, 33, 27), (84, 58, 41), (156, 122, 84), (112, 62, 42))
"""Black, dark brown, brown, blond, red; the dark skins draw from the first two."""
IRISES = ((58, 36, 24), (88, 60, 36), (98, 92, 62), (82, 100, 116), (96, 106, 112))
"""Dark brown, brown, hazel, blue, grey; the dark skins draw from the browns."""
# fmt: on


def sides(name: str) -> tuple[str, str]:
    """The unit of the person's right and of the left."""
    if "*" not in name:
        return name, name
    right, left = ("right", "left") if name.startswith("mh:") else ("Right", "Left")
    return name.replace("*", right), name.replace("*", left)


def unit_names() -> list[str]:
    """All units of the asset, in its order."""
    starred = {*POSES, *(name for moves in ACTIONS.values() for name in moves)} - OWN.keys()
    return sorted({unit for name in starred for unit in sides(name)})
