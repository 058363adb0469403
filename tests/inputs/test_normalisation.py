"""Intensities in [0, 1]: which range is chosen, and that it stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_sparseseg.errors import ImageError, OptionError
from napari_sparseseg.inputs.normalisation import (
    PERCENTILES,
    SAMPLED_PIXELS,
    Normalisation,
    fit_normalisation,
    window,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def random_image(dtype: Any, *shape: int, top: int = 200) -> NDArray[Any]:
    return np.random.default_rng(0).integers(20, top, shape).astype(dtype)


class TestApply:
    def test_brings_low_to_0_and_high_to_1_and_clips(self) -> None:
        image = np.array([[-1000, 100, 150, 300, 4000]], np.int16)
        x = Normalisation("window", 100, 300).apply(image)
        expected = torch.tensor([[[0, 0, 0.25, 1, 1]]])
        torch.testing.assert_close(x, expected, rtol=0, atol=0)

    @pytest.mark.parametrize(
        "dtype", ["u1", "<u2", ">u2", "i2", "i4", "f2", "<f4", ">f4", "f8", "?"]
    )
    def test_takes_every_numeric_type(self, dtype: str) -> None:
        image = np.array([[0, 1], [1, 0]]).astype(dtype)
        x = Normalisation("percentiles", 0, 2).apply(image)
        assert x.dtype == torch.float32
        assert x.tolist() == [[[0, 0.5], [0.5, 0]]]

    def test_puts_the_channels_first(self) -> None:
        image = random_image(np.uint8, 5, 7, 3)
        x = Normalisation("range", 0, 255).apply(image)
        assert x.shape == (3, 5, 7)
        assert x.is_contiguous()
        expected = (image / 255).astype(np.float32).transpose(2, 0, 1)
        np.testing.assert_allclose(x, expected, rtol=1e-6)

    def test_an_image_without_a_channel_axis_has_one_channel(self) -> None:
        image = random_image(np.uint8, 5, 7)
        normalisation = Normalisation("range", 0, 255)
        flat, deep = normalisation.apply(image), normalisation.apply(image[..., None])
        assert flat.shape == (1, 5, 7)
        torch.testing.assert_close(flat, deep, rtol=0, atol=0)

    def test_not_a_number_becomes_0_and_infinities_the_ends(self) -> None:
        image = np.array([[np.nan, -np.inf, np.inf, 7.5]])
        x = Normalisation("percentiles", 5, 10).apply(image)
        assert x.tolist() == [[[0, 0, 1, 0.5]]]

    @pytest.mark.parametrize("dtype", [np.float32, np.uint8])
    def test_reads_arrays_that_cannot_be_written_and_leaves_all_as_they_are(
        self, dtype: Any
    ) -> None:
        image = random_image(dtype, 6, 8, 3)
        before = image.copy()
        image.flags.writeable = False
        x = Normalisation("range", 0, 255).apply(image)
        np.testing.assert_allclose(x, before.transpose(2, 0, 1) / 255, rtol=1e-6)
        np.testing.assert_array_equal(image, before)

    def test_a_part_gets_the_numbers_of_the_whole(self) -> None:
        image = random_image(np.uint16, 20, 30, 3, top=60_000)
        normalisation = fit_normalisation([image])
        part = normalisation.apply(image[3:9, 4:17])
        whole = normalisation.apply(image)
        torch.testing.assert_close(part, whole[:, 3:9, 4:17], rtol=0, atol=0)


class TestFit:
    def test_8_bit_colours_keep_their_range(self) -> None:
        images = [random_image(np.uint8, 5, 7, 3), random_image(np.uint8, 9, 4, 3)]
        assert fit_normalisation(images) == Normalisation("range", 0, 255)

    @pytest.mark.parametrize(
        "image",
        [
            random_image(np.uint8, 40, 50),
            random_image(np.uint8, 40, 50, 1),
            random_image(np.uint16, 40, 50, 3, top=60_000),
            random_image(np.int16, 40, 50) - 1000,
            random_image(np.float32, 40, 50),
        ],
        ids=lambda image: f"{image.dtype} {image.shape}",
    )
    def test_all_else_is_stretched_between_percentiles(
        self, image: NDArray[Any]
    ) -> None:
        fitted = fit_normalisation([image])
        low, high = np.percentile(image, (0.5, 99.5))
        assert (fitted.low, fitted.high) == pytest.approx((low, high))
        assert fitted.kind == "percentiles"

    def test_percentiles_are_taken_over_the_pixels_of_all_images(self) -> None:
        images = [random_image(np.uint16, 30, 40), random_image(np.uint16, 50, 60) + 99]
        fitted = fit_normalisation(images)
        pixels = np.concatenate([image.ravel() for image in images])
        expected = np.percentile(pixels, PERCENTILES)
        assert (fitted.low, fitted.high) == pytest.approx(tuple(expected))

    def test_one_image_that_is_no_8_bit_colour_is_enough_for_percentiles(self) -> None:
        colours = random_image(np.uint8, 30, 40, 3)
        grey = random_image(np.uint8, 30, 40)
        assert fit_normalisation([colours, grey]).kind == "percentiles"

    @pytest.mark.parametrize("channels", [2, 3, 5])
    def test_large_images_are_sampled_in_all_channels(self, channels: int) -> None:
        # So large that every n-th pixel is looked at, n the number of channels.
        side = int((SAMPLED_PIXELS * channels) ** 0.5)
        image = random_image(np.uint16, side, side, channels)
        image[..., -1] *= 100
        fitted = fit_normalisation([image])
        low, high = np.percentile(image, PERCENTILES)
        assert (fitted.low, fitted.high) == pytest.approx((low, high), rel=0.01)

    @pytest.mark.parametrize("shape", [(1, 1_000_000), (1_000_000, 1), (999, 1001)])
    def test_samples_of_large_images_have_their_percentiles(
        self, shape: tuple[int, int]
    ) -> None:
        ramp = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
        fitted = fit_normalisation([ramp])
        expected = np.percentile(ramp, PERCENTILES)
        assert (fitted.low, fitted.high) == pytest.approx(tuple(expected), rel=0.01)

    def test_numbers_that_are_not_finite_have_no_part_in_it(self) -> None:
        image = random_image(np.float32, 40, 50)
        holes = image.copy()
        holes[::2] = np.nan
        holes[1, :3] = np.inf, -np.inf, np.inf
        seen = holes[np.isfinite(holes)]
        fitted = fit_normalisation([holes])
        expected = np.percentile(seen, PERCENTILES)
        assert (fitted.low, fitted.high) == pytest.approx(tuple(expected))

    def test_a_few_pixels_on_a_constant_ground_are_not_lost(self) -> None:
        # Both percentiles are 7: the whole range is taken.
        image = np.full((100, 100), 7, np.uint16)
        image[50, 50:53] = 5, 6, 9
        assert fit_normalisation([image]) == Normalisation("percentiles", 5, 9)

    def test_a_few_pixels_that_no_sample_meets_are_not_lost(self) -> None:
        image = np.zeros((1000, 1000), np.uint16)
        image[1, 1::4] = 40
        assert fit_normalisation([image]) == Normalisation("percentiles", 0, 40)

    @pytest.mark.parametrize(
        "image",
        [
            np.full((4, 5, 3), 37, np.uint8),
            np.full((4, 5), 37, np.uint8),
            np.full((4, 5), 37.0),
            np.full((4, 5, 3), 37, np.uint16),
        ],
        ids=lambda image: f"{image.dtype} {image.shape}",
    )
    def test_constant_images_are_refused_with_their_value(
        self, image: NDArray[Any]
    ) -> None:
        with pytest.raises(ImageError, match=r"have the value 37.* check the files"):
            fit_normalisation([image, image])

    def test_constant_images_of_two_colours_can_be_told_apart(self) -> None:
        images = [np.full((4, 5, 3), value, np.uint8) for value in (0, 255)]
        assert fit_normalisation(images) == Normalisation("range", 0, 255)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_images_without_a_finite_pixel_are_refused(self, value: float) -> None:
        with pytest.raises(ImageError, match=f"{value}.* check the files"):
            fit_normalisation([np.full((4, 5), value)])


class TestWindow:
    def test_is_named_by_centre_and_width_in_the_units_of_the_image(self) -> None:
        soft_tissue = window(40, 400)
        assert soft_tissue == Normalisation("window", -160, 240)
        hounsfield = np.array([[-1024, -160, 40, 240, 3071]], np.int16)
        assert soft_tissue.apply(hounsfield).tolist() == [[[0, 0, 0.5, 1, 1]]]

    @pytest.mark.parametrize(
        ("centre", "width"),
        [(40, 0), (40, -400), (np.nan, 400), (np.inf, 400), (40, np.nan), (40, np.inf)],
    )
    def test_that_shows_nothing_is_refused_with_its_numbers(
        self, centre: float, width: float
    ) -> None:
        with pytest.raises(OptionError, match=f"centre {centre}.*width {width}") as e:
            window(centre, width)
        np.testing.assert_equal(e.value.values, {"centre": centre, "width": width})
