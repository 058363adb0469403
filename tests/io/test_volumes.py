"""NIfTI, NRRD and MetaImage: voxels and their places as other libraries have them."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io.sources import open_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.io.geometry import Geometry

itk = pytest.importorskip("SimpleITK")
nibabel = pytest.importorskip("nibabel")

RNG = np.random.default_rng(0)
HU = RNG.integers(-1024, 3071, (3, 4, 5), np.int16)

#: Turned about all axes; columns are the directions of x, y, z.
TURNED = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])


def write(path: Path, pixels: NDArray[Any], **place: Any) -> Path:
    image = itk.GetImageFromArray(pixels, isVector=pixels.shape[-1] == 2)
    image.SetSpacing(place.get("spacing", (0.5, 0.75, 2.0)))
    image.SetOrigin(place.get("origin", (10.0, -20.0, 30.0)))
    image.SetDirection(place.get("direction", TURNED).ravel())
    itk.WriteImage(image, str(path))
    return path


def lps_of(geometry: Geometry, index_zyx: tuple[int, int, int]) -> NDArray[np.float64]:
    """Give where a voxel is: left, posterior, superior in mm."""
    assert geometry.direction is not None
    steps = np.multiply(geometry.spacing, index_zyx)
    start = np.array(geometry.origin[::-1])
    return np.asarray(start + steps @ np.array(geometry.direction), float)


@pytest.mark.parametrize(
    "name", ["a.nrrd", "a.mha", "a.nii", "ein Volumen äöü 肝.nii.gz"]
)
def test_turned_volumes_keep_voxels_and_places(tmp_path: Path, name: str) -> None:
    source = open_image(write(tmp_path / name, HU))
    np.testing.assert_array_equal(source.data[...], HU)
    assert source.data.dtype == np.int16
    assert source.name == name.partition(".")[0]
    assert source.geometry.unit == "mm"
    assert source.geometry.axes == ("z", "y", "x")
    np.testing.assert_allclose(source.geometry.spacing, (2.0, 0.75, 0.5))
    # By hand: the origin, and two, three and one steps along x, y and z.
    expected = (10, -20, 30) + TURNED @ (2 * 0.5, 3 * 0.75, 1 * 2.0)
    np.testing.assert_allclose(lps_of(source.geometry, (1, 3, 2)), expected, atol=1e-5)


def test_places_of_nifti_are_those_of_nibabel(tmp_path: Path) -> None:
    # RAS: flipped and turned, as nibabel users write it.
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ TURNED @ np.diag([0.5, 0.75, 2.0])
    affine[:3, 3] = (-7, 8, 9)
    written = nibabel.Nifti1Image(HU.T, affine)
    written.header.set_xyzt_units("mm")
    nibabel.save(written, tmp_path / "a.nii")
    geometry = open_image(tmp_path / "a.nii").geometry
    ras = affine @ (2, 3, 1, 1)
    expected = (-ras[0], -ras[1], ras[2])
    np.testing.assert_allclose(lps_of(geometry, (1, 3, 2)), expected, atol=1e-4)


def test_slope_and_intercept_give_hu(tmp_path: Path) -> None:
    written = nibabel.Nifti1Image((HU.T + 1024).astype(np.uint16), np.eye(4))
    written.header.set_slope_inter(1.0, -1024.0)
    written.header["cal_min"], written.header["cal_max"] = -160, 240
    nibabel.save(written, tmp_path / "a.nii.gz")
    source = open_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(
        source.data[...], nibabel.load(tmp_path / "a.nii.gz").get_fdata().T
    )
    assert source.window == (-160.0, 240.0)
    # nibabel leaves the unit out.
    assert source.geometry.unit == "mm"
    assert source.notes == ("a.nii.gz does not name its unit of length; mm was taken.",)


def test_the_real_volume_is_as_nibabel_has_it(data_dir: Path) -> None:
    path = data_dir / "formats" / "volumes" / "ircadb_1.01_labels_0based.nii.gz"
    if not path.exists():
        pytest.skip("there is no real volume")
    source, truth = open_image(path), nibabel.load(path)
    np.testing.assert_array_equal(source.data[60], np.asarray(truth.dataobj).T[60])
    assert source.data.shape == truth.shape[::-1]
    np.testing.assert_allclose(
        source.geometry.spacing, truth.header.get_zooms()[::-1], rtol=1e-6
    )


def test_a_single_plane_is_an_image(tmp_path: Path) -> None:
    source = open_image(write(tmp_path / "a.mha", HU[:1]))
    assert source.data.shape == (4, 5)
    assert source.geometry.axes == ("y", "x")
    assert source.geometry.spacing == (0.75, 0.5)


def test_colours_are_rgb(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (3, 4, 5, 3), np.uint8)
    image = itk.GetImageFromArray(pixels, isVector=True)
    itk.WriteImage(image, str(tmp_path / "a.mha"))
    source = open_image(tmp_path / "a.mha")
    assert source.is_rgb
    np.testing.assert_array_equal(source.data[...], pixels)


def test_a_file_without_a_voxel_size_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(
        b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n"
        + bytes(range(8))
    )
    source = open_image(tmp_path / "a.nrrd")
    assert source.geometry.unit == "px"
    assert source.geometry.direction is None
    assert "does not say how large" in source.notes[0]
    given = open_image(tmp_path / "a.nrrd", um_per_px=250).geometry
    assert (given.unit, given.spacing) == ("um", (250, 250, 250))


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_files_that_were_cut_off_are_refused(
    tmp_path: Path, name: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = RNG.integers(-1024, 3071, (16, 16, 16), np.int16)
    path = write(tmp_path / name, noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError, match=r"a\.\w+.* copy it anew") as error:
        open_image(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_gzip_in_several_parts_is_complete(tmp_path: Path) -> None:
    content = write(tmp_path / "a.nii", HU).read_bytes()
    parts = gzip.compress(content[:200]) + gzip.compress(content[200:])
    (tmp_path / "b.nii.gz").write_bytes(parts)
    np.testing.assert_array_equal(open_image(tmp_path / "b.nii.gz").data[...], HU)


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    pixels = HU.astype(np.float32)
    pixels[1, 2, 3] = np.nan
    with pytest.raises(ImageError, match=r"1 of 60 values that are not finite"):
        open_image(write(tmp_path / "a.nrrd", pixels))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_of_nifti_too_where_itk_makes_them_zero(
    tmp_path: Path, name: str, dtype: str
) -> None:
    pixels = HU.astype(dtype)
    header = nibabel.Nifti1Header(endianness=dtype[0])
    for bad, path in ((np.nan, tmp_path / name), (-np.inf, tmp_path / f"b{name}")):
        pixels[1, 2, 3] = bad
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4), header), path)
        with pytest.raises(ImageError, match=r"1 of 60 values that are not finite"):
            open_image(path)
    pixels[1, 2, 3] = 7
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4), header), path)
    np.testing.assert_array_equal(open_image(path).data[...], pixels.T)


def test_times_and_vectors_are_refused(tmp_path: Path) -> None:
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((5, 4, 3, 2), np.int16), np.eye(4)),
        tmp_path / "times.nii",
    )
    with pytest.raises(ImageError, match=r"times.nii has the shape \(2, 3, 4, 5\)"):
        open_image(tmp_path / "times.nii")
    write(tmp_path / "vectors.nrrd", np.zeros((3, 4, 5, 2), np.float32))
    with pytest.raises(ImageError, match="has 2 values a voxel"):
        open_image(tmp_path / "vectors.nrrd")
