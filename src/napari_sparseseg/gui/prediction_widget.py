"""When predictions are made, and how they are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.parts import WheelGuard, listen

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import Live, State

#: Key that hides and shows the prediction; the controller binds it.
VISIBILITY_KEY = "Alt+P"
MODES: dict[Live, tuple[str, str]] = {
    "off": ("Off", "Make no predictions"),
    "once": ("Once", "Predict what you see now, once"),
    "live": (
        "Live",
        "Predict what you see again and again, as the training learns:\n"
        "the chosen image first, then others that are visible",
    ),
}


class PredictionWidget(QWidget):
    """Asks for predictions and for the look of their layer.

    Signals
    -------
    live_chosen
        ``"off"``, ``"once"`` or ``"live"``; ``"once"`` at each press.
    visibility_wished
        Whether the prediction is to be seen.
    opacity_wished
        Of the prediction, 0..1.
    confidence_wished
        Whether a layer of the confidence is wished for.
    """

    live_chosen = Signal(str)
    visibility_wished = Signal(bool)
    opacity_wished = Signal(float)
    confidence_wished = Signal(bool)

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.modes: dict[Live, QPushButton] = {}
        self.group = QButtonGroup(self)
        for mode, (text, tooltip) in MODES.items():
            button = QPushButton(text)
            button.setCheckable(True)
            button.setToolTip(tooltip)
            self.modes[mode] = button
            self.group.addButton(button)
        self.visible = QCheckBox(f"Show prediction ({VISIBILITY_KEY})")
        self.visible.setToolTip("Hide the prediction to see the image; nothing is lost")
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setToolTip("How strongly the prediction covers the image")
        self.confidence = QCheckBox("Show how sure it is")
        self.confidence.setToolTip(
            "Add a layer with the confidence: bright where the prediction is sure, "
            "dark where it hesitates and a stroke helps most"
        )
        self.progress = QProgressBar()
        self.progress.setRange(0, 100)
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self._lay_out()

        self.group.buttonClicked.connect(self._on_mode)
        self.visible.toggled.connect(self._on_visible)
        self.opacity.valueChanged.connect(self._on_opacity)
        self.confidence.toggled.connect(self._on_confidence)
        for name in (
            *("live", "visible", "opacity", "confidence"),
            *("progress", "predicting"),
        ):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _lay_out(self) -> None:
        guard = WheelGuard(self)
        guard.watch(self.opacity)
        modes = QHBoxLayout()
        for button in self.modes.values():
            modes.addWidget(button)
        policy = self.progress.sizePolicy()
        # The views below shall not jump whenever a prediction comes and goes.
        policy.setRetainSizeWhenHidden(True)
        self.progress.setSizePolicy(policy)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Opacity", self.opacity)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(modes)
        layout.addWidget(self.progress)
        layout.addWidget(self.visible)
        layout.addLayout(form)
        layout.addWidget(self.confidence)

    def _show(self) -> None:
        state = self._state
        self.modes[state.live].setChecked(True)
        with (
            QSignalBlocker(self.visible),
            QSignalBlocker(self.opacity),
            QSignalBlocker(self.confidence),
        ):
            self.visible.setChecked(state.visible)
            self.opacity.setValue(round(state.opacity * 100))
            self.confidence.setChecked(state.confidence)
        self.progress.setVisible(state.progress is not None)
        self.progress.setValue(round((state.progress or 0.0) * 100))
        self.progress.setToolTip(f"How much of '{state.predicting}' is predicted")

    def _on_mode(self, button: QPushButton) -> None:
        for mode, each in self.modes.items():
            if each is button:
                self.live_chosen.emit(mode)
        self._show()

    def _on_visible(self, wanted: bool) -> None:
        self.visibility_wished.emit(wanted)
        self._show()

    def _on_opacity(self, percent: int) -> None:
        self.opacity_wished.emit(percent / 100)
        self._show()

    def _on_confidence(self, wanted: bool) -> None:
        self.confidence_wished.emit(wanted)
        self._show()
