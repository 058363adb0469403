"""Which model predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from napari_sparseseg.gui.model_widget import MODELS
from napari_sparseseg.gui.parts import WheelGuard, listen, narrow, push_button

if TYPE_CHECKING:
    from napari_sparseseg.gui.predict_state import PredictState

MODEL = "What predicts: the model of the dock Label and train, or one from a file"
FILE = "Predict with a model from a file"


class PredictModelWidget(QWidget):
    """Shows ``state.models``.

    Signals
    -------
    chosen
        Path of the model, or ``TRAINED``.
    """

    chosen = Signal(str)

    def __init__(self, state: PredictState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.models = QComboBox()
        self.models.setToolTip(MODEL)
        narrow(self.models)
        self.file_button = push_button("File…", FILE, self._open)
        WheelGuard(self).watch(self.models)
        row = QHBoxLayout()
        row.addWidget(self.models, stretch=1)
        row.addWidget(self.file_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        self.models.activated.connect(self._choose)
        for name in ("models", "wishes"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _show(self) -> None:
        state = self._state
        with QSignalBlocker(self.models):
            self.models.clear()
            for place, each in enumerate(state.models):
                self.models.addItem(each.words, each.path)
                tip = each.why_not or each.path or MODEL
                self.models.setItemData(place, tip, Qt.ItemDataRole.ToolTipRole)
            self.models.setCurrentIndex(self.models.findData(state.wishes.model))

    def _choose(self) -> None:
        self.chosen.emit(self.models.currentData())

    def _open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Model", "", MODELS)
        if path:
            self.chosen.emit(path)
