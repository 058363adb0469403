"""Small parts that the views of the dock are made of."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakMethod, ref

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap, QStandardItemModel
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QHeaderView,
    QLabel,
    QMessageBox,
    QPushButton,
    QWidget,
)
from superqt import QCollapsible

if TYPE_CHECKING:
    from collections.abc import Callable

    from psygnal import SignalInstance
    from qtpy.QtWidgets import QTableView

    from napari_sparseseg.annotations.classes import Color

WARNING = "⚠ "
OPEN, CLOSED = "▾  Advanced", "▸  Advanced"
FLAT = "text-align: left; border: none; padding: 2px; background: transparent;"


class AdvancedSection(QCollapsible):
    """Shows a form when its title, "Advanced", is clicked."""

    def __init__(self, form: QWidget, parent: QWidget | None = None) -> None:
        # Its own icons are painted in the colours of before napari's theme.
        super().__init__(CLOSED, parent, expandedIcon=QIcon(), collapsedIcon=QIcon())
        self.toggleButton().setStyleSheet(FLAT)
        self.setDuration(0)
        self.addWidget(form)
        self.toggled.connect(self._on_toggled)

    def _on_toggled(self, opened: bool) -> None:
        self.setText(OPEN if opened else CLOSED)


def listen(owner: QObject, signal: SignalInstance, slot: Callable[..., object]) -> None:
    """Call *slot*, a method of *owner*, at *signal* for as long as *owner* exists."""
    # A strong reference would keep a view without a parent alive for ever. And nothing
    # is connected to *destroyed*: where Python collects a view as garbage before Qt
    # deletes it, what is connected has been taken apart, and calling it is a crash.
    remembered, remembered_owner = WeakMethod(slot), ref(owner)
    count = len(signature(slot).parameters)

    def call(*values: object) -> None:
        method = remembered()
        if method is not None and isalive(remembered_owner()):  # type: ignore[no-untyped-call]
            method(*values[:count])

    signal.connect(call)


def once(owner: QObject, slot: Callable[[], object], wait_ms: int = 0) -> QTimer:
    """Return a timer that calls *slot* once a start, unless *owner* is gone."""
    timer = QTimer(owner)
    timer.setSingleShot(True)
    timer.setInterval(wait_ms)
    timer.timeout.connect(slot)
    return timer


def allow(widget: QWidget, tooltip: str, unless: str = "") -> None:
    """Enable *widget*, or disable it and say why in its tooltip."""
    widget.setEnabled(not unless)
    widget.setToolTip(unless or tooltip)


def push_button(text: str, tooltip: str, pressed: Callable[[], object]) -> QPushButton:
    """Return a button that calls *pressed*."""
    button = QPushButton(text)
    button.setToolTip(tooltip)
    button.clicked.connect(lambda: pressed())
    return button


def narrow(combo: QComboBox) -> None:
    """Let long words be cut, so that they do not widen the dock."""
    combo.setSizeAdjustPolicy(
        QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    combo.setMinimumContentsLength(12)


def give_tip(combo: QComboBox, data: object, tip: str) -> None:
    """Give the entry of a combo that stands for *data* a tooltip of its own."""
    combo.setItemData(combo.findData(data), tip, Qt.ItemDataRole.ToolTipRole)


def refuse(combo: QComboBox, data: object, reason: str) -> None:
    """Keep the entry of a combo that stands for *data* from being chosen."""
    give_tip(combo, data, reason)
    entries = combo.model()
    assert isinstance(entries, QStandardItemModel)
    entry = entries.item(combo.findData(data))
    assert entry is not None
    entry.setEnabled(False)


def note() -> QLabel:
    """Return a line of words that wraps, and takes no room while it is empty."""
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setVisible(False)
    return label


def say(label: QLabel, text: str, sign: str = "") -> None:
    """Write into a :func:`note`, with a sign before the text if there is any."""
    label.setText(sign + text if text else "")
    label.setVisible(bool(text))


def counted(count: int, noun: str) -> str:
    """Word a number of things: ``1 stroke``, ``1,200 strokes``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def agrees(parent: QWidget, title: str, question: str) -> bool:
    """Ask before something is lost; only an explicit Yes agrees."""
    yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
    return QMessageBox.question(parent, title, question, yes | no, no) == yes


def ask_where(
    parent: QWidget, title: str, name: str, kinds: str, endings: tuple[str, ...]
) -> str:
    """Return where a file shall be written, empty where it shall not.

    A name without one of the endings gets the one of the kind that is chosen, else the
    first. The dialogue knows nothing of that, so whether a file of the full name may be
    replaced is asked here.
    """
    path, kind = QFileDialog.getSaveFileName(parent, title, name, kinds)
    if not path or path.lower().endswith(endings):
        return path
    chosen = kind.rpartition("(*")[2].rstrip(")").split(" *")
    path += chosen[0] if len(kinds.split(";;")) > 1 and chosen[0] else endings[0]
    question = f"{Path(path).name} already exists.\nDo you want to replace it?"
    if Path(path).exists() and not agrees(parent, title, question):
        return ""
    return path


def swatch(color: Color, side: int = 14) -> QPixmap:
    """Return a filled square with a grey edge, seen on any background."""
    pixmap = QPixmap(side, side)
    pixmap.fill(QColor(*color))
    painter = QPainter(pixmap)
    painter.setPen(QColor(128, 128, 128))
    painter.drawRect(0, 0, side - 1, side - 1)
    painter.end()
    return pixmap


def swatch_icon(color: Color) -> QIcon:
    """Return a :func:`swatch` that keeps its colour where the row is picked."""
    icon = QIcon(swatch(color))
    icon.addPixmap(swatch(color), QIcon.Mode.Selected)
    return icon


def lay_out_table(table: QTableView, *stretched: int) -> None:
    """Give a table the look of the dock.

    Parameters
    ----------
    table
        Its model is set.
    stretched
        Columns that take what the others leave.
    """
    header = QHeaderView(Qt.Orientation.Horizontal)
    table.setHorizontalHeader(header)
    header.setMinimumSectionSize(20)
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    # Rows that are not seen are not measured: there may be hundreds.
    header.setResizeContentsPrecision(0)
    for column in stretched:
        header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
    header.setHighlightSections(False)
    header.setStyleSheet("QHeaderView::section { padding: 1px; font-size: 8pt; }")
    side = QHeaderView(Qt.Orientation.Vertical)
    table.setVerticalHeader(side)
    side.setDefaultSectionSize(table.fontMetrics().height() + 6)
    side.hide()
    table.setTextElideMode(Qt.TextElideMode.ElideMiddle)
    table.setWordWrap(False)
    table.setShowGrid(False)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)


def fit_height(table: QTableView, rows: int) -> None:
    """Make a table so high that *rows* are seen; more are scrolled."""
    table.setFixedHeight((rows + 1) * (table.fontMetrics().height() + 6) + 8)


class WheelGuard(QObject):
    """Lets the wheel scroll the dock instead of changing the value under the mouse."""

    def watch(self, *widgets: QWidget) -> None:
        """Keep the wheel from *widgets*."""
        for widget in widgets:
            widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Pass wheel events to the parent of *watched*."""
        if event is not None and event.type() == QEvent.Type.Wheel:
            event.ignore()
            return True
        return super().eventFilter(watched, event)
