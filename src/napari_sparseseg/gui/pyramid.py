"""Arrays of a layer that lies on an image: one for each of its levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.gui.planes import level_shape, n_levels, plane_grid

if TYPE_CHECKING:
    from napari.layers import Image
    from numpy.typing import DTypeLike, NDArray

    from napari_sparseseg.engine.messages import Region
    from napari_sparseseg.gui.planes import PlaneKey


class Pyramid:
    """Zeros of the shape of an image's level and of all coarser ones.

    Memory is taken for what is written.

    Parameters
    ----------
    image
        The image layer.
    level
        The finest level that is kept.
    dtype
        Of the values.
    """

    def __init__(self, image: Image, level: int, dtype: DTypeLike) -> None:
        grid = plane_grid(image, level)
        levels = [
            each
            for each in range(level, n_levels(image))
            if plane_grid(image, each) == grid
        ]
        self.arrays: list[NDArray[Any]] = [
            np.zeros(level_shape(image, each), dtype) for each in levels
        ]

    @property
    def layer_data(self) -> NDArray[Any] | list[NDArray[Any]]:
        """What a napari layer takes: an array, or a list of several levels."""
        return self.arrays if len(self.arrays) > 1 else self.arrays[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the values."""
        return self.arrays[0].dtype

    def widen(self, dtype: DTypeLike) -> None:
        """Keep the values in another number type."""
        self.arrays = [array.astype(dtype) for array in self.arrays]

    def paste(self, plane: PlaneKey, region: Region, values: NDArray[Any]) -> None:
        """Write into a part of a plane, in place.

        Each pixel of a coarser level has the value of the fine pixel at its centre, so
        that the order in which parts are written makes no difference.

        Parameters
        ----------
        plane
            Which plane.
        region
            (y0, x0, y1, x1) in pixels of the finest level kept.
        values
            (y1 - y0, x1 - x0).
        """
        finest = self.arrays[0].shape[-2:]
        y0, x0, y1, x1 = region
        self.arrays[0][plane.index][y0:y1, x0:x1] = values
        for array in self.arrays[1:]:
            y, y_from = _centres(array.shape[-2], finest[0], y0, y1)
            x, x_from = _centres(array.shape[-1], finest[1], x0, x1)
            array[plane.index][y, x] = values[np.ix_(y_from - y0, x_from - x0)]


def _centres(
    n: int, n_finest: int, start: int, stop: int
) -> tuple[slice, NDArray[np.intp]]:
    """Give which of n coarse pixels have their centre in a range, and where it is."""
    factor = n_finest / n
    first = max(0, int(start / factor) - 1)
    last = min(n, int(stop / factor) + 2)
    centres = ((np.arange(first, last) + 0.5) * factor).astype(np.intp)
    inside = np.flatnonzero((centres >= start) & (centres < stop))
    if not inside.size:
        return slice(0, 0), centres[:0]
    return (
        slice(first + int(inside[0]), first + int(inside[-1]) + 1),
        centres[inside],
    )
