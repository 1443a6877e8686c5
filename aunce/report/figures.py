"""The figures of the study: one function per figure, from a tidy table to a matplotlib Figure.

Each is as wide as a phone shows it legibly (5.4 inches), uses colours that colour-blind readers tell apart together
with marker shapes, and goes to SVG without a date: the same table gives the same bytes. pyplot's global state is
never used.
"""

import io
import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import figure as mpl_figure
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from aunce.data.noise import is_noise

WIDTH = 5.4
GREY = "#767676"
# The order puts the most different ones first; yellow is left out, it is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7A5195")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")  # from the ninth series on they are hollow, see `_fill`
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.edgecolor": "#9A9A9A",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": "#444444",
    "ytick.color": "#222222",
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "aunce",
    "svg.fonttype": "path",  # the reader's machine may lack the font, and an image cannot fetch one
}
styled = mpl.rc_context(STYLE)


class Figure(mpl_figure.Figure):
    """A matplotlib Figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        return buffer.getvalue()


@styled
def headline(table: pd.DataFrame) -> Figure:
    """Arms, floors and ceiling by noise level, one panel per score: replicates as small dots, means with intervals.

    Args:
        table: one row per replicate: arm, kind ("arm", "floor" or "ceiling"), noise, score, value, and estimate, low,
            high (infinite where not defined), repeated over the replicates of one arm and noise level. Order of rows =
            order in the figure. Noise "any" is drawn in grey.
    """
    arms, noises, scores = (list(pd.unique(table[name])) for name in ("arm", "noise", "score"))
    kinds = table.drop_duplicates("arm").set_index("arm")["kind"]
    levels = [noise for noise in noises if noise != "any"]
    # a gap between the arms that compete and the rows they are measured against
    place = {arm: index + 0.5 * (kinds[arm] != "arm") for index, arm in enumerate(arms)}
    of_level = 0.11 if len(levels) <= 3 else 0.17  # inches: more levels share the height of an arm
    figure = Figure(figsize=(WIDTH, 1.15 + len(arms) * (0.16 + of_level * len(levels))), layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        part = table[table["score"] == score]
        limits = _limits(part["value"], part["estimate"])
        for (arm, noise), rows in part.groupby(["arm", "noise"], sort=False):
            own = [level for level in noises if ((part["arm"] == arm) & (part["noise"] == level)).any()]
            apart = min(0.28, 0.84 / len(own))  # rows of one arm; those of the next are a unit below
            y = place[arm] + _dodge(own.index(noise), len(own), apart * len(own))
            colour, marker = GREY, "|"
            if noise in levels:
                slot = levels.index(noise)
                colour, marker = COLOURS[slot % len(COLOURS)], MARKERS[slot % len(MARKERS)]
            axes.plot(
                rows["value"],
                [y - min(0.15, 0.54 * apart)] * len(rows),
                ".",
                color=colour,
                alpha=0.6,
                markersize=4,
                zorder=2,
            )
            _estimate(axes, rows.iloc[0], y, colour, marker, limits)
        axes.set(title=score, xlim=limits, ylim=(max(place.values()) + 0.6, -0.6))
        axes.set_yticks(list(place.values()), list(place))
        axes.grid(axis="x", visible=True)
        if "AUC" in score and limits[0] < 0.5:
            axes.axvline(0.5, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    for label in panels[0].get_yticklabels():
        label.set_color("#222222" if kinds[label.get_text()] == "arm" else GREY)
    _legend(figure, levels, title="Label noise in training" if all(map(is_noise, levels)) else None)
    return figure


@styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Inner-validation AUC against epoch, one panel per noise level: one thin line per run, the mean of an arm in bold.

    Args:
        history: one row per check: key, arm, noise, epoch, val_auc, flat (bool: the curve of this run has flattened).
            Curves that have not are dashed.
    """
    arms, noises = (list(pd.unique(history[name])) for name in ("arm", "noise"))
    columns = min(2, len(noises))
    rows = -(-len(noises) // columns)
    legend_rows = -(-(len(arms) + 1) // 3)
    figure = Figure(figsize=(WIDTH, 2.3 * rows + 0.3 + 0.19 * legend_rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, noise in zip(panels, noises, strict=False):
        for index, arm in enumerate(arms):
            part = history[(history["arm"] == arm) & (history["noise"] == noise)]
            colour = COLOURS[index % len(COLOURS)]
            for _, run in part.groupby("key", sort=False):
                dash = "-" if run["flat"].all() else (0, (3, 2))
                axes.plot(run["epoch"], run["val_auc"], color=colour, linewidth=0.8, alpha=0.55, linestyle=dash)
            mean = part.groupby("epoch")["val_auc"].mean()
            look: dict[str, Any] = {"marker": MARKERS[index % len(MARKERS)], "markerfacecolor": _fill(index)}
            axes.plot(mean.index, mean, color=colour, linewidth=1.8, markersize=4, **look)
        axes.set_title(_titled(noise))
        axes.grid(visible=True)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[len(noises) :]:
        axes.set_visible(False)
    for axes in panels[max(len(noises) - columns, 0) : len(noises)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("Epoch")
    figure.supylabel("Inner-validation AUC\n(noisy labels)", fontsize=9)  # one line is longer than a row of panels
    thin = Line2D([], [], color=GREY, linewidth=0.9, linestyle=(0, (3, 2)), label="run that has not flattened")
    _legend(figure, arms, extra=[thin], columns=3)
    return figure


@styled
def forest(table: pd.DataFrame) -> Figure:
    """AUC per AU with interval, one panel per noise level; AUs outside the mean are grey, with their counts.

    Args:
        table: one row per AU, arm and noise level: au, arm, noise, value, low, high, enters (bool), positives (frames)
            and subjects (with enough positive frames).
    """
    aus, arms, noises = (list(pd.unique(table[name])) for name in ("au", "arm", "noise"))
    facts = table.drop_duplicates("au").set_index("au")
    height = 0.9 + 0.2 * -(-len(arms) // 3) + len(aus) * (0.12 + 0.09 * len(arms))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = figure.subplots(1, len(noises), sharey=True, squeeze=False)[0]
    limits = _limits(table["value"])
    for axes, noise in zip(panels, noises, strict=True):
        for position in range(0, len(aus), 2):
            axes.axhspan(position - 0.5, position + 0.5, color="#F5F5F5", linewidth=0, zorder=0)
        for index, arm in enumerate(arms):
            part = table[(table["arm"] == arm) & (table["noise"] == noise)]
            for _, row in part.iterrows():
                y = aus.index(row["au"]) + _dodge(index, len(arms), 0.7)
                colour = COLOURS[index % len(COLOURS)] if row["enters"] else "#B5B5B5"
                row = row.rename({"value": "estimate"})
                marker = MARKERS[index % len(MARKERS)]
                _estimate(axes, row, y, colour, marker, limits, size=4, hollow=index >= len(COLOURS))
        axes.set(title=_titled(noise), xlabel="AUC on clean labels", xlim=limits, ylim=(len(aus) - 0.5, -0.5))
        axes.axvline(0.5, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
        axes.grid(axis="x", visible=True)
    counts = [f"\n{facts.loc[au, 'positives']} frames,\n{facts.loc[au, 'subjects']} subjects" for au in aus]
    names = [f"AU{au}" + ("" if facts.loc[au, "enters"] else count) for au, count in zip(aus, counts, strict=True)]
    panels[0].set_yticks(range(len(aus)), names)
    for label, au in zip(panels[0].get_yticklabels(), aus, strict=True):
        label.set_color("#222222" if facts.loc[au, "enters"] else GREY)
    _legend(figure, arms, columns=3)
    return figure


@styled
def conditions(table: pd.DataFrame, *, delta: float) -> Figure:
    """Differences of two arms by condition, one panel per contrast, with 0 and the band of what counts as nothing.

    Args:
        table: one row per contrast and level of a condition: contrast, condition, level, estimate, low, high.
        delta: differences from -delta to delta count as nothing; in the unit of the table.
    """
    contrasts = list(pd.unique(table["contrast"]))
    levels = list(dict.fromkeys(zip(table["condition"], table["level"], strict=True)))
    columns = min(3, len(contrasts))
    rows = -(-len(contrasts) // columns)
    sides = [contrast.replace(" minus ", "\nminus ", 1).splitlines() for contrast in contrasts]
    titles = ["\n".join(textwrap.fill(side, 78 // columns) for side in both) for both in sides]
    of_titles = 0.36 + 0.12 * max(title.count("\n") + 1 for title in titles)  # inches
    figure = Figure(figsize=(WIDTH, rows * (of_titles + 0.17 * len(levels)) + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    ends = table[["estimate", "low", "high"]].to_numpy(dtype=np.float64)
    widest = float(np.abs(ends[np.isfinite(ends)]).max(initial=0.01))
    limits = (-1.1 * widest, 1.1 * widest)
    # The usual ticks of three panels run into each other: one round number on each side, the largest within the limits.
    round_ones = [first / 10**place for place in range(5) for first in (5, 2, 1)]
    tick = next((one for one in round_ones if one < widest), widest)
    for axes, contrast, title in zip(panels, contrasts, titles, strict=False):
        part = table[table["contrast"] == contrast]
        for _, row in part.iterrows():
            y = levels.index((row["condition"], row["level"]))
            colour = "#222222" if row["condition"] == "all" else COLOURS[0]
            _estimate(axes, row, y, colour, MARKERS[0], limits, size=4)
        axes.axvspan(-delta, delta, color="#E5E5E5", linewidth=0, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.9, zorder=1)
        axes.set(xlim=limits, ylim=(len(levels) - 0.5, -0.5))
        axes.set_xticks([-tick, 0, tick], [f"−{tick:g}", "0", f"{tick:g}"])
        axes.set_title(title, fontsize=7)
        axes.grid(axis="x", visible=True)
    for axes in panels[len(contrasts) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(levels)), [level for _, level in levels])
    figure.supxlabel("Difference in macro-AUC", fontsize=9)
    return figure


@styled
def verdicts(table: pd.DataFrame, *, delta: float) -> Figure:
    """What decides each claim: a difference with its interval, coloured by what it comes to, with 0 and delta.

    Args:
        table: one row per claim: claim, study, contrast, group, estimate, low and high, in the unit of delta.
        delta: differences from -delta to delta count as nothing.
    """
    groups = list(pd.unique(table["group"]))
    figure = Figure(figsize=(WIDTH, 1.0 + 0.42 * len(table)), layout="constrained")
    axes = figure.subplots()
    ends = table[["estimate", "low", "high"]].to_numpy(dtype=np.float64)
    widest = 1.1 * float(np.abs(ends[np.isfinite(ends)]).max(initial=0.01))
    for y, (_, row) in enumerate(table.iterrows()):
        look = groups.index(row["group"]) % len(COLOURS)
        _estimate(axes, row, y, COLOURS[look], MARKERS[look], (-widest, widest))
    axes.axvspan(-delta, delta, color="#E5E5E5", linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    named = [
        f"{row.claim}, {row.study}: {row.contrast.replace(' minus ', chr(10) + 'minus ', 1)}"
        for row in table.itertuples()
    ]
    axes.set_yticks(range(len(table)), named)
    axes.set(xlim=(-widest, widest), ylim=(len(table) - 0.5, -0.5), xlabel="Difference in macro-AUC")
    axes.grid(axis="x", visible=True)
    _legend(figure, groups, columns=3)
    return figure


@styled
def gains(points: pd.DataFrame, lines: pd.DataFrame) -> Figure:
    """Gain of one arm over another against prevalence: one dot per AU and replicate, one line per contrast.

    Args:
        points: contrast, prevalence (0 to 1), gain (AUC), and enters, whether the AU enters the means: pale if not.
        lines: contrast, prevalence and gain, drawn in their order.
    """
    contrasts = list(pd.unique(points["contrast"]))
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    for index, contrast in enumerate(contrasts):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        own = points[points["contrast"] == contrast]
        for enters, alpha in ((True, 0.6), (False, 0.2)):
            some = own[own["enters"] == enters]
            axes.plot(100 * some["prevalence"], some["gain"], marker, color=colour, markersize=3, alpha=alpha, zorder=2)
        line = lines[lines["contrast"] == contrast]
        axes.plot(100 * line["prevalence"], line["gain"], color=colour, linewidth=2, zorder=3)
    axes.axhline(0, color=GREY, linewidth=0.9, zorder=1)
    axes.set_xscale("log")
    ticks = [1, 2, 5, 10, 20, 50]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="Test frames with the AU (%)", ylabel="Gain in AUC")
    axes.grid(visible=True)
    _legend(figure, contrasts, columns=1)
    return figure


@styled
def shares(table: pd.DataFrame, *, label: str) -> Figure:
    """A share against epoch, one line per arm.

    Args:
        table: arm, epoch and value (0 to 1).
        label: of the share.
    """
    arms = list(pd.unique(table["arm"]))
    figure = Figure(figsize=(WIDTH, 2.4 + 0.16 * len(arms)), layout="constrained")
    axes = figure.subplots()
    for index, arm in enumerate(arms):
        own = table[table["arm"] == arm].sort_values("epoch")
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        look: dict[str, Any] = {"marker": marker, "markersize": 4, "markerfacecolor": _fill(index)}
        axes.plot(own["epoch"], own["value"], color=colour, **look)
    axes.set(ylim=(0, 1.03), xlabel="Epoch", ylabel=label)
    axes.grid(visible=True)
    _legend(figure, arms, columns=2)
    return figure


@styled
def flips(table: pd.DataFrame) -> Figure:
    """How often pairs of arms change places, one row per change, grouped, on one scale.

    Args:
        table: group, change, estimate, low and high (0 to 1).
    """
    groups = list(pd.unique(table["group"]))
    table = table.assign(order=table["group"].map(groups.index)).sort_values("order", kind="stable")
    places = [index + 0.6 * group for index, group in enumerate(table["order"])]  # a gap between groups
    figure = Figure(figsize=(WIDTH, 0.9 + 0.24 * places[-1]), layout="constrained")
    axes = figure.subplots()
    for y, (_, row) in zip(places, table.iterrows(), strict=True):
        look = int(row["order"]) % len(COLOURS)
        share = 100 * row[["estimate", "low", "high"]].astype(float)
        _estimate(axes, share, y, COLOURS[look], MARKERS[look], (-2, 102))
    axes.set_yticks(places, table["change"].tolist())
    axes.set(xlim=(-2, 102), ylim=(places[-1] + 0.6, -0.6), xlabel="Pairs of arms that change places (%)")
    axes.grid(axis="x", visible=True)
    _legend(figure, groups, columns=3)
    return figure


@styled
def against_kappa(table: pd.DataFrame, *, gain: str, delta: float) -> Figure:
    """Arms by label noise, and beside them what one gains on another beyond what it gains without noise.

    Args:
        table: one row per noise and measure (the name of an arm, or "gain"): noise, measure, estimate, low, high. Order
            of noises = order in the figure.
        gain: what the gain is of, in words.
        delta: gains from -delta to delta count as nothing.
    """
    noises, arms = (list(pd.unique(table[name])) for name in ("noise", "measure"))
    arms.remove("gain")
    figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * len(noises)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    scores, gains = table[table["measure"] != "gain"], table[table["measure"] == "gain"]
    ends = gains[["estimate", "low", "high"]].to_numpy(dtype=np.float64)
    widest = 1.1 * float(np.abs(ends[np.isfinite(ends)]).max(initial=0.01))
    limits = _limits(scores["estimate"])
    for _, row in scores.iterrows():
        slot = arms.index(row["measure"])
        y = noises.index(row["noise"]) + _dodge(slot, len(arms), 0.6)
        _estimate(left, row, y, COLOURS[slot % len(COLOURS)], MARKERS[slot % len(MARKERS)], limits, size=4)
    for _, row in gains.iterrows():
        _estimate(right, row, noises.index(row["noise"]), "#222222", MARKERS[0], (-widest, widest), size=4)
    right.axvspan(-delta, delta, color="#E5E5E5", linewidth=0, zorder=0)
    right.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    left.set(title="Macro-AUC", xlim=limits, ylim=(len(noises) - 0.5, -0.5))
    left.set_yticks(range(len(noises)), noises)
    right.set_xlim(-widest, widest)
    right.set_title(textwrap.fill(f"{gain}, more than without noise", 26), fontsize=7)
    for axes in (left, right):
        axes.grid(axis="x", visible=True)
    _legend(figure, arms, columns=3)
    return figure


@styled
def rates(card: pd.DataFrame) -> Figure:
    """Share of known frames that carry each AU, one marker per part.

    Args:
        card: one row per part and AU: part, au, rate (0 to 1).
    """
    parts, aus = (list(pd.unique(card[name])) for name in ("part", "au"))
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
    for index, part in enumerate(parts):
        rows = card[card["part"] == part]
        x = np.array([aus.index(au) for au in rows["au"]]) + _dodge(index, len(parts), 0.5)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        axes.vlines(x, 0, 100 * rows["rate"], color=colour, linewidth=1, alpha=0.4)
        axes.plot(x, 100 * rows["rate"], marker, color=colour, markersize=4.5)
    axes.set_xticks(range(len(aus)), [str(au) for au in aus])
    axes.set(xlabel="Action unit", ylabel="Frames with the AU (%)", ylim=(0, None))
    axes.grid(axis="y", visible=True)
    _legend(figure, [f"part {part}" for part in parts], columns=4)
    return figure


@styled
def cooccurrence(frames: pd.DataFrame, aus: Sequence[int]) -> Figure:
    """How often the AU of a column is present where the AU of a row is, in percent of the frames where both are known.

    Args:
        frames: one row per frame, a column "AU<n>" in {-1 unknown, 0, 1} for each of `aus`.
        aus: AUs in the order of rows and columns.
    """
    import seaborn as sns  # takes most of a second, and a training run draws no heat map

    labels = frames[[f"AU{au}" for au in aus]].to_numpy()
    present, known = (labels == 1).astype(np.float64), (labels >= 0).astype(np.float64)
    both = present.T @ present  # (K, K)
    asked = present.T @ known  # (K, K) row AU present, column AU known
    share = 100 * np.divide(both, asked, out=np.full_like(both, np.nan), where=asked > 0)
    names = [str(au) for au in aus]
    figure = Figure(figsize=(WIDTH, WIDTH * 0.92), layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        pd.DataFrame(share, index=names, columns=names),
        ax=axes,
        vmin=0,
        vmax=100,
        cmap="Blues",
        square=True,
        annot=len(aus) <= 18,
        fmt=".0f",
        annot_kws={"fontsize": 6.5},
        linewidths=0.5,
        linecolor="white",
        cbar_kws={"label": "Present (%)", "shrink": 0.75},
    )
    axes.set(xlabel="... is this AU present", ylabel="Where this AU is present ...")
    axes.tick_params(axis="y", rotation=0)
    return figure


@styled
def faces_sheet(images: npt.NDArray[np.uint8], *, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Faces in a grid with a name for each row and column.

    Args:
        images: uint8 (rows, columns, H, W, 3), RGB.
        rows: one name per row.
        columns: one name per column.

    Raises:
        ValueError: the names do not fit the grid.
    """
    if images.shape[:2] != (len(rows), len(columns)):
        given = f"{len(rows)} row and {len(columns)} column names"
        raise ValueError(f"images has {images.shape[0]} x {images.shape[1]} faces, but there are {given}")
    height, width = images.shape[2:4]
    gap = max(1, height // 24)
    cells = np.pad(images, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=255)
    sheet = cells.swapaxes(1, 2).reshape(len(rows) * (height + gap), len(columns) * (width + gap), 3)
    figure = Figure(figsize=(WIDTH, 0.5 + (WIDTH - 0.7) * sheet.shape[0] / sheet.shape[1]), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="antialiased")
    axes.set_yticks((np.arange(len(rows)) + 0.5) * (height + gap) - 0.5, list(rows))
    axes.set_xticks((np.arange(len(columns)) + 0.5) * (width + gap) - 0.5, list(columns))
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


@styled
def faces_with_aus(
    faces: npt.NDArray[np.uint8], heats: npt.NDArray[np.floating], scores: pd.DataFrame, *, aus: Sequence[str]
) -> Figure:
    """One row per face: the face, the regions that moved one decision, and a bar for each AU.

    Args:
        faces: (n, H, W, 3) uint8 RGB.
        heats: (n, h, w), positive (red) where the region spoke for the AU, negative (blue) where against it.
        scores: (n, K), probabilities; the names of the columns stand at the bars.
        aus: n of these names, one for each heat.
    """
    count, side = len(faces), WIDTH / 4
    figure = Figure(figsize=(WIDTH, count * side + 0.6), layout="constrained")
    grid = figure.subplots(count, 3, squeeze=False, width_ratios=(1, 1, 1.6))
    for row, face, heat, au, (_, values) in zip(grid, faces, heats, aus, scores.iterrows(), strict=True):
        limit = float(np.abs(heat).max()) or 1.0
        for axes in row[:2]:
            axes.set_axis_off()
        row[0].imshow(face)
        row[1].imshow(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cmap="gray", extent=(0, 1, 0, 1))
        row[1].imshow(heat, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.55, extent=(0, 1, 0, 1))
        row[1].set_title(au, fontsize=8.5)
        colours = [COLOURS[1] if name == au else COLOURS[0] for name in values.index]
        row[2].barh(range(len(values)), values.to_numpy(dtype=float), color=colours)
        row[2].set(xlim=(0, 1), ylim=(len(values) - 0.5, -0.5))
        row[2].set_yticks(range(len(values)), list(values.index), fontsize=6)
        row[2].tick_params(axis="x", labelbottom=row[2] is grid[-1][2])
    grid[-1][2].set_xlabel("Probability")
    return figure


@styled
def coverage(table: pd.DataFrame, *, band: tuple[float, float], limit: float) -> Figure:
    """Coverage of intervals and how often they support what is not there, one row per interval, one marker per world.

    Args:
        table: one row per interval and world: interval (the label of its row), ours (bool: the label is black, else
            grey), world, coverage and false_claims (0 to 1).
        band: coverage between these is on target, shaded.
        limit: false claims up to here are on target, shaded.
    """
    intervals, worlds = (list(pd.unique(table[name])) for name in ("interval", "world"))
    ours = table.drop_duplicates("interval").set_index("interval")["ours"]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.21 * len(intervals)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    shown = (("coverage", "Coverage (%)", band), ("false_claims", "False claims (%)", (0.0, limit)))
    for axes, (name, title, target) in zip(panels, shown, strict=True):
        axes.axvspan(100 * target[0], 100 * target[1], color="#DDEBDD", linewidth=0, zorder=0)
        for index, world in enumerate(worlds):
            rows = table[table["world"] == world]
            y = np.array([intervals.index(interval) for interval in rows["interval"]])
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            axes.plot(100 * rows[name], y + _dodge(index, len(worlds), 0.45), marker, color=colour, markersize=4)
        axes.set(title=title, ylim=(len(intervals) - 0.5, -0.5))
        axes.grid(visible=True)
    panels[0].set_xlim(None, 101)
    panels[1].set_xlim(0, None)
    panels[0].set_yticks(range(len(intervals)), intervals)
    for label in panels[0].get_yticklabels():
        label.set_color("#222222" if ours[label.get_text()] else GREY)
    _legend(figure, worlds, title="Effect of the training set", columns=3)
    return figure


@styled
def averaging(table: pd.DataFrame) -> Figure:
    """One number for the same predictions by several ways of averaging, one panel per data set.

    Args:
        table: one row per data set and way: dataset, way, aunce (percent), and other and printed (percent), name and
            number of a method to compare with, the same in all rows of a data set. Order of rows = order in the figure.
    """
    datasets, ways = (list(pd.unique(table[name])) for name in ("dataset", "way"))
    figure = Figure(figsize=(WIDTH, 0.95 + 0.25 * len(ways)), layout="constrained")
    panels = figure.subplots(1, len(datasets), sharex=True, sharey=True, squeeze=False)[0]
    for axes, dataset in zip(panels, datasets, strict=True):
        rows = table[table["dataset"] == dataset]
        y = [ways.index(way) for way in rows["way"]]
        first = rows.iloc[0]
        axes.axvline(first["printed"], color=COLOURS[1], linewidth=1, linestyle=(0, (3, 2)), zorder=1)
        axes.plot(rows["aunce"], y, MARKERS[0], color=COLOURS[0], markersize=5, zorder=3)
        for value, place in zip(rows["aunce"], y, strict=True):
            # to the right of the point, or to the left where the panel ends
            right = value < table["aunce"].max() - 2
            offset, side = (5, "left") if right else (-5, "right")
            axes.annotate(
                f"{value:.1f}",
                (value, place),
                (offset, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=7.5,
            )
        axes.set(title=dataset, xlabel=f"F1 (%)\ndashed: {first['other']}, {first['printed']:.1f}")
        axes.set_ylim(len(ways) - 0.5, -0.5)
        axes.set_yticks(range(len(ways)), ways)
        axes.margins(x=0.1)
        axes.grid(axis="x", visible=True)
    return figure


@styled
def against_prevalence(table: pd.DataFrame) -> Figure:
    """Scores against the positive rate, one panel per score and data set, one marker per part and AU.

    Args:
        table: one row per data set, part, AU and score: dataset, part, au, prevalence (0 to 1), score (its name), value
            and floor, the value of a constant answer there, drawn as a line (both 0 to 1).
    """
    datasets, names, parts = (list(pd.unique(table[name])) for name in ("dataset", "score", "part"))
    figure = Figure(figsize=(WIDTH, 0.6 + 2.0 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(datasets), sharex="col", sharey=True, squeeze=False)
    for (row, name), (column, dataset) in itertools.product(enumerate(names), enumerate(datasets)):
        axes = panels[row, column]
        points = table[(table["score"] == name) & (table["dataset"] == dataset)].sort_values("prevalence")
        axes.plot(100 * points["prevalence"], 100 * points["floor"], color=GREY, linewidth=1.2, zorder=1)
        for index, part in enumerate(parts):
            own = points[points["part"] == part]
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            axes.plot(100 * own["prevalence"], 100 * own["value"], marker, color=colour, markersize=4, zorder=3)
        axes.grid(visible=True)
        axes.set(ylim=(min(-4, 100 * table["value"].min() - 4), 100), xlim=(0, None))
        if row == 0:
            axes.set_title(dataset)
        if row == len(names) - 1:
            axes.set_xlabel("Frames with the AU (%)")
        if column == 0:
            axes.set_ylabel(f"{name} (%)")
    line = Line2D([], [], color=GREY, linewidth=1.2, label="always positive")
    _legend(figure, [f"part {part}" for part in parts], extra=[line], columns=4)
    return figure


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _dodge(index: int, count: int, spread: float) -> float:
    """Offset of series `index` of `count` that share a row of height 1 and fill `spread` of it."""
    return spread * ((index + 0.5) / count - 0.5)


@styled
def floors(table: pd.DataFrame) -> Figure:
    """The smallest loss of a present anchor and its weight there against prevalence, one panel each.

    Args:
        table: one row per images, between and prevalence (0 to 1): loss, weight.
    """
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (name, label) in zip(panels, (("loss", "smallest loss"), ("weight", "weight r there")), strict=True):
        for slot, ((between, images), rows) in enumerate(table.groupby(["between", "images"], sort=False)):
            kind = "ReLU" if between == 0 else "no ReLU"
            axes.plot(
                100 * rows["prevalence"],
                rows[name],
                color=COLOURS[slot],
                marker=MARKERS[slot],
                markersize=4,
                linewidth=1.3,
                label=f"{kind}, batch {images}",
            )
        axes.set(title=label.capitalize(), xlabel="Images with the AU (%)", ylim=(0, None))
        axes.grid(visible=True)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def forces(table: pd.DataFrame) -> Figure:
    """Forces on an anchor by loss: attraction to the left of 0, repulsion to the right, by where they come from.

    Args:
        table: one row per loss and positive: loss, positive, own view, same label, negatives.
    """
    kinds = ("own view", "same label", "negatives")
    figure = Figure(figsize=(WIDTH, 0.9 + 0.26 * len(table)), layout="constrained")
    axes = figure.subplots()
    left, right = np.zeros(len(table)), np.zeros(len(table))
    places = np.arange(len(table))
    for kind, colour in zip(kinds, COLOURS, strict=False):
        widths = table[kind].to_numpy(dtype=np.float64)
        axes.barh(places, np.minimum(widths, 0), left=left, color=colour, height=0.7)
        axes.barh(places, np.maximum(widths, 0), left=right, color=colour, height=0.7)
        left, right = left + np.minimum(widths, 0), right + np.maximum(widths, 0)
    axes.set_yticks(places, [f"{row.loss}, {row.positive}" for row in table.itertuples()])
    axes.set(
        ylim=(len(table) - 0.4, -0.6),
        xlabel="attracts  \N{LEFTWARDS ARROW}  force on an anchor  \N{RIGHTWARDS ARROW}  repels",
    )
    axes.axvline(0, color=GREY, linewidth=0.9)
    axes.grid(axis="x", visible=True)
    handles = [Patch(color=colour, label=kind) for kind, colour in zip(kinds, COLOURS, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@styled
def steps(table: pd.DataFrame) -> Figure:
    """How much longer the step of a present anchor is than that of an absent one, by exponents, one panel a prevalence.

    Args:
        table: one row per prevalence, exponents and normalised (bool): ratio.
    """
    rates, names = list(pd.unique(table["prevalence"])), list(pd.unique(table["exponents"]))
    figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(rates), sharey=True, sharex=True, squeeze=False)[0]
    for axes, rate in zip(panels, rates, strict=True):
        for slot, normalised in enumerate((False, True)):
            rows = table[(table["prevalence"] == rate) & (table["normalised"] == normalised)]
            label = "weights divided by their mean" if normalised else "weights as they are"
            axes.plot(
                rows["ratio"],
                [names.index(name) - 0.12 + 0.24 * slot for name in rows["exponents"]],
                MARKERS[slot],
                color=COLOURS[slot],
                markersize=6,
                label=label,
            )
        axes.axvline(1, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.set(
            title=f"AU in {100 * rate:.0f} % of images",
            xlabel="step of present / absent",
            ylim=(len(names) - 0.5, -0.5),
        )
        axes.grid(axis="x", visible=True)
    panels[0].set_yticks(range(len(names)), names)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def batches(table: pd.DataFrame) -> Figure:
    """Loss and gradient noise against the batch, one line per prevalence.

    Args:
        table: one row per prevalence and images: loss, spread, noise.
    """
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for slot, (rate, rows) in enumerate(table.groupby("prevalence", sort=False)):
        look: dict[str, Any] = {"color": COLOURS[slot], "marker": MARKERS[slot], "markersize": 4}
        left.errorbar(rows["images"], rows["loss"], yerr=rows["spread"], linewidth=1.3, capsize=2, **look)
        right.plot(rows["images"], rows["noise"], linewidth=1.3, label=f"AU in {100 * rate:.0f} % of images", **look)
    left.set(title="Loss", ylim=(0, None))
    right.set(title="Noise of the gradient", ylim=(0, None))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(table["images"].unique(), [str(images) for images in table["images"].unique()])
        axes.minorticks_off()
        axes.set_xlabel("Images in a batch")
        axes.grid(visible=True)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def growth(table: pd.DataFrame) -> Figure:
    """Time and memory against sizes, both axes logarithmic: one column per axis, one line per series.

    Args:
        table: one row per axis (its label), series and size: seconds; floor, the seconds that the machine's rates
            allow, and bytes, both NaN where there is none.
    """
    axes_names, series = (list(pd.unique(table[name])) for name in ("axis", "series"))
    measures = [("seconds", "Time (s)", 1.0)]
    measures += [("bytes", "Memory (MB)", 1e-6)] if table["bytes"].notna().any() else []
    figure = Figure(figsize=(WIDTH, 0.7 + 2.0 * len(measures)), layout="constrained")
    panels = figure.subplots(len(measures), len(axes_names), sharex="col", sharey="row", squeeze=False)
    for (row, (name, label, unit)), (column, axis) in itertools.product(enumerate(measures), enumerate(axes_names)):
        axes = panels[row, column]
        for slot, one in enumerate(series):
            rows = table[(table["axis"] == axis) & (table["series"] == one)].sort_values("size")
            look: dict[str, Any] = {"color": COLOURS[slot], "marker": MARKERS[slot], "markersize": 4}
            axes.plot(rows["size"], unit * rows[name], linewidth=1.3, **look)
            if name == "seconds":
                axes.plot(rows["size"], rows["floor"], color=GREY, linewidth=1, linestyle=(0, (3, 2)), zorder=1)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.minorticks_off()
        axes.grid(visible=True)
        if row == len(measures) - 1:
            axes.set_xlabel(axis)
        if column == 0:
            axes.set_ylabel(label)
    floor = [Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (3, 2)), label="floor")]
    _legend(figure, series, extra=floor if table["floor"].notna().any() else [], columns=3)
    return figure


def _limits(*columns: pd.Series) -> tuple[float, float]:
    """Limits of a score axis by what was measured: intervals from two replicates may be wider than 0 to 1."""
    values = np.concatenate([column.to_numpy(dtype=np.float64) for column in columns])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    margin = max(0.04, 0.12 * float(np.ptp(values)))
    return max(0.0, float(values.min()) - margin), min(1.01, float(values.max()) + margin)


def _fill(index: int) -> str:
    """Face colour of the markers of series `index`, by which those that share colour and shape differ."""
    return COLOURS[index] if index < len(COLOURS) else "white"


def _estimate(
    axes: Axes,
    row: pd.Series,
    y: float,
    colour: str,
    marker: str,
    limits: tuple[float, float],
    *,
    size: float = 5.5,
    hollow: bool = False,
) -> None:
    """A mean with its interval; an end outside the axis is cut there and shown as an arrow."""
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        low, high = max(row["low"], limits[0]), min(row["high"], limits[1])
        axes.plot([low, high], [y, y], color=colour, linewidth=1.3, solid_capstyle="butt", zorder=3)
        for end, cut, arrow in ((limits[0], row["low"] < limits[0], "<"), (limits[1], row["high"] > limits[1], ">")):
            if cut:
                axes.plot([end], [y], arrow, color=colour, markersize=0.8 * size, clip_on=False, zorder=3)
    if np.isfinite(row["estimate"]):
        edge, width = (colour, 1.3) if hollow or marker == "|" else ("white", 0.6)
        axes.plot(
            *([row["estimate"]], [y], marker),
            color=colour,
            markerfacecolor="white" if hollow else colour,
            markersize=size + 1,
            markeredgecolor=edge,
            markeredgewidth=width,
            clip_on=False,
            zorder=4,
        )


def _titled(condition: str) -> str:
    return f"Noise {condition}" if is_noise(condition) else condition[:1].upper() + condition[1:]


def _legend(
    figure: Figure, names: Sequence[str], *, title: str | None = None, extra: Sequence[Line2D] = (), columns: int = 2
) -> None:
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), map(_fill, range(len(names))), names, strict=False)
    handles = [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=fill, markersize=5, linewidth=1.3, label=name)
        for colour, marker, fill, name in looks
    ]
    figure.legend(
        handles=[*handles, *extra], loc="outside lower center", ncols=columns, title=title, title_fontsize=8.5
    )
