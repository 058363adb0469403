"""The dock "Boxes"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal

from napari_sparseseg.gui.boxes_layers_widget import LayersWidget
from napari_sparseseg.gui.boxes_method_widget import MethodWidget
from napari_sparseseg.gui.boxes_run_widget import RunWidget
from napari_sparseseg.gui.boxes_table_widget import BoxTableWidget
from napari_sparseseg.gui.dock_frame import DockFrame, words_on_engine
from napari_sparseseg.gui.parts import allow, listen, push_button

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_sparseseg.gui.boxes_state import BoxesState

HELP_TITLE = "From boxes to masks in five steps"
HELP = """
<ol>
<li><b>Open an image</b>, press <b>New boxes</b>, and draw a box around each object with
the mouse, on any slice. <b>Next box is</b> says what it encloses.</li>
<li><b>Choose a method</b>, for CT also the window behind Advanced, and press
<b>Generate for all</b>.</li>
<li><b>Look at the masks.</b> They lie in a layer of their own. Where one is wrong, move
a number behind Advanced and see it change, or choose another method and press
<b>Redo</b>.</li>
<li><b>Accept</b> writes masks into a Labels layer. There you paint on them with
napari's own brush and eraser, and Ctrl+Z takes them back.</li>
<li><b>Train on these</b> has a network learn from the masks, so that it finds such
objects in other images by itself.</li>
</ol>
<p>A box that is moved loses its proposed mask. What you accepted stays.</p>
<p>For research use only; not a medical device.</p>
"""
TRAIN = (
    "Accept the masks that are left, and open the dock Label and train with this image "
    "and these labels, ready to train"
)


class BoxesDockWidget(DockFrame):
    """Shows a state; its parts send signals for what the user wishes.

    Attributes
    ----------
    layers, method, run, table
        The parts, from top to bottom.

    Signals
    -------
    train_pressed
        The masks are to be trained on.
    """

    train_pressed = Signal()

    def __init__(self, state: BoxesState, parent: QWidget | None = None) -> None:
        super().__init__(HELP_TITLE, HELP, "From boxes to masks, in five steps", parent)
        self._state = state
        self.layers = LayersWidget(state)
        self.method = MethodWidget(state)
        self.run = RunWidget(state)
        self.table = BoxTableWidget(state)
        self.train_button = push_button(
            "Train on these", TRAIN, self.train_pressed.emit
        )
        self.lay_out(
            {
                "Image and boxes": [self.layers],
                "How": [self.method],
                "Masks": [self.run, self.table, self.train_button],
            }
        )
        for name in ("status", "engine", "starting", "cannot_train"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _show(self) -> None:
        state = self._state
        self.status.setText(
            state.status or words_on_engine(state.engine, state.starting)
        )
        allow(self.train_button, TRAIN, state.cannot_train)
