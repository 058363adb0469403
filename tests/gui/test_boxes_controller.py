"""What is done with boxes, without a window and with an engine that tests play."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Shapes
from napari.utils import progress
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.annotations.boxes import Box, boxes_to_shapes
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import messages
from napari_sparseseg.gui import boxes_settings
from napari_sparseseg.gui.boxes_controller import READ_MS, BoxesController
from napari_sparseseg.gui.boxes_layer import layer_of_boxes
from napari_sparseseg.gui.boxes_making import LEARN_FIRST
from napari_sparseseg.gui.boxes_state import BoxesState
from napari_sparseseg.gui.homes import has_home, other_home, settle
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.prediction_layer import is_prediction
from tests.conftest import pretend_fetched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Image
    from pytestqt.qtbot import QtBot

CLASSES = ClassTable().add("background").add("liver").add("tumour")
FIRST, SECOND = Box(4, 6, 14, 18, 2, (1,)), Box(30, 30, 34, 38, 3, (2,))


class Link(QObject):
    """Remembers what is sent; tests say what the engine tells."""

    told = Signal(object)
    died = Signal(str, bool)
    slow = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Any] = []
        self.stopped = False

    def start(self) -> None:
        self.told.emit(
            messages.Ready(versions={}, devices=["cpu"], device_names=["CPU"])
        )

    def send(self, request: Any) -> None:
        self.sent.append(request)

    def stop(self) -> None:
        self.stopped = True

    def last(self, kind: type[Any]) -> Any:
        return [each for each in self.sent if isinstance(each, kind)][-1]

    def count(self, kind: type[Any]) -> int:
        return sum(isinstance(each, kind) for each in self.sent)

    def mask(self, foreground: int = 1, most: int = 99) -> None:
        """Answer the last request: the left half of each box is its object."""
        request = self.last(messages.MakeMasks)
        drawn = [(image, box) for image in request.images for box in image.boxes]
        self.told.emit(messages.MasksStarted(boxes=len(drawn), notes=[]))
        for number, (image, box) in enumerate(drawn[:most]):
            y0, x0, y1, x1 = box.box["box_yx"]
            mask = np.full((y1 - y0, x1 - x0), 2, np.uint8)
            mask[:, : mask.shape[1] // 2] = foreground
            paths = [
                Path(request.folder) / f"{number}-{name}.npy" for name in ("m", "l")
            ]
            np.save(paths[0], mask)
            np.save(paths[1], (mask == foreground).astype(np.float32))
            self.told.emit(
                messages.BoxMasked(
                    name=image.name,
                    id=box.id,
                    box=(y0, x0, y1, x1),
                    mask=str(paths[0]),
                    localization=str(paths[1]),
                )
            )
        if most >= len(drawn):
            self.told.emit(messages.MasksDone(boxes=len(drawn), seconds=2.0, notes=[]))


class Desk:
    """A controller and all that is around it, with two boxes on a volume."""

    def __init__(self, folder: Path) -> None:
        self.viewer = ViewerModel()
        self.state = BoxesState()
        self.link = Link()
        self.mirror = Mirror(folder / "test.sparseseg")
        self.controller = BoxesController(
            self.viewer,
            self.state,
            self.link,  # type: ignore[arg-type]
            self.mirror,
        )
        self.controller.shapes_added.connect(self._on_shapes)
        self.controller.labels_added.connect(self._on_labels)
        self.viewer.layers.events.removed.connect(
            lambda event: self.controller.forget(event.value)
        )
        self.controller.classes.use(CLASSES)
        pixels = np.random.default_rng(0).normal(0, 50, (4, 40, 48)).astype(np.int16)
        place: dict[str, Any] = {"scale": (5, 0.5, 0.5), "translate": (0, 10, -7)}
        self.image: Image = self.viewer.add_image(pixels, name="ct", **place)
        self.controller.choose(self.image, None, None)

    @property
    def shapes(self) -> Shapes:
        assert self.controller.shapes is not None
        return self.controller.shapes

    @property
    def labels(self) -> Labels:
        assert self.controller.labels is not None
        return self.controller.labels

    @property
    def masks(self) -> Labels:
        layer = self.viewer.layers["masks of ct"]
        assert isinstance(layer, Labels)
        return layer

    @property
    def statuses(self) -> list[str]:
        return [row.status for row in self.state.rows]

    def runs(self) -> bool:
        return self.state.progress is not None

    def can_undo(self) -> bool:
        return self.state.can_undo

    def draw(self, *boxes: Box) -> None:
        for box in boxes:
            self.controller.draw(box.class_value)
            self.shapes.add_rectangles(boxes_to_shapes([box]))
        self.controller.read()

    def use(self, **changed: Any) -> None:
        self.controller.use_settings(replace(self.state.settings, **changed))

    def _on_shapes(self, shapes: Shapes) -> None:
        self.controller.choose(self.image, shapes, self.controller.labels)

    def _on_labels(self, labels: Labels) -> None:
        self.controller.choose(self.image, self.controller.shapes, labels)


@pytest.fixture
def desk(
    qtbot: QtBot, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(boxes_settings, "keep", lambda _: None)
    desk = Desk(tmp_path)
    desk.controller.new_boxes()
    desk.draw(FIRST, SECOND)
    desk.use(method="grabcut")
    yield desk
    desk.controller.close()


@pytest.fixture
def masked(desk: Desk) -> Desk:
    """Return it with a mask in each box."""
    desk.controller.generate()
    desk.link.mask()
    desk.controller._show_masks()
    return desk


def test_a_file_is_given_up_with_the_device_whose_backbone_it_is_of(desk: Desk) -> None:
    desk.state.devices = (("cuda", "NVIDIA H200"), ("cpu", "CPU"))
    desk.use(method="acol", weights="/data/resnet50.pth")
    assert desk.state.settings.weights == "/data/resnet50.pth"
    desk.use(device="cpu")
    assert desk.state.settings.weights == "none"


def test_boxes_are_listed_as_they_are_drawn(desk: Desk, qtbot: QtBot) -> None:
    assert [row.class_name for row in desk.state.rows] == ["liver", "tumour"]
    assert desk.state.rows[0].place == "plane 1, 10 x 12 px"
    assert desk.statuses == ["drawn", "drawn"]
    assert desk.state.settings.background == 1
    # As a mouse does it, without anybody calling the controller.
    desk.shapes.add_rectangles(boxes_to_shapes([Box(0, 0, 5, 5, 2, (0,))]))
    qtbot.waitUntil(lambda: len(desk.state.rows) == 3)
    assert desk.state.rows[2].class_name == "tumour"


def test_planes_boxes_and_settings_are_sent(desk: Desk) -> None:
    desk.use(method="acol", window=(40.0, 400.0))
    desk.controller.generate()
    request = desk.link.last(messages.MakeMasks)
    assert request.settings == desk.state.settings
    assert not request.reuse
    boxes = [[box.box for box in image.boxes] for image in request.images]
    assert boxes == [
        [{"class": 2, "box_yx": [4, 6, 14, 18]}],
        [{"class": 3, "box_yx": [30, 30, 34, 38]}],
    ]
    for image, plane in zip(request.images, (1, 2), strict=True):
        np.testing.assert_array_equal(np.load(image.pixels), desk.image.data[plane])
    assert Path(request.folder).is_dir()


def test_masks_are_proposed_in_a_layer_of_their_own(masked: Desk) -> None:
    assert masked.statuses == ["proposed", "proposed"]
    layer = masked.masks
    assert not layer.editable
    # Else Label and train would keep it as strokes.
    assert is_prediction(layer)
    np.testing.assert_array_equal(layer.scale, masked.image.scale)
    np.testing.assert_array_equal(layer.translate, masked.image.translate)
    assert (layer.data[1, 4:14, 6:12] == 2).all()
    assert (layer.data[2, 30:34, 30:34] == 3).all()
    assert (layer.data > 0).sum() == 60 + 16
    assert "2 masks made in 2 s" in masked.state.status
    assert masked.state.progress is None
    order = list(masked.viewer.layers)
    assert order.index(layer) < order.index(masked.shapes)


def test_the_map_is_a_layer_when_it_is_wished_for(masked: Desk) -> None:
    assert "localisation of ct" not in masked.viewer.layers
    masked.controller.show_map(True)
    layer = masked.viewer.layers["localisation of ct"]
    assert layer.colormap.name == "magma"
    assert layer.blending == "additive"
    assert layer.data.sum() == 60 + 16
    masked.controller.show_map(False)
    assert "localisation of ct" not in masked.viewer.layers


def test_accepted_masks_are_in_new_labels_and_can_be_undone(
    masked: Desk, qtbot: QtBot
) -> None:
    masked.controller.accept((0,))
    assert masked.statuses == ["accepted", "proposed"]
    assert masked.labels.name == "ct labels"
    assert masked.labels.metadata[CLASSES_KEY] == CLASSES.to_json()
    assert not is_prediction(masked.labels)
    assert (masked.labels.data[1, 4:14, 6:12] == 2).all()
    assert masked.labels.data.sum() == 120
    assert not masked.masks.data[1].any()
    assert masked.masks.data[2].any()
    # With the key of the layer.
    masked.labels.undo()
    assert not masked.labels.data.any()
    qtbot.waitUntil(lambda: masked.statuses == ["proposed", "proposed"])
    assert masked.masks.data[1].any()
    masked.controller.accept((0, 1))
    assert masked.labels.data.sum() == 120 + 48
    masked.controller.undo()
    assert not masked.labels.data.any()
    assert masked.statuses == ["proposed", "proposed"]


def test_a_box_that_is_moved_or_deleted_loses_its_proposal(masked: Desk) -> None:
    moved = [boxes_to_shapes([replace(FIRST, y1=15)])[0], masked.shapes.data[1]]
    masked.shapes.data = moved
    masked.controller.read()
    masked.controller._show_masks()
    assert masked.statuses == ["drawn", "proposed"]
    assert not masked.masks.data[1].any()
    masked.controller.delete((1,))
    masked.controller._show_masks()
    assert masked.statuses == ["drawn"]
    assert not masked.masks.data.any()


def ids_of(request: messages.MakeMasks) -> list[int]:
    return [box.id for image in request.images for box in image.boxes]


def test_the_engine_forgets_boxes_that_are_moved_or_deleted(masked: Desk) -> None:
    asked = masked.link.last(messages.MakeMasks)
    first, second = ids_of(asked)
    names = [image.name for image in asked.images]
    assert not masked.link.count(messages.ForgetMasks)
    moved = [boxes_to_shapes([replace(FIRST, y1=15)])[0], masked.shapes.data[1]]
    masked.shapes.data = moved
    masked.controller.read()
    assert masked.link.last(messages.ForgetMasks).ids == {names[0]: [first]}
    # What was redone keeps its number, and takes the place of what is there.
    masked.controller.generate()
    masked.link.mask()
    anew = ids_of(masked.link.last(messages.MakeMasks))
    assert anew[1] == second
    assert anew[0] not in (first, second)
    masked.controller.read()
    assert masked.link.count(messages.ForgetMasks) == 1
    masked.controller.delete((1,))
    assert masked.link.last(messages.ForgetMasks).ids == {names[1]: [second]}


@pytest.mark.parametrize("what", ["deleted", "other pixels"])
def test_the_engine_forgets_all_boxes_of_an_image(masked: Desk, what: str) -> None:
    asked = masked.link.last(messages.MakeMasks)
    if what == "deleted":
        masked.viewer.layers.remove(masked.image)
    else:
        masked.image.data = masked.image.data + 1
    assert masked.link.last(messages.ForgetMasks).ids == {
        image.name: [box.id for box in image.boxes] for image in asked.images
    }


def test_a_mask_that_comes_after_its_box_has_gone_is_forgotten(desk: Desk) -> None:
    desk.controller.generate()
    first, _ = ids_of(desk.link.last(messages.MakeMasks))
    desk.controller.delete((0,))
    before = desk.link.count(messages.ForgetMasks)
    desk.link.mask()
    assert desk.link.count(messages.ForgetMasks) == before + 1
    ((only,),) = desk.link.last(messages.ForgetMasks).ids.values()
    assert only == first
    desk.controller._show_masks()
    assert desk.statuses == ["proposed"]


def test_in_rounds_another_crf_is_learned_anew(desk: Desk) -> None:
    desk.use(method="sdi-box")
    desk.controller.generate()
    desk.link.mask()
    desk.controller.pick((0,))
    assert desk.state.cannot_redo == ""
    desk.use(crf=False)
    assert desk.state.cannot_redo == LEARN_FIRST
    desk.controller.generate()
    assert not desk.link.last(messages.MakeMasks).reuse
    desk.link.mask()
    assert desk.state.cannot_redo == ""
    # Of a box that was moved away and back the engine has nothing any more.
    for y1 in (15, 14):
        moved = [boxes_to_shapes([replace(FIRST, y1=y1)])[0], desk.shapes.data[1]]
        desk.shapes.data = moved
        desk.controller.read()
    desk.controller.pick((0,))
    assert desk.state.cannot_redo == LEARN_FIRST


def test_in_rounds_a_map_of_another_method_is_not_gone_on_from(desk: Desk) -> None:
    desk.use(method="sdi-box", crf=None)
    desk.controller.generate()
    desk.link.mask()
    desk.controller.pick((0,))
    desk.use(method="grabcut")
    desk.controller.generate((0,))
    desk.link.mask()
    desk.use(method="sdi-box")
    assert desk.state.cannot_redo == LEARN_FIRST


def test_the_picked_box_follows_the_canvas_and_shows_its_plane(
    desk: Desk, qtbot: QtBot
) -> None:
    desk.controller.pick((1,))
    assert set(desk.shapes.selected_data) == {1}
    assert desk.viewer.dims.current_step[0] == 2
    desk.shapes.selected_data = {0}
    qtbot.waitUntil(lambda: desk.state.picked == (0,))
    assert desk.viewer.dims.current_step[0] == 2


def test_a_parameter_draws_the_picked_box_anew(masked: Desk, qtbot: QtBot) -> None:
    masked.use(crf=True)
    masked.controller.pick((0,))
    for theta in (4.0, 5.0, 6.0):
        masked.use(crf_options=messages.CrfSettings(theta_beta=theta))
    qtbot.waitUntil(lambda: masked.link.count(messages.RefineBox) == 1)
    request = masked.link.last(messages.RefineBox)
    assert request.crf is True
    assert request.crf_options.theta_beta == 6.0
    for generation, side in ((request.generation - 1, 9), (request.generation, 3)):
        mask = np.full(FIRST.shape, 2, np.uint8)
        mask[:side, :side] = 1
        np.save(request.mask, mask)
        answer = {"name": request.name, "id": request.id, "mask": request.mask}
        masked.link.told.emit(messages.BoxRefined(generation=generation, **answer))
    masked.controller._show_masks()
    assert (masked.masks.data[1] > 0).sum() == 9
    assert not Path(request.mask).exists()
    # What is seen is what is accepted.
    masked.controller.accept((0,))
    assert (masked.labels.data[1] > 0).sum() == 9


def test_no_preview_where_it_is_not_wanted_or_cannot_be(
    masked: Desk, qtbot: QtBot
) -> None:
    masked.controller.pick((0,))
    masked.controller.set_preview(False)
    masked.use(crf=True)
    masked.controller.set_preview(True)
    masked.controller._previewing.stop()
    masked.use(method="acol")  # by which this mask was not made
    masked.controller._preview()
    masked.use(method="grabcut")
    masked.controller.accept((0,))
    masked.controller._preview()
    assert not masked.link.count(messages.RefineBox)


def test_one_box_is_learned_only_with_the_others(desk: Desk) -> None:
    desk.use(method="acol")
    desk.controller.pick((0,))
    assert desk.state.cannot_redo == LEARN_FIRST
    desk.controller.generate()
    desk.link.mask()
    assert desk.state.cannot_redo == ""
    # With other parameters of the CRF nothing is learned anew.
    desk.use(crf=False)
    desk.controller.generate((0,))
    request = desk.link.last(messages.MakeMasks)
    assert request.reuse
    assert [len(image.boxes) for image in request.images] == [1]
    desk.link.mask()
    desk.controller.generate()
    assert desk.link.last(messages.MakeMasks).reuse
    desk.link.mask()
    # But with another box, or other settings.
    desk.use(seed=1)
    assert desk.state.cannot_redo == LEARN_FIRST
    desk.controller.generate()
    assert not desk.link.last(messages.MakeMasks).reuse
    desk.link.mask()
    desk.draw(Box(0, 0, 9, 9, 2, (0,)))
    desk.controller.generate()
    assert not desk.link.last(messages.MakeMasks).reuse


def test_what_the_engine_had_learned_goes_with_it(
    masked: Desk, told: list[str]
) -> None:
    masked.use(method="acol")
    masked.controller.generate()
    masked.link.mask()
    masked.controller.generate()
    masked.link.died.emit("It ended; it is started again.", True)
    assert masked.state.progress is None
    assert masked.state.cannot_generate.startswith("Starting")
    masked.link.start()
    masked.controller.pick((0,))
    assert masked.state.cannot_redo == LEARN_FIRST
    masked.controller._preview()
    assert not masked.link.count(messages.RefineBox)
    assert told[-1] == "It ended; it is started again."


def test_cancel_keeps_what_is_there(desk: Desk) -> None:
    desk.controller.generate()
    desk.link.mask(most=1)
    desk.controller._show_masks()
    assert desk.runs()
    desk.controller.cancel()
    assert not desk.runs()
    assert desk.link.count(messages.CancelMasks) == 1
    desk.link.told.emit(messages.MasksCancelled())
    assert desk.statuses == ["proposed", "drawn"]
    # The end of what was cancelled is not taken for that of the next.
    desk.controller.generate()
    desk.controller.cancel()
    desk.controller.generate()
    desk.link.told.emit(messages.MasksDone(boxes=2, seconds=1, notes=[]))
    assert desk.runs()
    desk.link.mask()
    assert not desk.runs()


def test_progress_is_told_in_words(desk: Desk) -> None:
    desk.use(method="acol", seconds=1000.0)
    desk.controller.generate()
    desk.link.told.emit(
        messages.MasksProgress(
            what="learning", done=12, total=48, loss_a=0.5, loss_b=0.25
        )
    )
    assert desk.state.status == "Learning from the boxes: step 12 of 48, loss 0.75"
    assert desk.state.progress == 0.25
    desk.link.told.emit(messages.MasksProgress(what="masks", done=1, total=2))
    assert desk.state.status == "Masks: 1 of 2"
    assert desk.state.progress == 0.5


@pytest.mark.parametrize(
    "end", ["done", "cancel", "failed", "died", "removed", "close"]
)
def test_the_activity_dock_shows_what_runs(desk: Desk, qtbot: QtBot, end: str) -> None:
    assert not progress._all_instances
    desk.controller.generate()
    desk.link.told.emit(messages.MasksProgress(what="masks", done=1, total=2))
    # Later, since napari takes in other events when it draws a bar.
    assert not progress._all_instances
    qtbot.waitUntil(lambda: len(progress._all_instances) == 1)
    (bar,) = progress._all_instances
    assert (bar.desc, bar.n, bar.total) == ("Masks of boxes", 50, 100)
    # The second part begins anew.
    desk.link.told.emit(messages.MasksProgress(what="masks", done=1, total=4))
    qtbot.waitUntil(lambda: bar.n == 25)
    match end:
        case "done":
            desk.link.mask()
        case "cancel":
            desk.controller.cancel()
        case "failed":
            failed = messages.Failed(request="make-masks", message="it fails.")
            desk.link.told.emit(failed)
        case "died":
            desk.link.died.emit("It ended.", False)
        case "removed":
            desk.viewer.layers.remove(desk.image)
        case "close":
            desk.controller.close()
    qtbot.waitUntil(lambda: not progress._all_instances)


def test_what_fails_is_told_once(desk: Desk, told: list[str]) -> None:
    desk.controller.generate()
    desk.link.told.emit(
        messages.Failed(request="make-masks", message="nothing can be learned.")
    )
    assert told == ["nothing can be learned."]
    assert desk.state.progress is None
    assert desk.state.cannot_generate == ""


def test_boxes_that_cannot_be_used_are_skipped_and_named(
    desk: Desk, told: list[str]
) -> None:
    desk.shapes.add_rectangles(boxes_to_shapes([replace(FIRST, y0=90, y1=99)]))
    desk.shapes.add_ellipses(boxes_to_shapes([Box(0, 0, 9, 9, 2, (0,))]))
    desk.controller.read()
    desk.controller.read()
    assert desk.statuses == ["drawn", "drawn", "skipped", "drawn"]
    (once,) = told
    assert once == (
        "1 shape in 'ct boxes' is no upright rectangle; the box around each is taken."
    )
    desk.controller.generate()
    assert told[1] == "Skipped: box 3: it has no pixel in the image."
    images = desk.link.last(messages.MakeMasks).images
    assert sum(len(image.boxes) for image in images) == 3


def test_why_nothing_can_be_made_is_said(desk: Desk) -> None:
    desk.use(background=2)
    assert "'liver' has boxes" in desk.state.cannot_generate
    desk.use(background=1)
    assert desk.state.cannot_generate == ""
    assert desk.state.cannot_train == "Generate masks first."
    desk.controller.delete((0, 1))
    assert desk.state.cannot_generate == "Draw a box around each object."
    flat = desk.viewer.add_shapes([np.eye(4, 2) * 9], shape_type="polygon")
    desk.controller.choose(desk.image, flat, None)
    assert "have 2 axes, but the image" in desk.state.cannot_generate
    desk.controller.choose(desk.image, None, None)
    assert "Press New boxes" in desk.state.cannot_generate


def test_masks_wait_for_weights_that_are_not_there(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    desk.use(method="cam", weights="imagenet")
    assert "ImageNet features of ResNet-18" in desk.state.cannot_generate
    desk.use(method="ellipse")
    assert desk.state.cannot_generate == ""
    desk.use(method="cam")
    pretend_fetched("resnet18")
    desk.controller.look_for_weights()
    assert desk.state.cannot_generate == ""


def test_classes_are_kept_with_the_boxes(desk: Desk, tmp_path: Path) -> None:
    desk.controller.add_class("spleen")
    spleen = desk.state.classes.by_name("spleen").value
    assert desk.state.drawn_class == spleen
    desk.controller.give_class((0,), spleen)
    assert desk.state.rows[0].class_name == "spleen"
    assert desk.shapes.metadata[CLASSES_KEY] == desk.state.classes.to_json()
    # Another session opens them.
    mirror = Mirror(tmp_path / "other.sparseseg")
    other = BoxesController(desk.viewer, BoxesState(), Link(), mirror)  # type: ignore[arg-type]
    other.choose(desk.image, desk.shapes, None)
    assert other.classes.table == desk.state.classes
    other.close()


def test_no_background_stays_no_background(desk: Desk) -> None:
    desk.use(background=0)
    desk.controller.add_class("spleen")
    assert desk.state.settings.background == 0
    desk.use(background=4)
    desk.controller.classes.use(CLASSES)
    assert desk.state.settings.background == 0
    desk.controller.classes.use(ClassTable())
    # The classes that boxes have stay.
    assert set(desk.state.classes.names) == {"liver", "tumour"}
    desk.controller.delete((0, 1))
    desk.controller.classes.use(ClassTable())
    assert desk.state.drawn_class == 0


def test_masks_stay_where_their_classes_get_other_values(masked: Desk) -> None:
    masked.controller.generate()
    masked.link.mask(most=1)
    other = ClassTable().add("tumour").add("background").add("liver")
    masked.controller.classes.use(other)
    masked.controller._show_masks()
    assert [row.class_value for row in masked.state.rows] == [3, 1]
    assert masked.statuses == ["proposed", "proposed"]
    assert (masked.masks.data[1, 4:14, 6:12] == 3).all()
    assert (masked.masks.data[2, 30:34, 30:34] == 1).all()
    assert masked.state.settings.background == 2
    # Those under way, too.
    masked.link.mask(foreground=0)
    masked.controller._show_masks()
    assert not masked.masks.data.any()
    # But what was learned are the values of before.
    masked.use(method="acol")
    masked.controller.generate()
    masked.link.mask()
    masked.controller.pick((0,))
    assert masked.state.cannot_redo == ""
    masked.controller.classes.use(CLASSES)
    masked.controller.read()
    assert masked.state.cannot_redo == LEARN_FIRST


def test_classes_that_are_numbers_are_class_values(desk: Desk, told: list[str]) -> None:
    boxes = [FIRST, SECOND, replace(FIRST, plane=(0,)), replace(FIRST, plane=(3,))]
    shapes = desk.viewer.add_shapes(
        boxes_to_shapes(boxes), features={"class": [3, 2, 7, 9]}, scale=(5, 0.5, 0.5)
    )
    shapes.translate = desk.image.translate
    desk.controller.choose(desk.image, shapes, None)
    desk.controller.read()
    names = [row.class_name for row in desk.state.rows]
    assert names == ["tumour", "liver", "", ""]
    assert desk.statuses == ["drawn", "drawn", "skipped", "skipped"]
    assert shapes.features["class"].tolist() == ["tumour", "liver", 7, 9]
    (once,) = told
    assert "2 shapes of the class 7, 9, which the class table does not have" in once
    desk.controller.give_class((2,), 3)
    names = [row.class_name for row in desk.state.rows]
    assert names == ["tumour", "liver", "tumour", ""]
    assert desk.state.classes == CLASSES


def test_labels_whose_values_mean_something_else_are_refused(
    masked: Desk, told: list[str]
) -> None:
    labels = masked.viewer.add_labels(np.zeros((4, 40, 48), np.uint8), name="old")
    labels.data[0, 0, 0] = 2
    labels.metadata[CLASSES_KEY] = CLASSES.renamed(2, "stroma").to_json()
    labels.scale, labels.translate = masked.image.scale, masked.image.translate
    masked.controller.choose(masked.image, masked.shapes, labels)
    masked.controller.accept((0,))
    assert "value 2 is 'stroma', but here it is 'liver'" in told[-1]
    assert labels.data.sum() == 2


def test_train_on_these_accepts_the_rest_and_the_background(masked: Desk) -> None:
    wishes: list[Any] = []
    masked.controller.training_wished.connect(lambda *layers: wishes.append(layers))
    masked.controller.accept((0,))
    masked.labels.data[2, 0, 0] = 3
    masked.controller.train_on_these()
    assert wishes == [(masked.image, masked.labels)]
    assert masked.statuses == ["accepted", "accepted"]
    data = masked.labels.data
    # On planes with boxes, outside of them, and where nothing is painted.
    assert not data[[0, 3]].any()
    assert (data[1] == 1).sum() == 40 * 48 - FIRST.area
    assert (data[2] == 1).sum() == 40 * 48 - SECOND.area - 1
    assert data[2, 0, 0] == 3
    masked.labels.undo()
    assert not (data == 1).any()
    assert (data == 2).any()


def test_a_deleted_image_takes_its_masks_along(masked: Desk) -> None:
    masked.controller.generate()
    masked.viewer.layers.remove(masked.image)
    assert "masks of ct" not in masked.viewer.layers
    assert masked.state.progress is None
    assert masked.controller.sheet is None


def test_other_pixels_are_another_image(masked: Desk) -> None:
    masked.image.data = masked.image.data + 1
    assert masked.statuses == ["drawn", "drawn"]
    masked.controller.generate()
    image = masked.link.last(messages.MakeMasks).images[0]
    np.testing.assert_array_equal(np.load(image.pixels), masked.image.data[1])


def test_pixels_that_are_replaced_behind_another_image_are_noticed(
    masked: Desk,
) -> None:
    other = masked.viewer.add_image(np.zeros((4, 40, 48)), name="other")
    shapes = masked.shapes
    masked.controller.choose(other, shapes, None)
    masked.image.data = np.zeros((4, 20, 20), np.int16)
    masked.controller.choose(masked.image, shapes, None)
    # In the smaller image there is no pixel of the second box.
    assert masked.statuses == ["drawn", "skipped"]
    masked.controller.generate()
    (image,) = masked.link.last(messages.MakeMasks).images
    assert not np.load(image.pixels).any()


def test_planes_that_cannot_be_read_end_it_with_one_sentence(
    desk: Desk, told: list[str], qtbot: QtBot
) -> None:
    pixels = da.full((4, 40, 48), np.nan, chunks=(1, 40, 48))  # type: ignore[no-untyped-call]
    image = desk.viewer.add_image(pixels, name="damaged", contrast_limits=(0, 1))
    image.scale, image.translate = desk.image.scale, desk.image.translate
    desk.controller.choose(image, desk.shapes, None)
    desk.controller.generate()
    assert desk.runs()
    qtbot.waitUntil(lambda: not desk.runs())
    (once,) = told
    assert "finite" in once
    assert desk.state.status == once


def test_nothing_is_left_when_it_is_closed(
    masked: Desk, qtbot: QtBot, told: list[str]
) -> None:
    masked.controller.show_map(True)
    masked.controller.generate()
    request = masked.link.last(messages.MakeMasks)
    masked.controller.close()
    assert masked.link.stopped
    assert not Path(request.folder).exists()
    assert not Path(request.images[0].pixels).exists()
    # Nobody could accept them.
    assert [layer.name for layer in masked.viewer.layers] == ["ct", "ct boxes"]
    masked.shapes.add_rectangles(boxes_to_shapes([Box(0, 0, 9, 9, 2, (0,))]))
    masked.link.told.emit(messages.Failed(request="make-masks", message="too late."))
    # So long that boxes would be read.
    qtbot.wait(5 * READ_MS)
    assert len(masked.state.rows) == 2
    assert told == []


def test_the_next_box_is_of_the_class_that_is_shown(desk: Desk, qtbot: QtBot) -> None:
    desk.controller.draw(2)
    first = desk.shapes
    desk.controller.new_boxes()
    second = desk.shapes
    assert second is not first
    second.add_rectangles(boxes_to_shapes([FIRST]))
    qtbot.waitUntil(lambda: len(desk.state.rows) == 1)
    desk.controller.draw(3)
    desk.controller.choose(desk.image, first, None)
    desk.controller.draw(2)
    desk.controller.choose(desk.image, second, None)
    # As a mouse does it; the layer would go on with tumours.
    second.add_rectangles(boxes_to_shapes([Box(0, 0, 5, 5, 2, (0,))]))
    qtbot.waitUntil(lambda: len(desk.state.rows) == 2)
    assert [row.class_name for row in desk.state.rows] == ["liver", "liver"]


def test_boxes_without_a_mask_are_no_background(masked: Desk) -> None:
    first, labels = masked.shapes, None
    unmasked, other = Box(20, 20, 26, 30, 2, (1,)), Box(30, 0, 36, 9, 3, (1,))
    masked.draw(unmasked)
    assert masked.state.cannot_train == (
        "1 box has no mask yet: generate or delete it."
    )
    masked.draw(Box(20, 20, 26, 30, 2, (2,)))
    assert masked.state.cannot_train == (
        "2 boxes have no mask yet: generate or delete them."
    )
    masked.controller.delete((2, 3))
    assert masked.state.cannot_train == ""
    # Those of another layer on the image; moved when nobody looks.
    masked.controller.new_boxes()
    second = masked.shapes
    masked.draw(unmasked)
    masked.controller.choose(masked.image, first, labels)
    second.data = boxes_to_shapes([other])
    masked.controller.train_on_these()
    data = masked.labels.data[1]
    assert not data[other.slices].any()
    assert (data[unmasked.slices] == 1).all()
    assert (data == 1).sum() == 40 * 48 - FIRST.area - other.area


def test_undo_leaves_strokes_that_came_later(masked: Desk) -> None:
    masked.controller.accept((0,))
    labels = masked.labels
    labels.selected_label, labels.brush_size = 3, 4
    labels.paint((1, 6, 8), 3)
    stroke = labels.data == 3
    assert stroke[1, 4:14, 6:12].any()
    others = Labels(np.zeros((4, 40, 48), np.uint8), name="others")
    masked.controller.choose(masked.image, masked.shapes, others)
    masked.controller.undo()
    np.testing.assert_array_equal(labels.data, np.where(stroke, 3, 0))
    assert masked.statuses == ["proposed", "proposed"]
    # That is a step like others.
    labels.undo()
    assert (labels.data == 2).any()


def test_masks_are_proposed_again_wherever_they_are_undone(
    masked: Desk, qtbot: QtBot
) -> None:
    masked.controller.accept((0, 1))
    boxes, labels = masked.shapes, masked.labels
    masked.controller.new_boxes()
    masked.controller.choose(masked.image, masked.shapes, None)
    assert masked.statuses == []
    labels.undo()
    qtbot.waitUntil(lambda: masked.masks.data[1].any())
    masked.controller.choose(masked.image, boxes, None)
    assert masked.statuses == ["proposed", "proposed"]
    masked.controller.choose(masked.image, boxes, labels)
    masked.controller.accept((0, 1))
    masked.viewer.layers.remove(labels)
    assert masked.statuses == ["proposed", "proposed"]


def test_what_is_not_shown_yet_is_shown_though_others_are_chosen(desk: Desk) -> None:
    desk.controller.generate()
    desk.link.mask()
    desk.controller.choose(desk.image, None, None)
    assert desk.masks.data[2].any()


def test_a_layer_of_masks_comes_back_whole(masked: Desk) -> None:
    masked.controller.show_map(True)
    for name in ("masks of ct", "localisation of ct"):
        masked.viewer.layers.remove(name)
    masked.controller.generate((0,))
    masked.link.mask()
    masked.controller._show_masks()
    assert (masked.masks.data[2] == 3).sum() == 16
    assert masked.viewer.layers["localisation of ct"].data[2].sum() == 16


def test_labels_of_another_image_are_refused(masked: Desk, told: list[str]) -> None:
    other = masked.viewer.add_image(masked.image.data, name="other")
    labels = masked.viewer.add_labels(np.zeros((4, 40, 48), np.uint8), name="theirs")
    labels.scale, labels.translate = masked.image.scale, masked.image.translate
    settle(labels, other)
    masked.controller.choose(masked.image, masked.shapes, labels)
    masked.controller.accept((0,))
    assert told == [
        "The label layer 'theirs' is of 'other'; press New labels for masks of 'ct'."
    ]
    assert not labels.data.any()


def test_what_labels_have_painted_gets_a_class(masked: Desk, told: list[str]) -> None:
    labels = masked.viewer.add_labels(np.zeros((4, 40, 48), np.uint8), name="old")
    labels.scale, labels.translate = masked.image.scale, masked.image.translate
    labels.data[0, 0, :3] = 2, 7, 8
    masked.controller.choose(masked.image, masked.shapes, labels)
    assert masked.controller.count_replaced((0,)) == 0
    masked.controller.accept((0,))
    assert told == [
        "Values in 'old' had no class: 2, 7, 8; they are now liver, class 7, class 8."
    ]
    table = ClassTable.from_json(labels.metadata[CLASSES_KEY])
    assert table == masked.state.classes
    assert list(table.names) == [*CLASSES.names, "class 7", "class 8"]
    # Names that labels bring stay.
    brought = CLASSES.add("stroma").add("vessel")
    labels.metadata[CLASSES_KEY] = brought.to_json()
    masked.controller.classes.use(CLASSES)
    labels.data[0, 0, :3] = 2, 4, 0
    masked.controller.accept((1,))
    assert list(masked.state.classes.names) == [*CLASSES.names, "stroma"]
    assert len(told) == 1


def test_numbers_of_objects_are_no_classes(masked: Desk, told: list[str]) -> None:
    numbers = np.arange(4 * 40 * 48, dtype=np.int32).reshape(4, 40, 48)
    labels = masked.viewer.add_labels(numbers, name="objects")
    labels.scale, labels.translate = masked.image.scale, masked.image.translate
    masked.controller.choose(masked.image, masked.shapes, labels)
    masked.controller.accept((0,))
    assert "seem to number objects" in told[-1]
    assert CLASSES_KEY not in labels.metadata
    assert masked.statuses == ["proposed", "proposed"]


def test_strokes_under_a_mask_are_counted(masked: Desk) -> None:
    assert masked.controller.count_replaced((0, 1)) == 0
    masked.controller.new_labels()
    masked.labels.data[1, 4:6, 6] = 3
    assert masked.controller.count_replaced((0, 1)) == 2
    assert masked.controller.count_replaced((1,)) == 0


def test_a_mask_that_is_redone_is_seen_above_the_accepted_one(masked: Desk) -> None:
    masked.controller.accept((0,))
    masked.controller.generate((0,))
    masked.link.mask()
    masked.controller._show_masks()
    assert masked.statuses == ["proposed", "proposed"]
    order = [layer.name for layer in masked.viewer.layers]
    assert order == ["ct", "ct labels", "masks of ct", "ct boxes"]
    # Other labels are chosen, which lie above the boxes.
    masked.controller.forget(masked.labels)
    others = masked.viewer.add_labels(np.zeros((4, 40, 48), np.uint8), name="others")
    others.scale, others.translate = masked.image.scale, masked.image.translate
    masked.controller.choose(masked.image, masked.shapes, others)
    masked.controller.generate((0,))
    masked.link.mask()
    masked.controller._show_masks()
    order = [layer.name for layer in masked.viewer.layers]
    assert order[-3:] == ["others", "masks of ct", "ct boxes"]


def test_what_was_accepted_can_be_undone_once_it_is_redone(
    masked: Desk, qtbot: QtBot
) -> None:
    assert not masked.can_undo()
    masked.controller.accept((0,))
    assert masked.can_undo()
    masked.controller.generate((0,))
    masked.link.mask()
    masked.controller._show_masks()
    assert masked.statuses == ["proposed", "proposed"]
    assert masked.labels.data.any()
    assert masked.can_undo()
    masked.controller.undo()
    assert not masked.labels.data.any()
    assert not masked.can_undo()
    # What the user has erased cannot be taken back.
    masked.controller.accept((0,))
    masked.labels.undo()
    qtbot.waitUntil(lambda: not masked.can_undo())


def test_boxes_are_of_the_image_that_they_were_first_used_on(desk: Desk) -> None:
    other = desk.viewer.add_image(np.zeros((4, 40, 48)), name="other")
    assert other_home(desk.shapes, other) == "ct"  # since they were made there
    drawn, used = (
        Shapes(**layer_of_boxes([FIRST], name, CLASSES, (4, 40, 48)))
        for name in ("drawn", "used")
    )
    desk.viewer.layers.extend([drawn, used])
    for shapes in (drawn, used):
        desk.controller.choose(desk.image, shapes, None)
        desk.controller.choose(other, shapes, None)
        assert not has_home(shapes)
    desk.controller.choose(desk.image, drawn, None)
    desk.draw(replace(SECOND, plane=(0,)))
    assert other_home(drawn, other) == "ct"
    desk.controller.choose(other, used, None)
    desk.controller.generate()
    assert other_home(used, desk.image) == "other"
