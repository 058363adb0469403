"""What napari calls for File > Save Selected Layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from napari.utils.notifications import show_info

from napari_sparseseg.gui.boxes_layer import boxes_of
from napari_sparseseg.gui.label_places import (
    classes_of,
    export_placed,
    find_layer,
    image_of,
)
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.session_folder import (
    hash_of_boxes,
    hash_of_labels,
    note_saved,
)
from napari_sparseseg.io.export import TABLE_SUFFIXES, export_boxes

if TYPE_CHECKING:
    from collections.abc import Mapping


def write_single_boxes(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the boxes of a Shapes layer to JSON, with their classes beside them.

    Parameters
    ----------
    path
        The file, with suffix ``.json``.
    data
        Of the layer, in pixels of the image. Of other shapes than upright rectangles
        the box around them is written.
    meta
        Attributes of the layer. The feature ``"class"`` has the name or the value of
        each class, and the class table is looked for as of `write_single_labels`.

    Returns
    -------
    list of str
        The files written.

    Raises
    ------
    LabelError
        If a shape has no class, or does not lie on one plane.
    ClassTableError
        If the class table in the metadata is damaged.
    OutputError
        If a file cannot be written.
    """
    layer = Shapes(data, **meta)
    boxes, classes = boxes_of(layer)
    written = export_boxes(boxes, path, classes).paths
    note_saved(written[0], hash_of_boxes(boxes))
    return [str(file) for file in written]


def write_single_labels(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a Labels layer in the format of the suffix, with its classes.

    It lies where the image lies that it is of, if that is open; else where its scale,
    translation and units say. A DICOM segmentation needs that image to be a DICOM
    series.

    Parameters
    ----------
    path
        The file, with a suffix of `export_labels`.
    data
        Of the layer; of several levels the finest is written.
    meta
        Attributes of the layer. The class table is looked for in ``metadata``, under
        ``"sparseseg_classes"``; without it classes are named after their values.

    Returns
    -------
    list of str
        The files written.

    Raises
    ------
    LabelError
        If a value has no class, or is none.
    ClassTableError
        If the class table in the metadata is damaged.
    OutputError
        If a file cannot be written, or its format cannot hold the labels.
    """
    labels = np.asarray(data[0] if meta.get("multiscale") else data)
    classes = classes_of(meta.get("metadata", {}), labels)
    layer = find_layer(data)
    image = None if layer is None else image_of(layer)
    of_model = layer is not None and is_prediction(layer)
    export = export_placed(labels, path, classes, meta, image, of_model=of_model)
    if export.note:
        show_info(export.note)
    # Not of outlines, areas and the like, which may say less than the strokes.
    if path.lower().endswith(TABLE_SUFFIXES):
        note_saved(export.paths[0], hash_of_labels(labels))
    return [str(file) for file in export.paths]
