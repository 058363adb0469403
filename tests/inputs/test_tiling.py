"""Tiles cover the grid once, give the network all it sees, and come in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sparseseg.inputs.tiling import (
    Tile,
    TileQueue,
    cover,
    make_tile,
    overlap,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.inputs.resolution import Region


def times_covered(parts: Sequence[Region], shape: tuple[int, int]) -> set[int]:
    times = np.zeros(shape, int)
    for y0, x0, y1, x1 in parts:
        assert 0 <= y0 < y1 <= shape[0]
        assert 0 <= x0 < x1 <= shape[1]
        times[y0:y1, x0:x1] += 1
    return set(times.ravel().tolist())


class TestCover:
    @pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 63), (7, 200)])
    @pytest.mark.parametrize("size", [1, 7, 64, 1000])
    def test_covers_every_pixel_once_with_squares_no_larger(
        self, shape: tuple[int, int], size: int
    ) -> None:
        parts = cover((0, 0, *shape), size)
        assert times_covered(parts, shape) == {1}
        assert all(y1 - y0 <= size and x1 - x0 <= size for y0, x0, y1, x1 in parts)
        assert len(parts) == -(-shape[0] // size) * -(-shape[1] // size)

    def test_worked_by_hand(self) -> None:
        assert cover((1, 2, 4, 7), 3) == [(1, 2, 4, 5), (1, 5, 4, 7)]


class TestSplit:
    @pytest.mark.parametrize(
        ("core", "parts"),
        [
            ((0, 0, 8, 8), [(0, 0, 4, 4), (0, 4, 4, 8), (4, 0, 8, 4), (4, 4, 8, 8)]),
            ((2, 3, 7, 5), [(2, 3, 5, 5), (5, 3, 7, 5)]),
            ((0, 0, 1, 64), [(0, 0, 1, 32), (0, 32, 1, 64)]),
            ((5, 5, 6, 6), [(5, 5, 6, 6)]),
        ],
    )
    def test_halves_the_longer_side(self, core: Region, parts: list[Region]) -> None:
        assert split(core) == parts

    def test_parts_are_the_core_and_smaller(self) -> None:
        rng = np.random.default_rng(0)
        for height, width in rng.integers(2, 100, (30, 2)):
            parts = split((0, 0, int(height), int(width)))
            assert times_covered(parts, (int(height), int(width))) == {1}
            longest = max(max(y1 - y0, x1 - x0) for y0, x0, y1, x1 in parts)
            assert longest == (max(height, width) + 1) // 2


class TestMakeTile:
    def test_worked_by_hand(self) -> None:
        # Upper left: 40 - 5 = 35 and 16 - 5 = 11, down to 32 and 8; lower right:
        # 60 + 5 = 65 up to 72; 30 + 5 = 35, but there are only 33 columns.
        tile = make_tile((40, 16, 60, 30), (100, 33), halo=5, stride=8)
        assert tile == Tile((40, 16, 60, 30), (32, 8, 72, 33))

    @pytest.mark.parametrize(("halo", "stride"), [(0, 1), (26, 1), (59, 8), (123, 16)])
    def test_field_is_the_core_and_a_halo_on_whole_strides(
        self, halo: int, stride: int
    ) -> None:
        shape = (301, 512)
        rng = np.random.default_rng(1)
        for size in rng.integers(16, 200, 20):
            for core in cover((0, 0, *shape), int(size)):
                tile = make_tile(core, shape, halo=halo, stride=stride)
                assert tile.core == core
                for axis, length in enumerate(shape):
                    start, stop = tile.field[axis], tile.field[axis + 2]
                    first, last = core[axis] - halo, core[axis + 2] + halo
                    assert start % stride == 0
                    assert stop % stride == 0 or stop == length
                    assert max(0, first) - stride < start <= max(0, first)
                    assert min(length, last) <= stop < min(length, last) + stride

    def test_field_of_the_whole_grid_is_the_whole_grid(self) -> None:
        tile = make_tile((0, 0, 33, 50), (33, 50), halo=123, stride=16)
        assert tile.field == (0, 0, 33, 50)


def drained(queue: TileQueue) -> list[Region]:
    return [queue.pop() for _ in range(len(queue))]


class TestTileQueue:
    def test_what_is_in_view_comes_first_from_its_centre_outwards(self) -> None:
        cores = cover((0, 0, 40, 50), 10)
        view = (5, 25, 28, 49)
        ordered = drained(TileQueue(cores, view))
        assert sorted(ordered) == cores
        seen = [core for core in ordered if overlap(core, view)]
        assert ordered[: len(seen)] == seen
        assert len(seen) == 9
        for part in (seen, ordered[len(seen) :]):
            far = [
                np.hypot((y0 + y1) / 2 - 16.5, (x0 + x1) / 2 - 37)
                for y0, x0, y1, x1 in part
            ]
            assert far == sorted(far)
        assert ordered[0] == (10, 30, 20, 40)

    def test_what_is_in_view_comes_before_what_is_nearer(self) -> None:
        cores = cover((0, 0, 30, 90), 10)
        ordered = drained(TileQueue(cores, (14, 0, 16, 90)))
        assert {y0 for y0, *_ in ordered[:9]} == {10}

    def test_without_a_view_they_come_row_by_row(self) -> None:
        cores = cover((0, 0, 40, 50), 10)
        assert drained(TileQueue(reversed(cores), None)) == cores

    def test_cores_added_later_come_where_they_belong(self) -> None:
        queue = TileQueue(cover((0, 0, 40, 40), 20), (12, 12, 30, 28))
        first = queue.pop()
        assert first == (20, 0, 40, 20)
        queue.add(split(first))
        ordered = drained(queue)
        seen = [overlap(core, (12, 12, 30, 28)) for core in ordered]
        assert len(ordered) == 7
        assert seen == sorted(seen, reverse=True)


class TestOverlap:
    @pytest.mark.parametrize(
        ("other", "expected"),
        [
            ((0, 0, 10, 10), True),
            ((9, 9, 20, 20), True),
            ((10, 0, 20, 10), False),
            ((0, 10, 10, 20), False),
            ((4, 4, 5, 5), True),
        ],
    )
    def test_regions_overlap_where_they_share_a_pixel(
        self, other: Region, expected: bool
    ) -> None:
        assert overlap((0, 0, 10, 10), other) is expected
        assert overlap(other, (0, 0, 10, 10)) is expected
