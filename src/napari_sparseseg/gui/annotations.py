"""Pairs of image and label layers: followed stroke by stroke, kept on disk, counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sparseseg.annotations.strokes import LabelCount, count_labels
from napari_sparseseg.errors import LayerError, OutputError, SparseSegError
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.planes import PlaneKey, check_pair, level_shape, shown_plane
from napari_sparseseg.gui.state import PairRow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_sparseseg.gui.mirror import Mirror, PlaneChange

#: Changes of a label layer are waited for so long before they are looked at.
DEBOUNCE_MS = 100

#: What could not be written is tried again so often.
RETRY_MS = 5000


@dataclass(eq=False)
class Pair:
    """An image and the labels painted on it.

    Attributes
    ----------
    key
        By which the engine knows it; stays when layers are renamed.
    image, labels
        The layers.
    level
        Of a multiscale image, that the labels lie on.
    ticked
        Whether the training shall learn from it.
    misfit
        Why the layers do not fit each other, or the other pairs; empty where they do.
    refused
        Why the image cannot be learned from although it fits; empty where it can.
    unkept
        Why the latest strokes are not on disk; empty where they are.
    counts
        By plane and class value.
    shape
        Of the labels that are counted.
    """

    key: str
    image: Image
    labels: Labels
    level: int = 0
    ticked: bool = True
    misfit: str = ""
    refused: str = ""
    unkept: str = ""
    counts: dict[PlaneKey, dict[int, LabelCount]] = field(default_factory=dict)
    shape: tuple[int, ...] = ()

    @property
    def in_use(self) -> bool:
        """Whether the training learns from it."""
        return self.ticked and not self.misfit and not self.refused

    @property
    def problem(self) -> str:
        """What is wrong with it, in one sentence; empty where nothing is."""
        return self.misfit or self.refused or self.unkept

    def name_of(self, plane: PlaneKey) -> str:
        """Return the name of a plane in the training."""
        return f"{self.key} {plane.index}" if plane.index else self.key

    def row(self) -> PairRow:
        """Return what the dock shows."""
        strokes = sum(
            count.strokes
            for counts in self.counts.values()
            for count in counts.values()
        )
        return PairRow(
            self.image.name, self.labels.name, self.ticked, strokes, self.problem
        )


class Annotations(QObject):
    """The pairs of the training, in order.

    Parameters
    ----------
    viewer
        Whose sliders tell which plane is painted on.
    mirror
        Keeps the strokes on disk.

    Signals
    -------
    painted(pair, changes)
        Planes of a pair have changed, and are on disk.
    counted()
        The counts or the problem of some pair are others now.
    used(pair)
        A pair can be learned from again, or cannot any more.
    failed(sentence)
        A pair cannot be used or kept, and why.
    """

    painted = Signal(object, object)
    counted = Signal()
    used = Signal(object)
    failed = Signal(str)

    _plane_counted = Signal(object, object, object, object)

    def __init__(
        self, viewer: ViewerModel, mirror: Mirror, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.pairs: list[Pair] = []
        self._viewer = viewer
        self._mirror = mirror
        self._learned: list[Pair] = []
        self._waiting: dict[Labels, set[PlaneKey | None]] = {}
        self._timer = self._timer_of(DEBOUNCE_MS)
        self._retry = self._timer_of(RETRY_MS)
        # Counting strokes of a large plane takes longer than a frame may.
        self._counter = ThreadPoolExecutor(max_workers=1)
        self._plane_counted.connect(self._on_plane_counted)

    def add(self, image: Image, labels: Labels) -> Pair:
        """Follow a pair from now on; one that is followed already is returned.

        Raises
        ------
        LayerError
            If the labels do not fit the image.
        """
        known = self.find(image, labels)
        if known is not None:
            return known
        level = check_pair(image, labels)
        pair = Pair(self._new_key(image.name), image, labels, level)
        self.pairs.append(pair)
        for event in self._events(pair):
            event.connect(self._on_change)
        self._waiting[labels] = {None}
        self.flush()
        return pair

    def remove(self, pair: Pair) -> None:
        """Follow a pair no more; its strokes stay in their layer and on disk."""
        self.flush()
        self.pairs.remove(pair)
        if not self._pairs_of(pair.labels):
            for event in self._events(pair):
                event.disconnect(self._on_change)
            self._waiting.pop(pair.labels, None)
        self._judge()
        self.counted.emit()

    def tick(self, pair: Pair, ticked: bool) -> None:
        """Let the training learn from a pair, or leave it out."""
        before = self._in_use()
        pair.ticked = ticked
        pair.refused = ""
        self._judge(before)
        self.counted.emit()

    def refuse(self, pair: Pair, sentence: str) -> None:
        """Note that the image of a pair cannot be learned from, and why."""
        before = self._in_use()
        is_new = sentence != pair.refused
        pair.refused = sentence
        if is_new:
            self.failed.emit(sentence)
        self._judge(before)
        self.counted.emit()

    def try_again(self, pairs: Iterable[Pair]) -> None:
        """Judge anew whether pairs can be learned from: something has changed."""
        before = self._in_use()
        for pair in pairs:
            pair.refused = ""
        self._judge(before)
        self.counted.emit()

    def find(self, image: Image | None, labels: Labels | None) -> Pair | None:
        """Return the pair of two layers, None where there is none."""
        for pair in self.pairs:
            if pair.image is image and pair.labels is labels:
                return pair
        return None

    def files(self, pair: Pair) -> dict[PlaneKey, Path]:
        """Return the label files of the planes of a pair that were ever annotated."""
        return self._mirror.annotated(pair.labels)

    def counts(self) -> dict[int, tuple[int, int]]:
        """Return (pixels, strokes) of each annotated value, over the pairs in use."""
        totals: dict[int, tuple[int, int]] = {}
        for pair in self.pairs:
            for counts in pair.counts.values() if pair.in_use else ():
                for value, count in counts.items():
                    pixels, strokes = totals.get(value, (0, 0))
                    totals[value] = (pixels + count.pixels, strokes + count.strokes)
        return dict(sorted(totals.items()))

    @telling()
    def flush(self) -> None:
        """Bring the files of all pairs that have changed up to date, now."""
        self._timer.stop()
        self._retry.stop()
        waiting, self._waiting = self._waiting, {}
        for labels, planes in waiting.items():
            self._update(labels, planes)

    def look_through(self) -> None:
        """Look at all planes: a script may have written where nobody looked."""
        self._waiting = {pair.labels: {None} for pair in self.pairs}
        self.flush()

    def close(self) -> None:
        """End: nothing is followed any more."""
        self.flush()
        for pair in list(self.pairs):
            self.remove(pair)
        self._retry.stop()
        self._counter.shutdown(cancel_futures=True)

    def _timer_of(self, interval: int) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(interval)
        timer.timeout.connect(self.flush)
        return timer

    def _new_key(self, name: str) -> str:
        taken = {pair.key for pair in self.pairs}
        key, number = name, 2
        while key in taken:
            key, number = f"{name} [{number}]", number + 1
        return key

    @staticmethod
    def _events(pair: Pair) -> list[Any]:
        # Undo and redo fire set_data, but not paint; a new array fires data.
        events = pair.labels.events
        return [events.paint, events.set_data, events.data]

    @telling()
    def _on_change(self, event: Any) -> None:
        # Which plane is painted is known only now: the slider may move on meanwhile.
        shown = shown_plane(self._viewer, event.source)
        self._waiting.setdefault(event.source, set()).add(shown)
        self._timer.start()

    def _update(self, labels: Labels, planes: set[PlaneKey | None]) -> None:
        before = self._in_use()
        changes = self._keep(labels, planes)
        self._judge(before)
        # A label layer may be learned on several images.
        for pair in self._pairs_of(labels):
            self._count(pair, changes)
            if changes:
                self.painted.emit(pair, changes)

    def _pairs_of(self, labels: Labels) -> list[Pair]:
        return [pair for pair in self.pairs if pair.labels is labels]

    def _keep(
        self, labels: Labels, planes: set[PlaneKey | None]
    ) -> tuple[PlaneChange, ...]:
        """Bring the files of labels up to date, and give what has changed."""
        pairs = self._pairs_of(labels)
        changes: tuple[PlaneChange, ...] = ()
        try:
            for plane in {None} if None in planes else planes:
                changes += self._mirror.update(labels, pairs[0].image.name, plane)
        except SparseSegError as error:
            self._note_unkept(pairs, error)
        else:
            if any(pair.unkept for pair in pairs):
                for pair in pairs:
                    pair.unkept = ""
                self.counted.emit()
        return changes

    def _note_unkept(self, pairs: list[Pair], error: SparseSegError) -> None:
        sentence = str(error)
        # A full disk is full for all layers, and is told once.
        told = any(sentence in (pair.unkept, pair.misfit) for pair in pairs)
        if isinstance(error, OutputError):
            told |= any(each.unkept for each in self.pairs)
            self._waiting[pairs[0].labels] = {None}
            self._retry.start()
        for pair in pairs:
            pair.unkept = sentence
        if not told:
            self.failed.emit(sentence)
        self.counted.emit()

    def _in_use(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.in_use]

    def _judge(self, before: list[Pair] | None = None) -> None:
        """Find out which pairs can be learned from, and tell what has changed.

        Parameters
        ----------
        before
            The pairs in use before that; None: those of now.
        """
        before = self._in_use() if before is None else before
        channels: tuple[int, str] | None = None
        # What is learned from already decides which images fit.
        for pair in sorted(self.pairs, key=lambda each: each not in self._learned):
            counts = pair.ticked and bool(self.files(pair))
            others = channels if counts else None
            misfit, pair.misfit = pair.misfit, self._misfit(pair, others)
            if channels is None and counts and pair.in_use:
                channels = _n_channels(pair.image), pair.image.name
            if pair.misfit != misfit:
                self.counted.emit()
                if pair.misfit not in ("", pair.unkept):
                    self.failed.emit(pair.misfit)
        self._learned = [pair for pair in self._in_use() if self.files(pair)]
        for pair in self.pairs:
            if pair.in_use != (pair in before):
                self.used.emit(pair)

    @staticmethod
    def _misfit(pair: Pair, channels: tuple[int, str] | None) -> str:
        try:
            pair.level = check_pair(pair.image, pair.labels)
            if channels is not None and _n_channels(pair.image) != channels[0]:
                raise LayerError(
                    f"The image '{pair.image.name}' has {_n_channels(pair.image)} "
                    f"channel(s), but '{channels[1]}', which is learned from, has "
                    f"{channels[0]}; train on images of one kind, and untick the "
                    "others."
                )
        except SparseSegError as error:
            return str(error)
        return ""

    def _count(self, pair: Pair, changes: tuple[PlaneChange, ...]) -> None:
        """Count the strokes of planes in a thread."""
        shape = level_shape(pair.labels)
        paths = {change.plane: change.path for change in changes}
        if shape != pair.shape:
            pair.shape = shape
            pair.counts.clear()
            paths = self.files(pair)
            self.counted.emit()
        for plane, path in paths.items():
            labels = np.load(path, mmap_mode="r")
            future = self._counter.submit(_count, labels)
            future.add_done_callback(
                lambda done, plane=plane: (  # type: ignore[misc]
                    None
                    if done.cancelled()
                    else self._plane_counted.emit(pair, plane, shape, done.result())
                )
            )

    def _on_plane_counted(
        self,
        pair: Pair,
        plane: PlaneKey,
        shape: tuple[int, ...],
        counts: dict[int, LabelCount],
    ) -> None:
        if shape == pair.shape:
            pair.counts[plane] = counts
            self.counted.emit()


def _n_channels(image: Image) -> int:
    """Return what a plane of an image has, as it is learned from."""
    return 3 if image.rgb else 1


def _count(labels: np.ndarray[Any, Any]) -> dict[int, LabelCount]:
    return dict(count_labels(np.array(labels)))
