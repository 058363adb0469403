"""The one layer that shows the result of the dock "Predict and export" on an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from napari.layers import Image, Labels
from superqt.utils import QSignalThrottler

from napari_sparseseg.gui.class_colors import class_colormap, give_classes
from napari_sparseseg.gui.homes import give, open_home
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.planes import (
    level_shape,
    n_levels,
    place_on,
    placement,
    placing_events,
)
from napari_sparseseg.gui.prediction_layer import (
    REFRESH_MS,
    insert_result,
    lift_over_live,
)
from napari_sparseseg.gui.pyramid import Pyramid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari.components import LayerList
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.engine.messages import Region, Sureness
    from napari_sparseseg.gui.planes import PlaneKey
    from napari_sparseseg.io.sources import LazyArray


#: Layers of results; they outlive their dock.
_SHOWN: WeakSet[Labels] = WeakSet()


class ResultLayer:
    """Keeps one Labels layer on an image, and one Image layer of how sure it is.

    What was predicted of other planes stays as long as model and level stay the same.
    A layer that the user has deleted comes back with the next result.

    Parameters
    ----------
    layers
        Of the viewer.
    image
        The image layer.

    Attributes
    ----------
    level
        Of the image, that the labels have the pixels of.
    store
        OME-Zarr that has the very labels of the layer; None where there is none.
    covers_live
        Whether the live prediction of the image was hidden for it.
    """

    def __init__(self, layers: LayerList, image: Image) -> None:
        self.image = image
        self.level = 0
        self.store: Path | None = None
        self.covers_live = self._is_lifted = False
        self._layers = layers
        self._classes: ClassTable | None = None
        self._model = ""
        self._pyramid: Pyramid | None = None
        self._layer: Labels | None = _shown_on(image, layers)
        self._sure_pyramid: Pyramid | None = None
        self._sure: Image | None = None
        self._sureness: Sureness | None = None
        self._refresh = QSignalThrottler()
        self._refresh.setTimeout(REFRESH_MS)
        self._refresh.triggered.connect(self._refresh_now)
        for event in placing_events(image):
            event.connect(self._on_image_moved)

    @property
    def layer(self) -> Labels | None:
        """The Labels layer, None before the first result and after a deletion."""
        return self._layer if self._layer in self._layers else None

    def begin(
        self, level: int, model: str, classes: ClassTable, sureness: Sureness | None
    ) -> None:
        """Take planes of a level, predicted by a model.

        Parameters
        ----------
        level
            Of the image.
        model
            Tells models apart: what another one has predicted is given up.
        classes
            Of the model.
        sureness
            What is shown beside the labels; None: nothing.
        """
        is_new = (level, model) != (self.level, self._model) or self._pyramid is None
        self.level, self._model, self._classes = level, model, classes
        self.store = None
        if is_new:
            highest = max(classes.values, default=0)
            dtype = np.uint8 if highest < 256 else np.uint16
            self._pyramid = Pyramid(self.image, level, dtype)
            self._show(self._pyramid.arrays)
        self.covers_live = self._is_lifted = False
        if is_new or sureness != self._sureness:
            self._drop_sureness()
        self._sureness = sureness
        if sureness is not None and self._sure_pyramid is None:
            self._sure_pyramid = Pyramid(self.image, level, np.float32)

    def write(
        self, region: Region, plane: PlaneKey, labels: NDArray[np.integer[Any]]
    ) -> None:
        """Show a part of a plane: class values of (y0, x0, y1, x1)."""
        assert self._pyramid is not None
        self._pyramid.paste(plane, region, labels)
        if self.layer is None:
            self._show(self._pyramid.arrays)
        if not self._is_lifted:
            self._lift()
        self._refresh.throttle()

    def write_sureness(
        self, region: Region, plane: PlaneKey, values: NDArray[np.floating[Any]]
    ) -> None:
        """Show how sure a part is, 0..1; the layer is made where it is missing."""
        assert self._sure_pyramid is not None
        self._sure_pyramid.paste(plane, region, values)
        if self._sure not in self._layers:
            self._sure = self._new_sure_layer(self._sure_pyramid)
            insert_result(self._layers, self._sure, self.image, self.layer)
        self._refresh.throttle()

    @property
    def is_lazy(self) -> bool:
        """Whether the labels are read from the store when they are seen."""
        layer = self.layer
        return layer is not None and (
            layer.multiscale or not isinstance(layer.data, np.ndarray)
        )

    def show_levels(
        self, levels: Sequence[LazyArray], classes: ClassTable, store: Path
    ) -> None:
        """Show labels of all planes, the finest level first, which are only read.

        The finest has the shape of a level of the image, and lies in *store*.
        """
        self.store = store
        shapes = [level_shape(self.image, k) for k in range(n_levels(self.image))]
        self.level = shapes.index(tuple(levels[0].shape))
        self._classes, self._model, self._pyramid = classes, "", None
        self._drop_sureness()
        self._show(levels)
        self._lift()

    def remove(self) -> None:
        """Take the layers out of the viewer and leave the image alone."""
        self._refresh.cancel()
        for event in placing_events(self.image):
            event.disconnect(self._on_image_moved)
        self._drop_sureness()
        if self.layer is not None:
            self._layers.remove(self.layer)

    def _show(self, levels: Sequence[Any]) -> None:
        """Give the layer these data; another one takes its place where it must."""
        assert self._classes is not None
        before = self.layer
        multiscale = len(levels) > 1
        data = list(levels) if multiscale else levels[0]
        if before is not None and before.multiscale == multiscale:
            before.data = data
            place_on(before, self.image, self.level)
            give_classes(before, self._classes)
            before.editable = False
            return
        layer = Labels(
            data,
            multiscale=multiscale,
            name=f"segmentation of {self.image.name}",
            colormap=class_colormap(self._classes),
            opacity=0.5 if before is None else before.opacity,
            metadata={CLASSES_KEY: self._classes.to_json()},
            **placement(self.image, self.level),
        )
        layer.editable = False
        self._layer = layer
        _SHOWN.add(layer)
        insert_result(self._layers, layer, self.image, before)
        give(layer, self.image)
        if before is not None:
            name = before.name
            self._layers.remove(before)
            layer.name = name

    def _lift(self) -> None:
        """Have the layer seen, once there is something to be seen in it."""
        assert self.layer is not None
        self._is_lifted = self.layer.visible = True
        self.covers_live = lift_over_live(self._layers, self.layer, self.image)

    def _new_sure_layer(self, pyramid: Pyramid) -> Image:
        return Image(
            pyramid.layer_data,
            multiscale=len(pyramid.arrays) > 1,
            rgb=False,
            name=f"{self._sureness} of {self.image.name}",
            colormap="viridis",
            contrast_limits=(0, 1),
            opacity=0.5,
            **placement(self.image, self.level),
        )

    def _drop_sureness(self) -> None:
        if self._sure in self._layers:
            self._layers.remove(self._sure)
        self._sure = self._sure_pyramid = self._sureness = None

    def _refresh_now(self) -> None:
        for layer in (self.layer, self._sure):
            if layer is not None and layer in self._layers:
                layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _on_image_moved(self) -> None:
        # Its labels have the size and place of before.
        self.store = None
        for layer in (self.layer, self._sure):
            if layer in self._layers:
                place_on(layer, self.image, self.level)


def _shown_on(image: Image, layers: LayerList) -> Labels | None:
    """Return the result on an image that an earlier dock has left."""
    for layer in layers:
        if layer in _SHOWN and open_home(layer, layers) is image:
            return layer
    return None
