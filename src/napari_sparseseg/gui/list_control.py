"""What the user does with the list of images: add files, go from one to the next."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.annotations.classes import find_class_table
from napari_sparseseg.errors import ImageError, LayerError
from napari_sparseseg.gui.annotations import DENSE_SHARE, Pair
from napari_sparseseg.gui.homes import settle
from napari_sparseseg.gui.image_layers import layers_of
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.listed_files import FileReader, ListedFile
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import counted
from napari_sparseseg.gui.planes import level_shape, placement, shown_plane
from napari_sparseseg.gui.session_list import ListRecord
from napari_sparseseg.gui.shown_layers import ShownLayers
from napari_sparseseg.io.annotation_files import read_labels
from napari_sparseseg.io.label_pairs import find_pairs
from napari_sparseseg.io.sources import open_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.gui.annotations import Annotations
    from napari_sparseseg.gui.class_control import ClassControl
    from napari_sparseseg.gui.image_list import ImageList
    from napari_sparseseg.gui.pair_control import PairControl
    from napari_sparseseg.gui.planes import PlaneKey
    from napari_sparseseg.gui.prediction_target import PredictionTargets
    from napari_sparseseg.gui.sent_images import SentImages
    from napari_sparseseg.gui.state import Kind, State

#: Files of the list that are open at most, but for those that were painted on: the
#: layers of the one that was looked at longest ago are closed.
MOST_OPEN = 6

#: Share of the canvas that an image fills when it is gone to.
FILLED = 0.95

#: Labels that cover the image let it shine through; strokes do not.
DENSE_OPACITY = 0.4


class ListControl(QObject):
    """Adds files to the list, opens and closes their layers, and shows one at a time.

    Parameters
    ----------
    viewer
        Where they are opened.
    state
        Has the classes.
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
        self._state = state
        self._annotations = annotations
        self._images = images
        self._pairs = pairs
        self._classes = classes
        self._sent = sent
        self._reader = FileReader(self)
        self._shown = ShownLayers(viewer, targets)
        # Opened for files, the last looked at is the last.
        self._opened: list[Pair] = []
        self._problems: list[str] = []
        self._reader.read.connect(self._on_read)
        pairs.chosen.connect(self._on_chosen)
        pairs.removed.connect(self._reader.forget)

    # What the user wishes.

    @telling()
    def add(self, places: Sequence[str]) -> None:
        """Add the images of folders, and files, with their labels by suffix."""
        found, problems = find_pairs([Path(place) for place in places])
        known = {each.image for each in self._known_files()}
        new = [each for each in found if each.image.absolute() not in known]
        for each in new:
            labels = None if each.labels is None else each.labels.absolute()
            self._append(ListedFile("", each.image.absolute(), labels))
        if len(new) < len(found):
            problems.append(
                f"{counted(len(found) - len(new), 'image')} of these, as "
                f"{next(e for e in found if e not in new).image.name}, is or are in "
                "the list already."
            )
        _tell(problems)
        self.changed.emit()
        if new and self._pairs.current is None:
            self.go(self._place_of(new[0].image))

    @telling()
    def go(self, place: int, plane: PlaneKey | None = None) -> None:
        """Work on an image of the list, and show it alone."""
        entry = self._images.entries[place]
        before = self._pairs.labels
        # Hidden layers lose it.
        tool = None if before is None else (before.brush_size, before.mode)
        pair = self._open(entry) if isinstance(entry, ListedFile) else entry
        if pair is not self._pairs.current:
            self._pairs.choose(pair.image, pair.labels)
        self._shown.show_only(pair)
        if tool is not None and pair.labels.visible:
            pair.labels.brush_size, pair.labels.mode = tool
        self.look_at(pair.image, plane)
        self._close_others(pair)
        self.changed.emit()

    def step(self, by: int) -> None:
        """Go to the next image (1) or the one before (-1), or plane of a volume."""
        current = self._pairs.current
        stop = self._images.neighbour(current, self.plane, by)
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

    def records(self) -> tuple[ListRecord, ...]:
        """Return what a session keeps of the list."""
        found = []
        for each in self._images.entries:
            file = each if isinstance(each, ListedFile) else each.file
            layers = ("", "")
            if isinstance(each, Pair):
                layers = (each.image.name, each.labels.name)
            labels = None if file is None else file.labels
            found.append(
                ListRecord(
                    *layers,
                    path="" if file is None else str(file.image),
                    labels_path="" if labels is None else str(labels),
                    ticked=each.ticked,
                    kind=each.chosen_kind,
                )
            )
        return tuple(found)

    @telling()
    def take_over(self, records: Iterable[ListRecord]) -> None:
        """Bring the list of a session back, whose painted images are open by now."""
        known = {each.image for each in self._known_files()}
        order: list[Any] = []
        for record in records:
            pair = self._pair_named(record)
            labels = Path(record.labels_path) if record.labels_path else None
            if pair is not None:
                pair.chosen_kind = record.kind
                if record.path and pair.file is None:
                    # It was painted on, so its layers stay.
                    pair.file = ListedFile(pair.key, Path(record.path), labels)
                    pair.file.is_read = True
                    pair.labels.opacity = _opacity_of(pair.labels.data)
                self._annotations.tick(pair, record.ticked)
                order.append(pair)
            elif record.path and Path(record.path) not in known:
                file = ListedFile(
                    "", Path(record.path), labels, record.ticked, record.kind
                )
                self._append(file)
                order.append(file)
        self._images.arrange(order)
        opened = [each for each in order if isinstance(each, Pair) and each.file]
        if opened:
            # They lie on each other.
            current = self._pairs.current
            shown = current if current is not None and current in opened else opened[0]
            self.go(self._images.entries.index(shown))
            self._viewer.layers.selection.active = shown.labels
        self.changed.emit()

    def close(self) -> None:
        """End: all layers are shown again, and what was written for files is gone."""
        self._shown.show_all()
        self._reader.close()

    # Files.

    def _append(self, file: ListedFile) -> None:
        file.key = file.name
        self._images.append(file)
        if not file.image.exists():
            file.is_read = True
            file.problem = (
                f"{file.image} is not there any more; put it back, or remove it from "
                "the list and add it from where it is now."
            )
            return
        self._reader.start(file)

    def _on_read(self, found: list[tuple[ListedFile, ClassTable | None]]) -> None:
        with telling():
            listed = set(self._known_files())
            for file, _ in found:
                if file not in listed:
                    self._reader.forget(file)
            there = [(file, classes) for file, classes in found if file in listed]
            self._adopt(there)
            self._problems += [file.problem for file, _ in there if file.problem]
            if not self._images.n_waiting:
                problems, self._problems = self._problems, []
                _tell(problems)
        self.changed.emit()

    def _adopt(self, found: Iterable[tuple[ListedFile, ClassTable | None]]) -> None:
        """Take over the classes of files; the table of the first labels counts."""
        is_first = True
        for file, classes in found:
            values = {value for counts in file.counts.values() for value in counts}
            self._classes.adopt_file(classes if is_first else None, values)
            is_first = is_first and not values

    def _known_files(self) -> list[ListedFile]:
        entries = self._images.entries
        files = [e if isinstance(e, ListedFile) else e.file for e in entries]
        return [file for file in files if file is not None]

    def _place_of(self, path: Path) -> int:
        return next(
            place
            for place, each in enumerate(self._images.entries)
            if isinstance(each, ListedFile) and each.image == path.absolute()
        )

    def _pair_named(self, record: ListRecord) -> Pair | None:
        for pair in self._annotations.pairs:
            if (pair.image.name, pair.labels.name) == (record.image, record.labels):
                return pair
        return None

    # Layers.

    def _open(self, file: ListedFile) -> Pair:
        """Open a file and its labels as layers, which take its place in the list.

        Raises
        ------
        SparseSegError
            If it cannot be used.
        """
        if file.problem:
            raise ImageError(file.problem)
        image = _image_of(file)
        labels = self._labels_of(file, image)
        self._images.expect(image, file)
        settle(labels, image)
        self._viewer.add_layer(image)
        self._viewer.add_layer(labels)
        self._pairs.choose(image, labels)
        pair = self._annotations.find(image, labels)
        if pair is None:
            self._viewer.layers.remove(labels)
            self._viewer.layers.remove(image)
            raise LayerError(
                f"The labels of {file.image.name} do not fit it; give labels of the "
                "same shape.",
                path=str(file.image),
            )
        return pair

    def _labels_of(self, file: ListedFile, image: Image) -> Labels:
        if file.labels is None:
            return self._pairs.empty_labels(image)
        found = read_labels(file.labels, find_class_table(file.labels))
        data = np.array(found.labels).reshape(level_shape(image))
        labels = Labels(
            data,
            name=f"{file.name} labels",
            opacity=_opacity_of(data),
            metadata={}
            if found.classes is None
            else {CLASSES_KEY: found.classes.to_json()},
            **placement(image),
        )
        labels.brush_size = 5
        return labels

    def _close_others(self, shown: Pair) -> None:
        """Close the layers that were looked at longest ago, but for painted ones."""
        if shown.file is not None:
            self._opened = [pair for pair in self._opened if pair is not shown]
            self._opened.append(shown)
        pairs = self._annotations.pairs
        self._opened = [pair for pair in self._opened if pair in pairs]
        for pair in self._opened[:-MOST_OPEN]:
            self._opened.remove(pair)
            if not self._is_painted(pair):
                self._close(pair)

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

    def _close(self, pair: Pair) -> None:
        """Let a file take the place of its layers again."""
        file = pair.file
        assert file is not None
        file.ticked, file.chosen_kind = pair.ticked, pair.chosen_kind
        self._images.reopen(pair, file)
        self._sent.hand_over(pair, file)
        self._annotations.drop(pair)
        self._pairs.put_file(file)
        for layer in (pair.labels, pair.image):
            self._viewer.layers.remove(layer)

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


def _image_of(file: ListedFile) -> Image:
    """Open an image as a layer that knows where it is from.

    Raises
    ------
    ImageError
        If it cannot be opened, or has several channels.
    """
    layers = layers_of(open_image(file.image))
    if len(layers) > 1:
        raise ImageError(
            f"{file.image.name} has {len(layers)} channels, but images of the list are "
            "grey or RGB; open it with File > Open, which gives each channel a layer.",
            channels=len(layers),
        )
    data, arguments, _ = layers[0]
    return Image(data, **arguments)


def _opacity_of(labels: NDArray[Any]) -> float:
    """Return how opaque labels, (..., y, x), are shown: they may cover a plane."""
    labelled = np.count_nonzero(labels, axis=(-2, -1)).max()
    is_covered = labelled >= DENSE_SHARE * math.prod(labels.shape[-2:])
    return DENSE_OPACITY if is_covered else 1.0


def _tell(problems: Sequence[str]) -> None:
    """Tell what went wrong with files: of many only the first."""
    if len(problems) == 1:
        show_warning(problems[0])
    elif problems:
        show_warning(
            f"{len(problems)} files cannot be used, and the others are added. The "
            f"first: {problems[0]}"
        )
