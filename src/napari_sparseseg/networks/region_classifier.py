"""Classifiers of regions whose class activation maps show where the object is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from napari_sparseseg.networks.backbone import LEVELS
from napari_sparseseg.networks.encoders import initialise_he

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.networks.backbone import ResNetPyramid

#: A square box of this side takes its features from P4 (Fan 2022, equation 2).
SIDE_OF_P4 = 224

#: Points per bin and axis at which RoIAlign reads the features.
SAMPLES = 2


class RegionClassifier(nn.Module):
    """Two convolutions whose output, averaged, is the score of each class.

    (n, F, S, S) features -> (n, n_outputs, S, S) activation maps. Fan 2022, section
    2.3: 512 channels between, ReLU; 3x3, then 1x1 without bias. With such a layer the
    map of a class equals CAM's M_c = sum_k S_k W_k^c (equation 1), where S is what the
    first convolution gives and W the weights of a linear layer behind the pooling.
    """

    def __init__(self, in_channels: int, n_outputs: int, hidden: int = 512) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
        self.second = nn.Conv2d(hidden, n_outputs, kernel_size=1, bias=False)
        initialise_he(self)

    def forward(self, features: Tensor) -> Tensor:
        maps: Tensor = self.second(self.first(features).relu())
        return maps


class ActivationMaps(NamedTuple):
    """Maps of n regions by classifiers A and B; B's are None where there is only A.

    Each is (n, C + 1, S, S) before softmax; the last channel is the background's.
    """

    a: Tensor
    b: Tensor | None


class RegionNetwork(nn.Module):
    """Region mining of Fan 2022 (figure 4): pyramid, RoIAlign, classifiers A and B.

    Parameters
    ----------
    pyramid
        Gives the features.
    n_classes
        C, the classes that boxes may have.
    roi_size
        S, the side of a region's features.
    complementary
        Whether there is a classifier B, which sees what A does not look at (ACoL,
        Zhang et al. 2018); without it A's map is CAM.
    erase_threshold
        Features where A's map, normalised to [0, 1], is above it are hidden from B.

    Notes
    -----
    (B, 1 or 3, H, W) float in [0, 1], for each image its boxes (n_i, 4) float as (x0,
    y0, x1, y1) in pixels, and the channels (n,) int64 of all boxes in that order, C for
    the background -> :class:`ActivationMaps`.
    """

    def __init__(
        self,
        pyramid: ResNetPyramid,
        n_classes: int,
        *,
        roi_size: int = 14,
        complementary: bool = True,
        erase_threshold: float = 0.6,
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.roi_size = roi_size
        self.erase_threshold = erase_threshold
        self.pyramid = pyramid
        self.a = RegionClassifier(pyramid.channels, n_classes + 1)
        self.b = (
            RegionClassifier(pyramid.channels, n_classes + 1) if complementary else None
        )

    def forward(
        self, images: Tensor, boxes: Sequence[Tensor], channels: Tensor
    ) -> ActivationMaps:
        features = pool_regions(self.pyramid(images), boxes, self.roi_size)
        return self.classify(features, channels)

    def classify(self, features: Tensor, channels: Tensor) -> ActivationMaps:
        """Classify regions by their features.

        Parameters
        ----------
        features
            (n, F, S, S), see :func:`pool_regions`.
        channels
            (n,) int64: whose map hides features from B. A region of the background
            takes the box class that A thinks most likely.
        """
        a: Tensor = self.a(features)
        if self.b is None:
            return ActivationMaps(a, None)
        likeliest = pool_scores(a)[:, : self.n_classes].argmax(dim=1)
        chosen = torch.where(channels == self.n_classes, likeliest, channels)
        salience = normalise_maps(maps_of(a, chosen))
        return ActivationMaps(
            a, self.b(erase(features, salience, self.erase_threshold))
        )


def pool_scores(maps: Tensor) -> Tensor:
    """Give the scores (n, C) of maps (n, C, S, S): their global average."""
    return maps.mean(dim=(2, 3))


def maps_of(maps: Tensor, channels: Tensor) -> Tensor:
    """Take from maps (n, C, S, S) those of one channel each, (n,): (n, S, S)."""
    return maps[torch.arange(len(maps), device=maps.device), channels]


def normalise_maps(maps: Tensor) -> Tensor:
    """Bring maps (n, S, S) to [0, 1] by ReLU and, each by itself, min-max.

    A map that is constant then says nothing, and becomes 0. Fan 2022, section 2.2.
    """
    positive = maps.relu()
    lowest = positive.amin(dim=(1, 2), keepdim=True)
    span = positive.amax(dim=(1, 2), keepdim=True) - lowest
    return (positive - lowest) / torch.where(span > 0, span, 1)


def erase(features: Tensor, salience: Tensor, threshold: float) -> Tensor:
    """Set features (n, F, S, S) to 0 where salience (n, S, S) is above *threshold*.

    No gradient flows to *salience*. Fan 2022, section 2.2.
    """
    return features.masked_fill((salience > threshold)[:, None], 0)


def assign_levels(boxes: Tensor) -> Tensor:
    """Tell from which level of the pyramid the features of each box come.

    Parameters
    ----------
    boxes
        (n, 4) float as (x0, y0, x1, y1) in input pixels.

    Returns
    -------
    Tensor
        (n,) int64 on the CPU: k = floor(4 + log2(sqrt(w h) / 224)) of Fan 2022,
        equation 2, clamped to 2..5.
    """
    # In double precision, which Apple's GPUs have not, so that sides of 224 and 448
    # pixels belong to the upper level.
    x0, y0, x1, y1 = boxes.cpu().double().unbind(dim=1)
    sides = ((x1 - x0) * (y1 - y0)).sqrt()
    levels = (4 + (sides / SIDE_OF_P4).log2()).floor()
    return levels.clamp(LEVELS[0], LEVELS[-1]).long()


def pool_regions(
    levels: Sequence[Tensor], boxes: Sequence[Tensor], size: int
) -> Tensor:
    """Give the features of boxes by RoIAlign, each from its level of the pyramid.

    Parameters
    ----------
    levels
        P2..P5, each (B, F, H / stride, W / stride).
    boxes
        For each of the B images (n_i, 4) float as (x0, y0, x1, y1) in input pixels.
    size
        S, bins a side.

    Returns
    -------
    Tensor
        (n, F, S, S) with n the sum of n_i, in the order of *boxes*. Pixel coordinates
        are continuous: the first pixel reaches from 0 to 1 (``aligned=True``).
    """
    from torchvision.ops import roi_align

    joined = torch.cat(list(boxes))
    counts = torch.tensor([len(each) for each in boxes], device=joined.device)
    image = torch.arange(len(boxes), device=joined.device).repeat_interleave(counts)
    regions = torch.cat([image[:, None].to(joined), joined], dim=1)
    assigned = assign_levels(joined)
    pooled = levels[0].new_zeros(len(joined), levels[0].shape[1], size, size)
    for level, features in zip(LEVELS, levels, strict=True):
        chosen = (assigned == level).nonzero()[:, 0].to(joined.device)
        if len(chosen):
            pooled[chosen] = roi_align(
                features, regions[chosen], size, 1 / 2**level, SAMPLES, aligned=True
            )
    return pooled
