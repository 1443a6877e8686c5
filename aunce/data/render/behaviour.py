"""How rendered people behave: which action units (AUs) they show, how strongly and when, and the scene around them.

The model, per AU and subject. A latent x(t) has a Gaussian level in each slot of 0.7 to 2.6 s and smooth transitions
(onset, offset) between slots. AUs share expression factors (smile, surprise, ...), which makes them co-occur. The upper
tail s = P(X > x), over tasks, sequences and time, decides: the AU is present where s <= r, with r the subject's own
rate, so the rate is right in expectation whatever the factors do. The intensity is a continuous, decreasing function of
s with value 1 (level A) at s = r, so no mark appears with presence alone.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr

from aunce.data.render.difficulty import Difficulty
from aunce.errors import UsageError

Array = NDArray[np.float64]

AUS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26)
NULL_AU = 28
TASKS = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8")


# Loadings of the AUs on what people do with their faces. The rest of the variance of an AU is its own.
FACTORS: Mapping[str, Mapping[int, float]] = {
    "smile": {6: 0.75, 7: 0.45, 10: 0.35, 12: 0.80, 14: 0.25, 25: 0.45},
    "surprise": {1: 0.75, 2: 0.75, 5: 0.60, 25: 0.30, 26: 0.55},
    "disgust": {4: 0.50, 7: 0.40, 9: 0.70, 10: 0.60},
    "sadness": {1: 0.30, 4: 0.45, 15: 0.65, 17: 0.65, 20: 0.30},
    "tension": {14: 0.30, 17: 0.30, 20: 0.35, 23: 0.65, 24: 0.65, NULL_AU: 0.50},
}
# What the tasks elicit, in SD of the factors; every column sums to zero. Order of the columns: FACTORS.
TASK_SHIFTS = np.array(
    [
        [0.8, 0.1, -0.4, -0.5, -0.3],  # T1 amusement
        [-0.5, -0.3, 0.0, 0.8, 0.2],  # T2 sadness
        [0.2, 0.9, -0.3, -0.3, -0.4],  # T3 surprise
        [0.5, -0.2, -0.3, -0.3, 0.1],  # T4 embarrassment
        [-0.3, 0.4, 0.1, 0.2, 0.0],  # T5 fear
        [-0.3, -0.3, 0.1, 0.2, 0.5],  # T6 pain
        [-0.3, -0.4, 0.2, 0.0, 0.4],  # T7 anger
        [-0.1, -0.2, 0.6, -0.1, -0.5],  # T8 disgust
    ]
)
# Rates of AUs that the data set does not label: they are drawn all the same and stand in the way of the others.
DEFAULT_RATES: Mapping[int, float] = {5: 0.06, 9: 0.06, 20: 0.06, 25: 0.25, 26: 0.15, NULL_AU: 0.12}
_OTHER_RATE = 0.10
_LABELLED = (*AUS, NULL_AU)
_SEQUENCE_SHARE = 0.25  # of the variance of a latent: the mood of the whole sequence
_SHORTEST, _LONGEST = 0.7, 2.6  # seconds of a slot; with its transitions an event lasts about 0.5 to 4 s
_LEAD_IN = 2.0  # seconds of behaviour before time 0


@dataclass(frozen=True)
class Scene:
    """What surrounds the face of one sequence. Arrays of T have one row per frame; the rest is fixed.

    The defaults are even light from the upper left, no blur and no noise.
    """

    yaw: Array  # degrees (T,)
    pitch: Array  # degrees (T,)
    roll: Array  # degrees (T,)
    shift: Array  # place of the face, share of the image's side (T, 2)
    scale: Array  # size of the face, 1 = as in the tables (T,)
    gaze: Array  # offset of the irises, model units (T, 2)
    blink: Array  # closure of the lids, 0..1 (T,)
    key: NDArray[np.int64]  # names the frame within the sequence and fixes its noise (T,)
    light: Array = field(default_factory=lambda: np.array([-0.25, -0.4, 0.88]))  # to the light, axes of the head (3,)
    light_strength: float = 0.5  # share of directed light
    exposure: float = 1.0  # factor on all grey levels
    cast: Array = field(default_factory=lambda: np.ones(3))  # factor per colour channel (3,)
    blur: float = 0.0  # SD, pixels of an image of 64
    noise: float = 0.0  # SD, grey levels
    background: float = 0.2  # contrast
    seed: int = 0  # of background and noise


@dataclass(frozen=True)
class Behaviour:
    """One sequence.

    Attributes:
        intensity: 0..5 (T, 17), in the order of `AUS`.
        occurrence: 1 where the intensity reaches level A, 1.0 (T, 17).
        null: occurrence of `NULL_AU`, which is never drawn (T,).
        scene: what surrounds the face.
    """

    intensity: NDArray[np.float32]
    occurrence: NDArray[np.int8]
    null: NDArray[np.int8]
    scene: Scene = field(repr=False)


def stream(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and the names alone, hence not on the order of asking nor on the process."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def centred_logit(rate: float, spread: float) -> float:
    """The c with E[sigmoid(c + spread * Z)] = rate for a standard normal Z (Gauss-Hermite, bisection)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    weights = weights / weights.sum()
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(weights @ expit(middle + spread * nodes)) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


class Subject:
    """The rates of one subject and how strongly AUs go together.

    Args:
        name: the subject; with `seed` it fixes everything random.
        rates: AU -> target rate of the subject's part. Subjects with equal rates share the strength of co-occurrence.
        difficulty: of the faces and of the recordings.
        seed: the seed of the population.

    Raises:
        UsageError: a rate outside 0..1.
    """

    def __init__(self, name: str, rates: Mapping[int, float], difficulty: Difficulty, seed: int) -> None:
        self.name, self.difficulty, self.seed = name, difficulty, seed
        rng = stream(seed, name, "rates")
        if wrong := {au: rate for au, rate in rates.items() if not 0 <= rate <= 1}:
            raise UsageError(f"subject {name}: rates of AUs {wrong}. Expected 0 to 1.")
        target = np.array([rates.get(au, DEFAULT_RATES.get(au, _OTHER_RATE)) for au in _LABELLED])
        spread = difficulty.rate_spread
        deviation = spread * rng.standard_normal(len(_LABELLED))
        centre = np.array([centred_logit(rate, spread) if 0 < rate < 1 else logit(rate) for rate in target])
        self.rates = expit(centre + deviation)  # (K+1,)
        part = ",".join(f"{au}:{rate:.6f}" for au, rate in sorted(rates.items()) if au != NULL_AU)
        self._strength = float(np.exp(0.15 * stream(seed, part, "strength").standard_normal()))
        # Shifts of the latents in every task (8, K+1).
        self._shifts = np.stack([self.loadings(task) @ row for task, row in zip(TASKS, TASK_SHIFTS, strict=True)])

    def loadings(self, task: str) -> Array:
        """Loadings of the AUs on the factors in a task, (K+1, F); the squares of a row sum to at most 0.9."""
        strength = self.difficulty.cooccurrence * self._strength
        if task in TASKS:
            strength *= float(np.exp(0.15 * stream(self.seed, task, "strength").standard_normal()))
        table = np.array([[loads.get(au, 0.0) for loads in FACTORS.values()] for au in _LABELLED]) * strength
        length = np.sqrt((table**2).sum(1, keepdims=True))
        return np.asarray(table * np.minimum(1.0, np.sqrt(0.9) / np.maximum(length, 1e-9)))

    def tails(self, task: str, times: Array) -> Array:
        """Upper tails s (T, K+1) of the latents at `times`: uniform in 0..1 over tasks, sequences and time."""
        loadings = self.loadings(task)
        rngs = {
            name: stream(self.seed, self.name, task, name) for name in ("mood", "level", "slots", "edges", "delays")
        }
        mood = _combine(rngs["mood"], loadings, 1)[0]
        delays = rngs["delays"].uniform(-0.2, 0.2, len(_LABELLED))
        slots = int(np.ceil((max(float(times.max()), 0.0) + _LEAD_IN + 1.0) / _SHORTEST)) + 2
        lengths, widths = _slots(rngs["slots"], rngs["edges"], slots)
        edges = np.cumsum(lengths)[:-1] - _LEAD_IN
        levels = _combine(rngs["level"], loadings, slots)
        latent = np.empty((len(times), len(_LABELLED)))
        for column, delay in enumerate(delays):
            latent[:, column] = _follow(times + delay, edges, widths, levels[:, column])
        latent = np.sqrt(_SEQUENCE_SHARE) * mood + np.sqrt(1 - _SEQUENCE_SHARE) * latent
        shifts = np.zeros((1, len(_LABELLED)))
        if task in TASKS:
            shifts = self._shifts
            latent = latent + shifts[TASKS.index(task)]
        # Over tasks and time a latent is a mixture of shifted normals, narrower in transitions.
        tails: Array = np.zeros_like(latent)
        for deviation, share in zip(*_deviations(), strict=True):
            tails += share * ndtr((shifts[:, None] - latent) / deviation).mean(0)
        return tails

    def intensity(self, tails: Array) -> Array:
        """Intensity (T, K+1) of the tails: decreasing, continuous, 1 where the tail equals the subject's rate.

        Present, s <= r: 1 + 4 (1 - s / r)^peak_skew. Absent: with v = (s - r) / (1 - r), max(0, 1 - v / trace)^1.5.
        """
        rate = np.clip(self.rates, 1e-9, 1 - 1e-9)
        above = np.clip(1 - tails / rate, 0, 1)
        below = np.clip((tails - rate) / (1 - rate), 0, 1)
        fading = np.clip(1 - below / max(self.difficulty.trace, 1e-9), 0, 1) ** 1.5
        return np.asarray(np.where(tails <= rate, 1 + 4 * above**self.difficulty.peak_skew, fading))

    def sequence(self, task: str, times: NDArray[np.floating]) -> Behaviour:
        """Behaviour in `task` at `times` (T,) in seconds, in any order and at any distance."""
        seconds: Array = np.asarray(times, dtype=np.float64)
        intensity = self.intensity(self.tails(task, seconds)).astype(np.float32)
        present = (intensity >= 1.0).astype(np.int8)
        return Behaviour(intensity[:, :-1], present[:, :-1], present[:, -1], scene(self, task, seconds))


def _combine(rng: np.random.Generator, loadings: Array, rows: int) -> Array:
    """Standard normal levels (rows, K+1): shared factors plus each AU's own. More rows keep the first ones."""
    aus, factors = loadings.shape
    draws = rng.standard_normal((rows, factors + aus))
    own = np.sqrt(1 - (loadings**2).sum(1))
    return np.asarray(draws[:, :factors] @ loadings.T + own * draws[:, factors:])


def _slots(lengths: np.random.Generator, widths: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Lengths of the slots and widths of the transitions between them, in seconds."""
    length = _SHORTEST + (_LONGEST - _SHORTEST) * lengths.random(count) ** 1.5
    return length, widths.uniform(0.4, 0.7, count - 1) * np.minimum(length[:-1], length[1:])


@functools.cache
def _deviations() -> tuple[Array, Array]:
    """SDs of a latent within slots and at points of a transition, and the share of time that each takes."""
    length, width = _slots(np.random.default_rng(0), np.random.default_rng(1), 20_000)
    moving = width.sum() / length.sum()
    ramp = _ease((np.arange(6) + 0.5) / 6)
    mixed = np.sqrt(_SEQUENCE_SHARE + (1 - _SEQUENCE_SHARE) * (ramp**2 + (1 - ramp) ** 2))
    return np.concatenate([[1.0], mixed]), np.concatenate([[1 - moving], np.full(6, moving / 6)])


def _ease(ramp: Array) -> Array:
    return ramp * ramp * (3 - 2 * ramp)


def _follow(times: Array, edges: Array, widths: Array, levels: Array) -> Array:
    """The level of the slot at each time, with smooth transitions around the edges."""
    after = np.clip(np.searchsorted(edges, times), 1, len(edges) - 1)
    edge = np.where(np.abs(edges[after] - times) < np.abs(edges[after - 1] - times), after, after - 1)
    ramp = _ease(np.clip((times - edges[edge]) / widths[edge] + 0.5, 0, 1))
    return np.asarray(levels[edge] * (1 - ramp) + levels[edge + 1] * ramp)


def scene(subject: Subject, task: str, times: Array) -> Scene:
    """Pose, light, camera and background of one sequence; slow drift within it, everything else fixed."""
    difficulty, rng = subject.difficulty, stream(subject.seed, subject.name, task, "scene")
    base = np.clip(rng.standard_normal(6), -2.2, 2.2)
    phases, periods = rng.uniform(0, 2 * np.pi, 6), rng.uniform(4.0, 14.0, 6)
    drift = np.sin(2 * np.pi * times[:, None] / periods + phases)  # (T, 6)
    pose = base[:3] * (difficulty.yaw, difficulty.pitch, difficulty.roll) + drift[:, :3] * difficulty.drift
    shift = difficulty.framing * (base[3:5] + 0.3 * drift[:, 3:5])
    angle, around = np.radians(abs(difficulty.light_angle * base[5])), rng.uniform(0, 2 * np.pi)
    # Light comes from above more often than from below.
    light = np.array([np.sin(angle) * np.cos(around), -abs(np.sin(angle) * np.sin(around)), np.cos(angle)])
    gaze = rng.normal(0, 0.012, 2) + 0.008 * drift[:, 4:6]
    starts = np.cumsum(
        stream(subject.seed, subject.name, task, "blinks").exponential(60 / max(difficulty.blinks, 1e-6), 256)
    )
    blink = np.clip(1 - np.abs(times[:, None] - starts[None] - 0.15) / 0.15, 0, 1).max(1)
    return Scene(
        yaw=pose[:, 0],
        pitch=pose[:, 1],
        roll=pose[:, 2],
        shift=shift,
        scale=np.exp(difficulty.framing * rng.standard_normal() + 0.1 * difficulty.framing * drift[:, 5]),
        gaze=gaze,
        blink=blink,
        key=np.round(times * 1000).astype(np.int64),
        light=light,
        light_strength=difficulty.light_strength * rng.uniform(0.7, 1.1),
        exposure=float(np.exp(rng.normal(0, 0.1))),
        cast=np.exp(rng.normal(0, 0.02, 3)),
        blur=difficulty.blur * rng.uniform(),
        noise=difficulty.noise * rng.uniform(0.5, 1.0),
        background=difficulty.background,
        seed=int(rng.integers(2**31)),
    )


def plain_scene(frames: int) -> Scene:
    """A frontal, evenly lit, sharp and noiseless scene of `frames` frames, for figures and tests."""
    zero, pair = np.zeros(frames), np.zeros((frames, 2))
    return Scene(zero, zero, zero, pair, scale=np.ones(frames), gaze=pair, blink=zero, key=np.arange(frames))
