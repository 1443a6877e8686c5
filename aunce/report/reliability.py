"""Tables of what was done to studies, from `tests/faults/record.py` to `notebooks/reliability.ipynb`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from aunce.errors import UsageError
from aunce.report import page

if TYPE_CHECKING:
    from IPython.display import Markdown

OUTCOMES = ("found and said", "healed by the same command", "harmless", "taken for valid", "traceback")
"""What may become of a damaged file, see the page."""
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGSTOP")
WHERE = ["hardware", "revision"]
TABLES = {
    "strikes": [
        *(
            "trial",
            "victim",
            "signal",
            "lived_s",
            "seconds",
            "runs",
            "lost",
            "repeated",
            "differing",
            "orphans",
            "left",
        ),
        *WHERE,
    ],
    "damages": ["group", "file", "kind", "outcome", "seconds", *WHERE],
    "inputs": ["group", "tried", "failed", *WHERE],
    "slurm": ["fault", "survived", *WHERE],
    "engine": ["commands", "together", "jobs", "seconds", "bare_s", *WHERE],
}
"""Name of a table -> its columns. A row of `strikes` is a signal to a process, with what was found at the end of its
trial, which took `seconds` in all; one of `damages` is a damaged file, with what became of it; one of `engine` is a
study of stub commands: `together` in one job, `jobs` in all, beside `bare_s` of a command without engine."""


def read(folder: Path) -> dict[str, pd.DataFrame]:
    """All `TABLES` from the CSV files of a folder. A table that was not recorded has no row.

    Raises:
        UsageError: a table is not what `record.py` writes.
    """
    tables = {}
    for name, columns in TABLES.items():
        path = folder / f"{name}.csv"
        tables[name] = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=columns)
        if list(tables[name]) != columns:
            raise UsageError(f"{path}: expected the columns {', '.join(columns)}; write it again: {_command(name)}")
    return tables


def shown(
    name: str, recorded: pd.DataFrame, headers: Sequence[str], rows: Sequence[Sequence[str]], align: str
) -> "Markdown":
    """A table for the page (see `page.table`), the command that records it again, and where `recorded` comes from."""
    drawn = page.table(headers, rows, align) if rows else "*Not recorded yet.*"
    hardware, revision = (page.text(", ".join(recorded[one].astype(str).drop_duplicates())) for one in WHERE)
    where = f" Recorded on: {hardware}, revision {revision}{_hours(recorded)}." if rows else ""
    return page.markdown(f"{drawn}\n\nRepeat: `{_command(name)}`.{where}")


def _hours(recorded: pd.DataFrame) -> str:
    """How long it took; trials have one time for all of their rows."""
    if "seconds" not in recorded or "jobs" in recorded:
        return ""
    each = recorded.drop_duplicates("trial") if "trial" in recorded else recorded
    return f", in {each['seconds'].sum() / 3600:.1f} hours of work"


def _command(name: str) -> str:
    return f"python tests/faults/record.py {name}"
