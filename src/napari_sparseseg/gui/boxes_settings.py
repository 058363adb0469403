"""How boxes become masks is remembered until the next time."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from napari_sparseseg.engine.messages import MaskSettings
from napari_sparseseg.gui import settings
from napari_sparseseg.gui.boxes_state import FIXED_CRF

if TYPE_CHECKING:
    from napari_sparseseg.gui.boxes_state import BoxesState

#: Under which they are kept.
GROUP = "boxes"

_SETTINGS: TypeAdapter[MaskSettings] = TypeAdapter(MaskSettings)


def restore(state: BoxesState) -> None:
    """Set *state* to what was chosen last; what cannot be read stays as it is."""
    text: Any = settings.stored().value(GROUP, "")
    with suppress(ValidationError):
        # Values of classes mean something else in another window.
        kept = replace(_SETTINGS.validate_json(str(text)), background=0)
        fixed = kept.method in FIXED_CRF
        state.settings = replace(kept, crf=None) if fixed else kept


def keep(state: BoxesState) -> None:
    """Keep what is chosen now."""
    kept = _SETTINGS.dump_python(state.settings, mode="json")
    settings.stored().setValue(GROUP, json.dumps(kept))
