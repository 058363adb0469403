"""Boxes: their rules, their fit to an image, their files, and shapes of napari."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sparseseg.annotations import (
    Box,
    ClassTable,
    boxes_from_json,
    boxes_from_shapes,
    boxes_to_json,
    boxes_to_shapes,
    check_box_classes,
    find_class_table,
    fit_boxes,
    read_boxes,
    write_boxes,
)
from napari_sparseseg.errors import LabelError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

BOX = Box(1, 2, 4, 7, 3)
TABLE = ClassTable.from_values([1, 3])


def pixels_of(box: Box, shape: tuple[int, int]) -> set[tuple[int, int]]:
    """Go through all pixels of an image and ask each whether the box holds it."""
    return {
        (y, x)
        for y in range(shape[0])
        for x in range(shape[1])
        if box.y0 <= y < box.y1 and box.x0 <= x < box.x1
    }


def test_a_box_is_half_open() -> None:
    assert BOX.shape == (3, 5)
    assert BOX.area == 15 == len(pixels_of(BOX, (9, 9)))
    plane = np.zeros((9, 9))
    plane[BOX.slices] = 1
    assert {tuple(at) for at in np.argwhere(plane)} == pixels_of(BOX, (9, 9))


def test_numbers_of_numpy_become_pythons() -> None:
    fields: Any = [*np.array([1, 2, 4, 7]), np.uint8(3), (np.int64(5),)]
    box = Box(*fields)
    assert box == Box(1, 2, 4, 7, 3, (5,))
    json.dumps(boxes_to_json([box]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(4, 0, 3, 9, 1), r"\[4, 0, 3, 9\] ends before it starts"),
        (lambda: Box(0, 9, 3, 8, 1), r"\[0, 9, 3, 8\] ends before it starts"),
        (lambda: Box(0, 0, 3, 9, 0), "the class 0; give a class value from 1"),
        (lambda: Box(0, 0, 3, 9, 65536), "the class 65536; give"),
        (lambda: Box(0, 0, 3, 9, True), "True where an integer is expected"),
        (lambda: Box(0, 0, 3.0, 9, 1), "3.0 where an integer is expected"),  # type: ignore[arg-type]
        (lambda: Box(0, 0, 3, 9, 1, (-1,)), r"on the plane \[-1\]; count"),
        (lambda: Box(0, 0, 3, 9, 1, ("a",)), "'a' where an integer is"),  # type: ignore[arg-type]
    ],
)
def test_a_box_that_is_none_is_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        make()


def test_fitted_boxes_hold_the_same_pixels_of_the_image() -> None:
    rng = np.random.default_rng(0)
    shape = (6, 8)
    for _ in range(200):
        y0, x0 = rng.integers(-6, 10, 2).tolist()
        height, width = rng.integers(0, 12, 2).tolist()
        box = Box(y0, x0, y0 + height, x0 + width, 1)
        fitted = fit_boxes([box], shape)
        expected = pixels_of(box, shape)
        assert bool(fitted.boxes) == bool(expected)
        assert bool(fitted.empty) != bool(expected)
        for clipped in fitted.boxes:
            plane = np.zeros(shape)
            plane[clipped.slices] = 1
            assert {tuple(at) for at in np.argwhere(plane)} == expected
            assert bool(fitted.clipped) == (len(expected) < box.area)


def test_clipped_empty_and_repeated_boxes_are_named() -> None:
    inside, beyond = Box(0, 0, 2, 2, 1), Box(-3, 1, 99, 3, 2)
    empty, outside = Box(3, 3, 3, 5, 1), Box(8, 0, 12, 2, 1)
    other_class = Box(0, 0, 2, 2, 2)
    given = [empty, inside, beyond, outside, inside, other_class, Box(0, 1, 4, 3, 2)]
    fitted = fit_boxes(given, (4, 5))
    assert fitted.boxes == (inside, Box(0, 1, 4, 3, 2), other_class)
    assert fitted.places == (1, 2, 5)
    assert fitted.clipped == (beyond,)
    assert fitted.empty == (empty, outside)
    # The last covers the same pixels of this image as the one that leaves it.
    assert fitted.repeated == (inside, Box(0, 1, 4, 3, 2))
    assert fitted.notes == (
        "1 box clipped to the image: [-3, 1, 99, 3] of class 2.",
        "2 boxes skipped for having no pixel in the image: [3, 3, 3, 5] of "
        "class 1, [8, 0, 12, 2] of class 1.",
        "2 boxes skipped, since the same box was given before: [0, 0, 2, 2] of class "
        "1, [0, 1, 4, 3] of class 2.",
    )
    assert fit_boxes([inside], (4, 5)).notes == ()
    assert fit_boxes([], (4, 5)).boxes == ()


def test_boxes_of_a_volume_lie_on_its_planes() -> None:
    boxes = [Box(0, 0, 2, 2, 1, (0, 6)), Box(0, 0, 2, 2, 1, (1, 6))]
    assert fit_boxes(boxes, (2, 7, 4, 5)).boxes == tuple(boxes)
    for shape in ((4, 5), (7, 4, 5), (1, 7, 4, 5), (2, 6, 4, 5)):
        with pytest.raises(LabelError, match=r"class 1 on plane .* lies on no plane"):
            fit_boxes(boxes, shape)


def test_classes_are_checked_against_the_table() -> None:
    check_box_classes([BOX, Box(0, 0, 1, 1, 1)], TABLE)
    with pytest.raises(LabelError, match=r": 2 of 1 box, 7 of 2 boxes;.*values 1, 3"):
        check_box_classes([Box(0, 0, 1, 1, value) for value in (7, 3, 2, 7)], TABLE)


def test_a_file_keeps_boxes(tmp_path: Path) -> None:
    boxes = [BOX, Box(-1, 0, 4, 4, 1, (2, 0))]
    path = tmp_path / "case.json"
    write_boxes(path, boxes)
    assert read_boxes(path, TABLE) == boxes
    assert path.read_text() == (
        '[{"class": 3, "box_yx": [1, 2, 4, 7]}, '
        '{"class": 1, "box_yx": [-1, 0, 4, 4], "plane": [2, 0]}]\n'
    )
    write_boxes(path, [])
    assert read_boxes(path) == []
    assert [each.name for each in tmp_path.iterdir()] == ["case.json"]


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(boxes_to_json([BOX])), encoding="utf-8-sig")
    assert read_boxes(path) == [BOX]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"boxes": []}, "The boxes are .*expected is a list"),
        ([[1, 2, 3, 4]], r"A box is \[1, 2, 3, 4\], but expected is an object"),
        ([{"class": 3, "box_yx": [1, 2, 4]}], r"edges \[1, 2, 4\]; expected are four"),
        ([{"class": 3, "box_yx": 5}], "edges 5; expected are four"),
        ([{"class": 3, "box_yx": [0, 0, 1.5, 2]}], "1.5 where an integer"),
        ([{"class": "3", "box_yx": [0, 0, 1, 2]}], "'3' where an integer"),
        ([{"class": 3, "box_yx": [0, 0, 1, 2], "plane": 4}], "plane 4; expected is"),
        ([{"class": 3, "box": [0, 0, 1, 2]}], "unknown keys: box; expected"),
        ([{"box_yx": [0, 0, 1, 2]}], "missing keys: class; expected"),
        ([{"class": 3, "box_yx": [0, 0, 1, 2]}, {"class": 7}], "missing keys: box_yx"),
        ([{"class": 7, "box_yx": [0, 0, 1, 2]}], "not in the class table: 7 of 1 box"),
    ],
)
def test_data_of_another_form_is_refused(
    data: object, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(data))
    with pytest.raises(LabelError, match=message) as caught:
        read_boxes(path, TABLE)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    with pytest.raises(LabelError, match=r"case.json cannot be read: No such file"):
        read_boxes(path)
    for content in ('[{"class": 3,', "[" * 100_000, "\x00"):
        path.write_text(content)
        with pytest.raises(LabelError, match=r"case.json are not a JSON file"):
            read_boxes(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(LabelError, match=r"case.json are not a JSON file"):
        read_boxes(path)
    with pytest.raises(OutputError, match="its folder does not exist"):
        write_boxes(tmp_path / "gone" / "case.json", [BOX])


@pytest.mark.parametrize("name", ["ircadb", "sts"])
def test_real_boxes_are_read_and_written_again(
    name: str, data_dir: Path, tmp_path: Path
) -> None:
    folder = data_dir / name / "train" / "boxes"
    table = find_class_table(data_dir / name / "classes.json")
    paths = sorted(folder.glob("*.json"))
    assert paths
    for path in paths:
        boxes = read_boxes(path, table)
        data: list[dict[str, Any]] = json.loads(path.read_text())
        assert [each["class"] for each in data] == [box.class_value for box in boxes]
        write_boxes(tmp_path / path.name, boxes)
        assert (tmp_path / path.name).read_text().strip() == path.read_text().strip()


CORNERS = np.array([[0.5, 1.5], [0.5, 6.5], [3.5, 6.5], [3.5, 1.5]])


def test_a_rectangle_of_pixel_edges_is_its_box() -> None:
    drawn = boxes_from_shapes([CORNERS], ["rectangle"], [3])
    assert drawn.boxes == (BOX,)
    assert drawn.enclosed == ()
    np.testing.assert_array_equal(boxes_to_shapes([BOX])[0], CORNERS)


def test_the_order_of_the_corners_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    shapes = [rng.permutation(CORNERS) for _ in range(24)]
    drawn = boxes_from_shapes(shapes, ["polygon"] * 24, [3] * 24)
    assert set(drawn.boxes) == {BOX}
    # A polygon round these corners can also cross itself; it is told apart by nothing.
    assert drawn.enclosed == ()


def test_a_box_takes_the_pixels_whose_centres_are_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        low = rng.uniform(-1, 5, 2)
        high = low + rng.uniform(0, 4, 2)
        corners = np.array([low, (low[0], high[1]), high, (high[0], low[1])])
        (box,) = boxes_from_shapes([corners], ["rectangle"], [1]).boxes
        assert pixels_of(box, (10, 10)) == {
            (y, x)
            for y in range(10)
            for x in range(10)
            if low[0] <= y <= high[0] and low[1] <= x <= high[1]
        }


def test_other_shapes_give_their_bounding_box_and_are_told() -> None:
    tilted: NDArray[np.float64] = CORNERS @ np.array([[0.8, -0.6], [0.6, 0.8]])
    triangle = np.array([[0.5, 1.5], [3.5, 1.5], [3.5, 6.5]])
    shapes = [CORNERS, CORNERS, tilted, triangle, CORNERS + 1e-6, CORNERS[[0, 2]]]
    types = ["rectangle", "ellipse", "rectangle", "polygon", "rectangle", "line"]
    drawn = boxes_from_shapes(shapes, types, [3] * 6)
    assert drawn.enclosed == (1, 2, 3, 5)
    assert drawn.boxes[:2] == drawn.boxes[3:][:2] == (BOX, BOX)
    low, high = tilted.min(axis=0), tilted.max(axis=0)
    y0, x0, y1, x1 = drawn.boxes[2].edges
    np.testing.assert_allclose([y0, x0], low + 0.5, atol=0.5)
    np.testing.assert_allclose([y1, x1], high + 0.5, atol=0.5)


def test_shapes_lie_on_planes() -> None:
    boxes = [Box(1, 2, 4, 7, 3, (0, 5)), Box(0, 0, 1, 1, 3, (2, 0))]
    shapes = boxes_to_shapes(boxes)
    assert [shape.shape for shape in shapes] == [(4, 4), (4, 4)]
    # Other coordinates than those of the image do not come back without rounding.
    noisy = [shape + 1e-9 for shape in shapes]
    drawn = boxes_from_shapes(noisy, ["rectangle"] * 2, [3, 3])
    assert drawn.boxes == tuple(boxes)
    assert drawn.enclosed == ()


def test_napari_draws_the_boxes_where_they_are() -> None:
    shapes_layer = pytest.importorskip("napari.layers").Shapes
    boxes = [BOX, Box(0, 3, 8, 5, 300)]
    layer = shapes_layer(boxes_to_shapes(boxes), shape_type="rectangle")
    masks = layer.to_masks((9, 9))
    for box, mask in zip(boxes, masks, strict=True):
        assert {tuple(at) for at in np.argwhere(mask)} == pixels_of(box, (9, 9))
    drawn = boxes_from_shapes(layer.data, layer.shape_type, [3, 300])
    assert drawn.boxes == tuple(boxes)


@pytest.mark.parametrize(
    ("shapes", "types", "message"),
    [
        ([CORNERS], ["rectangle", "line"], "There are 1 shapes, but 2 types and 1"),
        ([CORNERS[0]], ["rectangle"], r"Shape 0 has vertices of shape \(2,\)"),
        ([CORNERS * np.nan], ["rectangle"], "Shape 0 has vertices that are no finite"),
        ([[[0, 1, 2], [1, 1, 2]]], ["line"], "Shape 0 extends over several planes"),
    ],
)
def test_shapes_without_a_box_are_refused(
    shapes: list[Any], types: list[str], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        boxes_from_shapes(shapes, types, [1])


def test_data_that_is_no_list_is_shortened_in_the_message() -> None:
    with pytest.raises(LabelError) as caught:
        boxes_from_json({str(each): each for each in range(1000)})
    assert len(str(caught.value)) < 200
