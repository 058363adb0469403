"""The decoders on VGG16: one training of Abdulhamid, table 1."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks._learn_data import DENSE, read_pairs
from benchmarks._reproduce_training import (
    Plan,
    learn,
    points_every,
    training_set,
    use_threads,
)
from napari_sparseseg.annotations.classes import read_class_table
from napari_sparseseg.learning.options import RECIPES, TrainingOptions
from napari_sparseseg.networks.registry import PRESETS, with_dropout

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks._learn_data import Arrays
    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.learning.loss_names import Loss
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.networks.network_names import NetworkName

#: The set that is learned, with complete labels.
TASK = "glas"

#: The decoders cost much a pixel, so a CPU works at an eighth of the resolution, where
#: an image has 97 x 66 pixels. The numbers are those of the paper's final network.
PLANS = {
    "cpu": {TASK: Plan("paper", RECIPES["vgg-fcn"], steps=200, scale=0.125)},
    "cuda": {TASK: Plan("paper", RECIPES["vgg-fcn"], steps=1000, scale=1.0)},
}

#: Steps of the smoke form.
SMOKE_STEPS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """A training that is compared.

    Attributes
    ----------
    title
        What it is called in the tables.
    network
        Which is trained.
    dropout
        Of the network.
    weight_decay
        L2, of the optimiser.
    loss, l1_weight, l2_weight
        See ``TrainingOptions`` of the project.
    """

    title: str
    network: NetworkName
    dropout: float = 0.0
    weight_decay: float = 0.0
    loss: Loss = "ce"
    l1_weight: float = 1.0
    l2_weight: float = 1.0


#: The paper's table 1.
DECODERS = {
    "vgg-fcn-1": Row("vgg-fcn-1 (11 x 11, 9 x 9)", "vgg-fcn-1"),
    "vgg-fcn-2": Row("vgg-fcn-2 (9 x 9 to 5 x 5)", "vgg-fcn-2"),
    "vgg-fcn-3": Row("vgg-fcn-3 (deep, 3 x 3)", "vgg-fcn-3"),
    "vgg-fcn": Row("vgg-fcn (final)", "vgg-fcn"),
}

#: What was tried on the final network besides.
VARIATIONS = {
    "dropout": Row("vgg-fcn, dropout 0.5", "vgg-fcn", dropout=0.5),
    "decay": Row("vgg-fcn, L2 of weights (1e-4)", "vgg-fcn", weight_decay=1e-4),
    "l1": Row("vgg-fcn, loss L1", "vgg-fcn", loss="l1l2", l2_weight=0.0),
    "l2": Row("vgg-fcn, loss L2", "vgg-fcn", loss="l1l2", l1_weight=0.0),
    "l1+l2": Row("vgg-fcn, loss L1 + L2", "vgg-fcn", loss="l1l2"),
}

ROWS = DECODERS | VARIATIONS


def train_decoder(
    folder: Path, row: str, seed: int, plan: Plan, encoder_weights: str
) -> dict[str, Any]:
    """Learn complete labels and take the loss on three parts of the set.

    A fifth of the train images, whole, is for validation: the seed draws them.

    Parameters
    ----------
    folder
        Of the set.
    row, seed, plan
        How.
    encoder_weights
        First weights of VGG16; see ``TrainingWishes`` of the project.

    Returns
    -------
    dict
        JSON values: ``loss`` (cross-entropy) and ``dice`` (overall) by part, the
        learning ``curve``, ``learned_s`` and the names of the ``validation_images``.
    """
    from napari_sparseseg.api import training_images

    use_threads(plan)
    images, truth = read_pairs(folder / "train", DENSE)
    test_images, test_truth = read_pairs(folder / "test", DENSE)
    classes = read_class_table(folder / "classes.json")
    data = training_set(training_images(images, truth, None, dense=True), classes, seed)
    what = ROWS[row]
    options = TrainingOptions(
        network=with_dropout(PRESETS[what.network][plan.preset], what.dropout),
        balancing="none",
        recipe=dataclasses.replace(
            plan.recipe,
            epoch=points_every(plan.steps),
            max_epochs=None,
            weight_decay=what.weight_decay,
        ),
        loss=what.loss,
        l1_weight=what.l1_weight,
        l2_weight=what.l2_weight,
        encoder_weights=encoder_weights,
        scale=plan.scale,
        head_start=False,
        seed=seed,
        device=plan.device,
    )
    learned = learn(data, options, plan.steps)
    names = dict(zip((f"{name} (dense)" for name in images), images, strict=True))
    held_out = [name for full, name in names.items() if data.is_held_out(full)]
    learned_of = [name for name in images if name not in held_out]
    parts = {
        "train": (picked(images, learned_of), picked(truth, learned_of)),
        "validation": (picked(images, held_out), picked(truth, held_out)),
        "test": (test_images, test_truth),
    }
    scores = {
        part: score(learned.model, pixels, labels, classes)
        for part, (pixels, labels) in parts.items()
    }
    return {
        "loss": {part: loss for part, (loss, _) in scores.items()},
        "dice": {part: dice for part, (_, dice) in scores.items()},
        "curve": learned.curve,
        "learned_s": learned.seconds,
        "validation_images": held_out,
    }


def picked(arrays: Arrays, names: list[str]) -> Arrays:
    """Return the arrays of these names."""
    return {name: arrays[name] for name in names}


def score(
    model: SegmentationModel, images: Arrays, truth: Arrays, classes: ClassTable
) -> tuple[float | None, float | None]:
    """Return cross-entropy and overall Dice, image pixels being predicted."""
    from napari_sparseseg.learning.metrics import evaluate
    from napari_sparseseg.prediction.predictor import PredictOptions, predict_image

    options = PredictOptions(probabilities=True)
    labels: Arrays = {}
    probabilities: Arrays = {}
    for name, image in images.items():
        labels[name], maps = predict_image(model, image, options)
        assert maps is not None
        probabilities[name] = maps
    scores = evaluate(labels, truth, classes, probabilities)
    return scores.cross_entropy, scores.overall_dice
