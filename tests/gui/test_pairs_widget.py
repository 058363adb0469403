"""Layer combos and the list of the training show the state and tell wishes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_sparseseg.gui.pairs_model import IMAGE, KIND, SCORE, STROKES, TICK
from napari_sparseseg.gui.pairs_widget import PairsWidget
from napari_sparseseg.gui.state import PairRow

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.state import State

pytestmark = pytest.mark.usefixtures("no_leaks")
CHECK = Qt.ItemDataRole.CheckStateRole


@pytest.fixture
def widget(no_leaks: None, qtbot: QtBot, state: State) -> PairsWidget:
    """Make the view of the pairs of the state."""
    widget = PairsWidget(state)
    qtbot.addWidget(widget)
    return widget


def wishes(widget: PairsWidget) -> list[tuple[Any, ...]]:
    """Collect every wish, with the name of its signal."""
    told: list[tuple[Any, ...]] = []
    for name in (
        "image_chosen",
        "labels_chosen",
        "new_labels_pressed",
        "pair_added",
        "pair_removed",
        "pair_ticked",
        "row_chosen",
        "step_wished",
        "kind_wished",
        "files_wished",
        "reading_cancelled",
    ):
        getattr(widget, name).connect(
            lambda *values, name=name: told.append((name, *values))
        )
    return told


def test_the_first_layers_are_chosen_whichever_is_opened_first(
    widget: PairsWidget,
) -> None:
    told = wishes(widget)
    widget.set_layers([], ["strokes"])
    widget.set_layers(["tile"], ["strokes"])
    assert (widget.image, widget.labels_name) == ("tile", "strokes")
    assert told == [("labels_chosen", "strokes"), ("image_chosen", "tile")]


def test_the_choice_stays_when_the_list_changes(widget: PairsWidget) -> None:
    widget.set_layers(["a", "b"], ["x", "y"])
    widget.choose("b", "y")
    told = wishes(widget)
    widget.set_layers(["c", "b", "a"], ["y", "x"])
    assert (widget.image, widget.labels_name) == ("b", "y")
    assert told == []


def test_a_renamed_layer_stays_chosen(widget: PairsWidget) -> None:
    widget.set_layers(["a", "b"], [])
    widget.choose("b", "")
    told = wishes(widget)
    widget.set_layers(["a", "better"], [])
    assert told == [("image_chosen", "better")]


def test_when_the_chosen_layer_goes_another_is_chosen_once(widget: PairsWidget) -> None:
    widget.set_layers(["a", "b"], ["x"])
    widget.choose("b", "x")
    told = wishes(widget)
    widget.set_layers(["a"], ["x"])
    assert told == [("image_chosen", "a")]
    widget.set_layers([], [])
    assert told[1:] == [("image_chosen", ""), ("labels_chosen", "")]


def test_the_users_choice_is_told_once(widget: PairsWidget) -> None:
    widget.set_layers(["a", "b"], ["x", "y"])
    told = wishes(widget)
    widget.images.setCurrentIndex(1)
    widget.labels.setCurrentIndex(1)
    assert told == [("image_chosen", "b"), ("labels_chosen", "y")]


def test_choosing_from_outside_is_silent_and_keeps_to_the_list(
    widget: PairsWidget,
) -> None:
    widget.set_layers(["a", "b"], ["x"])
    told = wishes(widget)
    widget.choose("b", "not there")
    assert (widget.image, widget.labels_name) == ("b", "x")
    assert told == []


def test_buttons_say_why_they_are_disabled(widget: PairsWidget) -> None:
    assert "Open an image" in widget.new_button.toolTip()
    assert "Open an image" in widget.add_button.toolTip()
    widget.set_layers(["first"], [])
    assert widget.new_button.isEnabled()
    assert "New labels" in widget.add_button.toolTip()
    widget.set_layers(["first"], ["first strokes"])
    assert "already" in widget.add_button.toolTip()
    assert not widget.add_button.isEnabled()
    widget.set_layers(["first"], ["others"])
    assert widget.add_button.isEnabled()
    assert not widget.remove_button.isEnabled()
    assert "Pick an image" in widget.remove_button.toolTip()


def test_buttons_tell_wishes(widget: PairsWidget) -> None:
    widget.set_layers(["a"], ["x"])
    told = wishes(widget)
    widget.new_button.click()
    widget.add_button.click()
    widget.table.selectRow(1)
    widget.remove_button.click()
    assert told == [
        ("new_labels_pressed",),
        ("pair_added", "a", "x"),
        ("pair_removed", 1),
    ]


def test_a_pair_added_to_the_state_cannot_be_added_again(
    widget: PairsWidget, state: State
) -> None:
    widget.set_layers(["a"], ["x"])
    assert widget.add_button.isEnabled()
    state.pairs = (*state.pairs, PairRow("a", "x"))
    assert not widget.add_button.isEnabled()
    assert widget.model.rowCount() == 3


def test_rows_show_pairs_and_their_problems(widget: PairsWidget, state: State) -> None:
    model = widget.model
    rows = [[model.data(model.index(row, c)) for c in range(5)] for row in range(2)]
    assert rows == [
        ["", "first", "sparse", "5", "-"],
        ["", "second", "sparse", "1", "-"],
    ]
    role = Qt.ItemDataRole
    good, bad = model.index(0, IMAGE), model.index(1, IMAGE)
    assert model.data(model.index(0, TICK), CHECK) == Qt.CheckState.Checked
    assert model.data(model.index(1, TICK), CHECK) == Qt.CheckState.Unchecked
    assert model.data(good, role.DecorationRole) is None
    assert not model.data(bad, role.DecorationRole).isNull()
    assert "Ticked" in model.data(good, role.ToolTipRole)
    assert model.data(bad, role.ToolTipRole) == "the shapes differ."
    assert "second: the shapes differ." in widget.problem.text()
    state.pairs = state.pairs[:1]
    assert widget.problem.isHidden()


def test_a_tick_is_wished_for_and_shown_when_the_state_has_it(
    widget: PairsWidget, state: State
) -> None:
    told = wishes(widget)
    index = widget.model.index(1, TICK)
    widget.model.setData(index, Qt.CheckState.Checked.value, CHECK)
    assert told == [("pair_ticked", 1, True)]
    assert widget.model.data(index, CHECK) == Qt.CheckState.Unchecked
    state.pairs = (state.pairs[0], PairRow("second", "strokes", True))
    assert widget.model.data(index, CHECK) == Qt.CheckState.Checked
    assert len(told) == 1


def test_rows_show_kind_planes_and_score_or_why_there_is_none(
    widget: PairsWidget, state: State
) -> None:
    state.pairs = (
        PairRow("ct", "ct labels", strokes=12, kind="dense", planes=3, score=0.876),
        PairRow("tile", "", no_score="Nothing is labelled.", is_open=False),
        PairRow("tile", "others", is_kind_chosen=True),
    )
    model, tip = widget.model, Qt.ItemDataRole.ToolTipRole

    def shown(column: int) -> list[str]:
        return [model.data(model.index(row, column)) for row in range(3)]

    assert shown(IMAGE) == ["ct", "tile: no labels", "tile: others"]
    assert shown(KIND) == ["dense", "sparse", "sparse"]
    assert shown(STROKES) == ["12 on 3 planes", "0", "0"]
    assert shown(SCORE) == ["0.88", "-", "-"]
    assert model.data(model.index(1, SCORE), tip) == "Nothing is labelled."
    assert "0.876" in model.data(model.index(0, SCORE), tip)
    assert "click it to open it" in model.data(model.index(1, IMAGE), tip)
    assert "Proposed" in model.data(model.index(0, KIND), tip)
    assert "You chose it" in model.data(model.index(2, KIND), tip)


def test_a_click_chooses_an_image_and_a_tick_does_not(
    widget: PairsWidget, state: State
) -> None:
    told = wishes(widget)
    widget.table.clicked.emit(widget.model.index(1, TICK))
    widget.table.clicked.emit(widget.model.index(1, SCORE))
    assert told == [("row_chosen", 1)]
    assert widget.rows.currentIndex().row() == -1
    state.pairs = (state.pairs[0], replace(state.pairs[1], is_chosen=True))
    assert widget.rows.currentIndex().row() == 1
    state.pairs = (*state.pairs, PairRow("third", ""))
    assert widget.rows.currentIndex().row() == 1, "where rows come, too"


def test_the_kind_is_chosen_in_a_menu(widget: PairsWidget, state: State) -> None:
    state.pairs = (PairRow("a", "x", kind="dense", is_kind_chosen=True),)
    told = wishes(widget)
    menu = widget.kind_menu(0)
    assert [each.isChecked() for each in menu.actions()] == [False, True, False]
    for action in menu.actions():
        action.trigger()
    assert told == [("kind_wished", 0, kind) for kind in ("sparse", "dense", None)]
    menu.deleteLater()


def test_one_goes_on_and_back_unless_there_is_nothing(
    widget: PairsWidget, state: State
) -> None:
    told = wishes(widget)
    widget.previous_button.click()
    widget.next_button.click()
    assert told == [("step_wished", -1), ("step_wished", 1)]
    state.why_no_step = ("This is the first image.", "")
    assert not widget.previous_button.isEnabled()
    assert widget.previous_button.toolTip() == "This is the first image."
    assert widget.next_button.isEnabled()


def test_a_folder_is_asked_for_and_may_be_left(
    widget: PairsWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = wishes(widget)
    for answer in ("", "/tiles"):
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, a=answer: a)
        widget.folder_button.click()
    assert told == [("files_wished", ["/tiles"])]


def test_new_field_says_why_not_and_can_be_cancelled(
    widget: PairsWidget, qtbot: QtBot, state: State
) -> None:
    button, um = widget.fields.button, widget.fields.um
    assert not button.isEnabled()
    assert button.toolTip() == state.cannot_cut == "Open a slide first."
    state.cannot_cut = ""
    with qtbot.waitSignal(widget.field_wished) as wished:
        button.click()
    assert wished.args == [None]
    um.setValue(0.75)
    with qtbot.waitSignal(widget.field_wished) as wished:
        button.click()
    assert wished.args == [0.75]
    assert not widget.fields.escape.isEnabled()
    state.is_cutting = True
    assert button.text() == "Cancel"
    assert widget.fields.escape.isEnabled()
    assert not um.isEnabled()
    with qtbot.waitSignal(widget.field_cancelled):
        button.click()


def test_reading_is_shown_once_it_takes_long_and_can_be_cancelled(
    widget: PairsWidget, qtbot: QtBot, state: State
) -> None:
    told = wishes(widget)
    widget.show()
    reading = widget.reading
    reading.patience.setInterval(30)
    state.reading = (0, 0)
    assert reading.isHidden()
    qtbot.waitUntil(reading.isVisible)
    state.reading = (3, 10)
    assert reading.bar.text() == "Reading, 3 of 10"
    assert (reading.bar.value(), reading.bar.maximum()) == (3, 10)
    reading.cancel_button.click()
    assert told == [("reading_cancelled",)]
    state.reading = None
    assert reading.isHidden()
    state.reading = (1, 2)
    state.reading = None
    assert not reading.patience.isActive(), "what is read at once is not shown"
