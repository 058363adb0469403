"""File > Open Sample: images with strokes or boxes, ready to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_sparseseg.gui.boxes_layer import layer_of_boxes
from napari_sparseseg.gui.class_colors import class_colormap
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.samples import (
    BoxSample,
    Sample,
    abdomen_phantom,
    immunohistochemistry,
    tissue_phantom,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    LayerData = tuple[NDArray[Any], dict[str, Any], str]
    BoxLayerData = tuple[NDArray[Any] | list[NDArray[Any]], dict[str, Any], str]


def open_immunohistochemistry() -> list[LayerData]:
    """Return a stained tile of colon tissue and a few strokes of four classes."""
    return layer_data(immunohistochemistry(), "tissue")


def open_tissue_phantom() -> list[LayerData]:
    """Return generated tissue, a few strokes, and its true classes, hidden."""
    return layer_data(tissue_phantom(), "phantom")


def open_abdomen_phantom() -> list[BoxLayerData]:
    """Return a generated CT slice, with boxes around liver and tumours."""
    return box_layer_data(abdomen_phantom(), "CT slice")


def layer_data(sample: Sample, name: str) -> list[LayerData]:
    """Return a sample as napari layers: image, strokes and, where known, truth."""
    placed = _placed(sample.um_per_px)
    classes = {
        "colormap": class_colormap(sample.classes),
        "metadata": {CLASSES_KEY: sample.classes.to_json()},
    }
    strokes = {"name": f"{name} strokes", "opacity": 1.0, **classes, **placed}
    layers: list[LayerData] = [
        (sample.image, {"name": name, **placed}, "image"),
        (sample.labels.copy(), strokes, "labels"),
    ]
    if sample.truth is not None:
        # Last, since the first label layer is the one that is taken to be painted.
        hidden = {"name": f"{name} truth", "visible": False, **classes, **placed}
        layers.append((sample.truth, hidden, "labels"))
    return layers


def box_layer_data(sample: BoxSample, name: str) -> list[BoxLayerData]:
    """Return a sample as napari layers: image and boxes, no truth to train on."""
    placed = _placed(sample.um_per_px)
    centre, width = sample.window
    boxes = layer_of_boxes(
        sample.boxes, f"{name} boxes", sample.classes, sample.image.shape
    )
    limits = (centre - width / 2, centre + width / 2)
    return [
        (sample.image, {"name": name, "contrast_limits": limits, **placed}, "image"),
        (boxes.pop("data"), boxes | placed, "shapes"),
    ]


def _placed(um_per_px: float | None) -> dict[str, Any]:
    """Give the arguments that tell a layer the size of its pixels, where known."""
    if um_per_px is None:
        return {}
    return {"scale": (um_per_px,) * 2, "units": ("um", "um")}
