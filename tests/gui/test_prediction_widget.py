"""The view of the prediction shows the state and tells wishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from napari_sparseseg.gui.prediction_widget import MODES, PredictionWidget

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.state import Live, State

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def widget(no_leaks: None, qtbot: QtBot, state: State) -> PredictionWidget:
    """Make the view of the prediction of the state."""
    widget = PredictionWidget(state)
    qtbot.addWidget(widget)
    return widget


def wishes(widget: PredictionWidget) -> list[tuple[Any, ...]]:
    """Collect every wish, with the name of its signal."""
    told: list[tuple[Any, ...]] = []
    for name in (
        "live_chosen",
        "visibility_wished",
        "opacity_wished",
        "confidence_wished",
    ):
        getattr(widget, name).connect(
            lambda *values, name=name: told.append((name, *values))
        )
    return told


def test_the_state_is_shown_without_a_wish(
    widget: PredictionWidget, state: State
) -> None:
    told = wishes(widget)
    state.live, state.visible = "once", False
    state.opacity, state.confidence = 0.25, True
    assert [mode for mode, each in widget.modes.items() if each.isChecked()] == ["once"]
    assert not widget.visible.isChecked()
    assert widget.opacity.value() == 25
    assert widget.confidence.isChecked()
    assert told == []


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_told_at_each_press(
    widget: PredictionWidget, state: State, mode: Live
) -> None:
    told = wishes(widget)
    widget.live_chosen.connect(lambda wish: setattr(state, "live", wish))
    widget.modes[mode].click()
    widget.modes[mode].click()
    assert told == [("live_chosen", mode)] * 2
    assert widget.modes[mode].isChecked()


def test_every_wish_is_told_once(widget: PredictionWidget, state: State) -> None:
    told = wishes(widget)
    widget.visibility_wished.connect(lambda wish: setattr(state, "visible", wish))
    widget.opacity_wished.connect(lambda wish: setattr(state, "opacity", wish))
    widget.confidence_wished.connect(lambda wish: setattr(state, "confidence", wish))
    widget.visible.click()
    widget.opacity.setValue(80)
    widget.confidence.click()
    assert told == [
        ("visibility_wished", False),
        ("opacity_wished", 0.8),
        ("confidence_wished", True),
    ]


def test_what_the_state_does_not_take_is_not_shown(widget: PredictionWidget) -> None:
    widget.modes["off"].click()
    widget.visible.click()
    assert widget.modes["live"].isChecked()
    assert widget.visible.isChecked()


def test_progress_is_seen_while_a_prediction_runs(
    widget: PredictionWidget, state: State
) -> None:
    assert widget.progress.isHidden()
    state.predicting, state.progress = "slide field 2", 0.4
    assert (widget.progress.isHidden(), widget.progress.value()) == (False, 40)
    assert "'slide field 2'" in widget.progress.toolTip()
    state.progress = None
    assert widget.progress.isHidden()


def test_the_key_is_named(widget: PredictionWidget) -> None:
    assert "Alt+P" in widget.visible.text()
