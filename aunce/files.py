"""Files that are whole or absent: written beside their place, flushed to the disk, renamed.

Whatever says *done* is written here: neither a kill nor a full disk leaves half a file under a name that counts.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from aunce.errors import UsageError

PARTIAL = ".partial"
TEMPORARY = "AUNCE_TEMPORARY"
"""The environment variable with the root of temporary files, for the commands that a command starts."""


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


def sha256(path: Path) -> str:
    """Hash of the content of a file, in hex digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def temporary_root() -> Path:
    """The one folder of this user for temporary files and locks of all commands, in the system's temporary folder.

    Raises:
        UsageError: the folder belongs to somebody else.
    """
    if (inherited := _inherited_root()) is not None:
        return inherited
    user = os.getuid() if hasattr(os, "getuid") else 0
    root = Path(tempfile.gettempdir()) / f"aunce-{user}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.is_symlink() or (hasattr(os, "getuid") and root.stat().st_uid != user):
        raise UsageError(f"{root}: belongs to somebody else; remove it, or name another temporary folder with TMPDIR")
    return root


def _inherited_root() -> Path | None:
    """That of the command which started this one; None where there is none, or it is on another node of a cluster."""
    root = Path(os.environ.get(TEMPORARY, ""))
    return root if root.name and root.is_dir() else None


@contextlib.contextmanager
def temporary() -> Iterator[None]:
    """Let this process and all that it starts keep temporary files in one place, removed at the end.

    What earlier calls left there when they were killed is removed first.
    """
    if _inherited_root() is not None:  # the command that started this one removes the place
        yield
        return
    root = temporary_root()
    with workplace(root, "of-") as place:
        before = {name: os.environ.get(name) for name in ("TMPDIR", TEMPORARY)}
        os.environ.update({"TMPDIR": str(place), TEMPORARY: str(root)})
        tempfile.tempdir = None  # asks for TMPDIR again
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            tempfile.tempdir = None
            shutil.rmtree(place, ignore_errors=True)


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
