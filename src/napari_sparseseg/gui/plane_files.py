"""Files through which planes of images reach the engine, and predictions come back."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.planes import (
    PlaneKey,
    level_shape,
    plane_grid,
    read_plane,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from napari.layers import Image
    from numpy.typing import DTypeLike, NDArray

    from napari_sparseseg.engine.messages import Region

    Key = tuple[int, int, PlaneKey, Region | None]

#: Of folders; the number of their process follows.
PREFIX = "napari-sparseseg-planes-"

#: Files stay for so long after their last use, since requests that name them may still
#: wait in the engine.
FORGOTTEN_S = 60.0

#: Of what is above that, the planes that were not used for longest go, but none that
#: is learned from.
MOST_BYTES = 2 * 2**30

#: Pixels in memory up to this size are written at once, in a few milliseconds; all
#: others in a thread, where somebody can wait for them.
QUICK_BYTES = 2**24


@dataclass(slots=True)
class _Plane:
    """The files of one plane, the outputs by number type."""

    used: float = 0.0
    pixels: Path | None = None
    outputs: dict[str, Path] = field(default_factory=dict)
    n_bytes: int = 0

    @property
    def paths(self) -> list[Path]:
        return [*([self.pixels] if self.pixels else []), *self.outputs.values()]

    def take(self, pixels: Path, n_bytes: int) -> None:
        self.pixels = pixels
        self.n_bytes += n_bytes


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
        # The last used is the last.
        self._planes: dict[Key, _Plane] = {}
        self._held: dict[Hashable, set[Key]] = {}
        self._forgotten: list[tuple[float, Path]] = []
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._coming: dict[Key, tuple[Path, Future[int]]] = {}

    def prepare(
        self,
        image: Image,
        plane: PlaneKey,
        level: int,
        ready: Callable[[], object] | None = None,
        window: Region | None = None,
    ) -> bool:
        """Tell whether `pixels` takes no time; if it would, write them in a thread.

        Pixels that were to be prepared before, and are not begun yet, are given up.

        Parameters
        ----------
        image, plane, level, window
            As of `pixels`.
        ready
            Called in whatever thread when they are written, cannot be, or are given up.

        Raises
        ------
        OutputError
            If there is no folder for the file.
        """
        key = (id(image), level, plane, window)
        if key in self._coming:
            return self._coming[key][1].done()
        path = self._planes.get(key, _Plane()).pixels
        if (path is not None and path.exists()) or _is_quick(image, level):
            return True
        self._settle()
        path = self._new_path()
        future = self._writer.submit(
            lambda: save_plane(path, read_plane(image, plane, level, window))
        )
        self._coming[key] = path, future
        if ready is not None:
            future.add_done_callback(lambda _: ready())
        return False

    def pixels(
        self,
        image: Image,
        plane: PlaneKey,
        level: int = 0,
        window: Region | None = None,
    ) -> Path:
        """Return the file of a plane's pixels, written when it is asked for first.

        Where they are being prepared, this waits for them.

        Parameters
        ----------
        image
            The layer.
        plane
            Which plane.
        level
            Of a multiscale image.
        window
            (y0, x0, y1, x1) in pixels of the level: only this part, in a file of its
            own; None: all.

        Raises
        ------
        LayerError, ImageError
            If the plane cannot be read or used.
        OutputError
            If the file cannot be written.
        """
        key = (id(image), level, plane, window)
        used = self._use(key)
        if key in self._coming:
            path, future = self._coming.pop(key)
            used.take(path, future.result())
        if used.pixels is not None and used.pixels.exists():
            return used.pixels
        pixels = read_plane(image, plane, level, window)
        path = self._new_path()
        used.take(path, save_plane(path, pixels))
        return path

    def output(
        self,
        image: Image,
        plane: PlaneKey,
        level: int,
        dtype: DTypeLike,
        window: Region | None = None,
    ) -> Path:
        """Return a file of zeros of the shape of a plane, (y, x), to be written into.

        Of a window of the plane, where one is given.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        used = self._use((id(image), level, plane, window))
        shape = level_shape(image, level)[-2:]
        if window is not None:
            shape = (window[2] - window[0], window[3] - window[1])
        kind = np.dtype(dtype).str
        if kind not in used.outputs or not used.outputs[kind].exists():
            path = self._new_path()
            with _writing(path):
                np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=shape)
                _take_space(path)
            used.outputs[kind] = path
            used.n_bytes += path.stat().st_size
        return used.outputs[kind]

    def hold(self, owner: Hashable, image: Image, plane: PlaneKey, level: int) -> None:
        """Keep the files of a plane until *owner* releases its planes."""
        self._held.setdefault(owner, set()).add((id(image), level, plane, None))

    def release(self, owner: Hashable) -> None:
        """Let all planes go that are held for *owner* alone."""
        self._held.pop(owner, None)

    def forget(self, image: Image) -> None:
        """Give up what is kept of an image: it is closed, or has other pixels now."""
        for key in [key for key in self._planes if key[0] == id(image)]:
            self._drop(key, time.monotonic())
        for key in [key for key in self._coming if key[0] == id(image)]:
            path, future = self._coming.pop(key)
            future.cancel()
            # Nobody was told of the file.
            future.add_done_callback(partial(_remove, path))

    def close(self) -> None:
        """Remove all files."""
        self._writer.shutdown(cancel_futures=True)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _new_path(self) -> Path:
        if self.folder is None or not self.folder.is_dir():
            self.folder = temporary_folder()
        self._make_room()
        self._remove_forgotten()
        return self.folder / f"{next(self._numbers)}.npy"

    def _use(self, key: Key) -> _Plane:
        used = self._planes.pop(key, None) or _Plane()
        used.used = time.monotonic()
        self._planes[key] = used
        return used

    def _drop(self, key: Key, since: float) -> None:
        dropped = self._planes.pop(key)
        self._forgotten += [(since, path) for path in dropped.paths]

    def _make_room(self) -> None:
        held = set().union(*self._held.values())
        loose = {key: each for key, each in self._planes.items() if key not in held}
        n_bytes = sum(each.n_bytes for each in loose.values())
        last = time.monotonic() - FORGOTTEN_S
        for key, each in loose.items():
            if n_bytes <= MOST_BYTES or each.used > last:
                break
            n_bytes -= each.n_bytes
            self._drop(key, each.used)

    def _remove_forgotten(self) -> None:
        last = time.monotonic() - FORGOTTEN_S
        for each in [each for each in self._forgotten if each[0] <= last]:
            # Windows removes no file that the engine still has open; later it will.
            with contextlib.suppress(OSError):
                each[1].unlink(missing_ok=True)
                self._forgotten.remove(each)

    def _settle(self) -> None:
        """Count what was prepared and never asked for, and prepare nothing but it."""
        for key, (path, future) in list(self._coming.items()):
            if future.cancel():
                del self._coming[key]
            elif future.done():
                del self._coming[key]
                if future.exception() is None:
                    self._use(key).take(path, future.result())


def remove_left_behind() -> None:
    """Remove the folders of windows that have crashed; they hold pixels."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def temporary_folder() -> Path:
    """Make a folder for files of planes, which goes with this process.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    remove_left_behind()
    try:
        return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    except OSError as error:
        raise OutputError(
            f"no temporary folder can be made ({error.strerror}); free some space, or "
            "set TMPDIR to a folder that can be written."
        ) from error


def _is_quick(image: Image, level: int) -> bool:
    """Tell whether planes of an image are small and in memory."""
    data = image.data[level] if image.multiscale else image.data
    if not isinstance(data, np.ndarray) or isinstance(data, np.memmap):
        return False
    n_planes = int(np.prod(plane_grid(image, level)))
    return data.nbytes <= QUICK_BYTES * n_planes


def save_plane(path: Path, pixels: NDArray[Any]) -> int:
    """Write a plane to a file, and return how many bytes it has.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with _writing(path):
        np.save(path, pixels)
        return path.stat().st_size


def _remove(path: Path, _: object) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


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
