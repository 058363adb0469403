"""The plugin's widget "Predict and export": labels of images, and files of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels

from napari_sparseseg.gui import predict_settings
from napari_sparseseg.gui.dock_frame import PluginWidget, find_layer
from napari_sparseseg.gui.engine_link import EngineLink
from napari_sparseseg.gui.log import log_folder, start_log
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import once
from napari_sparseseg.gui.predict_controller import PredictController
from napari_sparseseg.gui.predict_dock import PredictDockWidget
from napari_sparseseg.gui.predict_state import PredictState
from napari_sparseseg.gui.prediction_layer import is_prediction

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

#: Whether the training has a model now is looked at so often.
LOOK_MS = 1000


class PredictAndExport(PluginWidget):
    """Predict images and export labels, in one napari window.

    It has an engine of its own, so that a network can go on learning meanwhile.

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
        self.state = PredictState()
        predict_settings.restore(self.state)
        self.dock = PredictDockWidget(self.state)
        self.link = EngineLink(log_folder() / "engine.log")
        self.controller = PredictController(napari_viewer, self.state, self.link)
        self.fill(self.dock, self.controller)
        self._connect()
        self._follow_layers()
        self._look = once(self, self._look_at_training, LOOK_MS)
        self._look.setSingleShot(False)
        self._look.start()

    def _connect(self) -> None:
        dock, controller = self.dock, self.controller
        wishes: list[tuple[Any, Callable[..., object]]] = [
            (dock.model.chosen, self._choose_model),
            (dock.what.changed, controller.use_wishes),
            (dock.what.images.chosen, self._choose),
            (dock.run.predict_pressed, controller.predict),
            (dock.run.cancel_pressed, controller.cancel),
            (dock.export.labels_chosen, self._choose),
            (dock.export.simplify_wished, controller.simplify),
            (dock.export.export_wished, controller.export),
            (controller.shown, self._on_shown),
        ]
        for signal, slot in wishes:
            signal.connect(slot)
        events = self._viewer.layers.events
        events.inserted.connect(self._follow_layers)
        events.removed.connect(self._on_removed)
        events.renamed.connect(self._follow_layers)
        self._viewer.dims.events.ndisplay.connect(self._choose)
        self._viewer.dims.events.order.connect(self._choose)

    @telling()
    def _follow_layers(self, _event: Any = None) -> None:
        if self.controller.is_closed:
            return
        layers = self._viewer.layers
        self.dock.what.set_images(
            [
                layer.name
                for layer in layers
                if isinstance(layer, Image) and not is_prediction(layer)
            ]
        )
        # What was added last comes first: it is mostly what is wanted.
        self.dock.export.set_labels(
            [layer.name for layer in reversed(layers) if isinstance(layer, Labels)]
        )
        self._choose()

    @telling()
    def _on_removed(self, event: Any) -> None:
        self.controller.forget(event.value)
        self._follow_layers()

    @telling()
    def _choose(self, _event: Any = None) -> None:
        if self.controller.is_closed:
            return
        image = find_layer(self._viewer, self.dock.what.images.currentText(), Image)
        labels = find_layer(self._viewer, self.dock.export.labels.currentText(), Labels)
        is_other = image is not self.controller.image
        self.controller.choose(image, labels)
        wishes, refused = self.state.wishes, self.state.refused
        if is_other and image is not None and wishes.what in refused:
            first = next(
                each for each in ("stack", "slide", "plane") if each not in refused
            )
            self.controller.use_wishes(replace(wishes, what=first))

    def _choose_model(self, path: str) -> None:
        self.controller.use_wishes(replace(self.state.wishes, model=path))

    def _on_shown(self, layer: Labels | None) -> None:
        if layer is not None:
            self.dock.export.labels.choose(layer.name)
            self._choose()

    @telling()
    def _look_at_training(self) -> None:
        """Notice that the other dock was opened, closed, or has learned something."""
        if self.controller.is_closed or not self.isVisible():
            return
        self.controller.look_for_models()
