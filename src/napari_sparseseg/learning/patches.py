"""Drawing mini-batches of patches in which something is annotated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor

from napari_sparseseg.learning.augmentation import (
    change_colours,
    draw_offsets,
    sample_labels,
    sample_pixels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.learning.options import TrainingOptions
    from napari_sparseseg.learning.training_set import WorkingImage

#: The annotated pixel that was drawn lies within this share of the patch's side from
#: its centre, so that turning the patch does not lose it.
JITTER = 0.35

#: Draws of a patch before one without a label is accepted.
ATTEMPTS = 10


@dataclass(frozen=True, eq=False)
class FeaturePatches:
    """Some patches' features.

    Attributes
    ----------
    levels
        (B, F, h, w) float32 each, as an encoder gives them.
    size
        (H, W) of the patches in pixels.
    """

    levels: tuple[Tensor, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.levels[0])

    def __getitem__(self, part: Tensor) -> FeaturePatches:
        """Return the patches of some indices."""
        return FeaturePatches(tuple(each[part] for each in self.levels), self.size)


#: What a network, or its decoder, is given.
Patches = TypeVar("Patches", Tensor, FeaturePatches)


class MiniBatch(NamedTuple, Generic[Patches]):
    """Patches that are learned from in one step.

    Attributes
    ----------
    images
        (B, C, size, size) float in [0, 1], or their features.
    labels
        (B, size, size) int64, 0 = not annotated.
    inside
        (B, size, size) bool: which pixels lie in their image.
    """

    images: Patches
    labels: Tensor
    inside: Tensor


class LabelledPixels:
    """The annotated pixels of some images, to draw from.

    Parameters
    ----------
    images
        Images at the working resolution.
    indices
        Which of them to draw from.
    """

    def __init__(self, images: Sequence[WorkingImage], indices: Sequence[int]) -> None:
        self._places: dict[int, Tensor] = {}  # class -> (n, 3): image, y, x
        self._of_image: dict[int, Tensor] = {}  # image -> (n, 3)
        per_class: dict[int, list[Tensor]] = {}
        for index in indices:
            learned = images[index].learned.cpu()
            yx = learned.nonzero()
            if not len(yx):
                continue
            places = torch.cat([torch.full_like(yx[:, :1], index), yx], dim=1)
            self._of_image[index] = places
            values = learned[yx[:, 0], yx[:, 1]]
            for value in values.unique().tolist():
                per_class.setdefault(value, []).append(places[values == value])
        for value, parts in sorted(per_class.items()):
            self._places[value] = torch.cat(parts)

    def __bool__(self) -> bool:
        """Tell whether anything is annotated."""
        return bool(self._places)

    def draw(
        self, by: Literal["class", "image"], generator: Generator
    ) -> tuple[int, int, int]:
        """Draw a class or an image, then one of its annotated pixels: image, y, x."""
        pools = list((self._places if by == "class" else self._of_image).values())
        pool = pools[_below(len(pools), generator)]
        image, y, x = pool[_below(len(pool), generator)].tolist()
        return image, y, x


class PlaceSampler:
    """Draws the annotated pixels that patches are laid around.

    Parameters
    ----------
    images
        At the working resolution, on the device that is to sample them.
    options
        How patches are drawn, and how large they are at most.
    stride
        Images that are all smaller get patches whose sides are multiples of it.

    Attributes
    ----------
    patch_px
        Largest side of a patch.
    """

    def __init__(
        self, images: Sequence[WorkingImage], options: TrainingOptions, stride: int
    ) -> None:
        self.images = images
        longest = max(max(image.learned.shape) for image in images)
        self.patch_px = min(
            options.recipe.patch_px, math.ceil(longest / stride) * stride
        )
        self._by = options.recipe.draw
        self._augmentation = options.recipe.augmentation
        self._dense_share = options.dense_share
        kinds = [image.dense for image in images]
        self._sparse = LabelledPixels(
            images, [i for i, dense in enumerate(kinds) if not dense]
        )
        self._dense = LabelledPixels(
            images, [i for i, dense in enumerate(kinds) if dense]
        )

    def _draw_place(self, generator: Generator) -> tuple[int, int, int]:
        """Draw an annotated pixel: image, y, x."""
        pool = self._sparse or self._dense
        if self._sparse and self._dense:
            dense = torch.rand((), generator=generator).item() < self._dense_share
            pool = self._dense if dense else self._sparse
        return pool.draw(self._by, generator)


class _View(NamedTuple):
    """A patch that was drawn: its image, (size, size, 2) places and what lies there."""

    image: WorkingImage
    places: Tensor
    labels: Tensor
    inside: Tensor


class PatchSampler(PlaceSampler):
    """Draws augmented mini-batches; see :meth:`draw`."""

    def draw(
        self, count: int, generator: Generator, part: slice = slice(None)
    ) -> MiniBatch[Tensor]:
        """Draw *count* patches, and return a part of them.

        Pixels are sampled of that part only, which does not depend on the others.
        """
        views = [self._draw_view(generator) for _ in range(count)][part]
        patches = torch.stack(
            [sample_pixels(view.image.pixels, view.places) for view in views]
        )
        return MiniBatch(
            change_colours(patches, self._augmentation, generator, count, part),
            torch.stack([view.labels for view in views]),
            torch.stack([view.inside for view in views]),
        )

    def _draw_view(self, generator: Generator) -> _View:
        for _ in range(ATTEMPTS):
            index, y, x = self._draw_place(generator)
            image = self.images[index]
            centre = self._centre(y, x, image.learned.shape, generator)
            offsets = draw_offsets(1, self.patch_px, self._augmentation, generator)
            places = offsets[0] + torch.tensor(centre)
            labels, inside = sample_labels(image.learned, places)
            if labels.any():
                break
        return _View(image, places, labels, inside)

    def _centre(
        self, y: int, x: int, shape: Sequence[int], generator: Generator
    ) -> tuple[float, float]:
        """Return the middle of a patch that holds the pixel (y, x) of an image."""
        size = self.patch_px
        if self._augmentation.tiling:
            # The last tile ends with the image, so it overlaps the one before.
            y0, x0 = (
                min(place // size * size, max(0, length - size))
                for place, length in zip((y, x), shape, strict=True)
            )
            return y0 + (size - 1) / 2, x0 + (size - 1) / 2
        shift = (torch.rand(2, generator=generator) - 0.5) * 2 * JITTER
        dy, dx = (shift * size).tolist()
        return y + dy, x + dx


def _below(count: int, generator: Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
