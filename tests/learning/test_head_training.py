"""The head on a training set: its features are centred where that helps elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import zarr
from zarr.storage import ZipStore

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.learning import annotated_features
from napari_sparseseg.learning.feature_cache import FeatureCacheOptions
from napari_sparseseg.learning.head_fitting import HeadOptions
from napari_sparseseg.learning.head_training import FEWEST_IMAGES, HeadTraining
from napari_sparseseg.learning.options import TrainingOptions
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
from napari_sparseseg.networks.encoders import Encoder
from napari_sparseseg.networks.fixed_features import FixedFeatures

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.learning.feature_cache import FeatureCacheUse

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
    other.load_state(*training.state())
    assert (other.scale, other.centring) == (1.0, 0.5)
    assert not finish(other.find_centring(data))


# Pretrained features.


def strokes(*places: tuple[int, int], side: int = 300) -> TrainingSet:
    """Annotate squares of both classes at places of an image of four blocks."""
    rng = np.random.default_rng(0)
    labels = np.zeros((side, side), np.uint8)
    for y, x in places:
        labels[y : y + 4, x : x + 4] = 1
        labels[y : y + 4, x + 6 : x + 10] = 2
    pixels = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    image = TrainingImage("image", pixels, labels)
    return TrainingSet(
        [image], CLASSES, Normalisation("range", 0, 255), seed=0, holds_out=False
    )


def with_resnet(use: FeatureCacheUse, folder: Path) -> TrainingOptions:
    return dataclasses.replace(
        OPTIONS,
        head=HeadOptions(steps=5, batch=64),
        head_features="resnet18",
        feature_cache=FeatureCacheOptions(use, folder),
    )


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return the sizes of what encoders are given, as it goes on."""
    sizes: list[tuple[int, ...]] = []
    forward: Callable[..., Any] = Encoder.forward

    def counted(self: Encoder, x: torch.Tensor) -> Any:
        sizes.append(tuple(x.shape[-2:]))
        return forward(self, x)

    monkeypatch.setattr(Encoder, "forward", counted)
    return sizes


def test_the_encoder_runs_once_for_each_block_however_many_strokes_there_are(
    tmp_path: Path, encoded: list[tuple[int, ...]]
) -> None:
    places = [(20, 20), (100, 100)]
    data = strokes(*places)
    training = HeadTraining(data, with_resnet("on", tmp_path))
    training.fit(data)
    assert len(encoded) == 1
    for place, n_calls in (((200, 30), 1), ((30, 200), 1), ((280, 20), 2)):
        places.append(place)
        data.put(*strokes(*places).images.values())
        training.fit(data)
        assert len(encoded) == n_calls
    HeadTraining(data, with_resnet("on", tmp_path)).fit(data)
    assert len(encoded) == 2
    HeadTraining(data, with_resnet("off", tmp_path)).fit(data)
    assert len(encoded) == 4


def test_no_encoder_is_built_for_a_head_that_is_not_wanted(tmp_path: Path) -> None:
    options = dataclasses.replace(
        with_resnet("off", tmp_path),
        head_start=False,
        encoder_weights=str(tmp_path / "missing.safetensors"),
    )
    HeadTraining(strokes((20, 20)), options)  # reads no weights


def test_of_many_labelled_pixels_some_of_each_class_have_pretrained_features(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(annotated_features, "MOST_WITH_PRETRAINED", 10)
    data = strokes((20, 20), (240, 245), (280, 282))
    labels = data.images["image"].labels.copy()
    labels[100:200, 100:200] = 2
    data.put(dataclasses.replace(data.images["image"], labels=labels))
    training = HeadTraining(data, with_resnet("off", tmp_path))
    found = finish(training._features.in_parts(data, data.images["image"], 1.0, 0.0))
    blocks = 3  # the second stroke lies in two
    assert 10 <= int((found.channels == 0).sum()) <= 10 * blocks
    assert 10 <= int((found.channels == 1).sum()) <= 10 * blocks


def test_the_bytes_of_pretrained_features_are_foreseen(tmp_path: Path) -> None:
    data = strokes((20, 20), (20, 280), (280, 20), (280, 282))  # in each block
    training = HeadTraining(data, with_resnet("on", tmp_path))
    training.fit(data)
    files = [*tmp_path.iterdir()]
    assert len(files) == 4
    kept = 0
    for path in files:
        with ZipStore(path, mode="r") as store:
            group: Any = zarr.open_group(store, mode="r")
            kept += sum(array.nbytes for array in group.array_values())
    assert training.cache_bytes(data) == kept
    assert HeadTraining(data, with_resnet("off", tmp_path)).cache_bytes(data) == 0
    assert HeadTraining(data, OPTIONS).cache_bytes(data) == 0
