"""What the engine does: learns, predicts and makes masks in turns.

One thread does everything, a fraction of a second each, so that nothing fights for the
processor, and nothing changes under a prediction that goes on over several turns.
"""

from __future__ import annotations

import logging
import math
import queue
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_never

from napari_sparseseg import api
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.annotations.strokes import check_label_map
from napari_sparseseg.engine import messages
from napari_sparseseg.engine.file_prediction import FilePrediction
from napari_sparseseg.engine.live_prediction import Prediction, budget_for
from napari_sparseseg.engine.log import Harmless, trace_of
from napari_sparseseg.engine.mapped_files import read_copy, read_mapped
from napari_sparseseg.engine.mask_making import MaskMaker
from napari_sparseseg.errors import (
    EngineError,
    LabelError,
    OutputError,
    SparseSegError,
    TrainingWarning,
)
from napari_sparseseg.io.images import check_pixels
from napari_sparseseg.learning import events
from napari_sparseseg.learning.training_set import TrainingImage
from napari_sparseseg.networks.memory import is_out_of_memory
from napari_sparseseg.networks.network_names import ENCODER_OF
from napari_sparseseg.networks.published_weights import published_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_sparseseg.learning.trainer import Trainer
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.prediction.predictor import Budget

    Rare = (
        events.HeadFitted
        | events.Validated
        | events.ScaleChosen
        | events.Recovered
        | events.MemorySaved
    )

#: A checkpoint is written while learning whenever so many seconds have passed.
CHECKPOINT_S = 20.0

#: Steps are told this often at most, in seconds.
STEP_S = 0.2

#: Parts of learning or of making masks that are shorter are put together to turns of so
#: many seconds, so that these and a prediction outside the view get about as much time.
TURN_S = 0.05

#: Of the time of learning predictions in the background take no more.
BACKGROUND_SHARE = 0.15

Activity = Literal["predicting", "making-masks", "learning"]

#: The window answers news of what predicts by asking for a prediction: so many seconds
#: are waited for that, so that it does not wait for a turn of learning.
ANSWER_S = 0.03

#: After so many seconds without an event the engine says that it is there.
ALIVE_S = 1.0

#: Patches that go through a network at once on a CPU: a tenth of a second on one core
#: with the light U-Net and patches of up to 128 pixels. Of all others it is one.
CPU_MICRO_BATCH, CPU_PATCH_PX = 2, 128

logger = logging.getLogger(__name__)


class Worker:
    """Takes requests one by one and works on what they ask for in between.

    Parameters
    ----------
    requests
        Messages of ``messages.Request``; after ``Shutdown`` nothing more is taken.
    send
        Is given messages of ``messages.Event``.

    Attributes
    ----------
    phase
        Of the training.
    """

    def __init__(
        self,
        requests: queue.SimpleQueue[messages.Request],
        send: Callable[[messages.Event], None],
    ) -> None:
        self.phase: messages.Phase = "idle"
        self._requests = requests
        self._send = send
        self._told_at = time.monotonic()
        self._ended = False
        # What waited for longest is first.
        self._turns: list[Activity] = ["predicting", "making-masks", "learning"]
        self._awaits_answer = False
        self._pixels: dict[str, NDArray[Any]] = {}
        # The training.
        self._images: dict[str, TrainingImage] = {}
        self._classes: ClassTable | None = None
        self._device = "auto"
        self._request: messages.Start | None = None
        self._trainer: Trainer | None = None
        self._events: Iterator[events.TrainingEvent] = iter(())
        self._checkpoint = Path()
        self._saved_at = 0.0
        self._is_saved = False
        self._step: messages.StepDone | None = None
        self._step_told_at = -math.inf
        # The prediction.
        self._before: SegmentationModel | None = None
        self._prediction: Prediction | None = None
        self._rests_until = -math.inf  # of what is predicted in the background
        self._budgets: dict[tuple[str, str], Budget] = {}
        self._files: FilePrediction | None = None
        # Masks of boxes.
        self._masks = MaskMaker()
        self._refinement: messages.RefineBox | None = None

    def run(self) -> None:
        """Work until ``Shutdown``."""
        with warnings.catch_warnings():
            warnings.showwarning = partial(self._on_warning, warnings.showwarning)
            self._work()

    def _on_warning(
        self, log: Callable[..., None], message: Warning | str, *where: Any
    ) -> None:
        """Tell the window of what is learned otherwise than asked; log all."""
        log(message, *where)
        if isinstance(message, TrainingWarning):
            self._tell(messages.Warned(message=str(message)))

    def _work(self) -> None:
        while not self._ended:
            activity = self._next_activity()
            request = self._next_request(activity)
            if request is not None:
                self._handle(request)
            elif self._refinement is not None:
                self._refine_box(self._refinement)
            elif activity is not None:
                self._take_turn(activity)
            if time.monotonic() - self._told_at >= ALIVE_S:
                self._tell(messages.Alive())

    def _next_activity(self) -> Activity | None:
        """Return whose turn it is: of what is seen, else of who waited for longest."""
        prediction = self._prediction
        if prediction is not None and prediction.is_seen:
            return "predicting"
        is_busy = self._masks.is_busy or self._is_learning
        has_work: dict[Activity, bool] = {
            "predicting": prediction is not None
            and not (prediction.in_background and is_busy and self._rests),
            "making-masks": self._masks.is_busy,
            "learning": self._is_learning,
        }
        return next((each for each in self._turns if has_work[each]), None)

    @property
    def _rests(self) -> bool:
        return time.monotonic() < self._rests_until

    def _take_turn(self, activity: Activity) -> None:
        self._turns.remove(activity)
        self._turns.append(activity)
        match activity:
            case "predicting":
                self._predict_on()
            case "making-masks":
                self._make_masks_on()
            case "learning":
                self._learn_on()
            case _:
                assert_never(activity)

    @property
    def _is_learning(self) -> bool:
        return self.phase in ("preparing", "running")

    def _next_request(self, activity: Activity | None) -> messages.Request | None:
        """Return what came, after a wait for it where there is nothing better to do."""
        seconds = 0.0
        if activity is None and self._refinement is None:
            seconds = ALIVE_S
        elif self._awaits_answer:
            seconds = ANSWER_S
        self._awaits_answer = False
        try:
            return self._requests.get(seconds > 0, seconds)
        except queue.Empty:
            return None

    def _tell(self, event: messages.Event) -> None:
        self._told_at = time.monotonic()
        self._send(event)

    def _handle(self, request: messages.Request) -> None:
        generation = getattr(request, "generation", None)
        self._try(request.kind, lambda: self._do(request), generation)

    def _try(
        self, what: str, work: Callable[[], None], generation: int | None = None
    ) -> Exception | None:
        """Do something; tell of the error that it raises, and return it."""
        try:
            work()
        except SparseSegError as error:
            kind = type(error).__name__
            self._tell(
                messages.Failed(
                    request=what,
                    message=str(error),
                    error=kind,
                    generation=generation,
                )
            )
            return error
        except Exception as error:
            logger.exception("%s failed", Harmless(what))
            self._tell(
                messages.Failed(
                    request=what,
                    message=describe(error),
                    error=type(error).__name__,
                    details=trace_of(error),
                    generation=generation,
                )
            )
            return error
        return None

    def _do(self, request: messages.Request) -> None:
        match request:
            case messages.PutImage():
                self._put(request)
            case messages.RemoveImage():
                self._remove(request.name)
            case messages.UseClasses():
                self._use_classes(ClassTable.from_json(request.classes))
            case messages.Start():
                self._start(request)
            case messages.Pause():
                self._pause()
            case messages.Continue():
                self._continue()
            case messages.Stop():
                self._end_training()
            case messages.Predict():
                self._predict(request)
            case messages.CancelPrediction():
                self._prediction = None
            case messages.PredictFiles():
                self._predict_files(request)
            case messages.CancelFiles():
                self._cancel_files()
            case messages.MakeMasks():
                self._make_masks(request)
            case messages.CancelMasks():
                self._cancel_masks()
            case messages.RefineBox():
                self._refinement = request
            case messages.ForgetMasks():
                self._forget_masks(request)
            case messages.SaveModel():
                api.save_model(self._model().to("cpu"), request.path)
                self._tell(messages.ModelSaved(path=request.path))
            case messages.CopyModel():
                api.save_model(self._model().to("cpu"), request.path)
                self._tell(messages.ModelCopied(path=request.path))
            case messages.LoadModel():
                self._load_model(request.path)
            case messages.Shutdown():
                self._ended = True
                self._cancel_files()
                self._end_training()
            case _:
                assert_never(request)

    # Images and classes.

    def _put(self, request: messages.PutImage) -> None:
        labels = read_copy(request.labels)
        pixels = self._open(request.pixels, request.name)
        image = TrainingImage(
            name=request.name,
            pixels=pixels,
            labels=check_label_map(labels, pixels.shape[:2], request.name),
            dense=request.dense,
            um_per_px=request.um_per_px,
        )
        if self._current is not None:
            self._current.put(image)
        self._images[request.name] = image

    def _remove(self, name: str) -> None:
        if name not in self._images:
            raise EngineError(f"there is no image {name!r} that could be taken out.")
        if self._current is not None:
            self._current.remove(name)
        del self._images[name]

    def _use_classes(self, classes: ClassTable) -> None:
        before = self._classes
        if self._current is not None:
            self._current.use_classes(classes)
        self._classes = classes
        if self._current is not None and (
            before is None or before.named_values != classes.named_values
        ):
            # The last checkpoint fits the classes of before, and could not be used.
            self._save_checkpoint()

    @property
    def _current(self) -> Trainer | None:
        """The training that goes on or is paused."""
        return None if self.phase == "idle" else self._trainer

    def _open(self, path: str, name: str) -> NDArray[Any]:
        """Return the pixels in a file, the same object for as long as it is in use."""
        if path not in self._pixels:
            in_use = {id(image.pixels) for image in self._images.values()}
            self._pixels = {
                known: pixels
                for known, pixels in self._pixels.items()
                if id(pixels) in in_use
            }
            self._pixels[path] = check_pixels(read_mapped(path), name)
        return self._pixels[path]

    # Learning.

    def _start(self, request: messages.Start) -> None:
        self._end_training()
        self.phase = "preparing"
        self._tell(messages.PhaseChanged(phase="preparing", step=0))
        try:
            trainer = self._new_trainer(request)
        except BaseException:
            self._set_phase("idle")
            raise
        self._before = self._model_or_none()
        self._budgets.clear()
        self._trainer = trainer
        self._request = request
        self._device = request.settings.device
        self._checkpoint = Path(request.checkpoint)
        self._saved_at = time.monotonic()
        self._is_saved = False
        self._events = trainer.run()

    def _new_trainer(self, request: messages.Start) -> Trainer:
        settings = request.settings
        wishes: api.TrainingWishes = {
            "classes": self._classes,
            "balance": settings.balance,
            "net": settings.net,
            "preset": settings.preset,
            "encoder_weights": settings.encoder_weights,
            "freeze_encoder": settings.freeze_encoder,
            "loss": settings.loss,
            "smoothness": settings.smoothness,
            "scale": settings.scale,
            "window": settings.window,
            "patch_px": settings.patch_px,
            "micro_batch": micro_batch(settings),
            "head_start": settings.head_start,
            "head_features": settings.head_features,
            "device": settings.device,
            "seed": settings.seed,
            "dense_share": settings.dense_share,
            "pixel_size_um": {
                name: image.um_per_px for name, image in self._images.items()
            },
            "checkpoint": request.checkpoint,
            "resume": request.resume and Path(request.checkpoint).exists(),
        }
        if settings.loss == "l1l2":
            wishes |= {"l1": settings.l1, "l2": settings.l2}
        sparse, dense = (
            {name: each for name, each in self._images.items() if each.dense is kind}
            for kind in (False, True)
        )
        wishes |= {
            "dense_images": {name: image.pixels for name, image in dense.items()},
            "dense_labels": {name: image.labels for name, image in dense.items()},
        }
        check_weights(wishes)
        return api.make_trainer(
            {name: image.pixels for name, image in sparse.items()},
            {name: image.labels for name, image in sparse.items()},
            **wishes,
        )

    def _learn_on(self) -> None:
        error = self._try("training", self._learn_anywhere)
        if error is None:
            return
        self._events = iter(())
        if isinstance(error, LabelError):  # what was learned is as good as it was
            self._try("training", self._end_training)
        else:
            self._set_phase("idle")

    def _learn_anywhere(self) -> None:
        """Learn; on the CPU from when the memory of another device does not suffice."""
        try:
            self._learn()
        except Exception as error:
            assert self._trainer is not None
            if self._trainer.options.device == "cpu" or not is_out_of_memory(error):
                raise
            logger.exception("going over to the CPU")
            self._go_to_cpu(self._trainer)

    def _go_to_cpu(self, trainer: Trainer) -> None:
        assert self._request is not None
        settings = replace(self._request.settings, device="cpu")
        if settings.preset == "auto":  # which would be another one on a CPU
            settings = replace(settings, preset="paper")
        # Ending it leaves a checkpoint.
        self._start(replace(self._request, settings=settings, resume=trainer.steps > 0))
        self._tell(messages.WentToCpu(step=trainer.steps))

    def _learn(self) -> None:
        event = self._next_event()
        if event is None:  # a recipe may have an end
            self._end_training()
            return
        self._tell_of(event)
        first_epoch = not self._is_saved and isinstance(event, events.Validated)
        if first_epoch or time.monotonic() - self._saved_at >= CHECKPOINT_S:
            self._save_checkpoint()

    def _next_event(self) -> events.TrainingEvent | None:
        """Learn on until there is something to tell, or a turn is over."""
        end = time.monotonic() + TURN_S
        event = next(self._events, None)
        while (
            isinstance(event, events.PartDone)
            and time.monotonic() < end
            and self._requests.empty()
        ):
            event = next(self._events, None)
        return event

    def _pause(self) -> None:
        if self._is_learning:
            self._tell_step()
            self._set_phase("paused")
            self._save_checkpoint()

    def _continue(self) -> None:
        if self.phase == "paused":
            self._set_phase("running")

    def _end_training(self) -> None:
        """Leave a checkpoint, and the trainer for its model."""
        if self.phase == "idle":
            return
        self._tell_step()
        self._events = iter(())
        self._set_phase("idle")
        self._save_checkpoint()

    def _set_phase(self, phase: messages.Phase) -> None:
        self.phase = phase
        step = 0 if self._trainer is None else self._trainer.steps
        self._tell(messages.PhaseChanged(phase=phase, step=step))

    def _save_checkpoint(self) -> None:
        """Write the state of the training, once there is something to lose."""
        if self._trainer is None or self._trainer.steps == 0:
            return
        self._saved_at = time.monotonic()
        try:
            api.write_checkpoint(self._trainer, self._checkpoint)
        except OutputError as error:  # learning goes on, and the next may succeed
            self._tell(messages.Failed(request="training", message=str(error)))
            return
        self._is_saved = True
        self._tell(messages.CheckpointWritten(step=self._trainer.steps))

    def _tell_of(self, event: events.TrainingEvent) -> None:
        if isinstance(event, events.PartDone):
            return
        if self.phase == "preparing":
            self._set_phase("running")
        if not isinstance(event, events.StepDone):
            self._tell_step()
            self._tell(translated(event))
            self._awaits_answer = isinstance(
                event, events.HeadFitted | events.Validated
            )
            return
        self._step = messages.StepDone(
            step=event.step, loss=event.loss, learning_rate=event.learning_rate
        )
        if time.monotonic() - self._step_told_at >= STEP_S:
            self._tell_step()

    def _tell_step(self) -> None:
        """Tell of the last step, unless that was done."""
        if self._step is not None:
            self._step_told_at = time.monotonic()
            self._tell(self._step)
            self._step = None

    # Predicting.

    def _predict(self, request: messages.Predict) -> None:
        self._prediction = None
        if not request.in_background:
            self._turns.sort(key=lambda activity: activity != "predicting")
        model = self._model()
        device = str(model.device)
        shown = model.info.shown
        self._prediction = Prediction(
            request,
            model,
            self._open(request.pixels, "the image"),
            self._budgets.setdefault((shown, device), budget_for(device)),
            0 if self._trainer is None else self._trainer.steps,
        )

    def _predict_on(self) -> None:
        prediction = self._prediction
        assert prediction is not None

        def work() -> None:
            started = time.monotonic()
            tile = prediction.advance()
            if prediction.in_background:
                now = time.monotonic()
                self._rests_until = now + (now - started) * (1 / BACKGROUND_SHARE - 1)
            self._tell(tile)
            if prediction.is_complete:
                self._prediction = None
                cleaned = prediction.remove_small_objects()
                if cleaned is not None:
                    self._tell(cleaned)
                self._tell(prediction.report())

        if self._try("predict", work, prediction.generation) is not None:
            self._prediction = None

    def _predict_files(self, request: messages.PredictFiles) -> None:
        self._cancel_files()
        self._files = FilePrediction(request, self._model(), self._send)

    def _cancel_files(self) -> None:
        if self._files is not None:
            self._files.cancel()
            self._files = None

    def _model(self) -> SegmentationModel:
        model = self._model_or_none()
        if model is None:
            raise EngineError(
                "there is no model to predict with; train, or load a model first."
            )
        return model

    def _model_or_none(self) -> SegmentationModel | None:
        trainer = self._trainer
        if trainer is not None and (trainer.head is not None or trainer.steps > 0):
            return trainer.best_model()
        return self._before

    def _load_model(self, path: str) -> None:
        model = api.load_model(path).to(api.choose_device(self._device))
        if self.phase == "idle":
            self._trainer = None
        self._before = model
        self._budgets.clear()
        info = model.info
        self._tell(
            messages.ModelLoaded(
                path=path,
                network=info.network.name,
                classes=info.classes.to_json(),
                in_channels=info.in_channels,
                shown=info.shown,
                um_per_px=info.um_per_px,
                training=dict(info.training),
            )
        )

    # Masks of boxes.

    def _make_masks(self, request: messages.MakeMasks) -> None:
        self._cancel_masks()
        self._tell(self._masks.start(request))

    def _make_masks_on(self) -> None:
        self._try("make-masks", self._make_parts)

    def _make_parts(self) -> None:
        """Make masks until there is something to tell, or a turn is over."""
        end = time.monotonic() + TURN_S
        event = self._masks.advance()
        while event is None and time.monotonic() < end and self._requests.empty():
            event = self._masks.advance()
        if event is not None:
            self._tell(event)

    def _cancel_masks(self) -> None:
        if self._masks.is_busy:
            self._masks.cancel()
            self._tell(messages.MasksCancelled())

    def _forget_masks(self, request: messages.ForgetMasks) -> None:
        self._masks.forget(request.ids)
        waiting = self._refinement
        if waiting is not None and waiting.id in request.ids.get(waiting.name, ()):
            self._refinement = None

    def _refine_box(self, request: messages.RefineBox) -> None:
        self._refinement = None
        self._try("refine-box", lambda: self._tell(self._masks.refine(request)))


def micro_batch(settings: messages.TrainingSettings) -> int | None:
    """Return how many patches go through a network at once; None: a mini-batch.

    A fixed number rather than one found by the clock, on which the rounding of the
    gradients, and so the model, would depend.
    """
    if api.choose_device(settings.device) != "cpu":
        return None
    small = settings.patch_px is None or settings.patch_px <= CPU_PATCH_PX
    quick = small and settings.preset != "paper" and settings.net not in ENCODER_OF
    return CPU_MICRO_BATCH if quick else 1


def check_weights(wishes: api.TrainingWishes) -> None:
    """Raise EngineError where published weights would have to be downloaded first.

    That takes minutes, and is not done unasked; nor may the engine be silent for long.
    """
    for encoder in api.encoders_to_fetch(wishes):
        path = published_path(encoder)
        raise EngineError(
            f"the ImageNet weights of {encoder} are not at {path}, or only in part; "
            "download them first, or choose a file or random features.",
            path=str(path),
        )


def translated(event: Rare) -> messages.Event:
    """Return the message of what a training tells now and then."""
    match event:
        case events.HeadFitted():
            return messages.HeadFitted(
                scale=event.scale, score=score(event.score), is_new=event.is_new
            )
        case events.Validated():
            return messages.Validated(
                step=event.step,
                scores={shown: score(each) for shown, each in event.scores.items()},
                shown=event.shown,
                reason=event.reason,
                images=dict(event.images),
            )
        case events.ScaleChosen():
            return messages.ScaleChosen(step=event.step, scale=event.scale)
        case events.Recovered():
            return messages.Recovered(
                step=event.step, learning_rate=event.learning_rate
            )
        case events.MemorySaved():
            return messages.MemorySaved(step=event.step, micro_batch=event.micro_batch)
        case _:
            assert_never(event)


def score(given: events.PartScore | None) -> messages.Score | None:
    """Return the message of a score."""
    if given is None:
        return None
    return messages.Score(
        overall=given.overall, dice=dict(given.dice), strokes=dict(given.strokes)
    )


def describe(error: Exception) -> str:
    """Return one sentence on an error that is not the user's."""
    if is_out_of_memory(error):
        return (
            "the memory did not suffice; close other programs, or train on smaller "
            "images, smaller patches or the CPU."
        )
    if isinstance(error, OSError):
        return f"a file cannot be used: {error}."
    words = " ".join(str(error).split()) or "no more is known"
    return f"something unexpected happened ({type(error).__name__}: {words})."
