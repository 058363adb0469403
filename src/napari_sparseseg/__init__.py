"""Segmentation learned from sparse strokes: for napari, Python and the command line.

The public names are resolved on first use, so that importing the package loads no
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.api import (
        evaluate,
        export_onnx,
        iter_train,
        load_model,
        predict,
        save_model,
        train,
    )
    from napari_sparseseg.errors import SparseSegError
    from napari_sparseseg.files import iter_predict_file, predict_file
    from napari_sparseseg.io.annotation_files import read_annotations, read_labels
    from napari_sparseseg.io.export import export_labels
    from napari_sparseseg.io.sources import list_series, open_image
    from napari_sparseseg.pseudo_masks.api import make_pseudo_masks

    __version__: str

__all__ = [
    "Box",
    "SparseSegError",
    "__version__",
    "evaluate",
    "export_labels",
    "export_onnx",
    "iter_predict_file",
    "iter_train",
    "list_series",
    "load_model",
    "make_pseudo_masks",
    "open_image",
    "predict",
    "predict_file",
    "read_annotations",
    "read_labels",
    "save_model",
    "train",
]

_HOMES = {
    "Box": "napari_sparseseg.annotations.boxes",
    "SparseSegError": "napari_sparseseg.errors",
    "evaluate": "napari_sparseseg.api",
    "export_labels": "napari_sparseseg.io.export",
    "export_onnx": "napari_sparseseg.api",
    "iter_predict_file": "napari_sparseseg.files",
    "iter_train": "napari_sparseseg.api",
    "list_series": "napari_sparseseg.io.sources",
    "load_model": "napari_sparseseg.api",
    "make_pseudo_masks": "napari_sparseseg.pseudo_masks.api",
    "open_image": "napari_sparseseg.io.sources",
    "predict": "napari_sparseseg.api",
    "predict_file": "napari_sparseseg.files",
    "read_annotations": "napari_sparseseg.io.annotation_files",
    "read_labels": "napari_sparseseg.io.annotation_files",
    "save_model": "napari_sparseseg.api",
    "train": "napari_sparseseg.api",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-sparseseg")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
