"""Scores, against scikit-learn and numbers worked out by hand."""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn import metrics as reference

from napari_sparseseg.annotations import ClassTable, LabelClass, read_class_table
from napari_sparseseg.errors import LabelError
from napari_sparseseg.learning.metrics import (
    confusion_matrix,
    cross_entropy,
    dice_from_confusion,
    evaluate,
    scores_from_confusion,
)

# The value 9 is a class that occurs nowhere.
TABLE = ClassTable(
    (
        LabelClass(1, "background", (0, 0, 0)),
        LabelClass(4, "gland", (255, 0, 255)),
        LabelClass(9, "vessel", (255, 0, 0)),
    )
)
TRUTH = np.array([[1, 1, 1, 4], [4, 0, 0, 0]], np.uint8)
PREDICTION = np.array([[1, 4, 0, 4], [7, 9, 9, 1]], np.uint8)


def random_labels(
    rng: np.random.Generator, values: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give a sparse truth and a prediction that is right at about half its pixels."""
    truth = rng.choice([0, *values], (50, 40))
    guess = rng.choice(values, truth.shape)
    right = rng.random(truth.shape) < 0.4
    return truth, np.where(right & (truth != 0), truth, guess)


def test_confusion_counts_annotated_pixels_and_wrong_values_worked_by_hand() -> None:
    # True 1: one right, one taken for 4, one 0. True 4: one right, one unknown (7).
    assert confusion_matrix(TRUTH, PREDICTION, TABLE.values).tolist() == [
        [1, 1, 0, 1],
        [0, 1, 0, 1],
        [0, 0, 0, 0],
    ]


def test_scores_worked_by_hand() -> None:
    scores = evaluate(PREDICTION, TRUTH, TABLE)
    # 2 * 1 / (3 true + 1 predicted), 2 * 1 / (2 true + 2 predicted), nothing at all.
    assert scores.dice == {"background": 0.5, "gland": 0.5, "vessel": None}
    assert scores.overall_dice == 0.5
    assert scores.pixel_accuracy == pytest.approx(2 / 5)
    assert scores.cross_entropy is None


def test_a_class_predicted_but_not_in_the_truth_has_dice_0() -> None:
    scores = evaluate(np.array([[1, 9]]), np.array([[1, 1]]), TABLE)
    assert scores.dice == {
        "background": pytest.approx(2 / 3),
        "gland": None,
        "vessel": 0.0,
    }
    assert scores.overall_dice == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("values", [[1, 2], [3, 4, 70, 300]])
def test_scores_agree_with_scikit_learn(seed: int, values: list[int]) -> None:
    truth, prediction = random_labels(np.random.default_rng(seed), values)
    true, predicted = truth[truth != 0], prediction[truth != 0]
    confusion = confusion_matrix(truth, prediction, values)
    expected = reference.confusion_matrix(true, predicted, labels=values)
    np.testing.assert_array_equal(confusion[:, :-1], expected)
    assert not confusion[:, -1].any()
    scores = evaluate(prediction, truth, ClassTable.from_values(values))
    f1 = reference.f1_score(true, predicted, labels=values, average=None)
    assert list(scores.dice.values()) == pytest.approx(f1.tolist())
    assert scores.overall_dice == pytest.approx(f1.mean())
    assert scores.pixel_accuracy == pytest.approx(
        reference.accuracy_score(true, predicted)
    )


def test_values_keep_the_order_in_which_they_are_given() -> None:
    forward = confusion_matrix(TRUTH, PREDICTION, [1, 4, 9])
    backward = confusion_matrix(TRUTH, PREDICTION, [9, 4, 1])
    np.testing.assert_array_equal(backward, forward[::-1][:, [2, 1, 0, 3]])


def test_dice_is_the_same_without_the_last_column_when_it_is_empty() -> None:
    square = np.array([[3, 1], [2, 4]])
    wide = np.hstack([square, np.zeros((2, 1), int)])
    assert dice_from_confusion(square) == dice_from_confusion(wide) == [6 / 9, 8 / 11]


def test_all_pixels_of_all_images_go_into_one_matrix() -> None:
    rng = np.random.default_rng(3)
    pairs = [random_labels(rng, [1, 4]) for _ in range(3)]
    truths = [truth for truth, _ in pairs]
    predictions = [prediction for _, prediction in pairs]
    scores = evaluate(predictions, truths, TABLE)
    joined = evaluate(np.hstack(predictions), np.hstack(truths), TABLE)
    np.testing.assert_array_equal(scores.confusion, joined.confusion)
    assert scores.dice == joined.dice
    assert list(scores.per_image) == ["0", "1", "2"]
    for name, each in scores.per_image.items():
        alone = evaluate(predictions[int(name)], truths[int(name)], TABLE)
        assert each.dice == alone.dice
        assert each.overall_dice == alone.overall_dice
        assert each.pixel_accuracy == alone.pixel_accuracy


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(logits - logits.max(axis=0))
    powers /= powers.sum(axis=0)
    return powers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_agrees_with_scikit_learn(dtype: type[np.floating[Any]]) -> None:
    rng = np.random.default_rng(1)
    values = [2, 5, 300]
    truth, _ = random_labels(rng, values)
    probabilities = softmax(rng.normal(0, 3, (3, *truth.shape)))
    annotated = truth != 0
    expected = reference.log_loss(
        truth[annotated], probabilities[:, annotated].T, labels=values
    )
    loss = cross_entropy(truth, probabilities.astype(dtype), values)
    assert loss == pytest.approx(expected)


def test_cross_entropy_is_a_mean_over_images_of_means_over_pixels() -> None:
    # Two pixels with p = 1/2 and 1/8, one with 1/4; the third image has no label.
    truths = [np.array([[1, 4, 0]]), np.array([[4, 0]]), np.array([[0]])]
    probabilities = [
        np.array([[[1 / 2, 7 / 8, 1]], [[1 / 2, 1 / 8, 0]]]),
        np.array([[[3 / 4, 0]], [[1 / 4, 1]]]),
        np.array([[[0.5]], [[0.5]]]),
    ]
    expected = ((np.log(2) + np.log(8)) / 2 + np.log(4)) / 2
    assert cross_entropy(truths, probabilities, [1, 4]) == pytest.approx(expected)
    table = TABLE.removed(9)
    scores = evaluate(truths, truths, table, probabilities)
    assert scores.cross_entropy == pytest.approx(expected)
    assert cross_entropy(truths[2:], probabilities[2:], [1, 4]) is None


def test_a_probability_of_zero_costs_much_but_not_everything() -> None:
    loss = cross_entropy(np.array([[1]]), np.array([[[0.0]], [[1.0]]]), [1, 4])
    assert loss == pytest.approx(-np.log(np.finfo(np.float32).eps))


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.5])
def test_numbers_that_are_no_probabilities_are_refused(bad: float) -> None:
    probabilities = np.full((2, 1, 2), 0.5)
    probabilities[0, 0, 0] = bad
    with pytest.raises(LabelError, match="not between 0 and 1 in 1 annotated pixel;"):
        cross_entropy(np.array([[1, 4]]), probabilities, [1, 4])


def test_without_a_class_table_every_value_is_a_class() -> None:
    scores = evaluate(np.array([[1, 300, 0]]), np.array([[1, 2, 0]]), None)
    assert scores.dice == {"class 1": 1.0, "class 2": 0.0, "class 300": 0.0}


def test_nothing_annotated_gives_no_score_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = evaluate(PREDICTION, np.zeros_like(TRUTH), TABLE)
    assert set(scores.dice.values()) == {None}
    assert scores.overall_dice is None
    assert scores.pixel_accuracy is None


def test_json_data_holds_what_the_scores_hold() -> None:
    probabilities = softmax(np.random.default_rng(0).normal(size=(3, *TRUTH.shape)))
    scores = evaluate(
        {"a": PREDICTION}, {"a": TRUTH}, TABLE, {"a": probabilities.astype("f4")}
    )
    data = json.loads(json.dumps(scores.to_json()))
    image = {
        "dice": {"background": 0.5, "gland": 0.5, "vessel": None},
        "overall_dice": 0.5,
        "pixel_accuracy": 0.4,
    }
    assert data == {
        **image,
        "cross_entropy": scores.cross_entropy,
        "confusion": [[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]],
        "per_image": {"a": image},
    }


def test_scores_need_a_name_for_every_class() -> None:
    with pytest.raises(ValueError, match="zip"):
        scores_from_confusion(np.eye(3, dtype=np.int64), ["a", "b"])


class Lazy(Mapping[str, NDArray[np.uint8]]):
    """Images that are made when asked for, and counted."""

    def __init__(self, images: dict[str, NDArray[np.uint8]]) -> None:
        self.images = images
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        self.asked.append(name)
        return self.images[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)


def test_images_are_asked_for_once_each_and_matched_by_name() -> None:
    truths = Lazy({"a": TRUTH, "b": TRUTH[::-1]})
    predictions = Lazy({"b": TRUTH[::-1], "a": TRUTH})
    scores = evaluate(predictions, truths, TABLE)
    assert scores.pixel_accuracy == 1.0
    assert truths.asked == predictions.asked == ["a", "b"]


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (TRUTH.T, TRUTH, r"prediction of '0' has shape \(4, 2\).*\(2, 4\)"),
        (TRUTH / 2, TRUTH, "prediction of '0' has pixels of type float64"),
        (TRUTH, TRUTH / 2, "truth of '0' has pixels of type float64"),
        (TRUTH, TRUTH + 1, "truth of '0' has values that are no class: 2 in 3 pixels"),
        ({"a": TRUTH}, {"b": TRUTH}, r"without prediction are \['b'\], .*\['a'\]"),
        ([TRUTH, TRUTH], [TRUTH], r"prediction of 2 images and truth of 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    prediction: Any, truth: Any, message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        evaluate(prediction, truth, TABLE)


def test_probabilities_of_another_shape_are_refused_with_both() -> None:
    probabilities = np.full((2, 2, 4), 0.5)
    with pytest.raises(LabelError, match=r"\(2, 2, 4\).* need the shape \(3, 2, 4\)"):
        evaluate(PREDICTION, TRUTH, TABLE, probabilities)


def test_real_truth_scores_itself_fully_and_its_strokes_too(data_dir: Path) -> None:
    table = read_class_table(data_dir / "glas" / "classes.json")
    folders = [data_dir / "glas" / "train" / name for name in ("dense", "strokes_1pct")]
    dense, strokes = (
        {
            file.stem: np.array(Image.open(file))
            for file in sorted(folder.glob("*.png"))[:5]
        }
        for folder in folders
    )
    scores = evaluate(dense, strokes, table)
    assert scores.dice == {"background": 1.0, "gland": 1.0}
    n_strokes = sum(np.count_nonzero(labels) for labels in strokes.values())
    assert scores.confusion.sum() == n_strokes
    # The strokes leave most of a dense truth unanswered, which counts as wrong.
    missed = evaluate(strokes, dense, table)
    n_pixels = sum(labels.size for labels in dense.values())
    assert missed.pixel_accuracy == pytest.approx(n_strokes / n_pixels)
