"""How sure a prediction is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the Shannon entropy of each pixel's class probabilities.

    Parameters
    ----------
    probabilities
        (C, y, x) float, summing to 1 over C.

    Returns
    -------
    ndarray
        (y, x) float32 in [0, 1]: 0 = sure, 1 = all classes equally likely (divided by
        log C).
    """
    n_classes = len(probabilities)
    if n_classes < 2:
        return np.zeros(probabilities.shape[1:], dtype=np.float32)
    safe = np.clip(probabilities, np.finfo(np.float32).tiny, 1)
    nats = -(probabilities * np.log(safe)).sum(axis=0)
    # Rounding takes even probabilities a little above 1.
    return np.asarray(np.minimum(nats / np.log(n_classes), 1), dtype=np.float32)
