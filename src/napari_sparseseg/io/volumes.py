"""Volumes in NIfTI, NRRD and MetaImage files, read by SimpleITK."""

from __future__ import annotations

import gzip
import logging
import os
import tempfile
from contextlib import contextmanager
from importlib import import_module
from math import prod
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io.geometry import Geometry
from napari_sparseseg.io.images import (
    VOLUME_SUFFIXES,
    check_finite,
    refuse_not_finite,
    stem_of,
)
from napari_sparseseg.io.optional import library
from napari_sparseseg.io.sources import ImageSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader
    from pathlib import Path

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

#: One of these words is in the header of a NRRD or MetaImage file with a pixel size.
_SIZE_WORDS = (b"spacings:", b"space directions:", b"ElementSpacing", b"ElementSize")

_HEADER_BYTES = 8192

_GZIP = b"\x1f\x8b"

#: Types of floats by their number in the header of NIfTI.
_NIFTI_FLOATS = {16: "f4", 64: "f8"}

_stderr_lock = RLock()


def is_volume(path: Path) -> bool:
    """Tell whether SimpleITK knows the kind of a file, or it is named as a volume."""
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        return True
    try:
        itk: Any = import_module("SimpleITK")
    except ImportError:
        return False
    return bool(itk.ImageFileReader.GetImageIOFromFileName(str(path)))


def open_volume(path: Path) -> ImageSource:
    """Open a NIfTI, NRRD or MetaImage file, or another one that SimpleITK reads.

    The voxels stay in the order of the file, and oblique or flipped axes are told by
    the geometry. NIfTI's directions towards right and anterior become left and
    posterior.

    Raises
    ------
    ImageError
        If it is damaged, has other than 2 or 3 axes, or values that are not finite.
    """
    with reading_itk(path) as itk:
        image = itk.ReadImage(str(path))
        header = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
        pixels = pixels_of(itk, image)
    if "xyzt_units" in header:
        _check_nifti_is_complete(path, header)
        if pixels.dtype.kind == "f":
            _check_nifti_is_finite(path, header)
    n_colors = image.GetNumberOfComponentsPerPixel()
    is_rgb = n_colors in (3, 4) and pixels.dtype == np.uint8
    if n_colors > 1 and not is_rgb:
        raise ImageError(
            f"{path} has {n_colors} values a voxel, but one, or RGB of 8 bits, can be "
            "used; save one of them as a file of its own.",
            path=str(path),
        )
    if is_rgb:
        pixels = pixels[..., :3]
    pixels, geometry = without_short_axes(pixels, image, path)
    check_finite(pixels, str(path))
    geometry, notes = _with_unit(geometry, path, header)
    return ImageSource(
        path,
        stem_of(path),
        (pixels,),
        geometry,
        is_rgb,
        window=_window(header),
        notes=notes,
    )


@contextmanager
def reading_itk(path: Path) -> Iterator[Any]:
    """Yield SimpleITK, whose warnings go to the log alone.

    Raises
    ------
    ImageError
        If it is not installed, or cannot read the file.
    """
    itk = library("SimpleITK", "volumes", "volumes and DICOM files")
    try:
        with stderr_in_log():
            yield itk
    except (RuntimeError, MemoryError) as error:
        raise ImageError(
            f"{path} cannot be read, because it is damaged, incomplete or of a kind "
            f"that is not supported ({_reason(error)}); copy it anew from where it "
            "came from, or convert it to NIfTI.",
            path=str(path),
        ) from error


def pixels_of(itk: Any, image: Any) -> NDArray[Any]:
    """Give (..., z, y, x) or (..., z, y, x, c), 32-bit integers as 16-bit if they fit.

    SimpleITK makes 32 bits of what is rescaled, as HU are.
    """
    pixels: NDArray[Any] = itk.GetArrayFromImage(image)
    if pixels.dtype == np.int32 and pixels.size:
        limits = np.iinfo(np.int16)
        if limits.min <= pixels.min() and pixels.max() <= limits.max:
            return pixels.astype(np.int16)
    return pixels


def without_short_axes(
    pixels: NDArray[Any], image: Any, path: Path
) -> tuple[NDArray[Any], Geometry]:
    """Give the pixels, without first axes of length 1, and where they lie in mm.

    Parameters
    ----------
    pixels
        Of all axes.
    image
        The SimpleITK image they come from, which has axes in the order x, y, z.
    path
        What an error message names.

    Raises
    ------
    ImageError
        If more than three axes are left.
    """
    n_given = image.GetDimension()
    n_axes = n_given
    while n_axes > 2 and pixels.shape[0] == 1:
        pixels, n_axes = pixels[0], n_axes - 1
    if n_axes not in (2, 3):
        raise ImageError(
            f"{path} has the shape {pixels.shape}, but a volume has the axes z, y, x; "
            "save one of its volumes as a file of its own.",
            path=str(path),
            shape=pixels.shape,
        )
    directions = np.reshape(image.GetDirection(), (n_given, n_given)).T[::-1]
    return pixels, Geometry(
        axes=("z", "y", "x")[-n_axes:],
        spacing=tuple(image.GetSpacing()[n_axes - 1 :: -1]),
        unit="mm",
        origin=tuple(image.GetOrigin()[n_axes - 1 :: -1]),
        direction=rows_of(directions[-3:, :3]) if n_axes == 3 else None,
    )


def rows_of(matrix: NDArray[Any]) -> tuple[tuple[float, float, float], ...]:
    """Give a matrix of directions as `Geometry` has it."""
    return tuple((float(x), float(y), float(z)) for x, y, z in matrix)


def _check_nifti_is_complete(path: Path, header: Mapping[str, str]) -> None:
    """Refuse a file that was cut off, since ITK fills up what is missing."""
    sizes = [max(1, int(header[f"dim[{axis}]"])) for axis in range(1, 8)]
    needed = int(float(header["vox_offset"])) + (
        prod(sizes) * int(header["bitpix"]) // 8
    )
    there = _nifti_bytes(path, needed)
    if there is not None and there < needed:
        raise ImageError(
            f"{path} ends at byte {there} of {needed}, before its voxels do; copy it "
            "anew from where it came from.",
            path=str(path),
            n_bytes=there,
        )


def _check_nifti_is_finite(path: Path, header: Mapping[str, str]) -> None:
    """Refuse voxels that are no finite numbers, since ITK makes them 0."""
    kind = _NIFTI_FLOATS.get(int(header["datatype"]))
    if kind is None or _has_voxels_elsewhere(path):
        return
    n_bad = n_values = 0
    with _unpacked(path) as file:
        is_big = file.read(4)[:2] == b"\0\0"
        file.seek(int(float(header["vox_offset"])))
        dtype = np.dtype(kind).newbyteorder(">" if is_big else "<")
        while part := file.read(2**22):
            values = np.frombuffer(part, dtype, len(part) // dtype.itemsize)
            n_values += values.size
            n_bad += values.size - int(np.count_nonzero(np.isfinite(values)))
    refuse_not_finite(n_bad, n_values, str(path))


def _unpacked(path: Path) -> BufferedReader | gzip.GzipFile:
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP
    return gzip.open(path) if is_packed else path.open("rb")


def _has_voxels_elsewhere(path: Path) -> bool:
    """Tell whether a NIfTI file is a header, or a text."""
    return path.name.lower().endswith((".hdr", ".hdr.gz", ".img", ".img.gz", ".nia"))


def _nifti_bytes(path: Path, needed: int) -> int | None:
    """Give the size of the unpacked file, None of headers with voxels elsewhere."""
    if _has_voxels_elsewhere(path):
        return None
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP
        n_bytes = file.seek(0, os.SEEK_END)
        if not is_packed:
            return n_bytes
        file.seek(-4, os.SEEK_END)
        # gzip ends with the size, which counts for the last of several parts alone.
        if int.from_bytes(file.read(), "little") == needed % 2**32:
            return needed
    there = 0
    try:
        with gzip.open(path) as unpacked:
            while part := unpacked.read(2**22):
                there += len(part)
    except (OSError, EOFError):
        return min(there, needed - 1)
    return there


def _with_unit(
    geometry: Geometry, path: Path, header: Mapping[str, str]
) -> tuple[Geometry, tuple[str, ...]]:
    """Give what is known of the size of voxels, and a note on what was assumed."""
    units = header.get("xyzt_units")
    if units is not None:
        is_named = int(units) & 7 != 0
        note = f"{path.name} does not name its unit of length; mm was taken."
        return geometry, () if is_named else (note,)
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    is_text = start.startswith(b"NRRD") or b"NDims" in start
    if not is_text or any(word in start for word in _SIZE_WORDS):
        return geometry, ()
    return Geometry(geometry.axes, (1.0,) * len(geometry.axes)), ()


def _window(header: Mapping[str, str]) -> tuple[float, float] | None:
    """Give the intensities that a NIfTI header says to show."""
    low, high = (float(header.get(f"cal_{end}", "0")) for end in ("min", "max"))
    return (low, high) if np.isfinite([low, high]).all() and low < high else None


@contextmanager
def stderr_in_log() -> Iterator[None]:
    """Send what libraries in C print to the standard error to the log."""
    with _stderr_lock, tempfile.TemporaryFile() as kept:
        try:
            before = os.dup(2)
        except OSError:  # a program without standard error
            yield
            return
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            kept.seek(0)
            for line in kept.read().decode(errors="replace").splitlines():
                logger.debug("%s", line)


def _reason(error: Exception) -> str:
    """Give the last sentence of ITK's report, without places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    for mark in ("): ", "ERROR: "):
        last = last.rpartition(mark)[2]
    return last.rstrip(".")
