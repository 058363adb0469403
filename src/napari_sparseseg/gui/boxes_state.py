"""What is true of boxes and masks; the dock shows it, its controller changes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from psygnal import SignalGroupDescriptor

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine.messages import MaskMethod, MaskSettings
from napari_sparseseg.gui.state import STARTING
from napari_sparseseg.pseudo_masks import method_names

if TYPE_CHECKING:
    from napari_sparseseg.gui.state import EngineState

#: ``drawn``: without a mask yet. ``proposed``: there is one, to be looked at.
#: ``accepted``: it is in the labels. ``skipped``: no mask can be made.
BoxStatus = Literal["drawn", "proposed", "accepted", "skipped"]

#: Methods that learn from all boxes together, in minutes.
LEARNING = method_names.LEARNING

#: Methods that refine by a dense CRF unless it is switched off.
REFINING = method_names.REFINED

#: Why methods have no choice about the CRF.
FIXED_CRF: dict[MaskMethod, str] = {
    "box": "The whole box is the object, so there is no edge to refine.",
    "ellipse": "All of the ellipse is the object, so there is no edge to refine.",
    "crf-box": "This method consists of it.",
}

#: Methods with a backbone.
MINING = method_names.MINING


@dataclass(frozen=True, slots=True)
class BoxRow:
    """A box as it stands in the list.

    Attributes
    ----------
    class_value
        Of what it encloses, 0 where that is not known.
    class_name
        Of the same.
    place
        Where it lies and how large it is, in words.
    status
        What became of it.
    share
        Share of the box that its mask has as foreground.
    problem
        Why it is skipped, in a few words; empty where it is not.
    """

    class_value: int
    class_name: str
    place: str = ""
    status: BoxStatus = "drawn"
    share: float = 0.0
    problem: str = ""


@dataclass(eq=False)
class BoxesState:
    """All that the dock shows. Assigning an attribute emits the event of its name.

    Attributes
    ----------
    classes
        The class table.
    drawn_class
        Value of the class of new boxes, 0 where there is none.
    settings
        How boxes become masks.
    rows
        The boxes, in the order of their shapes.
    picked
        Places in *rows* of those that are picked, ascending.
    engine
        Whether the engine process stands.
    starting
        What it does where it is starting, in plain words.
    devices
        (name, words) of those that can be chosen, the best first.
    progress
        Share that is done of what runs; None when nothing runs.
    preview
        Whether the picked box is drawn anew when a parameter of the CRF moves.
    map_visible
        Whether the localisation map is shown.
    can_undo
        Whether accepted masks can be taken back.
    cannot_generate, cannot_redo
        Why no masks can be made of all boxes, or of the picked ones; empty where they
        can.
    cannot_train
        Why the masks cannot be trained on; empty where they can.
    status
        What goes on, in plain words.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    classes: ClassTable = field(default_factory=ClassTable)
    drawn_class: int = 0
    settings: MaskSettings = field(default_factory=MaskSettings)
    rows: tuple[BoxRow, ...] = ()
    picked: tuple[int, ...] = ()
    engine: EngineState = "starting"
    starting: str = STARTING
    devices: tuple[tuple[str, str], ...] = ()
    progress: float | None = None
    preview: bool = True
    map_visible: bool = False
    can_undo: bool = False
    cannot_generate: str = ""
    cannot_redo: str = ""
    cannot_train: str = ""
    status: str = ""

    @property
    def uses_crf(self) -> bool:
        """Whether a dense CRF refines the masks."""
        crf, method = self.settings.crf, self.settings.method
        return method in REFINING if crf is None else crf

    def places(self, *statuses: BoxStatus) -> tuple[int, ...]:
        """Return the places in `rows` of boxes of some statuses."""
        return tuple(
            place for place, row in enumerate(self.rows) if row.status in statuses
        )
