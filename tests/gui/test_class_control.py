"""Classes of labels that are opened join those that are painted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.gui.class_control import FIRST_CLASSES
from napari_sparseseg.gui.layer_keys import CLASSES_KEY

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from tests.gui.conftest import Table


def opened(classes: ClassTable, value: int) -> Labels:
    labels = np.zeros((16, 16), np.uint8)
    labels[2, 3:9] = value
    return Labels(labels, metadata={CLASSES_KEY: classes.to_json()})


def test_new_classes_of_opened_labels_keep_their_names(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.add_painted(1)
    table.wait_for_counts(qtbot, 1)
    labels = opened(FIRST_CLASSES.add("GTV-1", (9, 8, 7)), 3)
    table.controller.classes.adopt(labels)
    assert table.state.classes.names[-1] == "GTV-1"
    assert table.state.classes.by_value(3).color == (9, 8, 7)
    assert not told


def test_a_value_that_means_another_class_is_told(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.add_painted(1)
    table.wait_for_counts(qtbot, 1)
    table.controller.classes.adopt(opened(ClassTable().add("liver"), 1))
    assert "'background' here" in told[0]
    assert "'liver' there" in told[0]
    assert table.state.classes == FIRST_CLASSES
