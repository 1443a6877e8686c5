"""Operations of a training step, against those that torch counts on real images."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from aunce.analyses import costs
from aunce.losses import aunce_loss
from aunce.model import build_encoder


def test_operations_are_those_that_torch_counts_on_real_images():
    table = costs.costs("small", pixels=48, channels=64, images=4).set_index("method")
    encoder = build_encoder("small", aus=12, channels=64, seed=0)
    with FlopCounterMode(display=False) as counter:
        z = torch.stack([*encoder(torch.rand(8, 3, 48, 48)).chunk(2)])
        aunce_loss(z, torch.ones(4, 12, dtype=torch.int8), positive="expected").backward()
    assert table.loc["AUNCE", "operations"] == counter.get_total_flops()
    # 2 for multiplication and addition; 1 product forward and 1 backward, and sums by label, a product with two columns
    assert table.loc["AUNCE", "of_loss"] == 2 * 12 * 8 * 8 * (2 * 64 + 2)
    assert table.loc["AUNCE", "parameters"] == sum(p.numel() for p in encoder.parameters())
    assert table.loc["BCE, one view", "parameters"] - table.loc["AUNCE", "parameters"] == 12 * 65
    assert table.loc["AUNCE", "ratio"] == pytest.approx(2, rel=0.02)
