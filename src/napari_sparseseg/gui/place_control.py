"""Where strokes are kept: at a place that the user names, and opened from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.restore import open_session
from napari_sparseseg.gui.session_folder import (
    SUFFIX,
    has_labels,
    is_in_use,
    is_named,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_sparseseg.gui.annotations import Annotations
    from napari_sparseseg.gui.class_control import ClassControl
    from napari_sparseseg.gui.mirror import Mirror
    from napari_sparseseg.gui.state import State


class PlaceControl:
    """Moves strokes, and opens those of before.

    Parameters
    ----------
    viewer
        Where they are opened.
    state
        Shows the place.
    annotations, classes
        Keep what was opened, and take its classes.
    mirror
        Has the strokes on disk.
    moved
        Called when the files of strokes are others.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        state: State,
        annotations: Annotations,
        classes: ClassControl,
        mirror: Mirror,
        moved: Callable[[], object],
    ) -> None:
        self._viewer = viewer
        self._state = state
        self._annotations = annotations
        self._classes = classes
        self._mirror = mirror
        self._moved = moved
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
    def open(self, path: str) -> None:
        """Add the strokes of a folder to the viewer, and keep them there.

        Where the user has named another place before, they are kept there, and the
        folder stays as it is.
        """
        folder = Path(path)
        if is_in_use(folder):
            raise OutputError(
                f"{folder.name} is open already, here or in another napari; close it "
                "there first.",
                path=path,
            )
        theirs, _ = read_manifest(folder)
        self._annotations.flush()
        painted = has_labels(self._mirror.folder)
        classes = self._state.classes.merged(theirs) if painted else theirs
        layers = open_session(self._viewer, folder)
        self._classes.use(classes)
        for labels in layers:
            labels.metadata[CLASSES_KEY] = classes.to_json()
        if self.keep(layers):
            self.go_on_in(folder)
        self._tell()

    def keep(self, layers: list[Labels]) -> bool:
        """Keep opened layers on disk and use their classes; tell whether they are."""
        for labels in layers:
            if not any(pair.labels is labels for pair in self._annotations.pairs):
                with telling():
                    self._classes.adopt(labels)
        kept = [self._annotations.keep(labels) for labels in layers]
        return all(kept)

    @telling()
    def go_on_in(self, folder: Path) -> None:
        """Keep strokes in a folder that was opened, if the user had named it."""
        if is_named(folder) and not self._mirror.has_place:
            self._move(folder, opened=True)

    def _move(self, folder: Path, *, opened: bool = False) -> None:
        self._mirror.move(folder, opened=opened)
        self._annotations.flush()
        self._state.place = str(folder)
        self._moved()

    def _tell(self) -> None:
        self._state.status = f"Your strokes are kept in {self._mirror.folder.name}."
