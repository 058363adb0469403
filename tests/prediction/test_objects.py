"""Small objects go to what surrounds them, whatever the parts of a plane are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.ndimage import label

from napari_sparseseg.prediction import objects
from napari_sparseseg.prediction.objects import (
    iter_without_small_objects,
    without_small_objects,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_an_object_goes_where_it_has_fewer_pixels() -> None:
    labels = np.array(
        [
            [1, 1, 1, 1, 1, 1, 0],
            [1, 2, 2, 1, 3, 1, 0],
            [1, 2, 1, 1, 1, 1, 0],
            [1, 1, 1, 1, 1, 1, 3],
        ],
        np.uint8,
    )
    before = labels.copy()
    cleaned = without_small_objects(labels, 3)
    # The 3 pixels of class 2 stay, and so does what is not labelled.
    expected = np.where(labels == 3, 1, labels)
    np.testing.assert_array_equal(cleaned, expected)
    np.testing.assert_array_equal(labels, before)
    expected[labels == 2] = 1
    np.testing.assert_array_equal(without_small_objects(labels, 4), expected)


def test_corners_do_not_hold_an_object_together() -> None:
    labels = np.ones((6, 6), np.uint16)
    labels[2, 2] = labels[3, 3] = 300
    assert (without_small_objects(labels, 2) == 1).all()


def test_where_all_is_small_all_stays() -> None:
    labels = np.array([[1, 2], [2, 1]], np.uint8)
    np.testing.assert_array_equal(without_small_objects(labels, 5), labels)


def test_nothing_small_is_left() -> None:
    cleaned = without_small_objects(speckled(), 12)
    for value in (1, 2, 3):
        found, n = label(cleaned == value)
        assert np.bincount(found.ravel(), minlength=n + 1)[1:].min(initial=12) >= 12


@pytest.mark.parametrize("side", [7, 16, 64])
def test_parts_of_a_plane_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    labels = speckled()
    whole = without_small_objects(labels, 12)
    assert (whole != labels).any()
    monkeypatch.setattr(objects, "WHOLE_PX", 0)
    monkeypatch.setattr(objects, "PART_SIDE", side)
    made = np.zeros_like(labels)
    for (y0, x0, y1, x1), part in iter_without_small_objects(labels, 12):
        made[y0:y1, x0:x1] = part
    np.testing.assert_array_equal(made, whole)


def speckled() -> NDArray[Any]:
    labels = np.random.default_rng(0).integers(1, 4, (60, 70)).astype(np.uint8)
    labels[:20, :20] = 1
    labels[30:50, 30:60] = 2
    return labels
