"""What an image is known by, wherever its file lies and whatever it is called.

Of large files only parts are read: enough to tell images apart, and quick where a slide
has gigabytes. It is no proof against somebody who wants to deceive.
"""

from __future__ import annotations

import hashlib
import os
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

#: Files up to this size are read completely.
WHOLE_BYTES = 2**24

#: Of larger ones so many parts of that size, from the first byte to the last.
PARTS = 32
PART_BYTES = 2**18

#: Of pixels no more than that is read, in whole rows.
PIXEL_BYTES = 2**26

#: Of a folder so many files count, the first in the order of their names.
MOST_FILES = 100_000


def fingerprint(path: Path) -> str:
    """Return what the content of a file or folder is known by.

    Parameters
    ----------
    path
        Of a folder count names and sizes of all files in it, and the content of the
        first, the middle and the last. Links to folders are not followed.

    Returns
    -------
    str
        ``file:SIZE:SHA256`` or ``folder:FILES:SHA256``.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    if not path.is_dir():
        digest = hashlib.sha256()
        _read_parts(path, digest)
        return f"file:{path.stat().st_size}:{digest.hexdigest()}"
    files = sorted(islice(_files_in(path), MOST_FILES))
    digest = hashlib.sha256()
    for each in files:
        digest.update(f"{each.relative_to(path).as_posix()}\0".encode(errors="replace"))
        digest.update(f"{each.stat().st_size}\0".encode())
    for place in sorted({0, len(files) // 2, len(files) - 1}) if files else ():
        _read_parts(files[place], digest)
    return f"folder:{len(files)}:{digest.hexdigest()}"


def fingerprint_of_pixels(pixels: NDArray[Any]) -> str:
    """Return what an array in memory is known by: its shape, its type and its rows.

    Parameters
    ----------
    pixels
        Of any shape and type; of large ones evenly spaced rows of the first axis.

    Returns
    -------
    str
        ``pixels:SHAPE:SHA256``.
    """
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.str}".encode())
    row_bytes = max(1, pixels.nbytes // max(1, len(pixels)))
    n_rows = max(1, min(len(pixels), PIXEL_BYTES // row_bytes))
    for row in np.linspace(0, len(pixels) - 1, n_rows).astype(int):
        digest.update(np.ascontiguousarray(pixels[row]).view(np.uint8).data)
    return f"pixels:{'x'.join(map(str, pixels.shape))}:{digest.hexdigest()}"


def _files_in(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = folder.__class__(place, name)
            if file.is_file():
                yield file


def _read_parts(path: Path, digest: Any) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
            return
        for part in range(PARTS):
            file.seek(part * (size - PART_BYTES) // (PARTS - 1))
            digest.update(file.read(PART_BYTES))
