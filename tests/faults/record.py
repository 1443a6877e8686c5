"""Does what the page on reliability tells of, and writes its tables: python tests/faults/record.py TABLE.

`--out FOLDER` writes them elsewhere than into reports/reliability, and `--small` tries it out in minutes. Afterwards
`aunce report reliability` draws the page.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pandas as pd

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from faults import damage, harness  # noqa: E402

from aunce import files  # noqa: E402
from aunce.report.reliability import TABLES, WHERE  # noqa: E402
from aunce.study import engine  # noqa: E402
from aunce.study.grid import REPORTS, load_study  # noqa: E402
from aunce.study.results import provenance  # noqa: E402

STUBS = [(100, 1), (500, 1), (500, 2), (2000, 1), (2000, 7)]  # commands, how many of them share a job


def strikes(folder, small):
    whole = harness.Trial(folder / "whole")
    assert whole.finish() == 0, (whole.folder / "log").read_text()
    rows = []
    for seed in range(1, 2 if small else 11):
        began = time.monotonic()
        trial, struck = harness.interrupted(folder / str(seed), strikes=len(harness.VICTIMS), seed=seed)
        found = {
            "seconds": round(time.monotonic() - began, 1),
            "runs": len(trial.runs),
            "lost": sum(run.state != "done" for run in trial.runs),
            "repeated": len(trial.repeated()),
            "differing": len(trial.differing(whole)),
            "orphans": len(trial.orphans()),
            "left": len(trial.left()),
        }
        rows += [row | found for row in struck]
        print(f"trial {seed}: {len(struck)} strikes, {found}", flush=True)
    return rows


def damages(folder, small):
    trial = harness.Trial(folder / "whole")
    assert trial.finish() == 0, (trial.folder / "log").read_text()
    half = damage.stopped(folder / "half").folder
    seed, each = 1, 1 if small else 5
    tasks = []
    for groups, place in (
        (("run", "pack", "rendered faces", "tables and page"), None),
        (("stopped run", "engine"), half),
    ):
        study = damage.Undamaged(trial, place)
        tasks += [(study, one) for one in damage.plan(study.template, groups, each, seed)]

    def judged(numbered):
        number, (study, one) = numbered
        began = time.monotonic()
        row, said = study.try_out(one, folder / f"damage-{number}")
        if row["outcome"] in (damage.TAKEN, damage.TRACEBACK):
            print(f"{row}\n{said[-2000:]}", flush=True)
        return row | {"seconds": round(time.monotonic() - began, 1)}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(judged, enumerate(tasks)))
    print(pd.Series([row["outcome"] for row in rows]).value_counts(), flush=True)
    return rows


def inputs(folder, small):
    mutations = 50 if small else 2000
    passed, failed = outcomes("test_security.py", "-k", "not no_module")  # that one reads our sources, and no input
    names = {"group": "names, error texts, paths and checkpoints", "tried": passed + failed, "failed": failed}
    passed, failed = outcomes("", "-k", "mutated", "--mutations", str(mutations))
    if failed:  # a test ends with the first file that does harm, and nobody knows how many would
        raise SystemExit(f"{failed} of {passed + failed} tests of damaged files failed: mend that first")
    return [names, {"group": "damaged label and landmark files", "tried": mutations * passed, "failed": 0}]


def slurm(folder, small):
    passed, failed = outcomes("test_slurm.py")
    if not passed + failed:
        raise SystemExit("no Slurm could be started; `pytest -rs tests/test_slurm.py` says why")
    faults = ["a running job cancelled (scancel)", "the submitting process killed (SIGKILL)"]
    return [{"fault": fault, "survived": int(not failed)} for fault in faults]


def outcomes(file, *options):
    """How many tests passed and failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / file), *options]
    ended = subprocess.run(command, capture_output=True, text=True)
    said = ended.stdout
    print(said[-1000:], flush=True)
    if ended.returncode not in (0, 1):  # 1: tests failed
        raise SystemExit(f"pytest did not run: {ended.stderr[-1000:]}")
    count = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error)", said)}
    return count.get("passed", 0), count.get("failed", 0) + count.get("error", 0)


def cost(folder, small):
    """Studies of commands that do nothing. They share one data set: what is measured is the engine, not its data."""
    rows = []
    for commands, together in [(20, 1), (20, 2)] if small else STUBS:
        path = folder / "stubs.toml"
        path.write_text(harness.STUDY.split("[axes.arm]")[0] + f"[axes]\nreplicate = {list(range(commands))}\n")
        study = load_study(str(path))
        with mock.patch.object(engine, "MOST_JOBS", -(-commands // together)):
            plan = engine.plan(study, study.runs)
        name, key = next(iter(plan["data"].items()))
        plan |= {"data": {name: key}, "jobs": {job: about | {"data": [name]} for job, about in plan["jobs"].items()}}
        place = folder / f"{commands}-{together}"
        with (
            harness.stand_in(place, ""),
            mock.patch.object(engine, "plan", return_value=plan),
            mock.patch("aunce.study.grid.REPORTS", place),
        ):
            seconds = timed(lambda study=study: engine.execute_all(study, study.runs, "laptop"))
            bare = sorted(timed(lambda place=place: alone(place / "bin with space")) for _ in range(9))[4]
        measured = {"jobs": len(plan["jobs"]), "seconds": round(seconds, 2), "bare_s": round(bare, 4)}
        rows.append({"commands": commands, "together": together} | measured)
        print(rows[-1], flush=True)
    return rows


def alone(place):
    command = [sys.executable, "-m", "aunce", "run"]
    # In its folder, too: where this one was started from there may be the real one.
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(place)}, cwd=place).returncode == 0


def timed(work):
    started = time.perf_counter()
    assert work(), "the engine or a command failed"
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--out", type=Path, default=REPORTS / "reliability")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    record = {"strikes": strikes, "damages": damages, "inputs": inputs, "slurm": slurm, "engine": cost}[arguments.table]
    about = provenance("cpu", 1)
    about["revision"] += " (modified)" if about["modified"] else ""
    with tempfile.TemporaryDirectory(prefix="aunce-faults-") as folder:
        table = pd.DataFrame(record(Path(folder), arguments.small)).assign(**{name: about[name] for name in WHERE})
    arguments.out.mkdir(parents=True, exist_ok=True)
    files.write(arguments.out / f"{arguments.table}.csv", table[TABLES[arguments.table]].to_csv(index=False))
