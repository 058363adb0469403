"""The dock "Boxes" in a real window, with the engine behind it."""

from __future__ import annotations

import contextlib
import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import tifffile
from napari.layers import Labels
from PIL import Image as Picture
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox, QTabBar

from napari_sparseseg.annotations.boxes import Box, boxes_to_shapes
from napari_sparseseg.annotations.classes import ClassTable, read_class_table
from napari_sparseseg.engine.messages import MaskSettings
from napari_sparseseg.gui import (
    boxes,
    boxes_settings,
    label_and_train,
    session_boxes,
    session_folder,
    settings,
)
from napari_sparseseg.gui.boxes import Boxes
from napari_sparseseg.gui.boxes_classes import find_training
from napari_sparseseg.gui.boxes_layer import layer_of_boxes
from napari_sparseseg.gui.boxes_results import MadeMask
from napari_sparseseg.gui.engine_link import EngineLink
from napari_sparseseg.gui.label_and_train import LabelAndTrain
from napari_sparseseg.gui.launch import DOCK, PLUGIN
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.session_boxes import BoxesRecord, write_kept_boxes
from napari_sparseseg.gui.session_labels import restore
from napari_sparseseg.io.export import export_labels
from napari_sparseseg.samples import abdomen_phantom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari
    from pytestqt.qtbot import QtBot

PATIENCE_MS = 300_000

STUB, QUICK = (
    Path(__file__).with_name(f"{name}_engine.py") for name in ("stub", "quick")
)


@pytest.fixture
def viewer(
    make_napari_viewer: Callable[..., napari.Viewer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[napari.Viewer]:
    """Return a viewer whose docks keep nothing outside of the test's folder."""
    monkeypatch.setattr(session_folder, "default_root", lambda: tmp_path / "sessions")
    for module in (boxes, label_and_train):
        monkeypatch.setattr(module, "log_folder", lambda: tmp_path)
        monkeypatch.setattr(module, "start_log", lambda: None)
    for kept in (settings, boxes_settings):
        monkeypatch.setattr(kept, "restore", lambda _: None)
        monkeypatch.setattr(kept, "keep", lambda _: None)
    monkeypatch.setattr(settings, "follow", lambda _: None)
    viewer = make_napari_viewer(show=True)
    # The larger, the longer it takes to draw without a graphics card.
    viewer.window.resize(1000, 700)
    yield viewer
    # A viewer that is closed has no docks any more.
    with contextlib.suppress(RuntimeError):
        training = find_training(viewer)
        if training is not None:
            training.controller.close()


@pytest.fixture
def stubbed(viewer: napari.Viewer, monkeypatch: pytest.MonkeyPatch) -> napari.Viewer:
    """Return it with docks whose engines do nothing."""
    command = [sys.executable, str(STUB), "works"]
    for module in (boxes, label_and_train):
        monkeypatch.setattr(
            module, "EngineLink", functools.partial(EngineLink, command=command)
        )
    return viewer


def open_boxes(viewer: napari.Viewer) -> Boxes:
    widget = Boxes(viewer)
    viewer.window.add_dock_widget(widget, name="Boxes")
    return widget


def dice(labels: Any, truth: Any, value: int) -> float:
    mine, true = labels == value, truth == value
    return float(2 * (mine & true).sum() / (mine.sum() + true.sum()))


def test_layers_are_found_and_followed(stubbed: napari.Viewer) -> None:
    stubbed.add_image(np.zeros((40, 40)), name="ct")
    widget = open_boxes(stubbed)
    widget.dock.layers.new_boxes_button.click()
    shapes: Any = widget.controller.shapes
    assert shapes is stubbed.layers["ct boxes"]
    assert shapes.mode == "add_rectangle"
    widget.dock.layers.new_labels_button.click()
    assert widget.controller.labels is stubbed.layers["ct labels"]
    assert [layer.name for layer in stubbed.layers] == ["ct", "ct labels", "ct boxes"]
    # Boxes are drawn on.
    assert stubbed.layers.selection.active is stubbed.layers["ct boxes"]
    # Labels that do not lie on the image are not offered.
    stubbed.add_labels(np.zeros((9, 9), np.uint8), name="small")
    assert widget.dock.layers.labels.names == ["ct labels"]
    stubbed.layers.remove("small")

    stubbed.layers["ct"].name = "slice"
    assert widget.dock.layers.images.currentText() == "slice"
    stubbed.layers.remove("ct boxes")
    assert widget.controller.shapes is None
    widget.controller.close()


def propose(widget: Boxes, box: Box) -> None:
    """Draw a box in new boxes on the chosen image; its mask is all of it."""
    widget.dock.layers.new_boxes_button.click()
    shapes, sheet = widget.controller.shapes, widget.controller.sheet
    assert shapes is not None
    assert sheet is not None
    widget.controller.draw(box.class_value)
    shapes.add_rectangles(boxes_to_shapes([box]))
    widget.controller.read()
    mask = np.ones(box.shape, np.uint8)
    sheet.results.put(MadeMask(box, mask, mask.astype(np.float32), MaskSettings()))
    widget.controller._making.made.emit(sheet, box)
    widget.controller._show_masks()


def test_masks_go_into_labels_of_their_image(stubbed: napari.Viewer) -> None:
    stubbed.add_image(np.zeros((40, 40)), name="a")
    stubbed.add_image(np.zeros((40, 40)), name="b")
    strokes = stubbed.add_labels(np.ones((40, 40), np.uint8), name="strokes")
    widget = open_boxes(stubbed)
    layers, combo = widget.dock.layers, widget.dock.layers.labels
    layers.images.setCurrentText("a")
    # Nobody has said that masks shall go there.
    assert combo.names == ["strokes"]
    assert combo.currentText() == ""
    propose(widget, Box(4, 4, 9, 9, 2))
    widget.dock.table.accept_all_button.click()
    accepted = stubbed.layers["a labels"]
    assert accepted.data.sum() == 50
    assert combo.currentText() == "a labels"

    layers.images.setCurrentText("b")
    assert combo.names == ["strokes"]
    assert widget.controller.labels is None
    propose(widget, Box(20, 20, 25, 25, 2))
    widget.dock.table.accept_all_button.click()
    assert accepted.data.sum() == stubbed.layers["b labels"].data.sum() == 50
    assert (strokes.data == 1).all()
    # Coming back to an image is coming back to its labels, whatever their name is.
    accepted.name = "organs"
    layers.images.setCurrentText("a")
    assert combo.names == ["strokes", "organs"]
    assert widget.controller.labels is accepted

    # Both docks know whose labels are whose. This one begins with the first of each.
    training = LabelAndTrain(stubbed)
    stubbed.window.add_dock_widget(training, name="Label and train")
    assert training.controller.pairs.labels is strokes
    training.controller.pairs.choose(stubbed.layers["b"], accepted)
    assert "'organs' were painted on 'a'" in training.state.status
    layers.images.setCurrentText("b")
    assert combo.names == ["b labels"]
    widget.controller.close()


def test_painted_pixels_are_replaced_only_when_the_user_agrees(
    stubbed: napari.Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers = [False, True]

    def agrees(_parent: object, _title: str, question: str) -> bool:
        asked.append(question)
        return answers[len(asked) - 1]

    monkeypatch.setattr(boxes, "agrees", agrees)
    stubbed.add_image(np.zeros((40, 40)), name="ct")
    strokes = stubbed.add_labels(np.zeros((40, 40), np.uint8), name="strokes")
    strokes.data[4, 4:7] = 1
    widget = open_boxes(stubbed)
    widget.dock.layers.labels.setCurrentText("strokes")
    propose(widget, Box(4, 4, 9, 9, 2))
    table = widget.dock.table
    table.accept_all_button.click()
    assert "would replace 3 painted pixels in 'strokes'" in asked[0]
    assert strokes.data.sum() == 3
    assert widget.state.rows[0].status == "proposed"
    widget.dock.train_button.click()
    assert len(asked) == 2
    assert (strokes.data == 2).sum() == 25
    assert (strokes.data == 1).sum() == 40 * 40 - 25
    table.undo_button.click()
    assert strokes.data.sum() == 3
    # Where nothing is lost nobody is asked.
    strokes.data[:] = 0
    table.accept_all_button.click()
    assert len(asked) == 2
    assert strokes.data.sum() == 50
    widget.controller.close()


def test_docks_lie_over_each_other(stubbed: napari.Viewer, qtbot: QtBot) -> None:
    window = stubbed.window
    first, training = window.add_plugin_dock_widget(PLUGIN, DOCK)
    qtbot.waitUntil(training.isVisible)
    height = training.height()
    second, widget = window.add_plugin_dock_widget(PLUGIN, "Boxes")
    main = second.parentWidget()
    qtbot.waitUntil(lambda: main.tabifiedDockWidgets(second) == [first])
    qtbot.waitUntil(lambda: widget.height() > 0.9 * height)
    (bar,) = [
        bar
        for bar in main.findChildren(QTabBar)
        if bar.count() == 2 and bar.parentWidget() is main
    ]
    # What Qt would take for the mark of a key is not shown.
    assert not any("&" in bar.tabText(place) for place in range(2))
    assert "Boxes" in bar.tabText(bar.currentIndex())
    # Who wants to see both pulls them apart.
    main.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, second)
    second.hide()
    second.show()
    qtbot.wait(50)
    assert main.tabifiedDockWidgets(second) == []
    widget.controller.close()


@pytest.mark.parametrize("first", ["boxes", "training"])
def test_classes_are_those_of_label_and_train(
    stubbed: napari.Viewer, qtbot: QtBot, first: str
) -> None:
    stubbed.add_image(np.zeros((40, 40)), name="ct")

    def open_training() -> LabelAndTrain:
        widget = LabelAndTrain(stubbed)
        stubbed.window.add_dock_widget(widget, name="Label and train")
        return widget

    training = open_training() if first == "training" else None
    widget = open_boxes(stubbed)
    widget.controller.add_class("liver")
    widget.dock.layers.new_boxes_button.click()
    box = [[4, 4], [4, 20], [20, 20], [20, 4]]
    stubbed.layers["ct boxes"].add_rectangles([box])
    widget.controller.read()
    if training is None:
        training = open_training()
        widget.controller.read()
    names = ["background", "structure", "liver"]
    assert list(training.state.classes.names) == names
    assert list(widget.state.classes.names) == names
    training.controller.classes.rename(3, "Leber")
    assert list(widget.state.classes.names)[2] == "Leber"
    qtbot.waitUntil(lambda: widget.state.rows[0].class_name == "Leber")
    widget.controller.add_class("spleen")
    assert list(training.state.classes.names)[3] == "spleen"
    # They stay when the other dock is closed.
    training.controller.close()
    widget.controller.add_class("kidney")
    assert list(widget.state.classes.names)[3:] == ["spleen", "kidney"]
    widget.controller.close()


def test_shapes_of_others_stay_as_they_are_until_they_are_chosen(
    stubbed: napari.Viewer,
) -> None:
    stubbed.add_image(np.zeros((40, 40)), name="ct")
    box = [[4, 4], [4, 20], [20, 20], [20, 4]]
    theirs: Any = stubbed.add_shapes([box], name="theirs", edge_color="red")
    widget = open_boxes(stubbed)
    chosen: Any = widget.controller.shapes
    assert chosen is None
    assert "class" not in theirs.features
    np.testing.assert_array_equal(theirs.edge_color, [[1, 0, 0, 1]])
    widget.dock.layers.boxes.setCurrentText("theirs")
    chosen = widget.controller.shapes
    assert chosen is theirs
    assert theirs.features["class"].tolist() == ["structure"]
    widget.controller.close()


def test_a_class_that_is_deleted_in_label_and_train_stays_deleted(
    stubbed: napari.Viewer, qtbot: QtBot
) -> None:
    stubbed.add_image(np.zeros((40, 40)), name="ct")
    training = LabelAndTrain(stubbed)
    stubbed.window.add_dock_widget(training, name="Label and train")
    widget = open_boxes(stubbed)
    widget.controller.add_class("liver")
    widget.dock.layers.new_boxes_button.click()
    stubbed.layers["ct boxes"].add_rectangles([[[4, 4], [4, 20], [20, 20], [20, 4]]])
    widget.controller.read()
    training.controller.classes.delete(3)
    qtbot.waitUntil(lambda: widget.state.rows[0].status == "skipped")
    widget.controller.read()
    assert training.state.classes.names == ("background", "structure")
    problem = widget.state.rows[0].problem
    assert problem == "the class 'liver' is not in the table"
    # The box was not lost.
    widget.controller.add_class("liver")
    qtbot.waitUntil(lambda: widget.state.rows[0].status == "drawn")
    widget.controller.close()


def open_with_mask(viewer: napari.Viewer) -> Boxes:
    """Open the dock on an image with a box, whose mask is all of it."""
    viewer.add_image(np.zeros((40, 40)), name="ct")
    widget = open_boxes(viewer)
    widget.dock.layers.new_boxes_button.click()
    viewer.layers["ct boxes"].add_rectangles([[[4, 4], [4, 20], [20, 20], [20, 4]]])
    widget.controller.read()
    sheet = widget.controller.sheet
    assert sheet is not None
    (box,) = sheet.boxes()
    mask = np.ones(box.shape, np.uint8)
    sheet.results.put(MadeMask(box, mask, mask.astype(np.float32), MaskSettings()))
    return widget


def test_masks_stay_when_label_and_train_brings_other_values(
    stubbed: napari.Viewer,
) -> None:
    widget = open_with_mask(stubbed)
    controller = widget.controller
    painted = np.zeros((40, 40), np.uint8)
    painted[0, :9], painted[2, :9] = 1, 2
    table = ClassTable().add("gland").add("stroma")
    stubbed.add_labels(painted, metadata={CLASSES_KEY: table.to_json()})
    training = LabelAndTrain(stubbed)
    stubbed.window.add_dock_widget(training, name="Label and train")
    controller.read()
    (row,) = widget.state.rows
    assert (row.class_value, row.status) == (3, "proposed")
    # Another model brings classes of its own.
    training.controller.classes.use(ClassTable().add("lumen").add("structure"))
    controller.read()
    (row,) = widget.state.rows
    assert (row.class_value, row.status) == (2, "proposed")
    widget.controller.close()


def test_accepted_masks_are_kept_by_one_dock_at_a_time(
    stubbed: napari.Viewer, tmp_path: Path
) -> None:
    widget = open_with_mask(stubbed)
    controller = widget.controller
    controller._show_masks()
    controller.accept((0,))
    (mine,) = (tmp_path / "sessions").iterdir()
    assert session_folder.has_labels(mine)
    training = LabelAndTrain(stubbed)
    stubbed.window.add_dock_widget(training, name="Label and train")
    controller.read()
    (other,) = set((tmp_path / "sessions").iterdir()) - {mine}
    assert not session_folder.has_labels(mine)
    (kept,) = restore(other).labels
    np.testing.assert_array_equal(kept.data, stubbed.layers["ct labels"].data)
    # Without the other dock it is kept here again.
    training.controller.close()
    controller.undo()
    controller.accept((0,))
    (kept,) = [each for each in restore(mine).labels if each.present]
    np.testing.assert_array_equal(kept.data, stubbed.layers["ct labels"].data)
    controller.close()
    assert session_boxes.has_boxes(mine)
    assert not session_folder.find_crashed(boxes=True)


def test_boxes_of_a_crash_are_offered_when_the_dock_opens(
    stubbed: napari.Viewer, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = session_folder.new_folder()
    session_folder.take(crashed)
    record = BoxesRecord("ct boxes", "ct", (40, 40), (Box(4, 6, 14, 18, 2),))
    write_kept_boxes(crashed, [record], ClassTable().add("lumen").add("gland"))
    in_use = session_folder.is_in_use
    monkeypatch.setattr(
        session_folder, "is_in_use", lambda each: each != crashed and in_use(each)
    )
    stubbed.add_image(np.zeros((9, 9)), name="other")
    stubbed.add_image(np.zeros((40, 40)), name="ct")
    widget = open_boxes(stubbed)
    qtbot.waitUntil(lambda: bool(widget.dock.findChildren(QMessageBox)))
    (question,) = widget.dock.findChildren(QMessageBox)
    assert "Your boxes of" in question.text()
    (button,) = [each for each in question.buttons() if each.text() == "Open"]
    button.click()
    assert widget.controller.shapes is stubbed.layers["ct boxes"]
    assert widget.controller.image is stubbed.layers["ct"]
    (row,) = widget.state.rows
    assert (row.class_name, row.place) == ("gland", "10 x 12 px")
    assert not (crashed / "open.json").exists()
    (mine,) = session_folder.default_root().glob("*/open.json")
    assert session_boxes.has_boxes(mine.parent)
    widget.controller.close()


def test_strokes_and_boxes_of_a_crash_come_back_with_one_question(
    stubbed: napari.Viewer, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = ClassTable().add("lumen").add("gland")
    strokes, crashed = session_folder.new_folder(), session_folder.new_folder()
    painted = np.zeros((40, 40), np.uint8)
    painted[30, 4:20] = 2
    Mirror(strokes, classes).update(Labels(painted, name="ct strokes"), "ct")
    session_folder.take(crashed)
    record = BoxesRecord("ct boxes", "ct", (40, 40), (Box(4, 6, 14, 18, 2),))
    write_kept_boxes(crashed, [record], classes)
    in_use, dead = session_folder.is_in_use, {strokes, crashed}
    monkeypatch.setattr(
        session_folder, "is_in_use", lambda each: each not in dead and in_use(each)
    )
    stubbed.add_image(np.zeros((40, 40)), name="ct")
    _, training = stubbed.window.add_plugin_dock_widget(PLUGIN, DOCK)
    qtbot.waitUntil(lambda: bool(training.dock.findChildren(QMessageBox)))
    (question,) = training.dock.findChildren(QMessageBox)
    assert "Your strokes and boxes of" in question.text()
    (button,) = [each for each in question.buttons() if each.text() == "Open"]
    button.click()
    np.testing.assert_array_equal(stubbed.layers["ct strokes"].data, painted)
    (widget,) = [
        each for each in stubbed.window.dock_widgets.values() if isinstance(each, Boxes)
    ]
    assert widget.controller.shapes is stubbed.layers["ct boxes"]
    (row,) = widget.state.rows
    assert (row.class_name, row.place) == ("gland", "10 x 12 px")
    assert not session_folder.find_crashed()
    assert not session_folder.find_crashed(boxes=True)
    # Neither dock asks for anything else.
    qtbot.wait(2 * label_and_train.AFTER_SEEN_MS)
    assert not [
        box
        for each in (training, widget)
        for box in each.dock.findChildren(QMessageBox)
        if box.isVisible()
    ]
    widget.controller.close()


@pytest.mark.parametrize("closed", ["dock", "viewer"])
def test_what_is_closed_leaves_no_process(
    stubbed: napari.Viewer, qtbot: QtBot, closed: str
) -> None:
    widget = Boxes(stubbed)
    dock = stubbed.window.add_dock_widget(widget, name="Boxes")
    stubbed.add_image(np.zeros((40, 40)), name="ct")
    propose(widget, Box(4, 4, 9, 9, 2))
    assert "masks of ct" in stubbed.layers
    qtbot.waitUntil(lambda: widget.state.engine == "ready", timeout=PATIENCE_MS)
    pid = widget.link.pid
    assert pid is not None
    if closed == "dock":
        dock.destroyOnClose()
    else:
        stubbed.close()
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=10_000)
    if closed == "dock":
        qtbot.waitUntil(lambda: not isalive(widget))  # type: ignore[no-untyped-call]
        assert "masks of ct" not in stubbed.layers


def test_boxes_on_a_ct_slice_become_masks_that_are_trained_on(
    viewer: napari.Viewer,
    qtbot: QtBot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = functools.partial(EngineLink, command=[sys.executable, str(QUICK)])
    monkeypatch.setattr(boxes, "EngineLink", engine)
    sample = abdomen_phantom()
    viewer.open_sample(PLUGIN, "abdomen_phantom")
    widget = open_boxes(viewer)
    dock, state, controller = widget.dock, widget.state, widget.controller

    def generate(**changed: Any) -> None:
        controller.use_settings(replace(state.settings, **changed))
        qtbot.waitUntil(dock.run.generate_button.isEnabled, timeout=PATIENCE_MS)
        dock.run.generate_button.click()
        qtbot.waitUntil(lambda: state.progress is None, timeout=PATIENCE_MS)
        controller._show_masks()

    shapes = viewer.layers["CT slice boxes"]
    assert dock.layers.boxes.currentText() == shapes.name
    # The liver and its largest tumours; the others are liver to the boxes.
    drawn, others = sample.boxes[:3], sample.boxes[3:]
    controller.delete(range(len(sample.boxes)))
    truth = sample.truth.copy()
    for box in others:
        truth[box.slices][truth[box.slices] == 3] = 2
    for box in drawn:
        controller.draw(box.class_value)
        shapes.add_rectangles(boxes_to_shapes([box]))

    generate(method="grabcut", window=sample.window)
    masks = viewer.layers["masks of CT slice"]
    assert isinstance(masks, Labels)
    assert dice(masks.data, truth, 2) > 0.8
    assert dice(masks.data, truth, 3) > 0.8
    found = masks.data.copy()

    dock.table.accept_all_button.click()
    labels = viewer.layers["CT slice labels"]
    np.testing.assert_array_equal(np.where(labels.data > 1, labels.data, 0), found)
    np.testing.assert_array_equal(labels.scale, viewer.layers["CT slice"].scale)
    dock.table.undo_button.click()
    assert not labels.data.any()
    assert {row.status for row in state.rows} == {"proposed"}

    generate(method="acol", epochs=8, seconds=3.0)
    assert {row.status for row in state.rows} == {"proposed"}

    # The map of the largest box, drawn anew by other parameters of the CRF.
    controller.pick((0,))
    before = masks.data.copy()
    contrast: Any = dock.method.form.numbers["theta_beta"]
    contrast.setValue(60.0)
    qtbot.waitUntil(lambda: (masks.data != before).any(), timeout=PATIENCE_MS)
    dock.run.map.click()
    assert viewer.layers["localisation of CT slice"].data.max() > 0
    found = masks.data.copy()

    dock.train_button.click()
    np.testing.assert_array_equal(np.where(labels.data > 1, labels.data, 0), found)
    training = find_training(viewer)
    assert training is not None
    (pair,) = training.state.pairs
    assert (pair.image, pair.labels) == ("CT slice", "CT slice labels")
    assert pair.ticked
    assert training.state.classes == sample.classes
    assert controller.classes.training is training
    button = training.dock.training.train_button
    qtbot.waitUntil(button.isEnabled, timeout=PATIENCE_MS)
    assert set(training.state.counts) == {1, 2, 3}
    button.click()
    qtbot.waitUntil(
        lambda: "prediction of CT slice" in viewer.layers, timeout=PATIENCE_MS
    )
    training.dock.training.stop_button.click()
    qtbot.waitUntil(
        lambda: training.state.phase == "idle" and training.state.progress is None,
        timeout=PATIENCE_MS,
    )
    prediction = viewer.layers["prediction of CT slice"]
    predicted = np.array(prediction.data)
    assert predicted.any()
    exported = tmp_path / "prediction.png"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(exported), ""))
    training.dock.model.export_button.click()
    check_export(exported, predicted, sample.classes)
    export_labels(labels.data, tmp_path / "labels.tif", state.classes)
    check_export(tmp_path / "labels.tif", labels.data, sample.classes)
    controller.close()


def check_export(path: Path, labels: Any, classes: ClassTable) -> None:
    """Read with other libraries, values and names of classes are the same."""
    read = tifffile.imread(path) if path.suffix == ".tif" else Picture.open(path)
    np.testing.assert_array_equal(np.asarray(read), labels)
    table = read_class_table(path.with_name(f"{path.stem}.classes.json"))
    assert table.named_values == classes.named_values


def test_boxes_stay_on_their_image(stubbed: napari.Viewer, tmp_path: Path) -> None:
    stubbed.add_image(np.zeros((40, 40)), name="a")
    widget = open_boxes(stubbed)
    layers, controller = widget.dock.layers, widget.controller
    propose(widget, Box(4, 4, 9, 9, 2))
    stubbed.add_image(np.zeros((40, 40)), name="b")
    layers.images.setCurrentText("b")
    assert layers.boxes.names == []
    assert controller.shapes is None
    assert widget.state.rows == ()
    propose(widget, Box(20, 20, 25, 25, 2))
    for name in ("a", "b"):
        layers.images.setCurrentText(name)
        assert layers.boxes.names == [f"{name} boxes"]
        assert controller.shapes is stubbed.layers[f"{name} boxes"]

    def kept() -> set[tuple[str, str]]:
        controller.kept.flush()
        (mine,) = (tmp_path / "sessions").iterdir()
        _, records = session_boxes.read_kept_boxes(mine)
        return {(each.name, each.image) for each in records if each.present}

    assert kept() == {("a boxes", "a"), ("b boxes", "b")}

    # Those of an image that is gone are nobody's until they are chosen.
    stubbed.layers.remove("b boxes")
    assert controller.shapes is None
    stubbed.layers.remove("a")
    assert controller.image is stubbed.layers["b"]
    assert layers.boxes.names == ["a boxes"]
    assert controller.shapes is None
    layers.boxes.setCurrentText("a boxes")
    assert controller.shapes is stubbed.layers["a boxes"]
    assert kept() == {("a boxes", "b")}
    stubbed.add_image(np.zeros((40, 40)), name="a")
    layers.images.setCurrentText("a")
    assert layers.boxes.names == []
    controller.close()


def test_boxes_come_back_with_their_image(stubbed: napari.Viewer) -> None:
    stubbed.add_image(np.zeros((40, 40)), name="a")
    widget = open_boxes(stubbed)
    propose(widget, Box(4, 4, 9, 9, 2))
    stubbed.layers.remove("a")
    stubbed.add_image(np.zeros((40, 40)), name="b")
    assert widget.controller.shapes is None
    stubbed.add_image(np.zeros((40, 40)), name="a")
    widget.dock.layers.images.setCurrentText("a")
    assert widget.controller.shapes is stubbed.layers["a boxes"]
    widget.controller.close()


def test_opened_boxes_wait_where_they_may_be_of_several_images(
    stubbed: napari.Viewer,
) -> None:
    for name in ("a", "b"):
        stubbed.add_image(np.zeros((40, 40)), name=name)
    classes = ClassTable().add("lumen").add("gland")
    opened = layer_of_boxes([Box(4, 4, 9, 9, 2)], "opened", classes, (40, 40))
    shapes = stubbed.add_shapes(**opened)
    widget = open_boxes(stubbed)
    layers, controller = widget.dock.layers, widget.controller
    assert layers.boxes.names == ["opened"]
    assert controller.shapes is None
    shapes.name = "b boxes"
    layers.images.setCurrentText("b")
    assert controller.shapes is shapes
    layers.images.setCurrentText("a")
    assert controller.shapes is None
    layers.boxes.setCurrentText("b boxes")
    layers.images.setCurrentText("b")
    assert layers.boxes.names == []
    controller.close()


def test_labels_are_known_again_when_the_dock_is_opened_again(
    stubbed: napari.Viewer,
) -> None:
    for name in ("a", "b"):
        stubbed.add_image(np.zeros((40, 40)), name=name)
    stubbed.add_labels(np.zeros((40, 40), np.uint8), name="of nobody")
    widget = open_boxes(stubbed)
    propose(widget, Box(4, 4, 9, 9, 2))
    widget.dock.table.accept_all_button.click()
    assert "a labels" in stubbed.layers
    widget.controller.close()

    again = open_boxes(stubbed)
    assert again.controller.shapes is stubbed.layers["a boxes"]
    assert again.controller.labels is stubbed.layers["a labels"]
    again.dock.layers.images.setCurrentText("b")
    assert again.controller.labels is None
    again.dock.layers.images.setCurrentText("a")
    again.dock.layers.new_labels_button.click()
    again.controller.close()
    # Which of two, nobody knows.
    last = open_boxes(stubbed)
    assert last.controller.labels is None
    last.controller.close()
