"""What goes wrong is told in one sentence, as a notification of napari."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error

from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.gui.log import cause_of, sentence_on

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)


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
