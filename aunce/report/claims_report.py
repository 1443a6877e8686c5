"""The report of a study with claims, section by section, as Markdown; `decide.Decisions` computes what it says."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from aunce.report import figures, page
from aunce.report.claims import Claim, Discrepancy
from aunce.report.decide import LEAST, Comparison, Decisions, comparisons_of, detectable_among, rises, simultaneous
from aunce.report.findings import Entry, Findings
from aunce.report.scores import estimate_of, estimated
from aunce.report.sections import Column, Report, always, flat_of, in_cells, in_text, mean_of, shown_unless, with_runs
from aunce.statistics import Estimate, Materiality, Verdict, independent_difference, t_interval

NOTHING = "No replicate has finished yet."
NO_CLAIM = "Nothing is decided: no claim or gap names this study as its experiment."

COLUMNS = ("Contrast", "AUC", "95 % interval", "Sign-flip p, adjusted", "Replicates", "Could see", "Verdict")

PLANNED = (16, 32)
"""Replicates of the main study in its CPU and its GPU size."""

NO_PAIR = "No pair of arms has finished two replicates yet."

with_replicates = shown_unless(lambda report: NOTHING if report.empty else "")


class ClaimsReport(Report, Decisions):
    """Sections of a report that decides claims; those of `Report` that ask for one data set are not among them.

    Args:
        tables: folder that `report.collect` has filled.
        pilot: it decides nothing, and shows spreads and no differences.
        options: `out`, see `Report`; `experiment`, see `Decisions`.

    Attributes:
        opening: sentences that a notebook puts before those of the verdicts.
    """

    def __init__(self, tables: str | Path, *, pilot: bool = False, **options: Any) -> None:
        self.pilot = pilot
        self.opening: list[str] = []
        super().__init__(tables, **options)

    def summary(self) -> Findings:
        """The report in one line, with the verdicts unless it is a pilot."""
        return super().summary().model_copy(update={"entries": [] if self.pilot else self._entries()})

    def _found(self) -> str:
        return self._sizes() if self.pilot else " ".join(self._sentences()) or NO_CLAIM

    def _sentences(self) -> list[str]:
        sentences = list(self.opening)
        for claim in self.claims:
            found, why = self.judge(claim)
            because = f", {why}" if why else ""
            worst = self.decisive(claim)
            which = "Its worst contrast" if len(comparisons_of(claim)) > 1 else "Its contrast"
            decided = f" {which} is {self._said(worst)}." if self.estimates[worst].defined else ""
            for more in (*self._remarks(claim, found), self._control(claim)):
                decided += f" {more[0].upper()}{more[1:]}." if more else ""
            sentences.append(f"{claim.id} ({claim.wording.rstrip('.')}): {found}{because}.{decided}")
        if self.discrepancies and self.done:
            judged = {one.id: self.judge(one)[0] for one in self.discrepancies}
            grouped = {found: [name for name, one in judged.items() if one is found] for found in Materiality}
            said = "; ".join(f"{found} ({', '.join(names)})" for found, names in grouped.items() if names)
            sentences.append(f"Gaps: {said}.")
        return sentences

    def _said(self, comparison: Comparison) -> str:
        estimate = self.estimates[comparison]
        return f"{comparison}: {in_text(estimate, '+.3f')} AUC, {page.count(estimate.n, 'replicate')}"

    def _remarks(self, asked: Claim | Discrepancy, found: Verdict | Materiality) -> list[str]:
        """What has to be said beside the decisive comparison."""
        decisive = self.decisive(asked)
        edge = self.edge_p(found, decisive)
        doubt = f"at the edge, as the sign-flip test, adjusted, does not tell it from 0 (p {edge:.3f})" if edge else ""
        return [said for said in (self._others(asked, decisive), self._strict(decisive), doubt) if said]

    def _others(self, asked: Claim | Discrepancy, decisive: Comparison) -> str:
        """The comparisons beside the one that decides, by what each comes to alone; empty without any."""
        said: dict[str, list[str]] = {}
        for comparison in comparisons_of(asked):
            estimate = self.estimates[comparison]
            if comparison != decisive and estimate.defined:
                varied = comparison.better if isinstance(asked, Discrepancy) else comparison.worse
                named = f"{comparison.noise or varied} {in_text(estimate, '+.3f')}"
                said.setdefault(str(self.alone(asked, estimate)), []).append(named)
        return "; ".join(f"beside it {found}: {', '.join(named)}" for found, named in said.items())

    def _strict(self, comparison: Comparison) -> str:
        """What a slope comes to over the AUs in the means alone: looked at after the runs, decides nothing."""
        if comparison.measure != "rarity" or self.empty:
            return ""
        gains = self.gains(comparison)
        kept = gains[self.is_scored(gains)]
        rise = in_text(estimate_of(rises(kept)), "+.3f")
        return f"with the {len(kept)} of {len(gains)} gains alone of AUs that enter the means it would be {rise}"

    def _control(self, claim: Claim) -> str:
        """What the control of a claim says: it should have the other sign, if what is claimed is what works."""
        comparison = self.control(claim)
        if comparison is None or not self.whole:
            return ""
        control = estimate_of(self.sample(comparison))
        if not control.defined:
            return ""
        said = "its sign is not told"
        if control.low > 0 or control.high < 0:
            same = control.value * self.estimates[self.decisive(claim)].value > 0
            said = "the same sign, so that something else is at work" if same else "the other sign, as it should have"
        return f"the control, {comparison.better}, has {in_text(control, '+.3f')}: {said}"

    @always
    def findings(self) -> str:
        """What was asked, the verdicts, and how long the methods were trained."""
        if not self.provenance:
            return ""
        asked = self._asked()
        if self.pilot:
            return f"{asked} {self._sizes()}"
        listed = "\n".join(f"- {page.text(sentence)}" for sentence in self._sentences() or [NO_CLAIM])
        if self.twin is not None:
            name, both = self.twin.folder.name, self._beside_twin(self.twin)
            said = "; ".join(f"{one}: {here} here, {there} there" for one, here, there, _ in both)
            listed += f"\n- **Done twice, on other people**: {said} ([{page.text(name)}](../{quote(name)}/index.html))."
        curves = self._not_flat() if self.done else ""
        started = self.provenance["started"][:10]  # the date
        when = "not after" if not started or self.written.isoformat() <= started else "**AFTER**"
        changed = f"; changed since on {', '.join(self.changed)}, see [the ledger](../claims/index.html#changes-since)"
        return (
            f"{asked}\n\n{listed}\n\n{curves} The claims were written on {self.written.isoformat()}, {when} the day of "
            f"the first run{changed if self.changed else ''} (hash `{self.claims_hash}` as they are today; git has "
            "their history). [How the numbers are computed](../laptop/index.html#how-the-numbers-are-computed)."
        )

    def _sizes(self) -> str:
        """What a pilot found: spreads, never differences."""
        spreads = [float(sample.std(ddof=1)) for sample in self.samples.values() if len(sample) > 1]
        if not spreads:
            return NO_PAIR
        few, many = (detectable_among(max(spreads), n, len(self.samples)) for n in PLANNED)
        return (
            f"Over {page.count(len(self.conditions), 'replicate')} the differences between arms have a standard "
            f"deviation of {min(spreads):.3f} to {max(spreads):.3f} AUC. With the largest, {PLANNED[0]} replicates "
            f"find a true difference of {few:.3f} with a power of 80 %, {PLANNED[1]} one of {many:.3f}; delta is "
            f"{self.delta:g}."
        )

    def _entries(self) -> list[Entry]:
        entries = []
        for asked in self.asked:
            found, why = self.judge(asked)
            decisive, among = self.decisive(asked), len(comparisons_of(asked))
            remarks = self._remarks(asked, found)
            if isinstance(asked, Discrepancy):
                parts, section = [self._said(decisive), *remarks, why], "Gaps"
            else:
                rank = f"worst of {among} contrasts" if among > 1 else "its only contrast"
                parts, section = [why or rank, *remarks, self._control(asked)], "Verdicts"
            entries.append(
                Entry.of(
                    self.estimates[decisive],
                    id=asked.id,
                    verdict=str(found),
                    contrast=str(decisive),
                    detectable=self.detectable(decisive),
                    unit=self.score.upper(),
                    reason="; ".join(filter(None, parts)),
                    section=section,
                )
            )
        return entries

    @always
    def verdicts(self) -> str:
        """Every comparison of every claim, with simultaneous intervals."""
        return f"{self._judged('Claim', self.claims)}{self._breadth()}" if self.claims else NO_CLAIM

    @always
    def discrepancies_table(self) -> str:
        """Every comparison of every discrepancy, with simultaneous intervals over those of this report."""
        worded = "\n".join(f"- {one.id}: {page.text(one.wording)}" for one in self.discrepancies)
        return f"{self._judged('Gap', self.discrepancies)}\n\n{worded}"

    def _judged(self, what: str, asked: Iterable[Claim | Discrepancy]) -> str:
        """One row per comparison; that of the decisive one carries the verdict."""
        rows = []
        for one in asked:
            found, _ = self.judge(one)
            for comparison in comparisons_of(one):
                estimate, sample = self.estimates[comparison], self.samples[comparison]
                flip = self.flip_p[comparison]
                rows.append(
                    [
                        f"{one.id}: **{found}**" if comparison == self.decisive(one) else one.id,
                        page.text(str(comparison)),
                        *in_cells(estimate, "+.3f"),
                        "" if math.isnan(flip) else "below 0.001" if flip < 0.001 else f"{flip:.3f}",
                        str(len(sample)),
                        page.number(self.detectable(comparison)) if len(sample) > 1 else "",
                        str(self.alone(one, estimate)),
                    ]
                )
        return _with_ends(page.table([what, *COLUMNS], rows, "llrlrrrl"))

    def _breadth(self) -> str:
        """How many AUs the means have, where data sets differ in that."""
        if self.empty:
            return ""
        counts = pd.Series({replicate: len(aus) for replicate, aus in self.scored_in.items()})
        ends = counts.groupby(self.conditions["dataset"]).agg(["min", "max"])
        if len(ends) < 2:
            return ""
        spans = [
            f"{few} to {many} on {name}" if few < many else f"{few} on {name}" for name, few, many in ends.itertuples()
        ]
        return f"\n\nEach replicate counts once, however many AUs enter its mean: {page.text(', '.join(spans))}."

    @always
    def afterwards(self, *comparisons: Comparison | tuple[str, ...]) -> str:
        """Comparisons that decide nothing, written down or not before the runs: each with an interval of its own."""
        samples = {comparison: self.sample(comparison) for comparison in (Comparison(*one) for one in comparisons)}
        if not any(map(len, samples.values())):
            return NOTHING
        rows = [
            [page.text(str(comparison)), *in_cells(estimate_of(sample), "+.3f"), str(len(sample))]
            for comparison, sample in samples.items()
        ]
        return page.table(["Contrast", "AUC", "95 % interval", "Replicates"], rows, "lrlr")

    @always
    def instead(self, method: str, other: str) -> str:
        """What each comparison would have come to with `other` in the place of `method`; it decides nothing."""
        swapped = [
            (claim, one._replace(better=other if one.better == method else one.better))
            for claim in self.claims
            for one in comparisons_of(claim)
        ]
        estimates = simultaneous({one: self.sample(one) for _, one in swapped})
        rows = [
            [claim.id, page.text(str(one)), *in_cells(estimates[one], "+.3f"), str(self.alone(claim, estimates[one]))]
            for claim, one in swapped
        ]
        return _with_ends(page.table(["Claim", "Contrast", "AUC", "95 % interval", "Would be"], rows, "llrll"))

    def _beside_twin(self, twin: Decisions) -> list[tuple[str, str, str, Comparison]]:
        """Claims and discrepancies with what they come to here and there, and what decides them here."""
        return [(one.id, str(self.judge(one)[0]), str(twin.judge(one)[0]), self.decisive(one)) for one in self.asked]

    @always
    def again(self) -> str:
        """Each comparison beside the same one of the study's other base seed, and how far the two are apart."""
        twin = self.twin
        if twin is None:
            return "This study was run with one base seed."
        compared = {one: (estimate, twin.estimates[one]) for one, estimate in self.estimates.items()}
        for control in filter(None, map(self.control, self.claims)):
            compared.setdefault(control, (estimate_of(self.sample(control)), estimate_of(twin.sample(control))))
        rows, apart = [], {}
        for comparison, estimates in compared.items():
            samples = [one.sample(comparison).tolist() for one in (self, twin)]
            apart[comparison] = independent_difference(*samples)
            found = [
                f"{in_text(estimate, '+.3f')}, SD {page.number(float(np.std(sample, ddof=1)))}"
                for estimate, sample in zip(estimates, samples, strict=True)
            ]
            both = t_interval(samples[0] + samples[1])
            ends = [in_text(one, "+.3f") for one in (both, apart[comparison])]
            rows.append([page.text(str(comparison)), *found, *ends])
        headers = ["Contrast", "Here", f"In {page.text(twin.folder.name)}", "Both together", "Apart by"]
        listed = "\n".join(
            f"- {name}: {here} here, {there} there{_why_apart(here, there, apart[decisive])}."
            for name, here, there, decisive in self._beside_twin(twin)
        )
        return (
            "Intervals of the two studies are those of their tables; those of both together and of how far they are "
            "apart (Welch) stand alone, and decide nothing. SD is over replicates.\n\n"
            f"{_with_ends(page.table(headers, rows, 'lllll'))}\n\n{listed}"
        )

    @with_replicates
    def by_condition(self) -> str:
        """Each comparison in each condition: a figure, whose intervals are not adjusted and decide nothing."""
        rows = []
        varied = [name for name in self.conditions if len(set(self.conditions[name])) > 1]
        for comparison in [comparison for claim in self.claims for comparison in comparisons_of(claim)]:
            sample, name = self.samples[comparison], {"contrast": str(comparison)}
            rows.append(name | {"condition": "all", "level": "all"} | estimated(sample))
            for condition in map(str, varied):
                for level, values in sample.groupby(self.conditions[condition].reindex(sample.index)):
                    shown = f"noise {self._with_kappa(str(level))}" if condition == "noise" else str(level)
                    rows.append(name | {"condition": condition, "level": shown} | estimated(values))
        table = pd.DataFrame(rows)
        return self._figure(
            "by_condition",
            figures.conditions(table, delta=self.delta),
            table,
            alt="; ".join(spoken(table[table["level"] == "all"], "contrast")),
            caption=(
                "The claims' contrasts in AUC, mean over the replicates of a condition with its 95 % interval, not "
                "adjusted for the number of rows; left of 0 the second arm is ahead. The band counts as nothing."
            ),
        )

    @with_replicates
    def methods_table(self) -> str:
        """Every method by every reading, means over replicates."""
        columns: list[Column] = [
            ("AUC", "auc", {}),
            ("AUC own head", "auc", {"head": "own"}),
            ("AUC kNN", "auc", {"head": "knn"}),
            ("AUC probe in training mode", "auc", {"head": "moving"}),
            ("AUC within subject", "auc_within", {}),
            ("AUC noisy test", "auc", {"labels": "noisy"}),
            ("AUC inner-val. epoch", "auc", {"epoch_rule": "inner_val"}),
            ("AUC best test epoch", "auc", {"epoch_rule": "oracle"}),
            ("F1", "f1", {}),
            ("F1 at 0.5", "f1", {"threshold": "0.5"}),
            ("F1 oracle", "f1", {"threshold": "oracle"}),
        ]
        heads = set(self.macro["head"])
        columns = [column for column in columns if column[2].get("head", "probe") in heads]
        if not self.crossed:
            return self._methods_table(columns, "")
        tables = [f"**{page.text(label)}**\n\n{self._methods_table(columns, at)}" for at, label in self.labels.items()]
        return "\n\n".join(tables)

    def _methods_table(self, columns: Sequence[Column], noise: str) -> str:
        """The table for one condition, or for all together if `noise` is empty."""
        runs = self.finished[self.finished["noise"] == noise] if noise else self.finished
        rows = []
        for method in [*self.methods, *self.bounds]:
            own = runs[runs["arm"] == method]
            if not len(own):
                continue
            values = [self.scores(method, score, noise=noise, **reading) for _, score, reading in columns]
            competes = method in self.methods
            kind = "" if competes else f" ({own['kind'].iloc[0]})"
            flat = flat_of(own["flat"].astype("str")) if competes else ""
            cells = [*in_cells(estimate_of(values[0])), *map(mean_of, values[1:]), flat]
            rows.append([page.text(method) + kind, *cells])
        for name, blind in self.blind("f1", noise).groupby("arm", sort=False)["value"]:
            # the AUC of a score that does not depend on the image is one half
            known = {"AUC": "0.500", "F1": page.number(blind.mean())}
            first, *cells = (known.get(column, "") for column, *_ in columns)
            rows.append([f"{name} (floor)", first, "by definition", *cells, ""])
        headers = ["Arm", "AUC", "95 % interval", *(name for name, *_ in columns[1:]), "Curves flat"]
        return page.table(headers, rows, "l" + "r" * (len(headers) - 1))

    @shown_unless(lambda report: "" if report.done else NOTHING)
    def design(self) -> str:
        """The conditions of each replicate."""
        rows = [
            [
                str(row.Index),
                *(page.text(value) for value in (row.dataset, row.setting, self._with_kappa(row.noise), row.start)),
                ", ".join(f"AU{au}" for au in sorted(self.scored_in[row.Index])) or "none: left out",
            ]
            for row in self.conditions.itertuples()
        ]
        headers = ["Replicate", "Data set", "Setting", "Label noise", "Start", "AUs in the mean"]
        return page.table(headers, rows, "llllll")

    def _with_kappa(self, noises: str) -> str:
        """Noise levels of a replicate by the labels that figures have."""
        return ", ".join(self.labels.get(noise, noise) for noise in noises.split("; "))

    @with_runs
    def flatness(self) -> str:
        """Which curves had flattened; a pilot does not show the curves themselves, whose ends would name a winner."""
        return self._not_flat()

    @always
    def variance(self) -> str:
        """What a pilot is for: the spread of each difference, and what so many replicates would see."""
        counts = (LEAST, *PLANNED, 64, 128)
        rows = []
        for comparison, sample in self.samples.items():
            if len(sample) < 2:
                continue
            deviation = float(sample.std(ddof=1))
            seen = [page.number(detectable_among(deviation, n, self.beside(comparison))) for n in counts]
            rows.append([page.text(str(comparison)), str(len(sample)), page.number(deviation), *seen])
        if not rows:
            return NO_PAIR
        headers = ["Contrast", "Replicates", "SD of the difference", *(f"seen by {n}" for n in counts)]
        return page.table(headers, rows, "l" + "r" * (len(headers) - 1))


def spoken(table: pd.DataFrame, name: str) -> list[str]:
    """The rows of a table of estimates, each named by a column, for the alternative text of a figure."""
    return [
        f"{getattr(row, name)} {row.estimate:+.3f} ({row.low:+.3f} to {row.high:+.3f})" for row in table.itertuples()
    ]


def _why_apart(here: str, there: str, apart: Estimate) -> str:
    """What the difference of two studies says of verdicts that differ."""
    if here == there or not apart.defined:
        return ""
    if apart.low <= 0 <= apart.high:
        return "; the two values of its decisive contrast are not told apart"
    return "; the two values of its decisive contrast are apart by more than their intervals allow for"


def _with_ends(drawn: str) -> str:
    """A table, and below it what an interval that ends next to 0 means, where one does."""
    if not re.search("just (above|below) 0", drawn):
        return drawn
    return (
        f"{drawn}\n\n*Just above 0* and *just below 0*: Holm's test leaves 0 out, but an interval that holds for all "
        "rows at once can say no more than that."
    )
