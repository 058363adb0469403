"""Balancing, against the worked example, a plain double loop and the sums it keeps."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_sparseseg.errors import OptionError
from napari_sparseseg.learning.balancing import BALANCINGS, Balancing, weight_map

#: Two patches: three pixels of class 1 and one of class 2; one pixel of class 2.
EXAMPLE = torch.tensor([[[1, 1, 1, 2]], [[2, 0, 0, 0]]])


@pytest.mark.parametrize(
    ("balancing", "expected"),
    [
        ("none", [[[1, 1, 1, 1]], [[1, 0, 0, 0]]]),
        ("instance", [[[2 / 3, 2 / 3, 2 / 3, 2]], [[1, 0, 0, 0]]]),
        ("mini-batch", [[[5 / 6, 5 / 6, 5 / 6, 5 / 4]], [[5 / 4, 0, 0, 0]]]),
    ],
)
def test_weights_worked_by_hand(
    balancing: Balancing, expected: list[list[list[float]]]
) -> None:
    weights = weight_map(EXAMPLE, balancing)
    assert weights.dtype == torch.float32
    by_hand = torch.tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(weights, by_hand)


def random_labels(seed: int) -> Tensor:
    """Give five patches of rare and common classes, the fourth without a label."""
    rng = np.random.default_rng(seed)
    values, share = [0, 1, 2, 5, 9], [0.6, 0.3, 0.06, 0.03, 0.01]
    labels = rng.choice(values, (5, 12, 17), p=share)
    labels[3] = 0
    labels[0][labels[0] == 5] = 0
    return torch.from_numpy(labels)


def scopes(balancing: Balancing, labels: Tensor) -> list[Tensor]:
    """Give the masks of the pixels that are balanced among each other."""
    if balancing == "mini-batch":
        return [torch.ones_like(labels, dtype=torch.bool)]
    masks = []
    for index in range(len(labels)):
        mask = torch.zeros_like(labels, dtype=torch.bool)
        mask[index] = True
        masks.append(mask)
    return masks


def weights_by_definition(
    labels: NDArray[np.int64], balancing: Balancing
) -> NDArray[np.float64]:
    """Apply equations 1 and 2 of Bokhorst 2018 pixel by pixel."""
    weights = np.zeros(labels.shape)
    for place in np.argwhere(labels != 0):
        scope = labels[place[0]] if balancing == "instance" else labels
        valid = scope[scope != 0]
        n_same = (valid == labels[tuple(place)]).sum()
        weights[tuple(place)] = valid.size / (np.unique(valid).size * n_same)
    return weights


@pytest.mark.parametrize("balancing", ["instance", "mini-batch"])
@pytest.mark.parametrize("seed", range(3))
def test_weights_are_those_of_the_equations(balancing: Balancing, seed: int) -> None:
    labels = random_labels(seed)
    expected = weights_by_definition(labels.numpy(), balancing)
    np.testing.assert_allclose(weight_map(labels, balancing), expected, rtol=1e-6)


@pytest.mark.parametrize("balancing", BALANCINGS)
@pytest.mark.parametrize("seed", range(3))
def test_weights_of_a_scope_sum_to_its_labelled_pixels(
    balancing: Balancing, seed: int
) -> None:
    labels = random_labels(seed)
    weights = weight_map(labels, balancing)
    for mask in scopes(balancing, labels):
        n_valid = (labels[mask] != 0).sum().float()
        torch.testing.assert_close(weights[mask].sum(), n_valid)
    assert (weights[labels == 0] == 0).all()


@pytest.mark.parametrize("balancing", ["instance", "mini-batch"])
@pytest.mark.parametrize("seed", range(3))
def test_classes_of_a_scope_count_the_same(balancing: Balancing, seed: int) -> None:
    labels = random_labels(seed)
    weights = weight_map(labels, balancing)
    for mask in scopes(balancing, labels):
        present = [value for value in labels[mask].unique().tolist() if value]
        totals = [float(weights[mask & (labels == value)].sum()) for value in present]
        assert totals == pytest.approx([sum(totals) / len(totals or [0])] * len(totals))


@pytest.mark.parametrize("balancing", BALANCINGS)
def test_nothing_annotated_weighs_nothing(balancing: Balancing) -> None:
    assert not weight_map(torch.zeros(2, 3, 4, dtype=torch.int64), balancing).any()


def test_an_unknown_mode_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"'batch'.*none, instance, mini-batch"):
        weight_map(EXAMPLE, "batch")  # type: ignore[arg-type]
