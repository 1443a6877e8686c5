"""The rules of the summary: which group a verdict belongs to, and which verdicts an advice needs.

All verdicts come from the findings of the reports, read by `claims.Ledger`. An advice stands in `notebooks/advice.toml`
with the verdicts that it was written for. It is withdrawn when those are no longer the present ones.
`notebooks/summary.ipynb` shows both.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from aunce.errors import UsageError
from aunce.report import page
from aunce.report.claims import MOVING, NOT_RUN, UNDECIDABLE, Claim, Discrepancy, Ledger, Said
from aunce.statistics import Outcome
from aunce.study.grid import NOTEBOOKS
from aunce.study.spec import StrictModel

HOLDS, FAILS, OPEN = "holds", "fails", "open"
GROUPS: Mapping[str, str] = {
    "supported": HOLDS,
    "holds": HOLDS,
    "matters": HOLDS,
    "reversed": FAILS,
    "not supported": FAILS,
    "not supported (real but negligible)": FAILS,
    "does not hold": FAILS,
    "does not matter": FAILS,
    "undecided": OPEN,
    **{
        f"{outcome}{moving}": group
        for outcome, group in {
            Outcome.BETTER: HOLDS,
            Outcome.AHEAD: OPEN,
            Outcome.OPEN: OPEN,
            Outcome.NO_DIFFERENCE: FAILS,
            Outcome.BEHIND: FAILS,
            Outcome.WORSE: FAILS,
        }.items()
        for moving in ("", MOVING)
    },
    "depends on scale": OPEN,
}
"""Verdict of a report -> where the summary shows it."""

LEDGER = "../claims/index.html"
"""Link to the ledger from the page of another report."""


class Advice(StrictModel):
    """One recommendation.

    Attributes:
        to: to whom.
        text: plain text, without numbers: those stand in the reports and may change.
        rests_on: claim or discrepancy -> the verdicts that support the text, with " +" or " -" behind one if its value
            has to be above or below 0. Each needs a verdict, and every report on it has to agree.
    """

    to: Literal["authors", "field"]
    text: str
    rests_on: dict[str, list[str]] = Field(min_length=1)


class _File(StrictModel):
    advice: list[Advice]


def load_advice(known: Iterable[str], path: Path = NOTEBOOKS / "advice.toml") -> list[Advice]:
    """The checked advice of a TOML file.

    Args:
        known: ids of the claims and discrepancies that an advice may rest on.
        path: of the file.

    Raises:
        UsageError: no TOML, or an advice that is incomplete, mistyped, rests on an unknown claim or gap, or on a
            verdict that does not exist.
    """
    try:
        content = tomllib.loads(path.read_bytes().decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from None
    file, ids, words = _File.checked(content, str(path)), set(known), (*GROUPS, NOT_RUN, UNDECIDABLE)
    for number, advice in enumerate(file.advice, 1):
        for name, verdicts in advice.rests_on.items():
            place = f"{path}: advice {number} rests on {name}"
            if name not in ids:
                raise UsageError(f"{place}, which is neither a claim nor a gap")
            wrong = [verdict for verdict in verdicts if verdict.removesuffix(" +").removesuffix(" -") not in words]
            if wrong or not verdicts:
                raise UsageError(f"{place} with the verdicts {verdicts}; known: {', '.join(words)}")
    return file.advice


def by_group(ledger: Ledger, of: Iterable[Claim | Discrepancy]) -> dict[str, list[tuple[Claim | Discrepancy, Said]]]:
    """What reports say of claims or discrepancies: group -> each with what was said of it, in the order of `of`.

    Raises:
        UsageError: a verdict without a place in `GROUPS`.
    """
    groups: dict[str, list[tuple[Claim | Discrepancy, Said]]] = {HOLDS: [], FAILS: [], OPEN: []}
    for one in of:
        for said in ledger.said[one.id]:
            if said.entry.verdict not in GROUPS:
                raise UsageError(
                    f"{said.report}: {one.id} has the verdict '{said.entry.verdict}', which has no place in the "
                    "summary; give it one in aunce/report/summary.py"
                )
            groups[GROUPS[said.entry.verdict]].append((one, said))
    return groups


def waiting(ledger: Ledger, of: Iterable[Claim | Discrepancy]) -> list[str]:
    """Ids of the claims or discrepancies of which runs have still to say something."""
    return [one.id for one in of if not ledger.said[one.id] and _without_runs(ledger, one.id) == NOT_RUN]


def fallen(advice: Advice, ledger: Ledger) -> list[str]:
    """The claims and discrepancies whose present verdicts no longer support an advice; none: it stands."""
    return [name for name, verdicts in advice.rests_on.items() if not _support(ledger, name, verdicts)]


def _support(ledger: Ledger, name: str, verdicts: list[str]) -> bool:
    """Whether all that is said of a claim or discrepancy is among some verdicts, which may ask for a sign."""
    entries = [one.entry for one in ledger.said[name]]
    if not entries:
        return _without_runs(ledger, name) in verdicts
    return all(
        entry.verdict in verdicts or f"{entry.verdict} {'-' if (entry.value or 0) < 0 else '+'}" in verdicts
        for entry in entries
    )


def present(ledger: Ledger, name: str) -> str:
    """The present verdicts on a claim or discrepancy as Markdown, with links to what they rest on."""
    said = ledger.said[name]
    if not said:
        return f"[{_without_runs(ledger, name)}]({LEDGER})"
    return ", ".join(f"[{page.text(one.verdict)}]({one.place})" for one in said)


def _without_runs(ledger: Ledger, name: str) -> str:
    return UNDECIDABLE if name in {claim.id for claim in ledger.claims if not claim.experiment} else NOT_RUN
