"""Reports that decide claims: the contrasts of `notebooks/claims.toml` on the runs of one study.

A replicate is one population of rendered faces with its deal, noise and initialisation. In these studies each replicate
also has conditions of its own (data set, setting of the renderer, label noise, start of the encoder), in equal shares:
the mean over replicates is a mean over conditions, and the interval holds the conditions' differences too.
"""

import itertools
import json
import math
import re
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from aunce.data.render.writing import OFTEN, RARE
from aunce.errors import UsageError
from aunce.report import page
from aunce.report.claims import Claim, Discrepancy, load_claims
from aunce.report.collect import PRIMARY
from aunce.report.findings import Entry, Findings
from aunce.report.sections import Report, in_cells, in_text
from aunce.statistics import (
    Estimate,
    Materiality,
    Verdict,
    detectable_difference,
    holm_intervals,
    holm_p,
    independent_difference,
    sign_flip_p,
    t_interval,
    verdict,
    weight,
)
from aunce.study.grid import without_size

if TYPE_CHECKING:
    from IPython.display import Markdown

LEAST = 8
"""Replicates without which nothing is decided: as many as the pilot had."""

NOTHING = "No replicate has finished yet."

COLUMNS = ("Contrast", "AUC", "95 % interval", "Sign-flip p, adjusted", "Replicates", "Could see", "Verdict")

PLANNED = (16, 32)
"""Replicates of the main study in its CPU and its GPU size."""

CONDITIONS = ("noise", "setting", "dataset", "start")

FEWEST = 10
"""Positive test frames without which an AU has no part in a slope on prevalence."""


class Contrast(NamedTuple):
    """Two arms and what is measured of them in each replicate, in AUC.

    * `difference`: macro-AUC of `better` minus that of `worse`.
    * `rarity`: with the difference of every AU, and a straight line through them against prevalence, its height at a
      prevalence of 2 % minus that at 50 %: above 0, the rare gain more.
    * `noise`: the difference at the label noise `noise` minus that in the first condition of the study, which is
      without noise: what the first arm gains by noise.
    """

    better: str
    worse: str
    measure: str = "difference"
    noise: str = ""

    def __str__(self) -> str:
        pair = f"{self.better} minus {self.worse}"
        if self.measure == "rarity":
            return f"{pair}, at 2 % more than at 50 %"
        if self.measure == "noise":
            return f"{pair}, with {self.noise} more than without noise"
        return pair


class Comparison(Report):
    """Sections of a report that decides claims; those of `Report` that ask for one data set are not among them.

    Args:
        tables: folder that `report.collect` has filled.
        out: see `Report`.
        experiment: whose claims it decides, the name of the study.
        pilot: it decides nothing, and shows spreads and no differences.
    """

    def __init__(
        self, tables: str | Path, *, out: str | Path = "", experiment: str = "main", pilot: bool = False
    ) -> None:
        claims, self.claims_hash = load_claims()
        self.written, self.delta, self.score = claims.written, claims.delta, claims.score
        self.changed = list(dict.fromkeys(change.date.isoformat() for change in claims.change))
        self.pilot = pilot
        self.claims = [claim for claim in claims.claim if claim.experiment == experiment]
        self.gaps = [gap for gap in claims.gap if gap.experiment == experiment]
        super().__init__(tables, out=out)
        # Claims and gaps are two families: what is asked beside the claims does not widen their intervals.
        self.samples: dict[Contrast, pd.Series[float]] = {}
        self.estimates: dict[Contrast, Estimate] = {}
        self.families: list[list[Contrast]] = []
        for asked in (self.claims, self.gaps):
            family = {contrast: self.sample(contrast) for one in asked for contrast in _contrasts(one)}
            family = {contrast: sample for contrast, sample in family.items() if contrast not in self.samples}
            estimates = holm_intervals([sample.tolist() for sample in family.values()])
            self.samples |= family
            self.estimates |= dict(zip(family, estimates, strict=True))
            self.families.append(list(family))

    @cached_property
    def flip_p(self) -> dict[Contrast, float]:
        """Sign-flip p values, adjusted by Holm within each family."""
        adjusted: dict[Contrast, float] = {}
        for family in self.families:
            values = holm_p([sign_flip_p(self.samples[contrast].tolist()) for contrast in family])
            adjusted |= dict(zip(family, values, strict=True))
        return adjusted

    def _beside(self, contrast: Contrast) -> int:
        """How many contrasts its family has."""
        return next(len(family) for family in self.families if contrast in family)

    def _score(self) -> None:
        finished = self.runs[self.runs["status"] == "done"]
        self.entering_of: dict[int, set[int]] = {}
        rows: dict[int, dict[str, str]] = {}
        noises: dict[int, list[str]] = {}
        for run in finished.itertuples():
            facts, spec = json.loads(str(run.data)), json.loads(str(run.spec))
            entering = set(facts["entering_aus"])
            self.entering_of[int(run.replicate)] = self.entering_of.get(int(run.replicate), entering) & entering
            tested = spec.get("test_dataset")
            conditions = {
                "setting": str((facts.get("synthetic") or {}).get("setting", "")),
                "dataset": f"{facts['dataset']} to {tested}" if tested else str(facts["dataset"]),
                "start": "pretext" if spec["pretext"] else "random weights",
            }
            if run.noise not in noises.setdefault(int(run.replicate), []):
                noises[int(run.replicate)].append(str(run.noise))
            if rows.setdefault(int(run.replicate), conditions) != conditions:
                raise UsageError(
                    f"replicate {run.replicate} stands in two conditions, and no pair of its runs would be one; give "
                    "each condition replicates of its own"
                )
        self.crossed = any(len(levels) > 1 for levels in noises.values())
        self.first = str(self.runs["noise"].iloc[0])  # of the study, whether or not its runs have ended well
        rows = {replicate: {"noise": "; ".join(noises[replicate])} | row for replicate, row in rows.items()}
        self.conditions = pd.DataFrame.from_dict(rows, orient="index").sort_index()
        super()._score()

    @property
    def empty(self) -> bool:
        """True as long as no replicate has finished in every arm."""
        return not self.done or not len(self.macro)

    def _entering(self, replicate: int) -> Collection[int]:
        return self.entering_of[replicate]

    def _enters(self, table: pd.DataFrame) -> "pd.Series[bool]":
        """Data set and test subjects of each replicate decide which AUs enter."""
        pairs = zip(table["replicate"], table["au"], strict=True)
        return pd.Series([au in self._entering(replicate) for replicate, au in pairs], table.index, dtype=bool)

    def scores(self, arm: str, score: str = "auc", *, noise: str = "", **reading: str) -> pd.Series:
        """A macro score per replicate, the primary reading unless told otherwise.

        Where replicates have several conditions each, the first of the study is meant, unless `noise` names another.
        """
        if self.empty:
            return pd.Series(dtype="float64")
        levels = [self.first] if self.crossed else list(self.labels)
        parts = [self._values(arm, level, score, **reading) for level in ([noise] if noise else levels)]
        return pd.concat(parts).sort_index()

    def sample(self, contrast: Contrast) -> "pd.Series[float]":
        """What a contrast is in each replicate that both arms have, see `Contrast`."""
        if self.empty:
            return pd.Series(dtype="float64")
        better, worse, measure, noise = contrast
        if measure == "rarity":
            return rises(self.gains(contrast))
        difference = self._paired(better, worse, noise)
        if measure == "noise":
            if not self.first.startswith("none"):
                raise UsageError(f"{contrast}: the study's first condition, '{self.first}', is not without noise")
            without = self._paired(better, worse, "")
            shared = difference.index.intersection(without.index)
            difference = difference[shared] - without[shared]
        return difference

    def _paired(self, better: str, worse: str, noise: str) -> "pd.Series[float]":
        one, other = (self.scores(arm, self.score, noise=noise) for arm in (better, worse))
        shared = one.index.intersection(other.index)
        return one[shared] - other[shared]

    def gains(self, contrast: Contrast) -> pd.DataFrame:
        """The difference of two arms AU by AU: columns replicate, au, prevalence (of the test) and gain.

        AUs with fewer than `FEWEST` positive test frames, and the null AU, are left out.
        """
        place = ["replicate", "au"]
        primary = (self.per_au[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1) & (self.per_au["score"] == self.score)
        values = self.per_au[primary & ~self.per_au["au"].isin(self.null_aus)]
        one, other = (
            values[values["arm"] == arm].set_index(place)["value"] for arm in (contrast.better, contrast.worse)
        )
        counts = self.counts[(self.counts[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1)]
        counts = counts[counts["arm"] == contrast.better].drop_duplicates([*place, "part", "subject"])
        frames = counts.assign(positive=counts["tp"] + counts["fn"]).assign(
            frames=lambda table: table["positive"] + table["fp"] + table["tn"]
        )
        frames = frames.groupby(place)[["positive", "frames"]].sum()
        table = pd.DataFrame({"gain": one - other}).join(frames, how="inner")
        table["prevalence"] = table["positive"] / table["frames"]
        return table[table["positive"] >= FEWEST].dropna().reset_index()[[*place, "prevalence", "gain"]]

    @property
    def whole(self) -> bool:
        """True if no run is still to come; a failed one has dropped its replicate."""
        return self.done and not self.runs["status"].isin(["missing", "running"]).any()

    def decide(self, claim: Claim) -> tuple[Verdict, str]:
        """Verdict of a claim, and why where the interval of its worst contrast is not the whole reason.

        Nothing is decided before all runs of the study have ended, as whoever looks earlier could stop when it suits;
        nor if the deciding contrast has another sign in one of the renderer's settings.
        """
        contrasts = _contrasts(claim)
        estimates = [self.estimates[contrast] for contrast in contrasts]
        if not self.whole:
            return Verdict.UNDECIDED, "runs are still to come"
        found = verdict(estimates, delta=self.delta, runs=LEAST)
        if found is Verdict.UNDECIDED:
            return found, self._too_few(contrasts)
        deciding = contrasts if found is Verdict.SUPPORTED else [self.worst(claim)]
        turned = next(filter(None, map(self._turns, deciding)), "")
        return (Verdict.UNDECIDED, turned) if turned else (found, "")

    def judge_discrepancy(self, gap: Discrepancy) -> tuple[Materiality, str]:
        """Whether a gap matters, and why where the interval is not the whole reason; the rules of `decide` hold."""
        contrasts = _contrasts(gap)
        if not self.whole:
            return Materiality.UNDECIDED, "runs are still to come"
        found = weight([self.estimates[contrast] for contrast in contrasts], delta=self.delta, runs=LEAST)
        if found is Materiality.UNDECIDED:
            return found, self._too_few(contrasts)
        turned = self._turns(self.strongest(gap)) if found is Materiality.MATTERS else ""
        return (Materiality.UNDECIDED, turned) if turned else (found, "")

    def _alone(self, asked: Claim | Discrepancy, contrast: Contrast) -> Verdict | Materiality:
        """What one contrast of a claim or gap comes to by itself."""
        rule = weight if isinstance(asked, Discrepancy) else verdict
        return rule([self.estimates[contrast]] if self.whole else [], delta=self.delta, runs=LEAST)

    def _others(self, asked: Claim | Discrepancy, deciding: Contrast) -> str:
        """The contrasts beside the one that decides, by what each comes to alone; empty without any."""
        said: dict[str, list[str]] = {}
        for contrast in _contrasts(asked):
            if contrast != deciding and self.estimates[contrast].defined:
                varied = contrast.noise or (contrast.better if isinstance(asked, Discrepancy) else contrast.worse)
                value = in_text(self.estimates[contrast], "+.3f")
                said.setdefault(str(self._alone(asked, contrast)), []).append(f"{varied} {value}")
        return "; ".join(f"beside it {found}: {', '.join(named)}" for found, named in said.items())

    def _strict(self, contrast: Contrast) -> str:
        """What a slope comes to over the AUs that enter the means alone: looked at after the runs, decides nothing."""
        if contrast.measure != "rarity" or self.empty:
            return ""
        gains = self.gains(contrast)
        kept = gains[self._enters(gains)]
        rise = in_text(t_interval(rises(kept).tolist()), "+.3f")
        return f"with the {len(kept)} of {len(gains)} gains alone of AUs that enter the means it would be {rise}"

    def _doubt(self, found: Verdict | Materiality, contrast: Contrast) -> str:
        """That the check of a decision does not agree with its interval; empty if it does, or nothing is decided."""
        estimate = self.estimates[contrast]
        excluded = estimate.low > 0 or estimate.high < 0
        if (
            not excluded
            or found in (Verdict.UNDECIDED, Materiality.UNDECIDED)
            or not (p := self.flip_p[contrast]) > 0.05
        ):
            return ""
        return f"at the edge, as the sign-flip test, adjusted, does not tell it from 0 (p {p:.3f})"

    def _control(self, claim: Claim) -> str:
        """What the control of a claim says: it should have the other sign, if what is claimed is what works."""
        if not claim.control or not self.whole:
            return ""
        better, worse = claim.control
        control = t_interval(self.sample(Contrast(better, worse, claim.measure)).tolist())
        if not control.defined:
            return ""
        said = "its sign is not told"
        if control.low > 0 or control.high < 0:
            same = control.value * self.estimates[self.worst(claim)].value > 0
            said = "the same sign, so that something else is at work" if same else "the other sign, as it should have"
        return f"the control, {claim.control[0]}, has {in_text(control, '+.3f')}: {said}"

    def _too_few(self, contrasts: list[Contrast]) -> str:
        few = min(self.estimates[contrast].n for contrast in contrasts)
        return f"{few} replicates, at least {LEAST} are needed" if few < LEAST else ""

    def _turns(self, contrast: Contrast) -> str:
        """Where a contrast has another sign in one of the renderer's settings; empty if nowhere."""
        sign = math.copysign(1, self.estimates[contrast].value)
        for setting, values in self.samples[contrast].groupby(self.conditions["setting"]):
            if sign * values.mean() <= 0:
                return f"{contrast} changes its sign in setting {setting}"
        return ""

    def worst(self, claim: Claim) -> Contrast:
        """The contrast that decides a claim with several: the one with the lowest verdict, then the lowest value."""
        order = list(Verdict)

        def rank(contrast: Contrast) -> tuple[int, float]:
            estimate = self.estimates[contrast]
            value = -math.inf if math.isnan(estimate.value) else estimate.value
            return order.index(verdict([estimate], delta=self.delta, runs=1)), value

        return min(_contrasts(claim), key=rank)

    def strongest(self, gap: Discrepancy) -> Contrast:
        """The contrast whose interval is farthest from 0, or whose value is."""

        def rank(contrast: Contrast) -> tuple[float, float]:
            estimate = self.estimates[contrast]
            if not estimate.defined:
                return -math.inf, -math.inf
            return max(estimate.low, -estimate.high), abs(estimate.value)

        return max(_contrasts(gap), key=rank)

    def detectable(self, contrast: Contrast) -> float:
        """The true difference that so many replicates find with a power of 80 %, at the strictest step of Holm's."""
        sample = self.samples[contrast]
        return self._seen(float(sample.std(ddof=1)), len(sample), self._beside(contrast))

    @staticmethod
    def _seen(deviation: float, n: int, contrasts: int) -> float:
        return detectable_difference(deviation, n, level=1 - 0.05 / contrasts)

    def summary(self) -> Findings:
        """The report in one line, with the verdicts unless it is a pilot."""
        return super().summary().model_copy(update={"entries": [] if self.pilot else self._entries()})

    def _found(self) -> str:
        return self._sizes() if self.pilot else " ".join(self._sentences())

    def _sentences(self) -> list[str]:
        sentences = []
        for claim in self.claims:
            found, why = self.decide(claim)
            because = f", {why}" if why else ""
            worst = self.worst(claim)
            which = "Its worst contrast" if len(_contrasts(claim)) > 1 else "Its contrast"
            decided = f" {which} is {self._said(worst)}." if self.estimates[worst].defined else ""
            for more in (self._others(claim, worst), self._strict(worst), self._doubt(found, worst)):
                decided += f" {more[0].upper()}{more[1:]}." if more else ""
            controlled = f" {control[0].upper()}{control[1:]}." if (control := self._control(claim)) else ""
            sentences.append(f"{claim.id} ({claim.wording.rstrip('.')}): {found}{because}.{decided}{controlled}")
        if self.gaps and self.done:
            by_weight = {
                one: [gap.id for gap in self.gaps if self.judge_discrepancy(gap)[0] is one] for one in Materiality
            }
            said = "; ".join(f"{one} ({', '.join(ids)})" for one, ids in by_weight.items() if ids)
            sentences.append(f"Gaps: {said}.")
        return sentences

    def findings(self) -> "Markdown":
        """What was asked, the verdicts, and how long the arms were trained."""
        if not self.provenance:
            return page.markdown("")
        asked = f"**Asked.** {page.text(self.provenance['question'])}\n\n**Found.**"
        if self.pilot:
            return page.markdown(f"{asked} {self._sizes()}")
        listed = "\n".join(f"- {page.text(sentence)}" for sentence in self._sentences())
        if self._twin is not None:
            name, both = page.text(self._twin.folder.name), self._beside_twin(self._twin)
            said = "; ".join(f"{one}: {here} here, {there} there" for one, here, there, _ in both)
            listed += f"\n- **Done twice, on other people**: {said} ([{name}](../{name}/index.html))."
        curves = self._not_flat() if self.done else ""
        started = self.provenance["started"][:10]  # the date
        when = "not after" if not started or self.written.isoformat() <= started else "**AFTER**"
        changed = f"; changed since on {', '.join(self.changed)}, see [the ledger](../claims/index.html#changes-since)"
        return page.markdown(
            f"{asked}\n\n{listed}\n\n{curves} The claims were written on {self.written.isoformat()}, {when} the day of "
            f"the first run{changed if self.changed else ''} (hash `{self.claims_hash}` as they are today; git has "
            "their history). [How the numbers are computed](../laptop/index.html#how-the-numbers-are-computed)."
        )

    def _sizes(self) -> str:
        """What a pilot found: spreads, never differences."""
        spreads = [float(sample.std(ddof=1)) for sample in self.samples.values() if len(sample) > 1]
        if not spreads:
            return "No pair of arms has finished two replicates yet."
        few, many = (self._seen(max(spreads), n, len(self.samples)) for n in PLANNED)
        return (
            f"Over {page.count(len(self.conditions), 'replicate')} the differences between arms have a standard "
            f"deviation of {min(spreads):.3f} to {max(spreads):.3f} AUC. With the largest, {PLANNED[0]} replicates "
            f"find a true difference of {few:.3f} with a power of 80 %, {PLANNED[1]} one of {many:.3f}; delta is "
            f"{self.delta:g}."
        )

    def _said(self, contrast: Contrast) -> str:
        estimate = self.estimates[contrast]
        difference = in_text(estimate, "+.3f")
        return f"{contrast}: {difference} AUC, {page.count(estimate.n, 'replicate')}"

    def _entries(self) -> list[Entry]:
        entries = []
        for claim in self.claims:
            found, why = self.decide(claim)
            among = len(_contrasts(claim))
            worst = self.worst(claim)
            parts = [why or (f"worst of {among} contrasts" if among > 1 else "its only contrast")]
            parts += [self._others(claim, worst), self._strict(worst), self._doubt(found, worst)]
            parts.append(self._control(claim))
            entries.append(self._entry(claim, found, worst, "; ".join(filter(None, parts)), "Verdicts"))
        for gap in self.gaps:
            examined, why = self.judge_discrepancy(gap)
            strongest = self.strongest(gap)
            parts = [self._said(strongest), self._others(gap, strongest), self._doubt(examined, strongest), why]
            entries.append(self._entry(gap, examined, strongest, "; ".join(filter(None, parts)), "Gaps"))
        return entries

    def _entry(
        self, one: Claim | Discrepancy, found: Verdict | Materiality, contrast: Contrast, reason: str, section: str
    ) -> Entry:
        return Entry.of(
            self.estimates[contrast],
            id=one.id,
            verdict=str(found),
            contrast=str(contrast),
            detectable=self.detectable(contrast),
            unit=self.score.upper(),
            reason=reason,
            section=section,
        )

    def verdicts(self) -> "Markdown":
        """Every contrast of every claim, with simultaneous intervals."""
        rows = []
        for claim in self.claims:
            found, _ = self.decide(claim)
            for contrast in _contrasts(claim):
                name = f"{claim.id}: **{found}**" if contrast == self.worst(claim) else claim.id
                rows.append(self._row(name, contrast, str(self._alone(claim, contrast))))
        return page.markdown(f"{_with_ends(page.table(['Claim', *COLUMNS], rows, 'llrlrrrl'))}{self._breadth()}")

    def _breadth(self) -> str:
        """How many AUs the means have, where data sets differ in that."""
        if self.empty:
            return ""
        counts = pd.Series({replicate: len(aus) for replicate, aus in self.entering_of.items()})
        ends = counts.groupby(self.conditions["dataset"]).agg(["min", "max"])
        if len(ends) < 2:
            return ""
        spans = [
            f"{few} to {many} on {name}" if few < many else f"{few} on {name}" for name, few, many in ends.itertuples()
        ]
        return f"\n\nEach replicate counts once, however many AUs enter its mean: {page.text(', '.join(spans))}."

    def gaps_table(self) -> "Markdown":
        """Every contrast of every gap, with simultaneous intervals over the gaps of this report."""
        rows = []
        for gap in self.gaps:
            found, _ = self.judge_discrepancy(gap)
            for contrast in _contrasts(gap):
                name = f"{gap.id}: **{found}**" if contrast == self.strongest(gap) else gap.id
                rows.append(self._row(name, contrast, str(self._alone(gap, contrast))))
        worded = "\n".join(f"- {gap.id}: {page.text(gap.wording)}" for gap in self.gaps)
        drawn = _with_ends(page.table(["Gap", *COLUMNS], rows, "llrlrrrl"))
        return page.markdown(f"{drawn}\n\n{worded}")

    def _row(self, name: str, contrast: Contrast, found: str) -> list[str]:
        sample = self.samples[contrast]
        flip = self.flip_p[contrast]
        return [
            name,
            page.text(str(contrast)),
            *in_cells(self.estimates[contrast], "+.3f"),
            "" if math.isnan(flip) else "below 0.001" if flip < 0.001 else f"{flip:.3f}",
            str(len(sample)),
            page.number(self.detectable(contrast)) if len(sample) > 1 else "",
            found,
        ]

    def afterwards(self, *contrasts: Contrast | tuple[str, str]) -> "Markdown":
        """Contrasts that decide nothing, written down or not before the runs: each with an interval of its own."""
        samples = {contrast: self.sample(contrast) for contrast in (Contrast(*one) for one in contrasts)}
        if not any(map(len, samples.values())):
            return page.markdown(NOTHING)
        rows = [
            [page.text(str(contrast)), *in_cells(t_interval(sample.tolist()), "+.3f"), str(len(sample))]
            for contrast, sample in samples.items()
        ]
        return page.markdown(page.table(["Contrast", "AUC", "95 % interval", "Replicates"], rows, "lrlr"))

    def instead(self, arm: str, other: str) -> "Markdown":
        """What each contrast would have come to with `other` in the place of `arm`; it decides nothing."""
        rows = []
        swapped = {
            claim.id: [
                contrast._replace(better=other if contrast.better == arm else contrast.better)
                for contrast in _contrasts(claim)
            ]
            for claim in self.claims
        }
        family = list(itertools.chain.from_iterable(swapped.values()))
        estimates = dict(zip(family, holm_intervals([self.sample(one).tolist() for one in family]), strict=True))
        for claim in self.claims:
            for contrast in swapped[claim.id]:
                alone = str(verdict([estimates[contrast]] if self.whole else [], delta=self.delta, runs=LEAST))
                rows.append([claim.id, page.text(str(contrast)), *in_cells(estimates[contrast], "+.3f"), alone])
        return page.markdown(
            _with_ends(page.table(["Claim", "Contrast", "AUC", "95 % interval", "Would be"], rows, "llrll"))
        )

    @cached_property
    def _twin(self) -> "Comparison | None":
        """The same study with the other base seed, if its report is there."""
        name = self.folder.name
        other = self.folder.with_name(without_size(name) if name.endswith("-again") else f"{name}-again")
        if not (other / "provenance.json").is_file():
            return None
        return type(self)(other, experiment=without_size(name))

    def _beside_twin(self, twin: "Comparison") -> list[tuple[str, str, str, Contrast]]:
        """Claims and gaps with what they come to here and there, and the contrast that decides them here."""
        decided = [(one.id, str(self.decide(one)[0]), str(twin.decide(one)[0]), self.worst(one)) for one in self.claims]
        weighed = [
            (one.id, str(self.judge_discrepancy(one)[0]), str(twin.judge_discrepancy(one)[0]), self.strongest(one))
            for one in self.gaps
        ]
        return [*decided, *weighed]

    def again(self) -> "Markdown":
        """Each contrast beside the same one of the study's other base seed, and how far the two are apart."""
        twin = self._twin
        if twin is None:
            return page.markdown("This study was run with one base seed.")
        compared = {contrast: (self.estimates[contrast], twin.estimates[contrast]) for contrast in self.samples}
        for claim in self.claims:
            if claim.control:
                better, worse = claim.control
                control = Contrast(better, worse, claim.measure)
                here, there = (t_interval(one.sample(control).tolist()) for one in (self, twin))
                compared.setdefault(control, (here, there))
        rows, apart = [], {}
        for contrast, estimates in compared.items():
            samples = [one.sample(contrast).tolist() for one in (self, twin)]
            apart[contrast] = independent_difference(*samples)
            found = [
                f"{in_text(estimate, '+.3f')}, SD {page.number(float(np.std(sample, ddof=1)))}"
                for estimate, sample in zip(estimates, samples, strict=True)
            ]
            both = t_interval(samples[0] + samples[1])
            rows.append([page.text(str(contrast)), *found, *(in_text(one, "+.3f") for one in (both, apart[contrast]))])
        headers = ["Contrast", "Here", f"In {twin.folder.name}", "Both together", "Apart by"]
        drawn = _with_ends(page.table(headers, rows, "lllll"))
        listed = "\n".join(
            f"- {name}: {here} here, {there} there{_why_apart(here, there, apart[decisive])}."
            for name, here, there, decisive in self._beside_twin(twin)
        )
        return page.markdown(
            "Intervals of the two studies are those of their tables; those of both together and of how far they are "
            f"apart (Welch) stand alone, and decide nothing. SD is over replicates.\n\n{drawn}\n\n{listed}"
        )

    def by_condition(self) -> "Markdown":
        """Each contrast in each condition: a figure, whose intervals are not adjusted and decide nothing."""
        from aunce.report import figures

        if self.empty:
            return page.markdown(NOTHING)
        rows = []
        varied = [condition for condition in CONDITIONS if len(set(self.conditions[condition])) > 1]
        for contrast in [contrast for claim in self.claims for contrast in _contrasts(claim)]:
            sample = self.samples[contrast]
            rows.append({"contrast": str(contrast), "condition": "all", "level": "all"} | estimated(sample))
            for condition in varied:
                groups = sample.groupby(self.conditions[condition].reindex(sample.index))
                rows += [
                    {"contrast": str(contrast), "condition": condition, "level": self._level(condition, str(level))}
                    | estimated(values)
                    for level, values in groups
                ]
        table = pd.DataFrame(rows)
        return page.figure(
            self.out,
            "by_condition",
            figures.conditions(table, delta=self.delta),
            table,
            alt="; ".join(
                f"{row.contrast} {row.estimate:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
                for row in table[table["level"] == "all"].itertuples()
            ),
            caption=(
                "The claims' contrasts in AUC, mean over the replicates of a condition with its 95 % interval, not "
                "adjusted for the number of rows; left of 0 the second arm is ahead. The band counts as nothing."
            ),
        )

    def arms_table(self) -> "Markdown":
        """Every arm by every reading, means over replicates."""
        if self.empty:
            return page.markdown(NOTHING)
        columns: list[tuple[str, str, dict[str, str]]] = [
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
            return page.markdown(self._arms_table(columns, "", self.runs))
        tables = [
            f"**{page.text(label)}**\n\n{self._arms_table(columns, noise, self.runs[self.runs['noise'] == noise])}"
            for noise, label in self.labels.items()
        ]
        return page.markdown("\n\n".join(tables))

    def _arms_table(self, columns: list[tuple[str, str, dict[str, str]]], noise: str, runs: pd.DataFrame) -> str:
        curves = runs[runs["status"] == "done"]
        present = set(curves["arm"])
        rows = []
        for arm in [arm for arm in [*self.arms, *self.others] if arm in present]:
            flat = curves.loc[curves["arm"] == arm, "flat"].astype("str")
            values = [self.scores(arm, score, noise=noise, **reading) for _, score, reading in columns]
            numbers = [page.number(float(one.mean())) if len(one) else "" for one in values]
            kind = "" if arm in self.arms else f" ({curves.loc[curves['arm'] == arm, 'kind'].iloc[0]})"
            shown = f"{(flat == 'True').sum()} of {len(flat)}" if arm in self.arms else ""
            rows.append([page.text(arm) + kind, *in_cells(t_interval(values[0].tolist())), *numbers[1:], shown])
        blind = self._blind
        blind = blind[blind["noise"].isin(["any", noise])] if noise else blind
        for (name, score), values in blind.groupby(["arm", "score"], sort=False)["value"]:
            if score == "f1":  # the AUC of a score that does not depend on the image is one half
                known = {"AUC": "0.500", "F1": page.number(values.mean())}
                cells = [known.get(column, "") for column, *_ in columns]
                rows.append([f"{name} (floor)", cells[0], "by definition", *cells[1:], ""])
        headers = ["Arm", "AUC", "95 % interval", *(name for name, *_ in columns[1:]), "Curves flat"]
        return page.table(headers, rows, "l" + "r" * (len(headers) - 1))

    def design(self) -> "Markdown":
        """The conditions of each replicate."""
        if not self.done:
            return page.markdown(NOTHING)
        rows = [
            [
                str(row.Index),
                *(page.text(value) for value in (row.dataset, row.setting, self._with_kappa(row.noise), row.start)),
                ", ".join(f"AU{au}" for au in sorted(self.entering_of[row.Index])) or "none: left out",
            ]
            for row in self.conditions.itertuples()
        ]
        headers = ["Replicate", "Data set", "Setting", "Label noise", "Start", "AUs in the mean"]
        return page.markdown(page.table(headers, rows, "llllll"))

    def _level(self, condition: str, level: str) -> str:
        """A level in words that stand alone."""
        return f"noise {self._with_kappa(level)}" if condition == "noise" else level

    def _with_kappa(self, noises: str) -> str:
        """Noise levels of a replicate by the labels that figures have."""
        return ", ".join(self.labels.get(noise, noise) for noise in noises.split("; "))

    def flatness(self) -> "Markdown":
        """Which curves had flattened; a pilot does not show the curves themselves, whose ends would name a winner."""
        return page.markdown(self._not_flat() if self.done else "No run has finished yet.")

    def variance(self) -> "Markdown":
        """What a pilot is for: the spread of each difference, and what so many replicates would see."""
        counts = (LEAST, *PLANNED, 64, 128)
        rows = []
        for contrast, sample in self.samples.items():
            if len(sample) < 2:
                continue
            deviation = float(sample.std(ddof=1))
            seen = [page.number(self._seen(deviation, n, self._beside(contrast))) for n in counts]
            rows.append([page.text(str(contrast)), str(len(sample)), page.number(deviation), *seen])
        if not rows:
            return page.markdown("No pair of arms has finished two replicates yet.")
        headers = ["Contrast", "Replicates", "SD of the difference", *(f"seen by {n}" for n in counts)]
        return page.markdown(page.table(headers, rows, "l" + "r" * (len(headers) - 1)))


def _contrasts(asked: Claim | Discrepancy) -> list[Contrast]:
    if isinstance(asked, Discrepancy):
        return [Contrast(better, worse) for better, worse in asked.contrasts]
    levels = asked.noise or [""]
    return [Contrast(better, worse, asked.measure, noise) for better, worse in asked.contrasts for noise in levels]


def lines(gains: pd.DataFrame) -> dict[int, "np.poly1d"]:
    """Replicate -> line of least squares through its gains against prevalence, where three AUs at least have a gain."""
    return {
        int(str(at)): np.poly1d(np.polyfit(part["prevalence"], part["gain"], 1))
        for at, part in gains.groupby("replicate")
        if len(part) > 2
    }


def rises(gains: pd.DataFrame) -> "pd.Series[float]":
    """How much higher the line of each replicate is at a prevalence of 2 % than at 50 %."""
    heights = {at: float(line(RARE) - line(OFTEN)) for at, line in lines(gains).items()}
    return pd.Series(heights, dtype="float64")


def _why_apart(here: str, there: str, apart: Estimate) -> str:
    """What the difference of two studies says of verdicts that differ."""
    if here == there or not apart.defined:
        return ""
    if apart.low <= 0 <= apart.high:
        return "; the two values of its decisive contrast are not told apart"
    return "; the two values of its decisive contrast are apart by more than their intervals allow for"


def estimated(sample: "pd.Series[float]") -> dict[str, float]:
    """Mean over replicates with its interval, for a row of a table."""
    estimate = t_interval(sample.tolist())
    return {"estimate": estimate.value, "low": estimate.low, "high": estimate.high, "replicates": estimate.n}


def _with_ends(drawn: str) -> str:
    """A table, and below it what an interval that ends next to 0 means, where one does."""
    if not re.search("just (above|below) 0", drawn):
        return drawn
    return (
        f"{drawn}\n\n*Just above 0* and *just below 0*: Holm's test leaves 0 out, but an interval that holds for all "
        "rows at once can say no more than that."
    )
