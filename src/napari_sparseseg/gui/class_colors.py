"""Classes of label layers: their colours as a colormap of napari."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.colormaps import DirectLabelColormap

from napari_sparseseg.gui.layer_keys import CLASSES_KEY

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_sparseseg.annotations.classes import ClassTable


def class_colormap(classes: ClassTable) -> DirectLabelColormap:
    """Give the colormap of a class table; 0 and values without a class are clear."""
    clear = (0.0, 0.0, 0.0, 0.0)
    colors: dict[int | None, tuple[float, ...]] = {None: clear, 0: clear}
    for each in classes:
        red, green, blue = (part / 255 for part in each.color)
        colors[each.value] = (red, green, blue, 1.0)
    return DirectLabelColormap(color_dict=colors)


def give_classes(labels: Labels, classes: ClassTable) -> None:
    """Have a label layer show the colours of classes, and carry them."""
    labels.colormap = class_colormap(classes)
    labels.metadata[CLASSES_KEY] = classes.to_json()
