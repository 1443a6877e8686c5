"""The errors a user may meet: one sentence with the place and the remedy, and the exit code that goes with it."""


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
