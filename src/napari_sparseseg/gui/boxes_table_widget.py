"""The list of boxes, and what is done with the picked ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QItemSelection, QItemSelectionModel, QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QMenu,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.boxes_table_model import CLASS, WHERE, BoxTableModel
from napari_sparseseg.gui.parts import (
    WARNING,
    allow,
    fit_height,
    lay_out_table,
    listen,
    note,
    push_button,
    say,
    swatch_icon,
)

if TYPE_CHECKING:
    from napari_sparseseg.gui.boxes_state import BoxesState

ACCEPT = "Write the masks of the picked boxes into the labels, where you can edit them"
ACCEPT_ALL = "Write all proposed masks into the labels, in one step"
REDO = "Make the masks of the picked boxes anew, with the settings of now"
DELETE = "Delete the picked boxes; masks that you accepted stay in the labels"
UNDO = "Take back what was accepted last; what you painted there since stays"
SET_CLASS = "Give the picked boxes another class"
PICK_FIRST = "Pick a box first, in the list or on the image."
NOTHING_PROPOSED = "There is no proposed mask; press Generate."
NOTHING_ACCEPTED = "Nothing is accepted yet."
#: Fewest and most rows that are seen without scrolling.
ROWS_SEEN = (3, 8)


class BoxTableWidget(QWidget):
    """Shows the boxes.

    Signals
    -------
    picked
        Places of the boxes that are picked, ascending.
    accept_wished, redo_wished, delete_wished
        Places of boxes.
    class_wished
        (places of boxes, class value).
    undo_pressed
        The button of that name.
    """

    picked = Signal(tuple)
    accept_wished = Signal(tuple)
    redo_wished = Signal(tuple)
    delete_wished = Signal(tuple)
    class_wished = Signal(tuple, int)
    undo_pressed = Signal()

    def __init__(self, state: BoxesState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        # Before the model listens, so that it is reset when rows are picked.
        self.model = BoxTableModel(state, self)
        self.table = QTableView()
        self.table.setModel(self.model)
        lay_out_table(self.table, CLASS, WHERE)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.rows = QItemSelectionModel(self.model, self)
        self.table.setSelectionModel(self.rows)
        self.problem = note()
        self.accept_button = push_button("Accept", ACCEPT, self._accept)
        self.redo_button = push_button("Redo", REDO, self._redo)
        self.delete_button = push_button("Delete", DELETE, self._delete)
        self.class_button = push_button("Set class", SET_CLASS, self._set_class)
        self.accept_all_button = push_button("Accept all", ACCEPT_ALL, self._accept_all)
        self.undo_button = push_button("Undo", UNDO, self.undo_pressed.emit)
        self._lay_out()
        self.rows.selectionChanged.connect(self._on_rows)
        for name in ("rows", "picked", "can_undo", "cannot_redo", "progress"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addWidget(self.problem)
        for buttons in (
            (self.accept_button, self.redo_button, self.delete_button),
            (self.accept_all_button, self.undo_button, self.class_button),
        ):
            row = QHBoxLayout()
            for button in buttons:
                row.addWidget(button)
            layout.addLayout(row)

    def _show(self) -> None:
        state = self._state
        fewest, most = ROWS_SEEN
        fit_height(self.table, min(max(len(state.rows), fewest), most))
        self._show_picked()
        picked = "" if state.picked else PICK_FIRST
        proposed = state.places("proposed")
        nothing = "" if proposed else NOTHING_PROPOSED
        some = set(proposed) & set(state.picked)
        allow(self.accept_button, ACCEPT, picked or ("" if some else NOTHING_PROPOSED))
        allow(self.accept_all_button, ACCEPT_ALL, nothing)
        busy = "" if state.progress is None else "Masks are being made."
        allow(self.redo_button, REDO, picked or busy or state.cannot_redo)
        allow(self.delete_button, DELETE, picked)
        allow(self.class_button, SET_CLASS, picked)
        allow(self.undo_button, UNDO, "" if state.can_undo else NOTHING_ACCEPTED)
        skipped = state.places("skipped")
        words = [f"Box {n + 1} is skipped: {state.rows[n].problem}." for n in skipped]
        say(self.problem, "".join(words[:1]), WARNING)

    def _show_picked(self) -> None:
        picked = self._state.picked
        if self._picked_rows() == picked:
            return
        selection = QItemSelection()
        for place in picked:
            index = self.model.index(place, 0)
            selection.select(index, index)
        flags = QItemSelectionModel.SelectionFlag
        with QSignalBlocker(self):
            self.rows.select(selection, flags.ClearAndSelect | flags.Rows)
        if picked:
            self.table.scrollTo(self.model.index(picked[0], 0))

    def _picked_rows(self) -> tuple[int, ...]:
        return tuple(sorted(index.row() for index in self.rows.selectedRows()))

    def _on_rows(self) -> None:
        self.picked.emit(self._picked_rows())

    def _accept(self) -> None:
        self.accept_wished.emit(self._state.picked)

    def _accept_all(self) -> None:
        self.accept_wished.emit(self._state.places("proposed"))

    def _redo(self) -> None:
        self.redo_wished.emit(self._state.picked)

    def _delete(self) -> None:
        self.delete_wished.emit(self._state.picked)

    def _set_class(self) -> None:
        menu = QMenu(self)
        for each in self._state.classes:
            action = menu.addAction(swatch_icon(each.color), each.name)
            if action is not None:
                action.setData(each.value)
        below = self.class_button.rect().bottomLeft()
        chosen = menu.exec(self.class_button.mapToGlobal(below))
        menu.deleteLater()
        if chosen is not None:
            self.class_wished.emit(self._state.picked, chosen.data())
