"""One interface to all methods: what they tell, and what comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from napari_sparseseg.annotations import Box
from napari_sparseseg.errors import (
    ImageError,
    LabelError,
    OptionError,
    TrainingError,
)
from napari_sparseseg.learning.options import RECIPES, TrainingOptions
from napari_sparseseg.networks.registry import NetworkSpec
from napari_sparseseg.pseudo_masks.box_image import BoxImage
from napari_sparseseg.pseudo_masks.crf import CrfOptions
from napari_sparseseg.pseudo_masks.grabcut import GrabCutOptions
from napari_sparseseg.pseudo_masks.label_map import BoxMask, PseudoMask, merge_masks
from napari_sparseseg.pseudo_masks.method_names import (
    IN_ROUNDS,
    LEARNING,
    MINING,
    Method,
)
from napari_sparseseg.pseudo_masks.methods import (
    BoxDone,
    ImageDone,
    MaskPartDone,
    MinedNetwork,
    MiningDone,
    PseudoMaskEvent,
    PseudoMaskOptions,
    iter_pseudo_masks,
    merge,
    refine,
)
from napari_sparseseg.pseudo_masks.mining import (
    MINING_PRESETS,
    MiningStarted,
    MiningStepDone,
)
from napari_sparseseg.pseudo_masks.recursive import RecursiveOptions, RoundStepDone
from napari_sparseseg.pseudo_masks.shapes import ellipse_mask

METHODS: tuple[Method, ...] = get_args(Method)

TRAINING = TrainingOptions(
    head_start=False,
    scale=1,
    network=NetworkSpec("unet", {"filters": 4, "levels": 2, "norm": "group"}),
    recipe=replace(RECIPES["live"], batch=2, patch_px=32, epoch=2),
)
QUICK = PseudoMaskOptions(
    crf_backend="torch",
    background=1,
    mining=replace(
        MINING_PRESETS["light"],
        pyramid_channels=8,
        roi_size=7,
        negatives=6,
        batch=8,
        epochs=2,
        side=96,
    ),
    grabcut=GrabCutOptions(runs=2, working_side=40, iterations=1),
    recursive=RecursiveOptions(rounds=1, epochs=1, training=TRAINING),
)


def scan(
    name: str = "a",
    boxes: tuple[Box, ...] = (Box(8, 10, 40, 38, 3), Box(20, 20, 30, 34, 4)),
    channels: int = 1,
) -> BoxImage:
    """Give noise with a brighter ellipse in each box."""
    random = np.random.default_rng(0)
    pixels = random.random((channels, 96, 80), np.float32) / np.float32(4)
    for box in boxes:
        pixels[(slice(None), *box.slices)] += 0.3 * ellipse_mask(box).foreground
    return BoxImage(name, pixels, boxes)


def made(events: list[PseudoMaskEvent]) -> dict[str, PseudoMask]:
    return {e.name: e.result for e in events if isinstance(e, ImageDone)}


def masks_in(events: list[PseudoMaskEvent]) -> list[BoxMask]:
    return [event.mask for event in events if isinstance(event, BoxDone)]


def mined_in(events: list[PseudoMaskEvent]) -> MinedNetwork:
    (event,) = (event for event in events if isinstance(event, MiningDone))
    return event.mined


# All methods alike.


@pytest.mark.parametrize("method", METHODS)
def test_every_box_and_every_image_is_told_of(method: Method) -> None:
    images = [scan("a"), scan("none", ()), scan("b", (Box(50, 5, 90, 60, 3),))]
    options = replace(QUICK, method=method)
    events = list(iter_pseudo_masks(images, options))
    told = [
        (event.name, event.place) if isinstance(event, BoxDone) else event.name
        for event in events
        if isinstance(event, BoxDone | ImageDone)
    ]
    assert told == [("a", 0), ("a", 1), "a", "none", ("b", 0), "b"]
    boxes = [box for image in images for box in image.boxes]
    assert [mask.box for mask in masks_in(events)] == boxes
    for mask in masks_in(events):
        assert mask.foreground.shape == mask.localization.shape == mask.box.shape
        assert mask.localization.dtype == np.float32
        assert 0 <= mask.localization.min() <= mask.localization.max() <= 1
    for image in images:
        result = made(events)[image.name]
        mine = [mask for mask in masks_in(events) if mask.box in image.boxes]
        expected = merge(mine, image.shape, options)
        assert np.array_equal(result.labels, expected.labels)
        assert np.array_equal(result.localization, expected.localization)
        outside = np.ones(image.shape, np.bool_)
        for box in image.boxes:
            outside[box.slices] = False
        assert (result.labels[outside] == 1).all()
        assert not result.localization[outside].any()


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_is_made_anew_of_its_localisation_map(method: Method) -> None:
    image = scan()
    options = replace(QUICK, method=method)
    for mask in masks_in(list(iter_pseudo_masks([image], options))):
        again = refine(image, mask.box, mask.localization, options)
        assert np.array_equal(again.foreground, mask.foreground)
        assert np.array_equal(again.background, mask.background)
        assert again.localization is mask.localization


@pytest.mark.parametrize("method", METHODS)
def test_without_a_class_of_background_all_outside_is_ignored(method: Method) -> None:
    image = scan(boxes=(Box(8, 10, 40, 38, 3),))
    options = replace(QUICK, method=method, background=0)
    events = list(iter_pseudo_masks([image], options))
    labels = made(events)["a"].labels
    (mask,) = masks_in(events)
    assert np.array_equal(labels[image.boxes[0].slices] == 3, mask.foreground)
    assert np.count_nonzero(labels) == np.count_nonzero(mask.foreground)


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(method: Method) -> None:
    options = replace(QUICK, method=method, seed=5)
    first, second = (
        made(list(iter_pseudo_masks([scan()], options)))["a"] for _ in range(2)
    )
    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.localization, second.localization)


@pytest.mark.parametrize("method", METHODS)
def test_colours_are_taken_too(method: Method) -> None:
    events = list(iter_pseudo_masks([scan(channels=3)], replace(QUICK, method=method)))
    assert made(events)["a"].labels.shape == (96, 80)


@pytest.mark.parametrize("method", METHODS)
def test_boxes_of_one_pixel_and_twice_as_many_are_taken(method: Method) -> None:
    boxes = (Box(3, 3, 4, 4, 3), Box(60, 30, 61, 60, 3), Box(20, 20, 60, 60, 3))
    events = list(iter_pseudo_masks([scan(boxes=boxes)], replace(QUICK, method=method)))
    assert len(masks_in(events)) == 3


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_image_is_no_error(method: Method) -> None:
    image = BoxImage("a", np.full((1, 96, 80), 0.5, np.float32), scan().boxes)
    assert made(list(iter_pseudo_masks([image], replace(QUICK, method=method))))


# By hand.


def test_a_box_is_all_foreground_and_the_smaller_one_is_on_top() -> None:
    events = list(iter_pseudo_masks([scan()], replace(QUICK, method="box")))
    expected = np.ones((96, 80))
    expected[8:40, 10:38] = 3
    expected[20:30, 20:34] = 4
    assert np.array_equal(made(events)["a"].labels, expected)


def test_around_an_ellipse_pixels_are_ignored() -> None:
    image = scan()
    events = list(iter_pseudo_masks([image], replace(QUICK, method="ellipse")))
    masks = [ellipse_mask(box) for box in image.boxes]
    expected = merge_masks(masks, image.shape, 1)
    assert np.array_equal(made(events)["a"].labels, expected.labels)
    assert (expected.labels[image.boxes[0].slices] == 0).any()


def test_grabcut_tells_background_inside_of_boxes() -> None:
    image = scan(boxes=(Box(20, 20, 60, 60, 3),))
    events = list(iter_pseudo_masks([image], replace(QUICK, method="grabcut")))
    assert any(isinstance(event, MaskPartDone) for event in events)
    labels = made(events)["a"].labels[20:60, 20:60]
    truth = ellipse_mask(image.boxes[0]).foreground
    assert (labels[truth] == 3).mean() > 0.9
    assert (labels[~truth] == 1).mean() > 0.7


def test_a_box_is_cut_out_the_same_whatever_else_is_drawn() -> None:
    options = replace(QUICK, method="grabcut")
    both = masks_in(list(iter_pseudo_masks([scan()], options)))
    image = scan()
    alone = BoxImage("b", image.pixels, image.boxes[1:])
    (one,) = masks_in(list(iter_pseudo_masks([alone], options)))
    assert np.array_equal(one.localization, both[1].localization)


def test_an_image_is_brought_to_8_bits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    regions: list[Box | None] = []
    in_8_bits = BoxImage.in_8_bits

    def watch(self: BoxImage, region: Box | None = None) -> Any:
        regions.append(region)
        return in_8_bits(self, region)

    monkeypatch.setattr(BoxImage, "in_8_bits", watch)
    list(iter_pseudo_masks([scan(), scan("b", ())], replace(QUICK, method="grabcut")))
    assert regions == [None]


# Region mining.


@pytest.mark.parametrize("method", sorted(MINING))
def test_mining_is_told_and_what_was_mined_can_be_used_again(method: Method) -> None:
    images = [scan("a"), scan("b")]
    options = replace(QUICK, method=method)
    events = list(iter_pseudo_masks(images, options))
    started = events[0]
    assert isinstance(started, MiningStarted)
    assert (started.images, started.boxes, started.steps) == (2, 4, 2)
    mined = mined_in(events)
    assert mined.class_values == (3, 4)
    assert (mined.network.b is not None) == (method == "acol")

    again = list(iter_pseudo_masks(images, options, mined))
    assert all(isinstance(e, MaskPartDone | BoxDone | ImageDone) for e in again)
    for name, result in made(events).items():
        assert np.array_equal(result.labels, made(again)[name].labels)
        assert np.array_equal(result.localization, made(again)[name].localization)

    # One of the boxes, on an image that was not learned.
    box = images[0].boxes[0]
    (mask,) = masks_in(list(iter_pseudo_masks([scan("c", (box,))], options, mined)))
    assert mask.foreground.shape == box.shape


def test_a_network_of_another_method_or_other_classes_is_refused() -> None:
    mined = mined_in(list(iter_pseudo_masks([scan()], replace(QUICK, method="cam"))))
    with pytest.raises(OptionError, match="not mined by acol; mine anew"):
        list(iter_pseudo_masks([scan()], QUICK, mined))
    other = scan(boxes=(Box(3, 3, 9, 9, 8),))
    with pytest.raises(LabelError, match=r"class values \[8\]"):
        list(iter_pseudo_masks([other], replace(QUICK, method="cam"), mined))
    assert made(list(iter_pseudo_masks([scan()], replace(QUICK, method="box"), mined)))


def test_other_parameters_of_the_crf_train_nothing_anew() -> None:
    image = scan()
    mask = masks_in(list(iter_pseudo_masks([image], QUICK)))[0]
    given = np.where(ellipse_mask(mask.box).foreground, 0.7, 0.4).astype(np.float32)
    without = refine(image, mask.box, given, replace(QUICK, crf=False))
    assert np.array_equal(without.foreground, given > 0.5)
    stiff = replace(QUICK, crf_options=CrfOptions(w1=0, w2=100, theta_gamma=30))
    assert refine(image, mask.box, given, stiff).foreground.all()


def test_maps_are_those_of_the_network_at_the_size_of_the_box() -> None:
    """The map follows the object wherever the image is resampled."""
    image = scan()
    options = replace(QUICK, mining=replace(QUICK.mining, side=64))
    events = list(iter_pseudo_masks([image], options))
    mined = mined_in(events)
    assert mined.side == 64
    maps = mined.localise(image)
    assert [each.shape for each in maps] == [box.shape for box in image.boxes]
    for mask, each in zip(masks_in(events), maps, strict=True):
        assert np.array_equal(mask.localization, each)


# Limits of time.


@pytest.mark.parametrize("method", sorted(LEARNING))
def test_when_time_is_over_masks_are_made_of_what_is_learned(method: Any) -> None:
    options = replace(
        QUICK,
        method=method,
        seconds=1e-6,
        mining=replace(QUICK.mining, epochs=1000),
        recursive=replace(QUICK.recursive, epochs=1000),
    )
    events = list(iter_pseudo_masks([scan()], options))
    steps = [e for e in events if isinstance(e, MiningStepDone | RoundStepDone)]
    assert len(steps) == 1
    assert made(events)


@pytest.mark.parametrize("method", ["box", "ellipse", "grabcut"])
def test_methods_without_training_have_no_use_for_time(method: Any) -> None:
    options = replace(QUICK, method=method, seconds=1e-6)
    assert made(list(iter_pseudo_masks([scan()], options)))


# Bad input.


@pytest.mark.parametrize("method", METHODS)
def test_no_box_is_an_error(method: Method) -> None:
    images = [scan("a", ()), scan("b", ())]
    with pytest.raises(LabelError, match="no box on any of the 2 images; draw at"):
        list(iter_pseudo_masks(images, replace(QUICK, method=method)))


def test_two_images_of_one_name_are_an_error() -> None:
    with pytest.raises(LabelError, match="several images have the name a"):
        list(iter_pseudo_masks([scan("a"), scan("a")], replace(QUICK, method="box")))


@pytest.mark.parametrize("method", sorted(LEARNING))
def test_boxes_that_cover_everything_leave_nothing_to_learn(method: Any) -> None:
    everything = scan(boxes=(Box(0, 0, 96, 80, 3),))
    with pytest.raises(TrainingError, match="or take a method that does not train"):
        list(iter_pseudo_masks([everything], replace(QUICK, method=method)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("crf", [None, True, False])
def test_a_crf_is_there_where_it_makes_sense(method: Method, crf: bool | None) -> None:
    default = method in LEARNING
    if method in ("box", "crf-box") and crf not in (None, default):
        with pytest.raises(OptionError, match=f"the method {method} was asked for"):
            PseudoMaskOptions(method, crf)
        return
    refinement = PseudoMaskOptions(method, crf).refinement
    assert (refinement.crf is not None) == (default if crf is None else crf)
    assert (refinement.margin > 0) == (method in IN_ROUNDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "snake"}, "named 'snake'; expected one of box, ellipse, grabcut"),
        ({"seconds": 0}, "is 0 seconds; expected a number above 0"),
        ({"seconds": float("nan")}, "is nan seconds"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        replace(QUICK, **change)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_cannot_take_is_refused_before_it_trains(method: Method) -> None:
    image = scan(channels=2)
    options = replace(QUICK, method=method)
    with pytest.raises(ImageError, match="a has 2 channels, but 1 or 3 are expected"):
        next(iter_pseudo_masks([image], options))


def test_a_backend_that_is_not_there_is_told_before_the_training() -> None:
    options = replace(QUICK, crf_backend="gpu")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="backend = 'gpu'; give auto, pydensecrf"):
        next(iter_pseudo_masks([scan()], options))
    assert next(iter_pseudo_masks([scan()], replace(options, crf=False)))
