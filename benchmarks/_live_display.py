"""Where windows are opened that nobody looks at, and settings that are nobody's."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from napari_sparseseg.display import has_display, missing_parts, virtual_display

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Folders of settings, sessions and logs.
FOLDERS = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def why_no_window() -> str:
    """Say why no window can be opened; empty where one can."""
    missing = missing_parts()
    if missing:
        return f"Windows were not measured: {', '.join(missing)} is not installed."
    if not has_display() and not which("Xvfb"):
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
    if has_display():
        yield
        return
    before = {"DISPLAY": os.environ.get("DISPLAY")}
    with virtual_display() as name:
        os.environ["DISPLAY"] = name
        try:
            yield
        finally:
            _restore(before)


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
