"""A lock on a session folder, which ends with the process that has it, however it ends.

The operating system keeps it, so neither two processes that start at once nor the
number of a dead process that is given to another can confuse it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from pathlib import Path

#: Its file in the folder.
FILE = "open.lock"

# Somebody may just be looking whether it is locked.
_WAIT_S = 0.2

_HELD: dict[Path, FileLock] = {}


def lock(folder: Path) -> bool:
    """Lock a folder for this process; tell whether nobody had it.

    Raises
    ------
    OSError
        If the file of the lock cannot be written.
    """
    folder = folder.resolve()
    if folder in _HELD:
        return False
    taken = _lock_of(folder)
    try:
        taken.acquire()
    except Timeout:
        return False
    _HELD[folder] = taken
    return True


def unlock(folder: Path) -> None:
    """Give a folder free, and delete its lock, unless another process has it."""
    folder = folder.resolve()
    with contextlib.suppress(OSError):
        is_there = folder in _HELD or ((folder / FILE).exists() and lock(folder))
        if is_there:
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
    folder = folder.resolve()
    if folder in _HELD:
        return True
    if not (folder / FILE).exists():
        return False
    try:
        with _lock_of(folder):
            return False
    except Timeout:
        return True
    except OSError:
        return False  # of a folder that is read-only nobody can have it


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder / FILE, timeout=_WAIT_S, thread_local=False)
