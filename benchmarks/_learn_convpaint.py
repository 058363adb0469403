"""A peer: napari-convpaint without a window, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._learn_data import read_learn_data, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Runs in the other interpreter, which need not have this project's dependencies.
WORKER = Path(__file__).with_name("_convpaint_worker.py")


def run_convpaint(
    folder: Path, labels: str, python: str, scalings: Sequence[int]
) -> dict[str, Any]:
    """Train napari-convpaint's Gaussian features on the strokes, score it.

    Its classifier has a fixed seed, so that runs differ in their times alone.

    Parameters
    ----------
    folder, labels
        Of the images and of the strokes.
    python
        An interpreter that has napari-convpaint.
    scalings
        Factors by which images are made smaller, each of which adds features.

    Returns
    -------
    dict
        JSON values.
    """
    data = read_learn_data(folder, labels)
    with tempfile.TemporaryDirectory() as temporary:
        given, found = Path(temporary) / "given.npz", Path(temporary) / "found.npz"
        names = list(data.images)
        arrays = {
            **{f"image {i}": data.images[name] for i, name in enumerate(names)},
            **{f"labels {i}": data.labels[name] for i, name in enumerate(names)},
            **{f"test {i}": x for i, x in enumerate(data.test_images.values())},
        }
        save: Any = np.savez
        save(given, **arrays)
        answer = subprocess.run(
            [
                python,
                "-W",
                "ignore",
                str(WORKER),
                str(given),
                str(found),
                *map(str, scalings),
            ],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"QT_QPA_PLATFORM": "offscreen"},
        ).stdout
        with np.load(found) as predicted:
            predictions = {
                name: predicted[str(i)] for i, name in enumerate(data.test_images)
            }
    seconds: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return seconds | summary(data.score(predictions))
