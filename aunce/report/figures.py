"""One function per figure, from a tidy table to a matplotlib Figure.

Tables of studies name a method in the column `arm`, a condition in the column `noise`, and a comparison in the column
`contrast`.
"""

import io
import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from aunce.data.noise import is_noise
from aunce.report.style import (
    COLOURS,
    DASHED,
    DOTTED,
    GREY,
    INK,
    STYLE,
    WIDTH,
    Figure,
    colour_labels,
    dodge,
    draw_chance,
    draw_estimate,
    draw_nothing,
    legend,
    legend_of,
    levels,
    limits_of,
    look,
    marks,
    styled,
    widest,
)


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


@styled
def headline(table: pd.DataFrame) -> Figure:
    """Methods, floors and ceiling by condition, one panel per score: replicates as small dots, means with intervals.

    Args:
        table: one row per replicate: arm, kind ("arm", "floor" or "ceiling"), noise, score, value, and estimate, low,
            high (infinite where not defined), repeated over the replicates of one method and condition. Order of rows =
            order in the figure. Noise "any" is drawn in grey.
    """
    methods, noises, scores = levels(table, "arm", "noise", "score")
    kinds = table.drop_duplicates("arm").set_index("arm")["kind"]
    shown = [noise for noise in noises if noise != "any"]
    # a gap between the methods that compete and the rows they are measured against
    place = {method: index + 0.5 * (kinds[method] != "arm") for index, method in enumerate(methods)}
    of_level = 0.11 if len(shown) <= 3 else 0.17  # inches: more conditions share the height of a method
    figure = Figure(1.15 + len(methods) * (0.16 + of_level * len(shown)))
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        part = table[table["score"] == score]
        limits = limits_of(part["value"], part["estimate"])
        for (method, noise), rows in part.groupby(["arm", "noise"], sort=False):
            own = [level for level in noises if ((part["arm"] == method) & (part["noise"] == level)).any()]
            apart = min(0.28, 0.84 / len(own))  # rows of one method; those of the next are a unit below
            y = place[method] + dodge(own.index(noise), len(own), apart * len(own))
            of_noise = look(shown.index(noise)) if noise in shown else {**look(0, GREY), "marker": "|"}
            dots = [y - min(0.15, 0.54 * apart)] * len(rows)
            axes.plot(rows["value"], dots, ".", color=of_noise["color"], alpha=0.6, markersize=4, zorder=2)
            draw_estimate(axes, rows.iloc[0], y, of_noise, limits)
        axes.set(title=score, xlim=limits, ylim=(max(place.values()) + 0.6, -0.6))
        axes.set_yticks(list(place.values()), list(place))
        axes.grid(axis="x", visible=True)
        if "AUC" in score and limits[0] < 0.5:
            draw_chance(axes)
    colour_labels(panels[0], [kinds[method] == "arm" for method in methods])
    legend(figure, shown, title="Label noise in training" if all(map(is_noise, shown)) else None)
    return figure


@styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Inner-validation AUC against epoch, one panel per condition: one thin line per run, the mean of a method in bold.

    Args:
        history: one row per check: key, arm, noise, epoch, val_auc, flat (bool: the curve of this run has flattened).
            Curves that have not are dashed.
    """
    methods, noises = levels(history, "arm", "noise")
    columns = min(2, len(noises))
    rows = -(-len(noises) // columns)
    legend_rows = -(-(len(methods) + 1) // 3)
    figure = Figure(2.3 * rows + 0.3 + 0.19 * legend_rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, noise in zip(panels, noises, strict=False):
        for slot, method in enumerate(methods):
            part = history[(history["arm"] == method) & (history["noise"] == noise)]
            of_method = look(slot)
            for _, run in part.groupby("key", sort=False):
                dash = "-" if run["flat"].all() else DASHED
                axes.plot(
                    run["epoch"], run["val_auc"], color=of_method["color"], linewidth=0.8, alpha=0.55, linestyle=dash
                )
            mean = part.groupby("epoch")["val_auc"].mean()
            axes.plot(mean.index, mean, linewidth=1.8, markersize=4, **of_method)
        axes.set_title(_titled(noise))
        axes.grid(visible=True)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[len(noises) :]:
        axes.set_visible(False)
    for axes in panels[max(len(noises) - columns, 0) : len(noises)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("Epoch")
    figure.supylabel("Inner-validation AUC\n(noisy labels)", fontsize=9)  # one line is longer than a row of panels
    dashed = Line2D([], [], color=GREY, linewidth=0.9, linestyle=DASHED, label="run that has not flattened")
    legend(figure, methods, extra=[dashed], columns=3)
    return figure


@styled
def forest(table: pd.DataFrame) -> Figure:
    """AUC per AU with interval, one panel per condition; AUs outside the mean are grey, with their counts.

    Args:
        table: one row per AU, method and condition: au, arm, noise, value, low, high, enters (bool), positives (frames)
            and subjects (with enough positive frames).
    """
    aus, methods, noises = levels(table, "au", "arm", "noise")
    facts = table.drop_duplicates("au").set_index("au")
    figure = Figure(0.9 + 0.2 * -(-len(methods) // 3) + len(aus) * (0.12 + 0.09 * len(methods)))
    panels = figure.subplots(1, len(noises), sharey=True, squeeze=False)[0]
    limits = limits_of(table["value"])
    for axes, noise in zip(panels, noises, strict=True):
        for position in range(0, len(aus), 2):
            axes.axhspan(position - 0.5, position + 0.5, color="#F5F5F5", linewidth=0, zorder=0)
        for slot, method in enumerate(methods):
            part = table[(table["arm"] == method) & (table["noise"] == noise)]
            for _, row in part.rename(columns={"value": "estimate"}).iterrows():
                y = aus.index(row["au"]) + dodge(slot, len(methods), 0.7)
                draw_estimate(axes, row, y, look(slot, "" if row["enters"] else "#B5B5B5"), limits, size=4)
        axes.set(title=_titled(noise), xlabel="AUC on clean labels", xlim=limits, ylim=(len(aus) - 0.5, -0.5))
        draw_chance(axes)
        axes.grid(axis="x", visible=True)
    counts = [f"\n{facts.loc[au, 'positives']} frames,\n{facts.loc[au, 'subjects']} subjects" for au in aus]
    names = [f"AU{au}" + ("" if facts.loc[au, "enters"] else count) for au, count in zip(aus, counts, strict=True)]
    panels[0].set_yticks(range(len(aus)), names)
    colour_labels(panels[0], [facts.loc[au, "enters"] for au in aus])
    legend(figure, methods, columns=3)
    return figure


@styled
def conditions(table: pd.DataFrame, *, delta: float) -> Figure:
    """Differences of two methods by condition, one panel per comparison, with 0 and the band of what counts as nothing.

    Args:
        table: one row per comparison and level of a condition: contrast, condition, level, estimate, low, high.
        delta: differences from -delta to delta count as nothing; in the unit of the table.
    """
    (comparisons,) = levels(table, "contrast")
    places = list(dict.fromkeys(zip(table["condition"], table["level"], strict=True)))
    columns = min(3, len(comparisons))
    rows = -(-len(comparisons) // columns)
    sides = [_in_two(comparison).splitlines() for comparison in comparisons]
    titles = ["\n".join(textwrap.fill(side, 78 // columns) for side in both) for both in sides]
    of_titles = 0.36 + 0.12 * max(title.count("\n") + 1 for title in titles)  # inches
    figure = Figure(rows * (of_titles + 0.17 * len(places)) + 0.3)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    end = widest(table)
    limits = (-1.1 * end, 1.1 * end)
    # The usual ticks of three panels run into each other: one round number on each side, the largest within the limits.
    round_ones = [first / 10**place for place in range(5) for first in (5, 2, 1)]
    tick = next((one for one in round_ones if one < end), end)
    for axes, comparison, title in zip(panels, comparisons, titles, strict=False):
        for _, row in table[table["contrast"] == comparison].iterrows():
            y = places.index((row["condition"], row["level"]))
            draw_estimate(axes, row, y, look(0, INK if row["condition"] == "all" else ""), limits, size=4)
        draw_nothing(axes, delta)
        axes.set(xlim=limits, ylim=(len(places) - 0.5, -0.5))
        axes.set_xticks([-tick, 0, tick], [f"−{tick:g}", "0", f"{tick:g}"])
        axes.set_title(title, fontsize=7)
        axes.grid(axis="x", visible=True)
    for axes in panels[len(comparisons) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(places)), [level for _, level in places])
    figure.supxlabel("Difference in macro-AUC", fontsize=9)
    return figure


@styled
def verdicts(table: pd.DataFrame, *, delta: float) -> Figure:
    """What decides each claim: a difference with its interval, coloured by what it comes to, with 0 and delta.

    Args:
        table: one row per claim: claim, study, contrast, group, estimate, low and high, in the unit of delta.
        delta: differences from -delta to delta count as nothing.
    """
    (groups,) = levels(table, "group")
    figure = Figure(1.0 + 0.42 * len(table))
    axes = figure.subplots()
    end = 1.1 * widest(table)
    for y, (_, row) in enumerate(table.iterrows()):
        draw_estimate(axes, row, y, look(groups.index(row["group"])), (-end, end))
    draw_nothing(axes, delta)
    named = [f"{row.claim}, {row.study}: {_in_two(row.contrast)}" for row in table.itertuples()]
    axes.set_yticks(range(len(table)), named)
    axes.set(xlim=(-end, end), ylim=(len(table) - 0.5, -0.5), xlabel="Difference in macro-AUC")
    axes.grid(axis="x", visible=True)
    legend(figure, groups, columns=3)
    return figure


@styled
def gains(points: pd.DataFrame, lines: pd.DataFrame) -> Figure:
    """Gain of one method over another against prevalence: one dot per AU and replicate, one line per comparison.

    Args:
        points: contrast, prevalence (0 to 1), gain (AUC), and enters, whether the AU enters the means: pale if not.
        lines: contrast, prevalence and gain, drawn in their order.
    """
    (comparisons,) = levels(points, "contrast")
    figure = Figure(3.2)
    axes = figure.subplots()
    for slot, comparison in enumerate(comparisons):
        own = points[points["contrast"] == comparison]
        for enters, alpha in ((True, 0.6), (False, 0.2)):
            some = own[own["enters"] == enters]
            axes.plot(100 * some["prevalence"], some["gain"], markersize=3, alpha=alpha, zorder=2, **marks(slot))
        line = lines[lines["contrast"] == comparison]
        axes.plot(100 * line["prevalence"], line["gain"], color=look(slot)["color"], linewidth=2, zorder=3)
    axes.axhline(0, color=GREY, linewidth=0.9, zorder=1)
    axes.set_xscale("log")
    ticks = [1, 2, 5, 10, 20, 50]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="Test frames with the AU (%)", ylabel="Gain in AUC")
    axes.grid(visible=True)
    legend(figure, comparisons, columns=1)
    return figure


@styled
def shares(table: pd.DataFrame, *, label: str) -> Figure:
    """A share against epoch, one line per method.

    Args:
        table: arm, epoch and value (0 to 1).
        label: of the share.
    """
    (methods,) = levels(table, "arm")
    figure = Figure(2.4 + 0.16 * len(methods))
    axes = figure.subplots()
    for slot, method in enumerate(methods):
        own = table[table["arm"] == method].sort_values("epoch")
        axes.plot(own["epoch"], own["value"], markersize=4, **look(slot))
    axes.set(ylim=(0, 1.03), xlabel="Epoch", ylabel=label)
    axes.grid(visible=True)
    legend(figure, methods, columns=2)
    return figure


@styled
def flips(table: pd.DataFrame) -> Figure:
    """How often pairs of methods change places, one row per change, grouped, on one scale.

    Args:
        table: group, change, estimate, low and high (0 to 1).
    """
    (groups,) = levels(table, "group")
    table = table.assign(order=table["group"].map(groups.index)).sort_values("order", kind="stable")
    places = [index + 0.6 * group for index, group in enumerate(table["order"])]  # a gap between groups
    figure = Figure(0.9 + 0.24 * places[-1])
    axes = figure.subplots()
    for y, (_, row) in zip(places, table.iterrows(), strict=True):
        share = 100 * row[["estimate", "low", "high"]].astype(float)
        draw_estimate(axes, share, y, look(int(row["order"])), (-2, 102))
    axes.set_yticks(places, table["change"].tolist())
    axes.set(xlim=(-2, 102), ylim=(places[-1] + 0.6, -0.6), xlabel="Pairs of arms that change places (%)")
    axes.grid(axis="x", visible=True)
    legend(figure, groups, columns=3)
    return figure


@styled
def against_kappa(table: pd.DataFrame, *, gain: str, delta: float) -> Figure:
    """Methods by label noise, and beside them what one gains on another beyond what it gains without noise.

    Args:
        table: one row per noise and measure (the name of a method, or "gain"): noise, measure, estimate, low, high.
            Order of noises = order in the figure.
        gain: what the gain is of, in words.
        delta: gains from -delta to delta count as nothing.
    """
    noises, methods = levels(table, "noise", "measure")
    methods.remove("gain")
    figure = Figure(1.1 + 0.3 * len(noises))
    left, right = figure.subplots(1, 2, sharey=True)
    scores, gains = table[table["measure"] != "gain"], table[table["measure"] == "gain"]
    end = 1.1 * widest(gains)
    limits = limits_of(scores["estimate"])
    for _, row in scores.iterrows():
        slot = methods.index(row["measure"])
        y = noises.index(row["noise"]) + dodge(slot, len(methods), 0.6)
        draw_estimate(left, row, y, look(slot), limits, size=4)
    for _, row in gains.iterrows():
        draw_estimate(right, row, noises.index(row["noise"]), look(0, INK), (-end, end), size=4)
    draw_nothing(right, delta)
    left.set(title="Macro-AUC", xlim=limits, ylim=(len(noises) - 0.5, -0.5))
    left.set_yticks(range(len(noises)), noises)
    right.set_xlim(-end, end)
    right.set_title(textwrap.fill(f"{gain}, more than without noise", 26), fontsize=7)
    for axes in (left, right):
        axes.grid(axis="x", visible=True)
    legend(figure, methods, columns=3)
    return figure


@styled
def rates(card: pd.DataFrame) -> Figure:
    """Share of known frames that carry each AU, one marker per part.

    Args:
        card: one row per part and AU: part, au, rate (0 to 1).
    """
    parts, aus = levels(card, "part", "au")
    figure = Figure(2.6)
    axes = figure.subplots()
    for slot, part in enumerate(parts):
        rows = card[card["part"] == part]
        x = np.array([aus.index(au) for au in rows["au"]]) + dodge(slot, len(parts), 0.5)
        axes.vlines(x, 0, 100 * rows["rate"], color=look(slot)["color"], linewidth=1, alpha=0.4)
        axes.plot(x, 100 * rows["rate"], markersize=4.5, **marks(slot))
    axes.set_xticks(range(len(aus)), [str(au) for au in aus])
    axes.set(xlabel="Action unit", ylabel="Frames with the AU (%)", ylim=(0, None))
    axes.grid(axis="y", visible=True)
    legend(figure, [f"part {part}" for part in parts], columns=4)
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
    figure = Figure(WIDTH * 0.92)
    axes = figure.subplots()
    cells = {"vmin": 0, "vmax": 100, "cmap": "Blues", "square": True, "linewidths": 0.5, "linecolor": "white"}
    text = {"annot": len(aus) <= 18, "fmt": ".0f", "annot_kws": {"fontsize": 6.5}}
    bar = {"label": "Present (%)", "shrink": 0.75}
    sns.heatmap(pd.DataFrame(share, index=names, columns=names), ax=axes, cbar_kws=bar, **cells, **text)
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
    figure = Figure(0.5 + (WIDTH - 0.7) * sheet.shape[0] / sheet.shape[1])
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
    import cv2  # as long an import as that of a small page's figures

    count, side = len(faces), WIDTH / 4
    figure = Figure(count * side + 0.6)
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
    intervals, worlds = levels(table, "interval", "world")
    ours = table.drop_duplicates("interval").set_index("interval")["ours"]
    figure = Figure(1.0 + 0.21 * len(intervals))
    panels = figure.subplots(1, 2, sharey=True)
    shown = (("coverage", "Coverage (%)", band), ("false_claims", "False claims (%)", (0.0, limit)))
    for axes, (name, title, target) in zip(panels, shown, strict=True):
        axes.axvspan(100 * target[0], 100 * target[1], color="#DDEBDD", linewidth=0, zorder=0)
        for slot, world in enumerate(worlds):
            rows = table[table["world"] == world]
            y = np.array([intervals.index(interval) for interval in rows["interval"]])
            axes.plot(100 * rows[name], y + dodge(slot, len(worlds), 0.45), markersize=4, **marks(slot))
        axes.set(title=title, ylim=(len(intervals) - 0.5, -0.5))
        axes.grid(visible=True)
    panels[0].set_xlim(None, 101)
    panels[1].set_xlim(0, None)
    panels[0].set_yticks(range(len(intervals)), intervals)
    colour_labels(panels[0], [ours[interval] for interval in intervals])
    legend(figure, worlds, title="Effect of the training set", columns=3)
    return figure


@styled
def averaging(table: pd.DataFrame) -> Figure:
    """One number for the same predictions by several ways of averaging, one panel per data set.

    Args:
        table: one row per data set and way: dataset, way, aunce (percent), and other and printed (percent), name and
            number of a method to compare with, the same in all rows of a data set. Order of rows = order in the figure.
    """
    datasets, ways = levels(table, "dataset", "way")
    figure = Figure(0.95 + 0.25 * len(ways))
    panels = figure.subplots(1, len(datasets), sharex=True, sharey=True, squeeze=False)[0]
    for axes, dataset in zip(panels, datasets, strict=True):
        rows = table[table["dataset"] == dataset]
        y = [ways.index(way) for way in rows["way"]]
        first = rows.iloc[0]
        axes.axvline(first["printed"], color=COLOURS[1], linewidth=1, linestyle=DASHED, zorder=1)
        axes.plot(rows["aunce"], y, markersize=5, zorder=3, **marks(0))
        for value, place in zip(rows["aunce"], y, strict=True):
            # to the right of the point, or to the left where the panel ends
            right = value < table["aunce"].max() - 2
            offset, side = (5, "left") if right else (-5, "right")
            text: dict[str, Any] = {"ha": side, "va": "center", "fontsize": 7.5, "textcoords": "offset points"}
            axes.annotate(f"{value:.1f}", (value, place), (offset, 0), **text)
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
    datasets, names, parts = levels(table, "dataset", "score", "part")
    figure = Figure(0.6 + 2.0 * len(names))
    panels = figure.subplots(len(names), len(datasets), sharex="col", sharey=True, squeeze=False)
    for (row, name), (column, dataset) in itertools.product(enumerate(names), enumerate(datasets)):
        axes = panels[row, column]
        points = table[(table["score"] == name) & (table["dataset"] == dataset)].sort_values("prevalence")
        axes.plot(100 * points["prevalence"], 100 * points["floor"], color=GREY, linewidth=1.2, zorder=1)
        for slot, part in enumerate(parts):
            own = points[points["part"] == part]
            axes.plot(100 * own["prevalence"], 100 * own["value"], markersize=4, zorder=3, **marks(slot))
        axes.grid(visible=True)
        axes.set(ylim=(min(-4, 100 * table["value"].min() - 4), 100), xlim=(0, None))
        if row == 0:
            axes.set_title(dataset)
        if row == len(names) - 1:
            axes.set_xlabel("Frames with the AU (%)")
        if column == 0:
            axes.set_ylabel(f"{name} (%)")
    line = Line2D([], [], color=GREY, linewidth=1.2, label="always positive")
    legend(figure, [f"part {part}" for part in parts], extra=[line], columns=4)
    return figure


@styled
def floors(table: pd.DataFrame) -> Figure:
    """The smallest loss of a present anchor and its weight there against prevalence, one panel each.

    Args:
        table: one row per images, between and prevalence (0 to 1): loss, weight.
    """
    figure = Figure(2.7)
    panels = figure.subplots(1, 2)
    for axes, (name, label) in zip(panels, (("loss", "smallest loss"), ("weight", "weight r there")), strict=True):
        for slot, ((between, images), rows) in enumerate(table.groupby(["between", "images"], sort=False)):
            kind = "ReLU" if between == 0 else "no ReLU"
            named: dict[str, Any] = {**look(slot), "label": f"{kind}, batch {images}"}
            axes.plot(100 * rows["prevalence"], rows[name], markersize=4, linewidth=1.3, **named)
        axes.set(title=label.capitalize(), xlabel="Images with the AU (%)", ylim=(0, None))
        axes.grid(visible=True)
    legend_of(figure, panels[0])
    return figure


@styled
def forces(table: pd.DataFrame) -> Figure:
    """Forces on an anchor by loss: attraction to the left of 0, repulsion to the right, by where they come from.

    Args:
        table: one row per loss and positive: loss, positive, own view, same label, negatives.
    """
    kinds = ("own view", "same label", "negatives")
    figure = Figure(0.9 + 0.26 * len(table))
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
    rates, names = levels(table, "prevalence", "exponents")
    figure = Figure(1.1 + 0.3 * len(names))
    panels = figure.subplots(1, len(rates), sharey=True, sharex=True, squeeze=False)[0]
    for axes, rate in zip(panels, rates, strict=True):
        for slot, normalised in enumerate((False, True)):
            rows = table[(table["prevalence"] == rate) & (table["normalised"] == normalised)]
            label = "weights divided by their mean" if normalised else "weights as they are"
            y = [names.index(name) - 0.12 + 0.24 * slot for name in rows["exponents"]]
            axes.plot(rows["ratio"], y, markersize=6, label=label, **marks(slot))
        axes.axvline(1, color=GREY, linewidth=0.9, linestyle=DOTTED)
        axes.set(title=f"AU in {100 * rate:.0f} % of images", xlabel="step of present / absent")
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x", visible=True)
    panels[0].set_yticks(range(len(names)), names)
    legend_of(figure, panels[0])
    return figure


@styled
def batches(table: pd.DataFrame) -> Figure:
    """Loss and gradient noise against the batch, one line per prevalence.

    Args:
        table: one row per prevalence and images: loss, spread, noise.
    """
    figure = Figure(2.6)
    left, right = figure.subplots(1, 2)
    for slot, (rate, rows) in enumerate(table.groupby("prevalence", sort=False)):
        line: dict[str, Any] = {**look(slot), "markersize": 4, "linewidth": 1.3}
        left.errorbar(rows["images"], rows["loss"], yerr=rows["spread"], capsize=2, **line)
        right.plot(rows["images"], rows["noise"], label=f"AU in {100 * rate:.0f} % of images", **line)
    left.set(title="Loss", ylim=(0, None))
    right.set(title="Noise of the gradient", ylim=(0, None))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(table["images"].unique(), [str(images) for images in table["images"].unique()])
        axes.minorticks_off()
        axes.set_xlabel("Images in a batch")
        axes.grid(visible=True)
    legend_of(figure, right)
    return figure


@styled
def growth(table: pd.DataFrame) -> Figure:
    """Time and memory against sizes, both axes logarithmic: one column per axis, one line per series.

    Args:
        table: one row per axis (its label), series and size: seconds; floor, the seconds that the machine's rates
            allow, and bytes, both NaN where there is none.
    """
    axes_names, series = levels(table, "axis", "series")
    floor: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": DASHED}
    measures = [("seconds", "Time (s)", 1.0)]
    measures += [("bytes", "Memory (MB)", 1e-6)] if table["bytes"].notna().any() else []
    figure = Figure(0.7 + 2.0 * len(measures))
    panels = figure.subplots(len(measures), len(axes_names), sharex="col", sharey="row", squeeze=False)
    for (row, (name, label, unit)), (column, axis) in itertools.product(enumerate(measures), enumerate(axes_names)):
        axes = panels[row, column]
        for slot, one in enumerate(series):
            rows = table[(table["axis"] == axis) & (table["series"] == one)].sort_values("size")
            axes.plot(rows["size"], unit * rows[name], markersize=4, linewidth=1.3, **look(slot))
            if name == "seconds":
                axes.plot(rows["size"], rows["floor"], zorder=1, **floor)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.minorticks_off()
        axes.grid(visible=True)
        if row == len(measures) - 1:
            axes.set_xlabel(axis)
        if column == 0:
            axes.set_ylabel(label)
    lowest = [Line2D([], [], label="floor", **floor)] if table["floor"].notna().any() else []
    legend(figure, series, extra=lowest, columns=3)
    return figure


def _titled(condition: str) -> str:
    return f"Noise {condition}" if is_noise(condition) else condition[:1].upper() + condition[1:]


def _in_two(comparison: str) -> str:
    """A comparison with its second method on a line of its own."""
    return comparison.replace(" minus ", "\nminus ", 1)
