"""Which labels are written to a file, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QFormLayout, QVBoxLayout, QWidget

from napari_sparseseg.gui.layer_combo import LayerCombo
from napari_sparseseg.gui.parts import (
    WheelGuard,
    allow,
    ask_where,
    listen,
    note,
    push_button,
    say,
)
from napari_sparseseg.gui.settings_form import decimal_box
from napari_sparseseg.io.export import EXPORT_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.gui.predict_state import PredictState

#: What the file dialogue offers.
KINDS = (
    ("NIfTI", (".nii.gz", ".nii")),
    ("NRRD, for 3D Slicer", (".nrrd",)),
    ("DICOM-SEG", (".dcm",)),
    ("GeoJSON, for QuPath", (".geojson",)),
    ("OME-Zarr", (".ome.zarr",)),
    ("OME-TIFF", (".ome.tif", ".ome.tiff")),
    ("TIFF", (".tif", ".tiff")),
    ("PNG", (".png",)),
    ("Table of areas or volumes", (".csv",)),
)
assert {each for _, suffixes in KINDS for each in suffixes} == set(EXPORT_SUFFIXES)
FILTERS = ";;".join(
    f"{name} ({' '.join(f'*{each}' for each in suffixes)})" for name, suffixes in KINDS
)
LABELS = "Labels layer that is written: a result, or what you painted"
EXPORT = (
    "Write these labels with the names and colours of their classes: NIfTI, NRRD, "
    "DICOM-SEG, GeoJSON for QuPath, OME-Zarr, TIFF, PNG, or a table of areas and "
    "volumes. What is not labelled stays 0, apart from background"
)
SIMPLIFY = (
    "How far outlines for QuPath may lie from the exact ones. 1 pixel makes files much "
    "smaller, and edges look less like stairs"
)


class ExportWidget(QWidget):
    """Asks where a file is to be.

    Signals
    -------
    labels_chosen
        Other labels are to be exported.
    simplify_wished
        How far outlines may lie from the exact ones, in pixels.
    export_wished
        Path of the file.
    """

    labels_chosen = Signal()
    simplify_wished = Signal(float)
    export_wished = Signal(str)

    def __init__(self, state: PredictState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.labels = LayerCombo("no labels are there")
        self.labels.setToolTip(LABELS)
        self.simplify = decimal_box(0, 100, step=0.5, decimals=1)
        self.simplify.setSpecialValueText("exact")
        self.simplify.setSuffix(" px")
        self.simplify.setToolTip(SIMPLIFY)
        self.export_button = push_button("Export…", EXPORT, self._ask)
        WheelGuard(self).watch(self.labels, self.simplify)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Labels", self.labels)
        form.addRow("GeoJSON outlines", self.simplify)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.words = note()
        layout.addLayout(form)
        layout.addWidget(self.words)
        layout.addWidget(self.export_button)
        self.labels.chosen.connect(lambda _: self.labels_chosen.emit())
        self.simplify.valueChanged.connect(self.simplify_wished)
        for name in ("cannot_export", "to_export", "wishes"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def set_labels(self, labels: Sequence[str]) -> None:
        """Offer the labels of the viewer; what was chosen stays."""
        self.labels.set_names(labels)

    def _show(self) -> None:
        allow(self.export_button, EXPORT, self._state.cannot_export)
        say(self.words, self._state.to_export)
        with QSignalBlocker(self.simplify):
            self.simplify.setValue(self._state.wishes.simplify_px)

    def _ask(self) -> None:
        title = f"Export labels. {self._state.to_export}"
        path = ask_where(self, title, "", FILTERS, EXPORT_SUFFIXES)
        if path:
            self.export_wished.emit(path)
