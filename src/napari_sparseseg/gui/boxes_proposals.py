"""The layers that show masks before they are accepted, and the localisation maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels

from napari_sparseseg.gui.class_colors import give_classes
from napari_sparseseg.gui.planes import (
    PlaneKey,
    labels_level,
    level_shape,
    new_labels_for,
    place_on,
    placement,
    placing_events,
)
from napari_sparseseg.gui.prediction_layer import insert_result

if TYPE_CHECKING:
    from napari.components import LayerList
    from napari.layers import Shapes
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable


class ProposalLayers:
    """Keeps one Labels layer of masks on an image, and one Image layer of their maps.

    Both are made when they are first needed, and again where the user has deleted
    them. Nobody paints in them, nor are they kept as strokes.

    Parameters
    ----------
    layers
        Of the viewer.
    image
        The image layer.
    classes
        Colours and names.
    """

    def __init__(self, layers: LayerList, image: Image, classes: ClassTable) -> None:
        self._layers = layers
        self._image = image
        self._classes = classes
        self._level = labels_level(image)
        self._masks: Labels | None = None
        self._map: Image | None = None
        for event in placing_events(image):
            event.connect(self._on_image_moved)

    @property
    def masks(self) -> Labels | None:
        """The layer of masks, None where there is none."""
        return self._masks if self._masks in self._layers else None

    @property
    def map(self) -> Image | None:
        """The layer of localisation maps, None where there is none."""
        return self._map if self._map in self._layers else None

    def show(self, plane: PlaneKey, proposed: NDArray[np.integer[Any]]) -> None:
        """Show the masks of a plane.

        Parameters
        ----------
        plane
            Which one.
        proposed
            (y, x) class values.
        """
        if self.masks is None:
            self._make_masks(proposed)
        masks = self._masks
        assert masks is not None
        if proposed.dtype.itemsize > np.dtype(masks.dtype).itemsize:
            masks.data = masks.data.astype(proposed.dtype)
            masks.editable = False
        masks.data[plane.index] = proposed
        masks.refresh()

    def lift(self, labels: Labels | None, shapes: Shapes) -> None:
        """Bring masks above the labels they may go into, and boxes above masks.

        Else what is in the labels would hide masks that are made anew.
        """
        for lower, upper in ((labels, self.masks), (self.masks, shapes)):
            if lower not in self._layers or upper not in self._layers:
                continue
            above = self._layers.index(lower)
            if self._layers.index(upper) < above:
                self._layers.move(self._layers.index(upper), above + 1)

    def show_map(self, plane: PlaneKey, localization: NDArray[np.float32]) -> None:
        """Show the localisation maps of a plane, (y, x) float32 in [0, 1]."""
        if self.map is None:
            self._make_map()
        assert self._map is not None
        self._map.data[plane.index] = localization
        self._map.refresh()

    def hide_map(self) -> None:
        """Remove the layer of localisation maps, and free its memory."""
        if self.map is not None:
            self._layers.remove(self.map)
        self._map = None

    def use_classes(self, classes: ClassTable) -> None:
        """Take colours and names from this table."""
        self._classes = classes
        if self.masks is not None:
            give_classes(self.masks, classes)

    def remove(self) -> None:
        """Take the layers out of the viewer and leave the image alone."""
        for event in placing_events(self._image):
            event.disconnect(self._on_image_moved)
        self.hide_map()
        if self.masks is not None:
            self._layers.remove(self.masks)
        self._masks = None

    def _make_masks(self, proposed: NDArray[np.integer[Any]]) -> None:
        highest = int(np.iinfo(proposed.dtype).max)
        name = f"masks of {self._image.name}"
        layer = Labels(**new_labels_for(self._image, name, highest))
        give_classes(layer, self._classes)
        layer.opacity = 0.5
        layer.editable = False
        insert_result(self._layers, layer, self._image, None)
        self._masks = layer

    def _make_map(self) -> None:
        layer = Image(
            np.zeros(level_shape(self._image, self._level), np.float32),
            rgb=False,
            name=f"localisation of {self._image.name}",
            colormap="magma",
            blending="additive",
            contrast_limits=(0, 1),
            opacity=0.6,
            **placement(self._image, self._level),
        )
        insert_result(self._layers, layer, self._image, self.masks)
        self._map = layer

    def _on_image_moved(self) -> None:
        for layer in (self.masks, self.map):
            if layer is not None:
                place_on(layer, self._image, self._level)
