"""The one layer that shows the prediction of an image, and its confidence if wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from napari.layers import Image, Labels
from psygnal import Signal
from qtpy.QtCore import QTimer
from superqt.utils import QSignalThrottler

from napari_sparseseg.gui.class_colors import class_colormap, give_classes
from napari_sparseseg.gui.freshness import Freshness
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.planes import (
    PlaneKey,
    all_planes,
    level_shape,
    place_on,
    placement,
    placing_events,
)
from napari_sparseseg.gui.pyramid import Pyramid

if TYPE_CHECKING:
    from napari.components import LayerList
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.engine.messages import Region

#: At most one refresh in that time, about one a drawn frame.
REFRESH_MS = 30

#: What is out of date for longer is dimmed. In live prediction the view is mostly
#: predicted anew before, and would flicker with each stroke.
PATIENCE_MS = 1000

#: The same of what is predicted in the background, which takes longer.
LONG_PATIENCE_MS = 10_000

#: Share of the opacity that is left then.
DIMMED = 0.4

#: Layers that are results, not annotations. Not a mark in the metadata: that goes over
#: to copies, which are the user's layers.
MADE: WeakSet[Layer] = WeakSet()


#: The live predictions of all windows.
_LIVE: WeakSet[PredictionLayer] = WeakSet()


def is_prediction(layer: Layer) -> bool:
    """Tell whether a layer shows a prediction, or its confidence; no copy of one."""
    return layer in MADE


def insert_result(
    layers: LayerList, layer: Layer, image: Image, above: Labels | None
) -> None:
    """Put a layer of results under another, or on its image; keep what is selected.

    Strokes may lie under the image: then they are those of another one, and what is put
    under them would not be seen.
    """
    MADE.add(layer)
    active = layers.selection.active
    place = 0
    if image in layers:
        place = layers.index(image) + 1
    if above in layers:
        place = max(place, layers.index(above))
    layers.insert(place, layer)
    if active is not None:
        layers.selection.active = active


def lift_over_live(layers: LayerList, result: Layer, image: Image) -> bool:
    """Put a result above the live prediction of its image, and hide that, if any.

    One would shine through the other, in colours that are those of no class. The user
    wishes for live predictions as before: those of other images stay, and this one
    comes back with its eye in the list of layers, or with the next change of the wish.

    Returns
    -------
    bool
        Whether one was hidden.
    """
    was_seen = False
    for each in [live for live in _LIVE if live.image is image]:
        for under in each.layers:
            was_seen |= under.visible
            if layers.index(under) > layers.index(result):
                layers.move(layers.index(result), layers.index(under) + 1)
        each.hide()
    return was_seen


class PredictionLayer:
    """Keeps one Labels layer on an image, and one Image layer of confidences.

    Values are written in place, part by part; nothing enters a history of undo. The
    layers come back with the next write when the user deletes them, and follow the
    image when it is scaled or moved.

    What is out of date is shown dimmed: the whole layer, when any part of the view
    that was told by `look_at` has been so for a second, or ten in the background. The
    data stay plain class values, so that whatever saves the layer saves what is seen,
    and no further layer is needed; the error is on the safe side, since fresh parts may
    look old for a moment, but never old ones fresh. `stale_share` is for saying it in
    words.

    Parameters
    ----------
    layers
        Of the viewer.
    image
        The image layer.
    classes
        Colours and names.
    level
        Of a multiscale image: the finest level that is predicted. The layer has this
        and all coarser ones.

    Attributes
    ----------
    opacity_changed, visible_changed
        Emitted with the new value when the user changed it in the layer itself.
    """

    opacity_changed = Signal(float)
    visible_changed = Signal(bool)

    def __init__(
        self, layers: LayerList, image: Image, classes: ClassTable, level: int = 0
    ) -> None:
        self.image = image
        self.level = level
        self._layers = layers
        self._classes = classes
        self._pyramid = Pyramid(image, level, np.uint8)
        self._layer: Labels | None = None
        self._confidence_pyramid: Pyramid | None = None
        self._confidence: Image | None = None
        self._above: Labels | None = None
        self._opacity = 0.5
        self._visible = True
        self._dimmed = False
        self._setting = False
        height, width = level_shape(image, level)[-2:]
        self._freshness = Freshness((height, width))
        self._view: tuple[PlaneKey, Region | None] | None = None
        self._refresh = QSignalThrottler()
        self._refresh.setTimeout(REFRESH_MS)
        self._refresh.triggered.connect(self._refresh_now)
        self._patience_ms = PATIENCE_MS
        self._patience = QTimer()
        self._patience.setSingleShot(True)
        self._patience.timeout.connect(self._dim)
        for event in placing_events(image):
            event.connect(self._on_image_moved)
        _LIVE.add(self)

    @property
    def layer(self) -> Labels | None:
        """The Labels layer, None before the first write and after a deletion."""
        return self._layer if self._layer in self._layers else None

    @property
    def confidence_layer(self) -> Image | None:
        """The Image layer of confidences, None where there is none."""
        return self._confidence if self._confidence in self._layers else None

    @property
    def opacity(self) -> float:
        """How opaque the prediction is while it is not out of date."""
        return self._opacity

    @opacity.setter
    def opacity(self, opacity: float) -> None:
        self._opacity = opacity
        self._show_opacity()

    @property
    def visible(self) -> bool:
        """Whether the prediction is shown."""
        return self._visible

    @visible.setter
    def visible(self, visible: bool) -> None:
        self._visible = visible
        if self.layer is not None:
            self._set(self.layer, "visible", visible)

    @property
    def layers(self) -> list[Labels | Image]:
        """Those of the two layers that there are."""
        found = (self.layer, self.confidence_layer)
        return [layer for layer in found if layer is not None]

    def hide(self) -> None:
        """Hide the layers, though the user wishes for them, until he says so again."""
        for layer in self.layers:
            self._set(layer, "visible", False)

    def lie_under(self, annotations: Labels | None) -> None:
        """Be put under this layer when the layer is made."""
        self._above = annotations

    def write(
        self, region: Region, plane: PlaneKey, labels: NDArray[np.integer[Any]]
    ) -> None:
        """Show a part of a prediction, fresh from now on.

        Parameters
        ----------
        region
            (y0, x0, y1, x1) in pixels of the level.
        plane
            Which plane.
        labels
            (y1 - y0, x1 - x0) class values.
        """
        if self._pyramid.dtype == np.uint8 and labels.dtype != np.uint8:
            self._widen_for(labels)
        self._pyramid.paste(plane, region, labels)
        if self.layer is None:
            self._make_layer()
        self._refresh.throttle()
        self._freshness.mark_fresh(plane, region)
        self._judge_view()

    def write_confidence(
        self, region: Region, plane: PlaneKey, confidence: NDArray[np.floating[Any]]
    ) -> None:
        """Show the confidence of a part; the layer is made where it is missing.

        Parameters
        ----------
        region, plane
            As of `write`.
        confidence
            (y1 - y0, x1 - x0) probabilities, 0..1.
        """
        if self._confidence_pyramid is None:
            self._confidence_pyramid = Pyramid(self.image, self.level, np.float32)
        self._confidence_pyramid.paste(plane, region, confidence)
        if self.confidence_layer is None:
            self._make_confidence(self._confidence_pyramid)
        self._refresh.throttle()

    def drop_confidence(self) -> None:
        """Remove the confidence layer and free its memory."""
        if self.confidence_layer is not None:
            self._layers.remove(self.confidence_layer)
        self._confidence = self._confidence_pyramid = None

    @property
    def labels(self) -> NDArray[np.integer[Any]]:
        """The prediction at its level: (..., y, x) class values, 0 = not predicted."""
        labels: NDArray[np.integer[Any]] = self._pyramid.arrays[0]
        return labels

    def use_classes(self, classes: ClassTable) -> None:
        """Take colours and names from this table."""
        if classes == self._classes:
            return
        self._classes = classes
        if self.layer is not None:
            give_classes(self.layer, classes)

    def look_at(
        self,
        plane: PlaneKey | None,
        region: Region | None = None,
        *,
        in_background: bool = False,
    ) -> None:
        """Tell what is on the canvas, in pixels of the level; plane None: nothing.

        In the background it may be out of date for longer.
        """
        self._patience_ms = LONG_PATIENCE_MS if in_background else PATIENCE_MS
        self._view = None if plane is None else (plane, region)
        self._judge_view()

    def mark_stale(
        self, plane: PlaneKey | None = None, region: Region | None = None
    ) -> None:
        """Note that a part is not that of the model of now; None: all of it."""
        self._freshness.mark_stale(plane, region)
        self._judge_view()

    def stale_share(self, plane: PlaneKey, region: Region | None = None) -> float:
        """Give the share of a part, None: of the plane, that is out of date."""
        return self._freshness.stale_share(plane, region)

    def outdated_share(self) -> float:
        """Give the share of all planes that was predicted, but is out of date."""
        shares = [
            self._freshness.outdated_share(plane, self.labels[plane.index])
            for plane in all_planes(self.image, self.level)
        ]
        return sum(shares) / len(shares)

    def remove(self) -> None:
        """Take the layers out of the viewer and leave the image alone."""
        self._refresh.cancel()
        self._patience.stop()
        for event in placing_events(self.image):
            event.disconnect(self._on_image_moved)
        self.drop_confidence()
        if self.layer is not None:
            self._layers.remove(self.layer)
        self._layer = None

    def _widen_for(self, labels: NDArray[np.integer[Any]]) -> None:
        """Keep 16 bits from the first class value on that needs them."""
        if labels.size and int(labels.max()) > 255:
            self._pyramid.widen(np.uint16)
            if self.layer is not None:
                self.layer.data = self._pyramid.layer_data
                self.layer.editable = False

    def _make_layer(self) -> None:
        layer = Labels(
            self._pyramid.layer_data,
            multiscale=len(self._pyramid.arrays) > 1,
            name=f"prediction of {self.image.name}",
            colormap=class_colormap(self._classes),
            opacity=self._shown_opacity(),
            visible=self._visible,
            metadata={CLASSES_KEY: self._classes.to_json()},
            **placement(self.image, self.level),
        )
        layer.editable = False
        layer.events.opacity.connect(self._on_opacity)
        layer.events.visible.connect(self._on_visible)
        insert_result(self._layers, layer, self.image, self._above)
        self._layer = layer

    def _make_confidence(self, pyramid: Pyramid) -> None:
        layer = Image(
            pyramid.layer_data,
            multiscale=len(pyramid.arrays) > 1,
            rgb=False,
            name=f"confidence of {self.image.name}",
            colormap="viridis",
            contrast_limits=(0, 1),
            opacity=0.5,
            **placement(self.image, self.level),
        )
        insert_result(self._layers, layer, self.image, self.layer)
        self._confidence = layer

    def _refresh_now(self) -> None:
        for layer in (self.layer, self.confidence_layer):
            if layer is not None:
                layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _judge_view(self) -> None:
        """Wait before dimming what is out of date, but show fresh parts at once."""
        if self._view is not None and self._freshness.stale_share(*self._view) > 0:
            left = self._patience.remainingTime()
            if not self._dimmed and not 0 <= left <= self._patience_ms:
                self._patience.start(self._patience_ms)
            return
        self._patience.stop()
        self._dimmed = False
        self._show_opacity()

    def _dim(self) -> None:
        self._dimmed = True
        self._show_opacity()

    def _shown_opacity(self) -> float:
        return self._opacity * (DIMMED if self._dimmed else 1)

    def _show_opacity(self) -> None:
        if self.layer is not None:
            self._set(self.layer, "opacity", self._shown_opacity())

    def _set(self, layer: Labels | Image, name: str, value: float) -> None:
        """Set what the user may set too, without taking it for his wish."""
        if getattr(layer, name) == value:
            return
        self._setting = True
        try:
            setattr(layer, name, value)
        finally:
            self._setting = False

    def _on_opacity(self) -> None:
        if not self._setting and self.layer is not None:
            shown = self.layer.opacity
            self._opacity = min(1.0, shown / DIMMED) if self._dimmed else shown
            self.opacity_changed.emit(self._opacity)

    def _on_visible(self) -> None:
        if not self._setting and self.layer is not None:
            self._visible = self.layer.visible
            self.visible_changed.emit(self._visible)

    def _on_image_moved(self) -> None:
        for layer in (self.layer, self.confidence_layer):
            if layer is not None:
                place_on(layer, self.image, self.level)
