"""How boxes become masks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.engine.messages import MaskMethod
from napari_sparseseg.gui.boxes_advanced_form import AdvancedForm
from napari_sparseseg.gui.boxes_state import FIXED_CRF, MINING
from napari_sparseseg.gui.encoders import encoder_of_masks
from napari_sparseseg.gui.parts import (
    AdvancedSection,
    WheelGuard,
    allow,
    listen,
    narrow,
    note,
    say,
    swatch_icon,
)
from napari_sparseseg.gui.settings_form import AUTOMATIC
from napari_sparseseg.gui.weights_widget import WeightsWidget

if TYPE_CHECKING:
    from napari_sparseseg.gui.boxes_state import BoxesState

#: What each method is called, and what the choice does.
METHODS: dict[MaskMethod, tuple[str, str]] = {
    "acol": (
        "Learned, whole object (acol)",
        "A network learns from all boxes what each class looks like, then looks a "
        "second time for the parts that it missed at first. Takes minutes.",
    ),
    "cam": (
        "Learned, most telling part (cam)",
        "A network learns from all boxes what each class looks like, and marks what "
        "tells it best, often less than the whole object. Takes minutes.",
    ),
    "grabcut": (
        "By brightness or colour (grabcut)",
        "Tells the object from its surroundings by brightness or colour, in each box "
        "by itself. Takes seconds a box.",
    ),
    "ellipse": (
        "Ellipse in the box (ellipse)",
        "The largest ellipse in the box. Immediate; for round lesions.",
    ),
    "box": (
        "The whole box (box)",
        "All of the box counts as the object. Immediate; to compare with.",
    ),
    "sdi-box": (
        "Boxes, corrected by a network (sdi-box)",
        "A network is trained on the boxes as they are, and corrects them in three "
        "rounds. Takes minutes.",
    ),
    "crf-box": (
        "Image edges, then a network (crf-box)",
        "The middle of each box is grown to the edges in the image, and a network is "
        "trained on that, in two rounds. Takes minutes.",
    ),
}
BACKBONES = {
    None: AUTOMATIC,
    "resnet18": "light, for a CPU (ResNet-18)",
    "resnet50": "large, for a GPU (ResNet-50)",
}
_METHOD = "How the mask in each box is found"
_CRF = "Let masks follow the edges in the image (a dense conditional random field)"
_BACKGROUND = (
    "What everything outside of your boxes is. It is written when you press Train on "
    "these; then draw a box around every object on the slices that have boxes"
)
_BACKBONE = "Network that looks at the image; automatic takes the large one on a GPU"
BUSY = "Masks are being made; cancel to change this."
IGNORED = "left out"


class MethodWidget(QWidget):
    """Shows ``state.settings``.

    Signals
    -------
    changed
        The MaskSettings wished for.
    preview_wished
        Whether the picked box is drawn anew when a parameter moves.
    weights_arrived
        Weights that were missing are there.
    """

    changed = Signal(object)
    preview_wished = Signal(bool)
    weights_arrived = Signal()

    def __init__(self, state: BoxesState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.method = QComboBox()
        self.method.setToolTip(_METHOD)
        for method, (name, _) in METHODS.items():
            self.method.addItem(name, method)
        assert set(METHODS) == set(get_args(MaskMethod))
        self.method_note = note()
        self.crf = QCheckBox("Refine edges (CRF)")
        self.background = QComboBox()
        self.backbone = QComboBox()
        self.backbone.setToolTip(_BACKBONE)
        for backbone, words in BACKBONES.items():
            self.backbone.addItem(words, backbone)
        self.weights = WeightsWidget()
        self.network = QWidget()
        self.form = AdvancedForm(state)
        self.advanced = AdvancedSection(self.form)
        self._lay_out()

        self.method.activated.connect(self._on_method)
        self.crf.clicked.connect(self._on_crf)
        self.background.activated.connect(self._on_background)
        self.backbone.activated.connect(self._on_backbone)
        self.weights.chosen.connect(lambda chosen: self._wish(weights=chosen))
        self.weights.arrived.connect(self.weights_arrived)
        self.form.changed.connect(self.changed)
        self.form.preview_wished.connect(self.preview_wished)
        for name in ("settings", "classes", "progress", "devices"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def _lay_out(self) -> None:
        guard = WheelGuard(self)
        guard.watch(self.method, self.background, self.backbone, self.weights.combo)
        for combo in (self.method, self.background, self.backbone):
            narrow(combo)
        method = QFormLayout()
        network = QFormLayout(self.network)
        outside = QFormLayout()
        for form in (method, network, outside):
            form.setContentsMargins(0, 0, 0, 0)
            form.setFieldGrowthPolicy(
                QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow
            )
        method.addRow("Method", self.method)
        network.addRow("Network", self.backbone)
        network.addRow("Features", self.weights.combo)
        network.addRow(self.weights)
        outside.addRow("Outside of boxes", self.background)
        inside = self.advanced.layout()
        if inside is not None:
            inside.setContentsMargins(0, 0, 0, 0)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(method)
        layout.addWidget(self.method_note)
        layout.addWidget(self.network)
        layout.addWidget(self.crf)
        layout.addLayout(outside)
        layout.addWidget(self.advanced)

    def _show(self) -> None:
        settings = self._state.settings
        method = settings.method
        with QSignalBlocker(self.method), QSignalBlocker(self.backbone):
            self.method.setCurrentIndex(self.method.findData(method))
            places = list(BACKBONES)
            self.backbone.setCurrentIndex(places.index(settings.backbone))
        say(self.method_note, METHODS[method][1])
        self.network.setVisible(method in MINING)
        encoder = encoder_of_masks(settings, self._state.devices)
        self.weights.show_weights((encoder,) if encoder else (), settings.weights)
        self._show_background(settings.background)
        with QSignalBlocker(self.crf):
            self.crf.setChecked(self._state.uses_crf)
        busy = "" if self._state.progress is None else BUSY
        allow(self.method, _METHOD, busy)
        allow(self.crf, _CRF, busy or FIXED_CRF.get(method, ""))
        allow(self.background, _BACKGROUND, busy)
        allow(self.backbone, _BACKBONE, busy)
        self.weights.lock(busy)

    def _show_background(self, background: int) -> None:
        with QSignalBlocker(self.background):
            self.background.clear()
            self.background.addItem(IGNORED, 0)
            for each in self._state.classes:
                self.background.addItem(swatch_icon(each.color), each.name, each.value)
            self.background.setCurrentIndex(self.background.findData(background))

    def _wish(self, **changed: Any) -> None:
        """Ask for other settings; the views show what the state has then."""
        self.changed.emit(replace(self._state.settings, **changed))
        self._show()

    def _on_method(self) -> None:
        # Each method has its own opinion about the CRF.
        self._wish(method=self.method.currentData(), crf=None)

    def _on_crf(self, wanted: bool) -> None:
        self._wish(crf=wanted)

    def _on_background(self) -> None:
        self._wish(background=self.background.currentData())

    def _on_backbone(self, place: int) -> None:
        self._wish(backbone=list(BACKBONES)[place])
