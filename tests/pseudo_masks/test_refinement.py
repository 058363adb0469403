"""Maps become masks: cut at one half, or by the CRF over the very crop of a box."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sparseseg.annotations import Box
from napari_sparseseg.errors import ImageError, LabelError
from napari_sparseseg.pseudo_masks import refinement
from napari_sparseseg.pseudo_masks.box_image import BoxImage
from napari_sparseseg.pseudo_masks.crf import CrfOptions, dense_crf, dense_crf_of_crops
from napari_sparseseg.pseudo_masks.refinement import Refinement, refine_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

WITH_CRF = Refinement(CrfOptions(), backend="torch")


def noise(shape: tuple[int, int, int] = (1, 40, 50), seed: int = 0) -> BoxImage:
    pixels = np.random.default_rng(seed).random(shape, np.float32)
    return BoxImage("noise", pixels, ())


def maps_of(boxes: list[Box], seed: int = 0) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return [random.random(box.shape, np.float32) for box in boxes]


def test_without_crf_half_is_background_and_more_is_foreground() -> None:
    box = Box(3, 4, 4, 7, 2)
    given = np.array([[0.5, 0.501, 0.4]], np.float32)
    (mask,) = refine_boxes(noise(), [box], [given], Refinement())
    assert mask.box is box
    assert mask.foreground.tolist() == [[False, True, False]]
    assert mask.localization is given
    assert mask.undecided is None


@pytest.mark.parametrize("channels", [1, 3])
def test_the_crf_sees_the_pixels_and_the_map_of_the_box_alone(channels: int) -> None:
    image = noise((channels, 40, 50))
    boxes = [Box(5, 6, 25, 20, 1), Box(0, 40, 3, 50, 2)]
    maps = maps_of(boxes)
    masks = list(refine_boxes(image, boxes, maps, WITH_CRF))
    for box, given, mask in zip(boxes, maps, masks, strict=True):
        crop = np.rint(image.pixels[:, box.y0 : box.y1, box.x0 : box.x1] * 255)
        refined = dense_crf(
            np.stack([1 - given, given]),
            crop.transpose(1, 2, 0).astype(np.uint8),
            backend="torch",
        )
        assert mask.box is box
        assert np.array_equal(mask.foreground, refined.argmax(axis=0) == 1)
        assert np.array_equal(mask.localization, given)


def test_around_a_box_with_a_margin_all_is_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def watch(probabilities: Any, images: Any, *others: Any) -> Any:
        seen.append((probabilities, images, others))
        return probabilities

    monkeypatch.setattr(refinement, "dense_crf_of_crops", watch)
    image = noise()
    box = Box(10, 40, 20, 48, 1)  # 10 x 8; a tenth is one pixel, rounded up
    given = maps_of([box])[0]
    options = CrfOptions(iterations=2)
    wished = Refinement(options, "torch", "cpu", margin=0.1)
    (mask,) = refine_boxes(image, [box], [given], wished)
    (((background, foreground),), (crop,), others) = (
        (seen[0][0][0],),
        seen[0][1],
        seen[0][2],
    )
    expected = np.zeros((12, 10), np.float32)
    expected[1:11, 1:9] = given
    assert np.array_equal(foreground, expected)
    assert np.array_equal(background, 1 - expected)
    assert np.array_equal(crop, np.rint(image.pixels[0, 9:21, 39:49] * 255))
    of_box = replace(options, theta_alpha=math.sqrt(80) / 4)
    assert others == ([of_box], "torch", "cpu")
    assert np.array_equal(mask.foreground, given > 0.5)

    # Half of the box on each side, as far as the image reaches.
    list(refine_boxes(image, [box], [given], replace(wished, margin=0.5)))
    assert seen[1][1][0].shape == (20, 50 - 36)


def test_in_groups_or_at_once_the_masks_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boxes = [Box(y, x, y + 9, x + 7, 1) for y in (0, 12, 24) for x in (0, 9, 30)]
    image, maps = noise(), maps_of(boxes)
    at_once = list(refine_boxes(image, boxes, maps, WITH_CRF))
    groups: list[int] = []
    crf = dense_crf_of_crops

    def count(probabilities: Any, *others: Any) -> Any:
        groups.append(len(probabilities))
        return crf(probabilities, *others)

    monkeypatch.setattr(refinement, "dense_crf_of_crops", count)
    monkeypatch.setattr(refinement, "PIXELS_TOGETHER", 2 * 63)
    in_groups = list(refine_boxes(image, boxes, maps, WITH_CRF))
    assert groups == [2, 2, 2, 2, 1]
    for one, other in zip(at_once, in_groups, strict=True):
        assert np.array_equal(one.foreground, other.foreground)
    monkeypatch.setattr(refinement, "PIXELS_TOGETHER", 1)
    groups.clear()
    assert len(list(refine_boxes(image, boxes, maps, WITH_CRF))) == 9
    assert groups == [1] * 9


def test_the_crf_brings_a_blurred_map_to_the_edge_of_the_object() -> None:
    yy, xx = np.mgrid[:40, :50]
    disc = (yy - 20) ** 2 + (xx - 25) ** 2 < 12**2
    random = np.random.default_rng(0)
    pixels = np.where(disc, 0.7, 0.4) + random.normal(0, 0.01, disc.shape)
    image = BoxImage("disc", pixels[None].astype(np.float32), ())
    box = Box(4, 8, 36, 42, 1)
    distance = np.hypot(yy - 20, xx - 25)[box.slices]
    blurred = np.clip(1 - distance / 18, 0.05, 0.95).astype(np.float32)
    (cut,) = refine_boxes(image, [box], [blurred], Refinement())
    (refined,) = refine_boxes(image, [box], [blurred], WITH_CRF)
    wrong = [int((m.foreground != disc[box.slices]).sum()) for m in (cut, refined)]
    assert wrong[0] > 100
    assert wrong[1] < 20


class Watched:
    """What reaches the CRF, which here leaves everything as it is."""

    def __init__(self) -> None:
        self.probabilities: list[NDArray[np.float32]] = []
        self.images: list[NDArray[np.uint8]] = []
        self.options: list[CrfOptions] = []

    def __call__(self, probabilities: Any, images: Any, options: Any, *_: Any) -> Any:
        self.probabilities += probabilities
        self.images += images
        self.options += options
        return probabilities


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    monkeypatch.setattr(refinement, "dense_crf_of_crops", watched)
    return watched


def test_the_reach_is_by_the_size_of_the_box_not_of_the_crop(watched: Watched) -> None:
    """The root of 9 * 16 is 12, and a quarter of it 3, however wide the margin."""
    boxes = [Box(10, 20, 19, 36, 1), Box(20, 20, 28, 28, 1)]
    for margin in (0.0, 0.2):
        wished = replace(WITH_CRF, margin=margin)
        list(refine_boxes(noise(), boxes, maps_of(boxes), wished))
    assert [each.theta_alpha for each in watched.options] == [3, 2, 3, 2]
    given = Refinement(CrfOptions(theta_alpha=7), margin=0.2)
    list(refine_boxes(noise(), boxes[:1], maps_of(boxes[:1]), given))
    assert watched.options[-1] == given.crf


def test_a_large_crop_reaches_the_crf_as_averages_of_blocks(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 40 x 50 in blocks of 2 are 20 x 25, and of 3, the last cut, 14 x 17.
    monkeypatch.setattr(refinement, "MOST_PIXELS", 300)
    image = noise((3, 60, 70))
    boxes = [Box(5, 6, 45, 56, 1), Box(5, 6, 20, 26, 1)]
    maps = maps_of(boxes)
    large, small = refine_boxes(image, boxes, maps, WITH_CRF)
    p, seen, options = watched.probabilities[0], watched.images[0], watched.options[0]
    assert p.shape == (2, 14, 17)
    assert p[1, 1, 2] == pytest.approx(maps[0][3:6, 6:9].mean())
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-6)
    assert seen.shape == (14, 17, 3)
    expected = 255 * image.pixels[:, 8:11, 12:15].mean(axis=(1, 2))
    np.testing.assert_allclose(seen[1, 2], expected, atol=0.6)
    assert options.theta_alpha == pytest.approx(math.sqrt(2000) / 4 / 3)
    assert options.theta_gamma == pytest.approx(1 / 3)
    assert large.foreground.shape == (40, 50)
    assert large.localization is maps[0]
    # One of 300 pixels is left as it is.
    assert np.array_equal(watched.probabilities[1][1], maps[1])
    assert np.array_equal(small.foreground, maps[1] > 0.5)


@pytest.mark.parametrize("shape", [(4000, 4000), (1, 3_000_000), (1448, 725)])
def test_no_crop_is_larger_than_what_was_measured(
    shape: tuple[int, int], watched: Watched
) -> None:
    image = BoxImage("large", np.zeros((1, *shape), np.float32), ())
    box = Box(0, 0, *shape, 1)
    (mask,) = refine_boxes(image, [box], [np.ones(shape, np.float32)], WITH_CRF)
    assert watched.images[0].size <= refinement.MOST_PIXELS
    assert watched.images[0].size > refinement.MOST_PIXELS / 4
    assert mask.foreground.all()


def test_at_a_reduced_resolution_the_mask_is_almost_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    yy, xx = np.mgrid[:150, :180]
    distance = np.hypot(yy - 75, xx - 90) + 6 * np.sin(np.arctan2(yy - 75, xx - 90) * 5)
    truth = distance < 50
    pixels = np.where(truth, 0.7, 0.4) + random.normal(0, 0.01, truth.shape)
    image = BoxImage("flower", pixels[None].astype(np.float32), ())
    box = Box(10, 15, 140, 165, 1)
    blurred = np.clip(1 - np.hypot(yy - 75, xx - 90) / 100, 0.05, 0.95)
    maps = [blurred[box.slices].astype(np.float32)]
    (whole,) = refine_boxes(image, [box], maps, WITH_CRF)
    monkeypatch.setattr(refinement, "MOST_PIXELS", 65 * 75)
    (halved,) = refine_boxes(image, [box], maps, WITH_CRF)
    assert (halved.foreground == whole.foreground).mean() > 0.98
    unrefined = (maps[0] > 0.5) != truth[box.slices]
    wrong = halved.foreground != truth[box.slices]
    assert wrong.mean() < unrefined.mean() / 3


def test_without_boxes_there_is_nothing() -> None:
    assert list(refine_boxes(noise(), [], [], WITH_CRF)) == []


def test_what_does_not_fit_is_refused() -> None:
    box = Box(0, 0, 2, 2, 1)
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(LabelError, match="whose shape is"):
        list(refine_boxes(noise(), [box], [np.ones((2, 3), np.float32)], Refinement()))
    with pytest.raises(ImageError, match=r"shape \(2, 2, 2\)"):
        list(refine_boxes(noise((2, 9, 9)), [box], [ones], WITH_CRF))
    with pytest.raises(ImageError, match="probability"):
        list(refine_boxes(noise(), [box], [ones * np.nan], WITH_CRF))
