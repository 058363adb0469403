"""Samples open as layers that belong together, with their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Layer

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.gui import sample_data
from napari_sparseseg.gui.boxes_layer import read_boxes
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.planes import check_pair, um_per_px
from napari_sparseseg.samples import (
    abdomen_phantom,
    immunohistochemistry,
    tissue_phantom,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sparseseg.samples import Sample


@pytest.mark.parametrize(
    ("opened", "sample", "names"),
    [
        (
            sample_data.open_immunohistochemistry,
            immunohistochemistry,
            ["tissue", "tissue strokes"],
        ),
        (
            sample_data.open_tissue_phantom,
            tissue_phantom,
            ["phantom", "phantom strokes", "phantom truth"],
        ),
    ],
)
def test_layers_fit_each_other(
    opened: Callable[[], list[Any]], sample: Callable[[], Sample], names: list[str]
) -> None:
    image, strokes, *truth = [Layer.create(*each) for each in opened()]
    expected = sample()
    assert [each.name for each in (image, strokes, *truth)] == names
    np.testing.assert_array_equal(image.data, expected.image)
    np.testing.assert_array_equal(strokes.data, expected.labels)
    assert check_pair(image, strokes) == 0
    assert um_per_px(image) == expected.um_per_px
    assert ClassTable.from_json(strokes.metadata[CLASSES_KEY]) == expected.classes
    for each in expected.classes:
        color = np.array(each.color) / 255
        np.testing.assert_allclose(strokes.get_color(each.value)[:3], color, atol=1e-6)
    assert strokes.opacity == 1
    if truth:
        np.testing.assert_array_equal(truth[0].data, expected.truth)
        assert not truth[0].visible


def test_painting_on_a_sample_leaves_the_sample_alone() -> None:
    sample = tissue_phantom(0, (128, 128))
    before = sample.labels.copy()
    _, (labels, _, _), _ = sample_data.layer_data(sample, "phantom")
    labels[:] = 1
    np.testing.assert_array_equal(sample.labels, before)


def test_a_ct_slice_opens_with_its_boxes() -> None:
    image, boxes = [Layer.create(*each) for each in sample_data.open_abdomen_phantom()]
    expected = abdomen_phantom()
    assert [image.name, boxes.name] == ["CT slice", "CT slice boxes"]
    np.testing.assert_array_equal(image.data, expected.image)
    # Soft tissue: 40 -+ 400 / 2 HU.
    assert image.contrast_limits == [-160, 240]
    assert um_per_px(image) == expected.um_per_px
    classes = ClassTable.from_json(boxes.metadata[CLASSES_KEY])
    assert classes == expected.classes
    drawn = read_boxes(boxes, image, classes)
    assert [each.box for each in drawn] == list(expected.boxes)
    assert not any(each.encloses for each in drawn)
    colors = [classes.by_value(box.class_value).color for box in expected.boxes]
    np.testing.assert_allclose(boxes.edge_color[:, :3], np.array(colors) / 255)
