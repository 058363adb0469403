"""Where the images of a session are is kept on disk, so that labels find them again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from qtpy.QtCore import Signal

from napari_sparseseg.gui.fields import origin_of
from napari_sparseseg.gui.image_layers import path_of, series_of
from napari_sparseseg.gui.kept_part import KeptPart
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.planes import level_shape, placing_events, plain_placement
from napari_sparseseg.gui.session_images import ImageRecord, write_kept_images
from napari_sparseseg.io.fingerprint import fingerprint, fingerprint_of_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.layers import Image
    from qtpy.QtCore import QObject


class KeptImages(KeptPart):
    """Notes in the session folder where images are.

    Parameters
    ----------
    folder
        Gives the session folder of now.
    """

    _hashed = Signal(object, str)

    def __init__(
        self, folder: Callable[[], Path], parent: QObject | None = None
    ) -> None:
        super().__init__(folder, parent)
        self._followed: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        # By name: also images that were closed or renamed, since labels that are not
        # painted on meanwhile name them so.
        self._records: dict[str, ImageRecord] = {}
        # Hashing takes seconds where a disk is slow.
        self._hasher = ThreadPoolExecutor(max_workers=1)
        self._hashed.connect(self._on_hashed)

    def follow(self, images: Iterable[Image]) -> None:
        """Keep where images are from now on."""
        for image in images:
            if image not in self._followed:
                self._followed[image] = ""
                for event in _events(image):
                    event.connect(self._on_change)
                image.events.data.connect(self._on_data)
                self._hash(image)
                self._on_change()

    def take_over(self, records: Iterable[ImageRecord]) -> None:
        """Keep what another session says of images that are not open here."""
        self._records = {each.name: each for each in records} | self._records
        self._on_change()

    def close(self) -> None:
        """End: nothing is followed any more."""
        self._hasher.shutdown(cancel_futures=True)
        super().close()
        for image in list(self._followed):
            for event in _events(image):
                event.disconnect(self._on_change)
            image.events.data.disconnect(self._on_data)
        self._followed.clear()

    def _now(self) -> list[ImageRecord]:
        for image, content in self._followed.items():
            self._records[image.name] = _record_of(image, content)
        return list(self._records.values())

    def _write(self, folder: Path, content: list[ImageRecord]) -> None:
        write_kept_images(folder, content)

    @telling()
    def _on_data(self, event: Any) -> None:
        self._followed[event.source] = ""
        self._hash(event.source)

    def _hash(self, image: Image) -> None:
        source, data = _path_of(image), image.data
        if source:
            future = self._hasher.submit(_hash_of_file, Path(source))
        elif isinstance(data, np.ndarray):
            future = self._hasher.submit(fingerprint_of_pixels, data)
        else:
            return
        future.add_done_callback(
            lambda done: None if done.cancelled() else self._tell(image, done.result())
        )

    def _tell(self, image: Image, content: str) -> None:
        self._hashed.emit(image, content)

    def _on_hashed(self, image: Image, content: str) -> None:
        if image in self._followed:
            self._followed[image] = content
            self._on_change()


def _path_of(image: Image) -> str:
    """Return the path of an image's file, or of the slide that it is a field of.

    It does not depend on the working folder; addresses stay.
    """
    origin = origin_of(image)
    path = path_of(image) if origin is None else origin.path
    if not path or "://" in path:
        return path
    return str(Path(path).absolute())


def _hash_of_file(path: Path) -> str:
    try:
        return fingerprint(path)
    except OSError:
        return ""


def _record_of(image: Image, content: str) -> ImageRecord:
    source = image.source
    is_rgb = bool(image.rgb)
    return ImageRecord(
        name=image.name,
        path=_path_of(image),
        plugin=source.reader_plugin or "",
        sample=tuple(source.sample or ()),
        series=series_of(image),
        content=content,
        shape=level_shape(image),
        placement=plain_placement(image),
        contrast_limits=()
        if is_rgb
        else tuple(float(end) for end in image.contrast_limits),
        field=origin_of(image),
    )


def _events(image: Image) -> list[Any]:
    return [*placing_events(image), image.events.name, image.events.contrast_limits]
