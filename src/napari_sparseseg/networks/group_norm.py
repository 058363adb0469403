"""Group normalisation that gives the same result for a tile as for the whole image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sparseseg.networks.image_statistics import UsesImageStatistics


class GroupNorm(UsesImageStatistics):
    """Group normalisation (Wu and He 2018) with statistics of its input, or fixed ones.

    (B, C, H, W) -> (B, C, H, W). The statistics are (2, groups): mean, mean square.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(num_channels))
        self.bias = torch.nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise *x*."""
        if self.fixed is not None:
            return self._apply_fixed(x, self.fixed)
        if self.measuring:
            grouped = x.unflatten(1, (self.num_groups, -1)).float()
            axes = (0, 2, 3, 4)
            self.measured = torch.stack([grouped.mean(axes), (grouped**2).mean(axes)])
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def _apply_fixed(self, x: Tensor, statistics: Tensor) -> Tensor:
        width = self.num_channels // self.num_groups
        mean, square = statistics.repeat_interleave(width, dim=1)
        variance = (square - mean**2).clamp_min(0)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
