"""Group normalisation that gives the same result for a tile as for the whole image.

Its statistics are those of the patch in training, which evens out differences of stain
and exposure between images. Taken over a tile they would depend on the tile: two
neighbours would disagree at their seam. So for a prediction they are measured once an
image, over windows that do not depend on the tiles, and used for all of its tiles.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_sparseseg.inputs.resolution import Region, whole
from napari_sparseseg.networks.scoring import as_batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from napari_sparseseg.networks.scoring import ScoringNetwork

#: Working grids of up to this many pixels are measured whole.
MEASURED_WHOLE = 256 * 256

#: Side and largest number of the windows over which larger ones are measured.
WINDOW, MOST_WINDOWS = 128, 12

#: One (2, groups) tensor for each layer: mean and mean square.
Statistics = tuple[Tensor, ...]


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018) with statistics of its input, or fixed ones.

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, num_groups: int, num_channels: int) -> None:
        super().__init__(num_groups, num_channels)
        self.fixed: Tensor | None = None
        self.measuring = False
        self.measured = torch.zeros(2, num_groups)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise *x*."""
        if self.fixed is not None:
            return self._apply_fixed(x, self.fixed)
        if self.measuring:
            grouped = x.unflatten(1, (self.num_groups, -1)).float()
            axes = (0, 2, 3, 4)
            self.measured = torch.stack([grouped.mean(axes), (grouped**2).mean(axes)])
        normalised: Tensor = super().forward(x)
        return normalised

    def _apply_fixed(self, x: Tensor, statistics: Tensor) -> Tensor:
        width = self.num_channels // self.num_groups
        mean, square = statistics.repeat_interleave(width, dim=1)
        variance = (square - mean**2).clamp_min(0)
        gain = self.weight / (variance + self.eps).sqrt()
        offset = self.bias - mean * gain
        normalised: Tensor = x * gain[:, None, None] + offset[:, None, None]
        return normalised


def windows_of(shape: tuple[int, int]) -> list[Region]:
    """Return the regions of a working grid of *shape* that are measured."""
    if shape[0] * shape[1] <= MEASURED_WHOLE:
        return [whole(shape)]
    rows, columns = (-(-length // WINDOW) for length in shape)
    n_windows = rows * columns
    chosen = np.linspace(0, n_windows - 1, min(MOST_WINDOWS, n_windows)).round()
    return [
        (y, x, min(y + WINDOW, shape[0]), min(x + WINDOW, shape[1]))
        for y, x in (
            (i // columns * WINDOW, i % columns * WINDOW) for i in map(int, chosen)
        )
    ]


@torch.inference_mode()
def measure(network: ScoringNetwork, windows: Iterable[Tensor]) -> Statistics:
    """Return the statistics of an image, measured over some windows of it.

    Parameters
    ----------
    network
        In evaluation mode.
    windows
        (1, C, H, W) each, of any size; the larger one counts more.
    """
    layers = _layers(network)
    if not layers:
        return ()
    weights, measured = [], []
    for window in windows:
        with _measuring(layers):
            network(window)
        weights.append(window.shape[-2] * window.shape[-1])
        measured.append([layer.measured for layer in layers])
    shares = torch.tensor(weights, dtype=torch.float32) / sum(weights)
    return tuple(
        torch.einsum("n,nsg->sg", shares.to(each[0].device), torch.stack(each))
        for each in zip(*measured, strict=True)
    )


def measure_image(network: ScoringNetwork, image: Tensor) -> Statistics:
    """Return the statistics of a whole (C, H, W) image at working resolution."""
    regions = windows_of((image.shape[-2], image.shape[-1]))
    return measure(
        network, (as_batch(image[:, y0:y1, x0:x1]) for y0, x0, y1, x1 in regions)
    )


@contextmanager
def _measuring(layers: Sequence[GroupNorm]) -> Iterator[None]:
    for layer in layers:
        layer.measuring = True
    try:
        yield
    finally:
        for layer in layers:
            layer.measuring = False


@contextmanager
def fixed(network: ScoringNetwork, statistics: Statistics) -> Iterator[None]:
    """Let *network* use *statistics* instead of those of its input."""
    layers = _layers(network)
    for layer, each in zip(layers, statistics, strict=True):
        layer.fixed = each
    try:
        yield
    finally:
        for layer in layers:
            layer.fixed = None


def _layers(network: ScoringNetwork) -> Sequence[GroupNorm]:
    return [layer for layer in network.modules() if isinstance(layer, GroupNorm)]
