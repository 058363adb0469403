"""One interface to images in all kinds of files: slices, slides, series, volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from napari_sparseseg.io.geometry import Geometry


class LazyArray(Protocol):
    """Pixels that are read by slices: numpy, zarr, memory map, a level of a slide."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the pixels."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a part of the pixels."""


@dataclass(frozen=True, eq=False)
class ImageSource:
    """An image in a file or folder, of which pixels are read when they are asked for.

    Attributes
    ----------
    path
        The file or folder it was opened from.
    name
        What the user knows it by; never a patient's name.
    levels
        (y, x), (y, x, c), (z, y, x) or (z, y, x, c), the finest first; more than one of
        a pyramid.
    geometry
        Of the finest level.
    is_rgb
        Whether the last axis is colours.
    window
        Lowest and highest intensity to be shown, None where the file has no say.
    notes
        Sentences that the user should know, as on a pixel size that is missing.
    """

    path: Path
    name: str
    levels: tuple[LazyArray, ...]
    geometry: Geometry
    is_rgb: bool = False
    window: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def data(self) -> LazyArray:
        """The finest level."""
        return self.levels[0]
