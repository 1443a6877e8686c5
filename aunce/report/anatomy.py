"""The verdicts of the anatomy page: one claim and the gaps that computation alone decides.

The numbers are those of `aunce.analyses.anatomy`, `aunce.analyses.batches` and `aunce.analyses.costs`; the page is
`notebooks/anatomy.ipynb`.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from aunce.analyses import anatomy, batches, costs
from aunce.analyses.anatomy import IMAGES, TAU
from aunce.report.findings import Entry
from aunce.report.page import number


def verdicts() -> list[Entry]:
    """Claim C7 and the gaps that computation decides, each with its verdict, its numbers and its section of the page.

    A verdict is "holds" or "does not hold".
    """
    return [_c7(), _d1(), _d2(), _d3(), _d6(), _d7(), _d16(), _d18()]


def _entry(id: str, holds: bool, section: str, reason: str, **fields: Any) -> Entry:
    return Entry(id=id, verdict="holds" if holds else "does not hold", section=section, reason=reason, **fields)


def _c7() -> Entry:
    """AUNCE needs at most one percent more parameters and operations than BCE with one view."""
    table = costs.all_costs()
    wide = table.pivot_table(index="backbone", columns="method", values="operations")
    one, two = (wide["AUNCE"] / wide[f"BCE, {views}"] for views in ("one view", "two views"))
    saved = table.pivot_table(index="backbone", columns="method", values="parameters")
    heads = saved["BCE, one view"] - saved["AUNCE"]
    more = [name for name in ("parameters", "operations") if costs.more_than(table, name)]
    names = list(wide.index)
    return _entry(
        "C7",
        not more,
        "Parameters and operations",
        "Against BCE on the same encoder, AUNCE needs "
        f"{' and '.join(f'more {name}' for name in more) or 'no more of either'}: a training step takes "
        f"{_each(one, names, '.2f')} times the operations for the same number of labelled images, as it needs two "
        f"views of each ({_each(two, names, '.3f')} times if BCE is given two views as well); it trains "
        f"{_each(heads, names, ',.0f')} parameters fewer, which the later probe adds again, and then both compute "
        "the same at test time.",
        contrast="AUNCE, one step, over BCE with one view (worst backbone)",
        value=float(one.max()),
        unit="times the operations",
    )


def _d1() -> Entry:
    """The max branch as released attracts nothing and has a constant positive score; without the anchor it attracts."""
    released, changed = anatomy.max_branch("none"), anatomy.max_branch("self")
    holds = released.attraction < 1e-9 and released.losses_error < 1e-9 < changed.attraction
    return _entry(
        "D1",
        holds,
        "The most similar positive",
        f"With the anchor among its positives the losses differ by at most {released.losses_error:.0e} from those "
        f"of a constant positive score exp(1 / tau), and positives act with a force of {released.attraction:.2g} "
        f"on an anchor; without the anchor it is {changed.attraction:.2f}.",
        contrast="attraction of the max branch, released",
        value=released.attraction,
        unit="force per anchor",
    )


def _d2() -> Entry:
    """The released mean differs from that over the positives by exactly positives / rows, and is the default."""
    table = anatomy.mean_divisors()
    rare = table[(table["prevalence"] == 0.02)].set_index(["state", "tau"])
    early, late = rare.loc[("labels not seen", 0.5)], rare.loc[("labels separated", 0.1)]
    return _entry(
        "D2",
        bool(table["error"].max() < 1e-9 and anatomy.mean_divides_by_the_row()),
        "The divisor of the mean",
        f"The released mean is the mean over the positives times positives / rows, to {table['error'].max():.0e}: "
        f"log P of a present anchor moves by {number(rare['shift'].iloc[0], '.2f')} at 2 % prevalence; "
        f"present anchors then hold {100 * early['share_row']:.1f} % of all weights r (divided by the positives: "
        f"{100 * early['share_positives']:.1f} %) at tau .5 while labels are not seen, and "
        f"{100 * late['share_row']:.0f} % (divided by the positives: {100 * late['share_positives']:.0f} %) at "
        "tau .1 once they are separated.",
    )


def _d3() -> Entry:
    """All anchors of an AU share a branch in every released draw."""
    table = anatomy.draws().set_index("way")
    shared = anatomy.anchors_share_a_draw()
    once, each = (table.loc[way] for way in ("once per AU and batch", "once per anchor"))
    return _entry(
        "D3",
        shared == 1,
        "One draw for all anchors",
        f"In {100 * shared:.0f} % of the released draws all anchors of an AU share a branch; a draw per anchor "
        f"has the same expected gradient (to {once['distance']:.0e}), and one per AU and batch "
        f"{once['variance'] / each['variance']:.1f} times its variance.",
        contrast="variance of the gradient, once per AU and batch over once per anchor",
        value=float(once["variance"] / each["variance"]),
        unit="times",
    )


def _d6() -> Entry:
    """AUNCE's denominator is smaller than that of SimCLR, which is that of SupCon."""
    left = anatomy.denominators()
    cosines = anatomy.gradient_cosines().set_index(["loss", "state"]).loc["released, expected"]
    return _entry(
        "D6",
        left.kept < 0.999 and left.same_as_simclr < 1e-9,
        "The denominator",
        f"With equal exponents and the own view as positive, AUNCE's denominator is {100 * left.kept:.0f} % of "
        "that of SimCLR, which is that of SupCon, as other images with the anchor's label are left out; the "
        f"released gradient has a cosine of {cosines['SupCon'].min():.2f} to {cosines['SupCon'].max():.2f} with "
        f"SupCon's and of {cosines['InfoNCE'].min():.2f} to {cosines['InfoNCE'].max():.2f} with InfoNCE's.",
    )


def _d7() -> Entry:
    """With the final ReLU no feature and no cosine is below 0; without it both are."""
    with_relu, without = anatomy.smallest(True), anatomy.smallest(False)
    table = anatomy.floors(temperatures=(TAU,), batches=(IMAGES,), rates=(0.25,)).set_index("between")
    return _entry(
        "D7",
        with_relu.feature >= 0 and with_relu.cosine >= 0 > without.cosine and without.feature < 0,
        "How low it can go",
        f"The smallest feature is {number(with_relu.feature, '.2f')} with the ReLU and "
        f"{number(without.feature, '.2f')} without, the smallest cosine "
        f"{number(with_relu.cosine, '.2f')} and {number(without.cosine, '.2f')}; so at tau .5, batch 32 "
        "and 25 % prevalence the loss of a present anchor (mean branch) cannot fall below "
        f"{table.loc[0.0, 'loss']:.2f}, where its weight is still {table.loc[0.0, 'weight']:.2f}, instead of "
        f"{table.loc[-1.0, 'loss']:.2f} and {table.loc[-1.0, 'weight']:.2f}.",
    )


def _d16() -> Entry:
    """As a class, images coded 9 repel known anchors; as unknowns they do not."""
    table = batches.unknowns().set_index("way")
    nine, masked, true = (table.loc[way] for way in ("9 is a class (released)", "unknown (here)", "the true label"))
    return _entry(
        "D16",
        bool(nine["from_9"] > 0 and masked["from_9"] == 0),
        "The code 9",
        f"With 4 of {IMAGES} images coded 9 these are negatives of both labels and make "
        f"{100 * nine['from_9']:.0f} % of the repulsion on known anchors ({100 * true['from_9']:.0f} % with their "
        f"true labels), {nine['false']:.0f} pairs of equal true labels among those that repel; as anchors they "
        f"have no negatives, so that their gradient is {nine['on_9']:.2g} and equal codes do not attract.",
    )


def _d18() -> Entry:
    """With an AU of 5 %, most batches of 32 hold at most one positive image."""
    table = batches.positives().set_index(["prevalence", "images"])
    five, two = table.loc[(0.05, 32)], table.loc[(0.02, 32)]
    return _entry(
        "D18",
        bool(five["none"] + five["one"] > 0.5),
        "Rare AUs in a batch",
        f"The first half only: in 32 independent frames an AU of 5 % has {five['expected']:.1f} positive images, "
        f"none in {100 * five['none']:.0f} % of batches and one in {100 * five['one']:.0f} %; at 2 % it is "
        f"{100 * two['none']:.0f} % and {100 * two['one']:.0f} %; that neighbouring frames are near duplicates is "
        "not decided here.",
    )


def _each(values: pd.Series, names: Sequence[str], form: str) -> str:
    return " and ".join(f"{format(values[name], form)} ({name})" for name in names)
