"""Make pseudo-masks from boxes: the headless face, in the words of the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import torch

from napari_sparseseg.annotations.boxes import Box, check_box_classes, fit_boxes
from napari_sparseseg.annotations.strokes import MAX_CLASS_VALUE
from napari_sparseseg.api import (
    MOST_SEEDS,
    check_names,
    check_whole,
    choose_device,
    named,
)
from napari_sparseseg.errors import LabelError, OptionError, shortened
from napari_sparseseg.inputs.normalisation import fit_normalisation, window_of
from napari_sparseseg.io.images import check_pixels
from napari_sparseseg.io.model_file import versions
from napari_sparseseg.learning.events import MemorySaved
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.networks.network_names import BACKBONE_OF, preset_on
from napari_sparseseg.networks.published_weights import origin_of
from napari_sparseseg.pseudo_masks.box_image import BoxImage
from napari_sparseseg.pseudo_masks.crf import CrfOptions, chosen_backend
from napari_sparseseg.pseudo_masks.label_map import PseudoMask
from napari_sparseseg.pseudo_masks.method_names import IN_ROUNDS, MINING
from napari_sparseseg.pseudo_masks.methods import (
    BoxDone,
    ImageDone,
    PseudoMaskOptions,
    iter_pseudo_masks,
)
from napari_sparseseg.pseudo_masks.mining import (
    LARGEST_GRADIENT,
    MINING_PRESETS,
    MiningStarted,
    MiningStepDone,
)
from napari_sparseseg.pseudo_masks.recursive import RecursiveOptions, RoundStepDone

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.api import Images
    from napari_sparseseg.inputs.normalisation import Normalisation
    from napari_sparseseg.networks.network_names import BackboneName
    from napari_sparseseg.pseudo_masks.crf import CrfBackend
    from napari_sparseseg.pseudo_masks.method_names import Method
    from napari_sparseseg.pseudo_masks.methods import PseudoMaskEvent
    from napari_sparseseg.pseudo_masks.mining import MiningOptions
    from napari_sparseseg.pseudo_masks.refinement import Refinement

    Boxes = Sequence[Box] | Sequence[Sequence[Box]] | Mapping[str, Sequence[Box]]

MOST_EPOCHS = 2**31

#: The backbone brings the other numbers of region mining with it.
PRESET_OF = {backbone: preset for preset, backbone in BACKBONE_OF.items()}


class PseudoMaskWishes(TypedDict, total=False):
    """What pseudo-masks can be asked for; every entry may be left out.

    Attributes
    ----------
    method
        ``"box"``, ``"ellipse"``, ``"grabcut"``, ``"sdi-box"``, ``"crf-box"``, ``"cam"``
        or ``"acol"``, the default.
    crf
        Whether a dense CRF refines the maps. Default: that of the method.
    crf_options, crf_backend
        Of the dense CRF: see :func:`~napari_sparseseg.pseudo_masks.crf.dense_crf`.
    classes
        Class table; boxes of other classes are refused. Default: any class will do.
    background
        The class of all pixels outside of boxes, by value or name; 0 = they are
        ignored. Default: the first class of the table, 0 where there is no table or
        this class has boxes.
    window
        (centre, width) of the intensities, as for CT in HU. Default: percentiles of
        grey images, the range of 8-bit colours.
    backbone
        Of ``cam`` and ``acol``: ``"resnet50"`` with the numbers of Fan 2022, or
        ``"resnet18"`` with fewer channels, regions and negatives, for a CPU. Default:
        ``resnet18`` on a CPU, else ``resnet50``.
    weights
        Of the backbone: ``"imagenet"``, a file, or ``"none"``, the default: random;
        then gradients are shortened, without which ``resnet50`` would not learn.
    epochs
        Passes over the images, of ``cam`` and ``acol``; of ``sdi-box`` and ``crf-box``
        epochs of 25 mini-batches in each round. Default: those of the method.
    seconds
        Longest time of training, which cannot promise the same masks twice.
    seed
        Of every random draw. Default 0.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    """

    method: Method
    crf: bool | None
    crf_options: CrfOptions | None
    crf_backend: CrfBackend
    classes: ClassTable | None
    background: int | str | None
    window: tuple[float, float] | None
    backbone: BackboneName | None
    weights: str | Path
    epochs: int | None
    seconds: float | None
    seed: int
    device: str


@dataclasses.dataclass(frozen=True, eq=False)
class PseudoMasks:
    """The pseudo-masks of some images, and how they were made.

    Attributes
    ----------
    masks
        Label map and localisation map by the name of the image; images without a box
        have none, and in volumes planes without a box are 0.
    record
        Method, options, seed, weights, versions: JSON values only.
    notes
        Sentences on boxes and images that were not taken as they were given.
    """

    masks: dict[str, PseudoMask]
    record: dict[str, Any]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Which of the given arrays an image is, or is a plane of.

    Attributes
    ----------
    name
        Of the array.
    plane
        The index of the plane on each axis before y and x; () where the image is all
        of the array.
    grid
        The lengths of these axes.
    """

    name: str
    plane: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """The name of the image."""
        if not self.plane:
            return self.name
        return f"{self.name}, plane {', '.join(map(str, self.plane))}"


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """Images, boxes and wishes, checked and ready for :func:`run`.

    Attributes
    ----------
    images
        Those that have boxes, normalised; of volumes, the planes that have boxes.
    origins
        Of each image.
    options
        How masks are made.
    normalisation
        Of all images.
    notes
        As of :class:`PseudoMasks`.
    """

    images: tuple[BoxImage, ...]
    origins: tuple[Origin, ...]
    options: PseudoMaskOptions
    normalisation: Normalisation
    notes: tuple[str, ...]


def make_pseudo_masks(
    images: Images, boxes: Boxes, **wishes: Unpack[PseudoMaskWishes]
) -> PseudoMasks:
    """Make label maps from boxes drawn around objects.

    Inside a box pixels that are not taken for its object are ignored (0), or background
    where ``grabcut``, ``sdi-box`` and ``crf-box`` say so; where boxes overlap the
    smallest counts; outside of all boxes is background. See
    :func:`~napari_sparseseg.pseudo_masks.label_map.merge_masks`.

    Parameters
    ----------
    images
        (y, x) or (y, x, 3) arrays of any numeric type, or volumes with axes before
        these: one, several, or by name.
    boxes
        For each image, in the same order or by the same names, its boxes; of a single
        array just its boxes. They are clipped to the image; empty ones and repetitions
        are skipped. Those of a volume have a plane, and each plane that has boxes is
        an image of its own.
    **wishes
        See :class:`PseudoMaskWishes`.

    Returns
    -------
    PseudoMasks
        Label map and localisation map, (y, x), or of a volume (z, y, x), of each image
        that has a box.

    Raises
    ------
    SparseSegError
        If images, boxes or options cannot be used, or nothing can be learned from
        them; the message says why.
    """
    return finish(iter_make_pseudo_masks(images, boxes, **wishes))


def iter_make_pseudo_masks(
    images: Images, boxes: Boxes, **wishes: Unpack[PseudoMaskWishes]
) -> Generator[PseudoMaskEvent, None, PseudoMasks]:
    """Make them like :func:`make_pseudo_masks`, telling what happens.

    Returns
    -------
    Generator
        Of events; its return value is that of :func:`make_pseudo_masks`. To stop,
        close it.
    """
    return run(prepare(images, boxes, **wishes))


def run(preparation: Preparation) -> Generator[PseudoMaskEvent, None, PseudoMasks]:
    """Make the masks of what was prepared."""
    masks: list[PseudoMask] = []
    notes = list(preparation.notes)
    steps = n_empty = 0
    for event in iter_pseudo_masks(preparation.images, preparation.options):
        if isinstance(event, BoxDone):
            n_empty += not event.mask.foreground.any()
        elif isinstance(event, ImageDone):
            masks.append(event.result)
        elif isinstance(event, MiningStepDone | RoundStepDone):
            steps += 1
        elif isinstance(event, MiningStarted | MemorySaved) and event.note:
            notes.append(event.note)
        yield event
    n_boxes = sum(len(image.boxes) for image in preparation.images)
    notes += notes_on_masks(n_empty, n_boxes)
    joined = _joined(preparation.origins, masks)
    return PseudoMasks(joined, _record(preparation, steps), tuple(notes))


def notes_on_masks(n_empty: int, n_boxes: int) -> list[str]:
    """Say how many of the masks of all boxes came out empty, if any did."""
    if not n_empty:
        return []
    return [
        f"in {n_empty} of {n_boxes} boxes nothing was found, and all of such a box is "
        "ignored; take another method for them"
    ]


def _joined(
    origins: Sequence[Origin], masks: Sequence[PseudoMask]
) -> dict[str, PseudoMask]:
    """Give the masks of images by name, with those of planes in their volumes."""
    by_name: dict[str, list[tuple[Origin, PseudoMask]]] = {}
    for origin, mask in zip(origins, masks, strict=True):
        by_name.setdefault(origin.name, []).append((origin, mask))
    joined = {}
    for name, planes in by_name.items():
        origin, mask = planes[0]
        joined[name] = _volume(planes) if origin.plane else mask
    return joined


def _volume(planes: Sequence[tuple[Origin, PseudoMask]]) -> PseudoMask:
    """Put planes together, 0 where there is none."""
    origin, mask = planes[0]
    shape = *origin.grid, *mask.labels.shape
    dtype = np.result_type(*(mask.labels for _, mask in planes))
    volume = PseudoMask(np.zeros(shape, dtype), np.zeros(shape, np.float32))
    for origin, mask in planes:
        volume.labels[origin.plane] = mask.labels
        volume.localization[origin.plane] = mask.localization
    return volume


def prepare(
    images: Images, boxes: Boxes, **wishes: Unpack[PseudoMaskWishes]
) -> Preparation:
    """Check images, boxes and wishes; parameters as of :func:`make_pseudo_masks`.

    Raises
    ------
    SparseSegError
        If they cannot be used; the message says why.
    """
    pixels_of, boxes_of = named(images), _named_boxes(images, boxes)
    if pixels_of.keys() != boxes_of.keys():
        raise LabelError(
            f"{len(pixels_of)} image(s) and boxes of {len(boxes_of)} are given, but "
            "each image needs boxes of the same name or place; give an empty list "
            "where there are none.",
            images=sorted(pixels_of),
            boxes=sorted(boxes_of),
        )
    check_names(wishes, PseudoMaskWishes, "pseudo-masks")
    table = wishes.get("classes")
    notes: list[str] = []
    boxed: dict[str, tuple[Box, ...]] = {}
    planes: list[tuple[Origin, NDArray[Any], tuple[Box, ...]]] = []
    for name, pixels in pixels_of.items():
        n_axes = _axes_of_planes(pixels, boxes_of[name])
        if not n_axes:
            pixels = check_pixels(pixels, name)
        shape = pixels.shape[: n_axes + 2]
        boxed[name] = _fitted(name, boxes_of[name], shape, table, notes)
        planes += _planes(name, pixels, shape[:n_axes], boxed[name])
    _check_some_box(boxed, notes)
    drawn = {box.class_value for each in boxed.values() for box in each}
    background = _background(wishes.get("background"), table, drawn, notes)
    hu = wishes.get("window")
    normalisation = (
        fit_normalisation([pixels for _, pixels, _ in planes])
        if hu is None
        else window_of(hu)
    )
    return Preparation(
        tuple(
            BoxImage(origin.title, normalisation.apply(pixels).numpy(), its_boxes)
            for origin, pixels, its_boxes in planes
        ),
        tuple(origin for origin, _, _ in planes),
        _options(wishes, background),
        normalisation,
        tuple(notes),
    )


def _named_boxes(images: Images, boxes: Boxes) -> dict[str, Sequence[Box]]:
    """Give the boxes of each image by its name."""
    if isinstance(boxes, Mapping):
        return _listed(boxes)
    if isinstance(images, Mapping):
        raise LabelError(
            "the images have names, but the boxes are a list; give them by the names "
            "of the images.",
            images=sorted(images),
        )
    if isinstance(boxes, Box):
        return _listed({"image 1": boxes})
    given: list[Any] = list(boxes)
    if isinstance(images, np.ndarray) and all(isinstance(each, Box) for each in given):
        given = [given]
    return _listed({f"image {i}": each for i, each in enumerate(given, 1)})


def _listed(boxes_of: Mapping[str, Any]) -> dict[str, Sequence[Box]]:
    """Give the boxes of each image as a list, or raise LabelError."""
    listed: dict[str, Sequence[Box]] = {}
    for name, boxes in boxes_of.items():
        listed[name] = list(boxes) if isinstance(boxes, Iterable) else [boxes]
        if isinstance(boxes, Box) or not all(isinstance(b, Box) for b in listed[name]):
            raise LabelError(
                f"the boxes of {name} are {shortened(boxes)}; give a list of "
                "Box(y0, x0, y1, x1, class_value) for each image.",
                name=name,
            )
    return listed


def _axes_of_planes(pixels: NDArray[Any], boxes: Sequence[Box]) -> int:
    """Give the number of axes before y and x that boxes say an array has."""
    n_axes = max((len(box.plane) for box in boxes), default=0)
    return n_axes if pixels.ndim >= n_axes + 2 else 0


def _planes(
    name: str, pixels: NDArray[Any], grid: tuple[int, ...], boxes: Sequence[Box]
) -> Iterator[tuple[Origin, NDArray[Any], tuple[Box, ...]]]:
    """Give each plane of an array that has boxes, and these."""
    for plane in sorted({box.plane for box in boxes}):
        origin = Origin(name, plane, grid)
        image = check_pixels(pixels[plane], origin.title) if plane else pixels
        yield origin, image, tuple(box for box in boxes if box.plane == plane)


def _fitted(
    name: str,
    boxes: Sequence[Box],
    shape: Sequence[int],
    table: ClassTable | None,
    notes: list[str],
) -> tuple[Box, ...]:
    """Fit the boxes of an image to it, and note what became of the others."""
    try:
        fitted = fit_boxes(boxes, shape)
        if table is not None:
            check_box_classes(fitted.boxes, table)
    except LabelError as error:
        raise LabelError(f"{name}: {error}", name=name, **error.values) from error
    notes += [f"{name}: {note}" for note in fitted.notes]
    if not fitted.boxes:
        notes.append(f"{name}: no box, left out")
    return fitted.boxes


def _check_some_box(boxed: Mapping[str, Sequence[Box]], notes: Sequence[str]) -> None:
    if not any(boxed.values()):
        why = f" ({notes[0]})" if notes else ""
        raise LabelError(
            f"there is no box on any of the {len(boxed)} image(s){why}; draw at least "
            "one around an object."
        )


def _background(
    wish: int | str | None,
    table: ClassTable | None,
    drawn: Collection[int],
    notes: list[str],
) -> int:
    """Give the class value of what lies outside of all boxes, or 0."""
    if wish is not None:
        value = _class_value(wish, table)
        if value in drawn:
            raise OptionError(
                f"the background is the class {value}, but boxes of this class are "
                "drawn; name another class, or 0 to ignore all that lies outside of "
                "boxes.",
                background=value,
            )
        return value
    first = next(iter(table or ()), None)
    if first is not None and first.value not in drawn:
        return first.value
    why = (
        "there is no class table"
        if first is None
        else f"the first class, '{first.name}', has boxes"
    )
    notes.append(
        f"all that lies outside of boxes is ignored, since {why}; name the class that "
        "is background to have it learned"
    )
    return 0


def _class_value(wish: int | str, table: ClassTable | None) -> int:
    """Give the value of a class named by its name or value, or 0."""
    if isinstance(wish, str):
        if table is not None and (wish in table.names or not wish.isdecimal()):
            return table.by_name(wish).value
        if not wish.isdecimal():
            raise OptionError(
                f"the background is named {wish!r}, but there is no class table; give "
                "the table, or the value of the class.",
                background=wish,
            )
        wish = int(wish)
    if wish == 0:
        return 0
    if table is not None:
        return table.by_value(wish).value
    if not 1 <= wish <= MAX_CLASS_VALUE:
        raise OptionError(
            f"the background is {wish}; expected a class value from 1 to "
            f"{MAX_CLASS_VALUE}, or 0 to ignore all that lies outside of boxes.",
            background=wish,
        )
    return wish


def _options(wishes: PseudoMaskWishes, background: int) -> PseudoMaskOptions:
    seed, epochs = wishes.get("seed", 0), wishes.get("epochs")
    check_whole("the seed", seed, 0, MOST_SEEDS - 1)
    if epochs is not None:
        check_whole("the number of epochs", epochs, 1, MOST_EPOCHS)
    device = choose_device(wishes.get("device", "auto"))
    weights = origin_of(wishes.get("weights", "none"))
    mining = _mining(wishes.get("backbone"), weights, device)
    recursive = RecursiveOptions()
    if epochs is not None:
        mining = dataclasses.replace(mining, epochs=epochs, least_steps=1)
        recursive = dataclasses.replace(recursive, epochs=epochs)
    return PseudoMaskOptions(
        method=wishes.get("method", "acol"),
        crf=wishes.get("crf"),
        crf_options=wishes.get("crf_options") or CrfOptions(),
        crf_backend=wishes.get("crf_backend", "auto"),
        background=background,
        mining=mining,
        recursive=recursive,
        seconds=wishes.get("seconds"),
        seed=seed,
        device=device,
    )


def _mining(backbone: BackboneName | None, weights: str, device: str) -> MiningOptions:
    """Give the numbers of region mining that go with a backbone and its weights."""
    if backbone is None:
        backbone = BACKBONE_OF[preset_on(device)]
    if backbone not in PRESET_OF:
        raise OptionError(
            f"the backbone is named {backbone!r}; expected one of "
            f"{', '.join(PRESET_OF)}.",
            backbone=backbone,
        )
    mining = dataclasses.replace(MINING_PRESETS[PRESET_OF[backbone]], weights=weights)
    if weights == "none":  # the paper starts from ImageNet's
        mining = dataclasses.replace(mining, gradient_norm=LARGEST_GRADIENT)
    if device == "cpu" and mining.micro_batch is None:
        # A mini-batch takes minutes, in which nobody else would get a turn.
        mining = dataclasses.replace(mining, micro_batch=1)
    return mining


def _record_of_crf(refinement: Refinement) -> dict[str, Any]:
    if refinement.crf is None:
        return {"crf": None, "crf_backend": None}
    device = torch.device(refinement.device)
    return {
        "crf": dataclasses.asdict(refinement.crf),
        "crf_backend": chosen_backend(refinement.backend, device),
    }


def _record(preparation: Preparation, steps: int) -> dict[str, Any]:
    """Tell how masks were made, as JSON values."""
    options = preparation.options
    refinement = options.refinement
    numbers: dict[str, Any] = {}
    weights = None
    if options.method in MINING:
        numbers = dataclasses.asdict(options.mining)
        weights = str(numbers["weights"])
    elif options.method in IN_ROUNDS:
        numbers = dataclasses.asdict(options.recursive)
        weights = "none"
    elif options.method == "grabcut":
        numbers = dataclasses.asdict(options.grabcut)
    for of_all in ("method", "seed", "device", "weights"):
        numbers.pop(of_all, None)
        numbers.get("training", {}).pop(of_all, None)
    return {
        "method": options.method,
        **_record_of_crf(refinement),
        "options": numbers,
        # Weights from nowhere are drawn by the seed.
        "weights": "random" if weights == "none" else weights,
        "steps": steps,
        "seconds": options.seconds,
        "seed": options.seed,
        "device": options.device,
        "background": options.background,
        "normalisation": dataclasses.asdict(preparation.normalisation),
        "boxes": {image.name: len(image.boxes) for image in preparation.images},
        "versions": versions(),
    }
