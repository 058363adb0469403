"""The layers that are worked on, and the pairs of them that are learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image, Labels
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.gui.homes import other_home, settle
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.planes import check_pair, new_labels_for

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sparseseg.gui.annotations import Annotations, Pair
    from napari_sparseseg.gui.class_control import ClassControl
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
    annotations
        The pairs.
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
    """

    chosen = Signal()
    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        state: State,
        annotations: Annotations,
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
    def learned_layers(self) -> set[Layer]:
        """The images and labels that the training is to learn from."""
        in_use = (pair for pair in self._annotations.pairs if pair.in_use)
        return {layer for pair in in_use for layer in (pair.image, pair.labels)}

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
        self.put(self._annotations.add(image, labels))
        self.changed.emit()

    @telling()
    def remove(self, index: int) -> None:
        """Take a pair out of the training."""
        pair = self._annotations.pairs[index]
        # First, so that the last strokes are not sent after that.
        self._annotations.flush()
        self._take_out(pair)
        self._annotations.remove(pair)

    @telling()
    def tick(self, index: int, ticked: bool) -> None:
        """Let the training learn from a pair, or leave it out."""
        self._annotations.tick(self._annotations.pairs[index], ticked)

    @telling()
    def new_labels(self) -> Labels | None:
        """Add an empty label layer that lies on the chosen image."""
        if self.image is None:
            return None
        highest = max(self._state.classes.values, default=1)
        layer = Labels(
            **new_labels_for(self.image, f"{self.image.name} strokes", highest)
        )
        layer.brush_size = 5
        layer.opacity = 1.0
        settle(layer, self.image)
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = layer
        layer.mode = "paint"
        layer.selected_label = self._state.selected
        return layer

    # What becomes of them.

    def forget(self, layer: Layer) -> None:
        """Take out the pairs of a layer that is deleted."""
        for index, pair in reversed(list(enumerate(self._annotations.pairs))):
            if layer in (pair.image, pair.labels):
                self.remove(index)

    def put(self, pair: Pair) -> None:
        """Bring a pair to the engine if a training learns from it."""
        # Without a training nobody asks for strokes; Train sends them all.
        if pair.in_use and self._state.phase != "idle":
            self._run.learns_from([pair.image, pair.labels])
            self._sent.put(pair)

    def put_all(self) -> None:
        """Bring all that is to be learned from to the engine."""
        self._annotations.try_again(self._annotations.pairs)
        for pair in self._annotations.pairs:
            if pair.in_use:
                self._sent.put(pair)
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

    def _take_out(self, pair: Pair) -> None:
        if self._run.goes_on and self._sent.are_only_of(pair):
            # A training without any image could not even be saved.
            self._run.stop()
            if not pair.problem:
                show_warning(
                    "Nothing is left to learn from, so the training is stopped; add "
                    "or tick an image and press Train."
                )
        self._sent.take_out(pair)
