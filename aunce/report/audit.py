"""The audit page's verdicts: what the published numbers and the released code say of the claims' discrepancies.

The numbers are those of `aunce.analyses.published`; `notebooks/audit.ipynb` shows them. What was read in released code
stands in `notebooks/facts/`.
"""

import tomllib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from aunce.analyses import published
from aunce.analyses.published import DATASETS, MEAN, POOLED
from aunce.report.findings import Entry
from aunce.study.grid import NOTEBOOKS

AVERAGED, TESTED_ON, IN_CODE = "One number, seven ways", "Confusion matrices from the logs", "Gaps in the released code"
CHOSEN_ON = "Where others choose"
"""Headings of the page below which the evidence for the discrepancies stands."""

BEST, SCORED, HELD_OUT = "the best on the test part", "each is scored on the test part", "there is a validation set"
"""Rules by which released code chooses an epoch, as the facts word them."""


def released_code() -> dict[str, Any]:
    """What was read in released code: statuses, tested, lacks, gaps, chosen and undecidable, see the file."""
    return tomllib.loads((NOTEBOOKS / "facts" / "released_code.toml").read_text(encoding="utf-8"))


def entries(facts: Mapping[str, Any]) -> list[Entry]:
    """Verdicts on the discrepancies: computed where there are numbers, else as read in the released code.

    Args:
        facts: those of `released_code`.
    """
    read = [
        Entry(
            id=gap,
            verdict="holds",
            reason=f"Read in the released code at commit bade385 and its history: {found['what']}.",
            section=IN_CODE,
        )
        for gap, found in facts["gaps"].items()
    ]
    others = [_way_of_averaging(), _numbering(), _choosing(facts["chosen"])]
    return sorted([*others, *read], key=lambda entry: int(entry.id[1:]))


def possible(assignments: pd.DataFrame) -> list[str]:
    """The assignments of folds to parts that have a confusion matrix for every printed number.

    Args:
        assignments: those of `published.assignments`.
    """
    return [str(parts) for parts in assignments.loc[assignments["impossible"] == 0, "assignment"]]


def _way_of_averaging() -> Entry:
    holds, said = True, []
    for dataset in DATASETS:
        printed = float(published.compared(dataset).loc["AUNCE", "mean"])
        mean, together = published.averages(dataset).set_index("way").loc[[MEAN, POOLED], "aunce"]
        # 0.05 for the printed decimal, 0.005 for those of the logs
        holds &= bool(abs(printed - mean) <= 0.055 < abs(printed - together))
        said.append(
            f"{printed:.1f} is printed for {dataset}, where the mean of folds is {mean:.2f} and the pooled score "
            f"{together:.2f}"
        )
    return Entry(id="D14", verdict=_holds(holds), reason=f"Computed: {'; '.join(said)}.", section=AVERAGED)


def _numbering() -> Entry:
    holds, said = True, []
    for dataset in DATASETS:
        parts = possible(published.assignments(dataset))
        holds &= bool(parts) and all(one.split(", ")[0] == "3" for one in parts)
        said.append(f"{dataset}'s folds 1, 2, 3 can only be parts {' or '.join(f'({one})' for one in parts)}")
    return Entry(
        id="D15",
        verdict=_holds(holds),
        reason=f"Computed from the logs: {'; '.join(said)}; the README calls part 1 Fold1.",
        section=TESTED_ON,
    )


def _choosing(rows: list[dict[str, str]]) -> Entry:
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


def _method(row: Mapping[str, str]) -> str:
    """The name of the method, without owner and commit of its repository."""
    return row["repository"].split(" at ")[0].split("/")[1]


def _holds(found: bool) -> str:
    return "holds" if found else "does not hold"
