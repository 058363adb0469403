"""The engine process as the window sees it: signals in the window's own thread."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import psutil
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sparseseg.engine.messages import Failed, Ready, Starting
from napari_sparseseg.engine.process import EngineProcess
from napari_sparseseg.errors import EngineError
from napari_sparseseg.gui.notify import telling

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: An engine that says nothing for so long does not answer any more.
SILENCE_S = 60.0

#: Importing torch from a slow disk for the first time takes minutes.
SILENCE_AT_START_S = 300.0

#: A start that takes longer than this is explained.
SLOW_START_S = 10.0

#: The dock is to be seen before the engine takes a core.
START_MS = 200

#: It is listened so often.
WATCH_S = 2.0

#: Engines that end before they are ready are started so often in a row.
MOST_STARTS = 2

#: The last line of a traceback: what it was, in words.
ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b(: .*)?")

SAFE = "your strokes are safe"

#: What the engine imports, in words.
PARTS = {"torch": "PyTorch", "torch._dynamo": "PyTorch"}


class EngineLink(QObject):
    """Keeps an engine running and passes its events on.

    Parameters
    ----------
    log_path
        File that the engine's standard error is added to.
    command
        What is run; default: this project's engine.

    Signals
    -------
    told(event)
        An event of the engine.
    died(sentence, restarting)
        It ended unasked; says what happened, and whether a new one is started.
    slow(sentence)
        It takes long to start; says what it does, again every few seconds.
    """

    told = Signal(object)
    died = Signal(str, bool)
    slow = Signal(str)

    _arrived = Signal(object)
    _ended = Signal(int, str)

    def __init__(
        self,
        log_path: Path,
        command: Sequence[str] | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._log_path = log_path
        # Threads of the process emit these; Qt brings them into this one.
        self._arrived.connect(self._on_event)
        self._ended.connect(self._on_exit)
        self._starts = 0
        self._is_ready = False
        self._is_stopped = False
        self._missing = ""
        self._reason = ""
        self._silent_s = 0.0
        self._heard_at = 0.0
        self._started_at = 0.0
        self._cpu_s = 0.0
        self._part = ""
        self._process = EngineProcess(
            on_event=self._arrived.emit,
            on_exit=self._ended.emit,
            log_path=log_path,
            command=command,
        )
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(START_MS)
        self._soon.timeout.connect(self._start)
        self._watchdog = QTimer(self)
        self._watchdog.setInterval(round(WATCH_S * 1000))
        self._watchdog.timeout.connect(self._watch)

    @property
    def pid(self) -> int | None:
        """Number of the process, None when there is none."""
        return self._process.pid

    def start(self) -> None:
        """Start the engine soon; ``Ready`` follows when it stands, else ``died``."""
        self._soon.start()

    def _start(self) -> None:
        self._starts += 1
        self._is_ready = False
        self._silent_s = 0.0
        self._started_at = time.monotonic()
        self._part = ""
        try:
            self._process.start()
        except EngineError as error:
            self._give_up(str(error).rstrip("."))
            return
        self._watchdog.start()

    def send(self, request: Any) -> None:
        """Send a request; never waits."""
        self._process.send(request)

    def restart(self, reason: str) -> None:
        """End the engine and start another; the reason, a clause, is told."""
        self._reason = reason
        self._process.kill()

    def stop(self) -> None:
        """End the engine for good."""
        self._is_stopped = True
        self._soon.stop()
        self._watchdog.stop()
        self._process.stop()

    @telling()
    def _on_event(self, event: Any) -> None:
        if self._is_stopped:
            return
        if isinstance(event, Starting):
            self._part = event.module
            return
        if isinstance(event, Ready):
            self._starts = 0
            self._is_ready = True
        if isinstance(event, Failed) and event.request == "ready":
            # It ends now, and a further one would not find more.
            self._missing = event.message.rstrip(".")
            return
        self.told.emit(event)

    @telling()
    def _on_exit(self, code: int, last_lines: str) -> None:
        if self._is_stopped:
            return
        if self._missing:
            self._give_up(self._missing)
            return
        reason, self._reason = self._reason, ""
        told = reason or f"The engine that learns and predicts {self._end(code)}"
        if self._starts < MOST_STARTS:
            engine = ", so the engine" if reason else " and"
            self.died.emit(f"{told}{engine} is started again; {SAFE}.", True)
            self._start()
            return
        last = last_lines.strip().rpartition("\n")[2]
        because = f" ({last})" if ERROR_LINE.fullmatch(last) else ""
        self._give_up(f"{told} before it was ready{because}")

    def _end(self, code: int) -> str:
        if self._silent_s > self._patience():
            return f"did not answer for {self._silent_s:.0f} seconds"
        return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"

    def _give_up(self, reason: str) -> None:
        self._watchdog.stop()
        self.died.emit(
            f"{reason}; {SAFE}, but nothing can be learned or predicted until this is "
            f"mended and the dock is opened again. Details: {self._log_path}",
            False,
        )

    def _patience(self) -> float:
        return SILENCE_S if self._is_ready else SILENCE_AT_START_S

    @telling()
    def _watch(self) -> None:
        """Count the time of silence, but not that in which the computer sleeps."""
        if self._process.pid is None:
            return
        if not self._is_ready:
            self._explain_start()
        if self._process.last_heard != self._heard_at or self._is_importing():
            self._heard_at = self._process.last_heard
            self._silent_s = 0.0
            return
        self._silent_s += WATCH_S
        if self._silent_s > self._patience():
            self._process.kill()

    def _is_importing(self) -> bool:
        """Tell whether an engine that is not ready computes; ending it helps nobody."""
        before, self._cpu_s = self._cpu_s, _cpu_seconds(self._process.pid)
        return not self._is_ready and self._cpu_s > before

    def _explain_start(self) -> None:
        seconds = time.monotonic() - self._started_at
        if seconds < SLOW_START_S:
            return
        part = PARTS.get(self._part, self._part.partition(".")[0])
        loads = f"{part} is being loaded" if part else "Python is being started"
        self.slow.emit(
            f"Starting for {seconds:.0f} seconds: {loads}. The first start after an "
            "installation, a slow disk, or other programs that compute make it take "
            "this long; nothing has to be done."
        )


def _cpu_seconds(pid: int | None) -> float:
    """Return how long a process has computed, 0 where there is none."""
    try:
        times = psutil.Process(pid).cpu_times() if pid is not None else None
    except psutil.Error:
        return 0.0
    return 0.0 if times is None else float(times.user + times.system)
