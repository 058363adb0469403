"""Files: a slide opened, a large one predicted file to file, outlines exported.

The network alone is timed on as many tiles with their halos as chunks were predicted:
what is above that is reading, resampling, finding tissue, writing and coarser levels.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._files_large import make_slide, open_slide, predict_slide
from benchmarks._machine import in_fresh_process, machine, sentence, source_hash
from benchmarks._report import (
    RESULTS,
    command_line,
    middle,
    new_section,
    publish,
    write_json,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks._report import Section

REPOSITORY = Path(__file__).resolve().parents[1]

SLIDE = Path("formats", "wsi", "CMU-1-Small-Region.svs")

#: Side of the squares that each of the exported objects has for itself, in pixels.
OBJECT_PX = 24


def main() -> None:
    """Measure, print and keep the results."""
    args = parse_arguments()
    content: dict[str, Any] = {
        "command": command_line("files"),
        "machine": machine("napari-sparseseg", "zarr", "openslide-python", "dask"),
        "source": source_hash(),
    }
    path = args.results / "files.json"
    slide = args.data / SLIDE
    if slide.exists():
        content["open"] = [
            in_fresh_process(open_slide, slide) for _ in range(args.runs)
        ]
    content["outlines"] = measure_outlines(args.objects, args.runs)
    write_json(path, content)
    content["large"] = measure_large(args)
    write_json(path, content)
    sections = [small_section(content), large_section(content["large"])]
    publish(path, *sections, sentence(content["machine"]), content["command"])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("benchmarks.files", description=__doc__)
    add = parser.add_argument
    data = os.environ.get("SPARSESEG_DATA") or REPOSITORY.parent / "shared" / "data"
    add("--data", type=Path, default=Path(data), help="folder of real images")
    add("--size", type=int, default=40_000, help="side of the slide in pixels")
    add("--scale", type=float, default=1.0, help="working pixels per pixel")
    add("--tile", type=int, default=1024, help="side of a tile in working pixels")
    add("--workers", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    add("--objects", type=int, default=10_000, help="to be exported")
    add("--runs", type=int, default=3, help="of what is quick; the median counts")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def measure_outlines(n_objects: int, runs: int) -> dict[str, Any]:
    """Time the export of outlines by this project and by rasterio alone, in turn."""
    labels = discs(n_objects)
    seconds: dict[str, list[float]] = {"ours": [], "rasterio": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            for name, export in (("ours", export_ours), ("rasterio", export_rasterio)):
                started = time.perf_counter()
                export(labels, Path(folder) / f"{name}.geojson")
                seconds[name].append(time.perf_counter() - started)
        features = json.loads((Path(folder) / "ours.geojson").read_text("utf-8"))
    return {"objects": len(features["features"]), "seconds": seconds}


def discs(n_objects: int) -> NDArray[np.uint8]:
    """Return labels of so many discs, of two classes in turn."""
    columns = int(np.ceil(np.sqrt(n_objects)))
    y, x = (axis - (OBJECT_PX - 1) / 2 for axis in np.ogrid[:OBJECT_PX, :OBJECT_PX])
    disc = (y**2 + x**2 < (OBJECT_PX / 2 - 2) ** 2).astype(np.uint8)
    classes = np.arange(columns**2, dtype=np.uint8).reshape(columns, columns) % 2 + 1
    classes.flat[n_objects:] = 0
    return np.kron(classes, disc)


def export_ours(labels: NDArray[np.uint8], path: Path) -> None:
    """Write outlines as ``sparseseg export`` does."""
    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.io.export import export_labels

    export_labels(labels, path, ClassTable.from_values([1, 2]))


def export_rasterio(labels: NDArray[np.uint8], path: Path) -> None:
    """Write outlines as rasterio and the json of Python's library do."""
    from rasterio.features import shapes

    features = [
        {"type": "Feature", "geometry": outline, "properties": {"class": int(value)}}
        for outline, value in shapes(labels, mask=labels > 0)
    ]
    content = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(content), encoding="utf-8")


def measure_large(args: argparse.Namespace) -> dict[str, Any]:
    """Predict a slide with one process and with several."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "slide.ome.zarr"
        share = in_fresh_process(make_slide, source, args.size)
        runs = [
            in_fresh_process(
                predict_slide,
                source,
                Path(folder) / f"labels-{workers}.ome.zarr",
                args.scale,
                args.tile,
                workers,
            )
            for workers in args.workers
        ]
    return {
        "size": args.size,
        "scale": args.scale,
        "tile": args.tile,
        "tissue": share,
        "runs": runs,
    }


def small_section(content: dict[str, Any]) -> Section:
    """Seconds of what is quick."""
    section = new_section(
        "Files: seconds, median of runs and range", ["", "seconds", "ratio"]
    )
    table = section.table
    if "open" in content:
        table.add_row(f"{SLIDE.name}: path to pixels", middle(content["open"]), "")
    outlines = content["outlines"]
    seconds = outlines["seconds"]
    ratio = median(seconds["ours"]) / median(seconds["rasterio"])
    what = f"outlines of {outlines['objects']} objects"
    table.add_row(f"{what}: this project", middle(seconds["ours"]), f"{ratio:.2f}")
    table.add_row(f"{what}: rasterio and json", middle(seconds["rasterio"]), "1.00")
    return section


def large_section(large: dict[str, Any]) -> Section:
    """Speed and memory of predicting a slide."""
    section = new_section(
        f"OME-Zarr to OME-Zarr on the CPU, {large['size']} x {large['size']} RGB, "
        f"{large['tissue']:.1%} tissue, light network at scale {large['scale']:g}, "
        f"tiles of {large['tile']} working pixels",
        [
            "processes",
            "chunks",
            "glass",
            "seconds",
            "network alone",
            "ratio",
            "chunks/s",
            "Mpx/s",
            "peak memory",
        ],
    )
    for run in large["runs"]:
        alone = run["seconds_of_network"]
        # What several processes take has no such bound: they share the cores.
        is_one = run["workers"] == 1
        section.table.add_row(
            str(run["workers"]),
            str(run["chunks"]),
            str(run["glass"]),
            f"{run['seconds']:.1f}",
            f"{alone:.1f}" if is_one else "-",
            f"{run['seconds'] / alone:.2f}" if is_one else "-",
            f"{run['chunks'] / run['seconds_of_chunks']:.2f}",
            f"{run['pixels'] / run['seconds_of_chunks'] / 1e6:.2f}",
            f"{run['bytes_peak'] / 1e6:.0f} MB" if is_one else "-",
        )
    return section


if __name__ == "__main__":
    main()
