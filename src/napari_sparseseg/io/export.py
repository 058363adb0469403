"""Labels and boxes, written for other programs with their classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.boxes import check_box_classes, write_boxes
from napari_sparseseg.annotations.classes import read_class_table, write_class_table
from napari_sparseseg.annotations.strokes import narrow_labels
from napari_sparseseg.errors import (
    ClassTableError,
    LabelError,
    OptionError,
    OutputError,
)
from napari_sparseseg.io.atomic import write_atomically, write_folder_atomically
from napari_sparseseg.io.class_sizes import class_sizes, csv_of_sizes
from napari_sparseseg.io.dicom_labels import make_segmentation, read_headers
from napari_sparseseg.io.geojson import check_can_trace, write_geojson
from napari_sparseseg.io.geometry import WHOLE_SLIDE, Field
from napari_sparseseg.io.images import stem_of, write_png
from napari_sparseseg.io.itk_labels import simple_itk, write_itk
from napari_sparseseg.io.tiff_labels import write_ome_tiff, write_tiff
from napari_sparseseg.io.zarr_labels import is_label_zarr, write_ome_zarr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.io.geometry import Geometry
    from napari_sparseseg.io.sources import LazyArray

BOXES_SUFFIX = ".json"
"""Suffix of files of boxes."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes
    ----------
    paths
        The labels or boxes, then the class table where the format has none inside.
    note
        What the user should know about them, in sentences; empty where nothing.
    """

    paths: tuple[Path, ...]
    note: str = ""


@dataclass(frozen=True)
class ExportOptions:
    """What only some formats have a say in.

    Attributes
    ----------
    colors
        A PNG has the colours of the classes, transparent where not annotated, instead
        of their values.
    simplify_px
        How far in pixels a GeoJSON outline may lie from the exact one; 0 = exact.
    by_class
        All parts of a class are one GeoJSON object; else each part is one.
    field
        Where the labels lie on the slide that the GeoJSON is for.
    dicom_files
        The series that a DICOM segmentation belongs to, one file a plane, in the order
        of z.
    is_prediction
        A model made the labels, and not a user by hand; DICOM says so.
    """

    colors: bool = False
    simplify_px: float = 0.0
    by_class: bool = False
    field: Field = WHOLE_SLIDE
    dicom_files: tuple[Path, ...] = ()
    is_prediction: bool = False

    def __post_init__(self) -> None:
        """Refuse a distance that is none."""
        if not 0 <= self.simplify_px < math.inf:
            raise OptionError(
                f"outlines may be moved by {self.simplify_px} pixels; expected 0 or a "
                "positive number."
            )


_DEFAULTS = ExportOptions()


@dataclass(frozen=True, eq=False)
class _Job:
    """Labels that were checked, or a `LazyArray` of them, and where they go."""

    file: Path
    labels: Any
    classes: ClassTable
    geometry: Geometry | None
    options: ExportOptions


@dataclass(frozen=True)
class _Format:
    """A format of files.

    Attributes
    ----------
    suffixes
        In lower case.
    what
        What messages call a file of it.
    most_axes
        How many axes of labels it holds.
    prepare
        Checks whether it can hold the labels, and returns what writes them to a path.
    has_table
        Whether the class table is written beside the file.
    is_folder
        Whether it is one.
    in_parts
        Whether labels are written that are read part by part.
    """

    suffixes: tuple[str, ...]
    what: str
    most_axes: int
    prepare: Callable[[_Job], Callable[[Path], None]]
    has_table: bool = True
    is_folder: bool = False
    in_parts: bool = False


def export_labels(
    labels: ArrayLike,
    path: str | Path,
    classes: ClassTable,
    geometry: Geometry | None = None,
    options: ExportOptions = _DEFAULTS,
) -> Export:
    """Write labels with values unchanged, in the format that the suffix names.

    ``STEM.classes.json`` is written beside PNG, TIFF, NIfTI and NRRD. Whoever replaces
    labels replaces their class table too. The table of other labels, as ``case.tif``
    beside ``case.png``, is replaced only where all of its classes stay.

    Parameters
    ----------
    labels
        (y, x), (z, y, x) or (t, z, y, x) integers, 0 = not annotated.
    path
        Its suffix is one of

        - ``.png``: one plane, its palette being the colours of the classes, or 16 bits
          of grey where a value is above 255;
        - ``.tif``, ``.tiff``: all; the size of pixels is the resolution;
        - ``.ome.tif``, ``.ome.tiff``: all; sizes, place and classes in OME-XML;
        - ``.nii``, ``.nii.gz``: planes and volumes with their place in the patient;
        - ``.nrrd``: the same, with the segments of 3D Slicer;
        - ``.ome.zarr``: all; a pyramid with sizes, place and classes (OME-NGFF 0.5);
        - ``.geojson``: outlines of one plane for QuPath;
        - ``.dcm``: a DICOM segmentation, with ``dicom_files`` of the options;
        - ``.csv``: pixels, area or volume of each class.
    classes
        Of all values in the labels.
    geometry
        Of the image that the labels belong to; None = not known.
    options
        Of some formats.

    Returns
    -------
    Export
        The files.

    Raises
    ------
    LabelError
        If they are no labels, or have values without a class. Nothing was written.
    ImageError
        If a library that the format needs is not installed. Nothing was written.
    OutputError
        If the format cannot hold them, or the class table of other labels would be
        lost, and nothing was written, or a file cannot be written.
    """
    file = Path(path)
    array = narrow_labels(np.asarray(labels))
    kind = _format_of(file)
    _check_form(array, file, kind, geometry)
    classes.check_values(array)
    return _export(kind, _Job(file, array, classes, geometry, options))


def goes_in_parts(path: str | Path) -> bool:
    """Tell whether a format is written without all labels in memory at once."""
    return _format_of(Path(path)).in_parts


def export_in_parts(
    labels: LazyArray,
    path: str | Path,
    classes: ClassTable,
    geometry: Geometry | None,
    options: ExportOptions = _DEFAULTS,
) -> Export:
    """Write the labels of a prediction as `export_labels` does, part by part.

    Where :func:`goes_in_parts` denies the format, they are all read first.

    Parameters
    ----------
    labels
        (y, x) or (z, y, x) uint8 or uint16, of no other values than those of the
        classes and 0.
    path, classes, geometry, options
        As for `export_labels`.

    Raises
    ------
    ImageError, OutputError
        As `export_labels`.
    """
    file = Path(path)
    kind = _format_of(file)
    array: Any = labels if kind.in_parts else np.asarray(labels[...])
    _check_form(array, file, kind, geometry)
    return _export(kind, _Job(file, array, classes, geometry, options))


def _export(kind: _Format, job: _Job) -> Export:
    file, classes = job.file, job.classes
    if kind.has_table:
        _check_table(file, classes)
    write = kind.prepare(job)

    def write_with_classes(temporary: Path) -> None:
        write(temporary)
        # Before the rename, so that no labels are left without their classes.
        if kind.has_table:
            write_class_table(_table_path(file), classes)

    if kind.is_folder:
        write_folder_atomically(file, write_with_classes)
    else:
        write_atomically(file, write_with_classes, _suffix_of(file, kind))
    paths = (file, _table_path(file)) if kind.has_table else (file,)
    return Export(paths, _note(job))


def export_boxes(boxes: Sequence[Box], path: str | Path, classes: ClassTable) -> Export:
    """Write boxes as JSON, and ``STEM.classes.json`` beside them.

    Parameters
    ----------
    boxes
        Of one image.
    path
        ``.json``; see `write_boxes`.
    classes
        Of all boxes.

    Raises
    ------
    LabelError
        If a box has a class that is not in the table. Nothing was written.
    OutputError
        If the suffix is another one, or the class table of labels of that name would be
        lost, and nothing was written, or a file cannot be written.
    """
    file = Path(path)
    if file.suffix.lower() != BOXES_SUFFIX:
        raise OutputError(
            f"Boxes cannot be saved as {file.name}; give it the suffix {BOXES_SUFFIX}.",
            path=str(file),
        )
    check_box_classes(boxes, classes)
    _check_table(file, classes)
    # First, so that no boxes are left without their classes.
    write_class_table(_table_path(file), classes)
    write_boxes(file, boxes)
    return Export((file, _table_path(file)))


def _format_of(file: Path) -> _Format:
    for kind in _FORMATS:
        if file.name.lower().endswith(kind.suffixes):
            return kind
    raise OutputError(
        f"Labels cannot be exported as {file.name}; give it one of the suffixes "
        f"{', '.join(EXPORT_SUFFIXES)}.",
        path=str(file),
    )


def _suffix_of(file: Path, kind: _Format) -> str:
    return next(each for each in kind.suffixes if file.name.lower().endswith(each))


def _check_form(
    array: NDArray[Any], file: Path, kind: _Format, geometry: Geometry | None
) -> None:
    if not 2 <= array.ndim <= 4:
        raise LabelError(
            f"The labels have shape {array.shape}, but (y, x), (z, y, x) or "
            "(t, z, y, x) can be exported; choose a part of them.",
            shape=array.shape,
        )
    if array.ndim > kind.most_axes:
        holds = "one plane" if kind.most_axes == 2 else "one plane or volume"
        others = ".tif or .ome.zarr" if array.ndim == 4 else ".tif or .nii.gz"
        raise OutputError(
            f"A {kind.what} file holds {holds}, but the labels have shape "
            f"{array.shape}; export them as {others}, or part by part.",
            path=str(file),
            shape=array.shape,
        )
    if geometry is not None and len(geometry.axes) != min(array.ndim, 3):
        raise LabelError(
            f"The labels have shape {array.shape}, but their image has the axes "
            f"{', '.join(geometry.axes)}; give the image they belong to.",
            shape=array.shape,
        )


def _png(job: _Job) -> Callable[[Path], None]:
    if job.options.colors:
        colors = _colors_of_values(job)
        return lambda path: _write_colors(path, colors[job.labels])
    return lambda path: write_png(path, job.labels, job.classes)


def _colors_of_values(job: _Job) -> NDArray[np.uint8]:
    """Return (values, 4) RGBA, by which each value can be told from the others."""
    colors = np.zeros((int(job.labels.max()) + 1, 4), np.uint8)
    used = np.unique(job.labels)
    seen: dict[tuple[int, int, int], str] = {}
    for each in job.classes:
        if each.value in used:
            if each.color in seen:
                raise OutputError(
                    f"'{seen[each.color]}' and '{each.name}' have the same colour, so "
                    "that a picture could not tell them apart; change one of them, or "
                    "export values.",
                    color=each.color,
                )
            seen[each.color] = each.name
            colors[each.value] = (*each.color, 255)
    return colors


def _write_colors(path: Path, rgba: NDArray[np.uint8]) -> None:
    from PIL import Image

    Image.fromarray(rgba).save(path, format="PNG")


def _tiff(job: _Job) -> Callable[[Path], None]:
    return lambda path: write_tiff(path, job.labels, job.geometry)


def _ome_tiff(job: _Job) -> Callable[[Path], None]:
    return lambda path: write_ome_tiff(path, job.labels, job.classes, job.geometry)


def _volume(job: _Job) -> Callable[[Path], None]:
    simple_itk()
    return lambda path: write_itk(path, job.labels, job.geometry, job.classes)


def _ome_zarr(job: _Job) -> Callable[[Path], None]:
    if job.file.exists() and not is_label_zarr(job.file):
        raise OutputError(
            f"{job.file} exists and is no OME-Zarr of labels, but would be replaced; "
            "give another name.",
            path=str(job.file),
        )
    return lambda path: write_ome_zarr(path, job.labels, job.classes, job.geometry)


def _geojson(job: _Job) -> Callable[[Path], None]:
    check_can_trace()
    return lambda path: write_geojson(
        path,
        job.labels,
        job.classes,
        simplify_px=job.options.simplify_px,
        by_class=job.options.by_class,
        field=job.options.field,
    )


def _dicom(job: _Job) -> Callable[[Path], None]:
    if not job.options.dicom_files:
        raise OutputError(
            f"A DICOM segmentation such as {job.file.name} belongs to a DICOM series; "
            "give the series the labels were drawn on, or export to .nii.gz, and those "
            "of a slide to .geojson.",
            path=str(job.file),
        )
    made = make_segmentation(
        job.labels,
        job.classes,
        read_headers(job.options.dicom_files),
        job.geometry,
        is_prediction=job.options.is_prediction,
    )

    def save(path: Path) -> None:
        made.save_as(path)

    return save


def _csv(job: _Job) -> Callable[[Path], None]:
    text = csv_of_sizes(class_sizes(job.labels, job.classes, job.geometry))

    def write(path: Path) -> None:
        path.write_text(f"{text}\n", encoding="utf-8", newline="\n")

    return write


# The longer of two suffixes first.
_FORMATS = (
    _Format((".png",), "PNG", 2, _png),
    _Format((".ome.tif", ".ome.tiff"), "OME-TIFF", 4, _ome_tiff, in_parts=True),
    _Format((".tif", ".tiff"), "TIFF", 4, _tiff, in_parts=True),
    _Format((".nii.gz", ".nii"), "NIfTI", 3, _volume),
    _Format((".nrrd",), "NRRD", 3, _volume),
    _Format((".ome.zarr",), "OME-Zarr", 4, _ome_zarr, has_table=False, is_folder=True),
    _Format((".geojson",), "GeoJSON", 2, _geojson, has_table=False, in_parts=True),
    _Format((".dcm",), "DICOM", 3, _dicom, has_table=False),
    _Format((".csv",), "CSV", 4, _csv, has_table=False),
)

EXPORT_SUFFIXES = tuple(suffix for kind in _FORMATS for suffix in kind.suffixes)
"""Suffixes of files that labels can be exported to, in lower case."""

LAYER_SUFFIXES = tuple(each for each in EXPORT_SUFFIXES if each != ".dcm")
"""Those that need nothing but labels, classes and geometry."""

TABLE_SUFFIXES = tuple(
    suffix for kind in _FORMATS if kind.has_table for suffix in kind.suffixes
)
"""Those of files with the values of labels, which have the class table beside them."""


def _note(job: _Job) -> str:
    """Say what the file lacks."""
    name = job.file.name
    suffix = name.lower()
    notes = []
    if suffix.endswith(".png") and not job.options.colors and job.labels.max() > 255:
        notes.append(
            f"{name} is in 16 bits of grey, since a palette holds values up to 255 "
            "alone; the colours stand in the class table beside it."
        )
    if suffix.endswith((".nii", ".nii.gz", ".nrrd", ".csv")) and (
        job.geometry is None or job.geometry.unit == "px"
    ):
        lack = "has no areas" if suffix.endswith(".csv") else "says 1 mm for each"
        notes.append(f"{name} {lack}, since the size of pixels is not known.")
    if (
        suffix.endswith((".tif", ".tiff", ".zarr"))
        and job.geometry is not None
        and job.geometry.direction is not None
    ):
        notes.append(
            f"{name} cannot say how the volume lies in the patient; .nii.gz and .nrrd "
            "can."
        )
    return " ".join(notes)


def _check_table(file: Path, classes: ClassTable) -> None:
    """Refuse to replace the class table of other labels, unless nothing is lost."""
    table = _table_path(file)
    if not table.exists() or (file.exists() and not _same_stem(file)):
        return
    try:
        stays = set(read_class_table(table)) <= set(classes)
    except ClassTableError:
        stays = False
    if not stays:
        others = ", ".join(other.name for other in _same_stem(file))
        raise OutputError(
            f"{table} has other classes{others and f', and is of {others} too'}; give "
            f"the file another name than {file.name}, or move that table away.",
            path=str(table),
        )


def _same_stem(file: Path) -> list[Path]:
    """List the other files that may be labels with the same class table."""
    return sorted(
        other
        for other in file.parent.iterdir()
        if other.name.lower().endswith(TABLE_SUFFIXES)
        and stem_of(other) == _stem_of(file)
        and other.name != file.name
    )


def _table_path(file: Path) -> Path:
    return file.with_name(f"{_stem_of(file)}.classes.json")


def _stem_of(file: Path) -> str:
    return file.stem if file.suffix.lower() == BOXES_SUFFIX else stem_of(file)
