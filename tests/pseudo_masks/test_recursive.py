"""Training in rounds: what is learned in each, how predictions are corrected."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_sparseseg.annotations import Box
from napari_sparseseg.errors import OptionError, TrainingError
from napari_sparseseg.learning.held_out import LEARNED
from napari_sparseseg.learning.options import RECIPES, TrainingOptions
from napari_sparseseg.learning.trainer import Trainer
from napari_sparseseg.networks.registry import NetworkSpec
from napari_sparseseg.prediction.predictor import TileDone, iter_predict
from napari_sparseseg.pseudo_masks import recursive
from napari_sparseseg.pseudo_masks.box_image import BoxImage
from napari_sparseseg.pseudo_masks.crf import CrfOptions
from napari_sparseseg.pseudo_masks.recursive import (
    RecursiveMethod,
    RecursiveOptions,
    RoundEvent,
    RoundPartDone,
    RoundStarted,
    RoundStepDone,
    central,
    train_in_rounds,
)
from napari_sparseseg.pseudo_masks.refinement import Refinement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sparseseg.pseudo_masks.label_map import BoxMask

TRAINING = TrainingOptions(
    head_start=False,
    scale=1,
    network=NetworkSpec("unet", {"filters": 4, "levels": 2, "norm": "group"}),
    recipe=replace(
        RECIPES["live"], batch=2, patch_px=32, epoch=2, warm_up=0, learning_rate=1e-2
    ),
)
QUICK = RecursiveOptions(epochs=1, training=TRAINING)
WITHOUT_CRF = Refinement()
WITH_CRF = Refinement(CrfOptions(), "torch", margin=0.2)


def disc(name: str = "a", seed: int = 0) -> tuple[BoxImage, NDArray[np.bool_]]:
    """Give a bright disc in a box, and where in the box it is."""
    random = np.random.default_rng(seed)
    y, x = random.integers(20, 44, 2).tolist()
    yy, xx = np.mgrid[:64, :64]
    inside = np.hypot(yy - y, xx - x) < 12
    pixels = 0.3 + 0.4 * inside + random.normal(0, 0.02, inside.shape)
    box = Box(y - 13, x - 13, y + 14, x + 14, 5)
    image = BoxImage(name, pixels[None].astype(np.float32), (box,))
    return image, inside[box.slices]


def drain(
    method: RecursiveMethod,
    images: list[BoxImage],
    options: RecursiveOptions = QUICK,
    refinement: Refinement = WITHOUT_CRF,
    background: int = 1,
    seconds: float | None = None,
) -> tuple[list[RoundEvent], list[list[BoxMask]]]:
    run = train_in_rounds(method, images, background, refinement, options, seconds)
    events = []
    while True:
        try:
            events.append(next(run))
        except StopIteration as done:
            return events, done.value


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, NDArray[Any]]]:
    """Give a list that will hold the label maps of each round by image."""
    rounds: list[dict[str, NDArray[Any]]] = []
    run = Trainer.run

    def watch(self: Trainer, steps: int | None = None) -> Iterator[Any]:
        images = self.data.images.values()
        rounds.append({image.name: image.labels.copy() for image in images})
        return run(self, steps)

    monkeypatch.setattr(Trainer, "run", watch)
    return rounds


def predict(monkeypatch: pytest.MonkeyPatch, *maps: NDArray[np.float32]) -> None:
    """Let each prediction, in turn, be such probabilities of the class of channel 1."""
    left = list(maps)

    def give(model: Any, image: Any, options: Any) -> Iterator[TileDone]:
        y0, x0, y1, x1 = options.region
        found = left.pop(0)[y0:y1, x0:x1]
        for part in range(2):  # two tiles, side by side
            middle = (x0 + x1) // 2
            columns = slice(0, middle - x0) if part == 0 else slice(middle - x0, None)
            edges = (x0, middle) if part == 0 else (middle, x1)
            tile = found[:, columns]
            yield TileDone(
                (y0, edges[0], y1, edges[1]),
                np.zeros(tile.shape, np.uint8),
                np.stack([1 - tile, tile]),
                share=0.5 * (part + 1),
            )

    monkeypatch.setattr(recursive, "iter_predict", give)


def test_the_centre_of_a_box_by_hand() -> None:
    # Centres at 0, .4, .8 of half a side of 5; the root of .2 is .447.
    middle = central(Box(3, 4, 8, 9, 1), 0.2).astype(int)
    assert middle.tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    assert central(Box(0, 0, 1, 2, 1), 0.2).tolist() == [[True, True]]
    assert central(Box(0, 0, 3, 1, 1), 0).tolist() == [[False], [True], [False]]
    assert central(Box(0, 0, 4, 7, 1), 1).all()
    assert central(Box(0, 0, 100, 60, 1), 0.2).mean() == pytest.approx(0.2, abs=0.02)


def test_rounds_and_steps_are_told() -> None:
    image, _ = disc()
    for method, rounds in (("sdi-box", 3), ("crf-box", 2)):
        events, _ = drain(method, [image])  # type: ignore[arg-type]
        told = [event for event in events if not isinstance(event, RoundPartDone)]
        starts = [event for event in told if isinstance(event, RoundStarted)]
        assert starts == [RoundStarted(n, rounds, 2) for n in range(1, rounds + 1)]
        steps = [event for event in told if isinstance(event, RoundStepDone)]
        assert [(each.number, each.step) for each in steps] == [
            (number, step) for number in range(1, rounds + 1) for step in (1, 2)
        ]
        assert all(np.isfinite(each.loss) for each in steps)


def test_nothing_that_is_labelled_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With five strokes of a class the training of strokes would hold some out."""
    shares: list[float] = []
    run = Trainer.run

    def watch(self: Trainer, steps: int | None = None) -> Iterator[Any]:
        for image in self.data.images.values():
            labelled = image.labels > 0
            members = self.data.held_out.membership[image.name]
            shares.append(float((members[labelled] == LEARNED).mean()))
        return run(self, steps)

    monkeypatch.setattr(Trainer, "run", watch)
    images = [disc(name, seed)[0] for seed, name in enumerate("abcdef")]
    empty = [BoxImage(f"{n}", disc(seed=n)[0].pixels, ()) for n in range(6)]
    drain("sdi-box", [*images, *empty], replace(QUICK, rounds=2))
    assert shares == [1.0] * 24


def test_the_weights_at_the_end_of_a_round_predict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not those at the end of an epoch before, when time is over amid the next."""
    trainers: list[Trainer] = []
    models: list[Any] = []
    run = Trainer.run

    def watch(self: Trainer, steps: int | None = None) -> Iterator[Any]:
        trainers.append(self)
        return run(self, steps)

    def give(model: Any, image: Any, options: Any) -> Iterator[TileDone]:
        models.append(model)
        return iter_predict(model, image, options)

    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(recursive, "time", clock)
    monkeypatch.setattr(Trainer, "run", watch)
    monkeypatch.setattr(recursive, "iter_predict", give)
    options = replace(QUICK, rounds=1, epochs=50)
    events, _ = drain("sdi-box", [disc()[0]], options, seconds=3)
    steps = [event for event in events if isinstance(event, RoundStepDone)]
    assert len(steps) == 3  # of epochs of two
    (network,) = trainers[0].networks
    used = models[0].parts["network"].state_dict()
    for name, value in network.average.state_dict().items():
        assert torch.equal(used[name], value)
    assert any(
        not torch.equal(used[name], value)
        for name, value in network.best.state_dict().items()
    )


def test_the_first_labels_of_sdi_box_are_the_boxes(
    learned: list[dict[str, NDArray[Any]]],
) -> None:
    image, _ = disc()
    empty = BoxImage("b", image.pixels, ())
    drain("sdi-box", [image, empty], replace(QUICK, rounds=1))
    (first,) = learned
    expected = np.full((64, 64), 1)
    expected[image.boxes[0].slices] = 5
    assert np.array_equal(first["a"], expected)
    assert (first["b"] == 1).all()


def test_a_prediction_of_too_little_is_reset_to_the_box(
    learned: list[dict[str, NDArray[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(10, 20, 20, 30, 5)
    image = BoxImage("a", disc()[0].pixels, (box,))
    half = np.zeros((64, 64), np.float32)
    half[:, :25] = 0.6  # half of the box, and much outside of it
    less = half.copy()
    less[10, 20] = 0.4
    predict(monkeypatch, half, less)
    _, ((mask,),) = drain("sdi-box", [image], replace(QUICK, rounds=2))
    second = learned[1]["a"]
    expected = np.full((64, 64), 1)
    expected[10:20, 20:25] = 5
    assert np.array_equal(second, expected)
    assert mask.foreground.all()
    assert (mask.localization == 1).all()


def test_crf_box_keeps_the_centre(
    learned: list[dict[str, NDArray[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(10, 20, 15, 25, 5)
    image = BoxImage("a", disc()[0].pixels, (box,))
    corner = np.zeros((64, 64), np.float32)
    corner[10, 20] = 0.7
    predict(monkeypatch, corner)
    _, ((mask,),) = drain("crf-box", [image], replace(QUICK, rounds=1))
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = 1
    # Without a CRF pixels of which nothing is known are background.
    assert np.array_equal(learned[0]["a"][box.slices] == 5, expected)
    expected[0, 0] = np.float32(0.7)
    assert mask.localization.tolist() == expected.astype(np.float32).tolist()
    assert mask.foreground.tolist() == (expected > 0).tolist()


def test_the_first_masks_of_crf_box_follow_the_edges_of_the_image(
    learned: list[dict[str, NDArray[Any]]],
) -> None:
    image, truth = disc()
    drain("crf-box", [image], replace(QUICK, rounds=1), WITH_CRF)
    first = learned[0]["a"][image.boxes[0].slices] == 5
    assert (first & truth).sum() / (first | truth).sum() > 0.95


def test_a_mask_that_comes_out_empty_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, _ = disc()
    nothing = np.zeros((64, 64), np.float32)
    predict(monkeypatch, nothing)
    options = replace(QUICK, rounds=1, least_share=0.0)
    _, ((mask,),) = drain("sdi-box", [image], options)
    assert mask.foreground.all()


def test_the_class_of_each_box_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels follow class values; without a class of background one is added."""
    small, large = Box(10, 10, 14, 14, 2), Box(30, 30, 50, 50, 7)
    image = BoxImage("a", disc()[0].pixels, (large, small))
    values: list[tuple[int, ...]] = []

    def give(model: Any, image: Any, options: Any) -> Iterator[TileDone]:
        values.append(model.info.classes.values)
        y0, x0, y1, x1 = options.region
        assert options.region == (10, 10, 50, 50)
        maps = np.zeros((3, y1 - y0, x1 - x0), np.float32)
        for channel, value in enumerate(model.info.classes.values):
            maps[channel] = 0.5 + value / 100
        yield TileDone(options.region, maps[0], maps, 1)

    monkeypatch.setattr(recursive, "iter_predict", give)
    options = replace(QUICK, rounds=1, least_share=0.0)
    _, ((first, second),) = drain("sdi-box", [image], options, background=0)
    assert values == [(1, 2, 7)]
    assert np.unique(first.localization).tolist() == [np.float32(0.57)]
    assert np.unique(second.localization).tolist() == [np.float32(0.52)]
    drain("sdi-box", [image], options, background=9)
    assert values[-1] == (2, 7, 9)


def test_a_class_that_others_cover_is_no_error() -> None:
    image, _ = disc()
    (box,) = image.boxes
    hidden = replace(box, class_value=3)  # of the same area: the first is on top
    both = BoxImage("a", image.pixels, (box, hidden))
    _, (masks,) = drain("sdi-box", [both], replace(QUICK, rounds=2))
    assert [mask.box for mask in masks] == [box, hidden]


@pytest.mark.parametrize("method", ["sdi-box", "crf-box"])
def test_masks_come_closer_to_the_object_than_the_box(method: RecursiveMethod) -> None:
    pairs = [disc(name, seed) for seed, name in enumerate("abc")]
    options = replace(QUICK, epochs=25, rounds=2)
    _, masks = drain(method, [image for image, _ in pairs], options, WITH_CRF)
    for (_, truth), (mask,) in zip(pairs, masks, strict=True):
        wrong = (mask.foreground != truth).sum()
        assert wrong < 0.3 * (~truth).sum()


def test_the_seed_decides() -> None:
    image, _ = disc()
    found = []
    for seed in (1, 1, 2):
        training = replace(TRAINING, seed=seed)
        options = replace(QUICK, training=training, least_share=0.0, rounds=1)
        found.append(drain("sdi-box", [image], options)[1][0][0].localization)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_when_time_is_over_each_round_has_one_step() -> None:
    image, _ = disc()
    options = replace(QUICK, epochs=50)
    events, masks = drain("sdi-box", [image], options, seconds=1e-6)
    steps = [event for event in events if isinstance(event, RoundStepDone)]
    assert [(each.number, each.step) for each in steps] == [(1, 1), (2, 1), (3, 1)]
    assert len(masks[0]) == 1


def test_boxes_that_leave_no_background_are_an_error() -> None:
    image, _ = disc()
    everything = BoxImage("a", image.pixels, (Box(0, 0, 64, 64, 5),))
    with pytest.raises(TrainingError, match="leave no background in any image"):
        drain("sdi-box", [everything])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds of training in rounds is 0; give at least 1"),
        ({"epochs": 0}, "epochs of training in rounds is 0"),
        ({"least_share": 1.2}, "least_share of training in rounds is 1.2"),
        ({"centre": -0.1}, "centre of training in rounds is -0.1"),
        ({"margin": -0.1}, "margin of training in rounds is -0.1"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(QUICK, **change)
