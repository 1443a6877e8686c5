"""Reports that decide claims: the contrasts of `notebooks/claims.toml` on the runs of one study.

A replicate is one population of rendered faces with its deal, noise and initialisation. In these studies each replicate
also has conditions of its own (data set, setting of the renderer, label noise, start of the encoder), in equal shares:
the mean over replicates is a mean over conditions, and the interval holds the conditions' differences too.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from aunce import page
from aunce.claims import Claim, load_claims
from aunce.errors import UsageError
from aunce.findings import Entry, Findings
from aunce.report import Report, in_cells, in_text
from aunce.statistics import (
    Verdict,
    detectable_difference,
    holm_intervals,
    sign_flip_p,
    t_interval,
    verdict,
)

if TYPE_CHECKING:
    from IPython.display import Markdown

LEAST = 8
"""Replicates without which nothing is decided: as many as the pilot had."""

PLANNED = (16, 32)
"""Replicates of the main study in its CPU and its GPU size."""

CONDITIONS = ("noise", "setting", "dataset", "start")


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
        self.pilot = pilot
        self.claims = [claim for claim in claims.claim if claim.experiment == experiment]
        super().__init__(tables, out=out)
        self.samples = {pair: self.differences(*pair) for claim in self.claims for pair in _pairs(claim)}
        estimates = holm_intervals([sample.tolist() for sample in self.samples.values()])
        self.estimates = dict(zip(self.samples, estimates, strict=True))

    def _score(self) -> None:
        finished = self.runs[self.runs["status"] == "done"]
        self.entering_of: dict[int, set[int]] = {}
        rows: dict[int, dict[str, str]] = {}
        for run in finished.itertuples():
            facts, spec = json.loads(str(run.data)), json.loads(str(run.spec))
            self.entering_of[int(run.replicate)] = set(facts["entering_aus"])
            conditions = {
                "noise": str(run.noise),
                "setting": str((facts.get("synthetic") or {}).get("setting", "")),
                "dataset": str(facts["dataset"]),
                "start": "pretext" if spec["pretext"] else "random weights",
            }
            if rows.setdefault(int(run.replicate), conditions) != conditions:
                raise UsageError(
                    f"replicate {run.replicate} stands in two conditions, and no pair of its runs would be one; give "
                    "each condition replicates of its own"
                )
        self.conditions = pd.DataFrame.from_dict(rows, orient="index").sort_index()
        super()._score()

    def _enters(self, table: pd.DataFrame) -> "pd.Series[bool]":
        """Data set and test subjects of each replicate decide which AUs enter."""
        pairs = zip(table["replicate"], table["au"], strict=True)
        return pd.Series([au in self.entering_of[replicate] for replicate, au in pairs], table.index, dtype=bool)

    def scores(self, arm: str, score: str = "auc", **reading: str) -> pd.Series:
        """A macro score per replicate, the primary reading unless told otherwise."""
        if not self.done or not len(self.macro):
            return pd.Series(dtype="float64")
        parts = [self._values(arm, noise, score, **reading) for noise in self.labels]
        return pd.concat(parts).sort_index()

    def differences(self, better: str, worse: str) -> "pd.Series[float]":
        """`better` minus `worse` in each replicate that both have."""
        one, other = self.scores(better, self.score), self.scores(worse, self.score)
        shared = one.index.intersection(other.index)
        return one[shared] - other[shared]

    @property
    def whole(self) -> bool:
        """True if no run is still to come; a failed one has dropped its replicate."""
        return self.done and not self.runs["status"].isin(["missing", "running"]).any()

    def decide(self, claim: Claim) -> tuple[Verdict, str]:
        """Verdict of a claim, and why where the interval of its worst contrast is not the whole reason.

        Nothing is decided before all runs of the study have ended, as whoever looks earlier could stop when it suits;
        nor if the deciding contrast has another sign in one of the renderer's settings.
        """
        pairs = _pairs(claim)
        estimates = [self.estimates[pair] for pair in pairs]
        if not self.whole:
            return Verdict.UNDECIDED, "runs are still to come"
        found = verdict(estimates, delta=self.delta, runs=LEAST)
        if found is Verdict.UNDECIDED:
            few = min(estimate.n for estimate in estimates)
            return found, f"{few} replicates, at least {LEAST} are needed" if few < LEAST else ""
        deciding = pairs if found is Verdict.SUPPORTED else [self.worst(claim)]
        for pair in deciding:
            sign = math.copysign(1, self.estimates[pair].value)
            for setting, values in self.samples[pair].groupby(self.conditions["setting"]):
                if sign * values.mean() <= 0:
                    return Verdict.UNDECIDED, f"{pair[0]} minus {pair[1]} changes its sign in setting {setting}"
        return found, ""

    def worst(self, claim: Claim) -> tuple[str, str]:
        """The contrast that decides a claim with several: the one with the lowest verdict, then the lowest value."""
        order = list(Verdict)

        def rank(pair: tuple[str, str]) -> tuple[int, float]:
            estimate = self.estimates[pair]
            value = -math.inf if math.isnan(estimate.value) else estimate.value
            return order.index(verdict([estimate], delta=self.delta, runs=1)), value

        return min(_pairs(claim), key=rank)

    def detectable(self, pair: tuple[str, str]) -> float:
        """The true difference that so many replicates find with a power of 80 %, at the strictest step of Holm's."""
        sample = self.samples[pair]
        return self._seen(float(sample.std(ddof=1)), len(sample))

    def _seen(self, deviation: float, n: int) -> float:
        return detectable_difference(deviation, n, level=1 - 0.05 / len(self.samples))

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
            decided = f" Its worst contrast is {self._said(worst)}." if self.estimates[worst].defined else ""
            sentences.append(f"{claim.id} ({claim.wording.rstrip('.')}): {found}{because}.{decided}")
        return sentences

    def findings(self) -> "Markdown":
        """What was asked, the verdicts, and how long the arms were trained."""
        if not self.provenance:
            return page.markdown("")
        asked = f"**Asked.** {page.text(self.provenance['question'])}\n\n**Found.**"
        if self.pilot:
            return page.markdown(f"{asked} {self._sizes()}")
        listed = "\n".join(f"- {page.text(sentence)}" for sentence in self._sentences())
        curves = self._not_flat() if self.done else ""
        started = self.provenance["started"][:10]  # the date
        when = "not after" if not started or self.written.isoformat() <= started else "**AFTER**"
        return page.markdown(
            f"{asked}\n\n{listed}\n\n{curves} The claims were written on {self.written.isoformat()} (hash "
            f"`{self.claims_hash}`), {when} the day of the first run."
        )

    def _sizes(self) -> str:
        """What a pilot found: spreads, never differences."""
        spreads = [float(sample.std(ddof=1)) for sample in self.samples.values() if len(sample) > 1]
        if not spreads:
            return "No pair of arms has finished two replicates yet."
        few, many = (self._seen(max(spreads), n) for n in PLANNED)
        return (
            f"Over {page.count(len(self.conditions), 'replicate')} the differences between arms have a standard "
            f"deviation of {min(spreads):.3f} to {max(spreads):.3f} AUC. With the largest, {PLANNED[0]} replicates "
            f"find a true difference of {few:.3f} with a power of 80 %, {PLANNED[1]} one of {many:.3f}; delta is "
            f"{self.delta:g}."
        )

    def _said(self, pair: tuple[str, str]) -> str:
        estimate = self.estimates[pair]
        difference = in_text(estimate, "+.3f")
        return f"{pair[0]} minus {pair[1]}: {difference} AUC, {page.count(estimate.n, 'replicate')}"

    def _entries(self) -> list[Entry]:
        entries = []
        for claim in self.claims:
            found, why = self.decide(claim)
            pair = self.worst(claim)
            entries.append(
                Entry.of(
                    self.estimates[pair],
                    id=claim.id,
                    verdict=str(found),
                    contrast=f"{pair[0]} minus {pair[1]}",
                    detectable=self.detectable(pair),
                    unit=self.score.upper(),
                    reason=why or f"worst of {page.count(len(claim.contrasts), 'contrast')}",
                    section="Verdicts",
                )
            )
        return entries

    def verdicts(self) -> "Markdown":
        """Every contrast of every claim, with simultaneous intervals."""
        rows = []
        for claim in self.claims:
            found, _ = self.decide(claim)
            for pair in _pairs(claim):
                estimate, sample = self.estimates[pair], self.samples[pair]
                own = verdict([estimate], delta=self.delta, runs=LEAST) if self.whole else Verdict.UNDECIDED
                flip = sign_flip_p(sample.tolist())
                rows.append(
                    [
                        f"{claim.id}: **{found}**" if pair == self.worst(claim) else claim.id,
                        f"{page.text(pair[0])} minus {page.text(pair[1])}",
                        *in_cells(estimate, "+.3f"),
                        "" if math.isnan(flip) else "below 0.001" if flip < 0.001 else f"{flip:.3f}",
                        str(estimate.n),
                        page.number(self.detectable(pair)) if len(sample) > 1 else "",
                        str(own),
                    ]
                )
        headers = ["Claim", "Contrast", "AUC", "95 % interval", "Sign-flip p", "Replicates", "Could see", "Verdict"]
        return page.markdown(page.table(headers, rows, "llrlrrrl"))

    def afterwards(self, *pairs: tuple[str, str]) -> "Markdown":
        """Contrasts that nobody wrote down before the runs: each with an interval of its own, and no verdict."""
        samples = {pair: self.differences(*pair) for pair in pairs}
        if not any(map(len, samples.values())):
            return page.markdown("No replicate has finished yet.")
        rows = [
            [page.text(f"{pair[0]} minus {pair[1]}"), *in_cells(t_interval(sample.tolist()), "+.3f"), str(len(sample))]
            for pair, sample in samples.items()
        ]
        return page.markdown(page.table(["Contrast", "AUC", "95 % interval", "Replicates"], rows, "lrlr"))

    def by_condition(self) -> "Markdown":
        """Each contrast in each condition: a figure, whose intervals are not adjusted and decide nothing."""
        from aunce import figures

        if not self.done or not len(self.macro):
            return page.markdown("No replicate has finished yet.")
        rows = []
        for pair, sample in self.samples.items():
            contrast = f"{pair[0]} minus {pair[1]}"
            rows.append({"contrast": contrast, "condition": "all", "level": "all"} | _numbers(sample))
            for condition in CONDITIONS:
                groups = sample.groupby(self.conditions[condition].reindex(sample.index))
                rows += [
                    {"contrast": contrast, "condition": condition, "level": _level(condition, str(level))}
                    | _numbers(values)
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
                "Difference in macro-AUC, mean over the replicates of a condition with its 95 % interval, not adjusted "
                "for the number of rows; left of 0 the second arm is ahead. The band is what counts as nothing."
            ),
        )

    def arms_table(self) -> "Markdown":
        """Every arm by every reading, means over replicates."""
        if not self.done or not len(self.macro):
            return page.markdown("No replicate has finished yet.")
        columns: list[tuple[str, str, dict[str, str]]] = [
            ("AUC", "auc", {}),
            ("AUC own head", "auc", {"head": "own"}),
            ("AUC kNN", "auc", {"head": "knn"}),
            ("AUC within subject", "auc_within", {}),
            ("AUC noisy test", "auc", {"labels": "noisy"}),
            ("AUC best test epoch", "auc", {"epoch_rule": "oracle"}),
            ("F1", "f1", {}),
            ("F1 at 0.5", "f1", {"threshold": "0.5"}),
            ("F1 oracle", "f1", {"threshold": "oracle"}),
        ]
        curves = self.runs[self.runs["status"] == "done"]
        rows = []
        for arm in [*self.arms, *self.others]:
            flat = curves.loc[curves["arm"] == arm, "flat"].astype("str")
            values = [self.scores(arm, score, **reading) for _, score, reading in columns]
            numbers = [page.number(float(one.mean())) if len(one) else "" for one in values]
            kind = "" if arm in self.arms else f" ({curves.loc[curves['arm'] == arm, 'kind'].iloc[0]})"
            shown = f"{(flat == 'True').sum()} of {len(flat)}" if arm in self.arms else ""
            rows.append([page.text(arm) + kind, *in_cells(t_interval(values[0].tolist())), *numbers[1:], shown])
        for (name, score), values in self._blind().groupby(["arm", "score"], sort=False)["value"]:
            if score == "f1":  # the AUC of a score that does not depend on the image is one half
                rows.append([f"{name} (floor)", "0.500", "by definition", *[""] * 5, page.number(values.mean())])
                rows[-1] += [""] * 3
        headers = ["Arm", "AUC", "95 % interval", *(name for name, *_ in columns[1:]), "Curves flat"]
        return page.markdown(page.table(headers, rows, "l" + "r" * (len(headers) - 1)))

    def design(self) -> "Markdown":
        """The conditions of each replicate."""
        if not self.done:
            return page.markdown("No replicate has finished yet.")
        rows = [
            [
                str(row.Index),
                *(page.text(value) for value in (row.dataset, row.setting, row.noise, row.start)),
                ", ".join(f"AU{au}" for au in sorted(self.entering_of[row.Index])) or "none: left out",
            ]
            for row in self.conditions.itertuples()
        ]
        headers = ["Replicate", "Data set", "Setting", "Label noise", "Start", "AUs in the mean"]
        return page.markdown(page.table(headers, rows, "llllll"))

    def flatness(self) -> "Markdown":
        """Which curves had flattened; a pilot does not show the curves themselves, whose ends would name a winner."""
        return page.markdown(self._not_flat() if self.done else "No run has finished yet.")

    def variance(self) -> "Markdown":
        """What a pilot is for: the spread of each difference, and what so many replicates would see."""
        counts = (LEAST, *PLANNED, 64, 128)
        rows = []
        for pair, sample in self.samples.items():
            if len(sample) < 2:
                continue
            deviation = float(sample.std(ddof=1))
            seen = [page.number(self._seen(deviation, n)) for n in counts]
            rows.append(
                [f"{page.text(pair[0])} minus {page.text(pair[1])}", str(len(sample)), page.number(deviation), *seen]
            )
        if not rows:
            return page.markdown("No pair of arms has finished two replicates yet.")
        headers = ["Contrast", "Replicates", "SD of the difference", *(f"seen by {n}" for n in counts)]
        return page.markdown(page.table(headers, rows, "l" + "r" * (len(headers) - 1)))


def _pairs(claim: Claim) -> list[tuple[str, str]]:
    return [(better, worse) for better, worse in claim.contrasts]


def _level(condition: str, level: str) -> str:
    """A level in words that stand alone."""
    return f"noise {level}" if condition == "noise" else level


def _numbers(sample: "pd.Series[float]") -> dict[str, float]:
    estimate = t_interval(sample.tolist())
    return {"estimate": estimate.value, "low": estimate.low, "high": estimate.high, "replicates": estimate.n}
