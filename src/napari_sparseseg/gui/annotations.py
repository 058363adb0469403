"""Pairs of image and label layers: their strokes are told, counted, and judged."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.annotations.strokes import LabelCount, count_labels
from napari_sparseseg.errors import LayerError, OutputError, SparseSegError
from napari_sparseseg.gui.kept_labels import KeptLabels
from napari_sparseseg.gui.planes import PlaneKey, check_pair, level_shape
from napari_sparseseg.gui.state import Kind, PairRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_sparseseg.gui.listed_files import ListedFile
    from napari_sparseseg.gui.mirror import Mirror, PlaneChange


#: An image of which at least this share is labelled, on the planes that are, is taken
#: for dense unless the user says otherwise. Strokes cover a few hundredths.
DENSE_SHARE = 0.5


class Entry:
    """What an image of the training has, whether its layers are open or not.

    Attributes
    ----------
    key
        By which the engine knows it; stays when layers are renamed.
    ticked
        Whether the training shall learn from it.
    chosen_kind
        Whether it is dense, as the user said; None: as is proposed.
    counts
        By plane and class value.
    shape
        (..., y, x) of the labels that are counted.
    """

    key: str
    ticked: bool
    chosen_kind: Kind | None
    counts: dict[PlaneKey, dict[int, LabelCount]]
    shape: tuple[int, ...]

    @property
    def kind(self) -> Kind:
        """Whether it is learned from as sparse or as dense."""
        return self.chosen_kind or self.proposed_kind

    @property
    def proposed_kind(self) -> Kind:
        """What it seems to be from what is labelled."""
        planes = [self.n_pixels(plane) for plane in self.annotated_planes]
        size = math.prod(self.shape[-2:]) * len(planes)
        return "dense" if planes and sum(planes) >= DENSE_SHARE * size else "sparse"

    @property
    def annotated_planes(self) -> list[PlaneKey]:
        """The planes with labels, in order."""
        return sorted(plane for plane, counts in self.counts.items() if counts)

    @property
    def n_strokes(self) -> int:
        """Strokes on all planes."""
        return sum(
            count.strokes
            for counts in self.counts.values()
            for count in counts.values()
        )

    @property
    def n_planes(self) -> int:
        """Annotated planes of a volume; 0 of an image of one plane."""
        return len(self.annotated_planes) if len(self.shape) > 2 else 0

    def n_pixels(self, plane: PlaneKey) -> int:
        """Return how many pixels of a plane are labelled."""
        return sum(count.pixels for count in self.counts[plane].values())

    def name_of(self, plane: PlaneKey) -> str:
        """Return the name of a plane in the training."""
        return f"{self.key} {plane.index}" if plane.index else self.key


@dataclass(eq=False)
class Pair(Entry):
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
    chosen_kind
        Whether it is dense, as the user said; None: as is proposed.
    file
        The entry of the list that was opened for it; None of other layers.
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
    chosen_kind: Kind | None = None
    file: ListedFile | None = None

    @property
    def in_use(self) -> bool:
        """Whether the training learns from it."""
        return self.ticked and not self.misfit and not self.refused

    @property
    def problem(self) -> str:
        """What is wrong with it, in one sentence; empty where nothing is."""
        return self.misfit or self.refused or self.unkept

    def row(self) -> PairRow:
        """Return what the dock shows."""
        return PairRow(
            self.image.name,
            self.labels.name,
            self.ticked,
            self.n_strokes,
            self.problem,
            self.kind,
            self.chosen_kind is not None,
            self.n_planes,
        )


class Annotations(QObject):
    """The pairs of the training, in order.

    Parameters
    ----------
    viewer
        Whose label layers are kept on disk, those of pairs and others.
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
        #: Keys that the engine knows other images by.
        self.other_keys: Callable[[], set[str]] = set
        self._mirror = mirror
        self._learned: list[Pair] = []
        self._former_images: WeakKeyDictionary[Labels, str] = WeakKeyDictionary()
        self._kept = KeptLabels(viewer, mirror, self._image_of, self)
        self._kept.compared.connect(self._on_compared)
        self._kept.failed.connect(self.failed)
        # Counting strokes of a large plane takes longer than a frame may.
        self._counter = ThreadPoolExecutor(max_workers=1)
        self._plane_counted.connect(self._on_plane_counted)

    def add(self, image: Image, labels: Labels, file: ListedFile | None = None) -> Pair:
        """Follow a pair from now on; one that is followed already is returned.

        Parameters
        ----------
        image, labels
            The layers.
        file
            The entry of the list that they were opened for.

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
        if file is not None:
            pair.key, pair.file = file.key, file
            pair.ticked, pair.chosen_kind = file.ticked, file.chosen_kind
            pair.shape, pair.counts = level_shape(labels), dict(file.counts)
        self.pairs.append(pair)
        self._kept.look_through([labels])
        return pair

    def remove(self, pair: Pair) -> None:
        """Count a pair no more; strokes are kept as long as their layer is there."""
        self.flush()
        self.pairs.remove(pair)
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

    def channels_in_use(self) -> tuple[int, str] | None:
        """Return channels and name of the first image that is learned from."""
        for pair in self.pairs:
            if pair.in_use and self.files(pair):
                return _n_channels(pair.image), str(pair.image.name)
        return None

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
        return total_counts(pair for pair in self.pairs if pair.in_use)

    def keep(self, labels: Labels) -> bool:
        """Bring all planes of a layer to disk, now; tell whether they are there."""
        self._kept.look_through([labels])
        return labels not in self._kept.unkept

    def remember_image(self, labels: Labels, name: str) -> None:
        """Note which image labels are of that are opened without it."""
        self._former_images[labels] = name

    def forget(self, labels: Labels) -> None:
        """Stop to keep a layer that was deleted; its files stay.

        Raises
        ------
        OutputError
            If that cannot be noted.
        """
        self._kept.forget(labels)

    def drop(self, pair: Pair) -> None:
        """Count a pair no more, and keep nothing of its labels: a file has them.

        Raises
        ------
        OutputError
            If that cannot be noted.
        """
        self.pairs.remove(pair)
        self._kept.drop(pair.labels)
        self._judge()

    def flush(self) -> None:
        """Bring the files of all layers that have changed up to date, now."""
        self._kept.flush()

    def look_through(self) -> None:
        """Look at all planes: a script may have written where nobody looked."""
        self._kept.look_through({pair.labels for pair in self.pairs})

    def close(self) -> None:
        """End: nothing is followed any more."""
        self._kept.close()
        for pair in list(self.pairs):
            self.remove(pair)
        self._counter.shutdown(cancel_futures=True)

    def _new_key(self, name: str) -> str:
        taken = {pair.key for pair in self.pairs} | self.other_keys()
        key, number = name, 2
        while key in taken:
            key, number = f"{name} [{number}]", number + 1
        return key

    def _image_of(self, labels: Labels) -> str:
        pairs = self._pairs_of(labels)
        if pairs:
            return str(pairs[0].image.name)
        return self._former_images.get(labels, "")

    def _pairs_of(self, labels: Labels) -> list[Pair]:
        return [pair for pair in self.pairs if pair.labels is labels]

    def _on_compared(self, labels: Labels, changes: tuple[PlaneChange, ...]) -> None:
        # A label layer may be learned on several images.
        pairs = self._pairs_of(labels)
        if not pairs:
            return
        before = self._in_use()
        self._note_unkept(pairs, self._kept.unkept.get(labels))
        self._judge(before)
        for pair in pairs:
            self._count(pair, changes)
            if changes:
                self.painted.emit(pair, changes)

    def _note_unkept(self, pairs: list[Pair], error: SparseSegError | None) -> None:
        sentence = "" if error is None else str(error)
        if all(pair.unkept == sentence for pair in pairs):
            return
        told = any(sentence in ("", pair.unkept, pair.misfit) for pair in pairs)
        for pair in pairs:
            pair.unkept = sentence
        # What cannot be written is told for all layers, of pairs or not.
        if not told and not isinstance(error, OutputError):
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


def total_counts(entries: Iterable[Entry]) -> dict[int, tuple[int, int]]:
    """Return (pixels, strokes) of each annotated value, over all of *entries*."""
    totals: dict[int, tuple[int, int]] = {}
    for entry in entries:
        for counts in entry.counts.values():
            for value, count in counts.items():
                pixels, strokes = totals.get(value, (0, 0))
                totals[value] = (pixels + count.pixels, strokes + count.strokes)
    return dict(sorted(totals.items()))


def _n_channels(image: Image) -> int:
    """Return what a plane of an image has, as it is learned from."""
    return 3 if image.rgb else 1


def _count(labels: np.ndarray[Any, Any]) -> dict[int, LabelCount]:
    return dict(count_labels(np.array(labels)))
