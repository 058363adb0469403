"""Strokes and counts of label maps, and the check that lets label maps in."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_sparseseg.annotations import (
    LabelCount,
    check_label_map,
    count_labels,
    find_strokes,
)
from napari_sparseseg.errors import LabelError

# Class 1 touches itself over a corner; class 300 touches class 1 but not itself.
LABEL_MAP = np.array(
    [
        [1, 0, 0, 300],
        [0, 1, 300, 0],
        [0, 0, 0, 0],
        [1, 1, 0, 300],
    ],
    np.uint16,
)


def test_strokes_are_8_connected_and_of_one_class() -> None:
    strokes = find_strokes(LABEL_MAP)
    assert strokes.ids.dtype == np.int32
    assert strokes.ids.tolist() == [
        [1, 0, 0, 2],
        [0, 1, 2, 0],
        [0, 0, 0, 0],
        [3, 3, 0, 4],
    ]
    assert strokes.class_values.tolist() == [1, 300, 1, 300]
    assert strokes.sizes.tolist() == [2, 2, 2, 1]
    assert len(strokes) == 4


def test_counts_are_by_class_value() -> None:
    assert count_labels(LABEL_MAP) == {
        1: LabelCount(pixels=4, strokes=2),
        300: LabelCount(pixels=3, strokes=2),
    }


def test_a_map_without_annotation_has_no_stroke() -> None:
    empty = np.zeros((3, 2), np.uint8)
    strokes = find_strokes(empty)
    assert len(strokes) == len(strokes.class_values) == 0
    assert not strokes.ids.any()
    assert count_labels(empty) == {}


def check_against_scipy(label_map: NDArray[np.uint8]) -> None:
    """Compare with the components that SciPy finds in each class by itself."""
    strokes = find_strokes(label_map)
    assert len(np.unique(strokes.ids[strokes.ids > 0])) == len(strokes)
    for value in np.unique(label_map[label_map > 0]):
        expected, n_expected = ndimage.label(label_map == value, np.ones((3, 3)))
        ids = np.flatnonzero(strokes.class_values == value) + 1
        assert len(ids) == n_expected
        for stroke_id in ids:
            pixels = strokes.ids == stroke_id
            assert len(np.unique(expected[pixels])) == 1
            assert expected[pixels].min() > 0
            assert strokes.sizes[stroke_id - 1] == np.count_nonzero(pixels)


def test_strokes_agree_with_scipy_on_random_maps() -> None:
    rng = np.random.default_rng(0)
    for share in (0.05, 0.3, 0.9):
        labels = rng.integers(1, 4, (40, 30)) * (rng.random((40, 30)) < share)
        check_against_scipy(labels.astype(np.uint8))


@pytest.mark.parametrize("folder", ["adp/train/strokes_1pct", "sts/train/strokes_1pct"])
def test_strokes_agree_with_scipy_on_real_maps(data_dir: Path, folder: str) -> None:
    for file in sorted((data_dir / folder).glob("*.png"))[:4]:
        check_against_scipy(np.array(Image.open(file)))


@pytest.mark.parametrize(
    ("given", "highest", "expected"),
    [
        ("u1", 255, np.uint8),
        ("u2", 65535, np.uint16),
        (">u2", 65535, np.uint16),
        ("i2", 255, np.uint8),
        ("i4", 256, np.uint16),
        ("u4", 65535, np.uint16),
        ("i8", 65535, np.uint16),
        ("u8", 7, np.uint8),
    ],
)
def test_integers_of_any_width_keep_their_values(
    given: str, highest: int, expected: type[np.generic]
) -> None:
    label_map = np.array([[0, 1, highest]], given)
    checked = check_label_map(label_map, image_shape=(1, 3, 3))
    assert checked.dtype == expected
    assert checked.dtype.isnative
    assert checked.tolist() == [[0, 1, highest]]


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.zeros((2, 3), bool), "type bool, but class values are integers"),
        (np.zeros((2, 3), np.float32), "type float32, but class values are integers"),
        (np.array([[0, -1, -7]]), "from -7 to 0, of which 2 pixels are outside"),
        (np.array([[0, 65536]]), "from 0 to 65536, of which 1 pixel is outside"),
        (np.zeros(4, np.uint8), r"shape \(4,\), but a label map has two dimensions"),
        (np.zeros((2, 3, 3), np.uint8), r"shape \(2, 3, 3\).*colour-coded mask"),
        (np.zeros((0, 3), np.uint8), r"shape \(0, 3\) and thus no pixel"),
    ],
)
def test_what_is_no_label_map_is_refused(
    label_map: NDArray[np.generic], message: str
) -> None:
    with pytest.raises(LabelError, match=f"^The strokes .*{message}"):
        check_label_map(label_map, name="strokes")
    with pytest.raises(LabelError):
        find_strokes(label_map)


def test_another_size_than_the_image_is_refused_with_both() -> None:
    with pytest.raises(LabelError, match=r"zones has shape \(2, 3\).*\(3, 2, 3\)"):
        check_label_map(np.zeros((2, 3), np.uint8), (3, 2, 3), name="zones")
