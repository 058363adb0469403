"""Pseudo-masks that are made part by part, into files that the window reads."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sparseseg.annotations.boxes import boxes_from_json, fit_boxes
from napari_sparseseg.engine.mapped_files import read_mapped
from napari_sparseseg.engine.messages import (
    BoxMasked,
    BoxRefined,
    MasksDone,
    MasksProgress,
    MasksStarted,
)
from napari_sparseseg.errors import EngineError
from napari_sparseseg.learning.events import MemorySaved
from napari_sparseseg.pseudo_masks.api import notes_on_masks, prepare
from napari_sparseseg.pseudo_masks.box_image import BoxImage
from napari_sparseseg.pseudo_masks.crf import CrfOptions
from napari_sparseseg.pseudo_masks.method_names import IN_ROUNDS, TELLING_BACKGROUND
from napari_sparseseg.pseudo_masks.methods import (
    BoxDone,
    MiningDone,
    PseudoMaskOptions,
    iter_pseudo_masks,
    refine,
)
from napari_sparseseg.pseudo_masks.mining import MiningStarted, MiningStepDone
from napari_sparseseg.pseudo_masks.recursive import RoundStarted, RoundStepDone

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.engine.messages import Event, MakeMasks, RefineBox
    from napari_sparseseg.inputs.normalisation import Normalisation
    from napari_sparseseg.pseudo_masks.api import PseudoMaskWishes
    from napari_sparseseg.pseudo_masks.label_map import BoxMask
    from napari_sparseseg.pseudo_masks.method_names import Method
    from napari_sparseseg.pseudo_masks.methods import MinedNetwork, PseudoMaskEvent

#: What is in the file of a mask.
BACKGROUND, FOREGROUND, UNDECIDED = 0, 1, 2

#: Progress is told this often at most, in seconds.
PROGRESS_S = 0.2


@dataclass(frozen=True)
class Source:
    """What decides about localisation maps, as far as the user sets it.

    Attributes
    ----------
    options
        With the default CRF and background where these decide about masks alone: not
        of the methods in rounds, which learn what the CRF has made of the round before.
    window
        (centre, width), or None for percentiles.
    """

    options: PseudoMaskOptions
    window: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Learned:
    """A network that was mined, and what its images were normalised by."""

    source: Source
    network: MinedNetwork
    normalisation: Normalisation


@dataclass(frozen=True, eq=False)
class MadeBox:
    """What is kept of a box, so that its mask can be made anew.

    Attributes
    ----------
    source, pixels, box
        How and of what it was made: settings, file of the image, box in the image.
    crop
        The image around the box, as far as a refinement looks; its only box is this
        one.
    localization
        (h, w) float32.
    """

    source: Source
    pixels: str
    box: Box
    crop: BoxImage
    localization: NDArray[np.float32]

    def refined(self, options: PseudoMaskOptions) -> BoxMask:
        """Make the mask, whose box is that of the crop."""
        return refine(self.crop, self.crop.boxes[0], self.localization, options)


@dataclass(frozen=True, eq=False)
class Job:
    """A request that was found to be good.

    Attributes
    ----------
    images
        Those that have boxes, normalised.
    ids
        Those of the boxes of each image, by its name.
    pixels
        The file of each image, by its name.
    options, source, normalisation
        Of all images.
    notes
        On images and boxes that are not taken as they were given.
    folder
        For the results.
    """

    images: tuple[BoxImage, ...]
    ids: dict[str, list[int]]
    pixels: dict[str, str]
    options: PseudoMaskOptions
    source: Source
    normalisation: Normalisation
    notes: tuple[str, ...]
    folder: Path

    @property
    def n_boxes(self) -> int:
        """Of all images."""
        return sum(len(image.boxes) for image in self.images)


class MaskMaker:
    """Makes masks of one request at a time, and keeps what a redo or preview needs."""

    def __init__(self) -> None:
        self._parts: Iterator[Event | None] | None = None
        self._learned: Learned | None = None
        self._made: dict[tuple[str, int], MadeBox] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._parts is not None

    def start(self, request: MakeMasks) -> MasksStarted:
        """Begin with a request, which takes the place of one that is under way.

        Raises
        ------
        SparseSegError
            If images, boxes or settings cannot be used.
        """
        self.cancel()
        job = _job(request)
        events: Iterator[PseudoMaskEvent]
        kept = self._kept(job) if request.reuse else None
        if kept is not None:
            events = _made_anew(kept, job.options)
        elif request.reuse and self._learned and _knows(self._learned, job):
            job = _as_learned(job, self._learned)
            events = self._make(job, self._learned.network)
        else:
            events = self._make(job, None)
        self._parts = _told(events, job)
        return MasksStarted(boxes=job.n_boxes, notes=list(job.notes))

    def advance(self) -> Event | None:
        """Do the next part of what is under way; return what is to be told of it.

        Raises
        ------
        SparseSegError
            As :func:`~napari_sparseseg.pseudo_masks.methods.iter_pseudo_masks`; then
            the request is given up.
        """
        assert self._parts is not None
        try:
            event = next(self._parts)
        except BaseException:
            self.cancel()
            raise
        if isinstance(event, MasksDone):
            self.cancel()
        return event

    def cancel(self) -> None:
        """Give up what is under way; what was learned and made so far is kept."""
        self._parts = None

    def refine(self, request: RefineBox) -> BoxRefined:
        """Make the mask of a box anew from its localisation map.

        Raises
        ------
        EngineError
            If there is no such map.
        SparseSegError
            As :func:`~napari_sparseseg.pseudo_masks.methods.refine`.
        """
        made = self._made.get((request.name, request.id))
        if made is None:
            raise EngineError(
                f"there is no localisation map of this box of {request.name} yet; "
                "generate its mask first.",
                name=request.name,
                id=request.id,
            )
        options = replace(
            made.source.options,
            crf=request.crf,
            crf_options=CrfOptions(**asdict(request.crf_options)),
        )
        np.save(request.mask, in_codes(made.refined(options), options.method))
        return BoxRefined(
            generation=request.generation,
            name=request.name,
            id=request.id,
            mask=request.mask,
        )

    def forget(self, ids: Mapping[str, Collection[int]]) -> None:
        """Drop what is kept of boxes, by the name of their image, if there is any."""
        for name, of_image in ids.items():
            for id_ in of_image:
                self._made.pop((name, id_), None)

    def _kept(self, job: Job) -> list[tuple[str, int, MadeBox]] | None:
        """Return the name and place of every box with its map, None if one lacks."""
        found = []
        for image in job.images:
            for place, box in enumerate(image.boxes):
                made = self._made.get((image.name, job.ids[image.name][place]))
                wanted = job.source, job.pixels[image.name], box
                if made is None or (made.source, made.pixels, made.box) != wanted:
                    return None
                found.append((image.name, place, made))
        return found

    def _make(self, job: Job, mined: MinedNetwork | None) -> Iterator[PseudoMaskEvent]:
        """Make masks, and keep what was learned and made."""
        images = {image.name: image for image in job.images}
        for event in iter_pseudo_masks(job.images, job.options, mined):
            if isinstance(event, MiningDone):
                self._learned = Learned(job.source, event.mined, job.normalisation)
            elif isinstance(event, BoxDone):
                id_ = job.ids[event.name][event.place]
                self._made[event.name, id_] = MadeBox(
                    job.source,
                    job.pixels[event.name],
                    event.mask.box,
                    _crop(images[event.name], event.mask.box, job.options),
                    event.mask.localization,
                )
            yield event


def _made_anew(
    kept: Sequence[tuple[str, int, MadeBox]], options: PseudoMaskOptions
) -> Iterator[BoxDone]:
    """Make masks from the maps that are kept."""
    for name, place, made in kept:
        yield BoxDone(name, place, replace(made.refined(options), box=made.box))


class _Progress:
    """What is told of learning and masks, now and then."""

    def __init__(self, n_boxes: int) -> None:
        self._n_boxes = n_boxes
        self._n_made = 0
        self._n_steps = 0
        self._n_before = 0
        self._told_at = -math.inf

    def learning(
        self,
        event: MiningStarted | MiningStepDone | RoundStarted | RoundStepDone,
    ) -> MasksProgress | None:
        """Take in what happened; return what is to be told of it, if anything."""
        done = 0
        loss_a: float | None = None
        loss_b: float | None = None
        match event:
            case MiningStarted():
                self._n_steps = event.steps
            case RoundStarted():
                self._n_steps = event.rounds * event.steps
                self._n_before = (event.number - 1) * event.steps
            case MiningStepDone():
                done, loss_a, loss_b = event.step, event.loss_a, event.loss_b
            case RoundStepDone():
                done, loss_a = event.step, event.loss
        return self._when_due(
            MasksProgress(
                what="learning",
                done=self._n_before + done,
                total=self._n_steps,
                loss_a=loss_a,
                loss_b=loss_b,
            )
        )

    def mask(self) -> MasksProgress | None:
        """Count one more box; return what is to be told of it, if anything."""
        self._n_made += 1
        return self._when_due(
            MasksProgress(what="masks", done=self._n_made, total=self._n_boxes)
        )

    def _when_due(self, progress: MasksProgress) -> MasksProgress | None:
        now = time.monotonic()
        if progress.done < progress.total and now - self._told_at < PROGRESS_S:
            return None
        self._told_at = now
        return progress


def in_codes(mask: BoxMask, method: Method) -> NDArray[np.uint8]:
    """Give a mask as it is written, (h, w).

    Where a method says nothing of background, or has found nothing, what is not
    foreground is undecided.
    """
    codes = np.full(mask.box.shape, UNDECIDED, np.uint8)
    if method in TELLING_BACKGROUND and mask.foreground.any():
        codes[mask.background] = BACKGROUND
    codes[mask.foreground] = FOREGROUND
    return codes


def _told(events: Iterator[PseudoMaskEvent], job: Job) -> Iterator[Event | None]:
    """Write the masks; give what is to be told, None for a part without news."""
    started = time.perf_counter()
    progress = _Progress(job.n_boxes)
    notes = []
    n_made = n_empty = 0
    for event in events:
        match event:
            case BoxDone():
                yield _written(event, job, n_made)
                n_made += 1
                n_empty += not event.mask.foreground.any()
                yield progress.mask()
            case MiningStarted() | MiningStepDone() | RoundStarted() | RoundStepDone():
                if isinstance(event, MiningStarted) and event.note:
                    notes.append(event.note)
                yield progress.learning(event)
            case MemorySaved():
                notes.append(event.note)
                yield None
            case _:
                yield None
    notes += notes_on_masks(n_empty, n_made)
    yield MasksDone(boxes=n_made, seconds=time.perf_counter() - started, notes=notes)


def _written(event: BoxDone, job: Job, number: int) -> BoxMasked:
    """Write the mask and the map of a box to their files."""
    mask = str(job.folder / f"{number}-mask.npy")
    localization = str(job.folder / f"{number}-localization.npy")
    np.save(mask, in_codes(event.mask, job.options.method))
    np.save(localization, event.mask.localization)
    return BoxMasked(
        name=event.name,
        id=job.ids[event.name][event.place],
        box=event.mask.box.edges,
        mask=mask,
        localization=localization,
    )


def _job(request: MakeMasks) -> Job:
    settings = request.settings
    pixels = {image.name: image.pixels for image in request.images}
    if len(pixels) < len(request.images):
        raise EngineError(
            f"{len(request.images)} images are given by {len(pixels)} names; give each "
            "one of its own."
        )
    boxes = {
        image.name: boxes_from_json([drawn.box for drawn in image.boxes])
        for image in request.images
    }
    wishes: PseudoMaskWishes = {
        "method": settings.method,
        "crf": settings.crf,
        "crf_options": CrfOptions(**asdict(settings.crf_options)),
        "background": settings.background,
        "window": settings.window,
        "backbone": settings.backbone,
        "weights": settings.weights,
        "epochs": settings.epochs,
        "seconds": settings.seconds,
        "seed": settings.seed,
        "device": settings.device,
    }
    arrays = {name: read_mapped(path) for name, path in pixels.items()}
    preparation = prepare(arrays, boxes, **wishes)
    drawn_on = {image.name: image.boxes for image in request.images}
    ids = {
        image.name: [
            drawn_on[image.name][place].id
            for place in fit_boxes(boxes[image.name], image.shape).places
        ]
        for image in preparation.images
    }
    options = preparation.options
    return Job(
        preparation.images,
        ids,
        pixels,
        options,
        Source(_deciding(options), settings.window),
        preparation.normalisation,
        preparation.notes,
        Path(request.folder),
    )


def _deciding(options: PseudoMaskOptions) -> PseudoMaskOptions:
    """Give what decides about localisation maps; the rest as by default."""
    if options.method in IN_ROUNDS:
        return options
    return replace(options, crf=None, crf_options=CrfOptions(), background=0)


def _knows(learned: Learned, job: Job) -> bool:
    """Tell whether a network was mined with these settings, and knows all classes."""
    values = {box.class_value for image in job.images for box in image.boxes}
    return learned.source == job.source and values <= {*learned.network.class_values}


def _as_learned(job: Job, learned: Learned) -> Job:
    """Normalise the images of a job like those that a network was mined on."""
    images = [
        BoxImage(
            image.name,
            learned.normalisation.apply(read_mapped(job.pixels[image.name])).numpy(),
            image.boxes,
        )
        for image in job.images
    ]
    return replace(job, images=tuple(images), normalisation=learned.normalisation)


def _crop(image: BoxImage, box: Box, options: PseudoMaskOptions) -> BoxImage:
    """Cut out of an image what a refinement of the box looks at."""
    margin = options.refinement.margin
    rows, columns = (math.ceil(margin * side) for side in box.shape)
    y0, x0 = max(0, box.y0 - rows), max(0, box.x0 - columns)
    moved = replace(box, y0=box.y0 - y0, x0=box.x0 - x0, y1=box.y1 - y0, x1=box.x1 - x0)
    pixels = image.pixels[:, y0 : box.y1 + rows, x0 : box.x1 + columns]
    return BoxImage(image.name, pixels.copy(), (moved,))
