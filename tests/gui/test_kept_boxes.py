"""Boxes are on disk as soon as they are drawn, and come back after a crash."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from npe2 import PluginManager, PluginManifest
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_sparseseg.annotations.boxes import Box, boxes_to_shapes, write_boxes
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import kept_boxes, session_folder
from napari_sparseseg.gui.boxes_classes import BoxClasses
from napari_sparseseg.gui.boxes_layer import class_names, new_boxes_for, read_boxes
from napari_sparseseg.gui.homes import is_at_home, settle
from napari_sparseseg.gui.kept_boxes import KeptBoxes
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.restore import open_boxes_again
from napari_sparseseg.gui.restore_images import nobody
from napari_sparseseg.gui.restore_question import BOXES, STROKES, offer
from napari_sparseseg.gui.session_boxes import (
    FILE,
    has_boxes,
    read_kept_boxes,
    write_kept_boxes,
)
from napari_sparseseg.gui.session_folder import find_crashed
from napari_sparseseg.gui.session_labels import restore
from napari_sparseseg.gui.writers import write_single_boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import napari
    from pytestqt.qtbot import QtBot

CLASSES = ClassTable().add("background").add("liver").add("tumour")
FIRST, SECOND = Box(4, 6, 14, 18, 2, (1,)), Box(30, 30, 34, 38, 3, (2,))
PLACE: dict[str, Any] = {"scale": (5, 0.5, 0.5), "translate": (0, 10, -7)}


class Desk:
    """An image with an empty layer of boxes that is kept."""

    def __init__(self, root: Path) -> None:
        self.viewer = ViewerModel()
        self.mirror = Mirror(root / "a.sparseseg")
        self.classes = BoxClasses(self.viewer, list)
        self.classes.use(CLASSES)
        self.kept = KeptBoxes(self.viewer, self.mirror, self.classes)
        self.image = Image(np.zeros((4, 40, 48), np.int16), name="ct", **PLACE)
        self.shapes = Shapes(**new_boxes_for(self.image, "ct boxes", CLASSES))
        self.viewer.layers.extend([self.image, self.shapes])
        self.kept.follow(self.shapes, self.image)

    @property
    def boxes(self) -> list[tuple[Box, ...]]:
        """Those on disk."""
        return [each.boxes for each in read_kept_boxes(self.mirror.folder)[1]]

    def draw(self, *boxes: Box) -> None:
        names = [CLASSES.by_value(box.class_value).name for box in boxes]
        for box, name in zip(boxes, names, strict=True):
            self.shapes.feature_defaults = {"class": name}
            self.shapes.add_rectangles(boxes_to_shapes([box]))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where sessions are kept; none of them is in use."""
    monkeypatch.setattr(session_folder, "default_root", lambda: tmp_path)
    monkeypatch.setattr(session_folder, "is_in_use", lambda _: False)
    return tmp_path


@pytest.fixture
def desk(qtbot: QtBot, told: list[str], root: Path) -> Iterator[Desk]:
    session_folder._SAVED.clear()
    desk = Desk(root)
    yield desk
    desk.kept.close()


@pytest.fixture
def parent(qtbot: QtBot) -> QWidget:
    widget = QWidget()
    qtbot.addWidget(widget)
    return widget


def offer_boxes(
    viewer: ViewerModel, parent: QWidget, keep: Callable[[Any, Any], bool]
) -> QMessageBox | None:
    """Ask as the dock of boxes does."""

    def open_again(folder: Path) -> None:
        open_boxes_again(viewer, folder, nobody, keep)

    return offer(parent, BOXES, {BOXES: open_again})


def press(box: QMessageBox | None, text: str) -> None:
    assert box is not None
    (button,) = [each for each in box.buttons() if each.text() == text]
    button.click()


def test_drawn_boxes_are_on_disk_within_half_a_second(desk: Desk, qtbot: QtBot) -> None:
    assert not (desk.mirror.folder / FILE).exists()
    desk.draw(FIRST, SECOND)
    qtbot.waitUntil(lambda: desk.boxes == [(FIRST, SECOND)], timeout=500)
    classes, (record,) = read_kept_boxes(desk.mirror.folder)
    assert classes == CLASSES
    assert (record.name, record.image, record.shape) == ("ct boxes", "ct", (4, 40, 48))
    # Moved, and given another class, while more comes all the time.
    desk.shapes.data = boxes_to_shapes([replace(FIRST, y0=2), SECOND])
    desk.shapes.features = {"class": ["tumour", "tumour"]}
    moved = replace(FIRST, y0=2, class_value=3)
    qtbot.waitUntil(lambda: desk.boxes == [(moved, SECOND)], timeout=500)


def test_a_slow_disk_does_not_stop_the_window(
    desk: Desk, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []

    def write(*given: Any) -> None:
        threads.append(threading.current_thread() is threading.main_thread())
        write_kept_boxes(*given)

    monkeypatch.setattr(kept_boxes, "write_kept_boxes", write)
    desk.draw(FIRST)
    qtbot.waitUntil(lambda: desk.boxes == [(FIRST,)], timeout=500)
    # It goes with its image.
    desk.viewer.layers.remove(desk.shapes)
    desk.kept.forget(desk.shapes)
    qtbot.waitUntil(
        lambda: not read_kept_boxes(desk.mirror.folder)[1][0].present, timeout=500
    )
    assert set(threads) == {False}


def test_boxes_of_a_deleted_class_are_kept(desk: Desk) -> None:
    desk.draw(FIRST, SECOND)
    desk.classes.use(CLASSES.removed(3))
    desk.kept.flush()
    classes, (record,) = read_kept_boxes(desk.mirror.folder)
    assert [classes.by_value(box.class_value).name for box in record.boxes] == [
        "liver",
        "tumour",
    ]


@pytest.mark.parametrize("name", ["ct", "renamed"])
def test_after_a_crash_boxes_come_back_on_their_image(
    desk: Desk, parent: QWidget, name: str
) -> None:
    desk.draw(FIRST, SECOND)
    desk.kept.flush()
    viewer = ViewerModel()
    viewer.add_image(np.zeros((40, 48)), name="flat")
    image = viewer.add_image(desk.image.data, name=name, scale=(2, 2, 2))
    opened: list[Any] = []

    def keep(boxes: Any, labels: Any) -> bool:
        opened.extend(boxes)
        return not labels

    # The dock of strokes leaves them to that of boxes.
    assert offer(parent, STROKES, {STROKES: lambda _: None}) is None
    press(offer_boxes(viewer, parent, keep), "Open")
    ((shapes, on),) = opened
    assert on is image
    assert shapes.name == "ct boxes"
    assert class_names(shapes) == ["liver", "tumour"]
    assert ClassTable.from_json(shapes.metadata[CLASSES_KEY]) == CLASSES
    drawn = [each.box for each in read_boxes(shapes, image, CLASSES)]
    assert drawn == [FIRST, SECOND]
    assert offer_boxes(viewer, parent, keep) is None


def test_boxes_without_their_image_are_offered_again(
    desk: Desk, parent: QWidget, told: list[str]
) -> None:
    desk.draw(FIRST)
    desk.kept.flush()
    viewer = ViewerModel()
    press(offer_boxes(viewer, parent, lambda *_: True), "Open")
    (once,) = told
    assert "'ct boxes' lie on 'ct', and no image of its shape (4, 40, 48)" in once
    assert not viewer.layers
    image = viewer.add_image(desk.image.data)
    # Not before they are kept.
    press(offer_boxes(viewer, parent, lambda *_: False), "Open")
    press(offer_boxes(viewer, parent, lambda *_: True), "Open")
    assert [type(layer) for layer in viewer.layers] == [Image, Shapes, Shapes]
    assert viewer.layers[0] is image


def test_opened_boxes_are_kept_in_the_new_session(
    desk: Desk, parent: QWidget, root: Path
) -> None:
    desk.draw(FIRST)
    desk.kept.flush()
    viewer = ViewerModel()
    viewer.add_image(desk.image.data)
    mirror = Mirror(root / "b.sparseseg")
    kept = KeptBoxes(viewer, mirror, BoxClasses(viewer, list))
    press(offer_boxes(viewer, parent, kept.keep), "Open")
    classes, (record,) = read_kept_boxes(mirror.folder)
    (box,) = record.boxes
    assert classes.by_value(box.class_value).name == "liver"
    assert find_crashed(boxes=True) == [mirror.folder]
    kept.close()


def test_a_normal_end_keeps_boxes_and_asks_nothing(desk: Desk, parent: QWidget) -> None:
    desk.draw(FIRST)
    # As a viewer that is closed by a script does.
    desk.viewer.layers.remove(desk.shapes)
    desk.kept.forget(desk.shapes)
    desk.kept.close()
    assert desk.boxes == [(FIRST,)]
    assert offer_boxes(desk.viewer, parent, lambda *_: True) is None


def test_a_normal_end_leaves_nothing_that_is_empty_or_saved(
    desk: Desk, root: Path
) -> None:
    desk.draw(FIRST)
    desk.kept.flush()
    assert has_boxes(desk.mirror.folder)
    data, meta, _ = desk.shapes.as_layer_data_tuple()
    (root / "saved").mkdir()
    write_single_boxes(str(root / "saved" / "a.json"), data, meta)
    desk.kept.close()
    assert not desk.mirror.folder.exists()

    other = Desk(root)
    other.draw(FIRST)
    other.kept.flush()
    other.shapes.data = []
    other.kept.close()
    assert not other.mirror.folder.exists()


def test_boxes_of_a_file_are_kept_once_they_are_changed(
    desk: Desk, make_napari_viewer: Callable[..., napari.Viewer], root: Path
) -> None:
    write_boxes(root / "a.json", [FIRST])
    viewer: Any = make_napari_viewer()
    image = viewer.add_image(desk.image.data)
    (shapes,) = viewer.open(str(root / "a.json"), plugin="napari-sparseseg")
    desk.kept.follow(shapes, image)
    desk.kept.flush()
    assert desk.boxes == []
    moved = replace(FIRST, y0=2)
    shapes.data = boxes_to_shapes([moved])
    desk.kept.flush()
    ((box,),) = desk.boxes
    assert box.edges == moved.edges


def test_a_full_disk_is_told_once_and_tried_again(
    desk: Desk, told: list[str], qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OutputError("the disk is full.") from OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(kept_boxes, "write_kept_boxes", fail)
        patched.setattr(kept_boxes, "RETRY_MS", 50)
        desk.draw(FIRST)
        desk.kept.flush()
        desk.kept.flush()
        assert told == ["The boxes are not kept on disk: the disk is full."]
        assert not desk.kept.keep([], [])
    qtbot.waitUntil(lambda: desk.boxes == [(FIRST,)], timeout=2000)
    assert desk.kept.keep([], [])


def test_labels_that_masks_went_into_are_kept(
    desk: Desk, parent: QWidget, qtbot: QtBot
) -> None:
    desk.draw(FIRST)
    data = np.zeros((4, 40, 48), np.uint8)
    labels = Labels(data, name="ct labels", **PLACE)
    desk.viewer.add_layer(labels)
    labels.data_setitem((np.array([1]), np.array([5]), np.array([7])), 2)
    assert desk.kept.keep_labels(labels)
    # And what is painted on them later.
    labels.data_setitem((np.array([1]), np.array([6]), np.array([7])), 3)
    desk.kept.flush()

    def kept_values() -> list[int]:
        (layer,) = restore(desk.mirror.folder).labels
        return sorted(layer.data[layer.data > 0].tolist())

    qtbot.waitUntil(lambda: kept_values() == [2, 3])
    assert restore(desk.mirror.folder).classes == CLASSES
    viewer = ViewerModel()
    viewer.add_image(desk.image.data)
    opened: list[Labels] = []

    def keep(_: Any, layers: list[Labels]) -> bool:
        opened.extend(layers)
        return True

    press(offer_boxes(viewer, parent, keep), "Open")
    assert [layer.name for layer in opened] == ["ct labels"]


def test_damaged_boxes_are_told_and_offered_again(
    desk: Desk, parent: QWidget, told: list[str]
) -> None:
    desk.draw(FIRST)
    desk.kept.flush()
    (desk.mirror.folder / FILE).write_text('{"format": 1')
    press(offer_boxes(desk.viewer, parent, lambda *_: True), "Open")
    (once,) = told
    assert "cannot be restored" in once
    assert offer_boxes(desk.viewer, parent, lambda *_: True) is not None


def test_the_image_of_boxes_is_opened_with_them(
    desk: Desk, parent: QWidget, npe2pm: PluginManager, root: Path
) -> None:
    npe2pm.register(PluginManifest.from_distribution("napari"))
    tifffile.imwrite(root / "ct 2.tif", np.zeros((5, 40, 48), np.int16))
    (image,) = desk.viewer.open(root / "ct 2.tif", plugin="napari")
    shapes = Shapes(**new_boxes_for(image, "boxes", CLASSES))
    desk.viewer.add_layer(shapes)
    desk.kept.follow(shapes, image)
    shapes.feature_defaults = {"class": "liver"}
    shapes.add_rectangles(boxes_to_shapes([FIRST]))
    desk.kept.flush()
    desk.kept._images.flush()
    viewer = ViewerModel()
    opened: list[Any] = []

    def keep(boxes: Any, _: Any) -> bool:
        opened.extend(boxes)
        return True

    press(offer_boxes(viewer, parent, keep), "Open")
    ((again, on),) = opened
    assert on.source.path == str(root / "ct 2.tif")
    assert [each.box for each in read_boxes(again, on, CLASSES)] == [FIRST]


def test_boxes_are_not_kept_as_those_of_another_image(desk: Desk) -> None:
    settle(desk.shapes, desk.image)
    desk.draw(FIRST)
    other = Image(np.zeros((4, 40, 48), np.int16), name="other", **PLACE)
    desk.viewer.layers.append(other)
    desk.kept.follow(desk.shapes, other)
    desk.kept.flush()
    (record,) = read_kept_boxes(desk.mirror.folder)[1]
    assert (record.name, record.image) == ("ct boxes", "ct")


def test_boxes_on_images_of_one_shape_come_back_each_on_its_own(
    desk: Desk, parent: QWidget
) -> None:
    desk.draw(FIRST)
    other = Image(desk.image.data, name="other", **PLACE)
    on_other = Shapes(**new_boxes_for(other, "other boxes", CLASSES))
    desk.viewer.layers.extend([other, on_other])
    desk.kept.follow(on_other, other)
    on_other.feature_defaults = {"class": "tumour"}
    on_other.add_rectangles(boxes_to_shapes([SECOND]))
    desk.kept.flush()
    viewer = ViewerModel()
    images = {
        name: viewer.add_image(desk.image.data, name=name) for name in ("other", "ct")
    }
    opened: dict[str, Any] = {}

    def keep(boxes: Any, _: Any) -> bool:
        opened.update({shapes.name: (shapes, on) for shapes, on in boxes})
        return True

    press(offer_boxes(viewer, parent, keep), "Open")
    for name, box in (("ct", FIRST), ("other", SECOND)):
        shapes, on = opened[f"{name} boxes"]
        assert on is images[name]
        assert [each.box for each in read_boxes(shapes, on, CLASSES)] == [box]
        assert is_at_home(shapes, on, viewer.layers)
