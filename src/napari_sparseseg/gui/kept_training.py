"""The settings of the dock and the models that were saved are kept on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sparseseg.gui.kept_part import KeptPart
from napari_sparseseg.gui.parts import listen
from napari_sparseseg.gui.session_training import (
    TrainingRecord,
    record_of,
    write_kept_training,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qtpy.QtCore import QObject

    from napari_sparseseg.gui.state import State


class KeptTraining(KeptPart):
    """Notes in the session folder how it was trained.

    Parameters
    ----------
    state
        Has settings and models.
    folder
        Gives the session folder of now.
    """

    def __init__(
        self,
        state: State,
        folder: Callable[[], Path],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(folder, parent)
        self._state = state
        for name in ("settings", "live", "opacity", "confidence"):
            listen(self, getattr(state.events, name), self._on_change)
        # A model is saved seldom, and its score stands nowhere else.
        listen(self, state.events.models, self._bring)
        self._on_change()

    def _now(self) -> TrainingRecord:
        return record_of(self._state)

    def _write(self, folder: Path, content: TrainingRecord) -> None:
        write_kept_training(folder, content)
