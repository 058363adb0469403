"""Balancing by label set: one training of Bokhorst 2018, table 2."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._learn_data import summary
from benchmarks._reproduce_sets import read_label_sets
from benchmarks._reproduce_training import (
    Plan,
    as_png,
    learn,
    points_every,
    training_set,
    use_threads,
)
from napari_sparseseg.learning.options import RECIPES, TrainingOptions
from napari_sparseseg.networks.registry import PRESETS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks._learn_data import Arrays
    from benchmarks._reproduce_papers import LabelSet
    from napari_sparseseg.learning.balancing import Balancing

#: An image is drawn, then a patch of it with a label: to draw by class would balance by
#: itself and blur what is compared. On a CPU the network is smaller and learns faster,
#: at the resolution that held-out strokes choose. On a GPU the numbers are the paper's,
#: at about its 1 um per pixel, but for the steps, of which it has 225,000.
_LIVE = dataclasses.replace(RECIPES["live"], patch_px=96, draw="image")

#: By device and set.
PLANS = {
    "cpu": {
        "glas": Plan("light", _LIVE, steps=400, scale=0.25),
        "adp": Plan("light", _LIVE, steps=1500, scale=0.25),
    },
    "cuda": {
        "glas": Plan("paper", RECIPES["paper"], steps=15_000, scale=0.62),
        "adp": Plan("paper", RECIPES["paper"], steps=15_000, scale=1.2),
    },
}

#: Steps of the smoke form.
SMOKE_STEPS = 20

#: The runs of this seed keep a predicted picture.
PICTURE_SEED = 0

#: Side of the kept pictures, per side of the image.
PICTURE_SCALE = {"glas": 0.25, "adp": 1.0}


def train_cell(
    folder: Path, labels: LabelSet, balancing: Balancing, seed: int, plan: Plan
) -> dict[str, Any]:
    """Learn a label set with a balancing and score it on the test images.

    Parameters
    ----------
    folder
        Of the set.
    labels, balancing, seed, plan
        How. The seed draws the dense images, first weights and mini-batches.

    Returns
    -------
    dict
        JSON values: scores of :func:`~benchmarks._learn_data.summary`, the learning
        ``curve``, ``learned_s``, the ``effort`` of the labels, the names of the
        ``dense_images``, whether a class is ``in_truth``, and for one seed ``picture``
        and ``truth`` of a test image with the ``classes``.
    """
    from napari_sparseseg.api import training_images
    from napari_sparseseg.prediction.predictor import predict_image

    use_threads(plan)
    sets = read_label_sets(folder, seed)
    data = sets.data
    images = [
        image
        for maps, dense in zip(sets.of(labels), (False, True), strict=True)
        for image in training_images(
            {name: data.images[name] for name in maps}, maps, None, dense=dense
        )
    ]
    options = TrainingOptions(
        balancing=balancing,
        network=PRESETS["unet"][plan.preset],
        recipe=dataclasses.replace(
            plan.recipe, epoch=points_every(plan.steps), max_epochs=None
        ),
        scale=plan.scale,
        head_start=False,
        seed=seed,
        device=plan.device,
    )
    learned = learn(training_set(images, data.classes, seed), options, plan.steps)
    predictions = {
        name: predict_image(learned.model, image)[0]
        for name, image in data.test_images.items()
    }
    result = {
        **summary(data.score(predictions)),
        "in_truth": {
            name: any(bool((each == value).any()) for each in data.truth.values())
            for value, name in data.classes.named_values
        },
        "curve": learned.curve,
        "learned_s": learned.seconds,
        "effort": sets.effort(),
        "dense_images": list(sets.dense),
    }
    if seed == PICTURE_SEED:
        name = shown_image(data.truth)
        scale = PICTURE_SCALE[folder.name]
        result["picture"] = as_png(predictions[name], scale)
        result["truth"] = as_png(data.truth[name], scale)
        result["classes"] = data.classes.to_json()
    return result


def shown_image(truth: Arrays) -> str:
    """Return the first of the images with the most classes."""
    return max(truth, key=lambda name: len(np.unique(truth[name])))
