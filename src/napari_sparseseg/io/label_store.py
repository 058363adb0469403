"""Label maps larger than memory: an OME-Zarr that is filled chunk by chunk.

A store is made, filled by whoever computes the labels, and finished: coarser levels and
metadata come last. Its root is the pyramid of the labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.io.zarr_labels import (
    COARSEST_SIDE,
    dimension_names,
    iter_blocks,
    label_metadata,
)

if TYPE_CHECKING:
    import zarr
    from numpy.typing import DTypeLike

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.io.geometry import Geometry


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
        dimension_names=dimension_names(len(shape)),
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

    Each coarser level has every second pixel of the one before along y and x, as
    :func:`~napari_sparseseg.io.zarr_labels.write_ome_zarr` has it. Memory is taken for
    four chunks at a time.

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
    finer = zarr.open_array(Path(path) / "0", mode="r")
    n_levels = 1
    while max(finer.shape[-2:]) > COARSEST_SIDE:
        finer = _add_level(group, n_levels, finer)
        n_levels += 1
    group.attrs["ome"] = label_metadata(finer.ndim, classes, geometry, n_levels)


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
        dimension_names=dimension_names(len(shape)),
        overwrite=True,
    )
    for block in iter_blocks(shape, coarser.chunks):
        *planes, y, x = block
        fine = (*planes, *(slice(2 * each.start, 2 * each.stop) for each in (y, x)))
        coarser[block] = np.asarray(finer[fine])[..., ::2, ::2]
    return coarser
