"""Labels for every pixel: tile by tile, the result independent of the tiles.

Each tile is given to the network with a halo as wide as the network can see, so its
core comes out as it would from the whole image, without seams to be blended; what is
cut between tiles is never guessed twice.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from napari_sparseseg.errors import ImageError, OptionError
from napari_sparseseg.inputs.resolution import (
    Region,
    enlarge,
    interpolated_region,
    shrink,
    source_region,
    working_shape,
)
from napari_sparseseg.inputs.tiling import Tile, TileQueue, cover, make_tile, split
from napari_sparseseg.networks.image_statistics import (
    Statistics,
    fixed,
    measure,
    windows_of,
)
from napari_sparseseg.networks.memory import is_out_of_memory
from napari_sparseseg.networks.scoring import as_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sparseseg.inputs.normalisation import Normalisation
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.networks.scoring import ScoringNetwork

#: No tile is cut smaller than this, in working pixels.
SMALLEST_TILE = 32

#: A tile is cut only if each part of it then costs less than this share of it.
WORTH_SPLITTING = 0.9

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
        Side of a tile in working pixels of the finest part. Halved when memory does
        not suffice.
    quantum_s
        Tiles are cut smaller until one takes less than this, in seconds; None: never.
    probabilities
        Whether class probabilities are returned beside the labels.
    view
        (y0, x0, y1, x1) in image pixels: what is seen comes first, from its centre.
    um_per_px
        Pixel size of the image in micrometres, where it is known.
    region
        (y0, x0, y1, x1) in image pixels: only this part of the image is predicted, as
        it is in a prediction of the whole; None: all.

    Raises
    ------
    OptionError
        If *tile* is below 1, or *um_per_px* is no positive number.
    """

    tile: int = 512
    quantum_s: float | None = None
    probabilities: bool = False
    view: Region | None = None
    um_per_px: float | None = None
    region: Region | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.tile < 1:
            raise OptionError(
                f"the side of a tile is {self.tile} pixels; expected at least 1.",
                tile=self.tile,
            )
        if self.um_per_px is not None and not 0 < self.um_per_px < math.inf:
            raise OptionError(
                f"the pixel size of the image is {self.um_per_px} micrometres; "
                "expected a number above 0, or none if it is not known.",
                um_per_px=self.um_per_px,
            )


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
        Share of the image, or of the region asked for, that is done, in [0, 1].
    """

    region: Region
    labels: NDArray[Any]
    probabilities: NDArray[np.float32] | None
    share: float


def iter_predict(
    model: SegmentationModel,
    image: ArrayLike,
    options: PredictOptions | None = None,
    budget: Budget | None = None,
    parts: Sequence[PartOnImage] | None = None,
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
        Tile size, quantum, probabilities, view, pixel size, region.
    budget
        What is known of the speed of this model from other images, and learned from
        this one; None: nothing.
    parts
        Of :func:`parts_on`, for one region of the image after the other: what was
        measured of the image is then measured once. The pixel size in *options* does
        not count.

    Yields
    ------
    TileDone
        Parts that tile the image, or the region asked for.

    Raises
    ------
    ImageError
        If the number of channels is not the model's.
    OptionError
        If the region has no pixel in the image.
    """
    options = options or PredictOptions()
    check_channels(model, image.shape)
    if parts is None:
        parts = parts_on(model, image, pixel_ratio(model, options.um_per_px))
    side = tile_side(parts, options.tile)
    # A pixel of the image cannot be cut, be it 40 working pixels wide.
    smallest = max(1.0, SMALLEST_TILE / max(part.scale for part in parts))
    target = _inside(options.region, image.shape)
    queue = TileQueue(cover(target, side), options.view)
    budget = budget or Budget(options.quantum_s)
    done = 0
    while queue:
        core = queue.pop()
        cost = sum(part.cost(core) for part in parts)
        divisible = _side(core) > smallest
        if divisible and budget.exceeded_by(cost) and _is_worth_splitting(core, parts):
            queue.add(split(core))
            continue
        result: TileDone | None = None
        try:
            for part in parts:
                part.measure_for(core)
            started = time.perf_counter()
            result = _predict_tile(model, parts, core, options.probabilities)
        except (RuntimeError, MemoryError) as error:
            if not (divisible and is_out_of_memory(error)):
                raise
        # Not while the error is handled: it holds what the network had allocated.
        if result is None:
            torch.cuda.empty_cache()
            budget.record_failure(cost)
            queue.add(split(core))
            continue
        budget.record(cost, time.perf_counter() - started)
        done += _area(result.region)
        yield replace(result, share=done / _area(target))


def parts_on(
    model: SegmentationModel, image: ArrayLike, ratio: float = 1.0
) -> list[PartOnImage]:
    """Return the parts that predict, at work on an image.

    Parameters
    ----------
    model
        On the device that is to work.
    image
        As for :func:`iter_predict`.
    ratio
        Pixel size of the image divided by that of the training images.
    """
    return [
        PartOnImage(network, scale * ratio, image, model.info.normalisation)
        for network, scale in model.predicting
    ]


def tile_side(parts: Sequence[PartOnImage], tile: int) -> int:
    """Return the side of a tile in image pixels, given it in working pixels."""
    return max(1, round(tile / max(part.scale for part in parts)))


class PartOnImage:
    """A head or network at work on one image.

    Parameters
    ----------
    network
        In evaluation mode.
    scale
        Working pixels per image pixel.
    image
        (y, x) or (y, x, c), read by slices.
    normalisation
        Of the intensities.

    Attributes
    ----------
    scale
        Working pixels per image pixel.
    statistics
        Of the image, for layers that use them; None: not measured yet.
    windows
        The working regions over which they are measured.
    """

    def __init__(
        self,
        network: ScoringNetwork,
        scale: float,
        image: ArrayLike,
        normalisation: Normalisation,
    ) -> None:
        self.scale = scale
        self._network = network
        self._image = image
        self._normalisation = normalisation
        self._shape = working_shape(image.shape, scale)
        self._device = next(network.parameters()).device
        self.statistics: Statistics | None = None
        self.windows = windows_of(self._shape)

    def cost(self, target: Region) -> int:
        """Return the working pixels the network is given for image pixels *target*."""
        return _area(self._tile(target).field)

    def probabilities(self, target: Region) -> Tensor:
        """Return the (C, h, w) class probabilities of the image pixels *target*."""
        field = self._tile(target).field
        self.measure_for(target)
        if self.statistics is None or self._is_measured_whole(field):
            scores = self._network(self._read(field))[0]
        else:
            with fixed(self._network, self.statistics):
                scores = self._network(self._read(field))[0]
        return enlarge(scores.softmax(dim=0), field, target, self.scale)

    def measure_for(self, target: Region) -> None:
        """Measure the image once, unless *target* needs all of it anyway."""
        if self.statistics is None and not self._is_measured_whole(
            self._tile(target).field
        ):
            self.statistics = measure(self._network, map(self._read, self.windows))

    def measure_where(self, share: Callable[[Region], float]) -> None:
        """Measure the windows of which most counts; tiles have no say in it then.

        Parameters
        ----------
        share
            How much of a region counts, given as (y0, x0, y1, x1) in image pixels.
        """
        self.windows = windows_of(
            self._shape,
            lambda region: share(source_region(region, self.scale, self._image.shape)),
        )
        self.use(measure(self._network, map(self._read, self.windows)))

    def use(self, statistics: Statistics) -> None:
        """Use these statistics for every tile, one that is the whole image too."""
        self.statistics, self.windows = statistics, []

    def _is_measured_whole(self, field: Region) -> bool:
        """Tell whether the statistics of a field are those of the image itself."""
        return [field] == self.windows

    def _tile(self, target: Region) -> Tile:
        core = interpolated_region(target, self.scale, self._image.shape)
        return make_tile(
            core, self._shape, halo=self._network.halo, stride=self._network.stride
        )

    def _read(self, region: Region) -> Tensor:
        """Return a working region of the image as a batch of one."""
        source = source_region(region, self.scale, self._image.shape)
        pixels = np.asarray(self._image[source[0] : source[2], source[1] : source[3]])
        x = self._normalisation.apply(pixels).to(self._device)
        return as_batch(shrink(x, source, region, self.scale))


class Budget:
    """Judges from the tiles done so far whether a tile would take too much."""

    def __init__(self, quantum_s: float | None, seconds_per_px: float = 0.0) -> None:
        self.quantum_s = quantum_s
        self.seconds_per_px = seconds_per_px
        self.too_large_px = math.inf

    def exceeded_by(self, pixels: int) -> bool:
        """Tell whether *pixels* would take more memory or time than there is."""
        if pixels >= self.too_large_px:
            return True
        return (
            self.quantum_s is not None and pixels * self.seconds_per_px > self.quantum_s
        )

    def record(self, pixels: int, seconds: float) -> None:
        """Learn from a finished tile."""
        self.seconds_per_px = seconds / pixels

    def record_failure(self, pixels: int) -> None:
        """Learn from a tile for which the memory did not suffice."""
        self.too_large_px = min(self.too_large_px, pixels)


def pixel_ratio(model: SegmentationModel, um_per_px: float | None) -> float:
    """Return the pixel size of an image divided by that of the training images.

    1 where either is not known, or they hardly differ. An image of another pixel size
    is resampled so that the network sees structures at the size it has learned.
    """
    trained = model.info.um_per_px
    if trained is None or um_per_px is None:
        return 1.0
    ratio = um_per_px / trained
    return 1.0 if abs(ratio - 1) < SAME_PIXEL_SIZE else ratio


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
    parts: Sequence[PartOnImage],
    target: Region,
    probabilities: bool,
) -> TileDone:
    maps = parts[0].probabilities(target)
    for part in parts[1:]:
        maps = maps + part.probabilities(target)
    maps = maps / len(parts)
    # On a CPU several times as fast as argmax over the first axis.
    channels = maps.max(dim=0).indices
    labels = model.info.classes.from_channels(channels.cpu().numpy())
    kept = maps.float().cpu().numpy() if probabilities else None
    return TileDone(target, labels, kept, share=0.0)


def predict_image(
    model: SegmentationModel, image: ArrayLike, options: PredictOptions | None = None
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Predict a whole image; see :func:`iter_predict`.

    Returns
    -------
    tuple
        (y, x) class values, uint8 or uint16, and (C, y, x) float32 probabilities or
        None. Both are 0 outside the region asked for.
    """
    labels: NDArray[Any] = np.zeros(image.shape[:2], dtype=label_type(model))
    maps: NDArray[np.float32] | None = None
    if options is not None and options.probabilities:
        maps = np.zeros((len(model.info.classes), *image.shape[:2]), dtype=np.float32)
    for done in iter_predict(model, image, options):
        y0, x0, y1, x1 = done.region
        labels[y0:y1, x0:x1] = done.labels
        if maps is not None:
            maps[:, y0:y1, x0:x1] = done.probabilities
    return labels, maps


def label_type(model: SegmentationModel) -> type[np.uint8 | np.uint16]:
    """Return the number type of a model's labels."""
    return np.uint8 if max(model.info.classes.values) < 256 else np.uint16


def _inside(region: Region | None, shape: tuple[int, ...]) -> Region:
    """Return the part of *region* that lies in an image of *shape*."""
    height, width = shape[:2]
    if region is None:
        return (0, 0, height, width)
    y0, x0, y1, x1 = region
    inside = (max(0, y0), max(0, x0), min(height, y1), min(width, x1))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise OptionError(
            f"the region {region} has no pixel in the image of {height} x {width} "
            "pixels; give (y0, x0, y1, x1) that overlaps it.",
            region=region,
        )
    return inside


def _is_worth_splitting(core: Region, parts: Sequence[PartOnImage]) -> bool:
    """Tell whether a part of *core* costs less, though its halo is as wide."""
    costs = [sum(part.cost(each) for part in parts) for each in split(core)]
    return max(costs) < WORTH_SPLITTING * sum(part.cost(core) for part in parts)


def _area(region: Region) -> int:
    return (region[2] - region[0]) * (region[3] - region[1])


def _side(region: Region) -> int:
    return max(region[2] - region[0], region[3] - region[1])
