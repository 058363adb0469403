"""Scores on held-out strokes, from one confusion matrix over all their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg.learning.events import PartScore
from napari_sparseseg.learning.metrics import dice_from_confusion
from napari_sparseseg.networks.registry import as_batch
from napari_sparseseg.prediction.tiling import cover, make_tile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.inputs.resolution import Region
    from napari_sparseseg.learning.training_set import WorkingImage
    from napari_sparseseg.networks.scoring import ScoringNetwork

#: Held-out strokes are predicted in tiles of this many working pixels.
TILE = 256

#: Validation looks at no more tiles than this, spread evenly over all images.
MOST_TILES = 40


def validation_tiles(images: Sequence[WorkingImage]) -> list[tuple[int, Region]]:
    """Return where held-out strokes lie: image indices and cores of tiles."""
    places = [
        (index, core)
        for index, image in enumerate(images)
        for core in cover((0, 0, *image.held_out.shape), TILE)
        if bool(image.held_out[core[0] : core[2], core[1] : core[3]].any())
    ]
    chosen = np.linspace(0, len(places) - 1, min(MOST_TILES, len(places)))
    return [places[i] for i in chosen.round().astype(int)]


@torch.inference_mode()
def held_out_confusion(
    module: ScoringNetwork, images: Sequence[WorkingImage], n_classes: int
) -> NDArray[np.int64]:
    """Return the (C, C) confusion matrix, rows = truth, over held-out pixels.

    Parameters
    ----------
    module
        A head or network in evaluation mode with ``halo`` and ``stride``.
    images
        At the module's working resolution.
    n_classes
        C.
    """
    confusion = torch.zeros(n_classes, n_classes, dtype=torch.int64)
    for index, core in validation_tiles(images):
        image = images[index]
        truth = image.held_out[core[0] : core[2], core[1] : core[3]]
        scores = core_scores(module, image.pixels, core)
        confusion += _confusion(truth, scores.argmax(dim=0), n_classes)
    matrix: NDArray[np.int64] = confusion.numpy()
    return matrix


def core_scores(module: ScoringNetwork, pixels: Tensor, core: Region) -> Tensor:
    """Return the (C, h, w) scores of a *core* of (c, H, W) working pixels."""
    shape = (pixels.shape[-2], pixels.shape[-1])
    tile = make_tile(core, shape, halo=module.halo, stride=module.stride)
    y0, x0, y1, x1 = tile.field
    scores: Tensor = module(as_batch(pixels[:, y0:y1, x0:x1]))[0]
    return scores[:, core[0] - y0 : core[2] - y0, core[1] - x0 : core[3] - x0]


def score_of(
    confusion: NDArray[np.int64], values: Sequence[int], strokes: Mapping[int, int]
) -> PartScore | None:
    """Return the score of a confusion matrix, None when it is empty.

    Parameters
    ----------
    confusion
        (C, C), rows = truth.
    values
        The C class values.
    strokes
        Held-out strokes by class value, kept with the score.
    """
    scored = {
        value: dice
        for value, dice, row in zip(
            values, dice_from_confusion(confusion), confusion, strict=True
        )
        if dice is not None and row.sum() > 0
    }
    if not scored:
        return None
    return PartScore(float(np.mean(list(scored.values()))), scored, dict(strokes))


def _confusion(truth: Tensor, predicted: Tensor, n_classes: int) -> Tensor:
    known = truth > 0
    cells = (truth[known] - 1) * n_classes + predicted[known]
    counts = torch.bincount(cells, minlength=n_classes**2)
    return counts.view(n_classes, n_classes).cpu()
