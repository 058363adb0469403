"""Save, load and export ask for files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_sparseseg.gui.model_widget import ModelWidget
from napari_sparseseg.gui.state import SavedModel

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


def test_it_is_said_what_is_exported_before(
    widget: ModelWidget, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def cancel(_parent: object, title: str, *_: object) -> tuple[str, str]:
        titles.append(title)
        return "", ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", cancel)
    first, second = state.pairs
    state.pairs = (first, replace(second, is_chosen=True))
    widget.export_button.click()
    words = (
        "Writes the live prediction of 'second', not your strokes. "
        "Classes: background, tumour, stroma."
    )
    assert titles == [f"Export labels. {words}"]
    assert words in widget.export_button.toolTip()


@pytest.mark.parametrize("agrees", [True, False])
@pytest.mark.parametrize("button", ["save_button", "export_button"])
def test_a_file_whose_ending_was_left_out_is_not_replaced_unasked(
    widget: ModelWidget,
    state: State,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    button: str,
    agrees: bool,
) -> None:
    buttons = QMessageBox.StandardButton
    asked: list[str] = []

    def answer(_parent: object, _title: str, question: str, *_: object) -> object:
        asked.append(question)
        return buttons.Yes if agrees else buttons.No

    monkeypatch.setattr(QMessageBox, "question", answer)
    # With a point in it, as Qt would take for an ending.
    given = str(tmp_path / "case_1.5mm")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (given, ""))
    told: list[str] = []
    widget.save_wished.connect(told.append)
    widget.export_wished.connect(told.append)
    state.step = 25
    getattr(widget, button).click()
    ((full,), told[:]) = (told, [])
    assert not asked
    Path(full).touch()
    getattr(widget, button).click()
    assert told == ([full] if agrees else [])
    assert len(asked) == 1
    assert f"{Path(full).name} already exists" in asked[0]


def test_save_waits_until_something_is_learned(
    widget: ModelWidget, state: State
) -> None:
    assert not widget.save_button.isEnabled()
    assert "Nothing is learned" in widget.save_button.toolTip()
    state.step = 25
    assert widget.save_button.isEnabled()


@pytest.mark.parametrize("agrees", [True, False])
def test_what_is_not_saved_is_asked_about_before_another_model_is_loaded(
    widget: ModelWidget, state: State, monkeypatch: pytest.MonkeyPatch, agrees: bool
) -> None:
    buttons = QMessageBox.StandardButton
    answer = buttons.Yes if agrees else buttons.No
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answer)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("/a/m", ""))
    told: list[str] = []
    widget.load_wished.connect(told.append)
    state.unsaved = True
    widget.load_button.click()
    assert told == (["/a/m"] if agrees else [])


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


def test_the_network_is_named_whether_it_is_saved_or_not(
    widget: ModelWidget, state: State
) -> None:
    assert widget.words.isHidden()
    state.model = "Network: U-Net"
    assert widget.words.text() == "Network: U-Net"
    state.unsaved = True
    assert widget.words.isHidden()
    assert widget.unsaved.text().endswith("Trained, not saved. Network: U-Net")


def test_saved_models_are_listed_with_their_scores_and_loaded_again(
    widget: ModelWidget, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert widget.history.isHidden()
    state.models = (
        SavedModel("/a/first.safetensors", "2026-03-04T05:06", 40, 9),
        SavedModel(
            "/b/second.safetensors", "2026-03-04T06:07", 1200, 1, 0.876, {"a": 1}
        ),
    )
    assert not widget.history.isHidden()
    newest, oldest = (widget.history.item(row) for row in range(2))
    assert newest is not None
    assert oldest is not None
    assert newest.text() == "second.safetensors: Dice 0.88, 1 stroke"
    assert oldest.text() == "first.safetensors: not scored, 9 strokes"
    assert newest.toolTip().splitlines() == [
        "/b/second.safetensors",
        "Saved 2026-03-04 06:07",
        "1,200 steps learned",
        "Dice on held-out strokes:",
        "a: 1.00",
    ]
    told: list[str] = []
    widget.load_wished.connect(told.append)
    widget.history.itemActivated.emit(oldest)
    assert told == ["/a/first.safetensors"]
    # What was trained is not given up unasked.
    state.unsaved = True
    no = QMessageBox.StandardButton.No
    monkeypatch.setattr(QMessageBox, "question", lambda *_: no)
    widget.history.itemActivated.emit(newest)
    state.phase = "running"
    widget.history.itemActivated.emit(newest)
    assert len(told) == 1
