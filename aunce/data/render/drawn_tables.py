"""Tables of the drawn faces: landmarks, and what each AU and each trait of a person does to them.

Half a face is written down: x > 0 is mirrored, x = 0 is the midline. Units are those of the model: x to the right of
the image, y down, z to the camera, the eyes near y = -0.18, the chin near y = 1. The appearance of the AUs follows the
descriptions of the Facial Action Coding System (FACS).
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, tuple[float, float]]

# fmt: off

# The third number is depth on top of the ellipsoid of the head.
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
