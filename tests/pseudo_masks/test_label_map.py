"""Masks of boxes merged into one label map: what is ignored, and who is on top."""

from pathlib import Path

import numpy as np
import pytest

from napari_sparseseg.annotations import Box, read_boxes
from napari_sparseseg.errors import LabelError, OptionError
from napari_sparseseg.io import read_label_map
from napari_sparseseg.pseudo_masks.label_map import BoxMask, PseudoMask, merge_masks
from napari_sparseseg.pseudo_masks.shapes import box_mask, ellipse_mask


def mask_of(box: Box, foreground: list[list[int]], strength: float = 1) -> BoxMask:
    called = np.array(foreground, np.bool_)
    return BoxMask(box, called, np.full(box.shape, strength, np.float32))


LARGE = mask_of(Box(0, 0, 3, 4, 7), [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]], 0.25)
SMALL = mask_of(Box(1, 1, 3, 5, 9), [[0, 1, 1, 1], [0, 0, 0, 1]], 0.75)


def test_two_overlapping_boxes_by_hand() -> None:
    for masks in ([LARGE, SMALL], [SMALL, LARGE]):
        merged = merge_masks(masks, (4, 6), background=2)
        assert merged.labels.dtype == np.uint8
        assert merged.labels.tolist() == [
            [7, 7, 7, 0, 2, 2],
            [7, 7, 9, 9, 9, 2],
            [7, 7, 0, 0, 9, 2],
            [2, 2, 2, 2, 2, 2],
        ]
        assert merged.localization.dtype == np.float32
        assert (merged.localization * 4).tolist() == [
            [1, 1, 1, 1, 0, 0],
            [1, 3, 3, 3, 3, 0],
            [1, 3, 3, 3, 3, 0],
            [0, 0, 0, 0, 0, 0],
        ]


def test_without_a_background_class_all_else_is_ignored() -> None:
    merged = merge_masks([SMALL], (3, 6))
    assert merged.labels.tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 9, 9, 9, 0],
        [0, 0, 0, 0, 9, 0],
    ]


def test_background_inside_is_kept_where_every_box_calls_it_so() -> None:
    undecided = np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]], np.bool_)
    large = BoxMask(LARGE.box, LARGE.foreground, LARGE.localization, undecided)
    assert large.background.astype(int).tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 1, 1],
    ]
    kept = merge_masks([large, SMALL], (4, 6), 2, background_inside=True).labels
    assert kept.tolist() == [
        [7, 7, 7, 0, 2, 2],
        [7, 7, 9, 9, 9, 2],
        [7, 7, 2, 2, 9, 2],
        [2, 2, 2, 2, 2, 2],
    ]


def test_of_boxes_of_one_area_the_first_is_on_top() -> None:
    upright, lying = box_mask(Box(0, 0, 3, 1, 1)), box_mask(Box(0, 0, 1, 3, 2))
    assert merge_masks([upright, lying], (3, 3)).labels[0, 0] == 1
    assert merge_masks([lying, upright], (3, 3)).labels[0, 0] == 2


def brute_force(masks: list[BoxMask], shape: tuple[int, int], background: int) -> list:  # type: ignore[type-arg]
    """Ask, pixel by pixel, all boxes by ascending area."""
    rows = []
    for y in range(shape[0]):
        row = []
        for x in range(shape[1]):
            value = background
            for mask in sorted(masks, key=lambda mask: mask.box.area):
                box = mask.box
                if box.y0 <= y < box.y1 and box.x0 <= x < box.x1:
                    value = 0
                    if mask.foreground[y - box.y0, x - box.x0]:
                        value = box.class_value
                        break
            row.append(value)
        rows.append(row)
    return rows


def test_many_boxes_agree_with_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    shape = (15, 20)
    for _ in range(30):
        masks = []
        for value in range(1, 7):
            y0, x0 = rng.integers(0, 12, 2).tolist()
            y1 = int(rng.integers(y0 + 1, 16))
            x1 = int(rng.integers(x0 + 1, 21))
            box = Box(y0, x0, y1, x1, value)
            called = rng.random(box.shape) < 0.4
            masks.append(BoxMask(box, called, called.astype(np.float32)))
        merged = merge_masks(masks, shape, background=8)
        assert merged.labels.tolist() == brute_force(masks, shape, 8)


def test_large_class_values_need_16_bits() -> None:
    mask = box_mask(Box(0, 0, 1, 1, 300))
    assert merge_masks([mask], (2, 2), 1).labels.tolist() == [[300, 1], [1, 1]]
    assert merge_masks([SMALL], (3, 5), 65535).labels[0, 0] == 65535


def test_an_image_without_boxes_is_background() -> None:
    merged = merge_masks([], (2, 3), background=4)
    assert merged.labels.tolist() == [[4, 4, 4], [4, 4, 4]]
    assert not merged.localization.any()


def test_what_does_not_fit_is_refused() -> None:
    box = Box(0, 0, 2, 2, 1)
    with pytest.raises(LabelError, match=r"mask of shape \(3, 2\).*shape is \(2, 2\)"):
        mask_of(box, [[1, 1], [1, 1], [1, 1]])
    with pytest.raises(LabelError, match=r"mask of shape \(2, 1\)"):
        BoxMask(box, np.ones((2, 2), np.bool_), np.ones((2, 1), np.float32))
    with pytest.raises(LabelError, match=r"leaves its image of shape \(2, 1\); clip"):
        merge_masks([box_mask(box)], (2, 1))
    planes = [box_mask(Box(0, 0, 1, 1, 1, (z,))) for z in (0, 3)]
    with pytest.raises(LabelError, match=r"lie on 2 planes, \[0\] and others"):
        merge_masks(planes, (2, 2))
    for background in (-1, 65536):
        with pytest.raises(OptionError, match=f"The background is {background}; give"):
            merge_masks([], (2, 2), background)


def test_a_tumour_stays_visible_in_the_box_of_its_liver(data_dir: Path) -> None:
    train = data_dir / "ircadb" / "train"
    name = "3Dircadb1.01_z074"
    truth = read_label_map(train / "dense" / f"{name}.png")
    boxes = read_boxes(train / "boxes" / f"{name}.json")
    merged: PseudoMask = merge_masks([ellipse_mask(box) for box in boxes], truth.shape)
    for value in (3, 4):
        found, expected = merged.labels == value, truth == value
        both = np.count_nonzero(found & expected)
        assert 2 * both / (found.sum() + expected.sum()) > 0.6


def test_a_box_in_which_nothing_was_found_is_ignored() -> None:
    nothing = mask_of(Box(0, 0, 2, 2, 3), [[0, 0], [0, 0]])
    merged = merge_masks([nothing], (3, 3), 1, background_inside=True)
    assert merged.labels.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 1]]
