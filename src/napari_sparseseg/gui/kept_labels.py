"""The label layers of a viewer are followed stroke by stroke and kept on disk."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.errors import OutputError, SparseSegError
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import once
from napari_sparseseg.gui.planes import shown_plane
from napari_sparseseg.gui.prediction_layer import is_prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.components import ViewerModel

    from napari_sparseseg.gui.mirror import Mirror, PlaneChange
    from napari_sparseseg.gui.planes import PlaneKey

logger = logging.getLogger(__name__)

#: Changes of a label layer are waited for so long before they are looked at.
DEBOUNCE_MS = 100

#: After a stroke, of which napari tells when the mouse button is released, so long.
AFTER_STROKE_MS = 10

#: Of a stroke that takes longer, what is there by then is brought to disk so often.
DURING_STROKE_MS = 1000

#: What could not be written is tried again so often.
RETRY_MS = 5000

#: Planes are compared in slices of that time, with pauses, so that nobody who paints
#: waits for them: the one on the canvas first, others since an undo may reach them.
SLICE_S = 0.001
PAUSE_MS = 8


class KeptLabels(QObject):
    """Brings label layers to disk, whether the training learns from them or not.

    All layers of the viewer are followed but predictions and multiscale ones, which
    napari cannot paint on. What came from a file, or is read when it is needed, is on
    disk already, and is kept only once it was painted on or asked for.

    Parameters
    ----------
    viewer
        Has the layers; its sliders tell which plane is painted on.
    mirror
        Keeps the strokes on disk.
    image_of
        Gives the name of the image that a layer is painted on; empty where unknown.

    Attributes
    ----------
    unkept
        Why the latest strokes of layers are not on disk.

    Signals
    -------
    compared(labels, changes)
        A layer was looked at: planes have changed, and are on disk, or none have.
    failed(sentence)
        Strokes cannot be written; told once for all layers.
    """

    compared = Signal(object, object)
    failed = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        mirror: Mirror,
        image_of: Callable[[Labels], str],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.unkept: dict[Labels, SparseSegError] = {}
        self._viewer = viewer
        self._mirror = mirror
        self._image_of = image_of
        self._followed: list[Labels] = []
        self._waiting: dict[Labels, set[PlaneKey | None]] = {}
        # The planes on the canvas when layers were last drawn anew.
        self._drawn: dict[Labels, PlaneKey | None] = {}
        # Layers of which more is still to be compared.
        self._behind: list[Labels] = []
        # Layers that are painted on, and what of their strokes is on disk but not told.
        self._in_stroke: set[Labels] = set()
        self._untold: dict[Labels, tuple[PlaneChange, ...]] = {}
        self._during = once(self, self._keep_strokes, DURING_STROKE_MS)
        self._timer = once(self, self._look, DEBOUNCE_MS)
        self._retry = once(self, self.flush, RETRY_MS)
        self._idle = once(self, self._go_on, PAUSE_MS)
        for layer in viewer.layers:
            self._take(layer)
        viewer.layers.events.inserted.connect(self._on_inserted)

    def look_through(self, layers: Iterable[Labels]) -> None:
        """Bring all planes of layers up to date, now; follow them from now on."""
        for labels in layers:
            self._follow(labels)
            self._waiting[labels] = {None}
        self.flush()

    @telling()
    def flush(self) -> None:
        """Bring the files of all layers that have changed up to date, now."""
        for timer in (self._timer, self._retry, self._idle, self._during):
            timer.stop()
        self._in_stroke.clear()
        waiting, self._waiting, self._behind = self._waiting, {}, []
        for labels, planes in waiting.items():
            self._update(labels, planes)
        for labels in self._followed:
            if labels not in waiting and self._mirror.is_due(labels):
                self._catch_up(labels)

    def forget(self, labels: Labels) -> None:
        """Follow a layer no more that was deleted; its files are kept."""
        if labels in self._followed:
            self.flush()
            self._leave(labels)
        self._mirror.forget(labels)

    def drop(self, labels: Labels) -> None:
        """Follow a layer no more, and keep nothing of it.

        Raises
        ------
        OutputError
            If that cannot be noted.
        """
        if labels in self._followed:
            self._leave(labels)
        self._mirror.drop(labels)

    def close(self) -> None:
        """End: nothing is followed any more."""
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.flush()
        for labels in list(self._followed):
            self._leave(labels)
        self._retry.stop()

    @telling()
    def _on_inserted(self, event: Any) -> None:
        self._take(event.value)

    def _take(self, layer: Any) -> None:
        """Follow a layer of the viewer if it can be kept."""
        if not isinstance(layer, Labels) or layer.multiscale or is_prediction(layer):
            return
        if layer in self._followed:
            return
        self._follow(layer)
        if not _is_elsewhere(layer):
            self._waiting[layer] = {None}
            self._timer.start(DEBOUNCE_MS)

    def _follow(self, labels: Labels) -> None:
        if labels not in self._followed:
            self._followed.append(labels)
            for event in _events(labels):
                event.connect(self._on_change)
            labels.events.labels_update.connect(self._on_stroke)

    def _leave(self, labels: Labels) -> None:
        self._followed.remove(labels)
        for event in _events(labels):
            event.disconnect(self._on_change)
        labels.events.labels_update.disconnect(self._on_stroke)
        self._in_stroke.discard(labels)
        self._untold.pop(labels, None)
        self._drawn.pop(labels, None)
        self._waiting.pop(labels, None)
        self.unkept.pop(labels, None)

    @telling()
    def _on_change(self, event: Any) -> None:
        labels = event.source
        # The slider and the eye of a layer fire this, too.
        if event.type == "set_data" and not self._mirror.knows(labels):
            return
        # Which plane is painted is known only now: the slider may move on meanwhile.
        shown = shown_plane(self._viewer, labels)
        waiting = self._waiting.setdefault(labels, set())
        waiting.add(shown)
        if event.type == "set_data":
            # Nobody has moved the slider: a script may have written, where it liked.
            if self._drawn.get(labels, ...) == shown and _is_in_memory(labels):
                waiting.add(None)
            self._drawn[labels] = shown
        self._timer.start(AFTER_STROKE_MS if event.type == "paint" else DEBOUNCE_MS)

    def _on_stroke(self, event: Any) -> None:
        """Note that something is painted; napari tells of a stroke when it is over."""
        self._in_stroke.add(event.source)
        if not self._during.isActive():
            self._during.start()

    @telling()
    def _keep_strokes(self) -> None:
        """Bring to disk what there is of strokes, and tell of it when they are over."""
        painted, self._in_stroke = self._in_stroke, set()
        until = time.perf_counter() + SLICE_S
        for labels in painted - self._waiting.keys():
            shown = shown_plane(self._viewer, labels)
            changes = self._bring(labels, {shown}, until) or ()
            self._untold[labels] = self._untold.get(labels, ()) + changes
            self._leave_rest(labels)

    @telling()
    def _look(self) -> None:
        """Compare the planes that were shown; leave the rest to idle times."""
        waiting, self._waiting = self._waiting, {}
        until = time.perf_counter() + SLICE_S
        for labels, planes in waiting.items():
            self._in_stroke.discard(labels)
            self._update(labels, planes, until)
            self._leave_rest(labels)

    def _leave_rest(self, labels: Labels) -> None:
        """Leave to idle times what is not compared yet."""
        if labels not in self._behind and self._mirror.is_due(labels):
            self._behind.append(labels)
        if self._behind:
            self._idle.start()

    @telling()
    def _go_on(self) -> None:
        until = time.perf_counter() + SLICE_S
        while self._behind and time.perf_counter() < until:
            labels = self._behind[0]
            # One that fails is looked at again when it changes.
            if not (self._mirror.is_due(labels) and self._catch_up(labels, until)):
                self._behind.remove(labels)
        if self._behind:
            self._idle.start()

    def _update(
        self,
        labels: Labels,
        planes: set[PlaneKey | None],
        until: float | None = None,
    ) -> None:
        """Compare planes that may have changed, and tell that they were looked at."""
        changes = self._bring(labels, planes, until) or ()
        self.compared.emit(labels, self._untold.pop(labels, ()) + changes)

    def _bring(
        self, labels: Labels, planes: set[PlaneKey | None], until: float | None
    ) -> tuple[PlaneChange, ...] | None:
        """Compare planes that may have changed; None where that fails."""
        image = self._image_of(labels)

        def update() -> tuple[PlaneChange, ...]:
            changes: tuple[PlaneChange, ...] = ()
            # None, all planes, is the last: the others come first.
            for plane in sorted(planes, key=lambda each: each is None):
                changes += self._mirror.update(labels, image, plane, until)
            return changes

        return self._try(labels, update)

    def _catch_up(self, labels: Labels, until: float | None = None) -> bool:
        """Compare what was left, tell if that is news, and whether it works."""
        before = self.unkept.get(labels)
        changes = self._try(labels, lambda: self._mirror.go_on(labels, until))
        if changes and labels in self._untold:
            self._untold[labels] += changes
        elif changes or self.unkept.get(labels) is not before:
            self.compared.emit(labels, changes or ())
        return changes is not None

    def _try(
        self, labels: Labels, update: Callable[[], tuple[PlaneChange, ...]]
    ) -> tuple[PlaneChange, ...] | None:
        try:
            changes = update()
        except SparseSegError as error:
            self._note_unkept(labels, error)
            return None
        if not self._mirror.is_due(labels):
            self.unkept.pop(labels, None)
        return changes

    def _note_unkept(self, labels: Labels, error: SparseSegError) -> None:
        if isinstance(error, OutputError):
            self._waiting[labels] = {None}
            self._retry.start()
            # A full disk is full for all layers, and is told once.
            known = any(isinstance(each, OutputError) for each in self.unkept.values())
            self.unkept[labels] = error
            if not known:
                self.failed.emit(str(error))
            return
        if str(error) != str(self.unkept.get(labels, "")):
            logger.info("a label layer cannot be kept: %s", type(error).__name__)
        self.unkept[labels] = error


def _events(labels: Labels) -> list[Any]:
    # Undo and redo fire set_data, but not paint; a new array fires data.
    return [labels.events.paint, labels.events.set_data, labels.events.data]


def _is_in_memory(labels: Labels) -> bool:
    data = labels.data
    return isinstance(data, np.ndarray) and not isinstance(data, np.memmap)


def _is_elsewhere(labels: Labels) -> bool:
    """Tell whether a layer that nobody has painted on is on disk without us."""
    source = labels.source
    in_memory = isinstance(labels.data, np.ndarray)
    return not in_memory or source.path is not None or source.sample is not None
