"""Pseudo-masks by training a segmentation network on its own corrected predictions.

``sdi-box``: the recursive training "Box" of Khoreva et al. 2017 ("Simple Does It:
Weakly Supervised Instance and Semantic Segmentation", section 3.1). ``crf-box``:
"Bbox-Seg" of Papandreou et al. 2015 ("Weakly- and Semi-Supervised Learning of a Deep
Convolutional Network for Semantic Image Segmentation", on bounding boxes), with rounds
added.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import OptionError, TrainingError
from napari_sparseseg.inputs.normalisation import window
from napari_sparseseg.learning.events import StepDone
from napari_sparseseg.learning.options import TrainingOptions
from napari_sparseseg.learning.trainer import Trainer
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
from napari_sparseseg.prediction.predictor import PredictOptions, iter_predict
from napari_sparseseg.pseudo_masks.label_map import merge_masks
from napari_sparseseg.pseudo_masks.refinement import refine_boxes
from napari_sparseseg.pseudo_masks.shapes import box_mask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from collections.abc import Generator as Events

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.pseudo_masks.box_image import BoxImage
    from napari_sparseseg.pseudo_masks.label_map import BoxMask
    from napari_sparseseg.pseudo_masks.refinement import Refinement

RecursiveMethod = Literal["sdi-box", "crf-box"]

#: Rounds of training and correcting, where none are named.
ROUNDS: dict[RecursiveMethod, int] = {"sdi-box": 3, "crf-box": 2}

#: Tiles are cut smaller until the prediction of one takes no longer, in seconds.
QUANTUM_S = 0.2


@dataclass(frozen=True, slots=True)
class RecursiveOptions:
    """How a network is trained in rounds.

    Attributes
    ----------
    rounds
        None = those of the method, `ROUNDS`.
    epochs
        Of each round; an epoch has as many mini-batches as the recipe of *training*
        says.
    least_share
        ``sdi-box``: where less of a box than this share is predicted as its class, the
        whole box is taken instead (its IoU with the box is below).
    centre
        ``crf-box``: share of the box's area, around its centre, that is surely
        foreground.
    margin
        Share of the box's height and width that the CRF sees around it as background.
    training
        Network, recipe, working resolution, seed and device. By default classes
        are not balanced, so that what is above 0.5 is likelier than all else.

    Raises
    ------
    OptionError
        If a number is out of range.
    """

    rounds: int | None = None
    epochs: int = 8
    least_share: float = 0.5
    centre: float = 0.2
    margin: float = 0.2
    training: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(
            balancing="none", head_start=False, scale=0.5, micro_batch=2
        )
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, highest in (
            ("least_share", 1.0),
            ("centre", 1.0),
            ("margin", math.inf),
        ):
            self._check(name, 0 <= getattr(self, name) <= highest, "a share from 0")
        self._check("rounds", self.rounds is None or self.rounds >= 1, "at least 1")
        self._check("epochs", self.epochs >= 1, "at least 1")

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            value = getattr(self, name)
            raise OptionError(
                f"{name} of training in rounds is {value}; give {expected}.",
                **{name: value},
            )


@dataclass(frozen=True, slots=True)
class RoundStarted:
    """The network begins to learn the masks of now.

    Attributes
    ----------
    number
        Of the round, from 1.
    rounds, steps
        Rounds in all, and mini-batches in each.
    """

    number: int
    rounds: int
    steps: int


@dataclass(frozen=True, slots=True)
class RoundStepDone:
    """One mini-batch was learned: the *step*-th of its round, from 1."""

    number: int
    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class RoundPartDone:
    """A part of a step or of a prediction is done: time to look at something else."""

    number: int


RoundEvent = RoundStarted | RoundStepDone | RoundPartDone


def train_in_rounds(
    method: RecursiveMethod,
    images: Sequence[BoxImage],
    background: int,
    refinement: Refinement,
    options: RecursiveOptions,
    seconds: float | None = None,
) -> Events[RoundEvent, None, list[list[BoxMask]]]:
    """Train a network on masks, correct what it predicts in the boxes, and again.

    At first a mask is the whole box (``sdi-box``), or what a dense CRF makes of a box
    of which only the centre is known (``crf-box``). The network learns the label maps
    of these masks, with background outside of boxes and inside where all masks say so.
    Nothing is held out of them, and the weights at the end of a round predict: the
    probability of its class in each box is the next map. ``sdi-box``: where the network
    calls too little of a box its class, the map is 1 in the whole box. ``crf-box``: the
    map is 1 in the centre. A mask that comes out empty is not taken. From round to
    round the network goes on learning.

    Parameters
    ----------
    method
        ``"sdi-box"`` or ``"crf-box"``.
    images
        At least one box among them; images without boxes are background.
    background
        The class value of background; 0 = a value that no box has.
    refinement
        How maps become masks; *margin* of *options* is not looked at.
    options
        Rounds, epochs, network.
    seconds
        Longest time of learning in all, shared evenly by the rounds; a round has one
        mini-batch at least.

    Yields
    ------
    RoundEvent
        What happens.

    Returns
    -------
    list of list of BoxMask
        For each image, for each of its boxes.

    Raises
    ------
    TrainingError
        If boxes of one class leave no background, or the loss is no number.
    """
    rounds = options.rounds or ROUNDS[method]
    steps = options.epochs * options.training.recipe.epoch
    masks: list[list[BoxMask]] = []
    for image in images:
        masks.append([])
        for mask in _first_masks(method, image, refinement, options.centre):
            masks[-1].append(mask)
            yield RoundPartDone(0)
    classes = {box.class_value for image in images for box in image.boxes}
    background = background or _free_value(classes)
    table = ClassTable.from_values(sorted({*classes, background}))
    trainer: Trainer | None = None
    for number in range(1, rounds + 1):
        yield RoundStarted(number, rounds, steps)
        labelled = [
            _training_image(image, its_masks, background)
            for image, its_masks in zip(images, masks, strict=True)
        ]
        if trainer is None:
            trainer = _make_trainer(labelled, table, options.training)
        else:
            trainer.put(*labelled)
        limit = None if seconds is None else seconds / rounds
        yield from _learn(trainer, number, steps, limit)
        model = trainer.model()
        for place, image in enumerate(images):
            if image.boxes:
                masks[place] = yield from _predicted_masks(
                    method, model, number, image, masks[place], refinement, options
                )
    return masks


def _free_value(classes: Collection[int]) -> int:
    """Give the lowest class value that is not taken."""
    return next(value for value in count(1) if value not in classes)


def _first_masks(
    method: RecursiveMethod, image: BoxImage, refinement: Refinement, centre: float
) -> Iterator[BoxMask]:
    if method == "sdi-box":
        yield from map(box_mask, image.boxes)
        return
    maps = [
        np.where(central(box, centre), np.float32(1), np.float32(0.5))
        for box in image.boxes
    ]
    for mask in refine_boxes(image, image.boxes, maps, refinement):
        yield mask if mask.foreground.any() else box_mask(mask.box)


def central(box: Box, share: float) -> NDArray[np.bool_]:
    """Tell which pixels of a box lie in its central part.

    Parameters
    ----------
    box
        Not empty.
    share
        Of the area, in [0, 1].

    Returns
    -------
    ndarray
        (h, w) bool: a rectangle of the box's proportions, one pixel at least.
    """
    within = []
    for side in box.shape:
        from_centre = np.abs(2 * np.arange(side) + 1 - side) / side
        within.append(from_centre <= max(math.sqrt(share), from_centre.min()))
    rows, columns = within
    inside: NDArray[np.bool_] = rows[:, None] & columns
    return inside


def _training_image(
    image: BoxImage, masks: Sequence[BoxMask], background: int
) -> TrainingImage:
    merged = merge_masks(masks, image.shape, background, background_inside=True)
    return TrainingImage(image.name, image.pixels.transpose(1, 2, 0), merged.labels)


def _make_trainer(
    images: Sequence[TrainingImage], table: ClassTable, options: TrainingOptions
) -> Trainer:
    if len({int(value) for i in images for value in np.unique(i.labels)} - {0}) < 2:
        raise TrainingError(
            "the boxes, all of one class, leave no background in any image; draw them "
            "closer to the objects, add an image with more around its boxes, or take "
            "a method that does not train."
        )
    # Pixels are in [0, 1] already.
    data = TrainingSet(images, table, window(0.5, 1), options.seed, holds_out=False)
    return Trainer(data, options)


def _learn(
    trainer: Trainer, number: int, steps: int, seconds: float | None
) -> Iterator[RoundEvent]:
    started, before = time.perf_counter(), trainer.steps
    for event in trainer.run(steps):
        if not isinstance(event, StepDone):
            yield RoundPartDone(number)
            continue
        yield RoundStepDone(number, event.step - before, event.loss)
        if seconds is not None and time.perf_counter() - started >= seconds:
            return


def _predicted_masks(
    method: RecursiveMethod,
    model: SegmentationModel,
    number: int,
    image: BoxImage,
    before: Sequence[BoxMask],
    refinement: Refinement,
    options: RecursiveOptions,
) -> Events[RoundEvent, None, list[BoxMask]]:
    """Give the next mask of each box, or that of *before* where it would be empty."""
    maps = yield from _predicted(model, number, image)
    corrected = [
        _corrected(method, box, each, options)
        for box, each in zip(image.boxes, maps, strict=True)
    ]
    masks: list[BoxMask] = []
    for mask in refine_boxes(image, image.boxes, corrected, refinement):
        masks.append(mask if mask.foreground.any() else before[len(masks)])
        yield RoundPartDone(number)
    return masks


def _predicted(
    model: SegmentationModel, number: int, image: BoxImage
) -> Events[RoundEvent, None, list[NDArray[np.float32]]]:
    """Give the probability of the class of each box in its pixels, (h, w)."""
    y0, x0, y1, x1 = zip(*(box.edges for box in image.boxes), strict=True)
    options = PredictOptions(
        quantum_s=QUANTUM_S,
        probabilities=True,
        region=(min(y0), min(x0), max(y1), max(x1)),
    )
    values = model.info.classes.values
    found = np.zeros((len(values), *image.shape), np.float32)
    for tile in iter_predict(model, image.pixels.transpose(1, 2, 0), options):
        top, left, bottom, right = tile.region
        found[:, top:bottom, left:right] = tile.probabilities
        yield RoundPartDone(number)
    return [
        found[(values.index(box.class_value), *box.slices)].copy()
        for box in image.boxes
    ]


def _corrected(
    method: RecursiveMethod,
    box: Box,
    probability: NDArray[np.float32],
    options: RecursiveOptions,
) -> NDArray[np.float32]:
    """Correct the map (h, w) of a box by what the box alone tells."""
    if method == "crf-box":
        return np.where(central(box, options.centre), np.float32(1), probability)
    if np.count_nonzero(probability > 0.5) < options.least_share * box.area:
        return np.ones_like(probability)
    return probability
