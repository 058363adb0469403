"""Files from the network, which come in the background while their caller goes on."""

from __future__ import annotations

import hashlib
import time
from http.client import HTTPException
from threading import Thread
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from napari_sparseseg.errors import OutputError
from napari_sparseseg.io.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

#: A server that says nothing for longer is given up, in seconds.
SILENCE_S = 20.0

#: The caller gets a turn this often, in seconds.
TURN_S = 0.05

#: Most bytes that are read at once.
CHUNK = 1 << 16


class DownloadError(Exception):
    """A file cannot be had; the message tells why, in words for inside a sentence."""


def download_in_parts(
    url: str, path: Path, sha256: str, silence_s: float = SILENCE_S
) -> Generator[int, None, None]:
    """Download a file, completely or not at all.

    Whoever stops asking and closes the generator gives the download up.

    Parameters
    ----------
    url
        Where it is.
    path
        Where it is to be; folders are made.
    sha256
        How its SHA-256 begins, in hexadecimal digits.
    silence_s
        A server that says nothing for longer is given up, in seconds.

    Yields
    ------
    int
        Bytes so far, every ``TURN_S`` seconds, whether or not there are more.

    Raises
    ------
    DownloadError
        If the server cannot be reached, falls silent, or gives another file.
    OutputError
        If the file cannot be written.
    """
    download = _Download(url, path, sha256, silence_s)
    # It may hang in a system call: the process does not wait for it at its end.
    thread = Thread(target=download.run, name=f"download {path.name}", daemon=True)
    thread.start()
    received, heard_at = 0, time.monotonic()
    try:
        while thread.is_alive():
            if download.received > received:
                received, heard_at = download.received, time.monotonic()
            elif time.monotonic() - heard_at > silence_s:
                raise DownloadError(f"the server was silent for {silence_s:g} seconds")
            thread.join(TURN_S)
            yield download.received
    finally:
        download.is_given_up = True
    if download.error is not None:
        raise download.error


class _Download:
    """A download that goes on in a thread of its own."""

    def __init__(self, url: str, path: Path, sha256: str, silence_s: float) -> None:
        self.received = 0
        self.is_given_up = False
        self.error: DownloadError | OutputError | None = None
        self._url = url
        self._path = path
        self._sha256 = sha256
        self._silence_s = silence_s

    def run(self) -> None:
        try:
            write_atomically(self._path, self._write)
        except (DownloadError, OutputError) as error:
            self.error = error

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in self._chunks():
                file.write(chunk)
                digest.update(chunk)
                self.received += len(chunk)
        if not digest.hexdigest().startswith(self._sha256):
            raise DownloadError(
                f"the {self.received} bytes that came have a SHA-256 that begins with "
                f"{digest.hexdigest()[: len(self._sha256)]} and not with {self._sha256}"
            )

    def _chunks(self) -> Iterator[bytes]:
        request = Request(self._url, headers={"User-Agent": "napari-sparseseg"})
        try:
            with urlopen(request, timeout=self._silence_s) as response:
                while chunk := response.read1(CHUNK):
                    if self.is_given_up:
                        raise DownloadError("it was given up")
                    yield chunk
        except (OSError, HTTPException) as error:
            raise DownloadError(_reason(error)) from error


def _reason(error: OSError | HTTPException) -> str:
    """Return why there is no answer, in the words of the system where it has some."""
    inner: object = error
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        inner = error.reason
    words = getattr(inner, "strerror", None) or str(inner)
    return " ".join(words.split()).rstrip(".") or type(error).__name__
