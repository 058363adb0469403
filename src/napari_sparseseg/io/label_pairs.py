"""Which image files and label maps belong together, and how a pair is read.

In two folders the stems are the same (``match_by_stem``); in one folder the label map
has an ending behind the stem: ``tile.png`` and ``tile_labels.png``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sparseseg.annotations.strokes import check_label_map
from napari_sparseseg.errors import ImageError, LabelError
from napari_sparseseg.io.images import (
    IMAGE_SUFFIXES,
    VOLUME_SUFFIXES,
    list_images,
    read_image,
    read_label_map,
    stem_of,
)
from napari_sparseseg.io.sources import open_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable

#: What stands behind the stem of an image in the name of its label map.
LABEL_ENDINGS = ("_labels", "_label", "_masks", "_mask", "_strokes")

#: Files that training takes.
SUFFIXES = (*IMAGE_SUFFIXES, *VOLUME_SUFFIXES)

#: Names of the two folders in which images and label maps have the same stems.
IMAGE_FOLDER, LABEL_FOLDER = "images", "labels"


class FilePair(NamedTuple):
    """An image file, and its label map if there is one."""

    image: Path
    labels: Path | None


class LabelledPlane(NamedTuple):
    """An annotated plane of an image.

    Attributes
    ----------
    at
        Index of the plane in a volume; empty of images of one plane.
    pixels
        (y, x) or (y, x, c).
    labels
        (y, x) uint8 or uint16 class values, 0 = not annotated.
    um_per_px
        None when unknown.
    """

    at: tuple[int, ...]
    pixels: NDArray[Any]
    labels: NDArray[Any]
    um_per_px: float | None


def find_pairs(places: Iterable[Path]) -> tuple[list[FilePair], list[str]]:
    """Find images and their label maps in folders, and among files.

    In a folder each file is an image, but for label maps by their endings
    (`LABEL_ENDINGS`); a folder with the folders ``images`` and ``labels`` inside has
    them there, by the same stem.

    Parameters
    ----------
    places
        Folders and files; of files the label maps are found among them.

    Returns
    -------
    pairs : list of FilePair
        In order of the places, those of a folder by name.
    problems : list of str
        Sentences on places and files that cannot be used.
    """
    pairs: list[FilePair] = []
    problems: list[str] = []
    files: list[Path] = []
    for place in places:
        if not place.is_dir():
            files.append(place)
            continue
        try:
            found, told = _in_folder(place)
        except ImageError as error:
            problems.append(str(error))
            continue
        pairs += found
        problems += told
    known = [each for each in files if each.name.lower().endswith(SUFFIXES)]
    problems += [
        f"{each.name} is no image that can be listed; expected one of "
        f"{', '.join(SUFFIXES)}, or a folder of such files. Open slides and DICOM "
        "series with File > Open."
        for each in files
        if each not in known
    ]
    found, told = match_by_ending(known)
    return pairs + found, problems + told


def match_by_ending(files: Iterable[Path]) -> tuple[list[FilePair], list[str]]:
    """Find which of some files are label maps of others, by `LABEL_ENDINGS`.

    Returns
    -------
    pairs : list of FilePair
        Sorted by the stem of the image.
    problems : list of str
        Sentences on label maps without image, and of images with several.
    """
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    problems = []
    for file in sorted(files):
        stem, is_labels = _split(stem_of(file))
        known = labels if is_labels else images
        if known.setdefault(stem, file) != file:
            problems.append(
                f"{file.name} is left out, since {known[stem].name} stands for the "
                "same; keep one of them, or rename it."
            )
    problems += [
        f"{labels[stem].name} is a label map without an image; put {stem}.png, or of "
        "another kind of image, beside it."
        for stem in labels
        if stem not in images
    ]
    return [FilePair(images[stem], labels.get(stem)) for stem in images], problems


def read_planes(
    image: Path, labels: Path, table: ClassTable | None
) -> Iterator[LabelledPlane]:
    """Read an image and its label map; of a volume each plane that is annotated.

    Raises
    ------
    ImageError, LabelError
        If one of the files cannot be used, or they do not fit each other.
    """
    if not image.name.lower().endswith(VOLUME_SUFFIXES):
        file = read_image(image)
        label_map = check_label_map(
            read_label_map(labels, table), file.data.shape[:2], str(labels)
        )
        yield LabelledPlane((), file.data, label_map, file.um_per_px)
        return
    volume, volume_labels = open_image(image), open_image(labels)
    shape = volume.data.shape[: len(volume.geometry.axes)]
    if volume_labels.data.shape != shape:
        raise LabelError(
            f"the labels {labels} have shape {volume_labels.data.shape}, but the "
            f"volume {image} has {shape}; give labels of the same shape.",
            shape=volume_labels.data.shape,
            expected=shape,
        )
    for index in np.ndindex(shape[:-2]):
        plane = np.asarray(volume_labels.data[index])
        if plane.any():
            checked = check_label_map(plane, shape[-2:], f"{labels}, plane {index}")
            yield LabelledPlane(
                index, volume.data[index], checked, volume.geometry.um_per_px
            )


def _in_folder(folder: Path) -> tuple[list[FilePair], list[str]]:
    """Find the pairs of a folder.

    Raises
    ------
    ImageError
        If it cannot be read, or has no image.
    """
    inside = folder / IMAGE_FOLDER
    if inside.is_dir() and (folder / LABEL_FOLDER).is_dir():
        images = list_images(inside, SUFFIXES)
        labels = list_images(folder / LABEL_FOLDER, SUFFIXES)
        return [FilePair(images[stem], labels.get(stem)) for stem in images], []
    try:
        files = [
            each
            for each in folder.iterdir()
            if each.name.lower().endswith(SUFFIXES)
            and not each.name.startswith(".")
            and each.is_file()
        ]
    except OSError as error:
        raise ImageError(
            f"The folder {folder} cannot be read: {error.strerror or error}.",
            path=str(folder),
        ) from error
    pairs, problems = match_by_ending(files)
    if not pairs:
        raise ImageError(
            f"There is no image in the folder '{folder.name}'; expected files that end "
            f"in {', '.join(SUFFIXES)}, with label maps such as tile_labels.png beside "
            "tile.png; choose the folder that the images themselves are in.",
            path=str(folder),
        )
    return pairs, problems


def _split(stem: str) -> tuple[str, bool]:
    """Return the stem of the image, and whether the given one is of a label map."""
    for ending in LABEL_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            return stem[: -len(ending)], True
    return stem, False
