"""Which network learns, how large it is, and what it knows to begin with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import platformdirs
from qtpy.QtCore import QObject, QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox

from napari_sparseseg.gui.encoders import ENCODERS, RANDOM, encoders_of
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
from napari_sparseseg.gui.weights_widget import FILE, WeightsWidget
from napari_sparseseg.networks.network_names import ENCODER_OF, WHEN_TO_CHOOSE

if TYPE_CHECKING:
    from pathlib import Path

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
    "head": "What the quick start knows each pixel by",
}
FIXED = "Colour, edges and texture: nothing has to be downloaded, and it is quickest"
EARLY_LAYERS = "Sees what the first layers of {} see as well: slower"
#: What is added where features that stay as they are may be kept.
KEPT = (
    "On a CPU features of your images are kept, up to 10 GiB, in {}. They tell much of "
    "the images; the folder may be deleted at any time"
)
RANDOM_FEATURES = "Choose features first: random ones must be learned."
NOT_FOR_HEAD = "The quick start does not learn features, so they cannot be random."
TWO_ENCODERS = "A file is of one encoder, but network and quick start look through two."
START_AT_RANDOM = "These features start at random; ImageNet's learn from fewer labels."
HEAD_FIRST = "Tick Quick start first."


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
        self.head = QComboBox()
        narrow(self.head)
        self.head.addItem("fixed filters", "fixed")
        give_tip(self.head, "fixed", FIXED)
        for encoder, words in ENCODERS.items():
            self.head.addItem(words, encoder)
            give_tip(self.head, encoder, EARLY_LAYERS.format(words))
        self.weights_note = note()
        self._kept = KEPT.format(features_folder())
        self.weights = WeightsWidget()
        self.freeze = QCheckBox("Keep features as they are")
        self._lay_out(form)

        self.net.currentIndexChanged.connect(self._on_net)
        self.preset.currentIndexChanged.connect(self._on_preset)
        self.weights.chosen.connect(lambda chosen: self._wish(encoder_weights=chosen))
        self.head.currentIndexChanged.connect(self._on_head)
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
        settings = self._state.settings
        no_head = "" if settings.head_start else HEAD_FIRST
        allow(self.head, f"{TOOLTIPS['head']}. {self._kept}", unless=reason or no_head)
        is_random = settings.encoder_weights == RANDOM
        unless = reason or (RANDOM_FEATURES if is_random else "")
        allow(self.freeze, f"{TOOLTIPS['freeze']}. {self._kept}", unless=unless)

    def _lay_out(self, form: QFormLayout) -> None:
        guard = WheelGuard(self)
        guard.watch(self.net, self.preset, self.head, self.weights.combo)
        form.addRow("Network", self.net)
        form.addRow(self.net_note)
        form.addRow("Network size", self.preset)
        form.addRow("Quick start sees", self.head)
        form.addRow("Features", self.weights.combo)
        form.addRow(self.weights_note)
        form.addRow(self.weights)
        form.addRow("", self.freeze)

    def _show(self) -> None:
        settings = self._state.settings
        with (
            QSignalBlocker(self.net),
            QSignalBlocker(self.preset),
            QSignalBlocker(self.head),
            QSignalBlocker(self.freeze),
        ):
            self.net.setCurrentIndex(self.net.findData(settings.net))
            self.preset.setCurrentIndex(self.preset.findData(settings.preset))
            self.head.setCurrentIndex(self.head.findData(settings.head_features))
            self.freeze.setChecked(settings.freeze_encoder)
        say(self.net_note, WHEN_TO_CHOOSE[settings.net])
        self._show_weights()
        show_row(self._form, self.freeze, settings.net in ENCODER_OF)
        self.lock(self._locked)

    def _show_weights(self) -> None:
        """Show which weights all encoders have."""
        settings = self._state.settings
        encoders = encoders_of(settings, self._state.devices)
        why_not = {}
        if settings.head_features != "fixed":
            why_not[RANDOM] = NOT_FOR_HEAD
        if len(encoders) > 1:
            why_not[FILE] = TWO_ENCODERS
        self.weights.show_weights(encoders, settings.encoder_weights, why_not)
        show_row(self._form, self.weights.combo, bool(encoders))
        is_random = bool(encoders) and settings.encoder_weights == RANDOM
        say(self.weights_note, START_AT_RANDOM if is_random else "")

    def _wish(self, **changed: Any) -> None:
        """Ask for other settings; the views show what the state has then."""
        self.changed.emit(replace(self._state.settings, **changed))
        self._show()

    def _on_net(self) -> None:
        self._wish(net=self.net.currentData())

    def _on_preset(self) -> None:
        self._wish(preset=self.preset.currentData())

    def _on_head(self) -> None:
        self._wish(head_features=self.head.currentData())


def features_folder() -> Path:
    """Return where features of encoders that do not learn are kept."""
    place = platformdirs.user_cache_path("napari-sparseseg", appauthor=False)
    return place / "features"


def show_row(form: QFormLayout, field: Any, visible: bool) -> None:
    """Show or hide a field of a form together with its label."""
    field.setVisible(visible)
    label = form.labelForField(field)
    if label is not None:
        label.setVisible(visible)
