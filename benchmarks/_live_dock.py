"""Opening the dock in a napari that stands, beside opening an empty one."""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

import napari
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QWidget

from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from collections.abc import Callable

    #: The frame that napari puts around a widget, and the widget.
    Docked = tuple[Any, Any]

PLUGIN = "napari-sparseseg"
DOCK = "Label and train"

#: Imported by napari when the dock is opened for the first time.
MODULE = "napari_sparseseg.gui.label_and_train"

PATIENCE_S = 30.0


class PaintWatch(QObject):
    """Notes when a widget was painted first."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__()
        self.painted: float | None = None
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Note the time, and let the event pass."""
        if event is not None and event.type() == QEvent.Type.Paint:
            self.painted = self.painted or time.perf_counter()
        return super().eventFilter(watched, event)


def measure_dock() -> dict[str, dict[str, float]]:
    """Open an empty dock, the dock, and, after it was closed, the dock again.

    In a process of its own, in which the dock was never opened.

    Returns
    -------
    dict
        JSON values, seconds by dock and part.
    """
    sample = tissue_phantom()
    viewer = napari.Viewer()
    viewer.add_image(sample.image, name="image")
    viewer.add_labels(sample.labels, name="strokes")
    _let_stand()
    found = {"empty": _opened(lambda: _add_empty(viewer))[0]}
    assert MODULE not in sys.modules
    started = time.perf_counter()
    importlib.import_module(MODULE)
    imported = time.perf_counter() - started
    for name in ("first", "second"):
        seconds, (dock, widget) = _opened(
            lambda: viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
        )
        found[name] = {"import": imported if name == "first" else 0.0, **seconds}
        _let_stand()
        widget.controller.close()
        viewer.window.remove_dock_widget(dock)
        _let_stand()
    viewer.close()
    return found


def _add_empty(viewer: napari.Viewer) -> Docked:
    widget = QWidget()
    return viewer.window.add_dock_widget(widget, name="empty"), widget


def _opened(open_dock: Callable[[], Docked]) -> tuple[dict[str, float], Docked]:
    """Return the seconds until the call returned, and from then until it was seen."""
    started = time.perf_counter()
    docked = open_dock()
    built = time.perf_counter()
    watch = PaintWatch(docked[1])
    while watch.painted is None:
        QApplication.processEvents()
        if time.perf_counter() - built > PATIENCE_S:
            raise TimeoutError(f"the dock was not painted within {PATIENCE_S:.0f} s.")
    # All of the layout that the first painting has brought about, too.
    QApplication.processEvents()
    shown = time.perf_counter()
    return {"build": built - started, "show": shown - built}, docked


def _let_stand(seconds: float = 2.0) -> None:
    """Let napari finish whatever it has put off."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.01)
