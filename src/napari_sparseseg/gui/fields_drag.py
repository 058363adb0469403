"""A rectangle that the user drags on an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import once
from napari_sparseseg.gui.planes import rectangle_placement
from napari_sparseseg.gui.prediction_layer import MADE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_sparseseg.io.slide_fields import Rectangle

#: Of the layer that is there as long as the user drags.
NAME = "new field"

#: Before anything is dragged: hardly seen.
_NOTHING: Rectangle = (0.0, 0.0, 1.0, 1.0)


class RectangleDrag(QObject):
    """Lets the user drag one rectangle, shown by a layer that is there so long.

    That is an Image of one pixel. Where a Shapes layer is removed and another one added
    napari 0.9 draws what is freed already, which ends the process.

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
        self._image: Image | None = None
        self._layer: Image | None = None
        self._before: Layer | None = None
        self._corners = _NOTHING
        self._released = once(self, self._on_released)
        self._escaped = once(self, self.given_up.emit)

    @property
    def layer(self) -> Image | None:
        """The layer that shows the rectangle, None while none is waited for."""
        return self._layer

    def start(self, image: Image) -> None:
        """Wait for a rectangle on an image."""
        self.stop()
        self._before = self._viewer.layers.selection.active
        layer = Image(
            np.ones((1, 1), np.uint8),
            name=NAME,
            colormap="yellow",
            contrast_limits=(0, 1),
            opacity=0.4,
            **rectangle_placement(image, _NOTHING),
        )
        # No image that anybody works on.
        MADE.add(layer)
        self._image, self._layer = image, layer
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = layer
        layer.mouse_pan = False
        layer.cursor = "cross"
        layer.mouse_drag_callbacks.append(self._follow)
        layer.bind_key("Escape", self._on_escape, overwrite=True)

    def again(self) -> None:
        """Take the rectangle away, and wait for another one."""
        self.show(_NOTHING)

    def stop(self) -> None:
        """Wait no more, and leave the layers as they were."""
        layer, self._layer = self._layer, None
        self._released.stop()
        self._escaped.stop()
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
            if self._before in self._viewer.layers:
                self._viewer.layers.selection.active = self._before

    def _follow(self, _layer: Any, event: Any) -> Iterator[None]:
        """Go along with the mouse from the press of its button to the release."""
        start = self._place_of(event)
        yield
        while event.type == "mouse_move":
            ends = np.array([start, self._place_of(event)])
            corners = (*ends.min(axis=0).tolist(), *ends.max(axis=0).tolist())
            self.show(corners)
            yield
        # The layer goes, but not while napari works on its event.
        self._released.start(0)

    def _on_escape(self, _layer: Any) -> None:
        self._escaped.start(0)

    @telling()
    def _on_released(self) -> None:
        if self._layer is not None and self._corners != _NOTHING:
            self.dragged.emit(self._corners)

    def _place_of(self, event: Any) -> NDArray[np.float64]:
        """Return where the mouse is; napari has the centres of pixels at whole ones."""
        assert self._image is not None
        place: NDArray[np.float64] = np.add(
            self._image.world_to_data(event.position)[-2:], 0.5
        )
        return place

    def show(self, corners: Rectangle) -> None:
        """Show a rectangle, (y0, x0, y1, x1) as `dragged` has it."""
        if self._image is None or self._layer is None:
            return
        (y0, x0, y1, x1), self._corners = corners, corners
        if y0 < y1 and x0 < x1:
            placed = rectangle_placement(self._image, corners)
            self._layer.scale = placed["scale"]
            self._layer.translate = placed["translate"]
