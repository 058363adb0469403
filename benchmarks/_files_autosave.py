"""What it costs to have each stroke on disk: the window's time, room, a restore."""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.gui.kept_labels import KeptLabels
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.session_labels import plane_path, planes_in, restore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Labels

#: Shapes of labels: a series of CT slices, and a field of a slide.
SHAPES = {"CT series": (129, 512, 512), "field": (4096, 4096)}

#: A stroke in pixels.
STROKE_PX, BRUSH_PX = 60, 5

#: From one stroke to the next, in milliseconds.
STROKE_MS = 150

#: Without and with a session are painted in turn, so often: other programs on the
#: machine then trouble both alike.
ROUNDS = 4

#: The event loop is asked for so often, in milliseconds.
TICK_MS = 5

#: A stroke that is not on disk by then never will be, in seconds.
PATIENCE_S = 30.0


def measure_autosave(kind: str, n_strokes: int) -> dict[str, Any]:
    """Paint with and without a session, and open that again.

    Parameters
    ----------
    kind
        Of the labels, in words.
    n_strokes
        That are painted each time, on planes one after the other.

    Returns
    -------
    dict
        JSON values: gaps of the event loop without and with a session, and how long the
        window's thread has computed in each, which other programs do not change,
        time from the end of each stroke until it is on disk, and of the calls that
        bring it there (all in milliseconds), size of the session (bytes) and time to
        restore it (seconds).
    """
    application = QApplication.instance() or QApplication([])
    assert application is not None
    shape, part = SHAPES[kind], -(-n_strokes // ROUNDS)
    without, with_session = _Gaps(), _Gaps()
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place, f"{number}.sparseseg") for number in range(ROUNDS)]
        for folder in folders:
            without.add(_Painting(shape, None).paint(part).gaps)
            with_session.add(_Painting(shape, folder).paint(part).gaps)
        folder = Path(place, "autosave.sparseseg")
        # Apart: whoever looks at the files all the time makes gaps, too.
        kept = _Painting(shape, folder, looks=True).paint(n_strokes)
        start = time.perf_counter()
        restore(folder)
        restore_s = time.perf_counter() - start
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {
            "kind": kind,
            "shape": shape,
            "gaps_without_ms": without.whole_ms,
            "gaps_with_ms": with_session.whole_ms,
            "work_without_ms": without.work_ms,
            "work_with_ms": with_session.work_ms,
            "until_on_disk_ms": kept.until_on_disk_ms,
            "calls_ms": kept.calls_ms,
            "on_disk_bytes": sum(512 * path.stat().st_blocks for path in files),
            "restore_s": restore_s,
        }


class _Gaps:
    """Times between two moments at which the event loop was free."""

    def __init__(self) -> None:
        self.whole_ms: list[float] = []
        self.work_ms: list[float] = []
        self._last: tuple[float, float] | None = None

    def tick(self) -> None:
        """Note that the event loop is free."""
        now = time.perf_counter(), time.thread_time()
        if self._last is not None:
            self.whole_ms.append(1000 * (now[0] - self._last[0]))
            self.work_ms.append(1000 * (now[1] - self._last[1]))
        self._last = now

    def add(self, other: _Gaps) -> None:
        """Take in those of another painting."""
        self.whole_ms += other.whole_ms
        self.work_ms += other.work_ms


class _Painting:
    """Strokes on a label layer of a viewer without a window.

    Drawing would take longer than all that is measured here, and differs from one
    machine to the next.
    """

    def __init__(
        self, shape: tuple[int, ...], folder: Path | None, *, looks: bool = False
    ) -> None:
        self.gaps = _Gaps()
        self.until_on_disk_ms: list[float] = []
        self.calls_ms: list[float] = []
        self._viewer = ViewerModel()
        self._labels: Labels = self._viewer.add_labels(np.zeros(shape, np.uint8))
        self._labels.brush_size = BRUSH_PX
        self._shape = shape
        self._looks = looks
        self._random = np.random.default_rng(0)
        self._mirror: Mirror | None = None
        if folder is not None:
            self._mirror = _TimedMirror(folder, self.calls_ms)
            self._kept = KeptLabels(self._viewer, self._mirror, lambda _: "image")
            self._kept.flush()

    def paint(self, n_strokes: int) -> _Painting:
        """Paint, and note the gaps of the event loop meanwhile."""
        ticks = QTimer()
        ticks.setTimerType(Qt.TimerType.PreciseTimer)
        ticks.setInterval(TICK_MS)
        ticks.timeout.connect(self.gaps.tick)
        ticks.start()
        for number in range(n_strokes):
            point = self._stroke(number)
            over = time.perf_counter()
            if self._looks:
                self._wait_until_on_disk(point)
                self.until_on_disk_ms.append(1000 * (time.perf_counter() - over))
            _work(STROKE_MS)
        ticks.stop()
        if self._mirror is not None:
            self._kept.close()
        return self

    def _stroke(self, number: int) -> tuple[int, ...]:
        """Draw a line; return a point on it."""
        plane = tuple(number // 5 % size for size in self._shape[:-2])
        for axis, index in enumerate(plane):
            self._viewer.dims.set_current_step(axis, index)
        y, x = (int(self._random.integers(9, n - 80)) for n in self._shape[-2:])
        with self._labels.block_history():
            for step in range(0, STROKE_PX, BRUSH_PX):
                self._labels.paint((*plane, y, x + step), 1 + number % 200)
        return (*plane, y, x)

    def _wait_until_on_disk(self, point: tuple[int, ...]) -> None:
        assert self._mirror is not None
        end = time.perf_counter() + PATIENCE_S
        wanted = self._labels.data[point]
        while self._on_disk(point) != wanted:
            assert time.perf_counter() < end, "a stroke is not on disk"
            _work(1)

    def _on_disk(self, point: tuple[int, ...]) -> int:
        assert self._mirror is not None
        folder = self._mirror.folder / "labels-1"
        for plane in planes_in(folder):
            if plane.index == point[:-2]:
                stored = np.load(plane_path(folder, plane), mmap_mode="r")
                return int(stored[point[-2:]])
        return 0


class _TimedMirror(Mirror):
    """Notes how long it takes of the window's time."""

    def __init__(self, folder: Path, calls_ms: list[float]) -> None:
        super().__init__(folder, ClassTable().add("liver"))
        self._calls_ms = calls_ms

    def update(self, *args: Any, **kwargs: Any) -> Any:
        with self._timed():
            return super().update(*args, **kwargs)

    def go_on(self, *args: Any, **kwargs: Any) -> Any:
        with self._timed():
            return super().go_on(*args, **kwargs)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._calls_ms.append(1000 * (time.perf_counter() - start))


def _work(milliseconds: int) -> None:
    """Let the event loop run."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


if __name__ == "__main__":
    for each in SHAPES:
        found = measure_autosave(each, 40)
        for name, values in found.items():
            if isinstance(values, list):
                p50, p99 = np.percentile(values, (50, 99))
                values = f"median {p50:.1f}, p99 {p99:.1f}, max {max(values):.1f}"
            print(f"{name}: {values}")
