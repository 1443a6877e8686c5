"""Damages one file of a finished study at a time, calls the commands that a user would, and judges what came of it.

The judge does not ask the program whether all is well: it compares tables, runs and page with those of the study that
nobody damaged. Used by tests/test_damage.py, and by record.py for the page in reports/reliability.
"""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from faults.harness import LONGEST_S, Trial, _same, found

FOUND, HEALED, HARMLESS, TAKEN, TRACEBACK = (
    "found and said",
    "healed by the same command",
    "harmless",
    "taken for valid",
    "traceback",
)
OUTCOMES = (FOUND, HEALED, HARMLESS, TAKEN, TRACEBACK)
CRASHED = "Traceback (most recent call last)"
PACK_GONE, RUN_TO_DO = ("rendered faces",), ("pack", "rendered faces")
"""Groups of files that nothing opens while a pack is there, and while all runs are done."""
TIME = ["duration_s", "provenance"]  # columns of runs.parquet that differ each time


@dataclasses.dataclass(frozen=True)
class Damage:
    """A `kind` of damage to the file `path`, relative to a study, which belongs to `group`; `seed` places it."""

    group: str
    path: str
    kind: str
    seed: int


def cut(path, choose, other):
    path.write_bytes((content := path.read_bytes())[: choose.randrange(len(content))])


def emptied(path, choose, other):
    path.write_bytes(b"")


def byte(path, choose, other):
    content = bytearray(path.read_bytes())
    content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    path.write_bytes(content)


def foreign(path, choose, other):
    shutil.copyfile(other, path)


def noise(path, choose, other):
    path.write_bytes(choose.randbytes(max(64, path.stat().st_size)))


def deleted(path, choose, other):
    path.unlink()


def folder(path, choose, other):
    path.unlink()
    path.mkdir()


def link(path, choose, other):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def unreadable(path, choose, other):
    path.chmod(0)


def nested(path, choose, other):
    path.write_text("[" * 100_000)


def null(path, choose, other):
    path.write_text("null")


def types(path, choose, other):
    content = json.loads(path.read_bytes())
    name = choose.choice(sorted(content))
    content[name] = 7 if isinstance(content[name], str) else [] if isinstance(content[name], dict) else "seven"
    path.write_text(json.dumps(content))


KINDS = {
    "cut to a prefix": cut,
    "emptied": emptied,
    "one bit flipped": byte,
    "replaced by another": foreign,
    "random bytes": noise,
    "deleted": deleted,
    "a folder in its place": folder,
    "a broken link": link,
    "unreadable": unreadable,
    "deeply nested JSON": nested,
    "null": null,
    "a value of a wrong type": types,
}
ONLY_JSON = ("deeply nested JSON", "null", "a value of a wrong type")


def group(path):
    """What a file of a study, by its path relative to it, belongs to; empty for those of the trial itself."""
    parts = Path(path).parts
    if ".engine-" in path:
        return "engine"
    if "checkpoint" in parts or parts[-1] == "error.json":
        return "stopped run"
    if "raw" in parts:
        return "rendered faces"
    if parts[0] == "data":
        return "pack"
    if "runs" in parts:
        return "run"
    return "tables and page" if parts[0] == "reports" else ""


def likeness(path):
    """What files of one sort share: the name in a folder of a run, the ending and the first folder of rendered ones."""
    parts = Path(path).parts
    if group(path) == "rendered faces":
        inside = parts[parts.index("raw") + 1 :]
        return "raw", inside[-1] if len(inside) == 1 else Path(path).suffix
    if group(path) in ("run", "stopped run"):
        return parts[parts.index("runs") + 2 :]
    return tuple(part for part in parts if not part.startswith((".engine-", "bp4d-")))


def plan(place, groups, kinds_each, seed):
    """Damages to one file of each sort that stands below `place`, `kinds_each` different ones to each."""
    choose, sorts = random.Random(seed), {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_file() and group(name) in groups:
            sorts.setdefault((group(name), likeness(name)), []).append(name)
    damages = []
    for (of, _), names in sorted(sorts.items()):
        fit = [kind for kind in KINDS if _fits(kind, place, names)]
        for kind in choose.sample(fit, min(kinds_each, len(fit))):
            damages.append(Damage(of, choose.choice(names), kind, choose.randrange(2**32)))
    return damages


def _fits(kind, place, names):
    empty = any(not (place / name).stat().st_size for name in names)
    if kind in ONLY_JSON:
        return names[0].endswith(".json")
    if kind == "replaced by another":
        return len({(place / name).read_bytes() for name in names}) > 1
    if kind == "unreadable":
        return hasattr(os, "geteuid") and os.geteuid() != 0  # root reads everything
    return not (empty and kind in ("cut to a prefix", "emptied", "one bit flipped"))


def apply(damage, place):
    """Damage a file below `place`."""
    path, choose = place / damage.path, random.Random(damage.seed)
    others = []
    if damage.kind == "replaced by another":
        alike = (one for one in sorted(place.rglob(f"*{path.suffix}")) if one.is_file())
        names = [one.relative_to(place).as_posix() for one in alike]
        same = [name for name in names if group(name) == damage.group and likeness(name) == likeness(damage.path)]
        others = [place / name for name in same if (place / name).read_bytes() != path.read_bytes()]
    KINDS[damage.kind](path, choose, choose.choice(others) if others else None)


def judge(said, code, *, alike, back, crashed=False):
    """The outcome of a damage.

    Args:
        said: whether the command named the damage, or called a run damaged.
        code: exit code of the last command, the one that makes tables and page.
        alike: whether tables, runs and page are those of the undamaged study.
        back: whether the damaged file is what it was before, or the run that left it was done again.
        crashed: whether a command ended in a traceback or not at all.
    """
    if crashed:
        return TRACEBACK
    if not alike:
        return FOUND if said or code else TAKEN
    return HEALED if back else FOUND if said else HARMLESS


def content(reports):
    """The tables of a study without time and place; those that cannot be read are left out."""
    tables = {}
    for path in sorted(reports.glob("*.parquet")):
        try:
            table = pd.read_parquet(path)
        except Exception:  # the judge asks whether it is as before, and it is not
            continue
        tables[path.name] = table.drop(columns=TIME, errors="ignore")
    return tables


def page(reports):
    """The bytes of page, findings, and numbers of the figures."""
    names = [reports / "report.md", reports / "findings.json", reports / "index.html"]
    names += sorted((reports / "figures").glob("*.csv"))
    return {path.name: path.read_bytes() for path in names if path.is_file()}


class Undamaged:
    """A study in `place`, with what it has found; damages are done to copies of `template`, which may be half done."""

    def __init__(self, trial, template=None):
        self.place, self.runs = trial.folder, trial.runs
        self.template = template or trial.folder
        self.reports = trial.report.relative_to(trial.folder)
        self.tables, self.page = content(trial.report), page(trial.report)
        self.found = {run.key: found(run) for run in trial.runs}

    def try_out(self, damage, work):
        """Damage a copy in `work`, call the commands, and judge; a row of the record."""
        shutil.copytree(self.template, work, symlinks=True)
        runs = work / self.reports / "runs"
        if damage.group in RUN_TO_DO:
            [cheap] = [run.key for run in self.runs if not run.spec.trains]
            (runs / cheap / "metrics.json").unlink()
        if damage.group in PACK_GONE:
            for pack in work.glob("data/*/pack"):
                shutil.rmtree(pack)
        before = (work / damage.path).read_bytes()
        apply(damage, work)
        told = []
        for words in self._commands(damage, work):
            told.append(_call(words, work))
        code, last = told[-1]
        output = "\n".join(text for _, text in told)
        alike, redone = self._alike(work)
        # Elsewhere a run was to do in any case, which says nothing of the file.
        back = (redone and damage.group == "run") or _bytes(work / damage.path) == before
        # What was said before the last command helps nobody who calls that one alone.
        relied = last if not alike else output
        name = Path(damage.path).name
        said = " damaged" in relied or name in relied
        crashed = CRASHED in output or any(code is None for code, _ in told)
        outcome = judge(said, code, alike=alike, back=back, crashed=crashed)
        row = {"group": damage.group, "file": name, "path": damage.path, "kind": damage.kind, "outcome": outcome}
        if outcome not in (TAKEN, TRACEBACK):
            shutil.rmtree(work)
        return row, output

    def _commands(self, damage, work):
        study = str(work / "tiny.toml")
        yield "status", study
        if damage.group == "pack":
            yield "data", "verify", str(next(work.glob("data/*/pack")))
        if damage.group in ("run", "tables and page"):
            yield ("verify", "report")[damage.seed % 2], study
        yield "study", study

    def _alike(self, work):
        """Whether all is as in the undamaged study; and whether a run was done again, which changes times in a page."""
        reports, runs = work / self.reports, []
        for run in self.runs:
            runs.append(dataclasses.replace(run, folder=reports / "runs" / run.key))
        redone = any(_bytes(run.folder / "metrics.json") != self._metrics(run.key) for run in runs)
        if not _same(self.tables, content(reports)) or not (redone or self.page == page(reports)):
            return False, redone
        try:
            return all(_same(self.found[run.key], found(run)) for run in runs), redone
        except Exception:  # what cannot be read is not alike
            return False, redone

    def _metrics(self, key):
        return _bytes(self.place / self.reports / "runs" / key / "metrics.json")


def _bytes(path):
    return path.read_bytes() if path.is_file() else None


def _call(words, work):
    """Exit code of a command, None if it hangs or a signal ended it; and all that it said."""
    places = {"AUNCE_DATA": str(work / "data"), "AUNCE_REPORTS": str(work / "reports")}
    command = [sys.executable, "-m", "aunce", *words]
    # In a session of its own, so that what hangs ends with all that it has started.
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": os.environ | places}
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        said = process.communicate(timeout=LONGEST_S / 3)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0].decode(errors="replace")
    return (process.returncode if process.returncode >= 0 else None), said


def stopped(place):
    """A study that was killed in the middle of a training: with a checkpoint, the engine's folder and a failed run."""
    trial = Trial(place)
    trial.start()
    until = time.monotonic() + LONGEST_S
    while not any(path.is_file() for path in trial.report.glob("runs/*/checkpoint/*")) and time.monotonic() < until:
        if not trial.look():
            raise AssertionError(f"no checkpoint was seen; see {place / 'log'}")
        time.sleep(0.01)
    trial.look()
    trial.process.kill()
    trial.process.wait()
    trial.orphans()
    [cheap] = [run for run in trial.runs if not run.spec.trains]
    cheap.folder.mkdir(parents=True, exist_ok=True)
    failure = {"message": "It failed.", "cause": "RuntimeError", "remedy": "Run again.", "tries": 1}
    (cheap.folder / "error.json").write_text(json.dumps(failure))
    return trial
