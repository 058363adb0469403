"""Small objects go to what surrounds them, whatever the parts of a plane are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from skimage import measure
from skimage.morphology import remove_small_objects

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


@pytest.mark.parametrize("smallest", [3, 12, 200])
def test_those_go_that_another_library_removes(smallest: int) -> None:
    for labels in (speckled(), tissue()):
        hanging_together = measure.label(labels, connectivity=1)  # type: ignore[no-untyped-call]
        kept = remove_small(hanging_together, smallest)
        expected = (labels != 0) & (kept == 0)
        assert 0 < expected.sum() < labels.size
        cleaned = without_small_objects(labels, smallest)
        # All others are as they were, and those that went have a class nearby.
        np.testing.assert_array_equal(cleaned[~expected], labels[~expected])
        y, x = distance_transform_edt(
            (labels == 0) | expected, return_distances=False, return_indices=True
        )
        np.testing.assert_array_equal(cleaned[expected], labels[y, x][expected])


def test_nothing_is_given_to_what_is_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "REACH_PX", 5)
    labels = np.zeros((9, 30), np.uint8)
    labels[:, :6] = 1
    labels[4, [10, 11, 20]] = 2
    cleaned = without_small_objects(labels, 4)
    assert cleaned[4, [10, 11, 20]].tolist() == [1, 2, 2]


@pytest.mark.parametrize("reach", [4, 256])
@pytest.mark.parametrize("smallest", [3, 12, 60])
@pytest.mark.parametrize("side", [7, 16, 64])
def test_parts_of_a_plane_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, side: int, smallest: int, reach: int
) -> None:
    monkeypatch.setattr(objects, "REACH_PX", reach)
    for labels in (speckled(), tissue()):
        whole = without_small_objects(labels, smallest)
        assert (whole != labels).any()
        with monkeypatch.context() as small:
            small.setattr(objects, "WHOLE_PX", 0)
            small.setattr(objects, "PART_SIDE", side)
            made = np.zeros_like(labels)
            for (y0, x0, y1, x1), part in iter_without_small_objects(labels, smallest):
                made[y0:y1, x0:x1] = part
        np.testing.assert_array_equal(made, whole)


def test_of_a_large_plane_no_more_is_read_than_around_a_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "WHOLE_PX", 0)
    monkeypatch.setattr(objects, "PART_SIDE", 20)
    monkeypatch.setattr(objects, "REACH_PX", 6)
    read = []

    class Plane(np.ndarray):
        def __getitem__(self, key: Any) -> Any:
            found = np.asarray(self)[key]
            read.append(found.shape)
            return found

    parts = iter_without_small_objects(tissue().view(Plane), 5)
    assert len(list(parts)) == len(read) == 3 * 4
    assert max(max(shape) for shape in read) == 20 + 2 * (6 + 5)


def remove_small(hanging_together: NDArray[Any], smallest: int) -> NDArray[Any]:
    """Call scikit-image, in which the name of the size has changed."""
    words = inspect.signature(remove_small_objects).parameters
    size = {"max_size": smallest - 1} if "max_size" in words else {"min_size": smallest}
    kept: NDArray[Any] = remove_small_objects(hanging_together, **size)
    return kept


def tissue() -> NDArray[Any]:
    """Return blobs of all sizes, a part of which is not labelled."""
    noise = np.random.default_rng(1).normal(size=(3, 60, 70))
    maps = [gaussian_filter(each, 1.2) for each in noise]
    labels: NDArray[Any] = 1 + np.argmax(maps, axis=0)
    labels[15:30, 20:50] *= np.random.default_rng(2).random((15, 30)) < 0.1
    labels = labels.astype(np.uint8)
    return labels


def speckled() -> NDArray[Any]:
    labels = np.random.default_rng(0).integers(1, 4, (60, 70)).astype(np.uint8)
    labels[:20, :20] = 1
    labels[30:50, 30:60] = 2
    return labels
