"""Class tables follow what is painted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.layers import Labels

from napari_sparseseg.annotations.classes import ClassTable, LabelClass
from napari_sparseseg.errors import ClassTableError, LayerError
from napari_sparseseg.gui.mirror import PlaneChange
from napari_sparseseg.gui.painted_classes import (
    MOST_NEW,
    erase,
    values_in,
    values_of,
    with_values,
)
from napari_sparseseg.gui.planes import PlaneKey

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ClassTable().add("gland", (200, 0, 0)).add("stroma", (0, 200, 0))


def painted() -> Labels:
    data = np.zeros((8, 8), np.uint8)
    data[1], data[3], data[5, 2] = 1, 2, 7
    return Labels(data)


def test_values_of_a_layer_and_of_changes(tmp_path: Path) -> None:
    assert values_of(painted()) == {1, 2, 7}
    np.save(tmp_path / "a.npy", painted().data)
    change = PlaneChange(PlaneKey(), (3, 0, 6, 8), tmp_path / "a.npy")
    other = PlaneChange(PlaneKey(), (0, 0, 1, 8), tmp_path / "a.npy")
    assert values_in([change]) == {2, 7}
    assert values_in([other]) == set()
    assert values_in([other, change]) == {2, 7}


def test_known_values_change_nothing() -> None:
    assert with_values(CLASSES, {1, 2}) is CLASSES
    assert with_values(CLASSES, set()) is CLASSES


def test_unknown_values_get_classes_of_other_colours() -> None:
    table = with_values(CLASSES, {2, 9, 4})
    assert table.values == (1, 2, 4, 9)
    assert table.names == ("gland", "stroma", "class 4", "class 9")
    assert len({each.color for each in table}) == 4


def test_names_that_are_taken_get_a_number() -> None:
    table = with_values(CLASSES.renamed(1, "class 7"), {7})
    assert table.by_value(7).name == "class 7 (2)"


def test_a_deleted_class_comes_back_as_it_was() -> None:
    gone = LabelClass(2, "stroma", (1, 2, 3))
    table = with_values(CLASSES.removed(2), {2}, {2: gone})
    assert table.by_value(2) == gone
    assert not table.retired
    taken = with_values(CLASSES.removed(2).renamed(1, "stroma"), {2}, {2: gone})
    assert taken.by_value(2).name == "stroma (2)"


@pytest.mark.parametrize(
    ("values", "words"),
    [({-1}, "-1"), ({70_000}, "70000"), ({*range(1, MOST_NEW + 4)}, "number objects")],
)
def test_values_that_are_no_classes_are_refused(values: set[int], words: str) -> None:
    with pytest.raises(ClassTableError, match=words):
        with_values(CLASSES, values)


def test_erasing_takes_one_undo() -> None:
    labels = painted()
    before = labels.data.copy()
    erase(labels, 2)
    np.testing.assert_array_equal(labels.data, np.where(before == 2, 0, before))
    erase(labels, 3)
    labels.undo()
    np.testing.assert_array_equal(labels.data, before)


def test_labels_that_cannot_be_changed_are_named() -> None:
    labels = painted()
    labels.data.flags.writeable = False
    with pytest.raises(LayerError, match="cannot be erased"):
        erase(labels, 2)
