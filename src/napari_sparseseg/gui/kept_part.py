"""What belongs to a session besides strokes is written soon after it has changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_sparseseg.errors import OutputError
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
        self._timer = once(self, self.flush, DEBOUNCE_MS)

    @telling()
    def flush(self) -> None:
        """Write what is not on disk yet, now."""
        self._timer.stop()
        now = self._folder(), self._now()
        if now == self._written or not now[1]:
            return
        try:
            self._write(*now)
        except OutputError:
            logger.exception("%s cannot be kept", type(self).__name__)
            self._timer.start(RETRY_MS)
            return
        self._written = now

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
