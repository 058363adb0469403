"""A slide larger than memory should be: zarr to zarr, tile by tile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from benchmarks._machine import peak_memory
from benchmarks._predict_subjects import random_model
from napari_sparseseg.prediction.predictor import PredictOptions, iter_predict
from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from pathlib import Path

#: Side of the chunks of both arrays, and of the pieces the image is made of.
CHUNK = 1024

#: Different pieces, each turned and mirrored at random.
N_PIECES = 4


def make_slide(path: Path, size: int, seed: int = 0) -> None:
    """Write a (size, size, 3) uint8 zarr of pieces of the phantom, a chunk each."""
    pieces = [tissue_phantom(i, (CHUNK, CHUNK)).image for i in range(N_PIECES)]
    rng = np.random.default_rng(seed)
    slide = zarr.create_array(
        path, shape=(size, size, 3), chunks=(CHUNK, CHUNK, 3), dtype="uint8"
    )
    for y in range(0, size, CHUNK):
        for x in range(0, size, CHUNK):
            piece = np.rot90(pieces[rng.integers(N_PIECES)], int(rng.integers(4)))
            piece = piece[:, :: rng.choice((1, -1))]
            slide[y : y + CHUNK, x : x + CHUNK] = piece[: size - y, : size - x]


def predict_slide(
    source: Path, target: Path, scale: float, tile: int
) -> dict[str, Any]:
    """Label a zarr with the light network, into another zarr.

    Tiles are written as they come; where *tile* / *scale* is a multiple of the chunk,
    each chunk is written once.

    Parameters
    ----------
    source, target
        Of the (y, x, 3) uint8 image, and of the (y, x) uint8 labels to be written.
    scale
        Working pixels per image pixel.
    tile
        In working pixels.

    Returns
    -------
    dict
        JSON values: pixels, seconds, and bytes of memory: held before the first tile,
        and at most.
    """
    model = random_model("light", scale, "cpu")
    image = zarr.open_array(source, mode="r")
    labels = zarr.create_array(
        target, shape=image.shape[:2], chunks=(CHUNK, CHUNK), dtype="uint8"
    )
    before = peak_memory()
    started = time.perf_counter()
    for done in iter_predict(model, image, PredictOptions(tile=tile)):
        y0, x0, y1, x1 = done.region
        labels[y0:y1, x0:x1] = done.labels
    seconds = time.perf_counter() - started
    return {
        "pixels": image.shape[0] * image.shape[1],
        "seconds": seconds,
        "bytes_before": before,
        "bytes_peak": peak_memory(),
    }
