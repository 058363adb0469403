"""Strokes and boxes of a session are opened as layers, each on its image."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Shapes
from napari.utils.notifications import show_warning

from napari_sparseseg.errors import LayerError, OutputError
from napari_sparseseg.gui.boxes_layer import layer_of_boxes
from napari_sparseseg.gui.class_colors import class_colormap
from napari_sparseseg.gui.homes import settle
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.planes import labels_level, level_shape, placement
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.restore_images import (
    OpenedImages,
    nobody,
    open_images,
)
from napari_sparseseg.gui.session_boxes import read_kept_boxes
from napari_sparseseg.gui.session_folder import has_labels, release
from napari_sparseseg.gui.session_images import read_kept_images
from napari_sparseseg.gui.session_labels import restore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.gui.restore_images import Ask
    from napari_sparseseg.gui.session_boxes import BoxesRecord
    from napari_sparseseg.gui.session_labels import RestoredLabels, RestoredSession

logger = logging.getLogger(__name__)


def open_boxes_again(
    viewer: ViewerModel,
    folder: Path,
    ask: Ask,
    keep: Callable[[list[tuple[Shapes, Image]], list[Labels]], bool],
) -> None:
    """Open the boxes of a session, and labels beside them; release it once all is kept.

    Parameters
    ----------
    viewer
        Where they are opened.
    folder
        Of the session.
    ask
        Asks the user for an image that is not found.
    keep
        Takes the boxes that were opened, each with its image, and the labels beside
        them, and tells whether they are on disk in this session.

    Raises
    ------
    SparseSegError
        If they cannot be opened; then nothing is.
    """
    boxes = open_boxes(viewer, folder, ask)
    labels: list[Labels] = []
    if has_labels(folder):
        session = open_session(viewer, folder, restore(folder), ask)
        labels = session.layers
        for sentence in session.told:
            show_warning(sentence)
    if keep(boxes, labels):
        release(folder)


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
    layers = [_layer_of(each, session.classes, told) for each in present]
    images = [opened.layers.get(each.image) for each in present]
    for layer, image in zip(layers, images, strict=True):
        if image is not None:
            settle(layer, image)
        viewer.add_layer(layer)
    names = [each.image for each in present]
    told += opened.told
    damaged = bool(session.damaged) or not opened.is_known
    return OpenedSession(layers, images, names, told, damaged)


def _layer_of(labels: RestoredLabels, classes: ClassTable, told: list[str]) -> Labels:
    """Make a layer of labels; where its place is damaged, lying on the first pixel."""
    about: dict[str, Any] = {
        "name": labels.name,
        "colormap": class_colormap(classes),
        "metadata": {CLASSES_KEY: classes.to_json()},
        "opacity": 1.0,
    }
    try:
        return Labels(labels.data, **about, **labels.placement)
    except Exception:
        # napari raises whatever it likes.
        logger.exception("labels cannot be placed")
        told.append(
            f"Where the labels '{labels.name}' lie cannot be read, so they are opened "
            "without scale and translation; give them those of their image."
        )
        return Labels(labels.data, **about)


def _open_images_of(
    viewer: ViewerModel, folder: Path, names: set[str], ask: Ask
) -> OpenedImages:
    try:
        records = read_kept_images(folder)
    except OutputError as error:
        return OpenedImages(told=[str(error)], is_known=False)
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
