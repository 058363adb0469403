"""The boxes as an item model of Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt

from napari_sparseseg.gui.parts import listen, swatch_icon

if TYPE_CHECKING:
    from napari_sparseseg.gui.boxes_state import BoxesState, BoxRow, BoxStatus

COLUMNS = ("", "Class", "Where", "Mask")
NUMBER, CLASS, WHERE, MASK = range(len(COLUMNS))
#: What is written in the list, and what it means.
STATUSES: dict[BoxStatus, tuple[str, str]] = {
    "drawn": ("drawn", "It has no mask yet; press Generate."),
    "proposed": ("proposed", "Look at it, then press Accept or Redo."),
    "accepted": ("✓ accepted", "It is in the labels, where you can paint on it."),
    "skipped": ("skipped", ""),
}
NOTHING = "nothing found"
_ROLE = Qt.ItemDataRole


class BoxTableModel(QAbstractTableModel):
    """Rows are the boxes, in the order in which they were drawn."""

    def __init__(self, state: BoxesState, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._rows = state.rows
        listen(self, state.events.rows, self._on_rows)
        listen(self, state.events.classes, self._on_classes)

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Give the number of boxes."""
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Give the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = _ROLE.DisplayRole
    ) -> Any:
        """Give the names of the columns."""
        if orientation == Qt.Orientation.Horizontal and role == _ROLE.DisplayRole:
            return COLUMNS[section]
        return None

    def data(self, index: QModelIndex, role: int = _ROLE.DisplayRole) -> Any:
        """Give what a cell shows."""
        if not index.isValid():
            return None
        row, column = self._rows[index.row()], index.column()
        if role == _ROLE.DisplayRole:
            words = STATUSES[row.status][0]
            if row.status == "proposed" and not row.share:
                words = NOTHING
            return (str(index.row() + 1), row.class_name, row.place, words)[column]
        if role == _ROLE.ToolTipRole:
            return _tooltip(index.row() + 1, row)
        if role == _ROLE.DecorationRole and column == CLASS:
            values = self._state.classes.values
            if row.class_value in values:
                return swatch_icon(self._state.classes.by_value(row.class_value).color)
        return None

    def _on_rows(self, rows: tuple[BoxRow, ...]) -> None:
        if len(rows) == len(self._rows):
            self._rows = rows
            self._tell_changed()
            return
        self.beginResetModel()
        self._rows = rows
        self.endResetModel()

    def _on_classes(self) -> None:
        self._tell_changed()

    def _tell_changed(self) -> None:
        if self._rows:
            last = self.index(len(self._rows) - 1, len(COLUMNS) - 1)
            self.dataChanged.emit(self.index(0, 0), last)


def _tooltip(number: int, row: BoxRow) -> str:
    if row.problem:
        return f"Box {number} is skipped: {row.problem}."
    words = f"Box {number}: {row.class_name}, {row.place}."
    if row.status in ("proposed", "accepted"):
        words += f" The mask fills {row.share:.0%} of it."
    return f"{words} {STATUSES[row.status][1]}"
