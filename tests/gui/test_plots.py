"""The plots show how the training goes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtGui import QColor

from napari_sparseseg.gui.plots import REDRAW_MS, PlotsWidget
from napari_sparseseg.gui.state import CurvePoint

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.curves import Curves
    from napari_sparseseg.gui.state import State

pytestmark = pytest.mark.usefixtures("no_leaks")

CURVE = (
    CurvePoint(25, 0.5, {1: 0.6, 4: 0.4}),
    CurvePoint(50, 0.6, {1: 0.7, 4: 0.6, 7: 0.5}),
)


@pytest.fixture
def widget(no_leaks: None, qtbot: QtBot, state: State) -> PlotsWidget:
    """Make the plots of the state."""
    widget = PlotsWidget(state)
    qtbot.addWidget(widget)
    return widget


def drawn(widget: PlotsWidget) -> Curves:
    """Give the curves as they are drawn now."""
    widget.draw()
    assert widget.curves is not None
    return widget.curves


def test_nothing_is_shown_before_there_is_something(widget: PlotsWidget) -> None:
    assert widget.curves is None
    assert widget.legend.isHidden()
    assert widget.shown.isHidden()


def test_losses_are_drawn_over_steps(widget: PlotsWidget, state: State) -> None:
    state.losses = ((1, 2.0), (2, 1.5), (5, 0.7))
    steps, losses = drawn(widget).loss.getData()
    np.testing.assert_array_equal(steps, [1, 2, 5])
    np.testing.assert_array_equal(losses, [2.0, 1.5, 0.7])


def test_dice_is_drawn_by_class_in_its_colour(
    widget: PlotsWidget, state: State
) -> None:
    state.curve = CURVE
    curves = drawn(widget)
    steps, scores = curves.overall.getData()
    np.testing.assert_array_equal(steps, [25, 50])
    np.testing.assert_array_equal(scores, [0.5, 0.6])
    steps, scores = curves.dice[4].getData()
    np.testing.assert_array_equal(steps, [25, 50])
    np.testing.assert_array_equal(scores, [0.4, 0.6])
    steps, scores = curves.dice[7].getData()
    np.testing.assert_array_equal(steps, [50])
    np.testing.assert_array_equal(scores, [0.5])
    assert curves.dice[4].opts["pen"].color() == QColor(200, 30, 30)
    state.classes = state.classes.recolored(4, (1, 2, 250))
    assert drawn(widget).dice[4].opts["pen"].color() == QColor(1, 2, 250)


def test_the_line_of_a_class_that_is_deleted_goes(
    widget: PlotsWidget, state: State
) -> None:
    state.curve = CURVE
    assert set(drawn(widget).dice) == {1, 4, 7}
    state.classes = state.classes.removed(4)
    assert set(drawn(widget).dice) == {1, 7}
    assert "tumour" not in widget.legend.text()


def test_the_legend_names_classes_with_their_latest_dice(
    widget: PlotsWidget, state: State
) -> None:
    state.classes = state.classes.renamed(4, "a<b")
    state.curve = CURVE[:1]
    widget.draw()
    text = widget.legend.text()
    for words in ("all classes", "<b>0.50</b>", "a&lt;b", "<b>0.40</b>", "<b>—</b>"):
        assert words in text


@pytest.mark.parametrize(("ink", "edged"), [("white", True), ("black", False)])
def test_a_black_class_is_edged_on_a_dark_background_only(
    widget: PlotsWidget, state: State, ink: str, edged: bool
) -> None:
    state.curve = CURVE
    widget.setStyleSheet(f"color: {ink};")
    widget.ensurePolished()
    curves = drawn(widget)
    assert (curves.dice[1].opts["shadowPen"] is not None) == edged
    assert curves.overall.opts["pen"].color() == QColor(ink)


def test_what_predicts_is_said_before_it_is_scored(
    widget: PlotsWidget, state: State
) -> None:
    state.unsaved = True
    assert widget.timer.isActive()
    widget.draw()
    assert widget.shown.text() == "Now the quick start predicts."


def test_what_predicts_is_said_with_the_reason(
    widget: PlotsWidget, state: State
) -> None:
    state.curve, state.shown = CURVE, "both"
    widget.draw()
    assert widget.shown.text() == "Now quick start and network predict together."
    state.shown = "network"
    state.reason = "the network predicts: Dice on held-out strokes is higher"
    widget.draw()
    assert widget.shown.text().startswith("Now the network predicts: Dice")


def test_a_reason_is_not_said_of_something_else(
    widget: PlotsWidget, state: State
) -> None:
    state.shown = "network"
    state.reason = "the network predicts: Dice on held-out strokes is higher"
    state.shown = "head"
    widget.draw()
    assert widget.shown.text() == "Now the quick start predicts."
    state.reason = "The model tumour predicts"
    widget.draw()
    assert "tumour" in widget.shown.text()


def test_many_changes_are_drawn_once_in_half_a_second(
    widget: PlotsWidget, state: State, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REDRAW_MS >= 500
    widget.timer.setInterval(20)
    with qtbot.waitSignal(widget.timer.timeout):
        for step in range(1, 50):
            state.losses = (*state.losses, (step, 1.0 / step))
        assert widget.curves is None
    assert len(drawn(widget).loss.getData()[0]) == 49
    assert not widget.timer.isActive()


def test_opening_the_dock_imports_no_slow_library() -> None:
    code = (
        "import sys, napari_sparseseg.gui.dock; "
        "print([name for name in ('pyqtgraph', 'torch', 'napari') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
