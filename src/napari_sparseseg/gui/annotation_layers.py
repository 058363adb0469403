"""Annotations in files are opened as labels, those of an image on its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import show_error, show_info

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import LabelError, SparseSegError
from napari_sparseseg.gui.class_colors import class_colormap
from napari_sparseseg.gui.image_layers import (
    NOTHING,
    layers_of,
    open_layers,
    path_of,
    series_of,
)
from napari_sparseseg.gui.label_places import image_of, options_of
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.opened_files import opacity_of
from napari_sparseseg.gui.planes import labels_level, level_shape, placement
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.io.annotation_files import (
    has_own_classes,
    is_dicom_annotation,
    is_outline_file,
    read_annotations,
    read_labels,
)
from napari_sparseseg.io.geometry import Geometry, Grid
from napari_sparseseg.io.images import stem_of
from napari_sparseseg.io.sources import open_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def annotation_opener(path: Path) -> Callable[[Path], list[Any]] | None:
    """Return what opens a file of annotations as a layer, None of other files.

    Outlines (GeoJSON), DICOM segmentations and structure sets become labels of the
    image that is selected, or the only one there is. Label maps are such files only if
    their classes lie beside them (``STEM.classes.json``) or inside (OME-Zarr); of all
    others nobody can tell that they are no images.
    """
    if is_outline_file(path) or is_dicom_annotation(path):
        return _telling(_of_image)
    return _of_labels if has_own_classes(path) else None


def _telling(opener: Callable[[Path], list[Any]]) -> Callable[[Path], list[Any]]:
    """Tell in the window what goes wrong; without one it is raised."""

    def open_or_tell(path: Path) -> list[Any]:
        try:
            return opener(path)
        except SparseSegError as error:
            if napari.current_viewer() is None:
                raise
            show_error(str(error).replace(str(path), path.name))
            return NOTHING

    return open_or_tell


def _of_image(path: Path) -> list[Any]:
    image = _image_for(path)
    is_dicom = is_dicom_annotation(path)
    level = 0 if is_dicom else labels_level(image)
    shape, placed = level_shape(image, level), placement(image, level)
    if is_dicom:
        # They refer to the planes of its files.
        grid: Any = open_image(path_of(image), series=series_of(image) or None)
    else:
        # Outlines are counted in pixels of the slide, wherever that lies.
        grid = Grid(
            shape, Geometry(("t", "z", "y", "x")[-len(shape) :], (1,) * len(shape))
        )
    found = read_annotations(
        path,
        grid,
        _classes_here(),
        field=options_of(placed, image, of_model=False).field,
    )
    for note in found.notes:
        show_info(note)
    name = f"{path.stem} of {image.name}"
    return [_layer(found.labels.reshape(shape), found.classes, name, placed)]


def _of_labels(path: Path) -> list[Any]:
    """Open a label map; what has other values than its classes is an image.

    The class table may be of labels that were exported beside an image of their name.
    """
    try:
        source = open_image(path)
        if source.is_rgb:
            return open_layers(path)
        found = read_labels(path)
        assert found.classes is not None
        found.classes.check_values(found.labels)
    except SparseSegError:
        return open_layers(path)
    _, about, _ = layers_of(source)[0]
    placed = {key: about[key] for key in ("scale", "translate", "units", "axis_labels")}
    return [_layer(found.labels, found.classes, stem_of(path), placed)]


def _layer(
    labels: NDArray[Any], classes: ClassTable, name: str, placed: dict[str, Any]
) -> tuple[NDArray[Any], dict[str, Any], str]:
    about = {
        "name": name,
        "opacity": opacity_of(labels),
        "colormap": class_colormap(classes),
        "metadata": {CLASSES_KEY: classes.to_json()},
    }
    return labels, about | placed, "labels"


def _image_for(path: Path) -> Image:
    """Return the image that is selected, or on which labels are; else the only one.

    Raises
    ------
    LabelError
        If there is none, or several of which none is selected.
    """
    viewer = napari.current_viewer()
    layers = () if viewer is None else viewer.layers
    images = [
        each for each in layers if isinstance(each, Image) and not is_prediction(each)
    ]
    active = None if viewer is None else viewer.layers.selection.active
    chosen = image_of(active) if isinstance(active, Labels) else active
    if chosen in images:
        return chosen
    if len(images) == 1:
        return images[0]
    what = (
        "select that image in the list of layers"
        if images
        else "open that image with File > Open first"
    )
    raise LabelError(
        f"{path.name} has annotations of an image, and there are {len(images)} images "
        f"here that may be it; {what}, then open {path.name} again.",
        path=str(path),
    )


def _classes_here() -> ClassTable | None:
    """Return the classes of the labels in the viewer; None where there are none."""
    viewer = napari.current_viewer()
    for layer in () if viewer is None else viewer.layers:
        if isinstance(layer, Labels) and not is_prediction(layer):
            table = layer.metadata.get(CLASSES_KEY)
            if table is not None and np.any(layer.data):
                return ClassTable.from_json(table)
    return None
