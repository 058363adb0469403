"""Libraries are silenced in all threads, and what others have set stays as it is."""

from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
import rasterio
import tifffile

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.io import geojson
from napari_sparseseg.io.dicom_series import find_series
from napari_sparseseg.io.geometry import Field
from napari_sparseseg.io.images import read_image
from napari_sparseseg.io.lazy_arrays import Channel
from napari_sparseseg.io.silence import never_log, never_warn
from tests.io.written import write_series

if TYPE_CHECKING:
    from pathlib import Path


def test_a_filter_is_set_once_and_again_where_another_stands_before_it() -> None:
    never_warn(UserWarning, module="tests")
    filters = list(warnings.filters)
    never_warn(UserWarning, module="tests")
    assert list(warnings.filters) == filters
    warnings.warn("nobody hears of it", stacklevel=1)
    warnings.simplefilter("error")
    never_warn(UserWarning, module="tests")
    warnings.warn("nobody hears of it", stacklevel=1)
    with pytest.raises(DeprecationWarning):
        warnings.warn("of another kind", DeprecationWarning, stacklevel=1)


def test_nothing_is_logged_by_a_library_and_its_parts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loggers = [logging.getLogger(f"of_tests{part}") for part in ("", ".part", "_two")]
    never_log("of_tests")
    for each in loggers:
        each.error("from %s", each.name)
    assert caplog.messages == ["from of_tests_two"]


class Paused:
    """Lets a function be called in a thread, and its end be waited for."""

    def __init__(self, real: Any) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self._real = real

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.begun.set()
        assert self.may_end.wait(20)
        return self._real(*args, **options)


def test_reading_dicom_in_a_thread_leaves_what_others_set_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path)
    paused = Paused(pydicom.dcmread)
    monkeypatch.setattr(pydicom, "dcmread", paused)
    level = logging.getLogger("pydicom").level
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(find_series, tmp_path)
        assert paused.begun.wait(20)
        assert logging.getLogger("pydicom").level == level
        warnings.filterwarnings("ignore", "of the window")
        paused.may_end.set()
        assert found.result()
    warnings.warn("of the window", stacklevel=1)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"},
        {"GDAL_PAM_ENABLED": "NO", "GDAL_GEOREF_SOURCES": "INTERNAL"},
    ],
)
def test_outlines_of_a_large_image_leave_what_others_set_meanwhile(
    environment: dict[str, str],
) -> None:
    """The labels are read from a file, of which rasterio says that it is no map."""
    labels = np.zeros((64, 64, 1), np.uint8)
    labels[8:16, 20:40] = 1
    lazy = Channel(labels, 0)
    classes = ClassTable().add("gland")
    field = Field(offset_px=(0.1, 7.3), step_px=1 / 3)
    features = geojson.iter_features(lazy, classes, field=field)
    with rasterio.Env(**environment):
        first = next(features)
    warnings.filterwarnings("ignore", "of the window")
    assert list(features) == []
    warnings.warn("of the window", stacklevel=1)
    (expected,) = geojson.iter_features(labels[..., 0], classes, field=field)
    assert first == expected


def test_pages_that_another_file_lacks_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "complete.tif"
    tifffile.imwrite(path, np.ones((8, 8), np.uint8))
    paused = Paused(tifffile.TiffFile)
    monkeypatch.setattr(tifffile, "TiffFile", paused)
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(read_image, path)
        assert paused.begun.wait(20)
        tifffile.logger().warning("TiffPages: invalid page offset")
        paused.may_end.set()
        assert found.result().data.shape == (8, 8)
