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

#: Ellipses of tissue: centre and half axes as shares of the side; 3 % in all.
TISSUE = ((0.3, 0.35, 0.09, 0.05), (0.62, 0.6, 0.06, 0.06), (0.75, 0.25, 0.03, 0.05))

#: Brightness of glass, and its noise.
GLASS, GLASS_NOISE = (243, 241, 244), 1.5

#: Tiles that the network alone is timed on.
TIMED_TILES = 5


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
    source: Path, target: Path, scale: float, tile: int, workers: int
) -> dict[str, Any]:
    """Label a slide with the light network, and time that network alone.

    Returns
    -------
    dict
        JSON values: chunks predicted and left out, their pixels, seconds in all and
        from the first chunk on, those of the network alone on as many tiles, and the
        bytes of memory held before and at most by this process.
    """
    model = loadable(random_model("light", scale, "cpu"))
    before = peak_memory()
    started = time.perf_counter()
    first = started
    n_chunks = n_glass = n_pixels = 0
    for event in iter_predict_file(model, source, target, tile=tile, workers=workers):
        if isinstance(event, PredictionStarted):
            n_glass, first = event.n_glass, time.perf_counter()
        elif isinstance(event, ChunkDone):
            n_chunks += 1
            n_pixels += event.n_pixels
    ended = time.perf_counter()
    return {
        "workers": workers,
        "chunks": n_chunks,
        "glass": n_glass,
        "pixels": n_pixels,
        "seconds": ended - started,
        "seconds_of_chunks": ended - first,
        "seconds_of_network": n_chunks * _seconds_of_network(scale, tile),
        "bytes_before": before,
        "bytes_peak": peak_memory(),
    }


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
def _seconds_of_network(scale: float, tile: int) -> float:
    """Time the network alone on a tile with its halo, from pixels in memory."""
    network = random_model("light", scale, "cpu").parts["network"]
    core = (4 * tile, 4 * tile, 5 * tile, 5 * tile)
    y0, x0, y1, x1 = make_tile(
        core, (9 * tile, 9 * tile), halo=network.halo, stride=network.stride
    ).field
    x = as_batch(torch.rand(3, y1 - y0, x1 - x0))
    network(x)
    seconds = []
    for _ in range(TIMED_TILES):
        started = time.perf_counter()
        network(x)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


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
