"""The simulated rules are those of `aunce.statistics`, and keep their promises in a small simulation."""

import numpy as np
import pytest

from aunce.analyses import looks
from aunce.analyses.looks import CELLS, COMPARISONS, LOOKS, MARGIN, World
from aunce.statistics import Estimate, cell_interval, outcome


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_many_studies_at_once_have_the_interval_and_the_outcome_of_each(missing):
    world = World(shape="t5", unequal=(0.7, 1.5, 0.9, 1.2), missing=missing)
    differences, there = looks._draw(world, 0.01, 40, np.random.default_rng(0))
    for number, cells in enumerate(COMPARISONS.values()):
        for count in LOOKS:
            value, half, signs = looks._interval(differences[number], there[number], cells, count, 0.01)
            found = looks._outcomes(value, value - half, value + half, signs)
            for k in range(40):
                kept = {
                    CELLS[c]: differences[number, k, c, :count][there[number, k, c, :count] == 1].tolist()
                    for c in cells
                }
                expected = cell_interval(kept, tail=0.01)
                if not expected.defined:
                    assert half[k] == np.inf
                    continue
                assert (value[k], half[k]) == pytest.approx((expected.value, expected.high - expected.value))
                settings = {hard: np.mean([np.mean(kept[CELLS[c]]) for c in cells if c % 2 == hard]) for hard in (0, 1)}
                assert found[k] == outcome(Estimate(*vars(expected).values()), margin=MARGIN, settings=settings)


def test_the_rules_keep_their_promises_with_a_pretext_of_each_replicates_own_and_not_with_one_for_all():
    repetitions = 3000
    error = 2 * np.sqrt(0.05 * 0.95 / repetitions)  # two standard errors of the simulation
    for world in (World(), World(shape="skewed", unequal=(0.7, 1.5, 0.9, 1.2))):
        none, edge, large = (looks.simulate(world, effect, repetitions=repetitions) for effect in (0.0, 0.015, -0.03))
        assert none["all_covered"].iloc[0] >= 0.945 - error
        assert none["wrong"].iloc[0] <= 0.05 + error
        assert (edge["no difference that matters"] <= 0.025 + error).all()
        assert (large["worse"] > 0.9).all()
        assert (large["better"] == 0).all()
    shared = looks.simulate(looks.WORLDS["one pretext for all"], 0.0, repetitions=repetitions)
    assert shared["all_covered"].iloc[0] < 0.6
