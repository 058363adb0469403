"""The boxes of a viewer are kept on disk, and the labels that masks are accepted into.

Labels are kept here only while the dock "Label and train" is not open, which keeps them
all.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari.layers import Image, Labels, Shapes
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.errors import LayerError, OutputError
from napari_sparseseg.gui.boxes_layer import class_names, read_boxes, with_classes_of
from napari_sparseseg.gui.disk_thread import DiskThread
from napari_sparseseg.gui.homes import other_home
from napari_sparseseg.gui.kept_images import KeptImages
from napari_sparseseg.gui.kept_labels import RETRY_MS, KeptLabels
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import once
from napari_sparseseg.gui.planes import check_pair, labels_level, level_shape
from napari_sparseseg.gui.session_boxes import BoxesRecord, write_kept_boxes
from napari_sparseseg.gui.session_folder import remove_labels

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.gui.boxes_classes import BoxClasses
    from napari_sparseseg.gui.mirror import Mirror

#: Changes of boxes are waited for so long before they are written.
DEBOUNCE_MS = 300


class KeptBoxes(QObject):
    """Brings boxes to a session folder whenever they change.

    What came from a file or a sample is kept only once it was changed.

    Parameters
    ----------
    viewer
        Has the layers.
    mirror
        Has the session folder, and keeps labels in it.
    classes
        The class table.
    """

    _tried = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        mirror: Mirror,
        classes: BoxClasses,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._mirror = mirror
        self._classes = classes
        self._followed: dict[Shapes, Image] = {}
        self._opened: WeakKeyDictionary[Shapes, list[Any]] = WeakKeyDictionary()
        self._records: dict[Shapes, BoxesRecord] = {}
        self._deleted: list[BoxesRecord] = []
        self._written: tuple[list[BoxesRecord], ClassTable] | None = None
        self._is_failing = False
        self._labels: KeptLabels | None = None
        self._images = KeptImages(lambda: mirror.folder, self)
        # Changes are collected by the timer.
        self._disk = DiskThread(pause_s=0)
        self._failure: OutputError | None = None
        self._tried.connect(self._on_tried)
        self._timer = once(self, self._bring)
        classes.changed.connect(self._on_classes)
        classes.shared.connect(self._hand_over)

    def follow(self, shapes: Shapes, image: Image) -> None:
        """Keep the boxes of a layer on an image from now on, unless it is another's."""
        if other_home(shapes, image):
            return
        if shapes not in self._followed:
            for event in _events(shapes):
                event.connect(self._on_change)
            source = shapes.source
            is_elsewhere = source.path is not None or source.sample is not None
            self._opened.setdefault(shapes, _drawn(shapes) if is_elsewhere else [])
        self._followed[shapes] = image
        self._images.follow([image])
        self._on_change()

    def keep_labels(self, labels: Labels) -> bool:
        """Keep a label layer from now on; tell whether it is on disk."""
        training = self._classes.training
        if training is not None:
            return training.controller.annotations.keep(labels)
        if self._labels is None:
            self._mirror.use_classes(self._classes.table)
            self._labels = KeptLabels(self._viewer, self._mirror, self._image_of, self)
            self._labels.failed.connect(show_warning)
        self._labels.look_through([labels])
        return labels not in self._labels.unkept

    def keep(
        self, boxes: Iterable[tuple[Shapes, Image]], labels: Iterable[Labels]
    ) -> bool:
        """Keep layers that were opened; tell whether all are on disk."""
        for shapes, image in boxes:
            self.follow(shapes, image)
        self.flush()
        kept = [self.keep_labels(layer) for layer in labels]
        return all(kept) and not self._is_failing

    def forget(self, layer: Any) -> None:
        """Follow a layer no more that was deleted; what is on disk stays there."""
        self._bring()
        for shapes, image in list(self._followed.items()):
            if layer in (shapes, image):
                self._leave(shapes)
        if layer in self._records:
            self._deleted.append(replace(self._records.pop(layer), present=False))
            self._bring()
        if isinstance(layer, Labels) and self._labels is not None:
            self._labels.forget(layer)

    @telling()
    def flush(self) -> None:
        """Write the boxes of now if they are others than those on disk, and wait."""
        self._bring()
        self._disk.wait()
        self._on_tried()

    @telling()
    def _bring(self) -> None:
        """Write the boxes of now in a thread, if they are others than those on disk."""
        self._timer.stop()
        classes = self._classes.table
        for shapes in self._followed:
            classes = with_classes_of(classes, shapes)
        for shapes, image in self._followed.items():
            self._read(shapes, image, classes)
        now = [*self._records.values(), *self._deleted], classes
        # A session that never had boxes needs no file.
        if now != self._written and now[0]:
            self._written = now
            self._disk.do("boxes", partial(self._write, self._mirror.folder, *now))

    def _write(
        self, folder: Path, records: list[BoxesRecord], classes: ClassTable
    ) -> None:
        try:
            write_kept_boxes(folder, records, classes)
            self._failure = None
        except OutputError as error:
            self._failure = error
        self._tried.emit()

    def _on_tried(self) -> None:
        """Tell once that boxes are not on disk, and try again."""
        if self._failure is None:
            self._is_failing = False
        elif self._written is not None:  # else it is known by now
            if not self._is_failing:
                show_warning(f"The boxes are not kept on disk: {self._failure}")
            self._is_failing, self._written = True, None
            self._timer.start(RETRY_MS)

    @telling()
    def close(self) -> None:
        """End; what is on disk is kept unless it is empty or saved elsewhere."""
        self.flush()
        self._timer.stop()
        for shapes in list(self._followed):
            self._leave(shapes)
        if self._labels is not None:
            self._labels.close()
        self._images.close()
        self._mirror.close()

    def _read(self, shapes: Shapes, image: Image, classes: ClassTable) -> None:
        try:
            drawn = read_boxes(shapes, image, classes)
        except LayerError:
            return  # they are on another image
        boxes = tuple(each.box for each in drawn if each.box is not None)
        shape = level_shape(image, labels_level(image))
        if shapes in self._records or _drawn(shapes) != self._opened[shapes]:
            record = BoxesRecord(shapes.name, image.name, shape, boxes)
            self._records[shapes] = record

    def _leave(self, shapes: Shapes) -> None:
        del self._followed[shapes]
        for event in _events(shapes):
            event.disconnect(self._on_change)

    def _on_change(self, _event: Any = None) -> None:
        if not self._timer.isActive():
            self._timer.start(DEBOUNCE_MS)

    @telling()
    def _on_classes(self, *_: object) -> None:
        if self._labels is not None:
            self._mirror.use_classes(self._classes.table)
        self._on_change()

    @telling()
    def _hand_over(self) -> None:
        """Leave labels to the dock "Label and train", once it has them on disk."""
        training = self._classes.training
        if self._labels is None or training is None:
            return
        own = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Labels) and self._mirror.knows(layer)
        ]
        kept = [training.controller.annotations.keep(layer) for layer in own]
        if all(kept):
            self._labels.close()
            self._labels.deleteLater()
            self._labels = None
            for layer in own:
                self._mirror.forget(layer)
            remove_labels(self._mirror.folder)

    def _image_of(self, labels: Labels) -> str:
        for image in self._followed.values():
            try:
                check_pair(image, labels)
            except LayerError:
                continue
            return str(image.name)
        return ""


def _drawn(shapes: Shapes) -> list[Any]:
    """Return what is drawn, to find out whether it is still the same."""
    corners = [points.tolist() for points in shapes.data]
    return list(zip(corners, class_names(shapes), strict=True))


def _events(shapes: Shapes) -> list[Any]:
    return [shapes.events.data, shapes.events.properties, shapes.events.name]
