"""``python -m napari_sparseseg.gui.journey FOLDER``: use the window, leave pictures.

It opens a sample, trains on its strokes, makes masks of its boxes, or shows the choice
of a network, and waits for what a user waits for. Settings and strokes of the user's
own are not touched where the caller sees to it: they are found as always.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import napari
from qtpy.QtCore import QEventLoop, QTimer

from napari_sparseseg.errors import EngineError, SparseSegError
from napari_sparseseg.gui.launch import PLUGIN, open_dock, open_window
from napari_sparseseg.gui.prediction_layer import is_prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_sparseseg.gui.boxes import Boxes
    from napari_sparseseg.gui.boxes_state import BoxesState
    from napari_sparseseg.gui.label_and_train import LabelAndTrain
    from napari_sparseseg.gui.state import State

#: The pictures, in the order in which they are taken.
STROKES = "window 1 strokes.png"
FIRST = "window 2 first prediction.png"
LEARNED = "window 3 learned.png"
MASKS = "window masks of boxes.png"
NETWORKS = "dock networks.png"

#: The sample that has boxes instead of strokes.
BOX_SAMPLE = "abdomen_phantom"

#: (width, height): the whole dock is seen.
WINDOW_PX = 1540, 1180

#: Seconds for each part of the way, on two cores that others use too.
PATIENCE_S = 240.0

#: What was told by the engine is looked at so often, in seconds.
POLL_S = 0.05

#: The canvas is drawn again within that many seconds.
DRAWN_S = 0.5

#: What is opened in the dock has found its place within that many seconds.
OPENED_S = 3.0


def travel(folder: Path, sample: str, validations: int) -> None:
    """Go the way of a user and take a picture at each place.

    Parameters
    ----------
    folder
        Of the pictures.
    sample
        Key of one of the plugin's samples that has strokes.
    validations
        How often the prediction is scored on held-out strokes before the last picture.

    Raises
    ------
    EngineError
        If it takes too long, or the engine does not work.
    """
    with _opened(sample) as (viewer, dock):
        state = dock.state
        viewer.reset_view()
        _take_picture(viewer, folder / STROKES)
        dock.dock.training.train_button.click()
        _wait_for(lambda: _is_predicted(viewer, state), state, "the first prediction")
        _take_picture(viewer, folder / FIRST)
        _wait_for(
            lambda: len(state.curve) >= validations, state, "scores on held-out strokes"
        )
        _wait_for(lambda: state.progress is None, state, "the prediction")
        _take_picture(viewer, folder / LEARNED)


def travel_with_boxes(folder: Path) -> None:
    """Make the masks of a sample's boxes and take a picture of them.

    Parameters
    ----------
    folder
        Of the picture.

    Raises
    ------
    EngineError
        If it takes too long, or the engine does not work.
    """
    viewer = napari.Viewer(title="napari: sparse segmentation")
    viewer.open_sample(PLUGIN, BOX_SAMPLE)
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "Boxes")
    boxes: Boxes = widget
    state = boxes.state
    try:
        viewer.window.resize(*WINDOW_PX)
        _wait_for(lambda: state.engine == "ready", state, "the engine")
        viewer.reset_view()
        boxes.controller.use_settings(replace(state.settings, method="grabcut"))
        boxes.dock.run.generate_button.click()
        _wait_for(lambda: len(state.places("proposed")) > 0, state, "the first mask")
        _wait_for(lambda: state.progress is None, state, "the masks")
        _take_picture(viewer, folder / MASKS)
    finally:
        boxes.controller.close()
        viewer.close()


def show_networks(folder: Path, sample: str) -> None:
    """Choose a network whose weights are not there; picture that part of the dock.

    Parameters
    ----------
    folder
        Of the picture.
    sample
        Key of one of the plugin's samples that has strokes.

    Raises
    ------
    EngineError
        If it takes too long, or the engine does not work.
    """
    with _opened(sample) as (_, dock):
        training = dock.dock.training
        wished = replace(
            dock.state.settings, net="unet-resnet50", encoder_weights="imagenet"
        )
        dock.controller.use_settings(wished)
        training.advanced.toggleButton().click()
        _work(OPENED_S)
        training.grab().save(str(folder / NETWORKS))


@contextmanager
def _opened(sample: str) -> Iterator[tuple[napari.Viewer, LabelAndTrain]]:
    """Open a window with a sample, whose dock is ready; close it in the end."""
    viewer = open_window([], sample)
    dock = open_dock(viewer)
    try:
        viewer.window.resize(*WINDOW_PX)
        _wait_for(lambda: dock.state.engine == "ready", dock.state, "the engine")
        yield viewer, dock
    finally:
        dock.controller.close()
        viewer.close()


def _is_predicted(viewer: napari.Viewer, state: State) -> bool:
    """Tell whether there is a prediction and none is under way."""
    return state.progress is None and any(map(is_prediction, viewer.layers))


def _wait_for(
    condition: Callable[[], bool], state: State | BoxesState, what: str
) -> None:
    """Let the window work until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if state.engine == "broken" or time.monotonic() > end:
            raise EngineError(
                f"the window waits for {what} in vain; it says: {state.status}",
                waited_for=what,
            )
        _work(POLL_S)


def _work(seconds: float) -> None:
    """Let the window work for a while."""
    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def _take_picture(viewer: napari.Viewer, path: Path) -> None:
    _work(DRAWN_S)
    viewer.window.screenshot(str(path), canvas_only=False, flash=False)


def main() -> None:
    """Go the way; what goes wrong is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", default="tissue_phantom")
    parser.add_argument("--validations", type=int, default=1)
    parser.add_argument("--networks", action="store_true", help="Advanced alone")
    wishes = parser.parse_args()
    try:
        if wishes.networks:
            show_networks(wishes.folder, wishes.sample)
        elif wishes.sample == BOX_SAMPLE:
            travel_with_boxes(wishes.folder)
        else:
            travel(wishes.folder, wishes.sample, wishes.validations)
    except SparseSegError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
