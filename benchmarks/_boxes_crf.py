"""The dense CRF by torch and by pydensecrf, in turn, on a generated slice."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_sparseseg.inputs.normalisation import window
from napari_sparseseg.pseudo_masks.crf import CrfOptions, dense_crf
from napari_sparseseg.samples import abdomen_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sparseseg.pseudo_masks.crf import CrfBackend

#: Side in pixels and classes: whole slices, and a box that is looked at.
CASES = ((512, 2), (512, 13), (64, 2))

#: Side of the slice that smaller ones are cut from.
SLICE = 512

#: Mean-field updates.
ITERATIONS = 5


def measure_crf(side: int, n_classes: int, runs: int, device: str) -> dict[str, Any]:
    """Time both backends in turn; torch on *device*, pydensecrf on the CPU.

    Returns
    -------
    dict
        JSON values: seconds of each run by backend, and the share of pixels whose
        likeliest class is the same, None without pydensecrf.
    """
    image = grey_slice(side)
    probabilities = noisy_probabilities(n_classes, side)
    options = CrfOptions(iterations=ITERATIONS)
    backends: list[CrfBackend] = ["torch"]
    if find_spec("pydensecrf") is not None:
        backends.append("pydensecrf")
    seconds: dict[str, list[float]] = {backend: [] for backend in backends}
    best: dict[str, NDArray[Any]] = {}
    for run in range(runs + 1):
        for backend in backends:
            started = time.perf_counter()
            marginals = dense_crf(probabilities, image, options, backend, device)
            if run:  # the first one warms up
                seconds[backend].append(time.perf_counter() - started)
            best[backend] = marginals.argmax(axis=0)
    same = float(np.mean(best["torch"] == best[backends[-1]]))
    return {
        "side": side,
        "classes": n_classes,
        "seconds": seconds,
        "same_labels": same if len(backends) > 1 else None,
    }


def grey_slice(side: int) -> NDArray[np.uint8]:
    """Give a square of a CT slice, windowed: around its smallest tumour."""
    sample = abdomen_phantom(0, (SLICE, SLICE))
    grey = window(*sample.window).apply(sample.image).numpy()[0]
    tumour = sample.boxes[-1]
    y, x = (
        min(max((start + stop - side) // 2, 0), SLICE - side)
        for start, stop in ((tumour.y0, tumour.y1), (tumour.x0, tumour.x1))
    )
    eight_bits: NDArray[np.uint8] = np.rint(255 * grey).astype(np.uint8)
    return np.ascontiguousarray(eight_bits[y : y + side, x : x + side])


def noisy_probabilities(n_classes: int, side: int) -> NDArray[np.float32]:
    """Give (c, y, x) probabilities: patches of about a tenth of the side, and noise."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((n_classes, side, side), dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, (0, side / 20, side / 20), mode="wrap")
    scores = np.exp(smooth / smooth.std() + noise)
    return np.asarray(scores / scores.sum(axis=0), np.float32)
