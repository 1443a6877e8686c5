"""How hard the rendered faces are, and how the recordings of the data sets differ.

Imports next to nothing: the name of a rendered data set follows from its difficulty, and `aunce status` needs many.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aunce.errors import UsageError
from aunce.identity import hashed_fields

VERSIONS: Mapping[str, int] = {"drawn": 1, "modelled": 1}
"""Generators of faces, see `generators`, and their versions: another when the same difficulty and seed would give
another face."""


@dataclass(frozen=True)
class Difficulty:
    """Every setting of the renderer and of the label process."""

    expression_gain: float = 1.2  # factor on movement and furrows of the AUs, 1 = as in the renderer's tables
    peak_skew: float = 1.8  # exponent of the intensity above level A, whose mean is then 1 + 4 / (1 + skew)
    trace: float = 0.3  # share of an AU's absent frames that show a visible trace below level A, 0..1
    rate_spread: float = 0.5  # SD of a subject's rates around the part's, logits
    cooccurrence: float = 1.0  # factor on the loadings of the expression factors; 0 = independent AUs
    identity_spread: float = 1.0  # SD of the shape of heads and features, 1 = as in the table of traits
    mimicry: float = 0.6  # strength of what makes neutral faces look like AUs (wrinkles, low brows, thin lips), 0..1
    accessories: float = 0.08  # probability of glasses and, independently, of a beard
    yaw: float = 7.0  # SD of the turn of the head, degrees
    pitch: float = 4.0  # SD of the nod, degrees
    roll: float = 4.0  # SD of the tilt, degrees
    drift: float = 1.5  # amplitude of the slow movement within a sequence, degrees
    framing: float = 0.045  # SD of the face's place, share of the image's side, and of the logarithm of its size
    light_angle: float = 25.0  # SD of the direction of the light, degrees off straight ahead of the face
    light_strength: float = 0.5  # share of the light that comes from that direction, 0..1; the rest is ambient
    blur: float = 0.5  # largest SD of the blur, pixels of an image of 64; a sequence draws from 0 to this
    noise: float = 4.0  # largest SD of the sensor's noise, grey levels; a sequence draws from half of this to this
    background: float = 0.4  # contrast of the background, 0 = one colour
    blinks: float = 6.0  # blinks per minute

    def __post_init__(self) -> None:
        """Refuses a dial that is negative, and a share above 1.

        Raises:
            UsageError: one message that names all of them.
        """
        shares = dict.fromkeys(("trace", "mimicry", "accessories", "light_strength"), 1.0)
        dials = dataclasses.asdict(self)
        wrong = [f"{name} = {value}" for name, value in dials.items() if not 0 <= value <= shares.get(name, math.inf)]
        if wrong:
            raise UsageError(
                f"difficulty: {', '.join(wrong)}. Expected 0 or more, and at most 1 of {', '.join(shares)}."
            )

    @property
    def content(self) -> dict[str, Any]:
        """What enters the name of rendered data, see `identity.hashed_fields`."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return hashed_fields(dataclasses.asdict(self), FIRST_DIALS, defaults)


FIRST_DIALS = frozenset(
    {
        "expression_gain", "peak_skew", "trace", "rate_spread", "cooccurrence", "identity_spread", "mimicry",
        "accessories", "yaw", "pitch", "roll", "drift", "framing", "light_angle", "light_strength", "blur", "noise",
        "background", "blinks",
    }
)  # fmt: skip
"""The dials of the first edition. Names of rendered data hash all of them, so this list never changes."""


SETTINGS: Mapping[str, Difficulty] = {
    "easy": Difficulty(),
    "hard": Difficulty(
        expression_gain=1.6,
        peak_skew=1.8,
        trace=0.35,
        rate_spread=0.7,
        identity_spread=1.1,
        mimicry=0.75,
        accessories=0.12,
        yaw=8.5,
        pitch=5.0,
        roll=5.0,
        drift=2.0,
        light_angle=35.0,
        light_strength=0.65,
        blur=0.6,
        noise=5.0,
        background=0.8,
        blinks=10.0,
    ),
}

# Chosen by BCE and a probe on raw pixels alone, before any contrastive run on these faces (the study generators).
MODELLED: Mapping[str, Difficulty] = {
    "easy": Difficulty(
        expression_gain=1.3,
        peak_skew=1.2,
        trace=0.2,
        mimicry=0.4,
        yaw=5.0,
        pitch=3.0,
        roll=3.0,
        framing=0.03,
        light_angle=20.0,
        light_strength=0.4,
    ),
    "hard": Difficulty(
        expression_gain=1.4,
        peak_skew=1.2,
        trace=0.3,
        rate_spread=0.7,
        identity_spread=1.1,
        mimicry=0.5,
        accessories=0.12,
        yaw=7.0,
        pitch=4.0,
        roll=4.0,
        drift=2.0,
        framing=0.035,
        light_angle=30.0,
        light_strength=0.55,
        blur=0.6,
        noise=5.0,
        background=0.8,
        blinks=10.0,
    ),
}

SETTINGS_OF: Mapping[str, Mapping[str, Difficulty]] = {"drawn": SETTINGS, "modelled": MODELLED}
"""Generator -> its settings: the dials have one meaning, and values of each generator's own."""

# How recordings of the data sets differ: factors on the difficulty of a setting. The settings were made for BP4D. For
# the others only the kind of difference is known (a still head before a screen, a group at a table, films from the
# net), not its size.
CAMERAS: Mapping[str, Mapping[str, float]] = {
    "bp4d": {},
    "disfa": {
        "yaw": 0.5, "pitch": 0.6, "roll": 0.6, "drift": 0.7, "light_angle": 0.5, "light_strength": 0.7, "noise": 0.7,
        "background": 0.3, "identity_spread": 0.9, "accessories": 0.3, "expression_gain": 0.9,
    },
    "gft": {
        "yaw": 1.8, "pitch": 1.5, "drift": 2.0, "light_angle": 1.2, "background": 1.6, "accessories": 2.0,
        "identity_spread": 1.1, "mimicry": 1.15, "noise": 1.2,
    },
    "affwild2": {  # aligned crops: little roll and framing is left, everything else is wilder
        "yaw": 1.6, "pitch": 1.6, "roll": 0.3, "framing": 0.4, "drift": 1.5, "light_angle": 1.6, "light_strength": 1.2,
        "blur": 1.6, "noise": 1.6, "background": 2.0, "identity_spread": 1.2, "accessories": 2.5,
    },
    "bp4dplus": {
        "yaw": 1.15, "light_angle": 0.8, "light_strength": 0.85, "noise": 0.9, "identity_spread": 1.1, "mimicry": 1.1,
        "accessories": 1.5,
    },
}  # fmt: skip


def difficulty_of(dataset: str, setting: str, faces: str = "drawn") -> Difficulty:
    """The difficulty of a generator's setting with the camera of one data set, that of BP4D if it has none."""
    setting_of_all, factors = SETTINGS_OF[faces][setting], CAMERAS.get(dataset, {})
    changed = {name: getattr(setting_of_all, name) * factor for name, factor in factors.items()}
    return dataclasses.replace(setting_of_all, **changed)


def seed_of(dataset: str, seed: int) -> int:
    """The seed of a data set's population, another for each, because BP4D and BP4D+ give one name to two people."""
    return seed if dataset == "bp4d" else seed + (zlib.crc32(dataset.encode()) << 32)
