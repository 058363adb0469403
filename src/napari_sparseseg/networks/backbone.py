"""ResNet and the feature pyramid on top of it, with or without published weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor, nn

from napari_sparseseg.errors import OptionError
from napari_sparseseg.networks.encoders import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Encoder,
    as_three_channels,
    build_encoder,
)
from napari_sparseseg.networks.network_names import BackboneName

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: P2..P5; level k has a stride of 2 ** k input pixels.
LEVELS = (2, 3, 4, 5)


class ResNetPyramid(nn.Module):
    """ResNet with a feature pyramid (Lin et al. 2017) on its four stages.

    Parameters
    ----------
    name
        ``"resnet50"`` as in Fan 2022, section 3.2, or ``"resnet18"`` for a CPU.
    channels
        Of each level of the pyramid.
    weights
        Of the ResNet: see :func:`~.encoders.build_encoder`. The pyramid's are always
        drawn by torch's global generator.

    Raises
    ------
    OptionError, ModelFileError
        As :func:`build_backbone`.
    ImageError
        When called with other than one or three channels.

    Notes
    -----
    (B, C, H, W) float in [0, 1], C = 1 or 3 -> list of P2..P5, each (B, *channels*,
    ceil(H / s), ceil(W / s)) with s = 4, 8, 16, 32. One channel is repeated to three;
    ImageNet's mean and deviation are applied, whatever the weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        name: BackboneName = "resnet50",
        channels: int = 256,
        weights: str | Path = "none",
    ) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        stages = tuple(f"layer{level - 1}" for level in LEVELS)
        self.encoder = build_backbone(name, weights, stages)
        self.pyramid = FeaturePyramidNetwork([*self.encoder.channels], channels)
        self.channels = channels
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer(
            "deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = self.encoder((as_three_channels(x) - self.mean) / self.deviation)
        levels = dict(zip(self.encoder.levels, stages, strict=True))
        return list(self.pyramid(levels).values())


def build_backbone(
    name: BackboneName, weights: str | Path, stages: Sequence[str]
) -> Encoder:
    """Build an encoder that is a ResNet: see :func:`~.encoders.build_encoder`.

    Raises
    ------
    OptionError
        If the name is none of a ResNet.
    ModelFileError, OutputError
        If the weights cannot be had, or are those of another network.
    """
    if name not in get_args(BackboneName):
        raise OptionError(
            f"the backbone is named {name!r}; expected one of "
            f"{', '.join(get_args(BackboneName))}.",
            name=name,
        )
    return build_encoder(name, weights, stages)
