"""Long work is given up in the middle of a step, by whoever waits for its next event.

A generator of events can be closed only between two of them. What takes long in between
calls `stop_if_wished` now and then; alone that does nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Interrupted(Exception):
    """The work is not wanted any more; nothing of it is half written."""


def _never() -> bool:
    return False


_IS_WISHED: ContextVar[Callable[[], bool]] = ContextVar("is_wished", default=_never)


@contextmanager
def interruptible(is_wished: Callable[[], bool]) -> Iterator[None]:
    """Let work in this thread end with `Interrupted` once *is_wished* gives True."""
    token = _IS_WISHED.set(is_wished)
    try:
        yield
    finally:
        _IS_WISHED.reset(token)


def stop_if_wished() -> None:
    """Raise `Interrupted` where somebody wishes for it."""
    if _IS_WISHED.get()():
        raise Interrupted
