"""Whether a committed report follows from its tables, and whether these are the tables that were collected."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from aunce.errors import RunError, UsageError
from aunce.report import page
from aunce.study.grid import NOTEBOOKS, Study

_NUMBER = re.compile(r"([-−]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
_ROUNDING = 1e-4
"""Relative difference that counts as rounding: figures have six digits, and sums depend on the processor."""


def hashes(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the tables in `folder`, for `provenance.json`."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.parquet"))}


def changed(folder: Path, collected: dict[str, str]) -> list[str]:
    """The tables in `folder` that differ from those with the hashes `collected`: a line for each, its name first."""
    wrong, there = [], hashes(folder)
    for name in sorted(collected | there):
        if name not in collected:
            wrong.append(f"{name}: has no hash in provenance.json")
        elif name not in there:
            wrong.append(f"{name}: is gone")
        elif there[name] != collected[name]:
            wrong.append(f"{name}: is not the table that was collected")
    return wrong


def verify(study: Study) -> list[str]:
    """What no longer matches in the report of `study`, a line for each; an empty list if everything matches.

    The hashes of the tables are compared with `provenance.json`. Then the page is drawn again in a temporary folder:
    its text, findings and the numbers of its figures are compared with the committed ones.

    Raises:
        UsageError: there is no report.
    """
    folder = study.folder
    try:
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        collected, study_hash = dict(provenance.get("files", {})), str(provenance["study_hash"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"study '{study.name}': no report that can be verified in {folder} ({error})") from None
    wrong = []
    if study_hash != study.hash:
        wrong.append(f"{study.path.name}: not the file that the runs were made from")
    wrong += changed(folder, collected)
    notebook, parameters = NOTEBOOKS / f"{study.report}.ipynb", {"tables": str(folder)}
    with TemporaryDirectory(prefix="aunce-verify-") as again:
        try:
            page.render(notebook, parameters, Path(again), title=study.title, study=study.name)
        except RunError as error:
            return [*wrong, f"the page cannot be drawn from the tables: {error}"]
        return [*wrong, *_differences(folder, Path(again))]


def _differences(folder: Path, again: Path) -> Iterator[str]:
    names = ["report.md", "findings.json"]
    names += sorted({f"figures/{path.name}" for one in (folder, again) for path in (one / "figures").glob("*.csv")})
    for name in names:
        if not (folder / name).is_file() or not (again / name).is_file():
            yield f"{name}: {'is gone' if (again / name).is_file() else 'is not drawn from the tables'}"
            continue
        written, computed = ((one / name).read_text(encoding="utf-8").splitlines() for one in (folder, again))
        for number in range(max(len(written), len(computed))):
            old, new = (lines[number] if number < len(lines) else "" for lines in (written, computed))
            if not _alike(old, new):
                same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
                start = max(0, same - 40)
                shown = old[start : start + 120], new[start : start + 120]
                yield f"{name}, line {number + 1}: {shown[0]!r} stands there, {shown[1]!r} is computed"
                break


def _alike(old: str, new: str) -> bool:
    """Whether two lines differ in nothing but the rounding of their numbers."""
    if old == new:
        return True
    first, second = _NUMBER.split(old), _NUMBER.split(new)
    if first[::2] != second[::2]:
        return False
    pairs = zip(first[1::2], second[1::2], strict=True)
    return all(math.isclose(_value(a), _value(b), rel_tol=_ROUNDING) for a, b in pairs)


def _value(text: str) -> float:
    return float(text.replace("−", "-"))
