"""The images of the training, with their label layers, as an item model of Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt, Signal
from qtpy.QtWidgets import QApplication, QStyle

from napari_sparseseg.gui.parts import counted, listen

if TYPE_CHECKING:
    from qtpy.QtGui import QIcon

    from napari_sparseseg.gui.state import PairRow, State

COLUMNS = ("Learn from", "Labels", "Strokes")
IMAGE, LABELS, STROKES = range(len(COLUMNS))
_ROLE = Qt.ItemDataRole


class PairsModel(QAbstractTableModel):
    """Rows are pairs of an image and its labels; a tick is only wished for.

    Signals
    -------
    ticked
        (row, whether the training shall learn from it).
    """

    ticked = Signal(int, bool)

    def __init__(self, state: State, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pairs = state.pairs
        listen(self, state.events.pairs, self._on_pairs)

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Give the number of pairs."""
        return 0 if parent is not None and parent.isValid() else len(self._pairs)

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

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Let images be ticked."""
        flags = super().flags(index)
        if index.column() == IMAGE:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def data(self, index: QModelIndex, role: int = _ROLE.DisplayRole) -> Any:
        """Give what a cell shows."""
        if not index.isValid():
            return None
        pair, column = self._pairs[index.row()], index.column()
        if role == _ROLE.DisplayRole:
            return (pair.image, pair.labels, f"{pair.strokes:,}")[column]
        if role == _ROLE.ToolTipRole:
            return _tooltip(pair)
        if role == _ROLE.CheckStateRole and column == IMAGE:
            state = Qt.CheckState
            return state.Checked if pair.ticked else state.Unchecked
        if role == _ROLE.DecorationRole and column == IMAGE and pair.problem:
            return _warning_icon()
        if role == _ROLE.TextAlignmentRole and column == STROKES:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def setData(
        self, index: QModelIndex, value: Any, role: int = _ROLE.EditRole
    ) -> bool:
        """Wish for a tick; the old one stays until the state has it."""
        if role != _ROLE.CheckStateRole or index.column() != IMAGE:
            return False
        self.ticked.emit(index.row(), Qt.CheckState(value) == Qt.CheckState.Checked)
        return True

    def _on_pairs(self, pairs: tuple[PairRow, ...]) -> None:
        if len(pairs) == len(self._pairs):
            self._pairs = pairs
            if pairs:
                last = self.index(len(pairs) - 1, len(COLUMNS) - 1)
                self.dataChanged.emit(self.index(0, 0), last)
            return
        self.beginResetModel()
        self._pairs = pairs
        self.endResetModel()


def _tooltip(pair: PairRow) -> str:
    tick = "Ticked: the training learns from it." if pair.ticked else "Not ticked."
    return pair.problem or (
        f"{pair.image} with {pair.labels}: {counted(pair.strokes, 'stroke')}.\n{tick}"
    )


def _warning_icon() -> QIcon | None:
    style = QApplication.style()
    pixmap = QStyle.StandardPixmap.SP_MessageBoxWarning
    return None if style is None else style.standardIcon(pixmap)
