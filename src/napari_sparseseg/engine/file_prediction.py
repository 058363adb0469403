"""Images in files are predicted into files, beside what the engine does else."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from napari_sparseseg.engine.log import trace_of
from napari_sparseseg.engine.messages import (
    Failed,
    FileDone,
    FileProgress,
    FilesDone,
    FolderJob,
)
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.files import PredictionStarted, PredictionWritten
from napari_sparseseg.interruption import (
    Interrupted,
    interruptible,
    stop_if_wished,
)
from napari_sparseseg.many_files import (
    ImageFailed,
    ImageJob,
    iter_predict_images,
    jobs_of_folder,
)
from napari_sparseseg.prediction.large import ChunkDone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_sparseseg.engine.messages import Event, PredictFiles
    from napari_sparseseg.files import FileEvent, PredictionWishes
    from napari_sparseseg.networks.model import SegmentationModel

logger = logging.getLogger(__name__)

#: Progress is told this often at most, in seconds.
TOLD_S = 0.2

#: What takes seconds to import, and is used for files alone; extras may be missing.
SLOW = ("zarr", "scipy.ndimage", "skimage.filters", "openslide", "SimpleITK")

#: While it is imported, a cancel is looked for this often, in seconds.
LOOK_S = 0.05


class FilePrediction:
    """Answers one `PredictFiles`, in a thread.

    A chunk of a large network, or writing a whole volume, takes longer than the window
    may hear nothing of the engine, and cannot be cut into turns.

    Parameters
    ----------
    request
        What is asked for.
    model
        What predicts; nobody else uses it meanwhile.
    send
        Takes events, from any thread.
    """

    def __init__(
        self,
        request: PredictFiles,
        model: SegmentationModel,
        send: Callable[[Event], None],
    ) -> None:
        self._request = request
        self._model = model
        self._send = send
        self._cancelled = threading.Event()
        self._notes: list[str] = []
        self._clock = _Clock(0, 0, 0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End it after the layer or strip of now; finished chunks are on disk."""
        self._cancelled.set()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            with (
                suppress(Interrupted),
                interruptible(self._cancelled.is_set),
                stopping(self._model),
            ):
                wait_for_imports()
                self._predict()
        except SparseSegError as error:
            self._fail(str(error), error)
        except OSError as error:
            self._fail(f"a file or folder cannot be used: {error}.", error)
        except Exception as error:
            logger.exception("predict-files failed")
            words = " ".join(str(error).split()) or "no more is known"
            kind = type(error).__name__
            told = f"something unexpected happened ({kind}: {words})."
            self._fail(told, error, trace_of(error))
        self._send(FilesDone(generation=self._request.generation))

    def _fail(self, message: str, error: Exception, details: str = "") -> None:
        self._send(
            Failed(
                request=self._request.kind,
                message=message,
                error=type(error).__name__,
                details=details,
            )
        )

    def _predict(self) -> None:
        request = self._request
        wishes: PredictionWishes = {
            "smooth_planes": request.smooth_planes,
            "smallest_object": request.smallest_object,
            "device": str(self._model.device),
        }
        if request.tissue_mask is not None:
            wishes["tissue_mask"] = request.tissue_mask
        jobs = _jobs_of(request)
        with closing(iter_predict_images(self._model, jobs, wishes)) as events:
            for place, event in events:
                self._take(jobs, place, event)
                if self._cancelled.is_set():
                    return

    def _take(
        self, jobs: list[ImageJob], place: int, event: FileEvent | ImageFailed
    ) -> None:
        about = _About(
            generation=self._request.generation,
            name=jobs[place].image.name,
            place=place,
            n_images=len(jobs),
        )
        match event:
            case PredictionStarted():
                self._notes = list(event.notes)
                self._clock = _Clock(event.n_chunks, event.n_done, event.n_pixels)
                self._send(self._clock.progress(about))
            case ChunkDone():
                if self._clock.take(event):
                    self._send(self._clock.progress(about))
            case PredictionWritten():
                notes = [*self._notes, *filter(None, (event.note,))]
                paths = list(map(str, event.paths))
                self._send(FileDone(**about, paths=paths, notes=notes))
                self._notes = []
            case ImageFailed():
                self._send(FileDone(**about, paths=[], notes=[], failure=event.message))
                self._notes = []


def wait_for_imports() -> None:
    """Have imported what is slow to import, in a thread that a cancel leaves alone."""
    importing = _start_imports()
    while importing.is_alive():
        stop_if_wished()
        importing.join(LOOK_S)


@cache
def _start_imports() -> threading.Thread:
    thread = threading.Thread(target=_import_slow, daemon=True)
    thread.start()
    return thread


def _import_slow() -> None:
    for module in SLOW:
        # What needs it says what to install.
        with suppress(ImportError, OSError):
            importlib.import_module(module)


@contextmanager
def stopping(model: SegmentationModel) -> Iterator[None]:
    """Let a model, and copies of it, be interrupted between its layers."""
    handles = [
        layer.register_forward_pre_hook(lambda *_: stop_if_wished())
        for part in model.parts.values()
        for layer in part.modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _About(TypedDict):
    """What all answers begin with."""

    generation: int
    name: str
    place: int
    n_images: int


def _jobs_of(request: PredictFiles) -> list[ImageJob]:
    job = request.job
    if isinstance(job, FolderJob):
        return jobs_of_folder(Path(job.images), Path(job.out), job.suffix)
    return [ImageJob(Path(job.image), Path(job.out), job.series, job.um_per_px)]


class _Clock:
    """Measures speed and time left."""

    def __init__(self, total: int, done: int, n_pixels: int) -> None:
        self._total, self._done = total, done
        self._n_pixels, self._n_predicted = n_pixels, 0
        self._started = self._told = time.perf_counter()

    def take(self, chunk: ChunkDone) -> bool:
        """Count a chunk; tell whether that is worth to be told."""
        self._done += 1
        self._n_predicted += chunk.n_pixels
        now = time.perf_counter()
        if self._done < self._total and now - self._told < TOLD_S:
            return False
        self._told = now
        return True

    def progress(self, about: _About) -> FileProgress:
        speed = None
        if self._n_predicted:
            speed = self._n_predicted / max(time.perf_counter() - self._started, 1e-9)
        return FileProgress(
            **about,
            done=self._done,
            total=self._total,
            px_per_s=speed,
            left_s=(self._n_pixels - self._n_predicted) / speed if speed else None,
        )
