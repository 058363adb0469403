"""Folders that keep strokes and boxes: whose they are, and which a crash left.

::

    NAME.sparseseg/
      open.json          who has it open; gone after a clean end
      manifest.json      names, shapes and places of the label layers, and the classes
      training.safetensors   the training's state; gone after a clean end
      boxes.json         boxes, if the session is one of the dock "Boxes"
      labels-1/          of the first label layer
        plane.npy        its only plane; of more: plane-4.npy, plane-0-4.npy, ...

Until the user names a place such a folder lies under the user's data directory. From
then on the strokes are at that place; what stays behind is::

      open.json
      place.json         the folder with the strokes, to find them after a crash
      training.safetensors
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs
import psutil

from napari_sparseseg.annotations.boxes import boxes_to_json
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import OutputError, SparseSegError
from napari_sparseseg.gui import session_boxes
from napari_sparseseg.gui.planes import PlaneKey
from napari_sparseseg.gui.session_boxes import (
    check_version,
    has_boxes,
    read_kept_boxes,
)
from napari_sparseseg.io.atomic import write_text_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box

#: Of the manifest; others are refused.
VERSION = 1

SUFFIX = ".sparseseg"
_FORMAT = "labels of napari-sparseseg"
_OPEN = "open.json"
_MANIFEST = "manifest.json"
_PLACE = "place.json"
_CHECKPOINT = "training.safetensors"

# Another napari may just be making a folder that is not older.
_FRESH_S = 60.0

# What another machine has not touched for so long is not open there any more; this one
# may have got another name.
_LEFT_S = 24 * 3600.0

# Files that this process has written where the user wanted them: hashes of the labels
# or boxes, and of the file.
_SAVED: dict[Path, tuple[str, str]] = {}


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
    """

    folder: str
    name: str
    image: str
    shape: tuple[int, ...]
    dtype: str
    placement: Mapping[str, Any] = field(default_factory=dict)
    present: bool = True


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
    """All labels of a session and their classes."""

    classes: ClassTable
    labels: tuple[RestoredLabels, ...]


def default_root() -> Path:
    """Give the folder of sessions under the user's data directory."""
    place = platformdirs.user_data_path("napari-sparseseg", appauthor=False)
    return place / "sessions"


def new_folder(root: Path | None = None) -> Path:
    """Name a session folder after the time, which tells nothing about a patient.

    Parameters
    ----------
    root
        Where; None: `default_root`.

    Returns
    -------
    Path
        That does not exist yet.
    """
    place = root or default_root()
    stem = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    candidate = place / f"{stem}{SUFFIX}"
    number = 2
    while candidate.exists():
        candidate = place / f"{stem}-{number}{SUFFIX}"
        number += 1
    return candidate


def take(folder: Path, *, opened: bool = False) -> None:
    """Make a folder and mark it as open in this process.

    Parameters
    ----------
    folder
        Of a new session.
    opened
        Whether it may hold the labels of another session, which were opened.

    Raises
    ------
    OutputError
        If it holds a session already, another process has it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if has_session(folder) and not opened:
            raise OutputError(
                f"{folder} holds the labels of another session; open them, or choose "
                "another name.",
                path=str(folder),
            )
        if not is_in_use(folder):
            (folder / _OPEN).unlink(missing_ok=True)
        with (folder / _OPEN).open("x", encoding="utf-8") as file:
            json.dump(_this_process(), file)
    except FileExistsError as error:
        raise OutputError(
            f"{folder} is in use by another napari, or is no folder; choose another "
            "name.",
            path=str(folder),
        ) from error
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made: {error.strerror or error}; choose another "
            "folder for the labels.",
            path=str(folder),
        ) from error


def release(folder: Path) -> None:
    """Take the mark "open" away: the folder is not offered after a crash any more.

    Raises
    ------
    OutputError
        If that is not allowed.
    """
    try:
        (folder / _OPEN).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be closed: {error.strerror or error}; its labels are "
            "kept and will be offered again.",
            path=str(folder),
        ) from error


def remove(folder: Path) -> None:
    """Delete a session folder of ours, unless there is more in it."""
    remove_labels(folder)
    with contextlib.suppress(OSError):
        for name in (_CHECKPOINT, _PLACE, session_boxes.FILE, _OPEN):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def leave(place: Path) -> None:
    """Delete the labels at a place that the user has named, and what marks it ours."""
    remove_labels(place)
    with contextlib.suppress(OSError):
        (place / _OPEN).unlink(missing_ok=True)
        place.rmdir()


def remove_labels(folder: Path) -> None:
    """Delete the labels of a session folder; who has it open stays."""
    ours = label_folders(folder)
    # First: without it the folder holds no session any more.
    with contextlib.suppress(OSError):
        (folder / _MANIFEST).unlink(missing_ok=True)
    for each in ours:
        shutil.rmtree(each, ignore_errors=True)


def label_folders(folder: Path) -> list[Path]:
    """List the folders of layers in a session folder; others may be the user's."""
    return [each for each in folder.glob("labels-*") if number_of(each.name)]


def number_of(folder: str) -> int:
    """Return the number of a layer's folder, 0 of another folder."""
    digits = folder.removeprefix("labels-")
    return int(digits) if digits.isdecimal() else 0


def is_named(folder: Path) -> bool:
    """Tell whether a session folder lies where the user wanted it."""
    return folder.resolve().parent != default_root().resolve()


def has_session(folder: Path) -> bool:
    """Tell whether a folder holds labels that can be opened."""
    return (folder / _MANIFEST).exists()


def note_place(folder: Path, place: Path) -> None:
    """Note in a session folder that its labels are in another one.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    text = json.dumps({"folder": str(place.resolve())})
    write_text_atomically(folder / _PLACE, text)


def _place_of(folder: Path) -> Path:
    """Return the folder that has the labels of a session: mostly its own.

    The note counts once the labels here are given up: not before all are there.
    """
    if has_session(folder):
        return folder
    try:
        noted = json.loads((folder / _PLACE).read_text(encoding="utf-8"))
        return Path(noted["folder"])
    except (OSError, ValueError, LookupError, TypeError):
        return folder


def is_in_use(folder: Path) -> bool:
    """Tell whether a process that lives has the folder open.

    What a process on another machine has open counts as in use for a day after its
    last stroke.
    """
    try:
        owner = json.loads((folder / _OPEN).read_text(encoding="utf-8"))
        if owner["host"] != platform.node():
            return time.time() - last_change(folder) < _LEFT_S
        process = psutil.Process(owner["pid"])
        # The number of a process that has ended is given to others.
        same = abs(process.create_time() - owner["started"]) < 1
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (OSError, ValueError, LookupError, TypeError, psutil.Error):
        return False


def last_change(folder: Path) -> float:
    """Return when a session was opened or a stroke or box last reached its folder.

    Raises
    ------
    OSError
        If it is not open.
    """
    files = [*folder.glob("labels-*/plane*.npy"), *folder.glob(session_boxes.FILE)]
    return max((folder / _OPEN).stat().st_mtime, *(f.stat().st_mtime for f in files))


def find_crashed(root: Path | None = None, *, boxes: bool = False) -> list[Path]:
    """List session folders whose process died without closing them.

    Parameters
    ----------
    root
        The folder to look in; None: `default_root`.
    boxes
        Whether those with boxes are listed, or those with labels alone.

    Returns
    -------
    list of Path
        The newest first.
    """
    places = {_place_of(folder) for folder in _dead(root)}
    found = [
        each for each in places if _is_left_open(each) and has_boxes(each) == boxes
    ]
    return sorted(found, key=last_change, reverse=True)


def remove_empty(root: Path | None = None) -> None:
    """Delete session folders without labels and boxes whose process died."""
    for folder in _dead(root):
        age = time.time() - (folder / _OPEN).stat().st_mtime
        place = _place_of(folder)
        # A place may be on a disk that is not there today.
        if age > _FRESH_S and place.exists() and not _is_left_open(place):
            remove(folder)


def _dead(root: Path | None) -> list[Path]:
    folders = (root or default_root()).glob(f"*{SUFFIX}")
    return [folder for folder in folders if _has_died(folder)]


def _has_died(folder: Path) -> bool:
    return (folder / _OPEN).exists() and not is_in_use(folder)


def _is_left_open(folder: Path) -> bool:
    return _has_died(folder) and has_work(folder)


def has_work(folder: Path) -> bool:
    """Tell whether there are labels or boxes in a session folder."""
    return has_labels(folder) or has_boxes(folder)


def has_labels(folder: Path) -> bool:
    """Tell whether anything is annotated in a session folder."""
    return any(map(_is_annotated, folder.glob("labels-*/plane*.npy")))


def _is_annotated(plane: Path) -> bool:
    try:
        return bool(np.load(plane, allow_pickle=False).any())
    except (OSError, ValueError, EOFError):
        return True  # what is damaged may still be of use to somebody


def note_saved(path: Path, digest: str) -> None:
    """Remember what the user has written to a file.

    Parameters
    ----------
    path
        Of the file; what was there before is forgotten.
    digest
        `hash_of_labels` or `hash_of_boxes` of what is in it.
    """
    _SAVED[path.resolve()] = (digest, _hash_of_file(path))


def is_saved(folder: Path) -> bool:
    """Tell whether all labels and boxes of a session are in files as they are now."""
    try:
        there = {
            digest
            for path, (digest, file) in _SAVED.items()
            if path.exists() and _hash_of_file(path) == file
        }
        if not there:
            return False
        labels = restore(folder).labels if has_session(folder) else ()
        _, records = read_kept_boxes(folder)
    except (OSError, OutputError):
        return False
    digests = {hash_of_labels(each.data) for each in labels if each.data.any()}
    digests |= {hash_of_boxes(each.boxes) for each in records if each.boxes}
    return there >= digests


def write_manifest(
    folder: Path, layers: list[LayerRecord], classes: ClassTable
) -> None:
    """Write what a session holds, completely or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    data = {
        "format": _FORMAT,
        "version": VERSION,
        "classes": classes.to_json(),
        "layers": [
            {
                "folder": each.folder,
                "name": each.name,
                "image": each.image,
                "shape": list(each.shape),
                "dtype": each.dtype,
                "placement": dict(each.placement),
                "present": each.present,
            }
            for each in layers
        ],
    }
    text = json.dumps(data, indent=1, ensure_ascii=False)
    write_text_atomically(folder / _MANIFEST, text)


def restore(folder: Path) -> RestoredSession:
    """Read the labels of a session; its files stay as they are.

    Parameters
    ----------
    folder
        Of the session, in use or not.

    Returns
    -------
    RestoredSession
        Labels without any annotated plane are all 0.

    Raises
    ------
    OutputError
        If the folder holds no session, or one of another version, or a plane in it
        is damaged.
    """
    classes, records = read_manifest(folder)
    try:
        labels = tuple(_restored(folder, record) for record in records)
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    return RestoredSession(classes, labels)


def read_manifest(folder: Path) -> tuple[ClassTable, list[LayerRecord]]:
    """Read what a session says it holds.

    Raises
    ------
    OutputError
        If the folder holds no session, or one of another version.
    """
    if not has_session(folder):
        raise OutputError(
            f"{folder} holds no strokes of this program; choose a folder whose name "
            f"ends in {SUFFIX}.",
            path=str(folder),
        )
    try:
        data = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        check_version(data, _FORMAT, VERSION, folder)
        classes = ClassTable.from_json(data["classes"])
        records = [
            LayerRecord(**{**each, "shape": tuple(each["shape"])})
            for each in data["layers"]
        ]
    except OutputError:
        raise
    except (OSError, ValueError, LookupError, TypeError, SparseSegError) as error:
        raise _damaged(folder, error) from error
    return classes, records


def _damaged(folder: Path, error: Exception) -> OutputError:
    return OutputError(
        f"The labels in {folder} cannot be restored ({str(error).rstrip('.')}); "
        "each plane is a NumPy file of its own in there and can be opened so.",
        path=str(folder),
    )


def plane_path(folder: Path, plane: PlaneKey) -> Path:
    """Name the file of a plane in the folder of its layer."""
    return folder / f"{'-'.join(['plane', *map(str, plane.index)])}.npy"


def planes_in(folder: Path) -> list[PlaneKey]:
    """List the planes that have a file in the folder of their layer, in order."""
    return sorted(
        PlaneKey(tuple(int(number) for number in path.stem.split("-")[1:]))
        for path in folder.glob("plane*.npy")
    )


def _restored(folder: Path, record: LayerRecord) -> RestoredLabels:
    data = np.zeros(record.shape, record.dtype)
    place = folder / record.folder
    for plane in planes_in(place):
        data[plane.index] = np.load(plane_path(place, plane), allow_pickle=False)
    return RestoredLabels(
        record.name, record.image, data, record.placement, record.present
    )


def hash_of_labels(labels: NDArray[Any]) -> str:
    """Return what labels are known by, (..., y, x) integers from 0 to 65535."""
    digest = hashlib.sha256(str(labels.shape).encode())
    digest.update(np.ascontiguousarray(labels, dtype="<u2").data)
    return digest.hexdigest()


def hash_of_boxes(boxes: Iterable[Box]) -> str:
    """Return what boxes are known by."""
    return hashlib.sha256(json.dumps(boxes_to_json(boxes)).encode()).hexdigest()


def _hash_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "pid": os.getpid(),
        "started": process.create_time(),
        "host": platform.node(),
    }
