"""Early layers of an encoder that others have trained, as features of each pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from napari_sparseseg.inputs.resolution import sample_bilinear
from napari_sparseseg.networks.encoders import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    build_encoder,
)
from napari_sparseseg.networks.scoring import pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sparseseg.networks.published_weights import EncoderName

#: The layers that features are taken from: textures, not yet objects.
EARLY_LAYERS: dict[EncoderName, tuple[str, ...]] = {
    "vgg16": ("conv1_2", "conv2_2", "conv3_3"),
    "resnet18": ("conv1", "layer1"),
    "resnet50": ("conv1", "layer1"),
}

#: Of a layer with more channels so many random projections are taken, which keeps the
#: distances between pixels (Johnson and Lindenstrauss 1984) at a share of the time.
MOST_CHANNELS = 64

#: Of the random projections.
SEED = 0


class PretrainedFeatures(nn.Module):
    """Features of each pixel by the early layers of an encoder; nothing is learned.

    Coarser layers are interpolated, with each feature at the centre of what it sees.

    Parameters
    ----------
    name
        Of the encoder.

    Attributes
    ----------
    encoder
        Its weights are drawn by torch's global generator.
    n_features
        Of each pixel.
    remembered
        Takes the place of the encoder, which it must equal: it may know features of
        images that it was given before.

    Raises
    ------
    OptionError
        If the name is not known.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: EncoderName) -> None:
        super().__init__()
        self.encoder = build_encoder(name, levels=EARLY_LAYERS[name])
        self.encoder.requires_grad_(False).eval()
        self.remembered: Callable[[Tensor], tuple[Tensor, ...]] | None = None
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer(
            "deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None]
        )
        self.projections = nn.ModuleList(map(_projection, self.encoder.channels))
        self.n_features = sum(min(c, MOST_CHANNELS) for c in self.encoder.channels)

    @property
    def stride(self) -> int:
        """Pixels to one feature of the coarsest layer."""
        return max(self.encoder.strides)

    @property
    def halo(self) -> int:
        """Radius in pixels beyond which a pixel cannot change a feature.

        A pixel's features are interpolated between those up to a stride away.
        """
        levels = zip(self.encoder.halo, self.encoder.strides, strict=True)
        return max(halo + 2 * stride for halo, stride in levels)

    @torch.no_grad()
    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features of (B, C, H, W) in [0, 1], C = 1 or 3, layer by layer.

        Returns
        -------
        tuple of Tensor
            (B, F, ceil(H / s), ceil(W / s)), the deepest layer's stride being a
            divisor of the sides to which the image is grown.
        """
        x = pad_to_multiple((x - self.mean) / self.deviation, self.stride)
        encode = self.remembered or self.encoder
        return tuple(
            projection(each)
            for each, projection in zip(encode(x), self.projections, strict=True)
        )

    def rows(
        self, maps: tuple[Tensor, ...], first: int, count: int, width: int
    ) -> Tensor:
        """Return (B, F, count, width): the features of some rows of pixels.

        Parameters
        ----------
        maps
            Of :meth:`maps`.
        first, count
            The rows.
        width
            Of the image.
        """
        found = []
        for each, stride, centre in self._levels(maps):
            y = (torch.arange(count, dtype=torch.float64) + (first - centre)) / stride
            x = (torch.arange(width, dtype=torch.float64) - centre) / stride
            top = max(0, math.floor((first - centre) / stride))
            part = each[:, :, top : (first + count) // stride + 2]
            found.append(sample_bilinear(part, y, x, (top, 0)))
        return torch.cat(found, dim=1)

    def at(self, maps: tuple[Tensor, ...], rows: Tensor, columns: Tensor) -> Tensor:
        """Return the (n, F) features of single pixels of one image.

        Parameters
        ----------
        maps
            Of :meth:`maps`, of a batch of one.
        rows, columns
            (n,) int64.
        """
        found = []
        for each, stride, centre in self._levels(maps):
            (y, down), (x, right) = (
                _between((pixels.double() - centre) / stride, length)
                for pixels, length in zip((rows, columns), each.shape[-2:], strict=True)
            )
            upper, lower = (
                torch.lerp(each[0][:, row, x[0]], each[0][:, row, x[1]], right.to(each))
                for row in y
            )
            found.append(torch.lerp(upper, lower, down.to(each)).T)
        return torch.cat(found, dim=1)

    def _levels(self, maps: tuple[Tensor, ...]) -> zip[tuple[Tensor, int, float]]:
        return zip(maps, self.encoder.strides, self.encoder.centres, strict=True)


def _between(positions: Tensor, length: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the features around positions, and the share of the second of them."""
    before = positions.floor()
    near = before.long()
    return (near.clamp(0, length - 1), (near + 1).clamp(0, length - 1)), (
        positions - before
    )


def _projection(channels: int) -> nn.Module:
    """Return what reduces a layer to ``MOST_CHANNELS`` at each of its pixels."""
    if channels <= MOST_CHANNELS:
        return nn.Identity()
    projection = nn.Conv2d(channels, MOST_CHANNELS, kernel_size=1, bias=False)
    nn.init.orthogonal_(projection.weight, generator=Generator().manual_seed(SEED))
    return projection.requires_grad_(False)
