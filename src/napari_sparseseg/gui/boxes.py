"""The plugin's widget "Boxes": boxes around objects become masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from napari.layers import Image, Labels, Shapes

from napari_sparseseg.gui import boxes_settings
from napari_sparseseg.gui.boxes_classes import find_training
from napari_sparseseg.gui.boxes_controller import BoxesController
from napari_sparseseg.gui.boxes_dock import BoxesDockWidget
from napari_sparseseg.gui.boxes_labels import fits
from napari_sparseseg.gui.boxes_layer import boxes_name, is_ours
from napari_sparseseg.gui.boxes_state import BoxesState
from napari_sparseseg.gui.dock_frame import PluginWidget, find_layer, frame_of
from napari_sparseseg.gui.engine_link import EngineLink
from napari_sparseseg.gui.homes import (
    give,
    has_home,
    is_at_home,
    open_home,
    other_home,
)
from napari_sparseseg.gui.label_and_train import new_mirror
from napari_sparseseg.gui.launch import DOCK, PLUGIN
from napari_sparseseg.gui.log import log_folder, start_log
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import agrees, counted, once
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.restore import open_boxes_again
from napari_sparseseg.gui.restore_images import ask_with_dialog
from napari_sparseseg.gui.restore_question import BOXES, STROKES, offer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari

    from napari_sparseseg.gui.label_and_train import LabelAndTrain


class Boxes(PluginWidget):
    """Turn boxes into masks, in one napari window.

    It has an engine of its own, so that masks are made at full speed while a network
    of "Label and train" learns.

    Parameters
    ----------
    napari_viewer
        The viewer that the dock is opened in.

    Attributes
    ----------
    state, controller, dock, link
        What is true, what is done, what is seen, and the engine behind it.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        start_log()
        self._viewer = napari_viewer
        self.state = BoxesState()
        boxes_settings.restore(self.state)
        self.dock = BoxesDockWidget(self.state)
        self.link = EngineLink(log_folder() / "engine.log")
        self.controller = BoxesController(
            napari_viewer, self.state, self.link, new_mirror(napari_viewer)
        )
        # The boxes on an image, and the labels that their masks are accepted into.
        self._boxes: WeakKeyDictionary[Image, ref[Shapes]] = WeakKeyDictionary()
        self._into: WeakKeyDictionary[Image, ref[Labels]] = WeakKeyDictionary()
        self.fill(self.dock, self.controller)
        self._connect()
        self._follow_layers()
        self._soon = once(self, self._offer_restore)
        self._soon.start(0)

    @telling()
    def _offer_restore(self) -> None:
        if not self.controller.is_closed:
            openers = {STROKES: self._open_strokes, BOXES: self.open_again}
            offer(self.dock, BOXES, openers)

    def _open_strokes(self, folder: Path) -> None:
        self._open_training().open_again(folder)

    def open_again(self, folder: Path) -> None:
        """Open the boxes that a crash left behind, and ask for no others.

        Raises
        ------
        SparseSegError
            If they cannot be opened; then nothing is.
        """
        self._soon.stop()
        ask = ask_with_dialog(self.dock)
        open_boxes_again(self._viewer, folder, ask, self._keep_opened)

    def _keep_opened(
        self, boxes: list[tuple[Shapes, Image]], labels: list[Labels]
    ) -> bool:
        """Work on boxes that were opened; tell whether all is on disk."""
        for shapes, image in boxes[:1]:
            self.dock.layers.images.choose(image.name)
            self._boxes[image] = ref(shapes)
            self._choose()
        return self.controller.kept.keep(boxes, labels)

    def _connect(self) -> None:
        dock, controller = self.dock, self.controller
        wishes: list[tuple[Any, Callable[..., object]]] = [
            (dock.layers.image_chosen, self._choose),
            (dock.layers.boxes_chosen, self._choose_boxes),
            (dock.layers.labels_chosen, self._choose_labels),
            (dock.layers.new_boxes_pressed, controller.new_boxes),
            (dock.layers.new_labels_pressed, controller.new_labels),
            (dock.layers.class_chosen, controller.draw),
            (dock.layers.class_added, controller.add_class),
            (dock.method.changed, controller.use_settings),
            (dock.method.preview_wished, controller.set_preview),
            (dock.method.weights_arrived, controller.look_for_weights),
            (dock.run.generate_pressed, lambda: controller.generate()),
            (dock.run.picked_pressed, controller.generate),
            (dock.run.cancel_pressed, controller.cancel),
            (dock.run.map_wished, controller.show_map),
            (dock.table.picked, controller.pick),
            (dock.table.accept_wished, self._accept),
            (dock.table.redo_wished, controller.generate),
            (dock.table.delete_wished, controller.delete),
            (dock.table.class_wished, controller.give_class),
            (dock.table.undo_pressed, controller.undo),
            (dock.train_pressed, self._train_on_these),
            (controller.shapes_added, self._on_shapes_added),
            (controller.labels_added, self._on_labels_added),
            (controller.training_wished, self._train),
        ]
        for signal, slot in wishes:
            signal.connect(slot)
        events = self._viewer.layers.events
        events.inserted.connect(self._follow_layers)
        events.removed.connect(self._on_removed)
        events.renamed.connect(self._follow_layers)

    @telling()
    def _follow_layers(self, _event: Any = None) -> None:
        if self.controller.is_closed:
            return
        self._choose()

    def _offer(self) -> None:
        """Offer the layers of the viewer, but no boxes or labels of other images."""
        layers = self.dock.layers
        layers.set_images([each.name for each in self._images()])
        image = find_layer(self._viewer, layers.images.currentText(), Image)
        if image is None:
            layers.set_boxes([], "")
            layers.set_labels([], "")
            return
        boxes = [
            each
            for each in self._viewer.layers
            if isinstance(each, Shapes)
            and open_home(each, self._viewer.layers) in (None, image)
        ]
        labels = [
            each
            for each in self._viewer.layers
            if isinstance(each, Labels)
            and not is_prediction(each)
            and fits(image, each)
            and not other_home(each, image)
        ]
        on, into = self._boxes_on(image, boxes), self._labels_of(image, labels)
        layers.set_boxes([each.name for each in boxes], "" if on is None else on.name)
        layers.set_labels(
            [each.name for each in labels], "" if into is None else into.name
        )

    def _images(self) -> list[Image]:
        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and not is_prediction(layer)
        ]

    def _boxes_on(self, image: Image, offered: list[Shapes]) -> Shapes | None:
        """Return which boxes are worked on with an image.

        Those of no image yet are where they can only be of this one. Shapes that were
        not drawn as boxes may mean something else, so they wait to be chosen.
        """
        known = self._boxes.get(image)
        chosen = None if known is None else known()
        if chosen in offered:
            return chosen
        for shapes in offered:
            if is_at_home(shapes, image, self._viewer.layers):
                return shapes
        only = len(self._images()) == 1
        for shapes in offered:
            is_named = shapes.name == boxes_name(image)
            if is_ours(shapes) and not has_home(shapes) and (only or is_named):
                return shapes
        return None

    def _labels_of(self, image: Image, offered: list[Labels]) -> Labels | None:
        """Return which labels masks of an image are accepted into."""
        known = self._into.get(image)
        chosen = None if known is None else known()
        if chosen in offered:
            return chosen
        layers = self._viewer.layers
        own = [
            each
            for each in offered
            if is_ours(each) and is_at_home(each, image, layers)
        ]
        return own[0] if len(own) == 1 else None

    @telling()
    def _on_removed(self, event: Any) -> None:
        self.controller.forget(event.value)
        self._follow_layers()

    def _on_shapes_added(self, shapes: Shapes) -> None:
        self._choose_boxes(shapes.name)

    def _on_labels_added(self, labels: Labels) -> None:
        self._choose_labels(labels.name)

    @telling()
    def _choose_boxes(self, name: str) -> None:
        """Work on these boxes, which are of the chosen image from now on."""
        image, shapes = self.controller.image, find_layer(self._viewer, name, Shapes)
        if image is not None and shapes is not None:
            give(shapes, image)
            self._boxes[image] = ref(shapes)
        self._choose()

    @telling()
    def _choose_labels(self, name: str) -> None:
        """Accept masks of the chosen image into these labels from now on."""
        image, labels = self.controller.image, find_layer(self._viewer, name, Labels)
        if image is not None and labels is not None:
            self._into[image] = ref(labels)
        self._choose()

    @telling()
    def _choose(self) -> None:
        self._offer()
        layers, controller = self.dock.layers, self.controller
        chosen = (
            find_layer(self._viewer, layers.images.currentText(), Image),
            find_layer(self._viewer, layers.boxes.currentText(), Shapes),
            find_layer(self._viewer, layers.labels.currentText(), Labels),
        )
        image, shapes, _ = chosen
        if image is not None and shapes is not None:
            self._boxes[image] = ref(shapes)
        if chosen != (controller.image, controller.shapes, controller.labels):
            controller.choose(*chosen)

    @telling()
    def _accept(self, places: tuple[int, ...]) -> None:
        if self._may_replace(places):
            self.controller.accept(places)

    @telling()
    def _train_on_these(self) -> None:
        if self._may_replace(self.state.places("proposed")):
            self.controller.train_on_these()

    def _may_replace(self, places: tuple[int, ...]) -> bool:
        """Ask before masks replace what the user has painted."""
        lost, labels = self.controller.count_replaced(places), self.controller.labels
        if not lost or labels is None:
            return True
        question = (
            f"The masks would replace {counted(lost, 'painted pixel')} in "
            f"'{labels.name}'. Accept them all the same?\n\nUndo brings them back."
        )
        return agrees(self.dock, "Accept masks", question)

    @telling()
    def _train(self, image: Image, labels: Labels) -> None:
        """Open "Label and train" with a ticked pair of layers."""
        training = self._open_training()
        pairs = training.controller.pairs
        training.dock.pairs.choose(image.name, labels.name)
        pairs.choose(image, labels)
        pairs.add(image, labels)
        for place, pair in enumerate(training.controller.annotations.pairs):
            if (pair.image, pair.labels) == (image, labels) and not pair.ticked:
                pairs.tick(place, True)
        self.state.status = "Press Train in the dock Label and train."

    def _open_training(self) -> LabelAndTrain:
        """Bring "Label and train" to the front, opened where it is not open yet."""
        training = find_training(self._viewer)
        if training is None:
            window = self._viewer.window
            _, opened = window.add_plugin_dock_widget(PLUGIN, DOCK)
            made: LabelAndTrain = opened
            return made
        frame = frame_of(training)
        if frame is not None:
            frame.show()
            frame.raise_()
        return training
