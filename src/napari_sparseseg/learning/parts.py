"""Long work as a generator that stops between its parts, so that others get a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")


def advance(parts: Generator[object, None, T]) -> T | None:
    """Do the next part; return the result if it was the last, else None."""
    try:
        next(parts)
    except StopIteration as done:
        result: T = done.value
        return result
    return None


def finish(parts: Generator[object, None, T]) -> T:
    """Do all parts; return the result."""
    while (result := advance(parts)) is None:
        pass
    return result
