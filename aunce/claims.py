"""Claims, written down before the runs that decide them, and the ledger of what has become of each.

`notebooks/claims.toml` is the one place where a claim is worded. Its hash and date stand in every ledger, so that a
claim that was changed after its runs is seen to be.
"""

import datetime
import hashlib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from aunce import page
from aunce.errors import UsageError
from aunce.study import NOTEBOOKS, StrictModel

if TYPE_CHECKING:
    from IPython.display import Markdown

NOT_RUN, UNDECIDABLE = "not run yet", "undecidable here"
"""What is said of a claim without runs, and of one that no run here can decide."""


class Claim(StrictModel):
    """One claim and how it is decided; `notebooks/claims.toml` says what the fields mean."""

    id: str = Field(pattern=r"^[CU]\d+$")
    wording: str
    source: str
    experiment: str = ""
    decided_by: str = ""
    contrasts: list[list[str]] = Field(default_factory=list)
    undecidable: str = ""

    @model_validator(mode="after")
    def _can_be_decided(self) -> "Claim":
        if not (self.experiment and self.decided_by) and not self.undecidable:
            raise ValueError("needs experiment and decided_by, or why it is undecidable")
        if self.decided_by == "each" and not self.contrasts:
            raise ValueError("is decided by each of its contrasts and has none")
        if any(len(contrast) != 2 or contrast[0] == contrast[1] for contrast in self.contrasts):
            raise ValueError("a contrast is two different arms, [better, worse]")
        return self


class Gap(StrictModel):
    """A difference between the release and its text, the field, or its own past; and where it is examined."""

    id: str = Field(pattern=r"^D\d+$")
    wording: str
    home: str


class Claims(StrictModel):
    """The whole file."""

    written: datetime.date
    delta: float = Field(gt=0)
    score: Literal["auc", "f1"]
    claim: list[Claim]
    gap: list[Gap]

    @model_validator(mode="after")
    def _named_once(self) -> "Claims":
        names = [claim.id for claim in self.claim] + [gap.id for gap in self.gap]
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


class Ledger:
    """What the ledger's notebook shows: each claim, how it is decided, and what has become of it.

    Args:
        path: the claims.
    """

    def __init__(self, path: Path = NOTEBOOKS / "claims.toml") -> None:
        self.claims, self.hash = load_claims(path)

    def verdict(self, claim: Claim) -> str:
        """`NOT_RUN`, or `UNDECIDABLE` and why: a verdict needs the report of the claim's experiment."""
        return NOT_RUN if claim.experiment else f"{UNDECIDABLE}: {claim.undecidable}"

    def title(self) -> "Markdown":
        """Heading, and where the claims stand."""
        count = len(self.claims.claim)
        waiting = sum(self.verdict(claim) == NOT_RUN for claim in self.claims.claim)
        return page.markdown(
            "# What has become of each claim\n\n**Asked.** Which claims about AUNCE hold? **Found.** Of "
            f"{count} claims, {waiting} are {NOT_RUN} and {count - waiting} are {UNDECIDABLE}. The claims were written "
            f"on {self.claims.written.isoformat()} (`notebooks/claims.toml`, hash `{self.hash}`), before the runs that "
            f"decide them. Delta is {self.claims.delta:g} in macro-{'AUC' if self.claims.score == 'auc' else 'F1'}."
        )

    def table(self) -> "Markdown":
        """One row per claim."""
        rows = [
            [claim.id, *map(page.text, (claim.wording, claim.source, self._experiment(claim), self.verdict(claim)))]
            for claim in self.claims.claim
        ]
        return page.markdown(page.table(["Claim", "Wording", "Source", "Decided by", "Verdict"], rows, "lllll"))

    def _experiment(self, claim: Claim) -> str:
        if not claim.experiment:
            return ""
        how = claim.decided_by
        if claim.contrasts:
            pairs = "; ".join(f"{better} against {worse}" for better, worse in claim.contrasts)
            how = f"{'each of ' if how == 'each' else ''}{pairs}"
        limits = f"; undecidable {claim.undecidable}" if claim.undecidable else ""
        return f"report {claim.experiment}: {how}{limits}"

    def gaps(self) -> "Markdown":
        """One row per gap."""
        rows = [[gap.id, page.text(gap.wording), page.text(gap.home)] for gap in self.claims.gap]
        return page.markdown(page.table(["Gap", "What differs", "Where it is examined"], rows, "lll"))
