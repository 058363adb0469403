"""What the user chose is there again, and damaged settings do no harm."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import napari.settings
import pytest
from npe2 import PluginManifest
from qtpy.QtCore import QSettings

from napari_sparseseg.engine.messages import TrainingSettings
from napari_sparseseg.gui import settings
from napari_sparseseg.gui.state import Live, State

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep settings in a file of the test."""
    path = tmp_path / "settings.ini"
    monkeypatch.setattr(settings, "preferences_of_napari", lambda: None)
    monkeypatch.setattr(
        settings, "stored", lambda: QSettings(str(path), QSettings.Format.IniFormat)
    )
    return path


@pytest.fixture
def preferences(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keep settings in preferences of napari of the test."""
    if not hasattr(napari.settings, "get_plugin_settings"):
        pytest.skip("this napari has no preferences of plugins")
    monkeypatch.undo()
    request.getfixturevalue("plugin_settings")
    manager = request.getfixturevalue("npe2pm")
    manager.register(PluginManifest.from_distribution("napari-sparseseg"))
    return napari.settings.get_plugin_settings("napari-sparseseg")


WISHED = TrainingSettings(
    balance="none",
    net="unet-vgg16",
    preset="paper",
    encoder_weights="/data/vgg16.pth",
    freeze_encoder=True,
    loss="l1l2",
    l1=0.5,
    l2=2,
    smoothness=0.25,
    scale=0.25,
    window=(40.0, 400.0),
    patch_px=64,
    head_start=False,
    head_features="resnet18",
    device="cpu",
    seed=3,
)


def assert_kept() -> None:
    """Check that settings last."""
    settings.keep(State(settings=WISHED, live="once", opacity=0.25))
    state = State()
    settings.restore(state)
    assert (state.settings, state.live, state.opacity) == (WISHED, "once", 0.25)
    settings.keep(State())
    settings.restore(state)
    assert (state.settings, state.live, state.opacity) == (
        TrainingSettings(),
        "live",
        0.5,
    )


def test_what_was_chosen_is_there_again(stored: Path) -> None:
    assert_kept()
    assert stored.exists()


def test_napari_keeps_it_where_it_can(preferences: Any, stored: Path) -> None:
    assert_kept()
    assert not stored.exists()
    settings.keep(State(settings=WISHED))
    assert "window: 40.0 400.0" in preferences.config_path.read_text()


def test_napari_offers_what_a_training_may_be_asked_for(preferences: Any) -> None:
    """Each setting is one of the preferences, of the same default and choices."""
    state = State(settings=WISHED, live="off", opacity=1)
    settings.restore(state)
    assert (state.settings, state.live, state.opacity) == (
        TrainingSettings(),
        "live",
        0.5,
    )
    properties = preferences.training.model_json_schema()["properties"]
    assert set(properties) == {each.name for each in fields(TrainingSettings)}
    for name in ("balance", "net", "preset", "loss", "head_features"):
        words = get_args(get_type_hints(TrainingSettings)[name])
        assert tuple(properties[name]["enum"]) == words
    properties = preferences.prediction.model_json_schema()["properties"]
    assert tuple(properties["live"]["enum"]) == get_args(Live)


def test_what_is_set_in_the_preferences_is_told(preferences: Any) -> None:
    told: list[object] = []
    settings.follow(told.append)
    preferences.training.balance = "instance"
    assert len(told) == 1
    preferences.prediction.opacity = 0.75
    assert len(told) == 2
    state = State()
    settings.restore(state)
    assert (state.settings.balance, state.opacity) == ("instance", 0.75)


@pytest.mark.parametrize("window", ["wide", "1 2 3", "400"])
def test_a_window_that_is_none_changes_nothing(preferences: Any, window: str) -> None:
    preferences.training.window = window
    state = State()
    settings.restore(state)
    assert state.settings == TrainingSettings()


def test_without_a_file_all_is_as_it_is() -> None:
    state = State(opacity=0.125)
    settings.restore(state)
    assert (state.settings, state.live) == (TrainingSettings(), "live")
    assert state.opacity == 0.125


@pytest.mark.parametrize(
    "damaged",
    [
        {"training": "{", "prediction": '{"live": "never", "opacity": "much"}'},
        {"training": '{"preset": "huge"}', "prediction": '{"live": "", "opacity": 7}'},
        {"training": '{"unknown": 1}', "prediction": '{"live": 1, "opacity": NaN}'},
        {"training": "[]", "prediction": '{"live": ["live"], "opacity": [1, 2]}'},
        {"training": ["a", "b"], "prediction": "1"},
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
