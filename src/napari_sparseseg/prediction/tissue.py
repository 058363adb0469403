"""Where a slide has tissue and where it is glass, so that glass is not predicted.

Glass is bright and has next to no colour, and it is alike everywhere. It is described
by the brightest and palest of the pixels that Otsu's threshold on the saturation puts
on its side; what differs from these by more than their own noise is tissue. So faint
tissue stays, which Otsu's threshold alone, half way between strong stain and glass,
would give away.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.interruption import stop_if_wished

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.inputs.resolution import Region
    from napari_sparseseg.io.sources import LazyArray

#: Longest side of an overview in pixels.
OVERVIEW_SIDE = 4096

#: Its pixels are means of squares of at least that side, in which dust disappears.
LEAST_FACTOR = 4

#: Rows of an image without coarser levels that are read at a time.
ROWS_AT_ONCE = 1024

#: Glass is at most that saturated, and at least that bright, in [0, 1].
MOST_SATURATED, LEAST_BRIGHT = 0.12, 0.7

#: It differs that little from the brightest and the palest percent of these pixels.
NEAR_BRIGHTEST, NEAR_PALEST = 0.02, 0.02

#: Less glass than this share of an image gives no reliable description of it.
LEAST_GLASS = 0.001

#: Tissue differs from glass by that many standard deviations, and by that much.
DEVIATIONS, LEAST_DIFFERENCE = 5.0, 0.015

#: Deviation of the blur by which noise is evened out, in overview pixels.
BLUR_PX = 1.0

#: The median absolute deviation of a normal distribution of deviation 1.
NORMAL_MAD = 0.6745

#: Fewer overview pixels in one piece are noise.
LEAST_PIECE_PX = 3

#: What lies that near to tissue, in overview pixels, is taken with it.
MARGIN_PX = 3


def overview_of(levels: Sequence[LazyArray]) -> NDArray[np.uint8]:
    """Return an image made small: means of squares of the level that suits best.

    Parameters
    ----------
    levels
        (y, x, 3) uint8, the finest first.

    Returns
    -------
    ndarray
        (h, w, 3) uint8, no side longer than `OVERVIEW_SIDE`; a pixel stands for its
        share of the image, at least `LEAST_FACTOR` pixels wide.
    """
    longest = max(levels[0].shape[:2])
    side = min(OVERVIEW_SIDE, longest / LEAST_FACTOR)
    # Of levels that are fine enough the coarsest: the less is read.
    level = [each for each in levels if max(each.shape[:2]) >= side][-1]
    factor = -(-max(level.shape[:2]) // math.ceil(side))
    rows = max(1, ROWS_AT_ONCE // factor) * factor
    strips = []
    for y in range(0, level.shape[0], rows):
        stop_if_wished()
        strip = np.asarray(level[y : min(y + rows, level.shape[0]), 0 : level.shape[1]])
        strips.append(_means(strip, factor))
    return np.concatenate(strips)


def tissue_mask(overview: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell of each pixel of an overview whether it is tissue, or may be.

    Parameters
    ----------
    overview
        (h, w, 3) uint8, brightfield. Pixels that are 0 in all colours were never
        scanned.

    Returns
    -------
    ndarray
        (h, w). All that was scanned where no glass is found.
    """
    from scipy.ndimage import maximum_filter

    scanned = np.asarray(overview.any(axis=2))
    saturation, brightness = _saturation_and_brightness(overview)
    glass = _surely_glass(saturation, brightness, scanned)
    if glass.mean() < LEAST_GLASS:
        return scanned
    tissue = _differs(saturation, glass, 1) | _differs(brightness, glass, -1)
    pieces = _without_small_pieces(tissue & scanned)
    return np.asarray(maximum_filter(pieces, 2 * MARGIN_PX + 1), dtype=bool)


def tissue_share(
    mask: NDArray[np.bool_], shape: tuple[int, ...], region: Region
) -> float:
    """Return how much of a region of an image is tissue in its overview, in [0, 1].

    Parameters
    ----------
    mask
        Of :func:`tissue_mask`.
    shape
        Of the image, (y, x) first.
    region
        (y0, x0, y1, x1) in pixels of the image.
    """
    (y0, x0, y1, x1), (height, width) = region, shape[:2]
    rows, columns = mask.shape
    inside = mask[
        y0 * rows // height : -(-y1 * rows // height),
        x0 * columns // width : -(-x1 * columns // width),
    ]
    return float(inside.mean())


def _saturation_and_brightness(
    overview: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return saturation and value of HSV, blurred, both in [0, 1]."""
    from scipy.ndimage import gaussian_filter

    lowest, highest = (
        gaussian_filter(extreme.astype(np.float32), BLUR_PX)
        for extreme in (overview.min(axis=2), overview.max(axis=2))
    )
    saturation = (highest - lowest) / np.maximum(highest, 1)
    return saturation, highest / 255


def _surely_glass(
    saturation: NDArray[np.float32],
    brightness: NDArray[np.float32],
    scanned: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    from skimage.filters import threshold_otsu

    threshold = MOST_SATURATED
    if scanned.any():
        otsu = threshold_otsu(saturation[scanned])  # type: ignore[no-untyped-call]
        threshold = min(threshold, float(otsu))
    pale = scanned & (saturation <= threshold) & (brightness >= LEAST_BRIGHT)
    if not pale.any():
        return pale
    brightest = np.percentile(brightness[pale], 99) - NEAR_BRIGHTEST
    palest = np.percentile(saturation[pale], 1) + NEAR_PALEST
    return pale & (brightness >= brightest) & (saturation <= palest)


def _differs(
    values: NDArray[np.float32], glass: NDArray[np.bool_], sign: int
) -> NDArray[Any]:
    """Tell where *values* lie above (sign 1) or below (-1) those of glass."""
    of_glass = values[glass]
    middle = np.median(of_glass)
    deviation = np.median(np.abs(of_glass - middle)) / NORMAL_MAD
    difference = max(DEVIATIONS * deviation, LEAST_DIFFERENCE)
    return np.asarray(sign * (values - middle) > difference)


def _without_small_pieces(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import label

    pieces, _ = label(mask, np.ones((3, 3)))
    is_kept = np.bincount(pieces.ravel()) >= LEAST_PIECE_PX
    is_kept[0] = False
    return np.asarray(is_kept[pieces])


def _means(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Return the means of squares of pixels, at the far edges of what is left."""
    starts = [np.arange(0, n, factor) for n in image.shape[:2]]
    sums = image.astype(np.float32)
    for axis, first in enumerate(starts):
        sums = np.add.reduceat(sums, first, axis=axis)
    n_rows, n_columns = (
        np.diff(np.append(first, n))
        for first, n in zip(starts, image.shape[:2], strict=True)
    )
    means = sums / (n_rows[:, None, None] * n_columns[None, :, None])
    return np.asarray(means.round(), dtype=np.uint8)
