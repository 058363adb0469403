"""Class tables: their rules, their files, and what they do to label maps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_sparseseg.annotations import (
    ClassTable,
    LabelClass,
    find_class_table,
    label_map_from_colors,
    read_class_table,
    write_class_table,
)
from napari_sparseseg.errors import ClassTableError, LabelError, OutputError

BLACK, GREEN, RED = (0, 0, 0), (0, 255, 0), (255, 0, 0)
BACKGROUND = LabelClass(1, "background", BLACK)
STROMA = LabelClass(4, "stroma", GREEN, key="s")
CANCER = LabelClass(300, "cancer", RED)
TABLE = ClassTable((CANCER, BACKGROUND, STROMA), retired=frozenset({2}))
DATA: dict[str, Any] = {
    "unlabelled": 0,
    "classes": [
        {"value": 1, "name": "background", "color": [0, 0, 0]},
        {"value": 4, "name": "stroma", "color": [0, 255, 0], "key": "s"},
        {"value": 300, "name": "cancer", "color": [255, 0, 0]},
    ],
    "retired": [2],
}


def test_classes_stand_in_ascending_order_of_value() -> None:
    assert TABLE.values == (1, 4, 300)
    assert TABLE.names == ("background", "stroma", "cancer")
    assert list(TABLE) == [BACKGROUND, STROMA, CANCER]
    assert len(TABLE) == 3


def test_a_class_is_found_by_value_and_by_name() -> None:
    assert TABLE.by_value(300) is TABLE.by_name("cancer") is CANCER
    with pytest.raises(ClassTableError, match=r"no class of value 5.*1, 4, 300"):
        TABLE.by_value(5)
    with pytest.raises(ClassTableError, match=r"no class 'liver'.*background, stroma"):
        TABLE.by_name("liver")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelClass(0, "a", BLACK), "0 cannot be a class value"),
        (lambda: LabelClass(65536, "a", BLACK), "65536 cannot be a class value"),
        (lambda: LabelClass(True, "a", BLACK), "True cannot be a class value"),
        (lambda: LabelClass(1, " ", BLACK), "Class 1 has the name ' '"),
        (lambda: LabelClass(1, "a", (0, 0, 256)), r"'a' is \(0, 0, 256\)"),
        (lambda: LabelClass(1, "a", (0, 0, -1)), r"'a' is \(0, 0, -1\)"),
        (lambda: LabelClass(1, "a", BLACK, key=""), "'a' has the key ''"),
        (
            lambda: ClassTable((BACKGROUND, LabelClass(1, "b", RED))),
            "value 1 belongs to more than one class",
        ),
        (
            lambda: ClassTable((BACKGROUND, LabelClass(2, "background", RED))),
            "name 'background' belongs to more than one class",
        ),
        (
            lambda: ClassTable((STROMA, LabelClass(2, "b", RED, key="s"))),
            "key 's' belongs to more than one class",
        ),
        (
            lambda: ClassTable((BACKGROUND,), frozenset({1})),
            "value 1 belongs to a class that was removed",
        ),
    ],
)
def test_what_breaks_the_rules_is_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ClassTableError, match=message):
        make()


def test_numpy_numbers_become_python_numbers() -> None:
    value = np.uint16(7)
    each = LabelClass(value, "a", (np.uint8(1), np.uint8(2), np.uint8(3)))  # type: ignore[arg-type]
    assert json.loads(json.dumps(ClassTable((each,)).to_json()))["classes"] == [
        {"value": 7, "name": "a", "color": [1, 2, 3]}
    ]


def test_a_new_class_never_gets_a_value_that_was_used() -> None:
    table = ClassTable().add("a").add("b").add("c")
    assert table.values == (1, 2, 3)
    table = table.removed(3).removed(1)
    assert table.retired == {1, 3}
    assert table.add("d").values == (2, 4)


def test_a_class_cannot_be_added_after_the_largest_value() -> None:
    full = ClassTable((LabelClass(65535, "last", RED),))
    with pytest.raises(ClassTableError, match="'one more' cannot be added"):
        full.add("one more")


def test_renaming_and_recoloring_keep_everything_else() -> None:
    changed = TABLE.renamed(4, "muscle").recolored(4, RED)
    assert changed.by_value(4) == LabelClass(4, "muscle", RED, key="s")
    assert changed.retired == TABLE.retired
    assert changed.removed(4) == TABLE.removed(4)
    with pytest.raises(ClassTableError, match="name 'cancer' belongs to more than one"):
        TABLE.renamed(4, "cancer")


def test_default_colors_can_be_told_apart() -> None:
    table = ClassTable((BACKGROUND,))
    for index in range(24):
        table = table.add(f"tissue {index}")
    colors = np.array([each.color for each in table], float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert distances[~np.eye(len(colors), dtype=bool)].min() > 50


def test_a_table_is_made_for_values_that_have_none() -> None:
    table = ClassTable.from_values(np.array([300, 0, 2, 2]))
    assert table.values == (2, 300)
    assert table.names == ("class 2", "class 300")
    assert len({each.color for each in table}) == 2
    assert ClassTable.from_values([]) == ClassTable()


def test_json_data_has_the_documented_form_and_comes_back() -> None:
    assert TABLE.to_json() == DATA
    assert ClassTable.from_json(DATA) == TABLE


def changed(**changes: object) -> dict[str, Any]:
    return {**DATA, **changes}


def class_changed(**changes: object) -> dict[str, Any]:
    return changed(classes=[{**DATA["classes"][0], **changes}])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], r"is \[\], but it must be an object"),
        ({"unlabelled": 0}, 'missing keys: "classes"'),
        (changed(colour=1, size=2), 'unknown keys: "colour", "size"'),
        (changed(classes={}), '"classes" of the class table is {}'),
        (changed(unlabelled=255), "255 means not annotated, but that is always 0"),
        (changed(retired=3), '"retired" of the class table is 3'),
        (changed(retired=["3"]), "'3' cannot be a class value"),
        (class_changed(opacity=1), 'unknown keys: "opacity"'),
        (changed(classes=[{"value": 1, "name": "a"}]), 'missing keys: "color"'),
        (class_changed(value="1"), "'1' cannot be a class value"),
        (class_changed(value=1.0), "1.0 cannot be a class value"),
        (class_changed(name=None), "has the name None"),
        (class_changed(color="#ff0000"), "'background' is '#ff0000'"),
        (class_changed(color=[0, 0]), r"'background' is \[0, 0\]"),
        (class_changed(color=[0, 0, 0.5]), r"'background' is \[0, 0, 0.5\]"),
    ],
)
def test_json_data_of_another_form_is_refused_by_name(
    data: object, message: str
) -> None:
    with pytest.raises(ClassTableError, match=message):
        ClassTable.from_json(data)


def test_a_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    table = TABLE.add("Gefäß, 2 µm")
    write_class_table(path, table)
    assert read_class_table(path) == table
    assert json.loads(path.read_text(encoding="utf-8")) == table.to_json()
    assert list(tmp_path.iterdir()) == [path]


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(DATA), encoding="utf-8-sig")
    assert read_class_table(path) == TABLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "classes.json is not a JSON file"),
        (b"\xff\xfe\x00", "classes.json is not a JSON file"),
        (b"[" * 100_000, "classes.json is not a JSON file"),
        (b"{}", 'classes.json: .*missing keys: "classes"'),
        (None, "classes.json cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_class_table_is_refused_with_its_name(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "classes.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClassTableError, match=message):
        read_class_table(path)


def test_a_file_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="its folder does not exist"):
        write_class_table(tmp_path / "none" / "classes.json", TABLE)


def test_the_table_of_a_label_map_is_found_beside_it(tmp_path: Path) -> None:
    label_path = tmp_path / "case_1.5mm.PNG"
    assert find_class_table(label_path) is None
    folder_table = ClassTable((BACKGROUND,))
    write_class_table(tmp_path / "classes.json", folder_table)
    assert find_class_table(label_path) == folder_table
    write_class_table(tmp_path / "case_1.5mm.classes.json", TABLE)
    assert find_class_table(label_path) == TABLE


@pytest.mark.parametrize("name", ["adp", "glas", "ircadb", "sts"])
def test_real_tables_are_read_and_given_back(data_dir: Path, name: str) -> None:
    path = data_dir / name / "classes.json"
    table = read_class_table(path)
    assert table.to_json() == json.loads(path.read_text(encoding="utf-8"))
    assert table.values == tuple(range(1, len(table) + 1))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "i8", ">u2"])
def test_values_become_channels_in_ascending_order(dtype: str) -> None:
    table = TABLE if np.dtype(dtype).itemsize > 1 else TABLE.removed(300)
    label_map = np.array([[0, *table.values], [4, 4, 0, 1, 1][: len(table) + 1]], dtype)
    channels = table.to_channels(label_map)
    position = {0: 0} | {value: k + 1 for k, value in enumerate(table.values)}
    assert channels.dtype == np.int64
    assert channels.tolist() == [[position[v] for v in row] for row in label_map]
    annotated = label_map != 0
    back = table.from_channels(channels[annotated] - 1)
    np.testing.assert_array_equal(back, label_map[annotated])


@pytest.mark.parametrize(
    ("table", "dtype"), [(TABLE, np.uint16), (TABLE.removed(300), np.uint8)]
)
def test_predictions_are_as_wide_as_the_table_needs(
    table: ClassTable, dtype: type[np.generic]
) -> None:
    values = table.from_channels(np.array([[0, 1]]))
    assert values.dtype == dtype
    assert values.tolist() == [[1, 4]]


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([[0, 3]], "from 0 to 3, but the class table has 3 classes"),
        ([[-1, 0]], "from -1 to 0, but the class table has 3 classes"),
        ([[0.0, 1.0]], "type float64"),
    ],
)
def test_numbers_that_are_no_channels_are_refused(
    channels: list[list[float]], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        TABLE.from_channels(np.array(channels))


@pytest.mark.parametrize("check", [TABLE.check_values, TABLE.to_channels])
def test_values_without_class_are_named_with_their_pixels(
    check: Callable[[Any], object],
) -> None:
    with pytest.raises(LabelError, match="not in the class table") as error:
        check(np.array([[0, 1, 4], [5, 2, 5]]))
    assert "5 in 2 pixels, 2 in 1 pixel;" in str(error.value)
    assert error.value.values["counts"] == {5: 2, 2: 1}


def test_values_that_all_have_a_class_pass() -> None:
    TABLE.check_values(np.array([[0, 1, 4, 300]]))
    TABLE.check_values(np.zeros((2, 2), np.uint8))


MASK = np.array([[BLACK, GREEN], [RED, RED]], np.uint8)


def test_colors_become_class_values() -> None:
    labels = label_map_from_colors(MASK, TABLE)
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[1, 4], [300, 300]]


def test_one_color_may_mean_not_annotated() -> None:
    table = ClassTable((STROMA, LabelClass(2, "cancer", RED)))
    labels = label_map_from_colors(MASK, table, unlabelled=BLACK)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 4], [2, 2]]


def test_transparent_pixels_are_not_annotated() -> None:
    alpha = np.array([[0, 255], [0, 1]], np.uint8)
    strange = MASK.copy()
    strange[0, 0] = 77
    labels = label_map_from_colors(np.dstack([strange, alpha]), TABLE)
    assert labels.tolist() == [[0, 4], [0, 300]]


def test_unknown_colors_are_named_with_their_pixels() -> None:
    mask = np.zeros((3, 4, 3), np.uint8)
    mask[0] = 1, 2, 3
    mask[1, 1] = 255, 255, 254
    with pytest.raises(LabelError) as error:
        label_map_from_colors(mask, TABLE)
    assert "(1, 2, 3) in 4 pixels, (255, 255, 254) in 1 pixel;" in str(error.value)
    assert error.value.values["counts"] == {(1, 2, 3): 4, (255, 255, 254): 1}


def test_many_unknown_colors_stay_one_readable_sentence() -> None:
    mask = np.random.default_rng(0).integers(1, 255, (64, 64, 3), np.uint8)
    with pytest.raises(LabelError, match=r"and \d{4} more; ") as error:
        label_map_from_colors(mask, TABLE)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("mask", "table", "unlabelled", "error", "message"),
    [
        (MASK[..., 0], TABLE, None, LabelError, r"shape \(2, 2\)"),
        (MASK / 255, TABLE, None, LabelError, "type float64"),
        (MASK, ClassTable(), None, ClassTableError, "has no class"),
        (MASK, TABLE.recolored(1, RED), None, ClassTableError, r"\(255, 0, 0\) stands"),
        (MASK, TABLE, RED, ClassTableError, r"\(255, 0, 0\) stands for"),
    ],
)
def test_masks_and_tables_that_say_nothing_definite_are_refused(
    mask: Any, table: ClassTable, unlabelled: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        label_map_from_colors(mask, table, unlabelled=unlabelled)


def test_a_real_label_map_survives_being_coloured(data_dir: Path) -> None:
    from PIL import Image

    table = read_class_table(data_dir / "adp" / "classes.json")
    file = sorted((data_dir / "adp" / "train" / "strokes_2.5pct").glob("*.png"))[0]
    labels = np.array(Image.open(file))
    colors = np.array([(9, 9, 9), *(each.color for each in table)], np.uint8)
    restored = label_map_from_colors(colors[labels], table, unlabelled=(9, 9, 9))
    np.testing.assert_array_equal(restored, labels)


class TestMerging:
    def test_adds_what_is_lacking(self) -> None:
        here = ClassTable(
            (LabelClass(1, "a", (1, 1, 1), "x"), LabelClass(5, "e", (5, 5, 5))),
            frozenset({2, 7}),
        )
        there = ClassTable(
            (
                LabelClass(1, "a", (9, 9, 9)),
                LabelClass(2, "b", (2, 2, 2), "x"),
                LabelClass(3, "c", (3, 3, 3), "y"),
            ),
            frozenset({5, 8}),
        )
        merged = here.merged(there)
        assert merged.named_values == ((1, "a"), (2, "b"), (3, "c"), (5, "e"))
        assert merged.by_value(1).color == (1, 1, 1)
        assert [each.key for each in merged] == ["x", None, "y", None]
        assert merged.retired == {7, 8}

    @pytest.mark.parametrize(
        ("value", "name", "words"), [(1, "b", "'a' here, but 'b' there"), (2, "a", "a")]
    )
    def test_refuses_what_means_something_else(
        self, value: int, name: str, words: str
    ) -> None:
        here = ClassTable((LabelClass(1, "a", (1, 1, 1)),))
        there = ClassTable((LabelClass(value, name, (1, 1, 1)),))
        with pytest.raises(ClassTableError, match=words):
            here.merged(there)
