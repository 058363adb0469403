"""Drawing mini-batches of features that were computed once, instead of pixels.

Where an encoder does not learn, an image's features are always the same: so are those
of its seven other orientations. They are computed of the whole image, block by block as
they are drawn, with all that the encoder sees around a block. A patch is cut out of
them. That differs from encoding a patch, at the edges of which the encoder would see
zeros instead of what is there: here it sees what it will see in a prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Generator, Tensor

from napari_sparseseg.inputs.tiling import cover, make_tile, overlap
from napari_sparseseg.learning.feature_cache import bytes_of
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.learning.patches import (
    ATTEMPTS,
    JITTER,
    FeaturePatches,
    MiniBatch,
    PlaceSampler,
)
from napari_sparseseg.networks.scoring import EncoderDecoder, as_batch, pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_sparseseg.inputs.resolution import Region
    from napari_sparseseg.learning.feature_cache import CachedEncoder, Window
    from napari_sparseseg.learning.training_set import WorkingImage
    from napari_sparseseg.networks.registry import Standardised

    #: (F, h, w) a level.
    Maps = Sequence[NDArray[np.float16]]

#: Side, in working pixels, of the blocks that features are computed and kept by. It is
#: a multiple of every stride.
BLOCK = 512

#: Mirrorings and quarter turns of an image, the image itself being 0.
ORIENTATIONS = 8


class FeatureSampler(PlaceSampler):
    """Draws mini-batches of features; see :meth:`draw_in_parts`.

    Of all augmentation only mirrorings and quarter turns are left.

    Parameters
    ----------
    images
        At the working resolution, on the device of the network.
    network
        An :class:`EncoderDecoder` whose encoder is frozen.
    encoder
        That encoder, and what is kept of it.
    patch_px, by, dense_share
        As of :class:`~.patches.PlaceSampler`.

    Attributes
    ----------
    features
        Of each image in each orientation.
    """

    def __init__(
        self,
        images: Sequence[WorkingImage],
        network: Standardised,
        encoder: CachedEncoder,
        *,
        patch_px: int,
        by: Literal["class", "image"],
        dense_share: float,
    ) -> None:
        stride = network.stride
        super().__init__(
            images,
            patch_px=max(stride, patch_px // stride * stride),
            stride=stride,
            by=by,
            dense_share=dense_share,
        )
        self._stride = stride
        self.features = [
            OrientedFeatures(image.pixels, orientation, network, encoder)
            for image in images
            for orientation in range(ORIENTATIONS)
        ]

    def draw_in_parts(
        self, count: int, generator: Generator
    ) -> Parts[None, None, MiniBatch[FeaturePatches]]:
        """Draw *count* patches, with a break after each."""
        levels, labels, inside = [], [], []
        for number in range(count):
            if number:
                yield
            features, region, found = self._choose(generator)
            levels.append(features.of(region))
            labels.append(self._padded(found))
            inside.append(self._padded(torch.ones_like(found, dtype=torch.bool)))
        patches = FeaturePatches(
            tuple(torch.stack(each) for each in zip(*levels, strict=True)),
            (self.patch_px, self.patch_px),
        )
        return MiniBatch(patches, torch.stack(labels), torch.stack(inside))

    def draw(self, count: int, generator: Generator) -> MiniBatch[FeaturePatches]:
        """Do :meth:`draw_in_parts` without a break."""
        return finish(self.draw_in_parts(count, generator))

    def _choose(self, generator: Generator) -> tuple[OrientedFeatures, Region, Tensor]:
        """Draw an image in some orientation, a region, and its labels in the image."""
        size = self.patch_px
        for _ in range(ATTEMPTS):
            index, *place = self._draw_place(generator)
            orientation = int(torch.randint(ORIENTATIONS, (), generator=generator))
            shift = (torch.rand(2, generator=generator) - 0.5) * 2 * JITTER * size
            labels = self.images[index].learned
            centre = oriented_place(place, labels.shape, orientation)
            features = self.features[index * ORIENTATIONS + orientation]
            y0, x0 = (
                self._start(at + by - size / 2, length)
                for at, by, length in zip(
                    centre, shift.tolist(), features.shape, strict=True
                )
            )
            found = oriented(labels, orientation)[y0 : y0 + size, x0 : x0 + size]
            if found.any():
                break
        return features, (y0, x0, y0 + size, x0 + size), found

    def _padded(self, x: Tensor) -> Tensor:
        """Return (size, size): *x*, and 0 beyond the image."""
        padded = x.new_zeros(self.patch_px, self.patch_px)
        padded[: x.shape[0], : x.shape[1]] = x
        return padded

    def _start(self, wished: float, length: int) -> int:
        """Return the whole stride next to where a patch is to start in an image."""
        last = max(0, length - self.patch_px) // self._stride
        return min(max(0, round(wished / self._stride)), last) * self._stride


class OrientedFeatures:
    """The features of one image in one orientation, as far as they were asked for.

    Parameters
    ----------
    pixels
        (C, H, W) float32 in [0, 1].
    orientation
        Of ``ORIENTATIONS``.
    network
        Whose encoder it is.
    encoder
        And what is kept of it.

    Attributes
    ----------
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
        self._pixels = pixels
        self._orientation = orientation
        self._network = network
        self._encoder = encoder
        self._halo = max(encoder.halo)
        self._channels = encoder.channels
        self._strides = encoder.strides
        self._keys: dict[Region, str] = {}
        height, width = oriented(pixels, orientation).shape[-2:]
        stride = network.stride
        self.shape = (-(-height // stride) * stride, -(-width // stride) * stride)

    def of(self, region: Region) -> tuple[Tensor, ...]:
        """Return the features of a region that starts and ends at whole strides.

        Returns
        -------
        tuple of Tensor
            (F, h, w) float32 a level, 0 beyond the image.
        """
        height, width = region[2] - region[0], region[3] - region[1]
        levels = list(zip(self._channels, self._strides, strict=True))
        found = [
            self._pixels.new_zeros(channels, height // stride, width // stride)
            for channels, stride in levels
        ]
        for part, maps in self._parts(region):
            for (_, stride), whole, each in zip(levels, found, maps, strict=True):
                y, x = _window(part, region, stride)
                whole[:, y, x] = torch.from_numpy(each).to(whole)
        return tuple(found)

    def _parts(self, region: Region) -> Iterator[tuple[Region, Maps]]:
        """Return the parts of the image that make up a region, and their features."""
        image = (0, 0, *self.shape)
        if not self._encoder.cache.is_usable:
            # Without their surroundings, which would cost more than the training.
            part = _intersection(image, region)
            yield part, self._encoder.compute(self._grown(part))
            return
        for block in cover(image, BLOCK):
            if overlap(block, region):
                part = _intersection(block, region)
                yield part, self._read(block, part)

    def _read(self, block: Region, part: Region) -> Maps:
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
        return [each[:, y, x] for each, (y, x) in zip(maps, windows, strict=True)]

    def _grown(self, region: Region) -> Tensor:
        """Return a region of the grown image as the encoder sees it, (1, C, h, w)."""
        y0, x0, y1, x1 = region
        image = as_batch(oriented(self._pixels, self._orientation))
        x = pad_to_multiple(self._network.standardise(image), self._network.stride)
        return x[:, :, y0:y1, x0:x1]


def oriented(x: Tensor, orientation: int) -> Tensor:
    """Mirror and turn (..., H, W): bit 0 mirrors y, bit 1 x, bit 2 swaps them first."""
    if orientation & 4:
        x = x.transpose(-1, -2)
    return x.flip([axis for axis, bit in ((-2, 1), (-1, 2)) if orientation & bit])


def oriented_place(
    place: Sequence[int], shape: Sequence[int], orientation: int
) -> tuple[int, int]:
    """Return where :func:`oriented` takes the pixel (y, x) of an image of *shape*."""
    (y, x), (height, width) = place, shape
    if orientation & 4:
        y, x, height, width = x, y, width, height
    return (
        height - 1 - y if orientation & 1 else y,
        width - 1 - x if orientation & 2 else x,
    )


def bytes_needed(images: Iterable[WorkingImage], network: Standardised) -> int:
    """Return the bytes that the features of all orientations take, uncompressed."""
    inner = network.network
    assert isinstance(inner, EncoderDecoder)
    return ORIENTATIONS * sum(
        bytes_of(inner.encoder, (image.learned.shape[0], image.learned.shape[1]))
        for image in images
    )


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
