"""Networks that learn pseudo-masks, or the truth, scored on the test slices."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks._boxes_data import SCALES, WINDOW, read_masks, read_test, read_train

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sparseseg.learning.loss_names import Loss
    from napari_sparseseg.learning.options import RecipeName
    from napari_sparseseg.networks.network_names import NetworkName, Preset


@dataclass(frozen=True, slots=True)
class Network:
    """A network and how it learns.

    Attributes
    ----------
    title
        What it is called in the tables.
    name
        As ``net`` of :class:`~napari_sparseseg.api.TrainingWishes`.
    loss
        Likewise.
    patch_px
        Side of a patch in working pixels; None = that of the recipe.
    """

    title: str
    name: NetworkName
    loss: Loss
    patch_px: int | None = None


NETWORKS = {
    "unet": Network("U-Net", "unet", "ce"),
    "deeplabv3": Network("DeepLabV3", "deeplabv3", "dice", 256),
}

#: The row of networks that learn the truth.
FULL = "full"


@dataclass(frozen=True, slots=True)
class TrainWishes:
    """What all trainings are asked for.

    Attributes
    ----------
    steps
        Mini-batches that are learned.
    preset
        Size of the networks: ``"light"`` at about 256 x 256 pixels, ``"paper"`` at the
        full size of the slices.
    recipe
        See :class:`~napari_sparseseg.api.TrainingWishes`.
    device
        ``"cpu"`` or ``"cuda"``.
    """

    steps: int
    preset: Preset
    recipe: RecipeName
    device: str


def train_network(
    folder: Path,
    labels: Path | None,
    slices: int | None,
    network: str,
    seed: int,
    wishes: TrainWishes,
) -> dict[str, Any]:
    """Learn label maps and score the network on the test slices.

    Parameters
    ----------
    folder
        Of the set.
    labels
        File of pseudo-masks by image; None = the truth is learned.
    slices
        How many slices are learned; None = all.
    network, seed, wishes
        How.

    Returns
    -------
    dict
        JSON values: ``learned_s``, the seconds of learning, and ``dice`` by class, over
        the pixels of all slices.
    """
    from napari_sparseseg.api import iter_train
    from napari_sparseseg.learning.metrics import evaluate
    from napari_sparseseg.prediction.predictor import predict_image

    data, test = read_train(folder, slices), read_test(folder)
    chosen = NETWORKS[network]
    events = iter_train(
        data.images,
        data.truth if labels is None else read_masks(labels),
        steps=wishes.steps,
        classes=data.classes,
        balance="none",
        net=chosen.name,
        preset=wishes.preset,
        loss=chosen.loss,
        recipe=wishes.recipe,
        scale=SCALES[folder.name] if wishes.preset == "light" else 1.0,
        window=WINDOW,
        patch_px=chosen.patch_px,
        head_start=False,
        seed=seed,
        device=wishes.device,
    )
    started = time.perf_counter()
    while True:
        try:
            next(events)
        except StopIteration as stop:
            model = stop.value.to(wishes.device)
            break
    learned_s = time.perf_counter() - started
    predictions = {
        name: predict_image(model, image)[0] for name, image in test.images.items()
    }
    return {
        "learned_s": learned_s,
        "dice": evaluate(predictions, test.truth, test.classes).dice,
    }
