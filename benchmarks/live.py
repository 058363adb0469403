"""The live loop: strokes to pictures in a real window, and the engine without one.

Everything is measured in processes of its own, one after the other, with settings that
are nobody's. Where there is no display, Xvfb is started.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._live_display import display, own_settings, why_no_window
from benchmarks._live_tables import (
    dock_section,
    engine_section,
    gap_section,
    stroke_section,
    tile_section,
    training_section,
)
from benchmarks._machine import in_fresh_process, machine, sentence, source_hash
from benchmarks._report import RESULTS, command_line, publish, write_json

if TYPE_CHECKING:
    from benchmarks._report import Section

#: Of a measurement that only shows whether all works.
QUICK = {"strokes": 2, "trainings": 2, "gap_seconds": 2.0, "tiles": 3, "docks": 1}

#: Side of the image that the engine predicts without a window.
ENGINE_PX = 1024


def main() -> None:
    """Measure, print and keep the results."""
    args = parse_arguments()
    path = args.results / "live.json"
    content: dict[str, Any] = {
        "command": command_line("live"),
        "machine": machine("napari-sparseseg", "napari", "PyQt6"),
        "source": source_hash(),
    }
    parts: list[Section | str] = []
    with own_settings():
        problem = why_no_window()
        if problem:
            parts.append(problem)
        else:
            with display():
                content |= measure_windows(args)
            parts += window_parts(content)
        content["engines"] = measure_engines(args, content["machine"]["gpu"])
    parts.append(engine_section(content["engines"]))
    write_json(path, content)
    publish(path, *parts, sentence(content["machine"]), content["command"])


def parse_arguments() -> argparse.Namespace:
    """Read the command line; ``--quick`` sets what was not given."""
    parser = argparse.ArgumentParser("benchmarks.live", description=__doc__)
    add = parser.add_argument
    add("--strokes", type=int, default=12, help="that are measured; the median counts")
    add("--trainings", type=int, default=5, help="started one after the other")
    add("--gap-seconds", type=float, default=20.0, help="of each state of the window")
    add("--tiles", type=int, default=20, help="written into a large layer")
    add("--docks", type=int, default=5, help="opened, each in a process of its own")
    add("--size", type=int, default=512, help="side of the image in the window")
    add("--device", choices=["cpu", "cuda"], help="default: all that are there")
    add("--quick", action="store_true", help="see whether it works; numbers are poor")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args()


def measure_windows(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all that needs a window."""
    # These load napari, which this process and the engine's do without.
    from benchmarks._live_dock import measure_dock
    from benchmarks._live_measures import measure_window
    from benchmarks._live_tiles import measure_tiles

    found: dict[str, Any] = {
        "docks": [in_fresh_process(measure_dock) for _ in range(args.docks)]
    }
    print("docks: done", flush=True)
    found["tiles"] = in_fresh_process(measure_tiles, args.tiles)
    print("tiles: done", flush=True)
    found["window"] = in_fresh_process(
        measure_window,
        args.size,
        args.device or "auto",
        args.strokes,
        args.trainings,
        args.gap_seconds,
    )
    return found


def window_parts(content: dict[str, Any]) -> list[Section | str]:
    """Return tables and sentences of what needed a window."""
    window = content["window"]
    torch_there = "loaded" if window["torch_in_window"] else "not loaded"
    return [
        stroke_section(window),
        gap_section(window),
        training_section(window),
        tile_section(content["tiles"]),
        dock_section(content["docks"]),
        f"Phantom of {window['size']} x {window['size']}; the engine computes on "
        f"{window['device']}; the canvas is drawn by {window['renderer']}; torch is "
        f"{torch_there} in the process of the window.",
    ]


def measure_engines(args: argparse.Namespace, gpu: str | None) -> list[dict[str, Any]]:
    """Measure the engine on each device."""
    from benchmarks._live_engine import measure_engine

    devices = [args.device] if args.device else ["cpu", *(["cuda"] if gpu else [])]
    found = []
    for device in devices:
        found.append(in_fresh_process(measure_engine, ENGINE_PX, device, args.strokes))
        print(f"engine on {device}: done", flush=True)
    return found


if __name__ == "__main__":
    main()
