"""Brings viewer, state and engine together; it and its two helpers change the state."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QObject

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import messages
from napari_sparseseg.errors import ModelFileError
from napari_sparseseg.gui import settings
from napari_sparseseg.gui.annotations import Annotations, Pair
from napari_sparseseg.gui.class_control import ClassControl
from napari_sparseseg.gui.encoders import (
    RANDOM,
    consistent,
    encoders_of,
    why_missing,
)
from napari_sparseseg.gui.engine_news import EngineNews
from napari_sparseseg.gui.fields import slide_of
from napari_sparseseg.gui.fields_control import FieldsControl
from napari_sparseseg.gui.image_list import ImageList
from napari_sparseseg.gui.kept_images import KeptImages
from napari_sparseseg.gui.kept_list import KeptList
from napari_sparseseg.gui.kept_training import KeptTraining
from napari_sparseseg.gui.label_places import export_placed
from napari_sparseseg.gui.list_control import ListControl
from napari_sparseseg.gui.live_prediction import LivePrediction
from napari_sparseseg.gui.log import log_file
from napari_sparseseg.gui.network_words import words_on
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.painted_classes import values_in
from napari_sparseseg.gui.pair_control import PairControl
from napari_sparseseg.gui.pixel_watch import PixelWatch
from napari_sparseseg.gui.place_control import PlaceControl
from napari_sparseseg.gui.plane_files import PlaneFiles
from napari_sparseseg.gui.planes import placement, um_per_px
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.prediction_target import PredictionTargets
from napari_sparseseg.gui.seen_targets import SeenTargets
from napari_sparseseg.gui.sent_images import SentImages
from napari_sparseseg.gui.state import STARTING
from napari_sparseseg.gui.training_run import TrainingRun

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sparseseg.engine.messages import TrainingSettings
    from napari_sparseseg.gui.engine_link import EngineLink
    from napari_sparseseg.gui.mirror import Mirror
    from napari_sparseseg.gui.session_training import TrainingRecord
    from napari_sparseseg.gui.state import Live, State

logger = logging.getLogger(__name__)

#: What torch says when a GPU has failed; nothing works then but another process.
DEVICE_LOST = re.compile("CUDA error|CUDNN_STATUS|CUBLAS_STATUS|HIP error")

#: In the session folder: the state of the training.
CHECKPOINT = "training.safetensors"


class Controller(QObject):
    """Does what the user wishes and shows what the engine tells.

    Parameters
    ----------
    viewer
        The napari viewer.
    state
        What the dock shows.
    link
        To the engine, which is started here.
    mirror
        Keeps strokes on disk.

    Attributes
    ----------
    images
        The list of the training.
    classes, pairs, list, fields, place
        What the user wishes of these, and of where strokes are kept.
    is_closed
        Whether the dock is gone, and nothing is done any more.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        state: State,
        link: EngineLink,
        mirror: Mirror,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.state = state
        self._viewer = viewer
        self._link = link
        self._mirror = mirror
        self.is_closed = False
        self._files = PlaneFiles()
        self._loaded = ""
        self._loaded_um: float | None = None
        self._pixels = PixelWatch(self)
        self.annotations = Annotations(viewer, mirror, self)
        self._sent = SentImages(self.annotations, self._files, link.send)
        self._run = TrainingRun(state, link.send, mirror.first_folder / CHECKPOINT)
        self.targets = PredictionTargets(viewer, self._files, state)
        self.classes = ClassControl(
            state, self.annotations, mirror, self._run, link.send, self
        )
        self.images = ImageList(self.annotations)
        self.classes.files_with = self.images.names_with
        self.pairs = PairControl(
            viewer,
            state,
            self.annotations,
            self.images,
            self.classes,
            self._sent,
            self._run,
            self._pixels,
            self,
        )
        self.prediction = LivePrediction(
            state,
            link.send,
            SeenTargets(
                viewer, self.annotations, self.pairs, self.targets, self._um_per_px
            ),
            self,
        )
        self.list = ListControl(
            viewer,
            state,
            self.annotations,
            self.images,
            self.pairs,
            self.classes,
            self._sent,
            self.targets,
            self,
        )
        self._kept_list = KeptList(state, self.images, lambda: mirror.folder, self)
        self.fields = FieldsControl(viewer, state, self.pairs, self._um_per_px, self)
        self._kept_images = KeptImages(lambda: mirror.folder, self)
        self._kept_training = KeptTraining(state, lambda: mirror.folder, self)
        self.place = PlaceControl(
            viewer,
            state,
            self.annotations,
            self.classes,
            self.pairs,
            mirror,
            (self._kept_images, self._kept_training, self._kept_list),
            self._on_moved_files,
            self._take_over,
            self.list.take_over,
        )
        self._news = EngineNews(state, self.prediction)
        self.list.changed.connect(self._on_counted)
        self.annotations.painted.connect(self._on_painted)
        self.annotations.counted.connect(self._on_counted)
        self.classes.changed.connect(self._on_classes_changed)
        self.pairs.changed.connect(self._on_counted)
        self.pairs.changed.connect(self._keep_images)
        self.pairs.chosen.connect(self.prediction.ask_soon)
        self.annotations.failed.connect(show_warning)
        self._pixels.replaced.connect(self._on_replaced)
        self._pixels.settled.connect(self._on_settled)
        link.told.connect(self._on_told)
        link.died.connect(self._on_died)
        link.slow.connect(self._on_slow)
        viewer.dims.events.point.connect(self._on_moved)
        # Since napari 0.9 the camera belongs to the scene.
        getattr(viewer, "scene", viewer).camera.events.connect(self._on_moved)
        viewer.layers.events.inserted.connect(self._on_inserted)
        for layer in viewer.layers:
            self._follow_eye(layer)
        self._on_classes_changed()
        link.start()

    # Layers.

    @telling()
    def on_layer_removed(self, layer: Any) -> None:
        """Forget a layer that the user has deleted."""
        if self.is_closed:
            return
        self.pairs.forget(layer)
        self.fields.forget(layer)
        if isinstance(layer, Labels) and not is_prediction(layer):
            self.annotations.forget(layer)
        if isinstance(layer, Image):
            self.prediction.forget_image(layer)
            self.targets.forget(layer)
            self._files.forget(layer)

    @telling()
    def on_layer_renamed(self) -> None:
        """Show the names of now."""
        self._on_counted()

    # Training.

    @telling()
    def use_settings(self, wished: TrainingSettings) -> None:
        """Take settings for the next training."""
        self.state.settings = consistent(
            wished, self.state.settings, self.state.devices
        )
        settings.keep(self.state)
        self._on_counted()

    @telling()
    def look_for_weights(self) -> None:
        """Train with weights that were missing."""
        self._on_counted()

    @telling()
    def train(self) -> None:
        """Start a training, or go on with one that is paused or was stopped."""
        if self.state.phase == "paused":
            self._link.send(messages.Continue())
        if self.state.phase != "idle":
            return
        self.annotations.look_through()
        if not self._can_learn():
            told = [pair.refused for pair in self.annotations.pairs]
            if self.state.cannot_train not in told:
                show_warning(self.state.cannot_train)
            return
        images = self.pairs.learned_images
        why_anew = self._run.why_anew(images)
        if why_anew:
            show_info(f"{why_anew} than in the last training, so this starts anew.")
        if self._loaded:
            self._loaded = ""
            self.targets.use_classes(self.state.classes)
            self.prediction.forget_model()
        if not self._run.can_go_on(images):
            self.images.take_scores({})
            self._show_list()
        self._run.begin(images)

    @telling()
    def pause(self) -> None:
        """Do not learn for a while."""
        self._link.send(messages.Pause())

    @telling()
    def stop(self) -> None:
        """End the training; what it has learned predicts on."""
        self._run.stop()

    # Prediction.

    @telling()
    def set_live(self, mode: Live) -> None:
        """Predict never, once and now, or whenever something changes."""
        self.state.live = mode
        settings.keep(self.state)
        if mode == "off":
            self.prediction.cancel()
            return
        self.prediction.ask()

    @telling()
    def set_visible(self, visible: bool) -> None:
        """Show or hide the prediction."""
        self.state.visible = visible
        self.targets.show_or_hide()
        self.prediction.view_changed()

    @telling()
    def set_opacity(self, opacity: float) -> None:
        """Let the prediction cover the image more or less."""
        self.state.opacity = opacity
        settings.keep(self.state)
        self.targets.show_or_hide()

    @telling()
    def set_confidence(self, wanted: bool) -> None:
        """Keep a confidence layer, or none."""
        self.state.confidence = wanted
        if not wanted:
            self.targets.drop_confidence()
            return
        self.prediction.ask()

    # Files.

    @telling()
    def save_model(self, path: str) -> None:
        """Write the best model so far."""
        self._link.send(messages.SaveModel(path=path))

    @telling()
    def load_model(self, path: str) -> None:
        """Predict with the model of a file."""
        self._link.send(messages.LoadModel(path=path))

    @telling()
    def export(self, path: str) -> None:
        """Write the predicted labels of the chosen image; say what they lack."""
        image = self.pairs.image
        labels = self.targets.labels_of(image)
        about = (
            placement(image, self.targets.level_of(image)) if image is not None else {}
        )
        export = export_placed(
            labels, path, self.targets.classes, about, image, of_model=True
        )
        names = " and ".join(str(path) for path in export.paths)
        gaps = self.targets.gaps_of(self.pairs.image)
        told = " ".join(filter(None, (f"Written: {names}.", export.note, gaps)))
        (show_warning if gaps else show_info)(told)

    def close(self) -> None:
        """End the engine; strokes stay on disk until they are no longer needed."""
        if self.is_closed:
            return
        self.is_closed = True
        with telling():
            self._kept_list.close()
            self.list.close()
            self.fields.close()
        with telling():
            self.annotations.close()
        with telling():
            self.prediction.forget_model()
            self._link.stop()
        # Not before the engine has ended, which leaves one.
        with contextlib.suppress(OSError):
            self._run.checkpoint.unlink(missing_ok=True)
        with telling():
            self._kept_images.close()
            self._kept_training.close()
        with telling():
            self._mirror.close()
        with telling():
            self._files.close()

    # What the engine tells.

    @telling()
    def _on_told(self, event: Any) -> None:
        if self.is_closed:
            return
        if isinstance(event, messages.Ready):
            self._on_ready(event)
        elif isinstance(event, messages.ModelLoaded):
            self._on_model_loaded(event)
        elif not (isinstance(event, messages.Failed) and self._mends(event)):
            self._news.take(event)
        if isinstance(event, messages.Validated):
            self._run.succeeds()
            self.images.take_scores(event.images)
            self._show_list()
        if isinstance(event, messages.Predicted):
            self._run.predicts()

    def _on_ready(self, event: messages.Ready) -> None:
        self.state.engine = "ready"
        self.state.device = event.device_names[0]
        self.state.devices = tuple(zip(event.devices, event.device_names, strict=True))
        self.classes.send()
        self._say("Ready.")
        self._on_counted()
        if self._run.is_interrupted():
            if self._can_learn():
                self._run.start(resume=True)
        elif not self._run.may_be_brought_back:
            return
        elif self._loaded:
            self.load_model(self._loaded)
        elif self._run.can_go_on(self.pairs.learned_images) and self._can_learn():
            # For its model, which predicts and can be saved.
            self._run.start(resume=True)
            self._run.stop()

    @telling()
    def _on_slow(self, sentence: str) -> None:
        if not self.is_closed:
            self.state.starting = sentence
            self._on_counted()

    @telling()
    def _on_died(self, sentence: str, restarting: bool) -> None:
        logger.error(sentence)
        self.state.engine = "starting" if restarting else "broken"
        self.state.starting = STARTING
        told = f"{sentence} {self._run.ends_with_engine()}".rstrip()
        self._sent.forget()
        self.prediction.forget_model()
        self._say(told)
        show_error(told)
        self._on_counted()

    def _on_model_loaded(self, event: messages.ModelLoaded) -> None:
        classes = ClassTable.from_json(event.classes)
        if not self.state.counts:
            self.classes.use(classes)
        self._loaded = event.path
        self._loaded_um = event.um_per_px
        self.state.unsaved = False
        self.targets.use_classes(classes)
        self.state.shown = event.shown
        self.state.reason = f"The model {Path(event.path).name} predicts"
        self.state.model = words_on(
            event.network,
            event.training.get("encoder_weights", RANDOM),
            is_frozen=event.training.get("freeze_encoder", False),
        )
        self._say(f"Loaded {Path(event.path).name}: {', '.join(classes.names)}.")
        self.prediction.model_changed()

    def _mends(self, event: messages.Failed) -> bool:
        """Do something about what has failed, where something can be done."""
        misfits = event.request == "start" and event.error == ModelFileError.__name__
        if misfits and self._run.was_not_taken_up():
            show_info(
                "What was learned before does not fit the images and classes of now, "
                "so the training starts anew."
            )
            self._run.start(resume=False)
            return True
        if event.request == "predict" and self._has_misfit():
            # The user knows already why the image does not fit the model.
            self.prediction.fails(event.generation)
            return True
        if DEVICE_LOST.search(event.message):
            self._link.restart(
                f"The device that computes does not work any more ({event.message})"
            )
            return True
        if event.request == "use-classes":
            self.classes.note_refusal()
            # The user knows already that strokes do not reach the engine.
            return any(pair.unkept for pair in self.annotations.pairs)
        return False

    # What the user paints.

    @telling()
    def _on_painted(self, pair: Pair, changes: Any) -> None:
        self.classes.meet(values_in(changes))
        if pair.in_use and self.state.phase != "idle":
            self._sent.put(pair, [change.plane for change in changes])
            self.classes.send_again()
            return
        for change in changes if pair.in_use else ():
            # So that Train has not to wait for it.
            self._files.prepare(pair.image, change.plane, pair.level)

    @telling()
    def _on_classes_changed(self) -> None:
        # A model that was loaded has classes of its own, whatever becomes of these.
        if not self._loaded:
            self.targets.use_classes(self.state.classes)
        self._on_counted()

    @telling()
    def _on_counted(self) -> None:
        for file in self.images.judge():
            self.pairs.put_or_take_out(file)
        counts = self.images.counts()
        self.state.counts = counts
        self._show_list()
        self.state.cannot_train = self._why_not_train(counts)
        self.pairs.put_changed_kinds()

    def _show_list(self) -> None:
        current = self.pairs.current
        self.state.pairs = self.images.rows(current)
        self.state.why_no_step = self.images.why_no_step(current, self.list.plane)

    def _why_not_train(self, counts: dict[int, tuple[int, int]]) -> str:
        entries = self.images.entries
        waiting = self.images.n_waiting
        if self.state.engine == "broken":
            return f"The part that computes has stopped; see {log_file()}."
        if self.state.engine == "starting":
            return self.state.starting
        if not entries:
            return "Open an image, then press New labels or, on a slide, New field."
        if waiting:
            n_files = len(self.images.files)
            return f"Reading labels, {n_files - waiting} of {n_files} …"
        if not any(each.in_use for each in entries):
            problems = [each.problem for each in entries if each.problem]
            return problems[0] if problems else "Tick an image to learn from."
        painted = [value for value in counts if value in self.state.classes.values]
        if len(painted) >= 2:
            return self._why_no_weights()
        if not painted:
            return "Paint strokes of at least two classes."
        name = self.state.classes.by_value(painted[0]).name
        return f"Only {name!r} is painted; paint strokes of another class, too."

    def _why_no_weights(self) -> str:
        if self._run.can_go_on(self.pairs.learned_images):
            return ""  # the checkpoint has them
        wished = self.state.settings
        reasons = [
            why_missing(encoder, wished.encoder_weights, "Advanced, Features")
            for encoder in encoders_of(wished, self.state.devices)
        ]
        return next(filter(None, reasons), "")

    @telling()
    def _keep_images(self) -> None:
        images = [pair.image for pair in self.annotations.pairs]
        slides = [slide_of(image, self._viewer.layers) for image in images]
        self._kept_images.follow(images)
        self._kept_images.follow(slide for slide in slides if slide is not None)

    def _take_over(self, training: TrainingRecord, with_settings: bool) -> None:
        """Go on as an opened session was trained."""
        ours = self.state.models
        theirs = tuple(model for model in training.models if model not in ours)
        self.state.models = theirs + ours
        if not with_settings:
            return
        self.use_settings(training.settings)
        self.set_opacity(training.opacity)
        self.set_confidence(training.confidence)
        self.set_live(training.live)

    def _on_moved_files(self) -> None:
        # A request under way may name a file that is gone.
        if self.state.phase != "idle":
            self.pairs.put_all()

    @telling()
    def _on_moved(self, event: Any = None) -> None:
        self.prediction.view_changed()
        if event is not None and event.type == "point":
            current = self.pairs.current
            self.state.why_no_step = self.images.why_no_step(current, self.list.plane)

    @telling()
    def _on_inserted(self, event: Any) -> None:
        self._follow_eye(event.value)

    def _follow_eye(self, layer: Layer) -> None:
        if isinstance(layer, Image):
            layer.events.visible.connect(self._on_moved)

    @telling()
    def _on_replaced(self, image: Image) -> None:
        self.prediction.forget_image(image)
        self._files.forget(image)
        self.targets.take_new_pixels(image)

    @telling()
    def _on_settled(self, images: set[Image]) -> None:
        pairs = [pair for pair in self.annotations.pairs if pair.image in images]
        before = [pair for pair in pairs if pair.in_use]
        self.annotations.try_again(pairs)
        for pair in before:
            self.pairs.put(pair)
        self.prediction.ask_soon()

    # Helpers.

    def _can_learn(self) -> bool:
        """Send all that is to be learned from; tell whether that is enough."""
        self.pairs.put_all()
        return not self.state.cannot_train

    def _has_misfit(self) -> bool:
        pair = self.pairs.current
        return pair is not None and bool(pair.misfit)

    def _um_per_px(self) -> float | None:
        """Return the pixel size of what predicts, None where it is not known."""
        if self._loaded:
            return self._loaded_um
        pairs = [pair for pair in self.annotations.pairs if pair.in_use]
        sizes = [um_per_px(pair.image, pair.level) for pair in pairs]
        return next((size for size in sizes if size is not None), None)

    def _say(self, sentence: str) -> None:
        self.state.status = sentence
