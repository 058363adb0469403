"""What a training tells while it goes on: small frozen records."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sparseseg.networks.model import Shown


@dataclass(frozen=True, slots=True)
class PartScore:
    """How well head, network or both do on pixels they have not learned from.

    Attributes
    ----------
    overall
        Mean Dice over the classes that were scored, in [0, 1].
    dice
        Dice by class value; classes that could not be scored are left out.
    strokes
        Held-out strokes behind it, by class value.
    """

    overall: float
    dice: Mapping[int, float]
    strokes: Mapping[int, int]


def score_from_json(values: Mapping[str, Any]) -> PartScore:
    """Return a score of its dictionary, whose class values JSON has made strings."""
    return PartScore(
        values["overall"],
        {int(value): dice for value, dice in values["dice"].items()},
        {int(value): count for value, count in values["strokes"].items()},
    )


def scores_to_json(scores: Mapping[Shown, PartScore | None]) -> dict[str, Any]:
    """Return scores of what predicts as JSON values."""
    return {
        shown: None if score is None else dataclasses.asdict(score)
        for shown, score in scores.items()
    }


def scores_from_json(values: Mapping[str, Any]) -> dict[Shown, PartScore | None]:
    """Return the scores that :func:`scores_to_json` was given."""
    return {
        cast("Shown", shown): None if score is None else score_from_json(score)
        for shown, score in values.items()
    }


@dataclass(frozen=True, slots=True)
class HeadFitted:
    """The per-pixel head knows the strokes of now.

    Attributes
    ----------
    scale
        Working pixels per image pixel.
    score
        On held-out strokes; None as long as it is not scored, or cannot be.
    scores_by_scale
        Overall Dice at each resolution that was tried.
    is_new
        Whether it predicts otherwise than the head that was told before.
    """

    scale: float
    score: PartScore | None
    scores_by_scale: Mapping[float, float]
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class StepDone:
    """One mini-batch was learned."""

    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Validated:
    """Head and network were scored on what was held out.

    Attributes
    ----------
    step
        Steps so far.
    scores
        Of head, network and the mean of both, as far as they can be scored.
    shown
        What predicts from now on.
    reason
        Why, in plain words.
    images
        Mean Dice of what predicts by the name of the image, of those on which something
        is held out and was looked at. It stays out of models: names may tell whose
        image it is.
    """

    step: int
    scores: Mapping[Shown, PartScore | None]
    shown: Shown
    reason: str
    images: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScaleChosen:
    """The network's working resolution was decided on held-out strokes."""

    step: int
    scale: float
    scores_by_scale: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Recovered:
    """The loss was no number; training went back to the last good weights."""

    step: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class MemorySaved:
    """Memory did not suffice; the mini-batch goes through in smaller parts."""

    step: int
    micro_batch: int

    @property
    def note(self) -> str:
        """What happened, in words."""
        return (
            f"step {self.step + 1}: not enough memory, {self.micro_batch} of a "
            "mini-batch at once from here on"
        )


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part of a step or of a fit is done: time to look at something else."""

    step: int


TrainingEvent = (
    HeadFitted | StepDone | Validated | ScaleChosen | Recovered | MemorySaved | PartDone
)
