"""Slides: the pixels of OpenSlide, levels that are read in parts, and their sizes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io import slides
from napari_sparseseg.io.slides import Scanned, over_white
from napari_sparseseg.io.sources import open_image
from tests.io.written import RGB, write_scn, write_slide

if TYPE_CHECKING:
    from pathlib import Path


openslide = pytest.importorskip("openslide")


def test_pixels_and_size_are_those_of_the_file(tmp_path: Path) -> None:
    source = open_image(write_slide(tmp_path / "ein Präparat.svs"))
    assert source.name == "ein Präparat"
    assert source.is_rgb
    assert len(source.levels) == 1
    np.testing.assert_array_equal(source.data, RGB)
    assert source.geometry.unit == "um"
    assert source.geometry.spacing == (0.5, 0.5)
    assert source.notes == ()


@pytest.mark.parametrize(
    "key",
    [
        np.s_[10:20, 30:45],
        np.s_[-5:, :7, 1],
        np.s_[3],
        np.s_[..., 2],
        np.s_[::50, 5:400:30],
        np.s_[:, 399, 0],
        np.s_[290:1000, 390:1000],
        np.s_[5:5, :],
        np.s_[()],
    ],
)
def test_parts_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: Any
) -> None:
    level = open_image(write_slide(tmp_path / "a.svs")).data
    monkeypatch.setattr(level, "_side", 64)
    np.testing.assert_array_equal(level[key], RGB[key])


def test_a_key_that_is_none_is_an_index_error(tmp_path: Path) -> None:
    level = open_image(write_slide(tmp_path / "a.svs")).data
    for key in (300, (0, 0, 0, 0), np.s_[::-1]):
        with pytest.raises(IndexError):
            level[key]


def test_several_threads_read_the_same(tmp_path: Path) -> None:
    level = open_image(write_slide(tmp_path / "a.svs")).data
    rows = range(0, 300, 30)
    with ThreadPoolExecutor(4) as pool:
        strips = list(pool.map(lambda y: level[y : y + 30], rows))
    np.testing.assert_array_equal(np.concatenate(strips), RGB)


def test_coarser_levels_of_a_large_slide_are_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slides, "LARGEST_SIDE", 100)
    monkeypatch.setattr(slides, "SLOW_SIDE", 399)
    source = open_image(write_slide(tmp_path / "a.svs"))
    assert [level.shape for level in source.levels] == [
        (300, 400, 3),
        (75, 100, 3),
    ]
    expected = RGB.reshape(75, 4, 100, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(source.levels[1][...], expected, atol=0.501)
    assert "has no coarse resolution" in source.notes[0]


def test_of_a_glass_what_was_scanned_is_the_slide(tmp_path: Path) -> None:
    """Where pixels (0, 0) are is that of QuPath, which takes OpenSlide's bounds."""
    path = write_scn(tmp_path / "a.scn", (104, 208))
    truth = openslide.OpenSlide(path)
    assert truth.dimensions == (1200, 1000)
    source = open_image(path)
    assert [level.shape for level in source.levels] == [(300, 400, 3), (75, 100, 3)]
    np.testing.assert_array_equal(source.data, RGB)
    np.testing.assert_array_equal(source.data[290:, 33:40], RGB[290:, 33:40])
    there = truth.read_region((208 + 4 * 20, 104 + 4 * 30), 1, (50, 40))
    np.testing.assert_array_equal(
        source.levels[1][30:70, 20:70], np.asarray(there)[..., :3]
    )
    assert source.geometry.um_per_px == 0.25


def test_levels_in_which_what_was_scanned_has_no_pixel_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slides, "_scanned", lambda _: Scanned(104, 208, 3, 9))
    source = open_image(write_scn(tmp_path / "a.scn", (104, 208)))
    assert [level.shape for level in source.levels] == [(3, 9, 3)]
    np.testing.assert_array_equal(source.data, RGB[:3, :9])


def test_a_pixel_size_that_is_missing_is_asked_for_and_never_guessed(
    tmp_path: Path,
) -> None:
    path = write_slide(tmp_path / "a.svs", about="|AppMag = 20")
    source = open_image(path)
    assert source.geometry.unit == "px"
    assert source.geometry.um_per_px is None
    assert "a.svs does not say how large its pixels are" in source.notes[0]
    given = open_image(path, um_per_px=0.25)
    assert given.geometry.um_per_px == 0.25
    assert given.notes == ()
    with pytest.raises(ImageError, match="expected numbers above 0"):
        open_image(path, um_per_px=0)


def test_what_no_scanner_has_seen_is_white() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    assert over_white(rgba).tolist() == [
        [[10, 20, 30], [255, 255, 255], [204, 204, 204]]
    ]


def real(data_dir: Path, name: str) -> Path:
    path = data_dir / "formats" / "wsi" / name
    if not path.exists():
        pytest.skip("there are no real slides")
    return path


def test_the_real_slide_is_as_openslide_reads_it(data_dir: Path) -> None:
    path = real(data_dir, "CMU-1-Small-Region.svs")
    source, truth = open_image(path), openslide.OpenSlide(path)
    expected = np.asarray(truth.read_region((1000, 1500), 0, (600, 700)))[..., :3]
    np.testing.assert_array_equal(source.data[1500:2200, 1000:1600], expected)
    assert source.geometry.um_per_px == 0.499


def test_levels_of_a_real_slide_show_the_same_tissue(data_dir: Path) -> None:
    path = real(data_dir, "histolab_tcga-cr-7395-01a-01-ts1.svs")
    source, truth = open_image(path), openslide.OpenSlide(path)
    # The last one is computed.
    assert [level.shape[1::-1] for level in source.levels] == [
        *truth.level_dimensions,
        (555, 445),
    ]
    whole = np.asarray(truth.read_region((0, 0), 1, truth.level_dimensions[1]))
    mine = source.levels[1][...]
    # OpenSlide moves by parts of a pixel, since the level is 2.0005 times coarser.
    error, one_off = (
        np.abs(mine[shift:] - whole[: len(whole) - shift, :, :3].astype(float)).mean()
        for shift in (0, 1)
    )
    assert error < one_off / 2
    np.testing.assert_array_equal(
        source.levels[1][700:900, 300:333], mine[700:900, 300:333]
    )
    assert source.geometry.unit == "px"


def test_a_real_dicom_slide_is_whole(data_dir: Path) -> None:
    path = data_dir / "formats" / "dicom" / "highdicom_small" / "sm_image.dcm"
    if not path.exists():
        pytest.skip("there are no real slides")
    pydicom = pytest.importorskip("pydicom")
    source = open_image(path)
    tiles = pydicom.dcmread(path).pixel_array.reshape(5, 5, 10, 10, 3)
    np.testing.assert_array_equal(source.data, tiles.swapaxes(1, 2).reshape(50, 50, 3))
    assert source.geometry.unit == "um"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("histolab_broken.svs", "is damaged, or no file of that kind"),
        ("openslide_unopenable.tiff", "52479 is not a known COMPRESSION"),
        ("pathml_small_wsi_dicom.dcm", "cannot be opened as a slide"),
    ],
)
def test_broken_slides_are_refused_in_a_sentence(
    data_dir: Path, name: str, reason: str
) -> None:
    with pytest.raises(ImageError, match=reason) as error:
        open_image(real(data_dir, name))
    assert "\n" not in str(error.value)
