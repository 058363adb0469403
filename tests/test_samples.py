"""The samples are reproducible, and their strokes mean what they say."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from napari_sparseseg.errors import LabelError, OptionError
from napari_sparseseg.samples import (
    Sample,
    immunohistochemistry,
    simulate_strokes,
    tissue_phantom,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

EIGHT_CONNECTED = np.ones((3, 3))


@pytest.fixture(scope="module")
def phantom() -> Sample:
    return tissue_phantom(seed=0)


@pytest.fixture(scope="module")
def tile() -> Sample:
    return immunohistochemistry()


def strokes_of(labels: NDArray[np.integer], value: int) -> int:
    return int(ndimage.label(labels == value, EIGHT_CONNECTED)[1])


def mean_dice(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    return float(f1_score(truth.ravel(), predicted.ravel(), average="macro"))


class TestTissuePhantom:
    def test_is_the_same_for_the_same_seed(self) -> None:
        first, second = (tissue_phantom(seed=3, shape=(160, 200)) for _ in range(2))
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.labels, second.labels)
        np.testing.assert_array_equal(first.truth, second.truth)

    def test_differs_for_another_seed(self, phantom: Sample) -> None:
        other = tissue_phantom(seed=1)
        assert phantom.truth is not None
        assert other.truth is not None
        agreement = float((phantom.truth == other.truth).mean())
        # Two independent maps agree with the sum of squared class shares, here 0.38.
        assert agreement < 0.55
        assert phantom.name != other.name

    def test_has_an_image_strokes_and_a_truth_of_one_size(
        self, phantom: Sample
    ) -> None:
        assert phantom.image.shape == (512, 512, 3)
        assert phantom.truth is not None
        for array in (phantom.image, phantom.labels, phantom.truth):
            assert array.dtype == np.uint8
        assert phantom.labels.shape == phantom.truth.shape == (512, 512)

    @pytest.mark.parametrize("shape", [(128, 128), (128, 240), (300, 200)])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_has_every_class_at_every_size(
        self, shape: tuple[int, int], seed: int
    ) -> None:
        sample = tissue_phantom(seed, shape)
        assert sample.truth is not None
        assert sample.truth.shape == shape
        assert set(np.unique(sample.truth)) == set(sample.classes.values)
        assert set(np.unique(sample.labels)) == {0, *sample.classes.values}

    def test_strokes_lie_in_their_class(self, phantom: Sample) -> None:
        assert phantom.truth is not None
        marked = phantom.labels > 0
        np.testing.assert_array_equal(phantom.labels[marked], phantom.truth[marked])
        assert marked.mean() == pytest.approx(0.01, rel=0.05)

    def test_has_five_strokes_of_each_class(self, phantom: Sample) -> None:
        for each in phantom.classes:
            assert strokes_of(phantom.labels, each.value) >= 5

    def test_glands_are_rings_around_a_lumen(self, phantom: Sample) -> None:
        assert phantom.truth is not None
        epithelium = phantom.truth == phantom.classes.by_name("gland epithelium").value
        hollow = ndimage.binary_fill_holes(epithelium) & ~epithelium
        lumina = np.unique(phantom.truth[ndimage.binary_erosion(hollow)])
        assert lumina.tolist() == [phantom.classes.by_name("background").value]

    def test_looks_like_haematoxylin_and_eosin(self, phantom: Sample) -> None:
        assert phantom.truth is not None
        names = ("background", "stroma", "lymphocytes")
        background, stroma, lymphocytes = (
            phantom.image[phantom.truth == phantom.classes.by_name(name).value].mean(0)
            for name in names
        )
        assert background.min() > 220
        assert stroma[0] > stroma[2] > stroma[1]
        assert lymphocytes.sum() < 0.8 * stroma.sum()
        assert lymphocytes[2] > lymphocytes[0]

    def test_cannot_be_solved_by_colour_alone(self, phantom: Sample) -> None:
        other = tissue_phantom(seed=1)
        assert phantom.truth is not None
        assert other.truth is not None
        forest = RandomForestClassifier(15, min_samples_leaf=5, random_state=0)
        colours = phantom.image[::4, ::4].reshape(-1, 3)
        forest.fit(colours, phantom.truth[::4, ::4].ravel())
        predicted = forest.predict(other.image[::2, ::2].reshape(-1, 3))
        assert mean_dice(predicted, other.truth[::2, ::2]) < 0.75

    def test_can_be_learned_from_strokes(self, phantom: Sample) -> None:
        other = tissue_phantom(seed=1)
        assert other.truth is not None
        learned, asked = (
            multiscale_basic_features(  # type: ignore[no-untyped-call]
                sample.image, channel_axis=-1, texture=False, sigma_min=2
            )
            for sample in (phantom, other)
        )
        marked = phantom.labels > 0
        forest = RandomForestClassifier(
            30, min_samples_leaf=3, max_features="sqrt", random_state=0
        )
        forest.fit(learned[marked], phantom.labels[marked])
        asked = asked[::3, ::3]
        predicted = forest.predict(asked.reshape(-1, asked.shape[-1]))
        assert mean_dice(predicted, other.truth[::3, ::3]) > 0.8

    @pytest.mark.parametrize("shape", [(127, 300), (300, 64), (512,)])
    def test_refuses_a_size_without_room(self, shape: tuple[int, int]) -> None:
        with pytest.raises(OptionError, match="at least 128"):
            tissue_phantom(shape=shape)

    def test_refuses_a_negative_seed(self) -> None:
        with pytest.raises(OptionError, match="seed is -1"):
            tissue_phantom(seed=-1)


class TestSimulateStrokes:
    @pytest.fixture
    def truth(self) -> NDArray[np.uint8]:
        """Two large classes with a gap in their numbers, and a third of nothing."""
        truth = np.zeros((120, 150), np.uint8)
        truth[:, :50] = 2
        truth[:, 100:] = 7
        return truth

    def test_is_the_same_for_the_same_seed(self, truth: NDArray[np.uint8]) -> None:
        first, same, other = (simulate_strokes(truth, seed=seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, same)
        assert (first != other).any()

    @pytest.mark.parametrize("share", [0.02, 0.05, 0.15])
    def test_gives_each_class_the_same_paint(
        self, truth: NDArray[np.uint8], share: float
    ) -> None:
        strokes = simulate_strokes(truth, share=share)
        wanted = share * truth.size / 2
        for value in (2, 7):
            painted = np.count_nonzero(strokes == value)
            # One brush of 3 x 3 may go beyond.
            assert wanted <= painted < wanted + 9

    @pytest.mark.parametrize("width_px", [1, 2, 3, 6])
    def test_stays_inside_the_class(
        self, truth: NDArray[np.uint8], width_px: int
    ) -> None:
        strokes = simulate_strokes(truth, share=0.1, width_px=width_px)
        marked = strokes > 0
        np.testing.assert_array_equal(strokes[marked], truth[marked])

    @pytest.mark.parametrize("width_px", [1, 3, 5])
    def test_strokes_are_as_wide_as_the_brush(self, width_px: int) -> None:
        truth = np.ones((100, 100), np.uint8)
        painted = simulate_strokes(truth, share=0.04, width_px=width_px) == 1
        inner = ndimage.binary_erosion(painted, np.ones((width_px, 1)))
        assert inner.any()
        # Every pixel belongs to a brush that fits, and no larger square does.
        brush = np.hypot(*np.mgrid[:width_px, :width_px] - (width_px - 1) / 2)
        opened = ndimage.binary_opening(painted, brush <= width_px / 2)
        np.testing.assert_array_equal(opened, painted)
        too_wide = np.ones((width_px + 3, width_px + 3))
        assert not ndimage.binary_erosion(painted, too_wide).any()

    def test_gives_several_strokes_of_each_class(
        self, truth: NDArray[np.uint8]
    ) -> None:
        strokes = simulate_strokes(truth, share=0.03)
        assert min(strokes_of(strokes, value) for value in (2, 7)) >= 5

    def test_does_not_depend_on_the_other_classes(
        self, truth: NDArray[np.uint8]
    ) -> None:
        alone = np.where(truth == 7, truth, 0)
        both = simulate_strokes(truth, share=0.04)
        np.testing.assert_array_equal(
            simulate_strokes(alone, share=0.02), np.where(both == 7, both, 0)
        )

    def test_paints_what_there_is_of_a_tiny_class(self) -> None:
        truth = np.ones((60, 60), np.uint16)
        truth[30, 10:20] = 300
        strokes = simulate_strokes(truth, share=0.1)
        assert strokes.dtype == np.uint16
        np.testing.assert_array_equal(strokes == 300, truth == 300)

    def test_full_share_ends(self) -> None:
        truth = np.ones((20, 20), np.uint8)
        assert (simulate_strokes(truth, share=1) == 1).mean() > 0.9

    @pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
    def test_refuses_a_share_out_of_range(
        self, truth: NDArray[np.uint8], share: float
    ) -> None:
        with pytest.raises(OptionError, match="share"):
            simulate_strokes(truth, share=share)

    def test_refuses_a_brush_without_width(self, truth: NDArray[np.uint8]) -> None:
        with pytest.raises(OptionError, match="width"):
            simulate_strokes(truth, width_px=0)

    def test_refuses_a_truth_without_class(self) -> None:
        with pytest.raises(LabelError, match="no class"):
            simulate_strokes(np.zeros((9, 9), np.uint8))

    def test_refuses_a_colour_picture(self) -> None:
        with pytest.raises(LabelError, match="shape"):
            simulate_strokes(np.zeros((9, 9, 3), np.uint8))


class TestImmunohistochemistry:
    def test_needs_no_download(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pooch", None)
        assert immunohistochemistry().image.shape == (512, 512, 3)

    def test_has_strokes_to_hold_out(self, tile: Sample) -> None:
        assert tile.labels.shape == tile.image.shape[:2]
        assert tile.truth is None
        assert set(np.unique(tile.labels)) == {0, *tile.classes.values}
        for each in tile.classes:
            assert strokes_of(tile.labels, each.value) >= 6

    def test_strokes_lie_on_what_they_name(self, tile: Sample) -> None:
        red, green, blue = np.moveaxis(tile.image.astype(np.float64), -1, 0)
        dark, brown = 255 - (red + green + blue) / 3, red - blue

        def mean(values: NDArray[np.float64], name: str) -> float:
            return float(values[tile.labels == tile.classes.by_name(name).value].mean())

        others = ("lumen or glass", "stroma", "stromal nucleus")
        assert all(mean(brown, "epithelium") > mean(brown, x) + 40 for x in others)
        assert mean(brown, "stromal nucleus") < mean(brown, "stroma") - 15
        assert mean(dark, "stromal nucleus") > mean(dark, "stroma") + 40
        assert mean(dark, "lumen or glass") < mean(dark, "stroma") < 50
