"""No orphans: what a command starts leaves with it, also where it was killed and could say nothing."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

ENGINE = "AUNCE_ENGINE"
"""The environment variable with the process id of the `aunce study` that all of an engine leaves with."""


def safe_path() -> dict[str, str]:
    """For the environment of whatever is started: modules of the folder that one stands in are not imported.

    A data set may have brought a `matplotlib.py`. The checkout that this process runs from is named instead.
    """
    known = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if CHECKOUT is not None and str(CHECKOUT) not in known:
        known.insert(0, str(CHECKOUT))
    return {"PYTHONSAFEPATH": "1"} | ({"PYTHONPATH": os.pathsep.join(known)} if known else {})


CHECKOUT = root if ((root := Path(__file__).resolve().parents[1]) / "notebooks").is_dir() else None
"""The checkout of the project that this process runs from; None for an installed package."""


def leave_with_engine() -> None:
    """End this process and all that it started once the `aunce study` that it descends from, or one between, is gone.

    A job that a cluster started descends from no `aunce study`: it outlives the one that submitted it.
    """
    chain = [process for process in psutil.Process().parents() if process.pid > 1]
    pids = [process.pid for process in chain]
    if (engine := int(os.environ.get(ENGINE, 0))) in pids:
        above = chain[: pids.index(engine) + 1]
        _in_background(lambda: _leave_after(above))


def leave_with_parent() -> None:
    """End this worker of `multiprocessing` once its parent is gone. Its queue alone would let it wait for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        _in_background(lambda: _leave_after_parent(parent))


def die_with_starter() -> None:
    """Between fork and exec on Linux: the system kills the new process when the thread that started it is gone."""
    if _libc is not None:
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end(pid: int) -> None:
    """Kill a process and all that descend from it."""
    try:
        family = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _leave_after(above: list[psutil.Process]) -> None:
    while all(map(lives, above)):
        time.sleep(0.5)
    for child in psutil.Process().children():
        end(child.pid)
    os._exit(1)


def _leave_after_parent(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def lives(process: psutil.Process) -> bool:
    """Whether a process does anything; one that ended and that nobody has asked for its exit code does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _in_background(work: Callable[[], object]) -> None:
    threading.Thread(target=work, daemon=True).start()


def first_process() -> bool:
    """Whether this process writes what a run leaves: the only one, or the first of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"
