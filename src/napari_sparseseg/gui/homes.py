"""Which image labels were first painted on, for all docks of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

if TYPE_CHECKING:
    from napari.layers import Image, Labels

# Its name, too: an image that is opened again is another layer.
_HOMES: WeakKeyDictionary[Labels, tuple[ref[Image], str]] = WeakKeyDictionary()


def settle(labels: Labels, image: Image) -> None:
    """Note that labels are painted on an image, unless they are another's already."""
    _HOMES.setdefault(labels, (ref(image), image.name))


def other_home(labels: Labels, image: Image) -> str:
    """Return the name of the other image that labels are of; empty where of none.

    Nobody wants them on another image by accident, be its shape the same.
    """
    if labels not in _HOMES:
        return ""
    home, name = _HOMES[labels]
    return "" if home() is image or name == image.name else name
