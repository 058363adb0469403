"""Label maps as GeoJSON of outlines, as QuPath reads and writes them.

Coordinates are (x, y) in pixels of the image, (0, 0) being the upper left corner of its
first pixel, as in QuPath. An outline runs along the edges of pixels, so that whoever
fills it by pixel centres gets the labels back.
https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import LabelError, shortened
from napari_sparseseg.io.geometry import WHOLE_SLIDE, Field
from napari_sparseseg.io.named_classes import (
    check_any,
    check_overlap,
    settle_overlap,
)
from napari_sparseseg.io.optional import library
from napari_sparseseg.io.tiff_labels import write_tiff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable, Color
    from napari_sparseseg.io.named_classes import NamedClasses, Overlap
    from napari_sparseseg.io.sources import LazyArray


@dataclass(frozen=True)
class Region:
    """What a feature of GeoJSON says.

    Attributes
    ----------
    name
        Of its class; empty where it has none.
    color
        Of its class, where it is said.
    geometry
        As GeoJSON has it.
    """

    name: str
    color: Color | None
    geometry: dict[str, Any]


def check_can_trace() -> None:
    """Raise ImageError where the libraries for outlines are not installed."""
    for name in ("rasterio.features", "shapely"):
        library(name, "slides", "GeoJSON files")


def write_geojson(
    path: Path,
    labels: NDArray[Any] | LazyArray,
    classes: ClassTable,
    *,
    simplify_px: float = 0.0,
    by_class: bool = False,
    field: Field = WHOLE_SLIDE,
) -> None:
    """Write outlines of what is annotated, as annotations of QuPath.

    Parameters
    ----------
    path
        The file.
    labels
        (y, x) uint8 or uint16; 0 = not annotated, of which there is no outline. What is
        no array of numpy is read row by row, and memory is taken for outlines alone.
    classes
        Of all values.
    simplify_px
        How far in pixels a simpler outline may lie from the exact one; neighbours may
        then overlap or lie apart. 0 = exact.
    by_class
        Whether all parts of a class are one object; else each 4-connected part is one.
    field
        Where the labels lie on the slide.
    """
    features = iter_features(labels, classes, simplify_px, by_class, field)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for index, feature in enumerate(features):
            text = json.dumps(feature, ensure_ascii=False, separators=(",", ":"))
            file.write(f"{',' if index else ''}\n{text}")
        file.write("\n]}\n")


def iter_features(
    labels: NDArray[Any] | LazyArray,
    classes: ClassTable,
    simplify_px: float = 0.0,
    by_class: bool = False,
    field: Field = WHOLE_SLIDE,
) -> Iterator[dict[str, Any]]:
    """Yield one feature of GeoJSON an object (see `write_geojson`)."""
    outlines = _outlines(labels, simplify_px, field)
    if by_class:
        outlines = _by_class(outlines)
    properties = {
        each.value: {
            "objectType": "annotation",
            "classification": {"name": each.name, "color": list(each.color)},
        }
        for each in classes
    }
    for geometry, value in outlines:
        yield {"type": "Feature", "geometry": geometry, "properties": properties[value]}


def _outlines(
    labels: NDArray[Any] | LazyArray, simplify_px: float, field: Field
) -> Iterator[tuple[dict[str, Any], int]]:
    for geometry, value in _shapes(labels, field):
        if simplify_px:
            geometry = _simplified(geometry, simplify_px * field.step_px)
        yield geometry, int(value)


def _shapes(
    labels: NDArray[Any] | LazyArray, field: Field
) -> Iterator[tuple[dict[str, Any], float]]:
    import rasterio
    from rasterio.features import shapes

    transform = _transform(field)
    if isinstance(labels, np.ndarray):
        yield from shapes(labels, labels != 0, connectivity=4, transform=transform)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "labels.tif")
        write_tiff(path, labels, None)
        # Of a file its own transform counts, and no other that is given: GDAL finds it
        # here, and has nothing to warn of.
        numbers = ", ".join(repr(float(each)) for each in transform.to_gdal())
        path.with_name("labels.tif.aux.xml").write_text(
            f"<PAMDataset><GeoTransform>{numbers}</GeoTransform></PAMDataset>"
        )
        # That holds whatever the environment says of files beside one.
        with rasterio.Env(
            GDAL_PAM_ENABLED=True,
            GDAL_DISABLE_READDIR_ON_OPEN=False,
            GDAL_GEOREF_SOURCES="PAM",
        ):
            file = rasterio.open(path)
        with file:
            # A file cannot be masked here: what is 0 is outlined, too.
            found = shapes(rasterio.band(file, 1), connectivity=4)
            yield from (each for each in found if each[1])


def _simplified(geometry: dict[str, Any], tolerance: float) -> dict[str, Any]:
    import shapely

    simple = shapely.simplify(shapely.geometry.shape(geometry), tolerance)
    mapped: dict[str, Any] = shapely.geometry.mapping(simple)
    return mapped


def _by_class(
    outlines: Iterator[tuple[dict[str, Any], int]],
) -> Iterator[tuple[dict[str, Any], int]]:
    """Merge the polygons of each class, which may touch at corners alone."""
    ordered = sorted(outlines, key=lambda each: each[1])
    for value, parts in groupby(ordered, key=lambda each: each[1]):
        polygons = [geometry["coordinates"] for geometry, _ in parts]
        yield {"type": "MultiPolygon", "coordinates": polygons}, value


def _transform(field: Field) -> Any:
    from rasterio.transform import Affine

    y, x = field.offset_px
    return Affine(field.step_px, 0, x, 0, field.step_px, y)


def read_geojson(path: Path) -> list[Region]:
    """Read the features of a GeoJSON file, as QuPath writes them.

    Raises
    ------
    LabelError
        If the file cannot be read or is no GeoJSON of features.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise LabelError(
            f"{path} cannot be read: {error.strerror or error}.", path=str(path)
        ) from error
    except (ValueError, RecursionError) as error:
        raise LabelError(
            f"{path} is damaged, or no GeoJSON: {error}.", path=str(path)
        ) from error
    if isinstance(content, dict):
        content = content.get("features", [content])
    try:
        return [_region(each) for each in content]
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise LabelError(
            f"{path} is no GeoJSON of features; expected features with a geometry, and "
            "in their properties a classification, as QuPath exports them "
            f"({shortened(error)}).",
            path=str(path),
        ) from error


def labels_of_regions(
    regions: list[Region],
    shape: tuple[int, ...],
    names: NamedClasses,
    *,
    name: str,
    overlap: Overlap = "smaller",
    field: Field = WHOLE_SLIDE,
) -> tuple[NDArray[Any], list[str]]:
    """Fill regions: pixels whose centre is within get the value of the class.

    Lines and points get the pixels they touch. Of regions that overlap the smaller
    lies on the larger, as an annotation in another does.

    Parameters
    ----------
    regions
        Of `read_geojson`.
    shape
        (y, x) of the image.
    names
        The classes.
    name
        What messages call the regions.
    overlap
        What pixels in regions of several classes get.
    field
        Where the image lies on the slide.

    Returns
    -------
    tuple
        (y, x) uint8 or uint16, and sentences for the user.

    Raises
    ------
    LabelError
        If an outline is none, the image is no plane, regions overlap and shall not, or
        all lie outside of the image.
    """
    check_overlap(overlap)
    if len(shape) != 2:
        raise LabelError(
            f"{name} has outlines in one plane, but the image has shape {shape}; give "
            "a plane, or a slide.",
            shape=shape,
        )
    filled = []
    n_unnamed = n_empty = 0
    for number, region in enumerate(regions, 1):
        if not region.name:
            n_unnamed += 1
            continue
        value = names.value(region.name, region.color)
        if not value:
            continue
        area = _area(region.geometry, number, name)
        if area is None:
            n_empty += 1
        else:
            filled.append((area, region, value))
    filled.sort(key=lambda each: -each[0])
    by_value: dict[int, list[dict[str, Any]]] = {}
    for _, region, value in filled:
        by_value.setdefault(value, []).append(region.geometry)
    labels = _burned(
        [(each.geometry, value) for _, each, value in filled], shape, field
    )
    n_classes = np.zeros(shape, np.uint16 if len(by_value) > 255 else np.uint8)
    for geometries in by_value.values() if len(by_value) > 1 else ():
        n_classes += _burned([(each, 1) for each in geometries], shape, field) > 0
    check_any(labels, name, by_value)
    labels, notes = settle_overlap(labels, n_classes > 1, overlap, name)
    for n, lack in ((n_unnamed, "a class"), (n_empty, "an outline")):
        if n:
            objects = f"{n} {'object' if n == 1 else 'objects'}"
            notes.append(f"{name} has {objects} without {lack}, left out.")
    return labels, notes


def _region(feature: dict[str, Any]) -> Region:
    geometry = feature["geometry"]
    if not isinstance(geometry, dict) or "type" not in geometry:
        raise ValueError(f"geometry {geometry!r}")
    classification = (feature.get("properties") or {}).get("classification") or {}
    if isinstance(classification, str):
        classification = {"name": classification}
    # QuPath has several names where a class is derived from another.
    name = classification.get("name") or ": ".join(classification.get("names", ()))
    return Region(str(name).strip(), _color(classification), geometry)


def _color(classification: dict[str, Any]) -> Color | None:
    color = classification.get("color")
    if color is not None:
        red, green, blue = (int(part) & 255 for part in color[:3])
        return red, green, blue
    # Older QuPath: one signed number, alpha first.
    packed = classification.get("colorRGB")
    if packed is None:
        return None
    return packed >> 16 & 255, packed >> 8 & 255, packed & 255


def _area(geometry: dict[str, Any], number: int, name: str) -> float | None:
    """Return the area of an outline, None of one that is empty."""
    import shapely

    try:
        outline = shapely.geometry.shape(geometry)
        return None if outline.is_empty else float(outline.area)
    except (shapely.errors.ShapelyError, ValueError, TypeError, LookupError) as error:
        raise LabelError(
            f"Object {number} of {name} has no outline that can be used "
            f"({shortened(str(error))}); draw it again or leave it out.",
            number=number,
        ) from error


def _burned(
    shapes: list[tuple[dict[str, Any], int]], shape: tuple[int, ...], field: Field
) -> NDArray[np.uint16]:
    """Return (y, x) uint16 with the value of the last shape over each pixel centre."""
    from rasterio.features import rasterize

    if not shapes:
        return np.zeros(shape, np.uint16)
    burned: NDArray[np.uint16] = rasterize(
        shapes, out_shape=shape, transform=_transform(field), dtype="uint16"
    )
    return burned
