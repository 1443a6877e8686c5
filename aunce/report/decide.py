"""What decides a claim: its comparisons, their samples and intervals, the verdict, and whether a discrepancy matters.

A replicate is one population of rendered faces with its deal of subjects, noise and initialisation. In these studies
each replicate also has conditions of its own (data set, setting of the renderer, label noise, start of the encoder), in
equal shares: the mean over replicates is a mean over conditions, and the interval holds the conditions' differences
too. Nothing here writes Markdown.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from aunce.data.render.writing import OFTEN, RARE
from aunce.errors import UsageError
from aunce.report.claims import Claim, Discrepancy, claims_of
from aunce.report.scores import Scores
from aunce.statistics import (
    Estimate,
    Materiality,
    Verdict,
    detectable_difference,
    holm_intervals,
    holm_p,
    materiality,
    sign_flip_p,
    verdict,
)
from aunce.study.grid import without_size

LEAST = 8
"""Replicates without which nothing is decided: as many as the pilot had."""

FEWEST = 10
"""Positive test frames without which an AU has no part in a slope on prevalence."""


class Comparison(NamedTuple):
    """Two methods and what is measured of them in each replicate, in AUC.

    * `difference`: macro-AUC of `better` minus that of `worse`.
    * `rarity`: a straight line of least squares through the difference of every AU against its prevalence, its height
      at a prevalence of 2 % minus that at 50 %. Above 0, rare AUs gain more.
    * `noise`: the difference at the label noise `noise` minus that in the first condition of the study, which is
      without noise: what the first method gains by noise.
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


def comparisons_of(asked: Claim | Discrepancy) -> list[Comparison]:
    """The comparisons that a claim or a discrepancy asks for."""
    if isinstance(asked, Discrepancy):
        return [Comparison(better, worse) for better, worse in asked.contrasts]
    levels = asked.noise or [""]
    return [Comparison(better, worse, asked.measure, noise) for better, worse in asked.contrasts for noise in levels]


def _rule(asked: Claim | Discrepancy) -> Callable[..., Verdict | Materiality]:
    return materiality if isinstance(asked, Discrepancy) else verdict


class Decisions(Scores):
    """The comparisons of one study's claims and discrepancies, and what they come to.

    Args:
        tables: folder that `report.collect` has filled.
        experiment: study whose claims are decided. Default: the one that the tables are of, whatever its size.

    Attributes:
        claims, discrepancies: those of the experiment.
        delta: the smallest difference that counts.
        samples: comparison -> what it is in each replicate.
        estimates: comparison -> its mean with an interval, simultaneous within its family. Claims and discrepancies are
            two families: what is asked beside the claims does not widen their intervals.
        families: the comparisons of both families.
        conditions: noise, setting, dataset and start of each replicate.

    Raises:
        UsageError: the runs of one replicate have different conditions.
    """

    def __init__(self, tables: str | Path, *, experiment: str = "") -> None:
        super().__init__(tables)
        file = claims_of(experiment or without_size(self.provenance.get("study", self.folder.name)))
        self.written, self.delta, self.score, self.claims_hash = file.written, file.delta, file.score, file.hash
        self.changed = list(dict.fromkeys(change.date.isoformat() for change in file.change))
        self.claims, self.discrepancies = file.claim, file.gap
        self._known: dict[Comparison, pd.Series[float]] = {}
        self.samples: dict[Comparison, pd.Series[float]] = {}
        self.estimates: dict[Comparison, Estimate] = {}
        self.families: list[list[Comparison]] = []
        for asked in (self.claims, self.discrepancies):
            wanted = dict.fromkeys(comparison for one in asked for comparison in comparisons_of(one))
            family = {comparison: self.sample(comparison) for comparison in wanted if comparison not in self.samples}
            self.samples |= family
            self.estimates |= simultaneous(family)
            self.families.append(list(family))

    @cached_property
    def flip_p(self) -> dict[Comparison, float]:
        """Sign-flip p values, adjusted by Holm within each family."""
        adjusted: dict[Comparison, float] = {}
        for family in self.families:
            values = holm_p([sign_flip_p(self.samples[comparison].tolist()) for comparison in family])
            adjusted |= dict(zip(family, values, strict=True))
        return adjusted

    def _score(self) -> None:
        self.scored_in: dict[int, set[int]] = {}
        rows: dict[int, dict[str, str]] = {}
        noises: dict[int, list[str]] = {}
        for run in self.finished.itertuples():
            replicate, noise = int(run.replicate), str(run.noise)
            facts, spec = json.loads(str(run.data)), json.loads(str(run.spec))
            scored = set(facts["entering_aus"])
            self.scored_in[replicate] = self.scored_in.get(replicate, scored) & scored
            tested = spec.get("test_dataset")
            conditions = {
                "setting": str((facts.get("synthetic") or {}).get("setting", "")),
                "dataset": f"{facts['dataset']} to {tested}" if tested else str(facts["dataset"]),
                "start": "pretext" if spec["pretext"] else "random weights",
            }
            if noise not in noises.setdefault(replicate, []):
                noises[replicate].append(noise)
            if rows.setdefault(replicate, conditions) != conditions:
                raise UsageError(
                    f"replicate {replicate} stands in two conditions, and no pair of its runs would be one; give "
                    "each condition replicates of its own"
                )
        self.crossed = any(len(levels) > 1 for levels in noises.values())
        self.first = str(self.runs["noise"].iloc[0])  # of the study, whether or not its runs have ended well
        rows = {replicate: {"noise": "; ".join(noises[replicate])} | row for replicate, row in rows.items()}
        self.conditions = pd.DataFrame.from_dict(rows, orient="index").sort_index()
        super()._score()

    @property
    def empty(self) -> bool:
        """True as long as no replicate has finished in every method."""
        return not self.done or not len(self.macro)

    @property
    def whole(self) -> bool:
        """True if no run is still to come; a failed one has dropped its replicate."""
        return self.done and not self.runs["status"].isin(["missing", "running", "damaged"]).any()

    def _scored_in(self, replicate: int) -> Collection[int]:
        return self.scored_in[replicate]

    def is_scored(self, table: pd.DataFrame) -> "pd.Series[bool]":
        """Data set and test subjects of each replicate decide which AUs are scored."""
        pairs = zip(table["replicate"], table["au"], strict=True)
        return pd.Series([au in self.scored_in[replicate] for replicate, au in pairs], table.index, dtype=bool)

    def scores(self, method: str, score: str = "auc", *, noise: str = "", **reading: str) -> pd.Series:
        """A macro score per replicate, the primary reading unless told otherwise.

        Where replicates have several conditions each, the first of the study is meant, unless `noise` names another.
        """
        if self.empty:
            return pd.Series(dtype="float64")
        levels = [self.first] if self.crossed else list(self.labels)
        parts = [self.values(method, level, score, **reading) for level in ([noise] if noise else levels)]
        return pd.concat(parts).sort_index()

    def sample(self, comparison: Comparison) -> "pd.Series[float]":
        """What a comparison is in each replicate that both methods have, see `Comparison`.

        Raises:
            UsageError: noise is to be compared with none, and the study's first condition has noise.
        """
        if comparison not in self._known:
            self._known[comparison] = self._measured(comparison)
        return self._known[comparison]

    def _measured(self, comparison: Comparison) -> "pd.Series[float]":
        if self.empty:
            return pd.Series(dtype="float64")
        if comparison.measure == "rarity":
            return rises(self.gains(comparison))
        difference = self._paired(comparison, comparison.noise)
        if comparison.measure == "noise":
            if not self.first.startswith("none"):
                raise UsageError(f"{comparison}: the study's first condition, '{self.first}', is not without noise")
            without = self._paired(comparison, "")
            shared = difference.index.intersection(without.index)
            difference = difference[shared] - without[shared]
        return difference

    def _paired(self, comparison: Comparison, noise: str) -> "pd.Series[float]":
        pair = (comparison.better, comparison.worse)
        one, other = (self.scores(method, self.score, noise=noise) for method in pair)
        shared = one.index.intersection(other.index)
        return one[shared] - other[shared]

    def gains(self, comparison: Comparison) -> pd.DataFrame:
        """The difference of two methods AU by AU: columns replicate, au, prevalence (of the test) and gain.

        AUs with fewer than `FEWEST` positive test frames, and the null AU, are left out.
        """
        place = ["replicate", "au"]
        values = self.primary_per_au
        values = values[(values["score"] == self.score) & ~values["au"].isin(self.null_aus)]
        one, other = (
            values[values["arm"] == method].set_index(place)["value"]
            for method in (comparison.better, comparison.worse)
        )
        counts = self.primary_counts
        counts = counts[counts["arm"] == comparison.better].drop_duplicates([*place, "part", "subject"])
        counts = counts.assign(positive=counts["tp"] + counts["fn"], negative=counts["fp"] + counts["tn"])
        frames = counts.groupby(place)[["positive", "negative"]].sum()
        table = pd.DataFrame({"gain": one - other}).join(frames, how="inner")
        table["prevalence"] = table["positive"] / (table["positive"] + table["negative"])
        return table[table["positive"] >= FEWEST].dropna().reset_index()[[*place, "prevalence", "gain"]]

    @property
    def asked(self) -> list[Claim | Discrepancy]:
        """Claims, then discrepancies."""
        return [*self.claims, *self.discrepancies]

    def judge(self, asked: Claim | Discrepancy) -> tuple[Verdict | Materiality, str]:
        """What is decided about a claim or a discrepancy, and why where the interval is not the whole reason.

        Nothing is decided before all runs of the study have ended, as a look at earlier results could stop the study
        when they suit. Nothing is decided either if a deciding comparison changes its sign between renderer settings.
        """
        comparisons = comparisons_of(asked)
        undecided = Materiality.UNDECIDED if isinstance(asked, Discrepancy) else Verdict.UNDECIDED
        if not self.whole:
            return undecided, "runs are still to come"
        found = _rule(asked)([self.estimates[one] for one in comparisons], delta=self.delta, runs=LEAST)
        if found == undecided:
            few = min(self.estimates[one].n for one in comparisons)
            return found, f"{few} replicates, at least {LEAST} are needed" if few < LEAST else ""
        # a claim is supported by all of its comparisons, and anything else is decided by one of them
        deciding = comparisons if found is Verdict.SUPPORTED else [self.decisive(asked)]
        if found is Materiality.NOTHING:
            deciding = []
        turned = next(filter(None, map(self._turns, deciding)), "")
        return (undecided, turned) if turned else (found, "")

    def alone(self, asked: Claim | Discrepancy, estimate: Estimate) -> Verdict | Materiality:
        """What one comparison of a claim or discrepancy comes to by itself."""
        return _rule(asked)([estimate] if self.whole else [], delta=self.delta, runs=LEAST)

    def _turns(self, comparison: Comparison) -> str:
        """Where a comparison has another sign in one of the renderer's settings; empty if nowhere."""
        sign = math.copysign(1, self.estimates[comparison].value)
        for setting, values in self.samples[comparison].groupby(self.conditions["setting"]):
            if sign * values.mean() <= 0:
                return f"{comparison} changes its sign in setting {setting}"
        return ""

    def decisive(self, asked: Claim | Discrepancy) -> Comparison:
        """The comparison that decides.

        Of a claim it is the worst: that with the lowest verdict, then the lowest value. Of a discrepancy it is the
        strongest: that whose interval is farthest from 0, or whose value is.
        """

        def worst(comparison: Comparison) -> tuple[float, float]:
            estimate = self.estimates[comparison]
            value = -math.inf if math.isnan(estimate.value) else estimate.value
            return list(Verdict).index(verdict([estimate], delta=self.delta, runs=1)), value

        def weakest(comparison: Comparison) -> tuple[float, float]:
            estimate = self.estimates[comparison]
            if not estimate.defined:
                return math.inf, math.inf
            return -max(estimate.low, -estimate.high), -abs(estimate.value)

        return min(comparisons_of(asked), key=weakest if isinstance(asked, Discrepancy) else worst)

    def control(self, claim: Claim) -> Comparison | None:
        """The comparison that should have the other sign, if what is claimed is what works; None without one."""
        if not claim.control:
            return None
        better, worse = claim.control
        return Comparison(better, worse, claim.measure)

    def detectable(self, comparison: Comparison) -> float:
        """The true difference that so many replicates find with a power of 80 %, at the strictest step of Holm's."""
        sample = self.samples[comparison]
        return detectable_among(float(sample.std(ddof=1)), len(sample), self.beside(comparison))

    def beside(self, comparison: Comparison) -> int:
        """How many comparisons its family has."""
        return next(len(family) for family in self.families if comparison in family)

    def edge_p(self, found: Verdict | Materiality, comparison: Comparison) -> float | None:
        """The sign-flip p value of a decisive comparison where it does not agree with the interval; None if it does."""
        estimate = self.estimates[comparison]
        excluded = estimate.low > 0 or estimate.high < 0
        if not excluded or found in (Verdict.UNDECIDED, Materiality.UNDECIDED):
            return None
        p = self.flip_p[comparison]
        return p if p > 0.05 else None

    @cached_property
    def twin(self) -> "Decisions | None":
        """The same study with the other base seed, if its tables are there."""
        name = self.folder.name
        other = self.folder.with_name(without_size(name) if name.endswith("-again") else f"{name}-again")
        return Decisions(other) if (other / "provenance.json").is_file() else None


def simultaneous(samples: "Mapping[Comparison, pd.Series[float]]") -> dict[Comparison, Estimate]:
    """Simultaneous intervals of a family of comparisons."""
    return dict(zip(samples, holm_intervals([sample.tolist() for sample in samples.values()]), strict=True))


def detectable_among(deviation: float, n: int, comparisons: int) -> float:
    """The difference that `n` replicates find with a power of 80 %, at the strictest of so many steps of Holm's."""
    return detectable_difference(deviation, n, level=1 - 0.05 / comparisons)


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
