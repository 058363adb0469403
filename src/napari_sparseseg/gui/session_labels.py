"""The label layers in a session folder: the manifest, and a file for each plane.

::

    manifest.json      names, shapes, places and planes of the layers, and the classes
    labels-1/          of the first label layer
      plane.npy        its only plane; of more: plane-4.npy, plane-0-4.npy, ...

A plane is a ``.npy`` file whose rows are written in place. Whatever stops that, be it
in the middle of a row, each pixel is the one of before or the one of now.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import OutputError, SparseSegError
from napari_sparseseg.gui.planes import PLACED_BY, PlaneKey
from napari_sparseseg.gui.session_parts import MISREAD, read_part, write_part

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

#: Of the manifest; version 1 did not list the planes.
VERSION = 2

#: Its name.
MANIFEST = "manifest.json"

SUFFIX = ".sparseseg"
_FORMAT = "labels of napari-sparseseg"

_PLANE_FILE = re.compile(r"plane(-\d+)*\.npy")


@dataclass(frozen=True)
class LayerRecord:
    """What the manifest says about a label layer.

    Attributes
    ----------
    folder
        Name of its folder.
    name, image
        Names of the label layer and of its image layer.
    shape
        (..., y, x).
    dtype
        Name of its number type.
    placement
        Scale, translation and so on, as napari takes them.
    present
        False of labels that were deleted or replaced by others of another shape.
    planes
        Indices of those that have a file.
    """

    folder: str
    name: str
    image: str
    shape: tuple[int, ...]
    dtype: str
    placement: Mapping[str, Any] = field(default_factory=dict)
    present: bool = True
    planes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class RestoredLabels:
    """Labels of a session, as they were when its folder was last updated.

    Attributes
    ----------
    name, image
        Names of the label layer and of its image layer.
    data
        (..., y, x) integers, 0 = not annotated.
    placement
        Scale, translation and so on, as napari's layers take them.
    present
        False of labels that the user had deleted or replaced.
    """

    name: str
    image: str
    data: NDArray[Any]
    placement: Mapping[str, Any]
    present: bool


@dataclass(frozen=True)
class RestoredSession:
    """All labels of a session and their classes.

    Attributes
    ----------
    classes, labels
        What was read.
    damaged
        What could not be, by the path of its file in the session, and why.
    """

    classes: ClassTable
    labels: tuple[RestoredLabels, ...]
    damaged: Mapping[str, str] = field(default_factory=dict)


def has_session(folder: Path) -> bool:
    """Tell whether a folder holds labels that can be opened."""
    return (folder / MANIFEST).exists()


def label_folders(folder: Path) -> list[Path]:
    """List the folders of layers in a session folder; others may be the user's."""
    return [each for each in folder.glob("labels-*") if number_of(each.name)]


def number_of(folder: str) -> int:
    """Return the number of a layer's folder, 0 of another folder."""
    digits = folder.removeprefix("labels-")
    return int(digits) if digits.isdecimal() and digits.isascii() else 0


def plane_path(folder: Path, plane: PlaneKey) -> Path:
    """Name the file of a plane in the folder of its layer."""
    return folder / f"{'-'.join(['plane', *map(str, plane.index)])}.npy"


def planes_in(folder: Path) -> list[PlaneKey]:
    """List the planes that have a file in the folder of their layer, in order."""
    return sorted(
        PlaneKey(tuple(int(number) for number in path.stem.split("-")[1:]))
        for path in folder.glob("plane*.npy")
        if _PLANE_FILE.fullmatch(path.name)
    )


def write_manifest(
    folder: Path, layers: list[LayerRecord], classes: ClassTable
) -> None:
    """Write what a session holds, completely or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    records = [
        {
            "folder": each.folder,
            "name": each.name,
            "image": each.image,
            "shape": list(each.shape),
            "dtype": each.dtype,
            "placement": dict(each.placement),
            "present": each.present,
            "planes": [list(index) for index in each.planes],
        }
        for each in layers
    ]
    content = {"classes": classes.to_json(), "layers": records}
    write_part(folder / MANIFEST, _FORMAT, VERSION, content)


def read_manifest(folder: Path) -> tuple[ClassTable, list[LayerRecord]]:
    """Read what a session says it holds.

    Raises
    ------
    OutputError
        If the folder holds no session, or one of a newer version, or one that names
        files outside of it.
    """
    if not has_session(folder):
        raise OutputError(
            f"{folder} holds no strokes of this program; choose a folder whose name "
            f"ends in {SUFFIX}.",
            path=str(folder),
        )
    try:
        data = read_part(folder / MANIFEST, _FORMAT, VERSION)
        classes = ClassTable.from_json(data["classes"])
        records = [_record_from(each) for each in data["layers"]]
    except OutputError:
        raise
    except (*MISREAD, SparseSegError) as error:
        raise _damaged(folder, error) from error
    for record in records:
        _check_inside(folder, record)
    return classes, records


def restore(folder: Path) -> RestoredSession:
    """Read the labels of a session; its files stay as they are.

    Parameters
    ----------
    folder
        Of the session, in use or not.

    Returns
    -------
    RestoredSession
        Labels without any annotated plane are all 0. What is damaged is left out, and
        named; of a damaged manifest the planes are there all the same, as layers of
        the size of their planes, without classes.

    Raises
    ------
    OutputError
        If the folder holds no session, or one of a newer version, or one that names
        files outside of it.
    """
    damaged: dict[str, str] = {}
    try:
        classes, records = read_manifest(folder)
    except OutputError as error:
        if not isinstance(error.__cause__, (*MISREAD, SparseSegError)):
            raise
        records = _found_in(folder)
        if not records:
            raise
        damaged[MANIFEST] = _reason(error.__cause__)
        classes = ClassTable()
    labels = []
    for record in records:
        try:
            labels.append(_restored(folder, record, damaged))
        except (*MISREAD, MemoryError) as error:
            damaged[record.folder] = _reason(error)
    return RestoredSession(classes, tuple(labels), damaged)


def _record_from(data: Mapping[str, Any]) -> LayerRecord:
    values = {
        **data,
        "name": str(data["name"]),
        "image": str(data["image"]),
        "present": bool(data["present"]),
        "shape": tuple(int(size) for size in data["shape"]),
        "planes": tuple(tuple(map(int, index)) for index in data.get("planes", ())),
    }
    # What napari's layers take besides is none of its business.
    unknown = set(values["placement"]) - {*PLACED_BY, "axis_labels"}
    if (
        unknown
        or min(values["shape"]) < 1
        or np.dtype(values["dtype"]).kind not in "iu"
    ):
        raise ValueError(f"the layer {values['name']!r} is no label layer")
    return LayerRecord(**values)


def _check_inside(folder: Path, record: LayerRecord) -> None:
    """Refuse a layer whose files would be elsewhere.

    Raises
    ------
    OutputError
        If they would.
    """
    if not number_of(record.folder) or (folder / record.folder).is_symlink():
        raise OutputError(
            f"{folder.name} says that the labels '{record.name}' are in "
            f"'{record.folder}', which is outside of it; expected labels-1, labels-2 "
            "and so on, so it was not made by this program and is not opened.",
            path=str(folder),
            folder=record.folder,
        )


def _damaged(folder: Path, error: Exception) -> OutputError:
    return OutputError(
        f"The labels in {folder} cannot be restored ({_reason(error)}); each plane is "
        "a NumPy file of its own in there and can be opened so.",
        path=str(folder),
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return "it is no JSON"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = " ".join(str(error).split()).rstrip(".")
    return words or type(error).__name__


def _restored(
    folder: Path, record: LayerRecord, damaged: dict[str, str]
) -> RestoredLabels:
    data = np.zeros(record.shape, record.dtype)
    place = folder / record.folder
    there = planes_in(place)
    for plane in {*there, *map(PlaneKey, record.planes)}:
        path = plane_path(place, plane)
        try:
            pixels = _plane(path, record.shape[-2:])
            if len(plane.index) != data.ndim - 2:
                raise ValueError(f"labels of {record.shape} have no such plane")
            data[plane.index] = pixels
        except MISREAD as error:
            damaged[f"{record.folder}/{path.name}"] = _reason(error)
    return RestoredLabels(
        record.name, record.image, data, record.placement, record.present
    )


def _plane(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    """Read a plane.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is none; the message says why.
    """
    if path.is_symlink():
        raise ValueError("it is a link to another place")
    try:
        pixels: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError("it is no complete array") from error
    if pixels.shape != shape or pixels.dtype.kind != "u":
        raise ValueError(
            f"it holds {pixels.dtype} of {pixels.shape} where labels of {shape} are "
            "expected"
        )
    return pixels


def _found_in(folder: Path) -> list[LayerRecord]:
    """Conclude from its planes what a session holds whose manifest is damaged."""
    found = []
    for place in sorted(label_folders(folder), key=lambda each: number_of(each.name)):
        for plane in () if place.is_symlink() else planes_in(place):
            try:
                pixels = np.load(plane_path(place, plane), "r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                continue
            grid = np.max([key.index for key in planes_in(place)], axis=0) + 1
            shape = (*map(int, grid), *pixels.shape)
            found.append(LayerRecord(place.name, place.name, "", shape, "uint16"))
            break
    return found
