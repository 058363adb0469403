"""TIFF files that are too large to be read at once, pyramids and stacks."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from napari_sparseseg.errors import ImageError, enumerated
from napari_sparseseg.io.geometry import Geometry
from napari_sparseseg.io.images import (
    UM_PER_NAME,
    check_complete,
    long_axes,
    ome_um,
    opened_tiff,
    read_image,
    reading,
    stem_of,
    tiff_um_per_px,
)
from napari_sparseseg.io.lazy_arrays import Reordered
from napari_sparseseg.io.sources import ImageSource

if TYPE_CHECKING:
    from pathlib import Path

    from tifffile import TiffFile, TiffPageSeries

    from napari_sparseseg.io.sources import LazyArray

#: Images of one plane and one resolution up to this are read at once.
SMALL_BYTES = 64 * 2**20

#: Labels, macros and thumbnails of slides have a smaller share of the largest image.
SCENE_SHARE = 1 / 4

#: Names of first axes: time, else planes. tifffile has Q or I where a file has no say.
_PLANE_AXES = {"Z": "z", "Q": "z", "I": "z", "T": "t"}


def open_tiff(path: Path, series: str | None, *, times: bool = False) -> ImageSource:
    """Open a TIFF file; of pyramids, stacks and large images nothing is read yet.

    Parameters
    ----------
    path
        TIFF, OME-TIFF, or a slide in the form of a TIFF file.
    series
        The number of the image, 0 the first. None: the one with most pixels.
    times
        Whether it may have time points and planes.

    Raises
    ------
    ImageError
        If it is damaged, there is no such image, it has time points and planes that are
        not wished, or colours other than grey and RGB.
    """
    with reading(path), opened_tiff(path) as tiff:
        index = _chosen(tiff, path, series)
        if len(tiff.series) == 1 and _is_small_plane(tiff.series[0]):
            return open_picture(path)
        return _open_lazily(tiff, path, index, times)


def list_scenes(path: Path) -> dict[str, str]:
    """List images of a file that are about as large as the largest, which is first.

    Returns
    -------
    dict
        What each holds, in words, by its number.

    Raises
    ------
    ImageError
        If the file is damaged.
    """
    with reading(path), opened_tiff(path) as tiff:
        sizes = {
            index: int(np.prod(each.shape)) for index, each in enumerate(tiff.series)
        }
        largest = max(sizes.values(), default=0)
        return {
            str(index): f"{index}: {_words(tiff.series[index])}"
            for index in sorted(sizes, key=lambda each: (-sizes[each], each))
            if sizes[index] >= largest * SCENE_SHARE
        }


def open_picture(path: Path) -> ImageSource:
    """Open a PNG, JPEG or small TIFF file.

    Raises
    ------
    ImageError
        As of `read_image`.
    """
    image = read_image(path)
    is_rgb = image.data.shape[2:] == (3,)
    geometry = _geometry(("y", "x"), image.um_per_px, None)
    return ImageSource(path, stem_of(path), (image.data,), geometry, is_rgb)


def _chosen(tiff: TiffFile, path: Path, series: str | None) -> int:
    sizes = [int(np.prod(each.shape)) for each in tiff.series]
    if series is None:
        return int(np.argmax(sizes))
    if series.isdecimal() and int(series) < len(sizes):
        return int(series)
    held = [f"{index} ({_words(each)})" for index, each in enumerate(tiff.series)]
    raise ImageError(
        f"{path} has no image {series}; it holds {enumerated(held)}.",
        path=str(path),
        series=series,
    )


def _is_small_plane(series: TiffPageSeries) -> bool:
    axes = long_axes(series.axes, series.shape)
    is_plane = len(axes.rstrip("SC")) == 2 or axes in ("SYX", "CYX")
    return is_plane and len(series.levels) == 1 and series.nbytes <= SMALL_BYTES


def _open_lazily(tiff: TiffFile, path: Path, index: int, times: bool) -> ImageSource:
    series = tiff.series[index]
    axes, wanted = _axes_of(series, path, times)
    _check_colors(series, path)
    is_rgb = wanted[-1] == "S" and series.keyframe.samplesperpixel in (3, 4)
    levels = tuple(_level(each, wanted, is_rgb) for each in series.levels)
    notes = []
    if len(tiff.series) > 1:
        held = [f"{i} ({_words(each)})" for i, each in enumerate(tiff.series)]
        notes.append(f"{path.name} holds {enumerated(held)}; {index} is open.")
    um = tiff_um_per_px(tiff, series.keyframe, index)
    um_z = _um_between_planes(tiff, index)
    if len(axes) == 3 and um is not None and um_z is None:
        notes.append(
            f"{path.name} does not say how far its planes are from each other; as far "
            "as pixels are was taken."
        )
    return ImageSource(
        path,
        stem_of(path),
        levels,
        _geometry(axes, um, um_z),
        is_rgb,
        notes=tuple(notes),
        series=str(index) if len(tiff.series) > 1 else None,
    )


def _axes_of(
    series: TiffPageSeries, path: Path, times: bool
) -> tuple[tuple[str, ...], str]:
    """Give the axes of a plane or volume, and tifffile's letters of all, in order."""
    kept = long_axes(series.axes, series.shape)
    planes = [axis for axis in kept if axis in _PLANE_AXES]
    channels = [axis for axis in kept if axis in "SC"]
    wanted = "".join([*planes, "Y", "X", *channels])
    too_many = len(planes) > 1 and not (times and planes == ["T", "Z"])
    if too_many or len(channels) > 1 or sorted(wanted) != sorted(kept):
        raise ImageError(
            f"{path} holds pages of shape {series.shape} (axes {series.axes}), but "
            "only planes or stacks of planes, with channels, can be used; save one "
            "time point as a file of its own.",
            path=str(path),
            shape=series.shape,
        )
    return (*(_PLANE_AXES[axis] for axis in planes[-1:]), "y", "x"), wanted


def _level(series: TiffPageSeries, wanted: str, is_rgb: bool) -> LazyArray:
    import zarr

    check_complete(series)
    store = series.aszarr(level=0)
    array = zarr.open_array(store, mode="r")
    # tifffile takes axes of length 1 out of what zarr sees, but for y and x.
    axes = long_axes(series.axes, series.shape)
    level = Reordered(array, axes, wanted, 3 if is_rgb else None)
    # It opens the file again when pixels are read.
    weakref.finalize(level, store.close)
    return level


def _check_colors(series: TiffPageSeries, path: Path) -> None:
    from tifffile import PHOTOMETRIC

    page = series.keyframe
    known = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB)
    is_decoded = page.photometric == PHOTOMETRIC.YCBCR and page.compression != 1
    if page.photometric not in known and not is_decoded:
        raise ImageError(
            f"{path} has {PHOTOMETRIC(page.photometric).name} colours, but of large "
            "images and stacks only grey values and RGB can be read; convert it to "
            "RGB.",
            path=str(path),
        )
    if page.dtype is None or page.dtype.kind not in "iuf":
        raise ImageError(
            f"{path} holds {page.dtype}, but an image needs integers or floats; save "
            "it again with 8 or 16 bits.",
            path=str(path),
        )


def _um_between_planes(tiff: TiffFile, index: int) -> float | None:
    if tiff.is_ome:
        return ome_um(tiff.ome_metadata or "", "Z", index)
    stack = tiff.imagej_metadata or next(iter(tiff.shaped_metadata or ()), {})
    um = UM_PER_NAME.get(str(stack.get("unit", "")))
    spacing = stack.get("spacing")
    return None if um is None or not spacing else float(spacing) * um


def _geometry(axes: tuple[str, ...], um: float | None, um_z: float | None) -> Geometry:
    if um is None:
        return Geometry(axes, (1.0,) * len(axes))
    return Geometry(axes, ((um_z or um), um, um)[-len(axes) :], "um")


def _words(series: TiffPageSeries) -> str:
    name = f"{series.name}, " if series.name else ""
    return f"{name}{' x '.join(map(str, series.shape))} {series.axes}"
