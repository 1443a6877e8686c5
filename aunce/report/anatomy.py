"""The anatomy page: what the loss computes, and which claims and gaps computation alone decides.

The numbers are those of `aunce.analyses.anatomy`, `aunce.analyses.batches` and `aunce.analyses.costs`.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from aunce.analyses import anatomy, batches, costs
from aunce.analyses.anatomy import CHANNELS, EXPONENTS, IMAGES, STATES, TAU
from aunce.report import figures, findings, page
from aunce.report.claims import load_claims

if TYPE_CHECKING:
    from IPython.display import Markdown

TITLE = "Anatomy of the loss"
QUESTION = "What does the AUNCE loss compute, and which statements about it are settled by computation alone?"
SECTIONS = {
    "values": "What the value says",
    "floors": "How low it can go",
    "forces": "What pulls and what pushes",
    "nearest": "The most similar positive",
    "divisor": "The divisor of the mean",
    "draws": "One draw for all anchors",
    "denominator": "The denominator",
    "steps": "What the exponents do",
    "precision": "Half precision",
    "batches": "Rare AUs in a batch",
    "unknowns": "The code 9",
    "costs": "Parameters and operations",
}
"""Method -> heading of its section in the notebook."""


class Anatomy:
    """What the anatomy notebook shows, section by section.

    Args:
        out: folder that gets the figures, their data and `findings.json`; empty: figures are displayed, nothing
            is saved.
    """

    def __init__(self, *, out: str | Path = "") -> None:
        self.out = Path(out) if str(out) else None
        claims, _ = load_claims()
        self.wording = {claim.id: claim.wording for claim in claims.claim}
        self.wording |= {gap.id: gap.wording for gap in claims.gap}

    @cached_property
    def entries(self) -> list[findings.Entry]:
        """Claim C7 and the gaps that computation decides, with their numbers."""
        return [
            *(self._c7(), self._d1(), self._d2(), self._d3()),
            *(self._d6(), self._d7(), self._d16(), self._d18()),
        ]

    def title(self) -> "Markdown":
        """What is asked and found; writes `findings.json` if `out` is given."""
        holding = [entry.id for entry in self.entries if entry.verdict == "holds"]
        failing = [
            f"{entry.id} ({self.wording[entry.id].rstrip('.')})" for entry in self.entries if entry.verdict != "holds"
        ]
        ratio = _wide(anatomy.steps(), "ratio")
        raw, divided = (ratio.loc[(0.5, "released"), how] / ratio.loc[(0.5, "equal"), how] for how in (False, True))
        found = (
            f"Of {len(self.entries)} statements, computation confirms {', '.join(holding) or 'none'} and refutes "
            f"{', '.join(failing) or 'none'}. Exponents of .8 and 1.2 make the step of a present anchor, relative to "
            f"that of an absent one, {raw:.2f} times as long as equal exponents do, and {divided:.2f} times if the "
            "weights are divided by their mean."
        )
        findings.write(
            self.out,
            findings.Findings(title=TITLE, question=QUESTION, found=found, kind="computation", entries=self.entries),
        )
        return page.markdown(
            f"# {TITLE}\n\n**Asked.** {QUESTION}\n\n**Found.** {found}\n\nNothing was trained and no data set read. "
            "The embeddings are made up; what an encoder makes of faces is measured in the other reports."
        )

    def verdicts(self) -> "Markdown":
        """Claims and gaps with the numbers that decide them."""
        rows = [
            [f"{entry.id}: {page.text(self.wording[entry.id])}", entry.verdict, entry.reason] for entry in self.entries
        ]
        return page.markdown(page.table(["Claim or gap", "Verdict", "Why"], rows, "lll"))

    def _entry(self, id: str, holds: bool, section: str, reason: str, **fields: Any) -> findings.Entry:
        verdict = "holds" if holds else "does not hold"
        return findings.Entry(id=id, verdict=verdict, section=SECTIONS[section], reason=reason, **fields)

    def _c7(self) -> findings.Entry:
        table = costs.all_costs()
        wide = table.pivot_table(index="backbone", columns="method", values="operations")
        one, two = (wide["AUNCE"] / wide[f"BCE, {views}"] for views in ("one view", "two views"))
        saved = table.pivot_table(index="backbone", columns="method", values="parameters")
        heads = saved["BCE, one view"] - saved["AUNCE"]
        more = [name for name in ("parameters", "operations") if costs.more_than(table, name)]
        names = list(wide.index)
        return self._entry(
            "C7",
            not more,
            "costs",
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

    def _d1(self) -> findings.Entry:
        released, changed = anatomy.max_branch("none"), anatomy.max_branch("self")
        holds = released.attraction < 1e-9 and released.losses_error < 1e-9 < changed.attraction
        return self._entry(
            "D1",
            holds,
            "nearest",
            f"With the anchor among its positives the losses differ by at most {released.losses_error:.0e} from those "
            f"of a constant positive score exp(1 / tau), and positives act with a force of {released.attraction:.2g} "
            f"on an anchor; without the anchor it is {changed.attraction:.2f}.",
            contrast="attraction of the max branch, released",
            value=released.attraction,
            unit="force per anchor",
        )

    def _d2(self) -> findings.Entry:
        table = anatomy.mean_divisors()
        rare = table[(table["prevalence"] == 0.02)].set_index(["state", "tau"])
        early, late = rare.loc[("labels not seen", 0.5)], rare.loc[("labels separated", 0.1)]
        return self._entry(
            "D2",
            bool(table["error"].max() < 1e-9 and anatomy.mean_divides_by_the_row()),
            "divisor",
            f"The released mean is the mean over the positives times positives / rows, to {table['error'].max():.0e}: "
            f"log P of a present anchor moves by {page.number(rare['shift'].iloc[0], '.2f')} at 2 % prevalence; "
            f"present anchors then hold {100 * early['share_row']:.1f} % of all weights r (divided by the positives: "
            f"{100 * early['share_positives']:.1f} %) at tau .5 while labels are not seen, and "
            f"{100 * late['share_row']:.0f} % (divided by the positives: {100 * late['share_positives']:.0f} %) at "
            "tau .1 once they are separated.",
        )

    def _d3(self) -> findings.Entry:
        table = anatomy.draws().set_index("way")
        shared = anatomy.anchors_share_a_draw()
        once, each = (table.loc[way] for way in ("once per AU and batch", "once per anchor"))
        return self._entry(
            "D3",
            shared == 1,
            "draws",
            f"In {100 * shared:.0f} % of the released draws all anchors of an AU share a branch; a draw per anchor "
            f"has the same expected gradient (to {once['distance']:.0e}), and one per AU and batch "
            f"{once['variance'] / each['variance']:.1f} times its variance.",
            contrast="variance of the gradient, once per AU and batch over once per anchor",
            value=float(once["variance"] / each["variance"]),
            unit="times",
        )

    def _d6(self) -> findings.Entry:
        left = anatomy.denominators()
        cosines = anatomy.gradient_cosines().set_index(["loss", "state"]).loc["released, expected"]
        return self._entry(
            "D6",
            left.kept < 0.999 and left.same_as_simclr < 1e-9,
            "denominator",
            f"With equal exponents and the own view as positive, AUNCE's denominator is {100 * left.kept:.0f} % of "
            "that of SimCLR, which is that of SupCon, as other images with the anchor's label are left out; the "
            f"released gradient has a cosine of {cosines['SupCon'].min():.2f} to {cosines['SupCon'].max():.2f} with "
            f"SupCon's and of {cosines['InfoNCE'].min():.2f} to {cosines['InfoNCE'].max():.2f} with InfoNCE's.",
        )

    def _d7(self) -> findings.Entry:
        with_relu, without = anatomy.smallest(True), anatomy.smallest(False)
        table = anatomy.floors(temperatures=(TAU,), batches=(IMAGES,), rates=(0.25,)).set_index("between")
        return self._entry(
            "D7",
            with_relu.feature >= 0 and with_relu.cosine >= 0 > without.cosine and without.feature < 0,
            "floors",
            f"The smallest feature is {page.number(with_relu.feature, '.2f')} with the ReLU and "
            f"{page.number(without.feature, '.2f')} without, the smallest cosine "
            f"{page.number(with_relu.cosine, '.2f')} and {page.number(without.cosine, '.2f')}; so at tau .5, batch 32 "
            "and 25 % prevalence the loss of a present anchor (mean branch) cannot fall below "
            f"{table.loc[0.0, 'loss']:.2f}, where its weight is still {table.loc[0.0, 'weight']:.2f}, instead of "
            f"{table.loc[-1.0, 'loss']:.2f} and {table.loc[-1.0, 'weight']:.2f}.",
        )

    def _d16(self) -> findings.Entry:
        table = batches.unknowns().set_index("way")
        nine, masked, true = (table.loc[way] for way in ("9 is a class (released)", "unknown (here)", "the true label"))
        return self._entry(
            "D16",
            bool(nine["from_9"] > 0 and masked["from_9"] == 0),
            "unknowns",
            f"With 4 of {IMAGES} images coded 9 these are negatives of both labels and make "
            f"{100 * nine['from_9']:.0f} % of the repulsion on known anchors ({100 * true['from_9']:.0f} % with their "
            f"true labels), {nine['false']:.0f} pairs of equal true labels among those that repel; as anchors they "
            f"have no negatives, so that their gradient is {nine['on_9']:.2g} and equal codes do not attract.",
        )

    def _d18(self) -> findings.Entry:
        table = batches.positives().set_index(["prevalence", "images"])
        five, two = table.loc[(0.05, 32)], table.loc[(0.02, 32)]
        return self._entry(
            "D18",
            bool(five["none"] + five["one"] > 0.5),
            "batches",
            f"The first half only: in 32 independent frames an AU of 5 % has {five['expected']:.1f} positive images, "
            f"none in {100 * five['none']:.0f} % of batches and one in {100 * five['one']:.0f} %; at 2 % it is "
            f"{100 * two['none']:.0f} % and {100 * two['one']:.0f} %; that neighbouring frames are near duplicates is "
            "not decided here.",
        )

    def values(self) -> "Markdown":
        """The loss at embeddings for which its value is known by hand."""
        table = anatomy.values()
        columns = ("equal", "random", "orthogonal", "opposite")
        rows = [
            [row["preset"], row["positive"], *(f"{row[name]:.3f}" for name in columns)] for _, row in table.iterrows()
        ]
        headers = ["Preset", "Positive", "All equal", "Random", "Labels at a right angle", "Labels opposite"]
        return page.markdown(
            f"{page.table(headers, rows, 'llrrrr')}\n\n"
            f"Mean over anchors, 6 of {IMAGES} images with the AU, tau {TAU:g}, AU weights 1. *Expected*: the sum over "
            "branches by their probabilities, the mean of what *sampled* gives. Right angle and opposite are the "
            "smallest values that can be reached with and without a final ReLU. Equal, right angle and opposite agree "
            f"with the closed form to {table['error'].max():.0e}."
        )

    def floors(self) -> "Markdown":
        """Figure: the smallest loss by prevalence, and the weight there."""
        table = anatomy.floors(temperatures=(TAU,), rates=(0.0625, 0.125, 0.25, 0.5, 0.75, 0.9375))
        return page.figure(
            self.out,
            "floors",
            figures.floors(table),
            table,
            alt="Smallest loss of a present anchor and its weight against prevalence, with and without a final ReLU, "
            "for batches of 32 and 128.",
            caption="Released, mean branch, tau .5, present anchors: all positives alike, all negatives at a right "
            "angle (as far as a ReLU lets them go) or opposite (without).",
        )

    def floors_table(self) -> "Markdown":
        """The smallest loss by temperature and batch, and the force at it."""
        table = anatomy.floors(rates=(0.0625, 0.5))
        wide = table.pivot_table(index=["tau", "images", "prevalence"], columns="between")
        rows = [
            [
                *(f"{tau:g}", f"{images:.0f}", f"{100 * rate:g}"),
                *(f"{row[(name, 0.0)]:.3g}" for name in ("loss", "weight", "force")),
                *(f"{row[(name, -1.0)]:.3g}" for name in ("loss", "weight", "force")),
            ]
            for (tau, images, rate), row in wide.iterrows()
        ]
        headers = ["tau", "Batch", "Present (%)", "ReLU: loss", "weight r", "force"]
        headers += ["No ReLU: loss", "weight r", "force"]
        return page.markdown(page.table(headers, rows, "r" * 9))

    def forces(self) -> "Markdown":
        """Figure: attraction and repulsion by kind of positive, beside SupCon and InfoNCE."""
        table = anatomy.branch_forces()
        return page.figure(
            self.out,
            "forces",
            figures.forces(table),
            table,
            alt="Bars of attraction and repulsion on an anchor for the branches of the released and the as_read "
            "loss, SupCon and InfoNCE. The released max branch has no attraction.",
            caption="Derivative of an anchor's loss by its cosines, added up by the kind of row and averaged over "
            f"anchors; {IMAGES} images, 6 with the AU, *labels half seen* (cosine .8 between views, .5 within a "
            "label, .2 between labels).",
        )

    def forces_table(self) -> "Markdown":
        """The numbers of `forces`."""
        rows = [
            [
                *(row["loss"], row["positive"]),
                *(page.number(row[name], "+.2f") for name in ("own view", "same label", "negatives")),
                *(page.number(round(row["surplus"], 2) + 0.0, "+.2f"), f"{100 * row['of_negatives']:.0f}"),
            ]
            for _, row in anatomy.branch_forces().iterrows()
        ]
        headers = ["Loss", "Positive", "Own view", "Same label", "Negatives", "Sum", "Repulsion by negatives (%)"]
        return page.markdown(page.table(headers, rows, "llrrrrr"))

    def nearest(self) -> "Markdown":
        """Share of anchors whose most similar positive is the own other view, if the anchor itself is excluded."""
        table = anatomy.own_view_shares()
        sames = [name for name in table.columns if name != "view"]
        rows = [
            [f"{row['view']:g}", *("" if np.isnan(row[same]) else f"{100 * row[same]:.0f}" for same in sames)]
            for _, row in table.iterrows()
        ]
        headers = ["Cosine of two views", *(f"same label {same:g} (%)" for same in sames)]
        found = {name: anatomy.max_branch(name) for name in ("none", "self", "image")}
        said = ", ".join(f"{found[name].attraction:.2f} with `{name}`" for name in found)
        return page.markdown(
            f"{page.table(headers, rows, 'r' * len(headers))}\n\n"
            f"Batches of {IMAGES}, 6 with the AU, in a random model of {CHANNELS} channels, mean of 20. As soon as two "
            "views are more alike than two images with the same label, by more than chance, the max branch and the "
            "view branch are one. Where an encoder stands in this table has to be measured in training. Attraction of "
            f"the max branch by what is excluded: {said}."
        )

    def divisor(self) -> "Markdown":
        """Weights of anchors under both divisors."""
        rows = [
            [
                *(row["state"], f"{row['tau']:g}", f"{100 * row['prevalence']:.0f}", page.number(row["shift"], ".2f")),
                *(_pair(row, name) for name in ("weight", "absent")),
                _pair(row, "share", 100, ".1f"),
            ]
            for _, row in anatomy.mean_divisors().iterrows()
        ]
        headers = ["Embeddings", "tau", "Present (%)", "log(positives / rows)", "r, present", "r, absent"]
        return page.markdown(page.table([*headers, "Present, share of all r (%)"], rows, "lrrrrrr"))

    def draws(self) -> "Markdown":
        """Mean and noise of the gradient by the way of drawing."""
        rows = [[row["way"], f"{row['noise']:.2f}", f"{row['distance']:.0e}"] for _, row in anatomy.draws().iterrows()]
        headers = ["The kind of positive is drawn", "Noise (SD / length of the mean)"]
        headers += ["Distance from the expected gradient"]
        return page.markdown(page.table(headers, rows, "lrr"))

    def denominator(self) -> "Markdown":
        """Cosines between gradients."""
        rows = [
            [row["state"], row["loss"], f"{row['SupCon']:.2f}", f"{row['InfoNCE']:.2f}"]
            for _, row in anatomy.gradient_cosines().iterrows()
        ]
        return page.markdown(page.table(["Embeddings", "AUNCE", "Cosine with SupCon", "with InfoNCE"], rows, "llrr"))

    def steps(self) -> "Markdown":
        """Figure: how long steps are by exponents, with and without normalised weights."""
        table = anatomy.steps()
        return page.figure(
            self.out,
            "steps",
            figures.steps(table.assign(exponents=[f"{name} {EXPONENTS[name]}" for name in table["exponents"]])),
            table,
            alt="Ratio of the step of a present to that of an absent anchor for four pairs of exponents, with "
            "weights as they are and divided by their mean, at 50 % and 10 % prevalence.",
            caption="Length of the gradient of one anchor's loss by all embeddings, present over absent; `as_read` "
            "and `hcl`, expected over the branches, 40 images, *labels half seen*.",
        )

    def steps_table(self) -> "Markdown":
        """The numbers of `steps`, and what follows from them for the exponents."""
        rows = []
        for _, row in anatomy.steps().iterrows():
            absent, present = EXPONENTS[row["exponents"]]
            rows.append(
                [
                    *(f"{100 * row['prevalence']:.0f}", f"{row['exponents']} ({absent:g}, {present:g})"),
                    f"{TAU / absent:.3f}, {TAU / present:.3f}",
                    "divided" if row["normalised"] else "as they are",
                    *(f"{row[name]:.2f}" for name in ("ratio", "ratio_own")),
                    f"{100 * row['share']:.1f}",
                    f"{row['push_absent']:.2f}, {row['push_present']:.2f}",
                ]
            )
        headers = ["Present (%)", "Exponents (absent, present)", "tau of negatives", "Weights"]
        headers += ["Step, present / absent", "by own embedding", "Share of present (%)", "Repulsion / attraction"]
        ratios = {name: _wide(anatomy.steps(name), "ratio")[False] for name in STATES}
        by_state = [
            [name, *(f"{ratios[name].loc[(rate, pair)]:.2f}" for rate in (0.5, 0.1) for pair in EXPONENTS)]
            for name in STATES
        ]
        columns = [f"{100 * rate:.0f} %, {pair}" for rate in (0.5, 0.1) for pair in EXPONENTS]
        error = max(anatomy.exponent_is_temperature(e) for pair in EXPONENTS.values() for e in pair)
        return page.markdown(
            f"{page.table(headers, rows, 'rlrlrrrr')}\n\n"
            "The same ratio, weights as they are, by how far the labels are seen:\n\n"
            f"{page.table(['Embeddings', *columns], by_state, 'l' + 'r' * len(columns))}\n\n"
            f"- An exponent e is a temperature tau / e for the negatives: log N agrees to {error:.0e}.\n"
            "- Repulsion over attraction is e with weights as they are, and 1 when they are divided by their mean. "
            "What the division removes is the change of the size of a step, which the abstract gives as the purpose; "
            "that similar negatives count more, or less, stays.\n"
            f"- .4 in place of .8 (D4) makes the ratio {_factor(ratios, 'early', 'released')} times as large at 50 %, "
            "from labels not seen to labels separated: whether it strengthens the exponents depends on the "
            "embeddings.\n"
            "- An exponent goes with the label and not with prevalence (D5). In BP4D "
            f"{', '.join(anatomy.frequent_aus())} are present in more than half of the frames (published rates, mean "
            "of three parts), and there the exponents lengthen the steps of the majority.\n"
            "- AU weights (D8) multiply all anchors of an AU alike and leave every ratio here as it is."
        )

    def precision(self) -> "Markdown":
        """Half precision, exponentials first and in log space."""
        table = anatomy.precision().pivot_table(index="tau", columns="dtype", values=["naive", "ours", "exact"])
        names = [(way, dtype) for dtype in ("float16", "bfloat16", "float32") for way in ("naive", "ours")]
        rows = [
            [f"{tau:g}", f"{row[('exact', 'float32')]:.2g}", *(_error(row[name]) for name in names)]
            for tau, row in table.sort_index(ascending=False).iterrows()
        ]
        headers = ["tau", "Loss", *(f"{dtype}, {'exp first' if way == 'naive' else 'here'}" for way, dtype in names)]
        limit = math.log(torch.finfo(torch.float16).max)
        return page.markdown(
            f"{page.table(headers, rows, 'r' * len(headers))}\n\n"
            "Mean branch, error relative to float64; *here* the embeddings are in half precision and the logits in "
            f"float32. The largest power, exp(1.2 / tau) at a cosine of 1, leaves fp16 below tau = {1.2 / limit:.3f}, "
            f"and the exponential itself below {1 / limit:.3f}; the mask then multiplies infinity by 0. *Exp first* is "
            "the formula step by step, written for this page."
        )

    def batches(self) -> "Markdown":
        """Number of positives in a batch."""
        rows = [
            [
                *(f"{100 * row['prevalence']:.0f}", f"{row['images']:.0f}", f"{row['expected']:.1f}"),
                *(_percent(row[name]) for name in ("none", "one")),
            ]
            for _, row in batches.positives().iterrows()
        ]
        headers = ["Present (%)", "Batch", "Images with the AU", "P(none) (%)", "P(one) (%)"]
        return page.markdown(page.table(headers, rows, "rrrrr"))

    def batch_noise(self) -> "Markdown":
        """Figure: loss and gradient noise by batch."""
        table = batches.batch_noise()
        rare = table[table["prevalence"] == table["prevalence"].min()].set_index("images")
        slopes = [
            f"{2 ** np.polyfit(np.log2(rows['images']), np.log2(rows['noise']), 1)[0]:.2f}"
            for _, rows in table.groupby("prevalence", sort=False)
        ]
        return page.figure(
            self.out,
            "batches",
            figures.batches(table),
            table,
            alt="Loss and gradient noise against the batch for a frequent and a rare AU.",
            caption="Released, expected over the branches, 40 random batches each; left with the standard deviation "
            "over batches. Noise: standard deviation of the gradient over the length of its mean; a batch twice as "
            f"large has {' and '.join(slopes)} times as much (frequent and rare AU). The loss grows with the log of "
            "the batch, as negatives are added up and not averaged, so values at different batches do not compare. "
            f"Of the batches of 32 with the rare AU, {100 * rare.loc[32, 'empty']:.0f} % had a gradient of exactly 0.",
        )

    def unknowns(self) -> "Markdown":
        """A batch in which some images are coded 9."""
        rows = [
            [
                *(row["way"], f"{row['loss']:.2f}", f"{row['repelled']:.0f}", f"{row['false']:.0f}"),
                *(f"{100 * row['from_9']:.0f}", f"{row['on_9']:.3g}", f"{row['cosine']:.3f}"),
            ]
            for _, row in batches.unknowns().iterrows()
        ]
        headers = ["4 of 32 images are coded 9; treated as", "Loss", "Pairs that repel", "with equal true labels"]
        headers += ["Repulsion by the 4 (%)", "Gradient of the losses of the 4", "Cosine with the truth"]
        return page.markdown(page.table(headers, rows, "lrrrrrr"))

    def costs(self) -> "Markdown":
        """One training step, AUNCE and BCE."""
        rows = [
            [
                *(row["backbone"], row["method"], f"{row['parameters']:,}", str(row["forward"])),
                *(f"{row['operations'] / 1e9:,.2f}", f"{row['of_loss'] / 1e9:.4f}", f"{row['ratio']:.3f}"),
            ]
            for _, row in costs.all_costs().iterrows()
        ]
        headers = ["Encoder", "Method", "Parameters", "Images through it", "Operations (10⁹)", "Loss or head (10⁹)"]
        return page.markdown(page.table([*headers, "Over BCE, one view"], rows, "llrrrrr"))


def _wide(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table.pivot_table(index=["prevalence", "exponents"], columns="normalised", values=column)


def _each(values: pd.Series, names: Sequence[str], form: str) -> str:
    return " and ".join(f"{format(values[name], form)} ({name})" for name in names)


def _factor(ratios: Mapping[str, pd.Series], pair: str, other: str) -> str:
    return ", ".join(f"{ratio.loc[(0.5, pair)] / ratio.loc[(0.5, other)]:.2f}" for ratio in ratios.values())


def _pair(row: pd.Series, name: str, scale: float = 1, form: str = ".3f") -> str:
    return ", ".join(format(scale * row[f"{name}_{divisor}"], form) for divisor in ("row", "positives"))


def _error(value: float) -> str:
    return f"{value:.0e}" if math.isfinite(value) else "**NaN**" if math.isnan(value) else "**inf**"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if share >= 0.0005 else "< 0.1"
