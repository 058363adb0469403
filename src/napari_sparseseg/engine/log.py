"""What may stand in a log: where something went wrong, never what it was called.

Words of errors and of other packages name files and layers, and so a patient. So a line
tells the module and line it comes from and our own words, with "…" for their values;
of an error its type, and where in this package it was raised. The values that may be
shown are numbers and ``Harmless`` text.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PACKAGE = __name__.partition(".")[0]

#: How a place in this package is written by `trace_of`.
PLACE = re.compile(rf"  {PACKAGE}[\w.]*:\d+ in [\w<>]+")

#: How the type of an error is.
TYPE = re.compile(r"[A-Za-z_]\w*")


class Harmless(str):
    """Text of which it is known that it names neither file nor layer."""

    __slots__ = ()

    def __str__(self) -> Harmless:
        """Return itself: who takes its text takes harmless text."""
        return self


class WordlessFormatter(logging.Formatter):
    """Writes time, level, place and our own words; of an error `trace_of`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s:%(lineno)d %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        wordless = logging.makeLogRecord(record.__dict__)
        wordless.msg, wordless.args = _own_words(record), None
        wordless.exc_text = wordless.stack_info = None
        return super().format(wordless).rstrip()

    def formatException(self, ei: Any) -> str:
        """Return where an error was raised, and its type."""
        return trace_of(ei[1])


def trace_of(error: BaseException) -> Harmless:
    """Return where in this package an error was raised, and its type.

    Errors that led to it come first, each with the places from the outermost inwards.
    """
    lines = []
    for each in reversed(list(_chain(error))):
        lines += [
            f"  {module}:{line} in {function}"
            for module, line, function in _places(each.__traceback__)
            if module.partition(".")[0] == PACKAGE
        ]
        lines.append(type(each).__name__)
    return Harmless("\n".join(lines))


def only_trace(text: str) -> Harmless:
    """Return those lines of a text that `trace_of` may have written."""
    return Harmless(
        "\n".join(
            line
            for line in text.splitlines()
            if PLACE.fullmatch(line) or TYPE.fullmatch(line)
        )
    )


def log_to(stream: TextIO) -> None:
    """Let all that is logged, warned of or raised and not caught go to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(WordlessFormatter())
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(True)
    logger = logging.getLogger(__name__)

    def uncaught(
        kind: type[BaseException], error: BaseException, _: TracebackType | None
    ) -> None:
        logger.critical("%s", trace_of(error))

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            uncaught(args.exc_type, args.exc_value, None)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread


def _own_words(record: logging.LogRecord) -> str:
    """Return the words of a record without values that may name something."""
    words, args = record.msg, record.args
    if isinstance(words, Harmless):
        return words
    # What is logged without values may be made of them.
    if record.name.partition(".")[0] != PACKAGE:
        return ""
    if not (args and isinstance(args, tuple) and isinstance(words, str)):
        return ""
    shown = [each if isinstance(each, Harmless | int | float) else "…" for each in args]
    try:
        return str(words % tuple(shown))
    except (TypeError, ValueError):  # a number was to be, and "…" is none
        return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return an error and those that led to it."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)


def _places(trace: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    """Return module, line and function of each call that led to an error."""
    for frame, line in traceback.walk_tb(trace):
        yield str(frame.f_globals.get("__name__", "")), line, frame.f_code.co_name
