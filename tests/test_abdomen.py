"""The generated CT slice shows what CT shows, and its boxes fit its truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops

from napari_sparseseg import abdomen
from napari_sparseseg.errors import OptionError
from napari_sparseseg.samples import BoxSample, abdomen_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def slices() -> list[BoxSample]:
    return [abdomen_phantom(seed, (160, 200)) for seed in range(3)]


@pytest.fixture(scope="module")
def organs() -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    return abdomen.render((320, 320), np.random.default_rng(0))


def test_is_the_same_for_the_same_seed_only(slices: list[BoxSample]) -> None:
    again = abdomen_phantom(1, (160, 200))
    np.testing.assert_array_equal(again.image, slices[1].image)
    np.testing.assert_array_equal(again.truth, slices[1].truth)
    assert again.boxes == slices[1].boxes
    assert (again.truth != slices[2].truth).any()
    assert again.name != slices[2].name


# Textbook intensities, with contrast medium where blood flows.
@pytest.mark.parametrize(
    ("organ", "low", "high"),
    [
        (abdomen.AIR, -1010, -980),
        (abdomen.FAT, -120, -80),
        (abdomen.MUSCLE, 40, 75),
        (abdomen.BONE, 200, 700),
        (abdomen.VESSEL, 120, 200),
        (abdomen.KIDNEY, 140, 210),
        (abdomen.SPLEEN, 105, 130),
        (abdomen.LIVER, 100, 125),
        (abdomen.TUMOUR, 30, 90),
    ],
)
def test_organs_are_as_bright_as_in_ct(
    organs: tuple[NDArray[np.int16], NDArray[np.uint8]],
    organ: int,
    low: float,
    high: float,
) -> None:
    image, truth = organs
    # Pixels at a border show a part of its other side.
    inside = ndimage.binary_erosion(truth == organ, iterations=2)
    assert np.count_nonzero(inside) > 50
    assert low < image[inside].mean() < high


def test_is_as_noisy_as_ct(organs: tuple[NDArray[np.int16], NDArray[np.uint8]]) -> None:
    image, truth = organs
    liver = ndimage.binary_erosion(truth == abdomen.LIVER, iterations=6)
    noise = image - ndimage.gaussian_filter(image.astype(float), 4)
    # By the median, since vessels are no noise.
    spread = 1.48 * np.median(np.abs(noise[liver]))
    # 17 to 19 on slices of 3D-IRCADb, whose pixels are half as wide.
    assert 8 < spread < 20
    # Noise of a scanner is no white noise.
    quiet = liver & (np.abs(noise) < 3 * spread)
    pairs = quiet[:, 1:] & quiet[:, :-1]
    neighbours = np.corrcoef(noise[:, 1:][pairs], noise[:, :-1][pairs])[0, 1]
    assert neighbours > 0.3


def test_has_every_class_and_signed_hounsfield_units(slices: list[BoxSample]) -> None:
    for each in slices:
        assert each.image.shape == each.truth.shape == (160, 200)
        assert each.image.dtype == np.int16
        assert -1024 <= each.image.min() < -900
        assert np.unique(each.truth).tolist() == list(each.classes.values)


def test_boxes_are_tight_around_the_objects(slices: list[BoxSample]) -> None:
    for each in slices:
        tumours = label(each.truth == 3)  # type: ignore[no-untyped-call]
        liver = label(each.truth >= 2)  # type: ignore[no-untyped-call]
        expected = {
            (*region.bbox, value)
            for value, pieces in ((2, liver), (3, tumours))
            for region in regionprops(pieces)  # type: ignore[no-untyped-call]
        }
        assert {(*box.edges, box.class_value) for box in each.boxes} == expected
        assert [box.class_value for box in each.boxes].count(2) == 1
        assert [box.class_value for box in each.boxes].count(3) >= 2


def test_tumours_lie_within_the_liver(slices: list[BoxSample]) -> None:
    for each in slices:
        around = ndimage.binary_dilation(each.truth == 3)
        assert set(np.unique(each.truth[around])) == {2, 3}


def test_cannot_be_solved_by_intensity_alone(slices: list[BoxSample]) -> None:
    low, high = np.percentile(slices[0].image[slices[0].truth == 3], (5, 95))
    as_bright = (slices[0].image >= low) & (slices[0].image <= high)
    assert (slices[0].truth[as_bright] == 1).mean() > 0.5


def test_tumours_can_be_told_from_liver(slices: list[BoxSample]) -> None:
    for each in slices:
        smooth = ndimage.gaussian_filter(each.image.astype(float), 1.5)
        darker = smooth < 0.5 * (
            smooth[each.truth == 2].mean() + smooth[each.truth == 3].mean()
        )
        liver = ndimage.binary_erosion(each.truth >= 2, iterations=2)
        found, real = darker[liver], each.truth[liver] == 3
        assert 2 * (found & real).sum() / (found.sum() + real.sum()) > 0.7


@pytest.mark.parametrize("shape", [(127, 300), (300, 64), (512,)])
def test_refuses_a_size_without_room(shape: tuple[int, int]) -> None:
    with pytest.raises(OptionError, match="at least 128"):
        abdomen_phantom(shape=shape)
