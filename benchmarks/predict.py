"""Image to labels: this project's tiles against MONAI's sliding windows.

Both start from an array of 8-bit colours and end with class values of every pixel,
with the same network, resampling, windows and steps. Runs alternate, so that a machine
that slows down slows both. With ``--large`` a whole slide goes from zarr to zarr too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks._machine import in_fresh_process, machine, sentence, source_hash
from benchmarks._predict_large import make_slide, predict_slide
from benchmarks._predict_subjects import (
    predict_monai,
    predict_ours,
    random_model,
    window_of,
)
from benchmarks._report import (
    RESULTS,
    command_line,
    middle,
    new_section,
    publish,
    write_json,
)
from napari_sparseseg.inputs.resolution import working_shape
from napari_sparseseg.networks.registry import PRESETS
from napari_sparseseg.samples import immunohistochemistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks._report import Section
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.networks.network_names import Preset

SCALES = (1.0, 0.25)

LARGE_SCALE = 0.25

#: How MONAI blends overlapping windows.
MODES = ("constant", "gaussian")

#: Side of the image part on which both are warmed up.
WARM_UP = 256


def main() -> None:
    """Measure, print and keep the results."""
    args = parse_arguments()
    content: dict[str, Any] = {
        "command": command_line("predict"),
        "machine": machine("napari-sparseseg", "monai", "zarr"),
        "source": source_hash(),
        "size": args.size,
        "tile": args.tile,
        "cases": [],
    }
    image = square_image(args.size)
    for device in args.devices:
        for preset in args.presets:
            for scale in args.scales:
                case = compare(image, preset, scale, args.tile, device, args.runs)
                content["cases"].append(case)
                write_json(args.results / "predict.json", content)
                print(f"{device}, {preset}, scale {scale:g}: done", flush=True)
    sections = [comparison(content)]
    if args.large:
        content["large"] = measure_large(args)
        sections.append(large_section(content["large"]))
    path = args.results / "predict.json"
    write_json(path, content)
    publish(path, *sections, sentence(content["machine"]), content["command"])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("benchmarks.predict", description=__doc__)
    add = parser.add_argument
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    add("--devices", nargs="+", choices=["cpu", "cuda"], default=devices)
    add("--presets", nargs="+", choices=PRESETS["unet"], default=[*PRESETS["unet"]])
    add("--scales", nargs="+", type=float, default=SCALES)
    add("--size", type=int, default=2048, help="side of the image in pixels")
    add("--tile", type=int, default=512, help="side of a tile in working pixels")
    add("--runs", type=int, default=5, help="of each; the median counts")
    add("--large", action="store_true", help="a whole slide, zarr to zarr, too")
    add("--large-size", type=int, default=20_000, help="side of the slide in pixels")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def square_image(size: int) -> NDArray[np.uint8]:
    """Return scikit-image's stained tissue, repeated to (size, size, 3)."""
    sample = immunohistochemistry().image
    repeats = [-(-size // length) for length in sample.shape[:2]]
    return np.tile(sample, (*repeats, 1))[:size, :size]


def compare(
    image: NDArray[np.uint8],
    preset: Preset,
    scale: float,
    tile: int,
    device: str,
    runs: int,
) -> dict[str, Any]:
    """Time both on one image, in turn.

    Returns
    -------
    dict
        JSON values: seconds of each run by subject, and the share of pixels to which
        MONAI gives the same label.
    """
    model = random_model(preset, scale, device)
    subjects: dict[str, Callable[[NDArray[np.uint8]], NDArray[Any]]] = {
        "ours": lambda x: predict_ours(model, x, tile),
        **{mode: monai_subject(model, tile, mode) for mode in MODES},
    }
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    labels: dict[str, NDArray[Any]] = {}
    for predict in subjects.values():
        predict(image[:WARM_UP, :WARM_UP])
    order = list(subjects)
    for _ in range(runs):
        for name in order:
            started = time.perf_counter()
            labels[name] = subjects[name](image)
            seconds[name].append(time.perf_counter() - started)
        order = [*order[1:], order[0]]
    return {
        "device": device,
        "preset": preset,
        "scale": scale,
        "window": window_of(model, tile, working_shape(image.shape, scale)[0]),
        "seconds": seconds,
        "same_labels": {
            mode: float(np.mean(labels[mode] == labels["ours"])) for mode in MODES
        },
    }


def monai_subject(
    model: SegmentationModel, tile: int, mode: str
) -> Callable[[NDArray[np.uint8]], NDArray[Any]]:
    """Return the function that predicts an image with MONAI."""
    return lambda image: predict_monai(model, image, tile, mode)


def comparison(content: dict[str, Any]) -> Section:
    """Seconds of both, and how many times as long MONAI takes."""
    size, tile = content["size"], content["tile"]
    section = new_section(
        f"Image to labels, {size} x {size} RGB, tiles of {tile} working pixels: "
        "seconds, median of interleaved runs and range; ratio of medians",
        [
            "device",
            "network",
            "scale",
            "window",
            "this project",
            *(f"MONAI {mode}" for mode in MODES),
            *(f"ratio\n{mode}" for mode in MODES),
            *(f"same labels\n{mode}" for mode in MODES),
        ],
        left=2,
    )
    for case in content["cases"]:
        seconds = case["seconds"]
        ours = median(seconds["ours"])
        section.table.add_row(
            case["device"],
            case["preset"],
            f"{case['scale']:g}",
            str(case["window"]),
            *(middle(seconds[name], 2) for name in ("ours", *MODES)),
            *(f"{median(seconds[mode]) / ours:.2f}" for mode in MODES),
            *(f"{case['same_labels'][mode]:.2%}" for mode in MODES),
        )
    return section


def measure_large(args: argparse.Namespace) -> dict[str, Any]:
    """Predict a slide from zarr to zarr in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "slide.zarr", Path(folder) / "labels.zarr"
        in_fresh_process(make_slide, source, args.large_size)
        result = in_fresh_process(predict_slide, source, target, LARGE_SCALE, args.tile)
    return {"size": args.large_size, "tile": args.tile, "scale": LARGE_SCALE} | result


def large_section(result: dict[str, Any]) -> Section:
    """Speed and memory of predicting a slide."""
    size = result["size"]
    section = new_section(
        f"Zarr to zarr on the CPU, {size} x {size} RGB, light network at scale "
        f"{result['scale']:g}, tiles of {result['tile']} working pixels",
        ["", "value"],
    )
    megapixels = result["pixels"] / 1e6
    for title, value in (
        ("image, uncompressed", f"{megapixels * 3:.0f} MB"),
        ("seconds", f"{result['seconds']:.1f}"),
        ("Mpx/s", f"{megapixels / result['seconds']:.2f}"),
        ("peak memory", f"{result['bytes_peak'] / 1e6:.0f} MB"),
        ("of which before the first tile", f"{result['bytes_before'] / 1e6:.0f} MB"),
    ):
        section.table.add_row(title, value)
    return section


if __name__ == "__main__":
    main()
