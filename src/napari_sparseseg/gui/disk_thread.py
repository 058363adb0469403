"""What may wait for the disk is done in a thread, so that the window never does.

A write goes into the memory of the system and returns at once, and is there even if the
process is killed. Until the disk has it, which only a loss of power makes a difference
to, a busy disk takes seconds.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class DiskThread:
    """Does one thing after the other, and remembers what has failed last."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._due: set[Path] = set()
        self._failure: Exception | None = None

    def flush(self, path: Path) -> None:
        """Have a file on disk soon."""
        if path not in self._due:
            self._due.add(path)
            self.do(partial(self._flush, path))

    def do(self, task: Callable[[], object]) -> None:
        """Do something soon."""
        self._executor.submit(task).add_done_callback(self._note)

    def take_failure(self) -> Exception | None:
        """Return what has failed since this was last asked, if anything has."""
        failure, self._failure = self._failure, None
        return failure

    def wait(self) -> None:
        """Wait until all is done."""
        self._executor.submit(lambda: None).result()

    def _flush(self, path: Path) -> None:
        # Before: what is written from now on needs another time.
        self._due.discard(path)
        # What was deleted or moved meanwhile needs it no more.
        if path.exists():
            with path.open("rb+") as file:
                os.fsync(file.fileno())

    def _note(self, done: Future[object]) -> None:
        failure = done.exception()
        if isinstance(failure, Exception):
            self._failure = failure
