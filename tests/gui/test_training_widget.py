"""Train, Pause, Stop and the settings show the state and tell wishes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from napari_sparseseg.engine.messages import TrainingSettings
from napari_sparseseg.gui.training_widget import (
    BALANCINGS,
    WITH_DICE,
    TrainingWidget,
)

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.engine.messages import Phase
    from napari_sparseseg.gui.state import State

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def widget(no_leaks: None, qtbot: QtBot, state: State) -> TrainingWidget:
    """Make the view of the training of the state."""
    widget = TrainingWidget(state)
    qtbot.addWidget(widget)
    return widget


def wished(widget: TrainingWidget) -> list[TrainingSettings]:
    """Collect the settings that are wished for."""
    told: list[TrainingSettings] = []
    widget.settings_changed.connect(told.append)
    return told


@pytest.mark.parametrize(
    ("phase", "train", "pause", "stop"),
    [
        ("idle", True, False, False),
        ("preparing", False, False, True),
        ("running", False, True, True),
        ("paused", True, False, True),
    ],
)
def test_buttons_follow_the_phase(
    widget: TrainingWidget,
    state: State,
    phase: Phase,
    train: bool,
    pause: bool,
    stop: bool,
) -> None:
    state.phase = phase
    buttons = (widget.train_button, widget.pause_button, widget.stop_button)
    assert tuple(button.isEnabled() for button in buttons) == (train, pause, stop)
    assert all(button.toolTip() for button in buttons)
    expected = "Continue" if phase == "paused" else "Train"
    assert widget.train_button.text() == expected


def test_train_says_in_words_why_it_is_disabled(
    widget: TrainingWidget, state: State
) -> None:
    assert widget.why_not.isHidden()
    state.cannot_train = "Paint strokes of two classes."
    assert not widget.train_button.isEnabled()
    assert widget.train_button.toolTip() == "Paint strokes of two classes."
    assert "Paint strokes of two classes." in widget.why_not.text()
    assert not widget.why_not.isHidden()
    state.cannot_train = ""
    assert widget.train_button.isEnabled()
    assert widget.why_not.isHidden()


def test_buttons_tell_what_is_pressed(widget: TrainingWidget, state: State) -> None:
    told: list[str] = []
    for name in ("train_pressed", "pause_pressed", "stop_pressed"):
        getattr(widget, name).connect(lambda name=name: told.append(name))
    widget.train_button.click()
    state.phase = "running"
    widget.pause_button.click()
    widget.stop_button.click()
    assert told == ["train_pressed", "pause_pressed", "stop_pressed"]


@pytest.mark.parametrize("balance", BALANCINGS)
def test_a_balancing_is_explained_and_wished_for_once(
    widget: TrainingWidget, state: State, balance: Any
) -> None:
    told = wished(widget)
    widget.settings_changed.connect(lambda wish: setattr(state, "settings", wish))
    state.settings = replace(
        state.settings, balance="none" if balance == "instance" else "instance"
    )
    assert told == []
    widget.balance.setCurrentIndex(widget.balance.findData(balance))
    assert told == [TrainingSettings(balance=balance)]
    assert widget.balance_note.text() == BALANCINGS[balance]


@pytest.mark.parametrize("balance", BALANCINGS)
def test_with_dice_it_is_said_that_none_suits_it(
    widget: TrainingWidget, state: State, balance: Any
) -> None:
    state.settings = TrainingSettings(loss="dice", balance=balance)
    assert widget.balance_note.text() == WITH_DICE[balance]
    state.settings = TrainingSettings(balance=balance)
    assert widget.balance_note.text() == BALANCINGS[balance]


def test_remembered_settings_are_shown_from_the_start(
    no_leaks: None, qtbot: QtBot, state: State
) -> None:
    state.settings = TrainingSettings(balance="none", seed=5)
    widget = TrainingWidget(state)
    qtbot.addWidget(widget)
    assert widget.balance.currentData() == "none"
    assert widget.balance_note.text() == BALANCINGS["none"]
    assert widget.form.seed.value() == 5


def test_a_balancing_that_the_state_does_not_take_is_not_shown(
    widget: TrainingWidget,
) -> None:
    told = wished(widget)
    widget.balance.setCurrentIndex(widget.balance.findData("none"))
    assert len(told) == 1
    assert widget.balance.currentData() == "mini-batch"


def test_settings_are_locked_while_a_training_runs(
    widget: TrainingWidget, state: State
) -> None:
    state.phase = "running"
    assert not widget.balance.isEnabled()
    assert "Stop the training" in widget.balance.toolTip()
    assert not widget.form.seed.isEnabled()
    state.phase = "idle"
    assert widget.balance.isEnabled()
    assert widget.form.seed.isEnabled()


def test_advanced_opens_and_closes(widget: TrainingWidget) -> None:
    assert not widget.advanced.isExpanded()
    closed = widget.advanced.text()
    widget.advanced.toggleButton().click()
    assert widget.advanced.isExpanded()
    assert widget.advanced.text() != closed
