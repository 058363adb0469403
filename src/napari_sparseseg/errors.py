"""Errors whose message is one sentence for the user: given, expected, what to do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class SparseSegError(Exception):
    """Base of all errors that bad input can cause.

    Parameters
    ----------
    message
        One sentence: what was given, what is expected, what to do.
    **values
        The offending values, kept in ``values`` for programs that catch the error. The
        command line adds *option* to the message, the option that mends it: docks have
        other names for it.
    """

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message)
        self.values = values


class ImageError(SparseSegError):
    """An image cannot be read or used."""


class LabelError(SparseSegError):
    """A label map, or a set of them, cannot be used."""


class ClassTableError(SparseSegError):
    """A class table is inconsistent or does not fit the labels."""


class ModelFileError(SparseSegError):
    """A model or checkpoint file cannot be read, or does not fit the data."""


class OutputError(SparseSegError):
    """A result cannot be written."""


class TrainingError(SparseSegError):
    """A training cannot go on."""


class OptionError(SparseSegError):
    """An option has a value that cannot be used."""


class EngineError(SparseSegError):
    """The engine process does not answer, or not in our language."""


class ClusterError(SparseSegError):
    """The workers of a cluster cannot do what they are asked."""


class LayerError(SparseSegError):
    """A napari layer cannot be used."""


class TrainingWarning(UserWarning):
    """Something is learned otherwise than asked; the dock shows it too."""


def enumerated(items: Sequence[object], most: int = 20) -> str:
    """Word items for a message: "1, 2, 3 and 5 more"."""
    words = [str(item) for item in items[:most]]
    more = len(items) - len(words)
    return (", ".join(words) or "none") + (f" and {more} more" if more else "")


def one_of(given: object, known: Iterable[str]) -> str:
    """Word what was expected, and what may have been meant.

    "expected one of unet, vgg-fcn; did you mean unet?", without a full stop.
    """
    names = list(known)
    alike = get_close_matches(str(given), names, 1)
    meant = f"; did you mean {alike[0]}?" if alike else "."
    return f"expected one of {', '.join(names)}{meant}"


def shortened(value: object) -> str:
    """Word a value for a message, in 60 characters at most."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
