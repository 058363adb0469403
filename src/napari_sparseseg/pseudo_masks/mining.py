"""Region mining: a network learns from boxes alone where their objects are.

A training is a generator of events (Fan 2022, sections 2.2 and 2.3). Stop = stop
asking; the network is what it has become by then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from napari_sparseseg.errors import ImageError, LabelError, OptionError, TrainingError
from napari_sparseseg.learning.events import MemorySaved
from napari_sparseseg.networks.backbone import ResNetPyramid
from napari_sparseseg.networks.encoders import as_three_channels
from napari_sparseseg.networks.memory import is_out_of_memory
from napari_sparseseg.networks.network_names import BACKBONE_OF
from napari_sparseseg.networks.published_weights import fetch_in_parts
from napari_sparseseg.networks.region_classifier import RegionNetwork, pool_scores
from napari_sparseseg.pseudo_masks.anchors import nearest_negatives

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.networks.network_names import BackboneName, Preset
    from napari_sparseseg.pseudo_masks.box_image import BoxImage

#: ``"cam"``: classifier A alone; ``"acol"``: A and B.
MiningMethod = Literal["cam", "acol"]

#: To which gradients are shortened where training would not recover from longer ones.
LARGEST_GRADIENT = 5.0

#: Images of fewer pixels a side leave P5 too little to normalise over.
SMALLEST_SIDE = 64


@dataclass(frozen=True, slots=True)
class MiningOptions:
    """How a network mines; the defaults are those of Fan 2022, section 3.

    Attributes
    ----------
    method
        ``"acol"`` or ``"cam"``.
    backbone, weights
        See :func:`~napari_sparseseg.networks.encoders.build_encoder`.
    pyramid_channels
        Of each level of the pyramid.
    roi_size
        Side of a region's features; the paper gives none.
    negatives
        Most that are drawn for an image, anew each time it is seen.
    nearest
        Share of each level's anchors they are drawn from.
    erase_threshold
        In [0, 1]: what of A's normalised map is hidden from B.
    side
        Longest side, in pixels, to which images are shrunk.
    learning_rate, momentum, weight_decay
        Of SGD.
    batch
        Images in a mini-batch.
    epochs
        Passes over the images.
    least_steps
        Fewest mini-batches: of few images there are more epochs instead.
    gradient_norm
        To which longer gradients are shortened; None, as in the paper = they are taken
        as they are. From random weights, which the paper does not start from, a ResNet
        as deep as ``"resnet50"`` then does not recover from the first ones.
    seed
        Of every random draw.
    device
        A torch device. On a CPU the seed decides the result to the last bit.
    micro_batch
        Images that go through the network at once, with a :class:`MiningPartDone` in
        between; None = the whole mini-batch. Gradients are added up, but each part has
        its own statistics in batch normalisation. Where memory does not suffice, fewer
        do.

    Raises
    ------
    OptionError
        If a value is outside of its range.
    """

    method: MiningMethod = "acol"
    backbone: BackboneName = "resnet50"
    weights: str | Path = "none"
    pyramid_channels: int = 256
    roi_size: int = 14
    negatives: int = 256
    nearest: float = 0.1
    erase_threshold: float = 0.6
    side: int = 512
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 8
    epochs: int = 50
    least_steps: int = 1
    gradient_norm: float | None = None
    seed: int = 0
    device: str = "cpu"
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.method not in get_args(MiningMethod):
            raise OptionError(
                f"the method of mining is named {self.method!r}; expected one of "
                f"{', '.join(get_args(MiningMethod))}.",
                method=self.method,
            )
        for name in (
            "pyramid_channels",
            "roi_size",
            "negatives",
            "side",
            "batch",
            "epochs",
            "least_steps",
        ):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        at_once, norm = self.micro_batch, self.gradient_norm
        self._check("micro_batch", at_once is None or at_once >= 1, "at least 1")
        self._check("gradient_norm", norm is None or norm > 0, "a number above 0")
        shown, drawn = self.erase_threshold, self.nearest
        self._check("erase_threshold", 0 <= shown <= 1, "at least 0 and at most 1")
        self._check("nearest", 0 < drawn <= 1, "a share above 0 and at most 1")

    def _check(self, name: str, is_good: bool, expected: str) -> None:
        if not is_good:
            value = getattr(self, name)
            raise OptionError(
                f"{name} of region mining is {value}; expected {expected}.",
                **{name: value},
            )


#: ``paper`` is that of Fan 2022; ``light`` is one for a CPU.
MINING_PRESETS: dict[Preset, MiningOptions] = {
    "paper": MiningOptions(),
    "light": MiningOptions(
        backbone=BACKBONE_OF["light"],
        pyramid_channels=64,
        side=256,
        negatives=32,
        # Half the epochs, of batches half as large: about as many steps in half the
        # time. Of few images there are as many as in the paper's epochs.
        batch=4,
        epochs=25,
        least_steps=50,
        gradient_norm=LARGEST_GRADIENT,
        micro_batch=2,
    ),
}


@dataclass(frozen=True, eq=False)
class MiningImage:
    """An image and the boxes drawn on it, at the size it is trained at.

    Attributes
    ----------
    pixels
        (C, H, W) float in [0, 1]; C is 1 or 3, H and W are at least 64.
    boxes
        (n, 4) float as (x0, y0, x1, y1) in pixels of this size, inside the image; the
        first pixel reaches from 0 to 1.
    channels
        (n,) int64: the class of each box, from 0.

    Raises
    ------
    ImageError, LabelError
        If a tensor is otherwise, or a box is empty.
    """

    pixels: Tensor
    boxes: Tensor
    channels: Tensor

    def __post_init__(self) -> None:
        """Check the shapes, and that boxes lie in the image."""
        shape = tuple(self.pixels.shape)
        if len(shape) != 3 or min(shape[1:]) < SMALLEST_SIDE:
            raise ImageError(
                f"the image with boxes has shape {shape}; expected (channels, height, "
                f"width) and at least {SMALLEST_SIDE} pixels a side: resample it.",
                shape=shape,
            )
        as_three_channels(self.pixels)  # refuses what a ResNet cannot take
        count = len(self.channels)
        if self.boxes.shape != (count, 4) or self.channels.shape != (count,):
            raise LabelError(
                f"the boxes have shape {tuple(self.boxes.shape)} and their classes "
                f"{tuple(self.channels.shape)}; expected (n, 4) and (n,).",
                boxes=tuple(self.boxes.shape),
                channels=tuple(self.channels.shape),
            )
        x0, y0, x1, y1 = self.boxes.unbind(dim=1)
        inside = (x0 >= 0) & (y0 >= 0) & (x1 <= shape[2]) & (y1 <= shape[1])
        wrong = (~(inside & (x0 < x1) & (y0 < y1))).nonzero()[:, 0]
        if len(wrong):
            box = tuple(self.boxes[wrong[0]].tolist())
            raise LabelError(
                f"the box (x0, y0, x1, y1) = {box} is empty or leaves its image of "
                f"{shape[1]} x {shape[2]} pixels; clip it, or leave it out.",
                box=box,
                shape=shape,
            )

    @classmethod
    def from_boxes(
        cls,
        pixels: Tensor,
        boxes: Sequence[Box],
        class_values: Sequence[int],
        image_shape: Sequence[int],
    ) -> MiningImage:
        """Take boxes in pixels of the image as it was before it was resampled.

        Parameters
        ----------
        pixels
            (C, H, W), resampled.
        boxes
            Inside the image and not empty, in pixels of the image as it was.
        class_values
            Those that have channels; the channel of a class is its place here.
        image_shape
            (y, x) of the image as it was.

        Raises
        ------
        LabelError
            If a box has another class than these.
        """
        unknown = sorted({box.class_value for box in boxes} - {*class_values})
        if unknown:
            raise LabelError(
                f"boxes have the class values {unknown}; expected some of "
                f"{list(class_values)}.",
                class_values=unknown,
            )
        scale_y, scale_x = (
            new / old for new, old in zip(pixels.shape[1:], image_shape, strict=True)
        )
        edges = torch.tensor(
            [(box.x0, box.y0, box.x1, box.y1) for box in boxes], dtype=torch.float64
        ).reshape(-1, 4)
        scales = torch.tensor([scale_x, scale_y, scale_x, scale_y], dtype=torch.float64)
        places = [class_values.index(box.class_value) for box in boxes]
        return cls(
            pixels, (edges * scales).float(), torch.tensor(places, dtype=torch.int64)
        )


def mining_image(
    image: BoxImage, class_values: Sequence[int], side: int
) -> MiningImage:
    """Bring an image and its boxes to the size at which they are learned.

    Parameters
    ----------
    image
        Of one or three channels.
    class_values
        Those that have channels, see :meth:`MiningImage.from_boxes`.
    side
        Longest side to which it is shrunk; a smaller image stays as it is, but for
        sides of less than ``SMALLEST_SIDE``, which are enlarged to it.

    Raises
    ------
    ImageError
        If the image has another number of channels.
    LabelError
        If a box has another class than these.
    """
    scale = min(1.0, side / max(image.shape))
    shape = [max(SMALLEST_SIDE, round(scale * length)) for length in image.shape]
    # A copy, since torch warns of arrays that cannot be written.
    pixels = torch.from_numpy(image.pixels.copy())[None]
    if shape != [*image.shape]:
        pixels = F.interpolate(
            pixels, shape, mode="bilinear", align_corners=False, antialias=True
        )
    return MiningImage.from_boxes(pixels[0], image.boxes, class_values, image.shape)


@dataclass(frozen=True, slots=True)
class MiningStarted:
    """What will be learned.

    Attributes
    ----------
    images, boxes
        Images that have boxes, and their boxes.
    skipped
        Images without a box.
    crowded
        Images whose boxes leave no room for negatives: only their boxes are learned.
    steps
        Mini-batches until the end.
    """

    images: int
    boxes: int
    skipped: int
    crowded: int
    steps: int

    @property
    def note(self) -> str:
        """A sentence on crowded images, empty where there are none."""
        if not self.crowded:
            return ""
        return (
            f"the boxes of {self.crowded} image(s) leave no room for examples of "
            "background; of these only the boxes are learned"
        )


@dataclass(frozen=True, slots=True)
class MiningStepDone:
    """One mini-batch was learned.

    Attributes
    ----------
    step
        Mini-batches so far.
    epoch
        Of this one, from 1.
    loss_a, loss_b
        Of classifiers A and B; None where there is only A.
    """

    step: int
    epoch: int
    loss_a: float
    loss_b: float | None


@dataclass(frozen=True, slots=True)
class MiningPartDone:
    """A part of a step or of a download is done: time to look at something else."""

    step: int


MiningEvent = MiningStarted | MiningStepDone | MiningPartDone | MemorySaved


class RegionMining:
    """Trains a region network on boxes, and on anchors near them as background.

    Images without boxes are skipped. Where the boxes of an image leave no room for a
    negative, its boxes alone are learned. Where they do so in all images, the classes
    of the boxes are told from each other; with a single class nothing can be learned.

    Parameters
    ----------
    images
        With their boxes; they may differ in size, and may have one or three channels.
    n_classes
        C, the classes that boxes may have.
    options
        Network, negatives, optimiser.

    Raises
    ------
    TrainingError
        If there is no box, or no negative and no second class.
    LabelError
        If a box has a class outside of [0, C).
    """

    def __init__(
        self,
        images: Sequence[MiningImage],
        n_classes: int,
        options: MiningOptions | None = None,
    ) -> None:
        self.options = options or MiningOptions()
        self.steps = 0
        self._images = [image for image in images if len(image.boxes)]
        self._skipped = len(images) - len(self._images)
        if not self._images:
            raise TrainingError(
                f"there is no box on any of the {len(images)} images; draw at least "
                "one around an object."
            )
        self._negatives = [
            nearest_negatives(height, width, image.boxes, self.options.nearest)
            for image in self._images
            for height, width in [image.pixels.shape[1:]]
        ]
        self._check_classes(n_classes)
        self._n_classes = n_classes
        self._part_size = self.options.micro_batch or self.options.batch
        self._generator = Generator().manual_seed(self.options.seed)

    def _check_classes(self, n_classes: int) -> None:
        present = {
            channel for image in self._images for channel in image.channels.tolist()
        }
        if not present <= {*range(n_classes)}:
            raise LabelError(
                f"boxes have the channels {sorted(present)}, but there are "
                f"{n_classes} classes, whose channels are from 0.",
                channels=sorted(present),
                n_classes=n_classes,
            )
        if len(present) == 1 and not any(len(each) for each in self._negatives):
            raise TrainingError(
                "the boxes, all of one class, leave no room for examples of "
                "background in any image; draw them closer to the objects, add an "
                "image with more around its boxes, or take a method that does not "
                "train."
            )

    @cached_property
    def network(self) -> RegionNetwork:
        """What is learned so far.

        Raises
        ------
        OptionError, ModelFileError, OutputError
            If the backbone is not known or its weights cannot be had.
        """
        # Weights are drawn by torch's global generator, which is the user's.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed)
            return build_region_network(self._n_classes, self.options)

    @cached_property
    def _optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            self.network.parameters(),
            self.options.learning_rate,
            momentum=self.options.momentum,
            weight_decay=self.options.weight_decay,
        )

    def run(self) -> Iterator[MiningEvent]:
        """Learn until all epochs are over, or nobody asks any more.

        Yields
        ------
        MiningEvent
            While weights are downloaded a :class:`MiningPartDone` some times a second;
            a :class:`MiningStarted`; then at least one event a step.

        Raises
        ------
        TrainingError
            If the loss is no number.
        OptionError, ModelFileError, OutputError
            If the backbone is not known or its weights cannot be had.
        """
        for _ in fetch_in_parts(self.options.backbone, self.options.weights):
            yield MiningPartDone(self.steps)
        batch = self.options.batch
        steps_per_epoch = math.ceil(len(self._images) / batch)
        epochs = max(
            self.options.epochs, math.ceil(self.options.least_steps / steps_per_epoch)
        )
        yield MiningStarted(
            images=len(self._images),
            boxes=sum(len(image.boxes) for image in self._images),
            skipped=self._skipped,
            crowded=sum(not len(each) for each in self._negatives),
            steps=epochs * steps_per_epoch,
        )
        for epoch in range(1, epochs + 1):
            order = torch.randperm(len(self._images), generator=self._generator)
            for chosen in order.split(batch):
                yield from self._step(epoch, chosen.tolist())

    def _step(self, epoch: int, chosen: Sequence[int]) -> Iterator[MiningEvent]:
        """Learn one mini-batch: the images of those numbers."""
        regions = [self._draw_regions(number) for number in chosen]
        losses: Tensor | None = None
        while losses is None:
            at_once = min(self._part_size, len(chosen))
            try:
                losses = yield from self._gather(chosen, regions)
            except (RuntimeError, MemoryError) as error:
                if at_once == 1 or not is_out_of_memory(error):
                    raise
            if losses is None:
                torch.cuda.empty_cache()
                self._part_size = at_once // 2
                yield MemorySaved(self.steps, self._part_size)
        if not losses.isfinite().all():
            raise TrainingError(
                f"the loss of region mining is no number at step {self.steps + 1} with "
                f"the learning rate {self.options.learning_rate:g}; take a lower one, "
                "and check the images for values outside of [0, 1]."
            )
        if self.options.gradient_norm is not None:
            clip_grad_norm_(self.network.parameters(), self.options.gradient_norm)
        self._optimiser.step()
        self.steps += 1
        loss_a, loss_b = losses.tolist()
        yield MiningStepDone(
            self.steps, epoch, loss_a, None if self.network.b is None else loss_b
        )

    def _gather(
        self, chosen: Sequence[int], regions: Sequence[tuple[Tensor, Tensor]]
    ) -> Parts[MiningPartDone, None, Tensor]:
        """Add up the gradients of a mini-batch, a part of it at once.

        Parameters
        ----------
        chosen
            Numbers of its images.
        regions
            Of each image, see :meth:`_draw_regions`.

        Returns
        -------
        Tensor
            (2,): the losses of A and B, 0 where there is no B.
        """
        device = self.options.device
        weights = balance([each for _, each in regions], self.network.n_classes)
        losses = torch.zeros(2)
        self.network.train()
        self._optimiser.zero_grad()
        for start in range(0, len(chosen), self._part_size):
            if start:
                yield MiningPartDone(self.steps)
            part = slice(start, start + self._part_size)
            images = [self._images[number].pixels for number in chosen[part]]
            channels = torch.cat([each for _, each in regions[part]]).to(device)
            weight = torch.cat(weights[part]).to(device)
            maps = self.network(
                stack_images(images).to(device),
                [boxes.to(device) for boxes, _ in regions[part]],
                channels,
            )
            shares = torch.stack(
                [
                    weight @ F.cross_entropy(pool_scores(m), channels, reduction="none")
                    for m in maps
                    if m is not None
                ]
            )
            shares.sum().backward()
            losses[: len(shares)] += shares.detach().cpu()
        return losses

    def _draw_regions(self, number: int) -> tuple[Tensor, Tensor]:
        """Give the boxes of an image and some of its negatives, and their channels."""
        image, negatives = self._images[number], self._negatives[number]
        draw = torch.randperm(len(negatives), generator=self._generator)
        drawn = negatives[draw[: self.options.negatives]]
        background = torch.full((len(drawn),), self.network.n_classes)
        return torch.cat([image.boxes, drawn]), torch.cat([image.channels, background])


def build_region_network(n_classes: int, options: MiningOptions) -> RegionNetwork:
    """Build a region network on its device; torch's global generator draws weights.

    Raises
    ------
    OptionError, ModelFileError
        If the backbone is not known or its weights cannot be loaded.
    """
    pyramid = ResNetPyramid(options.backbone, options.pyramid_channels, options.weights)
    network = RegionNetwork(
        pyramid,
        n_classes,
        roi_size=options.roi_size,
        complementary=options.method == "acol",
        erase_threshold=options.erase_threshold,
    )
    return network.to(memory_format=torch.channels_last).to(options.device)


def balance(channels: Sequence[Tensor], background: int) -> list[Tensor]:
    """Weigh regions so that their sum is a mean over boxes plus one over negatives.

    Fan 2022 says nothing of how the few boxes stand against 256 negatives.

    Parameters
    ----------
    channels
        For each image of a mini-batch (n_i,) int64.
    background
        The channel of negatives.

    Returns
    -------
    list of Tensor
        (n_i,) float: 1 / number of boxes, or 1 / number of negatives, both in the whole
        mini-batch.
    """
    is_negative = [each == background for each in channels]
    n_negatives = sum(int(each.sum()) for each in is_negative)
    n_boxes = sum(len(each) for each in channels) - n_negatives
    return [
        torch.where(each, 1 / max(1, n_negatives), 1 / max(1, n_boxes))
        for each in is_negative
    ]


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Join images (1 or 3, H, W) to (B, 3, H, W), with 0 below and right of smaller."""
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    return torch.stack(
        [
            F.pad(
                as_three_channels(image),
                (0, width - image.shape[2], 0, height - image.shape[1]),
            )
            for image in images
        ]
    ).contiguous(memory_format=torch.channels_last)
