"""Whether windows can be opened, and a display for those that nobody looks at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from napari_sparseseg.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Width, height and bits a pixel of a virtual display.
SCREEN = "1600x1200x24"


def missing_parts() -> list[str]:
    """Return the packages that windows need and that are not installed."""
    return [name for name in ("napari", "pyqtgraph", "qtpy") if not find_spec(name)]


def has_display() -> bool:
    """Tell whether windows can be seen; on Linux, whether there is a display."""
    if sys.platform != "linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def virtual_display() -> Iterator[str]:
    """Start Xvfb; yield the name of its display.

    Raises
    ------
    OptionError
        If there is no Xvfb, or it does not start.
    """
    program = shutil.which("Xvfb")
    if program is None:
        raise OptionError(
            "there is neither a display nor Xvfb; install Xvfb to have one (Debian, "
            "Ubuntu: apt-get install xvfb)."
        )
    source, target = os.pipe()
    process = subprocess.Popen(
        [program, "-displayfd", str(target), "-screen", "0", SCREEN],
        pass_fds=[target],
        stderr=subprocess.DEVNULL,
    )
    os.close(target)
    try:
        with open(source, encoding="ascii") as pipe:
            number = pipe.readline().strip()
        if not number:
            raise OptionError(f"{program} does not start; run it to see why.")
        yield f":{number}"
    finally:
        process.terminate()
        process.wait()
