"""The verdicts on one page, and what follows from them for the authors and for the field.

All verdicts come from the findings of the reports, read by `claims.Ledger`. An advice stands in `notebooks/advice.toml`
with the verdicts that it was written for. It is withdrawn when those are no longer the present ones.
"""

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from pydantic import Field

from aunce.errors import UsageError
from aunce.report import figures, findings, page
from aunce.report.claims import NOT_RUN, UNDECIDABLE, Claim, Discrepancy, Ledger, Said, effect
from aunce.study.grid import NOTEBOOKS, REPORTS
from aunce.study.spec import StrictModel

if TYPE_CHECKING:
    from IPython.display import Markdown

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
}
"""Verdict of a report -> where the summary shows it."""

LEDGER = "../claims/index.html"


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


def load_advice(path: Path, known: Iterable[str]) -> list[Advice]:
    """The checked advice of a TOML file.

    Args:
        path: of the file.
        known: ids of the claims and discrepancies that an advice may rest on.

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
                raise UsageError(f"{place}, which is neither a claim nor a gap of claims.toml")
            wrong = [verdict for verdict in verdicts if verdict.removesuffix(" +").removesuffix(" -") not in words]
            if wrong or not verdicts:
                raise UsageError(f"{place} with the verdicts {verdicts}; known: {', '.join(words)}")
    return file.advice


class Summary:
    """What the summary's notebook shows, section by section.

    Args:
        claims: the claims.
        advice: the advice.
        reports: folder of the reports, whose findings are read.
        out: folder that gets what the index shows of the summary; empty saves nothing.

    Raises:
        UsageError: claims, findings or advice that cannot be taken, or a verdict without a place in `GROUPS`.
    """

    def __init__(
        self,
        claims: Path = NOTEBOOKS / "claims.toml",
        advice: Path = NOTEBOOKS / "advice.toml",
        *,
        reports: Path = REPORTS,
        out: str | Path = "",
    ) -> None:
        self.ledger = Ledger(claims, reports=reports)
        self.out = Path(out) if str(out) else None
        self.claims, self.discrepancies = self.ledger.claims.claim, self.ledger.claims.gap
        self.items = load_advice(advice, self.ledger.said)
        for one in itertools.chain.from_iterable(self.ledger.said.values()):
            if one.entry.verdict not in GROUPS:
                raise UsageError(
                    f"{one.report}: {one.entry.id} has the verdict '{one.entry.verdict}', which has no place in the "
                    "summary; give it one in aunce/report/summary.py"
                )

    def _said(self, of: Iterable[Claim | Discrepancy], group: str) -> list[tuple[Claim | Discrepancy, Said]]:
        """What reports say of these claims or discrepancies, where the verdict is of the group."""
        return [(one, said) for one in of for said in self.ledger.said[one.id] if GROUPS[said.entry.verdict] == group]

    def title(self) -> "Markdown":
        """Heading and where things stand; writes what the index shows of the summary."""
        groups = {group: {one.id for one, _ in self._said(self.claims, group)} for group in (HOLDS, FAILS, OPEN)}
        # a study and its repetition on other people need not agree
        torn = {name for name in set().union(*groups.values()) if sum(name in ids for ids in groups.values()) > 1}
        counts = {group: len(ids - torn) for group, ids in groups.items()}
        apart = f"{len(torn)} not the same in two reports, " if torn else ""
        held, unclear = ({one.id for one, _ in self._said(self.discrepancies, group)} for group in (HOLDS, OPEN))
        found = (
            f"Of {len(self.claims)} claims about AUNCE: {counts[HOLDS]} supported or proven, {counts[FAILS]} "
            f"reversed, not supported or refuted by computation, {counts[OPEN]} undecided, "
            f"{apart}{len(self._waiting(self.claims))} {NOT_RUN}, "
            f"{sum(not claim.experiment for claim in self.claims)} {UNDECIDABLE}. Of "
            f"{len(self.discrepancies)} gaps between the "
            f"release and its text, the field or its past: {len(held)} hold or matter, {len(unclear - held)} "
            f"undecided, {len(self._waiting(self.discrepancies))} {NOT_RUN}."
        )
        title, question = "AUNCE in two minutes", "What is left of the claims, and what follows?"
        findings.write(self.out, self.ledger.about(title, question, found))
        return page.markdown(
            f"# {title}\n\n{page.text(found)} In brackets: 95 % intervals over replicates, "
            "simultaneous within the claims, or the gaps, of one study. Links lead to the evidence. What each verdict "
            f"leaves open, sources and power: the [ledger]({LEDGER}). The claims were written on "
            f"{self.ledger.claims.written.isoformat()}; [what changed since]({LEDGER}#changes-since) is listed there."
        )

    def banner(self) -> "Markdown":
        """Which verdicts rest on rendered faces."""
        return self.ledger.banner()

    def figure(self) -> "Markdown":
        """The comparison that decides each claim which runs have decided, with its interval."""
        rows = [
            {"claim": claim.id, "study": said.report, "contrast": said.entry.contrast, "group": said.verdict}
            | {"estimate": said.entry.value, "low": said.entry.low, "high": said.entry.high}
            for claim in self.claims
            for said in self.ledger.said[claim.id]
            if said.entry.unit == self.ledger.claims.score.upper() and said.entry.low is not None
        ]
        if not rows:
            return page.markdown("No claim has been decided by runs yet.")
        table = pd.DataFrame(rows)
        ends = [[page.number(one, "+.3f") for one in (row.estimate, row.low, row.high)] for row in table.itertuples()]
        spoken = [
            f"{row.claim}, {row.study}: {row.contrast} {value} ({low} to {high}), {row.group}"
            for row, (value, low, high) in zip(table.itertuples(), ends, strict=True)
        ]
        return page.figure(
            self.out,
            "verdicts",
            figures.verdicts(table, delta=self.ledger.claims.delta),
            table,
            alt=f"The contrast that decides each claim: {'; '.join(spoken)}.",
            caption=(
                "The worst contrast of each claim that runs speak of, on rendered faces, with its 95 % interval over "
                "replicates, simultaneous within the claims of one study; left of 0 the second arm is ahead. The band, "
                f"{self.ledger.claims.delta:g} to either side, counts as nothing. An end of 5e-324 in the "
                "data is just above or just below 0."
            ),
        )

    def holds(self) -> "Markdown":
        """Claims that are supported or proven."""
        return _bullets(self._claims(HOLDS), none="None so far.")

    def fails(self) -> "Markdown":
        """Claims that are reversed, not supported or refuted."""
        return _bullets(self._claims(FAILS), none="None so far.")

    def open(self) -> "Markdown":
        """Claims that runs did not decide, and those that have none yet."""
        waiting = [f"{_named(claim)} *{NOT_RUN}* ([ledger]({LEDGER}#claims))" for claim in self._waiting(self.claims)]
        return _bullets([*self._claims(OPEN), *waiting], none="None.")

    def _claims(self, group: str) -> list[str]:
        lines = []
        for claim, said in self._said(self.claims, group):
            shown = effect(said.entry) + (["rendered faces"] if said.of.kind == "rendered faces" else [])
            verdict = ": ".join(part for part in (f"*{page.text(said.verdict)}*", ", ".join(shown)) if part)
            reason = f" {page.text(said.entry.reason[:1].upper() + said.entry.reason[1:].rstrip('.'))}."
            lines.append(f"{_named(claim)} {verdict}.{reason} ([{page.text(said.report)}]({said.place}))")
        return lines

    def undecidable(self) -> "Markdown":
        """What no run here can decide, and why."""
        claims = [
            # what is undecidable only in part stands with its wording above
            (f"**{claim.id}**" if claim.experiment else _named(claim), claim.undecidable, "claims")
            for claim in self.claims
            if claim.undecidable
        ]
        reasons: dict[str, list[str]] = {}
        for one in self.discrepancies:
            for part in one.home.split("; "):
                if "undecidable" in part:
                    reasons.setdefault(part, []).append(one.id)
        discrepancies = [(f"**{', '.join(ids)}**", why, "gaps") for why, ids in reasons.items()]
        lines = [
            f"{what} *{page.text(why[:1].upper() + why[1:])}* ([ledger]({LEDGER}#{section}))"
            for what, why, section in [*claims, *discrepancies]
        ]
        return _bullets(lines, none="Nothing.")

    def moves(self) -> "Markdown":
        """The discrepancies that matter in runs, with their effect; below them the others."""
        rows, rest = [], {FAILS: list[str](), OPEN: list[str]()}
        for one in self.discrepancies:
            in_runs = [said for said in self.ledger.said[one.id] if said.entry.replicates]
            groups = [GROUPS[said.entry.verdict] for said in in_runs]
            if HOLDS in groups:
                shown = [
                    ", ".join([f"[{page.text(said.verdict)}]({said.place})", *effect(said.entry)]) for said in in_runs
                ]
                rows.append([_named(one), "<br>".join(shown)])
            elif groups:
                rest[OPEN if OPEN in groups else FAILS].append(one.id)
        waiting = [one.id for one in self._waiting(self.discrepancies)]
        named = (("Do not matter in runs", rest[FAILS]), ("Undecided in runs", rest[OPEN]), ("Not run yet", waiting))
        lines = [f"{what}: {', '.join(ids)}." for what, ids in named if ids]
        drawn = page.table(["What differs", "In runs"], rows, "ll") if rows else "None so far."
        return page.markdown(
            f"{drawn}\n\n{' '.join([*lines, f'All gaps, most of them read or computed: the [ledger]({LEDGER}#gaps).'])}"
        )

    def _waiting(self, of: Iterable[Claim | Discrepancy]) -> list[Claim | Discrepancy]:
        """Those of which runs have still to say something."""
        return [one for one in of if not self.ledger.said[one.id] and self._without_runs(one.id) == NOT_RUN]

    def advice(self, to: Literal["authors", "field"]) -> "Markdown":
        """What to tell them, with the verdicts that support it; below it what is withdrawn, and why."""
        stands, withdrawn = [], []
        for item in self.items:
            if item.to == to:
                fallen = [
                    f"{name} is now {self._present(name)}, and this was written for *{' or '.join(verdicts)}*"
                    for name, verdicts in item.rests_on.items()
                    if not self._carry(name, verdicts)
                ]
                if fallen:
                    withdrawn.append(f"**Withdrawn**: {page.text(item.text)} ({'; '.join(fallen)})")
                else:
                    carried = "; ".join(f"{name} {self._present(name)}" for name in item.rests_on)
                    stands.append(f"{page.text(item.text)} ({carried})")
        return _bullets([*stands, *withdrawn], none="Nothing.")

    def _carry(self, name: str, verdicts: list[str]) -> bool:
        """Whether all that is said of a claim or discrepancy is among some verdicts, which may ask for a sign."""
        entries = [one.entry for one in self.ledger.said[name]]
        if not entries:
            return self._without_runs(name) in verdicts
        return all(
            entry.verdict in verdicts or f"{entry.verdict} {'-' if (entry.value or 0) < 0 else '+'}" in verdicts
            for entry in entries
        )

    def _present(self, name: str) -> str:
        """The present verdicts with links to what they rest on."""
        said = self.ledger.said[name]
        if not said:
            return f"[{self._without_runs(name)}]({LEDGER})"
        return ", ".join(f"[{page.text(one.verdict)}]({one.place})" for one in said)

    def _without_runs(self, name: str) -> str:
        return UNDECIDABLE if name in {claim.id for claim in self.claims if not claim.experiment} else NOT_RUN


def _named(one: Claim | Discrepancy) -> str:
    return f"**{one.id}** {page.text(one.wording)}"


def _bullets(lines: Iterable[str], *, none: str) -> "Markdown":
    return page.markdown("\n".join(f"- {line}" for line in lines) or none)
