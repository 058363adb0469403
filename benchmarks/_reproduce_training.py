"""How the networks of the comparisons are trained: one loop for all of them."""

from __future__ import annotations

import base64
import io
import time
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_sparseseg.inputs.normalisation import fit_normalisation
from napari_sparseseg.inputs.resolution import working_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.learning.options import Recipe, TrainingOptions
    from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.networks.network_names import Preset

    Arrays = dict[str, NDArray[Any]]

#: Points of a learning curve, and the fewest steps between two.
CURVE_POINTS, FEWEST_STEPS = 10, 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What all trainings of a comparison on one set share.

    Attributes
    ----------
    preset
        Size of the networks.
    recipe
        The numbers, without a validation every so many steps: that follows from
        *steps*.
    steps
        Mini-batches that are learned, the same for all.
    scale
        Working pixels per image pixel.
    device
        ``"cpu"`` or ``"cuda"``.
    threads
        Of torch; None = as many as it takes.
    """

    preset: Preset
    recipe: Recipe
    steps: int
    scale: float
    device: str = "cpu"
    threads: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Give what decides the results, as JSON values."""
        return {
            "preset": self.preset,
            "steps": self.steps,
            "scale": self.scale,
            "batch": self.recipe.batch,
            "patch_px": self.recipe.patch_px,
            "learning_rate": self.recipe.learning_rate,
            "schedule": self.recipe.schedule,
        }


@dataclass(frozen=True, eq=False)
class Learned:
    """A network that has learned.

    Attributes
    ----------
    model
        On the device of the plan.
    curve
        (step, mean loss of the steps since the last point, Dice on what is held out or
        None where nothing is).
    seconds
        Of learning.
    """

    model: SegmentationModel
    curve: list[tuple[int, float, float | None]]
    seconds: float


def use_threads(plan: Plan) -> None:
    """Let torch use as many threads as planned, in this process."""
    import torch

    if plan.threads is not None:
        torch.set_num_threads(plan.threads)


def training_set(
    images: Sequence[TrainingImage], classes: ClassTable, seed: int
) -> TrainingSet:
    """Return the images with what the seed holds out of them."""
    from napari_sparseseg.learning.training_set import TrainingSet

    normalisation = fit_normalisation(image.pixels for image in images)
    return TrainingSet(images, classes, normalisation, seed)


def learn(data: TrainingSet, options: TrainingOptions, steps: int) -> Learned:
    """Learn for so many steps, scored at each point of the curve."""
    from napari_sparseseg.learning.events import StepDone, Validated
    from napari_sparseseg.learning.trainer import Trainer

    trainer = Trainer(data, options)
    curve: list[tuple[int, float, float | None]] = []
    losses: list[float] = []
    started = time.perf_counter()
    for event in trainer.run(steps):
        if isinstance(event, StepDone):
            losses.append(event.loss)
        elif isinstance(event, Validated):
            score = event.scores.get("network")
            dice = None if score is None else score.overall
            curve.append((event.step, mean(losses), dice))
            losses = []
    seconds = time.perf_counter() - started
    return Learned(trainer.model().to(options.device), curve, seconds)


def points_every(steps: int) -> int:
    """Return the steps between two points of the curve."""
    return max(FEWEST_STEPS, steps // CURVE_POINTS)


def as_png(labels: NDArray[Any], scale: float) -> str:
    """Return a label map at a lower resolution as the text of a PNG file.

    Parameters
    ----------
    labels
        (y, x) class values below 256.
    scale
        Pixels of the picture per pixel of the map, at most 1; the nearest is taken.

    Returns
    -------
    str
        Base64.
    """
    height, width = working_shape(labels.shape, scale)
    picture = Image.fromarray(labels.astype(np.uint8))
    file = io.BytesIO()
    picture.resize((width, height), Image.Resampling.NEAREST).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def from_png(text: str) -> NDArray[np.uint8]:
    """Return the label map of a text of :func:`as_png`."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
