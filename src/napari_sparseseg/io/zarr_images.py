"""Images in OME-Zarr, versions 0.4 and 0.5, of which chunks are read when needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import ImageError, enumerated
from napari_sparseseg.io.geometry import Geometry
from napari_sparseseg.io.images import UM_PER_NAME, reading, stem_of
from napari_sparseseg.io.lazy_arrays import Reordered
from napari_sparseseg.io.sources import ImageSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_sparseseg.io.geometry import Unit
    from napari_sparseseg.io.sources import LazyArray

#: Version of OME-Zarr that is understood.
_NEWEST = (0, 5)

#: One of these is in each folder of zarr.
_MARKS = ("zarr.json", ".zgroup", ".zarray")

#: More chunks are not counted, since that takes long.
_COUNTED_CHUNKS = 20_000

#: Colours of the channels of an RGB image, as viewers write them.
_RGB = ["FF0000", "00FF00", "0000FF"]

#: Letters of axes that have types but may have other names.
_OF_TYPE = {"time": "t", "channel": "c"}


def is_zarr(folder: Path) -> bool:
    """Tell whether a folder is one of zarr."""
    return any((folder / mark).is_file() for mark in _MARKS)


def open_zarr(path: Path, series: str | None, *, times: bool = False) -> ImageSource:
    """Open an OME-Zarr image, a folder of several, or a plain array.

    Parameters
    ----------
    path
        The folder.
    series
        Of several images in it, the name of the folder of one.
    times
        Whether it may have time points and planes.

    Raises
    ------
    ImageError
        If it is damaged, holds no image, time points that are not wished, or several
        images of which none is chosen.
    """
    import zarr

    with reading(path, "OME-Zarr"):
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            return _plain(node, path)
        name, group = _chosen(node, path, series)
        attributes = _ome(group)
        _check_version(attributes, path)
        scales = attributes["multiscales"][0]
        arrays = [_level(group, each["path"], path) for each in scales["datasets"]]
        about = attributes.get("omero", {})
        return _source(path, name, scales, arrays, about, times)


def list_scenes(path: Path) -> dict[str, str]:
    """List the images of a folder of several, by name; of others none.

    Raises
    ------
    ImageError
        If it is damaged.
    """
    import zarr

    with reading(path, "OME-Zarr"):
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array) or {"multiscales", "plate"} & {*_ome(node)}:
            return {}
        return {name: f"'{name}'" for name in sorted(_images_in(node))}


def _images_in(group: Any) -> list[str]:
    return [name for name, each in group.groups() if "multiscales" in _ome(each)]


def _ome(group: Any) -> Mapping[str, Any]:
    """Give the metadata of OME, which version 0.5 has under a key."""
    attributes = dict(group.attrs)
    found: Mapping[str, Any] = attributes.get("ome", attributes)
    return found


def _check_version(attributes: Mapping[str, Any], path: Path) -> None:
    """Refuse what a newer version may say otherwise than we would understand."""
    stored = attributes.get("version") or attributes["multiscales"][0].get("version")
    numbers = re.match(r"(\d+)\.(\d+)", str(stored))
    if numbers and tuple(map(int, numbers.groups())) > _NEWEST:
        raise ImageError(
            f"{path} is OME-Zarr of version {stored}, but versions up to "
            f"{'.'.join(map(str, _NEWEST))} can be read; convert it, or update "
            "napari-sparseseg.",
            path=str(path),
            version=stored,
        )


def _level(group: Any, name: str, path: Path) -> Any:
    """Give an array inside a group."""
    import zarr

    is_inside = ".." not in name.split("/") and not name.startswith("/")
    array = group.get(name) if is_inside else None
    if not isinstance(array, zarr.Array):
        raise ImageError(
            f"{path} should have the array '{name}' in it, but has none of that name; "
            "copy the whole folder anew from where it came from.",
            path=str(path),
            array=name,
        )
    return array


def _chosen(group: Any, path: Path, series: str | None) -> tuple[str | None, Any]:
    """Give the group of an image and, of several, its name."""
    if series is None and "multiscales" in _ome(group):
        return None, group
    if "plate" in _ome(group):
        raise ImageError(
            f"{path} is a plate of many wells; give the folder of one field of one "
            f"well, as {path / 'A' / '1' / '0'}.",
            path=str(path),
        )
    images = _images_in(group)
    if series in images or (series is None and len(images) == 1):
        name = series or images[0]
        return name, group[name]
    if not images:
        raise ImageError(
            f"{path} holds no image that is described as OME-Zarr 0.4 or 0.5; give the "
            "folder of one of its arrays, or convert it.",
            path=str(path),
        )
    raise ImageError(
        f"{path} holds the images {enumerated(sorted(images))}; name one of them.",
        path=str(path),
        option=f"--series {sorted(images)[0]}",
        series=images,
    )


def _source(
    path: Path,
    name: str | None,
    scales: Mapping[str, Any],
    arrays: Sequence[Any],
    omero: Mapping[str, Any],
    times: bool,
) -> ImageSource:
    letters, units = _axes(scales.get("axes"), arrays[0].ndim)
    axes, wanted = _chosen_axes(letters, arrays[0].shape, path, times)
    channels = omero.get("channels", [])
    is_rgb = (
        "c" in wanted
        and arrays[0].shape[letters.index("c")] == 3
        and arrays[0].dtype == np.uint8
        and [str(each.get("color", "")).upper() for each in channels] in ([], _RGB)
    )
    levels: list[LazyArray] = [
        each if letters == wanted else Reordered(each, letters, wanted)
        for each in arrays
    ]
    geometry = _geometry(scales, letters, units, axes)
    return ImageSource(
        path,
        stem_of(path),
        tuple(levels),
        geometry,
        is_rgb,
        window=None if is_rgb else _window(channels),
        notes=tuple(_missing(path, arrays)),
        series=name,
    )


def _plain(array: Any, path: Path) -> ImageSource:
    """Open an array without any description: (y, x), (y, x, 3) bytes or (z, y, x)."""
    is_rgb = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    n_axes = array.ndim - is_rgb
    if n_axes not in (2, 3) or array.dtype.kind not in "iuf":
        raise ImageError(
            f"{path} is an array of {array.dtype} of shape {array.shape}, but an image "
            "needs numbers and the axes y, x or z, y, x; convert it to OME-Zarr.",
            path=str(path),
            shape=array.shape,
        )
    axes = ("z", "y", "x")[-n_axes:]
    geometry = Geometry(axes, (1.0,) * n_axes)
    notes = tuple(_missing(path, [array]))
    return ImageSource(path, stem_of(path), (array,), geometry, is_rgb, notes=notes)


def _axes(given: Sequence[Any] | None, ndim: int) -> tuple[str, dict[str, str]]:
    """Give a letter for each axis, and the units of those that have one."""
    if given is None:  # before version 0.3
        return "tczyx"[-ndim:], {}
    letters, units = "", {}
    for each in given:
        axis = {"name": each} if isinstance(each, str) else each
        letter = _OF_TYPE.get(axis.get("type", ""), axis["name"][:1].lower())
        letters += letter
        if axis.get("unit"):
            units[letter] = axis["unit"]
    return letters, units


def _chosen_axes(
    letters: str, shape: Sequence[int], path: Path, times: bool
) -> tuple[tuple[str, ...], str]:
    """Give the axes of an image or volume, and letters of all, channels last."""
    sizes = dict(zip(letters, shape, strict=True))
    planes = [axis for axis in "tz" if sizes.get(axis, 1) > 1]
    if len(planes) > 1 + times or not {"y", "x"} <= set(letters) <= set("tczyx"):
        raise ImageError(
            f"{path} has the axes {', '.join(letters)} of sizes {tuple(shape)}, but an "
            "image has y and x, and planes or time points; save one time point as an "
            "image of its own.",
            path=str(path),
            shape=tuple(shape),
        )
    channels = "c" if sizes.get("c", 1) > 1 else ""
    return (*planes[-1:], "y", "x"), "".join([*planes, "y", "x", channels])


def _geometry(
    scales: Mapping[str, Any],
    letters: str,
    units: Mapping[str, str],
    axes: tuple[str, ...],
) -> Geometry:
    """Give the place of the finest level."""
    spacing, origin = np.ones(len(letters)), np.zeros(len(letters))
    steps = [
        *scales["datasets"][0].get("coordinateTransformations", []),
        *scales.get("coordinateTransformations", []),
    ]
    for step in steps:
        if step.get("type") == "scale":
            factors = np.asarray(step["scale"], float)
            spacing, origin = spacing * factors, origin * factors
        elif step.get("type") == "translation":
            origin = origin + np.asarray(step["translation"], float)
    um = [UM_PER_NAME.get(units.get(axis, "")) for axis in axes]
    if um[-1] is None or um[-2] is None:
        return Geometry(axes, (1.0,) * len(axes))
    unit: Unit = "mm" if units["x"] in ("millimeter", "mm") else "um"
    per = {"um": 1.0, "mm": 1e3}[unit]
    factor = [1.0 if each is None else each / per for each in um]
    at = [letters.index(axis) for axis in axes]
    return Geometry(
        axes,
        tuple(float(spacing[i] * f) for i, f in zip(at, factor, strict=True)),
        unit,
        tuple(float(origin[i] * f) for i, f in zip(at, factor, strict=True)),
    )


def _window(channels: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Give what the first channel is shown in."""
    window = channels[0].get("window", {}) if channels else {}
    low, high = window.get("start"), window.get("end")
    return None if low is None or high is None or low >= high else (low, high)


def _missing(path: Path, arrays: Sequence[Any]) -> list[str]:
    """Say how many chunks are not there, which zarr reads as the fill value."""
    n_chunks = sum(each.nchunks for each in arrays)
    if n_chunks > _COUNTED_CHUNKS:
        return []
    n_missing = n_chunks - sum(each.nchunks_initialized for each in arrays)
    if not n_missing:
        return []
    return [
        f"{n_missing} of the {n_chunks} chunks of {path.name} are not there, and read "
        f"as {arrays[0].fill_value}: they were empty, or are lost."
    ]
