"""The measurements: what they count is what there is, and both sides of a ratio do what they are said to do."""

from functools import partial

import pytest
import torch

from aunce.analyses import timing
from aunce.analyses.published_loss import published_loss
from aunce.losses import aunce_loss


def test_a_ratio_is_of_the_two_sides_and_the_other_one_is_the_numerator(monkeypatch):
    clock = 0.0

    def takes(amount):
        def work():
            nonlocal clock
            clock += amount

        return work

    monkeypatch.setattr(timing, "Timer", partial(timing.Timer, timer=lambda: clock))
    pair = timing.pair(takes(0.006), takes(0.002), rounds=3, least=0.01)
    assert pair.low <= pair.ratio <= pair.high
    assert pair.ratio == pytest.approx(3)
    assert (pair.slow, pair.fast) == pytest.approx((0.006, 0.002))
    assert timing.seconds(takes(0.003), least=0.01) == pytest.approx(0.003)


def test_both_sides_of_a_ratio_take_turns():
    done = []
    timing.pair(lambda: done.append("slow"), lambda: done.append("fast"), rounds=3, least=1e-4)
    changes = [side for side, before in zip(done, [None, *done], strict=False) if side != before]
    assert changes == ["slow", "fast"] * 3


def test_peak_bytes_count_what_is_alive_at_once_and_not_what_was_given():
    given = torch.zeros(1000)

    def work():
        first = given + 1  # 4,000 bytes
        second = first.double()  # 8,000
        del first
        third = second.view(10, 100)[:, :50]  # no memory of its own
        return (third * 2).sum()  # 4,000, after the first is gone

    assert 12_000 <= timing.peak_bytes(work)[0] < 12_100  # and numbers that torch wraps
    assert timing.peak_bytes(work, 500)[1] == 4000


def test_peak_bytes_of_a_loss_are_at_least_its_scores_and_gradient():
    for images, matrices in ((120, 6), (300, 0)):  # scores and gradient; sorted rows need no matrix of all pairs
        z, labels, branch = timing.batch(images, 3, 7)
        loss = timing.forward_backward(lambda z, y=labels, at=branch: aunce_loss(z, y, branch=at), z)
        everything, scores = timing.peak_bytes(loss, 3 * (2 * images) ** 2)
        assert scores == matrices * (2 * images) ** 2 * 4
        assert everything >= scores + z.numel() * 4


def test_the_floor_is_the_longer_of_products_and_traffic():
    machine = {"flops": 1e9, "bytes": 1e9}
    assert timing.floor_of_loss(10, 2, 50, machine) == pytest.approx(2 * 2 * 2 * 20**2 * 50 / 1e9)
    assert timing.floor_of_loss(10, 2, 50, machine | {"bytes": 1e6}) == pytest.approx(2 * 4 * 20 * 2 * 50 / 1e6)


def test_both_sides_of_the_comparison_have_the_same_loss():
    z, labels, branch = timing.batch(9, 4, 16)
    ours, theirs = aunce_loss(z, labels, branch=branch), published_loss(z, labels, branch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


def test_evaluation_is_timed_for_every_number_of_frames():
    table = timing.evaluate(timing.SMALL, subjects=5, aus=2, replicates=2)
    assert table["size"].unique().tolist() == list(timing.SMALL.frames)
    assert table["series"].nunique() == 3
    assert (table["seconds"] > 0).all()


def test_importing_the_package_loads_no_torch():
    assert not timing.loads_torch()
