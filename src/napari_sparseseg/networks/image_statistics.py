"""Layers that use statistics of the image give one result for a tile and the whole.

Statistics of the input even out differences of stain and exposure between images. Taken
over a tile they would depend on the tile: two neighbours would disagree at their seam.
So for a prediction they are measured once an image, over windows that do not depend on
the tiles, and used for all of its tiles.
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
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from napari_sparseseg.networks.scoring import ScoringNetwork

#: Working grids of up to this many pixels are measured whole.
MEASURED_WHOLE = 512 * 512

#: Side and largest number of the windows over which larger ones are measured.
WINDOW, MOST_WINDOWS = 128, 12

#: One tensor for each layer, of the shape of its ``measured``.
Statistics = tuple[Tensor, ...]


class UsesImageStatistics(nn.Module):
    """A layer that uses statistics of its input, or those it is told.

    Attributes
    ----------
    fixed
        The statistics to use; None: those of the input.
    measuring
        Whether ``forward`` is to write the statistics of its input to ``measured``.
    measured
        Means over the pixels of the input, so that those of windows may be averaged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fixed: Tensor | None = None
        self.measuring = False
        self.measured = torch.zeros(0)

    @property
    def in_use(self) -> bool:
        """Whether the output depends on the statistics at all."""
        return True


def windows_of(
    shape: tuple[int, int], share: Callable[[Region], float] | None = None
) -> list[Region]:
    """Return the regions of a working grid of *shape* that are measured.

    Parameters
    ----------
    shape
        (y, x).
    share
        How much of a region counts, as tissue on a slide does: of glass alone a
        network was shown nothing while it learned. Windows are then taken of which at
        least half as much counts as of the best one. None: all alike, and a small grid
        is measured whole.
    """
    if share is None and shape[0] * shape[1] <= MEASURED_WHOLE:
        return [whole(shape)]
    windows = [
        (y, x, min(y + WINDOW, shape[0]), min(x + WINDOW, shape[1]))
        for y in range(0, shape[0], WINDOW)
        for x in range(0, shape[1], WINDOW)
    ]
    if share is not None:
        shares = list(map(share, windows))
        least = max(shares) / 2
        windows = [w for w, each in zip(windows, shares, strict=True) if each >= least]
    chosen = np.linspace(0, len(windows) - 1, min(MOST_WINDOWS, len(windows)))
    return [windows[int(i)] for i in chosen.round()]


def uses_statistics(network: ScoringNetwork) -> bool:
    """Tell whether what *network* says of a tile depends on the rest of the image."""
    return bool(_layers(network))


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
        torch.tensordot(shares.to(each[0].device), torch.stack(each), dims=1)
        for each in zip(*measured, strict=True)
    )


def measure_image(network: ScoringNetwork, image: Tensor) -> Statistics:
    """Return the statistics of a whole (C, H, W) image at working resolution."""
    regions = windows_of((image.shape[-2], image.shape[-1]))
    return measure(
        network, (as_batch(image[:, y0:y1, x0:x1]) for y0, x0, y1, x1 in regions)
    )


@contextmanager
def _measuring(layers: Sequence[UsesImageStatistics]) -> Iterator[None]:
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


def _layers(network: ScoringNetwork) -> Sequence[UsesImageStatistics]:
    return [
        layer
        for layer in network.modules()
        if isinstance(layer, UsesImageStatistics) and layer.in_use
    ]
