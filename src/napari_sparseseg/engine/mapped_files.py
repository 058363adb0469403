"""The ``.npy`` files through which window and engine share arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sparseseg.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_mapped(path: str) -> NDArray[Any]:
    """Return the array in a file, mapped into memory and not to be written.

    Raises
    ------
    EngineError
        If the file is not there or is no array.
    """
    return np.asarray(_load(path, "r"))


def read_copy(path: str) -> NDArray[Any]:
    """Return the array in a file as it is now.

    Raises
    ------
    EngineError
        If the file is not there or is no array.
    """
    return _load(path, None)


def map_result(path: str, shape: tuple[int, int], kinds: str) -> NDArray[Any]:
    """Return the array in a file; what is written to it the other side sees too.

    Parameters
    ----------
    path
        The file.
    shape
        What it must have.
    kinds
        What its type must be among, as numpy's ``dtype.kind``.

    Raises
    ------
    EngineError
        If the file is not there or holds something else.
    """
    array = _load(path, "r+")
    if array.shape != shape or array.dtype.kind not in kinds:
        raise EngineError(
            f"{Path(path).name} is to take a result of {shape} pixels, but holds "
            f"{array.dtype} of {array.shape}; make it anew.",
            given=array.shape,
            expected=shape,
        )
    return array


def _load(path: str, mode: Literal["r", "r+"] | None) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EngineError(
            f"the file {path} that the window shares with the engine cannot be read "
            f"({' '.join(str(error).split())}); try again.",
            path=path,
        ) from error
    return array
