"""Curves of a training, drawn with pyqtgraph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sparseseg.gui.parts import WheelGuard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.gui.state import CurvePoint

LOSS_HEIGHT, DICE_HEIGHT = 76, 140
#: Room under the lowest number of an axis.
HALF_A_NUMBER = 6
#: Fewer points than this have dots, since a line of one point is not seen.
FEW_POINTS = 6
#: Difference in lightness from the ink beyond which a colour is like the background.
FAR_FROM_INK = 0.75
#: Room for the numbers at the left, the same for both plots so that steps align.
AXIS_WIDTH = 34


class Curves(QWidget):
    """Loss over steps, and below it Dice over the same steps.

    Attributes
    ----------
    loss, overall
        The lines of the loss and of the mean Dice.
    dice
        The lines of the classes, by class value.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._loss_plot = _plot("Loss: lower is better", LOSS_HEIGHT)
        self._dice_plot = _plot(
            "Dice on held-out strokes by step: 1 is best", DICE_HEIGHT
        )
        self._dice_plot.setYRange(0, 1, padding=0.04)
        self._dice_plot.setXLink(self._loss_plot)
        self._dice_plot.getAxis("left").setTicks([[(0, "0"), (0.5, "0.5"), (1, "1")]])
        self._loss_plot.hideAxis("bottom")
        # Else the lower half of the lowest number is cut off.
        self._loss_plot.getPlotItem().setContentsMargins(0, 0, 0, HALF_A_NUMBER)
        self.loss = self._loss_plot.plot()
        self.overall = self._dice_plot.plot()
        self.overall.setZValue(1)
        self.dice: dict[int, Any] = {}
        guard = WheelGuard(self)
        guard.watch(self._loss_plot.viewport(), self._dice_plot.viewport())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._loss_plot)
        layout.addWidget(self._dice_plot)

    def draw(
        self,
        losses: Sequence[tuple[int, float]],
        curve: Sequence[CurvePoint],
        classes: ClassTable,
        ink: QColor,
    ) -> None:
        """Draw the curves of now.

        Parameters
        ----------
        losses
            (step, loss) pairs.
        curve
            Dice, by ascending step.
        classes
            For the colours; classes without a score have no line.
        ink
            Colour of words and axes.
        """
        for plot in (self._loss_plot, self._dice_plot):
            _use_ink(plot, ink)
        self.loss.setPen(pg.mkPen(ink, width=1))
        self.loss.setData([step for step, _ in losses], [loss for _, loss in losses])
        highest = max((loss for _, loss in losses), default=1.0)
        # More numbers would overlap in so low a plot.
        ticks = [(0.0, "0"), (highest, f"{highest:.2g}")]
        self._loss_plot.getAxis("left").setTicks([ticks])
        for value in set(self.dice) - set(classes.values):
            self._dice_plot.removeItem(self.dice.pop(value))
        for each in classes:
            self._draw_class(each.value, QColor(*each.color), curve, ink)
        steps = [point.step for point in curve]
        _draw_line(self.overall, steps, [point.overall for point in curve], ink, ink)
        self.overall.setPen(pg.mkPen(ink, width=2, style=Qt.PenStyle.DashLine))

    def _draw_class(
        self, value: int, color: QColor, curve: Sequence[CurvePoint], ink: QColor
    ) -> None:
        points = [point for point in curve if value in point.dice]
        if value not in self.dice:
            self.dice[value] = self._dice_plot.plot()
        scores = [point.dice[value] for point in points]
        _draw_line(
            self.dice[value], [point.step for point in points], scores, color, ink
        )


def _plot(title: str, height: int) -> Any:
    plot = pg.PlotWidget(background=None, enableMenu=False)
    # pyqtgraph makes this menu all the same, and without a parent it stays for ever.
    plot.getPlotItem().ctrlMenu.setParent(plot, Qt.WindowType.Popup)
    plot.setFixedHeight(height)
    plot.setTitle(title, size="9pt")
    plot.setMouseEnabled(False, False)
    plot.hideButtons()
    plot.getAxis("left").setWidth(AXIS_WIDTH)
    plot.viewport().setAutoFillBackground(False)
    plot.setStyleSheet("background: transparent; border: none;")
    return plot


def _use_ink(plot: Any, ink: QColor) -> None:
    for side in ("left", "bottom"):
        plot.getAxis(side).setPen(ink)
        plot.getAxis(side).setTextPen(ink)
    label = plot.getPlotItem().titleLabel
    label.setText(label.text, color=ink)


def _draw_line(
    line: Any, steps: list[int], scores: list[float], color: QColor, ink: QColor
) -> None:
    line.setPen(pg.mkPen(color, width=2))
    line.setShadowPen(_edge(color, ink))
    line.setSymbol("o" if len(steps) < FEW_POINTS else None)
    line.setSymbolSize(6)
    line.setSymbolBrush(color)
    line.setSymbolPen(_edge(color, ink))
    line.setData(steps, scores)


def _edge(color: QColor, ink: QColor) -> Any:
    """Return a pen that edges a line which is nearly as dark as the background."""
    if abs(color.lightnessF() - ink.lightnessF()) < FAR_FROM_INK:
        return None
    edge = QColor(ink)
    edge.setAlpha(110)
    return pg.mkPen(edge, width=4)
