"""What is true at the moment; widgets show it, and only the controllers change it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from psygnal import SignalGroupDescriptor

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine.messages import Phase, Shown, TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

Live = Literal["off", "once", "live"]
EngineState = Literal["starting", "ready", "broken"]

#: What docks say of an engine that starts, unless it takes long.
STARTING = "Starting, a few seconds …"

Kind = Literal["sparse", "dense"]


@dataclass(frozen=True, slots=True)
class PairRow:
    """An image and its labels, as they stand in the list of the training.

    Attributes
    ----------
    image, labels
        Names of the layers, or of the files where it is not open; the latter is empty
        where there are no labels yet.
    ticked
        Whether the training learns from it.
    strokes
        Number of strokes in it.
    problem
        Why it cannot be used, in one sentence; empty where it can.
    kind
        Whether regions of it are labelled completely (dense) or not (sparse).
    is_kind_chosen
        Whether the user said so, and it was not proposed from what is labelled.
    planes
        Annotated planes of a volume; 0 of images of one plane.
    score
        Mean Dice on its held-out strokes, None where that is not known.
    no_score
        Why not, in one sentence.
    is_open
        Whether it has layers; else it is a file that is opened when it is chosen.
    is_chosen
        Whether it is the one that is worked on.
    """

    image: str
    labels: str
    ticked: bool = True
    strokes: int = 0
    problem: str = ""
    kind: Kind = "sparse"
    is_kind_chosen: bool = False
    planes: int = 0
    score: float | None = None
    no_score: str = ""
    is_open: bool = True
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Dice on held-out strokes after some steps, by class value."""

    step: int
    overall: float
    dice: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model that was written to a file, and how good it was then.

    Attributes
    ----------
    path
        Of the file.
    saved
        When: local date and time, as ISO 8601 has it, to the minute.
    step
        Mini-batches learned.
    strokes
        That it learned from.
    overall
        Mean Dice on held-out strokes; None where it was not measured.
    dice
        The same by the name of the class.
    """

    path: str
    saved: str
    step: int
    strokes: int
    overall: float | None = None
    dice: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class State:
    """All that the dock shows. Assigning an attribute emits the event of its name.

    Attributes
    ----------
    classes
        The class table.
    selected
        Value of the class that is painted, 0 where there is none.
    counts
        (pixels, strokes) of each annotated class value, over the ticked images.
    pairs
        Images and labels that are learned from, in order.
    why_no_step
        Why one cannot go to the previous and to the next of them; empty where one can.
    reading
        How many files of the list are read, of how many; (0, 0) while they are looked
        for, None when nothing is read.
    settings
        What is asked of a training.
    engine
        Whether the engine process stands.
    starting
        What it does where it is starting, in plain words.
    phase
        Of the training.
    device
        What the engine computes on, in words.
    devices
        (name, words) of those that can be chosen, the best first.
    step
        Mini-batches learned.
    losses
        (step, loss) pairs.
    curve
        Scores on held-out strokes, in order of steps.
    shown, reason
        Which of head and network predicts, and why.
    live
        When predictions are made.
    progress
        Share of the running prediction that is done; None when none runs.
    predicting
        Name of the image that is predicted, or was last.
    visible, opacity
        Of the prediction layer.
    confidence
        Whether a confidence layer is kept too.
    model
        The network that learns or was loaded, and its features, in words.
    models
        That were saved in this session, in order.
    unsaved
        Whether something was learned since the model was last saved.
    cannot_train
        Why Train is disabled, in one sentence; empty where it is not.
    cannot_cut
        Why no field can be cut out of a slide, in one sentence; empty where one can.
    is_cutting
        Whether a rectangle for a field is waited for, or its pixels.
    place
        Folder that strokes are kept in.
    status
        What goes on, in plain words.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    classes: ClassTable = field(default_factory=ClassTable)
    selected: int = 0
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    pairs: tuple[PairRow, ...] = ()
    why_no_step: tuple[str, str] = ("", "")
    reading: tuple[int, int] | None = None
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    engine: EngineState = "starting"
    starting: str = STARTING
    phase: Phase = "idle"
    device: str = ""
    devices: tuple[tuple[str, str], ...] = ()
    step: int = 0
    losses: tuple[tuple[int, float], ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    shown: Shown = "head"
    reason: str = ""
    live: Live = "live"
    progress: float | None = None
    predicting: str = ""
    visible: bool = True
    opacity: float = 0.5
    confidence: bool = False
    model: str = ""
    models: tuple[SavedModel, ...] = ()
    unsaved: bool = False
    cannot_train: str = ""
    cannot_cut: str = "Open a slide first."
    is_cutting: bool = False
    place: str = ""
    status: str = ""
