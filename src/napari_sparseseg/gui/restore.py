"""After a crash of napari its strokes and boxes are offered again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from napari.layers import Image, Labels, Shapes
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_sparseseg.errors import LayerError
from napari_sparseseg.gui import session_folder
from napari_sparseseg.gui.boxes_layer import layer_of_boxes
from napari_sparseseg.gui.class_colors import class_colormap
from napari_sparseseg.gui.homes import settle
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import agrees
from napari_sparseseg.gui.planes import labels_level, level_shape, placement
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.session_boxes import read_kept_boxes
from napari_sparseseg.gui.session_folder import (
    find_crashed,
    has_labels,
    is_named,
    last_change,
    leave,
    release,
    remove,
    remove_empty,
    restore,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel
    from qtpy.QtWidgets import QAbstractButton, QWidget

    from napari_sparseseg.gui.session_boxes import BoxesRecord


def offer_restore(
    viewer: ViewerModel,
    parent: QWidget,
    keep: Callable[[list[Labels]], bool],
    go_on_in: Callable[[Path], object],
) -> QMessageBox | None:
    """Ask whether the strokes that a crash left behind shall be opened.

    Parameters
    ----------
    viewer
        Where they are opened.
    parent
        Of the question.
    keep
        Takes the layers that were opened, and tells whether their strokes are on disk
        in this session. Until then those of before are offered again.
    go_on_in
        Takes the folder that they were in.

    Returns
    -------
    QMessageBox or None
        The question, which does not block; None where there is nothing to restore.
    """

    def open_again(folder: Path) -> None:
        if keep(open_session(viewer, folder)):
            release(folder)
            go_on_in(folder)

    return _offer(parent, "strokes", open_again)


def offer_boxes(
    viewer: ViewerModel,
    parent: QWidget,
    keep: Callable[[list[tuple[Shapes, Image]], list[Labels]], bool],
) -> QMessageBox | None:
    """Ask whether the boxes that a crash left behind shall be opened, as above.

    Parameters
    ----------
    viewer
        Where they are opened.
    parent
        Of the question.
    keep
        Takes the boxes that were opened, each with its image, and the labels beside
        them, and tells whether they are on disk in this session.

    Returns
    -------
    QMessageBox or None
        As of `offer_restore`.
    """

    def open_again(folder: Path) -> None:
        boxes = open_boxes(viewer, folder)
        labels = open_session(viewer, folder) if has_labels(folder) else []
        if keep(boxes, labels):
            release(folder)

    return _offer(parent, "boxes", open_again)


def _offer(
    parent: QWidget, what: str, open_again: Callable[[Path], object]
) -> QMessageBox | None:
    remove_empty()
    folders = find_crashed(boxes=what == "boxes")
    if not folders:
        return None
    newest = folders[0]
    when = datetime.fromtimestamp(last_change(newest)).strftime("%d %B, %H:%M")
    box = QMessageBox(parent)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setModal(False)
    box.setWindowTitle(f"{what.capitalize()} of before")
    box.setIcon(QMessageBox.Icon.Question)
    box.setText(f"napari ended unexpectedly. Your {what} of {when} were kept.")
    box.setInformativeText("Open them again?")
    opened = box.addButton("Open", QMessageBox.ButtonRole.AcceptRole)
    left = box.addButton("Do not ask again", QMessageBox.ButtonRole.DestructiveRole)
    deleted = box.addButton("Delete them…", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton("Later", QMessageBox.ButtonRole.RejectRole)

    def answer(button: QAbstractButton) -> None:
        with telling():
            # The question does not block: it may have been opened otherwise.
            if session_folder.is_in_use(newest):
                return
            if button is opened:
                open_again(newest)
            if button is left:
                release(newest)
            if button is deleted and _agrees(parent, what, when):
                (leave if is_named(newest) else remove)(newest)

    box.buttonClicked.connect(answer)
    box.show()
    return box


def _agrees(parent: QWidget, what: str, when: str) -> bool:
    question = f"Delete the {what} of {when}? They cannot be brought back."
    return agrees(parent, f"Delete {what}", question)


def open_boxes(viewer: ViewerModel, folder: Path) -> list[tuple[Shapes, Image]]:
    """Add the boxes of a session to the viewer, each on its image.

    Raises
    ------
    OutputError
        If they cannot be read.
    LayerError
        If an image is not open; then nothing is added.
    """
    classes, records = read_kept_boxes(folder)
    records = [each for each in records if each.boxes]
    wanted = [each for each in records if each.present] or records
    images = [_image_of(viewer, record) for record in wanted]
    opened = []
    for record, image in zip(wanted, images, strict=True):
        layer = layer_of_boxes(record.boxes, record.name, classes, record.shape)
        shapes = Shapes(**layer | placement(image, labels_level(image)))
        settle(shapes, image)
        viewer.add_layer(shapes)
        opened.append((shapes, image))
    return opened


def _image_of(viewer: ViewerModel, record: BoxesRecord) -> Image:
    """Return the image of boxes: of that shape, and if possible of that name."""
    images = [
        layer
        for layer in viewer.layers
        if isinstance(layer, Image)
        and not is_prediction(layer)
        and level_shape(layer, labels_level(layer)) == record.shape
    ]
    if not images:
        raise LayerError(
            f"The boxes '{record.name}' lie on '{record.image}', and no image of its "
            f"shape {record.shape} is open; open it first, then the dock Boxes anew, "
            "which offers them again.",
            shape=record.shape,
        )
    return max(images, key=lambda image: image.name == record.image)


def open_session(viewer: ViewerModel, folder: Path) -> list[Labels]:
    """Add the label layers of a session to the viewer; its files stay as they are.

    Raises
    ------
    OutputError
        If they cannot be read.
    """
    session = restore(folder)
    layers = [
        Labels(
            each.data,
            name=each.name,
            colormap=class_colormap(session.classes),
            metadata={CLASSES_KEY: session.classes.to_json()},
            opacity=1.0,
            **each.placement,
        )
        for each in session.labels
        if each.present
    ]
    for layer in layers:
        viewer.add_layer(layer)
    return layers
