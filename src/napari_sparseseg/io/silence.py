"""What libraries warn of and log is kept away, in all threads and for good.

Filters of warnings and levels of loggers belong to the process, and images are read in
threads: one that changed them for a while and then took that back would undo what
others have changed meanwhile.
"""

from __future__ import annotations

import logging
import re
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def never_warn(category: type[Warning] = Warning, module: str = "") -> None:
    """Ignore warnings from now on.

    Parameters
    ----------
    category
        Of the warnings.
    module
        Pattern of the names of the modules that warn; empty: all.
    """
    mine = ("ignore", None, category, re.compile(module) if module else None, 0)
    filters: Sequence[Any] = warnings.filters
    for each in filters:
        if each == mine:
            return
        if each[0] != "ignore":
            break
    # Somebody has put another one before it, or taken it away.
    warnings.filterwarnings("ignore", category=category, module=module)


def never_log(library: str) -> None:
    """Let nothing be logged any more by the loggers that a library has by now."""
    _filter_loggers(library, len(logging.root.manager.loggerDict))


@lru_cache
def _filter_loggers(library: str, n_loggers: int) -> None:
    """Look through the loggers, again once there are more of them."""
    known = list(logging.root.manager.loggerDict)
    for name in (library, *(each for each in known if each.startswith(f"{library}."))):
        logging.getLogger(name).addFilter(_refuse)


def _refuse(_: logging.LogRecord) -> bool:
    return False
