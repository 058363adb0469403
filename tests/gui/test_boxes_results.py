"""Masks go into labels pixel by pixel, and one undo takes them back."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from napari.layers import Labels

from napari_sparseseg.annotations.boxes import Box
from napari_sparseseg.engine.messages import MaskSettings
from napari_sparseseg.errors import LayerError
from napari_sparseseg.gui import boxes_written
from napari_sparseseg.gui.boxes_results import BoxResults, MadeMask
from napari_sparseseg.gui.boxes_written import WrittenLabels

LARGE, SMALL = Box(0, 0, 4, 4, 2), Box(1, 1, 3, 3, 3)


def made(box: Box, mask: object) -> MadeMask:
    array = np.asarray(mask, np.uint8)
    return MadeMask(
        box, array, array.astype(np.float32) * np.float32(0.5), MaskSettings()
    )


@pytest.fixture
def results() -> BoxResults:
    """Return masks of two boxes, one inside of the other, on 5 x 6 pixels."""
    results = BoxResults((5, 6))
    rows = [[1, 1, 1, 0], [1, 1, 1, 0], [2, 1, 1, 0], [2, 2, 2, 0]]
    results.put(made(LARGE, rows))
    results.put(made(SMALL, [[1, 2], [0, 1]]))
    return results


@pytest.fixture
def labels() -> Labels:
    return Labels(np.zeros((5, 6), np.uint8))


@pytest.fixture
def into(labels: Labels) -> WrittenLabels:
    return WrittenLabels(labels)


def accept(
    results: BoxResults,
    into: WrittenLabels,
    *boxes: Box,
    background: int = 0,
    outside_of: tuple[Box, ...] | None = None,
) -> list[list[int]]:
    results.accept(boxes, into, background, outside_of)
    return into.labels.data.tolist()  # type: ignore[no-any-return]


def refresh(results: BoxResults, into: WrittenLabels) -> set[tuple[int, ...]]:
    """Look at the labels, as is done when they were painted."""
    into.forget_gone()
    return results.refresh_accepted()


def test_the_smallest_box_wins(results: BoxResults) -> None:
    assert results.proposed(()).tolist() == [
        [2, 2, 2, 0, 0, 0],
        [2, 3, 2, 0, 0, 0],
        [0, 2, 3, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    # The small box lies over the large one.
    assert results.localization(())[1, 1] == 0.5
    assert results.localization(())[2, 1] == 0


def test_a_box_writes_what_it_wins(results: BoxResults, into: WrittenLabels) -> None:
    assert accept(results, into, LARGE) == [
        [2, 2, 2, 0, 0, 0],
        [2, 0, 2, 0, 0, 0],
        [0, 2, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert results.proposed(()).tolist()[1:3] == [
        [0, 3, 0, 0, 0, 0],
        [0, 0, 3, 0, 0, 0],
    ]


def test_background_is_written_where_all_boxes_say_so(
    results: BoxResults, into: WrittenLabels
) -> None:
    into.labels.data[4, 5] = 7
    # Who accepts a mask has seen the object alone.
    assert accept(results, into, LARGE, SMALL, background=1) == [
        [2, 2, 2, 0, 0, 0],
        [2, 3, 2, 0, 0, 0],
        [0, 2, 3, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 7],
    ]
    # What lies outside of all boxes, be there masks in them or not, and inside what
    # all masks call so, but only where nothing is painted. (2, 1) is background to the
    # small box, but not to the large one.
    without_mask = Box(3, 4, 5, 5, 2)
    drawn = (LARGE, SMALL, without_mask, Box(0, 5, 1, 6, 2, (1,)))
    assert accept(results, into, background=1, outside_of=drawn) == [
        [2, 2, 2, 1, 1, 1],
        [2, 3, 2, 1, 1, 1],
        [0, 2, 3, 1, 1, 1],
        [0, 0, 0, 1, 0, 1],
        [1, 1, 1, 1, 0, 7],
    ]


def test_one_undo_of_the_layer_takes_them_back(
    results: BoxResults, into: WrittenLabels
) -> None:
    labels = into.labels
    labels.data[0, 0] = 7
    accept(results, into, LARGE, SMALL, background=1, outside_of=(LARGE, SMALL))
    assert refresh(results, into) == set()
    labels.undo()
    assert labels.data.sum() == 7
    assert refresh(results, into) == {()}
    assert results.proposed(())[0, 0] == 2
    # What the user paints there by himself is none of the step's.
    labels.data[0, 1] = 2
    assert not results.undo()
    assert labels.data[0, 1] == 2


@pytest.mark.parametrize("most", [4_000_000, 3])
def test_undo_takes_back_masks_but_no_strokes(
    results: BoxResults,
    into: WrittenLabels,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    """Be it in the history of the layer, or not since it is too much for that."""
    monkeypatch.setattr(boxes_written, "MOST_IN_HISTORY", most)
    labels = into.labels
    labels.data[0, 0] = 7
    accept(results, into, SMALL)
    before = labels.data.copy()
    accept(results, into, LARGE, background=1, outside_of=(LARGE, SMALL))
    labels.data_setitem((np.array([0, 4]), np.array([1, 5])), 7)
    assert results.undo()
    assert np.argwhere(labels.data != before).tolist() == [[0, 1], [4, 5]]
    assert (labels.data[[0, 4], [1, 5]] == 7).all()
    refresh(results, into)
    statuses = [results.get(box) for box in (LARGE, SMALL)]
    assert [made.accepted for made in statuses if made] == [False, True]
    assert results.undo()
    assert (labels.data > 0).sum() == 3
    assert not results.undo()
    if most > 3:
        # That was a change like others.
        labels.undo()
        assert labels.data[1, 1] == 3


def test_another_mask_of_a_box_replaces_the_first(
    results: BoxResults, into: WrittenLabels
) -> None:
    into.labels.data[:2, 0] = 7
    into.labels.data[1, 1] = 3
    accept(results, into, SMALL)
    results.put(made(SMALL, [[0, 1], [0, 0]]))
    small = results.get(SMALL)
    assert small is not None
    assert not small.accepted
    after = np.array(accept(results, into, SMALL))
    # (1, 1) was painted before with the class of the box, so it is not the mask's.
    assert np.argwhere(after == 3).tolist() == [[1, 1], [1, 2]]
    assert after.sum() == 14 + 6


def test_another_mask_leaves_other_labels_alone(
    results: BoxResults, into: WrittenLabels
) -> None:
    accept(results, into, SMALL)
    results.put(made(SMALL, [[0, 1], [0, 0]]))
    others = WrittenLabels(Labels(np.full((5, 6), 3, np.uint8)))
    assert accept(results, others, SMALL) == [[3] * 6] * 5


def test_what_is_replaced_is_what_others_painted(
    results: BoxResults, into: WrittenLabels
) -> None:
    def count(*boxes: Box) -> int:
        return results.count_replaced(boxes, into)

    assert count(LARGE, SMALL) == 0
    accept(results, into, LARGE, background=1)
    # The small box takes pixels of the large one, and its own again.
    assert count(SMALL) == 0
    accept(results, into, SMALL, background=1)
    results.put(made(SMALL, [[1, 1], [1, 1]]))
    assert count(SMALL) == 0
    into.labels.data[1, 2] = 7
    assert count(SMALL) == 1
    into.labels.data[1, 2] = 3
    assert count(SMALL) == 0


def test_planes_of_a_volume_are_apart() -> None:
    results, labels = BoxResults((4, 4)), Labels(np.zeros((3, 4, 4), np.uint8))
    boxes = [Box(0, 0, 2, 2, 2, (plane,)) for plane in (0, 2)]
    for box in boxes:
        results.put(made(box, np.ones((2, 2))))
    results.accept(boxes, WrittenLabels(labels), 0)
    assert [int(plane.sum()) for plane in labels.data] == [8, 0, 8]
    labels.undo()
    assert not labels.data.any()
    labels.redo()
    assert results.undo()
    assert not labels.data.any()
    assert results.planes == {(0,), (2,)}
    assert results.keep_only(boxes[:1]) == {(2,)}
    assert results.get(boxes[1]) is None


def test_masks_of_a_layer_that_is_gone_are_proposed_again(
    results: BoxResults, into: WrittenLabels
) -> None:
    accept(results, into, SMALL)
    results.forget_labels(into)
    assert results.proposed(())[1, 1] == 3
    assert not results.undo()


@pytest.mark.parametrize("shape", [(3, 3), (2, 5, 6)])
def test_masks_are_gone_from_another_array(
    results: BoxResults, into: WrittenLabels, shape: tuple[int, ...]
) -> None:
    accept(results, into, LARGE, SMALL)
    into.labels.data = np.ones(shape, np.uint8)
    assert refresh(results, into) == {()}
    assert not results.undo()


def test_a_mask_without_a_pixel_stays_accepted(
    results: BoxResults, into: WrittenLabels
) -> None:
    results.put(made(SMALL, [[2, 2], [2, 2]]))
    accept(results, into, SMALL)
    assert refresh(results, into) == set()


def test_labels_that_cannot_be_written_are_told(results: BoxResults) -> None:
    data = np.zeros((5, 6), np.uint8)
    data.flags.writeable = False
    with pytest.raises(LayerError, match="Nothing can be written into 'fixed'"):
        results.accept([SMALL], WrittenLabels(Labels(data, name="fixed")), 0)
    small = results.get(SMALL)
    assert small is not None
    assert not small.accepted


def test_masks_take_memory_where_their_boxes_are() -> None:
    """Each plane of 64-bit integers would be 8 bytes a pixel."""
    side = 2048
    results = BoxResults((side, side))
    results.put(made(Box(side - 4, side - 4, side, side, 2), np.ones((4, 4))))
    tracemalloc.start()
    try:
        assert results.proposed(())[-4:, -4:].all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * side**2
