"""Brings viewer, models and engine together; changes the state of its dock."""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.engine import messages
from napari_sparseseg.errors import LayerError, enumerated
from napari_sparseseg.gui import predict_settings
from napari_sparseseg.gui.activity import Activity
from napari_sparseseg.gui.boxes_classes import find_training
from napari_sparseseg.gui.controller import DEVICE_LOST
from napari_sparseseg.gui.label_export import export_layer, words_on_labels
from napari_sparseseg.gui.layer_keys import SOURCE_KEY
from napari_sparseseg.gui.log import log_file, without_words
from napari_sparseseg.gui.model_widget import words_on
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import counted, listen, once
from napari_sparseseg.gui.pixel_watch import PixelWatch
from napari_sparseseg.gui.plane_files import PlaneFiles
from napari_sparseseg.gui.planes import (
    LARGEST_SIDE,
    all_planes,
    level_shape,
    n_levels,
    plane_grid,
    shown_plane,
    um_per_px,
    visible_region,
)
from napari_sparseseg.gui.predict_run import PlanesJob, PredictRun
from napari_sparseseg.gui.predict_state import TRAINED, ModelChoice
from napari_sparseseg.gui.result_layer import ResultLayer
from napari_sparseseg.gui.state import STARTING
from napari_sparseseg.io.lazy_arrays import Channel
from napari_sparseseg.io.sources import open_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.engine.messages import Region
    from napari_sparseseg.gui.engine_link import EngineLink
    from napari_sparseseg.gui.label_export import Exported
    from napari_sparseseg.gui.predict_run import FilesJob
    from napari_sparseseg.gui.predict_state import PredictState, PredictWishes, What
    from napari_sparseseg.io.sources import LazyArray

logger = logging.getLogger(__name__)

#: Labels of a stack are taken into memory up to this size, in bytes; others are read
#: when they are seen.
IN_MEMORY = 2**29

#: A level that is finer than the model's images by no more than this is fine enough.
SAME_SIZE = 1.05

NO_IMAGE = "Open an image first."
OPENING = "Predicted; opening the result …"
RUNNING = "A prediction runs; cancel it first."
UNTRAINED = (
    "Nothing is trained yet in the dock Label and train; train, or choose a file."
)
CLOSED = "Open the dock Label and train and train there, or choose a file."


class PredictController(QObject):
    """Does what the user wishes and shows what the engine tells.

    Parameters
    ----------
    viewer
        The napari viewer.
    state
        What the dock shows.
    link
        To the engine, which is started here.

    Attributes
    ----------
    image, labels
        What is predicted, and what is exported.
    is_closed
        Whether the dock is gone, and nothing is done any more.

    Signals
    -------
    shown(layer)
        A result is shown in this layer.
    """

    shown = Signal(object)

    _done_in_thread = Signal(object, object)

    def __init__(
        self,
        viewer: ViewerModel,
        state: PredictState,
        link: EngineLink,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.image: Image | None = None
        self.labels: Labels | None = None
        self.is_closed = False
        self._viewer = viewer
        self._state = state
        self._link = link
        self._files = PlaneFiles()
        self._pixels = PixelWatch(self)
        self._results: list[ResultLayer] = []
        self._replaced: WeakSet[Image] = WeakSet()
        self._opened: tuple[str, ...] = ()
        self._target: ResultLayer | None = None
        self._failures: list[str] = []
        self._failed: list[str] = []
        self._written = 0
        self._skipped = 0
        self._is_given_up = False
        self._is_opening = False
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._run = PredictRun(viewer, state, link, self._files, self)
        self._activity = Activity("Prediction")
        self._writing = Activity("Export")
        self._telling = once(self, self._show_progress, 0)
        listen(self, state.events.progress, self._on_progress)
        self._run.file_done.connect(self._on_file_done)
        self._run.ended.connect(self._on_ended)
        self._done_in_thread.connect(self._on_done_in_thread)
        self._pixels.replaced.connect(self._on_pixels)
        link.told.connect(self._on_told)
        link.died.connect(self._on_died)
        link.slow.connect(self._on_slow)
        if state.wishes.model != TRAINED:
            self._opened = (state.wishes.model,)
        self.look_for_models()
        link.start()

    # What the user wishes.

    @telling()
    def choose(self, image: Image | None, labels: Labels | None) -> None:
        """Predict this image, export these labels."""
        if image is not self.image and image is not None:
            self._pixels.watch(image)
        self.image, self.labels = image, labels
        self._judge()

    @telling()
    def use_wishes(self, wished: PredictWishes) -> None:
        """Predict in this way from now on."""
        if wished.model not in (TRAINED, *self._opened):
            self._opened = (*self._opened, wished.model)
        self._state.wishes = wished
        predict_settings.keep(self._state)
        self.look_for_models()

    @telling()
    def look_for_models(self) -> None:
        """Offer the models that there are now."""
        if self.is_closed:
            return
        training = find_training(self._viewer)
        saved = () if training is None else training.state.models
        why_not = CLOSED
        if training is not None:
            state = training.state
            learned = state.unsaved or state.step > 0 or bool(state.model)
            why_not = "" if learned else UNTRAINED
        choices = [ModelChoice(TRAINED, "As trained now in Label and train", why_not)]
        choices += [ModelChoice(each.path, words_on(each)) for each in reversed(saved)]
        known = {each.path for each in choices}
        choices += [
            ModelChoice(path, Path(path).name)
            for path in self._opened
            if path not in known
        ]
        self._state.models = tuple(choices)
        self._judge()

    @telling()
    def predict(self) -> None:
        """Predict what is wished for."""
        self.look_for_models()
        if self._state.cannot_predict or self._run.is_busy:
            return
        self._failures, self._failed = [], []
        self._written = self._skipped = 0
        self._is_given_up = False
        self._run.start(self._job(), self._state.wishes)
        self._state.status = "Predicting …"
        self._judge()

    @telling()
    def cancel(self) -> None:
        """Give up what runs."""
        if self._run.is_busy:
            self._is_given_up = True
            self._state.status = "Cancelling …"
        self._run.cancel()

    @telling()
    def export(self, path: str) -> None:
        """Write the chosen labels in the format of the suffix; say what they lack."""
        layer = self.labels
        if layer is None or self._state.exporting:
            return
        store = next(
            (each.store for each in self._results if each.layer is layer), None
        )
        work = export_layer(layer, path, self._state.wishes.simplify_px, store)
        self._state.exporting = True
        self._state.status = f"Writing {Path(path).name} …"
        self._writing.show(0.5)
        self._do(work, self._on_exported, self._on_export_ended)
        self._judge()

    def forget(self, layer: Any) -> None:
        """Forget a layer that the user has deleted."""
        if self.is_closed or not isinstance(layer, Image):
            return
        if self._target is not None and self._target.image is layer:
            self._run.cancel()
        self._files.forget(layer)
        for result in [each for each in self._results if each.image is layer]:
            self._results.remove(result)
            result.remove()

    def close(self) -> None:
        """End the engine; the results stay as layers."""
        if self.is_closed:
            return
        self.is_closed = True
        with telling():
            self._activity.show(None)
            self._writing.show(None)
            self._link.stop()
        with telling():
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._run.close(any(result.is_lazy for result in self._results))
            self._files.close()

    # Jobs.

    def _job(self) -> PlanesJob | FilesJob:
        wishes, image = self._state.wishes, self.image
        self._target = None
        if wishes.what == "folder":
            return messages.FolderJob(
                images=wishes.images, out=wishes.out, suffix=wishes.suffix
            )
        assert image is not None
        result = self._target = self._result_of(image)
        if self._goes_by_file(wishes):
            source = image.metadata[SOURCE_KEY]
            key = hashlib.blake2b(
                repr((source["path"], source["series"])).encode(), digest_size=8
            ).hexdigest()
            has_size = source["geometry"].unit != "px"
            return messages.FileJob(
                image=source["path"],
                out=str(self._run.folder() / f"{key}.ome.zarr"),
                series=source["series"],
                um_per_px=None if has_size else um_per_px(image),
            )
        if wishes.what == "view" and visible_region(image) is None:
            raise LayerError(
                f"Nothing of '{image.name}' is in view; move it onto the canvas.",
                layer=image.name,
            )
        plane = shown_plane(self._viewer, image)
        planes = all_planes(image) if wishes.what == "stack" else [plane]
        seen: dict[int, Region | None] = {}

        def region(level: int) -> Region | None:
            if wishes.what != "view":
                return None
            if level not in seen:
                height, width = level_shape(image, level)[-2:]
                seen[level] = visible_region(image, (height, width))
            return seen[level]

        return PlanesJob(
            result,
            [each for each in planes if each is not None],
            partial(level_for, image),
            region,
        )

    def _goes_by_file(self, wishes: PredictWishes) -> bool:
        if wishes.what == "slide":
            return True
        is_stack = wishes.what == "stack" and self._has_file(self.image)
        return is_stack and wishes.shown_sureness is None

    def _result_of(self, image: Image) -> ResultLayer:
        for result in self._results:
            if result.image is image:
                return result
        result = ResultLayer(self._viewer.layers, image)
        self._results.append(result)
        return result

    # What the engine tells.

    @telling()
    def _on_told(self, event: Any) -> None:
        if self.is_closed:
            return
        if isinstance(event, messages.Ready):
            self._state.engine = "ready"
            self._judge()
        if isinstance(event, messages.Failed):
            self._note_failure(event)
        self._run.take(event)

    def _note_failure(self, event: messages.Failed) -> None:
        if event.details:
            logger.error("%s failed\n%s", event.request, without_words(event.details))
        if DEVICE_LOST.search(event.message):
            self._link.restart(
                f"The device that computes does not work any more ({event.message})"
            )

    @telling()
    def _on_slow(self, sentence: str) -> None:
        if not self.is_closed:
            self._state.starting = sentence
            self._judge()

    @telling()
    def _on_died(self, sentence: str, restarting: bool) -> None:
        self._state.engine = "starting" if restarting else "broken"
        self._state.starting = STARTING
        if not self._run.note_death(sentence):
            logger.error(sentence)
            if not self._state.status.startswith(sentence):
                show_error(sentence)
                self._state.status = sentence
        self._judge()

    @telling()
    def _on_file_done(self, event: messages.FileDone) -> None:
        one = self._target
        if event.failure:
            name = f"'{event.name}': " if one is None else ""
            self._failures.append(f"{name}{event.failure}")
            self._failed.append(event.name)
            return
        self._written += 1
        if one is not None:
            if event.notes:
                show_info(" ".join(sentence(note) for note in event.notes))
            assert self._run.model is not None
            self._is_opening = True
            self._do(
                partial(levels_of, Path(event.paths[0])),
                partial(self._show_levels, one, self._run.model.classes),
                self._on_opened,
            )
            return
        if any("was there already" in note for note in event.notes):
            self._skipped += 1

    def _on_opened(self) -> None:
        self._is_opening = False

    def _show_levels(
        self,
        result: ResultLayer,
        classes: ClassTable,
        found: tuple[Path, list[LazyArray]],
    ) -> None:
        if result in self._results:
            store, levels = found
            result.show_levels(levels, classes, store)
            self.shown.emit(result.layer)
            self._state.status = words_on_result(result)
            self._judge()

    @telling()
    def _on_ended(self, failure: str) -> None:
        one, failures = self._target, [*self._failures, *filter(None, (failure,))]
        if self._is_given_up:
            self._state.status = "Cancelled; what was predicted stays."
        elif one is not None:
            there = OPENING if self._is_opening else words_on_result(one)
            self._state.status = sentence(failures[0]) if failures else there
            if one.layer is not None:
                self.shown.emit(one.layer)
        elif self._written or not failure:
            skipped = f", {self._skipped} of them before" if self._skipped else ""
            n = self._written + len(self._failures)
            self._state.status = f"{self._written} of {counted(n, 'image')} predicted"
            self._state.status += f"{skipped}, in {self._state.wishes.out}."
            show_info(self._state.status)
            if self._failed:
                self._state.status += f" Not predicted: {enumerated(self._failed, 3)}."
        if failures:
            more = f" {len(failures) - 3} more failed." if len(failures) > 3 else ""
            show_error(" ".join(map(sentence, failures[:3])) + more)
        self._judge()

    @telling()
    def _on_pixels(self, image: Image) -> None:
        """Forget files that have other pixels than those of now."""
        self._files.forget(image)
        self._replaced.add(image)
        self._judge()

    # Threads.

    def _do(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], object],
        at_end: Callable[[], object] = lambda: None,
    ) -> None:
        """Do something in a thread; go on here when it ends, and with its result."""

        def go_on(future: Future[Any]) -> None:
            at_end()
            try:
                result = future.result()
            except Exception:
                self._state.status = ""
                raise
            then(result)

        future = self._thread.submit(work)
        future.add_done_callback(partial(self._done_in_thread.emit, go_on))

    @telling()
    def _on_done_in_thread(
        self, go_on: Callable[[Future[Any]], object], future: Future[Any]
    ) -> None:
        if not self.is_closed and not future.cancelled():
            go_on(future)

    def _on_export_ended(self) -> None:
        self._state.exporting = False
        self._writing.show(None)
        self._judge()

    def _on_exported(self, done: Exported) -> None:
        names = " and ".join(str(path) for path in done.export.paths)
        told = " ".join(
            filter(None, (f"Written: {names}.", done.export.note, done.gaps))
        )
        self._state.status = f"Written: {done.export.paths[0].name}."
        (show_warning if done.gaps else show_info)(told)

    # What can be done.

    def _judge(self) -> None:
        if self.is_closed:
            return
        self._state.refused = self._refusals()
        self._state.cannot_predict = self._why_not_predict()
        self._state.cannot_export = self._why_not_export()
        labels = self.labels
        self._state.to_export = "" if labels is None else words_on_labels(labels)

    def _refusals(self) -> dict[What, str]:
        image = self.image
        if image is None:
            return dict.fromkeys(("view", "plane", "stack", "slide"), NO_IMAGE)
        refused: dict[What, str] = {}
        is_flat = not plane_grid(image)
        if is_flat:
            refused["stack"] = f"'{image.name}' has one plane; predict this plane."
        if not is_flat:
            refused["slide"] = f"'{image.name}' is a stack; predict the whole stack."
        elif not self._has_file(image):
            refused["slide"] = (
                f"'{image.name}' was not opened from a file with File > Open; predict "
                "this plane."
            )
        return refused

    def _why_not_predict(self) -> str:
        state, wishes = self._state, self._state.wishes
        if state.engine == "broken":
            return f"The part that computes has stopped; see {log_file()}."
        if state.engine == "starting":
            return state.starting
        if self._run.is_busy:
            return RUNNING
        model = next((m for m in state.models if m.path == wishes.model), None)
        if model is None or model.why_not:
            return UNTRAINED if model is None else model.why_not
        if wishes.what == "folder":
            if not wishes.images:
                return "Choose the folder of the images."
            return "" if wishes.out else "Choose the folder for the results."
        if wishes.what in state.refused:
            return state.refused[wishes.what]
        image = self.image
        assert image is not None
        if wishes.what in ("view", "plane"):
            if shown_plane(self._viewer, image) is None:
                return "Go back to 2D, to a plane of the image."
        elif (
            wishes.what == "stack"
            and wishes.smooth_planes
            and not self._has_file(image)
        ):
            return (
                "Only stacks opened from a file with File > Open are smoothed across "
                "planes; set the smoothing to none."
            )
        return ""

    def _why_not_export(self) -> str:
        if self._state.exporting:
            return "A file is being written."
        return "" if self.labels is not None else "There are no labels to export."

    def _has_file(self, image: Image | None) -> bool:
        """Tell whether the file of an image has the very pixels of its layer."""
        if image is None or SOURCE_KEY not in image.metadata:
            return False
        data = image.data[0] if image.multiscale else image.data
        path = Path(image.metadata[SOURCE_KEY]["path"])
        is_whole = not isinstance(data, Channel) and image not in self._replaced
        return is_whole and path.exists()

    # Progress.

    def _on_progress(self) -> None:
        # Later, since napari draws the whole window for it.
        if not self.is_closed:
            self._telling.start()

    @telling()
    def _show_progress(self) -> None:
        if not self.is_closed:
            self._activity.show(self._state.progress)


def level_for(image: Image, trained_um: float | None) -> int:
    """Return the level of an image that suits a model.

    The coarsest that is no coarser than the images that the model learned from, but
    none that is too large to be shown as it is.
    """
    levels = range(n_levels(image))
    drawable = [k for k in levels if max(level_shape(image, k)[-2:]) <= LARGEST_SIDE]
    finest = drawable[0] if drawable else n_levels(image) - 1
    if trained_um is None:
        return finest
    sizes = {k: um_per_px(image, k) for k in levels}
    fitting = [
        k
        for k, size in sizes.items()
        if size is not None
        and size <= trained_um * SAME_SIZE
        and plane_grid(image, k) == plane_grid(image)
    ]
    return max(finest, max(fitting, default=0))


def levels_of(store: Path) -> tuple[Path, list[LazyArray]]:
    """Return a store and its levels; where they are small, the finest in memory."""
    levels = list(open_image(store).levels)
    finest = levels[0]
    n_bytes = int(np.prod(finest.shape)) * finest.dtype.itemsize
    if finest.ndim == 3 and n_bytes <= IN_MEMORY:
        return store, [np.asarray(finest[...])]
    return store, levels


def words_on_result(result: ResultLayer) -> str:
    """Say that a result is there, and where what was seen before has gone."""
    if not result.covers_live:
        return "Predicted."
    return (
        "Predicted. The live prediction is hidden beneath; its eye in the list of "
        "layers shows it again."
    )


def sentence(text: str) -> str:
    """Begin a sentence with a capital and end it with a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
