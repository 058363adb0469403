"""The list of images: files are read, opened when chosen, and shown one at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest
from PIL import Image as Picture
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from napari_sparseseg.annotations.classes import ClassTable, write_class_table
from napari_sparseseg.engine import messages
from napari_sparseseg.gui import (
    added_files,
    listed_files,
    opened_files,
    session_folder,
)
from napari_sparseseg.gui.added_files import CANCELLED
from napari_sparseseg.gui.annotations import Pair
from napari_sparseseg.gui.image_layers import path_of
from napari_sparseseg.gui.image_list import ALL_LEARNED, FIRST, LAST, LEARNED_WHOLE
from napari_sparseseg.gui.kept_list import records_of
from napari_sparseseg.gui.listed_files import ListedFile
from napari_sparseseg.gui.planes import PlaneKey
from napari_sparseseg.gui.restore_question import STROKES, offer
from napari_sparseseg.gui.session_folder import find_crashed
from napari_sparseseg.gui.session_list import FILE, ListRecord, read_kept_list
from napari_sparseseg.io.label_pairs import find_pairs, read_planes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from pytestqt.qtbot import QtBot

    from tests.gui.conftest import Table

SIDE = 32
CLASSES = ClassTable().add("background").add("gland")


def write_image(path: Path, grey: bool = False) -> None:
    """Write an image of noise."""
    shape = (SIDE, SIDE) if grey else (SIDE, SIDE, 3)
    rng = np.random.default_rng(len(path.name))
    Picture.fromarray(rng.integers(0, 255, shape, np.uint8)).save(path)


def strokes(*rows: int) -> np.ndarray:
    """Return labels with a stroke of class 1, and one of class 2 in each row."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[1, 2:20] = 1
    for row in rows:
        labels[row, 2:20] = 2
    return labels


def dense() -> np.ndarray:
    """Return labels of all pixels."""
    labels = np.ones((SIDE, SIDE), np.uint8)
    labels[10:20, 10:20] = 2
    return labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a sparse, a dense and an unlabelled image."""
    place = tmp_path / "tiles of 2024 é"
    place.mkdir()
    for name, labels in (("a", strokes(8)), ("b", dense()), ("c", None)):
        write_image(place / f"{name}.png")
        if labels is not None:
            Picture.fromarray(labels).save(place / f"{name}_labels.png")
            write_class_table(place / f"{name}_labels.classes.json", CLASSES)
    return place


def add(table: Table, qtbot: QtBot, *places: Path) -> None:
    """Add folders and files, and wait until they are read."""
    table.controller.list.add([str(place) for place in places])
    settle(table, qtbot)


def settle(table: Table, qtbot: QtBot) -> None:
    """Wait until all is read, opened and closed that was to be."""
    control = table.controller.list
    qtbot.waitUntil(
        lambda: not control.is_opening and table.state.reading is None, timeout=20000
    )


def go(table: Table, qtbot: QtBot, place: int) -> None:
    table.controller.list.go(place)
    settle(table, qtbot)


def step(table: Table, qtbot: QtBot, by: int) -> None:
    table.controller.list.step(by)
    settle(table, qtbot)


def names(table: Table) -> list[str]:
    return [layer.name for layer in table.viewer.layers]


def seen(table: Table) -> list[str]:
    return [layer.name for layer in table.viewer.layers if layer.visible]


def test_a_folder_is_listed_and_only_the_first_is_opened(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    add(table, qtbot, folder)
    rows = table.state.pairs
    assert [(row.image, row.kind, row.is_open) for row in rows] == [
        ("a", "sparse", True),
        ("b", "dense", False),
        ("c", "sparse", False),
    ]
    assert [row.strokes for row in rows[1:]] == [2, 0]
    assert names(table) == ["a", "a labels"]
    assert table.state.classes.names == ("background", "gland")
    assert rows[0].is_chosen
    assert table.state.why_no_step == (FIRST, "")


def test_all_that_is_ticked_is_learned_from_with_its_kind(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    add(table, qtbot, folder)
    table.wait_for_counts(qtbot, 1, 2)
    wished = messages.TrainingSettings(dense_share=0.5)
    table.controller.use_settings(wished)
    table.controller.train()
    sent = {put.name: put for put in table.link.taken(messages.PutImage)}
    assert {name: put.dense for name, put in sent.items()} == {"a": False, "b": True}
    np.testing.assert_array_equal(np.load(sent["b"].labels), dense())
    np.testing.assert_array_equal(
        np.load(sent["b"].pixels), np.array(Picture.open(folder / "b.png"))
    )
    (start,) = table.link.taken(messages.Start)
    assert start.settings.dense_share == 0.5
    # While it goes on: another kind, and no tick.
    table.controller.list.set_kind(1, "sparse")
    (put,) = table.link.taken(messages.PutImage)
    assert (put.name, put.dense) == ("b", False)
    table.controller.pairs.tick(1, False)
    (gone,) = table.link.taken(messages.RemoveImage)
    assert gone.name == "b"
    table.controller.pairs.tick(1, True)
    # Opening it changes nothing but where its pixels are.
    table.link.sent.clear()
    go(table, qtbot, 1)
    assert {put.name for put in table.link.taken(messages.PutImage)} == {"b"}
    assert not table.link.taken(messages.RemoveImage, messages.Start)


def test_many_files_are_told_of_together_and_not_one_by_one(
    table: Table, qtbot: QtBot, tmp_path: Path
) -> None:
    for number in range(20):
        write_image(tmp_path / f"{number:02}.png")
        Picture.fromarray(strokes(8)).save(tmp_path / f"{number:02}_mask.png")
    shown: list[int] = []
    control = table.controller.list
    control.add([str(tmp_path)])
    control.changed.connect(lambda: shown.append(table.controller.images.n_waiting))
    settle(table, qtbot)
    assert shown[-1] == 0
    assert len(shown) < 10, "of a hundred files the window would stand still"
    assert [row.strokes for row in table.state.pairs[1:]] == [2] * 19


def test_a_file_that_was_opened_before_it_was_read_can_be_closed_again(
    table: Table, qtbot: QtBot, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_files, "MOST_OPEN", 1)
    add(table, qtbot, folder)
    first = table.controller.images.entries[0]
    assert isinstance(first, Pair)
    assert first.file is not None
    assert first.file.planes, "the first is opened at once, before it is read"
    go(table, qtbot, 1)
    assert names(table) == ["b", "b labels"]


def test_labels_that_cover_an_image_let_it_shine_through(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    (folder / "a.png").unlink()
    (folder / "a_labels.png").unlink()
    # Opened at once, before it is known to be dense.
    add(table, qtbot, folder)
    assert table.viewer.layers["b labels"].opacity == opened_files.DENSE_OPACITY
    go(table, qtbot, 1)
    assert table.viewer.layers["c strokes"].opacity == 1.0


def test_what_a_listed_image_is_of_is_kept(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    add(table, qtbot, folder)
    assert path_of(table.viewer.layers["a"]) == str(folder / "a.png")


def test_one_image_is_shown_at_a_time_and_what_was_visible_comes_back(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    add(table, qtbot, folder)
    step(table, qtbot, 1)
    assert seen(table) == ["b", "b labels"]
    table.viewer.layers["b labels"].visible = False
    step(table, qtbot, 1)
    assert seen(table) == ["c", "c strokes"]
    assert table.state.why_no_step == ("", LAST)
    step(table, qtbot, 1)
    assert seen(table) == ["c", "c strokes"]
    step(table, qtbot, -1)
    assert seen(table) == ["b"], "what the user has hidden stays hidden"
    step(table, qtbot, -1)
    assert seen(table) == ["a", "a labels"]
    assert table.viewer.layers.selection.active is table.viewer.layers["a labels"]
    # The tool goes along.
    table.viewer.layers["a labels"].mode = "erase"
    table.viewer.layers["a labels"].brush_size = 9
    go(table, qtbot, 2)
    labels = table.viewer.layers["c strokes"]
    assert (labels.mode, labels.brush_size) == ("erase", 9)
    table.controller.list.close()
    assert seen(table) == ["a", "a labels", "b", "c", "c strokes"]


def test_only_few_are_open_but_what_was_painted_stays(
    table: Table, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_files, "MOST_OPEN", 2)
    for number in range(6):
        write_image(tmp_path / f"{number}.png")
        labels = tmp_path / f"{number}_mask.tif"
        Picture.fromarray(strokes(8)).save(labels)
    add(table, qtbot, tmp_path)
    painted = table.viewer.layers["0 labels"]
    painted.data_setitem((np.full(5, 20), np.arange(5)), 2)
    for _ in range(5):
        step(table, qtbot, 1)
    assert names(table) == ["0", "0 labels", "4", "4 labels", "5", "5 labels"]
    assert [row.image for row in table.state.pairs] == list("012345")
    closed = [row.image for row in table.state.pairs if not row.is_open]
    assert closed == ["1", "2", "3"]
    # What is closed leaves nothing in the session, and can be opened again.
    assert len(list(table.mirror.folder.glob("labels-*"))) == 3
    go(table, qtbot, 2)
    np.testing.assert_array_equal(table.viewer.layers["2 labels"].data, strokes(8))
    assert table.state.pairs[2].is_chosen
    assert table.state.counts[1][1] == 6


def test_what_cannot_be_used_is_named_and_the_rest_added(
    table: Table, qtbot: QtBot, folder: Path, told: list[str]
) -> None:
    Picture.fromarray(dense()[:9]).save(folder / "c_labels.png")
    (folder / "d.png").write_bytes(b"no picture")
    Picture.fromarray(dense()).save(folder / "d_labels.png")
    (folder / "notes.txt").write_text("mine")
    add(table, qtbot, folder)
    bad = [row.image for row in table.state.pairs if row.problem]
    assert bad == ["c", "d"]
    assert "c.png" in table.state.pairs[2].problem
    assert "d.png" in table.state.pairs[3].problem
    assert [sentence[:31] for sentence in told] == ["2 files cannot be used, and the"]
    # There is nothing to go to behind the last that can be used.
    go(table, qtbot, 1)
    assert table.state.why_no_step == ("", LAST)
    go(table, qtbot, 3)
    assert "d.png" in told[-1]
    assert names(table) == ["a", "a labels", "b", "b labels"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "no image in the folder"),
        ("gone.png", "gone.png is not there any more"),
        ("notes.txt", "notes.txt is no image that can be listed"),
        ("x_labels.png", "x_labels.png is a label map without an image"),
    ],
)
def test_bad_places_are_told_in_one_sentence(
    table: Table, qtbot: QtBot, tmp_path: Path, told: list[str], name: str, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    Picture.fromarray(dense()).save(tmp_path / "x_labels.png")
    add(table, qtbot, tmp_path / name)
    assert words in " ".join([*told, *(row.problem for row in table.state.pairs)])


def test_scores_stand_at_their_images_and_else_why_there_is_none(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    add(table, qtbot, folder)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    score = messages.Score(overall=0.8, dice={1: 0.8}, strokes={1: 1})

    def tell(**images: float) -> None:
        table.link.tell(
            messages.Validated(
                step=9, scores={"head": score}, shown="head", reason="", images=images
            )
        )

    tell(b=0.75)
    rows = table.state.pairs
    assert [row.score for row in rows] == [None, 0.75, None]
    assert rows[0].no_score == ALL_LEARNED
    assert "Nothing is labelled" in rows[2].no_score
    tell(a=0.5)
    assert [row.score for row in table.state.pairs] == [0.5, None, None]
    assert table.state.pairs[1].no_score == LEARNED_WHOLE


def test_next_goes_through_the_annotated_planes_of_a_volume(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    volume = table.viewer.add_image(np.zeros((5, SIDE, SIDE, 3), np.uint8), name="ct")
    labels = np.zeros((5, SIDE, SIDE), np.uint8)
    labels[1, 3, 3:9] = labels[3, 5, 3:9] = 1
    labels[3, 9, 3:9] = 2
    layer = table.viewer.add_labels(labels, name="ct strokes")
    table.controller.pairs.choose(volume, layer)
    table.wait_for_counts(qtbot, 1, 2)
    add(table, qtbot, folder)
    assert table.state.pairs[0].planes == 2
    control = table.controller.list
    control.go(0, PlaneKey((0,)))
    places = []
    for _ in range(3):
        step(table, qtbot, 1)
        places.append((table.state.pairs[0].is_chosen, control.plane))
    assert places[:2] == [(True, PlaneKey((1,))), (True, PlaneKey((3,)))]
    assert table.state.pairs[1].is_chosen
    step(table, qtbot, -1)
    assert control.plane == PlaneKey((3,))


def test_files_of_other_channels_do_not_fit(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    write_image(folder / "grey.png", grey=True)
    Picture.fromarray(strokes(9)).save(folder / "grey_labels.png")
    add(table, qtbot, folder)
    table.wait_for_counts(qtbot, 1, 2)
    assert "grey has 1 channel(s), but a" in table.state.pairs[3].problem
    assert not table.state.cannot_train


def test_a_class_in_a_file_is_not_deleted(
    table: Table, qtbot: QtBot, folder: Path, told: list[str]
) -> None:
    add(table, qtbot, folder)
    table.controller.classes.delete(2)
    assert "labelled in 1 file of the list, b among them" in told[-1]
    table.controller.pairs.remove(1)
    table.controller.classes.delete(2)
    assert table.state.classes.names == ("background",)


def test_the_same_folder_is_not_listed_twice(
    table: Table, qtbot: QtBot, folder: Path, told: list[str]
) -> None:
    add(table, qtbot, folder)
    add(table, qtbot, folder)
    assert len(table.state.pairs) == 3
    assert "in the list already" in told[-1]


def test_a_session_keeps_and_restores_the_list(
    table: Table,
    qtbot: QtBot,
    folder: Path,
    make_table: Callable[[], Table],
    tmp_path: Path,
) -> None:
    add(table, qtbot, folder)
    table.controller.list.set_kind(2, "dense")
    table.controller.pairs.tick(1, False)
    place = tmp_path / "kept.sparseseg"
    table.controller.place.move(str(place))
    assert (place / FILE).exists()
    table.controller.close()
    other = make_table()
    other.controller.place.open(str(place))
    settle(other, qtbot)
    assert [
        (row.image, row.ticked, row.kind, row.is_kind_chosen)
        for row in other.state.pairs
    ] == [
        ("a", True, "sparse", False),
        ("b", False, "dense", False),
        ("c", True, "dense", True),
    ]
    assert isinstance(other.controller.images.entries[1], ListedFile)
    add(other, qtbot, folder)
    assert len(other.state.pairs) == 3


def test_a_restored_list_shows_the_image_that_is_worked_on_alone(
    table: Table,
    npe2pm: PluginManager,
    qtbot: QtBot,
    folder: Path,
    make_table: Callable[[], Table],
    tmp_path: Path,
) -> None:
    for distribution in ("napari", "napari-sparseseg"):
        npe2pm.register(PluginManifest.from_distribution(distribution))
    add(table, qtbot, folder)
    go(table, qtbot, 1)
    place = tmp_path / "kept.sparseseg"
    table.controller.place.move(str(place))
    table.controller.close()
    other = make_table()
    other.controller.place.open(str(place))
    settle(other, qtbot)
    current = other.controller.pairs.current
    assert current is not None
    assert set(seen(other)) == {current.image.name, current.labels.name}
    assert set(names(other)) == {"a", "a labels", "b", "b labels"}
    assert other.viewer.layers.selection.active is current.labels
    assert other.viewer.layers["b labels"].opacity == opened_files.DENSE_OPACITY


def test_files_of_a_session_that_are_gone_are_named(
    table: Table, qtbot: QtBot, folder: Path, tmp_path: Path
) -> None:
    add(table, qtbot, folder)
    place = tmp_path / "kept.sparseseg"
    table.controller.place.move(str(place))
    folder.rename(tmp_path / "elsewhere")
    records = read_kept_list(place)
    assert len(records) == 3
    table.controller.list.take_over(
        [each for each in records if each.path.endswith("c.png")]
    )
    assert len(table.state.pairs) == 3


def test_a_list_without_labels_is_offered_after_a_crash(
    table: Table,
    qtbot: QtBot,
    make_table: Callable[[], Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashed = table.mirror.folder
    place = tmp_path / "unlabelled"
    place.mkdir()
    write_image(place / "a.png")
    add(table, qtbot, place)
    qtbot.waitUntil(lambda: (crashed / FILE).exists(), timeout=5000)
    monkeypatch.setattr(session_folder, "is_in_use", lambda _: False)
    assert find_crashed(crashed.parent) == [], "a single file is added in no time"
    write_image(place / "b.png")
    add(table, qtbot, place)
    qtbot.waitUntil(lambda: len(read_kept_list(crashed)) == 2, timeout=5000)
    monkeypatch.setattr(session_folder, "default_root", lambda: crashed.parent)
    other, parent = make_table(), QWidget()
    qtbot.addWidget(parent)
    box = offer(parent, STROKES, {STROKES: other.controller.place.open_again})
    assert box is not None
    assert "Your list of images of" in box.text()
    (button,) = [each for each in box.buttons() if each.text() == "Open"]
    button.click()
    settle(other, qtbot)
    assert [row.image for row in other.state.pairs] == ["a", "b"]
    # Else a second crash would lose it.
    assert len(read_kept_list(other.mirror.folder)) == 2
    assert not (crashed / "open.json").exists()


@pytest.mark.parametrize("change", ["tick", "kind"])
def test_what_was_chosen_of_a_single_file_is_worth_keeping(
    table: Table, qtbot: QtBot, tmp_path: Path, change: str
) -> None:
    write_image(tmp_path / "a.png")
    add(table, qtbot, tmp_path / "a.png")
    if change == "tick":
        table.controller.pairs.tick(0, False)
    else:
        table.controller.list.set_kind(0, "dense")
    place = tmp_path / "kept.sparseseg"
    table.controller.place.move(str(place))
    table.controller.close()
    assert len(read_kept_list(place)) == 1


def test_folders_are_looked_through_and_files_decoded_in_threads(
    table: Table, qtbot: QtBot, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, int] = {}

    def watch(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def watched(*values: Any) -> Any:
            threads[name] = threading.get_ident()
            return real(*values)

        monkeypatch.setattr(module, name, watched)

    watch(added_files, "find_pairs")
    watch(opened_files, "open_image")
    watch(opened_files, "read_labels")
    watch(listed_files, "read_planes")
    add(table, qtbot, folder)
    assert len(threads) == 4
    assert threading.get_ident() not in threads.values()


def test_layers_come_and_go_in_turns_of_their_own(
    table: Table, qtbot: QtBot, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_files, "MOST_OPEN", 1)
    add(table, qtbot, folder)
    turns, ticks = [0], QTimer()
    ticks.timeout.connect(lambda: turns.append(len(turns)))
    when: list[int] = []
    for name in ("inserted", "removed"):
        event = getattr(table.viewer.layers.events, name)
        event.connect(lambda _: when.append(turns[-1]))
    ticks.start(0)
    go(table, qtbot, 1)
    ticks.stop()
    assert names(table) == ["b", "b labels"]
    assert len(set(when)) == 4, "two come, two go"


def test_of_images_that_are_gone_through_quickly_only_the_last_is_opened(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    add(table, qtbot, folder)
    table.controller.list.step(1)
    table.controller.list.step(1)
    settle(table, qtbot)
    assert names(table) == ["a", "a labels", "c", "c strokes"]
    assert table.state.pairs[2].is_chosen
    # Back to one that is open, before the other is.
    table.controller.list.go(1)
    table.controller.list.go(0)
    settle(table, qtbot)
    assert seen(table) == ["a", "a labels"]
    assert table.state.pairs[0].is_chosen


def test_an_image_that_is_deleted_before_its_labels_come_is_left_alone(
    table: Table, qtbot: QtBot, folder: Path, told: list[str]
) -> None:
    add(table, qtbot, folder)
    layers = table.viewer.layers
    layers.events.inserted.connect(
        lambda event: QTimer.singleShot(0, lambda: layers.remove(event.value))
    )
    table.controller.list.go(1)
    qtbot.waitUntil(lambda: table.controller.list.is_opening)
    settle(table, qtbot)
    assert names(table) == ["a", "a labels"]
    assert [row.image for row in table.state.pairs] == ["a", "b", "c"]
    assert told == []


def test_an_image_that_is_removed_before_it_is_open_is_not_opened(
    table: Table, qtbot: QtBot, folder: Path
) -> None:
    add(table, qtbot, folder)
    table.controller.list.go(1)
    table.controller.pairs.remove(1)
    settle(table, qtbot)
    assert names(table) == ["a", "a labels"]
    assert [row.image for row in table.state.pairs] == ["a", "c"]


def test_an_image_that_is_removed_while_it_is_added_goes_again(
    table: Table, qtbot: QtBot, folder: Path, told: list[str]
) -> None:
    add(table, qtbot, folder)
    table.viewer.layers.events.inserted.connect(
        lambda _: QTimer.singleShot(0, lambda: table.controller.pairs.remove(1))
    )
    table.controller.list.go(1)
    qtbot.waitUntil(lambda: table.controller.list.is_opening)
    settle(table, qtbot)
    assert names(table) == ["a", "a labels"]
    assert [row.image for row in table.state.pairs] == ["a", "c"]
    assert told == []


def test_an_image_that_is_not_wished_for_any_more_is_closed_before_others(
    table: Table, qtbot: QtBot, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_files, "MOST_OPEN", 2)
    add(table, qtbot, folder)
    control, layers = table.controller.list, table.viewer.layers
    wishes = [2]
    layers.events.inserted.connect(lambda _: wishes and control.go(wishes.pop()))
    go(table, qtbot, 1)
    assert names(table) == ["a", "a labels", "c", "c strokes"]
    # The same where an image is gone to that is open.
    wishes.append(0)
    go(table, qtbot, 1)
    assert names(table) == ["a", "a labels", "c", "c strokes"]
    assert seen(table) == ["a", "a labels"]


def test_nothing_is_opened_of_an_image_whose_labels_do_not_fit(
    table: Table, qtbot: QtBot, folder: Path, told: list[str]
) -> None:
    Picture.fromarray(dense()[:9]).save(folder / "a_labels.png")
    add(table, qtbot, folder)
    assert names(table) == []
    assert told[0].startswith("The labels of a.png do not fit it; give labels")
    assert [bool(row.problem) for row in table.state.pairs] == [True, False, False]


@pytest.fixture
def slow_reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the labels of ``c``, ``d`` and so on not be read until this is set."""
    may_go_on = threading.Event()

    def read_slowly(image: Path, *others: Any) -> Any:
        assert image.stem < "c" or may_go_on.wait(20)
        return read_planes(image, *others)

    monkeypatch.setattr(listed_files, "read_planes", read_slowly)
    yield may_go_on
    may_go_on.set()


def label_all(folder: Path, *names: str) -> None:
    for name in names:
        write_image(folder / f"{name}.png")
        Picture.fromarray(strokes(8)).save(folder / f"{name}_labels.png")


def test_reading_is_cancelled_and_what_was_read_stays(
    table: Table, qtbot: QtBot, folder: Path, slow_reading: threading.Event
) -> None:
    label_all(folder, "c", "d", "e")
    control, state = table.controller.list, table.state
    control.add([str(folder)])
    shown = [state.reading]
    state.events.reading.connect(shown.append)
    qtbot.waitUntil(lambda: state.reading == (2, 5), timeout=20000)
    control.cancel()
    assert [(row.image, row.strokes) for row in state.pairs] == [("a", 2), ("b", 2)]
    assert (shown[0], shown[-1]) == ((0, 0), None)
    assert state.status == "Cancelled. 3 images not read yet left the list again."
    slow_reading.set()
    # Those that are wished for again are read again; of c nothing was left behind.
    add(table, qtbot, folder)
    assert [row.strokes for row in state.pairs] == [2] * 5
    assert table.controller.images.counts()[2] == (4 * 18 + 100, 5)


def test_what_cannot_be_used_is_told_when_reading_is_cancelled(
    table: Table,
    qtbot: QtBot,
    folder: Path,
    slow_reading: threading.Event,
    told: list[str],
) -> None:
    label_all(folder, "c", "d")
    (folder / "b.png").write_bytes(b"no picture")
    table.controller.list.add([str(folder)])
    qtbot.waitUntil(lambda: table.state.reading == (2, 4), timeout=20000)
    assert told == []
    table.controller.list.cancel()
    assert len(told) == 1
    assert "b.png" in told[0]
    slow_reading.set()


def test_looking_for_files_is_cancelled(
    table: Table, qtbot: QtBot, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    monkeypatch.setattr(
        added_files,
        "find_pairs",
        lambda places: [may_go_on.wait(20), find_pairs(places)][1],
    )
    table.controller.list.add([str(folder)])
    table.controller.list.cancel()
    assert table.state.reading is None
    may_go_on.set()
    add(table, qtbot, folder / "a.png")
    assert [row.image for row in table.state.pairs] == ["a"]


def test_a_window_is_closed_while_files_are_looked_for(
    table: Table, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on, ended = (threading.Event() for _ in range(3))

    def look_slowly(_: Any) -> Any:
        begun.set()
        may_go_on.wait(3)
        ended.set()
        return [], []

    monkeypatch.setattr(added_files, "find_pairs", look_slowly)
    table.controller.list.add([str(folder)])
    assert begun.wait(20)
    table.controller.close()
    assert not ended.is_set(), "a server may take minutes"
    may_go_on.set()
    assert ended.wait(20)


def test_what_a_session_knows_of_files_is_kept_where_reading_them_is_cancelled(
    table: Table, qtbot: QtBot, folder: Path, slow_reading: threading.Event
) -> None:
    label_all(folder, "c", "d")
    records = [
        ListRecord(
            "",
            "",
            str(folder / f"{name}.png"),
            str(folder / f"{name}_labels.png"),
            False,
        )
        for name in "abcd"
    ]
    table.controller.list.take_over(records)
    qtbot.waitUntil(lambda: table.state.reading == (2, 4), timeout=20000)
    table.controller.list.cancel()
    assert [row.problem for row in table.state.pairs] == ["", "", *[CANCELLED] * 2]
    assert records_of(table.controller.images.entries) == tuple(records)
    # What had begun is read in the end.
    slow_reading.set()
    qtbot.waitUntil(lambda: not table.state.pairs[2].problem, timeout=20000)
    assert table.state.pairs[2].strokes == 2
