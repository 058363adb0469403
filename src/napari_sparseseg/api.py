"""Learn from labels, predict, score: the headless face, the same words everywhere."""

from __future__ import annotations

import dataclasses
import inspect
import math
import time
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

import numpy as np
import torch

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.annotations.strokes import check_label_map
from napari_sparseseg.errors import (
    ImageError,
    LabelError,
    ModelFileError,
    OptionError,
    enumerated,
    one_of,
)
from napari_sparseseg.inputs.normalisation import (
    Normalisation,
    fit_normalisation,
    window_of,
)
from napari_sparseseg.io.images import check_pixels
from napari_sparseseg.io.model_file import (
    load_checkpoint,
    load_model,
    save_checkpoint,
    save_model,
)
from napari_sparseseg.io.onnx_file import export_onnx
from napari_sparseseg.learning.balancing import BALANCINGS, Balancing
from napari_sparseseg.learning.distributed import ALONE, Ranks
from napari_sparseseg.learning.events import StepDone
from napari_sparseseg.learning.feature_cache import (
    GIB,
    FeatureCacheOptions,
    FeatureCacheUse,
)
from napari_sparseseg.learning.losses import LOSSES
from napari_sparseseg.learning.metrics import cross_entropy, evaluate
from napari_sparseseg.learning.network_training import first_network
from napari_sparseseg.learning.options import (
    RECIPES,
    Recipe,
    RecipeName,
    TrainingOptions,
)
from napari_sparseseg.learning.trainer import DRAWN, Trainer
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
from napari_sparseseg.networks.encoders import EncoderWeights, encoder_of
from napari_sparseseg.networks.memory import is_out_of_memory
from napari_sparseseg.networks.network_names import (
    ENCODER_OF,
    HeadFeatures,
    preset_on,
)
from napari_sparseseg.networks.published_weights import (
    PUBLISHED,
    is_fetched,
    origin_of,
)
from napari_sparseseg.networks.registry import PRESETS, NetworkSpec, with_dropout
from napari_sparseseg.prediction.predictor import PredictOptions, predict_image
from napari_sparseseg.prediction.uncertainty import entropy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sparseseg.learning.augmentation import AugmentationOptions
    from napari_sparseseg.learning.events import TrainingEvent
    from napari_sparseseg.learning.loss_names import Loss
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.networks.network_names import NetworkName, Preset
    from napari_sparseseg.networks.published_weights import EncoderName

    Images = NDArray[Any] | Sequence[NDArray[Any]] | Mapping[str, NDArray[Any]]

__all__ = [
    "TrainingWishes",
    "cross_entropy_score",
    "entropy",
    "evaluate",
    "export_onnx",
    "iter_train",
    "load_model",
    "make_trainer",
    "predict",
    "save_model",
    "train",
]

#: Training time when neither steps nor seconds are given.
DEFAULT_SECONDS = 120.0

#: A checkpoint is written while training whenever this many seconds have passed.
CHECKPOINT_S = 60.0

#: No training patch has shorter sides, in working pixels.
SMALLEST_PATCH = 16

#: Seeds lie below this, as torch wants it.
MOST_SEEDS = 2**63


class TrainingWishes(TypedDict, total=False):
    """What a training can be asked for; every entry may be left out.

    Attributes
    ----------
    classes
        Class table. Default: "class 1", "class 2", ... for the values that occur.
    balance
        ``"none"``, ``"instance"`` or ``"mini-batch"`` (Bokhorst 2018, section 3).
        Default: mini-batch; instance as soon as there are dense images; none for the
        dice loss, in which every class counts the same anyway.
    net
        Network: ``"unet"`` (Bokhorst 2018), the default. Others have an encoder that
        may begin with published weights, and take images of one or three channels:
        ``"unet-vgg16"``, ``"unet-resnet50"``, ``"vgg-fcn"`` and its experiments
        ``"vgg-fcn-1"`` to ``-3`` (Abdulhamid), and ``"deeplabv3"`` (Fan 2022).
    preset
        Size of the network: ``"light"`` for a CPU (fewer filters, ResNet-18 for
        ResNet-50), ``"paper"``, or ``"auto"``: ``paper`` on a GPU, else ``light``.
    encoder_weights
        First weights of the encoder: ``"none"``, the default, ``"imagenet"``, or a
        file, see :func:`~napari_sparseseg.networks.encoders.load_encoder_weights`.
    freeze_encoder
        Whether the encoder keeps its first weights. Default False. A UserWarning tells
        where nobody has trained these.
    dropout
        Probability with which a feature is left out before the last layer, while
        learning, of the networks on VGG16 and of ``"unet-resnet50"``. Default 0.
    weight_decay
        L2 regularisation, 0 or more, as torch's optimisers have it. Default: the
        recipe's, 0 but for ``"deeplab"``.
    loss
        ``"ce"``, cross-entropy and the default; ``"dice"`` (Fan 2022), for which the
        class with the smallest value is the background; or ``"l1l2"``, L1 and L2 norm
        of the error of the class probabilities (Abdulhamid, section 4.3).
    l1, l2
        Weights of the two norms of ``"l1l2"``, for no other loss, each 0 or more and
        one of them above. Default 1 and 1; the paper tried several and names none. The
        norms are sums over pixels: with SGD, as in the recipe ``"deeplab"``, take far
        smaller weights.
    smoothness
        Weight, 0 or more, of a penalty on class probabilities that differ between
        neighbouring pixels, labelled or not (Abdulhamid, section 6.2). It is added to
        any loss. Default 0: none. It lies between 0 and 2, so beside the sums of
        ``"l1l2"`` it needs a far larger weight than beside the other losses.
    recipe
        ``"live"``, quick and endless; ``"paper"``, the numbers of Bokhorst 2018, whose
        1 um per pixel is asked for with ``um_per_px``; ``"deeplab"``, those of Fan
        2022, section 3.3; or ``"vgg-fcn"``, those of Abdulhamid, sections 4.2 and 6.1.
    scale
        Working pixels per image pixel, or ``"auto"``: found out on held-out strokes.
    um_per_px
        Working resolution in micrometres per pixel; needs ``pixel_size_um``.
    pixel_size_um
        Pixel size of the images: one number, or one for each image name (of a dense
        image with " (dense)" behind it where a sparse one has the same name).
    window
        (centre, width) of the intensities, as for CT in HU. Default: percentiles of
        grey images, the range of 8-bit colours.
    patch_px
        Side of a training patch in working pixels, at least 16. Default: the
        recipe's.
    noise
        Largest standard deviation, 0 or more, of the Gaussian noise added to training
        patches, whose intensities are in [0, 1] (Abdulhamid, section 4.2). Default: the
        recipe's, 0.03, or 0 of ``"vgg-fcn"``. Features that are kept have none.
    tiling
        Whether training patches are tiles of a regular grid over the image, in place of
        patches anywhere about labelled pixels (Abdulhamid, section 4.2). Default: the
        recipe's, True of ``"vgg-fcn"`` alone.
    micro_batch
        Patches that go through the network at once, so that less memory is needed and
        training can be stopped within a mini-batch. Default: the whole mini-batch.
    head_start
        Whether a per-pixel head predicts too, from the start. Default True.
    head_features
        What that head looks at: ``"fixed"`` features, the default, or with the name of
        an encoder, ``"resnet18"``, ``"resnet50"`` or ``"vgg16"``, its early layers as
        well, with the weights of ``encoder_weights``.
    feature_cache
        Whether features of an encoder that does not learn, that of the head or with
        ``freeze_encoder`` that of the network, are computed once and kept on disk. The
        network then sees images mirrored and turned, but not changed otherwise.
        ``"auto"``, the default: on a CPU, and if all fit into the budget; ``"on"`` or
        ``"off"``.
    feature_cache_folder
        Where. Default: ``napari-sparseseg/features`` in the user's folder of caches.
    feature_cache_gib
        The budget: what was used longest ago is removed before the folder takes more.
        Default 10.
    dense_images, dense_labels
        Images of which whole regions are labelled, and their label maps.
    dense_share
        Share of the patches that come from dense images where there are both kinds.
        Default 0.2: Bokhorst 2018 mixes sparse and dense 4 : 1.
    seed
        Of every random draw. Default 0.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    checkpoint
        File that keeps the state of the training; written every minute and at the end.
    resume
        Go on from ``checkpoint``.
    """

    classes: ClassTable | None
    balance: Balancing | None
    net: NetworkName
    preset: Preset | Literal["auto"]
    encoder_weights: str | Path
    freeze_encoder: bool
    dropout: float
    weight_decay: float | None
    loss: Loss
    l1: float
    l2: float
    smoothness: float
    recipe: RecipeName
    scale: float | Literal["auto"]
    um_per_px: float | None
    pixel_size_um: float | Mapping[str, float | None] | None
    window: tuple[float, float] | None
    patch_px: int | None
    noise: float | None
    tiling: bool | None
    micro_batch: int | None
    head_start: bool
    head_features: HeadFeatures
    feature_cache: FeatureCacheUse
    feature_cache_folder: str | Path | None
    feature_cache_gib: float
    dense_images: Images
    dense_labels: Images
    dense_share: float
    seed: int
    device: str
    checkpoint: str | Path | None
    resume: bool


def train(
    images: Images,
    labels: Images,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    **wishes: Unpack[TrainingWishes],
) -> SegmentationModel:
    """Learn from (sparse) label maps.

    Parameters
    ----------
    images
        (y, x) or (y, x, c) arrays of any numeric type: one, several, or by name.
    labels
        (y, x) integer arrays of the same shapes, order or names: 0 = not annotated,
        other values are classes.
    steps
        Mini-batches to learn. The same number gives the same model on one machine.
    seconds
        Stop after this time instead, which cannot promise the same model twice.
        Without either, training takes two minutes.
    **wishes
        See :class:`TrainingWishes`.

    Returns
    -------
    SegmentationModel
        On the CPU.

    Raises
    ------
    SparseSegError
        If images, labels or options cannot be used; the message says why.
    """
    events = iter_train(images, labels, steps=steps, seconds=seconds, **wishes)
    while True:
        try:
            next(events)
        except StopIteration as stop:
            model: SegmentationModel = stop.value
            return model


def iter_train(
    images: Images,
    labels: Images,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    **wishes: Unpack[TrainingWishes],
) -> Generator[TrainingEvent, None, SegmentationModel]:
    """Learn like :func:`train`, telling what happens; to stop, close the generator.

    Returns
    -------
    Generator
        Of events; its return value is the model.
    """
    check_limits(steps, seconds)
    if steps is None and seconds is None:
        seconds = DEFAULT_SECONDS
    trainer = make_trainer(images, labels, **wishes)
    return run(trainer, steps, seconds, wishes.get("checkpoint"))


def run(
    trainer: Trainer,
    steps: int | None,
    seconds: float | None,
    checkpoint: str | Path | None,
) -> Generator[TrainingEvent, None, SegmentationModel]:
    """Run a trainer until a limit, and return its model; see :func:`iter_events`."""
    yield from iter_events(trainer, steps, seconds, checkpoint)
    return trainer.model().to("cpu")


def iter_events(
    trainer: Trainer,
    steps: int | None,
    seconds: float | None,
    checkpoint: str | Path | None,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> Generator[TrainingEvent, None, None]:
    """Run a trainer until a limit; a checkpoint is left however it ends.

    Processes that train together all end when one of them is interrupted or has come
    to the limit, and the first one writes the checkpoint.

    Raises
    ------
    TrainingError
        If one of them is lost, or the loss stays no number.
    """
    ranks = trainer.ranks
    if not ranks.is_first:
        checkpoint = None
    started = saved = time.perf_counter()
    try:
        for event in trainer.run(steps):
            yield event
            now = time.perf_counter()
            if checkpoint is not None and now - saved > CHECKPOINT_S:
                write_checkpoint(trainer, checkpoint)
                saved = now
            is_over = seconds is not None and now - started >= seconds
            if _agree(ranks, event, is_over or is_interrupted()):
                break
    finally:
        if checkpoint is not None:
            write_checkpoint(trainer, checkpoint)


def _agree(ranks: Ranks, event: TrainingEvent, wish: bool) -> bool:
    """Tell whether to end; several processes ask each other after each step."""
    if ranks.count == 1:
        return wish
    return isinstance(event, StepDone) and ranks.any(wish)


def write_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Write all that a training needs to go on, completely or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    save_checkpoint(path, *state_of(trainer))


def state_of(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what a checkpoint holds: tensors, and JSON values."""
    tensors, values = trainer.state()
    setting = {
        "recipe": trainer.options.recipe_name,
        **trainer.options.loss_setting,
        **trainer.options.network_setting,
        "head_features": trainer.options.head_features,
        "normalisation": dataclasses.asdict(trainer.data.normalisation),
    }
    return tensors, values | setting


def make_trainer(
    images: Images,
    labels: Images,
    *,
    ranks: Ranks = ALONE,
    **wishes: Unpack[TrainingWishes],
) -> Trainer:
    """Return the trainer of these images, labels and wishes, at its first step.

    Parameters
    ----------
    images, labels, **wishes
        As for :func:`train`.
    ranks
        The processes that train together, see
        :func:`~napari_sparseseg.learning.distributed.joined`.

    Raises
    ------
    SparseSegError
        If images, labels or options cannot be used; the message says why.
    """
    check_names(wishes, TrainingWishes, "training")
    sizes = wishes.get("pixel_size_um")
    sparse = training_images(images, labels, sizes, dense=False)
    dense = training_images(
        wishes.get("dense_images", {}),
        wishes.get("dense_labels", {}),
        sizes,
        dense=True,
        taken={each.name for each in sparse},
    )
    both = [*sparse, *dense]
    if not both:
        raise ImageError("no image is given; training needs at least one.")
    options = _options(wishes, bool(dense), both)
    classes = wishes.get("classes")
    if classes is None:
        classes = classes_of(each.labels for each in both)
    hu = wishes.get("window")
    normalisation = (
        fit_normalisation(each.pixels for each in both) if hu is None else window_of(hu)
    )
    resumes = wishes.get("resume", False)
    weights = EncoderWeights(options.encoder_weights)
    if not resumes:
        _check_file(wishes, options, weights)
    _check_network(options, both[0].n_channels, DRAWN if resumes else weights)
    if options.freeze_encoder and weights.are_drawn:
        warnings.warn(
            "the encoder is frozen with random weights, so the rest learns from random "
            "features; give encoder weights, imagenet or a file, or do not freeze it.",
            stacklevel=2,
        )
    data = TrainingSet(both, classes, normalisation, options.seed)
    trainer = Trainer(data, options, weights, resumes=resumes, ranks=ranks)
    if resumes:
        resume(trainer, wishes.get("checkpoint"))
    ranks.check_same(trainer.facts)
    return trainer


def training_images(
    images: Images,
    labels: Images,
    pixel_size_um: float | Mapping[str, float | None] | None,
    *,
    dense: bool,
    taken: Collection[str] = (),
) -> list[TrainingImage]:
    """Pair images with their label maps.

    A dense image whose name is *taken* by a sparse one gets " (dense)" behind it.

    Raises
    ------
    ImageError, LabelError, OptionError
        If an image, its label map or its pixel size cannot be used, or one of image
        and label map has no partner.
    """
    pixels_of, labels_of = named(images), named(labels)
    if pixels_of.keys() != labels_of.keys():
        raise LabelError(
            f"{len(pixels_of)} image(s) and {len(labels_of)} label map(s) are given, "
            "but each image needs one label map of the same name or place.",
            images=sorted(pixels_of),
            labels=sorted(labels_of),
        )
    sizes = pixel_size_um if isinstance(pixel_size_um, Mapping) else {}
    common = None if isinstance(pixel_size_um, Mapping) else pixel_size_um
    prepared = []
    for name, pixels in pixels_of.items():
        as_dense = f"{name} (dense)"
        full_name = as_dense if name in taken else name
        um_per_px = sizes.get(as_dense if dense else name, sizes.get(name, common))
        check_positive(f"the pixel size of {full_name} in um", um_per_px)
        prepared.append(
            TrainingImage(
                name=full_name,
                pixels=check_pixels(pixels, full_name),
                labels=check_label_map(labels_of[name], pixels.shape[:2], full_name),
                dense=dense,
                um_per_px=um_per_px,
            )
        )
    return prepared


def named(images: Images) -> dict[str, NDArray[Any]]:
    """Return arrays by name: their own, or "image 1", "image 2", ..."""
    if isinstance(images, Mapping):
        return {name: np.asarray(image) for name, image in images.items()}
    if isinstance(images, np.ndarray) and images.dtype != object:
        images = [images]
    return {f"image {i}": np.asarray(image) for i, image in enumerate(images, 1)}


def classes_of(label_maps: Iterable[NDArray[Any]]) -> ClassTable:
    """Return a class table of the values that occur, named after them."""
    values = {int(value) for labels in label_maps for value in np.unique(labels)}
    return ClassTable.from_values(sorted(values - {0}))


def resume(trainer: Trainer, checkpoint: str | Path | None) -> None:
    """Let *trainer* go on where a checkpoint left off.

    Raises
    ------
    ModelFileError
        If there is none, or it belongs to another kind of training.
    """
    if checkpoint is None or not Path(checkpoint).exists():
        raise ModelFileError(
            f"there is no checkpoint {checkpoint} to go on from; train without resume "
            "first.",
            path=str(checkpoint),
        )
    _, values_now = state_of(trainer)
    tensors, values = load_checkpoint(checkpoint, values_now.keys())
    try:
        _take_normalisation(trainer, values)
        _check_same_training(trainer, values, checkpoint)
        trainer.load_state(tensors, values)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelFileError(
            f"{checkpoint} is no state of a training ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); the file is damaged: train without "
            "resume.",
            path=str(checkpoint),
        ) from error


def _take_normalisation(trainer: Trainer, values: Mapping[str, Any]) -> None:
    """Let the network see intensities as before, even with other images."""
    before = Normalisation(**values["normalisation"])
    if "window" not in (before.kind, trainer.data.normalisation.kind):
        trainer.data.normalisation = before


def _check_same_training(
    trainer: Trainer, values: Mapping[str, Any], checkpoint: str | Path
) -> None:
    data, options = trainer.data, trainer.options
    network = {"name": options.network.name, "options": dict(options.network.options)}
    learned_at = [each["scale"] for each in values["networks"]]
    scales = [options.scale] if options.scale and learned_at else learned_at
    for what, given, expected in (
        ("classes", _classes(data.classes.to_json()), _classes(values["classes"])),
        ("network", network, values["network"]),
        ("channels", data.n_channels, values["channels"]),
        ("recipe", options.recipe_name, values["recipe"]),
        *(
            (name.replace("_", " "), given, values[name])
            for name, given in (options.loss_setting | options.network_setting).items()
        ),
        ("head features", options.head_features, values["head_features"]),
        (
            "normalisation",
            dataclasses.asdict(data.normalisation),
            values["normalisation"],
        ),
        ("scales", scales, learned_at),
    ):
        if given != expected:
            raise ModelFileError(
                f"the training in {checkpoint} had the {what} {expected}, but now "
                f"{given} is given; give the same, or train without resume.",
                given=given,
                expected=expected,
            )


def _classes(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{each['value']} {each['name']}" for each in table["classes"])


def predict(
    model: SegmentationModel,
    image: NDArray[Any],
    *,
    probabilities: bool = False,
    pixel_size_um: float | None = None,
    device: str = "auto",
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[np.float32]]:
    """Label every pixel of an image.

    Parameters
    ----------
    model
        Of :func:`train` or :func:`load_model`.
    image
        (y, x) or (y, x, c) with the channels of the model.
    probabilities
        Whether to return class probabilities too.
    pixel_size_um
        Pixel size of the image in micrometres; where it differs from that of the
        training images, the image is resampled. A UserWarning tells where only one of
        the two is known.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Returns
    -------
    ndarray, or tuple of two
        (y, x) class values, uint8 or uint16; and (C, y, x) float32 probabilities in
        ascending order of class value.

    Raises
    ------
    ImageError
        If the image cannot be used or has other channels than the model.
    OptionError
        If the pixel size or the device cannot be used.
    """
    check_positive("the pixel size in um", pixel_size_um)
    warning = size_warning(model, pixel_size_um)
    if warning is not None:
        warnings.warn(warning, stacklevel=2)
    options = PredictOptions(probabilities=probabilities, um_per_px=pixel_size_um)
    labels, maps = predict_image(
        model.to(choose_device(device)), check_pixels(np.asarray(image)), options
    )
    return labels if maps is None else (labels, maps)


def cross_entropy_score(
    model: SegmentationModel,
    images: Images,
    labels: Images,
    *,
    pixel_size_um: float | Mapping[str, float | None] | None = None,
    device: str = "auto",
) -> float | None:
    """Score a model by the softmax cross-entropy on annotated images.

    The mean of -log p(true class) over the annotated pixels of an image, at its own
    resolution, then the mean over the images that have any (Abdulhamid, section 4.3 and
    tables 1 and 2). Label maps alone cannot tell it, as probabilities are needed.

    Parameters
    ----------
    model
        Of :func:`train` or :func:`load_model`.
    images, labels
        As for :func:`train`.
    pixel_size_um
        As for :func:`train`; used as by :func:`predict`.
    device
        As for :func:`predict`.

    Returns
    -------
    float or None
        None where no pixel is annotated.

    Raises
    ------
    SparseSegError
        If images, labels or options cannot be used, or a label is no class of the
        model.
    """
    given = training_images(images, labels, pixel_size_um, dense=False)
    model = model.to(choose_device(device))
    losses = []
    for each in given:
        if not each.labels.any():
            continue
        options = PredictOptions(probabilities=True, um_per_px=each.um_per_px)
        _, maps = predict_image(model, each.pixels, options)
        assert maps is not None
        truth, found = {each.name: each.labels}, {each.name: maps}
        loss = cross_entropy(truth, found, model.info.classes.values)
        assert loss is not None
        losses.append(loss)
    return float(np.mean(losses)) if losses else None


def size_warning(model: SegmentationModel, um_per_px: float | None) -> str | None:
    """Say that pixel sizes cannot be compared; None where they can, or none is known.

    Parameters
    ----------
    model
        Knows the pixel size of its training images, or does not.
    um_per_px
        Of the image to be predicted.
    """
    trained = model.info.um_per_px
    if (trained is None) == (um_per_px is None):
        return None
    known, unknown = (
        ("the image", "the training images")
        if trained is None
        else ("the training images", "the image")
    )
    return (
        f"the pixel size of {known} is known, that of {unknown} is not; they are taken "
        "as equal"
    )


def available_devices() -> list[str]:
    """Return the kinds of torch devices that are there, the best first."""
    has = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [name for name, is_there in has.items() if is_there]


def choose_device(device: str) -> str:
    """Return the torch device that a name stands for.

    Raises
    ------
    OptionError
        If the device is not known or not there.
    """
    there = available_devices()
    if device == "auto":
        return there[0]
    kind, _, index = device.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in there or (index and index not in map(str, range(count))):
        raise OptionError(
            f"the device {device!r} is not there; this machine has {', '.join(there)}.",
            device=device,
        )
    return device


def check_limits(steps: int | None, seconds: float | None) -> None:
    """Raise OptionError unless the limits of a training are above 0."""
    check_positive("steps", steps)
    check_positive("seconds", seconds)


def check_names(wishes: Mapping[str, object], known: type, what: str) -> None:
    """Raise OptionError if something is asked for that is not known of *what*."""
    names = list(inspect.get_annotations(known))
    for name in wishes:
        if name not in names:
            alike = get_close_matches(name, names, 1)
            hint = (
                f"did you mean {alike[0]}?" if alike else f"give {enumerated(names)}."
            )
            raise OptionError(f"{what} has no option {name}; {hint}", name=name)


def check_whole(what: str, number: Any, lowest: int, highest: int) -> None:
    """Raise OptionError unless a number is a whole one in a range."""
    if not isinstance(number, Integral) or not lowest <= int(number) <= highest:
        raise OptionError(
            f"{what} is {number!r}; expected a whole number from {lowest} to "
            f"{highest}.",
            number=number,
        )


def check_not_negative(what: str, number: Any) -> None:
    """Raise OptionError unless a number is 0 or more, and finite."""
    if not isinstance(number, Real) or not 0 <= float(number) < math.inf:
        raise OptionError(
            f"{what} is {number!r}; expected a number of 0 or more.", number=number
        )


def check_positive(what: str, number: Any) -> None:
    """Raise OptionError unless a number, where it is given, is above 0 and finite."""
    if number is None:
        return
    if not isinstance(number, Real) or not 0 < float(number) < math.inf:
        raise OptionError(
            f"{what} is {number!r}; expected a number above 0.", number=number
        )


def _options(
    wishes: TrainingWishes, has_dense: bool, images: Sequence[TrainingImage]
) -> TrainingOptions:
    device = choose_device(wishes.get("device", "auto"))
    check_positive("the number of patches at once", wishes.get("micro_batch"))
    seed = wishes.get("seed", 0)
    check_whole("the seed", seed, 0, MOST_SEEDS - 1)
    dense_share = wishes.get("dense_share", 0.2)
    if not 0 < dense_share < 1:
        raise OptionError(
            f"the share of dense images is {dense_share}; expected a number between 0 "
            "and 1, such as 0.2 for one dense patch to four sparse ones.",
            dense_share=dense_share,
        )
    preset = _preset(wishes, device)
    recipe, loss = wishes.get("recipe", "live"), wishes.get("loss", "ce")
    net, head_features = wishes.get("net", "unet"), wishes.get("head_features", "fixed")
    for what, given, known in (
        ("network", net, PRESETS),
        ("preset", preset, PRESETS["unet"]),
        ("recipe", recipe, RECIPES),
        ("loss", loss, LOSSES),
        ("kind of the head's features", head_features, get_args(HeadFeatures)),
    ):
        if given not in known:
            raise OptionError(
                f"the {what} is {given!r}; {one_of(given, known)}",
                given=given,
            )
    l1_weight, l2_weight = _norm_weights(wishes, loss)
    smoothness = wishes.get("smoothness", 0.0)
    check_not_negative("the smoothness", smoothness)
    balance = wishes.get("balance") or _balance(loss, has_dense)
    if balance not in BALANCINGS:
        raise OptionError(
            f"balance is {balance!r}; {one_of(balance, BALANCINGS)}", given=balance
        )
    options = TrainingOptions(
        balancing=balance,
        network=_network(wishes, net, preset),
        recipe=_recipe(wishes, recipe),
        recipe_name=recipe,
        loss=loss,
        l1_weight=l1_weight,
        l2_weight=l2_weight,
        smoothness=float(smoothness),
        encoder_weights=_origin(wishes),
        freeze_encoder=wishes.get("freeze_encoder", False),
        scale=_scale(wishes, images),
        head_start=wishes.get("head_start", True),
        head_features=head_features,
        feature_cache=_feature_cache(wishes),
        dense_share=dense_share,
        seed=seed,
        device=device,
        micro_batch=wishes.get("micro_batch"),
    )
    encoder = ENCODER_OF[net][preset] if net in ENCODER_OF else None
    _check_encoders(options, encoder)
    return options


def _check_file(
    wishes: TrainingWishes, options: TrainingOptions, weights: EncoderWeights
) -> None:
    """Raise ModelFileError where a file is of the encoder of the other preset."""
    net, preset = wishes.get("net", "unet"), _preset(wishes, options.device)
    encoders = ENCODER_OF.get(net, {})
    if options.encoder_origin != "file" or not encoders:
        return
    path, given = weights.of(encoders[preset])
    found = encoder_of(given)
    fitting = [each for each, encoder in encoders.items() if encoder == found]
    if fitting and preset not in fitting:
        raise ModelFileError(
            f"{path} holds the weights of {found}, but with the preset {preset} the "
            f"network {net!r} has {encoders[preset]}; choose the preset {fitting[0]} "
            f"(in the dock: Network size), or weights of {encoders[preset]}.",
            path=str(path),
            option=f"--preset {fitting[0]}",
            preset=preset,
        )


def _check_network(
    options: TrainingOptions, n_channels: int, weights: EncoderWeights
) -> None:
    """Tell now what cannot be built, and not when the first image is seen."""
    is_plain = options.network.name == "unet" and not options.freeze_encoder
    if not is_plain or not weights.are_drawn:
        first_network(options, n_channels, 2, weights)


def _feature_cache(wishes: TrainingWishes) -> FeatureCacheOptions:
    folder, gib = (
        wishes.get("feature_cache_folder"),
        wishes.get("feature_cache_gib", 10),
    )
    check_not_negative("the budget of the feature cache in GiB", gib)
    return FeatureCacheOptions(
        wishes.get("feature_cache", "auto"),
        None if folder is None else Path(folder),
        int(gib * GIB),
    )


def encoders_to_fetch(wishes: TrainingWishes) -> list[EncoderName]:
    """Return the encoders whose published weights are asked for and not there yet.

    Raises
    ------
    OptionError
        If the device is not there.
    """
    if wishes.get("resume") or _origin(wishes) != "imagenet":
        return []
    preset = _preset(wishes, choose_device(wishes.get("device", "auto")))
    presets = ENCODER_OF.get(wishes.get("net", "unet"), {})
    wanted = {presets.get(preset), wishes.get("head_features")}
    return [name for name in PUBLISHED if name in wanted and not is_fetched(name)]


def _origin(wishes: TrainingWishes) -> str:
    return origin_of(wishes.get("encoder_weights", "none"))


def _preset(wishes: TrainingWishes, device: str) -> Preset:
    preset = wishes.get("preset", "auto")
    if preset == "auto":
        return preset_on(device)
    return preset


def _check_encoders(options: TrainingOptions, encoder: EncoderName | None) -> None:
    """Raise OptionError where encoders cannot do what is asked of them.

    Parameters
    ----------
    options
        All that is asked for.
    encoder
        Of the network, None where it has none.
    """
    name = options.head_features
    if name != "fixed" and not options.head_start:
        raise OptionError(
            f"the head is to look at the features of {name}, but there is to be none; "
            "turn the head start on, or take fixed features."
        )
    if name != "fixed" and options.encoder_weights == "none":
        raise OptionError(
            f"the head is to look at the features of {name}, but with weights that "
            "nobody has trained they say little; give encoder weights, imagenet or a "
            "file, or fixed features."
        )
    if (
        name != "fixed"
        and encoder not in (None, name)
        and options.encoder_origin == "file"
    ):
        raise OptionError(
            f"the head is to look at the features of {name}, and the network has the "
            f"encoder {encoder}, but a file holds the weights of one of them; take the "
            f"head features {encoder} or fixed, or the weights imagenet."
        )
    if options.feature_cache.use == "on" and not (
        options.freeze_encoder or name != "fixed"
    ):
        raise OptionError(
            "the feature cache is on, but no encoder keeps its weights; freeze the "
            "encoder, give the head the features of one, or leave the cache on auto."
        )


def _balance(loss: Loss, has_dense: bool) -> Balancing:
    """Return the balancing where none is asked for."""
    if loss == "dice":
        return "none"
    return "instance" if has_dense else "mini-batch"


def _norm_weights(wishes: TrainingWishes, loss: Loss) -> tuple[float, float]:
    """Return the weights of the L1 and of the L2 norm."""
    weights = wishes.get("l1", 1.0), wishes.get("l2", 1.0)
    for name, weight in zip(("L1", "L2"), weights, strict=True):
        check_not_negative(f"the weight of the {name} norm", weight)
        if loss != "l1l2" and weight != 1:
            raise OptionError(
                f"the weight of the {name} norm is to be {weight}, but the loss "
                f"{loss!r} has none; take the loss l1l2, or leave it out.",
                weight=weight,
            )
    if loss == "l1l2" and not any(weights):
        raise OptionError(
            "the weights of the L1 and the L2 norm are both 0, so nothing would be "
            "learned; give one that is above.",
            weights=weights,
        )
    return float(weights[0]), float(weights[1])


def _network(wishes: TrainingWishes, net: NetworkName, preset: Preset) -> NetworkSpec:
    dropout = wishes.get("dropout", 0.0)
    check_not_negative("the dropout", dropout)
    spec = PRESETS[net][preset]
    return spec if dropout == 0 else with_dropout(spec, dropout)


def _recipe(wishes: TrainingWishes, name: RecipeName) -> Recipe:
    recipe = RECIPES[name]
    patch_px, weight_decay = wishes.get("patch_px"), wishes.get("weight_decay")
    if weight_decay is not None:
        check_not_negative("the weight decay", weight_decay)
        recipe = dataclasses.replace(recipe, weight_decay=float(weight_decay))
    recipe = dataclasses.replace(
        recipe, augmentation=_augmentation(wishes, recipe.augmentation)
    )
    if patch_px is None:
        return recipe
    if patch_px < SMALLEST_PATCH:
        raise OptionError(
            f"the side of a patch is {patch_px} working pixels; expected at least "
            f"{SMALLEST_PATCH}, so that the network sees some surroundings.",
            patch_px=patch_px,
        )
    return dataclasses.replace(recipe, patch_px=patch_px)


def _augmentation(
    wishes: TrainingWishes, augmentation: AugmentationOptions
) -> AugmentationOptions:
    noise, tiling = wishes.get("noise"), wishes.get("tiling")
    if noise is not None:
        check_not_negative("the noise", noise)
        augmentation = dataclasses.replace(augmentation, noise=float(noise))
    if tiling is not None:
        augmentation = dataclasses.replace(augmentation, tiling=tiling)
    return augmentation


def _scale(wishes: TrainingWishes, images: Sequence[TrainingImage]) -> float | None:
    scale, um_per_px = wishes.get("scale", "auto"), wishes.get("um_per_px")
    if um_per_px is not None:
        if scale != "auto":
            raise OptionError(
                f"the scale {scale} and the working resolution {um_per_px} um per px "
                "are both given; give one of them.",
                scale=scale,
                um_per_px=um_per_px,
            )
        check_positive("the working resolution in um per px", um_per_px)
        size = next((i.um_per_px for i in images if i.um_per_px is not None), None)
        if size is None:
            raise OptionError(
                f"the working resolution is to be {um_per_px} um per px, but the pixel "
                "size of the images is not known; give a scale instead.",
                um_per_px=um_per_px,
            )
        scale = size / um_per_px
    if scale == "auto":
        return None
    if not 0 < scale <= 4:
        raise OptionError(
            f"the scale is {scale} working pixels per image pixel; expected a number "
            "above 0 and up to 4.",
            scale=scale,
        )
    return float(scale)
