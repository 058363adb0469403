"""Fields: rectangles of a slide that are images of their own, at one resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io.geometry import Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.io.sources import LazyArray

#: Where nobody says at which resolution, that of the level nearest to a 20x objective.
USUAL_UM_PER_PX = 0.5

#: Sides of a field in its own pixels.
SMALLEST_SIDE, LARGEST_SIDE = 64, 4096

#: Levels whose pixels differ less from what is wished are taken as they are.
SAME_STEP = 0.02

# An edge of a pixel is met by what lies nearer, in pixels.
_EDGE = 0.02

# Rows of a field that are made at once, so that a slide is never in memory whole.
_STRIP = 256

#: (y0, x0, y1, x1), corners of a rectangle in pixels of the finest level, (0, 0) being
#: the upper left corner of the first one.
Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class FieldPlan:
    """A field that is not read yet.

    Attributes
    ----------
    field
        Where it lies on the slide.
    shape
        (y, x) in its own pixels.
    """

    field: Field
    shape: tuple[int, int]

    @property
    def corners(self) -> Rectangle:
        """Where it lies, in pixels of the finest level."""
        (y, x), step = self.field.offset_px, self.field.step_px
        return (y, x, y + self.shape[0] * step, x + self.shape[1] * step)


def field_step(
    shapes: Sequence[tuple[int, ...]],
    slide_um: float | None,
    wished_um: float | None = None,
) -> float:
    """Return the side of a field's pixel, in pixels of the slide's finest level.

    Parameters
    ----------
    shapes
        (y, x) of the levels, the finest first.
    slide_um
        Micrometres per pixel of the finest level, None where not known: then the pixels
        of the field are those of that level.
    wished_um
        Micrometres per pixel of the field. None: those of the level that is nearest to
        0.5.

    Returns
    -------
    float
        At least 1, since a field has no more than the slide; exactly that of a level
        that hardly differs.
    """
    if slide_um is None:
        return 1.0
    steps = [factor_of(shapes, level) for level in range(len(shapes))]
    if wished_um is None:
        return min(
            steps, key=lambda each: abs(math.log(each * slide_um / USUAL_UM_PER_PX))
        )
    wished = max(1.0, wished_um / slide_um)
    nearest = min(steps, key=lambda each: abs(each / wished - 1))
    return nearest if abs(nearest / wished - 1) < SAME_STEP else wished


def plan_field(
    shapes: Sequence[tuple[int, ...]], rectangle: Rectangle, step: float, name: str
) -> FieldPlan:
    """Bring a rectangle to whole pixels of a field, inside of the slide.

    Parameters
    ----------
    shapes
        (y, x) of the levels, the finest first.
    rectangle
        What the user has drawn.
    step
        Of `field_step`.
    name
        What messages call the slide.

    Raises
    ------
    ImageError
        If nothing of it lies on the slide, or it is too small or too large.
    """
    # Whole pixels of the finest level; those of a level where the field has its pixels.
    steps = [factor_of(shapes, level) for level in range(len(shapes))]
    grid = step if any(math.isclose(step, each) for each in steps) else 1.0
    spans = [
        _span(rectangle[axis], rectangle[axis + 2], shapes[0][axis], step, grid)
        for axis in (0, 1)
    ]
    (y, height), (x, width) = spans
    if min(height, width) < 1:
        raise ImageError(
            f"The rectangle lies outside of '{name}', so there is nothing to cut out; "
            "drag one on the slide."
        )
    size = f"{height} x {width} pixels"
    if min(height, width) < SMALLEST_SIDE:
        raise ImageError(
            f"The field would have only {size} at this resolution, and at least "
            f"{SMALLEST_SIDE} a side are needed; drag a larger rectangle, or choose "
            "fewer micrometres per pixel.",
            shape=(height, width),
        )
    if max(height, width) > LARGEST_SIDE:
        raise ImageError(
            f"The field would have {size} at this resolution, and at most "
            f"{LARGEST_SIDE} a side are possible; drag a smaller rectangle, or choose "
            "more micrometres per pixel.",
            shape=(height, width),
        )
    return FieldPlan(Field((y, x), step), (height, width))


def read_field(levels: Sequence[LazyArray], plan: FieldPlan) -> NDArray[Any]:
    """Read a field from the coarsest level that is no coarser.

    Where its pixels are those of the level they are taken as they are; else each is a
    weighted mean of those around its centre.

    Parameters
    ----------
    levels
        (y, x) or (y, x, c), the finest first.
    plan
        Where the field lies.

    Returns
    -------
    ndarray
        (y, x) or (y, x, c) in the number type of the levels.
    """
    shapes = [level.shape[:2] for level in levels]
    level, factor = level_for(shapes, plan.field.step_px)
    y0, x0, y1, x1 = (corner / factor for corner in plan.corners)
    edges = np.rint((y0, x0, y1, x1)).astype(int)
    is_on_grid = np.allclose(edges, (y0, x0, y1, x1), rtol=0, atol=_EDGE)
    if is_on_grid and tuple(edges[2:] - edges[:2]) == plan.shape:
        return np.array(levels[level][edges[0] : edges[2], edges[1] : edges[3]])
    rows, columns = plan.shape
    side = plan.field.step_px / factor
    strips = []
    for first in range(0, rows, _STRIP):
        last = min(first + _STRIP, rows)
        box = (y0 + first * side, x0, y0 + last * side, x1)
        strips.append(_strip(levels[level], box, (last - first, columns)))
    return np.concatenate(strips)


def level_for(shapes: Sequence[tuple[int, ...]], step: float) -> tuple[int, float]:
    """Return the coarsest level whose pixels are no larger than *step*, and its factor.

    The finest where all are larger.
    """
    factors = [factor_of(shapes, level) for level in range(len(shapes))]
    fitting = [
        level for level, each in enumerate(factors) if each <= step * (1 + SAME_STEP)
    ]
    level = max(fitting, key=lambda each: factors[each], default=0)
    return level, factors[level]


def factor_of(shapes: Sequence[tuple[int, ...]], level: int) -> float:
    """Return by how much the pixels of a level are larger than those of the finest.

    Scanners cut off, or fill up, what is no whole pixel at the far edges, so that the
    sizes of two levels say it only nearly.
    """
    fine, coarse = shapes[0][:2], shapes[level][:2]
    ratio = math.sqrt(math.prod(fine) / math.prod(coarse))
    whole = max(1, round(ratio))
    is_whole = all(
        n in (size // whole, -(-size // whole))
        for size, n in zip(fine, coarse, strict=True)
    )
    return float(whole) if is_whole else ratio


def _strip(
    level: LazyArray, box: tuple[float, float, float, float], shape: tuple[int, int]
) -> NDArray[Any]:
    """Resample a box of a level, given in its pixels, to a shape."""
    from PIL import Image

    # What the weights reach to.
    margin = math.ceil(max((box[2] - box[0]) / shape[0], (box[3] - box[1]) / shape[1]))
    low = [max(0, math.floor(edge) - margin) for edge in box[:2]]
    high = [math.ceil(edge) + margin for edge in box[2:]]
    pixels = np.asarray(level[low[0] : high[0], low[1] : high[1]])
    # A level may end a little before the finest one.
    lacking = [
        (0, max(0, math.ceil(edge) - start - size))
        for edge, start, size in zip(box[2:], low, pixels.shape[:2], strict=True)
    ]
    if np.any(lacking):
        pixels = np.pad(pixels, lacking + [(0, 0)] * (pixels.ndim - 2), mode="edge")
    inside = (box[1] - low[1], box[0] - low[0], box[3] - low[1], box[2] - low[0])

    def resample(plane: NDArray[Any]) -> NDArray[Any]:
        picture = Image.fromarray(plane)
        return np.asarray(
            picture.resize(shape[::-1], Image.Resampling.HAMMING, box=inside)
        )

    if pixels.dtype == np.uint8:
        return resample(np.ascontiguousarray(pixels))
    # Pillow has numbers of more than 8 bits in one channel alone.
    channels = pixels if pixels.ndim == 3 else pixels[..., None]
    made = np.stack(
        [
            resample(np.ascontiguousarray(channels[..., each], np.float32))
            for each in range(channels.shape[-1])
        ],
        axis=-1,
    ).reshape(*shape, *pixels.shape[2:])
    if pixels.dtype.kind == "f":
        return made.astype(pixels.dtype)
    limits = np.iinfo(pixels.dtype)
    rounded = np.rint(made.astype(np.float64)).clip(limits.min, limits.max)
    return rounded.astype(pixels.dtype)


def _span(
    start: float, stop: float, length: int, step: float, grid: float
) -> tuple[float, int]:
    """Return where a field begins along an axis, and how many pixels it has there."""
    low, high = sorted((start, stop))
    first = max(0.0, math.floor(low / grid + _EDGE) * grid)
    last = min(float(length), high)
    return first, math.floor((last - first) / step + _EDGE)
