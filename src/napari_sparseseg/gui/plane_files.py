"""Files through which planes of images reach the engine, and predictions come back."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.planes import PlaneKey, level_shape, read_plane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Image
    from numpy.typing import DTypeLike, NDArray

    from napari_sparseseg.engine.messages import Region

    Key = tuple[int, int, PlaneKey]

#: Of folders; the number of their process follows.
PREFIX = "napari-sparseseg-planes-"

#: Files that are not needed any more stay for so long, since requests that name them
#: may still wait in the engine.
FORGOTTEN_S = 60.0


class PlaneFiles:
    """A folder of ``.npy`` files that goes with the window.

    Names of files are numbers: nothing in them tells of the image.

    Attributes
    ----------
    folder
        Made when the first file is written.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._numbers = itertools.count()
        self._pixels: dict[Key, Path] = {}
        self._outputs: dict[tuple[Key, str], Path] = {}
        self._forgotten: list[tuple[float, Path]] = []

    def pixels(self, image: Image, plane: PlaneKey, level: int = 0) -> Path:
        """Return the file of a plane's pixels, written when it is asked for first.

        Raises
        ------
        LayerError, ImageError
            If the plane cannot be read or used.
        OutputError
            If the file cannot be written.
        """
        key = (id(image), level, plane)
        if key not in self._pixels or not self._pixels[key].exists():
            pixels = read_plane(image, plane, level)
            path = self._new_path()
            with _writing(path):
                np.save(path, pixels)
            self._pixels[key] = path
        return self._pixels[key]

    def output(
        self, image: Image, plane: PlaneKey, level: int, dtype: DTypeLike
    ) -> Path:
        """Return a file of zeros of the shape of a plane, (y, x), to be written into.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        key = ((id(image), level, plane), np.dtype(dtype).str)
        if key not in self._outputs or not self._outputs[key].exists():
            path = self._new_path()
            with _writing(path):
                np.lib.format.open_memmap(
                    path, "w+", dtype=dtype, shape=level_shape(image, level)[-2:]
                )
                _take_space(path)
            self._outputs[key] = path
        return self._outputs[key]

    def forget(self, image: Image) -> None:
        """Give up what is kept of an image: it is closed, or has other pixels now."""
        now = time.monotonic()
        for key in [key for key in self._pixels if key[0] == id(image)]:
            self._forgotten.append((now, self._pixels.pop(key)))
        for output in [each for each in self._outputs if each[0][0] == id(image)]:
            self._forgotten.append((now, self._outputs.pop(output)))

    def close(self) -> None:
        """Remove all files."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _new_path(self) -> Path:
        if self.folder is None or not self.folder.is_dir():
            self.folder = _new_folder()
        self._remove_forgotten()
        return self.folder / f"{next(self._numbers)}.npy"

    def _remove_forgotten(self) -> None:
        last = time.monotonic() - FORGOTTEN_S
        for _, path in [each for each in self._forgotten if each[0] <= last]:
            # Windows removes no file that the engine still has open.
            with contextlib.suppress(OSError):
                path.unlink()
        self._forgotten = [each for each in self._forgotten if each[0] > last]


def remove_left_behind() -> None:
    """Remove the folders of windows that have crashed; they hold pixels."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _new_folder() -> Path:
    remove_left_behind()
    try:
        return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    except OSError as error:
        raise OutputError(
            f"no temporary folder can be made ({error.strerror}); free some space, or "
            "set TMPDIR to a folder that can be written."
        ) from error


def _take_space(path: Path) -> None:
    """Fill the holes of a file: writing through a map would fail with a full disk.

    That would end the engine rather than raise an error.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a temporary file into one sentence."""
    try:
        yield
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OutputError(
            f"the temporary file {path} cannot be written ({error.strerror or error}); "
            "free some space on that disk, or set TMPDIR to another folder."
        ) from error


def cut(path: Path, region: Region) -> NDArray[Any]:
    """Return a copy of a region (y0, x0, y1, x1) of the (y, x) array in a file."""
    y0, x0, y1, x1 = region
    return np.array(np.load(path, mmap_mode="r")[y0:y1, x0:x1])
