"""Image layers are trained and predicted plane by plane; this finds and reads them.

A plane is (y, x), or (y, x, c) of a colour image: the last two spatial axes of a layer.
All axes before are the plane grid. A level is one resolution of a multiscale image, 0
the finest; other images have level 0 alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from napari_sparseseg.errors import LayerError
from napari_sparseseg.io.images import check_pixels

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer
    from numpy.typing import NDArray

    from napari_sparseseg.engine.messages import Region
    from napari_sparseseg.io.geometry import Field

#: Sides up to which a layer of one resolution is drawn as it is.
LARGEST_SIDE = 16384

#: What says where a layer lies.
PLACED_BY = ("scale", "translate", "rotate", "shear", "affine", "units")

#: Labels on a level of a huge image are made at least that large.
FINE_SIDE = 4096

# What arrays that are read when needed raise: files gone, chunks damaged, no memory.
_UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError, MemoryError)


@dataclass(frozen=True, slots=True, order=True)
class PlaneKey:
    """Which plane of a layer: its index on each axis before y and x."""

    index: tuple[int, ...] = ()


def n_levels(layer: Image | Labels) -> int:
    """Give the number of resolutions of a layer."""
    return len(layer.level_shapes)


def level_shape(layer: Image | Labels, level: int = 0) -> tuple[int, ...]:
    """Give the shape (..., y, x) of a level, without channels."""
    return tuple(int(size) for size in layer.level_shapes[level])


def plane_grid(layer: Image | Labels, level: int = 0) -> tuple[int, ...]:
    """Give the shape of the axes before y and x; () for a single plane."""
    return level_shape(layer, level)[:-2]


def all_planes(layer: Image | Labels, level: int = 0) -> list[PlaneKey]:
    """List the planes of a layer in order."""
    return [PlaneKey(index) for index in np.ndindex(*plane_grid(layer, level))]


def check_pair(image: Image, labels: Labels) -> int:
    """Check that a label layer belongs to an image layer, pixel by pixel.

    Parameters
    ----------
    image
        RGB or grey, of any number of axes and levels.
    labels
        The label layer.

    Returns
    -------
    int
        The level of the image that the labels lie on.

    Raises
    ------
    LayerError
        If the labels are multiscale, no integers, of a shape that no level of the
        image has, or lie elsewhere by more than half a pixel.
    """
    if labels.multiscale:
        raise LayerError(
            f"The label layer '{labels.name}' is multiscale, and napari cannot paint "
            "on such layers; make new labels for the image and paint there.",
            layer=labels.name,
        )
    if np.dtype(labels.dtype).kind not in "iu":
        raise LayerError(
            f"The layer '{labels.name}' has pixels of type {labels.dtype}, but class "
            "values are integers; choose a label layer, or make new labels.",
            layer=labels.name,
            dtype=str(labels.dtype),
        )
    shapes = [level_shape(image, level) for level in range(n_levels(image))]
    given = level_shape(labels)
    if given not in shapes:
        expected = " or ".join(map(str, shapes))
        raise LayerError(
            f"The label layer '{labels.name}' has shape {given}, but the image "
            f"'{image.name}' has {expected}; choose labels of the same shape, or make "
            "new labels for this image.",
            shape=given,
            expected=shapes,
        )
    level = shapes.index(given)
    distance = _largest_distance(image, level, labels)
    if distance > 0.5:
        raise LayerError(
            f"The label layer '{labels.name}' lies up to {distance:.3g} pixels away "
            f"from the image '{image.name}'; give both the same scale, translation "
            "and rotation, or make new labels for this image.",
            distance=distance,
        )
    return level


def read_plane(
    image: Image, plane: PlaneKey, level: int = 0, window: Region | None = None
) -> NDArray[Any]:
    """Read a plane of an image layer; dask computes it, zarr loads it.

    Parameters
    ----------
    image
        The layer.
    plane
        Which plane.
    level
        Of a multiscale image.
    window
        (y0, x0, y1, x1) in pixels of the level: only this part; None: all.

    Returns
    -------
    ndarray
        Contiguous (y, x) or (y, x, 3) in the number type of the layer; alpha is left
        out, and black and white become 0 and 255.

    Raises
    ------
    LayerError
        If there is no such plane, or its pixels cannot be read.
    ImageError
        If it holds complex numbers, or values that are not finite.
    """
    _check_plane(image, plane, level)
    data = image.data[level] if image.multiscale else image.data
    y0, x0, y1, x1 = window or (0, 0, *level_shape(image, level)[-2:])
    try:
        pixels = np.asarray(data[(*plane.index, slice(y0, y1), slice(x0, x1))])
    except _UNREADABLE as error:
        raise LayerError(
            f"The image '{image.name}' cannot be read "
            f"({str(error).rstrip('.') or type(error).__name__}); check that its file "
            "is still there, or open it again.",
            layer=image.name,
        ) from error
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if image.rgb:
        pixels = pixels[..., :3]
    return check_pixels(pixels, f"the image '{image.name}'")


def read_label_plane(labels: Labels, plane: PlaneKey) -> NDArray[Any]:
    """Read a plane of a label layer; of an array in memory it is a view.

    Returns
    -------
    ndarray
        (y, x) integers, 0 = not annotated.

    Raises
    ------
    LayerError
        If the layer is multiscale, there is no such plane, or it cannot be read.
    """
    if labels.multiscale:
        raise LayerError(
            f"The label layer '{labels.name}' is multiscale, but labels of one "
            "resolution are needed; make new labels for the image.",
            layer=labels.name,
        )
    _check_plane(labels, plane, 0)
    try:
        return np.asarray(labels.data[plane.index])
    except _UNREADABLE as error:
        raise LayerError(
            f"The label layer '{labels.name}' cannot be read "
            f"({str(error).rstrip('.') or type(error).__name__}); check that its file "
            "is still there, or open it again.",
            layer=labels.name,
        ) from error


def shows_planes(viewer: ViewerModel) -> bool:
    """Tell whether y and x are on the canvas; not so in 3D and in views from a side."""
    dims = viewer.dims
    return dims.ndisplay == 2 and set(dims.displayed) == {dims.ndim - 2, dims.ndim - 1}


def shown_plane(viewer: ViewerModel, layer: Image | Labels) -> PlaneKey | None:
    """Give the plane of a layer that the viewer shows.

    Parameters
    ----------
    viewer
        Whose sliders count.
    layer
        Of at least two axes.

    Returns
    -------
    PlaneKey or None
        None in 3D, where other axes than y and x are on the canvas, and where the
        sliders stand outside the layer.
    """
    if not shows_planes(viewer):
        return None
    grid = plane_grid(layer)
    # napari rounds in the same way when it slices.
    index = np.round(layer.world_to_data(viewer.dims.point)[: len(grid)]).astype(int)
    if np.any(index < 0) or np.any(index >= grid):
        return None
    return PlaneKey(tuple(index.tolist()))


def visible_region(
    layer: Image | Labels, shape: tuple[int, int] | None = None
) -> Region | None:
    """Give the part of a layer's planes that was on the canvas when it was last drawn.

    Before the first drawing that is all of it.

    Parameters
    ----------
    layer
        A layer in a viewer that shows y and x. Of a multiscale layer napari keeps a
        somewhat larger part.
    shape
        (y, x) of the level whose pixels count; None: the finest.

    Returns
    -------
    Region or None
        (y0, x0, y1, x1), the end exclusive; None where nothing of it was seen.
    """
    drawn = level_shape(layer, layer.data_level if layer.multiscale else 0)[-2:]
    start, last = layer.corner_pixels[:, -2:].tolist()
    # Of a layer beside the canvas napari gives the nearest edge.
    if last[0] <= start[0] or last[1] <= start[1]:
        return None
    target = shape or level_shape(layer)[-2:]
    (y0, y1), (x0, x1) = (
        (
            max(0, int(np.floor(start[axis] * target[axis] / drawn[axis]))),
            min(
                target[axis],
                int(np.ceil((last[axis] + 1) * target[axis] / drawn[axis])),
            ),
        )
        for axis in (0, 1)
    )
    return (y0, x0, y1, x1)


def um_per_px(layer: Image | Labels, level: int = 0) -> float | None:
    """Give the side of a pixel in micrometres.

    Parameters
    ----------
    layer
        Its scale, shear, rotation, affine and units count.
    level
        Of a multiscale layer.

    Returns
    -------
    float or None
        None where the units are no lengths, or pixels are no squares within 1 %.
    """
    to_um = np.array([_um(unit) for unit in layer.units])
    sides = []
    for axis in (-2, -1):
        side = _world_matrix(layer, level)[:-1, :-1][:, axis]
        moved = np.abs(side) > 1e-9 * np.abs(side).max()
        sides.append(float(np.linalg.norm(side[moved] * to_um[moved])))
    y, x = sides
    # A side without unit is NaN, which is close to nothing.
    return x if np.isclose(x, y, rtol=0.01, atol=0) else None


def placement(layer: Image | Labels, level: int = 0) -> dict[str, Any]:
    """Give what puts another layer exactly on a level of this one.

    Pixel i of a level that is f times coarser covers the fine pixels f i ... f i + f
    - 1, so its centre is at f i + (f - 1) / 2 of them.

    Parameters
    ----------
    layer
        The layer to lie on.
    level
        Of a multiscale layer.

    Returns
    -------
    dict
        ``scale``, ``translate``, ``rotate``, ``shear``, ``affine``, ``units`` and
        ``axis_labels``, as napari's layers take them.
    """
    return _placed(layer, *_level_grid(layer, level))


def part_placement(layer: Image, field: Field) -> dict[str, Any]:
    """Give what puts another layer exactly on a part of the planes of this one.

    Parameters
    ----------
    layer
        The layer to lie on; (y, x).
    field
        The part, in pixels of the finest level.

    Returns
    -------
    dict
        As of `placement`.
    """
    factors = np.full(2, field.step_px)
    return _placed(layer, factors, np.add(field.offset_px, (factors - 1) / 2))


def rectangle_placement(
    layer: Image, corners: tuple[float, float, float, float]
) -> dict[str, Any]:
    """Give what puts a layer of one pixel on a rectangle of this one.

    Parameters
    ----------
    layer
        The layer to lie on; (y, x).
    corners
        (y0, x0, y1, x1) in pixels of the finest level, (0, 0) being the upper left
        corner of the first one.

    Returns
    -------
    dict
        As of `placement`.
    """
    low, high = np.reshape(corners, (2, 2))
    return _placed(layer, high - low, (low + high) / 2 - 0.5)


def _placed(
    layer: Image | Labels, factors: NDArray[np.float64], shift: NDArray[np.float64]
) -> dict[str, Any]:
    """Give where pixels lie that are larger by factors, the first one at *shift*."""
    return {
        "scale": layer.scale * factors,
        "translate": layer.translate + _physical(layer)[:-1, :-1] @ shift,
        "rotate": np.array(layer.rotate),
        "shear": np.array(layer.shear),
        "affine": np.array(layer.affine.affine_matrix),
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def plain_placement(layer: Image | Labels) -> dict[str, Any]:
    """Give `placement` in lists, numbers and texts, as it is written to files."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray) else list(map(str, value))
        for key, value in placement(layer).items()
    }


def placing_events(image: Image) -> list[Any]:
    """Return the events that come when an image is put elsewhere."""
    return [getattr(image.events, name) for name in PLACED_BY]


def place_on(layer: Layer, image: Image, level: int) -> None:
    """Put a layer of before where a level of an image is now."""
    placed = placement(image, level)
    for name in PLACED_BY:
        setattr(layer, name, placed[name])


def labels_level(image: Image) -> int:
    """Choose the level of an image on which new labels are painted.

    Returns
    -------
    int
        0 where no side is above 16384 pixels, else the coarsest level that is still
        larger than 4096, else the finest that can be drawn.
    """
    sides = [max(level_shape(image, level)[-2:]) for level in range(n_levels(image))]
    drawable = [level for level, side in enumerate(sides) if side <= LARGEST_SIDE]
    if not drawable:
        return len(sides) - 1
    if drawable[0] == 0:
        return 0
    fine = [level for level in drawable if sides[level] > FINE_SIDE]
    return fine[-1] if fine else drawable[0]


def new_labels_for(image: Image, name: str, highest: int = 255) -> dict[str, Any]:
    """Give the arguments of an empty label layer that lies exactly on an image.

    Parameters
    ----------
    image
        The image.
    name
        Of the new layer.
    highest
        The largest class value that it must hold.

    Returns
    -------
    dict
        For ``napari.layers.Labels``; its ``data`` are uint8, above 255 uint16.
    """
    level = labels_level(image)
    dtype = np.uint8 if highest <= 255 else np.uint16
    return {
        "data": np.zeros(level_shape(image, level), dtype),
        "name": name,
        **placement(image, level),
    }


def _check_plane(layer: Image | Labels, plane: PlaneKey, level: int) -> None:
    grid = plane_grid(layer, level)
    index = plane.index
    fits = len(index) == len(grid) and all(
        0 <= at < size for at, size in zip(index, grid, strict=True)
    )
    if not fits:
        raise LayerError(
            f"There is no plane {index} in the layer '{layer.name}', whose planes "
            f"form a grid of shape {grid}; choose the layers again.",
            plane=index,
            grid=grid,
        )


def _largest_distance(image: Image, level: int, labels: Labels) -> float:
    """Give how far corners of the labels are from those of the image, in pixels."""
    shape = level_shape(labels)
    corners = np.array(
        [(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in shape))]
    ).T
    world = _world_matrix(labels, 0) @ corners
    on_image = np.linalg.solve(_world_matrix(image, level), world)
    return float(np.abs(on_image - corners).max())


def _level_grid(
    layer: Image | Labels, level: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give by which factors a level is coarser, and where its first pixel centre is."""
    factors = np.divide(level_shape(layer), level_shape(layer, level))
    return factors, (factors - 1) / 2


def _physical(layer: Image | Labels) -> NDArray[np.float64]:
    """Give the matrix of scale, shear, rotation and translation, in that order."""
    matrix: NDArray[np.float64] = Affine(
        scale=layer.scale,
        translate=layer.translate,
        rotate=layer.rotate,
        shear=layer.shear,
    ).affine_matrix
    return matrix


def _world_matrix(layer: Image | Labels, level: int) -> NDArray[np.float64]:
    """Give the matrix from pixels of a level to the world.

    `Layer.data_to_world` would add the shifts of napari's grid view.
    """
    factors, shift = _level_grid(layer, level)
    to_finest = np.diag([*factors, 1.0])
    to_finest[:-1, -1] = shift
    matrix: NDArray[np.float64] = (
        layer.affine.affine_matrix @ _physical(layer) @ to_finest
    )
    return matrix


def _um(unit: Any) -> float:
    """Give a unit in micrometres, NaN where it is no length."""
    if not unit.is_compatible_with("micrometer"):
        return np.nan
    return float((1 * unit).to("micrometer").magnitude)
