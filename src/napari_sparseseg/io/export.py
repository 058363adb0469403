"""Labels and boxes, written for other programs with their classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sparseseg.annotations.boxes import check_box_classes, write_boxes
from napari_sparseseg.annotations.classes import read_class_table, write_class_table
from napari_sparseseg.annotations.strokes import narrow_labels
from napari_sparseseg.errors import ClassTableError, LabelError, OutputError
from napari_sparseseg.io.atomic import write_atomically
from napari_sparseseg.io.images import stem_of, write_label_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.annotations.classes import ClassTable

EXPORT_SUFFIXES = (".png", ".tif", ".tiff")
"""Suffixes of files that labels can be exported to, in lower case."""

BOXES_SUFFIX = ".json"
"""Suffix of files of boxes."""

_STACK_AXES = "TZYX"


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes
    ----------
    paths
        The labels or boxes, then the class table.
    note
        What the user should know about them, one sentence; empty where nothing.
    """

    paths: tuple[Path, Path]
    note: str = ""


def export_labels(labels: ArrayLike, path: str | Path, classes: ClassTable) -> Export:
    """Write labels with values unchanged, and ``STEM.classes.json`` beside them.

    Whoever replaces labels replaces their class table too. The table of other labels,
    as ``case.tif`` beside ``case.png``, is replaced only where all of its classes stay.

    Parameters
    ----------
    labels
        (y, x), (z, y, x) or (t, z, y, x) integers, 0 = not annotated.
    path
        ``.png`` holds one plane, its palette being the colours of the classes, or 16
        bits of grey where a value is above 255; ``.tif`` and ``.tiff`` hold all.
    classes
        Of all values in the labels.

    Returns
    -------
    Export
        The files.

    Raises
    ------
    LabelError
        If they are no labels, or have values without a class. Nothing was written.
    OutputError
        If the format cannot hold them, or the class table of other labels would be
        lost, and nothing was written, or a file cannot be written.
    """
    file = Path(path)
    array = narrow_labels(np.asarray(labels), "labels")
    _check_form(array, file)
    classes.check_values(array, "labels")
    _check_table(file, classes)
    if array.ndim == 2:
        write_label_map(file, array, classes)
    else:
        _write_stack(file, array, classes)
    in_grey = file.suffix.lower() == ".png" and int(array.max()) > 255
    note = (
        f"{file.name} is in 16 bits of grey, since a palette holds values up to 255 "
        "alone; the colours stand in the class table beside it."
        if in_grey
        else ""
    )
    return Export((file, _table_path(file)), note)


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


def _check_form(array: NDArray[np.uint8] | NDArray[np.uint16], file: Path) -> None:
    suffix = file.suffix.lower()
    if suffix not in EXPORT_SUFFIXES:
        raise OutputError(
            f"Labels cannot be exported as {file.name}; give it one of the suffixes "
            f"{', '.join(EXPORT_SUFFIXES)}.",
            path=str(file),
        )
    if not 2 <= array.ndim <= 4:
        raise LabelError(
            f"The labels have shape {array.shape}, but (y, x), (z, y, x) or "
            "(t, z, y, x) can be exported; choose a part of them.",
            shape=array.shape,
        )
    if suffix == ".png" and array.ndim > 2:
        raise OutputError(
            f"A PNG file holds one plane, but the labels have shape {array.shape}; "
            "export them as .tif, or plane by plane.",
            path=str(file),
            shape=array.shape,
        )


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
        if other.name.lower().endswith(EXPORT_SUFFIXES)
        and stem_of(other) == _stem_of(file)
        and other.name != file.name
    )


def _write_stack(
    file: Path, array: NDArray[np.uint8] | NDArray[np.uint16], classes: ClassTable
) -> None:
    from tifffile import imwrite

    def write(temporary: Path) -> None:
        imwrite(
            temporary,
            array,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": _STACK_AXES[-array.ndim :]},
        )
        # Before the rename, so that no labels are left without their classes.
        write_class_table(_table_path(file), classes)

    write_atomically(file, write)


def _table_path(file: Path) -> Path:
    return file.with_name(f"{_stem_of(file)}.classes.json")


def _stem_of(file: Path) -> str:
    return file.stem if file.suffix.lower() == BOXES_SUFFIX else stem_of(file)
