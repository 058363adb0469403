"""The JSON files of a session folder, each written completely or not at all.

Each says what it is and of which version, so that what a newer program has written is
refused rather than misread.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_sparseseg.errors import OutputError
from napari_sparseseg.io.atomic import write_text_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: What reading a file can raise whose content is not what is expected.
MISREAD = (OSError, ValueError, LookupError, TypeError, AttributeError)


def write_part(path: Path, kind: str, version: int, content: Mapping[str, Any]) -> None:
    """Write a file of a session, completely or not at all.

    Parameters
    ----------
    path
        The file.
    kind, version
        What it is.
    content
        Plain values by name.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    data = {"format": kind, "version": version, **content}
    write_text_atomically(path, json.dumps(data, indent=1, ensure_ascii=False))


def read_part(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read a file of a session.

    Parameters
    ----------
    path
        The file.
    kind, version
        What is expected; earlier versions are read too.

    Raises
    ------
    OutputError
        If another program or a newer version of this one has written it.
    OSError, ValueError, LookupError, TypeError
        If it cannot be read, or is something else (`MISREAD`).
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    found, given = data["format"], data["version"]
    if found != kind:
        raise OutputError(
            f"{path} was written as {found!r}, but {kind!r} is expected; open it with "
            "the program that made it.",
            path=str(path),
        )
    if not 1 <= given <= version:
        raise OutputError(
            f"{path} is of version {given}, but this program reads version {version} "
            "at most; open it with a newer napari-sparseseg.",
            path=str(path),
            given=given,
            expected=version,
        )
    return dict(data)
