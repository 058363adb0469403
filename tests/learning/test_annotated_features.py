"""Features around strokes are those of the whole image, and computed only once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.learning.annotated_features import (
    BLOCK,
    AnnotatedFeatures,
    LabelledFeatures,
)
from napari_sparseseg.learning.feature_cache import FeatureCacheOptions
from napari_sparseseg.learning.head_training import first_pretrained
from napari_sparseseg.learning.options import TrainingOptions
from napari_sparseseg.learning.parts import advance, finish
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
from napari_sparseseg.networks.fixed_features import FixedFeatures
from napari_sparseseg.networks.image_statistics import measure_image
from napari_sparseseg.networks.pixel_head import HeadNetwork
from napari_sparseseg.networks.pretrained_features import PretrainedFeatures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_sparseseg.learning.feature_cache import FeatureCacheUse

#: At half the resolution two and a half blocks high, and two wide.
SHAPE = (5 * BLOCK + 3, 4 * BLOCK - 7)

#: Rows and columns of strokes: five blocks are annotated, the second lies in four.
STROKES = ((3, 2), (500, 490), (700, 20), (1270, 900), (1282, 1010))

SCALE = 0.5


def painted(n_channels: int = 3) -> TrainingImage:
    """Draw noise with a stroke across the seam of four blocks and one in a corner."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*SHAPE, n_channels), dtype=np.uint8)
    labels = np.zeros(SHAPE, np.uint8)
    for number, (row, column) in enumerate(STROKES):
        labels[row : row + 30, column : column + 40] = 1 + number % 2
    return TrainingImage("image", pixels, labels)


def training_set(*images: TrainingImage) -> TrainingSet:
    classes = ClassTable.from_values([1, 2, 4])
    return TrainingSet(images, classes, Normalisation("range", 0, 255), seed=0)


def whole(
    data: TrainingSet, name: str, pretrained: PretrainedFeatures | None
) -> dict[tuple[int, bool], torch.Tensor]:
    """Return sorted features of a whole image by channel and held out, at SCALE."""
    working = data.working(name, SCALE)
    x = working.pixels[None]
    features = FixedFeatures(data.n_channels)(x)[0]
    if pretrained is not None:
        others = pretrained.rows(pretrained.maps(x), 0, *x.shape[-2:])[0]
        features = torch.cat([features, others])
    found = {}
    for held_out, labels in enumerate((working.learned, working.held_out)):
        for channel in range(len(data.classes)):
            rows = features[:, labels == channel + 1].T
            found[channel, bool(held_out)] = in_order(rows)
    return found


def in_order(features: torch.Tensor) -> torch.Tensor:
    """Sort rows by the pixel's own intensity, then by the features next to it."""
    order = np.lexsort(features[:, :3].flip(1).T.numpy())
    return features[torch.from_numpy(order)]


def assert_are_of_whole(
    found: LabelledFeatures,
    data: TrainingSet,
    name: str,
    pretrained: PretrainedFeatures | None = None,
) -> None:
    expected = whole(data, name, pretrained)
    assert len(found.channels) == sum(len(rows) for rows in expected.values()) > 0
    for (channel, held_out), rows in expected.items():
        mine = (found.channels == channel) & (found.held_out == held_out)
        torch.testing.assert_close(
            in_order(found.features[mine]),
            rows,
            atol=2e-4 if pretrained is None else 2e-2,
            rtol=1e-4 if pretrained is None else 2e-3,
        )


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the working pixels that features are computed of, as it goes on."""
    pixels: list[int] = []
    forward: Callable[..., Any] = FixedFeatures.forward

    def counted(self: FixedFeatures, x: torch.Tensor) -> torch.Tensor:
        pixels.append(x.shape[-2] * x.shape[-1])
        result: torch.Tensor = forward(self, x)
        return result

    monkeypatch.setattr(FixedFeatures, "forward", counted)
    return pixels


@pytest.mark.parametrize("n_channels", [1, 3])
def test_they_are_those_of_the_whole_image(n_channels: int) -> None:
    data = training_set(painted(n_channels))
    kept = AnnotatedFeatures(n_channels, "cpu")
    found = finish(kept.in_parts(data, data.images["image"], SCALE, 0))
    assert_are_of_whole(found, data, "image")


@pytest.mark.parametrize("use", ["on", "off"])
def test_those_of_an_encoder_are_those_of_the_whole_image(
    tmp_path: Path, use: FeatureCacheUse
) -> None:
    options = TrainingOptions(
        head_features="resnet18", feature_cache=FeatureCacheOptions(use, tmp_path)
    )
    pretrained = first_pretrained(options, 3)
    assert pretrained is not None
    data = training_set(painted())
    kept = AnnotatedFeatures(3, "cpu", pretrained)
    for _ in range(2):  # computed, and read
        found = finish(kept.in_parts(data, data.images["image"], SCALE, 0))
        kept = AnnotatedFeatures(3, "cpu", pretrained)
    assert any(tmp_path.iterdir()) == (use == "on")
    pretrained.remembered = None
    assert_are_of_whole(found, data, "image", pretrained)


def test_only_fixed_features_are_centred() -> None:
    data = training_set(painted())
    pretrained = PretrainedFeatures("resnet18")
    kept = AnnotatedFeatures(3, "cpu", pretrained)
    plain, centred = (
        finish(kept.in_parts(data, data.images["image"], SCALE, share)).features
        for share in (0, 0.5)
    )
    n_fixed = FixedFeatures(3).n_features
    assert torch.equal(plain[:, n_fixed:], centred[:, n_fixed:])
    assert not torch.equal(plain[:, :n_fixed], centred[:, :n_fixed])


def test_a_stroke_costs_its_surroundings_only(computed: list[int]) -> None:
    data = training_set(painted())
    kept = AnnotatedFeatures(3, "cpu")
    finish(kept.in_parts(data, data.images["image"], SCALE, 0))
    assert sum(computed) < 0.5 * data.working_pixels(SCALE)

    changed = dataclasses.replace(
        data.images["image"], labels=data.images["image"].labels.copy()
    )
    changed.labels[900:910, 300:320] = 4  # where nothing was
    changed.labels[700:704, 20:24] = 0  # erased beside what stays
    changed.labels[1282, 1010:] = 2  # painted over
    data.put(changed)
    computed.clear()
    found = finish(kept.in_parts(data, changed, SCALE, 0))
    assert len(computed) == 2  # blocks
    assert_are_of_whole(found, data, "image")

    computed.clear()
    assert finish(kept.in_parts(data, changed, SCALE, 0)) is found
    assert not computed


def test_they_follow_pixels_classes_and_what_is_held_out() -> None:
    data = training_set(painted())
    kept = AnnotatedFeatures(3, "cpu")
    image = data.images["image"]
    finish(kept.in_parts(data, image, SCALE, 0))

    data.classes = ClassTable.from_values([1, 2, 3, 4])
    data.held_out.restore("image", image.labels, np.flatnonzero(image.labels == 2))
    found = finish(kept.in_parts(data, image, SCALE, 0))
    assert torch.equal(found.held_out, found.channels == 1)
    assert_are_of_whole(found, data, "image")

    data.put(dataclasses.replace(image, pixels=255 - image.pixels))
    found = finish(kept.in_parts(data, data.images["image"], SCALE, 0))
    assert_are_of_whole(found, data, "image")


def test_what_was_computed_before_a_stop_is_not_computed_again(
    computed: list[int],
) -> None:
    data = training_set(painted())
    kept = AnnotatedFeatures(3, "cpu")
    image = data.images["image"]
    parts = kept.in_parts(data, image, SCALE, 0)
    while len(computed) < 3:
        assert advance(parts) is None
    parts.close()
    found = finish(kept.in_parts(data, image, SCALE, 0))
    assert len(computed) == 5  # blocks
    assert_are_of_whole(found, data, "image")


def test_centred_by_what_a_prediction_takes_away() -> None:
    data = training_set(painted())
    kept = AnnotatedFeatures(3, "cpu")
    image = data.images["image"]
    plain = finish(kept.in_parts(data, image, SCALE, 0))
    centred = finish(kept.in_parts(data, image, SCALE, 0.5))
    network = HeadNetwork(3, 3)
    network.centring.share.fill_(0.5)
    (mean,) = measure_image(network, data.pixels_at("image", SCALE))
    torch.testing.assert_close(centred.features, plain.features - 0.5 * mean)
    assert mean.abs().max() > 0.1


def test_an_image_without_strokes_has_none() -> None:
    blank = dataclasses.replace(painted(), labels=np.zeros(SHAPE, np.uint8))
    data = training_set(blank)
    kept = AnnotatedFeatures(3, "cpu")
    found = finish(kept.in_parts(data, blank, SCALE, 0.5))
    assert found.features.shape == (0, FixedFeatures(3).n_features)
    assert len(found.channels) == len(found.held_out) == 0
