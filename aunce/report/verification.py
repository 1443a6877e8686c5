"""Whether a committed report follows from its tables, and whether these are the tables that were collected."""

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aunce.errors import RunError, UsageError
from aunce.report import page
from aunce.study.grid import NOTEBOOKS, Study
from aunce.study.state import read_json, read_state

_NUMBER = re.compile(r"([-−]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
_ROUNDING = 1e-4
"""Relative difference that counts as rounding: figures have six digits, and sums depend on the processor."""


def hashes(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the tables in `folder`, for `provenance.json`."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.parquet"))}


def changed(folder: Path, collected: Mapping[str, Any]) -> list[str]:
    """The tables in `folder` that differ from those with the hashes `collected`: a line for each, its name first."""
    return _changed(hashes(folder), collected, "is not the table that was collected")


def _changed(there: Mapping[str, str], wanted: Mapping[str, Any], otherwise: str) -> list[str]:
    wrong = []
    for name in sorted(there.keys() | wanted.keys()):
        if name not in wanted:
            wrong.append(f"{name}: does not belong here, it has no hash")
        elif name not in there:
            wrong.append(f"{name}: is gone")
        elif there[name] != wanted[name]:
            wrong.append(f"{name}: {otherwise}")
    return wrong


@dataclass
class Verified:
    """What was looked at: a line for each thing that is wrong, and what was, and could not be, checked."""

    wrong: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def verify_page(folder: Path) -> Verified:
    """Compare the files of a page with the hashes that were written when it was drawn.

    Raises:
        UsageError: there is no page.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no page that could be verified")
    found = Verified()
    there = page.drawn_hashes(folder)
    kinds = [Path(name).suffix.lstrip(".").upper() for name in there if name.startswith("figures/")]
    names = [name for name in there if not name.startswith("figures/")]
    listed = [*names, *(f"{count} {kind} of figures" for kind, count in sorted(Counter(kinds).items()))]
    drawn = read_json(folder / page.DRAWN)
    if not (folder / page.DRAWN).exists():
        found.unchecked.append(f"the bytes of {', '.join(listed)}, as the page has no {page.DRAWN}")
    elif isinstance(drawn, str):
        found.wrong.append(f"{page.DRAWN}: {drawn}")
    else:
        found.wrong += _changed(there, drawn, "is not the file that was drawn")
        found.checked += listed
    return found


def verify(study: Study) -> Verified:
    """What no longer matches in the report of `study`.

    Every table, file of the page and finished run is compared with its hash. Then the page is drawn again in a
    temporary folder: its text, findings and the numbers of its figures are compared with those that are there.

    Raises:
        UsageError: there is no report.
    """
    folder, name = study.folder, "provenance.json"
    if not (folder / name).exists():
        raise UsageError(f"study '{study.name}': no report that can be verified in {folder}")
    found = verify_page(folder)
    provenance = read_json(folder / name)
    if not isinstance(provenance, str) and not isinstance(provenance.get("files"), dict):
        provenance = f"{name} has no valid 'files'"
    if isinstance(provenance, str):
        found.wrong.append(provenance)
    else:
        if provenance.get("study_hash") != study.hash:
            found.wrong.append(f"{study.path.name}: not the file that the runs were made from")
        found.wrong += changed(folder, provenance["files"])
        found.checked.append(page.count(len(provenance["files"]), "table"))
    _verify_runs(study, found)
    notebook, parameters = NOTEBOOKS / f"{study.report}.ipynb", {"tables": str(folder)}
    with TemporaryDirectory(prefix="aunce-verify-") as again:
        try:
            page.render(notebook, parameters, Path(again), title=study.title, study=study.name)
        except RunError as error:
            found.wrong.append(f"the page cannot be drawn from the tables: {error}")
        else:
            told = dict(_differences(folder, Path(again)))  # says more than a hash
            found.wrong = [line for line in found.wrong if line.partition(": ")[0] not in told] + [*told.values()]
            found.checked.append("report.md, findings.json and the figures' CSV against a page drawn again")
    return found


def _verify_runs(study: Study, found: Verified) -> None:
    done = unsealed = 0
    for run in (*study.pretexts, *study.runs):
        if not run.folder.is_dir():
            continue
        state = read_state(run.folder, run.key, run.spec.model_dump())
        if state.name == "damaged":
            found.wrong.append(f"runs/{run.key}: {state.why}")
        done, unsealed = (
            done + (state.name == "done" and state.checked),
            unsealed + (state.name == "done" and not state.checked),
        )
    if done:
        found.checked.append(f"every file of {page.count(done, 'finished run')}")
    else:
        found.unchecked.append("runs, as none with hashes is here")
    if unsealed:
        found.unchecked.append(f"{page.count(unsealed, 'run')} of an earlier version, without hashes")


def _differences(folder: Path, again: Path) -> Iterator[tuple[str, str]]:
    """Name of a file, and the first line of it that differs from the page drawn again."""
    names = ["report.md", "findings.json"]
    names += sorted({f"figures/{path.name}" for one in (folder, again) for path in (one / "figures").glob("*.csv")})
    for name in names:
        if not (folder / name).is_file() or not (again / name).is_file():
            yield name, f"{name}: {'is gone' if (again / name).is_file() else 'is not drawn from the tables'}"
            continue
        # Whatever bytes are there: a damaged file differs, and is no reason to stop.
        written, computed = ((one / name).read_text("utf-8", "replace").splitlines() for one in (folder, again))
        for number in range(max(len(written), len(computed))):
            old, new = (lines[number] if number < len(lines) else "" for lines in (written, computed))
            if not _alike(old, new):
                same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
                start = max(0, same - 40)
                shown = old[start : start + 120], new[start : start + 120]
                yield name, f"{name}, line {number + 1}: {shown[0]!r} stands there, {shown[1]!r} is computed"
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
