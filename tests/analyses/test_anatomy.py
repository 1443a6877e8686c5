"""The anatomy: numbers against loops, finite differences and formulas by hand."""

import math

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F

from aunce.analyses import anatomy
from aunce.analyses.anatomy import embeddings, occurrence, pair_forces, state
from aunce.losses import aunce_loss, infonce, own_view_share, supcon

SMALL = occurrence(2, 5)


@pytest.fixture
def z():
    return embeddings(SMALL, view=0.8, same=0.5, other=0.2, channels=8)


# ------------------------------------------------------------------------------------------------ made-up embeddings


def test_embeddings_have_the_cosines_that_are_asked_for():
    labels = occurrence(20, 40)
    z = embeddings(labels, view=0.9, same=0.6, other=0.3, channels=4000)
    x = z.flatten(0, 2)
    kinds = anatomy.pair_kinds(labels)
    for kind, expected in ((0, 1), (1, 0.9), (2, 0.6), (3, 0.3)):
        assert (x @ x.T)[kinds == kind].mean().item() == pytest.approx(expected, abs=0.02)
    assert z.dtype == torch.float64
    assert torch.equal(z, embeddings(labels, view=0.9, same=0.6, other=0.3, channels=4000))


def test_kinds_of_rows_by_hand():
    # two images, one with the AU: rows present, absent, present, absent
    assert anatomy.pair_kinds(occurrence(1, 2)).tolist() == [[0, 3, 1, 3], [3, 0, 3, 1], [1, 3, 0, 3], [3, 1, 3, 0]]
    assert anatomy.pair_kinds(occurrence(2, 2)).tolist()[0] == [0, 2, 1, 2]


# ------------------------------------------------------------------------------------------------------------ values


def test_values_agree_with_loops_that_do_not_work_in_log_space():
    labels = occurrence(3, 8)
    for preset, options in anatomy.presets("mean").items():
        rest = {name: value for name, value in options.items() if name != "positive"}
        for between in (1.0, 0.0, -1.0):
            z = anatomy.clusters(labels, between)
            table = oracle.aunce(z.numpy(), labels.numpy(), shares=np.array([[0, 1, 0]]), **rest)
            ours = anatomy.anchor_losses(z, labels, **options).mean().item()
            assert ours == pytest.approx(oracle.mean(table, labels.numpy())), preset
            by_hand = anatomy.closed_form("mean", present=3, images=8, between=between, **rest)
            assert ours == pytest.approx((5 * by_hand[0] + 3 * by_hand[1]) / 8)


def test_values_of_the_page():
    table = anatomy.values().set_index(["preset", "positive"])
    assert table["error"].max() < 1e-12
    # the maximum is the anchor itself: random vectors and separated labels look alike, to no other branch
    off = table["random"] - table["orthogonal"]
    assert off[("released", "max")] < 0.01
    assert off.drop(index=[("released", "max"), ("early", "max")]).min() > 1
    assert (table["equal"] < table["random"] + 0.02).drop(index=[("released", "max"), ("early", "max")]).sum() >= 10
    # released max, all equal: 26 absent anchors with 12 negatives, 6 present with 52; e^2 s of cosine 1, tau .5
    expected = 26 / 32 * math.log1p(12 * math.exp(1.6 - 2)) + 6 / 32 * math.log1p(52 * math.exp(2.4 - 2))
    assert table.loc[("released", "max"), "equal"] == pytest.approx(expected)


def test_floors_and_the_force_that_is_left_there():
    table = anatomy.floors(temperatures=(0.5, 1.0), batches=(32,), rates=(0.25,)).set_index(["tau", "between"])
    # 16 positives of 64 rows: P = e^2 / 4; 48 negatives at cosine 0
    loss, r = math.log1p(48 * 4 * math.exp(-2)), 192 / (192 + math.exp(2))
    assert table.loc[(0.5, 0.0), ["loss", "weight", "force"]].tolist() == pytest.approx([loss, r, 1.2 * r / 0.5])
    assert table.loc[(1.0, -1.0), "loss"] == pytest.approx(math.log1p(192 * math.exp(-1.2 - 1)))
    assert table.loc[(0.5, -1.0), "force"] == pytest.approx(0, abs=1e-12)


def test_no_embeddings_go_below_the_floor():
    labels = occurrence(8)
    floor = anatomy.floors(temperatures=(0.5,), batches=(32,), rates=(0.25,)).set_index("between")["loss"]
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        z = torch.randn(2, 32, 1, 3, generator=generator, dtype=torch.float64)
        for between, rows in ((0.0, F.relu(z) + 1e-9), (-1.0, z)):
            assert anatomy.anchor_losses(rows, labels, positive="mean")[0] >= floor[between] - 1e-12


# ------------------------------------------------------------------------------------------------------------ forces


@pytest.mark.parametrize("positive", ["max", "mean", "view", "expected"])
@pytest.mark.parametrize("exclude", ["none", "image"])
def test_forces_by_hand(z, positive, exclude):
    """From the formula: r / tau times (e softmax over the negatives, minus the share in the positives)."""
    tau, options = 0.3, {"positive": positive, "exclude": exclude, "temperature": 0.3}
    x = z.flatten(0, 2).numpy()
    cosines, y = x @ x.T, np.tile(SMALL[:, 0].numpy(), 2)
    found = pair_forces(z, SMALL, **options).numpy()
    image = np.tile(np.arange(5), 2)
    for i in range(10):
        e = 1.2 if y[i] else 0.8
        s = np.exp(e * cosines[i] / tau) * (y != y[i])
        taken = (y == y[i]) & ((image != image[i]) if exclude == "image" else True)
        own = (image == image[i]) & (np.arange(10) != i)
        expected = np.zeros(10)
        for kind, p in zip(("max", "mean", "view"), anatomy.PROBS, strict=True):
            p = {"expected": p, kind: 1.0}.get(positive, 0.0)
            if p:
                scores = np.exp(cosines[i] / tau) * (own if kind == "view" else taken)
                if kind == "max":
                    scores = scores * (scores == scores.max())
                score = scores.sum() / (10 if kind == "mean" else 1)
                r = s.sum() / (s.sum() + score)
                expected += p * r / tau * (e * s / s.sum() - scores / scores.sum())
        expected[i] = 0
        assert found[i] == pytest.approx(expected, abs=1e-9)


def test_gradients_of_anchors_by_finite_differences(z):
    found = anatomy.anchor_gradients(z, SMALL, positive="mean")
    step = 1e-6
    for row, channel in ((0, 0), (3, 5), (7, 2)):
        ends = []
        for sign in (1, -1):
            moved = z.clone()
            moved[row // 5, row % 5, 0, channel] += sign * step
            ends.append(anatomy.anchor_losses(moved, SMALL, positive="mean"))
        assert torch.allclose((ends[0] - ends[1]) / (2 * step), found[:, row, channel], atol=1e-5)


@pytest.mark.parametrize("method", ["supcon", "infonce"])
def test_reference_forces_add_up_to_the_gradient_of_the_library(z, method):
    forces = anatomy.reference_forces(z, SMALL, method)
    x = z.flatten(0, 2)
    both = forces + forces.T
    by_hand = (both @ x - (both * (x @ x.T)).sum(1, keepdim=True) * x) / 10
    leaf = z.clone().requires_grad_()
    loss = supcon(leaf, SMALL, anatomy.TAU) if method == "supcon" else infonce(leaf, anatomy.TAU)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert torch.allclose(gradient.flatten(0, 2), by_hand, atol=1e-12)


def test_the_released_maximum_attracts_nothing_and_others_do():
    assert anatomy.max_branch("none").attraction == 0
    assert anatomy.max_branch("none").remainder < 1e-12
    for exclude in ("self", "image"):
        found = anatomy.max_branch(exclude)
        assert found.attraction > 1
        assert found.remainder > 0.1


def test_the_share_of_own_views_by_the_forces_of_the_loss():
    labels = occurrence(6)
    for view, same in ((0.9, 0.2), (0.5, 0.45)):
        z = embeddings(labels, view=view, same=same, other=0)
        forces = pair_forces(z, labels, positive="max", exclude="self")
        positive = torch.where(anatomy.pair_kinds(labels) == 3, torch.inf, forces)
        share = (anatomy.pair_kinds(labels).gather(1, positive.argmin(1, keepdim=True)) == 1).double().mean().item()
        assert own_view_share(z, labels) == pytest.approx(share)


def test_the_divisor_moves_log_p_by_the_log_of_the_rate():
    table = anatomy.mean_divisors()
    assert table["error"].max() < 1e-9
    assert table["shift"].tolist() == pytest.approx([math.log(rate) for rate in (0.5, 0.1, 0.02)] * 3)
    # dividing by more gives every anchor more weight
    assert (table["weight_row"] > table["weight_positives"]).all()


def test_draws_by_drawing():
    table = anatomy.draws().set_index("way")
    assert table["distance"].max() < 1e-12
    labels = occurrence(6)
    z = state("labels half seen", labels)
    generator = torch.Generator().manual_seed(0)
    mean = anatomy.anchor_gradients(z, labels, positive="expected").sum(0)
    for draw, way in (("au", "once per AU and batch"), ("anchor", "once per anchor")):
        total = []
        for _ in range(150):
            leaf = z.clone().requires_grad_()
            loss = aunce_loss(leaf, labels, draw=draw, generator=generator, reduction="none").sum()
            (gradient,) = torch.autograd.grad(loss, leaf)
            total.append(((gradient.flatten(0, 2) - mean) ** 2).sum().item())
        assert np.mean(total) == pytest.approx(table.loc[way, "variance"], rel=0.2)


def test_a_draw_per_anchor_is_told_from_one_per_au(monkeypatch):
    assert anatomy.anchors_share_a_draw(trials=5) == 1
    released = anatomy.AUNCELoss.released
    monkeypatch.setattr(anatomy.AUNCELoss, "released", lambda **options: released(draw="anchor", **options))
    assert anatomy.anchors_share_a_draw(trials=5) == 0


def test_denominators_by_hand():
    labels = occurrence(6)
    z = state("labels half seen", labels)
    x, kinds = z.flatten(0, 2), anatomy.pair_kinds(labels)
    s = torch.exp(x @ x.T / anatomy.TAU)
    whole = torch.where(kinds != 0, s, 0).sum(1)
    ours = torch.where((kinds == 1) | (kinds == 3), s, 0).sum(1)
    found = anatomy.denominators()
    assert found.kept == pytest.approx((ours / whole).log().mean().exp().item())
    assert found.same_as_simclr < 1e-9


# --------------------------------------------------------------------------------------------------------- exponents


def test_normalised_weights_bring_the_ratio_of_equal_exponents_back():
    table = anatomy.steps().set_index(["prevalence", "exponents", "normalised"])
    for rate in (0.5, 0.1):
        equal = table.loc[(rate, "equal", False), "ratio"]
        assert table.loc[(rate, "released", False), "ratio"] > 1.2 * equal
        assert table.loc[(rate, "swapped", False), "ratio"] < equal / 1.2
        for name in anatomy.EXPONENTS:
            assert table.loc[(rate, name, True), "ratio"] == pytest.approx(equal, rel=0.02)
    for name, (absent, present) in anatomy.EXPONENTS.items():
        raw = table.loc[(0.1, name, False)]
        assert (raw["push_absent"], raw["push_present"]) == pytest.approx((absent, present))


def test_au_weights_leave_the_ratio_of_steps(z):
    lengths = [
        anatomy.anchor_gradients(z, SMALL, positive="mean", au_weights=[weight]).flatten(1).norm(dim=1)
        for weight in (1.0, 3.0)
    ]
    assert torch.allclose(lengths[1], 3 * lengths[0])


def test_an_exponent_is_a_temperature():
    assert anatomy.exponent_is_temperature(0.4) < 1e-9


def test_aus_that_are_present_in_most_frames():
    assert [name.split()[0] for name in anatomy.frequent_aus()] == ["AU7", "AU10", "AU12"]


# --------------------------------------------------------------------------------------------------------- precision


def test_half_precision():
    table = anatomy.precision().set_index(["dtype", "tau"])
    half = table.loc["float16"]
    assert np.isfinite(half.loc[[0.5, 0.2], "naive"]).all()
    assert not np.isfinite(half.loc[[0.1, 0.07, 0.05], "naive"]).any()
    assert table["ours"].max() < 0.01
    labels = occurrence(6)
    z = state("labels half seen", labels)
    exact = table.loc[("float32", 0.5), "exact"]
    assert anatomy.exponentiate_first(z, labels, 0.5) == pytest.approx(exact)
