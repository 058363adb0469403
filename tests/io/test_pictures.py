"""Pictures show the right colours in the right places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sparseseg.annotations.classes import ClassTable, LabelClass
from napari_sparseseg.errors import ImageError, LabelError, OptionError
from napari_sparseseg.io.pictures import overlay, side_by_side, to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

GREEN, RED = (0, 200, 120), (255, 90, 0)
TABLE = ClassTable((LabelClass(1, "lumen", GREEN), LabelClass(300, "nucleus", RED)))


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def strokes() -> NDArray[np.uint16]:
    strokes = np.zeros((40, 60), np.uint16)
    strokes[5:8, 3:30] = 1
    strokes[20:30, 40:43] = 300
    return strokes


def inked(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where there are dark letters, (y, x)."""
    return np.asarray(picture.max(axis=-1) < 128)


def has_color(picture: NDArray[np.uint8], color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=-1).any())


class TestToRgb:
    def test_leaves_8_bit_colour_alone(self, image: NDArray[np.uint8]) -> None:
        np.testing.assert_array_equal(to_rgb(image), image)

    def test_leaves_out_the_opacity(self, image: NDArray[np.uint8]) -> None:
        opacity = np.full((40, 60, 1), 7, np.uint8)
        with_opacity = np.concatenate([image, opacity], axis=-1)
        np.testing.assert_array_equal(to_rgb(with_opacity), image)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
    @pytest.mark.parametrize("shape", [(50, 60), (50, 60, 1)])
    def test_stretches_grey(self, dtype: type, shape: tuple[int, ...]) -> None:
        ramp: NDArray[Any] = np.linspace(20, 90, 3000).reshape(shape).astype(dtype)
        shown = to_rgb(ramp)
        assert shown.shape == (50, 60, 3)
        assert shown.dtype == np.uint8
        assert shown.min() == 0
        assert shown.max() == 255
        assert (shown == shown[..., :1]).all()
        assert (np.diff(shown[..., 0].ravel().astype(int)) >= 0).all()
        assert shown[25, 0, 0] == pytest.approx(127.5, abs=4)

    def test_outliers_do_not_darken_the_rest(self) -> None:
        slice_hu = np.linspace(-100, 200, 3600).reshape(60, 60)
        slice_hu[0, 0] = 30_000
        assert to_rgb(slice_hu).mean() == pytest.approx(127.5, abs=2)

    def test_shows_a_constant_and_what_is_not_finite_as_black(self) -> None:
        assert not to_rgb(np.full((4, 5), 9.0)).any()
        assert not to_rgb(np.full((4, 5), np.nan)).any()
        some = np.linspace(0, 1, 100).reshape(10, 10)
        some[9] = np.nan
        some[8] = np.inf
        assert not to_rgb(some)[8:].any()
        assert to_rgb(some)[7].max() == 255

    @pytest.mark.parametrize("shape", [(5,), (5, 6, 2), (2, 5, 6, 3), (0, 5)])
    def test_refuses_other_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ImageError, match=r"shape \("):
            to_rgb(np.zeros(shape))

    def test_refuses_complex_numbers(self) -> None:
        with pytest.raises(ImageError, match="complex"):
            to_rgb(np.zeros((4, 4), np.complex64))


class TestOverlay:
    def test_paints_strokes_in_plain_colours(
        self, image: NDArray[np.uint8], strokes: NDArray[np.uint16]
    ) -> None:
        picture = overlay(image, strokes, TABLE, opacity=1)
        assert (picture[strokes == 1] == GREEN).all()
        assert (picture[strokes == 300] == RED).all()
        np.testing.assert_array_equal(picture[strokes == 0], image[strokes == 0])

    def test_blends(
        self, image: NDArray[np.uint8], strokes: NDArray[np.uint16]
    ) -> None:
        picture = overlay(image, strokes, TABLE, opacity=0.25)
        expected = 0.75 * image[strokes == 300] + 0.25 * np.array(RED)
        assert np.abs(picture[strokes == 300] - expected).max() <= 0.5
        np.testing.assert_array_equal(picture[strokes == 0], image[strokes == 0])

    def test_of_no_opacity_is_the_image(
        self, image: NDArray[np.uint8], strokes: NDArray[np.uint16]
    ) -> None:
        before = image.copy()
        picture = overlay(image, strokes, TABLE, opacity=0)
        np.testing.assert_array_equal(picture, image)
        assert not np.shares_memory(picture, image)
        overlay(image, strokes, TABLE, opacity=1)
        np.testing.assert_array_equal(image, before)

    def test_takes_grey(self, strokes: NDArray[np.uint16]) -> None:
        grey = np.linspace(-1000, 1000, 2400).reshape(40, 60)
        picture = overlay(grey, strokes, TABLE, opacity=1)
        assert (picture[strokes == 1] == GREEN).all()
        np.testing.assert_array_equal(picture[strokes == 0], to_rgb(grey)[strokes == 0])

    def test_refuses_a_value_without_colour(
        self, image: NDArray[np.uint8], strokes: NDArray[np.uint16]
    ) -> None:
        strokes[0, 0] = 2
        with pytest.raises(LabelError, match="2 in 1 pixel"):
            overlay(image, strokes, TABLE)

    def test_refuses_another_size(
        self, image: NDArray[np.uint8], strokes: NDArray[np.uint16]
    ) -> None:
        with pytest.raises(LabelError, match="same height and width"):
            overlay(image, strokes[:-1], TABLE)

    @pytest.mark.parametrize("opacity", [-0.1, 1.5, float("nan")])
    def test_refuses_an_opacity_out_of_range(
        self, image: NDArray[np.uint8], strokes: NDArray[np.uint16], opacity: float
    ) -> None:
        with pytest.raises(OptionError, match="opacity"):
            overlay(image, strokes, TABLE, opacity=opacity)


class TestSideBySide:
    def test_keeps_the_pictures_in_order_below_their_captions(
        self, image: NDArray[np.uint8]
    ) -> None:
        other = 255 - image
        row = side_by_side([image, other], ["", ""])
        strip = row.shape[0] - 40
        assert strip > 0
        np.testing.assert_array_equal(row[strip:, :60], image)
        np.testing.assert_array_equal(row[strip:, -60:], other)
        gap = row[:, 60:-60]
        assert gap.shape[1] > 0
        assert (gap == 255).all()
        assert (row[:strip] == 255).all()

    def test_writes_each_caption_above_its_picture(self) -> None:
        pictures = [np.full((200, 300, 3), 255, np.uint8)] * 2
        row = side_by_side(pictures, ["Strokes", ""])
        ink = inked(row)
        assert ink[:, :300].any()
        assert not ink[:, 300:].any()
        assert not ink[-200:].any()
        # Centred.
        columns = np.flatnonzero(ink.any(axis=0))
        assert (columns[0] + columns[-1]) / 2 == pytest.approx(149.5, abs=3)

    def test_makes_long_captions_fit(self) -> None:
        picture = np.full((400, 200, 3), 255, np.uint8)
        row = side_by_side([picture], ["prediction from 1 % of pixels"])
        ink = np.flatnonzero(inked(row).any(axis=0))
        assert row.shape[1] == 200
        assert ink[0] > 0
        assert ink[-1] < 199

    def test_fills_up_smaller_pictures_with_white(self) -> None:
        tall, small = np.zeros((90, 30, 3), np.uint8), np.zeros((50, 40), np.uint8)
        row = side_by_side([tall, small], ["", ""])
        strip = row.shape[0] - 90
        assert (row[strip + 50 :, -40:] == 255).all()
        assert (row[strip : strip + 50, -40:] == 0).all()

    def test_adds_a_legend_with_every_class(self) -> None:
        picture = np.full((240, 500, 3), 128, np.uint8)
        plain = side_by_side([picture], ["image"])
        row = side_by_side([picture], ["image"], TABLE)
        np.testing.assert_array_equal(row[: plain.shape[0]], plain)
        legend = row[plain.shape[0] :]
        assert all(has_color(legend, color) for color in (GREEN, RED))
        # The names lie to the right of their squares.
        ends = np.flatnonzero((legend == GREEN).all(axis=-1).any(axis=0))[-1]
        starts = np.flatnonzero((legend == RED).all(axis=-1).any(axis=0))[0]
        between = legend[:, ends + 3 : starts - 3]
        assert inked(between).any()

    def test_breaks_a_legend_wider_than_the_row(self) -> None:
        table = ClassTable.from_values(range(1, 13))
        picture = np.full((240, 160, 3), 128, np.uint8)
        row = side_by_side([picture], [""], table)
        assert row.shape[1] == 160
        assert all(has_color(row[240:], each.color) for each in table)

    @pytest.mark.parametrize("captions", [[], ["one"], ["one", "two", "three"]])
    def test_refuses_another_number_of_captions(
        self, image: NDArray[np.uint8], captions: list[str]
    ) -> None:
        with pytest.raises(OptionError, match="2 pictures"):
            side_by_side([image, image], captions)

    def test_refuses_no_picture(self) -> None:
        with pytest.raises(OptionError, match="0 pictures"):
            side_by_side([], [])
