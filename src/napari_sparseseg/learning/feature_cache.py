"""Features of encoders that do not learn: computed once, and kept on disk.

An entry is one zip file that holds a zarr group, an array of half precision a level.
Its name is a hash of the encoder and of the very pixels it was given: so other images,
resolutions, orientations or weights have other entries, and no entry is ever out of
date. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import time
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import platformdirs
import torch
from torch import Tensor

from napari_sparseseg.errors import OptionError, OutputError, TrainingWarning
from napari_sparseseg.io.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.inputs.resolution import Region
    from napari_sparseseg.networks.encoders import Encoder

    #: Rows and columns of a part of the features of a level.
    Window = tuple[slice, slice]

FeatureCacheUse = Literal["auto", "on", "off"]

SUFFIX = ".zarr.zip"

#: Names of entries, and of those that are being written, as `write_atomically` names
#: them. Other files of the folder are somebody else's.
_ENTRY = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.zip")

#: Side of a chunk in pixels of the encoder's input, and its least side in features.
CHUNK_PX, SMALLEST_CHUNK = 64, 16

#: An entry takes no more bytes than its numbers and this, for all that describes them.
OVERHEAD = 1 << 17

#: Files of entries that stay open.
MOST_OPEN = 64

#: Entries of which parts are read are kept in memory too, up to so many bytes.
MEMORY = 512 << 20

#: Of these, one that was not used in so many reads makes room for others. Were it any
#: that was used longest ago, then where there are many more than fit, each read would
#: load an entry of which a part is wanted, and throw it away before its next use.
IDLE_READS = 1000

#: A file that was not finished after so many seconds never will be.
ABANDONED_S = 3600.0

#: What reading a damaged entry raises.
_DAMAGED = (OSError, zipfile.BadZipFile, LookupError, ValueError, TypeError, EOFError)

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class FeatureCacheOptions:
    """Whether and where features are kept.

    Attributes
    ----------
    use
        ``"off"``: never. ``"on"``: whenever an encoder does not learn. ``"auto"``: only
        where that saves time, on a CPU, and where all fits into the budget.
    folder
        None: ``napari-sparseseg/features`` in the user's folder of caches.
    budget_bytes
        What was used longest ago is removed before the folder takes more.

    Raises
    ------
    OptionError
        If *use* is not known, or the budget is negative.
    """

    use: FeatureCacheUse = "auto"
    folder: Path | None = None
    budget_bytes: int = 10 * GIB

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.use not in get_args(FeatureCacheUse):
            raise OptionError(
                f"the feature cache is to be {self.use!r}; expected one of "
                f"{', '.join(get_args(FeatureCacheUse))}.",
                use=self.use,
            )
        if self.budget_bytes < 0:
            raise OptionError(
                f"the budget of the feature cache is {self.budget_bytes} bytes; "
                "expected 0 or more.",
                budget_bytes=self.budget_bytes,
            )

    def wants(self, device: str) -> bool:
        """Tell whether features of a frozen encoder are to be kept on a device.

        A GPU would have to wait for the disk at each step, so there it is not done
        unless it is asked for.
        """
        return self.use == "on" or (self.use == "auto" and device == "cpu")

    @property
    def place(self) -> Path:
        """The folder, also where it is that of the user."""
        if self.folder is not None:
            return self.folder
        caches = platformdirs.user_cache_path("napari-sparseseg", appauthor=False)
        return caches / "features"

    def open(self) -> FeatureCache:
        """Return the cache."""
        return FeatureCache(self.place, self.budget_bytes)


class FeatureCache:
    """Arrays by key in a folder, within a budget.

    Several processes may share the folder. An entry is written under another name and
    then renamed, so there is all of it or nothing, whenever a process is killed. Where
    an entry cannot be written a warning says so, once; from then on entries are kept in
    memory, as far as there is room.

    Each cache has a memory of its own, ``MEMORY`` bytes at most: so those of the head
    and of each network of a training add up.

    Parameters
    ----------
    folder
        Made when there is something to keep. It and the entries are for the eyes of the
        user alone; a folder that is there stays as it is.
    budget_bytes
        The entries that were read or written longest ago are removed before the folder
        takes more.

    Attributes
    ----------
    is_usable
        Whether entries can be written, as far as is known. Those of before are read
        in any case.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self.is_usable = True
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._open: OrderedDict[str, tuple[Any, list[Any]]] = OrderedDict()
        self._in_memory: OrderedDict[str, list[NDArray[np.float16]]] = OrderedDict()
        self._used: dict[str, int] = {}  # number of the last read of each of these
        self._memory_left = MEMORY
        self._reads = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureCache:
        """Return the same cache: a copy of a network shares it."""
        return self

    def read(
        self, key: str, windows: Sequence[Window] | None = None
    ) -> list[NDArray[np.float16]] | None:
        """Return what is kept, None if nothing is.

        Parameters
        ----------
        key
            Of the entry.
        windows
            The part of each level that is wanted; None: all.

        Returns
        -------
        list of ndarray or None
            (F, h, w) float16, one a level.
        """
        self._reads += 1
        try:
            arrays = self._remembered(key) or self._arrays(key)
            # Another process may have removed it; what is open can still be read.
            with contextlib.suppress(OSError):
                os.utime(self._path(key))
            if windows is None:
                return [np.asarray(array[:]) for array in arrays]
            arrays = self._into_memory(key, arrays)
            return [
                np.asarray(array[(slice(None), *window)])
                for array, window in zip(arrays, windows, strict=True)
            ]
        except FileNotFoundError:
            return None
        except _DAMAGED:
            self._close(key)
            with contextlib.suppress(OSError):
                self._path(key).unlink()
            return None

    def write(self, key: str, maps: Sequence[NDArray[np.float16]], size: int) -> None:
        """Keep an entry, if the budget has room for it at all.

        Parameters
        ----------
        key
            Of the entry, 64 hexadecimal digits.
        maps
            (F, h, w) float16, one a level.
        size
            Longer side, in pixels, of what they are the features of.
        """
        needed = sum(each.nbytes for each in maps) + OVERHEAD
        if needed > self._budget_bytes:
            return
        if self.is_usable:
            self._write(key, maps, size, needed)
        if not self.is_usable:
            self._remember(key, maps)

    def _write(
        self, key: str, maps: Sequence[NDArray[np.float16]], size: int, needed: int
    ) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(needed)
            write_atomically(self._path(key), lambda to: _write_zarr(to, maps, size))
        except (OutputError, OSError) as error:
            self.is_usable = False
            warnings.warn(
                "features cannot be kept, and are computed anew where memory has no "
                f"room for them: {str(error).rstrip('.')}.",
                TrainingWarning,
                stacklevel=3,
            )

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"

    def _arrays(self, key: str) -> list[Any]:
        """Return the arrays of an entry, which are still on disk."""
        known = self._open.get(key)
        if known is None:
            import zarr
            from zarr.storage import ZipStore

            store = ZipStore(self._path(key), mode="r")
            group: Any = zarr.open_group(store, mode="r", zarr_format=3)
            arrays = [group[str(level)] for level in range(group.nmembers())]
            if any(array.dtype != np.float16 or array.ndim != 3 for array in arrays):
                raise ValueError("it holds no features")
            known = self._open[key] = (store, arrays)
            if len(self._open) > MOST_OPEN:
                self._close(next(iter(self._open)))
        self._open.move_to_end(key)
        return known[1]

    def _into_memory(self, key: str, arrays: list[Any]) -> list[Any]:
        """Return the arrays of an entry from memory, if there is room for them."""
        if key not in self._in_memory and self._remember(key, arrays):
            self._close(key)
        return self._in_memory.get(key, arrays)

    def _remembered(self, key: str) -> list[NDArray[np.float16]] | None:
        """Return what memory has of an entry, which is used now."""
        if key in self._in_memory:
            self._in_memory.move_to_end(key)
            self._used[key] = self._reads
        return self._in_memory.get(key)

    def _remember(self, key: str, arrays: Sequence[Any]) -> bool:
        """Put an entry into memory, and tell whether there was room for it."""
        size = sum(array.nbytes for array in arrays)
        if size > MEMORY:
            return False
        while size > self._memory_left:
            oldest = next(iter(self._in_memory))
            if self._reads - self._used[oldest] < IDLE_READS:
                return False
            self._forget(oldest)
        self._in_memory[key] = [np.asarray(array[:]) for array in arrays]
        self._used[key] = self._reads
        self._memory_left -= size
        return True

    def _forget(self, key: str) -> None:
        del self._used[key]
        arrays = self._in_memory.pop(key)
        self._memory_left += sum(array.nbytes for array in arrays)

    def _close(self, key: str) -> None:
        store, _ = self._open.pop(key, (None, []))
        if store is not None:
            store.close()

    def _make_room(self, needed: int) -> None:
        """Remove entries until so many bytes fit into the budget."""
        entries = []
        for path in self._folder.iterdir():
            is_unfinished = bool(_UNFINISHED.fullmatch(path.name))
            if not is_unfinished and not _ENTRY.fullmatch(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                if is_unfinished and time.time() - status.st_mtime > ABANDONED_S:
                    path.unlink()
                    continue
                entries.append((is_unfinished, status.st_mtime, status.st_size, path))
        total = sum(size for _, _, size, _ in entries)
        for is_unfinished, _, size, path in sorted(entries):
            if is_unfinished or total + needed <= self._budget_bytes:
                break
            self._close(path.name.removesuffix(SUFFIX))
            # Windows does not remove what another process reads.
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size


def _write_zarr(path: Path, maps: Sequence[NDArray[np.float16]], size: int) -> None:
    import zarr
    from zarr.codecs import BloscCodec
    from zarr.storage import ZipStore

    path.touch(mode=0o600)
    with ZipStore(path, mode="w", compression=zipfile.ZIP_STORED) as store:
        group = zarr.create_group(store, zarr_format=3)
        for level, each in enumerate(maps):
            chunk = max(SMALLEST_CHUNK, max(each.shape[1:]) * CHUNK_PX // size)
            group.create_array(
                str(level),
                data=each,
                chunks=(each.shape[0], chunk, chunk),
                compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
            )


class CachedEncoder:
    """An encoder that does not learn, and the features of what it was given before.

    Parameters
    ----------
    encoder
        In evaluation mode; its weights must not change any more.
    cache
        Where features are kept.

    Attributes
    ----------
    channels, strides, halo
        Of each level, as of the encoder.
    """

    def __init__(self, encoder: Encoder, cache: FeatureCache) -> None:
        self.encoder = encoder
        self.cache = cache
        self.channels = encoder.channels
        self.strides = encoder.strides
        self.halo = encoder.halo
        self._identity = identity_of(encoder)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features of (1, C, H, W) float32: (1, F, h, w) a level.

        They are rounded to half precision, whether or not they were kept.
        """
        key = self.key(x)
        maps = self.cache.read(key)
        if maps is None:
            maps = self.compute(x)
            self.cache.write(key, maps, max(x.shape[-2:]))
        return tuple(torch.from_numpy(each)[None].to(x) for each in maps)

    @torch.no_grad()
    def compute(self, x: Tensor) -> list[NDArray[np.float16]]:
        """Return the features of (1, C, H, W) float32: (F, h, w) a level."""
        return [half(each)[0].cpu().numpy() for each in self.encoder(x)]

    def key(self, x: Tensor, part: Region | None = None) -> str:
        """Return what names the features of *x*, or of a part of it."""
        digest = hashlib.sha256(f"{self._identity} {tuple(x.shape)} {part}".encode())
        digest.update(x.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def half(x: Tensor) -> Tensor:
    """Round to half precision; what is too large for it becomes its largest number."""
    largest = torch.finfo(torch.float16).max
    return x.clamp(-largest, largest).half()


def identity_of(encoder: Encoder) -> str:
    """Return a hash of an encoder's name, layers, levels and weights."""
    digest = hashlib.sha256(f"{encoder.name} {encoder.levels} {encoder}".encode())
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def bytes_of(encoder: Encoder, shape: tuple[int, int]) -> int:
    """Return the bytes that the features of an image of *shape* take, uncompressed."""
    return sum(
        2 * channels * math.prod(-(-length // stride) for length in shape)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    )
