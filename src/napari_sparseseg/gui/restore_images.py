"""The images of a session are opened again, found again where they were moved."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from npe2 import PluginManager
from qtpy.QtWidgets import QFileDialog

from napari_sparseseg.errors import ImageError, SparseSegError
from napari_sparseseg.gui.fields import (
    field_layer,
    field_pixels,
    is_slide,
    origin_of,
)
from napari_sparseseg.gui.image_layers import path_of, series_of, without_questions
from napari_sparseseg.gui.launch import own_reader
from napari_sparseseg.gui.planes import level_shape
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.session_images import find_image, is_same
from napari_sparseseg.io.fingerprint import fingerprint_of_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.layers import Layer
    from qtpy.QtWidgets import QWidget

    from napari_sparseseg.gui.fields import FieldOrigin
    from napari_sparseseg.gui.session_images import ImageRecord

    # Asks the user where an image is; empty where the user does not know.
    Ask = Callable[[ImageRecord], str]

logger = logging.getLogger(__name__)


@dataclass
class OpenedImages:
    """Images of a session that are in the viewer.

    Attributes
    ----------
    layers
        By the name that labels and boxes know them by.
    told
        What the user must know of the others, in sentences.
    is_known
        Whether it can be read which images the session has.
    """

    layers: dict[str, Image] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    is_known: bool = True


def nobody(record: ImageRecord) -> str:
    """Know of no image where it is."""
    return ""


def ask_with_dialog(parent: QWidget) -> Ask:
    """Return what asks for images in a dialog, until one is left open."""
    gave_up: list[ImageRecord] = []

    def ask(record: ImageRecord) -> str:
        if gave_up:
            return ""
        was = Path(record.path)
        title = f"Where is {was.name}, the image '{record.name}' of the session?"
        if record.content.startswith("folder:"):
            path = QFileDialog.getExistingDirectory(parent, title, str(was.parent))
        else:
            kinds = f"{was.name} ({was.name});;All files (*)"
            path, _ = QFileDialog.getOpenFileName(parent, title, str(was.parent), kinds)
        if not path:
            gave_up.append(record)
        return str(path)

    return ask


def open_images(
    viewer: ViewerModel, folder: Path, records: Iterable[ImageRecord], ask: Ask
) -> OpenedImages:
    """Add the images of a session to the viewer, but for those that are open there.

    Parameters
    ----------
    viewer
        Where they are opened.
    folder
        Of the session; images are looked for beside it, too.
    records
        Where the images were.
    ask
        Asks the user for an image that is not found.
    """
    opened = OpenedImages()
    read: dict[tuple[object, ...], list[Image]] = {}
    places = [folder.parent]
    for record in records:
        try:
            left: list[Image] = []
            known = _known(viewer, record, opened, is_used=False)
            if known is None and record.field is not None:
                known = _field_of(record.field, record, opened)
                viewer.add_layer(known)
            elif known is None:
                where, told = _find(record, places, ask)
                key = record.sample, where, record.series
                if key not in read:
                    read[key] = _read(record, where)
                left = read[key]
                known = _taken(left, record)
                if known is not None:
                    opened.told += told
                    _settle(known, record)
                    viewer.add_layer(known)
            # The same image may have had another name before.
            known = known or _known(viewer, record, opened, is_used=True)
            if known is None:
                raise _other_shape(record, left)
            opened.layers[record.name] = known
        except SparseSegError as error:
            opened.told.append(str(error))
    return opened


def _known(
    viewer: ViewerModel, record: ImageRecord, opened: OpenedImages, *, is_used: bool
) -> Image | None:
    """Return an image that is in the viewer already, of that name if there is."""
    images = [
        layer
        for layer in viewer.layers
        if isinstance(layer, Image)
        and not is_prediction(layer)
        and (layer in opened.layers.values()) == is_used
        and level_shape(layer) == record.shape
        and _is_of(layer, record)
    ]
    return max(images, key=lambda each: each.name == record.name, default=None)


def _is_of(image: Image, record: ImageRecord) -> bool:
    """Tell whether an image is the one of a record, whatever its name."""
    path, sample, origin = path_of(image), image.source.sample, origin_of(image)
    if origin is not None or record.field is not None:
        return _is_same_field(origin, record.field)
    if record.series and series_of(image) != record.series:
        return False
    if path:
        return path == record.path or is_same(record, Path(path))
    if sample is not None:
        return tuple(sample) == record.sample
    if isinstance(image.data, np.ndarray) and not record.path:
        return fingerprint_of_pixels(image.data) == record.content
    return bool(image.name == record.name and not record.path)


def _is_same_field(one: FieldOrigin | None, other: FieldOrigin | None) -> bool:
    if one is None or other is None:
        return False
    same_slide = one.slide == other.slide or one.path == other.path != ""
    return same_slide and (one.field, one.shape) == (other.field, other.shape)


def _field_of(origin: FieldOrigin, record: ImageRecord, opened: OpenedImages) -> Image:
    """Cut a field out of its slide again.

    Raises
    ------
    SparseSegError
        If the slide is not open, or cannot be read.
    """
    slide = opened.layers.get(origin.slide)
    if slide is None or not is_slide(slide):
        raise ImageError(
            f"The field '{record.name}' is not opened again, since its slide "
            f"'{origin.slide}' is not, so its labels are opened without it; open the "
            "slide, then the session once more.",
            path=record.path,
        )
    origin = replace(origin, slide=slide.name, path=path_of(slide))
    image = field_layer(slide, origin, field_pixels(slide, origin), record.name)
    _settle(image, record)
    return image


def _find(record: ImageRecord, places: list[Path], ask: Ask) -> tuple[str, list[str]]:
    """Return where an image is, and what the user must know of that.

    Raises
    ------
    ImageError
        If it was never in a file, or is not found.
    """
    if record.sample:
        return "", []
    if not record.path:
        raise ImageError(
            f"The image '{record.name}' was never in a file, so it is not opened again "
            f"with its labels; add it as before, of shape {record.shape}."
        )
    path, same = find_image(record, places)
    if path is None:
        answer = ask(record)
        if not answer:
            raise ImageError(
                f"The image '{record.name}' is not at {record.path} any more, so its "
                "labels are opened without it; open it from where it is now.",
                path=record.path,
            )
        # Others may have been moved there as well.
        places.append(Path(answer).parent)
        path, same = find_image(replace(record, path=answer), ())
    if path is None or same:
        return str(path), []
    return str(path), [
        f"{path} is not the image that '{record.name}' was when its labels were "
        "painted: its content is another one; check that the labels fit."
    ]


def _read(record: ImageRecord, where: str) -> list[Image]:
    """Open a file, or a sample, with napari's readers.

    Raises
    ------
    ImageError
        If they cannot read it.
    """
    # Not in the window: besides the image there may be labels, which the session has.
    aside = ViewerModel()
    try:
        if record.sample:
            aside.open_sample(*record.sample)
        else:
            with without_questions(record.series):
                aside.open(where, plugin=_reader(record, where))
    except Exception as error:
        # Readers are plugins and raise whatever they like.
        logger.exception("an image of a session cannot be opened")
        reason = str(error.__cause__ or error).partition("\n")[0].rstrip(".")
        raise ImageError(
            f"The image '{record.name}' cannot be opened again ({reason}), so its "
            "labels are opened without it; open it in another way.",
            path=where,
        ) from error
    layers: list[Layer] = list(aside.layers)
    aside.layers.clear()
    return [layer for layer in layers if isinstance(layer, Image)]


def untouched_samples(viewer: ViewerModel) -> list[Layer]:
    """Return the layers of samples on whose labels nobody has painted.

    Samples with boxes are none of them: those may have been drawn by the user.
    """
    samples: dict[tuple[str, str], list[Layer]] = {}
    for layer in viewer.layers:
        if layer.source.sample is not None:
            samples.setdefault(layer.source.sample, []).append(layer)
    untouched = []
    for sample, layers in samples.items():
        if all(isinstance(each, Image | Labels) for each in layers):
            labels = [each for each in layers if isinstance(each, Labels)]
            aside = ViewerModel()
            aside.open_sample(*sample)
            fresh = [each for each in aside.layers if isinstance(each, Labels)]
            if all(_is_one_of(each, fresh) for each in labels):
                untouched += layers
    return untouched


def _is_one_of(labels: Labels, fresh: list[Labels]) -> bool:
    return any(np.array_equal(labels.data, each.data) for each in fresh)


def _reader(record: ImageRecord, where: str) -> str | None:
    """Return the plugin that opened an image; where it is gone, the one to choose."""
    known = {manifest.name for manifest in PluginManager.instance().iter_manifests()}
    return record.plugin if record.plugin in known else own_reader(where)


def _taken(images: list[Image], record: ImageRecord) -> Image | None:
    """Take one out of the images of a file: of that shape, if possible of that name."""
    fitting = [each for each in images if level_shape(each) == record.shape]
    picked = max(fitting, key=lambda each: each.name == record.name, default=None)
    if picked is not None:
        images.remove(picked)
    return picked


def _other_shape(record: ImageRecord, found: list[Image]) -> ImageError:
    if any(level_shape(each) == record.shape[1:] for each in found):
        # napari tells no more than that of a stack.
        return ImageError(
            f"The image '{record.name}' was stacked from several files, the first of "
            f"them {record.path}, and its labels are opened without it; open the files "
            "again with File > Open Files as Stack.",
            expected=record.shape,
        )
    return ImageError(
        f"The image '{record.name}' has another shape than {record.shape}, which it "
        "had when its labels were painted, so they are opened without it; open the "
        "image of before.",
        expected=record.shape,
    )


def _settle(image: Image, record: ImageRecord) -> None:
    """Give an image its name, place and window of before."""
    image.name = record.name
    for key, value in record.placement.items():
        setattr(image, key, value)
    if record.contrast_limits and not image.rgb:
        image.contrast_limits = record.contrast_limits
