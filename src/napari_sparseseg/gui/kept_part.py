"""What belongs to a session besides strokes is written soon after it has changed."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.disk_thread import DiskThread
from napari_sparseseg.gui.kept_labels import RETRY_MS
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

#: Changes are waited for so long.
DEBOUNCE_MS = 500


class KeptPart(QObject):
    """Brings a file of the session folder up to date, and tries again where it fails.

    The user is not told of that: the strokes are in the same folder, and they are.

    Parameters
    ----------
    folder
        Gives the session folder of now.
    """

    def __init__(
        self, folder: Callable[[], Path], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._folder = folder
        self._written: tuple[Path, Any] | None = None
        self._disk = DiskThread()
        self._timer = once(self, self._bring, DEBOUNCE_MS)
        self._check = once(self, self._try_again, RETRY_MS)

    @telling()
    def flush(self) -> bool:
        """Write what is not on disk yet, now; tell whether all is."""
        self._timer.stop()
        self._disk.wait()
        self._note_failure()
        now = self._folder(), self._now()
        if now == self._written or not now[1]:
            return True
        try:
            self._write(*now)
        except OutputError:
            logger.exception("a part of the session cannot be kept")
            self._check.start()
            return False
        self._written = now
        return True

    def close(self) -> None:
        """End: what is true now is on disk, if it can be."""
        self.flush()
        self._timer.stop()
        self._check.stop()

    @telling()
    def _bring(self) -> None:
        """Write what is not on disk yet, in a thread."""
        now = self._folder(), self._now()
        if now != self._written and now[1]:
            self._written = now
            self._disk.do("part", partial(self._write, *now))
            self._check.start()

    @telling()
    def _try_again(self) -> None:
        self._note_failure()
        self._bring()

    def _note_failure(self) -> None:
        failure = self._disk.take_failure()
        if failure is not None:
            logger.error("a part of the session cannot be kept", exc_info=failure)
            self._written = None

    def _on_change(self, _event: Any = None) -> None:
        if not self._timer.isActive():
            self._timer.start(DEBOUNCE_MS)

    def _now(self) -> Any:
        """Return what is to be on disk; nothing where that needs no file."""
        raise NotImplementedError

    def _write(self, folder: Path, content: Any) -> None:
        """Write it.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        raise NotImplementedError
