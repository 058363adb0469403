"""A tile of a prediction into a large layer: what it takes of the window's time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import napari
import numpy as np

from benchmarks._live_window import WINDOW, run_loop, wait_for
from napari_sparseseg.gui.planes import PlaneKey
from napari_sparseseg.gui.prediction_layer import PredictionLayer
from napari_sparseseg.samples import immunohistochemistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_sparseseg.engine.messages import Region

LAYER_PX, TILE_PX = 4096, 256

#: Ways into a layer, in words.
OURS = "in place, one refresh a frame"
SETITEM = "Labels.data_setitem (enters undo)"
ASSIGNED = "layer.data = array"


class DrawTimer:
    """Tells how long the canvas took to draw, and when that was done."""

    def __init__(self, viewer: napari.Viewer) -> None:
        canvas = viewer.window._qt_viewer.canvas
        self._native = canvas.native
        self._started = 0.0
        self._found: list[float] = []
        canvas._scene_canvas.events.draw.connect(self._start, position="first")
        self._native.frameSwapped.connect(self._end)

    def draw(self) -> float:
        """Let the canvas draw what waits to be drawn; return the seconds it took."""
        self._found.clear()
        self._native.update()
        wait_for(lambda: self._found, "a frame")
        return self._found[0]

    def _start(self, _event: Any) -> None:
        self._started = time.perf_counter()

    def _end(self) -> None:
        self._found.append(time.perf_counter() - self._started)


def measure_tiles(runs: int) -> dict[str, Any]:
    """Write tiles into a layer whose whole is on the canvas, in three ways in turn.

    Returns
    -------
    dict
        JSON values: by way, (milliseconds of writing and refreshing, of drawing) of
        each run. In the first run nothing is warm; it does not count.
    """
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    sample = immunohistochemistry()
    repeats = -(-LAYER_PX // sample.image.shape[0])
    pixels = np.tile(sample.image, (repeats, repeats, 1))[:LAYER_PX, :LAYER_PX]
    image = viewer.add_image(pixels, name="image")
    prediction = PredictionLayer(viewer.layers, image, sample.classes)
    prediction.write((0, 0, 1, 1), PlaneKey(), np.ones((1, 1), np.uint8))
    layer = prediction.layer
    assert layer is not None
    drawing = DrawTimer(viewer)
    run_loop(1.0)
    random = np.random.default_rng(0)
    ways: dict[str, Callable[[Region, NDArray[np.uint8]], None]] = {
        OURS: lambda region, labels: write_ours(prediction, region, labels),
        SETITEM: lambda region, labels: write_setitem(layer, region, labels),
        ASSIGNED: lambda region, labels: write_assigned(layer, region, labels),
    }
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for run in range(runs + 1):
        for name, write in ways.items():
            y, x = (
                TILE_PX * int(n) for n in random.integers(LAYER_PX // TILE_PX, size=2)
            )
            # Blobs as of a segmentation: each 32 pixels of a class.
            blobs = random.integers(1, 5, (TILE_PX // 32,) * 2, dtype=np.uint8)
            labels = blobs.repeat(32, axis=0).repeat(32, axis=1)
            run_loop(0.1)
            started = time.perf_counter()
            write((y, x, y + TILE_PX, x + TILE_PX), labels)
            written = time.perf_counter() - started
            drawn = drawing.draw()
            if run > 0:
                found[name].append((1000 * written, 1000 * drawn))
    prediction.remove()
    viewer.close()
    return {"layer": LAYER_PX, "tile": TILE_PX, "ms": found}


def write_ours(
    prediction: PredictionLayer, region: Region, labels: NDArray[np.uint8]
) -> None:
    """Write as the dock does, without waiting for the next frame."""
    prediction.write(region, PlaneKey(), labels)
    prediction._refresh.flush()


def write_setitem(layer: Labels, region: Region, labels: NDArray[np.uint8]) -> None:
    """Write as napari's brush does."""
    y0, x0, y1, x1 = region
    rows, columns = np.mgrid[y0:y1, x0:x1]
    layer.data_setitem((rows.ravel(), columns.ravel()), labels.ravel())


def write_assigned(layer: Labels, region: Region, labels: NDArray[np.uint8]) -> None:
    """Give the layer its array anew."""
    y0, x0, y1, x1 = region
    data = np.asarray(layer.data)
    data[y0:y1, x0:x1] = labels
    layer.data = data
