"""The masks of boxes as they were made, and what of them goes into labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sparseseg.gui.boxes_written import Edit, with_value
from napari_sparseseg.pseudo_masks.label_map import BoxMask, PseudoMask, merge_masks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.engine.messages import MaskSettings
    from napari_sparseseg.gui.boxes_written import Plane, WrittenLabels

#: Values in the files of the engine; what is left is background.
FOREGROUND, UNDECIDED = 1, 2


@dataclass(eq=False)
class MadeMask:
    """The mask of one box.

    Attributes
    ----------
    box
        Height h and width w.
    mask
        (h, w) uint8: 1 foreground, 0 background, 2 neither.
    localization
        (h, w) float32 in [0, 1].
    settings
        By which it was made.
    into
        The labels that it is accepted into; None where it is not, or they are gone.
    """

    box: Box
    mask: NDArray[np.uint8]
    localization: NDArray[np.float32]
    settings: MaskSettings
    into: WrittenLabels | None = None

    @property
    def accepted(self) -> bool:
        """Whether it is in labels."""
        return self.into is not None

    def as_box_mask(self, origin: tuple[int, int]) -> BoxMask:
        """Return it as the merging of masks takes it, on what begins at *origin*."""
        y, x = origin
        box = self.box
        return BoxMask(
            replace(box, y0=box.y0 - y, x0=box.x0 - x, y1=box.y1 - y, x1=box.x1 - x),
            self.mask == FOREGROUND,
            self.localization,
            self.mask == UNDECIDED,
        )


class _Plan(NamedTuple):
    """What accepting masks makes of a plane of labels."""

    plane: Plane
    #: (y, x).
    after: NDArray[Any]
    #: What the mask of each box writes, over labels without that of before.
    edits: list[tuple[Box, Edit]]


class _Step(NamedTuple):
    """What was accepted at once."""

    into: WrittenLabels
    masks: list[MadeMask]
    edits: list[Edit]


class BoxResults:
    """The masks of the boxes on an image, by box.

    A box that is moved is another box, and has no mask.

    Parameters
    ----------
    shape
        (y, x) of the planes.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._made: dict[Box, MadeMask] = {}
        self._steps: list[_Step] = []

    def get(self, box: Box | None) -> MadeMask | None:
        """Return the mask of a box, None where there is none."""
        return None if box is None else self._made.get(box)

    def put(self, made: MadeMask) -> None:
        """Take a mask; that of before is replaced, in labels when it is accepted."""
        self._made[made.box] = made

    def keep_only(self, boxes: Iterable[Box]) -> set[Plane]:
        """Forget the masks of all other boxes; return their planes."""
        gone = self._made.keys() - set(boxes)
        for box in gone:
            del self._made[box]
        return {box.plane for box in gone}

    def use_values(self, values: Mapping[int, int]) -> None:
        """Give boxes other class values, by those of before; masks stay theirs."""
        for made in self._made.values():
            made.box = with_value(made.box, values)
        self._made = {made.box: made for made in self._made.values()}

    @property
    def planes(self) -> set[Plane]:
        """The planes that there are masks on."""
        return {box.plane for box in self._made}

    @property
    def can_undo(self) -> bool:
        """Whether anything is left of what was accepted."""
        return bool(self._steps)

    def proposed(self, plane: Plane) -> NDArray[np.integer[Any]]:
        """Return (y, x) the class values of the masks that are not accepted yet."""
        masks = [made for made in self._on(plane) if not made.accepted]
        where, merged = self._merged(masks)
        proposed = np.zeros(self._shape, merged.labels.dtype)
        proposed[where] = merged.labels
        return proposed

    def localization(self, plane: Plane) -> NDArray[np.float32]:
        """Return (y, x) the localisation maps of a plane."""
        where, merged = self._merged(self._on(plane))
        localization = np.zeros(self._shape, np.float32)
        localization[where] = merged.localization
        return localization

    def forget_labels(self, into: WrittenLabels) -> None:
        """Note that a label layer is deleted, and all that was accepted into it."""
        self._steps = [step for step in self._steps if step.into is not into]
        for made in self._made.values():
            if made.into is into:
                made.into = None

    def refresh_accepted(self) -> set[Plane]:
        """Find out which accepted masks are gone from their labels; return the planes.

        They are proposed again then.
        """
        changed = set()
        for made in self._made.values():
            if made.into is not None and not made.into.has(made.box):
                made.into = None
                changed.add(made.box.plane)
        # Strokes that are painted there later are none of the step's.
        self._steps = [
            step for step in self._steps if any(map(step.into.is_left, step.edits))
        ]
        return changed

    def accept(
        self,
        boxes: Sequence[Box],
        into: WrittenLabels,
        background: int,
        outside_of: Iterable[Box] | None = None,
    ) -> None:
        """Write the masks of boxes into a label layer; one undo takes them back.

        A pixel goes to the smallest box that has it as foreground, accepted or not.
        What is left of an earlier mask of the same box is taken back.

        Parameters
        ----------
        boxes
            That have masks.
        into
            The labels, pixel by pixel on the planes.
        background
            Class value of background; 0 = none is written.
        outside_of
            On all planes with accepted masks, what is not painted becomes background
            where none of these boxes is, and inside of them where methods say so.
            None: nowhere.

        Raises
        ------
        LayerError
            If the layer cannot be read or changed.
        """
        plans = list(self._plans(boxes, into))
        masks = [self._made[box] for box in boxes]
        with into.labels.block_history():
            edits = into.change({plan.plane: plan.after for plan in plans})
            for made in masks:
                made.into = into
            for box, edit in (each for plan in plans for each in plan.edits):
                into.note(box, edit)
            if outside_of is not None and background:
                edits += self._fill(into, background, list(outside_of))
        if edits:
            self._steps.append(_Step(into, masks, edits))

    def count_replaced(self, boxes: Sequence[Box], into: WrittenLabels) -> int:
        """Count the painted pixels that get other values when masks are accepted.

        Pixels of other accepted masks do not count.

        Parameters
        ----------
        boxes, into
            As of `accept`.
        """
        count = 0
        for plan in self._plans(boxes, into):
            replaced = plan.after != into.plane(plan.plane)
            count += int(np.count_nonzero(replaced & into.painted(plan.plane)))
        return count

    def undo(self) -> bool:
        """Take back what is left of what was accepted last; tell if there was any.

        What was painted there since stays.
        """
        while self._steps:
            step = self._steps.pop()
            for made in step.masks:
                made.into = None
            if step.into.take_back(step.edits):
                return True
        return False

    def _plans(self, boxes: Sequence[Box], into: WrittenLabels) -> Iterator[_Plan]:
        for plane in sorted({box.plane for box in boxes}):
            here = [box for box in boxes if box.plane == plane]
            # Where masks lie, what the merging of all of them says.
            where, merged = self._merged(self._on(plane))
            won = np.zeros(self._shape, merged.labels.dtype)
            won[where] = merged.labels
            before = into.without(here, plane)
            after, edits = before.copy(), []
            for box in here:
                own = self._made[box].mask == FOREGROUND
                own &= won[box.slices] == box.class_value
                values = np.where(own, won[box.slices], 0)
                written = np.where(values > 0, values, before[box.slices])
                written = written.astype(before.dtype, copy=False)
                inside = before[box.slices].copy()
                edits.append((box, Edit(plane, box.slices, inside, written)))
                after[box.slices][values > 0] = values[values > 0]
            yield _Plan(plane, after, edits)

    def _fill(
        self, into: WrittenLabels, background: int, boxes: list[Box]
    ) -> list[Edit]:
        planes = {}
        for plane in {box.plane for box, made in self._made.items() if made.accepted}:
            is_background = np.ones(self._shape, bool)
            for box in boxes:
                if box.plane == plane:
                    is_background[box.slices] = False
            where, merged = self._merged(self._on(plane), background)
            is_background[where] |= merged.labels == background
            labels = into.plane(plane)
            planes[plane] = np.where(is_background & (labels == 0), background, labels)
        edits = into.change(planes)
        for edit in edits:
            into.note(None, edit)
        return edits

    def _on(self, plane: Plane) -> list[MadeMask]:
        return [made for box, made in self._made.items() if box.plane == plane]

    def _merged(
        self, masks: list[MadeMask], background: int = 0
    ) -> tuple[tuple[slice, slice], PseudoMask]:
        """Merge masks of one plane; return where they lie, and what they are there."""
        edges = np.array([made.box.edges for made in masks] or [(0, 0, 0, 0)])
        y0, x0 = edges[:, :2].min(axis=0).tolist()
        y1, x1 = edges[:, 2:].max(axis=0).tolist()
        merged = merge_masks(
            [made.as_box_mask((y0, x0)) for made in masks],
            (y1 - y0, x1 - x0),
            background,
            background_inside=True,
        )
        return (slice(y0, y1), slice(x0, x1)), merged
