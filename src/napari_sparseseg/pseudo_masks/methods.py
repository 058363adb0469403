"""Boxes become pseudo-masks: one interface to all methods.

Making them is a generator of events. Stop = stop asking.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast, get_args

import numpy as np
import torch

from napari_sparseseg.errors import ImageError, LabelError, OptionError
from napari_sparseseg.learning.parts import advance
from napari_sparseseg.pseudo_masks.crf import (
    CrfBackend,
    CrfOptions,
    chosen_backend,
)
from napari_sparseseg.pseudo_masks.grabcut import (
    GrabCutOptions,
    grabcut_in_parts,
    mask_of_votes,
)
from napari_sparseseg.pseudo_masks.label_map import BoxMask, PseudoMask, merge_masks
from napari_sparseseg.pseudo_masks.localization import fit_to_box, localise
from napari_sparseseg.pseudo_masks.method_names import (
    FIXED,
    IN_ROUNDS,
    MINING,
    REFINED,
    TELLING_BACKGROUND,
    Method,
)
from napari_sparseseg.pseudo_masks.mining import (
    MINING_PRESETS,
    MiningEvent,
    MiningMethod,
    MiningOptions,
    MiningStepDone,
    RegionMining,
    mining_image,
)
from napari_sparseseg.pseudo_masks.recursive import (
    RecursiveMethod,
    RecursiveOptions,
    RoundEvent,
    train_in_rounds,
)
from napari_sparseseg.pseudo_masks.refinement import Refinement, refine_boxes
from napari_sparseseg.pseudo_masks.shapes import box_mask, ellipse_mask

if TYPE_CHECKING:
    from collections.abc import Generator as Events
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.networks.region_classifier import RegionNetwork
    from napari_sparseseg.pseudo_masks.box_image import BoxImage


@dataclass(frozen=True, slots=True)
class PseudoMaskOptions:
    """How boxes become masks.

    Attributes
    ----------
    method
        See :data:`~napari_sparseseg.pseudo_masks.method_names.Method`.
    crf
        Whether a dense CRF refines the maps; None = as the method has it.
    crf_options, crf_backend
        See :func:`~napari_sparseseg.pseudo_masks.crf.dense_crf`.
    background
        The class value of what lies outside of all boxes; 0 = ignored there.
    mining
        Of ``cam`` and ``acol``; its method, seed and device are set from these here.
    grabcut
        Of ``grabcut``.
    recursive
        Of ``sdi-box`` and ``crf-box``; seed and device are set from these here.
    seconds
        Longest time of training, which cannot promise the same masks twice; None =
        until all epochs are over. Methods without training need none.
    seed
        Of every random draw.
    device
        A torch device.

    Raises
    ------
    OptionError
        If the method is not known, has no choice about the CRF, or the time is not
        above 0.
    """

    method: Method = "acol"
    crf: bool | None = None
    crf_options: CrfOptions = field(default_factory=CrfOptions)
    crf_backend: CrfBackend = "auto"
    background: int = 0
    mining: MiningOptions = MINING_PRESETS["light"]
    grabcut: GrabCutOptions = field(default_factory=GrabCutOptions)
    recursive: RecursiveOptions = field(default_factory=RecursiveOptions)
    seconds: float | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check what can be wrong here."""
        if self.method not in get_args(Method):
            raise OptionError(
                f"the method of pseudo-masks is named {self.method!r}; expected one of "
                f"{', '.join(get_args(Method))}.",
                method=self.method,
            )
        if self.method in FIXED and self.crf not in (None, self.method in REFINED):
            raise OptionError(
                f"the method {self.method} was asked for "
                + (
                    "without its dense CRF, but consists of it; take another method."
                    if self.method in REFINED
                    else "with a dense CRF, but all of a box is foreground and there "
                    "is nothing to refine; leave the CRF out, or take another method."
                ),
                method=self.method,
                crf=self.crf,
            )
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise OptionError(
                f"the time of training is {self.seconds} seconds; expected a number "
                "above 0.",
                seconds=self.seconds,
            )

    @property
    def refinement(self) -> Refinement:
        """How a localisation map becomes a mask."""
        uses_crf = self.method in REFINED if self.crf is None else self.crf
        return Refinement(
            self.crf_options if uses_crf else None,
            self.crf_backend,
            self.device,
            self.recursive.margin if self.method in IN_ROUNDS else 0.0,
        )


@dataclass(frozen=True, eq=False)
class MinedNetwork:
    """What region mining has learned: to be kept, and used for other boxes.

    Attributes
    ----------
    network
        In training or evaluation mode, on its device.
    class_values
        The classes that boxes may have, ascending.
    side
        Longest side to which images are shrunk, in pixels.
    """

    network: RegionNetwork
    class_values: tuple[int, ...]
    side: int

    def localise(self, image: BoxImage) -> list[NDArray[np.float32]]:
        """Give the localisation map of each box, (h, w) float32 in [0, 1].

        Raises
        ------
        LabelError
            If a box has a class that was not learned.
        ImageError
            If the image has other than one or three channels.
        """
        maps = localise(self.network, mining_image(image, self.class_values, self.side))
        return [
            fit_to_box(each, *box.shape).numpy()
            for box, each in zip(image.boxes, maps, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class MiningDone:
    """Region mining is over; what it has learned makes masks now."""

    mined: MinedNetwork


@dataclass(frozen=True, slots=True)
class MaskPartDone:
    """A part of a mask is done: time to look at something else."""


@dataclass(frozen=True, eq=False)
class BoxDone:
    """The mask of a box is there.

    Attributes
    ----------
    name
        Of the image.
    place
        Of the box among those of the image, from 0.
    mask
        Its localisation map is what `refine` takes.
    """

    name: str
    place: int
    mask: BoxMask


@dataclass(frozen=True, eq=False)
class ImageDone:
    """All boxes of an image are done; their masks are merged."""

    name: str
    result: PseudoMask


PseudoMaskEvent = (
    MiningEvent | MiningDone | RoundEvent | MaskPartDone | BoxDone | ImageDone
)


def iter_pseudo_masks(
    images: Sequence[BoxImage],
    options: PseudoMaskOptions,
    mined: MinedNetwork | None = None,
) -> Iterator[PseudoMaskEvent]:
    """Make the pseudo-masks of all boxes.

    Parameters
    ----------
    images
        Of different names, at least one box among them. They may differ in size.
        Where an image has none, all of it is background.
    options
        Method and parameters.
    mined
        Of an earlier :class:`MiningDone`: ``cam`` and ``acol`` then train nothing.

    Yields
    ------
    PseudoMaskEvent
        Of training; then for each image, in order, a :class:`BoxDone` for each of its
        boxes, in order, and an :class:`ImageDone`.

    Raises
    ------
    LabelError
        If there is no box, or two images have the same name.
    ImageError
        If an image has other than one or three channels.
    TrainingError
        If there is nothing to learn, or the loss is no number.
    OptionError, ModelFileError
        If an option cannot be used, or weights cannot be loaded.
    """
    _check(images, options)
    if options.method in IN_ROUNDS:
        made = yield from _train_in_rounds(images, options)
        for image, masks in zip(images, made, strict=True):
            yield from _told(image, masks, options)
        return
    if options.method not in MINING:
        mined = None
    elif mined is None:
        mined = yield from _mine(images, options)
        yield MiningDone(mined)
    elif (mined.network.b is not None) != (options.method == "acol"):
        raise OptionError(
            f"the network that is kept was not mined by {options.method}; mine anew, "
            "or take the method that it was mined by.",
            method=options.method,
        )
    for image in images:
        yield from _told(image, _masks_of(image, options, mined), options)


def refine(
    image: BoxImage,
    box: Box,
    localization: NDArray[np.float32],
    options: PseudoMaskOptions,
) -> BoxMask:
    """Make the mask of one box anew from its localisation map; nothing is trained.

    Parameters
    ----------
    image
        The box need not be one of its own, but has to lie inside of it.
    box
        Not empty.
    localization
        (h, w) float32 in [0, 1]: :attr:`~.label_map.BoxMask.localization` of the mask
        that was made by the same method.
    options
        With other parameters of the CRF, or without it; other shares of ``grabcut``.

    Returns
    -------
    BoxMask
        With the localisation map as given.

    Raises
    ------
    LabelError
        If the map has another size than the box.
    ImageError
        If the CRF cannot take the channels of the image, or the map is not in [0, 1].
    OptionError
        If the CRF's backend is not known or not there.
    """
    refinement = options.refinement
    if options.method == "grabcut" and refinement.crf is None:
        return mask_of_votes(box, localization, options.grabcut)
    (mask,) = refine_boxes(image, [box], [localization], refinement)
    return mask


def merge(
    masks: Sequence[BoxMask], image_shape: Sequence[int], options: PseudoMaskOptions
) -> PseudoMask:
    """Merge the masks of some boxes of an image as their method has it.

    Parameters
    ----------
    masks
        In any order; none is allowed.
    image_shape
        (y, x).
    options
        Method and background.

    Raises
    ------
    LabelError, OptionError
        As :func:`~napari_sparseseg.pseudo_masks.label_map.merge_masks`.
    """
    return merge_masks(
        masks,
        image_shape,
        options.background,
        background_inside=options.method in TELLING_BACKGROUND
        and options.background != 0,
    )


def _check(images: Sequence[BoxImage], options: PseudoMaskOptions) -> None:
    """Refuse now what would end the work after a long training."""
    if not any(image.boxes for image in images):
        raise LabelError(
            f"there is no box on any of the {len(images)} images; draw at least one "
            "around an object."
        )
    counts = Counter(image.name for image in images)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise LabelError(
            f"several images have the name {repeated[0]}; give each one of its own.",
            names=repeated,
        )
    for image in images:
        if len(image.pixels) not in (1, 3):
            raise ImageError(
                f"{image.name} has {len(image.pixels)} channels, but 1 or 3 are "
                "expected; choose one channel, or three, and if it is a volume "
                "(z, y, x), give each box its plane.",
                n_channels=len(image.pixels),
            )
    refinement = options.refinement
    if refinement.crf is not None:  # is its backend there?
        chosen_backend(refinement.backend, torch.device(refinement.device))


def _told(
    image: BoxImage,
    masks: Iterable[BoxMask | MaskPartDone],
    options: PseudoMaskOptions,
) -> Iterator[PseudoMaskEvent]:
    """Tell of each mask of an image, and at last of all of them."""
    made: list[BoxMask] = []
    for mask in masks:
        if isinstance(mask, MaskPartDone):
            yield mask
            continue
        made.append(mask)
        yield BoxDone(image.name, len(made) - 1, mask)
    yield ImageDone(image.name, merge(made, image.shape, options))


def _masks_of(
    image: BoxImage, options: PseudoMaskOptions, mined: MinedNetwork | None
) -> Iterator[BoxMask | MaskPartDone]:
    """Make the masks of the boxes of an image by what is known of it alone."""
    if mined is not None:
        maps = mined.localise(image)
        yield MaskPartDone()
        yield from refine_boxes(image, image.boxes, maps, options.refinement)
        return
    grabcut = options.method == "grabcut"
    pixels = image.in_8_bits() if grabcut and image.boxes else None
    for box in image.boxes:
        if pixels is not None:
            mask = yield from _cut_out(pixels, box, options)
        else:
            mask = box_mask(box) if options.method == "box" else ellipse_mask(box)
        yield refine(image, box, mask.localization, options)


def _cut_out(
    pixels: NDArray[np.uint8], box: Box, options: PseudoMaskOptions
) -> Events[MaskPartDone, None, BoxMask]:
    # So that a box is cut out the same whatever else is drawn.
    generator = np.random.default_rng([options.seed, *box.edges])
    parts = grabcut_in_parts(pixels, box, options.grabcut, generator)
    while (mask := advance(parts)) is None:
        yield MaskPartDone()
    return mask


def _mine(
    images: Sequence[BoxImage], options: PseudoMaskOptions
) -> Events[MiningEvent, None, MinedNetwork]:
    """Learn until all epochs or the time are over, one step at least."""
    mining_options = replace(
        options.mining,
        method=cast("MiningMethod", options.method),
        seed=options.seed,
        device=options.device,
    )
    side = mining_options.side
    values = tuple(sorted({b.class_value for image in images for b in image.boxes}))
    prepared = [mining_image(image, values, side) for image in images]
    mining = RegionMining(prepared, len(values), mining_options)
    started = time.perf_counter()
    for event in mining.run():
        yield event
        if not isinstance(event, MiningStepDone) or options.seconds is None:
            continue
        if time.perf_counter() - started >= options.seconds:
            break
    return MinedNetwork(mining.network, values, side)


def _train_in_rounds(
    images: Sequence[BoxImage], options: PseudoMaskOptions
) -> Events[RoundEvent, None, list[list[BoxMask]]]:
    training = replace(
        options.recursive.training, seed=options.seed, device=options.device
    )
    return (
        yield from train_in_rounds(
            cast("RecursiveMethod", options.method),
            images,
            options.background,
            options.refinement,
            replace(options.recursive, training=training),
            options.seconds,
        )
    )
