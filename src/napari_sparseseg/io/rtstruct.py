"""Contours of DICOM RTSTRUCT files, filled on the planes of an image.

https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.8.8.6.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import LabelError, shortened
from napari_sparseseg.io.dicom_series import DICOM_ERRORS, silence
from napari_sparseseg.io.named_classes import LabelPainter, check_any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import Color
    from napari_sparseseg.io.geometry import Grid
    from napari_sparseseg.io.named_classes import NamedClasses, Overlap

    _Structure = tuple[str, Color | None, list[tuple[str, NDArray[np.float64]]]]

#: How far from one plane, in planes, the points of a contour may lie.
_MOST_TILT = 0.1


def labels_of_structures(
    dataset: Any, grid: Grid, names: NamedClasses, *, name: str, overlap: Overlap
) -> tuple[NDArray[Any], list[str]]:
    """Fill the contours of structures: pixels whose centre is within get the value.

    Contours of a structure in one plane count by turns, so that one within another is
    a hole; a channel that joins both, the standard's keyhole, has no width and counts
    for nothing. A contour belongs to the plane nearest to it; between contours nothing
    is filled in.

    Parameters
    ----------
    dataset
        The RTSTRUCT file, as pydicom reads it.
    grid
        Of the image: (z, y, x) with a direction.
    names
        The classes.
    name
        What messages call the file.
    overlap
        What pixels in structures of several classes get.

    Returns
    -------
    tuple
        (z, y, x) uint8 or uint16, and sentences for the user.

    Raises
    ------
    LabelError
        If it is not known where the image lies, contours are tilted against its planes,
        or none lies within.
    """
    if grid.geometry.direction is None or len(grid.shape) != 3:
        raise LabelError(
            f"The contours of {name} lie in a patient, but of the image it is not "
            "known where it lies; give the DICOM series they were drawn on.",
            name=name,
        )
    to_index = np.linalg.inv(grid.geometry.lengths("mm").affine)
    painter = LabelPainter(grid.shape, overlap)
    n_open, n_outside, values = 0, 0, []
    for structure, color, contours in _read_structures(dataset, name):
        value = names.value(structure, color)
        if not value:
            continue
        values.append(value)
        region = np.zeros(grid.shape, bool)
        for kind, points in contours:
            if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                n_open += 1
                continue
            indices = points @ to_index[:3, :3].T + to_index[:3, 3]
            plane = _plane_of(indices, structure)
            if not 0 <= plane < grid.shape[0]:
                n_outside += 1
                continue
            region[plane] ^= fill(indices[:, 1:], grid.shape[1:])
        painter.paint(value, region)
    check_any(painter.labels, name, values)
    labels, notes = painter.finish(name)
    for n, what in (
        (n_open, "are points or open lines, left out"),
        (n_outside, "lie outside of the image's planes"),
    ):
        if n:
            notes.append(f"{n} contours of {name} {what}.")
    return labels, notes


def fill(points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Fill a closed line by the even-odd rule.

    Parameters
    ----------
    points
        (n, 2) rows (y, x), pixel centres being at whole numbers.
    shape
        (y, x) of the plane.

    Returns
    -------
    ndarray
        (y, x) bool: which pixel centres have an odd number of crossings to their left.
    """
    height, width = shape
    turns = np.zeros((height, width + 1), bool)
    for (y0, x0), (y1, x1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = sorted((y0, y1))
        rows = np.arange(max(np.ceil(low), 0), min(np.ceil(high), height), dtype=int)
        if rows.size:
            crossings = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
            turns[rows, np.ceil(crossings).clip(0, width).astype(int)] ^= True
    filled: NDArray[np.bool_] = np.logical_xor.accumulate(turns, axis=1)[:, :width]
    return filled


def _read_structures(dataset: Any, name: str) -> list[_Structure]:
    try:
        silence()
        return _structures(dataset)
    # pydicom reads values when they are asked for, and raises whatever they lead to.
    except DICOM_ERRORS as error:
        raise LabelError(
            f"{name} is damaged, or lacks what contours need "
            f"({shortened(str(error))}); export it anew from where it came from.",
            name=name,
        ) from error


def _structures(dataset: Any) -> list[_Structure]:
    """Return name, colour and contours, kind and (n, 3) places, of each structure."""
    named = {
        roi.ROINumber: str(roi.get("ROIName", "")).strip() or f"ROI {roi.ROINumber}"
        for roi in dataset.StructureSetROISequence
    }
    found = []
    for each in dataset.ROIContourSequence:
        color = each.get("ROIDisplayColor")
        contours = [
            (
                str(contour.ContourGeometricType),
                np.reshape(np.array(contour.ContourData, float), (-1, 3)),
            )
            for contour in each.get("ContourSequence", ())
        ]
        red, green, blue = map(int, color or (0, 0, 0))
        rgb = (red, green, blue) if color else None
        found.append((named[each.ReferencedROINumber], rgb, contours))
    return found


def _plane_of(indices: NDArray[np.float64], structure: str) -> int:
    planes = indices[:, 0]
    if np.ptp(planes) > _MOST_TILT:
        raise LabelError(
            f"A contour of '{structure}' is tilted against the planes of the image; "
            "give the series it was drawn on.",
            name=structure,
        )
    return int(np.round(planes.mean()))
