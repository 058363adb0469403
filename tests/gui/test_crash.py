"""napari is killed while somebody paints: what was painted comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import tifffile
from napari.layers import Image, Labels
from npe2 import PluginManager, PluginManifest

from napari_sparseseg.gui import session_folder
from napari_sparseseg.gui.session_folder import find_crashed
from napari_sparseseg.gui.session_labels import restore
from tests.gui.crash_painter import CELL_PX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tests.gui.conftest import Table

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPE = (5, 160, 192)

#: One of so many windows has a slide of that size, and paints on a field of it.
SLIDES_AMONG = 5
SLIDE, UM_PER_PX = (256, 320, 3), 0.5

#: What was painted longer ago is on disk, in seconds.
LOST_S = 2.0

#: It is killed after up to so many strokes and so many seconds, at a random moment.
MOST_STROKES, LONGEST_S = 12, 3.0

#: They are painted by then, on cores that others use too.
PATIENCE_S = 300.0

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="windows are forked, which only Linux allows"
)


@dataclass(frozen=True)
class Stroke:
    at: float
    plane: int
    value: int
    pixels: list[int]


class Window:
    """A napari of its own in which strokes are painted.

    Parameters
    ----------
    folder
        Of its image, its session and its settings; made here.
    seed
        Of the image, the strokes, and the moment at which it is killed.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.pid = 0
        self._random = np.random.default_rng(seed)
        folder.mkdir()
        self.has_slide = seed % SLIDES_AMONG == SLIDES_AMONG - 1
        if self.has_slide:
            self.pixels = self._random.integers(0, 255, SLIDE, np.uint8)
            write_slide(folder / "slide.tif", self.pixels)
        else:
            self.pixels = self._random.integers(0, 255, SHAPE, np.uint8)
            tifffile.imwrite(folder / "image.tif", self.pixels)

    @property
    def sessions(self) -> Path:
        return self.folder / "data" / "napari-sparseseg" / "sessions"

    def begin(self) -> None:
        """Let it paint."""
        (self.folder / "go").touch()

    def die(self) -> float:
        """Let it paint for a while; return when it was killed."""
        end = time.monotonic() + PATIENCE_S
        wanted = self._random.integers(1, MOST_STROKES)
        while len(self.strokes()) < wanted:
            assert time.monotonic() < end, "too little was painted"
            assert psutil.pid_exists(self.pid), "the window has ended by itself"
            time.sleep(0.02)
        time.sleep(self._random.uniform(0, LONGEST_S))
        killed = time.time()
        self.kill()
        return killed

    def kill(self) -> None:
        """End it, and wait until it is gone."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            process.kill()
            process.wait()

    def strokes(self) -> list[Stroke]:
        """Return the strokes that were over."""
        log = self.folder / "strokes.jsonl"
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        return [Stroke(**json.loads(line)) for line in lines if line.endswith("\n")]


def write_slide(path: Path, pixels: NDArray[np.uint8]) -> None:
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            file.write(
                pixels[::step, ::step],
                tile=(64, 64),
                photometric="rgb",
                subfiletype=step - 1,
                resolution=(1e4 / (UM_PER_PX * step),) * 2,
                resolutionunit="CENTIMETER",
            )


@pytest.fixture
def windows(
    tmp_path: Path, request: pytest.FixtureRequest, npe2pm: PluginManager
) -> Iterator[list[Window]]:
    """Return windows that start side by side, and paint one after the other."""
    for name in ("napari", "napari-sparseseg"):
        npe2pm.register(PluginManifest.from_distribution(name))
    seeds: range = request.param
    made = [Window(tmp_path / f"Fall {seed}, ü", seed) for seed in seeds]
    painter = subprocess.Popen(
        [sys.executable, "-m", "tests.gui.crash_painter"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "QT_QPA_PLATFORM": "xcb", "PYTHONUTF8": "1"},
    )
    with painter:
        assert painter.stdin is not None
        assert painter.stdout is not None
        for window in made:
            painter.stdin.write(f"{window.seed} {window.folder}\n")
            painter.stdin.flush()
            window.pid = int(painter.stdout.readline())
        yield made
        for window in made:
            window.kill()
        painter.kill()


def check_that_they_come_back(
    windows: list[Window],
    make_table: Callable[[], Table],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows[0].begin()
    for window, after in zip_longest(windows, windows[1:]):
        killed = window.die()
        if after is not None:
            # It paints while this one is looked at.
            after.begin()
        check_what_is_left(window, killed, make_table(), monkeypatch)


def check_what_is_left(
    window: Window, killed: float, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    strokes = window.strokes()
    (crashed,) = find_crashed(window.sessions)
    session = restore(crashed)
    assert not session.damaged
    (labels,) = session.labels
    check_strokes(labels.data, strokes, killed)
    open_it(crashed, table, monkeypatch, labels.data)
    *slides, image = [each for each in table.viewer.layers if isinstance(each, Image)]
    (pair,) = table.controller.annotations.pairs
    assert pair.image is image
    if window.has_slide:
        (slide,) = slides
        check_field(slide, image, window)
    else:
        assert not slides
        np.testing.assert_array_equal(image.data, window.pixels)


def check_field(slide: Image, field: Image, window: Window) -> None:
    """Check that a field and its slide are open, and lie where they were."""
    np.testing.assert_array_equal(slide.data[0], window.pixels)
    noted = json.loads((window.folder / "field.json").read_text())
    np.testing.assert_allclose(field.translate, noted["place"])
    np.testing.assert_allclose(field.scale, (UM_PER_PX, UM_PER_PX))
    assert [str(unit) for unit in field.units] == ["micrometer", "micrometer"]
    y, x = np.rint(np.divide(noted["place"], UM_PER_PX)).astype(int)
    height, width, _ = noted["shape"]
    np.testing.assert_array_equal(
        field.data, window.pixels[y : y + height, x : x + width]
    )


def check_strokes(data: NDArray[Any], strokes: list[Stroke], killed: float) -> None:
    """Check that no earlier stroke is missing, and nothing else is there."""
    volume = data.reshape(-1, *data.shape[-2:])
    planes = volume.reshape(len(volume), -1)
    rest = planes.copy()
    for stroke in strokes:
        found = planes[stroke.plane][stroke.pixels]
        assert stroke.pixels
        if stroke.at < killed - LOST_S:
            assert (found == stroke.value).all(), killed - stroke.at
        assert set(found) <= {0, stroke.value}
        rest[stroke.plane][stroke.pixels] = 0
    # The one that was just being painted.
    _, y, x = np.nonzero(rest.reshape(volume.shape))
    assert len(set(zip(y // CELL_PX, x // CELL_PX, strict=True))) <= 1


def open_it(
    folder: Path, table: Table, monkeypatch: pytest.MonkeyPatch, data: NDArray[Any]
) -> None:
    monkeypatch.setattr(session_folder, "default_root", lambda: folder.parent)
    table.controller.place.open_again(folder)
    (layer,) = [each for each in table.viewer.layers if isinstance(each, Labels)]
    np.testing.assert_array_equal(layer.data, data)
    assert not find_crashed()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("windows", [range(5)], indirect=True)
def test_strokes_of_a_killed_napari_come_back(
    windows: list[Window], make_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_that_they_come_back(windows, make_table, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "windows", [range(first, first + 5) for first in range(5, 55, 5)], indirect=True
)
def test_they_come_back_whenever_it_is_killed(
    windows: list[Window], make_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_that_they_come_back(windows, make_table, monkeypatch)
