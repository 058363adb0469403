"""What importing the package costs and loads, each time in a fresh interpreter."""

import json
import subprocess
import sys
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
    ".api",
    ".cli",
    ".demo",
    ".engine.__main__",
    ".engine.worker",
    ".files",
    ".folders",
    ".pseudo_mask_folders",
    ".pseudo_masks.api",
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


def packages_loaded_by(*modules: str) -> dict[str, frozenset[str]]:
    """Import modules one after the other in a fresh interpreter.

    Returns
    -------
    dict of str to frozenset of str
        For each module the top-level packages that it added to the interpreter's own
        and those of the modules before it.
    """
    code = f"""
import importlib, json, sys
loaded = {{}}
for module in {modules}:
    before = set(sys.modules)
    importlib.import_module("napari_sparseseg" + module)
    loaded[module] = [each.partition(".")[0] for each in set(sys.modules) - before]
print(json.dumps(loaded))
"""
    loaded = cast("dict[str, list[str]]", json.loads(run_fresh(code)))
    return {module: frozenset(names) for module, names in loaded.items()}


def test_importing_the_package_loads_nothing_but_the_standard_library() -> None:
    loaded = packages_loaded_by("")[""]
    assert loaded - sys.stdlib_module_names == {"napari_sparseseg"}


def test_importing_the_package_takes_less_than_a_tenth_of_a_second() -> None:
    # Timed inside, so that the interpreter's own start does not count; the best of
    # several, so that a busy machine does not either.
    code = (
        "import time; start = time.perf_counter(); import napari_sparseseg; "
        "print(time.perf_counter() - start)"
    )
    assert min(float(run_fresh(code)) for _ in range(5)) < 0.1


def test_headless_modules_load_no_windows_and_the_first_two_no_heavy_libraries() -> (
    None
):
    # One interpreter for all, since it takes seconds to import torch.
    headless = packages_loaded_by(*HEADLESS)
    assert "torch" in headless[".api"]
    for module, loaded in headless.items():
        assert not loaded & WINDOWS, module
        if module in (".api", ".cli"):
            assert not loaded & LOADED_WHEN_USED, module


def test_importing_the_docks_loads_no_torch() -> None:
    docks = packages_loaded_by(".gui.label_and_train", ".gui.boxes", ".gui.predict")
    assert "napari" in docks[".gui.label_and_train"]
    for module, loaded in docks.items():
        assert not loaded & LEARNING, module


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
