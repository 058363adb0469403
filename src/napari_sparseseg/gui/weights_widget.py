"""What a network is to know to begin with, and getting it where it is not there."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.encoders import ENCODERS, PUBLISHED, RANDOM, is_missing
from napari_sparseseg.gui.parts import (
    WARNING,
    allow,
    give_tip,
    narrow,
    note,
    push_button,
    refuse,
    say,
)
from napari_sparseseg.gui.weights_download import last_download, start_download
from napari_sparseseg.networks import published_weights
from napari_sparseseg.networks.published_weights import LICENCE, published_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sparseseg.gui.weights_download import WeightsDownload
    from napari_sparseseg.networks.published_weights import EncoderName

WEIGHTS = {
    RANDOM: "random",
    PUBLISHED: "ImageNet",
}
FILE = "file"
FROM_FILE = "from a file…"
KINDS = "Weights (*.pth *.pt *.safetensors)"
FEATURES = (
    "What the network knows to begin with. Features that others have learned from "
    "photographs help where there are few labels"
)
TIPS = {
    RANDOM: "The network knows nothing at first, and learns all from your labels",
    PUBLISHED: "Learned from 1.3 million photographs, published by torchvision",
    FILE: "A file of torchvision, or safetensors with the same names",
}
DOWNLOAD = "Fetch the file into the folder that torch uses, once for all programs"
CANCEL = "Give the download up; nothing is left of it"
CHOOSE = "Use a file that was brought here in another way"

#: It is looked so often whether weights are there, or how many bytes have come.
POLL_MS = 200


class WeightsWidget(QWidget):
    """Offers a download below a combo of weights.

    Attributes
    ----------
    combo
        To be put into a form by whoever has this widget.

    Signals
    -------
    chosen
        ``"none"``, ``"imagenet"`` or a file.
    arrived
        Weights that were missing are there.
    """

    chosen = Signal(str)
    arrived = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._encoder: EncoderName | None = None
        self._weights = RANDOM
        self._why_not: Mapping[str, str] = {}
        self._locked = ""
        self._was_missing = False
        self.combo = QComboBox(self)
        narrow(self.combo)
        self.words = note()
        # So that an address can be copied.
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.bar.setToolTip("How much has come")
        self.download_button = push_button("Download", DOWNLOAD, self._download)
        self.cancel_button = push_button("Cancel", CANCEL, self._cancel)
        self.file_button = push_button("Choose a file…", CHOOSE, self._choose_file)
        self._lay_out()
        self._poll = QTimer(self)
        self._poll.setInterval(POLL_MS)
        self._poll.timeout.connect(self._look)
        self.combo.activated.connect(self._on_combo)
        self._show_choice()
        self._look()

    def show_weights(
        self,
        encoder: EncoderName | None,
        weights: str,
        why_not: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Show what is chosen.

        Parameters
        ----------
        encoder
            Whose weights they are; None: the network takes none.
        weights
            ``"none"``, ``"imagenet"`` or a file.
        why_not
            Reasons against ``RANDOM`` and ``FILE`` where they cannot be chosen.
        """
        if (encoder, weights) != (self._encoder, self._weights):
            self._was_missing = False
        self._encoder, self._weights, self._why_not = encoder, weights, why_not
        self._show_choice()
        self.lock(self._locked)
        self._look()

    def lock(self, reason: str) -> None:
        """Disable the choice for a reason; enable it where it is empty."""
        self._locked = reason
        allow(self.combo, FEATURES, unless=reason)
        allow(self.file_button, CHOOSE, unless=reason or self._why_not.get(FILE, ""))

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        for button in (self.download_button, self.cancel_button, self.file_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.words)
        layout.addWidget(self.bar)
        layout.addLayout(buttons)

    def _look(self) -> None:
        """Show what is to be done about weights that are not there, if they are not.

        Somebody else may have fetched them.
        """
        encoder = self._encoder
        if encoder is None or not is_missing(encoder, self._weights):
            self._show_nothing()
            return
        self._was_missing = True
        self.setVisible(True)
        self._poll.start()
        self._show_offer(encoder, last_download(encoder))

    def _show_choice(self) -> None:
        with QSignalBlocker(self.combo):
            self.combo.clear()
            for known, words in WEIGHTS.items():
                self.combo.addItem(words, known)
            if self._weights not in WEIGHTS:
                self.combo.addItem(Path(self._weights).name, self._weights)
            self.combo.addItem(FROM_FILE, FILE)
            for known, tip in TIPS.items():
                give_tip(self.combo, known, tip)
            for known, reason in self._why_not.items():
                refuse(self.combo, known, reason)
            self.combo.setCurrentIndex(self.combo.findData(self._weights))

    def _show_nothing(self) -> None:
        self._poll.stop()
        self.setVisible(False)
        if self._was_missing:
            self._was_missing = False
            self.arrived.emit()

    def _show_offer(
        self, encoder: EncoderName, download: WeightsDownload | None
    ) -> None:
        runs = download is not None and download.is_running
        self.bar.setVisible(runs)
        self.cancel_button.setVisible(runs)
        for button in (self.download_button, self.file_button):
            button.setVisible(not runs)
        size = megabytes(encoder)
        if download is None or not (runs or download.problem):
            say(
                self.words,
                f"{size} MB, to be downloaded once. Licence: {LICENCE}.",
            )
        elif runs:
            done = round(download.received / 1e6)
            self.bar.setRange(0, size)
            self.bar.setValue(min(done, size))
            say(self.words, f"{ENCODERS[encoder]}: {done} of {size} MB have come.")
        else:
            say(self.words, _no_way(encoder, download.problem), WARNING)

    def _download(self) -> None:
        if self._encoder is not None:
            start_download(self._encoder)
        self._look()

    def _cancel(self) -> None:
        download = None if self._encoder is None else last_download(self._encoder)
        if download is not None:
            download.cancel()
        self._look()

    def _on_combo(self) -> None:
        weights = self.combo.currentData()
        if weights == FILE:
            self._choose_file()
        else:
            self.chosen.emit(weights)
        self._show_choice()

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Features from a file", "", KINDS)
        if path:
            self.chosen.emit(path)


def megabytes(encoder: EncoderName) -> int:
    """Return the size of published weights in units of 1,000,000 bytes."""
    return round(published_weights.PUBLISHED[encoder].size_mib * 2**20 / 1e6)


def _no_way(encoder: EncoderName, problem: str) -> str:
    """Tell what to do where nothing can be downloaded."""
    address = f"{published_weights.PUBLISHED_AT}/{published_path(encoder).name}"
    return (
        f"The download has failed: {problem.rstrip('.')}. Without a connection, fetch "
        f"{address} on another computer, bring it here and press Choose a file."
    )
