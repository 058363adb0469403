"""File > Save Selected Layers keeps values and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from PIL import Image

from napari_sparseseg.annotations.classes import ClassTable, read_class_table
from napari_sparseseg.errors import ClassTableError, OutputError
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.writers import write_single_labels

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ClassTable().add("nucleus").add("stroma")


def labels(*shape: int, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 3, shape).astype(dtype)


def save(layer: Labels, path: Path) -> list[str]:
    """Save as napari does."""
    data, meta, _ = layer.as_layer_data_tuple()
    return write_single_labels(str(path), data, meta)


def test_classes_come_from_the_metadata(tmp_path: Path) -> None:
    data = labels(20, 30)
    layer = Labels(data, metadata={CLASSES_KEY: CLASSES.to_json()})
    written = save(layer, tmp_path / "a.png")
    assert written == [str(tmp_path / "a.png"), str(tmp_path / "a.classes.json")]
    with Image.open(written[0]) as image:
        np.testing.assert_array_equal(np.array(image), data)
    assert read_class_table(written[1]) == CLASSES


def test_layers_without_classes_get_them_from_their_values(tmp_path: Path) -> None:
    data = labels(3, 20, 30) * 7
    written = save(Labels(data), tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(written[0]), data)
    assert read_class_table(written[1]).values == (7, 14)


def test_the_finest_level_is_written(tmp_path: Path) -> None:
    data = labels(40, 40)
    layer = Labels([data, data[::2, ::2]], multiscale=True)
    written = save(layer, tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(written[0]), data)


def test_the_class_table_of_other_labels_is_kept(tmp_path: Path) -> None:
    layer = Labels(labels(20, 30), metadata={CLASSES_KEY: CLASSES.to_json()})
    save(layer, tmp_path / "a.tif")
    with pytest.raises(OutputError, match=r"a\.classes\.json has other classes"):
        save(Labels(labels(20, 30)), tmp_path / "a.png")
    assert read_class_table(tmp_path / "a.classes.json") == CLASSES


def test_damaged_metadata_and_other_formats_are_refused(tmp_path: Path) -> None:
    layer = Labels(labels(4, 5), metadata={CLASSES_KEY: {"what": 1}})
    with pytest.raises(ClassTableError):
        save(layer, tmp_path / "a.png")
    with pytest.raises(OutputError, match=r"a\.jpg"):
        save(Labels(labels(4, 5)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []
