"""A slide as scanners make them, mostly glass, and its prediction file to file."""

from __future__ import annotations

import dataclasses
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import zarr

from benchmarks._machine import peak_memory
from benchmarks._predict_subjects import random_model
from napari_sparseseg.files import PredictionStarted, iter_predict_file
from napari_sparseseg.inputs.tiling import make_tile
from napari_sparseseg.io.sources import open_image
from napari_sparseseg.networks.model import SegmentationModel
from napari_sparseseg.networks.scoring import as_batch
from napari_sparseseg.prediction.large import ChunkDone
from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: Side of the chunks of the slide, and of the pieces its tissue is made of.
CHUNK = 1024

#: The coarsest level has no longer side than this.
COARSEST = 3000

UM_PER_PX = 0.25

#: Ellipses of tissue: centre and half axes as shares of the side; 8 % in all.
TISSUE = ((0.3, 0.35, 0.15, 0.08), (0.62, 0.6, 0.1, 0.1), (0.77, 0.25, 0.05, 0.08))

#: Brightness of glass, and its noise.
GLASS, GLASS_NOISE = (243, 241, 244), 1.5

#: Tiles that the network alone is timed on, before a prediction and after it.
TIMED_TILES = 4


def make_slide(path: Path, size: int, seed: int = 0) -> float:
    """Write an OME-Zarr of (size, size, 3) uint8 with coarser levels.

    Returns
    -------
    float
        Share of its pixels that are tissue.
    """
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, GLASS_NOISE, (64, 64, 3)).round()
    glass = np.clip(np.array(GLASS) + noise, 0, 255).astype(np.uint8)
    glass = np.tile(glass, (CHUNK // 64, CHUNK // 64, 1))
    pieces = [tissue_phantom(i, (CHUNK, CHUNK)).image for i in range(4)]
    levels = 1
    while size >> (levels - 1) > COARSEST:
        levels += 1
    group = zarr.create_group(path, attributes={"ome": _metadata(levels)})
    finer = _level(group, 0, size)
    n_tissue = 0
    for y in range(0, size, CHUNK):
        for x in range(0, size, CHUNK):
            is_tissue = _is_tissue(y, x, size)
            n_tissue += int(is_tissue.sum())
            chunk = glass
            if is_tissue.any():
                piece = np.rot90(pieces[rng.integers(4)], int(rng.integers(4)))
                chunk = np.where(is_tissue[..., None], piece, glass)
            finer[y : y + CHUNK, x : x + CHUNK] = chunk[: size - y, : size - x]
    for number in range(1, levels):
        coarser = _level(group, number, -(-finer.shape[0] // 2))
        for y in range(0, coarser.shape[0], CHUNK):
            rows = np.asarray(finer[2 * y : 2 * (y + CHUNK)])
            coarser[y : y + CHUNK] = rows[::2, ::2]
        finer = coarser
    return n_tissue / size**2


def predict_slide(
    source: Path, target: Path, scale: float, tile: int, workers: int, threads: int
) -> dict[str, Any]:
    """Label a slide with the light network; by one process time that network too.

    The network alone is given as many tiles with their halos as there were chunks, from
    pixels in memory. Time of the processor counts beside that of the clock, since other
    programs that use the cores do not change it much.

    Parameters
    ----------
    source, target
        OME-Zarr, and where the labels go.
    scale
        Working pixels per pixel.
    tile
        Side of a tile in working pixels.
    workers
        Processes.
    threads
        That all of them have together for torch.

    Returns
    -------
    dict
        JSON values: chunks predicted and left out, their pixels, seconds in all by the
        clock and the processor, seconds and number of the chunks after the first (so
        that no start of processes counts), the same of the network alone, and the bytes
        of memory held before and at most by this process.
    """
    torch.set_num_threads(threads)
    model = loadable(random_model("light", scale, "cpu"))
    network = [] if workers > 1 else _times_of_network(scale, tile)
    before = peak_memory()
    started, started_cpu = time.perf_counter(), time.process_time()
    moments = []
    n_glass = n_pixels = 0
    for event in iter_predict_file(model, source, target, tile=tile, workers=workers):
        if isinstance(event, PredictionStarted):
            n_glass = event.n_glass
        elif isinstance(event, ChunkDone):
            moments.append(time.perf_counter())
            n_pixels += event.n_pixels
    result = {
        "workers": workers,
        "threads": threads,
        "chunks": len(moments),
        "glass": n_glass,
        "pixels": n_pixels,
        "seconds": time.perf_counter() - started,
        "seconds_cpu": time.process_time() - started_cpu,
        "seconds_after_first": moments[-1] - moments[0],
        "bytes_before": before,
        "bytes_peak": peak_memory(),
    }
    if workers == 1:
        network += _times_of_network(scale, tile)
        clock, cpu = (median(each) for each in zip(*network, strict=True))
        result["seconds_of_network"] = len(moments) * clock
        result["seconds_cpu_of_network"] = len(moments) * cpu
    return result


def loadable(model: SegmentationModel) -> SegmentationModel:
    """Return a model that says of a training what workers want to read of one."""
    training = {
        "recipe": "live",
        "loss": "ce",
        "l1_weight": 1.0,
        "l2_weight": 1.0,
        "smoothness": 0.0,
        "encoder_weights": "none",
        "freeze_encoder": False,
        "weight_decay": 0.0,
        "feature_cache": False,
        "balancing": "none",
        "seed": 0,
        "steps": 0,
        "images": 0,
        "pixels": {},
        "strokes": {},
        "held_out_dice": {},
    }
    info = dataclasses.replace(model.info, training=training)
    return SegmentationModel(info, model.parts)


def open_slide(path: Path) -> float:
    """Return the seconds from a path to the pixels in the middle of a slide."""
    started = time.perf_counter()
    data = open_image(path).data
    y, x = (n // 2 for n in data.shape[:2])
    pixels = np.asarray(data[max(0, y - 256) : y + 256, max(0, x - 256) : x + 256])
    seconds = time.perf_counter() - started
    assert pixels.size
    return seconds


@torch.inference_mode()
def _times_of_network(scale: float, tile: int) -> list[tuple[float, float]]:
    """Time the network alone on tiles with their halo: seconds of clock, processor."""
    network = random_model("light", scale, "cpu").parts["network"]
    core = (4 * tile, 4 * tile, 5 * tile, 5 * tile)
    y0, x0, y1, x1 = make_tile(
        core, (9 * tile, 9 * tile), halo=network.halo, stride=network.stride
    ).field
    x = as_batch(torch.rand(3, y1 - y0, x1 - x0))
    network(x)
    times = []
    for _ in range(TIMED_TILES):
        started, started_cpu = time.perf_counter(), time.process_time()
        network(x)
        ended, ended_cpu = time.perf_counter(), time.process_time()
        times.append((ended - started, ended_cpu - started_cpu))
    return times


def _is_tissue(y: int, x: int, size: int) -> NDArray[np.bool_]:
    """Tell of a chunk, by the place of its corner, which pixels are tissue."""
    rows, columns = np.ogrid[y : y + CHUNK, x : x + CHUNK]
    inside = np.zeros((CHUNK, CHUNK), bool)
    for centre_y, centre_x, half_y, half_x in TISSUE:
        inside |= (rows / size - centre_y) ** 2 / half_y**2 + (
            columns / size - centre_x
        ) ** 2 / half_x**2 < 1
    return inside


def _level(group: zarr.Group, number: int, size: int) -> zarr.Array[Any]:
    return group.create_array(
        str(number), shape=(size, size, 3), chunks=(CHUNK, CHUNK, 3), dtype="uint8"
    )


def _metadata(n_levels: int) -> dict[str, Any]:
    space = [
        {"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [*[UM_PER_PX * 2**level] * 2, 1.0]}
            ],
        }
        for level in range(n_levels)
    ]
    axes = [*space, {"name": "c", "type": "channel"}]
    return {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
