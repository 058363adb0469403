"""The file of a session folder that keeps how it was trained, ``training.json``.

It has the settings of the dock, and which models were saved with which scores.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from napari_sparseseg.engine.messages import TrainingSettings
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.session_parts import MISREAD, read_part, write_part
from napari_sparseseg.gui.state import Live, SavedModel, State

if TYPE_CHECKING:
    from pathlib import Path

#: Of the file; others are refused.
VERSION = 1

#: Its name.
FILE = "training.json"

_FORMAT = "training of napari-sparseseg"

_SETTINGS: TypeAdapter[TrainingSettings] = TypeAdapter(TrainingSettings)
_LIVE: TypeAdapter[Live] = TypeAdapter(Live)
_MODELS: TypeAdapter[tuple[SavedModel, ...]] = TypeAdapter(tuple[SavedModel, ...])


@dataclass(frozen=True)
class TrainingRecord:
    """How a session was trained.

    Attributes
    ----------
    settings, live, opacity, confidence
        What was chosen in the dock.
    models
        That were saved, in order.
    """

    settings: TrainingSettings
    live: Live = "live"
    opacity: float = 0.5
    confidence: bool = False
    models: tuple[SavedModel, ...] = ()


def record_of(state: State) -> TrainingRecord:
    """Return what is kept of a state."""
    return TrainingRecord(
        state.settings, state.live, state.opacity, state.confidence, state.models
    )


def write_kept_training(folder: Path, record: TrainingRecord) -> None:
    """Write how a session was trained, completely or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    content = asdict(record) | {"settings": _SETTINGS.dump_python(record.settings)}
    write_part(folder / FILE, _FORMAT, VERSION, content)


def read_kept_training(folder: Path) -> TrainingRecord | None:
    """Read how a session was trained; None where it does not say.

    Settings that this version does not know are those of the beginning.

    Raises
    ------
    OutputError
        If the file is damaged, or of a newer version.
    """
    path = folder / FILE
    try:
        data = read_part(path, _FORMAT, VERSION)
        return TrainingRecord(
            _settings_from(data["settings"]),
            _LIVE.validate_python(data["live"]),
            min(1.0, max(0.0, float(data["opacity"]))),
            bool(data["confidence"]),
            _MODELS.validate_python(data["models"]),
        )
    except FileNotFoundError:
        return None
    except OutputError:
        raise
    except (*MISREAD, ValidationError) as error:
        raise OutputError(
            f"{path} is damaged, so settings and the list of saved models are not "
            "those of the session; choose them anew.",
            path=str(path),
        ) from error


def _settings_from(data: dict[str, Any]) -> TrainingSettings:
    with contextlib.suppress(ValidationError):
        return _SETTINGS.validate_python(data)
    return TrainingSettings()
