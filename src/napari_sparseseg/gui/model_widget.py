"""Save and load a model, and export labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.errors import enumerated
from napari_sparseseg.gui.parts import (
    WARNING,
    agrees,
    allow,
    ask_where,
    counted,
    listen,
    note,
    push_button,
    say,
)
from napari_sparseseg.io.export import EXPORT_SUFFIXES

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import SavedModel, State

MODELS = "Models (*.safetensors)"
LABEL_MAPS = f"Label maps ({' '.join(f'*{each}' for each in EXPORT_SUFFIXES)})"
SAVE = "Write the best model so far to a file, to use it on other images"
LOAD = "Predict with a model from a file"
EXPORT = (
    "Write the prediction of the chosen image with its classes: to PNG, TIFF, NIfTI, "
    "NRRD, OME-Zarr, GeoJSON for QuPath, DICOM-SEG, or a table of areas (CSV)"
)
HISTORY = "Models saved in this session; double-click one to predict with it"

#: Saved models that are seen at once.
MOST_ROWS = 3


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
        self.history = QListWidget()
        self.history.setToolTip(HISTORY)
        self.history.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.history.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.history.itemActivated.connect(self._load_again)
        layout.addWidget(self.history)
        listen(self, state.events.models, self._show_history)
        self._show_history()
        for name in ("model", "unsaved", "step", "phase", "pairs", "classes"):
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
        self.export_button.setToolTip(f"{EXPORT}. {self._words_on_export()}")

    def _show_history(self) -> None:
        models = self._state.models
        self.history.clear()
        for model in reversed(models):
            item = QListWidgetItem(words_on(model))
            item.setToolTip(_details_of(model))
            item.setData(Qt.ItemDataRole.UserRole, model.path)
            self.history.addItem(item)
        rows = min(len(models), MOST_ROWS)
        self.history.setFixedHeight(rows * (self.fontMetrics().height() + 6) + 8)
        self.history.setVisible(bool(models))

    def _load_again(self, item: QListWidgetItem) -> None:
        path = item.data(Qt.ItemDataRole.UserRole)
        if self.load_button.isEnabled() and self._may_load():
            self.load_wished.emit(path)

    def _save(self) -> None:
        path = ask_where(
            self, "Save model", "model.safetensors", MODELS, (".safetensors",)
        )
        if path:
            self.save_wished.emit(path)

    def _may_load(self) -> bool:
        question = (
            "What was trained is not saved. Predict with another model all the same?"
            "\n\nTrain goes on from what was learned."
        )
        return not self._state.unsaved or agrees(self, "Load model", question)

    def _load(self) -> None:
        if not self._may_load():
            return
        path, _ = QFileDialog.getOpenFileName(self, "Load model", "", MODELS)
        if path:
            self.load_wished.emit(path)

    def _words_on_export(self) -> str:
        state = self._state
        image = next((row.image for row in state.pairs if row.is_chosen), "")
        of_image = f" of '{image}'" if image else ""
        return (
            f"Writes the live prediction{of_image}, not your strokes. "
            f"Classes: {enumerated(state.classes.names, 6)}."
        )

    def _export(self) -> None:
        title = f"Export labels. {self._words_on_export()}"
        path = ask_where(self, title, "labels.png", LABEL_MAPS, EXPORT_SUFFIXES)
        if path:
            self.export_wished.emit(path)


def words_on(model: SavedModel) -> str:
    """Return what tells saved models apart at a glance."""
    quality = "not scored" if model.overall is None else f"Dice {model.overall:.2f}"
    name = Path(model.path).name
    return f"{name}: {quality}, {counted(model.strokes, 'stroke')}"


def _details_of(model: SavedModel) -> str:
    scores = [f"{name}: {dice:.2f}" for name, dice in model.dice.items()]
    held_out = ["Dice on held-out strokes:", *scores] if scores else []
    learned = f"{counted(model.step, 'step')} learned"
    saved = f"Saved {model.saved.replace('T', ' ')}"
    return "\n".join([model.path, saved, learned, *held_out])
