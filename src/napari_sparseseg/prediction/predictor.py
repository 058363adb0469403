"""Labels for every pixel: tile by tile, the result independent of the tiles.

Each tile is given to the network with a halo as wide as the network can see, so its
core comes out as it would from the whole image, without seams to be blended; what is
cut between tiles is never guessed twice.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from napari_sparseseg.errors import ImageError
from napari_sparseseg.inputs.resolution import (
    Region,
    enlarge,
    shrink,
    source_region,
    target_region,
    working_shape,
)
from napari_sparseseg.networks.registry import as_batch
from napari_sparseseg.prediction.tiling import (
    Tile,
    cover,
    from_the_centre,
    make_tile,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sparseseg.networks.model import SegmentationModel

#: No tile is cut smaller than this, in working pixels.
SMALLEST_TILE = 32

#: Images that differ less from the model's pixel size are taken as of the same size.
SAME_PIXEL_SIZE = 0.02


class ArrayLike(Protocol):
    """An array of (y, x) or (y, x, c) read by slices: numpy, zarr, memory map."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a part of the pixels."""


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How an image is predicted; the labels do not depend on the first two.

    Attributes
    ----------
    tile
        Side of a tile in working pixels. Halved when memory does not suffice.
    quantum_s
        Tiles are cut smaller until one takes less than this, in seconds; None: never.
    probabilities
        Whether class probabilities are returned beside the labels.
    view
        (y0, x0, y1, x1) in image pixels: what is seen comes first, from its centre.
    um_per_px
        Pixel size of the image in micrometres, where it is known.
    """

    tile: int = 512
    quantum_s: float | None = None
    probabilities: bool = False
    view: Region | None = None
    um_per_px: float | None = None


@dataclass(frozen=True, slots=True)
class TileDone:
    """The labels of one part of the image.

    Attributes
    ----------
    region
        (y0, x0, y1, x1) in image pixels.
    labels
        (y, x) uint8 or uint16 class values.
    probabilities
        (C, y, x) float32 in ascending order of class value, or None.
    share
        Share of the image that is done, in [0, 1].
    """

    region: Region
    labels: NDArray[Any]
    probabilities: NDArray[np.float32] | None
    share: float


def iter_predict(
    model: SegmentationModel, image: ArrayLike, options: PredictOptions | None = None
) -> Iterator[TileDone]:
    """Predict an image tile by tile; to cancel, stop asking.

    Parameters
    ----------
    model
        On the device that is to work.
    image
        (y, x) or (y, x, c) with the channels of the model; only the parts needed for
        a tile are read.
    options
        Tile size, quantum, probabilities, view, pixel size.

    Yields
    ------
    TileDone
        Parts that tile the image.

    Raises
    ------
    ImageError
        If the number of channels is not the model's.
    """
    options = options or PredictOptions()
    check_channels(model, image.shape)
    scale = working_scale(model, options.um_per_px)
    shape = working_shape(image.shape, scale)
    cores = cover((0, 0, *shape), options.tile)
    if options.view is not None:
        y0, x0, y1, x1 = (int(bound * scale) for bound in options.view)
        cores = from_the_centre(cores, (y0, x0, y1 + 1, x1 + 1))
    queue = deque(cores)
    budget = Budget(options.quantum_s)
    done = 0
    while queue:
        core = queue.popleft()
        tile = make_tile(
            core, shape, halo=model.module.halo, stride=model.module.stride
        )
        if _side(core) > SMALLEST_TILE and budget.exceeded_by(tile):
            queue.extendleft(reversed(split(core)))
            continue
        started = time.perf_counter()
        try:
            result = _predict_tile(model, image, tile, scale, options.probabilities)
        except (torch.OutOfMemoryError, MemoryError):
            if _side(core) <= SMALLEST_TILE:
                raise
            torch.cuda.empty_cache()
            queue.extendleft(reversed(split(core)))
            continue
        budget.record(tile, time.perf_counter() - started)
        done += (core[2] - core[0]) * (core[3] - core[1])
        yield replace(result, share=done / (shape[0] * shape[1]))


class Budget:
    """Judges from the tiles done so far whether a tile would take too long."""

    def __init__(self, quantum_s: float | None) -> None:
        self.quantum_s = quantum_s
        self.seconds_per_px = 0.0

    def exceeded_by(self, tile: Tile) -> bool:
        """Tell whether *tile* would take longer than the quantum."""
        if self.quantum_s is None:
            return False
        return self.seconds_per_px * _area(tile.field) > self.quantum_s

    def record(self, tile: Tile, seconds: float) -> None:
        """Learn from a finished tile."""
        self.seconds_per_px = seconds / _area(tile.field)


def working_scale(model: SegmentationModel, um_per_px: float | None) -> float:
    """Return the working pixels per pixel of an image of *um_per_px*.

    An image whose pixel size is known and differs from that of the training images
    is resampled so that the network sees structures at the size it has learned.
    """
    trained = model.info.um_per_px
    if trained is None or um_per_px is None:
        return model.scale
    ratio = um_per_px / trained
    return model.scale if abs(ratio - 1) < SAME_PIXEL_SIZE else model.scale * ratio


def check_channels(model: SegmentationModel, shape: tuple[int, ...]) -> None:
    """Raise ImageError unless an image of *shape* has the model's channels."""
    expected = model.info.in_channels
    if len(shape) not in (2, 3) or 0 in shape:
        raise ImageError(
            f"the image has the shape {tuple(shape)}; expected (y, x) or (y, x, c) "
            "with at least one pixel.",
            shape=tuple(shape),
        )
    given = 1 if len(shape) == 2 else shape[2]
    if given != expected:
        raise ImageError(
            f"the image has {given} channel(s), but the model was trained on images "
            f"with {expected}; give such images or train another model.",
            given=given,
            expected=expected,
        )


@torch.inference_mode()
def _predict_tile(
    model: SegmentationModel,
    image: ArrayLike,
    tile: Tile,
    scale: float,
    probabilities: bool,
) -> TileDone:
    device = next(model.module.parameters()).device
    source = source_region(tile.field, scale, image.shape)
    pixels = np.asarray(image[source[0] : source[2], source[1] : source[3]])
    x = model.info.normalisation.apply(pixels).to(device)
    x = shrink(x, source, tile.field, scale)
    scores = model.module(as_batch(x))[0]
    target = target_region(tile.core, scale, image.shape)
    scores = enlarge(scores, tile.field, target, scale)
    labels = model.info.classes.from_channels(scores.argmax(dim=0).cpu().numpy())
    maps = scores.softmax(dim=0).float().cpu().numpy() if probabilities else None
    return TileDone(target, labels, maps, share=0.0)


def predict_image(
    model: SegmentationModel, image: ArrayLike, options: PredictOptions | None = None
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Predict a whole image; see :func:`iter_predict`.

    Returns
    -------
    tuple
        (y, x) class values, uint8 or uint16, and (C, y, x) float32 probabilities or
        None.
    """
    dtype = np.uint8 if max(model.info.classes.values) < 256 else np.uint16
    labels: NDArray[Any] = np.zeros(image.shape[:2], dtype=dtype)
    maps: NDArray[np.float32] | None = None
    if options is not None and options.probabilities:
        maps = np.zeros((len(model.info.classes), *image.shape[:2]), dtype=np.float32)
    for done in iter_predict(model, image, options):
        y0, x0, y1, x1 = done.region
        labels[y0:y1, x0:x1] = done.labels
        if maps is not None:
            maps[:, y0:y1, x0:x1] = done.probabilities
    return labels, maps


def _area(region: Region) -> int:
    return (region[2] - region[0]) * (region[3] - region[1])


def _side(region: Region) -> int:
    return max(region[2] - region[0], region[3] - region[1])
