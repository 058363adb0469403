"""Label maps as OME-Zarr 0.5: chunks, coarser levels, and what classes mean.

A store is made, filled chunk by chunk by whoever computes the labels, and finished:
coarser levels and metadata come last. Its root is the pyramid of the labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import zarr
    from numpy.typing import DTypeLike

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.io.geometry import Geometry

#: Version of the format that is written.
VERSION = "0.5"

#: Where the store keeps what OME-Zarr has no word for.
OWN_ATTRIBUTES = "napari-sparseseg"

#: Levels get coarser until no side in the plane is longer.
COARSEST_SIDE = 1024

#: Names of units in OME-Zarr; pixels have none.
UNIT_NAMES = {"um": "micrometer", "mm": "millimeter"}


def create_label_store(
    path: str | Path, shape: tuple[int, ...], dtype: DTypeLike, chunks: tuple[int, ...]
) -> zarr.Array[Any]:
    """Make a store with the finest level alone, all zeros.

    Parameters
    ----------
    path
        Of the folder to be made.
    shape, chunks
        (y, x) or (z, y, x) of the labels, and of a chunk.
    dtype
        uint8 or uint16.

    Returns
    -------
    zarr.Array
        Of which each chunk written is a file, see :func:`chunk_path`, zeros too.
    """
    import zarr

    zarr.create_group(path, zarr_format=3)
    return zarr.create_array(
        Path(path) / "0",
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def open_labels(path: str | Path) -> zarr.Array[Any]:
    """Open the finest level to go on writing it."""
    import zarr

    return zarr.open_array(
        Path(path) / "0", mode="r+", config={"write_empty_chunks": True}
    )


def chunk_path(path: str | Path, place: tuple[int, ...]) -> Path:
    """Return the file of a chunk of the finest level, by its place in the grid."""
    return Path(path, "0", "c", *map(str, place))


def finish_label_store(
    path: str | Path, classes: ClassTable, geometry: Geometry
) -> None:
    """Add the coarser levels and the metadata.

    A pixel of a coarser level has the value of the first of its 2 x 2 finer ones: each
    value is one that occurs there. A z axis keeps its length. Memory is taken for four
    chunks at a time.

    Parameters
    ----------
    path
        Of :func:`create_label_store`.
    classes
        Of the values; 0 is not labelled.
    geometry
        Of the finest level.
    """
    import zarr

    group = zarr.open_group(path, mode="r+")
    n_levels = 1
    finer = _level(group, 0)
    while max(finer.shape[-2:]) > COARSEST_SIDE:
        finer = _add_level(group, n_levels, finer)
        n_levels += 1
    group.attrs["ome"] = {
        "version": VERSION,
        "multiscales": [_multiscale(geometry, n_levels)],
        "image-label": _image_label(classes),
    }
    own: dict[str, Any] = {"classes": classes.to_json()}
    if geometry.direction is not None:
        own["direction_lps"] = [list(row) for row in geometry.direction]
    group.attrs[OWN_ATTRIBUTES] = own


def _level(group: zarr.Group, number: int) -> zarr.Array[Any]:
    import zarr

    level = group[str(number)]
    assert isinstance(level, zarr.Array)
    return level


def _add_level(
    group: zarr.Group, number: int, finer: zarr.Array[Any]
) -> zarr.Array[Any]:
    shape = (*finer.shape[:-2], *(-(-side // 2) for side in finer.shape[-2:]))
    coarser = group.create_array(
        str(number),
        shape=shape,
        dtype=finer.dtype,
        chunks=tuple(map(min, finer.chunks, shape)),
        fill_value=0,
        overwrite=True,
    )
    for block in _blocks(shape, coarser.chunks):
        *planes, y, x = block
        fine = (*planes, *(slice(2 * each.start, 2 * each.stop) for each in (y, x)))
        coarser[block] = finer[fine][..., ::2, ::2]
    return coarser


def _blocks(
    shape: tuple[int, ...], chunks: tuple[int, ...]
) -> Iterator[tuple[slice, ...]]:
    """Cut an array into its chunks."""
    from itertools import product

    starts = (range(0, n, step) for n, step in zip(shape, chunks, strict=True))
    for corner in product(*starts):
        yield tuple(
            slice(start, min(start + step, n))
            for start, step, n in zip(corner, chunks, shape, strict=True)
        )


def _multiscale(geometry: Geometry, n_levels: int) -> dict[str, Any]:
    unit = UNIT_NAMES.get(geometry.unit)
    axes = [
        {"name": name, "type": "space"} | ({"unit": unit} if unit else {})
        for name in geometry.axes
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": _transformations(geometry, 2**level),
        }
        for level in range(n_levels)
    ]
    return {"name": "labels", "axes": axes, "datasets": datasets, "type": "nearest"}


def _transformations(geometry: Geometry, factor: int) -> list[dict[str, Any]]:
    """Return scale and place of a level whose pixels are *factor* times as wide."""
    factors = [*[1] * (len(geometry.axes) - 2), factor, factor]
    scale = [step * n for step, n in zip(geometry.spacing, factors, strict=True)]
    # A coarse pixel covers n fine ones, so its centre lies between theirs.
    translation = [
        start + step * (n - 1) / 2
        for start, step, n in zip(
            geometry.origin, geometry.spacing, factors, strict=True
        )
    ]
    return [
        {"type": "scale", "scale": scale},
        {"type": "translation", "translation": translation},
    ]


def _image_label(classes: ClassTable) -> dict[str, Any]:
    return {
        "colors": [
            {"label-value": 0, "rgba": [0, 0, 0, 0]},
            *(
                {"label-value": each.value, "rgba": [*each.color, 255]}
                for each in classes
            ),
        ],
        "properties": [
            {"label-value": 0, "name": "not labelled"},
            *({"label-value": each.value, "name": each.name} for each in classes),
        ],
    }
