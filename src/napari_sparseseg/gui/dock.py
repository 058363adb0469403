"""The dock "Label and train"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sparseseg.gui.class_table_widget import ClassTableWidget
from napari_sparseseg.gui.dock_frame import DockFrame, words_on_engine
from napari_sparseseg.gui.model_widget import ModelWidget
from napari_sparseseg.gui.pairs_widget import PairsWidget
from napari_sparseseg.gui.parts import counted, listen
from napari_sparseseg.gui.place_widget import PlaceWidget
from napari_sparseseg.gui.plots import PlotsWidget
from napari_sparseseg.gui.prediction_widget import PredictionWidget
from napari_sparseseg.gui.training_widget import TrainingWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QDragEnterEvent, QDropEvent
    from qtpy.QtWidgets import QWidget

    from napari_sparseseg.gui.state import State

HELP_TITLE = "Label and train in five steps"
HELP = """
<ol>
<li><b>Open an image</b>, then press <b>New labels</b>; on a slide press
<b>New field</b> and drag a rectangle, which becomes an image of its own.</li>
<li><b>Name your classes.</b> Background is a class like any other.</li>
<li><b>Paint a few thin strokes of each class.</b> Pick the class with a click or with
Alt+1, Alt+2, …; paint with napari's own brush. What is not painted is not background:
it is simply not yet labelled. Five strokes or more of a class let its quality be
measured.</li>
<li><b>Press Train</b> and watch the prediction come. Paint on where it is wrong: it
learns while you paint.</li>
<li><b>Save the model</b> for other images, and <b>export the labels</b>.</li>
</ol>
<p><b>Many images?</b> Drop files here, or press <b>Add folder…</b>, and go through them
with Alt+Left and Alt+Right.</p>
<p>Your strokes are kept on disk as you paint; <b>Save session as…</b> names the folder,
and <b>Open session…</b> brings images, strokes and settings back another day. The
prediction has a layer of its own and never changes your strokes.</p>
<p>For research use only; not a medical device.</p>
"""


class DockWidget(DockFrame):
    """Shows a state; its parts send signals for what the user wishes.

    Attributes
    ----------
    pairs, place, classes, training, plots, prediction, model
        The parts, from top to bottom.
    """

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(
            HELP_TITLE, HELP, "How to label and train, in five steps", parent
        )
        self._state = state
        self.setAcceptDrops(True)
        self.pairs = PairsWidget(state)
        self.place = PlaceWidget(state)
        self.classes = ClassTableWidget(state)
        self.training = TrainingWidget(state)
        self.plots = PlotsWidget(state)
        self.prediction = PredictionWidget(state)
        self.model = ModelWidget(state)
        self.lay_out(
            {
                "Images and labels": [self.pairs, self.place],
                "Classes": [self.classes],
                "Train": [self.training, self.plots],
                "Prediction": [self.prediction],
                "Model": [self.model],
            }
        )
        for name in ("status", "engine", "starting", "device", "step"):
            listen(self, getattr(state.events, name), self._show_status)
        self._show_status()

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files."""
        data = None if event is None else event.mimeData()
        if event is not None and data is not None and data.hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Wish that the files that are dropped be added to the list."""
        data = None if event is None else event.mimeData()
        paths = [] if data is None else [url.toLocalFile() for url in data.urls()]
        if event is not None and any(paths):
            event.acceptProposedAction()
            self.pairs.files_wished.emit([path for path in paths if path])

    def _show_status(self) -> None:
        state = self._state
        lines = [state.status or words_on_engine(state.engine, state.starting)]
        if state.device:
            learned = (
                f"{counted(state.step, 'step')} learned" if state.step else "Computes"
            )
            lines.append(f"{learned} on {state.device}.")
        self.status.setText("\n".join(lines))
