"""Images of the list that are files: read one by one, and not opened as layers.

Of each the annotated planes are brought to ``.npy`` files on disk, which the engine
maps, and their strokes are counted; then the pixels leave the memory. So a list of
hundreds of images takes the memory of one.
"""

from __future__ import annotations

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from qtpy.QtCore import QObject, Signal

from napari_sparseseg.annotations.classes import ClassTable, find_class_table
from napari_sparseseg.annotations.strokes import LabelCount, count_labels
from napari_sparseseg.errors import ImageError
from napari_sparseseg.gui.annotations import Entry
from napari_sparseseg.gui.log import sentence_on
from napari_sparseseg.gui.parts import once
from napari_sparseseg.gui.plane_files import save_plane, temporary_folder
from napari_sparseseg.gui.planes import PlaneKey
from napari_sparseseg.gui.state import PairRow
from napari_sparseseg.io.images import stem_of
from napari_sparseseg.io.label_pairs import read_planes

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from napari_sparseseg.gui.state import Kind

READING = "It is being read."

#: What was read is told so often: the whole list is shown anew each time.
TELL_MS = 200


class PlaneOfFile(NamedTuple):
    """The files of an annotated plane, and what the engine must know of it."""

    pixels: Path
    labels: Path
    um_per_px: float | None
    n_channels: int


class Contents(NamedTuple):
    """What was found in the files of an image and its labels."""

    planes: dict[PlaneKey, PlaneOfFile]
    counts: dict[PlaneKey, dict[int, LabelCount]]
    shape: tuple[int, ...]
    classes: ClassTable | None


@dataclass(eq=False)
class ListedFile(Entry):
    """An image of the list that is a file.

    Attributes
    ----------
    key
        By which the engine knows it.
    image, labels
        The files; there may be no labels yet.
    ticked, chosen_kind, counts, shape
        As of `Entry`.
    planes
        Annotated planes on disk, as the engine takes them.
    problem
        Why it cannot be used, in one sentence; empty where it can.
    misfit
        Why it does not fit the others; empty where it does.
    is_read
        Whether the labels were counted, or could not be.
    is_of_session
        Whether a session that was opened had it in its list.
    """

    key: str
    image: Path
    labels: Path | None
    ticked: bool = True
    chosen_kind: Kind | None = None
    counts: dict[PlaneKey, dict[int, LabelCount]] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    planes: dict[PlaneKey, PlaneOfFile] = field(default_factory=dict)
    problem: str = ""
    misfit: str = ""
    is_read: bool = False
    is_of_session: bool = False

    @property
    def name(self) -> str:
        """What it is called."""
        return stem_of(self.image)

    @property
    def in_use(self) -> bool:
        """Whether the training learns from it."""
        return self.ticked and self.is_read and not (self.problem or self.misfit)

    @property
    def n_channels(self) -> int | None:
        """Channels of its pixels, None where nothing is annotated."""
        return next((each.n_channels for each in self.planes.values()), None)

    def row(self) -> PairRow:
        """Return what the dock shows."""
        return PairRow(
            self.name,
            "" if self.labels is None else self.labels.name,
            self.ticked,
            self.n_strokes,
            self.problem or self.misfit,
            self.kind,
            self.chosen_kind is not None,
            self.n_planes,
            no_score="" if self.is_read else READING,
            is_open=False,
        )


class FileReader(QObject):
    """Reads files of the list in a thread, one after the other.

    Signals
    -------
    read(files)
        Each `ListedFile` that has its contents now, or its problem, with the class
        table beside it, or None.
    """

    read = Signal(list)

    _done = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._folder: Path | None = None
        self._numbers = itertools.count()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: list[Future[Contents]] = []
        self._found: list[tuple[ListedFile, Contents | BaseException]] = []
        self._timer = once(self, self._tell_found, TELL_MS)
        self._done.connect(self._on_done)

    def start(self, file: ListedFile) -> None:
        """Read a file; without labels no more than whether it is there.

        Raises
        ------
        OutputError
            If no temporary folder can be made.
        """
        if self._folder is None:
            self._folder = temporary_folder()
        image, labels, folder = file.image, file.labels, self._folder

        def new_path() -> Path:
            return folder / f"{next(self._numbers)}.npy"

        future = self._thread.submit(read_contents, image, labels, new_path)
        self._waiting.append(future)
        future.add_done_callback(
            lambda done: None if done.cancelled() else self._tell(file, done)
        )

    def cancel(self) -> None:
        """Read nothing that has not begun, and tell at once what was read."""
        for future in self._waiting:
            future.cancel()
        self._timer.stop()
        self._tell_found()

    def forget(self, file: ListedFile) -> None:
        """Delete what was written of a file that is no more in the list."""
        for plane in file.planes.values():
            for path in (plane.pixels, plane.labels):
                # Windows removes no file that the engine still has open; all go at the
                # end.
                try:
                    path.unlink(missing_ok=True)
                except OSError:
                    continue
        file.planes = {}

    def close(self) -> None:
        """End, and remove what was written."""
        self._timer.stop()
        self._thread.shutdown(cancel_futures=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _tell(self, file: ListedFile, done: Future[Contents]) -> None:
        self._done.emit(file, done.exception() or done.result())

    def _on_done(self, file: ListedFile, found: Contents | BaseException) -> None:
        self._found.append((file, found))
        if not self._timer.isActive():
            self._timer.start()

    def _tell_found(self) -> None:
        self._waiting = [each for each in self._waiting if not each.done()]
        found, self._found = self._found, []
        self.read.emit([(file, _take_in(file, each)) for file, each in found])


def _take_in(file: ListedFile, found: Contents | BaseException) -> ClassTable | None:
    """Give an image what was found, and return the class table."""
    file.is_read = True
    if isinstance(found, BaseException):
        name, sentence = file.image.name, sentence_on(found)
        file.problem = sentence if name in sentence else f"{name}: {sentence}"
        return None
    file.problem = ""
    file.planes, file.counts, file.shape, classes = found
    return classes


def read_contents(
    image: Path, labels: Path | None, new_path: Callable[[], Path]
) -> Contents:
    """Bring the annotated planes of an image to files, and count their strokes.

    Parameters
    ----------
    image, labels
        The files; there may be no labels yet.
    new_path
        Names files to be written.

    Raises
    ------
    SparseSegError
        If they cannot be read, do not fit each other, or cannot be written.
    """
    if not image.exists():
        raise ImageError(
            f"{image} is not there any more; put it back, or remove it from the list "
            "and add it from where it is now.",
            path=str(image),
        )
    if labels is None:
        return Contents({}, {}, (), None)
    table = find_class_table(labels)
    planes: dict[PlaneKey, PlaneOfFile] = {}
    counts: dict[PlaneKey, dict[int, LabelCount]] = {}
    shape: tuple[int, ...] = ()
    for each in read_planes(image, labels, table):
        key = PlaneKey(each.at)
        shape = (1,) * len(each.at) + each.labels.shape
        counts[key] = dict(count_labels(each.labels))
        if not counts[key]:
            continue
        n_channels = 1 if each.pixels.ndim == 2 else each.pixels.shape[2]
        if n_channels not in (1, 3):
            raise ImageError(
                f"{image} has {n_channels} channels, but images of the list are grey "
                "or RGB; open it with File > Open, which gives each channel a layer.",
                channels=n_channels,
            )
        planes[key] = PlaneOfFile(
            _write(new_path(), each.pixels),
            _write(new_path(), each.labels),
            each.um_per_px,
            n_channels,
        )
    return Contents(planes, counts, shape, table)


def _write(path: Path, array: Any) -> Path:
    save_plane(path, array)
    return path
