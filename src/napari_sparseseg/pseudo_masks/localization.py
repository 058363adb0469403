"""Localisation maps: how much each pixel of a box looks like its object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from napari_sparseseg.networks.region_classifier import (
    maps_of,
    normalise_maps,
    pool_regions,
)
from napari_sparseseg.pseudo_masks.mining import stack_images

if TYPE_CHECKING:
    from torch import Tensor

    from napari_sparseseg.networks.region_classifier import (
        ActivationMaps,
        RegionNetwork,
    )
    from napari_sparseseg.pseudo_masks.mining import MiningImage

#: Boxes that are classified at once, which bounds the memory needed.
BOXES_AT_ONCE = 256


def localise(network: RegionNetwork, image: MiningImage) -> Tensor:
    """Give the localisation map of each box of an image.

    Parameters
    ----------
    network
        After region mining, on any device. It is in evaluation mode afterwards.
    image
        With its boxes; it need not be one that was learned.

    Returns
    -------
    Tensor
        (n, S, S) float32 in [0, 1] on the CPU, S bins a side over the box: see
        :func:`fuse`, and :func:`fit_to_box` for the pixels.
    """
    network.eval()
    device = network.pyramid.mean.device
    with torch.inference_mode():
        levels = network.pyramid(stack_images([image.pixels]).to(device))
        fused = [torch.empty(0, network.roi_size, network.roi_size)]
        for boxes, channels in zip(
            image.boxes.to(device).split(BOXES_AT_ONCE),
            image.channels.to(device).split(BOXES_AT_ONCE),
            strict=True,
        ):
            if len(boxes):
                features = pool_regions(levels, [boxes], network.roi_size)
                maps = network.classify(features, channels)
                fused.append(fuse(maps, channels).float().cpu())
    # What was made in inference mode could not be used in another training.
    return torch.cat(fused).clone()


def fuse(maps: ActivationMaps, channels: Tensor) -> Tensor:
    """Join what A and B look at: the maximum of their normalised maps, M_fuse.

    Fan 2022, section 2.4. Without B it is A's map alone, CAM.

    Parameters
    ----------
    maps
        Of n boxes.
    channels
        (n,) int64: the class of each box.

    Returns
    -------
    Tensor
        (n, S, S) in [0, 1]; 0 all over where neither classifier finds the class more
        likely in one place than in another.
    """
    a = normalise_maps(maps_of(maps.a, channels))
    if maps.b is None:
        return a
    return a.maximum(normalise_maps(maps_of(maps.b, channels)))


def fit_to_box(localisation: Tensor, height: int, width: int) -> Tensor:
    """Resample a map (S, S) of a box bilinearly to its pixels, (height, width)."""
    fitted = F.interpolate(
        localisation[None, None], (height, width), mode="bilinear", align_corners=False
    )
    return fitted[0, 0].clamp(0, 1)  # rounding goes beyond
