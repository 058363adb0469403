"""The dock "Label & train"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.class_table_widget import ClassTableWidget
from napari_sparseseg.gui.model_widget import ModelWidget
from napari_sparseseg.gui.pairs_widget import PairsWidget
from napari_sparseseg.gui.parts import counted, listen, push_button
from napari_sparseseg.gui.place_widget import PlaceWidget
from napari_sparseseg.gui.plots import PlotsWidget
from napari_sparseseg.gui.prediction_widget import PredictionWidget
from napari_sparseseg.gui.training_widget import TrainingWidget

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import State

HELP_TITLE = "Label and train in five steps"
HELP = """
<ol>
<li><b>Open an image</b>, then press <b>New labels</b>.</li>
<li><b>Name your classes.</b> Background is a class like any other.</li>
<li><b>Paint a few thin strokes of each class.</b> Pick the class with a click or with
Alt+1, Alt+2, …; paint with napari's own brush. What is not painted is not background:
it is simply not yet labelled. Five strokes or more of a class let its quality be
measured.</li>
<li><b>Press Train</b> and watch the prediction come. Paint on where it is wrong: it
learns while you paint.</li>
<li><b>Save the model</b> for other images, and <b>export the labels</b>.</li>
</ol>
<p>Your strokes are kept on disk as you paint; <b>Keep strokes in…</b> names the
folder, and <b>Open strokes…</b> brings them back another day. The prediction has a
layer of its own and never changes your strokes.</p>
<p>For research use only; not a medical device.</p>
"""


PREFERRED_WIDTH = 340
ENGINE = {
    "starting": "Starting, a few seconds …",
    "ready": "Ready.",
    "broken": "The part that computes has stopped.",
}


class VerticalScrollArea(QScrollArea):
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


class DockWidget(QWidget):
    """Shows a state; its parts send signals for what the user wishes.

    Attributes
    ----------
    pairs, place, classes, training, plots, prediction, model
        The parts, from top to bottom.
    """

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.pairs = PairsWidget(state)
        self.place = PlaceWidget(state)
        self.classes = ClassTableWidget(state)
        self.training = TrainingWidget(state)
        self.plots = PlotsWidget(state)
        self.prediction = PredictionWidget(state)
        self.model = ModelWidget(state)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.help_button = push_button(
            "Help", "How to label and train, in five steps", self.show_help
        )
        self._lay_out()
        for name in ("status", "engine", "device", "step"):
            listen(self, getattr(state.events, name), self._show_status)
        self._show_status()

    def show_help(self) -> None:
        """Open the five steps in a window of their own."""
        box = QMessageBox(self)
        box.setWindowTitle(HELP_TITLE)
        box.setTextFormat(Qt.TextFormat.RichText)
        box.setText(f"<h3>{HELP_TITLE}</h3>{HELP}")
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.setModal(False)
        box.show()

    def _lay_out(self) -> None:
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 2, 6, 2)
        sections: dict[str, list[QWidget]] = {
            "Images and labels": [self.pairs, self.place],
            "Classes": [self.classes],
            "Train": [self.training, self.plots],
            "Prediction": [self.prediction],
            "Model": [self.model],
        }
        for name, parts in sections.items():
            column.addWidget(title(name))
            for part in parts:
                column.addWidget(part)
        column.addStretch()
        area = VerticalScrollArea()
        area.setWidget(inside)
        bottom = QHBoxLayout()
        bottom.setContentsMargins(8, 0, 8, 0)
        bottom.addWidget(self.status, stretch=1)
        bottom.addWidget(self.help_button, alignment=Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(area, stretch=1)
        layout.addLayout(bottom)

    def sizeHint(self) -> QSize:
        """Ask for room beside the image, not instead of it."""
        return QSize(PREFERRED_WIDTH, super().sizeHint().height())

    def _show_status(self) -> None:
        state = self._state
        lines = [state.status or ENGINE[state.engine]]
        if state.device:
            learned = (
                f"{counted(state.step, 'step')} learned" if state.step else "Computes"
            )
            lines.append(f"{learned} on {state.device}.")
        self.status.setText("\n".join(lines))


def title(text: str) -> QLabel:
    """Return a section's title."""
    label = QLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    label.setContentsMargins(0, 6, 0, 0)
    return label
