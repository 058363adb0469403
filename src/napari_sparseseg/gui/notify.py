"""What goes wrong is told in one sentence, as a notification of napari."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error

from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.gui.log import cause_of, log_file

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

#: Longer words of an unexpected error are cut.
MOST_LETTERS = 200


@contextmanager
def telling() -> Iterator[None]:
    """Tell the user what goes wrong, and go on.

    Slots run in this, as a decorator or a block. napari would show what escapes from a
    slot with its traceback, and a change of its layers that is cut short by an error
    of a listener stays half done.
    """
    try:
        yield
    except SparseSegError as error:
        show_error(str(error))
    except Exception as error:
        cause = cause_of(error)
        if not isinstance(cause, SparseSegError):
            logger.exception("unexpected")
        show_error(sentence_on(cause))


def sentence_on(error: BaseException) -> str:
    """Return one sentence on an error, without a traceback."""
    if isinstance(error, SparseSegError):
        return str(error)
    words = " ".join(str(error).split())[:MOST_LETTERS] or "no more is known"
    return (
        f"Something unexpected happened ({type(error).__name__}: {words}); your "
        f"strokes are still in their layers. Details: {log_file()}"
    )
