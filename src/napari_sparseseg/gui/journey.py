"""``python -m napari_sparseseg.gui.journey FOLDER``: use the window, leave pictures.

It opens a sample, trains on its strokes, makes masks of its boxes, or shows one part of
a dock, and waits for what a user waits for. Settings and strokes of the user's
own are not touched where the caller sees to it: they are found as always.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import napari
from PIL import Image as Picture
from qtpy.QtCore import QEventLoop, QTimer

from napari_sparseseg.errors import EngineError, SparseSegError
from napari_sparseseg.gui.launch import PLUGIN, open_dock, open_window
from napari_sparseseg.gui.predict_state import PredictWishes
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.io.atomic import write_atomically
from napari_sparseseg.io.images import write_label_map
from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from napari_sparseseg.gui.boxes import Boxes
    from napari_sparseseg.gui.boxes_state import BoxesState
    from napari_sparseseg.gui.label_and_train import LabelAndTrain
    from napari_sparseseg.gui.predict import PredictAndExport
    from napari_sparseseg.gui.predict_state import PredictState
    from napari_sparseseg.gui.state import State

#: The pictures, in the order in which they are taken.
STROKES = "window 1 strokes.png"
FIRST = "window 2 first prediction.png"
LEARNED = "window 3 learned.png"
MASKS = "window masks of boxes.png"
NETWORKS = "dock networks.png"
PREDICTED = "window predict and export.png"
LISTED = "dock list of images.png"
FIELD = "window new field.png"

#: The sample that has boxes instead of strokes.
BOX_SAMPLE = "abdomen_phantom"

#: (width, height): the whole dock is seen.
WINDOW_PX = 1540, 1180

#: Of a window whose picture shows one thing.
SMALL_PX = 1200, 820

#: Of the slide from which a field is cut: sides in pixels, micrometres per pixel.
SLIDE_PX, SLIDE_UM = 1024, 0.5

#: The rectangle that is dragged on it, (y0, x0, y1, x1).
RECTANGLE = (300.0, 420.0, 560.0, 760.0)

#: Images of the list.
LISTED_IMAGES = 6

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


def show_prediction(folder: Path, sample: str) -> None:
    """Predict with what is learned at the moment; picture the window.

    Parameters
    ----------
    folder, sample
        As of `show_networks`.

    Raises
    ------
    EngineError
        If it takes too long, or the engine does not work.
    """
    with _opened(sample) as (viewer, dock):
        dock.dock.training.train_button.click()
        _wait_for(lambda: _is_predicted(viewer, dock.state), dock.state, "a model")
        dock.controller.stop()
        _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "Predict and export")
        predict: PredictAndExport = widget
        state = predict.state
        try:
            viewer.window.resize(*SMALL_PX)
            _wait_for(lambda: state.engine == "ready", state, "the engine")
            predict.controller.use_wishes(PredictWishes(smallest_object=20))
            predict.dock.run.predict_button.click()
            _wait_for(lambda: state.progress is None, state, "the prediction")
            viewer.reset_view()
            _work(OPENED_S)
            _take_picture(viewer, folder / PREDICTED)
        finally:
            predict.controller.close()


def show_list(folder: Path, sample: str) -> None:
    """List a folder of images with their labels; picture that part of the dock.

    Parameters
    ----------
    folder, sample
        As of `show_networks`.

    Raises
    ------
    EngineError
        If it takes too long, or the engine does not work.
    """
    with TemporaryDirectory() as place, _opened(sample) as (_, dock):
        images = Path(place) / "glands"
        images.mkdir()
        for seed in range(LISTED_IMAGES):
            tile = tissue_phantom(seed, (192, 192))
            assert tile.truth is not None
            path = images / f"case {seed + 1}.png"
            write_atomically(path, partial(_write_picture, tile.image))
            if seed + 1 < LISTED_IMAGES:
                labels = tile.labels if seed % 3 else tile.truth
                write_label_map(
                    images / f"{path.stem}_labels.png", labels, tile.classes
                )
        dock.controller.list.add([str(images)])
        _wait_for(
            lambda: (
                len(dock.state.pairs) > LISTED_IMAGES
                and not dock.controller.images.n_waiting
            ),
            dock.state,
            "the list",
        )
        _work(OPENED_S)
        dock.dock.pairs.grab().save(str(folder / LISTED))


def show_field(folder: Path, sample: str) -> None:
    """Drag a rectangle on a slide; picture the window.

    Parameters
    ----------
    folder, sample
        As of `show_networks`.

    Raises
    ------
    EngineError
        If it takes too long, or the engine does not work.
    """
    with _opened(sample) as (viewer, dock):
        viewer.layers.clear()
        fine = tissue_phantom(0, (SLIDE_PX, SLIDE_PX)).image
        viewer.add_image(
            [fine, fine[::2, ::2], fine[::4, ::4]],
            name="slide",
            rgb=True,
            multiscale=True,
            scale=(SLIDE_UM, SLIDE_UM),
            units="um",
        )
        viewer.window.resize(*SMALL_PX)
        viewer.reset_view()
        _work(OPENED_S)
        fields = dock.controller.fields
        fields.start()
        fields.drag.show(RECTANGLE)
        _take_picture(viewer, folder / FIELD)
        fields.cancel()


#: What is pictured alone.
SHOWN: dict[str, Callable[[Path, str], None]] = {
    "networks": show_networks,
    "prediction": show_prediction,
    "list": show_list,
    "field": show_field,
}


def _write_picture(pixels: NDArray[np.uint8], path: Path) -> None:
    Picture.fromarray(pixels).save(path)


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
    condition: Callable[[], bool],
    state: State | BoxesState | PredictState,
    what: str,
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
    parser.add_argument("--only", choices=list(SHOWN), help="one picture alone")
    wishes = parser.parse_args()
    try:
        if wishes.only:
            SHOWN[wishes.only](wishes.folder, wishes.sample)
        elif wishes.sample == BOX_SAMPLE:
            travel_with_boxes(wishes.folder)
        else:
            travel(wishes.folder, wishes.sample, wishes.validations)
    except SparseSegError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
