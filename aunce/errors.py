"""The errors a user may meet: one sentence with the place and the remedy, and the exit code that goes with it."""

import errno
import re

_WITH = "(AUNCE_DATA and AUNCE_REPORTS say where data and reports go)"
_NO_LOCKS = f"This file system gives no locks, and two processes would do a run twice: name a local disk {_WITH}"
_MEMORY = "Memory ran out: use a smaller batch_size or fewer runs at once, or raise the limit (`ulimit -v`)"
_REMEDIES = {
    errno.ENOSPC: f"Free some space, or name another disk {_WITH}",
    errno.EDQUOT: f"Your quota is used up: free some space, or name another disk {_WITH}",
    errno.EROFS: f"Name a place that can be written to {_WITH}",
    errno.EACCES: f"Make the place readable and writable, or name another one {_WITH}",
    errno.EIO: "The disk cannot be read: nothing has to be removed, see what the system says of it",
    errno.ESTALE: "The network file system has lost the file: mount it again",
    errno.EMFILE: "Too many files are open at once: raise the limit (`ulimit -n 4096`), or use fewer workers",
    errno.ENFILE: "Too many files are open on this machine: end other programs, or use fewer workers",
    errno.ENOLCK: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.ENOMEM: _MEMORY,
}


class AunceError(Exception):
    """Something a user can mend. Shown as one message, without a traceback; the command ends with `exit_code`."""

    exit_code = 1


class UsageError(AunceError, ValueError):
    """A wrong parameter, study file or argument: refused before anything starts."""

    exit_code = 2


class DataError(AunceError, ValueError):
    """A data set on disk that is not what its layout promises. The message names file and line or row."""


class RunError(AunceError, RuntimeError):
    """A run that started and could not end, such as a loss that is no longer finite."""


class TimeLimitError(RunError):
    """A run that took longer than its study allows."""


def machine_remedy(text: str, number: int | None = None) -> str:
    """What to do about an error of the machine: its disk, its memory, its limits; empty if it is of another kind.

    Args:
        text: its message: errors that cross a process, or come from a library, keep their number only there.
        number: its `errno`.
    """
    found = re.search(r"(?:errno|os error) (\d+)", text, re.IGNORECASE)
    remedy = _REMEDIES.get(int(found[1]) if number is None and found else number or 0)
    if not remedy and re.search("allocate|failed to map segment|out of memory|bad_alloc|MemoryError", text):
        remedy = _MEMORY
    return f"{remedy}, and run again: what is done is kept." if remedy else ""
