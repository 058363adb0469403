"""Where windows are opened that nobody looks at, and settings that are nobody's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SCREEN = "1600x1000x24"

#: Folders of settings, sessions and logs.
FOLDERS = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def why_no_window() -> str:
    """Say why no window can be opened; empty where one can."""
    missing = [name for name in ("napari", "pyqtgraph", "qtpy") if not find_spec(name)]
    if missing:
        return f"Windows were not measured: {', '.join(missing)} is not installed."
    if sys.platform == "linux" and not _has_display() and not which("Xvfb"):
        return "Windows were not measured: there is neither a display nor Xvfb."
    return ""


@contextmanager
def own_settings() -> Iterator[None]:
    """Let processes started within have settings, sessions and logs of their own."""
    before = {name: os.environ.get(name) for name in FOLDERS}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update({name: str(Path(folder) / name) for name in FOLDERS})
        try:
            yield
        finally:
            _restore(before)


@contextmanager
def display() -> Iterator[None]:
    """Give processes started within a display: the one there is, else Xvfb."""
    if sys.platform != "linux" or _has_display():
        yield
        return
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", SCREEN]
    before: dict[str, str | None] = {"DISPLAY": None}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        os.environ["DISPLAY"] = f":{server.stdout.readline().strip()}"
        try:
            yield
        finally:
            _restore(before)
            server.terminate()


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
