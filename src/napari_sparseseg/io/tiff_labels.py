"""Label maps in TIFF and OME-TIFF files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.io.geometry import UM_PER_UNIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.io.geometry import Geometry
    from napari_sparseseg.io.sources import LazyArray

CLASSES_NAMESPACE = "napari-sparseseg/classes"
"""Of the annotation of OME-XML that has the names and colours of classes."""

AXES = "TZYX"
"""Of label maps with four axes; of others the last ones."""


TILE = 512
"""Side of the tiles of large label maps in pixels."""


def write_tiff(
    path: Path, labels: NDArray[Any] | LazyArray, geometry: Geometry | None
) -> None:
    """Write a label map with its values unchanged.

    Parameters
    ----------
    path
        The file.
    labels
        (y, x), (z, y, x) or (t, z, y, x) uint8 or uint16; what is no array of numpy is
        read by rows of tiles.
    geometry
        The size of pixels in a plane goes into the resolution, in pixels per
        centimetre; that of planes into the description, as ``spacing`` and ``unit``.
    """
    from tifffile import imwrite

    metadata: dict[str, Any] = {"axes": AXES[-labels.ndim :]}
    resolution: dict[str, Any] = {}
    if geometry is not None and geometry.unit != "px":
        um = np.multiply(geometry.spacing, UM_PER_UNIT[geometry.unit])
        resolution = {
            "resolution": (1e4 / um[-1], 1e4 / um[-2]),
            "resolutionunit": "CENTIMETER",
        }
        if labels.ndim > 2:
            metadata |= {"spacing": um[-3], "unit": "um"}
    imwrite(
        path,
        **_content(labels),
        photometric="minisblack",
        compression="zlib",
        metadata=metadata,
        **resolution,
    )


def write_ome_tiff(
    path: Path,
    labels: NDArray[Any] | LazyArray,
    classes: ClassTable,
    geometry: Geometry | None,
) -> None:
    """Write a label map with sizes, place and classes in OME-XML.

    Names and colours of the classes are map annotations, by value: one of the namespace
    `CLASSES_NAMESPACE` has the names, one with ``/colors`` at its end the colours, as
    ``#rrggbb``. Physical sizes and the position of planes are in micrometres.

    Parameters
    ----------
    path
        The file.
    labels
        (y, x), (z, y, x) or (t, z, y, x) uint8 or uint16; what is no array of numpy is
        read by rows of tiles.
    classes
        Of all values.
    geometry
        Where the pixels lie; without a unit no physical size is written.
    """
    from tifffile import imwrite

    axes = AXES[-labels.ndim :]
    metadata: dict[str, Any] = {
        "axes": axes,
        "MapAnnotation": [
            {
                "Namespace": CLASSES_NAMESPACE,
                "Value": {str(each.value): each.name for each in classes},
            },
            {
                "Namespace": f"{CLASSES_NAMESPACE}/colors",
                "Value": {str(each.value): _hex(each.color) for each in classes},
            },
        ],
    }
    if geometry is not None and geometry.unit != "px":
        metadata |= _physical(labels.shape, geometry.lengths("um"))
    imwrite(
        path,
        **_content(labels),
        ome=True,
        photometric="minisblack",
        compression="zlib",
        metadata=metadata,
    )


def _content(labels: NDArray[Any] | LazyArray) -> dict[str, Any]:
    """Return what tells tifffile of the pixels; of large planes they are tiles."""
    if isinstance(labels, np.ndarray):
        is_large = min(labels.shape[-2:]) >= TILE
        return {"data": labels, "tile": (TILE, TILE) if is_large else None}
    return {
        "data": _iter_tiles(labels),
        "shape": labels.shape,
        "dtype": labels.dtype,
        "tile": (TILE, TILE),
    }


def _iter_tiles(labels: LazyArray) -> Iterator[NDArray[Any]]:
    """Give the tiles of each plane, row by row; at the far edges zeros fill them."""
    *planes, height, width = labels.shape
    for index in np.ndindex(*planes):
        for y in range(0, height, TILE):
            rows = np.asarray(labels[(*index, slice(y, min(y + TILE, height)))])
            for x in range(0, width, TILE):
                tile = np.zeros((TILE, TILE), labels.dtype)
                part = rows[:, x : x + TILE]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile


def _physical(shape: tuple[int, ...], geometry: Geometry) -> dict[str, Any]:
    """Return sizes and the position of each plane in micrometres."""
    found: dict[str, Any] = {}
    for axis, size in zip(geometry.axes, geometry.spacing, strict=True):
        found[f"PhysicalSize{axis.upper()}"] = size
        found[f"PhysicalSize{axis.upper()}Unit"] = "µm"
    n_planes = int(np.prod(shape[:-2]))
    plane: dict[str, Any] = {}
    for axis, place in zip(geometry.axes, geometry.origin, strict=True):
        places = np.full(n_planes, place)
        if axis == "z":
            n_z = shape[-3]
            places += np.arange(n_planes) % n_z * geometry.spacing[0]
        plane[f"Position{axis.upper()}"] = places.tolist()
        plane[f"Position{axis.upper()}Unit"] = ["µm"] * n_planes
    return found | {"Plane": plane}


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
