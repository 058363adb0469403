"""Where a session is kept: at a place that the user names, and opened from there."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning

from napari_sparseseg.errors import ClassTableError, OutputError
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.restore import open_session
from napari_sparseseg.gui.restore_images import nobody, untouched_samples
from napari_sparseseg.gui.session_folder import (
    has_labels,
    is_in_use,
    is_named,
    release,
)
from napari_sparseseg.gui.session_images import read_kept_images
from napari_sparseseg.gui.session_labels import SUFFIX, restore
from napari_sparseseg.gui.session_list import read_kept_list
from napari_sparseseg.gui.session_training import read_kept_training

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.gui.annotations import Annotations
    from napari_sparseseg.gui.class_control import ClassControl
    from napari_sparseseg.gui.kept_images import KeptImages
    from napari_sparseseg.gui.kept_list import KeptList
    from napari_sparseseg.gui.kept_training import KeptTraining
    from napari_sparseseg.gui.mirror import Mirror
    from napari_sparseseg.gui.pair_control import PairControl
    from napari_sparseseg.gui.restore_images import Ask
    from napari_sparseseg.gui.session_list import ListRecord
    from napari_sparseseg.gui.session_training import TrainingRecord
    from napari_sparseseg.gui.state import State


class PlaceControl:
    """Moves the session, and opens those of before.

    Parameters
    ----------
    viewer
        Where they are opened.
    state
        Shows the place.
    annotations, classes, pairs
        Keep what was opened, take its classes, and learn from its images.
    mirror
        Has the labels on disk.
    parts
        What else is kept of the session.
    moved
        Called when the files of strokes are others.
    trained
        Takes over how an opened session was trained; whether with its settings.
    listed
        Takes over the list of images.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        state: State,
        annotations: Annotations,
        classes: ClassControl,
        pairs: PairControl,
        mirror: Mirror,
        parts: tuple[KeptImages, KeptTraining, KeptList],
        moved: Callable[[], object],
        trained: Callable[[TrainingRecord, bool], object],
        listed: Callable[[tuple[ListRecord, ...]], object],
    ) -> None:
        self._viewer = viewer
        self._state = state
        self._annotations = annotations
        self._classes = classes
        self._pairs = pairs
        self._mirror = mirror
        self._parts = parts
        self._moved = moved
        self._trained = trained
        self._listed = listed
        state.place = str(mirror.folder)

    @telling()
    def move(self, path: str) -> None:
        """Keep all strokes at *path* from now on."""
        folder = Path(path)
        if folder.suffix != SUFFIX:
            folder = folder.with_name(folder.name + SUFFIX)
        if folder.absolute() != self._mirror.folder.absolute():
            self._move(folder)
        self._tell()

    @telling()
    def open(self, path: str, ask: Ask = nobody) -> None:
        """Add the session in a folder to the viewer, and keep it there.

        Where the user has named another place before, it is kept there, and the folder
        stays as it is.

        Parameters
        ----------
        path
            Of the folder.
        ask
            Asks the user for an image that is not found.
        """
        folder = Path(path)
        if is_in_use(folder):
            raise OutputError(
                f"{folder.name} is open already, here or in another napari; close it "
                "there first.",
                path=path,
            )
        self.open_again(folder, ask)

    def open_again(self, folder: Path, ask: Ask = nobody) -> None:
        """Do as `open`, with a folder that no other napari has open.

        Raises
        ------
        SparseSegError
            If it cannot be opened; then nothing is.
        """
        session = restore(folder)
        self._close_samples()
        self._annotations.flush()
        is_painted = has_labels(self._mirror.folder)
        classes = session.classes
        if is_painted or not len(classes):
            classes = self._merged(classes, folder)
        opened = open_session(self._viewer, folder, session, ask)
        self._classes.use(classes)
        for labels, image_name in zip(opened.layers, opened.image_names, strict=True):
            labels.metadata[CLASSES_KEY] = classes.to_json()
            self._annotations.remember_image(labels, image_name)
        is_kept = self._keep(opened.layers)
        for image, labels in zip(opened.images, opened.layers, strict=True):
            if image is not None:
                self._pairs.add(image, labels)
        is_whole = not opened.damaged
        for take in (self._take_list, partial(self._take_training, is_painted)):
            try:
                take(folder)
            except OutputError as error:
                opened.told.append(str(error))
                is_whole = False
        # The list, too: it may be all that there is.
        is_kept = is_kept and all(part.flush() for part in self._parts)
        if is_kept:
            with telling():
                release(folder)
        # What is damaged, or of a newer version, stays where it is.
        if is_kept and is_whole:
            self._go_on_in(folder)
        self._tell()
        for sentence in opened.told:
            show_warning(sentence)

    def _close_samples(self) -> None:
        """Close samples on which nobody has painted: their classes are others."""
        layers = untouched_samples(self._viewer)
        for pair in [each for each in self._annotations.pairs if each.labels in layers]:
            self._annotations.drop(pair)
        for layer in layers:
            self._viewer.layers.remove(layer)

    def _merged(self, classes: ClassTable, folder: Path) -> ClassTable:
        """Give the classes here with those of a session, or say where it opens."""
        try:
            return self._state.classes.merged(classes)
        except ClassTableError as error:
            raise ClassTableError(
                f"{folder.name} cannot be opened beside what was painted here: {error} "
                "Start another napari, and open it there before you paint.",
                **error.values,
            ) from error

    def _take_list(self, folder: Path) -> None:
        self._listed(read_kept_list(folder))

    def _take_training(self, is_painted: bool, folder: Path) -> None:
        training = read_kept_training(folder)
        if training is not None:
            self._trained(training, not is_painted)

    def _keep(self, layers: list[Labels]) -> bool:
        """Keep opened layers on disk and use their classes; tell whether they are."""
        for labels in layers:
            if not any(pair.labels is labels for pair in self._annotations.pairs):
                with telling():
                    self._classes.adopt(labels)
        kept = [self._annotations.keep(labels) for labels in layers]
        return all(kept)

    @telling()
    def _go_on_in(self, folder: Path) -> None:
        """Keep the session in a folder that was opened, if the user had named it."""
        if is_named(folder) and not self._mirror.has_place:
            with telling():
                # Labels that were deleted there stay, and so do their images.
                self._parts[0].take_over(read_kept_images(folder))
            self._move(folder, opened=True)

    def _move(self, folder: Path, *, opened: bool = False) -> None:
        self._mirror.move(folder, opened=opened)
        self._annotations.flush()
        for part in self._parts:
            part.flush()
        self._state.place = str(folder)
        self._moved()

    def _tell(self) -> None:
        self._state.status = f"Your session is kept in {self._mirror.folder.name}."
