"""Which plane of which image is predicted; with a viewer, without an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sparseseg.engine import messages

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from tests.gui.conftest import Table


@pytest.mark.parametrize("view", ["3D", "from a side"])
def test_says_why_nothing_is_predicted_in_other_views(
    table: Table, qtbot: QtBot, told: list[str], view: str
) -> None:
    dims = table.viewer.dims
    image = table.viewer.add_image(np.zeros((4, 20, 30), np.uint8), name="stack")
    table.controller.pairs.choose(image, None)
    table.controller.prediction.model_changed()
    (first,) = table.link.taken(messages.Predict)
    table.link.tell(
        messages.Predicted(
            generation=first.generation, shown="head", step=0, seconds=0.1
        )
    )

    if view == "3D":
        dims.ndisplay = 3
    else:
        dims.order = (1, 0, 2)
    table.controller.prediction.view_changed()
    qtbot.waitUntil(lambda: bool(told), timeout=5000)
    table.controller.prediction.model_changed()
    assert len(told) == 1
    assert "only planes of the image" in told[0]
    assert not table.link.taken(messages.Predict)

    # Who presses Once is told each time.
    table.controller.set_live("once")
    assert told == [told[0]] * 2

    dims.ndisplay, dims.order = 2, (0, 1, 2)
    table.controller.set_live("live")
    assert len(table.link.taken(messages.Predict)) == 1
    assert len(told) == 2
