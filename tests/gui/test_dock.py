"""The dock puts the parts together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from qtpy.QtWidgets import QAbstractButton, QMessageBox, QPushButton

from napari_sparseseg.gui.dock import DockWidget

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.state import State

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def dock(no_leaks: None, qtbot: QtBot, state: State) -> DockWidget:
    """Show the dock of the state."""
    dock = DockWidget(state)
    qtbot.addWidget(dock)
    dock.show()
    return dock


def test_it_fits_a_small_screen(dock: DockWidget) -> None:
    dock.pairs.set_layers(["an image with a very long name" * 5], ["long labels" * 9])
    assert dock.minimumSizeHint().height() < 700
    assert dock.sizeHint().width() <= 340


def test_it_is_never_narrower_than_its_buttons(dock: DockWidget, qtbot: QtBot) -> None:
    dock.setStyleSheet("QPushButton { font-size: 20pt; }")
    dock.resize(100, 600)
    dock.layout().activate()  # type: ignore[union-attr]
    button = dock.model.export_button

    def right_edge_is_seen() -> None:
        dock.resize(100, 600)
        right = button.mapTo(dock, button.rect().bottomRight()).x()
        assert button.width() >= button.sizeHint().width()
        assert right < dock.width()

    qtbot.waitUntil(right_edge_is_seen)


def test_every_button_has_a_tooltip(dock: DockWidget) -> None:
    buttons = [
        *dock.findChildren(QPushButton),
        *dock.model.findChildren(QAbstractButton),
        dock.prediction.visible,
        dock.prediction.confidence,
    ]
    without = [
        button.text()
        for button in buttons
        if not button.toolTip() and button is not dock.training.advanced.toggleButton()
    ]
    assert without == []
    assert len(buttons) > 14


def test_the_status_is_said_in_words(dock: DockWidget, state: State) -> None:
    assert dock.status.text() == "Ready."
    state.engine = "broken"
    assert "stopped" in dock.status.text()
    state.status, state.device = "Learning.", "CPU, 2 cores"
    assert dock.status.text() == "Learning.\nComputes on CPU, 2 cores."
    state.step = 1200
    assert dock.status.text() == "Learning.\n1,200 steps learned on CPU, 2 cores."


def test_help_says_the_five_steps_without_blocking(
    dock: DockWidget, qtbot: QtBot
) -> None:
    dock.help_button.click()
    (box,) = dock.findChildren(QMessageBox)
    assert box.isVisible()
    assert not box.isModal()
    assert box.text().count("<li>") == 5
    box.close()
    qtbot.waitUntil(lambda: not dock.findChildren(QMessageBox))


def test_all_parts_show_the_same_state(dock: DockWidget, state: State) -> None:
    state.selected = 7
    state.cannot_train = "Wait."
    state.unsaved = True
    assert dock.classes.rows.currentIndex().row() == 2
    assert not dock.training.train_button.isEnabled()
    assert not dock.model.unsaved.isHidden()
