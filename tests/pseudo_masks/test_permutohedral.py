"""The permutohedral lattice against exact sums, by hand, and against pydensecrf."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from napari_sparseseg.pseudo_masks import permutohedral
from napari_sparseseg.pseudo_masks.permutohedral import PermutohedralLattice


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=Generator().manual_seed(seed))


def exact(features: Tensor, values: Tensor) -> Tensor:
    """Sum over all pairs in float64."""
    positions = features.double().T
    squared = torch.cdist(
        positions, positions, compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    return (squared / -2).exp() @ values.double()


def test_on_its_own_vertices_the_kernel_is_that_of_two_blurs() -> None:
    """In one dimension vertices are sqrt(3) / 2 apart, and [1 2 1] / 2 blurs twice."""
    features = torch.arange(-4, 5)[None] * (math.sqrt(3) / 2)
    impulse = torch.zeros(9, 1)
    impulse[4] = 1
    filtered = PermutohedralLattice(features).filter(impulse)[:, 0]
    expected = [0, 0, 1 / 6, 2 / 3, 1, 2 / 3, 1 / 6, 0, 0]
    assert filtered.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("n_dims", "tolerance"), [(1, 0.02), (2, 0.03), (3, 0.05)])
def test_where_points_lie_dense_it_is_the_sum_over_all_pairs(
    n_dims: int, tolerance: float
) -> None:
    n_points = 3000
    side = 4.0 * (n_points / 3000)
    features = draw(n_dims, n_points) * side
    values = draw(n_points, 2, seed=1)
    filtered = PermutohedralLattice(features).filter(values)
    ratio = filtered / exact(features, values)
    inside = ((features > 1) & (features < side - 1)).all(dim=0)
    assert inside.sum() > 300
    typical = ratio[inside].median()
    assert ratio[inside].std() < tolerance * typical
    assert 0.8 < typical < 1.25


def test_it_is_the_lattice_of_pydensecrf() -> None:
    """One mean-field step without normalisation shows what that one has summed."""
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    for n_dims, seed in ((2, 0), (3, 1), (5, 2)):
        features = draw(n_dims, 900, seed=seed) * 5
        p = draw(2, 900, seed=seed + 10) * 0.8 + 0.1
        p /= p.sum(dim=0)
        crf = densecrf.DenseCRF(900, 2)
        crf.setUnaryEnergy(-p.log().numpy())
        weight = 0.1
        crf.addPairwiseEnergy(
            features.contiguous().numpy(),
            compat=weight,
            normalization=densecrf.NO_NORMALIZATION,
        )
        q = np.array(crf.inference(1), np.float64)
        scores = np.log(q[0] / q[1]) - (p[0] / p[1]).log().numpy()
        difference = (p[0] - p[1])[:, None]
        filtered = PermutohedralLattice(features).filter(difference)[:, 0]
        np.testing.assert_allclose(filtered, scores / weight, atol=2e-2, rtol=1e-3)


def test_points_of_different_groups_do_not_see_each_other() -> None:
    sizes = [200, 1, 350]
    features = draw(3, sum(sizes)) * 3
    values = draw(sum(sizes), 4, seed=1)
    groups = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    together = PermutohedralLattice(features, groups).filter(values)
    ends = [0, *np.cumsum(sizes)]
    for start, stop in pairwise(ends):
        alone = PermutohedralLattice(features[:, start:stop])
        torch.testing.assert_close(
            together[start:stop], alone.filter(values[start:stop])
        )
    mixed = PermutohedralLattice(features).filter(values)
    assert (mixed > together * 1.1).any()


def test_the_order_of_points_does_not_matter() -> None:
    features, values = draw(5, 400) * 4, draw(400, 2, seed=1)
    order = torch.randperm(400, generator=Generator().manual_seed(2))
    filtered = PermutohedralLattice(features).filter(values)
    shuffled = PermutohedralLattice(features[:, order]).filter(values[order])
    torch.testing.assert_close(shuffled, filtered[order])


@pytest.mark.parametrize("grouped", [False, True])
def test_keys_that_do_not_fit_64_bits_stay_apart(
    grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, values = draw(5, 300) * 4, draw(300, 2, seed=1)
    groups = torch.arange(300) % 2 if grouped else None
    expected = PermutohedralLattice(features, groups).filter(values)
    monkeypatch.setattr(permutohedral, "LARGEST_KEY", 0)
    random = PermutohedralLattice(features, groups).filter(values)
    torch.testing.assert_close(random, expected)


def test_points_far_from_each_other_are_filtered_by_themselves() -> None:
    near = draw(5, 200) * 4
    far = near + 3000
    values = draw(400, 2, seed=1)
    filtered = PermutohedralLattice(torch.cat([near, far], dim=1)).filter(values)
    alone = [PermutohedralLattice(part) for part in (near, far)]
    expected = torch.cat(
        [lattice.filter(v) for lattice, v in zip(alone, values.split(200), strict=True)]
    )
    torch.testing.assert_close(filtered, expected)


def test_a_single_point_keeps_most_of_its_value() -> None:
    for n_dims in (1, 2, 3, 5):
        filtered = PermutohedralLattice(torch.zeros(n_dims, 1)).filter(torch.ones(1, 1))
        assert 0.5 < filtered.item() <= 1 + 1e-6


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    features, values = draw(5, 5000) * 10, draw(5000, 3, seed=1)
    groups = torch.arange(5000) % 3
    expected = PermutohedralLattice(features, groups).filter(values)
    lattice = PermutohedralLattice(features.cuda(), groups.cuda())
    torch.testing.assert_close(lattice.filter(values.cuda()).cpu(), expected)
