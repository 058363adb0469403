"""Label maps as OME-Zarr: zarr 3, metadata of OME-NGFF 0.5.

https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.classes import ClassTable, LabelClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.io.geometry import Geometry

VERSION = "0.5"

_UNITS = {"um": "micrometer", "mm": "millimeter"}
_CHUNK_PX = 512

#: Levels get coarser until no side of a plane is longer.
COARSEST_SIDE = 1024


def write_ome_zarr(
    path: Path, labels: NDArray[Any], classes: ClassTable, geometry: Geometry | None
) -> None:
    """Write a label map as an OME-Zarr folder with a pyramid.

    Each coarser level has every second pixel of the one before along y and x, so that
    no value is made up, until a plane fits 1024 x 1024.

    Parameters
    ----------
    path
        The folder, which does not exist yet.
    labels
        (y, x), (z, y, x) or (t, z, y, x) uint8 or uint16.
    classes
        Of all values.
    geometry
        Where the pixels lie; None = not known.
    """
    import zarr

    levels = [labels]
    while max(levels[-1].shape[-2:]) > COARSEST_SIDE:
        levels.append(levels[-1][..., ::2, ::2])
    ome = label_metadata(labels.ndim, classes, geometry, len(levels))
    group = zarr.open_group(path, mode="w", attributes={"ome": ome})
    for number, level in enumerate(levels):
        sides = (min(_CHUNK_PX, size) for size in level.shape[-2:])
        array = group.create_array(
            str(number),
            shape=level.shape,
            dtype=level.dtype,
            chunks=(1,) * (level.ndim - 2) + tuple(sides),
            dimension_names=dimension_names(level.ndim),
        )
        # Of all chunks at once some would still be written after one has failed.
        for block in iter_blocks(array.shape, array.chunks):
            array[block] = level[block]


def iter_blocks(
    shape: tuple[int, ...], chunks: tuple[int, ...]
) -> Iterator[tuple[slice, ...]]:
    """Cut an array into its chunks."""
    starts = (range(0, n, step) for n, step in zip(shape, chunks, strict=True))
    for corner in product(*starts):
        yield tuple(
            slice(start, min(start + step, n))
            for start, step, n in zip(corner, chunks, shape, strict=True)
        )


def label_metadata(
    n_axes: int,
    classes: ClassTable,
    geometry: Geometry | None,
    n_levels: int,
    step: int = 2,
) -> dict[str, Any]:
    """Return the metadata of a label image: axes, places and classes.

    Parameters
    ----------
    n_axes
        Of the label map: y, x and before them z and t.
    classes
        Their names are properties, beside that 0 is not annotated.
    geometry
        Of the finest level; None = not known.
    n_levels
        Arrays ``"0"``, ``"1"`` ..., the finest first. The first pixels of all levels
        have the same centre.
    step
        How many pixels of a level lie between two of the next along y and x.

    Returns
    -------
    dict
        The content of ``ome`` in the attributes of the group.
    """
    unit = _UNITS.get("px" if geometry is None else geometry.unit)
    axes = [
        {"name": name, "type": "time" if name == "t" else "space"}
        | ({"unit": unit} if unit is not None and name != "t" else {})
        for name in dimension_names(n_axes)
    ]
    return {
        "version": VERSION,
        "multiscales": [
            {
                "name": "labels",
                "axes": axes,
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": _transformations(
                            n_axes, geometry, step**level
                        ),
                    }
                    for level in range(n_levels)
                ],
            }
        ],
        "image-label": {
            "colors": [
                {"label-value": 0, "rgba": [0, 0, 0, 0]},
                *(
                    {"label-value": each.value, "rgba": [*each.color, 255]}
                    for each in classes
                ),
            ],
            "properties": [
                {"label-value": 0, "name": "not annotated"},
                *({"label-value": each.value, "name": each.name} for each in classes),
            ],
        },
    }


def classes_of_zarr(ome: Any) -> ClassTable | None:
    """Return the classes of a label image's metadata, None where it has no names.

    Raises
    ------
    ClassTableError
        If names or values occur twice.
    """
    about = ome.get("image-label", {})
    colors = {each["label-value"]: each["rgba"] for each in about.get("colors", ())}
    found = [
        LabelClass(
            each["label-value"],
            each["name"],
            tuple(colors.get(each["label-value"], (128, 128, 128))[:3]),
        )
        for each in about.get("properties", ())
        if each["label-value"] != 0 and "name" in each
    ]
    return ClassTable(tuple(found)) if found else None


def is_label_zarr(path: Path) -> bool:
    """Tell whether a folder is an OME-Zarr label image."""
    try:
        about = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "image-label" in about.get("attributes", {}).get("ome", {})


def read_metadata(path: Path) -> dict[str, Any]:
    """Read what OME-Zarr says of an image, {} of plain arrays and groups of images."""
    import zarr

    attributes: dict[str, Any] = dict(zarr.open(path, mode="r").attrs)
    ome: dict[str, Any] = attributes.get("ome", attributes)
    return ome


def dimension_names(n_axes: int) -> Sequence[str]:
    """Return the names of the axes of a label map."""
    return ("t", "z", "y", "x")[-n_axes:]


def _transformations(
    n_axes: int, geometry: Geometry | None, factor: int
) -> list[dict[str, Any]]:
    """Return scale and translation of a level, *factor* times coarser in y and x."""
    scale, translation = np.ones(n_axes), np.zeros(n_axes)
    if geometry is not None:
        scale[-len(geometry.axes) :] = geometry.spacing
        translation[-len(geometry.axes) :] = geometry.origin
    scale[-2:] *= factor
    return [
        {"type": "scale", "scale": scale.tolist()},
        {"type": "translation", "translation": translation.tolist()},
    ]
