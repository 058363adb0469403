"""Drawing mini-batches of features that were computed once, instead of pixels.

Where an encoder does not learn, an image's features are always the same: so are those
of its seven other orientations. They are computed of the whole image, block by block as
they are drawn, with all that the encoder sees around a block. A patch is cut out of
them. That differs from encoding a patch, at the edges of which the encoder would see
zeros instead of what is there: here it sees what it will see in a prediction. For the
same reason patches never reach beyond an image: one that is too small makes those that
are drawn with it smaller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from napari_sparseseg.inputs.tiling import cover, make_tile, overlap
from napari_sparseseg.learning.feature_cache import OVERHEAD, bytes_of
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.learning.patches import (
    JITTER,
    FeaturePatches,
    MiniBatch,
    PlaceSampler,
)
from napari_sparseseg.networks.scoring import EncoderDecoder, as_batch, pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_sparseseg.inputs.resolution import Region
    from napari_sparseseg.learning.augmentation import AugmentationOptions, Flip
    from napari_sparseseg.learning.feature_cache import CachedEncoder, Window
    from napari_sparseseg.learning.options import TrainingOptions
    from napari_sparseseg.learning.training_set import WorkingImage
    from napari_sparseseg.networks.registry import Standardised

    #: (F, h, w) a level.
    Maps = Sequence[NDArray[np.float16]]

#: Side, in working pixels, of the blocks that features are computed and kept by: small,
#: for there is no break while one is computed, on a CPU perhaps for seconds. It is a
#: multiple of every stride.
BLOCK = 256

#: The orientations that a patch may have by mirroring and turning, all as likely; see
#: :func:`oriented`. Of all turns only the quarter turns are left.
_ORIENTATIONS: dict[tuple[Flip, bool], tuple[int, ...]] = {
    ("none", False): (0,),
    ("one", False): (0, 1, 2),
    ("any", False): (0, 1, 2, 3),
    ("none", True): (0, 3, 5, 6),
    # Each turn unmirrored, or mirrored about one of two axes, which come to the same.
    ("one", True): (0, 3, 5, 6, *(1, 2, 4, 7) * 2),
    ("any", True): (0, 1, 2, 3, 4, 5, 6, 7),
}


def orientations_of(augmentation: AugmentationOptions) -> tuple[int, ...]:
    """Return the orientations to draw from; one that is likelier is there twice."""
    return _ORIENTATIONS[augmentation.flip, augmentation.rotate]


class FeatureSampler(PlaceSampler):
    """Draws mini-batches of features; see :meth:`draw_in_parts`.

    Parameters
    ----------
    images
        At the working resolution, on the device of the network.
    options
        As of :class:`~.patches.PlaceSampler`; sides of patches are rounded up to whole
        strides. Of all augmentation mirrorings, quarter turns and the grid of tiles are
        left.
    network
        An :class:`EncoderDecoder` whose encoder is frozen.
    encoder
        That encoder, and what is kept of it.
    known
        Features of the same encoder, which are taken over for images that are still
        the same.

    Attributes
    ----------
    features
        Of each image in each orientation.
    """

    def __init__(
        self,
        images: Sequence[WorkingImage],
        options: TrainingOptions,
        network: Standardised,
        encoder: CachedEncoder,
        known: Iterable[OrientedFeatures] = (),
    ) -> None:
        stride = network.stride
        super().__init__(images, options, stride)
        self.patch_px = -(-self.patch_px // stride) * stride
        self._stride = stride
        self._orientations = orientations_of(self._augmentation)
        before = {(id(each.pixels), each.orientation): each for each in known}
        self.features = {
            (index, orientation): before.get((id(image.pixels), orientation))
            or OrientedFeatures(image.pixels, orientation, network, encoder)
            for index, image in enumerate(images)
            for orientation in sorted({*self._orientations})
        }

    def draw_in_parts(
        self, count: int, generator: Generator, part: slice = slice(None)
    ) -> Parts[None, None, MiniBatch[FeaturePatches]]:
        """Draw *count* patches, with breaks: after each, and after encoding a block.

        They are as large as ``patch_px`` and the smallest of the images drawn allow. A
        part of them is returned, and no other block is encoded for it.
        """
        drawn = [self._draw_oriented(generator) for _ in range(count)]
        height, width = (
            min(self.patch_px, *(features.shape[axis] for features, _, _ in drawn))
            for axis in (0, 1)
        )
        placed = [
            (
                features,
                learned,
                self._region(place, features.shape, (height, width), generator),
            )
            for features, learned, place in drawn
        ]
        levels, labels, inside = [], [], []
        for number, (features, learned, region) in enumerate(placed[part]):
            if number:
                yield
            levels.append((yield from features.in_parts(region)))
            found = oriented_part(learned, region, features.orientation)
            labels.append(_padded(found, height, width))
            inside.append(
                _padded(torch.ones_like(found, dtype=torch.bool), height, width)
            )
        patches = FeaturePatches(
            tuple(torch.stack(each) for each in zip(*levels, strict=True)),
            (height, width),
        )
        return MiniBatch(patches, torch.stack(labels), torch.stack(inside))

    def draw(
        self, count: int, generator: Generator, part: slice = slice(None)
    ) -> MiniBatch[FeaturePatches]:
        """Do :meth:`draw_in_parts` without a break."""
        return finish(self.draw_in_parts(count, generator, part))

    def _draw_oriented(
        self, generator: Generator
    ) -> tuple[OrientedFeatures, Tensor, tuple[int, int]]:
        """Draw an image in some orientation: its labels, and the place of one of them.

        The labels are those of the image as it is, the place is turned with it.
        """
        index, *place = self._draw_place(generator)
        choice = int(torch.randint(len(self._orientations), (), generator=generator))
        features = self.features[index, self._orientations[choice]]
        learned = self.images[index].learned
        return (
            features,
            learned,
            oriented_place(place, learned.shape, features.orientation),
        )

    def _region(
        self,
        place: tuple[int, int],
        shape: tuple[int, int],
        size: tuple[int, int],
        generator: Generator,
    ) -> Region:
        """Return a region of *size* that holds a place of an image of *shape*."""
        shifts = (torch.rand(2, generator=generator) - 0.5) * 2 * JITTER
        y, x = (
            self._start(*each)
            for each in zip(place, shape, size, shifts.tolist(), strict=True)
        )
        return y, x, y + size[0], x + size[1]

    def _start(self, place: int, length: int, size: int, shift: float) -> int:
        """Return where a patch is to start in an image: at a whole stride."""
        wished = place + shift * size - size / 2
        if self._augmentation.tiling:
            wished = place // size * size
        first = max(0, -(-(place - size + 1) // self._stride))
        last = min(place, length - size) // self._stride
        return min(max(first, round(wished / self._stride)), last) * self._stride


class OrientedFeatures:
    """The features of one image in one orientation, as far as they were asked for.

    Parameters
    ----------
    pixels
        (C, H, W) float32 in [0, 1].
    orientation
        Of :func:`oriented`.
    network
        Whose encoder it is.
    encoder
        And what is kept of it.

    Attributes
    ----------
    pixels, orientation
        As given.
    shape
        (y, x) of the oriented image, grown to multiples of the network's stride.
    """

    def __init__(
        self,
        pixels: Tensor,
        orientation: int,
        network: Standardised,
        encoder: CachedEncoder,
    ) -> None:
        self.pixels = pixels
        self.orientation = orientation
        self._network = network
        self._encoder = encoder
        self._halo = max(encoder.halo)
        self._channels = encoder.channels
        self._strides = encoder.strides
        self._keys: dict[Region, str] = {}
        self.shape = grown(
            oriented_shape(pixels.shape[-2:], orientation), network.stride
        )

    def of(self, region: Region) -> tuple[Tensor, ...]:
        """Do :meth:`in_parts` without a break."""
        return finish(self.in_parts(region))

    def in_parts(self, region: Region) -> Parts[None, None, tuple[Tensor, ...]]:
        """Return the features of a region, with a break after each block's encoding.

        Parameters
        ----------
        region
            Of the grown image; it starts and ends at whole strides.

        Returns
        -------
        tuple of Tensor
            (F, h, w) float32 a level.
        """
        height, width = region[2] - region[0], region[3] - region[1]
        levels = list(zip(self._channels, self._strides, strict=True))
        found = [
            self.pixels.new_zeros(channels, height // stride, width // stride)
            for channels, stride in levels
        ]
        for block in cover((0, 0, *self.shape), BLOCK):
            if not overlap(block, region):
                continue
            part = _intersection(block, region)
            maps = yield from self._part_of(block, part)
            for (_, stride), whole, each in zip(levels, found, maps, strict=True):
                y, x = _window(part, region, stride)
                whole[:, y, x] = torch.from_numpy(each).to(whole)
        return tuple(found)

    def _part_of(self, block: Region, part: Region) -> Parts[None, None, Maps]:
        """Return the features of a part of a block, which may become known now."""
        windows = [_window(part, block, stride) for stride in self._strides]
        cache, key = self._encoder.cache, self._keys.get(block)
        if key is not None and (kept := cache.read(key, windows)) is not None:
            return kept
        field = make_tile(
            block, self.shape, halo=self._halo, stride=self._network.stride
        ).field
        x = self._grown(field)
        key = self._keys[block] = self._encoder.key(x, block)
        if (kept := cache.read(key, windows)) is not None:
            return kept
        core = (_window(block, field, stride) for stride in self._strides)
        maps = [
            each[:, y, x]
            for each, (y, x) in zip(self._encoder.compute(x), core, strict=True)
        ]
        cache.write(key, maps, BLOCK)
        yield
        return [each[:, y, x] for each, (y, x) in zip(maps, windows, strict=True)]

    def _grown(self, region: Region) -> Tensor:
        """Return a region of the grown image as the encoder sees it, (1, C, h, w)."""
        stride = self._network.stride
        # What the image is grown by is reflected at its end, up to a stride away.
        y0, x0 = (max(0, start - stride) for start in region[:2])
        part = oriented_part(self.pixels, (y0, x0, *region[2:]), self.orientation)
        x = pad_to_multiple(self._network.standardise(as_batch(part)), stride)
        return x[:, :, region[0] - y0 :, region[1] - x0 :]


def oriented(x: Tensor, orientation: int) -> Tensor:
    """Mirror and turn (..., H, W): bit 0 mirrors y, bit 1 x, bit 2 swaps them first."""
    if orientation & 4:
        x = x.transpose(-1, -2)
    return x.flip([axis for axis, bit in ((-2, 1), (-1, 2)) if orientation & bit])


def oriented_shape(shape: Sequence[int], orientation: int) -> tuple[int, int]:
    """Return the (y, x) that :func:`oriented` makes of an image of *shape*."""
    height, width = shape
    return (width, height) if orientation & 4 else (height, width)


def oriented_part(x: Tensor, region: Region, orientation: int) -> Tensor:
    """Return what lies in a region of :func:`oriented`, turning only that.

    Parameters
    ----------
    x
        (..., H, W).
    region
        Of the oriented image; it may end beyond it, where nothing is returned.
    orientation
        Of :func:`oriented`.
    """
    height, width = oriented_shape(x.shape[-2:], orientation)
    y0, x0, y1, x1 = _intersection(region, (0, 0, height, width))
    if orientation & 1:
        y0, y1 = height - y1, height - y0
    if orientation & 2:
        x0, x1 = width - x1, width - x0
    if orientation & 4:
        y0, x0, y1, x1 = x0, y0, x1, y1
    return oriented(x[..., y0:y1, x0:x1], orientation)


def oriented_place(
    place: Sequence[int], shape: Sequence[int], orientation: int
) -> tuple[int, int]:
    """Return where :func:`oriented` takes the pixel (y, x) of an image of *shape*."""
    y, x = place
    height, width = oriented_shape(shape, orientation)
    if orientation & 4:
        y, x = x, y
    return (
        height - 1 - y if orientation & 1 else y,
        width - 1 - x if orientation & 2 else x,
    )


def grown(shape: Sequence[int], stride: int) -> tuple[int, int]:
    """Return a shape (y, x) grown to whole strides."""
    height, width = (-(-length // stride) * stride for length in shape)
    return height, width


def bytes_needed(
    images: Iterable[WorkingImage],
    network: Standardised,
    augmentation: AugmentationOptions,
) -> int:
    """Return the bytes that the features of all orientations take, uncompressed."""
    inner = network.network
    assert isinstance(inner, EncoderDecoder)
    return len({*orientations_of(augmentation)}) * sum(
        bytes_of(inner.encoder, grown(image.learned.shape, network.stride))
        for image in images
    )


def bytes_of_block(images: Iterable[WorkingImage], network: Standardised) -> int:
    """Return the bytes that the cache needs to keep anything at all: a block."""
    inner = network.network
    assert isinstance(inner, EncoderDecoder)
    shapes = (grown(image.learned.shape, network.stride) for image in images)
    return OVERHEAD + max(
        bytes_of(inner.encoder, (min(BLOCK, height), min(BLOCK, width)))
        for height, width in shapes
    )


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    """Return (height, width): *x*, and 0 beyond it."""
    return F.pad(x, (0, width - x.shape[1], 0, height - x.shape[0]))


def _intersection(a: Region, b: Region) -> Region:
    return (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))


def _window(part: Region, region: Region, stride: int) -> Window:
    """Return the features of *part* within those of *region*."""
    rows, columns = (
        slice(
            (part[axis] - region[axis]) // stride,
            (part[axis + 2] - region[axis]) // stride,
        )
        for axis in (0, 1)
    )
    return rows, columns
