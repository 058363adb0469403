"""What every network here is: image in, one score map a class out."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from napari_sparseseg.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path


class ScoringNetwork(nn.Module):
    """(B, C, H, W) float -> (B, n_classes, H, W) scores before softmax, any H and W.

    Attributes
    ----------
    input_mean, input_deviation
        By which intensities in [0, 1] are to be standardised before they come here: one
        number for all channels, or one for each.
    """

    input_mean: ClassVar[float | tuple[float, ...]] = 0.5
    input_deviation: ClassVar[float | tuple[float, ...]] = 0.25

    @property
    @abstractmethod
    def stride(self) -> int:
        """Input pixels to one pixel of the deepest level."""

    @property
    @abstractmethod
    def halo(self) -> int:
        """Radius, in pixels, beyond which an input pixel cannot change an output."""

    def load_encoder(self, weights: str | Path) -> None:
        """Take published weights for a part of the network, in place.

        Parameters
        ----------
        weights
            See :func:`~napari_sparseseg.networks.backbone.load_resnet_weights`.

        Raises
        ------
        OptionError
            If it has no part that has published weights.
        ModelFileError
            If the weights cannot be had, or are those of another network.
        """
        raise OptionError(
            f"the encoder is to have the weights {str(weights)!r}, but this network "
            "has no encoder that others have trained; take deeplabv3, or no weights.",
            weights=str(weights),
        )


def as_batch(x: Tensor) -> Tensor:
    """Return (C, H, W) as a batch of one in the memory format of the networks."""
    return x[None].contiguous(memory_format=torch.channels_last)
