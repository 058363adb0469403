"""What the user does with the list of images: add files, go from one to the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.gui.added_files import AddedFiles
from napari_sparseseg.gui.annotations import Pair
from napari_sparseseg.gui.listed_files import ListedFile
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.opened_files import OpenedFiles, opacity_of
from napari_sparseseg.gui.planes import shown_plane
from napari_sparseseg.gui.shown_layers import ShownLayers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_sparseseg.gui.annotations import Annotations
    from napari_sparseseg.gui.class_control import ClassControl
    from napari_sparseseg.gui.image_list import ImageList
    from napari_sparseseg.gui.pair_control import PairControl
    from napari_sparseseg.gui.planes import PlaneKey
    from napari_sparseseg.gui.prediction_target import PredictionTargets
    from napari_sparseseg.gui.sent_images import SentImages
    from napari_sparseseg.gui.session_list import ListRecord
    from napari_sparseseg.gui.state import Kind, State

#: Share of the canvas that an image fills when it is gone to.
FILLED = 0.95


class ListControl(QObject):
    """Adds files to the list, and shows one of its images at a time.

    Parameters
    ----------
    viewer
        Where they are opened.
    state
        Shows how many are read.
    annotations, images
        The pairs of open layers, and the list of all.
    pairs
        Which of them are worked on.
    classes
        To which files bring theirs.
    sent
        What the engine has.
    targets
        The predictions.

    Signals
    -------
    changed()
        The list is another one, or something was read.
    """

    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        state: State,
        annotations: Annotations,
        images: ImageList,
        pairs: PairControl,
        classes: ClassControl,
        sent: SentImages,
        targets: PredictionTargets,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._annotations = annotations
        self._images = images
        self._pairs = pairs
        self._files = AddedFiles(state, images, classes, self)
        self._layers = OpenedFiles(viewer, annotations, images, pairs, sent, self)
        self._shown = ShownLayers(viewer, targets)
        self._plane: PlaneKey | None = None
        self._files.changed.connect(self.changed)
        self._files.found.connect(self._on_found)
        self._layers.opened.connect(self._on_opened)
        self._layers.closed.connect(self.changed)
        self._layers.settled.connect(self._files.read)
        pairs.chosen.connect(self._on_chosen)
        pairs.removed.connect(self._files.forget)

    # What the user wishes.

    @telling()
    def add(self, places: Sequence[str]) -> None:
        """Add the images of folders, and files, with their labels by suffix."""
        self._files.add(places)

    def cancel(self) -> None:
        """Read no more of what was added; what was read stays."""
        self._files.cancel()

    @property
    def is_opening(self) -> bool:
        """Whether layers of files are being opened or closed."""
        return self._layers.is_busy

    @telling()
    def go(self, place: int, plane: PlaneKey | None = None) -> None:
        """Work on an image of the list, and show it alone, as soon as it is open."""
        entry = self._images.entries[place]
        if isinstance(entry, ListedFile):
            self._layers.open(entry)
            self._plane = plane
            return
        self._layers.give_up()
        self._show(entry, plane)

    def step(self, by: int) -> None:
        """Go to the next image (1) or the one before (-1), or plane of a volume."""
        wished = self._layers.wished
        if wished in self._images.files:
            stop = self._images.neighbour(wished, None, by)
        else:
            stop = self._images.neighbour(self._pairs.current, self.plane, by)
        if stop is not None:
            self.go(*stop)

    @telling()
    def set_kind(self, place: int, kind: Kind | None) -> None:
        """Learn from an image as sparse or as dense; None: as is proposed."""
        self._images.entries[place].chosen_kind = kind
        self.changed.emit()

    @property
    def plane(self) -> PlaneKey | None:
        """The plane that is shown of the image that is worked on."""
        image = self._pairs.image
        if image is None or image not in self._viewer.layers:
            return None
        return shown_plane(self._viewer, image)

    # Sessions.

    @telling()
    def take_over(self, records: Iterable[ListRecord]) -> None:
        """Bring the list of a session back, whose painted images are open by now."""
        known = {file.image for file in self._images.known_files}
        order: list[Any] = []
        for record in records:
            pair = self._pair_named(record)
            if pair is not None:
                pair.chosen_kind = record.kind
                if record.path and pair.file is None:
                    # It was painted on, so its layers stay.
                    pair.file = replace(_listed(record), key=pair.key, is_read=True)
                    pair.labels.opacity = opacity_of(pair.labels.data)
                self._annotations.tick(pair, record.ticked)
                order.append(pair)
            elif record.path and Path(record.path) not in known:
                order.append(_listed(record))
        self._files.append([each for each in order if isinstance(each, ListedFile)])
        self._images.arrange(order)
        opened = [each for each in order if isinstance(each, Pair) and each.file]
        if opened:
            # They lie on each other.
            current = self._pairs.current
            shown = current if current is not None and current in opened else opened[0]
            self.go(self._images.entries.index(shown))
            self._viewer.layers.selection.active = shown.labels
        self.changed.emit()
        if not self._layers.is_busy:
            self._files.read()

    def close(self) -> None:
        """End: all layers are shown again, and what was written for files is gone."""
        self._layers.close()
        self._shown.show_all()
        self._files.close()

    # What becomes of it.

    @telling()
    def _on_found(self, files: list[ListedFile]) -> None:
        """Show the first of the files that were added, if nothing is worked on."""
        if files and self._pairs.current is None and self._layers.wished is None:
            self.go(self._images.entries.index(files[0]))
        if not self._layers.is_busy:
            self._files.read()

    @telling()
    def _on_opened(self, pair: Pair, is_wished: bool) -> None:
        current = self._pairs.current
        if is_wished:
            self._show(pair, self._plane)
        elif current is not None and self._shown.is_active:
            self._shown.show_only(current)

    def _show(self, pair: Pair, plane: PlaneKey | None) -> None:
        before = self._pairs.labels
        # Hidden layers lose it.
        tool = None if before is None else (before.brush_size, before.mode)
        if pair is not self._pairs.current:
            self._pairs.choose(pair.image, pair.labels)
        self._shown.show_only(pair)
        if tool is not None and pair.labels.visible:
            pair.labels.brush_size, pair.labels.mode = tool
        self.look_at(pair.image, plane)
        self._layers.keep_few(pair)
        self.changed.emit()

    def _pair_named(self, record: ListRecord) -> Pair | None:
        for pair in self._annotations.pairs:
            if (pair.image.name, pair.labels.name) == (record.image, record.labels):
                return pair
        return None

    # The canvas.

    @telling()
    def _on_chosen(self) -> None:
        """Keep to one image at a time where another was chosen otherwise."""
        current = self._pairs.current
        if self._shown.is_active and current is not None:
            self._shown.show_only(current)
        self.changed.emit()

    def look_at(self, image: Image, plane: PlaneKey | None = None) -> None:
        """Bring an image to the middle of the canvas."""
        # napari's own reset_view takes no layer of fewer axes than another one has.
        first, last = image.extent.world[:, -2:]
        # Since napari 0.9 the camera belongs to the scene.
        camera = getattr(self._viewer, "scene", self._viewer).camera
        camera.center = (0.0, *(first + last) / 2)
        canvas = getattr(self._viewer, "canvas", None)
        if canvas is not None:
            camera.zoom = FILLED * float(np.min(canvas.size / (last - first)))
        if plane is not None and plane.index:
            point = image.data_to_world((*plane.index, 0, 0))[:-2]
            for axis, at in enumerate(point, self._viewer.dims.ndim - image.ndim):
                self._viewer.dims.set_point(axis, at)


def _listed(record: ListRecord) -> ListedFile:
    """Return a file of the list of a session, which is not read yet."""
    labels = Path(record.labels_path) if record.labels_path else None
    return ListedFile(
        "",
        Path(record.path),
        labels,
        record.ticked,
        record.kind,
        is_of_session=True,
    )
