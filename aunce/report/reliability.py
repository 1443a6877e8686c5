"""The page on reliability: what was done to studies, what was lost, and what the engine costs.

It shows the tables that `tests/faults/record.py` recorded. A trial that was not done has no row.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from aunce.errors import UsageError
from aunce.report import findings, page
from aunce.study.grid import REPORTS

if TYPE_CHECKING:
    from IPython.display import Markdown

QUESTION = "Is anything lost or done twice when processes are killed, input is hostile, or a cluster fails?"
WHERE = ["hardware", "revision"]
TABLES = {
    "kills": ["trial", "victim", "lived_s", "runs", "lost", "repeated", "differing", "orphans", "left", *WHERE],
    "inputs": ["group", "tried", "failed", *WHERE],
    "slurm": ["fault", "survived", *WHERE],
    "engine": ["commands", "together", "jobs", "seconds", "bare_s", *WHERE],
}
"""Name of a table -> its columns. A row of `kills` is a kill, with what was found at the end of its trial; one of
`engine` a study of stub commands: `together` in one job, `jobs` in all, beside `bare_s` of a command without engine."""


def command(name: str) -> str:
    """The command that records a table again."""
    return f"python tests/faults/record.py {name}"


class Reliability:
    """The page.

    Args:
        tables: folder of the recorded tables; empty takes the committed ones.
        out: folder for the findings; empty saves nothing.

    Raises:
        UsageError: a table is not what `record.py` writes.
    """

    def __init__(self, *, tables: str = "", out: str = "") -> None:
        self.folder, self.out = Path(tables or REPORTS / "reliability"), Path(out) if out else None
        self.tables = {name: self._read(name) for name in TABLES}

    def _read(self, name: str) -> pd.DataFrame:
        path = self.folder / f"{name}.csv"
        if not path.is_file():
            return pd.DataFrame(columns=TABLES[name])
        table = pd.read_csv(path)
        if list(table) != TABLES[name]:
            raise UsageError(f"{path}: expected the columns {', '.join(TABLES[name])}; write it again: {command(name)}")
        return table

    def title(self) -> "Markdown":
        """Heading and question."""
        return page.markdown(f"# What survives\n\n**{QUESTION}**")

    def verdicts(self) -> "Markdown":
        """Runs lost, done twice or harmed over all trials, and tables not recorded; also writes the findings."""
        kills, inputs, slurm = (self.tables[name] for name in ("kills", "inputs", "slurm"))
        said = []
        if len(kills):
            trials = kills.drop_duplicates("trial")[["runs", "lost", "repeated", "differing", "orphans", "left"]].sum()
            said.append(
                f"{len(kills)} times a process was killed at a random moment, in "
                f"{page.count(kills['trial'].nunique(), 'trial')} of a small study. Of {trials['runs']} runs "
                f"{trials['lost']} were lost and {trials['repeated']} done twice{_at_most(*trials[['lost', 'runs']])}; "
                f"{trials['differing']} had numbers "
                "that are not, bit for bit, those of a study that nobody interrupted; "
                f"{trials['orphans']} processes and {page.count(trials['left'], 'file')} stayed behind."
            )
        if len(inputs):
            said.append(f"Of {inputs['tried'].sum():,} hostile or damaged inputs, {inputs['failed'].sum()} did harm.")
        if len(slurm):
            said.append(f"{slurm['survived'].sum()} of {page.count(len(slurm), 'fault')} of a Slurm cluster survived.")
        missing = [name for name, table in self.tables.items() if table.empty]
        if missing:
            said.append(f"Not recorded yet: {', '.join(missing)}.")
        hardware = pd.concat([table["hardware"] for table in self.tables.values()]).dropna()
        about = findings.Findings(
            title="What survives",
            question=QUESTION,
            found=" ".join(said),
            kind="computation",
            status="partial" if missing else "whole",
            hardware="; ".join(hardware.drop_duplicates()),
        )
        findings.write(self.out, about)
        return page.markdown(" ".join(said))

    def kills(self) -> "Markdown":
        """One row per kind of process, with when it was killed."""
        table = self.tables["kills"]
        rows = [
            [page.text(kind), f"{len(part)}", _span(part["lived_s"])]
            for kind, part in table.groupby("victim", sort=False)
        ]
        return self._shown("kills", ["Killed", "Times", "Seconds after it was seen first"], rows, "lrr")

    def inputs(self) -> "Markdown":
        """One row per group of hostile or damaged inputs."""
        rows = [[page.text(row.group), f"{row.tried:,}", str(row.failed)] for row in self.tables["inputs"].itertuples()]
        return self._shown("inputs", ["Input", "Tried", "Did harm"], rows, "lrr")

    def slurm(self) -> "Markdown":
        """One row per fault on a real Slurm."""
        rows = [[page.text(row.fault), "yes" if row.survived else "no"] for row in self.tables["slurm"].itertuples()]
        return self._shown("slurm", ["Fault", "Survived"], rows, "ll")

    def engine(self) -> "Markdown":
        """Time of the engine for commands that do nothing, and of such a command alone."""
        rows = [
            [
                f"{row.commands:,}",
                f"{row.together}",
                f"{row.jobs:,}",
                f"{row.seconds:.1f}",
                f"{1e3 * row.seconds / row.commands:.0f}",
                f"{1e3 * row.bare_s:.0f}",
            ]
            for row in self.tables["engine"].itertuples()
        ]
        each = ("Per command, all cores at work, ms", "One command alone, ms")
        headers = ["Commands", "In one job", "Jobs", "Seconds", *each]
        return self._shown("engine", headers, rows, "rrrrrr")

    def _shown(self, name: str, headers: list[str], rows: list[list[str]], align: str) -> "Markdown":
        drawn = page.table(headers, rows, align) if rows else "*Not recorded yet.*"
        hardware, revision = (", ".join(self.tables[name][one].astype(str).drop_duplicates()) for one in WHERE)
        where = f" Recorded on: {page.text(hardware)}, revision {page.text(revision)}." if rows else ""
        return page.markdown(f"{drawn}\n\nRepeat: `{command(name)}`.{where}")


def _at_most(lost: int, runs: int) -> str:
    """If none was lost, the upper end of a one-sided 95 % interval of the share lost: 1 - .05 ** (1 / runs)."""
    return "" if lost else f" (so up to {1 - 0.05 ** (1 / runs):.0%} may be lost, at 95 %)"


def _span(seconds: pd.Series) -> str:
    low, high = (f"{value:.1f}" for value in (seconds.min(), seconds.max()))
    return low if low == high else f"{low} to {high}"
