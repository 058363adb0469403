"""The engine alone: strokes in, predictions out, without a window."""

from __future__ import annotations

import queue
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_sparseseg.engine import messages
from napari_sparseseg.engine.process import EngineProcess
from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from napari_sparseseg.networks.network_names import Preset

T = TypeVar("T")

#: The network that is measured on each device.
PRESETS: dict[str, Preset] = {"cpu": "light", "cuda": "paper"}

#: No event for so many seconds: the engine hangs.
PATIENCE_S = 300.0

#: A stroke in pixels.
STROKE_PX = (5, 20)

#: After so many validations the head is taken to stay what predicts.
MOST_VALIDATIONS = 6


class Engine:
    """An engine that learns from a phantom.

    Parameters
    ----------
    folder
        For the files that are shared.
    size
        Side of the image in pixels.
    device
        ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, folder: Path, size: int, device: str) -> None:
        self.device = device
        self.shown = "head"
        self.validations = 0
        self._folder = folder
        self._sample = tissue_phantom(0, (size, size))
        self._labels = self._sample.labels.copy()
        self._random = np.random.default_rng(0)
        self._generation = 0
        self._events: queue.SimpleQueue[messages.Event | None] = queue.SimpleQueue()
        self._process = EngineProcess(
            on_event=self._events.put,
            on_exit=lambda code, log: self._events.put(None),
            log_path=folder / "engine.log",
        )

    def start(self) -> dict[str, Any]:
        """Start it and the training; return seconds and the name of the device."""
        started = time.perf_counter()
        self._process.start()
        ready = self.wait_for(messages.Ready)
        stands = time.perf_counter()
        np.save(self._folder / "pixels.npy", self._sample.image)
        np.save(self._folder / "result.npy", np.zeros_like(self._labels))
        self._process.send(messages.UseClasses(classes=self._sample.classes.to_json()))
        self._put()
        settings = messages.TrainingSettings(
            device=self.device, preset=PRESETS[self.device]
        )
        self._process.send(
            messages.Start(settings=settings, checkpoint=str(self._folder / "c.st"))
        )
        self.wait_for(messages.HeadFitted)
        fitted = time.perf_counter()
        names = dict(zip(ready.devices, ready.device_names, strict=True))
        return {
            "device": names[self.device],
            "ready_s": stands - started,
            "first_head_s": fitted - stands,
        }

    def wait_for(self, kind: type[T]) -> T:
        """Return the next event of a kind.

        Raises
        ------
        RuntimeError
            If the engine fails, ends, or says nothing any more.
        """
        while True:
            event: Any = self._events.get(timeout=PATIENCE_S)
            if event is None or isinstance(event, messages.Failed):
                raise RuntimeError(f"the engine failed: {event}")
            if isinstance(event, messages.Validated):
                self.validations += 1
                self.shown = event.shown
            if isinstance(event, kind):
                return event

    def stroke(self) -> dict[str, Any]:
        """Paint a stroke; return the seconds until it was learned, and predicted."""
        self._paint()
        started = time.perf_counter()
        self._put()
        self.wait_for(messages.HeadFitted)
        fitted = time.perf_counter() - started
        shown = self._predict()
        predicted = time.perf_counter() - started
        # Until the network learns on, the head may be fitted again to be scored.
        self.wait_for(messages.StepDone)
        return {"learned": fitted, "predicted": predicted, "shown": shown}

    def prediction(self) -> dict[str, Any]:
        """Predict the image; return the seconds that it took."""
        started = time.perf_counter()
        shown = self._predict()
        return {"predicted": time.perf_counter() - started, "shown": shown}

    def pause(self) -> None:
        """Learn no more."""
        self._process.send(messages.Pause())
        self.wait_for(messages.PhaseChanged)

    def stop(self) -> None:
        """End it."""
        self._process.stop(0.0)

    def _predict(self) -> str:
        self._generation += 1
        height, width = self._labels.shape
        self._process.send(
            messages.Predict(
                generation=self._generation,
                pixels=str(self._folder / "pixels.npy"),
                labels=str(self._folder / "result.npy"),
                view=(0, 0, height, width),
                um_per_px=self._sample.um_per_px,
            )
        )
        return self.wait_for(messages.Predicted).shown

    def _paint(self) -> None:
        """Paint a piece of the truth where nothing is painted yet."""
        truth = self._sample.truth
        assert truth is not None
        height, width = STROKE_PX
        while True:
            y, x = (int(self._random.integers(side - 32)) for side in truth.shape)
            place = slice(y, y + height), slice(x, x + width)
            if not self._labels[place].any() and np.ptp(truth[place]) == 0:
                self._labels[place] = truth[place]
                return

    def _put(self) -> None:
        path = self._folder / "labels.npy"
        np.save(path, self._labels)
        self._process.send(
            messages.PutImage(
                name="phantom",
                pixels=str(self._folder / "pixels.npy"),
                labels=str(path),
                um_per_px=self._sample.um_per_px,
            )
        )


def measure_engine(size: int, device: str, n_strokes: int) -> dict[str, Any]:
    """Measure strokes and predictions while it learns, and predictions while not.

    First with the head alone, then with what is chosen on held-out strokes.

    Returns
    -------
    dict
        JSON values; seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder), size, device)
        try:
            about = engine.start()
            engine.wait_for(messages.StepDone)
            strokes = [engine.stroke() for _ in range(n_strokes)]
            while engine.shown == "head" and engine.validations < MOST_VALIDATIONS:
                engine.wait_for(messages.Validated)
            if engine.shown != "head":
                strokes += [engine.stroke() for _ in range(n_strokes)]
            learning = [engine.prediction() for _ in range(n_strokes)]
            engine.pause()
            paused = [engine.prediction() for _ in range(n_strokes)]
        finally:
            engine.stop()
    return {
        **about,
        "preset": PRESETS[device],
        "size": size,
        "strokes": strokes,
        "predictions_learning": learning,
        "predictions_paused": paused,
    }
