"""Open napari with images and the dock: what ``sparseseg open`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
from npe2 import plugin_manager

from napari_sparseseg.errors import ImageError
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.io.sources import may_be_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_sparseseg.gui.label_and_train import LabelAndTrain

PLUGIN = "napari-sparseseg"
DOCK = "Label and train"
BOXES_DOCK = "Boxes"


def open_window(files: Sequence[Path], sample: str | None = None) -> napari.Viewer:
    """Return a new viewer with *files*, or a *sample* of this plugin, and the dock.

    Files that cannot be read are told in the window, and the others are opened.
    """
    viewer = napari.Viewer(title="napari: sparse segmentation")
    for path in files:
        with telling():
            open_file(viewer, path)
    if sample is not None:
        viewer.open_sample(PLUGIN, sample)
    open_dock(viewer)
    return viewer


def open_dock(viewer: napari.Viewer) -> LabelAndTrain:
    """Return the dock of a viewer, opened where it is not open yet."""
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    dock: LabelAndTrain = widget
    return dock


def open_file(viewer: napari.Viewer, path: Path) -> None:
    """Open a file or folder with the readers of this plugin, else with others.

    Raises
    ------
    ImageError
        If none of them can read it.
    """
    try:
        viewer.open(str(path), plugin=own_reader(str(path)))
    except Exception as error:
        # Readers are plugins and raise whatever they like.
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ImageError(
            f"{path.name} cannot be opened ({reason.rstrip('.')}); open an image that "
            "napari or one of its plugins can read.",
            path=str(path),
        ) from error


def own_reader(path: str) -> str | None:
    """Return this plugin if it is to open a file or folder, None: any other one."""
    readers = plugin_manager.iter_compatible_readers(path)
    own = any(reader.plugin_name == PLUGIN for reader in readers)
    return PLUGIN if own and may_be_image(path) else None
