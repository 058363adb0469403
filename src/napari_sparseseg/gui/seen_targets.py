"""What of a window is predicted: the chosen image first, then what else is seen."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image

from napari_sparseseg.gui.fields import is_slide, prediction_level, slide_of
from napari_sparseseg.gui.planes import (
    level_shape,
    shown_plane,
    shows_planes,
    visible_region,
)
from napari_sparseseg.gui.prediction_layer import is_prediction

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_sparseseg.gui.annotations import Annotations
    from napari_sparseseg.gui.pair_control import PairControl
    from napari_sparseseg.gui.prediction_target import (
        PredictionTarget,
        PredictionTargets,
    )

#: Through images blended in another way one sees what lies under them.
OPAQUE = ("opaque", "translucent", "translucent_no_depth")


class SeenTargets:
    """Finds what is to be predicted.

    Parameters
    ----------
    viewer
        That shows the images.
    annotations
        The images that are worked on.
    pairs
        Know the chosen one.
    targets
        Have the predictions.
    learned_um
        Returns micrometres per pixel of what predicts, None where not known.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        annotations: Annotations,
        pairs: PairControl,
        targets: PredictionTargets,
        learned_um: Callable[[], float | None],
    ) -> None:
        self._viewer = viewer
        self._annotations = annotations
        self._pairs = pairs
        self._targets = targets
        self._learned_um = learned_um

    def chosen(self) -> PredictionTarget | None:
        """Return the plane of the chosen image that is shown, None where none is.

        Raises
        ------
        LayerError
            If the image is seen in 3D or from a side.
        """
        pair, image = self._pairs.current, self._pairs.image
        if pair is not None:
            return self._targets.find(image, pair.labels, pair.level)
        return None if image is None else self._without_pair(image)

    def others(self, after: Image | None = None) -> list[PredictionTarget]:
        """Return what is seen beside the chosen image, in the order of its turns.

        Images with labels that are visible and at least in part on the canvas; then the
        slides that they are fields of, where no more is seen than is predicted live.

        Parameters
        ----------
        after
            Whose turn was the last: those in the list behind it come first.
        """
        if not shows_planes(self._viewer):
            return []
        found: dict[Image, PredictionTarget | None] = {}
        for pair in self._annotations.pairs:
            image = pair.image
            if image not in found and not pair.misfit and self._is_seen(image):
                found[image] = self._targets.find(image, pair.labels, pair.level)
        images = list(found)
        start = images.index(after) + 1 if after in found else 0
        targets = [found[image] for image in images[start:] + images[:start]]
        for pair in self._annotations.pairs:
            slide = slide_of(pair.image, self._viewer.layers)
            if slide is not None and slide not in found and self._is_seen(slide):
                found[slide] = self._without_pair(slide)
                targets.append(found[slide])
        return [
            replace(each, in_background=True)
            for each in targets
            if each is not None and each.has_all_seen()
        ]

    def mark_stale(self) -> None:
        """Note that nothing that is shown is of the model of now."""
        self._targets.mark_stale()

    def _without_pair(self, image: Image) -> PredictionTarget | None:
        level = prediction_level(image, self._learned_um())
        # Strokes on a field are not of its slide.
        labels = None if is_slide(image) else self._pairs.labels
        return self._targets.find(image, labels, level)

    def _is_seen(self, image: Image) -> bool:
        """Tell whether an image other than the chosen one can be seen on the canvas."""
        if image is self._pairs.image or not image.visible:
            return False
        return self._targets.shows(image) and not is_hidden(image, self._viewer)


def is_hidden(image: Image, viewer: ViewerModel) -> bool:
    """Tell whether nothing of an image is seen: it is elsewhere, or under another one.

    Parameters
    ----------
    image
        In the viewer, and visible.
    viewer
        Shows y and x.
    """
    if shown_plane(viewer, image) is None:
        return True
    region = visible_region(image)
    if region is None:
        return True
    corners = _corners(image, region, viewer)
    above = viewer.layers[viewer.layers.index(image) + 1 :]
    return any(_covers(each, corners, viewer) for each in above)


def _corners(
    image: Image, region: tuple[int, int, int, int], viewer: ViewerModel
) -> NDArray[np.float64]:
    """Return where the corners of a region lie in the world: (4, number of axes)."""
    y0, x0, y1, x1 = region
    place = np.asarray(image.world_to_data(viewer.dims.point))
    found = [
        image.data_to_world((*place[:-2], y - 0.5, x - 0.5))
        for y, x in product((y0, y1), (x0, x1))
    ]
    return np.asarray(found, float)


def _covers(layer: Layer, corners: NDArray[np.float64], viewer: ViewerModel) -> bool:
    """Tell whether an image lies on all that is between some places."""
    if not (
        isinstance(layer, Image)
        and not is_prediction(layer)
        and layer.visible
        and layer.opacity == 1
        and layer.blending in OPAQUE
        and shown_plane(viewer, layer) is not None
    ):
        return False
    size = np.array(level_shape(layer)[-2:])
    point = np.array(viewer.dims.point, float)
    for corner in corners:
        point[-2:] = corner[-2:]
        at = np.asarray(layer.world_to_data(point))[-2:]
        # Half a pixel more or less is not seen.
        if np.any(at < -1) or np.any(at > size):
            return False
    return True
