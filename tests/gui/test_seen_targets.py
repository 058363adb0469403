"""What else is predicted than the chosen image; with a viewer, without an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import messages
from napari_sparseseg.gui import prediction_target
from napari_sparseseg.gui.fields import field_layer, new_origin
from napari_sparseseg.gui.planes import PlaneKey
from napari_sparseseg.gui.prediction_layer import PredictionLayer
from napari_sparseseg.gui.seen_targets import is_hidden
from napari_sparseseg.io.geometry import Field
from napari_sparseseg.io.slide_fields import FieldPlan
from tests.gui.conftest import SIDE

if TYPE_CHECKING:
    from napari.layers import Image
    from pytestqt.qtbot import QtBot

    from tests.gui.conftest import Table

SLIDE_PX = 4 * SIDE


def add_slide(table: Table, side: int = SLIDE_PX) -> Any:
    fine = np.random.default_rng(1).integers(0, 255, (side, side, 3), np.uint8)
    return table.viewer.add_image(
        [fine, fine[::2, ::2]], name="slide", rgb=True, multiscale=True
    )


def add_field(table: Table, slide: Any, name: str, corner: tuple[int, int]) -> Image:
    """Add a field of a slide with labels on it, and choose it."""
    y, x = corner
    origin = new_origin(slide, FieldPlan(Field((y, x), 1.0), (SIDE, SIDE)), None)
    pixels = slide.data[0][y : y + SIDE, x : x + SIDE]
    field = table.viewer.add_layer(field_layer(slide, origin, pixels, name))
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[8, 4:40], labels[16, 4:40] = 1, 2
    strokes = table.viewer.add_labels(
        labels, name=f"{name} strokes", translate=field.translate
    )
    table.controller.pairs.choose(field, strokes)
    return field


@pytest.fixture
def slide(table: Table) -> Any:
    return add_slide(table)


@pytest.fixture
def fields(table: Table, slide: Any) -> list[Image]:
    """Three fields beside each other; the last is chosen."""
    return [
        add_field(table, slide, f"field {number}", (0, SIDE * number))
        for number in range(3)
    ]


def play(table: Table) -> list[str]:
    """Let a model predict all that is wished for; return the names in order."""
    table.controller.prediction.model_changed()
    names = []
    while asked := table.link.taken(messages.Predict):
        assert len(asked) == 1
        names.append(table.state.predicting)
        predicted = np.load(asked[0].labels, mmap_mode="r+")
        predicted[:] = 1
        table.link.tell(
            messages.TileDone(
                generation=asked[0].generation, region=(0, 0, *predicted.shape), share=1
            )
        )
        table.link.tell(
            messages.Predicted(
                generation=asked[0].generation, shown="head", step=0, seconds=0.1
            )
        )
    return names


@pytest.mark.usefixtures("fields")
def test_fields_follow_the_chosen_one_and_the_slide_comes_last(table: Table) -> None:
    assert play(table) == ["field 2", "field 0", "field 1", "slide"]
    names = [layer.name for layer in table.viewer.layers]
    assert names == [
        *("slide", "prediction of slide"),
        *("field 0", "prediction of field 0", "field 0 strokes"),
        *("field 1", "prediction of field 1", "field 1 strokes"),
        *("field 2", "prediction of field 2", "field 2 strokes"),
    ]
    for layer in table.viewer.layers[3::3]:
        assert np.asarray(layer.data).all()
    assert table.state.progress is None


def test_what_is_hidden_has_no_prediction_until_it_is_shown(
    table: Table, fields: list[Image], slide: Any, qtbot: QtBot
) -> None:
    fields[0].visible = slide.visible = False
    assert play(table) == ["field 2", "field 1"]
    assert "prediction of field 0" not in table.viewer.layers
    fields[0].visible = True
    table.wait_for(qtbot, messages.Predict)
    assert table.state.predicting == "field 0"


@pytest.mark.usefixtures("fields")
def test_hidden_predictions_are_made_of_the_chosen_image_alone(
    table: Table, qtbot: QtBot
) -> None:
    table.controller.set_visible(False)
    assert play(table) == ["field 2"]
    table.controller.set_visible(True)
    table.wait_for(qtbot, messages.Predict)
    assert table.state.predicting == "field 0"


def test_where_one_image_is_shown_alone_no_other_is_predicted(
    table: Table, fields: list[Image]
) -> None:
    table.controller.list.go(1)
    assert table.controller.pairs.image is fields[1]
    assert play(table) == ["field 1"]


def test_images_with_several_labels_have_their_turn_once(
    table: Table, fields: list[Image]
) -> None:
    labels = table.viewer.add_labels(np.zeros((SIDE, SIDE), np.uint8), name="more")
    table.controller.pairs.add(fields[0], labels)
    table.controller.pairs.add(fields[2], labels)
    assert play(table) == ["field 2", "field 0", "field 1", "slide"]


def test_images_that_do_not_fit_are_left_out(table: Table, slide: Any) -> None:
    add_field(table, slide, "field 0", (0, 0))
    table.add_painted(1, 2, name="grey", grey=True)
    table.viewer.layers["grey"].translate = (0, 2 * SLIDE_PX)
    table.viewer.layers["strokes"].translate = (0, 2 * SLIDE_PX)
    field = table.viewer.layers["field 0"]
    table.controller.annotations.flush()
    table.controller.pairs.choose(field, table.viewer.layers["field 0 strokes"])
    assert table.state.pairs[1].problem
    assert play(table) == ["field 0", "slide"]


def test_of_a_large_slide_that_is_seen_whole_nothing_is_predicted(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = add_slide(table)
    add_field(table, slide, "field 0", (0, 0))
    monkeypatch.setattr(prediction_target, "MOST_PIXELS", SIDE**2)
    monkeypatch.setattr(prediction_target, "MOST_SIDE", SIDE)
    assert play(table) == ["field 0"]


def test_of_a_large_slide_what_is_seen_is_predicted_where_that_is_little(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = add_slide(table, 1024)
    add_field(table, slide, "field 0", (0, 0))
    monkeypatch.setattr(prediction_target, "MOST_PIXELS", 512**2)
    # In pixels of the coarser level, which is drawn.
    slide.corner_pixels = np.array([[16, 0], [127, 111]])
    table.controller.prediction.model_changed()
    (field,) = table.link.taken(messages.Predict)
    table.link.tell(
        messages.Predicted(generation=field.generation, shown="head", step=0, seconds=1)
    )
    (asked,) = table.link.taken(messages.Predict)
    assert asked.in_background
    assert asked.region == asked.view == (32, 0, 256, 224)
    assert np.load(asked.pixels).shape == (512, 512, 3)


class TestHidden:
    """Nothing is seen of an image under another one, or beside the canvas."""

    @pytest.fixture
    def image(self, table: Table) -> Image:
        return table.add_image("below")

    def test_alone_it_is_seen(self, table: Table, image: Image) -> None:
        assert not is_hidden(image, table.viewer)

    @pytest.mark.parametrize(
        ("look", "hides"),
        [
            ({}, True),
            ({"opacity": 0.9}, False),
            ({"visible": False}, False),
            ({"blending": "additive"}, False),
            ({"translate": (0, SIDE // 2)}, False),
            ({"scale": (0.5, 0.5)}, False),
            ({"rotate": 10}, False),
            ({"scale": (3, 3), "rotate": 10, "translate": (-64, -64)}, True),
        ],
    )
    def test_another_one_hides_it(
        self, table: Table, image: Image, look: dict[str, Any], hides: bool
    ) -> None:
        pixels = np.zeros((SIDE, SIDE), np.uint8)
        table.viewer.add_image(pixels, name="above", **look)
        assert is_hidden(image, table.viewer) == hides

    def test_what_is_predicted_of_it_does_not_hide_it(
        self, table: Table, image: Image
    ) -> None:
        prediction = PredictionLayer(table.viewer.layers, image, ClassTable().add("a"))
        region = (0, 0, SIDE, SIDE)
        values = np.ones((SIDE, SIDE), np.float32)
        prediction.write_confidence(region, PlaneKey(), values)
        confidence = prediction.confidence_layer
        assert confidence is not None
        confidence.opacity = 1
        assert not is_hidden(image, table.viewer)

    def test_what_is_of_another_plane_hides_nothing(
        self, table: Table, image: Image
    ) -> None:
        table.viewer.add_image(np.zeros((3, SIDE, SIDE), np.uint8), name="volume")
        assert is_hidden(image, table.viewer)
        table.viewer.add_image(np.zeros((9, 1, 1), np.uint8), name="longer")
        table.viewer.dims.set_point(0, 7)
        assert not is_hidden(image, table.viewer)

    def test_what_was_not_on_the_canvas_is_hidden(
        self, table: Table, image: Image
    ) -> None:
        image.corner_pixels = np.array([[0, 0], [0, 0]])
        assert is_hidden(image, table.viewer)
