"""What napari loads with the first layers is loaded before, beside the window."""

from __future__ import annotations

import importlib
from functools import cache
from threading import Thread, main_thread

from qtpy.QtCore import QObject, Signal

#: Libraries of napari that it does not load before there is a layer.
LATE = ("skimage.color.colorconv", "scipy.ndimage", "skimage.measure", "pandas")


class _Units(QObject):
    """Has the definitions of units parsed in a thread, and used in that of the window.

    pint parses its own, half a second of work, when the first layer asks for a unit.
    """

    # Without the units themselves: what is never received, as after the last window was
    # closed, stays in Qt's queue until Python has ended.
    _parsed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._registry: object = None
        self._parsed.connect(self._use)

    def parse(self) -> None:
        """Parse them, in whatever thread."""
        from pint import UnitRegistry

        self._registry = UnitRegistry(on_redefinition="raise")
        self._parsed.emit()

    def _use(self) -> None:
        from pint import get_application_registry, set_application_registry
        from pint.registry import LazyRegistry

        # Units of two registries do not go together: here nobody can have made any
        # between the question and the answer.
        if isinstance(get_application_registry().get(), LazyRegistry):
            set_application_registry(self._registry)


@cache
def load_ahead() -> Thread:
    """Load in a thread what takes seconds on a slow disk, once in a process.

    Otherwise the window stands still for so long while the first layer is made. Of
    modules Python takes care that no thread sees half of one.
    """
    # Python waits for it when it ends: what is imported meanwhile would crash.
    thread = Thread(target=_load, args=(_units(),), name="load ahead")
    thread.start()
    return thread


@cache
def _units() -> _Units:
    # It has to be there when the window gets to what the thread has told.
    return _Units()


def _load(units: _Units) -> None:
    for name in LATE:
        if main_thread().is_alive():
            importlib.import_module(name)
    if main_thread().is_alive():
        units.parse()
