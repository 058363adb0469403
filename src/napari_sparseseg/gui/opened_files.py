"""Files of the list are opened as layers when they are chosen, and closed again."""

from __future__ import annotations

import gc
import math
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.annotations.classes import find_class_table
from napari_sparseseg.errors import ImageError, LayerError
from napari_sparseseg.gui.annotations import DENSE_SHARE, Pair
from napari_sparseseg.gui.homes import settle
from napari_sparseseg.gui.image_layers import layers_of
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import once
from napari_sparseseg.gui.planes import level_shape, placement
from napari_sparseseg.io.annotation_files import read_labels
from napari_sparseseg.io.sources import open_image

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.gui.annotations import Annotations
    from napari_sparseseg.gui.image_list import ImageList
    from napari_sparseseg.gui.listed_files import ListedFile
    from napari_sparseseg.gui.pair_control import PairControl
    from napari_sparseseg.gui.sent_images import SentImages

    # Work in steps of which none holds up the window; what is yielded is waited for.
    Steps = Iterator["Future[_Read] | None"]

#: Files of the list that are open at most, but for those that were painted on: the
#: layers of the one that was looked at longest ago are closed.
MOST_OPEN = 6

#: Labels that cover the image let it shine through; strokes do not.
DENSE_OPACITY = 0.4


class _Read(NamedTuple):
    """An image and its labels as they were read, to be made layers of.

    Attributes
    ----------
    data, arguments
        Of the image layer.
    labels
        (..., y, x) integers; None where there are none.
    opacity
        Of the labels.
    classes
        Of the labels, if known.
    """

    data: Any
    arguments: dict[str, Any]
    labels: NDArray[Any] | None = None
    opacity: float = 1.0
    classes: ClassTable | None = None


class OpenedFiles(QObject):
    """Opens files of the list, one after the other, and closes all but a few.

    napari needs a good part of a second to add or remove two layers. So that is done
    one layer at a time, and between them the window answers.

    Parameters
    ----------
    viewer
        Where they are opened.
    annotations, images
        The pairs of open layers, and the list of all.
    pairs
        Makes pairs of layers.
    sent
        What the engine has.

    Signals
    -------
    opened(pair, is_wished)
        The layers of a file have taken its place in the list. Meanwhile another may be
        wished for.
    closed()
        Layers were closed, and a file has their place again.
    settled()
        There is nothing more to be opened or closed.
    """

    opened = Signal(object, bool)
    closed = Signal()
    settled = Signal()

    _arrived = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        annotations: Annotations,
        images: ImageList,
        pairs: PairControl,
        sent: SentImages,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._annotations = annotations
        self._images = images
        self._pairs = pairs
        self._sent = sent
        #: The file that is to be worked on once it is open.
        self.wished: ListedFile | None = None
        self._work: deque[Steps] = deque()
        # The last looked at is the last.
        self._opened: list[Pair] = []
        self._reader = ThreadPoolExecutor(max_workers=1)
        self._timer = once(self, self._go_on)
        self._arrived.connect(self._timer.start)

    @property
    def is_busy(self) -> bool:
        """Whether something is being opened or closed."""
        return bool(self._work)

    def open(self, file: ListedFile) -> None:
        """Open a file and its labels as layers; of several only the last wished for.

        Raises
        ------
        ImageError
            If it cannot be used.
        """
        if file.problem:
            raise ImageError(file.problem)
        if file is not self.wished:
            self.wished = file
            # Before what is to be closed.
            self._do(self._opening(file), at=min(1, len(self._work)))

    def give_up(self) -> None:
        """Open nothing but what has begun to be added to the viewer."""
        self.wished = None

    def keep_few(self, shown: Pair) -> None:
        """Close the layers that were looked at longest ago, but for painted ones."""
        if shown.file is not None:
            self._opened = [pair for pair in self._opened if pair is not shown]
            self._opened.append(shown)
        self._close_some()

    def close(self) -> None:
        """End: nothing is opened or closed any more."""
        self._timer.stop()
        self._work.clear()
        self._reader.shutdown(cancel_futures=True)

    # One step after the other.

    def _do(self, steps: Steps, at: int) -> None:
        self._work.insert(at, steps)
        if len(self._work) == 1:
            self._timer.start()

    def _go_on(self) -> None:
        """Do the next step, and leave the others to later turns of the event loop."""
        if not self._work:
            return
        steps, is_done, awaited = self._work[0], True, None
        with telling():
            try:
                awaited = next(steps)
                is_done = False
            except StopIteration:
                pass
        if is_done and self._work:
            self._work.popleft()
        if awaited is not None:
            awaited.add_done_callback(
                lambda done: None if done.cancelled() else self._arrived.emit()
            )
        elif self._work:
            self._timer.start()
        else:
            self.settled.emit()

    def _opening(self, file: ListedFile) -> Steps:
        """Open a file.

        Raises
        ------
        SparseSegError
            If it cannot be used.
        """
        if self.wished is not file:
            return
        is_wished = False
        try:
            reading = self._reader.submit(_read, file)
            yield reading
            if self.wished is not file or file not in self._images.files:
                return
            pair = yield from self._adding(file, reading.result())
        finally:
            if self.wished is file:
                self.wished, is_wished = None, True
        if pair is None:
            return
        if not is_wished:
            # Nobody has looked at it: it is the first to be closed.
            self._opened.insert(0, pair)
            self._close_some()
        self.opened.emit(pair, is_wished)

    def _adding(
        self, file: ListedFile, found: _Read
    ) -> Generator[None, None, Pair | None]:
        """Add the layers of a file; return None where they or it are deleted meanwhile.

        Raises
        ------
        SparseSegError
            If its labels do not fit it.
        """
        image = Image(found.data, **found.arguments)
        shape = level_shape(image)
        if found.labels is not None and found.labels.size != math.prod(shape):
            raise _misfit(file)
        yield None
        self._images.expect(image, file)
        self._viewer.add_layer(image)
        yield None
        labels = self._labels_of(file, image, found)
        settle(labels, image)
        yield None
        if not self._are_there(file, image):
            return None
        self._viewer.add_layer(labels)
        yield None
        if not self._are_there(file, image, labels):
            return None
        self._pairs.add(image, labels)
        pair = self._annotations.find(image, labels)
        if pair is None:
            self._viewer.layers.remove(labels)
            self._viewer.layers.remove(image)
            raise _misfit(file)
        return pair

    def _are_there(self, file: ListedFile, *layers: Layer) -> bool:
        """Tell whether the layers of a file are; they go where it has left the list."""
        there = [layer for layer in layers if layer in self._viewer.layers]
        # The dock may have made a pair of them by now.
        if file in self._images.known_files:
            return len(there) == len(layers)
        for layer in there:
            self._viewer.layers.remove(layer)
        return False

    def _labels_of(self, file: ListedFile, image: Image, found: _Read) -> Labels:
        if found.labels is None:
            return self._pairs.empty_labels(image)
        labels = Labels(
            found.labels.reshape(level_shape(image)),
            name=f"{file.name} labels",
            opacity=found.opacity,
            metadata={}
            if found.classes is None
            else {CLASSES_KEY: found.classes.to_json()},
            **placement(image),
        )
        labels.brush_size = 5
        return labels

    def _close_some(self) -> None:
        if len(self._opened) > MOST_OPEN:
            self._do(self._closing(), at=len(self._work))

    def _closing(self) -> Steps:
        # What is shown is drawn before.
        yield None
        while len(self._opened) > MOST_OPEN:
            pair = self._opened.pop(0)
            if pair in self._annotations.pairs and not self._is_painted(pair):
                self._put_back(pair)
                for layer in (pair.labels, pair.image):
                    yield None
                    if layer in self._viewer.layers:
                        with _without_collection():
                            self._viewer.layers.remove(layer)
                self.closed.emit()

    def _is_painted(self, pair: Pair) -> bool:
        """Tell whether labels are other ones than in their file."""
        assert pair.file is not None
        self._annotations.flush()
        known = {plane: each.labels for plane, each in pair.file.planes.items()}
        for plane, path in self._annotations.files(pair).items():
            labels = np.load(path, mmap_mode="r")
            if plane not in known and labels.any():
                return True
            if plane in known and not np.array_equal(labels, np.load(known[plane])):
                return True
        return bool(pair.unkept)

    def _put_back(self, pair: Pair) -> None:
        """Let a file take the place of its layers again."""
        file = pair.file
        assert file is not None
        file.ticked, file.chosen_kind = pair.ticked, pair.chosen_kind
        self._images.reopen(pair, file)
        self._sent.hand_over(pair, file)
        self._annotations.drop(pair)
        self._pairs.put_file(file)


def _misfit(file: ListedFile) -> LayerError:
    return LayerError(
        f"The labels of {file.image.name} do not fit it; give labels of the same "
        "shape.",
        path=str(file.image),
    )


def _read(file: ListedFile) -> _Read:
    """Read an image that knows where it is from, and its labels.

    Raises
    ------
    SparseSegError
        If they cannot be read, or the image has several channels.
    """
    layers = layers_of(open_image(file.image))
    if len(layers) > 1:
        raise ImageError(
            f"{file.image.name} has {len(layers)} channels, but images of the list are "
            "grey or RGB; open it with File > Open, which gives each channel a layer.",
            channels=len(layers),
        )
    data, arguments, _ = layers[0]
    if file.labels is None:
        return _Read(data, arguments)
    found = read_labels(file.labels, find_class_table(file.labels))
    labels = np.array(found.labels)
    return _Read(data, arguments, labels, opacity_of(labels), found.classes)


def opacity_of(labels: NDArray[Any]) -> float:
    """Return how opaque labels, (..., y, x), are shown: they may cover a plane."""
    labelled = np.count_nonzero(labels, axis=(-2, -1)).max()
    is_covered = labelled >= DENSE_SHARE * math.prod(labels.shape[-2:])
    return DENSE_OPACITY if is_covered else 1.0


@contextmanager
def _without_collection() -> Iterator[None]:
    """Let the garbage of before wait for Python's own collection.

    napari collects all of it whenever a layer is removed, for drivers of Windows alone;
    that takes longer than the rest.
    """
    if sys.platform == "win32":
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
