"""Maps of boxes become masks: cut at one half, or by a dense CRF over each box."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sparseseg.inputs.resolution import enlarge, shrink, whole, working_shape
from napari_sparseseg.pseudo_masks.box_image import BoxImage
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

#: A crop of more pixels is refined at a reduced resolution. So many take up to 4 s and
#: 600 MB, in colours on one core.
MOST_PIXELS = 2**19

#: Crops are refined together up to so many pixels, which take a fraction of a second.
PIXELS_TOGETHER = 2**16


@dataclass(frozen=True, slots=True)
class Refinement:
    """How a map becomes a mask.

    A crop of more than `MOST_PIXELS` is refined at a reduced resolution, which bounds
    time and memory: image and map are averaged over square blocks of pixels, the
    reaches of the CRF are as many times shorter, and the probabilities that it finds
    are brought back bilinearly.

    Attributes
    ----------
    crf
        Parameters of the dense CRF, its reaches in pixels of the image and the default
        of theta_alpha by the size of the box alone; None = without, what is above 0.5
        is foreground.
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
        blocks = list(map(_block, crops[group]))
        probabilities = map(_probabilities, masks[group], crops[group])
        refined = dense_crf_of_crops(
            list(map(_shrunk, probabilities, blocks)),
            [_seen(image, *each) for each in zip(crops[group], blocks, strict=True)],
            [
                _in_blocks(refinement.crf, box, block)
                for box, block in zip(boxes[group], blocks, strict=True)
            ],
            refinement.backend,
            refinement.device,
        )
        for mask, crop, block, (_, foreground) in zip(
            masks[group], crops[group], blocks, refined, strict=True
        ):
            inside = _enlarged(foreground, crop, block)[_inside(mask.box, crop)]
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


def _block(crop: Box) -> int:
    """Give the side in pixels of the blocks that a crop is averaged over."""
    height, width = crop.shape
    return next(
        side
        for side in count(1)
        if math.ceil(height / side) * math.ceil(width / side) <= MOST_PIXELS
    )


def _shrunk(maps: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Average (c, y, x) maps over blocks."""
    if block == 1:
        return maps
    shape, scale = maps.shape[1:], 1 / block
    region = whole(working_shape(shape, scale))
    averaged = shrink(torch.tensor(maps), whole(shape), region, scale)
    return np.asarray(averaged, np.float32)


def _seen(image: BoxImage, crop: Box, block: int) -> NDArray[np.uint8]:
    """Give what the CRF sees of an image, averaged over blocks."""
    if block == 1:
        return image.in_8_bits(crop)
    pixels = image.pixels[(slice(None), *crop.slices)]
    return BoxImage(image.name, _shrunk(pixels, block), ()).in_8_bits()


def _in_blocks(options: CrfOptions, box: Box, block: int) -> CrfOptions:
    """Give the reaches for a box in blocks instead of pixels."""
    theta_alpha = options.theta_alpha or math.sqrt(box.area) / 4
    return replace(
        options,
        theta_alpha=theta_alpha / block,
        theta_gamma=options.theta_gamma / block,
    )


def _enlarged(
    probability: NDArray[np.float32], crop: Box, block: int
) -> NDArray[np.float32]:
    """Bring a map of blocks back to the pixels of a crop, (y, x)."""
    if block == 1:
        return probability
    blocks = torch.from_numpy(probability)[None]
    region, target = whole(probability.shape), whole(crop.shape)
    return np.asarray(enlarge(blocks, region, target, 1 / block)[0], np.float32)


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
