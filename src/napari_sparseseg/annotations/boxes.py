"""Boxes: rectangles of a class on a plane of an image, and their file format."""

from __future__ import annotations

import json
import operator
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.strokes import MAX_CLASS_VALUE
from napari_sparseseg.errors import LabelError, enumerated, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_sparseseg.annotations.classes import ClassTable

_EXPECTED = '[{"class": 3, "box_yx": [178, 99, 268, 134]}]'

# Pixels by which corners may differ and still be those of an upright rectangle: more
# than a change of coordinates rounds off, less than anyone can draw.
_UPRIGHT = 1e-3


@dataclass(frozen=True, slots=True)
class Box:
    """A box of one class.

    Parameters
    ----------
    y0, x0, y1, x1
        In pixels of the image, half-open: rows y0 to y1 - 1 and columns x0 to x1 - 1.
        They may lie outside of the image (see `fit_boxes`); a box without a pixel,
        y0 = y1 or x0 = x1, is empty.
    class_value
        The class of what it encloses, 1..65535.
    plane
        The index of its plane on each axis before y and x; () in a 2-D image.

    Raises
    ------
    LabelError
        If one of them is none of that, or y1 < y0 or x1 < x0.
    """

    y0: int
    x0: int
    y1: int
    x1: int
    class_value: int
    plane: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check every field, and turn NumPy numbers into Python's."""
        given = self.edges
        for name in ("y0", "x0", "y1", "x1"):
            object.__setattr__(self, name, _as_integer(getattr(self, name), given))
        if self.y1 < self.y0 or self.x1 < self.x0:
            raise LabelError(
                f"The box {list(self.edges)} ends before it starts; give the edges as "
                "[y0, x0, y1, x1] with y0 <= y1 and x0 <= x1.",
                edges=self.edges,
            )
        value = _as_integer(self.class_value, self.class_value)
        if not 1 <= value <= MAX_CLASS_VALUE:
            raise LabelError(
                f"The box {list(self.edges)} has the class {value}; give a class "
                f"value from 1 to {MAX_CLASS_VALUE}.",
                value=value,
            )
        object.__setattr__(self, "class_value", value)
        plane = tuple(_as_integer(index, self.plane) for index in self.plane)
        if any(index < 0 for index in plane):
            raise LabelError(
                f"The box {list(self.edges)} lies on the plane {list(plane)}; count "
                "planes from 0.",
                plane=plane,
            )
        object.__setattr__(self, "plane", plane)

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """(y0, x0, y1, x1)."""
        return self.y0, self.x0, self.y1, self.x1

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def area(self) -> int:
        """The number of pixels; 0 of an empty box."""
        height, width = self.shape
        return height * width

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts the box out of its plane; only of boxes that fit the image."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def __str__(self) -> str:
        """Name the box in a message to the user."""
        where = f" on plane {', '.join(map(str, self.plane))}" if self.plane else ""
        return f"{list(self.edges)} of class {self.class_value}{where}"

    def clipped(self, image_shape: Sequence[int]) -> Box:
        """Give the part inside of an image of shape (y, x); empty if there is none."""
        height, width = image_shape
        return replace(
            self,
            y0=min(max(self.y0, 0), height),
            x0=min(max(self.x0, 0), width),
            y1=min(max(self.y1, 0), height),
            x1=min(max(self.x1, 0), width),
        )


@dataclass(frozen=True, slots=True)
class FittedBoxes:
    """Boxes that can be used on an image, and what became of the others.

    Attributes
    ----------
    boxes
        Clipped to the image, none of them empty, none twice; in the order given.
    places
        Where each of `boxes` stood among those given, from 0.
    clipped
        Boxes, as given, of which only a part lies in the image.
    empty
        Boxes, as given, that have no pixel in the image.
    repeated
        Boxes, as given, that are in the image the same as one before.
    """

    boxes: tuple[Box, ...]
    places: tuple[int, ...]
    clipped: tuple[Box, ...]
    empty: tuple[Box, ...]
    repeated: tuple[Box, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each kind of box that was not taken as it was given."""
        kinds = (
            ("clipped to the image", self.clipped),
            ("skipped for having no pixel in the image", self.empty),
            ("skipped, since the same box was given before", self.repeated),
        )
        return tuple(
            f"{len(boxes)} {'box' if len(boxes) == 1 else 'boxes'} {what}: "
            f"{enumerated(boxes)}."
            for what, boxes in kinds
            if boxes
        )


@dataclass(frozen=True, slots=True)
class ShapeBoxes:
    """The boxes of shapes that were drawn.

    Attributes
    ----------
    boxes
        One for each shape, in order; they may be empty or leave the image.
    enclosed
        Which shapes, counted from 0, are no upright rectangles, so that their box is
        more than the shape.
    """

    boxes: tuple[Box, ...]
    enclosed: tuple[int, ...]


def fit_boxes(boxes: Iterable[Box], image_shape: Sequence[int]) -> FittedBoxes:
    """Fit boxes to an image: clip them, and skip empty ones and repetitions.

    Parameters
    ----------
    boxes
        In any order.
    image_shape
        (..., y, x) of the image, without channels; the axes before y and x are those
        of the planes.

    Raises
    ------
    LabelError
        If a box lies on a plane that the image does not have.
    """
    *grid, height, width = image_shape
    places: dict[Box, int] = {}
    clipped, empty, repeated = [], [], []
    for place, box in enumerate(boxes):
        if len(box.plane) != len(grid) or any(map(operator.ge, box.plane, grid)):
            raise LabelError(
                f"The box {box} lies on no plane of the image, whose shape is "
                f"{tuple(image_shape)}; give one index from 0 for each axis before y "
                "and x.",
                box=box,
                shape=tuple(image_shape),
            )
        fitted = box.clipped((height, width))
        if not fitted.area:
            empty.append(box)
        elif fitted in places:
            repeated.append(box)
        else:
            places[fitted] = place
            if fitted != box:
                clipped.append(box)
    return FittedBoxes(
        tuple(places),
        tuple(places.values()),
        tuple(clipped),
        tuple(empty),
        tuple(repeated),
    )


def check_box_classes(boxes: Iterable[Box], table: ClassTable) -> None:
    """Check that the class of every box is in the class table.

    Raises
    ------
    LabelError
        If some are not, with their values and the number of their boxes.
    """
    counts = Counter(box.class_value for box in boxes)
    unknown = {v: n for v, n in sorted(counts.items()) if v not in table.values}
    if unknown:
        named = enumerated(
            [f"{v} of {n} {'box' if n == 1 else 'boxes'}" for v, n in unknown.items()]
        )
        raise LabelError(
            f"Boxes have class values that are not in the class table: {named}; the "
            f"table has the values {enumerated(table.values)}, so add the missing "
            "classes or correct the boxes.",
            counts=unknown,
        )


def boxes_to_json(boxes: Iterable[Box]) -> list[dict[str, Any]]:
    """Give boxes as JSON data.

    Returns
    -------
    list of dict
        ``{"class": 3, "box_yx": [y0, x0, y1, x1], "plane": [12]}`` for each; "plane"
        only where there is one.
    """
    return [
        {"class": box.class_value, "box_yx": list(box.edges)}
        | ({"plane": list(box.plane)} if box.plane else {})
        for box in boxes
    ]


def boxes_from_json(data: object) -> list[Box]:
    """Make boxes from JSON data as given by `boxes_to_json`.

    Raises
    ------
    LabelError
        If the data has another form, or keys that are not known, which are named.
    """
    if not isinstance(data, list):
        raise LabelError(
            f"The boxes are {shortened(data)}, but expected is a list such as "
            f"{_EXPECTED}.",
            data=data,
        )
    return [_box_from_json(each) for each in data]


def read_boxes(path: str | Path, table: ClassTable | None = None) -> list[Box]:
    """Read the boxes of an image from a JSON file (see `boxes_to_json`).

    Parameters
    ----------
    path
        The file.
    table
        The classes that boxes may have; None = any.

    Raises
    ------
    LabelError
        If the file cannot be read or holds no boxes, or boxes of a class that is not
        in the table, with its name.
    """
    try:
        # Some editors put a byte order mark first.
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise LabelError(
            f"The boxes {path} cannot be read: {error.strerror or error}.",
            path=str(path),
        ) from error
    except (ValueError, RecursionError) as error:
        raise LabelError(
            f"The boxes {path} are not a JSON file: {error}; expected is {_EXPECTED}.",
            path=str(path),
        ) from error
    try:
        boxes = boxes_from_json(data)
        if table is not None:
            check_box_classes(boxes, table)
    except LabelError as error:
        raise LabelError(f"{path}: {error}", path=str(path), **error.values) from error
    return boxes


def write_boxes(path: str | Path, boxes: Iterable[Box]) -> None:
    """Write the boxes of an image to a JSON file, completely or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    # io imports annotations.
    from napari_sparseseg.io.atomic import write_text_atomically

    text = json.dumps(boxes_to_json(boxes))
    write_text_atomically(path, text)


def boxes_from_shapes(
    vertices: Sequence[ArrayLike],
    shape_types: Sequence[str],
    class_values: Sequence[int],
) -> ShapeBoxes:
    """Turn the shapes of a napari Shapes layer into boxes.

    A box takes the pixels whose centres lie in the shape's bounding box.

    Parameters
    ----------
    vertices
        For each shape (n, ndim) numbers in data coordinates of the image, where the
        centre of a pixel is an integer: any order of the vertices, the last two axes
        y and x, the others the same for all vertices of a shape.
    shape_types
        napari's name for each: "rectangle", "ellipse", "polygon", "path" or "line".
    class_values
        The class of each, 1..65535.

    Raises
    ------
    LabelError
        If the numbers of vertices, types and values differ, or a shape has no plane
        of its own or vertices that are no finite numbers.
    """
    if not len(vertices) == len(shape_types) == len(class_values):
        raise LabelError(
            f"There are {len(vertices)} shapes, but {len(shape_types)} types and "
            f"{len(class_values)} class values; give one of each for every shape."
        )
    boxes, enclosed = [], []
    shapes = zip(vertices, shape_types, class_values, strict=True)
    for place, (corners, shape_type, value) in enumerate(shapes):
        points = _checked_vertices(corners, place)
        low, high = points.min(axis=0), points.max(axis=0)
        # The edges of a pixel lie half before and half behind its centre.
        (y0, x0), (y1, x1) = _rounded(low[-2:] + 0.5), _rounded(high[-2:] + 0.5)
        plane = tuple(_rounded(low[:-2]))
        boxes.append(Box(y0, x0, y1, x1, value, plane))
        if shape_type not in ("rectangle", "polygon") or not _is_upright(points):
            enclosed.append(place)
    return ShapeBoxes(tuple(boxes), tuple(enclosed))


def boxes_to_shapes(boxes: Iterable[Box]) -> list[NDArray[np.float64]]:
    """Turn boxes into rectangles for a napari Shapes layer.

    Returns
    -------
    list of ndarray
        (4, ndim) float64 for each, in data coordinates of the image: the corners in
        napari's order, round the box from (y0, x0) by way of (y0, x1).
    """
    return [
        np.array(
            [
                (*box.plane, y - 0.5, x - 0.5)
                for y, x in (
                    (box.y0, box.x0),
                    (box.y0, box.x1),
                    (box.y1, box.x1),
                    (box.y1, box.x0),
                )
            ]
        )
        for box in boxes
    ]


def _checked_vertices(corners: ArrayLike, place: int) -> NDArray[np.float64]:
    points = np.asarray(corners, np.float64)
    if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] < 2:
        raise LabelError(
            f"Shape {place} has vertices of shape {points.shape}; expected is (n, "
            "ndim) with the coordinates y and x last.",
            shape=points.shape,
        )
    if not np.isfinite(points).all():
        raise LabelError(
            f"Shape {place} has vertices that are no finite numbers; draw it again.",
            place=place,
        )
    planes = {tuple(_rounded(point)) for point in points[:, :-2]}
    if len(planes) > 1:
        raise LabelError(
            f"Shape {place} extends over several planes; draw boxes while the last "
            "two axes of the image, y and x, are shown.",
            place=place,
        )
    return points


def _is_upright(points: NDArray[np.float64]) -> bool:
    """Tell whether the points are the four corners of an upright rectangle."""
    low, high = points.min(axis=0)[-2:], points.max(axis=0)[-2:]
    is_low = np.abs(points[:, -2:] - low) <= _UPRIGHT
    is_high = np.abs(points[:, -2:] - high) <= _UPRIGHT
    corners = {tuple(point) for point in is_high.tolist()}
    return len(points) == len(corners) == 4 and bool((is_low | is_high).all())


def _rounded(values: NDArray[np.float64]) -> list[int]:
    """Round halves up, wherever they are, so that equal boxes stay equal."""
    rounded: list[int] = np.floor(values + 0.5).astype(np.int64).tolist()
    return rounded


def _box_from_json(data: object) -> Box:
    if not isinstance(data, dict):
        raise LabelError(
            f"A box is {shortened(data)}, but expected is an object as in {_EXPECTED}.",
            data=data,
        )
    unknown = sorted(set(map(str, data)) - {"class", "box_yx", "plane"})
    missing = sorted({"class", "box_yx"} - set(data))
    for keys, problem in ((unknown, "unknown"), (missing, "missing")):
        if keys:
            raise LabelError(
                f"A box has {problem} keys: {enumerated(keys)}; expected are class, "
                "box_yx and, in an image of several planes, plane.",
                **{problem: keys},
            )
    edges, plane = data["box_yx"], data.get("plane", [])
    if not isinstance(edges, list) or len(edges) != 4:
        raise LabelError(
            f"A box has the edges {shortened(edges)}; expected are four integers, "
            "[y0, x0, y1, x1].",
            edges=edges,
        )
    if not isinstance(plane, list):
        raise LabelError(
            f"The box {edges} has the plane {shortened(plane)}; expected is a list "
            "of one index for each axis before y and x.",
            plane=plane,
        )
    y0, x0, y1, x1 = edges
    return Box(y0, x0, y1, x1, data["class"], tuple(plane))


def _as_integer(number: object, shown: object) -> int:
    """Give a Python or NumPy integer as int; refuse anything else, bool too."""
    if isinstance(number, int | np.integer) and not isinstance(number, bool):
        return int(number)
    raise LabelError(
        f"A box has {shortened(shown)} with {shortened(number)} where an integer is "
        "expected; give edges, class and plane as whole numbers.",
        number=number,
    )
