"""Pseudo-masks of folders of files: images and boxes matched by their stems."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_sparseseg.annotations.boxes import fit_boxes, read_boxes
from napari_sparseseg.annotations.classes import (
    ClassTable,
    find_class_table,
    read_class_table,
)
from napari_sparseseg.errors import (
    ClassTableError,
    ImageError,
    LabelError,
    OutputError,
)
from napari_sparseseg.folders import (
    check_writable,
    images_in_the_way,
    make_folder,
    merge_class_tables,
)
from napari_sparseseg.io.atomic import write_atomically, write_text_atomically
from napari_sparseseg.io.images import (
    is_prediction,
    list_images,
    match_by_stem,
    read_image,
    write_label_map,
)
from napari_sparseseg.pseudo_masks.api import run
from napari_sparseseg.pseudo_masks.methods import ImageDone

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.pseudo_masks.api import Preparation, PseudoMasks
    from napari_sparseseg.pseudo_masks.label_map import PseudoMask
    from napari_sparseseg.pseudo_masks.methods import PseudoMaskEvent

#: Folder of the localisation maps, beside the label maps.
MAPS = "maps"

#: How the masks of a folder were made; written when all of them are there.
RECORD = "pseudo_masks.json"

#: In the TIFF tag "Software" of localisation maps.
MARK = "napari-sparseseg"


@dataclass
class BoxInputs:
    """Images and boxes that could be read, and what became of the others.

    Attributes
    ----------
    images
        Arrays by stem.
    boxes
        Boxes by stem, clipped to the image.
    failures
        Sentences on inputs that could not be used.
    notes
        Sentences on inputs that were not taken as they are.
    classes
        The class table that was given or found beside the boxes, if any.
    """

    images: dict[str, NDArray[Any]] = field(default_factory=dict)
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: ClassTable | None = None


def read_box_pairs(images: Path, boxes: Path, classes: Path | None) -> BoxInputs:
    """Read images and their boxes; files that cannot be used are named.

    Parameters
    ----------
    images, boxes
        Files or folders; boxes as JSON, see
        :func:`~napari_sparseseg.annotations.boxes.read_boxes`.
    classes
        JSON of the class table. Default: ``STEM.classes.json`` or ``classes.json``
        beside the boxes, where there is one.

    Raises
    ------
    SparseSegError
        If there is no pair of an image and boxes that can be used.
    """
    match = match_by_stem(list_images(images), list_boxes(boxes))
    inputs = BoxInputs(classes=None if classes is None else read_class_table(classes))
    inputs.notes += [f"{stem}: no boxes, left out" for stem in match.images_only]
    inputs.failures += [
        f"{stem}: there are boxes in {boxes}, but no image of this name in {images}"
        for stem in match.labels_only
    ]
    if not match.pairs:
        raise LabelError(
            f"no image in {images} has boxes of the same name in {boxes}; name them "
            "alike, for example a.tif and a.json."
        )
    for stem, image_path, boxes_path in match.pairs:
        try:
            found = (
                find_class_table(boxes_path.with_suffix(".png"))
                if classes is None
                else inputs.classes
            )
            drawn = read_boxes(boxes_path, found)
            _check_no_planes(drawn)
            image = read_image(image_path).data
            fitted = fit_boxes(drawn, image.shape[:2])
        except (ImageError, LabelError) as error:
            inputs.failures.append(f"{stem}: {error}")
            continue
        inputs.images[stem], inputs.boxes[stem] = image, fitted.boxes
        inputs.notes += [f"{stem}: {note}" for note in fitted.notes]
        inputs.classes = merge_class_tables(inputs.classes, found)
    if not inputs.images:
        raise LabelError(f"none of the images can be used: {inputs.failures[0]}")
    return inputs


def _check_no_planes(boxes: Sequence[Box]) -> None:
    """Raise LabelError if boxes lie on planes of a volume."""
    on_planes = [box for box in boxes if box.plane]
    if on_planes:
        raise LabelError(
            f"the box {on_planes[0]} lies on a plane of a volume, but only 2-D images "
            "are read here; save each plane and its boxes as files of their own, or "
            "call make_pseudo_masks in Python, which takes volumes.",
            box=on_planes[0],
        )


def list_boxes(path: Path) -> dict[str, Path]:
    """List the files of boxes in a folder, or a single one, by stem.

    Class tables, a record of pseudo-masks and hidden files are left out.

    Raises
    ------
    LabelError
        If there is none, or the folder cannot be read.
    """
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise LabelError(
            f"the folder {path} cannot be read: {error.strerror or error}.",
            path=str(path),
        ) from error
    found = {
        file.name[: -len(".json")]: file
        for file in files
        if file.is_file()
        and file.name.lower().endswith(".json")
        and not (path.is_dir() and _is_other(file.name))
    }
    if not found:
        what = "has no boxes in it" if path.is_dir() else "is no file of boxes"
        raise LabelError(
            f"{path} {what}; boxes are JSON files of the names of the images, for "
            "example a.json.",
            path=str(path),
        )
    return found


def iter_pseudo_mask_folder(
    inputs: BoxInputs, preparation: Preparation, out: Path
) -> Generator[PseudoMaskEvent, None, PseudoMasks]:
    """Make the pseudo-masks of what was read, and write each as soon as it is there.

    Writes ``OUT/STEM.png`` with class values, ``OUT/STEM.classes.json`` where there is
    a class table, ``OUT/maps/STEM.tif``, the localisation map, (y, x) float32, and when
    all is done ``OUT/pseudo_masks.json``, how they were made. Of these files none is
    replaced that something else has made, and no others are touched.

    Parameters
    ----------
    inputs
        Of :func:`read_box_pairs`.
    preparation
        Of these inputs, by :func:`~napari_sparseseg.pseudo_masks.api.prepare`.
    out
        Folder; made where there is none.

    Returns
    -------
    Generator
        Of events; the label map is written when its :class:`ImageDone` comes. Its
        return value is that of ``make_pseudo_masks``.

    Raises
    ------
    SparseSegError
        If masks cannot be made, or *out* cannot be written to.
    """
    stems = {image.name for image in preparation.images}
    _spare_other_files(out, stems, inputs.classes)
    make_folder(out / MAPS)
    check_writable(out)
    events = run(preparation)
    began_to_write = False
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            result: PseudoMasks = stop.value
            break
        if isinstance(event, ImageDone):
            if not began_to_write:
                # Of earlier masks, to which those of now do not belong.
                (out / RECORD).unlink(missing_ok=True)
                began_to_write = True
            _write(out, event.name, event.result, inputs.classes)
        yield event
    _write_record(out / RECORD, inputs, result)
    return result


def _write(out: Path, stem: str, mask: PseudoMask, classes: ClassTable | None) -> None:
    from tifffile import imwrite

    def write_map(path: Path) -> None:
        imwrite(path, mask.localization, photometric="minisblack", software=MARK)

    write_label_map(out / f"{stem}.png", mask.labels, classes, prediction=True)
    write_atomically(out / MAPS / f"{stem}.tif", write_map)


def _write_record(path: Path, inputs: BoxInputs, result: PseudoMasks) -> None:
    content = result.record | {
        "notes": [*inputs.notes, *result.notes],
        "failures": inputs.failures,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_text_atomically(path, text)


def _is_other(name: str) -> bool:
    """Tell whether a JSON file in a folder of boxes is something else."""
    return (
        name.startswith(".")
        or name in (RECORD, "classes.json")
        or name.endswith(".classes.json")
    )


def _spare_other_files(out: Path, stems: set[str], classes: ClassTable | None) -> None:
    """Raise OutputError if a mask would replace what was not made by a program."""
    others = images_in_the_way(out, stems)
    maps = [out / MAPS / f"{stem}.tif" for stem in sorted(stems)]
    others += [path for path in maps if path.exists() and not _is_map(path)]
    others += [
        out / f"{stem}.classes.json"
        for stem in sorted(stems)
        if classes is not None and _has_other_classes(out, stem, classes)
    ]
    record = out / RECORD
    if record.exists() and not _is_record(record):
        others.append(record)
    if others:
        raise OutputError(
            f"{others[0]} was not made by this command, but a pseudo-mask would take "
            f"its place{f' and {len(others) - 1} more' if others[1:] else ''}; choose "
            "another folder.",
            paths=[str(path) for path in others],
        )


def _has_other_classes(out: Path, stem: str, classes: ClassTable) -> bool:
    """Tell whether there is another class table, of anything but a pseudo-mask."""
    table = out / f"{stem}.classes.json"
    if not table.exists() or is_prediction(out / f"{stem}.png"):
        return False
    try:
        return read_class_table(table) != classes
    except ClassTableError:
        return True


def _is_map(path: Path) -> bool:
    from tifffile import TiffFile, TiffFileError

    try:
        with TiffFile(path) as tiff:
            return bool(tiff.pages.first.software == MARK)
    except (TiffFileError, OSError, ValueError):
        return False


def _is_record(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"method", "versions"} <= content.keys()
