"""Notices that image layers were given other pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from qtpy.QtCore import QObject, QTimer, Signal

from napari_sparseseg.gui.notify import telling

if TYPE_CHECKING:
    from napari.layers import Image

#: Further changes are waited for so long: scripts play films.
DEBOUNCE_MS = 100


class PixelWatch(QObject):
    """Watches image layers; what is written into an array itself is not noticed.

    Signals
    -------
    replaced(image)
        An image has another array, just now.
    settled(images)
        The set of images that had other arrays, once they stand still.
    """

    replaced = Signal(object)
    settled = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._replaced: WeakSet[Image] = WeakSet()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DEBOUNCE_MS)
        self._timer.timeout.connect(self._on_time)

    def watch(self, image: Image) -> None:
        """Watch an image, too."""
        image.events.data.connect(self._on_data)

    @telling()
    def _on_data(self, event: Any) -> None:
        self._replaced.add(event.source)
        self.replaced.emit(event.source)
        self._timer.start()

    @telling()
    def _on_time(self) -> None:
        images, self._replaced = set(self._replaced), WeakSet()
        self.settled.emit(images)
