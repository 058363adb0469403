"""Pseudo-masks that look at nothing but the box: all of it, or the ellipse in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sparseseg.pseudo_masks.label_map import BoxMask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box


def box_mask(box: Box) -> BoxMask:
    """Call every pixel of a box foreground, with a localisation map of 1."""
    return _mask_of(box, np.ones(box.shape, np.bool_))


def ellipse_mask(box: Box) -> BoxMask:
    """Call the ellipse inscribed in a box foreground.

    A pixel belongs to it if its centre does: ((y - cy) / a)^2 + ((x - cx) / b)^2 <= 1
    with the centre of the box and half its height and width. So at least one pixel of
    a box does. The localisation map is 1 inside and 0 outside.
    """
    from_centre = [
        (2 * np.arange(side, dtype=np.float64) + 1 - side) / side for side in box.shape
    ]
    y, x = from_centre
    return _mask_of(box, y[:, None] ** 2 + x**2 <= 1)


def _mask_of(box: Box, foreground: NDArray[np.bool_]) -> BoxMask:
    return BoxMask(box, foreground, foreground.astype(np.float32))
