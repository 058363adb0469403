"""The views of boxes show the state and tell wishes; settings are remembered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from qtpy.QtCore import QSettings, Qt
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine.messages import CrfSettings, MaskMethod, MaskSettings
from napari_sparseseg.gui import boxes_settings, settings
from napari_sparseseg.gui.boxes_dock import BoxesDockWidget
from napari_sparseseg.gui.boxes_method_widget import METHODS
from napari_sparseseg.gui.boxes_state import BoxesState, BoxRow
from napari_sparseseg.gui.boxes_table_model import CLASS, MASK, WHERE
from tests.gui.mouse import choose

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.usefixtures("no_leaks")

ROWS = (
    BoxRow(2, "liver", "plane 1, 10 x 12 px", "proposed", 0.5),
    BoxRow(3, "tumour", "plane 2, 4 x 8 px", "accepted", 0.25),
    BoxRow(2, "liver", status="skipped", problem="it has no pixel in the image"),
)


@pytest.fixture
def state() -> BoxesState:
    return BoxesState(
        classes=ClassTable().add("background").add("liver").add("tumour"),
        drawn_class=2,
        settings=MaskSettings(background=1),
        rows=ROWS,
        engine="ready",
    )


@pytest.fixture
def dock(no_leaks: None, qtbot: QtBot, state: BoxesState) -> BoxesDockWidget:
    """Make the dock of the state, which takes all settings that are wished for."""
    dock = BoxesDockWidget(state)
    qtbot.addWidget(dock)
    dock.method.changed.connect(lambda wished: setattr(state, "settings", wished))
    return dock


def collect(signal: Any) -> list[Any]:
    told: list[Any] = []
    signal.connect(lambda *values: told.append(values))
    return told


class TestMethod:
    def test_each_is_named_and_explained(self, dock: BoxesDockWidget) -> None:
        combo = dock.method.method
        methods = [combo.itemData(place) for place in range(combo.count())]
        assert sorted(methods) == sorted(get_args(MaskMethod))
        for method in methods:
            choose(combo, method)
            assert f"({method})" in combo.currentText()
            assert dock.method.method_note.text() == METHODS[method][1]

    def test_a_choice_is_wished_for(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        choose(dock.method.method, "cam")
        choose(dock.method.backbone, "resnet18")
        choose(dock.method.weights.combo, "imagenet")
        choose(dock.method.background, 0)
        assert state.settings == MaskSettings(
            method="cam", backbone="resnet18", weights="imagenet", background=0
        )

    def test_the_crf_is_as_the_method_has_it(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        crf = dock.method.crf
        assert crf.isChecked()  # of acol
        crf.click()
        assert state.settings == MaskSettings(background=1, crf=False)
        assert not dock.method.form.numbers["w1"].isEnabled()
        choose(dock.method.method, "grabcut")
        assert state.settings == MaskSettings(background=1, method="grabcut")
        assert not crf.isChecked()
        crf.click()
        assert state.settings.crf is True
        for method, checked in (("box", False), ("crf-box", True)):
            choose(dock.method.method, method)
            assert crf.isChecked() == checked
            assert not crf.isEnabled()
            assert crf.toolTip().endswith(".")

    def test_only_what_a_method_uses_can_be_set(self, dock: BoxesDockWidget) -> None:
        choose(dock.method.method, "grabcut")
        assert dock.method.network.isHidden()
        assert not dock.method.form.epochs.isEnabled()
        choose(dock.method.method, "acol")
        assert not dock.method.network.isHidden()
        assert dock.method.form.epochs.isEnabled()

    def test_weights_come_from_a_file(
        self,
        dock: BoxesDockWidget,
        state: BoxesState,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        chosen = ["", "/data/resnet18.pth"]
        monkeypatch.setattr(
            QFileDialog, "getOpenFileName", lambda *_: (chosen.pop(0), "")
        )
        choose(dock.method.weights.combo, "file")
        assert state.settings.weights == "none"
        assert dock.method.weights.combo.currentData() == "none"
        choose(dock.method.weights.combo, "file")
        assert state.settings.weights == "/data/resnet18.pth"
        assert dock.method.weights.combo.currentText() == "resnet18.pth"

    def test_nothing_changes_while_masks_are_made(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        state.progress = 0.5
        assert not dock.method.method.isEnabled()
        state.progress = None
        assert dock.method.method.isEnabled()


class TestAdvanced:
    def test_numbers_are_wished_for(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        form: Any = dock.method.form
        form.numbers["theta_alpha"].setValue(12.0)
        form.numbers["theta_beta"].setValue(8.0)
        form.numbers["w2"].setValue(0.0)
        form.numbers["iterations"].setValue(9)
        assert state.settings.crf_options == CrfSettings(
            theta_alpha=12.0, theta_beta=8.0, w2=0.0, iterations=9
        )
        form.numbers["theta_alpha"].setValue(0.0)
        assert state.settings.crf_options.theta_alpha is None
        form.epochs.setValue(7)
        form.seconds.setValue(60)
        form.seed.setValue(3)
        assert state.settings.epochs == 7
        assert state.settings.seconds == 60
        assert state.settings.seed == 3
        form.epochs.setValue(0)
        form.seconds.setValue(0)
        assert state.settings == MaskSettings(
            background=1, crf_options=state.settings.crf_options, seed=3
        )

    def test_windows_are_known_by_name(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        form = dock.method.form
        names = [
            form.known_windows.itemText(place)
            for place in range(form.known_windows.count())
        ]
        assert {"liver", "soft tissue", "lung", "bone", "brain"} < set(names)
        assert not form.centre_box.isEnabled()
        form.known_windows.setCurrentText("liver")
        form.known_windows.activated.emit(form.known_windows.currentIndex())
        assert state.settings.window == (30.0, 150.0)
        assert (form.centre_box.value(), form.width_box.value()) == (30.0, 150.0)
        form.centre_box.setValue(35)
        assert state.settings.window == (35.0, 150.0)
        assert form.known_windows.currentIndex() == -1

    def test_devices_are_those_of_the_engine(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        state.devices = (("cuda", "GPU"), ("cpu", "CPU, 2 threads"))
        choose(dock.method.form.device, "cuda")
        assert state.settings.device == "cuda"

    def test_a_preview_is_wished_for(self, dock: BoxesDockWidget) -> None:
        told = collect(dock.method.preview_wished)
        dock.method.form.preview.click()
        assert told == [(False,)]


class TestTable:
    def test_rows_are_shown(self, dock: BoxesDockWidget) -> None:
        model = dock.table.model
        shown = [
            [model.data(model.index(row, column)) for column in (CLASS, WHERE, MASK)]
            for row in range(model.rowCount())
        ]
        assert shown == [
            ["liver", "plane 1, 10 x 12 px", "proposed"],
            ["tumour", "plane 2, 4 x 8 px", "✓ accepted"],
            ["liver", "", "skipped"],
        ]
        hint = model.data(model.index(2, 0), Qt.ItemDataRole.ToolTipRole)
        assert hint == "Box 3 is skipped: it has no pixel in the image."
        assert hint in dock.table.problem.text()
        hint = model.data(model.index(1, 0), Qt.ItemDataRole.ToolTipRole)
        assert "The mask fills 25% of it" in hint

    def test_a_mask_without_a_pixel_is_named(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        state.rows = (replace(ROWS[0], share=0.0), *ROWS[1:])
        model = dock.table.model
        assert model.data(model.index(0, MASK)) == "nothing found"

    def test_picking_goes_both_ways(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        told = collect(dock.table.picked)
        state.picked = (0, 2)
        assert dock.table._picked_rows() == (0, 2)
        assert told == []
        dock.table.table.selectRow(1)
        assert told == [((1,),)]

    def test_buttons_are_for_the_picked(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        table = dock.table
        assert not table.accept_button.isEnabled()
        assert "Pick a box" in table.redo_button.toolTip()
        signals = (table.accept_wished, table.redo_wished, table.delete_wished)
        told = [collect(signal) for signal in signals]
        state.picked = (0, 1)
        for button in (table.accept_button, table.redo_button, table.delete_button):
            button.click()
        assert told == [[((0, 1),)]] * 3
        table.accept_all_button.click()
        assert told[0][-1] == ((0,),)
        state.picked = (1,)
        assert not table.accept_button.isEnabled()
        state.cannot_redo = "This cannot be."
        assert table.redo_button.toolTip() == "This cannot be."
        state.rows = (replace(ROWS[0], status="drawn"),)
        assert not table.accept_all_button.isEnabled()
        assert not table.undo_button.isEnabled()
        state.can_undo = True
        assert table.undo_button.isEnabled()

    def test_another_class_is_chosen_from_a_menu(
        self,
        dock: BoxesDockWidget,
        state: BoxesState,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        told = collect(dock.table.class_wished)
        state.picked = (0,)
        monkeypatch.setattr(QMenu, "exec", lambda menu, _: menu.actions()[2])
        dock.table.class_button.click()
        monkeypatch.setattr(QMenu, "exec", lambda *_: None)
        dock.table.class_button.click()
        assert told == [((0,), 3)]


class TestRun:
    def test_masks_are_asked_for(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        run = dock.run
        told = collect(run.generate_pressed), collect(run.picked_pressed)
        state.picked = (1,)
        run.generate_button.click()
        run.picked_button.click()
        assert told == ([()], [((1,),)])
        assert not run.cancel_button.isEnabled()

    def test_progress_is_seen_and_can_be_cancelled(
        self, dock: BoxesDockWidget, state: BoxesState
    ) -> None:
        told = collect(dock.run.cancel_pressed)
        state.progress = 0.4
        assert dock.run.progress.value() == 40
        assert not dock.run.generate_button.isEnabled()
        dock.run.cancel_button.click()
        assert told == [()]
        state.progress = None
        assert dock.run.progress.isHidden()

    def test_why_not_is_said(self, dock: BoxesDockWidget, state: BoxesState) -> None:
        state.cannot_generate = "Open an image first."
        assert "Open an image first." in dock.run.why_not.text()
        assert not dock.run.generate_button.isEnabled()
        state.cannot_train = "Generate masks first."
        assert dock.train_button.toolTip() == "Generate masks first."
        state.cannot_train = ""
        told = collect(dock.train_pressed)
        dock.train_button.click()
        assert told == [()]


class TestLayers:
    def test_the_class_of_new_boxes(
        self,
        dock: BoxesDockWidget,
        state: BoxesState,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        layers = dock.layers
        told = collect(layers.class_chosen), collect(layers.class_added)
        assert layers.classes.currentText() == "liver"
        choose(layers.classes, 3)
        assert told[0] == [(3,)]
        for answer in (("spleen ", True), ("kidney", False), (" ", True)):
            monkeypatch.setattr(QInputDialog, "getText", lambda *_, a=answer: a)
            layers.add_class_button.click()
        assert told[1] == [("spleen",)]
        state.classes = state.classes.renamed(2, "Leber")
        assert layers.classes.currentText() == "Leber"

    def test_layers_are_offered(self, dock: BoxesDockWidget) -> None:
        layers = dock.layers
        assert not layers.new_boxes_button.isEnabled()
        told = collect(layers.image_chosen), collect(layers.new_boxes_pressed)
        layers.set_images(["ct", "mr"])
        assert layers.images.currentText() == "ct"
        layers.new_boxes_button.click()
        layers.images.setCurrentText("mr")
        assert told == ([(), ()], [()])

    def test_no_labels_are_chosen_but_by_the_user(self, dock: BoxesDockWidget) -> None:
        layers = dock.layers
        told = collect(layers.labels_chosen)
        layers.set_labels(["strokes", "masks"], "")
        assert layers.labels.currentText() == ""
        layers.set_labels(["strokes", "masks"], "masks")
        assert layers.labels.currentText() == "masks"
        assert told == []
        layers.labels.setCurrentText("strokes")
        assert told == [("strokes",)]

    def test_no_boxes_are_chosen_but_by_the_user(self, dock: BoxesDockWidget) -> None:
        layers = dock.layers
        told = collect(layers.boxes_chosen)
        layers.set_boxes(["boxes", "others"], "")
        assert layers.boxes.currentText() == ""
        layers.set_boxes(["boxes", "others"], "boxes")
        assert layers.boxes.currentText() == "boxes"
        assert told == []
        layers.boxes.setCurrentText("others")
        assert told == [("others",)]


def test_settings_are_remembered_but_for_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.ini"
    monkeypatch.setattr(
        settings, "stored", lambda: QSettings(str(path), QSettings.Format.IniFormat)
    )
    wished = MaskSettings(
        method="grabcut",
        crf=True,
        crf_options=CrfSettings(theta_alpha=3.5),
        window=(40.0, 400.0),
        background=2,
    )
    boxes_settings.keep(BoxesState(settings=wished))
    state = BoxesState()
    boxes_settings.restore(state)
    assert state.settings == replace(wished, background=0)
    for damaged in ("{", '{"method": "guess"}', '{"colour": 1}'):
        settings.stored().setValue(boxes_settings.GROUP, damaged)
        state = BoxesState()
        boxes_settings.restore(state)
        assert state.settings == MaskSettings()
