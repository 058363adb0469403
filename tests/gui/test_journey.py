"""The whole way of a user, in a real window with a real engine."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Picture
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_sparseseg.annotations.classes import read_class_table
from napari_sparseseg.gui import label_and_train, settings
from napari_sparseseg.gui.label_and_train import LabelAndTrain
from napari_sparseseg.learning.metrics import evaluate
from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari
    from napari.layers import Labels
    from pytestqt.qtbot import QtBot

SAMPLE = tissue_phantom()

# The type hints of PyQt6 take its static methods for others.
MOUSE: Any = QTest

#: Learning for that long is enough on two busy cores.
PATIENCE_MS = 200_000


def layer_of(viewer: napari.Viewer, name: str) -> Any:
    return viewer.layers[name]


def press_and_drag(viewer: napari.Viewer, *points: tuple[float, float]) -> None:
    """Paint along (y, x) world coordinates with the mouse."""
    canvas = viewer.window._qt_viewer.canvas.native
    camera = viewer.scene.camera
    middle = canvas.width() / 2, canvas.height() / 2

    def on_canvas(point: tuple[float, float]) -> QPoint:
        y, x = (
            (at - centre) * camera.zoom
            for at, centre in zip(point, camera.center[-2:], strict=True)
        )
        return QPoint(round(x + middle[0]), round(y + middle[1]))

    button = Qt.MouseButton.LeftButton
    MOUSE.mouseMove(canvas, on_canvas(points[0]))
    MOUSE.mousePress(canvas, button, pos=on_canvas(points[0]))
    for point in points[1:]:
        MOUSE.mouseMove(canvas, on_canvas(point))
        MOUSE.qWait(20)
    MOUSE.mouseRelease(canvas, button, pos=on_canvas(points[-1]))


def dice_of(layer: Labels) -> float:
    """Return the Dice of a prediction layer against the truth."""
    assert SAMPLE.truth is not None
    labels = np.asarray(layer.data)
    if not labels.any():
        return 0.0
    scores = evaluate({"a": labels}, {"a": SAMPLE.truth}, SAMPLE.classes)
    assert scores.overall_dice is not None
    return scores.overall_dice


@pytest.fixture
def window(
    make_napari_viewer: Callable[..., napari.Viewer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Return a viewer with the phantom, and the dock in it."""
    monkeypatch.setattr(label_and_train, "new_folder", lambda: tmp_path / "s.sparseseg")
    monkeypatch.setattr(label_and_train, "offer_restore", lambda *_: None)
    monkeypatch.setattr(settings, "restore", lambda _: None)
    monkeypatch.setattr(settings, "keep", lambda _: None)
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1500, 950)
    viewer.open_sample("napari-sparseseg", "tissue_phantom")
    widget = LabelAndTrain(viewer)
    viewer.window.add_dock_widget(widget, name="Label & train")
    yield viewer, widget
    widget.controller.close()


@pytest.mark.timeout(600)
def test_paint_train_correct_kill_save_export(
    window: tuple[napari.Viewer, LabelAndTrain], qtbot: QtBot, tmp_path: Path
) -> None:
    viewer, widget = window
    state, dock, controller = widget.state, widget.dock, widget.controller

    def wait(condition: Callable[[], Any], timeout: int = PATIENCE_MS) -> None:
        qtbot.waitUntil(lambda: bool(condition()), timeout=timeout)

    # The labels of the sample are found, with their classes and counts.
    wait(lambda: state.engine == "ready" and len(state.counts) == 4)
    assert state.classes.names == SAMPLE.classes.names
    assert state.cannot_train == ""
    strokes = layer_of(viewer, "phantom strokes")

    # Train; the head predicts first.
    MOUSE.mouseClick(dock.training.train_button, Qt.MouseButton.LeftButton)
    wait(lambda: "prediction of phantom" in viewer.layers)
    assert state.step == 0 or state.shown == "head"
    prediction = layer_of(viewer, "prediction of phantom")
    assert list(viewer.layers).index(prediction) < list(viewer.layers).index(strokes)
    wait(lambda: dice_of(prediction) >= 0.85)

    # A stroke by mouse reaches the journal, and undo takes it back there too.
    viewer.layers.selection.active = strokes
    strokes.mode = "paint"
    controller.classes.select(2)
    before = np.array(strokes.data)
    undone = before.copy()
    press_and_drag(viewer, (150, 40), (150, 80), (160, 100))
    painted = np.array(strokes.data)
    assert (painted != before).sum() > 50
    assert set(np.unique(painted[painted != before])) == {2}
    (path,) = controller.annotations.files(controller.annotations.pairs[0]).values()
    wait(lambda: (np.load(path) == painted).all(), 5000)
    strokes.undo()
    wait(lambda: (np.load(path) == undone).all(), 5000)

    # A class is added while it learns, and painted.
    dock.classes.added.emit("vessel")
    vessel = state.classes.by_name("vessel").value
    strokes.data_setitem(np.nonzero(np.ones((6, 30), bool)), vessel)
    wait(lambda: state.counts.get(vessel, (0, 0))[0] == 180)
    wait(lambda: vessel in np.unique(prediction.data))

    # The engine is killed while it learns: nothing is lost, and it goes on.
    wait(lambda: state.step > 0 and (tmp_path / "s.sparseseg").glob("*.safetensors"))
    wait(lambda: len(state.curve) > 0)
    step, kept = state.step, np.array(strokes.data)
    pid = widget.link.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait(lambda: state.engine == "starting", 20_000)
    assert "your strokes are safe" in state.status
    wait(lambda: state.phase == "running")
    assert widget.link.pid != pid
    np.testing.assert_array_equal(strokes.data, kept)
    wait(lambda: state.step > 0)
    assert state.step >= step - 60  # of the last checkpoint

    # Stop, save, export, and read back.
    dock.training.stop_button.click()
    wait(lambda: state.phase == "idle", 10_000)
    wait(lambda: state.progress is None)
    assert state.unsaved
    controller.save_model(str(tmp_path / "model.safetensors"))
    wait(lambda: not state.unsaved, 20_000)
    assert (tmp_path / "model.safetensors").stat().st_size > 10_000
    controller.export(str(tmp_path / "labels.png"))
    exported = np.array(Picture.open(tmp_path / "labels.png"))
    np.testing.assert_array_equal(exported, layer_of(viewer, prediction.name).data)
    assert read_class_table(tmp_path / "labels.classes.json") == state.classes


def test_closing_leaves_no_process_behind(
    window: tuple[napari.Viewer, LabelAndTrain], qtbot: QtBot
) -> None:
    import psutil

    _, widget = window
    qtbot.waitUntil(lambda: widget.state.engine == "ready", timeout=PATIENCE_MS)
    pid = widget.link.pid
    assert pid is not None
    assert psutil.pid_exists(pid)
    widget.controller.close()
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=10_000)
