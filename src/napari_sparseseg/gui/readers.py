"""What napari calls for File > Open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from napari.layers import Image

from napari_sparseseg.annotations.boxes import fit_boxes, read_boxes
from napari_sparseseg.annotations.classes import ClassTable, find_class_table
from napari_sparseseg.errors import LabelError
from napari_sparseseg.gui.annotation_layers import annotation_opener
from napari_sparseseg.gui.boxes_layer import layer_of_boxes
from napari_sparseseg.gui.image_layers import open_layers
from napari_sparseseg.gui.painted_classes import with_values
from napari_sparseseg.gui.planes import labels_level, level_shape, placement
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.io.sources import may_be_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_sparseseg.annotations.boxes import Box

    BoxesData = list[tuple[Any, dict[str, Any], str]]


def image_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[Any]] | None:
    """Return what opens an image or annotations, None of lists and other folders."""
    if not isinstance(path, str) or not may_be_image(path):
        return None
    opener = annotation_opener(Path(path)) or open_layers
    return lambda _: opener(Path(path))


def boxes_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], BoxesData] | None:
    """Return what opens a file of boxes, None where it is another JSON file."""
    if not isinstance(path, str):
        return None
    try:
        boxes = read_boxes(path)
    except LabelError:
        return None
    is_flat = len({len(box.plane) for box in boxes}) <= 1
    return (lambda _: [open_boxes(boxes, Path(path))]) if is_flat else None


def open_boxes(boxes: Sequence[Box], path: Path) -> tuple[Any, dict[str, Any], str]:
    """Return the boxes of a file as a Shapes layer.

    It lies on the image in the viewer if they fit exactly one. Classes have names if
    there is a class table beside the file: ``STEM.classes.json`` or ``classes.json``.

    Raises
    ------
    ClassTableError
        If the class table is damaged, or there are too many classes without a name.
    """
    # The suffix is not one of images, but the stem may have points.
    table = find_class_table(path.with_suffix("")) or ClassTable()
    classes = with_values(table, {box.class_value for box in boxes})
    image = _image_of(boxes)
    if image is None:
        n_axes = 2 + max((len(box.plane) for box in boxes), default=0)
        side = max((max(box.y1, box.x1) for box in boxes), default=1)
        shape, placed = (1,) * (n_axes - 2) + (side, side), {}
    else:
        level = labels_level(image)
        shape, placed = level_shape(image, level), placement(image, level)
    layer = layer_of_boxes(boxes, path.stem, classes, shape) | placed
    return layer.pop("data"), layer, "shapes"


def _image_of(boxes: Sequence[Box]) -> Image | None:
    """Return the only image of the viewer that all boxes lie in."""
    viewer = napari.current_viewer()
    layers = () if viewer is None else viewer.layers
    images = [
        each
        for each in layers
        if isinstance(each, Image) and not is_prediction(each) and _fit(boxes, each)
    ]
    return images[0] if len(images) == 1 else None


def _fit(boxes: Sequence[Box], image: Image) -> bool:
    try:
        fitted = fit_boxes(boxes, level_shape(image, labels_level(image)))
    except LabelError:
        return False
    return not fitted.clipped and not fitted.empty
