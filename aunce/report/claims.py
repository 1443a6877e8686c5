"""Claims, written down before the runs that decide them, and the ledger of what has become of each.

A file of `notebooks/claims` words the claims of one or more studies. Its hash and date stand in the ledger and on the
pages of those studies: they show a claim that was changed after its runs.
"""

import datetime
import difflib
import hashlib
import itertools
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote

from pydantic import Field, model_validator

from aunce.errors import UsageError
from aunce.report import findings, page
from aunce.report.findings import Entry, Findings, Kind
from aunce.statistics import Materiality, Outcome, Verdict
from aunce.study.grid import NOTEBOOKS, REPORTS, without_size
from aunce.study.spec import StrictModel

if TYPE_CHECKING:
    from IPython.display import Markdown

NOT_RUN, UNDECIDABLE = "not run yet", "undecidable here"
"""What the ledger says of a claim without runs, and of a claim that no run here can decide."""

MOVING = ", still moving"
"""Behind an outcome of the second edition that changes with the length of training."""

OUTCOMES = (*map(str, Outcome), *(f"{one}{MOVING}" for one in Outcome), "depends on scale")
VERDICTS = (*map(str, Verdict), *map(str, Materiality), *OUTCOMES, "holds", "does not hold")
"""Verdicts on a claim or a gap. The last two come from a computation or from reading the released code."""


MEASURES = ("difference", "rarity", "noise", "transfer")
"""What may be measured of two methods, see `decide.Comparison`. "transfer", by the rules `looks` alone: the difference
on other data sets minus that at home."""


class Claim(StrictModel):
    """One claim and how it is decided; `notebooks/claims/first.toml` says what the fields mean."""

    id: str = Field(pattern=r"^[CU]\d+[a-z]?$")
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
    """One file of claims.

    Attributes:
        name: of the file, without its ending.
        hash: eight hex digits over its bytes.
    """

    name: str
    hash: str
    written: datetime.date
    delta: float = Field(gt=0)
    score: Literal["auc", "f1"]
    rules: Literal["holm", "looks"] = "holm"
    claim: list[Claim]
    gap: list[Discrepancy] = Field(default_factory=list)
    change: list[Change] = Field(default_factory=list)

    @model_validator(mode="after")
    def _measures_fit_the_rules(self) -> "Claims":
        for claim in self.claim:
            if self.rules == "holm" and (claim.measure == "noise") != bool(claim.noise):
                told = "measure 'noise' needs the noise levels to compare with none, and no other measure has any"
                raise ValueError(f"{claim.id}: {told}")
            if self.rules == "holm" and claim.measure == "transfer":
                raise ValueError(f"{claim.id}: measure 'transfer' needs rules = 'looks'")
        return self

    @property
    def both(self) -> list[Claim | Discrepancy]:
        """Claims, then gaps."""
        return [*self.claim, *self.gap]


FOLDER = NOTEBOOKS / "claims"


def load_claims(folder: Path = FOLDER) -> list[Claims]:
    """The checked files of claims, those written first in front.

    A claim may stand in two files, where two studies decide it.

    Raises:
        UsageError: no TOML; a claim that is incomplete or mistyped; a claim of one study or a gap that is there twice;
            two files with claims of the same study.
    """
    files = sorted(map(_load, folder.glob("*.toml")), key=lambda file: (file.written, file.name))
    if not files:
        raise UsageError(f"{folder}: no file of claims is there")
    places: dict[tuple[str, str], str] = {}
    of_study: dict[str, str] = {}
    for file in files:
        for one in file.both:
            named = (one.id, one.experiment if isinstance(one, Claim) else "")
            if named in places:
                raise UsageError(f"{folder / file.name}.toml: {one.id} stands twice, see {places[named]}.toml")
            places[named] = file.name
            if one.experiment and of_study.setdefault(one.experiment, file.name) != file.name:
                raise UsageError(
                    f"{folder / file.name}.toml: {one.id} is of the study {one.experiment}, and so are claims of "
                    f"{of_study[one.experiment]}.toml; keep the claims of a study in one file"
                )
    return files


def _load(path: Path) -> Claims:
    data = path.read_bytes()
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from None
    return Claims.checked(content | {"name": path.stem, "hash": hashlib.sha256(data).hexdigest()[:8]}, str(path))


def claims_of(experiment: str, folder: Path = FOLDER) -> Claims:
    """The claims and gaps that a study decides, with the rest of their file; of the first file without any."""
    files = load_claims(folder)
    file = next((file for file in files if any(one.experiment == experiment for one in file.both)), files[0])
    kept = {kind: [one for one in getattr(file, kind) if one.experiment == experiment] for kind in ("claim", "gap")}
    return file.model_copy(update=kept)


def decided_by(experiment: str, arms: Collection[str], folder: Path = FOLDER) -> str:
    """What a study decides, in a line; told before its runs, as a slip in a name would leave its claim without any.

    Args:
        experiment: name of the study, without its size.
        arms: names of its arms.
        folder: the files of claims.

    Raises:
        UsageError: a contrast has an arm that the study has not.
    """
    file = claims_of(experiment, folder)
    for one in file.both:
        for arm in itertools.chain(*one.contrasts, one.control if isinstance(one, Claim) else []):
            if arm not in arms:
                close = difflib.get_close_matches(arm, arms, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(arms)}"
                raise UsageError(
                    f"{folder / file.name}.toml: {one.id} compares the arm '{arm}', and the study {experiment} has "
                    f"none of that name; {hint}"
                )
    names = ", ".join(one.id for one in file.both)
    return (
        f"Decides {names} of {file.name}.toml." if names else f"Decides no claim: none has experiment = '{experiment}'."
    )


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


def _by(claim: Claim, said: Iterable[Said]) -> list[Said]:
    """What the reports of the claim's own study say."""
    return [one for one in said if without_size(one.report) == claim.experiment]


def _verdicts(said: list[Said]) -> str:
    if not said:
        return NOT_RUN
    each = [one.verdict for one in said]
    if len(said) > 1:
        each = [f"{verdict} in {one.report}" for verdict, one in zip(each, said, strict=True)]
    return "; ".join(each)


class Ledger:
    """What the ledger's notebook shows: each claim, how it is decided, and what has become of it.

    The verdict on a claim comes from the reports of its experiment, in any size, and from no other. Any report may
    speak of a gap.

    Args:
        folder: the files of claims.
        reports: folder of the reports, whose findings are read.
        out: folder that gets what the index shows of the ledger; empty saves nothing.

    Attributes:
        claims: each claim once, as the newest study with a finished run decides it.
        discrepancies: of all files.
        said: id of a claim or gap -> what reports say of it.
        elsewhere: id of a claim -> the other studies that it is asked of, and what the ledger says there.

    Raises:
        UsageError: a file of findings is damaged, names an unknown claim or gap, speaks of a claim that another report
            decides, or has a verdict that does not exist.
    """

    def __init__(self, folder: Path = FOLDER, *, reports: Path = REPORTS, out: str | Path = "") -> None:
        self.files = load_claims(folder)
        self.out = Path(out) if str(out) else None
        claims = [claim for file in self.files for claim in file.claim]
        self.discrepancies = [gap for file in self.files for gap in file.gap]
        experiments: dict[str, list[str]] = {}
        for claim in claims:
            experiments.setdefault(claim.id, []).append(claim.experiment)
        of: dict[str, list[Said]] = {name: [] for name in [*experiments, *(gap.id for gap in self.discrepancies)]}
        for report, found in findings.read_all(reports).items():
            for entry in found.entries:
                place = f"{reports / report / findings.FILE}: {entry.id}"
                if entry.id not in of:
                    raise UsageError(f"{place} is neither a claim nor a gap of {folder}")
                deciding = [name for name in experiments.get(entry.id, [without_size(report)]) if name]
                if without_size(report) not in deciding:
                    decides = f"report '{' or '.join(deciding)}' decides it" if deciding else UNDECIDABLE
                    raise UsageError(f"{place} has a verdict of report '{report}', but {decides}")
                if entry.verdict not in VERDICTS:
                    raise UsageError(f"{place} has the verdict '{entry.verdict}'; known: {', '.join(VERDICTS)}")
                if found.status != "empty":  # a report without a finished run says nothing of a claim
                    of[entry.id].append(Said(report, found, entry))
        newest: dict[str, Claim] = {}
        for claim in claims:
            if claim.id not in newest or _by(claim, of[claim.id]):
                newest[claim.id] = claim
        self.claims = list(newest.values())
        self.said = of | {name: _by(claim, of[name]) for name, claim in newest.items()}
        self.elsewhere: dict[str, dict[str, str]] = {name: {} for name in newest}
        for claim in claims:
            if claim is not newest[claim.id]:
                self.elsewhere[claim.id][claim.experiment] = _verdicts(_by(claim, of[claim.id]))

    def verdict(self, claim: Claim) -> str:
        """What has become of a claim, in plain text: `NOT_RUN`, the verdicts of its reports, or `UNDECIDABLE`."""
        if not claim.experiment:
            return f"{UNDECIDABLE}: {claim.undecidable}"
        limits = f"; {UNDECIDABLE} {claim.undecidable}" if claim.undecidable else ""
        return f"{self.verdicts(claim.id)}{limits}"

    def verdicts(self, name: str) -> str:
        """What the reports say of a claim or gap, in plain text: `NOT_RUN`, or their verdicts."""
        return _verdicts(self.said[name])

    def _counted(self) -> str:
        """How many claims have which verdict."""
        verdicts = Counter(self.verdicts(claim.id) if claim.experiment else UNDECIDABLE for claim in self.claims)
        return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())

    def title(self) -> "Markdown":
        """Heading, and where the claims stand; writes what the index shows of the ledger."""
        examined = sum(bool(self.said[gap.id]) for gap in self.discrepancies)
        found = (
            f"Of {len(self.claims)} claims: {self._counted()}. Of {len(self.discrepancies)} gaps between the "
            f"release and its text, the field or its past, {examined} are examined."
        )
        title, question = "What has become of each claim", "Which claims hold?"
        findings.write(self.out, self.about(title, question, found))
        return page.markdown(
            f"# {title}\n\n**Asked.** {question} **Found.** {page.text(found)} {self.written()}; what [changed "
            "since](#changes-since), and before or after which runs, is below."
        )

    def written(self) -> str:
        """When the claims of each file were written, and the smallest difference that counts there; Markdown."""
        each = [
            f"{file.written.isoformat()} (`notebooks/claims/{file.name}.toml`, hash `{file.hash}`, delta "
            f"{file.delta:g} in macro-{'AUC' if file.score == 'auc' else 'F1'})"
            for file in self.files
        ]
        return f"The claims were written on {', '.join(each)}"

    def about(self, title: str, question: str, found: str) -> Findings:
        """What the index shows of a page that is drawn from the ledger: whole if no claim waits for runs."""
        behind = list(itertools.chain.from_iterable(self.said.values()))
        waiting = any(claim.experiment and not self.said[claim.id] for claim in self.claims)
        return Findings(
            title=title,
            question=question,
            found=found,
            kind=next((kind for kind in KINDS if any(one.of.kind == kind for one in behind)), "computation"),
            status="partial" if waiting or any(one.of.status == "partial" for one in behind) else "whole",
        )

    def banner(self) -> "Markdown":
        """Which verdicts rest on rendered faces, and what else limits all of them."""
        both: list[Claim | Discrepancy] = [*self.claims, *self.discrepancies]
        rendered = [one.id for one in both if any(said.of.kind == "rendered faces" for said in self.said[one.id])]
        if not rendered:
            return page.markdown("")
        behind = {one.report: one.of for one in itertools.chain.from_iterable(self.said.values()) if one.of.unflat}
        short = ", ".join(f"{name} {of.unflat} of {of.curves}" for name, of in sorted(behind.items()))
        trained = f" Trainings whose curve had not flattened at the end: {page.text(short)}." if short else ""
        return page.markdown(
            f"> **Rendered faces: the verdicts of {', '.join(rendered)} rest on them.** They were drawn by this "
            "project's renderer; no person and no licensed image is behind a verdict. It says nothing about the same "
            "method on recorded faces. Encoders are small and learn from rendered faces alone, where the paper "
            f"fine-tunes a large one; each arm has one setting, chosen by few trials on other people "
            f"unless its page says otherwise.{trained}"
        )

    def table(self) -> "Markdown":
        """One row per claim; what is long stands below what is short, so that a screen holds the row."""
        rows = []
        for claim in self.claims:
            said = self.said[claim.id]
            rows.append(
                [
                    _lines(
                        [
                            f"**{claim.id}** {page.text(claim.wording)}",
                            f"*Source*: {page.text(claim.source)}",
                            f"*Decided by*: {page.text(self._experiment(claim))}",
                            *self._elsewhere(claim),
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

    def _elsewhere(self, claim: Claim) -> list[str]:
        return [
            f"*Asked by {page.text(experiment)}, too*: {page.text(verdicts)}"
            for experiment, verdicts in self.elsewhere[claim.id].items()
        ]

    def changes(self) -> "Markdown":
        """What was changed in the claims since the day they were written, and whether runs were there already."""
        rows = [
            [change.date.isoformat(), f"{file.name}.toml", page.text(change.text)]
            for file in self.files
            for change in file.change
        ]
        return page.markdown(page.table(["Date", "File", "What and why"], rows, "lll") if rows else "Nothing.")

    def gaps(self) -> "Markdown":
        """One row per gap."""
        rows = []
        for gap in self.discrepancies:
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
