"""What masks have written into a label layer, and how that is taken back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import LayerError
from napari_sparseseg.gui.planes import PlaneKey, read_label_plane

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box

    Plane = tuple[int, ...]

#: So many changed pixels at most enter the history of a layer, which keeps about 20
#: bytes of each, and takes seconds for more.
MOST_IN_HISTORY = 4_000_000


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of labels on a plane.

    Attributes
    ----------
    plane
        Its index on each axis before y and x.
    slices
        Where on it: height h and width w.
    before, after
        (h, w) values; pixels where both are alike are not changed.
    """

    plane: Plane
    slices: tuple[slice, slice]
    before: NDArray[Any]
    after: NDArray[Any]

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(h, w) bool: which pixels are changed."""
        changed: NDArray[np.bool_] = self.before != self.after
        return changed

    def left(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which of (y, x) labels are still as they were changed: (h, w) bool."""
        left: NDArray[np.bool_] = labels[self.slices] == self.after
        return left & self.changed

    def is_left(self, labels: NDArray[Any]) -> bool:
        """Tell whether any is; of a change of nothing, nothing can be gone."""
        here = labels[self.slices]
        if here.shape != self.after.shape:
            return False
        # Row by row, since mostly the first tells.
        rows = zip(here, self.before, self.after, strict=True)
        if any(((old != new) & (now == new)).any() for now, old, new in rows):
            return True
        return not self.changed.any()

    def take_back(self, labels: NDArray[Any]) -> None:
        """Give what is left of it in (y, x) labels the values of before."""
        left = self.left(labels)
        labels[self.slices][left] = self.before[left]


class WrittenLabels:
    """A label layer that masks are written into.

    Parameters
    ----------
    labels
        The layer, pixel by pixel on the planes of the boxes.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._edits: dict[Box | None, list[Edit]] = {}

    def plane(self, plane: Plane) -> NDArray[Any]:
        """Return (y, x) the labels of a plane; of an array in memory it is a view."""
        return read_label_plane(self.labels, PlaneKey(plane))

    def note(self, box: Box | None, edit: Edit) -> None:
        """Remember what the mask of a box has written; None: what lies outside."""
        self._edits.setdefault(box, []).append(edit)

    def use_values(self, values: Mapping[int, int]) -> None:
        """Know boxes by other class values, by those of before."""
        self._edits = {
            None if box is None else with_value(box, values): edits
            for box, edits in self._edits.items()
        }

    def has(self, box: Box) -> bool:
        """Tell whether any pixel of a box's mask is there, as far as is remembered."""
        return bool(self._edits.get(box))

    def is_left(self, edit: Edit) -> bool:
        """Tell whether any pixel is as it was changed; not so in another array."""
        try:
            return edit.is_left(self.plane(edit.plane))
        except LayerError:
            return False

    def forget_gone(self) -> None:
        """Forget what was erased, painted over or undone altogether."""
        for box, edits in list(self._edits.items()):
            left = [each for each in edits if self.is_left(each)]
            self._edits[box] = left
            if not left:
                del self._edits[box]

    def without(self, boxes: Iterable[Box], plane: Plane) -> NDArray[Any]:
        """Return (y, x) the labels of a plane as if masks had never been written."""
        labels = np.array(self.plane(plane))
        for box in boxes:
            for edit in reversed(self._edits.get(box, [])):
                edit.take_back(labels)
        return labels

    def painted(self, plane: Plane) -> NDArray[np.bool_]:
        """Tell which pixels have values that are of no mask: (y, x) bool."""
        labels = self.plane(plane)
        painted: NDArray[np.bool_] = labels != 0
        for edits in self._edits.values():
            for edit in edits:
                if edit.plane == plane:
                    painted[edit.slices] &= ~edit.left(labels)
        return painted

    def change(self, planes: Mapping[Plane, NDArray[Any]]) -> list[Edit]:
        """Give planes other values.

        Up to `MOST_IN_HISTORY` pixels are a step of the layer's own history.

        Parameters
        ----------
        planes
            (y, x) labels, by the index of the plane.

        Returns
        -------
        list of Edit
            What that has changed.

        Raises
        ------
        LayerError
            If the layer cannot be read or changed.
        """
        found = [
            _difference(plane, self.plane(plane), after)
            for plane, after in planes.items()
        ]
        edits = [edit for edit in found if edit is not None]
        try:
            self._put(edits)
        except (ValueError, TypeError, OSError) as error:
            raise LayerError(
                f"Nothing can be written into '{self.labels.name}' "
                f"({' '.join(str(error).split()).rstrip('.')}); press New labels.",
                layer=self.labels.name,
            ) from error
        return edits

    def take_back(self, edits: Sequence[Edit]) -> bool:
        """Take changes back where they are left; tell whether they were anywhere."""
        planes: dict[Plane, NDArray[Any]] = {}
        for edit in reversed(edits):
            if edit.plane not in planes:
                planes[edit.plane] = np.array(self.plane(edit.plane))
            edit.take_back(planes[edit.plane])
        return bool(self.change(planes))

    def _put(self, edits: list[Edit]) -> None:
        if not edits:
            return
        changed = [edit.changed for edit in edits]
        if sum(map(np.count_nonzero, changed)) > MOST_IN_HISTORY:
            for edit in edits:
                self.labels.data[(*edit.plane, *edit.slices)] = edit.after
            self.labels.refresh()
            return
        places, values = [], []
        for edit, where in zip(edits, changed, strict=True):
            y, x = np.nonzero(where)
            rows = [np.full(len(y), index) for index in edit.plane]
            y0, x0 = (part.start for part in edit.slices)
            places.append(np.stack([*rows, y + y0, x + x0]))
            values.append(edit.after[where])
        where_all = tuple(np.concatenate(places, axis=1))
        self.labels.data_setitem(where_all, np.concatenate(values))


def with_value(box: Box, values: Mapping[int, int]) -> Box:
    """Return a box with another class value, by that of before, or as it is."""
    return replace(box, class_value=values.get(box.class_value, box.class_value))


def _difference(plane: Plane, before: NDArray[Any], after: NDArray[Any]) -> Edit | None:
    """Return where (y, x) labels differ, cut to that; None where they do not."""
    changed = before != after
    rows = np.flatnonzero(changed.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(changed.any(axis=0))
    slices = (
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )
    return Edit(plane, slices, before[slices].copy(), after[slices].copy())
