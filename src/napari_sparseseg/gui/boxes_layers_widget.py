"""Which image, boxes and labels are worked on, and the class of new boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QInputDialog,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.layer_combo import LayerCombo
from napari_sparseseg.gui.parts import (
    WheelGuard,
    allow,
    listen,
    push_button,
    swatch_icon,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.gui.boxes_state import BoxesState

_NEW_BOXES = "Make an empty layer on the image, and draw boxes in it with the mouse"
_NEW_LABELS = (
    "Make an empty Labels layer that fits the image, for the masks that you accept"
)
_CLASS = (
    "What the next boxes that you draw enclose. A box that is drawn already gets "
    "another class by “Set class” below the list"
)
_ADD_CLASS = "Add a class, such as an organ or a lesion, and draw boxes of it"
_NO_IMAGE = "Open an image first."


class LayersWidget(QWidget):
    """Three combos that follow the layer list, and one of classes.

    Signals
    -------
    image_chosen
        Another image is to be worked on.
    boxes_chosen
        Name of the boxes to work on.
    labels_chosen
        Name of the labels to accept into.
    new_boxes_pressed, new_labels_pressed
        A new layer is wished for, to fit the chosen image.
    class_chosen
        Class value of new boxes.
    class_added
        Name of a class wished for.
    """

    image_chosen = Signal()
    boxes_chosen = Signal(str)
    labels_chosen = Signal(str)
    new_boxes_pressed = Signal()
    new_labels_pressed = Signal()
    class_chosen = Signal(int)
    class_added = Signal(str)

    def __init__(self, state: BoxesState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.images = LayerCombo("no image is open")
        self.images.setToolTip("Image that the boxes are drawn on")
        self.boxes = LayerCombo("none is chosen")
        self.boxes.setToolTip(
            "Shapes layer that your boxes on this image are in. Of other shapes than "
            "upright rectangles the box around them is taken"
        )
        self.labels = LayerCombo("made when you accept")
        self.labels.setToolTip(
            "Labels layer of this image that accepted masks are written into; where "
            "none is chosen, Accept makes one"
        )
        self.classes = QComboBox()
        self.classes.setToolTip(_CLASS)
        self.new_boxes_button = push_button(
            "New boxes", _NEW_BOXES, self.new_boxes_pressed.emit
        )
        self.new_labels_button = push_button(
            "New labels", _NEW_LABELS, self.new_labels_pressed.emit
        )
        self.add_class_button = push_button("Add…", _ADD_CLASS, self._add_class)
        self._lay_out()
        self.images.chosen.connect(self._on_image)
        self.boxes.chosen.connect(self.boxes_chosen)
        self.labels.chosen.connect(self.labels_chosen)
        self.classes.activated.connect(self._on_class)
        for name in ("classes", "drawn_class"):
            listen(self, getattr(state.events, name), self._show)
        self._show()

    def set_images(self, images: Sequence[str]) -> None:
        """Offer the images of the viewer; what was chosen stays."""
        self.images.set_names(images)
        self._show()

    def set_boxes(self, boxes: Sequence[str], chosen: str) -> None:
        """Offer boxes to work on, and choose some; empty = none."""
        self.boxes.set_names_and_choice(boxes, chosen)

    def set_labels(self, labels: Sequence[str], into: str) -> None:
        """Offer labels to accept into, and choose some; empty = they are made then."""
        self.labels.set_names_and_choice(labels, into)

    def _lay_out(self) -> None:
        guard = WheelGuard(self)
        guard.watch(self.images, self.boxes, self.labels, self.classes)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Image", self.images)
        for words, combo, button in (
            ("Boxes", self.boxes, self.new_boxes_button),
            ("Next box is", self.classes, self.add_class_button),
            ("Accept into", self.labels, self.new_labels_button),
        ):
            row = QHBoxLayout()
            row.addWidget(combo, stretch=1)
            row.addWidget(button)
            form.addRow(words, row)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)

    def _show(self) -> None:
        no_image = "" if self.images.currentText() else _NO_IMAGE
        allow(self.new_boxes_button, _NEW_BOXES, unless=no_image)
        allow(self.new_labels_button, _NEW_LABELS, unless=no_image)
        with QSignalBlocker(self.classes):
            self.classes.clear()
            for each in self._state.classes:
                self.classes.addItem(swatch_icon(each.color), each.name, each.value)
            self.classes.setCurrentIndex(self.classes.findData(self._state.drawn_class))

    def _on_image(self) -> None:
        self._show()
        self.image_chosen.emit()

    def _on_class(self) -> None:
        self.class_chosen.emit(self.classes.currentData())

    def _add_class(self) -> None:
        name, agreed = QInputDialog.getText(
            self, "Add class", "What do these boxes enclose?"
        )
        if agreed and name.strip():
            self.class_added.emit(name.strip())
