"""Save and load a model, and export labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from napari_sparseseg.gui.parts import (
    WARNING,
    allow,
    listen,
    note,
    push_button,
    say,
)

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import State

MODELS = "Models (*.safetensors)"
LABEL_MAPS = "Label maps (*.png *.tif *.tiff)"
SAVE = "Write the best model so far to a file, to use it on other images"
LOAD = "Predict with a model from a file"
EXPORT = (
    "Write the prediction of the chosen image to a PNG or TIFF file, with a list of "
    "the classes beside it"
)


class ModelWidget(QWidget):
    """Asks where files are to be.

    Signals
    -------
    save_wished, load_wished
        Path of a model file.
    export_wished
        Path of a label map, ending in ``.png``, ``.tif`` or ``.tiff``.
    """

    save_wished = Signal(str)
    load_wished = Signal(str)
    export_wished = Signal(str)

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.save_button = push_button("Save…", SAVE, self._save)
        self.load_button = push_button("Load…", LOAD, self._load)
        self.export_button = push_button("Export labels…", EXPORT, self._export)
        self.unsaved = note()
        buttons = QHBoxLayout()
        for button in (self.save_button, self.load_button, self.export_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.unsaved)
        for name in ("unsaved", "step", "phase"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _show(self) -> None:
        state = self._state
        learned = state.unsaved or state.step > 0
        allow(self.save_button, SAVE, "" if learned else "Nothing is learned yet.")
        idle = state.phase == "idle"
        allow(self.load_button, LOAD, "" if idle else "Stop the training first.")
        say(self.unsaved, "Trained, not saved" if state.unsaved else "", WARNING)

    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Save model", "model.safetensors", MODELS
        )
        if path:
            self.save_wished.emit(_ending(path, (".safetensors",)))

    def _load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load model", "", MODELS)
        if path:
            self.load_wished.emit(path)

    def _export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Export labels", "labels.png", LABEL_MAPS
        )
        if path:
            self.export_wished.emit(_ending(path, (".png", ".tif", ".tiff")))


def _ending(path: str, endings: tuple[str, ...]) -> str:
    """Return *path* with the first of *endings* unless it has one of them."""
    return path if path.lower().endswith(endings) else path + endings[0]
