"""Scores of predictions: Dice, pixel accuracy and cross-entropy.

Only annotated pixels (truth other than 0) are scored. All of them, over all images,
go into one confusion matrix; "overall" is the mean over the classes that have a Dice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.classes import ClassTable, count_values, counts_text
from napari_sparseseg.annotations.strokes import MAX_CLASS_VALUE, narrow_labels
from napari_sparseseg.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Images = Mapping[str, NDArray[Any]] | Sequence[NDArray[Any]] | NDArray[Any]

SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Probabilities below count as this in the cross-entropy, which so stays finite."""


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image, None where it has nothing to score.

    Parameters
    ----------
    dice
        By class name, 0..1; None for a class in neither truth nor prediction.
    overall_dice
        Mean over the classes that have a Dice.
    pixel_accuracy
        Share of the annotated pixels whose class is right.
    """

    dice: dict[str, float | None]
    overall_dice: float | None
    pixel_accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """Give the scores as JSON data; None becomes null."""
        return {
            "dice": dict(self.dice),
            "overall_dice": self.overall_dice,
            "pixel_accuracy": self.pixel_accuracy,
        }


@dataclass(frozen=True, eq=False)
class Scores(ImageScores):
    """The scores of a set of images, from one confusion matrix over all their pixels.

    Parameters
    ----------
    dice, overall_dice, pixel_accuracy
        As in `ImageScores`, over the pixels of all images.
    cross_entropy
        Mean over the annotated pixels of an image, then over images; None where no
        probabilities were given.
    confusion
        (C, C + 1) int64 (see `confusion_matrix`), classes in the order of ``dice``.
    per_image
        The scores of each image by name.
    """

    cross_entropy: float | None
    confusion: NDArray[np.int64]
    per_image: dict[str, ImageScores] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give the scores as JSON data; None becomes null."""
        return {
            **super().to_json(),
            "cross_entropy": self.cross_entropy,
            "confusion": self.confusion.tolist(),
            "per_image": {
                name: scores.to_json() for name, scores in self.per_image.items()
            },
        }


def evaluate(
    predictions: Images,
    truths: Images,
    classes: ClassTable | None,
    probabilities: Images | None = None,
) -> Scores:
    """Score predictions at the annotated pixels of the truth.

    Images come as a mapping by name, as a sequence (named "0", "1" ...) or as one
    array (named "0"), all arguments in the same way. They are looked at one after the
    other, so a mapping may read them from disk.

    Parameters
    ----------
    predictions
        Integer class values, of the truth's shape. A value that is no class, 0 too,
        is a wrong answer.
    truths
        (y, x) integer class values, 0 = not annotated.
    classes
        The classes; None = one for each value in truths and predictions.
    probabilities
        (c, y, x) per image, channels by ascending class value; None = no
        cross-entropy.

    Returns
    -------
    Scores
        Over all images and for each.

    Raises
    ------
    LabelError
        If images are missing on one side, shapes differ, arrays hold no integers, or
        a truth has a value without class.
    """
    names = _matched_names(predictions, truths, "prediction")
    if classes is None:
        classes = _classes_of(predictions, truths, names)
    matrices = {
        name: _confusion(
            _image(truths, name),
            _image(predictions, name),
            classes.values,
            f" of '{name}'",
        )
        for name in names
    }
    loss = None
    if probabilities is not None:
        loss = cross_entropy(truths, probabilities, classes.values)
    total = np.zeros((len(classes), len(classes) + 1), np.int64)
    return scores_from_confusion(
        sum(matrices.values(), start=total),
        classes.names,
        cross_entropy=loss,
        per_image={
            name: _image_scores(matrix, classes.names)
            for name, matrix in matrices.items()
        },
    )


def confusion_matrix(
    truth: NDArray[Any], prediction: NDArray[Any], values: Sequence[int]
) -> NDArray[np.int64]:
    """Count the annotated pixels by true and by predicted class.

    Parameters
    ----------
    truth
        Integer class values, usually (y, x); 0 = not annotated, not counted.
    prediction
        Integer class values of the same shape.
    values
        The C class values, in the order of rows and columns.

    Returns
    -------
    ndarray
        (C, C + 1) int64: rows are true classes, columns predicted ones; the last
        column counts predictions that are no class (0 or an unknown value).

    Raises
    ------
    LabelError
        If the shapes differ, an array holds no integers, or the truth has a value
        that is not among ``values``.
    """
    return _confusion(truth, prediction, values, "")


def dice_from_confusion(confusion: NDArray[np.integer[Any]]) -> list[float | None]:
    """Give the Dice of each class: 2 TP / (2 TP + FP + FN).

    Parameters
    ----------
    confusion
        (C, C) or (C, C + 1) counts, rows are true classes (see `confusion_matrix`).

    Returns
    -------
    list
        C numbers 0..1; None for a class in neither truth nor prediction.
    """
    n_classes = len(confusion)
    right = confusion.diagonal()
    total = confusion.sum(axis=1) + confusion.sum(axis=0)[:n_classes]
    return [
        2 * int(hits) / int(pixels) if pixels else None
        for hits, pixels in zip(right, total, strict=True)
    ]


def scores_from_confusion(
    confusion: NDArray[np.int64],
    names: Sequence[str],
    *,
    cross_entropy: float | None = None,
    per_image: Mapping[str, ImageScores] | None = None,
) -> Scores:
    """Compute all scores that follow from a confusion matrix.

    Parameters
    ----------
    confusion
        (C, C) or (C, C + 1) counts, rows are true classes (see `confusion_matrix`).
    names
        The C class names.
    cross_entropy, per_image
        Handed through to the scores.

    Returns
    -------
    Scores
        With the matrix as it was given.
    """
    scores = _image_scores(confusion, names)
    return Scores(
        scores.dice,
        scores.overall_dice,
        scores.pixel_accuracy,
        cross_entropy,
        confusion,
        dict(per_image or {}),
    )


def cross_entropy(
    truths: Images, probabilities: Images, values: Sequence[int]
) -> float | None:
    """Compute the softmax cross-entropy, a mean over images of means over pixels.

    Of each image the mean of -log p(true class) over its annotated pixels is taken,
    then the mean over the images that have any. Natural logarithm; p is at least
    1.2e-7.

    Parameters
    ----------
    truths
        (y, x) integer class values, 0 = not annotated: one array, a sequence or a
        mapping.
    probabilities
        (c, y, x) floats for each, given in the same way; channel k belongs to
        ``values[k]``.
    values
        The C class values.

    Returns
    -------
    float or None
        None where no pixel is annotated.

    Raises
    ------
    LabelError
        If images are missing on one side, shapes do not match, a truth has a value
        that is not among ``values``, or a probability is not in 0..1.
    """
    names = _matched_names(probabilities, truths, "probabilities")
    losses = [
        _image_cross_entropy(
            _image(truths, name), _image(probabilities, name), values, f" of '{name}'"
        )
        for name in names
    ]
    scored = [loss for loss in losses if loss is not None]
    return float(np.mean(scored)) if scored else None


def _image_scores(confusion: NDArray[np.int64], names: Sequence[str]) -> ImageScores:
    dice = dice_from_confusion(confusion)
    present = [score for score in dice if score is not None]
    pixels = int(confusion.sum())
    return ImageScores(
        dict(zip(names, dice, strict=True)),
        sum(present) / len(present) if present else None,
        int(confusion.trace()) / pixels if pixels else None,
    )


def _confusion(
    truth: NDArray[Any], prediction: NDArray[Any], values: Sequence[int], of: str
) -> NDArray[np.int64]:
    true_labels = narrow_labels(np.asarray(truth), f"truth{of}")
    predicted = narrow_labels(np.asarray(prediction), f"prediction{of}")
    if predicted.shape != true_labels.shape:
        raise LabelError(
            f"The prediction{of} has shape {predicted.shape}, but its truth has shape "
            f"{true_labels.shape}; predict the same image at its full size.",
            prediction_shape=predicted.shape,
            truth_shape=true_labels.shape,
        )
    annotated = true_labels != 0
    rows = _channels(true_labels[annotated], values, of)
    columns = _lookup(values)[predicted[annotated]]
    n_classes = len(values)
    counts = np.bincount(
        rows * (n_classes + 1) + columns, minlength=n_classes * (n_classes + 1)
    )
    return counts.reshape(n_classes, n_classes + 1).astype(np.int64, copy=False)


def _image_cross_entropy(
    truth: NDArray[Any], probabilities: NDArray[Any], values: Sequence[int], of: str
) -> float | None:
    labels = narrow_labels(np.asarray(truth), f"truth{of}")
    given = np.asarray(probabilities)
    if given.shape != (len(values), *labels.shape):
        raise LabelError(
            f"The probabilities{of} have shape {given.shape}, but {len(values)} "
            f"classes and a truth of shape {labels.shape} need the shape "
            f"{(len(values), *labels.shape)}.",
            probabilities_shape=given.shape,
            truth_shape=labels.shape,
        )
    annotated = labels != 0
    if not annotated.any():
        return None
    channels = _channels(labels[annotated], values, of)
    chosen = given[(channels, *np.nonzero(annotated))].astype(np.float64)
    wrong = int(np.count_nonzero(~((chosen >= 0) & (chosen <= 1 + 1e-3))))
    if wrong:
        raise LabelError(
            f"The probabilities{of} are not between 0 and 1 in {wrong} annotated "
            f"{'pixel' if wrong == 1 else 'pixels'}; give the output of the softmax.",
            pixels=wrong,
        )
    return float(-np.log(chosen.clip(SMALLEST_PROBABILITY, 1)).mean())


def _lookup(values: Sequence[int]) -> NDArray[np.int64]:
    """Give the channel of every class value, and C for all others."""
    lookup = np.full(MAX_CLASS_VALUE + 1, len(values), np.int64)
    lookup[np.asarray(values, np.int64)] = np.arange(len(values))
    return lookup


def _channels(
    labels: NDArray[Any], values: Sequence[int], of: str
) -> NDArray[np.int64]:
    """Give the channels of annotated pixels, which all must have a class."""
    channels: NDArray[np.int64] = _lookup(values)[labels]
    unknown = labels[channels == len(values)]
    if unknown.size:
        counts = count_values(unknown)
        raise LabelError(
            f"The truth{of} has values that are no class: {counts_text(counts)}; "
            f"the classes have the values {list(values)}, so give the class table "
            "that belongs to the truth.",
            counts=counts,
        )
    return channels


def _classes_of(
    predictions: Images, truths: Images, names: Sequence[str]
) -> ClassTable:
    values: set[int] = set()
    for name in names:
        for images in (truths, predictions):
            labels = narrow_labels(_image(images, name), f"label map '{name}'")
            values.update(np.unique(labels).tolist())
    return ClassTable.from_values(values)


def _matched_names(given: Images, truths: Images, what: str) -> list[str]:
    """Give the names of the images, the same in both arguments."""
    names, expected = _names(given), _names(truths)
    missing = [name for name in expected if name not in names]
    extra = [name for name in names if name not in expected]
    if missing or extra:
        raise LabelError(
            f"There are {what} of {len(names)} images and truth of {len(expected)}: "
            f"without {what} are {missing[:5]}, without truth {extra[:5]}; "
            "give both for the same images.",
            missing=missing,
            extra=extra,
        )
    return expected


def _names(images: Images) -> list[str]:
    if isinstance(images, Mapping):
        return list(images)
    n_images = 1 if isinstance(images, np.ndarray) else len(images)
    return [str(index) for index in range(n_images)]


def _image(images: Images, name: str) -> NDArray[Any]:
    if isinstance(images, Mapping):
        return images[name]
    return images if isinstance(images, np.ndarray) else images[int(name)]
