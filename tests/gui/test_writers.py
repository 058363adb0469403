"""File > Save Selected Layers keeps values and classes."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
import SimpleITK
import tifffile
from napari.components import ViewerModel
from napari.layers import Image as ImageLayer
from napari.layers import Labels
from npe2 import PluginManifest
from PIL import Image
from pydicom.data import get_testdata_file

from napari_sparseseg.annotations.classes import ClassTable, read_class_table
from napari_sparseseg.errors import ClassTableError, OutputError
from napari_sparseseg.gui import homes, session_folder
from napari_sparseseg.gui.layer_keys import CLASSES_KEY, SOURCE_KEY
from napari_sparseseg.gui.planes import placement
from napari_sparseseg.gui.writers import write_single_labels
from napari_sparseseg.io.annotation_files import read_annotations
from napari_sparseseg.io.export import EXPORT_SUFFIXES
from napari_sparseseg.io.geometry import Geometry
from napari_sparseseg.io.sources import open_image

CLASSES = ClassTable().add("nucleus").add("stroma")


def labels(*shape: int, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 3, shape).astype(dtype)


def save(layer: Labels, path: Path) -> list[str]:
    """Save as napari does."""
    data, meta, _ = layer.as_layer_data_tuple()
    return write_single_labels(str(path), data, meta)


def test_classes_come_from_the_metadata(tmp_path: Path) -> None:
    data = labels(20, 30)
    layer = Labels(data, metadata={CLASSES_KEY: CLASSES.to_json()})
    written = save(layer, tmp_path / "a.png")
    assert written == [str(tmp_path / "a.png"), str(tmp_path / "a.classes.json")]
    with Image.open(written[0]) as image:
        np.testing.assert_array_equal(np.array(image), data)
    assert read_class_table(written[1]) == CLASSES


def test_layers_without_classes_get_them_from_their_values(tmp_path: Path) -> None:
    data = labels(3, 20, 30) * 7
    written = save(Labels(data), tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(written[0]), data)
    assert read_class_table(written[1]).values == (7, 14)


def test_the_finest_level_is_written(tmp_path: Path) -> None:
    data = labels(40, 40)
    layer = Labels([data, data[::2, ::2]], multiscale=True)
    written = save(layer, tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(written[0]), data)


def test_the_class_table_of_other_labels_is_kept(tmp_path: Path) -> None:
    layer = Labels(labels(20, 30), metadata={CLASSES_KEY: CLASSES.to_json()})
    save(layer, tmp_path / "a.tif")
    with pytest.raises(OutputError, match=r"a\.classes\.json has other classes"):
        save(Labels(labels(20, 30)), tmp_path / "a.png")
    assert read_class_table(tmp_path / "a.classes.json") == CLASSES


def test_damaged_metadata_and_other_formats_are_refused(tmp_path: Path) -> None:
    layer = Labels(labels(4, 5), metadata={CLASSES_KEY: {"what": 1}})
    with pytest.raises(ClassTableError):
        save(layer, tmp_path / "a.png")
    with pytest.raises(OutputError, match=r"a\.jpg"):
        save(Labels(labels(4, 5)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_only_files_with_the_values_make_a_copy_of_strokes_needless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: dict[Path, Any] = {}
    monkeypatch.setattr(session_folder, "_SAVED", saved)
    names = ("a.png", "a.nii.gz", "a.nrrd", "a.csv", "a.geojson", "a.ome.zarr")
    for name in names:
        save(Labels(labels(4, 5)), tmp_path / name)
    assert {path.name for path in saved} == {"a.png", "a.nii.gz", "a.nrrd"}


@pytest.fixture
def viewer(monkeypatch: pytest.MonkeyPatch) -> ViewerModel:
    """Return a viewer that is the current one."""
    model = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: model)
    return model


class TestPlaces:
    """Files lie where the image does."""

    GEOMETRY = Geometry(
        ("z", "y", "x"),
        (2.5, 0.7, 0.6),
        "mm",
        (-80.0, 12.0, 33.0),
        ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )

    def image(self, viewer: ViewerModel, **more: Any) -> ImageLayer:
        about = {"geometry": self.GEOMETRY, "path": "ct", "series": None, "files": []}
        return viewer.add_image(
            np.zeros((3, 4, 5)),
            scale=self.GEOMETRY.spacing,
            units="mm",
            metadata={SOURCE_KEY: about | more},
        )

    def test_that_of_a_file_counts_for_labels_on_it(
        self, viewer: ViewerModel, tmp_path: Path
    ) -> None:
        image = self.image(viewer)
        layer = viewer.add_labels(labels(3, 4, 5), **placement(image))
        homes.give(layer, image)
        save(layer, tmp_path / "a.nii.gz")
        read = SimpleITK.ReadImage(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(read), layer.data)
        assert read.GetSpacing() == pytest.approx((0.6, 0.7, 2.5))
        assert read.GetOrigin() == pytest.approx((33, 12, -80))
        assert read.GetDirection() == pytest.approx((1, 0, 0, 0, 1, 0, 0, 0, -1))

    def test_the_layers_own_counts_once_it_was_changed(
        self, viewer: ViewerModel, tmp_path: Path
    ) -> None:
        image = self.image(viewer)
        layer = viewer.add_labels(
            labels(3, 4, 5), scale=(5, 1, 1), translate=(10, 20, 30), units="mm"
        )
        homes.give(layer, image)
        save(layer, tmp_path / "a.nii")
        read = SimpleITK.ReadImage(tmp_path / "a.nii")
        assert read.GetSpacing() == pytest.approx((1, 1, 5))
        assert read.GetOrigin() == pytest.approx((30, 20, 10))

    def test_layers_in_pixels_have_no_size(self, tmp_path: Path) -> None:
        save(Labels(labels(4, 5), scale=(3, 3)), tmp_path / "a.ome.tif")
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
            assert "PhysicalSize" not in (tiff.ome_metadata or "")

    def test_outlines_of_a_coarser_level_are_in_pixels_of_the_slide(
        self, viewer: ViewerModel, tmp_path: Path
    ) -> None:
        fine = np.zeros((64, 64))
        slide = viewer.add_image(
            [fine, fine[::4, ::4]], multiscale=True, scale=(0.5, 0.5), units="um"
        )
        data = np.zeros((16, 16), int)
        data[2, 3] = 1
        layer = viewer.add_labels(data, **placement(slide, 1))
        homes.give(layer, slide)
        save(layer, tmp_path / "a.geojson")
        (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
        corners = np.array(feature["geometry"]["coordinates"][0])
        assert corners.min(0).tolist() == [12, 8]
        assert corners.max(0).tolist() == [16, 12]

    def test_a_segmentation_needs_a_series(
        self, viewer: ViewerModel, tmp_path: Path
    ) -> None:
        image = self.image(viewer)
        layer = viewer.add_labels(labels(3, 4, 5), **placement(image))
        with pytest.raises(OutputError, match="belongs to a DICOM series"):
            save(layer, tmp_path / "a.dcm")
        assert list(tmp_path.iterdir()) == []

    def test_a_segmentation_is_of_the_series_of_the_image(
        self, viewer: ViewerModel, tmp_path: Path
    ) -> None:
        file = str(get_testdata_file("CT_small.dcm"))
        source = open_image(file)
        image = viewer.add_image(
            source.data,
            scale=source.geometry.spacing,
            units="mm",
            metadata={SOURCE_KEY: {"geometry": source.geometry, "files": [file]}},
        )
        # The only image that the labels lie upon.
        layer = viewer.add_labels(labels(128, 128), **placement(image))
        save(layer, tmp_path / "a.dcm")
        read, _, _ = read_annotations(tmp_path / "a.dcm", source)
        np.testing.assert_array_equal(read, layer.data)


def test_napari_offers_all_suffixes() -> None:
    manifest = Path(str(files("napari_sparseseg").joinpath("napari.yaml")))
    writers = PluginManifest.from_file(manifest).contributions.writers or []
    assert writers[0].filename_extensions[0] == ".png"  # of names without one
    assert sorted(writers[0].filename_extensions) == sorted(EXPORT_SUFFIXES)
