"""Where predictions come from and go to: planes of image layers and their files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sparseseg.errors import LayerError
from napari_sparseseg.gui.freshness import CELL_PX
from napari_sparseseg.gui.gaps import sentences_on_gaps
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.plane_files import PlaneFiles, cut
from napari_sparseseg.gui.planes import (
    PlaneKey,
    level_shape,
    n_levels,
    shown_plane,
    shows_planes,
    um_per_px,
    visible_region,
)
from napari_sparseseg.gui.prediction_layer import PredictionLayer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.engine.messages import Region
    from napari_sparseseg.gui.state import State


#: Of planes with more pixels only what is seen is predicted.
MOST_PIXELS = 4096 * 4096

#: Of planes that are read where they are looked at, no more at a time.
MOST_SIDE = 4096

#: What is read around that, and to which grid it is widened.
AROUND_PX, GRID_PX = 256, 512


class Part(NamedTuple):
    """What is predicted of an image: a plane, or what is seen of a large one."""

    layer: PredictionLayer
    plane: PlaneKey
    view: Region | None


@dataclass(frozen=True, eq=False)
class PredictionTarget:
    """One plane of an image, as it is predicted.

    Attributes
    ----------
    layer
        Shows the prediction.
    plane
        Which plane.
    files
        Through which pixels and predictions go.
    dtype
        Of the predicted labels.
    confidence
        Whether the confidence is wanted too.
    window
        (y0, x0, y1, x1) in pixels of the level: the part of the plane that is read, as
        an image of its own; None: all of it.
    in_background
        Whether it is predicted behind another one.
    """

    layer: PredictionLayer
    plane: PlaneKey
    files: PlaneFiles
    dtype: type[np.uint8 | np.uint16]
    confidence: bool
    window: Region | None = None
    in_background: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the plane, in pixels of the level."""
        height, width = level_shape(self.layer.image, self.layer.level)[-2:]
        return height, width

    @property
    def is_large(self) -> bool:
        """Whether only what is seen of the plane is predicted."""
        height, width = self.shape
        return height * width > MOST_PIXELS

    @property
    def um_per_px(self) -> float | None:
        """Pixel size of the level in micrometres, None when unknown."""
        return um_per_px(self.layer.image, self.layer.level)

    def view(self) -> Region | None:
        """Return what is seen of the plane, in pixels of the level.

        Of a large plane in whole cells of what can be fresh; of a window not more than
        is predicted at a time, from the middle.
        """
        seen = self._seen()
        if seen is None or not self.is_large:
            return seen
        return widened(seen if self.window is None else middle_of(seen), self.shape)

    def has_all_seen(self) -> bool:
        """Tell whether all that is seen is predicted at a time."""
        seen = self._seen()
        return seen is None or self.window is None or middle_of(seen) == seen

    def asked(self) -> Region | None:
        """Return what is seen, in the pixels that the engine is given."""
        view = self.view()
        if view is None or self.window is None:
            return view
        (y, x), (y0, x0, y1, x1) = self.window[:2], view
        return (y0 - y, x0 - x, y1 - y, x1 - x)

    def has_pixels(self, ready: Callable[[], object]) -> bool:
        """Tell whether their file takes no time; else call *ready* from a thread."""
        image, level = self.layer.image, self.layer.level
        return self.files.prepare(image, self.plane, level, ready, self.window)

    def pixels_file(self) -> Path:
        """Return the file of the plane's pixels."""
        image, level = self.layer.image, self.layer.level
        return self.files.pixels(image, self.plane, level, self.window)

    def labels_file(self) -> Path:
        """Return the file that the labels are written to."""
        return self._output(self.dtype)

    def confidence_file(self) -> Path | None:
        """Return the file that the confidence is written to, None if not wanted."""
        return self._output(np.float32) if self.confidence else None

    def look(self) -> None:
        """Tell the layer what is seen of it."""
        self.layer.look_at(self.plane, self.view(), in_background=self.in_background)

    def is_same_plane(self, other: PredictionTarget) -> bool:
        """Tell whether both are the same plane of the same layer."""
        return (self.layer, self.plane) == (other.layer, other.plane)

    def part(self) -> Part:
        """Return what of the image is predicted; equal where it is the same."""
        return Part(self.layer, self.plane, self.view() if self.is_large else None)

    def is_fresh(self) -> bool:
        """Tell whether all that is seen is of the model of now."""
        return self.layer.stale_share(self.plane, self.view()) == 0

    def show(self, region: Region) -> None:
        """Bring a region of the files into the layers."""
        self.look()
        y, x = (0, 0) if self.window is None else self.window[:2]
        y0, x0, y1, x1 = region
        place = (y0 + y, x0 + x, y1 + y, x1 + x)
        self.layer.write(place, self.plane, cut(self.labels_file(), region))
        confidence = self.confidence_file()
        if confidence is not None:
            self.layer.write_confidence(place, self.plane, cut(confidence, region))

    def _seen(self) -> Region | None:
        return visible_region(self.layer.image, self.shape)

    def _output(self, dtype: Any) -> Path:
        image, level = self.layer.image, self.layer.level
        return self.files.output(image, self.plane, level, dtype, self.window)


class PredictionTargets:
    """The prediction layers, one for each image.

    Parameters
    ----------
    viewer
        That shows them.
    files
        Through which planes go.
    state
        Classes, opacity, visibility; told when the user changes these in the layer.

    Attributes
    ----------
    classes
        Of what is predicted: those of the state, or of the model that was loaded.
    """

    def __init__(self, viewer: ViewerModel, files: PlaneFiles, state: State) -> None:
        self._viewer = viewer
        self._files = files
        self._state = state
        self.classes = state.classes
        self._layers: list[PredictionLayer] = []
        self._shapes: dict[PredictionLayer, list[tuple[int, ...]]] = {}
        self._only: Image | None = None

    def show_only(self, image: Image | None) -> None:
        """Hide the predictions of other images from now on; None: of none."""
        self._only = image
        self.show_or_hide()

    def shows(self, image: Image) -> bool:
        """Tell whether the prediction of an image is wanted on the canvas."""
        return self._state.visible and self._only in (None, image)

    def find(
        self, image: Image | None, labels: Labels | None, level: int
    ) -> PredictionTarget | None:
        """Return what is to be predicted of an image now, None where nothing is.

        Parameters
        ----------
        image, labels
            The layers that are worked on; labels None where they do not lie on it.
        level
            Of a multiscale image.

        Raises
        ------
        LayerError
            If the image is seen in 3D or from a side.
        """
        if image is None or image not in self._viewer.layers:
            return None
        if not shows_planes(self._viewer):
            raise LayerError(
                "Nothing is predicted in 3D or from a side, only planes of the image "
                "as it is stored; go back to 2D with its axes in order, and the "
                "prediction goes on.",
                layer=image.name,
            )
        plane = shown_plane(self._viewer, image)
        if plane is None:
            return None
        layer = self._layer_of(image, level)
        layer.lie_under(labels)
        highest = max(self.classes.values, default=0)
        target = PredictionTarget(
            layer,
            plane,
            self._files,
            np.uint8 if highest < 256 else np.uint16,
            self._state.confidence,
        )
        # Labels of the whole level are learned from with all of its pixels.
        if labels is not None or not image.multiscale or not target.is_large:
            return target
        seen = visible_region(image, target.shape)
        if seen is None:
            return None
        return replace(target, window=window_around(middle_of(seen), target.shape))

    def mark_stale(self) -> None:
        """Note that nothing that is shown is of the model of now."""
        for layer in self._layers:
            layer.mark_stale()

    def use_classes(self, classes: ClassTable) -> None:
        """Take colours, names and values from this table."""
        self.classes = classes
        for layer in self._layers:
            layer.use_classes(classes)

    def show_or_hide(self) -> None:
        """Give all layers the opacity and visibility of the state."""
        for layer in self._layers:
            layer.opacity = self._state.opacity
            layer.visible = self.shows(layer.image)

    def drop_confidence(self) -> None:
        """Remove the confidence layers."""
        for layer in self._layers:
            layer.drop_confidence()

    def labels_of(self, image: Image | None) -> NDArray[np.integer[Any]]:
        """Return the prediction of an image: (..., y, x), 0 where there is none yet.

        Raises
        ------
        LayerError
            If nothing of it was predicted.
        """
        return self._shown_on(image).labels

    def level_of(self, image: Image | None) -> int:
        """Return the level of an image that its prediction has the pixels of.

        Raises
        ------
        LayerError
            If nothing of it was predicted.
        """
        return self._shown_on(image).level

    def gaps_of(self, image: Image | None) -> str:
        """Say what of that was never predicted, or by an earlier model.

        Raises
        ------
        LayerError
            If nothing of it was predicted.
        """
        shown = self._shown_on(image)
        return sentences_on_gaps(shown.labels, shown.outdated_share())

    def layers_of(self, image: Image) -> list[Layer]:
        """Return the layers that show the prediction of an image."""
        return [
            layer
            for each in self._layers
            if each.image is image
            for layer in (each.layer, each.confidence_layer)
            if layer is not None
        ]

    def take_new_pixels(self, image: Image) -> None:
        """Mark the prediction of an image stale; one of another shape is removed."""
        for layer in [each for each in self._layers if each.image is image]:
            if self._shapes[layer] == _shapes_of(image):
                layer.mark_stale()
            else:
                self.forget(image)

    def forget(self, image: Image) -> None:
        """Remove the prediction of an image."""
        for layer in [each for each in self._layers if each.image is image]:
            self._layers.remove(layer)
            del self._shapes[layer]
            layer.remove()

    def _shown_on(self, image: Image | None) -> PredictionLayer:
        for layer in self._layers:
            if layer.image is image and layer.layer is not None:
                return layer
        raise LayerError(
            "There is no prediction to export; train a model or load one, and let it "
            "predict the image."
        )

    def _layer_of(self, image: Image, level: int) -> PredictionLayer:
        for layer in self._layers:
            if layer.image is image:
                if layer.level == level:
                    return layer
                self.forget(image)
                break
        layer = PredictionLayer(self._viewer.layers, image, self.classes, level)
        layer.opacity, layer.visible = self._state.opacity, self.shows(image)
        layer.opacity_changed.connect(self._on_opacity)
        layer.visible_changed.connect(partial(self._on_visible, layer))
        self._layers.append(layer)
        self._shapes[layer] = _shapes_of(image)
        return layer

    @telling()
    def _on_opacity(self, opacity: float) -> None:
        self._state.opacity = opacity

    @telling()
    def _on_visible(self, layer: PredictionLayer, visible: bool) -> None:
        # Whoever looks at the prediction of a hidden image means that one alone.
        if self._only in (None, layer.image):
            self._state.visible = visible


def middle_of(seen: Region) -> Region:
    """Return the middle of what is seen, so much as is predicted at a time."""
    y0, x0, y1, x1 = seen
    (y, height), (x, width) = (
        (start + max(0, stop - start - MOST_SIDE) // 2, min(stop - start, MOST_SIDE))
        for start, stop in ((y0, y1), (x0, x1))
    )
    return (y, x, y + height, x + width)


def window_around(view: Region, shape: tuple[int, int]) -> Region:
    """Return what is read of a plane to predict a view.

    It is larger, by what networks look at around a pixel, and its edges are multiples
    of `GRID_PX`, so that small movements of the camera need no other one.
    """
    y0, x0, y1, x1 = view
    around = (y0 - AROUND_PX, x0 - AROUND_PX, y1 + AROUND_PX, x1 + AROUND_PX)
    return widened(around, shape, GRID_PX)


def widened(region: Region, shape: tuple[int, int], side: int = CELL_PX) -> Region:
    """Widen a region of a plane to whole squares of a side, inside of the plane."""
    y0, x0, y1, x1 = region
    (top, bottom), (left, right) = (
        (max(0, start // side * side), min(size, -(-stop // side) * side))
        for start, stop, size in ((y0, y1, shape[0]), (x0, x1, shape[1]))
    )
    return (top, left, bottom, right)


def _shapes_of(image: Image) -> list[tuple[int, ...]]:
    return [level_shape(image, level) for level in range(n_levels(image))]
