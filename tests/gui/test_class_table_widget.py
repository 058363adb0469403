"""The class table shows the state and tells wishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import QModelIndex, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QMessageBox

from napari_sparseseg.gui.class_table_model import (
    COLOR,
    NAME,
    PIXELS,
    STROKES,
    ClassTableModel,
)
from napari_sparseseg.gui.class_table_widget import ClassTableWidget

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.state import State

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def widget(no_leaks: None, qtbot: QtBot, state: State) -> ClassTableWidget:
    """Show the class table of the state."""
    widget = ClassTableWidget(state)
    qtbot.addWidget(widget)
    widget.show()
    return widget


def wishes(widget: ClassTableWidget) -> list[tuple[Any, ...]]:
    """Collect every wish, with the name of its signal."""
    told: list[tuple[Any, ...]] = []
    for name in ("added", "renamed", "recoloured", "deleted", "selected"):
        getattr(widget, name).connect(
            lambda *values, name=name: told.append((name, *values))
        )
    return told


def shown(model: ClassTableModel, row: int) -> list[str]:
    """Words of a row."""
    return [model.data(model.index(row, column)) for column in range(1, 6)]


def picked(widget: ClassTableWidget) -> int:
    """Row that is picked, -1 where none is."""
    rows = widget.rows.selectedRows()
    return rows[0].row() if rows else -1


def click(qtbot: Any, widget: ClassTableWidget, index: QModelIndex) -> None:
    """Click a cell."""
    place = widget.table.visualRect(index).center()
    viewport = widget.table.viewport()
    qtbot.mouseClick(viewport, Qt.MouseButton.LeftButton, pos=place)


def test_rows_are_the_classes_with_their_counts(widget: ClassTableWidget) -> None:
    model = widget.model
    assert model.rowCount() == 3
    assert shown(model, 0) == ["background", "1", "5", "600", "<1%"]
    assert shown(model, 1) == ["tumour", "2", "1", "1.4 M", "100%"]
    assert shown(model, 2) == ["stroma", "3", "0", "0", "0%"]
    assert "1 stroke, 1,400,000 pixels" in model.data(
        model.index(1, PIXELS), Qt.ItemDataRole.ToolTipRole
    )
    icon = model.data(model.index(1, COLOR), Qt.ItemDataRole.DecorationRole)
    pixel = icon.pixmap(14, 14).toImage().pixelColor(5, 5)
    assert pixel == QColor(200, 30, 30)


def test_only_nine_classes_have_a_key(widget: ClassTableWidget, state: State) -> None:
    for number in range(8):
        state.classes = state.classes.add(f"more {number}")
    keys = [shown(widget.model, row)[1] for row in range(widget.model.rowCount())]
    assert keys == ["1", "2", "3", "4", "5", "6", "7", "8", "9", "", ""]


def test_new_counts_are_shown_at_once(
    widget: ClassTableWidget, state: State, qtbot: QtBot
) -> None:
    with qtbot.waitSignal(widget.model.dataChanged):
        state.counts = {1: (30, 2), 4: (10, 1)}
    assert shown(widget.model, 0)[2:] == ["2", "30", "75%"]


def test_the_state_picks_the_row_without_a_wish(
    widget: ClassTableWidget, state: State
) -> None:
    told = wishes(widget)
    assert picked(widget) == 1
    state.selected = 7
    assert picked(widget) == 2
    state.classes = state.classes.renamed(7, "connective tissue").removed(1)
    assert picked(widget) == 1
    assert shown(widget.model, 1)[0] == "connective tissue"
    state.selected = 0
    assert picked(widget) == -1
    assert told == []


def test_a_click_wishes_for_the_class_once(
    widget: ClassTableWidget, state: State, qtbot: QtBot
) -> None:
    told = wishes(widget)
    widget.selected.connect(lambda value: setattr(state, "selected", value))
    click(qtbot, widget, widget.model.index(2, STROKES))
    assert told == [("selected", 7)]
    assert picked(widget) == 2


def test_a_name_is_wished_for_and_shown_when_the_state_has_it(
    widget: ClassTableWidget, state: State
) -> None:
    told = wishes(widget)
    model = widget.model
    index = model.index(1, NAME)
    assert model.flags(index) & Qt.ItemFlag.ItemIsEditable
    assert not model.flags(model.index(1, STROKES)) & Qt.ItemFlag.ItemIsEditable
    assert model.setData(index, "  carcinoma ")
    assert not model.setData(index, "   ")
    assert not model.setData(index, "tumour")
    assert told == [("renamed", 4, "carcinoma")]
    assert model.data(index) == "tumour"
    state.classes = state.classes.renamed(4, "carcinoma")
    assert model.data(index) == "carcinoma"


def test_add_wishes_for_a_free_name_and_lets_it_be_edited(
    widget: ClassTableWidget, state: State
) -> None:
    state.classes = state.classes.renamed(1, "class 4")
    told = wishes(widget)
    widget.added.connect(
        lambda name: setattr(state, "classes", state.classes.add(name))
    )
    widget.add_button.click()
    assert told == [("added", "class 5")]
    added = widget.model.index(3, NAME)
    assert widget.table.indexWidget(added) is not None
    state.counts = {1: (31, 2)}
    state.classes = state.classes.recolored(1, (9, 9, 9))
    assert widget.table.indexWidget(added) is not None, "news must not end editing"


@pytest.mark.parametrize("color", [(1, 2, 3), (200, 30, 30), None])
def test_a_click_on_the_colour_asks_for_another(
    widget: ClassTableWidget,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    color: tuple[int, int, int] | None,
) -> None:
    chosen = QColor(*color) if color else QColor()
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: chosen)
    told = wishes(widget)
    click(qtbot, widget, widget.model.index(1, COLOR))
    assert told == ([("recoloured", 4, (1, 2, 3))] if color == (1, 2, 3) else [])


@pytest.mark.parametrize("agreed", [True, False])
def test_delete_asks_when_the_class_is_painted(
    widget: ClassTableWidget, monkeypatch: pytest.MonkeyPatch, agreed: bool
) -> None:
    buttons = QMessageBox.StandardButton
    asked: list[str] = []

    def answer(*arguments: Any) -> QMessageBox.StandardButton:
        asked.append(arguments[2])
        return buttons.Yes if agreed else buttons.No

    monkeypatch.setattr(QMessageBox, "question", answer)
    told = wishes(widget)
    widget.delete_button.click()
    assert len(asked) == 1
    assert "tumour" in asked[0]
    assert "1 stroke, 1,400,000 pixels" in asked[0]
    assert told == ([("deleted", 4)] if agreed else [])


def test_delete_does_not_ask_when_nothing_is_painted(
    widget: ClassTableWidget, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(QMessageBox, "question")
    state.selected = 7
    told = wishes(widget)
    widget.delete_button.click()
    assert told == [("deleted", 7)]


def test_delete_says_why_it_is_disabled(widget: ClassTableWidget, state: State) -> None:
    assert widget.delete_button.isEnabled()
    state.selected = 0
    assert not widget.delete_button.isEnabled()
    assert "Pick the class" in widget.delete_button.toolTip()
