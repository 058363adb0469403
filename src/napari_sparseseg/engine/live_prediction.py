"""A prediction that goes on tile by tile, into files that the window sees."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.engine.mapped_files import map_result
from napari_sparseseg.engine.messages import (
    Predict,
    Predicted,
    Region,
    Sureness,
    TileDone,
)
from napari_sparseseg.errors import EngineError
from napari_sparseseg.inputs.resolution import whole
from napari_sparseseg.prediction.objects import without_small_objects
from napari_sparseseg.prediction.predictor import Budget, PredictOptions, iter_predict
from napari_sparseseg.prediction.uncertainty import entropy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_sparseseg.networks.model import SegmentationModel

#: A tile is to take less than this, in seconds.
QUANTUM_S = 0.2

#: What a working pixel takes on one core of a CPU, until it was measured.
CPU_SECONDS_PER_PX = 2e-6


def budget_for(device: str) -> Budget:
    """Return what is known of a device on which nothing was predicted yet."""
    return Budget(QUANTUM_S, CPU_SECONDS_PER_PX if device == "cpu" else 0.0)


class Prediction:
    """One request to predict, under way.

    Parameters
    ----------
    request
        What is asked for.
    model
        What predicts; does not change any more.
    pixels
        (y, x) or (y, x, c).
    budget
        What is known of the speed of such a model.
    step
        Of the training that the model is of.

    Attributes
    ----------
    is_complete
        Whether all is predicted.
    generation
        Number of the request.
    in_background
        Whether it is to take but a small share of the time.

    Raises
    ------
    EngineError
        If a file for the result cannot take it.
    """

    def __init__(
        self,
        request: Predict,
        model: SegmentationModel,
        pixels: NDArray[Any],
        budget: Budget,
        step: int,
    ) -> None:
        shape = (pixels.shape[0], pixels.shape[1])
        self.is_complete = False
        self.generation = request.generation
        self.in_background = request.in_background
        self._view = request.view
        self._left_in_view = 0
        if request.view is not None and not self.in_background:
            self._left_in_view = _common_area(
                request.view, request.region or (0, 0, *shape)
            )
        self._request = request
        self._shown = model.info.shown
        self._step = step
        self._started = time.perf_counter()
        self._labels = map_result(request.labels, shape, "u")
        highest = max(model.info.classes.values)
        if highest > np.iinfo(self._labels.dtype).max:
            raise EngineError(
                f"the labels are to be written as {self._labels.dtype}, but there is a "
                f"class {highest}; give a file of uint16.",
                highest=highest,
            )
        self._confidence: NDArray[Any] | None = None
        if request.confidence is not None:
            self._confidence = map_result(request.confidence, shape, "f")
        options = PredictOptions(
            quantum_s=QUANTUM_S,
            probabilities=self._confidence is not None,
            view=request.view,
            um_per_px=request.um_per_px,
            region=request.region,
        )
        self._tiles = iter_predict(model, pixels, options, budget)

    @property
    def is_seen(self) -> bool:
        """Whether something of the view is left: then learning waits."""
        return self._left_in_view > 0

    def advance(self) -> TileDone:
        """Predict the next tile; there is one until ``is_complete``."""
        tile = next(self._tiles)
        y0, x0, y1, x1 = tile.region
        self._labels[y0:y1, x0:x1] = tile.labels
        if self._confidence is not None and tile.probabilities is not None:
            measure = _SURENESS[self._request.sureness]
            self._confidence[y0:y1, x0:x1] = measure(tile.probabilities)
        self.is_complete = tile.share >= 1
        if self._view is not None:
            self._left_in_view -= _common_area(tile.region, self._view)
        return TileDone(
            generation=self.generation, region=tile.region, share=tile.share
        )

    def remove_small_objects(self) -> TileDone | None:
        """Do so where it is asked for; call it when all is predicted."""
        if not self._request.smallest_object:
            return None
        y0, x0, y1, x1 = region = self._request.region or whole(self._labels.shape)
        labels = self._labels[y0:y1, x0:x1]
        labels[...] = without_small_objects(labels, self._request.smallest_object)
        return TileDone(generation=self.generation, region=region, share=1.0)

    def report(self) -> Predicted:
        """Return what is told at the end."""
        return Predicted(
            generation=self.generation,
            shown=self._shown,
            step=self._step,
            seconds=time.perf_counter() - self._started,
        )


_SURENESS: dict[Sureness, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "confidence": lambda probabilities: probabilities.max(axis=0),
    "uncertainty": entropy,
}


def _common_area(one: Region, two: Region) -> int:
    """Return the number of pixels in both regions (y0, x0, y1, x1)."""
    height = min(one[2], two[2]) - max(one[0], two[0])
    width = min(one[3], two[3]) - max(one[1], two[1])
    return max(0, height) * max(0, width)
