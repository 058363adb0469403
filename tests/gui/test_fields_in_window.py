"""A rectangle is dragged on a slide with the mouse, in a real window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt

from napari_sparseseg.gui.fields_drag import NAME
from tests.gui.mouse import drag
from tests.gui.test_journey import User

if TYPE_CHECKING:
    from pathlib import Path

    import napari
    import pytest

    from napari_sparseseg.gui.label_and_train import LabelAndTrain


class SlideUser(User):
    """Points at pixels of the slide, which is the lowest layer."""

    def drag(self, *points: tuple[float, float]) -> None:
        drag(self.viewer, self.viewer.layers[0], *points)


def test_a_rectangle_becomes_a_field_that_is_painted_on(
    stub_engine: pytest.FixtureRequest,
    window: tuple[napari.Viewer, LabelAndTrain],
    tmp_path: Path,
) -> None:
    viewer, widget = window
    user = SlideUser(viewer, widget, tmp_path)
    fine = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    slide = viewer.add_image(
        [fine, fine[::2, ::2]],
        name="slide",
        rgb=True,
        multiscale=True,
        scale=(0.5, 0.5),
        units="um",
    )
    viewer.reset_view()
    button = widget.dock.pairs.fields.button

    user.click(button)
    assert "Drag a rectangle on 'slide'" in widget.dock.status.text()
    assert viewer.layers.selection.active is viewer.layers[NAME]
    user.press(Qt.Key.Key_Escape, Qt.KeyboardModifier.NoModifier)
    user.wait(lambda: not user.state.is_cutting)
    assert viewer.layers == [slide]

    user.click(button)
    user.drag((100, 120), (200, 200), (300, 320))
    user.wait(lambda: not user.state.is_cutting)
    _, field, labels = viewer.layers
    assert (field.name, labels.name) == ("slide field 1", "slide field 1 strokes")
    y, x = np.round(slide.world_to_data(field.data_to_world((0, 0)))).astype(int)
    # The mouse moves by pixels of the screen.
    assert max(abs(y - 100), abs(x - 120)) <= 2
    height, width = field.data.shape[:2]
    assert max(abs(height - 200), abs(width - 200)) <= 4
    np.testing.assert_array_equal(field.data, fine[y : y + height, x : x + width])

    camera: Any = getattr(viewer, "scene", viewer).camera
    middle = field.data_to_world((height / 2, width / 2))
    np.testing.assert_allclose(camera.center[-2:], middle, atol=1)

    user.pick_class(2)
    user.drag((150, 150), (150, 170), (150, 190))
    painted: Any = np.argwhere(np.asarray(labels.data) == 2)
    middle = np.add(painted.mean(axis=0), (y, x))
    assert np.abs(middle - (150, 170)).max() < 3
    assert [row.labels for row in user.state.pairs] == [labels.name]
