"""A lock on a session folder, which ends with the process that has it, however it ends.

The operating system keeps it, so neither two processes that start at once nor the
number of a dead process that is given to another can confuse it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from pathlib import Path

#: Its file in the folder.
FILE = "open.lock"

# Somebody may just be looking whether it is locked.
_WAIT_S = 0.2

# What file systems say that know no locks, as some in networks do.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_HELD: dict[Path, FileLock] = {}


def real_path(path: Path) -> Path:
    """Return a path without links; unlike `Path.resolve` of links in a circle, too."""
    return path.__class__(os.path.realpath(path))


def lock(folder: Path) -> bool:
    """Lock a folder for this process; tell whether nobody had it.

    Where the file system knows no locks nobody has any.

    Raises
    ------
    OSError
        If the file of the lock cannot be written.
    """
    folder = real_path(folder)
    if folder in _HELD:
        return False
    taken = _lock_of(folder)
    try:
        taken.acquire()
    except Timeout:
        return False
    except NotImplementedError:
        return True
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return True
        raise
    _HELD[folder] = taken
    return True


def unlock(folder: Path) -> None:
    """Give a folder free, and delete its lock, unless another process has it."""
    folder = real_path(folder)
    with contextlib.suppress(OSError):
        if folder not in _HELD and (folder / FILE).exists():
            lock(folder)
        if folder in _HELD:
            _release(_HELD.pop(folder))


def _release(taken: FileLock) -> None:
    # Before it is free: later the file may be another's.
    with contextlib.suppress(OSError):
        os.unlink(taken.lock_file)
    taken.release()
    if os.name == "nt":  # deletes no file that is open
        os.unlink(taken.lock_file)


def is_locked(folder: Path) -> bool:
    """Tell whether a process that lives has locked a folder, this one or another."""
    folder = real_path(folder)
    if folder in _HELD:
        return True
    if not (folder / FILE).exists():
        return False
    try:
        with _lock_of(folder):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False  # nobody can have it: it is read-only, or knows no locks


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder / FILE, timeout=_WAIT_S, thread_local=False)
