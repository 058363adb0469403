"""The working resolution: images and labels made smaller, scores made larger.

A network works on images resampled by a factor, ``scale`` = working pixels per image
pixel. Pixel *u* of the working grid has its centre at ``(u + 0.5) / scale - 0.5`` in
the image. All functions take *regions* of the two grids, so that a part of an image
gets exactly the numbers that the whole would have given.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: (y0, x0, y1, x1), half-open, in pixels of the grid at hand.
Region = tuple[int, int, int, int]


def whole(shape: tuple[int, ...]) -> Region:
    """Return the region of all pixels of an image of *shape* (y, x, ...)."""
    return (0, 0, shape[0], shape[1])


def within(part: Region, region: Region) -> tuple[slice, slice]:
    """Return where a part of a region is in an array of the region."""
    y, x = region[:2]
    return slice(part[0] - y, part[2] - y), slice(part[1] - x, part[3] - x)


def working_shape(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Return the (y, x) size of the working grid of an image of *shape*."""
    # The tolerance keeps 3 / (1 / 3) from becoming 10 working pixels of 9.
    return tuple(max(1, math.ceil(n * scale - 1e-6)) for n in shape[:2])  # type: ignore[return-value]


def source_region(region: Region, scale: float, shape: tuple[int, ...]) -> Region:
    """Return the image pixels that :func:`shrink` needs for a working *region*."""
    bounds = [
        _source_span(start, stop, scale, length)
        for start, stop, length in zip(region[:2], region[2:], shape[:2], strict=True)
    ]
    (y0, y1), (x0, x1) = bounds
    return (y0, x0, y1, x1)


def interpolated_region(target: Region, scale: float, shape: tuple[int, ...]) -> Region:
    """Return the working pixels that :func:`enlarge` needs for a *target*."""
    end = working_shape(shape, scale)
    bounds = []
    for axis in (0, 1):
        first = math.floor((target[axis] + 0.5) * scale - 0.5)
        last = math.floor((target[axis + 2] - 0.5) * scale - 0.5) + 2
        if scale == 1:
            last -= 1
        start = min(max(0, first), end[axis] - 1)
        bounds.append((start, min(max(last, start + 1), end[axis])))
    (y0, y1), (x0, x1) = bounds
    return (y0, x0, y1, x1)


def shrink(image: Tensor, source: Region, region: Region, scale: float) -> Tensor:
    """Resample a part of an image to the working grid.

    Whole pixels are averaged by the integer part of ``1 / scale``; what is left of the
    factor, if anything, is bilinear.

    Parameters
    ----------
    image
        (C, h, w) float: the pixels of *source*, see :func:`source_region`.
    source, region
        Of the image, and of the working grid.
    scale
        Working pixels per image pixel.

    Returns
    -------
    Tensor
        (C, H, W) float with the shape of *region*.
    """
    block = _block(scale)
    pooled = image
    if block > 1:
        height, width = image.shape[-2:]
        padded = F.pad(
            image[None], (0, -width % block, 0, -height % block), mode="replicate"
        )
        pooled = F.avg_pool2d(padded, block)[0]
    if math.isclose(scale * block, 1):
        return pooled[:, : region[2] - region[0], : region[3] - region[1]]
    y, x = (_centres(region, axis) / (scale * block) - 0.5 for axis in (0, 1))
    return sample_bilinear(pooled, y, x, (source[0] // block, source[1] // block))


def enlarge(scores: Tensor, region: Region, target: Region, scale: float) -> Tensor:
    """Interpolate maps of the working grid at the pixels of the image.

    Parameters
    ----------
    scores
        (C, H, W) float: the working pixels of *region*.
    region, target
        Of the working grid, and of the image.
    scale
        Working pixels per image pixel.

    Returns
    -------
    Tensor
        (C, h, w) float with the shape of *target*.
    """
    if scale == 1:
        top, left = target[0] - region[0], target[1] - region[1]
        height, width = target[2] - target[0], target[3] - target[1]
        return scores[:, top : top + height, left : left + width]
    y, x = (_centres(target, axis) * scale - 0.5 for axis in (0, 1))
    return sample_bilinear(scores, y, x, region[:2])


def shrink_labels(
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    values: NDArray[np.int64],
    shape: tuple[int, ...],
    scale: float,
) -> NDArray[np.int64]:
    """Bring annotated pixels to the working grid so that thin strokes survive.

    A working pixel takes the majority among its *annotated* image pixels (the smaller
    number on a tie) and is 0 only where none is annotated.

    Parameters
    ----------
    rows, columns
        (n,) of the annotated image pixels.
    values
        (n,) int64 > 0, what they are annotated with.
    shape
        (y, x) of the image.
    scale
        Working pixels per image pixel.

    Returns
    -------
    ndarray
        int64 of :func:`working_shape`, 0 = not annotated.
    """
    height, width = working_shape(shape, scale)
    if scale >= 1:
        labels = np.zeros(shape[:2], dtype=np.int64)
        labels[rows, columns] = values
        y, x = (
            np.minimum(((np.arange(n) + 0.5) / scale).astype(int), shape[axis] - 1)
            for axis, n in enumerate((height, width))
        )
        return labels[np.ix_(y, x)]
    cells = _cells(rows, scale, height) * width + _cells(columns, scale, width)
    n_values = int(values.max(initial=0)) + 1
    votes, counts = np.unique(cells * n_values + values, return_counts=True)
    # Written in ascending order of votes (and descending value): the last one stays.
    order = np.lexsort((-(votes % n_values), counts))
    shrunk = np.zeros(height * width, dtype=np.int64)
    shrunk[votes[order] // n_values] = votes[order] % n_values
    return shrunk.reshape(height, width)


def sample_bilinear(
    x: Tensor, rows: Tensor, columns: Tensor, origin: tuple[int, int]
) -> Tensor:
    """Read a part of a grid at all crossings of *rows* and *columns*, clamped.

    Parameters
    ----------
    x
        (C, h, w) float: the part.
    rows, columns
        (H,) and (W,) float64, pixels of the whole grid: so a part is read with the
        very weights of the whole, at any distance from the grid's corner.
    origin
        (y, x) of the first pixel of *x* in the whole grid.

    Returns
    -------
    Tensor
        (C, H, W), of the type of *x*.
    """
    for dim, positions in ((-1, columns), (-2, rows)):
        before = positions.floor()
        index = before.long().to(x.device) - origin[dim]
        last = x.shape[dim] - 1
        near = x.index_select(dim, index.clamp(0, last))
        far = x.index_select(dim, (index + 1).clamp(0, last))
        weight = (positions - before).to(x)
        if dim == -2:
            weight = weight[:, None]
        x = torch.lerp(near, far, weight)
    return x


def _centres(region: Region, axis: int) -> Tensor:
    return torch.arange(region[axis], region[axis + 2], dtype=torch.float64) + 0.5


def _block(scale: float) -> int:
    return max(1, math.floor(1 / scale + 1e-6))


def _source_span(start: int, stop: int, scale: float, length: int) -> tuple[int, int]:
    block = _block(scale)
    rest = scale * block
    first = math.floor((start + 0.5) / rest - 0.5 + 1e-6)
    last = math.floor((stop - 0.5) / rest - 0.5 + 1e-6) + 2
    if math.isclose(rest, 1):
        last -= 1
    return max(0, first) * block, min(length, last * block)


def _cells(pixels: NDArray[Any], scale: float, n_cells: int) -> NDArray[np.int64]:
    cells: NDArray[np.int64] = ((pixels + 0.5) * scale).astype(np.int64)
    return np.minimum(cells, n_cells - 1)
