"""The rules of the second edition of the claims: looks, outcomes, whether a comparison still moves, what confirms it.

The primary comparisons are a family, and each is looked at up to three times. A look counts when all of its replicates
are done in every cell. Replicates beyond it wait for the next one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd
from scipy import special

from aunce import evaluation
from aunce.analyses.looks import FAMILY, LOOKS
from aunce.report.claims import MOVING
from aunce.report.scores import Scores, mean_of_all
from aunce.statistics import Estimate, Outcome, cell_interval, is_settled, look_tails, outcome

CHANGE_TAIL = 0.05
"""One-sided tail of the interval of a change with the length: 90 %."""


SCORES = ["replicate", "noise", "setting", "cell", "method", "kind", "head", "epoch_rule", "target", "over", "auc"]
"""Columns of `scores`."""


class Confirmation(StrEnum):
    """What the other generator says of a comparison that the first has decided."""

    CONFIRMS = "confirms"
    CONTRADICTS = "contradicts"
    NOT_CONFIRMED = "not confirmed"


@dataclass(frozen=True)
class Decision:
    """One primary comparison at one look.

    Attributes:
        outcome: by the repeated interval; `OPEN` before the first look.
        repeated: estimate with the interval that holds at all looks and for all primary comparisons at once.
        ordinary: with the 95 % interval of this comparison alone, adjusted for nothing.
        settings: its value on easy and on hard faces.
        change: value at the last length minus that at half of it, with a 90 % interval.
        settled: whether it has stopped moving with the length, see `statistics.is_settled`.
        look: number of the look, 1 for the first; 0 before it.
    """

    outcome: Outcome
    repeated: Estimate
    ordinary: Estimate
    settings: Mapping[str, float]
    change: Estimate
    settled: bool
    look: int

    @property
    def words(self) -> str:
        """The outcome, marked where it still moves."""
        return f"{self.outcome}{'' if self.settled else MOVING}"


def scores(report: Scores) -> pd.DataFrame:
    """Macro-AUC on clean labels of every finished run, in every reading, on the test and on the targets.

    Returns:
        The columns `SCORES`: cell is noise and setting; target is empty for the test; auc is the mean over the AUs of
        `over`, which is empty for those of the test, or names a target whose AUs are meant. The test has a row for its
        own AUs and one for those of each target, so that a gap there and a gap at home are over the same AUs.
    """
    if not report.done:
        return pd.DataFrame(columns=SCORES).astype({"replicate": int, "auc": float})
    runs = report.finished
    facts = [report.facts[key] for key in runs["key"]]
    places = pd.DataFrame(
        {"replicate": runs["replicate"], "noise": runs["noise"], "method": runs["arm"], "kind": runs["kind"]}
        | {"setting": [str((fact["synthetic"] or {}).get("setting", "")) for fact in facts]}
    )
    places["cell"] = places["noise"] + ", " + places["setting"]
    aus = {"": set(report.scored_aus)}
    for name in sorted({name for fact in facts for name in fact.get("entering_aus_of_targets", {})}):
        aus[name] = aus[""].intersection(*(fact["entering_aus_of_targets"][name] for fact in facts))
    parts = []
    every = pd.concat([report.auc.assign(target=""), report.targets.get("auc")])
    for target, pairs in every.groupby("target", sort=False):
        clean = pairs[pairs["labels"] == "clean"]
        per_au = evaluation.auc(clean, ["replicate", "arm", "head", "epoch_rule", "au"]).reset_index()
        for over in [str(target), *(aus.keys() - {""} if target == "" else ())]:
            kept = per_au[per_au["au"].isin(aus[over])]
            means = kept.groupby(["replicate", "arm", "head", "epoch_rule"], sort=False)["auc"].agg(mean_of_all)
            parts.append(means.reset_index().assign(target=str(target), over=over))
    table = pd.concat(parts, ignore_index=True).rename(columns={"arm": "method"})
    return places.merge(table, on=["replicate", "method"])[SCORES]


def gap(values: pd.DataFrame, better: str, worse: str) -> pd.DataFrame:
    """The paired difference of two methods: one row per replicate that both have, as `decide` takes it.

    Args:
        values: rows of `scores` in one reading, on one target.
        better: name of the first method.
        worse: name of the second.
    """
    place = ["replicate", "cell", "setting", "noise"]
    one, other = (values[values["method"] == method].set_index(place)["auc"] for method in (better, worse))
    shared = one.index.intersection(other.index)  # an undefined score stays, and leaves the comparison open
    return (one[shared] - other[shared]).rename("value").sort_index().reset_index()


def decide(
    last: pd.DataFrame,
    half: pd.DataFrame,
    *,
    cells: Sequence[str],
    margin: float,
    comparisons: int = 3,
    look: int | None = None,
) -> Decision:
    """Decide a primary comparison at the last look that its replicates allow.

    Args:
        last: one row per replicate, in their order: replicate, cell, setting, and value, the paired difference at the
            last length.
        half: the same at half of that length.
        cells: those of the comparison; one without a replicate has no look.
        margin: the smallest difference that counts.
        comparisons: how many the family has.
        look: number of the look, 1 for the first. Default: the last that is complete.

    Raises:
        ValueError: both tables do not hold the same replicates.
    """
    if last["replicate"].tolist() != half["replicate"].tolist():
        raise ValueError("both lengths need the same replicates in the same order")
    counts = last["cell"].value_counts().reindex(cells, fill_value=0)
    reached = sum(count <= counts.min() for count in LOOKS)
    look = reached if look is None else min(look, reached)
    if look:
        kept = last.groupby("cell", sort=False).cumcount() < LOOKS[look - 1]
        last, half = last[kept], half[kept]
        tail = look_tails([count / LOOKS[-1] for count in LOOKS], FAMILY / comparisons / 2)[look - 1]
    settings = {str(name): float(part.mean()) for name, part in _balanced(last).groupby("setting")["value"]}
    ordinary = cell_interval(_cells(last))
    repeated = Estimate(ordinary.value, -math.inf, math.inf, ordinary.n)
    if look:
        repeated = cell_interval(_cells(last), tail=tail)
    change = cell_interval(_cells(last.assign(value=last["value"] - half["value"])), tail=CHANGE_TAIL)
    return Decision(
        outcome=outcome(repeated, margin=margin, settings=settings),
        repeated=repeated,
        ordinary=ordinary,
        settings=settings,
        change=change,
        settled=is_settled(repeated, change, margin=margin, settings=settings),
        look=look,
    )


def _cells(sample: pd.DataFrame) -> dict[str, list[float]]:
    return {str(cell): part["value"].tolist() for cell, part in sample.groupby("cell", sort=False)}


def _balanced(sample: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, so that a cell with more replicates has no more weight."""
    return sample.groupby(["cell", "setting"], sort=False, as_index=False)["value"].mean()


def may_stop(decisions: Sequence[Decision]) -> bool:
    """Whether no primary comparison is open any more, or the last look was taken."""
    looks = {one.look for one in decisions}
    if not looks or 0 in looks:
        return False
    return looks == {len(LOOKS)} or all(one.outcome is not Outcome.OPEN for one in decisions)


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a claim that needs all of its comparisons: the one that is farthest from better."""
    return max(outcomes, key=list(Outcome).index)


def confirmation(decision: Decision, other: Decision) -> Confirmation:
    """What the other generator, with as many replicates and no looks of its own, says of a decision.

    It confirms the same outcome. It contradicts if its ordinary interval lies on the other side of 0, or if one of both
    is better or worse where the other makes no difference that matters.

    Args:
        decision: of the generator that decides.
        other: of the other one.
    """
    if decision.outcome == other.outcome:
        return Confirmation.CONFIRMS
    interval, told = other.ordinary, {decision.outcome, other.outcome}
    opposite = interval.high < 0 if decision.repeated.value > 0 else interval.low > 0
    sized = {Outcome.BETTER, Outcome.WORSE}
    if opposite or (Outcome.NO_DIFFERENCE in told and told & sized):
        return Confirmation.CONTRADICTS
    return Confirmation.NOT_CONFIRMED


def on_scale(values: pd.DataFrame, scale: str) -> pd.DataFrame:
    """Rows of `scores` with the AUC as it is ("AUC"), or its probit ("probit"), the z value with so much below it."""
    return values if scale == "AUC" else values.assign(auc=special.ndtri(values["auc"]))


def transfer(on_auc: Estimate, on_probit: Estimate, *, margin: float) -> str:
    """What a difference of differences comes to: the outcome by its ordinary interval, if its sign holds on the probit.

    Args:
        on_auc: mean over targets of the difference there minus that at home.
        on_probit: the same of the probit of the AUC.
        margin: the smallest difference that counts.
    """
    found = outcome(on_auc, margin=margin, settings={})
    told = found not in (Outcome.OPEN, Outcome.NO_DIFFERENCE)
    return "depends on scale" if told and on_auc.value * on_probit.value <= 0 else str(found)
