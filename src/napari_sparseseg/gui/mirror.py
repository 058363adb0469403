"""A copy on disk of each label layer: a journal for the user, input for the engine.

The layers keep their own arrays. Each plane that was ever annotated has a ``.npy`` file
that is compared with the layer and given those rows that differ. Files are read through
memory maps, but written through plain writes: where the disk is full these raise an
error, while a store to mapped memory would end the process.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.annotations.strokes import narrow_labels
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.disk_thread import DiskThread
from napari_sparseseg.gui.label_file import (
    Sweep,
    create_plane,
    stored_plane,
    write_rows,
)
from napari_sparseseg.gui.planes import (
    PlaneKey,
    all_planes,
    level_shape,
    plain_placement,
    read_label_plane,
)
from napari_sparseseg.gui.session_folder import (
    COMPANIONS,
    has_work,
    is_saved,
    leave,
    note_place,
    release,
    remove,
    remove_labels,
    take,
)
from napari_sparseseg.gui.session_labels import (
    LayerRecord,
    has_session,
    label_folders,
    number_of,
    plane_path,
    read_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_sparseseg.engine.messages import Region


@dataclass(frozen=True, slots=True)
class PlaneChange:
    """A plane whose file was brought up to date.

    Attributes
    ----------
    plane
        Which plane.
    region
        (y0, x0, y1, x1) of the smallest rectangle around what changed.
    path
        File of (y, x) uint8 or uint16.
    """

    plane: PlaneKey
    region: Region
    path: Path


@dataclass(slots=True)
class _Entry:
    """What is known about a layer.

    Changes stay in here until they are told: an error in a later plane does not hide
    them. So do planes that are due, in order, until they are compared.
    """

    record: LayerRecord
    planes: set[PlaneKey] = field(default_factory=set)
    due: dict[PlaneKey, Sweep] = field(default_factory=dict)
    changes: list[PlaneChange] = field(default_factory=list)
    data: ref[Any] | None = None


class Mirror:
    """Copies of label layers in a session folder.

    Parameters
    ----------
    folder
        Of the session; made here.
    classes
        Their class table.
    window
        Number of the window that has the layers.

    Attributes
    ----------
    folder
        That has the copies now.
    first_folder
        The one that it began with: stays until the end, with what is not of the user.

    Raises
    ------
    OutputError
        If the folder cannot be made, is in use, or holds a session already.
    """

    def __init__(
        self, folder: Path, classes: ClassTable | None = None, window: int = 0
    ) -> None:
        take(folder, window=window)
        self._window = window
        self.folder = self.first_folder = folder
        self._classes = classes or ClassTable()
        self._entries: WeakKeyDictionary[Labels, _Entry] = WeakKeyDictionary()
        self._records: dict[str, LayerRecord] = {}
        self._numbers = itertools.count(1)
        self._disk = DiskThread()
        # Whether the manifest has all records, as far as is known.
        self._is_noted = True

    def use_classes(self, classes: ClassTable) -> None:
        """Keep this class table from now on.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if classes != self._classes:
            self._disk.wait()
            write_manifest(self.folder, list(self._records.values()), classes)
            self._classes = classes

    def update(
        self,
        layer: Labels,
        image: str = "",
        shown: PlaneKey | None = None,
        until: float | None = None,
    ) -> tuple[PlaneChange, ...]:
        """Bring the files of a layer up to date.

        Parameters
        ----------
        layer
            A label layer of one resolution. Where its shape is another one than
            before, the old files are kept apart.
        image
            Name of its image layer; empty: as before.
        shown
            The plane on the canvas. Then only this one and those annotated before are
            compared, which is what painting, undo and redo can change; all planes are
            where the layer has a new array, or the brush reaches several planes. None:
            all planes.
        until
            Stop at that time of `time.perf_counter`, having compared some rows at
            least, those of the plane on the canvas first; what is left is done by
            `go_on`. None: compare all.

        Returns
        -------
        tuple of PlaneChange
            What has changed since the last call, in the order of comparison.

        Raises
        ------
        LayerError
            If the layer is multiscale or cannot be read.
        LabelError
            If it has values that are no class values.
        OutputError
            If a file cannot be written. The layer is as it was, and the next call
            tries again.
        """
        entry = self._entry_of(layer, image)
        others = self._planes_to_compare(entry, layer, shown)
        first = [shown] if shown in others else []
        for plane in others:
            entry.due.setdefault(plane, Sweep()).mark()
        # Before the others what was due already, so that all have their turn.
        entry.due = {plane: entry.due[plane] for plane in [*first, *entry.due]}
        entry.data = _weak(layer.data)
        return self._compare(entry, layer, until)

    def go_on(
        self, layer: Labels, until: float | None = None
    ) -> tuple[PlaneChange, ...]:
        """Compare what `update` has left, as it does."""
        entry = self._entries.get(layer)
        if entry is None or entry.record.shape != level_shape(layer):
            entry = self._entry_of(layer, "")
        return self._compare(entry, layer, until)

    def is_due(self, layer: Labels) -> bool:
        """Tell whether `update` has left planes of a layer, or failed on one."""
        entry = self._entries.get(layer)
        return entry is not None and bool(entry.due)

    def knows(self, layer: Labels) -> bool:
        """Tell whether a layer was ever brought up to date, and not forgotten."""
        return layer in self._entries

    def annotated(self, layer: Labels) -> dict[PlaneKey, Path]:
        """Give the files of all planes of a layer that ever had a label, in order."""
        entry = self._entries.get(layer)
        if entry is None:
            return {}
        place = self._place(entry)
        return {plane: plane_path(place, plane) for plane in sorted(entry.planes)}

    def forget(self, layer: Labels) -> None:
        """Stop to follow a layer that was deleted; its files are kept.

        Raises
        ------
        OutputError
            If that cannot be noted.
        """
        entry = self._entries.pop(layer, None)
        if entry is not None:
            self._note(replace(entry.record, present=False))

    def drop(self, layer: Labels) -> None:
        """Stop to follow a layer, and delete its files: it is kept elsewhere.

        Raises
        ------
        OutputError
            If that cannot be noted.
        """
        entry = self._entries.pop(layer, None)
        if entry is None:
            return
        self._disk.wait()
        records = dict(self._records)
        records.pop(entry.record.folder, None)
        write_manifest(self.folder, list(records.values()), self._classes)
        self._records = records
        shutil.rmtree(self._place(entry), ignore_errors=True)

    @property
    def has_place(self) -> bool:
        """Whether the copies are where the user wanted them."""
        return self.folder != self.first_folder

    def move(self, folder: Path, *, opened: bool = False) -> None:
        """Have the copies at another place from now on.

        All are written there before any is deleted here, so whatever goes wrong they
        are at one of the two. All planes are due then: what could not be read here, as
        after the disk was taken away, is written from the layers.

        Parameters
        ----------
        folder
            That the user has named; made here.
        opened
            Whether it holds the labels of another session, which were opened as layers
            and are here by now. They take the place of those, but for labels that were
            deleted before, which stay. Only before the user has named a place.

        Raises
        ------
        OutputError
            If the folder cannot be made or written, is in use, or holds a session that
            was not opened. Everything is as it was then.
        """
        self._disk.wait()
        before = self.folder
        deleted = _records_of_deleted(folder) if opened else {}
        there = list(folder.glob("labels-*"))
        names = _free_names(self._records, there)
        moved = [
            replace(record, folder=names[record.folder])
            for record in self._records.values()
        ]
        records = deleted | {record.folder: record for record in moved}
        replaced = label_folders(folder) if opened else []
        take(folder, opened=opened, window=self._window)
        try:
            for name, new in names.items():
                _copy_planes(before / name, folder / new)
            for name in COMPANIONS:
                # Those of what was opened count until ours are written.
                if not opened and (before / name).exists():
                    _copy(before / name, folder / name)
            if self.has_place:
                write_manifest(folder, list(records.values()), self._classes)
                note_place(self.first_folder, folder)
            else:
                note_place(self.first_folder, folder)
                write_manifest(folder, list(records.values()), self._classes)
        except (OSError, OutputError) as error:
            if opened:
                for new in names.values():
                    shutil.rmtree(folder / new, ignore_errors=True)
                release(folder)
            else:
                leave(folder)
            reason = error.strerror if isinstance(error, OSError) else None
            raise OutputError(
                f"The strokes cannot be kept in {folder} ({reason or error}); they are "
                f"still in {before}, so choose another place.",
                path=str(folder),
            ) from error
        for entry in self._entries.values():
            entry.record = records[names[entry.record.folder]]
            place = folder / entry.record.folder
            entry.changes = [
                replace(each, path=plane_path(place, each.plane))
                for each in entry.changes
            ]
            entry.due = {
                plane: Sweep() for plane in [*entry.due, *sorted(entry.planes)]
            }
        self.folder, self._records = folder, records
        self._numbers = itertools.count(1 + max(map(number_of, records), default=0))
        if before == self.first_folder:
            remove_labels(before)
        else:
            leave(before)
        for each in replaced:
            if each.name not in deleted:
                shutil.rmtree(each, ignore_errors=True)

    def close(self, keep: bool = True) -> None:
        """End cleanly: the folder is not offered for restoring.

        Parameters
        ----------
        keep
            Whether labels and boxes are kept. A folder is deleted anyway if it has
            none, or if the user has not named it and all were saved by our writers as
            they are.

        Raises
        ------
        OutputError
            If the folder cannot be marked as closed.
        """
        self._disk.wait()
        is_needed = self.has_place or not is_saved(self.folder)
        is_kept = keep and has_work(self.folder) and is_needed
        if is_kept:
            release(self.folder)
        elif self.has_place:
            leave(self.folder)
        if self.has_place or not is_kept:
            remove(self.first_folder)

    def _entry_of(self, layer: Labels, image: str) -> _Entry:
        """Give what is known about a layer, and note what is new.

        Raises
        ------
        OutputError
            If that cannot be written, or something in the thread could not.
        """
        failure = self._disk.take_failure()
        if failure is not None:
            self._is_noted = False
            raise _cannot_write(self.folder, failure) from failure
        entry = self._entries.get(layer)
        if entry is not None and entry.record.shape != level_shape(layer):
            self.forget(layer)
            entry = None
        if entry is None:
            folder = f"labels-{next(self._numbers)}"
            record = _record_of(layer, image, folder)
            entry = _Entry(record)
        else:
            folder = entry.record.folder
            image = image or entry.record.image
            record = _record_of(layer, image, folder, entry.planes)
        is_noted = self._is_noted and has_session(self.folder)
        if self._records.get(folder) != record or not is_noted:
            # Before the first plane, so that no plane is left without its layer.
            self._note(record)
        entry.record = record
        self._entries[layer] = entry
        return entry

    @staticmethod
    def _planes_to_compare(
        entry: _Entry, layer: Labels, shown: PlaneKey | None
    ) -> list[PlaneKey]:
        same_array = entry.data is not None and entry.data() is layer.data
        if shown is None or not same_array or layer.n_edit_dimensions > 2:
            return all_planes(layer)
        return sorted(entry.planes | {shown})

    def _compare(
        self, entry: _Entry, layer: Labels, until: float | None
    ) -> tuple[PlaneChange, ...]:
        n_planes = len(entry.planes)
        while entry.due:
            plane, sweep = next(iter(entry.due.items()))
            if not self._bring(entry, layer, plane, until):
                break
            if sweep.again:
                entry.due[plane] = Sweep()
            else:
                del entry.due[plane]
            if until is not None and time.perf_counter() >= until:
                break
        if len(entry.planes) > n_planes:
            self._note_planes(entry)
        changes, entry.changes = tuple(entry.changes), []
        return changes

    def _bring(
        self, entry: _Entry, layer: Labels, plane: PlaneKey, until: float | None
    ) -> bool:
        """Compare more of a plane; write what differs, and tell, once all is."""
        pixels, sweep = read_label_plane(layer, plane), entry.due[plane]
        path = plane_path(self._place(entry), plane)
        stored = stored_plane(path, pixels.shape) if plane in entry.planes else None
        # What is read for it would be read anew each time.
        in_memory = isinstance(layer.data, np.ndarray)
        if not sweep.go_on(pixels, stored, until if in_memory else None):
            return False
        if sweep.region is not None:
            # Should it fail, the plane is compared from the top.
            entry.due[plane] = Sweep()
            self._write(entry, path, plane, pixels, stored, sweep.region)
            entry.changes.append(PlaneChange(plane, sweep.region, path))
        return True

    def _write(
        self,
        entry: _Entry,
        path: Path,
        plane: PlaneKey,
        pixels: NDArray[Any],
        stored: NDArray[Any] | None,
        region: Region,
    ) -> None:
        """Write the rows of a region."""
        y0, _, y1, _ = region
        rows = narrow_labels(pixels[y0:y1], f"label layer '{entry.record.name}'")
        try:
            if stored is None or not np.can_cast(rows.dtype, stored.dtype):
                # Windows replaces no file that is mapped.
                old, stored = None if stored is None else np.array(stored), None
                create_plane(path, pixels.shape, rows.dtype, old)
                entry.planes.add(plane)
            write_rows(path, y0, rows)
            self._disk.flush(path)
        except OSError as error:
            raise _cannot_write(path, error) from error
        except OutputError as error:
            if isinstance(error.__cause__, OSError):
                raise _cannot_write(path, error.__cause__) from error
            raise

    def _place(self, entry: _Entry) -> Path:
        return self.folder / entry.record.folder

    def _note_planes(self, entry: _Entry) -> None:
        """Have new planes in the manifest soon; they are there all the same."""
        planes = tuple(plane.index for plane in sorted(entry.planes))
        entry.record = replace(entry.record, planes=planes)
        self._records = {**self._records, entry.record.folder: entry.record}
        records = list(self._records.values())
        task = partial(write_manifest, self.folder, records, self._classes)
        self._disk.do("manifest", task)

    def _note(self, record: LayerRecord) -> None:
        """Keep a record here once it is in the manifest."""
        self._disk.wait()
        records = {**self._records, record.folder: record}
        write_manifest(self.folder, list(records.values()), self._classes)
        self._records, self._is_noted = records, True


def _records_of_deleted(folder: Path) -> dict[str, LayerRecord]:
    _, records = read_manifest(folder)
    return {record.folder: record for record in records if not record.present}


def _free_names(records: Iterable[str], taken: Iterable[Path]) -> dict[str, str]:
    """Give each folder of a layer a name that is not *taken* at another place."""
    first = 1 + max((number_of(place.name) for place in taken), default=0)
    return {name: f"labels-{number}" for number, name in enumerate(records, first)}


def _copy_planes(source: Path, target: Path) -> None:
    """Copy the planes of a layer."""
    for plane in sorted(source.glob("plane*.npy")):
        target.mkdir(exist_ok=True)
        _copy(plane, target / plane.name)


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that it outlasts a loss of power."""
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _record_of(
    layer: Labels, image: str, folder: str, planes: Iterable[PlaneKey] = ()
) -> LayerRecord:
    return LayerRecord(
        folder,
        layer.name,
        image,
        level_shape(layer),
        np.dtype(layer.dtype).name,
        plain_placement(layer),
        planes=tuple(plane.index for plane in sorted(planes)),
    )


def _weak(data: Any) -> ref[Any] | None:
    """Refer to an array without keeping it; None where its type does not allow it."""
    try:
        return ref(data)
    except TypeError:
        return None


def _cannot_write(path: Path, error: Exception) -> OutputError:
    cause = error.__cause__ if isinstance(error, OutputError) else error
    reason = getattr(cause, "strerror", None) or str(cause) or type(error).__name__
    return OutputError(
        f"The strokes cannot be copied to {path} ({reason}); they are still in their "
        "layer, so save it, and free some space or choose another folder.",
        path=str(path),
    )
