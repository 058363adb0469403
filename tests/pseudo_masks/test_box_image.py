"""An image with boxes: what is refused, and its pixels in 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sparseseg.annotations import Box
from napari_sparseseg.errors import ImageError, LabelError
from napari_sparseseg.pseudo_masks.box_image import BoxImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

GREY = np.zeros((1, 4, 6), np.float32)


def test_every_step_of_8_bits_survives() -> None:
    steps = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = (steps / 255).astype(np.float32)
    grey = BoxImage("a", pixels[None], ())
    assert grey.shape == (16, 16)
    assert np.array_equal(grey.in_8_bits(), steps)
    box = Box(2, 3, 5, 9, 1)
    assert np.array_equal(grey.in_8_bits(box), steps[2:5, 3:9])
    colour = BoxImage("b", np.stack([pixels, 1 - pixels, pixels.T]), ())
    expected = np.stack([steps, 255 - steps, steps.T], axis=-1)
    assert np.array_equal(colour.in_8_bits(), expected)
    assert np.array_equal(colour.in_8_bits(box), expected[2:5, 3:9])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 6), np.float32),
        np.zeros((1, 4, 6), np.float64),
        np.zeros((1, 0, 6), np.float32),
    ],
)
def test_other_shapes_and_types_are_refused(pixels: NDArray[Any]) -> None:
    with pytest.raises(ImageError, match=r"scan has pixels of shape .* expected is"):
        BoxImage("scan", pixels, ())


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan, np.inf])
def test_values_outside_of_0_to_1_are_refused(value: float) -> None:
    pixels = GREY.copy()
    pixels[0, 2, 3] = value
    with pytest.raises(ImageError, match=r"scan has pixels outside of \[0, 1\]"):
        BoxImage("scan", pixels, ())


def test_boxes_that_do_not_fit_are_refused() -> None:
    BoxImage("scan", GREY, (Box(0, 0, 4, 6, 1, (2,)), Box(1, 1, 2, 2, 1, (2,))))
    for box in (Box(0, 0, 4, 7, 1), Box(-1, 0, 2, 2, 1), Box(1, 1, 1, 3, 1)):
        with pytest.raises(LabelError, match=r"scan: the box .* is empty or leaves"):
            BoxImage("scan", GREY, (box,))
    planes = Box(0, 0, 1, 1, 1, (2,)), Box(0, 0, 1, 1, 1, (3,))
    with pytest.raises(LabelError, match="lies on another plane"):
        BoxImage("scan", GREY, planes)
