"""Which network learns, how large it is, and what it knows to begin with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox

from napari_sparseseg.gui.encoders import PUBLISHED, RANDOM, encoder_of
from napari_sparseseg.gui.network_words import NETWORKS
from napari_sparseseg.gui.parts import (
    WheelGuard,
    allow,
    give_tip,
    listen,
    narrow,
    note,
    say,
)
from napari_sparseseg.gui.weights_widget import WeightsWidget
from napari_sparseseg.networks.network_names import WHEN_TO_CHOOSE

if TYPE_CHECKING:
    from qtpy.QtWidgets import QFormLayout

    from napari_sparseseg.gui.state import State

PRESETS = {
    "auto": "automatic",
    "light": "light, for a CPU",
    "paper": "large, for a GPU",
}
TOOLTIPS = {
    "net": "What learns. The U-Net is a good choice unless there is a reason",
    "preset": "Size of the network; automatic takes the large one where there is a "
    "graphics processor",
    "freeze": "Only what comes after the features learns: quicker, and safer with very "
    "few labels. Otherwise they are adapted to your images",
}
RANDOM_FEATURES = "Choose features first: random ones must be learned."


class NetworkRows(QObject):
    """Rows of a form that show ``state.settings`` as far as they are of the network.

    Parameters
    ----------
    state
        Of the dock.
    form
        Gets the rows; its widget is the parent.

    Signals
    -------
    changed
        The TrainingSettings wished for.
    weights_arrived
        Weights that were missing are there.
    """

    changed = Signal(object)
    weights_arrived = Signal()

    def __init__(self, state: State, form: QFormLayout) -> None:
        super().__init__(form.parentWidget())
        self._state = state
        self._form = form
        self._locked = ""
        self.net = QComboBox()
        narrow(self.net)
        for name, words in NETWORKS.items():
            self.net.addItem(words, name)
            give_tip(self.net, name, f"{name}: {WHEN_TO_CHOOSE[name]}")
        self.net_note = note()
        self.preset = QComboBox()
        for preset, words in PRESETS.items():
            self.preset.addItem(words, preset)
        self.weights = WeightsWidget()
        self.freeze = QCheckBox("Keep features as they are")
        self._lay_out(form)

        self.net.currentIndexChanged.connect(self._on_net)
        self.preset.currentIndexChanged.connect(self._on_preset)
        self.weights.chosen.connect(lambda chosen: self._wish(encoder_weights=chosen))
        self.weights.arrived.connect(self.weights_arrived)
        self.freeze.toggled.connect(lambda kept: self._wish(freeze_encoder=kept))
        listen(self, state.events.settings, self._show)
        listen(self, state.events.devices, self._show)
        self._show()

    def lock(self, reason: str) -> None:
        """Disable all for a reason; enable them where it is empty."""
        self._locked = reason
        allow(self.net, TOOLTIPS["net"], unless=reason)
        allow(self.preset, TOOLTIPS["preset"], unless=reason)
        self.weights.lock(reason)
        is_random = self._state.settings.encoder_weights == RANDOM
        unless = reason or (RANDOM_FEATURES if is_random else "")
        allow(self.freeze, TOOLTIPS["freeze"], unless=unless)

    def _lay_out(self, form: QFormLayout) -> None:
        guard = WheelGuard(self)
        guard.watch(self.net, self.preset, self.weights.combo)
        form.addRow("Network", self.net)
        form.addRow(self.net_note)
        form.addRow("Network size", self.preset)
        form.addRow("Features", self.weights.combo)
        form.addRow(self.weights)
        form.addRow("", self.freeze)

    def _show(self) -> None:
        settings = self._state.settings
        with (
            QSignalBlocker(self.net),
            QSignalBlocker(self.preset),
            QSignalBlocker(self.freeze),
        ):
            self.net.setCurrentIndex(self.net.findData(settings.net))
            self.preset.setCurrentIndex(self.preset.findData(settings.preset))
            self.freeze.setChecked(settings.freeze_encoder)
        say(self.net_note, WHEN_TO_CHOOSE[settings.net])
        encoder = encoder_of(settings, self._state.devices)
        self.weights.show_weights(encoder, settings.encoder_weights)
        for widget in (self.weights.combo, self.freeze):
            show_row(self._form, widget, encoder is not None)
        self.lock(self._locked)

    def _wish(self, **changed: Any) -> None:
        """Ask for other settings; the views show what the state has then."""
        before = self._state.settings
        wished = replace(before, **changed)
        encoders = [encoder_of(each, self._state.devices) for each in (before, wished)]
        if encoders[0] != encoders[1] and wished.encoder_weights != PUBLISHED:
            # A file is of one encoder.
            wished = replace(wished, encoder_weights=RANDOM)
        self.changed.emit(wished)
        self._show()

    def _on_net(self) -> None:
        self._wish(net=self.net.currentData())

    def _on_preset(self) -> None:
        self._wish(preset=self.preset.currentData())


def show_row(form: QFormLayout, field: Any, visible: bool) -> None:
    """Show or hide a field of a form together with its label."""
    field.setVisible(visible)
    label = form.labelForField(field)
    if label is not None:
        label.setVisible(visible)
