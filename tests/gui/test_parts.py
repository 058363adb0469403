"""Small parts of the dock."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING

import pytest
from qtpy.QtCore import QCoreApplication, QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QIcon, QWheelEvent
from qtpy.QtWidgets import QApplication, QPushButton, QSpinBox, QWidget

from napari_sparseseg.gui.parts import (
    WheelGuard,
    allow,
    counted,
    listen,
    note,
    say,
    swatch,
    swatch_icon,
)
from napari_sparseseg.gui.state import State

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from tests.gui.conftest import LeakCheck


class Listener(QWidget):
    """Counts what it hears."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.heard: list[str] = []
        listen(self, state.events.status, self.hear)

    def hear(self, status: str) -> None:
        """Remember."""
        self.heard.append(status)


def test_a_listener_hears_until_qt_deletes_it(qtbot: QtBot) -> None:
    state = State()
    listener = Listener(state)
    state.status = "one"
    assert listener.heard == ["one"]
    listener.deleteLater()
    QCoreApplication.sendPostedEvents(listener, QEvent.Type.DeferredDelete.value)
    state.status = "two"
    assert listener.heard == ["one"]


def test_listening_keeps_no_view_alive(qtbot: QtBot) -> None:
    state = State()
    listener = Listener(state)
    gone = weakref.ref(listener)
    del listener
    gc.collect()
    assert gone() is None
    state.status = "one"


#: Python collects views as garbage before Qt deletes them.
GARBAGE = """
import gc
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QApplication
from napari_sparseseg.gui.dock import DockWidget
from napari_sparseseg.gui.state import State

app = QApplication(["-platform", "offscreen"])
gc.disable()
dock = DockWidget(State())
dock.deleteLater()
del dock
gc.collect()
QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
"""


def test_garbage_is_deleted_without_a_crash() -> None:
    subprocess.run([sys.executable, "-c", GARBAGE], check=True)


def test_what_is_disabled_says_why(qtbot: QtBot) -> None:
    button = QPushButton()
    qtbot.addWidget(button)
    allow(button, "does it", unless="not yet")
    assert (button.isEnabled(), button.toolTip()) == (False, "not yet")
    allow(button, "does it")
    assert (button.isEnabled(), button.toolTip()) == (True, "does it")


def test_a_note_is_hidden_while_it_is_empty(qtbot: QtBot) -> None:
    label = note()
    qtbot.addWidget(label)
    assert label.isHidden()
    say(label, "words", "! ")
    assert (label.isHidden(), label.text()) == (False, "! words")
    say(label, "", "! ")
    assert (label.isHidden(), label.text()) == (True, "")


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 strokes"), (1, "1 stroke"), (2, "2 strokes"), (1200, "1,200 strokes")],
)
def test_counts_are_worded(count: int, words: str) -> None:
    assert counted(count, "stroke") == words


def test_a_swatch_has_its_colour_also_where_the_row_is_picked(qtbot: QtBot) -> None:
    plain = swatch((200, 30, 30))
    assert plain.toImage().pixelColor(5, 5).getRgb()[:3] == (
        200,
        30,
        30,
    )
    picked = swatch_icon((200, 30, 30)).pixmap(14, 14, QIcon.Mode.Selected)
    assert picked.toImage().pixelColor(5, 5).getRgb()[:3] == (200, 30, 30)


@pytest.mark.parametrize(("guarded", "value"), [(False, 1), (True, 0)])
def test_the_wheel_changes_no_guarded_number(
    qtbot: QtBot, guarded: bool, value: int
) -> None:
    box = QSpinBox()
    qtbot.addWidget(box)
    guard = WheelGuard(box)
    if guarded:
        guard.watch(box)
    box.show()
    center = QPointF(box.rect().center())
    event = QWheelEvent(
        center,
        box.mapToGlobal(center),
        QPoint(),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(box, event)
    assert box.value() == value


def test_a_window_that_is_left_behind_is_found(without_leaks: LeakCheck) -> None:
    window = QWidget()
    with pytest.raises(AssertionError, match="left behind"), without_leaks():
        leaked = QWidget()
    with without_leaks():
        closed = QWidget()
        closed.deleteLater()
    assert window is not leaked
