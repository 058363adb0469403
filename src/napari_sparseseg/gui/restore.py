"""After a crash of napari its strokes and boxes are offered again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from napari.layers import Image, Labels, Shapes
from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_sparseseg.errors import LayerError, OutputError
from napari_sparseseg.gui import session_folder
from napari_sparseseg.gui.boxes_layer import layer_of_boxes
from napari_sparseseg.gui.class_colors import class_colormap
from napari_sparseseg.gui.homes import settle
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import agrees
from napari_sparseseg.gui.planes import labels_level, level_shape, placement
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.restore_images import (
    OpenedImages,
    ask_with_dialog,
    nobody,
    open_images,
)
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
)
from napari_sparseseg.gui.session_images import read_kept_images
from napari_sparseseg.gui.session_labels import restore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari.components import ViewerModel
    from qtpy.QtWidgets import QAbstractButton, QWidget

    from napari_sparseseg.gui.restore_images import Ask
    from napari_sparseseg.gui.session_boxes import BoxesRecord
    from napari_sparseseg.gui.session_labels import RestoredSession


def offer_restore(
    parent: QWidget, open_again: Callable[[Path], object]
) -> QMessageBox | None:
    """Ask whether the session that a crash left behind shall be opened.

    Parameters
    ----------
    parent
        Of the question.
    open_again
        Opens the session in a folder, and releases that once all is on disk in the
        session of now. Until then it is offered again.

    Returns
    -------
    QMessageBox or None
        The question, which does not block; None where there is nothing to restore.
    """
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
        ask = ask_with_dialog(parent)
        boxes = open_boxes(viewer, folder, ask)
        labels: list[Labels] = []
        if has_labels(folder):
            session = open_session(viewer, folder, restore(folder), ask)
            labels = session.layers
            for sentence in session.told:
                show_warning(sentence)
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


def open_boxes(
    viewer: ViewerModel, folder: Path, ask: Ask = nobody
) -> list[tuple[Shapes, Image]]:
    """Add the boxes of a session to the viewer, each on its image.

    Images that are not open are opened; *ask* asks for those that are not found.

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
    names = {record.image for record in wanted}
    opened_images = _open_images_of(viewer, folder, names, ask)
    images = [
        opened_images.layers.get(record.image) or _image_of(viewer, record)
        for record in wanted
    ]
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


@dataclass(frozen=True, eq=False)
class OpenedSession:
    """What was opened of a session.

    Attributes
    ----------
    layers
        The label layers.
    images, image_names
        The image of each of them, None where it is not open; and its name.
    told
        What the user must know, in sentences.
    damaged
        Whether some of its files cannot be read, and stay where they are.
    """

    layers: list[Labels]
    images: list[Image | None]
    image_names: list[str]
    told: list[str]
    damaged: bool


def open_session(
    viewer: ViewerModel, folder: Path, session: RestoredSession, ask: Ask = nobody
) -> OpenedSession:
    """Add images and labels of a session to the viewer; its files stay as they are.

    Parameters
    ----------
    viewer
        Where they are opened.
    folder
        Of the session.
    session
        What was read of it.
    ask
        Asks the user for an image that is not found.
    """
    present = [each for each in session.labels if each.present]
    told = [_on_damage(folder, session.damaged)] if session.damaged else []
    opened = _open_images_of(viewer, folder, {each.image for each in present}, ask)
    layers = [
        Labels(
            each.data,
            name=each.name,
            colormap=class_colormap(session.classes),
            metadata={CLASSES_KEY: session.classes.to_json()},
            opacity=1.0,
            **each.placement,
        )
        for each in present
    ]
    images = [opened.layers.get(each.image) for each in present]
    for layer, image in zip(layers, images, strict=True):
        if image is not None:
            settle(layer, image)
        viewer.add_layer(layer)
    names = [each.image for each in present]
    told += opened.told
    return OpenedSession(layers, images, names, told, bool(session.damaged))


def _open_images_of(
    viewer: ViewerModel, folder: Path, names: set[str], ask: Ask
) -> OpenedImages:
    try:
        records = read_kept_images(folder)
    except OutputError as error:
        return OpenedImages(told=[str(error)])
    wanted = [each for each in records if each.name in names]
    # A field is cut out of its slide, which has to be there first.
    fields = [each for each in wanted if each.field is not None]
    slides = {each.field.slide for each in fields if each.field is not None}
    whole = [each for each in records if each.name in slides | names]
    others = [each for each in whole if each not in fields]
    return open_images(viewer, folder, [*others, *fields], ask)


def _on_damage(folder: Path, damaged: Mapping[str, str]) -> str:
    files = ", ".join(f"{file} ({why})" for file, why in sorted(damaged.items()))
    return (
        f"Of {folder} these files are damaged and were left out: {files}; everything "
        "else is opened, and they stay there for whoever can mend them."
    )
