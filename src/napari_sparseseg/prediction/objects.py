"""Small objects of a label map are given to what surrounds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.inputs.resolution import whole
from napari_sparseseg.inputs.tiling import cover

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sparseseg.inputs.resolution import Region
    from napari_sparseseg.io.sources import LazyArray

#: Planes of no more pixels are taken as a whole.
WHOLE_PX = 4096 * 4096

#: Side of the parts of larger ones.
PART_SIDE = 2048

#: Largest size that can be asked for there: so far must be seen around each part.
MOST_PX = 2000


def without_small_objects(labels: NDArray[Any], smallest: int) -> NDArray[Any]:
    """Give objects of too few pixels to the nearest of the others.

    An object is what hangs together by the edges of pixels and has one class. Pixels
    that are not labelled (0) are no object: they stay, and nothing is given to them.

    Parameters
    ----------
    labels
        (y, x) class values; not changed.
    smallest
        Objects of fewer pixels go; where all would go, all stay.

    Returns
    -------
    ndarray
        Of the same shape and number type.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import label

    objects = label(labels, connectivity=1)
    is_small = np.bincount(objects.ravel()) < smallest
    is_small[0] = False
    goes = is_small[objects]
    stays = (labels != 0) & ~goes
    if not goes.any() or not stays.any():
        return labels
    y, x = distance_transform_edt(~stays, return_distances=False, return_indices=True)
    cleaned = labels.copy()
    cleaned[goes] = labels[y[goes], x[goes]]
    return cleaned


def iter_without_small_objects(
    plane: LazyArray, smallest: int
) -> Iterator[tuple[Region, NDArray[Any]]]:
    """Do the same on a plane that need not fit into memory, part by part.

    Around each part as much is seen as the objects in question can reach, so none is
    cut.

    Parameters
    ----------
    plane
        (y, x) class values.
    smallest
        As of `without_small_objects`; no more than `MOST_PX` on planes of more than
        `WHOLE_PX`.

    Yields
    ------
    tuple
        (y0, x0, y1, x1), and the labels there.
    """
    height, width = plane.shape
    is_whole = height * width <= WHOLE_PX
    side = max(height, width) if is_whole else PART_SIDE
    for y0, x0, y1, x1 in cover(whole((height, width)), side):
        top, left = max(0, y0 - smallest), max(0, x0 - smallest)
        around = np.asarray(plane[top : y1 + smallest, left : x1 + smallest])
        cleaned = without_small_objects(around, smallest)
        yield (y0, x0, y1, x1), cleaned[y0 - top : y1 - top, x0 - left : x1 - left]
