"""A whole slide from opening to QuPath, with mouse and keys, in a real window."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari._app_model import get_app_model
from napari.utils.notifications import Notification, notification_manager
from npe2 import PluginManager, PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_sparseseg.engine.messages import Predicted
from napari_sparseseg.gui.fields import origin_of
from napari_sparseseg.gui.fields_drag import NAME
from tests.gui.test_fields_in_window import SlideUser
from tests.gui.test_journey import answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import napari
    from numpy.typing import NDArray

    from napari_sparseseg.gui.label_and_train import LabelAndTrain

SLIDE = "CMU-1-Small-Region"

#: Corners of fields, (y, x) in pixels of the slide.
FIRST, SECOND = ((300, 900), (812, 1412)), ((1200, 1700), (1640, 2212))

#: Of strokes in pixels of the slide, and how many of each class.
STROKE_PX, STROKES = 24, 3

GLASS, TISSUE = 1, 2


class Pathologist(SlideUser):
    """Chooses images in the dock."""

    def choose_image(self, name: str) -> None:
        combo = self.dock.pairs.images
        combo.setCurrentText(name)
        combo.activated.emit(combo.currentIndex())
        chosen = self.viewer.layers[name]
        self.wait(lambda: self.widget.controller.pairs.image is chosen)


@pytest.fixture
def user(
    window: tuple[napari.Viewer, LabelAndTrain], tmp_path: Path, npe2pm: PluginManager
) -> Iterator[Pathologist]:
    # Alone, else napari asks once which of two readers shall open such files.
    npe2pm.register(PluginManifest.from_distribution("napari-sparseseg"))
    viewer, widget = window
    # Fields are painted on as a whole.
    viewer.window.resize(1500, 950)
    user = Pathologist(viewer, widget, tmp_path)

    def note(notification: Notification) -> None:
        user.told.append(notification.message)

    notification_manager.notification_ready.connect(note)
    yield user
    notification_manager.notification_ready.disconnect(note)


def open_slide(user: Pathologist, path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Choose the file in the dialog of File > Open File(s)."""
    monkeypatch.setattr(
        QFileDialog, "getOpenFileNames", lambda *_, **__: ([str(path)], "")
    )
    command = "napari.window.file.open_files_dialog"
    get_app_model().commands.execute_command(command).result()
    user.wait(lambda: SLIDE in user.viewer.layers)
    user.viewer.reset_view()
    slide: Any = user.viewer.layers[SLIDE]
    assert slide.multiscale
    assert [str(unit) for unit in slide.units] == ["micrometer", "micrometer"]
    return slide


def make_field(user: Pathologist, corners: tuple[tuple[int, int], ...]) -> Any:
    """Press New field, and drag a rectangle."""
    before = set(user.viewer.layers)
    user.click(user.dock.pairs.fields.button)
    assert "Drag a rectangle" in user.dock.status.text()
    start, end = corners
    user.drag(start, np.mean(corners, axis=0), end)
    user.wait(lambda: not user.state.is_cutting)
    field, labels = [each for each in user.viewer.layers if each not in before]
    assert user.viewer.layers.selection.active is labels
    assert labels.mode == "paint"
    return field


def places(field: NDArray[Any], value: int) -> list[tuple[int, int]]:
    """Return where in a field strokes of a class fit: glass is pale, tissue is not."""
    box = STROKE_PX + 12
    y, x = (size // box for size in field.shape[:2])
    squares = field[: y * box, : x * box].mean(axis=-1).reshape(y, box, x, box)
    pale = squares.max(axis=(1, 3)) if value == TISSUE else -squares.min(axis=(1, 3))
    best = np.argsort(pale.ravel())[:STROKES]
    return [(int(i // x * box + box // 2), int(i % x * box + box // 2)) for i in best]


def paint(user: Pathologist, field: Any, corner: tuple[int, int]) -> None:
    """Look at a field, and paint strokes of both classes on it."""
    camera, (height, width) = user.viewer.scene.camera, field.data.shape[:2]
    camera.center = field.data_to_world((height / 2, width / 2))
    camera.zoom = 700 / (max(height, width) * field.scale[0])
    for value in (GLASS, TISSUE):
        user.pick_class(value)
        for y, x in places(field.data, value):
            middle, half = np.add(corner, (y, x)), (0, STROKE_PX / 2)
            user.drag(tuple(middle - half), tuple(middle), tuple(middle + half))
    labels = np.asarray(user.viewer.layers[f"{field.name} strokes"].data)
    assert set(np.unique(labels)) == {0, GLASS, TISSUE}


def check_outlines(path: Path, labels: NDArray[Any], corner: tuple[int, int]) -> None:
    """Check that outlines lie where the labels of a field are on its slide."""
    shapely = pytest.importorskip("shapely")
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    outlines = {
        name: shapely.union_all(
            [
                shapely.geometry.shape(each["geometry"])
                for each in features
                if each["properties"]["classification"]["name"] == name
            ]
        )
        for name in ("background", "structure")
    }
    (top, left), (height, width) = corner, labels.shape
    both = shapely.union_all(list(outlines.values()))
    assert shapely.equals(both, shapely.box(left, top, left + width, top + height))
    for y, x in np.random.default_rng(0).integers(0, (height, width), (50, 2)):
        name = ("background", "structure")[labels[y, x] - 1]
        point = shapely.Point(left + x + 0.5, top + y + 0.5)
        assert outlines[name].contains(point)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_fields_of_a_slide_from_opening_to_outlines(
    user: Pathologist, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = open_slide(user, data_dir / "formats" / "wsi" / f"{SLIDE}.svs", monkeypatch)
    user.take_picture("1 slide")

    # Esc gives up, wherever the focus is.
    user.click(user.dock.pairs.fields.button)
    user.take_picture("2 waits for a rectangle")
    user.press(Qt.Key.Key_Escape, Qt.KeyboardModifier.NoModifier)
    user.wait(lambda: not user.state.is_cutting)
    assert NAME not in user.viewer.layers

    first = make_field(user, FIRST)
    paint(user, first, FIRST[0])
    user.take_picture("3 first field")
    user.viewer.reset_view()
    second = make_field(user, SECOND)
    paint(user, second, SECOND[0])
    user.take_picture("4 second field")
    assert [field.name for field in (first, second)] == [
        f"{SLIDE} field 1",
        f"{SLIDE} field 2",
    ]
    for field in (first, second):
        origin = origin_of(field)
        assert origin is not None
        y, x = (int(start) for start in origin.field.offset_px)
        height, width = origin.shape
        # The mouse moves by pixels of the screen.
        start, end = FIRST if field is first else SECOND
        assert np.abs(np.subtract((y, x), start)).max() <= 4
        assert np.abs(np.subtract((y + height, x + width), end)).max() <= 8
        np.testing.assert_array_equal(
            field.data, slide.data[0][y : y + height, x : x + width]
        )

    user.dock.training.form.scale.setValue(0.25)
    user.dock.training.form.patch.setValue(64)
    user.wait(user.dock.training.train_button.isEnabled)
    user.click(user.dock.training.train_button)
    # All that is visible: the chosen field, the other one, and their slide.
    user.viewer.reset_view()
    user.see_more_than(2, Predicted)
    shown = {}
    for field in (second, first):
        shown[field] = user.viewer.layers[f"prediction of {field.name}"]
        labels = np.asarray(user.viewer.layers[f"{field.name} strokes"].data)
        painted, predicted = labels > 0, np.asarray(shown[field].data)
        assert predicted.all()
        assert np.mean(predicted[painted] == labels[painted]) > 0.9
    assert f"prediction of {SLIDE}" in user.viewer.layers
    user.take_picture("5 predicted")
    user.click(user.dock.training.stop_button)
    user.wait(lambda: user.state.phase == "idle" and user.state.progress is None)

    user.choose_image(second.name)
    user.wait(lambda: user.state.progress is None)
    path = user.folder / "second.geojson"
    answer(monkeypatch, "getSaveFileName", path)
    user.click(user.dock.model.export_button)
    origin = origin_of(second)
    assert origin is not None
    corner = (int(origin.field.offset_px[0]), int(origin.field.offset_px[1]))
    check_outlines(path, np.asarray(shown[second].data), corner)

    # The slide itself.
    seen = len(user.all(Predicted))
    user.choose_image(SLIDE)
    user.see_more_than(seen, Predicted)
    whole = user.viewer.layers[f"prediction of {SLIDE}"].data[0]
    y, x = corner
    height, width = second.data.shape[:2]
    assert np.all(whole[y : y + height, x : x + width] > 0)
    user.take_picture("6 slide predicted")
    assert not [sentence for sentence in user.told if "Written" not in sentence]
