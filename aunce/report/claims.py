"""Claims, written down before the runs that decide them, and the ledger of what has become of each.

`notebooks/claims.toml` is the one place where a claim is worded. Its hash and date stand in every ledger: they show a
claim that was changed after its runs.
"""

import datetime
import hashlib
import itertools
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote

from pydantic import Field, model_validator

from aunce.errors import UsageError
from aunce.report import findings, page
from aunce.report.findings import Entry, Findings, Kind
from aunce.statistics import Materiality, Verdict
from aunce.study.grid import NOTEBOOKS, REPORTS, without_size
from aunce.study.spec import StrictModel

if TYPE_CHECKING:
    from IPython.display import Markdown

NOT_RUN, UNDECIDABLE = "not run yet", "undecidable here"
"""What the ledger says of a claim without runs, and of a claim that no run here can decide."""

VERDICTS = (*map(str, Verdict), *map(str, Materiality), "holds", "does not hold")
"""Verdicts on a claim or a gap. The last two come from a computation or from reading the released code."""


MEASURES = ("difference", "rarity", "noise")
"""What may be measured of two methods, see `decide.Comparison`."""


class Claim(StrictModel):
    """One claim and how it is decided; `notebooks/claims.toml` says what the fields mean."""

    id: str = Field(pattern=r"^[CU]\d+$")
    wording: str
    source: str
    experiment: str = ""
    decided_by: str = ""
    contrasts: list[list[str]] = Field(default_factory=list)
    measure: Literal[MEASURES] = "difference"  # type: ignore[valid-type]
    noise: list[str] = Field(default_factory=list)
    control: list[str] = Field(default_factory=list)
    undecidable: str = ""
    limit: str = ""

    @model_validator(mode="after")
    def _can_be_decided(self) -> "Claim":
        if (self.measure == "noise") != bool(self.noise):
            raise ValueError(
                "measure 'noise' needs the noise levels to compare with none, and no other measure has any"
            )
        if not (self.experiment and self.decided_by) and not self.undecidable:
            raise ValueError("needs experiment and decided_by, or why it is undecidable")
        if self.decided_by == "each" and not self.contrasts:
            raise ValueError("is decided by each of its contrasts and has none")
        _check_contrasts([*self.contrasts, *([self.control] if self.control else [])])
        return self


class Discrepancy(StrictModel):
    """A difference between the release and its text, the field, or its own past; and where it is examined.

    With `contrasts`, the runs of `experiment` say whether it matters.
    """

    id: str = Field(pattern=r"^D\d+$")
    wording: str
    home: str
    experiment: str = ""
    contrasts: list[list[str]] = Field(default_factory=list)
    limit: str = ""

    @model_validator(mode="after")
    def _can_be_examined(self) -> "Discrepancy":
        if bool(self.experiment) != bool(self.contrasts):
            raise ValueError("needs both experiment and contrasts, or neither")
        _check_contrasts(self.contrasts)
        return self


def _check_contrasts(contrasts: list[list[str]]) -> None:
    if any(len(contrast) != 2 or contrast[0] == contrast[1] for contrast in contrasts):
        raise ValueError("a contrast is two different arms, [better, worse]")


class Change(StrictModel):
    """A change of the file after the day it was written, and why."""

    date: datetime.date
    text: str


class Claims(StrictModel):
    """The whole file."""

    written: datetime.date
    delta: float = Field(gt=0)
    score: Literal["auc", "f1"]
    claim: list[Claim]
    gap: list[Discrepancy]
    change: list[Change] = Field(default_factory=list)

    @property
    def both(self) -> list[Claim | Discrepancy]:
        """Claims, then gaps."""
        return [*self.claim, *self.gap]

    @model_validator(mode="after")
    def _named_once(self) -> "Claims":
        names = [one.id for one in self.both]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice")
        return self


def load_claims(path: Path = NOTEBOOKS / "claims.toml") -> tuple[Claims, str]:
    """The checked claims, and eight hex digits over the bytes of their file.

    Raises:
        UsageError: no TOML, or a claim that is incomplete, mistyped or there twice.
    """
    data = path.read_bytes()
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from None
    return Claims.checked(content, str(path)), hashlib.sha256(data).hexdigest()[:8]


KINDS: tuple[Kind, ...] = ("rendered faces", "recorded faces", "published numbers")
"""Kinds of numbers. A page that rests on several names the first of these."""


class Said(NamedTuple):
    """An entry, the report that it stands in, and what that report is."""

    report: str
    of: Findings
    entry: Entry

    @property
    def verdict(self) -> str:
        """As it is shown: marked if runs of its report are missing."""
        return self.entry.verdict + (" (partial)" if self.of.status == "partial" else "")

    @property
    def place(self) -> str:
        """Link to the section of its report, from the page of another one."""
        return f"../{quote(self.report)}/index.html#{page.anchor(self.entry.section)}"


class Ledger:
    """What the ledger's notebook shows: each claim, how it is decided, and what has become of it.

    The verdict on a claim comes from the reports of its experiment, in any size, and from no other. Any report may
    speak of a gap.

    Args:
        path: the claims.
        reports: folder of the reports, whose findings are read.
        out: folder that gets what the index shows of the ledger; empty saves nothing.

    Raises:
        UsageError: a file of findings is damaged, names an unknown claim or gap, speaks of a claim that another report
            decides, or has a verdict that does not exist.
    """

    def __init__(
        self, path: Path = NOTEBOOKS / "claims.toml", *, reports: Path = REPORTS, out: str | Path = ""
    ) -> None:
        self.claims, self.hash = load_claims(path)
        self.out = Path(out) if str(out) else None
        experiments = {claim.id: claim.experiment for claim in self.claims.claim}
        known = {*experiments, *(gap.id for gap in self.claims.gap)}
        self.said: dict[str, list[Said]] = {name: [] for name in known}
        for report, of in findings.read_all(reports).items():
            for entry in of.entries:
                place = f"{reports / report / findings.FILE}: {entry.id}"
                if entry.id not in known:
                    raise UsageError(f"{place} is neither a claim nor a gap of {path}")
                if entry.id in experiments and without_size(report) != experiments[entry.id]:
                    decides = f"report '{experiments[entry.id]}' decides it" if experiments[entry.id] else UNDECIDABLE
                    raise UsageError(f"{place} has a verdict of report '{report}', but {decides}")
                if entry.verdict not in VERDICTS:
                    raise UsageError(f"{place} has the verdict '{entry.verdict}'; known: {', '.join(VERDICTS)}")
                if of.status != "empty":  # a report without a finished run says nothing of a claim
                    self.said[entry.id].append(Said(report, of, entry))

    def verdict(self, claim: Claim) -> str:
        """What has become of a claim, in plain text: `NOT_RUN`, the verdicts of its reports, or `UNDECIDABLE`."""
        if not claim.experiment:
            return f"{UNDECIDABLE}: {claim.undecidable}"
        limits = f"; {UNDECIDABLE} {claim.undecidable}" if claim.undecidable else ""
        return f"{self.verdicts(claim.id)}{limits}"

    def verdicts(self, name: str) -> str:
        """What the reports say of a claim or gap, in plain text: `NOT_RUN`, or their verdicts."""
        said = self.said[name]
        if not said:
            return NOT_RUN
        each = [one.verdict for one in said]
        if len(said) > 1:
            each = [f"{verdict} in {one.report}" for verdict, one in zip(each, said, strict=True)]
        return "; ".join(each)

    def _counted(self) -> str:
        """How many claims have which verdict."""
        verdicts = Counter(self.verdicts(claim.id) if claim.experiment else UNDECIDABLE for claim in self.claims.claim)
        return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())

    def title(self) -> "Markdown":
        """Heading, and where the claims stand; writes what the index shows of the ledger."""
        gaps = sum(bool(self.said[gap.id]) for gap in self.claims.gap)
        found = (
            f"Of {len(self.claims.claim)} claims: {self._counted()}. Of {len(self.claims.gap)} gaps between the "
            f"release and its text, the field or its past, {gaps} are examined."
        )
        title, question = "What has become of each claim", "Which claims about AUNCE hold?"
        findings.write(self.out, self.about(title, question, found))
        return page.markdown(
            f"# {title}\n\n**Asked.** {question} **Found.** {page.text(found)} The claims were written on "
            f"{self.claims.written.isoformat()} (`notebooks/claims.toml`, hash `{self.hash}`); what [changed "
            "since](#changes-since), and before or after which runs, is below. Delta is "
            f"{self.claims.delta:g} in macro-{'AUC' if self.claims.score == 'auc' else 'F1'}."
        )

    def about(self, title: str, question: str, found: str) -> Findings:
        """What the index shows of a page that is drawn from the ledger: whole if no claim waits for runs."""
        behind = list(itertools.chain.from_iterable(self.said.values()))
        waiting = any(claim.experiment and not self.said[claim.id] for claim in self.claims.claim)
        return Findings(
            title=title,
            question=question,
            found=found,
            kind=next((kind for kind in KINDS if any(one.of.kind == kind for one in behind)), "computation"),
            status="partial" if waiting or any(one.of.status == "partial" for one in behind) else "whole",
        )

    def banner(self) -> "Markdown":
        """Which verdicts rest on rendered faces, and what else limits all of them."""
        rendered = [
            name.id for name in self.claims.both if any(one.of.kind == "rendered faces" for one in self.said[name.id])
        ]
        if not rendered:
            return page.markdown("")
        behind = {one.report: one.of for one in itertools.chain.from_iterable(self.said.values()) if one.of.unflat}
        short = ", ".join(f"{name} {of.unflat} of {of.curves}" for name, of in sorted(behind.items()))
        trained = f" Trainings whose curve had not flattened at the end: {page.text(short)}." if short else ""
        return page.markdown(
            f"> **Rendered faces: the verdicts of {', '.join(rendered)} rest on them.** They were drawn by this "
            "project's renderer; no person and no licensed image is behind a verdict. It says nothing about the same "
            "method on recorded faces. Encoders are small and learn from rendered faces alone, where the paper "
            f"fine-tunes a large one; each arm has one setting, chosen by few trials on other people.{trained}"
        )

    def table(self) -> "Markdown":
        """One row per claim; what is long stands below what is short, so that a screen holds the row."""
        rows = []
        for claim in self.claims.claim:
            said = self.said[claim.id]
            rows.append(
                [
                    _lines(
                        [
                            f"**{claim.id}** {page.text(claim.wording)}",
                            f"*Source*: {page.text(claim.source)}",
                            f"*Decided by*: {page.text(self._experiment(claim))}",
                        ]
                    ),
                    _lines([f"**{page.text(self.verdict(claim))}**", *_because(claim, said), *map(_evidence, said)]),
                    _lines(part for one in said for part in effect(one.entry)),
                    _lines("" if one.entry.replicates is None else str(one.entry.replicates) for one in said),
                    _lines(_number(one.entry.detectable, one.entry.unit, sign="") for one in said),
                ]
            )
        headers = ["Claim", "Verdict and evidence", "Effect (interval)", "Replicates", "Contrast finds at 80 %"]
        return page.markdown(page.table(headers, rows, "lllll"))

    def _experiment(self, claim: Claim) -> str:
        if not claim.experiment:
            return "nothing here"
        how = claim.decided_by
        if claim.contrasts:
            pairs = "; ".join(f"{better} against {worse}" for better, worse in claim.contrasts)
            how = f"{'each of ' if how == 'each' else ''}{pairs}"
        return f"report {claim.experiment}: {how}"

    def changes(self) -> "Markdown":
        """What was changed in the claims since the day they were written, and whether runs were there already."""
        if not self.claims.change:
            return page.markdown("Nothing.")
        rows = [[change.date.isoformat(), page.text(change.text)] for change in self.claims.change]
        return page.markdown(page.table(["Date", "What and why"], rows, "ll"))

    def gaps(self) -> "Markdown":
        """One row per gap."""
        rows = []
        for gap in self.claims.gap:
            said = self.said[gap.id]
            rows.append(
                [
                    f"**{gap.id}** {page.text(gap.wording)}",
                    _lines([f"**{page.text(self.verdicts(gap.id))}**", *_because(gap, said)]),
                    _lines(map(_evidence, said)),
                    page.text(gap.home),
                ]
            )
        return page.markdown(page.table(["What differs", "Verdict", "Evidence", "Where it is examined"], rows, "llll"))


def _because(asked: Claim | Discrepancy, said: Iterable[Said]) -> list[str]:
    """The reasons of its reports, and what its contrasts leave open."""
    return [page.text(one.entry.reason) for one in said] + ([f"*{page.text(asked.limit)}*"] if asked.limit else [])


def _lines(parts: Iterable[str]) -> str:
    """The parts that are not empty, below each other in a cell."""
    return "<br>".join(part for part in parts if part)


def effect(entry: Entry) -> list[str]:
    """What was compared, and its value with the interval, as far as there are such."""
    parts = [page.text(entry.contrast)] if entry.contrast else []
    if entry.value is None:
        return parts
    if entry.replicates is None:
        return [*parts, f"{_number(entry.value, entry.unit, sign='')} (computed)"]
    ends = "no interval"
    if entry.low is not None and entry.high is not None:
        ends = f"{_number(entry.low, '')} to {_number(entry.high, '')}"
    return [*parts, f"{_number(entry.value, entry.unit)} ({ends})"]


def _number(value: float | None, unit: str, *, sign: str = "+") -> str:
    return "" if value is None else f"{page.number(value, f'{sign}.3f')} {page.text(unit)}".strip()


def _evidence(said: Said) -> str:
    return f"[{page.text(f'{said.report}: {said.entry.section}')}]({said.place})"
