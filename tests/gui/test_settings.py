"""What the user chose is there again, and damaged settings do no harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import QSettings

from napari_sparseseg.engine.messages import TrainingSettings
from napari_sparseseg.gui import settings
from napari_sparseseg.gui.state import State

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep settings in a file of the test."""
    path = tmp_path / "settings.ini"
    monkeypatch.setattr(
        settings, "stored", lambda: QSettings(str(path), QSettings.Format.IniFormat)
    )
    return path


def test_what_was_chosen_is_there_again(stored: Path) -> None:
    wished = TrainingSettings(
        balance="none", scale=0.25, window=(40.0, 400.0), patch_px=64, seed=3
    )
    settings.keep(State(settings=wished, live="once", opacity=0.25))
    assert stored.exists()
    state = State()
    settings.restore(state)
    assert (state.settings, state.live, state.opacity) == (wished, "once", 0.25)


def test_without_a_file_all_is_as_it_is() -> None:
    state = State(opacity=0.125)
    settings.restore(state)
    assert (state.settings, state.live) == (TrainingSettings(), "live")
    assert state.opacity == 0.125


@pytest.mark.parametrize(
    "damaged",
    [
        {"training": "{", "live": "never", "opacity": "much"},
        {"training": '{"preset": "huge"}', "live": "", "opacity": "7"},
        {"training": '{"unknown": 1}', "live": "1", "opacity": "nan"},
        {"training": ["a", "b"], "live": ["live", "off"], "opacity": [1, 2]},
    ],
)
def test_what_cannot_be_read_is_left_alone(damaged: dict[str, Any]) -> None:
    kept = settings.stored()
    for name, value in damaged.items():
        kept.setValue(name, value)
    kept.sync()
    state = State()
    settings.restore(state)
    assert (state.settings, state.live) == (TrainingSettings(), "live")
    assert state.opacity == 0.5


def test_it_is_a_file_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    kept = settings.stored()
    assert kept.fileName().endswith("napari-sparseseg.ini")
    assert kept.scope() == QSettings.Scope.UserScope
