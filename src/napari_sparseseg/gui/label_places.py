"""Where the pixels of labels lie, as files need it, found from layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from napari.layers import Image, Labels

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.gui import homes
from napari_sparseseg.gui.fields import origin_of
from napari_sparseseg.gui.layer_keys import CLASSES_KEY, SOURCE_KEY
from napari_sparseseg.gui.planes import level_shape
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.io.export import ExportOptions, export_labels
from napari_sparseseg.io.geometry import UM_PER_UNIT, WHOLE_SLIDE, Field, Geometry
from napari_sparseseg.io.images import UM_PER_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_sparseseg.io.export import Export

#: How far the scale of a layer may be from that of its file, as a share.
_SAME = 1e-3


def geometry_of(
    about: Mapping[str, Any], shape: tuple[int, ...], image: Image | None
) -> Geometry | None:
    """Return where labels lie.

    Parameters
    ----------
    about
        Their ``scale``, ``translate`` and ``units``, as napari has them.
    shape
        (y, x), (z, y, x) or (t, z, y, x).
    image
        The image they are of, if it is open. Its file counts, as long as the labels
        have its pixels, since napari's layers know nothing of a patient.

    Returns
    -------
    Geometry or None
        None where the layer is not measured in a length.
    """
    n_axes = min(len(shape), 3)
    um = [UM_PER_NAME.get(str(unit)) for unit in (about.get("units") or ())[-n_axes:]]
    if len(um) != n_axes or None in um:
        return None
    factors = np.array(um, float)
    spacing = np.asarray(about["scale"][-n_axes:]) * factors
    source = _source(image)
    if image is not None and source and level_shape(image) == shape:
        geometry: Geometry = source["geometry"]
        if len(geometry.axes) == n_axes and geometry.unit != "px":
            known = np.multiply(geometry.spacing, UM_PER_UNIT[geometry.unit])
            if np.allclose(spacing, known, rtol=_SAME):
                return geometry
    origin = np.asarray(about["translate"][-n_axes:]) * factors
    return Geometry(
        ("z", "y", "x")[-n_axes:], tuple(spacing.tolist()), "um", tuple(origin.tolist())
    )


def options_of(
    about: Mapping[str, Any], image: Image | None, *, of_model: bool
) -> ExportOptions:
    """Return what formats need to know of labels beside their geometry.

    Parameters
    ----------
    about
        Their ``scale`` and ``translate``, as napari has them.
    image
        The image they are of, if it is open: of a slide its pixels count in GeoJSON.
    of_model
        Whether they are a prediction.
    """
    source = _source(image)
    return ExportOptions(
        field=WHOLE_SLIDE if image is None else _field(about, image),
        dicom_files=tuple(Path(file) for file in source.get("files", ())),
        is_prediction=of_model,
    )


def export_placed(
    labels: NDArray[Any],
    path: str | Path,
    classes: ClassTable,
    about: Mapping[str, Any],
    image: Image | None,
    *,
    of_model: bool,
    simplify_px: float = 0.0,
) -> Export:
    """Write labels of a layer where they lie, in the format of the suffix.

    Parameters
    ----------
    labels, path, classes
        As of `export_labels`, which this calls.
    about, image, of_model
        As of `geometry_of` and `options_of`.
    simplify_px
        As of `ExportOptions`.
    """
    options = options_of(about, image, of_model=of_model)
    return export_labels(
        labels,
        path,
        classes,
        geometry_of(about, labels.shape, image),
        replace(options, simplify_px=simplify_px),
    )


def classes_of(metadata: Mapping[str, Any], labels: NDArray[Any]) -> ClassTable:
    """Return the class table of a layer; where it has none, names are the values.

    Raises
    ------
    ClassTableError
        If the table in the metadata is damaged.
    """
    table = metadata.get(CLASSES_KEY)
    if table is None:
        return ClassTable.from_values(np.unique(labels).tolist())
    return ClassTable.from_json(table)


def find_layer(data: Any) -> Labels | None:
    """Return the layer in the viewer that has these labels, as napari saves them."""
    viewer = napari.current_viewer()
    for layer in () if viewer is None else viewer.layers:
        if isinstance(layer, Labels) and layer.data is data:
            return layer
    return None


def image_of(labels: Labels) -> Image | None:
    """Return the image that labels are of, or else the only one they lie upon."""
    viewer = napari.current_viewer()
    if viewer is None:
        return None
    home = homes.open_home(labels, viewer.layers)
    if home is not None:
        return home
    below = [
        layer
        for layer in viewer.layers
        if isinstance(layer, Image)
        and not is_prediction(layer)
        and _match(labels, layer)
    ]
    return below[0] if len(below) == 1 else None


def _match(labels: Labels, image: Image) -> bool:
    return (
        level_shape(labels) == level_shape(image)
        and np.allclose(labels.scale, image.scale)
        and np.allclose(labels.translate, image.translate)
    )


def _source(image: Image | None) -> dict[str, Any]:
    found: dict[str, Any] = {} if image is None else image.metadata.get(SOURCE_KEY, {})
    return found


def _field(about: Mapping[str, Any], image: Image) -> Field:
    """Return where labels lie on the pixels of an image's finest level.

    That of its slide, where the image is a field of one. napari has the centres of
    pixels at whole numbers, GeoJSON their corners.
    """
    side = np.asarray(image.scale[-2:])
    step = np.asarray(about["scale"][-2:]) / side
    centre = (np.asarray(about["translate"][-2:]) - image.translate[-2:]) / side
    y, x = (np.round(centre + 0.5 - step / 2, 6) + 0.0).tolist()
    part = Field((y, x), float(np.round(step[-1], 9)))
    origin = origin_of(image)
    return part if origin is None else origin.field.on_slide(part)
