"""What happened in the window and the engine, and when; repaints are found in it."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_sparseseg.engine.messages import (
    HeadFitted,
    Predict,
    PutImage,
    TileDone,
    Validated,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sparseseg.engine.messages import Region

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StrokeDone:
    """The mouse button was released after a stroke."""


@dataclass(frozen=True, slots=True)
class LayerUpdated:
    """The prediction layer has given new values to the canvas."""


@dataclass(frozen=True, slots=True)
class FrameDrawn:
    """The canvas is on the screen."""


class Log:
    """Messages and marks in the order of time, in seconds of ``perf_counter``."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, Any]] = []

    def add(self, what: Any) -> None:
        """Note what happens now."""
        self._entries.append((time.perf_counter(), what))

    def since(self, start: float) -> Iterator[tuple[float, Any]]:
        """Give what has happened from *start* on."""
        index = bisect_left(self._entries, start, key=lambda entry: entry[0])
        yield from self._entries[index:]

    def first(self, kind: type[T], start: float) -> tuple[float, T] | None:
        """Give the first of a kind from *start* on, None where there is none yet."""
        for at, what in self.since(start):
            if isinstance(what, kind):
                return at, what
        return None

    def last(self, kind: type[T], end: float) -> tuple[float, T] | None:
        """Give the last of a kind before *end*, None where there was none."""
        index = bisect_left(self._entries, end, key=lambda entry: entry[0])
        for at, what in reversed(self._entries[:index]):
            if isinstance(what, kind):
                return at, what
        return None


@dataclass(frozen=True, slots=True)
class Repaint:
    """What a view waits for, in seconds from the start.

    Attributes
    ----------
    put
        The strokes went to the engine; None where none did.
    learned
        The engine told that something was learned: the cause.
    asked
        A prediction was asked for.
    first_tile, first_drawn
        The first tile came; it was on the screen.
    all_tiles, drawn
        All tiles of the view had come; they were on the screen.
    shown
        What predicts: head, network or both.
    """

    put: float | None
    learned: float
    asked: float
    first_tile: float
    first_drawn: float
    all_tiles: float
    drawn: float
    shown: str


def find_repaint(
    log: Log,
    start: float,
    cause: type[HeadFitted | Validated],
    view: Region,
) -> Repaint | None:
    """Return the first repaint of a view after *cause*, None where it is not complete.

    Predictions that are asked for later count, too: they know the same.

    Parameters
    ----------
    log
        Of a window.
    start
        From when on is looked, and what seconds are counted from.
    cause
        What was learned.
    view
        (y0, x0, y1, x1) in image pixels.
    """
    learned = log.first(cause, start)
    asked = None if learned is None else log.first(Predict, learned[0])
    if learned is None or asked is None:
        return None
    tiles = _tiles(log, asked, view)
    drawn = [_drawn(log, at) for at in tiles]
    if len(tiles) < 2 or drawn[0] is None or drawn[1] is None:
        return None
    put = log.first(PutImage, start)
    judged = log.last(Validated, asked[0])
    return Repaint(
        put=None if put is None or put[0] > learned[0] else put[0] - start,
        learned=learned[0] - start,
        asked=asked[0] - start,
        first_tile=tiles[0] - start,
        first_drawn=drawn[0] - start,
        all_tiles=tiles[1] - start,
        drawn=drawn[1] - start,
        shown="head" if judged is None else judged[1].shown,
    )


def _tiles(log: Log, asked: tuple[float, Predict], view: Region) -> list[float]:
    """Return when the first and the last tile of a view came, as far as they did."""
    y0, x0, y1, x1 = view
    missing = np.ones((y1 - y0, x1 - x0), bool)
    times: list[float] = []
    for at, what in log.since(asked[0]):
        if isinstance(what, TileDone) and what.generation >= asked[1].generation:
            top, left, bottom, right = what.region
            missing[
                max(0, top - y0) : max(0, bottom - y0),
                max(0, left - x0) : max(0, right - x0),
            ] = False
            times = times or [at]
            if not missing.any():
                return [*times, at]
    return times


def _drawn(log: Log, came: float) -> float | None:
    """Return when the tile that came then was on the screen."""
    updated = log.first(LayerUpdated, came)
    frame = None if updated is None else log.first(FrameDrawn, updated[0])
    return None if frame is None else frame[0]
