"""What the user gives: classes and sparse label maps."""

from napari_sparseseg.annotations.classes import (
    ClassTable,
    Color,
    LabelClass,
    find_class_table,
    label_map_from_colors,
    read_class_table,
    write_class_table,
)
from napari_sparseseg.annotations.strokes import (
    MAX_CLASS_VALUE,
    LabelCount,
    StrokeMap,
    check_label_map,
    count_labels,
    find_strokes,
)

__all__ = [
    "MAX_CLASS_VALUE",
    "ClassTable",
    "Color",
    "LabelClass",
    "LabelCount",
    "StrokeMap",
    "check_label_map",
    "count_labels",
    "find_class_table",
    "find_strokes",
    "label_map_from_colors",
    "read_class_table",
    "write_class_table",
]
