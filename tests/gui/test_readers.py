"""Boxes go to files and come back as they were; other JSON is left to others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Layer, Shapes

from napari_sparseseg.annotations.boxes import Box, boxes_to_shapes, read_boxes
from napari_sparseseg.annotations.classes import ClassTable, read_class_table
from napari_sparseseg.errors import LabelError, OutputError
from napari_sparseseg.gui import boxes_layer
from napari_sparseseg.gui.boxes_layer import class_names, new_boxes_for
from napari_sparseseg.gui.readers import boxes_reader
from napari_sparseseg.gui.writers import write_single_boxes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari

CLASSES = ClassTable().add("background").add("liver").add("tumour")
BOXES = [Box(4, 6, 14, 18, 2), Box(30, 30, 34, 38, 3)]


def open_file(path: Path) -> Shapes:
    reader = boxes_reader(str(path))
    assert reader is not None
    (opened,) = reader(str(path))
    layer = Layer.create(*opened)
    assert isinstance(layer, Shapes)
    return layer


def save(layer: Shapes, path: Path) -> list[str]:
    """Save as napari does."""
    data, meta, _ = layer.as_layer_data_tuple()
    return write_single_boxes(str(path), data, meta)


def test_real_boxes_come_back(data_dir: Path, tmp_path: Path) -> None:
    files = sorted((data_dir / "ircadb" / "train" / "boxes").glob("*.json"))
    if not files:
        pytest.skip("there are no real boxes")
    for file in files:
        again = tmp_path / file.name
        save(open_file(file), again)
        assert read_boxes(again) == read_boxes(file)


def test_classes_and_planes_come_back(tmp_path: Path) -> None:
    image = Image(np.zeros((4, 40, 48)), scale=(5, 0.5, 0.5))
    layer = Shapes(**new_boxes_for(image, "boxes", CLASSES))
    boxes = [Box(4, 6, 14, 18, 2, (1,)), Box(30, 30, 34, 38, 3, (2,))]
    layer.add_rectangles(boxes_to_shapes(boxes))
    layer.features = {"class": ["liver", "tumour"]}
    written = save(layer, tmp_path / "a.b.json")
    assert written == [
        str(tmp_path / name) for name in ("a.b.json", "a.b.classes.json")
    ]
    assert read_class_table(written[1]) == CLASSES
    assert json.loads((tmp_path / "a.b.json").read_text())[0]["plane"] == [1]
    opened = open_file(tmp_path / "a.b.json")
    assert class_names(opened) == ["liver", "tumour"]
    assert opened.name == "a.b"
    np.testing.assert_array_equal(opened.data, layer.data)
    assert boxes_layer.is_ours(opened)


def test_numbers_are_class_values_and_every_shape_needs_a_class(
    tmp_path: Path,
) -> None:
    layer = Shapes(boxes_to_shapes(BOXES), features={"class": [7, 2]}, name="mine")
    save(layer, tmp_path / "a.json")
    assert [box.class_value for box in read_boxes(tmp_path / "a.json")] == [7, 2]
    with pytest.raises(LabelError, match="Shape 1 of 'mine' has no class"):
        save(Shapes(boxes_to_shapes(BOXES), name="mine"), tmp_path / "b.json")
    with pytest.raises(OutputError, match=r"suffix \.json"):
        save(layer, tmp_path / "a.png")
    assert not (tmp_path / "b.json").exists()


def test_the_class_table_of_labels_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "a.classes.json").write_text(json.dumps(CLASSES.to_json()))
    layer = Shapes(boxes_to_shapes(BOXES), features={"class": [7, 2]})
    with pytest.raises(OutputError, match="other classes"):
        save(layer, tmp_path / "a.json")
    assert read_class_table(tmp_path / "a.classes.json") == CLASSES
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(CLASSES.to_json()),
        '[{"class": 2}]',
        "[1, 2]",
        "{",
        '[{"class": 1, "box_yx": [0, 0, 4, 4]}, '
        '{"class": 1, "box_yx": [0, 0, 4, 4], "plane": [1]}]',
    ],
)
def test_other_json_is_left_to_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert boxes_reader(str(tmp_path / "a.json")) is None
    assert boxes_reader([str(tmp_path / "a.json")]) is None


def test_boxes_lie_on_the_only_image_that_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(
        Shapes(boxes_to_shapes(BOXES), features={"class": [3, 2]}), tmp_path / "a.json"
    )
    viewer = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    viewer.add_image(np.zeros((9, 9)), scale=(7, 7))
    viewer.add_image(np.zeros((3, 40, 48)), scale=(7, 7, 7))
    image = viewer.add_image(np.zeros((40, 48)), scale=(0.5, 0.5), translate=(1, 2))
    opened = open_file(tmp_path / "a.json")
    np.testing.assert_array_equal(opened.scale, image.scale)
    np.testing.assert_array_equal(opened.translate, image.translate)
    drawn = boxes_layer.read_boxes(
        opened, image, ClassTable().add("1").add("class 2").add("class 3")
    )
    assert [(each.class_name, each.box) for each in drawn] == [
        ("class 3", Box(4, 6, 14, 18, 3)),
        ("class 2", Box(30, 30, 34, 38, 2)),
    ]
    viewer.add_image(np.zeros((99, 99)))
    np.testing.assert_array_equal(open_file(tmp_path / "a.json").scale, (1, 1))


def test_napari_finds_reader_and_writer(
    make_napari_viewer: Callable[..., napari.Viewer], tmp_path: Path
) -> None:
    viewer: Any = make_napari_viewer()
    image = viewer.add_image(np.zeros((40, 48)))
    layer = viewer.add_shapes(**new_boxes_for(image, "boxes", CLASSES))
    layer.add_rectangles(boxes_to_shapes(BOXES))
    layer.features = {"class": ["liver", "tumour"]}
    viewer.layers.selection = {layer}
    path = str(tmp_path / "a.json")
    saved = viewer.layers.save(path, selected=True, plugin="napari-sparseseg")
    assert saved == [path, str(tmp_path / "a.classes.json")]
    (opened,) = viewer.open(path, plugin="napari-sparseseg")
    assert class_names(opened) == ["liver", "tumour"]
