"""Masks of boxes in the worker: what is told and written, kept, cancelled, refused."""

from __future__ import annotations

import queue
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_sparseseg.annotations import Box, boxes_to_json
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import live_prediction, mask_making, worker
from napari_sparseseg.engine.mask_making import MaskMaker
from napari_sparseseg.engine.messages import (
    Alive,
    BoxedImage,
    BoxMasked,
    BoxRefined,
    CancelMasks,
    CrfSettings,
    DrawnBox,
    Event,
    Failed,
    ForgetMasks,
    MakeMasks,
    MaskMethod,
    MasksCancelled,
    MasksDone,
    MaskSettings,
    MasksProgress,
    MasksStarted,
    PhaseChanged,
    Predict,
    Predicted,
    PutImage,
    RefineBox,
    Request,
    Shutdown,
    Start,
    StepDone,
    Stop,
    TileDone,
    TrainingSettings,
    UseClasses,
    Validated,
)
from napari_sparseseg.engine.worker import Worker
from napari_sparseseg.inputs.normalisation import fit_normalisation
from napari_sparseseg.learning.options import RECIPES, TrainingOptions
from napari_sparseseg.networks import published_weights
from napari_sparseseg.networks.registry import PRESETS, NetworkSpec
from napari_sparseseg.pseudo_masks import api
from napari_sparseseg.pseudo_masks.box_image import BoxImage
from napari_sparseseg.pseudo_masks.crf import CrfOptions
from napari_sparseseg.pseudo_masks.grabcut import GrabCutOptions
from napari_sparseseg.pseudo_masks.label_map import BoxMask, merge_masks
from napari_sparseseg.pseudo_masks.methods import PseudoMaskOptions, refine
from napari_sparseseg.pseudo_masks.recursive import RecursiveOptions
from napari_sparseseg.pseudo_masks.shapes import ellipse_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import FileServer

    Condition = Callable[[Event], bool]
    Turns = list[tuple[Condition, tuple[Request, ...]]]

pytestmark = pytest.mark.timeout(60)

T = TypeVar("T")

NETWORK = NetworkSpec("unet", {"filters": 4, "levels": 2, "norm": "group"})
RECIPE = replace(RECIPES["live"], batch=2, patch_px=32, epoch=2)
GRABCUT = GrabCutOptions(runs=2, working_side=40, iterations=1)
RECURSIVE = RecursiveOptions(
    rounds=1,
    epochs=1,
    training=TrainingOptions(head_start=False, scale=1, network=NETWORK, recipe=RECIPE),
)

SHAPE = (96, 80)

#: The boxes of two images, by their ids.
BOXES: dict[str, dict[int, Box]] = {
    "a": {3: Box(4, 0, 36, 30, 2), 8: Box(50, 30, 86, 76, 3)},
    "b": {3: Box(20, 16, 60, 50, 2)},
}
#: By how much ellipses are brighter than the noise around.
BRIGHTNESS = {"a": 60, "b": 200}
SMOOTH = CrfSettings(theta_beta=20.0, w2=6.0, iterations=3)
MASKS_OF_A = ((3, BOXES["a"][3]), (8, BOXES["a"][8]))


@pytest.fixture(autouse=True)
def small_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make masks with little work; tell of all progress."""
    prepare = api.prepare

    def quick(*args: Any, **wishes: Any) -> api.Preparation:
        preparation = prepare(*args, **wishes)
        options = preparation.options
        mining = replace(
            options.mining, pyramid_channels=8, negatives=6, side=96, micro_batch=1
        )
        options = replace(options, mining=mining, grabcut=GRABCUT, recursive=RECURSIVE)
        return replace(preparation, options=options)

    for module in (api, mask_making):
        monkeypatch.setattr(module, "prepare", quick)
    monkeypatch.setattr(mask_making, "PROGRESS_S", 0.0)
    monkeypatch.setattr(worker, "ALIVE_S", 1000.0)


class Window:
    """Asks for masks, and asks a worker for more as soon as it tells something."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._turns: Turns = []
        random = np.random.default_rng(0)
        for name, boxes in BOXES.items():
            pixels = 40 * random.random(SHAPE)
            for box in boxes.values():
                pixels[box.slices] += BRIGHTNESS[name] * ellipse_mask(box).foreground
            np.save(self.pixels_of(name), pixels.astype(np.uint8))

    def pixels_of(self, name: str) -> str:
        return str(self.folder / f"{name}.npy")

    def pixels(self, name: str) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = np.load(self.pixels_of(name))
        return pixels

    def image(self, name: str, *boxes: tuple[int, Box]) -> BoxedImage:
        """Give an image with boxes and their ids."""
        drawn = [
            DrawnBox(id=id_, box=data)
            for (id_, box) in boxes
            for data in boxes_to_json([box])
        ]
        return BoxedImage(name=name, pixels=self.pixels_of(name), boxes=drawn)

    def make(
        self,
        *images: BoxedImage,
        method: MaskMethod = "acol",
        reuse: bool = False,
        **settings: Any,
    ) -> MakeMasks:
        """Ask for masks, by default of all boxes, after two epochs."""
        if not images:
            images = tuple(
                self.image(name, *boxes.items()) for name, boxes in BOXES.items()
            )
        folder = self.folder / f"masks-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        settings = {"epochs": 2, "device": "cpu", **settings}
        return MakeMasks(
            images=list(images),
            settings=MaskSettings(method=method, **settings),
            folder=str(folder),
            reuse=reuse,
        )

    def refine(
        self, name: str, id_: int, generation: int = 1, **more: Any
    ) -> RefineBox:
        path = str(self.folder / f"refined-{generation}.npy")
        return RefineBox(generation=generation, name=name, id=id_, mask=path, **more)

    def play(self, *first: Request, turns: Turns) -> None:
        """Send requests: *first*, then those of each turn when its event has come."""
        self._turns = list(turns)
        for request in first:
            self._requests.put(request)
        self.events = []
        Worker(self._requests, self._take).run()
        assert not self._turns

    def _take(self, event: Event) -> None:
        self.events.append(event)
        if self._turns and self._turns[0][0](event):
            for request in self._turns.pop(0)[1]:
                self._requests.put(request)

    def all_of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def window(tmp_path: Path) -> Window:
    return Window(tmp_path)


def is_a(kind: type, **values: object) -> Condition:
    def meets(event: Event) -> bool:
        return isinstance(event, kind) and all(
            getattr(event, name) == value for name, value in values.items()
        )

    return meets


END = (Shutdown(),)
DONE = is_a(MasksDone)
IDLE = is_a(PhaseChanged, phase="idle")


def drain(maker: MaskMaker, request: MakeMasks) -> list[Event]:
    """Make all masks of a request without a worker."""
    events: list[Event] = [maker.start(request)]
    while maker.is_busy:
        event = maker.advance()
        if event is not None:
            events.append(event)
    return events


def masked(events: Sequence[Event]) -> dict[tuple[str, int], BoxMasked]:
    return {(e.name, e.id): e for e in events if isinstance(e, BoxMasked)}


def learning(events: Sequence[Event]) -> list[MasksProgress]:
    return [
        event
        for event in events
        if isinstance(event, MasksProgress) and event.what == "learning"
    ]


def mask_in(event: BoxMasked, class_value: int) -> BoxMask:
    """Read what was written of a box."""
    codes = np.load(event.mask)
    assert codes.dtype == np.uint8
    assert set(np.unique(codes)) <= {0, 1, 2}
    localization = np.load(event.localization)
    return BoxMask(Box(*event.box, class_value), codes == 1, localization, codes == 2)


# What is made and told.


@pytest.mark.parametrize("method", ["ellipse", "grabcut", "sdi-box", "acol"])
def test_what_is_written_merges_to_the_masks_of_the_library(
    window: Window, method: MaskMethod
) -> None:
    request = window.make(method=method, background=1, seed=4)
    window.play(request, turns=[(DONE, END)])
    assert not window.all_of(Failed)
    written = masked(window.events)
    assert {*written} == {("a", 3), ("a", 8), ("b", 3)}
    expected = api.make_pseudo_masks(
        {name: window.pixels(name) for name in BOXES},
        {name: list(boxes.values()) for name, boxes in BOXES.items()},
        method=method,
        background=1,
        seed=4,
        epochs=2,
        device="cpu",
    )
    for name, boxes in BOXES.items():
        masks = [
            mask_in(written[name, id_], box.class_value) for id_, box in boxes.items()
        ]
        merged = merge_masks(masks, SHAPE, 1, background_inside=True)
        assert np.array_equal(merged.labels, expected.masks[name].labels)
        assert np.array_equal(merged.localization, expected.masks[name].localization)


def test_an_ellipse_is_cut_out(window: Window) -> None:
    window.play(window.make(method="grabcut"), turns=[(DONE, END)])
    for (name, id_), event in masked(window.events).items():
        box = BOXES[name][id_]
        truth = ellipse_mask(box).foreground
        foreground = mask_in(event, box.class_value).foreground
        dice = 2 * (truth & foreground).sum() / (truth.sum() + foreground.sum())
        assert dice > 0.9


def test_learning_and_masks_are_told_of_from_start_to_end(window: Window) -> None:
    window.play(window.make(), turns=[(DONE, END)])
    kinds = [type(event) for event in window.events]
    assert kinds[0] is MasksStarted
    assert kinds[-1] is MasksDone
    assert window.events[0] == MasksStarted(boxes=3, notes=[])
    learned = learning(window.events)
    # Both images make one mini-batch.
    assert [(each.done, each.total) for each in learned] == [(0, 2), (1, 2), (2, 2)]
    assert learned[0].loss_a is learned[0].loss_b is None
    assert all(each.loss_a and each.loss_b for each in learned[1:])
    made = [e for e in window.all_of(MasksProgress) if e.what == "masks"]
    assert [(each.done, each.total) for each in made] == [(1, 3), (2, 3), (3, 3)]
    last_learned = window.events.index(learned[-1])
    assert last_learned < window.events.index(window.all_of(BoxMasked)[0])
    (done,) = window.all_of(MasksDone)
    assert done.boxes == 3
    assert done.seconds > 0
    # After two steps a mask may well be empty.
    assert all("nothing was found" in note for note in done.notes)


def test_without_classifier_b_only_one_loss_is_told(window: Window) -> None:
    window.play(window.make(method="cam"), turns=[(DONE, END)])
    for each in learning(window.events)[1:]:
        assert each.loss_a is not None
        assert each.loss_b is None


def test_progress_in_between_is_told_now_and_then(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_making, "PROGRESS_S", 1000.0)
    window.play(window.make(epochs=4), turns=[(DONE, END)])
    told = [(each.what, each.done) for each in window.all_of(MasksProgress)]
    assert told == [("learning", 0), ("learning", 4), ("masks", 3)]


def test_boxes_that_are_not_taken_as_given_are_noted_and_the_ids_stay(
    window: Window,
) -> None:
    boxes = (
        (5, Box(10, 10, 30, 30, 2)),
        (7, Box(10, 10, 30, 30, 2)),
        (8, Box(40, 40, 40, 60, 2)),
        (6, Box(60, 60, 100, 90, 3)),
    )
    request = window.make(window.image("a", *boxes), method="box")
    window.play(request, turns=[(DONE, END)])
    (started,) = window.all_of(MasksStarted)
    assert started.boxes == 2
    assert [note.split(":")[1].strip() for note in started.notes] == [
        "1 box clipped to the image",
        "1 box skipped for having no pixel in the image",
        "1 box skipped, since the same box was given before",
    ]
    told = [(event.id, event.box) for event in window.all_of(BoxMasked)]
    assert told == [(5, (10, 10, 30, 30)), (6, (60, 60, 96, 80))]


def test_boxes_that_leave_no_background_are_noted_at_the_end(window: Window) -> None:
    everywhere = window.image("b", (1, Box(0, 0, *SHAPE, 3)))
    request = window.make(window.image("a", *MASKS_OF_A), everywhere)
    window.play(request, turns=[(DONE, END)])
    crowded, *_ = window.all_of(MasksDone)[0].notes
    assert crowded.startswith("the boxes of 1 image(s) leave no room")


# What is kept.


def test_a_redo_with_another_crf_learns_nothing_and_is_that_of_the_kept_map(
    window: Window,
) -> None:
    redo = window.make(
        window.image("a", (8, BOXES["a"][8])), crf_options=SMOOTH, reuse=True
    )
    window.play(window.make(), turns=[(DONE, (redo,)), (DONE, END)])
    (again,) = (event for event in window.all_of(BoxMasked)[3:])
    assert len(learning(window.events)) == 3
    first = masked(window.events[: window.events.index(again)])["a", 8]
    assert np.array_equal(np.load(again.localization), np.load(first.localization))
    expected = refine(
        plain(window, "ab", "a"),
        BOXES["a"][8],
        np.load(first.localization),
        PseudoMaskOptions(
            crf_options=CrfOptions(theta_beta=20.0, w2=6.0, iterations=3)
        ),
    )
    assert np.array_equal(np.load(again.mask) == 1, expected.foreground)
    assert not np.array_equal(np.load(again.mask), np.load(first.mask))


def plain(window: Window, names: str, name: str) -> BoxImage:
    """Give an image normalised with others, without boxes."""
    images = [window.pixels(each) for each in names]
    normalisation = fit_normalisation(images)
    return BoxImage(name, normalisation.apply(window.pixels(name)).numpy(), ())


def test_a_box_that_was_moved_is_mapped_by_the_network_that_is_kept(
    window: Window,
) -> None:
    maker = MaskMaker()
    first = masked(drain(maker, window.make()))
    moved = Box(22, 18, 60, 50, 2)
    # The brighter image alone would be normalised otherwise.
    image = window.image("b", (3, BOXES["b"][3]), (4, moved))
    events = drain(maker, window.make(image, reuse=True))
    assert not learning(events)
    again = masked(events)
    assert again["b", 4].box == moved.edges
    np.testing.assert_allclose(
        np.load(again["b", 3].localization),
        np.load(first["b", 3].localization),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("class_value", "settings"),
    [
        (2, {"seed": 1}),
        (2, {"window": (100.0, 200.0)}),
        (2, {"method": "cam"}),
        (9, {}),
    ],
)
def test_where_nothing_kept_fits_a_redo_learns(
    window: Window, class_value: int, settings: dict[str, Any]
) -> None:
    maker = MaskMaker()
    drain(maker, window.make())
    box = replace(BOXES["b"][3], class_value=class_value)
    request = window.make(window.image("b", (3, box)), reuse=True, **settings)
    assert learning(drain(maker, request))


def test_without_reuse_all_is_learned_anew(window: Window) -> None:
    maker = MaskMaker()
    drain(maker, window.make())
    assert learning(drain(maker, window.make()))


def test_a_method_in_rounds_is_redone_from_its_maps(window: Window) -> None:
    maker = MaskMaker()
    first = masked(drain(maker, window.make(method="sdi-box", background=1)))
    request = window.make(method="sdi-box", background=1, reuse=True)
    events = drain(maker, request)
    assert not learning(events)
    for key, event in masked(events).items():
        assert np.array_equal(np.load(event.mask), np.load(first[key].mask))


@pytest.mark.parametrize(
    "changed",
    [{"crf_options": SMOOTH}, {"crf": False}, {"background": 4}],
)
def test_in_rounds_another_crf_or_background_is_learned_anew(
    window: Window, changed: dict[str, Any]
) -> None:
    """The CRF makes what the second round learns, and background is learned too."""
    maker = MaskMaker()
    drain(maker, window.make(method="sdi-box", background=1))
    wished = {"background": 1, **changed}
    again = window.make(method="sdi-box", reuse=True, **wished)
    assert learning(drain(maker, again))
    acol = window.make(background=1)
    drain(maker, acol)
    assert not learning(drain(maker, window.make(reuse=True, **wished)))


# What is forgotten.


def test_of_boxes_that_are_gone_nothing_is_kept(window: Window) -> None:
    forget = ForgetMasks(ids={"a": [3, 99], "gone": [1]})
    window.play(
        window.make(method="grabcut"),
        turns=[
            (DONE, (forget, window.refine("a", 3))),
            (is_a(Failed), (window.refine("b", 3),)),
            (is_a(BoxRefined), END),
        ],
    )
    (failed,) = window.all_of(Failed)
    assert "no localisation map of this box of a" in failed.message


def test_what_lacks_a_forgotten_map_is_learned_anew(window: Window) -> None:
    maker = MaskMaker()
    drain(maker, window.make(method="sdi-box"))
    maker.forget({"a": [8]})
    kept = window.image("a", (3, BOXES["a"][3]))
    assert not learning(drain(maker, window.make(kept, method="sdi-box", reuse=True)))
    assert learning(drain(maker, window.make(method="sdi-box", reuse=True)))


def test_boxes_may_be_forgotten_while_their_masks_are_made_anew(
    window: Window,
) -> None:
    maker = MaskMaker()
    drain(maker, window.make())
    maker.start(window.make(reuse=True, crf_options=SMOOTH))
    maker.forget({"a": [3, 8], "b": [3]})
    events = []
    while maker.is_busy:
        events.append(maker.advance())
    assert sum(isinstance(event, BoxMasked) for event in events) == 3


def test_a_preview_that_waits_is_forgotten_with_its_box(window: Window) -> None:
    window.play(
        window.make(),
        turns=[
            (
                is_a(BoxMasked, id=8),
                (window.refine("a", 8), ForgetMasks(ids={"a": [8]})),
            ),
            (DONE, END),
        ],
    )
    assert not window.all_of(Failed)
    assert not window.all_of(BoxRefined)


# The preview of one box.


@pytest.mark.parametrize("method", ["grabcut", "sdi-box", "acol"])
@pytest.mark.parametrize("crf", [None, False, True])
def test_a_preview_is_what_refine_gives(
    window: Window, method: MaskMethod, crf: bool | None
) -> None:
    maker = MaskMaker()
    event = masked(drain(maker, window.make(method=method)))["a", 3]
    # So strong that background around the box reaches into it.
    strong: dict[str, Any] = {
        "theta_alpha": 20.0,
        "theta_beta": 10.0,
        "w1": 40.0,
        "iterations": 3,
    }
    request = window.refine("a", 3, 5, crf=crf, crf_options=CrfSettings(**strong))
    assert maker.refine(request) == BoxRefined(
        generation=5, name="a", id=3, mask=request.mask
    )
    expected = refine(
        plain(window, "ab", "a"),
        BOXES["a"][3],
        np.load(event.localization),
        PseudoMaskOptions(
            method=method,
            crf=crf,
            crf_options=CrfOptions(**strong),
            grabcut=GRABCUT,
            recursive=RECURSIVE,
        ),
    )
    codes = np.load(request.mask)
    assert np.array_equal(codes == 1, expected.foreground)
    background = codes == 0
    if method == "acol":
        assert not background.any()
    else:
        assert np.array_equal(background, expected.background)


def test_a_preview_is_answered_amid_the_making_and_only_the_last_of_several(
    window: Window,
) -> None:
    previews = tuple(window.refine("a", 8, number) for number in (1, 2, 3))
    window.play(
        window.make(),
        turns=[
            (DONE, (window.make(seed=1),)),
            (is_a(MasksProgress, what="learning", done=1), previews),
            (DONE, END),
        ],
    )
    (refined,) = window.all_of(BoxRefined)
    assert refined.generation == 3
    assert window.events[window.events.index(refined) - 1] == learning(window.events)[4]


def test_a_preview_without_a_map_is_refused_in_one_sentence(window: Window) -> None:
    window.play(window.refine("a", 3), turns=[(is_a(Failed), END)])
    (failed,) = window.all_of(Failed)
    assert failed.request == "refine-box"
    assert failed.message == (
        "there is no localisation map of this box of a yet; generate its mask first."
    )


def test_a_preview_that_the_method_has_not_is_refused_and_masks_go_on(
    window: Window,
) -> None:
    window.play(
        window.make(method="box"),
        turns=[
            (is_a(BoxMasked), (window.refine("a", 3, crf=True),)),
            (is_a(Failed), ()),
            (DONE, END),
        ],
    )
    (failed,) = window.all_of(Failed)
    assert failed.request == "refine-box"
    assert "nothing to refine" in failed.message


# Giving up.


@pytest.mark.parametrize("what", ["learning", "masks"])
def test_cancel_is_obeyed_at_the_next_event_and_more_can_be_asked(
    window: Window, what: str
) -> None:
    again = window.make(method="ellipse")
    window.play(
        window.make(),
        turns=[
            (is_a(MasksProgress, what=what, done=1), (CancelMasks(),)),
            (is_a(MasksCancelled), (again,)),
            (DONE, END),
        ],
    )
    cancelled = window.events.index(MasksCancelled())
    last = window.events[cancelled - 1]
    assert is_a(MasksProgress, what=what, done=1)(last)
    assert isinstance(window.events[cancelled + 1], MasksStarted)
    assert len(window.all_of(MasksDone)) == 1


def test_the_engine_is_there_amid_a_download_and_gives_it_up(
    window: Window,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_server: FileServer,
) -> None:
    monkeypatch.setattr(published_weights, "PUBLISHED_AT", file_server.url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(worker, "ALIVE_S", 0.2)
    file_server.parts, file_server.pause_s = [b"weights"] * 600, 0.1
    masks = window.make(weights="imagenet", backbone="resnet18")
    window.play(
        masks,
        turns=[
            (is_a(Alive), ()),
            (is_a(Alive), (CancelMasks(),)),
            (is_a(MasksCancelled), END),
        ],
    )
    assert file_server.asked
    assert not window.all_of(Failed)


def test_where_nothing_is_under_way_nothing_is_cancelled(window: Window) -> None:
    window.play(CancelMasks(), window.make(method="ellipse"), turns=[(DONE, END)])
    assert not window.all_of(MasksCancelled)
    assert not window.all_of(Failed)


def test_a_newer_request_takes_the_place_of_an_older_one(window: Window) -> None:
    newer = window.make(window.image("b", (4, BOXES["b"][3])), method="ellipse")
    window.play(
        window.make(),
        turns=[(is_a(MasksProgress, done=1), (newer,)), (DONE, END)],
    )
    kinds = [type(event) for event in window.events]
    place = kinds.index(MasksCancelled)
    assert kinds[place + 1] is MasksStarted
    assert [event.id for event in window.all_of(BoxMasked)] == [4]


def test_the_engine_ends_amid_learning(window: Window) -> None:
    window.play(window.make(epochs=1000), turns=[(is_a(MasksProgress, done=1), END)])
    assert not window.all_of(MasksDone)
    assert not window.all_of(Failed)


# Trouble.


def no_box(window: Window) -> MakeMasks:
    return window.make(window.image("a"))


def box_outside(window: Window) -> MakeMasks:
    return window.make(window.image("a", (1, Box(200, 200, 220, 220, 2))))


def no_class(window: Window) -> MakeMasks:
    box = DrawnBox(id=1, box={"box_yx": [0, 0, 9, 9]})
    return window.make(replace(window.image("a"), boxes=[box]))


def plane_of_volume(window: Window) -> MakeMasks:
    return window.make(window.image("a", (1, Box(0, 0, 9, 9, 2, (3,)))))


def other_weights(window: Window) -> MakeMasks:
    path = window.folder / "weights.safetensors"
    save_file({"first": torch.zeros(2)}, path)
    return window.make(weights=str(path), backbone="resnet18")


def missing_pixels(window: Window) -> MakeMasks:
    return window.make(replace(window.image("a", *MASKS_OF_A), pixels="gone.npy"))


def same_name(window: Window) -> MakeMasks:
    return window.make(*[window.image("a", *MASKS_OF_A)] * 2)


def boxes_of_background(window: Window) -> MakeMasks:
    return window.make(background=2)


def not_a_number(window: Window) -> MakeMasks:
    np.save(window.pixels_of("c"), np.full(SHAPE, np.nan, np.float32))
    return window.make(window.image("c", (1, Box(0, 0, 9, 9, 2))))


def nothing_but_box(window: Window) -> MakeMasks:
    return window.make(window.image("a", (1, Box(0, 0, *SHAPE, 2))))


def no_folder(window: Window) -> MakeMasks:
    return replace(window.make(method="ellipse"), folder=str(window.folder / "gone"))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (no_box, "there is no box on any"),
        (box_outside, "no pixel in the image"),
        (no_class, "missing keys: class"),
        (plane_of_volume, "lies on no plane of the image"),
        (other_weights, "weights of another network than resnet18"),
        (missing_pixels, "gone.npy"),
        (same_name, "2 images are given by 1 names"),
        (boxes_of_background, "boxes of this class are drawn"),
        (not_a_number, "not finite"),
        (nothing_but_box, "leave no room for examples of background"),
        (no_folder, "a file cannot be used"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence_and_the_worker_lives_on(
    window: Window, bad: Callable[[Window], MakeMasks], words: str
) -> None:
    good = window.make(method="ellipse")
    window.play(bad(window), turns=[(is_a(Failed), (good,)), (DONE, END)])
    (failed,) = window.all_of(Failed)
    assert failed.request == "make-masks"
    assert words in failed.message
    assert "\n" not in failed.message
    assert len(window.all_of(BoxMasked)) == 3


# Beside others.


@pytest.fixture
def training(window: Window, monkeypatch: pytest.MonkeyPatch) -> tuple[Request, ...]:
    """Let a small network learn the ellipses of an image, and tell of every step."""
    monkeypatch.setitem(RECIPES, "live", replace(RECIPE, epoch=6))
    monkeypatch.setitem(PRESETS["unet"], "light", NETWORK)
    monkeypatch.setattr(worker, "STEP_S", 0.0)
    monkeypatch.setattr(worker, "TURN_S", 0.0)
    labels = np.ones(SHAPE, np.uint8)
    for box in BOXES["a"].values():
        labels[box.slices][ellipse_mask(box).foreground] = 2
    np.save(window.folder / "labels.npy", labels)
    settings = TrainingSettings(
        preset="light", scale=1.0, patch_px=32, head_start=False, device="cpu"
    )
    return (
        UseClasses(classes=ClassTable.from_values([1, 2]).to_json()),
        PutImage(
            name="a",
            pixels=window.pixels_of("a"),
            labels=str(window.folder / "labels.npy"),
        ),
        Start(settings=settings, checkpoint=str(window.folder / "checkpoint")),
    )


def test_masks_and_training_go_on_in_turn_and_learn_what_they_would_alone(
    window: Window, training: tuple[Request, ...]
) -> None:
    def is_over(_: Event) -> bool:
        return IDLE(window.all_of(PhaseChanged)[-1]) and bool(window.all_of(MasksDone))

    stop: Turns = [(is_a(Validated), (Stop(),))]
    window.play(*training, turns=[*stop, (IDLE, END)])
    alone = load_file(window.folder / "checkpoint")
    masks = masked(drain(MaskMaker(), window.make(epochs=3)))

    together = [(is_a(StepDone, step=2), (window.make(epochs=3),)), *stop]
    window.play(*training, turns=[*together, (is_over, END)])
    learned = learning(window.events)
    assert [each.done for each in learned] == [0, 1, 2, 3]
    begin, end = (window.events.index(learned[i]) for i in (0, -1))
    between = [type(event) for event in window.events[begin:end]]
    assert between.count(StepDone) >= 2
    beside = load_file(window.folder / "checkpoint")
    assert alone.keys() == beside.keys()
    assert all(torch.equal(value, beside[name]) for name, value in alone.items())
    assert len(masked(window.events)) == 3
    for key, event in masked(window.events).items():
        assert np.array_equal(np.load(event.mask), np.load(masks[key].mask))


def test_what_is_seen_of_a_prediction_goes_before_masks_and_training(
    window: Window, training: tuple[Request, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_prediction, "CPU_SECONDS_PER_PX", 1.0)
    monkeypatch.setattr(live_prediction, "QUANTUM_S", 1e-9)
    path = str(window.folder / "predicted.npy")
    np.save(path, np.zeros(SHAPE, np.uint8))
    predict = Predict(
        generation=1,
        pixels=window.pixels_of("a"),
        labels=path,
        view=(0, 0, *SHAPE),
    )
    window.play(
        *training,
        turns=[
            (is_a(StepDone), (window.make(epochs=50),)),
            (is_a(MasksProgress, done=1), (predict,)),
            (is_a(Predicted), (CancelMasks(), *END)),
        ],
    )
    first, *_, last = window.all_of(TileDone)
    begin, end = window.events.index(first), window.events.index(last)
    assert end - begin >= 4
    assert {type(event) for event in window.events[begin:end]} == {TileDone}
