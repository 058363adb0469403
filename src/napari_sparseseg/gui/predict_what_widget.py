"""What is predicted, and how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.layer_combo import LayerCombo
from napari_sparseseg.gui.network_rows import show_row
from napari_sparseseg.gui.parts import (
    WheelGuard,
    allow,
    listen,
    narrow,
    push_button,
)
from napari_sparseseg.gui.predict_state import WHATS
from napari_sparseseg.gui.settings_form import decimal_box, whole_box
from napari_sparseseg.io.export import LAYER_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.engine.messages import Sureness
    from napari_sparseseg.gui.predict_state import PredictState, What

#: What each choice is called, and what it does.
CHOICES: dict[What, tuple[str, str]] = {
    "view": ("Current view", "What you see of the image now"),
    "plane": ("This plane", "The whole plane that you see"),
    "stack": ("Whole stack", "All planes of the volume or series"),
    "slide": (
        "Whole slide",
        "All of the slide, at the resolution that the model knows, piece by piece: it "
        "may be larger than memory. After Cancel it goes on where it stopped",
    ),
    "folder": (
        "Folder of images",
        "All images in a folder, each into a file. What is there already is left, so a "
        "second press goes on where the first one stopped",
    ),
}
SURENESS: dict[Sureness | None, str] = {
    None: "no layer",
    "confidence": "confidence",
    "uncertainty": "uncertainty",
}
#: Formats in which the images of a folder are written, in words.
FORMATS = {
    ".nii.gz": "NIfTI (.nii.gz)",
    ".nrrd": "NRRD (.nrrd)",
    ".dcm": "DICOM-SEG (.dcm)",
    ".ome.tif": "OME-TIFF (.ome.tif)",
    ".tif": "TIFF (.tif)",
    ".png": "PNG (.png)",
    ".ome.zarr": "OME-Zarr (.ome.zarr)",
    ".geojson": "GeoJSON for QuPath (.geojson)",
}
assert set(FORMATS) - {".dcm"} <= set(LAYER_SUFFIXES)
NONE = "none"
WHAT = "How much is predicted"
SMOOTH = (
    "Planes above and below have a say: the standard deviation, in planes, of the "
    "Gaussian by which class probabilities are averaged. Takes out flicker between "
    "planes"
)
NOT_SMOOTHED = "Only a whole stack is smoothed across its planes."
SMALLEST = (
    "Regions of one class that have fewer pixels go to the class around them, plane by "
    "plane"
)
SURE = (
    "Show beside the labels how sure the model is of each pixel, from 0 to 1. "
    "Confidence is bright where it is sure, uncertainty where it hesitates"
)
GLASS = (
    "Parts of the slide without tissue are not predicted: they stay not labelled, "
    "which saves time"
)
BUSY = "A prediction runs; cancel it to change this."


class PredictWhatWidget(QWidget):
    """Shows ``state.wishes`` but for the model.

    Signals
    -------
    changed
        The PredictWishes wished for.
    """

    changed = Signal(object)

    def __init__(self, state: PredictState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.images = LayerCombo("no image is open")
        self.images.setToolTip("Image that is predicted")
        self.what = QComboBox()
        for each in WHATS:
            self.what.addItem(CHOICES[each][0], each)
        self.folder_in = _PathRow("Images", "Folder of the images", self)
        self.folder_out = _PathRow("Results", "Folder that the files go to", self)
        self.suffix = _combo(FORMATS, "Format of the files of labels")
        self.smooth = decimal_box(0, 20, step=0.5, decimals=1)
        self.smooth.setSpecialValueText(NONE)
        self.smallest = whole_box(0, 1_000_000, step=10)
        self.smallest.setSpecialValueText(NONE)
        self.sureness = _combo(SURENESS, SURE)
        self.glass = QCheckBox("Leave out glass")
        self._lay_out()
        self.what.activated.connect(lambda: self._wish(what=self.what.currentData()))
        self.suffix.activated.connect(
            lambda: self._wish(suffix=self.suffix.currentData())
        )
        self.folder_in.chosen.connect(lambda path: self._wish(images=path))
        self.folder_out.chosen.connect(lambda path: self._wish(out=path))
        self.smooth.valueChanged.connect(lambda n: self._wish(smooth_planes=n))
        self.smallest.valueChanged.connect(lambda n: self._wish(smallest_object=n))
        self.sureness.activated.connect(
            lambda: self._wish(sureness=self.sureness.currentData())
        )
        self.glass.clicked.connect(lambda wanted: self._wish(tissue_mask=wanted))
        for name in ("wishes", "refused", "progress"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def set_images(self, images: Sequence[str]) -> None:
        """Offer the images of the viewer; what was chosen stays."""
        self.images.set_names(images)

    def _lay_out(self) -> None:
        WheelGuard(self).watch(
            self.images,
            self.what,
            self.suffix,
            self.smooth,
            self.smallest,
            self.sureness,
        )
        narrow(self.what)
        self.form = QFormLayout()
        self.form.setContentsMargins(0, 0, 0, 0)
        self.form.setFieldGrowthPolicy(
            QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow
        )
        self.form.addRow("How much", self.what)
        self.form.addRow("Image", self.images)
        self.form.addRow("Images in", self.folder_in)
        self.form.addRow("Results in", self.folder_out)
        self.form.addRow("Format", self.suffix)
        self.form.addRow("Smooth across planes", self.smooth)
        self.form.addRow("Smallest object (px)", self.smallest)
        self.form.addRow("Show how sure", self.sureness)
        self.form.addRow("", self.glass)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self.form)

    def _show(self) -> None:
        state, wishes = self._state, self._state.wishes
        of_folder = wishes.what == "folder"
        busy = "" if state.progress is None else BUSY
        self._show_choices()
        with (
            QSignalBlocker(self.smooth),
            QSignalBlocker(self.smallest),
            QSignalBlocker(self.glass),
        ):
            self.smooth.setValue(wishes.smooth_planes)
            self.smallest.setValue(wishes.smallest_object)
            self.glass.setChecked(wishes.tissue_mask)
        for combo, value in (
            (self.suffix, wishes.suffix),
            (self.sureness, wishes.shown_sureness),
        ):
            with QSignalBlocker(combo):
                combo.setCurrentIndex(combo.findData(value))
        self.folder_in.show_path(wishes.images)
        self.folder_out.show_path(wishes.out)
        for row in (self.folder_in, self.folder_out, self.suffix):
            show_row(self.form, row, of_folder)
        show_row(self.form, self.images, not of_folder)
        show_row(self.form, self.glass, wishes.what == "slide")
        is_smoothed = wishes.what in ("stack", "folder")
        allow(self.what, WHAT, busy)
        allow(self.images, "Image that is predicted", busy)
        allow(self.smooth, SMOOTH, busy or ("" if is_smoothed else NOT_SMOOTHED))
        allow(self.smallest, SMALLEST, busy)
        allow(self.sureness, SURE, busy or wishes.no_sureness)
        allow(self.glass, GLASS, busy)
        allow(self.suffix, "Format of the files of labels", busy)
        for path in (self.folder_in, self.folder_out):
            path.lock(busy)

    def _show_choices(self) -> None:
        with QSignalBlocker(self.what):
            self.what.setCurrentIndex(self.what.findData(self._state.wishes.what))
        entries: Any = self.what.model()
        for place, each in enumerate(WHATS):
            why_not = self._state.refused.get(each, "")
            entries.item(place).setEnabled(not why_not)
            entries.item(place).setToolTip(why_not or CHOICES[each][1])

    def _wish(self, **changed: Any) -> None:
        """Ask for other wishes; the views show what the state has then."""
        self.changed.emit(replace(self._state.wishes, **changed))
        self._show()


class _PathRow(QWidget):
    """Shows a folder and asks for another one.

    Signals
    -------
    chosen
        Its path.
    """

    chosen = Signal(str)

    def __init__(self, title: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._title, self._tip, self._path = title, tip, ""
        self.label = QLabel()
        # Long paths shall not widen the dock.
        policy = QSizePolicy.Policy
        self.label.setSizePolicy(policy.Ignored, policy.Preferred)
        self.button: QPushButton = push_button("Choose…", tip, self._ask)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.label, stretch=1)
        row.addWidget(self.button)

    def show_path(self, path: str) -> None:
        self._path = path
        self.label.setText(Path(path).name if path else "none is chosen")
        self.label.setToolTip(path or self._tip)

    def lock(self, why: str) -> None:
        allow(self.button, self._tip, why)

    def _ask(self) -> None:
        path = QFileDialog.getExistingDirectory(self, self._title, self._path)
        if path:
            self.chosen.emit(path)


def _combo(entries: dict[Any, str], tip: str) -> QComboBox:
    combo = QComboBox()
    combo.setToolTip(tip)
    narrow(combo)
    for value, words in entries.items():
        combo.addItem(words, value)
    return combo
