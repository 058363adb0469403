"""The class table of the state as an item model of Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt, Signal

from napari_sparseseg.gui.parts import counted, listen, swatch_icon

if TYPE_CHECKING:
    from napari_sparseseg.annotations.classes import ClassTable, LabelClass
    from napari_sparseseg.gui.state import State

COLUMNS = ("", "Name", "Alt+", "Strokes", "Pixels", "Share")
COLOR, NAME, KEY, STROKES, PIXELS, SHARE = range(len(COLUMNS))
TOOLTIPS = (
    "Colour of the class; click one to change it",
    "Name of the class; double-click one to change it",
    "Alt and this number pick the class for painting",
    "Strokes painted, over the images that are ticked",
    "Pixels painted, over the images that are ticked",
    "Share of the class in all painted pixels",
)
#: Classes that have a key, Alt+1 ...: napari takes 1 to 7 for itself.
MOST_KEYS = 9
_ROLE = Qt.ItemDataRole


class ClassTableModel(QAbstractTableModel):
    """Rows are the classes by ascending value; a new name is only wished for.

    Signals
    -------
    renamed
        (class value, new name).
    """

    renamed = Signal(int, str)

    def __init__(self, state: State, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._classes = state.classes
        listen(self, state.events.classes, self._on_classes)
        listen(self, state.events.counts, self._on_counts)

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Give the number of classes."""
        return 0 if parent is not None and parent.isValid() else len(self._classes)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Give the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = _ROLE.DisplayRole
    ) -> Any:
        """Give the names of the columns and what they mean."""
        if orientation == Qt.Orientation.Horizontal:
            if role == _ROLE.DisplayRole:
                return COLUMNS[section]
            if role == _ROLE.ToolTipRole:
                return TOOLTIPS[section]
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Let names be edited."""
        flags = super().flags(index)
        if index.column() == NAME:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: QModelIndex, role: int = _ROLE.DisplayRole) -> Any:
        """Give what a cell shows."""
        if not index.isValid():
            return None
        each, column = self.class_at(index.row()), index.column()
        if role == _ROLE.DisplayRole or (role == _ROLE.EditRole and column == NAME):
            return self._text(index.row(), each, column)
        if role == _ROLE.DecorationRole and column == COLOR:
            return swatch_icon(each.color)
        if role == _ROLE.ToolTipRole:
            return self._tooltip(each, column)
        if role == _ROLE.TextAlignmentRole and column >= STROKES:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def setData(
        self, index: QModelIndex, value: Any, role: int = _ROLE.EditRole
    ) -> bool:
        """Wish for another name; the old one stays until the state has it."""
        if role != _ROLE.EditRole or index.column() != NAME:
            return False
        each, name = self.class_at(index.row()), str(value).strip()
        if name in ("", each.name):
            return False
        self.renamed.emit(each.value, name)
        return True

    def class_at(self, row: int) -> LabelClass:
        """Give the class of a row."""
        return self._classes.classes[row]

    def row_of(self, value: int) -> int:
        """Give the row of a class value, -1 where there is none."""
        values = self._classes.values
        return values.index(value) if value in values else -1

    def _text(self, row: int, each: LabelClass, column: int) -> str:
        pixels, strokes = self._state.counts.get(each.value, (0, 0))
        if column == NAME:
            return each.name
        if column == KEY:
            return str(row + 1) if row < MOST_KEYS else ""
        if column == STROKES:
            return f"{strokes:,}"
        if column == PIXELS:
            return _shortened(pixels)
        if column == SHARE:
            painted = sum(count for count, _ in self._state.counts.values())
            return _percent(pixels / painted) if painted else ""
        return ""

    def _tooltip(self, each: LabelClass, column: int) -> str:
        pixels, strokes = self._state.counts.get(each.value, (0, 0))
        if column in (COLOR, NAME):
            return f"{each.name} (label value {each.value}).\n{TOOLTIPS[column]}."
        return (
            f"{each.name}: {counted(strokes, 'stroke')}, {counted(pixels, 'pixel')}.\n"
            f"{TOOLTIPS[column]}."
        )

    def _on_classes(self, classes: ClassTable) -> None:
        if classes.values == self._classes.values:
            self._classes = classes
            self._tell_changed()
            return
        self.beginResetModel()
        self._classes = classes
        self.endResetModel()

    def _on_counts(self) -> None:
        self._tell_changed()

    def _tell_changed(self) -> None:
        if len(self._classes):
            last = self.index(len(self._classes) - 1, len(COLUMNS) - 1)
            self.dataChanged.emit(self.index(0, 0), last)


def _shortened(count: int) -> str:
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:,.1f} M"


def _percent(share: float) -> str:
    return "<1%" if 0 < share < 0.01 else f"{share:.0%}"
