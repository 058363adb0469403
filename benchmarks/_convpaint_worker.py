"""Trains and predicts with napari-convpaint; run by an interpreter that has it.

Arguments: an npz of ``image I`` and ``test I``, (y, x, 3), and ``labels I``, (y, x);
the npz to write the predictions to, named by number; factors of the feature pyramid.
Prints JSON on the last line: seconds to train, seconds to predict, version.
"""

import json
import sys
import time
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np


def main() -> None:
    """Train, predict, write and tell the seconds."""
    given, found, *scalings = sys.argv[1:]
    factors = [int(factor) for factor in scalings]
    # Imports count for nobody, and convpaint imports much on first use.
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    train(factors, [noise], [np.arange(4096, dtype=np.uint8).reshape(64, 64) % 3])
    with np.load(given) as stored:
        arrays = dict(stored)
    n_train = sum(name.startswith("labels") for name in arrays)
    images = [arrays[f"image {i}"].transpose(2, 0, 1) for i in range(n_train)]
    labels = [arrays[f"labels {i}"] for i in range(n_train)]
    started = time.perf_counter()
    model = train(factors, images, labels)
    ready = time.perf_counter()
    predictions = {
        str(i): model.segment(
            arrays[f"test {i}"].transpose(2, 0, 1), fe_use_device="cpu"
        )
        for i in range(len(arrays) - 2 * n_train)
    }
    predict_s = time.perf_counter() - ready
    np.savez(found, **predictions)
    answer = {
        "ready_s": ready - started,
        "predict_s": predict_s,
        "features": model.num_features,
        "version": version("napari-convpaint"),
    }
    print("\n" + json.dumps(answer))


def train(factors: list[int], images: list[Any], labels: list[Any]) -> Any:
    """Train a model on (3, y, x) images and (y, x) strokes, 0 = not annotated."""
    module = import_module("napari_convpaint.convpaint_model")
    model = module.ConvpaintModel("gaussian")
    model.set_params(ignore_warnings=True, channel_mode="rgb", fe_scalings=factors)
    model.train(images, labels, fe_use_device="cpu", clf_use_device="cpu")
    return model


if __name__ == "__main__":
    main()
