"""Labels in the formats of other programs, read back by other libraries."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr
from PIL import Image

from napari_sparseseg.annotations.classes import (
    ClassTable,
    LabelClass,
    read_class_table,
)
from napari_sparseseg.errors import ImageError, LabelError, OptionError, OutputError
from napari_sparseseg.io.export import ExportOptions, export_labels
from napari_sparseseg.io.geometry import Geometry

if TYPE_CHECKING:
    from pathlib import Path

#: Values with a gap, a name beyond ASCII, and one that XML and CSV must quote.
CLASSES = ClassTable(
    (
        LabelClass(1, "Hintergrund", (10, 20, 30)),
        LabelClass(2, "Gefäß", (255, 0, 0)),
        LabelClass(5, 'a "b", <c> & d', (0, 128, 255)),
    )
)
VALUES = (0, 1, 2, 5)

#: Sheared against no axis, but turned about two, with the first axis downwards.
_A, _B = math.radians(20), math.radians(-35)
_TURNED = (
    np.array(
        [[1, 0, 0], [0, math.cos(_A), -math.sin(_A)], [0, math.sin(_A), math.cos(_A)]]
    )
    @ np.array(
        [[math.cos(_B), -math.sin(_B), 0], [math.sin(_B), math.cos(_B), 0], [0, 0, 1]]
    )
)[::-1] * [[-1], [1], [1]]
VOLUME = Geometry(
    ("z", "y", "x"),
    (2.5, 0.7, 0.6),
    "mm",
    (-80.25, 12.5, 33.75),
    tuple((float(x), float(y), float(z)) for x, y, z in _TURNED),
)
PLANE = Geometry(("y", "x"), (0.5, 0.25), "um", (100.0, 200.0))


def labels(*shape: int, dtype: Any = np.uint8) -> Any:
    """Return labels of all values, not the same seen from any two sides."""
    values = np.random.default_rng(1).choice(VALUES, shape).astype(dtype)
    values.flat[: len(VALUES)] = VALUES
    return values


class TestVolumes:
    """NIfTI and NRRD keep values and place."""

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "ä b.nrrd", "A.NRRD"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_simpleitk_reads_values_and_place(
        self, tmp_path: Path, name: str, dtype: Any
    ) -> None:
        data = labels(3, 4, 5, dtype=dtype)
        written = export_labels(data, tmp_path / name, CLASSES, VOLUME)
        image = SimpleITK.ReadImage(written.paths[0])
        stored = SimpleITK.GetArrayFromImage(image)
        assert stored.dtype == dtype
        np.testing.assert_array_equal(stored, data)
        assert image.GetSpacing() == pytest.approx((0.6, 0.7, 2.5))
        assert image.GetOrigin() == pytest.approx((33.75, 12.5, -80.25), abs=1e-4)
        # The columns of ITK's matrix are the directions of x, y and z.
        columns = np.reshape(image.GetDirection(), (3, 3)).T
        np.testing.assert_allclose(columns[::-1], VOLUME.direction or (), atol=1e-6)
        assert read_class_table(written.paths[1]) == CLASSES
        assert written.note == ""

    def test_nibabel_reads_the_affine_towards_right_anterior_superior(
        self, tmp_path: Path
    ) -> None:
        data = labels(3, 4, 5)
        export_labels(data, tmp_path / "a.nii.gz", CLASSES, VOLUME)
        image: Any = nibabel.load(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, data)
        # Where pixel (z, y, x) = (2, 1, 3) lies, by hand, in LPS.
        z, y, x = np.array(VOLUME.direction)
        place = (
            np.array([33.75, 12.5, -80.25]) + 2 * 2.5 * z + 1 * 0.7 * y + 3 * 0.6 * x
        )
        found = image.affine @ (3, 1, 2, 1)
        np.testing.assert_allclose(found[:3], place * (-1, -1, 1), atol=1e-4)
        assert image.header.get_xyzt_units()[0] == "mm"

    def test_lengths_in_um_become_mm(self, tmp_path: Path) -> None:
        export_labels(labels(4, 5), tmp_path / "a.nii.gz", CLASSES, PLANE)
        image = SimpleITK.ReadImage(tmp_path / "a.nii.gz")
        assert image.GetSpacing() == pytest.approx((0.00025, 0.0005))
        assert image.GetOrigin() == pytest.approx((0.2, 0.1))

    def test_slicer_finds_the_segments_in_nrrd(self, tmp_path: Path) -> None:
        export_labels(labels(3, 4, 5), tmp_path / "a.seg.nrrd", CLASSES, VOLUME)
        image = SimpleITK.ReadImage(tmp_path / "a.seg.nrrd")
        segments = [
            [
                image.GetMetaData(f"Segment{index}_{key}")
                for key in ("LabelValue", "Name", "Color", "Extent")
            ]
            for index in range(3)
        ]
        assert [each[0] for each in segments] == ["1", "2", "5"]
        assert [each[1] for each in segments] == list(CLASSES.names)
        assert [float(part) for part in segments[1][2].split()] == [1, 0, 0]
        assert segments[0][3] == "0 4 0 3 0 2"
        assert not image.HasMetaDataKey("Segment3_Name")

    def test_an_unknown_pixel_size_is_told(self, tmp_path: Path) -> None:
        written = export_labels(labels(4, 5), tmp_path / "a.nii.gz", CLASSES)
        assert (
            "says 1 mm for each, since the size of pixels is not known" in written.note
        )

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd"])
    def test_what_does_not_read_back_is_not_left(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / name
        file.write_text("from before")
        write = SimpleITK.WriteImage

        def cut_off(image: Any, path: str, **options: Any) -> None:
            write(image, path, **options)
            with open(path, "rb+") as stream:
                stream.truncate(stream.seek(0, 2) - 30)

        monkeypatch.setattr(SimpleITK, "WriteImage", cut_off)
        with pytest.raises(OutputError, match="does not read back; free some space"):
            export_labels(labels(30, 40, 50), file, CLASSES, VOLUME)
        assert [each.name for each in tmp_path.iterdir()] == [name]
        assert file.read_text() == "from before"

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
    def test_a_folder_that_is_not_there_is_told(
        self, tmp_path: Path, name: str
    ) -> None:
        with pytest.raises(OutputError, match="its folder does not exist; create it"):
            export_labels(labels(4, 5), tmp_path / "gone" / name, CLASSES)


class TestTiff:
    """TIFF and OME-TIFF keep values and sizes."""

    def test_the_resolution_is_the_size_of_pixels(self, tmp_path: Path) -> None:
        data = labels(4, 5)
        export_labels(data, tmp_path / "a.tif", CLASSES, PLANE)
        with Image.open(tmp_path / "a.tif") as image:
            np.testing.assert_array_equal(np.array(image), data)
            tags = image.getexif()
            px_per_cm = [float(tags[tag]) for tag in (282, 283)]
            assert tags[296] == 3  # centimetres
        assert px_per_cm == pytest.approx([1e4 / 0.25, 1e4 / 0.5])

    @pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 3, 4, 5)])
    def test_ome_xml_has_sizes_places_and_classes(
        self, tmp_path: Path, shape: tuple[int, ...]
    ) -> None:
        data = labels(*shape)
        geometry = PLANE if len(shape) == 2 else VOLUME
        written = export_labels(data, tmp_path / "a.ome.tif", CLASSES, geometry)
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
            np.testing.assert_array_equal(tiff.asarray(), data)
            assert tiff.series[0].axes == "TZYX"[-len(shape) :]
            xml = tiff.ome_metadata or ""
        tree = ElementTree.fromstring(xml)
        pixels = tree.find(".//{*}Pixels")
        assert pixels is not None
        um = 1 if len(shape) == 2 else 1000
        for axis, size in zip(geometry.axes, geometry.spacing, strict=True):
            found = float(pixels.attrib[f"PhysicalSize{axis.upper()}"])
            assert found == pytest.approx(size * um)
        planes = tree.findall(".//{*}Plane")
        assert len(planes) == math.prod(shape[:-2])
        y, x = geometry.origin[-2:]
        for number, plane in enumerate(planes):
            assert float(plane.attrib["PositionX"]) == pytest.approx(x * um)
            assert float(plane.attrib["PositionY"]) == pytest.approx(y * um)
            if len(shape) > 2:
                z = (-80.25 + number % 3 * 2.5) * um
                assert float(plane.attrib["PositionZ"]) == pytest.approx(z)
        maps = {
            each.attrib["Namespace"]: {
                item.attrib["K"]: item.text for item in each.findall(".//{*}M")
            }
            for each in tree.findall(".//{*}MapAnnotation")
        }
        assert maps == {
            "napari-sparseseg/classes": {
                str(value): name for value, name in CLASSES.named_values
            },
            "napari-sparseseg/classes/colors": {
                "1": "#0a141e",
                "2": "#ff0000",
                "5": "#0080ff",
            },
        }
        assert ("cannot say how the volume lies" in written.note) == (um == 1000)

    def test_no_size_is_made_up(self, tmp_path: Path) -> None:
        export_labels(labels(4, 5), tmp_path / "a.ome.tif", CLASSES)
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
            assert "PhysicalSize" not in (tiff.ome_metadata or "")


class TestOmeZarr:
    """OME-Zarr keeps values, places and classes."""

    def test_the_first_level_has_the_values_and_the_metadata_the_classes(
        self, tmp_path: Path
    ) -> None:
        data = labels(3, 40, 50, dtype=np.uint16)
        written = export_labels(data, tmp_path / "a.ome.zarr", CLASSES, VOLUME)
        assert written.paths == (tmp_path / "a.ome.zarr",)
        group: Any = zarr.open_group(tmp_path / "a.ome.zarr", mode="r", zarr_format=3)
        np.testing.assert_array_equal(group["0"][:], data)
        ome: Any = group.attrs["ome"]
        assert ome["version"] == "0.5"
        scales = ome["multiscales"][0]
        assert [axis["name"] for axis in scales["axes"]] == ["z", "y", "x"]
        assert {axis["unit"] for axis in scales["axes"]} == {"millimeter"}
        assert scales["datasets"][0]["coordinateTransformations"] == [
            {"type": "scale", "scale": [2.5, 0.7, 0.6]},
            {"type": "translation", "translation": [-80.25, 12.5, 33.75]},
        ]
        about = ome["image-label"]
        names = {each["label-value"]: each["name"] for each in about["properties"]}
        colors = {each["label-value"]: each["rgba"] for each in about["colors"]}
        assert names == {0: "not annotated"} | dict(CLASSES.named_values)
        assert colors == {0: [0, 0, 0, 0]} | {
            each.value: [*each.color, 255] for each in CLASSES
        }

    def test_models_of_the_standard_take_the_metadata(self, tmp_path: Path) -> None:
        from ome_zarr_models.v05.image_label import ImageLabel

        export_labels(labels(3, 40, 50), tmp_path / "a.ome.zarr", CLASSES, VOLUME)
        read = ImageLabel.from_zarr(zarr.open_group(tmp_path / "a.ome.zarr", mode="r"))
        about: Any = read.ome_attributes.image_label
        assert [each.label_value for each in about.colors] == [0, 1, 2, 5]

    def test_coarser_levels_lie_where_the_finest_does(self, tmp_path: Path) -> None:
        data = labels(3, 2100)
        export_labels(data, tmp_path / "a.ome.zarr", CLASSES, PLANE)
        group: Any = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
        ome: Any = group.attrs["ome"]
        datasets = ome["multiscales"][0]["datasets"]
        assert [each["path"] for each in datasets] == ["0", "1", "2"]
        level = np.asarray(group["2"][:])
        scale, shift = (
            np.array(each[each["type"]])
            for each in datasets[2]["coordinateTransformations"]
        )
        # The place of a coarse pixel is that of the fine one whose value it has.
        for index in ((0, 0), (0, 1), (0, 524)):
            place = np.array(index) * scale + shift
            y, x = np.round((place - PLANE.origin) / PLANE.spacing).astype(int)
            assert level[index] == data[y, x]

    def test_only_labels_of_before_are_replaced(self, tmp_path: Path) -> None:
        folder = tmp_path / "a.ome.zarr"
        export_labels(labels(4, 5), folder, CLASSES)
        export_labels(labels(6, 7), folder, CLASSES)
        assert zarr.open_array(folder / "0", mode="r").shape == (6, 7)
        assert [each.name for each in tmp_path.iterdir()] == ["a.ome.zarr"]
        image = tmp_path / "image.ome.zarr"
        image.mkdir()
        (image / "zarr.json").write_text('{"attributes": {"ome": {"multiscales": []}}}')
        with pytest.raises(OutputError, match="is no OME-Zarr of labels"):
            export_labels(labels(4, 5), image, CLASSES)
        assert (image / "zarr.json").is_file()

    def test_a_full_disk_leaves_the_labels_of_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "a.ome.zarr"
        export_labels(labels(4, 5), folder, CLASSES)

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(zarr.Group, "create_array", full)
        with pytest.raises(OutputError, match="the disk is full"):
            export_labels(labels(6, 7), folder, CLASSES)
        assert zarr.open_array(folder / "0", mode="r").shape == (4, 5)
        assert [each.name for each in tmp_path.iterdir()] == ["a.ome.zarr"]

    def test_a_chunk_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        resource = pytest.importorskip("resource", reason="Windows has no such limit")
        data = np.random.default_rng(0).choice(VALUES, (20, 64, 64))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(OutputError, match=r"a\.ome\.zarr cannot be written"):
                export_labels(data, tmp_path / "a.ome.zarr", CLASSES)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        time.sleep(0.2)  # whoever still writes would make the folder again
        assert list(tmp_path.iterdir()) == []


class TestPng:
    """A picture of the colours."""

    def test_has_the_colours_and_is_transparent_where_nothing_is_annotated(
        self, tmp_path: Path
    ) -> None:
        data = labels(4, 5)
        export_labels(
            data, tmp_path / "a.png", CLASSES, options=ExportOptions(colors=True)
        )
        with Image.open(tmp_path / "a.png") as image:
            rgba = np.array(image)
        for each in CLASSES:
            assert (rgba[data == each.value] == (*each.color, 255)).all()
        assert (rgba[data == 0] == 0).all()

    def test_equal_colours_are_refused_where_both_are_used(
        self, tmp_path: Path
    ) -> None:
        twins = CLASSES.recolored(5, (255, 0, 0))
        colors = ExportOptions(colors=True)
        with pytest.raises(OutputError, match=r"'Gefäß' and .* have the same colour"):
            export_labels(labels(4, 5), tmp_path / "a.png", twins, options=colors)
        assert list(tmp_path.iterdir()) == []
        export_labels(np.array([[0, 5]]), tmp_path / "a.png", twins, options=colors)


class TestCsv:
    """Areas and volumes."""

    def rows(self, file: Path) -> list[dict[str, str]]:
        with file.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    def test_areas_of_a_plane(self, tmp_path: Path) -> None:
        data = np.array([[0, 0, 1], [2, 2, 2]])
        written = export_labels(data, tmp_path / "a.csv", CLASSES, PLANE)
        assert written.paths == (tmp_path / "a.csv",)
        rows = self.rows(tmp_path / "a.csv")
        assert [(each["value"], each["class"], each["pixels"]) for each in rows] == [
            ("0", "not annotated", "2"),
            ("1", "Hintergrund", "1"),
            ("2", "Gefäß", "3"),
            ("5", 'a "b", <c> & d', "0"),
        ]
        # 3 pixels of 0.5 x 0.25 um.
        assert float(rows[2]["area_um2"]) == pytest.approx(0.375)
        assert float(rows[2]["area_mm2"]) == pytest.approx(0.375e-6)
        assert rows[2]["volume_ml"] == ""

    def test_volumes(self, tmp_path: Path) -> None:
        export_labels(np.full((10, 10, 10), 5), tmp_path / "a.csv", CLASSES, VOLUME)
        row = self.rows(tmp_path / "a.csv")[-1]
        # 1000 voxels of 2.5 x 0.7 x 0.6 mm.
        assert float(row["volume_mm3"]) == pytest.approx(1050)
        assert float(row["volume_ml"]) == pytest.approx(1.05)
        assert row["area_mm2"] == ""

    def test_without_a_pixel_size_there_are_counts_alone(self, tmp_path: Path) -> None:
        written = export_labels(labels(4, 5), tmp_path / "a.csv", CLASSES)
        assert {each["area_um2"] for each in self.rows(tmp_path / "a.csv")} == {""}
        assert "has no areas, since the size of pixels is not known" in written.note


@pytest.mark.parametrize(
    ("shape", "name", "sentence"),
    [
        ((3, 4, 5), "a.geojson", "A GeoJSON file holds one plane"),
        ((2, 3, 4, 5), "a.nii.gz", "A NIfTI file holds one plane or volume"),
        ((2, 3, 4, 5), "a.dcm", "A DICOM file holds one plane or volume"),
        ((3, 4, 5), "a.dcm", "belongs to a DICOM series"),
        ((3, 4, 5), "a.zarr", "cannot be exported as a.zarr"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    tmp_path: Path, shape: tuple[int, ...], name: str, sentence: str
) -> None:
    with pytest.raises(OutputError, match=sentence):
        export_labels(labels(*shape), tmp_path / name, CLASSES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("a.geojson", "shapely", "slides"),
        ("a.geojson", "rasterio.features", "slides"),
        ("a.nii.gz", "SimpleITK", "volumes"),
    ],
)
def test_what_to_install_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    library: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImageError, match=rf"{library}.*sparseseg\[{extra}\]"):
        export_labels(labels(4, 5), tmp_path / name, CLASSES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["a.png", "a.tif", "a.ome.tif", "a.geojson", "a.csv", "a.nrrd", "a.nii"],
)
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no limit of sizes")
    (tmp_path / name).write_text("from before")
    many = ClassTable.from_values(range(1, 400))
    data = np.random.default_rng(0).integers(0, 400, (200, 200))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match="another folder") as error:
            export_labels(data, tmp_path / name, many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "from before"
    assert "/." not in str(error.value)  # what the user never saw
    assert capfd.readouterr() == ("", "")


def test_geometry_of_another_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="their image has the axes y, x"):
        export_labels(labels(3, 4, 5), tmp_path / "a.nii.gz", CLASSES, PLANE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("simplify_px", [-1.0, math.nan, math.inf])
def test_outlines_cannot_be_moved_by_any_distance(simplify_px: float) -> None:
    with pytest.raises(OptionError, match="expected 0 or a positive number"):
        ExportOptions(simplify_px=simplify_px)


def test_the_table_of_a_volume_is_found_again(tmp_path: Path) -> None:
    written = export_labels(labels(3, 4, 5), tmp_path / "case 1.5.nii.gz", CLASSES)
    assert written.paths[1].name == "case 1.5.classes.json"
    assert json.loads(written.paths[1].read_text(encoding="utf-8"))["classes"]
