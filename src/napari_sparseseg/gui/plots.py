"""How the training goes: its curves with a legend, and what predicts now and why."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import QBuffer, QEvent, QIODevice, Qt, QTimer
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sparseseg.gui.parts import listen, note, say, swatch

if TYPE_CHECKING:
    from napari_sparseseg.annotations.classes import Color
    from napari_sparseseg.gui.curves import Curves
    from napari_sparseseg.gui.state import State

#: Curves are drawn at most so often.
REDRAW_MS = 500
LEGEND_COLUMNS = 2
SHOWN = {
    "head": "the quick start predicts",
    "network": "the network predicts",
    "both": "quick start and network predict together",
}
EXPLANATION = (
    "Quick start: a small model of colour and texture, ready within seconds.\n"
    "Network: learns shapes too, and takes longer.\n"
    "Whichever does better on held-out strokes predicts.\n\n"
    "Held-out strokes: some of your strokes from which nothing is learned;\n"
    "the prediction is compared with them.\n"
    "Dice: 1 where prediction and strokes agree, 0 where they never do."
)


class PlotsWidget(QWidget):
    """Shows ``state.losses`` and ``state.curve``, and what predicts and why.

    It takes no room until there is something to show.
    """

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.timer = QTimer(self)
        self.timer.setSingleShot(True)
        self.timer.setInterval(REDRAW_MS)
        self.timer.timeout.connect(self.draw)
        self.curves: Curves | None = None
        self.legend = note()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.shown = note()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self.legend)
        self._layout.addWidget(self.shown)
        self.setToolTip(EXPLANATION)
        for name in ("losses", "curve", "classes", "shown", "reason", "unsaved"):
            listen(self, getattr(state.events, name), self._ask_to_draw)
        self.draw()

    def draw(self) -> None:
        """Show what the state has now."""
        self.timer.stop()
        state = self._state
        if self.curves is None and (state.losses or state.curve):
            self.curves = self._make_curves()
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        if self.curves is not None:
            self.curves.draw(state.losses, state.curve, state.classes, ink)
        say(self.legend, self._legend())
        predicts = bool(state.curve or state.reason or state.unsaved)
        say(self.shown, f"Now {self._reason()}." if predicts else "")

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the theme of napari."""
        super().changeEvent(event)
        changes = (QEvent.Type.StyleChange, QEvent.Type.PaletteChange)
        if event is not None and event.type() in changes:
            self._ask_to_draw()

    def _ask_to_draw(self) -> None:
        if not self.timer.isActive():
            self.timer.start()

    def _make_curves(self) -> Curves:
        # Its import takes longer than the dock may take to open.
        from napari_sparseseg.gui.curves import Curves

        curves = Curves()
        self._layout.insertWidget(0, curves)
        return curves

    def _reason(self) -> str:
        """Return what predicts, with the reason unless that is of something else."""
        shown, reason = self._state.shown, self._state.reason
        others = tuple(words for name, words in SHOWN.items() if name != shown)
        return reason if reason and not reason.startswith(others) else SHOWN[shown]

    def _legend(self) -> str:
        """Return the classes with their colours and latest Dice, as rich text."""
        if not self._state.curve:
            return ""
        latest = self._state.curve[-1]
        cells = [_cells("-&nbsp;-", "all classes", latest.overall)]
        cells += [
            _cells(_square(each.color), escape(each.name), latest.dice.get(each.value))
            for each in self._state.classes
        ]
        rows = [
            f"<tr>{''.join(cells[first : first + LEGEND_COLUMNS])}</tr>"
            for first in range(0, len(cells), LEGEND_COLUMNS)
        ]
        return f'<table cellpadding="1">{"".join(rows)}</table>'


def _cells(sign: str, name: str, dice: float | None) -> str:
    score = "—" if dice is None else f"{dice:.2f}"
    return f"<td>{sign}</td><td>{name}</td><td><b>{score}</b>&nbsp;&nbsp;</td>"


def _square(color: Color) -> str:
    """Return a swatch as rich text."""
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    swatch(color, side=10).save(buffer, "PNG")
    data = buffer.data().toBase64().data().decode()
    return f'<img src="data:image/png;base64,{data}">'
