"""What the user gives: classes, sparse label maps and boxes."""

from napari_sparseseg.annotations.boxes import (
    Box,
    FittedBoxes,
    ShapeBoxes,
    boxes_from_json,
    boxes_from_shapes,
    boxes_to_json,
    boxes_to_shapes,
    check_box_classes,
    fit_boxes,
    read_boxes,
    write_boxes,
)
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
    "Box",
    "ClassTable",
    "Color",
    "FittedBoxes",
    "LabelClass",
    "LabelCount",
    "ShapeBoxes",
    "StrokeMap",
    "boxes_from_json",
    "boxes_from_shapes",
    "boxes_to_json",
    "boxes_to_shapes",
    "check_box_classes",
    "check_label_map",
    "count_labels",
    "find_class_table",
    "find_strokes",
    "fit_boxes",
    "label_map_from_colors",
    "read_boxes",
    "read_class_table",
    "write_boxes",
    "write_class_table",
]
