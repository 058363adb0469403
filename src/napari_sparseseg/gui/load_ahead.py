"""What napari loads with the first layers is loaded before, beside the window."""

from __future__ import annotations

import importlib
from functools import cache
from threading import Thread

#: Libraries of napari that it does not load before there is a layer.
LATE = ("skimage.color.colorconv", "scipy.ndimage", "skimage.measure", "pandas")


@cache
def load_ahead() -> Thread:
    """Load in a thread what takes seconds on a slow disk, once in a process.

    Otherwise the window stands still for so long while the first layer is made. Nothing
    but modules is loaded: of them Python takes care that no thread sees half of one.
    """
    thread = Thread(target=_load, name="load ahead", daemon=True)
    thread.start()
    return thread


def _load() -> None:
    for name in LATE:
        importlib.import_module(name)
