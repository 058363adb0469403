"""Starts trainings, and decides whether and how one goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from napari_sparseseg.engine.messages import Start, Stop
from napari_sparseseg.gui.network_words import words_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.engine.messages import TrainingSettings
    from napari_sparseseg.gui.state import State

#: Settings with which a training can go on from an earlier one's checkpoint.
LASTING = (
    *("net", "preset", "encoder_weights", "freeze_encoder"),
    *("loss", "l1", "l2", "smoothness"),
    *("scale", "window", "head_start", "head_features"),
)

#: What the engine did when it ended so often in a row is not taken up again.
MOST_DEATHS = 3


class TrainingRun:
    """The training of now, or the last one.

    Parameters
    ----------
    state
        Its phase, steps and curves are set here.
    send
        Takes a request to the engine.
    checkpoint
        File in which the engine keeps the state of the training.
    """

    def __init__(
        self, state: State, send: Callable[[object], None], checkpoint: Path
    ) -> None:
        self.checkpoint = checkpoint
        self._state = state
        self._send = send
        self._settings: TrainingSettings | None = None
        self._classes = state.classes
        self._images: WeakSet[object] = WeakSet()
        self._resumes = False
        self._interrupted = False
        self._stops = False
        self._deaths = 0  # since the last validation, while learning
        self._idle_deaths = 0  # since the last prediction, at other times

    @property
    def may_be_brought_back(self) -> bool:
        """Whether what predicted may be asked to predict in another engine."""
        return self._idle_deaths < MOST_DEATHS

    @property
    def goes_on(self) -> bool:
        """Whether it was started and not stopped, whatever the engine has said yet."""
        return self._state.phase != "idle" and not self._stops

    def learns_from(self, images: Iterable[object]) -> None:
        """Note layers, or files of the list, that the training of now is given."""
        self._images.update(images)

    def why_anew(self, images: set[object]) -> str:
        """Tell why nothing can be learned on; empty where it can, or is the first."""
        before, now = self._settings, self._state.settings
        if before is None or self._state.step == 0:
            return ""
        if any(getattr(before, name) != getattr(now, name) for name in LASTING):
            return "The network, its loss or its resolution is another one"
        if self._classes.named_values != self._state.classes.named_values:
            return "The classes are others"
        if self._images.isdisjoint(images):
            # Nor would the range of intensities be right, which it keeps.
            return "The images are others"
        return ""

    def can_go_on(self, images: set[object]) -> bool:
        """Tell whether something was learned that fits images and classes of now."""
        return self._state.step > 0 and not self.why_anew(images)

    def begin(self, images: set[object]) -> None:
        """Start, as the user wishes; go on where something fitting was learned."""
        self._deaths = self._idle_deaths = 0
        resume = self.can_go_on(images)
        if not resume:
            self._images.clear()
        self.learns_from(images)
        self.start(resume=resume)

    def start(self, *, resume: bool) -> None:
        """Start, or go on from the checkpoint."""
        if not resume:
            self._state.losses, self._state.curve = (), ()
            self._state.reason = ""
        self._settings, self._classes = self._state.settings, self._state.classes
        self._state.model = words_on(
            self._settings.net,
            self._settings.encoder_weights,
            is_frozen=self._settings.freeze_encoder,
        )
        self._resumes = resume
        self._interrupted = False
        self._stops = False
        # Not when the engine says so: Train may be pressed again before, and strokes
        # that are painted meanwhile must be sent.
        self._state.phase = "preparing"
        self._state.status = "Preparing the training …"
        self._send(
            Start(
                settings=self._settings,
                checkpoint=str(self.checkpoint),
                resume=resume,
            )
        )

    def stop(self) -> None:
        """End it; what it has learned predicts on."""
        self._stops = True
        self._send(Stop())

    def use_classes(self, classes: ClassTable) -> None:
        """Note classes that a training has taken over."""
        if self._state.phase != "idle":
            self._classes = classes

    def succeeds(self) -> None:
        """Note that it gets somewhere."""
        self._deaths = 0

    def predicts(self) -> None:
        """Note that a prediction is complete."""
        self._idle_deaths = 0

    def ends_with_engine(self) -> str:
        """Note that the engine is gone; say what becomes of the training."""
        goes_on, phase = self.goes_on, self._state.phase
        self._state.phase = "idle"
        if goes_on and phase != "paused":
            self._deaths += 1
            self._interrupted = True
        elif not self._interrupted:
            self._idle_deaths += 1
            if not self.may_be_brought_back:
                return (
                    f"That happened {self._idle_deaths} times in a row, so nothing is "
                    "predicted until you press Train or load a model."
                )
            return "Press Train to learn on." if phase == "paused" else ""
        if self._deaths < MOST_DEATHS:
            return ""
        self._interrupted = False
        return (
            f"The training is not taken up again, since that happened {self._deaths} "
            "times in a row; press Train to try once more, with fewer or smaller "
            "images."
        )

    def is_interrupted(self) -> bool:
        """Tell whether it shall go on as soon as there is an engine again."""
        return self._interrupted

    def was_not_taken_up(self) -> bool:
        """Tell, once, whether the engine could not go on from the checkpoint."""
        resumed, self._resumes = self._resumes, False
        return resumed
