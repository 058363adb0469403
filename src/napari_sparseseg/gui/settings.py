"""What the user chose is there again the next time.

Where napari has preferences of plugins (since 0.9) it stands there, else in a file of
our own.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from qtpy.QtCore import QSettings

from napari_sparseseg.engine.messages import TrainingSettings
from napari_sparseseg.gui.state import Live

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_sparseseg.gui.state import State

#: By which napari knows the plugin.
PLUGIN = "napari-sparseseg"

#: Groups of settings, as the manifest names them.
GROUPS = ("training", "prediction")

_TRAINING: TypeAdapter[TrainingSettings] = TypeAdapter(TrainingSettings)
_LIVE: TypeAdapter[Live] = TypeAdapter(Live)

Values = dict[str, dict[str, Any]]


def restore(state: State) -> None:
    """Set *state* to what was chosen last; what cannot be read stays as it is."""
    kept = read()
    with suppress(ValidationError):
        state.settings = _training_of(kept["training"])
    with suppress(ValidationError):
        state.live = _LIVE.validate_python(kept["prediction"].get("live"))
    opacity = _number(kept["prediction"].get("opacity"))
    if opacity is not None and 0 <= opacity <= 1:
        state.opacity = opacity


def keep(state: State) -> None:
    """Keep what is chosen now."""
    write(
        {
            "training": _plain(state.settings),
            "prediction": {"live": state.live, "opacity": state.opacity},
        }
    )


def follow(changed: Callable[[Any], object]) -> None:
    """Call *changed* whenever something is changed in napari's preferences."""
    preferences = preferences_of_napari()
    for group in GROUPS if preferences is not None else ():
        getattr(preferences, group).events.connect(changed)


def read() -> Values:
    """Return what is kept, by group and name; missing values are left out."""
    preferences = preferences_of_napari()
    if preferences is not None:
        return {group: getattr(preferences, group).model_dump() for group in GROUPS}
    return {group: _from_json(stored().value(group, "{}")) for group in GROUPS}


def write(values: Values) -> None:
    """Keep values by group and name."""
    preferences = preferences_of_napari()
    for group, each in values.items():
        if preferences is None:
            stored().setValue(group, json.dumps(each))
        else:
            getattr(preferences, group).update(each)


def preferences_of_napari() -> Any:
    """Return napari's preferences of this plugin, None where there are none."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return None
    return get_plugin_settings().get(PLUGIN)


def stored() -> QSettings:
    """Return our own file, one of the user."""
    return QSettings(
        QSettings.Format.IniFormat, QSettings.Scope.UserScope, PLUGIN, PLUGIN
    )


# napari's preferences know text, numbers and switches, and nothing that may be absent.


def _plain(settings: TrainingSettings) -> dict[str, Any]:
    values: dict[str, Any] = _TRAINING.dump_python(settings)
    window = values["window"]
    return values | {
        "scale": str(values["scale"]),
        "window": "" if window is None else " ".join(map(str, window)),
        "patch_px": values["patch_px"] or 0,
    }


def _training_of(plain: Mapping[str, Any]) -> TrainingSettings:
    values = dict(plain)
    if "window" in values:
        ends = [_number(end) for end in str(values["window"]).split()]
        values["window"] = tuple(ends) or None
    if "scale" in values:
        scale = _number(values["scale"])
        values["scale"] = values["scale"] if scale is None else scale
    if "patch_px" in values:
        values["patch_px"] = values["patch_px"] or None
    return _TRAINING.validate_python(values)


def _from_json(text: Any) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
