"""What a user does with the mouse, on the canvas of a window and in its lists."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer
    from qtpy.QtWidgets import QComboBox

    Point = tuple[float, float]

# The type hints of PyQt6 take its static methods for others.
TEST: Any = QTest


def choose(combo: QComboBox, data: Any) -> None:
    """Choose the entry that stands for *data*."""
    place = combo.findData(data)
    assert place >= 0
    combo.setCurrentIndex(place)
    combo.activated.emit(place)


def drag(
    viewer: napari.Viewer, layer: Layer, *points: Point, pause_ms: int = 8
) -> None:
    """Draw a line along (y, x) in pixels of a layer, with the left button."""
    canvas: Any = viewer.window._qt_viewer.canvas.native
    on_canvas = [_on_canvas(viewer, layer, point) for point in points]
    assert all(map(canvas.rect().contains, on_canvas))
    TEST.mouseMove(canvas, on_canvas[0])
    TEST.mousePress(canvas, Qt.MouseButton.LeftButton, pos=on_canvas[0])
    for start, end in pairwise(on_canvas):
        for share in (0.5, 1.0):
            TEST.mouseMove(canvas, start + (end - start) * share)
            TEST.qWait(pause_ms)
    TEST.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=on_canvas[-1])


def _on_canvas(viewer: napari.Viewer, layer: Layer, point: Point) -> QPoint:
    camera: Any = getattr(viewer, "scene", viewer).camera
    canvas: Any = viewer.window._qt_viewer.canvas.native
    world = np.array(point) * layer.scale[-2:] + layer.translate[-2:]
    y, x = (world - camera.center[-2:]) * camera.zoom
    return QPoint(round(x + canvas.width() / 2), round(y + canvas.height() / 2))
