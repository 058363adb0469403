"""Train, Pause and Stop, and how a training is to be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.parts import (
    WARNING,
    AdvancedSection,
    WheelGuard,
    allow,
    listen,
    note,
    push_button,
    say,
)
from napari_sparseseg.gui.settings_form import SettingsForm

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import State

BALANCINGS = {
    "mini-batch": "Every class counts the same, however little of it you painted. "
    "Best for strokes.",
    "instance": "Every class counts the same within each small piece of an image. "
    "Best when some images are labelled completely.",
    "none": "Every painted pixel counts the same, so classes with more paint are "
    "learned first.",
}
#: What it means for a loss that is a mean over classes.
WITH_DICE = {
    "none": "Chosen with the loss Dice, which counts classes alike by itself.",
    "instance": "The loss Dice counts classes alike by itself: none suits it better.",
    "mini-batch": "The loss Dice counts classes alike by itself: none suits it better.",
}
TRAIN = "Learn from the strokes of the ticked images; paint on meanwhile"
CONTINUE = "Learn on from where the training was paused"
PAUSE = "Do not learn for a while; nothing is lost"
STOP = "End the training; the best model so far goes on predicting"
NOT_RUNNING = "No training is running."
STOP_FIRST = "Stop the training to change this."
RUNNING = {
    "preparing": "The training is being prepared.",
    "running": "The training is running.",
}


class TrainingWidget(QWidget):
    """Starts trainings and says how they are to be.

    Signals
    -------
    settings_changed
        The TrainingSettings wished for.
    weights_arrived
        Weights that were missing are there.
    train_pressed
        Train, or Continue where the training is paused.
    pause_pressed, stop_pressed
        The buttons of that name.
    """

    settings_changed = Signal(object)
    weights_arrived = Signal()
    train_pressed = Signal()
    pause_pressed = Signal()
    stop_pressed = Signal()

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.train_button = push_button("Train", TRAIN, self.train_pressed.emit)
        self.pause_button = push_button("Pause", PAUSE, self.pause_pressed.emit)
        self.stop_button = push_button("Stop", STOP, self.stop_pressed.emit)
        self.why_not = note()
        self.balance = QComboBox()
        for balance in BALANCINGS:
            self.balance.addItem(balance, balance)
        self.balance_note = note()
        self.form = SettingsForm(state)
        self.advanced = AdvancedSection(self.form)
        self._lay_out()

        self.balance.currentIndexChanged.connect(self._on_balance)
        self.form.changed.connect(self.settings_changed)
        self.form.network.weights_arrived.connect(self.weights_arrived)
        listen(self, state.events.phase, self._show_phase)
        listen(self, state.events.cannot_train, self._show_phase)
        listen(self, state.events.settings, self._show_balance)
        self._show_phase()
        self._show_balance()

    def _lay_out(self) -> None:
        guard = WheelGuard(self)
        guard.watch(self.balance)
        buttons = QHBoxLayout()
        for button in (self.train_button, self.pause_button, self.stop_button):
            buttons.addWidget(button)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Balancing", self.balance)
        inside = self.advanced.layout()
        if inside is not None:
            inside.setContentsMargins(0, 0, 0, 0)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.why_not)
        layout.addLayout(form)
        layout.addWidget(self.balance_note)
        layout.addWidget(self.advanced)

    def _show_phase(self) -> None:
        phase, cannot = self._state.phase, self._state.cannot_train
        paused = phase == "paused"
        self.train_button.setText("Continue" if paused else "Train")
        allow(
            self.train_button,
            CONTINUE if paused else TRAIN,
            unless=RUNNING.get(phase, cannot),
        )
        not_pausable = {"paused": "The training is paused.", "running": ""}
        allow(self.pause_button, PAUSE, not_pausable.get(phase, NOT_RUNNING))
        allow(self.stop_button, STOP, NOT_RUNNING if phase == "idle" else "")
        say(self.why_not, "" if phase in RUNNING else cannot, WARNING)
        busy = "" if phase == "idle" else STOP_FIRST
        allow(self.balance, "How the classes share the attention", unless=busy)
        self.form.lock(busy)

    def _show_balance(self) -> None:
        balance = self._state.settings.balance
        with QSignalBlocker(self.balance):
            self.balance.setCurrentIndex(self.balance.findData(balance))
        with_dice = self._state.settings.loss == "dice"
        say(self.balance_note, (WITH_DICE if with_dice else BALANCINGS)[balance])

    def _on_balance(self) -> None:
        wished = replace(self._state.settings, balance=self.balance.currentData())
        self.settings_changed.emit(wished)
        self._show_balance()
