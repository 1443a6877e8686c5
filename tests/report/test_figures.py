"""The figures: what a reader must be able to see in them, and that the same table gives the same bytes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from aunce.report import figures, style

ARMS = ("BCE", "AUNCE released")
NOISES = ("none", "miss 0.3")


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        {"arm": arm, "kind": kind, "noise": noise, "score": score, "value": value + step}
        | {"estimate": value, "low": value - width, "high": value + width}
        for score in ("Macro-AUC", "Macro-F1")
        for arm, kind, value in (("BCE", "arm", 0.8), ("AUNCE released", "arm", 0.7), ("raw pixels", "floor", 0.45))
        for noise, width in (("none", 0.01), ("miss 0.3", 5.0))
        for step in (-0.02, 0.02)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def history() -> pd.DataFrame:
    rows = [
        {"key": f"{arm}{noise}{k}", "arm": arm, "noise": noise, "epoch": epoch, "flat": k == 0}
        | {"val_auc": 0.5 + 0.05 * epoch + 0.01 * k}
        for arm in ARMS
        for noise in NOISES
        for k in (0, 1)
        for epoch in (2, 4, 6)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def per_au() -> pd.DataFrame:
    rows = [
        {"au": au, "arm": arm, "noise": noise, "value": 0.7, "low": 0.6, "high": np.inf if au == 2 else 0.8}
        | {"enters": au != 2, "positives": 31, "subjects": 2}
        for au in (1, 2, 4)
        for arm in ARMS
        for noise in NOISES
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def card() -> pd.DataFrame:
    return pd.DataFrame([{"part": part, "au": au, "rate": au / 20} for part in "123" for au in (1, 2, 4)])


@pytest.fixture
def frames() -> pd.DataFrame:
    return pd.DataFrame({"AU1": [1, 1, 1, 0, -1], "AU2": [1, 0, -1, 0, 1], "AU4": [0, 0, 0, 0, 0]})


def drawn(figure: Figure) -> Figure:
    figure.canvas.draw()
    return figure


def colours(figure: Figure) -> list[set[str]]:
    """Colours of the lines of each panel."""
    return [{str(line.get_color()) for line in axes.lines} for axes in figure.axes]


def test_same_table_gives_the_same_bytes_without_a_date(scores, history, per_au) -> None:
    tables = ((figures.headline, scores), (figures.learning_curves, history), (figures.forest, per_au))
    for draw, table in tables:
        first, second = (figures.to_svg(draw(table)) for _ in range(2))
        assert first == second
        assert b"dc:date" not in first


def test_pyplot_and_the_readers_settings_are_left_alone(scores, history, per_au, card, frames) -> None:
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    figures.headline(scores)
    figures.learning_curves(history)
    figures.forest(per_au)
    figures.rates(card)
    figures.cooccurrence(frames, (1, 2, 4))
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_the_inputs_are_not_changed(scores, per_au) -> None:
    copies = scores.copy(), per_au.copy()
    figures.headline(scores)
    figures.forest(per_au)
    pd.testing.assert_frame_equal(scores, copies[0])
    pd.testing.assert_frame_equal(per_au, copies[1])


def test_a_notebook_shows_a_figure_without_pyplot(card) -> None:
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(figures.rates(card))
    assert shown["image/png"].startswith(b"\x89PNG")


def test_wide_intervals_do_not_stretch_the_axis_and_end_in_arrows(scores) -> None:
    figure = drawn(figures.headline(scores))
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low > 0.3
        assert high <= 1.01
        assert sum(line.get_marker() in ("<", ">") for line in axes.lines) == 2 * 3


def test_every_replicate_is_a_dot_and_every_arm_a_row(scores) -> None:
    figure = drawn(figures.headline(scores))
    for axes in figure.axes:
        dots = [line for line in axes.lines if line.get_marker() == "."]
        assert sum(len(line.get_xdata()) for line in dots) == 12
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["BCE", "AUNCE released", "raw pixels"]


def test_an_interval_that_is_not_defined_is_not_drawn(scores) -> None:
    table = scores.assign(low=-np.inf, high=np.inf)
    figure = drawn(figures.headline(table))
    lines = [
        line
        for axes in figure.axes
        for line in axes.lines
        if line.get_linestyle() == "-" and len(line.get_xdata()) == 2
    ]
    assert not lines


def test_a_score_that_is_not_defined_leaves_a_gap_and_no_error(scores) -> None:
    table = scores.assign(value=np.nan, estimate=np.nan, low=-np.inf, high=np.inf)
    assert figures.to_svg(figures.headline(table))


def test_runs_that_have_not_flattened_are_dashed(history) -> None:
    figure = drawn(figures.learning_curves(history))
    styles = [line.get_linestyle() for line in figure.axes[0].lines if line.get_linewidth() < 1]
    assert styles == ["-", "--", "-", "--"]
    means = [line.get_ydata() for line in figure.axes[0].lines if line.get_linewidth() > 1]
    np.testing.assert_allclose(means[0], [0.605, 0.705, 0.805])


def test_more_arms_than_colours_are_told_apart_by_hollow_markers(history) -> None:
    one = history[history["arm"] == history["arm"].iloc[0]]
    more = pd.concat([one.assign(arm=f"arm {number}", key=f"key {number}") for number in range(11)])
    figure = drawn(figures.learning_curves(more))
    means = [line for line in figure.axes[0].lines if line.get_linewidth() > 1]
    legend = [line for line in figure.legends[0].legend_handles if line.get_label().startswith("arm")]
    for lines in (means, legend):
        looks = [(line.get_color(), line.get_marker(), line.get_markerfacecolor()) for line in lines]
        assert len(set(looks)) == len(looks) == 11
    assert [line.get_markerfacecolor() for line in means] == [line.get_markerfacecolor() for line in legend]


def test_many_noise_levels_stay_within_the_row_of_their_arm(scores) -> None:
    one = scores[scores["noise"] == scores["noise"].iloc[0]]
    levels = pd.concat([one.assign(noise=f"kind {number}") for number in range(7)])
    axes = drawn(figures.headline(levels)).axes[0]
    places = sorted({round(float(y), 3) for line in axes.lines for y in line.get_ydata() if line.get_marker() != "."})
    bottom, top = axes.get_ylim()
    assert top < places[0] - 0.1
    assert places[-1] < bottom
    assert len([y for y in places if y < 0.5]) == 7  # of the first arm alone


def test_three_noise_levels_leave_no_empty_panel(history) -> None:
    more = pd.concat([history, history[history["noise"] == "none"].assign(noise="flip 0.2")])
    figure = drawn(figures.learning_curves(more))
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()] == [
        "Noise none",
        "Noise miss 0.3",
        "Noise flip 0.2",
    ]


def test_an_au_outside_the_mean_is_grey_with_its_counts(per_au) -> None:
    figure = drawn(figures.forest(per_au))
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["AU1", "AU2\n31 frames,\n2 subjects", "AU4"]
    assert labels[1].get_color() == style.GREY
    assert "#B5B5B5" in colours(figure)[0]


def test_arms_differ_in_marker_as_well_as_in_colour() -> None:
    assert len(set(style.COLOURS)) == len(set(style.MARKERS)) == 8


def test_cooccurrence_counts_known_frames_only(frames) -> None:
    figure = drawn(figures.cooccurrence(frames, (1, 2, 4)))
    shown = [text.get_text() for text in figure.axes[0].texts]
    # where AU1 is present AU2 is known twice and present once; where AU2 is present AU1 is known once; AU4 never is
    assert shown == ["100", "50", "0", "100", "100", "0"]


def test_rates_are_in_percent_of_frames(card) -> None:
    figure = drawn(figures.rates(card))
    heights = {float(y) for line in figure.axes[0].lines for y in line.get_ydata()}
    assert heights == {5.0, 10.0, 20.0}


def test_faces_are_placed_by_row_and_column() -> None:
    images = np.zeros((2, 3, 8, 8, 3), dtype=np.uint8)
    images[1, 2] = 200
    figure = drawn(figures.faces_sheet(images, rows=["a", "b"], columns=["x", "y", "z"]))
    (axes,) = figure.axes
    sheet = axes.images[0].get_array()
    assert sheet[9 + 4, 18 + 4, 0] == 200
    assert sheet[4, 4, 0] == 0
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="2 x 3 faces"):
        figures.faces_sheet(images, rows=["a"], columns=["x", "y", "z"])


def test_each_face_has_its_regions_and_a_bar_for_every_au() -> None:
    faces = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    heats = np.stack([np.full((8, 8), -2.0), np.zeros((8, 8))])
    scores = pd.DataFrame({"AU01": [0.2, 0.9], "AU12": [0.7, 0.1]})
    figure = drawn(figures.faces_with_aus(faces, heats, scores, aus=["AU12", "AU01"]))
    assert [[bar.get_width() for bar in axes.patches] for axes in figure.axes[2::3]] == [[0.2, 0.7], [0.9, 0.1]]
    heat = figure.axes[1].images[1]
    assert heat.get_clim() == (-2, 2)  # white is no effect
    assert [axes.get_title(loc="left") for axes in figure.axes[1::3]] == ["AU12", "AU01"]


@pytest.fixture
def intervals() -> pd.DataFrame:
    rows = [
        {"interval": name, "ours": name == "paired t: 5", "world": world, "coverage": cover, "false_claims": claims}
        for name, cover, claims in (("paired t: 5", 0.95, 0.02), ("t over seeds: 9", 0.6, 0.2))
        for world in ("none", "0.1 logits")
    ]
    return pd.DataFrame(rows)


def test_coverage_is_in_percent_with_the_target_shaded_and_other_intervals_grey(intervals) -> None:
    figure = drawn(figures.coverage(intervals, band=(0.93, 0.97), limit=0.025))
    left, right = figure.axes
    for axes, values, target in ((left, {95.0, 60.0}, (93, 97)), (right, {2.0, 20.0}, (0, 2.5))):
        assert {round(float(x), 6) for line in axes.lines for x in line.get_xdata()} == values
        (band,) = axes.patches
        assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx(target)
    ours, other = left.get_yticklabels()
    assert (ours.get_text(), other.get_text()) == ("paired t: 5", "t over seeds: 9")
    assert other.get_color() == style.GREY != ours.get_color()
    assert figures.to_svg(figure) == figures.to_svg(figures.coverage(intervals, band=(0.93, 0.97), limit=0.025))


def test_growth_has_a_column_per_axis_a_row_per_measure_and_the_floor_where_there_is_one() -> None:
    rows = [
        {"axis": axis, "series": "ours", "size": size, "seconds": size / 1e3, "floor": size / 1e4, "bytes": 1e6 * size}
        for axis in ("Images", "AUs")
        for size in (1, 2, 4)
    ]
    table = pd.DataFrame(rows)
    figure = figures.growth(table)
    assert len(figure.axes) == 4
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 1, 1]
    assert figure.axes[2].lines[0].get_ydata().tolist() == [1, 2, 4]  # MB
    alone = figures.growth(table.assign(bytes=float("nan"), floor=float("nan")))
    assert len(alone.axes) == 2
    assert "floor" not in [text.get_text() for text in alone.legends[0].get_texts()]


def test_a_gain_a_share_and_a_flip_are_drawn_where_the_table_says() -> None:
    points = pd.DataFrame({"contrast": ["a", "a", "b"], "prevalence": [0.02, 0.5, 0.1], "gain": [0.1, -0.1, 0.0]})
    points["enters"] = [True, False, True]
    (axes,) = figures.gains(points, points).axes
    assert axes.get_xscale() == "log"
    assert [line.get_xdata().tolist() for line in axes.lines[:3]] == [[2], [50], [2, 50]], "and the line through both"
    assert axes.lines[1].get_alpha() < axes.lines[0].get_alpha(), "what does not enter the means is pale"
    shares = pd.DataFrame({"arm": ["one", "one"], "epoch": [2, 1], "value": [0.9, 0.5]})
    (axes,) = figures.shares(shares, label="share").axes
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.9]
    row = {"noise": "none", "measure": "one", "estimate": 0.7, "low": 0.6, "high": 0.8}
    gain = {"noise": "miss", "measure": "gain", "estimate": 0.1, "low": 0.05, "high": 0.15}
    table = pd.DataFrame([row, row | {"noise": "miss"}, gain])
    left, right = figures.against_kappa(table, gain="one minus other", delta=0.005).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["none", "miss"]
    points = [line.get_ydata() for line in right.lines if line.get_marker() == "o"]
    assert points == [[1]], "beside the row of its noise"
    flips = pd.DataFrame({"group": ["x", "y", "x"], "change": ["1", "2", "3"], "estimate": [0.1, 0.2, 0.3]})
    (axes,) = figures.flips(flips.assign(low=0.0, high=1.0)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "3", "2"], "groups stay together"
    assert max(max(line.get_xdata()) for line in axes.lines) <= 102, "no share above all"


def test_what_decides_a_claim_is_drawn_with_its_interval() -> None:
    row = {"claim": "C1", "study": "main", "contrast": "a minus b", "group": "reversed"}
    row |= {"estimate": -0.05, "low": -0.09, "high": -0.01}
    (axes,) = figures.verdicts(pd.DataFrame([row]), delta=0.005).axes
    assert any(
        line.get_xdata().tolist() == pytest.approx([-0.09, -0.01])
        for line in axes.lines[:1]
        if len(line.get_xdata()) == 2
    )
    assert axes.get_yticklabels()[0].get_text() == "C1, main: a\nminus b"
