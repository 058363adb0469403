"""Annotations of other programs are opened as labels of their image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
import pytest
import SimpleITK
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.gui import annotation_layers
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.readers import image_reader
from napari_sparseseg.io.export import export_labels
from napari_sparseseg.io.geometry import Geometry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def viewer(monkeypatch: pytest.MonkeyPatch) -> ViewerModel:
    """Return what napari has on the screen."""
    model = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: model)
    return model


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sentences: list[str] = []
    monkeypatch.setattr(annotation_layers, "show_error", sentences.append)
    return sentences


def open_file(viewer: ViewerModel, path: Path) -> Any:
    """Open a file as napari does; return its layer."""
    reader = image_reader(str(path))
    assert reader is not None
    (opened,) = reader(str(path))
    if len(opened) == 1:
        return None
    layer = Layer.create(*opened)
    viewer.add_layer(layer)
    return layer


def outline(path: Path, name: str, y: tuple[int, int], x: tuple[int, int]) -> Path:
    """Write a rectangle as QuPath does."""
    ring = [[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]], [x[0], y[0]]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": name, "color": [9, 8, 7]}},
    }
    content = {"type": "FeatureCollection", "features": [feature]}
    path.write_text(json.dumps(content))
    return path


def names_of(labels: Labels) -> list[str]:
    return list(ClassTable.from_json(labels.metadata[CLASSES_KEY]).names)


def test_a_segmentation_lies_on_its_series(viewer: ViewerModel, data_dir: Path) -> None:
    folder = data_dir / "formats" / "dicom" / "dcmqi_ct3"
    image = open_file(viewer, folder)
    labels = open_file(viewer, folder / "seg" / "liver.dcm")
    assert isinstance(labels, Labels)
    np.testing.assert_array_equal(labels.scale, image.scale)
    np.testing.assert_array_equal(labels.translate, image.translate)
    # The same segmentation as another program has written it.
    other = SimpleITK.ReadImage(str(folder / "seg" / "liver_seg.nrrd"))
    expected = SimpleITK.GetArrayFromImage(other)
    assert (np.asarray(labels.data) != 0).sum() == (expected != 0).sum() > 0
    assert names_of(labels) == ["Liver"]


def test_outlines_are_filled_in_pixels_of_the_slide(
    viewer: ViewerModel, data_dir: Path, tmp_path: Path
) -> None:
    slide = data_dir / "formats" / "wsi" / "CMU-1-Small-Region.svs"
    image = open_file(viewer, slide)
    viewer.add_image(np.zeros((4, 4)), name="another")
    viewer.layers.selection.active = image
    file = outline(tmp_path / "a b.geojson", "tumour", (100, 130), (200, 260))
    labels = open_file(viewer, file)
    assert labels.name == "a b of CMU-1-Small-Region"
    y, x = np.nonzero(labels.data)
    assert (y.min(), y.max(), x.min(), x.max()) == (100, 129, 200, 259)
    assert len(y) == 30 * 60
    np.testing.assert_array_equal(labels.scale, image.scale)
    assert names_of(labels) == ["tumour"]


def test_names_become_the_classes_that_are_painted(
    viewer: ViewerModel, tmp_path: Path
) -> None:
    viewer.add_image(np.zeros((20, 30)), name="tile")
    classes = ClassTable().add("stroma").add("tumour")
    painted = np.zeros((20, 30), np.uint8)
    painted[3, 3] = 1
    viewer.add_labels(painted, metadata={CLASSES_KEY: classes.to_json()})
    file = outline(tmp_path / "q.geojson", "tumour", (2, 5), (4, 9))
    labels = open_file(viewer, file)
    assert np.unique(labels.data).tolist() == [0, 2]
    assert names_of(labels) == ["stroma", "tumour"]


@pytest.mark.parametrize(("n_images", "words"), [(0, "open that"), (2, "select that")])
def test_without_their_image_they_are_refused_in_a_sentence(
    viewer: ViewerModel, told: list[str], tmp_path: Path, n_images: int, words: str
) -> None:
    for _ in range(n_images):
        viewer.add_image(np.zeros((20, 30)))
    viewer.layers.selection.clear()
    file = outline(tmp_path / "q.geojson", "tumour", (2, 5), (4, 9))
    assert open_file(viewer, file) is None
    assert words in told[0]
    assert len(viewer.layers) == n_images


@pytest.mark.parametrize("suffix", [".nii.gz", ".ome.zarr", ".nrrd"])
def test_exported_labels_are_opened_as_labels(
    viewer: ViewerModel, tmp_path: Path, suffix: str
) -> None:
    labels = np.zeros((3, 8, 9), np.uint8)
    labels[1, 2:5, 3:6] = 2
    classes = ClassTable().add("liver").add("tumour")
    geometry = Geometry(("z", "y", "x"), (2.0, 0.5, 0.5), "mm")
    path = tmp_path / f"case{suffix}"
    export_labels(labels, path, classes, geometry)
    if suffix == ".nrrd":
        (tmp_path / "case.classes.json").write_text(json.dumps(classes.to_json()))
    again = open_file(viewer, path)
    assert isinstance(again, Labels)
    np.testing.assert_array_equal(again.data, labels)
    np.testing.assert_allclose(again.scale, (2, 0.5, 0.5))
    assert [str(unit) for unit in again.units] == ["millimeter"] * 3
    assert names_of(again) == ["liver", "tumour"]


def test_an_image_beside_a_class_table_of_its_folder_stays_an_image(
    viewer: ViewerModel, tmp_path: Path
) -> None:
    pixels = SimpleITK.GetImageFromArray(np.zeros((3, 8, 9), np.int16))
    SimpleITK.WriteImage(pixels, str(tmp_path / "ct.nii.gz"))
    (tmp_path / "classes.json").write_text(json.dumps(ClassTable().to_json()))
    assert isinstance(open_file(viewer, tmp_path / "ct.nii.gz"), Image)


def test_an_image_beside_exported_labels_of_its_name_stays_an_image(
    viewer: ViewerModel, tmp_path: Path
) -> None:
    values = np.arange(3 * 8 * 9, dtype=np.int16).reshape(3, 8, 9) - 50
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(values), str(tmp_path / "ct.nii.gz")
    )
    classes = ClassTable().add("liver")
    export_labels(np.ones((3, 8, 9), np.uint8), tmp_path / "ct.tif", classes)
    assert (tmp_path / "ct.classes.json").exists()
    image = open_file(viewer, tmp_path / "ct.nii.gz")
    assert isinstance(image, Image)
    np.testing.assert_array_equal(image.data, values)
    assert isinstance(open_file(viewer, tmp_path / "ct.tif"), Labels)
