"""The dock "Predict and export"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sparseseg.gui.dock_frame import DockFrame, words_on_engine
from napari_sparseseg.gui.export_widget import ExportWidget
from napari_sparseseg.gui.parts import listen
from napari_sparseseg.gui.predict_model_widget import PredictModelWidget
from napari_sparseseg.gui.predict_run_widget import PredictRunWidget
from napari_sparseseg.gui.predict_what_widget import PredictWhatWidget

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_sparseseg.gui.predict_state import PredictState

HELP_TITLE = "From a model to files in four steps"
HELP = """
<ol>
<li><b>Choose a model</b>: the one that you have trained in Label and train, as it is at
the moment, or one from a file. Training may go on meanwhile.</li>
<li><b>Say how much</b> is to be predicted: what you see, a plane, a whole stack or
slide, or all images in a folder.</li>
<li><b>Press Predict.</b> The result lies in a layer of its own on the image,
<i>segmentation of …</i>; the next one takes its place. What you painted is never
touched. After Cancel, Predict goes on where it stopped.</li>
<li><b>Export</b> the result, or any other labels. Names and colours of classes go
along, and the file lies where the image lies. What is not labelled stays 0, and is not
background.</li>
</ol>
<p>Look at every result before you use it.</p>
<p>For research use only; not a medical device.</p>
"""


class PredictDockWidget(DockFrame):
    """Shows a state; its parts send signals for what the user wishes.

    Attributes
    ----------
    model, what, run, export
        The parts, from top to bottom.
    """

    def __init__(self, state: PredictState, parent: QWidget | None = None) -> None:
        super().__init__(
            HELP_TITLE, HELP, "From a model to files, in four steps", parent
        )
        self._state = state
        self.model = PredictModelWidget(state)
        self.what = PredictWhatWidget(state)
        self.run = PredictRunWidget(state)
        self.export = ExportWidget(state)
        self.lay_out(
            {
                "Model": [self.model],
                "Predict": [self.what, self.run],
                "Export": [self.export],
            }
        )
        for name in ("status", "engine", "starting"):
            listen(self, getattr(state.events, name), self._show_status)
        self._show_status()

    def _show_status(self) -> None:
        self.status.setText(
            self._state.status
            or words_on_engine(self._state.engine, self._state.starting)
        )
