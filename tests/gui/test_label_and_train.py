"""The dock in a viewer: it follows the layers, and ends when it is closed."""

from __future__ import annotations

import errno
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.settings import get_settings
from PIL import Image as Picture
from qtpy.compat import isalive
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QMessageBox

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import messages
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import label_and_train, mirror, session_folder
from napari_sparseseg.gui.label_and_train import LabelAndTrain, new_mirror
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.pairs_widget import STEP_KEYS
from napari_sparseseg.gui.prediction_widget import VISIBILITY_KEY
from napari_sparseseg.gui.session_folder import find_crashed
from napari_sparseseg.gui.session_labels import restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Protocol

    import napari
    from pytestqt.qtbot import QtBot

    class OpenDock(Protocol):
        def __call__(self, viewer: Any = None) -> LabelAndTrain: ...


SIDE = 32
PATIENCE_MS = 30_000

pytestmark = pytest.mark.usefixtures("stub_engine")


@pytest.fixture
def open_dock(qtbot: QtBot, told: list[str]) -> Iterator[OpenDock]:
    """Return what opens a dock on a viewer without a window."""
    docks: list[LabelAndTrain] = []

    def open_one(viewer: Any = None) -> LabelAndTrain:
        docks.append(LabelAndTrain(ViewerModel() if viewer is None else viewer))
        return docks[-1]

    yield open_one
    for dock in docks:
        dock.controller.close()
        if isalive(dock):  # type: ignore[no-untyped-call]
            dock.deleteLater()


@pytest.fixture
def dock(open_dock: OpenDock) -> LabelAndTrain:
    return open_dock()


def pixels() -> np.ndarray[Any, Any]:
    return np.zeros((SIDE, SIDE, 3), np.uint8)


def add(dock: LabelAndTrain, *names: str) -> None:
    """Add images, and labels where the name ends with "strokes"."""
    for name in names:
        if name.endswith("strokes"):
            data = np.zeros((SIDE, SIDE), np.uint8)
            data[3, 4:20], data[9, 4:20] = 1, 2
            dock._viewer.add_labels(data, name=name)
        else:
            dock._viewer.add_image(pixels(), name=name)


def pairs(dock: LabelAndTrain) -> list[tuple[str, str]]:
    return [(row.image, row.labels) for row in dock.state.pairs]


def press(dock: LabelAndTrain, key: str) -> None:
    """Call what a key is bound to."""
    (function,) = (
        each for name, each in dock._viewer.keymap.items() if str(name) == key
    )
    function(dock._viewer)


@pytest.mark.parametrize("names", [("tile", "strokes"), ("strokes", "tile")])
def test_layers_are_found_whichever_comes_first(
    dock: LabelAndTrain, names: tuple[str, str]
) -> None:
    add(dock, *names)
    assert pairs(dock) == [("tile", "strokes")]
    assert dock.dock.pairs.image == "tile"
    assert dock.dock.pairs.labels_name == "strokes"


def test_layers_that_were_there_before_are_found(open_dock: OpenDock) -> None:
    viewer = ViewerModel()
    viewer.add_image(pixels(), name="tile")
    viewer.add_labels(np.zeros((SIDE, SIDE), np.uint8), name="strokes")
    assert pairs(open_dock(viewer)) == [("tile", "strokes")]


def test_new_labels_are_chosen_and_painted(dock: LabelAndTrain) -> None:
    add(dock, "tile")
    dock.dock.pairs.new_button.click()
    assert pairs(dock) == [("tile", "tile strokes")]
    layer = dock._viewer.layers["tile strokes"]
    assert isinstance(layer, Labels)
    assert dock.controller.pairs.labels is layer
    assert dock._viewer.layers.selection.active is layer


def test_images_bring_their_labels(dock: LabelAndTrain) -> None:
    add(dock, "a", "a strokes", "b")
    choice = dock.dock.pairs
    choice.images.setCurrentText("b")
    assert pairs(dock) == [("a", "a strokes")]
    choice.new_button.click()
    assert pairs(dock) == [("a", "a strokes"), ("b", "b strokes")]
    choice.images.setCurrentText("a")
    assert choice.labels_name == "a strokes"
    choice.labels.setCurrentText("b strokes")
    assert choice.image == "b"
    assert len(pairs(dock)) == 2
    # Whoever wants it can learn from one label layer on two images.
    choice.images.setCurrentText("a")
    dock.dock.pairs.pair_added.emit("b", "a strokes")
    assert len(pairs(dock)) == 3


def test_renamed_layers_keep_their_pair(dock: LabelAndTrain) -> None:
    add(dock, "tile", "strokes")
    dock._viewer.layers["tile"].name = "slide"
    dock._viewer.layers["strokes"].name = "drawn"
    assert pairs(dock) == [("slide", "drawn")]
    assert dock.dock.pairs.image == "slide"
    assert dock.dock.pairs.labels_name == "drawn"
    assert not dock.dock.pairs.add_button.isEnabled()


def test_deleted_layers_are_forgotten(dock: LabelAndTrain) -> None:
    add(dock, "a", "a strokes", "b")
    dock._viewer.layers.remove("a")
    # The labels fit b, too, but were not painted on it.
    assert dock.dock.pairs.image == "b"
    assert not pairs(dock)
    dock._viewer.layers.clear()
    assert dock.controller.pairs.image is None
    assert dock.controller.pairs.labels is None


@pytest.mark.parametrize("kind", [Image, Labels])
def test_a_copy_of_the_prediction_is_a_layer_as_others(
    dock: LabelAndTrain, kind: type[Layer]
) -> None:
    add(dock, "tile", "strokes")
    pair = dock.controller.pairs.current
    assert pair is not None
    target = dock.controller.targets.find(pair.image, pair.labels, 0)
    assert target is not None
    region = (0, 0, SIDE, SIDE)
    target.layer.write(region, target.plane, np.full((SIDE, SIDE), 2, np.uint8))
    target.layer.write_confidence(region, target.plane, np.ones((SIDE, SIDE), "f4"))
    choice = dock.dock.pairs
    assert (choice.images.names, choice.labels.names) == (["tile"], ["strokes"])
    shown = {Image: target.layer.confidence_layer, Labels: target.layer.layer}[kind]
    assert shown is not None
    # As "Duplicate Layer" of napari does.
    data, meta, type_name = shown.as_layer_data_tuple()
    copy = Layer.create(data.copy(), {**meta, "name": "copy"}, type_name)
    dock._viewer.add_layer(copy)
    if kind is Image:
        assert choice.images.names == ["tile", "copy"]
        return
    assert choice.labels.names == ["strokes", "copy"]
    choice.labels.setCurrentText("copy")
    assert pairs(dock) == [("tile", "strokes"), ("tile", "copy")]
    assert copy.editable
    copy.paint((3, 3), 1)
    assert (copy.data[3, 3], shown.data[3, 3]) == (1, 2)


def test_keys_pick_classes_and_hide_the_prediction(dock: LabelAndTrain) -> None:
    press(dock, "Alt+2")
    assert dock.state.selected == 2
    press(dock, "Alt+9")
    assert dock.state.selected == 2
    press(dock, "Alt+1")
    assert dock.state.selected == 1
    visible = dock.state.visible
    press(dock, VISIBILITY_KEY)
    assert dock.state.visible != visible


def test_devices_are_offered_once_the_engine_stands(
    dock: LabelAndTrain, qtbot: QtBot
) -> None:
    qtbot.waitUntil(lambda: dock.state.engine == "ready", timeout=PATIENCE_MS)
    assert dock.state.devices == (("cpu", "CPU"),)
    offered = dock.dock.training.form.device
    assert "CPU" in [offered.itemText(index) for index in range(offered.count())]


def test_a_crash_is_asked_about_once_the_dock_is_open(
    open_dock: OpenDock, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(label_and_train, "offer", lambda *each: asked.append(each))
    dock = open_dock()
    assert not asked
    qtbot.waitUntil(lambda: len(asked) == 1)
    assert [each[0] for each in asked] == [dock.dock]


class TestRestore:
    """Strokes of a crashed napari come back, and are safe from the next crash."""

    CLASSES = ClassTable().add("gland", (255, 0, 0)).add("stroma", (0, 255, 0))

    @pytest.fixture
    def sessions(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return where sessions are kept; none of them is in use."""
        monkeypatch.setattr(session_folder, "is_in_use", lambda _: False)
        return tmp_path / "sessions"

    @pytest.fixture
    def strokes(self, sessions: Path) -> Labels:
        """Return strokes on two planes that a crash left behind."""
        data = np.zeros((3, SIDE, SIDE), np.uint8)
        data[0, 4, 2:9], data[2, 8, 2:9] = 1, 2
        layer = Labels(data, name="drawn")
        Mirror(sessions / "before.sparseseg", self.CLASSES).update(layer)
        return layer

    @staticmethod
    def open_them(dock: LabelAndTrain, qtbot: QtBot) -> None:
        qtbot.waitUntil(lambda: bool(dock.dock.findChildren(QMessageBox)))
        (box,) = dock.dock.findChildren(QMessageBox)
        (button,) = (each for each in box.buttons() if each.text() == "Open")
        button.click()

    def test_without_their_image_they_are_safe_at_once(
        self, open_dock: OpenDock, qtbot: QtBot, strokes: Labels, sessions: Path
    ) -> None:
        folders = [sessions / "before.sparseseg"]
        for _ in range(2):
            # Nothing of the dock before was closed: it is as if it had crashed.
            dock = open_dock()
            self.open_them(dock, qtbot)
            assert not pairs(dock)
            folders.append(dock.controller._mirror.folder)
            assert find_crashed(sessions) == folders[-1:]
            (layer,) = dock._viewer.layers
            (kept,) = restore(folders[-1]).labels
            for each in (layer, kept):
                np.testing.assert_array_equal(each.data, strokes.data)
            assert restore(folders[-1]).classes == dock.state.classes == self.CLASSES

    def test_they_are_offered_again_where_they_cannot_be_kept(
        self,
        open_dock: OpenDock,
        qtbot: QtBot,
        strokes: Labels,
        sessions: Path,
        told: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        dock = open_dock()

        def fail(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(mirror, "write_rows", fail)
            self.open_them(dock, qtbot)
        assert len(told) == 1
        assert "No space left on device" in told[0]
        assert sessions / "before.sparseseg" in find_crashed(sessions)


def test_a_closed_dock_does_nothing_any_more(
    open_dock: OpenDock, qtbot: QtBot, told: list[str]
) -> None:
    dock = open_dock()
    viewer, controller, link = dock._viewer, dock.controller, dock.link
    add(dock, "tile", "strokes")
    qtbot.waitUntil(lambda: dock.state.engine == "ready", timeout=PATIENCE_MS)
    pid = link.pid
    assert pid is not None
    with qtbot.waitSignal(dock.destroyed):
        dock.deleteLater()
    assert not psutil.pid_exists(pid)
    assert not controller.annotations.pairs
    viewer.add_image(pixels(), name="later")
    viewer.layers["later"].name = "much later"
    viewer.layers.clear()
    controller._on_told(
        messages.Ready(versions={}, devices=["cuda"], device_names=["GPU"])
    )
    for name, function in viewer.keymap.items():
        if str(name).startswith("Alt"):
            function(viewer)
    assert controller.state.devices == (("cpu", "CPU"),)
    assert not told


def test_two_docks_have_their_own_engines_and_mirrors(
    open_dock: OpenDock, qtbot: QtBot, told: list[str]
) -> None:
    docks = [open_dock(), open_dock()]
    for dock in docks:
        add(dock, "tile", "strokes")
    qtbot.waitUntil(
        lambda: not any(dock.state.cannot_train for dock in docks), timeout=PATIENCE_MS
    )
    for dock in docks:
        dock.dock.training.train_button.click()
    qtbot.waitUntil(
        lambda: all(dock.state.phase == "running" for dock in docks),
        timeout=PATIENCE_MS,
    )
    first, second = docks
    assert first.link.pid != second.link.pid
    folders = [dock.controller._mirror.folder for dock in docks]
    assert len(set(folders)) == 2
    first.controller.close()
    assert first.link.pid is None
    assert second.link.pid is not None
    assert psutil.pid_exists(second.link.pid)
    assert second.state.phase == "running"
    second.controller.stop()
    assert not told


class TestMirror:
    """Where strokes are kept when the usual place cannot be written."""

    @pytest.fixture
    def blocked(self, tmp_path: Path) -> None:
        (tmp_path / "sessions").touch()

    def test_usually_in_a_new_folder(self, tmp_path: Path) -> None:
        mirror = new_mirror(ViewerModel())
        assert mirror.folder.parent == tmp_path / "sessions"
        mirror.close()

    @pytest.mark.usefixtures("blocked")
    def test_else_in_a_temporary_one_which_is_told(
        self, dock: LabelAndTrain, told: list[str], tmp_path: Path
    ) -> None:
        (sentence,) = told
        assert str(tmp_path / "sessions") in sentence
        folder = dock.controller._mirror.folder
        assert str(folder) in sentence
        add(dock, "tile", "strokes")
        assert list(folder.glob("labels-1/*.npy"))

    @pytest.mark.usefixtures("blocked")
    def test_without_either_the_dock_does_not_open(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> str:
            raise PermissionError("read-only")

        monkeypatch.setattr(tempfile, "mkdtemp", fail)
        with pytest.raises(OutputError, match="cannot be made"):
            new_mirror(ViewerModel())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("closed", ["dock", "viewer"])
def test_what_is_closed_while_it_trains_leaves_no_process(
    make_napari_viewer: Callable[..., napari.Viewer],
    qtbot: QtBot,
    told: list[str],
    closed: str,
) -> None:
    viewer = make_napari_viewer()
    widget = LabelAndTrain(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Label and train")
    controller, state = widget.controller, widget.state
    add(widget, "tile", "strokes")
    qtbot.waitUntil(lambda: state.cannot_train == "", timeout=PATIENCE_MS)
    controller.train()
    qtbot.waitUntil(lambda: state.phase == "running", timeout=PATIENCE_MS)
    pid = widget.link.pid
    assert pid is not None
    labels = viewer.layers["strokes"]
    labels.data_setitem((np.array([20]), np.array([20])), 2)
    mirror = controller._mirror
    del widget
    if closed == "dock":
        # What its button does.
        dock.destroyOnClose()
    else:
        viewer.close()
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=10_000)
    (path,) = mirror.folder.glob("labels-1/*.npy")
    assert np.load(path)[20, 20] == 2
    assert not (mirror.folder / "open.json").exists()
    # A viewer deletes its layers first.
    assert len(told) == (closed == "viewer")


def test_files_are_dropped_and_keys_go_from_one_to_the_next(
    dock: LabelAndTrain, qtbot: QtBot, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        Picture.fromarray(pixels()).save(tmp_path / f"{name}.png")
    files = QMimeData()
    files.setUrls([QUrl.fromLocalFile(str(tmp_path))])
    place, action = QPointF(5, 5), Qt.DropAction.CopyAction
    event = QDropEvent(
        place, action, files, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    dock.dock.dropEvent(event)
    qtbot.waitUntil(lambda: pairs(dock) == [("a", "a strokes"), ("b", "")])
    assert dock.dock.pairs.image == "a"
    press(dock, "Alt+Right")
    qtbot.waitUntil(lambda: dock.dock.pairs.image == "b")
    qtbot.waitUntil(lambda: dock.dock.pairs.labels_name == "b strokes")
    press(dock, "Alt+Left")
    assert dock.dock.pairs.labels_name == "a strokes"
    layers = dock._viewer.layers
    assert [layer.name for layer in layers if layer.visible] == ["a", "a strokes"]


def test_the_keys_of_the_list_are_none_of_napari() -> None:
    taken = {
        str(key) for keys in get_settings().shortcuts.shortcuts.values() for key in keys
    }
    assert taken
    assert not taken & {key.replace("-", "+") for key in STEP_KEYS}
