"""The plugin's widget: the dock "Label and train" and all that moves behind it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from napari.layers import Image, Labels
from napari.utils.notifications import show_warning

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import settings
from napari_sparseseg.gui.class_table_model import MOST_KEYS
from napari_sparseseg.gui.controller import Controller
from napari_sparseseg.gui.dock import DockWidget
from napari_sparseseg.gui.dock_frame import PluginWidget, find_layer
from napari_sparseseg.gui.engine_link import EngineLink
from napari_sparseseg.gui.launch import BOXES_DOCK, PLUGIN
from napari_sparseseg.gui.load_ahead import load_ahead
from napari_sparseseg.gui.log import log_folder, start_log
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.pairs_widget import STEP_KEYS
from napari_sparseseg.gui.parts import once
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.prediction_widget import VISIBILITY_KEY
from napari_sparseseg.gui.restore_images import ask_with_dialog
from napari_sparseseg.gui.restore_question import BOXES, STROKES, offer
from napari_sparseseg.gui.session_folder import new_folder
from napari_sparseseg.gui.state import State

#: The dock is painted before what may wait is done.
AFTER_SEEN_MS = 200

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.components import ViewerModel

    from napari_sparseseg.gui.annotations import Pair


class LabelAndTrain(PluginWidget):
    """Label images with strokes and train on them, in one napari window.

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
        self.state = State()
        self.dock = DockWidget(self.state)
        self.link = EngineLink(log_folder() / "engine.log")
        self.controller = Controller(
            napari_viewer, self.state, self.link, new_mirror(napari_viewer)
        )
        self._asks = True
        self.fill(self.dock, self.controller)
        self._connect_dock()
        self._connect_layers()
        self._bind_keys()
        self._follow_layers()
        self._preferred = once(self, self._take_preferences)
        self._soon = once(self, self._settle)
        self._soon.start(AFTER_SEEN_MS)

    def _connect_dock(self) -> None:
        dock, controller = self.dock, self.controller
        wishes: list[tuple[Any, Callable[..., object]]] = [
            (dock.pairs.image_chosen, self._choose_image),
            (dock.pairs.labels_chosen, self._choose_labels),
            (dock.pairs.new_labels_pressed, self._new_labels),
            (dock.pairs.field_wished, controller.fields.start),
            (dock.pairs.field_cancelled, controller.fields.cancel),
            (controller.fields.made, self._work_on_field),
            (dock.pairs.pair_added, self._add_pair),
            (dock.pairs.pair_removed, controller.pairs.remove),
            (dock.pairs.pair_ticked, controller.pairs.tick),
            (dock.pairs.row_chosen, controller.list.go),
            (dock.pairs.step_wished, controller.list.step),
            (dock.pairs.kind_wished, controller.list.set_kind),
            (dock.pairs.files_wished, controller.list.add),
            (dock.pairs.reading_cancelled, controller.list.cancel),
            (controller.pairs.chosen, self._show_choice),
            (dock.place.place_named, controller.place.move),
            (dock.place.opening_wished, self._open_session),
            (dock.classes.added, controller.classes.add),
            (dock.classes.renamed, controller.classes.rename),
            (dock.classes.recoloured, controller.classes.recolour),
            (dock.classes.deleted, controller.classes.delete),
            (dock.classes.selected, controller.classes.select),
            (dock.training.settings_changed, controller.use_settings),
            (dock.training.weights_arrived, controller.look_for_weights),
            (dock.training.train_pressed, controller.train),
            (dock.training.pause_pressed, controller.pause),
            (dock.training.stop_pressed, controller.stop),
            (dock.prediction.live_chosen, controller.set_live),
            (dock.prediction.visibility_wished, controller.set_visible),
            (dock.prediction.opacity_wished, controller.set_opacity),
            (dock.prediction.confidence_wished, controller.set_confidence),
            (dock.model.save_wished, controller.save_model),
            (dock.model.load_wished, controller.load_model),
            (dock.model.export_wished, controller.export),
        ]
        for signal, slot in wishes:
            signal.connect(slot)
        self.state.events.devices.connect(self._offer_devices)

    def _offer_devices(self, devices: tuple[tuple[str, str], ...]) -> None:
        names, words = zip(*devices, strict=True)
        self.dock.training.form.set_devices(list(names), list(words))

    def _connect_layers(self) -> None:
        events = self._viewer.layers.events
        events.inserted.connect(self._follow_layers)
        events.removed.connect(self._on_removed)
        events.renamed.connect(self._on_renamed)

    def _on_preferences(self, _event: Any) -> None:
        # Later: now they may be half of the settings that the dock itself has changed.
        self._preferred.start(0)

    def _settle(self) -> None:
        """Do what may wait until the dock is seen.

        For its preferences napari reads the manifests of all plugins.
        """
        if self.controller.is_closed:
            return
        load_ahead()
        self._take_preferences()
        settings.follow(self._on_preferences)
        if self._asks:
            self._offer_restore()

    @telling()
    def _take_preferences(self) -> None:
        """Do as napari's preferences say."""
        wished = replace(self.state)
        settings.restore(wished)
        if wished.settings != self.state.settings:
            self.controller.use_settings(wished.settings)
        if wished.live != self.state.live:
            self.controller.set_live(wished.live)
        if wished.opacity != self.state.opacity:
            self.controller.set_opacity(wished.opacity)

    @telling()
    def _offer_restore(self) -> None:
        offer(self.dock, STROKES, {STROKES: self.open_again, BOXES: self._open_boxes})

    def _open_boxes(self, folder: Path) -> None:
        _, boxes = self._viewer.window.add_plugin_dock_widget(PLUGIN, BOXES_DOCK)
        boxes.open_again(folder)

    def open_again(self, folder: Path) -> None:
        """Open the strokes that a crash left behind, and ask for no others.

        Raises
        ------
        SparseSegError
            If they cannot be opened.
        """
        self._asks = False
        self.controller.place.open_again(folder, ask_with_dialog(self.dock))

    def _open_session(self, path: str) -> None:
        self.controller.place.open(path, ask_with_dialog(self.dock))

    def _bind_keys(self) -> None:
        # The keys stay when the dock is closed.
        remembered = ref(self.controller)

        for number in range(1, MOST_KEYS + 1):

            def pick(_viewer: Any, number: int = number) -> None:
                controller = remembered()
                values = () if controller is None else controller.state.classes.values
                if controller is not None and number <= len(values):
                    controller.classes.select(values[number - 1])

            self._viewer.bind_key(f"Alt-{number}", pick, overwrite=True)

        def toggle(_viewer: Any) -> None:
            controller = remembered()
            if controller is not None:
                controller.set_visible(not controller.state.visible)

        for key, by in STEP_KEYS.items():

            def step(_viewer: Any, by: int = by) -> None:
                controller = remembered()
                if controller is not None:
                    controller.list.step(by)

            self._viewer.bind_key(key, step, overwrite=True)

        self._viewer.bind_key(VISIBILITY_KEY.replace("+", "-"), toggle, overwrite=True)

    @telling()
    def _follow_layers(self, _event: Any = None) -> None:
        if self.controller.is_closed:
            return
        own = [layer for layer in self._viewer.layers if not is_prediction(layer)]
        self.dock.pairs.set_layers(
            [layer.name for layer in own if isinstance(layer, Image)],
            [layer.name for layer in own if isinstance(layer, Labels)],
        )
        self._choose()

    @telling()
    def _on_removed(self, event: Any) -> None:
        self.controller.on_layer_removed(event.value)
        self._follow_layers()

    @telling()
    def _on_renamed(self, _event: Any) -> None:
        self._follow_layers()
        self.controller.on_layer_renamed()

    @telling()
    def _choose_image(self, name: str) -> None:
        """Work on an image, with the labels that were painted on it if there are."""
        self._choose_pair([each for each in self._pairs if each.image.name == name])

    @telling()
    def _choose_labels(self, name: str) -> None:
        """Work on labels, with the image that they were painted on."""
        self._choose_pair([each for each in self._pairs if each.labels.name == name])

    @property
    def _pairs(self) -> list[Pair]:
        return self.controller.annotations.pairs

    def _choose_pair(self, pairs: list[Pair]) -> None:
        chosen = (self.dock.pairs.image, self.dock.pairs.labels_name)
        names = [(pair.image.name, pair.labels.name) for pair in pairs]
        if names and chosen not in names:
            self.dock.pairs.choose(*names[0])
        self._choose()

    def _choose(self) -> None:
        image = find_layer(self._viewer, self.dock.pairs.image, Image)
        labels = find_layer(self._viewer, self.dock.pairs.labels_name, Labels)
        if (image, labels) != (
            self.controller.pairs.image,
            self.controller.pairs.labels,
        ):
            self.controller.pairs.choose(image, labels)

    def _show_choice(self) -> None:
        pairs = self.controller.pairs
        if pairs.image is not None and pairs.labels is not None:
            self.dock.pairs.choose(pairs.image.name, pairs.labels.name)

    @telling()
    def _new_labels(self) -> None:
        layer = self.controller.pairs.new_labels()
        if layer is not None:
            self.dock.pairs.choose(self.dock.pairs.image, layer.name)
            self._choose()

    @telling()
    def _work_on_field(self, field: Image) -> None:
        """Look at a field that was cut out, since on its slide its edges are not seen.

        Strokes beyond them would be lost.
        """
        self.dock.pairs.choose(field.name, self.dock.pairs.labels_name)
        self._choose()
        self._new_labels()
        self.controller.list.look_at(field)

    @telling()
    def _add_pair(self, image_name: str, labels_name: str) -> None:
        image = find_layer(self._viewer, image_name, Image)
        labels = find_layer(self._viewer, labels_name, Labels)
        if image is not None and labels is not None:
            self.controller.pairs.add(image, labels)


def new_mirror(viewer: ViewerModel) -> Mirror:
    """Return a mirror where strokes are kept; where that cannot be, a temporary one.

    Parameters
    ----------
    viewer
        Of the window that has the strokes.

    Raises
    ------
    OutputError
        If temporary files cannot be written either.
    """
    try:
        return Mirror(new_folder(), window=id(viewer))
    except OutputError as error:
        try:
            place = Path(tempfile.mkdtemp(prefix="napari-sparseseg-"))
        except OSError:
            raise error from None
        mirror = Mirror(new_folder(place), window=id(viewer))
        show_warning(
            f"{str(error).rstrip('.')}; until napari is started again your strokes "
            f"are copied to {mirror.folder}, so save their layers."
        )
        return mirror
