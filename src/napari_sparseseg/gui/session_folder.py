"""Session folders: whose they are, and which a crash left.

::

    NAME.sparseseg/
      open.json          who has it open; gone after a clean end
      open.lock          locked by that process while it lives
      manifest.json      the label layers (`session_labels`), with their planes in
      labels-1/ ...
      images.json        where the images are (`session_images`)
      training.json      settings, and the models that were saved (`session_training`)
      training.safetensors   the training's state; gone after a clean end
      boxes.json         boxes, if the session is one of the dock "Boxes"

Until the user names a place such a folder lies under the user's data directory. From
then on the session is at that place; what stays behind is::

      open.json, open.lock
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
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs
import psutil

from napari_sparseseg.annotations.boxes import boxes_to_json
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import (
    session_boxes,
    session_images,
    session_list,
    session_lock,
    session_training,
)
from napari_sparseseg.gui.session_boxes import has_boxes, read_kept_boxes
from napari_sparseseg.gui.session_labels import (
    MANIFEST,
    SUFFIX,
    has_session,
    label_folders,
    restore,
)
from napari_sparseseg.gui.session_list import is_list_worth_keeping
from napari_sparseseg.gui.session_lock import real_path
from napari_sparseseg.io.atomic import write_text_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box

_OPEN = "open.json"
_PLACE = "place.json"
_CHECKPOINT = "training.safetensors"

#: What goes with the labels of a session wherever they are moved.
COMPANIONS = (session_images.FILE, session_training.FILE, session_list.FILE)

# Another napari may just be making a folder that is not older.
_FRESH_S = 60.0

# What another machine has not touched for so long is not open there any more; this one
# may have got another name.
_LEFT_S = 24 * 3600.0

# Files that this process has written where the user wanted them: hashes of the labels
# or boxes, and of the file.
_SAVED: dict[Path, tuple[str, str]] = {}


def default_root() -> Path:
    """Give the folder of sessions under the user's data directory."""
    place = platformdirs.user_data_path("napari-sparseseg", appauthor=False)
    return place / "sessions"


def new_folder(root: Path | None = None) -> Path:
    """Make a session folder, named after the time: that says nothing of a patient.

    Parameters
    ----------
    root
        Where; None: `default_root`.

    Returns
    -------
    Path
        That did not exist before; where it cannot be made it does not exist either.
    """
    place = root or default_root()
    stem = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    candidate = place / f"{stem}{SUFFIX}"
    number = 2
    while not _is_made(candidate):
        candidate = place / f"{stem}-{number}{SUFFIX}"
        number += 1
    return candidate


def _is_made(folder: Path) -> bool:
    """Make a folder; tell whether no other napari has just done so."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return not folder.exists()  # a file where its parent should be
    except OSError:
        return True  # whoever takes it is told why
    return True


def take(folder: Path, *, opened: bool = False, window: int = 0) -> None:
    """Make a folder and mark it as open in this process.

    Parameters
    ----------
    folder
        Of a new session.
    opened
        Whether it may hold the labels of another session, which were opened.
    window
        Number of the window, by which `left_beside` finds what it had open besides.

    Raises
    ------
    OutputError
        If it holds a session already, another process has it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_session(folder, opened)
        if is_in_use(folder) or not session_lock.lock(folder):
            raise FileExistsError
        try:
            # Another may have come and gone meanwhile.
            _refuse_session(folder, opened)
            text = json.dumps(_this_process() | {"window": window})
            write_text_atomically(folder / _OPEN, text)
        except BaseException:
            session_lock.unlock(folder)
            raise
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


def _refuse_session(folder: Path, opened: bool) -> None:
    if has_session(folder) and not opened:
        raise OutputError(
            f"{folder} holds the labels of another session; open them, or choose "
            "another name.",
            path=str(folder),
        )


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
    finally:
        session_lock.unlock(folder)


def remove(folder: Path) -> None:
    """Delete a session folder of ours, unless there is more in it."""
    remove_labels(folder)
    with contextlib.suppress(OSError):
        for name in (*COMPANIONS, _CHECKPOINT, _PLACE, session_boxes.FILE, _OPEN):
            (folder / name).unlink(missing_ok=True)
    session_lock.unlock(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()


def leave(place: Path) -> None:
    """Delete the labels at a place that the user has named, and what marks it ours."""
    remove_labels(place)
    with contextlib.suppress(OSError):
        for name in (*COMPANIONS, _OPEN):
            (place / name).unlink(missing_ok=True)
    session_lock.unlock(place)
    with contextlib.suppress(OSError):
        place.rmdir()


def remove_labels(folder: Path) -> None:
    """Delete the labels of a session folder; who has it open stays."""
    ours = label_folders(folder)
    # First: without it the folder holds no session any more.
    with contextlib.suppress(OSError):
        (folder / MANIFEST).unlink(missing_ok=True)
    for each in ours:
        shutil.rmtree(each, ignore_errors=True)


def is_named(folder: Path) -> bool:
    """Tell whether a session folder lies where the user wanted it."""
    return real_path(folder).parent != real_path(default_root())


def note_place(folder: Path, place: Path) -> None:
    """Note in a session folder that its labels are in another one.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    text = json.dumps({"folder": str(real_path(place))})
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

    Its lock says so; where the file system knows no locks, or does not show those of
    other machines, its mark does. What a process on another machine has marked counts
    as in use for a day after its last stroke.
    """
    if session_lock.is_locked(folder):
        return True
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
    """Return when a session was opened, or its strokes, boxes or list last changed.

    Raises
    ------
    OSError
        If it is not open.
    """
    names = ("labels-*/plane*.npy", session_boxes.FILE, session_list.FILE)
    files = [folder / _OPEN, *(file for name in names for file in folder.glob(name))]
    return max(file.stat().st_mtime for file in files)


def find_crashed(root: Path | None = None, *, boxes: bool = False) -> list[Path]:
    """List session folders whose process died without closing them.

    Parameters
    ----------
    root
        The folder to look in; None: `default_root`.
    boxes
        Whether those with boxes are listed, or those without.

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


def left_beside(folder: Path, root: Path | None = None) -> list[Path]:
    """List what else the window had open whose session is in a folder, as it died."""
    owner = _owner_of(folder)
    return [
        each
        for each in [*find_crashed(root), *find_crashed(root, boxes=True)]
        if each != folder and owner is not None and _owner_of(each) == owner
    ]


def _owner_of(folder: Path) -> dict[str, Any] | None:
    """Return which window of which process has, or had, a session; None: unknown."""
    try:
        owner: dict[str, Any] = json.loads((folder / _OPEN).read_text(encoding="utf-8"))
        return owner
    except (OSError, ValueError):
        return None


def remove_empty(root: Path | None = None) -> None:
    """Delete session folders without any work in them whose process died."""
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
    """Tell whether there are labels, boxes or a list of images in a session folder."""
    return has_labels(folder) or has_boxes(folder) or is_list_worth_keeping(folder)


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
    _SAVED[real_path(path)] = (digest, _hash_of_file(path))


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
