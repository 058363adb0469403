"""The U-Net of Bokhorst 2018 (section 3 "Training" and figure 2b)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_sparseseg.errors import OptionError
from napari_sparseseg.networks.blocks import ConcatBlock, Norm, UpBlock
from napari_sparseseg.networks.encoders import initialise_he
from napari_sparseseg.networks.scoring import ScoringNetwork, pad_to_multiple


class UNet(ScoringNetwork):
    """U-Net whose blocks concatenate their input with their last feature map.

    Parameters
    ----------
    in_channels
        Channels of the input.
    n_classes
        Channels of the output, one score map a class.
    filters
        Filters of the first level, doubled after each max-pooling.
    levels
        Resolution levels; the deepest works at ``1 / 2 ** (levels - 1)``.
    norm
        ``"none"`` as in the paper, ``"batch"`` or ``"group"``.

    Raises
    ------
    OptionError
        If *filters* or *levels* is below 1, or *norm* is not known.

    Notes
    -----
    (B, in_channels, H, W) float -> (B, n_classes, H, W) unnormalised scores, for
    any H and W: sides that are no multiple of ``stride`` are padded by reflection
    (by replication where the image is too small to reflect) and cropped again.
    Convolutions pad with zeros. Weights: He et al. 2015, fan-in, zero bias.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        *,
        filters: int = 32,
        levels: int = 5,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        if filters < 1 or levels < 1:
            raise OptionError(
                f"the U-Net has {filters} filters and {levels} levels; expected at "
                "least 1 of each.",
                filters=filters,
                levels=levels,
            )
        self.levels = levels
        self.encoder = nn.ModuleList()
        channels = in_channels
        widths: list[int] = []
        for level in range(levels):
            block = ConcatBlock(channels, filters * 2**level, norm)
            self.encoder.append(block)
            channels = block.out_channels
            widths.append(channels)
        self.ups = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in reversed(range(levels - 1)):
            width = filters * 2**level
            self.ups.append(UpBlock(channels, width, norm))
            block = ConcatBlock(width + widths[level], width, norm)
            self.decoder.append(block)
            channels = block.out_channels
        self.classifier = nn.Conv2d(channels, n_classes, kernel_size=1)
        self.pool = nn.MaxPool2d(2)
        initialise_he(self)

    @property
    def stride(self) -> int:
        """Input pixels to one pixel of the deepest level."""
        return 1 << (self.levels - 1)

    @property
    def halo(self) -> int:
        """Radius, in pixels, beyond which an input pixel cannot change an output.

        Each 3x3 convolution at level *l* reaches ``2 ** l`` pixels further: two in
        each encoder block, one in each up-sampling and two in each decoder block.
        Pooling and up-sampling add less than one ``stride``.
        """
        encoder = sum(2 << level for level in range(self.levels))
        decoder = sum(3 << level for level in range(self.levels - 1))
        return encoder + decoder + self.stride

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.stride)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        scores: Tensor = self.classifier(x)
        return scores[..., :height, :width]
