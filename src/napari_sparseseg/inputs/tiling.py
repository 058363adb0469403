"""Tiles that cover the working grid, and the order in which they are predicted."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sparseseg.inputs.resolution import Region


@dataclass(frozen=True, slots=True)
class Tile:
    """A piece of the working grid that is predicted in one go.

    Attributes
    ----------
    core
        What is kept of the prediction.
    field
        What the network is given: the core grown by the network's halo, with its
        upper left corner on a multiple of the network's stride, so that pooling falls
        on the same pixels whatever the tile.
    """

    core: Region
    field: Region


def make_tile(core: Region, shape: tuple[int, int], *, halo: int, stride: int) -> Tile:
    """Return the tile of *core* within a working grid of *shape* (y, x)."""
    starts = [max(0, start - halo) // stride * stride for start in core[:2]]
    stops = [
        min(length, stop + halo) for stop, length in zip(core[2:], shape, strict=True)
    ]
    # Grown to whole strides, since a network pads an odd field where no edge is.
    stops = [
        min(length, -(-stop // stride) * stride)
        for stop, length in zip(stops, shape, strict=True)
    ]
    return Tile(core, (starts[0], starts[1], stops[0], stops[1]))


def cover(region: Region, size: int) -> list[Region]:
    """Cut *region* into squares of *size* pixels, the last of each row smaller."""
    y0, x0, y1, x1 = region
    return [
        (y, x, min(y + size, y1), min(x + size, x1))
        for y in range(y0, y1, size)
        for x in range(x0, x1, size)
    ]


def split(core: Region) -> list[Region]:
    """Cut a core into halves along both sides (the sides of 1 pixel stay whole)."""
    y0, x0, y1, x1 = core
    size = max(1, (max(y1 - y0, x1 - x0) + 1) // 2)
    return cover(core, size)


def overlap(a: Region, b: Region) -> bool:
    """Tell whether two regions share a pixel."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


class TileQueue:
    """Cores that are still to be predicted.

    Those that touch *view* come first, nearest to its centre; then the others, also
    by their distance from it. Without a view they come row by row.
    """

    def __init__(self, cores: Iterable[Region], view: Region | None) -> None:
        self._view = view
        self._heap: list[tuple[bool, float, Region]] = []
        self.add(cores)

    def __len__(self) -> int:
        """Return the number of cores left."""
        return len(self._heap)

    def add(self, cores: Iterable[Region]) -> None:
        """Put *cores* where they belong."""
        for core in cores:
            heapq.heappush(self._heap, (*self._rank(core), core))

    def pop(self) -> Region:
        """Take the next core out."""
        return heapq.heappop(self._heap)[-1]

    def _rank(self, core: Region) -> tuple[bool, float]:
        if self._view is None:
            return False, 0.0
        (y, x), (view_y, view_x) = _centre(core), _centre(self._view)
        return not overlap(core, self._view), math.hypot(y - view_y, x - view_x)


def _centre(region: Region) -> tuple[float, float]:
    return (region[0] + region[2]) / 2, (region[1] + region[3]) / 2
