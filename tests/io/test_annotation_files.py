"""Label maps of other programs on the pixels of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr
from PIL import Image

from napari_sparseseg.annotations.classes import ClassTable, LabelClass
from napari_sparseseg.errors import (
    ClassTableError,
    ImageError,
    LabelError,
    OptionError,
)
from napari_sparseseg.io.annotation_files import read_annotations, read_labels
from napari_sparseseg.io.export import ExportOptions, export_labels
from napari_sparseseg.io.geometry import Geometry, Grid
from napari_sparseseg.io.sources import open_image

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ClassTable(
    (
        LabelClass(1, "outside", (10, 20, 30)),
        LabelClass(2, "liver", (255, 0, 0)),
        LabelClass(300, "tumour", (0, 128, 255)),
    )
)
GEOMETRY = Geometry(
    ("z", "y", "x"),
    (2.5, 0.7, 0.6),
    "mm",
    (-80.0, 12.0, 33.0),
    ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
)
GRID = Grid((3, 4, 5), GEOMETRY)


def labels(*shape: int, values: tuple[int, ...] = (0, 1, 2, 300)) -> Any:
    found = np.random.default_rng(3).choice(values, shape).astype(np.uint16)
    found.flat[: len(values)] = values
    return found


@pytest.mark.parametrize(
    "name", ["a.nii.gz", "a.nrrd", "a.tif", "a.ome.tif", "a.ome.zarr"]
)
def test_volumes_come_back_with_values_and_names(tmp_path: Path, name: str) -> None:
    data = labels(3, 4, 5)
    export_labels(data, tmp_path / name, CLASSES, GEOMETRY)
    read, classes, notes = read_annotations(tmp_path / name, GRID)
    np.testing.assert_array_equal(read, data)
    assert classes == CLASSES
    assert notes == ()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ome.tif", "a.ome.zarr"])
def test_planes_come_back_with_values_names_and_pixel_size(
    tmp_path: Path, name: str
) -> None:
    data = labels(4, 5)
    geometry = Geometry(("y", "x"), (0.25, 0.25), "um")
    export_labels(data, tmp_path / name, CLASSES, geometry)
    read, classes, _ = read_annotations(tmp_path / name, Grid((4, 5), geometry))
    np.testing.assert_array_equal(read, data)
    assert classes == CLASSES
    if name != "a.png":
        found = read_labels(tmp_path / name).geometry
        assert found.um_per_px == pytest.approx(0.25)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.ome.zarr"])
def test_volumes_at_several_times_come_back(tmp_path: Path, name: str) -> None:
    data = labels(2, 3, 4, 5)
    geometry = Geometry(("z", "y", "x"), (2.5, 0.5, 0.5), "um")
    export_labels(data, tmp_path / name, CLASSES, geometry)
    read = read_labels(tmp_path / name)
    np.testing.assert_array_equal(read.labels, data)
    assert read.classes == CLASSES
    assert read.geometry == geometry
    again = export_labels(read.labels, tmp_path / "b.csv", CLASSES, read.geometry)
    assert again.paths[0].is_file()
    # They are no image: which of the volumes is meant is to be said.
    with pytest.raises(ImageError, match="save one time point"):
        open_image(tmp_path / name)


def test_ome_tiff_keeps_names_and_colours_by_itself(tmp_path: Path) -> None:
    table = ClassTable((*CLASSES, LabelClass(9, 'Gefäß/"a": <b> & c', (1, 2, 255))))
    export_labels(labels(4, 5), tmp_path / "a.ome.tif", table)
    (tmp_path / "a.classes.json").unlink()
    assert read_labels(tmp_path / "a.ome.tif").classes == table
    tifffile.imwrite(tmp_path / "b.ome.tif", labels(4, 5), ome=True)
    assert read_labels(tmp_path / "b.ome.tif").classes is None


def test_axes_of_length_one_in_zarr_are_left_out(tmp_path: Path) -> None:
    data = labels(4, 5)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=data[None, None, None])
    axes = [{"name": axis} for axis in "tczyx"]
    scales: Any = {"version": "0.5", "axes": axes, "datasets": [{"path": "0"}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [scales]}
    np.testing.assert_array_equal(read_labels(tmp_path / "a.zarr").labels, data)


def test_a_picture_of_the_colours_comes_back(tmp_path: Path) -> None:
    data = labels(4, 5)
    colors = ExportOptions(colors=True)
    export_labels(data, tmp_path / "a.png", CLASSES, options=colors)
    image = Grid((4, 5), Geometry(("y", "x"), (1.0, 1.0)))
    for classes in (CLASSES, None):  # of the project, or beside the file
        read, _, _ = read_annotations(tmp_path / "a.png", image, classes)
        np.testing.assert_array_equal(read, data)


def test_names_mean_the_classes_of_the_project(tmp_path: Path) -> None:
    data = labels(3, 4, 5)
    export_labels(data, tmp_path / "a.nrrd", CLASSES, GEOMETRY)
    (tmp_path / "a.classes.json").unlink()  # Slicer's fields are left
    project = ClassTable().add("tumour", (9, 9, 9)).add("outside")
    read, classes, notes = read_annotations(tmp_path / "a.nrrd", GRID, project)
    assert classes.named_values == ((1, "tumour"), (2, "outside"), (3, "liver"))
    assert classes.by_name("tumour").color == (9, 9, 9)
    assert classes.by_name("liver").color == (255, 0, 0)
    np.testing.assert_array_equal(
        read, np.select([data == 1, data == 2, data == 300], [2, 3, 1], 0)
    )
    assert notes == ("new in the class table: liver.",)
    with pytest.raises(LabelError, match="'liver' is no class of the table"):
        read_annotations(tmp_path / "a.nrrd", GRID, project, unknown="refuse")
    read, _, _ = read_annotations(tmp_path / "a.nrrd", GRID, CLASSES, only=["liver"])
    np.testing.assert_array_equal(read, np.where(data == 2, 2, 0))
    with pytest.raises(OptionError, match="has no fat"):
        read_annotations(tmp_path / "a.nrrd", GRID, project, only=["fat"])


class TestZeroBasedLabels:
    """0 may be a class of others."""

    def file(self, folder: Path, data: Any) -> Path:
        affine = np.diag([-0.6, -0.7, 2.5, 1.0])
        image = nibabel.Nifti1Image(data.T, affine)  # type: ignore[no-untyped-call]
        nibabel.save(image, folder / "a.nii.gz")
        return folder / "a.nii.gz"

    def image(self) -> Grid:
        straight = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
        geometry = Geometry(
            ("z", "y", "x"), (2.5, 0.7, 0.6), "mm", (0.0, 0.0, 0.0), straight
        )
        return Grid((3, 4, 5), geometry)

    def test_0_is_not_annotated_unless_it_is_said_to_be_a_class(
        self, tmp_path: Path
    ) -> None:
        data = labels(3, 4, 5, values=(0, 1, 2))
        file = self.file(tmp_path, data)
        read, classes, notes = read_annotations(file, self.image(), CLASSES)
        np.testing.assert_array_equal(read, data)
        assert classes == CLASSES
        assert notes[0].startswith("0 in a.nii.gz is taken as not annotated;")
        read, _, notes = read_annotations(
            file, self.image(), CLASSES, values={0: 1, 1: 2, 2: 300}
        )
        np.testing.assert_array_equal(read, np.array([1, 2, 300])[data])
        assert notes == ()

    def test_values_that_are_forgotten_or_impossible_are_refused(
        self, tmp_path: Path
    ) -> None:
        file = self.file(tmp_path, labels(3, 4, 5, values=(0, 1, 2)))
        with pytest.raises(LabelError, match="has the values 2, for which no class"):
            read_annotations(file, self.image(), CLASSES, values={0: 1, 1: 2})
        with pytest.raises(ClassTableError, match="65536 cannot be class values"):
            read_annotations(file, self.image(), CLASSES, values={0: 1, 1: 2, 2: 65536})

    def test_values_without_a_class_are_added_or_refused(self, tmp_path: Path) -> None:
        file = self.file(tmp_path, labels(3, 4, 5, values=(0, 1, 7)))
        _, classes, _ = read_annotations(file, self.image(), CLASSES)
        assert classes.by_value(7).name == "class 7"
        with pytest.raises(LabelError, match="not in the class table: 7"):
            read_annotations(file, self.image(), CLASSES, unknown="refuse")

    def test_whole_numbers_may_be_floats(self, tmp_path: Path) -> None:
        data = labels(3, 4, 5, values=(0, 1, 2))
        file = self.file(tmp_path, data.astype(np.float32))
        read, _, _ = read_annotations(file, self.image(), CLASSES)
        np.testing.assert_array_equal(read, data)
        file = self.file(tmp_path, data + np.float32(0.5))
        with pytest.raises(LabelError, match="values that are no whole numbers"):
            read_annotations(file, self.image(), CLASSES)

    def test_of_a_liver_as_it_was_shared(self, data_dir: Path) -> None:
        folder = data_dir / "formats" / "volumes"
        file = folder / "ircadb_1.01_labels_0based.nii.gz"
        volume: Any = nibabel.load(file)
        truth = np.asarray(volume.dataobj).T
        image = open_image(folder / "ircadb_1.01_ct.nii.gz")
        values = {value: value + 1 for value in range(6)}
        read, classes, notes = read_annotations(file, image, values=values)
        np.testing.assert_array_equal(read, truth + 1)
        assert classes.values == (1, 2, 3, 4, 5, 6)
        assert notes == ()


class TestOtherGrids:
    """Label volumes lie where their file says."""

    def test_axes_the_other_way_round_are_the_same_labels(self, tmp_path: Path) -> None:
        data = labels(3, 4, 5)
        image = SimpleITK.GetImageFromArray(data)
        image.SetSpacing(GEOMETRY.spacing[::-1])
        image.SetOrigin(GEOMETRY.origin[::-1])
        image.SetDirection([1, 0, 0, 0, 1, 0, 0, 0, -1])
        turned = SimpleITK.PermuteAxes(
            SimpleITK.Flip(image, [True, False, True]), [2, 0, 1]
        )
        SimpleITK.WriteImage(turned, tmp_path / "a.nrrd")
        assert SimpleITK.GetArrayFromImage(turned).shape == (4, 5, 3)
        read, _, notes = read_annotations(tmp_path / "a.nrrd", GRID, CLASSES)
        np.testing.assert_array_equal(read, data)
        assert not any("other pixels" in note for note in notes)

    def test_other_pixels_get_the_nearest_label(self, tmp_path: Path) -> None:
        coarse = Geometry(
            GEOMETRY.axes, (5.0, 1.4, 1.2), "mm", GEOMETRY.origin, GEOMETRY.direction
        )
        data = np.zeros((2, 3, 3), np.uint8)
        data[1, 1, 2] = 2
        export_labels(data, tmp_path / "a.nii.gz", CLASSES, coarse)
        read, _, notes = read_annotations(tmp_path / "a.nii.gz", GRID, CLASSES)
        # Its centre is that of the fine pixel (2, 2, 4).
        assert read[2, 2, 4] == 2
        assert not read[0].any()
        assert any("has other pixels than the image" in note for note in notes)

    def test_labels_elsewhere_are_refused(self, tmp_path: Path) -> None:
        away = Geometry(
            GEOMETRY.axes, GEOMETRY.spacing, "mm", (500.0, 0.0, 0.0), GEOMETRY.direction
        )
        export_labels(labels(3, 4, 5), tmp_path / "a.nii.gz", CLASSES, away)
        with pytest.raises(LabelError, match="lies elsewhere than the image"):
            read_annotations(tmp_path / "a.nii.gz", GRID)

    def test_where_nobody_knows_the_place_the_size_must_fit(
        self, tmp_path: Path
    ) -> None:
        tifffile.imwrite(tmp_path / "a.tif", labels(3, 4, 6), photometric="minisblack")
        with pytest.raises(LabelError, match=r"has shape \(3, 4, 6\), but the image"):
            read_annotations(tmp_path / "a.tif", GRID, CLASSES)


def test_what_is_no_label_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no")
    (tmp_path / "empty.ome.zarr").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg")
    for name, error in (
        ("a.txt", ImageError),
        ("no.nii.gz", ImageError),
        ("empty.ome.zarr", ImageError),
        ("a.jpg", LabelError),
    ):
        with pytest.raises(error):
            read_annotations(tmp_path / name, GRID)
