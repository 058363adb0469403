"""What the user chose is there again the next time."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_args

from pydantic import TypeAdapter, ValidationError
from qtpy.QtCore import QSettings

from napari_sparseseg.engine.messages import TrainingSettings
from napari_sparseseg.gui.state import Live

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import State

_TRAINING: TypeAdapter[TrainingSettings] = TypeAdapter(TrainingSettings)


def stored() -> QSettings:
    """Return where settings are kept: one file of the user."""
    return QSettings(
        QSettings.Format.IniFormat,
        QSettings.Scope.UserScope,
        "napari-sparseseg",
        "napari-sparseseg",
    )


def restore(state: State) -> None:
    """Set *state* to what was chosen last; what cannot be read stays as it is."""
    kept = stored()
    with suppress(ValidationError):
        state.settings = _TRAINING.validate_json(str(kept.value("training", "")))
    live = kept.value("live")
    if live in get_args(Live):
        state.live = live
    opacity = _number(kept.value("opacity"))
    if opacity is not None and 0 <= opacity <= 1:
        state.opacity = opacity


def keep(state: State) -> None:
    """Keep what is chosen now."""
    kept = stored()
    kept.setValue("training", _TRAINING.dump_json(state.settings).decode())
    kept.setValue("live", state.live)
    kept.setValue("opacity", state.opacity)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
