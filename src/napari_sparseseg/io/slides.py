"""Whole slides: levels of RGB that OpenSlide reads where they are looked at.

Some scanners, as those of MRXS and SCN files, note which part of the glass they have
scanned. A slide is that part, as in QuPath, so that outlines have the same pixels.
https://github.com/qupath/qupath/issues/1278
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io.geometry import Geometry
from napari_sparseseg.io.images import stem_of
from napari_sparseseg.io.lazy_arrays import BlockArray, Coarser
from napari_sparseseg.io.optional import library
from napari_sparseseg.io.sources import ImageSource

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.io.sources import LazyArray

#: Where the coarsest level of a file has a longer side, coarser ones are computed.
LARGEST_SIDE = 2048

#: Where it is longer than that, this takes so long that the user is told.
SLOW_SIDE = 16384

#: By which factor a computed level is coarser than the one before.
COARSER = 4

#: Memory for decoded tiles of a slide.
CACHE_BYTES = 128 * 2**20


class Scanned(NamedTuple):
    """The part of the glass that was scanned, in pixels of the finest level."""

    y: int
    x: int
    height: int
    width: int


class SlideLevel(BlockArray):
    """(y, x, 3) uint8 of one level of a slide, over white.

    Parameters
    ----------
    slide
        An ``openslide.OpenSlide``.
    level
        0 is the finest.
    part
        What of it is read.
    path
        What an error message names.
    """

    def __init__(self, slide: Any, level: int, part: Scanned, path: Path) -> None:
        (wide, high), (width, height) = slide.dimensions, slide.level_dimensions[level]
        shape = (height * part.height // high, width * part.width // wide, 3)
        super().__init__(shape, np.uint8)
        self._slide, self._level, self._path = slide, level, path
        self._factor, self._part = slide.level_downsamples[level], part

    def make_block(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a block.

        Raises
        ------
        ImageError
            If the file is damaged there, or gone.
        """
        from openslide import OpenSlideError

        # OpenSlide wants the place in pixels of the finest level.
        place = (
            self._part.x + round(columns.start * self._factor),
            self._part.y + round(rows.start * self._factor),
        )
        size = (columns.stop - columns.start, rows.stop - rows.start)
        try:
            rgba = np.asarray(self._slide.read_region(place, self._level, size))
        except OpenSlideError as error:
            raise ImageError(
                f"{self._path} cannot be read at {place} ({error}); check that the "
                "file is there and whole, and open it again.",
                path=str(self._path),
            ) from error
        return over_white(rgba)


def is_slide(path: Path) -> bool:
    """Tell whether a file is a slide of a scanner that OpenSlide knows.

    False for tiled TIFF files of other programs, and where OpenSlide is missing.
    """
    try:
        import openslide
    except ImportError:
        return False
    vendor = openslide.OpenSlide.detect_format(str(path))
    return vendor not in (None, "generic-tiff")


def open_slide(path: Path) -> ImageSource:
    """Open a slide; nothing but its header is read.

    Levels are those of the file, and coarser ones, means of 4 x 4 pixels, where all of
    them are large.

    Raises
    ------
    ImageError
        If OpenSlide cannot open it, or is not installed.
    """
    openslide = library("openslide", "slides", "whole slides")
    try:
        slide = openslide.OpenSlide(str(path))
    except openslide.OpenSlideError as error:
        reason = " ".join(str(error).split()).removeprefix(f"Reading {path}: ")
        reason = re.sub(r"1\.2\.840\.10008[.\d]*", _name_of_uid, reason)
        raise ImageError(
            f"{path} cannot be opened as a slide ({reason.rstrip('.')}); export it "
            "anew from the program of the scanner, or convert it to OME-TIFF.",
            path=str(path),
        ) from error
    slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
    part = _scanned(slide)
    found = [SlideLevel(slide, level, part, path) for level in range(slide.level_count)]
    # A small part has no pixel in the coarsest levels of the glass.
    levels: list[LazyArray] = [level for level in found if 0 not in level.shape]
    notes = []
    if max(levels[-1].shape[:2]) > SLOW_SIDE:
        notes.append(
            f"{path.name} has no coarse resolution, so that all of it is read before "
            "it is seen as a whole."
        )
    while max(levels[-1].shape[:2]) > LARGEST_SIDE:
        levels.append(Coarser(levels[-1], COARSER))
    return ImageSource(
        path, stem_of(path), tuple(levels), _geometry(slide), True, notes=tuple(notes)
    )


def _name_of_uid(found: re.Match[str]) -> str:
    """Word what DICOM has numbers for, as "JPEG-LS Lossless Image Compression"."""
    uid: str = library("pydicom", "volumes", "DICOM files").uid.UID(found[0]).name
    return uid


def over_white(rgba: NDArray[Any]) -> NDArray[np.uint8]:
    """Lay (y, x, 4) uint8 on white, which is what no scanner has seen."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    share = alpha.astype(np.float32) / 255
    mixed = rgba[..., :3] * share + 255 * (1 - share)
    return np.rint(mixed).astype(np.uint8)


def _scanned(slide: Any) -> Scanned:
    """Give what was scanned; all of it where the file does not say."""
    width, height = slide.dimensions
    names = ("y", "x", "height", "width")
    found = [slide.properties.get(f"openslide.bounds-{name}") for name in names]
    if None in found:
        return Scanned(0, 0, height, width)
    part = Scanned(*map(int, found))
    is_inside = 0 <= part.y < part.y + part.height <= height
    is_inside &= 0 <= part.x < part.x + part.width <= width
    return part if is_inside else Scanned(0, 0, height, width)


def _geometry(slide: Any) -> Geometry:
    """Give the place of the finest level; pixels where the file has no size."""
    sizes = [slide.properties.get(f"openslide.mpp-{axis}") for axis in "yx"]
    try:
        y, x = (float(size) for size in sizes if size is not None)
        return Geometry(("y", "x"), (y, x), "um")
    except (ValueError, ImageError):
        return Geometry(("y", "x"), (1.0, 1.0))
