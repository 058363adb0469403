"""Training as a whole: going on to the bit, changes on the way, trouble, quality."""

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from collections.abc import Generator as Parts
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save, save_file
from scipy import ndimage
from torch import Tensor

from napari_sparseseg.errors import LabelError, TrainingError
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.io.model_file import load_model, save_model
from napari_sparseseg.learning import trainer as trainer_module
from napari_sparseseg.learning.events import (
    HeadFitted,
    MemorySaved,
    PartDone,
    PartScore,
    Recovered,
    ScaleChosen,
    StepDone,
    TrainingEvent,
    Validated,
)
from napari_sparseseg.learning.feature_cache import FeatureCacheOptions
from napari_sparseseg.learning.head_fitting import HeadOptions
from napari_sparseseg.learning.held_out import HELD_OUT
from napari_sparseseg.learning.judge import Judge, choose
from napari_sparseseg.learning.losses import weighted_cross_entropy
from napari_sparseseg.learning.metrics import evaluate
from napari_sparseseg.learning.options import RECIPES, TrainingOptions
from napari_sparseseg.learning.trainer import (
    FINER_MARGIN,
    MOST_RECOVERIES,
    NETWORK_SCALES,
    TRIAL_EPOCHS,
    Trainer,
    overall,
)
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
from napari_sparseseg.networks.encoders import build_encoder
from napari_sparseseg.networks.model import Part, Shown
from napari_sparseseg.networks.registry import NetworkSpec
from napari_sparseseg.prediction.predictor import predict_image
from napari_sparseseg.samples import Sample, tissue_phantom

if TYPE_CHECKING:
    from napari_sparseseg.networks.scoring import ScoringNetwork

Labels = NDArray[np.uint8]
Event = TypeVar("Event")
Scores = Mapping[Shown, PartScore | None]

PARTS: tuple[Part, Part] = ("head", "network")
SHOWN: tuple[Shown, ...] = ("head", "network", "both")

EPOCH = 2
TRIAL = TRIAL_EPOCHS * EPOCH

RECIPE = dataclasses.replace(
    RECIPES["live"], batch=2, patch_px=32, epoch=EPOCH, warm_up=3
)

#: Learns something in a second.
BRISK = dataclasses.replace(RECIPE, batch=4, epoch=50, learning_rate=3e-3)

SMALL = TrainingOptions(
    network=NetworkSpec("unet", {"filters": 4, "levels": 3, "norm": "batch"}),
    recipe=RECIPE,
    head=HeadOptions(steps=20, batch=256),
)


@pytest.fixture(scope="module")
def sample() -> Sample:
    """Five strokes of each of four classes, so one of each is held out."""
    return tissue_phantom(0, (128, 128))


def image_of(sample: Sample, labels: Labels | None = None) -> TrainingImage:
    given = sample.labels if labels is None else labels
    return TrainingImage("image", sample.image, given)


def new_trainer(
    sample: Sample,
    labels: Labels | None = None,
    *,
    held_out_seed: int = 0,
    **changes: Any,
) -> Trainer:
    images = [image_of(sample, labels)]
    norm = Normalisation("range", 0, 255)
    data = TrainingSet(images, sample.classes, norm, held_out_seed)
    return Trainer(data, dataclasses.replace(SMALL, **changes))


def events_of(events: list[TrainingEvent], kind: type[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def kinds(events: list[TrainingEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def predicted(trainer: Trainer, sample: Sample, shown: Shown) -> Labels:
    labels, _ = predict_image(trainer.model().showing(shown), sample.image)
    return labels.astype(np.uint8)


def assert_found(labels: Labels, sample: Sample, value: int) -> None:
    """Check that there is far more of a class where it is than where it is not."""
    there = np.asarray(sample.truth) == value
    found = labels == value
    assert found[there].mean() > 0.3
    assert found[there].mean() > 3 * found[~there].mean()


def without(labels: Labels, *values: int) -> Labels:
    return np.where(np.isin(labels, values), 0, labels).astype(np.uint8)


def first_stroke(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    ids, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.asarray(ids == 1)


# What is told, in which order.


def test_a_training_tells_head_steps_validations_and_the_scale(sample: Sample) -> None:
    trainer = new_trainer(sample)
    events = list(trainer.run(TRIAL + 1))
    epoch = ["StepDone"] * EPOCH
    trial = [*epoch, "Validated"] * (TRIAL_EPOCHS - 1)
    ending = [*epoch, "ScaleChosen", "Validated", "StepDone"]
    # At first to predict at once, then with its score.
    assert kinds(events) == ["HeadFitted", "HeadFitted", *trial, *ending]
    assert [e.score is None for e in events_of(events, HeadFitted)] == [True, False]
    assert [e.step for e in events_of(events, StepDone)] == list(range(1, TRIAL + 2))

    (chosen,) = events_of(events, ScaleChosen)
    assert set(chosen.scores_by_scale) == set(NETWORK_SCALES)
    best = max(chosen.scores_by_scale.values())
    assert chosen.scores_by_scale[chosen.scale] >= best - FINER_MARGIN
    assert [network.scale for network in trainer.networks] == [chosen.scale]

    validated = events_of(events, Validated)[-1]
    assert set(validated.scores) == {"head", "network", "both"}
    for score in validated.scores.values():
        assert score is not None
        assert score.strokes == {1: 1, 2: 1, 3: 1, 4: 1}
    together = overall(validated.scores["both"])
    assert together == chosen.scores_by_scale[chosen.scale]


def test_a_young_network_is_not_shown_however_well_it_does_on_held_out_strokes(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "choose", lambda *_: ("network", "it is best"))
    trainer = new_trainer(sample)
    young, *older = events_of(list(trainer.run(EPOCH)), Validated)
    assert (young.shown, trainer.model().info.shown, older) == ("head", "head", [])
    list(trainer.run(TRIAL - EPOCH))
    assert (trainer.shown, trainer.model().info.shown) == ("network", "network")


def test_with_a_new_class_the_network_is_young_again(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "choose", lambda *_: ("network", "it is best"))
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(TRIAL))
    assert trainer.shown == "network"
    trainer.use_classes(sample.classes.add("new"))
    other = new_trainer(sample, scale=0.5)
    other.data.classes = trainer.data.classes
    other.load_state(*through_files(trainer))
    for each in (trainer, other):
        young = events_of(list(each.run(TRIAL - 1)), Validated)
        assert {event.shown for event in young} == {"head"}
        shown = [each.shown]
        list(each.run(1))
        assert [*shown, each.shown] == ["head", "network"]


def test_a_scale_that_is_given_is_not_tried(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5)
    events = list(trainer.run(TRIAL))
    assert not events_of(events, ScaleChosen)
    assert trainer.model().info.scales == {"head": 0.5, "network": 0.5}


def test_with_nothing_to_compare_by_the_coarsest_scale_is_taken(sample: Sample) -> None:
    labels = sample.labels.copy()
    for value in (1, 2, 3, 4):
        labels[first_stroke(labels == value)] = 0  # four of each are left
    trainer = new_trainer(sample, labels)
    events = list(trainer.run(1))
    assert not trainer.data.held_out.held_out_strokes()
    assert trainer.model().info.scales["network"] == min(NETWORK_SCALES)
    assert events_of(events, HeadFitted)[0].score is None


def scores_are(patch: pytest.MonkeyPatch, of: Callable[[float], Scores]) -> None:
    """Let a network be scored by its scale alone."""

    def score_in_parts(
        _: Any, _network: Any, scale: float
    ) -> Parts[None, None, Scores]:
        yield
        return of(scale)

    patch.setattr(Judge, "score_in_parts", score_in_parts)


def test_the_recipes_epochs_end_a_training(sample: Sample) -> None:
    recipe = dataclasses.replace(RECIPE, max_epochs=2)
    trainer = new_trainer(sample, recipe=recipe, scale=0.5)
    events = list(trainer.run())
    assert trainer.steps == 2 * EPOCH
    assert kinds(events)[-1] == "Validated"
    assert not list(trainer.run(5))


def test_the_model_reports_how_it_came_about(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5, seed=3)
    list(trainer.run(EPOCH))
    report = json.loads(json.dumps(trainer.model().info.training, allow_nan=False))
    assert report["steps"] == EPOCH
    assert report["seed"] == 3
    assert report["balancing"] == "mini-batch"
    assert (report["loss"], report["encoder_weights"]) == ("ce", "none")
    assert [report[key] for key in ("l1_weight", "l2_weight", "smoothness")] == [
        1,
        1,
        0,
    ]
    assert report["strokes"] == {"1": 5, "2": 5, "3": 5, "4": 5}
    assert report["pixels"]["1"] == (sample.labels == 1).sum()
    assert set(report["held_out_dice"]) == {"head", "network", "both"}


def test_a_model_does_not_change_when_the_training_goes_on(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(EPOCH))
    model = trainer.model()
    before = {name: copy.deepcopy(p.state_dict()) for name, p in model.parts.items()}
    list(trainer.run(EPOCH))
    for name, part in model.parts.items():
        for key, value in part.state_dict().items():
            assert torch.equal(value, before[name][key])


@pytest.mark.filterwarnings("ignore:the encoder is frozen with random weights")
def test_what_predicts_shares_frozen_encoders_and_nothing_else(
    sample: Sample, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(build_encoder("resnet18").state_dict(), path)
    trainer = new_trainer(
        sample,
        scale=0.25,
        network=NetworkSpec(
            "unet-resnet50", {"encoder": "resnet18", "levels": 2, "filters": 4}
        ),
        encoder_weights=str(path),
        freeze_encoder=True,
        head_features="resnet18",
        feature_cache=FeatureCacheOptions("off"),
    )
    list(trainer.run(EPOCH))
    model = trainer.best_model()
    assert trainer.head is not None
    training: Mapping[Part, ScoringNetwork] = {
        "head": trainer.head.network,
        "network": trainer.networks[0].best,
    }
    for name, part in model.parts.items():
        learned = training[name].state_dict()
        shared = {
            key
            for key, value in part.state_dict().items()
            if value.data_ptr() == learned[key].data_ptr()
        }
        assert shared == {key for key in learned if ".encoder." in key}
    before = {name: copy.deepcopy(p.state_dict()) for name, p in model.parts.items()}
    list(trainer.run(EPOCH))
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    for name, part in loaded.parts.items():
        for key, value in part.state_dict().items():
            assert torch.equal(value, before[name][key])


# Going on later.


def through_files(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give the state of a trainer as it comes back from disk."""
    tensors, values = trainer.state()
    plain = {name: value.contiguous() for name, value in tensors.items()}
    return load(save(plain)), json.loads(json.dumps(values, allow_nan=False))


def assert_same(one: Trainer, two: Trainer) -> None:
    """Check that two trainers are equal to the bit, in what they hold and show."""
    for first, second in (
        (one.state()[0], two.state()[0]),
        *(
            (a.state_dict(), b.state_dict())
            for a, b in zip(
                one.model().parts.values(), two.model().parts.values(), strict=True
            )
        ),
    ):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(value, second[name]), name
    assert json.dumps(one.state()[1]) == json.dumps(two.state()[1])
    assert one.model().info == two.model().info
    for name, members in one.data.held_out.membership.items():
        assert (members == two.data.held_out.membership[name]).all()


@pytest.mark.parametrize(
    ("n_steps", "changes"),
    [
        pytest.param(TRIAL, {}, id="trial before"),
        pytest.param(TRIAL - 1, {}, id="across the trial"),
        pytest.param(3, {"scale": 0.5, "balancing": "instance"}, id="in an epoch"),
        pytest.param(EPOCH, {"scale": 0.25, "head_start": False}, id="no head"),
    ],
)
def test_n_steps_saved_loaded_and_n_more_are_2n_steps(
    sample: Sample, n_steps: int, changes: dict[str, Any]
) -> None:
    whole = new_trainer(sample, **changes)
    expected = list(whole.run(2 * n_steps))

    first = new_trainer(sample, **changes)
    events = list(first.run(n_steps))
    second = new_trainer(sample, **changes)
    second.load_state(*through_files(first))
    assert_same(first, second)
    events += second.run(n_steps)

    assert events == expected
    assert_same(whole, second)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A training that was not stopped, and its steps."""

    trainer: Trainer
    steps: list[StepDone]

    @classmethod
    def of(cls, trainer: Trainer) -> "Whole":
        return cls(trainer, events_of(list(trainer.run(TRIAL + 1)), StepDone))


@pytest.fixture(scope="module")
def whole(sample: Sample) -> Whole:
    return Whole.of(new_trainer(sample))


@pytest.fixture(scope="module")
def whole_in_parts(sample: Sample) -> Whole:
    return Whole.of(trainer_in_parts(sample))


def assert_goes_on(whole: Whole, make: Callable[[], Trainer], n_events: int) -> None:
    """Check that a training stopped at an event ends as one that was not."""
    first = make()
    events = list(islice(first.run(), n_events))
    second = make()
    second.load_state(*through_files(first))
    for trainer in (first, second):
        rest = list(trainer.run(TRIAL + 1 - trainer.steps))
        assert events_of(events + rest, StepDone) == whole.steps
        assert_same(whole.trainer, trainer)


#: Ends after 40 steps by itself.
FALLING = dataclasses.replace(
    RECIPE, optimiser="sgd", schedule="polynomial", max_epochs=20, warm_up=0
)


def rates(events: list[TrainingEvent]) -> list[float]:
    return [event.learning_rate for event in events_of(events, StepDone)]


def torchs_rates(steps: int) -> list[float]:
    """Give the rate after each step of a polynomial that ends with them."""
    weight = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([weight], FALLING.learning_rate)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimiser, steps, 0.9)
    found = []
    for _ in range(steps):
        optimiser.step()
        scheduler.step()
        found.append(optimiser.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("changes", [{"scale": 0.5}, {}], ids=["one", "two scales"])
def test_a_polynomial_schedule_ends_with_the_steps_that_are_asked_for(
    sample: Sample, changes: dict[str, Any]
) -> None:
    trainer = new_trainer(sample, recipe=FALLING, **changes)
    events = list(trainer.run(6))
    assert rates(events) == pytest.approx(torchs_rates(6), abs=1e-12)
    # Further ones are what they had been, had all been asked for at once.
    events = list(trainer.run(4))
    assert rates(events) == pytest.approx(torchs_rates(10)[6:], abs=1e-12)


def test_a_polynomial_schedule_ends_no_later_than_the_recipe(sample: Sample) -> None:
    for steps in (None, 1000):
        trainer = new_trainer(sample, recipe=FALLING, scale=0.5)
        events = list(islice(trainer.run(steps), 6))
        found = rates(events)
        assert len(found) > 2
        assert found == pytest.approx(torchs_rates(40)[: len(found)])


def test_a_polynomial_schedule_goes_on_from_a_checkpoint(sample: Sample) -> None:
    def make() -> Trainer:
        return new_trainer(sample, recipe=FALLING, scale=0.5)

    whole = make()
    expected = events_of(list(whole.run(7)), StepDone)
    first = make()
    events = []
    for event in first.run(7):
        events.append(event)
        if first.steps == 3:
            break
    second = make()
    second.load_state(*through_files(first))
    events += second.run(4)
    assert events_of(events, StepDone) == expected
    assert_same(whole, second)


@pytest.mark.parametrize("n_events", range(10))
def test_a_training_stopped_at_any_event_goes_on_as_if_it_had_not(
    sample: Sample, whole: Whole, n_events: int
) -> None:
    assert_goes_on(whole, lambda: new_trainer(sample), n_events)


# In parts.

#: Steps of two parts for each network. Batch normalisation would see other batches.
IN_PARTS = dataclasses.replace(
    SMALL,
    network=NetworkSpec("unet", {"filters": 4, "levels": 3, "norm": "group"}),
    micro_batch=1,
)


def trainer_in_parts(sample: Sample, labels: Labels | None = None) -> Trainer:
    data = new_trainer(sample, labels).data
    return Trainer(data, IN_PARTS)


def without_parts(events: list[TrainingEvent]) -> list[TrainingEvent]:
    return [event for event in events if not isinstance(event, PartDone)]


def test_between_the_parts_of_a_step_and_of_the_heads_fit_there_is_an_event(
    sample: Sample,
) -> None:
    trainer = trainer_in_parts(sample)
    events = list(trainer.run(EPOCH))
    fitting = ["PartDone", "HeadFitted", *["PartDone"] * 2, "HeadFitted"]
    # Each of two networks sees one image; the judge finds the places, measures the
    # image and asks for the one place.
    seeing = ["PartDone"] * (2 + 3)
    # Two networks, of two parts each.
    step = ["PartDone", "PartDone", "StepDone"]
    scoring = ["PartDone"] * (2 * 2)
    assert kinds(events) == [*fitting, *seeing, *step, *step, *scoring, "Validated"]
    whole = dataclasses.replace(IN_PARTS, micro_batch=None)
    plain = list(Trainer(new_trainer(sample).data, whole).run(EPOCH))
    assert kinds(plain) == kinds(without_parts(events))


# The first and the last part of what the test above names.
@pytest.mark.parametrize("n_events", [1, 3, 4, 6, 10, 11, 12, 14, 17, 20])
def test_a_training_stopped_within_a_step_goes_on_as_if_it_had_not(
    sample: Sample, whole_in_parts: Whole, n_events: int
) -> None:
    assert_goes_on(whole_in_parts, lambda: trainer_in_parts(sample), n_events)


@pytest.mark.parametrize("n_events", [1, 3, 4, 6, 7, 10, 11, 12])
def test_what_changes_within_a_fit_or_a_step_comes_at_once(
    sample: Sample, n_events: int
) -> None:
    trainer = trainer_in_parts(sample, without(sample.labels, 4))
    events = trainer.run()
    before = list(islice(events, n_events))
    assert kinds(before)[-1] == "PartDone"
    trainer.use_classes(sample.classes.removed(4))
    trainer.put(image_of(sample, without(sample.labels, 4)))
    trainer.use_classes(sample.classes)
    trainer.put(image_of(sample))
    later = without_parts(list(islice(events, 24)))
    assert kinds(later)[:2] == ["HeadFitted", "HeadFitted"]
    assert events_of(later, StepDone)[0].step == 1
    assert 4 in predicted(trainer, sample, "head")


def test_what_changes_within_a_validation_is_validated(sample: Sample) -> None:
    trainer = trainer_in_parts(sample)
    events = trainer.run()
    while "StepDone" not in kinds([next(events)]) or trainer.steps < EPOCH:
        pass
    assert kinds([next(events)]) == ["PartDone"]
    trainer.put(image_of(sample, without(sample.labels, 4)))
    later = without_parts(list(islice(events, 24)))
    others = [event for event in later if not isinstance(event, HeadFitted)]
    assert kinds(later)[0] == "HeadFitted"
    validated = others[0]
    assert isinstance(validated, Validated)
    assert validated.step == EPOCH
    for each in validated.scores.values():
        assert each is not None
        assert set(each.dice) == {1, 2, 3}


# The model at once.


def test_the_best_model_is_what_was_validated_and_nothing_is_scored_for_it(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(EPOCH))
    expected = trainer.model()
    monkeypatch.setattr(Judge, "score_in_parts", None)
    model = trainer.best_model()
    assert model.info == expected.info
    for name, part in expected.parts.items():
        for key, value in part.state_dict().items():
            assert torch.equal(value, model.parts[name].state_dict()[key])
    monkeypatch.undo()
    labels, _ = predict_image(model, sample.image)
    list(trainer.run(EPOCH))
    again, _ = predict_image(model, sample.image)
    assert (labels == again).all()


def test_the_best_model_is_the_head_before_there_is_a_network(sample: Sample) -> None:
    trainer = new_trainer(sample)
    with pytest.raises(TrainingError, match="nothing is learned yet"):
        trainer.best_model()
    next(iter(trainer.run()))
    assert set(trainer.best_model().parts) == {"head"}
    assert trainer.best_model().info.shown == "head"


def test_models_leave_nothing_of_images_that_they_predict(
    sample: Sample, tmp_path: Path
) -> None:
    cache = FeatureCacheOptions("on", tmp_path)
    trainer = new_trainer(
        sample, scale=0.5, head_features="resnet18", feature_cache=cache
    )
    next(iter(trainer.run()))
    kept = set(tmp_path.rglob("*.zip"))
    assert kept
    other = np.flip(sample.image, 0)
    for model in (trainer.best_model(), trainer.model()):
        predict_image(model, other)
    assert set(tmp_path.rglob("*.zip")) == kept


def test_without_a_best_moment_the_present_one_predicts(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5, head_start=False)
    list(trainer.run(1))
    present = trainer.networks[0].average.state_dict()
    found = trainer.best_model().parts["network"].state_dict()
    assert all(torch.equal(value, present[name]) for name, value in found.items())


def test_held_out_strokes_and_first_looks_come_back(sample: Sample) -> None:
    first = new_trainer(sample, without(sample.labels, 4), scale=0.5)
    list(first.run(1))
    more = without(sample.labels, 4)
    more[first_stroke(sample.labels == 4)] = 4
    first.put(image_of(sample, more))
    second = new_trainer(sample, more, scale=0.5, held_out_seed=5)
    members = [t.data.held_out.membership["image"] for t in (first, second)]
    assert (members[0] != members[1]).any()
    second.load_state(*through_files(first))
    for trainer in (first, second):
        list(trainer.run(EPOCH))
    assert (first.data.held_out.membership["image"] == HELD_OUT).any()
    assert first.state()[1]["first_looks"]
    assert_same(first, second)


def test_strokes_painted_while_learning_are_remembered_by_the_heads_scale(
    sample: Sample,
) -> None:
    """The head keeps the resolution it found first, also after a restart."""
    first = new_trainer(sample)
    list(first.run(1))
    first.put(image_of(sample, np.where(sample.labels, sample.labels, few(sample))))
    list(first.run(1))
    second = new_trainer(sample, first.data.images["image"].labels.astype(np.uint8))
    second.load_state(*through_files(first))
    assert_same(first, second)


def few(sample: Sample) -> Labels:
    assert sample.truth is not None
    block = np.zeros_like(sample.labels)
    block[60:64, 60:64] = sample.truth[60:64, 60:64]
    return block


def test_dense_images_keep_their_role(sample: Sample) -> None:
    assert sample.truth is not None
    images = [
        image_of(sample),
        TrainingImage("one", sample.image[::-1], sample.truth[::-1], dense=True),
        TrainingImage("two", sample.image[:, ::-1], sample.truth[:, ::-1], dense=True),
    ]

    def trainer(seed: int) -> Trainer:
        norm = Normalisation("range", 0, 255)
        data = TrainingSet(images, sample.classes, norm, seed)
        return Trainer(data, dataclasses.replace(SMALL, scale=0.25))

    first = trainer(0)
    list(first.run(EPOCH))
    others = [trainer(seed) for seed in range(1, 6)]
    roles = [t.data.is_held_out("one") for t in others]
    assert len(set(roles)) == 2  # so that something is to be restored
    for second in others:
        second.load_state(*through_files(first))
        assert_same_data(first, second)


def test_dense_images_alone_may_choose_the_resolution(sample: Sample) -> None:
    assert sample.truth is not None
    images = [
        TrainingImage("one", sample.image, sample.truth, dense=True),
        TrainingImage("two", sample.image[::-1], sample.truth[::-1], dense=True),
    ]
    data = TrainingSet(images, sample.classes, Normalisation("range", 0, 255), seed=0)
    (chosen,) = events_of(list(Trainer(data, SMALL).run(TRIAL)), ScaleChosen)
    assert set(chosen.scores_by_scale) == set(NETWORK_SCALES)


def assert_same_data(one: Trainer, two: Trainer) -> None:
    held_out = [each.data.held_out for each in (one, two)]
    assert held_out[0].held_out_strokes() == held_out[1].held_out_strokes()
    assert held_out[0].random_state() == held_out[1].random_state()
    for name, members in held_out[0].membership.items():
        assert (members == held_out[1].membership[name]).all()


def test_the_seed_decides_everything(sample: Sample) -> None:
    first, again, other = (
        new_trainer(sample, scale=0.5, seed=seed) for seed in (1, 1, 2)
    )
    for trainer in (first, again, other):
        list(trainer.run(2 * EPOCH))
    for part in PARTS:
        labels = predicted(first, sample, part)
        assert (labels == predicted(again, sample, part)).all()
        assert (labels != predicted(other, sample, part)).any()


def test_torchs_own_random_state_is_left_alone(sample: Sample) -> None:
    before = torch.get_rng_state()
    trainer = new_trainer(sample)
    list(trainer.run(TRIAL))
    trainer.use_classes(sample.classes.add("new"))
    list(trainer.run(1))
    assert torch.equal(before, torch.get_rng_state())


# Changes while it learns.


def test_strokes_added_while_running_are_learned(sample: Sample) -> None:
    labels = without(sample.labels, 4)
    trainer = new_trainer(sample, labels, scale=0.5, recipe=BRISK)
    list(trainer.run(2))
    assert 4 not in predicted(trainer, sample, "head")

    trainer.put(image_of(sample))
    assert kinds(list(trainer.run(148)))[0] == "HeadFitted"
    for part in PARTS:
        assert_found(predicted(trainer, sample, part), sample, 4)


def test_a_class_added_while_running_appears_and_the_others_are_still_known(
    sample: Sample,
) -> None:
    small = sample.classes.removed(4)
    labels = without(sample.labels, 4)
    data = TrainingSet(
        [image_of(sample, labels)], small, Normalisation("range", 0, 255), 0
    )
    trainer = Trainer(data, dataclasses.replace(SMALL, scale=0.5, recipe=BRISK))
    list(trainer.run(50))
    x = torch.rand(1, 3, 32, 32)
    known = trainer.networks[0].average(x)

    trainer.use_classes(sample.classes)
    model = trainer.model()  # at once, before anything more is learned
    assert model.info.classes == sample.classes
    assert model.info.shown == "network"
    torch.testing.assert_close(trainer.networks[0].average(x)[:, :3], known)

    trainer.put(image_of(sample))
    list(trainer.run(100))
    for part in PARTS:
        labels = predicted(trainer, sample, part)
        for value in (1, 2, 4):  # 3 looks much like 4
            assert_found(labels, sample, value)


def test_a_class_that_is_removed_is_predicted_no_more(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5)
    events = trainer.run()
    list(islice(events, 1 + EPOCH))
    with pytest.raises(LabelError):
        trainer.use_classes(sample.classes.removed(2))
    trainer.put(image_of(sample, without(sample.labels, 2)))
    trainer.use_classes(sample.classes.removed(2))
    list(islice(events, 4 * EPOCH))
    for part, module in trainer.model().parts.items():
        assert module(torch.rand(1, 3, 32, 32)).shape[1] == 3
        assert 2 not in predicted(trainer, sample, part)


@pytest.mark.parametrize("n_events", range(1, 9))
def test_classes_may_change_at_any_event(sample: Sample, n_events: int) -> None:
    trainer = new_trainer(sample, without(sample.labels, 1))
    events = trainer.run()
    list(islice(events, n_events))
    trainer.use_classes(sample.classes.removed(1))
    if n_events <= 2:  # there is no network yet, and the head knew other classes
        with pytest.raises(TrainingError, match="nothing is learned yet"):
            trainer.model()
    else:
        assert trainer.model().info.shown == "network"
    # Of an epoch that had ended before, at most two events were still to be told.
    assert "HeadFitted" in kinds(list(islice(events, 3)))
    assert "head" in trainer.model().parts
    later = list(islice(events, 2 * EPOCH + 2))
    for score in events_of(later, Validated)[-1].scores.values():
        assert score is not None
        assert set(score.dice) == {2, 3, 4}


def test_with_other_strokes_held_out_the_best_moment_is_found_anew(
    sample: Sample,
) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(EPOCH))
    trainer.networks[0].best_scores = {"network": score(2.0)}
    trainer.networks[0].highest = 2.0
    list(trainer.run(EPOCH))
    assert overall(trainer.networks[0].best_scores["network"]) == 2
    trainer.put(image_of(sample))
    list(trainer.run(EPOCH))
    assert overall(trainer.networks[0].best_scores["network"]) <= 1


def test_an_image_added_and_one_removed_while_running(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(1))
    trainer.put(TrainingImage("second", sample.image[:64], sample.labels[:64]))
    assert kinds(list(trainer.run(1)))[0] == "HeadFitted"
    assert trainer.model().info.training["images"] == 2
    trainer.remove("image")
    assert trainer.model().info.training["images"] == 1
    assert kinds(list(trainer.run(1)))[0] == "HeadFitted"
    assert trainer.model().info.training["images"] == 1


def test_labels_taken_away_are_missed_in_one_sentence(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(1))
    trainer.put(image_of(sample, without(sample.labels, 1, 2, 3)))
    with pytest.raises(LabelError, match="only the class 'lymphocytes'"):
        list(trainer.run(1))
    trainer.put(image_of(sample))
    assert kinds(list(trainer.run(1)))[0] == "HeadFitted"


def test_an_image_that_does_not_fit_is_refused_and_learning_goes_on(
    sample: Sample,
) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(1))
    with pytest.raises(LabelError, match=r"\(64, 128\)"):
        trainer.put(image_of(sample, sample.labels[:64]))
    assert kinds(list(trainer.run(1))) == ["StepDone", "Validated"]


# First looks.


def test_strokes_of_a_rare_class_are_scored_before_they_are_learned(
    sample: Sample,
) -> None:
    labels = sample.labels
    trainer = new_trainer(sample, without(labels, 4), scale=0.5)
    list(trainer.run(EPOCH))
    stroke = first_stroke(labels == 4)
    expected = {}
    for shown in SHOWN:
        guesses = predicted(trainer, sample, shown)[stroke]
        expected[shown] = np.bincount(guesses - 1, minlength=4).tolist()

    trainer.put(image_of(sample, np.where(stroke, labels, without(labels, 4))))
    (look,) = trainer.state()[1]["first_looks"]
    nothing = [0, 0, 0, 0]
    for shown, row in expected.items():
        assert look[shown] == [nothing, nothing, nothing, row]

    (validated,) = events_of(list(trainer.run(EPOCH)), Validated)
    for each in validated.scores.values():
        assert each is not None
        assert set(each.dice) == {1, 2, 3, 4}
        assert set(each.strokes) == {1, 2, 3}
    head = validated.scores["head"]
    assert head is not None
    assert head.dice[4] == 0  # the head cannot have known it


def test_a_common_class_is_scored_by_its_held_out_strokes_alone(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(1))
    more = np.where(sample.labels, sample.labels, few(sample)).astype(np.uint8)
    trainer.put(image_of(sample, more))
    assert trainer.state()[1]["first_looks"] == []


# Trouble.


def losses_of(
    patch: pytest.MonkeyPatch, trouble: Callable[[int, Tensor], Tensor]
) -> None:
    """Let *trouble* change the loss, given its number from 1 on."""
    count = 0

    def loss(*args: Any) -> Tensor:
        nonlocal count
        count += 1
        return trouble(count, weighted_cross_entropy(*args))

    patch.setattr("napari_sparseseg.learning.losses.weighted_cross_entropy", loss)


def test_a_loss_that_is_no_number_is_recovered_from(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_of(monkeypatch, lambda n, loss: loss * math.nan if n == 6 else loss)
    trainer = new_trainer(sample, scale=0.5)
    events = list(trainer.run(10))
    (recovered,) = events_of(events, Recovered)
    steps = events_of(events, StepDone)
    assert recovered.step == 5
    assert recovered.learning_rate == pytest.approx(RECIPE.learning_rate / 2)
    assert [step.step for step in steps] == list(range(1, 11))
    assert all(math.isfinite(step.loss) for step in steps)
    assert steps[4].learning_rate == pytest.approx(RECIPE.learning_rate)
    assert steps[5].learning_rate == pytest.approx(RECIPE.learning_rate / 2)
    tensors = trainer.state()[0].values()
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_a_loss_that_stays_no_number_ends_the_training(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_of(monkeypatch, lambda n, loss: loss * math.nan if n > 3 else loss)
    trainer = new_trainer(sample, scale=0.5)
    events: list[TrainingEvent] = []
    with pytest.raises(TrainingError, match="the loss was no number 11 times in a row"):
        for event in trainer.run(10):
            events += [event]
    assert len(events_of(events, StepDone)) == 3
    assert len(events_of(events, Recovered)) == MOST_RECOVERIES


def test_with_other_labels_a_training_that_goes_on_judges_anew(sample: Sample) -> None:
    before = new_trainer(sample, scale=0.5)
    list(before.run(EPOCH))
    assert before.networks[0].best_scores
    tensors, values = through_files(before)
    same = new_trainer(sample, scale=0.5)
    same.load_state(tensors, values)
    assert same.networks[0].best_scores == before.networks[0].best_scores
    erased = np.where(first_stroke(sample.labels == 1), 0, sample.labels)
    other = new_trainer(sample, erased.astype(np.uint8), scale=0.5)
    other.load_state(tensors, values)
    assert other.networks[0].best_scores == {}
    assert kinds(list(other.run(1)))[0] == "HeadFitted"


@pytest.mark.parametrize(
    ("finer", "chosen"), [(0.70, 0.25), (0.71, 0.25), (0.73, 0.5), (0.90, 0.5)]
)
def test_the_coarser_scale_stays_unless_the_finer_is_clearly_better(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, finer: float, chosen: float
) -> None:
    dice = {0.25: 0.7, 0.5: finer}
    scores_are(
        monkeypatch,
        lambda scale: {
            "head": score(0.6),
            "network": score(1 - dice[scale]),  # what it does alone does not count
            "both": score(dice[scale]),
        },
    )
    (settled,) = events_of(list(new_trainer(sample).run(2 * EPOCH)), ScaleChosen)
    assert settled.scale == chosen


def test_poisoned_weights_are_recovered_from(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(EPOCH + 1))
    (network,) = trainer.networks
    with torch.no_grad():
        for parameter in network.network.parameters():
            parameter.fill_(math.nan)
    events = list(trainer.run(EPOCH))
    assert kinds(events)[0] == "Recovered"
    assert len(events_of(events, StepDone)) == EPOCH
    assert all(value.isfinite().all() for value in trainer.state()[0].values())


@pytest.mark.parametrize("bad", [1, EPOCH + 1])
def test_trouble_right_after_an_epoch_does_not_end_it_twice(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    losses_of(monkeypatch, lambda n, loss: loss * math.nan if n == bad else loss)
    events = list(new_trainer(sample, scale=0.5).run(2 * EPOCH))
    assert [event.step for event in events_of(events, Validated)] == [EPOCH, 2 * EPOCH]


def out_of_memory(numbers: set[int]) -> Callable[[int, Tensor], Tensor]:
    def trouble(number: int, loss: Tensor) -> Tensor:
        if number in numbers:
            raise torch.OutOfMemoryError("no memory left")
        return loss

    return trouble


def test_a_batch_too_large_for_memory_goes_through_in_parts(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_of(monkeypatch, out_of_memory({3}))
    trainer = new_trainer(sample, scale=0.5)
    events = list(trainer.run(4))
    assert events_of(events, MemorySaved) == [MemorySaved(step=2, micro_batch=1)]
    assert [step.step for step in events_of(events, StepDone)] == [1, 2, 3, 4]
    assert trainer.networks[0].micro_batch == 1


def test_a_single_patch_too_large_for_memory_is_an_error(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_of(monkeypatch, out_of_memory(set(range(100))))
    trainer = new_trainer(sample, scale=0.5)
    events = trainer.run(4)
    assert kinds(list(islice(events, 3)))[1:] == ["HeadFitted", "MemorySaved"]
    with pytest.raises(torch.OutOfMemoryError):
        next(events)


# Head and network.


def score(overall: float) -> PartScore:
    return PartScore(overall, {1: overall}, {1: 1})


@pytest.mark.parametrize(
    ("overalls", "head_start", "shown", "chosen", "why"),
    [
        ((0.5, 0.6, 0.4), True, "head", "network", "start 0.500, network 0.600"),
        ((0.5, 0.6, 0.4), True, "network", "network", "start 0.500, network 0.600"),
        ((0.6, 0.5, 0.4), True, "network", "head", "start 0.600, network 0.500"),
        ((0.6, 0.5, 0.7), True, "network", "both", "both 0.700"),
        ((0.5, 0.6, 0.59), True, "network", "both", "network 0.600, both 0.590"),
        ((0.6, 0.5, 0.59), True, "network", "head", "start 0.600"),
        ((None, None, None), True, "head", "head", "5 strokes of a class"),
        ((None, None, None), True, "both", "both", "5 strokes of a class"),
        ((0.6, None, None), True, "network", "network", "5 strokes of a class"),
        ((None, 0.6, None), True, "head", "head", "5 strokes of a class"),
        ((None, 0.1, None), False, "network", "network", "the quick start is off"),
        ((None, None, None), False, "network", "network", "the quick start is off"),
    ],
)
def test_the_best_is_chosen(
    overalls: tuple[float | None, ...],
    head_start: bool,
    shown: Shown,
    chosen: Shown,
    why: str,
) -> None:
    scores = {
        name: None if value is None else score(value)
        for name, value in zip(SHOWN, overalls, strict=True)
    }
    found, reason = choose(scores, head_start, shown)
    assert found == chosen
    assert why in reason
    what = {
        "head": "the quick start predicts",
        "network": "the network predicts",
        "both": "quick start and network predict together",
    }
    assert reason.startswith(what[chosen])


def test_without_head_start_the_network_is_shown(sample: Sample) -> None:
    trainer = new_trainer(sample, head_start=False, scale=0.5)
    events = list(trainer.run(EPOCH))
    assert kinds(events) == ["StepDone", "StepDone", "Validated"]
    (validated,) = events_of(events, Validated)
    assert validated.shown == "network"
    assert set(validated.scores) == {"network"}
    model = trainer.model()
    assert model.info.shown == "network"
    assert set(model.parts) == {"network"}


def test_what_is_validated_is_what_the_model_shows(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(1))
    for expected in SHOWN:
        scores = {shown: score(0.9 if shown == expected else 0.5) for shown in SHOWN}

        def given(_: float, scores: Scores = scores) -> Scores:
            return scores

        scores_are(monkeypatch, given)
        trainer.networks[0].judge_anew()
        (validated,) = events_of(list(trainer.run(EPOCH)), Validated)
        assert validated.shown == expected
        assert trainer.shown == expected
        assert trainer.model().info.shown == expected


# Recipes and quality.


def test_the_papers_recipe_halves_its_learning_rate_on_a_plateau(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores_are(monkeypatch, lambda _: {"network": score(0.5)})
    paper = RECIPES["paper"]
    assert (paper.learning_rate, paper.epoch, paper.max_epochs) == (1e-5, 750, 300)
    recipe = dataclasses.replace(paper, batch=1, patch_px=16, epoch=1)
    trainer = new_trainer(sample, recipe=recipe, recipe_name="paper", scale=0.25)
    steps = events_of(list(trainer.run(13)), StepDone)
    rates = [step.learning_rate for step in steps]
    # The first epoch sets the mark; after ten more the rate of the next is halved.
    assert rates == [1e-5] * 11 + [5e-6] * 2


def test_the_loss_of_the_network_falls(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5, head_start=False, recipe=BRISK)
    steps = events_of(list(trainer.run(150)), StepDone)
    losses = [step.loss for step in steps]
    assert np.mean(losses[-30:]) < 0.7 * np.mean(losses[:10])


def test_the_head_knows_another_section_within_its_fit() -> None:
    sample, other = tissue_phantom(0), tissue_phantom(1)
    assert other.truth is not None
    trainer = new_trainer(sample, head=HeadOptions(), scale=0.25)
    (fitted,) = islice(trainer.run(), 1)
    assert isinstance(fitted, HeadFitted)
    labels = predicted(trainer, other, "head")
    scores = evaluate({"other": labels}, {"other": other.truth}, other.classes)
    assert scores.overall_dice is not None
    assert scores.overall_dice > 0.75


def test_without_any_image_left_what_was_learned_stays(sample: Sample) -> None:
    trainer = new_trainer(sample, scale=0.5)
    list(trainer.run(EPOCH))
    trainer.remove("image")
    with pytest.raises(LabelError, match="no pixel is annotated"):
        list(trainer.run(1))
    assert trainer.state()[1]["channels"] == 3
    labels, _ = predict_image(trainer.best_model(), sample.image)
    assert labels.any()
