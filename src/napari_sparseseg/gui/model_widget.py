"""Save and load a model, and export labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from napari_sparseseg.gui.parts import (
    WARNING,
    agrees,
    allow,
    listen,
    note,
    push_button,
    say,
)
from napari_sparseseg.io.export import EXPORT_SUFFIXES

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import State

MODELS = "Models (*.safetensors)"
LABEL_MAPS = f"Label maps ({' '.join(f'*{each}' for each in EXPORT_SUFFIXES)})"
SAVE = "Write the best model so far to a file, to use it on other images"
LOAD = "Predict with a model from a file"
EXPORT = (
    "Write the prediction of the chosen image with its classes: to PNG, TIFF, NIfTI, "
    "NRRD, OME-Zarr, GeoJSON for QuPath, DICOM-SEG, or a table of areas (CSV)"
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
        self.words = note()
        self.unsaved = note()
        buttons = QHBoxLayout()
        for button in (self.save_button, self.load_button, self.export_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.words)
        layout.addWidget(self.unsaved)
        for name in ("model", "unsaved", "step", "phase"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _show(self) -> None:
        state = self._state
        learned = state.unsaved or state.step > 0
        allow(self.save_button, SAVE, "" if learned else "Nothing is learned yet.")
        idle = state.phase == "idle"
        allow(self.load_button, LOAD, "" if idle else "Stop the training first.")
        trained = f"Trained, not saved. {state.model}".rstrip()
        say(self.unsaved, trained if state.unsaved else "", WARNING)
        say(self.words, "" if state.unsaved else state.model)

    def _save(self) -> None:
        path = self._ask("Save model", "model.safetensors", MODELS, (".safetensors",))
        if path:
            self.save_wished.emit(path)

    def _load(self) -> None:
        question = (
            "What was trained is not saved. Predict with another model all the same?"
            "\n\nTrain goes on from what was learned."
        )
        if self._state.unsaved and not agrees(self, "Load model", question):
            return
        path, _ = QFileDialog.getOpenFileName(self, "Load model", "", MODELS)
        if path:
            self.load_wished.emit(path)

    def _export(self) -> None:
        path = self._ask("Export labels", "labels.png", LABEL_MAPS, EXPORT_SUFFIXES)
        if path:
            self.export_wished.emit(path)

    def _ask(self, title: str, name: str, kinds: str, endings: tuple[str, ...]) -> str:
        """Return where a file shall be written, empty where it shall not.

        A name without one of the endings gets the first. The dialogue knows nothing of
        that, so whether a file of the full name may be replaced is asked here.
        """
        path, _ = QFileDialog.getSaveFileName(self, title, name, kinds)
        if not path or path.lower().endswith(endings):
            return path
        path += endings[0]
        question = f"{Path(path).name} already exists.\nDo you want to replace it?"
        if Path(path).exists() and not agrees(self, title, question):
            return ""
        return path
