"""Words on what a prediction lacks: parts of it are predicted when they are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sentences_on_gaps(labels: NDArray[np.integer[Any]], outdated: float) -> str:
    """Say what was never predicted, and what by an earlier model.

    Parameters
    ----------
    labels
        (..., y, x) class values, 0 = not predicted.
    outdated
        Share of them that is of an earlier model, 0..1.

    Returns
    -------
    str
        One sentence on each, empty where the prediction is complete and of now.
    """
    sentences = []
    missing = 1 - np.count_nonzero(labels) / labels.size
    if missing > 0:
        empty = labels[..., 0, 0].size - np.count_nonzero(labels.any(axis=(-2, -1)))
        planes = f"; {empty} of its {labels[..., 0, 0].size} planes are empty"
        sentences.append(
            f"{_percent(missing)} of it was not predicted and is 0"
            f"{planes if labels.ndim > 2 else ''}."
        )
    if outdated > 0:
        sentences.append(f"{_percent(outdated)} of it is of an earlier model.")
    return " ".join(sentences)


def _percent(share: float) -> str:
    """Word a share that is not 0; rounded down, so that 100 % is all."""
    return "Less than 1 %" if share < 0.01 else f"{int(100 * share)} %"
