"""CT slices with boxes and truth, read from the folder of ``SPARSESEG_DATA``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._learn_data import DENSE, read_pairs
from napari_sparseseg.annotations.boxes import Box, read_boxes
from napari_sparseseg.annotations.classes import (
    ClassTable,
    LabelClass,
    read_class_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

#: Centre and width in HU: that of soft tissue.
WINDOW = (40.0, 400.0)

#: Working pixels per image pixel at which the slices have about 256 x 256 pixels.
SCALES = {"ircadb": 0.5, "sts": 1.0}

#: What has no boxes is one class.
BACKGROUND = 1


@dataclass(frozen=True, eq=False)
class BoxData:
    """A part of a set in memory.

    Attributes
    ----------
    images
        (y, x) HU by name.
    truth
        (y, x) class values: of the classes that have boxes, else ``BACKGROUND``.
    boxes
        Of each image; empty for test slices.
    classes
        Background and the classes that have boxes.
    """

    images: Arrays
    truth: Arrays
    boxes: dict[str, list[Box]]
    classes: ClassTable


def read_train(folder: Path, slices: int | None = None) -> BoxData:
    """Read the slices with boxes, or so many of them, evenly spaced.

    Raises
    ------
    SparseSegError
        If the set is not there or a file of it cannot be read.
    """
    table = boxed_classes(folder)
    images, truth = read_pairs(folder / "train", DENSE)
    chosen = list(images)
    if slices is not None and slices < len(chosen):
        places = np.linspace(0, len(chosen) - 1, slices).round().astype(int)
        chosen = [chosen[place] for place in places]
    files = {name: folder / "train" / "boxes" / f"{name}.json" for name in chosen}
    return BoxData(
        {name: images[name] for name in chosen},
        merged({name: truth[name] for name in chosen}, table),
        {name: read_boxes(file) for name, file in files.items()},
        table,
    )


def read_test(folder: Path) -> BoxData:
    """Read the test slices, which need no boxes."""
    table = boxed_classes(folder)
    images, truth = read_pairs(folder / "test", DENSE)
    return BoxData(images, merged(truth, table), {}, table)


def boxed_classes(folder: Path) -> ClassTable:
    """Give background and the classes of all boxes of a set."""
    files = sorted((folder / "train" / "boxes").glob("*.json"))
    drawn = {box.class_value for file in files for box in read_boxes(file)}
    of_set = read_class_table(folder / "classes.json")
    background = LabelClass(BACKGROUND, "background", (0, 0, 0))
    boxed = (each for each in of_set if each.value in drawn)
    return ClassTable((background, *boxed))


def merged(truth: Mapping[str, NDArray[Any]], table: ClassTable) -> Arrays:
    """Call all annotated pixels of classes that are not in a table background."""
    return {
        name: np.where(
            np.isin(labels, table.values), labels, np.where(labels == 0, 0, BACKGROUND)
        ).astype(labels.dtype)
        for name, labels in truth.items()
    }


def write_masks(path: Path, labels: Mapping[str, Any]) -> None:
    """Write label maps by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **labels)


def read_masks(path: Path) -> Arrays:
    """Read label maps by name."""
    with np.load(path) as stored:
        return dict(stored)
