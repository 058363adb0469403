"""Which image labels and boxes were first drawn on, for all docks of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

if TYPE_CHECKING:
    from napari.components import LayerList
    from napari.layers import Image, Labels, Shapes

# Its name, too: an image that is opened again is another layer.
_HOMES: WeakKeyDictionary[Labels | Shapes, tuple[ref[Image], str]] = WeakKeyDictionary()


def settle(layer: Labels | Shapes, image: Image) -> None:
    """Note that a layer is drawn on an image, unless it is another's already."""
    _HOMES.setdefault(layer, (ref(image), image.name))


def give(layer: Labels | Shapes, image: Image) -> None:
    """Note that a layer is of an image from now on, whatever it was of before."""
    _HOMES[layer] = ref(image), image.name


def other_home(layer: Labels | Shapes, image: Image) -> str:
    """Return the name of the other image that a layer is of; empty where of none.

    Nobody wants it on another image by accident, be its shape the same.
    """
    if layer not in _HOMES:
        return ""
    home, name = _HOMES[layer]
    return "" if home() is image or name == image.name else name


def has_home(layer: Labels | Shapes) -> bool:
    """Tell whether a layer is, or was, of any image."""
    return layer in _HOMES


def open_home(layer: Labels | Shapes, layers: LayerList) -> Image | None:
    """Return which image among *layers* a layer is of, None where of none of them."""
    home = _HOMES[layer][0]() if layer in _HOMES else None
    return home if home in layers else None


def is_at_home(layer: Labels | Shapes, image: Image, layers: LayerList) -> bool:
    """Tell whether a layer is of an image, or was before that was opened again."""
    home = open_home(layer, layers)
    if home is not None:
        return home is image
    return has_home(layer) and not other_home(layer, image)
