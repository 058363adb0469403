"""Where the session is kept, and where those of before are opened from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QWidget

from napari_sparseseg.gui.parts import listen, push_button

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import State

KEEP = (
    "Name the folder that your session is kept in while you work: strokes, classes, "
    "settings, saved models, and where the images are"
)
OPEN = "Open a session with its images and strokes, and go on"
NAME = "session.sparseseg"
FOLDERS = "Sessions (*.sparseseg)"


class PlaceWidget(QWidget):
    """Asks for session folders.

    Signals
    -------
    place_named
        Path of the folder to keep the session in.
    opening_wished
        Path of the folder to open.
    """

    place_named = Signal(str)
    opening_wished = Signal(str)

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.keep_button = push_button("Save session as…", KEEP, self._keep)
        self.open_button = push_button("Open session…", OPEN, self._open)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.keep_button)
        layout.addWidget(self.open_button)
        listen(self, state.events.place, self._show)
        self._show()

    def _show(self) -> None:
        self.keep_button.setToolTip(f"{KEEP}.\nNow: {self._state.place}")

    def _keep(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Keep the session in the folder", NAME, FOLDERS
        )
        if path:
            self.place_named.emit(path)

    def _open(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open a session")
        if path:
            self.opening_wished.emit(path)
