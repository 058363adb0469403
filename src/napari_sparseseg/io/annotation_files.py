"""Annotations of other programs, read onto the pixels of an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sparseseg.annotations.classes import ClassTable, find_class_table
from napari_sparseseg.annotations.strokes import MAX_CLASS_VALUE, narrow_labels
from napari_sparseseg.errors import (
    ClassTableError,
    LabelError,
    OptionError,
    SparseSegError,
    enumerated,
)
from napari_sparseseg.io.dicom_labels import labels_of_segmentation
from napari_sparseseg.io.dicom_series import DICOM_ERRORS, is_dicom, silence
from napari_sparseseg.io.geojson import check_can_trace, labels_of_regions, read_geojson
from napari_sparseseg.io.geometry import WHOLE_SLIDE, Field, Geometry, Grid
from napari_sparseseg.io.images import IMAGE_SUFFIXES, read_label_map, stem_of
from napari_sparseseg.io.itk_labels import (
    classes_of_slicer,
    geometry_of,
    place_on,
    read_header,
)
from napari_sparseseg.io.named_classes import NamedClasses, Overlap, Unknown
from napari_sparseseg.io.optional import library
from napari_sparseseg.io.rtstruct import labels_of_structures
from napari_sparseseg.io.sources import ImageSource, open_image
from napari_sparseseg.io.tiff_labels import OME_SUFFIXES, classes_of_ome_tiff
from napari_sparseseg.io.zarr_labels import (
    classes_of_zarr,
    is_label_zarr,
    read_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_OUTLINE_SUFFIXES = (".geojson", ".json")
_SEGMENTATION, _STRUCTURES = "SEG", "RTSTRUCT"


class Annotations(NamedTuple):
    """Annotations as labels.

    Attributes
    ----------
    labels
        uint8 or uint16 of the shape of the image but for channels; 0 = not annotated.
    classes
        Of all values.
    notes
        Sentences that the user should know.
    """

    labels: NDArray[Any]
    classes: ClassTable
    notes: tuple[str, ...]


class LabelFile(NamedTuple):
    """A label map as it was read from a file.

    Attributes
    ----------
    labels
        (y, x), (z, y, x) or (t, z, y, x) uint8 or uint16; 0 = not annotated.
    geometry
        Where its pixels lie, of each time; in pixels where the file does not say.
    classes
        That the file has inside or beside it, None where neither.
    """

    labels: NDArray[Any]
    geometry: Geometry
    classes: ClassTable | None


def read_annotations(
    path: str | Path,
    image: ImageSource | Grid,
    classes: ClassTable | None = None,
    *,
    values: Mapping[int, int] | None = None,
    only: Sequence[str] = (),
    unknown: Unknown = "add",
    overlap: Overlap = "smaller",
    field: Field = WHOLE_SLIDE,
) -> Annotations:
    """Read annotations of any kind onto the pixels of their image.

    Regions with names (QuPath's GeoJSON, DICOM segmentations and structure sets, label
    maps with a class table) become the classes of these names. Label maps without names
    keep their values, and so do all where *classes* has none. Colour-coded masks need a
    class table with their colours.

    Parameters
    ----------
    path
        GeoJSON, a DICOM segmentation or RTSTRUCT file, or a label map: NIfTI, NRRD,
        MetaImage, TIFF, PNG, or an OME-Zarr folder.
    image
        The image, or its shape and geometry.
    classes
        Of the project; None = as the file has them.
    values
        Which class value each value of a label map stands for, as ``{0: 1, 1: 2}``
        where 0 is a class and not what was not annotated. All values must be named.
    only
        Names of the classes that are wished; empty = all.
    unknown
        Whether names and values without a class are added to *classes*, or refused.
    overlap
        Whether pixels in several classes get the smaller region's, no label, or are
        refused.
    field
        Where the image lies on the slide whose pixels GeoJSON counts.

    Returns
    -------
    Annotations
        Labels, classes and notes.

    Raises
    ------
    ImageError
        If a label map cannot be read, or a library that the format needs is missing.
    LabelError
        If the file is damaged or has no annotations, lies elsewhere than the image, or
        has a name or an overlap that is refused.
    ClassTableError
        If its classes do not go together with those given.
    OptionError
        If an option is none, or a name that is wished is not in the file.
    """
    file = Path(path)
    names = NamedClasses(classes or ClassTable(), unknown, only)
    about: dict[str, Any] = {"name": file.name, "overlap": overlap}
    kind = None if _is_outlines(file) else _dicom_kind(file)
    if _is_outlines(file):
        check_can_trace()
        shape = _grid_of(image).shape
        regions = read_geojson(file)
        labels, notes = labels_of_regions(regions, shape, names, field=field, **about)
    elif kind == _SEGMENTATION:
        grid = _patient_grid(image)
        labels, notes = labels_of_segmentation(file, grid, names, **about)
    elif kind is not None:
        grid = _patient_grid(image)
        structures = _read_dicom(file)
        labels, notes = labels_of_structures(structures, grid, names, **about)
    else:
        return _of_label_map(file, _grid_of(image), names, values, only)
    names.check_found(file.name)
    labels = labels.reshape(_grid_of(image).shape)
    return Annotations(labels, names.classes, (*notes, *names.notes))


def is_outline_file(path: Path) -> bool:
    """Tell whether a file is GeoJSON by its name."""
    return path.name.lower().endswith(".geojson") and path.is_file()


def is_dicom_annotation(path: Path) -> bool:
    """Tell whether a file is a DICOM segmentation or structure set."""
    try:
        return not _is_outlines(path) and _dicom_kind(path) is not None
    except SparseSegError:
        return False


def has_own_classes(path: Path) -> bool:
    """Tell whether a file is a label map by the class table beside or inside it."""
    if path.is_dir():
        return is_label_zarr(path)
    return path.with_name(f"{stem_of(path)}.classes.json").is_file()


def read_labels(
    path: str | Path,
    classes: ClassTable | None = None,
    values: Mapping[int, int] | None = None,
) -> LabelFile:
    """Read a label map of any kind.

    Parameters
    ----------
    path
        NIfTI, NRRD, MetaImage, TIFF, PNG, or an OME-Zarr folder.
    classes
        With the colours of a colour-coded mask.
    values
        Which class value each value of the file stands for; the file's own names are
        then left out. None: they stay as they are.

    Raises
    ------
    ImageError
        If the file cannot be read.
    LabelError
        If it holds no labels, or a value that *values* do not name.
    ClassTableError
        If its class table is damaged, or *values* name what can be no class value.
    """
    file = Path(path)
    found = _read_labels(file, classes)
    if values is None:
        return found._replace(labels=narrow_labels(found.labels, f"label map {file}"))
    return found._replace(labels=_mapped(found.labels, values, file), classes=None)


def _read_labels(file: Path, classes: ClassTable | None) -> LabelFile:
    if _is_outlines(file) and file.is_file():
        raise LabelError(
            f"{file} has outlines, no pixels; import it with the image they were drawn "
            "on.",
            path=str(file),
        )
    source = open_image(file, times=True)
    geometry = source.geometry
    if file.is_dir():
        own = classes_of_zarr(read_metadata(file))
        return LabelFile(_as_integers(np.asarray(source.data), file), geometry, own)
    own = find_class_table(file)
    if own is None and file.name.lower().endswith(OME_SUFFIXES):
        own = classes_of_ome_tiff(file)
    is_picture = file.name.lower().endswith(IMAGE_SUFFIXES)
    if is_picture and len(geometry.axes) == 2:
        return LabelFile(read_label_map(file, classes or own), geometry, own)
    if own is None and not is_picture:
        own = classes_of_slicer(read_header(file))
    return LabelFile(_as_integers(np.asarray(source.data), file), geometry, own)


def _of_label_map(
    file: Path,
    grid: Grid,
    names: NamedClasses,
    values: Mapping[int, int] | None,
    only: Sequence[str],
) -> Annotations:
    found = read_labels(file, names.classes if len(names.classes) else None, values)
    labels, own = found.labels, found.classes
    notes: list[str] = []
    if own is not None and len(names.classes):
        own.check_values(labels, f"label map {file}")
        meant = {each.value: names.value(each.name, each.color) for each in own}
        labels = _mapped(labels, {0: 0} | meant, file)
    elif own is not None:
        names.classes = own
    elif values is None and not labels.all():
        notes.append(
            f"0 in {file.name} is taken as not annotated; where it is a class, say "
            "which value each value stands for, as 0=1,1=2."
        )
    table = _with_values(names, labels)
    labels, told = place_on(labels, found.geometry, grid, file.name)
    if only:
        absent = [name for name in only if name not in table.names]
        if absent:
            raise OptionError(
                f"{file.name} has no {enumerated(absent)}; the classes are "
                f"{enumerated(table.names)}.",
                names=absent,
            )
        wished = [table.by_name(name).value for name in only]
        labels = np.where(np.isin(labels, wished), labels, 0).astype(labels.dtype)
    return Annotations(labels, table, (*notes, *told, *names.notes))


def _with_values(names: NamedClasses, labels: NDArray[Any]) -> ClassTable:
    """Return the classes, with those of values that have none yet if that is wished."""
    there = np.flatnonzero(np.bincount(labels.ravel())).tolist()
    missing = set(there) - {0, *names.classes.values}
    if not missing or names.refuses:
        names.classes.check_values(labels)
        return names.classes
    return names.classes.merged(ClassTable.from_values(missing))


def _mapped(
    labels: NDArray[Any], values: Mapping[int, int], file: Path
) -> NDArray[Any]:
    """Return labels in which each value became the one it stands for."""
    wrong = [each for each in values.values() if not 0 <= each <= MAX_CLASS_VALUE]
    if wrong:
        raise ClassTableError(
            f"{enumerated(wrong)} cannot be class values; give values from 1 to "
            f"{MAX_CLASS_VALUE}, or 0 for not annotated.",
            values=wrong,
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if highest - lowest > MAX_CLASS_VALUE:
        raise LabelError(
            f"{file.name} has values from {lowest} to {highest}, which are too many "
            "for classes; give labels, not an image.",
            lowest=lowest,
            highest=highest,
        )
    lookup = np.full(highest - lowest + 1, -1, np.int32)
    for value, meant in values.items():
        if lowest <= value <= highest:
            lookup[value - lowest] = meant
    # Of few bits the difference would not fit.
    found = lookup[labels.astype(np.int32) - lowest if lowest < 0 else labels - lowest]
    missing = np.unique(labels[found < 0]).tolist()
    if missing:
        raise LabelError(
            f"{file.name} has the values {enumerated(missing)}, for which no class "
            "value is given; give one for each, 0 for not annotated.",
            values=missing,
        )
    return narrow_labels(found)


def _as_integers(array: NDArray[Any], file: Path) -> NDArray[Any]:
    """Return labels that a program wrote as floats as integers, if they are such."""
    if array.dtype.kind != "f":
        return array
    whole = array.astype(np.int64)
    if not np.array_equal(whole, array):
        raise LabelError(
            f"{file} has values that are no whole numbers, as class values are; give "
            "labels, not an image or probabilities.",
            path=str(file),
        )
    return whole


def _is_outlines(file: Path) -> bool:
    return file.name.lower().endswith(_OUTLINE_SUFFIXES)


def _dicom_kind(file: Path) -> str | None:
    """Return the modality of annotations in a DICOM file, None of other files.

    Raises
    ------
    LabelError
        If it is a DICOM file of something else.
    """
    if not file.is_file():
        return None
    if not is_dicom(file):
        return None
    header = _read_dicom(file)
    modality = str(header.get("Modality", ""))
    if modality not in (_SEGMENTATION, _STRUCTURES):
        raise LabelError(
            f"{file} is a DICOM file of modality '{modality}', but annotations are SEG "
            "or RTSTRUCT; give such a file, and the images as the image.",
            path=str(file),
        )
    return modality


def _grid_of(image: ImageSource | Grid) -> Grid:
    if isinstance(image, Grid):
        return image
    return Grid(tuple(image.data.shape[: len(image.geometry.axes)]), image.geometry)


def _patient_grid(image: ImageSource | Grid) -> Grid:
    """Return (z, y, x) and where it lies, of a single DICOM plane as well."""
    grid = _grid_of(image)
    if (
        isinstance(image, ImageSource)
        and len(grid.shape) == 2
        and len(image.files) == 1
    ):
        return Grid((1, *grid.shape), geometry_of(read_header(image.files[0])))
    return grid


def _read_dicom(file: Path) -> Any:
    """Read a DICOM file but for its pixels.

    Raises
    ------
    LabelError
        If it is damaged.
    """
    pydicom = library("pydicom", "volumes", "DICOM files")
    try:
        silence()
        return pydicom.dcmread(file, stop_before_pixels=True, force=True)
    except DICOM_ERRORS as error:
        raise LabelError(
            f"{file} is a damaged DICOM file; export it anew from where it came from.",
            path=str(file),
        ) from error
