"""The whole way of a user, with mouse and keys, in a real window with a real engine."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.utils.notifications import Notification, notification_manager
from PIL import Image as Picture
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLineEdit
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter

from napari_sparseseg.annotations.classes import read_class_table
from napari_sparseseg.annotations.strokes import count_labels
from napari_sparseseg.engine.messages import (
    CheckpointWritten,
    HeadFitted,
    Predicted,
    StepDone,
    Validated,
)
from napari_sparseseg.gui.class_table_model import NAME
from napari_sparseseg.gui.plots import SHOWN
from napari_sparseseg.gui.sample_data import layer_data
from napari_sparseseg.learning.metrics import evaluate
from napari_sparseseg.samples import tissue_phantom
from tests.gui.mouse import TEST, drag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import napari
    from napari.layers import Labels
    from numpy.typing import NDArray
    from qtpy.QtWidgets import QPushButton

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.gui.label_and_train import LabelAndTrain

    Point = tuple[float, float]

SAMPLE = tissue_phantom()
assert SAMPLE.truth is not None
TRUTH = SAMPLE.truth
BACKGROUND, STROMA, EPITHELIUM, LYMPHOCYTES = SAMPLE.classes.values

#: Strokes of each class, so many that one is held out; in image pixels.
STROKES, STROKE_PX, BRUSH_PX = 6, 20, 5

#: From a stroke to where another class begins.
MARGIN_PX = 3

#: Height and width of a stroke with that margin.
AROUND_PX = BRUSH_PX + 2 * MARGIN_PX, STROKE_PX + BRUSH_PX + 2 * MARGIN_PX

GOOD_DICE = 0.85

#: Before this step the head is shown, however well the network does.
FIRST_CHOICE = 50

#: The network alone must be better than head and network together by more.
NOISE = 0.02

#: Learning for that long is enough on two busy cores.
PATIENCE_S = 400

#: Whatever is waited for is looked at so often.
POLL_MS = 50

#: Whether pictures are taken on the way, into the folder of the test.
WITH_PICTURES = "SPARSESEG_PICTURES" in os.environ

#: The dock draws curves and words at most so often.
DRAWN_MS = 600

LEFT, ALT, CTRL = (
    Qt.MouseButton.LeftButton,
    Qt.KeyboardModifier.AltModifier,
    Qt.KeyboardModifier.ControlModifier,
)


class User:
    """Sees a window, and works in it with mouse and keys alone.

    Attributes
    ----------
    heard
        All that the engine has told.
    told
        Notifications.
    """

    def __init__(
        self, viewer: napari.Viewer, widget: LabelAndTrain, folder: Path
    ) -> None:
        self.viewer, self.widget, self.folder = viewer, widget, folder
        self.state, self.dock = widget.state, widget.dock
        self.heard: list[Any] = []
        self.told: list[str] = []
        self._canvas = viewer.window._qt_viewer.canvas.native
        widget.link.told.connect(self.heard.append)

    def wait(self, condition: Callable[[], Any]) -> None:
        """Let the window work until something is so."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"told: {self.state.status}, {self.told}"
            TEST.qWait(POLL_MS)

    def all(self, kind: type[Any]) -> list[Any]:
        """Return what the engine has told of a kind."""
        return [each for each in self.heard if isinstance(each, kind)]

    def see_more_than(self, count: int, kind: type[Any]) -> None:
        """Wait until the engine has told more of a kind."""
        self.wait(lambda: len(self.all(kind)) > count)

    def take_picture(self, name: str) -> None:
        """Leave a picture for whoever wants to look, which nobody waits for else."""
        if not WITH_PICTURES:
            return
        TEST.qWait(DRAWN_MS)
        path = str(self.folder / f"{name}.png")
        self.viewer.window.screenshot(path, canvas_only=False, flash=False)

    # Mouse and keys.

    def click(self, button: QPushButton) -> None:
        assert button.isEnabled(), button.toolTip()
        TEST.mouseClick(button, LEFT)

    def press(self, key: Qt.Key, modifier: Qt.KeyboardModifier) -> None:
        TEST.keyClick(self._canvas, key, modifier)

    def rename_class(self, row: int, name: str) -> None:
        """Double-click a name in the class table and type another."""
        table = self.dock.classes.table
        at = table.visualRect(self.dock.classes.model.index(row, NAME)).center()
        TEST.mouseClick(table.viewport(), LEFT, pos=at)
        TEST.mouseDClick(table.viewport(), LEFT, pos=at)
        self._type_name(name)

    def add_class(self, name: str) -> None:
        self.click(self.dock.classes.add_button)
        self._type_name(name)

    def pick_class(self, value: int) -> None:
        number = self.state.classes.values.index(value) + 1
        self.press(Qt.Key(Qt.Key.Key_0 + number), ALT)
        assert self.state.selected == value

    def paint_stroke(self, y: int, x: int) -> None:
        half = STROKE_PX / 2
        self.drag((y, x - half), (y, x), (y, x + half))

    def drag(self, *points: Point) -> None:
        """Draw a line along (y, x) in image pixels with the mouse."""
        drag(self.viewer, self.viewer.layers["phantom"], *points)

    def _type_name(self, name: str) -> None:
        editors = self.dock.classes.table.findChildren(QLineEdit)
        (editor,) = [each for each in editors if each.isVisible()]
        TEST.keyClicks(editor, name)
        TEST.keyClick(editor, Qt.Key.Key_Return)
        self.wait(lambda: name in self.state.classes.names)


def fitting(value: int) -> NDArray[np.bool_]:
    """Tell where a stroke lies well inside a class."""
    lowest, highest = (
        function(TRUTH, AROUND_PX, mode="constant")
        for function in (minimum_filter, maximum_filter)
    )
    found: NDArray[np.bool_] = (lowest == value) & (highest == value)
    return found


def places(value: int) -> list[tuple[int, int]]:
    """Return middles of strokes in a class, far from each other."""
    spots = np.argwhere(fitting(value))
    chosen = [spots[len(spots) // 2]]
    distance = np.full(len(spots), np.inf)
    while len(chosen) < STROKES:
        squares = ((spots - chosen[-1]) ** 2).sum(axis=1)
        distance = np.minimum(distance, squares)
        chosen.append(spots[distance.argmax()])
    return [(int(y), int(x)) for y, x in chosen]


def worst_place(value: int, prediction: Labels, strokes: Labels) -> tuple[int, int]:
    """Return where in a class the prediction is most wrong and nothing is painted."""
    wrong = uniform_filter(
        np.not_equal(prediction.data, TRUTH).astype(float), AROUND_PX
    )
    is_free = maximum_filter(np.asarray(strokes.data), AROUND_PX) == 0
    found = np.where(fitting(value) & is_free, wrong, -1.0)
    y, x = np.unravel_index(found.argmax(), found.shape)
    return int(y), int(x)


def dice_of(layer: Labels, classes: ClassTable) -> float:
    """Return the Dice of a prediction layer where the truth has one of the classes."""
    truth = np.where(np.isin(TRUTH, classes.values), TRUTH, 0)
    scores = evaluate({"a": np.asarray(layer.data)}, {"a": truth}, classes)
    assert scores.overall_dice is not None
    return scores.overall_dice


def check_what_was_shown(scored: list[Validated]) -> None:
    """Check that what is best on held-out strokes was shown, but never too early."""
    assert scored
    for event in scored:
        dice = {name: each.overall for name, each in event.scores.items() if each}
        if event.step < FIRST_CHOICE:
            assert event.shown == "head"
        elif "both" in dice:
            best = max(dice.values())
            fit = {name for name, each in dice.items() if each == best}
            if "network" in fit and dice["both"] >= best - NOISE:
                fit = fit - {"network"} | {"both"}
            assert event.shown in fit, event


@pytest.fixture
def user(window: tuple[napari.Viewer, LabelAndTrain], tmp_path: Path) -> Iterator[User]:
    """Return a user who has opened the phantom, without its strokes and its truth."""
    viewer, widget = window
    pixels, arguments, _ = layer_data(SAMPLE, "phantom")[0]
    viewer.add_image(pixels, **arguments)
    user = User(viewer, widget, tmp_path)

    def note(notification: Notification) -> None:
        user.told.append(notification.message)

    notification_manager.notification_ready.connect(note)
    yield user
    notification_manager.notification_ready.disconnect(note)


def label(user: User) -> Labels:
    """Make labels, name three classes and paint them."""
    train, why_not = user.dock.training.train_button, user.dock.training.why_not
    user.wait(lambda: user.state.engine == "ready")
    assert not train.isEnabled()
    assert "New labels" in why_not.text()
    user.click(user.dock.pairs.new_button)
    strokes: Any = user.viewer.layers["phantom strokes"]
    assert not strokes.data.any()
    user.rename_class(1, "stroma")
    user.add_class("gland epithelium")
    assert not train.isEnabled()
    assert "at least two classes" in why_not.text()
    user.viewer.reset_view()
    for value in (BACKGROUND, STROMA, EPITHELIUM):
        paint(user, value)
    check_strokes(user, strokes)
    user.take_picture("1 strokes")
    return strokes


def paint(user: User, value: int) -> None:
    """Paint strokes of a class all over the image."""
    user.pick_class(value)
    for place in places(value):
        user.paint_stroke(*place)


def check_strokes(user: User, strokes: Labels) -> None:
    """Check that the mouse has painted what was meant, and that it is counted."""
    labels = np.asarray(strokes.data)
    np.testing.assert_array_equal(labels[labels > 0], TRUTH[labels > 0])
    counts = {
        v: (each.pixels, each.strokes) for v, each in count_labels(labels).items()
    }
    for value in user.state.classes.values:
        pixels, n_strokes = counts[value]
        assert n_strokes >= STROKES
        assert pixels > 0.8 * n_strokes * STROKE_PX * BRUSH_PX
    user.wait(lambda: user.state.counts == counts)


def see_head_first(user: User) -> Labels:
    """Press Train and see the first prediction."""
    # One network instead of two, and small patches, take a fraction of the time.
    user.dock.training.form.scale.setValue(0.25)
    user.dock.training.form.patch.setValue(64)
    user.click(user.dock.training.train_button)
    user.wait(lambda: user.all(Predicted))
    first, *_ = [each for each in user.heard if isinstance(each, Predicted | Validated)]
    assert isinstance(first, Predicted)
    assert first.shown == "head"
    user.wait(lambda: "the quick start predicts" in user.dock.plots.shown.text())
    prediction: Any = user.viewer.layers["prediction of phantom"]
    names = [layer.name for layer in user.viewer.layers]
    assert names == ["phantom", prediction.name, "phantom strokes"]
    assert prediction.data.all()
    user.take_picture("2 head")
    return prediction


def correct(user: User, prediction: Labels, strokes: Labels) -> None:
    """Paint where the prediction is wrong until it is nearly the truth."""
    classes = user.state.classes
    while dice_of(prediction, classes) < GOOD_DICE:
        learns = HeadFitted if user.state.shown == "head" else Validated
        learned = len(user.all(learns))
        for value in classes.values:
            user.pick_class(value)
            user.paint_stroke(*worst_place(value, prediction, strokes))
        user.see_more_than(learned, learns)
        user.see_more_than(len(user.all(Predicted)), Predicted)
    check_strokes(user, strokes)


def see_scores_decide(user: User) -> None:
    """Let it learn until the network may be shown; pause, and see what is shown."""
    user.wait(lambda: any(each.step >= FIRST_CHOICE for each in user.all(Validated)))
    user.click(user.dock.training.pause_button)
    user.wait(lambda: user.state.phase == "paused" and user.state.progress is None)
    scored = user.all(Validated)[-1]
    assert user.all(Predicted)[-1].shown == user.state.shown == scored.shown
    user.wait(lambda: scored.reason in user.dock.plots.shown.text())
    user.take_picture("4 scored")


def add_a_class(user: User, strokes: Labels, prediction: Labels) -> None:
    """Add a class while it learns; until then all its pixels are wrong."""
    assert dice_of(prediction, SAMPLE.classes) < 0.75
    user.wait(lambda: user.state.phase == "running")
    user.add_class("lymphocytes")
    assert user.state.classes.names == SAMPLE.classes.names
    color = np.array(user.state.classes.by_value(LYMPHOCYTES).color) / 255
    colors: Any = prediction.colormap
    np.testing.assert_allclose(colors.color_dict[LYMPHOCYTES][:3], color, atol=0.01)
    paint(user, LYMPHOCYTES)
    user.see_more_than(len(user.all(Predicted)), Predicted)
    correct(user, prediction, strokes)
    assert LYMPHOCYTES in np.asarray(prediction.data)
    user.wait(lambda: SHOWN[user.state.shown] in user.dock.plots.shown.text())
    user.take_picture("5 class added")


def undo_a_stroke(user: User, strokes: Labels) -> None:
    """Paint a stroke in a wrong place and take it back."""
    controller, value = user.widget.controller, user.state.selected
    (path,) = controller.annotations.files(controller.annotations.pairs[0]).values()
    before, n_strokes = np.array(strokes.data), user.state.counts[value][1]
    np.testing.assert_array_equal(np.load(path), before)
    user.drag((150, 40), (150, 80), (160, 100))
    wrong = np.array(strokes.data)
    assert set(wrong[wrong != before]) == {value}
    user.wait(lambda: (np.load(path) == wrong).all())
    user.wait(lambda: user.state.counts[value][1] == n_strokes + 1)
    user.take_picture("6 wrong stroke")
    user.press(Qt.Key.Key_Z, CTRL)
    np.testing.assert_array_equal(strokes.data, before)
    user.wait(lambda: (np.load(path) == before).all())
    user.wait(lambda: user.state.counts[value][1] == n_strokes)


def kill_the_engine(user: User, strokes: Labels) -> None:
    """Kill the engine while it learns, and see it go on from its checkpoint."""
    before, pid = np.array(strokes.data), user.widget.link.pid
    assert pid is not None
    assert user.state.phase == "running"
    os.kill(pid, signal.SIGKILL)
    user.wait(lambda: user.state.engine == "starting")
    saved = user.all(CheckpointWritten)[-1].step
    learned, predicted = (len(user.all(kind)) for kind in (StepDone, Predicted))
    assert "your strokes are safe" in user.dock.status.text()
    assert any("was ended by signal 9" in sentence for sentence in user.told)
    user.take_picture("7 killed")
    user.see_more_than(predicted, Predicted)
    user.see_more_than(learned, StepDone)
    assert user.all(StepDone)[learned].step > saved > 0
    assert user.widget.link.pid not in (None, pid)
    np.testing.assert_array_equal(strokes.data, before)


def save_and_load(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the model, and predict with it."""
    model, buttons = user.folder / "model.safetensors", user.dock.model
    assert "Trained, not saved" in buttons.unsaved.text()
    answer(monkeypatch, "getSaveFileName", model)
    user.click(buttons.save_button)
    user.wait(lambda: buttons.unsaved.text() == "")
    predictions = len(user.all(Predicted))
    answer(monkeypatch, "getOpenFileName", model)
    user.click(buttons.load_button)
    user.wait(lambda: "Loaded model.safetensors" in user.dock.status.text())
    user.see_more_than(predictions, Predicted)
    user.take_picture("8 saved and loaded")


def export(user: User, prediction: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the labels in two formats, and read them back."""
    predicted, classes = np.asarray(prediction.data), user.state.classes
    table = user.folder / "labels.classes.json"
    for name in ("labels.png", "labels.tif"):
        answer(monkeypatch, "getSaveFileName", user.folder / name)
        user.click(user.dock.model.export_button)
        assert read_class_table(table) == classes
        table.unlink()
    np.testing.assert_array_equal(
        tifffile.imread(user.folder / "labels.tif"), predicted
    )
    with Picture.open(user.folder / "labels.png") as picture:
        np.testing.assert_array_equal(np.array(picture), predicted)
        palette = picture.getpalette() or []
    for each in classes:
        assert tuple(palette[3 * each.value :][:3]) == each.color


def answer(monkeypatch: pytest.MonkeyPatch, question: str, path: Path) -> None:
    """Let a dialogue for files end with a path."""
    monkeypatch.setattr(QFileDialog, question, lambda *_: (str(path), ""))


@pytest.mark.timeout(1200)
def test_paint_train_correct_kill_save_export(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    strokes = label(user)
    prediction = see_head_first(user)
    assert dice_of(prediction, user.state.classes) < GOOD_DICE
    correct(user, prediction, strokes)
    user.take_picture("3 corrected")
    see_scores_decide(user)
    assert user.dock.training.train_button.text() == "Continue"
    user.click(user.dock.training.train_button)
    add_a_class(user, strokes, prediction)
    undo_a_stroke(user, strokes)
    kill_the_engine(user, strokes)
    correct(user, prediction, strokes)
    check_what_was_shown(user.all(Validated))
    user.click(user.dock.training.stop_button)
    user.wait(lambda: user.state.phase == "idle" and user.state.progress is None)
    save_and_load(user, monkeypatch)
    assert dice_of(prediction, SAMPLE.classes) >= GOOD_DICE
    export(user, prediction, monkeypatch)
