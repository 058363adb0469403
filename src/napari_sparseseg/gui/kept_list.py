"""The list of images is kept on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sparseseg.gui.annotations import Pair
from napari_sparseseg.gui.kept_part import KeptPart
from napari_sparseseg.gui.listed_files import ListedFile
from napari_sparseseg.gui.parts import listen
from napari_sparseseg.gui.session_list import ListRecord, write_kept_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from qtpy.QtCore import QObject

    from napari_sparseseg.gui.image_list import ImageList
    from napari_sparseseg.gui.state import State


def records_of(entries: Iterable[Pair | ListedFile]) -> tuple[ListRecord, ...]:
    """Return what a session keeps of a list."""
    found = []
    for each in entries:
        file = each if isinstance(each, ListedFile) else each.file
        layers = ("", "")
        if isinstance(each, Pair):
            layers = (each.image.name, each.labels.name)
        labels = None if file is None else file.labels
        found.append(
            ListRecord(
                *layers,
                path="" if file is None else str(file.image),
                labels_path="" if labels is None else str(labels),
                ticked=each.ticked,
                kind=each.chosen_kind,
            )
        )
    return tuple(found)


class KeptList(KeptPart):
    """Notes in the session folder which images are in the list.

    Parameters
    ----------
    state
        Tells when the list has changed.
    images
        The list.
    folder
        Gives the session folder of now.
    """

    def __init__(
        self,
        state: State,
        images: ImageList,
        folder: Callable[[], Path],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(folder, parent)
        self._images = images
        listen(self, state.events.pairs, self._on_change)

    def _now(self) -> tuple[ListRecord, ...]:
        return records_of(self._images.entries)

    def _write(self, folder: Path, content: tuple[ListRecord, ...]) -> None:
        write_kept_list(folder, content)
