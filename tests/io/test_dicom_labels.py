"""DICOM segmentations and structure sets, against pydicom, highdicom and real files."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid
from skimage.draw import polygon2mask

from napari_sparseseg.annotations.classes import ClassTable, LabelClass
from napari_sparseseg.errors import LabelError, OutputError
from napari_sparseseg.io.annotation_files import read_annotations
from napari_sparseseg.io.export import ExportOptions, export_labels
from napari_sparseseg.io.geometry import Geometry, Grid
from napari_sparseseg.io.rtstruct import fill
from napari_sparseseg.io.sources import ImageSource, open_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = ClassTable(
    (
        LabelClass(1, "background", (10, 20, 30)),
        LabelClass(2, "Leber", (255, 0, 0)),
        LabelClass(7, "Gefäß", (0, 128, 255)),
    )
)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    """Return a series of four tilted planes, whose names are not in their order."""
    folder = tmp_path_factory.mktemp("series ä")
    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    row, column = np.array([1, 0, 0]), np.array([0, 0.8, 0.6])
    normal = np.cross(row, column)
    for plane, name in enumerate("dbca"):
        data.ImageOrientationPatient = [*row.tolist(), *column.tolist()]
        place = np.array([-20, 30, 40]) + plane * 5 * normal
        data.ImagePositionPatient = [f"{each:.4f}" for each in place]
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[name]
        )
        data.InstanceNumber = plane + 1
        data.save_as(folder / name)
    return open_image(folder)


def frames(path: Path, places: tuple[float, ...]) -> Path:
    """Write a CT with a plane a frame, at places along z in mm."""

    def item(**values: Any) -> list[Dataset]:
        data = Dataset()
        for name, value in values.items():
            setattr(data, name, value)
        return [data]

    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    data.PixelData = np.stack([data.pixel_array] * len(places)).tobytes()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    data.NumberOfFrames = len(places)
    data.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=item(ImagePositionPatient=[-20, 30, z]))[0]
        for z in places
    ]
    data.SharedFunctionalGroupsSequence = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=item(PixelSpacing=[0.5, 0.5], SliceThickness=2.5),
    )
    for name in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(data, name)
    data.save_as(path)
    return path


def labels(*shape: int) -> NDArray[np.uint8]:
    values = np.random.default_rng(2).choice((0, *CLASSES.values), shape)
    return values.astype(np.uint8)


def export(data: Any, path: Path, source: ImageSource, **options: Any) -> Path:
    options = {"dicom_files": source.files} | options
    export_labels(data, path, CLASSES, source.geometry, ExportOptions(**options))
    return path


class TestSegmentation:
    """DICOM-SEG out and in."""

    def test_highdicom_reads_each_pixel_at_its_place(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        data = labels(4, 128, 128)
        read = highdicom.seg.segread(export(data, tmp_path / "a.dcm", series))
        assert read.segmentation_type.value == "BINARY"
        volume = read.get_volume(combine_segments=True)
        values = np.array([0, *CLASSES.values])[volume.array]
        # Its planes may be in any order: each is found where it lies.
        to_ours = np.linalg.inv(series.geometry.affine)
        for plane in range(4):
            index = to_ours @ volume.affine @ (plane, 0, 0, 1)
            np.testing.assert_allclose(index[1:3], 0, atol=1e-3)
            np.testing.assert_array_equal(values[plane], data[round(index[0])])

    def test_pydicom_reads_names_colours_and_the_patient(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        data = labels(4, 128, 128)
        image = pydicom.dcmread(series.files[0])
        read = pydicom.dcmread(export(data, tmp_path / "a.dcm", series))
        assert [each.SegmentLabel for each in read.SegmentSequence] == list(
            CLASSES.names
        )
        assert {each.SegmentAlgorithmType for each in read.SegmentSequence} == {
            "MANUAL"
        }
        for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert read[keyword].value == image[keyword].value
        assert read.SeriesInstanceUID != image.SeriesInstanceUID
        referred = {
            each.ReferencedSOPInstanceUID
            for each in read.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        }
        assert referred == {
            pydicom.dcmread(file).SOPInstanceUID for file in series.files
        }
        # Bits of a segment, without highdicom.
        frames = read.pixel_array
        for frame, about in zip(
            frames, read.PerFrameFunctionalGroupsSequence, strict=True
        ):
            number = about.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            place = about.PlanePositionSequence[0].ImagePositionPatient
            index = np.linalg.inv(series.geometry.affine) @ (*map(float, place), 1)
            wanted = data[round(index[0])] == CLASSES.values[number - 1]
            np.testing.assert_array_equal(frame, wanted)

    def test_nobody_is_told_who_the_patient_is(
        self,
        tmp_path: Path,
        series: ImageSource,
        recwarn: pytest.WarningsRecorder,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        # Of a name with one part libraries doubt, in words that quote it.
        data = pydicom.dcmread(series.files[0])
        data.PatientName = "MUSTERFRAU"
        data.save_as(tmp_path / "image.dcm")
        source = open_image(tmp_path / "image.dcm")
        file = export(labels(128, 128), tmp_path / "a.dcm", source)
        read_annotations(file, source)
        assert "MUSTERFRAU" in str(pydicom.dcmread(file).PatientName)
        assert [str(each.message) for each in recwarn] == []
        assert caplog.text == ""

    def test_segments_are_what_dicom_calls_the_classes(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        # Codes of DICOM PS3.16, by hand.
        known = {
            "liver": ("91723000", "10200004"),
            "Lymph node": ("85756007", "59441001"),
            "fat": ("85756007", "55603005"),
            "TUMOUR": ("49755003", "108369006"),
            "Leber, rechts": ("85756007", "85756007"),
        }
        table = ClassTable.from_values(range(1, 6))
        for value, name in enumerate(known, 1):
            table = table.renamed(value, name)
        file = tmp_path / "a.dcm"
        options = ExportOptions(dicom_files=series.files)
        export_labels(np.ones((4, 128, 128), int), file, table, options=options)
        read = pydicom.dcmread(file)
        assert {
            each.SegmentLabel: (
                each.SegmentedPropertyCategoryCodeSequence[0].CodeValue,
                each.SegmentedPropertyTypeCodeSequence[0].CodeValue,
            )
            for each in read.SegmentSequence
        } == known

    def test_a_prediction_says_so(self, tmp_path: Path, series: ImageSource) -> None:
        file = export(
            labels(4, 128, 128), tmp_path / "a.dcm", series, is_prediction=True
        )
        read = pydicom.dcmread(file)
        (algorithm,) = {each.SegmentAlgorithmName for each in read.SegmentSequence}
        assert algorithm == "napari-sparseseg"

    def test_what_was_exported_comes_back(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        data = labels(4, 128, 128)
        data[1] = 0  # a plane that has no frame
        file = export(data, tmp_path / "a.dcm", series)
        read, classes, notes = read_annotations(file, series, CLASSES)
        np.testing.assert_array_equal(read, data)
        assert classes == CLASSES
        assert notes == ()
        _, classes, _ = read_annotations(file, series)
        assert classes.names == CLASSES.names
        colors = [each.color for each in classes], [each.color for each in CLASSES]
        np.testing.assert_allclose(*colors, atol=2)

    def test_of_a_single_plane(self, tmp_path: Path) -> None:
        shutil.copy(str(get_testdata_file("CT_small.dcm")), tmp_path / "image.dcm")
        source = open_image(tmp_path / "image.dcm")
        data = labels(128, 128)
        file = export(data, tmp_path / "a.dcm", source)
        read, _, _ = read_annotations(file, source, CLASSES)
        np.testing.assert_array_equal(read, data)

    def test_of_the_frames_of_one_file(self, tmp_path: Path) -> None:
        # Frames are in no order of their places.
        image = frames(tmp_path / "image.dcm", (12.5, 5.0, 7.5, 10.0))
        source = open_image(image)
        data = labels(4, 128, 128)
        file = export(data, tmp_path / "a.dcm", source)
        read = pydicom.dcmread(file)
        found = np.zeros_like(data)
        for frame, about in zip(
            read.pixel_array, read.PerFrameFunctionalGroupsSequence, strict=True
        ):
            *_, z = about.PlanePositionSequence[0].ImagePositionPatient
            number = about.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            found[round((z - 5) / 2.5)][frame != 0] = CLASSES.values[number - 1]
        np.testing.assert_array_equal(found, data)
        back, _, notes = read_annotations(file, source, CLASSES)
        np.testing.assert_array_equal(back, data)
        assert notes == ()
        with pytest.raises(OutputError, match="3 planes, but the DICOM series has 4"):
            export(data[:3], tmp_path / "b.dcm", source)

    @pytest.mark.parametrize(
        ("shape", "sentence"),
        [
            ((3, 128, 128), "3 planes, but the DICOM series has 4"),
            ((4, 127, 128), r"\(127, 128\) pixels a plane, but .* \(128, 128\)"),
        ],
    )
    def test_labels_of_another_series_are_refused(
        self, tmp_path: Path, series: ImageSource, shape: tuple[int, ...], sentence: str
    ) -> None:
        with pytest.raises(OutputError, match=sentence):
            export(labels(*shape), tmp_path / "a.dcm", series)
        assert list(tmp_path.iterdir()) == []

    def test_planes_elsewhere_or_in_another_order_are_refused(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        with pytest.raises(OutputError, match="Plane 0 of the labels lies"):
            export(
                labels(4, 128, 128),
                tmp_path / "a.dcm",
                series,
                dicom_files=series.files[::-1],
            )
        assert list(tmp_path.iterdir()) == []

    def test_nothing_annotated_is_refused(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        with pytest.raises(OutputError, match="Nothing is annotated"):
            export(np.zeros((4, 128, 128), int), tmp_path / "a.dcm", series)

    def test_a_file_that_is_no_dicom_is_named(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        (tmp_path / "a.txt").write_text("no")
        files = (*series.files[:3], tmp_path / "a.txt")
        with pytest.raises(OutputError, match=r"a\.txt cannot be read"):
            export(labels(4, 128, 128), tmp_path / "a.dcm", series, dicom_files=files)

    def test_an_empty_character_set_counts_as_none(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        files = []
        for file in series.files:
            header = pydicom.dcmread(file)
            header.SpecificCharacterSet = ""
            files.append(tmp_path / file.name)
            header.save_as(files[-1])
        assert pydicom.dcmread(files[0]).SpecificCharacterSet == ""
        data, out = labels(4, 128, 128), tmp_path / "out.dcm"
        export(data, out, series, dicom_files=tuple(files))
        assert pydicom.dcmread(out).PatientName == header.PatientName

    def test_a_series_without_a_study_is_told(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        files = []
        for file in series.files:
            data = pydicom.dcmread(file)
            del data.StudyInstanceUID
            files.append(tmp_path / file.name)
            data.save_as(files[-1])
        with pytest.raises(
            OutputError, match="lacks what a segmentation must refer to"
        ):
            export(
                labels(4, 128, 128),
                tmp_path / "out.dcm",
                series,
                dicom_files=tuple(files),
            )


class TestRealSegmentations:
    """Files of others."""

    def test_a_liver_is_where_its_nrrd_has_it(self, data_dir: Path) -> None:
        folder = data_dir / "formats" / "dicom" / "dcmqi_ct3"
        image = open_image(folder)
        labels, classes, _ = read_annotations(folder / "seg" / "liver.dcm", image)
        truth = SimpleITK.ReadImage(folder / "seg" / "liver_seg.nrrd")
        reference = SimpleITK.ReadImage([folder / f"0{n}.dcm" for n in (3, 2, 1)])
        assert reference.GetOrigin() == pytest.approx(image.geometry.origin[::-1])
        placed = SimpleITK.Resample(
            truth, reference, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0
        )
        np.testing.assert_array_equal(labels, SimpleITK.GetArrayFromImage(placed) != 0)
        assert np.count_nonzero(labels) == 107098
        assert classes.names == ("Liver",)
        # Slicer's brown, of the file's own CIELab value.
        np.testing.assert_allclose(classes.by_value(1).color, (221, 130, 101), atol=2)
        from_nrrd, _, _ = read_annotations(
            folder / "seg" / "liver_seg.nrrd", image, classes
        )
        np.testing.assert_array_equal(from_nrrd, labels)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97, 0.99])
    def test_what_was_cut_off_is_refused(
        self, data_dir: Path, tmp_path: Path, share: float
    ) -> None:
        folder = data_dir / "formats" / "dicom" / "dcmqi_ct3"
        whole = (folder / "seg" / "liver.dcm").read_bytes()
        file = tmp_path / "a.dcm"
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(LabelError, match=r"a\.dcm .* anew from where it came from"):
            read_annotations(file, open_image(folder))

    def test_segments_that_overlap_are_told(self, data_dir: Path) -> None:
        folder = data_dir / "formats" / "dicom" / "highdicom_small"
        file = folder / "seg_image_ct_binary_overlap.dcm"
        own: Any = highdicom.seg.segread(file).get_volume_geometry()
        affine = np.asarray(own.affine)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        geometry = Geometry(
            ("z", "y", "x"),
            tuple(spacing),
            "mm",
            tuple(affine[2::-1, 3]),
            tuple(map(tuple, (affine[:3, :3] / spacing).T)),
        )
        image = Grid(tuple(own.spatial_shape), geometry)
        labels, classes, notes = read_annotations(file, image)
        frames = pydicom.dcmread(file)
        both = np.zeros((2, *image.shape), bool)
        for bits, about in zip(
            frames.pixel_array, frames.PerFrameFunctionalGroupsSequence, strict=True
        ):
            number = about.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            place = about.PlanePositionSequence[0].ImagePositionPatient
            index = np.linalg.inv(affine) @ (*map(float, place), 1)
            both[number - 1, round(index[0])] = bits
        assert classes.names == ("first segment", "second segment")
        np.testing.assert_array_equal(labels != 0, both.any(0))
        n = np.count_nonzero(both.all(0))
        assert n > 0
        assert f"has {n} pixels in more than one class" in notes[0]
        smaller = 1 + int(np.argmin(both.sum((1, 2, 3))))
        assert set(labels[both.all(0)].tolist()) == {smaller}
        with pytest.raises(LabelError, match=f"has {n} pixels in more than one class"):
            read_annotations(file, image, overlap="refuse")
        first, _, _ = read_annotations(
            file, image, only=["first segment"], overlap="refuse"
        )
        np.testing.assert_array_equal(first != 0, both[0])

    def test_a_segmentation_elsewhere_is_refused(
        self, data_dir: Path, series: ImageSource
    ) -> None:
        file = data_dir / "formats" / "dicom" / "dcmqi_ct3" / "seg" / "liver.dcm"
        with pytest.raises(LabelError, match="lies elsewhere than the image"):
            read_annotations(file, series)

    def test_a_segmentation_of_a_slide_lies_on_it(
        self, data_dir: Path, series: ImageSource
    ) -> None:
        folder = data_dir / "formats" / "dicom" / "highdicom_small"
        file = folder / "seg_image_sm_dots.dcm"
        slide = open_image(folder / "sm_image.dcm")
        labels, classes, notes = read_annotations(file, slide)
        # Each frame where its header has it, without highdicom.
        data = pydicom.dcmread(file)
        truth = np.zeros((50, 50), int)
        for frame, about in zip(
            data.pixel_array, data.PerFrameFunctionalGroupsSequence, strict=True
        ):
            place = about.PlanePositionSlideSequence[0]
            y, x = (
                place[f"{axis}PositionInTotalImagePixelMatrix"].value - 1
                for axis in ("Row", "Column")
            )
            number = about.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            part = truth[y : y + frame.shape[0], x : x + frame.shape[1]]
            part[frame[: part.shape[0], : part.shape[1]] != 0] = number
        assert truth.any()
        names = [""] + [each.SegmentLabel for each in data.SegmentSequence]
        values = [0, *(classes.by_name(name).value for name in names[1:])]
        np.testing.assert_array_equal(labels, np.array(values)[truth])
        assert all("more than one class" not in note for note in notes)
        with pytest.raises(LabelError, match="lies on a slide, but the image is a vol"):
            read_annotations(file, series)
        other = Grid((40, 50), slide.geometry)
        with pytest.raises(LabelError, match=r"\(50, 50\) pixels, but the slide"):
            read_annotations(file, other)
        with pytest.raises(LabelError, match="lies in a patient, but"):
            read_annotations(folder / "seg_image_ct_binary.dcm", slide)

    def test_other_dicom_files_are_refused(
        self, data_dir: Path, series: ImageSource
    ) -> None:
        folder = data_dir / "formats" / "dicom" / "highdicom_small"
        with pytest.raises(LabelError, match="is a DICOM file of modality 'CT'"):
            read_annotations(folder / "ct_image.dcm", series)


def filled(shape: tuple[int, int], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Fill a polygon as scikit-image does."""
    mask: NDArray[np.bool_] = polygon2mask(  # type: ignore[no-untyped-call]
        shape, points
    )
    return mask


def structures(path: Path, contours: dict[str, list[Any]], kind: str) -> Path:
    """Write a structure set with (n, 3) places of contours by name."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    data.SOPInstanceUID = generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.Modality = "RTSTRUCT"
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, places) in enumerate(contours.items(), 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber = number
        drawn.ROIDisplayColor = [10 * number, 0, 0]
        drawn.ContourSequence = []
        for each in places:
            contour = Dataset()
            contour.ContourGeometricType = kind
            contour.NumberOfContourPoints = len(each)
            contour.ContourData = [f"{x:.6f}" for x in np.ravel(each)]
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    data.save_as(path, enforce_file_format=True)
    return path


def outline(series: ImageSource, plane: int, points: Any) -> NDArray[np.float64]:
    """Return places in the patient of points (y, x) in pixels of a plane."""
    indices = np.array([(plane, y, x, 1) for y, x in points])
    return (indices @ series.geometry.affine.T)[:, :3]


SQUARE = [(9.6, 19.7), (9.6, 60.2), (50.3, 60.2), (50.3, 19.7)]
HOLE = [(20.4, 30.4), (20.4, 40.4), (30.4, 40.4), (30.4, 30.4)]


class TestStructures:
    """RTSTRUCT in."""

    def test_contours_are_filled_on_their_plane(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        triangle = [(3.3, 5.1), (40.7, 80.2), (77.9, 11.6)]
        file = structures(
            tmp_path / "a.dcm",
            {"GTV-1": [outline(series, 2, triangle)]},
            "CLOSED_PLANAR",
        )
        labels, classes, notes = read_annotations(file, series)
        truth = np.zeros((4, 128, 128), bool)
        truth[2] = filled((128, 128), np.array(triangle))
        np.testing.assert_array_equal(labels, truth)
        assert [(each.name, each.color) for each in classes] == [("GTV-1", (10, 0, 0))]
        assert notes == ("new in the class table: GTV-1.",)

    @pytest.mark.parametrize(
        "contours",
        [
            [SQUARE, HOLE],
            [SQUARE, HOLE[::-1]],
            # The standard's keyhole: one contour with a channel without width.
            [[*SQUARE, SQUARE[0], *HOLE, HOLE[0], SQUARE[0]]],
        ],
    )
    def test_holes_stay_empty(
        self, tmp_path: Path, series: ImageSource, contours: list[Any]
    ) -> None:
        file = structures(
            tmp_path / "a.dcm",
            {"ring": [outline(series, 1, each) for each in contours]},
            "CLOSED_PLANAR",
        )
        labels, _, _ = read_annotations(file, series)
        truth = np.zeros((4, 128, 128), np.uint8)
        truth[1, 10:51, 20:61] = 1
        truth[1, 21:31, 31:41] = 0
        np.testing.assert_array_equal(labels, truth)

    def test_names_can_be_chosen(self, tmp_path: Path, series: ImageSource) -> None:
        file = structures(
            tmp_path / "a.dcm",
            {
                "BODY": [outline(series, 1, SQUARE)],
                "Leber": [outline(series, 1, HOLE)],
            },
            "CLOSED_PLANAR",
        )
        labels, classes, _ = read_annotations(file, series, CLASSES, only=["Leber"])
        assert classes == CLASSES
        truth = np.zeros((4, 128, 128), np.uint8)
        truth[1, 21:31, 31:41] = 2
        np.testing.assert_array_equal(labels, truth)
        both, classes, notes = read_annotations(file, series, CLASSES)
        assert both[1, 25, 35] == 2
        assert both[1, 15, 25] == classes.by_name("BODY").value == 8
        assert "has 100 pixels in more than one class" in notes[0]

    def test_what_is_no_outline_within_is_told(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        inside, outside = outline(series, 0, SQUARE), outline(series, 9, SQUARE)
        file = structures(tmp_path / "a.dcm", {"a": [inside, outside]}, "CLOSED_PLANAR")
        _, _, notes = read_annotations(file, series)
        assert "1 contours of a.dcm lie outside of the image's planes." in notes
        file = structures(tmp_path / "b.dcm", {"a": [outside]}, "CLOSED_PLANAR")
        with pytest.raises(LabelError, match="none of them is within the image"):
            read_annotations(file, series)
        file = structures(tmp_path / "c.dcm", {"a": [inside]}, "POINT")
        with pytest.raises(LabelError, match="none of them is within the image"):
            read_annotations(file, series)

    def test_tilted_contours_are_refused(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        tilted = outline(series, 0, SQUARE)
        tilted[0] += 3
        file = structures(tmp_path / "a.dcm", {"a": [tilted]}, "CLOSED_PLANAR")
        with pytest.raises(LabelError, match="is tilted against the planes"):
            read_annotations(file, series)

    @pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9, 0.98])
    def test_what_was_cut_off_is_refused(
        self, tmp_path: Path, series: ImageSource, share: float
    ) -> None:
        contours = {
            "a": [outline(series, 0, SQUARE)],
            "b": [outline(series, 1, SQUARE)],
        }
        whole = structures(tmp_path / "a.dcm", contours, "CLOSED_PLANAR").read_bytes()
        file = tmp_path / "b.dcm"
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(LabelError, match=r"b\.dcm is"):
            read_annotations(file, series)

    def test_an_image_without_a_place_is_refused(
        self, tmp_path: Path, series: ImageSource
    ) -> None:
        file = structures(
            tmp_path / "a.dcm", {"a": [outline(series, 0, SQUARE)]}, "CLOSED_PLANAR"
        )
        image = Grid((4, 128, 128), Geometry(("z", "y", "x"), (1.0, 1.0, 1.0)))
        with pytest.raises(LabelError, match="it is not known where it lies"):
            read_annotations(file, image)

    def test_a_phantom_has_the_volume_of_the_benchmark(self, data_dir: Path) -> None:
        folder = data_dir / "formats" / "dicom" / "ibsi1_lung_phantom"
        image = open_image(folder / "CT")
        (file,) = (folder / "RTSTRUCT").iterdir()
        labels, classes, _ = read_annotations(file, image)
        assert classes.names == ("GTV-1",)
        # Zwanenburg et al., Radiology 2020 (IBSI 1), configuration A, with tolerances:
        # 358 cm3 by counted voxels, mean intensity -46.4 HU.
        ml = np.count_nonzero(labels) * np.prod(image.geometry.spacing) / 1000
        assert ml == pytest.approx(358, abs=5)
        mean = np.asarray(image.data)[labels != 0].mean()
        assert mean == pytest.approx(-46.4, abs=1.1)


@pytest.mark.parametrize("seed", range(5))
def test_lines_are_filled_as_scikit_image_does(seed: int) -> None:
    # Stars that reach out of the plane; self-crossing ones too.
    random = np.random.default_rng(seed)
    points = random.uniform(-10, 70, (9, 2))
    np.testing.assert_array_equal(fill(points, (50, 60)), filled((50, 60), points))
