"""Patches of cached features: those of the whole image, with the labels there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import Generator, Tensor

from napari_sparseseg.learning import feature_patches
from napari_sparseseg.learning.augmentation import (
    AUGMENTATION_ABDULHAMID,
    AugmentationOptions,
    Flip,
)
from napari_sparseseg.learning.feature_cache import (
    OVERHEAD,
    CachedEncoder,
    FeatureCache,
    half,
)
from napari_sparseseg.learning.feature_patches import (
    FeatureSampler,
    OrientedFeatures,
    bytes_needed,
    bytes_of_block,
    orientations_of,
    oriented,
    oriented_part,
    oriented_place,
)
from napari_sparseseg.learning.options import Recipe, TrainingOptions
from napari_sparseseg.learning.patches import FeaturePatches
from napari_sparseseg.learning.training_set import WorkingImage
from napari_sparseseg.networks.registry import PRESETS, Standardised, build_network
from napari_sparseseg.networks.scoring import EncoderDecoder, pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    """Give an image whose intensities tell its labels, 0.1 where there is none."""
    pixels = ((learned + 1) / 10).expand(3, -1, -1)
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
    found = [oriented(image, number) for number in range(8)]
    assert len({str(each.tolist()) for each in found}) == 8
    assert torch.equal(found[0], image)
    quarter = torch.rot90(image)
    assert any(torch.equal(each, quarter) for each in found if each.shape == (4, 3))
    for number, each in enumerate(found):
        for y in range(3):
            for x in range(4):
                place = oriented_place((y, x), (3, 4), number)
                assert each[place] == image[y, x]
        part = oriented_part(image, (1, 0, 3, 99), number)
        assert torch.equal(part, each[1:3])


@pytest.mark.parametrize("flip", ["none", "one", "any"])
def test_orientations_are_those_of_the_augmentation(flip: Flip) -> None:
    square = torch.arange(9).view(3, 3)
    flips = {
        "none": [square],
        "one": [square, square.flip(0), square.flip(1)],
        "any": [square, square.flip(0), square.flip(1), square.flip(0, 1)],
    }[flip]
    for rotate in (False, True):
        turned = [
            each.rot90(turns) for each in flips for turns in range(4 if rotate else 1)
        ]
        wanted = sorted(each.flatten().tolist() for each in turned)
        found = sorted(
            oriented(square, each).flatten().tolist()
            for each in orientations_of(AugmentationOptions(flip=flip, rotate=rotate))
        )
        # As likely each: of "any" four views, turned, are eight, each of them twice.
        assert sorted(found * (len(wanted) // len(found))) == wanted


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


def test_of_a_part_there_is_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_patches, "BLOCK", 16)
    network, inner = frozen("vgg-fcn")
    encoder = CachedEncoder(inner.encoder, FeatureCache(tmp_path, 99 * MIB))
    features = OrientedFeatures(torch.rand(3, 30, 39), 3, network, encoder)
    assert features.shape == (32, 40)
    (whole,) = features.of((0, 0, 32, 40))
    (part,) = features.of((8, 20, 32, 40))
    assert torch.equal(part, whole[:, 2:, 5:])
    assert part.any()


@pytest.mark.parametrize("shape", [(29, 39), (32, 40), (5, 21), (3, 2)])
def test_the_encoder_sees_the_whole_image_s_surroundings(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    network, inner = frozen("vgg-fcn")
    stride = network.stride
    encoder = CachedEncoder(inner.encoder, FeatureCache(tmp_path, 99 * MIB))
    image = torch.rand(3, *shape)
    for orientation in range(8):
        features = OrientedFeatures(image, orientation, network, encoder)
        x = network.standardise(oriented(image, orientation)[None])
        whole = pad_to_multiple(x, stride)
        assert whole.shape[-2:] == features.shape
        for y0 in range(0, features.shape[0], stride):
            for x0 in range(0, features.shape[1], stride):
                for y1, x1 in ((y0 + stride, x0 + stride), features.shape):
                    found = features._grown((y0, x0, y1, x1))
                    assert torch.equal(found, whole[:, :, y0:y1, x0:x1])


def test_there_is_a_break_after_each_block_that_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_patches, "BLOCK", 16)
    network, inner = frozen("vgg-fcn")
    encoder = CachedEncoder(inner.encoder, FeatureCache(tmp_path, 99 * MIB))
    calls = count_calls(inner)
    features = OrientedFeatures(torch.rand(3, 30, 39), 3, network, encoder)
    encoded = [len(calls) for _ in features.in_parts((0, 0, 32, 40))]
    assert encoded == [1, 2, 3, 4, 5, 6]
    assert not list(features.in_parts((0, 0, 32, 40)))


def test_what_cannot_be_kept_is_as_what_is_kept(tmp_path: Path) -> None:
    network, inner = frozen("vgg-fcn")
    image, region = torch.rand(3, 64, 96), (32, 16, 64, 48)
    found = []
    for name, is_usable in (("disk", True), ("none", False)):
        cache = FeatureCache(tmp_path / name, 99 * MIB)
        cache.is_usable = is_usable
        encoder = CachedEncoder(inner.encoder, cache)
        found.append(OrientedFeatures(image, 0, network, encoder).of(region)[0])
    assert [each.name for each in tmp_path.iterdir()] == ["disk"]
    assert torch.equal(*found)


def test_the_bytes_of_all_orientations_are_foreseen(tmp_path: Path) -> None:
    network, inner = frozen("vgg-fcn")
    encoder = CachedEncoder(inner.encoder, FeatureCache(tmp_path, 99 * MIB))
    images = [working(torch.ones(37, 64, dtype=torch.int64))]
    (level,) = encoder.compute(torch.rand(1, 3, 40, 64))
    assert bytes_needed(images, network, AugmentationOptions()) == 8 * level.nbytes
    assert bytes_needed(images, network, AUGMENTATION_ABDULHAMID) == 3 * level.nbytes
    assert bytes_of_block(images, network) == level.nbytes + OVERHEAD
    large = [working(torch.ones(300, 500, dtype=torch.int64)), *images]
    (level,) = encoder.compute(torch.rand(1, 3, 256, 256))
    assert bytes_of_block(large, network) == level.nbytes + OVERHEAD


# Patches.


class Pixels:
    """An encoder whose features are the pixels, which keeps nothing.

    It writes down the sizes of what keys are made of, for each of which the pixels have
    to be turned and standardised.
    """

    channels, strides, halo = (3,), (1,), (0,)
    cache = SimpleNamespace(
        is_usable=True,
        read=lambda key, windows: [key[(slice(None), *w)] for w in windows],
    )

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def key(self, x: Tensor, _part: object) -> Any:
        self.sizes.append(tuple(x.shape[-2:]))
        return half(x)[0].numpy()


def sampler(
    *images: WorkingImage,
    encoder: Pixels | None = None,
    patch_px: int = 32,
    known: Sequence[OrientedFeatures] = (),
    augmentation: AugmentationOptions | None = None,
) -> FeatureSampler:
    network = SimpleNamespace(stride=8, standardise=lambda x: x)
    recipe = Recipe(
        patch_px=patch_px, augmentation=augmentation or AugmentationOptions()
    )
    return FeatureSampler(
        images,
        TrainingOptions(recipe=recipe),
        cast("Standardised", network),
        cast("CachedEncoder", encoder or Pixels()),
        known,
    )


def large_and_small() -> list[WorkingImage]:
    large = torch.zeros(100, 75, dtype=torch.int64)
    large[3:9, 40:60], large[90:, :4] = 1, 2
    small = torch.zeros(20, 50, dtype=torch.int64)
    small[18, 44:] = 3
    return [working(large), working(small)]


def test_each_patch_has_the_labels_of_its_features_and_some() -> None:
    generator = Generator().manual_seed(0)
    from_images = sampler(*large_and_small())
    places, sizes, values = set(), set(), set()
    for _ in range(200):
        batch = from_images.draw(2, generator)
        images, labels = batch.images, batch.labels
        assert isinstance(images, FeaturePatches)
        assert labels.shape == batch.inside.shape == (2, *images.size)
        assert labels.flatten(1).any(dim=1).all()
        intensities = images.levels[0][:, 0]
        assert intensities.min() > 0.09  # there is nothing that is not of the image
        torch.testing.assert_close(
            intensities[batch.inside],
            (labels[batch.inside] + 1) / 10,
            rtol=0,
            atol=1e-3,
        )
        assert not labels[~batch.inside].any()
        sizes.add(images.size)
        values |= {*labels.unique().tolist()}
        places |= {str(each.nonzero().tolist()) for each in labels if 3 in each}
    assert values == {0, 1, 2, 3}
    # The small image is grown to 24 x 56 pixels, or 56 x 24.
    assert sizes == {(32, 32), (24, 32), (32, 24), (24, 24)}
    # In eight orientations, of which some look alike, and at many places.
    assert len(places) > 8


def test_a_small_image_makes_only_those_drawn_with_it_smaller() -> None:
    generator = Generator().manual_seed(0)
    large, small = large_and_small()
    assert sampler(large, small).draw(40, generator).images.size == (24, 24)
    assert sampler(large).draw(40, generator).images.size == (32, 32)


def test_whole_images_in_the_views_of_the_paper() -> None:
    (large, _) = large_and_small()
    views = sampler(large, patch_px=128, augmentation=AUGMENTATION_ABDULHAMID)
    batch = views.draw(60, Generator().manual_seed(0))
    assert batch.images.size == (104, 80)
    image = large.learned
    expected = [image, image.flip(0), image.flip(1)]
    found = [
        [torch.equal(each[:100, :75], view) for view in expected]
        for each in batch.labels
    ]
    assert all(sum(each) == 1 for each in found)
    assert all(sum(column) > 10 for column in zip(*found, strict=True))


def test_tiles_of_a_regular_grid() -> None:
    learned = torch.arange(1, 40 * 64 + 1).view(40, 64)
    tiled = AugmentationOptions(flip="none", rotate=False, tiling=True)
    tiles = sampler(working(learned), patch_px=24, augmentation=tiled)
    labels = tiles.draw(200, Generator().manual_seed(0)).labels
    corners = {(int(each - 1) // 64, int(each - 1) % 64) for each in labels[:, 0, 0]}
    # The last ones end with the image.
    assert corners == {(y, x) for y in (0, 16) for x in (0, 24, 40)}


def test_new_strokes_on_the_same_image_cost_no_new_look_at_it() -> None:
    encoder = Pixels()
    generator = Generator().manual_seed(0)
    large, small = large_and_small()
    before = sampler(large, small, encoder=encoder)
    before.draw(100, generator)
    assert len(encoder.sizes) == 16
    stroke = torch.zeros_like(large.learned)
    stroke[50:60, 20:30] = 1
    painted = WorkingImage(large.pixels, stroke, torch.zeros_like(stroke), False)
    other = working(small.learned)  # with other pixels
    known = [*before.features.values()]
    after = sampler(painted, other, encoder=encoder, known=known)
    after.draw(100, generator)
    assert sorted(encoder.sizes[16:]) == [(24, 56)] * 4 + [(56, 24)] * 4


def test_only_what_is_encoded_is_turned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turned: list[int] = []

    def counted(x: Tensor, orientation: int) -> Tensor:
        turned.append(x.numel())
        return oriented(x, orientation)

    monkeypatch.setattr(feature_patches, "oriented", counted)
    monkeypatch.setattr(feature_patches, "BLOCK", 16)
    network = cast("Standardised", SimpleNamespace(stride=8, standardise=lambda x: x))
    encoder = cast("CachedEncoder", Pixels())
    image = torch.rand(3, 160, 240)
    features = OrientedFeatures(image, 7, network, encoder)
    features.of((80, 32, 96, 48))
    assert max(turned) <= 3 * 24 * 24
