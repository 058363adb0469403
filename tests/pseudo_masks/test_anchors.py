"""Anchors: places, sizes, and which of them are negatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from napari_sparseseg.pseudo_masks.anchors import level_anchors, nearest_negatives

BOXES = torch.tensor([[90.0, 100, 140, 130], [200, 60, 230, 120], [150, 150, 151, 151]])


def test_the_first_anchors_are_those_worked_out_by_hand() -> None:
    # Area 32^2 with height to width 1/2, 1 and 2: 45.25 x 22.63, 32 x 32, 22.63 x 45.25
    # around (0, 0), halves rounded to 23, 11 and 16; the next are 4 pixels further.
    p2, p3, p4, p5 = level_anchors(64, 96)
    around = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    assert p2[:3].tolist() == around
    assert p2[3:6].tolist() == [[x0 + 4, y0, x1 + 4, y1] for x0, y0, x1, y1 in around]
    # Row 1 of P3 starts behind its 12 columns, 8 pixels below.
    assert p3[3 * 12 + 1].tolist() == [-32, -32 + 8, 32, 32 + 8]
    assert p4[1].tolist() == [-64, -64, 64, 64]
    assert p5[-2].tolist() == [64 - 128, 32 - 128, 64 + 128, 32 + 128]
    assert [len(each) for each in (p2, p3, p4, p5)] == [
        3 * 16 * 24,
        3 * 8 * 12,
        3 * 4 * 6,
        3 * 2 * 3,
    ]


def test_areas_and_ratios_are_the_papers_within_rounding() -> None:
    for side, anchors in zip((32, 64, 128, 256), level_anchors(256, 256), strict=True):
        for ratio, (x0, y0, x1, y1) in zip(
            (0.5, 1, 2), anchors[:3].tolist(), strict=True
        ):
            assert y1 - y0 == pytest.approx(side * math.sqrt(ratio), abs=1)
            assert x1 - x0 == pytest.approx(side / math.sqrt(ratio), abs=1)


@pytest.mark.parametrize(("height", "width"), [(256, 320), (512, 512)])
def test_they_are_those_that_torchvision_gives_to_feature_maps(
    height: int, width: int
) -> None:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    images = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    levels = [torch.zeros(1, 1, height // s, width // s) for s in (4, 8, 16, 32)]
    sizes = ((32,), (64,), (128,), (256,))
    (expected,) = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 4)(images, levels)
    assert torch.equal(torch.cat(level_anchors(height, width)), expected)


def test_sides_that_are_no_multiples_of_the_stride_are_covered() -> None:
    sizes = [len(each) for each in level_anchors(70, 100)]
    assert sizes == [3 * 18 * 25, 3 * 9 * 13, 3 * 5 * 7, 3 * 3 * 4]


def negatives_by_loops(height: int, width: int, boxes: Tensor) -> list[list[float]]:
    """Give the negatives as a human would pick them."""
    chosen = []
    for anchors in level_anchors(height, width):
        free = []
        for anchor in anchors.tolist():
            x0, y0, x1, y1 = anchor
            inside = x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
            apart = all(
                x1 <= bx0 or bx1 <= x0 or y1 <= by0 or by1 <= y0
                for bx0, by0, bx1, by1 in boxes.tolist()
            )
            if inside and apart:
                distance = min(
                    math.dist(
                        ((x0 + x1) / 2, (y0 + y1) / 2),
                        ((bx0 + bx1) / 2, (by0 + by1) / 2),
                    )
                    for bx0, by0, bx1, by1 in boxes.tolist()
                )
                free.append((round(distance, 3), anchor))
        # Sorting keeps the order of equally distant ones.
        free.sort(key=lambda each: each[0])
        chosen += [anchor for _, anchor in free[: math.ceil(0.1 * len(free))]]
    return chosen


def test_negatives_overlap_no_box_and_are_the_nearest_tenth_of_each_level() -> None:
    negatives = nearest_negatives(256, 320, BOXES)
    expected = negatives_by_loops(256, 320, BOXES)
    assert len(expected) > 100
    assert sorted(negatives.tolist()) == sorted(expected)
    sides = negatives[:, 2:] - negatives[:, :2]
    areas = {round(math.sqrt(a) / 8) * 8 for a in sides.prod(dim=1).tolist()}
    assert areas == {32, 64, 128}


def test_an_anchor_that_only_touches_a_box_is_a_negative() -> None:
    # Between two boxes that fill all but a gap of 32 pixels from 64 to 96.
    boxes = torch.tensor([[0.0, 0, 64, 128], [96, 0, 128, 128]])
    negatives = nearest_negatives(128, 128, boxes, share=1)
    assert [80.0 - 16, 16, 80 + 16, 48] in negatives.tolist()
    assert (negatives[:, 0] >= 64).all()
    assert (negatives[:, 2] <= 96).all()
    closer = torch.tensor([[0.0, 0, 65, 128], [95, 0, 128, 128]])
    narrow = nearest_negatives(128, 128, closer, share=1)
    assert [80.0 - 16, 16, 80 + 16, 48] not in narrow.tolist()


def test_boxes_that_cover_everything_leave_no_negative() -> None:
    everything = torch.tensor([[0.0, 0, 128, 128]])
    assert nearest_negatives(128, 128, everything).shape == (0, 4)
