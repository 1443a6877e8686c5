"""The errors a user may meet: one sentence with the place and the remedy, and the exit code that goes with it."""

import errno
import re

_WITH = "(AUNCE_DATA and AUNCE_REPORTS say where data and reports go)"
_REMEDIES = {
    errno.ENOSPC: f"Free some space, or name another disk {_WITH}",
    errno.EDQUOT: f"Your quota is used up: free some space, or name another disk {_WITH}",
    errno.EROFS: f"Name a place that can be written to {_WITH}",
    errno.EACCES: f"Make the place readable and writable, or name another one {_WITH}",
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


def disk_remedy(text: str, number: int | None = None) -> str:
    """What to do about an error of the disk; empty if it is none that has a remedy of its own.

    Args:
        text: its message: errors that cross a process, or come from a library, keep their number only there.
        number: its `errno`.
    """
    found = re.search(r"(?:errno|os error) (\d+)", text, re.IGNORECASE)
    remedy = _REMEDIES.get(int(found[1]) if number is None and found else number or 0)
    return f"{remedy}, and run again: what is done is kept." if remedy else ""
