"""The button that cuts fields out of slides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_sparseseg.gui.parts import WheelGuard, allow, listen, push_button
from napari_sparseseg.gui.settings_form import decimal_box

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import State

_NEW = (
    "Drag a rectangle on a slide that is too large to be painted whole; it becomes an "
    "image with labels of its own"
)
_CANCEL = "Make no field (Esc)"
_UM = (
    "Micrometres per pixel of a new field; auto: as those that are learned from "
    "already, else as the level of the slide that is nearest to 0.5"
)


class FieldsWidget(QWidget):
    """A button for a new field, and its resolution.

    Signals
    -------
    wished
        A field is wished for: micrometres per pixel, None: as usual.
    cancelled
        The one that is being made is not wished for any more.
    """

    wished = Signal(object)
    cancelled = Signal()

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.button = push_button("New field", _NEW, self._press)
        self.um = decimal_box(0, 100, step=0.25, decimals=3, automatic=True)
        self.um.setSpecialValueText("auto µm/px")
        self.um.setSuffix(" µm/px")
        self.um.setToolTip(_UM)
        self._guard = WheelGuard(self)
        self._guard.watch(self.um)
        # Wherever the focus is: the button was pressed, but the canvas is looked at.
        self.escape = QShortcut(QKeySequence(Qt.Key.Key_Escape), self)
        self.escape.setContext(Qt.ShortcutContext.ApplicationShortcut)
        self.escape.activated.connect(self.cancelled)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button, stretch=1)
        layout.addWidget(self.um)
        for name in ("cannot_cut", "is_cutting"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _show(self) -> None:
        is_cutting = self._state.is_cutting
        self.button.setText("Cancel" if is_cutting else "New field")
        self.um.setEnabled(not is_cutting)
        self.escape.setEnabled(is_cutting)
        if is_cutting:
            allow(self.button, _CANCEL)
        else:
            allow(self.button, _NEW, unless=self._state.cannot_cut)

    def _press(self) -> None:
        if self._state.is_cutting:
            self.cancelled.emit()
        else:
            self.wished.emit(self.um.value() or None)
