"""Exported labels are read back by other programs with the same values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_sparseseg.annotations.classes import ClassTable, read_class_table
from napari_sparseseg.errors import LabelError, OutputError
from napari_sparseseg.io.export import export_labels

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ClassTable().add("nucleus", (255, 0, 0)).add("stroma", (0, 128, 255))
MANY = ClassTable.from_values(range(1, 301))


def labels(*shape: int, highest: int = 2, dtype: Any = np.uint8) -> Any:
    values = np.random.default_rng(0).integers(0, highest + 1, shape).astype(dtype)
    values.flat[0] = highest
    return values


def test_a_png_has_the_values_as_indices_and_the_colours_as_palette(
    tmp_path: Path,
) -> None:
    data = labels(20, 30)
    export = export_labels(data, tmp_path / "a.png", CLASSES)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), data)
        colors = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(
        colors[data == 2], np.broadcast_to((0, 128, 255), (int((data == 2).sum()), 3))
    )
    assert export.paths == (tmp_path / "a.png", tmp_path / "a.classes.json")
    assert read_class_table(export.paths[1]) == CLASSES
    assert export.note == ""


def test_a_png_of_more_than_255_classes_is_16_bit_grey_and_says_so(
    tmp_path: Path,
) -> None:
    data = labels(20, 30, highest=300, dtype=np.uint16)
    export = export_labels(data, tmp_path / "a.PNG", MANY)
    with Image.open(tmp_path / "a.PNG") as image:
        np.testing.assert_array_equal(np.array(image), data)
    assert "a.PNG is in 16 bits of grey" in export.note


@pytest.mark.parametrize("shape", [(20, 30), (4, 20, 30), (2, 4, 20, 30), (3, 20, 3)])
@pytest.mark.parametrize("highest", [2, 300])
def test_a_tiff_has_the_values_of_planes_and_stacks(
    tmp_path: Path, shape: tuple[int, ...], highest: int
) -> None:
    data = labels(*shape, highest=highest, dtype=np.int64)
    file = tmp_path / "a.tif"
    export_labels(data, file, MANY)
    stored = tifffile.imread(file)
    assert stored.dtype == (np.uint8 if highest < 256 else np.uint16)
    np.testing.assert_array_equal(stored, data)
    assert read_class_table(tmp_path / "a.classes.json") == MANY


def test_axes_of_a_stack_are_named(tmp_path: Path) -> None:
    export_labels(labels(4, 20, 30), tmp_path / "a.tif", CLASSES)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.series[0].axes == "ZYX"


@pytest.mark.parametrize(
    ("data", "name", "error", "sentence"),
    [
        (labels(4, 5), "a.jpg", OutputError, "cannot be exported as a.jpg"),
        (labels(4, 5), "a", OutputError, "give it one of the suffixes .png"),
        (labels(3, 4, 5), "a.png", OutputError, "A PNG file holds one plane"),
        (labels(4, 5, highest=3), "a.png", LabelError, "not in the class table: 3"),
        (labels(3, 4, 5, highest=3), "a.tif", LabelError, "not in the class table"),
        (np.full((4, 5), 70000), "a.tif", LabelError, "outside 0..65535"),
        (np.full((4, 5), -1), "a.tif", LabelError, "outside 0..65535"),
        (np.zeros((4, 5)), "a.tif", LabelError, "pixels of type float64"),
        (labels(9), "a.tif", LabelError, r"have shape \(9,\)"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, data: Any, name: str, error: type[Exception], sentence: str
) -> None:
    (tmp_path / name).write_text("from before")
    with pytest.raises(error, match=sentence):
        export_labels(data, tmp_path / name, CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "from before"


class TestTablesThatExist:
    """The class table of other labels is not lost."""

    OTHER = ClassTable().add("gland").add("fat")

    def annotate(self, folder: Path, name: str = "case.tif") -> None:
        export_labels(labels(4, 5), folder / name, self.OTHER)

    @pytest.mark.parametrize("exists", [True, False])
    def test_of_other_labels_is_kept(self, tmp_path: Path, exists: bool) -> None:
        self.annotate(tmp_path)
        if exists:
            (tmp_path / "case.png").write_text("from before")
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        words = r"case\.classes\.json has other classes, and is of case\.tif too"
        with pytest.raises(OutputError, match=words):
            export_labels(labels(4, 5), tmp_path / "case.png", CLASSES)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("text", [json.dumps(OTHER.to_json()), "no JSON"])
    def test_that_was_there_alone_is_kept(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "case.classes.json").write_text(text)
        (tmp_path / "case.jpg").touch()
        with pytest.raises(OutputError, match="has other classes; give the file"):
            export_labels(labels(3, 4, 5), tmp_path / "case.tif", CLASSES)
        assert (tmp_path / "case.classes.json").read_text() == text

    @pytest.mark.parametrize("more", [(), ("vessel",)])
    def test_is_written_where_all_its_classes_stay(
        self, tmp_path: Path, more: tuple[str, ...]
    ) -> None:
        self.annotate(tmp_path)
        classes = self.OTHER
        for name in more:
            classes = classes.add(name)
        export_labels(labels(4, 5), tmp_path / "case.png", classes)
        assert read_class_table(tmp_path / "case.classes.json") == classes

    def test_of_the_same_labels_is_replaced(self, tmp_path: Path) -> None:
        self.annotate(tmp_path, "other.tif")
        self.annotate(tmp_path)
        export_labels(labels(4, 5), tmp_path / "case.tif", CLASSES)
        assert read_class_table(tmp_path / "case.classes.json") == CLASSES
        assert read_class_table(tmp_path / "other.classes.json") == self.OTHER


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="its folder does not exist"):
        export_labels(labels(3, 4, 5), tmp_path / "no" / "a.tif", CLASSES)
