"""What the docks have in common: their frame, and how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import (
    QApplication,
    QDockWidget,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMessageBox,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.parts import once, push_button

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari.components import ViewerModel
    from qtpy.QtGui import QShowEvent

    from napari_sparseseg.gui.state import EngineState

PREFERRED_WIDTH = 340
ENGINE = {
    "ready": "Ready.",
    "broken": "The part that computes has stopped.",
}

# What closes the docks that are open. Were it garbage together with a dock, Python
# could take it apart before Qt deletes the dock and calls it.
_OPEN: set[Callable[[], None]] = set()


class Closable(Protocol):
    """Something that ends with its dock."""

    def close(self) -> None:
        """End; may be called more than once."""


class PluginWidget(QWidget):
    """A dock as napari makes it; its controller ends when it is closed."""

    _is_placed = False

    def fill(self, dock: QWidget, controller: Closable) -> None:
        """Show *dock*, and close *controller* with this widget or with napari."""
        # Else napari adds an empty stretch that takes half of the height.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(dock)
        self._closable = controller
        self._taken_out = once(self, self._on_taken_out)
        self._first_shown = once(self, self._join_tabs)
        _close_with(self, controller)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Take the place that the docks share when this one is opened."""
        super().showEvent(event)
        if not self._is_placed:
            self._is_placed = True
            # Not before napari has given it its place.
            self._first_shown.start(0)

    def _join_tabs(self) -> None:
        """Lie over another dock of the plugin, which would be squeezed else.

        napari does that only for docks that are opened by code.
        """
        own = frame_of(self)
        window = None if own is None else own.parentWidget()
        if own is None or own.isFloating() or not isinstance(window, QMainWindow):
            return
        for other in map(frame_of, window.findChildren(PluginWidget)):
            if other is None or other is own or other.isFloating():
                continue
            if window.dockWidgetArea(other) == window.dockWidgetArea(own):
                window.tabifyDockWidget(other, own)
                own.raise_()
                return

    def changeEvent(self, event: QEvent | None) -> None:
        """Notice that the dock is closed: napari takes its widget out and forgets it.

        Qt would delete it much later, if at all, and the engine would go on.
        """
        super().changeEvent(event)
        is_taken_out = event is not None and event.type() == QEvent.Type.ParentChange
        if is_taken_out and self.parent() is None:
            self._taken_out.start(0)

    def _on_taken_out(self) -> None:
        if self.parent() is None:
            self._closable.close()
            self.deleteLater()


class DockFrame(QWidget):
    """Sections that scroll above a status line with a button for help.

    Parameters
    ----------
    help_title, help_text
        What the button shows in a window of its own, the text as rich text.
    help_tip
        Tooltip of the button.

    Attributes
    ----------
    status
        The status line.
    help_button
        The button.
    """

    def __init__(
        self,
        help_title: str,
        help_text: str,
        help_tip: str,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._help = help_title, help_text
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.help_button = push_button("Help", help_tip, self.show_help)

    def show_help(self) -> None:
        """Open the help in a window of its own."""
        title, text = self._help
        box = QMessageBox(self)
        box.setWindowTitle(title)
        box.setTextFormat(Qt.TextFormat.RichText)
        box.setText(f"<h3>{title}</h3>{text}")
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.setModal(False)
        box.show()

    def sizeHint(self) -> QSize:
        """Ask for room beside the image, not instead of it."""
        return QSize(PREFERRED_WIDTH, super().sizeHint().height())

    def lay_out(self, sections: Mapping[str, Sequence[QWidget]]) -> None:
        """Put widgets below each other, by the title of their section."""
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 2, 6, 2)
        for name, parts in sections.items():
            column.addWidget(_title(name))
            for part in parts:
                column.addWidget(part)
        column.addStretch()
        area = _VerticalScrollArea()
        area.setWidget(inside)
        bottom = QHBoxLayout()
        bottom.setContentsMargins(8, 0, 8, 0)
        bottom.addWidget(self.status, stretch=1)
        bottom.addWidget(self.help_button, alignment=Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(area, stretch=1)
        layout.addLayout(bottom)


class _VerticalScrollArea(QScrollArea):
    """Scrolls up and down only, and is never narrower than what is inside."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Follow what is inside, whose fonts come with napari's theme."""
        inside, bar = self.widget(), self.verticalScrollBar()
        if (
            inside is not None
            and bar is not None
            and watched is inside
            and event is not None
            and event.type() == QEvent.Type.LayoutRequest
        ):
            width = inside.minimumSizeHint().width() + bar.sizeHint().width()
            self.setMinimumWidth(width)
        return super().eventFilter(watched, event)


def words_on_engine(engine: EngineState, starting: str) -> str:
    """Return what a dock says that has nothing else to say."""
    return starting if engine == "starting" else ENGINE[engine]


def frame_of(widget: QWidget) -> QDockWidget | None:
    """Return the dock that a widget lies in, None where it lies in none."""
    frame = widget.parentWidget()
    while frame is not None and not isinstance(frame, QDockWidget):
        frame = frame.parentWidget()
    return frame


def find_layer(viewer: ViewerModel, name: str, kind: type[Any]) -> Any:
    """Return the layer of a name and a kind, None where there is none."""
    for layer in viewer.layers:
        if layer.name == name and isinstance(layer, kind):
            return layer
    return None


def _title(text: str) -> QLabel:
    label = QLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    label.setContentsMargins(0, 6, 0, 0)
    return label


def _close_with(widget: QWidget, controller: Closable) -> None:
    """Close a controller when its dock is closed, or napari ends before."""

    def close() -> None:
        _OPEN.discard(close)
        controller.close()

    _OPEN.add(close)
    widget.destroyed.connect(close)
    application = QApplication.instance()
    assert application is not None
    application.aboutToQuit.connect(controller.close)
