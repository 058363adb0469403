"""How much of each class a label map has: pixels, areas and volumes."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.io.geometry import Geometry

NOT_ANNOTATED = "not annotated"


@dataclass(frozen=True)
class ClassSize:
    """How much of a class there is.

    Attributes
    ----------
    value
        Of the class; 0 = not annotated.
    name
        Of the class.
    pixels
        Of all planes.
    area_um2, volume_mm3
        Of a plane, and of a volume; None where there is no such thing, or the size of
        pixels is not known.
    """

    value: int
    name: str
    pixels: int
    area_um2: float | None
    volume_mm3: float | None


def class_sizes(
    labels: NDArray[Any], classes: ClassTable, geometry: Geometry | None
) -> list[ClassSize]:
    """Measure every class of a label map, and what is not annotated.

    Parameters
    ----------
    labels
        (y, x) for areas, (z, y, x) for volumes, (t, z, y, x) for pixels alone; uint8 or
        uint16.
    classes
        Of all values.
    geometry
        Where the pixels lie; None = not known.

    Returns
    -------
    list of ClassSize
        Not annotated first, then by ascending value; classes without a pixel too.
    """
    counts = np.bincount(labels.ravel(), minlength=max([0, *classes.values]) + 1)
    um2 = mm3 = None
    if geometry is not None and geometry.unit != "px":
        if labels.ndim == 2:
            um2 = float(np.prod(geometry.lengths("um").spacing))
        elif labels.ndim == 3:
            mm3 = float(np.prod(geometry.lengths("mm").spacing))
    named = [(0, NOT_ANNOTATED), *classes.named_values]
    return [
        ClassSize(
            value,
            name,
            n := int(counts[value]),
            None if um2 is None else n * um2,
            None if mm3 is None else n * mm3,
        )
        for value, name in named
    ]


def csv_of_sizes(sizes: list[ClassSize]) -> str:
    """Return a table for spreadsheets: value, class, pixels, um2, mm2, mm3 and ml.

    Cells of what is not known are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("value", "class", "pixels", "area_um2", "area_mm2", "volume_mm3", "volume_ml")
    )
    for each in sizes:
        lengths = (
            (each.area_um2, 1.0),
            (each.area_um2, 1e-6),
            (each.volume_mm3, 1.0),
            (each.volume_mm3, 1e-3),
        )
        cells = ("" if n is None else f"{n * factor:.10g}" for n, factor in lengths)
        writer.writerow((each.value, each.name, each.pixels, *cells))
    return text.getvalue().rstrip("\n")
