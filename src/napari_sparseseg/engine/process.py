"""The engine as the window's process sees it: start it, talk to it, end it.

Neither Qt nor torch is loaded. The engine is another program (``python -m``), not a
fork or a spawn, which would run a user's unguarded script a second time.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from napari_sparseseg.engine.messages import (
    EVENTS,
    REQUESTS,
    Event,
    Request,
    Shutdown,
    read_message,
    write_message,
)
from napari_sparseseg.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Requests = queue.SimpleQueue[Request | None]

#: Lines of the engine's standard error that are handed on when it ends.
LAST_LINES = 20

#: An engine that was told to end is given so many seconds at each further try.
PATIENCE_S = 3.0


class EngineProcess:
    """One engine process at a time.

    Parameters
    ----------
    on_event
        Called with every event, in a thread of its own; must not raise.
    on_exit
        Called in that thread with exit code (minus the signal, where it was one) and
        the last lines of the log, when the process ends and :meth:`stop` was not
        called. It may call :meth:`start`.
    log_path
        File that the engine's standard error is added to.
    command
        What is run; default: this project's engine.

    Attributes
    ----------
    last_heard
        ``time.monotonic()`` of the last event, or of the start.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        on_exit: Callable[[int, str], None],
        log_path: Path,
        command: Sequence[str] | None = None,
    ) -> None:
        self.last_heard = time.monotonic()
        self._on_event = on_event
        self._on_exit = on_exit
        self._log_path = log_path
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: Requests = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    @property
    def pid(self) -> int | None:
        """Number of the process, None when there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the engine, unless there is one; the first event is ``Ready``.

        Raises
        ------
        EngineError
            If it cannot be started.
        """
        if self._process is not None:
            return
        command = self._command or (
            interpreter(),
            # A module in the working folder must not take the place of another.
            *("-P", "-X", "faulthandler", "-m", "napari_sparseseg.engine"),
        )
        try:
            with self._log_path.open("ab") as log:
                log_start = log.tell()
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    creationflags=_no_window(),
                )
        except OSError as error:
            raise EngineError(
                f"the engine cannot be started with {command[0]}: {error}.",
                command=list(command),
            ) from error
        self.last_heard = time.monotonic()
        self._process = process
        self._requests = queue.SimpleQueue()
        assert process.stdin is not None
        self._threads = [
            threading.Thread(target=self._read, args=(process, log_start), daemon=True),
            threading.Thread(
                target=_write, args=(process.stdin, self._requests), daemon=True
            ),
        ]
        atexit.register(self.stop, 0.0)
        for thread in self._threads:
            thread.start()

    def send(self, request: Request) -> None:
        """Send a request; never waits, and is of no effect without a process."""
        self._requests.put(request)

    def stop(self, timeout: float = PATIENCE_S) -> None:
        """End the engine, asking it first; ``on_exit`` is not called.

        Parameters
        ----------
        timeout
            Seconds it is given to leave its checkpoint; then it is terminated.
        """
        process, self._process = self._process, None
        atexit.unregister(self.stop)
        if process is None:
            return
        self._requests.put(Shutdown())
        self._requests.put(None)
        for end in (process.terminate, process.kill):
            try:
                process.wait(timeout)
                break
            except subprocess.TimeoutExpired:
                end()
                timeout = PATIENCE_S
        process.wait()
        self._join()

    def kill(self) -> None:
        """End an engine that does not answer, at once; ``on_exit`` is called."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """End the engine, if there is one, and start another."""
        self.stop(0.0)
        self.start()

    def _read(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        """Hand on events until the process ends."""
        assert process.stdout is not None
        problem = ""
        with process.stdout as stream:
            try:
                while (event := read_message(stream, EVENTS)) is not None:
                    self.last_heard = time.monotonic()
                    if self._process is process:
                        self._on_event(event)
            except EngineError as error:
                problem = f"{error}\n"
                process.kill()
        code = process.wait()
        if self._process is process:
            self._process = None
            atexit.unregister(self.stop)
            self._requests.put(None)
            self._on_exit(code, self._last_lines(log_start) + problem)

    def _last_lines(self, start: int) -> str:
        with self._log_path.open("rb") as log:
            log.seek(start)
            text = log.read().decode(errors="replace")
        return "".join(text.splitlines(keepends=True)[-LAST_LINES:])

    def _join(self) -> None:
        """Wait for the threads, unless called by one of them."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(PATIENCE_S)


def _write(stream: IO[bytes], requests: Requests) -> None:
    """Write requests until None comes or the other side is gone."""
    # An engine that has ended is told by the reader.
    with contextlib.suppress(OSError), stream:
        while (request := requests.get()) is not None:
            write_message(stream, request, REQUESTS)


def interpreter() -> str:
    """Return the Python that runs this, also where a program embeds it.

    Raises
    ------
    EngineError
        If none is found.
    """
    folder = Path(sys.exec_prefix)
    own = Path(sys.executable or folder / "python")
    candidates = [
        own.with_name("python.exe"),  # pythonw.exe has no standard error
        own,
        folder / "python.exe",
        folder / "bin" / "python3",
    ]
    for path in candidates:
        if path.stem.lower().startswith("python") and path.is_file():
            return str(path)
    raise EngineError(
        f"no Python was found beside {sys.executable or 'this program'} to run the "
        "engine with; start napari from a Python environment.",
        executable=sys.executable,
    )


def _no_window() -> int:
    """Return the flags with which Windows opens no console."""
    if sys.platform == "win32":
        return subprocess.CREATE_NO_WINDOW
    return 0
