"""The log file that error messages name. Nothing in it tells of a patient."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from logging.handlers import RotatingFileHandler
from pathlib import Path

from platformdirs import user_log_path
from psygnal import EmitLoopError

from napari_sparseseg.engine.log import Harmless, WordlessFormatter, only_trace
from napari_sparseseg.errors import SparseSegError

ROOT = logging.getLogger("napari_sparseseg")

#: The log starts anew beyond this many bytes; one older file is kept.
LONGEST = 2**20

#: Longer words of an unexpected error are cut.
MOST_LETTERS = 200


def log_folder() -> Path:
    """Return the folder of this project's logs, made where it is missing.

    Where the user's own folders cannot be written it is one of temporary files.
    """
    own = user_log_path("napari-sparseseg", appauthor=False)
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _temporary_folder()
    return own if os.access(own, os.W_OK) else _temporary_folder()


def log_file() -> Path:
    """Return the log of the window."""
    return log_folder() / "window.log"


def start_log() -> None:
    """Let the log be written, once a process; where it cannot be, go on without."""
    if any(isinstance(each, RotatingFileHandler) for each in ROOT.handlers):
        return
    try:
        handler = RotatingFileHandler(
            log_file(), maxBytes=LONGEST, backupCount=1, encoding="utf-8"
        )
    except OSError:
        return
    handler.setFormatter(WordlessFormatter())
    ROOT.addHandler(handler)
    ROOT.setLevel(logging.INFO)


def cause_of(error: BaseException) -> BaseException:
    """Return the error that was raised in a slot of psygnal, however deep."""
    while isinstance(error, EmitLoopError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def sentence_on(error: BaseException) -> str:
    """Return one sentence on an error, without a traceback."""
    if isinstance(error, SparseSegError):
        return str(error)
    words = " ".join(str(error).split())[:MOST_LETTERS] or "no more is known"
    return (
        f"Something unexpected happened ({type(error).__name__}: {words}); your "
        f"strokes are still in their layers. Details: {log_file()}"
    )


def without_words(trace: str) -> Harmless:
    """Return of the details of an error what may be logged."""
    return only_trace(trace)


@functools.cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="napari-sparseseg-log-"))
