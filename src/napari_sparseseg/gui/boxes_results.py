"""The masks of boxes as they were made, and what of them goes into labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.gui.planes import PlaneKey, read_label_plane
from napari_sparseseg.pseudo_masks.label_map import BoxMask, merge_masks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.engine.messages import MaskSettings

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
    written
        (h, w) class values that were written when it was accepted, 0 where nothing
        was; None before.
    labels
        The layer that it was accepted into.
    accepted
        Whether it is there as it is here.
    """

    box: Box
    mask: NDArray[np.uint8]
    localization: NDArray[np.float32]
    settings: MaskSettings
    written: NDArray[np.integer[Any]] | None = None
    labels: Labels | None = None
    accepted: bool = False

    def as_box_mask(self) -> BoxMask:
        """Return it as the merging of masks takes it."""
        return BoxMask(
            self.box,
            self.mask == FOREGROUND,
            self.localization,
            self.mask == UNDECIDED,
        )


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

    def get(self, box: Box | None) -> MadeMask | None:
        """Return the mask of a box, None where there is none."""
        return None if box is None else self._made.get(box)

    def put(self, made: MadeMask) -> None:
        """Take a mask; that of before is replaced, in labels when it is accepted."""
        before = self._made.get(made.box)
        if before is not None:
            made.written, made.labels = before.written, before.labels
        self._made[made.box] = made

    def keep_only(self, boxes: Iterable[Box]) -> set[tuple[int, ...]]:
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
    def planes(self) -> set[tuple[int, ...]]:
        """The planes that there are masks on."""
        return {box.plane for box in self._made}

    def proposed(self, plane: tuple[int, ...]) -> NDArray[np.integer[Any]]:
        """Return (y, x) the class values of the masks that are not accepted yet."""
        masks = [made for made in self._on(plane) if not made.accepted]
        return self._merged(masks, 0)

    def localization(self, plane: tuple[int, ...]) -> NDArray[np.float32]:
        """Return (y, x) the localisation maps of a plane."""
        masks = [made.as_box_mask() for made in self._on(plane)]
        return merge_masks(masks, self._shape).localization

    def forget_labels(self, labels: Labels) -> None:
        """Note that a label layer is deleted, and all that was accepted into it."""
        for made in self._made.values():
            if made.labels is labels:
                made.labels = made.written = None

    def refresh_accepted(self) -> set[tuple[int, ...]]:
        """Find out which accepted masks are gone from their labels; return the planes.

        They are proposed again then.
        """
        changed = set()
        for made in self._made.values():
            if made.accepted and not _is_there(made):
                made.accepted = False
                changed.add(made.box.plane)
        return changed

    def accept(
        self,
        boxes: Iterable[Box],
        labels: Labels,
        background: int,
        outside: bool = False,
    ) -> None:
        """Write the masks of boxes into a label layer; one undo takes them back.

        A pixel goes to the smallest box that has it as foreground, accepted or not.
        What an earlier mask of the same box has left there is erased.

        Parameters
        ----------
        boxes
            That have masks.
        labels
            Pixel by pixel on the planes.
        background
            Class value of what a method calls background; 0 = that is not written.
        outside
            Whether what lies outside of all boxes becomes background too, where
            nothing is painted yet: on all planes with accepted masks.

        Raises
        ------
        LayerError
            If the layer cannot be read.
        """
        accepted = [self._made[box] for box in boxes]
        planes = {made.box.plane for made in accepted}
        if outside and background:
            planes |= {each.box.plane for each in self._made.values() if each.accepted}
        places, values = [], []
        for plane in sorted(planes):
            before = np.array(read_label_plane(labels, PlaneKey(plane)))
            mine = [made for made in accepted if made.box.plane == plane]
            after = self._written(before, mine, background)
            if outside and background:
                inside = np.zeros(self._shape, bool)
                for made in self._on(plane):
                    inside[made.box.slices] = True
                after[~inside & (after == 0)] = background
            y, x = np.nonzero(after != before)
            rows = [np.full(len(y), index) for index in plane]
            places.append(np.stack([*rows, y, x]))
            values.append(after[y, x])
        if places:
            where = tuple(np.concatenate(places, axis=1))
            labels.data_setitem(where, np.concatenate(values).tolist())
        for made in accepted:
            made.labels, made.accepted = labels, True

    def _written(
        self, before: NDArray[Any], accepted: list[MadeMask], background: int
    ) -> NDArray[Any]:
        """Return labels of a plane with the masks, and note what each has written."""
        if not accepted:
            return before.copy()
        masks = self._on(accepted[0].box.plane)
        merged = self._merged(masks, background)
        after = before.copy()
        for made in accepted:
            if made.written is not None:
                inside = after[made.box.slices]
                inside[(inside == made.written) & (made.written > 0)] = 0
        for made in accepted:
            value, won = made.box.class_value, merged[made.box.slices]
            wanted = (made.mask == FOREGROUND) & (won == value)
            made.written = np.where(wanted, value, 0)
            if background:
                empty = (made.mask == 0) & (won == background)
                made.written[empty] = background
            after[made.box.slices][made.written > 0] = made.written[made.written > 0]
        return after

    def _on(self, plane: tuple[int, ...]) -> list[MadeMask]:
        return [made for box, made in self._made.items() if box.plane == plane]

    def _merged(
        self, masks: list[MadeMask], background: int
    ) -> NDArray[np.integer[Any]]:
        each = [made.as_box_mask() for made in masks]
        return merge_masks(each, self._shape, background, background_inside=True).labels


def with_value(box: Box, values: Mapping[int, int]) -> Box:
    """Return a box with another class value, by that of before, or as it is."""
    return replace(box, class_value=values.get(box.class_value, box.class_value))


def _is_there(made: MadeMask) -> bool:
    """Tell whether any pixel of an accepted mask is still in its labels."""
    if made.labels is None or made.written is None:
        return False
    expected = made.written[made.written > 0]
    plane = read_label_plane(made.labels, PlaneKey(made.box.plane))
    there = plane[made.box.slices]
    # Of a mask without a pixel nothing can be gone.
    return not expected.size or bool((there[made.written > 0] == expected).any())
