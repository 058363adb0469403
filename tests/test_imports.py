"""What importing the package costs and loads, each time in a fresh interpreter."""

import json
import subprocess
import sys
from functools import cache
from typing import cast

import pytest

import napari_sparseseg

WINDOWS = {"PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy", "magicgui", "napari"}
LEARNING = {"kornia", "torch", "torchvision"}
LOADED_WHEN_USED = {
    *("SimpleITK", "dask", "kornia", "onnx", "onnxruntime", "openslide", "pydicom"),
    *("torchvision", "zarr"),
}
HEADLESS = [
    "api",
    "cli",
    "demo",
    "engine.__main__",
    "engine.worker",
    "files",
    "folders",
    "pseudo_mask_folders",
    "pseudo_masks.api",
]

#: Opens the dock with a sample, but no engine, and tells which modules are loaded.
OPEN_THE_DOCK = """
import json, sys, time
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtWidgets import QApplication
from napari_sparseseg.engine.process import EngineProcess
from napari_sparseseg.gui.label_and_train import LabelAndTrain
from napari_sparseseg.gui.sample_data import open_tissue_phantom

EngineProcess.start = lambda self: None
application = QApplication([])
viewer = ViewerModel()
dock = LabelAndTrain(viewer)
for layer in open_tissue_phantom():
    viewer.add_layer(Layer.create(*layer))
end = time.monotonic() + 30
while len(dock.state.counts) < 4:
    assert time.monotonic() < end, dock.state
    application.processEvents()
dock.controller.close()
print(json.dumps(sorted(sys.modules)))
"""


def run_fresh(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


@cache
def packages_loaded_by(module: str) -> frozenset[str]:
    """Top-level packages that `import module` adds to a fresh interpreter's own."""
    code = (
        "import json, sys; before = set(sys.modules); "
        f"import {module}; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    names = cast("list[str]", json.loads(run_fresh(code)))
    return frozenset(name.partition(".")[0] for name in names)


def test_importing_the_package_loads_nothing_but_the_standard_library() -> None:
    loaded = packages_loaded_by("napari_sparseseg")
    assert loaded - sys.stdlib_module_names == {"napari_sparseseg"}


def test_importing_the_package_takes_less_than_a_tenth_of_a_second() -> None:
    # Timed inside, so that the interpreter's own start does not count; the best of
    # several, so that a busy machine does not either.
    code = (
        "import time; start = time.perf_counter(); import napari_sparseseg; "
        "print(time.perf_counter() - start)"
    )
    assert min(float(run_fresh(code)) for _ in range(5)) < 0.1


@pytest.mark.parametrize("module", HEADLESS)
def test_headless_modules_load_no_window_toolkit(module: str) -> None:
    loaded = packages_loaded_by(f"napari_sparseseg.{module}")
    assert "napari_sparseseg" in loaded
    assert not loaded & WINDOWS


@pytest.mark.parametrize("module", ["napari_sparseseg.api", "napari_sparseseg.cli"])
def test_heavy_libraries_wait_until_they_are_used(module: str) -> None:
    assert not packages_loaded_by(module) & LOADED_WHEN_USED


@pytest.mark.parametrize("module", ["gui.label_and_train", "gui.boxes", "gui.predict"])
def test_importing_a_dock_loads_no_torch(module: str) -> None:
    loaded = packages_loaded_by(f"napari_sparseseg.{module}")
    assert "napari" in loaded
    assert not loaded & LEARNING


def test_opening_the_dock_loads_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    names = cast("list[str]", json.loads(run_fresh(OPEN_THE_DOCK)))
    loaded = {name.partition(".")[0] for name in names}
    assert {"napari", "qtpy"} <= loaded
    assert not loaded & LEARNING


@pytest.mark.parametrize("name", napari_sparseseg.__all__)
def test_every_public_name_resolves_and_is_listed(name: str) -> None:
    assert getattr(napari_sparseseg, name) is not None
    assert name in dir(napari_sparseseg)


def test_an_unknown_name_is_refused_like_any_modules() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segment_everything'"):
        napari_sparseseg.segment_everything  # noqa: B018


def test_the_first_layer_loads_little_once_the_rest_was_loaded_ahead() -> None:
    code = """
import sys
import numpy as np
from napari.layers import Image, Labels
from napari_sparseseg.gui.load_ahead import load_ahead
early = "pandas" in sys.modules
load_ahead().join()
before = set(sys.modules)
Image(np.zeros((2, 2, 3), np.uint8))
Labels(np.zeros((2, 2), np.uint8))
late = {name.split(".")[0] for name in set(sys.modules) - before}
print(early, late & {"pandas", "scipy", "skimage"}, load_ahead() is load_ahead())
"""
    assert run_fresh(code).split("\n")[0] == "False set() True"
