"""A small network that classifies each pixel by its features alone.

They are fixed ones, and those of the early layers of a pretrained encoder if wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_sparseseg.networks.fixed_features import FixedFeatures
from napari_sparseseg.networks.image_statistics import UsesImageStatistics
from napari_sparseseg.networks.scoring import ScoringNetwork

if TYPE_CHECKING:
    from napari_sparseseg.networks.pretrained_features import PretrainedFeatures

#: Standardised features are cut at this, so that what looks like no stroke at all
#: does not make the head ever more certain.
FARTHEST = 10.0

#: Width of each of the two hidden layers.
HIDDEN = 64

#: On a CPU so many pixels go through the head at once. What lies between its layers
#: then stays in the processor's cache, which makes it three to four times as fast.
PIXELS_IN_CACHE = 8192


class PixelHead(nn.Module):
    """Two hidden layers on standardised features, the same for every pixel.

    ``(..., n_features)`` float -> ``(..., n_classes)`` scores. ``mean`` and
    ``deviation`` (n_features,) are set when the head is fitted.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.register_buffer("mean", Tensor(n_features).zero_())
        self.register_buffer("deviation", Tensor(n_features).fill_(1))
        self.layers = nn.Sequential(
            nn.Linear(n_features, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, n_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        standardised = (features - self.mean) / self.deviation
        scores: Tensor = self.layers(standardised.clamp(-FARTHEST, FARTHEST))
        return scores


class Centring(UsesImageStatistics):
    """Takes a share of each feature's mean over the image away from it.

    (B, F, H, W) -> (B, F, H, W). A share of 0 leaves features as they are; 1 gives
    every image the same mean, which is right where images differ by their stain, and
    wrong where they differ by what is to be seen. The statistics are (F,): the means.
    """

    share: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.zeros(()))

    @property
    def in_use(self) -> bool:
        """Whether anything is taken away."""
        return bool(self.share > 0)

    def forward(self, features: Tensor) -> Tensor:
        """Centre *features*."""
        if not self.in_use:
            return features
        mean = features.mean(dim=(0, 2, 3)) if self.fixed is None else self.fixed
        if self.measuring:
            self.measured = mean
        return features - self.share * mean[:, None, None]


class HeadNetwork(ScoringNetwork):
    """Features and a per-pixel head: (B, C, H, W) in [0, 1] -> class scores.

    Parameters
    ----------
    in_channels, n_classes
        Channels of the images and of the score maps.
    pretrained
        Features that join the fixed ones; None: none do. They are not centred, which
        would need those of the whole image for a stroke.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        pretrained: PretrainedFeatures | None = None,
    ) -> None:
        super().__init__()
        self.features = FixedFeatures(in_channels)
        self.centring = Centring()
        self.pretrained = pretrained
        n_features = self.features.n_features
        if pretrained is not None:
            n_features += pretrained.n_features
        self.head = PixelHead(n_features, n_classes)

    @property
    def stride(self) -> int:
        """Input pixels to one pixel of the deepest level."""
        return 1 if self.pretrained is None else self.pretrained.stride

    @property
    def halo(self) -> int:
        """Radius in pixels beyond which an input pixel cannot change an output."""
        if self.pretrained is None:
            return self.features.halo
        return max(self.features.halo, self.pretrained.halo)

    def forward(self, x: Tensor) -> Tensor:
        fixed = self.centring(self.features(x))
        maps = () if self.pretrained is None else self.pretrained.maps(x)
        # A graph would keep the number of parts, whatever the size of later images.
        if x.device.type != "cpu" or torch.onnx.is_in_onnx_export():
            return self._score(fixed, maps, 0)
        n_rows = max(1, PIXELS_IN_CACHE // x.shape[3])
        parts = [
            self._score(rows, maps, number * n_rows)
            for number, rows in enumerate(fixed.split(n_rows, dim=2))
        ]
        return torch.cat(parts, dim=2)

    def _score(self, fixed: Tensor, maps: tuple[Tensor, ...], first: int) -> Tensor:
        """Score rows of pixels from *first* on, whose fixed features are given."""
        features = fixed
        if self.pretrained is not None:
            others = self.pretrained.rows(maps, first, fixed.shape[2], fixed.shape[3])
            features = torch.cat([features, others], dim=1)
        scores: Tensor = self.head(features.permute(0, 2, 3, 1))
        return scores.permute(0, 3, 1, 2)

    def forget_images(self) -> None:
        """Compute pretrained features anew from now on, and remember none."""
        if self.pretrained is not None:
            self.pretrained.remembered = None
