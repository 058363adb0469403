"""Masks go into labels pixel by pixel, and one undo takes them back."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_sparseseg.annotations.boxes import Box
from napari_sparseseg.engine.messages import MaskSettings
from napari_sparseseg.gui.boxes_results import BoxResults, MadeMask

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


def accept(
    results: BoxResults,
    labels: Labels,
    *boxes: Box,
    background: int = 0,
    outside: bool = False,
) -> list[list[int]]:
    results.accept(boxes, labels, background, outside)
    return labels.data.tolist()  # type: ignore[no-any-return]


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


def test_a_box_writes_what_it_wins(results: BoxResults, labels: Labels) -> None:
    assert accept(results, labels, LARGE) == [
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
    results: BoxResults, labels: Labels
) -> None:
    labels.data[4, 5] = 7
    # (2, 1) is background to the small box, but not to the large one.
    assert accept(results, labels, LARGE, SMALL, background=1) == [
        [2, 2, 2, 1, 0, 0],
        [2, 3, 2, 1, 0, 0],
        [0, 2, 3, 1, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 7],
    ]
    # What lies outside of all boxes only where nothing is painted.
    assert accept(results, labels, background=1, outside=True) == [
        [2, 2, 2, 1, 1, 1],
        [2, 3, 2, 1, 1, 1],
        [0, 2, 3, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
        [1, 1, 1, 1, 1, 7],
    ]


def test_one_undo_takes_them_back(results: BoxResults, labels: Labels) -> None:
    labels.data[0, 0] = 7
    accept(results, labels, LARGE, SMALL)
    assert results.refresh_accepted() == set()
    labels.undo()
    assert labels.data.sum() == 7
    assert results.refresh_accepted() == {()}
    assert results.proposed(())[0, 0] == 2


def test_another_mask_of_a_box_replaces_the_first(
    results: BoxResults, labels: Labels
) -> None:
    accept(results, labels, SMALL)
    labels.data[0, 0] = 7
    results.put(made(SMALL, [[0, 1], [0, 0]]))
    small = results.get(SMALL)
    assert small is not None
    assert not small.accepted
    after = np.array(accept(results, labels, SMALL))
    assert sorted(zip(*map(list, np.nonzero(after)), strict=True)) == [(0, 0), (1, 2)]
    assert after[1, 2] == 3


def test_planes_of_a_volume_are_apart() -> None:
    results, labels = BoxResults((4, 4)), Labels(np.zeros((3, 4, 4), np.uint8))
    boxes = [Box(0, 0, 2, 2, 2, (plane,)) for plane in (0, 2)]
    for box in boxes:
        results.put(made(box, np.ones((2, 2))))
    results.accept(boxes, labels, 0)
    assert [int(plane.sum()) for plane in labels.data] == [8, 0, 8]
    labels.undo()
    assert not labels.data.any()
    assert results.planes == {(0,), (2,)}
    assert results.keep_only(boxes[:1]) == {(2,)}
    assert results.get(boxes[1]) is None


def test_masks_of_a_layer_that_is_gone_are_proposed_again(
    results: BoxResults, labels: Labels
) -> None:
    accept(results, labels, SMALL)
    results.forget_labels(labels)
    assert results.refresh_accepted() == {()}
