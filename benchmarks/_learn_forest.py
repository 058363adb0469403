"""A peer: scikit-image's local features and scikit-learn's random forest."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._learn_data import read_learn_data, summary

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def run_forest(
    folder: Path, labels: str, seed: int, max_samples: float | None
) -> dict[str, Any]:
    """Fit the forest of scikit-image's example on the strokes, score it.

    Features: ``skimage.feature.multiscale_basic_features`` as it comes (intensity,
    edges and texture at sigmas of 0.5 to 16 px). Forest: 50 trees of depth 10, the
    settings of scikit-image's example "Trainable segmentation using local features and
    random forests".

    Parameters
    ----------
    folder, labels
        Of the images and of the strokes.
    seed
        Of the forest.
    max_samples
        Share of the annotated pixels that a tree sees; 0.05 in the example, whose
        strokes are whole rectangles. None: as many draws as there are pixels.

    Returns
    -------
    dict
        JSON values.
    """
    from sklearn.ensemble import RandomForestClassifier

    # scikit-image gives these no type hints.
    features_of: Any = import_module("skimage.feature").multiscale_basic_features
    predict: Any = import_module("skimage.future").predict_segmenter
    # Imports count for nobody, and scikit-image imports some modules on first use.
    features_of(np.zeros((8, 8, 3)), channel_axis=-1)
    data = read_learn_data(folder, labels)
    started = time.perf_counter()
    features, values = [], []
    for name, image in data.images.items():
        annotated = data.labels[name] > 0
        features.append(features_of(image, channel_axis=-1)[annotated])
        values.append(data.labels[name][annotated])
    forest = RandomForestClassifier(
        n_estimators=50,
        n_jobs=-1,
        max_depth=10,
        max_samples=max_samples,
        random_state=seed,
    )
    forest.fit(np.concatenate(features), np.concatenate(values))
    ready = time.perf_counter()
    predictions: dict[str, NDArray[Any]] = {
        name: predict(features_of(image, channel_axis=-1), forest)
        for name, image in data.test_images.items()
    }
    predict_s = time.perf_counter() - ready
    return {
        "ready_s": ready - started,
        "predict_s": predict_s,
        **summary(data.score(predictions)),
    }
