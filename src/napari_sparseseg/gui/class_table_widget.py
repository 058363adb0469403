"""The class table: pick, add, rename, recolour and delete classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QItemSelectionModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.class_table_model import COLOR, NAME, ClassTableModel
from napari_sparseseg.gui.parts import (
    agrees,
    allow,
    counted,
    fit_height,
    lay_out_table,
    listen,
    push_button,
)

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import State

_ADD = "Add a class and type its name; this works while the training runs, too"
_DELETE = "Delete the picked class; asks first when it is painted"
#: Fewest and most rows that are seen without scrolling.
ROWS_SEEN = (3, 7)
_TRIGGERS = QAbstractItemView.EditTrigger


class ClassTableWidget(QWidget):
    """Shows the classes; the picked row is the class that is painted.

    Signals
    -------
    added
        Name of a class wished for.
    renamed
        (class value, new name).
    recoloured
        (class value, (red, green, blue) in 0..255).
    deleted
        Class value; the user has agreed.
    selected
        Class value to paint.
    """

    added = Signal(str)
    renamed = Signal(int, str)
    recoloured = Signal(int, tuple)
    deleted = Signal(int)
    selected = Signal(int)

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        # Before the model listens, so that it is reset when the row is picked.
        self.model = ClassTableModel(state, self)
        self.model.renamed.connect(self.renamed)
        self.table = self._make_table()
        self.rows = QItemSelectionModel(self.model, self)
        self.table.setSelectionModel(self.rows)
        self.rows.currentRowChanged.connect(self._on_row)
        self.add_button = push_button("Add", _ADD, self._add)
        self.delete_button = push_button("Delete", _DELETE, self._delete)

        buttons = QHBoxLayout()
        buttons.addWidget(self.add_button)
        buttons.addWidget(self.delete_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addLayout(buttons)

        listen(self, state.events.classes, self._show_selected)
        listen(self, state.events.selected, self._show_selected)
        self._show_selected()

    def _make_table(self) -> QTableView:
        table = QTableView()
        table.setModel(self.model)
        lay_out_table(table, NAME)
        table.setTextElideMode(Qt.TextElideMode.ElideRight)
        table.setEditTriggers(_TRIGGERS.DoubleClicked | _TRIGGERS.EditKeyPressed)
        table.clicked.connect(self._on_clicked)
        return table

    def _show_selected(self) -> None:
        fewest, most = ROWS_SEEN
        fit_height(self.table, min(max(len(self._state.classes), fewest), most))
        row = self.model.row_of(self._state.selected)
        index = self.model.index(row, NAME)
        if index.isValid():
            flags = QItemSelectionModel.SelectionFlag
            self.rows.setCurrentIndex(index, flags.ClearAndSelect | flags.Rows)
            self.table.scrollTo(index)
        else:
            self.rows.clear()
        allow(
            self.delete_button,
            _DELETE,
            unless="" if index.isValid() else "Pick the class in the table first.",
        )

    def _on_row(self, index: QModelIndex) -> None:
        if not index.isValid():
            return
        value = self.model.class_at(index.row()).value
        if value != self._state.selected:
            self.selected.emit(value)

    def _on_clicked(self, index: QModelIndex) -> None:
        if index.column() != COLOR:
            return
        each = self.model.class_at(index.row())
        color = QColorDialog.getColor(
            QColor(*each.color), self, f"Colour of {each.name}"
        )
        chosen = (color.red(), color.green(), color.blue())
        if color.isValid() and chosen != each.color:
            self.recoloured.emit(each.value, chosen)

    def _add(self) -> None:
        names = self._state.classes.names
        number = len(names) + 1
        while f"class {number}" in names:
            number += 1
        self.added.emit(f"class {number}")
        if f"class {number}" in self._state.classes.names:
            added = self._state.classes.by_name(f"class {number}")
            self.table.edit(self.model.index(self.model.row_of(added.value), NAME))

    def _delete(self) -> None:
        each = self._state.classes.by_value(self._state.selected)
        pixels, strokes = self._state.counts.get(each.value, (0, 0))
        if pixels and not self._agrees(each.name, strokes, pixels):
            return
        self.deleted.emit(each.value)

    def _agrees(self, name: str, strokes: int, pixels: int) -> bool:
        question = (
            f"Delete the class “{name}”?\n\nIts paint goes with it: "
            f"{counted(strokes, 'stroke')}, {counted(pixels, 'pixel')}."
        )
        return agrees(self, "Delete class", question)
