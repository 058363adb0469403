"""Fixed features, against scikit-image, SciPy and NumPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import rgb2hed, rgb_from_hed

from napari_sparseseg.networks.fixed_features import (
    SIGMAS,
    FixedFeatures,
    derivatives,
    gaussian_blur,
    hed_to_rgb_matrix,
    hessian_eigenvalues,
    mix,
    rgb_to_hed,
    unmix,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SHAPES = ((1, 1), (1, 9), (7, 13), (40, 33))


def random_images(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator)


def channels_last(x: Tensor) -> NDArray[np.float32]:
    """Give (C, H, W) as (H, W, C)."""
    return x.permute(1, 2, 0).numpy()


def blurred_by_scipy(channel: NDArray[Any], sigma: float) -> NDArray[np.float64]:
    blurred: NDArray[np.float64] = ndimage.gaussian_filter(
        np.asarray(channel, np.float64), sigma, mode="nearest", truncate=3.0
    )
    return blurred


def difference(channel: NDArray[Any], axis: int) -> NDArray[Any]:
    """Half the difference of the neighbours, those of the edge being the edge."""
    before, after = (
        np.take(channel, np.arange(channel.shape[axis]) + step, axis, mode="clip")
        for step in (-1, 1)
    )
    return np.asarray((after - before) / 2)


def magnitude(channel: NDArray[Any]) -> NDArray[Any]:
    """Give the length of the gradient."""
    return np.asarray(np.hypot(difference(channel, 0), difference(channel, 1)))


def deviation(channel: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Give the standard deviation under a Gaussian window."""
    mean = blurred_by_scipy(channel, sigma)
    variance = blurred_by_scipy(channel**2, sigma) - mean**2
    rooted: NDArray[Any] = np.sqrt(variance.clip(min=0))
    return rooted


class TestStains:
    def test_matrix_is_that_of_scikit_image(self) -> None:
        np.testing.assert_allclose(hed_to_rgb_matrix(), rgb_from_hed, rtol=1e-6)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_separated_as_scikit_image_does(self, shape: tuple[int, int]) -> None:
        rgb = random_images(2, 3, *shape)
        rgb[:, :, 0, 0] = 0.0
        for image, stains in zip(rgb, rgb_to_hed(rgb), strict=True):
            expected = rgb2hed(channels_last(image))
            np.testing.assert_allclose(channels_last(stains), expected, atol=1e-6)

    def test_white_has_no_stain_and_each_stain_is_told_from_the_others(self) -> None:
        assert not rgb_to_hed(torch.ones(1, 3, 1, 1)).any()
        for stain in range(3):
            density = torch.zeros(1, 3, 1, 1)
            density[:, stain] = 0.1
            torch.testing.assert_close(
                rgb_to_hed(mix(density)), density, rtol=1e-4, atol=1e-6
            )

    def test_mixing_undoes_unmixing(self) -> None:
        rgb = random_images(2, 3, 20, 30)
        torch.testing.assert_close(mix(unmix(rgb)), rgb, rtol=0, atol=1e-5)

    def test_unmixing_keeps_what_clipping_would_lose(self) -> None:
        green = torch.tensor([0.2, 0.9, 0.2])[None, :, None, None]
        assert (unmix(green) < 0).any()
        assert (rgb_to_hed(green) >= 0).all()
        torch.testing.assert_close(mix(unmix(green)), green)


class TestBlurAndDerivatives:
    @pytest.mark.parametrize("sigma", SIGMAS)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_blur_is_that_of_scipy(self, sigma: float, shape: tuple[int, int]) -> None:
        x = random_images(2, 3, *shape)
        blurred = gaussian_blur(x, sigma)
        for image, result in zip(x.flatten(0, 1), blurred.flatten(0, 1), strict=True):
            expected = blurred_by_scipy(image.numpy(), sigma)
            np.testing.assert_allclose(result, expected, atol=1e-6)

    @pytest.mark.parametrize("shape", [(2, 2), (7, 13)])
    def test_derivatives_are_those_of_numpy_inside(
        self, shape: tuple[int, int]
    ) -> None:
        x = random_images(1, 1, *shape)
        dy, dx = (d[0, 0].numpy() for d in derivatives(x))
        expected_y, expected_x = np.gradient(x[0, 0].numpy())
        np.testing.assert_allclose(dy[1:-1], expected_y[1:-1], atol=1e-6)
        np.testing.assert_allclose(dx[:, 1:-1], expected_x[:, 1:-1], atol=1e-6)
        # At the edge half of NumPy's one-sided difference, the edge being repeated.
        np.testing.assert_allclose(dy[[0, -1]], expected_y[[0, -1]] / 2, atol=1e-6)

    def test_eigenvalues_are_those_of_numpys_solver(self) -> None:
        x = random_images(1, 2, 9, 11)
        eigenvalues = hessian_eigenvalues(x)[0].numpy()
        for channel in range(2):
            image = x[0, channel].numpy().astype(np.float64)
            dy, dx = difference(image, 0), difference(image, 1)
            hessian = np.empty((9, 11, 2, 2))
            hessian[..., 0, 0] = difference(dy, 0)
            hessian[..., 1, 1] = difference(dx, 1)
            hessian[..., 0, 1] = hessian[..., 1, 0] = difference(dy, 1)
            expected = np.linalg.eigvalsh(hessian)
            np.testing.assert_allclose(
                eigenvalues[2 + channel], expected[..., 0], atol=1e-6
            )
            np.testing.assert_allclose(
                eigenvalues[channel], expected[..., 1], atol=1e-6
            )

    def test_eigenvalues_of_a_paraboloid_worked_by_hand(self) -> None:
        # 2 y^2 + 4 y x + 5 x^2 has the Hessian ((4, 4), (4, 10)): 12 and 2.
        y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
        bowl = (2 * y**2 + 4 * y * x + 5 * x**2)[None, None]
        larger, smaller = hessian_eigenvalues(bowl)[0, :, 4, 4].tolist()
        assert (larger, smaller) == pytest.approx((12, 2))


class TestFixedFeatures:
    @pytest.mark.parametrize(
        ("in_channels", "n_features"),
        # Channels, and at each of four scales channels and textures.
        [(1, 1 + 4 * 5), (2, 2 + 4 * 4), (3, 38), (5, 5 + 4 * 7)],
    )
    @pytest.mark.parametrize("shape", SHAPES)
    def test_has_as_many_as_it_says_at_any_size(
        self, in_channels: int, n_features: int, shape: tuple[int, int]
    ) -> None:
        module = FixedFeatures(in_channels)
        features = module(random_images(2, in_channels, *shape))
        assert module.n_features == n_features
        assert features.shape == (2, n_features, *shape)
        assert features.isfinite().all()

    def test_of_colours_are_those_of_scipy_and_scikit_image(self) -> None:
        rgb = random_images(1, 3, 40, 50)
        image = channels_last(rgb[0]).astype(np.float64)
        stains = rgb2hed(image)
        base = [*np.moveaxis(image, -1, 0), *10 * np.moveaxis(stains, -1, 0)]
        haematoxylin = base[3]
        expected = [*base]
        for sigma in SIGMAS:
            expected += [blurred_by_scipy(channel, sigma) for channel in base]
            expected += [
                magnitude(blurred_by_scipy(haematoxylin, sigma)),
                deviation(haematoxylin, sigma),
            ]
        features = FixedFeatures(3)(rgb)[0]
        for feature, each in zip(features, expected, strict=True):
            np.testing.assert_allclose(feature, each, atol=2e-5)

    def test_of_one_channel_have_hessian_eigenvalues_of_one_scale(self) -> None:
        x = random_images(1, 1, 40, 50)
        image = x[0, 0].numpy().astype(np.float64)
        features = FixedFeatures(1)(x)[0]
        at_scales = features[1:].reshape(len(SIGMAS), 5, 40, 50)
        for sigma, (blurred, gradient, spread, larger, smaller) in zip(
            SIGMAS, at_scales, strict=True
        ):
            mean = blurred_by_scipy(image, sigma)
            dy, dx = difference(mean, 0), difference(mean, 1)
            trace = difference(dy, 0) + difference(dx, 1)
            np.testing.assert_allclose(blurred, mean, atol=1e-6)
            np.testing.assert_allclose(gradient, magnitude(mean), atol=1e-6)
            np.testing.assert_allclose(spread, deviation(image, sigma), atol=2e-5)
            scaled = trace * sigma**2
            np.testing.assert_allclose(larger + smaller, scaled, atol=1e-4)
            assert (larger >= smaller).all()

    @pytest.mark.parametrize("in_channels", [2, 5])
    def test_of_other_numbers_of_channels_have_the_texture_of_the_mean(
        self, in_channels: int
    ) -> None:
        x = random_images(1, in_channels, 20, 30)
        mean = x[0].numpy().mean(0, dtype=np.float64)
        features = FixedFeatures(in_channels)(x)[0, in_channels:]
        for sigma, group in zip(SIGMAS, features.split(in_channels + 2), strict=True):
            gradient = magnitude(blurred_by_scipy(mean, sigma))
            np.testing.assert_allclose(group[-2], gradient, atol=1e-6)
            np.testing.assert_allclose(group[-1], deviation(mean, sigma), atol=2e-5)

    def test_constant_images_have_no_texture(self) -> None:
        features = FixedFeatures(1)(torch.full((1, 1, 9, 9), 0.7))[0]
        expected = torch.tensor([0.7] + [0.7, 0, 0, 0, 0] * 4)[:, None, None]
        torch.testing.assert_close(
            features, expected.expand_as(features), rtol=0, atol=1e-3
        )

    @pytest.mark.parametrize("in_channels", [1, 2, 3, 5])
    def test_halo_is_as_far_as_they_reach(self, in_channels: int) -> None:
        module = FixedFeatures(in_channels)
        middle = 40
        x = random_images(1, in_channels, 81, 81)
        features = module(x)
        reaches = []
        for distance in range(module.halo - 3, module.halo + 4):
            ring = x.clone()
            far = slice(middle - distance, middle + distance + 1)
            kept = ring[..., far, far].clone()
            ring[:] = 1 - ring
            ring[..., far, far] = kept
            changed = module(ring)[..., middle, middle] != features[..., middle, middle]
            if changed.any():
                reaches.append(distance + 1)
        assert module.halo - 1 <= max(reaches) <= module.halo
        assert module.halo == math.ceil(3 * max(SIGMAS)) + 2

    def test_nothing_is_learned(self) -> None:
        assert not list(FixedFeatures(3).parameters())
