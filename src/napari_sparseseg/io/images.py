"""2-D images, label maps and probabilities in PNG, JPEG and TIFF files."""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_sparseseg.annotations.classes import (
    ClassTable,
    label_map_from_colors,
    write_class_table,
)
from napari_sparseseg.annotations.strokes import check_label_map
from napari_sparseseg.errors import ImageError, LabelError, OutputError
from napari_sparseseg.io.atomic import write_atomically
from napari_sparseseg.io.silence import never_warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray
    from tifffile import TiffFile, TiffPage, TiffPageSeries

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ome.tif", ".ome.tiff", ".tif", ".tiff")
"""Suffixes of files that can be read here, in lower case."""

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Suffixes of volumes, in lower case."""

DICOM_SUFFIXES = (".dcm", ".ima")
"""Suffixes of DICOM files, which may as well have none."""

SLIDE_SUFFIXES = (
    *(".svs", ".svslide", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".czi"),
    *(".qptiff",),
)
"""Suffixes of whole slides, in lower case; .tif and .dcm may be slides too."""

ZARR_SUFFIXES = (".ome.zarr", ".zarr")
"""Suffixes of folders of chunked images."""

ALL_SUFFIXES = (
    *IMAGE_SUFFIXES,
    *VOLUME_SUFFIXES,
    *DICOM_SUFFIXES,
    *SLIDE_SUFFIXES,
    *ZARR_SUFFIXES,
)
"""Suffixes of all that `open_image` opens, the longer of two first."""

_LABEL_SUFFIXES = (".png", ".tif", ".tiff")
_BLACK = (0, 0, 0)
_PREDICTION = "prediction of napari-sparseseg"
#: How files begin.
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PRINT_DPI = (72, 96, 150, 300, 600)
#: Micrometres of a unit of length, as image files spell it.
UM_PER_NAME = {
    "pm": 1e-6,
    "Å": 1e-4,
    "nm": 1e-3,
    "µm": 1.0,  # U+00B5, the micro sign
    "\u03bcm": 1.0,  # the Greek letter
    "\\u00B5m": 1.0,  # as ImageJ escapes it
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "nanometer": 1e-3,
    "meter": 1e6,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}

# What Pillow, tifffile and imagecodecs raise on damaged files; imagecodecs' own errors
# are RuntimeErrors.
_DAMAGED = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image as it was read from a file.

    Parameters
    ----------
    data
        (y, x) or (y, x, c), in the number type of the file; no alpha channel.
    um_per_px
        The side of a pixel in micrometres, None where the file does not say.
    """

    data: NDArray[Any]
    um_per_px: float | None


@dataclass(frozen=True)
class StemMatch:
    """Which images and label maps belong together by their stems.

    Parameters
    ----------
    pairs
        (stem, image, label map), sorted by stem.
    images_only, labels_only
        Stems without a partner, sorted.
    """

    pairs: list[tuple[str, Path, Path]]
    images_only: list[str]
    labels_only: list[str]


def read_image(path: str | Path) -> ImageFile:
    """Read a 2-D image from a PNG, JPEG or TIFF file.

    Colours and grey values keep their number type: 8 and 16 bits, signed ones such as
    HU, and floats. Palettes become RGB and alpha channels are dropped; black and white
    images become 0 and 255, and of a pyramid the full resolution is read. The pixel
    size comes from OME-XML, from ImageJ's unit, or from a TIFF resolution in pixels per
    centimetre. A resolution in inches, or of a round 72, 96, 150, 300 or 600 dots per
    inch, says how large to print, not how large a pixel is.

    Parameters
    ----------
    path
        The file; its content decides about the format, not its name.

    Returns
    -------
    ImageFile
        (y, x) or (y, x, c), and the micrometres per pixel.

    Raises
    ------
    ImageError
        If the file is missing, damaged or of another format, holds several planes, has
        colours other than grey and RGB, or pixels that are not finite numbers.
    """
    file = Path(path)
    with reading(file):
        data, um_per_px = _read_pixels(file)
    return ImageFile(check_pixels(data, str(file)), um_per_px)


def read_label_map(
    path: str | Path, table: ClassTable | None = None
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read a label map from a PNG or TIFF file.

    Parameters
    ----------
    path
        The file. Of a palette image the index of each pixel is its class value.
    table
        The classes whose colours a colour-coded mask has; its wholly transparent
        pixels, and black ones where no class is black, are not annotated. None: masks
        are refused.

    Returns
    -------
    ndarray
        (y, x) uint8 or uint16 with the values of the file, 0 = not annotated.

    Raises
    ------
    ImageError
        If the file is missing, damaged or of another format, or holds several planes.
    LabelError
        If it holds colours that are not in *table*, or numbers that are no class
        values, or is a JPEG file.
    """
    file = Path(path)
    with reading(file):
        if _signature(file).startswith(JPEG):
            raise LabelError(
                f"The label map {file} is a JPEG file, which changes values when it is "
                "saved; save the label map as PNG or TIFF.",
                path=str(file),
            )
        labels, _ = _read_pixels(file, raw=True)
    if labels.dtype == np.bool_:
        labels = labels.astype(np.uint8)
    if table is not None and labels.ndim == 3 and labels.shape[2] in (3, 4):
        has_black = _BLACK in [each.color for each in table]
        try:
            return label_map_from_colors(
                labels, table, unlabelled=None if has_black else _BLACK
            )
        except LabelError as error:
            raise LabelError(f"{file}: {error}", path=str(file)) from error
    return check_label_map(labels, name=f"label map {file}")


def write_label_map(
    path: str | Path,
    label_map: ArrayLike,
    table: ClassTable | None = None,
    *,
    prediction: bool = False,
) -> None:
    """Write a label map to a PNG or TIFF file, completely or not at all.

    With a class table ``STEM.classes.json`` is written beside it, and an 8-bit PNG
    shows the colours of the classes through a palette whose indices are the values.

    Parameters
    ----------
    path
        The file; its suffix, ``.png``, ``.tif`` or ``.tiff``, decides about the format.
    label_map
        (y, x) integers, 0 = not annotated.
    table
        The classes, if they are to be kept with it.
    prediction
        Whether a program made it, and not a user: a PNG is then marked so (see
        `is_prediction`), and has plain grey values instead of a palette, which some
        readers turn into colours.

    Raises
    ------
    LabelError
        If it is no label map, or has values that are not in the table.
    OutputError
        If the file cannot be written, or the suffix is another one.
    """
    file = Path(path)
    labels = check_label_map(label_map)
    if table is not None:
        table.check_values(labels)
    if file.suffix.lower() not in _LABEL_SUFFIXES:
        raise OutputError(
            f"A label map cannot be written as {file.name}; give it one of the "
            f"suffixes {', '.join(_LABEL_SUFFIXES)}.",
            path=str(file),
        )

    def write(temporary: Path) -> None:
        if file.suffix.lower() == ".png":
            write_png(temporary, labels, table, prediction)
        else:
            _write_tiff(temporary, labels, compression="zlib")
        # Before the rename, so that no label map is left without its classes.
        if table is not None:
            write_class_table(file.with_name(f"{stem_of(file)}.classes.json"), table)

    write_atomically(file, write)


def is_prediction(path: str | Path) -> bool:
    """Tell whether a file is a PNG marked as a prediction by `write_label_map`."""
    try:
        with Path(path).open("rb") as file:
            # The mark stands before the pixels, so that no image is too large.
            return _PREDICTION.encode() in file.read(1024)
    except OSError:
        return False


def write_probabilities(path: str | Path, probabilities: ArrayLike) -> None:
    """Write class probabilities to a TIFF file, completely or not at all.

    Parameters
    ----------
    path
        The file.
    probabilities
        (c, y, x) floats, channels by ascending class value; written as float32, one
        page a channel.

    Raises
    ------
    OutputError
        If the array has another form, or the file cannot be written.
    """
    array = np.asarray(probabilities)
    if array.ndim != 3 or array.dtype.kind != "f" or array.size == 0:
        raise OutputError(
            f"The probabilities for {path} have shape {array.shape} and type "
            f"{array.dtype}, but they must be floats of shape (c, y, x).",
            shape=array.shape,
            dtype=str(array.dtype),
        )
    pages = array.astype(np.float32, copy=False)
    write_atomically(
        path, lambda temporary: _write_tiff(temporary, pages, metadata={"axes": "CYX"})
    )


def read_probabilities(path: str | Path) -> NDArray[np.float32]:
    """Read class probabilities from a TIFF file made by `write_probabilities`.

    Returns
    -------
    ndarray
        (c, y, x) float32.

    Raises
    ------
    ImageError
        If the file is missing or damaged, or holds anything else.
    """
    file = Path(path)
    with reading(file), opened_tiff(file) as tiff:
        series = tiff.series[0]
        if series.axes != "CYX" or series.dtype != np.float32:
            raise ImageError(
                f"{file} holds {series.dtype} of shape {series.shape} (axes "
                f"{series.axes}), but probabilities are float32 with axes CYX; give a "
                "file of probabilities written by this program.",
                path=str(file),
            )
        return np.ascontiguousarray(series.asarray(), np.float32)


def check_pixels(data: NDArray[Any], name: str = "the image") -> NDArray[Any]:
    """Check that an array can be used as an image.

    Parameters
    ----------
    data
        (y, x) or (y, x, c), integers or finite floats, at least one pixel.
    name
        What the error message calls it.

    Returns
    -------
    ndarray
        The same numbers, contiguous and in the byte order of this machine.

    Raises
    ------
    ImageError
        If it is something else, with what it is.
    """
    if data.size == 0 or data.dtype.kind not in "iuf" or data.ndim not in (2, 3):
        raise ImageError(
            f"{name} holds {data.dtype} of shape {data.shape}, but an image needs "
            "integers or floats of (y, x) or (y, x, channel) and at least one pixel; "
            "save it again as a plane of 8 or 16 bits.",
            name=name,
        )
    check_finite(data, name)
    return np.ascontiguousarray(data, data.dtype.newbyteorder("="))


def check_finite(data: NDArray[Any], name: str) -> None:
    """Raise ImageError, calling the array *name*, where a value is NaN or infinite."""
    if data.dtype.kind != "f":
        return
    n_bad = int(data.size - np.count_nonzero(np.isfinite(data)))
    refuse_not_finite(n_bad, data.size, name)


def refuse_not_finite(n_bad: int, n_values: int, name: str) -> None:
    """Raise ImageError where some of the values of an image are NaN or infinite."""
    if n_bad:
        raise ImageError(
            f"{name} has {n_bad} of {n_values} values that are not finite numbers "
            "(NaN or infinite); replace them, for example by the lowest value.",
            name=name,
            n_bad=n_bad,
        )


def stem_of(path: str | Path) -> str:
    """Give a file's name without its image suffix, by which files are matched.

    Only the suffixes in `ALL_SUFFIXES` are taken off, in upper or lower case, so that
    ``case_1.5mm.tif`` and ``case_1.5mm.nii.gz`` have the stem ``case_1.5mm``.
    """
    name = Path(path).name
    for suffix in ALL_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def list_images(
    path: str | Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> dict[str, Path]:
    """List the image files of a folder, or a single one, by stem.

    Parameters
    ----------
    path
        A folder, of which hidden files, other files and folders inside are left out, or
        an image file.
    suffixes
        Of image files, in lower case.

    Returns
    -------
    dict[str, Path]
        At least one file by stem, sorted by stem.

    Raises
    ------
    ImageError
        If there is no such file or folder, no image in the folder, or two images have
        the same stem.
    """
    place = Path(path)
    try:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
    except OSError as error:
        raise ImageError(
            f"The folder {place} cannot be read: {error.strerror or error}.",
            path=str(place),
        ) from error
    images: dict[str, Path] = {}
    for file in files:
        if not _is_image(file, suffixes) or (
            place.is_dir() and file.name.startswith(".")
        ):
            continue
        other = images.setdefault(stem_of(file), file)
        if other != file:
            raise ImageError(
                f"{other.name} and {file.name} in {place} have the same name but for "
                "the suffix; keep one of them, or rename it.",
                paths=[str(other), str(file)],
            )
    if not images:
        raise _no_images(place, suffixes)
    return dict(sorted(images.items()))


def match_by_stem(images: Mapping[str, Path], labels: Mapping[str, Path]) -> StemMatch:
    """Find which images and label maps belong together.

    Parameters
    ----------
    images, labels
        Files by stem, as from `list_images`.

    Returns
    -------
    StemMatch
        The pairs, and what has no partner.
    """
    return StemMatch(
        pairs=[
            (stem, images[stem], labels[stem])
            for stem in sorted(images.keys() & labels.keys())
        ],
        images_only=sorted(images.keys() - labels.keys()),
        labels_only=sorted(labels.keys() - images.keys()),
    )


@contextmanager
def reading(file: Path, formats: str = "PNG or TIFF") -> Iterator[None]:
    """Turn whatever goes wrong while a file is decoded into an ImageError.

    Its sentence advises to save the image again in one of some *formats*.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ImageError(f"There is no file {file}.", path=str(file)) from error
    except IsADirectoryError as error:
        raise ImageError(
            f"{file} is a folder; give one image file of it.", path=str(file)
        ) from error
    except PermissionError as error:
        raise ImageError(
            f"{file} cannot be read: {error.strerror or error}.", path=str(file)
        ) from error
    except MemoryError as error:
        raise ImageError(
            f"{file} is too large to be read at once; cut it into smaller images, or "
            "open it as a whole slide.",
            path=str(file),
        ) from error
    except _DAMAGED as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ImageError(
            f"{file} cannot be read, because it is damaged, incomplete or of a kind "
            f"that is not supported ({reason}); open it in the program that made it "
            f"and save it again as {formats}.",
            path=str(file),
        ) from error


def _signature(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(26)


def _read_pixels(file: Path, raw: bool = False) -> tuple[NDArray[Any], float | None]:
    """Read (y, x) or (y, x, c) and the pixel size; raw = numbers, not colours."""
    signature = _signature(file)
    if signature.startswith(PNG):
        return _read_png(file, signature, raw), None
    if signature.startswith(JPEG):
        return _read_with_pillow(file, "JPEG", raw), None
    if signature.startswith(TIFF):
        return _read_tiff(file, raw)
    raise ImageError(
        f"{file} is neither a PNG, a JPEG nor a TIFF file; convert it to one of them.",
        path=str(file),
    )


def _read_png(file: Path, signature: bytes, raw: bool) -> NDArray[Any]:
    depth, color_type = signature[24], signature[25]
    if depth == 16 and color_type != 0:
        # Pillow would cut the colours to 8 bits.
        return _read_deep_png(file, color_type)
    pixels = _read_with_pillow(file, "PNG", raw)
    if raw and color_type == 0 and depth in (2, 4):
        # Pillow spreads the grey values of few bits over 0..255.
        pixels //= 255 // (2**depth - 1)
    return pixels


def _read_deep_png(file: Path, color_type: int) -> NDArray[Any]:
    from imagecodecs import png_decode

    pixels = png_decode(file.read_bytes())
    grey_with_alpha = color_type == 4
    return pixels[..., 0] if grey_with_alpha else pixels[..., :3]


def _read_with_pillow(file: Path, kind: str, raw: bool) -> NDArray[Any]:
    from PIL import Image

    # Large images are what this program is for.
    never_warn(Image.DecompressionBombWarning)
    try:
        image = Image.open(file, formats=[kind])
    except Image.DecompressionBombError as error:
        raise MemoryError(str(error)) from error
    with image:
        if image.mode in ("CMYK", "YCCK"):
            raise _strange_colors(file, image.mode)
        if not raw and image.mode in ("1", "P"):
            pixels = np.array(image.convert("L" if image.mode == "1" else "RGB"))
        else:
            pixels = np.array(image)
        if image.mode == "LA":
            return pixels[..., 0]
        return pixels[..., :3] if image.mode == "RGBA" and not raw else pixels


class _LostPages(logging.Filter):
    """Keeps what tifffile logs from the user, and notes whether pages are lost.

    Those of other files, which other threads read meanwhile, do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.are_there = False
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let nothing pass."""
        is_own = record.thread == self._thread
        self.are_there |= is_own and "TiffPages" in record.getMessage()
        return False


@contextmanager
def opened_tiff(file: Path) -> Iterator[TiffFile]:
    """Open a TIFF file.

    Raises
    ------
    EOFError
        If it was cut off before its last page; tifffile takes the pages before as all.
    """
    from tifffile import TiffFile, logger

    lost = _LostPages()
    logger().addFilter(lost)
    try:
        with TiffFile(file) as tiff:
            n_pages = len(tiff.pages)
            if lost.are_there:
                raise EOFError(f"only {n_pages} of its pages are there")
            yield tiff
    finally:
        logger().removeFilter(lost)


def _read_tiff(file: Path, raw: bool) -> tuple[NDArray[Any], float | None]:
    with opened_tiff(file) as tiff:
        series = _only_series(tiff, file)
        check_complete(series)
        pixels = _channels_last(series.asarray(), series.axes)
        page = tiff.pages.first
        if not raw:
            pixels = _as_colors(pixels, page, file)
        return pixels, tiff_um_per_px(tiff, page)


def _only_series(tiff: TiffFile, file: Path) -> TiffPageSeries:
    """Give the one image of a file without reading its pixels."""
    series = tiff.series[0]
    axes = long_axes(series.axes, series.shape)
    if len(tiff.series) > 1 or axes not in ("YX", "YXS", "YXC", "SYX", "CYX"):
        held = (
            f"{len(tiff.series)} images of different sizes or kinds"
            if len(tiff.series) > 1
            else f"pages of shape {series.shape} (axes {series.axes})"
        )
        raise ImageError(
            f"{file} holds {held}, but only 2-D images, (y, x) or with channels, can "
            "be read here; save the wanted plane as a TIFF file of its own.",
            path=str(file),
            shape=series.shape,
        )
    return series


def check_complete(series: TiffPageSeries) -> None:
    """Refuse a file that was cut off, since some decoders fill up what is missing."""
    for page in series.pages:
        if page is None:
            raise EOFError("a page is missing")
        size = page.parent.filehandle.size
        segments = zip(page.dataoffsets, page.databytecounts, strict=False)
        if any(start + length > size for start, length in segments):
            raise EOFError(f"it ends at byte {size}, before its pixels do")


def long_axes(axes: str, shape: tuple[int, ...]) -> str:
    """Leave out axes of length 1 other than y and x."""
    return "".join(
        axis for axis, size in zip(axes, shape, strict=True) if axis in "YX" or size > 1
    )


def _channels_last(pixels: NDArray[Any], axes: str) -> NDArray[Any]:
    kept = long_axes(axes, pixels.shape)
    short = tuple(index for index, axis in enumerate(axes) if axis not in kept)
    pixels = pixels.squeeze(short)
    return np.moveaxis(pixels, 0, -1) if kept[0] != "Y" else pixels


def _as_colors(pixels: NDArray[Any], page: TiffPage, file: Path) -> NDArray[Any]:
    """Turn the numbers of a TIFF file into grey values or RGB without alpha."""
    from tifffile import PHOTOMETRIC

    photometric = page.photometric
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
        colors: NDArray[Any] = page.colormap.T
        # Some programs write 8-bit colours where 16 bits are due.
        if colors.max() > 255:
            colors = colors >> 8
        rgb: NDArray[np.uint8] = colors.astype(np.uint8)[pixels]
        return rgb
    if photometric == PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
        highest = 255 if page.bitspersample == 1 else 2**page.bitspersample - 1
        return highest - pixels
    # tifffile turns compressed YCbCr into RGB.
    compressed_ycbcr = photometric == PHOTOMETRIC.YCBCR and page.compression != 1
    if compressed_ycbcr or photometric == PHOTOMETRIC.RGB:
        return pixels[..., :3] if pixels.shape[2:] == (4,) else pixels
    if photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE):
        raise _strange_colors(file, PHOTOMETRIC(photometric).name)
    has_alpha = any(extra in (1, 2) for extra in page.extrasamples)
    return pixels[..., 0] if has_alpha and pixels.shape[2:] == (2,) else pixels


def _strange_colors(file: Path, colors: str) -> ImageError:
    return ImageError(
        f"{file} has {colors} colours, but only grey values and RGB can be read; "
        "convert it to RGB.",
        path=str(file),
    )


def tiff_um_per_px(tiff: TiffFile, page: TiffPage, index: int = 0) -> float | None:
    """Give the side of a pixel of one of the images of a file, None where not known."""
    if tiff.is_ome:
        xml = tiff.ome_metadata or ""
        size = _square(ome_um(xml, "X", index), ome_um(xml, "Y", index))
        if size is not None:
            return size
    per_unit = [_number_tag(page, name) for name in ("XResolution", "YResolution")]
    unit = str((tiff.imagej_metadata or {}).get("unit", ""))
    um = UM_PER_NAME.get(unit)
    if um is None and _number_tag(page, "ResolutionUnit") == 3:
        um = None if _is_print_resolution(per_unit[0]) else UM_PER_NAME["cm"]
    if um is None:
        return None
    return _square(*(um / number if number else None for number in per_unit))


def _is_print_resolution(px_per_cm: float | None) -> bool:
    """Tell whether a resolution is one of those that programs put in unasked."""
    return px_per_cm is not None and bool(
        np.isclose(px_per_cm * 2.54, _PRINT_DPI, rtol=1e-3).any()
    )


def ome_um(xml: str, axis: str, index: int = 0) -> float | None:
    """Give the distance of pixels along X, Y or Z of an image of OME-XML, or None."""
    try:
        images = ElementTree.fromstring(xml).findall(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    if index >= len(images):
        return None
    um = UM_PER_NAME.get(images[index].get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        size = float(images[index].get(f"PhysicalSize{axis}", "nan"))
    except ValueError:
        return None
    return size * um if um is not None and size > 0 else None


def _square(x: float | None, y: float | None) -> float | None:
    """Give the size of a pixel, None where it is unknown or no square within 1 %."""
    if x is None or (y is not None and not np.isclose(x, y, rtol=0.01, atol=0)):
        return None
    return x if np.isfinite(x) else None


def _number_tag(page: TiffPage, name: str) -> float | None:
    tag = page.tags.get(name)
    if tag is None:
        return None
    if isinstance(tag.value, tuple):
        top, bottom = tag.value
        return top / bottom if bottom else None
    return float(tag.value)


def _is_image(file: Path, suffixes: tuple[str, ...]) -> bool:
    return file.name.lower().endswith(suffixes) and file.is_file()


def _no_images(place: Path, suffixes: tuple[str, ...]) -> ImageError:
    endings = ", ".join(suffixes)
    if place.is_dir():
        what = f"The folder {place} has no image in it; images end in {endings}."
    elif place.exists():
        what = f"{place} is no image file; images end in {endings}."
    else:
        what = f"There is no file or folder {place}."
    return ImageError(what, path=str(place))


def write_png(
    path: Path,
    labels: NDArray[np.uint8] | NDArray[np.uint16],
    table: ClassTable | None,
    prediction: bool = False,
) -> None:
    """Write a label map to a PNG file as `write_label_map` does, but not atomically."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if prediction:
        mark = PngInfo()
        mark.add_text("Comment", _PREDICTION)
        Image.fromarray(labels).save(path, format="PNG", pnginfo=mark)
        return
    if table is None or int(labels.max()) > 255:
        Image.fromarray(labels).save(path, format="PNG")
        return
    # All 256 entries: with fewer, values beyond the palette would be lost.
    palette = np.zeros((256, 3), np.uint8)
    for each in table:
        if each.value <= 255:
            palette[each.value] = each.color
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(palette.tobytes())
    # Transparent, since 0 means not annotated, which is no class and has no colour.
    image.save(path, format="PNG", transparency=0)


def _write_tiff(
    path: Path,
    array: NDArray[Any],
    compression: str | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    from tifffile import imwrite

    imwrite(
        path,
        array,
        photometric="minisblack",
        compression=compression,
        metadata=metadata or {},
    )
