"""Files: a slide opened, a large one predicted file to file, strokes kept, outlines.

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
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._files_large import make_slide, open_slide, predict_slide
from benchmarks._files_report import sections, write_costs
from benchmarks._machine import (
    in_fresh_process,
    machine,
    sentence,
    source_hash,
    usable_cores,
)
from benchmarks._report import RESULTS, command_line, publish, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]

SLIDE = Path("formats", "wsi", "CMU-1-Small-Region.svs")

#: Side of the squares that each of the exported objects has for itself, in pixels.
OBJECT_PX = 24


def main() -> None:
    """Measure, print and keep the results."""
    args = parse_arguments()
    path = args.results / "files.json"
    if args.report is not None:
        write_costs(json.loads(path.read_text("utf-8")), args.report)
        return
    # As the command has it; it counts when torch is first imported, in each process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    content: dict[str, Any] = {
        "command": command_line("files"),
        "machine": machine("napari-sparseseg", "zarr", "openslide-python", "dask"),
        "source": source_hash(),
    }
    for name, measure in PARTS.items():
        if name in args.parts:
            started = time.perf_counter()
            content[name] = measure(args)
            write_json(path, content)
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    publish(path, *sections(content), sentence(content["machine"]), content["command"])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("benchmarks.files", description=__doc__)
    add = parser.add_argument
    data = os.environ.get("SPARSESEG_DATA") or REPOSITORY.parent / "shared" / "data"
    add("--parts", nargs="+", choices=PARTS, default=[*PARTS], help="default: all")
    add("--data", type=Path, default=Path(data), help="folder of real images")
    add("--size", type=int, default=40_000, help="side of the slide in pixels")
    add("--small-size", type=int, default=18_000, help="of that for several processes")
    add("--scale", type=float, default=1.0, help="working pixels per pixel")
    add("--tile", type=int, default=1024, help="side of a tile in working pixels")
    add("--objects", type=int, default=10_000, help="to be exported")
    add("--strokes", type=int, default=40, help="to be kept, on each kind of labels")
    add("--runs", type=int, default=3, help="of what is quick; the median counts")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    add(
        "--report",
        type=Path,
        metavar="FILE",
        help="measure nothing: write the costs of the results into this document",
    )
    return parser.parse_args()


def measure_open(args: argparse.Namespace) -> list[float]:
    """Time a slide from its path to first pixels; nothing where it is absent."""
    slide = args.data / SLIDE
    if not slide.exists():
        print(f"{slide} is not there; SPARSESEG_DATA names the folder of real images")
        return []
    return [in_fresh_process(open_slide, slide) for _ in range(args.runs)]


def measure_outlines(args: argparse.Namespace) -> dict[str, Any]:
    """Time the export of outlines by this project and by rasterio alone, in turn."""
    labels = discs(args.objects)
    seconds: dict[str, list[float]] = {"ours": [], "rasterio": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.runs):
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


def measure_autosave(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Paint with and without a session, without a window."""
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    kinds = ("CT series", "field")
    return [in_fresh_process(_autosave, kind, args.strokes) for kind in kinds]


def _autosave(kind: str, n_strokes: int) -> dict[str, Any]:
    from benchmarks import _files_autosave

    return _files_autosave.measure_autosave(kind, n_strokes)


def measure_large(args: argparse.Namespace) -> dict[str, Any]:
    """Predict a large slide by one process with all cores."""
    return predict_made(args, args.size, [(1, usable_cores())])


def measure_workers(args: argparse.Namespace) -> dict[str, Any]:
    """Predict a smaller slide by a process with one core, and by two with one each."""
    return predict_made(args, args.small_size, [(1, 1), (2, 2)])


def predict_made(
    args: argparse.Namespace, size: int, runs: list[tuple[int, int]]
) -> dict[str, Any]:
    """Make a slide and predict it by so many processes with so many threads in all."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "slide.ome.zarr"
        share = in_fresh_process(make_slide, source, size)
        done = [
            in_fresh_process(
                predict_slide,
                source,
                Path(folder) / f"labels-{workers}.ome.zarr",
                args.scale,
                args.tile,
                workers,
                threads,
            )
            for workers, threads in runs
        ]
    return {
        "size": size,
        "scale": args.scale,
        "tile": args.tile,
        "tissue": share,
        "runs": done,
    }


PARTS = {
    "open": measure_open,
    "outlines": measure_outlines,
    "autosave": measure_autosave,
    "workers": measure_workers,
    "large": measure_large,
}


if __name__ == "__main__":
    main()
