"""The file of a plane of labels: compared with its layer bit by bit, and written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from napari_sparseseg.io.atomic import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.engine.messages import Region

# Rows compared at once: their difference then stays in the cache of the processor.
_BLOCK_BYTES = 2**18


@dataclass(slots=True)
class Sweep:
    """Finds what differs between a plane and its file, from top to bottom.

    Attributes
    ----------
    top
        Rows above have been compared.
    region
        (y0, x0, y1, x1) of the smallest rectangle around what differs in them; None
        where nothing does.
    again
        Whether the plane may have changed since its first rows were compared.
    """

    top: int = 0
    region: Region | None = None
    again: bool = False

    def mark(self) -> None:
        """Note that the plane may have changed just now."""
        self.again = self.top > 0

    def go_on(
        self, pixels: NDArray[Any], stored: NDArray[Any] | None, until: float | None
    ) -> bool:
        """Compare more rows, some at least; tell whether all have been compared.

        Parameters
        ----------
        pixels
            (y, x) of the layer.
        stored
            (y, x) of the file; None where there is none, which counts as all 0.
        until
            Stop at that time of `time.perf_counter`; None: when all are compared.
        """
        pixels = np.asarray(pixels)
        stored = None if stored is None else np.asarray(stored)
        height, width = pixels.shape
        step = max(1, _BLOCK_BYTES // max(1, width * pixels.itemsize))
        while self.top < height:
            rows = slice(self.top, self.top + step)
            found = _difference(pixels[rows], None if stored is None else stored[rows])
            if found is not None:
                self._add(found)
            self.top = min(height, self.top + step)
            if until is not None and time.perf_counter() >= until:
                break
        return bool(self.top >= height)

    def _add(self, found: Region) -> None:
        """Take in a rectangle of the rows that were just compared."""
        y0, x0, y1, x1 = found[0] + self.top, found[1], found[2] + self.top, found[3]
        if self.region is not None:
            first, left, _, right = self.region
            y0, x0, x1 = first, min(x0, left), max(x1, right)
        self.region = y0, x0, y1, x1


def stored_plane(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, Any] | None:
    """Map the file of a plane, None where it is gone or damaged."""
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return stored if stored.shape == shape and stored.dtype.kind == "u" else None


def create_plane(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    old: NDArray[Any] | None = None,
) -> None:
    """Put a file of a new type in place of the old one, or one of zeros.

    Raises
    ------
    OSError, OutputError
        If it cannot be written.
    """
    # Not its parents: of a disk that was taken away no folder is to be left here.
    path.parent.mkdir(exist_ok=True)

    def write(temporary: Path) -> None:
        if old is not None:
            np.save(temporary, old.astype(dtype))
            return
        with temporary.open("wb") as file:
            npy.write_array_header_1_0(file, _header(shape, dtype))
            # A hole, where the file system has such: it costs neither time nor space.
            file.truncate(file.tell() + int(np.prod(shape)) * dtype.itemsize)

    # The window does not wait for the disk; a thread does.
    write_atomically(path, write, flush=False)


def write_rows(path: Path, first: int, rows: NDArray[Any]) -> None:
    """Write rows in the number type that the file has.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    with path.open("r+b") as file:
        npy.read_magic(file)
        (_, width), _, dtype = npy.read_array_header_1_0(file)
        file.seek(file.tell() + first * width * dtype.itemsize)
        file.write(np.ascontiguousarray(rows, dtype).data)


def _difference(pixels: NDArray[Any], stored: NDArray[Any] | None) -> Region | None:
    """Give the smallest rectangle around pixels that differ."""
    if stored is None or stored.dtype == pixels.dtype:
        words = _words(pixels)
        if not (words != (0 if stored is None else _words(stored))).any():
            return None
    different = pixels != (0 if stored is None else stored)
    rows = np.flatnonzero(different.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(different.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _words(pixels: NDArray[Any]) -> NDArray[Any]:
    """View pixels as words of 8 bytes where they can be: far fewer to compare."""
    if pixels.flags.c_contiguous and pixels.nbytes % 8 == 0:
        return pixels.reshape(-1).view(np.uint64)
    return pixels


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    return {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
