"""Real images with strokes and truth, read from the folder of ``SPARSESEG_DATA``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sparseseg.annotations.classes import ClassTable, read_class_table
from napari_sparseseg.io.images import (
    list_images,
    match_by_stem,
    read_image,
    read_label_map,
)
from napari_sparseseg.learning.metrics import Scores, evaluate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

#: The labels that are learned from unless others are asked for.
STROKES = {"glas": "strokes_1pct", "adp": "strokes_2.5pct"}

#: The folder of completely labelled images.
DENSE = "dense"


@dataclass(frozen=True, eq=False)
class LearnData:
    """A set of images in memory.

    Attributes
    ----------
    images, labels
        To learn from: (y, x, 3) uint8 and (y, x) class values, 0 = not annotated.
    test_images, truth
        To score on, the truth as class values.
    classes
        Of both.
    """

    images: Arrays
    labels: Arrays
    test_images: Arrays
    truth: Arrays
    classes: ClassTable

    def score(self, predictions: Arrays) -> Scores:
        """Score predictions of the test images."""
        return evaluate(predictions, self.truth, self.classes)


def data_folder() -> Path:
    """Return the folder of the real images, whether or not it exists."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("SPARSESEG_DATA") or default)


def read_learn_data(folder: Path, labels: str) -> LearnData:
    """Read a set; *labels* names the folder of the label maps to learn from.

    Raises
    ------
    SparseSegError
        If the set is not there or a file of it cannot be read.
    """
    images, strokes = read_pairs(folder / "train", labels)
    test_images, truth = read_pairs(folder / "test", DENSE)
    classes = read_class_table(folder / "classes.json")
    return LearnData(images, strokes, test_images, truth, classes)


def read_pairs(folder: Path, labels: str) -> tuple[Arrays, Arrays]:
    """Read the images of a folder that have a label map, and their label maps."""
    match = match_by_stem(list_images(folder / "images"), list_images(folder / labels))
    return (
        {stem: read_image(path).data for stem, path, _ in match.pairs},
        {stem: read_label_map(path) for stem, _, path in match.pairs},
    )


def summary(scores: Scores) -> dict[str, Any]:
    """Return what is kept of scores, as JSON values.

    ``overall_dice`` is the mean over classes in the truth or the prediction;
    ``present_dice`` is the mean over those in the truth, the same for all methods.
    """
    in_truth = scores.confusion.sum(axis=1) > 0
    dice = zip(scores.dice.values(), in_truth, strict=True)
    present = [value for value, is_there in dice if is_there and value is not None]
    return {
        "overall_dice": scores.overall_dice,
        "present_dice": sum(present) / len(present),
        "dice": scores.dice,
        "pixel_accuracy": scores.pixel_accuracy,
    }
