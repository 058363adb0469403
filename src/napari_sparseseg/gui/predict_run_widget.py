"""Starts and ends a prediction, and shows how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from napari_sparseseg.gui.parts import WARNING, allow, listen, note, push_button, say

if TYPE_CHECKING:
    from napari_sparseseg.gui.predict_state import PredictState

PREDICT = (
    "Label every pixel, in a layer of its own; what you painted is not touched, and "
    "the training goes on"
)
CANCEL = "End the prediction; what is predicted stays"
NOT_RUNNING = "Nothing is being predicted."
CANCELLING = "It is being cancelled."

#: Of the whole bar.
PARTS = 1000


class PredictRunWidget(QWidget):
    """Buttons, a bar, and speed and time left.

    Signals
    -------
    predict_pressed, cancel_pressed
        The buttons of these names.
    """

    predict_pressed = Signal()
    cancel_pressed = Signal()

    def __init__(self, state: PredictState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.predict_button = push_button("Predict", PREDICT, self.predict_pressed.emit)
        self.cancel_button = push_button("Cancel", CANCEL, self.cancel_pressed.emit)
        self.why_not = note()
        self.speed = note()
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self.progress.setToolTip("How much is predicted")
        policy = self.progress.sizePolicy()
        # The views below shall not jump whenever a prediction comes and goes.
        policy.setRetainSizeWhenHidden(True)
        self.progress.setSizePolicy(policy)
        buttons = QHBoxLayout()
        buttons.addWidget(self.predict_button)
        buttons.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.progress)
        layout.addWidget(self.speed)
        layout.addWidget(self.why_not)
        for name in ("progress", "cancelling", "speed", "cannot_predict"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _show(self) -> None:
        state = self._state
        runs = state.progress is not None
        allow(self.predict_button, PREDICT, state.cannot_predict)
        why_not = CANCELLING if state.cancelling else "" if runs else NOT_RUNNING
        allow(self.cancel_button, CANCEL, why_not)
        self.progress.setVisible(runs)
        # A bar that moves, until it is known how much there is to do.
        self.progress.setMaximum(PARTS if state.progress else 0)
        self.progress.setValue(round((state.progress or 0.0) * PARTS))
        say(self.speed, state.speed)
        say(self.why_not, "" if runs else state.cannot_predict, WARNING)
