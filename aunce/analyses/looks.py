"""Whether the rules of the second edition of the claims keep their promises, where the truth is known.

Three comparisons are simulated as they are made: the first method minus supervised training in clean cells and in noisy
ones, and minus SupCon in all four cells. Every replicate is one population of faces in one cell. At each look intervals
and outcomes are those of `aunce.statistics`, and the study stops when no comparison is open any more.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from aunce.statistics import Outcome, look_tails

Floats = NDArray[np.float64]

CELLS = ("clean, easy", "clean, hard", "noisy, easy", "noisy, hard")
COMPARISONS = {"clean": (0, 1), "noisy": (2, 3), "pooled": (0, 1, 2, 3)}  # and the cells that each has
LOOKS = (4, 6, 8)  # replicates in a cell
MARGIN, FAMILY = 0.015, 0.05  # AUC; error of all comparisons together, on both sides


@dataclass(frozen=True)
class World:
    """What scores are made of.

    Attributes:
        deviation: SD of a paired difference within a cell, in AUC.
        unequal: ratios of the cells' SDs to it.
        shape: of the residuals: normal; t5, Student's with 5 degrees of freedom; skewed, a shifted chi square with 4.
        shared_pretext: SD of what one pretext for all replicates adds to each method, in AUC. A pretext of each
            replicate's own is part of the residuals.
        missing: share of runs that failed for good.
    """

    deviation: float = 0.02
    unequal: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    shape: str = "normal"
    shared_pretext: float = 0.0
    missing: float = 0.0


def simulate(world: World, effect: float, *, repetitions: int, seed: int = 0) -> pd.DataFrame:
    """How often the rules are right in a world.

    Args:
        world: see `World`.
        effect: the true value of all three comparisons, in AUC.
        repetitions: studies drawn.
        seed: of all draws.

    Returns:
        One row per comparison: covered (the interval that decided holds the truth), all_covered (those of all three do,
        the same in each row), wrong (any interval excludes 0 on a side where the truth is not, the same in each row),
        the share of each `Outcome` by its name, and replicates (mean number per cell when it stopped).
    """
    random = np.random.default_rng([seed, round(1e6 * abs(effect)), effect < 0])
    differences, there = _draw(world, effect, repetitions, random)
    tails = look_tails([count / LOOKS[-1] for count in LOOKS], FAMILY / len(COMPARISONS) / 2)
    decided = np.full((repetitions, len(COMPARISONS)), "", dtype="<U32")
    lows, highs = np.zeros((2, repetitions, len(COMPARISONS)))
    used = np.zeros(repetitions)
    going = np.ones(repetitions, dtype=bool)
    for count, tail in zip(LOOKS, tails, strict=True):
        for number, cells in enumerate(COMPARISONS.values()):
            value, half, signs = _interval(differences[number], there[number], cells, count, tail)
            lows[going, number], highs[going, number] = (value - half)[going], (value + half)[going]
            decided[going, number] = _outcomes(value, value - half, value + half, signs)[going]
        used[going] = count
        going = going & (decided == str(Outcome.OPEN)).any(1)
    covered = (lows <= effect) & (effect <= highs)
    wrong = ((lows > 0) & (effect <= 0)) | ((highs < 0) & (effect >= 0))
    return pd.DataFrame(
        {
            "comparison": list(COMPARISONS),
            "covered": covered.mean(0),
            "all_covered": covered.all(1).mean(),
            "wrong": wrong.any(1).mean(),
            **{str(one): (decided == str(one)).mean(0) for one in Outcome},
            "replicates": used.mean(),
        }
    )


def _draw(world: World, effect: float, repetitions: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Differences of each comparison (3, n, C, R), and whether both runs are there (3, n, C, R)."""
    size = (3, repetitions, len(CELLS), LOOKS[-1])  # first method, supervised, SupCon
    if world.shape == "t5":
        residual = random.standard_t(5, size) / np.sqrt(5 / 3)
    elif world.shape == "skewed":
        residual = (random.chisquare(4, size) - 4) / np.sqrt(8)
    else:
        residual = random.standard_normal(size)
    scores = residual * world.deviation / np.sqrt(2) * np.array(world.unequal)[:, None]  # (3, n, C, R)
    scores += world.shared_pretext * random.standard_normal((3, repetitions, 1, 1))
    scores[0] += effect
    done = random.random(size) >= world.missing
    other = (1, 1, 2)  # supervised twice, SupCon
    return (
        np.stack([scores[0] - scores[k] for k in other]),
        np.stack([done[0] & done[k] for k in other]).astype(np.float64),
    )


def _interval(
    differences: Floats, there: Floats, cells: Sequence[int], count: int, tail: float
) -> tuple[Floats, Floats, Floats]:
    """`statistics.cell_interval` of n studies at once: value (n), half width (n), means of easy and hard (n, 2)."""
    values, weights = differences[:, cells, :count], there[:, cells, :count]  # (n, C, R)
    numbers = weights.sum(2)  # (n, C)
    means = (values * weights).sum(2) / np.maximum(numbers, 1)  # (n, C)
    squares = (weights * (values - means[:, :, None]) ** 2).sum((1, 2))  # (n)
    freedom = numbers.sum(1) - len(cells)  # (n)
    error = np.sqrt(squares / np.maximum(freedom, 1) * (1 / np.maximum(numbers, 1)).sum(1)) / len(cells)  # (n)
    half = np.where(
        (numbers > 0).all(1) & (freedom > 0), special.stdtrit(np.maximum(freedom, 1), 1 - tail) * error, np.inf
    )
    signs = np.stack([means[:, np.array(cells) % 2 == hard].mean(1) for hard in (0, 1)], axis=1)  # (n, 2)
    return means.mean(1), half, signs


def _outcomes(value: Floats, low: Floats, high: Floats, signs: Floats) -> NDArray[np.str_]:
    """`statistics.outcome` of many studies at once (n)."""
    one_sign = (np.sign(signs) == np.sign(value)[:, None]).all(1)
    large = np.abs(value) >= MARGIN
    rules = (
        ((low > -MARGIN) & (high < MARGIN), Outcome.NO_DIFFERENCE),
        ((low > 0) & ~large, Outcome.AHEAD),
        ((high < 0) & ~large, Outcome.BEHIND),
        ((low > 0) & one_sign, Outcome.BETTER),
        ((high < 0) & one_sign, Outcome.WORSE),
    )
    return np.select([rule for rule, _ in rules], [str(name) for _, name in rules], str(Outcome.OPEN))


WORLDS = {
    "as planned": World(),
    "less spread": World(deviation=0.012),
    "more spread": World(deviation=0.03),
    "unequal cells": World(unequal=(0.7, 1.5, 0.9, 1.2)),
    "heavy tails": World(shape="t5"),
    "skewed": World(shape="skewed"),
    "skewed and unequal": World(shape="skewed", unequal=(0.7, 1.5, 0.9, 1.2)),
    "missing runs": World(missing=0.03),
    "one pretext for all": World(shared_pretext=0.008),
}
"""Worlds of the page. The last one is what a pretext of each replicate's own avoids."""


def simulate_all(effects: Sequence[float] = (0.0, 0.0075, 0.015, 0.03), *, repetitions: int = 10_000) -> pd.DataFrame:
    """`simulate` in all `WORLDS` for effects on both sides, with columns world and effect in front."""
    parts = []
    for (name, world), effect in itertools.product(WORLDS.items(), sorted({*effects, *(-one for one in effects)})):
        found = simulate(world, effect, repetitions=repetitions)
        parts.append(found.assign(world=name, effect=effect))
    table = pd.concat(parts, ignore_index=True)
    return table[["world", "effect", *(column for column in table if column not in ("world", "effect"))]]
