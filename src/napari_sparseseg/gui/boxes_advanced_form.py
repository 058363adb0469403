"""The settings of masks that seldom need a change."""

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
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.boxes_state import LEARNING
from napari_sparseseg.gui.parts import WheelGuard, allow, listen
from napari_sparseseg.gui.settings_form import (
    AUTOMATIC,
    OWN_WINDOW,
    SOFT_TISSUE,
    WIDTH_FIRST,
    WINDOWS,
    decimal_box,
    show_value,
    whole_box,
)

if TYPE_CHECKING:
    from napari_sparseseg.gui.boxes_state import BoxesState

TOOLTIPS = {
    "theta_alpha": "How far apart pixels of like intensity still hold together, in "
    "pixels. Automatic: a quarter of the box",
    "theta_beta": "How much intensities may differ and still count as alike, of 255 "
    "steps of the window; less follows weaker edges",
    "theta_gamma": "How far neighbours smooth each other, in pixels, whatever their "
    "intensity",
    "w1": "How strongly like intensities hold together",
    "w2": "How strongly neighbours smooth each other; more removes specks and fills "
    "holes",
    "iterations": "How often the mask is adapted",
    "window": "CT in HU: the range of intensities that is looked at; what is below or "
    "above is one black or one white. Automatic takes the whole range of the images. "
    "The contrast that you see is set in the controls of the image",
    "width": "Grey images and CT: width of the range of intensities that is looked at",
    "centre": "Grey images and CT: centre of that range",
    "epochs": "How often the network sees every box; automatic as the method has it",
    "seconds": "Longest time of learning; what was learned by then is used",
    "device": "What computes; automatic takes the fastest there is",
    "seed": "Start of all random draws; the same number gives the same masks",
}
PREVIEW = (
    "Draw the picked box anew when one of the numbers below is changed, from what was "
    "found before; nothing is learned again. The other boxes follow with Generate"
)
NO_CRF = "Tick Refine edges (CRF) first."
NOT_LEARNED = "This method learns nothing."
NO_LIMIT = "no limit"
#: Of the CRF.
NUMBERS = ("theta_alpha", "theta_beta", "theta_gamma", "w1", "w2", "iterations")


class AdvancedForm(QWidget):
    """Shows what of ``state.settings`` is not for every day.

    Signals
    -------
    changed
        The MaskSettings wished for.
    preview_wished
        Whether the picked box is drawn anew when a parameter moves.
    """

    changed = Signal(object)
    preview_wished = Signal(bool)

    def __init__(self, state: BoxesState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.preview = QCheckBox("Preview on the picked box")
        self.preview.setToolTip(PREVIEW)
        self.numbers: dict[str, QSpinBox | QDoubleSpinBox] = {
            "theta_alpha": decimal_box(0, 1000, step=2, decimals=1, automatic=True),
            "theta_beta": decimal_box(0.1, 255, step=1, decimals=1),
            "theta_gamma": decimal_box(0.1, 100, step=0.5, decimals=1),
            "w1": decimal_box(0, 100, step=0.5, decimals=1),
            "w2": decimal_box(0, 100, step=0.5, decimals=1),
            "iterations": whole_box(1, 50, step=1),
        }
        for name in ("theta_alpha", "theta_gamma"):
            self.numbers[name].setSuffix(" px")
        self.known_windows = QComboBox()
        self.known_windows.setPlaceholderText(OWN_WINDOW)
        self.known_windows.addItems([AUTOMATIC, *WINDOWS])
        self.width_box = decimal_box(0, 1e6, step=50, decimals=1, automatic=True)
        self.centre_box = decimal_box(-1e6, 1e6, step=10, decimals=1)
        self.epochs = whole_box(0, 10_000, step=5, automatic=True)
        self.seconds = whole_box(0, 86_400, step=30)
        self.seconds.setSpecialValueText(NO_LIMIT)
        self.seconds.setSuffix(" s")
        self.device = QComboBox()
        self.seed = whole_box(0, 2**31 - 1, step=1)
        self._lay_out()

        self.preview.clicked.connect(self.preview_wished)
        for name, box in self.numbers.items():
            box.valueChanged.connect(
                lambda value, name=name: self._on_number(name, value)
            )
        self.known_windows.activated.connect(self._on_window)
        self.width_box.valueChanged.connect(self._on_width)
        self.centre_box.valueChanged.connect(self._on_centre)
        self.epochs.valueChanged.connect(lambda n: self._wish(epochs=n or None))
        self.seconds.valueChanged.connect(lambda s: self._wish(seconds=s or None))
        self.device.activated.connect(self._on_device)
        self.seed.valueChanged.connect(lambda seed: self._wish(seed=seed))
        for name in ("settings", "preview", "devices"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _lay_out(self) -> None:
        self._rows: dict[str, tuple[str, QWidget]] = {
            "theta_alpha": ("Edge reach", self.numbers["theta_alpha"]),
            "theta_beta": ("Edge contrast", self.numbers["theta_beta"]),
            "w1": ("Edge weight", self.numbers["w1"]),
            "theta_gamma": ("Smoothing reach", self.numbers["theta_gamma"]),
            "w2": ("Smoothing weight", self.numbers["w2"]),
            "iterations": ("Edge rounds", self.numbers["iterations"]),
            "window": ("CT window", self.known_windows),
            "width": ("Window width", self.width_box),
            "centre": ("Window centre", self.centre_box),
            "epochs": ("Epochs", self.epochs),
            "seconds": ("Learn at most", self.seconds),
            "device": ("Compute on", self.device),
            "seed": ("Random seed", self.seed),
        }
        guard = WheelGuard(self)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for words, widget in self._rows.values():
            guard.watch(widget)
            form.addRow(words, widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.preview)
        layout.addLayout(form)

    def _show(self) -> None:
        settings = self._state.settings
        with QSignalBlocker(self.preview):
            self.preview.setChecked(self._state.preview)
        for name, box in self.numbers.items():
            show_value(box, getattr(settings.crf_options, name) or 0)
        centre, width = settings.window or (SOFT_TISSUE[0], 0.0)
        show_value(self.width_box, width)
        show_value(self.centre_box, centre)
        show_value(self.epochs, settings.epochs or 0)
        show_value(self.seconds, round(settings.seconds or 0))
        show_value(self.seed, settings.seed)
        with QSignalBlocker(self.known_windows):
            offered = [None, *WINDOWS.values()]
            known = settings.window in offered
            self.known_windows.setCurrentIndex(
                offered.index(settings.window) if known else -1
            )
        self._show_devices()
        self._allow()

    def _allow(self) -> None:
        settings = self._state.settings
        reasons = dict.fromkeys(NUMBERS, "" if self._state.uses_crf else NO_CRF)
        reasons["centre"] = WIDTH_FIRST if settings.window is None else ""
        learns = settings.method in LEARNING
        reasons["epochs"] = reasons["seconds"] = "" if learns else NOT_LEARNED
        for name, (_, widget) in self._rows.items():
            allow(widget, TOOLTIPS[name], unless=reasons.get(name, ""))

    def _show_devices(self) -> None:
        wished = self._state.settings.device
        with QSignalBlocker(self.device):
            self.device.clear()
            self.device.addItem(AUTOMATIC, "auto")
            for device, name in self._state.devices:
                self.device.addItem(name, device)
            if self.device.findData(wished) < 0:
                # Remembered from another machine, or not yet told by the engine.
                self.device.addItem(wished, wished)
            self.device.setCurrentIndex(self.device.findData(wished))

    def _wish(self, **changed: Any) -> None:
        """Ask for other settings; the views show what the state has then."""
        self.changed.emit(replace(self._state.settings, **changed))
        self._show()

    def _on_number(self, name: str, value: float) -> None:
        given = None if name == "theta_alpha" and not value else value
        changed: dict[str, Any] = {name: given}
        self._wish(crf_options=replace(self._state.settings.crf_options, **changed))

    def _on_window(self, index: int) -> None:
        self._wish(window=[None, *WINDOWS.values()][index])

    def _on_width(self, width: float) -> None:
        if self._state.settings.window is None and width == self.width_box.singleStep():
            # One step up from "automatic" offers a window that is of use.
            width = SOFT_TISSUE[1]
        self._wish(window=(self.centre_box.value(), width) if width else None)

    def _on_centre(self, centre: float) -> None:
        self._wish(window=(centre, self.width_box.value()))

    def _on_device(self) -> None:
        self._wish(device=self.device.currentData())
