"""Gaussian filtering of scattered points on the permutohedral lattice."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

#: Keys of lattice vertices stay below this, so that their neighbours' keys fit too.
LARGEST_KEY = 2**62


class PermutohedralLattice:
    """Sums over all points with Gaussian weights, in time linear in their number.

    Approximates ``out[i] = sum_j exp(-|f_i - f_j|^2 / 2) in[j]``, a point itself
    included: Adams, Baek and Davis 2010 ("Fast High-Dimensional Filtering Using the
    Permutohedral Lattice", sections 3 and 4). Each point is spread over the d + 1
    vertices of the simplex around it (splat), the vertices are blurred along each of
    the d + 1 axes, and each point gathers its own again (slice). Up to a factor that is
    nearly the same for all points; where the points lie dense, the result
    stays within a few percent of the exact sum.

    Vertices, rounding, the order of the axes and the final factor are those of
    Kraehenbuehl's ``densecrf``, so the result is that of ``pydensecrf`` but for
    rounding. Where that one fills a hash table point by point, here the keys of all
    vertices are sorted at once.

    Parameters
    ----------
    features
        (d, n) float32, n >= 1: positions in units of the standard deviation.
    groups
        (n,) int64 from 0, or None: points of different groups do not see each other.
    """

    def __init__(self, features: Tensor, groups: Tensor | None = None) -> None:
        n_dims, n_points = features.shape
        remainder_0, rank, weights = _enclosing_simplices(features)
        strides = _strides(remainder_0[:n_dims], groups)
        keys = _vertex_keys(remainder_0, rank, strides)
        if groups is not None:
            keys += strides[-1] * groups[:, None]

        # Sorted by vertex, the entries (point, vertex, weight) of the splat are a
        # sparse matrix in rows, as `embedding_bag` takes it; the slice is its
        # transpose.
        in_order, entries = keys.reshape(-1).sort(stable=True)
        is_first = torch.ones_like(in_order, dtype=torch.bool)
        is_first[1:] = in_order[1:] != in_order[:-1]
        starts = is_first.nonzero()[:, 0]
        vertex_of_entry = torch.empty_like(in_order, dtype=torch.int32)
        vertex_of_entry[entries] = is_first.cumsum(0, dtype=torch.int32) - 1

        self._splat_points = (entries // (n_dims + 1)).int()
        self._splat_weights = weights.reshape(-1)[entries]
        # One vertex more that nothing reaches stands for those that do not exist.
        end = starts.new_tensor([len(entries)])
        self._splat_starts = torch.cat([starts, end]).int()
        self._slice_vertices = vertex_of_entry.reshape(n_points, n_dims + 1)
        self._slice_weights = weights / (1 + 2.0**-n_dims)
        self._neighbours = _neighbours(in_order[starts], strides[: n_dims + 1])
        self._blur_weights = features.new_tensor([1, 0.5, 0.5]).repeat(
            len(starts) + 1, 1
        )

    def filter(self, values: Tensor) -> Tensor:
        """Filter (n, c) float32; returns the same shape."""
        x = F.embedding_bag(
            self._splat_points,
            values.contiguous(),
            self._splat_starts,
            mode="sum",
            per_sample_weights=self._splat_weights,
        )
        for neighbours in self._neighbours:
            x = F.embedding_bag(
                neighbours, x, mode="sum", per_sample_weights=self._blur_weights
            )
        return F.embedding_bag(
            self._slice_vertices, x, mode="sum", per_sample_weights=self._slice_weights
        )


def _enclosing_simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the simplex around each point, and where in it the point lies.

    Returns
    -------
    remainder_0
        (d + 1, n) int64: the coordinates of the simplex's vertex of remainder 0.
    rank
        (d + 1, n) int64: the place of each coordinate when the differences between
        point and vertex are sorted from the largest down; names the simplex among
        those around the vertex.
    weights
        (n, d + 1) float32: barycentric coordinates, in order of the remainder.
    """
    n_dims, _ = features.shape
    sides = n_dims + 1
    elevated = _elevate(features)
    multiples = (elevated / sides).round()
    difference = elevated - multiples * sides

    rank = torch.zeros_like(multiples, dtype=torch.int64)
    for i in range(n_dims):
        for j in range(i + 1, sides):
            less = difference[i] < difference[j]
            rank[i] += less
            rank[j] += ~less
    # Rounding can leave the plane in which coordinates sum to 0: back to it by moving
    # those that were rounded the farthest.
    rank += multiples.sum(dim=0).long()
    back = (rank < 0).long() - (rank > n_dims).long()
    rank += back * sides
    remainder_0 = (multiples.long() + back) * sides

    in_units = (elevated - remainder_0) / sides
    descending = torch.empty_like(in_units).scatter_(0, rank, in_units)
    ascending = descending.flip(0)
    weights = torch.empty_like(in_units)
    weights[0] = 1 + ascending[0] - ascending[-1]
    weights[1:] = ascending[1:] - ascending[:-1]
    return remainder_0, rank, weights.T.contiguous()


def _elevate(features: Tensor) -> Tensor:
    """Place (d, n) features in the plane of d + 1 coordinates that sum to 0.

    Scaled so that splat, blur and slice together have a standard deviation of 1.
    """
    n_dims, n_points = features.shape
    deviation = math.sqrt(2 / 3) * (n_dims + 1)
    elevated = features.new_empty(n_dims + 1, n_points)
    total = features.new_zeros(n_points)
    for i in range(n_dims, 0, -1):
        scaled = features[i - 1] * (deviation / math.sqrt(i * (i + 1)))
        elevated[i] = total - i * scaled
        total = total + scaled
    elevated[0] = total
    return elevated


def _strides(coordinates: Tensor, groups: Tensor | None) -> Tensor:
    """Choose the factors by which a vertex's coordinates are summed to its key.

    Parameters
    ----------
    coordinates
        (d, n) int64, of the vertices of remainder 0.
    groups
        (n,) int64 or None.

    Returns
    -------
    Tensor
        (d + 2,) int64: of the first d coordinates; 0, since the last coordinate
        follows from them; of the group.
    """
    n_dims = len(coordinates)
    # The other vertices of a simplex are at most d away, their neighbours d more.
    lengths = coordinates.amax(dim=1) - coordinates.amin(dim=1) + 4 * n_dims + 1
    strides = [math.prod(lengths[:i].tolist()) for i in range(n_dims + 1)]
    n_groups = 1 if groups is None else int(groups.max()) + 1
    if strides[-1] * n_groups > LARGEST_KEY:
        # Numbers too large for 64 bits wrap around. Random factors make it all but
        # impossible that two of even a billion pairs of vertices then share a key.
        generator = torch.Generator().manual_seed(0)
        random = torch.randint(2**63 - 1, (n_dims + 1,), generator=generator)
        strides = random.tolist()
    strides.insert(n_dims, 0)
    return torch.tensor(strides, device=coordinates.device)


def _vertex_keys(remainder_0: Tensor, rank: Tensor, strides: Tensor) -> Tensor:
    """Give (n, d + 1) int64: the key of each vertex of each point's simplex."""
    sides, _ = rank.shape
    strides = strides[:sides, None]
    stride_at_rank = torch.empty_like(rank).scatter_(0, rank, strides.expand_as(rank))
    # From one vertex to the next all coordinates grow by 1, but the one of the
    # smallest difference left falls by d.
    steps = strides.sum() - sides * stride_at_rank.flip(0)[:-1]
    first = (remainder_0 * strides).sum(dim=0, keepdim=True)
    return torch.cat([first, first + steps.cumsum(0)]).T.contiguous()


def _neighbours(keys: Tensor, strides: Tensor) -> list[Tensor]:
    """Find each vertex's two neighbours along each axis.

    Parameters
    ----------
    keys
        (m,) int64, ascending and different.
    strides
        (d + 1,) int64.

    Returns
    -------
    list of Tensor
        For each axis (m + 1, 3) int32: the vertex and its neighbours, m where there is
        none; the last row is that of "none".
    """
    n_vertices, sides = len(keys), len(strides)
    vertices = torch.arange(n_vertices + 1, dtype=torch.int32, device=keys.device)
    tables = []
    for stride in strides:
        sought = keys + sides * stride - strides.sum()
        place = torch.searchsorted(keys, sought).clamp_max(n_vertices - 1)
        found = keys[place] == sought
        table = torch.full_like(vertices, n_vertices)[:, None].repeat(1, 3)
        table[:, 0] = vertices
        table[:-1, 1] = torch.where(found, place.int(), n_vertices)
        table[place[found], 2] = vertices[:-1][found]
        tables.append(table)
    return tables
