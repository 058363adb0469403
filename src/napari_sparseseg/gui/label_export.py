"""A Labels layer is written to a file, in a thread."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import OutputError, enumerated
from napari_sparseseg.gui.boxes_labels import has_masks
from napari_sparseseg.gui.gaps import sentences_on_gaps
from napari_sparseseg.gui.label_places import (
    classes_of,
    export_placed,
    geometry_of,
    image_of,
    options_of,
)
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.io.atomic import write_folder_atomically
from napari_sparseseg.io.export import Export, export_in_parts, goes_in_parts
from napari_sparseseg.io.zarr_labels import is_label_zarr

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

ZARR_SUFFIX = ".ome.zarr"

#: More labels than that are written part by part, or refused.
MOST_IN_MEMORY = 1 << 29


@dataclass(frozen=True)
class Exported:
    """What was written, and what of a prediction was never predicted, in words."""

    export: Export
    gaps: str


def words_on_labels(layer: Labels) -> str:
    """Say what a layer holds, whose it is, and which classes it has."""
    image = image_of(layer)
    of_image = "" if image is None else f" of '{image.name}'"
    if is_prediction(layer):
        what = f"Writes what a model predicted{of_image}."
    elif has_masks(layer):
        what = f"Writes masks{of_image} made from boxes, and what was painted there."
    else:
        what = f"Writes what was painted or opened as labels{of_image}."
    table = layer.metadata.get(CLASSES_KEY)
    if table is None:
        return f"{what} Its classes have numbers, but no names."
    return f"{what} Classes: {enumerated(ClassTable.from_json(table).names, 6)}."


def export_layer(
    layer: Labels, path: str, simplify_px: float = 0.0, store: Path | None = None
) -> Callable[[], Exported]:
    """Return what writes a layer as it is now, wherever it is called.

    Parameters
    ----------
    layer
        With or without classes.
    path
        Its suffix is one of `export_labels`.
    simplify_px
        Of the outlines of GeoJSON.
    store
        OME-Zarr that has the same labels, if there is one; as OME-Zarr it is copied.
    """
    about = {
        "scale": layer.scale,
        "translate": layer.translate,
        "units": layer.units,
    }
    metadata, of_model, image = (
        dict(layer.metadata),
        is_prediction(layer),
        image_of(layer),
    )
    data: Any = layer.data[0] if layer.multiscale else layer.data
    if isinstance(data, np.ndarray) and not of_model:
        data = data.copy()  # the user may paint on

    def write() -> Exported:
        if store is not None and path.lower().endswith(ZARR_SUFFIX):
            return Exported(_copied(store, Path(path)), "")
        if not isinstance(data, np.ndarray) and math.prod(data.shape) > MOST_IN_MEMORY:
            _check_goes_in_parts(path, data.shape)
            options = options_of(about, image, of_model=of_model)
            export = export_in_parts(
                data,
                path,
                classes_of(metadata, data),
                geometry_of(about, data.shape, image),
                replace(options, simplify_px=simplify_px),
            )
            return Exported(export, "")
        labels = np.asarray(data)
        export = export_placed(
            labels,
            path,
            classes_of(metadata, labels),
            about,
            image,
            of_model=of_model,
            simplify_px=simplify_px,
        )
        return Exported(export, sentences_on_gaps(labels, 0.0) if of_model else "")

    return write


def _check_goes_in_parts(path: str, shape: tuple[int, ...]) -> None:
    if not goes_in_parts(path):
        plane = " or .geojson" if len(shape) == 2 else ""
        raise OutputError(
            f"{Path(path).name} would need all {math.prod(shape) / 1e6:,.0f} million "
            "pixels in memory; choose a format that takes them part by part: "
            f"{ZARR_SUFFIX}, .ome.tif{plane}.",
            path=path,
        )


def _copied(store: Path, path: Path) -> Export:
    if path.exists() and not is_label_zarr(path):
        raise OutputError(
            f"{path} exists and is no OME-Zarr of labels, but would be replaced; give "
            "another name.",
            path=str(path),
        )
    write_folder_atomically(path, lambda folder: _copy(store, folder))
    return Export((path,))


def _copy(store: Path, folder: Path) -> None:
    shutil.copytree(store, folder)
