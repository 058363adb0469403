"""How many files of the list are read, and a button to read no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QWidget

from napari_sparseseg.gui.parts import listen, once, push_button

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import State

#: What is read sooner is not shown: the dock would flicker.
PATIENCE_MS = 400

_CANCEL = "Read no more files; those that are read stay in the list"


class ReadingWidget(QWidget):
    """A bar, there as long as files are read.

    Signals
    -------
    cancelled
        The button was pressed.
    """

    cancelled = Signal()

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.bar = QProgressBar()
        self.bar.setToolTip("Files of the list whose labels are read")
        self.cancel_button = push_button("Cancel", _CANCEL, self.cancelled.emit)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar, stretch=1)
        layout.addWidget(self.cancel_button)
        self.patience = once(self, self.show, PATIENCE_MS)
        listen(self, state.events.reading, self._show)
        self._show()

    def _show(self) -> None:
        reading = self._state.reading
        if reading is None:
            self.patience.stop()
            self.hide()
            return
        n_read, n_files = reading
        self.bar.setRange(0, n_files)
        self.bar.setValue(n_read)
        self.bar.setFormat(f"Reading, {n_read} of {n_files}")
        if self.isHidden() and not self.patience.isActive():
            self.patience.start()
