"""The images of a training, their labels, and what is held out of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg.annotations.strokes import check_label_map, count_labels
from napari_sparseseg.errors import ImageError, LabelError
from napari_sparseseg.inputs.resolution import (
    shrink,
    shrink_labels,
    source_region,
    working_shape,
)
from napari_sparseseg.learning.held_out import HELD_OUT, LEARNED, HeldOutStrokes
from napari_sparseseg.learning.parts import finish

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.annotations.strokes import LabelCount
    from napari_sparseseg.inputs.normalisation import Normalisation
    from napari_sparseseg.inputs.resolution import Region

#: Share of the dense images that is held out, whole, when there are at least two.
DENSE_HELD_OUT_SHARE = 0.2

#: Images are resampled in bands of about so many of their pixels: a tenth of a second
#: on one core.
BAND_PX = 2_000_000


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """An image and what is annotated in it.

    Attributes
    ----------
    name
        Unique within a training.
    pixels
        (y, x) or (y, x, c), any numeric type.
    labels
        (y, x) uint8 or uint16 class values, 0 = not annotated.
    dense
        Whether regions of it are labelled completely.
    um_per_px
        Pixel size in micrometres, None when unknown. Images of different known pixel
        sizes are brought to the one of the first.
    """

    name: str
    pixels: NDArray[Any]
    labels: NDArray[Any]
    dense: bool = False
    um_per_px: float | None = None

    @property
    def n_channels(self) -> int:
        """Channels of the image, 1 for a grey one."""
        return 1 if self.pixels.ndim == 2 else self.pixels.shape[2]

    @cached_property
    def counts(self) -> dict[int, LabelCount]:
        """Pixels and strokes of each annotated class value."""
        return count_labels(self.labels)


@dataclass(frozen=True, eq=False)
class WorkingImage:
    """An image at a working resolution.

    Attributes
    ----------
    pixels
        (C, H, W) float32 in [0, 1].
    learned, held_out
        (H, W) int64: k + 1 where channel k is annotated, 0 elsewhere; no pixel is
        annotated in both.
    dense
        Whether regions of it are labelled completely.
    """

    pixels: Tensor
    learned: Tensor
    held_out: Tensor
    dense: bool


class TrainingSet:
    """Images, classes, and which strokes are held out; all may change while training.

    Parameters
    ----------
    images
        At least one, all with the same number of channels.
    classes
        The class table; values that occur in labels must be in it.
    normalisation
        Of all images.
    seed
        Decides what is held out.
    holds_out
        Whether anything is held out; otherwise all that is annotated is learned, and
        nothing is scored.

    Raises
    ------
    ImageError, LabelError
        If images and labels do not fit each other or the class table.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        classes: ClassTable,
        normalisation: Normalisation,
        seed: int,
        *,
        holds_out: bool = True,
    ) -> None:
        if not images:
            raise ImageError("no image is given; training needs at least one.")
        self.classes = classes
        self.normalisation = normalisation
        #: Channels of the images; networks are made for it, so it stays when all
        #: images are taken out.
        self.n_channels = images[0].n_channels
        self.images: dict[str, TrainingImage] = {}
        self.held_out = HeldOutStrokes(seed)
        self._holds_out = holds_out
        self._working: dict[tuple[str, float], Tensor] = {}
        # What they are of: the image, the classes and the membership.
        self._working_images: dict[
            tuple[str, float], tuple[tuple[object, ...], WorkingImage]
        ] = {}
        self._values: dict[str, tuple[tuple[object, ...], set[int], set[int]]] = {}
        self.put(*images)

    @property
    def um_per_px(self) -> float | None:
        """Pixel size, in micrometres, that scales refer to; None when unknown."""
        sizes = (image.um_per_px for image in self.images.values())
        return next((size for size in sizes if size is not None), None)

    def put(self, *images: TrainingImage) -> None:
        """Add images, or replace those of the same name, all at once."""
        known = (*self.images.values(), *images)
        fitting = (each.name for each in known if each.n_channels == self.n_channels)
        first = next(fitting, "the training")
        for image in images:
            check_label_map(image.labels, image.pixels.shape[:2], image.name)
            self.classes.check_values(image.labels, image.name)
            if image.n_channels != self.n_channels:
                raise ImageError(
                    f"{image.name} has {image.n_channels} channel(s), but "
                    f"{first} has {self.n_channels}; train on images of "
                    "one kind.",
                    given=image.n_channels,
                    expected=self.n_channels,
                )
        for image in images:
            previous = self.images.get(image.name)
            if previous is None or previous.pixels is not image.pixels:
                self._forget_pixels(image.name)
            self.images[image.name] = image
        if not self._holds_out:
            for image in images:
                self.held_out.learn_image(image.name, image.labels)
            return
        self.held_out.update(
            {image.name: image.labels for image in images if not image.dense}
        )
        if any(image.dense for image in images):
            self._hold_out_dense_images()
        self.leave_something_to_learn()

    def remove(self, name: str) -> None:
        """Take an image out."""
        image = self.images.pop(name)
        self._values.pop(name, None)
        self._forget_pixels(name)
        self.held_out.discard(name)
        if image.dense:
            self._hold_out_dense_images()
        self.leave_something_to_learn()

    def check_trainable(self) -> None:
        """Raise LabelError unless two classes are annotated."""
        present = sorted(self.counts())
        if len(present) >= 2:
            return
        if not present:
            raise LabelError(
                "no pixel is annotated; paint strokes of at least two classes."
            )
        name = self.classes.by_value(present[0]).name
        raise LabelError(
            f"only the class {name!r} is annotated; paint strokes of at least one "
            "other class too, so that there is something to tell apart.",
            present=present,
        )

    def counts(self) -> dict[int, tuple[int, int]]:
        """Return pixels and strokes of each annotated class value, over all images."""
        totals: dict[int, tuple[int, int]] = {}
        for image in self.images.values():
            for value, count in image.counts.items():
                pixels, strokes = totals.get(value, (0, 0))
                totals[value] = (pixels + count.pixels, strokes + count.strokes)
        return dict(sorted(totals.items()))

    def working_pixels(self, scale: float) -> int:
        """Return the pixels of all images at a working resolution."""
        return sum(
            math.prod(working_shape(image.labels.shape, self.scale_of(image, scale)))
            for image in self.images.values()
        )

    def scale_of(self, image: TrainingImage, scale: float) -> float:
        """Return the working pixels per pixel of an image of its own pixel size."""
        if image.um_per_px is None or self.um_per_px is None:
            return scale
        return scale * image.um_per_px / self.um_per_px

    def at(self, scale: float) -> list[WorkingImage]:
        """Return all images at a working resolution, in the order they were added."""
        return finish(self.at_in_parts(scale))

    def at_in_parts(self, scale: float) -> Parts[None, None, list[WorkingImage]]:
        """Do :meth:`at` with a break between parts; to be given up on a change."""
        images = []
        for name in self.images:
            images.append((yield from self.working_in_parts(name, scale)))
            yield
        return images

    def working(self, name: str, scale: float) -> WorkingImage:
        """Return one image at a working resolution."""
        return finish(self.working_in_parts(name, scale))

    def working_in_parts(
        self, name: str, scale: float
    ) -> Parts[None, None, WorkingImage]:
        """Do :meth:`working` with a break between parts; to be given up on a change."""
        image = self.images[name]
        members = self.held_out.membership[name]
        own_scale = self.scale_of(image, scale)
        # An array is made anew whenever the membership of an image changes.
        now = (image, self.classes, members)
        known = self._working_images.get((name, own_scale))
        if known is not None and all(
            a is b for a, b in zip(known[0], now, strict=True)
        ):
            return known[1]
        pixels = yield from self.pixels_in_parts(name, scale)
        rows, columns, channels = self.annotated(image.labels)
        is_held_out = members[rows, columns] == HELD_OUT
        held_out, learned = (
            torch.from_numpy(
                shrink_labels(
                    rows[mine],
                    columns[mine],
                    channels[mine],
                    image.labels.shape,
                    own_scale,
                )
            )
            for mine in (is_held_out, ~is_held_out)
        )
        learned[held_out > 0] = 0
        working = WorkingImage(pixels, learned, held_out, image.dense)
        self._working_images[name, own_scale] = (now, working)
        return working

    def annotated(
        self, labels: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (n,) rows, columns and channels of the annotated pixels, row by row.

        Parameters
        ----------
        labels
            (y, x) class values, 0 = not annotated.

        Returns
        -------
        tuple of ndarray
            Of int64; k + 1 stands for channel k.
        """
        rows, columns = np.nonzero(labels)
        channels = np.zeros(0, np.int64)
        if len(rows):
            channels = self.classes.to_channels(labels[rows, columns])
        return rows, columns, channels

    def pixels_at(self, name: str, scale: float) -> Tensor:
        """Return one image at a working resolution, (C, H, W) float32 in [0, 1]."""
        return finish(self.pixels_in_parts(name, scale))

    def pixels_in_parts(self, name: str, scale: float) -> Parts[None, None, Tensor]:
        """Do :meth:`pixels_at` with a break between parts.

        Whoever stops in between, as is necessary when the image changes, leaves
        everything as it was. There is no break for an image that is kept already.
        """
        image = self.images[name]
        shape, own_scale = image.labels.shape, self.scale_of(image, scale)
        key = (image.name, own_scale)
        if key not in self._working:
            bands: list[Tensor] = []
            for band in _bands(shape, own_scale):
                if bands:
                    yield
                source = source_region(band, own_scale, shape)
                y0, x0, y1, x1 = source
                pixels = self.normalisation.apply(image.pixels[y0:y1, x0:x1])
                bands.append(shrink(pixels, source, band, own_scale))
            self._working[key] = torch.cat(bands, dim=1)
        return self._working[key]

    def forget_scale(self, scale: float) -> None:
        """Free the images kept at a working resolution that is no longer needed."""
        for image in self.images.values():
            key = (image.name, self.scale_of(image, scale))
            self._working.pop(key, None)
            self._working_images.pop(key, None)

    def _forget_pixels(self, name: str) -> None:
        for key in [key for key in self._working if key[0] == name]:
            del self._working[key]
        for key in [key for key in self._working_images if key[0] == name]:
            del self._working_images[key]

    def _hold_out_dense_images(self) -> None:
        """Hold out whole dense images; one that was learned from stays learned."""
        dense = [image for image in self.images.values() if image.dense]
        annotated = [image for image in dense if image.labels.any()]
        wanted = max(1, round(len(annotated) * DENSE_HELD_OUT_SHARE))
        if len(annotated) < 2:
            wanted = 0
        kept = [image for image in annotated if self.is_held_out(image.name)]
        if len(kept) == len(annotated):  # something must be left to learn from
            kept = kept[:wanted]
        new = [image for image in annotated if not self._is_decided(image.name)]
        chosen = {image.name for image in kept} | {
            image.name for image in self._drawn(new, wanted - len(kept))
        }
        for image in dense:
            if image.name in chosen:
                self.held_out.hold_out_image(image.name, image.labels)
            else:
                self.held_out.learn_image(image.name, image.labels)

    def leave_something_to_learn(self) -> None:
        """Let a class be learned of which only held-out strokes or images are left."""
        values = {name: self._values_of(image) for name, image in self.images.items()}
        learned: set[int] = set().union(*(mine for mine, _ in values.values()))
        for image in self.images.values():
            mine, held_out = values[image.name]
            if held_out <= learned:
                continue
            if image.dense:
                self.held_out.learn_image(image.name, image.labels)
                learned |= mine | held_out
            else:
                self.held_out.release(image.name, image.labels, learned)

    def _values_of(self, image: TrainingImage) -> tuple[set[int], set[int]]:
        """Return the class values that are learned, and those held out, of an image."""
        members = self.held_out.membership[image.name]
        known = self._values.get(image.name)
        now = (image, members)
        if known is None or not _are_same(known[0], now):
            values = [
                {*np.unique(image.labels[members == member]).tolist()}
                for member in (LEARNED, HELD_OUT)
            ]
            known = (now, values[0], values[1])
            self._values[image.name] = known
        return known[1], known[2]

    @property
    def has_held_out(self) -> bool:
        """Whether any stroke or image is held out."""
        return any(HELD_OUT in members for members in self.held_out.membership.values())

    def is_held_out(self, name: str) -> bool:
        """Tell whether all that is annotated in an image is held out."""
        members = self.held_out.membership.get(name)
        if members is None:
            return False
        return bool(members.any()) and LEARNED not in members

    def _is_decided(self, name: str) -> bool:
        members = self.held_out.membership.get(name)
        return members is not None and bool(members.any())

    def _drawn(self, images: list[TrainingImage], count: int) -> list[TrainingImage]:
        order = self.held_out.permutation(len(images))
        return [images[i] for i in order[: max(0, count)]]


def _are_same(before: Iterable[object], now: Iterable[object]) -> bool:
    return all(a is b for a, b in zip(before, now, strict=True))


def _bands(shape: tuple[int, ...], scale: float) -> Iterator[Region]:
    """Return the regions, one under the other, of an image's working grid."""
    height, width = working_shape(shape, scale)
    step = max(1, round(BAND_PX * scale / shape[1]))
    for top in range(0, height, step):
        yield (top, 0, min(top + step, height), width)
