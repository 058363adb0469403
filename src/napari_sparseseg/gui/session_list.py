"""The file of a session folder that keeps the list of images, ``list.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.session_images import path_now, relative_to
from napari_sparseseg.gui.session_parts import MISREAD, read_part, write_part
from napari_sparseseg.gui.state import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

#: Of the file; others are refused.
VERSION = 1

#: Its name.
FILE = "list.json"

_FORMAT = "list of images of napari-sparseseg"


@dataclass(frozen=True)
class ListRecord:
    """An image of the list.

    Attributes
    ----------
    image, labels
        Names of its layers; empty where it was not open.
    path, labels_path
        Absolute paths of the files it was listed with; empty where it had none.
    ticked
        Whether the training learns from it.
    kind
        That the user chose; None: as is proposed.
    """

    image: str
    labels: str
    path: str = ""
    labels_path: str = ""
    ticked: bool = True
    kind: Kind | None = None


def write_kept_list(folder: Path, records: Iterable[ListRecord]) -> None:
    """Write the list, completely or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    content = [
        asdict(each)
        | {
            "relative": relative_to(folder, each.path),
            "relative_labels": relative_to(folder, each.labels_path),
        }
        for each in records
    ]
    write_part(folder / FILE, _FORMAT, VERSION, {"images": content})


def read_kept_list(folder: Path) -> tuple[ListRecord, ...]:
    """Read the list; it is empty where the session has none.

    A file that is no more where it was, but is at the same place as seen from the
    session folder, gets that path.

    Raises
    ------
    OutputError
        If the file is damaged, or of a newer version.
    """
    path = folder / FILE
    try:
        return tuple(_record_from(each, folder) for each in _images_in(path))
    except FileNotFoundError:
        return ()
    except OutputError:
        raise
    except MISREAD as error:
        raise OutputError(
            f"{path} is damaged, so images of the list that were not painted on are "
            "not in it any more; add their folder again.",
            path=str(path),
        ) from error


def is_list_worth_keeping(folder: Path) -> bool:
    """Tell whether a session has a list that is work to make again.

    It is of several files, or of one whose tick or kind is no more as it was proposed.
    """
    try:
        files = [each for each in _images_in(folder / FILE) if each["path"]]
        changed = [each for each in files if not each["ticked"] or each["kind"]]
    except FileNotFoundError:
        return False
    except (OutputError, *MISREAD):
        return True  # what is damaged may still be of use to somebody
    return len(files) > 1 or bool(changed)


def _images_in(path: Path) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = read_part(path, _FORMAT, VERSION)["images"]
    return images


def _record_from(data: Mapping[str, Any], folder: Path) -> ListRecord:
    kind = data["kind"]
    if kind is not None and kind not in get_args(Kind):
        raise ValueError(f"{kind} is no kind of an image")
    return ListRecord(
        str(data["image"]),
        str(data["labels"]),
        path_now(str(data["path"]), str(data["relative"]), folder),
        path_now(str(data["labels_path"]), str(data["relative_labels"]), folder),
        bool(data["ticked"]),
        kind,
    )
