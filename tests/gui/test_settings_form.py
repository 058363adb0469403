"""The settings of a training show the state and tell wishes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from napari_sparseseg.engine.messages import TrainingSettings
from napari_sparseseg.gui.settings_form import TOOLTIPS, WINDOWS, SettingsForm
from napari_sparseseg.gui.state import PairRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.state import State

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def form(no_leaks: None, qtbot: QtBot, state: State) -> SettingsForm:
    """Make the view of the settings of the state."""
    form = SettingsForm(state)
    form.set_devices(["cuda", "cpu"], ["NVIDIA H200", "CPU, 2 cores"])
    qtbot.addWidget(form)
    return form


def granted(form: SettingsForm, state: State) -> list[TrainingSettings]:
    """Collect the wishes, each of which is granted."""
    told: list[TrainingSettings] = []
    form.changed.connect(told.append)
    form.changed.connect(lambda wish: setattr(state, "settings", wish))
    return told


def choose(combo: Any, data: str) -> None:
    """Choose the entry that stands for *data*."""
    combo.setCurrentIndex(combo.findData(data))


@pytest.mark.parametrize(
    ("change", "wish"),
    [
        (lambda form: choose(form.network.net, "vgg-fcn"), {"net": "vgg-fcn"}),
        (lambda form: choose(form.network.preset, "paper"), {"preset": "paper"}),
        (lambda form: choose(form.loss, "l1l2"), {"loss": "l1l2"}),
        (lambda form: form.l1.setValue(2), {"l1": 2.0}),
        (lambda form: form.l2.setValue(0), {"l2": 0.0}),
        (lambda form: form.smoothness.setValue(0.25), {"smoothness": 0.25}),
        (lambda form: form.ratio.setValue(9), {"dense_share": 0.1}),
        (lambda form: form.scale.setValue(0.25), {"scale": 0.25}),
        (lambda form: form.scale.setValue(0), {"scale": "auto"}),
        (lambda form: form.known_windows.setCurrentIndex(1), {"window": (40.0, 400.0)}),
        (lambda form: form.known_windows.setCurrentIndex(0), {"window": None}),
        (lambda form: form.window_width.setValue(350), {"window": (-600.0, 350.0)}),
        (lambda form: form.window_width.setValue(0), {"window": None}),
        (lambda form: form.window_centre.setValue(9), {"window": (9.0, 1500.0)}),
        (lambda form: form.patch.setValue(96), {"patch_px": 96}),
        (lambda form: form.patch.setValue(0), {"patch_px": None}),
        (
            lambda form: choose(form.network.head, "vgg16"),
            {"head_features": "vgg16"},
        ),
        (lambda form: choose(form.device, "cuda"), {"device": "cuda"}),
        (lambda form: form.seed.setValue(7), {"seed": 7}),
        (lambda form: form.head_start.setChecked(False), {"head_start": False}),
    ],
)
def test_each_view_wishes_for_its_own_setting_once(
    form: SettingsForm,
    state: State,
    change: Callable[[SettingsForm], None],
    wish: dict[str, Any],
) -> None:
    before = TrainingSettings(scale=0.5, window=(-600.0, 1500.0), patch_px=64)
    state.settings = before
    told = granted(form, state)
    change(form)
    assert told == [replace(before, **wish)]
    assert state.settings == told[0]


def test_dice_takes_the_balancing_along(form: SettingsForm, state: State) -> None:
    granted(form, state)
    choose(form.loss, "dice")
    assert state.settings == TrainingSettings(loss="dice", balance="none")
    choose(form.loss, "ce")
    assert state.settings == TrainingSettings()
    state.settings = TrainingSettings(balance="none")
    choose(form.loss, "l1l2")
    assert state.settings.balance == "none"
    choose(form.loss, "dice")
    state.settings = replace(state.settings, balance="instance")
    form.seed.setValue(1)
    choose(form.loss, "ce")
    assert state.settings.balance == "instance"


def test_the_state_is_shown_without_a_wish(form: SettingsForm, state: State) -> None:
    told = granted(form, state)
    state.settings = TrainingSettings(
        preset="light",
        scale=0.5,
        window=(-50.0, 1500.0),
        patch_px=160,
        head_start=False,
        device="cpu",
        seed=3,
    )
    assert form.network.preset.currentData() == "light"
    assert form.scale.value() == 0.5
    assert (form.window_centre.value(), form.window_width.value()) == (-50, 1500)
    assert form.patch.value() == 160
    assert not form.head_start.isChecked()
    assert form.device.currentText() == "CPU, 2 cores"
    assert form.seed.value() == 3
    state.settings = TrainingSettings()
    for box in (form.scale, form.window_width, form.patch):
        assert box.text() == "automatic"
    assert told == []


def test_a_finer_number_than_is_shown_survives_another_change(
    form: SettingsForm, state: State
) -> None:
    state.settings = TrainingSettings(scale=0.123456)
    told = granted(form, state)
    form.seed.setValue(1)
    assert told == [TrainingSettings(scale=0.123456, seed=1)]


def test_one_step_up_from_automatic_offers_a_window_of_use(
    form: SettingsForm, state: State
) -> None:
    told = granted(form, state)
    form.window_width.stepUp()
    assert told == [TrainingSettings(window=(40.0, 400.0))]
    assert form.window_width.value() == 400


def test_the_window_is_shown_by_name_or_as_own_numbers(
    form: SettingsForm, state: State
) -> None:
    told = granted(form, state)
    assert form.known_windows.currentText() == "automatic"
    state.settings = TrainingSettings(window=WINDOWS["lung"])
    assert form.known_windows.currentText() == "lung"
    assert (form.window_centre.value(), form.window_width.value()) == (-600, 1500)
    state.settings = TrainingSettings(window=(-50.0, 1500.0))
    assert form.known_windows.currentIndex() == -1
    assert form.known_windows.placeholderText() == "own numbers"
    assert told == []
    form.window_width.setValue(400)
    form.window_centre.setValue(40)
    assert form.known_windows.currentText() == "soft tissue"


def test_the_centre_waits_for_a_width(form: SettingsForm, state: State) -> None:
    assert not form.window_centre.isEnabled()
    assert "width" in form.window_centre.toolTip()
    state.settings = TrainingSettings(window=(40.0, 400.0))
    assert form.window_centre.isEnabled()
    assert form.window_centre.toolTip() == TOOLTIPS["centre"]


def test_a_device_of_another_machine_is_shown(form: SettingsForm, state: State) -> None:
    told = granted(form, state)
    state.settings = TrainingSettings(device="mps")
    assert form.device.currentData() == "mps"
    form.set_devices(["cpu"], ["CPU, 2 cores"])
    assert form.device.currentData() == "mps"
    assert told == []


def test_weights_of_two_distances_are_there_for_their_loss(
    form: SettingsForm, state: State
) -> None:
    assert form.l1.isHidden()
    state.settings = TrainingSettings(loss="l1l2", l1=0.5, l2=3)
    assert not form.l1.isHidden()
    assert (form.l1.value(), form.l2.value()) == (0.5, 3)


def test_locked_settings_say_why(form: SettingsForm, state: State) -> None:
    form.lock("not now")
    assert not form.seed.isEnabled()
    state.settings = TrainingSettings(window=(40.0, 400.0))
    rows = form.network
    for widget in (form.window_centre, form.seed, rows.net, rows.preset):
        assert (widget.isEnabled(), widget.toolTip()) == (False, "not now")
    form.lock("")
    assert form.window_centre.isEnabled()
    assert form.seed.toolTip() == TOOLTIPS["seed"]


def test_a_ratio_needs_both_kinds(form: SettingsForm, state: State) -> None:
    assert form.ratio.text() == "4.0 : 1"
    sparse = PairRow("a", "x", strokes=3)
    dense = PairRow("b", "y", strokes=3, kind="dense")
    for pairs, is_enabled in (
        ((sparse, dense), True),
        ((sparse, replace(dense, ticked=False)), False),
        ((sparse, replace(dense, strokes=0)), False),
        ((dense,), False),
    ):
        state.pairs = pairs
        assert form.ratio.isEnabled() == is_enabled
        assert ("must be ticked" in form.ratio.toolTip()) != is_enabled
    state.pairs = (sparse, dense)
    form.lock("A training is running.")
    assert form.ratio.toolTip() == "A training is running."
