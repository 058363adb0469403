"""Class tables and what is painted in label layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sparseseg.annotations.classes import (
    ClassTable,
    LabelClass,
    distinct_colors,
)
from napari_sparseseg.errors import ClassTableError, LayerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari.layers import Labels

    from napari_sparseseg.gui.mirror import PlaneChange


#: Classes are made for so many unknown values; more are numbers of objects.
MOST_NEW = 64


def values_of(labels: Labels) -> set[int]:
    """Return the values of a label layer but 0."""
    return set(np.unique(np.asarray(labels.data)).tolist()) - {0}


def values_in(changes: Iterable[PlaneChange]) -> set[int]:
    """Return the values but 0 where planes have changed."""
    values: set[int] = set()
    for change in changes:
        y0, x0, y1, x1 = change.region
        labels = np.load(change.path, mmap_mode="r")[y0:y1, x0:x1]
        values |= set(np.unique(labels).tolist())
    return values - {0}


def with_values(
    classes: ClassTable,
    values: set[int],
    deleted: Mapping[int, LabelClass] | None = None,
) -> ClassTable:
    """Return a table that has a class for each value.

    Parameters
    ----------
    classes
        The table.
    values
        Class values that are painted.
    deleted
        Classes as they were before they were deleted: undo brings their strokes back,
        and so the class.

    Raises
    ------
    ClassTableError
        If values are no class values, or rather numbers of objects.
    """
    unknown = values - set(classes.values)
    if not unknown:
        return classes
    if len(unknown) > MOST_NEW:
        raise ClassTableError(
            f"The labels have {len(unknown)} different values without a class, so "
            f"they seem to number objects, but at most {MOST_NEW} new classes are "
            "taken from labels; choose labels whose values are classes.",
            n_values=len(unknown),
        )
    ClassTable.from_values(unknown)  # refuses what is no class value
    colors = distinct_colors(len(unknown), [each.color for each in classes])
    new: list[LabelClass] = []
    for value, color in zip(sorted(unknown), colors, strict=True):
        before = (deleted or {}).get(value, LabelClass(value, f"class {value}", color))
        taken = {*classes.names, *(each.name for each in new)}
        new.append(replace(before, name=_free_name(before.name, taken), key=None))
    return ClassTable((*classes, *new), classes.retired - unknown)


def erase(labels: Labels, value: int) -> None:
    """Erase all strokes of a class; one undo brings them back.

    Raises
    ------
    LayerError
        If the layer cannot be changed.
    """
    try:
        place = np.nonzero(np.asarray(labels.data) == value)
        if place[0].size:
            labels.data_setitem(place, 0)
    except (ValueError, TypeError, OSError) as error:
        raise LayerError(
            f"The strokes in '{labels.name}' cannot be erased "
            f"({' '.join(str(error).split()).rstrip('.')}); copy them into a new label "
            "layer and use that one.",
            layer=labels.name,
        ) from error


def _free_name(name: str, taken: set[str]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free
