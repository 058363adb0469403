"""Arrays of which only what is asked for is read."""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from napari_sparseseg.io.sources import LazyArray

#: Which part of each axis: slices of step 1 with start and stop, inside the array.
Box = tuple[slice, ...]


class RegionArray:
    """An array that is read box by box; subclasses say how.

    Indexed by integers, slices of positive step and ``...``. numpy reads it whole.

    Parameters
    ----------
    shape
        Sizes of the axes.
    dtype
        Of the values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Memory that all of it would take."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """Return the size of the first axis."""
        return self.shape[0]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Read all of it."""
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a part.

        Raises
        ------
        IndexError
            If the key has too many axes, or an integer outside of one.
        """
        box: list[slice] = []
        kept: list[slice | int] = []
        for size, each in zip(self.shape, _keys(key, self.ndim), strict=True):
            if isinstance(each, slice):
                start, stop, step = each.indices(size)
                if step < 1:
                    raise IndexError(f"the step {step} is not above 0")
                box.append(slice(start, max(start, stop)))
                kept.append(slice(None, None, step))
            else:
                at = range(size)[operator.index(each)]
                box.append(slice(at, at + 1))
                kept.append(0)
        if any(each.start == each.stop for each in box):
            empty = np.empty([each.stop - each.start for each in box], self.dtype)
            return empty[tuple(kept)]
        return self.read(tuple(box))[tuple(kept)]

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box that is not empty, with all its axes."""
        raise NotImplementedError


class Reordered(RegionArray):
    """The axes of an array in another order.

    Parameters
    ----------
    array
        Any.
    axes
        A letter for each of its axes.
    wanted
        Those that stay, in their new order; the others have length 1.
    n_channels
        How many of the values along a last axis C or S stay; None: all.
    """

    def __init__(
        self, array: LazyArray, axes: str, wanted: str, n_channels: int | None = None
    ) -> None:
        sizes = [array.shape[axes.index(axis)] for axis in wanted]
        if n_channels is not None:
            sizes[-1] = n_channels
        super().__init__(tuple(sizes), array.dtype)
        self._array, self._axes, self._wanted = array, axes, wanted

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        where = dict(zip(self._wanted, box, strict=True))
        pixels = np.asarray(self._array[tuple(where.get(a, 0) for a in self._axes)])
        there = [axis for axis in self._axes if axis in where]
        return pixels.transpose([there.index(axis) for axis in self._wanted])


class Channel(RegionArray):
    """One value of the last axis of an array."""

    def __init__(self, array: LazyArray, index: int) -> None:
        super().__init__(array.shape[:-1], array.dtype)
        self._array, self._index = array, index

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        return np.asarray(self._array[(*box, self._index)])


class BlockArray(RegionArray):
    """(y, x, c), made in blocks that are kept for a while; safe for several threads.

    So a pixel has the same value whatever box it is read in.

    Parameters
    ----------
    shape, dtype
        Of the array.
    side
        Of the blocks, in pixels.
    kept
        How many blocks stay in memory.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: DTypeLike, side: int = 512, kept: int = 64
    ) -> None:
        super().__init__(shape, dtype)
        self._side = side
        self._block = lru_cache(kept)(self._make)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box out of the blocks."""
        rows, columns, channels = box
        side = self._side
        out = np.empty([each.stop - each.start for each in box], self.dtype)
        for j in range(rows.start // side, -(-rows.stop // side)):
            for i in range(columns.start // side, -(-columns.stop // side)):
                y, from_y = _overlap(rows, j * side, side)
                x, from_x = _overlap(columns, i * side, side)
                out[y, x] = self._block(j, i)[from_y, from_x, channels]
        return out

    def make_block(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Make the pixels of some rows and columns, all channels."""
        raise NotImplementedError

    def _make(self, j: int, i: int) -> NDArray[Any]:
        (y, x), side = self.shape[:2], self._side
        return self.make_block(
            slice(j * side, min(y, (j + 1) * side)),
            slice(i * side, min(x, (i + 1) * side)),
        )


class Coarser(BlockArray):
    """(y, x, 3) of 8 bits, means of squares of a finer array.

    Rows and columns that fill no square are left out.

    Parameters
    ----------
    finer
        (y, x, 3) uint8.
    factor
        Side of the squares.
    """

    def __init__(self, finer: LazyArray, factor: int) -> None:
        y, x, n_channels = finer.shape
        super().__init__((y // factor, x // factor, n_channels), finer.dtype, side=256)
        self._finer, self._factor = finer, factor

    def make_block(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Average a block."""
        import cv2

        f = self._factor
        fine = np.asarray(
            self._finer[
                rows.start * f : rows.stop * f, columns.start * f : columns.stop * f
            ]
        )
        size = (columns.stop - columns.start, rows.stop - rows.start)
        # By a whole factor these are the means of squares.
        return np.asarray(cv2.resize(fine, size, interpolation=cv2.INTER_AREA))


def _keys(key: Any, ndim: int) -> tuple[Any, ...]:
    """Give one key an axis."""
    keys = key if isinstance(key, tuple) else (key,)
    if not any(each is Ellipsis for each in keys):
        keys = (*keys, Ellipsis)
    at = next(index for index, each in enumerate(keys) if each is Ellipsis)
    missing = ndim - (len(keys) - 1)
    if missing < 0:
        raise IndexError(f"{len(keys) - 1} keys for {ndim} axes")
    return (*keys[:at], *(slice(None),) * missing, *keys[at + 1 :])


def _overlap(wanted: slice, start: int, side: int) -> tuple[slice, slice]:
    """Give where a block goes in what is wanted, and which part of it."""
    first, last = max(wanted.start, start), min(wanted.stop, start + side)
    return (
        slice(first - wanted.start, last - wanted.start),
        slice(first - start, last - start),
    )
