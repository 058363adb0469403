"""Where predictions come from and go to: planes of image layers and their files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import LayerError
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
    """

    layer: PredictionLayer
    plane: PlaneKey
    files: PlaneFiles
    dtype: type[np.uint8 | np.uint16]
    confidence: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the plane, in pixels of the level."""
        height, width = level_shape(self.layer.image, self.layer.level)[-2:]
        return height, width

    @property
    def um_per_px(self) -> float | None:
        """Pixel size of the level in micrometres, None when unknown."""
        return um_per_px(self.layer.image, self.layer.level)

    def view(self) -> Region | None:
        """Return what is seen of the plane, in pixels of the level."""
        return visible_region(self.layer.image, self.shape)

    def has_pixels(self, ready: Callable[[], object]) -> bool:
        """Tell whether their file takes no time; else call *ready* from a thread."""
        image = self.layer.image
        return self.files.prepare(image, self.plane, self.layer.level, ready)

    def pixels_file(self) -> Path:
        """Return the file of the plane's pixels."""
        return self.files.pixels(self.layer.image, self.plane, self.layer.level)

    def labels_file(self) -> Path:
        """Return the file that the labels are written to."""
        return self._output(self.dtype)

    def confidence_file(self) -> Path | None:
        """Return the file that the confidence is written to, None if not wanted."""
        return self._output(np.float32) if self.confidence else None

    def mark_stale(self) -> None:
        """Note that what is shown is not of the model of now."""
        self.layer.mark_stale()

    def look(self) -> None:
        """Tell the layer what is seen of it."""
        self.layer.look_at(self.plane, self.view())

    def is_same_plane(self, other: PredictionTarget) -> bool:
        """Tell whether both are the same plane of the same layer."""
        return (self.layer, self.plane) == (other.layer, other.plane)

    def is_fresh(self) -> bool:
        """Tell whether all that is seen is of the model of now."""
        return self.layer.stale_share(self.plane, self.view()) == 0

    def show(self, region: Region) -> None:
        """Bring a region from the files into the layers."""
        self.look()
        self.layer.write(region, self.plane, cut(self.labels_file(), region))
        confidence = self.confidence_file()
        if confidence is not None:
            self.layer.write_confidence(region, self.plane, cut(confidence, region))

    def _output(self, dtype: Any) -> Path:
        return self.files.output(self.layer.image, self.plane, self.layer.level, dtype)


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

    def find(
        self, image: Image | None, labels: Labels | None, level: int
    ) -> PredictionTarget | None:
        """Return what is to be predicted of an image now, None where nothing is.

        Parameters
        ----------
        image, labels
            The layers that are worked on.
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
        return PredictionTarget(
            layer,
            plane,
            self._files,
            np.uint8 if highest < 256 else np.uint16,
            self._state.confidence,
        )

    def use_classes(self, classes: ClassTable) -> None:
        """Take colours, names and values from this table."""
        self.classes = classes
        for layer in self._layers:
            layer.use_classes(classes)

    def show_or_hide(self) -> None:
        """Give all layers the opacity and visibility of the state."""
        for layer in self._layers:
            layer.opacity = self._state.opacity
            layer.visible = self._is_wanted(layer)

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
        layer.opacity, layer.visible = self._state.opacity, self._is_wanted(layer)
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

    def _is_wanted(self, layer: PredictionLayer) -> bool:
        return self._state.visible and self._only in (None, layer.image)


def _shapes_of(image: Image) -> list[tuple[int, ...]]:
    return [level_shape(image, level) for level in range(n_levels(image))]
