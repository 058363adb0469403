"""Strokes that a crash left behind are offered, and opened as they were."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_sparseseg.annotations.boxes import Box
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import session_folder
from napari_sparseseg.gui.controller import CHECKPOINT
from napari_sparseseg.gui.disk_thread import DiskThread
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.restore import open_session
from napari_sparseseg.gui.restore_question import BOXES, STROKES, offer
from napari_sparseseg.gui.session_boxes import BoxesRecord, write_kept_boxes
from napari_sparseseg.gui.session_folder import release
from napari_sparseseg.gui.session_labels import restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytestqt.qtbot import QtBot

CLASSES = ClassTable().add("gland", (255, 0, 0)).add("stroma", (0, 255, 0))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where sessions are kept; none is in use, or still being written."""
    monkeypatch.setattr(session_folder, "default_root", lambda: tmp_path)
    monkeypatch.setattr(session_folder, "is_in_use", lambda _: False)
    monkeypatch.setattr(DiskThread, "do", lambda _, key, task: task())
    return tmp_path


@pytest.fixture
def strokes() -> Labels:
    data = np.zeros((3, 16, 16), np.uint8)
    data[1, 4, 2:9], data[2, 8, 2:9] = 1, 2
    return Labels(data, name="drawn", scale=(2, 0.5, 0.5), translate=(0, 3, 4))


@pytest.fixture
def crashed(root: Path, strokes: Labels) -> Path:
    """Return a session with strokes that was never closed."""
    mirror = Mirror(root / "a.sparseseg", CLASSES)
    mirror.update(strokes, "tile")
    deleted = Labels(np.ones((4, 4), np.uint8), name="deleted")
    mirror.update(deleted, "tile")
    mirror.forget(deleted)
    return mirror.folder


@pytest.fixture
def parent(qtbot: QtBot) -> QWidget:
    widget = QWidget()
    qtbot.addWidget(widget)
    return widget


def into(viewer: ViewerModel) -> Callable[[Path], None]:
    """Return what opens a session in a viewer, as if all were kept in another."""

    def open_again(folder: Path) -> None:
        open_session(viewer, folder, restore(folder))
        release(folder)

    return open_again


def press(box: QMessageBox, text: str) -> None:
    (button,) = [each for each in box.buttons() if each.text() == text]
    button.click()


def test_without_a_crash_nothing_is_asked(parent: QWidget) -> None:
    assert offer(parent, STROKES, {STROKES: into(ViewerModel())}) is None


def test_opened_strokes_are_as_they_were(
    crashed: Path, parent: QWidget, strokes: Labels
) -> None:
    viewer = ViewerModel()
    box = offer(parent, STROKES, {STROKES: into(viewer)})
    assert box is not None
    assert not box.isModal()
    press(box, "Open")
    (layer,) = viewer.layers
    assert layer.name == "drawn"
    np.testing.assert_array_equal(layer.data, strokes.data)
    np.testing.assert_array_equal(layer.scale, strokes.scale)
    np.testing.assert_array_equal(layer.translate, strokes.translate)
    np.testing.assert_allclose(layer.get_color(1), (1, 0, 0, 1))
    assert ClassTable.from_json(layer.metadata[CLASSES_KEY]) == CLASSES
    assert offer(parent, STROKES, {STROKES: into(viewer)}) is None
    assert list(crashed.glob("labels-1/*.npy"))


@pytest.mark.parametrize(("answer", "again"), [("Do not ask again", 0), ("Later", 1)])
def test_what_is_not_opened_stays_on_disk(
    crashed: Path, parent: QWidget, answer: str, again: bool
) -> None:
    viewer = ViewerModel()
    box = offer(parent, STROKES, {STROKES: into(viewer)})
    assert box is not None
    press(box, answer)
    assert not viewer.layers
    assert list(crashed.glob("labels-1/*.npy"))
    assert (offer(parent, STROKES, {STROKES: into(viewer)}) is not None) == bool(again)


@pytest.mark.parametrize("agrees", [True, False])
def test_strokes_that_are_not_wanted_are_deleted_if_that_is_sure(
    crashed: Path, parent: QWidget, monkeypatch: pytest.MonkeyPatch, agrees: bool
) -> None:
    buttons = QMessageBox.StandardButton
    answer = buttons.Yes if agrees else buttons.No
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answer)
    (crashed / CHECKPOINT).write_bytes(b"of the training")
    viewer = ViewerModel()
    box = offer(parent, STROKES, {STROKES: into(viewer)})
    assert box is not None
    press(box, "Delete them…")
    assert crashed.exists() != agrees
    assert not viewer.layers


def test_nothing_is_kept_of_crashed_sessions_without_a_stroke(
    root: Path, parent: QWidget
) -> None:
    mirror = Mirror(root / "empty.sparseseg", CLASSES)
    layer = Labels(np.ones((8, 8), np.uint8))
    mirror.update(layer)
    layer.data = np.zeros((8, 8), np.uint8)  # as after undo
    mirror.update(layer)
    assert list(mirror.folder.glob("labels-1/*.npy"))
    assert offer(parent, STROKES, {STROKES: into(ViewerModel())}) is None
    # It may be new, and of another napari that is about to say so.
    assert mirror.folder.exists()
    os.utime(mirror.folder / "open.json", (10, 10))
    assert offer(parent, STROKES, {STROKES: into(ViewerModel())}) is None
    assert not mirror.folder.exists()


def test_what_another_napari_has_open_stays(
    root: Path, parent: QWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(root / "empty.sparseseg", CLASSES)
    monkeypatch.setattr(session_folder, "is_in_use", lambda _: True)
    mirror.update(Labels(np.zeros((8, 8), np.uint8)))
    os.utime(mirror.folder / "open.json", (10, 10))
    assert offer(parent, STROKES, {STROKES: into(ViewerModel())}) is None
    assert (mirror.folder / "open.json").exists()


@pytest.fixture
def boxes(root: Path) -> Path:
    """Return a session of boxes that was never closed, of the same window."""
    folder = Mirror(root / "boxes.sparseseg").folder
    record = BoxesRecord("boxes", "tile", (16, 16), (Box(4, 6, 14, 8, 2),))
    write_kept_boxes(folder, [record], CLASSES)
    return folder


@pytest.mark.parametrize("first", [STROKES, BOXES])
def test_all_that_a_window_had_open_is_one_question(
    crashed: Path, boxes: Path, parent: QWidget, first: str
) -> None:
    opened: list[tuple[str, Path]] = []

    def opener(what: str) -> Callable[[Path], None]:
        def open_again(folder: Path) -> None:
            opened.append((what, folder))
            release(folder)

        return open_again

    openers = {what: opener(what) for what in (STROKES, BOXES)}
    box = offer(parent, first, openers)
    assert box is not None
    assert "Your strokes and boxes of " in box.text()
    # The other dock opens, and the question is there already.
    assert offer(parent, STROKES, openers) is None
    assert offer(parent, BOXES, openers) is None
    press(box, "Open")
    assert opened == [(STROKES, crashed), (BOXES, boxes)]
    assert offer(parent, STROKES, openers) is None
    assert offer(parent, BOXES, openers) is None


def test_an_answer_counts_for_strokes_and_boxes(
    crashed: Path, boxes: Path, parent: QWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes
    )
    openers: dict[str, Callable[[Path], object]] = {
        STROKES: lambda _: None,
        BOXES: lambda _: None,
    }
    box = offer(parent, STROKES, openers)
    assert box is not None
    press(box, "Later")
    box = offer(parent, BOXES, openers)
    assert box is not None
    press(box, "Delete them…")
    assert not crashed.exists()
    assert not boxes.exists()


def test_what_cannot_be_opened_hinders_nothing_else(
    crashed: Path, boxes: Path, parent: QWidget, told: list[str]
) -> None:
    (crashed / "manifest.json").write_text('{"format": "of another", "version": 1}')
    opened: list[Path] = []
    openers = {STROKES: into(ViewerModel()), BOXES: opened.append}
    box = offer(parent, STROKES, openers)
    assert box is not None
    press(box, "Open")
    assert len(told) == 1
    assert opened == [boxes]


def test_boxes_of_another_window_are_another_question(
    crashed: Path, boxes: Path, parent: QWidget
) -> None:
    owner = json.loads((boxes / "open.json").read_text())
    (boxes / "open.json").write_text(json.dumps(owner | {"window": 1}))
    opened: list[Path] = []
    openers = {STROKES: opened.append, BOXES: opened.append}
    box = offer(parent, STROKES, openers)
    assert box is not None
    assert "Your strokes of " in box.text()
    press(box, "Open")
    assert opened == [crashed]


def test_opened_strokes_are_offered_again_until_they_are_kept(
    crashed: Path, parent: QWidget
) -> None:
    opened: list[Path] = []
    for _ in range(2):
        box = offer(parent, STROKES, {STROKES: opened.append})
        assert box is not None
        press(box, "Open")
    assert opened == [crashed, crashed]


def test_a_damaged_session_is_told_and_offered_again(
    crashed: Path, parent: QWidget, told: list[str]
) -> None:
    (crashed / "manifest.json").write_text('{"format": "of another", "version": 1}')
    viewer = ViewerModel()
    box = offer(parent, STROKES, {STROKES: into(viewer)})
    assert box is not None
    press(box, "Open")
    assert len(told) == 1
    assert "was written as 'of another'" in told[0]
    assert not viewer.layers
    assert offer(parent, STROKES, {STROKES: into(viewer)}) is not None
    with pytest.raises(OutputError):
        restore(crashed)


def test_a_session_that_was_opened_meanwhile_is_left_alone(
    crashed: Path,
    parent: QWidget,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
) -> None:
    """The question does not block: the folder may be opened by the dock's button."""
    monkeypatch.setattr(
        QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes
    )
    viewer = ViewerModel()
    for answer in ("Do not ask again", "Delete them…", "Open"):
        monkeypatch.setattr(session_folder, "is_in_use", lambda _: False)
        box = offer(parent, STROKES, {STROKES: into(viewer)})
        assert box is not None
        monkeypatch.setattr(session_folder, "is_in_use", lambda _: True)
        press(box, answer)
        assert (crashed / "open.json").exists()
        assert list(crashed.glob("labels-1/*.npy"))
        assert not viewer.layers


def test_the_newest_is_offered_first(
    crashed: Path, root: Path, parent: QWidget
) -> None:
    newer = Mirror(root / "b.sparseseg", CLASSES, window=1)
    newer.update(Labels(np.full((8, 8), 2, np.uint8), name="newer"), "tile")
    os.utime(crashed / "open.json", (10, 10))
    viewer = ViewerModel()
    for _ in range(2):
        box = offer(parent, STROKES, {STROKES: into(viewer)})
        assert box is not None
        press(box, "Open")
    assert [layer.name for layer in viewer.layers] == ["newer", "drawn"]


def test_what_is_not_wanted_does_not_hide_what_is_older(
    crashed: Path, root: Path, parent: QWidget
) -> None:
    newer = Mirror(root / "b.sparseseg", CLASSES, window=1)
    newer.update(Labels(np.full((8, 8), 2, np.uint8), name="newer"), "tile")
    os.utime(crashed / "open.json", (10, 10))
    viewer = ViewerModel()
    first = offer(parent, STROKES, {STROKES: into(viewer)})
    assert first is not None
    press(first, "Do not ask again")
    (second,) = [each for each in parent.findChildren(QMessageBox) if each.isVisible()]
    press(second, "Open")
    assert [layer.name for layer in viewer.layers] == ["drawn"]
