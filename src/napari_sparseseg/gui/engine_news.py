"""What the engine tells, brought into the state and into words."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info, show_warning

from napari_sparseseg.errors import ImageError
from napari_sparseseg.gui.log import log_file, without_words
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.state import CurvePoint, SavedModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sparseseg.engine import messages
    from napari_sparseseg.gui.live_prediction import LivePrediction
    from napari_sparseseg.gui.state import State

logger = logging.getLogger(__name__)

#: Requests at each stroke or movement of the camera: what is wrong is told once.
REPEATED = ("put-image", "use-classes", "predict")

#: Kept of the loss at most; every other one is dropped beyond.
MOST_LOSSES = 2000


class EngineNews:
    """Takes events of training and prediction in.

    Parameters
    ----------
    state
        That is brought up to date.
    prediction
        Told when there is something new to predict with, and of tiles.
    """

    def __init__(self, state: State, prediction: LivePrediction) -> None:
        self._told: set[tuple[str, str]] = set()
        self._state = state
        self._prediction = prediction

    def take(self, event: Any) -> None:
        """Take an event in; kinds that are not of training or prediction are passed."""
        handler: Callable[[Any], None] | None = getattr(
            self, f"_on_{event.kind.replace('-', '_')}", None
        )
        if handler is not None:
            handler(event)

    def _on_phase(self, event: messages.PhaseChanged) -> None:
        self._state.phase = event.phase
        self._state.step = event.step
        self._told = {each for each in self._told if each[0] == "predict"}
        if event.phase == "idle" and event.step:
            self._prediction.model_changed()
        self._say(
            {
                "idle": "Stopped; what was learned predicts on."
                if event.step
                else "Ready.",
                "preparing": "Preparing the training …",
                "running": "Learning from your strokes.",
                "paused": "Paused; press Continue to learn on.",
            }[event.phase]
        )

    def _on_head_fitted(self, event: messages.HeadFitted) -> None:
        self._state.unsaved = True
        if event.is_new:
            self._prediction.model_changed()

    def _on_step(self, event: messages.StepDone) -> None:
        self._state.step = event.step
        losses = (*self._state.losses, (event.step, event.loss))
        self._state.losses = losses[::2] if len(losses) > MOST_LOSSES else losses
        self._state.unsaved = True

    def _on_validated(self, event: messages.Validated) -> None:
        self._state.shown = event.shown
        self._state.reason = event.reason
        score = event.scores.get(event.shown)
        if score is not None:
            point = CurvePoint(event.step, score.overall, score.dice)
            self._state.curve = (*self._state.curve, point)
        self._prediction.model_changed()

    def _on_scale_chosen(self, event: messages.ScaleChosen) -> None:
        self._say(
            f"Learning from your strokes, at 1/{1 / event.scale:.3g} of the image's "
            "resolution, which did best on strokes held out."
        )

    def _on_recovered(self, event: messages.Recovered) -> None:
        show_warning(
            f"At step {event.step} the loss was no number; the training went back to "
            "its last good weights and goes on more slowly."
        )

    def _on_memory_saved(self, event: messages.MemorySaved) -> None:
        show_warning(
            "The memory did not suffice; the training goes on in smaller parts of "
            f"{event.micro_batch} patches."
        )

    def _on_went_to_cpu(self, event: messages.WentToCpu) -> None:
        show_warning(
            "The memory of the GPU did not suffice, so the training goes on on the "
            f"CPU, from step {event.step}, more slowly."
        )

    def _on_warned(self, event: messages.Warned) -> None:
        # It may be so again with each new stroke.
        told = (event.kind, event.message)
        if told not in self._told:
            self._told.add(told)
            show_warning(event.message)

    def _on_tile(self, event: messages.TileDone) -> None:
        with telling():
            self._prediction.on_tile(event)

    def _on_predicted(self, event: messages.Predicted) -> None:
        self._prediction.on_predicted(event)
        self._state.shown = event.shown
        self._told = {each for each in self._told if each[0] != "predict"}

    def _on_model_saved(self, event: messages.ModelSaved) -> None:
        self._state.unsaved = False
        self._state.models = (*self._state.models, self._saved(event.path))
        show_info(f"The model is saved: {event.path}")

    def _saved(self, path: str) -> SavedModel:
        """Note how good a model is that was written just now."""
        state = self._state
        point = state.curve[-1] if state.curve else None
        names = {each.value: each.name for each in state.classes}
        return SavedModel(
            path=str(Path(path).absolute()),
            saved=datetime.now().isoformat(timespec="minutes"),
            step=state.step,
            strokes=sum(strokes for _, strokes in state.counts.values()),
            overall=None if point is None else point.overall,
            dice={}
            if point is None
            else {
                names[value]: dice
                for value, dice in point.dice.items()
                if value in names
            },
        )

    def _on_failed(self, event: messages.Failed) -> None:
        if event.details:
            logger.error("%s failed\n%s", event.request, without_words(event.details))
        message = event.message
        if event.request == "predict":
            name = self._state.predicting
            if not self._prediction.fails(event.generation):
                return
            message = f"'{name}' is not predicted: {message}" if name else message
        told = (event.request, message)
        # What was never taken in need not be taken out.
        if event.request == "remove-image" or told in self._told:
            return
        if event.request in REPEATED:
            self._told.add(told)
        details = f" Details: {log_file()}" if event.details else ""
        self._say(message)
        # Nothing is broken where a model of grey images is asked of an RGB one.
        misfits = event.request == "predict" and event.error == ImageError.__name__
        (show_info if misfits else show_error)(message + details)

    def _say(self, sentence: str) -> None:
        self._state.status = sentence
