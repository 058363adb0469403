"""What other programs call regions becomes classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_sparseseg.annotations.strokes import fit_labels
from napari_sparseseg.errors import LabelError, OptionError, enumerated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable, Color

Unknown = Literal["add", "refuse"]
"""What happens to names without a class: they become new classes, or an error."""

Overlap = Literal["smaller", "none", "refuse"]
"""What pixels in several classes get: the smaller region's, no label, or an error."""


class NamedClasses:
    """Gives names their class values; unknown names become classes, if that is wished.

    Parameters
    ----------
    classes
        Of the project.
    unknown
        What happens to other names.
    only
        The names that are wished; empty = all.

    Attributes
    ----------
    classes
        With those that were added.
    added
        Names of those.
    seen
        Names that were asked for.
    refuses
        Whether names without a class are an error.

    Raises
    ------
    OptionError
        If *unknown* is none of them.
    """

    def __init__(
        self, classes: ClassTable, unknown: Unknown = "add", only: Sequence[str] = ()
    ) -> None:
        if unknown not in get_args(Unknown):
            raise OptionError(
                f"unknown names are {unknown!r}; expected "
                f"{' or '.join(get_args(Unknown))}."
            )
        self.classes = classes
        self.added: list[str] = []
        self.seen: list[str] = []
        self.refuses = unknown == "refuse"
        self._only = tuple(only)

    def value(self, name: str, color: Color | None = None) -> int:
        """Return the class value of a name, 0 where it is not wished.

        Raises
        ------
        LabelError
            If it has no class and may not get one.
        """
        if name not in self.seen:
            self.seen.append(name)
        if self._only and name not in self._only:
            return 0
        if name not in self.classes.names:
            if self.refuses:
                raise LabelError(
                    f"'{name}' is no class of the table, which has "
                    f"{enumerated(self.classes.names)}; add it, or let unknown names "
                    "become classes.",
                    name=name,
                )
            self.classes = self.classes.add(name, color)
            self.added.append(name)
        return self.classes.by_name(name).value

    def check_found(self, what: str) -> None:
        """Raise OptionError if a name that is wished was not among those seen."""
        missing = [name for name in self._only if name not in self.seen]
        if missing:
            raise OptionError(
                f"{what} has no {enumerated(missing)}; it has {enumerated(self.seen)}."
            )

    @property
    def notes(self) -> list[str]:
        """What the user should know."""
        if not self.added:
            return []
        return [f"new in the class table: {enumerated(self.added)}."]


class LabelPainter:
    """Puts regions of classes on one label map, one after the other.

    Parameters
    ----------
    shape
        Of the label map.
    overlap
        What pixels get that are in regions of several classes.

    Attributes
    ----------
    labels
        uint16 of *shape*.
    """

    def __init__(self, shape: tuple[int, ...], overlap: Overlap) -> None:
        check_overlap(overlap)
        self.labels: NDArray[np.uint16] = np.zeros(shape, np.uint16)
        self._contested = np.zeros(shape, bool)
        self._sizes: dict[int, int] = {}
        self._overlap = overlap

    def paint(self, value: int, region: NDArray[np.bool_]) -> None:
        """Give the pixels of a region, bool of the shape of all, a class value.

        Where another class is it stays, if that has fewer pixels.
        """
        size = int(np.count_nonzero(region)) + self._sizes.get(value, 0)
        self._sizes[value] = size
        other = region & (self.labels != 0) & (self.labels != value)
        self._contested |= other
        smaller = [each for each, n in self._sizes.items() if n < size]
        self.labels[region & ~(other & np.isin(self.labels, smaller))] = value

    def finish(self, name: str) -> tuple[NDArray[Any], list[str]]:
        """Return the label map, and a sentence on pixels of several classes."""
        return settle_overlap(self.labels, self._contested, self._overlap, name)


def check_overlap(overlap: str) -> None:
    """Raise OptionError where a word is no `Overlap`."""
    if overlap not in get_args(Overlap):
        raise OptionError(
            f"pixels of several classes are {overlap!r}; expected "
            f"{' or '.join(get_args(Overlap))}."
        )


def settle_overlap(
    labels: NDArray[np.uint16],
    contested: NDArray[np.bool_],
    overlap: Overlap,
    name: str,
) -> tuple[NDArray[Any], list[str]]:
    """Treat the pixels of several classes as the user wishes.

    Parameters
    ----------
    labels
        In which the smaller regions lie on the larger.
    contested
        Which pixels are in several classes; of the same shape.
    overlap
        What they get.
    name
        What messages call the regions.

    Returns
    -------
    tuple
        The label map, uint8 or uint16, and sentences for the user.

    Raises
    ------
    LabelError
        If there are such pixels, and they are to be refused.
    """
    n = int(np.count_nonzero(contested))
    notes = []
    if n:
        values = enumerated(np.unique(labels[contested]).tolist())
        what = (
            f"{name} has {n} {'pixel' if n == 1 else 'pixels'} in more than one class"
        )
        if overlap == "refuse":
            raise LabelError(
                f"{what} (on top are the values {values}), but a pixel can have one "
                "label; leave regions out, or let the smaller lie on the larger.",
                pixels=n,
            )
        if overlap == "none":
            labels[contested] = 0
            notes.append(f"{what}; they are not annotated.")
        else:
            notes.append(f"{what}; they got the smaller region's.")
    return fit_labels(labels, int(labels.max(initial=0))), notes


def check_any(labels: NDArray[Any], name: str, values: Iterable[int]) -> None:
    """Raise LabelError where regions of classes left no label on the image."""
    if any(values) and not labels.any():
        raise LabelError(
            f"{name} has regions, but none of them is within the image; give the image "
            "they were drawn on.",
            name=name,
        )
