"""Sparse label maps: their checks, strokes and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

MAX_CLASS_VALUE = 65535
"""The largest class value; label maps are kept in 8 or 16 bits."""


@dataclass(frozen=True, eq=False)
class StrokeMap:
    """The strokes of a label map.

    Parameters
    ----------
    ids
        (y, x) int32: the id of each pixel's stroke, from 1; 0 = not annotated.
    class_values
        (n,) int64: the class value of stroke ``id`` stands at ``id - 1``.
    sizes
        (n,) int64: the number of pixels of stroke ``id`` stands at ``id - 1``.
    """

    ids: NDArray[np.int32]
    class_values: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        """Give the number of strokes."""
        return len(self.sizes)


@dataclass(frozen=True)
class LabelCount:
    """How much of one class is annotated: pixels and strokes."""

    pixels: int
    strokes: int


def find_strokes(label_map: ArrayLike) -> StrokeMap:
    """Find the strokes of a label map: the 8-connected components of each class.

    Parameters
    ----------
    label_map
        (y, x) integers, 0 = not annotated.

    Returns
    -------
    StrokeMap
        Ids follow the first pixel of each stroke in row order.

    Raises
    ------
    LabelError
        If ``label_map`` is not a label map (see `check_label_map`).
    """
    from skimage.measure import label

    labels = check_label_map(label_map)
    components = label(  # type: ignore[no-untyped-call]
        labels, background=0, connectivity=2
    )
    ids: NDArray[np.int32] = components.astype(np.int32, copy=False)
    n_strokes = int(ids.max())
    annotated = ids > 0
    class_values = np.zeros(n_strokes, np.int64)
    class_values[ids[annotated] - 1] = labels[annotated]
    sizes = np.bincount(ids[annotated], minlength=n_strokes + 1)[1:]
    return StrokeMap(ids, class_values, sizes.astype(np.int64, copy=False))


def count_labels(label_map: ArrayLike) -> dict[int, LabelCount]:
    """Count the pixels and strokes of every class in a label map.

    Parameters
    ----------
    label_map
        (y, x) integers, 0 = not annotated.

    Returns
    -------
    dict[int, LabelCount]
        By class value, ascending; classes without a pixel are left out.

    Raises
    ------
    LabelError
        If ``label_map`` is not a label map (see `check_label_map`).
    """
    strokes = find_strokes(label_map)
    counts = {}
    for value in np.unique(strokes.class_values):
        sizes = strokes.sizes[strokes.class_values == value]
        counts[int(value)] = LabelCount(pixels=int(sizes.sum()), strokes=len(sizes))
    return counts


def check_label_map(
    label_map: ArrayLike,
    image_shape: Sequence[int] | None = None,
    name: str = "label map",
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Check that an array is a label map, and give it in 8 or 16 bits.

    Parameters
    ----------
    label_map
        (y, x) integers of any width, 0 = not annotated, class values 1..65535.
    image_shape
        Shape of the image it belongs to, (y, x) or (y, x, c); None = any.
    name
        What the error message calls it.

    Returns
    -------
    ndarray
        (y, x) uint8 or uint16 with the same values; not a copy where none is needed.

    Raises
    ------
    LabelError
        If it has other dimensions than (y, x), another size than the image, no pixel,
        a type other than integer, or a value below 0 or above 65535.
    """
    labels = np.asarray(label_map)
    if labels.ndim != 2:
        hint = (
            "; import a colour-coded mask through the class table"
            if labels.ndim == 3 and labels.shape[-1] in (3, 4)
            else ""
        )
        raise LabelError(
            f"The {name} has shape {labels.shape}, but a label map has two "
            f"dimensions (y, x) and one class value a pixel{hint}.",
            shape=labels.shape,
        )
    if image_shape is not None and labels.shape != tuple(image_shape[:2]):
        raise LabelError(
            f"The {name} has shape {labels.shape}, but its image has shape "
            f"{tuple(image_shape)}; both need the same height and width (y, x).",
            shape=labels.shape,
            image_shape=tuple(image_shape),
        )
    return narrow_labels(labels, name)


def narrow_labels(
    labels: NDArray[Any], name: str = "label map"
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Give integer labels of any shape in 8 or 16 bits, values unchanged.

    Arrays that already are 8 or 16 bits wide keep their type and are not copied.

    Parameters
    ----------
    labels
        Integers of any width and shape, 0..65535.
    name
        What the error message calls it.

    Returns
    -------
    ndarray
        uint8 or uint16 of the same shape.

    Raises
    ------
    LabelError
        If it has no pixel, a type other than integer, or a value outside 0..65535.
    """
    if labels.dtype.kind not in "iu":
        raise LabelError(
            f"The {name} has pixels of type {labels.dtype}, but class values are "
            "integers with 0 = not annotated; convert it to an integer type, "
            "for example with .astype(np.uint16), once its values are class values.",
            dtype=str(labels.dtype),
        )
    if labels.size == 0:
        raise LabelError(
            f"The {name} has shape {labels.shape} and thus no pixel; "
            "give a label map as large as its image.",
            shape=labels.shape,
        )
    if labels.dtype.kind == "u" and labels.dtype.itemsize <= 2:
        return fit_labels(labels, int(np.iinfo(labels.dtype).max))
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > MAX_CLASS_VALUE:
        outside = np.count_nonzero((labels < 0) | (labels > MAX_CLASS_VALUE))
        raise LabelError(
            f"The {name} has values from {lowest} to {highest}, of which "
            f"{outside} {'pixel is' if outside == 1 else 'pixels are'} outside "
            f"0..{MAX_CLASS_VALUE}; use 0 for not annotated and 1..{MAX_CLASS_VALUE} "
            "for classes.",
            lowest=lowest,
            highest=highest,
            pixels=outside,
        )
    return fit_labels(labels, highest)


def fit_labels(
    labels: NDArray[Any], highest: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Give labels known to lie in 0..highest as uint8, or uint16 if that is needed."""
    if highest <= 255:
        return labels.astype(np.uint8, copy=False)
    return labels.astype(np.uint16, copy=False)
