"""What a run has reached, read from its folder: one reader for all, which no damaged file can stop.

`metrics.json`, renamed into place last, says that a run is done. It holds the key of the run, its whole specification
and the hash of every file that the run left. A run whose files differ from that is *damaged*: it is never collected,
and the command that did it does it again. Imports neither torch nor pandas.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from aunce import files
from aunce.errors import machine_remedy

METRICS, ERROR, LOCK = "metrics.json", "error.json", ".lock"
UNSEALED = METRICS + files.PARTIAL
NEEDED = ("counts.parquet", "auc.parquet", "history.csv")
"""Tables that every finished run leaves."""
DAMAGED = ".damaged"
VOLATILE = (METRICS, UNSEALED, ERROR, LOCK, "log.txt", ".training.lock")
"""What stands in the folder of a run and is no result of it: it has no hash."""


@dataclass(frozen=True)
class State:
    """What a run has reached.

    Attributes:
        name: *damaged* is a run that says to be done while its files say otherwise.
        metrics: content of `metrics.json` where the run is done, else empty.
        error: content of `error.json` where the run failed and the file can be read, else empty.
        why: what is damaged, one sentence.
        checked: False where a finished run has no hashes, as runs of revisions before 0.2.0.
    """

    name: Literal["done", "failed", "running", "to do", "damaged"]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    checked: bool = True


def read_state(folder: Path, key: str = "", spec: Mapping[str, Any] | None = None, *, hashes: bool = True) -> State:
    """Read what the run in `folder` has reached, whatever the files hold.

    Args:
        folder: of the run; it need not be there.
        key: that the run must have; empty takes any.
        spec: field -> value that its specification must have; None takes any.
        hashes: compare the content of every file; False compares sizes only, which is quick for large weights.

    Raises:
        OSError: the machine cannot read a file now: too many are open, or a disk fails.
    """
    if not os.path.lexists(folder / METRICS):
        if is_locked(folder):
            return State("running")
        if not os.path.lexists(folder / ERROR):
            return State("to do")
        error = read_json(folder / ERROR)
        return State("failed", error=error) if isinstance(error, dict) else State("failed", why=error)
    metrics = read_json(folder / METRICS)
    if isinstance(metrics, str):
        return State("damaged", why=metrics)
    why = _flaw(metrics) or _foreign(metrics, key, spec) or _changed(folder, metrics.get("files"), hashes)
    return State("damaged", why=why) if why else State("done", metrics, checked="files" in metrics)


def is_locked(folder: Path) -> bool:
    """Whether another process executes the run in `folder`."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a disk that cannot be written to, or gives no locks: no run can start there
        return False


def seal(folder: Path, key: str) -> None:
    """Turn `metrics.json.partial` of a run that ended well into `metrics.json`, with the key and a hash of every file.

    Raises:
        OSError: the disk is full or cannot be written to; the run is not done then.
        ValueError: the file is no JSON object, or lacks what every run says of itself.
    """
    metrics = read_json(folder / UNSEALED)
    if isinstance(metrics, str):
        raise ValueError(metrics)
    metrics["key"] = key
    if why := _flaw(metrics):
        raise ValueError(why)
    skipped = (*VOLATILE, *(name + DAMAGED for name in VOLATILE))
    left = [path for path in sorted(folder.iterdir()) if path.name not in skipped and path.is_file()]
    metrics["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": _hash(path)} for path in left}
    metrics["sha256"] = _own_hash(metrics)
    files.write(folder / METRICS, json.dumps(metrics, indent=1, allow_nan=False))
    (folder / UNSEALED).unlink(missing_ok=True)


def set_aside(path: Path, *, unless_file: bool = False) -> None:
    """Rename what is damaged to `<name>.damaged`, so that its place is free and nothing is lost.

    Args:
        path: what to rename; nothing happens where nothing is there.
        unless_file: leave a file where it is: only a folder or a broken link is in the way.
    """
    if os.path.lexists(path) and not (unless_file and path.is_file()):
        aside = path.with_name(path.name + DAMAGED)
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)
        os.replace(path, aside)


def read_json(path: Path) -> dict[str, Any] | str:
    """The JSON object in a file; or, as text, why there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        _demand_file(error)
        return f"{path.name} cannot be read ({type(error).__name__}: {error})"
    return content if isinstance(content, dict) else f"{path.name} holds no JSON object"


def _demand_file(error: Exception) -> None:
    """Raise an error of the machine, such as too many open files: what it cannot read now is not damaged."""
    if isinstance(error, OSError) and machine_remedy("", error.errno):
        raise error


def _flaw(metrics: Mapping[str, Any]) -> str:
    """What is wrong with the form of `metrics.json`, if anything."""
    for name in ("key", "spec", "data", "provenance"):
        if not isinstance(metrics.get(name), str if name == "key" else dict):
            return f"{METRICS} has no valid '{name}'"
    for name in ("duration_s", "val_f1", "val_auc"):  # NaN scores are null
        value = metrics.get(name)
        if value is None and name != "duration_s":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{METRICS} has no valid '{name}'"
    if not isinstance(metrics.get("flat"), bool | None):
        return f"{METRICS} has no valid 'flat'"
    for name in ("entering_aus", "null_aus"):
        if not all(type(au) is int for au in metrics["data"].get(name, [])):
            return f"{METRICS} has no valid '{name}'"
    if not isinstance(metrics["provenance"].get("threads"), int | None):
        return f"{METRICS} has no valid 'threads'"
    if "files" not in metrics:
        return ""
    return "" if metrics.get("sha256") == _own_hash(metrics) else f"{METRICS} is not what the run left"


def _foreign(metrics: Mapping[str, Any], key: str, spec: Mapping[str, Any] | None) -> str:
    """How `metrics.json` is that of another run, if it is."""
    if key and metrics["key"] != key:
        return f"{METRICS} is that of another run, {metrics['key']!r}"
    for name, value in (spec or {}).items():
        if name in metrics["spec"] and metrics["spec"][name] != value:
            return f"{METRICS} has {name} = {metrics['spec'][name]!r}, and this run has {value!r}"
    return ""


def _changed(folder: Path, left: Mapping[str, Mapping[str, Any]] | None, hashes: bool) -> str:
    """Which file is not the one that the run left, if any."""
    if left is None:
        absent = [name for name in NEEDED[:2] if not (folder / name).is_file()]
        return f"{' and '.join(absent)} not there" if absent else ""
    for name, wanted in left.items():
        path = folder / name
        try:
            same = path.stat().st_size == wanted["bytes"] and (not hashes or _hash(path) == wanted["sha256"])
        except OSError as error:
            _demand_file(error)
            return f"{name} cannot be read ({error.strerror})"
        if not same:
            return f"{name} is not what the run left"
    return ""


def _own_hash(metrics: Mapping[str, Any]) -> str:
    content = {name: value for name, value in metrics.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    state = path.stat()
    return _hash_of(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


@lru_cache(maxsize=4096)
def _hash_of(path: Path, *state: int) -> str:
    """sha256 of a file, computed once for each state of it: `aunce status --watch` asks every few seconds."""
    return files.sha256(path)
