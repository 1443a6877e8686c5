"""The audit page: what the published numbers say by themselves.

The numbers are those of `aunce.analyses.published`. What was read in released code stands in `notebooks/facts/`.
"""

import itertools
import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from aunce import literature
from aunce.analyses import published
from aunce.analyses.published import DATASETS, MEAN, OTHER_ORDERS, POOLED, WAYS
from aunce.report import page
from aunce.report.findings import Entry, Findings
from aunce.report.findings import write as write_findings
from aunce.study.grid import NOTEBOOKS

if TYPE_CHECKING:
    from IPython.display import Markdown

AVERAGED, TESTED_ON, IN_CODE = "One number, seven ways", "Confusion matrices from the logs", "Gaps in the released code"
CHOSEN_ON = "Where others choose"
"""Headings of the page below which the evidence for gaps stands."""

BEST, SCORED, HELD_OUT = "the best on the test part", "each is scored on the test part", "there is a validation set"
"""Rules by which released code chooses an epoch, as the facts word them."""


def released_code() -> dict[str, Any]:
    """What was read in released code: statuses, tested, lacks, gaps, chosen and undecidable, see the file."""
    return tomllib.loads((NOTEBOOKS / "facts" / "released_code.toml").read_text(encoding="utf-8"))


class Audit:
    """What the audit notebook shows, section by section.

    Args:
        out: folder that gets the figures and their data; empty: they are displayed, nothing is saved.
    """

    def __init__(self, *, out: str | Path = "") -> None:
        self.out = Path(out) if str(out) else None
        self.facts = released_code()

    @cached_property
    def cells(self) -> pd.DataFrame:
        """`recovered` of both data sets: one row per part and AU."""
        return pd.concat([published.recovered(dataset) for dataset in DATASETS], ignore_index=True)

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """`averages` of both data sets, by data set and way."""
        return pd.concat([published.averages(dataset) for dataset in DATASETS]).set_index(["dataset", "way"])

    def title(self) -> "Markdown":
        """Heading and sources; writes the findings for the ledger and the index."""
        about = Findings(
            title="Audit of the published numbers",
            question="What do the published numbers say about themselves?",
            found=self._averaging(),
            kind="published numbers",
            entries=self.entries(),
        )
        write_findings(self.out, about)
        return page.markdown(
            "# Audit of the published numbers\n\n"
            "No model was trained and no data set read: AUNCE's fold logs, the sizes and positive rates of the parts, "
            "and printed tables are enough. A number that is consistent is not thereby reproduced."
        )

    def entries(self) -> list[Entry]:
        """Verdicts on the gaps: computed where there are numbers, else as read in the released code."""
        read = [
            Entry(
                id=gap,
                verdict="holds",
                reason=f"Read in the released code at commit bade385 and its history: {found['what']}.",
                section=IN_CODE,
            )
            for gap, found in self.facts["gaps"].items()
        ]
        others = [self._way_of_averaging(), self._numbering(), self._choosing()]
        return sorted([*others, *read], key=lambda entry: int(entry.id[1:]))

    def _way_of_averaging(self) -> Entry:
        holds, said = True, []
        for dataset in DATASETS:
            printed = float(published.compared(dataset).loc["AUNCE", "mean"])
            mean, together = self._mean_and_pooled(dataset)
            # 0.05 for the printed decimal, 0.005 for those of the logs
            holds &= abs(printed - mean) <= 0.055 < abs(printed - together)
            said.append(
                f"{printed:.1f} is printed for {dataset}, where the mean of folds is {mean:.2f} and the pooled score "
                f"{together:.2f}"
            )
        return Entry(id="D14", verdict=_holds(holds), reason=f"Computed: {'; '.join(said)}.", section=AVERAGED)

    def _numbering(self) -> Entry:
        holds, said = True, []
        for dataset in DATASETS:
            possible = _possible(dataset)
            holds &= bool(len(possible)) and all(one.split(", ")[0] == "3" for one in possible)
            said.append(f"{dataset}'s folds 1, 2, 3 can only be parts {' or '.join(f'({one})' for one in possible)}")
        return Entry(
            id="D15",
            verdict=_holds(holds),
            reason=f"Computed from the logs: {'; '.join(said)}; the README calls part 1 Fold1.",
            section=TESTED_ON,
        )

    def _choosing(self) -> Entry:
        rows = self.facts["chosen"]
        best, scored, held_out = ([row for row in rows if row["epoch"] == rule] for rule in (BEST, SCORED, HELD_OUT))
        thresholds = [_method(row) for row in rows if "on the test part" in row["threshold"]]
        return Entry(
            id="D13",
            verdict=_holds(len(best) > len(held_out) and bool(thresholds)),
            reason=f"Read in the released code of {len(rows)} others: the epoch that is best on the test part is "
            f"kept or named in {len(best)} ({', '.join(map(_method, best))}), with the best of 99 thresholds there in "
            f"{', '.join(thresholds)}; {len(scored)} score each epoch there and name no rule, {len(held_out)} has a "
            "validation set. Which of these scores was printed is unverified.",
            section=CHOSEN_ON,
        )

    def findings(self) -> "Markdown":
        """The findings, each with its numbers."""
        lines = {
            "Averaging": self._averaging(),
            "Floors": self._floors(),
            "Prevalence": self._prevalence(),
            "Folds": self._folds(),
            "Rankings": self._rankings(),
            "Printed means": self._means(),
            "Frames": self._frames(),
        }
        return page.markdown("\n".join(f"- **{name}.** {line}" for name, line in lines.items()))

    def _mean_and_pooled(self, dataset: str) -> tuple[float, float]:
        """AUNCE's F1 in percent as the mean of folds and pooled over them."""
        mean, together = (float(self.numbers.loc[(dataset, way), "aunce"]) for way in (MEAN, POOLED))
        return mean, together

    def _averaging(self) -> str:
        said = []
        for dataset in DATASETS:
            mean, together = self._mean_and_pooled(dataset)
            rival = published.rivals(dataset).iloc[0]
            said.append(
                f"{dataset} is {mean:.2f} as mean of folds and {together:.2f} pooled, a change of "
                f"{_signed(together - mean, 2)}, where the printed margin over {rival['method']} is "
                f"{rival['margin']:.1f}"
            )
        folds = [literature.fold_logs(dataset).groupby("fold")["f1"].mean().std() for dataset in DATASETS]
        spread = " and ".join(f"{sd:.1f} on {dataset}" for dataset, sd in zip(DATASETS, folds, strict=True))
        return (
            f"With the same predictions, {'; '.join(said)}. The other methods' pooled numbers are unknown. The three "
            f"folds differ by a standard deviation of {spread}."
        )

    def _floors(self) -> str:
        said = []
        for dataset, cells in self.cells.groupby("dataset", sort=False):
            below = int((cells["printed_f1"] < 100 * cells["f1_always"]).sum())
            idle = int((cells["printed_accuracy"] < 100 * cells["accuracy_constant"]).sum())
            said.append(
                f"{dataset}: always positive scores {self.numbers.loc[(dataset, MEAN), 'always']:.1f}; of {len(cells)} "
                f"pairs of part and AU, AUNCE's F1 is below that floor in {below} and its accuracy below that of the "
                f"more frequent label in {idle}"
            )
        return "; ".join(said) + "."

    def _prevalence(self) -> str:
        said = []
        for dataset, cells in self.cells.groupby("dataset", sort=False):
            f1, kappa = (stats.spearmanr(cells["prevalence"], cells[name]).statistic for name in ("f1", "kappa"))
            said.append(f"{page.number(f1, '.2f')} with F1 and {page.number(kappa, '.2f')} with kappa on {dataset}")
        return f"Rank correlation of a part's positive rate with its score, over parts and AUs: {', '.join(said)}."

    def _folds(self) -> str:
        said = [f"{one} on parts {' or '.join(f'({parts})' for parts in _possible(one))}" for one in DATASETS]
        return (
            f"By arithmetic alone, folds 1, 2, 3 were tested: {'; '.join(said)}. Fold 1 is part 3 on both, as the "
            "released lists have it, and not part 1, as the README's numbering suggests."
        )

    def _rankings(self) -> str:
        said = []
        for dataset in DATASETS:
            table = published.rivals(dataset)
            fallen = table.loc[~_survives(table), "method"].tolist()
            names = f", not over {', '.join(fallen)}" if fallen else ""
            said.append(f"{len(table) - len(fallen)} of {len(table)} methods on {dataset}{names}")
        return (
            "AUNCE's lead survives the median, the geometric mean, the mean rank, the gain over always positive and "
            f"leaving out any one AU over {'; '.join(said)}."
        )

    def _means(self) -> str:
        checked = published.reaveraged()
        off = [f"{row.method} on {row.dataset}" for row in checked[checked["off"]].itertuples()]
        return (
            f"{len(off)} of {len(checked)} printed rows have a mean that rounding cannot explain ({', '.join(off)}); "
            "AUNCE's own is not among them."
        )

    def _frames(self) -> str:
        said = []
        for dataset in DATASETS:
            table = published.dropped(dataset, "JAA-Net")
            ends = " to ".join(f"{table[end].mean():.1f}" for end in ("low", "high"))
            said.append(f"the {table['dropped'].sum():,} frames it leaves out of {dataset} bound it to {ends} only")
        return (
            "Papers with the same people test on different frames. What AUNCE would score on JAA-Net's frames is not "
            f"known: {'; '.join(said)}."
        )

    def means(self) -> "Markdown":
        """Rows whose printed mean is not that of their AUs, and the tables that were checked."""
        checked = published.reaveraged()
        off = [
            [
                row.dataset,
                page.text(row.method),
                # at odds with its AUs: not verified, whoever printed it
                _marked(row.printed, "unverified" if row.status == "verified" else row.status),
                *(f"{row.mean:.2f}", _signed(row.difference, 2), f"{row.allowed:.2f}"),
            ]
            for row in checked[checked["off"]].itertuples()
        ]
        of_table = checked.groupby(["dataset", "protocol", "status"], sort=False)["off"].agg(["size", "sum"])
        sources = [[page.text(cell) for cell in row] for row in of_table.reset_index().itertuples(index=False)]
        headers = ["Data set", "Method", "Printed", "Mean of its AUs", "Difference", "Rounding explains"]
        noted = literature.results()
        noted = noted[(noted["au"] == "mean") & noted["source"].str.contains("as printed, its AUs average")]
        known = set(zip(checked["dataset"], checked["method"], strict=True))
        others = [
            [row.dataset, page.text(row.method), _marked(row.f1, row.status), page.text(row.source)]
            for row in noted.itertuples()
            if (row.dataset, row.method) not in known
        ]
        return page.markdown(
            f"{page.table(headers, off, 'llrrrr')}\n\n"
            "Both rows of EAC-Net stand in ME-GraphAU's README (at dda53cb) with the same cells and means: the slip is "
            "older than AUNCE's table.\n\n"
            "Noted when other tables were copied; their AUs are not kept here, so that this was not computed again:\n\n"
            f"{page.table(['Data set', 'Method', 'Printed', 'Note'], others, 'llrl')}\n\n"
            "All rows that print their AUs:\n\n"
            f"{page.table(['Data set', 'Table', 'Status', 'Rows', 'Off'], sources, 'lllrr')}\n\n"
            f"{page.text(literature.LEGEND)}"
        )

    def sources(self) -> "Markdown":
        """Where two sources, or a table and its logs, print different numbers."""
        cells = [
            [row.dataset, f"AU{row.au}", f"{row.logs:.2f}", f"{row.printed:.1f}"]
            for row in published.misprinted().itertuples()
        ]
        other = [
            [
                *(row.dataset, row.method, f"{row.readme:.1f}"),
                *(_marked(row.elsewhere, row.status), page.text(row.source)),
            ]
            for row in published.differing().itertuples()
        ]
        return page.markdown(
            "Cells of AUNCE's own row that are not the rounded mean of its fold logs:\n\n"
            f"{page.table(['Data set', 'AU', 'Mean of the logs', 'Printed'], cells, 'llrr')}\n\n"
            "Means of other methods that AUNCE's README and another source print differently, on the same data set "
            "and people. Both of ME-GraphAU's on DISFA stand in its own README (at dda53cb): 63.1 with ResNet-50, 62.4 "
            "with Swin-B.\n\n"
            f"{page.table(['Data set', 'Method', 'README', 'Elsewhere', 'Where'], other, 'llrrl')}"
        )

    def assignments(self) -> "Markdown":
        """Which fold can have been tested on which part."""
        rows = []
        for dataset in DATASETS:
            for row in published.assignments(dataset).itertuples():
                if row.impossible:
                    shown = ["impossible", str(row.impossible), f"{row.where}: {_signed(row.worst, 0)} frames", ""]
                else:
                    shown = ["possible", "0", "", f"{row.pooled:.2f}"]
                rows.append([dataset, row.assignment, *shown])
        headers = ["Data set", "Folds 1, 2, 3 on parts", "Fits", "Numbers without a matrix", "Worst count", "Pooled F1"]
        return page.markdown(page.table(headers, rows, "lllrlr"))

    def pooled(self) -> "Markdown":
        """The recovered matrices added up over parts, one row per AU."""
        rows = []
        for dataset in DATASETS:
            for row in published.pooled(dataset).itertuples():
                counts = (f"{value:,.0f}" for value in (row.tp, row.fp, row.fn, row.tn))
                others = (row.kappa, row.balanced_accuracy, row.f1_always)
                rows.append(
                    [
                        *(dataset, f"AU{row.au}", *counts, f"{100 * row.mean_f1:.2f}"),
                        f"{100 * row.f1:.2f} ({100 * row.f1_low:.2f} to {100 * row.f1_high:.2f})",
                        *(page.number(100 * value, ".1f") for value in others),
                    ]
                )
        headers = ["Data set", "AU", "TP", "FP", "FN", "TN", "Mean of folds", "Pooled (range)"]
        headers += ["Kappa", "Balanced accuracy", "Always positive"]
        return page.markdown(page.table(headers, rows, "ll" + "r" * 9))

    def ways(self) -> "Markdown":
        """Figure: AUNCE's number by each way of averaging, beside the best other method's printed mean."""
        from aunce.report import figures

        table = self.numbers.reset_index()
        best = {dataset: published.rivals(dataset).iloc[0] for dataset in DATASETS}
        table = table.assign(
            other=[best[dataset]["method"] for dataset in table["dataset"]],
            printed=[best[dataset]["printed"] for dataset in table["dataset"]],
        )
        return page.figure(
            self.out,
            "ways",
            figures.averaging(table),
            table,
            alt="AUNCE's F1 on BP4D and DISFA by seven ways of averaging the same predictions, with a line at the "
            "printed mean of the next method.",
            caption="The same predictions, averaged in different ways. Dashed: the printed mean of the best other "
            "method in AUNCE's README; what it would be by the other ways is unknown.",
        )

    def ways_table(self) -> "Markdown":
        """The numbers of `ways`, with those of always positive."""
        columns = list(itertools.product(DATASETS, ("aunce", "always")))
        rows = [[way, *(f"{self.numbers.loc[(d, way), name]:.2f}" for d, name in columns)] for way in WAYS]
        headers = ["Way", *(f"{d}: {'AUNCE' if name == 'aunce' else 'always positive'}" for d, name in columns)]
        return page.markdown(page.table(headers, rows, "lrrrr"))

    def prevalence(self) -> "Markdown":
        """Figure: F1 and kappa against prevalence. Its data are the recovered matrices of all parts and AUs."""
        from aunce.report import figures

        wide = self.cells.assign(zero=0.0).sort_values("part", kind="stable")
        shown = pd.concat(
            [
                wide[["dataset", "part", "au", "prevalence"]].assign(score=score, value=wide[name], floor=wide[floor])
                for score, name, floor in (("F1", "f1", "f1_always"), ("Cohen's kappa", "kappa", "zero"))
            ]
        )
        return page.figure(
            self.out,
            "prevalence",
            figures.against_prevalence(shown),
            self.cells,
            alt="AUNCE's F1 and Cohen's kappa against the positive rate, one point per part and action unit, with the "
            "line of always positive.",
            caption="AUNCE by part and action unit. Grey line: calling every frame positive. F1 rises with prevalence "
            "as that line does; kappa takes chance agreement out. The data are all recovered matrices.",
        )

    def below(self) -> "Markdown":
        """Parts and AUs where a constant answer does better."""
        rows = []
        for row in self.cells.itertuples():
            f1, accuracy = 100 * row.f1_always, 100 * row.accuracy_constant
            if row.printed_f1 < f1 or row.printed_accuracy < accuracy:
                rows.append(
                    [
                        *(row.dataset, row.part, f"AU{row.au}", f"{100 * row.prevalence:.1f}"),
                        *(_against(row.printed_f1, f1), _against(row.printed_accuracy, accuracy)),
                        f"{100 * row.kappa:.1f}",
                    ]
                )
        headers = ["Data set", "Part", "AU", "Positive (%)"]
        headers += ["F1, always positive", "Accuracy, more frequent label", "Kappa"]
        return page.markdown(page.table(headers, rows, "lllrrrr"))

    def survival(self) -> "Markdown":
        """How many pairs of methods keep their order."""
        columns = [*OTHER_ORDERS, "one AU less", "all"]
        rows = [
            [
                page.text(f"{row['dataset']}, {row['protocol']}"),
                *(row["status"], str(row["methods"]), str(row["pairs"])),
                *("" if np.isnan(row[name]) else f"{100 * row[name]:.0f}" for name in columns),
                row["winners"],
            ]
            for _, row in published.survival().iterrows()
        ]
        headers = ["Table", "Status", "Methods", "Pairs", *(name.capitalize() for name in OTHER_ORDERS)]
        headers += ["Without any one AU", "All of these", "First by some way"]
        return page.markdown(page.table(headers, rows, "llrr" + "r" * len(columns) + "l"))

    def rivals(self) -> "Markdown":
        """AUNCE against the methods that its README compared it with and that come within 3 points."""
        rows = []
        for dataset in DATASETS:
            table = published.rivals(dataset)
            near = table.assign(survives=_survives(table))[table["margin"] <= 3]
            for _, row in near.iterrows():
                rows.append(
                    [
                        *(dataset, row["method"], f"{row['margin']:.1f}", f"{row['ahead']} of {row['aus']}"),
                        *("ahead" if row[name] else "behind" for name in (*OTHER_ORDERS, "one_au_less")),
                        *("yes" if row[name] else "no" for name in ("survives", "way_moves")),
                    ]
                )
        headers = ["Data set", "Method", "Printed margin", "AUs ahead", *(name.capitalize() for name in OTHER_ORDERS)]
        headers += ["Without any one AU", "Lead survives", "Margin below what pooling moves AUNCE by"]
        return page.markdown(page.table(headers, rows, "llrr" + "l" * (len(OTHER_ORDERS) + 3)))

    def tested(self) -> "Markdown":
        """Which frames each released protocol tests on."""
        rows = []
        for row in self.facts["tested"]:
            parts = [f"{frames:,}" for frames in row["parts"]] if "parts" in row else ["", "", ""]
            rows.append([row["dataset"], row["whose"], *parts, row["total"], row["rule"], row["status"]])
        headers = ["Data set", "Whose", "Part 1", "Part 2", "Part 3", "All", "Which frames", "Status"]
        return page.markdown(f"{page.table(headers, rows, 'llrrrrll')}\n\n{self._statuses('tested')}")

    def dropped(self) -> "Markdown":
        """How far AUNCE's score could move on another list."""
        rows = [
            [
                *(dataset, whose, row.part, f"{row.dropped:,}", f"{100 * row.share:.2f}"),
                *(f"{row.f1:.1f}", f"{row.low:.1f} to {row.high:.1f}"),
            ]
            for dataset, whose in itertools.product(DATASETS, ("JAA-Net", "AU-Net"))
            for row in published.dropped(dataset, whose).itertuples()
        ]
        headers = ["Data set", "List", "Part", "Frames less", "Share (%)", "AUNCE's F1", "On that list between"]
        return page.markdown(page.table(headers, rows, "lllrrrr"))

    def lacks(self) -> "Markdown":
        """What the released code lacks."""
        return self._facts("lacks", ["Missing", "Where", "What follows", "Status"])

    def gaps(self) -> "Markdown":
        """Gaps of the ledger that were read in the code."""
        rows = [[gap, found["what"], found["where"]] for gap, found in self.facts["gaps"].items()]
        return page.markdown(page.table(["Gap", "What stands there", "Where"], rows, "lll"))

    def chosen(self) -> "Markdown":
        """On which part others choose epochs and thresholds."""
        return self._facts("chosen", ["Repository", "Where", "Epoch", "Threshold", "Status"])

    def undecidable(self) -> "Markdown":
        """Statements that cannot be decided here, and why."""
        rows = [[row["statement"], f"undecidable here: {row['why']}", row["note"]] for row in self.facts["undecidable"]]
        return page.markdown(page.table(["Statement", "Verdict", "Note"], rows, "lll"))

    def _facts(self, name: str, headers: list[str]) -> "Markdown":
        """A table of the facts, and the meaning of its statuses."""
        rows = [list(row.values()) for row in self.facts[name]]
        return page.markdown(f"{page.table(headers, rows, 'l' * len(headers))}\n\n{self._statuses(name)}")

    def _statuses(self, name: str) -> str:
        used = {row["status"] for row in self.facts[name]}
        return " ".join(f"*{one}*: {meaning}." for one, meaning in self.facts["statuses"].items() if one in used)


def _possible(dataset: str) -> list[str]:
    """The assignments of folds to parts that have a confusion matrix for every printed number."""
    table = published.assignments(dataset)
    return [str(parts) for parts in table.loc[table["impossible"] == 0, "assignment"]]


def _method(row: dict[str, str]) -> str:
    """The name of the method, without owner and commit of its repository."""
    return row["repository"].split(" at ")[0].split("/")[1]


def _holds(found: bool) -> str:
    return "holds" if found else "does not hold"


def _survives(table: pd.DataFrame) -> pd.Series:
    """Rows of `rivals` in which AUNCE leads by every way."""
    return table[[*OTHER_ORDERS, "one_au_less"]].all(axis=1)


def _marked(f1: float, status: str) -> str:
    return page.text(literature.marked(f1, status))


def _signed(value: float, decimals: int) -> str:
    return page.number(value, f"+,.{decimals}f")


def _against(value: float, constant: float) -> str:
    """A score beside that of a constant answer, bold where it is below."""
    text = f"{value:.1f}, {constant:.1f}"
    return f"**{text}**" if value < constant else text
