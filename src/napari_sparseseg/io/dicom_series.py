"""DICOM: which series are in a folder, and one of them as an image or a volume.

pydicom reads the headers, also of what is no image; SimpleITK, that is GDCM, reads the
pixels and rescales them. Files that GDCM cannot read are refused.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import ImageError, enumerated
from napari_sparseseg.io.geometry import Geometry
from napari_sparseseg.io.images import check_finite
from napari_sparseseg.io.optional import library
from napari_sparseseg.io.silence import never_log, never_warn
from napari_sparseseg.io.sources import ImageSource
from napari_sparseseg.io.volumes import (
    pixels_of,
    reading_itk,
    rows_of,
    without_short_axes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Centre and width of soft tissue in HU, for CT without a window of its own.
SOFT_TISSUE = (40.0, 400.0)

#: What is read of each header; nothing of it says who the patient is.
_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
    "Modality",
    "Rows",
    "Columns",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "WindowCenter",
    "WindowWidth",
]

_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_CONTOURS = "1.2.840.10008.5.1.4.1.1.481.3"

_DAMAGED = "a damaged DICOM file"

DICOM_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
)
"""What pydicom and highdicom raise on strange bytes, and where something is missing."""

#: How far planes may be from even, as a share of their distance.
_UNEVEN = 0.1

#: In how many files of a folder a DICOM file is looked for.
_LOOKED_AT = 500

#: With more files of other kinds a folder is not searched to its end.
_MOST_OTHERS = 5000

#: Components of directions and millimetres that differ by less are equal.
_CLOSE = 1e-3


@dataclass(frozen=True)
class SeriesInfo:
    """A DICOM series, or the part of it that has one size and direction.

    Attributes
    ----------
    uid
        SeriesInstanceUID; of several parts followed by ``#2``, ``#3`` and so on. The
        number where the files have none.
    number
        1, 2, ... in the order of the list.
    description
        What the scanner calls it; no patient data. May be empty.
    modality
        As ``"CT"``.
    n_slices
        Planes in all; 1 of a slide.
    shape
        (y, x) of a plane, of a slide that of its finest level.
    spacing
        (z, y, x) or, of a single plane, (y, x) in mm; empty where the files do not say.
    files
        In no particular order.
    """

    uid: str
    number: int
    description: str
    modality: str
    n_slices: int
    shape: tuple[int, int]
    spacing: tuple[float, ...]
    files: tuple[Path, ...] = field(repr=False)

    @property
    def is_slide(self) -> bool:
        """Whether it is slide microscopy, which OpenSlide reads."""
        return self.modality == "SM"

    def __str__(self) -> str:
        """Word it for a list of choices."""
        name = f" '{self.description}'" if self.description else ""
        y, x = self.shape
        if self.is_slide:
            return f"slide{name} ({y} x {x})"
        what = f"{self.n_slices} x {y} x {x}" if self.n_slices > 1 else f"{y} x {x}"
        return f"{self.modality}{name} ({what})"


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM, with or without the preamble."""
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    # Files of before 1993, and datasets cut out of a network message.
    little, big = start[:4], start[1::-1] + start[3:1:-1]
    return any(
        each[:2] in (b"\x02\0", b"\x08\0") and each[3:4] == b"\0" and each[2] < 0x20
        for each in (little, big)
        if len(each) == 4
    )


def has_dicom(folder: Path) -> bool:
    """Tell whether there is a DICOM file among the first files in a folder."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    for file in islice(files, _LOOKED_AT):
        with suppress(OSError):
            if is_dicom(file):
                return True
    return False


def find_series(path: Path) -> list[SeriesInfo]:
    """List the series of images in a folder, or those that lie beside a file of one.

    Folders inside are searched where the folder itself has no DICOM file. Links to
    folders are not followed, so that loops do no harm.
    """
    return _grouped(_headers_at(path))


def open_series(path: Path, series: str | None = None) -> ImageSource:
    """Open a series as (z, y, x), or as (y, x) where it is a single plane, in HU.

    Planes are ordered along the normal of the first one, as in ITK. They are numbers of
    the file, rescaled by its slope and intercept.

    Parameters
    ----------
    path
        A folder, or any file of the series.
    series
        The number in the list, the description, or the UID or its end.

    Raises
    ------
    ImageError
        If nothing there is an image, several series are and none is chosen, a file is
        damaged, or planes are missing or in the same place.
    """
    headers = _headers_at(path)
    if path.is_file():
        own = next((each for each in headers if each.file == path), None)
        if own is None or not own.is_image:
            raise _no_image(path, own)
    others = [
        each.what
        for each in headers
        if not each.is_image and (path.is_dir() or each.what == _DAMAGED)
    ]
    found = _grouped(headers)
    if not found:
        raise ImageError(
            f"{path} has no image in it that can be read, but {_counted(others)}; give "
            "a folder of DICOM images, or an image file."
            if others
            else f"{path} has no image in it; give an image file, an OME-Zarr, or a "
            "folder of DICOM files.",
            path=str(path),
        )
    info = choose_series(found, path, series)
    if info.is_slide:
        from napari_sparseseg.io.slides import open_slide

        if path.is_file():
            return open_slide(path)
        # Names of the files may be of the patient.
        return replace(
            open_slide(min(info.files)),
            path=path,
            name=info.description or "slide",
            series=info.uid if len(found) > 1 else None,
        )
    by_file = {each.file: each for each in headers}
    slices = [by_file[file] for file in info.files]
    return _volume(path, info, slices, len(found) > 1, others)


def choose_series(
    found: Sequence[SeriesInfo], path: Path, wanted: str | None
) -> SeriesInfo:
    """Choose one of several series.

    Parameters
    ----------
    found
        As of `find_series`, at least one.
    path
        Where; of a file the series that it belongs to is chosen.
    wanted
        The number in the list, the description, or the UID or its end.

    Raises
    ------
    ImageError
        If several are there, or none is as wanted; the sentence lists them.
    """
    if wanted is not None:
        chosen = [each for each in found if _is_wanted(each, wanted)]
    else:
        chosen = [each for each in found if path in each.files] or list(found)
    if len(chosen) == 1:
        return chosen[0]
    listed = enumerated([f"{each.number} = {each}" for each in found])
    given = f"none of them is '{wanted}'" if wanted is not None else "none is chosen"
    if wanted is not None and chosen:
        given = f"{len(chosen)} of them are '{wanted}'"
    raise ImageError(
        f"{path} has {len(found)} series: {listed}; {given}, name one by its number.",
        path=str(path),
        option="--series 1",
        series=[each.uid for each in found],
    )


@dataclass(frozen=True)
class _Header:
    """What matters of the header of a file."""

    file: Path
    sop_class: str
    what: str
    instance: str
    series: str = ""
    series_number: int = 0
    description: str = ""
    instance_number: int = 0
    modality: str = ""
    shape: tuple[int, int] | None = None
    n_frames: int = 1
    is_inverted: bool = False
    spacing: tuple[float, ...] = ()
    is_at_detector: bool = False
    between: float | None = None
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    window: tuple[float, float] | None = None

    @property
    def is_image(self) -> bool:
        return self.shape is not None and self.sop_class not in _SEGMENTATIONS

    @property
    def stack(self) -> tuple[Any, ...]:
        """What files have in common that are planes of one volume."""
        # Of several frames each file is a volume; but those of a slide are its levels.
        alone = self.instance if self.n_frames > 1 and self.modality != "SM" else ""
        shape = None if self.modality == "SM" else self.shape
        return (self.series, shape, np.round(self.orientation, 3).tolist(), alone)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the plane."""
        along_x, along_y = np.reshape(self.orientation, (2, 3))
        return np.cross(along_x, along_y)

    @property
    def has_place(self) -> bool:
        return len(self.position) == 3 and len(self.orientation) == 6


def silence() -> None:
    """Keep away from user and log what libraries of DICOM doubt, from now on.

    Their words quote values, and so the name of the patient.
    """
    for each in ("pydicom", "highdicom"):
        never_warn(module=rf"{each}\b")
        never_log(each)


def _headers_at(path: Path) -> list[_Header]:
    """Read the headers in a folder or beside a file; of copies only one is kept."""
    headers = _headers_in(path if path.is_dir() else path.parent)
    once = {each.instance: each for each in reversed(headers)}
    once |= {each.instance: each for each in headers if each.file == path}
    return [each for each in headers if once[each.instance] is each]


def _headers_in(folder: Path) -> list[_Header]:
    """Read the headers of the DICOM files of a folder, else of those inside it."""
    library("pydicom", "volumes", "DICOM files")
    own: list[_Header] = []
    n_others = 0
    for place, _, names in os.walk(folder, onerror=_refuse):
        for name in sorted(names):
            header = _header(Path(place, name))
            if header is not None:
                own.append(header)
            elif (n_others := n_others + 1) > _MOST_OTHERS:
                raise ImageError(
                    f"{folder} has more than {_MOST_OTHERS} files that are not DICOM; "
                    "give the folder of one series, or a file of it.",
                    path=str(folder),
                )
        if own and Path(place) == folder:
            break
    return own


def _refuse(error: OSError) -> None:
    raise ImageError(
        f"The folder {error.filename} cannot be read: {error.strerror}.",
        path=str(error.filename),
    ) from error


def _header(file: Path) -> _Header | None:
    """Read the header of a file, None where it is not DICOM."""
    import pydicom

    try:
        if not is_dicom(file):
            return None
        silence()
        data = pydicom.dcmread(
            file, stop_before_pixels=True, force=True, specific_tags=_TAGS
        )
        return _header_of(file, data)
    except DICOM_ERRORS as error:
        # Links to nowhere, pipes, files of others; pydicom's own have no number.
        is_unreadable = isinstance(error, OSError) and error.errno is not None
        return None if is_unreadable else _damaged(file)


def _damaged(file: Path) -> _Header:
    return _Header(file, "", _DAMAGED, instance=str(file))


def _header_of(file: Path, data: Any) -> _Header:
    # What makes data anonymous may empty this one, but not that of the file.
    meta = getattr(data, "file_meta", {})
    sop_class = data.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
    instance = data.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID")
    if not sop_class:
        return _damaged(file)
    rows, columns = (
        data.get(f"TotalPixelMatrix{side}") or data.get(side)
        for side in ("Rows", "Columns")
    )
    if not rows and sop_class.name.endswith("Image Storage"):
        return _damaged(file)
    at_detector = not data.get("PixelSpacing")
    spacing = data.get("ImagerPixelSpacing" if at_detector else "PixelSpacing")
    return _Header(
        file=file,
        sop_class=str(sop_class),
        what=_what(sop_class),
        instance=str(instance or file),
        series=str(data.get("SeriesInstanceUID") or ""),
        series_number=int(data.get("SeriesNumber") or 0),
        description=" ".join(str(data.get("SeriesDescription") or "").split()),
        instance_number=int(data.get("InstanceNumber") or 0),
        modality=str(data.get("Modality") or "") or _modality(sop_class),
        shape=(int(rows), int(columns)) if rows and columns else None,
        n_frames=int(data.get("NumberOfFrames") or 1),
        is_inverted=data.get("PhotometricInterpretation") == "MONOCHROME1",
        spacing=_numbers(spacing),
        is_at_detector=at_detector,
        between=_distance(data),
        position=_numbers(data.get("ImagePositionPatient")),
        orientation=_numbers(data.get("ImageOrientationPatient")),
        window=_window(data),
    )


def _what(sop_class: Any) -> str:
    """Word what kind of object it is, as "a CT Image Storage"."""
    if str(sop_class) in _SEGMENTATIONS:
        return "a DICOM segmentation (SEG)"
    if str(sop_class) == _CONTOURS:
        return "a set of contours (RTSTRUCT)"
    return f"an object of the kind {sop_class.name}"


def _modality(sop_class: Any) -> str:
    """Guess the modality where the file was stripped of it: "CT Image Storage"."""
    name = str(sop_class.name).removeprefix("Enhanced ").removeprefix("Legacy ")
    first = name.partition(" ")[0]
    return first if name.endswith("Image Storage") and first.isupper() else "image"


def _numbers(values: Any) -> tuple[float, ...]:
    if values is None or isinstance(values, str):
        return ()
    return tuple(float(value) for value in values)


def _distance(data: Any) -> float | None:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = data.get(name)
        if value:
            return abs(float(value))
    return None


def _window(data: Any) -> tuple[float, float] | None:
    """Give the first window of the header as lowest and highest value."""
    pair = []
    for name in ("WindowCenter", "WindowWidth"):
        value = data.get(name)
        if value is None or value == "":
            return None
        pair.append(float(value if isinstance(value, float | int) else value[0]))
    centre, width = pair
    return (centre - width / 2, centre + width / 2) if width > 0 else None


def _grouped(headers: Sequence[_Header]) -> list[SeriesInfo]:
    stacks: dict[str, list[_Header]] = {}
    for each in headers:
        if each.is_image:
            stacks.setdefault(repr(each.stack), []).append(each)
    ordered = sorted(
        stacks.values(), key=lambda stack: (stack[0].series_number, stack[0].series)
    )
    parts: dict[str, int] = {}
    found = []
    for number, stack in enumerate(ordered, 1):
        first = stack[0]
        part = parts[first.series] = parts.get(first.series, 0) + 1
        is_slide = first.modality == "SM"
        found.append(
            SeriesInfo(
                uid=_uid(first, part, number),
                number=number,
                description=first.description,
                modality=first.modality,
                n_slices=1 if is_slide else sum(each.n_frames for each in stack),
                shape=max(each.shape for each in stack if each.shape is not None),
                spacing=_spacing_mm(stack),
                files=tuple(each.file for each in stack),
            )
        )
    return found


def _uid(first: _Header, part: int, number: int) -> str:
    if not first.series:
        return str(number)
    return first.series if part == 1 else f"{first.series}#{part}"


def _spacing_mm(stack: Sequence[_Header]) -> tuple[float, ...]:
    """Give the spacing of a stack as far as headers tell."""
    first = stack[0]
    if len(first.spacing) != 2:
        return ()
    if len(stack) == 1 and first.n_frames == 1:
        return first.spacing
    if all(each.has_place for each in stack) and len(stack) > 1:
        along = _along(stack)
        return (_rounded(np.ptp(along) / (len(stack) - 1)), *first.spacing)
    return () if first.between is None else (first.between, *first.spacing)


def _rounded(mm: float) -> float:
    """Take away what differences of decimal numbers add far behind the point."""
    return round(float(mm), 6)


def _along(stack: Sequence[_Header]) -> NDArray[np.float64]:
    """Give where planes are along their normal, in mm."""
    return np.array([each.position for each in stack]) @ stack[0].normal


def _is_wanted(info: SeriesInfo, wanted: str) -> bool:
    return wanted in (str(info.number), info.uid, info.description) or (
        # A single digit is a number in the list.
        len(wanted) > 3 and info.uid.endswith(wanted)
    )


def _no_image(path: Path, header: _Header | None) -> ImageError:
    if header is None or header.what == _DAMAGED:
        return ImageError(
            f"{path} cannot be read, because its DICOM header is damaged; copy it anew "
            "from where it came from.",
            path=str(path),
        )
    advice = (
        "open the image that it was drawn on, and make labels of this file with "
        "sparseseg import FILE --image IMAGE --out LABELS"
        if header.sop_class in (*_SEGMENTATIONS, _CONTOURS)
        else "open a file of an image"
    )
    return ImageError(f"{path} is {header.what}, no image; {advice}.", path=str(path))


def _counted(others: Sequence[str]) -> str:
    return enumerated(
        [
            each if others.count(each) == 1 else f"{others.count(each)} times {each}"
            for each in sorted(set(others))
        ]
    )


def _volume(
    path: Path,
    info: SeriesInfo,
    slices: Sequence[_Header],
    is_one_of_several: bool,
    others: Sequence[str],
) -> ImageSource:
    """Read the planes of a series."""
    notes: list[str] = []
    files = slices = _in_order(path, slices)
    first = slices[0]
    if first.n_frames > 1:
        slices = _in_order(path, _frames(first))
        pixels = _read(first.file)[0][[each.instance_number for each in slices]]
        geometry, notes = _stack_geometry(slices)
    elif len(slices) == 1:
        pixels, geometry = _read(first.file)[0], _plane_geometry(first)
    else:
        # Each file has a slope and an intercept of its own, and so maybe its own type.
        pixels = np.stack([_read(each.file)[0] for each in slices])
        geometry, notes = _stack_geometry(slices)
    if first.is_at_detector and first.spacing:
        notes.append("The pixel size is that at the detector, not in the patient.")
    if first.is_inverted:
        notes.append("Its low values are meant to be shown bright (MONOCHROME1).")
    if others:
        notes.append(f"Left out: {_counted(others)}.")
    is_rgb = pixels.ndim > len(geometry.axes)
    return ImageSource(
        path,
        info.description or f"{info.modality} image",
        (pixels,),
        geometry,
        is_rgb,
        window=None if is_rgb else (first.window or _default_window(info)),
        notes=tuple(notes),
        series=info.uid if is_one_of_several and path.is_dir() else None,
        files=tuple(each.file for each in files),
    )


def _default_window(info: SeriesInfo) -> tuple[float, float] | None:
    centre, width = SOFT_TISSUE
    return (centre - width / 2, centre + width / 2) if info.modality == "CT" else None


def _in_order(path: Path, slices: Sequence[_Header]) -> list[_Header]:
    """Sort planes along their normal, and check that none is missing."""
    if len(slices) == 1:
        return list(slices)
    if not all(each.has_place for each in slices):
        return sorted(slices, key=lambda each: (each.instance_number, each.file))
    along = _along(slices)
    order = np.argsort(along, kind="stable")
    ordered = [slices[index] for index in order]
    steps = np.diff(along[order])
    if steps.min() < _CLOSE:
        at = int(np.argmin(steps))
        raise ImageError(
            f"{path} has {len(slices)} slices of one series, but some, as "
            f"{ordered[at].file.name} and {ordered[at + 1].file.name}, are at the same "
            "place, as of several times or echoes; put one of each place into a "
            "folder of its own.",
            path=str(path),
        )
    usual = float(np.median(steps))
    gaps = np.flatnonzero(np.abs(steps - usual) > _UNEVEN * usual)
    if gaps.size:
        raise _gap(path, ordered, along[order], int(gaps[0]), usual)
    return ordered


def _gap(
    path: Path,
    ordered: Sequence[_Header],
    along: NDArray[np.float64],
    at: int,
    usual: float,
) -> ImageError:
    step = along[at + 1] - along[at]
    n_missing = max(0, round(step / usual) - 1)
    missing = f", so {n_missing} {'is' if n_missing == 1 else 'are'} missing"
    return ImageError(
        f"{path} has slices at uneven distances: {ordered[at].file.name} and "
        f"{ordered[at + 1].file.name}, at {along[at]:.5g} and {along[at + 1]:.5g} mm, "
        f"are {step:.4g} mm apart where {usual:.4g} mm is usual"
        f"{missing if n_missing else ''}; add the missing files, or put the slices on "
        "one side into a folder of their own.",
        path=str(path),
        gap=(ordered[at].file.name, ordered[at + 1].file.name),
        distance_mm=float(step),
        usual_mm=usual,
    )


def _frames(header: _Header) -> list[_Header]:
    """Give each frame of a file as if it were a file, numbered from 0.

    Raises
    ------
    ImageError
        If frames are rescaled differently, which GDCM does not do.
    """
    import pydicom

    tags = ["PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"]
    silence()
    data = pydicom.dcmread(
        header.file, stop_before_pixels=True, force=True, specific_tags=tags
    )
    per_frame, shared = (data.get(tag) or [] for tag in tags)
    if len(per_frame) != header.n_frames:
        return [replace(header, instance_number=i) for i in range(header.n_frames)]
    groups = [[frame, *shared] for frame in per_frame]
    rescaled = {
        tuple(
            _value(each, "PixelValueTransformationSequence", name)
            for name in ("RescaleSlope", "RescaleIntercept")
        )
        for each in groups
    }
    if len(rescaled) > 1:
        raise ImageError(
            f"{header.file} has frames that are rescaled differently, which cannot be "
            "read; convert it to files of one frame each.",
            path=str(header.file),
        )
    return [
        replace(
            header,
            instance_number=index,
            spacing=_numbers(_value(each, "PixelMeasuresSequence", "PixelSpacing"))
            or header.spacing,
            between=_value(each, "PixelMeasuresSequence", "SliceThickness"),
            position=_numbers(
                _value(each, "PlanePositionSequence", "ImagePositionPatient")
            ),
            orientation=_numbers(
                _value(each, "PlaneOrientationSequence", "ImageOrientationPatient")
            ),
        )
        for index, each in enumerate(groups)
    ]


def _value(groups: Sequence[Any], sequence: str, name: str) -> Any:
    """Give a value of the functional groups of a frame, None where it is not there."""
    for group in groups:
        for item in group.get(sequence) or []:
            if item.get(name) is not None:
                return item.get(name)
    return None


def _read(file: Path) -> tuple[NDArray[Any], Geometry]:
    """Read (y, x), of several frames (z, y, x), perhaps with colours, rescaled."""
    with reading_itk(file) as itk:
        image = itk.ReadImage(str(file))
        pixels, geometry = without_short_axes(pixels_of(itk, image), image, file)
    check_finite(pixels, str(file))
    return pixels, geometry


def _plane_geometry(header: _Header) -> Geometry:
    if len(header.spacing) != 2:
        return Geometry(("y", "x"), (1.0, 1.0))
    return Geometry(("y", "x"), header.spacing, "mm")


def _stack_geometry(slices: Sequence[_Header]) -> tuple[Geometry, list[str]]:
    first, last = slices[0], slices[-1]
    axes, notes = ("z", "y", "x"), []
    if len(first.spacing) != 2:
        return Geometry(axes, (1.0, 1.0, 1.0)), []
    if not first.has_place:
        if first.between is None:
            notes.append(
                "Its files do not say how far slices are apart; 1 mm is taken."
            )
        return Geometry(axes, (first.between or 1.0, *first.spacing), "mm"), notes
    way = np.subtract(last.position, first.position)
    length = float(np.linalg.norm(way))
    along_x, along_y = np.reshape(first.orientation, (2, 3))
    if np.abs(way / length - first.normal).max() > _CLOSE:
        notes.append(
            "Its slices are shifted against each other (tilted gantry); the geometry "
            "keeps this, but it is not shown."
        )
    geometry = Geometry(
        axes,
        (_rounded(length / (len(slices) - 1)), *first.spacing),
        "mm",
        tuple(first.position[::-1]),
        rows_of(np.stack([way / length, along_y, along_x])),
    )
    return geometry, notes
