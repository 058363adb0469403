"""Building blocks of the networks."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from napari_sparseseg.errors import OptionError
from napari_sparseseg.networks.group_norm import GroupNorm

Norm = Literal["none", "batch", "group"]

#: Channels of one group of group normalisation, where they divide into such groups.
GROUP_WIDTH = 8


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Return the normalisation layer called *norm* for *channels* channels.

    Raises
    ------
    OptionError
        If there is no such normalisation.
    """
    if norm not in get_args(Norm):
        raise OptionError(
            f"the normalisation is named {norm!r}; expected one of "
            f"{', '.join(get_args(Norm))}.",
            norm=norm,
        )
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        groups = math.gcd(channels, max(1, channels // GROUP_WIDTH))
        return GroupNorm(groups, channels)
    return nn.Identity()


def dropout_layer(share: float) -> nn.Dropout:
    """Return a layer that leaves out a share of its input while learning.

    Raises
    ------
    OptionError
        If the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise OptionError(
            f"the dropout is {share}; expected a probability from 0 (none) to below 1.",
            dropout=share,
        )
    return nn.Dropout(share)


def convolution(
    in_channels: int, out_channels: int, norm: Norm, kernel_size: int = 3
) -> nn.Sequential:
    """Zero-padded convolution, normalisation, ReLU; height and width are kept."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            bias=norm == "none",
        ),
        norm_layer(norm, out_channels),
        nn.ReLU(inplace=True),
    )


class ConcatBlock(nn.Module):
    """Two 3x3 convolutions whose input is concatenated with their output.

    (B, C, H, W) -> (B, C + F, H, W) with F = ``filters``. The skip connection
    inside a level of Bokhorst 2018, section 3 "Training" and figure 2b.
    """

    def __init__(self, in_channels: int, filters: int, norm: Norm) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            convolution(in_channels, filters, norm),
            convolution(filters, filters, norm),
        )
        self.out_channels = in_channels + filters

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.convolutions(x)], dim=1)


class UpBlock(nn.Module):
    """Nearest-neighbour up-sampling by 2 followed by a 3x3 convolution.

    (B, C, H, W) -> (B, F, 2H, 2W); stands where the original U-Net has a
    transposed convolution (Bokhorst 2018, section 3 "Training").
    """

    def __init__(self, in_channels: int, filters: int, norm: Norm) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.convolution = convolution(in_channels, filters, norm)

    def forward(self, x: Tensor) -> Tensor:
        up: Tensor = self.convolution(self.upsample(x))
        return up
