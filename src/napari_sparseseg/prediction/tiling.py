"""Tiles that cover the working grid, and the order in which they are predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def from_the_centre(cores: list[Region], view: Region) -> list[Region]:
    """Sort *cores*: those that touch *view* first, then by distance to its centre."""
    centre_y, centre_x = (view[0] + view[2]) / 2, (view[1] + view[3]) / 2

    def rank(core: Region) -> tuple[bool, float]:
        y, x = (core[0] + core[2]) / 2, (core[1] + core[3]) / 2
        return not overlap(core, view), (y - centre_y) ** 2 + (x - centre_x) ** 2

    return sorted(cores, key=rank)


def overlap(a: Region, b: Region) -> bool:
    """Tell whether two regions share a pixel."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
