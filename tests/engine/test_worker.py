"""The worker in this process: what it tells when it is asked for this and that."""

from __future__ import annotations

import io
import logging
import queue
import threading
import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from napari_sparseseg import api
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import live_prediction, worker
from napari_sparseseg.engine.log import WordlessFormatter
from napari_sparseseg.engine.messages import (
    Alive,
    CancelPrediction,
    CheckpointWritten,
    Continue,
    Event,
    Failed,
    HeadFitted,
    LoadModel,
    MemorySaved,
    ModelLoaded,
    ModelSaved,
    Pause,
    PhaseChanged,
    Predict,
    Predicted,
    PutImage,
    RemoveImage,
    Request,
    SaveModel,
    Shutdown,
    Start,
    StepDone,
    Stop,
    TileDone,
    TrainingSettings,
    UseClasses,
    Validated,
    Warned,
    WentToCpu,
)
from napari_sparseseg.engine.worker import CPU_MICRO_BATCH, Worker, micro_batch
from napari_sparseseg.errors import OptionError, TrainingWarning
from napari_sparseseg.io.model_file import load_model
from napari_sparseseg.learning.head_fitting import fit_in_parts
from napari_sparseseg.learning.losses import weighted_cross_entropy
from napari_sparseseg.learning.network_training import NetworkTraining
from napari_sparseseg.learning.options import RECIPES
from napari_sparseseg.networks import encoders, published_weights
from napari_sparseseg.networks.encoders import build_encoder
from napari_sparseseg.networks.network_names import ENCODER_OF
from napari_sparseseg.networks.registry import PRESETS, NetworkSpec
from napari_sparseseg.prediction.predictor import PredictOptions, predict_image
from napari_sparseseg.samples import Sample, tissue_phantom
from tests.conftest import pretend_fetched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.learning.trainer import Trainer
    from tests.conftest import FileServer

    Condition = Callable[[Event], bool]
    Turns = list[tuple[Condition, tuple[Request, ...]]]

pytestmark = pytest.mark.timeout(60)

T = TypeVar("T")
SMALL = TrainingSettings(preset="light", scale=1.0, patch_px=16, device="cpu")

#: Steps of an epoch here.
EPOCH = 4

#: What a step calls to know its loss.
LOSS = "napari_sparseseg.learning.losses.weighted_cross_entropy"

PATIENT = "Meier, Hans"


@pytest.fixture(scope="module")
def sample() -> Sample:
    return tissue_phantom(0, (128, 128))


@pytest.fixture(autouse=True)
def small_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPES["live"], batch=4, epoch=EPOCH)
    monkeypatch.setitem(RECIPES, "live", recipe)
    options = {"filters": 8, "levels": 2, "norm": "group"}
    monkeypatch.setitem(PRESETS["unet"], "light", NetworkSpec("unet", options))

    def brief(features: Any, labels: Any, n: int, options: Any, random: Any) -> Any:
        return fit_in_parts(features, labels, n, replace(options, steps=60), random)

    monkeypatch.setattr("napari_sparseseg.learning.head_training.fit_in_parts", brief)


class Window:
    """Asks a worker for something as soon as it tells something."""

    def __init__(self, folder: Path, sample: Sample) -> None:
        self.folder = folder
        self.sample = sample
        self.events: list[Event] = []
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._turns: Turns = []
        np.save(folder / "pixels.npy", sample.image)
        self.checkpoint = folder / "checkpoint.safetensors"

    def play(self, *first: Request, turns: Turns) -> None:
        """Send requests: *first*, then those of each turn when its event has come."""
        self._turns = list(turns)
        for request in first:
            self._requests.put(request)
        self.events = []
        Worker(self._requests, self.take).run()
        assert not self._turns

    def ask(self, request: Request) -> None:
        """Send a request, from any thread."""
        self._requests.put(request)

    def take(self, event: Event) -> None:
        self.events.append(event)
        if self._turns and self._turns[0][0](event):
            for request in self._turns.pop(0)[1]:
                self._requests.put(request)

    def all_of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def put(self, labels: NDArray[Any] | None = None) -> PutImage:
        """Write labels to a new file and return the request to take them."""
        path = self.folder / f"labels-{len(list(self.folder.iterdir()))}.npy"
        np.save(path, self.sample.labels if labels is None else labels)
        return PutImage(
            name="a", pixels=str(self.folder / "pixels.npy"), labels=str(path)
        )

    def classes(self, *without: int) -> UseClasses:
        table = self.sample.classes
        for value in without:
            table = table.removed(value)
        return UseClasses(classes=table.to_json())

    def start(self, *, resume: bool = False, device: str = "cpu") -> Start:
        settings = replace(SMALL, device=device)
        return Start(settings=settings, checkpoint=str(self.checkpoint), resume=resume)

    def predict(self, generation: int = 1, **more: Any) -> Predict:
        name = self.folder / f"predicted-{generation}.npy"
        np.save(name, np.full(self.sample.labels.shape, 77, np.uint8))
        if more.pop("confidence", False):
            more["confidence"] = str(self.folder / f"confidence-{generation}.npy")
            np.save(more["confidence"], np.zeros(self.sample.labels.shape, np.float32))
        return Predict(
            generation=generation,
            pixels=str(self.folder / "pixels.npy"),
            labels=str(name),
            **more,
        )

    def predicted(self, generation: int = 1) -> NDArray[Any]:
        result: NDArray[Any] = np.load(self.folder / f"predicted-{generation}.npy")
        return result


@pytest.fixture
def window(tmp_path: Path, sample: Sample) -> Window:
    return Window(tmp_path, sample)


def is_a(kind: type, **values: object) -> Condition:
    def meets(event: Event) -> bool:
        return isinstance(event, kind) and all(
            getattr(event, name) == value for name, value in values.items()
        )

    return meets


RUNNING = is_a(PhaseChanged, phase="running")
IDLE = is_a(PhaseChanged, phase="idle")
END = (Shutdown(),)


def without(labels: NDArray[Any], *values: int) -> NDArray[Any]:
    return np.where(np.isin(labels, values), 0, labels).astype(labels.dtype)


# Training.


def test_a_training_tells_its_way_from_start_to_stop(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A slow machine would write a checkpoint before the first epoch is over.
    monkeypatch.setattr(worker, "CHECKPOINT_S", 1000.0)
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[(is_a(CheckpointWritten), (Stop(),)), (is_a(CheckpointWritten), END)],
    )
    phases = window.all_of(PhaseChanged)
    assert [each.phase for each in phases] == ["preparing", "running", "idle"]
    kinds = [type(event) for event in window.events]
    assert kinds.index(PhaseChanged) < kinds.index(HeadFitted) < kinds.index(StepDone)
    (validated,) = window.all_of(Validated)
    assert validated.step == EPOCH
    assert set(validated.scores) == {"head", "network", "both"}
    first, last = window.all_of(CheckpointWritten)
    assert first.step == EPOCH  # right after the first epoch
    assert phases[-1].step == last.step >= EPOCH
    early, scored = window.all_of(HeadFitted)[:2]
    assert early.score is None
    head = scored.score
    assert head is not None
    assert set(head.dice) == {1, 2, 3, 4}


def test_dense_images_stay_dense_and_images_have_scores_of_their_own(
    window: Window, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sample.truth is not None
    puts = [
        replace(window.put(labels), name=name, dense=name != "a")
        for name, labels in (
            ("a", None),
            *((name, sample.truth.astype(np.uint8)) for name in ("b", "c")),
        )
    ]
    made: list[Trainer] = []
    make = api.make_trainer

    def make_and_keep(*images: Any, **wishes: Any) -> Trainer:
        made.append(make(*images, **wishes))
        return made[-1]

    monkeypatch.setattr(api, "make_trainer", make_and_keep)
    window.play(
        window.classes(),
        *puts,
        window.start(),
        turns=[(is_a(Validated), (replace(puts[2], dense=False), Stop())), (IDLE, END)],
    )
    (trainer,) = made
    kinds = {name: image.dense for name, image in trainer.data.images.items()}
    assert kinds == {"a": False, "b": True, "c": False}
    (validated,) = window.all_of(Validated)
    held_out = {name for name in "bc" if name in validated.images}
    assert len(held_out) == 1
    assert set(validated.images) == {"a", *held_out}
    assert all(0 <= dice <= 1 for dice in validated.images.values())


def test_steps_are_told_now_and_then_but_never_after_what_followed(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STEP_S", 1000.0)
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[(is_a(Validated, step=2 * EPOCH), END)],
    )
    told = [e.step for e in window.events if isinstance(e, StepDone | Validated)]
    # The very first step is told at once.
    assert told == [1, *[EPOCH] * 2, *[2 * EPOCH] * 2]


def test_a_paused_training_waits_and_goes_on(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ALIVE_S", 0.1)
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(StepDone), (Pause(),)),
            (is_a(CheckpointWritten), ()),
            (is_a(Alive), ()),
            (is_a(Alive), (Continue(),)),
            (RUNNING, ()),
            (is_a(StepDone), END),
        ],
    )
    paused = window.events.index(
        next(filter(is_a(PhaseChanged, phase="paused"), window.events))
    )
    again = (
        paused
        + 1
        + next(
            i for i, event in enumerate(window.events[paused + 1 :]) if RUNNING(event)
        )
    )
    between = window.events[paused + 1 : again]
    assert {type(event) for event in between} == {CheckpointWritten, Alive}


def test_what_is_learned_does_not_depend_on_predictions_in_between(
    window: Window,
) -> None:
    plain: list[Request] = [window.classes(), window.put(), window.start()]
    ending: Turns = [(is_a(Validated), (Stop(),)), (IDLE, END)]
    window.play(*plain, turns=list(ending))
    alone = torch_state(window.checkpoint)
    busy: Turns = [
        (is_a(HeadFitted), (window.predict(1),)),
        (is_a(TileDone), (window.predict(2),)),
    ]
    window.play(*plain, turns=[*busy, *ending])
    assert window.all_of(Predicted)
    beside = torch_state(window.checkpoint)
    assert alone.keys() == beside.keys()
    assert all(torch.equal(value, beside[name]) for name, value in alone.items())


def torch_state(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_a_training_goes_on_from_its_checkpoint(window: Window) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(Validated), (Pause(),)),
            (is_a(CheckpointWritten, step=EPOCH), END),
        ],
    )
    window.play(
        window.classes(),
        window.put(),
        window.start(resume=True),
        turns=[(is_a(Validated), END)],
    )
    running = next(filter(RUNNING, window.events))
    assert isinstance(running, PhaseChanged)
    assert running.step == EPOCH + 1  # told with the first step
    assert window.all_of(Validated)[0].step == 2 * EPOCH


def test_every_setting_reaches_the_training(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(
        balance="none",
        net="vgg-fcn",
        preset="paper",
        encoder_weights="vgg16.pth",
        freeze_encoder=True,
        loss="l1l2",
        l1=0.5,
        l2=2.0,
        smoothness=0.25,
        scale=0.5,
        window=(40.0, 400.0),
        patch_px=64,
        head_start=False,
        head_features="vgg16",
        device="cpu",
        seed=3,
        dense_share=0.4,
    )
    defaults = asdict(TrainingSettings())
    assert all(asdict(settings)[name] != value for name, value in defaults.items())
    make = Mock(side_effect=OptionError("seen."))
    monkeypatch.setattr(api, "make_trainer", make)
    start = replace(window.start(), settings=settings)
    window.play(window.classes(), window.put(), start, turns=[(is_a(Failed), END)])
    assert asdict(settings).items() <= make.call_args.kwargs.items()


def test_another_network_is_saved_and_goes_on_in_the_next_engine(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = NetworkSpec("unet-vgg16", {"filters": 4, "levels": 2})
    monkeypatch.setitem(PRESETS["unet-vgg16"], "light", small)
    settings = replace(SMALL, net="unet-vgg16", scale=0.5, head_start=False)
    start = replace(window.start(), settings=settings)
    path = str(window.folder / "model.safetensors")
    window.play(
        window.classes(),
        window.put(),
        start,
        turns=[
            (is_a(Validated), (Stop(), SaveModel(path=path), LoadModel(path=path))),
            (is_a(ModelLoaded, network="unet-vgg16"), END),
        ],
    )
    (loaded,) = window.all_of(ModelLoaded)
    assert loaded.training["encoder_weights"] == "none"
    again = replace(start, resume=True)
    window.play(window.classes(), window.put(), again, turns=[(is_a(Validated), END)])
    assert window.all_of(Validated)[0].step > EPOCH


@pytest.mark.parametrize(
    ("wished", "at_once"),
    [
        ({}, CPU_MICRO_BATCH),
        ({"preset": "paper"}, 1),
        ({"patch_px": 256}, 1),
        *(({"net": net}, 1) for net in ENCODER_OF),
    ],
)
def test_on_a_cpu_only_the_light_u_net_takes_patches_together(
    wished: dict[str, Any], at_once: int
) -> None:
    assert micro_batch(TrainingSettings(device="cpu", **wished)) == at_once


@pytest.mark.parametrize(
    "wished", [{"net": "deeplabv3"}, {"head_features": "resnet18"}]
)
def test_published_weights_are_not_fetched_unasked(
    wished: dict[str, Any],
    window: Window,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_server: FileServer,
) -> None:
    monkeypatch.setattr(published_weights, "PUBLISHED_AT", file_server.url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    settings = replace(SMALL, encoder_weights="imagenet", **wished)
    start = replace(window.start(), settings=settings)
    window.play(window.classes(), window.put(), start, turns=[(is_a(Failed), END)])
    (failed,) = window.all_of(Failed)
    assert "weights of resnet18 are not at" in failed.message
    assert window.all_of(PhaseChanged)[-1].phase == "idle"
    assert not file_server.asked


def test_who_goes_on_needs_no_published_weights_any_more(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = NetworkSpec("unet-vgg16", {"filters": 4, "levels": 2})
    monkeypatch.setitem(PRESETS["unet-vgg16"], "light", small)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = build_encoder("vgg16").state_dict(prefix="features.")
    monkeypatch.setattr(encoders, "_read", lambda *_, **_kinds: weights)
    path = pretend_fetched("vgg16")
    settings = replace(
        SMALL, net="unet-vgg16", encoder_weights="imagenet", head_start=False
    )
    start = replace(window.start(), settings=settings)
    ending: Turns = [(is_a(StepDone), (Stop(),)), (is_a(CheckpointWritten), END)]
    window.play(window.classes(), window.put(), start, turns=list(ending))
    path.unlink()
    again = replace(start, resume=True)
    window.play(window.classes(), window.put(), again, turns=list(ending))
    assert not window.all_of(Failed)
    window.checkpoint.unlink()
    window.play(window.classes(), window.put(), again, turns=[(is_a(Failed), END)])
    (failed,) = window.all_of(Failed)
    assert "weights of vgg16 are not at" in failed.message


@pytest.mark.filterwarnings("always:no room", "always:torch")
def test_what_is_learned_otherwise_is_told_and_no_other_warning(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_trainer(*_: object, **__: object) -> None:
        warnings.warn("torch has other names", UserWarning, stacklevel=1)
        warnings.warn("no room for features", TrainingWarning, stacklevel=1)
        raise OptionError("that is all.")

    monkeypatch.setattr(api, "make_trainer", make_trainer)
    shown: list[str] = []
    monkeypatch.setattr(
        warnings, "showwarning", lambda text, *_: shown.append(f"{text}")
    )
    logged = warnings.showwarning
    turns: Turns = [(is_a(Failed), END)]
    window.play(window.classes(), window.put(), window.start(), turns=turns)
    assert window.all_of(Warned) == [Warned(message="no room for features")]
    assert shown == ["torch has other names", "no room for features"]
    assert warnings.showwarning is logged


@pytest.mark.parametrize("paused", [False, True])
def test_after_a_change_of_classes_a_training_can_go_on_at_once(
    window: Window, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    monkeypatch.setattr(worker, "CHECKPOINT_S", 1000.0)
    kept = window.folder / "kept.safetensors"

    def is_changed(event: Event) -> bool:
        """Copy what a crash of the engine would leave now."""
        if not isinstance(event, CheckpointWritten):
            return False
        kept.write_bytes(window.checkpoint.read_bytes())
        return True

    renamed = window.sample.classes.renamed(4, "something else")
    change = UseClasses(classes=renamed.to_json())
    before: Turns = [(is_a(StepDone, step=1), (change,))]
    if paused:
        before = [
            (is_a(StepDone, step=1), (Pause(),)),
            (is_a(CheckpointWritten), (change,)),
        ]
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[*before, (is_changed, END)],
    )
    steps = [e.step for e in window.events if isinstance(e, CheckpointWritten)]
    assert steps[-1] < EPOCH
    kept.replace(window.checkpoint)
    window.play(
        change,
        window.put(),
        window.start(resume=True),
        turns=[(RUNNING, END)],
    )
    assert not window.all_of(Failed)
    assert window.all_of(PhaseChanged)[1].step >= 1


def test_a_new_colour_is_no_reason_to_write_a_checkpoint(window: Window) -> None:
    red = window.sample.classes.recolored(4, (255, 0, 0))
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(StepDone), (UseClasses(classes=red.to_json()),)),
            (is_a(CheckpointWritten), END),
        ],
    )
    assert window.all_of(CheckpointWritten)[0].step == EPOCH


def test_a_checkpoint_of_another_training_is_refused(window: Window) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[(is_a(CheckpointWritten), END)],
    )
    window.play(
        window.classes(4),
        window.put(without(window.sample.labels, 4)),
        window.start(resume=True),
        turns=[(IDLE, ()), (is_a(Failed), END)],
    )
    (failed,) = window.all_of(Failed)
    assert failed.request == "start"
    assert "train without resume" in failed.message
    assert failed.details == ""


def test_without_a_checkpoint_resume_starts_anew(window: Window) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(resume=True),
        turns=[(is_a(StepDone), END)],
    )
    assert not window.all_of(Failed)


def test_labels_that_cannot_be_learned_fail_in_one_sentence(window: Window) -> None:
    window.play(
        window.classes(),
        window.put(without(window.sample.labels, 1, 2, 3)),
        window.start(),
        turns=[(is_a(Failed), END)],
    )
    (failed,) = window.all_of(Failed)
    assert failed.request == "start"
    assert "only the class" in failed.message
    assert [e.phase for e in window.all_of(PhaseChanged)] == ["preparing", "idle"]


# Changes while it learns.


def test_new_strokes_and_classes_reach_a_running_training(window: Window) -> None:
    window.play(
        window.classes(4),
        window.put(without(window.sample.labels, 4)),
        window.start(),
        turns=[
            (is_a(StepDone), (window.predict(1),)),
            (is_a(Predicted), (window.classes(), window.put())),
            (is_a(HeadFitted), ()),
            (is_a(StepDone), (window.predict(2),)),
            (is_a(Predicted), END),
        ],
    )
    assert not window.all_of(Failed)
    assert 4 not in window.predicted(1)
    assert 4 in window.predicted(2)


def test_strokes_that_are_taken_away_stop_the_training_and_it_can_go_on(
    window: Window,
) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(StepDone), (window.put(without(window.sample.labels, 1, 2, 3)),)),
            (is_a(Failed), ()),
            (is_a(CheckpointWritten), (window.put(), window.start(resume=True))),
            (RUNNING, END),
        ],
    )
    (failed,) = window.all_of(Failed)
    assert failed.request == "training"
    assert "only the class" in failed.message
    phases = [each.phase for each in window.all_of(PhaseChanged)]
    assert phases == ["preparing", "running", "idle", "preparing", "running", "idle"]


def test_labels_of_another_shape_are_refused_and_learning_goes_on(
    window: Window,
) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(StepDone), (window.put(window.sample.labels[:64]),)),
            (is_a(Failed), ()),
            (is_a(Validated), END),
        ],
    )
    (failed,) = window.all_of(Failed)
    assert failed.request == "put-image"
    assert "(64, 128)" in failed.message


def test_an_image_comes_and_goes(window: Window) -> None:
    second = window.put()
    second = PutImage(name="b", pixels=second.pixels, labels=second.labels)
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(StepDone), (second,)),
            (is_a(HeadFitted), (RemoveImage(name="a"),)),
            (is_a(HeadFitted), (RemoveImage(name="a"),)),
            (is_a(Failed), END),
        ],
    )
    (failed,) = window.all_of(Failed)
    assert failed.message == "there is no image 'a' that could be taken out."


def test_taking_out_the_last_image_ends_the_training_and_not_the_engine(
    window: Window,
) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(StepDone), (RemoveImage(name="a"),)),
            (is_a(CheckpointWritten), (window.predict(),)),
            (is_a(Predicted), END),
        ],
    )
    (failed,) = window.all_of(Failed)
    assert "no pixel is annotated" in failed.message
    assert window.all_of(PhaseChanged)[-1].phase == "idle"


# Predictions.


def test_a_prediction_is_that_of_the_saved_model(window: Window) -> None:
    path = window.folder / "model.safetensors"
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(Validated), (Stop(),)),
            (IDLE, (window.predict(confidence=True),)),
            (is_a(Predicted), (SaveModel(path=str(path)),)),
            (is_a(ModelSaved, path=str(path)), END),
        ],
    )
    model = load_model(path)
    labels, maps = predict_image(
        model, window.sample.image, PredictOptions(probabilities=True)
    )
    assert maps is not None
    assert (window.predicted() == labels).all()
    confidence = np.load(window.folder / "confidence-1.npy")
    np.testing.assert_allclose(confidence, maps.max(axis=0), atol=1e-5)
    (done,) = window.all_of(Predicted)
    assert done.shown == model.info.shown
    assert done.step == model.info.training["steps"] == window.all_of(Validated)[0].step
    tiles = window.all_of(TileDone)
    assert tiles[-1].share == 1
    assert sum(area(tile.region) for tile in tiles) == labels.size


def area(region: tuple[int, int, int, int]) -> int:
    return (region[2] - region[0]) * (region[3] - region[1])


def test_only_the_region_is_predicted(window: Window) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(HeadFitted), (window.predict(region=(16, 32, 48, 128)),)),
            (is_a(Predicted), END),
        ],
    )
    labels = window.predicted()
    assert (labels[16:48, 32:] != 77).all()
    labels[16:48, 32:] = 77
    assert (labels == 77).all()


def test_a_prediction_goes_before_the_training(window: Window) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[(is_a(StepDone), (window.predict(),)), (is_a(Validated), END)],
    )
    asked = next(i for i, e in enumerate(window.events) if is_a(StepDone)(e))
    assert isinstance(window.events[asked + 1], TileDone)
    assert isinstance(window.events[asked + 2], Predicted)


def test_the_answer_to_news_of_the_head_is_waited_for(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []

    def noted(name: str) -> None:
        method = getattr(Worker, name)

        def work(worker: Worker, *args: Any) -> None:
            turns.append(name)
            method(worker, *args)

        monkeypatch.setattr(Worker, name, work)

    noted("_learn_on")
    noted("_predict_on")
    monkeypatch.setattr(worker, "ANSWER_S", 30.0)
    told = window.take

    def answer_late(event: Event) -> None:
        told(event)
        if isinstance(event, HeadFitted) and "_predict_on" not in turns:
            turns.append("told")
            threading.Timer(0.2, window.ask, [window.predict()]).start()

    monkeypatch.setattr(window, "take", answer_late)
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[(is_a(Predicted), END)],
    )
    assert turns[turns.index("told") + 1] == "_predict_on"


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_prediction, "CPU_SECONDS_PER_PX", 1.0)
    monkeypatch.setattr(live_prediction, "QUANTUM_S", 1e-9)


@pytest.mark.usefixtures("small_tiles")
def test_a_newer_prediction_takes_the_place_of_an_older_one(window: Window) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(HeadFitted), (window.predict(1), window.predict(2))),
            (is_a(TileDone), (window.predict(3),)),
            (is_a(Predicted), END),
        ],
    )
    first, *others = [each.generation for each in window.all_of(TileDone)]
    assert first == 2
    assert set(others) == {3}
    assert [each.generation for each in window.all_of(Predicted)] == [3]
    assert (window.predicted(1) == 77).all()
    assert (window.predicted(2) == 77).any()
    assert (window.predicted(3) != 77).all()


@pytest.mark.usefixtures("small_tiles")
def test_training_and_prediction_go_on_in_turn(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STEP_S", 0.0)
    monkeypatch.setattr(worker, "TURN_S", 0.0)
    # Steps alone, and no parts of a validation.
    monkeypatch.setitem(RECIPES, "live", replace(RECIPES["live"], epoch=1000))
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[(is_a(StepDone), (window.predict(),)), (is_a(Predicted), END)],
    )
    kinds = [type(e) for e in window.events if isinstance(e, StepDone | TileDone)]
    during = kinds[kinds.index(TileDone) :]
    n_tiles = during.count(TileDone)
    assert n_tiles >= 8
    # A step has two parts here, and between two tiles there is one.
    assert during.count(StepDone) == pytest.approx(n_tiles / 2, abs=1)


@pytest.mark.usefixtures("small_tiles")
def test_in_the_background_learning_has_the_larger_share(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "BACKGROUND_SHARE", 1e-6)
    shape = window.sample.labels.shape
    in_background = window.predict(view=(0, 0, *shape), in_background=True)
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(StepDone), (in_background,)),
            (is_a(TileDone), ()),
            (is_a(Validated), (Stop(),)),
            (is_a(Predicted), END),
        ],
    )
    kinds = [type(event) for event in window.events]
    stopped = window.events.index(next(filter(IDLE, window.events)))
    # It rests after its first tile, for as long as something is learned.
    assert kinds[:stopped].count(TileDone) == 1
    assert kinds[stopped:].count(TileDone) > 1
    assert (window.predicted() != 77).all()


@pytest.mark.usefixtures("small_tiles")
def test_a_prediction_can_be_given_up(window: Window) -> None:
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(HeadFitted), (window.predict(),)),
            (is_a(TileDone), (CancelPrediction(),)),
            (is_a(Validated), END),
        ],
    )
    assert len(window.all_of(TileDone)) == 1
    assert not window.all_of(Predicted)


def test_without_a_model_there_is_one_sentence(window: Window) -> None:
    window.play(window.predict(), turns=[(is_a(Failed), END)])
    (failed,) = window.all_of(Failed)
    assert (failed.request, failed.generation) == ("predict", 1)
    assert failed.message == (
        "there is no model to predict with; train, or load a model first."
    )
    assert failed.details == ""


def test_a_loaded_model_predicts_until_the_training_knows_something(
    window: Window,
) -> None:
    path = str(window.folder / "model.safetensors")
    labels = without(window.sample.labels, 3, 4)
    model = api.train(window.sample.image, labels, steps=1, scale=0.25, patch_px=16)
    api.save_model(model, path)
    window.play(
        LoadModel(path=path),
        window.predict(1),
        turns=[
            (is_a(Predicted), (window.classes(), window.put(), window.start())),
            (is_a(PhaseChanged, phase="preparing"), (window.predict(2),)),
            (is_a(Predicted), ()),
            (is_a(HeadFitted), (window.predict(3),)),
            (is_a(Predicted), END),
        ],
    )
    loaded = window.all_of(ModelLoaded)[0]
    assert ClassTable.from_json(loaded.classes).values == (1, 2)
    assert loaded.in_channels == 3
    assert loaded.training["steps"] == 1
    expected, _ = predict_image(model, window.sample.image)
    for generation in (1, 2):
        assert (window.predicted(generation) == expected).all()
    assert set(np.unique(window.predicted(3))) == {1, 2, 3, 4}


# Trouble.


def test_a_file_that_is_missing_is_told_and_the_worker_lives_on(window: Window) -> None:
    put = window.put()
    missing = str(window.folder / "gone.npy")
    window.play(
        PutImage(name="a", pixels=missing, labels=put.labels),
        PutImage(name="a", pixels=put.pixels, labels=missing),
        LoadModel(path=missing),
        window.classes(),
        put,
        window.start(),
        turns=[
            (
                is_a(HeadFitted),
                (Predict(generation=1, pixels=put.pixels, labels=missing),),
            ),
            (is_a(Failed, request="predict"), (window.predict(2),)),
            (is_a(Predicted), END),
        ],
    )
    failures = window.all_of(Failed)
    assert [each.request for each in failures] == [
        "put-image",
        "put-image",
        "load-model",
        "predict",
    ]
    for failed in failures:
        assert missing in failed.message
        assert failed.details == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((5, 5), np.uint8), "holds uint8 of (5, 5)"),
        (np.zeros((128, 128), np.float32), "holds float32"),
    ],
)
def test_a_file_that_cannot_take_the_result_is_refused(
    window: Window, content: NDArray[Any], words: str
) -> None:
    request = window.predict()
    np.save(request.labels, content)
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[(is_a(HeadFitted), (request,)), (is_a(Failed), END)],
    )
    assert words in window.all_of(Failed)[0].message


def test_class_values_that_do_not_fit_into_the_file_are_refused(
    window: Window,
) -> None:
    labels = window.sample.labels.astype(np.uint16)
    labels[labels == 4] = 300
    table = ClassTable.from_values([1, 2, 3, 300])
    window.play(
        UseClasses(classes=table.to_json()),
        window.put(labels),
        window.start(),
        turns=[(is_a(HeadFitted), (window.predict(),)), (is_a(Failed), END)],
    )
    assert "give a file of uint16" in window.all_of(Failed)[0].message


def losses_fail(
    monkeypatch: pytest.MonkeyPatch, error: Exception, numbers: range
) -> None:
    """Let the losses of these numbers, from 1 on, fail."""
    count = 0

    def loss(*args: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        if count in numbers:
            raise error
        return weighted_cross_entropy(*args)

    monkeypatch.setattr(LOSS, loss)


def test_memory_that_does_not_suffice_once_is_told_and_learning_goes_on(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_fail(monkeypatch, torch.OutOfMemoryError("no memory"), range(7, 8))
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[(is_a(Validated), END)],
    )
    assert window.all_of(MemorySaved) == [MemorySaved(step=3, micro_batch=1)]
    assert not window.all_of(Failed)


def test_where_memory_of_a_device_does_not_suffice_the_cpu_learns_on(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the other device is the CPU by its other name."""
    apply = NetworkTraining.apply

    def apply_there(network: NetworkTraining) -> None:
        if network.options.device != "cpu" and network.steps > EPOCH:
            raise torch.OutOfMemoryError("CUDA out of memory")
        apply(network)

    monkeypatch.setattr(NetworkTraining, "apply", apply_there)
    window.play(
        window.classes(),
        window.put(),
        window.start(device="cpu:0"),
        turns=[(is_a(WentToCpu), ()), (is_a(Validated, step=2 * EPOCH), END)],
    )
    assert not window.all_of(Failed)
    assert window.all_of(WentToCpu) == [WentToCpu(step=EPOCH + 1)]
    steps = [event.step for event in window.all_of(Validated)]
    assert steps == [EPOCH, 2 * EPOCH]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "the memory did not suffice"),
        (RuntimeError("shapes\ndiffer"), "(RuntimeError: shapes differ)"),
    ],
)
def test_what_goes_wrong_while_learning_is_told_and_the_worker_lives_on(
    window: Window, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    losses_fail(monkeypatch, error, range(2 * EPOCH + 2, 10**6))
    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (is_a(Failed), ()),
            (IDLE, (window.predict(),)),
            (is_a(Predicted), (window.start(resume=True),)),
            (is_a(Failed), END),
        ],
    )
    first, _again = window.all_of(Failed)
    assert first.request == "training"
    assert words in first.message
    assert first.message.count("\n") == 0
    assert first.details.endswith(f" in _of_labels\n{type(error).__name__}")
    assert window.all_of(CheckpointWritten)[0].step == EPOCH
    assert (window.predicted() != 77).all()


def test_an_error_while_a_training_ends_does_not_end_the_engine(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the device is lost")

    def break_it(event: Event) -> bool:
        if isinstance(event, StepDone):
            monkeypatch.setattr(api, "write_checkpoint", fail)
        return isinstance(event, StepDone)

    window.play(
        window.classes(),
        window.put(),
        window.start(),
        turns=[
            (break_it, (window.put(without(window.sample.labels, 1, 2, 3)),)),
            (is_a(Failed), ()),
            (is_a(Failed), (window.predict(),)),
            (is_a(Predicted), END),
        ],
    )
    first, second = window.all_of(Failed)
    assert "only the class" in first.message
    assert "the device is lost" in second.message
    assert window.all_of(PhaseChanged)[-1].phase == "idle"


def test_the_log_and_its_details_name_nothing_that_the_user_named(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    log = logging.StreamHandler(stream)
    log.setFormatter(WordlessFormatter())
    logging.getLogger("napari_sparseseg").addHandler(log)
    losses_fail(monkeypatch, RuntimeError(f"{PATIENT}\n  {PATIENT}.tif"), range(99))
    monkeypatch.setattr(api, "load_model", Mock(side_effect=OSError(2, "?", PATIENT)))
    try:
        window.play(
            window.classes(),
            replace(window.put(), name=PATIENT),
            LoadModel(path=f"/data/{PATIENT}.safetensors"),
            window.start(),
            turns=[(is_a(Failed), ()), (is_a(Failed), END)],
        )
    finally:
        logging.getLogger("napari_sparseseg").removeHandler(log)
    load, training = window.all_of(Failed)
    assert PATIENT in load.message  # the user may know
    written = stream.getvalue()
    assert "load-model failed" in written
    assert "training failed" in written
    assert written.count("in _learn") >= 1
    for text in (written, load.details, training.details):
        assert "Meier" not in text
        assert "/" not in text


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(
    window: Window,
) -> None:
    nowhere = Start(settings=SMALL, checkpoint=str(window.folder / "no" / "file"))
    window.play(
        window.classes(),
        window.put(),
        nowhere,
        turns=[(is_a(Failed), ()), (is_a(Validated, step=2 * EPOCH), END)],
    )
    assert "cannot be written" in window.all_of(Failed)[0].message
