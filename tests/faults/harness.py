"""Strikes the parts of a study at seeded random moments, does it again until it is done, and looks at what is left.

Used by tests/test_faults.py, and by record.py for the page in reports/reliability.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from unittest import mock

import pandas as pd
import psutil

from aunce.data.layout import MARKER
from aunce.processes import lives
from aunce.report.reliability import SIGNALS
from aunce.study import engine
from aunce.study.grid import PROJECT, load_study

STUDY = """
[study]
title = "Tiny study"
question = "Does it end as if nothing had happened?"
report = "laptop"
[data]
subjects = 12
frames = 8
size = 32
[base]
pixels = 32
channels = 8
epochs = 4
checks = 2
probe_epochs = 5
[axes.arm]
"BCE" = { method = "bce" }
"AUNCE" = { method = "aunce" }
"raw pixels" = { method = "pixels" }
"""
VICTIMS = {
    "rendering": (2, lambda words, parent, drawn: (" prepare " in words or "spawn_main" in words) and not drawn),
    "packing": (1, lambda words, parent, drawn: " prepare " in words and drawn),
    "kernel of a run": (4, lambda words, parent, drawn: "ipykernel_launcher" in words and " run " in parent),
    "aunce run with papermill": (4, lambda words, parent, drawn: "-m aunce run " in words and "bash" not in words),
    "Snakemake": (4, lambda words, parent, drawn: "-m snakemake " in words),
    "kernel of the page": (
        3,
        lambda words, parent, drawn: "ipykernel_launcher" in words and "-m aunce study " in parent,
    ),
    "aunce study": (4, lambda words, parent, drawn: "-m aunce study " in words),
    "aunce study and its process group": (8, lambda words, parent, drawn: "-m aunce study " in words),
}
"""Kind of process -> seconds within which it is killed, about as long as it lives at least; and whether a process is of
it, by its own command line, its parent's, and whether all faces are drawn. In the order of a study."""
STOPPED_S = 3  # after which what was stopped goes on
LONGEST_S = 900


def order(count, seed):
    """`count` strikes, a kind of victim and a signal each: all of them in turn, what comes early in a study first."""
    kinds = list(VICTIMS)
    turns = [
        (kinds[(seed + number) % len(kinds)], SIGNALS[(number + 2 * seed + seed // 3) % len(SIGNALS)])
        for number in range(count)
    ]
    return sorted(turns, key=lambda turn: kinds.index(turn[0]))


class Trial:
    """One small study, in `folder`, with data and reports of its own."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "tiny.toml").write_text(STUDY)
        self.places = {"AUNCE_DATA": str(folder / "data"), "AUNCE_REPORTS": str(folder / "reports")}
        with mock.patch("aunce.study.grid.REPORTS", folder / "reports"):
            self.study = load_study(str(folder / "tiny.toml"))
            self.runs, self.report = self.study.runs, self.study.folder
        self.first_done = {}
        self.family = {}
        self.process = None

    def start(self):
        with (self.folder / "log").open("a") as log:
            command = [sys.executable, "-m", "aunce", "study", self.study.path]
            options = {"stdout": log, "stderr": log, "env": os.environ | self.places, "start_new_session": True}
            self.process = subprocess.Popen(command, **options)

    def look(self):
        """Note who is at work and which runs are done; True while the study is at work."""
        for run in self.runs:
            if run.key not in self.first_done and run.state == "done":
                self.first_done[run.key] = (run.folder / "metrics.json").stat().st_mtime_ns
        if self.process is None or self.process.poll() is not None:
            return False
        parent = psutil.Process(self.process.pid)
        self.family |= {one.pid: one for one in [parent, *parent.children(recursive=True)]}
        return True

    def strike(self, kind, name, choose):
        """Send a signal to one process of this kind at a random moment after it turned up; the seconds it lived since.

        None if it ended before that moment, so that the study is not over before the next kind had its turn; or if the
        study ended without one: nothing of the kind was left to do.
        """
        until = time.monotonic() + LONGEST_S
        wait, seen, started_again = choose.uniform(0, VICTIMS[kind][0]), None, False
        while time.monotonic() < until:
            if not self.look():
                if started_again and seen is None:
                    return None
                started_again = True
                self.start()
            found = [one for one in list(self.family.values()) if self._is(kind, one)]
            if found and seen is None:
                seen = time.monotonic()
            if found and time.monotonic() - seen >= wait:
                try:
                    self._send(kind, choose.choice(found), name)
                except (psutil.NoSuchProcess, ProcessLookupError):  # it has ended by itself in this moment
                    return None
                return time.monotonic() - seen
            if seen is not None and not found:
                return None
            time.sleep(0.02)
        raise TimeoutError(f"no {kind} in {LONGEST_S} s; see {self.folder / 'log'}")

    def _send(self, kind, process, name):
        def send(number):
            os.killpg(process.pid, number) if "group" in kind else process.send_signal(number)

        send(getattr(signal, name))
        if name == "SIGSTOP":
            time.sleep(STOPPED_S)
            send(signal.SIGCONT)

    def _is(self, kind, process):
        try:
            parent = process.parent()
            words = " ".join(process.cmdline()) + " "
            above = "" if parent is None else " ".join(parent.cmdline()) + " "
            drawn = any((self.folder / "data").glob(f"*/raw/{MARKER}"))
            return lives(process) and VICTIMS[kind][1](words, above, drawn)
        except psutil.Error:
            return False

    def finish(self):
        """Wait for what is at work, then do the study once more; how it ended."""
        while self.look():
            time.sleep(0.1)
        self.start()
        while self.look():
            time.sleep(0.1)
        return self.process.returncode

    def orphans(self, seconds=30):
        """Processes of the study that are still there this long after it ended."""
        until = time.monotonic() + seconds
        while (left := [one for one in self.family.values() if lives(one)]) and time.monotonic() < until:
            time.sleep(0.2)
        return left

    def left(self):
        """What a killed process left among the reports, and nobody cleared away."""
        return [*self.report.glob(".engine-*"), *self.report.glob(".render-*"), *self.report.rglob("*.partial")]

    def repeated(self):
        """Runs that were done once and then written again."""
        now = {run.key: (run.folder / "metrics.json").stat().st_mtime_ns for run in self.runs}
        said = re.findall(r"^\[\d+/\d+\] (\S+): ", (self.folder / "log").read_text(), re.MULTILINE)
        return sorted({key for key in now if now[key] != self.first_done.get(key) or said.count(key) > 1})

    def differing(self, other):
        """Runs whose numbers are not those of another trial, bit for bit."""
        return [one.key for one, two in zip(self.runs, other.runs, strict=True) if not _same(found(one), found(two))]


def found(run):
    """All that a run found, without time and place."""
    tables = {path.name: pd.read_parquet(path) for path in sorted(run.folder.glob("*.parquet"))}
    if run.spec.trains:
        tables["history"] = pd.read_csv(run.folder / "history.csv").drop(columns="seconds")
        weights = sorted(run.folder.glob("*.safetensors"))
        tables["weights"] = pd.DataFrame({"bytes": [path.read_bytes() for path in weights]})
    return tables


def _same(one, two):
    return one.keys() == two.keys() and all(table.equals(two[name]) for name, table in one.items())


def interrupted(folder, strikes, seed):
    """A study with so many strikes, done to its end.

    Returns:
        The trial, and a row per strike: trial (its seed), victim, signal, lived_s.
    """
    trial, choose, rows = Trial(folder), random.Random(seed), []
    for kind, name in order(strikes, seed):
        lived = trial.strike(kind, name, choose)
        if lived is not None:
            rows.append({"trial": seed, "victim": kind, "signal": name, "lived_s": round(lived, 2)})
    code = trial.finish()
    if code:
        raise AssertionError((folder / "log").read_text())
    return trial, rows


@contextmanager
def stand_in(folder, code):
    """Engines started within have `code` executed by their jobs in place of `aunce`, which they find as `sys.argv`."""
    place = folder / "bin with space"
    place.mkdir(parents=True)
    (place / "aunce.py").write_text(code)
    notebooks = folder / "notebooks"
    (notebooks / "profiles").mkdir(parents=True)
    for profile in (PROJECT / "notebooks" / "profiles").iterdir():
        (notebooks / "profiles" / profile.name).symlink_to(profile)
    # The engine itself needs the real one.
    prefix = f"export PYTHONPATH={str(place)!r}; "
    (notebooks / "Snakefile").write_text(
        f"shell.prefix({prefix!r})\n" + (PROJECT / "notebooks" / "Snakefile").read_text()
    )
    with mock.patch.object(engine, "NOTEBOOKS", notebooks):
        yield
