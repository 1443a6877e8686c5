"""The anatomy: numbers against loops, finite differences and formulas by hand; verdicts that follow the numbers."""

import json
import math

import nbformat
import numpy as np
import oracle
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from aunce.analyses import anatomy
from aunce.analyses.anatomy import Anatomy, embeddings, occurrence, pair_forces, state
from aunce.losses import aunce_loss, infonce, own_view_share, supcon
from aunce.report import figures, findings

SMALL = occurrence(2, 5)


@pytest.fixture
def z():
    return embeddings(SMALL, view=0.8, same=0.5, other=0.2, channels=8)


@pytest.fixture
def fresh(monkeypatch):
    """Replace a function of the module by one that returns `value`, and give the verdict of one entry."""

    def verdict(name, value, id):
        monkeypatch.setattr(anatomy, name, lambda *args, **kwargs: value)
        (entry,) = [entry for entry in Anatomy().entries if entry.id == id]
        return entry.verdict

    return verdict


# ------------------------------------------------------------------------------------------------ made-up embeddings


def test_embeddings_have_the_cosines_that_are_asked_for():
    labels = occurrence(20, 40)
    z = embeddings(labels, view=0.9, same=0.6, other=0.3, channels=4000)
    x = z.flatten(0, 2)
    kinds = anatomy._kinds(labels)
    for kind, expected in ((0, 1), (1, 0.9), (2, 0.6), (3, 0.3)):
        assert (x @ x.T)[kinds == kind].mean().item() == pytest.approx(expected, abs=0.02)
    assert z.dtype == torch.float64
    assert torch.equal(z, embeddings(labels, view=0.9, same=0.6, other=0.3, channels=4000))


def test_kinds_of_rows_by_hand():
    # two images, one with the AU: rows present, absent, present, absent
    assert anatomy._kinds(occurrence(1, 2)).tolist() == [[0, 3, 1, 3], [3, 0, 3, 1], [1, 3, 0, 3], [3, 1, 3, 0]]
    assert anatomy._kinds(occurrence(2, 2)).tolist()[0] == [0, 2, 1, 2]


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
    found = pair_forces(z, SMALL, None, **options).numpy()
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
        forces = pair_forces(z, labels, None, positive="max", exclude="self")
        positive = torch.where(anatomy._kinds(labels) == 3, torch.inf, forces)
        share = (anatomy._kinds(labels).gather(1, positive.argmin(1, keepdim=True)) == 1).double().mean().item()
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


def test_denominators_by_hand():
    labels = occurrence(6)
    z = state("labels half seen", labels)
    x, kinds = z.flatten(0, 2), anatomy._kinds(labels)
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


# ----------------------------------------------------------------------------------------------- precision and batches


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


def test_positives_in_a_batch_by_hand_and_by_drawing():
    table = anatomy.positives().set_index(["prevalence", "images"])
    assert table.loc[(0.05, 32), ["expected", "none", "one"]].tolist() == pytest.approx(
        [1.6, 0.95**32, 32 * 0.05 * 0.95**31]
    )
    drawn = (np.random.default_rng(0).random((20_000, 32)) < 0.05).sum(1)
    assert (drawn == 0).mean() == pytest.approx(table.loc[(0.05, 32), "none"], abs=0.01)


def test_noise_falls_and_the_loss_rises_with_the_batch():
    table = anatomy.batch_noise()
    for _, rows in table.groupby("prevalence"):
        assert rows["noise"].is_monotonic_decreasing
        assert rows["loss"].is_monotonic_increasing


# ------------------------------------------------------------------------------------------------------ unknown codes


def test_the_published_rule_by_loops():
    labels = torch.tensor([1, 1, 0, 9, 0, 9])[:, None]
    z = embeddings(labels.clamp(max=1), view=0.8, same=0.5, other=0.2, channels=8)
    found = anatomy.published_rule(z, labels, positive="mean")
    x, y = z.flatten(0, 2).tolist(), labels[:, 0].tolist() * 2
    for i in range(12):
        s = [math.exp(oracle.dot(x[i], other) / 0.5) for other in x]
        e = {1: 1.2, 0: 0.8}.get(y[i])
        n = sum(value**e for value, label in zip(s, y, strict=True) if label != y[i]) if e else 0.0
        p = sum(value for value, label in zip(s, y, strict=True) if label == y[i]) / 12
        assert found[i].item() == pytest.approx(-math.log(p / (p + n)))


def test_code_9_repels_and_unknown_does_not():
    table = anatomy.unknowns().set_index("way")
    assert table["false"].tolist() == [224, 0, 0]
    # 8 rows coded 9, 2 truly present images: 28 known images x 2 anchors, of which 4 present and 24 absent images
    nine = table.loc["9 is a class (released)"]
    assert nine["repelled"] == 2 * (8 * 48) + 56 * 8
    assert nine["false"] == 8 * 4 + 48 * 4
    assert nine["on_9"] == 0
    assert table.loc["unknown (here)", "from_9"] == 0


# -------------------------------------------------------------------------------------------------------------- costs


def test_operations_are_those_that_torch_counts_on_real_images():
    from torch.utils.flop_counter import FlopCounterMode

    from aunce.model import build_encoder

    table = anatomy.costs("small", pixels=48, channels=64, images=4).set_index("method")
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


# ----------------------------------------------------------------------------------------------------------- verdicts


def test_the_claim_falls_with_the_operations_and_not_with_the_wording(fresh):
    table = anatomy.all_costs()
    assert anatomy.more_than(table, "operations")
    assert not anatomy.more_than(table, "operations", "BCE, two views")
    assert not anatomy.more_than(table, "parameters")
    cheap = table.assign(operations=table["operations"].where(table["method"] != "AUNCE", table["operations"] / 2.1))
    assert fresh("all_costs", cheap, "C7") == "holds"
    assert fresh("all_costs", table, "C7") == "does not hold"
    large = cheap.assign(parameters=cheap["parameters"].where(cheap["method"] != "AUNCE", 10**9))
    assert fresh("all_costs", large, "C7") == "does not hold"


def test_verdicts_flip_when_the_numbers_do(fresh):
    assert {entry.verdict for entry in Anatomy().entries if entry.id != "C7"} == {"holds"}
    assert fresh("max_branch", anatomy.max_branch("self"), "D1") == "does not hold"
    assert fresh("_mean_is_of_the_row", False, "D2") == "does not hold"
    assert fresh("anchors_share_a_draw", 0.4, "D3") == "does not hold"
    assert fresh("denominators", anatomy.Denominators(1.0, 0.0), "D6") == "does not hold"
    assert fresh("smallest", anatomy.smallest(False), "D7") == "does not hold"
    truth = anatomy.unknowns().assign(from_9=0.0)
    assert fresh("unknowns", truth, "D16") == "does not hold"
    many = anatomy.positives().assign(none=0.0, one=0.0)
    assert fresh("positives", many, "D18") == "does not hold"


def test_a_draw_per_anchor_is_told_from_one_per_au(monkeypatch):
    assert anatomy.anchors_share_a_draw(trials=5) == 1
    released = anatomy.AUNCELoss.released
    monkeypatch.setattr(anatomy.AUNCELoss, "released", lambda **options: released(draw="anchor", **options))
    assert anatomy.anchors_share_a_draw(trials=5) == 0


# ---------------------------------------------------------------------------------------------------------------- page


def test_every_section_is_shown_under_its_heading_and_findings_are_written(tmp_path):
    shown = Anatomy(out=tmp_path)
    sections = [name for name in vars(Anatomy) if not name.startswith("_") and name != "entries"]
    text = {name: getattr(shown, name)().data for name in sections}
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"floors", "forces", "steps", "batches"}
    for name, section in text.items():
        assert " nan" not in section, name
    written = findings.read(tmp_path)
    assert written.kind == "computation"
    assert [entry.id for entry in written.entries] == ["C7", "D1", "D2", "D3", "D6", "D7", "D16", "D18"]
    assert json.loads((tmp_path / "findings.json").read_text())["runs"] == 0
    for entry in written.entries:
        assert entry.reason in text["verdicts"]
        assert entry.section in anatomy.SECTIONS.values()
    assert set(anatomy.SECTIONS) <= set(sections)


def test_the_notebook_has_the_sections_that_findings_point_to(request):
    cells = nbformat.read(request.config.rootpath / "notebooks" / "anatomy.ipynb", 4).cells
    place = 0
    for name, heading in anatomy.SECTIONS.items():
        (found,) = [
            i
            for i, cell in enumerate(cells)
            if cell.source.startswith(f"## {heading}\n") or cell.source == f"## {heading}"
        ]
        assert found > place
        assert f"anatomy.{name}()" in cells[found + 1].source
        place = found


def test_nothing_is_written_without_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Anatomy().title()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (figures.floors, lambda: anatomy.floors(temperatures=(0.5,), rates=(0.25, 0.5))),
        (figures.forces, anatomy.branch_forces),
        (figures.steps, anatomy.steps),
        (figures.batches, anatomy.batch_noise),
    ],
)
def test_figures_come_from_tidy_tables_and_are_the_same_each_time(draw, table):
    data: pd.DataFrame = table()
    assert isinstance(draw(data), Figure)
    assert figures.to_svg(draw(data)) == figures.to_svg(draw(data))
