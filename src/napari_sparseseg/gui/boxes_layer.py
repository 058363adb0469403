"""Boxes drawn in a Shapes layer of napari, and how they lie on an image."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from napari_sparseseg.annotations.boxes import (
    boxes_from_shapes,
    boxes_to_shapes,
    fit_boxes,
)
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import LabelError, LayerError
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.painted_classes import with_values
from napari_sparseseg.gui.planes import labels_level, level_shape, placement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.layers import Image, Labels, Shapes
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box

#: The feature of a Shapes layer that names the class of each shape.
CLASS_FEATURE = "class"

#: Edges of boxes are so wide: a share of the longer side of the image.
EDGE_WIDTH = 1 / 300

WITHOUT_CLASS = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """What one shape stands for.

    Attributes
    ----------
    class_name
        As it stands in the layer.
    box
        Clipped to the image; None where the shape cannot be used.
    problem
        Why it cannot be used, in a few words; empty where it can.
    encloses
        Whether the shape is no upright rectangle, so that its box is more than it.
    """

    class_name: str
    box: Box | None = None
    problem: str = ""
    encloses: bool = False


def boxes_name(image: Image) -> str:
    """Return the name of new boxes on an image."""
    return f"{image.name} boxes"


def new_boxes_for(image: Image, name: str, classes: ClassTable) -> dict[str, Any]:
    """Give the arguments of an empty Shapes layer that lies on an image.

    Its pixels are those of the level that labels of the image are painted on.

    Returns
    -------
    dict
        For ``napari.layers.Shapes``.
    """
    level = labels_level(image)
    layer = layer_of_boxes((), name, classes, level_shape(image, level))
    return layer | placement(image, level)


def layer_of_boxes(
    boxes: Sequence[Box], name: str, classes: ClassTable, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Give the arguments of a Shapes layer with boxes, in pixels.

    Parameters
    ----------
    boxes
        All with as many axes as the image.
    name
        Of the layer.
    classes
        Of all boxes.
    shape
        (..., y, x) of the image.

    Returns
    -------
    dict
        For ``napari.layers.Shapes``.
    """
    of_boxes = [classes.by_value(box.class_value) for box in boxes]
    filled = {
        "shape_type": "rectangle",
        "edge_color": np.array([_rgba(each.color) for each in of_boxes]),
    }
    return {
        "data": boxes_to_shapes(boxes) or None,
        "ndim": len(shape),
        "name": name,
        "features": {CLASS_FEATURE: np.array([each.name for each in of_boxes], object)},
        "edge_width": max(1.0, max(shape[-2:]) * EDGE_WIDTH),
        "face_color": "transparent",
        "text": _text(),
        "metadata": {CLASSES_KEY: classes.to_json()},
    } | (filled if boxes else {})


def read_boxes(
    shapes: Shapes, image: Image, classes: ClassTable
) -> tuple[DrawnBox, ...]:
    """Read what was drawn, one entry for each shape, in order.

    Boxes are in pixels of the level that labels of the image are painted on.

    Raises
    ------
    LayerError
        If the layer has another number of axes than the image.
    """
    level = labels_level(image)
    shape = level_shape(image, level)
    if shapes.ndim != len(shape):
        raise LayerError(
            f"The boxes '{shapes.name}' have {shapes.ndim} axes, but the image "
            f"'{image.name}' has {len(shape)}; press New boxes and draw there.",
            given=shapes.ndim,
            expected=len(shape),
        )
    to_pixels = np.linalg.solve(_world(placement(image, level)), _world_of(shapes))
    read: list[DrawnBox] = []
    known: set[Box] = set()
    names = class_names(shapes)
    for corners, kind, name in zip(shapes.data, shapes.shape_type, names, strict=True):
        points = np.column_stack([corners, np.ones(len(corners))]) @ to_pixels.T
        drawn = _read_box(points[:, :-1], str(kind), name, shape, classes)
        if drawn.box in known:
            drawn = DrawnBox(name, problem="the same box is there already")
        elif drawn.box is not None:
            known.add(drawn.box)
        read.append(drawn)
    return tuple(read)


def boxes_of(shapes: Shapes) -> tuple[list[Box], ClassTable]:
    """Return all boxes of a layer in its own pixels, and their classes.

    Raises
    ------
    LabelError
        If a shape has no class, or does not lie on one plane.
    ClassTableError
        If the class table in its metadata is damaged.
    """
    brought = shapes.metadata.get(CLASSES_KEY)
    table = ClassTable() if brought is None else ClassTable.from_json(brought)
    numbers = class_numbers(shapes)
    classes = with_classes_of(with_values(table, set(numbers.values())), shapes)
    values = []
    for place, name in enumerate(class_names(shapes)):
        if not name and place not in numbers:
            raise LabelError(
                f"Shape {place + 1} of '{shapes.name}' has no class; give it one in "
                "the dock Boxes, then save again.",
                place=place,
            )
        values.append(classes.by_name(name).value if name else numbers[place])
    read = boxes_from_shapes(shapes.data, shapes.shape_type, values)
    return list(read.boxes), classes


def with_classes_of(classes: ClassTable, shapes: Shapes) -> ClassTable:
    """Return a table that has all classes that are named in a layer."""
    for name in dict.fromkeys(class_names(shapes)):
        if name and name not in classes.names:
            classes = classes.add(name)
    return classes


def centre_in_world(image: Image, box: Box) -> tuple[float, ...]:
    """Return where the centre of a box is, in world coordinates of the image."""
    y, x = (box.y0 + box.y1 - 1) / 2, (box.x0 + box.x1 - 1) / 2
    to_world = _world(placement(image, labels_level(image)))
    centre = to_world @ [*box.plane, y, x, 1]
    return tuple(centre[:-1].tolist())


def is_ours(layer: Shapes | Labels) -> bool:
    """Tell whether a layer was drawn here before, so that its look may be changed."""
    return CLASSES_KEY in layer.metadata


def class_names(shapes: Shapes) -> list[str]:
    """Return the name of the class of each shape, empty where it has none."""
    values = _classes(shapes)
    return [value if isinstance(value, str) else "" for value in values]


def class_numbers(shapes: Shapes) -> dict[int, Any]:
    """Return the classes that are numbers, by the place of their shape."""
    values = enumerate(_classes(shapes))
    return {n: v for n, v in values if isinstance(v, Real) and not isnan(v)}


def name_classes(shapes: Shapes, names: list[str]) -> None:
    """Give each shape the name of its class; numbers without a name stay."""
    numbers = class_numbers(shapes)
    values = [name or numbers.get(place, "") for place, name in enumerate(names)]
    features = shapes.features.copy()
    features[CLASS_FEATURE] = np.array(values, object)
    shapes.features = features


def label_boxes(shapes: Shapes) -> None:
    """Write the class beside each shape, unless something else is written there."""
    if getattr(shapes.text.string, "constant", None) == "":
        shapes.text = _text()


def rename_classes(shapes: Shapes, renamed: Mapping[str, str]) -> None:
    """Replace names of classes by others."""
    names = class_names(shapes)
    after = [renamed.get(name, name) for name in names]
    if after != names:
        name_classes(shapes, after)


def color_classes(shapes: Shapes, classes: ClassTable) -> None:
    """Give the edges of all shapes the colours of their classes."""
    colors = {each.name: _rgba(each.color) for each in classes}
    wished = [colors.get(name, WITHOUT_CLASS) for name in class_names(shapes)]
    # Else it would be drawn anew each time that boxes are read.
    if wished and not np.allclose(shapes.edge_color, wished):
        shapes.edge_color = wished
    shapes.metadata[CLASSES_KEY] = classes.to_json()


def draw_class(shapes: Shapes, classes: ClassTable, value: int) -> None:
    """Give shapes that are drawn from now on a class; the others stay."""
    each = classes.by_value(value)
    _hold_names(shapes)
    defaults = {name: column[0] for name, column in shapes.feature_defaults.items()}
    with shapes.block_update_properties():
        if CLASS_FEATURE in shapes.features:
            shapes.feature_defaults = {**defaults, CLASS_FEATURE: each.name}
        shapes.current_edge_color = _rgba(each.color)


def _hold_names(shapes: Shapes) -> None:
    """Let a column of numbers of classes have names, too."""
    features = shapes.features
    if CLASS_FEATURE in features and features[CLASS_FEATURE].dtype.kind in "iuf":
        shapes.features = features.astype({CLASS_FEATURE: object})


def _read_box(
    points: NDArray[np.float64],
    kind: str,
    class_name: str,
    shape: tuple[int, ...],
    classes: ClassTable,
) -> DrawnBox:
    if class_name not in classes.names:
        words = f"the class '{class_name}' is not in the table" if class_name else ""
        return DrawnBox(class_name, problem=words or "it has no class")
    value = classes.by_name(class_name).value
    try:
        read = boxes_from_shapes([points], [kind], [value])
        fitted = fit_boxes(read.boxes, shape)
    except LabelError:
        return DrawnBox(class_name, problem="it does not lie on one plane of the image")
    if not fitted.boxes:
        return DrawnBox(class_name, problem="it has no pixel in the image")
    return DrawnBox(class_name, fitted.boxes[0], encloses=bool(read.enclosed))


def _classes(shapes: Shapes) -> list[Any]:
    """Return the class of each shape as it stands in the layer."""
    if CLASS_FEATURE not in shapes.features:
        return [None] * shapes.nshapes
    # napari leaves features where all shapes are taken away by assignment.
    values: list[Any] = shapes.features[CLASS_FEATURE].tolist()[: shapes.nshapes]
    return values


def _text() -> dict[str, Any]:
    return {
        "string": f"{{{CLASS_FEATURE}}}",
        "size": 8,
        "color": "white",
        "anchor": "upper_left",
    }


def _rgba(color: tuple[int, int, int]) -> tuple[float, float, float, float]:
    red, green, blue = (part / 255 for part in color)
    return red, green, blue, 1.0


def _world_of(shapes: Shapes) -> NDArray[np.float64]:
    return _world(
        {
            "scale": shapes.scale,
            "translate": shapes.translate,
            "rotate": shapes.rotate,
            "shear": shapes.shear,
            "affine": shapes.affine.affine_matrix,
        }
    )


def _world(placed: Mapping[str, Any]) -> NDArray[np.float64]:
    """Give the matrix from pixels to the world; the last row and column shift."""
    names = ("scale", "translate", "rotate", "shear")
    physical = Affine(**{name: placed[name] for name in names}).affine_matrix
    matrix: NDArray[np.float64] = placed["affine"] @ physical
    return matrix
