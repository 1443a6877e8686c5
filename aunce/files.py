"""Files that are whole or absent: written beside their place, flushed to the disk, renamed.

Whatever says *done* is written here: neither a kill nor a full disk leaves half a file under a name that counts.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

PARTIAL = ".partial"


@contextlib.contextmanager
def beside(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` once the block has ended well.

    Args:
        path: the file.
        flush: wait until content and name are on the disk. Not for what is cheap to make again.

    Raises:
        OSError: the file cannot be written. It names the place, which a full disk itself does not.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        if flush:
            sync(partial)
        os.replace(partial, path)
        if flush:
            sync(path.parent)
    except Exception as error:
        with contextlib.suppress(OSError):  # half a file would keep a full disk full
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and not error.filename:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def write(path: Path, content: str | bytes, *, flush: bool = True) -> None:
    """Replace a file as a whole; text is written as UTF-8 with newlines as they are."""
    with beside(path, flush=flush) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def workplace(folder: Path, prefix: str) -> Iterator[Path]:
    """A new directory of one's own in `folder`, named `prefix` and a draw; those that somebody killed left are removed.

    It stays: whoever works in it removes it when its work has come to its place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        sweep(folder, prefix)
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        lock = FileLock(work / ".lock")
        lock.acquire()
    try:
        yield work
    finally:
        lock.release()


def sweep(folder: Path, prefix: str) -> None:
    """Remove the work places of `workplace` that nobody works in."""
    with _alone(folder):
        for left in folder.glob(f"{prefix}*"):
            with contextlib.suppress(Timeout), FileLock(left / ".lock").acquire(timeout=0):
                shutil.rmtree(left, ignore_errors=True)


def _alone(folder: Path) -> FileLock:
    """So that nobody takes a place for one that was left, before it is locked; whoever holds it may take it again."""
    return FileLock(folder / ".lock", is_singleton=True)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, data: bytes, place: int) -> None:
    """Write all of `data` at `place`: one call may write less, as it does where a disk becomes full."""
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written
