"""Fixtures for what is seen."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QCoreApplication, QEvent, QObject, Signal
from qtpy.QtWidgets import QApplication, QWidget

from napari_sparseseg.annotations.classes import ClassTable, LabelClass
from napari_sparseseg.engine import messages
from napari_sparseseg.gui import label_and_train, session_folder, settings
from napari_sparseseg.gui.controller import Controller
from napari_sparseseg.gui.engine_link import EngineLink
from napari_sparseseg.gui.label_and_train import LabelAndTrain
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.state import PairRow, State

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Labels
    from pytestqt.qtbot import QtBot

LeakCheck = Callable[[], AbstractContextManager[None]]

STUB = Path(__file__).with_name("stub_engine.py")

#: Of images on the table.
SIDE = 64


@contextmanager
def _without_leaks() -> Iterator[None]:
    before = set(QApplication.topLevelWidgets())

    def left() -> set[QWidget]:
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        return set(QApplication.topLevelWidgets()) - before

    yield
    if left():
        # Some may be garbage, which takes long to collect.
        gc.collect()
    leaked = left()
    assert not leaked, f"windows are left behind: {leaked}"


@pytest.fixture
def without_leaks(qapp: QApplication) -> LeakCheck:
    """Context in which no window may be left behind."""
    return _without_leaks


@pytest.fixture
def no_leaks(qapp: QApplication) -> Iterator[None]:
    """Fail the test if it leaves a window behind."""
    with _without_leaks():
        yield


@pytest.fixture
def state() -> State:
    """Return a state with three classes, one of them not painted, and two images."""
    return State(
        classes=ClassTable(
            (
                LabelClass(1, "background", (0, 0, 0)),
                LabelClass(4, "tumour", (200, 30, 30)),
                LabelClass(7, "stroma", (30, 200, 30)),
            ),
            frozenset({2}),
        ),
        selected=4,
        counts={1: (600, 5), 4: (1_400_000, 1)},
        pairs=(
            PairRow("first", "first strokes", True, 5),
            PairRow("second", "strokes", False, 1, "the shapes differ."),
        ),
        engine="ready",
    )


class FakeLink(QObject):
    """Remembers what is sent; tests say what the engine tells."""

    told = Signal(object)
    died = Signal(str, bool)
    slow = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Any] = []
        self.stopped = False
        self.restarts: list[str] = []

    def start(self) -> None:
        self.tell(
            messages.Ready(versions={}, devices=["cpu"], device_names=["CPU, 1 thread"])
        )

    def send(self, request: Any) -> None:
        self.sent.append(request)

    def restart(self, reason: str) -> None:
        self.restarts.append(reason)

    def stop(self) -> None:
        self.stopped = True

    def tell(self, event: Any) -> None:
        self.told.emit(event)

    def taken(self, *kinds: type[Any]) -> list[Any]:
        """Return what was sent of some kinds since it was last asked for."""
        found = [request for request in self.sent if isinstance(request, kinds)]
        self.sent = [request for request in self.sent if not isinstance(request, kinds)]
        return found


class Table:
    """A controller and all that is around it."""

    def __init__(self, folder: Path) -> None:
        self.viewer = ViewerModel()
        self.state = State()
        self.link = FakeLink()
        self.mirror = Mirror(folder / "test.sparseseg")
        self.controller = Controller(self.viewer, self.state, self.link, self.mirror)  # type: ignore[arg-type]
        self.viewer.layers.events.removed.connect(self._on_removed)
        self.viewer.layers.events.renamed.connect(self._on_renamed)

    def add_image(self, name: str = "tile", grey: bool = False) -> Image:
        pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        return self.viewer.add_image(pixels[..., 0] if grey else pixels, name=name)

    def add_painted(
        self, *values: int, name: str = "tile", grey: bool = False
    ) -> tuple[Image, Labels]:
        """Add an image, and labels with a stroke of each value."""
        image = self.add_image(name, grey)
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for value in values:
            labels[8 * value, 4:40] = value
        layer = self.viewer.add_labels(labels, name="strokes")
        self.controller.pairs.choose(image, layer)
        return image, layer

    def train(self, qtbot: QtBot) -> tuple[Image, Labels]:
        """Train on an image with strokes of the classes 1 and 2."""
        image, layer = self.add_painted(1, 2)
        self.wait_for_counts(qtbot, 1, 2)
        self.controller.train()
        self.link.tell(messages.PhaseChanged(phase="running", step=0))
        self.link.sent.clear()
        return image, layer

    def wait_for_counts(self, qtbot: QtBot, *values: int) -> None:
        qtbot.waitUntil(lambda: set(self.state.counts) == set(values), timeout=5000)

    def wait_for(self, qtbot: QtBot, *kinds: type[Any]) -> list[Any]:
        """Wait until something of these kinds was sent, and take it."""
        qtbot.waitUntil(
            lambda: any(isinstance(each, kinds) for each in self.link.sent),
            timeout=5000,
        )
        return self.link.taken(*kinds)

    def _on_removed(self, event: Any) -> None:
        self.controller.on_layer_removed(event.value)

    def _on_renamed(self, _event: Any) -> None:
        self.controller.on_layer_renamed()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Sentences that the user was shown; nothing in them may be unexpected."""
    sentences: list[str] = []
    monkeypatch.setattr(
        notification_manager, "dispatch", lambda each: sentences.append(each.message)
    )
    yield sentences
    for sentence in sentences:
        assert "\n" not in sentence
        assert "Traceback" not in sentence
        assert "unexpected" not in sentence


@pytest.fixture
def make_table(
    qtbot: QtBot, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Table]]:
    """Return what makes a controller with its own viewer, engine and mirror."""
    monkeypatch.setattr(settings, "keep", lambda state: None)
    made: list[Table] = []

    def make() -> Table:
        made.append(Table(tmp_path / str(len(made))))
        return made[-1]

    yield make
    for each in made:
        each.controller.close()


@pytest.fixture
def table(make_table: Callable[[], Table]) -> Table:
    return make_table()


@pytest.fixture
def stub_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let docks have an engine that does nothing, and files in the test's folder."""
    monkeypatch.setattr(session_folder, "default_root", lambda: tmp_path / "sessions")
    monkeypatch.setattr(label_and_train, "log_folder", lambda: tmp_path)
    monkeypatch.setattr(label_and_train, "start_log", lambda: None)
    monkeypatch.setattr(settings, "restore", lambda _: None)
    monkeypatch.setattr(settings, "keep", lambda _: None)
    monkeypatch.setattr(settings, "follow", lambda _: None)
    monkeypatch.setattr(
        label_and_train,
        "EngineLink",
        functools.partial(EngineLink, command=[sys.executable, str(STUB), "works"]),
    )


@pytest.fixture
def window(
    make_napari_viewer: Callable[..., napari.Viewer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[napari.Viewer, LabelAndTrain]]:
    """Return a real viewer with the dock, and the engine behind it."""
    monkeypatch.setattr(session_folder, "default_root", lambda: tmp_path / "sessions")
    monkeypatch.setattr(settings, "restore", lambda _: None)
    monkeypatch.setattr(settings, "keep", lambda _: None)
    monkeypatch.setattr(settings, "follow", lambda _: None)
    viewer = make_napari_viewer(show=True)
    # The larger, the longer it takes to draw without a graphics card.
    viewer.window.resize(1200, 800)
    widget = LabelAndTrain(viewer)
    viewer.window.add_dock_widget(widget, name="Label and train")
    yield viewer, widget
    widget.controller.close()
