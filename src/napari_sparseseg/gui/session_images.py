"""The file of a session folder that says where its images are, ``images.json``.

Labels and boxes refer to an image by the name of its layer. Its pixels are not copied:
a path, one relative to the session folder, and a hash of the content find it again when
it was moved, and tell when it is another one.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.fields import FieldOrigin
from napari_sparseseg.gui.planes import PLACED_BY
from napari_sparseseg.gui.session_parts import MISREAD, read_part, write_part
from napari_sparseseg.io.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: Of the file; others are refused.
VERSION = 2

#: Its name.
FILE = "images.json"

_FORMAT = "images of napari-sparseseg"

# An image under another name is looked for among so many neighbours of its size.
_MOST_NEIGHBOURS = 1000


@dataclass(frozen=True)
class ImageRecord:
    """Where an image is.

    Attributes
    ----------
    name
        Of its layer.
    path
        Absolute path of its file or folder; empty where it was never in one.
    plugin
        Reader that opened it, as napari calls it.
    sample
        (plugin, key) of a sample of napari; empty of other images.
    series
        UID of the DICOM series, where the file or folder may have several.
    content
        `fingerprint` of the file, or of the pixels where there is none; empty while it
        is not known.
    shape
        (..., y, x) of the finest level.
    placement
        Scale, translation and so on, as napari takes them.
    contrast_limits
        Intensities that are shown black and white; empty of RGB.
    field
        Of which slide it is a field, and where; *path* and *content* are then those of
        the slide. None of all other images.
    """

    name: str
    path: str = ""
    plugin: str = ""
    sample: tuple[str, ...] = ()
    series: str = ""
    content: str = ""
    shape: tuple[int, ...] = ()
    placement: Mapping[str, Any] = field(default_factory=dict)
    contrast_limits: tuple[float, ...] = ()
    field: FieldOrigin | None = None


def write_kept_images(folder: Path, records: Iterable[ImageRecord]) -> None:
    """Write where the images of a session are, completely or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    images = [
        asdict(each) | {"relative": relative_to(folder, each.path)} for each in records
    ]
    write_part(folder / FILE, _FORMAT, VERSION, {"images": images})


def read_kept_images(folder: Path) -> list[ImageRecord]:
    """Read where the images of a session are; none where it has no such file.

    An image that is no more where it was, but is at the same place as seen from the
    session folder, gets that path.

    Raises
    ------
    OutputError
        If the file is damaged, or of a newer version.
    """
    path = folder / FILE
    try:
        return [
            _record_from(each, folder)
            for each in read_part(path, _FORMAT, VERSION)["images"]
        ]
    except FileNotFoundError:
        return []
    except OutputError:
        raise
    except MISREAD as error:
        raise OutputError(
            f"{path} is damaged, so the images of the session are not known; open "
            "them, then the labels.",
            path=str(path),
        ) from error


def find_image(
    record: ImageRecord, folders: Iterable[Path]
) -> tuple[Path | None, bool]:
    """Look for an image where it was, and in other folders by its name and content.

    Parameters
    ----------
    record
        What is known about it.
    folders
        Where it may be, besides: that of the session, one the user has named.

    Returns
    -------
    path : Path or None
        None where there is none.
    is_same : bool
        Whether its content is the one of before; True where that was never known.
    """
    # Unlike those of Path these say False, too, of what nobody may look at.
    there = [path for path in _places(record, folders) if os.path.exists(path)]
    for path in there:
        if is_same(record, path):
            return path, True
    if there:
        return there[0], False
    for path in _neighbours(record, folders):
        if is_same(record, path):
            return path, True
    return None, False


def relative_to(folder: Path, path: str) -> str:
    """Return a path as seen from a folder, with slashes; empty from another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix() if path else ""
    except ValueError:
        return ""


def path_now(path: str, relative: str, folder: Path) -> str:
    """Return the path of a file of a session, which may have moved together with it.

    Parameters
    ----------
    path
        Where it was; empty where it never was in a file.
    relative
        The same as `relative_to` saw it then.
    folder
        Of the session now.
    """
    if not path or not relative or os.path.exists(path):
        return path
    beside = os.path.normpath(folder / PurePosixPath(relative))
    return beside if os.path.exists(beside) else path


def _record_from(data: Mapping[str, Any], folder: Path) -> ImageRecord:
    values = dict(data)
    path = path_now(str(values.pop("path")), str(values.pop("relative")), folder)
    origin = values.get("field")
    placement = {key: values["placement"][key] for key in values["placement"]}
    if set(placement) - {*PLACED_BY, "axis_labels"}:
        raise ValueError("the image is placed by what is no place")
    return ImageRecord(
        **values
        | {
            "path": path,
            "sample": tuple(map(str, values["sample"])),
            "shape": tuple(map(int, values["shape"])),
            "contrast_limits": tuple(map(float, values["contrast_limits"])),
            "field": None if origin is None else FieldOrigin.from_json(origin),
        }
    )


def _places(record: ImageRecord, folders: Iterable[Path]) -> Iterator[Path]:
    if record.path:
        path = Path(record.path)
        yield path
        yield from (folder / path.name for folder in folders)


def _neighbours(record: ImageRecord, folders: Iterable[Path]) -> Iterator[Path]:
    """Give files of the right kind and size, whatever their name."""
    kind, _, rest = record.content.partition(":")
    size = rest.partition(":")[0]
    for folder in folders if kind == "file" else ():
        # What nobody may look into is passed over.
        with contextlib.suppress(OSError):
            for path in sorted(folder.iterdir())[:_MOST_NEIGHBOURS]:
                if os.path.isfile(path) and str(os.path.getsize(path)) == size:
                    yield path


def is_same(record: ImageRecord, path: Path) -> bool:
    """Tell whether a file has the content of before; True where that is not known."""
    try:
        return not record.content or fingerprint(path) == record.content
    except OSError:
        return False
