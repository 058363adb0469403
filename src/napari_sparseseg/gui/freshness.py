"""Which parts of a prediction are those of the model of now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sparseseg.engine.messages import Region
    from napari_sparseseg.gui.planes import PlaneKey

#: Side of the cells that are told apart, in pixels.
CELL_PX = 16


class Freshness:
    """Cells of 16 x 16 pixels that were predicted since they were last out of date.

    Parameters
    ----------
    shape
        (y, x) of a plane; at first nothing is fresh.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._centres = [
            np.minimum(np.arange(CELL_PX // 2, size + CELL_PX // 2, CELL_PX), size - 1)
            for size in shape
        ]
        self._fresh: dict[PlaneKey, NDArray[np.bool_]] = {}

    def mark_fresh(self, plane: PlaneKey, region: Region) -> None:
        """Note that a part was predicted: all cells whose centre is in it."""
        cells = self._fresh.get(plane)
        if cells is None:
            shape = tuple(len(centres) for centres in self._centres)
            cells = self._fresh[plane] = np.zeros(shape, bool)
        y0, x0, y1, x1 = region
        y, x = self._centres
        cells[
            np.searchsorted(y, y0) : np.searchsorted(y, y1),
            np.searchsorted(x, x0) : np.searchsorted(x, x1),
        ] = True

    def mark_stale(
        self, plane: PlaneKey | None = None, region: Region | None = None
    ) -> None:
        """Note that a part is out of date: all cells that touch it.

        Parameters
        ----------
        plane
            None: all planes.
        region
            None: the whole plane.
        """
        if plane is None:
            self._fresh.clear()
        elif region is None:
            self._fresh.pop(plane, None)
        elif plane in self._fresh:
            self._fresh[plane][_touched(region)] = False

    def stale_share(self, plane: PlaneKey, region: Region | None = None) -> float:
        """Give the share of a part, None: of the whole plane, that is out of date."""
        cells = self._fresh.get(plane)
        if cells is None:
            return 1.0
        part = cells if region is None else cells[_touched(region)]
        return 1.0 - float(part.mean()) if part.size else 0.0

    def outdated_share(
        self, plane: PlaneKey, labels: NDArray[np.integer[Any]]
    ) -> float:
        """Give the share of a plane that was predicted, but is out of date.

        Parameters
        ----------
        plane
            Which plane.
        labels
            (y, x) of it, 0 = never predicted.
        """
        outdated = labels[np.ix_(*self._centres)] != 0
        if plane in self._fresh:
            outdated &= ~self._fresh[plane]
        return float(outdated.mean())


def _touched(region: Region) -> tuple[slice, slice]:
    y0, x0, y1, x1 = region
    return (
        slice(y0 // CELL_PX, -(-y1 // CELL_PX)),
        slice(x0 // CELL_PX, -(-x1 // CELL_PX)),
    )
