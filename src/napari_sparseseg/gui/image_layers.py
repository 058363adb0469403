"""Images of files as layers: where they lie, and what the user is asked about them."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import napari
import numpy as np
from napari.layers import Image
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QInputDialog

from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.gui.layer_keys import SOURCE_KEY
from napari_sparseseg.io.lazy_arrays import Channel
from napari_sparseseg.io.sources import lack_of_size, list_scenes, open_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from qtpy.QtWidgets import QWidget

    from napari_sparseseg.io.geometry import Geometry, Unit
    from napari_sparseseg.io.sources import ImageSource, LazyArray

    Length = Literal["um", "mm"]
    LayerTuple = tuple[Any, dict[str, Any], str]

#: What a reader of napari returns where there is nothing to open.
NOTHING: list[Any] = [(None,)]

#: How napari calls units of length.
_UNITS = {"um": "um", "mm": "mm", "px": "pixel"}

#: And how it names those of a layer.
_NAMED: dict[str, Length] = {"micrometer": "um", "millimeter": "mm"}

#: What napari says of several units comes when it draws, and would cover ours before.
BESIDE_MS = 1000

#: How they are written.
_WRITTEN = {"um": "µm", "mm": "mm"}

# The series of an image that is opened again as it was, "" where it has none.
_KNOWN: ContextVar[str | None] = ContextVar("series that is known", default=None)


@contextmanager
def without_questions(series: str) -> Iterator[None]:
    """Let images be opened meanwhile as they were before: with this series, "" = none.

    What else the user was asked is known to who does so.
    """
    token = _KNOWN.set(series)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def open_layers(path: Path) -> list[Any]:
    """Open an image for napari, and ask what the file leaves open.

    In a window the user chooses one of several series or images, and says how large
    pixels are where the file does not: those of a pyramid, and of what is opened beside
    images of a known size. What goes wrong is told there, and nothing is opened.

    Raises
    ------
    SparseSegError
        Without a window, if the image cannot be opened.
    """
    window, known = _window(), _KNOWN.get()
    if window is None or known is not None:
        return layers_of(open_image(path, series=known or None))
    try:
        opened = _opened(path, window)
    except SparseSegError as error:
        # napari shows the beginning of a sentence, which the path would take up.
        show_error(str(error).replace(str(path), path.name))
        return NOTHING
    if opened is None:
        return NOTHING
    source, um_per_px = opened
    for note in source.notes:
        # What was just asked for is known to be missing.
        if note != lack_of_size(path) or not _asks_for_size(source):
            show_info(note)
    beside = _note_beside(source.name, _placed(source, um_per_px).unit)
    if beside:
        QTimer.singleShot(BESIDE_MS, partial(show_info, beside))
    return layers_of(source, um_per_px)


def layers_of(source: ImageSource, um_per_px: float | None = None) -> list[LayerTuple]:
    """Give an image as layers for napari, one a channel unless it is RGB.

    Levels are arrays that are read by slices. The layer lies where the geometry says;
    of volumes whose axes are not those of the patient only the spacing counts, since
    napari shows no oblique planes. It is measured in the unit of length of what is
    open: where layers have several napari 0.9 paints elsewhere. The ``metadata`` have
    under `SOURCE_KEY` the path, the series, the geometry and the DICOM files.

    Parameters
    ----------
    source
        The image.
    um_per_px
        What the user has said of its pixels, where the file does not; None: nothing.
    """
    placed = _placed(source, um_per_px)
    unit = _unit_there()
    if unit is not None:
        placed = placed.lengths(unit)
    if source.is_rgb or source.n_channels == 1:
        return [_layer(source, placed, source.levels, source.name)]
    return [
        _layer(
            source,
            placed,
            [Channel(level, index) for level in source.levels],
            f"{source.name} channel {index + 1}",
            blending="additive",
        )
        for index in range(source.n_channels)
    ]


def series_of(image: Image) -> str:
    """Return the UID of the DICOM series that an image layer is, empty of others."""
    series: str = image.metadata.get(SOURCE_KEY, {}).get("series") or ""
    return series


def path_of(image: Image) -> str:
    """Return the path of the file that an image layer is of, empty of others.

    napari notes it of what it opens itself, and this plugin of all that it reads.
    """
    noted = image.metadata.get(SOURCE_KEY, {}).get("path")
    return str(image.source.path or noted or "")


def _placed(source: ImageSource, um_per_px: float | None) -> Geometry:
    """Return where an image lies with what the user has said."""
    given = source.geometry
    return given if um_per_px is None else given.with_um_per_px(um_per_px)


def _layer(
    source: ImageSource,
    placed: Geometry,
    levels: Sequence[LazyArray],
    name: str,
    **more: str,
) -> LayerTuple:
    multiscale = len(levels) > 1
    arguments = {
        "name": name,
        "rgb": source.is_rgb,
        "multiscale": multiscale,
        "scale": placed.spacing,
        "translate": _translation(placed),
        "units": [
            "pixel" if axis == "t" else _UNITS[placed.unit] for axis in placed.axes
        ],
        "axis_labels": placed.axes,
        "metadata": {
            SOURCE_KEY: {
                "path": str(source.path),
                "series": source.series,
                "geometry": source.geometry,
                "files": [str(file) for file in source.files],
            }
        },
        **more,
    }
    if source.window is not None:
        arguments["contrast_limits"] = source.window
    return (list(levels) if multiscale else levels[0]), arguments, "image"


def _translation(geometry: Geometry) -> tuple[float, ...]:
    """Give where a layer begins, 0 where axes are not those of the patient."""
    straight = np.eye(3)[::-1]
    if geometry.direction is not None and not np.allclose(geometry.direction, straight):
        return (0.0,) * len(geometry.axes)
    return geometry.origin


def _opened(path: Path, window: QWidget) -> tuple[ImageSource, float | None] | None:
    """Open an image after the user has answered what is open; None: cancelled.

    Returns
    -------
    tuple or None
        The image, and micrometres per pixel where the user has given them.
    """
    series = None
    if len(found := list_scenes(path)) > 1:
        series = ask_series(found, path.name, window)
        if series is None:
            return None
    source = open_image(path, series=series)
    if source.geometry.unit == "px" and _asks_for_size(source):
        return source, ask_um_per_px(source.name, window)
    return source, None


def _asks_for_size(source: ImageSource) -> bool:
    """Tell whether the pixel size of an image matters: of a pyramid, beside others."""
    return len(source.levels) > 1 or _unit_there() is not None


def _note_beside(name: str, unit: Unit) -> str:
    """Say what follows where pixels of no known size come to lie beside others.

    Parameters
    ----------
    name, unit
        Of the image that is opened.
    """
    there: Unit | None = _unit_there()
    if unit == "px":
        unknown, known = name, there
    else:
        # Told at the first one whose size is known.
        unknown, known = _without_size() if there is None else "", unit
    if known is None or not unknown:
        return ""
    return (
        f"'{unknown}' does not say how large its pixels are: beside images that do, "
        f"napari draws them as wide as 1 {_WRITTEN[known]}, and they are learned from "
        "as if they were as large as the others; open it again to give their size."
    )


def ask_series(found: Mapping[str, str], name: str, window: QWidget) -> str | None:
    """Let the user choose one of the images of `list_scenes`; None: cancelled."""
    choices = list(found.values())
    chosen, is_chosen = QInputDialog.getItem(
        window,
        "Open one of several",
        f"'{name}' has {len(found)} images or series.\nWhich one is to be opened?",
        choices,
        0,
        False,
    )
    return list(found)[choices.index(chosen)] if is_chosen else None


def ask_um_per_px(name: str, window: QWidget) -> float | None:
    """Ask how large pixels are; None where the user does not know."""
    dialog = QInputDialog(window)
    dialog.setWindowTitle("Pixel size")
    dialog.setLabelText(
        f"'{name}' does not say how large its pixels are.\n"
        "Micrometres per pixel, or leave it empty:"
    )
    dialog.setOkButtonText("Set")
    dialog.setCancelButtonText("Not known")
    is_given = dialog.exec()
    text = dialog.textValue().strip().replace(",", ".")
    dialog.deleteLater()
    if not is_given or not text:
        return None
    try:
        um_per_px = float(text)
    except ValueError:
        um_per_px = 0.0
    if not 0 < um_per_px < np.inf:
        show_error(
            f"'{text}' is no pixel size; the image is shown in pixels. Open it again "
            "to give a number of micrometres above 0, as 0.25."
        )
        return None
    return um_per_px


def _unit_there() -> Length | None:
    """Return the unit of length of the images that are open; None: of none."""
    units = [_NAMED.get(str(image.units[-1])) for image in _images_there()]
    return next((unit for unit in units if unit is not None), None)


def _without_size() -> str:
    """Return the name of an open image whose pixel size is not known."""
    names = [each.name for each in _images_there() if str(each.units[-1]) == "pixel"]
    return next((name for name in names), "")


def _images_there() -> list[Image]:
    viewer = napari.current_viewer()
    layers = () if viewer is None else viewer.layers
    return [layer for layer in layers if isinstance(layer, Image)]


def _window() -> QWidget | None:
    """Return napari's window, None where there is none."""
    viewer = napari.current_viewer()
    window = None if viewer is None else getattr(viewer, "window", None)
    frame: QWidget | None = getattr(window, "_qt_window", None)
    return frame
