"""Random views: what each change does by itself, and that labels go along."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import hed_from_rgb
from torch import Generator, Tensor

from napari_sparseseg.errors import OptionError
from napari_sparseseg.learning.augmentation import (
    AUGMENTATION_ABDULHAMID,
    AugmentationOptions,
    blur_each,
    change_colours,
    draw_offsets,
    sample_labels,
    sample_pixels,
)

#: Nothing is changed.
IDENTITY: dict[str, object] = {
    "flip": "none",
    "rotate": False,
    "zoom": (1.0, 1.0),
    "elastic_px": 0.0,
    "blur_px": (0.0, 0.0),
    "gamma": (1.0, 1.0),
    "contrast": (1.0, 1.0),
    "saturation": (1.0, 1.0),
    "stain": 0.0,
    "noise": 0.0,
}


def only(**changes: object) -> AugmentationOptions:
    """Give options that make these changes alone."""
    return AugmentationOptions(**IDENTITY | changes)  # type: ignore[arg-type]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def random_images(count: int = 4, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, 24, 24, generator=seeded(7)) * 0.8 + 0.1


# Geometry.


def cut_patch(
    image: Tensor, labels: Tensor, centre: tuple[float, float], offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    places = offsets + torch.tensor(centre)
    return sample_pixels(image, places), *sample_labels(labels, places)


def test_without_changes_a_patch_is_the_cut_itself() -> None:
    image = torch.rand(3, 40, 50, generator=seeded())
    labels = torch.randint(0, 5, (40, 50), generator=seeded())
    offsets = draw_offsets(1, 16, only(), seeded())[0]
    patch, cut, _ = cut_patch(image, labels, (7.5 + 4, 7.5 + 21), offsets)
    torch.testing.assert_close(patch, image[:, 4:20, 21:37], atol=1e-5, rtol=0)
    assert torch.equal(cut, labels[4:20, 21:37])


def blocks() -> Tensor:
    """Give a label map (64, 64) of 16 random blocks of four classes, none of it 0."""
    coarse = torch.randint(1, 5, (4, 4), generator=seeded(3))
    return coarse.repeat_interleave(16, 0).repeat_interleave(16, 1)


@pytest.mark.parametrize("seed", range(5))
def test_image_and_labels_take_the_same_geometry(seed: int) -> None:
    labels = blocks()
    image = torch.nn.functional.one_hot(labels, 5).permute(2, 0, 1).float()
    offsets = draw_offsets(1, 48, AugmentationOptions(), seeded(seed))[0]
    patch, cut, _ = cut_patch(image, labels, (30.2, 33.7), offsets)
    # Where a single class went into the interpolation there is no doubt about it.
    certainty, rendered = patch.max(dim=0)
    certain = (certainty > 1 - 1e-4) & (cut != 0)
    assert certain.float().mean() > 0.5
    assert len(rendered[certain].unique()) > 1
    assert torch.equal(cut[certain], rendered[certain])


def test_labels_are_those_of_the_nearest_pixel() -> None:
    # An image of its own places, which interpolation gives back between the pixels,
    # and a number for each pixel.
    places = torch.stack(
        torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    )
    numbers = places[0] * 64 + places[1] + 1
    offsets = draw_offsets(1, 32, AugmentationOptions(), seeded())[0]
    patch, cut, _ = cut_patch(places.float(), numbers, (31.2, 30.7), offsets)
    nearest = torch.stack([(cut - 1) // 64, (cut - 1) % 64])
    assert (cut > 0).all()
    assert (patch - nearest).abs().max() <= 0.5 + 1e-4


def test_labels_beyond_the_border_are_not_annotated_and_the_image_is_mirrored() -> None:
    image = torch.rand(1, 20, 20, generator=seeded())
    labels = torch.full((20, 20), 3)
    offsets = draw_offsets(1, 8, only(), seeded())[0]
    patch, cut, inside = cut_patch(image, labels, (-0.5, 19.5), offsets)
    expected = torch.zeros(8, 8, dtype=torch.int64)
    expected[4:, :4] = 3
    assert torch.equal(cut, expected)
    assert torch.equal(inside, expected == 3)
    corner = image[:, :4, 16:]
    mirrored = torch.cat([corner.flip(1), corner], dim=1)
    mirrored = torch.cat([mirrored, mirrored.flip(2)], dim=2)
    torch.testing.assert_close(patch, mirrored, atol=1e-5, rtol=0)


def test_flips_give_the_four_mirror_images() -> None:
    plain = draw_offsets(1, 6, only(), seeded())[0]
    mirrors = [plain, plain.flip(0), plain.flip(1), plain.flip(0, 1)]
    drawn = draw_offsets(64, 6, only(flip="any"), seeded())
    which = [[torch.equal(each, mirror) for mirror in mirrors] for each in drawn]
    assert all(sum(row) == 1 for row in which)
    assert all(any(column) for column in zip(*which, strict=True))


def test_mirroring_that_is_not_known_is_refused() -> None:
    with pytest.raises(OptionError, match="'twice'; expected one of none, one, any"):
        AugmentationOptions(flip="twice")  # type: ignore[arg-type]


def test_of_three_mirror_images_of_one_each_is_drawn_as_often() -> None:
    plain = draw_offsets(1, 6, only(), seeded())[0]
    mirrors = [plain, plain.flip(0), plain.flip(1)]
    drawn = draw_offsets(600, 6, only(flip="one"), seeded())
    which = torch.tensor([[bool((e == m).all()) for m in mirrors] for e in drawn])
    assert torch.equal(which.sum(dim=1), torch.ones(600, dtype=torch.int64))
    assert (which.sum(dim=0) - 200).abs().max() < 50


def test_that_of_abdulhamid_is_mirroring_alone() -> None:
    images = random_images()
    options = AUGMENTATION_ABDULHAMID
    changed = change_colours(images, options, seeded())
    torch.testing.assert_close(changed, images, atol=1e-6, rtol=0)
    plain = draw_offsets(1, 6, only(), seeded())[0]
    seen = draw_offsets(60, 6, options, seeded()).flatten(1).unique(dim=0)
    expected = torch.stack([plain, plain.flip(0), plain.flip(1)])
    assert torch.equal(seen, expected.flatten(1).unique(dim=0))


def test_rotation_turns_by_all_angles_and_keeps_distances() -> None:
    plain = draw_offsets(1, 9, only(), seeded())[0]
    drawn = draw_offsets(200, 9, only(rotate=True), seeded())
    torch.testing.assert_close(
        drawn.norm(dim=-1), plain.norm(dim=-1).expand(200, 9, 9), atol=1e-5, rtol=0
    )
    middle, right = drawn[:, 4, 4], drawn[:, 4, 8]
    torch.testing.assert_close(middle, torch.zeros_like(middle))
    angles = torch.atan2(right[:, 0], right[:, 1])
    counts = torch.histc(angles, bins=4, min=-math.pi, max=math.pi)
    assert counts.min() > 25


def test_zoom_magnifies() -> None:
    plain = draw_offsets(3, 8, only(), seeded())
    torch.testing.assert_close(
        draw_offsets(3, 8, only(zoom=(2.0, 2.0)), seeded()), plain / 2
    )


def test_elastic_bends_by_no_more_than_its_pixels() -> None:
    size, reach = 65, 6.0
    bend = draw_offsets(8, size, only(elastic_px=reach), seeded()) - draw_offsets(
        1, size, only(), seeded()
    )
    # The control points lie on every sixteenth pixel, the curve between them overshoots
    # a little.
    assert bend[:, ::16, ::16].abs().max() <= reach
    assert bend.abs().max() <= 1.5 * reach
    assert bend[:, ::16, ::16].abs().max() > 0.9 * reach
    assert bend.diff(dim=1).abs().max() < 1.2  # smooth: nothing is torn apart


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    options = AugmentationOptions()
    images = random_images()
    first, same, other = (
        (
            draw_offsets(2, 16, options, generator),
            change_colours(images, options, generator),
        )
        for generator in (seeded(1), seeded(1), seeded(2))
    )
    for one, two, three in zip(first, same, other, strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)


# Intensities.


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_without_changes_intensities_stay(channels: int) -> None:
    images = random_images(channels=channels)
    images[:, :, :2] = 0
    images[:, :, -2:] = 1
    changed = change_colours(images, only(), seeded())
    torch.testing.assert_close(changed, images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_intensities_stay_between_0_and_1(channels: int) -> None:
    wild = AugmentationOptions(
        gamma=(0.2, 5.0), contrast=(0.0, 3.0), saturation=(0.0, 3.0), stain=0.9, noise=1
    )
    images = torch.rand(16, channels, 24, 24, generator=seeded())
    images[0], images[1] = 0, 1
    changed = change_colours(images, wild, seeded())
    assert changed.shape == images.shape
    assert torch.isfinite(changed).all()
    assert changed.min() == 0
    assert changed.max() == 1


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_colour_is_changed_in_rgb_alone(channels: int) -> None:
    colour = only(saturation=(0.0, 0.1), stain=0.9)
    images = random_images(channels=channels)
    unchanged = change_colours(images, colour, seeded())
    torch.testing.assert_close(unchanged, images, atol=1e-6, rtol=0)
    rgb = random_images(channels=3)
    assert (change_colours(rgb, colour, seeded()) - rgb).abs().mean() > 0.05


def test_gamma_is_one_exponent_an_image() -> None:
    images = random_images()
    changed = change_colours(images, only(gamma=(0.5, 2.0)), seeded())
    exponents = (changed.log() / images.log()).flatten(1)
    torch.testing.assert_close(
        exponents, exponents[:, :1].expand_as(exponents), atol=1e-4, rtol=0
    )
    assert len(exponents[:, 0].unique()) == len(images)
    assert exponents.min() >= 0.5
    assert exponents.max() <= 2


def test_contrast_is_a_factor_about_the_mean_of_an_image() -> None:
    images = random_images()
    changed = change_colours(images, only(contrast=(0.5, 0.5)), seeded())
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(changed, (images + mean) / 2)


def test_saturation_0_is_grey() -> None:
    images = random_images()
    changed = change_colours(images, only(saturation=(0.0, 0.0)), seeded())
    grey = images.mean(dim=1, keepdim=True).expand_as(images)
    torch.testing.assert_close(changed, grey)


def densities(images: Tensor) -> Tensor:
    """Separate stains with scikit-image's matrix: (B, 3, H, W), not clipped."""
    matrix = torch.from_numpy(hed_from_rgb).float()
    return torch.einsum("bchw,cs->bshw", images.log() / math.log(1e-6), matrix)


def test_stain_jitter_is_a_factor_for_each_stain_of_an_image() -> None:
    amounts = torch.rand(4, 3, 24, 24, generator=seeded()) * 0.03 + 0.01
    matrix = torch.from_numpy(np.linalg.inv(hed_from_rgb)).float()
    images = torch.exp(torch.einsum("bshw,sc->bchw", amounts, matrix) * math.log(1e-6))
    changed = change_colours(images, only(stain=0.2), seeded())
    factors = (densities(changed) / densities(images)).flatten(2)
    torch.testing.assert_close(
        factors, factors[:, :, :1].expand_as(factors), atol=1e-3, rtol=0
    )
    assert factors.min() >= 0.8 - 1e-3
    assert factors.max() <= 1.2 + 1e-3
    assert factors[:, :, 0].std() > 0.05


def test_blur_is_a_gaussian_of_its_own_for_each_image() -> None:
    images = torch.rand(3, 2, 32, 32, generator=seeded())
    sigmas = torch.tensor([0.0, 0.8, 2.0])
    expected = np.stack(
        [
            ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest")
            for image, sigma in zip(images.numpy(), sigmas.tolist(), strict=True)
        ]
    )
    np.testing.assert_allclose(blur_each(images, sigmas), expected, atol=2e-3)


def test_noise_is_as_strong_as_drawn() -> None:
    grey = torch.full((64, 1, 32, 32), 0.5)
    noise = change_colours(grey, only(noise=0.03), seeded()) - 0.5
    deviations = noise.flatten(1).std(dim=1)
    assert noise.mean().abs() < 1e-3
    assert deviations.max() < 0.032
    assert deviations.mean() == pytest.approx(0.015, abs=0.003)
