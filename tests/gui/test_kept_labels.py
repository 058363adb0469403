"""Label layers are kept on disk, whether they are learned from or not."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from npe2 import PluginManager, PluginManifest

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.gui import kept_labels, mirror, planes, prediction_layer
from napari_sparseseg.gui.kept_labels import DEBOUNCE_MS, KeptLabels
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.planes import PlaneKey
from napari_sparseseg.gui.session_labels import restore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

SIDE = 32


class Desk:
    """A viewer whose labels are kept, and what is told of them."""

    def __init__(self, folder: Path) -> None:
        self.viewer = ViewerModel()
        self.mirror = Mirror(folder / "a.sparseseg")
        self.kept = KeptLabels(self.viewer, self.mirror, lambda _: "")
        self.told: list[tuple[Labels, Any]] = []
        self.failed: list[str] = []
        self.kept.compared.connect(lambda *each: self.told.append(each))
        self.kept.failed.connect(self.failed.append)

    def on_disk(self, layer: Labels) -> NDArray[Any]:
        """Return what a restart would bring back of a layer."""
        found: NDArray[Any] = np.zeros(layer.data.shape, np.uint16)
        for plane, path in self.mirror.annotated(layer).items():
            found[plane.index] = np.load(path)
        return found

    def wait_for(self, qtbot: QtBot, layer: Labels) -> None:
        def is_kept() -> bool:
            return np.array_equal(self.on_disk(layer), np.asarray(layer.data))

        qtbot.waitUntil(is_kept, timeout=5000)


@pytest.fixture
def desk(qtbot: QtBot, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.kept.close()


def stack(*painted: int, n: int = 6) -> NDArray[np.uint8]:
    """Return labels with a stroke on some planes."""
    data = np.zeros((n, SIDE, SIDE), np.uint8)
    data[list(painted), 4, 5:15] = 1
    return data


def test_strokes_on_any_layer_are_on_disk(desk: Desk, qtbot: QtBot) -> None:
    layers = [desk.viewer.add_labels(stack(), name=name) for name in "ab"]
    for layer in layers:
        layer.paint((0, 20, 20), 2)
    for layer in layers:
        desk.wait_for(qtbot, layer)
        assert layer.data.any()
    names = [each.name for each in restore(desk.mirror.folder).labels]
    assert names == ["a", "b"]


def test_layers_that_are_there_already_are_kept(qtbot: QtBot, tmp_path: Path) -> None:
    viewer = ViewerModel()
    layer = viewer.add_labels(stack(3))
    mirror = Mirror(tmp_path / "a.sparseseg")
    kept = KeptLabels(viewer, mirror, lambda _: "tile")
    qtbot.waitUntil(lambda: bool(mirror.annotated(layer)), timeout=5000)
    (labels,) = restore(mirror.folder).labels
    np.testing.assert_array_equal(labels.data, layer.data)
    assert labels.image == "tile"
    kept.close()


def test_layers_that_nobody_paints_on_are_left_out(desk: Desk, qtbot: QtBot) -> None:
    levels = [np.ones((SIDE, SIDE), np.uint8), np.ones((16, 16), np.uint8)]
    multiscale = desk.viewer.add_labels(levels, multiscale=True)
    prediction = Labels(stack(1))
    prediction_layer.MADE.add(prediction)
    desk.viewer.add_layer(prediction)
    desk.viewer.dims.set_current_step(0, 1)
    prediction.refresh()
    qtbot.wait(2 * DEBOUNCE_MS)
    desk.kept.flush()
    for layer in (multiscale, prediction):
        assert not desk.mirror.knows(layer)
    assert not desk.told
    assert not desk.failed


@pytest.mark.parametrize("origin", ["file", "sample", "dask"])
def test_what_is_on_disk_already_is_kept_once_it_is_painted_on(
    desk: Desk, qtbot: QtBot, tmp_path: Path, origin: str, npe2pm: PluginManager
) -> None:
    for distribution in ("napari", "napari-sparseseg"):
        npe2pm.register(PluginManifest.from_distribution(distribution))
    if origin == "file":
        np.save(tmp_path / "a.npy", stack(2, 4))
        (layer,) = desk.viewer.open(
            tmp_path / "a.npy", plugin="napari", layer_type="labels"
        )
    elif origin == "sample":
        layer = desk.viewer.open_sample("napari-sparseseg", "tissue_phantom")[1]
    else:
        lazy = da.from_array(stack(2, 4))  # type: ignore[no-untyped-call]
        layer = desk.viewer.add_labels(lazy)
    # As the slider does.
    layer.refresh()
    qtbot.wait(2 * DEBOUNCE_MS)
    desk.kept.flush()
    assert not desk.mirror.annotated(layer)
    layer.paint((0,) * (layer.ndim - 2) + (20, 20), 9)
    desk.wait_for(qtbot, layer)
    layer.undo()
    desk.wait_for(qtbot, layer)


def test_undo_on_another_plane_is_kept(desk: Desk, qtbot: QtBot) -> None:
    layer = desk.viewer.add_labels(stack(0, 1, 2))
    desk.wait_for(qtbot, layer)
    layer.paint((0, 20, 20), 2)
    desk.wait_for(qtbot, layer)
    desk.viewer.dims.set_current_step(0, 5)
    qtbot.wait(2 * DEBOUNCE_MS)
    desk.told.clear()
    layer.undo()
    desk.wait_for(qtbot, layer)
    changes = [change for _, each in desk.told for change in each]
    assert [change.plane for change in changes] == [PlaneKey((0,))]


def test_the_plane_on_the_canvas_comes_first(
    desk: Desk, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 40
    layer = desk.viewer.add_labels(stack(*range(n), n=n))
    desk.kept.flush()
    read: list[tuple[float, PlaneKey]] = []
    original = planes.read_label_plane

    def slow(layer: Labels, plane: PlaneKey) -> Any:
        time.sleep(0.003)
        read.append((time.perf_counter(), plane))
        return original(layer, plane)

    monkeypatch.setattr(mirror, "read_label_plane", slow)
    desk.viewer.dims.set_current_step(0, 7)
    layer.paint((7, 20, 20), 2)
    desk.told.clear()
    qtbot.waitUntil(lambda: bool(desk.told), timeout=5000)
    # All at once would be what a window with many annotated planes waits for.
    assert [plane for _, plane in read] == [PlaneKey((7,))]
    qtbot.waitUntil(lambda: {key for _, key in read} == set(keys(n)), timeout=5000)
    assert len(read) == n
    moments = [moment for moment, _ in read]
    pauses = np.diff(moments)
    assert (pauses > kept_labels.PAUSE_MS / 1000).mean() > 0.9


def test_what_a_script_writes_is_kept_wherever_it_is(desk: Desk, qtbot: QtBot) -> None:
    """It writes into the array itself, and has the layer drawn anew."""
    layer = desk.viewer.add_labels(stack(1))
    desk.viewer.dims.set_current_step(0, 0)
    desk.wait_for(qtbot, layer)
    layer.refresh()
    qtbot.wait(2 * DEBOUNCE_MS)
    layer.data[5, 20, 20] = 3
    layer.refresh()
    desk.wait_for(qtbot, layer)


def test_the_slider_has_only_the_plane_that_it_shows_compared(
    desk: Desk, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.viewer.add_labels(stack(1))
    desk.viewer.dims.set_current_step(0, 2)
    desk.kept.flush()
    read: set[PlaneKey] = set()
    original = planes.read_label_plane

    def note(layer: Labels, plane: PlaneKey) -> Any:
        read.add(plane)
        return original(layer, plane)

    monkeypatch.setattr(mirror, "read_label_plane", note)
    desk.viewer.dims.set_current_step(0, 4)
    qtbot.waitUntil(lambda: PlaneKey((4,)) in read, timeout=5000)
    desk.kept.flush()
    assert read <= {PlaneKey((4,)), PlaneKey((1,))}


def keys(n: int) -> list[PlaneKey]:
    return [PlaneKey((index,)) for index in range(n)]


def test_a_stroke_is_kept_while_it_is_painted_and_told_when_it_is_over(
    desk: Desk, qtbot: QtBot
) -> None:
    """Somebody may fill an organ for a minute without letting the mouse go."""
    desk.kept._during.setInterval(50)
    layer = desk.viewer.add_labels(stack(1))
    desk.viewer.dims.set_current_step(0, 0)
    desk.kept.flush()
    desk.told.clear()
    with layer.block_history():
        for x in (5, 12, 19):
            layer.paint((0, 20, x), 2)
            desk.wait_for(qtbot, layer)
            assert not any(changes for _, changes in desk.told)
    qtbot.waitUntil(lambda: any(changes for _, changes in desk.told), timeout=5000)
    planes = {change.plane for _, changes in desk.told for change in changes}
    assert planes == {PlaneKey((0,))}


def test_the_rest_is_compared_at_once_where_that_is_needed(desk: Desk) -> None:
    layer = desk.viewer.add_labels(stack(*range(6)))
    desk.kept.flush()
    layer.data_setitem(np.nonzero(np.asarray(layer.data)), 0)
    desk.kept._look()
    assert desk.on_disk(layer).any()
    desk.kept.flush()
    assert not desk.on_disk(layer).any()


def test_values_that_are_no_classes_are_no_concern_of_the_user(
    desk: Desk, qtbot: QtBot
) -> None:
    """Another plugin may number objects."""
    objects = desk.viewer.add_labels(np.full((SIDE, SIDE), 70_000), name="objects")
    layer = desk.viewer.add_labels(stack(1))
    desk.wait_for(qtbot, layer)
    assert "objects" in str(desk.kept.unkept[objects])
    assert not desk.failed
    # Once it can be kept it is.
    objects.data = np.full((SIDE, SIDE), 7)
    desk.wait_for(qtbot, objects)
    assert objects not in desk.kept.unkept


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_or_read_only_is_told_once_whatever_was_painted_on(
    desk: Desk, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    desk.kept._retry.setInterval(200)
    layers = [desk.viewer.add_labels(stack(), name=name) for name in "ab"]
    desk.viewer.dims.set_current_step(0, 0)
    desk.kept.flush()

    def fail(*_: Any) -> None:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "write_rows", fail)
        for layer in layers:
            layer.paint((0, 20, 20), 2)
        qtbot.wait(6 * DEBOUNCE_MS)
        assert set(desk.kept.unkept) == set(layers)
        assert len(desk.failed) == 1
        assert os.strerror(reason) in desk.failed[0]
    for layer in layers:
        desk.wait_for(qtbot, layer)
    assert not desk.kept.unkept
    assert len(desk.failed) == 1


def test_deleted_layers_are_followed_no_more_but_stay_on_disk(
    desk: Desk, qtbot: QtBot
) -> None:
    layer = desk.viewer.add_labels(stack(1))
    layer.paint((0, 20, 20), 2)
    last = layer.data.copy()
    desk.viewer.layers.remove(layer)
    desk.kept.forget(layer)
    layer.paint((0, 9, 9), 3)
    qtbot.wait(2 * DEBOUNCE_MS)
    (labels,) = restore(desk.mirror.folder).labels
    assert not labels.present
    np.testing.assert_array_equal(labels.data, last)


def test_a_layer_that_comes_back_is_kept_again(desk: Desk, qtbot: QtBot) -> None:
    layer = desk.viewer.add_labels(stack(1))
    desk.kept.flush()
    desk.viewer.layers.remove(layer)
    desk.kept.forget(layer)
    desk.viewer.add_layer(layer)
    desk.wait_for(qtbot, layer)
    gone, back = restore(desk.mirror.folder).labels
    assert (gone.present, back.present) == (False, True)


def test_nothing_is_followed_after_the_end(desk: Desk, qtbot: QtBot) -> None:
    desk.mirror.use_classes(ClassTable().add("gland"))
    before = desk.viewer.add_labels(stack(1), name="before")
    desk.kept.close()
    np.testing.assert_array_equal(desk.on_disk(before), before.data)
    before.paint((0, 20, 20), 2)
    desk.viewer.add_labels(stack(1), name="after")
    qtbot.wait(2 * DEBOUNCE_MS)
    assert not desk.on_disk(before)[0].any()
    assert [each.name for each in restore(desk.mirror.folder).labels] == ["before"]
