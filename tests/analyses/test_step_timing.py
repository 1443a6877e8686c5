"""The timed training steps: both sides train the same network on faces of the same kind."""

import numpy as np
import pytest
import torch
from PIL import Image

from aunce.analyses import step_timing
from aunce.analyses.step_timing import Setting


def test_views_of_the_other_side_are_faces_in_the_range_of_ours():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    views = torch.stack([step_timing.pillow_view(image, np.random.default_rng(seed)) for seed in range(20)])
    assert views.shape == (20, 3, 24, 24)
    assert 0 <= views.min() < views.max() <= 1
    assert torch.cdist(views.flatten(1), views.flatten(1)).fill_diagonal_(1).min() > 1e-3


def test_operations_are_those_of_three_passes_over_the_products_of_the_network():
    setting = Setting(pixels=32, images=2, channels=8, aus=3)
    once = step_timing.operations(setting)
    assert step_timing.operations(Setting(pixels=32, images=4, channels=8, aus=3)) == 2 * once
    first = 2 * 4 * 24 * 16 * 16 * 3 * 7 * 7  # the first convolution alone, forward
    assert once > 3 * first


@pytest.fixture(scope="module")
def steps():
    setting = Setting(pixels=32, images=4, channels=8, steps=2)
    return step_timing.compare_steps(setting, workers=0, rounds=2), step_timing.from_disk(setting, rounds=1)


def test_steps_are_rates_of_both_sides_and_their_ratios(steps):
    compared, disk = steps
    assert compared["part"].tolist() == ["model alone", "end to end"]
    assert list(compared) == list(disk) == ["part", "other", "ours", "ratio", "low", "high"]
    for table in steps:
        assert (table[["other", "ours"]] > 0).all(axis=None)
        assert (table["low"] <= table["ratio"]).all()
        assert (table["ratio"] <= table["high"]).all()
