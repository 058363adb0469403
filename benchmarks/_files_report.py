"""Tables of the benchmark of files, and what a thousand slides cost by them."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._machine import sentence
from benchmarks._report import middle, new_section
from napari_sparseseg.io.atomic import write_text_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks._report import Section

#: Between these lines of a document stands what was measured.
FIRST, LAST = "<!-- from benchmarks/results/files.json -->", "<!-- until here -->"

#: The set of slides whose cost is told, and the computers that share it.
N_SLIDES, N_COMPUTERS = 1000, (1, 4, 16, 64)


def sections(content: dict[str, Any]) -> Iterator[Section]:
    """Give the tables of what was measured."""
    if content.get("open") or "outlines" in content:
        yield small_section(content)
    if "autosave" in content:
        yield autosave_section(content["autosave"])
    for name in ("large", "workers"):
        if name in content:
            yield predicted_section(content[name])


def small_section(content: dict[str, Any]) -> Section:
    """Seconds of what is quick."""
    section = new_section(
        "Files: seconds, median of runs and range", ["", "seconds", "ratio"]
    )
    table = section.table
    if content.get("open"):
        table.add_row("a slide: path to pixels", middle(content["open"]), "")
    if "outlines" in content:
        outlines = content["outlines"]
        seconds = outlines["seconds"]
        ratio = median(seconds["ours"]) / median(seconds["rasterio"])
        what = f"outlines of {outlines['objects']} objects"
        table.add_row(f"{what}: this project", middle(seconds["ours"]), f"{ratio:.2f}")
        table.add_row(f"{what}: rasterio and json", middle(seconds["rasterio"]), "1.00")
    return section


def autosave_section(kinds: list[dict[str, Any]]) -> Section:
    """Show what it costs the window to have each stroke on disk."""
    section = new_section(
        "Strokes kept in a session: milliseconds, median and 99th percentile",
        [
            "labels",
            "gaps of the event loop without",
            "with a session",
            "calls of the window",
            "stroke to disk",
            "session",
            "restored in",
        ],
    )
    for kind in kinds:
        section.table.add_row(
            f"{kind['kind']}, {' x '.join(map(str, kind['shape']))}",
            *(
                "{:.1f}, {:.1f}".format(*np.percentile(kind[name], (50, 99)))
                for name in (
                    "gaps_without_ms",
                    "gaps_with_ms",
                    "calls_ms",
                    "until_on_disk_ms",
                )
            ),
            f"{kind['on_disk_bytes'] / 1e6:.1f} MB",
            f"{kind['restore_s']:.1f} s",
        )
    return section


def predicted_section(made: dict[str, Any]) -> Section:
    """Speed and memory of predicting a slide."""
    section = new_section(
        f"OME-Zarr to OME-Zarr on the CPU, {made['size']} x {made['size']} RGB, "
        f"{made['tissue']:.1%} tissue, light network at scale {made['scale']:g}, "
        f"tiles of {made['tile']} working pixels",
        [
            "processes",
            "threads\nin all",
            "chunks",
            "glass",
            "seconds",
            "network\nalone",
            "ratio",
            "ratio by\nprocessor",
            "chunks/s",
            "Mpx/s",
            "peak memory",
        ],
    )
    for run in made["runs"]:
        # What several processes take has no such bound: they share the cores.
        alone = run.get("seconds_of_network")
        section.table.add_row(
            str(run["workers"]),
            str(run["threads"]),
            str(run["chunks"]),
            str(run["glass"]),
            f"{run['seconds']:.1f}",
            f"{alone:.1f}" if alone else "-",
            f"{run['seconds'] / alone:.2f}" if alone else "-",
            f"{run['seconds_cpu'] / run['seconds_cpu_of_network']:.2f}"
            if alone
            else "-",
            f"{chunks_per_second(run):.2f}",
            f"{pixels_per_second(run) / 1e6:.2f}",
            f"{run['bytes_peak'] / 1e6:.0f} MB" if alone else "-",
        )
    return section


def chunks_per_second(run: dict[str, Any]) -> float:
    """Return the speed after the first chunk, for which processes start and wait."""
    speed: float = (run["chunks"] - 1) / run["seconds_after_first"]
    return speed


def pixels_per_second(run: dict[str, Any]) -> float:
    """Return the pixels of tissue a second, after the first chunk."""
    per_chunk: float = run["pixels"] / run["chunks"]
    return chunks_per_second(run) * per_chunk


def write_costs(content: dict[str, Any], document: Path) -> None:
    """Replace what a document says of costs by what these results say."""
    text = document.read_text(encoding="utf-8")
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    if not after:
        raise SystemExit(f"{document} lacks the lines {FIRST} and {LAST}.")
    parts = (before, FIRST, "\n\n", costs(content), "\n\n", LAST, after.rstrip())
    write_text_atomically(document, "".join(parts))


def costs(content: dict[str, Any]) -> str:
    """Word the measured speed, and what it means for many slides, in Markdown."""
    large, workers = content["large"], content["workers"]
    (run,) = large["runs"]
    one, two = map(chunks_per_second, workers["runs"])
    pixels = run["pixels"]
    hours = N_SLIDES * run["seconds"] / 3600
    efficiency = two / one / 2
    cores = content["machine"]["usable_cores"]
    rows = [f"| {n} | {hours / n:,.1f} h |" for n in N_COMPUTERS]
    memory, before = (run[f"bytes_{name}"] / 1e9 for name in ("peak", "before"))
    ratio = run["seconds_cpu"] / run["seconds_cpu_of_network"]
    machine = sentence(content["machine"])
    return "\n".join(
        [
            f"Measured by `{content['command']}` on one machine ({machine}):",
            "",
            "| what | measured |",
            "|---|---:|",
            f"| slide of {large['size']:,} x {large['size']:,} pixels, "
            f"{large['tissue']:.1%} tissue, OME-Zarr to OME-Zarr, light network at "
            f"scale {large['scale']:g}, {run['threads']} threads | "
            f"{run['seconds']:.0f} s |",
            f"| of that, the network alone | {run['seconds_of_network']:.0f} s |",
            f"| processor time by that of the network alone | {ratio:.2f} |",
            f"| pixels in chunks with tissue | {pixels / 1e6:,.0f} Mpx |",
            f"| *speed* | {pixels_per_second(run) / 1e6:.2f} Mpx/s |",
            f"| most memory of the process | {memory:.2f} GB |",
            f"| of that, before the first tile | {before:.2f} GB |",
            f"| one process with one core | {one:.2f} chunks/s |",
            f"| two processes with one core each | {two:.2f} chunks/s |",
            f"| *e* of these two | {efficiency:.2f} |",
            "",
            f"{N_SLIDES:,} such slides, each on one computer with {cores} cores, "
            f"are {N_SLIDES:,} x {run['seconds']:.0f} s = {hours:,.1f} h of one, and "
            f"{hours * cores:,.0f} core-hours whatever their number:",
            "",
            f"| computers of {cores} such cores | time |",
            "|---:|---:|",
            *rows,
        ]
    )
