"""Published weights come to this computer while the window goes on."""

from __future__ import annotations

import logging
from contextlib import closing
from threading import Thread
from typing import TYPE_CHECKING

from napari_sparseseg.errors import ModelFileError, SparseSegError
from napari_sparseseg.gui.log import sentence_on
from napari_sparseseg.networks.published_weights import fetch_in_parts

if TYPE_CHECKING:
    from napari_sparseseg.networks.published_weights import EncoderName

logger = logging.getLogger(__name__)


class WeightsDownload:
    """A download in a thread of its own, which knows nothing of Qt.

    Parameters
    ----------
    name
        The encoder whose weights are fetched.

    Attributes
    ----------
    received
        Bytes so far.
    problem
        Why it has failed, in words; empty where it has not.
    """

    def __init__(self, name: EncoderName) -> None:
        self.received = 0
        self.problem = ""
        self._name = name
        self._is_cancelled = False
        # Nobody waits for it when napari ends.
        self._thread = Thread(target=self._run, name=f"weights of {name}", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether there is more to come."""
        return self._thread.is_alive() and not self._is_cancelled

    def cancel(self) -> None:
        """Give it up; nothing is left of it."""
        self._is_cancelled = True

    def _run(self) -> None:
        try:
            with closing(fetch_in_parts(self._name, "imagenet")) as parts:
                for self.received in parts:
                    if self._is_cancelled:
                        return
        except ModelFileError as error:
            self.problem = str(error.__cause__ or error)
        except SparseSegError as error:
            self.problem = str(error)
        except Exception as error:
            logger.exception("unexpected")
            self.problem = sentence_on(error)


#: The last one of each encoder: one is enough, wherever it is asked for.
_LAST: dict[EncoderName, WeightsDownload] = {}


def last_download(name: EncoderName) -> WeightsDownload | None:
    """Return the download that is under way, or was last; None where none was."""
    return _LAST.get(name)


def start_download(name: EncoderName) -> WeightsDownload:
    """Fetch weights, unless that is under way."""
    last = _LAST.get(name)
    if last is None or not last.is_running:
        last = _LAST[name] = WeightsDownload(name)
    return last
