"""File > Open Sample: images with strokes, ready to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_sparseseg.gui.class_colors import class_colormap
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.samples import Sample, immunohistochemistry, tissue_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    LayerData = tuple[NDArray[Any], dict[str, Any], str]


def open_immunohistochemistry() -> list[LayerData]:
    """Return a stained tile of colon tissue and a few strokes of four classes."""
    return layer_data(immunohistochemistry(), "tissue")


def open_tissue_phantom() -> list[LayerData]:
    """Return generated tissue, a few strokes, and its true classes, hidden."""
    return layer_data(tissue_phantom(), "phantom")


def layer_data(sample: Sample, name: str) -> list[LayerData]:
    """Return a sample as napari layers: image, strokes and, where known, truth."""
    placed: dict[str, Any] = {}
    if sample.um_per_px is not None:
        placed = {"scale": (sample.um_per_px,) * 2, "units": ("um", "um")}
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
