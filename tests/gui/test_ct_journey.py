"""From a CT series to NIfTI and DICOM-SEG, with a crash of napari on the way."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtWidgets import QFileDialog, QMessageBox
from scipy.ndimage import maximum_filter, minimum_filter

from napari_sparseseg.annotations.classes import read_class_table
from napari_sparseseg.gui import session_folder, settings
from napari_sparseseg.gui.launch import PLUGIN, open_dock
from napari_sparseseg.gui.log import log_folder
from tests.gui.ct_painter import PATIENCE_S
from tests.gui.mouse import TEST

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from numpy.typing import NDArray

    from napari_sparseseg.gui.label_and_train import LabelAndTrain

    Stroke = tuple[int, int, int, int, int]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

REPOSITORY = Path(__file__).resolve().parents[2]

#: Who must not be found in anything but DICOM's own files.
PATIENT, PATIENT_ID = "Meier^Maximiliane", "geheim-4711"

#: Values of the two classes, and the HU between which they lie.
AIR, BODY = 1, 2
AIR_HU, BODY_HU = -600, -200

#: Planes that are painted on, and (height, width) of what a stroke needs, in pixels.
PLANES = (12, 30, 48)
AROUND_PX = 9, 30
STROKE_PX = 18

#: Strokes of a class on a plane: at these shares of the spots from top to bottom.
SPOTS = 0.1, 0.3, 0.5, 0.7, 0.9


@pytest.fixture
def folder(data_dir: Path, tmp_path: Path) -> Path:
    """Return a folder with a real series of somebody who can be recognised."""
    import pydicom

    source = data_dir / "formats" / "dicom" / "ibsi1_lung_phantom" / "CT"
    if not source.exists():
        pytest.skip("there is no real CT series")
    folder = tmp_path / "Fall 1, ü"
    (folder / "CT").mkdir(parents=True)
    for file in source.iterdir():
        data = pydicom.dcmread(file)
        data.PatientName, data.PatientID = PATIENT, PATIENT_ID
        data.save_as(folder / "CT" / file.name)
    return folder


def read_series(folder: Path) -> Any:
    """Read the series with SimpleITK."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def strokes_on(hu: NDArray[Any]) -> list[Stroke]:
    """Return (plane, class, y, x0, x1) of strokes that lie well inside their class."""
    strokes = []
    for plane in PLANES:
        inside = {
            AIR: maximum_filter(hu[plane], AROUND_PX, mode="nearest") < AIR_HU,
            BODY: minimum_filter(hu[plane], AROUND_PX, mode="nearest") > BODY_HU,
        }
        for value, fits in inside.items():
            # Whole strokes are on the canvas.
            margin = STROKE_PX
            spots = np.argwhere(fits[margin:-margin, margin:-margin]) + margin
            for share in SPOTS:
                y, x = spots[int(share * len(spots))].tolist()
                half = STROKE_PX // 2
                strokes.append((plane, value, y, x - half, x + half))
    return strokes


def paint_and_kill(folder: Path) -> None:
    """Let another napari paint, train and save; kill it."""
    painter = subprocess.Popen(
        [sys.executable, "-m", "tests.gui.ct_painter", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "QT_QPA_PLATFORM": "xcb", "PYTHONUTF8": "1"},
    )
    with painter:
        end = time.monotonic() + PATIENCE_S
        while not (folder / "done").exists():
            assert painter.poll() is None, "the window has ended by itself"
            assert time.monotonic() < end
            time.sleep(0.1)
        painter.send_signal(signal.SIGKILL)


class User:
    """Sees a window, and takes pictures of it."""

    def __init__(self, viewer: napari.Viewer, folder: Path) -> None:
        self.viewer, self.folder = viewer, folder

    def wait(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end
            TEST.qWait(50)

    def take_picture(self, name: str) -> None:
        TEST.qWait(500)
        path = str(self.folder / f"{name}.png")
        self.viewer.window.screenshot(path, canvas_only=False, flash=False)

    def restore(self) -> LabelAndTrain:
        """Open the dock, and answer its one question."""
        dock = open_dock(self.viewer)
        self.wait(lambda: dock.dock.findChildren(QMessageBox))
        (question,) = dock.dock.findChildren(QMessageBox)
        assert "napari ended unexpectedly. Your strokes of" in question.text()
        self.wait(question.isVisible)
        question.grab().save(str(self.folder / "1 question.png"))
        (button,) = [each for each in question.buttons() if each.text() == "Open"]
        button.click()
        return dock

    def predict(self) -> Labels:
        """Predict the whole volume with what the first dock has loaded."""
        _, predict = self.viewer.window.add_plugin_dock_widget(
            PLUGIN, "Predict and export"
        )
        state, what = predict.state, predict.dock.what.what
        self.wait(lambda: state.engine == "ready")
        what.setCurrentIndex(what.findData("stack"))
        what.activated.emit(what.currentIndex())
        self.wait(lambda: not state.cannot_predict)
        predict.dock.run.predict_button.click()
        self.wait(
            lambda: state.progress is None and "segmentation" in str(self.viewer.layers)
        )
        (result,) = [
            each
            for each in self.viewer.layers
            if isinstance(each, Labels) and each.name.startswith("segmentation")
        ]
        self.take_picture("3 predicted")
        for name in ("lung.nii.gz", "lung.dcm"):
            self.export(predict, self.folder / name)
        return result

    def export(self, predict: Any, path: Path) -> None:
        answer = str(path), ""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: answer)
            predict.dock.export.export_button.click()
        self.wait(lambda: path.exists() and not predict.state.exporting)


@pytest.fixture
def user(
    folder: Path,
    make_napari_viewer: Callable[..., napari.Viewer],
    monkeypatch: pytest.MonkeyPatch,
) -> User:
    """Return who starts napari again, with the settings and sessions of before."""
    sessions = folder / "data" / "napari-sparseseg" / "sessions"
    monkeypatch.setattr(session_folder, "default_root", lambda: sessions)
    for name in ("restore", "keep", "follow"):
        monkeypatch.setattr(settings, name, lambda _: None)
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1500, 950)
    return User(viewer, folder)


def test_a_ct_series_is_labelled_lost_restored_predicted_and_exported(
    user: User, folder: Path
) -> None:
    series = read_series(folder / "CT")
    import SimpleITK as sitk

    hu = sitk.GetArrayFromImage(series)
    strokes = strokes_on(hu)
    (folder / "strokes.json").write_text(json.dumps(strokes))
    paint_and_kill(folder)
    dock = user.restore()
    check_restored(user, dock, hu, strokes)
    history = dock.dock.model.history
    assert history.count() == 1
    saved = history.item(0)
    assert saved is not None
    assert "lung.safetensors: " in saved.text()
    user.take_picture("2 restored")
    history.itemActivated.emit(saved)
    user.wait(lambda: "Loaded lung.safetensors" in dock.dock.status.text())
    result = user.predict()
    labels = np.asarray(result.data)
    truth = np.where(hu > (AIR_HU + BODY_HU) / 2, BODY, AIR)
    assert np.mean(labels == truth) > 0.9
    check_nifti(folder / "lung.nii.gz", labels, series)
    check_segmentation(folder / "lung.dcm", labels, series)
    check_that_nobody_is_named(folder)
    dock.controller.close()


def check_restored(
    user: User, dock: LabelAndTrain, hu: NDArray[Any], strokes: list[Stroke]
) -> None:
    """Check that image, strokes and classes are those of before."""
    (image,) = [each for each in user.viewer.layers if isinstance(each, Image)]
    np.testing.assert_array_equal(np.asarray(image.data), hu)
    (pair,) = dock.controller.annotations.pairs
    assert pair.image is image
    painted = np.asarray(pair.labels.data)
    assert np.unique(painted.nonzero()[0]).tolist() == list(PLANES)
    for plane, value, y, x0, x1 in strokes:
        assert (painted[plane, y, x0 + 2 : x1 - 2] == value).all()
    assert dock.state.classes.names == ("background", "body")


def check_nifti(path: Path, labels: NDArray[Any], series: Any) -> None:
    """Read it with SimpleITK: values, place and names are the same."""
    import SimpleITK as sitk

    read = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), labels)
    for about in ("GetSpacing", "GetOrigin", "GetDirection"):
        given, expected = (getattr(each, about)() for each in (read, series))
        np.testing.assert_allclose(given, expected, atol=1e-4)
    table = read_class_table(path.with_name("lung.classes.json"))
    assert dict(table.named_values) == {AIR: "background", BODY: "body"}


def check_segmentation(path: Path, labels: NDArray[Any], series: Any) -> None:
    """Read it with pydicom and highdicom: values, place and names are the same."""
    import highdicom
    import pydicom

    data = pydicom.dcmread(path)
    assert str(data.PatientName) == PATIENT
    names = [str(each.SegmentLabel) for each in data.SegmentSequence]
    assert names == ["background", "body"]
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    spacing = np.array(series.GetSpacing())
    direction = np.array(series.GetDirection()).reshape(3, 3)
    for plane, values in enumerate(volume.array):
        # Its planes may be in any order: each is found where it lies.
        place = (volume.affine @ (plane, 0, 0, 1))[:3] - series.GetOrigin()
        x, y, z = np.linalg.inv(direction) @ place / spacing
        np.testing.assert_allclose((x, y), 0, atol=1e-2)
        np.testing.assert_array_equal(values, labels[round(z)])


def check_that_nobody_is_named(folder: Path) -> None:
    """Look into all files of the session, the logs, the model and the exports."""
    files = [
        each
        for place in (folder, log_folder())
        for each in place.rglob("*")
        if each.is_file() and each.parent.name != "CT" and each.suffix != ".dcm"
    ]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        for word in (*PATIENT.split("^"), PATIENT_ID):
            assert word.encode() not in content, file
            assert word not in file.name
