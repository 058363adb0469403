"""What starting costs: fresh interpreters, this project beside napari and torch."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks._machine import machine, sentence, source_hash
from benchmarks._report import (
    RESULTS,
    command_line,
    middle,
    new_section,
    publish,
    write_json,
)

#: What is timed, by title, and the package that it needs.
SUBJECTS = {
    "nothing": ("pass", None),
    "import napari_sparseseg": ("import napari_sparseseg", None),
    "import napari_sparseseg.api": ("import napari_sparseseg.api", None),
    "sparseseg --help": (
        "import sys; from napari_sparseseg.cli import main; "
        "sys.argv = ['sparseseg', '--help']; main()",
        None,
    ),
    "import torch": ("import torch", "torch"),
    "import napari": ("import napari", "napari"),
    "from napari import Viewer": ("from napari import Viewer", "napari"),
}

#: Times the code itself, apart from the interpreter's own start; ``--help`` ends the
#: interpreter, so the time is told at its end.
TIMED = """
import atexit, sys, time
started = time.perf_counter()
atexit.register(lambda: print(time.perf_counter() - started, file=sys.stderr))
{}
"""


def main() -> None:
    """Measure, print and keep the results."""
    args = parse_arguments()
    seconds = measure(args.runs)
    content = {
        "command": command_line("startup"),
        "machine": machine("napari-sparseseg", "napari"),
        "source": source_hash(),
        "runs": args.runs,
        "seconds": seconds,
    }
    section = new_section(
        f"Fresh interpreters, files in the disk cache: ms, median of {args.runs} "
        "interleaved runs and range",
        ["", "itself", "whole process"],
    )
    for title in SUBJECTS:
        times = seconds[title]
        if times is None:
            section.table.add_row(title, "not installed")
            continue
        cells = ([1000 * each[i] for each in times] for i in (0, 1))
        section.table.add_row(title, *(middle(each, 0) for each in cells))
    path = args.results / "startup.json"
    write_json(path, content)
    publish(path, section, sentence(content["machine"]), content["command"])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("benchmarks.startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="the median counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    return parser.parse_args()


def measure(runs: int) -> dict[str, list[tuple[float, float]] | None]:
    """Time all subjects in turn; the first round only fills the disk cache.

    Returns
    -------
    dict
        By title: (seconds of the code itself, of the whole process) of each run, None
        where the package is not installed.
    """
    found: dict[str, Any] = {
        title: [] if package is None or find_spec(package) else None
        for title, (_, package) in SUBJECTS.items()
    }
    for turn in range(runs + 1):
        for title, (code, _) in SUBJECTS.items():
            if found[title] is None:
                continue
            times = run_once(code)
            if turn > 0:
                found[title].append(times)
    return found


def run_once(code: str) -> tuple[float, float]:
    """Run code in a fresh interpreter: its own seconds, and those of the process."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(code)],
        check=True,
        capture_output=True,
        text=True,
    )
    whole = time.perf_counter() - started
    return float(done.stderr.splitlines()[-1]), whole


if __name__ == "__main__":
    main()
