"""Small objects of a label map are given to what surrounds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.inputs.resolution import whole, within
from napari_sparseseg.inputs.tiling import cover
from napari_sparseseg.interruption import stop_if_wished

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

#: Nothing is given to an object that is farther away, in pixels: a part must see as far
#: as the whole plane. A disc of `MOST_PX` has a radius of 25, so only where there is
#: next to nothing but small objects, or not labelled pixels, are others farther away.
REACH_PX = 256


def without_small_objects(labels: NDArray[Any], smallest: int) -> NDArray[Any]:
    """Give the pixels of objects of too few to the nearest object that stays.

    An object is what hangs together by the edges of pixels and has one class. Pixels
    that are not labelled (0) are no object: they stay, and nothing is given to them.
    Where no object that stays is within `REACH_PX`, pixels keep their class.

    Parameters
    ----------
    labels
        (y, x) class values; not changed.
    smallest
        Objects of fewer pixels go.

    Returns
    -------
    ndarray
        Of the same shape and number type.
    """
    return _given_away(labels, _small_objects(labels, smallest))


def _small_objects(labels: NDArray[Any], smallest: int) -> NDArray[np.bool_]:
    """Tell of each pixel whether it is of an object that goes."""
    from skimage.measure import label

    objects = label(labels, connectivity=1)  # type: ignore[no-untyped-call]
    is_small = np.bincount(objects.ravel()) < smallest
    is_small[0] = False
    return np.asarray(is_small[objects])


def _given_away(labels: NDArray[Any], goes: NDArray[np.bool_]) -> NDArray[Any]:
    """Return labels in which the pixels that go have the nearest class that stays."""
    from scipy.ndimage import distance_transform_edt

    stays = (labels != 0) & ~goes
    if not goes.any() or not stays.any():
        return labels
    rows, columns = distance_transform_edt(
        ~stays, return_distances=False, return_indices=True
    )
    y, x = np.nonzero(goes)
    nearest_y, nearest_x = rows[y, x].astype(int), columns[y, x].astype(int)
    near = (nearest_y - y) ** 2 + (nearest_x - x) ** 2 <= REACH_PX**2
    cleaned = labels.copy()
    cleaned[y[near], x[near]] = labels[nearest_y[near], nearest_x[near]]
    return cleaned


def iter_without_small_objects(
    plane: LazyArray, smallest: int
) -> Iterator[tuple[Region, NDArray[Any]]]:
    """Do the same on a plane that need not fit into memory, part by part.

    Within `REACH_PX` of a part it is known what goes, since around that so much is seen
    that an object which is cut there is seen to be no small one: each pixel of the part
    gets the very class that the whole plane would give it, whatever the parts are.

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
    for part in cover(whole((height, width)), side):
        stop_if_wished()
        near = _around(part, REACH_PX, plane.shape)
        y0, x0, y1, x1 = seen = _around(near, smallest, plane.shape)
        labels = np.asarray(plane[y0:y1, x0:x1])
        goes = _small_objects(labels, smallest)
        inside = within(near, seen)
        cleaned = _given_away(labels[inside], goes[inside])
        yield part, cleaned[within(part, near)]


def _around(region: Region, margin: int, shape: tuple[int, ...]) -> Region:
    """Widen (y0, x0, y1, x1) by a margin, as far as the plane has pixels."""
    y0, x0, y1, x1 = region
    height, width = shape[:2]
    return (
        *(max(0, y0 - margin), max(0, x0 - margin)),
        *(min(height, y1 + margin), min(width, x1 + margin)),
    )
