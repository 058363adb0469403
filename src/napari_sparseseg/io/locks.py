"""A place that one process at a time may work on, until it ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from napari_sparseseg.errors import OutputError
from napari_sparseseg.io.atomic import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Somebody may just be looking whether it is locked.
_WAIT_S = 0.2

# What file systems say that know no locks, as some in networks do.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep others out while a place is worked on, where the file system knows locks.

    Parameters
    ----------
    path
        Of the file of the lock, beside the place; it is gone afterwards, and one that
        a dead process has left counts for nothing.

    Raises
    ------
    OutputError
        If another process, or this one, has it, or the file cannot be written.
    """
    from filelock import FileLock, Timeout

    # Whoever ends a generator may be another thread.
    lock = FileLock(path, timeout=_WAIT_S, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"{path.name.removesuffix(path.suffix)} is being written by another "
            "program; wait until it ends, or choose another name for the result.",
            path=str(path),
        ) from None
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OutputError(
                f"{path} cannot be written: {reason_of(error)}.", path=str(path)
            ) from error
    try:
        yield
    finally:
        if os.name != "nt" and lock.is_locked:
            # Before it is free: later the file may be another's.
            path.unlink(missing_ok=True)
        lock.release()
