"""Scores on held-out strokes, pixel by pixel at the resolution of the image.

Head and network may work at different resolutions. So both are asked for class
probabilities at the same pixels of the image, where they can be compared and averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg.inputs.tiling import make_tile
from napari_sparseseg.learning.events import PartScore
from napari_sparseseg.learning.metrics import dice_from_confusion
from napari_sparseseg.networks.image_statistics import fixed, measure_image
from napari_sparseseg.networks.scoring import as_batch

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.networks.scoring import ScoringNetwork

#: Dice on held-out strokes is no more exact than this. Among moments that differ by
#: less the later one has learned more, which counts on images that nobody painted.
NOISE = 0.02

#: Held-out pixels are looked up in blocks of this many image pixels.
BLOCK = 512

#: Validation looks at no more blocks, spread evenly over all images, and at no more
#: pixels of each.
MOST_BLOCKS, MOST_PIXELS = 40, 5000


@dataclass(frozen=True, eq=False)
class ScoredPixels:
    """Some annotated pixels of one block of an image.

    Attributes
    ----------
    image
        Index of the image.
    rows, columns
        (n,) int64, in image pixels; n >= 1.
    channels
        (n,) int64, from 0.
    """

    image: int
    rows: Tensor
    columns: Tensor
    channels: Tensor


def labelled_blocks(
    index: int,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    channels: NDArray[np.int64],
) -> list[ScoredPixels]:
    """Return the annotated pixels of an image, block by block.

    Parameters
    ----------
    index
        Of the image.
    rows, columns
        (n,) of the annotated pixels, row by row.
    channels
        (n,) int64: k + 1 where channel k is annotated.
    """
    if not len(rows):
        return []
    per_row = int(columns.max()) // BLOCK + 1
    blocks = rows // BLOCK * per_row + columns // BLOCK
    order = np.argsort(blocks, kind="stable")
    _, starts = np.unique(blocks[order], return_index=True)
    found = []
    for mine in np.split(order, starts[1:]):
        some = mine[:: -(-len(mine) // MOST_PIXELS)]
        found.append(
            ScoredPixels(
                index,
                torch.from_numpy(rows[some]),
                torch.from_numpy(columns[some]),
                torch.from_numpy(channels[some] - 1),
            )
        )
    return found


def spread(blocks: Sequence[ScoredPixels]) -> list[ScoredPixels]:
    """Return the blocks of all images that validation looks at."""
    chosen = np.linspace(0, len(blocks) - 1, min(MOST_BLOCKS, len(blocks)))
    return [blocks[i] for i in chosen.round().astype(int)]


def probabilities_in_parts(
    module: ScoringNetwork,
    image: Tensor,
    scale: float,
    places: Sequence[ScoredPixels],
) -> Parts[None, None, Tensor]:
    """Return class probabilities at some pixels, with a break after each place.

    Parameters
    ----------
    module
        A head or network in evaluation mode.
    image
        (c, H, W) at its working resolution, on the device of *module*.
    scale
        Working pixels per image pixel.
    places
        N pixels in all, N >= 1, of this image.

    Returns
    -------
    Tensor
        (N, C) float32 on the CPU.
    """
    statistics = measure_image(module, image)
    found = []
    for place in places:
        yield
        with torch.inference_mode(), fixed(module, statistics):
            found.append(_at(module, image, scale, place).T.float().cpu())
    return torch.cat(found)


def confusion_of(
    probabilities: Tensor, places: Sequence[ScoredPixels], n_classes: int
) -> NDArray[np.int64]:
    """Return the (C, C) confusion matrix, rows = truth, of (N, C) probabilities."""
    if not places:
        return np.zeros((n_classes, n_classes), dtype=np.int64)
    truth = torch.cat([place.channels for place in places])
    cells = truth * n_classes + probabilities.argmax(dim=1)
    counts = torch.bincount(cells, minlength=n_classes**2)
    matrix: NDArray[np.int64] = counts.view(n_classes, n_classes).numpy()
    return matrix


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


def _at(
    module: ScoringNetwork, image: Tensor, scale: float, place: ScoredPixels
) -> Tensor:
    """Return the (C, n) probabilities of a block's pixels, interpolated."""
    shape = (image.shape[-2], image.shape[-1])
    y, x = (
        ((pixels.double() + 0.5) * scale - 0.5).clamp(0, length - 1)
        for pixels, length in zip((place.rows, place.columns), shape, strict=True)
    )
    core = (int(y.min()), int(x.min()), int(y.max()) + 2, int(x.max()) + 2)
    core = (*core[:2], min(core[2], shape[0]), min(core[3], shape[1]))
    tile = make_tile(core, shape, halo=module.halo, stride=module.stride)
    y0, x0, y1, x1 = tile.field
    maps = module(as_batch(image[:, y0:y1, x0:x1]))[0].softmax(dim=0)
    top, left = y.long(), x.long()
    down = (y - top).to(maps)
    right = (x - left).to(maps)
    bottom = (top + 1).clamp(max=shape[0] - 1)
    far = (left + 1).clamp(max=shape[1] - 1)

    def read(rows: Tensor, columns: Tensor) -> Tensor:
        picked: Tensor = maps[:, rows - y0, columns - x0]
        return picked

    upper = read(top, left) * (1 - right) + read(top, far) * right
    lower = read(bottom, left) * (1 - right) + read(bottom, far) * right
    return upper * (1 - down) + lower * down
