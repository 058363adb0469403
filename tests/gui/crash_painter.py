"""``python -m tests.gui.crash_painter``: paint in real windows until they are killed.

For each line ``SEED FOLDER`` on its input it opens a napari in a process of its own, of
which it prints the number; so all that is imported is imported once. As soon as there
is a file ``FOLDER/go``, that draws stroke after stroke with the mouse, on one plane and
another. What a stroke has changed is added to ``FOLDER/strokes.jsonl`` when the mouse
is released.

Where the folder has a slide, a field of it is painted on, whose place is noted in
``FOLDER/field.json``.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import napari
import numpy as np

from napari_sparseseg.gui import label_and_train
from napari_sparseseg.gui.engine_link import EngineLink
from napari_sparseseg.gui.fields_drag import NAME
from napari_sparseseg.gui.label_and_train import LabelAndTrain
from tests.gui.mouse import TEST, drag

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

#: Strokes lie in cells of so many pixels, each in one of its own.
CELL_PX = 16

#: A plane is painted on so often before another one is.
STROKES_OF_A_PLANE = 5

#: Corners of a field, (y, x) in pixels of the slide.
FIELD = ((48, 64), (208, 256))

#: Between two strokes, in milliseconds.
PAUSE_MS = 60

STUB = Path(__file__).with_name("stub_engine.py")


class Painter:
    """Draws strokes in a window with the dock.

    Parameters
    ----------
    folder
        With ``image.tif`` or ``slide.tif``; the strokes are noted there.
    seed
        Of their places.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._log = (folder / "strokes.jsonl").open("a", encoding="utf-8")
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1100, 800)
        slide = folder / "slide.tif"
        if slide.exists():
            (image,) = self.viewer.open(slide, plugin="napari-sparseseg")
        else:
            (image,) = self.viewer.open(folder / "image.tif", plugin="napari")
        command = [sys.executable, str(STUB), "works"]
        link = functools.partial(EngineLink, command=command)
        with patch.object(label_and_train, "EngineLink", link):
            self.dock = LabelAndTrain(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, name="Label and train")
        self._settle()
        if slide.exists():
            self._cut_field(image, folder / "field.json")
        else:
            self.dock.controller.pairs.new_labels()
        self._labels: Labels = self.viewer.layers[-1]
        n, height, width = self._planes.shape
        grid = (n, height // CELL_PX, width // CELL_PX)
        order = np.random.default_rng(seed).permutation(grid[1] * grid[2])
        self._cells = [np.unravel_index(int(cell), grid[1:]) for cell in order]
        self._n_planes = n

    @property
    def _planes(self) -> NDArray[Any]:
        """The labels as (z, y, x)."""
        labels: NDArray[Any] = np.asarray(self._labels.data)
        return labels.reshape(-1, *labels.shape[-2:])

    def _settle(self) -> None:
        """Wait until the canvas has its size beside the dock."""
        canvas: Any = self.viewer.window._qt_viewer.canvas.native
        before = None
        while canvas.size() != before:
            before = canvas.size()
            TEST.qWait(300)

    def _cut_field(self, slide: Image, note: Path) -> None:
        """Press New field, drag a rectangle, and note where it came to lie."""
        button = self.dock.dock.pairs.fields.button
        while not button.isEnabled():
            TEST.qWait(20)
        button.click()
        (start, end), middle = FIELD, np.mean(FIELD, axis=0)
        # Again where the canvas has missed the mouse.
        while NAME in self.viewer.layers:
            self.viewer.reset_view()
            drag(self.viewer, slide, start, tuple(middle), end)
            TEST.qWait(200)
        while self.dock.state.is_cutting:
            TEST.qWait(20)
        _, field, _ = self.viewer.layers
        note.write_text(
            json.dumps({"place": field.translate.tolist(), "shape": field.data.shape})
        )

    def paint(self) -> None:
        """Draw strokes until there is no cell left."""
        rounds = len(self._cells) // STROKES_OF_A_PLANE
        for number in range(rounds * STROKES_OF_A_PLANE * self._n_planes):
            turn, stroke = divmod(number, STROKES_OF_A_PLANE)
            round_, plane = divmod(turn, self._n_planes)
            cell = self._cells[round_ * STROKES_OF_A_PLANE + stroke]
            self._stroke(plane, 1 + number % 2, cell)
            TEST.qWait(PAUSE_MS)

    def _stroke(self, plane: int, value: int, cell: Any) -> None:
        self.dock.controller.classes.select(value)
        self._labels.mode = "paint"
        self._labels.brush_size = 3
        y, x = (CELL_PX * int(at) + CELL_PX // 2 for at in cell)
        before = self._planes[plane].copy()
        changed = np.array([])
        # On a busy computer a canvas misses the mouse; a user sees that.
        while not changed.size:
            # Each time: a window may get its size late.
            self.viewer.reset_view()
            if self._labels.ndim == 3:
                self.viewer.dims.set_current_step(0, plane)
            drag(self.viewer, self._labels, (y - 3, x - 4), (y + 3, x), (y - 3, x + 4))
            changed = np.flatnonzero(self._planes[plane] != before)
        note = {"plane": plane, "value": value, "pixels": changed.tolist()}
        self._log.write(json.dumps({"at": time.time(), **note}) + "\n")
        self._log.flush()


def open_window(folder: Path, seed: int) -> None:
    """Open a window, and paint once that is wished."""
    for name in ("CACHE", "CONFIG", "DATA", "STATE"):
        os.environ[f"XDG_{name}_HOME"] = str(folder / name.lower())
    painter = Painter(folder, seed)
    while not (folder / "go").exists():
        TEST.qWait(20)
    painter.paint()
    TEST.qWait(600_000)


def main() -> None:
    """Open the windows that are asked for."""
    # So that none that was killed stays as a zombie.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        seed, _, folder = line.rstrip("\n").partition(" ")
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            open_window(Path(folder), int(seed))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
