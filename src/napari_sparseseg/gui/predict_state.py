"""What is true of predicting and exporting; only its controller changes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from psygnal import SignalGroupDescriptor

from napari_sparseseg.engine.messages import Sureness  # noqa: TC001  pydantic reads it
from napari_sparseseg.gui.state import STARTING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sparseseg.gui.state import EngineState

#: What is predicted of the chosen image; of a folder all images in it.
What = Literal["view", "plane", "stack", "slide", "folder"]

WHATS: tuple[What, ...] = ("view", "plane", "stack", "slide", "folder")

#: Stands for the model of the dock "Label and train", as it is at the moment.
TRAINED = ""


#: Why there is no layer of how sure the model is.
NOT_OF_FILES = (
    "How sure the model is can be shown for a view, a plane or a stack. Of a slide or "
    "a folder only labels are kept: how sure takes many times the room."
)
NOT_OF_SMOOTHED = (
    "How sure the model is can be shown for planes that are predicted one by one; set "
    "Smooth across planes to none for that."
)


@dataclass(frozen=True)
class PredictWishes:
    """How is to be predicted and exported.

    Attributes
    ----------
    model
        File of the model, or `TRAINED`.
    what
        What is predicted.
    smooth_planes
        Standard deviation, in planes, by which a stack is smoothed across its planes.
    smallest_object
        Objects of fewer pixels go.
    sureness
        What is shown beside the labels; None: nothing.
    tissue_mask
        Whether the glass of slides is left out.
    suffix
        Of the files that are written for a folder.
    images, out
        The folder, and where its results go; empty where none is chosen.
    simplify_px
        How far exported outlines of GeoJSON may lie from the exact ones, in pixels.
    """

    model: str = TRAINED
    what: What = "plane"
    smooth_planes: float = 0.0
    smallest_object: int = 0
    sureness: Sureness | None = None
    tissue_mask: bool = True
    suffix: str = ".nii.gz"
    images: str = ""
    out: str = ""
    simplify_px: float = 0.0

    @property
    def no_sureness(self) -> str:
        """Why nothing is shown beside the labels, in one sentence; empty where it is.

        What goes from file to file is not held in memory, and maps of how sure are not
        written: they take many times the room of labels.
        """
        if self.what in ("slide", "folder"):
            return NOT_OF_FILES
        if self.what == "stack" and self.smooth_planes:
            return NOT_OF_SMOOTHED
        return ""

    @property
    def shown_sureness(self) -> Sureness | None:
        """What is shown beside the labels of this: *sureness*, where it can be."""
        return None if self.no_sureness else self.sureness


@dataclass(frozen=True)
class ModelChoice:
    """A model that can be chosen.

    Attributes
    ----------
    path
        Its file, or `TRAINED`.
    words
        What it is, as the list has it.
    why_not
        Why it cannot be used, in one sentence; empty where it can.
    """

    path: str
    words: str
    why_not: str = ""


@dataclass(eq=False)
class PredictState:
    """All that the dock shows. Assigning an attribute emits the event of its name.

    Attributes
    ----------
    wishes
        How is to be predicted.
    models
        Those that can be chosen.
    refused
        Why something cannot be predicted of the chosen image, in one sentence.
    engine
        Whether the engine process stands.
    starting
        What it does where it is starting, in plain words.
    progress
        Share that is done of what runs; None when nothing runs.
    cancelling
        Whether what runs is being given up.
    speed
        How fast it goes and how long it takes, in words.
    cannot_predict, cannot_export
        Why the buttons are disabled, in one sentence; empty where they are not.
    to_export
        What the labels are that would be written, with their classes.
    exporting
        Whether something is being written.
    status
        What goes on, in plain words.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    wishes: PredictWishes = field(default_factory=PredictWishes)
    models: tuple[ModelChoice, ...] = ()
    refused: Mapping[What, str] = field(default_factory=dict)
    engine: EngineState = "starting"
    starting: str = STARTING
    progress: float | None = None
    cancelling: bool = False
    speed: str = ""
    cannot_predict: str = ""
    cannot_export: str = ""
    to_export: str = ""
    exporting: bool = False
    status: str = ""
