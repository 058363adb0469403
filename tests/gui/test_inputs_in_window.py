"""Stacks and pyramids in a real window: the prediction is drawn where the tissue is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest

from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Labels
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.label_and_train import LabelAndTrain

    Window = tuple[napari.Viewer, LabelAndTrain]

SAMPLE = tissue_phantom(0, (208, 160))
assert SAMPLE.truth is not None
TRUTH = SAMPLE.truth
CLASSES = SAMPLE.classes

#: Learning for that long is enough on two busy cores.
PATIENCE_MS = 200_000

#: Share of points whose colour is that of the true class. Of the truth itself, mirrored
#: or a quarter of the picture away, less than 0.3 would agree.
AGREEMENT = 0.6


def train(window: Window, qtbot: QtBot, image: Image, strokes: Labels) -> Labels:
    """Press Train, and return the prediction once it stands alone on the image."""
    viewer, widget = window
    name = f"prediction of {image.name}"
    state, button = widget.state, widget.dock.training.train_button
    qtbot.waitUntil(button.isEnabled, timeout=PATIENCE_MS)
    button.click()
    qtbot.waitUntil(lambda: name in viewer.layers, timeout=PATIENCE_MS)
    widget.dock.training.stop_button.click()
    qtbot.waitUntil(
        lambda: state.phase == "idle" and state.progress is None, timeout=PATIENCE_MS
    )
    widget.controller.set_opacity(1.0)
    strokes.visible = False
    prediction: Labels = viewer.layers[name]
    return prediction


def agreement(
    viewer: napari.Viewer, truth: Any, scale: float, origin: tuple[float, float]
) -> float:
    """Compare colours on the canvas with the truth.

    Parameters
    ----------
    viewer
        Whose camera is not turned.
    truth
        (y, x) class values.
    scale
        Side of its pixels in the world.
    origin
        Where the centre of its first pixel is, (y, x) in the world.

    Returns
    -------
    float
        Share of the pixels on the canvas that have the colour of their class, the mean
        over the classes: most of the tissue is stroma.
    """
    camera = viewer.scene.camera
    drawn = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    yx = np.moveaxis(np.mgrid[2 : truth.shape[0] : 4, 2 : truth.shape[1] : 4], 0, -1)
    world = yx.reshape(-1, 2) * scale + origin
    middle = (np.array(drawn.shape[:2]) - 1) / 2
    place = np.round((world - camera.center[-2:]) * camera.zoom + middle).astype(int)
    inside = ((place >= 0) & (place < drawn.shape[:2])).all(axis=1)
    assert inside.sum() > 200
    colors = np.array([CLASSES.by_value(value).color for value in CLASSES.values])
    seen = drawn[tuple(place[inside].T)]
    nearest = np.abs(seen[:, None] - colors).sum(axis=-1).argmin(axis=1)
    true = truth[tuple(yx.reshape(-1, 2)[inside].T)]
    right = np.array(CLASSES.values)[nearest] == true
    return float(np.mean([right[true == value].mean() for value in np.unique(true)]))


@pytest.mark.timeout(600)
def test_planes_of_a_scaled_stack_are_predicted_where_they_are(
    window: Window, qtbot: QtBot
) -> None:
    viewer, widget = window
    widget.controller.classes.use(CLASSES)
    # Planes that cannot be taken for each other, of the same stain.
    planes = [SAMPLE.image, SAMPLE.image[::-1], SAMPLE.image[:, ::-1]]
    place: dict[str, Any] = {"scale": (4, 0.5, 0.5), "translate": (8, -20, 300)}
    image = viewer.add_image(np.stack(planes), rgb=True, name="stack", **place)
    labels = np.zeros((3, *TRUTH.shape), np.uint8)
    labels[1] = SAMPLE.labels[::-1]
    strokes = viewer.add_labels(labels, name="strokes", **place)
    viewer.dims.set_current_step(0, 1)
    viewer.reset_view()

    prediction = train(window, qtbot, image, strokes)
    assert prediction.data.shape == labels.shape
    assert prediction.data.dtype == np.uint8
    assert set(np.unique(prediction.data[1])) == set(CLASSES.values)
    assert not prediction.data[[0, 2]].any()
    assert agreement(viewer, TRUTH[::-1], 0.5, (-20, 300)) >= AGREEMENT

    # Another plane is predicted as soon as it is seen.
    viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(lambda: bool(prediction.data[2].all()), timeout=PATIENCE_MS)
    qtbot.wait(100)
    assert agreement(viewer, TRUTH[:, ::-1], 0.5, (-20, 300)) >= AGREEMENT
    assert not prediction.data[0].any()


@pytest.mark.timeout(600)
def test_a_pyramid_is_predicted_on_the_level_that_is_painted(
    window: Window, qtbot: QtBot
) -> None:
    viewer, widget = window
    widget.controller.classes.use(CLASSES)
    # As high as a slide, so that New labels takes a coarser level than the finest.
    n = 20
    tissue = np.concatenate([SAMPLE.image[:: (-1) ** i] for i in range(n)])
    truth = np.concatenate([TRUTH[:: (-1) ** i] for i in range(n)])
    chunked = da.from_array(tissue, chunks=(208, 160, 3))  # type: ignore[no-untyped-call]
    levels = [
        chunked.repeat(4, axis=0).repeat(4, axis=1),
        chunked.repeat(2, axis=0).repeat(2, axis=1),
        chunked,
        chunked[::2, ::2],
    ]
    image = viewer.add_image(
        levels, multiscale=True, rgb=True, name="slide", scale=(0.25, 0.25)
    )
    widget.dock.pairs.new_button.click()
    strokes = viewer.layers["slide strokes"]
    assert strokes.data.shape == truth.shape
    at, value = np.nonzero(SAMPLE.labels), SAMPLE.labels[np.nonzero(SAMPLE.labels)]
    strokes.data_setitem((at[0] + 4 * 208, at[1]), value)
    # Pixels of the painted level are as large as the unit, their first centre lies in
    # the middle of four of the finest.
    origin = (1.5 * 0.25, 1.5 * 0.25)
    viewer.scene.camera.center = (5 * 208, 80)
    viewer.scene.camera.zoom = 2

    prediction = train(window, qtbot, image, strokes)
    assert [each.shape for each in prediction.data] == [truth.shape, (2080, 80)]
    assert set(np.unique(prediction.data[0])) == set(CLASSES.values)
    assert agreement(viewer, truth, 1.0, origin) >= AGREEMENT

    # From afar the coarser level is drawn.
    viewer.scene.camera.zoom = 0.2
    viewer.screenshot(canvas_only=True, flash=False)
    qtbot.waitUntil(lambda: prediction.data_level == 1, timeout=10_000)
    assert agreement(viewer, truth, 1.0, origin) >= AGREEMENT
