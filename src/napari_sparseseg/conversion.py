"""Label maps and annotations of other programs, from file to file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.classes import ClassTable, read_class_table
from napari_sparseseg.errors import OutputError
from napari_sparseseg.io.annotation_files import read_annotations, read_labels
from napari_sparseseg.io.class_sizes import ClassSize, class_sizes
from napari_sparseseg.io.export import ExportOptions, export_labels
from napari_sparseseg.io.sources import open_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.io.geometry import Geometry
    from napari_sparseseg.io.named_classes import Overlap, Unknown

_DEFAULTS = ExportOptions()


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes
    ----------
    paths
        The labels, then the class table where the format has none inside.
    sizes
        How much there is of each class, and of what is not annotated.
    notes
        Sentences that the user should know.
    """

    paths: tuple[Path, ...]
    sizes: tuple[ClassSize, ...]
    notes: tuple[str, ...]


def export_file(
    labels: str | Path,
    out: str | Path,
    image: str | Path | None = None,
    *,
    series: str | None = None,
    classes: str | Path | None = None,
    values: Mapping[int, int] | None = None,
    options: ExportOptions = _DEFAULTS,
    overwrite: bool = False,
) -> Converted:
    """Write a label map in the format that the suffix of *out* names.

    Parameters
    ----------
    labels
        A label map of any kind that `read_labels` reads.
    out
        See `export_labels`.
    image
        The image they belong to: its place and pixel size count, and DICOM
        segmentations refer to its files. None: what the labels' own file says.
    series
        Which of several images in *image*.
    classes
        Class table; None = that of the labels.
    values
        Which class value each value of the file stands for; see `read_annotations`.
    options
        Of some formats; DICOM files are those of the image.
    overwrite
        Whether a file that is there may be replaced.

    Raises
    ------
    SparseSegError
        As of `read_annotations` and `export_labels`, or if *out* is there.
    """
    _check_free(Path(out), overwrite)
    if image is not None:
        return import_file(
            labels,
            image,
            out,
            series=series,
            classes=classes,
            values=values,
            unknown="add" if classes is None else "refuse",
            options=options,
            overwrite=overwrite,
        )
    table = None if classes is None else read_class_table(classes)
    found = read_labels(labels, table, values)
    own = table or found.classes
    if own is None:
        there = np.flatnonzero(np.bincount(found.labels.ravel()))
        own = ClassTable.from_values(there.tolist())
    return _written(found.labels, Path(out), own, found.geometry, options, ())


def import_file(
    annotations: str | Path,
    image: str | Path,
    out: str | Path,
    *,
    series: str | None = None,
    classes: str | Path | None = None,
    values: Mapping[int, int] | None = None,
    only: Sequence[str] = (),
    unknown: Unknown = "add",
    overlap: Overlap = "smaller",
    options: ExportOptions = _DEFAULTS,
    overwrite: bool = False,
) -> Converted:
    """Make a label map from annotations of any kind, on the pixels of their image.

    Parameters
    ----------
    annotations, values, only, unknown, overlap
        See `read_annotations`.
    image
        The image they were drawn on.
    classes
        Class table of the project.
    out, series, options, overwrite
        As of `export_file`.

    Raises
    ------
    SparseSegError
        As of `export_file`.
    """
    _check_free(Path(out), overwrite)
    table = None if classes is None else read_class_table(classes)
    source = open_image(image, series=series)
    found = read_annotations(
        annotations,
        source,
        table,
        values=values,
        only=only,
        unknown=unknown,
        overlap=overlap,
    )
    options = replace(options, dicom_files=source.files)
    return _written(
        found.labels, Path(out), found.classes, source.geometry, options, found.notes
    )


def _check_free(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise OutputError(
            f"{out} exists already; give another name, or --overwrite to replace it.",
            path=str(out),
        )


def _written(
    labels: NDArray[Any],
    out: Path,
    classes: ClassTable,
    geometry: Geometry,
    options: ExportOptions,
    notes: tuple[str, ...],
) -> Converted:
    export = export_labels(labels, out, classes, geometry, options)
    sizes = tuple(class_sizes(labels, classes, geometry))
    return Converted(export.paths, sizes, (*notes, *filter(None, [export.note])))
