"""How far something is, in napari's activity dock."""

from __future__ import annotations

from io import StringIO

from napari.utils import progress

TOTAL = 100


class Activity:
    """A bar in the activity dock, there as long as something runs.

    Parameters
    ----------
    what
        Runs, in a few words.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: progress | None = None

    def show(self, share: float | None) -> None:
        """Show the share that is done, or no bar where nothing runs."""
        if share is None:
            if self._bar is not None:
                self._bar.close()
            self._bar = None
            return
        if self._bar is None:
            # Else it would also be written to the terminal, if there is any.
            self._bar = progress(total=TOTAL, desc=self._what, file=StringIO())
        self._bar.update(round(TOTAL * share) - self._bar.n)
