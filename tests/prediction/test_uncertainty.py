"""Uncertainty, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from napari_sparseseg.prediction.uncertainty import entropy


@pytest.mark.parametrize("n_classes", [2, 3, 8, 40])
def test_entropy_is_that_of_scipy_in_units_of_the_most_possible(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(scale=20, size=(n_classes, 30, 40))
    probabilities = np.exp(scores - scores.max(axis=0))
    probabilities /= probabilities.sum(axis=0)
    expected = stats.entropy(probabilities, base=n_classes, axis=0)
    result = entropy(probabilities.astype(np.float32))
    assert result.dtype == np.float32
    assert result.shape == (30, 40)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_entropy_worked_by_hand() -> None:
    # Sure; even; one quarter, where -(log2(1/4) / 4 + 3 log2(3/4) / 4) = 0.811278.
    probabilities = np.array([[[1, 0.5, 0.25]], [[0, 0.5, 0.75]]], np.float32)
    np.testing.assert_allclose(entropy(probabilities), [[0, 1, 0.811278]], atol=1e-6)


@pytest.mark.parametrize("n_classes", range(2, 40))
def test_entropy_never_leaves_0_to_1(n_classes: int) -> None:
    even = np.full((n_classes, 1, 1), 1 / n_classes, np.float32)
    sure = np.zeros((n_classes, 1, 1), np.float32)
    sure[-1] = 1
    assert entropy(sure) == 0
    assert 1 - 1e-6 < entropy(even) <= 1


def test_entropy_of_a_single_class_is_0() -> None:
    result = entropy(np.ones((1, 3, 4), np.float32))
    assert result.shape == (3, 4)
    assert result.dtype == np.float32
    assert not result.any()
