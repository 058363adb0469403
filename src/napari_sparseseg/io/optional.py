"""Libraries that only some kinds of files need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from napari_sparseseg.errors import ImageError


def library(name: str, extra: str, what: str) -> Any:
    """Import a library of an extra.

    Parameters
    ----------
    name
        Of the module.
    extra
        Of this package, by which it is installed.
    what
        Cannot be read without it, as "DICOM files".

    Raises
    ------
    ImageError
        If it is not installed; the sentence says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImageError(
            f"{what} need {name}, which is not installed; install it with: "
            f"pip install 'napari-sparseseg[{extra}]'",
            module=name,
        ) from error
