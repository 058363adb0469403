"""The file of a session folder that keeps boxes, ``boxes.json``.

It has the class table, and for each Shapes layer the name and shape of its image with
the boxes as in files of boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_sparseseg.annotations.boxes import Box, boxes_from_json, boxes_to_json
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import OutputError, SparseSegError
from napari_sparseseg.gui.session_parts import MISREAD, read_part, write_part

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Of the file; others are refused.
VERSION = 1

#: Its name.
FILE = "boxes.json"

_FORMAT = "boxes of napari-sparseseg"


@dataclass(frozen=True)
class BoxesRecord:
    """The boxes of a Shapes layer.

    Attributes
    ----------
    name, image
        Names of the Shapes layer and of its image layer.
    shape
        (..., y, x) of the level of the image in whose pixels the boxes are.
    boxes
        Of that image.
    present
        False of boxes whose layer was deleted.
    """

    name: str
    image: str
    shape: tuple[int, ...]
    boxes: tuple[Box, ...]
    present: bool = True


def write_kept_boxes(
    folder: Path, records: Sequence[BoxesRecord], classes: ClassTable
) -> None:
    """Write the boxes of a session, completely or not at all.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    content = {
        "classes": classes.to_json(),
        "layers": [
            {
                "name": each.name,
                "image": each.image,
                "shape": list(each.shape),
                "boxes": boxes_to_json(each.boxes),
                "present": each.present,
            }
            for each in records
        ],
    }
    write_part(folder / FILE, _FORMAT, VERSION, content)


def read_kept_boxes(folder: Path) -> tuple[ClassTable, list[BoxesRecord]]:
    """Read the boxes of a session, and their classes; none where it has no file.

    Raises
    ------
    OutputError
        If the file is damaged, or of another version.
    """
    path = folder / FILE
    try:
        data = read_part(path, _FORMAT, VERSION)
        classes = ClassTable.from_json(data["classes"])
        records = [
            BoxesRecord(
                str(each["name"]),
                str(each["image"]),
                tuple(map(int, each["shape"])),
                tuple(boxes_from_json(each["boxes"])),
                bool(each["present"]),
            )
            for each in data["layers"]
        ]
    except FileNotFoundError:
        return ClassTable(), []
    except OutputError:
        raise
    except (*MISREAD, SparseSegError) as error:
        raise OutputError(
            f"The boxes in {path} cannot be restored ({str(error).rstrip('.')}); the "
            "file is JSON and can be opened as text.",
            path=str(path),
        ) from error
    return classes, records


def has_boxes(folder: Path) -> bool:
    """Tell whether there are boxes in a session folder."""
    try:
        return any(record.boxes for record in read_kept_boxes(folder)[1])
    except OutputError:
        return True  # what is damaged may still be of use to somebody
