"""New field: a rectangle of a slide becomes an image and labels at its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.layers import Image
from npe2 import PluginManager, PluginManifest

from napari_sparseseg.engine.messages import Predict, PutImage
from napari_sparseseg.gui import live_prediction, prediction_target
from napari_sparseseg.gui.fields import origin_of, prediction_level, slide_of
from napari_sparseseg.gui.fields_drag import NAME
from napari_sparseseg.gui.label_places import options_of
from napari_sparseseg.gui.layer_keys import SOURCE_KEY
from napari_sparseseg.gui.prediction_target import middle_of, window_around
from napari_sparseseg.gui.session_images import read_kept_images
from napari_sparseseg.io.export import export_labels
from napari_sparseseg.io.geometry import Field

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.layers import Labels
    from pytestqt.qtbot import QtBot

    from tests.gui.conftest import Table

#: Micrometres per pixel of the slide.
UM = 0.25


def levels(seed: int = 0) -> list[np.ndarray]:
    """Return three levels of noise, each of means of squares."""
    fine = np.random.default_rng(seed).integers(0, 255, (640, 960, 3), np.uint8)
    made = [fine]
    for _ in range(2):
        y, x = (size // 2 for size in made[-1].shape[:2])
        squares = made[-1].reshape(y, 2, x, 2, 3)
        made.append(np.rint(squares.mean(axis=(1, 3))).astype(np.uint8))
    return made


def add_slide(table: Table, name: str = "slide", um: float | None = UM) -> Image:
    """Add a slide, and choose it."""
    placed: dict[str, Any] = (
        {} if um is None else {"scale": (um, um), "units": ("um", "um")}
    )
    slide = table.viewer.add_image(
        levels(), name=name, rgb=True, multiscale=True, **placed
    )
    table.controller.pairs.choose(slide, None)
    return slide


def drag(table: Table, *corners: float) -> None:
    """Do what a drag on the canvas ends with."""
    table.controller.fields.drag.dragged.emit(corners)


def cut(table: Table, qtbot: QtBot, *corners: float, um: float | None = None) -> Image:
    """Cut a field out of the chosen slide, and work on it with new labels."""
    controller, before = table.controller, set(table.viewer.layers)
    controller.fields.start(um)
    drag(table, *corners)
    qtbot.waitUntil(lambda: not table.state.is_cutting, timeout=10_000)
    (field,) = set(table.viewer.layers) - before
    assert isinstance(field, Image)
    controller.pairs.choose(field, None)
    labels = controller.pairs.new_labels()
    controller.pairs.choose(field, labels)
    return field


def paint(table: Table, *values: int) -> Labels:
    """Paint a stroke of each value on what is worked on."""
    labels = table.controller.pairs.labels
    assert labels is not None
    for value in values:
        labels.data[8 * value, 4:40] = value
    table.controller.annotations.look_through()
    return labels


def test_a_field_has_the_pixels_of_its_place(table: Table, qtbot: QtBot) -> None:
    slide = add_slide(table)
    field = cut(table, qtbot, 101, 203, 301, 402)
    # 0.5 um per pixel is that of the second level: even rows and columns.
    np.testing.assert_array_equal(field.data, levels()[1][50:150, 101:201])
    assert field.name == "slide field 1"
    np.testing.assert_allclose(field.scale, (0.5, 0.5))
    assert [str(unit) for unit in field.units] == ["micrometer", "micrometer"]
    # The upper left corner of both lies at row 100, column 202 of the slide.
    corner = np.subtract(slide.data_to_world((100, 202)), UM / 2)
    np.testing.assert_allclose(np.subtract(field.data_to_world((0, 0)), 0.25), corner)
    pair = table.controller.pairs.current
    assert pair is not None
    assert pair.image is field
    np.testing.assert_allclose(pair.labels.translate, field.translate)
    assert [row.image for row in table.state.pairs] == ["slide field 1"]
    assert NAME not in table.viewer.layers
    assert "100 x 100 pixels of 0.5 µm" in table.state.status


def test_fields_lie_on_slides_that_are_turned_and_moved(
    table: Table, qtbot: QtBot
) -> None:
    slide = add_slide(table)
    slide.translate, slide.rotate = (1000, -500), 30
    field = cut(table, qtbot, 100, 200, 400, 500, um=1.0)
    for y, x in ((0, 0), (74, 0), (0, 74), (74, 74)):
        on_slide = slide.data_to_world((100 + 4 * y + 1.5, 200 + 4 * x + 1.5))
        np.testing.assert_allclose(field.data_to_world((y, x)), on_slide)


def test_several_fields_on_several_slides_train_together(
    table: Table, qtbot: QtBot
) -> None:
    add_slide(table)
    cut(table, qtbot, 0, 0, 200, 200)
    paint(table, 1)
    # The next one of the same slide, though a field is worked on.
    cut(table, qtbot, 200, 200, 400, 400)
    paint(table, 2)
    # At the resolution of the first, though this slide is a coarser one.
    add_slide(table, "other", um=0.4)
    third = cut(table, qtbot, 0, 0, 200, 200)
    paint(table, 1)
    np.testing.assert_allclose(third.scale, (0.5, 0.5))
    names = ["slide field 1", "slide field 2", "other field 1"]
    assert [row.image for row in table.state.pairs] == names
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    put = table.link.taken(PutImage)
    assert [each.name for each in put] == names
    assert {round(each.um_per_px, 6) for each in put} == {0.5}
    assert [np.load(each.pixels).shape for each in put[:2]] == [(100, 100, 3)] * 2


def test_a_slide_that_this_plugin_has_opened_is_known_by_its_path(
    table: Table, qtbot: QtBot
) -> None:
    slide = add_slide(table)
    # Of the list: napari has not opened it, and notes no path.
    slide.metadata[SOURCE_KEY] = {"path": "/slides/a.svs"}
    field = cut(table, qtbot, 0, 0, 200, 200)
    slide.name = "renamed"
    assert slide_of(field, table.viewer.layers) is slide
    other = add_slide(table)
    other.name = "other"
    table.viewer.layers.remove(slide)
    assert slide_of(field, table.viewer.layers) is None


def test_rectangles_that_are_no_field_are_told_and_drawn_again(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    add_slide(table)
    table.controller.fields.start(None)
    assert "Drag a rectangle on 'slide' for a field at 0.5 µm" in table.state.status
    drag(table, 10, 10, 20, 300)
    drag(table, 700, 10, 900, 300)
    assert table.state.is_cutting
    assert NAME in table.viewer.layers
    for sentence, said in zip(told, ("only 5 x 145", "lies outside"), strict=True):
        assert said in sentence
    table.controller.fields.cancel()
    assert [layer.name for layer in table.viewer.layers] == ["slide"]
    assert not table.state.is_cutting


@pytest.mark.parametrize("what", [NAME, "slide"])
def test_deleting_what_is_drawn_on_cancels(table: Table, what: str) -> None:
    add_slide(table)
    table.controller.fields.start(None)
    table.viewer.layers.remove(table.viewer.layers[what])
    assert not table.state.is_cutting
    assert NAME not in table.viewer.layers


def test_why_there_can_be_no_field(table: Table, qtbot: QtBot, told: list[str]) -> None:
    state, controller = table.state, table.controller
    assert state.cannot_cut == "Open a slide first."
    tile = table.add_image()
    controller.pairs.choose(tile, None)
    assert "'tile' can be painted whole" in state.cannot_cut
    slide = add_slide(table)
    assert not state.cannot_cut
    field = cut(table, qtbot, 0, 0, 200, 200)
    assert not state.cannot_cut
    table.viewer.layers.remove(slide)
    assert "The slide 'slide' is closed" in state.cannot_cut
    controller.fields.start(None)
    assert told == [state.cannot_cut]
    assert field in table.viewer.layers


def test_a_slide_without_pixel_size_gives_its_own_pixels_and_says_so(
    table: Table, qtbot: QtBot
) -> None:
    add_slide(table, um=None)
    table.controller.fields.start(0.5)
    assert "own pixels, whose size is not known" in table.state.status
    table.controller.fields.cancel()
    field = cut(table, qtbot, 10, 20, 110, 130, um=0.5)
    np.testing.assert_array_equal(field.data, levels()[0][10:110, 20:130])
    assert "whose size is not known" in table.state.status


@pytest.fixture
def readers(npe2pm: PluginManager) -> None:
    for distribution in ("napari", "napari-sparseseg"):
        npe2pm.register(PluginManifest.from_distribution(distribution))


def write_slide(path: Path) -> Path:
    with tifffile.TiffWriter(path, ome=False) as file:
        for number, level in enumerate(levels()):
            file.write(
                level,
                tile=(128, 128),
                photometric="rgb",
                subfiletype=int(number > 0),
                resolution=(1e4 / (UM * 2**number),) * 2,
                resolutionunit="CENTIMETER",
            )
    return path


@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize("moved", [False, True])
def test_a_session_cuts_its_fields_out_again(
    make_table: Callable[[], Table],
    qtbot: QtBot,
    tmp_path: Path,
    told: list[str],
    moved: bool,
) -> None:
    before, path = make_table(), write_slide(tmp_path / "a slide é.tif")
    (slide,) = before.viewer.open(path, plugin="napari-sparseseg")
    before.controller.pairs.choose(slide, None)
    fields = [
        cut(before, qtbot, 101, 203, 301, 402),
        cut(before, qtbot, 300, 300, 600, 600, um=0.6),
    ]
    painted = paint(before, 1, 2).data.copy()

    def is_hashed() -> bool:
        before.controller._kept_images.flush()
        records = read_kept_images(before.mirror.folder)
        return len(records) == 3 and all(each.content for each in records)

    qtbot.waitUntil(is_hashed, timeout=10_000)
    session = tmp_path / "s.sparseseg"
    before.controller.place.move(str(session))
    before.controller.close()
    records = {each.name: each for each in read_kept_images(session)}
    assert fields[1].name in records, list(records)
    origin = records[fields[1].name].field
    assert origin is not None
    assert origin == origin_of(fields[1])
    assert (origin.slide, origin.path) == (slide.name, str(path))
    assert (origin.field, origin.shape) == (Field((300, 300), 2.4), (125, 125))
    assert origin.um_per_px == pytest.approx(0.6)
    assert records[fields[1].name].content == records[slide.name].content
    if moved:
        path.rename(path.with_name("b.tif"))
    now = make_table()
    now.controller.place.open(str(session))
    assert not told
    names = [layer.name for layer in now.viewer.layers]
    assert names[0] == slide.name
    for field in fields:
        again: Any = now.viewer.layers[field.name]
        np.testing.assert_array_equal(again.data, field.data)
        np.testing.assert_allclose(again.scale, field.scale)
        np.testing.assert_allclose(again.translate, field.translate)
        assert again.units == field.units
    first, second = now.controller.annotations.pairs
    np.testing.assert_array_equal(second.labels.data, painted)
    assert second.image.name == fields[1].name
    # And the next field is cut out of the slide that was opened.
    now.controller.pairs.choose(first.image, first.labels)
    third = cut(now, qtbot, 0, 0, 200, 200)
    assert third.name == f"{slide.name} field 3"


def test_outlines_of_a_field_lie_on_the_slide(
    table: Table, qtbot: QtBot, tmp_path: Path
) -> None:
    shapely = pytest.importorskip("shapely")
    pytest.importorskip("rasterio")
    slide = add_slide(table)
    slide.translate = (70, 90)
    field = cut(table, qtbot, 100, 200, 400, 500, um=1.0)
    labels = np.zeros((75, 75), np.uint8)
    labels[10:20, 30:50] = 1
    table.controller.pairs.labels.data = labels  # type: ignore[union-attr]
    placed = {"scale": field.scale, "translate": field.translate}
    path = tmp_path / "a.geojson"
    options = options_of(placed, field, of_model=False)
    export_labels(labels, path, table.state.classes, None, options)
    (feature,) = json.loads(path.read_text())["features"]
    # x = 200 + 4 * 30 ... 200 + 4 * 50, y = 100 + 4 * 10 ... 100 + 4 * 20: pixels of
    # the slide's finest level, wherever the layers lie in napari.
    expected = shapely.box(320, 140, 400, 180)
    assert shapely.equals(shapely.geometry.shape(feature["geometry"]), expected)
    # Labels on a part of the field.
    part = placed | {"scale": field.scale * 2, "translate": field.translate + 0.5}
    assert options_of(part, field, of_model=False).field == Field((100, 200), 8)


def test_which_level_of_a_slide_is_predicted() -> None:
    slide = Image(levels(), multiscale=True, rgb=True, scale=(UM, UM), units="um")
    assert [prediction_level(slide, um) for um in (0.1, 0.25, 0.5, 0.7, 1.0, 9)] == [
        *(0, 0, 1, 1, 2, 2)
    ]
    assert prediction_level(slide, None) == 0
    assert prediction_level(Image(np.zeros((9, 9))), 0.5) == 0


def test_windows_hold_what_is_seen_and_what_is_around() -> None:
    assert middle_of((0, 10, 5000, 90)) == (452, 10, 4548, 90)
    assert window_around((1000, 300, 1100, 400), (1500, 9000)) == (512, 0, 1500, 1024)
    # The camera may move a little.
    assert window_around((1010, 310, 1110, 410), (1500, 9000)) == (512, 0, 1500, 1024)


def test_of_a_large_slide_what_is_seen_is_predicted(
    table: Table, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_target, "MOST_PIXELS", 100 * 100)
    monkeypatch.setattr(prediction_target, "AROUND_PX", 32)
    monkeypatch.setattr(prediction_target, "GRID_PX", 64)
    monkeypatch.setattr(live_prediction, "DEBOUNCE_MS", 1)
    slide = add_slide(table)
    field = cut(table, qtbot, 0, 0, 200, 200)
    paint(table, 1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.pairs.choose(slide, None)
    # Learned at 0.5 um: on the second level. napari tells what is seen of the third.
    slide.corner_pixels = np.array([[50, 60], [69, 89]])
    slide._data_level = 2
    table.controller.prediction.model_changed()
    (request,) = table.wait_for(qtbot, Predict)
    # Rows 100 ... 140 and columns 120 ... 180 of the level, which lie in cells from
    # (96, 112) to (144, 192), read from (64, 64) on.
    assert request.view == request.region == (32, 48, 80, 128)
    np.testing.assert_array_equal(np.load(request.pixels), levels()[1][64:192, 64:256])
    assert request.um_per_px == pytest.approx(0.5)
    answer = np.load(request.labels, mmap_mode="r+")
    answer[32:80, 48:128] = 2
    target = table.controller.prediction._target
    assert target is not None
    target.show((32, 48, 80, 128))
    shown: Any = table.viewer.layers["prediction of slide"]
    assert np.argwhere(np.asarray(shown.data[0])).min(axis=0).tolist() == [96, 112]
    assert np.argwhere(np.asarray(shown.data[0])).max(axis=0).tolist() == [143, 191]
    # It lies on the slide, under the field and its strokes.
    names = [layer.name for layer in table.viewer.layers]
    assert names.index("prediction of slide") == 1
    assert field in table.viewer.layers
    np.testing.assert_allclose(shown.scale, (0.5, 0.5))
    assert target.is_fresh()
