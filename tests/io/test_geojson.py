"""Outlines for QuPath, filled again by other libraries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize
from skimage.draw import polygon2mask

from napari_sparseseg.annotations.classes import ClassTable, LabelClass
from napari_sparseseg.errors import LabelError, OptionError
from napari_sparseseg.io.annotation_files import read_annotations, read_labels
from napari_sparseseg.io.export import ExportOptions, export_labels
from napari_sparseseg.io.geometry import Field, Geometry, Grid

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = ClassTable(
    (
        LabelClass(1, "background", (10, 20, 30)),
        LabelClass(2, "Gefäß", (255, 0, 0)),
        LabelClass(7, "Tumor: Positive", (0, 128, 255)),
    )
)
EXACT = ExportOptions()


def blobs(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return labels with holes, islands in holes, and corners that touch."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(4, *shape))
    best = np.stack([gaussian_filter(each, 3) for each in noise]).argmax(0)
    labels: NDArray[np.uint8] = np.array([0, *CLASSES.values], np.uint8)[best]
    labels[::7, ::5] = 7
    return labels


def features(
    labels: Any, path: Path, options: ExportOptions = EXACT
) -> list[dict[str, Any]]:
    export_labels(labels, path, CLASSES, options=options)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    found: list[dict[str, Any]] = content["features"]
    return found


def filled(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (30, 30) bool of a polygon; scikit-image has centres at whole numbers."""
    mask: NDArray[np.bool_] = polygon2mask(  # type: ignore[no-untyped-call]
        (30, 30), points - 0.5
    )
    return mask


def grid(*shape: int) -> Grid:
    return Grid(shape, Geometry(("y", "x"), (1.0, 1.0)))


def write(path: Path, *about: tuple[Any, dict[str, Any]]) -> Path:
    """Write polygons, or geometries, with their properties."""
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {
                        "type": "Feature",
                        "geometry": each
                        if isinstance(each, dict)
                        else {"type": "Polygon", "coordinates": each},
                        "properties": properties,
                    }
                    for each, properties in about
                ],
            }
        )
    )
    return path


def box(y0: float, x0: float, y1: float, x1: float) -> list[list[list[float]]]:
    return [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]


def of_class(name: str) -> dict[str, Any]:
    return {"objectType": "annotation", "classification": {"name": name}}


class TestExport:
    """Labels become objects."""

    @pytest.mark.parametrize("by_class", [False, True])
    def test_filling_the_outlines_gives_the_labels_back(
        self, tmp_path: Path, by_class: bool
    ) -> None:
        data = blobs(60, 80)
        found = features(data, tmp_path / "a.geojson", ExportOptions(by_class=by_class))
        values = dict(zip(CLASSES.names, CLASSES.values, strict=True))
        shapes = [
            (each["geometry"], values[each["properties"]["classification"]["name"]])
            for each in found
        ]
        filled = rasterize(shapes, out_shape=data.shape, dtype="uint8")
        np.testing.assert_array_equal(filled, data)
        polygons = [shapely.geometry.shape(geometry) for geometry, _ in shapes]
        assert all(shapely.is_valid(polygons))
        # Nothing is covered twice: the areas are the numbers of pixels.
        assert sum(shapely.area(polygons)) == np.count_nonzero(data)
        assert len(found) > 3 or by_class
        assert not by_class or len(found) == 3
        assert any(
            shapely.get_num_interior_rings(part) for part in shapely.get_parts(polygons)
        )

    def test_each_part_is_an_object_with_name_and_colour(self, tmp_path: Path) -> None:
        data = np.zeros((4, 5), np.uint8)
        data[0, 0] = data[1, 1] = 7  # touch at a corner
        found = features(data, tmp_path / "a.geojson")
        assert [each["properties"] for each in found] == [
            {
                "objectType": "annotation",
                "classification": {"name": "Tumor: Positive", "color": [0, 128, 255]},
            }
        ] * 2
        corners = {tuple(point) for point in found[0]["geometry"]["coordinates"][0]}
        assert corners == {(0, 0), (1, 0), (1, 1), (0, 1)}

    def test_what_is_not_annotated_has_no_object(self, tmp_path: Path) -> None:
        assert features(np.zeros((4, 5), int), tmp_path / "a.geojson") == []

    def test_a_field_lies_on_its_slide(self, tmp_path: Path) -> None:
        data = np.zeros((4, 5), np.uint8)
        data[1, 2] = 2
        options = ExportOptions(field=Field((1000.0, 2000.0), 4.0))
        (found,) = features(data, tmp_path / "a.geojson", options)
        x0, y0, x1, y1 = shapely.geometry.shape(found["geometry"]).bounds
        assert (y0, x0, y1, x1) == (1004, 2008, 1008, 2012)

    def test_simpler_outlines_stay_near_and_whole(self, tmp_path: Path) -> None:
        yy, xx = np.mgrid[:100, :100]
        data = np.where((yy - 50) ** 2 + (xx - 50) ** 2 < 900, 2, 0)
        (exact,) = features(data, tmp_path / "a.geojson")
        (simple,) = features(
            data, tmp_path / "b.geojson", ExportOptions(simplify_px=1.0)
        )
        before, after = (
            shapely.geometry.shape(each["geometry"]) for each in (exact, simple)
        )
        n_before, n_after = map(shapely.get_num_coordinates, (before, after))
        assert n_after < n_before / 3
        assert after.is_valid
        assert shapely.hausdorff_distance(before, after) <= 1.0


class TestImport:
    """Objects become labels."""

    def test_what_was_exported_comes_back(self, tmp_path: Path) -> None:
        data = blobs(60, 80, seed=1)
        features(data, tmp_path / "a.geojson")
        labels, classes, notes = read_annotations(
            tmp_path / "a.geojson", grid(60, 80), CLASSES
        )
        np.testing.assert_array_equal(labels, data)
        assert labels.dtype == np.uint8
        assert classes == CLASSES
        assert notes == ()

    def test_a_field_of_a_slide_comes_back(self, tmp_path: Path) -> None:
        data = blobs(30, 40, seed=2)
        field = Field((1000.0, 2000.0), 4.0)
        features(data, tmp_path / "a.geojson", ExportOptions(field=field))
        labels, _, _ = read_annotations(
            tmp_path / "a.geojson", grid(30, 40), CLASSES, field=field
        )
        np.testing.assert_array_equal(labels, data)

    def test_pixels_with_their_centre_within_get_the_class(
        self, tmp_path: Path
    ) -> None:
        # Of no right angles; holes count, and a second polygon does.
        outer = np.array([[3.2, 2.1], [27.6, 6.3], [22.8, 25.7], [6.4, 18.9]])
        hole = np.array([[10.3, 9.2], [17.9, 10.4], [14.2, 17.3]])
        rings = [
            [*ring[:, ::-1].tolist(), ring[0, ::-1].tolist()] for ring in (outer, hole)
        ]
        geometry = {"type": "MultiPolygon", "coordinates": [rings, box(28, 0, 30, 3)]}
        file = write(tmp_path / "a.geojson", (geometry, of_class("Gefäß")))
        labels, _, _ = read_annotations(file, grid(30, 30), CLASSES)
        truth = filled(outer) & ~filled(hole)
        truth[28:30, :3] = True
        np.testing.assert_array_equal(labels, truth * 2)

    def test_all_ways_of_qupath_to_name_a_class_are_read(self, tmp_path: Path) -> None:
        file = write(
            tmp_path / "a.json",
            (box(0, 0, 2, 2), {"classification": {"name": "A", "color": [1, 2, 3]}}),
            (box(2, 0, 4, 2), {"classification": {"name": "B", "colorRGB": -3670016}}),
            (box(4, 0, 6, 2), {"classification": {"names": ["C", "D"]}}),
            (box(6, 0, 8, 2), {"objectType": "annotation"}),
        )
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content["features"]))  # as older QuPath writes it
        labels, classes, notes = read_annotations(file, grid(8, 2))
        assert classes.names == ("A", "B", "C: D")
        assert [each.color for each in classes][:2] == [(1, 2, 3), (200, 0, 0)]
        np.testing.assert_array_equal(labels[:, 0], [1, 1, 2, 2, 3, 3, 0, 0])
        assert notes == (
            "a.json has 1 object without a class, left out.",
            "new in the class table: A, B, C: D.",
        )

    def test_the_smaller_object_lies_on_the_larger(self, tmp_path: Path) -> None:
        file = write(
            tmp_path / "a.geojson",
            (box(2, 2, 4, 4), of_class("Gefäß")),
            (box(0, 0, 8, 8), of_class("background")),
        )
        labels, _, notes = read_annotations(file, grid(8, 8), CLASSES)
        truth = np.ones((8, 8))
        truth[2:4, 2:4] = 2
        np.testing.assert_array_equal(labels, truth)
        assert notes == (
            "a.geojson has 4 pixels in more than one class; they got the smaller "
            "region's.",
        )
        labels, _, _ = read_annotations(file, grid(8, 8), CLASSES, overlap="none")
        np.testing.assert_array_equal(labels, np.where(truth == 2, 0, 1))
        with pytest.raises(LabelError, match="has 4 pixels in more than one class"):
            read_annotations(file, grid(8, 8), CLASSES, overlap="refuse")

    def test_lines_and_points_get_the_pixels_they_touch(self, tmp_path: Path) -> None:
        line = {"type": "LineString", "coordinates": [[0.5, 1.5], [4.5, 1.5]]}
        point = {"type": "Point", "coordinates": [2.5, 3.5]}
        file = write(
            tmp_path / "a.geojson",
            (line, of_class("Gefäß")),
            (point, of_class("background")),
        )
        labels, _, _ = read_annotations(file, grid(5, 6), CLASSES)
        truth = np.zeros((5, 6))
        truth[1, :5] = 2
        truth[3, 2] = 1
        np.testing.assert_array_equal(labels, truth)

    def test_objects_without_an_outline_are_counted(self, tmp_path: Path) -> None:
        file = write(
            tmp_path / "a.geojson",
            ([], of_class("background")),
            (box(0, 0, 2, 2), of_class("Gefäß")),
        )
        labels, _, notes = read_annotations(file, grid(8, 8), CLASSES)
        assert np.count_nonzero(labels) == 4
        assert notes == ("a.geojson has 1 object without an outline, left out.",)

    def test_outlines_alone_are_no_label_map(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.geojson", (box(0, 0, 2, 2), of_class("fat")))
        with pytest.raises(LabelError, match="outlines, no pixels; import it with"):
            read_labels(file)

    def test_only_what_is_wished_is_read(self, tmp_path: Path) -> None:
        file = write(
            tmp_path / "a.geojson",
            (box(0, 0, 2, 2), of_class("Gefäß")),
            (box(0, 0, 8, 8), of_class("Region*")),
        )
        labels, classes, _ = read_annotations(
            file, grid(8, 8), CLASSES, only=["Gefäß"], unknown="refuse"
        )
        assert classes == CLASSES
        assert np.count_nonzero(labels) == 4
        with pytest.raises(OptionError, match=r"has no fat; it has Gefäß, Region\*"):
            read_annotations(file, grid(8, 8), CLASSES, only=["fat"])

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("{", "is damaged, or no GeoJSON"),
            ("[" * 100_000, "is damaged, or no GeoJSON"),
            ("3", "is no GeoJSON of features"),
            ('{"type": "FeatureCollection", "features": [{"a": 1}]}', "no GeoJSON of"),
            ('[{"geometry": null}]', "is no GeoJSON of features"),
        ],
    )
    def test_other_files_are_refused(
        self, tmp_path: Path, text: str, sentence: str
    ) -> None:
        (tmp_path / "a.geojson").write_text(text)
        with pytest.raises(LabelError, match=sentence):
            read_annotations(tmp_path / "a.geojson", grid(8, 8))

    @pytest.mark.parametrize(
        ("outline", "sentence"),
        [
            ([[[0, 0], [1, 1]]], "Object 1 of a.geojson has no outline"),
            (box(100, 100, 120, 120), "none of them is within the image"),
        ],
    )
    def test_outlines_that_give_no_label_are_refused(
        self, tmp_path: Path, outline: Any, sentence: str
    ) -> None:
        file = write(tmp_path / "a.geojson", (outline, of_class("Gefäß")))
        with pytest.raises(LabelError, match=sentence):
            read_annotations(file, grid(8, 8), CLASSES)

    def test_names_without_a_class_may_be_refused(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.geojson", (box(0, 0, 2, 2), of_class("fat")))
        with pytest.raises(LabelError, match="'fat' is no class of the table"):
            read_annotations(file, grid(8, 8), CLASSES, unknown="refuse")

    def test_volumes_have_no_outlines(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.geojson", (box(0, 0, 2, 2), of_class("Gefäß")))
        volume = Grid((3, 8, 8), Geometry(("z", "y", "x"), (1.0, 1.0, 1.0)))
        with pytest.raises(LabelError, match="outlines in one plane"):
            read_annotations(file, volume, CLASSES)

    def test_a_file_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="cannot be read: No such file"):
            read_annotations(tmp_path / "no.geojson", grid(8, 8))
