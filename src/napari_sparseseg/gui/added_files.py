"""Files come into the list of images: they are found, then read one by one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Qt, Signal

from napari_sparseseg.gui.listed_files import FileReader, ListedFile
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import counted
from napari_sparseseg.io.label_pairs import find_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.gui.class_control import ClassControl
    from napari_sparseseg.gui.image_list import ImageList
    from napari_sparseseg.gui.state import State
    from napari_sparseseg.io.label_pairs import FilePair

    Found = tuple[list[FilePair], list[str]]

CANCELLED = "It was not read, since that was cancelled; open the session again."


class AddedFiles(QObject):
    """Finds files in a thread, reads them in another, and can be told to stop.

    Parameters
    ----------
    state
        Shows how many are read.
    images
        The list.
    classes
        To which labels bring theirs.

    Signals
    -------
    found(files)
        They are in the list; they are read once `read` is called.
    changed()
        The list is another one, or something was read.
    """

    found = Signal(list)
    changed = Signal()

    _looked = Signal(object)

    def __init__(
        self,
        state: State,
        images: ImageList,
        classes: ClassControl,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._state = state
        self._images = images
        self._classes = classes
        # Folders of a server take their time.
        self._finder = ThreadPoolExecutor(max_workers=1)
        self._looking: list[Future[Found]] = []
        self._reader = FileReader(self)
        self._to_read: list[ListedFile] = []
        # All that are shown as being read, done or not.
        self._wished: list[ListedFile] = []
        self._problems: list[str] = []
        # Always later, also of folders that are looked through at once.
        self._looked.connect(self._on_looked, Qt.ConnectionType.QueuedConnection)
        self._reader.read.connect(self._on_read)

    def add(self, places: Sequence[str]) -> None:
        """Add the images of folders, and files, with their labels by suffix."""
        future = self._finder.submit(find_pairs, [Path(place) for place in places])
        self._looking.append(future)
        self._show_progress()
        future.add_done_callback(
            # Of nobody who was closed meanwhile.
            lambda done: self._looked.emit(done) if done in self._looking else None
        )

    def append(self, files: Sequence[ListedFile]) -> None:
        """Bring files to the end of the list, to be read once `read` is called."""
        self._images.extend(files)
        self._to_read += files
        self._wished += files
        self._show_progress()

    @telling()
    def read(self) -> None:
        """Read all that are in the list and were not read yet."""
        to_read, self._to_read = self._to_read, []
        for file in to_read:
            self._reader.start(file)

    @telling()
    def cancel(self) -> None:
        """Look for no more files, and read none; what was read stays.

        What was not is taken out of the list again, but for files of a session that was
        opened, of which it knows more than their names.
        """
        self._looking.clear()
        self._to_read.clear()
        self._reader.cancel()
        unread = [file for file in self._wished if not file.is_read]
        closed = self._images.files
        dropped = [file for file in unread if file in closed and not file.is_of_session]
        for file in unread:
            file.is_read = True
            file.problem = CANCELLED if file.is_of_session else ""
        for file in dropped:
            self._images.remove(file)
        self._show_progress()
        self._state.status = "Cancelled." + (
            f" {counted(len(dropped), 'image')} not read yet left the list again."
            if dropped
            else ""
        )
        self._tell_problems()
        self.changed.emit()

    def forget(self, file: ListedFile) -> None:
        """Delete what was written of a file that is no more in the list."""
        self._reader.forget(file)

    def close(self) -> None:
        """End, and remove what was written."""
        self._looking.clear()
        # A server may take minutes.
        self._finder.shutdown(wait=False, cancel_futures=True)
        self._reader.close()

    @telling()
    def _on_looked(self, done: Future[Found]) -> None:
        if done not in self._looking:
            return
        self._looking.remove(done)
        self._show_progress()
        found, problems = done.result()
        known = {file.image for file in self._images.known_files}
        new = [each for each in found if each.image.absolute() not in known]
        files = [_listed(each) for each in new]
        self.append(files)
        if len(new) < len(found):
            problems.append(
                f"{counted(len(found) - len(new), 'image')} of these, as "
                f"{next(e for e in found if e not in new).image.name}, is or are in "
                "the list already."
            )
        _tell(problems)
        self.changed.emit()
        self.found.emit(files)

    @telling()
    def _on_read(self, found: list[tuple[ListedFile, ClassTable | None]]) -> None:
        listed = set(self._images.known_files)
        for file, _ in found:
            if file not in listed:
                self._reader.forget(file)
        there = [(file, classes) for file, classes in found if file in listed]
        self._adopt(there)
        self._problems += [file.problem for file, _ in there if file.problem]
        self._show_progress()
        self._tell_problems()
        self.changed.emit()

    def _adopt(self, found: Iterable[tuple[ListedFile, ClassTable | None]]) -> None:
        """Take over the classes of files; the table of the first labels counts."""
        is_first = True
        for file, classes in found:
            values = {value for counts in file.counts.values() for value in counts}
            self._classes.adopt_file(classes if is_first else None, values)
            is_first = is_first and not values

    def _tell_problems(self) -> None:
        """Tell, once nothing is read any more, what could not be."""
        if self._state.reading is None:
            problems, self._problems = self._problems, []
            _tell(problems)

    def _show_progress(self) -> None:
        n_read = sum(file.is_read for file in self._wished)
        if n_read < len(self._wished):
            self._state.reading = n_read, len(self._wished)
            return
        self._wished.clear()
        self._state.reading = (0, 0) if self._looking else None


def _listed(pair: FilePair) -> ListedFile:
    labels = None if pair.labels is None else pair.labels.absolute()
    return ListedFile("", pair.image.absolute(), labels)


def _tell(problems: Sequence[str]) -> None:
    """Tell what went wrong with files: of many only the first."""
    if len(problems) == 1:
        show_warning(problems[0])
    elif problems:
        show_warning(
            f"{len(problems)} files cannot be used, and the others are added. The "
            f"first: {problems[0]}"
        )
