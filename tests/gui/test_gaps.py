"""What a prediction lacks is said in words."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sparseseg.gui.gaps import sentences_on_gaps


@pytest.mark.parametrize(
    ("rows", "outdated", "words"),
    [
        (100, 0.0, ""),
        (63, 0.0, "37 % of it was not predicted and is 0."),
        (100, 0.25, "25 % of it is of an earlier model."),
        (
            50,
            1.0,
            "50 % of it was not predicted and is 0. "
            "100 % of it is of an earlier model.",
        ),
    ],
)
def test_shares_are_named(rows: int, outdated: float, words: str) -> None:
    labels = np.zeros((100, 40), np.uint8)
    labels[:rows] = 3
    assert sentences_on_gaps(labels, outdated) == words


def test_small_gaps_are_not_rounded_away_and_large_ones_not_to_all() -> None:
    labels = np.ones((100, 40), np.uint8)
    labels[0, 0] = 0
    assert sentences_on_gaps(labels, 0).startswith("Less than 1 % of it was not")
    assert sentences_on_gaps(1 - labels, 0).startswith("99 % of it was not")


def test_empty_planes_of_stacks_are_counted() -> None:
    labels = np.zeros((2, 5, 10, 10), np.uint8)
    labels[0, 1] = 1
    labels[1, 4, :5] = 2
    assert sentences_on_gaps(labels, 0) == (
        "85 % of it was not predicted and is 0; 8 of its 10 planes are empty."
    )
