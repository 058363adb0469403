"""A rectangle that the user drags on an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import once
from napari_sparseseg.gui.planes import placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

#: Of the layer that is there as long as the user drags.
NAME = "new field"

_COLOR = "#ffd400"

# Of its edge on the canvas, in screen pixels.
_EDGE_PX = 2


class RectangleDrag(QObject):
    """Lets the user drag one rectangle, in a Shapes layer that is there so long.

    Parameters
    ----------
    viewer
        With the canvas.

    Signals
    -------
    dragged(corners)
        (y0, x0, y1, x1) in pixels of the image's finest level, (0, 0) being the upper
        left corner of the first pixel. The layer is still there, for another one.
    given_up()
        Esc was pressed on the canvas.
    """

    dragged = Signal(object)
    given_up = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Shapes | None = None
        self._before: Layer | None = None
        self._released = once(self, self._on_released)
        self._escaped = once(self, self.given_up.emit)

    @property
    def layer(self) -> Shapes | None:
        """The layer that is drawn in, None while nothing is waited for."""
        return self._layer

    def start(self, image: Image) -> None:
        """Wait for a rectangle on an image."""
        self.stop()
        self._before = self._viewer.layers.selection.active
        placed = placement(image)
        zoom = getattr(self._viewer, "scene", self._viewer).camera.zoom
        layer = Shapes(
            ndim=2,
            name=NAME,
            edge_color=_COLOR,
            face_color="transparent",
            edge_width=_EDGE_PX / (zoom * float(np.abs(placed["scale"]).mean())),
            **placed,
        )
        self._layer = layer
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"
        layer.mouse_drag_callbacks.append(self._follow)
        layer.bind_key("Escape", self._on_escape, overwrite=True)

    def again(self) -> None:
        """Take the rectangle away, and wait for another one."""
        if self._layer is not None:
            self._layer.data = []

    def stop(self) -> None:
        """Wait no more, and leave the layers as they were."""
        layer, self._layer = self._layer, None
        self._released.stop()
        self._escaped.stop()
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
            if self._before in self._viewer.layers:
                self._viewer.layers.selection.active = self._before

    def _follow(self, _layer: Any, _event: Any) -> Iterator[None]:
        """Go along with napari's own drawing, and tell when the button is released."""
        yield
        while _event.type == "mouse_move":
            yield
        # napari has still to finish its own part of the event.
        self._released.start(0)

    def _on_escape(self, _layer: Any) -> None:
        # The layer goes, but not while napari works on its key.
        self._escaped.start(0)

    @telling()
    def _on_released(self) -> None:
        if self._layer is None or not len(self._layer.data):
            return
        # napari has the centres of pixels at whole numbers.
        corners = np.asarray(self._layer.data[-1]) + 0.5
        (y0, x0), (y1, x1) = corners.min(axis=0), corners.max(axis=0)
        self.dragged.emit((float(y0), float(x0), float(y1), float(x1)))
