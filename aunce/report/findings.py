"""What a report found, in one small file beside its page: the ledger and the index are drawn from these files alone.

A report's notebook writes `findings.json` from the same tables as the page. Infinite and undefined numbers are null
there, as an interval without ends says nothing.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from aunce import files
from aunce.errors import UsageError
from aunce.statistics import Estimate
from aunce.study.spec import StrictModel

FILE = "findings.json"

Kind = Literal["rendered faces", "recorded faces", "published numbers", "computation", "none yet"]
"""What the numbers of a report are made of."""


class Entry(StrictModel):
    """What a report says of one claim or gap.

    Attributes:
        id: of the claim or gap in `notebooks/claims`.
        verdict: one of `statistics.Verdict`, `Materiality` or, by the rules of the second edition, `Outcome`; or
            "holds" and "does not hold" for what is proven by computation.
        contrast: what was compared, the worst contrast if there were several.
        value: of the contrast, with its interval (low, high), all in `unit`.
        unit: "AUC", "F1 points", or what the reason explains.
        replicates: how many the interval is over.
        detectable: the true difference that so many replicates find with a power of 80 %.
        reason: one sentence, with the numbers of a proof.
        section: heading of the page where the evidence stands.
    """

    id: str = Field(pattern=r"^[CUD]\d+[a-z]?$")
    verdict: str
    contrast: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    replicates: int | None = None
    detectable: float | None = None
    reason: str
    section: str

    @classmethod
    def of(cls, estimate: Estimate, *, detectable: float, **fields: Any) -> "Entry":
        """An entry with the numbers of an estimate; `fields` are the texts."""
        numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "detectable": detectable}
        finite: dict[str, Any] = {name: number for name, number in numbers.items() if math.isfinite(number)}
        return cls(replicates=estimate.n, **finite, **fields)


class Findings(StrictModel):
    """One report in one line, and what it says of claims and gaps.

    Attributes:
        title: of the report.
        question: that it asks.
        found: its answer, one or two sentences of plain text.
        kind: what its numbers are made of. Where a report is named, rendered faces are named too.
        status: partial if runs failed or are missing.
        runs: finished runs behind it, 0 for a report that trains nothing.
        hours: of work of all runs.
        hardware: of the runs.
        curves: finished runs of arms that train.
        unflat: those of them whose curve had not flattened at the end.
        entries: claims and gaps that it speaks of.
    """

    title: str
    question: str
    found: str
    kind: Kind
    status: Literal["whole", "partial", "empty"] = "whole"
    runs: int = 0
    hours: float = 0.0
    hardware: str = ""
    curves: int = 0
    unflat: int = 0
    entries: list[Entry] = Field(default_factory=list)


def write(out: Path | None, findings: Findings) -> None:
    """Write `findings.json` below `out`; nothing if nothing is to be saved (None)."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        files.write(out / FILE, json.dumps(findings.model_dump(), indent=1, ensure_ascii=False) + "\n")


def read(folder: Path) -> Findings:
    """The findings of the report in `folder`.

    Raises:
        UsageError: the file is no JSON or does not hold findings.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [Entry.checked(entry, str(path)) for entry in content.pop("entries")]
        return Findings.checked(content | {"entries": entries}, str(path))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: not the findings of a report ({error}); draw the report again") from None


def read_all(reports: Path) -> dict[str, Findings]:
    """Name of the folder -> findings, for every report below `reports` that has some, at any depth.

    Folders of runs are left out, and hidden ones, where pages lie while they are made.
    """
    names = sorted(path.parent.relative_to(reports) for path in reports.rglob(FILE))
    return {
        name.as_posix(): read(reports / name)
        for name in names
        if not any(part == "runs" or part.startswith(".") for part in name.parts)
    }
