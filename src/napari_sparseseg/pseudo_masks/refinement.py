"""Maps of boxes become masks: cut at one half, or by a dense CRF over each box."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sparseseg.pseudo_masks.crf import (
    CrfBackend,
    CrfOptions,
    dense_crf_of_crops,
)
from napari_sparseseg.pseudo_masks.label_map import BoxMask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.pseudo_masks.box_image import BoxImage

#: Crops are refined together up to so many pixels, which take a fraction of a second.
PIXELS_TOGETHER = 2**16


@dataclass(frozen=True, slots=True)
class Refinement:
    """How a map becomes a mask.

    Attributes
    ----------
    crf
        Parameters of the dense CRF; None = without, what is above 0.5 is foreground.
    backend, device
        See :func:`~napari_sparseseg.pseudo_masks.crf.dense_crf`.
    margin
        Share of the box's height and width by which the crop that the CRF sees is
        larger at each edge, as far as the image reaches; there all is background.
    """

    crf: CrfOptions | None = None
    backend: CrfBackend = "auto"
    device: str = "cpu"
    margin: float = 0.0


def refine_boxes(
    image: BoxImage,
    boxes: Sequence[Box],
    maps: Sequence[NDArray[np.float32]],
    refinement: Refinement,
) -> Iterator[BoxMask]:
    """Make a mask of the map of each box; many small boxes go through together.

    Parameters
    ----------
    image
        The boxes need not be its own, but have to lie inside of it.
    boxes
        Not empty.
    maps
        For each box (h, w) float32 in [0, 1]: the probability of its class; what is
        left to 1 is that of background.
    refinement
        With or without CRF.

    Yields
    ------
    BoxMask
        In the order of the boxes: foreground is what is then likelier than background,
        the localisation map is the one given.

    Raises
    ------
    ImageError
        If the image has other than one or three channels, or a map is not in [0, 1].
    OptionError
        If the CRF's backend is not known or not there.
    LabelError
        If a map has another size than its box.
    """
    masks = [
        BoxMask(box, each > 0.5, each) for box, each in zip(boxes, maps, strict=True)
    ]
    if refinement.crf is None:
        yield from masks
        return
    crops = [_grown(box, refinement.margin, image.shape) for box in boxes]
    for group in _groups([crop.area for crop in crops]):
        refined = dense_crf_of_crops(
            list(map(_probabilities, masks[group], crops[group])),
            list(map(image.in_8_bits, crops[group])),
            refinement.crf,
            refinement.backend,
            refinement.device,
        )
        for mask, crop, (_, foreground) in zip(
            masks[group], crops[group], refined, strict=True
        ):
            inside = foreground[_inside(mask.box, crop)]
            yield replace(mask, foreground=inside > 0.5)


def _grown(box: Box, margin: float, image_shape: Sequence[int]) -> Box:
    rows, columns = (math.ceil(margin * side) for side in box.shape)
    return replace(
        box,
        y0=box.y0 - rows,
        x0=box.x0 - columns,
        y1=box.y1 + rows,
        x1=box.x1 + columns,
    ).clipped(image_shape)


def _probabilities(mask: BoxMask, crop: Box) -> NDArray[np.float32]:
    """Give those of background and foreground, (2, y, x), in a crop around a box."""
    foreground = np.zeros(crop.shape, np.float32)
    foreground[_inside(mask.box, crop)] = mask.localization
    return np.stack([1 - foreground, foreground])


def _inside(box: Box, crop: Box) -> tuple[slice, slice]:
    """Give what cuts a box out of a crop around it."""
    return (
        slice(box.y0 - crop.y0, box.y1 - crop.y0),
        slice(box.x0 - crop.x0, box.x1 - crop.x0),
    )


def _groups(areas: Sequence[int]) -> Iterator[slice]:
    """Cut a row of crops into parts of bounded area, each of one crop at least."""
    start, total = 0, 0
    for place, area in enumerate(areas):
        if place > start and total + area > PIXELS_TOGETHER:
            yield slice(start, place)
            start, total = place, 0
        total += area
    if areas:
        yield slice(start, len(areas))
