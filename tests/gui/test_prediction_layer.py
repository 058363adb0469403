"""One prediction layer on each image: written in place, honest about its age."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.gui import prediction_layer
from napari_sparseseg.gui.class_colors import class_colormap
from napari_sparseseg.gui.freshness import CELL_PX, Freshness
from napari_sparseseg.gui.planes import PlaneKey
from napari_sparseseg.gui.prediction_layer import (
    DIMMED,
    PredictionLayer,
    is_prediction,
)
from napari_sparseseg.gui.pyramid import Pyramid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Image, Labels
    from pytestqt.qtbot import QtBot

PLANE = PlaneKey()
CLASSES = ClassTable().add("nucleus", (255, 0, 0)).add("stroma", (0, 0, 255))
PLACE: dict[str, Any] = {
    "scale": (0.5, 0.25),
    "translate": (10, -3),
    "rotate": 20,
    "shear": [0.1],
    "units": ("um", "um"),
}

pytestmark = pytest.mark.usefixtures("qapp")


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def image(viewer: ViewerModel) -> Image:
    return viewer.add_image(np.zeros((200, 300), np.uint8), name="tile", **PLACE)


@pytest.fixture
def strokes(viewer: ViewerModel, image: Image) -> Labels:
    return viewer.add_labels(np.zeros((200, 300), np.uint8), name="strokes", **PLACE)


@pytest.fixture
def prediction(
    viewer: ViewerModel, image: Image, strokes: Labels
) -> Iterator[PredictionLayer]:
    prediction = PredictionLayer(viewer.layers, image, CLASSES)
    prediction.lie_under(strokes)
    yield prediction
    prediction.remove()


def values(*shape: int, highest: int = 2) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(1, highest + 1, shape).astype(np.uint8)


def shown_layer(prediction: PredictionLayer) -> Labels:
    """Give the layer, which must be there."""
    assert prediction.layer is not None
    return prediction.layer


def test_the_layer_lies_on_its_image_under_the_strokes(
    viewer: ViewerModel, prediction: PredictionLayer, image: Image, strokes: Labels
) -> None:
    viewer.layers.selection.active = strokes
    assert prediction.layer is None
    prediction.write((0, 0, 200, 300), PLANE, values(200, 300))
    layer = shown_layer(prediction)
    assert [each.name for each in viewer.layers] == [
        "tile",
        "prediction of tile",
        "strokes",
    ]
    assert viewer.layers.selection.active is strokes
    for point in [(0, 0), (199, 299), (7, 250)]:
        np.testing.assert_allclose(
            layer.data_to_world(point), image.data_to_world(point)
        )
    assert layer.units == image.units
    assert not layer.editable
    assert is_prediction(layer)
    assert not is_prediction(strokes)
    np.testing.assert_allclose(layer.get_color(1), (1, 0, 0, 1))
    np.testing.assert_allclose(layer.get_color(2), (0, 0, 1, 1))
    np.testing.assert_allclose(layer.colormap.map(0), 0)
    np.testing.assert_allclose(layer.colormap.map(77), 0)


def test_the_layer_lies_on_its_image_also_where_the_strokes_are_below(
    viewer: ViewerModel, image: Image, strokes: Labels
) -> None:
    second = viewer.add_image(np.zeros((20, 30), np.uint8), name="second")
    prediction = PredictionLayer(viewer.layers, second, CLASSES)
    prediction.lie_under(strokes)
    prediction.write((0, 0, 20, 30), PLANE, values(20, 30))
    prediction.write_confidence((0, 0, 20, 30), PLANE, np.ones((20, 30)))
    assert [each.name for each in viewer.layers] == [
        "tile",
        "strokes",
        "second",
        "confidence of second",
        "prediction of second",
    ]
    prediction.remove()


def test_parts_are_written_in_place_and_never_into_a_history(
    prediction: PredictionLayer,
) -> None:
    prediction.write((0, 0, 10, 10), PLANE, values(10, 10))
    layer = shown_layer(prediction)
    data = layer.data
    part = values(30, 40)
    prediction.write((100, 200, 130, 240), PLANE, part)
    assert layer.data is data
    np.testing.assert_array_equal(layer.data[100:130, 200:240], part)
    assert np.count_nonzero(layer.data) == 100 + 30 * 40
    before = data.copy()
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)
    np.testing.assert_array_equal(prediction.labels[PLANE.index], before)


def test_planes_of_a_stack_are_written_each(viewer: ViewerModel) -> None:
    image = viewer.add_image(np.zeros((2, 5, 20, 30, 3), np.uint8), rgb=True)
    prediction = PredictionLayer(viewer.layers, image, CLASSES)
    part = values(20, 30)
    prediction.write((0, 0, 20, 30), PlaneKey((1, 3)), part)
    layer = shown_layer(prediction)
    assert layer.data.shape == (2, 5, 20, 30)
    np.testing.assert_array_equal(layer.data[1, 3], part)
    assert np.count_nonzero(layer.data) == part.size


def test_many_writes_ask_for_one_refresh(
    prediction: PredictionLayer, qtbot: QtBot
) -> None:
    prediction.write((0, 0, 200, 300), PLANE, values(200, 300))
    layer = shown_layer(prediction)
    refreshed: list[int] = []
    layer.events.set_data.connect(lambda: refreshed.append(1))
    start = time.perf_counter()
    for _ in range(50):
        prediction.write((0, 0, 8, 8), PLANE, values(8, 8))
    n_frames = (time.perf_counter() - start) * 1e3 / prediction_layer.REFRESH_MS
    qtbot.waitUntil(lambda: len(refreshed) > 0)
    qtbot.wait(3 * prediction_layer.REFRESH_MS)
    assert len(refreshed) <= n_frames + 2


def test_levels_agree_whatever_the_order_of_the_tiles(viewer: ViewerModel) -> None:
    shapes = [(101, 131), (51, 66), (26, 33)]
    image = viewer.add_image(
        [np.zeros(shape, np.uint8) for shape in shapes], multiscale=True
    )
    whole = values(101, 131, highest=200)
    tiles = [
        (y, x, min(y + 17, 101), min(x + 23, 131))
        for y in range(0, 101, 17)
        for x in range(0, 131, 23)
    ]
    at_once = Pyramid(image, 0, np.uint8)
    at_once.paste(PLANE, (0, 0, 101, 131), whole)
    by_tiles = Pyramid(image, 0, np.uint8)
    for number in np.random.default_rng(0).permutation(len(tiles)):
        y0, x0, y1, x1 = tiles[number]
        by_tiles.paste(PLANE, tiles[number], whole[y0:y1, x0:x1])
    for level, shape in enumerate(shapes):
        one, many = at_once.arrays[level], by_tiles.arrays[level]
        assert one.shape == shape
        assert one.all()
        np.testing.assert_array_equal(one, many)
        # The fine pixel that the centre of each coarse one lies in.
        y, x = np.indices(shape)
        factors = np.divide(shapes[0], shape)
        np.testing.assert_array_equal(
            one,
            whole[
                np.floor((y + 0.5) * factors[0]).astype(int),
                np.floor((x + 0.5) * factors[1]).astype(int),
            ],
        )


def test_a_multiscale_image_gets_a_multiscale_prediction(viewer: ViewerModel) -> None:
    levels = [np.zeros((side, side), np.uint8) for side in (256, 128, 64)]
    image = viewer.add_image(levels, multiscale=True, scale=(0.5, 0.5))
    prediction = PredictionLayer(viewer.layers, image, CLASSES)
    prediction.write((0, 0, 128, 256), PLANE, np.full((128, 256), 2, np.uint8))
    layer = shown_layer(prediction)
    assert layer.multiscale
    assert not layer.editable
    for each in layer.data:
        half = len(each) // 2
        assert (each[:half] == 2).all()
        assert not each[half:].any()
    prediction.write((0, 0, 256, 256), PLANE, np.full((256, 256), 1, np.uint8))
    layer.refresh()
    assert layer.get_value((10.0, 10.0), world=True)[1] == 1


def test_only_the_predicted_level_and_coarser_ones_are_kept(
    viewer: ViewerModel,
) -> None:
    levels = [np.zeros((side, side), np.uint8) for side in (256, 128, 64)]
    image = viewer.add_image(levels, multiscale=True, scale=(0.5, 0.5))
    prediction = PredictionLayer(viewer.layers, image, CLASSES, level=1)
    prediction.write((0, 0, 128, 128), PLANE, values(128, 128))
    layer = shown_layer(prediction)
    assert [each.shape for each in layer.data] == [(128, 128), (64, 64)]
    # The centre of the first pixel lies between the first two of the image.
    np.testing.assert_allclose(layer.data_to_world((0, 0)), (0.25, 0.25))
    coarsest = PredictionLayer(viewer.layers, image, CLASSES, level=2)
    coarsest.write((0, 0, 64, 64), PLANE, values(64, 64))
    assert not shown_layer(coarsest).multiscale


def test_a_deleted_layer_comes_back_with_the_next_write_and_all_it_had(
    viewer: ViewerModel, prediction: PredictionLayer
) -> None:
    part = values(50, 50)
    prediction.write((0, 0, 50, 50), PLANE, part)
    shown_layer(prediction).name = "mine"
    viewer.layers.remove("mine")
    assert prediction.layer is None
    prediction.mark_stale()
    prediction.use_classes(CLASSES.add("gland", (0, 255, 0)))
    prediction.opacity = 0.8
    prediction.write((50, 50, 60, 60), PLANE, values(10, 10))
    layer = shown_layer(prediction)
    np.testing.assert_array_equal(layer.data[:50, :50], part)
    np.testing.assert_allclose(layer.get_color(3), (0, 1, 0, 1))
    assert layer.opacity == 0.8
    assert viewer.layers.index(layer) == 1


def test_a_renamed_layer_is_written_on(
    viewer: ViewerModel, prediction: PredictionLayer
) -> None:
    prediction.write((0, 0, 5, 5), PLANE, values(5, 5))
    layer = shown_layer(prediction)
    layer.name = "what I think"
    prediction.write((0, 0, 200, 300), PLANE, values(200, 300))
    assert shown_layer(prediction) is layer
    assert len(viewer.layers) == 3
    assert layer.data.all()


def test_the_layer_follows_its_image(prediction: PredictionLayer, image: Image) -> None:
    prediction.write((0, 0, 5, 5), PLANE, values(5, 5))
    prediction.write_confidence((0, 0, 5, 5), PLANE, np.ones((5, 5), np.float32))
    image.scale = (3, 3)
    image.translate = (-1, 4)
    image.affine = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    for layer in (prediction.layer, prediction.confidence_layer):
        assert layer is not None
        np.testing.assert_allclose(
            layer.data_to_world((7, 9)), image.data_to_world((7, 9))
        )


def test_class_values_above_255_get_16_bits(prediction: PredictionLayer) -> None:
    part = values(50, 50)
    prediction.write((0, 0, 50, 50), PLANE, part.astype(np.uint16))
    layer = shown_layer(prediction)
    assert layer.data.dtype == np.uint8
    prediction.write((60, 60, 61, 61), PLANE, np.array([[4000]], np.uint16))
    assert shown_layer(prediction) is layer
    assert layer.data.dtype == np.uint16
    assert layer.data[60, 60] == 4000
    np.testing.assert_array_equal(layer.data[:50, :50], part)
    assert not layer.editable


def test_the_confidence_is_a_layer_of_its_own_while_it_is_wanted(
    viewer: ViewerModel, prediction: PredictionLayer, image: Image
) -> None:
    prediction.write((0, 0, 200, 300), PLANE, values(200, 300))
    certain = np.linspace(0, 1, 200 * 300, dtype=np.float32).reshape(200, 300)
    prediction.write_confidence((0, 0, 200, 300), PLANE, certain)
    layer = prediction.confidence_layer
    assert layer is not None
    assert layer.data.dtype == np.float32
    np.testing.assert_array_equal(layer.data, certain)
    assert layer.contrast_limits == [0, 1]
    assert is_prediction(layer)
    assert [each.name for each in viewer.layers] == [
        "tile",
        "confidence of tile",
        "prediction of tile",
        "strokes",
    ]
    np.testing.assert_allclose(layer.data_to_world((7, 9)), image.data_to_world((7, 9)))
    prediction.drop_confidence()
    assert prediction.confidence_layer is None
    assert len(viewer.layers) == 3


def test_opacity_and_visibility_go_both_ways(prediction: PredictionLayer) -> None:
    told: list[object] = []
    prediction.opacity_changed.connect(told.append)
    prediction.visible_changed.connect(told.append)
    prediction.write((0, 0, 200, 300), PLANE, values(200, 300))
    layer = shown_layer(prediction)
    prediction.opacity = 0.3
    prediction.visible = False
    assert (layer.opacity, layer.visible) == (0.3, False)
    assert told == []
    layer.opacity = 0.9
    layer.visible = True
    assert told == [0.9, True]
    assert (prediction.opacity, prediction.visible) == (0.9, True)


@pytest.mark.parametrize("in_background", [False, True])
def test_what_is_out_of_date_is_dimmed_after_a_while_and_shown_at_once_when_fresh(
    prediction: PredictionLayer,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    in_background: bool,
) -> None:
    patience = ("PATIENCE_MS", "LONG_PATIENCE_MS")
    monkeypatch.setattr(prediction_layer, patience[in_background], 20)
    whole = (0, 0, 200, 300)
    prediction.look_at(PLANE, whole, in_background=in_background)
    prediction.write(whole, PLANE, values(200, 300))
    layer = shown_layer(prediction)
    qtbot.wait(60)
    assert layer.opacity == 0.5
    prediction.mark_stale()
    assert layer.opacity == 0.5
    qtbot.waitUntil(lambda: layer.opacity == pytest.approx(0.5 * DIMMED))
    # The user still has his say: what he sets is what he sees.
    layer.opacity = 0.3
    assert layer.opacity == 0.3
    assert prediction.opacity == pytest.approx(0.3 / DIMMED)
    prediction.write((0, 0, 200, 150), PLANE, values(200, 150))
    assert layer.opacity == 0.3
    prediction.write((0, 150, 200, 300), PLANE, values(200, 150))
    assert layer.opacity == pytest.approx(0.3 / DIMMED)


def test_what_comes_to_the_fore_is_dimmed_sooner(
    prediction: PredictionLayer, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_layer, "PATIENCE_MS", 20)
    whole = (0, 0, 200, 300)
    prediction.look_at(PLANE, whole, in_background=True)
    prediction.write(whole, PLANE, values(200, 300))
    prediction.mark_stale()
    prediction.look_at(PLANE, whole)
    layer = shown_layer(prediction)
    qtbot.waitUntil(lambda: layer.opacity < 0.5, timeout=2000)


def test_only_what_is_seen_counts(
    prediction: PredictionLayer, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_layer, "PATIENCE_MS", 10)
    prediction.write((0, 0, 96, 96), PLANE, values(96, 96))
    layer = shown_layer(prediction)
    prediction.look_at(PLANE, (10, 10, 90, 90))
    qtbot.wait(40)
    assert layer.opacity == 0.5
    assert prediction.stale_share(PLANE, (10, 10, 90, 90)) == 0
    prediction.look_at(PLANE, (50, 50, 130, 130))
    qtbot.waitUntil(lambda: layer.opacity < 0.5)
    prediction.look_at(None)
    assert layer.opacity == 0.5


def test_nothing_of_the_layer_stays_when_it_is_removed(
    viewer: ViewerModel, image: Image
) -> None:
    prediction = PredictionLayer(viewer.layers, image, CLASSES)
    prediction.write((0, 0, 5, 5), PLANE, values(5, 5))
    prediction.write_confidence((0, 0, 5, 5), PLANE, np.ones((5, 5), np.float32))
    prediction.remove()
    assert list(viewer.layers) == [image]
    image.scale = (2, 2)


def test_cells_become_fresh_by_tiles_of_any_size() -> None:
    freshness = Freshness((203, 310))
    assert freshness.stale_share(PLANE) == 1
    for y in range(0, 203, 37):
        for x in range(0, 310, 29):
            freshness.mark_fresh(PLANE, (y, x, min(y + 37, 203), min(x + 29, 310)))
    assert freshness.stale_share(PLANE) == 0
    assert freshness.stale_share(PlaneKey((1,))) == 1
    # One pixel out of date makes its cell so.
    freshness.mark_stale(PLANE, (40, 40, 41, 41))
    cells = -(-203 // CELL_PX) * -(-310 // CELL_PX)
    assert freshness.stale_share(PLANE) == pytest.approx(1 / cells)
    assert freshness.stale_share(PLANE, (40, 40, 41, 41)) == 1
    assert freshness.stale_share(PLANE, (100, 100, 200, 200)) == 0
    freshness.mark_stale(PLANE)
    assert freshness.stale_share(PLANE) == 1
    freshness.mark_fresh(PLANE, (0, 0, 203, 310))
    freshness.mark_stale()
    assert freshness.stale_share(PLANE) == 1


def test_what_was_predicted_and_is_out_of_date_is_told_from_what_never_was() -> None:
    freshness = Freshness((64, 64))
    labels = np.zeros((64, 64), np.uint8)
    assert freshness.outdated_share(PLANE, labels) == 0
    labels[:32] = 2
    assert freshness.outdated_share(PLANE, labels) == 0.5
    freshness.mark_fresh(PLANE, (0, 0, 32, 16))
    assert freshness.outdated_share(PLANE, labels) == 0.375
    freshness.mark_fresh(PLANE, (0, 0, 32, 64))
    assert freshness.outdated_share(PLANE, labels) == 0
    freshness.mark_stale()
    assert freshness.outdated_share(PLANE, labels) == 0.5


def test_colours_of_16_bit_values_are_known() -> None:
    classes = ClassTable.from_values([1, 300])
    colormap = class_colormap(classes)
    colors = colormap.map(np.array([[0, 1, 300, 301]], np.uint16))[0]
    red, green, blue = classes.by_value(300).color
    np.testing.assert_allclose(colors[2] * 255, (red, green, blue, 255), atol=0.5)
    np.testing.assert_allclose(colors[[0, 3]], 0)


def test_a_tile_into_a_large_layer_takes_little_time_of_the_window(
    make_napari_viewer: Any, qtbot: QtBot
) -> None:
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image(np.zeros((4096, 4096), np.uint8))
    prediction = PredictionLayer(viewer.layers, image, CLASSES)
    prediction.write((0, 0, 4096, 4096), PLANE, np.ones((4096, 4096), np.uint8))
    qtbot.wait(200)
    seconds = []
    tile = values(256, 256)
    for number in range(8):
        start = time.perf_counter()
        prediction.write((256 * number, 256, 256 * number + 256, 512), PLANE, tile)
        prediction._refresh.flush()
        seconds.append(time.perf_counter() - start)
        qtbot.wait(20)
    prediction.remove()
    assert min(seconds) < 0.02


def test_a_written_tile_is_seen_in_a_real_window(
    make_napari_viewer: Any, qtbot: QtBot
) -> None:
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image(np.full((256, 256), 255, np.uint8), contrast_limits=(0, 1))
    prediction = PredictionLayer(viewer.layers, image, CLASSES)
    prediction.opacity = 1.0
    prediction.write((0, 0, 256, 256), PLANE, np.full((256, 256), 1, np.uint8))
    viewer.reset_view()
    qtbot.wait(100)
    middle = viewer.screenshot(canvas_only=True, flash=False)
    height, width = middle.shape[:2]
    np.testing.assert_array_equal(middle[height // 2, width // 2, :3], (255, 0, 0))
    prediction.write((100, 100, 156, 156), PLANE, np.full((56, 56), 2, np.uint8))
    qtbot.wait(100)
    middle = viewer.screenshot(canvas_only=True, flash=False)
    np.testing.assert_array_equal(middle[height // 2, width // 2, :3], (0, 0, 255))
    prediction.remove()
