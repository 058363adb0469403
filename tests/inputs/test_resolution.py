"""The working resolution: a part gets the numbers of the whole, strokes survive."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.measure import block_reduce
from torch.nn import functional as F

from napari_sparseseg.inputs.resolution import (
    Region,
    enlarge,
    interpolated_region,
    shrink,
    source_region,
    whole,
    working_shape,
)
from napari_sparseseg.inputs.resolution import (
    shrink_labels as shrink_annotated,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SCALES = (1.0, 1 / 2, 1 / 3, 1 / 4, 0.3, 0.7, 1.5)
SHAPES = ((1, 1), (7, 13), (40, 33), (61, 96))


def random_image(shape: tuple[int, int], channels: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(channels, *shape, generator=torch.Generator().manual_seed(seed))


def random_region(rng: np.random.Generator, shape: tuple[int, int]) -> Region:
    (y0, y1), (x0, x1) = (
        sorted(rng.choice(length + 1, 2, replace=False)) for length in shape
    )
    return int(y0), int(x0), int(y1), int(x1)


def cut(array: Any, region: Region) -> Any:
    """Take a region out of the last two axes."""
    y0, x0, y1, x1 = region
    return array[..., y0:y1, x0:x1]


def shrunk(image: Tensor, scale: float) -> Tensor:
    """Give a whole image at the working resolution."""
    shape = tuple(image.shape[-2:])
    return shrink(image, whole(shape), whole(working_shape(shape, scale)), scale)


def block_means(image: Tensor, block: int) -> NDArray[np.float32]:
    """Average blocks with scikit-image, the last row and column continued."""
    missing = [(0, 0), *((0, -length % block) for length in image.shape[1:])]
    filled = np.pad(image.numpy(), missing, mode="edge")
    # scikit-image has no type hints.
    means = block_reduce(filled, (1, block, block), np.mean)  # type: ignore[no-untyped-call]
    return np.asarray(means, np.float32)


def read_with_scipy(
    channel: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any]
) -> NDArray[np.float64]:
    """Read an image at crossings of rows and columns, bilinear, edges replicated."""
    crossings = np.meshgrid(rows, columns, indexing="ij")
    read: NDArray[np.float64] = ndimage.map_coordinates(
        np.asarray(channel, np.float64), crossings, order=1, mode="nearest"
    )
    return read


class TestWorkingShape:
    @pytest.mark.parametrize(
        ("shape", "scale", "expected"),
        [
            ((9, 10), 1 / 3, (3, 4)),
            ((10, 100), 0.3, (3, 30)),
            ((522, 775, 3), 0.5, (261, 388)),
            ((1, 3), 1 / 4, (1, 1)),
            ((4, 3), 1.5, (6, 5)),
            ((49, 98), 1 / 49, (1, 2)),
            # 0.07 * 100 is 7.000000000000001 in floating point.
            ((100, 200), 0.07, (7, 14)),
        ],
    )
    def test_covers_every_image_pixel_and_no_more(
        self, shape: tuple[int, ...], scale: float, expected: tuple[int, int]
    ) -> None:
        assert working_shape(shape, scale) == expected

    @pytest.mark.parametrize("divisor", range(1, 60))
    def test_has_no_extra_pixel_where_the_scale_divides_the_side(
        self, divisor: int
    ) -> None:
        assert working_shape((divisor * 7, divisor), 1 / divisor) == (7, 1)


class TestShrink:
    def test_is_the_image_itself_at_scale_1(self) -> None:
        image = random_image((7, 13))
        torch.testing.assert_close(shrunk(image, 1.0), image, rtol=0, atol=0)

    @pytest.mark.parametrize("block", [2, 3, 4, 7])
    def test_averages_whole_blocks(self, block: int) -> None:
        image = random_image((block * 5, block * 3))
        small = shrunk(image, 1 / block)
        np.testing.assert_allclose(small, block_means(image, block), rtol=1e-6)
        pooled = F.avg_pool2d(image[None], block)[0]
        torch.testing.assert_close(small, pooled, rtol=0, atol=0)

    @pytest.mark.parametrize("block", [2, 3, 4])
    @pytest.mark.parametrize("shape", [(1, 1), (7, 13), (2, 29)])
    def test_continues_the_last_row_and_column_to_fill_the_last_blocks(
        self, block: int, shape: tuple[int, int]
    ) -> None:
        image = random_image(shape)
        expected = block_means(image, block)
        np.testing.assert_allclose(shrunk(image, 1 / block), expected, rtol=1e-6)

    def test_worked_by_hand_where_the_scale_is_no_unit_fraction(self) -> None:
        # 2 / 3: nothing to average; pixel u lies at 1.5 (u + 0.5) - 0.5 = 0.25, 1.75,
        # 3.25, 4.75, so 25 and 75 % of the way between pixels.
        image = torch.tensor([[[0.0, 1.0, 10.0, 20.0, 40.0, 80.0]]])
        expected = [0.25, 1 + 0.75 * 9, 20 + 0.25 * 20, 40 + 0.75 * 40]
        torch.testing.assert_close(shrunk(image, 2 / 3)[0, 0], torch.tensor(expected))

    def test_averages_before_it_interpolates(self) -> None:
        # 0.4: pairs are averaged to 0, 1, 2, 3, 4; of these pixel u lies at
        # 1.25 (u + 0.5) - 0.5 = 0.125, 1.375, 2.625, 3.875.
        pairs = torch.arange(5.0).repeat_interleave(2)
        noise = torch.tensor([-3.0, 3.0]).repeat(5)
        small = shrunk((pairs + noise)[None, None], 0.4)
        torch.testing.assert_close(
            small[0, 0], torch.tensor([0.125, 1.375, 2.625, 3.875])
        )

    @pytest.mark.parametrize("scale", [0.3, 0.45, 0.7, 0.9, 1.5, 4.0])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_agrees_with_scipy(self, scale: float, shape: tuple[int, int]) -> None:
        image = random_image(shape)
        block = max(1, int(1 / scale))
        rows, columns = (
            (np.arange(n) + 0.5) / (scale * block) - 0.5
            for n in working_shape(shape, scale)
        )
        for channel, small in zip(
            block_means(image, block), shrunk(image, scale), strict=True
        ):
            expected = read_with_scipy(channel, rows, columns)
            np.testing.assert_allclose(small, expected, atol=1e-6)

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_part_gets_exactly_the_numbers_of_the_whole(
        self, scale: float, shape: tuple[int, int]
    ) -> None:
        image = random_image(shape)
        small = shrunk(image, scale)
        rng = np.random.default_rng(0)
        for _ in range(25):
            region = random_region(rng, working_shape(shape, scale))
            source = source_region(region, scale, shape)
            part = shrink(cut(image, source), source, region, scale)
            torch.testing.assert_close(part, cut(small, region), rtol=0, atol=0)

    @pytest.mark.parametrize("scale", [1 / 3, 0.3, 0.7, 1.5])
    def test_a_part_is_exact_far_out_in_a_large_image(self, scale: float) -> None:
        shape = (2, 100_003)
        image = random_image(shape, channels=1)
        small = shrunk(image, scale)
        height, width = small.shape[-2:]
        for start in (100, width // 2, width - 50):
            region = (0, start, height, start + 50)
            source = source_region(region, scale, shape)
            part = shrink(cut(image, source), source, region, scale)
            torch.testing.assert_close(part, cut(small, region), rtol=0, atol=0)

    def test_pixels_far_out_in_a_large_image_lie_where_they_should(self) -> None:
        ramp = torch.arange(100_003).remainder(1000).float()[None, None]
        x = np.arange(working_shape((1, 100_003), 0.7)[1])
        expected = ((x + 0.5) / 0.7 - 0.5) % 1000
        # Where the ramp falls back to 0, and past the last pixel, is no ramp.
        inside = (expected < 999) & (x < len(x) - 1)
        small = shrunk(ramp, 0.7)[0, 0].numpy()
        np.testing.assert_allclose(small[inside][1:], expected[inside][1:], atol=1e-3)


class TestSourceRegion:
    @pytest.mark.parametrize("scale", SCALES)
    def test_asks_for_little_more_than_what_lies_under_the_region(
        self, scale: float
    ) -> None:
        shape = (97, 61)
        rng = np.random.default_rng(1)
        for _ in range(25):
            region = random_region(rng, working_shape(shape, scale))
            source = source_region(region, scale, shape)
            for axis, length in enumerate(shape):
                start, stop = source[axis], source[axis + 2]
                assert 0 <= start < stop <= length
                assert region[axis] / scale - start <= 2 / scale + 2
                assert stop - region[axis + 2] / scale <= 2 / scale + 2

    @pytest.mark.parametrize("block", [1, 2, 3, 4])
    def test_is_the_pixels_under_the_region_at_unit_fractions(self, block: int) -> None:
        expected = (2 * block, block, 5 * block, 4 * block)
        assert source_region((2, 1, 5, 4), 1 / block, (99, 99)) == expected


class TestInterpolatedRegion:
    @pytest.mark.parametrize("scale", [*SCALES, 4.0])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_has_the_neighbours_of_every_target_pixel_and_no_others(
        self, scale: float, shape: tuple[int, int]
    ) -> None:
        end = working_shape(shape, scale)
        rng = np.random.default_rng(2)
        for _ in range(25):
            target = random_region(rng, shape)
            region = interpolated_region(target, scale, shape)
            for axis in (0, 1):
                pixels = np.arange(target[axis], target[axis + 2])
                before = np.floor((pixels + 0.5) * scale - 0.5)
                needed = np.concatenate([before, before + (scale != 1)])
                needed = needed.clip(0, end[axis] - 1)
                expected = (needed.min(), needed.max() + 1)
                assert (region[axis], region[axis + 2]) == expected


class TestEnlarge:
    def test_is_the_scores_themselves_at_scale_1(self) -> None:
        scores = random_image((7, 13))
        region = whole((7, 13))
        same = enlarge(scores, region, region, 1.0)
        torch.testing.assert_close(same, scores, rtol=0, atol=0)
        part = enlarge(scores, region, (2, 3, 7, 9), 1.0)
        torch.testing.assert_close(part, scores[:, 2:7, 3:9], rtol=0, atol=0)

    def test_worked_by_hand(self) -> None:
        # At 1/2 pixel v lies at (v + 0.5) / 2 - 0.5 = -0.25, 0.25, 0.75, 1.25.
        scores = torch.tensor([[[0.0, 8.0]]])
        large = enlarge(scores, (0, 0, 1, 2), (0, 0, 2, 4), 0.5)
        expected = torch.tensor([[[0.0, 2.0, 6.0, 8.0]] * 2])
        torch.testing.assert_close(large, expected)

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_agrees_with_scipy(self, scale: float, shape: tuple[int, int]) -> None:
        scores = random_image(working_shape(shape, scale))
        region = whole(tuple(scores.shape[1:]))
        large = enlarge(scores, region, whole(shape), scale)
        rows, columns = ((np.arange(n) + 0.5) * scale - 0.5 for n in shape)
        for channel, each in zip(scores.numpy(), large, strict=True):
            expected = read_with_scipy(channel, rows, columns)
            np.testing.assert_allclose(each, expected, atol=1e-6)

    @pytest.mark.parametrize("scale", SCALES)
    def test_parts_are_exactly_parts_of_the_whole(self, scale: float) -> None:
        shape = (53, 70)
        end = working_shape(shape, scale)
        scores = random_image(end)
        large = enlarge(scores, whole(end), whole(shape), scale)
        rng = np.random.default_rng(4)
        for _ in range(25):
            target = random_region(rng, shape)
            region = interpolated_region(target, scale, shape)
            part = enlarge(cut(scores, region), region, target, scale)
            torch.testing.assert_close(part, cut(large, target), rtol=0, atol=0)

    @pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 0.3, 0.7])
    def test_undoes_the_shift_of_shrinking(self, scale: float) -> None:
        # A plane stays the same plane: no half-pixel shift either way.
        shape = (60, 80)
        plane = torch.arange(60.0)[:, None] + 2 * torch.arange(80.0)
        small = shrunk(plane[None], scale)
        back = enlarge(small, whole(tuple(small.shape[1:])), whole(shape), scale)
        inside = (slice(8, -8), slice(8, -8))
        torch.testing.assert_close(back[0][inside], plane[inside], rtol=0, atol=1e-3)


def label_map(*rows: str) -> NDArray[np.int64]:
    """Give a label map from one digit a pixel, ``.`` = not annotated."""
    return np.array([[int(c) for c in row.replace(".", "0")] for row in rows], np.int64)


def shrink_labels(labels: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
    """Shrink the annotated pixels of a label map."""
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns]
    return shrink_annotated(rows, columns, values, labels.shape, scale)


def shrink_labels_slowly(labels: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
    """Do what `shrink_labels` should, one working pixel after the other."""
    height, width = (max(1, math.ceil(n * scale - 1e-6)) for n in labels.shape)
    votes: dict[tuple[int, int], list[int]] = {}
    for (y, x), value in np.ndenumerate(labels):
        cell = (
            min(math.floor((y + 0.5) * scale), height - 1),
            min(math.floor((x + 0.5) * scale), width - 1),
        )
        if value:
            votes.setdefault(cell, []).append(int(value))
    small = np.zeros((height, width), np.int64)
    for cell, values in votes.items():
        small[cell] = min(values, key=lambda value: (-values.count(value), value))
    return small


class TestShrinkLabels:
    def test_takes_the_majority_of_what_is_annotated(self) -> None:
        labels = label_map(
            "11....",
            "12..3.",
            "221.77",
            "1.1.4.",
        )
        # 1 beats 2; nothing; a single 3 / 2 beats 1; only 1; 7 beats 4.
        expected = label_map("1.3", "217")
        np.testing.assert_array_equal(shrink_labels(labels, 0.5), expected)

    def test_the_smaller_number_wins_a_tie(self) -> None:
        labels = label_map("92", "29")
        assert shrink_labels(labels, 0.5).tolist() == [[2]]
        assert shrink_labels(label_map("953", "..."), 1 / 3).tolist() == [[3]]

    def test_what_is_not_annotated_has_no_vote(self) -> None:
        labels = label_map("....", "....", "...5", "....")
        assert shrink_labels(labels, 0.25).tolist() == [[5]]

    @pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 1 / 8, 0.3, 0.7])
    def test_strokes_one_pixel_wide_stay_connected(self, scale: float) -> None:
        labels = np.zeros((64, 80), np.int64)
        steps = np.arange(60)
        labels[steps, steps + 5] = 3
        small = shrink_labels(labels, scale)
        assert ndimage.label(small, np.ones((3, 3)))[1] == 1
        assert np.ptp(np.nonzero(small)[0]) == math.floor(59.5 * scale)

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("share", [0.05, 0.6, 1.0])
    def test_agrees_with_a_loop_over_pixels(self, scale: float, share: float) -> None:
        rng = np.random.default_rng(5)
        for shape in ((1, 1), (7, 13), (40, 33)):
            values = rng.choice([1, 2, 3, 300], shape)
            labels = np.where(rng.random(shape) < share, values, 0).astype(np.int64)
            if scale > 1:
                rows, columns = (
                    np.floor((np.arange(math.ceil(n * scale)) + 0.5) / scale)
                    .clip(max=n - 1)
                    .astype(int)
                    for n in shape
                )
                expected = labels[rows][:, columns]
            else:
                expected = shrink_labels_slowly(labels, scale)
            small = shrink_labels(labels, scale)
            assert small.dtype == np.int64
            np.testing.assert_array_equal(small, expected)

    @pytest.mark.parametrize("scale", SCALES)
    def test_gives_nothing_for_an_empty_map(self, scale: float) -> None:
        small = shrink_labels(np.zeros((7, 13), np.int64), scale)
        assert small.shape == working_shape((7, 13), scale)
        assert not small.any()

    @pytest.mark.parametrize("block", [2, 3, 4])
    def test_lies_on_the_grid_of_the_image(self, block: int) -> None:
        # An image that is its own label map: constant blocks come out as they are.
        small = np.random.default_rng(6).integers(0, 5, (6, 9))
        labels = np.kron(small, np.ones((block, block), np.int64))
        np.testing.assert_array_equal(shrink_labels(labels, 1 / block), small)
        image = shrunk(torch.from_numpy(labels)[None].float(), 1 / block)
        np.testing.assert_array_equal(image[0], small)
