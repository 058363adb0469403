"""What every network here is: image in, one score map a class out."""

from __future__ import annotations

from abc import abstractmethod

from torch import nn


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
