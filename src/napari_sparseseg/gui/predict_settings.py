"""How is predicted and exported is remembered until the next time."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from napari_sparseseg.gui import settings
from napari_sparseseg.gui.predict_state import TRAINED, PredictWishes

if TYPE_CHECKING:
    from napari_sparseseg.gui.predict_state import PredictState

#: Under which they are kept.
GROUP = "predict"

_WISHES: TypeAdapter[PredictWishes] = TypeAdapter(PredictWishes)


def restore(state: PredictState) -> None:
    """Set *state* to what was chosen last; what cannot be read stays as it is."""
    text: Any = settings.stored().value(GROUP, "")
    with suppress(ValidationError):
        kept = _WISHES.validate_json(str(text))
        gone = kept.model != TRAINED and not Path(kept.model).is_file()
        state.wishes = replace(kept, model=TRAINED) if gone else kept


def keep(state: PredictState) -> None:
    """Keep what is chosen now."""
    kept = _WISHES.dump_python(state.wishes, mode="json")
    settings.stored().setValue(GROUP, json.dumps(kept))
