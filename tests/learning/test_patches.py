"""Patches are drawn where something is annotated, and from what may be learned."""

import dataclasses
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.learning.augmentation import AugmentationOptions
from napari_sparseseg.learning.held_out import HELD_OUT
from napari_sparseseg.learning.options import Recipe, TrainingOptions
from napari_sparseseg.learning.patches import LabelledPixels, PatchSampler
from napari_sparseseg.learning.training_set import (
    TrainingImage,
    TrainingSet,
    WorkingImage,
)

#: Patches as they lie in the image.
PLAIN = AugmentationOptions(
    flip="none",
    rotate=False,
    zoom=(1.0, 1.0),
    elastic_px=0.0,
    blur_px=(0.0, 0.0),
    gamma=(1.0, 1.0),
    contrast=(1.0, 1.0),
    saturation=(1.0, 1.0),
    stain=0.0,
    noise=0.0,
)


def working(learned: Tensor, *, dense: bool = False) -> WorkingImage:
    """Give an image of which *learned* (H, W) is annotated."""
    pixels = torch.full((3, *learned.shape), 0.5)
    return WorkingImage(pixels, learned, torch.zeros_like(learned), dense)


def sampler(
    images: list[WorkingImage],
    *,
    patch_px: int = 32,
    by: Literal["class", "image"] = "class",
    dense_share: float = 0.2,
    augmentation: AugmentationOptions | None = None,
) -> PatchSampler:
    recipe = Recipe(
        patch_px=patch_px,
        draw=by,
        augmentation=augmentation or AugmentationOptions(),
    )
    return PatchSampler(
        images, TrainingOptions(recipe=recipe, dense_share=dense_share), stride=4
    )


def dots(*places: tuple[int, int], shape: tuple[int, int] = (128, 96)) -> Tensor:
    """Give a label map with a dot of 3 x 3 pixels at each place, classes 1, 2, ..."""
    labels = torch.zeros(shape, dtype=torch.int64)
    for value, (y, x) in enumerate(places, start=1):
        labels[y - 1 : y + 2, x - 1 : x + 2] = value
    return labels


def test_every_patch_has_a_label_even_of_a_single_dot() -> None:
    images = [working(dots((40, 50))), working(dots((1, 1), (126, 94)))]
    batch, labels, _ = sampler(images).draw(200, Generator().manual_seed(0))
    assert batch.shape == (200, 3, 32, 32)
    assert labels.shape == (200, 32, 32)
    assert labels.flatten(1).any(dim=1).all()
    assert batch.min() >= 0
    assert batch.max() <= 1


def test_a_label_lies_anywhere_in_its_patch_not_always_in_the_middle() -> None:
    drawn = sampler([working(dots((60, 50)))], augmentation=PLAIN)
    _, labels, _ = drawn.draw(200, Generator().manual_seed(0))
    places = labels.nonzero()[:, 1:].float()
    assert places.min(dim=0).values.max() < 6
    assert places.max(dim=0).values.min() > 25


def test_held_out_pixels_are_not_drawn() -> None:
    learned, held_out = dots((40, 50)), dots((90, 20))
    image = dataclasses.replace(working(learned), held_out=held_out)
    pixels = LabelledPixels([image], [0])
    draws = [pixels.draw("class", Generator().manual_seed(seed)) for seed in range(50)]
    assert all(learned[y, x] for _, y, x in draws)


def unbalanced() -> list[WorkingImage]:
    """Give two images with 4000 pixels of class 1, and one image with 9 of class 2."""
    common = torch.zeros(128, 96, dtype=torch.int64)
    common[:, :31] = 1
    return [working(common), working(common), working(dots((0, 0), (60, 50)))]


def test_by_class_all_classes_are_drawn_equally_often() -> None:
    images = unbalanced()
    pixels = LabelledPixels(images, range(3))
    generator = Generator().manual_seed(0)
    draws = [pixels.draw("class", generator) for _ in range(600)]
    values = [int(images[image].learned[y, x]) for image, y, x in draws]
    assert values.count(1) == pytest.approx(300, abs=60)
    assert values.count(2) == pytest.approx(300, abs=60)


def test_by_image_all_images_are_drawn_equally_often() -> None:
    images = unbalanced()
    pixels = LabelledPixels(images, range(3))
    generator = Generator().manual_seed(0)
    draws = [pixels.draw("image", generator) for _ in range(600)]
    for index in range(3):
        count = sum(image == index for image, _, _ in draws)
        assert count == pytest.approx(200, abs=50)
    assert all(images[image].learned[y, x] for image, y, x in draws)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_dense_images_are_drawn_with_their_share(share: float) -> None:
    sparse, dense = dots((60, 50)), torch.full((128, 96), 2)
    images = [working(sparse), working(sparse), working(dense, dense=True)]
    drawn = sampler(images, dense_share=share, patch_px=8, augmentation=PLAIN)
    _, labels, _ = drawn.draw(500, Generator().manual_seed(0))
    found = (labels == 2).flatten(1).any(dim=1).float().mean().item()
    assert found == pytest.approx(share, abs=0.06 if 0 < share < 1 else 0)


@pytest.mark.parametrize("dense", [False, True])
def test_one_kind_of_image_is_drawn_whatever_the_share(dense: bool) -> None:
    images = [working(dots((60, 50)), dense=dense)]
    drawn = sampler(images, dense_share=0.0 if dense else 1.0)
    _, labels, _ = drawn.draw(20, Generator().manual_seed(0))
    assert labels.flatten(1).any(dim=1).all()


def coordinates(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Give an image (y, x, 3) whose colours tell where a pixel lies."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([y, x, np.zeros_like(y)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "corners"),
    [
        ((64, 96), {(y, x) for y in (0, 32) for x in (0, 32, 64)}),
        # The last tiles end with the image.
        ((40, 75), {(y, x) for y in (0, 8) for x in (0, 32, 43)}),
    ],
)
def test_tiles_lie_on_a_regular_grid(
    shape: tuple[int, int], corners: set[tuple[int, int]]
) -> None:
    pixels = torch.from_numpy(coordinates(shape)).movedim(-1, 0).float() / 255
    learned = torch.ones(shape, dtype=torch.int64)
    image = dataclasses.replace(working(learned), pixels=pixels)
    drawn = sampler([image], augmentation=dataclasses.replace(PLAIN, tiling=True))
    batch, labels, inside = drawn.draw(200, Generator().manual_seed(0))
    upper_left = (batch[:, :2, 0, 0] * 255).round().int()
    assert {(y, x) for y, x in upper_left.tolist()} == corners
    assert inside.all()
    assert labels.all()


def test_a_tile_holds_the_pixel_that_was_drawn() -> None:
    tiles = dataclasses.replace(PLAIN, tiling=True)
    drawn = sampler([working(dots((40, 50), (100, 90)))], augmentation=tiles)
    _, labels, _ = drawn.draw(50, Generator().manual_seed(0))
    assert {int(each.max()) for each in labels} == {1, 2}


def test_an_image_no_larger_than_a_patch_is_one_tile_the_whole_of_it() -> None:
    learned = torch.ones(20, 30, dtype=torch.int64)
    tiles = dataclasses.replace(PLAIN, tiling=True)
    batch, labels, inside = sampler([working(learned)], augmentation=tiles).draw(
        5, Generator().manual_seed(0)
    )
    assert batch.shape[2:] == (32, 32)
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[:20, :30] = True
    assert torch.equal(inside, expected.expand(5, -1, -1))
    assert torch.equal(labels != 0, inside)


def test_held_out_strokes_never_come_as_labels() -> None:
    shape = (120, 120)
    labels = np.zeros(shape, np.uint8)
    for index, (y, x) in enumerate(np.ndindex(10, 10)):
        labels[12 * y + 4 : 12 * y + 8, 12 * x + 4 : 12 * x + 8] = 1 + index % 2
    data = TrainingSet(
        [TrainingImage("image", coordinates(shape), labels)],
        ClassTable.from_values([1, 2]),
        Normalisation("window", 0, 255),
        seed=0,
    )
    members = data.held_out.membership["image"]
    assert (members == HELD_OUT).any()

    drawn = sampler(data.at(1.0), augmentation=PLAIN)
    batch, cut, _ = drawn.draw(100, Generator().manual_seed(0))
    # Labels are those of the nearest pixel; at half-way the colours do not tell which.
    place = batch[:, :2] * 255
    sure = ((place - place.floor() - 0.5).abs() > 0.01).all(dim=1) & (cut > 0)
    y, x = place.round().long().unbind(dim=1)
    assert sure.sum() > 1000
    assert not (members[y[sure], x[sure]] == HELD_OUT).any()
    np.testing.assert_array_equal(cut[sure], labels[y[sure], x[sure]])


def test_patches_are_no_larger_than_the_largest_image_needs() -> None:
    shapes = [(30, 20), (9, 9)]
    images = [working(dots((5, 5), shape=shape)) for shape in shapes]
    small = sampler(images, patch_px=384)
    assert small.patch_px == 32
    batch, _, _ = small.draw(3, Generator().manual_seed(0))
    assert batch.shape == (3, 3, 32, 32)


def test_the_same_seed_gives_the_same_patches_and_another_seed_others() -> None:
    images = [working(dots((40, 50), (90, 20)))]
    textured = dataclasses.replace(
        images[0], pixels=torch.rand(3, 128, 96, generator=Generator().manual_seed(0))
    )
    drawn = sampler([textured])
    first, same, other = (
        drawn.draw(4, Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    for one, two, three in zip(first, same, other, strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
