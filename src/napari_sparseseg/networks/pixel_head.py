"""A small network that classifies each pixel by its fixed features alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_sparseseg.networks.fixed_features import FixedFeatures
from napari_sparseseg.networks.image_statistics import UsesImageStatistics
from napari_sparseseg.networks.scoring import ScoringNetwork

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
    """Fixed features and a per-pixel head: (B, C, H, W) in [0, 1] -> class scores."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.features = FixedFeatures(in_channels)
        self.centring = Centring()
        self.head = PixelHead(self.features.n_features, n_classes)

    @property
    def stride(self) -> int:
        """Input pixels to one pixel of the deepest level: there is one level."""
        return 1

    @property
    def halo(self) -> int:
        """Radius in pixels beyond which an input pixel cannot change an output."""
        return self.features.halo

    def forward(self, x: Tensor) -> Tensor:
        features = self.centring(self.features(x)).permute(0, 2, 3, 1)
        return self._score(features).permute(0, 3, 1, 2)

    def _score(self, features: Tensor) -> Tensor:
        # The graph would keep the number of parts, whatever the size of later images.
        if features.device.type != "cpu" or torch.onnx.is_in_onnx_export():
            scores: Tensor = self.head(features)
            return scores
        n_rows = max(1, PIXELS_IN_CACHE // features.shape[2])
        parts = [self.head(rows) for rows in features.split(n_rows, dim=1)]
        return torch.cat(parts, dim=1)
