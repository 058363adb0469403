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
from napari_sparseseg.networks.published_weights import LICENCE, how_to_bring

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        Some weights that were missing are there.
    """

    chosen = Signal(str)
    arrived = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._encoders: tuple[EncoderName, ...] = ()
        self._weights = RANDOM
        self._why_not: Mapping[str, str] = {}
        self._locked = ""
        self._were_missing: list[EncoderName] = []
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
        encoders: Sequence[EncoderName],
        weights: str,
        why_not: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Show what is chosen.

        Parameters
        ----------
        encoders
            Whose weights they are; empty: nothing takes any.
        weights
            ``"none"``, ``"imagenet"`` or a file.
        why_not
            Reasons against ``RANDOM`` and ``FILE`` where they cannot be chosen.
        """
        if (tuple(encoders), weights) != (self._encoders, self._weights):
            self._were_missing = []
        self._encoders, self._weights = tuple(encoders), weights
        self._why_not = why_not
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
        before, missing = self._were_missing, self._missing
        self._were_missing = missing
        self.setVisible(bool(missing))
        if missing:
            self._poll.start()
            self._show_offer({each: last_download(each) for each in missing})
        else:
            self._poll.stop()
        if not {*before} <= {*missing}:
            self.arrived.emit()

    @property
    def _missing(self) -> list[EncoderName]:
        return [each for each in self._encoders if is_missing(each, self._weights)]

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

    def _show_offer(
        self, downloads: Mapping[EncoderName, WeightsDownload | None]
    ) -> None:
        """Show the last download of all that is missing, or offer one."""
        running = [each for each in downloads.values() if each and each.is_running]
        problem = next((e.problem for e in downloads.values() if e and e.problem), "")
        self.bar.setVisible(bool(running))
        self.cancel_button.setVisible(bool(running))
        for button in (self.download_button, self.file_button):
            button.setVisible(not running)
        names = " and ".join(ENCODERS[encoder] for encoder in downloads)
        size = sum(map(megabytes, downloads))
        if running:
            done = round(sum(each.received for each in running) / 1e6)
            self.bar.setRange(0, size)
            self.bar.setValue(min(done, size))
            say(self.words, f"{names}: {done} of {size} MB have come.")
        elif problem:
            say(self.words, self._no_way([*downloads], problem), WARNING)
        else:
            say(
                self.words,
                f"{names}: {size} MB, to be downloaded once. Licence: {LICENCE}.",
            )

    def _no_way(self, encoders: Sequence[EncoderName], problem: str) -> str:
        """Tell what to do where nothing can be downloaded."""
        choose = "" if FILE in self._why_not else ", or press Choose a file"
        return (
            f"The download has failed: {problem.rstrip('.')}. Without a connection, "
            f"{how_to_bring(encoders)}{choose}."
        )

    def _download(self) -> None:
        for encoder in self._missing:
            start_download(encoder)
        self._look()

    def _cancel(self) -> None:
        for encoder in self._missing:
            download = last_download(encoder)
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
