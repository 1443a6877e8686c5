"""The engine of a study: hands its runs to Snakemake, and leaves nothing behind that another call would trip over."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aunce import files
from aunce.errors import UsageError
from aunce.processes import ENGINE, safe_path
from aunce.study.grid import NOTEBOOKS, Run, Study

WORK = ".engine-"
PLAN = "plan.json"  # read by notebooks/Snakefile, in its working directory
MOST_JOBS = 300
"""A job costs the engine time, whatever it does (reports/reliability): more runs than this share jobs."""


def execute_all(study: Study, runs: Sequence[Run], profile: str) -> bool:
    """Let Snakemake do `runs`; it ends with this process, and with it what it started on this machine.

    Args:
        study: the study.
        runs: what to do of it.
        profile: a folder in notebooks/profiles, or the path of one.

    Returns:
        True if all runs ended well.

    Raises:
        UsageError: there is no such profile.
    """
    known = NOTEBOOKS / "profiles"
    folder = known / profile if (known / profile).is_dir() else Path(profile).resolve()
    if not any(folder.glob("config*.yaml")):  # config.v9+.yaml is one for that version of Snakemake
        names = ", ".join(sorted(path.name for path in known.iterdir()))
        raise UsageError(f"--profile {profile}: no folder with a config.yaml; in {known} are {names}")
    if not runs:
        files.sweep(study.folder, WORK)  # logs of jobs that failed, and that have been done since
        return True
    # Below the study, where all nodes of a cluster see it, and new: Snakemake's own records are never needed twice.
    with files.workplace(study.folder, WORK) as work:
        # In a file, not in --config: Snakemake would read a path with a colon or braces in it as YAML.
        files.write(work / PLAN, json.dumps(plan(study, runs)))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(NOTEBOOKS / "Snakefile")]
        command += ["--directory", str(work), "--profile", str(folder)]
        ended_well = subprocess.run(command, env=os.environ | safe_path() | {ENGINE: str(os.getpid())}).returncode == 0
        if ended_well:  # else its logs, which Snakemake has named, stay until the next call
            shutil.rmtree(work, ignore_errors=True)
            # Again, as what a killed call had started writes for a second or two, in a place that was just removed.
            files.sweep(study.folder, WORK)
        return ended_well


def plan(study: Study, runs: Sequence[Run]) -> dict[str, Any]:
    """What the Snakefile has to know: `study`, `overrides`, `only`, `data` (name -> a run that needs it), and `jobs`.

    A job executes `keys` one after the other; it needs `data` and, for the runs that these start from, other `jobs`.
    `priority` brings first those that others wait for, then those that train, so that no core idles at the end.
    """
    starts = list({run.start.key: run.start for run in runs if run.start}.values())
    jobs: dict[str, Any] = {}
    job_of: dict[str, str] = {}
    for some in (starts, [run for run in runs if run.key not in {start.key for start in starts}]):
        size = -(-len(some) // MOST_JOBS) or 1
        for first in range(0, len(some), size):
            part = some[first : first + size]
            name = part[0].key + (f"-and-{len(part) - 1}-more" if len(part) > 1 else "")
            job_of |= {run.key: name for run in part}
            jobs[name] = {
                "keys": [run.key for run in part],
                "data": sorted({data.name for run in part for data in run.data}),
                "jobs": sorted({job_of[run.start.key] for run in part if run.start}),
                "threads": max(run.spec.threads for run in part),
                "priority": (some is starts) + any(run.spec.trains for run in part),
            }
    data = {data.name: run.key for run in [*starts, *runs] for data in run.data}
    asked = {"study": study.reference, "overrides": study.overrides, "only": study.only}
    return asked | {"data": data, "jobs": jobs}
