"""A real window with the dock, whose every step is noted; a mouse that paints in it.

torch must not be imported here: the process of the window does without.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

import napari
import numpy as np
from qtpy.QtCore import QEvent, QEventLoop, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication
from scipy.ndimage import maximum_filter, minimum_filter

from benchmarks._live_log import (
    FrameDrawn,
    LayerUpdated,
    Log,
    StrokeDone,
    find_repaint,
)
from napari_sparseseg.engine.messages import HeadFitted, StepDone
from napari_sparseseg.gui import label_and_train
from napari_sparseseg.gui.engine_link import EngineLink
from napari_sparseseg.gui.label_and_train import LabelAndTrain
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.sample_data import layer_data
from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks._live_log import Repaint
    from napari_sparseseg.engine.messages import Region, Validated
    from napari_sparseseg.samples import Sample

    Points = list[tuple[int, int]]

T = TypeVar("T")

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton

WINDOW = (1500, 950)

#: Side of the view that is to be repainted, in image pixels.
VIEW_PX = 512

#: Whether something has happened is looked at this often, in seconds.
POLL_S = 0.02

#: What has not happened after so many seconds never will.
PATIENCE_S = 300.0

#: A stroke in image pixels, and the mouse events of it.
STROKE_PX, STROKE_MOVES, BRUSH_PX = 20, 10, 5

#: So many strokes are painted before another class is taken.
STROKES_OF_A_CLASS = 4

#: From one mouse event to the next.
MOVE_MS = 16


def run_loop(seconds: float) -> None:
    """Let the event loop run."""
    loop = QEventLoop()
    QTimer.singleShot(round(seconds * 1000), loop.quit)
    loop.exec()


def wait_for(
    found: Callable[[], T | None], what: str, timeout_s: float = PATIENCE_S
) -> T:
    """Let the event loop run until something is found, and return it.

    Raises
    ------
    TimeoutError
        If it takes too long.
    """
    end = time.monotonic() + timeout_s
    while not (result := found()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}, in vain.")
        run_loop(POLL_S)
    return result


class Painter:
    """Paints strokes of the true class where nothing is painted yet.

    Parameters
    ----------
    window
        In which is painted.
    seed
        Of the places.
    """

    def __init__(self, window: LiveWindow, seed: int = 0) -> None:
        self._window = window
        self._random = np.random.default_rng(seed)
        truth = window.sample.truth
        assert truth is not None
        around = (BRUSH_PX + 2, STROKE_PX + BRUSH_PX + 2)
        self._fits = minimum_filter(truth, around) == maximum_filter(truth, around)
        self._around = around
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(MOVE_MS)
        self._timer.timeout.connect(self._move)
        self._points: list[QPointF] = []
        self._pause_s: float | None = None
        self._n_strokes = 0
        self._value = 0

    def stroke(self) -> float:
        """Paint one stroke; return when the mouse button was released."""
        start = time.perf_counter()
        self._press()
        done = wait_for(
            lambda: self._window.log.first(StrokeDone, start), "the end of a stroke"
        )
        return done[0]

    def paint_on(self, pause_s: float) -> None:
        """Paint stroke after stroke until :meth:`rest` is called."""
        self._pause_s = pause_s
        self._press()

    def rest(self) -> None:
        """Finish the stroke and paint no more."""
        self._pause_s = None
        wait_for(lambda: not self._timer.isActive(), "the end of a stroke")

    def _press(self) -> None:
        y, x = self._place()
        truth = self._window.sample.truth
        assert truth is not None
        self._window.take_brush(int(truth[y, x]))
        columns = np.linspace(-STROKE_PX / 2, STROKE_PX / 2, STROKE_MOVES) + x
        self._points = [self._window.on_canvas(y, column) for column in columns]
        self._send(QEvent.Type.MouseMove, self._points[0], NONE, NONE)
        self._send(QEvent.Type.MouseButtonPress, self._points[0], LEFT, LEFT)
        self._timer.start()

    def _move(self) -> None:
        at = self._points.pop(0)
        self._send(QEvent.Type.MouseMove, at, NONE, LEFT)
        if self._points:
            return
        self._timer.stop()
        self._send(QEvent.Type.MouseButtonRelease, at, LEFT, NONE)
        self._window.log.add(StrokeDone())
        if self._pause_s is not None:
            QTimer.singleShot(round(self._pause_s * 1000), self._go_on)

    def _send(
        self,
        kind: QEvent.Type,
        at: QPointF,
        button: Qt.MouseButton,
        held: Qt.MouseButton,
    ) -> None:
        """Send a mouse event to the canvas; the cursor itself stays where it is."""
        canvas, none = self._window.canvas, Qt.KeyboardModifier.NoModifier
        on_screen = canvas.mapToGlobal(at)
        QApplication.sendEvent(
            canvas, QMouseEvent(kind, at, on_screen, button, held, none)
        )

    def _go_on(self) -> None:
        if self._pause_s is not None:
            self._press()

    def _place(self) -> tuple[int, int]:
        """Draw a place where there is one class only and nothing is painted."""
        labels = np.asarray(self._window.strokes.data)
        y0, x0, y1, x1 = self._window.view
        free = self._fits & (maximum_filter(labels, self._around) == 0)
        inside = np.zeros_like(free)
        inside[y0 + 20 : y1 - 20, x0 + 20 : x1 - 20] = True
        truth = self._window.sample.truth
        assert truth is not None
        places = np.where(free & inside, truth, 0)
        values = np.unique(places[places > 0])
        assert values.size, "all is painted; take fewer strokes or a larger image"
        if self._n_strokes % STROKES_OF_A_CLASS == 0 or self._value not in values:
            self._value = int(self._random.choice(values))
        self._n_strokes += 1
        y, x = self._random.choice(np.argwhere(places == self._value))
        return int(y), int(x)


class LiveWindow:
    """A window with the phantom and the dock.

    Parameters
    ----------
    size
        Side of the image in pixels.
    folder
        In which the session is kept.

    Attributes
    ----------
    log
        All messages between window and engine, strokes and frames.
    view
        (y0, x0, y1, x1) in the middle of the image, which fills the canvas.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self.log = Log()
        self.sample: Sample = tissue_phantom(0, (size, size))
        self.view: Region = _middle(size)
        self._session = folder / "live.sparseseg"
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*WINDOW)
        for data, arguments, kind in layer_data(self.sample, "phantom"):
            getattr(self.viewer, f"add_{kind}")(data, **arguments)
        self.strokes = self.viewer.layers["phantom strokes"]
        self.strokes.brush_size = BRUSH_PX
        self.canvas = self.viewer.window._qt_viewer.canvas.native
        self._follow_frames()
        with (
            patch.object(label_and_train, "EngineLink", partial(_Link, self.log)),
            patch.object(label_and_train, "new_folder", lambda: self._session),
        ):
            self.widget = LabelAndTrain(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="Label and train")
        self.state = self.widget.state

    def look(self) -> None:
        """Let the view fill the canvas."""
        y0, x0, y1, x1 = self.view
        y_um, x_um = self.strokes.scale
        camera = self.viewer.scene.camera
        camera.center = (y0 + y1) / 2 * y_um, (x0 + x1) / 2 * x_um
        sides = self.canvas.height() / y_um, self.canvas.width() / x_um
        camera.zoom = 0.95 * min(sides) / (y1 - y0)

    def on_canvas(self, y: float, x: float) -> QPointF:
        """Return where a pixel of the image is on the canvas."""
        camera = self.viewer.scene.camera
        across, down = (
            (at * scale - centre) * camera.zoom
            for at, scale, centre in zip(
                (x, y), self.strokes.scale[::-1], camera.center[:-3:-1], strict=True
            )
        )
        width, height = self.canvas.width(), self.canvas.height()
        return QPointF(across + width / 2, down + height / 2)

    def take_brush(self, value: int) -> None:
        """Be ready to paint a class."""
        self.viewer.layers.selection.active = self.strokes
        self.strokes.mode = "paint"
        self.widget.controller.classes.select(value)

    def train(self) -> float:
        """Start a training anew; return when the button was pressed."""
        (self._session / "training.safetensors").unlink(missing_ok=True)
        start = time.perf_counter()
        self.widget.dock.training.train_button.click()
        return start

    def stop(self) -> None:
        """End the training."""
        self.widget.dock.training.stop_button.click()
        wait_for(lambda: self.state.phase == "idle", "the end of the training")
        self.settle(training=False)

    def settle(self, training: bool = True) -> None:
        """Wait until nothing is left of what was done before but the training."""

        def settled() -> bool:
            now = time.perf_counter()
            fitted = self.log.last(HeadFitted, now)
            step = self.log.last(StepDone, now)
            if training and (step is None or (fitted and step[0] < fitted[0])):
                return False
            return self.state.progress is None

        wait_for(settled, "the next step of the training")
        run_loop(0.3)
        wait_for(lambda: self.state.progress is None, "the end of a prediction")

    def repaint(self, start: float, cause: type[HeadFitted | Validated]) -> Repaint:
        """Wait until the view is repainted after *cause*."""
        return wait_for(
            lambda: find_repaint(self.log, start, cause, self.view),
            f"a repaint after {cause.__name__}",
        )

    def renderer(self) -> str:
        """Return what draws the canvas, as OpenGL names it."""
        gl: Any = importlib.import_module("vispy.gloo.gl")
        self.canvas.makeCurrent()
        return str(gl.glGetParameter(gl.GL_RENDERER))

    def close(self) -> None:
        """End engine and window."""
        self.widget.controller.close()
        self.viewer.close()

    def _follow_frames(self) -> None:
        def follow(event: Any) -> None:
            layer = event.value
            if is_prediction(layer):
                layer.events.set_data.connect(lambda: self.log.add(LayerUpdated()))

        self.viewer.layers.events.inserted.connect(follow)
        self.canvas.frameSwapped.connect(lambda: self.log.add(FrameDrawn()))


class _Link(EngineLink):
    """Notes what is sent, and what is told before anybody else hears of it."""

    def __init__(self, log: Log, log_path: Path) -> None:
        super().__init__(log_path)
        self._log = log
        self.told.connect(log.add)

    def send(self, request: Any) -> None:
        self._log.add(request)
        super().send(request)


class GapProbe:
    """Tells how long the event loop does not come round, by a timer of 5 ms."""

    INTERVAL_MS = 5

    def __init__(self) -> None:
        self._ticks: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(self.INTERVAL_MS)
        self._timer.timeout.connect(self._tick)

    def run(self, seconds: float) -> list[float]:
        """Return the gaps between the ticks of so many seconds, in ms."""
        self._ticks = []
        self._timer.start()
        run_loop(seconds)
        self._timer.stop()
        return [1000 * (after - before) for before, after in pairwise(self._ticks)]

    def _tick(self) -> None:
        self._ticks.append(time.perf_counter())


@contextmanager
def live_window(size: int, device: str) -> Iterator[LiveWindow]:
    """Open a window whose engine is ready and warm; end both afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        window = LiveWindow(size, Path(folder))
        try:
            controller, state = window.widget.controller, window.state
            wait_for(lambda: state.engine == "ready", "the engine")
            controller.use_settings(replace(state.settings, device=device))
            window.look()
            run_loop(2.0)
            yield window
        finally:
            window.close()


def _middle(size: int) -> Region:
    side = min(size, VIEW_PX)
    first = (size - side) // 2
    return first, first, first + side, first + side
