"""Masks are made here, looked at, and trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.parts import WARNING, allow, listen, note, push_button, say

if TYPE_CHECKING:
    from napari_sparseseg.gui.boxes_state import BoxesState

GENERATE = "Make a mask in every box; the boxes stay as they are"
GENERATE_PICKED = "Make masks in the picked boxes alone; the others stay"
CANCEL = "Make no more masks; those that are there stay"
NOT_RUNNING = "No masks are being made."
RUNNING = "Masks are being made."
MAP = (
    "Show how strongly each pixel was taken for the object, bright where it was sure, "
    "in a layer over the image"
)


class RunWidget(QWidget):
    """Asks for masks, and shows how far they are.

    Signals
    -------
    generate_pressed
        Of all boxes.
    picked_pressed
        Places of the boxes that are picked.
    cancel_pressed
        The button of that name.
    map_wished
        Whether the localisation map is to be seen.
    """

    generate_pressed = Signal()
    picked_pressed = Signal(tuple)
    cancel_pressed = Signal()
    map_wished = Signal(bool)

    def __init__(self, state: BoxesState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.generate_button = push_button(
            "Generate for all", GENERATE, self.generate_pressed.emit
        )
        self.picked_button = push_button(
            "For picked", GENERATE_PICKED, self._generate_picked
        )
        self.cancel_button = push_button("Cancel", CANCEL, self.cancel_pressed.emit)
        self.why_not = note()
        self.progress = QProgressBar()
        self.progress.setRange(0, 100)
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self.progress.setToolTip("How much of what runs is done")
        self.map = QCheckBox("Show localisation map")
        self.map.setToolTip(MAP)
        self._lay_out()
        self.map.clicked.connect(self.map_wished)
        for name in (
            "progress",
            "cannot_generate",
            "cannot_redo",
            "map_visible",
            "picked",
        ):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _lay_out(self) -> None:
        policy = self.progress.sizePolicy()
        # The views below shall not jump whenever masks are made.
        policy.setRetainSizeWhenHidden(True)
        self.progress.setSizePolicy(policy)
        buttons = QHBoxLayout()
        for button in (self.generate_button, self.picked_button, self.cancel_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.progress)
        layout.addWidget(self.why_not)
        layout.addWidget(self.map)

    def _show(self) -> None:
        state = self._state
        runs = state.progress is not None
        busy = RUNNING if runs else ""
        allow(self.generate_button, GENERATE, busy or state.cannot_generate)
        allow(self.picked_button, GENERATE_PICKED, busy or state.cannot_redo)
        allow(self.cancel_button, CANCEL, "" if runs else NOT_RUNNING)
        self.progress.setVisible(runs)
        self.progress.setValue(round((state.progress or 0.0) * 100))
        say(self.why_not, "" if runs else state.cannot_generate, WARNING)
        with QSignalBlocker(self.map):
            self.map.setChecked(state.map_visible)

    def _generate_picked(self) -> None:
        self.picked_pressed.emit(self._state.picked)
