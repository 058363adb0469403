"""What every network here is: image in, one score map a class out."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn


class ScoringNetwork(nn.Module):
    """(B, C, H, W) float -> (B, n_classes, H, W) scores before softmax, any H and W."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Input pixels to one pixel of the deepest level."""

    @property
    @abstractmethod
    def halo(self) -> int:
        """Radius, in pixels, beyond which an input pixel cannot change an output."""


def as_batch(x: Tensor) -> Tensor:
    """Return (C, H, W) as a batch of one in the memory format of the networks."""
    return x[None].contiguous(memory_format=torch.channels_last)
