"""GrabCut of a box: votes, jitter and margins, and objects whose outline is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.random import default_rng

from napari_sparseseg.annotations import Box
from napari_sparseseg.errors import ImageError, LabelError, OptionError
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.pseudo_masks.grabcut import (
    GrabCutOptions,
    grabcut_in_parts,
    mask_of_votes,
)

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from napari_sparseseg.pseudo_masks.label_map import BoxMask

# Small and few, since each takes time.
QUICK = GrabCutOptions(runs=3, working_side=60, iterations=2)


def disc(
    radius: float = 12, contrast: float = 60
) -> tuple[NDArray[np.uint8], Box, NDArray[np.bool_]]:
    """Give a disc on noise, a box around it, and where in the box it is."""
    yy, xx = np.mgrid[:80, :90]
    inside = np.hypot(yy - 40, xx - 45) < radius
    noise = default_rng(0).normal(0, 3, inside.shape)
    image = (100 + contrast * inside + noise).astype(np.uint8)
    reach = int(radius) + 2
    box = Box(40 - reach, 45 - reach, 41 + reach, 46 + reach, 1)
    return image, box, inside[box.slices]


def cut_out(
    image: NDArray[np.uint8], box: Box, options: GrabCutOptions, generator: Generator
) -> BoxMask:
    return finish(grabcut_in_parts(image, box, options, generator))


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_a_disc_is_cut_out(channels: int) -> None:
    image, box, truth = disc()
    if channels:
        image = np.repeat(image[..., None], channels, axis=2)
    mask = cut_out(image, box, QUICK, default_rng(0))
    assert iou(mask.foreground, truth) > 0.9
    assert mask.localization.dtype == np.float32
    assert mask.localization.shape == box.shape
    assert mask.localization[truth].mean() > 0.95
    assert mask.localization[~truth].mean() < 0.1


def test_a_disc_of_another_colour_and_the_same_brightness_is_cut_out() -> None:
    image, box, truth = disc()
    coloured = np.stack([image, 255 - image, np.full_like(image, 90)], axis=2)
    mask = cut_out(coloured, box, QUICK, default_rng(0))
    assert iou(mask.foreground, truth) > 0.9


def test_a_small_object_of_little_contrast_is_not_lost() -> None:
    image, box, truth = disc(radius=5, contrast=20)
    mask = cut_out(image, box, replace(QUICK, working_side=200), default_rng(0))
    assert iou(mask.foreground, truth) > 0.7


def test_the_generator_decides() -> None:
    image, box, _ = disc(contrast=12)
    maps = [
        cut_out(image, box, QUICK, default_rng(seed)).localization for seed in (1, 1, 2)
    ]
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_boxes_are_jittered_and_framed_as_wished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the masks that OpenCV is given, for a box whose pixels are not resampled."""
    image = default_rng(0).integers(0, 255, (400, 500), np.uint8)
    box = Box(150, 200, 250, 300, 1)
    given: list[NDArray[np.uint8]] = []
    monkeypatch.setattr(cv2, "grabCut", lambda _, mask, *rest: given.append(mask))
    options = GrabCutOptions(
        runs=40, jitter=0.05, least_margin=0.1, largest_margin=0.6, working_side=100
    )
    mask = cut_out(image, box, options, default_rng(0))
    assert len(given) == 40
    margins, sides, shifts = [], [], []
    for seen in given:
        rows, columns = np.nonzero(seen == cv2.GC_PR_FGD)
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
        assert len(rows) == height * width
        assert set(np.unique(seen)) == {cv2.GC_BGD, cv2.GC_PR_FGD}
        sides += [height, width]
        margins += [rows[0] / height, (seen.shape[1] - columns[-1] - 1) / width]
        shifts.append(rows[0] - (seen.shape[0] - rows[-1] - 1))
    assert 90 <= min(sides) < 95
    assert 105 < max(sides) <= 110
    assert 0.09 <= min(margins) < 0.15
    assert 0.55 < max(margins) <= 0.61
    assert set(shifts) <= {-1, 0, 1}  # the frame is as wide above as below
    # What is left untouched is the jittered box itself.
    assert mask.localization[50, 50] == 1
    assert 0 < mask.localization[0, 50] < 1


def test_shares_of_votes_decide() -> None:
    box = Box(0, 0, 1, 5, 3)
    share = np.array([[0.0, 0.1, 0.2, 0.6, 0.7]], np.float32)
    mask = mask_of_votes(box, share, GrabCutOptions())
    assert mask.background.tolist() == [[True, True, False, False, False]]
    assert mask.undecided is not None
    assert mask.undecided.tolist() == [[False, False, True, True, False]]
    assert mask.foreground.tolist() == [[False, False, False, False, True]]
    strict = mask_of_votes(box, share, GrabCutOptions(foreground=1, background=1))
    assert strict.background.all()


def test_there_is_a_break_between_the_runs() -> None:
    image, box, _ = disc()
    parts = grabcut_in_parts(image, box, QUICK, default_rng(0))
    assert sum(1 for _ in parts) == 2


@pytest.mark.parametrize(
    ("image", "box"),
    [
        (np.full((30, 40), 7, np.uint8), Box(10, 10, 20, 22, 1)),
        (disc()[0], Box(0, 0, 80, 90, 1)),
        (np.full((1, 1), 7, np.uint8), Box(0, 0, 1, 1, 1)),
    ],
)
def test_a_box_with_nothing_to_tell_by_is_all_foreground(
    image: NDArray[np.uint8], box: Box
) -> None:
    mask = cut_out(image, box, QUICK, default_rng(0))
    assert mask.foreground.all()


@pytest.mark.parametrize(
    "box", [Box(0, 0, 1, 1, 1), Box(79, 5, 80, 90, 1), Box(3, 89, 70, 90, 1)]
)
def test_boxes_of_one_pixel_and_one_line_are_cut_out(box: Box) -> None:
    mask = cut_out(disc()[0], box, QUICK, default_rng(0))
    assert mask.foreground.shape == box.shape


def test_what_cannot_be_used_is_refused() -> None:
    image, box, _ = disc()
    for wrong in (image.astype(np.float32), np.zeros((9, 9, 2), np.uint8)):
        with pytest.raises(ImageError, match="GrabCut was given an image of shape"):
            cut_out(wrong, box, QUICK, default_rng(0))  # type: ignore[arg-type]
    for outside in (Box(0, 0, 81, 5, 1), Box(3, 3, 3, 9, 1)):
        with pytest.raises(LabelError, match="is empty or leaves the image"):
            cut_out(image, outside, QUICK, default_rng(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": 0}, "runs = 0; give an integer from 1"),
        ({"jitter": 0.5}, "jitter = 0.5; give a share from 0 to below 0.5"),
        ({"least_margin": 0.0}, "least_margin = 0.0; give a share above 0"),
        ({"largest_margin": 0.05}, "largest_margin = 0.05; give a share of at least"),
        ({"foreground": 1.1}, "foreground = 1.1; give a share above 0, up to 1"),
        ({"background": 0.8}, "background = 0.8; give a share from 0 to 0.7"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(QUICK, **change)
