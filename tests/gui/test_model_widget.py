"""Save, load and export ask for files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from qtpy.QtWidgets import QFileDialog

from napari_sparseseg.gui.model_widget import ModelWidget

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.state import State

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def widget(no_leaks: None, qtbot: QtBot, state: State) -> ModelWidget:
    """Make the view of the model of the state."""
    widget = ModelWidget(state)
    qtbot.addWidget(widget)
    return widget


@pytest.mark.parametrize(
    ("given", "wished"),
    [
        ("/a/m", ["/a/m.safetensors"]),
        ("/a/m.safetensors", ["/a/m.safetensors"]),
        ("", []),
    ],
)
def test_a_model_is_saved_where_the_user_says(
    widget: ModelWidget,
    state: State,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    wished: list[str],
) -> None:
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (given, ""))
    told: list[str] = []
    widget.save_wished.connect(told.append)
    state.unsaved = True
    widget.save_button.click()
    assert told == wished


@pytest.mark.parametrize("given", ["/a/m.safetensors", ""])
def test_a_model_is_loaded_from_where_the_user_says(
    widget: ModelWidget, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (given, ""))
    told: list[str] = []
    widget.load_wished.connect(told.append)
    widget.load_button.click()
    assert told == ([given] if given else [])


@pytest.mark.parametrize(
    ("given", "wished"),
    [("/a/l", "/a/l.png"), ("/a/l.png", "/a/l.png"), ("/a/l.TIF", "/a/l.TIF")],
)
def test_labels_are_exported_to_where_the_user_says(
    widget: ModelWidget, monkeypatch: pytest.MonkeyPatch, given: str, wished: str
) -> None:
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (given, ""))
    told: list[str] = []
    widget.export_wished.connect(told.append)
    widget.export_button.click()
    assert told == [wished]


def test_save_waits_until_something_is_learned(
    widget: ModelWidget, state: State
) -> None:
    assert not widget.save_button.isEnabled()
    assert "Nothing is learned" in widget.save_button.toolTip()
    state.step = 25
    assert widget.save_button.isEnabled()


def test_load_waits_for_the_end_of_the_training(
    widget: ModelWidget, state: State
) -> None:
    state.phase = "running"
    assert not widget.load_button.isEnabled()
    assert "Stop the training" in widget.load_button.toolTip()
    state.phase = "idle"
    assert widget.load_button.isEnabled()


def test_trained_and_not_saved_is_seen(widget: ModelWidget, state: State) -> None:
    assert widget.unsaved.isHidden()
    state.unsaved = True
    assert not widget.unsaved.isHidden()
    assert "Trained, not saved" in widget.unsaved.text()
    state.unsaved = False
    assert widget.unsaved.isHidden()
