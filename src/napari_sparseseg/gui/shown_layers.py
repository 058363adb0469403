"""One image alone on the canvas; what the user had visible comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from napari.layers import Image, Labels, Layer, Shapes

from napari_sparseseg.gui import homes
from napari_sparseseg.gui.prediction_layer import is_prediction

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_sparseseg.gui.annotations import Pair
    from napari_sparseseg.gui.prediction_target import PredictionTargets


class ShownLayers:
    """Hides what is not of one image.

    What was visible when it was hidden is shown again in its turn; what the user has
    hidden stays so. Slides stay, on which an image may be a field.

    Parameters
    ----------
    viewer
        Has the layers.
    targets
        Have the predictions.
    """

    def __init__(self, viewer: ViewerModel, targets: PredictionTargets) -> None:
        self._viewer = viewer
        self._targets = targets
        self._hidden: WeakSet[Layer] = WeakSet()
        self.is_active = False

    def show_only(self, pair: Pair) -> None:
        """Show a pair with its prediction and boxes, and hide the others."""
        self.is_active = True
        for layer in list(self._viewer.layers):
            if is_prediction(layer) and isinstance(layer, Labels):
                continue
            if self._is_of(layer, pair):
                self._show(layer)
            elif layer.visible and isinstance(layer, Image | Labels | Shapes):
                self._hidden.add(layer)
                layer.visible = False
        self._targets.show_only(pair.image)

    def show_all(self) -> None:
        """Show all again that was hidden."""
        self.is_active = False
        for layer in list(self._viewer.layers):
            self._show(layer)
        self._targets.show_only(None)

    def _show(self, layer: Layer) -> None:
        if layer in self._hidden:
            self._hidden.discard(layer)
            layer.visible = True

    def _is_of(self, layer: Layer, pair: Pair) -> bool:
        if layer in (pair.image, pair.labels):
            return True
        if is_prediction(layer):
            return layer in self._targets.layers_of(pair.image)
        if isinstance(layer, Shapes):
            return homes.is_at_home(layer, pair.image, self._viewer.layers)
        return isinstance(layer, Image) and bool(layer.multiscale)
