"""Pairs of layers are followed, kept on disk, counted, and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_sparseseg.annotations.strokes import LabelCount
from napari_sparseseg.errors import LayerError
from napari_sparseseg.gui.annotations import Annotations, Pair
from napari_sparseseg.gui.kept_labels import DEBOUNCE_MS
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.planes import PlaneKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari.layers import Image, Labels
    from pytestqt.qtbot import QtBot

SIDE = 32
PLANE = PlaneKey()


class Followed:
    """Annotations in a viewer, and what they tell."""

    def __init__(self, folder: Path) -> None:
        self.viewer = ViewerModel()
        self.mirror = Mirror(folder / "a.sparseseg")
        self.annotations = Annotations(self.viewer, self.mirror)
        self.painted: list[tuple[Pair, Any]] = []
        self.used: list[Pair] = []
        self.failed: list[str] = []
        self.annotations.painted.connect(lambda *each: self.painted.append(each))
        self.annotations.used.connect(self.used.append)
        self.annotations.failed.connect(self.failed.append)

    def layers(
        self, name: str = "tile", channels: int = 3, *shape: int
    ) -> tuple[Image, Labels]:
        size = shape or (SIDE, SIDE)
        pixels = np.zeros((*size, 3) if channels == 3 else size, np.uint8)
        labels = np.zeros(size, np.uint8)
        return (
            self.viewer.add_image(pixels, name=name, rgb=channels == 3),
            self.viewer.add_labels(labels, name=f"{name} strokes"),
        )

    def taken(self) -> list[tuple[Pair, Any]]:
        painted, self.painted = self.painted, []
        return painted


@pytest.fixture
def followed(qtbot: QtBot, tmp_path: Path) -> Iterator[Followed]:
    made = Followed(tmp_path)
    yield made
    made.annotations.close()


def draw(labels: Labels, row: int, value: int) -> None:
    """Draw a stroke of 10 pixels."""
    columns = np.arange(4, 14)
    labels.data_setitem((np.full(10, row), columns), value)


def test_strokes_are_kept_told_and_counted(followed: Followed, qtbot: QtBot) -> None:
    image, labels = followed.layers()
    pair = followed.annotations.add(image, labels)
    assert not followed.taken()
    for row, value in ((3, 1), (9, 1), (20, 2)):
        draw(labels, row, value)
    qtbot.waitUntil(lambda: followed.annotations.counts() == {1: (20, 2), 2: (10, 1)})
    ((told, changes),) = followed.taken()
    assert told is pair
    ((change),) = changes
    assert (change.plane, change.region) == (PLANE, (3, 4, 21, 14))
    np.testing.assert_array_equal(np.load(change.path), labels.data)
    assert followed.annotations.files(pair) == {PLANE: change.path}
    assert pair.row().strokes == 3
    assert pair.counts == {PLANE: {1: LabelCount(20, 2), 2: LabelCount(10, 1)}}


def test_a_stroke_under_way_is_looked_at_once(followed: Followed, qtbot: QtBot) -> None:
    image, labels = followed.layers()
    followed.annotations.add(image, labels)
    for row in range(20):
        draw(labels, row, 1)
    assert not followed.taken()
    qtbot.wait(3 * DEBOUNCE_MS)
    assert len(followed.taken()) == 1


def test_undo_is_followed(followed: Followed, qtbot: QtBot) -> None:
    image, labels = followed.layers()
    pair = followed.annotations.add(image, labels)
    draw(labels, 3, 1)
    followed.annotations.flush()
    labels.undo()
    qtbot.waitUntil(lambda: len(followed.painted) == 2, timeout=5000)
    assert not np.load(followed.annotations.files(pair)[PLANE]).any()


def test_what_a_script_wrote_is_found_when_all_is_looked_through(
    followed: Followed,
) -> None:
    image, labels = followed.layers("stack", 1, 4, SIDE, SIDE)
    pair = followed.annotations.add(image, labels)
    labels.data[2, 5, 5] = 3
    followed.annotations.look_through()
    assert list(followed.annotations.files(pair)) == [PlaneKey((2,))]


def test_only_fitting_layers_become_a_pair(followed: Followed) -> None:
    image, _ = followed.layers()
    _, small = followed.layers("small", 3, SIDE, 8)
    with pytest.raises(LayerError, match="has shape"):
        followed.annotations.add(image, small)
    assert not followed.annotations.pairs


def test_a_pair_is_followed_once(followed: Followed) -> None:
    layers = followed.layers()
    assert followed.annotations.add(*layers) is followed.annotations.add(*layers)
    assert followed.annotations.find(*layers) is followed.annotations.pairs[0]
    assert followed.annotations.find(layers[0], None) is None
    assert len(followed.annotations.pairs) == 1


def test_pairs_of_images_of_one_name_have_keys_of_their_own(
    followed: Followed,
) -> None:
    keys = []
    for _ in range(3):
        image, labels = followed.layers()
        image.name = "tile"
        keys.append(followed.annotations.add(image, labels).key)
        image.name = f"renamed {len(keys)}"
    assert keys == ["tile", "tile [2]", "tile [3]"]


def test_planes_are_named_after_their_place() -> None:
    pair = Pair("tile", None, None)
    assert pair.name_of(PlaneKey()) == "tile"
    assert pair.name_of(PlaneKey((3,))) == "tile (3,)"


def test_strokes_of_before_the_pair_are_counted(
    followed: Followed, qtbot: QtBot
) -> None:
    image, labels = followed.layers()
    draw(labels, 3, 1)
    qtbot.waitUntil(lambda: bool(followed.mirror.annotated(labels)), timeout=5000)
    pair = followed.annotations.add(image, labels)
    qtbot.waitUntil(lambda: followed.annotations.counts() == {1: (10, 1)})
    assert list(followed.annotations.files(pair)) == [PLANE]


def test_labels_that_cannot_be_kept_are_named_once_they_are_paired(
    followed: Followed,
) -> None:
    image, labels = followed.layers()
    labels.data = np.full((SIDE, SIDE), -3)
    followed.annotations.flush()
    assert not followed.failed
    pair = followed.annotations.add(image, labels)
    (sentence,) = followed.failed
    assert "values from -3" in sentence
    assert pair.problem == sentence
    assert not followed.annotations.keep(labels)
    labels.data = np.full((SIDE, SIDE), 3)
    assert followed.annotations.keep(labels)
    assert pair.problem == ""
    assert len(followed.failed) == 1


def test_undo_on_another_plane_is_told_and_counted(
    followed: Followed, qtbot: QtBot
) -> None:
    image, labels = followed.layers("stack", 1, 4, SIDE, SIDE)
    labels.data[:, 3, 4:14] = 1
    pair = followed.annotations.add(image, labels)
    followed.viewer.dims.set_current_step(0, 1)
    labels.paint((1, 20, 20), 2)
    qtbot.waitUntil(lambda: 2 in followed.annotations.counts())
    followed.viewer.dims.set_current_step(0, 3)
    labels.undo()
    qtbot.waitUntil(lambda: followed.annotations.counts() == {1: (40, 4)})
    told, (change,) = followed.taken()[-1]
    assert told is pair
    assert change.plane == PlaneKey((1,))


def test_a_removed_pair_is_followed_no_more(followed: Followed, qtbot: QtBot) -> None:
    image, labels = followed.layers()
    pair = followed.annotations.add(image, labels)
    draw(labels, 3, 1)
    followed.annotations.remove(pair)
    assert len(followed.taken()) == 1
    draw(labels, 9, 1)
    qtbot.wait(2 * DEBOUNCE_MS)
    assert not followed.taken()
    assert not followed.annotations.counts()


def test_labels_that_are_added_again_are_counted_again(
    followed: Followed, qtbot: QtBot
) -> None:
    image, labels = followed.layers()
    draw(labels, 3, 1)
    followed.annotations.remove(followed.annotations.add(image, labels))
    followed.annotations.add(image, labels)
    qtbot.waitUntil(lambda: followed.annotations.counts() == {1: (10, 1)})


def test_labels_shared_by_two_images_are_followed_until_both_are_gone(
    followed: Followed,
) -> None:
    image, labels = followed.layers()
    other, _ = followed.layers("other")
    first = followed.annotations.add(image, labels)
    second = followed.annotations.add(other, labels)
    followed.annotations.remove(first)
    draw(labels, 3, 1)
    followed.annotations.flush()
    ((pair, _),) = followed.taken()
    assert pair is second


def test_labels_shared_by_two_images_are_told_and_counted_for_both(
    followed: Followed, qtbot: QtBot
) -> None:
    image, labels = followed.layers()
    other, _ = followed.layers("other")
    pairs = [followed.annotations.add(each, labels) for each in (image, other)]
    draw(labels, 3, 1)
    followed.annotations.flush()
    assert [pair for pair, _ in followed.taken()] == pairs
    qtbot.waitUntil(lambda: followed.annotations.counts() == {1: (20, 2)})


def test_only_pairs_in_use_are_counted(followed: Followed, qtbot: QtBot) -> None:
    image, labels = followed.layers()
    draw(labels, 3, 1)
    pair = followed.annotations.add(image, labels)
    qtbot.waitUntil(lambda: followed.annotations.counts() == {1: (10, 1)})
    followed.annotations.tick(pair, False)
    assert not followed.annotations.counts()
    followed.annotations.tick(pair, True)
    assert followed.annotations.counts() == {1: (10, 1)}
    assert followed.used == [pair, pair]
    followed.annotations.refuse(pair, "It has no end.")
    assert not followed.annotations.counts()
    assert (pair.problem, followed.failed) == ("It has no end.", ["It has no end."])
    followed.annotations.try_again([pair])
    assert followed.annotations.counts() == {1: (10, 1)}
    assert followed.used == [pair] * 4


def test_labels_of_another_shape_are_kept_but_not_learned(
    followed: Followed, qtbot: QtBot
) -> None:
    image, labels = followed.layers()
    draw(labels, 3, 1)
    pair = followed.annotations.add(image, labels)
    qtbot.waitUntil(lambda: bool(pair.counts))
    wider = np.zeros((SIDE, 2 * SIDE), np.uint8)
    wider[5, 60] = 2
    labels.data = wider
    qtbot.waitUntil(lambda: len(followed.failed) == 1, timeout=5000)
    assert "has shape (32, 64)" in followed.failed[0]
    assert followed.used == [pair]
    np.testing.assert_array_equal(
        np.load(followed.annotations.files(pair)[PLANE]), wider
    )
    # With an image of that shape all is well, and nothing of before is counted.
    image.data = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    followed.annotations.try_again([pair])
    qtbot.waitUntil(lambda: followed.annotations.counts() == {2: (1, 1)})
    assert pair.problem == ""
    assert followed.used == [pair, pair]


def test_planes_that_are_gone_are_not_counted(followed: Followed, qtbot: QtBot) -> None:
    image, labels = followed.layers("stack", 1, 3, SIDE, SIDE)
    for plane in range(3):
        labels.data[plane, 5, :7] = 1
    pair = followed.annotations.add(image, labels)
    qtbot.waitUntil(lambda: followed.annotations.counts() == {1: (21, 3)})
    labels.data = np.array(labels.data[:2])
    image.data = image.data[:2]
    followed.annotations.try_again([pair])
    qtbot.waitUntil(lambda: followed.annotations.counts() == {1: (14, 2)})


def test_images_of_other_channels_wait_until_they_are_alone(
    followed: Followed,
) -> None:
    layers = followed.layers("grey", 1), followed.layers("colour", 3)
    grey, colour = (followed.annotations.add(*each) for each in layers)
    # As long as there are no strokes nothing is learned from either.
    assert (grey.problem, colour.problem) == ("", "")
    draw(colour.labels, 3, 1)
    followed.annotations.flush()
    assert (grey.problem, colour.problem) == ("", "")
    draw(grey.labels, 3, 1)
    followed.annotations.flush()
    # The one that is learned from already decides, not the first one of the list.
    assert "'grey' has 1 channel(s), but 'colour'" in grey.problem
    assert (grey.in_use, colour.in_use) == (False, True)
    assert followed.used == [grey]
    assert followed.failed == [grey.problem]
    followed.annotations.tick(grey, False)
    assert grey.problem == ""
    followed.annotations.tick(colour, False)
    followed.annotations.tick(grey, True)
    followed.annotations.tick(colour, True)
    assert "'colour' has 3 channel(s), but 'grey'" in colour.problem
    followed.annotations.remove(grey)
    assert colour.in_use
    assert colour.problem == ""
