"""Whatever goes wrong is one sentence; no stroke is lost, and training stays usable."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from napari_sparseseg.annotations.classes import ClassTable, LabelClass
from napari_sparseseg.engine import messages
from napari_sparseseg.errors import LayerError
from napari_sparseseg.gui import kept_labels as followed
from napari_sparseseg.gui import label_file, mirror, plane_files, training_run
from napari_sparseseg.gui.planes import read_plane
from napari_sparseseg.gui.prediction_layer import is_prediction

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image, Labels
    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

    from tests.gui.conftest import Table

    Change = Callable[[Table, Image, Labels], object]

SIDE = 64

#: Of the engine's sentences.
DETAILS = (
    'Traceback (most recent call last):\n  File "x.py", line 3, in f\nE: Meier.svs'
)


def pixels(*shape: int, seed: int = 7) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def no_number(shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.ones(shape, np.float32)
    array[3, 4] = np.nan
    return array


def delete(which: int) -> Change:
    return lambda table, *layers: table.viewer.layers.remove(layers[which])


def set_data(which: int, data: NDArray[Any]) -> Change:
    return lambda _, *layers: setattr(layers[which], "data", data)


def move(labels: Labels) -> None:
    labels.translate = (9, 9)
    labels.refresh()


def kept(table: Table, layer: Labels) -> NDArray[Any]:
    """Return what is on disk of the only plane of a layer."""
    (path,) = table.mirror.annotated(layer).values()
    stored: NDArray[Any] = np.load(path)
    return stored


#: What is done to a training, and the words that the user must see.
ENDS: dict[str, tuple[Change, str]] = {
    "image deleted": (delete(0), "Nothing is left to learn from"),
    "labels deleted": (delete(1), "Nothing is left to learn from"),
    "pair removed": (
        lambda table, *_: table.controller.pairs.remove(0),
        "Nothing is left to learn from",
    ),
    "pair unticked": (
        lambda table, *_: table.controller.pairs.tick(0, False),
        "Nothing is left to learn from",
    ),
    "image of another shape": (
        set_data(0, pixels(SIDE, SIDE // 2, 3)),
        "has shape (64, 64), but the image 'tile' has (64, 32)",
    ),
    "image becomes a stack": (
        set_data(0, pixels(5, SIDE, SIDE, 3)),
        "has shape (64, 64), but the image 'tile' has (5, 64, 64)",
    ),
    "image with NaN": (set_data(0, no_number((SIDE, SIDE, 3))), "finite"),
    "labels of another shape": (
        set_data(1, np.ones((SIDE, SIDE // 2), np.uint8)),
        "has shape (64, 32), but the image 'tile' has (64, 64)",
    ),
    "labels become a stack": (
        set_data(1, np.ones((5, SIDE, SIDE), np.uint8)),
        "has shape (5, 64, 64)",
    ),
    "labels moved": (
        lambda _, __, labels: move(labels),
        "lies up to 9 pixels away",
    ),
}


@pytest.mark.parametrize(("change", "words"), ENDS.values(), ids=ENDS)
def test_without_the_last_image_the_training_stops(
    table: Table, qtbot: QtBot, told: list[str], change: Change, words: str
) -> None:
    image, labels = table.train(qtbot)
    change(table, image, labels)
    # Stop goes first: an engine that has no image left cannot save what it learned.
    first, second = table.wait_for(qtbot, messages.Stop, messages.RemoveImage)
    assert isinstance(first, messages.Stop)
    assert second.name == "tile"
    qtbot.wait(followed.DEBOUNCE_MS + 100)
    assert len(told) == 1
    assert words in told[0]
    assert not table.link.taken(messages.PutImage)
    table.link.tell(messages.PhaseChanged(phase="idle", step=9))
    assert table.state.cannot_train
    table.controller.train()
    assert not table.link.taken(messages.Start)


#: What is done after that, and brings the image back into a training.
MENDED: dict[str, tuple[Change, Change]] = {
    "pair ticked again": (
        lambda table, *_: table.controller.pairs.tick(0, False),
        lambda table, *_: table.controller.pairs.tick(0, True),
    ),
    "labels as they were": (
        set_data(1, np.ones((SIDE, SIDE // 2), np.uint8)),
        lambda _, __, labels: setattr(labels, "data", painted_before()),
    ),
    "image as it was": (
        set_data(0, pixels(SIDE, SIDE // 2, 3)),
        set_data(0, pixels(SIDE, SIDE, 3)),
    ),
    "image without NaN": (
        set_data(0, no_number((SIDE, SIDE, 3))),
        set_data(0, pixels(SIDE, SIDE, 3)),
    ),
    "image deleted and opened again": (
        delete(0),
        lambda table, _, labels: table.controller.pairs.choose(
            table.add_image(), labels
        ),
    ),
}


def painted_before() -> NDArray[np.uint8]:
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[8, 4:40], labels[16, 4:40] = 1, 2
    return labels


@pytest.mark.parametrize(("change", "mend"), MENDED.values(), ids=MENDED)
def test_what_is_mended_is_learned_again(
    table: Table, qtbot: QtBot, told: list[str], change: Change, mend: Change
) -> None:
    image, labels = table.train(qtbot)
    change(table, image, labels)
    table.wait_for(qtbot, messages.Stop)
    table.link.tell(messages.PhaseChanged(phase="idle", step=9))
    mend(table, image, labels)
    table.wait_for_counts(qtbot, 1, 2)
    qtbot.wait(followed.DEBOUNCE_MS + 100)
    table.controller.train()
    (put,) = table.link.taken(messages.PutImage)
    np.testing.assert_array_equal(np.load(put.labels), painted_before())
    now = table.controller.annotations.pairs[0].image
    np.testing.assert_array_equal(np.load(put.pixels), now.data)
    (start,) = table.link.taken(messages.Start)
    assert start.resume
    assert len(told) == 1


#: What changes a training, but does not end it.
GOES_ON: dict[str, Change] = {
    "labels renamed": lambda _, __, labels: setattr(labels, "name", "drawn"),
    "image renamed": lambda _, image, __: setattr(image, "name", "Meier"),
    "axes swapped on the canvas": lambda table, *_: table.viewer.dims.transpose(),
    "shown in 3D": lambda table, *_: setattr(table.viewer.dims, "ndisplay", 3),
    "labels replaced": lambda _, __, labels: setattr(
        labels, "data", np.array(labels.data)
    ),
    "square labels transposed": lambda _, __, labels: setattr(
        labels, "data", np.array(labels.data).T.copy()
    ),
}


@pytest.mark.parametrize("change", GOES_ON.values(), ids=GOES_ON)
def test_strokes_still_reach_the_training(
    table: Table, qtbot: QtBot, told: list[str], change: Change
) -> None:
    image, labels = table.train(qtbot)
    change(table, image, labels)
    qtbot.wait(followed.DEBOUNCE_MS + 50)
    table.link.sent.clear()
    labels.data_setitem((np.array([50]), np.array([50])), 2)
    (put,) = table.wait_for(qtbot, messages.PutImage)
    assert put.name == "tile"
    np.testing.assert_array_equal(np.load(put.labels), labels.data)
    assert not table.link.taken(messages.Stop)
    assert table.state.pairs[0].image == image.name
    assert table.state.pairs[0].labels == labels.name
    assert not told


def test_a_pair_among_others_is_taken_out_alone(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.train(qtbot)
    _, labels = table.add_painted(1, 2, name="second")
    assert {each.name for each in table.wait_for(qtbot, messages.PutImage)} == {
        "second"
    }
    labels.data = np.ones((SIDE, 8), np.uint8)
    (out,) = table.wait_for(qtbot, messages.RemoveImage)
    assert out.name == "second"
    assert not table.link.taken(messages.Stop)
    assert [bool(row.problem) for row in table.state.pairs] == [False, True]
    assert len(told) == 1


def test_the_last_stroke_does_not_bring_a_removed_pair_back(
    table: Table, qtbot: QtBot
) -> None:
    _, labels = table.train(qtbot)
    table.add_painted(1, 2, name="second")
    table.link.sent.clear()
    labels.paint((50, 50), 1)
    table.controller.pairs.remove(0)
    sent = table.link.taken(messages.PutImage, messages.RemoveImage)
    assert isinstance(sent[-1], messages.RemoveImage)
    assert kept(table, labels)[50, 50] == 1


# Other pixels.


def test_replaced_pixels_are_sent_anew(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    image, _ = table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    table.link.tell(messages.PhaseChanged(phase="running", step=0))
    (before,) = table.link.taken(messages.PutImage)
    image.data = pixels(SIDE, SIDE, 3)
    (put,) = table.wait_for(qtbot, messages.PutImage)
    assert put.pixels != before.pixels
    np.testing.assert_array_equal(np.load(put.pixels), image.data)
    assert not told


def test_pixels_are_read_once_however_often_they_change(
    table: Table, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _ = table.train(qtbot)
    read = MagicMock(side_effect=read_plane)
    monkeypatch.setattr(plane_files, "read_plane", read)
    for seed in range(5):
        image.data = pixels(SIDE, SIDE, 3, seed=seed)
    (put,) = table.wait_for(qtbot, messages.PutImage)
    np.testing.assert_array_equal(np.load(put.pixels), image.data)
    assert read.call_count == 1


def predicted(table: Table, qtbot: QtBot) -> messages.Predict:
    """Let the engine know something and predict all that it is asked for."""
    table.link.tell(messages.HeadFitted(scale=0.5, score=None))
    asked: messages.Predict = table.wait_for(qtbot, messages.Predict)[-1]
    np.load(asked.labels, mmap_mode="r+")[:] = 2
    table.link.tell(tile_of(asked))
    return asked


def tile_of(asked: messages.Predict) -> messages.TileDone:
    height, width = np.load(asked.labels, mmap_mode="r").shape
    return messages.TileDone(
        generation=asked.generation, region=(0, 0, height, width), share=0.5
    )


def predictions(table: Table) -> list[Labels]:
    return [each for each in table.viewer.layers if is_prediction(each)]


def test_a_prediction_of_another_shape_is_made_anew(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    image, labels = table.train(qtbot)
    before = predicted(table, qtbot)
    assert [layer.data.shape for layer in predictions(table)] == [(SIDE, SIDE)]
    image.data = pixels(SIDE, SIDE // 2, 3)
    assert not predictions(table)
    table.link.tell(tile_of(before))
    assert not predictions(table)
    labels.data = np.array(labels.data)[:, : SIDE // 2].copy()
    asked = predicted(table, qtbot)
    np.testing.assert_array_equal(np.load(asked.pixels), image.data)
    assert [layer.data.shape for layer in predictions(table)] == [(SIDE, SIDE // 2)]
    assert not told


def test_a_deleted_image_is_predicted_no_more(table: Table, qtbot: QtBot) -> None:
    image, _ = table.train(qtbot)
    before = predicted(table, qtbot)
    table.viewer.layers.remove(image)
    assert not predictions(table)
    assert table.state.progress is None
    table.link.tell(tile_of(before))
    assert not predictions(table)


def test_an_image_that_cannot_be_predicted_is_told_once(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    image, _ = table.train(qtbot)
    predicted(table, qtbot)
    image.data = no_number((SIDE, SIDE, 3))
    qtbot.waitUntil(lambda: len(told) > 0, timeout=5000)
    told.clear()
    for zoom in (2.0, 3.0, 4.0):
        getattr(table.viewer, "scene", table.viewer).camera.zoom = zoom
        qtbot.wait(150)
    assert not told
    assert table.state.progress is None
    image.data = pixels(SIDE, SIDE, 3)
    (asked,) = table.wait_for(qtbot, messages.Predict)
    np.testing.assert_array_equal(np.load(asked.pixels), image.data)


# What cannot be used from the start.


UNUSABLE: dict[str, tuple[NDArray[Any], Any, str]] = {
    "labels of another shape": (
        pixels(SIDE, SIDE, 3),
        np.ones((SIDE, 32), np.uint8),
        "has shape (64, 32), but the image 'tile' has (64, 64)",
    ),
    "multiscale labels": (
        pixels(SIDE, SIDE, 3),
        [np.ones((SIDE, SIDE), np.uint8), np.ones((32, 32), np.uint8)],
        "is multiscale",
    ),
    "negative labels": (
        pixels(SIDE, SIDE, 3),
        np.full((SIDE, SIDE), -1, np.int32),
        "-1",
    ),
    "objects instead of classes": (
        pixels(SIDE, SIDE, 3),
        np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE),
        "4093 different values",
    ),
}


@pytest.mark.parametrize(("data", "labels", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    table: Table, told: list[str], data: NDArray[Any], labels: Any, words: str
) -> None:
    classes = table.state.classes
    image = table.viewer.add_image(data, name="tile")
    layer = table.viewer.add_labels(labels, name="strokes")
    table.controller.pairs.choose(image, layer)
    assert len(told) == 1
    assert words in told[0]
    assert not table.state.pairs
    assert table.state.classes == classes
    table.controller.train()
    assert not table.link.taken(messages.Start)


def test_pixels_that_are_no_numbers_mark_the_pair(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    image = table.viewer.add_image(no_number((SIDE, SIDE)), name="tile")
    labels = table.viewer.add_labels(painted_before(), name="strokes")
    table.controller.pairs.choose(image, labels)
    table.wait_for_counts(qtbot, 1, 2)
    assert not told
    table.controller.train()
    assert len(told) == 1
    assert "the image 'tile'" in told[0]
    assert table.state.pairs[0].problem == told[0]
    assert not table.link.taken(messages.Start, messages.PutImage)
    assert table.state.phase == "idle"
    table.controller.train()
    assert len(told) == 2


def test_an_image_of_other_channels_is_marked_and_left_out(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.train(qtbot)
    _, labels = table.add_painted(1, 2, name="grey", grey=True)
    assert len(told) == 1
    assert "'grey' has 1 channel(s), but 'tile'" in told[0]
    assert [row.problem for row in table.state.pairs] == ["", told[0]]
    table.link.tell(messages.Failed(request="predict", message="it has 1 channel."))
    labels.paint((50, 50), 1)
    qtbot.wait(followed.DEBOUNCE_MS + 100)
    assert kept(table, labels)[50, 50] == 1
    assert not table.link.taken(messages.PutImage)
    assert len(told) == 1
    # It is learned from when the other one is not.
    table.controller.pairs.tick(0, False)
    out, put = table.link.taken(messages.RemoveImage, messages.PutImage)
    assert (out.name, put.name) == ("tile", "grey")
    assert [row.problem for row in table.state.pairs] == ["", ""]


def test_an_engine_that_refuses_an_image_says_so_once(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    _, labels = table.train(qtbot)
    refused = messages.Failed(request="put-image", message="tile is too small.")
    for row in (40, 42, 44):
        labels.paint((row, 50), 1)
        table.wait_for(qtbot, messages.PutImage)
        table.link.tell(refused)
    assert told == ["tile is too small."]
    table.link.tell(messages.Failed(request="remove-image", message="there is none."))
    assert len(told) == 1


# Two viewers.


def test_two_docks_have_nothing_in_common(
    make_table: Callable[[], Table], qtbot: QtBot, told: list[str]
) -> None:
    first, second = make_table(), make_table()
    _, labels = first.train(qtbot)
    _, others = second.train(qtbot)
    assert first.mirror.folder != second.mirror.folder
    labels.paint((50, 50), 1)
    (put,) = first.wait_for(qtbot, messages.PutImage)
    assert str(first.mirror.folder) in put.labels
    assert not second.link.sent
    first.controller.classes.add("vessel")
    assert second.state.classes.names == ("background", "structure")
    predicted(first, qtbot)
    assert len(predictions(first)) == 1
    assert not predictions(second)
    first.controller.close()
    assert first.link.stopped
    assert not second.link.stopped
    others.paint((50, 50), 1)
    second.wait_for(qtbot, messages.PutImage)
    assert kept(second, others)[50, 50] == 1
    assert not told


# Stacks.


@pytest.fixture
def stack(table: Table, qtbot: QtBot) -> Labels:
    """Return labels of a stack in training, with strokes in plane 1."""
    image = table.viewer.add_image(pixels(4, SIDE, SIDE), name="stack", rgb=False)
    data = np.zeros((4, SIDE, SIDE), np.uint8)
    data[1] = painted_before()
    labels = table.viewer.add_labels(data, name="strokes")
    table.viewer.dims.set_current_step(0, 1)
    table.controller.pairs.choose(image, labels)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    table.link.tell(messages.PhaseChanged(phase="running", step=0))
    (put,) = table.link.taken(messages.PutImage)
    assert put.name == "stack (1,)"
    return labels


def test_strokes_on_two_planes_are_both_sent(
    table: Table, qtbot: QtBot, stack: Labels
) -> None:
    table.viewer.dims.set_current_step(0, 3)
    stack.paint((3, 40, 40), 1)
    # Before the stroke is looked at.
    table.viewer.dims.set_current_step(0, 0)
    (put,) = table.wait_for(qtbot, messages.PutImage)
    assert put.name == "stack (3,)"
    np.testing.assert_array_equal(np.load(put.labels), stack.data[3])
    stack.paint((0, 40, 40), 2)
    (put,) = table.wait_for(qtbot, messages.PutImage)
    assert put.name == "stack (0,)"
    table.controller.pairs.remove(0)
    assert {each.name for each in table.link.taken(messages.RemoveImage)} == {
        "stack (0,)",
        "stack (1,)",
        "stack (3,)",
    }


def test_the_prediction_follows_the_slider(
    table: Table, qtbot: QtBot, stack: Labels
) -> None:
    first = predicted(table, qtbot)
    (layer,) = predictions(table)
    assert [plane.any() for plane in layer.data] == [False, True, False, False]
    table.viewer.dims.set_current_step(0, 2)
    (asked,) = table.wait_for(qtbot, messages.Predict)
    assert asked.pixels != first.pixels
    image = table.viewer.layers["stack"]
    np.testing.assert_array_equal(np.load(asked.pixels), image.data[2])
    table.link.tell(tile_of(first))
    assert not layer.data[2].any()


# Classes.


def put_and_classes(table: Table) -> list[Any]:
    return table.link.taken(messages.PutImage, messages.UseClasses, messages.Stop)


def test_a_class_is_deleted_after_its_strokes(table: Table, qtbot: QtBot) -> None:
    _, labels = table.add_painted(1, 2, 3)
    table.wait_for_counts(qtbot, 1, 2, 3)
    table.controller.train()
    table.link.tell(messages.PhaseChanged(phase="running", step=0))
    table.link.sent.clear()
    table.controller.classes.delete(2)
    put, sent = put_and_classes(table)
    assert set(np.unique(np.load(put.labels))) == {0, 1, 3}
    assert ClassTable.from_json(sent.classes).values == (1, 3)
    # Undo brings the class back, and then its strokes.
    before = LabelClass(2, "structure", table.state.classes.by_value(1).color)
    labels.undo()
    qtbot.waitUntil(lambda: 2 in table.state.classes.values, timeout=5000)
    assert table.state.classes.by_value(2).name == before.name
    sent, put = put_and_classes(table)
    assert ClassTable.from_json(sent.classes).values == (1, 2, 3)
    assert set(np.unique(np.load(put.labels))) == {0, 1, 2, 3}


def test_without_two_classes_the_training_stops(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.train(qtbot)
    table.controller.classes.delete(2)
    stop, put, sent = put_and_classes(table)
    assert isinstance(stop, messages.Stop)
    assert isinstance(put, messages.PutImage)
    assert ClassTable.from_json(sent.classes).values == (1,)
    assert len(told) == 1
    assert "Without the class 'structure'" in told[0]
    table.link.tell(messages.PhaseChanged(phase="idle", step=3))
    table.wait_for_counts(qtbot, 1)
    assert table.state.cannot_train


def test_the_last_class_can_be_deleted_and_another_added(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    _, labels = table.train(qtbot)
    for value in (1, 2):
        table.controller.classes.delete(value)
    assert not len(table.state.classes)
    assert (table.state.selected, labels.selected_label) == (0, 0)
    assert not labels.data.any()
    first, *others = put_and_classes(table)
    assert isinstance(first, messages.Stop)
    assert not any(isinstance(each, messages.Stop) for each in others)
    table.controller.classes.add("vessel")
    assert table.state.classes.values == (3,)
    assert labels.selected_label == 3
    assert len(told) == 1


def test_a_value_without_a_class_gets_one_before_it_is_sent(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    _, labels = table.train(qtbot)
    labels.paint((50, 50), 9)
    table.wait_for(qtbot, messages.PutImage)
    assert table.state.classes.by_value(9).name == "class 9"
    (sent,) = table.link.taken(messages.UseClasses)
    assert ClassTable.from_json(sent.classes).values == (1, 2, 9)
    assert not told


def test_a_class_that_the_layer_cannot_hold_is_told(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    _, labels = table.add_painted(1, 2)
    table.controller.classes.use(
        ClassTable((*table.state.classes, LabelClass(300, "rare", (1, 2, 3))))
    )
    table.controller.classes.select(300)
    assert len(told) == 1
    assert "holds values up to 255" in told[0]
    assert labels.selected_label == 1


def test_strokes_that_cannot_be_erased_keep_their_class(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    _, labels = table.add_painted(1, 2)
    labels.data.flags.writeable = False
    table.controller.classes.delete(2)
    assert len(told) == 1
    assert "cannot be erased" in told[0]
    assert table.state.classes.values == (1, 2)


def test_strokes_of_one_image_are_not_learned_on_another(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    image, labels = table.add_painted(1, 2)
    other = table.add_image("other")
    table.controller.pairs.choose(other, labels)
    assert [row.image for row in table.state.pairs] == ["tile"]
    assert "were painted on 'tile'" in table.state.status
    table.viewer.layers.remove(image)
    table.controller.pairs.choose(other, labels)
    assert not table.state.pairs
    table.controller.pairs.add(other, labels)
    assert [row.image for row in table.state.pairs] == ["other"]
    table.controller.pairs.add(other, labels)
    assert len(table.state.pairs) == 1
    assert not told


# The disk.


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return what fills the disk under the mirror, and frees it."""
    original = label_file.write_rows
    monkeypatch.setattr(followed, "RETRY_MS", 300)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(full: bool) -> None:
        monkeypatch.setattr(mirror, "write_rows", fail if full else original)

    return fill


def test_a_full_disk_is_told_once_and_strokes_are_written_later(
    full_disk: Callable[[bool], None], table: Table, qtbot: QtBot, told: list[str]
) -> None:
    _, labels = table.train(qtbot)
    _, others = table.add_painted(1, 2, name="second")
    table.wait_for(qtbot, messages.PutImage)
    full_disk(True)
    for row in (40, 44, 48):
        labels.paint((row, 50), 1)
        others.paint((row, 50), 2)
        qtbot.wait(followed.DEBOUNCE_MS + 50)
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert not table.link.taken(messages.PutImage, messages.RemoveImage, messages.Stop)
    assert [bool(row.problem) for row in table.state.pairs] == [True, True]
    assert table.state.cannot_train == ""
    full_disk(False)
    qtbot.waitUntil(
        lambda: not any(row.problem for row in table.state.pairs), timeout=5000
    )
    for layer in (labels, others):
        np.testing.assert_array_equal(kept(table, layer), layer.data)
    names = {each.name for each in table.link.taken(messages.PutImage)}
    assert names == {"tile", "second"}
    assert len(told) == 1


def test_a_class_deleted_while_the_disk_is_full_is_deleted_later(
    full_disk: Callable[[bool], None], table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.add_painted(1, 2, 3)
    table.wait_for_counts(qtbot, 1, 2, 3)
    table.controller.train()
    table.link.tell(messages.PhaseChanged(phase="running", step=0))
    table.link.sent.clear()
    full_disk(True)
    table.controller.classes.delete(3)
    (sent,) = put_and_classes(table)
    assert isinstance(sent, messages.UseClasses)
    table.link.tell(messages.Failed(request="use-classes", message="tile has 3."))
    assert len(told) == 1
    full_disk(False)
    put = table.wait_for(qtbot, messages.PutImage)[-1]
    assert 3 not in np.load(put.labels)
    (sent,) = table.link.taken(messages.UseClasses)
    assert ClassTable.from_json(sent.classes).values == (1, 2)


def test_temporary_files_that_cannot_be_written_are_told_once(
    table: Table, qtbot: QtBot, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fail)
        table.controller.train()
    assert len(told) == 1
    assert "Read-only file system" in told[0]
    assert not table.link.taken(messages.Start)
    table.controller.train()
    assert len(table.link.taken(messages.Start)) == 1


# The engine.


def test_train_pressed_twice_starts_once(table: Table, qtbot: QtBot) -> None:
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    assert table.state.phase == "preparing"
    table.controller.train()
    assert len(table.link.taken(messages.Start)) == 1


def test_strokes_painted_while_it_prepares_are_sent(table: Table, qtbot: QtBot) -> None:
    _, labels = table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    table.link.sent.clear()
    labels.paint((50, 50), 1)
    (put,) = table.wait_for(qtbot, messages.PutImage)
    np.testing.assert_array_equal(np.load(put.labels), labels.data)


def test_stop_while_it_prepares(table: Table, qtbot: QtBot, told: list[str]) -> None:
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    table.controller.stop()
    start, stop = table.link.taken(messages.Start, messages.Stop)
    assert isinstance(stop, messages.Stop)
    assert not start.resume
    table.link.tell(messages.PhaseChanged(phase="preparing", step=0))
    table.link.tell(messages.PhaseChanged(phase="idle", step=0))
    assert table.state.phase == "idle"
    table.controller.train()
    assert len(table.link.taken(messages.Start)) == 1
    assert not told


def test_close_while_it_prepares(table: Table, qtbot: QtBot, told: list[str]) -> None:
    image, labels = table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    table.link.tell(messages.HeadFitted(scale=0.5, score=None))
    labels.paint((50, 50), 1)
    table.controller.close()
    assert table.link.stopped
    assert not list(table.mirror.folder.glob("open.json"))
    table.link.sent.clear()
    # What is left of the layers does not wake the controller.
    labels.data_setitem((np.array([60]), np.array([60])), 1)
    image.data = pixels(SIDE, SIDE, 3)
    table.viewer.dims.ndisplay = 3
    qtbot.wait(followed.DEBOUNCE_MS + 100)
    assert not table.link.sent
    stored = np.load(next(table.mirror.folder.glob("labels-1/*.npy")))
    assert (stored[50, 50], stored[60, 60]) == (1, 0)
    assert not told


def die(table: Table) -> None:
    table.link.died.emit("The engine ended; your strokes are safe.", True)


def assert_brought_back(table: Table) -> None:
    """Check that what was learned is there again, and nothing is learned on."""
    start, stop = table.link.taken(messages.Start, messages.Stop)
    assert start.resume
    assert isinstance(stop, messages.Stop)
    table.link.tell(messages.PhaseChanged(phase="idle", step=30))


def test_a_training_that_ends_the_engine_again_and_again_is_given_up(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.train(qtbot)
    for _ in range(training_run.MOST_DEATHS - 1):
        die(table)
        table.link.start()
        (start,) = table.link.taken(messages.Start)
        assert start.resume
    die(table)
    assert "not taken up again" in told[-1]
    table.link.start()
    assert not table.link.taken(messages.Start)
    assert table.state.phase == "idle"
    table.controller.train()
    assert len(table.link.taken(messages.Start)) == 1


def test_deaths_do_not_add_up_while_something_is_learned(
    table: Table, qtbot: QtBot
) -> None:
    table.train(qtbot)
    for _ in range(training_run.MOST_DEATHS + 1):
        die(table)
        table.link.start()
        assert len(table.link.taken(messages.Start)) == 1
        table.link.tell(
            messages.Validated(step=5, scores={}, shown="head", reason="why")
        )


def test_a_stopped_training_is_not_taken_up(table: Table, qtbot: QtBot) -> None:
    table.train(qtbot)
    table.controller.stop()
    die(table)
    table.link.start()
    assert not table.link.taken(messages.Start)
    assert table.state.phase == "idle"


def test_a_paused_training_is_not_taken_up_unasked(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.train(qtbot)
    table.link.tell(messages.PhaseChanged(phase="paused", step=30))
    die(table)
    assert told[-1].endswith("Press Train to learn on.")
    table.link.start()
    assert_brought_back(table)
    table.controller.train()
    (start,) = table.link.taken(messages.Start)
    assert start.resume


def test_what_is_painted_while_there_is_no_engine_is_learned_after(
    table: Table, qtbot: QtBot
) -> None:
    _, labels = table.train(qtbot)
    die(table)
    labels.paint((50, 50), 1)
    table.controller.classes.add("vessel")
    qtbot.wait(followed.DEBOUNCE_MS + 50)
    table.link.sent.clear()
    table.link.start()
    classes, put, start = table.link.sent[-3:]
    assert ClassTable.from_json(classes.classes).names[-1] == "vessel"
    np.testing.assert_array_equal(np.load(put.labels), labels.data)
    assert isinstance(start, messages.Start)


def test_a_checkpoint_that_does_not_fit_is_given_up(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.train(qtbot)
    die(table)
    table.link.start()
    (start,) = table.link.taken(messages.Start)
    told.clear()
    table.link.tell(messages.PhaseChanged(phase="preparing", step=0))
    table.link.tell(messages.PhaseChanged(phase="idle", step=0))
    refused = messages.Failed(
        request="start", message="give the same.", error="ModelFileError"
    )
    table.link.tell(refused)
    assert len(told) == 1
    assert "starts anew" in told[0]
    (start,) = table.link.taken(messages.Start)
    assert not start.resume
    table.link.tell(messages.PhaseChanged(phase="idle", step=0))
    table.link.tell(refused)
    assert told[1:] == ["give the same."]
    assert not table.link.taken(messages.Start)


def test_a_training_that_cannot_be_taken_up_for_another_reason_is_kept(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.train(qtbot)
    table.link.tell(messages.StepDone(step=30, loss=0.5, learning_rate=1e-3))
    die(table)
    table.link.start()
    table.link.taken(messages.Start)
    table.link.tell(messages.PhaseChanged(phase="idle", step=30))
    table.link.tell(
        messages.Failed(
            request="start", message="no memory.", error="MemoryError", details=DETAILS
        )
    )
    assert not table.link.taken(messages.Start)
    assert told[-1].startswith("no memory.")
    assert len(table.state.losses) == 1
    table.controller.train()
    (start,) = table.link.taken(messages.Start)
    assert start.resume


#: What is changed after a stop, and whether the training can go on after that.
LATER: dict[str, tuple[Change, bool]] = {
    "nothing": (lambda *_: None, True),
    "a colour": (
        lambda table, *_: table.controller.classes.recolour(2, (9, 9, 9)),
        True,
    ),
    "a name": (lambda table, *_: table.controller.classes.rename(2, "gland"), False),
    "a class": (lambda table, *_: table.controller.classes.add("vessel"), False),
    "the seed": (
        lambda table, *_: table.controller.use_settings(
            messages.TrainingSettings(seed=4)
        ),
        True,
    ),
    "the network": (
        lambda table, *_: table.controller.use_settings(
            messages.TrainingSettings(preset="paper")
        ),
        False,
    ),
    "another network": (
        lambda table, *_: table.controller.use_settings(
            messages.TrainingSettings(net="unet-vgg16")
        ),
        False,
    ),
    "the loss": (
        lambda table, *_: table.controller.use_settings(
            messages.TrainingSettings(loss="dice")
        ),
        False,
    ),
    "one more image": (lambda table, *_: table.add_painted(1, 2, name="more"), True),
    "all images": (lambda table, *_: replace_layers(table), False),
}


def replace_layers(table: Table) -> None:
    """Go over to other images, one of the same name."""
    for layer in list(table.viewer.layers):
        table.viewer.layers.remove(layer)
    table.add_painted(1, 2)


@pytest.mark.parametrize(("change", "goes_on"), LATER.values(), ids=LATER)
def test_a_stopped_training_goes_on_where_it_fits(
    table: Table, qtbot: QtBot, told: list[str], change: Change, goes_on: bool
) -> None:
    image, labels = table.train(qtbot)
    table.link.tell(messages.StepDone(step=30, loss=0.5, learning_rate=1e-3))
    table.link.tell(messages.PhaseChanged(phase="idle", step=30))
    change(table, image, labels)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    (start,) = table.link.taken(messages.Start)
    assert start.resume == goes_on
    assert len(table.state.losses) == (1 if goes_on else 0)
    assert len(told) == (0 if goes_on else 1)


def test_a_training_starts_anew_where_the_quick_start_sees_more(
    table: Table, qtbot: QtBot
) -> None:
    before = messages.TrainingSettings(net="vgg-fcn", encoder_weights="/data/vgg.pth")
    table.controller.use_settings(before)
    table.train(qtbot)
    table.link.tell(messages.StepDone(step=30, loss=0.5, learning_rate=1e-3))
    table.link.tell(messages.PhaseChanged(phase="idle", step=30))
    table.controller.use_settings(replace(before, head_features="vgg16"))
    table.controller.train()
    (start,) = table.link.taken(messages.Start)
    assert not start.resume


def test_a_loaded_model_is_loaded_again_by_the_next_engine(
    table: Table, qtbot: QtBot
) -> None:
    table.link.tell(
        messages.ModelLoaded(
            path="m.safetensors",
            network="unet",
            classes=table.state.classes.to_json(),
            in_channels=3,
            shown="head",
            um_per_px=None,
        )
    )
    die(table)
    table.link.start()
    (load,) = table.link.taken(messages.LoadModel)
    assert load.path == "m.safetensors"


def test_a_model_that_ends_the_engine_again_and_again_is_given_up(
    table: Table, told: list[str]
) -> None:
    loaded = messages.ModelLoaded(
        path="m.safetensors",
        network="unet",
        classes=table.state.classes.to_json(),
        in_channels=3,
        shown="head",
        um_per_px=None,
    )
    for death in range(2 * training_run.MOST_DEATHS - 2):
        table.link.tell(loaded)
        if death == training_run.MOST_DEATHS - 2:
            table.link.tell(
                messages.Predicted(generation=1, shown="head", step=0, seconds=1)
            )
        die(table)
        table.link.start()
        given_up = death == 2 * training_run.MOST_DEATHS - 3
        assert bool(table.link.taken(messages.LoadModel)) != given_up
    assert "nothing is predicted until" in told[-1]


def test_what_was_learned_before_the_engine_died_after_a_stop_is_there_again(
    table: Table, qtbot: QtBot
) -> None:
    table.train(qtbot)
    table.link.tell(messages.StepDone(step=30, loss=0.5, learning_rate=1e-3))
    table.controller.stop()
    table.link.tell(messages.PhaseChanged(phase="idle", step=30))
    die(table)
    table.link.sent.clear()
    table.link.start()
    assert_brought_back(table)
    assert table.link.taken(messages.Predict)


def test_a_lost_gpu_is_told_and_the_engine_replaced(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.train(qtbot)
    table.link.tell(messages.StepDone(step=30, loss=0.5, learning_rate=1e-3))
    words = "something unexpected happened (AcceleratorError: CUDA error: gone)."
    table.link.tell(messages.Failed(request="training", message=words, details=DETAILS))
    (reason,) = table.link.restarts
    assert "does not work any more" in reason
    assert "CUDA error: gone" in reason
    table.link.tell(messages.PhaseChanged(phase="idle", step=30))
    assert not told
    die(table)
    table.link.start()
    assert_brought_back(table)
    table.controller.train()
    (start,) = table.link.taken(messages.Start)
    assert start.resume


SAID: dict[str, tuple[messages.Event, str]] = {
    "memory did not suffice": (
        messages.Failed(
            request="training",
            message="the memory did not suffice; train on smaller images.",
            details=DETAILS,
        ),
        "the memory did not suffice; train on smaller images. Details: ",
    ),
    "the memory of the GPU did not suffice": (
        messages.WentToCpu(step=30),
        "on the CPU, from step 30",
    ),
    "memory was saved": (
        messages.MemorySaved(step=3, micro_batch=2),
        "smaller parts of 2 patches",
    ),
    "the loss was no number": (
        messages.Recovered(step=3, learning_rate=1e-4),
        "went back to its last good weights",
    ),
    "saving failed": (
        messages.Failed(request="save-model", message="the disk is full."),
        "the disk is full.",
    ),
}


@pytest.mark.parametrize(("event", "words"), SAID.values(), ids=SAID)
def test_what_the_engine_tells_is_one_sentence(
    table: Table, told: list[str], event: messages.Event, words: str
) -> None:
    table.link.tell(event)
    table.link.tell(event)
    assert len(told) == 2
    assert words in told[0]
    assert "Traceback" not in told[0]


def test_a_warning_is_told_once_a_training(table: Table, told: list[str]) -> None:
    for _ in range(2):
        for _ in range(2):
            table.link.tell(messages.Warned(message="there is no room for features."))
        table.link.tell(messages.PhaseChanged(phase="preparing", step=0))
    assert told == ["there is no room for features."] * 2


def test_an_error_in_a_view_is_one_sentence(table: Table, told: list[str]) -> None:
    def fail(_: object) -> None:
        raise LayerError("The view has no room; close others.")

    table.state.events.classes.connect(fail)
    table.controller.classes.add("vessel")
    assert told == ["The view has no room; close others."]
    table.state.events.phase.connect(fail)
    table.link.tell(messages.PhaseChanged(phase="running", step=1))
    assert told[1:] == told[:1]
