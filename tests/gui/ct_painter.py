"""``python -m tests.gui.ct_painter FOLDER``: paint on a CT series until it is killed.

It opens ``FOLDER/CT`` in a real window, paints the strokes of ``FOLDER/strokes.json``
with the mouse, trains on them, saves ``FOLDER/lung.safetensors``, and makes the file
``FOLDER/done`` when all of it is on the screen.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari

from napari_sparseseg.gui.launch import PLUGIN, open_dock
from tests.gui.mouse import TEST, drag

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image, Labels

    from napari_sparseseg.gui.label_and_train import LabelAndTrain

#: On cores that others use, too.
PATIENCE_S = 900.0

#: What is on the screen for so long is on disk.
KEPT_MS = 2000

#: Enough for a model that tells air from a body.
STEPS = 5


def wait(condition: Callable[[], Any], dock: LabelAndTrain) -> None:
    """Let the window work until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, dock.state.status
        TEST.qWait(50)


def paint(
    viewer: napari.Viewer, dock: LabelAndTrain, image: Image, folder: Path
) -> None:
    """Paint all strokes with the mouse, on their planes."""
    dock.dock.pairs.new_button.click()
    labels: Labels = viewer.layers[f"{image.name} strokes"]
    labels.mode, labels.brush_size = "paint", 4
    for plane, value, y, x0, x1 in json.loads((folder / "strokes.json").read_text()):
        # Each time: a window may get its size late.
        viewer.reset_view()
        viewer.dims.set_current_step(0, plane)
        dock.controller.classes.select(value)
        TEST.qWait(50)
        # On a busy computer a canvas misses moves of the mouse; a user sees that, and
        # paints again. What is missing later was lost by the session.
        for _ in range(3):
            drag(viewer, labels, (y, x0), (y, x1), pause_ms=50)
            painted = labels.data[plane, y, x0 + 2 : x1 - 2]
            if (painted == value).all():
                break
        assert (painted == value).all(), f"{plane, y, x0, x1}: {painted}"


def main(folder: Path) -> None:
    """Go the way until there is nothing left but to be killed."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    (image,) = viewer.open(folder / "CT", plugin=PLUGIN)
    dock = open_dock(viewer)
    state, controller = dock.state, dock.controller
    wait(lambda: state.engine == "ready", dock)
    controller.classes.rename(state.classes.values[1], "body")
    paint(viewer, dock, image, folder)
    wait(lambda: not state.cannot_train, dock)
    dock.dock.training.train_button.click()
    wait(lambda: state.step >= STEPS, dock)
    dock.dock.training.stop_button.click()
    wait(lambda: state.phase == "idle" and state.progress is None, dock)
    controller.save_model(str(folder / "lung.safetensors"))
    wait(lambda: state.models, dock)
    TEST.qWait(KEPT_MS)
    (folder / "done").touch()
    TEST.qWait(600_000)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for name in ("CACHE", "CONFIG", "DATA", "STATE"):
        os.environ[f"XDG_{name}_HOME"] = str(place / name.lower())
    main(place)
