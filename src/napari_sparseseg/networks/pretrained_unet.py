"""A U-Net whose encoder is VGG16 or a ResNet, which others may have trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_sparseseg.errors import OptionError
from napari_sparseseg.networks.batch_norm import learn_from_single_values
from napari_sparseseg.networks.blocks import Norm, UpBlock, convolution, dropout_layer
from napari_sparseseg.networks.encoders import (
    LEVELS,
    build_encoder,
    halo_of,
    initialise_he,
)
from napari_sparseseg.networks.published_weights import (
    EncoderName,
    check_encoder_name,
)
from napari_sparseseg.networks.scoring import EncoderDecoder


class PretrainedUNet(EncoderDecoder):
    """U-Net (Ronneberger et al. 2015) on the features of VGG16 or a ResNet.

    Parameters
    ----------
    in_channels
        See the base class.
    n_classes
        Channels of the output, one score map a class.
    encoder
        ``"vgg16"``, whose finest features have the size of the image, or a ResNet,
        whose finest have half of it.
    levels
        Resolution levels of the encoder, 2 to 5.
    filters
        Of the decoder at the size of the image, doubled at each half of it.
    norm
        Of the decoder: ``"none"``, ``"batch"`` or ``"group"``.
    dropout
        Probability with which a feature is left out before the last layer, while
        learning.

    Raises
    ------
    ImageError
        See the base class.
    OptionError
        If an option is not known or out of its range.

    Notes
    -----
    First weights: He et al. 2015, those of a ResNet as torchvision draws them.

    From level to level: up-sampling by 2 and a 3x3 convolution, the encoder's features
    of that size beside it, two 3x3 convolutions. Where the encoder has no features of
    the size of the image, none are put beside.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        *,
        encoder: EncoderName,
        levels: int = 5,
        filters: int = 16,
        norm: Norm = "group",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels)
        if filters < 1 or levels not in range(2, 6):
            raise OptionError(
                f"the U-Net has {filters} filters and {levels} levels; expected at "
                "least 1 filter and 2 to 5 levels.",
                filters=filters,
                levels=levels,
            )
        check_encoder_name(encoder)
        self.encoder = build_encoder(encoder, levels=LEVELS[encoder][:levels])
        strides, widths = self.encoder.strides, self.encoder.channels
        skips = dict(zip(strides, widths, strict=True))
        channels = widths[-1]
        self.ups = nn.ModuleList()
        self.blocks = nn.ModuleList()
        stride = strides[-1]
        while stride > 1:
            stride //= 2
            width = filters * stride
            self.ups.append(UpBlock(channels, width, norm))
            self.blocks.append(
                nn.Sequential(
                    convolution(width + skips.get(stride, 0), width, norm),
                    convolution(width, width, norm),
                )
            )
            channels = width
        self.dropout = dropout_layer(dropout)
        self.classifier = nn.Conv2d(channels, n_classes, kernel_size=1)
        for part in (self.ups, self.blocks, self.classifier):
            initialise_he(part)
        learn_from_single_values(self)

    @property
    def halo(self) -> int:
        """Radius, in pixels, beyond which an input pixel cannot change an output."""
        levels = {level.stride: level for level in self.encoder.geometry()}
        deepest = max(levels)

        def field(at: int) -> tuple[int, int]:
            first = last = at
            stride, fields = 1, []
            while stride < deepest:
                first, last = first - 2, last + 2  # the block
                if stride in levels:
                    fields.append(levels[stride].field(first, last))
                first, last = (first - 1) // 2, (last + 1) // 2  # up-sampling
                stride *= 2
            fields.append(levels[deepest].field(first, last))
            return min(first for first, _ in fields), max(last for _, last in fields)

        return halo_of(field, deepest)

    def decode(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Score images by their features, see the base class."""
        *skips, x = features
        for up, block in zip(self.ups, self.blocks, strict=True):
            x = up(x)
            x = block(torch.cat([x, skips.pop()], dim=1) if skips else x)
        scores: Tensor = self.classifier(self.dropout(x))
        return scores[..., : size[0], : size[1]]
