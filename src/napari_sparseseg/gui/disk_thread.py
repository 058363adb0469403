"""What may wait for the disk is done in a thread, so that the window never does.

A write goes into the memory of the system and returns at once, and is there even if the
process is killed. Until the disk has it, which only a loss of power makes a difference
to, a busy disk takes seconds.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

logger = logging.getLogger(__name__)

#: What is to be done is collected for so long, in seconds: to wake a thread for each
#: stroke costs the window milliseconds where other programs want the processor, too.
PAUSE_S = 0.5


class DiskThread:
    """Does one thing after the other, and remembers what has failed last.

    Parameters
    ----------
    pause_s
        What is to be done is collected for so long; None: `PAUSE_S`.
    """

    def __init__(self, pause_s: float | None = None) -> None:
        self._pause_s = PAUSE_S if pause_s is None else pause_s
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._tasks: dict[Hashable, Callable[[], object]] = {}
        self._lock = Lock()
        self._hurry = Event()
        self._failure: Exception | None = None

    def flush(self, path: Path) -> None:
        """Have a file on disk soon."""
        self.do(path, partial(_flush, path))

    def do(self, key: Hashable, task: Callable[[], object]) -> None:
        """Do something soon; of what has the same key and waits, only the last."""
        with self._lock:
            is_first = not self._tasks
            self._tasks.pop(key, None)
            self._tasks[key] = task
        if is_first:
            self._executor.submit(self._work)

    def take_failure(self) -> Exception | None:
        """Return what has failed since this was last asked, if anything has."""
        failure, self._failure = self._failure, None
        return failure

    def wait(self) -> None:
        """Have all done at once, and wait for it."""
        self._hurry.set()
        self._executor.submit(lambda: None).result()
        self._hurry.clear()

    def _work(self) -> None:
        self._hurry.wait(self._pause_s)
        with self._lock:
            tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            try:
                task()
            except Exception as error:
                logger.exception("something cannot be written")
                self._failure = error


def _flush(path: Path) -> None:
    # What was deleted or moved meanwhile needs it no more.
    if path.exists():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
