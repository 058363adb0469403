"""What every network here is: image in, one score map a class out."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.errors import OptionError
from napari_sparseseg.networks.encoders import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    as_three_channels,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sparseseg.networks.encoders import Encoder, EncoderWeights

_NO_ENCODER = (
    "has no encoder that others have trained; take a network that has one, such as "
    "unet-resnet50 or deeplabv3"
)


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

    def load_encoder(self, weights: str | Path | EncoderWeights) -> None:
        """Take published weights for a part of the network, in place.

        Parameters
        ----------
        weights
            See :func:`~napari_sparseseg.networks.encoders.load_encoder_weights`.

        Raises
        ------
        OptionError
            If it has no part that has published weights.
        ModelFileError
            If the weights cannot be had, or are those of another network.
        """
        raise OptionError(
            f"the encoder is to have weights that others have trained, but this "
            f"network {_NO_ENCODER}, or no weights.",
        )

    def freeze_encoder(self) -> None:
        """Let a part that has published weights learn no more.

        Raises
        ------
        OptionError
            If it has no such part.
        """
        raise OptionError(
            f"the encoder is to be frozen, but this network {_NO_ENCODER}, or do not "
            "freeze it."
        )


class EncoderDecoder(ScoringNetwork):
    """A network of two parts: an encoder that others may have trained, and a decoder.

    Parameters
    ----------
    in_channels
        Channels of the images, 1 or 3; one is repeated to three.

    Attributes
    ----------
    encoder
        Images in, features out.
    is_frozen
        Whether the encoder learns no more: it has no gradients, and its batch
        normalisation is that of a prediction, even in training.

    Raises
    ------
    ImageError
        For another number of channels.

    Notes
    -----
    (B, C, H, W) float, standardised as ImageNet -> (B, n_classes, H, W) scores before
    softmax, for any H and W: sides that are no multiple of ``stride`` are grown as for
    the U-Net and cropped again.
    """

    input_mean = IMAGENET_MEAN
    input_deviation = IMAGENET_DEVIATION
    encoder: Encoder
    is_frozen = False

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        as_three_channels(torch.empty(in_channels, 0, 0))  # refuses other numbers

    @property
    def stride(self) -> int:
        """Input pixels to one pixel of the deepest level."""
        return self.encoder.strides[-1]

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features of images, finest first.

        Parameters
        ----------
        x
            (B, 1 or 3, H, W) float, standardised; sides that are no multiple of
            ``stride`` are grown, see :func:`pad_to_multiple`.

        Returns
        -------
        tuple of Tensor
            (B, F, H', W') each, as the encoder has them of the grown images.
        """
        features: tuple[Tensor, ...] = self.encoder(pad_to_multiple(x, self.stride))
        return features

    @abstractmethod
    def decode(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Return the scores, (B, n_classes, H, W), of images by their features.

        Parameters
        ----------
        features
            Of :meth:`encode`.
        size
            (H, W) of the images before they were grown.
        """

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x), (x.shape[-2], x.shape[-1]))

    def load_encoder(self, weights: str | Path | EncoderWeights) -> None:
        """Take published weights, see the base class."""
        self.encoder.load(weights)

    def freeze_encoder(self) -> None:
        """Let the encoder learn no more, see the base class."""
        self.is_frozen = True
        self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.eval()
        return self


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grow (B, C, H, W) at its lower and right side to multiples of *multiple*.

    By reflection, or by replication where there is too little to reflect.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return x
    reflectable = bottom < height and right < width
    return F.pad(
        x, (0, right, 0, bottom), mode="reflect" if reflectable else "replicate"
    )


def as_batch(x: Tensor) -> Tensor:
    """Return (C, H, W) as a batch of one in the memory format of the networks."""
    return x[None].contiguous(memory_format=torch.channels_last)
