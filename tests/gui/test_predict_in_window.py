"""The dock "Predict and export" in a real window, with the engine behind it."""

from __future__ import annotations

import functools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
import SimpleITK

from benchmarks._files_large import loadable
from napari_sparseseg.engine.messages import FileProgress
from napari_sparseseg.gui import predict, predict_settings
from napari_sparseseg.gui.engine_link import EngineLink
from napari_sparseseg.gui.launch import PLUGIN, open_file
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.io.model_file import save_model
from napari_sparseseg.io.sources import open_image
from napari_sparseseg.prediction.predictor import predict_image
from tests.prediction.test_predictor import random_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari
    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.predict import PredictAndExport

PATIENCE_MS = 300_000

STUB = Path(__file__).with_name("stub_engine.py")


@pytest.fixture
def viewer(
    make_napari_viewer: Callable[..., napari.Viewer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[napari.Viewer]:
    """Return a viewer whose dock keeps nothing outside of the test's folder."""
    monkeypatch.setattr(predict, "log_folder", lambda: tmp_path)
    monkeypatch.setattr(predict, "start_log", lambda: None)
    monkeypatch.setattr(predict_settings, "restore", lambda _: None)
    monkeypatch.setattr(predict_settings, "keep", lambda _: None)
    yield make_napari_viewer(show=True)


def open_dock(viewer: napari.Viewer) -> PredictAndExport:
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "Predict and export")
    dock: PredictAndExport = widget
    return dock


def press(dock: PredictAndExport, qtbot: QtBot) -> Any:
    """Press Predict and return the result's layer."""
    state, button = dock.state, dock.dock.run.predict_button
    qtbot.waitUntil(button.isEnabled, timeout=PATIENCE_MS)
    with qtbot.waitSignal(dock.controller.shown, timeout=PATIENCE_MS):
        button.click()
        assert dock.dock.run.cancel_button.isEnabled()
    qtbot.waitUntil(lambda: not state.cannot_predict, timeout=PATIENCE_MS)
    qtbot.waitUntil(lambda: dock.controller.labels is not None, timeout=PATIENCE_MS)
    return dock.controller.labels


def export(dock: PredictAndExport, path: Path, qtbot: QtBot) -> None:
    dock.controller.export(str(path))
    qtbot.waitUntil(lambda: not dock.state.exporting, timeout=PATIENCE_MS)
    assert path.exists()


def test_layers_are_followed_and_the_engine_waits(
    viewer: napari.Viewer, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, str(STUB), "works"]
    monkeypatch.setattr(
        predict, "EngineLink", functools.partial(EngineLink, command=command)
    )
    dock = open_dock(viewer)
    state = dock.state
    assert state.cannot_predict == "Starting, a few seconds …"
    viewer.add_image(np.zeros((9, 9)), name="tile")
    assert dock.controller.image is viewer.layers["tile"]
    assert set(state.refused) == {"stack", "slide"}
    viewer.add_image(np.zeros((3, 9, 9)), name="stack")
    dock.dock.what.images.setCurrentText("stack")
    assert set(state.refused) == {"slide"}
    viewer.add_labels(np.zeros((9, 9), np.uint8), name="strokes")
    assert dock.controller.labels is viewer.layers["strokes"]
    viewer.layers["stack"].name = "ct"
    assert dock.dock.what.images.currentText() == "ct"
    qtbot.waitUntil(lambda: state.engine == "ready", timeout=PATIENCE_MS)
    assert state.cannot_predict.startswith("Open the dock Label and train")
    assert not dock.dock.run.predict_button.isEnabled()
    dock.controller.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_series_is_predicted_and_exported(
    viewer: napari.Viewer, qtbot: QtBot, tmp_path: Path, data_dir: Path
) -> None:
    series = data_dir / "formats" / "dicom" / "dcmqi_ct3"
    source = open_image(series)
    pixels = np.asarray(source.data[...])
    model = loadable(random_network(pixels[1], 0.25))
    save_model(model, tmp_path / "m.safetensors")
    open_file(viewer, series)
    dock = open_dock(viewer)
    dock.controller.use_wishes(
        replace(dock.state.wishes, model=str(tmp_path / "m.safetensors"), what="stack")
    )
    result = press(dock, qtbot)
    assert [each for each in viewer.layers if is_prediction(each)] == [result]
    expected = np.stack([predict_image(model, plane)[0] for plane in pixels])
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(result.data, expected)

    export(dock, tmp_path / "labels.nii.gz", qtbot)
    written = SimpleITK.ReadImage(str(tmp_path / "labels.nii.gz"))
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
    image = SimpleITK.ReadImage(names)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(written), expected)
    assert written.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-3)
    assert written.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-6)
    export(dock, tmp_path / "labels.dcm", qtbot)
    segmentation = pydicom.dcmread(tmp_path / "labels.dcm")
    assert segmentation.Modality == "SEG"
    assert segmentation.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    dock.controller.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_slide_is_cancelled_within_a_second_and_goes_on(
    viewer: napari.Viewer, qtbot: QtBot, tmp_path: Path, data_dir: Path
) -> None:
    path = data_dir / "formats" / "wsi" / "CMU-1-Small-Region.svs"
    source = open_image(path)
    part = np.asarray(source.data[:512, :512])
    # Fine enough for the whole slide to be several chunks of its finest level.
    save_model(loadable(random_network(part, 0.5)), tmp_path / "m.safetensors")
    open_file(viewer, path)
    dock = open_dock(viewer)
    state = dock.state
    told: list[FileProgress] = []
    dock.link.told.connect(
        lambda event: told.append(event) if isinstance(event, FileProgress) else None
    )
    dock.controller.use_wishes(
        replace(state.wishes, model=str(tmp_path / "m.safetensors"), what="slide")
    )
    run = dock.dock.run
    qtbot.waitUntil(run.predict_button.isEnabled, timeout=PATIENCE_MS)
    run.predict_button.click()
    qtbot.waitUntil(lambda: (state.progress or 0) > 0, timeout=PATIENCE_MS)
    assert "Mpx/s" in run.speed.text()
    pressed = time.monotonic()
    run.cancel_button.click()
    qtbot.waitUntil(lambda: state.progress is None, timeout=PATIENCE_MS)
    assert time.monotonic() - pressed < 1
    assert state.status == "Cancelled; what was predicted stays."
    assert told[-1].done < told[-1].total
    told.clear()

    result = press(dock, qtbot)
    assert 0 < told[0].done < told[0].total
    height, width = source.data.shape[:2]
    assert result.multiscale
    assert tuple(result.data[0].shape) == (height, width)
    assert np.asarray(result.data[0][:512, :512]).any()
    np.testing.assert_allclose(result.scale, viewer.layers[0].scale[:2])
    export(dock, tmp_path / "labels.geojson", qtbot)
    found = json.loads((tmp_path / "labels.geojson").read_text())
    assert found["features"]
    dock.controller.close()
    # It is read from its folder as long as napari runs.
    assert np.asarray(result.data[0][:512, :512]).any()
