"""The look of all figures, and what they share.

Each is as wide as a phone shows it legibly (5.4 inches), uses colours that colour-blind readers tell apart together
with marker shapes, and goes to SVG without a date: the same table gives the same bytes. pyplot's global state is
never used.
"""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import figure as mpl_figure
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

WIDTH = 5.4
GREY, INK = "#767676", "#222222"
# The order puts the most different ones first; yellow is left out, it is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7A5195")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")  # from the ninth series on they are hollow, see `look`
DOTTED, DASHED = (0, (2, 2)), (0, (3, 2))
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
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # a name with a dollar sign is a name
    "svg.hashsalt": "aunce",
    "svg.fonttype": "path",  # the reader's machine may lack the font, and an image cannot fetch one
}
styled = mpl.rc_context(STYLE)


class Figure(mpl_figure.Figure):
    """A matplotlib Figure of our width that a notebook shows without pyplot.

    Args:
        height: in inches.
    """

    def __init__(self, height: float) -> None:
        super().__init__(figsize=(WIDTH, height), layout="constrained")

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        return buffer.getvalue()


def levels(table: pd.DataFrame, *names: str) -> tuple[list[Any], ...]:
    """The different values of some columns, in the order of the rows."""
    return tuple(list(pd.unique(table[name])) for name in names)


def look(slot: int, colour: str = "") -> dict[str, Any]:
    """Colour (its own unless given), marker and fill of series `slot`; those that share a shape differ in the fill."""
    colour = colour or COLOURS[slot % len(COLOURS)]
    fill = colour if slot < len(COLOURS) else "white"
    return {"color": colour, "marker": MARKERS[slot % len(MARKERS)], "markerfacecolor": fill}


def marks(slot: int) -> dict[str, Any]:
    """The look of series `slot` as marks without a line through them."""
    return {**look(slot), "linestyle": ""}


def dodge(index: int, count: int, spread: float) -> float:
    """Offset of series `index` of `count` that share a row of height 1 and fill `spread` of it."""
    return spread * ((index + 0.5) / count - 0.5)


def limits_of(*columns: pd.Series) -> tuple[float, float]:
    """Limits of a score axis by what was measured: intervals from two replicates may be wider than 0 to 1."""
    values = np.concatenate([column.to_numpy(dtype=np.float64) for column in columns])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    margin = max(0.04, 0.12 * float(np.ptp(values)))
    return max(0.0, float(values.min()) - margin), min(1.01, float(values.max()) + margin)


def widest(table: pd.DataFrame) -> float:
    """The largest finite distance from 0 of an estimate or an end of its interval, 0.01 at least."""
    ends = table[["estimate", "low", "high"]].to_numpy(dtype=np.float64)
    return float(np.abs(ends[np.isfinite(ends)]).max(initial=0.01))


def draw_estimate(
    axes: Axes, row: pd.Series, y: float, look: dict[str, Any], limits: tuple[float, float], *, size: float = 5.5
) -> None:
    """A mean with its interval; an end outside the axis is cut there and shown as an arrow."""
    colour, marker, fill = look["color"], look["marker"], look["markerfacecolor"]
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        low, high = max(row["low"], limits[0]), min(row["high"], limits[1])
        axes.plot([low, high], [y, y], color=colour, linewidth=1.3, solid_capstyle="butt", zorder=3)
        for end, cut, arrow in ((limits[0], row["low"] < limits[0], "<"), (limits[1], row["high"] > limits[1], ">")):
            if cut:
                axes.plot([end], [y], arrow, color=colour, markersize=0.8 * size, clip_on=False, zorder=3)
    if np.isfinite(row["estimate"]):
        edge, width = (colour, 1.3) if fill != colour or marker == "|" else ("white", 0.6)
        axes.plot(
            *([row["estimate"]], [y], marker),
            color=colour,
            markerfacecolor=fill,
            markersize=size + 1,
            markeredgecolor=edge,
            markeredgewidth=width,
            clip_on=False,
            zorder=4,
        )


def draw_nothing(axes: Axes, delta: float) -> None:
    """The band of differences that count as nothing, and 0 in it."""
    axes.axvspan(-delta, delta, color="#E5E5E5", linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.9, zorder=1)


def draw_chance(axes: Axes) -> None:
    """The AUC of chance."""
    axes.axvline(0.5, color=GREY, linewidth=0.9, linestyle=DOTTED, zorder=1)


def colour_labels(axes: Axes, inked: Sequence[bool]) -> None:
    """Labels of the vertical axis in black where `inked`, else in grey."""
    for label, black in zip(axes.get_yticklabels(), inked, strict=True):
        label.set_color(INK if black else GREY)


def legend(
    figure: Figure, names: Sequence[str], *, title: str | None = None, extra: Sequence[Line2D] = (), columns: int = 2
) -> None:
    """A legend below the figure: the series by their look, then `extra`."""
    handles = [Line2D([], [], **look(slot), markersize=5, linewidth=1.3, label=name) for slot, name in enumerate(names)]
    figure.legend(
        handles=[*handles, *extra], loc="outside lower center", ncols=columns, title=title, title_fontsize=8.5
    )


def legend_of(figure: Figure, axes: Axes) -> None:
    """A legend below the figure, of what is labelled in one panel."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
