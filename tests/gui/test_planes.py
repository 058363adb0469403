"""Planes of image layers: found, read, measured and matched with labels."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_sparseseg.errors import ImageError, LayerError
from napari_sparseseg.gui.planes import (
    PlaneKey,
    all_planes,
    check_pair,
    labels_level,
    level_shape,
    n_levels,
    new_labels_for,
    placement,
    plane_grid,
    read_label_plane,
    read_plane,
    shown_plane,
    um_per_px,
    visible_region,
)

RNG = np.random.default_rng(0)


def grey(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 255, shape, np.uint8)


def chunked(data: np.ndarray[Any, Any], **options: Any) -> Any:
    return da.from_array(data, **options)  # type: ignore[no-untyped-call]


def pyramid(side: int, *factors: int) -> list[np.ndarray[Any, Any]]:
    """Levels of a disc, each the mean of its fine pixels."""
    y, x = np.mgrid[:side, :side]
    fine = ((y - side / 2) ** 2 + (x - side / 3) ** 2 < (side / 4) ** 2) * 200.0
    return [fine.reshape(side // f, f, side // f, f).mean(axis=(1, 3)) for f in factors]


@pytest.mark.parametrize(
    ("shape", "rgb", "grid"),
    [
        ((20, 30), False, ()),
        ((20, 30, 3), True, ()),
        ((4, 20, 30), False, (4,)),
        ((2, 4, 20, 30, 3), True, (2, 4)),
    ],
)
def test_planes_are_the_last_two_axes_before_the_channels(
    shape: tuple[int, ...], rgb: bool, grid: tuple[int, ...]
) -> None:
    data = grey(*shape)
    image = Image(data, rgb=rgb)
    assert plane_grid(image) == grid
    assert level_shape(image) == (*grid, 20, 30)
    planes = all_planes(image)
    assert len(planes) == int(np.prod(grid))
    for plane in planes:
        pixels = read_plane(image, plane)
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, data[plane.index])


def test_alpha_is_left_out_and_black_and_white_become_numbers() -> None:
    rgba = grey(8, 9, 4)
    pixels = read_plane(Image(rgba, rgb=True), PlaneKey())
    np.testing.assert_array_equal(pixels, rgba[..., :3])
    assert pixels.flags.c_contiguous
    mask = np.eye(6, dtype=bool)
    np.testing.assert_array_equal(read_plane(Image(mask), PlaneKey()), mask * 255)


def test_dask_computes_the_plane_that_is_asked_for_alone() -> None:
    data = grey(5, 20, 30)
    computed: list[int] = []

    def load(block: Any, block_info: Any = None) -> Any:
        computed.append(block_info[0]["chunk-location"][0])
        return block

    lazy = chunked(data, chunks=(1, 20, 30)).map_blocks(load, dtype=np.uint8)
    image = Image(lazy, contrast_limits=(0, 255))
    computed.clear()
    np.testing.assert_array_equal(read_plane(image, PlaneKey((3,))), data[3])
    assert computed == [3]


def test_zarr_is_read() -> None:
    zarr = pytest.importorskip("zarr")
    data = grey(3, 20, 30)
    image = Image(zarr.array(data, chunks=(1, 20, 30)))
    pixels = read_plane(image, PlaneKey((2,)))
    assert isinstance(pixels, np.ndarray)
    np.testing.assert_array_equal(pixels, data[2])


def test_each_level_of_a_multiscale_image_is_read() -> None:
    levels = pyramid(64, 1, 2, 4)
    image = Image([chunked(level) for level in levels], multiscale=True)
    assert n_levels(image) == 3
    for number, level in enumerate(levels):
        np.testing.assert_array_equal(read_plane(image, PlaneKey(), number), level)


def test_values_that_are_no_numbers_are_refused() -> None:
    data = np.zeros((2, 5, 6), np.float32)
    data[1, 2, 3] = np.nan
    image = Image(data, name="CT", contrast_limits=(0, 1))
    assert read_plane(image, PlaneKey((0,))).shape == (5, 6)
    with pytest.raises(ImageError, match="'CT' has 1 of 30 values that are not finite"):
        read_plane(image, PlaneKey((1,)))


def test_a_plane_that_is_not_there_is_refused() -> None:
    image = Image(grey(4, 5, 6), name="stack")
    with pytest.raises(LayerError, match=r"no plane \(4,\).*grid of shape \(4,\)"):
        read_plane(image, PlaneKey((4,)))
    with pytest.raises(LayerError, match=r"no plane \(\)"):
        read_plane(image, PlaneKey())


def test_an_image_whose_file_is_gone_is_refused_in_one_sentence() -> None:
    missing = [False]

    def load(block: Any) -> Any:
        if missing[0]:
            raise OSError("slide.svs is gone")
        return block

    lazy = chunked(grey(20, 30)).map_blocks(load, dtype=np.uint8)
    image = Image(lazy, contrast_limits=(0, 255), name="slide")
    missing[0] = True
    with pytest.raises(LayerError, match=r"'slide' cannot be read \(slide.svs is gone"):
        read_plane(image, PlaneKey())


def test_labels_of_the_same_shape_and_place_are_a_pair() -> None:
    image = Image(grey(4, 20, 30, 3), rgb=True, scale=(2, 0.5, 0.5))
    assert check_pair(image, Labels(np.zeros((4, 20, 30), int), scale=image.scale)) == 0


def test_labels_may_lie_on_a_coarser_level() -> None:
    image = Image(pyramid(64, 1, 2, 4), multiscale=True)
    labels = Labels(np.zeros((16, 16), np.uint8), scale=(4, 4), translate=(1.5, 1.5))
    assert check_pair(image, labels) == 2
    at_the_corner = Labels(np.zeros((16, 16), np.uint8), scale=(4, 4))
    assert check_pair(image, at_the_corner) == 2


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            lambda: Labels([np.zeros((20, 30), int), np.zeros((10, 15), int)]),
            "'strokes' is multiscale, and napari cannot paint",
        ),
        (
            lambda: Labels(np.zeros((30, 20), int)),
            r"'strokes' has shape \(30, 20\), but the image 'tile' has \(20, 30\)",
        ),
        (
            lambda: Labels(np.zeros((2, 20, 30), int)),
            r"'strokes' has shape \(2, 20, 30\)",
        ),
        (
            lambda: Image(np.zeros((20, 30), np.float32), contrast_limits=(0, 1)),
            "'strokes' has pixels of type float32",
        ),
        (
            lambda: Labels(np.zeros((20, 30), int), translate=(0, 12)),
            "'strokes' lies up to 12 pixels away from the image 'tile'",
        ),
        (
            lambda: Labels(np.zeros((20, 30), int), scale=(2, 1)),
            "lies up to 19 pixels away",
        ),
        (
            lambda: Labels(np.zeros((20, 30), int), affine=np.diag([1, 2, 1])),
            "lies up to 29 pixels away",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_one_sentence(
    labels: Any, sentence: str
) -> None:
    layer = labels()
    layer.name = "strokes"
    with pytest.raises(LayerError, match=sentence):
        check_pair(Image(grey(20, 30), name="tile"), layer)


def test_label_planes_of_multiscale_layers_are_refused() -> None:
    layer = Labels([np.zeros((20, 30), int), np.zeros((10, 15), int)])
    with pytest.raises(LayerError, match="is multiscale"):
        read_label_plane(layer, PlaneKey())


def test_the_shown_plane_follows_the_sliders() -> None:
    viewer = ViewerModel()
    image = viewer.add_image(
        grey(3, 5, 20, 30), scale=(1, 2.5, 1, 1), translate=(0, 10, 0, 0)
    )
    for step in [(0, 0), (2, 4), (1, 3)]:
        viewer.dims.current_step = (*step, 0, 0)
        assert shown_plane(viewer, image) == PlaneKey(step)


def test_layers_of_fewer_axes_follow_the_last_sliders() -> None:
    viewer = ViewerModel()
    viewer.add_image(grey(3, 5, 20, 30))
    stack = viewer.add_labels(np.zeros((5, 20, 30), np.uint8))
    flat = viewer.add_labels(np.zeros((20, 30), np.uint8))
    viewer.dims.current_step = (2, 4, 0, 0)
    assert shown_plane(viewer, stack) == PlaneKey((4,))
    assert shown_plane(viewer, flat) == PlaneKey()


def test_no_plane_is_shown_in_3d_or_from_the_side_or_outside() -> None:
    viewer = ViewerModel()
    stack = viewer.add_image(grey(5, 20, 30))
    short = viewer.add_labels(np.zeros((2, 20, 30), np.uint8))
    viewer.dims.current_step = (4, 0, 0)
    assert shown_plane(viewer, stack) == PlaneKey((4,))
    assert shown_plane(viewer, short) is None
    viewer.dims.ndisplay = 3
    assert shown_plane(viewer, stack) is None
    viewer.dims.ndisplay = 2
    viewer.dims.order = (1, 0, 2)
    assert shown_plane(viewer, stack) is None
    viewer.dims.order = (0, 2, 1)
    assert shown_plane(viewer, stack) == PlaneKey((4,))


def test_nothing_of_a_layer_beside_the_canvas_is_visible() -> None:
    image = Image(grey(20, 30))
    image.corner_pixels = np.array([[19, 0], [19, 29]])
    assert visible_region(image) is None


def test_the_visible_region_is_what_napari_says() -> None:
    image = Image(grey(2, 200, 300))
    image.corner_pixels = np.array([[0, 10, 20], [0, 109, 299]])
    assert visible_region(image) == (10, 20, 110, 300)
    # Of a level of half as many pixels.
    assert visible_region(image, (100, 150)) == (5, 10, 55, 150)


def test_the_visible_region_of_a_level_is_told_in_fine_pixels() -> None:
    image = Image(pyramid(64, 1, 2, 4), multiscale=True)
    image.data_level = 1
    image.corner_pixels = np.array([[4, 0], [11, 31]])
    assert visible_region(image) == (8, 0, 24, 64)


def test_micrometres_come_from_scale_units_and_affine() -> None:
    data = grey(20, 30)
    assert um_per_px(Image(data)) is None
    assert um_per_px(Image(data, scale=(0.5, 0.5))) is None
    um = Image(data, scale=(0.5, 0.5), units=("um", "um"))
    assert um_per_px(um) == pytest.approx(0.5)
    mm = Image(data, scale=(0.7, 0.7), units=("mm", "mm"), rotate=30)
    assert um_per_px(mm) == pytest.approx(700)
    turned = Image(
        data, scale=(0.5, 0.5), units=("um", "um"), affine=np.diag([3, 3, 1])
    )
    assert um_per_px(turned) == pytest.approx(1.5)
    flat = Image(data, scale=(0.5, 0.7), units=("um", "um"))
    assert um_per_px(flat) is None


def test_units_of_time_do_not_matter() -> None:
    movie = Image(grey(4, 20, 30), scale=(9, 0.5, 0.5), units=("s", "um", "um"))
    assert um_per_px(movie) == pytest.approx(0.5)
    assert um_per_px(Image(grey(4, 20, 30), units=("um", "s", "s"))) is None


def test_pixels_of_a_coarser_level_are_larger() -> None:
    image = Image(pyramid(64, 1, 4), multiscale=True, scale=(0.25, 0.25), units="um")
    assert um_per_px(image, level=1) == pytest.approx(1.0)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(
    "place",
    [
        {},
        {"scale": (0.5, 0.25), "translate": (100, -7)},
        {"scale": (2, 3), "rotate": 30, "shear": [0.2], "translate": (5, 6)},
        {"affine": np.array([[0, 2, 3], [-1, 0, 4], [0, 0, 1]]), "scale": (3, 3)},
    ],
)
def test_pixel_centres_of_a_level_lie_in_the_middle_of_their_fine_pixels(
    level: int, place: dict[str, Any]
) -> None:
    # By napari's own transforms: the mean of the fine pixels' places.
    image = Image(pyramid(64, 1, 2, 4), multiscale=True, **place)
    factor = 2**level
    side = 64 // factor
    coarse = Labels(np.zeros((side, side), np.uint8), **placement(image, level))
    for y, x in [(0, 0), (3, 5), (side - 1, side - 1)]:
        fine = [
            image.data_to_world((y * factor + dy, x * factor + dx))
            for dy in range(factor)
            for dx in range(factor)
        ]
        np.testing.assert_allclose(
            coarse.data_to_world((y, x)), np.mean(fine, axis=0), atol=1e-9
        )


@pytest.mark.parametrize(
    ("sides", "level"),
    [
        ((1000,), 0),
        ((30000,), 0),
        ((16384, 8192, 4096), 0),
        ((16385, 8192, 4097, 2048), 2),
        ((100000, 50000, 25000, 3000), 3),
        ((100000, 25000), 1),
    ],
)
def test_labels_of_huge_images_are_painted_on_a_level_that_can_be_drawn(
    sides: tuple[int, ...], level: int
) -> None:
    levels = [da.zeros((side, side // 4), dtype=np.uint8) for side in sides]
    data = levels if len(levels) > 1 else levels[0]
    image = Image(data, contrast_limits=(0, 1), multiscale=len(levels) > 1)
    assert labels_level(image) == level


def test_new_labels_fit_their_image() -> None:
    image = Image(
        grey(3, 20, 30, 3),
        rgb=True,
        scale=(2, 0.5, 0.5),
        translate=(1, 2, 3),
        rotate=[[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]],
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
    )
    labels = Labels(**new_labels_for(image, "strokes"))
    assert check_pair(image, labels) == 0
    assert (labels.name, labels.data.dtype) == ("strokes", np.uint8)
    assert labels.units == image.units
    assert labels.axis_labels == image.axis_labels
    assert not labels.data.any()
    assert new_labels_for(image, "many", highest=256)["data"].dtype == np.uint16


def test_new_labels_of_a_huge_image_lie_on_the_chosen_level() -> None:
    levels = [da.zeros((side, side), dtype=np.uint8) for side in (16400, 8200, 4100)]
    image = Image(levels, multiscale=True, contrast_limits=(0, 1), scale=(0.25, 0.25))
    labels = Labels(**new_labels_for(image, "strokes"))
    assert check_pair(image, labels) == 2
    np.testing.assert_allclose(labels.scale, 1.0)
    np.testing.assert_allclose(labels.translate, 0.375)


def test_what_is_drawn_in_a_real_window_is_the_visible_region(
    make_napari_viewer: Any,
) -> None:
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image(grey(2000, 2000))
    viewer.window._qt_window.resize(900, 700)
    # In napari before 0.9 the camera belongs to the viewer.
    camera = getattr(viewer, "scene", viewer).camera
    camera.center = (1000, 500)
    camera.zoom = 4
    viewer.screenshot(canvas_only=True)
    region = visible_region(image)
    assert region is not None
    y0, x0, y1, x1 = region
    assert (y0 + y1) / 2 == pytest.approx(1000, abs=2)
    assert (x0 + x1) / 2 == pytest.approx(500, abs=2)
    assert 20 < y1 - y0 < 700
