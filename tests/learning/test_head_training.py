"""The head on a training set: its features are centred where that helps elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.learning.head_fitting import HeadOptions
from napari_sparseseg.learning.head_training import FEWEST_IMAGES, HeadTraining
from napari_sparseseg.learning.options import TrainingOptions
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
from napari_sparseseg.networks.fixed_features import FixedFeatures

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 48
CLASSES = ClassTable.from_values([1, 2])
OPTIONS = TrainingOptions(scale=1.0, head=HeadOptions(steps=150, batch=256))

MakeImage = Callable[[int, int], TrainingImage]


def painted(
    number: int, pixels: NDArray[np.float64], truth: NDArray[np.uint8]
) -> TrainingImage:
    """Annotate single pixels of an image, with a little noise in it."""
    rng = np.random.default_rng(number)
    labels = np.where(rng.random(truth.shape) < 0.03, truth, 0).astype(np.uint8)
    noisy = pixels + rng.normal(0, 0.01, pixels.shape)
    return TrainingImage(f"image {number}", noisy.clip(0, 1).astype(np.float32), labels)


def stained(number: int, n_images: int) -> TrainingImage:
    """Draw an image in which a class is told only by what is beside it."""
    truth = np.ones((SIDE, SIDE), np.uint8)
    truth[:, SIDE // 2 :] = 2
    # Even and odd numbers, the halves that are compared, lie apart.
    base = 0.2 + 0.5 * (number * 3 % n_images) / n_images
    return painted(number, base + 0.1 * (truth == 2), truth)


def filled(number: int, n_images: int) -> TrainingImage:
    """Draw an image of which one class fills nearly all; intensity alone tells it."""
    truth = np.full((SIDE, SIDE), 1 + number // 2 % 2, np.uint8)
    truth[:, : SIDE // 6] = 3 - truth[0, 0]
    return painted(number, np.where(truth == 2, 0.55, 0.45), truth)


def training_set(make: MakeImage, n_images: int) -> TrainingSet:
    images = [make(number, n_images) for number in range(n_images)]
    return TrainingSet(images, CLASSES, Normalisation("range", 0, 1), seed=0)


@pytest.mark.parametrize(("make", "centring"), [(stained, 0.5), (filled, 0.0)])
def test_centring_is_what_does_best_on_images_left_out(
    make: MakeImage, centring: float
) -> None:
    data = training_set(make, 8)
    training = HeadTraining(data, OPTIONS)
    training.fit(data)
    assert training.centring == 0
    assert finish(training.find_centring(data)) == (centring > 0)
    assert training.centring == centring


def test_centring_is_decided_anew_only_with_more_images() -> None:
    data = training_set(stained, 8)
    training = HeadTraining(data, OPTIONS)
    training.fit(data)
    assert finish(training.find_centring(data))
    training.centring = 0.0
    assert not finish(training.find_centring(data))
    data.put(stained(8, 9))
    training.fit(data)
    assert finish(training.find_centring(data))


def test_few_images_say_nothing_of_others() -> None:
    data = training_set(stained, FEWEST_IMAGES - 1)
    training = HeadTraining(data, OPTIONS)
    training.fit(data)
    assert not finish(training.find_centring(data))


def test_the_head_that_predicts_centres_as_the_one_that_was_fitted() -> None:
    data = training_set(stained, 8)
    training = HeadTraining(data, OPTIONS)
    training.fit(data)
    finish(training.find_centring(data))
    network = training.fit(data)[0].network
    image = stained(3, 8)
    x = torch.from_numpy(np.asarray(image.pixels))[None, None]
    features = FixedFeatures(1)(x)
    centred = features - 0.5 * features.mean(dim=(2, 3), keepdim=True)
    expected = network.head(centred[0].permute(1, 2, 0)).permute(2, 0, 1)
    torch.testing.assert_close(network(x)[0], expected)
    place = torch.from_numpy(image.labels > 0)
    truth = torch.from_numpy(image.labels)[place]
    right = expected.argmax(dim=0)[place] + 1 == truth
    assert right.float().mean() > 0.97


def test_what_was_found_out_is_kept() -> None:
    data = training_set(stained, 8)
    training, other = HeadTraining(data, OPTIONS), HeadTraining(data, OPTIONS)
    training.fit(data)
    finish(training.find_centring(data))
    other.load_state(training.state())
    assert (other.scale, other.centring) == (1.0, 0.5)
    assert not finish(other.find_centring(data))
