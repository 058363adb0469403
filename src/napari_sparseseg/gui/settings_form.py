"""The settings of a training that seldom need a change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QSpinBox,
    QWidget,
)

from napari_sparseseg.engine.messages import TrainingSettings
from napari_sparseseg.gui.network_rows import NetworkRows, show_row
from napari_sparseseg.gui.parts import WheelGuard, allow, give_tip, listen, narrow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.gui.state import State
    from napari_sparseseg.learning.loss_names import Loss

AUTOMATIC = "automatic"
SOFT_TISSUE = (40.0, 400.0)
#: (centre, width) in HU of the windows that radiologists know by name.
WINDOWS = {
    "soft tissue": SOFT_TISSUE,
    "liver": (30.0, 150.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
}
OWN_WINDOW = "own numbers"
#: What each loss is called, and what the choice does.
LOSSES: dict[Loss, tuple[str, str]] = {
    "ce": (
        "cross-entropy",
        "Counts each labelled pixel, as the balancing says. Best for strokes",
    ),
    "dice": (
        "Dice",
        "Counts how well areas overlap, of all classes but the one with the smallest "
        "value, the background. For masks and completely labelled images",
    ),
    "l1l2": (
        "L1 and L2",
        "Counts how far probabilities are from the labels; few wrong strokes do less "
        "harm",
    ),
}
NO_SMOOTHNESS = "none"
ONE_KIND = (
    "Both sparse and dense images must be ticked for a ratio between them; the list of "
    "images says which is which."
)
WIDTH_FIRST = "Set the width of the window first."
TOOLTIPS = {
    "scale": "How finely the network looks: working pixels per image pixel. 0.25 sees "
    "a quarter of the detail, is fast and sees far. Automatic tries two and keeps the "
    "one that does better on held-out strokes",
    "window": "CT in HU: the range of intensities that the network looks at; what is "
    "below or above is one black or one white to it. Automatic takes the whole range "
    "of the images. The contrast that you see is set in the controls of the image",
    "width": "Grey images and CT: width of the range of intensities that is "
    "looked at (400 HU for soft tissue). Automatic takes it from the images",
    "centre": "Grey images and CT: centre of that range (40 HU for soft tissue)",
    "patch": "Side of the pieces that the network learns from, in working pixels",
    "device": "What computes; automatic takes the fastest there is",
    "loss": "What the training makes small",
    "l1": "How much the sum of the differences counts",
    "l2": "How much their Euclidean norm counts, in which large ones weigh more",
    "smoothness": "How much neighbouring pixels shall be of one class. With "
    "cross-entropy and Dice 0.1 to 1 takes specks away, more rounds off corners; L1 "
    "and L2 are sums over pixels and need about a hundred times as much",
    "ratio": "Where some images are dense (labelled completely): how many pieces come "
    "from sparse ones to each from a dense one. 4 : 1 is the mixture of the paper",
    "seed": "Start of all random draws; the same number gives the same training",
    "head_start": "A quick model of colour and texture predicts within seconds, until "
    "the network does better",
}


class SettingsForm(QWidget):
    """Shows ``state.settings`` but for the balancing.

    Attributes
    ----------
    network
        The rows of the network.

    Signals
    -------
    changed
        The TrainingSettings wished for.
    """

    changed = Signal(object)

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._locked = ""
        self.scale = decimal_box(0, 4, step=0.25, decimals=3, automatic=True)
        self.known_windows = QComboBox()
        self.known_windows.setPlaceholderText(OWN_WINDOW)
        self.known_windows.addItems([AUTOMATIC, *WINDOWS])
        self.window_width = decimal_box(0, 1e6, step=50, decimals=1, automatic=True)
        self.window_centre = decimal_box(-1e6, 1e6, step=10, decimals=1)
        self.patch = whole_box(0, 1024, step=32, automatic=True)
        self.device = QComboBox()
        self.loss = QComboBox()
        narrow(self.loss)
        for loss, (words, tip) in LOSSES.items():
            self.loss.addItem(words, loss)
            give_tip(self.loss, loss, f"{loss}: {tip}")
        self.l1 = decimal_box(0, 1000, step=0.5, decimals=2)
        self.l2 = decimal_box(0, 1000, step=0.5, decimals=2)
        self.smoothness = decimal_box(0, 1000, step=0.1, decimals=2)
        self.smoothness.setSpecialValueText(NO_SMOOTHNESS)
        self.ratio = decimal_box(0.1, 100, step=1, decimals=1)
        self.ratio.setSuffix(" : 1")
        self.seed = whole_box(0, 2**31 - 1, step=1)
        self.head_start = QCheckBox("Quick start")
        self._form = QFormLayout(self)
        self.network = NetworkRows(state, self._form)
        self._lay_out()
        self.set_devices([], [])

        self.network.changed.connect(self.changed)
        self.scale.valueChanged.connect(self._on_scale)
        self.known_windows.currentIndexChanged.connect(self._on_window)
        self.window_width.valueChanged.connect(self._on_width)
        self.window_centre.valueChanged.connect(self._on_centre)
        self.patch.valueChanged.connect(self._on_patch)
        self.device.currentIndexChanged.connect(self._on_device)
        self.loss.currentIndexChanged.connect(self._on_loss)
        self.l1.valueChanged.connect(lambda w: self._wish(l1=w))
        self.l2.valueChanged.connect(lambda w: self._wish(l2=w))
        self.smoothness.valueChanged.connect(lambda w: self._wish(smoothness=w))
        self.ratio.valueChanged.connect(self._on_ratio)
        self.seed.valueChanged.connect(self._on_seed)
        self.head_start.toggled.connect(self._on_head_start)
        listen(self, state.events.settings, self._show)
        listen(self, state.events.pairs, self._allow_ratio)
        self._show()

    def set_devices(self, devices: Sequence[str], names: Sequence[str]) -> None:
        """Offer what can compute, besides ``auto``.

        Parameters
        ----------
        devices
            As in the settings: ``"cpu"``, ``"cuda"``, ...
        names
            What they are, in words.
        """
        with QSignalBlocker(self.device):
            self.device.clear()
            self.device.addItem(AUTOMATIC, "auto")
            for device, name in zip(devices, names, strict=True):
                self.device.addItem(name, device)
        self._show()

    def lock(self, reason: str) -> None:
        """Disable all settings for a reason; enable them where it is empty."""
        self._locked = reason
        self.network.lock(reason)
        for name, (_, widget) in self._rows.items():
            allow(widget, TOOLTIPS[name], unless=reason)
        if not reason and self._state.settings.window is None:
            allow(self.window_centre, TOOLTIPS["centre"], unless=WIDTH_FIRST)
        self._allow_ratio()

    def _allow_ratio(self) -> None:
        kinds = {row.kind for row in self._state.pairs if row.ticked and row.strokes}
        reason = "" if len(kinds) == 2 else ONE_KIND
        allow(self.ratio, TOOLTIPS["ratio"], unless=self._locked or reason)

    def _lay_out(self) -> None:
        self._rows: dict[str, tuple[str, QWidget]] = {
            "scale": ("Working resolution", self.scale),
            "window": ("CT window", self.known_windows),
            "width": ("Window width", self.window_width),
            "centre": ("Window centre", self.window_centre),
            "patch": ("Patch size", self.patch),
            "device": ("Compute on", self.device),
            "loss": ("Loss", self.loss),
            "l1": ("Weight of L1", self.l1),
            "l2": ("Weight of L2", self.l2),
            "smoothness": ("Smoothness", self.smoothness),
            "ratio": ("Sparse : dense", self.ratio),
            "seed": ("Random seed", self.seed),
            "head_start": ("", self.head_start),
        }
        guard = WheelGuard(self)
        form = self._form
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for words, widget in self._rows.values():
            guard.watch(widget)
            form.addRow(words, widget)

    def _show(self) -> None:
        settings = self._state.settings
        centre, width = settings.window or (SOFT_TISSUE[0], 0.0)
        automatic = settings.scale == "auto"
        show_value(self.scale, 0.0 if automatic else float(settings.scale))
        show_value(self.window_width, width)
        show_value(self.window_centre, centre)
        show_value(self.patch, settings.patch_px or 0)
        show_value(self.ratio, round(1 / settings.dense_share - 1, 1))
        show_value(self.seed, settings.seed)
        offered = [None, *WINDOWS.values()]
        with QSignalBlocker(self.known_windows):
            known = settings.window in offered
            self.known_windows.setCurrentIndex(
                offered.index(settings.window) if known else -1
            )
        show_value(self.l1, settings.l1)
        show_value(self.l2, settings.l2)
        show_value(self.smoothness, settings.smoothness)
        with QSignalBlocker(self.loss), QSignalBlocker(self.head_start):
            self.loss.setCurrentIndex(self.loss.findData(settings.loss))
            self.head_start.setChecked(settings.head_start)
        for box in (self.l1, self.l2):
            show_row(self._form, box, settings.loss == "l1l2")
        self._show_device(settings.device)
        self.lock(self._locked)

    def _show_device(self, device: str) -> None:
        with QSignalBlocker(self.device):
            if self.device.findData(device) < 0:
                # Remembered from another machine, or not yet told by the engine.
                self.device.addItem(device, device)
            self.device.setCurrentIndex(self.device.findData(device))

    def _wish(self, **changed: Any) -> None:
        """Ask for other settings; the views show what the state has then."""
        self.changed.emit(replace(self._state.settings, **changed))
        self._show()

    def _on_scale(self, scale: float) -> None:
        self._wish(scale=scale or "auto")

    def _on_window(self, index: int) -> None:
        self._wish(window=[None, *WINDOWS.values()][index])

    def _on_width(self, width: float) -> None:
        if (
            self._state.settings.window is None
            and width == self.window_width.singleStep()
        ):
            # One step up from "automatic" offers a window that is of use.
            width = SOFT_TISSUE[1]
        self._wish(window=(self.window_centre.value(), width) if width else None)

    def _on_centre(self, centre: float) -> None:
        self._wish(window=(centre, self.window_width.value()))

    def _on_patch(self, patch: int) -> None:
        self._wish(patch_px=patch or None)

    def _on_device(self) -> None:
        self._wish(device=self.device.currentData())

    def _on_loss(self) -> None:
        """Take the balancing along: Dice counts classes alike by itself."""
        loss, balance = self.loss.currentData(), self._state.settings.balance
        if loss == "dice":
            balance = "none"
        elif self._state.settings.loss == "dice" and balance == "none":
            balance = TrainingSettings().balance
        self._wish(loss=loss, balance=balance)

    def _on_ratio(self, sparse: float) -> None:
        self._wish(dense_share=1 / (1 + sparse))

    def _on_seed(self, seed: int) -> None:
        self._wish(seed=seed)

    def _on_head_start(self, wanted: bool) -> None:
        self._wish(head_start=wanted)


def decimal_box(
    low: float, high: float, *, step: float, decimals: int, automatic: bool = False
) -> QDoubleSpinBox:
    """Return a box for a number; automatic: the lowest stands for "found out"."""
    box = QDoubleSpinBox()
    box.setDecimals(decimals)
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setKeyboardTracking(False)
    box.setSpecialValueText(AUTOMATIC if automatic else "")
    return box


def whole_box(low: int, high: int, *, step: int, automatic: bool = False) -> QSpinBox:
    """Return a box for a whole number; automatic: as of `decimal_box`."""
    box = QSpinBox()
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setKeyboardTracking(False)
    box.setSpecialValueText(AUTOMATIC if automatic else "")
    return box


def show_value(box: QSpinBox | QDoubleSpinBox, value: float) -> None:
    """Show a value without taking it for the user's wish."""
    with QSignalBlocker(box):
        if isinstance(box, QSpinBox):
            box.setValue(int(value))
        else:
            box.setValue(value)
