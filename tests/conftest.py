"""Fixtures that all tests share."""

import gc
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import pytest

from napari_sparseseg.cli import main
from napari_sparseseg.networks.published_weights import (
    PUBLISHED,
    EncoderName,
    published_path,
)

REPOSITORY = Path(__file__).resolve().parents[1]

#: Variables that let programs believe in a terminal.
TERMINAL = ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE")

#: Variables that name the folders of a user's caches, settings, strokes and logs.
HOMES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


def pytest_configure(config: pytest.Config) -> None:
    """Let programs know of no terminal and of no user, and prepare for windows."""
    for variable in TERMINAL:
        os.environ.pop(variable, None)
    home = TemporaryDirectory(prefix="sparseseg-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    for variable in HOMES:
        os.environ[variable] = str(Path(home.name, variable))
    # Torch imports it when it first learns. It has an LLVM as Mesa's OpenGL has, and a
    # process that loads Mesa's first dies. Windows never load torch, tests do.
    with suppress(ImportError):
        import_module("triton")


def pytest_collection_finish() -> None:
    """Let nobody who collects garbage look at what was imported, again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # Else libraries take what is left for their leaks, and say so at the end.
    gc.unfreeze()


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Return a function that runs the command with some arguments."""
    handler = signal.getsignal(signal.SIGTERM)

    def run_command(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["sparseseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = (re.sub(r"\x1b\[\d+(;\d+)*m", "", t) for t in capsys.readouterr())
        return Done(int(end.value.code or 0), out, err)

    yield run_command
    signal.signal(signal.SIGTERM, handler)


class FileServer(ThreadingHTTPServer):
    """Answers each request with the same bytes.

    Attributes
    ----------
    parts
        Of the answer, with *pause_s* seconds before each.
    asked
        Paths that were asked for.
    is_closing
        Ends what it still sends.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.parts: list[bytes] = []
        self.pause_s = 0.0
        self.asked: list[str] = []
        self.is_closing = Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        with suppress(ConnectionError):  # nobody listens any more
            for part in self.server.parts:
                if self.server.is_closing.wait(self.server.pause_s):
                    return
                self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def pretend_fetched(name: EncoderName) -> Path:
    """Leave a file as large as the published weights of an encoder; return its path."""
    path = published_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, round(PUBLISHED[name].size_mib * 2**20))
    return path


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """Return a server of this computer that gives what it is told to."""
    with FileServer() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.is_closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real images with strokes, boxes and truth; skips where it is absent."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("SPARSESEG_DATA") or default)
    if not folder.is_dir():
        pytest.skip(
            f"real images are not at {folder}: set SPARSESEG_DATA to their folder"
        )
    return folder
