"""Predictions are asked of the engine, plane by plane or from file to file."""

from __future__ import annotations

import atexit
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Qt, Signal

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import messages
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.boxes_classes import find_training
from napari_sparseseg.gui.log import log_file
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import once
from napari_sparseseg.gui.plane_files import PREFIX, cut
from napari_sparseseg.gui.planes import level_shape, um_per_px
from napari_sparseseg.gui.predict_state import TRAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.components import ViewerModel

    from napari_sparseseg.engine.messages import Region
    from napari_sparseseg.gui.engine_link import EngineLink
    from napari_sparseseg.gui.plane_files import PlaneFiles
    from napari_sparseseg.gui.planes import PlaneKey
    from napari_sparseseg.gui.predict_state import PredictState, PredictWishes
    from napari_sparseseg.gui.result_layer import ResultLayer

#: An engine that goes on predicting for so long after Cancel is started anew. What is
#: finished is on disk. It mostly ends sooner by itself, between two layers, and is then
#: there for the next prediction at once.
CANCEL_MS = 2000


@dataclass(frozen=True)
class LoadedModel:
    """What predicts.

    Attributes
    ----------
    key
        Tells it from other models.
    classes
        That it predicts.
    um_per_px
        Pixel size of the images it learned from, None where that is not known.
    """

    key: str
    classes: ClassTable
    um_per_px: float | None


@dataclass(frozen=True, eq=False)
class PlanesJob:
    """Planes of a layer, predicted into its result.

    Attributes
    ----------
    result
        Takes the labels.
    planes
        Of the image of the result, in order.
    level
        Gives the level of the image for the pixel size of the model.
    region
        Gives what is predicted of each plane, in pixels of a level; None: all of it.
    """

    result: ResultLayer
    planes: Sequence[PlaneKey]
    level: Callable[[float | None], int]
    region: Callable[[int], Region | None]


FilesJob = messages.FileJob | messages.FolderJob


class PredictRun(QObject):
    """Does one job at a time.

    Parameters
    ----------
    viewer
        In whose window the training is looked for.
    state
        Told of the progress.
    link
        To the engine.
    files
        Through which planes go.

    Attributes
    ----------
    model
        What predicts, or did so last.

    Signals
    -------
    file_done(FileDone)
        An image in a file is predicted, or cannot be.
    ended(failure)
        Nothing runs any more; says why that is not as it should be, empty where it is.
    """

    file_done = Signal(object)
    ended = Signal(str)

    _pixels_ready = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        state: PredictState,
        link: EngineLink,
        files: PlaneFiles,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.model: LoadedModel | None = None
        self._viewer = viewer
        self._state = state
        self._link = link
        self._files = files
        self._folder: Path | None = None
        self._numbers = itertools.count(1)
        self._generation = 0
        self._job: PlanesJob | FilesJob | None = None
        self._wishes: PredictWishes | None = None
        self._copy: Path | None = None
        self._trainer: EngineLink | None = None
        self._asked_for: Path | None = None
        self._source: Any = None
        self._awaited = ""
        self._todo: list[PlaneKey] = []
        self._level = 0
        self._began = 0.0
        self._cancelling = once(self, self._force_end, CANCEL_MS)
        self._pixels_ready.connect(self._ask_next, Qt.ConnectionType.QueuedConnection)

    @property
    def is_busy(self) -> bool:
        """Whether something runs, or is being cancelled."""
        return self._job is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether what runs is being given up."""
        return self._cancelling.isActive() or self._awaited == "end"

    def folder(self) -> Path:
        """Return the folder of all that is kept until the dock is closed.

        Raises
        ------
        OutputError
            If it cannot be made.
        """
        if self._folder is None or not self._folder.is_dir():
            try:
                self._folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            except OSError as error:
                raise OutputError(
                    f"no temporary folder can be made ({error.strerror}); free some "
                    "space, or set TMPDIR to a folder that can be written."
                ) from error
        return self._folder

    def start(self, job: PlanesJob | FilesJob, wishes: PredictWishes) -> None:
        """Begin with a job.

        Raises
        ------
        OutputError
            If there is no place for the model.
        """
        self._wishes = wishes
        if wishes.model == TRAINED:
            self._copy_model()
        else:
            self._load(Path(wishes.model))
        self._job = job
        self._began = time.perf_counter()
        self._state.progress = 0.0
        self._state.speed = ""

    def cancel(self) -> None:
        """Give up what runs; what is there stays."""
        if self._job is None or self.is_cancelled:
            return
        if isinstance(self._job, PlanesJob) or self._awaited:
            self._link.send(messages.CancelPrediction())
            self._end("")
            return
        self._link.send(messages.CancelFiles())
        self._state.speed = ""
        self._state.cancelling = True
        self._cancelling.start()

    def note_death(self, sentence: str) -> bool:
        """Note that the engine is gone; tell whether that was wished for."""
        self._source = None
        wished = self.is_cancelled
        self._end("" if wished else sentence)
        return wished

    def close(self, is_shown: bool) -> None:
        """Remove what was kept; where something of it is shown, when napari ends."""
        self._job = None
        self._cancelling.stop()
        if self._folder is not None:
            remove = partial(shutil.rmtree, self._folder, ignore_errors=True)
            if is_shown:
                atexit.register(remove)
            else:
                remove()

    # The model.

    def _copy_model(self) -> None:
        training = find_training(self._viewer)
        if training is None:
            raise OutputError(
                "the dock Label and train is closed; open it and train, or choose the "
                "file of a model."
            )
        self._copy = self.folder() / f"model-{next(self._numbers)}.safetensors"
        self._awaited = "copy"
        if training.link is not self._trainer:
            self._trainer = training.link
            self._trainer.told.connect(self._on_training_told)
            self._trainer.died.connect(self._on_training_died)
        training.link.send(messages.CopyModel(path=str(self._copy)))

    @telling()
    def _on_training_told(self, event: Any) -> None:
        if self._awaited != "copy":
            return
        if isinstance(event, messages.ModelCopied) and event.path == str(self._copy):
            self._load(Path(event.path))
        elif isinstance(event, messages.Failed) and event.request == "copy-model":
            # The other dock tells it.
            self._end("")
            self._state.status = event.message

    @telling()
    def _on_training_died(self, _sentence: str, _restarting: bool) -> None:
        if self._awaited == "copy":
            self._end(
                "the engine of Label and train has ended, and with it what was learned "
                "since the last save; press Predict again once it stands, or choose a "
                "saved model"
            )

    def _load(self, path: Path) -> None:
        self._awaited = "load"
        self._asked_for = path
        self._link.send(messages.LoadModel(path=str(path)))

    def _on_loaded(self, event: messages.ModelLoaded) -> None:
        try:
            self._begin(event)
        except BaseException:
            self._end("")
            raise

    def _begin(self, event: messages.ModelLoaded) -> None:
        path = Path(event.path)
        self.model = LoadedModel(
            hashlib.blake2b(path.read_bytes()).hexdigest(),
            ClassTable.from_json(event.classes),
            event.um_per_px,
        )
        if path == self._copy:
            path.unlink()
        self._awaited = ""
        job, wishes = self._job, self._wishes
        assert job is not None
        assert wishes is not None
        if isinstance(job, PlanesJob):
            self._level = job.level(event.um_per_px)
            self._todo = list(job.planes)
            job.result.begin(
                self._level,
                self.model.key,
                self.model.classes,
                wishes.shown_sureness,
            )
            self._ask_next()
            return
        self._generation += 1
        is_slide = wishes.what == "slide"
        self._link.send(
            messages.PredictFiles(
                generation=self._generation,
                job=job,
                # Where glass is to be left out, the image decides whether it has any.
                tissue_mask=False if is_slide and not wishes.tissue_mask else None,
                smooth_planes=0.0 if is_slide else wishes.smooth_planes,
                smallest_object=wishes.smallest_object,
            )
        )

    # What the engine tells.

    def take(self, event: Any) -> None:
        """Take an event in; those that answer nothing of now are passed."""
        if self._job is None or self._awaited == "end":
            return
        match event:
            case messages.ModelLoaded() if self._awaited == "load":
                # That of a job given up may still come.
                if Path(event.path) == self._asked_for:
                    self._on_loaded(event)
            case messages.TileDone() if event.generation == self._generation:
                self._on_tile(event)
            case messages.Predicted() if event.generation == self._generation:
                self._todo.pop(0)
                self._ask_next()
            case messages.FileProgress() if event.generation == self._generation:
                if self.is_cancelled:
                    return
                share = (event.place + event.done / max(1, event.total)) / max(
                    1, event.n_images
                )
                self._show(share, event.px_per_s, event.left_s, event)
            case messages.FileDone() if event.generation == self._generation:
                self.file_done.emit(event)
            case messages.FilesDone() if event.generation == self._generation:
                self._end("")
            case messages.Failed() if event.request in OURS:
                if event.generation not in (None, self._generation):
                    return
                details = f" Details: {log_file()}" if event.details else ""
                self._end(event.message + details)

    @telling()
    def _ask_next(self) -> None:
        """Ask for the next plane, once its pixels are there."""
        job, wishes = self._job, self._wishes
        if not isinstance(job, PlanesJob) or wishes is None or self._awaited:
            return
        if not self._todo:
            self._end("")
            return
        image, plane, level = job.result.image, self._todo[0], self._level
        try:
            if not self._files.prepare(image, plane, level, self._pixels_ready.emit):
                return
            labels, sure = self._outputs(job, plane)
            request = messages.Predict(
                generation=self._generation + 1,
                pixels=str(self._files.pixels(image, plane, level)),
                labels=str(labels),
                confidence=None if sure is None else str(sure),
                sureness=wishes.shown_sureness or "confidence",
                region=job.region(level),
                um_per_px=um_per_px(image, level),
                smallest_object=wishes.smallest_object,
            )
        except BaseException:
            self._end("")
            raise
        self._generation = request.generation
        self._link.send(request)

    def _outputs(self, job: PlanesJob, plane: PlaneKey) -> tuple[Path, Path | None]:
        assert self.model is not None
        assert self._wishes is not None
        highest = max(self.model.classes.values, default=0)
        dtype = np.uint8 if highest < 256 else np.uint16
        image, level = job.result.image, self._level
        wants = self._wishes.shown_sureness is not None
        return (
            self._files.output(image, plane, level, dtype),
            self._files.output(image, plane, level, np.float32) if wants else None,
        )

    def _on_tile(self, event: messages.TileDone) -> None:
        job = self._job
        assert isinstance(job, PlanesJob)
        plane, region = self._todo[0], event.region
        labels, sure = self._outputs(job, plane)
        job.result.write(region, plane, cut(labels, region))
        if sure is not None:
            job.result.write_sureness(region, plane, cut(sure, region))
        done = len(job.planes) - len(self._todo) + event.share
        share = done / len(job.planes)
        y0, x0, y1, x1 = job.region(self._level) or (
            (0, 0, *level_shape(job.result.image, self._level)[-2:])
        )
        seconds = max(time.perf_counter() - self._began, 1e-9)
        speed = done * (y1 - y0) * (x1 - x0) / seconds
        self._show(share, speed, seconds * (1 - share) / max(share, 1e-9))

    def _show(
        self,
        share: float,
        px_per_s: float | None,
        left_s: float | None,
        file: messages.FileProgress | None = None,
    ) -> None:
        self._state.progress = share
        words = []
        if file is not None and file.n_images > 1:
            words.append(f"{file.place + 1} of {file.n_images}: {file.name}")
        if px_per_s is not None and left_s is not None:
            words.append(f"{px_per_s / 1e6:.2f} Mpx/s, {clock(left_s)} left")
        self._state.speed = "; ".join(words)

    # The end.

    def _force_end(self) -> None:
        """End an engine that is in the middle of something long."""
        if self._job is not None:
            self._awaited = "end"
            self._link.restart("The prediction was cancelled")

    def _end(self, failure: str) -> None:
        was_busy = self._job is not None
        self._cancelling.stop()
        self._job = None
        self._awaited = ""
        self._todo = []
        self._generation += 1
        self._state.progress = None
        self._state.cancelling = False
        self._state.speed = ""
        if was_busy:
            self.ended.emit(failure)


#: Requests whose failure ends a job.
OURS = ("load-model", "predict", "predict-files")


def clock(seconds: float) -> str:
    """Word a time as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
