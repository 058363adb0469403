"""Tissue masks: glass is skipped, faint tissue never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.ndimage import binary_opening

from napari_sparseseg.interruption import Interrupted, interruptible
from napari_sparseseg.prediction import tissue
from napari_sparseseg.prediction.tissue import (
    LEAST_FACTOR,
    MARGIN_PX,
    OVERVIEW_SIDE,
    overview_of,
    tissue_mask,
    tissue_share,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GLASS, STRONG, FAINT = (243, 241, 244), (190, 90, 150), (236, 226, 235)


def slide(*parts: tuple[slice, slice, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Give 400 x 400 pixels of glass with parts in other colours, and noise."""
    image = np.full((400, 400, 3), GLASS, dtype=np.int16)
    for rows, columns, color in parts:
        image[rows, columns] = color
    noise = np.random.default_rng(0).normal(0, 1.5, image.shape).round()
    return np.clip(image + noise, 0, 255).astype(np.uint8)


class TestTissueMask:
    def test_keeps_faint_tissue_beside_strong(self) -> None:
        strong = (slice(0, 150), slice(0, 150), STRONG)
        faint = (slice(250, 300), slice(250, 300), FAINT)
        mask = tissue_mask(slide(strong, faint))
        assert mask[:150, :150].all()
        assert mask[250:300, 250:300].all()
        far = np.ones_like(mask)
        far[: 152 + MARGIN_PX, : 152 + MARGIN_PX] = False
        far[248 - MARGIN_PX : 302 + MARGIN_PX, 248 - MARGIN_PX : 302 + MARGIN_PX] = (
            False
        )
        assert mask[far].mean() < 0.05

    def test_keeps_faint_tissue_where_there_is_little_glass(self) -> None:
        faint = (slice(0, 340), slice(0, 400), FAINT)
        strong = (slice(0, 60), slice(0, 400), STRONG)
        mask = tissue_mask(slide(faint, strong))
        assert mask[:340].all()
        assert not mask[360:].all()

    def test_is_given_up_between_two_strips(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tissue, "ROWS_AT_ONCE", 100)
        read: list[object] = []

        class Counted(np.ndarray):
            def __getitem__(self, key: Any) -> Any:
                read.append(key)
                return np.asarray(self)[key]

        image = slide().view(Counted)
        with (
            pytest.raises(Interrupted),
            interruptible(lambda: len(read) == 2),
        ):
            overview_of([image])
        assert len(read) == 2
        assert overview_of([image]).shape == (100, 100, 3)

    def test_keeps_a_speck_of_tissue(self) -> None:
        speck = (slice(200, 204), slice(200, 204), FAINT)
        assert tissue_mask(slide(speck))[200:204, 200:204].all()

    def test_keeps_what_is_dark_without_colour(self) -> None:
        pigment = (slice(200, 210), slice(200, 210), (60, 60, 60))
        assert tissue_mask(slide(pigment))[200:210, 200:210].all()

    def test_takes_all_where_there_is_no_glass(self) -> None:
        assert tissue_mask(slide((slice(None), slice(None), STRONG))).all()

    def test_leaves_out_what_was_never_scanned(self) -> None:
        image = slide((slice(0, 100), slice(None), STRONG))
        image[200:] = 0
        mask = tissue_mask(image)
        assert mask[:100].all()
        assert not mask[200 + MARGIN_PX + 4 :].any()

    def test_of_a_real_slide_keeps_every_stained_pixel(self, data_dir: Path) -> None:
        openslide = pytest.importorskip("openslide")
        path = data_dir / "formats" / "wsi" / "CMU-1-Small-Region.svs"
        with openslide.OpenSlide(path) as file:
            image = np.asarray(file.read_region((0, 0), 0, file.dimensions))[..., :3]
        mask = tissue_mask(overview_of([image]))
        assert 0.3 < mask.mean() < 0.6
        # Faint strands, seen by eye: grey-blue, left of and above the pink one.
        assert mask[235:278, 75:120].mean() > 0.4
        # Of pieces as small as a cell and smaller, as dust is, some are left out.
        colorful = binary_opening(np.ptp(image, axis=2) > 40, np.ones((9, 9)))
        rows, columns = np.nonzero(colorful)
        assert len(rows) > 100_000
        assert mask[rows // LEAST_FACTOR, columns // LEAST_FACTOR].all()


class TestOverview:
    def test_is_a_level_that_is_small_enough(self) -> None:
        levels = [
            np.zeros((OVERVIEW_SIDE * 4, 10, 3), np.uint8),
            np.ones((OVERVIEW_SIDE, 5, 3), np.uint8),
            np.full((OVERVIEW_SIDE // 2, 3, 3), 2, np.uint8),
        ]
        np.testing.assert_array_equal(overview_of(levels), levels[1])

    def test_of_one_level_has_means_of_squares(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (2050, 22, 3), np.uint8)
        found = overview_of([image])
        assert found.shape == (-(-2050 // LEAST_FACTOR), -(-22 // LEAST_FACTOR), 3)
        for y, x in ((0, 0), (100, 3), (255, 2), (256, 2), (512, 5)):
            rows, columns = (
                slice(i * LEAST_FACTOR, (i + 1) * LEAST_FACTOR) for i in (y, x)
            )
            mean = image[rows, columns].mean(axis=(0, 1))
            np.testing.assert_allclose(found[y, x], mean, atol=0.51)

    def test_of_a_large_image_is_no_larger_than_allowed(self) -> None:
        image = np.zeros((OVERVIEW_SIDE * LEAST_FACTOR + 5, 30, 3), np.uint8)
        assert len(overview_of([image])) <= OVERVIEW_SIDE


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ((0, 0, 100, 100), 0),
        ((100, 100, 200, 200), 0.01),
        ((190, 190, 191, 191), 1),
        ((200, 200, 300, 300), 0),
    ],
)
def test_a_region_has_as_much_tissue_as_its_overview(
    region: tuple[int, int, int, int], expected: float
) -> None:
    mask = np.zeros((30, 30), dtype=bool)
    mask[19, 19] = True
    assert tissue_share(mask, (300, 300), region) == expected
