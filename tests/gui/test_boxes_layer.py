"""Shapes of napari as boxes of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Shapes

from napari_sparseseg.annotations.boxes import Box, boxes_to_shapes
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import LayerError
from napari_sparseseg.gui.boxes_layer import (
    centre_in_world,
    class_names,
    color_classes,
    draw_class,
    label_boxes,
    name_classes,
    new_boxes_for,
    read_boxes,
    rename_classes,
)

CLASSES = ClassTable().add("background").add("liver").add("tumour")
PLACE: dict[str, Any] = {"scale": (3, 0.5, 0.5), "translate": (1, -20, 300)}


@pytest.fixture
def volume() -> Image:
    return Image(np.zeros((5, 60, 80), np.int16), name="ct", **PLACE)


@pytest.fixture
def shapes(volume: Image) -> Shapes:
    """Return what New boxes makes, with boxes of liver to come."""
    layer = Shapes(**new_boxes_for(volume, "boxes", CLASSES))
    draw_class(layer, CLASSES, 2)
    return layer


def corners(y0: float, x0: float, y1: float, x1: float, plane: int = 2) -> Any:
    return [[plane, y0, x0], [plane, y0, x1], [plane, y1, x1], [plane, y1, x0]]


def test_boxes_come_back_as_they_were_drawn(volume: Image, shapes: Shapes) -> None:
    boxes = (Box(10, 20, 31, 51, 2, (2,)), Box(0, 0, 60, 80, 3, (4,)))
    shapes.add_rectangles(boxes_to_shapes(boxes[:1]))
    draw_class(shapes, CLASSES, 3)
    shapes.add_rectangles(boxes_to_shapes(boxes[1:]))
    read = read_boxes(shapes, volume, CLASSES)
    assert tuple(drawn.box for drawn in read) == boxes
    assert [drawn.class_name for drawn in read] == ["liver", "tumour"]
    assert not any(drawn.problem or drawn.encloses for drawn in read)


def test_the_place_of_both_layers_counts(volume: Image) -> None:
    # Drawn in millimetres: the plane at 7 is the third, (7 - 1) / 3 = 2.
    layer = Shapes([np.array(corners(-15.25, 309.75, -4.75, 325.25, 7))])
    name_classes(layer, ["liver"])
    (drawn,) = read_boxes(layer, volume, CLASSES)
    assert drawn.box == Box(10, 20, 31, 51, 2, (2,))


def test_boxes_are_clipped_and_what_cannot_be_used_is_named(
    volume: Image, shapes: Shapes
) -> None:
    for each in (
        corners(-10, 69.5, 9.5, 200),
        corners(70, 5, 90, 20),
        corners(5, 5, 5.2, 20),
        corners(5, 5, 20, 20, 9),
        corners(-10, 69.5, 9.5, 200),
    ):
        shapes.add_rectangles([each])
    read = read_boxes(shapes, volume, CLASSES)
    assert read[0].box == Box(0, 70, 10, 80, 2, (2,))
    assert [drawn.box for drawn in read[1:]] == [None] * 4
    assert [drawn.problem for drawn in read[1:]] == [
        "it has no pixel in the image",
        "it has no pixel in the image",
        "it does not lie on one plane of the image",
        "the same box is there already",
    ]


def test_of_other_shapes_the_box_around_is_taken(volume: Image, shapes: Shapes) -> None:
    shapes.add_ellipses([corners(9.5, 19.5, 30.5, 50.5)])
    shapes.add_polygons([[[0, 9.5, 30], [0, 30.5, 19.5], [0, 20, 50.5]]])
    ellipse, triangle = read_boxes(shapes, volume, CLASSES)
    assert ellipse.box == Box(10, 20, 31, 51, 2, (2,))
    assert triangle.box == Box(10, 20, 31, 51, 2, (0,))
    assert ellipse.encloses
    assert triangle.encloses


def test_shapes_without_a_class_of_the_table_are_named(volume: Image) -> None:
    layer = Shapes([np.array(corners(1, 1, 9, 9))] * 2, **PLACE)
    assert {drawn.problem for drawn in read_boxes(layer, volume, CLASSES)} == {
        "it has no class"
    }
    name_classes(layer, ["spleen", "liver"])
    first, second = read_boxes(layer, volume, CLASSES)
    assert "'spleen' is not in the table" in first.problem
    assert second.box is not None


def test_flat_boxes_are_refused_on_a_volume(volume: Image) -> None:
    flat = Shapes([np.array([[1, 1], [1, 9], [9, 9], [9, 1]])], name="drawn")
    with pytest.raises(LayerError, match="'drawn' have 2 axes, but the image 'ct' has"):
        read_boxes(flat, volume, CLASSES)


def test_on_a_pyramid_they_are_in_pixels_of_the_labels() -> None:
    fine = np.zeros((20_000, 400), np.uint8)
    image = Image([fine, fine[::2, ::2], fine[::8, ::8]], multiscale=True, scale=(2, 2))
    layer = Shapes(**new_boxes_for(image, "boxes", CLASSES))
    draw_class(layer, CLASSES, 2)
    layer.add_rectangles(boxes_to_shapes([Box(100, 20, 140, 60, 2)]))
    assert [drawn.box for drawn in read_boxes(layer, image, CLASSES)] == [
        Box(100, 20, 140, 60, 2)
    ]
    # In pixels of the finest level that is twice as much.
    other = Shapes(
        [np.array([[199.5, 39.5], [199.5, 119.5], [279.5, 119.5], [279.5, 39.5]])]
    )
    other.scale = (2, 2)
    name_classes(other, ["liver"])
    assert read_boxes(other, image, CLASSES)[0].box == Box(100, 20, 140, 60, 2)


def test_the_centre_of_a_box_in_the_world(volume: Image) -> None:
    # Rows 10 to 30 have their middle at 20: 20 x 0.5 - 20.
    box = Box(10, 20, 31, 51, 2, (2,))
    assert centre_in_world(volume, box) == (7.0, -10.0, 317.5)


def test_edges_have_the_colours_of_the_classes(shapes: Shapes) -> None:
    shapes.add_rectangles([corners(1, 1, 9, 9)])
    draw_class(shapes, CLASSES, 3)
    shapes.add_rectangles([corners(2, 2, 9, 9)])
    expected = [np.array(CLASSES.by_value(value).color) / 255 for value in (2, 3)]
    np.testing.assert_allclose(shapes.edge_color[:, :3], expected)
    color_classes(shapes, CLASSES.recolored(2, (10, 20, 30)))
    np.testing.assert_allclose(shapes.edge_color[0, :3] * 255, (10, 20, 30))
    assert class_names(shapes) == ["liver", "tumour"]


def test_a_class_of_new_boxes_leaves_the_selected_ones_alone(shapes: Shapes) -> None:
    shapes.add_rectangles([corners(1, 1, 9, 9)])
    shapes.selected_data = {0}
    before = shapes.edge_color.copy()
    draw_class(shapes, CLASSES, 3)
    assert class_names(shapes) == ["liver"]
    np.testing.assert_array_equal(shapes.edge_color, before)


def test_names_follow_the_table_and_are_written_beside_boxes(shapes: Shapes) -> None:
    shapes.add_rectangles([corners(1, 1, 9, 9)])
    rename_classes(shapes, {"liver": "Leber"})
    assert class_names(shapes) == ["Leber"]
    assert list(shapes.text.values) == ["Leber"]
    plain = Shapes([np.array(corners(1, 1, 9, 9))])
    name_classes(plain, ["liver"])
    label_boxes(plain)
    assert list(plain.text.values) == ["liver"]


def test_the_next_box_has_a_name_where_others_have_numbers() -> None:
    layer = Shapes([corners(0, 0, 4, 4)], ndim=3, features={"class": [7]})
    draw_class(layer, CLASSES, 2)
    layer.add_rectangles([corners(0, 0, 9, 9)])
    assert layer.features["class"].tolist() == [7, "liver"]
