"""DICOM series: found, ordered, in HU, with gaps and what is no image told."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io import dicom_series
from napari_sparseseg.io.sources import list_series, open_image
from tests.io.written import STORED, write_series, write_slice

if TYPE_CHECKING:
    from pathlib import Path

pydicom = pytest.importorskip("pydicom")
itk = pytest.importorskip("SimpleITK")


def test_planes_are_ordered_and_in_hu(tmp_path: Path) -> None:
    source = open_image(write_series(tmp_path / "ein Ordner äöü"))
    np.testing.assert_array_equal(source.data[...], STORED.astype(int) - 1024)
    assert source.data.dtype == np.int16
    assert source.geometry.spacing == (3.0, 0.75, 0.5)
    assert source.geometry.origin == (0.0, -9.0, -7.0)
    assert source.geometry.unit == "mm"
    np.testing.assert_array_equal(
        source.geometry.direction, [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    )
    # Soft tissue, since the files have no window.
    assert source.window == (-160.0, 240.0)
    places = [float(pydicom.dcmread(f).ImagePositionPatient[2]) for f in source.files]
    assert places == [0, 3, 6, 9, 12, 15]


def test_any_file_of_a_series_opens_all_of_it(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    one = sorted(folder.iterdir())[2]
    np.testing.assert_array_equal(
        open_image(one).data[...], open_image(folder).data[...]
    )


def test_files_in_folders_inside_are_found_and_loops_are_no_trap(
    tmp_path: Path,
) -> None:
    write_series(tmp_path / "study" / "series")
    (tmp_path / "study" / "series" / "again").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert open_image(tmp_path).data.shape == (6, 8, 10)
    with pytest.raises(ImageError, match=r"itself cannot be read: .*symbolic links"):
        open_image(tmp_path / "itself")


@pytest.mark.parametrize(
    "orientation",
    [
        [1, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0, -1],
        [-1, 0, 0, 0, 1, 0],
        [0.8, 0.6, 0, -0.48, 0.64, 0.6],
    ],
)
def test_places_are_those_of_itk(tmp_path: Path, orientation: list[float]) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    for index in range(4):
        write_slice(
            tmp_path / str(9 - index),
            STORED[index],
            0,
            ImageOrientationPatient=orientation,
            ImagePositionPatient=[*np.round([1, 2, 3] - 2.5 * index * normal, 9)],
        )
    source = open_image(tmp_path)
    reader = itk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    expected = reader.Execute()
    np.testing.assert_array_equal(source.data[...], itk.GetArrayFromImage(expected))
    geometry = source.geometry
    np.testing.assert_allclose(geometry.spacing, expected.GetSpacing()[::-1])
    np.testing.assert_allclose(geometry.origin, expected.GetOrigin()[::-1], atol=1e-6)
    columns = np.reshape(expected.GetDirection(), (3, 3))
    assert geometry.direction is not None
    np.testing.assert_allclose(geometry.direction, columns.T[::-1], atol=1e-6)


def test_each_plane_has_its_own_slope(tmp_path: Path) -> None:
    for index, slope in enumerate((1, 0.5, 0.25)):
        write_slice(
            tmp_path / str(index),
            STORED[index],
            4 * index,
            RescaleSlope=slope,
            RescaleIntercept=0,
            Modality="PT",
        )
    expected = STORED[:3] * np.reshape((1, 0.5, 0.25), (3, 1, 1))
    source = open_image(tmp_path)
    np.testing.assert_array_equal(source.data[...], expected)
    assert source.window is None


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path, (0, 3, 6, 15, 18, 21))
    before, after = (
        next(f.name for f in folder.iterdir() if f.name.startswith(f"{number}-"))
        for number in (14 % 11, 21 % 11)
    )
    with pytest.raises(ImageError, match="9 mm apart where 3 mm is usual") as error:
        open_image(folder)
    assert f"{before} and {after}, at 6 and 15 mm" in str(error.value)
    assert "so 2 are missing" in str(error.value)


def test_planes_in_the_same_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="at the same place"):
        open_image(write_series(tmp_path, (0, 3, 6, 0, 3, 6)))


def test_a_copy_of_a_file_counts_once(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    shutil.copy(sorted(folder.iterdir())[0], folder / "copy")
    assert open_image(folder).data.shape == (6, 8, 10)


def test_one_of_several_series_is_chosen_or_all_are_named(tmp_path: Path) -> None:
    write_series(tmp_path, SeriesInstanceUID="1.2.3.4000", SeriesNumber=7)
    write_series(
        tmp_path,
        (0, 5),
        SeriesInstanceUID="1.2.3.5001",
        SeriesNumber=2,
        SeriesDescription="Lung",
    )
    found = list_series(tmp_path)
    assert [str(each) for each in found] == [
        "CT 'Lung' (2 x 8 x 10)",
        "CT 'Abdomen' (6 x 8 x 10)",
    ]
    assert found[1].spacing == (3.0, 0.75, 0.5)
    with pytest.raises(ImageError, match=r"2 series: 1 = CT 'Lung'.*2 = CT 'Abdomen'"):
        open_image(tmp_path)
    for wanted in ("2", "Abdomen", "1.2.3.4000", "4000"):
        chosen = open_image(tmp_path, series=wanted)
        assert chosen.data.shape == (6, 8, 10)
        assert chosen.series == "1.2.3.4000"
    with pytest.raises(ImageError, match="none of them is 'Head'"):
        open_image(tmp_path, series="Head")


def test_a_scout_in_the_series_is_a_part_of_its_own(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    write_slice(
        folder / "scout", STORED[0], 40, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]
    )
    assert sorted(each.n_slices for each in list_series(folder)) == [1, 6]
    uid = next(each.uid for each in list_series(folder) if each.n_slices == 6)
    assert open_image(folder, series=uid).data.shape == (6, 8, 10)


def test_a_tilted_gantry_is_kept_and_told(tmp_path: Path) -> None:
    for index in range(3):
        write_slice(
            tmp_path / str(index),
            STORED[index],
            0,
            ImagePositionPatient=[0, 0.75 * index, 3 * index],
        )
    source = open_image(tmp_path)
    assert source.geometry.direction is not None
    steps = np.multiply(source.geometry.spacing[0], source.geometry.direction[0])
    np.testing.assert_allclose(steps, (0, 0.75, 3), atol=1e-5)
    assert "tilted gantry" in source.notes[0]


def test_a_single_plane_is_an_image_with_the_window_of_its_header(
    tmp_path: Path,
) -> None:
    path = write_slice(
        tmp_path / "a", STORED[0], 0, WindowCenter=[50, 300], WindowWidth=[350, 1500]
    )
    source = open_image(path)
    assert source.data.shape == (8, 10)
    assert source.geometry.spacing == (0.75, 0.5)
    assert source.window == (-125.0, 225.0)


def write_frames(path: Path, places: list[float], slopes: list[float]) -> Path:
    """Write Enhanced CT: frames whose place and slope stand in sequences."""

    def item(**values: Any) -> Any:
        data = pydicom.Dataset()
        for name, value in values.items():
            setattr(data, name, value)
        return data

    per_frame = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[1, 2, at])],
            PixelValueTransformationSequence=[
                item(RescaleSlope=slope, RescaleIntercept=-1000, RescaleType="HU")
            ],
        )
        for at, slope in zip(places, slopes, strict=True)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.75, 0.5], SliceThickness=9)],
    )
    write_slice(
        path,
        STORED[: len(places)].reshape(-1, 10),
        0,
        SOPClassUID=pydicom.uid.EnhancedCTImageStorage,
        NumberOfFrames=len(places),
        Rows=8,
        PerFrameFunctionalGroupsSequence=per_frame,
        SharedFunctionalGroupsSequence=[shared],
    )
    data = pydicom.dcmread(path)
    for name in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(data, name)
    data.save_as(path)
    return path


def test_frames_of_one_file_are_ordered_by_their_places(tmp_path: Path) -> None:
    source = open_image(write_frames(tmp_path / "a", [3, 7, 5], [2, 2, 2]))
    expected = STORED[[0, 2, 1]].astype(int) * 2 - 1000
    np.testing.assert_array_equal(source.data[...], expected)
    assert source.geometry.spacing == (2.0, 0.75, 0.5)
    assert source.geometry.origin == (3.0, 2.0, 1.0)
    with pytest.raises(ImageError, match="4 mm apart where 2 mm is usual"):
        open_image(write_frames(tmp_path / "b", [3, 5, 7, 11], [2] * 4))
    with pytest.raises(ImageError, match="frames that are rescaled differently"):
        open_image(write_frames(tmp_path / "c", [3, 5, 7], [2, 2, 1]))


def test_no_patient_is_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    told = repr((list_series(folder), open_image(folder)))
    assert "Muster" not in told
    assert "4711" not in told


def test_a_folder_of_many_other_files_is_not_searched_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "series")
    for index in range(4):
        (tmp_path / "series" / f"{index}.txt").touch()
    assert len(list_series(tmp_path)) == 1
    monkeypatch.setattr(dicom_series, "_MOST_OTHERS", 3)
    with pytest.raises(ImageError, match="more than 3 files that are not DICOM"):
        open_image(tmp_path)


def test_slides_are_listed_by_their_finest_level(data_dir: Path) -> None:
    found = list_series(data_dir / "formats" / "dicom" / "highdicom_small")
    slides = [each for each in found if each.is_slide]
    assert [str(each) for each in slides] == ["slide (50 x 50)"] * 2
    assert {each.shape for each in slides} == {(50, 50)}


def cut_off(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def test_a_truncated_file_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_series(tmp_path)
    cut_off(folder / "7-", 0.95)
    with pytest.raises(ImageError, match="7- cannot be read, because it is damaged"):
        open_image(folder)
    assert capfd.readouterr() == ("", "")


def test_a_file_whose_header_is_cut_off_is_not_left_out_in_silence(
    tmp_path: Path,
) -> None:
    folder = write_series(tmp_path)
    last = next(f for f in folder.iterdir() if f.name.startswith(f"{35 % 11}-"))
    cut_off(last, 0.3)
    source = open_image(folder)
    assert source.data.shape == (5, 8, 10)
    assert source.notes == ("Left out: a damaged DICOM file.",)
    with pytest.raises(ImageError, match="its DICOM header is damaged"):
        open_image(last)


def real(data_dir: Path, *names: str) -> Path:
    path = data_dir.joinpath("formats", "dicom", *names)
    if not path.exists():
        pytest.skip("there are no real DICOM files")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "693_J2KI.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_jp2klossless.dcm",
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's doubts
def test_real_files_have_the_values_of_pydicom(data_dir: Path, name: str) -> None:
    path = real(data_dir, "pydicom_small", name)
    data = pydicom.dcmread(path)
    expected = pydicom.pixels.apply_rescale(data.pixel_array, data)
    source = open_image(path)
    np.testing.assert_array_equal(source.data[...], expected)
    assert source.geometry.spacing == tuple(data.PixelSpacing)


def test_the_real_series_without_uids_is_read(data_dir: Path) -> None:
    folder = real(data_dir, "totalseg_siemens_abdomen_j2k")
    source = open_image(next(folder.iterdir()))
    assert source.data.shape == (20, 512, 512)
    assert source.window == (-110.0, 190.0)
    assert source.name == "CT Body 3.0"
    at = 13
    data = pydicom.dcmread(source.files[at])
    np.testing.assert_array_equal(
        source.data[at], pydicom.pixels.apply_rescale(data.pixel_array, data)
    )
    z = source.geometry.origin[0] + at * source.geometry.spacing[0]
    assert z == pytest.approx(data.ImagePositionPatient[2])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pydicom_small/rtstruct.dcm", "contours .RTSTRUCT., no image; open the image"),
        ("dcmqi_ct3/seg/liver.dcm", "segmentation .SEG., no image; open the image"),
        ("dcmqi_ct3/seg/liver.dcm", "with sparseseg import FILE --image IMAGE --out"),
        ("pydicom_small/ExplVR_LitEndNoMeta.dcm", "RT Ion Plan Storage, no image"),
        ("pydicom_small/no_meta.dcm", "is damaged, or no file of that kind"),
        ("dcmqi_ct3/seg", "no image in it that can be read, but a DICOM segmentation"),
        ("pydicom_small", "5 series: 1 = CT"),
        ("highdicom_small/sm_image_jpegls.dcm", "transfer syntax JPEG-LS Lossless"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(
    data_dir: Path, name: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ImageError, match=reason) as error:
        open_image(real(data_dir, *name.split("/")))
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
