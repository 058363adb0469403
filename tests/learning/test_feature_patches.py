"""Patches of cached features: those of the whole image, with the labels there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import Generator, Tensor

from napari_sparseseg.learning import feature_patches
from napari_sparseseg.learning.feature_cache import CachedEncoder, FeatureCache, half
from napari_sparseseg.learning.feature_patches import (
    ORIENTATIONS,
    FeatureSampler,
    OrientedFeatures,
    bytes_needed,
    oriented,
    oriented_place,
)
from napari_sparseseg.learning.patches import FeaturePatches
from napari_sparseseg.learning.training_set import WorkingImage
from napari_sparseseg.networks.registry import PRESETS, Standardised, build_network
from napari_sparseseg.networks.scoring import EncoderDecoder

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sparseseg.networks.network_names import NetworkName

MIB = 1 << 20


def frozen(name: NetworkName) -> tuple[Standardised, EncoderDecoder]:
    torch.manual_seed(0)
    network = build_network(PRESETS[name]["light"], 3, 2).eval()
    inner = network.network
    assert isinstance(inner, EncoderDecoder)
    inner.freeze_encoder()
    return network, inner


def working(learned: Tensor) -> WorkingImage:
    """Give an image whose intensities tell its labels."""
    pixels = (learned / 10).expand(3, -1, -1)
    return WorkingImage(pixels, learned, torch.zeros_like(learned), False)


def count_calls(inner: EncoderDecoder) -> list[tuple[int, int]]:
    shapes: list[tuple[int, int]] = []
    inner.encoder.register_forward_hook(
        lambda _encoder, given, _result: shapes.append(tuple(given[0].shape[-2:]))
    )
    return shapes


# Orientations.


def test_there_are_eight_orientations_and_places_follow_them() -> None:
    image = torch.arange(12).view(3, 4)
    found = [oriented(image, number) for number in range(ORIENTATIONS)]
    assert len({str(each.tolist()) for each in found}) == 8
    assert torch.equal(found[0], image)
    quarter = torch.rot90(image)
    assert any(torch.equal(each, quarter) for each in found if each.shape == (4, 3))
    for number, each in enumerate(found):
        for y in range(3):
            for x in range(4):
                place = oriented_place((y, x), (3, 4), number)
                assert each[place] == image[y, x]


# Features.


@pytest.mark.parametrize("name", ["deeplabv3", "unet-vgg16", "vgg-fcn"])
@pytest.mark.parametrize("orientation", [0, 6])
def test_the_decoder_scores_cached_features_as_the_network_scores_the_image(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: NetworkName,
    orientation: int,
) -> None:
    monkeypatch.setattr(feature_patches, "BLOCK", 64)  # of an image of six blocks
    network, inner = frozen(name)
    encoder = CachedEncoder(inner.encoder, FeatureCache(tmp_path, 99 * MIB))
    image = torch.rand(3, 90, 150)
    size = (90, 150) if orientation == 0 else (150, 90)
    with torch.inference_mode():
        expected = network(oriented(image, orientation)[None])
    calls = count_calls(inner)
    for _ in range(2):
        features = OrientedFeatures(image, orientation, network, encoder)
        levels = features.of((0, 0, *features.shape))
        with torch.inference_mode():
            found = inner.decode(tuple(each[None] for each in levels), size)
        largest = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * largest)
    assert len(calls) == len(list(tmp_path.iterdir())) == 6


def test_of_a_part_there_is_the_part_and_nothing_beyond_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_patches, "BLOCK", 16)
    network, inner = frozen("vgg-fcn")
    encoder = CachedEncoder(inner.encoder, FeatureCache(tmp_path, 99 * MIB))
    features = OrientedFeatures(torch.rand(3, 30, 39), 3, network, encoder)
    assert features.shape == (32, 40)
    (whole,) = features.of((0, 0, 32, 40))
    (part,) = features.of((8, 20, 40, 52))
    assert part.shape == (whole.shape[0], 8, 8)
    assert torch.equal(part[:, :6, :5], whole[:, 2:, 5:])
    assert not part[:, 6:].any() and not part[:, :, 5:].any()
    assert part[:, :6, :5].any()


def test_without_a_cache_a_patch_is_encoded_alone(tmp_path: Path) -> None:
    network, inner = frozen("vgg-fcn")
    cache = FeatureCache(tmp_path, 99 * MIB)
    cache.is_usable = False
    image, calls = torch.rand(3, 64, 96), count_calls(inner)
    features = OrientedFeatures(image, 0, network, CachedEncoder(inner.encoder, cache))
    (found,) = features.of((32, 16, 64, 48))
    assert calls == [(32, 32)]
    assert not any(tmp_path.iterdir())
    with torch.inference_mode():
        (expected,) = inner.encode(network.standardise(image[None, :, 32:64, 16:48]))
    assert torch.equal(found, half(expected)[0].float())


def test_the_bytes_of_all_orientations_are_foreseen(tmp_path: Path) -> None:
    network, inner = frozen("vgg-fcn")
    encoder = CachedEncoder(inner.encoder, FeatureCache(tmp_path, 99 * MIB))
    images = [working(torch.ones(40, 64, dtype=torch.int64))]
    (level,) = encoder.compute(torch.rand(1, 3, 40, 64))
    assert bytes_needed(images, network) == 8 * level.nbytes


# Patches.


class Pixels:
    """An encoder whose features are the pixels, which keeps nothing."""

    channels, strides, halo = (3,), (1,), (0,)
    cache = SimpleNamespace(is_usable=True, read=lambda *_: None, write=lambda *_: None)

    def key(self, _x: Tensor, _part: object) -> str:
        return ""

    def compute(self, x: Tensor) -> list[Any]:
        return [half(x)[0].numpy()]


def sampler(*learned: Tensor, patch_px: int = 32) -> FeatureSampler:
    network = SimpleNamespace(stride=8, standardise=lambda x: x)
    return FeatureSampler(
        [working(each) for each in learned],
        cast("Standardised", network),
        cast("CachedEncoder", Pixels()),
        patch_px=patch_px,
        by="class",
        dense_share=0.2,
    )


def test_each_patch_has_the_labels_of_its_features_and_some() -> None:
    generator = Generator().manual_seed(0)
    large = torch.zeros(100, 75, dtype=torch.int64)
    large[3:9, 40:60], large[90:, :4] = 1, 2
    small = torch.zeros(20, 50, dtype=torch.int64)
    small[18, 44:] = 3
    batch = sampler(large, small).draw(300, generator)
    images, labels = batch.images, batch.labels
    assert isinstance(images, FeaturePatches)
    assert images.size == (32, 32)
    assert labels.shape == batch.inside.shape == (300, 32, 32)
    assert labels.flatten(1).any(dim=1).all()
    intensities = torch.where(batch.inside, images.levels[0][:, 0], 0)
    torch.testing.assert_close(intensities, labels / 10, rtol=0, atol=1e-3)
    assert labels.unique().tolist() == [0, 1, 2, 3]
    third = (labels == 3).flatten(1).any(dim=1)
    # In eight orientations, of which some look alike, and at many places.
    assert len({str(each.nonzero().tolist()) for each in labels[third]}) > 8
    # It is grown to 24 x 56 pixels, so a patch may end beyond its right side.
    assert {int(each.sum()) for each in batch.inside[third]} == {20 * 32, 20 * 26}
