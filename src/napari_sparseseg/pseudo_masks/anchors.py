"""Anchors, and those among them that are examples of what is no object."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from napari_sparseseg.networks.backbone import LEVELS

if TYPE_CHECKING:
    from torch import Tensor

#: Sides of square anchors on P2..P5, in input pixels (Fan 2022, section 3.2).
SIDES = (32, 64, 128, 256)

#: Height to width, at equal areas.
RATIOS = (0.5, 1.0, 2.0)


def level_anchors(height: int, width: int) -> list[Tensor]:
    """Give the anchors of P2..P5 for an image.

    Parameters
    ----------
    height, width
        Of the image in pixels.

    Returns
    -------
    list of Tensor
        For each level (ceil(height / stride) * ceil(width / stride) * 3, 4) float32 as
        (x0, y0, x1, y1) in pixels, row by row, by torchvision: centred at multiples of
        the stride, sides rounded to even pixels. Some leave the image.
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    generator = AnchorGenerator([(side,) for side in SIDES], (RATIOS,) * len(SIDES))
    strides = [2**level for level in LEVELS]
    grids = [[math.ceil(height / each), math.ceil(width / each)] for each in strides]
    steps = [[torch.tensor(each), torch.tensor(each)] for each in strides]
    anchors: list[Tensor] = generator.grid_anchors(grids, steps)
    return anchors


def nearest_negatives(
    height: int, width: int, boxes: Tensor, share: float = 0.1
) -> Tensor:
    """Give the anchors that are negatives, as near to the boxes as can be.

    Those that leave the image or overlap a box (IoU > 0; touching is no overlap) are
    dropped; of the rest each level gives the *share* (rounded up) whose centres are
    nearest to the centre of their closest box. Fan 2022, section 2.3.

    Parameters
    ----------
    height, width
        Of the image in pixels.
    boxes
        (n, 4) float as (x0, y0, x1, y1) in pixels, n >= 1.
    share
        In (0, 1].

    Returns
    -------
    Tensor
        (m, 4) float32, level by level, nearest first; m = 0 where boxes leave no room.
    """
    from torchvision.ops import box_iou

    negatives = []
    for anchors in level_anchors(height, width):
        x0, y0, x1, y1 = anchors.unbind(dim=1)
        free = (x0 >= 0) & (y0 >= 0) & (x1 <= width) & (y1 <= height)
        anchors = anchors[free]
        overlaps = torch.zeros(len(anchors), dtype=torch.bool)
        distances = torch.full((len(anchors),), torch.inf)
        # One box after the other, so that a thousand of them do not need gigabytes.
        for box in boxes:
            overlaps |= box_iou(anchors, box[None])[:, 0] > 0
            distances = distances.minimum(
                (_centres(anchors) - _centres(box)).norm(dim=1)
            )
        anchors, distances = anchors[~overlaps], distances[~overlaps]
        nearest = distances.argsort(stable=True)[: math.ceil(share * len(anchors))]
        negatives.append(anchors[nearest])
    return torch.cat(negatives)


def _centres(boxes: Tensor) -> Tensor:
    """Give the centres (..., 2), as (x, y), of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2
