"""Where strokes are kept: at a place that the user names, and opened from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.restore import open_session
from napari_sparseseg.gui.session_folder import SUFFIX, is_in_use, read_manifest

if TYPE_CHECKING:
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
    """

    def __init__(
        self,
        viewer: ViewerModel,
        state: State,
        annotations: Annotations,
        classes: ClassControl,
        mirror: Mirror,
    ) -> None:
        self._viewer = viewer
        self._state = state
        self._annotations = annotations
        self._classes = classes
        self._mirror = mirror
        state.place = str(mirror.folder)

    @telling()
    def move(self, path: str) -> None:
        """Keep all strokes at *path* from now on."""
        folder = Path(path)
        if folder.suffix != SUFFIX:
            folder = folder.with_name(folder.name + SUFFIX)
        if folder.absolute() != self._mirror.folder.absolute():
            self._mirror.move(folder)
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
        self._check_classes(folder)
        layers = open_session(self._viewer, folder)
        if self.keep(layers) and not self._mirror.has_place:
            self._mirror.move(folder, opened=True)
        self._tell()

    def keep(self, layers: list[Labels]) -> bool:
        """Keep opened layers on disk and use their classes; tell whether they are."""
        for labels in layers:
            if not any(pair.labels is labels for pair in self._annotations.pairs):
                with telling():
                    self._classes.adopt(labels)
        kept = [self._annotations.keep(labels) for labels in layers]
        return all(kept)

    def _check_classes(self, folder: Path) -> None:
        """Refuse strokes whose values mean something else in this window."""
        theirs, _ = read_manifest(folder)
        here = dict(self._state.classes.named_values)
        for value, name in theirs.named_values if self._state.counts else ():
            if here.get(value, name) != name:
                raise OutputError(
                    f"In {folder.name} the class {value} is {name!r}, but here it is "
                    f"{here[value]!r}; open it in a new window of napari.",
                    value=value,
                )

    def _tell(self) -> None:
        self._state.place = str(self._mirror.folder)
        self._state.status = f"Your strokes are kept in {self._mirror.folder.name}."
