"""The list of images is kept on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sparseseg.gui.kept_part import KeptPart
from napari_sparseseg.gui.parts import listen
from napari_sparseseg.gui.session_list import ListRecord, write_kept_list

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qtpy.QtCore import QObject

    from napari_sparseseg.gui.state import State


class KeptList(KeptPart):
    """Notes in the session folder which images are in the list.

    Parameters
    ----------
    state
        Tells when the list has changed.
    records
        Gives the list of now.
    folder
        Gives the session folder of now.
    """

    def __init__(
        self,
        state: State,
        records: Callable[[], tuple[ListRecord, ...]],
        folder: Callable[[], Path],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(folder, parent)
        self._records = records
        listen(self, state.events.pairs, self._on_change)

    def _now(self) -> tuple[ListRecord, ...]:
        return self._records()

    def _write(self, folder: Path, content: tuple[ListRecord, ...]) -> None:
        write_kept_list(folder, content)
