"""A window opens with files, or a sample, and the dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image as Picture

from napari_sparseseg.gui import launch
from napari_sparseseg.gui.label_and_train import LabelAndTrain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import napari

pytestmark = pytest.mark.usefixtures("stub_engine")


@pytest.fixture
def docks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[LabelAndTrain]]:
    """Remember docks, which end with the test."""
    opened: list[LabelAndTrain] = []
    original = launch.open_dock

    def open_one(viewer: napari.Viewer) -> LabelAndTrain:
        opened.append(original(viewer))
        return opened[-1]

    monkeypatch.setattr(launch, "open_dock", open_one)
    yield opened
    for dock in opened:
        dock.controller.close()


@pytest.fixture
def viewer(
    make_napari_viewer: Callable[..., napari.Viewer], monkeypatch: pytest.MonkeyPatch
) -> napari.Viewer:
    """Return the viewer that is opened next."""
    made = make_napari_viewer()
    monkeypatch.setattr("napari.Viewer", lambda **_: made)
    return made


def test_files_are_opened_side_by_side_and_bad_ones_told(
    docks: list[LabelAndTrain], viewer: napari.Viewer, tmp_path: Path, told: list[str]
) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png", "notes.xyz")]
    for each in files[:2]:
        Picture.fromarray(np.zeros((8, 9, 3), np.uint8)).save(each)
    files[2].write_bytes(b"no picture")
    assert launch.open_window(files) is viewer
    assert [layer.name for layer in viewer.layers] == ["a", "b"]
    assert len(told) == 1
    assert "notes.xyz cannot be opened" in told[0]
    (dock,) = docks
    assert isinstance(dock, LabelAndTrain)
    assert dock.dock.pairs.images.names == ["a", "b"]
    assert any(launch.DOCK in name for name in viewer.window.dock_widgets)


def test_a_sample_is_ready_to_train_on(
    docks: list[LabelAndTrain], viewer: napari.Viewer
) -> None:
    launch.open_window([], sample="immunohistochemistry")
    assert [(row.image, row.labels) for row in docks[0].state.pairs] == [
        ("tissue", "tissue strokes")
    ]


def test_the_dock_is_opened_once(
    docks: list[LabelAndTrain], viewer: napari.Viewer
) -> None:
    assert launch.open_dock(viewer) is launch.open_dock(viewer)
