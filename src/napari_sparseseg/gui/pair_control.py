"""The layers that are worked on, and the pairs of them that are learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image, Labels
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.gui.annotations import Pair
from napari_sparseseg.gui.homes import other_home, settle
from napari_sparseseg.gui.listed_files import ListedFile
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.planes import check_pair, new_labels_for

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sparseseg.gui.annotations import Annotations
    from napari_sparseseg.gui.class_control import ClassControl
    from napari_sparseseg.gui.image_list import ImageList
    from napari_sparseseg.gui.pixel_watch import PixelWatch
    from napari_sparseseg.gui.sent_images import SentImages
    from napari_sparseseg.gui.state import State
    from napari_sparseseg.gui.training_run import TrainingRun


class PairControl(QObject):
    """Chooses layers, and says which of them the training learns from.

    Parameters
    ----------
    viewer
        The napari viewer.
    state
        Has classes, and the phase of the training.
    annotations, images
        The pairs of open layers, and the list of all images.
    classes
        To which label layers bring theirs.
    sent
        Pairs that the engine has.
    run
        The training, which ends with the last pair.
    pixels
        Watches the images.

    Attributes
    ----------
    image, labels
        The layers that are worked on.

    Signals
    -------
    chosen()
        Other layers are worked on.
    changed()
        There are other pairs.
    removed(file)
        A file was taken out of the list.
    """

    chosen = Signal()
    changed = Signal()
    removed = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        state: State,
        annotations: Annotations,
        images: ImageList,
        classes: ClassControl,
        sent: SentImages,
        run: TrainingRun,
        pixels: PixelWatch,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.image: Image | None = None
        self.labels: Labels | None = None
        self._viewer = viewer
        self._state = state
        self._annotations = annotations
        self._images = images
        self._classes = classes
        self._sent = sent
        self._run = run
        self._pixels = pixels
        annotations.used.connect(self._on_used)

    @property
    def current(self) -> Pair | None:
        """The pair of the layers that are worked on, if they are one."""
        return self._annotations.find(self.image, self.labels)

    @property
    def learned_images(self) -> set[object]:
        """The layers and files that the training is to learn from."""
        found: set[object] = set()
        for entry in self._images.entries:
            if entry.in_use:
                found.update(_parts(entry))
        return found

    # What the user wishes.

    @telling()
    def choose(self, image: Image | None, labels: Labels | None) -> None:
        """Work on these layers; where they fit each other they become a pair."""
        self.image, self.labels = image, labels
        self.chosen.emit()
        if image is None or labels is None:
            return
        # Else the brush would go into whatever layer came last.
        self._viewer.layers.selection.active = labels
        self._pixels.watch(image)
        home = other_home(labels, image)
        if home:
            self._state.status = (
                f"'{labels.name}' were painted on '{home}'; press New labels to paint "
                f"on '{image.name}'."
            )
            return
        self.add(image, labels)

    @telling()
    def add(self, image: Image, labels: Labels) -> None:
        """Let the training learn from a pair of layers."""
        if self._annotations.find(image, labels) is not None:
            return
        check_pair(image, labels)
        self._classes.adopt(labels)
        self._pixels.watch(image)
        self._lift(labels, image)
        settle(labels, image)
        file = self._images.file_of(image)
        pair = self._annotations.add(image, labels, file)
        if file is not None:
            self._sent.hand_over(file, pair)
        self.put(pair)
        self.changed.emit()

    @telling()
    def remove(self, index: int) -> None:
        """Take an image out of the training; its layers and files stay."""
        entry = self._images.entries[index]
        # First, so that the last strokes are not sent after that.
        self._annotations.flush()
        self._take_out(entry)
        if isinstance(entry, ListedFile):
            self._images.remove(entry)
            self.removed.emit(entry)
            self.changed.emit()
            return
        self._annotations.remove(entry)

    @telling()
    def tick(self, index: int, ticked: bool) -> None:
        """Let the training learn from an image, or leave it out."""
        entry = self._images.entries[index]
        if isinstance(entry, ListedFile):
            entry.ticked = ticked
            self.put_or_take_out(entry)
            self.changed.emit()
            return
        self._annotations.tick(entry, ticked)

    def empty_labels(self, image: Image) -> Labels:
        """Return an empty label layer that lies on an image, not in the viewer yet."""
        highest = max(self._state.classes.values, default=1)
        layer = Labels(**new_labels_for(image, f"{image.name} strokes", highest))
        layer.brush_size = 5
        layer.opacity = 1.0
        return layer

    @telling()
    def new_labels(self) -> Labels | None:
        """Add an empty label layer that lies on the chosen image."""
        if self.image is None:
            return None
        layer = self.empty_labels(self.image)
        settle(layer, self.image)
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = layer
        layer.mode = "paint"
        layer.selected_label = self._state.selected
        return layer

    # What becomes of them.

    def forget(self, layer: Layer) -> None:
        """Take out the pairs of a layer that is deleted."""
        for index, entry in reversed(list(enumerate(self._images.entries))):
            if isinstance(entry, Pair) and layer in (entry.image, entry.labels):
                self.remove(index)

    def put(self, pair: Pair) -> None:
        """Bring a pair to the engine if a training learns from it."""
        # Without a training nobody asks for strokes; Train sends them all.
        if pair.in_use and self._state.phase != "idle":
            self._run.learns_from(_parts(pair))
            self._sent.put(pair)

    def put_file(self, file: ListedFile) -> None:
        """Bring a file to the engine if a training learns from it."""
        if file.in_use and self._state.phase != "idle":
            self._run.learns_from(_parts(file))
            self._sent.put_file(file)

    def put_or_take_out(self, file: ListedFile) -> None:
        """Bring a file to the engine, or take it out, as it is in use or not."""
        if file.in_use:
            self.put_file(file)
        else:
            self._take_out(file)

    def put_changed_kinds(self) -> None:
        """Send again what is dense now and was sparse, or vice versa."""
        for entry in self._images.entries:
            if self._sent.is_of_other_kind(entry):
                if isinstance(entry, ListedFile):
                    self.put_file(entry)
                else:
                    self.put(entry)

    def put_all(self) -> None:
        """Bring all that is to be learned from to the engine."""
        self._annotations.try_again(self._annotations.pairs)
        for pair in self._annotations.pairs:
            if pair.in_use:
                self._sent.put(pair)
        for file in self._images.files:
            if file.in_use:
                self._sent.put_file(file)
        self.changed.emit()

    @telling()
    def _on_used(self, pair: Pair) -> None:
        if pair.in_use:
            self.put(pair)
        else:
            self._take_out(pair)

    def _lift(self, labels: Labels, image: Image) -> None:
        """Bring labels above their image, if that was opened after them."""
        layers = self._viewer.layers
        if layers.index(labels) < layers.index(image):
            layers.move(layers.index(labels), layers.index(image) + 1)

    def _take_out(self, entry: Pair | ListedFile) -> None:
        if self._run.goes_on and self._sent.are_only_of(entry):
            # A training without any image could not even be saved.
            self._run.stop()
            if not entry.problem:
                show_warning(
                    "Nothing is left to learn from, so the training is stopped; add "
                    "or tick an image and press Train."
                )
        self._sent.take_out(entry)


def _parts(entry: Pair | ListedFile) -> list[object]:
    """Return what a training knows an image by: layers, and the file behind them."""
    if isinstance(entry, ListedFile):
        return [entry]
    files = [] if entry.file is None else [entry.file]
    return [entry.image, entry.labels, *files]
