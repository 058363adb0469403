"""One interface to images in all kinds of files: slices, slides, series, volumes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io.images import (
    ALL_SUFFIXES,
    JPEG,
    PNG,
    TIFF,
    ZARR_SUFFIXES,
    reading,
)

if TYPE_CHECKING:
    import numpy as np

    from napari_sparseseg.io.dicom_series import SeriesInfo
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
    series
        Which of several images of *path* it is, as `open_image` takes it; None where
        there is but one.
    files
        The DICOM files it was read from, one a plane, in the order of z; else empty.
    """

    path: Path
    name: str
    levels: tuple[LazyArray, ...]
    geometry: Geometry
    is_rgb: bool = False
    window: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    series: str | None = None
    files: tuple[Path, ...] = ()

    @property
    def data(self) -> LazyArray:
        """The finest level."""
        return self.levels[0]

    @property
    def n_channels(self) -> int:
        """How long the last axis is, 1 of an image without channels."""
        has_channels = self.data.ndim > len(self.geometry.axes)
        return self.data.shape[-1] if has_channels else 1


def open_image(
    path: str | Path,
    *,
    series: str | None = None,
    um_per_px: float | None = None,
    times: bool = False,
) -> ImageSource:
    """Open an image in any kind of file that is known, by its content.

    Parameters
    ----------
    path
        A PNG, JPEG or TIFF file, a whole slide, NIfTI, NRRD, MetaImage, a DICOM file
        (with all of its series that lies beside it), or a folder that is an OME-Zarr or
        has DICOM files in it.
    series
        Which of several: of DICOM as `choose_series` takes it, of OME-Zarr the name of
        the folder inside, of TIFF the number of the image, 0 the first.
    um_per_px
        Side of a pixel in the plane in micrometres. None: as the file has it.
    times
        Whether volumes at several times are taken, as labels may be: levels are then
        (t, z, y, x), and the geometry is that of each volume.

    Returns
    -------
    ImageSource
        Pixels of slides, OME-Zarr and large TIFF files are read when asked for, others
        are in memory.

    Raises
    ------
    ImageError
        If there is no such file, it is damaged or of no kind that is known, holds what
        is no image, or several series of which none is chosen.
    """
    place = Path(path)
    source = _open(place, series, times)
    if um_per_px is not None:
        return replace(source, geometry=source.geometry.with_um_per_px(um_per_px))
    if source.geometry.unit == "px":
        return replace(source, notes=(*source.notes, lack_of_size(place)))
    return source


def lack_of_size(path: Path) -> str:
    """Word that a file does not say how large its pixels are."""
    return (
        f"{path.name} does not say how large its pixels are; give the micrometres "
        "per pixel where sizes matter."
    )


def list_series(path: str | Path) -> list[SeriesInfo]:
    """List the DICOM series of images in a folder, or beside a DICOM file.

    Returns
    -------
    list of SeriesInfo
        By series number; none of what holds no DICOM image.

    Raises
    ------
    ImageError
        If there is no such file or folder, or pydicom is not installed.
    """
    from napari_sparseseg.io import dicom_series, zarr_images

    place = Path(path)
    _check_there(place)
    if zarr_images.is_zarr(place):
        return []
    if place.is_file() and not dicom_series.is_dicom(place):
        return []
    return dicom_series.find_series(place)


def list_scenes(path: str | Path) -> dict[str, str]:
    """List the images of a file or folder among which the user may want to choose.

    Returns
    -------
    dict
        What each is, in words, by its *series* as `open_image` takes it. The first is
        the one that is opened else, if any is. Empty or one where there is no choice.

    Raises
    ------
    ImageError
        If there is no such file or folder, or it is damaged.
    """
    from napari_sparseseg.io import slides, tiff_images, zarr_images

    place = Path(path)
    _check_there(place)
    if zarr_images.is_zarr(place):
        return zarr_images.list_scenes(place)
    if place.is_dir():
        return {each.uid: f"{each.number}: {each}" for each in list_series(place)}
    with reading(place), place.open("rb") as file:
        is_tiff = file.read(4).startswith(TIFF)
    if is_tiff and not slides.is_slide(place):
        return tiff_images.list_scenes(place)
    return {}


def may_be_image(path: str | Path) -> bool:
    """Tell whether a path is a file, an OME-Zarr, or a folder with a DICOM file."""
    from napari_sparseseg.io import dicom_series, zarr_images

    place = Path(path)
    if place.is_dir():
        return zarr_images.is_zarr(place) or dicom_series.has_dicom(place)
    return place.is_file()


def image_files(folder: str | Path) -> list[Path]:
    """List what `open_image` may open in a folder, by suffix, sorted by name.

    Files and OME-Zarr folders; hidden ones and other folders are left out.

    Raises
    ------
    ImageError
        If there is no such folder, or it cannot be read.
    """
    place = Path(folder)
    _check_there(place)
    try:
        inside = sorted(place.iterdir())
    except OSError as error:
        raise ImageError(
            f"The folder {place} cannot be read: {error.strerror or error}.",
            path=str(place),
        ) from error
    return [
        each
        for each in inside
        if not each.name.startswith(".")
        and each.name.lower().endswith(ALL_SUFFIXES)
        and each.is_dir() == each.name.lower().endswith(ZARR_SUFFIXES)
    ]


def _open(path: Path, series: str | None, times: bool) -> ImageSource:
    from napari_sparseseg.io import dicom_series, slides, tiff_images, volumes
    from napari_sparseseg.io.zarr_images import is_zarr, open_zarr

    _check_there(path)
    if path.is_dir():
        if is_zarr(path):
            return open_zarr(path, series, times=times)
        return dicom_series.open_series(path, series)
    with reading(path), path.open("rb") as file:
        start = file.read(512)
    if dicom_series.is_dicom(path):
        return dicom_series.open_series(path, series)
    # The main file of a slide of 3DHISTECH is a JPEG.
    is_picture = start.startswith((PNG, JPEG)) and path.suffix.lower() != ".mrxs"
    if is_picture:
        return tiff_images.open_picture(path)
    if slides.is_slide(path):
        return slides.open_slide(path)
    if start.startswith(TIFF):
        return tiff_images.open_tiff(path, series, times=times)
    if volumes.is_volume(path):
        return volumes.open_volume(path)
    raise _unknown(path)


def _check_there(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError as error:
        raise ImageError(
            f"There is no file or folder {path}.", path=str(path)
        ) from error
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read: {error.strerror or error}.", path=str(path)
        ) from error


def _unknown(path: Path) -> ImageError:
    name = path.name.lower()
    damaged = name.endswith(ALL_SUFFIXES)
    what = "is damaged, or no file of that kind" if damaged else "is no image"
    return ImageError(
        f"{path} {what} that can be opened; give a PNG, JPEG, TIFF, NIfTI, NRRD, "
        "MetaImage or DICOM file, a whole slide, or an OME-Zarr.",
        path=str(path),
    )
