"""Rectangles of slides become images at one resolution, at the right place."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io.geometry import Field
from napari_sparseseg.io.slide_fields import (
    FieldPlan,
    factor_of,
    field_step,
    level_for,
    plan_field,
    read_field,
)

#: Of a slide whose scanner cut off what is no whole pixel of a level.
SHAPES = [(1003, 2001), (250, 500), (62, 125)]


def test_levels_have_whole_factors_though_their_edges_are_cut_off() -> None:
    assert [factor_of(SHAPES, level) for level in range(3)] == [1, 4, 16]
    # Filled up instead; and one that is no whole number at all.
    assert factor_of([(1003, 2001), (251, 501)], 1) == 4
    assert factor_of([(1000, 1000), (300, 300)], 1) == pytest.approx(10 / 3)


@pytest.mark.parametrize(
    ("slide_um", "wished_um", "step"),
    [
        (0.25, None, 1),  # 0.25 and 1.0 are as near to 0.5: the finer one
        (0.2, None, 4),  # 0.8 is nearer to 0.5 than 0.2, as a factor
        (0.5, None, 1),
        (0.25, 1.01, 4),  # that of a level, which hardly differs
        (0.25, 0.5, 2),
        (0.5, 0.25, 1),  # not more than the slide has
        (None, 0.5, 1),
    ],
)
def test_the_resolution_of_a_field(
    slide_um: float | None, wished_um: float | None, step: float
) -> None:
    assert field_step(SHAPES, slide_um, wished_um) == pytest.approx(step)


def test_the_coarsest_level_that_is_no_coarser() -> None:
    wanted = [level_for(SHAPES, step) for step in (0.5, 1, 3.9, 3.95, 4, 15, 99)]
    assert [level for level, _ in wanted] == [0, 0, 0, 1, 1, 1, 2]


def test_rectangles_are_brought_to_whole_pixels_inside_the_slide() -> None:
    # Along the pixels of the level of 4: 103 // 4 = 25, and 500 / 4 - 25 = 100.
    plan = plan_field(SHAPES, (103, 207, 500, 511), 4, "a")
    assert (plan.field, plan.shape) == (Field((100, 204), 4), (100, 76))
    assert list(plan.corners) == [100, 204, 500, 508]
    # Of no level: along those of the slide. Clipped at two sides, drawn backwards.
    plan = plan_field(SHAPES, (900, -30, 5000, 300.7), 1.5, "a")
    assert plan == FieldPlan(Field((900, 0), 1.5), (68, 200))


@pytest.mark.parametrize(
    ("corners", "step", "said"),
    [
        ((1100, 0, 1300, 200), 1, "lies outside of 'a'"),
        ((0, -300, 200, -10), 1, "lies outside of 'a'"),
        ((0, 0, 63, 300), 1, "only 63 x 300 pixels"),
        ((0, 0, 200, 800), 4, "only 50 x 200 pixels"),
    ],
)
def test_rectangles_that_are_no_field_are_told(
    corners: tuple[float, float, float, float], step: float, said: str
) -> None:
    with pytest.raises(ImageError, match=said):
        plan_field(SHAPES, corners, step, "a")


def test_fields_that_are_too_large_are_told() -> None:
    with pytest.raises(ImageError, match=r"5000 x 100 pixels .* smaller rectangle"):
        plan_field([(9000, 9000)], (0, 0, 5000, 100), 1, "a")


def pyramid(levels: int = 2) -> list[np.ndarray]:
    """Return a slide of noise whose levels are means of squares of 4 x 4."""
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 255, (803, 1202, 3), np.uint8)]
    for _ in range(levels - 1):
        y, x = (size // 4 for size in made[-1].shape[:2])
        squares = made[-1][: 4 * y, : 4 * x].reshape(y, 4, x, 4, 3)
        made.append(np.rint(squares.mean(axis=(1, 3))).astype(np.uint8))
    return made


def test_pixels_of_a_level_are_taken_as_they_are() -> None:
    slide = pyramid()
    fine = read_field(slide, FieldPlan(Field((11, 23), 1), (100, 90)))
    np.testing.assert_array_equal(fine, slide[0][11:111, 23:113])
    coarse = read_field(slide, FieldPlan(Field((40, 80), 4), (64, 70)))
    np.testing.assert_array_equal(coarse, slide[1][10:74, 20:90])


@pytest.mark.parametrize(("step", "dtype"), [(2.5, "u1"), (1.3, "u2"), (5.2, "f4")])
def test_resampled_pixels_lie_where_they_belong(step: float, dtype: str) -> None:
    # Intensities grow by the row and the column, so a place can be read off.
    rows, columns = np.mgrid[:803, :1202]
    ramp = (rows * 0.1 + columns * 0.05) * (1 if dtype == "u1" else 60)
    levels = [ramp.astype(dtype)]
    means = cv2.resize(ramp[:800, :1200], (300, 200), interpolation=cv2.INTER_AREA)
    levels.append(means.astype(dtype))
    field = Field((37, 101), step)
    # More than one strip.
    shape = (140, 150) if step > 2 else (300, 150)
    got = read_field(levels, FieldPlan(field, shape))
    assert got.dtype == levels[0].dtype
    y = 37 + (np.arange(shape[0]) + 0.5) * step - 0.5
    x = 101 + (np.arange(shape[1]) + 0.5) * step - 0.5
    expected = (y[:, None] * 0.1 + x * 0.05) * (1 if dtype == "u1" else 60)
    # A tenth of a pixel of the level, and what was cut off from whole numbers.
    side = 4 if step > 4 else 1
    slack = 0.1 * 0.15 * side * (1 if dtype == "u1" else 60) + (dtype != "f4")
    np.testing.assert_allclose(got, expected, atol=slack, rtol=0)
    assert abs(np.mean(got - expected)) < 0.7


def test_resampling_keeps_no_pattern_that_is_too_fine() -> None:
    # Lines of one pixel would alias to broad ones if pixels were left out.
    lines = np.zeros((400, 400), np.uint8)
    lines[:, ::2] = 200
    got = read_field([lines], FieldPlan(Field((10, 10), 2.7), (100, 100)))
    assert abs(got.astype(int) - 100).max() < 25
    area = cv2.resize(lines[10:280, 10:280], (100, 100), interpolation=cv2.INTER_AREA)
    assert np.abs(got.astype(float) - area).mean() < 20


def test_a_field_reaches_to_the_edge_of_a_level_that_is_cut_off() -> None:
    slide = pyramid()
    plan = plan_field([each.shape[:2] for each in slide], (100, 700, 803, 1202), 5, "a")
    assert plan == FieldPlan(Field((100, 700), 5), (140, 100))
    assert read_field(slide, plan).shape == (140, 100, 3)
