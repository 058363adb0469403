"""The views of predicting show the state and tell wishes; settings are remembered."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any, get_args

import pytest
from npe2 import PluginManifest
from qtpy.QtCore import QSettings
from qtpy.QtWidgets import QFileDialog

from napari_sparseseg.gui import predict_settings, settings
from napari_sparseseg.gui.export_widget import FILTERS
from napari_sparseseg.gui.predict_dock import PredictDockWidget
from napari_sparseseg.gui.predict_state import (
    NOT_OF_FILES,
    NOT_OF_SMOOTHED,
    ModelChoice,
    PredictState,
    PredictWishes,
    What,
)
from napari_sparseseg.gui.predict_what_widget import CHOICES, NOT_SMOOTHED
from tests.gui.mouse import choose

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def state() -> PredictState:
    return PredictState(
        models=(
            ModelChoice("", "As trained now", "Nothing is trained."),
            ModelChoice("/a/m.safetensors", "m.safetensors: Dice 0.9"),
        ),
        engine="ready",
    )


@pytest.fixture
def dock(no_leaks: None, qtbot: QtBot, state: PredictState) -> PredictDockWidget:
    """Make the dock of the state, which takes all that is wished for."""
    dock = PredictDockWidget(state)
    qtbot.addWidget(dock)
    dock.what.changed.connect(lambda wished: setattr(state, "wishes", wished))
    return dock


def test_each_choice_is_named_and_explained(dock: PredictDockWidget) -> None:
    combo = dock.what.what
    assert set(CHOICES) == set(get_args(What))
    words = [combo.itemText(place) for place in range(combo.count())]
    assert words == [CHOICES[each][0] for each in get_args(What)]


def test_wishes_are_told(
    dock: PredictDockWidget, state: PredictState, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = ["/in", "/out"]
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: folders.pop(0))
    what = dock.what
    choose(what.what, "folder")
    what.folder_in.button.click()
    what.folder_out.button.click()
    choose(what.suffix, ".nrrd")
    what.smooth.setValue(1.5)
    what.smallest.setValue(30)
    assert state.wishes == PredictWishes(
        what="folder",
        images="/in",
        out="/out",
        suffix=".nrrd",
        smooth_planes=1.5,
        smallest_object=30,
    )
    choose(what.what, "slide")
    what.glass.click()
    assert not state.wishes.tissue_mask
    choose(what.what, "plane")
    choose(what.sureness, "confidence")
    assert state.wishes.sureness == "confidence"


def test_only_what_counts_can_be_set_and_the_rest_says_why(
    dock: PredictDockWidget, state: PredictState
) -> None:
    what = dock.what
    state.wishes = replace(state.wishes, what="plane")
    assert not what.smooth.isEnabled()
    assert what.smooth.toolTip() == NOT_SMOOTHED
    assert what.glass.isHidden()
    assert what.folder_in.isHidden()
    state.wishes = replace(state.wishes, what="slide")
    assert not what.glass.isHidden()
    state.wishes = replace(state.wishes, sureness="confidence")
    assert not what.sureness.isEnabled()
    assert what.sureness.toolTip() == NOT_OF_FILES
    assert what.sureness.currentData() is None  # as it will be
    state.wishes = replace(state.wishes, what="stack", smooth_planes=1.0)
    assert what.sureness.toolTip() == NOT_OF_SMOOTHED
    state.wishes = replace(state.wishes, smooth_planes=0.0)
    assert what.sureness.isEnabled()
    assert what.sureness.currentData() == "confidence"
    state.wishes = replace(state.wishes, what="folder")
    assert not what.folder_in.isHidden()
    assert what.images.isHidden()
    state.progress = 0.5
    for each in (what.what, what.smooth, what.smallest, what.folder_in.button):
        assert not each.isEnabled()
        assert "cancel it" in each.toolTip()


def test_what_the_image_does_not_have_cannot_be_chosen(
    dock: PredictDockWidget, state: PredictState
) -> None:
    state.refused = {"stack": "It has one plane."}
    entries: Any = dock.what.what.model()
    place = dock.what.what.findData("stack")
    assert not entries.item(place).isEnabled()
    assert entries.item(place).toolTip() == "It has one plane."
    state.refused = {}
    assert entries.item(place).isEnabled()


def test_predict_says_why_not_and_cancel_waits(
    dock: PredictDockWidget, state: PredictState, qtbot: QtBot
) -> None:
    run = dock.run
    assert run.predict_button.isEnabled()
    assert not run.cancel_button.isEnabled()
    with qtbot.waitSignal(run.predict_pressed):
        run.predict_button.click()
    state.cannot_predict = "Open an image first."
    assert not run.predict_button.isEnabled()
    assert run.predict_button.toolTip() == "Open an image first."
    assert "Open an image first." in run.why_not.text()
    state.progress, state.speed = 0.25, "2.00 Mpx/s, 0:00:10 left"
    assert run.progress.value() == 250
    assert run.speed.text() == "2.00 Mpx/s, 0:00:10 left"
    assert run.why_not.isHidden()
    with qtbot.waitSignal(run.cancel_pressed):
        run.cancel_button.click()


def test_models_are_chosen_from_the_list_or_a_file(
    dock: PredictDockWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    dock.model.chosen.connect(told.append)
    choose(dock.model.models, "/a/m.safetensors")
    monkeypatch.setattr(
        QFileDialog, "getOpenFileName", lambda *_: ("/b.safetensors", "")
    )
    dock.model.file_button.click()
    assert told == ["/a/m.safetensors", "/b.safetensors"]


@pytest.mark.parametrize(
    ("given", "kind", "wished"),
    [
        ("/a/l", "GeoJSON, for QuPath (*.geojson)", "/a/l.geojson"),
        ("/a/l", "NIfTI (*.nii.gz *.nii)", "/a/l.nii.gz"),
        ("/a/l.csv", "NIfTI (*.nii.gz *.nii)", "/a/l.csv"),
        ("/a/l", "", "/a/l.png"),
        ("", "", None),
    ],
)
def test_labels_are_exported_in_the_format_that_is_chosen(
    dock: PredictDockWidget,
    state: PredictState,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    kind: str,
    wished: str | None,
) -> None:
    assert not kind or kind in FILTERS
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (given, kind))
    told: list[str] = []
    dock.export.export_wished.connect(told.append)
    state.cannot_export = "There are no labels."
    assert not dock.export.export_button.isEnabled()
    assert dock.export.export_button.toolTip() == "There are no labels."
    state.cannot_export = ""
    dock.export.export_button.click()
    assert told == ([] if wished is None else [wished])


def test_what_was_chosen_is_remembered(
    state: PredictState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "settings.ini")
    monkeypatch.setattr(
        settings, "stored", lambda: QSettings(path, QSettings.Format.IniFormat)
    )
    model = tmp_path / "m.safetensors"
    model.touch()
    state.wishes = PredictWishes(
        model=str(model), what="folder", sureness="uncertainty", images="/in é"
    )
    predict_settings.keep(state)
    again = PredictState()
    predict_settings.restore(again)
    assert again.wishes == state.wishes
    # A model that is gone is not chosen.
    model.unlink()
    predict_settings.restore(again)
    assert again.wishes == replace(state.wishes, model="")
    settings.stored().setValue(predict_settings.GROUP, '{"what": "everything"}')
    untouched = PredictState()
    predict_settings.restore(untouched)
    assert untouched.wishes == PredictWishes()


def test_napari_lists_the_dock() -> None:
    manifest = PluginManifest.from_file(str(files("napari_sparseseg") / "napari.yaml"))
    names = [each.display_name for each in manifest.contributions.widgets or ()]
    assert names == ["Label and train", "Boxes", "Predict and export"]
