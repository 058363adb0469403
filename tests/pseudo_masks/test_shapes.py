"""Masks of a box alone: all of it, or its ellipse, as the truth of real boxes shows."""

from pathlib import Path

import numpy as np
import pytest
from skimage.draw import ellipse

from napari_sparseseg.annotations import Box, read_boxes
from napari_sparseseg.io import read_label_map
from napari_sparseseg.pseudo_masks.label_map import BoxMask
from napari_sparseseg.pseudo_masks.shapes import box_mask, ellipse_mask


def test_a_box_is_all_foreground() -> None:
    mask = box_mask(Box(2, 3, 4, 8, 1))
    assert mask.foreground.tolist() == [[True] * 5] * 2
    assert mask.localization.tolist() == [[1.0] * 5] * 2
    assert mask.localization.dtype == np.float32
    assert not mask.background.any()


def test_an_ellipse_by_hand() -> None:
    # Centres at -2/3, 0, 2/3 of the half height and -.8, -.4, 0, .4, .8 of the half
    # width: 4/9 + .64 > 1, but 4/9 + .16 < 1.
    mask = ellipse_mask(Box(2, 3, 5, 8, 1))
    expected = [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]
    assert mask.foreground.astype(int).tolist() == expected
    assert mask.localization.astype(int).tolist() == expected
    assert mask.background.astype(int).tolist() == (1 - np.array(expected)).tolist()


@pytest.mark.parametrize("shape", [(40, 25), (7, 60), (31, 31)])
def test_ellipses_agree_with_scikit_image(shape: tuple[int, int]) -> None:
    height, width = shape
    drawn = np.zeros(shape, np.bool_)
    centre = (height - 1) / 2, (width - 1) / 2
    inside = ellipse(*centre, height / 2, width / 2, shape=shape)  # type: ignore[no-untyped-call]
    drawn[inside] = True
    found = ellipse_mask(Box(0, 0, height, width, 1)).foreground
    # It leaves out centres that lie on the ellipse itself.
    assert np.count_nonzero(found != drawn) <= 4


def test_ellipses_touch_all_sides_and_have_the_area_of_ellipses() -> None:
    foreground = ellipse_mask(Box(0, 0, 200, 300, 1)).foreground
    edges = foreground[0], foreground[-1], foreground[:, 0], foreground[:, -1]
    assert all(edge.any() for edge in edges)
    assert foreground.mean() == pytest.approx(np.pi / 4, abs=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (2, 1), (9, 2)])
def test_the_smallest_boxes_keep_an_ellipse(shape: tuple[int, int]) -> None:
    mask = ellipse_mask(Box(5, 6, 5 + shape[0], 6 + shape[1], 1))
    assert mask.foreground.shape == shape
    assert mask.foreground.any()


def test_on_real_tumours_the_ellipse_is_nearer_to_the_truth(data_dir: Path) -> None:
    for name, tumour in (("ircadb", 4), ("sts", 2)):
        train = data_dir / name / "train"
        dice: dict[str, list[float]] = {"box": [], "ellipse": []}
        for path in sorted((train / "boxes").glob("*.json")):
            truth = read_label_map(train / "dense" / f"{path.stem}.png") == tumour
            for box in read_boxes(path):
                if box.class_value == tumour:
                    inside = truth[box.slices]
                    for method, mask in _masks(box).items():
                        both = np.count_nonzero(mask.foreground & inside)
                        total = np.count_nonzero(mask.foreground) + inside.sum()
                        dice[method].append(2 * both / total)
        assert len(dice["box"]) > 20
        assert np.mean(dice["ellipse"]) > np.mean(dice["box"]) + 0.05


def _masks(box: Box) -> dict[str, BoxMask]:
    return {"box": box_mask(box), "ellipse": ellipse_mask(box)}
