"""Strokes are kept where the user wants them, and opened from there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.layers import Labels
from npe2 import PluginManager, PluginManifest
from qtpy.QtWidgets import QFileDialog

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import messages
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import session_folder, session_lock
from napari_sparseseg.gui.class_control import FIRST_CLASSES
from napari_sparseseg.gui.controller import CHECKPOINT
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.place_widget import PlaceWidget
from napari_sparseseg.gui.session_folder import find_crashed, has_labels, remove_empty
from napari_sparseseg.gui.session_labels import has_session, restore

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.state import State
    from tests.gui.conftest import Table

CLASSES = ClassTable().add("gland").add("stroma")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return where sessions are kept until the user names a place."""
    return tmp_path / "sessions"


@pytest.fixture
def mirror(root: Path) -> Mirror:
    return Mirror(root / "first.sparseseg", CLASSES)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return what the user names."""
    return tmp_path / "mine" / "liver.sparseseg"


def painted(name: str = "drawn", row: int = 4) -> Labels:
    data = np.zeros((16, 16), np.uint8)
    data[row, 2:9] = 1
    return Labels(data, name=name)


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def data_of(folder: Path) -> dict[str, list[int]]:
    """Return the painted rows by label layer, of what can be restored."""
    return {
        each.name: np.unique(each.data.nonzero()[0]).tolist()
        for each in restore(folder).labels
    }


def test_strokes_move_and_later_ones_follow(mirror: Mirror, place: Path) -> None:
    layer, other = painted(), painted("other", 7)
    mirror.update(layer)
    mirror.update(other)
    (mirror.first_folder / CHECKPOINT).write_bytes(b"of the training")
    mirror.move(place)
    assert mirror.folder == place
    assert data_of(place) == {"drawn": [4], "other": [7]}
    assert not has_session(mirror.first_folder)
    assert not list(mirror.first_folder.glob("labels-*"))
    assert (mirror.first_folder / CHECKPOINT).exists()

    layer.data[9, 3] = 2
    (change,) = mirror.update(layer)
    assert change.path.is_relative_to(place)
    assert change.region == (9, 3, 10, 4)
    mirror.update(painted("new", 1))
    assert data_of(place) == {"drawn": [4, 9], "other": [7], "new": [1]}
    assert restore(place).classes == CLASSES


def test_what_was_not_told_yet_is_told_with_the_new_file(
    mirror: Mirror, place: Path
) -> None:
    """An error in a later plane leaves changes that are told the next time."""
    data = np.zeros((2, 16, 16), np.int32)
    data[0, 4, 4] = 1
    data[1, 5, 5] = -3
    layer = Labels(data, name="drawn")
    with pytest.raises(Exception, match="-3"):
        mirror.update(layer)
    mirror.move(place)
    layer.data[1, 5, 5] = 2
    changes = mirror.update(layer)
    assert [change.plane.index for change in changes] == [(0,), (1,)]
    for change in changes:
        assert change.path.is_relative_to(place)
        assert np.load(change.path).any()


def test_a_named_place_stays_at_the_end(
    mirror: Mirror, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sparseseg.gui.mirror.is_saved", lambda _: True)
    mirror.update(painted())
    mirror.move(place)
    mirror.close()
    assert names_in(place) == ["labels-1", "manifest.json"]
    assert not mirror.first_folder.exists()


def test_a_place_may_be_named_again(
    mirror: Mirror, place: Path, tmp_path: Path
) -> None:
    mirror.update(painted())
    mirror.move(place)
    (place / "notes.txt").write_text("of the user")
    second = tmp_path / "second.sparseseg"
    mirror.move(second)
    assert names_in(place) == ["notes.txt"]
    assert data_of(second) == {"drawn": [4]}
    mirror.close()
    assert names_in(second) == ["labels-1", "manifest.json"]


def test_after_a_crash_the_named_place_is_found(
    mirror: Mirror, place: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.update(painted())
    mirror.move(place)
    assert not find_crashed(root)  # it is in use
    monkeypatch.setattr(session_folder, "is_in_use", lambda _: False)
    os.utime(mirror.first_folder / "open.json", (10, 10))
    remove_empty(root)
    assert find_crashed(root) == [place.resolve()]
    session_folder.release(place)  # as when it was opened
    assert not find_crashed(root)
    remove_empty(root)
    assert not mirror.first_folder.exists()
    assert data_of(place) == {"drawn": [4]}


def test_a_crash_while_strokes_move_loses_none(
    mirror: Mirror, place: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as there is a manifest at the first place, it counts."""
    mirror.update(painted())
    died: list[str] = []
    monkeypatch.setattr(session_folder, "is_in_use", lambda _: False)
    for last in ("_copy_planes", "note_place", "write_manifest", "remove_labels"):
        with monkeypatch.context() as patch:

            def die(*_: object, last: str = last) -> None:
                died.append(last)
                raise KeyboardInterrupt

            patch.setattr(f"napari_sparseseg.gui.mirror.{last}", die)
            with pytest.raises(KeyboardInterrupt):
                mirror.move(place)
        session_lock.unlock(place)  # as the end of the process does
        (crashed,) = find_crashed(root)
        assert data_of(crashed) == {"drawn": [4]}
        os.utime(mirror.first_folder / "open.json", (10, 10))
        remove_empty(root)
        assert data_of(crashed) == {"drawn": [4]}
        shutil.rmtree(place)
        mirror.folder = mirror.first_folder
    assert died == ["_copy_planes", "note_place", "write_manifest", "remove_labels"]


def test_what_is_not_ours_stays_where_it_is(mirror: Mirror, place: Path) -> None:
    place.mkdir(parents=True)
    (place / "labels-export").mkdir()
    (place / "training.safetensors").write_bytes(b"of the user")
    mirror.move(place)
    mirror.update(painted())
    mirror.move(place.with_name("second.sparseseg"))
    assert names_in(place) == ["labels-export", "training.safetensors"]


def test_after_the_disk_was_taken_away_strokes_are_written_anew(
    mirror: Mirror, place: Path, tmp_path: Path
) -> None:
    layer = painted()
    mirror.update(layer)
    mirror.move(place)
    shutil.rmtree(place)
    second = tmp_path / "second.sparseseg"
    mirror.move(second)
    assert mirror.is_due(layer)
    assert [change.region for change in mirror.go_on(layer)] == [(4, 2, 5, 9)]
    assert data_of(second) == {"drawn": [4]}


def test_a_place_that_is_gone_is_not_offered(
    mirror: Mirror, place: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.update(painted())
    mirror.move(place)
    shutil.rmtree(place)
    monkeypatch.setattr(session_folder, "is_in_use", lambda _: False)
    assert not find_crashed(root)


def test_the_place_of_another_session_is_refused(mirror: Mirror, place: Path) -> None:
    other = Mirror(place, CLASSES)
    other.update(painted("theirs", 1))
    layer = painted()
    mirror.update(layer)
    with pytest.raises(OutputError, match="holds the labels of another session"):
        mirror.move(place)
    other.close()
    with pytest.raises(OutputError, match="holds the labels of another session"):
        mirror.move(place)
    assert data_of(place) == {"theirs": [1]}
    assert data_of(mirror.first_folder) == {"drawn": [4]}
    layer.data[9, 3] = 2
    mirror.update(layer)
    assert data_of(mirror.first_folder) == {"drawn": [4, 9]}


@pytest.mark.parametrize("failing", ["note_place", "write_manifest"])
@pytest.mark.parametrize("opened", [False, True])
def test_what_cannot_be_written_there_stays_here(
    mirror: Mirror,
    place: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened: bool,
    failing: str,
) -> None:
    if opened:
        other = Mirror(place, CLASSES)
        other.update(painted("theirs", 1))
        other.close()
    layer = painted()
    mirror.update(layer)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"napari_sparseseg.gui.mirror.{failing}", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        mirror.move(place, opened=opened)
    assert mirror.folder == mirror.first_folder
    assert data_of(mirror.first_folder) == {"drawn": [4]}
    layer.data[9, 3] = 2
    mirror.update(layer)
    assert data_of(mirror.first_folder) == {"drawn": [4, 9]}
    if opened:
        assert data_of(place) == {"theirs": [1]}
        assert names_in(place) == ["labels-1", "manifest.json"]
    else:
        assert not place.exists()
    monkeypatch.setattr(session_folder, "is_in_use", lambda _: False)
    assert find_crashed(root) == [mirror.first_folder]


# In the window, but for the window.


def test_strokes_of_a_training_move_with_it(
    table: Table, qtbot: QtBot, place: Path
) -> None:
    _, layer = table.train(qtbot)
    table.controller.place.move(str(place.with_suffix("")))
    assert table.state.place == str(place)
    assert place.name in table.state.status
    # What was under way may have named the file of before.
    (again,) = table.link.taken(messages.PutImage)
    assert Path(again.labels).is_relative_to(place)
    layer.paint((50, 50), 1)
    (put,) = table.wait_for(qtbot, messages.PutImage)
    assert Path(put.labels).is_relative_to(place)
    np.testing.assert_array_equal(np.load(put.labels), layer.data)
    table.controller.place.move(str(place))  # where they are already
    assert table.mirror.folder == place


def keep_at(place: Path, *layers: Labels, classes: ClassTable = CLASSES) -> None:
    """Leave strokes at a place as another day did, one layer of them deleted."""
    before = Mirror(place, classes)
    for layer in layers:
        before.update(layer, "tile")
    deleted = painted("deleted", 13)
    before.update(deleted, "tile")
    before.forget(deleted)
    before.close()


def test_strokes_are_opened_and_kept_where_they_were(
    table: Table, qtbot: QtBot, place: Path
) -> None:
    keep_at(place, painted(), classes=FIRST_CLASSES.add("third"))
    table.add_painted(1)
    table.wait_for_counts(qtbot, 1)
    table.controller.place.open(str(place))
    layer = table.viewer.layers["drawn"]
    np.testing.assert_array_equal(layer.data, painted().data)
    assert table.mirror.folder == place
    assert data_of(place) == {"deleted": [13], "drawn": [4], "strokes": [8]}
    layer.data[9, 3] = 2
    layer.refresh()
    qtbot.waitUntil(lambda: data_of(place)["drawn"] == [4, 9], timeout=5000)


def test_classes_come_with_the_strokes_where_nothing_is_painted(
    table: Table, place: Path
) -> None:
    keep_at(place, painted())
    table.controller.place.open(str(place))
    assert table.state.classes == CLASSES


def test_classes_that_are_new_come_with_the_strokes(
    table: Table, qtbot: QtBot, place: Path
) -> None:
    theirs = FIRST_CLASSES.add("vessel", (9, 9, 200))
    strokes = painted()
    strokes.data[8, 2:9] = 3
    keep_at(place, strokes, classes=theirs)
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    mine = table.state.classes.add("other", (1, 2, 3)).removed(3)
    mine = mine.add("lumen")
    table.controller.classes.use(mine)
    table.controller.place.open(str(place))
    expected = ["background", "structure", "vessel", "lumen"]
    assert list(table.state.classes.names) == expected
    assert list(restore(place).classes.names) == expected
    assert table.state.classes.by_value(3).color == (9, 9, 200)


def test_strokes_of_other_classes_are_refused_where_some_are_painted(
    table: Table, qtbot: QtBot, place: Path, told: list[str]
) -> None:
    keep_at(place, painted())
    table.add_painted(2)
    table.wait_for_counts(qtbot, 2)
    table.controller.place.open(str(place))
    assert "'gland' there" in told[0]
    assert "'background' here" in told[0]
    assert told[0].endswith("Start another napari, and open it there before you paint.")
    assert "drawn" not in table.viewer.layers
    assert not table.mirror.has_place


@pytest.mark.parametrize("is_painted", [False, True])
def test_a_sample_makes_room_for_a_session_unless_it_was_painted_on(
    table: Table,
    qtbot: QtBot,
    npe2pm: PluginManager,
    place: Path,
    told: list[str],
    is_painted: bool,
) -> None:
    npe2pm.register(PluginManifest.from_distribution("napari-sparseseg"))
    keep_at(place, painted())
    image, strokes, *_ = table.viewer.open_sample("napari-sparseseg", "tissue_phantom")
    table.controller.pairs.add(image, strokes)
    if is_painted:
        strokes.paint((3, 3), 2)
    qtbot.waitUntil(lambda: has_labels(table.mirror.folder))
    table.controller.place.open(str(place))
    assert (image in table.viewer.layers) == is_painted
    if is_painted:
        assert "cannot be opened beside what was painted here" in told[0]
    else:
        assert not told
        assert [layer.name for layer in table.viewer.layers] == ["drawn"]
        assert table.state.classes == CLASSES


def test_a_place_that_was_named_stays_the_place(
    table: Table, place: Path, tmp_path: Path
) -> None:
    keep_at(place, painted())
    mine = tmp_path / "named.sparseseg"
    table.controller.place.move(str(mine))
    table.controller.place.open(str(place))
    assert table.mirror.folder == mine
    assert data_of(mine) == {"drawn": [4]}
    assert data_of(place) == {"deleted": [13], "drawn": [4]}
    assert not session_folder.is_in_use(place)


def test_what_a_crash_left_at_a_named_place_goes_on_there(
    table: Table, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_at(place, painted())
    control = table.controller.place
    control.open_again(place)
    assert table.mirror.folder == place
    # One that nobody had named is only a copy.
    other = tmp_path / "others" / "2026.sparseseg"
    keep_at(other, painted("theirs"))
    monkeypatch.setattr(session_folder, "default_root", lambda: other.parent)
    control.open_again(other)
    assert table.mirror.folder == place


def test_what_is_open_elsewhere_or_no_folder_of_strokes_is_refused(
    table: Table, place: Path, tmp_path: Path, told: list[str]
) -> None:
    other = Mirror(place, CLASSES)
    other.update(painted())
    table.controller.place.open(str(place))
    table.controller.place.open(str(tmp_path))
    assert "is open already" in told[0]
    assert "holds no strokes" in told[1]
    assert len(told) == 2
    assert not table.viewer.layers
    assert not table.mirror.has_place


def test_links_in_a_circle_are_no_session(
    table: Table, tmp_path: Path, told: list[str]
) -> None:
    loop = tmp_path / "loop.sparseseg"
    loop.symlink_to(loop)
    table.controller.place.open(str(loop))
    table.controller.place.move(str(loop))
    assert "holds no strokes" in told[0]
    assert "is in use by another napari, or is no folder" in told[1]
    assert len(told) == 2
    assert not table.mirror.has_place


def test_labels_whose_place_is_damaged_are_opened_without(
    table: Table, place: Path, told: list[str]
) -> None:
    other = Mirror(place, CLASSES)
    other.update(painted())
    other.close()
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["layers"][0]["placement"]["scale"] = ["far", None, 3]
    (place / "manifest.json").write_text(json.dumps(manifest))
    table.controller.place.open(str(place))
    (layer,) = table.viewer.layers
    np.testing.assert_array_equal(layer.data, painted().data)
    (sentence,) = told
    assert sentence.startswith("Where the labels 'drawn' lie cannot be read")


def test_folders_are_asked_for(
    no_leaks: None, qtbot: QtBot, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    widget = PlaceWidget(state)
    qtbot.addWidget(widget)
    named: list[str] = []
    opened: list[str] = []
    widget.place_named.connect(named.append)
    widget.opening_wished.connect(opened.append)
    for path in ("/a/liver.sparseseg", ""):
        monkeypatch.setattr(
            QFileDialog, "getSaveFileName", lambda *_, path=path: (path, "")
        )
        monkeypatch.setattr(
            QFileDialog, "getExistingDirectory", lambda *_, path=path: path
        )
        widget.keep_button.click()
        widget.open_button.click()
    assert (named, opened) == (["/a/liver.sparseseg"], ["/a/liver.sparseseg"])
    state.place = "/here"
    assert "/here" in widget.keep_button.toolTip()
