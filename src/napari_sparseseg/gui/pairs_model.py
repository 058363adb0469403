"""The images of the training, with their labels, as an item model of Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt, Signal
from qtpy.QtGui import QFont
from qtpy.QtWidgets import QApplication, QStyle

from napari_sparseseg.gui.parts import counted, listen

if TYPE_CHECKING:
    from qtpy.QtGui import QIcon

    from napari_sparseseg.gui.state import PairRow, State

COLUMNS = ("", "Learn from", "Kind", "Strokes", "Score")
TICK, IMAGE, KIND, STROKES, SCORE = range(len(COLUMNS))
_ROLE = Qt.ItemDataRole
_TIPS = (
    "The training learns from ticked images",
    "Click an image to work on it; it is opened, and shown alone",
    "Sparse: strokes. Dense: regions are labelled completely. Proposed from what is "
    "labelled; click to change it",
    "Strokes, or labelled areas; of volumes also the planes they are on",
    "Mean Dice on strokes of this image that are held out, as of the last measurement",
)
_KIND_TIPS = {
    "sparse": "Sparse: strokes; a part of them is held out to be measured on.",
    "dense": "Dense: regions are labelled completely; it is learned from, or held out, "
    "as a whole.",
}
NO_SCORE = "-"


class PairsModel(QAbstractTableModel):
    """Rows are images with their labels; a tick is only wished for.

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
        """Give the number of images."""
        return 0 if parent is not None and parent.isValid() else len(self._pairs)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Give the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = _ROLE.DisplayRole
    ) -> Any:
        """Give the names of the columns, and what they mean."""
        if orientation == Qt.Orientation.Horizontal and role == _ROLE.DisplayRole:
            n_images = len(self._pairs)
            many = f" ({n_images})" if section == IMAGE and n_images > 1 else ""
            return COLUMNS[section] + many
        if orientation == Qt.Orientation.Horizontal and role == _ROLE.ToolTipRole:
            return _TIPS[section]
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Let images be ticked."""
        flags = super().flags(index)
        if index.column() == TICK:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def data(self, index: QModelIndex, role: int = _ROLE.DisplayRole) -> Any:
        """Give what a cell shows."""
        if not index.isValid():
            return None
        pair, column = self._pairs[index.row()], index.column()
        if role == _ROLE.DisplayRole:
            return self._text(pair, column)
        if role == _ROLE.ToolTipRole:
            return _tooltip(pair, column)
        if role == _ROLE.CheckStateRole and column == TICK:
            state = Qt.CheckState
            return state.Checked if pair.ticked else state.Unchecked
        if role == _ROLE.DecorationRole and column == IMAGE and pair.problem:
            return _warning_icon()
        if role == _ROLE.FontRole and pair.is_chosen:
            font = QFont()
            font.setBold(True)
            return font
        if role == _ROLE.TextAlignmentRole and column in (STROKES, SCORE):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def setData(
        self, index: QModelIndex, value: Any, role: int = _ROLE.EditRole
    ) -> bool:
        """Wish for a tick; the old one stays until the state has it."""
        if role != _ROLE.CheckStateRole or index.column() != TICK:
            return False
        self.ticked.emit(index.row(), Qt.CheckState(value) == Qt.CheckState.Checked)
        return True

    def _text(self, pair: PairRow, column: int) -> str:
        if column == IMAGE:
            same = sum(each.image == pair.image for each in self._pairs)
            labels = pair.labels or "no labels"
            return pair.image if same == 1 else f"{pair.image}: {labels}"
        if column == STROKES:
            planes = f" on {counted(pair.planes, 'plane')}" if pair.planes else ""
            return f"{pair.strokes:,}{planes}"
        score = NO_SCORE if pair.score is None else f"{pair.score:.2f}"
        return ("", "", pair.kind, "", score)[column]

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
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, IMAGE, IMAGE)


def _tooltip(pair: PairRow, column: int) -> str:
    if pair.problem:
        return pair.problem
    if column == KIND:
        chosen, proposed = "You chose it", "Proposed from what is labelled"
        how = chosen if pair.is_kind_chosen else proposed
        return f"{_KIND_TIPS[pair.kind]}\n{how}; click to change it."
    if column == SCORE and pair.score is None:
        return pair.no_score
    if column == SCORE:
        return f"Mean Dice on its held-out strokes: {pair.score:.3f}."
    planes = f" on {counted(pair.planes, 'plane')}" if pair.planes else ""
    labels = pair.labels or "no labels yet"
    tick = "Ticked: the training learns from it." if pair.ticked else "Not ticked."
    is_open = "" if pair.is_open else "\nNot open; click it to open it."
    return (
        f"{pair.image} with {labels}: {counted(pair.strokes, 'stroke')}{planes}.\n"
        f"{tick}{is_open}"
    )


def _warning_icon() -> QIcon | None:
    style = QApplication.style()
    pixmap = QStyle.StandardPixmap.SP_MessageBoxWarning
    return None if style is None else style.standardIcon(pixmap)
